//! Finds records in the lake, for people who ask after a device, a message or a time.
//!
//! It is no query engine: whole analyses are for the tools that read Parquet. It opens few files: the names of folders
//! tell the app, the event and the hour, the file's own statistics the time of a row group, and its Bloom filters
//! whether a device or message is in one at all.

mod file;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use carillon_expr::Date;
use carillon_world::{AppId, MessageId, Millis, ShardId};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use super::chain::REQUESTS_MAX;
use super::names::Hour;
use super::{Lake, LakeError};
use crate::history::{EventName, Pseudonym, Record};

/// Files that are got ready to be read.
const FILES_PLANNED: usize = 16 * REQUESTS_MAX;

/// What to look for: records of which all that is given is true.
#[derive(Clone, Debug)]
pub struct Query {
    pub app: Option<AppId>,
    pub device: Option<Pseudonym>,
    pub message: Option<MessageId>,
    pub event: Option<EventName>,
    pub from: Option<Millis>,
    /// Itself not included.
    pub until: Option<Millis>,
    /// What these cut off is left out; see [`Fork::standing`].
    pub forks: Vec<Fork>,
    /// The most records that are given. Some times as many are held in memory.
    pub limit: usize,
}

/// A shard that went on from a backup. What it had told of since then never was: all of the epochs between the one that
/// it goes on from and this, and what earlier epochs numbered after the backup's last event.
///
/// A backup that is newer than one that was restored before brings back what that fork had cut off, and undoes the
/// fork itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    shard: ShardId,
    /// The number of the epoch that began it.
    epoch: u64,
    /// The number of the epoch that it goes on from, which the backup was of; 0 if it was of none.
    from_epoch: u64,
    /// The number of the last event before it.
    events: u64,
}

impl Fork {
    /// The event that tells of forks, and of other openings.
    pub const EVENT: &str = "shard.opened";

    /// `None` if the record tells of none.
    pub fn of(record: &Record) -> Option<Fork> {
        #[derive(serde::Deserialize)]
        struct Opened {
            epoch: u64,
            from_epoch: Option<u64>,
            events: u64,
            fork: bool,
        }
        if record.event.as_str() != Fork::EVENT {
            return None;
        }
        let opened: Opened = serde_json::from_str(record.data.get()).ok()?;
        let Opened { epoch, from_epoch, events, fork } = opened;
        // Where that is not told, the numbers of events alone say what it undid.
        let from_epoch = from_epoch.unwrap_or_else(|| epoch.saturating_sub(1));
        fork.then_some(Fork { shard: record.id.shard, epoch, from_epoch, events })
    }

    /// Those of all forks that no later one undid. So these say together what never was.
    pub fn standing(mut forks: Vec<Fork>) -> Vec<Fork> {
        // The newest stands, and those that stand judge who came before them.
        forks.sort_unstable_by_key(|fork| Reverse(fork.epoch));
        let mut standing: Vec<Fork> = Vec::new();
        for fork in forks {
            let undoes = |later: &Fork| later.shard == fork.shard && later.undoes(fork.epoch);
            // The lake and the topic may tell of the same.
            if !standing.iter().any(undoes) && !standing.contains(&fork) {
                standing.push(fork);
            }
        }
        standing
    }

    /// Whether what the record tells of is undone by this.
    pub fn cuts_off(&self, record: &Record) -> bool {
        let id = &record.id;
        let is_before = id.shard == self.shard && id.epoch.number < self.epoch;
        is_before && (self.undoes(id.epoch.number) || id.seq > self.events)
    }

    /// Whether an epoch as a whole is none that it goes on from.
    fn undoes(&self, epoch: u64) -> bool {
        self.from_epoch < epoch && epoch < self.epoch
    }
}

impl Query {
    /// All that there is, up to a number of records.
    pub fn first(limit: usize) -> Query {
        let (app, device, message, event, from, until) = (None, None, None, None, None, None);
        Query { app, device, message, event, from, until, forks: Vec::new(), limit }
    }

    /// Whether a record is asked for, whatever the limit.
    pub fn wants(&self, record: &Record) -> bool {
        self.app.is_none_or(|app| record.app == Some(app))
            && self.device.is_none_or(|device| record.device == Some(device))
            && self.message.is_none_or(|message| record.message == Some(message))
            && self.event.as_ref().is_none_or(|event| record.event == *event)
            && self.wants_at(record.at.0)
            && self.is_true(record)
    }

    fn is_true(&self, record: &Record) -> bool {
        !self.forks.iter().any(|fork| fork.cuts_off(record))
    }

    fn wants_hour(&self, hour: Hour) -> bool {
        self.from.is_none_or(|from| Hour::of(from) <= hour)
            && self.until.is_none_or(|until| hour <= Hour::of(until))
    }

    fn wants_at(&self, at: u64) -> bool {
        self.from.is_none_or(|from| from.0 <= at) && self.until.is_none_or(|until| at < until.0)
    }
}

impl Lake {
    /// Gives the records that a query asks for, rising by the time at which they happened and, where that is the same,
    /// by shard and place in it. Returns how many it gave, which are less than there are if `sink` breaks.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`] or [`LakeError::Damaged`]; what was given before is right.
    pub async fn read(
        &self,
        query: &Query,
        mut sink: impl FnMut(Record) -> ControlFlow<()> + Send,
    ) -> Result<usize, LakeError> {
        let files = self.files(query).await?;
        let mut given = 0;
        let mut give = |records: &mut Vec<Record>| {
            keep_first(records, query.limit - given);
            for record in records.drain(..) {
                given += 1;
                if sink(record).is_break() || given == query.limit {
                    return ControlFlow::Break(given);
                }
            }
            ControlFlow::Continue(given)
        };
        if query.limit == 0 {
            return Ok(0);
        }
        let (mut now, mut records) = (None, Vec::new());
        // A part at a time, since a future for each file of a year would take more memory than what they find.
        for files in files.chunks(FILES_PLANNED) {
            let mut hours = files.iter().map(|(hour, _)| *hour);
            // Boxed, as the compiler otherwise cannot see that it is `Send`.
            let reads =
                files.iter().map(|(_, meta)| file::read(self.store.as_ref(), meta, query).boxed());
            let reads: Vec<BoxFuture<'_, Result<Vec<Record>, LakeError>>> = reads.collect();
            // In order, so that an hour is whole when the next begins.
            let mut reads = stream::iter(reads).buffered(REQUESTS_MAX);
            while let Some(read) = reads.next().await {
                let found = read?;
                let hour = hours.next();
                if now != hour {
                    now = hour;
                    if let ControlFlow::Break(given) = give(&mut records) {
                        return Ok(given);
                    }
                }
                records.extend(found);
                if records.len() > query.limit.saturating_mul(2) {
                    keep_first(&mut records, query.limit);
                }
            }
        }
        match give(&mut records) {
            ControlFlow::Break(given) | ControlFlow::Continue(given) => Ok(given),
        }
    }

    /// Those that may have what is asked for; their hours rise.
    async fn files(&self, query: &Query) -> Result<Vec<(Hour, ObjectMeta)>, LakeError> {
        let apps = match query.app {
            Some(app) => vec![Path::from(format!("app={:016x}", app.get()))],
            None => self.folders(None, "app=").await?,
        };
        let events = match &query.event {
            Some(event) => {
                let folder = |app: &Path| Path::from(format!("{app}/event={}", event.as_str()));
                apps.iter().map(folder).collect()
            }
            None => self.folders_of(apps, "event=").await?,
        };
        let mut days = self.folders_of(events, "day=").await?;
        days.retain(|folder| {
            let day = folder.filename().and_then(|name| day_of(name.strip_prefix("day=")?));
            let hours = day.and_then(|day| Some((Hour::of_day(day, 0)?, Hour::of_day(day, 23)?)));
            hours.is_some_and(|(first, last)| {
                query.from.is_none_or(|from| Hour::of(from) <= last)
                    && query.until.is_none_or(|until| first <= Hour::of(until))
            })
        });
        let lists: Vec<_> = days.iter().map(|day| self.files_below(day).boxed()).collect();
        let mut lists = stream::iter(lists).buffer_unordered(REQUESTS_MAX);
        let mut files: BTreeMap<Hour, Vec<ObjectMeta>> = BTreeMap::new();
        while let Some(list) = lists.next().await {
            for meta in list? {
                if let Some(hour) = hour_of(&meta.location).filter(|hour| query.wants_hour(*hour)) {
                    files.entry(hour).or_default().push(meta);
                }
            }
        }
        let of_hour = |(hour, metas): (Hour, Vec<ObjectMeta>)| {
            metas.into_iter().map(move |meta| (hour, meta))
        };
        Ok(files.into_iter().flat_map(of_hour).collect())
    }

    async fn files_below(&self, folder: &Path) -> Result<Vec<ObjectMeta>, LakeError> {
        let list = self.store.list(Some(folder)).try_collect().await;
        list.map_err(|error| LakeError::unavailable("list", folder, error))
    }

    async fn folders_of(
        &self,
        parents: Vec<Path>,
        prefix: &'static str,
    ) -> Result<Vec<Path>, LakeError> {
        let lists = parents.iter().map(|parent| self.folders(Some(parent), prefix).boxed());
        let lists: Vec<BoxFuture<'_, Result<Vec<Path>, LakeError>>> = lists.collect();
        let lists = stream::iter(lists).buffer_unordered(REQUESTS_MAX);
        Ok(lists.try_collect::<Vec<_>>().await?.concat())
    }

    async fn folders(
        &self,
        parent: Option<&Path>,
        prefix: &'static str,
    ) -> Result<Vec<Path>, LakeError> {
        let list = self.store.list_with_delimiter(parent).await;
        let shown = parent.map_or("its root", |parent| parent.as_ref());
        let list = list.map_err(|error| LakeError::unavailable("list", shown, error))?;
        let is_of = |path: &Path| path.filename().is_some_and(|name| name.starts_with(prefix));
        Ok(list.common_prefixes.into_iter().filter(is_of).collect())
    }
}

fn keep_first(records: &mut Vec<Record>, limit: usize) {
    records.sort_unstable_by_key(|record| (record.at, record.id.shard, record.id.order()));
    records.truncate(limit);
}

fn day_of(text: &str) -> Option<Date> {
    text.parse().ok()
}

/// Of `…/day=YYYY-MM-DD/hour=HH/name.parquet`.
fn hour_of(path: &Path) -> Option<Hour> {
    let mut parts = path.as_ref().rsplit('/');
    let name = parts.next()?;
    let hour = parts.next()?.strip_prefix("hour=")?.parse().ok()?;
    let day = day_of(parts.next()?.strip_prefix("day=")?)?;
    if name.ends_with(".parquet") { Hour::of_day(day, hour) } else { None }
}
