//! When deliveries were due and when they came, for the live table and the percentiles.
//!
//! Pure: instants come in. A time counts from the moment that made a client a recipient of this edition: the answer to
//! the write that did, as the admin saw it, or the start that a schedule asked for. A delivery may overtake the answer
//! to its write; its time is then 0.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::record::{Due, Edition};

/// Resolution of times.
const STEP: Duration = Duration::from_micros(100);
/// Times from here on, 60 s, are counted as this.
const STEPS: usize = 600_000;

#[derive(Debug)]
pub(super) struct Deliveries {
    clients: Vec<Client>,
    /// Deliveries by time, in steps.
    times: Vec<u32>,
    timed: u64,
    count: u64,
}

#[derive(Debug, Default)]
struct Client {
    awaited: HashMap<Edition, Instant>,
    /// Came before it was known to be due.
    early: HashSet<Edition>,
}

impl Deliveries {
    pub(super) fn new(clients: usize) -> Self {
        let clients = std::iter::repeat_with(Client::default).take(clients).collect();
        Self { clients, times: vec![0; STEPS], timed: 0, count: 0 }
    }

    /// All messages that came to a client with another content than it had.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn due(&mut self, due: &[Due]) {
        for Due { client, edition, since } in due {
            let client = &mut self.clients[*client];
            if client.early.remove(edition) {
                self.times[0] += 1;
                self.timed += 1;
            } else {
                // Due again, after it was not for a while: what counts is the last time.
                client.awaited.insert(*edition, *since);
            }
        }
    }

    /// A message came to a client at `at`; `None` if its body names no edition.
    pub(super) fn came(&mut self, client: usize, edition: Option<Edition>, at: Instant) {
        self.count += 1;
        let Some(edition) = edition else { return };
        let client = &mut self.clients[client];
        match client.awaited.remove(&edition) {
            Some(since) => {
                let steps = at.saturating_duration_since(since).as_nanos() / STEP.as_nanos();
                let step = usize::try_from(steps).unwrap_or(STEPS).min(STEPS - 1);
                self.times[step] += 1;
                self.timed += 1;
            }
            None => drop(client.early.insert(edition)),
        }
    }

    /// The time within which so many of a thousand deliveries came, in ms; 0 if none did.
    pub(super) fn permille_ms(&self, permille: u64) -> f64 {
        let wanted = (self.timed * permille).div_ceil(1_000);
        let mut sum = 0;
        let reached = |count: &u32| {
            sum += u64::from(*count);
            sum >= wanted
        };
        let step = self.times.iter().position(reached).unwrap_or(0);
        STEP.as_secs_f64() * 1_000.0 * step as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_when_an_edition_was_last_due() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let edition = |message| Edition { message, content: 1 };
        let due = |message, ms| [Due { client: 1, edition: edition(message), since: after(ms) }];
        let mut deliveries = Deliveries::new(2);
        assert_eq!(deliveries.permille_ms(990), 0.0);
        for message in 0..98 {
            deliveries.due(&due(message, 0));
            deliveries.came(1, Some(edition(message)), after(5));
        }
        deliveries.due(&due(98, 0));
        deliveries.due(&due(98, 100));
        deliveries.came(1, Some(edition(98)), after(120));
        // It overtook the answer to its write.
        deliveries.came(1, Some(edition(99)), after(7));
        deliveries.due(&due(99, 8));
        deliveries.came(0, None, after(9));
        assert_eq!(deliveries.count(), 101);
        assert_eq!([500, 990, 1_000].map(|part| deliveries.permille_ms(part)), [5.0, 5.0, 20.0]);
        // A minute and more is a minute.
        deliveries.due(&due(7, 0));
        deliveries.came(1, Some(edition(7)), after(3_600_000));
        assert!((deliveries.permille_ms(1_000) - 60_000.0).abs() < 1.0);
    }
}
