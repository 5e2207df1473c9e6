//! When an event that was not taken is tried again.

/// All in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// After the first try; three times as long after each further one,
    pub first: u64,
    /// up to this.
    pub longest: u64,
    /// From the first try to the last.
    pub tried_for: u64,
}

const HOUR: u64 = 60 * 60 * 1000;

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule { first: 5_000, longest: 4 * HOUR, tried_for: 24 * HOUR }
    }
}

impl Schedule {
    /// The pause after so many tries, 1 or more. `jitter` is from 0 to 1 and moves it by a quarter either way, so that
    /// what failed together is not tried together.
    pub fn pause(&self, attempts: u32, jitter: f64) -> u64 {
        let times = 3_u64.saturating_pow(attempts.saturating_sub(1));
        let pause = self.first.saturating_mul(times).min(self.longest);
        (pause as f64 * (0.75 + jitter.clamp(0.0, 1.0) / 2.0)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_seconds_to_hours_and_scatter() {
        let schedule = Schedule::default();
        let pauses: Vec<u64> = (1..=9).map(|n| schedule.pause(n, 0.5) / 1000).collect();
        assert_eq!(pauses, [5, 15, 45, 135, 405, 1_215, 3_645, 10_935, 14_400]);
        assert_eq!((schedule.pause(1, 0.0), schedule.pause(1, 1.0)), (3_750, 6_250));
        assert_eq!(schedule.pause(u32::MAX, 1.0), 5 * HOUR);
    }
}
