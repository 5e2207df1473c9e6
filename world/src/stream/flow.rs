//! The window: how much of what was sent is not yet acknowledged.
//!
//! This is all that central keeps for one edge while changes flow: a mark and a size for each item in flight.

use std::collections::VecDeque;

use super::Progress;
use crate::Seq;

/// What an acknowledgement has to reach to cover an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The last seq of a batch.
    Batch(Seq),
    /// The number of a chunk in its connection, from 1.
    Chunk(u64),
}

/// An acknowledgement of what was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AckOfUnsent;

#[derive(Debug)]
pub(super) struct Flow {
    window: u64,
    /// In the order in which they were sent. At most a window of bytes, or one item.
    in_flight: VecDeque<(Mark, u64)>,
    unacknowledged: u64,
    /// Where the edge is by its last acknowledgement.
    acknowledged: Progress,
    /// The most that an acknowledgement may say.
    sent: Progress,
    /// `MoreAwaits` was sent and not yet answered.
    silenced: bool,
}

impl Flow {
    /// `from`: what the edge has when the connection begins.
    pub(super) fn new(window: u64, from: Seq) -> Flow {
        let nothing = Progress { seq: from, chunks: 0 };
        let in_flight = VecDeque::new();
        Flow {
            window,
            in_flight,
            unacknowledged: 0,
            acknowledged: nothing,
            sent: nothing,
            silenced: false,
        }
    }

    pub(super) fn unacknowledged(&self) -> u64 {
        self.unacknowledged
    }

    pub(super) fn items(&self) -> usize {
        self.in_flight.len()
    }

    /// How far everything was sent.
    pub(super) fn sent(&self) -> Progress {
        self.sent
    }

    pub(super) fn acknowledged(&self) -> Progress {
        self.acknowledged
    }

    pub(super) fn is_silenced(&self) -> bool {
        self.silenced
    }

    pub(super) fn silence(&mut self) {
        self.silenced = true;
    }

    /// Whether an item of `bytes` may go.
    pub(super) fn admits(&self, bytes: u64) -> bool {
        !self.silenced && (self.unacknowledged == 0 || self.unacknowledged + bytes <= self.window)
    }

    pub(super) fn send_batch(&mut self, last: Seq, bytes: u64) {
        self.sent.seq = last;
        self.push(Mark::Batch(last), bytes);
    }

    pub(super) fn send_chunk(&mut self, bytes: u64) {
        self.sent.chunks += 1;
        self.push(Mark::Chunk(self.sent.chunks), bytes);
    }

    /// Batches up to `from` are not needed: a walk begins there.
    pub(super) fn skip_to(&mut self, from: Seq) {
        self.sent.seq = self.sent.seq.max(from);
    }

    fn push(&mut self, mark: Mark, bytes: u64) {
        self.in_flight.push_back((mark, bytes));
        self.unacknowledged += bytes;
    }

    /// Takes an `Ack`. What is lower than known changes nothing.
    ///
    /// # Errors
    /// If it speaks of what was never sent.
    pub(super) fn acknowledge(&mut self, progress: Progress) -> Result<(), AckOfUnsent> {
        if progress.seq > self.sent.seq || progress.chunks > self.sent.chunks {
            return Err(AckOfUnsent);
        }
        self.acknowledged.seq = self.acknowledged.seq.max(progress.seq);
        self.acknowledged.chunks = self.acknowledged.chunks.max(progress.chunks);
        while let Some(&(mark, bytes)) = self.in_flight.front() {
            let covered = match mark {
                Mark::Batch(last) => last <= self.acknowledged.seq,
                Mark::Chunk(number) => number <= self.acknowledged.chunks,
            };
            if !covered {
                break;
            }
            self.in_flight.pop_front();
            self.unacknowledged -= bytes;
        }
        Ok(())
    }

    /// Takes a `SendAfter`, which is also an `Ack`.
    ///
    /// # Errors
    /// As [`Flow::acknowledge`].
    pub(super) fn send_after(&mut self, progress: Progress) -> Result<(), AckOfUnsent> {
        self.acknowledge(progress)?;
        self.silenced = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 100;

    fn flow() -> Flow {
        Flow::new(WINDOW, Seq::new(10))
    }

    fn upto(seq: u64, chunks: u64) -> Progress {
        Progress { seq: Seq::new(seq), chunks }
    }

    #[test]
    fn what_fills_the_window_exactly_goes_and_one_byte_more_does_not() {
        let mut flow = flow();
        flow.send_batch(Seq::new(11), 60);
        assert!(flow.admits(39));
        assert!(flow.admits(40));
        assert!(!flow.admits(41));
    }

    #[test]
    fn with_nothing_unacknowledged_an_item_goes_whatever_its_size() {
        let mut flow = flow();
        assert!(flow.admits(WINDOW + 1));
        flow.send_batch(Seq::new(11), WINDOW * 9);
        assert!(!flow.admits(1));
        flow.acknowledge(upto(11, 0)).unwrap();
        assert_eq!(flow.unacknowledged(), 0);
        assert!(flow.admits(WINDOW * 9));
    }

    #[test]
    fn acknowledgements_are_cumulative_so_a_lost_one_costs_nothing() {
        let mut flow = flow();
        for seq in 11..=14 {
            flow.send_batch(Seq::new(seq), 20);
        }
        flow.acknowledge(upto(13, 0)).unwrap();
        assert_eq!(flow.unacknowledged(), 20);
    }

    #[test]
    fn a_repeated_or_lower_acknowledgement_changes_nothing() {
        let mut flow = flow();
        flow.send_batch(Seq::new(11), 20);
        flow.send_batch(Seq::new(12), 20);
        for seq in [11, 11, 10, 3] {
            flow.acknowledge(upto(seq, 0)).unwrap();
            assert_eq!(flow.unacknowledged(), 20);
            assert_eq!(flow.acknowledged(), upto(11, 0));
        }
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_an_error_and_changes_nothing() {
        let mut flow = flow();
        flow.send_batch(Seq::new(11), 20);
        flow.send_chunk(20);
        assert_eq!(flow.acknowledge(upto(12, 0)), Err(AckOfUnsent));
        assert_eq!(flow.acknowledge(upto(11, 2)), Err(AckOfUnsent));
        assert_eq!(flow.send_after(upto(12, 0)), Err(AckOfUnsent));
        assert_eq!(flow.unacknowledged(), 40);
        flow.skip_to(Seq::new(12));
        assert_eq!(flow.acknowledge(upto(12, 0)), Ok(()));
    }

    #[test]
    fn an_item_is_free_only_when_all_before_it_are() {
        let mut flow = flow();
        flow.send_batch(Seq::new(11), 1);
        flow.send_chunk(2);
        flow.send_batch(Seq::new(12), 4);
        flow.acknowledge(upto(12, 0)).unwrap();
        assert_eq!(flow.unacknowledged(), 6, "the chunk is still in flight");
        flow.acknowledge(upto(12, 1)).unwrap();
        assert_eq!(flow.unacknowledged(), 0);
    }

    #[test]
    fn silence_holds_until_send_after_however_much_is_acknowledged() {
        let mut flow = flow();
        flow.send_batch(Seq::new(11), 90);
        flow.silence();
        flow.acknowledge(upto(11, 0)).unwrap();
        assert!(!flow.admits(1));
        flow.send_after(upto(11, 0)).unwrap();
        assert!(flow.admits(1));
    }
}
