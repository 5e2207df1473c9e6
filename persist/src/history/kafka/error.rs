//! Why a topic cannot be written or read.

use std::time::Duration;

use crate::history::RecordId;

#[derive(Clone, Debug, thiserror::Error)]
pub enum KafkaError {
    /// Never right without a change of the configuration.
    #[error("the Kafka setting {name:?}: {what}")]
    Setting { name: String, what: String },
    /// librdkafka refuses to make a client.
    #[error("make a client of Kafka: {what}")]
    Client { what: String },
    #[error("find the topic {topic:?}: {what}")]
    Topic { topic: String, what: String },
    /// Nothing was sent of the call.
    #[error("{record:?} has {bytes} bytes as JSON, and {max} can be sent")]
    TooLarge { record: RecordId, bytes: usize, max: usize },
    /// What the broker has of the call is unknown.
    #[error("{waiting} records are not acknowledged by Kafka, and none was for {waited:?}: {what}")]
    Unacknowledged { waiting: usize, waited: Duration, what: String },
    /// What the broker has of the call is unknown.
    #[error("send to Kafka: {what}")]
    Refused { what: String },
    #[error("read the topic: {what}")]
    Read { what: String },
    /// The records from there on are gone, or the topic is another one than it was.
    #[error(
        "partition {partition} of the topic holds the offsets from {low} to {high}, and {wanted} is asked for"
    )]
    OutOfRange { partition: i32, low: u64, high: u64, wanted: u64 },
    #[error("the thread of the Kafka client has ended")]
    Ended,
}
