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

/// Clients that missed the edge pause before they try again, up to 2 s the third time in a row. What falls due until
/// this long after it is back says more about that than about the way of a message.
const AFTER_ABSENCE: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(super) struct Deliveries {
    clients: Vec<Client>,
    count: u64,
    all: Times,
    calm: Times,
    /// What falls due from here on is calm; `None` while the edge is away.
    calm_from: Option<Instant>,
    went_at: Option<Instant>,
    absence: Duration,
}

#[derive(Debug, Default)]
struct Client {
    count: u64,
    awaited: HashMap<Edition, Awaited>,
    /// Came before it was known to be due.
    early: HashSet<Edition>,
}

#[derive(Clone, Copy, Debug)]
struct Awaited {
    since: Instant,
    calm: bool,
}

impl Deliveries {
    /// The edge is there from `start` on.
    pub(super) fn new(clients: usize, start: Instant) -> Self {
        let clients = std::iter::repeat_with(Client::default).take(clients).collect();
        let (all, calm) = (Times::default(), Times::default());
        Self {
            clients,
            count: 0,
            all,
            calm,
            calm_from: Some(start),
            went_at: None,
            absence: Duration::ZERO,
        }
    }

    /// All messages that came to a client with another content than it had.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// As many as the client has that has fewest.
    pub(super) fn fewest(&self) -> u64 {
        self.clients.iter().map(|client| client.count).min().unwrap_or(0)
    }

    /// Times of all deliveries.
    pub(super) fn all(&self) -> &Times {
        &self.all
    }

    /// Times of those that did not fall due while the edge was away, or just after.
    pub(super) fn calm(&self) -> &Times {
        &self.calm
    }

    /// How long the edge was away.
    pub(super) fn absence(&self) -> Duration {
        self.absence
    }

    pub(super) fn edge_went(&mut self, at: Instant) {
        self.calm_from = None;
        self.went_at = Some(at);
    }

    pub(super) fn edge_came_back(&mut self, at: Instant) {
        self.calm_from = Some(at + AFTER_ABSENCE);
        self.absence += self.went_at.take().map_or(Duration::ZERO, |went| at - went);
    }

    pub(super) fn due(&mut self, due: &[Due]) {
        for Due { client, edition, since } in due {
            let calm = self.calm_from.is_some_and(|from| *since >= from);
            let awaited = Awaited { since: *since, calm };
            let client = &mut self.clients[*client];
            if client.early.remove(edition) {
                self.time(awaited, *since);
            } else {
                // Due again, after it was not for a while: what counts is the last time.
                client.awaited.insert(*edition, awaited);
            }
        }
    }

    /// A message came to a client at `at`; `None` if its body names no edition.
    pub(super) fn came(&mut self, client: usize, edition: Option<Edition>, at: Instant) {
        self.count += 1;
        let client = &mut self.clients[client];
        client.count += 1;
        let Some(edition) = edition else { return };
        match client.awaited.remove(&edition) {
            Some(awaited) => self.time(awaited, at),
            None => drop(client.early.insert(edition)),
        }
    }

    fn time(&mut self, awaited: Awaited, came: Instant) {
        let time = came.saturating_duration_since(awaited.since);
        self.all.add(time);
        if awaited.calm {
            self.calm.add(time);
        }
    }
}

/// How long deliveries took.
#[derive(Debug)]
pub(super) struct Times {
    /// Deliveries by time, in steps.
    counts: Vec<u32>,
    sum: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: vec![0; STEPS], sum: 0 }
    }
}

impl Times {
    fn add(&mut self, time: Duration) {
        let step = usize::try_from(time.as_nanos() / STEP.as_nanos()).unwrap_or(STEPS);
        self.counts[step.min(STEPS - 1)] += 1;
        self.sum += 1;
    }

    /// The time within which so many of a thousand came, in ms; 0 if none did.
    pub(super) fn permille_ms(&self, permille: u64) -> f64 {
        let wanted = (self.sum * permille).div_ceil(1_000);
        let mut sum = 0;
        let reached = |count: &u32| {
            sum += u64::from(*count);
            sum >= wanted
        };
        let step = self.counts.iter().position(reached).unwrap_or(0);
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
        let mut deliveries = Deliveries::new(2, start);
        assert_eq!(deliveries.all().permille_ms(990), 0.0);
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
        assert_eq!((deliveries.count(), deliveries.fewest()), (101, 1));
        let times = |deliveries: &Deliveries| {
            [500, 990, 1_000].map(|part| deliveries.all().permille_ms(part))
        };
        assert_eq!(times(&deliveries), [5.0, 5.0, 20.0]);
        // A minute and more is a minute.
        deliveries.due(&due(7, 0));
        deliveries.came(1, Some(edition(7)), after(3_600_000));
        assert!((times(&deliveries)[2] - 60_000.0).abs() < 1.0);
    }

    #[test]
    fn what_falls_due_while_the_edge_is_away_is_not_calm() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut deliveries = Deliveries::new(1, start);
        let deliver = |deliveries: &mut Deliveries, content, due, came| {
            let edition = Edition { message: 0, content };
            deliveries.due(&[Due { client: 0, edition, since: after(due) }]);
            deliveries.came(0, Some(edition), after(came));
        };
        deliver(&mut deliveries, 1, 10, 20);
        deliveries.edge_went(after(25));
        deliver(&mut deliveries, 2, 30, 1_030);
        deliveries.edge_came_back(after(2_000));
        assert_eq!(deliveries.absence(), Duration::from_millis(1_975));
        deliver(&mut deliveries, 3, 2_010, 4_010);
        let slowest = [deliveries.all(), deliveries.calm()].map(|times| times.permille_ms(1_000));
        assert_eq!(slowest, [2_000.0, 10.0]);
        deliver(&mut deliveries, 4, 6_000, 6_030);
        assert_eq!(deliveries.calm().permille_ms(1_000), 30.0);
    }
}
