//! What is kept beside the changes, and that forgetting goes in steps of the size asked for.

use std::sync::Arc;

use carillon_persist::{
    Committed, Erase, ForgetKeys, IdempotencyRow, Kept, Opening, ReceiptRow, Store, StoreBatch,
};
use carillon_tests::mariadb::MariaDb;
use carillon_world::{AppId, Batch, Change, DeviceId, Millis, Row, Seq, ShardId};

use crate::model::{Generator, Model};
use crate::suite::{assert_holds, batch_of, claim, key, options, receipt, side_rows};
use crate::{Bench, open};

const DATABASE: &str = "purge";

pub(crate) async fn run(bench: &impl Bench) {
    let shard = ShardId::new;
    what_is_kept_beside_rows_is_there_after_a_restart(bench, shard(0)).await;
    keys_are_forgotten_oldest_first_and_as_many_as_asked(bench, shard(1)).await;
    a_gone_device_leaves_a_bare_tombstone_and_its_traces_go_in_steps(bench, shard(2)).await;
    a_purge_in_steps_leaves_what_one_purge_leaves(bench, shard(3)).await;
    who_comes_back_was_never_seen_and_loses_nothing_to_an_erasure(bench, shard(9)).await;
}

/// Of the one device that is there.
async fn last_seen(store: &mut impl Store, shard: ShardId) -> Millis {
    let mut found = None;
    let mut sink = |row| {
        if let Row::Device(row) = row {
            found = Some(row.last_seen);
        }
    };
    store.load(shard, &mut sink).await.unwrap();
    found.unwrap()
}

/// A device may be imported again under the id of one that is being erased.
async fn who_comes_back_was_never_seen_and_loses_nothing_to_an_erasure(
    bench: &impl Bench,
    shard: ShardId,
) {
    let mut generator = Generator::new(14);
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    let made = generator.devices(2, false);
    let Some(Change::Device(row)) = made.changes.last().cloned() else { panic!("a device") };
    let (app, id) = (row.app, row.id);
    store.commit(&batch_of(shard, &opening, &made)).await.unwrap();
    let mut head = made.last();
    let seen = |hour| Change::Seen { app, at: Millis::of_hour(hour), devices: vec![id] };
    let back = vec![seen(900), Change::DeviceGone { app, id }, Change::Device(row.clone())];
    store.commit(&batch_after(shard, &opening, &mut head, back)).await.unwrap();
    assert_eq!(last_seen(&mut store, shard).await, Millis::ZERO);
    store.commit(&batch_after(shard, &opening, &mut head, vec![seen(5)])).await.unwrap();
    let mut step = side_rows(shard, opening.epoch, head);
    step.upkeep.erase = Some(Erase { devices: vec![(app, id)], rows_max: 10 });
    store.commit(&step).await.unwrap();
    assert_eq!(last_seen(&mut store, shard).await, Millis::of_hour(5));
}

async fn what_is_kept_beside_rows_is_there_after_a_restart(bench: &impl Bench, shard: ShardId) {
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    assert_eq!(store.load_kept(shard).await.unwrap(), Kept::default());
    let mut generator = Generator::new(12);
    let mut heads = Vec::new();
    for now in [1_000, 2_000, 3_000] {
        let changes = generator.devices(10, false);
        let mut batch = StoreBatch { now: Millis(now), ..batch_of(shard, &opening, &changes) };
        batch.upkeep.sample = now != 2_000;
        batch.upkeep.seen_since = Some(Millis(now / 2));
        store.commit(&batch).await.unwrap();
        heads.push(changes.last());
    }
    // Without changes it is the head that stands.
    let mut side = side_rows(shard, opening.epoch, heads[2]);
    side.now = Millis(4_000);
    store.commit(&side).await.unwrap();
    drop(store);

    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(2)).await.unwrap();
    let kept = store.load_kept(shard).await.unwrap();
    assert_eq!(kept.samples, [(heads[0], Millis(1_000)), (heads[2], Millis(3_000))]);
    assert_eq!(kept.seen_since, Some(Millis(1_500)));
    assert_eq!(kept.committed_at, Some(Millis(4_000)), "a new epoch is no commit");

    // Times that the horizon has passed are no longer needed.
    let purge =
        Batch { first: opening.head.next(), changes: vec![Change::Purge { horizon: heads[1] }] };
    store.commit(&batch_of(shard, &opening, &Arc::new(purge))).await.unwrap();
    assert_eq!(store.load_kept(shard).await.unwrap().samples, [(heads[2], Millis(3_000))]);
}

/// A batch of these changes; moves the head.
fn batch_after(
    shard: ShardId,
    opening: &Opening,
    head: &mut Seq,
    changes: Vec<Change>,
) -> StoreBatch {
    let changes = Arc::new(Batch { first: head.next(), changes });
    *head = changes.last();
    batch_of(shard, opening, &changes)
}

async fn keys_are_forgotten_oldest_first_and_as_many_as_asked(bench: &impl Bench, shard: ShardId) {
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(3)).await.unwrap();
    let made = |n: u64| IdempotencyRow { created_at: Millis(n), ..key(&format!("key {n:03}")) };
    let mut batch = side_rows(shard, opening.epoch, opening.head);
    batch.idempotency = (0..100).rev().map(made).collect();
    store.commit(&batch).await.unwrap();
    let mut left = 100;
    for (before, rows_max, gone) in [(50, 30, 30), (50, 30, 20), (50, 30, 0), (1_000, 40, 40)] {
        let mut step = side_rows(shard, opening.epoch, opening.head);
        step.upkeep.forget_keys = Some(ForgetKeys { before: Millis(before), rows_max });
        let committed = store.commit(&step).await.unwrap();
        assert_eq!(committed, Committed { keys_forgotten: gone, ..Committed::default() });
        left -= gone;
        let mut rows = store.load_idempotency(shard, Millis(0)).await.unwrap();
        rows.sort_by_key(|row| row.created_at);
        assert_eq!(rows, (100 - left..100).map(made).collect::<Vec<_>>());
    }
}

async fn a_gone_device_leaves_a_bare_tombstone_and_its_traces_go_in_steps(
    bench: &impl Bench,
    shard: ShardId,
) {
    let mut generator = Generator::new(13);
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    // Their app and four devices.
    let made = generator.devices(5, false);
    let devices: Vec<(AppId, DeviceId)> = made
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Device(row) => Some((row.app, row.id)),
            _ => None,
        })
        .collect();
    let (stays, goes) = (devices[3], &devices[..3]);
    let mut batch = batch_of(shard, &opening, &made);
    for (app, device) in &devices {
        let of = |id| ReceiptRow { app: *app, device: *device, ..receipt(id, "displayed") };
        batch.receipts.extend((0..100).map(of));
    }
    store.commit(&batch).await.unwrap();
    let (app, ids) = (devices[0].0, devices.iter().map(|(_, id)| *id).collect());
    let seen = Change::Seen { app, at: Millis::of_hour(5), devices: ids };
    let mut head = made.last();
    store.commit(&batch_after(shard, &opening, &mut head, vec![seen])).await.unwrap();
    let gone = |&(app, id): &(AppId, DeviceId)| Change::DeviceGone { app, id };
    let gone = Batch { first: head.next(), changes: goes.iter().map(gone).collect() };
    store.commit(&batch_of(shard, &opening, &Arc::new(gone.clone()))).await.unwrap();

    let bare = format!(
        "SELECT COUNT(*) FROM devices WHERE shard = {shard} AND deleted = 1 AND user_id IS NULL AND attributes = '{{}}' \
         AND group_ids = '[]' AND secret_sha256 IS NULL AND push_tokens IS NULL AND created_at = 0 AND p_seq = 0 \
         AND generation_seq = 0"
    );
    assert_eq!(bench.sql(DATABASE, &bare).trim(), "3");
    // A crash right here loses no erasure.
    let opening = store.begin_epoch(shard, claim(2)).await.unwrap();
    let mut pending = store.load_kept(shard).await.unwrap().erasures;
    pending.sort();
    let mut expected = goes.to_vec();
    expected.sort();
    assert_eq!(pending, expected);

    let count = |table: &str| {
        let select = format!("SELECT COUNT(*) FROM {table} WHERE shard = {shard}");
        bench.sql(DATABASE, &select).trim().parse::<u64>().unwrap()
    };
    for (erased, left) in [(120, 280), (120, 160), (60, 100), (0, 100)] {
        let mut step = side_rows(shard, opening.epoch, opening.head);
        step.upkeep.erase = Some(Erase { devices: pending.clone(), rows_max: 120 });
        let committed = store.commit(&step).await.unwrap();
        assert_eq!(committed, Committed { receipts_erased: erased, ..Committed::default() });
        assert_eq!((count("receipts"), count("device_seen")), (left, 1));
        // Those that still have receipts are remembered.
        assert_eq!(count("erasures"), (left - 100).div_ceil(100));
    }
    let mut rows = Vec::new();
    store.load(shard, &mut |row| rows.push(row)).await.unwrap();
    let left = rows.iter().filter_map(|row| match row {
        Row::Device(row) => Some((row.app, row.id, row.last_seen)),
        _ => None,
    });
    assert_eq!(left.collect::<Vec<_>>(), [(stays.0, stays.1, Millis::of_hour(5))]);
    assert_eq!(store.load_kept(shard).await.unwrap().erasures, []);
}

/// A history with its purges, each taken in steps of a few seqs: the store must hold what the model holds, which purges
/// at once.
async fn a_purge_in_steps_leaves_what_one_purge_leaves(bench: &impl Bench, shard: ShardId) {
    let mut generator = Generator::new(14);
    let mut model = Model::default();
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    for _ in 0..12 {
        let changes = generator.batch(200);
        let mut head = Seq::new(changes.first.get() - 1);
        let mut horizon = model.horizon;
        // Of the history's own purges only the steps below are made, so that seqs stay as they are.
        for (seq, change) in changes.numbered() {
            let change = match change {
                Change::Purge { horizon: to } if *to > horizon => {
                    let step = Seq::new(horizon.get() + 1 + (to.get() - horizon.get()) / 3);
                    Change::Purge { horizon: step.min(*to) }
                }
                other => other.clone(),
            };
            let batch = Arc::new(Batch { first: seq, changes: vec![change] });
            let commit = StoreBatch { head, horizon, ..batch_of(shard, &opening, &batch) };
            store.commit(&commit).await.unwrap();
            model.apply_batch(&batch);
            (head, horizon) = (seq, model.horizon);
        }
        assert_holds(&mut store, shard, &model).await;
        for (table, deleted, count, sum) in model.footprint() {
            let select = format!(
                "SELECT COUNT(*), COALESCE(SUM(changed_seq), 0) FROM {table} WHERE shard = {shard} AND deleted = {}",
                u8::from(deleted)
            );
            let found = bench.sql(DATABASE, &select);
            assert_eq!(found.trim(), format!("{count}\t{sum}"), "{table}, deleted: {deleted}");
        }
        let revisions: usize = model.messages.values().map(|kept| kept.revisions.len()).sum();
        let select = format!("SELECT COUNT(*) FROM message_revisions WHERE shard = {shard}");
        assert_eq!(bench.sql(DATABASE, &select).trim(), revisions.to_string());
    }
}

/// However much lives below the horizon and above it, a step reads what it forgets: the server counts the rows.
pub(crate) async fn mariadb_reads_only_what_a_step_forgets(bench: &MariaDb) {
    let shard = ShardId::new(4);
    let mut generator = Generator::new(15);
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let mut opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    let mut head = Seq::ZERO;
    for _ in 0..20 {
        // Messages, edits, ends, groups, devices, tombstones; no purge yet.
        let made = generator.batch(1_000);
        let plain = |change: &Change| match change {
            Change::Purge { .. } => Change::DeviceGone { app: AppId::new(1), id: DeviceId::new(1) },
            other => other.clone(),
        };
        let changes = made.changes.iter().map(plain).collect();
        let changes = Arc::new(Batch { first: made.first, changes });
        head = changes.last();
        store.commit(&batch_of(shard, &opening, &changes)).await.unwrap();
    }
    let reads = || {
        let shown = bench.sql("SHOW GLOBAL STATUS LIKE 'Handler_read%'");
        let value = |line: &str| line.split('\t').nth(1).and_then(|n| n.trim().parse::<u64>().ok());
        shown.lines().filter_map(value).sum::<u64>()
    };
    let idle = {
        let before = reads();
        reads() - before
    };
    assert!(head.get() > 5_000, "{head}");
    let last = head;
    for step in 1..=10 {
        let horizon = Seq::new(last.get() * step / 10);
        let purge = Batch { first: head.next(), changes: vec![Change::Purge { horizon }] };
        let seqs = horizon.since(opening.horizon);
        let before = reads();
        store.commit(&batch_of(shard, &opening, &Arc::new(purge))).await.unwrap();
        let read = reads() - before - idle;
        opening.horizon = horizon;
        head = head.next();
        // Three kinds of tombstone, messages, revisions twice; each row by the index and by its key.
        assert!(read <= 12 * seqs + 500, "{read} rows read for {seqs} seqs");
    }
}
