//! Fetches of an inventory's bodies: cut short, late, from an edge that lags behind the inventory.

use std::collections::BTreeMap;
use std::time::Duration;

use carillon_client::{Event, FailureKind, Operation, Profile, Request};
use carillon_tests::cluster::{Cluster, Store};
use carillon_tests::proxy::{End, Faults, Proxy, Verdict};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::lag::behind_proxies;
use crate::manual::Manual;
use crate::shop::Shop;
use crate::{PATIENCE, say};

/// The edge that keeps up, the one that can be made to lag, and the first one through a proxy that cuts.
const GOOD: usize = 0;
const LAGGING: usize = 1;
const CUTTING: usize = 2;

/// Bodies of 256 KiB go at a time, so 600 KB take three fetches.
const BODIES: usize = 30;
const BODY_BYTES: usize = 20_000;

/// Polls at the good edge until the device wants to fetch.
async fn until_fetch(device: &mut Manual) -> Request {
    let began = Instant::now();
    loop {
        let request = device.next();
        if request.id.operation() == Operation::Fetch {
            return request;
        }
        let answer = device.ask(GOOD, &request).await;
        device.give(request.id, answer.as_ref());
        assert!(began.elapsed() < PATIENCE, "no inventory with bodies to fetch");
    }
}

async fn move_to(shop: &mut Shop, device: &Manual, bucket: &str) {
    let (_, id) = device.device.saved().identity.clone().expect("enrolled").registered.expect("so");
    shop.ok("PATCH", &format!("devices/{id}"), json!({"attributes": {"bucket": bucket}})).await;
}

async fn fetches(store: Store) {
    let (cluster, links) = behind_proxies(store, 2).await;
    let cutting = Proxy::start(cluster.edge(0).plain).await;
    let mut shop = Shop::open(&cluster, "shop").await;
    let mut sent: BTreeMap<&str, BTreeMap<String, Value>> = BTreeMap::new();
    for (bucket, count, bytes) in [("b1", BODIES, BODY_BYTES), ("b2", 5, 10), ("b3", 5, 10)] {
        for n in 0..count {
            let body = json!({"v": 1, "n": n, "pad": "x".repeat(bytes)});
            let id = shop.say(&format!("bucket == \"{bucket}\""), body.clone()).await;
            sent.entry(bucket).or_default().insert(id, body);
        }
    }
    let mut urls: Vec<String> = (0..2).map(|n| cluster.edge(n).plain_url()).collect();
    urls.push(cutting.url());
    let profile = Profile {
        attributes: BTreeMap::from([("bucket".to_owned(), json!("b0"))]),
        ..Profile::default()
    };
    let mut device = Manual::new(&urls, &shop.key, profile, 0);
    device.settle(GOOD).await;
    assert!(device.held().is_empty());

    // Cut short, after the headers and in the body: the same is fetched again, one answer after the other.
    cutting.script(|exchange| {
        let body = exchange.body().len();
        let body_bytes = if exchange.connection.is_multiple_of(2) { 0 } else { body / 2 };
        Verdict::Cut { body_bytes, end: End::Close }
    });
    move_to(&mut shop, &device, "b1").await;
    let mut request = until_fetch(&mut device).await;
    let (mut cut, mut whole) = (0, 0);
    let before = device.device.saved().cursor.clone();
    loop {
        let edge = if cut <= whole { CUTTING } else { GOOD };
        let answer = device.ask(edge, &request).await;
        assert_eq!(answer.is_none(), edge == CUTTING);
        if answer.is_none() {
            cut += 1
        } else {
            whole += 1
        };
        let events = device.give(request.id, answer.as_ref());
        if !device.held().is_empty() {
            break;
        }
        assert_eq!(device.device.saved().cursor, before, "the cursor waits for the bodies");
        if edge == CUTTING {
            let failed =
                Event::Failed { operation: Operation::Fetch, edge: 0, kind: FailureKind::Timeout };
            assert_eq!(events.len(), 1, "{events:?} is like {failed:?}");
            assert!(matches!(events[0], Event::Failed { operation: Operation::Fetch, .. }));
        }
        request = device.next();
        assert_eq!(request.id.operation(), Operation::Fetch);
    }
    assert_eq!(device.held(), sent["b1"]);
    assert!(cut >= 3 && whole >= 3, "{cut} cut, {whole} whole");
    assert!(cutting.counts().cuts >= cut, "{cutting:?}");
    device.settle(GOOD).await;

    // Late: given up, and by the time it comes one message is edited, one recalled and the rest stored.
    move_to(&mut shop, &device, "b2").await;
    let request = until_fetch(&mut device).await;
    let late = device.ask(GOOD, &request).await.expect("an answer");
    assert_eq!(late.status(), 200);
    device.give(request.id, None);
    let mut expected = sent["b2"].clone();
    let edited = expected.keys().next().expect("one").clone();
    let recalled = expected.keys().nth(1).expect("another").clone();
    expected.insert(edited.clone(), json!({"v": 2}));
    expected.remove(&recalled);
    shop.ok("PATCH", &format!("messages/{edited}"), json!({"body": {"v": 2}})).await;
    shop.ok("POST", &format!("messages/{recalled}:recall"), Value::Null).await;
    until_held(&mut device, &expected).await;
    let cursor = device.device.saved().cursor.clone();
    let events = device.give(request.id, Some(&late));
    assert!(matches!(events[..], [Event::Dropped { operation: Operation::Fetch }]), "{events:?}");
    assert_eq!((device.held(), &device.device.saved().cursor), (expected.clone(), &cursor));
    device.settle(GOOD).await;

    // From an edge that lags behind the inventory: it waits, then says so, and nothing of the inventory is stored.
    device.settle(LAGGING).await;
    let cursor = device.device.saved().cursor.clone();
    links[LAGGING].set(Faults::STALLED);
    move_to(&mut shop, &device, "b3").await;
    let request = until_fetch(&mut device).await;
    let began = Instant::now();
    let answer = device.ask(LAGGING, &request).await.expect("an answer");
    assert!(began.elapsed() >= Duration::from_secs(1), "it did not wait: {:?}", began.elapsed());
    assert_eq!(answer.status(), 503, "{answer:?}");
    assert!(answer.headers().contains_key("retry-after"));
    let problem: Value = serde_json::from_slice(answer.body()).expect("problem JSON");
    assert_eq!(problem["code"], "behind");
    let events = device.give(request.id, Some(&answer));
    let dropped = |event: &Event| matches!(event, Event::Dropped { operation: Operation::Fetch });
    assert!(events.iter().any(dropped), "{events:?}");
    assert_eq!((device.held(), &device.device.saved().cursor), (expected, &cursor));
    until_held(&mut device, &sent["b3"]).await;
    links[LAGGING].set(Faults::default());
    // Its first answers may still be 503, while it catches up.
    device.settle(LAGGING).await;
    assert_eq!(device.held(), sent["b3"]);
    assert!(device.watch.faults.is_empty(), "{:?}", device.watch.faults);
    say(&format!("{store:?}: {cut} fetches cut, {whole} whole, one late, one from a lagging edge"));
}

async fn until_held(device: &mut Manual, expected: &BTreeMap<String, Value>) {
    let began = Instant::now();
    while device.held() != *expected {
        device.step(GOOD).await;
        assert!(began.elapsed() < PATIENCE, "{:?}", device.held());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_cut_late_and_from_a_lagging_edge_leave_nothing_out_on_sqlite() {
    fetches(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_cut_late_and_from_a_lagging_edge_leave_nothing_out_on_mariadb() {
    fetches(Store::MariaDb).await;
}

/// What a fetch must not do: give what is not addressed, or answer without the inventory's cursor.
#[tokio::test]
async fn a_fetch_gives_only_what_is_addressed() {
    let cluster = Cluster::start(Store::Sqlite, 1).await;
    let mut shop = Shop::open(&cluster, "shop").await;
    let mine = shop.say("bucket == \"b1\"", json!("mine")).await;
    let other = shop.say("bucket == \"b2\"", json!("secret-of-others")).await;
    let profile = json!({"attributes": {"bucket": "b1"}});
    let mut device = shop.enrol(&cluster.edge(0).plain_url(), profile).await;
    device.settle().await;
    let nobody = "0123456789abcdef";
    let body = json!({"ids": [other, nobody, mine]});
    let answer = device.call("POST", "/v1/messages:fetch", body).await;
    let json = answer.json();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(json["gone"], json!([other, nobody]));
    assert_eq!(
        (json["messages"].as_array().map(Vec::len), &json["messages"][0]["id"]),
        (Some(1), &json!(mine))
    );
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret-of-others"));
}
