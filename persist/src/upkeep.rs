//! What a store keeps and forgets beside the changes: when seqs were committed, since when devices are looked at, whose
//! traces are still to be erased.
//!
//! None of it has a seq, moves the head or is sent to an edge. Losing the newest of it to a crash is harmless but for
//! erasures, which are written by the very transaction that makes a device's tombstone.

use carillon_world::{AppId, DeviceId, Millis, Seq};

use crate::history::OutboxKept;
use crate::{CallbacksKept, ForgetCounts, PushJobRow, PushTimesRow};

/// What a batch does beside its changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchUpkeep {
    /// Remember that the head after this batch was reached at its time.
    pub sample: bool,
    /// Devices count as seen no earlier than this.
    pub seen_since: Option<Millis>,
    pub forget_keys: Option<ForgetKeys>,
    pub erase: Option<Erase>,
    pub forget_counts: Option<ForgetCounts>,
}

/// Idempotency keys that are forgotten, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForgetKeys {
    /// Only those made before this.
    pub before: Millis,
    pub rows_max: u32,
}

/// Forgotten devices whose receipts go. If fewer than `rows_max` receipts were there, the devices' erasure is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erase {
    /// Not empty, and few: each is a term of one condition.
    pub devices: Vec<(AppId, DeviceId)>,
    /// Receipts.
    pub rows_max: u32,
}

/// What a committed batch found to forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Idempotency keys.
    pub keys_forgotten: u64,
    /// Receipts of erased devices.
    pub receipts_erased: u64,
    /// Rows of what was counted.
    pub counts_forgotten: u64,
}

/// What the store remembers beside rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Seqs that were the head, and when; above the horizon, in rising order.
    pub samples: Vec<(Seq, Millis)>,
    pub seen_since: Option<Millis>,
    /// When the last batch was committed; `None` before the first.
    pub committed_at: Option<Millis>,
    /// Devices whose erasure is not over.
    pub erasures: Vec<(AppId, DeviceId)>,
    pub push_jobs: Vec<PushJobRow>,
    pub push_times: Vec<PushTimesRow>,
    pub outbox: OutboxKept,
    pub callbacks: CallbacksKept,
}
