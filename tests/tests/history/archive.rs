//! `carillon archive`, killed at any moment: each record is in the lake once.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use carillon_persist::history::kafka::{KafkaOptions, Producer};
use carillon_persist::history::lake::{Lake, LakeOptions, Query};
use carillon_persist::history::{Record, RecordId};
use carillon_tests::history::{Archiver, Broker, S3, duckdb};
use carillon_world::ShardId;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{PATIENCE, record, records, report};

/// More than partitions, so that two share one.
const SHARDS: u16 = 3;
const PARTITIONS: u16 = 2;
/// How long one goes on that another has taken the topic from, while something comes.
const FENCED_MAX: Duration = Duration::from_secs(5);

struct Trial {
    folder: TempDir,
    broker: Broker,
    kafka: KafkaOptions,
    options: LakeOptions,
    lake: Lake,
}

impl Trial {
    fn new(lake: impl FnOnce(&Path) -> LakeOptions) -> Trial {
        let folder = tempfile::Builder::new().prefix("carillon-").tempdir().expect("a folder");
        let options = lake(folder.path());
        let broker = Broker::start();
        let mut kafka = KafkaOptions::new(broker.brokers(), broker.topic());
        kafka.partitions = PARTITIONS;
        let lake = Lake::open(&options).expect("options that work");
        Trial { folder, broker, kafka, options, lake }
    }

    fn local() -> Trial {
        Trial::new(|folder| {
            let url = folder.join("lake").display().to_string();
            LakeOptions::new(url.parse().expect("an absolute path"))
        })
    }

    fn archiver(&self) -> Archiver {
        self.archiver_with(&[("archive-flush-interval", "200ms"), ("archive-flush-rows", "3000")])
    }

    fn archiver_with(&self, more: &[(&str, &str)]) -> Archiver {
        let mut flags = vec![
            ("history-kafka-brokers", self.broker.brokers().to_owned()),
            ("history-kafka-topic", self.kafka.topic.clone()),
            ("history-kafka-partitions", self.kafka.partitions.to_string()),
            ("history-lake", self.options.url.to_string()),
        ];
        flags.extend(more.iter().map(|(flag, value)| (*flag, (*value).to_owned())));
        let s3 = &self.options.s3;
        let mut variables = Vec::new();
        if let (Some(endpoint), Some(key_id), Some(secret)) = (&s3.endpoint, &s3.key_id, &s3.secret)
        {
            flags.push(("history-s3-endpoint", endpoint.clone()));
            flags.push(("history-s3-region", "us-east-1".to_owned()));
            flags.push(("history-s3-key-id", key_id.clone()));
            flags.push(("history-s3-path-style", "true".to_owned()));
            flags.push(("history-s3-allow-http", "true".to_owned()));
            variables.push(("CARILLON__HISTORY__S3_SECRET", secret.as_str()));
        }
        Archiver::start(self.folder.path(), &flags, &variables)
    }

    /// Sends each shard's records in turns, some of them twice as after an error, for as long as `more` is true of the
    /// number sent; gives the last number of each shard.
    fn produce(&self, least: u64, time: Duration) -> JoinHandle<BTreeMap<u16, u64>> {
        let kafka = self.kafka.clone();
        tokio::spawn(async move {
            let mut producers = Vec::new();
            for shard in 0..SHARDS {
                let producer = Producer::open(&kafka, ShardId::new(shard)).await.expect("options");
                producers.push((shard, producer, 0));
            }
            let begun_at = tokio::time::Instant::now();
            while begun_at.elapsed() < time || producers.iter().any(|(.., sent)| *sent < least) {
                for (shard, producer, sent) in &mut producers {
                    let next = *sent + rand::random_range(1..400);
                    let news = records(*shard, *sent + 1..=next);
                    if rand::random_ratio(1, 8) {
                        let some = rand::random_range(1..=news.len());
                        producer.send(&news[..some]).await.expect("a broker that runs");
                    }
                    producer.send(&news).await.expect("a broker that runs");
                    *sent = next;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            producers.into_iter().map(|(shard, _, sent)| (shard, sent)).collect()
        })
    }

    /// All records in the lake, none of which is there twice.
    async fn read(&self) -> Vec<Record> {
        let mut read = Vec::new();
        let mut ids: HashSet<RecordId> = HashSet::new();
        self.lake
            .read(&Query::first(10_000_000), |record| {
                assert!(ids.insert(record.id), "{record:?} is there twice");
                read.push(record);
                ControlFlow::Continue(())
            })
            .await
            .expect("a lake that can be read");
        read
    }

    /// Waits until the lake has the last record of each shard.
    async fn caught_up(&self, last: &BTreeMap<u16, u64>) {
        for (&shard, &n) in last {
            let source = format!("{}-{}", self.kafka.topic, shard % PARTITIONS);
            let arrived = async {
                loop {
                    let tail = self.lake.tail(&source, ShardId::new(shard)).await;
                    if tail.is_ok_and(|tail| tail.is_some_and(|tail| tail.seq == n)) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let log = || std::fs::read_to_string(self.folder.path().join("archive.log"));
            let waited = tokio::time::timeout(PATIENCE, arrived).await;
            assert!(waited.is_ok(), "shard {shard} to {n}:\n{}", log().unwrap_or_default());
        }
    }

    /// Each record that was sent is in the lake once, and as it was sent.
    async fn check(&self, last: &BTreeMap<u16, u64>) {
        let mut read = self.read().await;
        read.sort_by_key(|record| (record.id.shard.get(), record.id.seq));
        let sent = last.iter().flat_map(|(&shard, &n)| (1..=n).map(move |n| record(shard, n)));
        let mut at = 0;
        for sent in sent {
            assert_eq!(read.get(at), Some(&sent), "record {at} of {}", read.len());
            at += 1;
        }
        assert_eq!(at, read.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_that_is_killed_at_random_writes_each_record_once() {
    let trial = Trial::local();
    let producing = trial.produce(20_000, Duration::from_secs(8));
    let mut archiver = trial.archiver();
    let (mut kills, mut overlaps, mut fenced) = (0, 0, 0);
    while !producing.is_finished() || kills + overlaps < 10 {
        tokio::time::sleep(Duration::from_millis(rand::random_range(20..900))).await;
        if rand::random_ratio(1, 3) {
            // A second one, as when somebody believes that the first is gone.
            let second = trial.archiver();
            let mut first = std::mem::replace(&mut archiver, second);
            if rand::random() {
                archiver.ready().await;
                let since = Instant::now();
                // It is told when it writes, so not once nothing comes any more.
                while first.has_ended().is_none() && !producing.is_finished() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                if let Some(status) = first.has_ended() {
                    assert_eq!(status.code(), Some(1), "{}", archiver.log());
                    fenced += 1;
                } else {
                    assert!(since.elapsed() < FENCED_MAX, "{}", first.log());
                    first.kill9();
                }
            } else {
                tokio::time::sleep(Duration::from_millis(rand::random_range(0..300))).await;
                first.kill9();
            }
            overlaps += 1;
        } else {
            archiver.kill9();
            archiver = trial.archiver();
            kills += 1;
        }
        trial.read().await;
    }
    let last = producing.await.expect("it sends");
    trial.caught_up(&last).await;
    assert!(archiver.terminate().success(), "{}", archiver.log());
    trial.check(&last).await;
    assert!(archiver.log().contains("written to the lake"), "{}", archiver.log());
    let of_log = archiver.log();
    assert!(fenced == 0 || of_log.contains("another writer of the history"), "{of_log}");

    // As an analyst counts them.
    let files = trial.folder.path().join("lake/app=*/**/*.parquet");
    let rows = duckdb(&format!(
        "select shard, count(*), count(distinct event_seq), max(event_seq), \
         count(*) filter (cast(json_extract(data, '$.n') as bigint) = event_seq) \
         from read_parquet('{}', hive_partitioning = false) group by shard order by shard",
        files.display()
    ));
    let counted: Vec<_> = last.iter().map(|(shard, n)| json!([shard, n, n, n, n])).collect();
    assert_eq!(rows, counted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_in_s3_has_each_record_once_too() {
    let s3 = S3::start();
    far_away(Trial::new(|_| s3.lake("history"))).await;
}

/// Names a folder of a running HDFS, `hdfs://namenode:9000/path`, for tests and an executable built with the feature.
const HDFS: &str = "CARILLON_TEST_HDFS";

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_in_hdfs_has_each_record_once_too() {
    let Ok(url) = std::env::var(HDFS) else {
        return report(&format!("not run: {HDFS} names no HDFS"));
    };
    let url = format!("{url}/test-{:016x}", rand::random::<u64>());
    let url = url.parse().unwrap_or_else(|error| panic!("{HDFS}: {error}"));
    far_away(Trial::new(|_| LakeOptions::new(url))).await;
}

async fn far_away(trial: Trial) {
    let producing = trial.produce(3000, Duration::from_secs(4));
    let mut archiver = trial.archiver();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(rand::random_range(300..1500))).await;
        archiver.kill9();
        archiver = trial.archiver();
        trial.read().await;
    }
    let last = producing.await.expect("it sends");
    trial.caught_up(&last).await;
    assert!(archiver.terminate().success(), "{}", archiver.log());
    trial.check(&last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_is_written_before_the_end_and_counted() {
    let trial = Trial::local();
    // Nothing is due before the end.
    let mut archiver = trial.archiver_with(&[("archive-flush-interval", "1h")]);
    let last = trial.produce(500, Duration::ZERO).await.expect("it sends");
    let sent: u64 = last.values().sum();
    archiver.ready().await;
    let all = async {
        while archiver.metric("archive_records_total").await < sent {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("all are read");
    assert_eq!(archiver.metric("archive_records_total").await, sent);
    assert_eq!(archiver.metric("archive_waiting_rows").await, sent);
    assert_eq!(archiver.metric("archive_rows_total").await, 0);
    assert!(archiver.terminate().success(), "{}", archiver.log());
    trial.check(&last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_work_is_told_of_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let brokers = ("history-kafka-brokers", "127.0.0.1:1".to_owned());
    let lake = ("history-lake", folder.path().join("lake").display().to_string());
    let mut bare = Archiver::start(folder.path(), &[], &[]);
    assert_eq!(bare.ended().code(), Some(2), "{}", bare.log());
    for key in ["history.kafka_brokers", "history.lake"] {
        assert!(bare.log().contains(&format!("{key}: required")), "{}", bare.log());
    }
    let properties = ("CARILLON__HISTORY__KAFKA_PROPERTIES", "acks = 1\nsasl.password = s3cret");
    let mut weak = Archiver::start(folder.path(), &[brokers, lake], &[properties]);
    assert_eq!(weak.ended().code(), Some(2), "{}", weak.log());
    assert!(weak.log().contains("history.kafka_properties: acks"), "{}", weak.log());
    assert!(!weak.log().contains("s3cret"), "{}", weak.log());
    assert!(!folder.path().join("lake").exists());
}
