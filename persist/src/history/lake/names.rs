//! The names of everything in a lake.
//!
//! ```text
//! app=<id or none>/event=<name>/day=YYYY-MM-DD/hour=HH/<source>-<n>[-k].parquet   what readers see; UTC
//! _commits/<source>/<n>.json                                                      the chain of a source
//! _staging/<source>/<n>-<writer>-<i>.parquet                                      not yet committed
//! ```
//!
//! `n` has 20 digits, so that names rise with the numbers.

use std::fmt;
use std::str::FromStr;

use carillon_expr::Date;
use carillon_world::{AppId, Millis};
use object_store::path::Path;

use super::LakeError;
use crate::history::EventName;

const SOURCE_BYTES_MAX: usize = 100;
const N_DIGITS: usize = 20;

/// Where records come from, such as `shard-0` or `carillon.history-3`. Each has a chain of commits of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source(String);

/// An hour of UTC, counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Hour(u32);

/// The folder that a row belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Folder {
    pub(super) app: Option<AppId>,
    pub(super) event: EventName,
    pub(super) hour: Hour,
}

impl FromStr for Source {
    type Err = LakeError;

    fn from_str(text: &str) -> Result<Source, LakeError> {
        let is_known =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let is_source = (1..=SOURCE_BYTES_MAX).contains(&text.len())
            && text.bytes().all(is_known)
            && !text.starts_with('.');
        if is_source {
            Ok(Source(text.to_owned()))
        } else {
            Err(LakeError::SourceName(text.to_owned()))
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Source {
    pub(super) fn commits(&self) -> Path {
        Path::from(format!("_commits/{self}"))
    }

    pub(super) fn commit(&self, n: u64) -> Path {
        Path::from(format!("_commits/{self}/{n:020}.json"))
    }

    pub(super) fn staging(&self) -> Path {
        Path::from(format!("_staging/{self}"))
    }

    pub(super) fn staged(&self, n: u64, writer: u64, file: usize) -> Path {
        Path::from(format!("_staging/{self}/{n:020}-{writer:016x}-{file:05}.parquet"))
    }

    /// The `part`th file, from 0, that commit `n` puts into a folder.
    pub(super) fn file(&self, folder: &Folder, n: u64, part: usize) -> Path {
        let part = if part == 0 { String::new() } else { format!("-{part}") };
        Path::from(format!("{folder}/{self}-{n:020}{part}.parquet"))
    }
}

/// The number that the name of a commit or of a staged file begins with.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.get(..N_DIGITS)?;
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

impl Hour {
    pub(super) fn of(at: Millis) -> Hour {
        // Later days have no name. Their rows are still found, in the last hour that has one.
        Hour(at.hour().min(LAST_HOUR))
    }

    pub(super) fn of_day(day: Date, hour: u32) -> Option<Hour> {
        let day = u32::try_from(day.days()).ok()?;
        (hour < 24).then(|| day.checked_mul(24)?.checked_add(hour).map(Hour)).flatten()
    }

    fn day(self) -> Date {
        Date::from_days(i64::from(self.0 / 24)).expect("no hour is beyond the last day")
    }
}

/// The last of 9999-12-31, day 2,932,896 since 1970.
const LAST_HOUR: u32 = 2_932_896 * 24 + 23;

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.app {
            Some(app) => write!(f, "app={:016x}", app.get())?,
            None => f.write_str("app=none")?,
        }
        let (event, day, hour) = (self.event.as_str(), self.hour.day(), self.hour.0 % 24);
        write!(f, "/event={event}/day={day}/hour={hour:02}")
    }
}
