//! History: what happened, as it leaves the store for Kafka and the lake.
//!
//! What always holds: the records of a shard rise by ([`RecordId::epoch`], [`RecordId::seq`]), in whatever they are
//! written to; one that comes twice has the same id; a device is named by a [`Pseudonym`] alone.

pub mod kafka;
pub mod lake;
mod line;
mod lookup;
mod outbox;
mod record;
pub(crate) mod stored;

pub use line::{CSV_HEADER, EventLine};
pub use lookup::pseudonym_of;
pub(crate) use lookup::shards;
pub use outbox::{
    BatchHistory, EndedDevice, ForgetOutbox, OutboxEvent, OutboxKept, OutboxRow, PseudonymRow,
};
pub use record::{
    EVENT_BYTES_MAX, EventName, Pseudonym, RECORD_SCHEMA, Record, RecordError, RecordId,
};
