//! What became of a message, counted exactly: deliveries and receipts of several devices, whatever comes twice, over a
//! `kill -9` of central, and a recall to its last confirmation.

use std::task::Poll;
use std::time::Duration;

use carillon_tests::admin::text;
use carillon_tests::cluster::{Cluster, Store, ops_get};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::PATIENCE;
use crate::shop::{Hand, Shop};

const MARKER: &str = "planted-marker-of-a-body";
const ACTION: &str = "planted-marker-of-an-action";

async fn funnel(shop: &mut Shop, message: &str) -> Value {
    shop.ok("GET", &format!("messages/{message}/funnel"), Value::Null).await
}

/// Waits until the funnel says so.
async fn until(shop: &mut Shop, message: &str, says: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let funnel = funnel(shop, message).await;
        if says(&funnel) {
            return funnel;
        }
        assert!(began.elapsed() < PATIENCE, "{funnel}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn receipt(id: u64, message: &str, kind: &str) -> Value {
    let mut receipt = json!({
        "id": format!("{id:016x}"), "message": message, "kind": kind, "at": "2026-11-21T00:00:00Z"
    });
    if kind == "action" {
        receipt["action"] = ACTION.into();
    }
    receipt
}

async fn send(device: &mut Hand, receipts: &[Value]) {
    let answer = device.call("POST", "/v1/receipts", json!({"receipts": receipts})).await;
    assert_eq!(answer.status, 202, "{answer:?}");
}

/// All at a time, so that the edge sends them on together.
async fn send_all(devices: &mut [Hand], receipts: &[Value]) {
    let sending = devices.iter_mut().map(|device| Some(Box::pin(send(device, receipts))));
    let mut sending: Vec<_> = sending.collect();
    std::future::poll_fn(|context| {
        for one in &mut sending {
            if one.as_mut().is_some_and(|sent| sent.as_mut().poll(context).is_ready()) {
                *one = None;
            }
        }
        if sending.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn counted(store: Store) {
    let mut cluster = Cluster::start(store, 2).await;
    let mut shop = Shop::open(&cluster, "shop").await;
    let mut devices = Vec::new();
    for n in 0..8 {
        let edge = cluster.edge(n % 2).plain_url();
        let bucket = if n < 3 { "b1" } else { "b2" };
        devices.push(shop.enrol(&edge, json!({"attributes": {"bucket": bucket}})).await);
    }
    let all = shop.say("all", json!({"text": MARKER})).await;
    let some = shop.say("bucket == \"b1\"", json!({"text": MARKER})).await;
    for device in &mut devices {
        device.receive(&all).await;
    }
    // Nobody has stored anything yet: these polls were of empty stores, whose answers were dropped.
    let none = funnel(&mut shop, &all).await;
    assert_eq!((&none["addressed"], &none["delivered"]), (&json!(8), &json!(0)), "{none}");
    assert_eq!(none.get("withdrawn"), None);
    let mut fresh = Vec::new();
    for device in &mut devices {
        let answer = device.poll(0).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        device.cursor = Some(text(&answer.json(), "cursor").to_owned());
        fresh.push(device.cursor.clone());
        device.settle().await;
    }
    until(&mut shop, &all, |funnel| funnel["delivered"] == 8).await;
    until(&mut shop, &some, |funnel| funnel["delivered"] == 3).await;
    // What was fresh is shown again, at both edges.
    for (n, device) in devices.iter_mut().enumerate() {
        let last = device.cursor.take();
        device.cursor = fresh[n].clone();
        device.move_to(&cluster.edge((n + 1) % 2).plain_url());
        assert_eq!(device.poll(0).await.status, 200);
        device.cursor = last;
    }
    // Receipts, some of them twice; of one that was never addressed to them nothing counts.
    let first = [receipt(1, &all, "displayed"), receipt(2, &some, "displayed")];
    send_all(&mut devices, &first).await;
    send_all(&mut devices, &first).await;
    send_all(&mut devices[..5], &[receipt(3, &all, "opened"), receipt(4, &all, "opened")]).await;
    send_all(&mut devices[..2], &[receipt(5, &all, "action"), receipt(6, &all, "dismissed")]).await;
    let counts = json!([8, 8, 8, 5, 1, 2, 2]);
    let numbers = |funnel: &Value| {
        let names =
            ["addressed", "delivered", "displayed", "opened", "failed", "dismissed", "action"];
        let number = |name: &str| match &funnel[name] {
            // Nothing is pushed here.
            Value::Object(none) if none.is_empty() => json!(1),
            other => other.clone(),
        };
        Value::from(names.map(number).to_vec())
    };
    // A report takes a second or so: what came twice would be counted by then.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let found = funnel(&mut shop, &all).await;
    assert_eq!(numbers(&found), counts, "{found}");
    let found = funnel(&mut shop, &some).await;
    let [addressed, delivered, displayed] =
        ["addressed", "delivered", "displayed"].map(|name| found[name].clone());
    assert_eq!([addressed, delivered, displayed], [3, 3, 3].map(Value::from), "{found}");

    cluster.kill_central();
    cluster.start_central().await;
    shop.admin = cluster.admin();
    let found = funnel(&mut shop, &all).await;
    assert_eq!(numbers(&found), counts, "{found}");
    for counter in ["delivered", "displayed"] {
        for bucket in ["minute", "hour", "day"] {
            let rest = format!("messages/{all}/funnel/series?counter={counter}&bucket={bucket}");
            let series = shop.ok("GET", &rest, Value::Null).await;
            let points = series["points"].as_array().expect("points");
            let sum: u64 = points.iter().map(|point| point["n"].as_u64().expect("a count")).sum();
            assert_eq!((sum, &series["next"]), (8, &Value::Null), "{series}");
        }
    }

    // A recall: nobody has confirmed it, then all have, and of who is deleted nothing is out.
    shop.ok("POST", &format!("messages/{all}:recall"), Value::Null).await;
    let found = funnel(&mut shop, &all).await;
    let of = |confirmed: u64, still_out: u64| json!({"confirmed": confirmed, "still_out": still_out, "pushed": {}});
    assert_eq!(found["withdrawn"], of(0, 8), "{found}");
    for device in &mut devices[..4] {
        let began = Instant::now();
        while device.poll(0).await.status != 200 {
            assert!(began.elapsed() < PATIENCE, "the recall does not come");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        device.settle().await;
    }
    until(&mut shop, &all, |funnel| funnel["withdrawn"] == of(4, 4)).await;
    let gone = devices.pop().expect("a device");
    shop.ok("DELETE", &format!("devices/{}", gone.id), Value::Null).await;
    until(&mut shop, &all, |funnel| funnel["withdrawn"] == of(4, 3)).await;
    for device in &mut devices[4..] {
        device.settle().await;
    }
    let found = until(&mut shop, &all, |funnel| funnel["withdrawn"] == of(7, 0)).await;
    assert_eq!((&found["delivered"], &found["displayed"]), (&json!(8), &json!(8)), "{found}");

    // What devices wrote and what messages say is in no log and no metric.
    let ops = ops_get(cluster.edge(0).ops, "/metrics").await.expect("an answer").1;
    let own = shop.admin.call("GET", "/metrics", Value::Null).await;
    let own = String::from_utf8_lossy(&own.body).into_owned();
    let logs = [cluster.central_log(), cluster.edge_log(0), cluster.edge_log(1)];
    for text in logs.iter().chain([&ops, &own, &found.to_string()]) {
        for marker in [MARKER, ACTION] {
            assert!(!text.contains(marker), "{marker} in {text}");
        }
    }
}

#[tokio::test]
async fn deliveries_receipts_and_a_recall_are_counted_exactly_on_sqlite() {
    counted(Store::Sqlite).await;
}

#[tokio::test]
async fn deliveries_receipts_and_a_recall_are_counted_exactly_on_mariadb() {
    counted(Store::MariaDb).await;
}

#[tokio::test]
async fn what_is_no_series_is_refused() {
    let cluster = Cluster::start(Store::Sqlite, 1).await;
    let mut shop = Shop::open(&cluster, "shop").await;
    let message = shop.say("all", json!(1)).await;
    for query in [
        "counter=deliver&bucket=hour",
        "counter=delivered&bucket=week",
        "counter=delivered&bucket=hour&from=yesterday",
        "counter=delivered&bucket=hour&from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "counter=delivered&bucket=hour&limit=3",
    ] {
        let path = shop.path(&format!("messages/{message}/funnel/series?{query}"));
        let answer = shop.admin.call("GET", &path, Value::Null).await;
        answer.expect_problem(400, "bad-request");
    }
    for path in ["messages/00000000000000ff/funnel", "messages/x/funnel/series?counter=delivered"] {
        let answer = shop.admin.call("GET", &shop.path(path), Value::Null).await;
        answer.expect_problem(404, "not-found");
    }
}
