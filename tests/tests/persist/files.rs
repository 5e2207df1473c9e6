//! The files of the embedded store.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use carillon_persist::{AnyStore, EpochClaim, Store as _, StoreOptions, StoreUrl};
use carillon_world::ShardId;

fn modes(folder: &Path) -> Vec<(String, u32)> {
    let mut modes: Vec<(String, u32)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, entry.metadata().unwrap().permissions().mode() & 0o777)
        })
        .collect();
    modes.sort();
    modes
}

async fn open(file: &Path) -> AnyStore {
    let url = StoreUrl::Sqlite(file.to_owned());
    let mut store = AnyStore::open(&url, &StoreOptions::default()).await.unwrap();
    let claim = EpochClaim { tag: 1, held: None, number_min: 0, fork: false };
    store.begin_epoch(ShardId::FIRST, claim).await.unwrap();
    store
}

#[tokio::test]
async fn the_embedded_store_is_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("carillon.db");
    let store = open(&file).await;
    let wanted = ["carillon.db", "carillon.db-shm", "carillon.db-wal"];
    assert_eq!(modes(folder.path()), wanted.map(|name| (name.to_owned(), 0o600)));
    drop(store);
    // An operator may let a group read a backup, say; that is not taken back.
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let _store = open(&file).await;
    assert_eq!(modes(folder.path()), wanted.map(|name| (name.to_owned(), 0o640)));
}

/// Whoever asks whether a batch would be taken must not be told the time instead.
#[tokio::test]
async fn a_file_that_another_process_has_locked_tells_the_time_but_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("carillon.db");
    let options =
        StoreOptions { connect_timeout: Duration::from_millis(50), ..StoreOptions::default() };
    let mut store = AnyStore::open(&StoreUrl::Sqlite(file.clone()), &options).await.unwrap();
    store.ping().await.unwrap();
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.clock().await.unwrap();
    store.ping().await.unwrap_err();
    other.execute_batch("ROLLBACK").unwrap();
    store.ping().await.unwrap();
}
