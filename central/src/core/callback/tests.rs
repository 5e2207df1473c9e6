//! Endpoints through random histories: answers of every kind, crashes at any moment, reports that are lost, replays, pauses,
//! and a log that forgets. Judged by plain sets of what was sent, beside what the store holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use carillon_persist::{CallbackProgress, CallbackState};
use carillon_world::Millis;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::delivery::{Delivery, DeliveryLimits, Outcome};
use super::schedule::Schedule;

const HOUR: u64 = 60 * 60 * 1000;

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
        let stored = CallbackProgress::default();
        Model {
            random: StdRng::seed_from_u64(seed),
            now: Millis(1_000_000),
            log: BTreeMap::new(),
            happened: BTreeSet::new(),
            next: 1,
            forgotten: 0,
            delivery: Delivery::new(limits(), &stored),
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
        self.delivery = Delivery::new(limits(), &self.stored);
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
    let mut delivery = Delivery::new(limits(), &CallbackProgress::default());
    delivery.handle_read(1..=events, events);
    delivery
}

fn tries(delivery: &mut Delivery, now: Millis) -> Vec<u64> {
    std::iter::from_fn(|| delivery.poll_try(now)).map(|of| of.event).collect()
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
    let (mut now, mut asked) = (at(0), 0);
    while now < at(6 * 3600) {
        now = delivery.poll_timeout(now).unwrap().max(now);
        let under_way = tries(&mut delivery, now);
        assert!(
            under_way.len() <= 1 && under_way.iter().all(|n| *n <= 4),
            "nothing new: {under_way:?}"
        );
        asked += under_way.len();
        for event in under_way {
            delivery.handle_outcome(now, event, failed(), 0.5);
        }
        if delivery.poll_report(now, true).is_some() {
            delivery.handle_reported(true);
        }
    }
    assert!((20..60).contains(&asked), "asked {asked} times in six hours");
    now = now.plus(4 * HOUR);
    let probe = tries(&mut delivery, now);
    assert_eq!(probe.len(), 1);
    delivery.handle_outcome(now, probe[0], Outcome::Delivered, 0.5);
    let mut delivered = 1;
    loop {
        let more = tries(&mut delivery, now);
        if more.is_empty() {
            break;
        }
        for event in more {
            delivery.handle_outcome(now, event, Outcome::Delivered, 0.5);
            delivered += 1;
        }
    }
    assert_eq!((delivered, delivery.cursor()), (50, 50), "all at once");
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
    assert_eq!((now, report.retries.len()), (Millis(24 * HOUR), 1));
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
