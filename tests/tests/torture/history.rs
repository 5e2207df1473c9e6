//! The history: what was committed is in the lake once, whatever becomes of central, the archiver and the broker between
//! them; and a broker that is away holds up nobody.

mod faults;
mod load;
mod outage;
mod trial;

use std::time::Duration;

use carillon_tests::cluster::Store;

use crate::{ROUNDS, number, say, seed};

const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_killed_and_cut_on_sqlite() {
    faults::run(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_killed_and_cut_on_mariadb() {
    faults::run(Store::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_until_a_million_events_wait_holds_up_nobody() {
    outage::run(Store::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_holds_up_nobody_on_sqlite_either() {
    outage::run(Store::Sqlite).await;
}
