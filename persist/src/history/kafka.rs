//! A Kafka topic that the history goes through: [`Producer`] writes it, [`Reader`] reads it.
//!
//! Each record is one message: its JSON, under its shard's number as key, in the partition `shard % partitions`.
//! Headers say the same as the JSON's first members, for those who route without parsing: `carillon-v`,
//! `carillon-shard`, `carillon-epoch`, `carillon-tag` (16 hexadecimal digits), `carillon-n`.
//!
//! What always holds: whoever reads a shard's messages in order and drops each that is not greater than the last by
//! [`super::RecordId::order`] has each record once and misses none. For this, a producer has one request in flight, so
//! that none overtakes one that failed; never gives up a message and goes on with the next; and after any error begins
//! anew with the same records. The number of partitions is not to be changed while the topic is in use.
//!
//! librdkafka's calls block, so each producer and reader has a thread of its own.

mod client;
mod error;
mod message;
mod options;
mod producer;
mod reader;
mod rest;
#[cfg(test)]
mod tests;
mod topic;
#[expect(clippy::disallowed_types, reason = "a thread of its own, which waits with a deadline")]
mod worker;

pub use error::KafkaError;
pub use options::{KafkaOptions, TOPIC_BYTES_MAX, is_topic};
pub use producer::Producer;
pub use reader::{Batch, Reader, Start, Unreadable};
pub use rest::{Rest, partitions, rest};
pub use topic::Tail;

/// The largest record that is sent, as JSON. With headers it stays below 1 MB, which brokers take as they come.
pub const RECORD_BYTES_MAX: usize = 900_000;
