//! Against librdkafka's own cluster in memory. A broker of another maker is in `tests/tests/history`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use carillon_world::{Epoch, Millis, Seq, ShardId};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::value::RawValue;

use super::*;
use crate::history::{EventName, Record, RecordId};

const TOPIC: &str = "carillon.history";
const SHARD: ShardId = ShardId::new(3);
const PATIENCE: Duration = Duration::from_secs(30);

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster(partitions: i32) -> (Cluster, KafkaOptions) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, partitions, 1).unwrap();
    let options = KafkaOptions::new(cluster.bootstrap_servers(), TOPIC);
    (cluster, options)
}

fn record(shard: ShardId, epoch: u64, n: u64) -> Record {
    Record {
        id: RecordId { shard, epoch: Epoch { number: epoch, tag: 0xc0ffee }, seq: n },
        // Every third event tells of no change.
        change: (!n.is_multiple_of(3)).then(|| Seq::new(n)),
        at: Millis(1_763_721_575_123 + n),
        event: EventName::of("message.acknowledged"),
        app: None,
        device: None,
        message: None,
        data: RawValue::from_string(format!("{{\"n\":{n}}}")).unwrap(),
    }
}

fn records(numbers: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    numbers.map(|n| record(SHARD, 1000, n)).collect()
}

/// Reads a partition until its records satisfy `enough`.
async fn read(
    options: &KafkaOptions,
    partition: i32,
    start: Start,
    enough: impl Fn(&[Record]) -> bool,
) -> (Vec<Record>, Vec<u64>, u64) {
    let mut reader = Reader::open(options, &BTreeMap::from([(partition, start)])).await.unwrap();
    let (mut read, mut unreadable, mut end) = (Vec::new(), Vec::new(), 0);
    while !enough(&read) {
        let batch = tokio::time::timeout(PATIENCE, reader.next()).await.unwrap().unwrap();
        assert_eq!(batch.partition, partition);
        assert!(batch.end > end, "offsets rise");
        end = batch.end;
        unreadable.extend(batch.unreadable.iter().map(|unreadable| unreadable.offset));
        read.extend(batch.records);
    }
    (read, unreadable, end)
}

fn is_last(n: u64) -> impl Fn(&[Record]) -> bool {
    move |records| records.last().is_some_and(|record| record.id.seq == n)
}

/// What a reader keeps that drops each record not greater than the last.
fn kept(read: &[Record]) -> Vec<u64> {
    let mut last = (0, 0);
    let rises = |record: &&Record| {
        let order = record.id.order();
        let is_greater = order > last;
        last = last.max(order);
        is_greater
    };
    read.iter().filter(rises).map(|record| record.id.seq).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_out_as_they_went_in_and_a_reader_goes_on_where_it_is_told() {
    let (_cluster, options) = cluster(4);
    assert_eq!(Reader::partitions(&options).await.unwrap(), 4);
    let mut producer = Producer::open(&options, SHARD).await.unwrap();
    let sent = records(1..=2500);
    producer.send(&sent[..2000]).await.unwrap();
    producer.send(&[]).await.unwrap();
    producer.send(&sent[2000..]).await.unwrap();
    let (read_all, unreadable, end) = read(&options, 3, Start::Earliest, is_last(2500)).await;
    assert_eq!((read_all, unreadable, end), (sent.clone(), Vec::new(), 2500));
    let (rest, ..) = read(&options, 3, Start::At(2400), is_last(2500)).await;
    assert_eq!(rest, sent[2400..]);
    let error =
        Reader::open(&options, &BTreeMap::from([(3, Start::At(12_501))])).await.unwrap_err();
    assert!(
        matches!(error, KafkaError::OutOfRange { low: 0, high: 2500, wanted: 12_501, .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_is_the_greatest_record_of_its_shard() {
    // Both shards share the one partition.
    let (_cluster, options) = cluster(1);
    let mut producer = Producer::open(&options, SHARD).await.unwrap();
    let other = ShardId::new(1);
    let mut beside = Producer::open(&options, other).await.unwrap();
    assert_eq!(producer.tail().await.unwrap(), None);
    producer.send(&records(1..=9)).await.unwrap();
    let tail = |epoch, n, seq| {
        Some(Tail { epoch: Epoch { number: epoch, tag: 0xc0ffee }, n, seq: Some(Seq::new(seq)) })
    };
    assert_eq!(producer.tail().await.unwrap(), tail(1000, 9, 8));
    // One that is sent again, and more of the other shard than are read back at first.
    producer.send(&records(3..=4)).await.unwrap();
    assert_eq!(producer.tail().await.unwrap(), tail(1000, 9, 8));
    let many: Vec<Record> = (1..=30_001).map(|n| record(other, 7, n)).collect();
    beside.send(&many).await.unwrap();
    assert_eq!(producer.tail().await.unwrap(), tail(1000, 9, 8));
    assert_eq!(beside.tail().await.unwrap(), tail(7, 30_001, 30_001));
    producer.send(&[record(SHARD, 1001, 10)]).await.unwrap();
    assert_eq!(producer.tail().await.unwrap(), tail(1001, 10, 10));
    // The first of another epoch tells of no change, and what the one before told of says nothing of this one.
    producer.send(&[record(SHARD, 1002, 12)]).await.unwrap();
    let epoch = Epoch { number: 1002, tag: 0xc0ffee };
    assert_eq!(producer.tail().await.unwrap(), Some(Tail { epoch, n: 12, seq: None }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_record_is_told_with_its_offset() {
    let (_cluster, options) = cluster(1);
    let mut producer = Producer::open(&options, SHARD).await.unwrap();
    producer.send(&records(1..=2)).await.unwrap();
    let stranger: BaseProducer = options.client().unwrap().create().unwrap();
    stranger.send(BaseRecord::to(TOPIC).partition(0).key("3").payload("{}")).unwrap();
    stranger.send(BaseRecord::<(), ()>::to(TOPIC).partition(0)).unwrap();
    stranger.flush(PATIENCE).unwrap();
    producer.send(&records(3..=3)).await.unwrap();
    let (read, unreadable, end) = read(&options, 0, Start::Earliest, is_last(3)).await;
    assert_eq!((read, unreadable, end), (records(1..=3), vec![2, 3], 5));
    assert_eq!(producer.tail().await.unwrap().map(|tail| tail.n), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_pass_are_not_even_seen_and_nothing_comes_twice() {
    let (cluster, options) = cluster(1);
    let mut producer = Producer::open(&options, SHARD).await.unwrap();
    producer.send(&records(1..=10)).await.unwrap();
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        ],
    );
    producer.send(&records(11..=20_000)).await.unwrap();
    let (read, ..) = read(&options, 0, Start::Earliest, is_last(20_000)).await;
    assert_eq!(read, records(1..=20_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_error_that_lasts_the_same_records_are_sent_again_and_none_is_missed() {
    let (cluster, options) = cluster(1);
    let mut producer = Producer::open(&options, SHARD).await.unwrap();
    producer.send(&records(1..=10)).await.unwrap();
    // The first request of the call is refused for good. Those after it would be taken.
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED],
    );
    let sent = records(11..=30_000);
    let error = producer.send(&sent).await.unwrap_err();
    assert!(matches!(error, KafkaError::Refused { .. }), "{error}");
    producer.send(&sent).await.unwrap();
    let (read, ..) = read(&options, 0, Start::Earliest, is_last(30_000)).await;
    assert_eq!(kept(&read), (1..=30_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_waited_for_and_then_given_up_and_then_found_again() {
    let (cluster, options) = cluster(1);
    let mut patient = Producer::open(&options, SHARD).await.unwrap();
    patient.send(&records(1..=10)).await.unwrap();
    // Only the producer's: a reader on a busy machine needs longer.
    let hurried = KafkaOptions { wait_max: Duration::from_millis(300), ..options.clone() };
    let mut hasty = Producer::open(&hurried, SHARD).await.unwrap();
    cluster.broker_down(-1).unwrap();
    let sent = records(11..=2000);
    let waits = sent.clone();
    let waiting = tokio::spawn(async move { patient.send(&waits).await });
    let error = hasty.send(&sent).await.unwrap_err();
    assert!(
        matches!(error, KafkaError::Unacknowledged { .. } | KafkaError::Topic { .. }),
        "{error}"
    );
    assert!(!waiting.is_finished());
    cluster.broker_up(-1).unwrap();
    tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    tokio::time::timeout(PATIENCE, async { while hasty.send(&sent).await.is_err() {} })
        .await
        .unwrap();
    let (read, ..) = read(&options, 0, Start::Earliest, is_last(2000)).await;
    assert_eq!(kept(&read), (1..=2000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_cancelled_is_made_again_and_none_is_missed() {
    let (cluster, options) = cluster(1);
    let mut producer = Producer::open(&options, SHARD).await.unwrap();
    cluster.broker_round_trip_time(-1, Duration::from_millis(50)).unwrap();
    let sent = records(1..=20_000);
    let mut cancelled = 0;
    for after in [0, 5, 20, 60, 110, 160] {
        let call = producer.send(&sent);
        cancelled +=
            usize::from(tokio::time::timeout(Duration::from_millis(after), call).await.is_err());
    }
    assert!(cancelled > 2, "{cancelled}");
    cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap();
    producer.send(&sent).await.unwrap();
    let (read, ..) = read(&options, 0, Start::Earliest, is_last(20_000)).await;
    assert_eq!(kept(&read), (1..=20_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_named_and_the_others_still_go() {
    let (_cluster, options) = cluster(1);
    let mut producer = Producer::open(&options, SHARD).await.unwrap();
    let large = |bytes: usize| {
        let data = format!("{{\"text\":\"{}\"}}", "x".repeat(bytes));
        Record { data: RawValue::from_string(data).unwrap(), ..record(SHARD, 1000, 1) }
    };
    let error = producer.send(&[large(RECORD_BYTES_MAX)]).await.unwrap_err();
    assert!(matches!(error, KafkaError::TooLarge { .. }), "{error}");
    let fits = large(RECORD_BYTES_MAX - 300);
    producer.send(std::slice::from_ref(&fits)).await.unwrap();
    let (read, ..) = read(&options, 0, Start::Earliest, is_last(1)).await;
    assert_eq!(read, [fits]);
}

#[tokio::test]
async fn settings_are_judged_before_a_broker_is_asked_and_show_no_secret() {
    let with = |name: &str, value: &str| {
        let mut options = KafkaOptions::new("127.0.0.1:1", TOPIC);
        options.properties.insert(name.to_owned(), value.to_owned());
        options
    };
    for (options, named) in [
        (with("acks", "1"), "acks"),
        (with("enable.idempotence", "false"), "enable.idempotence"),
        (with("no.such.setting", "s3cret"), "no.such.setting"),
        (with("compression.level", "s3cret"), "compression.level"),
        (KafkaOptions::new("127.0.0.1:1", "a/b"), "topic"),
    ] {
        let error = Producer::open(&options, SHARD).await.unwrap_err();
        let text = format!("{error} {error:?} {options:?}");
        assert!(matches!(&error, KafkaError::Setting { name, .. } if name == named), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
    #[cfg(not(feature = "kafka-tls"))]
    {
        let tls = Producer::open(&with("security.protocol", "SASL_SSL"), SHARD).await.unwrap_err();
        assert!(tls.to_string().contains("kafka-tls"), "{tls}");
    }
    let secret = with("sasl.password", "s3cret");
    assert!(!format!("{secret:?}").contains("s3cret"));
    let ours: BTreeSet<&str> = options::OURS.iter().copied().collect();
    assert_eq!(ours.len(), options::OURS.len());
}
