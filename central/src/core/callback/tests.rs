//! Endpoints through random histories: answers of every kind, crashes at any moment, reports that are lost, replays, pauses,
//! and a log that forgets. Judged by plain sets of what was sent, beside what the store holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use carillon_persist::{CallbackProgress, CallbackRetry, CallbackState};
use carillon_world::Millis;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::delivery::{Delivery, DeliveryLimits, Outcome};
use super::schedule::Schedule;

const HOUR: u64 = 60 * 60 * 1000;
/// The longest pause between two questions.
const PROBE: u64 = 10 * 60 * 1000;

fn limits() -> DeliveryLimits {
    DeliveryLimits {
        concurrency: 4,
        retries_max: 20,
        schedule: Schedule::default(),
        pause_after: 24 * HOUR,
    }
}

fn failed() -> Outcome {
    Outcome::Failed { error: "500".into(), after: None }
}

/// What an endpoint is at a time of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Good,
    Bad,
    /// Takes most.
    Poor,
    Gone,
}

struct Model {
    random: StdRng,
    now: Millis,
    /// The log: numbers, and whether the endpoint wants them.
    log: BTreeMap<u64, bool>,
    /// All wanted ones that there ever were.
    happened: BTreeSet<u64>,
    next: u64,
    /// The log has forgotten up to here.
    forgotten: u64,
    /// As the store holds it.
    stored: CallbackProgress,
    state: CallbackState,
    delivery: Delivery,
    flying: Vec<u64>,
    delivered: BTreeSet<u64>,
    mood: Mood,
    is_ending: bool,
}

impl Model {
    fn new(seed: u64) -> Model {
        let (now, stored) = (Millis(1_000_000), CallbackProgress::default());
        Model {
            random: StdRng::seed_from_u64(seed),
            now,
            log: BTreeMap::new(),
            happened: BTreeSet::new(),
            next: 1,
            forgotten: 0,
            delivery: Delivery::new(limits(), &stored, now),
            stored,
            state: CallbackState::Active,
            flying: Vec::new(),
            delivered: BTreeSet::new(),
            mood: Mood::Good,
            is_ending: false,
        }
    }

    /// As after a crash, a pause or a replay: from what the store holds.
    fn begin(&mut self) {
        self.flying.clear();
        self.delivery = Delivery::new(limits(), &self.stored, self.now);
    }

    fn outcome(&mut self, event: u64) -> Outcome {
        if !self.log.contains_key(&event) {
            return Outcome::Missing;
        }
        let is_taken = match self.mood {
            // Some are never taken, whatever else is.
            _ if event.is_multiple_of(17) && !self.is_ending => false,
            Mood::Good => true,
            Mood::Bad | Mood::Gone => false,
            Mood::Poor => self.random.random_bool(0.7),
        };
        match self.mood {
            _ if is_taken => {
                self.delivered.insert(event);
                Outcome::Delivered
            }
            Mood::Gone => Outcome::Gone { error: "410".into() },
            _ => {
                let after = self.random.random_bool(0.1).then(|| self.random.random_range(0..HOUR));
                Outcome::Failed { error: "503".into(), after }
            }
        }
    }

    fn poll(&mut self) {
        if self.state != CallbackState::Active {
            return;
        }
        if self.delivery.wants_read() && self.random.random_bool(0.7) {
            let after = self.delivery.read();
            let piece: Vec<(u64, bool)> =
                self.log.range(after + 1..).take(7).map(|(n, wanted)| (*n, *wanted)).collect();
            if let Some((last, _)) = piece.last() {
                let wanted = piece.iter().filter(|(_, wanted)| *wanted).map(|(n, _)| *n);
                self.delivery.handle_read(wanted, *last);
            }
        }
        while let Some(of) = self.delivery.poll_try(self.now) {
            assert!(!self.flying.contains(&of.event), "{} is under way already", of.event);
            self.flying.push(of.event);
            assert!(self.flying.len() <= limits().concurrency);
        }
    }

    fn report(&mut self) {
        if self.state != CallbackState::Active {
            return;
        }
        let Some(report) = self.delivery.poll_report(self.now, false) else { return };
        assert!(report.retries.len() <= limits().retries_max);
        // Of some the answer is lost, whether they were committed or not; whoever reported begins anew or says it again.
        let (is_committed, is_told) = match self.random.random_range(0..10) {
            0 => (true, false),
            1 => (false, false),
            _ => (true, true),
        };
        if is_committed {
            self.stored = report.applied_to(&self.stored);
            if let Some(state) = report.pause {
                self.state = state;
            }
        }
        self.delivery.handle_reported(is_told);
        if self.state != CallbackState::Active {
            self.flying.clear();
        }
        self.judge();
    }

    /// The store never says that something is done which is not.
    fn judge(&self) {
        let retried: BTreeSet<u64> = self.stored.retries.iter().map(|of| of.event).collect();
        let lacking = self
            .happened
            .range(..=self.stored.cursor)
            .filter(|n| !self.delivered.contains(n) && !retried.contains(n))
            .count() as u64;
        assert!(
            lacking <= self.stored.failed + self.stored.missed,
            "{lacking} up to {} are neither delivered, retried nor shown: {:?}",
            self.stored.cursor,
            self.stored
        );
    }

    fn wanted(&self, n: u64) -> bool {
        !n.is_multiple_of(3)
    }

    fn step(&mut self) {
        self.now = self.now.plus(self.random.random_range(0..3_000));
        match self.random.random_range(0..100) {
            0..20 => {
                for _ in 0..self.random.random_range(1..6) {
                    let n = self.next;
                    self.next += self.random.random_range(1..3);
                    self.log.insert(n, self.wanted(n));
                    self.happened.extend(Some(n).filter(|n| self.wanted(*n)));
                }
            }
            20..60 if !self.flying.is_empty() => {
                let at = self.random.random_range(0..self.flying.len());
                let event = self.flying.swap_remove(at);
                let outcome = self.outcome(event);
                let jitter = self.random.random();
                self.delivery.handle_outcome(self.now, event, outcome, jitter);
            }
            60..63 => self.begin(),
            63..66 => {
                self.mood =
                    [Mood::Good, Mood::Bad, Mood::Poor, Mood::Gone][self.random.random_range(0..4)];
            }
            66 => self.now = self.now.plus(self.random.random_range(0..8 * HOUR)),
            67 if self.state != CallbackState::Active => self.resume(),
            68 => {
                // A replay from some time that the log still knows.
                let (from, to) = (self.forgotten, self.stored.cursor);
                self.stored.cursor = self.random.random_range(from..=to);
                let cursor = self.stored.cursor;
                self.stored.retries.retain(|retry| retry.event <= cursor);
                self.begin();
            }
            69 => self.forget(),
            _ => self.report(),
        }
        self.poll();
    }

    fn resume(&mut self) {
        self.state = CallbackState::Active;
        self.stored.failing_since = None;
        for retry in &mut self.stored.retries {
            (retry.began, retry.due) = (self.now, self.now);
        }
        self.begin();
    }

    /// The log forgets its oldest; what the endpoint had not had of it is counted.
    fn forget(&mut self) {
        if self.log.len() < 40 {
            return;
        }
        let gone: Vec<u64> = self.log.keys().take(10).copied().collect();
        let last = *gone.last().unwrap();
        let missed = gone.iter().filter(|n| **n > self.stored.cursor && self.wanted(**n)).count();
        self.log.retain(|n, _| *n > last);
        self.forgotten = last;
        if last > self.stored.cursor {
            self.stored.cursor = last;
            self.stored.missed += missed as u64;
        }
        self.delivery.handle_forgotten(self.stored.cursor);
    }

    /// Everything goes well from here on: at the end all is delivered or shown.
    fn end(&mut self) {
        (self.mood, self.is_ending) = (Mood::Good, true);
        for _ in 0..100_000 {
            // Perhaps by what came before.
            if self.state != CallbackState::Active {
                self.resume();
            }
            self.poll();
            if let Some(event) = self.flying.pop() {
                let outcome = self.outcome(event);
                self.delivery.handle_outcome(self.now, event, outcome, 0.5);
                continue;
            }
            self.report();
            let is_read = self.log.keys().next_back().is_none_or(|n| *n <= self.delivery.read());
            match self.delivery.poll_timeout(self.now) {
                Some(at) => self.now = self.now.max(at),
                None if is_read => break,
                None => {}
            }
        }
        let report = self.delivery.poll_report(self.now, true);
        if let Some(report) = report {
            self.stored = report.applied_to(&self.stored);
        }
        let last = self.log.keys().next_back().copied().unwrap_or(0);
        assert!(self.delivery.cursor() >= last && self.stored.retries.is_empty(), "all is settled");
        self.stored.cursor = self.delivery.cursor();
        self.judge();
    }
}

#[test]
fn every_wanted_event_is_delivered_or_shown_whatever_happens() {
    let mut most = (0, 0, 0);
    for seed in 0..300 {
        let mut model = Model::new(seed);
        for _ in 0..1_500 {
            model.step();
        }
        model.end();
        let stored = &model.stored;
        most.0 = most.0.max(model.delivered.len());
        most.1 = most.1.max(stored.failed);
        most.2 = most.2.max(stored.missed);
    }
    // All of it happened.
    assert!(most.0 > 100 && most.1 > 0 && most.2 > 0, "{most:?}");
}

fn at(seconds: u64) -> Millis {
    Millis(seconds * 1000)
}

/// With so many wanted events read.
fn reading(events: u64) -> Delivery {
    let mut delivery = Delivery::new(limits(), &CallbackProgress::default(), at(0));
    delivery.handle_read(1..=events, events);
    delivery
}

fn tries(delivery: &mut Delivery, now: Millis) -> Vec<u64> {
    std::iter::from_fn(|| delivery.poll_try(now)).map(|of| of.event).collect()
}

/// As if what there is to report were committed at once.
fn report(delivery: &mut Delivery, now: Millis) {
    if delivery.poll_report(now, true).is_some() {
        delivery.handle_reported(true);
    }
}

#[test]
fn the_cursor_waits_for_the_first_that_is_under_way() {
    let mut delivery = reading(6);
    assert_eq!(tries(&mut delivery, at(0)), [1, 2, 3, 4]);
    for event in [2, 3, 4] {
        delivery.handle_outcome(at(1), event, Outcome::Delivered, 0.5);
    }
    assert_eq!((delivery.cursor(), tries(&mut delivery, at(1))), (0, vec![5, 6]));
    delivery.handle_outcome(at(2), 1, failed(), 0.5);
    delivery.handle_outcome(at(2), 5, Outcome::Delivered, 0.5);
    assert_eq!(delivery.cursor(), 5, "1 is among the retries");
    let report = delivery.poll_report(at(2), false).unwrap();
    assert_eq!((report.cursor, report.delivered, report.retries[0].event), (5, 4, 1));
    assert_eq!(delivery.poll_report(at(9), true), None, "one at a time");
    delivery.handle_reported(false);
    let again = delivery.poll_report(at(9), false).unwrap();
    assert_eq!((again.delivered, again.cursor), (4, 5), "said again");
}

#[test]
fn an_endpoint_that_is_down_is_asked_with_one_event_at_a_time_and_then_gets_all() {
    let mut delivery = reading(50);
    let first = tries(&mut delivery, at(0));
    for event in &first {
        delivery.handle_outcome(at(0), *event, failed(), 0.5);
    }
    assert_eq!(delivery.cursor(), 4);
    report(&mut delivery, at(0));
    let (mut now, mut asked, mut was_new) = (at(0), 0, false);
    while now < at(6 * 3600) {
        let next = delivery.poll_timeout(now).unwrap();
        assert!(now < next && next <= now.plus(PROBE), "a pause from {now:?} to {next:?}");
        now = next;
        let under_way = tries(&mut delivery, now);
        assert_eq!(under_way.len(), 1, "{under_way:?}");
        // Any event serves to ask.
        was_new |= under_way[0] > 4;
        asked += 1;
        delivery.handle_outcome(now, under_way[0], failed(), 0.5);
        report(&mut delivery, now);
    }
    // Four within the first ten minutes, then six an hour.
    assert!((36..=42).contains(&asked) && was_new, "asked {asked} times in six hours");
    // It is back: within ten minutes it has everything, whatever was tried how often.
    let (back, mut delivered) = (now, 0);
    while delivered < 50 {
        now = delivery.poll_timeout(now).unwrap();
        assert!(now <= back.plus(PROBE), "{delivered} at {now:?}");
        let under_way = tries(&mut delivery, now);
        assert!(under_way.len() <= if delivered == 0 { 1 } else { limits().concurrency });
        for event in under_way {
            delivery.handle_outcome(now, event, Outcome::Delivered, 0.5);
            delivered += 1;
        }
        report(&mut delivery, now);
    }
    assert_eq!(delivery.cursor(), 50);
}

#[test]
fn events_that_are_never_taken_hold_up_no_other_for_more_than_ten_minutes() {
    // Alone, and more than can be asked for in the time of their longest pause.
    for never_taken in [1, 18] {
        let mut delivery = reading(never_taken);
        let mut now = at(0);
        while now < at(6 * 3600) {
            for event in tries(&mut delivery, now) {
                delivery.handle_outcome(now, event, failed(), 0.5);
            }
            report(&mut delivery, now);
            now = delivery.poll_timeout(now).unwrap();
        }
        let mut came = None;
        let asked_with = loop {
            let under_way = tries(&mut delivery, now);
            if under_way.contains(&(never_taken + 1)) {
                break under_way;
            }
            for event in under_way {
                delivery.handle_outcome(now, event, failed(), 0.5);
            }
            report(&mut delivery, now);
            // A minute after a question.
            let came = *came.get_or_insert_with(|| now.plus(60_000));
            delivery.handle_read([never_taken + 1], never_taken + 1);
            now = delivery.poll_timeout(came).unwrap();
            assert!(now <= came.plus(PROBE), "of {never_taken}");
        };
        assert_eq!(asked_with, [never_taken + 1]);
        delivery.handle_outcome(now, never_taken + 1, Outcome::Delivered, 0.5);
        report(&mut delivery, now);
        // From here on it is asked as ever.
        delivery.handle_read([never_taken + 2], never_taken + 2);
        assert!(tries(&mut delivery, now).contains(&(never_taken + 2)), "of {never_taken}");
    }
}

#[test]
fn one_that_failed_before_a_restart_is_asked_at_once_and_with_one_event() {
    let retry = |event| CallbackRetry { event, attempts: 9, began: at(0), due: at(5 * 3600) };
    let progress = CallbackProgress {
        cursor: 7,
        retries: vec![retry(3), retry(5)],
        failing_since: Some(at(0)),
        ..CallbackProgress::default()
    };
    let mut delivery = Delivery::new(limits(), &progress, at(3600));
    assert_eq!(delivery.poll_timeout(at(3600)), Some(at(3600)), "before any is due");
    assert_eq!(tries(&mut delivery, at(3600)), [3]);
    assert_eq!(delivery.poll_timeout(at(3600)), None, "it waits for the answer");
    delivery.handle_outcome(at(3601), 3, failed(), 0.5);
    report(&mut delivery, at(3601));
    let next = delivery.poll_timeout(at(3601)).unwrap();
    assert!(tries(&mut delivery, Millis(next.0 - 1)).is_empty());
    assert_eq!(tries(&mut delivery, next).len(), 1);
}

#[test]
fn retry_after_holds_everything_and_is_obeyed_within_the_day() {
    let mut delivery = reading(9);
    assert_eq!(tries(&mut delivery, at(0)).len(), 4);
    let slow = |after| Outcome::Failed { error: "429".into(), after: Some(after) };
    delivery.handle_outcome(at(0), 1, slow(100_000), 0.5);
    assert!(tries(&mut delivery, at(99)).is_empty());
    assert_eq!(tries(&mut delivery, at(100)), [1]);
    delivery.handle_outcome(at(100), 1, slow(48 * HOUR), 0.5);
    let report = delivery.poll_report(at(100), true).unwrap();
    assert_eq!(report.retries[0].due, Millis(24 * HOUR), "its last try");
}

#[test]
fn what_an_endpoint_asked_for_outlasts_a_success_that_was_under_way() {
    let mut delivery = reading(9);
    assert_eq!(tries(&mut delivery, at(0)), [1, 2, 3, 4]);
    let slow = Outcome::Failed { error: "429".into(), after: Some(60_000) };
    delivery.handle_outcome(at(1), 2, slow, 0.5);
    delivery.handle_outcome(at(2), 3, Outcome::Delivered, 0.5);
    report(&mut delivery, at(2));
    assert_eq!(delivery.poll_timeout(at(2)), Some(at(61)));
    assert!(tries(&mut delivery, at(60)).is_empty());
    assert_eq!(tries(&mut delivery, at(61)), [2, 5]);
}

#[test]
fn a_cursor_that_moves_over_what_nobody_wants_is_reported_once_a_minute() {
    let mut delivery = Delivery::new(limits(), &CallbackProgress::default(), at(0));
    delivery.handle_read([], 9);
    assert_eq!(delivery.poll_report(at(59), true), None);
    assert_eq!(delivery.poll_timeout(at(59)), None, "nobody is woken for it");
    let report = delivery.poll_report(at(60), false).unwrap();
    assert_eq!((report.cursor, report.delivered, report.retries.len()), (9, 0, 0));
    delivery.handle_reported(true);
    delivery.handle_read([], 12);
    assert_eq!(delivery.poll_report(at(119), false), None);
    assert_eq!(delivery.poll_report(at(120), false).unwrap().cursor, 12);
    delivery.handle_reported(true);
    assert_eq!(delivery.poll_report(at(999), false), None, "it did not move");
    delivery.handle_forgotten(20);
    assert_eq!(delivery.poll_report(at(999), false), None, "the store knows");
}

#[test]
fn an_event_is_given_up_after_a_day_and_an_endpoint_without_success_is_paused() {
    // Others succeed: the one is given up.
    let mut delivery = reading(1);
    let mut now = at(0);
    let mut tried = 0;
    let mut next = 1;
    while delivery.in_flight() > 0 || delivery.poll_try(now).is_some() || tried < 2 {
        tried += 1;
        delivery.handle_outcome(now, 1, failed(), 0.5);
        next += 1;
        delivery.handle_read([next], next);
        for event in tries(&mut delivery, now) {
            delivery.handle_outcome(now, event, Outcome::Delivered, 0.5);
        }
        if delivery.poll_report(now, true).is_some_and(|report| report.failed == 1) {
            break;
        }
        delivery.handle_reported(true);
        now = delivery.poll_timeout(now).unwrap();
        assert!(tried < 100);
    }
    assert_eq!(now, Millis(24 * HOUR));
    assert!((12..20).contains(&tried), "{tried} tries");
    assert!(!delivery.is_paused());

    // None succeeds: it is paused, and the event waits.
    let mut delivery = reading(1);
    let mut now = at(0);
    let report = loop {
        for event in tries(&mut delivery, now) {
            delivery.handle_outcome(now, event, failed(), 0.5);
        }
        if let Some(report) = delivery.poll_report(now, true) {
            delivery.handle_reported(true);
            if report.pause.is_some() {
                break report;
            }
        }
        now = delivery.poll_timeout(now).unwrap();
    };
    assert_eq!((report.pause, report.failed), (Some(CallbackState::Failing), 0));
    // It is asked every ten minutes, and not just when the event is due: the first question after the day ends it.
    assert!((24 * HOUR..24 * HOUR + PROBE).contains(&now.0), "{now:?}");
    assert_eq!(report.retries.len(), 1);
    assert!(tries(&mut delivery, Millis(u64::MAX / 2)).is_empty(), "paused");

    let mut delivery = reading(3);
    assert_eq!(tries(&mut delivery, at(0)).len(), 3);
    delivery.handle_outcome(at(0), 2, Outcome::Gone { error: "410".into() }, 0.5);
    assert!(delivery.is_paused());
    let report = delivery.poll_report(at(0), false).unwrap();
    assert_eq!((report.pause, report.cursor), (Some(CallbackState::Gone), 0));
}

#[test]
fn full_retries_keep_the_cursor_where_it_is() {
    let mut delivery = reading(1_000);
    let mut now = at(0);
    // Two of three fail, so it is never asked with one alone.
    for _ in 0..100 {
        for event in tries(&mut delivery, now) {
            let outcome = if event % 3 == 0 { Outcome::Delivered } else { failed() };
            delivery.handle_outcome(now, event, outcome, 0.5);
        }
        now = now.plus(1);
    }
    let report = delivery.poll_report(now, true).unwrap();
    assert_eq!(report.retries.len(), limits().retries_max);
    assert!(!delivery.wants_read() && report.cursor < 40, "{}", report.cursor);
    let _: Option<Arc<str>> = report.last_error;
}
