//! What the tasks of a run tell each other: counts for the table, deliveries for the percentiles.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::deliveries::Deliveries;
use super::plan::Kind;
use super::record::{Due, Edition};
use super::verdict::Happened;

#[derive(Debug)]
pub(super) struct Live {
    /// Clients that have a session.
    connected: AtomicU64,
    /// Requests of clients that brought no answer, as while the edge is down.
    failures: AtomicU64,
    /// Clients that have come to rest.
    at_rest: AtomicU64,
    edge_is_up: AtomicBool,
    happened: Mutex<Happened>,
    deliveries: Mutex<Deliveries>,
}

/// All counts at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) connected: u64,
    pub(super) failures: u64,
    pub(super) at_rest: u64,
    pub(super) edge_is_up: bool,
    pub(super) happened: Happened,
    pub(super) deliveries: u64,
    /// Deliveries of the client that had fewest.
    pub(super) fewest: u64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Without what fell due while the edge was away, or just after.
    pub(super) calm_p99_ms: f64,
    pub(super) slowest_ms: f64,
    pub(super) edge_absence: Duration,
}

impl Live {
    pub(super) fn new(clients: usize) -> Self {
        Self {
            connected: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            at_rest: AtomicU64::new(0),
            edge_is_up: AtomicBool::new(true),
            happened: Mutex::default(),
            deliveries: Mutex::new(Deliveries::new(clients, Instant::now())),
        }
    }

    pub(super) fn note_connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_at_rest(&self) {
        self.at_rest.fetch_add(1, Ordering::Relaxed);
    }

    /// The edge was killed, or serves again.
    pub(super) fn note_edge(&self, is_up: bool) {
        self.edge_is_up.store(is_up, Ordering::Relaxed);
        let mut deliveries = lock(&self.deliveries);
        if is_up {
            deliveries.edge_came_back(Instant::now());
        } else {
            deliveries.edge_went(Instant::now());
        }
    }

    pub(super) fn note_event(&self, kind: Kind) {
        lock(&self.happened).note(kind);
    }

    pub(super) fn note_due(&self, due: &[Due]) {
        lock(&self.deliveries).due(due);
    }

    pub(super) fn note_delivery(&self, client: usize, edition: Option<Edition>, at: Instant) {
        lock(&self.deliveries).came(client, edition, at);
    }

    pub(super) fn counts(&self) -> Counts {
        let happened = *lock(&self.happened);
        let deliveries = lock(&self.deliveries);
        Counts {
            connected: self.connected.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            at_rest: self.at_rest.load(Ordering::Relaxed),
            edge_is_up: self.edge_is_up.load(Ordering::Relaxed),
            happened,
            deliveries: deliveries.count(),
            fewest: deliveries.fewest(),
            p50_ms: deliveries.all().permille_ms(500),
            p99_ms: deliveries.all().permille_ms(990),
            calm_p99_ms: deliveries.calm().permille_ms(990),
            edge_absence: deliveries.absence(),
            slowest_ms: deliveries.all().permille_ms(1_000),
        }
    }

    /// All deliveries so far.
    pub(super) fn deliveries(&self) -> u64 {
        lock(&self.deliveries).count()
    }
}

/// Counts stay true whoever panicked while holding them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
