//! What a topic has from given offsets to its end, for who asks once rather than follows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::Message as _;

use super::client::Told;
use super::error::KafkaError;
use super::options::KafkaOptions;
use super::reader::{Start, assign, in_range, lasting};
use super::topic;
use crate::history::Record;

const WAIT: Duration = Duration::from_millis(50);
/// Silence behind the end that the broker named after which it is believed. Brokers were seen to put the end at the first
/// message of the last batch, and to say nothing where it really is.
const SILENCE: Duration = Duration::from_millis(500);
/// However much comes while it is read, what came later than this behind the end is left to the next who asks.
const BEHIND_MAX: Duration = Duration::from_secs(5);

/// What came of [`rest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Records that were given.
    pub records: u64,
    /// Messages that are no records.
    pub unreadable: u64,
    /// Messages that the topic had forgotten before they were asked for.
    pub forgotten: u64,
}

/// The number of the topic's partitions, which count from 0; `None` if there is no such topic, and none is made.
///
/// # Errors
/// [`KafkaError::Topic`] if no broker says within `wait_max`.
pub async fn partitions(options: &KafkaOptions) -> Result<Option<u16>, KafkaError> {
    let options = options.clone();
    tokio::task::spawn_blocking(move || topic::count(&options))
        .await
        .map_err(|_| KafkaError::Ended)?
}

/// Gives `take` all records of these partitions from where each begins to its end at this moment, those of a partition in
/// their order. A record that the topic has twice is given twice. Where the topic does not reach back to a beginning, it
/// begins with what there is.
///
/// # Errors
/// [`KafkaError::OutOfRange`] if a partition ends before it begins, so is another than it was; [`KafkaError::Read`] if
/// nothing came for `wait_max` before the end.
pub async fn rest<T: Send + 'static>(
    options: &KafkaOptions,
    starts: &BTreeMap<i32, Start>,
    into: T,
    take: impl Fn(&mut T, Record) + Send + 'static,
) -> Result<(T, Rest), KafkaError> {
    let (options, starts) = (options.clone(), starts.clone());
    let read = move || {
        let mut into = into;
        let rest = read(&options, &starts, &mut |record| take(&mut into, record))?;
        Ok((into, rest))
    };
    tokio::task::spawn_blocking(read).await.map_err(|_| KafkaError::Ended)?
}

struct Ends {
    consumer: BaseConsumer<Told>,
    rest: Rest,
    /// Of the partitions that are not read as far: where the broker said that they end.
    ahead: BTreeMap<i32, u64>,
}

fn read(
    options: &KafkaOptions,
    starts: &BTreeMap<i32, Start>,
    take: &mut dyn FnMut(Record),
) -> Result<Rest, KafkaError> {
    let Ends { consumer, mut rest, mut ahead } = begin(options, starts)?;
    let mut unended: BTreeSet<i32> = starts.keys().copied().collect();
    let (mut heard_at, mut behind_at) = (Instant::now(), None);
    while !unended.is_empty() {
        let polled = consumer.poll(WAIT);
        let now = Instant::now();
        if ahead.is_empty() {
            let behind_at = *behind_at.get_or_insert(now);
            let is_silent = polled.is_none() && now > heard_at.max(behind_at) + SILENCE;
            if is_silent || now > behind_at + BEHIND_MAX {
                break;
            }
        }
        match polled {
            Some(Ok(message)) => {
                heard_at = now;
                let next = message.offset().max(0).cast_unsigned() + 1;
                if ahead.get(&message.partition()).is_some_and(|end| next >= *end) {
                    ahead.remove(&message.partition());
                }
                match Record::from_json(message.payload().unwrap_or_default()) {
                    Ok(record) => {
                        rest.records += 1;
                        take(record);
                    }
                    Err(_) => rest.unreadable += 1,
                }
            }
            Some(Err(ClientError::PartitionEOF(partition))) => {
                unended.retain(|one| *one != partition || ahead.contains_key(one));
            }
            Some(Err(error)) if lasting(&error) => {
                let what = format!("{error}; {}", consumer.context().take());
                return Err(KafkaError::Read { what });
            }
            // What comes by itself again; the silence ends the rest.
            Some(Err(error)) => consumer.context().note(error.to_string()),
            None => {}
        }
        if !ahead.is_empty() && now > heard_at + options.wait_max {
            let (waited, told) = (options.wait_max, consumer.context().take());
            return Err(KafkaError::Read { what: format!("nothing came for {waited:?}: {told}") });
        }
    }
    Ok(rest)
}

fn begin(options: &KafkaOptions, starts: &BTreeMap<i32, Start>) -> Result<Ends, KafkaError> {
    let consumer = topic::consumer(options, &[("enable.partition.eof", "true")])?;
    let (mut rest, mut ahead) = (Rest::default(), BTreeMap::new());
    assign(&consumer, options, starts, |partition, (low, high), start| {
        let from = match start {
            Start::Earliest => low,
            Start::At(offset) => {
                rest.forgotten += low.saturating_sub(offset);
                let from = offset.max(low);
                in_range(partition, (low, high), from)?;
                from
            }
        };
        if from < high {
            ahead.insert(partition, high);
        }
        Ok(from)
    })?;
    Ok(Ends { consumer, rest, ahead })
}
