//! Central is down: edges go on serving what they have and say how old it is; what needs central is refused for the
//! time being and leaves nothing behind; when central is back, all recovers by itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use carillon_client::{Client, ProfilePatch};
use carillon_tests::admin::{Admin, Answer, text};
use carillon_tests::cluster::{Cluster, Store, ops_get};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::PATIENCE;
use crate::manual::held;
use crate::shop::{Hand, Shop, ids, new_secret};

async fn ready(ops: SocketAddr) -> (u16, Value) {
    let (status, body) = ops_get(ops, "/readyz").await.expect("an answer");
    (status, serde_json::from_str(&body).expect("JSON"))
}

async fn metric(ops: SocketAddr, name: &str) -> f64 {
    let (status, body) = ops_get(ops, "/metrics").await.expect("an answer");
    assert_eq!(status, 200);
    let value = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in\n{body}")).parse().expect("a number")
}

async fn until_ready_says(ops: SocketAddr, says: impl Fn(u16, &Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let (status, body) = ready(ops).await;
        if says(status, &body) {
            return body;
        }
        assert!(began.elapsed() < PATIENCE, "{status} {body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[track_caller]
fn expect_unavailable(answer: &Answer) {
    answer.expect_problem(503, "unavailable");
    let retry_after: u64 = answer.header("retry-after").parse().expect("seconds");
    assert!(retry_after >= 1);
}

/// Every call that needs central.
async fn writes_are_refused(device: &mut Hand, shop: &Shop, message: &str) {
    let change = json!({"attributes": {"bucket": "b9"}, "groups": {"g1": true}});
    expect_unavailable(&device.call("PATCH", "/v1/devices/self", change).await);
    expect_unavailable(&device.call("DELETE", "/v1/devices/self", Value::Null).await);
    let receipt = json!({"id": "00000000000000aa", "message": message, "kind": "opened", "at": "2026-11-21T00:00:00Z"});
    let receipts = json!({"receipts": [receipt]});
    expect_unavailable(&device.call("POST", "/v1/receipts", receipts).await);
    let login = json!({"app": device.app, "id": device.id, "secret": device.secret});
    expect_unavailable(&device.call("POST", "/v1/devices/session", login).await);
    let enrol = json!({"key": shop.key, "secret": new_secret()});
    expect_unavailable(&device.call("POST", "/v1/devices", enrol).await);
}

async fn central_away(store: Store) {
    let soon = ["--edge-backoff-max", "1s"];
    let mut cluster = Cluster::start_with(store, &[], &[&soon, &soon]).await;
    let (kept, lost) = (cluster.edge(0), cluster.edge(1));
    let mut shop = Shop::open(&cluster, "shop").await;
    let old = shop.say("all", json!({"v": 1})).await;
    let mut device = shop.enrol(&kept.plain_url(), json!({"attributes": {"bucket": "b1"}})).await;
    device.settle().await;
    let mut client = Client::builder()
        .edges(cluster.edge_urls())
        .tls(cluster.tls())
        .app_key(&shop.key)
        .wait(Duration::from_secs(5))
        .build()
        .expect("a client");
    let handle = client.handle();
    let running =
        tokio::spawn(async move { client.run_with(|_| {}, std::future::pending()).await });
    let began = Instant::now();
    while handle.messages().await.expect("it runs").is_empty() {
        assert!(began.elapsed() < PATIENCE, "the client gets nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = (shop.device(&device.id).await, shop.device_count().await);
    let at = until_ready_says(kept.ops, |status, _| status == 200).await;
    assert_eq!((&at["link_up"], &at["behind_seconds"]), (&json!(true), &json!(0)));
    assert_eq!(metric(kept.ops, "edge_link_up").await, 1.0);
    assert_eq!(metric(kept.ops, "edge_link_down_seconds").await, 0.0);

    for killed in [true, false] {
        if killed {
            cluster.kill_central()
        } else {
            cluster.stop_central()
        };
        until_ready_says(kept.ops, |_, body| body["link_up"] == false).await;
        // It serves what it has: a new store gets the old message, a full one nothing, a wait is held.
        let full = device.cursor.take();
        let answer = device.poll(0).await;
        assert_eq!(ids(&answer), [&*old]);
        device.cursor = Some(text(&answer.json(), "cursor").to_owned());
        let answer = device.call("POST", "/v1/messages:fetch", json!({"ids": [old]})).await;
        assert_eq!(ids(&answer), [&*old]);
        device.cursor = full;
        let asked = Instant::now();
        assert_eq!(device.poll(2).await.status, 204);
        assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
        writes_are_refused(&mut device, &shop, &old).await;
        let mut forger = Admin::new(&kept.plain_url(), "forged");
        let answer = forger.call("GET", "/v1/messages", Value::Null).await;
        answer.expect_problem(401, "session");
        // How old that is grows.
        let older =
            until_ready_says(kept.ops, |_, body| body["behind_seconds"].as_u64() >= Some(2));
        let older = older.await;
        assert_eq!((&older["ready"], &older["world"]), (&json!(true), &json!(true)), "{older}");
        assert!(older["world_seq"].is_u64());
        assert_eq!(ready(kept.ops).await.0, 200, "all edges at once would be unready");
        assert!(metric(kept.ops, "edge_link_down_seconds").await >= 2.0);
        assert_eq!(metric(kept.ops, "edge_link_up").await, 0.0);
        // An edge that starts now has no world: it lives, is not ready, and sends devices elsewhere.
        cluster.kill_edge(1);
        cluster.launch_edge(1);
        until_answers(lost.ops).await;
        let (status, body) = ready(lost.ops).await;
        assert_eq!((status, &body["world"]), (503, &json!(false)), "{body}");
        let mut elsewhere = Admin::new(&lost.plain_url(), &device.http.token);
        expect_unavailable(&elsewhere.call("GET", "/v1/messages", Value::Null).await);

        // A poll that is held and a write of a client that waits for its answer outlast it.
        let new_rank = if killed { 7 } else { 8 };
        let patch = ProfilePatch {
            attributes: BTreeMap::from([("rank".to_owned(), Some(json!(new_rank)))]),
            ..ProfilePatch::default()
        };
        let asking = handle.clone();
        let written = tokio::spawn(async move { asking.patch(patch).await });
        let (answer, sent) = tokio::join!(device.poll(60), async {
            cluster.start_central().await;
            shop.admin = cluster.admin();
            shop.say(&format!("rank == {new_rank} or bucket == \"b1\""), json!({"v": 1})).await
        });
        assert_eq!(ids(&answer), [&*sent]);
        until_ready_says(lost.ops, |status, body| status == 200 && body["link_up"] == true).await;
        let back = until_ready_says(kept.ops, |_, body| body["link_up"] == true).await;
        assert_eq!(back["behind_seconds"], 0);
        assert_eq!(metric(kept.ops, "edge_link_down_seconds").await, 0.0);
        let written = tokio::time::timeout(PATIENCE, written).await.expect("in time");
        written.expect("no panic").expect("the write is done");
        let began = Instant::now();
        while !held(&handle.messages().await.expect("it runs")).contains_key(&sent) {
            assert!(began.elapsed() < PATIENCE, "the client does not get what its write brings");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What was refused left nothing behind; the device itself is free to write again. When it was seen, edges report.
        let profile = |mut device: Value| {
            device["last_seen"].take();
            device
        };
        let after = (profile(shop.device(&device.id).await), shop.device_count().await);
        assert_eq!(after, (profile(before.0.clone()), before.1));
        shop.ok("POST", &format!("messages/{sent}:recall"), Value::Null).await;
        let nothing = json!({"attributes": {"bucket": "b1"}});
        assert_eq!(device.call("PATCH", "/v1/devices/self", nothing).await.status, 200);
        device.settle().await;
    }
    running.abort();
}

async fn until_answers(ops: SocketAddr) {
    let began = Instant::now();
    while !ops_get(ops, "/healthz").await.is_ok_and(|(status, _)| status == 200) {
        assert!(began.elapsed() < PATIENCE, "the edge does not live");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_serve_what_they_have_while_central_is_down_on_sqlite() {
    central_away(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_serve_what_they_have_while_central_is_down_on_mariadb() {
    central_away(Store::MariaDb).await;
}
