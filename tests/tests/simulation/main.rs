//! The first simulation: the real cores of central, the stream, two edges and 20 devices in one thread, on a virtual
//! clock and from one seed, over a network that delays, cuts and repeats. What is checked is in `checks`, what counts
//! as true in `oracle`.
//!
//! `SIM_SEEDS=2000` runs more seeds than the 200 of every change, `SIM_SEED=7` that one alone.

mod admin;
mod calls;
mod central;
mod checks;
mod device;
mod edge;
mod link;
mod oracle;
mod plan;
mod predicate;
mod random;
mod setup;
mod sim;
mod store;
mod trace;
mod trouble;
mod workload;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use carillon_edge::core::sabotage::Sabotage;

use plan::Fault;
use sim::Sim;

const SEEDS: u64 = 200;

/// What 200 seeds have to see at least, else they do not test what they say.
const FLOORS: [(&str, u64); 53] = [
    ("steps", 2_000_000),
    ("rests", 600),
    ("changes", 30_000),
    ("writes", 30_000),
    ("acknowledged", 8_000),
    ("refused writes", 2_000),
    ("repeated creates", 3_000),
    ("refused batches", 2_000),
    ("unknown outcomes", 700),
    ("audience edits", 1_000),
    ("audience edits felt", 300),
    ("store outages", 200),
    ("purges", 80),
    ("central crashes", 250),
    ("edge crashes", 350),
    ("client restarts", 300),
    ("client store failures", 300),
    ("connections", 1_300),
    ("cuts", 500),
    ("cut snapshots", 100),
    ("stalls", 700),
    ("silent links", 150),
    ("silent centrals", 150),
    ("snapshots", 800),
    ("silences", 5_000),
    ("send-afters", 5_000),
    ("polls", 200_000),
    ("deltas", 80_000),
    ("inventories", 10_000),
    ("fetches", 10_000),
    ("gathered", 5_000),
    ("nothing new", 100_000),
    ("behind", 1_000),
    ("unavailable", 5_000),
    ("unauthorized", 800),
    ("parked", 100_000),
    ("wakes", 30_000),
    ("evicted", 500),
    ("lost requests", 3_000),
    ("repeated requests", 3_000),
    ("lost answers", 3_000),
    ("cut answers", 3_000),
    ("repeated answers", 3_000),
    ("dropped", 8_000),
    ("own writes", 2_500),
    ("sessions renewed", 1_000),
    ("unknown devices", 300),
    ("stored with news", 40_000),
    ("ticks", 10_000),
    ("seen", 1_000),
    ("wakes by the clock", 400),
    ("deltas by the clock", 800),
    ("nothing new of what is volatile", 50_000),
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn promises_hold_after_every_step_and_at_every_rest() {
    let one = number("SIM_SEED");
    let seeds = one.map_or(0..number("SIM_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let runs = seeds.end - seeds.start;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds {
        for (what, count) in Sim::new(seed, None, false).run().0 {
            *counts.entry(what).or_default() += count;
        }
    }
    let listed: Vec<String> = counts.iter().map(|(what, n)| format!("{what}={n}")).collect();
    println!("simulation ok: seeds={runs} {}", listed.join(", "));
    if runs >= SEEDS {
        for (what, floor) in FLOORS {
            let seen = counts.get(what).copied().unwrap_or(0);
            assert!(seen >= floor, "{runs} seeds saw {what} {seen} times, not {floor}");
        }
    }
}

#[test]
fn a_seed_means_one_run() {
    for seed in [1, 7, 1_000_003] {
        assert_eq!(Sim::new(seed, None, false).run(), Sim::new(seed, None, false).run());
    }
    assert_ne!(Sim::new(1, None, false).run().1, Sim::new(2, None, false).run().1);
}

#[test]
fn planted_faults_are_noticed() {
    for fault in [
        Fault::Sabotage(Sabotage::Drop),
        Fault::Sabotage(Sabotage::Extra),
        Fault::Sabotage(Sabotage::Stale),
        Fault::LoseTail,
        Fault::Misdeliver,
        Fault::NeverWake,
        Fault::NeverSweep,
    ] {
        let run =
            |seed: u64| catch_unwind(AssertUnwindSafe(|| Sim::new(seed, Some(fault), true).run()));
        let found = (0..20).find(|seed| run(*seed).is_err());
        println!("{fault:?}: noticed by seed {found:?}");
        assert!(found.is_some(), "{fault:?} was never noticed");
    }
}
