//! Stores whose settings may lose what was acknowledged.

use std::path::Path;

use carillon_persist::{SqliteStore, Store, StoreError, StoreOptions};
use carillon_tests::mariadb::MariaDb;

use crate::open;
use crate::suite::{DATABASE, claim, options};

pub(crate) async fn a_server_that_may_lose_commits_is_refused_unless_allowed(server: &MariaDb) {
    for (set, reset, name) in [
        (
            "SET GLOBAL innodb_flush_log_at_trx_commit = 2",
            "SET GLOBAL innodb_flush_log_at_trx_commit = 1",
            "innodb_flush_log_at_trx_commit is 2 and must be 1",
        ),
        (
            "SET GLOBAL read_only = ON",
            "SET GLOBAL read_only = OFF",
            "read_only is ON and must be OFF",
        ),
    ] {
        server.sql(set);
        let error = open(server, DATABASE, &options()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unsafe { .. }), "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(error.to_string().contains("allow-unsafe-store"), "{error}");
        let allowed = StoreOptions { allow_unsafe: true, ..options() };
        let store = open(server, DATABASE, &allowed).await.unwrap();
        assert_eq!(store.unsafe_settings().len(), 1, "{:?}", store.unsafe_settings());
        server.sql(reset);
    }
    let store = open(server, DATABASE, &options()).await.unwrap();
    assert_eq!(store.unsafe_settings(), []);
}

/// A server may be restarted with other settings under an owner that runs.
pub(crate) async fn a_server_that_becomes_unsafe_is_noticed_at_the_next_connection(
    server: &mut MariaDb,
) {
    let shard = carillon_world::ShardId::new(14);
    let mut store = open(&*server, DATABASE, &options()).await.unwrap();
    store.begin_epoch(shard, claim(1)).await.unwrap();
    server.restart();
    server.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 0");
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let error = store.begin_epoch(shard, claim(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unsafe { .. }), "{error:?}");
    server.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 1");
    store.begin_epoch(shard, claim(2)).await.unwrap();
}

#[tokio::test]
async fn a_database_without_a_file_is_refused() {
    let error = SqliteStore::open(Path::new(":memory:"), &options()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unsafe { .. }), "{error:?}");
    assert!(error.to_string().contains("journal_mode is memory"), "{error}");
    assert!(!Path::new(":memory:").exists(), "nor is one made");
}
