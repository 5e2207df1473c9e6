//! A topic on a broker that is not librdkafka's own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carillon_persist::history::Record;
use carillon_persist::history::kafka::{KafkaOptions, Producer, Reader, Start, Tail};
use carillon_tests::history::Broker;
use carillon_tests::process::free_address;
use carillon_tests::proxy::Proxy;
use carillon_world::{Seq, ShardId};

use super::{EPOCH, PATIENCE, record, records};

const SHARD: u16 = 2;

async fn producer(options: &KafkaOptions) -> Producer {
    Producer::open(options, ShardId::new(SHARD)).await.expect("options that work")
}

/// Reads a partition up to the record of this number, and drops each that is not greater than the last.
pub(super) async fn kept(options: &KafkaOptions, partition: i32, last: u64) -> Vec<Record> {
    let starts = BTreeMap::from([(partition, Start::Earliest)]);
    let mut reader = Reader::open(options, &starts).await.expect("a topic");
    let mut kept: Vec<Record> = Vec::new();
    while kept.last().is_none_or(|record| record.id.seq < last) {
        let batch = tokio::time::timeout(PATIENCE, reader.next()).await.expect("more records");
        let batch = batch.expect("a broker that answers");
        assert!(batch.unreadable.is_empty(), "{batch:?}");
        for record in batch.records {
            if kept.last().is_none_or(|last| last.id.order() < record.id.order()) {
                kept.push(record);
            }
        }
    }
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topic_is_created_as_told_and_records_keep_their_order() {
    let broker = Broker::start();
    let mut options = KafkaOptions::new(broker.brokers(), broker.topic());
    options.partitions = 3;
    let mut producer = producer(&options).await;
    assert_eq!(producer.tail().await.expect("a broker"), None);
    let sent = records(SHARD, 1..=20_000);
    for records in sent.chunks(3000) {
        producer.send(records).await.expect("a broker that runs");
    }
    assert_eq!(Reader::partitions(&options).await.expect("a topic"), 3);
    let tail = Tail { epoch: EPOCH, n: 20_000, seq: Some(Seq::new(20_000)) };
    assert_eq!(producer.tail().await.expect("a broker"), Some(tail));
    assert_eq!(kept(&options, 2, 20_000).await, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_look_for_a_topic_that_is_not_there_make_one() {
    let broker = Broker::start();
    let mut options = KafkaOptions::new(broker.brokers(), broker.topic());
    options.partitions = 2;
    let (one, other) = tokio::join!(Reader::partitions(&options), Reader::partitions(&options));
    assert_eq!((one.expect("a topic"), other.expect("a topic")), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_while_records_are_sent_cost_none() {
    let listen = free_address();
    let proxy = Proxy::start(listen).await;
    let broker = Broker::start_behind(listen, proxy.address());
    let options = KafkaOptions::new(broker.brokers(), broker.topic());
    let mut producer = producer(&options).await;
    producer.send(&[record(SHARD, 1)]).await.expect("a broker that runs");
    let enough = Arc::new(AtomicBool::new(false));
    let is_enough = Arc::clone(&enough);
    let sending = tokio::spawn(async move {
        let mut last = 1;
        while !is_enough.load(Ordering::Relaxed) {
            let sent = records(SHARD, last + 1..=last + 5000);
            while producer.send(&sent).await.is_err() {}
            last += 5000;
        }
        last
    });
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(rand::random_range(5..60))).await;
        if rand::random() {
            proxy.reset_all()
        } else {
            proxy.close_all()
        }
        // It backs off; what is then sent at once is what may be torn.
        tokio::time::sleep(Duration::from_millis(rand::random_range(50..400))).await;
    }
    enough.store(true, Ordering::Relaxed);
    let last = sending.await.expect("it sends");
    assert_eq!(kept(&options, 0, last).await, records(SHARD, 1..=last));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_answers_nothing_for_a_while_costs_no_record() {
    let broker = Broker::start();
    let mut options = KafkaOptions::new(broker.brokers(), broker.topic());
    options.wait_max = Duration::from_millis(500);
    let mut producer = producer(&options).await;
    while producer.send(&records(SHARD, 1..=10)).await.is_err() {}
    if !broker.freeze() {
        return;
    }
    let sent = records(SHARD, 11..=5000);
    for _ in 0..3 {
        producer.send(&sent).await.expect_err("nobody answers");
    }
    broker.thaw();
    let resent = async { while producer.send(&sent).await.is_err() {} };
    tokio::time::timeout(PATIENCE, resent).await.expect("it answers again");
    options.wait_max = PATIENCE;
    assert_eq!(kept(&options, 0, 5000).await, records(SHARD, 1..=5000));
}
