//! An edge that lags: it never answers a device that saw more, and a device reads its own write on any edge.
//!
//! A lagging edge is one whose link to central hangs, which a proxy on that link does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use carillon_client::{Command, Operation, Profile, ProfilePatch};
use carillon_tests::admin::{Answer, text};
use carillon_tests::cluster::{Cluster, Store};
use carillon_tests::proxy::{Faults, Proxy};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::manual::Manual;
use crate::shop::{Hand, Shop, ids};
use crate::watch::Seen;
use crate::{PATIENCE, say};

/// A cluster whose edges each follow central through a proxy.
pub(crate) async fn behind_proxies(store: Store, edges: usize) -> (Cluster, Vec<Proxy>) {
    let mut cluster = Cluster::start(store, 0).await;
    let mut links = Vec::new();
    for _ in 0..edges {
        let link = Proxy::start(cluster.stream_address()).await;
        let address = link.address().to_string();
        cluster.add_edge(&["--edge-central", &address, "--edge-backoff-max", "1s"]).await;
        links.push(link);
    }
    (cluster, links)
}

/// The refusal of an edge that is behind, after it has waited for at least a second.
async fn refused_behind(device: &mut Hand, method: &str, path: &str, body: Value) {
    let began = Instant::now();
    let answer = device.call(method, path, body).await;
    answer.expect_problem(503, "behind");
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(1), "{path}: it waited for {waited:?} only");
    let retry_after: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!(retry_after >= 1, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
}

async fn until_news(device: &mut Hand) -> Answer {
    let began = Instant::now();
    loop {
        let answer = device.poll(5).await;
        if answer.status == 200 {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{answer:?}");
    }
}

async fn an_edge_that_lags(store: Store) {
    let (cluster, links) = behind_proxies(store, 2).await;
    let urls = [cluster.edge(0).plain_url(), cluster.edge(1).plain_url()];
    let mut shop = Shop::open(&cluster, "shop").await;
    let old = shop.say("all", json!({"v": 1})).await;
    let mut device = shop.enrol(&urls[0], json!({"attributes": {"bucket": "b1"}})).await;
    device.settle().await;
    device.move_to(&urls[1]);
    device.settle().await;

    links[1].set(Faults::STALLED);
    let young = shop.say("all", json!({"v": 1})).await;
    device.move_to(&urls[0]);
    let news = until_news(&mut device).await;
    assert_eq!(ids(&news), [&*young]);
    let before = device.cursor.replace(text(&news.json(), "cursor").to_owned());

    // The lagging edge has the old world: it still serves who has not seen more.
    device.move_to(&urls[1]);
    let newest = std::mem::replace(&mut device.cursor, before);
    assert_eq!(device.poll(0).await.status, 204);
    device.cursor = None;
    assert_eq!(ids(&device.poll(0).await), [&*old]);
    device.cursor = newest;
    // Who has seen more is not answered, whatever it asks, with and without a wait.
    refused_behind(&mut device, "GET", "/v1/messages", Value::Null).await;
    refused_behind(&mut device, "GET", "/v1/messages?wait=0", Value::Null).await;
    let ids_body = json!({"ids": [young]});
    refused_behind(&mut device, "POST", "/v1/messages:fetch", ids_body).await;
    let began = Instant::now();
    device.poll(2).await.expect_problem(503, "behind");
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "it holds a poll as long as it was asked to"
    );
    // Nor is a device that the lagging edge does not know yet called unknown.
    let mut newcomer = shop.enrol(&urls[0], json!({})).await;
    newcomer.move_to(&urls[1]);
    refused_behind(&mut newcomer, "GET", "/v1/messages", Value::Null).await;
    newcomer.cursor = None;
    refused_behind(&mut newcomer, "GET", "/v1/messages", Value::Null).await;

    // A poll that is held there is answered when the edge has caught up.
    let (answer, ()) = tokio::join!(device.poll(60), async {
        tokio::time::sleep(Duration::from_millis(1_300)).await;
        links[1].set(Faults::default());
    });
    assert_eq!(answer.status, 200, "a cursor that was fresh is answered: {answer:?}");
    assert_eq!(ids(&answer), [""; 0]);
    assert_eq!(answer.json()["after"].as_str(), device.cursor.as_deref());
    let mut all = [old, young];
    all.sort();
    assert_eq!(ids(&until_news(&mut newcomer).await), all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_edge_never_answers_a_device_that_saw_more_on_sqlite() {
    an_edge_that_lags(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_edge_never_answers_a_device_that_saw_more_on_mariadb() {
    an_edge_that_lags(Store::MariaDb).await;
}

async fn own_writes(store: Store) {
    let (cluster, links) = behind_proxies(store, 2).await;
    let urls = [cluster.edge(0).plain_url(), cluster.edge(1).plain_url()];
    let mut shop = Shop::open(&cluster, "shop").await;
    let one = shop.say("bucket == \"b1\"", json!({"v": 1})).await;
    let two = shop.say("bucket == \"b2\" and #g1", json!({"v": 1})).await;
    let mut device = shop.enrol(&urls[0], json!({"attributes": {"bucket": "b1"}})).await;
    device.settle().await;
    device.move_to(&urls[1]);
    device.settle().await;
    device.move_to(&urls[0]);
    links[1].set(Faults::STALLED);

    let change = json!({"attributes": {"bucket": "b2"}, "groups": {"g1": true}});
    let answer = device.call("PATCH", "/v1/devices/self", change.clone()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["after"].as_str(), device.cursor.as_deref());
    let presented = device.cursor.replace(text(&answer.json(), "cursor").to_owned());
    assert_ne!(presented, device.cursor);
    // Without a cursor there is none to raise.
    let raised = device.cursor.take();
    let answer = device.call("PATCH", "/v1/devices/self", change).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"after": null})));
    device.cursor = raised;

    device.move_to(&urls[1]);
    refused_behind(&mut device, "GET", "/v1/messages", Value::Null).await;
    // What was raised is the floor alone: the cursor of before is still answered by the old world.
    let raised = std::mem::replace(&mut device.cursor, presented);
    assert_eq!(device.poll(0).await.status, 204);
    device.cursor = raised;
    let (answer, ()) = tokio::join!(device.poll(60), async {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        links[1].set(Faults::default());
    });
    let json = answer.json();
    assert_eq!(answer.status, 200, "{answer:?}");
    let listed: Vec<&str> = json["inventory"]
        .as_array()
        .expect("a profile that changed gives an inventory")
        .iter()
        .map(|pair| pair[0].as_str().expect("an id"))
        .collect();
    assert_eq!(listed, [two], "and not {one}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_reads_its_own_write_through_another_edge_on_sqlite() {
    own_writes(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_reads_its_own_write_through_another_edge_on_mariadb() {
    own_writes(Store::MariaDb).await;
}

const HOPPERS: usize = 16;
/// At least, and until enough has happened.
const HOPPING: Duration = Duration::from_secs(10);
const BUCKETS: u64 = 3;
const BEHIND_MIN: u64 = 30;
const READS_MIN: u64 = 300;

/// What the hoppers and their test tell each other.
#[derive(Debug, Default)]
struct Hopping {
    /// The message of each bucket.
    by_bucket: Vec<String>,
    stop: AtomicBool,
    behind: AtomicU64,
    /// Answers stored and found to hold what the device's own last write says.
    reads: AtomicU64,
}

impl Hopping {
    fn is_enough(&self) -> bool {
        self.behind.load(Relaxed) >= BEHIND_MIN && self.reads.load(Relaxed) >= READS_MIN
    }
}

/// A device that asks another edge every time, and now and then moves itself to another bucket. Whatever it stores
/// after that write must show it.
async fn hop(mut device: Manual, seed: u64, hopping: Arc<Hopping>) -> (Manual, u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut bucket, mut pending, mut hops) = (0, None, 0);
    loop {
        let stopping = hopping.stop.load(Relaxed);
        if pending.is_none() && !stopping && rng.random_bool(0.1) {
            let next = (bucket + 1) % BUCKETS;
            let attributes =
                BTreeMap::from([("bucket".to_owned(), Some(json!(format!("b{next}"))))]);
            device.command(&Command::Patch(ProfilePatch { attributes, ..ProfilePatch::default() }));
            pending = Some(next);
        }
        let edge = if stopping { 0 } else { rng.random_range(0..2) };
        hops += 1;
        let before = device.watch.counts;
        let step = device.step(edge).await;
        let after = device.watch.counts;
        hopping.behind.fetch_add(after.behind - before.behind, Relaxed);
        match (step.operation, step.status) {
            (Operation::Patch, Some(200)) => bucket = pending.take().expect("it was asked for"),
            (Operation::Patch, _) => {}
            _ if after.stored > before.stored && pending.is_none() => {
                hopping.reads.fetch_add(1, Relaxed);
                let held = device.held();
                let own = hopping.by_bucket.iter().map(|id| held.contains_key(id));
                let expected = (0..BUCKETS).map(|n| n == bucket);
                assert!(own.eq(expected), "moved itself to b{bucket}, holds {held:?}");
            }
            (Operation::Poll, Some(204)) if stopping && pending.is_none() => {
                return (device, hops);
            }
            _ => {}
        }
    }
}

/// Devices hop between edges whose links hang at random, while messages are edited, sent and recalled.
async fn hopping(store: Store) {
    let (cluster, links) = behind_proxies(store, 2).await;
    let urls: Vec<String> = (0..2).map(|n| cluster.edge(n).plain_url()).collect();
    let mut shop = Shop::open(&cluster, "shop").await;
    let mut hopping = Hopping::default();
    for n in 0..BUCKETS {
        hopping.by_bucket.push(shop.say(&format!("bucket == \"b{n}\""), json!({"v": 1})).await);
    }
    let hopping = Arc::new(hopping);
    let mut hoppers = Vec::new();
    for n in 0..HOPPERS as u64 {
        let attributes = BTreeMap::from([("bucket".to_owned(), json!("b0"))]);
        let profile = Profile { attributes, ..Profile::default() };
        let device = Manual::new(&urls, &shop.key, profile, 1);
        hoppers.push(tokio::spawn(hop(device, n, hopping.clone())));
    }
    let mut rng = StdRng::seed_from_u64(3);
    let mut live: Vec<(String, i64)> = Vec::new();
    let (mut writes, mut pauses) = (0, 0);
    let began = Instant::now();
    for phase in 0.. {
        if began.elapsed() >= HOPPING && hopping.is_enough() {
            break;
        }
        assert!(began.elapsed() < 2 * PATIENCE, "too little happens: {hopping:?}");
        // In turn: short ones that are over before an edge gives up waiting, and long ones at one edge.
        let long = phase % 2 == 1;
        let one = rng.random_range(0..2);
        for (n, link) in links.iter().enumerate() {
            let stalled = if long { n == one } else { rng.random_bool(0.4) };
            pauses += u64::from(stalled);
            link.set(if stalled { Faults::STALLED } else { Faults::default() });
        }
        let millis = if long { 1_200..2_000 } else { 50..600 };
        let until = Instant::now() + Duration::from_millis(rng.random_range(millis));
        while Instant::now() < until {
            writes += 1;
            match rng.random_range(0..10) {
                0..3 => {
                    let body = json!({"v": 1, "fixed": true});
                    live.push((shop.say("all", body).await, 1));
                }
                3..5 if live.len() > 5 => {
                    let (id, _) = live.swap_remove(rng.random_range(0..live.len()));
                    shop.ok("POST", &format!("messages/{id}:recall"), Value::Null).await;
                }
                _ if !live.is_empty() => {
                    let n = rng.random_range(0..live.len());
                    live[n].1 += 1;
                    let body = json!({"v": live[n].1, "fixed": true});
                    shop.ok("PATCH", &format!("messages/{}", live[n].0), json!({"body": body}))
                        .await;
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    links.iter().for_each(|link| link.set(Faults::default()));
    // An edge answers 204 for the last write only once it has it.
    let last = shop.say("all", json!({"v": 1})).await;
    let mut expected: BTreeMap<String, Value> =
        live.into_iter().map(|(id, v)| (id, json!({"v": v, "fixed": true}))).collect();
    expected.insert(last, json!({"v": 1}));
    let mut probe = shop.enrol(&urls[0], json!({})).await;
    let began = Instant::now();
    while ids(&until_news(&mut probe).await).len() < expected.len() {
        assert!(began.elapsed() < PATIENCE, "the edge does not catch up");
    }
    hopping.stop.store(true, Relaxed);
    let (mut seen, mut hops) = (Seen::default(), 0);
    for hopper in hoppers {
        let done = tokio::time::timeout(PATIENCE, hopper).await.expect("in time");
        let (device, own_hops) = done.expect("no hopper saw a fault");
        assert!(device.watch.faults.is_empty(), "{:?}", device.watch.faults);
        let mut held = device.held();
        held.retain(|id, _| !hopping.by_bucket.contains(id));
        assert_eq!(held, expected);
        seen.add(&device.watch.counts);
        hops += own_hops;
    }
    let reads = hopping.reads.load(Relaxed);
    say(&format!(
        "{store:?}: {writes} writes, {pauses} pauses, {hops} requests to edges at random, {reads} reads, {seen:?}"
    ));
    assert!(seen.behind >= BEHIND_MIN && reads >= READS_MIN && seen.stored >= reads, "{seen:?}");
    assert!(pauses >= 5 && writes >= 100, "{pauses} pauses, {writes} writes");
    assert!(links.iter().all(|link| link.counts().cuts == 0), "a link that hangs is not cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_hop_between_lagging_edges_never_go_back_on_sqlite() {
    hopping(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_hop_between_lagging_edges_never_go_back_on_mariadb() {
    hopping(Store::MariaDb).await;
}
