//! A message to an audience follows what the audience says, on the wire: parked polls, old cursors, restarts.

use std::time::Duration;

use carillon_tests::admin::{Answer, text};
use carillon_tests::cluster::{Cluster, Store};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::PATIENCE;
use crate::shop::{Hand, Shop, ids};

async fn put(shop: &mut Shop, name: &str, expression: &str) {
    shop.ok("PUT", &format!("audiences/{name}"), json!({"expression": expression})).await;
}

fn gone(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let gone = json["gone"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
    gone.iter().map(|id| id.as_str().expect("an id").to_owned()).collect()
}

/// Polls and stores until there is news, and gives it.
async fn news(hand: &mut Hand) -> Answer {
    let began = Instant::now();
    loop {
        let answer = hand.poll(5).await;
        if answer.status == 200 {
            hand.cursor = Some(text(&answer.json(), "cursor").to_owned());
            let json = answer.json();
            let brings = |key: &str| json[key].as_array().is_some_and(|list| !list.is_empty());
            if brings("messages") || brings("gone") {
                return answer;
            }
        }
        assert!(began.elapsed() < PATIENCE, "no news: {answer:?}");
        let behind = answer.status == 503;
        assert!(behind || answer.status == 204 || answer.status == 200, "{answer:?}");
        if behind {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What a store that holds nothing is told, once the edge answers.
async fn all(hand: &mut Hand) -> Value {
    let began = Instant::now();
    let kept = hand.cursor.take();
    loop {
        let answer = hand.poll(0).await;
        if answer.status == 200 {
            hand.cursor = kept;
            let json = answer.json();
            return json!([json["inventory"], json["messages"]]);
        }
        assert!(began.elapsed() < PATIENCE, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn follows(store: Store) {
    let mut cluster = Cluster::start(store, 2).await;
    let mut shop = Shop::open(&cluster, "audiences").await;
    let url = cluster.edge(0).plain_url();
    put(&mut shop, "vips", "#staff").await;
    put(&mut shop, "nested", "@vips and not #g0").await;
    let mut hand = shop.enrol(&url, json!({"groups": ["g1"]})).await;
    let mut other = shop.enrol(&url, json!({"groups": ["g0", "g1"]})).await;
    let direct = shop.say("@vips", json!("direct")).await;
    let indirect = shop.say("@nested", json!("indirect")).await;
    let plain = shop.say("#g1", json!("plain")).await;
    for hand in [&mut hand, &mut other] {
        hand.receive(&plain).await;
        hand.settle().await;
    }
    // From before all edits.
    let (old, old_other) = (hand.cursor.clone(), other.cursor.clone());

    // A parked poll wakes when the audience begins to describe its device, and when it ceases to.
    let mut both = [direct.clone(), indirect.clone()];
    both.sort();
    put(&mut shop, "vips", "#g1").await;
    let answer = news(&mut hand).await;
    assert_eq!((ids(&answer), gone(&answer)), (both.to_vec(), vec![]));
    let answer = news(&mut other).await;
    assert_eq!((ids(&answer), gone(&answer)), (vec![direct.clone()], vec![]));
    let parked = tokio::spawn(async move {
        let began = Instant::now();
        let answer = news(&mut hand).await;
        (hand, answer, began.elapsed())
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    put(&mut shop, "vips", "#staff").await;
    let (mut hand, answer, waited) = parked.await.expect("it polls");
    let mut away = gone(&answer);
    away.sort();
    assert_eq!((ids(&answer), away), (vec![], both.to_vec()));
    assert!(waited >= Duration::from_millis(400), "it was parked, and woke after {waited:?}");
    assert_eq!(gone(&news(&mut other).await), vec![direct.clone()]);

    // Another edit, of the nested one, and a cursor from the time between.
    put(&mut shop, "nested", "@vips or #g1 and not #g0").await;
    assert_eq!(ids(&news(&mut hand).await), vec![indirect.clone()]);
    let between = hand.cursor.clone();
    put(&mut shop, "vips", "#g0").await;
    assert_eq!(ids(&news(&mut other).await), both);
    let told = [all(&mut hand).await, all(&mut other).await];

    // Whoever was away since before the edits is told the difference, here, at an edge that made its world of a
    // snapshot, and when central made its own of the store.
    for restart in 0..3 {
        if restart == 1 {
            cluster.kill_edge(1);
            cluster.start_edge(1).await;
            for hand in [&mut hand, &mut other] {
                hand.move_to(&cluster.edge(1).plain_url());
            }
        }
        if restart == 2 {
            cluster.kill_edge(1);
            cluster.kill_central();
            cluster.start_central().await;
            cluster.start_edge(1).await;
            shop.admin = cluster.admin();
        }
        (hand.cursor, other.cursor) = (old.clone(), old_other.clone());
        let answer = news(&mut hand).await;
        assert_eq!((ids(&answer), gone(&answer)), (vec![indirect.clone()], vec![]), "{restart}");
        assert!(answer.json()["inventory"].is_null(), "a difference, not all: {answer:?}");
        let answer = news(&mut other).await;
        assert_eq!((ids(&answer), gone(&answer)), (both.to_vec(), vec![]), "{restart}");
        assert!(answer.json()["inventory"].is_null(), "a difference, not all: {answer:?}");
        // Since then the message was changed, through its audience, but not for the first device: it may come again.
        hand.cursor = between.clone();
        let answer = news(&mut hand).await;
        assert_eq!((ids(&answer), gone(&answer)), (vec![indirect.clone()], vec![]), "{restart}");
        assert_eq!([all(&mut hand).await, all(&mut other).await], told, "{restart}");
    }
    let kept = shop.ok("GET", "audiences/nested", Value::Null).await;
    assert_eq!(
        (text(&kept, "expression"), &kept["revision"]),
        ("@vips or #g1 and not #g0", &json!(2))
    );

    // After the restarts edits go on as before.
    hand.settle().await;
    put(&mut shop, "nested", "not all").await;
    assert_eq!(gone(&news(&mut hand).await), [indirect]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_follow_the_edits_of_audiences_on_sqlite() {
    follows(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_follow_the_edits_of_audiences_on_mariadb() {
    follows(Store::MariaDb).await;
}
