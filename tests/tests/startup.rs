//! What a damaged or newer store makes of a start: a sentence that names the row and says what to do.

use std::path::Path;
use std::process::Command;

use carillon_tests::admin::text;
use carillon_tests::cluster::{Cluster, Store};
use serde_json::{Value, json};

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
            let file = cluster.data().join("carillon.db");
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
    let message = json!({"to": "all", "body": 1});
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
        ("DELETE FROM message_revisions", "", vec!["table messages", message.as_str()]),
        ("DELETE FROM lineage", "", vec!["table lineage", "it is empty"]),
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

/// Many devices make the log say how far the load is, and are all there.
#[tokio::test]
async fn a_store_is_loaded_by_as_many_as_are_asked_for() {
    for loaders in ["1", "5"] {
        let mut cluster =
            Cluster::start_with(Store::Sqlite, &["--central-store-loaders", loaders], &[]).await;
        let mut admin = cluster.admin();
        let app = json!({"name": "a", "environment": "sandbox"});
        let app = admin.ok("POST", "/v1/apps", app).await;
        let path = format!("/v1/apps/{}", text(&app, "id"));
        let lines: String = (1..=40_000).map(|id| format!("{{\"id\":\"{id:016x}\"}}\n")).collect();
        let request = admin.request("POST", &format!("{path}/devices:import"), lines);
        assert_eq!(admin.send(request).await.json()["created"], 40_000);
        let before = admin.ok("GET", &path, Value::Null).await["usage"].clone();
        cluster.kill_central();
        cluster.start_central().await;
        let after = cluster.admin().ok("GET", &path, Value::Null).await["usage"].clone();
        assert_eq!(after, before);
    }
}
