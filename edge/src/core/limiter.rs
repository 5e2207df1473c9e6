//! How often one source address may enrol devices.
//!
//! Enrolment is the only call that makes something durable for a stranger, so it is paced by where it comes from: an
//! IPv4 address, or the /64 that one IPv6 subscriber gets. The table has a fixed number of places. When it is full of
//! sources that are still being paced, further ones share a single bucket, so a flood of addresses costs the flooder's
//! neighbours some patience but never the edge its memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// What the limiter tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(u128);

impl Source {
    /// IPv4 whole (also when written as IPv6), IPv6 by its first 64 bits.
    pub fn of(address: IpAddr) -> Source {
        let v6 = match address.to_canonical() {
            IpAddr::V4(v4) => return Source(v4.to_ipv6_mapped().to_bits()),
            IpAddr::V6(v6) => v6,
        };
        Source(Ipv6Addr::to_bits(v6) >> 64 << 64)
    }
}

/// Token buckets by source.
#[derive(Debug)]
pub struct Limiter {
    /// Time in which one enrolment is earned back.
    every: Duration,
    burst: u32,
    places: usize,
    /// When each source's bucket is full again. A source that is not here has a full bucket.
    full_at: HashMap<Source, Instant>,
    shared_full_at: Option<Instant>,
}

impl Limiter {
    /// `burst` at once, then one `every` so often; at most `places` sources are told apart.
    pub fn new(every: Duration, burst: u32, places: usize) -> Limiter {
        Limiter { every, burst, places, full_at: HashMap::new(), shared_full_at: None }
    }

    /// Takes one, or says after how long there will be one.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(&mut self, now: Instant, source: Source) -> Result<(), Duration> {
        if !self.full_at.contains_key(&source) && self.full_at.len() >= self.places {
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if !self.full_at.contains_key(&source) && self.full_at.len() >= self.places {
            let full_at = self.shared_full_at.unwrap_or(now);
            self.shared_full_at = Some(self.spend(now, full_at)?);
            return Ok(());
        }
        let full_at = self.full_at.get(&source).copied().unwrap_or(now);
        let full_at = self.spend(now, full_at)?;
        self.full_at.insert(source, full_at);
        Ok(())
    }

    /// How many sources have a place.
    pub fn len(&self) -> usize {
        self.full_at.len()
    }

    /// Whether no source has a place.
    pub fn is_empty(&self) -> bool {
        self.full_at.is_empty()
    }

    fn spend(&self, now: Instant, full_at: Instant) -> Result<Instant, Duration> {
        let after = full_at.max(now) + self.every;
        let most = now + self.every.saturating_mul(self.burst);
        if after > most { Err(after - most) } else { Ok(after) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    #[test]
    fn a_burst_passes_and_the_next_is_told_how_long_to_wait() {
        let mut limiter = Limiter::new(SECOND, 3, 10);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(limiter.take(now, source("10.0.0.1")), Ok(()));
        }
        assert_eq!(limiter.take(now, source("10.0.0.1")), Err(SECOND));
        assert_eq!(
            limiter.take(now, source("10.0.0.2")),
            Ok(()),
            "another source is not concerned"
        );
        assert_eq!(limiter.take(now + SECOND, source("10.0.0.1")), Ok(()));
        assert_eq!(limiter.take(now + SECOND, source("10.0.0.1")), Err(SECOND));
    }

    #[test]
    fn an_ipv6_subscriber_is_one_source() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("10.0.0.2"), source("10.0.0.1"));
    }

    #[test]
    fn the_table_does_not_grow_and_a_full_one_shares_a_bucket() {
        let mut limiter = Limiter::new(SECOND, 2, 3);
        let now = Instant::now();
        for n in 0..3 {
            assert_eq!(limiter.take(now, source(&format!("10.0.0.{n}"))), Ok(()));
        }
        assert_eq!(limiter.take(now, source("10.0.1.1")), Ok(()));
        assert_eq!(limiter.take(now, source("10.0.1.2")), Ok(()));
        assert_eq!(limiter.take(now, source("10.0.1.3")), Err(SECOND));
        assert_eq!(limiter.take(now, source("10.0.0.0")), Ok(()), "who has a place keeps it");
        assert_eq!(limiter.len(), 3);
        assert_eq!(limiter.take(now + 5 * SECOND, source("10.0.1.3")), Ok(()));
        assert_eq!(limiter.len(), 1, "places of sources that are full again are given away");
    }
}
