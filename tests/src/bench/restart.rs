//! How long a fleet is without its central after a restart, and a new edge without its world.

use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_expr::{Number, Type, Value};
use carillon_persist::history::BatchHistory;
use carillon_persist::{
    AnyStore, BatchUpkeep, EpochClaim, Opening, Store as _, StoreBatch, StoreOptions, Tallies,
};
use carillon_world::{
    AppId, AppRow, AttributeId, AttributeRow, Batch, Change, DeviceId, DevicePrivate, DeviceRow,
    Environment, GroupId, GroupRow, Millis, Quotas, SEEN_DEVICES_MAX, SecretHash, Seq, SetBy,
    ShardId,
};
use serde_json::json;

use super::{BenchError, Figure, Goal, Spread, Usage, print, progress};
use crate::cluster::{Cluster, ops_get};

const DEVICES: u64 = 1_000_000;
const GROUPS: u64 = 1_000;
const TIMES: usize = 3;
/// Seconds until central accepts a commit and previews rightly, and until an edge then has the whole world.
const CENTRAL_MOST: f64 = 10.0;
const EDGE_MOST: f64 = 5.0;
/// As many changes as central puts in a batch.
const BATCH: u64 = 4_000;
const APP: AppId = AppId::new(0xcafe);
const KEY: &str = "pk_restart";
const ATTRIBUTES: [(&str, Type); 6] = [
    ("country", Type::String),
    ("age", Type::Number),
    ("paid", Type::Bool),
    ("city", Type::String),
    ("app_version", Type::Version),
    ("visits", Type::Number),
];

/// `BENCH_DEVICES` makes it smaller, for a look at a profile.
fn devices() -> u64 {
    let given = std::env::var("BENCH_DEVICES").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(DEVICES)
}

/// # Errors
/// If central or the edge does not have what the store has.
pub(super) async fn run() -> Result<(), BenchError> {
    for store in super::stores() {
        let mut cluster = Cluster::start(store, 0).await;
        cluster.stop_central();
        progress(&format!("{store:?}: write {} devices", devices()));
        fill(&cluster).await?;
        let (mut central, mut edge) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            let (central_took, edge_took) = one(&mut cluster).await?;
            progress(&format!("{store:?}: central {central_took:?}, edge {edge_took:?}"));
            central.push(central_took.as_secs_f64());
            edge.push(edge_took.as_secs_f64());
        }
        let name = format!("{store:?}").to_lowercase();
        let (central, edge) = (Spread::of(&central), Spread::of(&edge));
        for (figure, spread, most) in
            [("restart_central", central, CENTRAL_MOST), ("restart_edge", edge, EDGE_MOST)]
        {
            print(&Figure {
                figure: format!("{figure}_{name}"),
                value: spread.median,
                unit: "s",
                against: format!("{} devices: {spread} s", devices()),
                goal: Goal::AtMost(most),
            });
        }
    }
    Ok(())
}

/// Starts central, then a new edge; central is left stopped.
async fn one(cluster: &mut Cluster) -> Result<(Duration, Duration), BenchError> {
    let began = Instant::now();
    cluster.start_central().await;
    let mut admin = cluster.admin();
    let app = format!("/v1/apps/{APP}");
    let message = json!({"to": "all", "body": "hello"});
    let message = admin.ok("POST", &format!("{app}/messages"), message).await;
    let to = "#group-7 and country == \"c3\" and age > 50 and not paid == true";
    let preview = json!({"to": to, "sample": 0});
    let preview = admin.ok("POST", &format!("{app}/audience:preview"), preview).await;
    let central_took = began.elapsed();
    let expected = (0..devices()).filter(|n| previewed(*n)).count();
    if preview["count"] != expected || preview["of"] != devices() {
        return Err(BenchError(format!("{preview} where {expected} of {} are right", devices())));
    }
    let began = Instant::now();
    let edge = cluster.add_edge(&[]).await;
    let edge_took = began.elapsed();
    let health = text(ops_get(cluster.admin_address(), "/metrics").await)?;
    let counted = |name: &str, text: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    let part = |part: &str| counted(&format!("central_world_bytes{{part=\"{part}\"}} "), &health);
    let public = ["declarations", "devices", "messages", "bodies", "revisions", "indexes"];
    let needed: u64 = public.iter().map(|name| part(name)).sum();
    let held =
        counted("edge_world_bytes ", &text(ops_get(cluster.edge(edge).ops, "/metrics").await)?);
    if held != needed || part("devices") < 300 * devices() {
        return Err(BenchError(format!("the edge holds {held} bytes of {needed}")));
    }
    let usage = |pid| Usage::of(pid).map_or(0, |usage| usage.resident_bytes);
    progress(&format!(
        "world {} bytes at central, {held} at the edge; resident {} and {}",
        needed + part("private"),
        usage(cluster.central_pid()),
        usage(cluster.edge_pid(edge)),
    ));
    admin
        .ok(
            "POST",
            &format!("{app}/messages/{}:recall", crate::admin::text(&message, "id")),
            json!(null),
        )
        .await;
    cluster.kill_edge(edge);
    cluster.stop_central();
    Ok((central_took, edge_took))
}

fn text(answer: Result<(u16, String), String>) -> Result<String, BenchError> {
    answer.map(|(_, body)| body).map_err(BenchError)
}

/// Whether the expression of the preview is true for device `n`, from what the device was made of.
fn previewed(n: u64) -> bool {
    let in_group = (0..8).any(|k| group_of(n, k) == 7);
    in_group && n % 200 == 3 && n % 100 > 50 && !n.is_multiple_of(2)
}

fn group_of(n: u64, k: u64) -> u64 {
    spread(n * 8 + k) % GROUPS
}

/// SplitMix64's finaliser: numbers that look drawn.
fn spread(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Writes the app and its devices straight into the store.
async fn fill(cluster: &Cluster) -> Result<(), BenchError> {
    let failed = |error: &dyn std::error::Error| BenchError(format!("fill: {error}"));
    let url = cluster.store_url().parse().map_err(|error| failed(&error))?;
    let mut store =
        AnyStore::open(&url, &StoreOptions::default()).await.map_err(|error| failed(&error))?;
    let claim = EpochClaim { tag: 77, held: None, number_min: 0, fork: false };
    let opening = store.begin_epoch(ShardId::FIRST, claim).await.map_err(|error| failed(&error))?;
    let mut head = opening.head;
    head = commit(&mut store, &opening, head, schema()).await?;
    for from in (0..devices()).step_by(usize::try_from(BATCH).unwrap_or(usize::MAX)) {
        let to = (from + BATCH).min(devices());
        let devices: Vec<_> = (from..to).map(device).collect();
        // As after a day on which each of them was there.
        let at = Millis::of_hour(480_000);
        let seen = devices.chunks(SEEN_DEVICES_MAX).map(|some| {
            let devices = some.iter().map(|row| row.id).collect();
            Change::Seen { app: APP, at, devices }
        });
        let seen: Vec<Change> = seen.collect();
        let changes = devices.into_iter().map(|row| Change::Device(Arc::new(row)));
        head = commit(&mut store, &opening, head, changes.chain(seen).collect()).await?;
    }
    Ok(())
}

async fn commit(
    store: &mut AnyStore,
    opening: &Opening,
    head: Seq,
    changes: Vec<Change>,
) -> Result<Seq, BenchError> {
    let batch = StoreBatch {
        shard: ShardId::FIRST,
        epoch: opening.epoch,
        head,
        changes: Some(Arc::new(Batch { first: head.next(), changes })),
        idempotency: Vec::new(),
        receipts: Vec::new(),
        push_jobs: Vec::new(),
        push_times: Vec::new(),
        tallies: Tallies::default(),
        horizon: Seq::ZERO,
        upkeep: BatchUpkeep::default(),
        history: BatchHistory::default(),
        now: Millis(1),
    };
    store.commit(&batch).await.map_err(|error| BenchError(format!("fill: {error}")))?;
    Ok(batch.last())
}

fn schema() -> Vec<Change> {
    let mut changes = vec![Change::App(Arc::new(AppRow {
        id: APP,
        name: "restart".into(),
        environment: Environment::Sandbox,
        publishable_key: KEY.into(),
        created_at: Millis(0),
        quotas: Quotas::default(),
        push: None,
    }))];
    changes.extend(ATTRIBUTES.iter().zip(1..).map(|((name, kind), id)| {
        let (id, name) = (AttributeId::new(id), (*name).into());
        let set_by = SetBy::Both;
        Change::Attribute(Arc::new(AttributeRow { id, app: APP, name, kind: *kind, set_by }))
    }));
    changes.extend((0..GROUPS).map(|n| {
        let name = format!("group-{n}").into();
        let id = GroupId::new(spread(n));
        Change::Group(Arc::new(GroupRow { id, app: APP, name, set_by: SetBy::Both }))
    }));
    changes
}

fn device(n: u64) -> DeviceRow {
    let number = |n: u64| Value::Number(Number::try_new(n as f64).expect("finite"));
    let values = [
        Value::String(format!("c{}", n % 200).into()),
        number(n % 100),
        Value::Bool(n.is_multiple_of(2)),
        Value::String(format!("city-{}", n % 5_000).into()),
        Value::Version(format!("{}.{}", n % 7, n % 30).parse().expect("a version")),
        number(n % 100_000),
    ];
    let mut groups: Vec<GroupId> = (0..8).map(|k| GroupId::new(spread(group_of(n, k)))).collect();
    groups.sort_unstable();
    groups.dedup();
    let mut secret = [0; 32];
    for (word, at) in secret.chunks_mut(8).zip(0..) {
        word.copy_from_slice(&spread(n.wrapping_mul(4) + at).to_be_bytes());
    }
    DeviceRow {
        id: DeviceId::new(spread(n.wrapping_add(1 << 40))),
        app: APP,
        generation: Seq::new(1),
        p: Seq::new(1),
        created_at: Millis(1_700_000_000_000 + n),
        user: Some(format!("user-{n}").into()),
        attributes: values.into_iter().zip(1..).map(|(v, id)| (AttributeId::new(id), v)).collect(),
        groups: groups.into(),
        private: Some(Box::new(DevicePrivate {
            secret: Some(SecretHash(secret)),
            tokens: Vec::new(),
        })),
        last_seen: Millis::ZERO,
    }
}
