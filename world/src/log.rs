//! The change log that all receivers of a shard share: each batch encoded once, bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Epoch, Seq};

/// One committed batch as the complete frame that goes to every receiver.
#[derive(Debug)]
pub struct LogBatch {
    pub epoch: Epoch,
    pub first: Seq,
    pub last: Seq,
    /// Length prefix included.
    pub frame: Bytes,
}

/// What follows a seq.
#[derive(Debug)]
pub enum LogRead<'a> {
    /// The batch that begins right after it.
    Batch(&'a Arc<LogBatch>),
    /// Nothing yet.
    UpToDate,
    /// The log no longer reaches back so far: a snapshot.
    Trimmed,
}

/// Batches without a gap, oldest first; the oldest go when the bytes exceed the bound, the newest never.
#[derive(Debug)]
pub struct ChangeLog {
    batches: VecDeque<Arc<LogBatch>>,
    /// The seq before the first batch held.
    before: Seq,
    head: Seq,
    bytes: usize,
    bytes_max: usize,
}

impl ChangeLog {
    /// An empty log of what is committed after `after`.
    pub fn new(bytes_max: usize, after: Seq) -> ChangeLog {
        ChangeLog { batches: VecDeque::new(), before: after, head: after, bytes: 0, bytes_max }
    }

    /// # Panics
    /// If the batch does not follow the last one, which is our own fault.
    pub fn push(&mut self, batch: Arc<LogBatch>) {
        assert_eq!(batch.first, self.head.next(), "a change log has no gap");
        self.head = batch.last;
        self.bytes += batch.frame.len();
        self.batches.push_back(batch);
        while self.bytes > self.bytes_max && self.batches.len() > 1 {
            let oldest = self.batches.pop_front().expect("more than one");
            self.bytes -= oldest.frame.len();
            self.before = oldest.last;
        }
    }

    /// What to send to a receiver that has everything up to `seq`.
    pub fn after(&self, seq: Seq) -> LogRead<'_> {
        if seq >= self.head {
            return LogRead::UpToDate;
        }
        if seq < self.before {
            return LogRead::Trimmed;
        }
        LogRead::Batch(&self.batches[self.batches.partition_point(|batch| batch.last <= seq)])
    }

    /// The lowest seq held; the next one to come while the log is empty.
    pub fn first(&self) -> Seq {
        self.before.next()
    }

    /// The last seq pushed.
    pub fn head(&self) -> Seq {
        self.head
    }
}
