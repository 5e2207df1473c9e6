//! `carillon history`: what it shows is what happened, wherever of the way it is.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use carillon_persist::history::Record;
use carillon_persist::history::kafka::{self, KafkaOptions, Start};
use carillon_tests::admin::{Admin, text};
use carillon_tests::cluster::{Cluster, Store};
use carillon_tests::history::{Archiver, Broker, duckdb};
use serde_json::{Value, json};

use super::{PATIENCE, report};

/// More than a test makes.
const ALL: &str = "--limit=1000000";

fn asked(flags: &[&str]) -> Output {
    let binary = std::env::var_os("CARILLON_BIN").expect("CARILLON_BIN names the executable");
    let mut command = Command::new(binary);
    command.arg("history").args(flags).stdin(Stdio::null());
    command.output().expect("it can be started")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The records that it shows, as JSON.
pub(super) fn records(flags: &[&str]) -> Vec<Record> {
    let output = asked(&[flags, &["--format=json"]].concat());
    assert!(output.status.success(), "{flags:?}: {}", said(&output));
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| Record::from_json(line).expect("a record a line")).collect()
}

fn names(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.event.as_str()).collect()
}

struct Shop {
    app: String,
    admin: Admin,
}

impl Shop {
    async fn open(cluster: &Cluster, name: &str) -> Shop {
        let mut admin = cluster.admin();
        let app = json!({"name": name, "environment": "sandbox"});
        let app = admin.ok("POST", "/v1/apps", app).await;
        Shop { app: text(&app, "id").to_owned(), admin }
    }

    fn path(&self, of: &str) -> String {
        format!("/v1/apps/{}/{of}", self.app)
    }

    async fn devices(&mut self, from: u64, count: u64) {
        let lines: Vec<String> =
            (from..from + count).map(|n| json!({"id": format!("{n:016x}")}).to_string()).collect();
        let request = self.admin.import(&format!("/v1/apps/{}", self.app), &lines);
        let answer = self.admin.send(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    async fn message(&mut self, n: u64) -> String {
        let message = json!({"to": "all", "body": {"n": n}});
        let message = self.admin.ok("POST", &self.path("messages"), message).await;
        text(&message, "id").to_owned()
    }

    async fn recall(&mut self, message: &str) {
        let path = self.path(&format!("messages/{message}:recall"));
        self.admin.ok("POST", &path, Value::Null).await;
    }

    async fn group(&mut self, name: &str) {
        let group = json!({"name": name, "set_by": "server"});
        self.admin.ok("POST", &self.path("groups"), group).await;
    }

    async fn groups(&mut self, device: u64, groups: Value) {
        let path = self.path(&format!("devices/{device:016x}"));
        self.admin.ok("PATCH", &path, json!({"groups": groups})).await;
    }
}

/// Where a cluster's own files are.
fn flags(cluster: &Cluster) -> Vec<String> {
    let mut flags = vec![format!("--data={}", cluster.data().display())];
    flags.extend(
        cluster.mariadb.iter().map(|server| format!("--central-store={}", server.url("carillon"))),
    );
    flags
}

async fn from_the_lake(store: Store) {
    let mut cluster = Cluster::start_with(store, &["--history-flush-every", "1h"], &[]).await;
    let mut shop = Shop::open(&cluster, "shop").await;
    let other = Shop::open(&cluster, "other").await;
    shop.devices(1, 50).await;
    shop.group("vip").await;
    shop.groups(7, json!({"vip": true})).await;
    let (first, second) = (shop.message(1).await, shop.message(2).await);
    shop.recall(&first).await;
    shop.groups(7, json!({"vip": false})).await;
    // What is told then is written before it ends.
    cluster.stop_central();
    let flags = flags(&cluster);
    let ask = |more: &[&str]| {
        let flags: Vec<&str> =
            flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        records(&flags)
    };

    let all = ask(&[ALL]);
    assert!(all.is_sorted_by_key(|record| (record.at, record.id.seq)));
    assert_eq!(names(&all).iter().filter(|name| **name == "device.created").count(), 50);
    let app = format!("--app={}", shop.app);
    let of_app = ask(&[ALL, &app]);
    assert!(of_app.len() < all.len());
    assert_eq!(names(&ask(&[ALL, &format!("--app={}", other.app)])), ["app.changed"]);

    let device = ask(&[&app, "--device=0000000000000007"]);
    assert_eq!(names(&device), ["device.created", "device.changed", "device.changed"]);
    let groups = |record: &Record| serde_json::from_str::<Value>(record.data.get()).expect("JSON");
    assert_eq!(groups(&device[1])["joined"], json!(["vip"]));
    assert_eq!(groups(&device[2])["left"], json!(["vip"]));
    let name = device[0].device.expect("one of a device").to_string();
    assert_eq!(ask(&["--pseudonym", &name]), device);

    let recalled = ask(&[&format!("--message={first}")]);
    assert_eq!(names(&recalled), ["message.created", "message.state"]);
    assert_eq!(names(&ask(&[&format!("--message={second}")])), ["message.created"]);
    assert_eq!(ask(&["--event=message.created"]).len(), 2);

    // A time, itself first, and the end not included.
    let at = recalled[1].at.0.cast_signed();
    let at = carillon_expr::Time::from_ms(at).expect("a time").to_string();
    let (from, until) = (format!("--from={at}"), format!("--until={at}"));
    let split = [ask(&[ALL, &until]), ask(&[ALL, &from])];
    assert_eq!(split.concat(), all);
    assert!(split[1].contains(&recalled[1]) && !split[0].is_empty());
    assert_eq!(ask(&[ALL, "--from=-1h"]), all);
    assert!(ask(&["--until=-1h"]).is_empty());
    assert_eq!(ask(&["--limit=3"]), &all[..3]);
    assert_eq!(ask(&[ALL, "--without-forks"]), all);

    for (more, code, why) in [
        (
            &["--app=0000000000000001", "--device=0000000000000007"][..],
            1,
            "has no pseudonym of device 0000000000000007",
        ),
        (&["--device=0000000000000007"], 2, "--app"),
        (&["--from=noon"], 2, "expected a time"),
        (&["--event=Message"], 2, "the event \"Message\""),
        (
            &["--history-kafka-brokers=127.0.0.1:1", "--history-kafka-timeout=1s"],
            1,
            "find the topic",
        ),
    ] {
        let flags: Vec<&str> =
            flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let output = asked(&flags);
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", said(&output));
        assert!(said(&output).contains(why), "{more:?}: {}", said(&output));
    }
    report(&format!("history of {store:?}: {} events", all.len()));
    forms(&cluster, &flags, &all);
}

/// Each form shows the same, to readers of other makers.
fn forms(cluster: &Cluster, flags: &[String], all: &[Record]) {
    let ask = |format: &str| {
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain([ALL, format]).collect();
        let output = asked(&flags);
        assert!(output.status.success(), "{}", said(&output));
        output.stdout
    };
    let table = cluster.data().join("asked.csv");
    std::fs::write(&table, ask("--format=csv")).expect("a file");
    let rows = duckdb(&format!(
        "select event_seq, event, app, device, data, epoch_ms(time::timestamp) from read_csv('{}', header = true, \
         all_varchar = true, strict_mode = true)",
        table.display()
    ));
    let id = |id: Option<String>| id.map_or(Value::Null, Value::from);
    let expected: Vec<Value> = all
        .iter()
        .map(|record| {
            let app = id(record.app.map(|app| app.to_string()));
            let device = id(record.device.map(|device| device.to_string()));
            let seq = record.id.seq.to_string();
            json!([seq, record.event.as_str(), app, device, record.data.get(), record.at.0])
        })
        .collect();
    assert_eq!(rows, expected);
    let shown = String::from_utf8(ask("--format=text")).expect("UTF-8");
    assert_eq!(shown.lines().count(), all.len());
    for (line, record) in shown.lines().zip(all) {
        assert!(
            line.contains(record.event.as_str()) && line.ends_with(record.data.get()),
            "{line}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_found_in_the_lake_with_sqlite() {
    from_the_lake(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_found_in_the_lake_with_mariadb() {
    from_the_lake(Store::MariaDb).await;
}

/// All that a topic has, of which nothing is forgotten.
async fn topic(kafka: &KafkaOptions) -> Vec<Record> {
    let partitions = kafka::partitions(kafka).await.expect("a broker").expect("a topic");
    let starts: BTreeMap<i32, Start> =
        (0..partitions).map(|n| (i32::from(n), Start::Earliest)).collect();
    let (mut records, _) =
        kafka::rest(kafka, &starts, Vec::new(), |all: &mut Vec<Record>, record| {
            all.push(record);
        })
        .await
        .expect("it can be read");
    records.sort_by_key(|record| (record.at, record.id.shard, record.id.order()));
    records.dedup();
    records
}

fn archiver(folder: &Path, kafka: &KafkaOptions, lake: &str) -> Archiver {
    let flags = [
        ("history-kafka-brokers", kafka.brokers.clone()),
        ("history-kafka-topic", kafka.topic.clone()),
        ("history-lake", lake.to_owned()),
        ("archive-flush-interval", "200ms".to_owned()),
    ];
    Archiver::start(folder, &flags, &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_topic_alone_is_shown_with_the_lake_and_each_record_once() {
    let broker = Broker::start();
    let kafka = KafkaOptions::new(broker.brokers(), broker.topic());
    let central = [
        "--history-to",
        "kafka",
        "--history-kafka-brokers",
        broker.brokers(),
        "--history-kafka-topic",
        &kafka.topic,
    ];
    let mut cluster = Cluster::start_with(Store::Sqlite, &central, &[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let lake = folder.path().join("lake").display().to_string();
    let place = [
        format!("--data={}", cluster.data().display()),
        format!("--history-lake={lake}"),
        format!("--history-kafka-brokers={}", broker.brokers()),
        format!("--history-kafka-topic={}", kafka.topic),
    ];
    let ask = |more: &[&str]| {
        let flags: Vec<&str> =
            place.iter().map(String::as_str).chain(more.iter().copied()).collect();
        records(&flags)
    };
    let mut shop = Shop::open(&cluster, "shop").await;
    shop.devices(1, 30).await;
    let early = shop.message(1).await;
    cluster.stop_central();
    // Without a lake the topic is all, and to ask makes none.
    let first = topic(&kafka).await;
    assert!(first.len() > 30, "{first:?}");
    assert_eq!(ask(&[ALL]), first);
    assert!(!Path::new(&lake).exists());

    let mut archiver = archiver(folder.path(), &kafka, &lake);
    archiver.ready().await;
    let sent = first.len() as u64;
    let arrived = async {
        while archiver.metric("archive_rows_total").await < sent {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.expect("they are archived");
    // While the archiver goes on, records move from one to the other.
    cluster.start_central().await;
    let mut shop = Shop { admin: cluster.admin(), ..shop };
    let mut moved = 0;
    for n in 0..6 {
        shop.devices(100 + 10 * n, 10).await;
        let found = ask(&[ALL]);
        let mut ids: Vec<_> = found.iter().map(|record| record.id.seq).collect();
        ids.sort_unstable();
        assert!(ids.is_sorted_by(|a, b| a < b), "each once: {ids:?}");
        assert!(ids.len() >= first.len() + moved, "nothing is lost on the way");
        moved = ids.len() - first.len();
    }
    assert!(archiver.terminate().success(), "{}", archiver.log());

    // What comes after the archiver's end is in the topic alone.
    shop.recall(&early).await;
    shop.group("vip").await;
    shop.groups(7, json!({"vip": true})).await;
    let late = shop.message(2).await;
    cluster.stop_central();
    let all = topic(&kafka).await;
    let in_lake = records(&[&place[0], &place[1], ALL]);
    assert!(in_lake.len() >= first.len() && in_lake.len() < all.len(), "some are in one alone");
    assert_eq!(ask(&[ALL]), all);
    let app = format!("--app={}", shop.app);
    let device = ask(&[&app, "--device=0000000000000007"]);
    assert_eq!(names(&device), ["device.created", "device.changed"]);
    assert!(in_lake.contains(&device[0]) && !in_lake.contains(&device[1]));
    let message = ask(&[&format!("--message={early}")]);
    assert_eq!(names(&message), ["message.created", "message.state"]);
    assert_eq!(names(&ask(&[&format!("--message={late}")])), ["message.created"]);
    for limit in [1, first.len(), all.len() - 1] {
        assert_eq!(ask(&[&format!("--limit={limit}")]), &all[..limit]);
    }
    let at = carillon_expr::Time::from_ms(message[1].at.0.cast_signed()).expect("a time");
    let (from, until) = (format!("--from={at}"), format!("--until={at}"));
    assert_eq!([ask(&[ALL, &until]), ask(&[ALL, &from])].concat(), all);
    report(&format!(
        "history: {} events, {} of them in the topic alone",
        all.len(),
        all.len() - in_lake.len()
    ));

    // A topic that is not there is made by nobody who asks.
    let none = KafkaOptions::new(broker.brokers(), broker.topic());
    let elsewhere = format!("--history-kafka-topic={}", none.topic);
    assert_eq!(records(&[&place[0], &place[1], &place[2], &elsewhere, ALL]), in_lake);
    assert_eq!(kafka::partitions(&none).await.expect("a broker"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_reads_no_further_ends_it_and_nothing_is_made_where_nothing_is() {
    let mut cluster =
        Cluster::start_with(Store::Sqlite, &["--history-flush-every", "1h"], &[]).await;
    let mut shop = Shop::open(&cluster, "shop").await;
    shop.devices(1, 5000).await;
    cluster.stop_central();
    let binary = std::env::var_os("CARILLON_BIN").expect("CARILLON_BIN names the executable");
    let mut child = Command::new(binary)
        .args(["history", ALL, &flags(&cluster)[0]])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let mut line = String::new();
    let mut out = BufReader::with_capacity(64, child.stdout.take().expect("a pipe"));
    out.read_line(&mut line).expect("a line");
    assert!(line.contains("shard.opened"), "{line}");
    drop(out);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));

    let nowhere = tempfile::tempdir().expect("a folder");
    let data = nowhere.path().join("data");
    let output = asked(&[&format!("--data={}", data.display())]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("neither a lake"), "{}", said(&output));
    let output = asked(&[
        &format!("--data={}", data.display()),
        "--app=0000000000000001",
        "--device=0000000000000002",
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("ask the store"), "{}", said(&output));
    assert!(!data.exists());
}
