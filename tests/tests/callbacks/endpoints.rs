//! What an admin does with an endpoint: makes, tests, changes, pauses, rotates, replays, deletes.

use std::collections::BTreeSet;

use carillon_tests::admin::text;
use carillon_tests::callbacks::{Behaviour, verify};
use carillon_tests::cluster::Store;
use serde_json::{Value, json};

use crate::bench::{Bench, is_idle, messages_of};

const DISCARD: [&str; 2] = ["--history-to", "discard"];

async fn endpoints(store: Store) {
    let mut bench = Bench::start(store, &DISCARD).await;
    // Before anybody hears.
    bench.messages(3).await;
    let endpoint = bench.endpoint("/a", &["message.created"]).await;
    let told = bench.admin.ok("POST", &format!("{}/test", endpoint.path), Value::Null).await;
    assert_eq!((&told["delivered"], &told["status"]), (&json!(true), &json!(204)), "{told}");
    let test = &bench.until_received("/a", 1).await[0];
    assert_eq!(test.json()["type"], "callback.test");
    assert_eq!(verify(&[(test, &endpoint.secret)]), [None]);
    assert_eq!(test.header("content-type"), "application/json");
    assert!(test.header("user-agent").starts_with("carillon/"), "{test:?}");

    let made = bench.messages(20).await;
    let calls = bench.until_received("/a", 21).await;
    let calls = &calls[1..];
    assert_eq!(BTreeSet::from_iter(messages_of(calls)), BTreeSet::from_iter(made.clone()));
    let signed: Vec<_> = calls.iter().map(|call| (call, &*endpoint.secret)).collect();
    assert!(verify(&signed).iter().all(Option::is_none), "{:?}", verify(&signed));
    // What was tampered with does not.
    let mut bent = calls[0].clone();
    bent.body = bent.body.iter().map(|b| if *b == b'm' { b'n' } else { *b }).collect();
    assert!(verify(&[(&bent, &endpoint.secret)])[0].is_some());
    let body = calls[0].json();
    assert_eq!(body["type"], "message.created");
    assert_eq!(format!("/v1/apps/{}", text(&body["data"], "app")), bench.app);
    assert!(text(&body, "timestamp").ends_with('Z') && body["data"]["to"] == "all", "{body}");
    let shown = bench.until(&endpoint, is_idle).await;
    assert_eq!((&shown["delivered"], &shown["failed"]), (&json!(20), &json!(0)), "{shown}");
    assert!(shown["last_success_at"].is_string() && shown["last_error"].is_null(), "{shown}");
    assert!(shown.get("secret").is_none());

    // Paused, it is not called, and then goes on where it stood.
    let paused = bench.patch(&endpoint, json!({"state": "paused"})).await;
    assert_eq!((&paused["state"], &paused["paused"]), (&json!("paused"), &json!("admin")));
    let more = bench.messages(10).await;
    let waiting = bench.until(&endpoint, |found| found["waiting"]["events"] == 10).await;
    assert!(waiting["waiting"]["oldest_at"].is_string(), "{waiting}");
    assert_eq!(bench.receiver.received("/a").len(), 21);
    // Also over a restart.
    bench.cluster.stop_central();
    bench.cluster.start_central().await;
    bench.admin = bench.cluster.admin();
    let waiting = bench.get(&endpoint).await;
    assert_eq!((&waiting["waiting"]["events"], &waiting["delivered"]), (&json!(10), &json!(20)));
    bench.patch(&endpoint, json!({"state": "active"})).await;
    let calls = bench.until_received("/a", 31).await;
    assert_eq!(BTreeSet::from_iter(messages_of(&calls[21..])), BTreeSet::from_iter(more.clone()));

    // Again from the time of the first of them on.
    bench.until(&endpoint, is_idle).await;
    let from = text(&waiting["waiting"], "oldest_at");
    let replayed =
        bench.admin.ok("POST", &format!("{}/replay", endpoint.path), json!({"from": from})).await;
    assert_eq!(replayed["state"], "active");
    let again = bench.until_received("/a", 41).await;
    let ids = |calls: &[carillon_tests::callbacks::Received]| {
        calls.iter().map(|call| call.id().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(ids(&again[31..]), ids(&again[21..31]), "the same ids");
    bench.until(&endpoint, is_idle).await;

    // To another place, for other events.
    let url = bench.receiver.url("/b?key=1");
    let patched =
        bench.patch(&endpoint, json!({"url": url, "events": ["message.state", "group.*"]})).await;
    assert_eq!(patched["events"], json!(["group.*", "message.state"]));
    let made = bench.messages(1).await;
    bench
        .admin
        .ok("POST", &format!("{}/messages/{}:recall", bench.app, made[0]), Value::Null)
        .await;
    bench.admin.ok("POST", &format!("{}/groups", bench.app), json!({"name": "vip"})).await;
    let calls = bench.until_received("/b", 2).await;
    let kinds: BTreeSet<String> =
        calls.iter().map(|call| text(&call.json(), "type").to_owned()).collect();
    assert_eq!(kinds, BTreeSet::from(["group.changed".to_owned(), "message.state".to_owned()]));
    assert_eq!(bench.receiver.received("/a").len(), 41);

    let answer = bench.admin.call("DELETE", &endpoint.path, Value::Null).await;
    assert_eq!(answer.status, 204);
    let answer = bench.admin.call("GET", &endpoint.path, Value::Null).await;
    answer.expect_problem(404, "not-found");
    let other = bench.endpoint("/c", &["group.*"]).await;
    bench.admin.ok("POST", &format!("{}/groups", bench.app), json!({"name": "gold"})).await;
    bench.until_received("/c", 1).await;
    assert_eq!(bench.receiver.received("/b").len(), 2, "it is gone");
    let listed = bench.admin.ok("GET", &format!("{}/callbacks", bench.app), Value::Null).await;
    assert_eq!(listed["callbacks"].as_array().map(Vec::len), Some(1), "{listed}");
    bench.until(&other, is_idle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_made_tested_paused_replayed_changed_and_deleted_with_sqlite() {
    endpoints(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_made_tested_paused_replayed_changed_and_deleted_with_mariadb() {
    endpoints(Store::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_rotated_without_a_call_that_does_not_verify() {
    let mut bench = Bench::start(Store::Sqlite, &DISCARD).await;
    let endpoint = bench.endpoint("/a", &["message.created"]).await;
    let rotate = format!("{}/rotate-secret", endpoint.path);
    let rotated = bench.admin.ok("POST", &rotate, json!({})).await;
    let second = text(&rotated, "secret").to_owned();
    assert_eq!(rotated["old_secrets_until"].as_array().map(Vec::len), Some(1), "{rotated}");
    bench.messages(1).await;
    let call = &bench.until_received("/a", 1).await[0];
    assert_eq!(call.header("webhook-signature").split(' ').count(), 2);
    assert_eq!(verify(&[(call, &endpoint.secret), (call, &second)]), [None, None]);
    // The first is used beside them: the answer of the second rotation may have been lost.
    let third = text(&bench.admin.ok("POST", &rotate, json!({"overlap_s": 3600})).await, "secret")
        .to_owned();
    bench.messages(1).await;
    let call = &bench.until_received("/a", 2).await[1];
    let told = verify(&[(call, &endpoint.secret), (call, &second), (call, &third)]);
    assert!(told.iter().all(Option::is_none), "{told:?}");
    // Four are never used: the oldest goes.
    let rotated = bench.admin.ok("POST", &rotate, json!({"overlap_s": 3600})).await;
    let fourth = text(&rotated, "secret").to_owned();
    assert_eq!(rotated["old_secrets_until"].as_array().map(Vec::len), Some(2), "{rotated}");
    bench.messages(1).await;
    let call = &bench.until_received("/a", 3).await[2];
    let told =
        verify(&[(call, &endpoint.secret), (call, &second), (call, &third), (call, &fourth)]);
    assert!(told[0].is_some() && told[1..].iter().all(Option::is_none), "{told:?}");
    // At once.
    let last =
        text(&bench.admin.ok("POST", &rotate, json!({"overlap_s": 0})).await, "secret").to_owned();
    bench.messages(1).await;
    let call = &bench.until_received("/a", 4).await[3];
    assert_eq!(call.header("webhook-signature").split(' ').count(), 1);
    let told = verify(&[(call, &fourth), (call, &last)]);
    assert!(told[0].is_some() && told[1].is_none(), "{told:?}");
    let too_long = json!({"overlap_s": 31 * 24 * 3600});
    bench.admin.call("POST", &rotate, too_long).await.expect_problem(422, "invalid-callback");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_cannot_be_is_refused_with_what_to_do() {
    let flags = ["--history-to", "discard", "--callbacks-endpoints-max", "2"];
    let mut bench = Bench::start(Store::Sqlite, &flags).await;
    let path = format!("{}/callbacks", bench.app);
    let url = bench.receiver.url("/a");
    for (input, says) in [
        (json!({"url": url, "events": ["message.sent"]}), "message.state"),
        (json!({"url": url, "events": []}), "1 to 64"),
        (json!({"url": url, "events": ["shard.opened"]}), "there is no event"),
        (json!({"url": "http://localhost/", "events": ["*"]}), "https://"),
        (json!({"url": "https://localhost/", "events": ["*"]}), "callbacks.ports"),
        (
            json!({"url": format!("https://10.1.2.3:{}/", bench.receiver.port()), "events": ["*"]}),
            "callbacks.private_networks",
        ),
        (json!({"url": url, "events": ["*"], "description": "x".repeat(513)}), "512 bytes"),
    ] {
        let problem =
            bench.admin.call("POST", &path, input).await.expect_problem(422, "invalid-callback");
        assert!(text(&problem, "detail").contains(says), "{problem}");
    }
    bench.endpoint("/a", &["*"]).await;
    bench.endpoint("/b", &["*"]).await;
    let one_more = json!({"url": url, "events": ["*"]});
    let problem = bench.admin.call("POST", &path, one_more.clone()).await;
    assert_eq!(problem.expect_problem(422, "too-many-callbacks")["limit"], 2);

    // Where nothing is told nobody can be called.
    bench.cluster.stop_central();
    bench.cluster.start_central_with(&["--history-to", "off"]).await;
    bench.admin = bench.cluster.admin();
    let problem =
        bench.admin.call("POST", &path, one_more).await.expect_problem(409, "callbacks-off");
    assert!(text(&problem, "detail").contains("history.to"), "{problem}");
    let listed = bench.admin.ok("GET", &path, Value::Null).await;
    assert_eq!(listed["callbacks"].as_array().map(Vec::len), Some(2), "what was there is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_does_not_take_is_tried_again_with_the_same_id_until_it_does() {
    let mut bench = Bench::start(Store::Sqlite, &DISCARD).await;
    let endpoint = bench.endpoint("/a", &["message.created"]).await;
    let said = "no\r\nplace ".repeat(100);
    bench.receiver.behave("/a", Behaviour::Answer(500, Vec::new(), said));
    let made = bench.messages(8).await;
    let failing = bench.until(&endpoint, |found| found["retrying"].as_u64() >= Some(3)).await;
    let error = text(&failing, "last_error");
    assert!(
        error.starts_with("HTTP status 500: no  place no") && error.chars().count() < 240,
        "{error}"
    );
    // Killed in between, it goes on.
    bench.cluster.kill_central();
    bench.cluster.start_central().await;
    bench.admin = bench.cluster.admin();
    bench.receiver.behave("/a", Behaviour::Status(204));
    let done = bench.until(&endpoint, |found| is_idle(found) && found["delivered"] == 8).await;
    assert_eq!((&done["failed"], &done["missed"]), (&json!(0), &json!(0)), "{done}");
    let calls = bench.receiver.received("/a");
    assert_eq!(BTreeSet::from_iter(messages_of(&calls)), BTreeSet::from_iter(made));
    let ids: BTreeSet<&str> = calls.iter().map(|call| call.id()).collect();
    assert_eq!(ids.len(), 8, "a repeat has the same id");
    assert!(calls.len() > 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_forgets_is_shown_as_missed_and_holds_nobody_up() {
    // Less than half of the events, which are some hundred KiB.
    let flags = ["--history-to", "discard", "--callbacks-bytes-max", "300KiB"];
    let mut bench = Bench::start(Store::Sqlite, &flags).await;
    let endpoint = bench.endpoint("/a", &["message.created"]).await;
    bench.patch(&endpoint, json!({"state": "paused"})).await;
    let text = "x".repeat(8 << 10);
    for _ in 0..100 {
        let input = json!({"to": "all", "body": {"text": text}});
        bench.admin.ok("POST", &format!("{}/messages", bench.app), input).await;
    }
    bench.until(&endpoint, |found| found["missed"].as_u64() > Some(30)).await;
    bench.patch(&endpoint, json!({"state": "active"})).await;
    let is_done = |found: &Value| {
        is_idle(found)
            && found["missed"]
                .as_u64()
                .zip(found["delivered"].as_u64())
                .is_some_and(|(a, b)| a + b >= 100)
    };
    let done = bench.until(&endpoint, is_done).await;
    let (missed, delivered) =
        (done["missed"].as_u64().unwrap(), done["delivered"].as_u64().unwrap());
    assert!(missed + delivered == 100 && delivered > 0, "{done}");
    let made = bench.messages(1).await;
    let calls = bench.until_received("/a", delivered as usize + 1).await;
    assert_eq!(messages_of(&calls).last(), made.last());
}
