//! The committed clock: the store's, carried on by this process's monotonic clock between readings.
//!
//! It never runs back. A reading that differs by more than 5 minutes from where the clock should be is not adopted:
//! schedules would fire wrongly, so starts and ends are held and an alarm is raised until the clocks agree again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use carillon_world::Millis;

const JUMP_MAX: u64 = 5 * 60 * 1000;
/// How often the shell reads the store's clock.
pub(crate) const READ_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Clock {
    base: Instant,
    /// The store's time at `base`, in ms.
    at_base: AtomicU64,
    /// The latest time given out.
    given: AtomicU64,
    jumped: AtomicBool,
}

impl Clock {
    pub(crate) fn new(base: Instant, reading: Millis) -> Clock {
        Clock {
            base,
            at_base: AtomicU64::new(reading.0),
            given: AtomicU64::new(reading.0),
            jumped: AtomicBool::new(false),
        }
    }

    pub(crate) fn now(&self) -> Millis {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Millis {
        let time = self.at_base.load(Ordering::Relaxed).saturating_add(self.since_base(now));
        Millis(self.given.fetch_max(time, Ordering::Relaxed).max(time))
    }

    /// Takes a reading of the store's clock made at `now`. Gives whether it was adopted.
    pub(crate) fn handle_reading(&self, now: Instant, reading: Millis) -> bool {
        let expected = self.at_base.load(Ordering::Relaxed).saturating_add(self.since_base(now));
        let jumped = expected.abs_diff(reading.0) > JUMP_MAX;
        if !jumped {
            self.at_base.store(reading.0.saturating_sub(self.since_base(now)), Ordering::Relaxed);
        }
        self.jumped.store(jumped, Ordering::Relaxed);
        !jumped
    }

    /// Whether the last reading was too far off.
    pub(crate) fn has_jumped(&self) -> bool {
        self.jumped.load(Ordering::Relaxed)
    }

    fn since_base(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.base).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_follows_the_store_but_never_runs_back() {
        let base = Instant::now();
        let after = |ms| base + Duration::from_millis(ms);
        let clock = Clock::new(base, Millis(1_000_000));
        assert_eq!(clock.at(after(10)), Millis(1_000_010));
        assert!(clock.handle_reading(after(10), Millis(1_000_000)), "10 ms behind");
        assert_eq!(clock.at(after(12)), Millis(1_000_010), "waits until the store has caught up");
        assert_eq!(clock.at(after(40)), Millis(1_000_030));
        assert!(clock.handle_reading(after(40), Millis(1_000_100)));
        assert_eq!(clock.at(after(40)), Millis(1_000_100));
    }

    #[test]
    fn a_jump_is_not_adopted_and_ends_when_the_clocks_agree_again() {
        let base = Instant::now();
        let clock = Clock::new(base, Millis(1_000_000));
        assert!(!clock.handle_reading(base, Millis(1_000_000 + JUMP_MAX + 1)));
        assert!(clock.has_jumped());
        assert_eq!(clock.at(base), Millis(1_000_000));
        assert!(clock.handle_reading(base, Millis(1_000_500)));
        assert!(!clock.has_jumped());
    }
}
