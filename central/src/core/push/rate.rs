//! How fast pushes may go: a bucket that fills evenly.

use carillon_world::Millis;

/// Thousandths of a push.
const ONE: u64 = 1_000;

/// At most `rate` a second, with a tenth of a second's worth at once.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: u32,
    level: u64,
    at: Millis,
}

impl Bucket {
    /// `rate`: pushes a second, not 0.
    pub fn new(rate: u32, now: Millis) -> Bucket {
        Bucket { rate, level: full(rate), at: now }
    }

    pub fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
        self.level = self.level.min(full(rate));
    }

    /// Takes one.
    ///
    /// # Errors
    /// If there is none: the moment from which there is.
    pub fn take(&mut self, now: Millis) -> Result<(), Millis> {
        let passed = now.0.saturating_sub(self.at.0);
        self.at = self.at.max(now);
        // A push a second is a thousandth a millisecond.
        let more = passed.saturating_mul(self.rate.into());
        self.level = self.level.saturating_add(more).min(full(self.rate));
        if self.level >= ONE {
            self.level -= ONE;
            return Ok(());
        }
        let missing = (ONE - self.level).div_ceil(u64::from(self.rate.max(1)));
        Err(now.plus(missing.max(1)))
    }
}

const fn full(rate: u32) -> u64 {
    let tenth = rate as u64 * ONE / 10;
    if tenth > ONE { tenth } else { ONE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_than_the_rate_and_a_tenth() {
        for rate in [1, 7, 100, 20_000] {
            let mut bucket = Bucket::new(rate, Millis(0));
            let mut taken = 0;
            for at in 0..10_000 {
                while bucket.take(Millis(at)).is_ok() {
                    taken += 1;
                }
            }
            let even = u64::from(rate) * 10;
            assert!(
                (even - 1..=even + u64::from(rate).div_ceil(10) + 1).contains(&taken),
                "{rate}: {taken}"
            );
        }
    }

    #[test]
    fn who_waits_as_told_gets_one() {
        let mut bucket = Bucket::new(3, Millis(1_000));
        let mut at = Millis(1_000);
        for _ in 0..20 {
            match bucket.take(at) {
                Ok(()) => {}
                Err(then) => {
                    assert!(then > at);
                    at = then;
                    assert_eq!(bucket.take(at), Ok(()));
                }
            }
        }
        assert!((6_000..8_000).contains(&at.0), "{at:?}");
        // A clock that goes back takes nothing away.
        assert!(bucket.take(Millis(0)).is_err());
        assert!(bucket.take(at.plus(400)).is_ok());
    }
}
