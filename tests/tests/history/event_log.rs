//! The event log: every event a line, over kills, rotations and places that refuse; and whatever it does, the history and
//! the API go on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use carillon_persist::history::Record;
use carillon_tests::admin::text;
use carillon_tests::cluster::{Cluster, Store, ops_get};
use carillon_tests::history::duckdb;
use carillon_tests::pushes::metric;
use serde_json::{Value, json};

use super::{PATIENCE, report};

const KILLS: u64 = 4;

/// Writes until it is told to stop; what central does not answer it does not mind. Bodies hold what tables stumble over.
async fn write(cluster: &Cluster) {
    let mut admin = cluster.admin();
    let name = format!("shop {}", rand::random::<u64>());
    let app = json!({"name": name, "environment": "sandbox"});
    let request = admin.request("POST", "/v1/apps", app.to_string());
    let Ok(answer) = admin.try_send(request).await else { return };
    let path = format!("/v1/apps/{}", text(&answer.json(), "id"));
    for n in 0.. {
        let (method, target, body) = match n % 4 {
            0 => {
                let lines: Vec<String> = (0..30)
                    .map(|k| json!({"id": format!("{:016x}", n * 30 + k)}).to_string())
                    .collect();
                if admin.try_send(admin.import(&path, &lines)).await.is_err() {
                    return;
                }
                continue;
            }
            1 => ("DELETE", format!("devices/{:016x}", (n - 1) * 30), Value::Null),
            _ => {
                let body = json!({"text": format!("a \"quote\",\r\na line,{n}\u{2028};'")});
                ("POST", "messages".to_owned(), json!({"to": "all", "body": body}))
            }
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = admin.request(method, &format!("{path}/{target}"), body);
        if admin.try_send(request).await.is_err() {
            return;
        }
    }
}

async fn write_for(cluster: &Cluster, time: Duration) {
    tokio::select! {
        () = write(cluster) => panic!("central is away"),
        () = tokio::time::sleep(time) => {}
    }
}

/// What the lake has, by the number of the event.
fn lake(cluster: &Cluster) -> BTreeMap<u64, Record> {
    let data = format!("--data={}", cluster.data().display());
    let records = super::query::records(&[&data, "--limit=1000000"]);
    records.into_iter().map(|record| (record.id.seq, record)).collect()
}

/// The files of a log, the oldest first.
fn files(path: &Path) -> Vec<PathBuf> {
    let numbered = (1..100).rev().map(|n| PathBuf::from(format!("{}.{n}", path.display())));
    numbered.chain([path.to_owned()]).filter(|path| path.exists()).collect()
}

/// Each event is there, those that are there twice the same way, and no other.
fn check(lines: &[Value], records: &BTreeMap<u64, Record>) -> usize {
    let mut seen = BTreeMap::new();
    for line in lines {
        let n = line["n"].as_u64().expect("a number");
        let record = records.get(&n).unwrap_or_else(|| panic!("{line} never was"));
        assert_eq!(line["event"], record.event.as_str());
        assert_eq!(line["epoch"], record.id.epoch.number);
        let data: Value = serde_json::from_str(record.data.get()).expect("JSON");
        assert_eq!(line["data"], data, "{line}");
        assert_eq!(line["device"].is_string(), record.device.is_some(), "{line}");
        let device = line["device"].as_str().unwrap_or("0123456789abcdef");
        assert_eq!(device.len(), 16, "it is the device's own id: {line}");
        let before = seen.insert(n, line.clone());
        assert!(before.is_none_or(|before| before == *line));
    }
    let told: BTreeSet<u64> = seen.keys().copied().collect();
    let all: BTreeSet<u64> = records.keys().copied().collect();
    assert_eq!(told, all, "of {} lines", lines.len());
    lines.len() - told.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_a_line_over_kills_and_rotations() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events.log");
    let to = path.display().to_string();
    let flags = [
        "--history-flush-every",
        "300ms",
        "--event-log-to",
        &to,
        "--event-log-rotate-bytes",
        "100KiB",
        "--event-log-rotate-keep",
        "90",
    ];
    let mut cluster = Cluster::start_with(Store::Sqlite, &flags, &[]).await;
    for kill in 0..KILLS {
        tokio::select! {
            () = write(&cluster) => panic!("nothing was killed"),
            () = tokio::time::sleep(Duration::from_millis(400 + kill * 170)) => {}
        }
        cluster.kill_central();
        cluster.start_central().await;
    }
    write_for(&cluster, Duration::from_millis(500)).await;
    cluster.stop_central();
    let files = files(&path);
    assert!(files.len() > 3, "{files:?}");
    let mut lines = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("UTF-8");
        assert!(text.len() <= 100 << 10 && text.ends_with('\n'), "{} bytes", text.len());
        lines
            .extend(text.lines().map(|line| serde_json::from_str(line).expect("an object a line")));
    }
    let records = lake(&cluster);
    let repeats = check(&lines, &records);
    // Its own last line says what it has.
    assert_eq!(repeats, 0);
    report(&format!(
        "event log: {} lines in {} files after {KILLS} kills",
        lines.len(),
        files.len()
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_read_by_others_and_has_only_what_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events.csv");
    let to = path.display().to_string();
    let flags = [
        "--history-flush-every",
        "300ms",
        "--event-log-to",
        &to,
        "--event-log-format",
        "csv",
        "--event-log-events",
        "message.*,device.deleted",
        "--event-log-device-ids",
        "false",
    ];
    let mut cluster = Cluster::start_with(Store::Sqlite, &flags, &[]).await;
    write_for(&cluster, Duration::from_secs(1)).await;
    cluster.stop_central();
    let rows = duckdb(&format!(
        "select event_seq, event, app, device, message, data from read_csv('{to}', header = true, \
         all_varchar = true, strict_mode = true) order by event_seq::bigint"
    ));
    let id = |id: Option<String>| id.map_or(Value::Null, Value::from);
    let records = lake(&cluster);
    let wanted = records.values().filter(|record| {
        record.event.as_str().starts_with("message.") || record.event.as_str() == "device.deleted"
    });
    let expected: Vec<Value> = wanted
        .map(|record| {
            let app = id(record.app.map(|app| app.to_string()));
            let device = id(record.device.map(|device| device.to_string()));
            let message = id(record.message.map(|message| message.to_string()));
            let seq = record.id.seq.to_string();
            json!([seq, record.event.as_str(), app, device, message, record.data.get()])
        })
        .collect();
    assert!(expected.len() > 10 && expected.len() < records.len());
    assert_eq!(rows, expected);
}

/// A place that takes nothing: full, or a pipe that nobody reads.
async fn refusing(to: &str, is_ended: bool) {
    let flags = ["--history-flush-every", "300ms", "--event-log-to", to];
    let mut cluster = Cluster::start_with(Store::Sqlite, &flags, &[]).await;
    write_for(&cluster, Duration::from_secs(1)).await;
    let metrics =
        || async { ops_get(cluster.admin_address(), "/metrics").await.expect("metrics").1 };
    let all_told = async {
        loop {
            let told = metrics().await;
            let of = |name: &str| metric(&told, name).expect("it is counted");
            if of("central_history_events_total") > 100 && of("central_outbox_bytes") == 0 {
                return (of("central_event_log_lost_total"), of("central_event_log_lines_total"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (lost, written) =
        tokio::time::timeout(PATIENCE, all_told).await.expect("the history goes on");
    assert_eq!(written, 0);
    if is_ended {
        assert!(lost > 100, "{lost}");
    }
    cluster.stop_central();
    let log = cluster.central_log();
    assert!(log.contains("the event log"), "{log}");
    assert!(lake(&cluster).len() > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_lines_that_are_counted_and_nothing_else() {
    refusing("/dev/full", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_nobody_reads_holds_up_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    refusing(&pipe.display().to_string(), false).await;
}
