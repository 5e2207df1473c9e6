//! A broker that is away until a million events wait: writes go on, central needs no more memory, and all arrive.

use std::time::{Duration, Instant};

use carillon_tests::bench::Usage;
use carillon_tests::cluster::Store;
use carillon_tests::history::{Moves, by_name, check_told};
use carillon_tests::proxy::{Arrivals, Faults};
use serde_json::json;

use super::trial::Trial;
use super::{PATIENCE, say};

const DEVICES: u64 = 50_000;
/// Between two moves of all devices.
const MESSAGES: u64 = 10;
const EVENTS: u64 = 1_000_000;
/// What is on its way to Kafka takes some 40 MiB at most, however much waits behind it.
const GROWTH_MAX: u64 = 96 << 20;
/// From a quarter of the events on it takes no more: what is tried again was on its way before.
const LATER_GROWTH_MAX: u64 = 24 << 20;
const TRIES: u64 = 3;
/// A call that waited for the history would take as long as the broker is away.
const CALL_MAX: Duration = Duration::from_secs(5);

pub(super) async fn run(store: Store) {
    let began = Instant::now();
    let mut flags = vec!["--central-log-bytes-max", "8MiB"];
    if store == Store::Sqlite {
        // What it keeps of the file is no business of the history, which would fill it.
        flags.extend(["--central-store-cache-bytes", "2MiB"]);
    }
    let mut trial = Trial::start(store, &flags).await;
    let mut moves = Moves::start(&trial.cluster, DEVICES).await;
    let messages = format!("{}/messages", moves.path);
    // Everything that is allocated once is there, and the history has it.
    for _ in 0..3 {
        moves.all().await;
    }
    trial.all_taken().await;
    let told = trial.metric("central_history_events_total").await;
    trial.arrived(told).await;
    let before = resident(&trial);

    trial.proxy.set(Faults { arrivals: Arrivals::Refused, ..Faults::default() });
    trial.proxy.reset_all();
    let cut = Instant::now();
    let (mut calls, mut slowest, mut quarter, mut peak) = (0, Duration::ZERO, 0, 0);
    for pass in 0..EVENTS / DEVICES {
        if pass == EVENTS / DEVICES / 4 {
            // What is on its way has its full size once it was tried in vain.
            quarter = peak.max(tried(&trial).await);
        }
        let (import, imports) = moves.all().await;
        slowest = slowest.max(import);
        for n in 0..MESSAGES {
            let one = Instant::now();
            let message = json!({"to": "all", "body": {"n": n}});
            moves.admin.ok("POST", &messages, message).await;
            slowest = slowest.max(one.elapsed());
        }
        calls += imports + MESSAGES;
        peak = peak.max(resident(&trial));
    }
    let away = cut.elapsed();
    peak = peak.max(tried(&trial).await);
    let waited = trial.metric("central_outbox_bytes").await;
    let still_told = trial.in_lake().await;

    trial.proxy.set(Faults::default());
    let back = Instant::now();
    trial.all_taken().await;
    let caught_up = back.elapsed();
    let head = trial.settle().await;
    let records = trial.read().await;
    check_told(&records, head);
    let (grown, later) = (peak.saturating_sub(before), peak.saturating_sub(quarter));
    say(&format!(
        "history, broker away, {store:?}: {} events waited, {} MiB, {calls} calls meanwhile in {} ms, the slowest {} ms; central grew \
         by {} KiB on {} MiB, {} KiB of them after a quarter; all taken {} ms after; {} in the lake, 0 lost, 0 twice: {:?}; {} s",
        head - told,
        waited >> 20,
        away.as_millis(),
        slowest.as_millis(),
        grown >> 10,
        before >> 20,
        later >> 10,
        caught_up.as_millis(),
        records.len(),
        by_name(&records),
        began.elapsed().as_secs()
    ));
    assert!(head - told >= EVENTS, "{told} of {head} came before");
    assert_eq!(told, still_told, "the broker was away");
    assert!(slowest < CALL_MAX, "{slowest:?}");
    assert!(grown <= GROWTH_MAX, "central grew by {grown} bytes on {before}");
    assert!(later <= LATER_GROWTH_MAX, "central grew by {later} bytes from a quarter on");
}

fn resident(trial: &Trial) -> u64 {
    Usage::of(trial.cluster.central_pid()).expect("central runs").resident_bytes
}

/// Waits until the broker was tried in vain some times more; gives the most memory that central had meanwhile.
async fn tried(trial: &Trial) -> u64 {
    let failures = || trial.metric("central_history_failures_total");
    let enough = failures().await + TRIES;
    let mut peak = 0;
    let tried = async {
        while failures().await < enough {
            peak = peak.max(resident(trial));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tried).await.expect("it is tried again and again");
    peak
}
