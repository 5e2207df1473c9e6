//! One endpoint: what is sent next, and what follows from each answer.
//!
//! ```text
//! handle_read ─▶ queue ─▶ poll_try ─▶ (a request) ─▶ handle_outcome ─▶ delivered
//!                            ▲                            │
//!                            └── due ── retries ◀─────────┘ not taken
//! poll_report ─▶ (the writer) ─▶ handle_reported
//! ```
//!
//! What always holds: every wanted event up to the cursor was delivered, given up or missed, or is among the retries; what
//! is beyond it is in the queue, under way, or not read yet. So whoever begins anew from a report that was committed leaves
//! nothing out, and repeats at most what came after it.
//!
//! An endpoint that does not answer is asked less and less, with one event at a time. Any event serves to ask, whether it
//! is due or not, so one that is back is found within minutes. Retries and new events take turns, so an event that is
//! never taken holds up no other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use carillon_persist::{CallbackProgress, CallbackRetry, CallbackState};
use carillon_world::Millis;

use super::schedule::Schedule;

/// Failures in a row after which an endpoint is asked with one event at a time.
const STREAK_MAX: u32 = 3;
/// Longest pause between two such questions, in ms.
const PROBE_PAUSE_MAX: u64 = 10 * 60 * 1000;
/// Events that may be tried beyond one whose first try is under way: what a crash repeats at most, with the reports.
const AHEAD_MAX: u64 = 1_000;
/// Between two reports, in ms.
const REPORT_PAUSE: u64 = 100;
/// After the last report a cursor that moved over what nobody wants is reported, in ms.
const STALE_AFTER: u64 = 60 * 1000;

#[derive(Clone, Copy, Debug)]
pub struct DeliveryLimits {
    /// Requests under way at a time.
    pub concurrency: usize,
    /// Events that wait to be tried again.
    pub retries_max: usize,
    pub schedule: Schedule,
    /// Without a success for so long, in ms, it is paused.
    pub pause_after: u64,
}

/// What came of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// The endpoint is no more.
    Gone {
        error: Arc<str>,
    },
    Failed {
        error: Arc<str>,
        after: Option<u64>,
    },
    /// The event is not in the log any more.
    Missing,
}

/// An event that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    pub event: u64,
    /// It was tried before, so whoever read the log has let go of it.
    pub is_retry: bool,
}

/// How far the endpoint is, for the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub cursor: u64,
    pub retries: Vec<CallbackRetry>,
    /// More than the last report said.
    pub delivered: u64,
    pub failed: u64,
    pub missed: u64,
    pub last_success_at: Option<Millis>,
    pub last_failure_at: Option<Millis>,
    pub failing_since: Option<Millis>,
    pub last_error: Option<Arc<str>>,
    /// The endpoint is to be paused.
    pub pause: Option<CallbackState>,
}

impl Report {
    /// What the store holds after it. Elsewhere than by reports events are only missed, and the cursor moved on.
    pub fn applied_to(&self, before: &CallbackProgress) -> CallbackProgress {
        CallbackProgress {
            cursor: self.cursor.max(before.cursor),
            retries: self.retries.clone(),
            delivered: before.delivered + self.delivered,
            failed: before.failed + self.failed,
            missed: before.missed + self.missed,
            last_success_at: self.last_success_at,
            last_failure_at: self.last_failure_at,
            failing_since: self.failing_since,
            last_error: self.last_error.clone(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    /// `None` if it is the first try.
    before: Option<CallbackRetry>,
    began: Millis,
    /// Counts first tries.
    index: u64,
}

/// What is counted between two reports.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    delivered: u64,
    failed: u64,
    missed: u64,
}

impl Counts {
    fn add(&mut self, more: Counts) {
        self.delivered += more.delivered;
        self.failed += more.failed;
        self.missed += more.missed;
    }
}

#[derive(Debug)]
pub struct Delivery {
    limits: DeliveryLimits,
    /// All wanted events up to here were read.
    read: u64,
    /// Read, wanted and not begun, rising.
    queue: VecDeque<u64>,
    flying: BTreeMap<u64, Flight>,
    /// Also those that are under way.
    retries: BTreeMap<u64, CallbackRetry>,
    /// Of those that are not, by when they are due.
    due: BTreeSet<(Millis, u64)>,
    /// Failures since the last success.
    streak: u32,
    /// While it is asked with one event at a time, nothing is tried before.
    held_until: Millis,
    /// Nor before this: by its own words, which a success that was under way does not take back.
    asked_until: Millis,
    /// What began last was a retry.
    was_retry: bool,
    /// First tries so far.
    begun: u64,
    counts: Counts,
    last_success_at: Option<Millis>,
    last_failure_at: Option<Millis>,
    failing_since: Option<Millis>,
    last_error: Option<Arc<str>>,
    pause: Option<CallbackState>,
    /// Something is to be reported.
    is_news: bool,
    reported_cursor: u64,
    reported_at: Millis,
    /// No report before.
    report_at: Millis,
    /// What the report under way counts.
    reporting: Option<Counts>,
}

impl Delivery {
    /// From what the store holds.
    pub fn new(limits: DeliveryLimits, progress: &CallbackProgress, now: Millis) -> Delivery {
        let retries: BTreeMap<u64, CallbackRetry> =
            progress.retries.iter().map(|retry| (retry.event, *retry)).collect();
        Delivery {
            limits,
            read: progress.cursor,
            queue: VecDeque::new(),
            flying: BTreeMap::new(),
            due: retries.values().map(|retry| (retry.due, retry.event)).collect(),
            retries,
            // One that failed when we stopped is asked carefully.
            streak: if progress.failing_since.is_some() { STREAK_MAX } else { 0 },
            held_until: Millis::ZERO,
            asked_until: Millis::ZERO,
            was_retry: false,
            begun: 0,
            counts: Counts::default(),
            last_success_at: progress.last_success_at,
            last_failure_at: progress.last_failure_at,
            failing_since: progress.failing_since,
            last_error: progress.last_error.clone(),
            pause: None,
            is_news: false,
            reported_cursor: progress.cursor,
            reported_at: now,
            report_at: Millis::ZERO,
            reporting: None,
        }
    }

    /// All wanted events up to here were delivered, given up or missed, or are among the retries.
    pub fn cursor(&self) -> u64 {
        let first_tries = self.flying.iter().filter(|(_, flight)| flight.before.is_none());
        let flying = first_tries.map(|(event, _)| *event).next();
        let open = flying.into_iter().chain(self.queue.front().copied()).min();
        open.map_or(self.read, |event| event - 1)
    }

    /// How far the log was read.
    pub const fn read(&self) -> u64 {
        self.read
    }

    /// Whether there is room for more of the log.
    pub fn wants_read(&self) -> bool {
        self.pause.is_none() && self.queue.len() < self.limits.concurrency && !self.is_full()
    }

    /// Whether as many events wait to be tried again as may.
    fn is_full(&self) -> bool {
        let first = self.flying.values().filter(|flight| flight.before.is_none()).count();
        self.retries.len() + first >= self.limits.retries_max
    }

    /// Whether nothing more may be under way.
    fn is_busy(&self) -> bool {
        let most = if self.is_probing() { 1 } else { self.limits.concurrency };
        self.pause.is_some() || self.flying.len() >= most
    }

    fn is_probing(&self) -> bool {
        self.streak >= STREAK_MAX
    }

    /// Whether a new event may begin, if any event may.
    fn is_new_ready(&self) -> bool {
        let oldest = self.flying.values().map(|flight| flight.index).min();
        let is_far = oldest.is_some_and(|index| self.begun - index >= AHEAD_MAX);
        !self.queue.is_empty() && !is_far && !self.is_full()
    }

    /// Nothing is tried before.
    fn quiet_until(&self) -> Millis {
        self.held_until.max(self.asked_until)
    }

    /// The log was read up to `through`, with these wanted events, rising.
    pub fn handle_read(&mut self, events: impl IntoIterator<Item = u64>, through: u64) {
        for event in events {
            if event > self.read {
                self.read = event;
                // Tried while one before it was under way, which then ended with us.
                if !self.retries.contains_key(&event) {
                    self.queue.push_back(event);
                }
            }
        }
        self.read = self.read.max(through);
        // What nobody wants is read again rather than written down each time; once a minute it is.
        self.is_news |= self.cursor() > self.reported_cursor.saturating_add(AHEAD_MAX);
    }

    /// Events up to here were forgotten and counted as missed.
    pub fn handle_forgotten(&mut self, through: u64) {
        while self.queue.front().is_some_and(|event| *event <= through) {
            self.queue.pop_front();
        }
        self.read = self.read.max(through);
        // Whoever forgot them moved the cursor that is stored.
        self.reported_cursor = self.reported_cursor.max(through);
    }

    /// The next event to send, if one may go.
    pub fn poll_try(&mut self, now: Millis) -> Option<Try> {
        if now < self.quiet_until() || self.is_busy() {
            return None;
        }
        let is_new_ready = self.is_new_ready();
        let is_due = self.due.first().is_some_and(|(due, _)| *due <= now);
        // They take turns, so that neither waits for the others' failures.
        let is_turn_of_new = is_new_ready && self.was_retry;
        if is_due && !is_turn_of_new {
            self.begin_retry(now)
        } else if is_new_ready {
            self.begin_first(now)
        } else if self.is_probing() {
            // Any event tells whether the endpoint is back.
            self.begin_retry(now)
        } else {
            None
        }
    }

    /// The retry that is due first, or will be.
    fn begin_retry(&mut self, now: Millis) -> Option<Try> {
        let (_, event) = self.due.pop_first()?;
        let before = self.retries.get(&event).copied();
        self.flying.insert(event, Flight { before, began: now, index: self.begun });
        self.was_retry = true;
        Some(Try { event, is_retry: true })
    }

    fn begin_first(&mut self, now: Millis) -> Option<Try> {
        let event = self.queue.pop_front()?;
        self.begun += 1;
        self.flying.insert(event, Flight { before: None, began: now, index: self.begun });
        self.was_retry = false;
        Some(Try { event, is_retry: false })
    }

    /// What came of a try. `jitter` is from 0 to 1.
    pub fn handle_outcome(&mut self, now: Millis, event: u64, outcome: Outcome, jitter: f64) {
        let Some(flight) = self.flying.remove(&event) else { return };
        self.is_news = true;
        match outcome {
            Outcome::Delivered => {
                self.retries.remove(&event);
                self.counts.delivered += 1;
                (self.streak, self.held_until) = (0, Millis::ZERO);
                self.last_success_at = Some(now);
                self.failing_since = None;
            }
            Outcome::Missing => {
                self.retries.remove(&event);
                self.counts.missed += 1;
            }
            Outcome::Gone { error } => {
                self.note_failure(now, error);
                self.pause = Some(CallbackState::Gone);
                self.again(event, flight, now);
            }
            Outcome::Failed { error, after } => {
                self.note_failure(now, error);
                let since = self.failing_since.unwrap_or(now);
                if now.0.saturating_sub(since.0) >= self.limits.pause_after {
                    self.pause = Some(CallbackState::Failing);
                    return self.again(event, flight, now);
                }
                let schedule = self.limits.schedule;
                let (attempts, began) = tried(flight);
                let mut pause = schedule.pause(attempts, jitter);
                if self.is_probing() {
                    let probe = schedule.pause(self.streak - STREAK_MAX + 1, jitter);
                    let held_until = now.plus(probe.min(PROBE_PAUSE_MAX));
                    self.held_until = self.held_until.max(held_until);
                    // The endpoint failed rather than the event, which is not to wait for hours once it is back.
                    pause = pause.min(PROBE_PAUSE_MAX);
                }
                if let Some(after) = after {
                    self.asked_until = self.asked_until.max(now.plus(after));
                    pause = pause.max(after);
                }
                let end = began.plus(schedule.tried_for);
                if now >= end {
                    self.retries.remove(&event);
                    self.counts.failed += 1;
                } else {
                    self.again(event, flight, now.plus(pause).min(end));
                }
            }
        }
    }

    fn note_failure(&mut self, now: Millis, error: Arc<str>) {
        self.streak = self.streak.saturating_add(1);
        self.last_failure_at = Some(now);
        self.failing_since.get_or_insert(now);
        self.last_error = Some(error);
    }

    fn again(&mut self, event: u64, flight: Flight, due: Millis) {
        let (attempts, began) = tried(flight);
        self.retries.insert(event, CallbackRetry { event, attempts, began, due });
        self.due.insert((due, event));
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// Whether it ends here, once that was reported.
    pub const fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// What is to be reported, if it is time or `at_once`. [`Delivery::handle_reported`] comes before the next.
    pub fn poll_report(&mut self, now: Millis, at_once: bool) -> Option<Report> {
        let is_time = at_once || self.pause.is_some() || now >= self.report_at;
        let is_stale =
            self.cursor() > self.reported_cursor && now >= self.reported_at.plus(STALE_AFTER);
        let is_wanted = (self.is_news && is_time) || is_stale;
        if !is_wanted || self.reporting.is_some() {
            return None;
        }
        self.is_news = false;
        (self.reported_at, self.report_at) = (now, now.plus(REPORT_PAUSE));
        self.reported_cursor = self.cursor();
        let counts = std::mem::take(&mut self.counts);
        self.reporting = Some(counts);
        Some(Report {
            cursor: self.reported_cursor,
            retries: self.retries.values().copied().collect(),
            delivered: counts.delivered,
            failed: counts.failed,
            missed: counts.missed,
            last_success_at: self.last_success_at,
            last_failure_at: self.last_failure_at,
            failing_since: self.failing_since,
            last_error: self.last_error.clone(),
            pause: self.pause,
        })
    }

    /// The report under way is committed, or is not and has to be made again.
    pub fn handle_reported(&mut self, is_committed: bool) {
        let Some(counts) = self.reporting.take() else { return };
        if !is_committed {
            self.counts.add(counts);
            self.is_news = true;
        }
    }

    /// When there is something to do although nothing comes, now or later; `None` if there is not. That the cursor
    /// moved over what nobody wants can wait until somebody looks anyway.
    pub fn poll_timeout(&self, now: Millis) -> Option<Millis> {
        let report = (self.is_news && self.reporting.is_none()).then_some(self.report_at);
        let may_probe = self.is_probing() && !self.due.is_empty();
        let next = if self.is_busy() {
            None
        } else if may_probe || self.is_new_ready() {
            Some(self.quiet_until())
        } else {
            self.due.first().map(|(due, _)| (*due).max(self.quiet_until()))
        };
        report.into_iter().chain(next).min().map(|at| at.max(now))
    }
}

/// The tries so far with the one that ended, and when the first began.
fn tried(flight: Flight) -> (u32, Millis) {
    flight.before.map_or((1, flight.began), |before| (before.attempts + 1, before.began))
}
