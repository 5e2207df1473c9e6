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

    /// How many bytes the batches held have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many batches are held.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// The last seq pushed.
    pub fn head(&self) -> Seq {
        self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, last: u64, bytes: usize) -> Arc<LogBatch> {
        Arc::new(LogBatch {
            epoch: Epoch { number: 1, tag: 1 },
            first: Seq::new(first),
            last: Seq::new(last),
            frame: Bytes::from(vec![0; bytes]),
        })
    }

    /// What follows `seq`: the first seq of the batch, 0 for nothing yet, `None` where the log was trimmed.
    fn after(log: &ChangeLog, seq: u64) -> Option<u64> {
        match log.after(Seq::new(seq)) {
            LogRead::Batch(batch) => Some(batch.first.get()),
            LogRead::UpToDate => Some(0),
            LogRead::Trimmed => None,
        }
    }

    #[test]
    fn what_follows_a_seq_is_the_batch_with_the_next_one() {
        let mut log = ChangeLog::new(1_000, Seq::new(10));
        assert_eq!((after(&log, 9), after(&log, 10), after(&log, 11)), (None, Some(0), Some(0)));
        log.push(batch(11, 13, 10));
        log.push(batch(14, 14, 10));
        assert_eq!((log.first(), log.head()), (Seq::new(11), Seq::new(14)));
        let found: Vec<Option<u64>> = (9..=15).map(|seq| after(&log, seq)).collect();
        let inside = Some(11);
        assert_eq!(
            found,
            [None, Some(11), inside, inside, Some(14), Some(0), Some(0)],
            "a seq inside a batch gets that batch whole"
        );
    }

    #[test]
    fn the_oldest_go_when_the_bytes_are_over_and_not_before() {
        let mut log = ChangeLog::new(100, Seq::ZERO);
        for n in 1..=4 {
            log.push(batch(n, n, 25));
        }
        assert_eq!((log.first(), after(&log, 0)), (Seq::new(1), Some(1)), "exactly full");
        log.push(batch(5, 5, 1));
        assert_eq!((log.first(), after(&log, 0), after(&log, 1)), (Seq::new(2), None, Some(2)));
        log.push(batch(6, 6, 74));
        assert_eq!(log.first(), Seq::new(4), "25 + 1 + 74 is exactly full again");
    }

    #[test]
    fn the_newest_stays_whatever_its_size() {
        let mut log = ChangeLog::new(100, Seq::ZERO);
        log.push(batch(1, 1, 50));
        log.push(batch(2, 9, 5_000));
        assert_eq!((after(&log, 0), after(&log, 1), log.head()), (None, Some(2), Seq::new(9)));
        log.push(batch(10, 10, 1));
        assert_eq!((after(&log, 1), after(&log, 9)), (None, Some(10)));
    }

    #[test]
    #[should_panic(expected = "no gap")]
    fn a_gap_is_our_own_fault() {
        ChangeLog::new(100, Seq::ZERO).push(batch(2, 2, 1));
    }
}
