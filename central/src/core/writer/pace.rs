//! How many rows a step may forget, so that writers hardly notice it.
//!
//! What a row costs depends on the store, its disk and the table: the same 500 rows are two milliseconds of one and
//! forty of another. So the size follows what steps took, against what batches without a step take: a step that takes
//! longer than two of those shrinks the next, one that is shorter lets it grow. While nobody writes there is less reason
//! to hurry.

use std::time::Duration;

use super::upkeep::{KINDS, StepKind};

/// Rows of the first step of a kind.
const FIRST: u64 = 100;
/// However slow the store, something has to be forgotten.
const LEAST: u64 = 10;
/// A step may take so long whatever batches take, so that a fast store is not held to its fastest.
const ALLOWED_MIN: Duration = Duration::from_millis(2);
/// The same where no batch came between two steps. It is what a writer who comes then may wait for.
const ALLOWED_IDLE: Duration = Duration::from_millis(10);
/// The share of the newest batch in what is usual.
const SMOOTHING: u32 = 8;

#[derive(Debug)]
pub(super) struct Pace {
    most: u64,
    /// By kind.
    rows: [u64; KINDS.len()],
    /// What a batch without a step takes, smoothed.
    usual: Duration,
    /// No batch without a step came after the last one.
    is_idle: bool,
}

impl Pace {
    pub(super) fn new(most: u64) -> Pace {
        Pace { most, rows: [FIRST.min(most); KINDS.len()], usual: Duration::ZERO, is_idle: true }
    }

    /// Rows of each table that the next step may forget.
    pub(super) fn rows(&self, kind: StepKind) -> u64 {
        self.rows[kind as usize]
    }

    /// A batch was committed, which may have held a step.
    pub(super) fn handle_batch(&mut self, step: Option<StepKind>, took: Duration) {
        let Some(kind) = step else {
            self.usual = self.usual * (SMOOTHING - 1) / SMOOTHING + took / SMOOTHING;
            self.is_idle = false;
            return;
        };
        let least = if self.is_idle { ALLOWED_IDLE } else { ALLOWED_MIN };
        self.is_idle = true;
        let allowed = (self.usual * 2).max(least);
        let rows = self.rows[kind as usize];
        let next = if took > allowed {
            // Not all at once: a single slow commit says little.
            rows - rows / 4
        } else if took * 2 <= allowed {
            rows * 2
        } else {
            rows + rows / 8
        };
        self.rows[kind as usize] = next.clamp(LEAST.min(self.most), self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// After steps on a store that takes `base` for a batch and `row` more for each row.
    fn settled(base: Duration, row: Duration, most: u64) -> (Pace, Vec<u64>) {
        let mut pace = Pace::new(most);
        let mut sizes = Vec::new();
        for _ in 0..200 {
            pace.handle_batch(None, base);
            let rows = pace.rows(StepKind::Purge);
            sizes.push(rows);
            pace.handle_batch(Some(StepKind::Purge), base + row * u32::try_from(rows).unwrap());
        }
        (pace, sizes)
    }

    #[test]
    fn a_step_takes_about_as_long_as_a_batch_more_whatever_a_row_costs() {
        for (base, row) in [(1_000, 5), (1_000, 80), (20_000, 400), (300, 20)] {
            let (base, row) = (Duration::from_micros(base), Duration::from_micros(row));
            let (_, sizes) = settled(base, row, u64::MAX);
            let allowed = (base * 2).max(ALLOWED_MIN);
            for rows in &sizes[100..] {
                let took = base + row * u32::try_from(*rows).unwrap();
                assert!(
                    took <= allowed * 9 / 8 + row && took * 2 >= allowed,
                    "{rows} rows: {took:?}"
                );
            }
        }
    }

    #[test]
    fn a_step_never_exceeds_what_is_configured_and_never_stops() {
        let (pace, sizes) = settled(MS, Duration::ZERO, 500);
        assert_eq!((pace.rows(StepKind::Purge), sizes[0]), (500, FIRST));
        let (pace, _) = settled(MS, MS * 10, 500);
        assert_eq!(pace.rows(StepKind::Purge), LEAST);
        assert_eq!(pace.rows(StepKind::Keys), FIRST, "each kind for itself");
        assert_eq!(settled(MS, MS * 10, 3).0.rows(StepKind::Purge), 3);
    }

    #[test]
    fn a_step_is_larger_while_nobody_writes_and_small_again_soon_after() {
        let row = Duration::from_micros(50);
        let (mut pace, _) = settled(MS, row, u64::MAX);
        let mut step = |writes: bool| {
            if writes {
                pace.handle_batch(None, MS);
            }
            let rows = u32::try_from(pace.rows(StepKind::Purge)).unwrap();
            pace.handle_batch(Some(StepKind::Purge), MS + row * rows);
            rows
        };
        let busy = step(true);
        let idle = (0..50).map(|_| step(false)).max().unwrap();
        assert!((15..=25).contains(&busy) && (150..=220).contains(&idle), "{busy} and {idle} rows");
        assert!((0..12).map(|_| step(true)).last().unwrap() <= 25);
    }

    #[test]
    fn one_slow_commit_does_not_undo_what_was_learned() {
        let (mut pace, _) = settled(MS, Duration::ZERO, 500);
        pace.handle_batch(Some(StepKind::Purge), MS * 1_000);
        assert_eq!(pace.rows(StepKind::Purge), 375);
    }
}
