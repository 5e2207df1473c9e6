//! What the store does with the events of batches, and with the names of devices in the history.

use carillon_persist::history::{
    EndedDevice, ForgetOutbox, OutboxEvent, OutboxKept, OutboxRow, Pseudonym, PseudonymRow,
};
use carillon_persist::{Store as _, StoreBatch};
use carillon_world::{AppId, DeviceId, Millis, ShardId};

use crate::suite::{DATABASE, claim, options, side_rows};
use crate::{Bench, open};

pub(crate) async fn run(bench: &impl Bench, shard: ShardId) {
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    assert_eq!(opening.events, 0);
    let kept = store.load_kept(shard).await.unwrap().outbox;
    assert_eq!(kept, OutboxKept::default());

    let row = |first: u64, events: u32, bytes: usize| OutboxRow {
        epoch: opening.epoch,
        first,
        events,
        payload: vec![u8::try_from(first % 251).unwrap(); bytes].into(),
    };
    let rows = [row(1, 3, 100), row(4, 1, 2_000), row(5, 1_000, 70), row(1_005, 2, 5_000)];
    let name = |n: u64, byte: u8| PseudonymRow {
        app: AppId::new(u64::MAX),
        device: DeviceId::new(n),
        since: 0,
        pseudonym: Pseudonym::new([byte; 16]),
    };
    let head = opening.head;
    for (n, row) in (0_u8..).zip(&rows) {
        let mut batch: StoreBatch = side_rows(shard, opening.epoch, head);
        batch.history.outbox = Some(row.clone());
        // The first name stays.
        batch.history.pseudonyms = vec![name(1, n), name(u64::MAX - u64::from(n), n)];
        store.commit(&batch).await.unwrap();
    }
    let kept = store.load_kept(shard).await.unwrap().outbox;
    assert_eq!(kept, OutboxKept { head: 1_006, bytes: 7_170 });
    assert_eq!(store.outbox(shard, 0, u64::MAX).await.unwrap(), rows);
    assert_eq!(store.outbox(shard, 4, u64::MAX).await.unwrap(), rows[2..]);
    // At least one, and about as much as was asked for.
    assert_eq!(store.outbox(shard, 0, 1).await.unwrap(), rows[..1]);
    assert_eq!(store.outbox(shard, 0, 2_170).await.unwrap(), rows[..3]);
    let number = opening.epoch.number;
    assert_eq!(store.outbox_after_epoch(shard, number - 1).await.unwrap(), Some((1, number)));
    assert_eq!(store.outbox_after_epoch(shard, number).await.unwrap(), None);
    assert!(store.outbox(shard, 1_006, u64::MAX).await.unwrap().is_empty());
    assert!(store.outbox(ShardId::FIRST, 0, u64::MAX).await.unwrap().is_empty(), "of a shard");

    let asked = [1, 2, u64::MAX, u64::MAX - 3].map(|n| (AppId::new(u64::MAX), DeviceId::new(n)));
    let mut found = store.pseudonyms(shard, &asked).await.unwrap();
    found.sort_by_key(|row| row.device);
    assert_eq!(found, [name(1, 0), name(u64::MAX - 3, 3), name(u64::MAX, 0)]);

    // What is with the history goes; a device that came back in the same batch has its new name.
    let mut batch = side_rows(shard, opening.epoch, head);
    let ended = |(app, device): (AppId, DeviceId), event: u64| EndedDevice { app, device, event };
    let devices = vec![ended(asked[0], 700), ended(asked[2], 1_000)];
    batch.history.forget = Some(ForgetOutbox { through: 1_004, devices });
    let again = PseudonymRow { since: 701, ..name(1, 9) };
    batch.history.pseudonyms = vec![again];
    // A repeat of it, as after an outcome that was not known, changes nothing.
    for _ in 0..2 {
        store.commit(&batch).await.unwrap();
        assert_eq!(store.outbox(shard, 0, u64::MAX).await.unwrap(), rows[3..]);
        let mut found = store.pseudonyms(shard, &asked).await.unwrap();
        found.sort_by_key(|row| row.device);
        assert_eq!(found, [again, name(u64::MAX - 3, 3)]);
    }
    // Until its end is with the history it has both names.
    let mut batch = side_rows(shard, opening.epoch, head);
    let later = PseudonymRow { since: 1_006, ..name(1, 8) };
    batch.history.pseudonyms = vec![later, PseudonymRow { since: 1_006, ..name(1, 7) }];
    store.commit(&batch).await.unwrap();
    assert_eq!(store.pseudonyms(shard, &asked[..1]).await.unwrap(), [later, again], "newest first");
    let kept = store.load_kept(shard).await.unwrap().outbox;
    assert_eq!(kept, OutboxKept { head: 1_006, bytes: 5_000 });

    // The count of events outlives them, and another owner is told.
    let mut batch = side_rows(shard, opening.epoch, head);
    let devices = vec![ended(asked[0], 1_005)];
    batch.history.forget = Some(ForgetOutbox { through: 1_006, devices });
    store.commit(&batch).await.unwrap();
    assert_eq!(store.pseudonyms(shard, &asked[..1]).await.unwrap(), [later]);
    let again = store.begin_epoch(shard, claim(2)).await.unwrap();
    assert_eq!(again.events, 1_006);
    let shown = format!("SELECT device, pseudonym FROM pseudonyms_view WHERE shard = {shard}");
    let shown = bench.sql(DATABASE, &shown);
    assert!(shown.contains(&format!("0000000000000001\t{}", "08".repeat(16))), "{shown}");
}

/// A batch with more events than a row should have.
pub(crate) async fn many_events_of_one_batch(bench: &impl Bench, shard: ShardId) {
    const EVENTS: u32 = 5_000;
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    let mut payload = Vec::new();
    for n in 0..EVENTS {
        let data = format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(n as usize % 500));
        OutboxEvent {
            event: "a.b",
            at: Millis(n.into()),
            change: None,
            app: None,
            device: None,
            message: None,
            data: &data,
        }
        .write(&mut payload);
    }
    let bytes = payload.len() as u64;
    let row = OutboxRow { epoch: opening.epoch, first: 1, events: EVENTS, payload: payload.into() };
    let mut batch: StoreBatch = side_rows(shard, opening.epoch, opening.head);
    batch.history.outbox = Some(row.clone());
    store.commit(&batch).await.unwrap();
    let kept = store.load_kept(shard).await.unwrap().outbox;
    assert_eq!(kept, OutboxKept { head: EVENTS.into(), bytes });
    let rows = store.outbox(shard, 0, u64::MAX).await.unwrap();
    assert!(rows.len() > 3 && rows.iter().all(|row| row.payload.len() <= 256 * 1024));
    let events: Vec<_> = rows.iter().flat_map(|row| row.events().unwrap()).collect();
    assert_eq!(events, row.events().unwrap());
    // A part of a batch may be told before the rest.
    let through = rows[0].last();
    let mut batch = side_rows(shard, opening.epoch, opening.head);
    batch.history.forget = Some(ForgetOutbox { through, devices: Vec::new() });
    store.commit(&batch).await.unwrap();
    assert_eq!(store.outbox(shard, through, u64::MAX).await.unwrap(), rows[1..]);
}

pub(crate) async fn names_outlive_the_migration_that_dates_them(bench: &impl Bench) {
    let database = "named";
    drop(open(bench, database, &options()).await.unwrap());
    // As it was before: a device has one name.
    bench.sql(database, "DROP VIEW pseudonyms_view");
    bench.sql(
        database,
        "CREATE TABLE pseudonyms AS SELECT shard, app, device, pseudonym FROM device_pseudonyms",
    );
    bench.sql(
        database,
        "INSERT INTO pseudonyms VALUES (0, 1, 2, x'000102030405060708090a0b0c0d0e0f')",
    );
    bench.sql(database, "DROP TABLE device_pseudonyms");
    bench.sql(database, "DELETE FROM schema_version WHERE version >= 11");
    let mut store = open(bench, database, &options()).await.unwrap();
    let name = PseudonymRow {
        app: AppId::new(1),
        device: DeviceId::new(2),
        since: 0,
        pseudonym: Pseudonym::new(std::array::from_fn(|n| u8::try_from(n).unwrap())),
    };
    assert_eq!(store.pseudonyms(ShardId::FIRST, &[(name.app, name.device)]).await.unwrap(), [name]);
    let shown = bench.sql(database, "SELECT since, pseudonym FROM pseudonyms_view");
    assert_eq!(shown, "0\t000102030405060708090a0b0c0d0e0f\n");
}
