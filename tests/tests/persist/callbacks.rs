//! What the store does with endpoints and the log that they are called from.

use std::sync::Arc;

use carillon_persist::{
    BatchCallbacks, CallbackId, CallbackLogFrom, CallbackLogRow, CallbackProgress, CallbackRetry,
    CallbackRow, CallbackState, CallbacksKept, SealedSecret, Store as _, StoreBatch,
};
use carillon_world::{AppId, Millis, ShardId};

use crate::suite::{DATABASE, claim, options, side_rows};
use crate::{Bench, open};

const APP: AppId = AppId::new(u64::MAX);
const OTHER: AppId = AppId::new(1);

fn row(id: u64, url: &str) -> CallbackRow {
    CallbackRow {
        id: CallbackId::new(id),
        app: APP,
        url: url.into(),
        events: "device.* message.state".into(),
        description: "it's ü \\ \"quoted\"".into(),
        state: CallbackState::Failing,
        changed_at: Millis(9),
        run: u32::MAX,
        secrets: vec![
            SealedSecret { sealed: b"\x00\xff'"[..].into(), until: None },
            SealedSecret { sealed: b"2"[..].into(), until: Some(Millis(1 << 41)) },
        ],
        created_at: Millis(8),
    }
}

fn logged(app: AppId, first: u64, last: u64, bytes: usize) -> CallbackLogRow {
    let payload = vec![u8::try_from(first % 251).unwrap(); bytes].into();
    CallbackLogRow { app, first, last, first_at: Millis(first * 10), payload }
}

pub(crate) async fn run(bench: &impl Bench, shard: ShardId) {
    let mut store = open(bench, DATABASE, &options()).await.unwrap();
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    let kept = store.load_kept(shard).await.unwrap().callbacks;
    assert_eq!(kept, CallbacksKept::default());

    let retry = |event| CallbackRetry { event, attempts: 3, began: Millis(5), due: Millis(6) };
    let progress = CallbackProgress {
        cursor: 17,
        retries: vec![retry(4), retry(16)],
        delivered: 1 << 40,
        failed: 2,
        missed: 3,
        last_success_at: Some(Millis(4)),
        last_failure_at: None,
        failing_since: Some(Millis(6)),
        last_error: Some("HTTP status 500: 'no'".into()),
    };
    let long = format!("https://example.com/{}", "ü".repeat(1000));
    let rows = [row(7, "https://a.example/?a='b'"), row(u64::MAX, &long)];
    let log = [
        logged(APP, 3, 5, 100),
        logged(OTHER, 6, 6, 2_000),
        logged(APP, 9, 30, 70),
        logged(APP, 31, 31, 5_000),
    ];
    let batch = |callbacks: BatchCallbacks| {
        let mut batch: StoreBatch = side_rows(shard, opening.epoch, opening.head);
        batch.history.callbacks = callbacks;
        batch
    };
    let put = batch(BatchCallbacks {
        endpoints: rows.iter().cloned().map(Arc::new).collect(),
        progress: rows.iter().map(|row| (row.id, Arc::new(progress.clone()))).collect(),
        log: log.to_vec(),
        logged: Some(33),
        ..BatchCallbacks::default()
    });
    // A repeat of it, as after an outcome that was not known, changes nothing.
    for _ in 0..2 {
        store.commit(&put).await.unwrap();
        let mut kept = store.load_kept(shard).await.unwrap().callbacks;
        kept.endpoints.sort_by_key(|(row, _)| row.id);
        kept.last.sort();
        let endpoints = rows.iter().map(|row| (row.clone(), progress.clone())).collect();
        let last = vec![(OTHER, 6), (APP, 31)];
        assert_eq!(kept, CallbacksKept { endpoints, logged: 33, log_bytes: 7_170, last });
    }

    let mine = [log[0].clone(), log[2].clone(), log[3].clone()];
    for (from, expected) in [
        (CallbackLogFrom::Oldest, &log[..]),
        (CallbackLogFrom::After(APP, 0), &mine[..]),
        (CallbackLogFrom::After(APP, 2), &mine[..]),
        (CallbackLogFrom::After(APP, 3), &mine[..]),
        (CallbackLogFrom::After(APP, 4), &mine[..]),
        (CallbackLogFrom::After(APP, 5), &mine[1..]),
        (CallbackLogFrom::After(APP, 8), &mine[1..]),
        (CallbackLogFrom::After(APP, 29), &mine[1..]),
        (CallbackLogFrom::After(APP, 30), &mine[2..]),
        (CallbackLogFrom::After(APP, 31), &[]),
        (CallbackLogFrom::After(APP, u64::MAX), &[]),
        (CallbackLogFrom::After(AppId::new(5), 0), &[]),
        (CallbackLogFrom::Since(APP, Millis(0)), &mine[..]),
        (CallbackLogFrom::Since(APP, Millis(90)), &mine[..]),
        (CallbackLogFrom::Since(APP, Millis(91)), &mine[1..]),
        (CallbackLogFrom::Since(APP, Millis(u64::MAX)), &mine[2..]),
    ] {
        assert_eq!(store.callback_log(shard, from, u64::MAX).await.unwrap(), expected, "{from:?}");
    }
    // At least one, and about as much as was asked for.
    let from = CallbackLogFrom::After(APP, 0);
    assert_eq!(store.callback_log(shard, from, 1).await.unwrap(), mine[..1]);
    assert_eq!(store.callback_log(shard, from, 170).await.unwrap(), mine[..2]);
    let elsewhere = store.callback_log(ShardId::FIRST, CallbackLogFrom::Oldest, 1).await;
    assert!(elsewhere.unwrap().is_empty(), "of a shard");

    let changed =
        CallbackRow { state: CallbackState::Active, run: 0, ..row(7, "https://b.example/") };
    let gone = batch(BatchCallbacks {
        endpoints: vec![Arc::new(changed.clone())],
        gone: vec![CallbackId::new(u64::MAX)],
        forget: Some(6),
        ..BatchCallbacks::default()
    });
    store.commit(&gone).await.unwrap();
    let kept = store.load_kept(shard).await.unwrap().callbacks;
    let (endpoints, last) = (vec![(changed, progress)], vec![(APP, 31)]);
    assert_eq!(kept, CallbacksKept { endpoints, logged: 33, log_bytes: 5_070, last });
    let left = store.callback_log(shard, CallbackLogFrom::Oldest, u64::MAX).await.unwrap();
    assert_eq!(left, mine[1..]);
    let shown =
        format!("SELECT callback, state FROM callback_endpoints_view WHERE shard = {shard}");
    let shown = bench.sql(DATABASE, &shown);
    assert!(shown.contains("0000000000000007\tactive"), "{shown}");
}
