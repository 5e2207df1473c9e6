//! From a change to the lake: central alone, with its own files, killed at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use carillon_persist::history::lake::{Lake, LakeOptions, Query};
use carillon_persist::history::{OutboxKept, Record};
use carillon_persist::{AnyStore, Store as _, StoreOptions, StoreUrl};
use carillon_tests::admin::{Admin, text};
use carillon_tests::cluster::{Cluster, Store};
use carillon_tests::process::free_address;
use carillon_world::ShardId;
use serde_json::{Value, json};

use super::{PATIENCE, report};

const KILLS: u64 = 6;
pub(super) const FLAGS: [&str; 2] = ["--history-flush-every", "300ms"];

pub(super) async fn lake(cluster: &Cluster) -> Vec<Record> {
    let url = cluster.data().join("history").display().to_string();
    let lake = Lake::open(&LakeOptions::new(url.parse().expect("an absolute path"))).expect("open");
    let mut records = Vec::new();
    let sink = |record| {
        records.push(record);
        ControlFlow::Continue(())
    };
    lake.read(&Query::first(10_000_000), sink).await.expect("read the lake");
    records.sort_by_key(|record| record.id.order());
    records
}

pub(super) fn store_url(cluster: &Cluster) -> StoreUrl {
    match &cluster.mariadb {
        Some(server) => server.url("carillon").parse().expect("a URL"),
        None => StoreUrl::Sqlite(cluster.data().join("carillon.db")),
    }
}

pub(super) async fn outbox(cluster: &Cluster) -> OutboxKept {
    let options = StoreOptions::default();
    let mut store = AnyStore::open(&store_url(cluster), &options).await.expect("open the store");
    store.load_kept(ShardId::FIRST).await.expect("read it").outbox
}

/// Writes of all kinds until it is told to stop; what central does not answer it does not mind.
pub(super) async fn write(cluster: &Cluster, seconds: Duration) {
    let mut admin = cluster.admin();
    let name = format!("shop {}", rand::random::<u64>());
    let app = json!({"name": name, "environment": "sandbox"});
    let request = admin.request("POST", "/v1/apps", app.to_string());
    let Ok(answer) = admin.try_send(request).await else { return };
    let path = format!("/v1/apps/{}", text(&answer.json(), "id"));
    let until = tokio::time::Instant::now() + seconds;
    let mut n = 0;
    while tokio::time::Instant::now() < until {
        n += 1;
        let device = format!("{:016x}", 1 + n % 300);
        let (method, target, body) = match n % 7 {
            0 => {
                ("POST", "groups".to_owned(), json!({"name": format!("g{n}"), "set_by": "server"}))
            }
            1 | 2 => {
                let lines: Vec<String> = (0..40)
                    .map(|k| json!({"id": format!("{:016x}", 1 + (n * 40 + k) % 300)}).to_string())
                    .collect();
                let mut request =
                    admin.request("POST", &format!("{path}/devices:import"), lines.join("\n"));
                let kind = "application/x-ndjson".parse().expect("a header");
                request.headers_mut().insert("content-type", kind);
                if admin.try_send(request).await.is_err() {
                    return;
                }
                continue;
            }
            3 => ("DELETE", format!("devices/{device}"), Value::Null),
            _ => ("POST", "messages".to_owned(), json!({"to": "all", "body": {"n": n}})),
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = admin.request(method, &format!("{path}/{target}"), body);
        if admin.try_send(request).await.is_err() {
            return;
        }
    }
}

/// Every event that the store ever numbered is there once, and every change was told of once.
pub(super) fn check(records: &[Record], head: u64) {
    let numbers: Vec<u64> = records.iter().map(|record| record.id.seq).collect();
    assert_eq!(numbers, (1..=head).collect::<Vec<_>>(), "each once, in order");
    let changes: Vec<_> = records.iter().filter_map(|record| record.change).collect();
    assert!(changes.is_sorted_by(|a, b| a < b), "each change once, in order");
}

async fn kills(store: Store) {
    let mut cluster = Cluster::start_with(store, &FLAGS, &[]).await;
    for kill in 0..KILLS {
        let writes = write(&cluster, PATIENCE);
        let kill = tokio::time::sleep(Duration::from_millis(300 + kill * 170));
        tokio::select! {
            () = writes => panic!("nothing was killed"),
            () = kill => {}
        }
        cluster.kill_central();
        cluster.start_central().await;
    }
    write(&cluster, Duration::from_millis(500)).await;
    // What is told then is written before it ends.
    cluster.stop_central();
    let kept = outbox(&cluster).await;
    assert_eq!(kept.bytes, 0, "{kept:?}");
    let records = lake(&cluster).await;
    check(&records, kept.head);
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for record in &records {
        *names.entry(record.event.as_str()).or_default() += 1;
    }
    report(&format!("history, {store:?}: {} events after {KILLS} kills: {names:?}", records.len()));
    assert!(records.len() > 1_000, "{names:?}");
    for name in
        ["shard.opened", "app.changed", "device.created", "device.deleted", "message.created"]
    {
        assert!(names.contains_key(name), "{name} in {names:?}");
    }
    // A device that was deleted and came back is somebody else.
    let mut ended = BTreeSet::new();
    for record in &records {
        let Some(device) = record.device else { continue };
        assert!(!ended.contains(&(record.app, device)), "{record:?} after its end");
        if record.event.as_str() == "device.deleted" {
            ended.insert((record.app, device));
        }
    }
    assert!(ended.len() > 20);
    let device_events =
        records.iter().filter(|record| record.event.as_str().starts_with("device."));
    assert!(device_events.into_iter().all(|record| record.device.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_was_committed_is_in_the_lake_once_over_kills_with_sqlite() {
    kills(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_was_committed_is_in_the_lake_once_over_kills_with_mariadb() {
    kills(Store::MariaDb).await;
}

/// Another owner writes, and nobody asks the old one for anything: it ends all the same, and the lake stays the new one's.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_owner_that_was_deposed_hears_of_it_and_leaves_the_lake_alone() {
    let mut cluster = Cluster::start_with(Store::Sqlite, &FLAGS, &[]).await;
    write(&cluster, Duration::from_millis(200)).await;
    let (listen, stream) = (free_address(), free_address());
    let data = cluster.data();
    let store = format!("sqlite:{}", data.join("carillon.db").display());
    let flags = [
        ("--data", data.display().to_string()),
        ("--central-store", store),
        ("--central-listen", listen.to_string()),
        ("--central-stream-listen", stream.to_string()),
        ("--history-flush-every", "300ms".to_owned()),
    ];
    let flags: Vec<&str> = flags.iter().flat_map(|(flag, value)| [*flag, value.as_str()]).collect();
    let mut rival = cluster.beside("rival", "central", &flags);
    rival.ready(listen).await;
    let mut admin = Admin::new(&format!("http://{listen}"), &cluster.admin().token);
    let began = tokio::time::Instant::now();
    for n in 0.. {
        let app = json!({"name": format!("rival {n}"), "environment": "sandbox"});
        admin.ok("POST", "/v1/apps", app).await;
        if cluster.central_ended().is_some() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the old owner goes on\n{}", cluster.central_log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(cluster.central_log().contains("central gives the shard up"));
    rival.stop();
    let kept = outbox(&cluster).await;
    assert_eq!(kept.bytes, 0, "{kept:?}");
    check(&lake(&cluster).await, kept.head);
    assert!(!rival.log().contains("the history cannot be written"), "{}", rival.log());
}
