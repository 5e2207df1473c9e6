//! `carillon history`: what happened, of a device, a message or a time, from the lake and what the topic has beyond it.
//!
//! It reads the topic first, from where the lake was said to end, and the lake after it. So what an archiver moves
//! meanwhile is in both rather than in neither, and what is in both is shown once. It writes nothing anywhere, and no
//! archiver or central notices it.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use carillon_persist::history::kafka::{self, KafkaError, KafkaOptions, Rest, Start};
use carillon_persist::history::lake::{Fork, Lake, LakeError, LakeUrl, Query};
use carillon_persist::history::{CSV_HEADER, EventLine, EventName, Record, pseudonym_of};
use carillon_persist::{StoreError, StoreOptions, StoreUrl};
use carillon_world::{DeviceId, Millis};
use indicatif::ProgressBar;

use super::options::{Format, Options};
use crate::config::{HistorySettings, Loaded, Settings, with_password};
use crate::failure::Failure;

/// Forks of all shards that are regarded: one is a disaster.
const FORKS_MAX: usize = 10_000;
const TICK: Duration = Duration::from_millis(200);

/// No answer, or not the whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    #[error(
        "there is neither a lake at {0} nor a topic: give --history-lake, --history-kafka-brokers or --data"
    )]
    Nowhere(LakeUrl),
    #[error(
        "the store has no pseudonym of device {0}: nothing was told of it, or it was forgotten"
    )]
    Nameless(DeviceId),
    #[error(
        "ask the store at {url} for the device's pseudonym; give --central-store, or --pseudonym instead of --device"
    )]
    Store { url: StoreUrl, source: StoreError },
    #[error("read the topic")]
    Kafka(#[from] KafkaError),
    #[error("read the lake")]
    Lake(#[from] LakeError),
    #[error(
        "this is not all: {forgotten} messages were forgotten by Kafka before they came into the lake, and {unreadable} of the topic are no records"
    )]
    NotAll { forgotten: u64, unreadable: u64 },
}

/// Looks, and prints what it finds.
///
/// # Errors
/// [`Failure::History`] if not all could be read, [`Failure::Output`] if it cannot be printed for another reason than
/// that nobody reads any more.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let Loaded { settings, .. } = options.sources().load()?;
    crate::log::start_text("warn");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let answered = runtime.block_on(answer(options, &settings));
    runtime.shutdown_background();
    match answered {
        // As when `head` has what it wants.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        answered => answered,
    }
}

async fn answer(options: &Options, settings: &Settings) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut query = options.query(Millis(now.as_millis() as u64));
    let shown = Shown::start();
    let gathered = gather(options, settings, &mut query, &shown).await;
    let Gathered { lake, tail, rest } = gathered.map_err(Failure::History)?;
    let mut out = Output::new(options.format, query.limit);
    out.begin().map_err(Failure::Output)?;
    let mut merge = Merge { tail, out: &mut out, failed: None, shown: &shown };
    if let Some(lake) = lake {
        shown.say("reading the lake");
        let read = lake.read(&query, |record| merge.take(record)).await;
        read.map_err(|error| Failure::History(error.into()))?;
    }
    merge.end()?;
    shown.clear();
    out.flush().map_err(Failure::Output)?;
    if out.printed == query.limit {
        // Nobody is left to tell if standard error is closed.
        let _ = writeln!(
            io::stderr(),
            "carillon: these are the first {}; --limit shows more, --from later ones",
            query.limit
        );
    }
    whole(rest).map_err(Failure::History)
}

/// Whether all that the topic should have was there.
fn whole(rest: Rest) -> Result<(), QueryError> {
    match rest {
        Rest { forgotten: 0, unreadable: 0, .. } => Ok(()),
        Rest { forgotten, unreadable, .. } => Err(QueryError::NotAll { forgotten, unreadable }),
    }
}

/// By which records are shown in order, and known again.
type Place = (Millis, u16, u64, u64);

fn place(record: &Record) -> Place {
    let (epoch, seq) = record.id.order();
    (record.at, record.id.shard.get(), epoch, seq)
}

/// What the topic has beyond the lake, in order; at most as many as are asked for.
type Tail = BTreeMap<Place, Record>;

/// What is there before the lake is read.
struct Gathered {
    lake: Option<Lake>,
    tail: Tail,
    /// What came of reading the topic.
    rest: Rest,
}

/// Completes the query, and reads all but the lake.
async fn gather(
    options: &Options,
    settings: &Settings,
    query: &mut Query,
    shown: &Shown,
) -> Result<Gathered, QueryError> {
    if let Some((app, device)) = options.device() {
        shown.say("asking the store");
        let url = store(settings);
        let patience = settings.central.store_connect_timeout;
        let store = StoreOptions { connect_timeout: patience, ..StoreOptions::default() };
        let found = pseudonym_of(&url, &store, app, device).await;
        let found = found.map_err(|source| QueryError::Store { url, source })?;
        query.device = Some(found.ok_or(QueryError::Nameless(device))?);
    }
    let (lake, kafka) = places(settings)?;
    let starts = match &kafka {
        Some(kafka) => starts(kafka, lake.as_ref()).await?,
        None => BTreeMap::new(),
    };
    let topic = kafka.as_ref().filter(|_| !starts.is_empty());
    if options.without_forks {
        shown.say("looking for forks");
        query.forks = forks(lake.as_ref(), topic, &starts).await?;
    }
    let (mut tail, mut rest) = (Tail::new(), Rest::default());
    if let Some(topic) = topic {
        shown.say("reading the topic");
        let (query, shown) = (query.clone(), shown.0.clone());
        let take = move |tail: &mut Tail, record: Record| {
            shown.inc(1);
            if query.wants(&record) {
                tail.insert(place(&record), record);
                if tail.len() > query.limit {
                    tail.pop_last();
                }
            }
        };
        (tail, rest) = kafka::rest(topic, &starts, tail, take).await?;
    }
    Ok(Gathered { lake, tail, rest })
}

/// Where central's store is, by the rules by which central finds it.
fn store(settings: &Settings) -> StoreUrl {
    match (&settings.central.store, &settings.central.store_password) {
        (None, _) => StoreUrl::Sqlite(settings.process.data.join("carillon.db")),
        (Some(url), None) => url.clone(),
        (Some(url), Some(password)) => with_password(url, password).unwrap_or_else(|| url.clone()),
    }
}

/// The lake and the topic, as far as they are there.
fn places(settings: &Settings) -> Result<(Option<Lake>, Option<KafkaOptions>), QueryError> {
    let history = &settings.history;
    let folder = || {
        LakeUrl::Local(
            std::path::absolute(settings.process.data.join("history"))
                .unwrap_or_else(|_| settings.process.data.join("history")),
        )
    };
    let url = history.lake.clone().unwrap_or_else(folder);
    let kafka = super::kafka(history);
    // To open a folder would make it.
    if let LakeUrl::Local(path) = &url
        && !path.is_dir()
    {
        return match kafka {
            Some(kafka) => Ok((None, Some(kafka))),
            None => Err(QueryError::Nowhere(url)),
        };
    }
    let lake = super::lake(&HistorySettings { lake: Some(url), ..history.clone() });
    Ok((lake.map(|lake| Lake::open(&lake)).transpose()?, kafka))
}

/// Where the lake ends in each partition; nothing if there is no topic.
async fn starts(
    kafka: &KafkaOptions,
    lake: Option<&Lake>,
) -> Result<BTreeMap<i32, Start>, QueryError> {
    let mut starts = BTreeMap::new();
    for partition in 0..kafka::partitions(kafka).await?.unwrap_or(0) {
        let end = match lake {
            Some(lake) => lake.end(&format!("{}-{partition}", kafka.topic)).await?,
            None => None,
        };
        starts.insert(i32::from(partition), end.map_or(Start::Earliest, Start::At));
    }
    Ok(starts)
}

/// All forks that the lake and the rest of the topic tell of.
async fn forks(
    lake: Option<&Lake>,
    topic: Option<&KafkaOptions>,
    starts: &BTreeMap<i32, Start>,
) -> Result<Vec<Fork>, QueryError> {
    let mut forks = Vec::new();
    if let Some(topic) = topic {
        let take = |forks: &mut Vec<Fork>, record: Record| {
            forks.extend(Fork::of(&record).filter(|_| forks.len() < FORKS_MAX));
        };
        forks = kafka::rest(topic, starts, forks, take).await?.0;
    }
    if let Some(lake) = lake {
        let event = Some(EventName::of(Fork::EVENT));
        let openings = Query { event, ..Query::first(usize::MAX) };
        let sink = |record| {
            forks.extend(Fork::of(&record).filter(|_| forks.len() < FORKS_MAX));
            ControlFlow::Continue(())
        };
        lake.read(&openings, sink).await?;
    }
    Ok(Fork::standing(forks))
}

/// Puts what the lake gives and what the topic gave into one order.
struct Merge<'a> {
    tail: Tail,
    out: &'a mut Output,
    failed: Option<io::Error>,
    shown: &'a Shown,
}

impl Merge<'_> {
    fn take(&mut self, record: Record) -> ControlFlow<()> {
        let at = place(&record);
        while let Some(first) = self.tail.first_entry().filter(|first| *first.key() <= at) {
            // The same, if it is at the same place.
            let is_it = *first.key() == at;
            let earlier = first.remove();
            if !is_it {
                self.print(&earlier)?;
            }
        }
        self.print(&record)
    }

    fn print(&mut self, record: &Record) -> ControlFlow<()> {
        self.shown.clear();
        match self.out.print(record) {
            Ok(flow) => flow,
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn end(mut self) -> Result<(), Failure> {
        while self.failed.is_none()
            && let Some((_, record)) = self.tail.pop_first()
        {
            if self.print(&record).is_break() {
                break;
            }
        }
        self.failed.map_or(Ok(()), |error| Err(Failure::Output(error)))
    }
}

/// Standard output, written in pieces.
struct Output {
    format: Format,
    limit: usize,
    printed: usize,
    text: Vec<u8>,
}

/// Bytes after which they are written.
const PIECE_BYTES: usize = 64 * 1024;

impl Output {
    fn new(format: Format, limit: usize) -> Output {
        Output { format, limit, printed: 0, text: Vec::new() }
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.format == Format::Csv {
            self.text.extend(CSV_HEADER.as_bytes());
        }
        self.flush()
    }

    /// Breaks when all that is to be shown is.
    fn print(&mut self, record: &Record) -> io::Result<ControlFlow<()>> {
        if self.printed == self.limit {
            return Ok(ControlFlow::Break(()));
        }
        match self.format {
            Format::Text => EventLine::of_record(record).write_text(&mut self.text),
            Format::Csv => EventLine::of_record(record).write_csv(&mut self.text),
            Format::Json => {
                record.write_json(&mut self.text);
                self.text.push(b'\n');
            }
        }
        self.printed += 1;
        if self.text.len() >= PIECE_BYTES {
            self.flush()?;
        }
        match self.printed == self.limit {
            true => Ok(ControlFlow::Break(())),
            false => Ok(ControlFlow::Continue(())),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(&self.text)?;
        self.text.clear();
        out.flush()
    }
}

/// Says at a terminal what takes long.
struct Shown(ProgressBar);

impl Shown {
    fn start() -> Shown {
        if !io::stderr().is_terminal() {
            return Shown(ProgressBar::hidden());
        }
        let style = indicatif::ProgressStyle::with_template(
            "  {spinner} {msg}  {human_pos} records  {elapsed}",
        );
        let bar = ProgressBar::new_spinner().with_style(style.expect("a template"));
        bar.enable_steady_tick(TICK);
        Shown(bar)
    }

    fn say(&self, what: &'static str) {
        self.0.set_message(what);
    }

    fn clear(&self) {
        if !self.0.is_finished() {
            self.0.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_topic_lacks_is_an_error_that_says_how_much() {
        whole(Rest { records: 7, ..Rest::default() }).expect("all was there");
        for (forgotten, unreadable) in [(3, 0), (0, 3), (1, 2)] {
            let lacks = whole(Rest { records: 7, forgotten, unreadable });
            let said = lacks.expect_err("some were not").to_string();
            let told = [format!("{forgotten} messages were"), format!("{unreadable} of the topic")];
            assert!(told.iter().all(|told| said.contains(told)), "{said}");
        }
    }
}
