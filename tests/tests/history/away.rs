//! A lake that is away for a while: callers, callbacks and the event log do not notice, nothing is forgotten, and all of it
//! comes there in the end.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use carillon_persist::history::Record;
use carillon_persist::history::lake::{Lake, Query};
use carillon_tests::admin::text;
use carillon_tests::callbacks::Receiver;
use carillon_tests::cluster::{Cluster, Store, ops_get};
use carillon_tests::history::{S3, check_told, outbox};
use carillon_tests::proxy::{Arrivals, Faults, Proxy};
use carillon_tests::pushes::metric;
use serde_json::json;

use super::central::write;
use super::{PATIENCE, report};

const WRITES: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_is_away_holds_up_nobody_and_has_all_in_the_end() {
    let s3 = S3::start();
    let options = s3.lake("away");
    let proxy = Proxy::start(s3.address()).await;
    let (url, endpoint) = (options.url.to_string(), format!("http://{}", proxy.address()));
    let (key_id, secret) = s3.credentials();
    let folder = tempfile::tempdir().expect("a folder");
    let secret_file = folder.path().join("secret").display().to_string();
    std::fs::write(&secret_file, secret).expect("write the secret");
    let mut flags = vec!["--history-lake", &url, "--history-flush-every", "200ms"];
    flags.extend(["--history-s3-endpoint", &endpoint, "--history-s3-region", "us-east-1"]);
    flags.extend(["--history-s3-key-id", key_id, "--history-s3-secret-file", &secret_file]);
    flags.extend(["--history-s3-path-style", "true", "--history-s3-allow-http", "true"]);
    let receiver = Receiver::start().await;
    let own = receiver.flags();
    flags.extend(own.iter().map(String::as_str));
    let log = folder.path().join("events.log").display().to_string();
    flags.extend(["--event-log-to", &log]);
    let mut cluster = Cluster::start_with(Store::Sqlite, &flags, &[]).await;
    write(&cluster, WRITES).await;
    let mut admin = cluster.admin();
    let app = admin.ok("POST", "/v1/apps", json!({"name": "b", "environment": "sandbox"})).await;
    let app = format!("/v1/apps/{}", text(&app, "id"));
    let endpoint = json!({"url": receiver.url("/a"), "events": ["group.changed"]});
    admin.ok("POST", &format!("{app}/callbacks"), endpoint).await;
    until(&cluster, "central_outbox_bytes", |bytes| bytes == 0).await;

    proxy.set(Faults { arrivals: Arrivals::Refused, ..Faults::default() });
    proxy.reset_all();
    write(&cluster, WRITES).await;
    let waited = until(&cluster, "central_outbox_bytes", |bytes| bytes > 0).await;
    // Tried in vain, with all that it had.
    until(&cluster, "central_history_failures_total", |failures| failures > 1).await;
    let named = "told-while-it-is-away";
    let group = json!({"name": named, "set_by": "server"});
    admin.ok("POST", &format!("{app}/groups"), group).await;
    let began = Instant::now();
    let lines = || std::fs::read_to_string(&log).expect("an event log");
    while receiver.answered() == 0 || !lines().contains(named) {
        assert!(
            began.elapsed() < PATIENCE,
            "{} calls, {} bytes",
            receiver.answered(),
            lines().len()
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let still = until(&cluster, "central_outbox_bytes", |_| true).await;
    assert!(still >= waited, "{still} of {waited} bytes wait");

    proxy.set(Faults::default());
    until(&cluster, "central_outbox_bytes", |bytes| bytes == 0).await;
    let (name, calls) = (receiver.all()[0].json()["data"]["name"].clone(), receiver.answered());
    assert_eq!((name, calls), (json!(named), 1), "told once");
    cluster.stop_central();
    let lines = lines();
    let told = lines.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let numbers: Vec<u64> =
        told.map(|line: serde_json::Value| line["n"].as_u64().expect("n")).collect();
    assert!(numbers.is_sorted_by(|a, b| a + 1 == *b), "a line an event");
    let lake = Lake::open(&options).expect("options that work");
    let mut records: Vec<Record> = Vec::new();
    let sink = |record| {
        records.push(record);
        ControlFlow::Continue(())
    };
    lake.read(&Query::first(10_000_000), sink).await.expect("read the lake");
    records.sort_by_key(|record| record.id.order());
    check_told(&records, outbox(&cluster).await.head);
    report(&format!("history, lake away: {waited} bytes waited, {} events", records.len()));
    assert!(records.len() > 500, "{}", records.len());
}

/// Waits until a metric of central is right; gives its value.
async fn until(cluster: &Cluster, name: &str, is_right: impl Fn(u64) -> bool) -> u64 {
    let began = Instant::now();
    loop {
        let (_, metrics) = ops_get(cluster.admin_address(), "/metrics").await.expect("it answers");
        let value = metric(&metrics, name).expect("a metric of central's");
        if is_right(value) {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "{name} is {value}\n{}", cluster.central_log());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
