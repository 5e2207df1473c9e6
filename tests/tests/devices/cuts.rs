//! Answers cut off: after the headers, and at a byte of the body drawn at random. Nothing is missing afterwards.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use carillon_client::Client;
use carillon_tests::cluster::{Cluster, Store};
use carillon_tests::proxy::{End, Exchange, Proxy, Verdict};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;

use crate::fleet::Fleet;
use crate::{PATIENCE, say};

const CLIENTS: u64 = 60;
/// Of each kind.
const CUTS: u64 = 500;
const FETCHES_CUT_MIN: u64 = 40;
const ENROLMENTS_CUT_MIN: u64 = 10;
const PATCHES_CUT_MIN: u64 = 3;

/// Which answers are cut, and how many were.
struct Plan {
    rng: StdRng,
    active: bool,
    after_head: u64,
    in_body: u64,
    fetches: u64,
    enrolments: u64,
    patches: u64,
    /// Cuts in the first, second and third third of a body.
    thirds: [u64; 3],
}

impl Plan {
    fn judge(&mut self, exchange: &Exchange<'_>) -> Verdict {
        let (line, body) = (exchange.request_line(), exchange.body().len());
        // A device pauses for twice as long after each failure of a write, so seven in a row would take a minute.
        let cut = if line.starts_with("PATCH") { 0.2 } else { 0.5 };
        if !self.active || !matches!(exchange.status, 200 | 201) || !self.rng.random_bool(cut) {
            return Verdict::Pass;
        }
        if line.starts_with("GET") && !has_news(exchange.body()) {
            return Verdict::Pass;
        }
        match line {
            "POST /v1/messages:fetch" => self.fetches += 1,
            "POST /v1/devices" => self.enrolments += 1,
            "PATCH /v1/devices/self" => self.patches += 1,
            _ => {}
        }
        let end = if self.rng.random_bool(0.5) { End::Close } else { End::Reset };
        if self.after_head <= self.in_body {
            self.after_head += 1;
            return Verdict::Cut { body_bytes: 0, end };
        }
        self.in_body += 1;
        let body_bytes = self.rng.random_range(1..body);
        self.thirds[body_bytes * 3 / body] += 1;
        Verdict::Cut { body_bytes, end }
    }

    fn is_done(&self) -> bool {
        self.after_head >= CUTS
            && self.in_body >= CUTS
            && self.fetches >= FETCHES_CUT_MIN
            && self.patches >= PATCHES_CUT_MIN
    }
}

/// Whether a poll's answer holds more than a bookmark.
fn has_news(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    [r#""messages":[{"#, r#""gone":[""#, r#""inventory":"#].iter().any(|mark| text.contains(mark))
}

async fn a_thousand_cuts(store: Store) {
    let cluster = Cluster::start(store, 2).await;
    let (first, second) =
        (Proxy::start(cluster.edge(0).plain).await, Proxy::start(cluster.edge(1).plain).await);
    let plan = Plan {
        rng: StdRng::seed_from_u64(1),
        active: true,
        after_head: 0,
        in_body: 0,
        fetches: 0,
        enrolments: 0,
        patches: 0,
        thirds: [0; 3],
    };
    let plan = Arc::new(Mutex::new(plan));
    for proxy in [&first, &second] {
        let plan = plan.clone();
        proxy.script(move |exchange| plan.lock().expect("no panic").judge(exchange));
    }
    let urls = [first.url(), second.url()];
    let client = || Client::builder().edges(urls.clone()).wait(Duration::from_secs(5));
    let mut fleet = Fleet::start(&cluster, 1, CLIENTS, client).await;
    let began = Instant::now();
    while !plan.lock().expect("no panic").is_done() {
        fleet.write().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(began.elapsed() < 3 * PATIENCE, "too few answers are cut");
    }
    let cutting = began.elapsed();
    plan.lock().expect("no panic").active = false;
    let seen = fleet.settle().await;
    // An enrolment whose answer was cut and that was repeated found the same device.
    assert_eq!(fleet.shop.device_count().await as u64, CLIENTS);
    let plan = plan.lock().expect("no panic");
    let cuts = first.counts().cuts + second.counts().cuts;
    say(&format!(
        "{store:?}: {cuts} answers cut in {cutting:?}, {} after the headers, {} in the body {:?}, of fetches {}, \
         of enrolments {}, of writes {}; {} writes, {seen:?}, {:?} in all",
        plan.after_head,
        plan.in_body,
        plan.thirds,
        plan.fetches,
        plan.enrolments,
        plan.patches,
        fleet.writes,
        began.elapsed()
    ));
    assert!(plan.after_head >= CUTS && plan.in_body >= CUTS);
    // The proxy did it, and the clients felt it. A cut may meet a client that has left for a write of its own.
    assert!(cuts >= 2 * CUTS, "{cuts} of {}", plan.after_head + plan.in_body);
    assert!(seen.broken >= 2 * CUTS * 9 / 10, "{seen:?}");
    assert!(plan.thirds.iter().all(|third| *third >= CUTS / 10), "{:?}", plan.thirds);
    assert!(plan.enrolments >= ENROLMENTS_CUT_MIN, "{} enrolments cut", plan.enrolments);
    assert!(seen.inventories >= FETCHES_CUT_MIN, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_answers_are_cut_off_and_nothing_is_missing_on_sqlite() {
    a_thousand_cuts(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_answers_are_cut_off_and_nothing_is_missing_on_mariadb() {
    a_thousand_cuts(Store::MariaDb).await;
}
