//! What a run reports of itself, and what the writer makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use carillon_persist::{Retry, RunKind};
use carillon_world::{DeviceId, Millis};

use super::jobs::JobKey;
use crate::core::channel::Reason;

/// A part of a run that is settled.
#[derive(Clone, Debug)]
pub struct PushReport {
    pub key: JobKey,
    pub run: u32,
    pub kind: RunKind,
    /// One more than the reports of this run that were committed; one that is not is a repeat, and changes nothing.
    pub number: u64,
    pub progress: Progress,
    /// All that are to be tried again, sorted by id.
    pub retries: Vec<Retry>,
    pub counts: Counts,
    /// Devices that were pushed, each once for each push; only where a cap counts them.
    pub pushed: Vec<DeviceId>,
    /// Tokens that are no more.
    pub gone: Vec<(DeviceId, Arc<str>)>,
}

/// Where the run stands once the report is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// In the pass, after this device; the earliest device that waits for a later pass is due at `next_due`.
    Within { after: Option<DeviceId>, next_due: Option<Millis> },
    /// The pass is over; the next is for devices due until `next_due`, if there is one.
    Passed { next_due: Option<Millis> },
    /// The message was recalled, and nothing of the run is in flight any more.
    Stopped,
    /// The job went on without this run, or ended: what its last requests came to is only counted.
    Superseded,
}

impl Progress {
    /// Whether the run has no report after it.
    pub fn is_last(self) -> bool {
        matches!(self, Progress::Stopped | Progress::Superseded)
    }
}

/// What became of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub accepted: u64,
    pub failed: BTreeMap<Reason, u64>,
    pub quiet: u64,
    pub capped: u64,
}

impl Counts {
    pub fn is_empty(&self) -> bool {
        *self == Counts::default()
    }

    pub(crate) fn add(&mut self, other: &Counts) {
        self.accepted += other.accepted;
        for (reason, n) in &other.failed {
            *self.failed.entry(*reason).or_default() += n;
        }
        self.quiet += other.quiet;
        self.capped += other.capped;
    }
}
