//! Which edge to ask, and when: any edge serves any device, so a device leaves one that fails or lags for the next.

use super::random::Random;

/// First pause after a failure. Doubles with each further one in a row.
const BACKOFF_FIRST_MS: u64 = 500;
/// Longest pause of our own making: a returning server is found within a minute.
pub(super) const BACKOFF_MAX_MS: u64 = 60_000;
/// Longest pause that a server can impose, so that a wrong header does not silence a device for good.
pub(super) const RETRY_AFTER_MAX_MS: u64 = 3_600_000;

/// The pause after `failures` failures in a row (1 is the first): between half and all of a doubling time, so that
/// devices that failed together do not come back together.
pub(super) fn backoff_ms(failures: u32, random: &mut Random) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    let most = (BACKOFF_FIRST_MS << doublings).min(BACKOFF_MAX_MS);
    most / 2 + random.up_to(most / 2)
}

/// What a server asked for, never less, and up to a tenth and a fifth of a second more.
pub(super) fn retry_after_ms(asked_ms: u64, random: &mut Random) -> u64 {
    let asked = asked_ms.min(RETRY_AFTER_MAX_MS);
    asked + random.up_to(asked / 10 + 200)
}

#[derive(Clone, Copy, Debug, Default)]
struct Edge {
    /// Not asked before this time.
    rests_until: u64,
    /// In a row.
    failures: u32,
}

/// The edges in ring order. Never empty.
#[derive(Debug)]
pub(super) struct Edges {
    edges: Vec<Edge>,
    at: usize,
}

impl Edges {
    pub(super) fn new(count: usize, random: &mut Random) -> Edges {
        let count = count.max(1);
        // Devices start at edges of their own choice, which spreads them.
        let at = usize::try_from(random.up_to(count as u64 - 1)).unwrap_or(0);
        Edges { edges: vec![Edge::default(); count], at }
    }

    /// The edge to ask at `now`: the one last used, else the next in the ring that may be asked.
    pub(super) fn pick(&mut self, now: u64) -> Option<usize> {
        let count = self.edges.len();
        let free = (0..count)
            .map(|i| (self.at + i) % count)
            .find(|i| self.edges[*i].rests_until <= now)?;
        self.at = free;
        Some(free)
    }

    /// When the first of them may be asked.
    pub(super) fn free_at(&self) -> u64 {
        self.edges.iter().map(|edge| edge.rests_until).min().unwrap_or(0)
    }

    pub(super) fn succeeded(&mut self, edge: usize) {
        self.edges[edge] = Edge::default();
    }

    /// It could not be reached, answered nonsense, or is behind: rests for what it asked for, or backs off.
    pub(super) fn failed(
        &mut self,
        now: u64,
        edge: usize,
        retry_after: Option<u64>,
        random: &mut Random,
    ) {
        let it = &mut self.edges[edge];
        it.failures = it.failures.saturating_add(1);
        let pause = match retry_after {
            Some(asked) => retry_after_ms(asked, random),
            None => backoff_ms(it.failures, random),
        };
        it.rests_until = now + pause;
        self.at = (edge + 1) % self.edges.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_with_jitter_up_to_a_minute() {
        let mut random = Random::new(1);
        for (failures, most) in
            [(1, 500), (2, 1_000), (5, 8_000), (8, 60_000), (4_000_000_000, 60_000)]
        {
            let pauses: Vec<u64> = (0..200).map(|_| backoff_ms(failures, &mut random)).collect();
            assert!(
                pauses.iter().all(|ms| (most / 2..=most).contains(ms)),
                "{failures}: {pauses:?}"
            );
            assert!(pauses.iter().any(|ms| *ms != pauses[0]), "no jitter at {failures}");
        }
    }

    #[test]
    fn a_server_cannot_silence_a_device_for_longer_than_an_hour() {
        let pause = retry_after_ms(u64::MAX, &mut Random::new(1));
        assert!((RETRY_AFTER_MAX_MS..=RETRY_AFTER_MAX_MS / 10 * 11 + 200).contains(&pause));
    }

    #[test]
    fn a_failed_edge_is_left_for_the_next_and_none_is_asked_while_all_rest() {
        let mut random = Random::new(1);
        let mut edges = Edges::new(3, &mut random);
        let first = edges.pick(0).expect("all are free");
        assert_eq!(edges.pick(0), Some(first), "a good edge is kept");
        edges.failed(0, first, Some(5_000), &mut random);
        assert_eq!(edges.pick(0), Some((first + 1) % 3));
        edges.failed(0, (first + 1) % 3, Some(1_000), &mut random);
        edges.failed(0, (first + 2) % 3, Some(9_000), &mut random);
        assert_eq!(edges.pick(0), None);
        let free = edges.free_at();
        assert!(free >= 1_000);
        assert_eq!(edges.pick(free), Some((first + 1) % 3));
    }
}
