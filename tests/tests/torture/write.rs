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

const PATIENCE: Duration = Duration::from_secs(60);
const SEED: &str = "CARILLON_TORTURE_SEED";
const ROUNDS: &str = "CARILLON_TORTURE_ROUNDS";

/// A test's output shows it where the test failed or `--nocapture` asks for it.
#[expect(clippy::print_stdout, reason = "the report of the trial")]
fn say(line: &str) {
    println!("{line}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?} and no whole number")))
}

/// What decides all that is random in a trial.
fn seed(trial: &str) -> u64 {
    let seed = number(SEED).unwrap_or_else(rand::random);
    say(&format!("{trial}: {SEED}={seed}"));
    seed
}

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
