//! Late and repeated answers: dropped, because they were computed from another cursor than the one held.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use carillon_client::{Client, Event, Operation, Profile};
use carillon_tests::cluster::{Cluster, Store};
use carillon_tests::proxy::{Exchange, Proxy, Verdict};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::time::Instant;

use crate::fleet::Fleet;
use crate::manual::Manual;
use crate::shop::Shop;
use crate::{PATIENCE, say};

const CLIENTS: u64 = 40;
const REPEATS: u64 = 300;
const LATE: u64 = 300;
const FETCHES_MIN: u64 = 10;
/// Answers of each device that are kept to come again.
const KEPT: usize = 6;

/// Something between the devices and the edges that mixes answers up.
struct Mixer {
    rng: StdRng,
    active: bool,
    /// By device and call.
    kept: BTreeMap<(String, bool), VecDeque<Bytes>>,
    repeated: u64,
    repeated_fetches: u64,
    late: u64,
}

impl Mixer {
    fn is_done(&self) -> bool {
        self.repeated >= REPEATS && self.late >= LATE && self.repeated_fetches >= FETCHES_MIN
    }

    fn judge(&mut self, exchange: &Exchange<'_>) -> Verdict {
        let line = exchange.request_line();
        let fetch = line == "POST /v1/messages:fetch";
        if !self.active || !(fetch || line.starts_with("GET /v1/messages")) {
            return Verdict::Pass;
        }
        let session = exchange.request_header("authorization").to_owned();
        let kept = self.kept.entry((session, fetch)).or_default();
        let old = match kept.len() {
            0 => None,
            len => Some(kept[self.rng.random_range(0..len)].clone()),
        };
        if exchange.status == 200 {
            kept.push_back(exchange.answer.clone());
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
        match (self.rng.random_range(0..10), old) {
            // Fetches are few, so more of them are answered wrongly.
            (0..6, Some(old)) if fetch || self.rng.random_bool(0.5) => {
                self.repeated += 1;
                self.repeated_fetches += u64::from(fetch);
                Verdict::Instead(old)
            }
            (6..9, _) => {
                self.late += 1;
                Verdict::Late(Duration::from_millis(self.rng.random_range(20..600)))
            }
            _ => Verdict::Pass,
        }
    }
}

async fn repeats(store: Store) {
    let cluster = Cluster::start(store, 2).await;
    let (first, second) =
        (Proxy::start(cluster.edge(0).plain).await, Proxy::start(cluster.edge(1).plain).await);
    let mixer = Mixer {
        rng: StdRng::seed_from_u64(2),
        active: true,
        kept: BTreeMap::new(),
        repeated: 0,
        repeated_fetches: 0,
        late: 0,
    };
    let mixer = Arc::new(Mutex::new(mixer));
    for proxy in [&first, &second] {
        let mixer = mixer.clone();
        proxy.script(move |exchange| mixer.lock().expect("no panic").judge(exchange));
    }
    let urls = [first.url(), second.url()];
    let client = || Client::builder().edges(urls.clone()).wait(Duration::from_secs(1));
    let mut fleet = Fleet::start(&cluster, 2, CLIENTS, client).await;
    let began = Instant::now();
    while !mixer.lock().expect("no panic").is_done() {
        fleet.write().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(began.elapsed() < 3 * PATIENCE, "too few answers are repeated");
    }
    mixer.lock().expect("no panic").active = false;
    let seen = fleet.settle().await;
    let mixer = mixer.lock().expect("no panic");
    say(&format!(
        "{store:?}: {} answers of before, {} of fetches; {} late; {} writes, {seen:?}, {:?}",
        mixer.repeated,
        mixer.repeated_fetches,
        mixer.late,
        fleet.writes,
        began.elapsed()
    ));
    // One that was computed from the cursor still held may be stored: the answer that it stands for was not.
    assert!(seen.dropped + seen.malformed >= REPEATS / 3, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_and_late_answers_are_dropped_on_sqlite() {
    repeats(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_and_late_answers_are_dropped_on_mariadb() {
    repeats(Store::MariaDb).await;
}

/// An answer that comes after the next one has been stored, and one that comes twice.
#[tokio::test]
async fn an_answer_after_its_successor_is_dropped_whole() {
    let cluster = Cluster::start(Store::Sqlite, 1).await;
    let mut shop = Shop::open(&cluster, "shop").await;
    let profile = Profile {
        attributes: BTreeMap::from([("bucket".to_owned(), json!("b1"))]),
        ..Profile::default()
    };
    let mut device = Manual::new(&[cluster.edge(0).plain_url()], &shop.key, profile, 0);
    device.settle(0).await;

    let kept = shop.say("all", json!({"v": 1})).await;
    let recalled = shop.say("all", json!({"v": 1})).await;
    let (poll, answer) = loop {
        let poll = device.next();
        let answer = device.ask(0, &poll).await.expect("an answer");
        if answer.status() == 200 && String::from_utf8_lossy(answer.body()).contains(&recalled) {
            break (poll, answer);
        }
        device.give(poll.id, Some(&answer));
    };
    // It is given up, and what the next one says is stored: one message edited, the other recalled.
    device.give(poll.id, None);
    shop.ok("PATCH", &format!("messages/{kept}"), json!({"body": {"v": 2}})).await;
    shop.ok("POST", &format!("messages/{recalled}:recall"), json!(null)).await;
    let expected = BTreeMap::from([(kept.clone(), json!({"v": 2}))]);
    let began = Instant::now();
    while device.held() != expected {
        device.step(0).await;
        assert!(began.elapsed() < PATIENCE, "{:?}", device.held());
    }
    let cursor = device.device.saved().cursor.clone();
    for _ in 0..2 {
        let events = device.give(poll.id, Some(&answer));
        let dropped = [Event::Dropped { operation: Operation::Poll }];
        assert_eq!(format!("{events:?}"), format!("{dropped:?}"));
        assert_eq!((device.held(), &device.device.saved().cursor), (expected.clone(), &cursor));
    }

    // The one that was stored comes again: its repeat is dropped as well.
    let more = shop.say("bucket == \"b1\"", json!({"v": 1})).await;
    let (poll, answer) = loop {
        let poll = device.next();
        let answer = device.ask(0, &poll).await.expect("an answer");
        device.give(poll.id, Some(&answer));
        if device.held().contains_key(&more) {
            break (poll, answer);
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", device.held());
    };
    shop.ok("POST", &format!("messages/{more}:recall"), json!(null)).await;
    while device.held() != expected {
        device.step(0).await;
        assert!(began.elapsed() < PATIENCE, "{:?}", device.held());
    }
    let events = device.give(poll.id, Some(&answer));
    assert!(matches!(events[..], [Event::Dropped { .. }]), "{events:?}");
    assert_eq!(device.held(), expected);
    assert!(device.watch.faults.is_empty(), "{:?}", device.watch.faults);
}
