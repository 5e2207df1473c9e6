//! What every store must do. Each step has a shard of its own, so that they also show that shards do not mix.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_persist::history::BatchHistory;
use carillon_persist::{
    AnyStore, BatchUpkeep, CommitError, EpochClaim, ForgetKeys, IdempotencyRow, Opening,
    ReceiptRow, Store, StoreBatch, StoreError, StoreOptions, Tallies,
};
use carillon_world::{AppId, Batch, Change, DeviceId, Epoch, MessageId, Millis, Row, Seq, ShardId};
use rand::Rng;

use crate::model::{Generator, Model, TEXTS, sorted};
use crate::{Bench, callbacks, open, outbox, purge, tallies};

pub(crate) const DATABASE: &str = "suite";

pub(crate) fn options() -> StoreOptions {
    StoreOptions {
        connect_timeout: Duration::from_millis(500),
        read_timeout: Duration::from_secs(10),
        shards: 22,
        loaders: NonZeroUsize::MIN,
        allow_unsafe: false,
        ..StoreOptions::default()
    }
}

pub(crate) fn claim(tag: u64) -> EpochClaim {
    EpochClaim { tag, held: None, number_min: 0, fork: false }
}

/// A batch of changes alone.
pub(crate) fn batch_of(shard: ShardId, opening: &Opening, changes: &Arc<Batch>) -> StoreBatch {
    StoreBatch {
        shard,
        epoch: opening.epoch,
        head: Seq::new(changes.first.get() - 1),
        horizon: opening.horizon,
        changes: Some(changes.clone()),
        idempotency: vec![],
        receipts: vec![],
        push_jobs: vec![],
        push_times: vec![],
        tallies: Tallies::default(),
        upkeep: BatchUpkeep::default(),
        history: BatchHistory::default(),
        now: Millis(1),
    }
}

/// A batch without changes.
pub(crate) fn side_rows(shard: ShardId, epoch: Epoch, head: Seq) -> StoreBatch {
    StoreBatch {
        shard,
        epoch,
        head,
        horizon: Seq::ZERO,
        changes: None,
        idempotency: vec![],
        receipts: vec![],
        push_jobs: vec![],
        push_times: vec![],
        tallies: Tallies::default(),
        upkeep: BatchUpkeep::default(),
        history: BatchHistory::default(),
        now: Millis(1),
    }
}

pub(crate) async fn load(store: &mut AnyStore, shard: ShardId) -> Vec<Row> {
    let mut rows = Vec::new();
    store.load(shard, &mut |row| rows.push(row)).await.unwrap();
    sorted(rows)
}

pub(crate) async fn assert_holds(store: &mut AnyStore, shard: ShardId, model: &Model) {
    let (loaded, expected) = (load(store, shard).await, model.rows());
    for (loaded, expected) in loaded.iter().zip(&expected) {
        assert_eq!(loaded, expected);
    }
    assert_eq!(loaded.len(), expected.len());
}

/// Everything in the tables of `shard` that a batch could leave behind.
fn footprint(bench: &impl Bench, shard: ShardId) -> String {
    let lease =
        format!("SELECT epoch_number, head, horizon, batches FROM lease WHERE shard = {shard}");
    let mut all = bench.sql(DATABASE, &lease);
    for table in ["apps", "attributes", "app_groups", "audiences", "devices", "messages"] {
        let select = format!(
            "SELECT COUNT(*), COALESCE(SUM(changed_seq), 0) FROM {table} WHERE shard = {shard}"
        );
        all += &bench.sql(DATABASE, &select);
    }
    for table in [
        "message_revisions",
        "audience_revisions",
        "idempotency",
        "receipts",
        "lineage",
        "device_books",
        "message_counts",
    ] {
        all += &bench.sql(DATABASE, &format!("SELECT COUNT(*) FROM {table} WHERE shard = {shard}"));
    }
    all
}

pub(crate) async fn run(bench: &mut impl Bench) {
    let shard = ShardId::new;
    epochs_rise_and_each_opening_writes_a_line(bench, shard(0)).await;
    for seed in 1..=4 {
        histories_load_back(bench, shard(seed), seed.into()).await;
    }
    fenced_batches_leave_nothing(bench, shard(5)).await;
    a_failing_statement_leaves_nothing(bench, shard(6)).await;
    side_rows_commit_with_their_batch(bench, shard(7)).await;
    thousands_of_rows_are_one_batch(bench, shard(8)).await;
    a_store_that_is_down_refuses_and_recovers(bench, shard(9)).await;
    what_cannot_be_stored_is_refused(bench, shard(10)).await;
    damage_is_noticed(bench, shard(11)).await;
    a_load_is_the_same_however_many_load(bench, shard(16)).await;
    a_load_under_another_owner_is_refused(bench, shard(17)).await;
    tallies::run(bench, shard(18)).await;
    outbox::run(bench, shard(19)).await;
    outbox::many_events_of_one_batch(bench, shard(21)).await;
    outbox::names_outlive_the_migration_that_dates_them(bench).await;
    callbacks::run(bench, shard(20)).await;
    purge::run(bench).await;
    the_number_of_shards_is_fixed_and_a_newer_schema_refused(bench).await;
}

async fn epochs_rise_and_each_opening_writes_a_line(bench: &impl Bench, shard: ShardId) {
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    store.ping().await.unwrap();
    let before = store.clock().await.unwrap();
    let first = store.begin_epoch(shard, claim(7)).await.unwrap();
    assert_eq!((first.head, first.horizon, first.epoch.tag), (Seq::ZERO, Seq::ZERO, 7));
    assert!(first.epoch.number >= before.0, "{first:?} at {before:?}");
    assert!(first.epoch.number < before.0 + 60_000, "{first:?} at {before:?}");
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!(
        u128::from(before.0).abs_diff(now) < 60_000,
        "the clock counts milliseconds since 1970 UTC"
    );

    let changes = Generator::new(1).batch(20);
    store.commit(&batch_of(shard, &first, &changes)).await.unwrap();
    let again = store.begin_epoch(shard, claim(7)).await.unwrap();
    assert_eq!(again.epoch, first.epoch, "the same claim made twice");

    let high = EpochClaim {
        number_min: first.epoch.number + 1_000_000_000,
        fork: true,
        ..claim(u64::MAX)
    };
    let second = store.begin_epoch(shard, high).await.unwrap();
    assert_eq!(second.epoch.number, first.epoch.number + 1_000_000_000);
    let mut other = open(bench, DATABASE, &options()).await.unwrap();
    let third = other
        .begin_epoch(shard, EpochClaim { held: Some(second.epoch), ..claim(9) })
        .await
        .unwrap();
    assert_eq!(third.epoch.number, second.epoch.number + 1);
    let lines: Vec<_> =
        third.lineage.entries().iter().map(|l| (l.epoch, l.began_after, l.fork)).collect();
    let head = changes.last();
    assert_eq!(
        lines,
        [(first.epoch, Seq::ZERO, false), (second.epoch, head, true), (third.epoch, head, false)]
    );

    let late = EpochClaim { held: Some(second.epoch), ..claim(10) };
    match store.begin_epoch(shard, late).await {
        Err(StoreError::Fenced { held, lineage: Some(lineage), .. }) => {
            assert_eq!((held, lineage), (second.epoch, third.lineage.clone()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        bench.sql(DATABASE, &format!("SELECT COUNT(*) FROM lineage WHERE shard = {shard}")).trim(),
        "3"
    );
}

async fn histories_load_back(bench: &impl Bench, shard: ShardId, seed: u64) {
    let mut generator = Generator::new(seed);
    let mut model = Model::default();
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let mut opening = store.begin_epoch(shard, claim(seed)).await.unwrap();
    for round in 1..=60 {
        let changes_max = if round % 10 == 0 { 400 } else { 40 };
        let changes = generator.batch(changes_max);
        store.commit(&batch_of(shard, &opening, &changes)).await.unwrap();
        model.apply_batch(&changes);
        if round % 6 != 0 {
            continue;
        }
        // As after a restart.
        drop(store);
        store = open(bench, DATABASE, &options()).await.unwrap();
        opening = store.begin_epoch(shard, claim(seed * 1000 + round)).await.unwrap();
        assert_eq!((opening.head, opening.horizon), (model.head, model.horizon));
        assert_holds(&mut store, shard, &model).await;
        for (table, deleted, count, sum) in model.footprint() {
            let select = format!(
                "SELECT COUNT(*), COALESCE(SUM(changed_seq), 0) FROM {table} WHERE shard = {shard} AND deleted = {}",
                u8::from(deleted)
            );
            let found = bench.sql(DATABASE, &select);
            assert_eq!(found.trim(), format!("{count}\t{sum}"), "{table}, deleted: {deleted}");
        }
        let select = format!(
            "SELECT app, device, group_id, COALESCE(group_name, 'NULL') FROM memberships WHERE shard = {shard}"
        );
        let found = bench.sql(DATABASE, &select);
        let mut found: Vec<&str> = found.lines().collect();
        found.sort_unstable();
        assert_eq!(found, model.memberships());
    }
    assert_eq!(generator.made.len(), 16, "every kind of change: {:?}", generator.made);
    assert!(generator.made.values().all(|count| *count >= 5), "{:?}", generator.made);
}

async fn fenced_batches_leave_nothing(bench: &impl Bench, shard: ShardId) {
    let mut generator = Generator::new(5);
    let mut model = Model::default();
    let mut owner = open(bench, DATABASE, &options()).await.unwrap();
    let opening = owner.begin_epoch(shard, claim(1)).await.unwrap();
    let first = generator.batch(50);
    owner.commit(&batch_of(shard, &opening, &first)).await.unwrap();
    model.apply_batch(&first);
    let next = generator.batch(50);
    let good = batch_of(shard, &opening, &next);
    let before = footprint(bench, shard);

    // A gap, a repeat, and another's epoch with the right head.
    let shifted = Arc::new(Batch { first: next.first.plus(3), changes: next.changes.clone() });
    let other = Epoch { number: opening.epoch.number, tag: opening.epoch.tag + 1 };
    let later = Epoch { number: opening.epoch.number + 1, tag: opening.epoch.tag };
    let bad = [
        batch_of(shard, &opening, &shifted),
        batch_of(shard, &opening, &first),
        StoreBatch { epoch: other, ..good.clone() },
        StoreBatch { epoch: later, ..good.clone() },
        StoreBatch { epoch: other, ..side_rows(shard, opening.epoch, model.head) },
    ];
    for mut batch in bad {
        batch.receipts.push(receipt(1, "displayed"));
        match owner.commit(&batch).await {
            Err(CommitError::Fenced { ours, head, theirs, found, .. }) => {
                assert_eq!((ours, head), (batch.epoch, batch.head));
                assert_eq!((theirs, found), (opening.epoch, model.head));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(footprint(bench, shard), before, "{:?} at {}", batch.epoch, batch.head);
    }

    let mut deposer = open(bench, DATABASE, &options()).await.unwrap();
    let taken = deposer.begin_epoch(shard, claim(2)).await.unwrap();
    let before = footprint(bench, shard);
    assert!(
        matches!(owner.commit(&good).await, Err(CommitError::Fenced { theirs, .. }) if theirs == taken.epoch)
    );
    assert_eq!(footprint(bench, shard), before);
    deposer.commit(&StoreBatch { epoch: taken.epoch, ..good }).await.unwrap();
    model.apply_batch(&next);
    assert_holds(&mut deposer, shard, &model).await;
}

async fn a_failing_statement_leaves_nothing(bench: &impl Bench, shard: ShardId) {
    let mut generator = Generator::new(6);
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    let changes = generator.batch(80);
    let mut batch = batch_of(shard, &opening, &changes);
    batch.idempotency.push(key("k"));
    batch.receipts.extend([receipt(1, "displayed"), receipt(2, "trap")]);
    let before = footprint(bench, shard);
    bench.set_trap(DATABASE);
    let error = store.commit(&batch).await.unwrap_err();
    assert!(
        matches!(&error, CommitError::Refused { source: StoreError::Unavailable { .. } }),
        "{error:?}"
    );
    assert_eq!(footprint(bench, shard), before);
    bench.sql(DATABASE, "DROP TRIGGER trap");
    store.commit(&batch).await.unwrap();
    let mut model = Model::default();
    model.apply_batch(&changes);
    assert_holds(&mut store, shard, &model).await;
    assert_eq!(store.load_idempotency(shard, Millis(0)).await.unwrap(), [key("k")]);
}

async fn side_rows_commit_with_their_batch(bench: &impl Bench, shard: ShardId) {
    let mut generator = Generator::new(7);
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    let changes = generator.batch(10);
    let mut batch = batch_of(shard, &opening, &changes);
    // Keys that only an exact comparison tells apart, and nasty ones.
    let names = ["a", "a ", "A", "á", ""].into_iter().chain(TEXTS.into_iter().skip(1));
    batch.idempotency = names
        .enumerate()
        .map(|(n, name)| IdempotencyRow { created_at: Millis(n as u64), ..key(name) })
        .collect();
    batch.receipts = TEXTS.iter().enumerate().map(|(n, text)| receipt(n as u64, text)).collect();
    store.commit(&batch).await.unwrap();
    let by_time = |mut rows: Vec<IdempotencyRow>| {
        rows.sort_by_key(|row| row.created_at);
        rows
    };
    assert_eq!(by_time(store.load_idempotency(shard, Millis(0)).await.unwrap()), batch.idempotency);
    assert_eq!(
        by_time(store.load_idempotency(shard, Millis(3)).await.unwrap()),
        batch.idempotency[3..]
    );

    // A repeat is harmless, and the first receipt of an id counts.
    let head = batch.last();
    let mut side = side_rows(shard, opening.epoch, head);
    side.receipts = vec![receipt(0, "another kind"), receipt(u64::MAX, "largest id")];
    side.upkeep.forget_keys = Some(ForgetKeys { before: Millis(4), rows_max: 100 });
    side.idempotency = vec![IdempotencyRow {
        created_at: Millis(99),
        response: Bytes::from_static(b"2"),
        ..key("a")
    }];
    for _ in 0..2 {
        store.commit(&side).await.unwrap();
        let mut expected = batch.idempotency[4..].to_vec();
        expected.extend(side.idempotency.clone());
        assert_eq!(by_time(store.load_idempotency(shard, Millis(0)).await.unwrap()), expected);
        let count =
            bench.sql(DATABASE, &format!("SELECT COUNT(*) FROM receipts WHERE shard = {shard}"));
        assert_eq!(count.trim(), (TEXTS.len() + 1).to_string());
        let first = format!("SELECT kind FROM receipts WHERE shard = {shard} AND receipt = 0");
        assert_eq!(bench.sql(DATABASE, &first).trim(), TEXTS[0]);
    }
    let opening = store.begin_epoch(shard, claim(2)).await.unwrap();
    assert_eq!(opening.head, head, "rows without changes leave the head where it is");
}

async fn thousands_of_rows_are_one_batch(bench: &impl Bench, shard: ShardId) {
    let mut generator = Generator::new(8);
    let mut model = Model::default();
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    let before = bench.sql(DATABASE, &format!("SELECT batches FROM lease WHERE shard = {shard}"));
    for gone in [false, false, true] {
        let changes = generator.devices(4000, gone);
        assert_eq!(changes.changes.len(), 4000);
        let mut batch = batch_of(shard, &opening, &changes);
        batch.receipts = (0..4000).map(|id| receipt(id, "displayed")).collect();
        store.commit(&batch).await.unwrap();
        model.apply_batch(&changes);
        assert_holds(&mut store, shard, &model).await;
    }
    let after = bench.sql(DATABASE, &format!("SELECT batches FROM lease WHERE shard = {shard}"));
    let count = |text: &str| text.trim().parse::<u64>().unwrap();
    assert_eq!(count(&after), count(&before) + 3);
}

async fn a_store_that_is_down_refuses_and_recovers(bench: &mut impl Bench, shard: ShardId) {
    let mut generator = Generator::new(9);
    let mut model = Model::default();
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    let first = generator.batch(20);
    store.commit(&batch_of(shard, &opening, &first)).await.unwrap();
    model.apply_batch(&first);
    bench.take_down(DATABASE);
    // Longer than a connection may be idle without being asked whether it is alive.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let next = generator.batch(20);
    for _ in 0..2 {
        let error = store.commit(&batch_of(shard, &opening, &next)).await.unwrap_err();
        assert!(matches!(error, CommitError::Refused { .. }), "{error:?}");
    }
    assert!(store.begin_epoch(shard, claim(2)).await.is_err());
    bench.bring_up();
    store.commit(&batch_of(shard, &opening, &next)).await.unwrap();
    model.apply_batch(&next);
    assert_holds(&mut store, shard, &model).await;
}

async fn what_cannot_be_stored_is_refused(bench: &impl Bench, shard: ShardId) {
    let mut generator = Generator::new(10);
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    let changes = generator.batch(5);
    let good = batch_of(shard, &opening, &changes);
    let before = footprint(bench, shard);
    let long_key = StoreBatch { idempotency: vec![key(&"k".repeat(129))], ..good.clone() };
    let empty = Arc::new(Batch { first: changes.first, changes: vec![] });
    let gap = StoreBatch { head: Seq::new(77), ..good.clone() };
    for bad in [long_key, gap, StoreBatch { changes: Some(empty), ..good.clone() }] {
        let error = store.commit(&bad).await.unwrap_err();
        assert!(
            matches!(error, CommitError::Refused { source: StoreError::Invalid { .. } }),
            "{error:?}"
        );
    }
    assert_eq!(footprint(bench, shard), before);
    let longest = StoreBatch { idempotency: vec![key(&"ü".repeat(64))], ..good };
    store.commit(&longest).await.unwrap();
    let beyond = store.begin_epoch(ShardId::new(options().shards), claim(2)).await.unwrap_err();
    assert!(matches!(beyond, StoreError::Invalid { .. }), "{beyond:?}");
}

/// Each damage is told by the table and the row, with what to do.
async fn damage_is_noticed(bench: &impl Bench, shard: ShardId) {
    let mut generator = Generator::new(11);
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    let devices = generator.devices(3, false);
    store.commit(&batch_of(shard, &opening, &devices)).await.unwrap();
    let Some(Change::Device(row)) =
        devices.changes.iter().find(|change| matches!(change, Change::Device(_)))
    else {
        panic!("devices were asked for")
    };
    // Both stores print ids their own way, so the row is found by another column.
    let first = format!("shard = {shard} AND created_at = {} AND deleted = 0", row.created_at.0);
    let device = format!("device {}", row.id);
    let app = "000000000000fefe";
    let damages = [
        ("devices", "attributes = '{\"1\":2}'", "attributes = '{}'", device.clone(), "16 hex"),
        ("devices", "group_ids = '[1'", "group_ids = '[]'", device.clone(), "line 1 column"),
        ("devices", "push_tokens = 'x'", "push_tokens = NULL", device.clone(), "line 1 column"),
        ("devices", "p_seq = 9000", "p_seq = 1", device.clone(), "changed at 9000"),
        ("devices", "app = 65278", "app = APP", device, app),
    ];
    let of_app = bench.sql(DATABASE, &format!("SELECT app FROM devices WHERE {first}"));
    for (table, damage, mend, row, says) in damages {
        bench.sql(DATABASE, &format!("UPDATE {table} SET {damage} WHERE {first}"));
        let error = store.load(shard, &mut |_| {}).await.unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { .. }), "{damage}: {error:?}");
        let text = error.to_string();
        for part in [&format!("table {table}"), &row, says, "restore a backup"] {
            assert!(text.contains(part), "{damage}: {part} is not in {text}");
        }
        let mend = mend.replace("APP", of_app.trim());
        bench.sql(DATABASE, &format!("UPDATE {table} SET {mend} WHERE {first}"));
        store.load(shard, &mut |_| {}).await.unwrap();
    }
    let told = async |store: &mut AnyStore, parts: &[&str]| {
        let error = store.begin_epoch(shard, claim(2)).await.unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { table: "lineage", .. }), "{error:?}");
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        // The connection that held the lease row is closed by a task of its own.
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let at = format!("WHERE shard = {shard}");
    let lease = |set: &str| format!("UPDATE lease SET {set} {at}");
    bench.sql(DATABASE, &lease("head = 0, epoch_number = epoch_number + 1"));
    told(&mut store, &["lineage", "newest line", "restore a backup"]).await;
    bench.sql(DATABASE, &lease("epoch_number = epoch_number - 1"));
    bench.sql(DATABASE, &format!("DELETE FROM lineage {at}"));
    told(&mut store, &["lineage", "it is empty", "restore a backup"]).await;
}

async fn a_load_is_the_same_however_many_load(bench: &impl Bench, shard: ShardId) {
    let mut generator = Generator::new(12);
    let mut model = Model::default();
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    // More than any loader takes at a time.
    for _ in 0..10 {
        let changes = generator.devices(4000, false);
        store.commit(&batch_of(shard, &opening, &changes)).await.unwrap();
        model.apply_batch(&changes);
    }
    assert!(store.estimate_rows().await.unwrap() > 0);
    drop(store);
    for loaders in [1, 2, 7] {
        let loaders = NonZeroUsize::new(loaders).unwrap();
        // A loaded machine is slow to let seven in.
        let connect_timeout = Duration::from_secs(30);
        let options = StoreOptions { loaders, connect_timeout, ..options() };
        let mut store = open(bench, DATABASE, &options).await.unwrap();
        assert_holds(&mut store, shard, &model).await;
    }
}

async fn a_load_under_another_owner_is_refused(bench: &impl Bench, shard: ShardId) {
    let mut generator = Generator::new(13);
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    // More than are on their way at a time, so that the store is still being read when the sink has the first.
    for _ in 0..4 {
        let changes = generator.devices(4000, false);
        store.commit(&batch_of(shard, &opening, &changes)).await.unwrap();
    }
    // The head moves under the load, as it does when another owner commits.
    let move_head = format!("UPDATE lease SET head = head + 1 WHERE shard = {shard}");
    let mut later = Some(bench.sql_later(DATABASE, move_head));
    let mut sink = |_| {
        if let Some(later) = later.take() {
            later();
        }
    };
    let error = store.load(shard, &mut sink).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error:?}");
    store.load(shard, &mut |_| {}).await.unwrap();
}

async fn the_number_of_shards_is_fixed_and_a_newer_schema_refused(bench: &impl Bench) {
    let database = "newer";
    let first = open(bench, database, &StoreOptions { shards: 3, ..options() }).await.unwrap();
    assert_eq!(first.shards(), 3);
    drop(first);
    let again = open(bench, database, &StoreOptions { shards: 5, ..options() }).await.unwrap();
    assert_eq!(again.shards(), 3);
    drop(again);
    // As after a migration that was cut short, from the first to the last.
    bench.sql(database, "DELETE FROM schema_version");
    drop(open(bench, database, &options()).await.unwrap());
    bench
        .sql(database, "INSERT INTO schema_version (version, name) VALUES (99, 'from the future')");
    let error = open(bench, database, &options()).await.unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 99, .. }), "{error:?}");
    assert!(error.to_string().contains("start the release that migrated it"), "{error}");
}

pub(crate) fn key(key: &str) -> IdempotencyRow {
    IdempotencyRow {
        app: AppId::new(u64::MAX),
        key: key.into(),
        request: [0xfe; 32],
        response: Bytes::from_static(b"\0\xff'\\ binary"),
        created_at: Millis(5),
    }
}

pub(crate) fn receipt(id: u64, kind: &str) -> ReceiptRow {
    ReceiptRow {
        app: AppId::new(u64::MAX),
        device: DeviceId::new(1 << 63),
        id,
        message: MessageId::new(3),
        kind: kind.to_owned(),
        at: Millis(4),
    }
}

/// A tag that no other claim of a test has.
pub(crate) fn random_tag(generator: &mut Generator) -> u64 {
    generator.random.random()
}
