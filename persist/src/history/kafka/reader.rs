//! Reads partitions of the topic from given offsets on.
//!
//! No group of consumers: where to begin is for whoever keeps what was read, in one place with it, and each partition is
//! given to one reader by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::client::{Told, told};
use super::error::KafkaError;
use super::options::KafkaOptions;
use super::topic;
use crate::history::{Record, RecordError};

/// Messages of one batch.
const BATCH_MESSAGES: usize = 1000;
/// Bytes of one batch's messages, but for the last.
const BATCH_BYTES: usize = 1 << 20;
/// Batches that are read ahead.
const AHEAD_BATCHES: usize = 8;
/// How far behind its end a partition may be asked for at the start. Brokers were seen to put the end at the first message
/// of the last batch, which has at most so many; a fetch of what is not there still fails.
const END_SLACK: u64 = 10_000;
/// How soon the thread sees that nobody reads any more.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Where to begin in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what is kept of it, as for a partition never read before.
    Earliest,
    /// With the message of this offset, such as the [`Batch::end`] of the last that was kept.
    At(u64),
}

/// Messages of one partition that follow each other.
#[derive(Debug)]
pub struct Batch {
    pub partition: i32,
    /// The offset after the last of them.
    pub end: u64,
    pub records: Vec<Record>,
    pub unreadable: Vec<Unreadable>,
    bytes: usize,
}

/// A message that is no record.
#[derive(Debug)]
pub struct Unreadable {
    pub offset: u64,
    pub error: RecordError,
}

/// Reads through a thread of its own, which ends soon after this is dropped.
#[derive(Debug)]
pub struct Reader {
    batches: mpsc::Receiver<Result<Batch, KafkaError>>,
}

impl Reader {
    /// The number of the topic's partitions, which count from 0. Creates the topic if there is none.
    ///
    /// # Errors
    /// If no broker answers within `wait_max`, or the topic can neither be found nor created.
    pub async fn partitions(options: &KafkaOptions) -> Result<u16, KafkaError> {
        let (options, runtime) = (options.clone(), Handle::current());
        tokio::task::spawn_blocking(move || topic::ensure(&options, &runtime))
            .await
            .map_err(|_| KafkaError::Ended)?
    }

    /// Begins with the partitions that `starts` names.
    ///
    /// # Errors
    /// [`KafkaError::OutOfRange`] if a partition does not reach back, or not up, to where it is to begin;
    /// [`KafkaError::Read`] if that cannot be found out within `wait_max`.
    pub async fn open(
        options: &KafkaOptions,
        starts: &BTreeMap<i32, Start>,
    ) -> Result<Reader, KafkaError> {
        let (options, starts) = (options.clone(), starts.clone());
        let (sender, batches) = mpsc::channel(AHEAD_BATCHES);
        let (opened, answer) = oneshot::channel();
        std::thread::Builder::new()
            .name("kafka-reader".to_owned())
            .spawn(move || {
                let begun = begin(&options, &starts);
                let (consumer, told) = match begun {
                    Ok(consumer) => (Some(consumer), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                // Nobody waits for it any longer: then nobody reads either.
                if let (Ok(()), Some(consumer)) = (opened.send(told), consumer) {
                    read(&consumer, &sender);
                }
            })
            .map_err(|error| KafkaError::Client { what: error.to_string() })?;
        answer.await.map_err(|_| KafkaError::Ended)??;
        Ok(Reader { batches })
    }

    /// Waits for the next messages of any partition. Cancel safe.
    ///
    /// # Errors
    /// What reading again does not mend; then the reader has ended.
    pub async fn next(&mut self) -> Result<Batch, KafkaError> {
        self.batches.recv().await.unwrap_or(Err(KafkaError::Ended))
    }
}

fn begin(
    options: &KafkaOptions,
    starts: &BTreeMap<i32, Start>,
) -> Result<BaseConsumer<Told>, KafkaError> {
    let consumer = topic::consumer(options, &[])?;
    assign(&consumer, options, starts, |partition, (low, high), start| {
        let wanted = match start {
            Start::Earliest => low,
            Start::At(offset) => offset,
        };
        in_range(partition, (low, high), wanted).map(|()| wanted)
    })?;
    Ok(consumer)
}

/// Has a consumer read each partition from where `choose` says, who is told the offsets of its first message and after its
/// last.
pub(super) fn assign(
    consumer: &BaseConsumer<Told>,
    options: &KafkaOptions,
    starts: &BTreeMap<i32, Start>,
    mut choose: impl FnMut(i32, (u64, u64), Start) -> Result<u64, KafkaError>,
) -> Result<(), KafkaError> {
    let mut places = TopicPartitionList::new();
    for (&partition, &start) in starts {
        let failed = |error: ClientError| {
            let told = told(consumer);
            KafkaError::Read { what: format!("partition {partition}: {error}; {told}") }
        };
        let (low, high) = consumer
            .fetch_watermarks(&options.topic, partition, options.wait_max)
            .map_err(failed)?;
        let reach = (low.max(0).cast_unsigned(), high.max(0).cast_unsigned());
        let wanted = choose(partition, reach, start)?;
        let offset = Offset::Offset(wanted.try_into().unwrap_or(i64::MAX));
        places.add_partition_offset(&options.topic, partition, offset).map_err(failed)?;
    }
    let failed = |error: ClientError| KafkaError::Client { what: error.to_string() };
    consumer.assign(&places).map_err(failed)
}

/// Whether a partition can be read from an offset on.
pub(super) fn in_range(
    partition: i32,
    (low, high): (u64, u64),
    wanted: u64,
) -> Result<(), KafkaError> {
    if (low..=high.saturating_add(END_SLACK)).contains(&wanted) {
        Ok(())
    } else {
        Err(KafkaError::OutOfRange { partition, low, high, wanted })
    }
}

/// Reads until nobody wants more, or reading on is in vain.
fn read(consumer: &BaseConsumer<Told>, out: &mpsc::Sender<Result<Batch, KafkaError>>) {
    let mut batch: Option<Batch> = None;
    while !out.is_closed() {
        let wait = if batch.is_some() { Duration::ZERO } else { LOOK_EVERY };
        let polled = consumer.poll(wait);
        let is_whole = match (&batch, &polled) {
            (None, _) => false,
            (Some(batch), Some(Ok(message))) => !batch.takes(message),
            (Some(_), _) => true,
        };
        if is_whole && let Some(batch) = batch.take() {
            // It fails if nobody is left, which ends the loop.
            let _ = out.blocking_send(Ok(batch));
        }
        match polled {
            None => {}
            Some(Ok(message)) => batch.get_or_insert_with(|| Batch::before(&message)).put(&message),
            Some(Err(error)) => match lasting(&error) {
                true => {
                    let what = format!("{error}; {}", consumer.context().take());
                    let _ = out.blocking_send(Err(KafkaError::Read { what }));
                    return;
                }
                false => tracing::warn!(%error, "reading the topic goes on after an error"),
            },
        }
    }
}

/// Whether waiting longer mends nothing.
pub(super) fn lasting(error: &ClientError) -> bool {
    use RDKafkaErrorCode::{
        AutoOffsetReset, GroupAuthorizationFailed, OffsetOutOfRange, TopicAuthorizationFailed,
        UnknownPartition, UnknownTopic, UnknownTopicOrPartition,
    };
    match error {
        ClientError::MessageConsumptionFatal(_) => true,
        other => matches!(
            other.rdkafka_error_code(),
            Some(
                AutoOffsetReset
                    | GroupAuthorizationFailed
                    | OffsetOutOfRange
                    | TopicAuthorizationFailed
                    | UnknownPartition
                    | UnknownTopic
                    | UnknownTopicOrPartition
            )
        ),
    }
}

impl Batch {
    fn before(message: &BorrowedMessage<'_>) -> Batch {
        let (records, unreadable) = (Vec::new(), Vec::new());
        Batch { partition: message.partition(), end: 0, records, unreadable, bytes: 0 }
    }

    fn takes(&self, message: &BorrowedMessage<'_>) -> bool {
        self.partition == message.partition()
            && self.records.len() + self.unreadable.len() < BATCH_MESSAGES
            && self.bytes < BATCH_BYTES
    }

    fn put(&mut self, message: &BorrowedMessage<'_>) {
        let text = message.payload().unwrap_or_default();
        let offset = message.offset().max(0).cast_unsigned();
        self.end = offset + 1;
        self.bytes += text.len();
        match Record::from_json(text) {
            Ok(record) => self.records.push(record),
            Err(error) => self.unreadable.push(Unreadable { offset, error }),
        }
    }
}
