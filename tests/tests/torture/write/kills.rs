//! Kill rounds: `kill -9` of central under writers of every kind, again and again on one store.
//!
//! Half of the kills and more are aimed into a batch. Before MariaDB a proxy sees the batch's bytes go by, and from the
//! moment at which it asks for the kill no byte of the server's answer passes, so that a kill counted as in a batch is
//! in one: after its first statement left and before its answer was whole. SQLite runs within central, so there a kill
//! is aimed by the log's growth, and counts if the store shows that it was in a batch: the log ends within a transaction,
//! or the store is beyond all that was acknowledged, by a write that had no answer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use carillon_tests::batches::{Batches, Seen};
use carillon_tests::cluster::{Cluster, Store};
use carillon_tests::proxy::{Chunk, Direction, Fate, Proxy};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::Notify;

use super::check::{self, Fates, all_kinds, tally};
use super::device::{self, Phone};
use super::operations::{Desk, Kind};
use super::state::{App, State};
use super::writer::{self, Shared, Trouble};
use super::{PATIENCE, ROUNDS, number, say, seed, wal};

const ROUNDS_IN_CI: u64 = 30;
const WRITERS: u64 = 24;
const PHONES: usize = 2;
/// Acknowledged writes before the kill.
const ACKNOWLEDGED: std::ops::Range<u64> = 360..480;
/// The floors: of each round, of the whole, and of writers.
const ROUND_MIN: u64 = 200;
const WHOLE_MIN: u64 = 10_000;
const _: () = assert!(WRITERS >= 16 && ACKNOWLEDGED.start >= ROUND_MIN);
const _: () = assert!(ACKNOWLEDGED.start * ROUNDS_IN_CI >= WHOLE_MIN);
/// A packet of the server's, so small that batches are sent in several.
const PACKET_BYTES: u32 = 8 << 10;

/// Where a kill is to fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// Wherever central happens to be.
    Anywhere,
    /// The first statement has gone to the server, and all that was sent with it.
    Sent,
    /// Half of what was sent with the first statement has gone to the server.
    Half,
    /// The server's answer begins.
    Answered,
    /// The answer to COMMIT is there, and everything before it passed.
    Committed,
}

const AIMS: [Aim; 4] = [Aim::Sent, Aim::Half, Aim::Answered, Aim::Committed];

/// What the proxy before MariaDB does for a round.
#[derive(Debug)]
struct Sight {
    batches: Batches,
    aim: Aim,
    /// The kill is due: answers pass no more.
    fired: bool,
}

#[derive(Debug)]
struct Gun {
    sight: Arc<Mutex<Sight>>,
    due: Arc<Notify>,
    /// Central's store is behind it.
    _proxy: Proxy,
}

impl Gun {
    /// Puts a proxy between central and its server, and starts central again.
    async fn place(cluster: &mut Cluster) -> Gun {
        let server = cluster.mariadb.as_ref().expect("the store is MariaDB");
        server.sql(&format!("SET GLOBAL max_allowed_packet = {PACKET_BYTES}"));
        let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await;
        let url = server.url_by(proxy.address(), "carillon");
        let sight = Sight { batches: Batches::default(), aim: Aim::Anywhere, fired: false };
        let (sight, due) = (Arc::new(Mutex::new(sight)), Arc::new(Notify::new()));
        let (held, bell) = (sight.clone(), due.clone());
        proxy.tap(move |chunk| held.lock().expect("nothing panics with it").look(chunk, &bell));
        cluster.kill_central();
        cluster.start_central_with(&["--central-store", &url]).await;
        Gun { sight, due, _proxy: proxy }
    }

    /// Kills central there, and says whether it was in a batch.
    async fn kill(&self, cluster: &mut Cluster, aim: Aim) -> bool {
        if aim != Aim::Anywhere {
            self.sight.lock().expect("nothing panics with it").aim = aim;
            tokio::time::timeout(PATIENCE, self.due.notified()).await.expect("writers write");
        }
        let in_batch = {
            let mut sight = self.sight.lock().expect("nothing panics with it");
            sight.fired = true;
            sight.batches.any_in_flight()
        };
        cluster.kill_central();
        let mut sight = self.sight.lock().expect("nothing panics with it");
        *sight = Sight { batches: Batches::default(), aim: Aim::Anywhere, fired: false };
        in_batch
    }
}

impl Sight {
    fn look(&mut self, chunk: &Chunk<'_>, due: &Notify) -> Fate {
        let down = chunk.direction == Direction::Down;
        if self.fired {
            return if down { Fate::Swallow { after: 0 } } else { Fate::Pass };
        }
        let Seen { in_batch, begins, commit_answered, .. } = self.batches.feed(chunk);
        let fate = match self.aim {
            Aim::Sent if begins => Fate::Pass,
            Aim::Half if begins => Fate::Swallow { after: chunk.bytes.len() / 2 },
            Aim::Answered if down && in_batch => Fate::Swallow { after: 0 },
            Aim::Committed => match commit_answered {
                Some(after) => Fate::Swallow { after },
                None => return Fate::Pass,
            },
            _ => return Fate::Pass,
        };
        self.fired = true;
        due.notify_one();
        fate
    }
}

/// All rounds on one store.
struct Trial {
    store: Store,
    cluster: Cluster,
    gun: Option<Gun>,
    rng: StdRng,
    summary: Summary,
    /// What every round's app holds from its end on.
    past: Vec<(App, State)>,
}

#[derive(Debug, Default)]
struct Summary {
    in_batch: u64,
    aimed: u64,
    acknowledged: u64,
    least: u64,
    kinds: BTreeMap<Kind, u64>,
    fates: Fates,
    of_devices: u64,
}

pub(super) async fn run(store: Store) {
    let trial = format!("write kills, {store:?}");
    let seed = seed(&trial);
    let rounds = number(ROUNDS).unwrap_or(ROUNDS_IN_CI);
    let began = Instant::now();
    // All devices are at one address, and central is never away for long.
    let edge = ["--edge-enrol-burst", "1000000", "--edge-backoff-max", "200ms"];
    let mut cluster = Cluster::start_with(store, &[], &[&edge]).await;
    let gun = match store {
        Store::MariaDb => Some(Gun::place(&mut cluster).await),
        Store::Sqlite => None,
    };
    let summary = Summary { least: u64::MAX, ..Summary::default() };
    let rng = StdRng::seed_from_u64(seed);
    let mut trial_of = Trial { store, cluster, gun, rng, summary, past: Vec::new() };
    for round in 0..rounds {
        trial_of.round(round).await;
    }
    // The last rounds' kills harmed nothing of the first rounds either.
    let mut admin = trial_of.cluster.admin();
    for (app, expected) in &trial_of.past {
        check::holds(&mut admin, app, expected).await;
    }
    let Summary { in_batch, aimed, acknowledged, least, kinds, fates, of_devices } =
        trial_of.summary;
    let Fates { applied, absent, retried, repeated } = fates;
    say(&format!("{trial}: acknowledged by kind: {}", tally(&kinds)));
    say(&format!(
        "{trial}: {rounds} kills, {in_batch} in a batch ({aimed} aimed); {} writers; {acknowledged} acknowledged, {least} in \
         the least round, 0 lost; {} without an answer: {applied} applied whole, {absent} absent, {of_devices} of devices; \
         {retried} retried with their key and {repeated} repeated, each applied once; {} s",
        WRITERS as usize + PHONES,
        applied + absent + of_devices,
        began.elapsed().as_secs()
    ));
    assert!(least >= ROUND_MIN, "a round had {least} acknowledged writes");
    assert!(acknowledged >= WHOLE_MIN, "{acknowledged} acknowledged writes");
    assert!(in_batch * 3 >= rounds, "{in_batch} of {rounds} kills were in a batch");
    // Whatever the server's packets, it takes all batches.
    let log = trial_of.cluster.central_log();
    let refused: Vec<&str> = log.lines().filter(|l| l.contains("refused a batch")).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    all_kinds(&kinds, &[]);
}

impl Trial {
    async fn round(&mut self, round: u64) {
        let mut admin = self.cluster.admin();
        let app = App::create(&mut admin, format!("r{round}")).await;
        let shared = Arc::new(Shared::default());
        let desks = (0..WRITERS)
            .map(|n| Desk::new(n, app.clone(), StdRng::seed_from_u64(self.rng.random())))
            .collect();
        let cluster = &self.cluster;
        let writers = writer::start(desks, || cluster.admin(), &shared, Trouble::Ends);
        let phones: Vec<_> = (0..PHONES)
            .map(|_| Phone::new(cluster, &app, StdRng::seed_from_u64(self.rng.random())))
            .map(|phone| phone.start(&shared))
            .collect();
        shared.until(self.rng.random_range(ACKNOWLEDGED)).await;
        let is_aimed = self.rng.random_bool(0.6);
        if !is_aimed {
            tokio::time::sleep(Duration::from_micros(self.rng.random_range(0..20_000))).await;
        }
        let mut in_batch = self.kill(is_aimed).await;
        shared.stop();
        let mut records = Vec::new();
        for writer in writers {
            records.push(writer.await.expect("a writer got an answer that it may not get"));
        }
        let mut devices = Vec::new();
        for phone in phones {
            devices.push(phone.await.expect("a device got an answer that it may not get"));
        }
        let (acknowledged, newest) = (shared.acknowledged(), shared.seq());

        self.cluster.start_central().await;
        let head = check::head(self.cluster.admin_address()).await;
        assert!(head >= newest, "{head} is left after {newest} was acknowledged");
        let mut admin = self.cluster.admin();
        let mut open = 0;
        for phone in &mut devices {
            open += phone.check(&mut admin, &app).await;
        }
        device::no_others(&mut admin, &app, &devices).await;
        let (fates, expected) = check::round(&mut admin, &app, records).await;
        // The log held a batch beyond all that was acknowledged, and in it a write whose writer has no answer.
        in_batch |= self.store == Store::Sqlite && head > newest && fates.applied > 0;

        self.past.push((app, expected));
        self.summary.in_batch += u64::from(in_batch);
        self.summary.aimed += u64::from(is_aimed);
        self.summary.acknowledged += acknowledged;
        self.summary.least = self.summary.least.min(acknowledged);
        self.summary.fates.add(fates);
        self.summary.of_devices += open;
        for (kind, count) in shared.kinds() {
            *self.summary.kinds.entry(kind).or_default() += count;
        }
    }

    /// Kills central; gives whether it was seen to be in a batch.
    async fn kill(&mut self, is_aimed: bool) -> bool {
        if let Some(gun) = &self.gun {
            let aim =
                if is_aimed { AIMS[self.rng.random_range(0..AIMS.len())] } else { Aim::Anywhere };
            return gun.kill(&mut self.cluster, aim).await;
        }
        let log: PathBuf = wal::beside(&self.cluster.store_file());
        if is_aimed {
            let delay = Duration::from_micros(self.rng.random_range(0..300));
            tokio::task::block_in_place(|| {
                until_it_grows(&log);
                // Within a few hundred microseconds of its first page a batch is written, and then synced.
                let seen = Instant::now();
                while seen.elapsed() < delay {
                    std::hint::spin_loop();
                }
            });
        }
        self.cluster.kill_central();
        wal::ends_within_a_transaction(&std::fs::read(&log).unwrap_or_default())
    }
}

/// Waits, without a pause that would miss it, until a batch is being written.
fn until_it_grows(log: &std::path::Path) {
    let began = Instant::now();
    let mut before = wal::bytes(log);
    loop {
        let bytes = wal::bytes(log);
        if bytes > before {
            return;
        }
        before = bytes;
        assert!(began.elapsed() < PATIENCE, "writers write");
    }
}
