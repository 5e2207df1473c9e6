//! Central killed at any moment while apps live: every event that is wanted comes, under the id that the history has for it,
//! and none that is not.

use std::collections::BTreeSet;
use std::time::Duration;

use carillon_persist::history::Record;
use carillon_tests::callbacks::{Behaviour, verify};
use carillon_tests::cluster::{Cluster, Store};
use carillon_tests::history::read_lake;
use serde_json::{Value, json};

use crate::PATIENCE;
use crate::bench::{Bench, Endpoint, is_idle, new_app};

const KILLS: u64 = 6;
const FLAGS: [&str; 2] = ["--history-flush-every", "300ms"];

/// Writes in both apps until central is killed.
async fn write(cluster: &Cluster, apps: [&str; 2], until: Duration) {
    let mut admin = cluster.admin();
    let until = tokio::time::Instant::now() + until;
    let mut n = 0_u64;
    while tokio::time::Instant::now() < until {
        n += 1;
        let path = apps[usize::from(n.is_multiple_of(3))];
        let request = match n % 5 {
            0 => admin.request(
                "POST",
                &format!("{path}/groups"),
                json!({"name": format!("g{:x}", rand::random::<u64>())}).to_string(),
            ),
            1 => {
                let lines: Vec<String> = (0..5)
                    .map(|_| json!({"id": format!("{:016x}", rand::random::<u64>())}).to_string())
                    .collect();
                admin.import(path, &lines)
            }
            _ => admin.request(
                "POST",
                &format!("{path}/messages"),
                json!({"to": "all", "body": {"n": n}}).to_string(),
            ),
        };
        if admin.try_send(request).await.is_err() {
            return;
        }
    }
}

/// The number of the event that made an endpoint.
fn made_at(records: &[Record], endpoint: &Endpoint) -> u64 {
    let id = endpoint.path.rsplit('/').next().expect("a path");
    let is_it = |record: &&Record| {
        let data: Value = serde_json::from_str(record.data.get()).expect("JSON");
        record.event.as_str() == "callback.changed" && data["callback"] == id
    };
    records.iter().find(is_it).expect("it is told").id.seq
}

async fn kills(store: Store) {
    let mut bench = Bench::start(store, &FLAGS).await;
    let other = new_app(&mut bench.admin, "other").await;
    let mine = bench.endpoint("/mine", &["message.*", "device.created"]).await;
    let groups = bench.endpoint("/groups", &["group.changed"]).await;
    let (app, apps) = (bench.app.clone(), [bench.app.clone(), other.clone()]);
    bench.app = other;
    let theirs = bench.endpoint("/theirs", &["message.created"]).await;
    // Slow enough that it is behind when central is killed.
    bench.receiver.behave("/mine", Behaviour::Slow(Duration::from_millis(15)));
    for kill in 0..KILLS {
        let writes = write(&bench.cluster, [&apps[0], &apps[1]], PATIENCE);
        let kill = tokio::time::sleep(Duration::from_millis(300 + kill * 170));
        tokio::select! {
            () = writes => panic!("nothing was killed"),
            () = kill => {}
        }
        bench.cluster.kill_central();
        bench.cluster.start_central().await;
    }
    write(&bench.cluster, [&apps[0], &apps[1]], Duration::from_millis(500)).await;
    bench.admin = bench.cluster.admin();
    // What is told last is logged once the outbox was read, and the API may look before that.
    let last = bench.messages(1).await;
    bench.app = app;
    let last_of_mine = bench.messages(1).await;
    for (at, id) in [("/theirs", &last[0]), ("/mine", &last_of_mine[0])] {
        let began = std::time::Instant::now();
        while !bench.receiver.received(at).iter().any(|call| call.json()["data"]["message"] == **id)
        {
            assert!(
                began.elapsed() < PATIENCE,
                "{id} does not come\n{}",
                bench.cluster.central_log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for endpoint in [&mine, &groups, &theirs] {
        let found = bench.until(endpoint, is_idle).await;
        assert_eq!((&found["failed"], &found["missed"]), (&json!(0), &json!(0)), "{found}");
    }
    bench.cluster.stop_central();
    let records = read_lake(&bench.cluster.data().join("history")).await;
    let mut all = 0;
    for (at, endpoint, app, events) in [
        ("/mine", &mine, &apps[0], &["message.created", "message.state", "device.created"][..]),
        ("/groups", &groups, &apps[0], &["group.changed"]),
        ("/theirs", &theirs, &apps[1], &["message.created"]),
    ] {
        let since = made_at(&records, endpoint);
        let is_wanted = |record: &&Record| {
            let is_theirs = record.app.is_some_and(|of| app.ends_with(&of.to_string()));
            let name = record.event.as_str();
            let is_named =
                events.contains(&name) || (at == "/mine" && name.starts_with("message."));
            is_theirs && is_named && record.id.seq > since
        };
        let id = |record: &Record| {
            let of = record.id;
            format!("{}-{}-{:016x}-{}", of.shard, of.epoch.number, of.epoch.tag, of.seq)
        };
        let wanted: BTreeSet<String> = records.iter().filter(is_wanted).map(id).collect();
        let calls = bench.receiver.received(at);
        let received: BTreeSet<String> = calls.iter().map(|call| call.id().to_owned()).collect();
        let lacking: Vec<_> = wanted.difference(&received).collect();
        let unwanted: Vec<_> = received.difference(&wanted).collect();
        assert!(lacking.is_empty() && unwanted.is_empty(), "{at}: {lacking:?} {unwanted:?}");
        assert!(wanted.len() > 50, "{at}: {}", wanted.len());
        all += calls.len();
        let signed: Vec<_> = calls.iter().map(|call| (call, &*endpoint.secret)).collect();
        assert!(verify(&signed).iter().all(Option::is_none), "{at}");
        // What comes twice is the same.
        for call in &calls {
            let first = calls.iter().find(|of| of.id() == call.id()).expect("itself");
            assert_eq!(first.body, call.body);
        }
        report(&format!(
            "callbacks, {store:?}, {at}: {} events in {} calls",
            wanted.len(),
            calls.len()
        ));
    }
    assert!(all > 300, "{all}");
}

#[expect(clippy::print_stdout, reason = "how much was done")]
fn report(line: &str) {
    println!("{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wanted_event_comes_and_no_other_over_kills_with_sqlite() {
    kills(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wanted_event_comes_and_no_other_over_kills_with_mariadb() {
    kills(Store::MariaDb).await;
}
