//! Idempotency keys: a repeat gets the same answer and creates nothing, also after `kill -9`.

use carillon_tests::admin::{Answer, text};
use serde_json::{Value, json};

use crate::bench::{App, Bench, Call, seq};
use crate::messages::{CREATE, EDIT, LIST};

fn create(app: &App, key: &str, body: &Value) -> Call {
    Call::to(CREATE, &[&app.id]).header("idempotency-key", key).json(body.clone())
}

pub(crate) async fn check(bench: &mut Bench) {
    let (app, other) = (bench.app().await, bench.app().await);
    let body = json!({"to": "all", "body": {"n": 1}});
    let longest = "k".repeat(128);
    // Keys that a database might take for one another are not.
    let keys = ["key", "Key", "key ", "a b", "!~", &longest];
    let mut answers = Vec::new();
    for key in keys {
        // A space at the end is no part of a header's value.
        if key.ends_with(' ') {
            bench.unchanged(create(&app, key, &body)).await;
            continue;
        }
        let made = bench.written(create(&app, key, &body)).await;
        same(&made, &bench.unchanged(create(&app, key, &body)).await);
        answers.push((key, made));
    }
    let ids: std::collections::BTreeSet<String> =
        answers.iter().map(|(_, made)| text(&made.json(), "id").to_owned()).collect();
    assert_eq!(ids.len(), answers.len(), "each key made a message");
    // The same key is another in another app.
    let elsewhere = bench.written(create(&other, "key", &body)).await;
    assert_ne!(elsewhere.json()["id"], answers[0].1.json()["id"]);
    let others = [
        json!({"to": "all", "body": {"n": 2}}),
        json!({"to": "all", "body": {"n": 1}, "priority": "normal"}),
        json!({"to": "not all", "body": {"n": 1}}),
        // What the key was used for comes before what is wrong with the rest.
        json!({"to": "#nothing", "body": {"n": 1}}),
    ];
    for body in &others {
        bench.refused(create(&app, "key", body), 409, "idempotency-key-reused").await;
    }
    for key in ["", &"k".repeat(129), &"é".repeat(65)] {
        let status = if key.is_ascii() { (422, "invalid") } else { (400, "bad-request") };
        bench.refused(create(&app, key, &body), status.0, status.1).await;
    }
    // A refused request uses no key up.
    bench
        .refused(
            create(&app, "later", &json!({"to": "#nothing", "body": 1})),
            422,
            "bad-expression",
        )
        .await;
    bench.refused(create(&app, "later", &json!({"to": "all"})), 400, "bad-request").await;
    let later = bench.written(create(&app, "later", &body)).await;
    answers.push(("later", later));
    // The answer is that of then, whatever became of the message.
    let id = text(&answers[0].1.json(), "id").to_owned();
    bench.written(Call::to(EDIT, &[&app.id, &id]).json(json!({"body": "edited"}))).await;
    bench.written(Call::to(crate::messages::RECALL, &[&app.id, &id])).await;
    same(&answers[0].1, &bench.unchanged(create(&app, "key", &body)).await);

    let before = bench.state().await;
    bench.cluster.kill_central();
    bench.cluster.start_central().await;
    bench.admin = bench.cluster.admin();
    for (key, made) in &answers {
        same(made, &bench.unchanged(create(&app, key, &body)).await);
    }
    for body in &others {
        bench.refused(create(&app, "key", body), 409, "idempotency-key-reused").await;
    }
    bench.unmoved(before, "a repeat after kill -9").await;
    a_race(bench, &other).await;
}

/// The same to the byte, but for the date.
#[track_caller]
fn same(first: &Answer, again: &Answer) {
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(seq(first), seq(again));
    assert_eq!(first.header("etag"), again.header("etag"));
}

/// Many at once with one key: one message, one answer.
async fn a_race(bench: &mut Bench, app: &App) {
    let body = json!({"to": "all", "body": "race"});
    let mut callers = Vec::new();
    for _ in 0..16 {
        let request = bench.request(&create(app, "race", &body));
        let mut admin = bench.cluster.admin();
        callers.push(tokio::spawn(async move { admin.send(request).await }));
    }
    let mut answers = Vec::new();
    for caller in callers {
        answers.push(caller.await.expect("no panic"));
    }
    for answer in &answers {
        assert_eq!(answer.status, 201, "{answer:?}");
        same(&answers[0], answer);
    }
    let listed = bench.read(Call::to(LIST, &[&app.id])).await.json();
    let races = listed["messages"]
        .as_array()
        .map_or(0, |all| all.iter().filter(|m| m["body"] == "race").count());
    assert_eq!(races, 1);
}
