//! A store that was restored from a backup while its history went on: it is noticed, and the history says what never was.

use std::time::Duration;

use carillon_persist::history::Record;
use carillon_persist::history::lake::{Lake, LakeOptions};
use carillon_tests::cluster::{Cluster, Store, copy_store};
use carillon_tests::history::{Archiver, Broker, check_told, duckdb_all, outbox};
use carillon_world::ShardId;
use serde_json::{Value, json};

use super::central::{FLAGS, lake, write};
use super::manual::views;
use super::query::records;
use super::{PATIENCE, report};

/// What is written is more than any backup has.
const WRITES: Duration = Duration::from_millis(400);

/// How the history goes to the lake, which is in central's folder either way.
enum Way {
    Files,
    Topic { broker: Broker, archiver: Option<Archiver> },
}

impl Way {
    fn flags(&self) -> Vec<String> {
        match self {
            Way::Files => FLAGS.map(str::to_owned).to_vec(),
            Way::Topic { broker, .. } => ["--history-to", "kafka", "--history-kafka-brokers"]
                .map(str::to_owned)
                .into_iter()
                .chain([broker.brokers().to_owned()])
                .chain(["--history-kafka-topic".to_owned(), TOPIC.to_owned()])
                .collect(),
        }
    }

    /// The lake, once it has everything up to the event `head`.
    async fn lake(&mut self, cluster: &Cluster, head: u64) -> Vec<Record> {
        let Way::Topic { broker, archiver } = self else { return lake(cluster).await };
        let place = cluster.data().join("history").display().to_string();
        let flags = [
            ("history-kafka-brokers", broker.brokers().to_owned()),
            ("history-kafka-topic", TOPIC.to_owned()),
            ("history-lake", place.clone()),
            ("archive-flush-interval", "200ms".to_owned()),
        ];
        archiver.get_or_insert_with(|| Archiver::start(&cluster.data(), &flags, &[]));
        let there = Lake::open(&LakeOptions::new(place.parse().expect("a path"))).expect("a lake");
        let has_all = async {
            loop {
                let tail = there.tail(&format!("{TOPIC}-0"), ShardId::FIRST).await;
                if tail.is_ok_and(|tail| tail.is_some_and(|tail| tail.seq == head)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, has_all).await.expect("all arrive");
        // Its last files may be on their way to where they are read.
        let ended = archiver.take().map(|mut archiver| (archiver.terminate(), archiver.log()));
        assert!(ended.as_ref().is_some_and(|(status, _)| status.success()), "{ended:?}");
        lake(cluster).await
    }
}

const TOPIC: &str = "carillon.restored";

#[tokio::test(flavor = "multi_thread")]
async fn the_lake_knows_better_than_a_store_that_was_restored() {
    restored("files", Way::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topic_knows_better_than_a_store_that_was_restored() {
    restored("topic", Way::Topic { broker: Broker::start(), archiver: None }).await;
}

async fn restored(name: &str, mut way: Way) {
    let flags = way.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut cluster = Cluster::start_with(Store::Sqlite, &flags, &[]).await;
    write(&cluster, WRITES).await;
    cluster.stop_central();
    let backup = tempfile::tempdir().expect("a folder");
    copy_store(&cluster.data(), backup.path());
    let backed_up = outbox(&cluster).await.head;
    cluster.start_central().await;
    write(&cluster, WRITES).await;
    cluster.stop_central();
    let head = outbox(&cluster).await.head;
    let before = way.lake(&cluster, head).await;
    check_told(&before, head);

    copy_store(backup.path(), &cluster.data());
    let data = cluster.data().display().to_string();
    let mut beside = vec!["--data", &data, "--central-listen", "127.0.0.1:0"];
    beside.extend(["--central-stream-listen", "127.0.0.1:0"]);
    beside.extend(&flags);
    let mut refused = cluster.beside("restored", "central", &beside);
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(ended) = refused.ended() {
                return ended;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let ended = ended.await.expect("it does not start");
    assert!(!ended.success(), "{ended:?}");
    assert!(refused.log().contains("lost changes"), "{}", refused.log());

    cluster.start_central_with(&["--history-accept-restore", "true"]).await;
    cluster.stop_central();
    // Said once it need not be said again: the fork is in the lineage, though nothing was changed in it yet.
    cluster.start_central_with(&["--history-accept-restore", "false"]).await;
    write(&cluster, WRITES / 4).await;
    cluster.stop_central();
    // Nor as long as the fork has fewer changes than what it cut off.
    cluster.start_central().await;
    write(&cluster, WRITES).await;
    cluster.stop_central();
    cluster.start_central().await;
    cluster.stop_central();
    let head = outbox(&cluster).await.head;
    let after = way.lake(&cluster, head).await;
    assert_eq!(&after[..before.len()], &before[..], "what was written stays");
    let fork = after[before.len()..]
        .iter()
        .find(|record| record.event.as_str() == "shard.opened")
        .map(|record| serde_json::from_str::<Value>(record.data.get()).expect("JSON"))
        .expect("the fork is told");
    assert_eq!(fork["fork"], true, "{fork}");
    let number = |key: &str| fork[key].as_u64().expect("a number");
    let (epoch, events, began_after) = (number("epoch"), number("events"), number("began_after"));
    assert_eq!(number("from_epoch"), before[backed_up as usize - 1].id.epoch.number, "{fork}");
    // What a reader does: of epochs before the fork, what has a greater number never was.
    let is_true = |record: &&Record| record.id.epoch.number >= epoch || record.id.seq <= events;
    // Their changes say the same.
    for record in &after {
        if let Some(change) = record.change {
            let is_late = record.id.epoch.number < epoch && change.get() > began_after;
            assert_eq!(is_late, !is_true(&record), "{record:?}, {fork}");
        }
    }
    let lost = after.iter().filter(|record| !is_true(record)).count();
    assert!(events >= backed_up && lost > 50, "{lost} of {}", after.len());
    let truth: Vec<Record> = after.iter().filter(is_true).cloned().collect();
    check_told(&truth, head);
    report(&format!(
        "history, restored, {name}: {lost} events never were, {} are true",
        truth.len()
    ));
}

/// A store is restored while nobody can say so: what it tells since then waits until the fork is accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_restored_while_the_lake_is_away_tells_it_nothing_until_the_fork_is_accepted() {
    let mut cluster = Cluster::start_with(Store::Sqlite, &FLAGS, &[]).await;
    let data = cluster.data();
    write(&cluster, WRITES).await;
    cluster.stop_central();
    let backup = tempfile::tempdir().expect("a folder");
    copy_store(&data, backup.path());
    let backed_up = outbox(&cluster).await.head;
    cluster.start_central().await;
    write(&cluster, WRITES).await;
    cluster.stop_central();
    let told = lake(&cluster).await.len() as u64;

    copy_store(backup.path(), &data);
    // A file stands where the lake was.
    let (place, away) = (data.join("history"), data.join("away"));
    std::fs::rename(&place, &away).expect("take the lake away");
    std::fs::write(&place, "").expect("a file");
    cluster.start_central().await;
    write(&cluster, WRITES / 2).await;
    std::fs::remove_file(&place).expect("the file");
    std::fs::rename(&away, &place).expect("the lake is back");
    let began = tokio::time::Instant::now();
    while !cluster.central_log().contains("lost changes") {
        assert!(began.elapsed() < PATIENCE, "{}", cluster.central_log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The API goes on, and goes on waiting.
    write(&cluster, WRITES / 4).await;
    assert_eq!(lake(&cluster).await.len() as u64, told, "nothing was told");
    cluster.kill_central();
    cluster.start_central_with(&["--history-accept-restore", "true"]).await;
    write(&cluster, WRITES / 4).await;
    cluster.stop_central();

    let kept = outbox(&cluster).await;
    assert_eq!(kept.bytes, 0, "all is told");
    let all = lake(&cluster).await;
    let place = format!("--data={}", data.display());
    let mut truth = records(&[&place, "--limit=1000000", "--without-forks"]);
    truth.sort_by_key(|record| record.id.order());
    check_told(&truth, kept.head);
    let lost = all.len() - truth.len();
    assert_eq!(lost as u64, told - backed_up, "what the backup did not have");
    assert!(lost > 50 && kept.head > backed_up + 50, "{lost} of {}", all.len());
    let count = vec!["SELECT count(*) FROM truth".to_owned()];
    let counted = duckdb_all(&[views(&data.join("history")), count].concat());
    assert_eq!(counted[2], [json!([truth.len()])]);
    report(&format!(
        "history, restored while it was away: {lost} events never were, {} are true",
        truth.len()
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_backup_brings_back_what_an_older_one_undid() {
    let mut cluster = Cluster::start_with(Store::Sqlite, &FLAGS, &[]).await;
    let data = cluster.data();
    let backups = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let mut heads = Vec::new();
    for backup in &backups {
        write(&cluster, WRITES).await;
        cluster.stop_central();
        copy_store(&data, backup.path());
        heads.push(outbox(&cluster).await.head);
        cluster.start_central().await;
    }
    write(&cluster, WRITES / 4).await;
    cluster.stop_central();
    // The older one tells of more than the newer one has, and is restarted.
    let [older, newer] = &backups;
    copy_store(older.path(), &data);
    cluster.start_central_with(&["--history-accept-restore", "true"]).await;
    write(&cluster, 3 * WRITES).await;
    cluster.stop_central();
    cluster.start_central_with(&["--history-accept-restore", "false"]).await;
    cluster.stop_central();
    copy_store(newer.path(), &data);
    cluster.start_central_with(&["--history-accept-restore", "true"]).await;
    write(&cluster, WRITES / 4).await;
    cluster.stop_central();

    let head = outbox(&cluster).await.head;
    let all = lake(&cluster).await;
    let place = format!("--data={}", data.display());
    let mut truth = records(&[&place, "--limit=1000000", "--without-forks"]);
    truth.sort_by_key(|record| record.id.order());
    check_told(&truth, head);
    let lost = all.len() - truth.len();
    assert!(heads[0] < heads[1] && heads[1] < head && lost > 50, "{lost} of {}", all.len());
    let count = vec!["SELECT count(*) FROM truth".to_owned()];
    let counted = duckdb_all(&[views(&data.join("history")), count].concat());
    assert_eq!(counted[2], [json!([truth.len()])]);
    report(&format!("history, restored twice: {lost} events never were, {} are true", truth.len()));
}
