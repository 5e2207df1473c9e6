//! The topic itself: that it is there, how many partitions it has, and what a shard's last record in it is.
//!
//! All but [`tail`] blocks the thread.

use std::time::{Duration, Instant};

use carillon_world::{Epoch, Seq, ShardId};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;

use super::client::{Told, made_wrong, told};
use super::error::KafkaError;
use super::message;
use super::options::KafkaOptions;
use crate::history::Record;

/// Messages read back at first. More than a request of a producer holds: one that was given up may still arrive after
/// those that took its place, and what is greatest then stands before it.
const TAIL_MESSAGES: i64 = 20_000;
/// How long one try to reach a broker may take, so that several fit into `wait_max`.
const TRY_MAX: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The greatest record of a shard in the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    pub epoch: Epoch,
    /// The record's number in its shard.
    pub n: u64,
    /// The change that it tells of, or else the last one before it in its epoch that was read.
    pub seq: Option<Seq>,
}

pub(super) fn partition_of(shard: ShardId, partitions: u16) -> i32 {
    (shard.get() % partitions).into()
}

/// The number of partitions; creates the topic if there is none.
pub(super) fn ensure(options: &KafkaOptions, runtime: &Handle) -> Result<u16, KafkaError> {
    let deadline = Instant::now() + options.wait_max;
    let consumer = consumer(options, &[])?;
    let mut created = false;
    loop {
        let what = match partitions(&consumer, options, deadline) {
            Ok(Some(partitions)) => return Ok(partitions),
            Ok(None) if created => "it is created, but not shown yet".to_owned(),
            Ok(None) => match create(options, runtime, deadline) {
                Ok(()) => {
                    created = true;
                    continue;
                }
                Err(what) => format!("there is none, and it cannot be created: {what}"),
            },
            Err(what) => format!("{what}; {}", told(&consumer)),
        };
        if Instant::now() >= deadline {
            return Err(KafkaError::Topic { topic: options.topic.clone(), what });
        }
        std::thread::sleep(RETRY_AFTER);
    }
}

/// The number of partitions; `None` if there is no such topic.
pub(super) fn count(options: &KafkaOptions) -> Result<Option<u16>, KafkaError> {
    let deadline = Instant::now() + options.wait_max;
    let consumer = consumer(options, &[])?;
    loop {
        let what = match partitions(&consumer, options, deadline) {
            Ok(partitions) => return Ok(partitions),
            Err(what) => format!("{what}; {}", told(&consumer)),
        };
        if Instant::now() >= deadline {
            return Err(KafkaError::Topic { topic: options.topic.clone(), what });
        }
        std::thread::sleep(RETRY_AFTER);
    }
}

/// A client that creates no topic by looking for one, and reads only what is assigned to it.
pub(super) fn consumer(
    options: &KafkaOptions,
    more: &[(&str, &str)],
) -> Result<BaseConsumer<Told>, KafkaError> {
    let mut config = options.client()?;
    config
        // librdkafka assigns nothing without the name of a group; no broker is told of it.
        .set("group.id", "carillon")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false")
        .set("auto.offset.reset", "error")
        // Nothing is written in transactions, and what is the end does not depend on any.
        .set("isolation.level", "read_uncommitted")
        // What a disk or a network garbled is no record.
        .set("check.crcs", "true")
        .set("queued.max.messages.kbytes", "32768");
    for (name, value) in more {
        config.set(*name, *value);
    }
    BaseConsumer::from_config_and_context(&config, Told::default()).map_err(made_wrong)
}

/// `None` if there is no such topic.
fn partitions(
    consumer: &BaseConsumer<Told>,
    options: &KafkaOptions,
    deadline: Instant,
) -> Result<Option<u16>, String> {
    let wait = TRY_MAX.min(deadline.saturating_duration_since(Instant::now()));
    let unknown = |code| {
        matches!(code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
    };
    let metadata = match consumer.fetch_metadata(Some(&options.topic), wait) {
        Ok(metadata) => metadata,
        Err(ClientError::MetadataFetch(code)) if unknown(code) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let found = metadata.topics().iter().find(|topic| topic.name() == options.topic);
    let Some(found) = found else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        Some(code) if unknown(code) => Ok(None),
        Some(code) => Err(code.to_string()),
        None => match u16::try_from(found.partitions().len()) {
            Ok(0) => Ok(None),
            Ok(partitions) => Ok(Some(partitions)),
            Err(_) => Err(format!("it has {} partitions", found.partitions().len())),
        },
    }
}

fn create(options: &KafkaOptions, runtime: &Handle, deadline: Instant) -> Result<(), String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let config = options.client().map_err(|error| said(&error))?;
    let admin = AdminClient::from_config_and_context(&config, DefaultClientContext)
        .map_err(|error| said(&made_wrong(error)))?;
    // -1 is what the broker's own settings say.
    let copies = options.replication.map_or(-1, i32::from);
    let topic =
        NewTopic::new(&options.topic, options.partitions.into(), TopicReplication::Fixed(copies));
    let wait = TRY_MAX.min(deadline.saturating_duration_since(Instant::now()));
    let asked = AdminOptions::new().request_timeout(Some(wait)).operation_timeout(Some(wait));
    let results =
        runtime.block_on(admin.create_topics([&topic], &asked)).map_err(|error| said(&error))?;
    match results.into_iter().next() {
        Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => Err(said(&code)),
        _ => {
            tracing::info!(
                topic = options.topic,
                partitions = options.partitions,
                "the topic was created"
            );
            Ok(())
        }
    }
}

/// See [`super::Producer::tail`].
pub(super) async fn tail(
    options: &KafkaOptions,
    shard: ShardId,
) -> Result<Option<Tail>, KafkaError> {
    let options = options.clone();
    tokio::task::spawn_blocking(move || read_tail(&options, shard))
        .await
        .map_err(|_| KafkaError::Ended)?
}

fn read_tail(options: &KafkaOptions, shard: ShardId) -> Result<Option<Tail>, KafkaError> {
    let deadline = Instant::now() + options.wait_max;
    let consumer = consumer(options, &[("enable.partition.eof", "true")])?;
    let missing = |what| KafkaError::Topic { topic: options.topic.clone(), what };
    let Some(partitions) = partitions(&consumer, options, deadline).map_err(missing)? else {
        return Ok(None);
    };
    let mut back = Back { consumer, options, shard, deadline, high: 0 };
    let partition = partition_of(shard, partitions);
    back.tail(partition)
        .map_err(|what| KafkaError::Read { what: format!("partition {partition}: {what}") })
}

/// Reads a partition backwards.
struct Back<'a> {
    consumer: BaseConsumer<Told>,
    options: &'a KafkaOptions,
    shard: ShardId,
    /// Something has to come until then.
    deadline: Instant,
    /// What the broker calls the end of the partition.
    high: i64,
}

impl Back<'_> {
    fn tail(&mut self, partition: i32) -> Result<Option<Tail>, String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let (low, high) = self
            .consumer
            .fetch_watermarks(&self.options.topic, partition, left)
            .map_err(|error| error.to_string())?;
        self.high = high;
        let (mut until, mut step) = (high, TAIL_MESSAGES);
        while until > low {
            let from = low.max(until - step);
            if let Some(tail) = self.greatest(partition, from, until)? {
                return Ok(Some(tail));
            }
            // The others in it are of shards that share the partition.
            (until, step) = (from, step.saturating_mul(2));
        }
        Ok(None)
    }

    /// The greatest of the shard's records with an offset in `from..until`, or also behind it where the partition ends.
    fn greatest(&mut self, partition: i32, from: i64, until: i64) -> Result<Option<Tail>, String> {
        let mut place = TopicPartitionList::new();
        place
            .add_partition_offset(&self.options.topic, partition, Offset::Offset(from))
            .and_then(|()| self.consumer.assign(&place))
            .map_err(|error| error.to_string())?;
        let mut greatest: Option<(Tail, (u64, u64))> = None;
        // Brokers were seen to put the end of a partition at the first message of its last batch.
        let is_newest = until == self.high;
        let mut next = from;
        loop {
            let message = match self.consumer.poll(RETRY_AFTER) {
                Some(Ok(message)) => message,
                Some(Err(ClientError::PartitionEOF(_))) if next >= until => break,
                // What comes by itself again is none of ours; the deadline ends the rest.
                Some(Err(ClientError::MessageConsumptionFatal(code))) => {
                    return Err(code.to_string());
                }
                Some(Err(error)) => {
                    self.consumer.context().note(error.to_string());
                    self.past_deadline()?;
                    continue;
                }
                None => {
                    self.past_deadline()?;
                    continue;
                }
            };
            if message.offset() >= until && !is_newest {
                break;
            }
            // However much there is to read, as long as it comes.
            self.deadline = Instant::now() + self.options.wait_max;
            next = message.offset() + 1;
            let of_shard = message.headers().is_none_or(|headers| {
                message::shard(headers).is_none_or(|shard| shard == self.shard)
            });
            let text = message.payload().filter(|_| of_shard).unwrap_or_default();
            let record =
                Record::from_json(text).ok().filter(|record| record.id.shard == self.shard);
            if let Some(record) = record {
                let order = record.id.order();
                if greatest.is_none_or(|(_, known)| order > known) {
                    // Of this epoch: a fork counts on from less than what it cuts off.
                    let last = greatest.map(|(tail, _)| tail);
                    let last = last.filter(|tail| tail.epoch == record.id.epoch);
                    let seq = record.change.or(last.and_then(|tail| tail.seq));
                    let tail = Tail { epoch: record.id.epoch, n: record.id.seq, seq };
                    greatest = Some((tail, order));
                }
            }
            if next >= until && !is_newest {
                break;
            }
        }
        Ok(greatest.map(|(tail, _)| tail))
    }

    fn past_deadline(&self) -> Result<(), String> {
        if Instant::now() < self.deadline {
            return Ok(());
        }
        Err(format!("no answer in {:?}: {}", self.options.wait_max, self.consumer.context().take()))
    }
}
