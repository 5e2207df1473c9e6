//! Names of things that cross a shard, a device or a backup, and the counters of a shard.
//!
//! Random ids are 64 bits and never given twice; they are names, not credentials. Attribute, group and audience
//! ids come from `expr`, which resolves names to them.

use carillon_expr::Time;
use serde::{Deserialize, Serialize};

pub use carillon_expr::{AttributeId, AudienceId, GroupId};

carillon_expr::random_id!(
    /// A tenant.
    pub struct AppId;
);
carillon_expr::random_id!(
    /// One installation of an app. A name, not a credential.
    pub struct DeviceId;
);
carillon_expr::random_id!(
    /// One message, through all its revisions.
    pub struct MessageId;
);

/// A slice of the truth with one owner and one sequence. A small number written in the database at creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardId(u16);

impl ShardId {
    /// The only shard of an unsharded installation.
    pub const FIRST: ShardId = ShardId(0);

    pub const fn new(number: u16) -> ShardId {
        ShardId(number)
    }

    pub const fn get(self) -> u16 {
        self.0
    }
}

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a committed change in its shard, counted from 1; 0 is "before the first change".
///
/// At a billion changes a second 63 bits last 292 years, so `next` panics on overflow. 63, because SQLite's
/// integers are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(u64);

impl Seq {
    pub const ZERO: Seq = Seq(0);

    pub const fn new(number: u64) -> Seq {
        Seq(number)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// # Panics
    /// Beyond 2^63, which no shard reaches.
    #[must_use]
    pub const fn next(self) -> Seq {
        self.plus(1)
    }

    /// # Panics
    /// Beyond 2^63, which no shard reaches.
    #[must_use]
    pub const fn plus(self, changes: u64) -> Seq {
        assert!(
            changes < 1 << 63 && self.0 < (1 << 63) - changes,
            "a shard's sequence ends at 2^63"
        );
        Seq(self.0 + changes)
    }

    /// How many changes lie between `earlier` and this; 0 if `earlier` is not earlier.
    pub const fn since(self, earlier: Seq) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::fmt::Display for Seq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds since 1970-01-01 UTC by the store's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    pub const ZERO: Millis = Millis(0);

    #[must_use]
    pub const fn plus(self, millis: u64) -> Millis {
        Millis(self.0.saturating_add(millis))
    }

    /// The hour that this moment lies in, counted from 1970.
    pub const fn hour(self) -> u32 {
        let hour = self.0 / (60 * 60 * 1000);
        if hour > u32::MAX as u64 { u32::MAX } else { hour as u32 }
    }

    /// When an hour counted from 1970 begins.
    #[must_use]
    pub const fn of_hour(hour: u32) -> Millis {
        Millis(hour as u64 * 60 * 60 * 1000)
    }

    /// As expressions know it; `None` beyond the year 9999.
    pub fn to_time(self) -> Option<Time> {
        Time::from_ms(i64::try_from(self.0).ok()?)
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0 == 0
    }
}
