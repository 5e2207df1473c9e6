//! How far back the shard remembers, and when it forgets a step more.
//!
//! Seqs have no times, so the writer samples (seq, time) coarsely. A restart forgets the samples: then a week passes
//! before time forgets anything, while the bound on changes holds throughout.

use std::collections::VecDeque;

use carillon_world::{Change, Millis, Seq};

use super::WriterConfig;
use crate::core::limits::PURGE_STEP;

/// A week has 1,008 samples.
const SAMPLE_EVERY: u64 = 10 * 60 * 1000;

#[derive(Debug)]
pub(super) struct Retention {
    config: WriterConfig,
    /// Oldest first.
    samples: VecDeque<(Seq, Millis)>,
}

impl Retention {
    pub(super) fn new(config: WriterConfig, seq: Seq, now: Millis) -> Retention {
        Retention { config, samples: VecDeque::from([(seq, now)]) }
    }

    /// Takes the time and the present seq; gives the purge that is due, at most one step.
    pub(super) fn handle_time(&mut self, now: Millis, seq: Seq, horizon: Seq) -> Option<Change> {
        if self.samples.back().is_none_or(|(_, at)| at.plus(SAMPLE_EVERY) <= now) {
            self.samples.push_back((seq, now));
        }
        let mut target = Seq::new(seq.get().saturating_sub(self.config.retained_changes_max));
        let old = |(_, at): &(Seq, Millis)| at.plus(self.config.retention) <= now;
        while let Some((seen, _)) = self.samples.front().filter(|sample| old(sample)) {
            target = target.max(*seen);
            if self.samples.get(1).is_some_and(old) {
                self.samples.pop_front();
            } else {
                break;
            }
        }
        let worth = target.since(horizon) >= self.config.purge_changes_min;
        worth.then(|| Change::Purge { horizon: target.min(horizon.plus(PURGE_STEP)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purge(horizon: u64) -> Option<Change> {
        Some(Change::Purge { horizon: Seq::new(horizon) })
    }

    #[test]
    fn the_horizon_follows_time_in_steps() {
        let config = WriterConfig {
            retention: 3_600_000,
            retained_changes_max: 1_000_000,
            ..WriterConfig::default()
        };
        let mut retention = Retention::new(config, Seq::new(15_000), Millis(0));
        assert_eq!(retention.handle_time(Millis(3_599_999), Seq::new(50_000), Seq::ZERO), None);
        assert_eq!(
            retention.handle_time(Millis(3_600_000), Seq::new(50_000), Seq::ZERO),
            purge(10_000)
        );
        assert_eq!(
            retention.handle_time(Millis(3_600_001), Seq::new(50_001), Seq::new(10_000)),
            purge(15_000)
        );
        assert_eq!(
            retention.handle_time(Millis(3_600_002), Seq::new(50_002), Seq::new(15_000)),
            None
        );
    }

    #[test]
    fn the_horizon_keeps_a_bound_on_changes() {
        let config = WriterConfig {
            retention: u64::MAX,
            retained_changes_max: 5_000,
            ..WriterConfig::default()
        };
        let mut retention = Retention::new(config, Seq::ZERO, Millis(0));
        assert_eq!(retention.handle_time(Millis(1), Seq::new(5_999), Seq::ZERO), None);
        assert_eq!(retention.handle_time(Millis(1), Seq::new(6_000), Seq::ZERO), purge(1_000));
    }
}
