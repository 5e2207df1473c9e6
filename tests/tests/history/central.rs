//! From a change to the lake: central alone, with its own files, killed at any moment.

use std::collections::BTreeSet;
use std::time::Duration;

use carillon_persist::history::Record;
use carillon_tests::admin::{Admin, text};
use carillon_tests::cluster::{Cluster, Store};
use carillon_tests::history::{by_name, check_told, outbox, read_lake};
use carillon_tests::process::free_address;
use serde_json::{Value, json};

use super::{PATIENCE, report};

const KILLS: u64 = 6;
pub(super) const FLAGS: [&str; 2] = ["--history-flush-every", "300ms"];

pub(super) async fn lake(cluster: &Cluster) -> Vec<Record> {
    read_lake(&cluster.data().join("history")).await
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
                if admin.try_send(admin.import(&path, &lines)).await.is_err() {
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
    check_told(&records, kept.head);
    let names = by_name(&records);
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
    let flags = [
        ("--data", cluster.data().display().to_string()),
        ("--central-store", cluster.store_url()),
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
    check_told(&lake(&cluster).await, kept.head);
    assert!(!rival.log().contains("the history cannot be written"), "{}", rival.log());
}
