//! What the history says, and what it should.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use carillon_persist::history::lake::{Lake, LakeOptions, Query};
use carillon_persist::history::{OutboxKept, Record};
use carillon_persist::{AnyStore, Store as _, StoreOptions};
use carillon_world::ShardId;

use crate::cluster::Cluster;

/// All records of the lake in a folder, in the order of the shard.
///
/// # Panics
/// If there is none, or it cannot be read.
pub async fn read_lake(folder: &Path) -> Vec<Record> {
    let place = folder.display().to_string();
    let options = LakeOptions::new(place.parse().expect("an absolute path"));
    let lake = Lake::open(&options).expect("options that work");
    let mut records = Vec::new();
    let sink = |record| {
        records.push(record);
        ControlFlow::Continue(())
    };
    lake.read(&Query::first(100_000_000), sink).await.expect("read the lake");
    records.sort_by_key(|record| record.id.order());
    records
}

/// What the store says of its outbox; for SQLite not while central runs.
///
/// # Panics
/// If it cannot be asked.
pub async fn outbox(cluster: &Cluster) -> OutboxKept {
    let url = cluster.store_url().parse().expect("a URL");
    let options = StoreOptions::default();
    let mut store = AnyStore::open(&url, &options).await.expect("open the store");
    store.load_kept(ShardId::FIRST).await.expect("read it").outbox
}

/// Every event that the store ever numbered, up to `head`, is there once, and every change was told of once.
///
/// # Panics
/// If that is not so.
pub fn check_told(records: &[Record], head: u64) {
    for (record, n) in records.iter().zip(1..) {
        assert_eq!(record.id.seq, n, "each once, in order: {record:?}");
    }
    assert_eq!(records.len() as u64, head, "all that was committed, and nothing else");
    let changes: Vec<_> = records.iter().filter_map(|record| record.change).collect();
    assert!(changes.is_sorted_by(|a, b| a < b), "each change once, in order");
}

/// How many there are of each event.
pub fn by_name(records: &[Record]) -> BTreeMap<&str, u64> {
    let mut names = BTreeMap::new();
    for record in records {
        *names.entry(record.event.as_str()).or_default() += 1;
    }
    names
}
