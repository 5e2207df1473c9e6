//! Live clients, an admin who writes at random, and the test's own record of both, from which follows what each
//! client should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carillon_client::{ClientBuilder, Handle, HandleError, ProfilePatch};
use carillon_tests::cluster::Cluster;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::PATIENCE;
use crate::manual::held;
use crate::shop::Shop;
use crate::watch::{Seen, Watch};

pub(crate) const BUCKETS: u64 = 4;
pub(crate) const GROUPS: u64 = 4;
/// Messages that are out at a time, so that no store grows beyond what a test wants to compare.
const LIVE_MAX: usize = 60;

/// Whom a message is for, as an expression and as a predicate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    All,
    Bucket(u64),
    Group(u64),
    RankFrom(u64),
    GroupNotBucket(u64, u64),
}

impl To {
    fn random(rng: &mut StdRng) -> To {
        let (bucket, group) = (rng.random_range(0..BUCKETS), rng.random_range(0..GROUPS));
        match rng.random_range(0..8) {
            0..2 => To::All,
            2..5 => To::Bucket(bucket),
            5 => To::Group(group),
            6 => To::RankFrom(rng.random_range(0..100)),
            _ => To::GroupNotBucket(group, bucket),
        }
    }

    fn text(self) -> String {
        match self {
            To::All => "all".to_owned(),
            To::Bucket(bucket) => format!("bucket == \"b{bucket}\""),
            To::Group(group) => format!("#g{group}"),
            To::RankFrom(rank) => format!("rank >= {rank}"),
            To::GroupNotBucket(group, bucket) => {
                format!("#g{group} and not bucket == \"b{bucket}\"")
            }
        }
    }

    fn is_for(self, device: &Record) -> bool {
        match self {
            To::All => true,
            To::Bucket(bucket) => device.bucket == bucket,
            To::Group(group) => device.groups.contains(&group),
            To::RankFrom(rank) => device.rank >= rank,
            To::GroupNotBucket(group, bucket) => {
                device.groups.contains(&group) && device.bucket != bucket
            }
        }
    }
}

/// What is known of a device.
#[derive(Clone, Debug)]
struct Record {
    id: String,
    bucket: u64,
    rank: u64,
    groups: BTreeSet<u64>,
}

#[derive(Debug)]
struct Sent {
    id: String,
    to: To,
    body: Value,
    version: i64,
    fixed: bool,
}

struct Live {
    record: Record,
    handle: Handle,
    watch: Arc<Mutex<Watch>>,
    task: JoinHandle<()>,
    /// A write of its own that is not answered yet.
    writing: Option<JoinHandle<Result<(), HandleError>>>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) struct Fleet {
    pub(crate) shop: Shop,
    pub(crate) rng: StdRng,
    lives: Vec<Live>,
    messages: Vec<Sent>,
    pub(crate) writes: u64,
}

impl Fleet {
    /// Opens an app and starts `count` clients that `builder` makes, each with a bucket and a rank of its own.
    pub(crate) async fn start(
        cluster: &Cluster,
        seed: u64,
        count: u64,
        builder: impl Fn() -> ClientBuilder,
    ) -> Fleet {
        let shop = Shop::open(cluster, "fleet").await;
        let rng = StdRng::seed_from_u64(seed);
        let mut fleet = Fleet { shop, rng, lives: Vec::new(), messages: Vec::new(), writes: 0 };
        for n in 0..count {
            let (bucket, rank) = (n % BUCKETS, fleet.rng.random_range(0..100));
            let mut client = builder()
                .app_key(&fleet.shop.key)
                .attributes([("bucket", json!(format!("b{bucket}"))), ("rank", json!(rank))])
                .seed(seed * 1_000 + n)
                .build()
                .expect("a client");
            let handle = client.handle();
            let watch = Arc::new(Mutex::new(Watch::default()));
            let noted = watch.clone();
            let task = tokio::spawn(async move {
                let note = |event| noted.lock().expect("no panic").note(&event);
                client.run_with(note, std::future::pending()).await;
            });
            let record = Record { id: String::new(), bucket, rank, groups: BTreeSet::new() };
            fleet.lives.push(Live { record, handle, watch, task, writing: None });
        }
        for live in &mut fleet.lives {
            let began = Instant::now();
            live.record.id = loop {
                let status = live.handle.status().await.expect("it runs");
                if let Some((_, device)) = status.registered {
                    break device.to_string();
                }
                assert!(began.elapsed() < PATIENCE, "it does not enrol: {status:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
        }
        fleet
    }

    /// One write at random: a message, an edit of its content or recipients, a recall, a change of a device.
    pub(crate) async fn write(&mut self) {
        self.writes += 1;
        let all = self.messages.len();
        match self.rng.random_range(0..100) {
            _ if all > LIVE_MAX => self.recall().await,
            _ if all < 10 => self.send().await,
            0..35 => self.send().await,
            35..50 => self.edit().await,
            50..60 => self.readdress().await,
            60..75 => self.recall().await,
            75..85 => self.move_bucket().await,
            85..93 => self.move_group().await,
            _ => self.move_rank().await,
        }
    }

    fn body(&mut self, version: i64, fixed: bool) -> Value {
        // Some answers fit a segment, some take many.
        let bytes = if self.rng.random_bool(0.1) { 20_000 } else { self.rng.random_range(0..300) };
        json!({"v": version, "fixed": fixed, "pad": "x".repeat(bytes)})
    }

    async fn send(&mut self) {
        let to = To::random(&mut self.rng);
        let fixed = matches!(to, To::All);
        let body = self.body(1, fixed);
        let id = self.shop.say(&to.text(), body.clone()).await;
        self.messages.push(Sent { id, to, body, version: 1, fixed });
    }

    fn pick(&mut self) -> usize {
        self.rng.random_range(0..self.messages.len())
    }

    async fn edit(&mut self) {
        let n = self.pick();
        let version = self.messages[n].version + 1;
        let body = self.body(version, self.messages[n].fixed);
        let path = format!("messages/{}", self.messages[n].id);
        self.shop.ok("PATCH", &path, json!({"body": body})).await;
        let sent = &mut self.messages[n];
        (sent.version, sent.body) = (version, body);
    }

    async fn readdress(&mut self) {
        let n = self.pick();
        if self.messages[n].fixed {
            return;
        }
        let to = To::random(&mut self.rng);
        let path = format!("messages/{}", self.messages[n].id);
        self.shop.ok("PATCH", &path, json!({"to": to.text()})).await;
        self.messages[n].to = to;
    }

    async fn recall(&mut self) {
        let n = self.pick();
        let sent = self.messages.swap_remove(n);
        self.shop.ok("POST", &format!("messages/{}:recall", sent.id), Value::Null).await;
    }

    /// By the admin: the device gets an inventory, and must fetch what it did not have.
    async fn move_bucket(&mut self) {
        let bucket = self.rng.random_range(0..BUCKETS);
        let n = self.rng.random_range(0..self.lives.len());
        let body = json!({"attributes": {"bucket": format!("b{bucket}")}});
        self.patch_device(n, body).await;
        self.lives[n].record.bucket = bucket;
    }

    async fn move_group(&mut self) {
        let group = self.rng.random_range(0..GROUPS);
        let n = self.rng.random_range(0..self.lives.len());
        let join = !self.lives[n].record.groups.contains(&group);
        let name = format!("g{group}");
        self.patch_device(n, json!({"groups": {name: join}})).await;
        let groups = &mut self.lives[n].record.groups;
        if join {
            groups.insert(group)
        } else {
            groups.remove(&group)
        };
    }

    async fn patch_device(&mut self, n: usize, body: Value) {
        let path = format!("devices/{}", self.lives[n].record.id);
        self.shop.ok("PATCH", &path, body).await;
    }

    /// By the device itself, which does not wait here for its answer.
    async fn move_rank(&mut self) {
        let rank = self.rng.random_range(0..100);
        let n = self.rng.random_range(0..self.lives.len());
        let live = &mut self.lives[n];
        live.written().await;
        let handle = live.handle.clone();
        let attributes = BTreeMap::from([("rank".to_owned(), Some(json!(rank)))]);
        let patch = ProfilePatch { attributes, ..ProfilePatch::default() };
        live.writing = Some(tokio::spawn(async move { handle.patch(patch).await }));
        live.record.rank = rank;
    }

    fn expected(&self, device: &Record) -> BTreeMap<String, Value> {
        let is_for = |sent: &&Sent| sent.to.is_for(device);
        self.messages
            .iter()
            .filter(is_for)
            .map(|sent| (sent.id.clone(), sent.body.clone()))
            .collect()
    }

    /// Waits until every client holds exactly what it should, and gives what all of them saw on the way.
    pub(crate) async fn settle(&mut self) -> Seen {
        let began = Instant::now();
        for n in 0..self.lives.len() {
            self.lives[n].written().await;
            let live = &self.lives[n];
            let expected = self.expected(&live.record);
            loop {
                let held = held(&live.handle.messages().await.expect("it runs"));
                if held == expected {
                    break;
                }
                if began.elapsed() > PATIENCE {
                    panic!("{:?}{}", live.record, difference(&expected, &held));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let seen = self.seen();
        let faults: Vec<String> = self
            .lives
            .iter()
            .flat_map(|live| live.watch.lock().expect("no panic").faults.clone())
            .collect();
        assert!(faults.is_empty(), "{} faults, such as {}", faults.len(), faults[0]);
        seen
    }

    pub(crate) fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for live in &self.lives {
            seen.add(&live.watch.lock().expect("no panic").counts);
        }
        seen
    }
}

impl Live {
    /// Waits until its own write is answered.
    async fn written(&mut self) {
        if let Some(writing) = self.writing.take() {
            let written = tokio::time::timeout(PATIENCE, writing).await;
            written.expect("an answer in time").expect("no panic").expect("the write is done");
        }
    }
}

fn difference(expected: &BTreeMap<String, Value>, held: &BTreeMap<String, Value>) -> String {
    let missing = expected.keys().filter(|id| !held.contains_key(*id));
    let extra = held.keys().filter(|id| !expected.contains_key(*id));
    let older =
        expected.iter().filter(|(id, body)| held.get(*id).is_some_and(|held| held != *body));
    format!(
        " lacks {:?}, has beside {:?}, and otherwise {:?}",
        missing.collect::<Vec<_>>(),
        extra.collect::<Vec<_>>(),
        older.map(|(id, _)| id).collect::<Vec<_>>()
    )
}
