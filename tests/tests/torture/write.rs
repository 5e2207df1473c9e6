//! The write path: what is acknowledged is there, what is not is whole or absent, and nothing is applied twice.

mod check;
mod cuts;
mod device;
mod kills;
mod operations;
mod state;
mod trace;
mod wal;
mod writer;

use std::time::Duration;

use carillon_tests::cluster::Store;

use crate::{ROUNDS, number, say, seed};

const PATIENCE: Duration = Duration::from_secs(60);
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn central_is_killed_on_sqlite() {
    kills::run(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn central_is_killed_on_mariadb() {
    kills::run(Store::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_are_cut_before_their_reply() {
    cuts::run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledgement_leaves_before_its_sync() {
    trace::run().await;
}
