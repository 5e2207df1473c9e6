//! The world-view: one shard at one position, in RAM, and everything that follows from it.
//!
//! It stands apart because both tiers hold it: central decides writes against it, an edge answers devices from it,
//! and the stream carries it from one to the other. Nothing here knows sockets, clocks or the database.

mod ids;
mod model;
mod position;
mod upstream;

#[cfg(test)]
mod golden;

pub use ids::{AppId, AttributeId, DeviceId, GroupId, MessageId, Millis, Seq, ShardId};
pub use model::{
    AppRow, AttributeRow, Batch, Change, DevicePrivate, DeviceRow, Environment, GroupRow, MessageRow, MessageState,
    Priority, PushChannel, PushToken, RevisionRecord, Row, SecretHash, SetBy, Tag, Variant,
};
pub use position::{Epoch, Judgement, Lineage, LineageEntry, LineageError, Position};
pub use upstream::{
    Problem, ProfilePatch, Receipt, ReceiptKind, UPSTREAM_BYTES_MAX, UpstreamError, UpstreamReply, UpstreamRequest,
};
