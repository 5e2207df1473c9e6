//! Pushes: every device with a token is pushed at least once, a crash repeats at most a batch, nothing is handed over after
//! a recall says `stopped`, and a provider that is down holds up nothing else.

use std::time::{Duration, Instant};

use carillon_tests::bench::Usage;
use carillon_tests::cluster::Store;
use carillon_tests::pushes::{PushBench, token};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::{ROUNDS, number, say, seed};

const ROUNDS_IN_CI: u64 = 10;
const DEVICES: u64 = 100_000;
const BATCH: u64 = 10_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// While its provider is down central may grow by what a few windows of pushes and a thousand writes take.
const GROWTH_MAX: u64 = 48 << 20;
const WRITES_WHILE_DOWN: u64 = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn central_is_killed_while_it_pushes_on_sqlite() {
    kills(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn central_is_killed_while_it_pushes_on_mariadb() {
    kills(Store::MariaDb).await;
}

#[derive(Debug, Default)]
struct Summary {
    pushed: u64,
    repeats: u64,
    most: u64,
    collapsed: u64,
    recalls: u64,
    stopped_short: u64,
    woken: u64,
}

async fn kills(store: Store) {
    let trial = format!("push kills, {store:?}");
    let mut random = StdRng::seed_from_u64(seed(&trial));
    let rounds = number(ROUNDS).unwrap_or(ROUNDS_IN_CI);
    let began = Instant::now();
    let batch = BATCH.to_string();
    let mut bench = PushBench::start(store, DEVICES, &[], &["--push-batch", &batch]).await;
    let mut summary = Summary::default();
    for round in 0..rounds {
        // The provider forgets what it counted, not whom it knows.
        bench.apns.reset().await;
        if round % 5 == 4 {
            recalled(&mut bench, &mut random, &mut summary).await;
        } else {
            pushed(&mut bench, &mut random, &mut summary).await;
        }
    }
    let counts = bench.apns.counts().await;
    assert!(counts.breaches.is_empty(), "{counts:?}");
    let Summary { pushed, repeats, most, collapsed, recalls, stopped_short, woken } = summary;
    say(&format!(
        "{trial}: {rounds} kills; {pushed} devices pushed at least once, 0 missed; {repeats} repeats, {most} in the worst \
         round, {collapsed} of them collapsing; {recalls} recalls, {stopped_short} before everybody was pushed, 0 handed \
         over after stopped, {woken} woken; {} s",
        began.elapsed().as_secs()
    ));
    assert!(pushed >= (rounds - recalls) * DEVICES && most <= BATCH && repeats > 0);
    assert_eq!(collapsed, repeats);
    assert!(recalls == 0 || woken >= recalls * DEVICES, "{woken} woken");
}

/// Kills central in the middle, and everybody is pushed all the same.
async fn pushed(bench: &mut PushBench, random: &mut StdRng, summary: &mut Summary) {
    let message = bench.alert("it is on").await;
    bench.until_alerted(random.random_range(1..DEVICES * 9 / 10), PATIENCE).await;
    tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
    bench.cluster.kill_central();
    bench.cluster.start_central().await;
    bench.admin = bench.cluster.admin();
    bench.until_state(&message, "done", PATIENCE).await;
    let counts = bench.apns.counts().await;
    assert_eq!(counts.tokens.alerted, DEVICES, "everybody is pushed: {counts:?}");
    let beyond = counts.total.accepted.alerts - DEVICES;
    assert!(beyond <= BATCH, "{beyond} repeats: {counts:?}");
    assert_eq!(counts.tokens.two_collapse_ids.alerts, 0, "{counts:?}");
    summary.pushed += counts.tokens.alerted;
    summary.repeats += beyond;
    summary.collapsed += counts.tokens.repeats.alerts;
    summary.most = summary.most.max(beyond);
}

/// Recalls in the middle and kills central then: it says `stopped` only when nothing is handed over any more.
async fn recalled(bench: &mut PushBench, random: &mut StdRng, summary: &mut Summary) {
    let message = bench.alert("it is off").await;
    bench.until_alerted(random.random_range(1..DEVICES / 2), PATIENCE).await;
    let recall = bench.admin.ok("POST", &format!("{message}:recall"), Value::Null).await;
    assert!(recall["push_state"] == "stopping" || recall["push_state"] == "stopped", "{recall}");
    if random.random_bool(0.5) {
        tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
        bench.cluster.kill_central();
        bench.cluster.start_central().await;
        bench.admin = bench.cluster.admin();
    }
    bench.until_state(&message, "stopped", PATIENCE).await;
    bench.apns.mark().await;
    bench.until_idle(PATIENCE).await;
    let counts = bench.apns.counts().await;
    assert_eq!(counts.since_mark.received.alerts, 0, "handed over after stopped: {counts:?}");
    summary.recalls += 1;
    summary.stopped_short += u64::from(counts.tokens.alerted < DEVICES);
    summary.woken += counts.tokens.woken;
}

fn resident(bench: &PushBench) -> u64 {
    Usage::of(bench.cluster.central_pid()).expect("central runs").resident_bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_down_holds_up_nothing_else() {
    let mut bench = PushBench::start(Store::Sqlite, DEVICES, &[], &[]).await;
    // Everything that is allocated once is there.
    let first = bench.alert("first").await;
    bench.until_state(&first, "done", PATIENCE).await;
    bench.apns.reset().await;
    bench.apns.down().await;
    let before = resident(&bench);
    let message = bench.alert("while it is down").await;
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    for n in 0..WRITES_WHILE_DOWN {
        let one = Instant::now();
        let group = json!({"name": format!("g{n}"), "set_by": "server"});
        bench.admin.ok("POST", &format!("{}/groups", bench.path), group).await;
        slowest = slowest.max(one.elapsed());
    }
    let took = began.elapsed();
    // Long enough for a lane that does not wait to have tried everybody.
    tokio::time::sleep(Duration::from_secs(5).saturating_sub(took)).await;
    let grown = resident(&bench).saturating_sub(before);
    let counts = bench.apns.counts().await;
    assert_eq!(counts.total.received.sum(), 0, "it is down: {counts:?}");
    let found = bench.admin.ok("GET", &message, Value::Null).await;
    assert_eq!(found["push_state"], "sending", "{found}");
    bench.apns.up().await;
    bench.until_state(&message, "done", PATIENCE).await;
    let counts = bench.apns.counts().await;
    assert_eq!(counts.tokens.alerted, DEVICES, "{counts:?}");
    assert_eq!(counts.tokens.repeats.alerts, 0, "{counts:?}");
    let state = bench.apns.tokens(&[token(0), token(DEVICES - 1)]).await;
    assert!(state.iter().all(|of| of.alerts == 1), "{state:?}");
    say(&format!(
        "push, provider down: {DEVICES} pushes waited, {WRITES_WHILE_DOWN} writes meanwhile in {} ms, the slowest {} ms; \
         central grew by {} KiB; then {} arrived",
        took.as_millis(),
        slowest.as_millis(),
        grown >> 10,
        counts.tokens.alerted
    ));
    assert!(grown <= GROWTH_MAX, "central grew by {grown} bytes");
}
