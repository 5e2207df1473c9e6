//! How far back the shard remembers.
//!
//! Seqs have no times, so batches carry samples: "this seq was the head at that time". They are kept with the store, so
//! a restart goes on where it was. A batch of nothing but a purge, a tick or a report of devices seen is no reason
//! for a sample: it leaves nothing to forget, and an idle shard would purge its own purges for ever.

use std::collections::VecDeque;

use carillon_world::{Millis, Seq};

use super::WriterConfig;

/// Samples lie a thousandth of the retention apart (ten minutes of a week), so that there are a thousand of them.
const SAMPLES: u64 = 1_000;
/// But not closer than this, in ms.
const SPACING_MIN: u64 = 1_000;

#[derive(Debug)]
pub(super) struct Retention {
    config: WriterConfig,
    /// Rising in both. Above the horizon.
    samples: VecDeque<(Seq, Millis)>,
    /// Something that grows old was committed after the last sample.
    unsampled: bool,
}

impl Retention {
    /// `samples` as the store has them; `seq` is the head.
    pub(super) fn new(config: WriterConfig, samples: Vec<(Seq, Millis)>, seq: Seq) -> Retention {
        let unsampled = samples.last().map_or(Seq::ZERO, |(seq, _)| *seq) < seq;
        Retention { config, samples: samples.into(), unsampled }
    }

    pub(super) fn spacing(&self) -> u64 {
        (self.config.retention / SAMPLES).max(SPACING_MIN)
    }

    /// Whether the next batch should carry a sample if it holds changes.
    pub(super) fn wants_sample(&self, now: Millis) -> bool {
        self.samples.back().is_none_or(|(_, at)| at.plus(self.spacing()) <= now)
    }

    /// Whether a sample is due though nothing more is committed: what came after the last one would never grow old.
    pub(super) fn lacks_sample(&self, now: Millis) -> bool {
        self.unsampled && self.wants_sample(now)
    }

    /// A batch was committed with a sample: `seq` was the head at `at`.
    pub(super) fn handle_sample(&mut self, seq: Seq, at: Millis) {
        self.samples.push_back((seq, at));
        self.unsampled = false;
    }

    /// A batch was committed that holds something that grows old, and no sample.
    pub(super) fn handle_changes(&mut self) {
        self.unsampled = true;
    }

    pub(super) fn handle_horizon(&mut self, horizon: Seq) {
        while self.samples.front().is_some_and(|(seq, _)| *seq <= horizon) {
            self.samples.pop_front();
        }
    }

    /// The next horizon, a step of `rows` further, if one is due.
    pub(super) fn next_horizon(
        &self,
        now: Millis,
        rows: u64,
        seq: Seq,
        horizon: Seq,
    ) -> Option<Seq> {
        let old = self.samples.partition_point(|(_, at)| at.plus(self.config.retention) <= now);
        let by_time = old.checked_sub(1).map_or(Seq::ZERO, |at| self.samples[at].0);
        // A purge is a change itself: by count it has to be worth one.
        let by_count = Seq::new(seq.get().saturating_sub(self.config.retained_changes_max));
        let by_count = if by_count.since(horizon) >= rows { by_count } else { Seq::ZERO };
        let target = by_time.max(by_count);
        (target > horizon).then(|| target.min(horizon.plus(rows)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: u64 = 7 * 24 * 60 * 60 * 1000;

    fn config(retention: u64, retained_changes_max: u64) -> WriterConfig {
        WriterConfig { retention, retained_changes_max, ..WriterConfig::default() }
    }

    fn next(retention: &Retention, now: u64, seq: u64, horizon: u64) -> Option<u64> {
        retention.next_horizon(Millis(now), 1_000, Seq::new(seq), Seq::new(horizon)).map(Seq::get)
    }

    #[test]
    fn the_horizon_follows_time_in_steps_and_never_passes_what_is_young() {
        let mut retention = Retention::new(config(3_600_000, u64::MAX), Vec::new(), Seq::ZERO);
        retention.handle_sample(Seq::new(1_500), Millis(0));
        retention.handle_sample(Seq::new(4_000), Millis(10));
        assert_eq!(next(&retention, 3_599_999, 50_000, 0), None);
        assert_eq!(next(&retention, 3_600_000, 50_000, 0), Some(1_000));
        assert_eq!(next(&retention, 3_600_000, 50_001, 1_000), Some(1_500));
        assert_eq!(next(&retention, 3_600_009, 50_002, 1_500), None);
        retention.handle_horizon(Seq::new(1_500));
        assert_eq!(next(&retention, 3_600_010, 50_003, 1_500), Some(2_500));
        assert_eq!(
            next(&retention, u64::MAX, 50_004, 4_000),
            None,
            "nobody knows how old the rest is"
        );
    }

    #[test]
    fn the_horizon_keeps_a_bound_on_changes() {
        let retention = Retention::new(config(u64::MAX, 5_000), Vec::new(), Seq::ZERO);
        assert_eq!(next(&retention, 1, 5_999, 0), None);
        assert_eq!(next(&retention, 1, 6_000, 0), Some(1_000));
        assert_eq!(next(&retention, 1, 9_000, 1_000), Some(2_000));
        assert_eq!(next(&retention, 1, 6_001, 1_000), None);
    }

    #[test]
    fn a_restart_goes_on_with_the_samples_of_the_store() {
        let samples = vec![(Seq::new(700), Millis(5)), (Seq::new(900), Millis(WEEK))];
        let mut retention = Retention::new(config(WEEK, u64::MAX), samples, Seq::new(900));
        assert_eq!(next(&retention, WEEK + 5, 900, 0), Some(700));
        assert!(!retention.lacks_sample(Millis(u64::MAX)), "the last sample is of the head");
        retention.handle_changes();
        assert!(!retention.lacks_sample(Millis(WEEK + 604_799)));
        assert!(retention.lacks_sample(Millis(WEEK + 604_800)), "a thousandth of a week");
        retention.handle_sample(Seq::new(950), Millis(WEEK + 604_800));
        assert!(!retention.lacks_sample(Millis(u64::MAX)));
        // The store of a release that kept none.
        let retention = Retention::new(config(WEEK, u64::MAX), Vec::new(), Seq::new(900));
        assert!(retention.lacks_sample(Millis(0)) && next(&retention, u64::MAX, 900, 0).is_none());
    }

    #[test]
    fn samples_are_few_however_long_the_retention() {
        for (retention, spacing) in [(0, 1_000), (1_000_000, 1_000), (WEEK, 604_800)] {
            let retention = Retention::new(config(retention, 1), Vec::new(), Seq::ZERO);
            assert_eq!(retention.spacing(), spacing);
        }
    }
}
