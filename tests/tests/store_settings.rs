//! Central on a database server that may lose what it has acknowledged: refused in a sentence that says what to do, or
//! allowed and then said in health.

use std::net::SocketAddr;
use std::process::Command;

use carillon_tests::cluster::{Cluster, Store, ops_get};
use carillon_tests::mariadb::MariaDb;
use serde_json::Value;

async fn durability(at: SocketAddr) -> Value {
    let (status, body) = ops_get(at, "/healthz").await.expect("central answers");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).expect("JSON")["durability"].clone()
}

#[tokio::test]
async fn an_unsafe_store_is_refused_and_named() {
    let server = MariaDb::start();
    let url = server.url("unsafe");
    server.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 2");
    let folder = tempfile::tempdir().expect("a folder");
    let binary = std::env::var_os("CARILLON_BIN").expect("run `make test`");
    let output = Command::new(binary)
        .args(["central", "--central-listen", "127.0.0.1:0"])
        .args(["--central-stream-listen", "127.0.0.1:0", "--central-store", &url])
        .arg("--data")
        .arg(folder.path())
        .output()
        .expect("run carillon");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("innodb_flush_log_at_trx_commit is 2 and must be 1"), "{said}");
    assert!(said.contains("--central-allow-unsafe-store"), "{said}");
}

#[tokio::test]
async fn health_says_whether_what_is_acknowledged_is_safe() {
    let allowed = ["--central-allow-unsafe-store", "true"];
    let mut cluster = Cluster::start_with(Store::MariaDb, &allowed, &[]).await;
    assert_eq!(durability(cluster.admin_address()).await, "safe");
    let server = cluster.mariadb.as_ref().expect("it has one");
    server.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 2");
    cluster.kill_central();
    cluster.start_central().await;
    assert_eq!(durability(cluster.admin_address()).await, "unsafe");
    assert!(cluster.central_log().contains("may lose what it has acknowledged"));
}
