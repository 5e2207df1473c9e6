//! What became of each message, counted: in all, and by minute, hour and day.
//!
//! The counts are part of the state that a batch is decided on, so a batch that fails takes its counts along, and readers
//! see a count when it is durable. Each batch writes the counts that it touched, as whole values.
//!
//! Bounded: a message has at most [`REASONS_MAX`] reasons beside a fixed set of counters, each counter a bounded number of
//! spans, which go by themselves when they are old; all of it goes with its message.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use carillon_persist::{CountRow, CountSpan};
use carillon_world::{AppId, MessageId, Millis, PMap, PushChannel};

/// Reasons told apart for one message; further ones count as `other`.
pub const REASONS_MAX: usize = 64;
/// Bytes of a reason's name.
const REASON_BYTES_MAX: usize = 40;
const OTHER: &str = "other";

const MINUTE: u64 = 60 * 1000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// What is counted of a message: devices but for `Pushed`, `Failed`, `Removed` and `WithdrawPushed`, which are tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Taken by the provider.
    Pushed(PushChannel),
    Failed(PushChannel, Reason),
    /// Not pushed: the app's quiet hours, or a frequency cap.
    Skipped(Skip),
    /// Tokens that were removed because the provider does not know them.
    Removed(PushChannel),
    Delivered,
    Displayed,
    Opened,
    Dismissed,
    Action,
    /// Devices that came after a recall and do not hold the message any more.
    Withdrawn,
    /// Wakes after a recall, taken by the provider.
    WithdrawPushed(PushChannel),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    Quiet,
    Capped,
}

/// Why a push failed, as a provider names it: letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason(Arc<str>);

impl Reason {
    /// Text that cannot be a reason is `other`, so that no provider's words get any further.
    pub fn new(text: &str) -> Reason {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let fits = !text.is_empty() && text.len() <= REASON_BYTES_MAX && text.bytes().all(good);
        Reason(if fits { text.into() } else { OTHER.into() })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Reason {
        Reason::new(text)
    }
}

/// The name of a channel in counters and answers.
pub const fn channel_name(channel: PushChannel) -> &'static str {
    match channel {
        PushChannel::Apns => "apns",
        PushChannel::Fcm => "fcm",
        PushChannel::WebPush => "web_push",
    }
}

fn channel_named(name: &str) -> Option<PushChannel> {
    let all = [PushChannel::Apns, PushChannel::Fcm, PushChannel::WebPush];
    all.into_iter().find(|channel| channel_name(*channel) == name)
}

/// Its words, with colons between them: `delivered`, `failed:apns:Unregistered`.
impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Counter::Pushed(channel) => write!(f, "pushed:{}", channel_name(*channel)),
            Counter::Failed(channel, Reason(reason)) => {
                write!(f, "failed:{}:{reason}", channel_name(*channel))
            }
            Counter::Skipped(Skip::Quiet) => f.write_str("skipped:quiet"),
            Counter::Skipped(Skip::Capped) => f.write_str("skipped:capped"),
            Counter::Removed(channel) => write!(f, "removed:{}", channel_name(*channel)),
            Counter::Delivered => f.write_str("delivered"),
            Counter::Displayed => f.write_str("displayed"),
            Counter::Opened => f.write_str("opened"),
            Counter::Dismissed => f.write_str("dismissed"),
            Counter::Action => f.write_str("action"),
            Counter::Withdrawn => f.write_str("withdrawn"),
            Counter::WithdrawPushed(channel) => {
                write!(f, "withdraw_pushed:{}", channel_name(*channel))
            }
        }
    }
}

impl FromStr for Counter {
    type Err = ();

    fn from_str(text: &str) -> Result<Counter, ()> {
        let words: Vec<&str> = text.split(':').collect();
        let channel = || channel_named(words.get(1).ok_or(())?).ok_or(());
        Ok(match (words[0], words.len()) {
            ("pushed", 2) => Counter::Pushed(channel()?),
            ("failed", 3) => Counter::Failed(channel()?, Reason::new(words[2])),
            ("skipped", 2) => Counter::Skipped(match words[1] {
                "quiet" => Skip::Quiet,
                "capped" => Skip::Capped,
                _ => return Err(()),
            }),
            ("removed", 2) => Counter::Removed(channel()?),
            ("delivered", 1) => Counter::Delivered,
            ("displayed", 1) => Counter::Displayed,
            ("opened", 1) => Counter::Opened,
            ("dismissed", 1) => Counter::Dismissed,
            ("action", 1) => Counter::Action,
            ("withdrawn", 1) => Counter::Withdrawn,
            ("withdraw_pushed", 2) => Counter::WithdrawPushed(channel()?),
            _ => return Err(()),
        })
    }
}

/// Some counters, by the first words of their names: `failed`, `failed:apns` and `failed:apns:Unregistered` are each a
/// part of the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection(String);

impl FromStr for Selection {
    type Err = ();

    fn from_str(text: &str) -> Result<Selection, ()> {
        // What makes a counter with words added to it.
        let known = ["", ":apns", ":quiet", ":other"];
        let fits = |more: &&str| format!("{text}{more}").parse::<Counter>().is_ok();
        let is_known = known.iter().any(fits) || text == "failed";
        if is_known { Ok(Selection(text.to_owned())) } else { Err(()) }
    }
}

impl Selection {
    pub fn has(&self, counter: &Counter) -> bool {
        let name = counter.to_string();
        let rest = name.strip_prefix(&self.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }
}

/// How long counts by minute, hour and day are kept, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunnelRetention {
    pub minutes: u64,
    pub hours: u64,
    pub days: u64,
}

impl Default for FunnelRetention {
    fn default() -> FunnelRetention {
        FunnelRetention { minutes: 2 * DAY, hours: 30 * DAY, days: 400 * DAY }
    }
}

/// The spans that have a beginning, with their lengths in ms.
pub(crate) const SPANS: [(CountSpan, u64); 3] =
    [(CountSpan::Minute, MINUTE), (CountSpan::Hour, HOUR), (CountSpan::Day, DAY)];

impl FunnelRetention {
    /// What began before these moments is old, in the order of [`SPANS`].
    pub(crate) fn old(&self, now: Millis) -> [Millis; 3] {
        // A span is kept as long after its end.
        let before = |kept: u64, length: u64| Millis(now.0.saturating_sub(kept + length));
        [before(self.minutes, MINUTE), before(self.hours, HOUR), before(self.days, DAY)]
    }
}

/// One count that a batch touches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CountKey {
    pub(crate) app: AppId,
    pub(crate) message: MessageId,
    pub(crate) counter: Counter,
    pub(crate) span: CountSpan,
    pub(crate) at: Millis,
}

/// How often by span, each in rising order of when it began.
#[derive(Clone, Debug, Default)]
struct Series {
    total: u64,
    spans: [Vec<(Millis, u64)>; 3],
}

impl Series {
    fn get(&self, span: CountSpan, at: Millis) -> u64 {
        let Some(index) = SPANS.iter().position(|(known, _)| *known == span) else {
            return self.total;
        };
        let spans = &self.spans[index];
        spans.binary_search_by_key(&at, |(at, _)| *at).map_or(0, |found| spans[found].1)
    }

    fn add(&mut self, index: usize, at: Millis, n: u64) {
        let spans = &mut self.spans[index];
        match spans.binary_search_by_key(&at, |(at, _)| *at) {
            Ok(found) => spans[found].1 = spans[found].1.saturating_add(n),
            Err(place) => spans.insert(place, (at, n)),
        }
    }
}

/// Of one message. Sorted by counter.
type Counts = Arc<Vec<(Counter, Arc<Series>)>>;

/// The counts of a shard. A clone is a pointer.
#[derive(Clone, Debug, Default)]
pub struct Funnel {
    apps: PMap<AppId, PMap<MessageId, Counts>>,
}

impl Funnel {
    pub(crate) fn load(rows: Vec<CountRow>) -> Funnel {
        let mut apps: HashMap<AppId, HashMap<MessageId, BTreeMap<Counter, Series>>> =
            HashMap::new();
        for row in rows {
            // A later release may count more.
            let Ok(counter) = row.counter.parse::<Counter>() else { continue };
            let counts = apps.entry(row.app).or_default().entry(row.message).or_default();
            let series = counts.entry(counter).or_default();
            match SPANS.iter().position(|(span, _)| *span == row.span) {
                _ if row.n == 0 => {}
                Some(index) => series.add(index, row.at, row.n),
                None => series.total = row.n,
            }
        }
        let sorted = |counts: BTreeMap<Counter, Series>| {
            let all = counts.into_iter().map(|(counter, series)| (counter, Arc::new(series)));
            Arc::new(all.collect())
        };
        let of_app = |messages: HashMap<MessageId, BTreeMap<Counter, Series>>| {
            let all = messages.into_iter().map(|(message, counts)| (message, sorted(counts)));
            PMap::from_entries(all.collect())
        };
        let apps = apps.into_iter().map(|(app, messages)| (app, of_app(messages)));
        Funnel { apps: PMap::from_entries(apps.collect()) }
    }

    fn counts(&self, app: AppId, message: MessageId) -> &[(Counter, Arc<Series>)] {
        self.apps.get(app).and_then(|app| app.get(message)).map_or(&[], |counts| counts.as_slice())
    }

    /// Everything counted of a message, in all; sorted.
    pub fn totals(&self, app: AppId, message: MessageId) -> impl Iterator<Item = (&Counter, u64)> {
        self.counts(app, message).iter().map(|(counter, series)| (counter, series.total))
    }

    pub fn total(&self, app: AppId, message: MessageId, counter: &Counter) -> u64 {
        let counts = self.counts(app, message);
        let found = counts.binary_search_by(|(known, _)| known.cmp(counter));
        found.map_or(0, |at| counts[at].1.total)
    }

    /// The sum of the selected counters by span, of those that began from `from` to before `to`; rising, without those
    /// in which nothing was counted. `None` for totals, which are no series.
    pub fn series(
        &self,
        app: AppId,
        message: MessageId,
        selection: &Selection,
        span: CountSpan,
        (from, to): (Millis, Millis),
    ) -> Option<Vec<(Millis, u64)>> {
        let index = SPANS.iter().position(|(known, _)| *known == span)?;
        let mut sums = BTreeMap::new();
        let counts = self.counts(app, message).iter();
        for (_, series) in counts.filter(|(counter, _)| selection.has(counter)) {
            let spans = &series.spans[index];
            let first = spans.partition_point(|(at, _)| *at < from);
            for (at, n) in spans[first..].iter().take_while(|(at, _)| *at < to) {
                *sums.entry(*at).or_insert(0_u64) += n;
            }
        }
        Some(sums.into_iter().filter(|(_, n)| *n > 0).collect())
    }

    /// As the store has it.
    pub(crate) fn row(&self, key: &CountKey) -> CountRow {
        let counts = self.counts(key.app, key.message);
        let found = counts.binary_search_by(|(known, _)| known.cmp(&key.counter));
        CountRow {
            app: key.app,
            message: key.message,
            span: key.span,
            at: key.at,
            counter: key.counter.to_string().into(),
            n: found.map_or(0, |at| counts[at].1.get(key.span, key.at)),
        }
    }

    /// Counts `n` more at `now`. Gives what it touched.
    pub(crate) fn count(
        &mut self,
        now: Millis,
        (app, message): (AppId, MessageId),
        counter: Counter,
        n: u64,
    ) -> [CountKey; 4] {
        if self.apps.get(app).is_none() {
            self.apps.insert(app, PMap::new());
        }
        let messages = self.apps.get_mut(app).expect("it was put there");
        if messages.get(message).is_none() {
            messages.insert(message, Counts::default());
        }
        let counts = Arc::make_mut(messages.get_mut(message).expect("it was put there"));
        let counter = told_apart(counts, counter);
        let at = match counts.binary_search_by(|(known, _)| known.cmp(&counter)) {
            Ok(at) => at,
            Err(place) => {
                counts.insert(place, (counter.clone(), Arc::default()));
                place
            }
        };
        let series = Arc::make_mut(&mut counts[at].1);
        series.total = series.total.saturating_add(n);
        let begins = SPANS.map(|(_, length)| Millis(now.0 / length * length));
        for (index, begin) in begins.iter().enumerate() {
            series.add(index, *begin, n);
        }
        let key = |span, at| CountKey { app, message, counter: counter.clone(), span, at };
        [
            key(CountSpan::Total, Millis::ZERO),
            key(CountSpan::Minute, begins[0]),
            key(CountSpan::Hour, begins[1]),
            key(CountSpan::Day, begins[2]),
        ]
    }

    /// The next messages of which something was counted, at most `most`, in the order of the map.
    pub(crate) fn after(
        &self,
        after: Option<(AppId, MessageId)>,
        most: usize,
    ) -> Vec<(AppId, MessageId)> {
        let here = after.into_iter().flat_map(|(app, message)| {
            let messages = self.apps.get(app).into_iter();
            messages.flat_map(move |m| m.iter_after(Some(message))).map(move |(id, _)| (app, id))
        });
        let rest = self.apps.iter_after(after.map(|(app, _)| app));
        let rest = rest.flat_map(|(app, messages)| messages.iter().map(move |(id, _)| (app, id)));
        here.chain(rest).take(most).collect()
    }

    pub(crate) fn forget_message(&mut self, app: AppId, message: MessageId) {
        if !self.counts(app, message).is_empty() {
            self.apps.get_mut(app).and_then(|messages| messages.remove(message));
        }
    }

    /// Forgets what of a message is `old`, by the order of [`SPANS`]. Which of them there was some of.
    pub(crate) fn forget_old(
        &mut self,
        (app, message): (AppId, MessageId),
        old: [Millis; 3],
    ) -> [bool; 3] {
        let is_old = |series: &Series, index: usize| {
            series.spans[index].first().is_some_and(|(at, _)| *at < old[index])
        };
        let counts = self.counts(app, message);
        let found = [0, 1, 2].map(|index| counts.iter().any(|(_, series)| is_old(series, index)));
        if !found.contains(&true) {
            return found;
        }
        let counts = self.apps.get_mut(app).and_then(|messages| messages.get_mut(message));
        for (_, series) in counts.into_iter().flat_map(Arc::make_mut) {
            if [0, 1, 2].iter().any(|index| is_old(series, *index)) {
                let series = Arc::make_mut(series);
                for (spans, old) in series.spans.iter_mut().zip(old) {
                    spans.drain(..spans.partition_point(|(at, _)| *at < old));
                }
            }
        }
        found
    }
}

/// The counter, or that of `other` reasons if there are as many as are told apart.
fn told_apart(counts: &[(Counter, Arc<Series>)], counter: Counter) -> Counter {
    let Counter::Failed(channel, _) = &counter else { return counter };
    let is_known = counts.binary_search_by(|(known, _)| known.cmp(&counter)).is_ok();
    let reasons = counts.iter().filter(|(known, _)| matches!(known, Counter::Failed(..))).count();
    if is_known || reasons < REASONS_MAX {
        counter
    } else {
        Counter::Failed(*channel, Reason::new(OTHER))
    }
}

#[cfg(test)]
mod tests;
