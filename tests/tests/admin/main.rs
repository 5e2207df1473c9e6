//! Central's admin API end to end: the real executable, its own processes, both stores; each endpoint with good and bad
//! input, and what holds when the store or central itself goes away.
//!
//! `CARILLON_BIN` names the executable; `make test` builds it first.

mod audiences;
mod bench;
mod callbacks;
mod devices;
mod document;
mod exposed;
mod expressions;
mod faults;
mod funnel;
mod generic;
mod health;
mod idempotency;
mod import;
mod lists;
mod members;
mod messages;
mod oversize;
mod push;
mod quotas;
mod schema;
mod windows;
mod wire;
mod writers;

use carillon_tests::cluster::{Cluster, Store};

use crate::bench::{Bench, say};

/// Every operation with good and bad input. One cluster for all, because starting one takes longer than most checks.
async fn endpoints(store: Store) {
    // A tick of the clock is a change that no call made.
    let central = ["--central-clock-tick", "1h"];
    let mut bench = Bench::new(Cluster::start_with(store, &central, &[&[]]).await).await;
    generic::check(&mut bench).await;
    health::check(&mut bench).await;
    schema::check(&mut bench).await;
    quotas::check(&mut bench).await;
    members::check(&mut bench).await;
    devices::check(&mut bench).await;
    import::check(&mut bench).await;
    messages::check(&mut bench).await;
    expressions::check(&mut bench).await;
    audiences::check(&mut bench).await;
    oversize::check(&mut bench).await;
    push::check(&mut bench).await;
    callbacks::check(&mut bench).await;
    lists::check(&mut bench).await;
    windows::check(&mut bench).await;
    funnel::check(&mut bench).await;
    idempotency::check(&mut bench).await;
    // What all of that left behind is durable, to the last byte.
    let before = bench.everything().await;
    bench.cluster.kill_central();
    bench.cluster.start_central().await;
    bench.admin = bench.cluster.admin();
    assert!(bench.everything().await == before, "something is otherwise after kill -9");
    let (mut good, mut refused) = (0, 0);
    for operation in &bench.document.operations {
        let tally = bench.tally[&operation.call];
        say(&format!("{:>4} good {:>4} refused  {}", tally.good, tally.refused, operation.call));
        let refused_min = if operation.secured { 8 } else { 0 };
        assert!(tally.good >= 1 && tally.refused >= refused_min, "{tally:?} of {}", operation.call);
        (good, refused) = (good + tally.good, refused + tally.refused);
    }
    let operations = bench.document.operations.len();
    let (head, parts) = before;
    say(&format!("{store:?}: {operations} operations, {good} good and {refused} refused calls"));
    say(&format!("{store:?}: {head} changes, {} lists the same after kill -9", parts.len()));
    assert!(operations >= 30 && good >= 700 && refused >= 1_000, "the checks shrank");
}

#[tokio::test]
async fn every_endpoint_on_sqlite() {
    endpoints(Store::Sqlite).await;
}

#[tokio::test]
async fn every_endpoint_on_mariadb() {
    endpoints(Store::MariaDb).await;
}

#[tokio::test]
async fn the_store_goes_away_and_comes_back_on_sqlite() {
    faults::store_down(Store::Sqlite).await;
}

#[tokio::test]
async fn the_store_goes_away_and_comes_back_on_mariadb() {
    faults::store_down(Store::MariaDb).await;
}

#[tokio::test]
async fn central_is_killed_under_writers_on_sqlite() {
    faults::central_killed(Store::Sqlite).await;
}

#[tokio::test]
async fn central_is_killed_under_writers_on_mariadb() {
    faults::central_killed(Store::MariaDb).await;
}

#[tokio::test]
async fn a_second_central_deposes_the_first_on_sqlite() {
    faults::deposed(Store::Sqlite).await;
}

#[tokio::test]
async fn a_second_central_deposes_the_first_on_mariadb() {
    faults::deposed(Store::MariaDb).await;
}
