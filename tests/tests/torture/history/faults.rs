//! Kills of central and of the archiver, and a broker that is cut off, stalls, refuses and says what is not so, under load.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use carillon_persist::history::Record;
use carillon_tests::cluster::Store;
use carillon_tests::history::{BrokerError, by_name, check_told};
use carillon_tests::proxy::{Arrivals, Faults};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use super::load::{Acknowledged, CALLERS, FLEET, Load};
use super::trial::Trial;
use super::{PATIENCE, ROUNDS, number, say, seed};

const ROUNDS_IN_CI: u64 = 10;
/// At least so many are written in a round, so that there is something to lose.
const WRITTEN_A_ROUND: u64 = 1_500;
const EVENTS_MIN: u64 = 100_000;

/// What becomes of the way to the broker, which both ends share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    Fine,
    /// Reset a few times.
    Torn,
    /// Nothing moves, and nobody is told.
    Stalled,
    /// As if nobody listened.
    Refused,
    /// Records are taken, and the answers say that they are not.
    Erring,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kill {
    Nobody,
    Central,
    Archiver,
    Both,
}

/// Each of them once in ten rounds, in random order.
const DECK: [(Link, Kill); 10] = [
    (Link::Fine, Kill::Central),
    (Link::Fine, Kill::Archiver),
    (Link::Fine, Kill::Both),
    (Link::Torn, Kill::Nobody),
    (Link::Stalled, Kill::Central),
    (Link::Refused, Kill::Nobody),
    (Link::Erring, Kill::Nobody),
    (Link::Erring, Kill::Central),
    (Link::Torn, Kill::Archiver),
    (Link::Refused, Kill::Both),
];

pub(super) async fn run(store: Store) {
    let name = format!("history faults, {store:?}");
    let mut random = StdRng::seed_from_u64(seed(&name));
    let rounds = number(ROUNDS).unwrap_or(ROUNDS_IN_CI);
    let began = Instant::now();
    let mut trial = Trial::start(store, &[]).await;
    let load = Load::start(&trial.cluster);
    let (mut deck, mut done) = (Vec::new(), BTreeMap::<(Link, Kill), u64>::new());
    for _ in 0..rounds {
        if deck.is_empty() {
            deck = DECK.to_vec();
            deck.shuffle(&mut random);
        }
        let (link, kill) = deck.pop().expect("it was filled");
        round(&mut trial, &load, link, kill, &mut random).await;
        *done.entry((link, kill)).or_default() += 1;
    }
    while load.written() < EVENTS_MIN {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let acknowledged = load.end().await;
    let (cuts, injected) = (trial.proxy.counts().cuts, trial.errors.injected());
    let head = trial.settle().await;
    let records = trial.read().await;
    check_told(&records, head);
    let told = by_name(&records);
    names(&records);
    let returned = told["device.created"].saturating_sub(CALLERS * FLEET);
    compare(&records, &acknowledged);
    let kills = |kill| done.iter().filter(|(of, _)| of.1 == kill).map(|(_, n)| n).sum::<u64>();
    let both = kills(Kill::Both);
    let (central, archiver) = (kills(Kill::Central) + both, kills(Kill::Archiver) + both);
    say(&format!(
        "{name}: {rounds} rounds, {central} kills of central, {archiver} of the archiver, {cuts} connections cut, \
         {injected} errors injected; {head} events committed, {} in the lake, 0 lost, 0 twice; {} messages, {} groups and \
         {} changes of devices acknowledged, all told, {returned} devices came back under another name; {told:?}; {} s",
        records.len(),
        acknowledged.messages.len(),
        acknowledged.groups.len(),
        acknowledged.created + acknowledged.changed + acknowledged.deleted,
        began.elapsed().as_secs()
    ));
    assert!(head >= EVENTS_MIN, "{head} events are too few to tell");
    assert!(returned > 0, "nobody came back");
    assert!(told["shard.opened"] > central, "each owner tells of itself");
    if rounds >= DECK.len() as u64 {
        assert!(central > 0 && archiver > 0 && cuts > 0 && injected > 0, "{done:?}");
    }
}

async fn round(trial: &mut Trial, load: &Load, link: Link, kill: Kill, random: &mut StdRng) {
    let before = load.written();
    while load.written() < before + WRITTEN_A_ROUND {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let lasts = Duration::from_millis(random.random_range(200..3_000));
    let injected = trial.errors.injected();
    match link {
        Link::Fine => {}
        Link::Torn => {
            for _ in 0..random.random_range(1..5) {
                if random.random() {
                    trial.proxy.reset_all();
                } else {
                    trial.proxy.close_all();
                }
                tokio::time::sleep(Duration::from_millis(random.random_range(1..200))).await;
            }
        }
        Link::Stalled => trial.proxy.set(Faults::STALLED),
        Link::Refused => {
            trial.proxy.set(Faults { arrivals: Arrivals::Refused, ..Faults::default() });
            trial.proxy.reset_all();
        }
        Link::Erring => {
            let errors: Vec<BrokerError> = (0..random.random_range(1..6))
                .map(|_| *BrokerError::ALL.choose(random).expect("there are some"))
                .collect();
            trial.errors.inject(&errors);
        }
    }
    tokio::time::sleep(Duration::from_micros(random.random_range(0..300_000))).await;
    if matches!(kill, Kill::Archiver | Kill::Both) {
        trial.replace_archiver();
    }
    let restarts = matches!(kill, Kill::Central | Kill::Both);
    if restarts {
        trial.cluster.kill_central();
    }
    // What is away comes back while who needs it starts.
    let start = async {
        if restarts {
            trial.cluster.start_central().await;
        }
    };
    let mend = async {
        if link != Link::Fine {
            tokio::time::sleep(lasts).await;
        }
        // Whoever was refused a moment ago asks again after a while.
        let said = async {
            while link == Link::Erring && trial.errors.injected() == injected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, said).await.expect("it asks again and again");
        trial.proxy.set(Faults::default());
        trial.errors.relent();
    };
    tokio::join!(start, mend);
}

/// Nobody has two names, which would show as a device that is told of before it was made or as more devices than there
/// are, and none two ends.
fn names(records: &[Record]) {
    let (mut made, mut ended) = (HashSet::new(), HashSet::new());
    let mut alive = HashMap::<_, u64>::new();
    for record in records {
        let Some(device) = record.device else { continue };
        let (event, device) = (record.event.as_str(), (record.app, device));
        if event == "device.created" {
            assert!(made.insert(device), "made twice: {record:?}");
            let alive = alive.entry(record.app).or_default();
            *alive += 1;
            assert!(*alive <= FLEET, "one has two names: {record:?}");
        }
        assert!(made.contains(&device) && !ended.contains(&device), "{record:?}");
        if event == "device.deleted" {
            ended.insert(device);
            *alive.entry(record.app).or_default() -= 1;
        }
    }
    assert!(made.len() > ended.len() && !ended.is_empty());
}

/// Whatever was acknowledged is told.
fn compare(records: &[Record], acknowledged: &Acknowledged) {
    let told = |name: &'static str| records.iter().filter(move |r| r.event.as_str() == name);
    let messages: HashSet<_> = told("message.created").filter_map(|r| r.message).collect();
    let lost = acknowledged.messages.difference(&messages).count();
    assert_eq!(lost, 0, "of {} messages", acknowledged.messages.len());
    let groups: HashSet<String> = told("group.changed")
        .map(|record| {
            let data: Value = serde_json::from_str(record.data.get()).expect("JSON");
            data["name"].as_str().expect("a name").to_owned()
        })
        .collect();
    let lost = acknowledged.groups.difference(&groups).count();
    assert_eq!(lost, 0, "of {} groups", acknowledged.groups.len());
    let Acknowledged { created, changed, deleted, .. } = *acknowledged;
    for (name, least) in
        [("device.created", created), ("device.changed", changed), ("device.deleted", deleted)]
    {
        let told = told(name).count() as u64;
        assert!(told >= least, "{told} times {name}, and {least} were acknowledged");
    }
}
