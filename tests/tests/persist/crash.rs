//! Outcomes that nobody told us: owners that pause, answers that do not come, servers that die.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use carillon_persist::{
    AnyStore, CommitError, EpochClaim, Opening, Store, StoreBatch, StoreOptions,
};
use carillon_tests::mariadb::MariaDb;
use carillon_world::{
    AppId, AppRow, Batch, Change, DeviceId, DeviceRow, Environment, Millis, Quotas, Seq, ShardId,
};
use mysql_async::prelude::Queryable;
use rand::Rng;

use crate::model::{Generator, Model};
use crate::suite::{DATABASE, assert_holds, batch_of, claim, options, random_tag};
use crate::{Bench, open};

/// An operator's connection.
async fn connect(server: &MariaDb) -> mysql_async::Conn {
    mysql_async::Conn::from_url(server.url(DATABASE)).await.unwrap()
}

pub(crate) async fn a_paused_owner_is_deposed(server: &MariaDb) {
    let shard = ShardId::new(12);
    let mut store = open(server, DATABASE, &options()).await.unwrap();
    store.begin_epoch(shard, claim(1)).await.unwrap();
    // An owner that stopped in the middle of a batch that it did not send whole.
    let mut paused = connect(server).await;
    let update = format!(
        "UPDATE lease SET head = 9, owner_connection = CONNECTION_ID() WHERE shard = {shard}"
    );
    paused.query_drop("START TRANSACTION").await.unwrap();
    paused.query_drop(update).await.unwrap();
    let began = std::time::Instant::now();
    let opening = store.begin_epoch(shard, claim(2)).await.unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "an owner has a second: {:?}",
        began.elapsed()
    );
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(opening.head, Seq::ZERO);
    assert!(paused.query_drop("COMMIT").await.is_err());
}

pub(crate) async fn a_batch_larger_than_a_packet_is_whole_or_absent(server: &MariaDb) {
    let shard = ShardId::new(13);
    MariaDb::sql(server, "SET GLOBAL max_allowed_packet = 1048576");
    let mut store = open(server, DATABASE, &options()).await.unwrap();
    MariaDb::sql(server, "SET GLOBAL max_allowed_packet = 16777216");
    let opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    drop(store);
    MariaDb::sql(server, "SET GLOBAL max_allowed_packet = 1048576");
    let mut store = open(server, DATABASE, &options()).await.unwrap();
    let mut model = Model::default();
    let user: Arc<str> = "it's \\ 4 KiB ".repeat(315).into();
    let app = Change::App(Arc::new(AppRow {
        id: AppId::new(1),
        name: "large".into(),
        environment: Environment::Sandbox,
        publishable_key: "pk_large".into(),
        created_at: Millis(1),
        quotas: Quotas::default(),
        push: None,
    }));
    let device = |id| {
        Change::Device(Arc::new(DeviceRow {
            id: DeviceId::new(id),
            app: AppId::new(1),
            generation: Seq::new(1),
            p: Seq::new(1),
            created_at: Millis(1),
            user: Some(user.clone()),
            attributes: Box::default(),
            groups: Box::default(),
            private: None,
            last_seen: Millis::ZERO,
        }))
    };
    let changes = std::iter::once(app).chain((0..1000).map(device)).collect();
    let changes = Arc::new(Batch { first: Seq::new(1), changes });
    let good = batch_of(shard, &opening, &changes);
    let ahead = Arc::new(Batch { first: Seq::new(2), changes: changes.changes.clone() });
    let error = store.commit(&batch_of(shard, &opening, &ahead)).await.unwrap_err();
    assert!(matches!(error, CommitError::Fenced { .. }), "{error:?}");
    assert_holds(&mut store, shard, &model).await;
    store.commit(&good).await.unwrap();
    model.apply_batch(&changes);
    assert_holds(&mut store, shard, &model).await;
    MariaDb::sql(server, "SET GLOBAL max_allowed_packet = 16777216");
}

/// Begins an epoch that holds the present one, and says whether `batch` was committed.
async fn resolve(store: &mut AnyStore, batch: &StoreBatch, tag: u64) -> (Opening, bool) {
    let claim = EpochClaim { held: Some(batch.epoch), ..claim(tag) };
    let opening = store.begin_epoch(batch.shard, claim).await.unwrap();
    assert!(
        opening.head == batch.head || opening.head == batch.last(),
        "{} of {batch:?}",
        opening.head
    );
    let committed = opening.head >= batch.last();
    (opening, committed)
}

pub(crate) async fn a_timeout_has_an_unknown_outcome_that_a_fence_resolves(server: &MariaDb) {
    let shard = ShardId::new(14);
    // Shorter than a batch waits for a lock, so that it is still at work when its caller gives up.
    let impatient = StoreOptions { read_timeout: Duration::from_millis(300), ..options() };
    let mut generator = Generator::new(14);
    let mut model = Model::default();
    let mut patient = open(server, DATABASE, &options()).await.unwrap();
    let mut opening = patient.begin_epoch(shard, claim(1)).await.unwrap();
    let mut outcomes = [0, 0];
    for round in 0..8 {
        let mut store = open(server, DATABASE, &impatient).await.unwrap();
        let mut blocker = connect(server).await;
        blocker.query_drop("START TRANSACTION").await.unwrap();
        blocker
            .query_drop(format!("SELECT head FROM lease WHERE shard = {shard} FOR UPDATE"))
            .await
            .unwrap();
        let changes = generator.batch(30);
        let batch = batch_of(shard, &opening, &changes);
        let error = store.commit(&batch).await.unwrap_err();
        assert!(matches!(error, CommitError::Unknown { .. }), "{error:?}");
        // The batch goes on before the fence, or races with it, or is still stuck when the fence loses patience.
        let held_for = Duration::from_millis([0, 50, 0, 50, 0, 50, 1500, 1500][round]);
        let release = async {
            tokio::time::sleep(held_for).await;
            blocker.query_drop("ROLLBACK").await.unwrap();
        };
        let committed;
        if round < 4 {
            release.await;
            (opening, committed) = resolve(&mut patient, &batch, random_tag(&mut generator)).await;
        } else {
            let tag = random_tag(&mut generator);
            ((), (opening, committed)) = tokio::join!(release, resolve(&mut patient, &batch, tag));
        }
        outcomes[usize::from(committed)] += 1;
        // Long enough for a lost batch to be committed after all, if it could be.
        tokio::time::sleep(Duration::from_millis(100)).await;
        if !committed {
            assert_holds(&mut patient, shard, &model).await;
            patient.commit(&batch_of(shard, &opening, &changes)).await.unwrap();
        }
        model.apply_batch(&changes);
        assert_holds(&mut patient, shard, &model).await;
    }
    assert!(outcomes[0] >= 2 && outcomes[1] >= 2, "lost and committed: {outcomes:?}");
    println!("timeouts: {} batches were lost, {} committed", outcomes[0], outcomes[1]);
}

pub(crate) async fn killed_servers_leave_batches_whole_or_absent_and_a_fence_tells_which(
    server: &mut MariaDb,
) {
    const ROUNDS: u64 = 8;
    let shard = ShardId::new(15);
    let mut generator = Generator::new(15);
    let mut model = Model::default();
    let mut store = open(server, DATABASE, &options()).await.unwrap();
    let mut opening = store.begin_epoch(shard, claim(1)).await.unwrap();
    let (mut committed, mut unknown) = (0, [0, 0]);
    for _ in 0..ROUNDS {
        let pid = server.pid().expect("it runs").to_string();
        let delay = Duration::from_micros(generator.random.random_range(2_000..60_000));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            Command::new("kill").args(["-9", &pid]).status().unwrap()
        });
        let (lost, error) = loop {
            let changes = generator.batch(30);
            let batch = batch_of(shard, &opening, &changes);
            match store.commit(&batch).await {
                Ok(_) => model.apply_batch(&changes),
                Err(error) => break (batch, error),
            }
            committed += 1;
        };
        assert!(killer.join().unwrap().success());
        server.kill9();
        assert!(!matches!(error, CommitError::Fenced { .. }), "{error:?}");
        // While the server is down nothing more is known, and a batch on top is certainly refused.
        let again = store.commit(&lost).await.unwrap_err();
        assert!(matches!(again, CommitError::Refused { .. }), "{again:?}");
        server.bring_up();
        let was_committed;
        (opening, was_committed) = resolve(&mut store, &lost, random_tag(&mut generator)).await;
        match error {
            CommitError::Unknown { .. } => unknown[usize::from(was_committed)] += 1,
            _ => assert!(!was_committed, "{error:?}"),
        }
        let changes = lost.changes.expect("it had some");
        if !was_committed {
            assert_holds(&mut store, shard, &model).await;
            store.commit(&batch_of(shard, &opening, &changes)).await.unwrap();
        }
        model.apply_batch(&changes);
        assert_holds(&mut store, shard, &model).await;
    }
    println!(
        "kills: {committed} acknowledged; of the unknown {} were lost, {} committed",
        unknown[0], unknown[1]
    );
    assert!(committed >= ROUNDS, "{committed} batches were acknowledged");
    assert!(unknown[0] + unknown[1] >= ROUNDS / 2, "too few kills fell into a batch: {unknown:?}");
}
