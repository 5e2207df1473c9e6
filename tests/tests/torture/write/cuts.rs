//! The connection to the server is cut after a COMMIT has gone to it and before the reply is back, 300 times.
//!
//! The proxy counts a cut only where it saw the batch's last byte pass to the server and the server's answer to COMMIT
//! come back, and kept that answer. Beside these it cuts some batches in the middle of their bytes, which the server then
//! never commits: the fence has to tell the two apart.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use carillon_tests::admin::Admin;
use carillon_tests::batches::Batches;
use carillon_tests::cluster::{Cluster, Store, ops_get};
use carillon_tests::proxy::{Chunk, End, Fate, Proxy};
use carillon_tests::pushes::metric;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::check::{self, Fates, all_kinds, tally};
use super::operations::{Desk, Kind};
use super::state::App;
use super::writer::{self, Shared, Trouble};
use super::{PATIENCE, say, seed};

const CUTS: u64 = 300;
const WRITERS: u64 = 16;
/// Cuts before the writers end and what they did is compared.
const ROUND: u64 = 50;
/// Further cuts a round, at most, while little is written.
const QUIET: u64 = 5;
const _: () = assert!(CUTS.is_multiple_of(ROUND));
/// Of the commits, how many lose their reply; of the batches, how many do not arrive whole.
const CUT: f64 = 0.4;
const BROKEN: f64 = 0.1;

#[derive(Debug)]
struct Knife {
    batches: Batches,
    rng: StdRng,
    /// Cuts that are still to be made.
    left: u64,
    cut: u64,
    broken: u64,
}

impl Knife {
    fn look(&mut self, chunk: &Chunk<'_>) -> Fate {
        let seen = self.batches.feed(chunk);
        if self.left == 0 {
            return Fate::Pass;
        }
        let end = if self.rng.random_bool(0.5) { End::Close } else { End::Reset };
        if seen.begins && self.rng.random_bool(BROKEN) {
            self.broken += 1;
            return Fate::Cut { after: self.rng.random_range(0..chunk.bytes.len()), end };
        }
        match seen.commit_answered {
            Some(at) if self.rng.random_bool(CUT) => {
                self.left -= 1;
                self.cut += 1;
                // What the server said of the statements before COMMIT passes or does not.
                Fate::Cut { after: if self.rng.random_bool(0.5) { at } else { 0 }, end }
            }
            _ => Fate::Pass,
        }
    }
}

/// Single writes with time between them, so that what the history takes off the outbox is often a batch of its own.
async fn quiet(admin: &mut Admin, knife: &Mutex<Knife>, round: u64) {
    knife.lock().expect("nothing panics with it").left = QUIET;
    for n in 0..4 * QUIET {
        let app = json!({"name": format!("quiet {round} {n}"), "environment": "sandbox"});
        // It may be the one that is cut.
        admin.call("POST", "/v1/apps", app).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    knife.lock().expect("nothing panics with it").left = 0;
}

async fn outbox_bytes(cluster: &Cluster) -> u64 {
    let (_, text) = ops_get(cluster.admin_address(), "/metrics").await.expect("central answers");
    metric(&text, "central_outbox_bytes").expect("a gauge")
}

pub(super) async fn run() {
    let trial = "write cuts, MariaDb";
    let seed = seed(trial);
    let mut rng = StdRng::seed_from_u64(seed);
    let began = Instant::now();
    let mut cluster =
        Cluster::start_with(Store::MariaDb, &["--history-flush-every", "50ms"], &[]).await;
    let server = cluster.mariadb.as_ref().expect("it has one");
    let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let url = server.url_by(proxy.address(), "carillon");
    let knife = Knife {
        batches: Batches::default(),
        rng: StdRng::seed_from_u64(rng.random()),
        left: 0,
        cut: 0,
        broken: 0,
    };
    let knife = Arc::new(Mutex::new(knife));
    let held = knife.clone();
    proxy.tap(move |chunk| held.lock().expect("nothing panics with it").look(chunk));
    cluster.kill_central();
    cluster.start_central_with(&["--central-store", &url]).await;

    let mut admin = cluster.admin();
    let (mut acknowledged, mut refused, mut kinds) = (0, 0, std::collections::BTreeMap::new());
    let (mut fates, mut past) = (Fates::default(), Vec::new());
    for round in 0..CUTS / ROUND {
        let app = App::create(&mut admin, format!("r{round}")).await;
        let shared = Arc::new(Shared::default());
        let desks = (0..WRITERS)
            .map(|n| Desk::new(n, app.clone(), StdRng::seed_from_u64(rng.random())))
            .collect();
        let writers = writer::start(desks, || cluster.admin(), &shared, Trouble::Resolves);
        knife.lock().expect("nothing panics with it").left = ROUND;
        let started = Instant::now();
        while knife.lock().expect("nothing panics with it").left > 0 {
            let ended = writers.iter().any(tokio::task::JoinHandle::is_finished);
            assert!(!ended && started.elapsed() < PATIENCE, "the cuts stop: {knife:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        shared.stop();
        let mut records = Vec::new();
        for writer in writers {
            records.push(writer.await.expect("a writer got an answer that it may not get"));
        }
        quiet(&mut admin, &knife, round).await;
        let (fate, expected) = check::round(&mut admin, &app, records).await;
        fates.add(fate);
        past.push((app, expected));
        acknowledged += shared.acknowledged();
        refused += shared.troubles();
        for (kind, count) in shared.kinds() {
            *kinds.entry(kind).or_insert(0) += count;
        }
    }
    // Of what was told, too: nobody else would find events that are counted and gone.
    let is_told = async {
        while outbox_bytes(&cluster).await != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_told).await.expect("the outbox is empty, and known to be");
    let settled = cluster.central_log().matches("a new epoch settled").count() as u64;
    // What central holds is what the store has.
    cluster.kill_central();
    cluster.start_central().await;
    let mut admin = cluster.admin();
    for (app, expected) in &past {
        check::holds(&mut admin, app, expected).await;
    }
    let (cut, broken) = {
        let knife = knife.lock().expect("nothing panics with it");
        (knife.cut, knife.broken)
    };
    say(&format!("{trial}: acknowledged by kind: {}", tally(&kinds)));
    say(&format!(
        "{trial}: {cut} commits cut before their reply, {broken} batches cut before their commit, {settled} doubts settled by \
         a fence; {WRITERS} writers; {acknowledged} acknowledged, 0 lost; {refused} refused or unknown, 0 of them wrongly; \
         {} repeated with their key, 0 applied twice; {} s",
        fates.repeated,
        began.elapsed().as_secs()
    ));
    assert!(cut >= CUTS && broken >= 10, "{cut} and {broken} cuts");
    assert!(settled >= CUTS, "{settled} doubts for {cut} cuts");
    all_kinds(&kinds, &[Kind::Enrol, Kind::PatchSelf, Kind::Forget]);
}
