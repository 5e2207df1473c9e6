//! Central at its start: what a damaged or newer store makes of it (a sentence that names the row and says what to
//! do), who reads the store, and how far it is for those who wait.

use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use carillon_tests::admin::text;
use carillon_tests::cluster::{Cluster, Store};
use carillon_tests::mariadb::MariaDb;
use carillon_tests::proxy::{Drip, Faults, Flow, Proxy};
use serde_json::{Value, json};

const DEVICES: u64 = 40_000;

/// Runs `carillon central` to its end and gives what it says on standard error.
fn start(data: &Path, store: Option<&str>) -> String {
    let binary = std::env::var_os("CARILLON_BIN")
        .expect("CARILLON_BIN names the executable; run `make test`");
    let mut command = Command::new(binary);
    command.args(["central", "--data", data.to_str().expect("UTF-8"), "--log-filter", "error"]);
    command.args(["--central-listen", "127.0.0.1:0", "--central-stream-listen", "127.0.0.1:0"]);
    command.args(store.iter().flat_map(|url| ["--central-store", *url]));
    let output = command.output().expect("run carillon");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    told
}

fn sql(cluster: &Cluster, statement: &str) {
    match &cluster.mariadb {
        Some(server) => drop(server.sql(&format!("USE carillon; {statement}"))),
        None => {
            let file = cluster.store_file();
            let connection = rusqlite::Connection::open(file).expect("central's file");
            connection.execute_batch(statement).expect("a statement");
        }
    }
}

async fn refused(store: Store) {
    let mut cluster = Cluster::start(store, 0).await;
    let mut admin = cluster.admin();
    let app = admin.ok("POST", "/v1/apps", json!({"name": "a", "environment": "sandbox"})).await;
    let path = format!("/v1/apps/{}", text(&app, "id"));
    let line = "{\"id\":\"00000000000000d1\"}\n";
    let request = admin.request("POST", &format!("{path}/devices:import"), line);
    assert_eq!(admin.send(request).await.json()["created"], 1);
    let plan = json!({"type": "string"});
    admin.ok("PUT", &format!("{path}/attributes/plan"), plan).await;
    let message = json!({"to": "plan == \"pro\"", "body": 1});
    let message = admin.ok("POST", &format!("{path}/messages"), message).await;
    let message = text(&message, "id").to_owned();
    cluster.stop_central();
    let url = cluster.mariadb.as_ref().map(|server| server.url("carillon"));
    let advice = "restore a backup";
    let device = "device 00000000000000d1";
    for (damage, mend, says) in [
        (
            "UPDATE devices SET attributes = 'x'",
            "UPDATE devices SET attributes = '{}'",
            vec!["table devices", device],
        ),
        (
            "UPDATE devices SET app = 7",
            "UPDATE devices SET app = (SELECT app FROM apps)",
            vec!["table devices", device, "app 0000000000000007"],
        ),
        (
            "UPDATE devices SET p_seq = 9000",
            "UPDATE devices SET p_seq = generation_seq",
            vec!["table devices", device, "changed at 9000"],
        ),
        (
            "UPDATE attributes SET deleted = 1",
            "UPDATE attributes SET deleted = 0",
            vec!["rows of shard 0", message.as_str(), "no attribute with the id"],
        ),
        ("DELETE FROM message_revisions", "", vec!["table messages", message.as_str()]),
        ("DELETE FROM lineage", "", vec!["table lineage", "it is empty"]),
        (
            "ALTER TABLE device_seen RENAME COLUMN hour TO hours",
            "ALTER TABLE device_seen RENAME COLUMN hours TO hour",
            vec!["table device_seen", "no column hour:"],
        ),
        ("ALTER TABLE receipts RENAME TO elsewhere", "", vec!["table receipts", "it is missing"]),
    ] {
        sql(&cluster, damage);
        let told = start(&cluster.data(), url.as_deref());
        for part in says.iter().chain([&advice]) {
            assert!(told.contains(part), "{damage}: {part} is not in {told}");
        }
        assert_eq!(told.trim().lines().count(), 1, "one sentence: {told}");
        if !mend.is_empty() {
            sql(&cluster, mend);
        }
    }
    sql(&cluster, "INSERT INTO schema_version (version, name) VALUES (99, 'from the future')");
    let told = start(&cluster.data(), url.as_deref());
    assert!(
        told.contains("version 99") && told.contains("start the release that migrated it"),
        "{told}"
    );
}

#[tokio::test]
async fn a_store_that_cannot_be_loaded_is_told_with_advice_on_sqlite() {
    refused(Store::Sqlite).await;
}

#[tokio::test]
async fn a_store_that_cannot_be_loaded_is_told_with_advice_on_mariadb() {
    refused(Store::MariaDb).await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told_with_advice() {
    let mut cluster = Cluster::start(Store::Sqlite, 0).await;
    cluster.stop_central();
    let file = cluster.store_file();
    let whole = std::fs::read(&file).expect("central's file");
    assert!(whole.len() > 8192 && !file.with_extension("db-wal").exists(), "a closed database");
    for (from, says) in [(4096, "malformed"), (0, "not a database")] {
        let open = std::fs::File::options().write(true).open(&file).expect("central's file");
        open.write_all_at(&vec![0xff; whole.len() - from], from as u64).expect("write");
        let told = start(&cluster.data(), None);
        for part in ["the database itself is damaged", "restore a backup", says] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
        std::fs::write(&file, &whole).expect("write");
        for beside in ["db-wal", "db-shm"] {
            drop(std::fs::remove_file(file.with_extension(beside)));
        }
    }
    cluster.start_central().await;
}

/// Many devices, which are all there whoever reads them.
#[tokio::test]
async fn a_store_is_loaded_by_as_many_as_are_asked_for() {
    for loaders in ["1", "5"] {
        let mut cluster =
            Cluster::start_with(Store::Sqlite, &["--central-store-loaders", loaders], &[]).await;
        let path = import(&cluster).await;
        let before = cluster.admin().ok("GET", &path, Value::Null).await["usage"].clone();
        cluster.kill_central();
        cluster.start_central().await;
        let after = cluster.admin().ok("GET", &path, Value::Null).await["usage"].clone();
        assert_eq!(after, before);
    }
}

/// Imports so many devices that they are read in several parts. Gives the path of their app.
async fn import(cluster: &Cluster) -> String {
    let mut admin = cluster.admin();
    let app = json!({"name": "a", "environment": "sandbox"});
    let app = admin.ok("POST", "/v1/apps", app).await;
    let path = format!("/v1/apps/{}", text(&app, "id"));
    let lines: String = (1..=DEVICES).map(|id| format!("{{\"id\":\"{id:016x}\"}}\n")).collect();
    let request = admin.request("POST", &format!("{path}/devices:import"), lines);
    assert_eq!(admin.send(request).await.json()["created"], DEVICES);
    path
}

/// The store is some seconds of dripping bytes away, so that there is something to say.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_takes_long_says_how_far_it_is_in_the_log_and_at_a_terminal() {
    let mut cluster = Cluster::start(Store::MariaDb, 0).await;
    let path = import(&cluster).await;
    let before = cluster.admin().ok("GET", &path, Value::Null).await["usage"].clone();
    cluster.stop_central();
    let server = cluster.mariadb.as_ref().expect("it has one");
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let drip = Some(Drip { bytes: 32 << 10, every: Duration::from_millis(50) });
    proxy.set(Faults { down: Flow { drip, ..Flow::default() }, ..Faults::default() });
    let url = through(&proxy, server);

    let flags = ["--central-store", &url, "--central-store-loaders", "1"];
    cluster.start_central_with(&flags).await;
    let log = cluster.central_log();
    let mut told = log.lines().filter(|line| line.contains("the shard is loading"));
    let line: Value = serde_json::from_str(told.next().expect("told")).expect("JSON");
    let line = if line["fields"].is_object() { &line["fields"] } else { &line };
    let (rows, expected) = (line["rows"].as_u64(), line["expected"].as_u64());
    assert!(rows.is_some_and(|rows| (1_000..DEVICES).contains(&rows)), "{line}");
    // The server's own guess of its rows.
    assert!(expected.is_some_and(|rows| (DEVICES / 2..DEVICES * 2).contains(&rows)), "{line}");
    let after = cluster.admin().ok("GET", &path, Value::Null).await["usage"].clone();
    assert_eq!(after, before);
    cluster.stop_central();

    let data = cluster.data();
    let shown = tokio::task::spawn_blocking(move || at_a_terminal(&data, &url));
    let shown = shown.await.expect("it ends");
    assert!(shown.contains("loading") && shown.contains(" rows"), "{shown}");
    assert!(!shown.contains("the shard is loading"), "the bar is enough: {shown}");
}

fn through(proxy: &Proxy, server: &MariaDb) -> String {
    let port = format!(":{}/", server.port());
    server.url("carillon").replace(&port, &format!(":{}/", proxy.address().port()))
}

/// What `carillon central` shows at a terminal, up to the bar or to its end.
fn at_a_terminal(data: &Path, store: &str) -> String {
    let binary = std::env::var("CARILLON_BIN").expect("CARILLON_BIN names the executable");
    let central = format!(
        "stty cols 120 && exec {binary} central --data {} --central-store '{store}' --central-store-loaders 1 \
         --central-listen 127.0.0.1:0 --central-stream-listen 127.0.0.1:0",
        data.display()
    );
    let mut command = Command::new("script");
    command.args(["-qfec", &central, "/dev/null"]).env("TERM", "xterm");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut script = command.spawn().expect("run script");
    let mut out = script.stdout.take().expect("piped");
    let (mut shown, mut piece) = (Vec::new(), [0; 4096]);
    let text = loop {
        let read = out.read(&mut piece).expect("read");
        shown.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&shown);
        if read == 0 || text.contains(" rows") {
            break text.into_owned();
        }
    };
    // Both fail only if it has ended; what runs in it ends with its terminal.
    let _ = script.kill();
    let _ = script.wait();
    text
}
