//! Each endpoint of the device API with bad input. A refusal says what is wrong by status and code, and leaves the
//! device, the number of devices and everybody else as they were.

use carillon_tests::admin::{Admin, Answer};
use carillon_tests::cluster::{Cluster, Store};
use http::Request;
use serde_json::json;

use crate::cases::{
    Bad, Cases, bodies_that_are_none, enrolments, logins, patches, paths_and_methods,
    polls_and_fetches, receipts,
};
use crate::say;
use crate::shop::Shop;

async fn send(http: &mut Admin, bad: &Bad) -> Answer {
    let mut request = Request::builder().method(bad.method).uri(&bad.path);
    for (name, value) in &bad.headers {
        request = request.header(*name, value);
    }
    http.send(request.body(bad.body.clone()).expect("a request")).await
}

async fn bad_input(store: Store) {
    let cluster = Cluster::start_with(store, &[], &[&["--edge-enrol-burst", "10000"]]).await;
    let mut shop = Shop::open(&cluster, "shop").await;
    let stranger = Shop::open(&cluster, "stranger").await;
    let url = cluster.edge(0).plain_url();
    let mut device =
        shop.enrol(&url, json!({"attributes": {"bucket": "b1"}, "groups": ["g2"]})).await;
    let message = shop.say("bucket == \"b1\"", json!("hello")).await;
    device.receive(&message).await;
    device.settle().await;
    let cursor = device.cursor.clone().expect("one");
    let mut cases =
        Cases { all: Vec::new(), session: device.http.token.clone(), key: shop.key.clone() };
    enrolments(&mut cases);
    logins(&mut cases, &device, &stranger.app);
    patches(&mut cases);
    polls_and_fetches(&mut cases, &cursor, &message);
    receipts(&mut cases, &message);
    bodies_that_are_none(&mut cases);
    paths_and_methods(&mut cases);

    let mut before = shop.device(&device.id).await;
    let mut http = Admin::new(&url, "");
    let mut faults = Vec::new();
    for bad in &cases.all {
        let answer = send(&mut http, bad).await;
        // At once after each, so that the culprit is named.
        let after = shop.device(&device.id).await;
        if after != before {
            faults.push(format!("{}: changed the device to {after}", bad.what));
            before = after;
        }
        let json = answer.json();
        if (answer.status, json["code"].as_str()) != (bad.status, Some(bad.code)) {
            faults.push(format!("{}: not {} {} but {answer:?}", bad.what, bad.status, bad.code));
            continue;
        }
        answer.expect_problem(bad.status, bad.code);
        assert_eq!(answer.header("cache-control"), "no-store", "{}", bad.what);
        assert!(!answer.headers.contains_key("set-cookie"), "{}", bad.what);
        assert_eq!(answer.headers.contains_key("allow"), bad.status == 405, "{}", bad.what);
    }
    say(&format!("{store:?}: {} bad requests", cases.all.len()));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(cases.all.len() >= 300, "{}", cases.all.len());
    assert_eq!(shop.device_count().await, 1, "no refused enrolment made a device");
    let poll = device.poll(0).await;
    assert_eq!(poll.status, 204, "nothing changed for the device: {poll:?}");
    assert_eq!(device.cursor, Some(cursor));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_and_changes_nothing_on_sqlite() {
    bad_input(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_and_changes_nothing_on_mariadb() {
    bad_input(Store::MariaDb).await;
}
