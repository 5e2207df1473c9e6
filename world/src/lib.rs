//! The world-view: one shard at one position, in RAM, and everything that follows from it.
//!
//! It stands apart because both tiers hold it: central decides writes against it, an edge answers devices from it,
//! and the stream carries it from one to the other. Nothing here knows sockets, clocks or the database.

mod answer;
mod app;
mod assemble;
mod audience;
mod builder;
mod group_names;
mod ids;
mod log;
mod message;
mod model;
mod partition;
mod pmap;
mod position;
mod push;
pub mod stream;
mod upstream;
mod usage;
mod view;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod golden;

pub use answer::{
    AnswerLimits, Cursor, Fetched, News, Outcome, fetch, poll, raise_floor, stored, volatile_digest,
};
pub use app::{App, References};
pub use audience::{Audience, AudienceRevision};
pub use builder::WorldBuilder;
pub use ids::{AppId, AttributeId, AudienceId, DeviceId, GroupId, MessageId, Millis, Seq, ShardId};
pub use log::{ChangeLog, LogBatch, LogRead};
pub use message::{Message, Revision};
pub use model::{
    AppRow, AttributeRow, AudienceRecord, AudienceRow, Batch, Change, DevicePrivate, DeviceRow,
    Environment, GroupRow, MessageRow, MessageState, Priority, PushChannel, PushToken, Quotas,
    RevisionRecord, Row, SecretHash, SetBy, Tag, Variant,
};
pub use partition::Partition;
pub use pmap::{Key, PMap};
pub use position::{Epoch, Judgement, Lineage, LineageEntry, LineageError, Position};
pub use push::{
    AlertText, AppPush, FrequencyCap, PushKind, PushOverrides, PushPolicy, PushSettings, Quiet,
    QuietHours, SealedCredential, TimeOfDay,
};
pub use upstream::{
    DELIVERED_DEVICES_MAX, DeviceReceipts, Problem, ProfilePatch, RECEIPT_DEVICES_MAX, Receipt,
    ReceiptKind, SEEN_DEVICES_MAX, Stored, UPSTREAM_BYTES_MAX, UpstreamError, UpstreamReply,
    UpstreamRequest,
};
pub use usage::Usage;
pub use view::{Applied, ApplyError, Counts, MessageChange, World};
