//! What the two ends of a stream say to each other.
//!
//! Each frame is one MessagePack array, positional and append-only: a field is added at the end, with a default for
//! those who do not send it yet, and only from the protocol version on that knows it. [`Hello`] is read by peers who
//! do not know the version yet, so it ignores what follows the fields it knows; [`Refused`] never changes at all.
//! Golden files pin the bytes.

use bytes::Bytes;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Batch, Counts, Epoch, Lineage, Millis, Position, Row, Seq, ShardId};

/// The protocol versions that this build speaks, best first.
pub const VERSIONS: &[u16] = &[2, 1];

/// From this version on [`SnapshotBegin`] says how many bytes the world takes.
pub(super) const VERSION_WITH_BYTES: u16 = 2;

/// One frame, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Edge: the first frame of a connection.
    Hello(Hello),
    /// Edge: applied up to here.
    Ack(Progress),
    /// Edge: all that came before the last [`Frame::MoreAwaits`] is applied, go on. It is also an `Ack`.
    SendAfter(Progress),
    /// Edge: a request that central must decide.
    Write(Envelope),
    /// Edge: here, with nothing else to say.
    Alive,
    /// Central: the first frame after a `Hello` that it accepted.
    Welcome(Welcome),
    /// Central: forget what is void, a walk over the partitions follows.
    SnapshotBegin(SnapshotBegin),
    /// Central: some partitions, or a part of one.
    Chunk(Chunk),
    /// Central: what one transaction committed.
    Batch(EpochBatch),
    /// Central: the next batch or chunk does not fit the window.
    MoreAwaits(MoreAwaits),
    /// Central: an epoch began. It comes before the first batch of that epoch.
    Lineage(Lineage),
    /// Central: the keys that edges seal and open with; they replace those given before.
    Keys(Keys),
    /// Central: here, and how far.
    Heartbeat(Heartbeat),
    /// Central: the answer to the `Write` of the same id.
    Reply(Envelope),
    /// Central: the last frame of a connection that it does not want.
    Refused(Refused),
}

/// Opens a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hello {
    /// The protocol versions that the edge speaks.
    pub versions: Vec<u16>,
    pub token: LinkToken,
    /// The edge's name, for people. At most [`Hello::EDGE_BYTES_MAX`].
    pub edge: String,
    pub shard: ShardId,
    /// Where the edge's world is.
    pub at: Option<Position>,
    /// What the edge holds of a snapshot that was cut off.
    pub stamps: Option<Stamps>,
}

impl Hello {
    pub const EDGE_BYTES_MAX: usize = 128;
}

/// The shared secret of a link. The shell compares it in constant time; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkToken(Bytes);

impl LinkToken {
    pub fn new(token: impl Into<Bytes>) -> LinkToken {
        LinkToken(token.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for LinkToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkToken(..)")
    }
}

/// The partitions of an unfinished snapshot, each with the seq at which its rows are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamps {
    /// The epoch of the greatest of the seqs, in the lineage under which they were taken.
    pub epoch: Epoch,
    /// (first partition, last partition, seq), rising, without overlap. At most [`Stamps::RANGES_MAX`].
    pub ranges: Vec<(u16, u16, Seq)>,
}

impl Stamps {
    /// 1,000 ranges of at most 16 bytes stay far below what a peer may send before it is known.
    pub const RANGES_MAX: usize = 1_000;
}

/// How far the edge has applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// All batches up to here, cumulative.
    pub seq: Seq,
    /// How many chunks of this connection, cumulative.
    pub chunks: u64,
}

/// An upstream request or its answer ([`crate::UpstreamRequest`], [`crate::UpstreamReply`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The edge's own number; it pairs an answer with its request within one connection.
    pub id: u64,
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both ends speak from here on.
    pub version: u16,
    pub shard: ShardId,
    pub lineage: Lineage,
    /// Bytes that may be unacknowledged; the edge acknowledges at latest every eighth of it.
    pub window: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBegin {
    /// About how much will come.
    pub counts: Counts,
    pub horizon: Seq,
    /// The next batch is the one after this seq. Partitions that the edge holds at a lower seq are void.
    pub from: Seq,
    /// Whether what the edge holds (apart from the void) counts. Else everything is void.
    pub resumed: bool,
    /// The RAM that the whole world takes at an edge. `None` before version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// All rows of the partitions `from..=to` at the seq `stamp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    pub from: u16,
    pub to: u16,
    pub stamp: Seq,
    /// The rows of partition `to` go on in the next chunk, which has the same stamp and comes before any batch.
    pub more: bool,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochBatch {
    /// The epoch in which the batch was committed.
    pub epoch: Epoch,
    pub batch: Batch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoreAwaits {
    /// The newest seq at central.
    pub head: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The seq up to which this connection has sent everything.
    pub sent: Seq,
    /// The newest seq at central; what lies between is lag.
    pub head: Seq,
    pub clock: Millis,
}

/// All keys that may open a session or a cursor, and the day whose keys seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Days since 1970-01-01 UTC.
    pub seal_day: u32,
    pub keys: Vec<DerivedKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerivedKey {
    pub purpose: KeyPurpose,
    /// Days since 1970-01-01 UTC.
    pub day: u32,
    pub key: KeyBytes,
}

/// What a derived key seals. The text is part of the derivation's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPurpose {
    Session,
    Cursor,
    Ticket,
}

impl KeyPurpose {
    pub const fn as_str(self) -> &'static str {
        match self {
            KeyPurpose::Session => "session",
            KeyPurpose::Cursor => "cursor",
            KeyPurpose::Ticket => "ticket",
        }
    }
}

/// A 256-bit key. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyBytes(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl std::fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyBytes(..)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub code: RefusalCode,
    /// For people.
    pub reason: String,
}

/// Why central does not want a connection. A number, so that an edge can carry a code that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RefusalCode(pub u16);

impl RefusalCode {
    /// No protocol version in common.
    pub const VERSION: RefusalCode = RefusalCode(1);
    /// Not the token of this link.
    pub const TOKEN: RefusalCode = RefusalCode(2);
    /// Central does not own this shard.
    pub const SHARD: RefusalCode = RefusalCode(3);
    /// No room for another edge, or not ready yet: try again later.
    pub const BUSY: RefusalCode = RefusalCode(4);
}

impl Frame {
    /// The frame's kind on the wire, never given twice.
    pub(super) const fn kind(&self) -> u8 {
        match self {
            Frame::Hello(_) => kind::HELLO,
            Frame::Ack(_) => kind::ACK,
            Frame::SendAfter(_) => kind::SEND_AFTER,
            Frame::Write(_) => kind::WRITE,
            Frame::Alive => kind::ALIVE,
            Frame::Welcome(_) => kind::WELCOME,
            Frame::SnapshotBegin(_) => kind::SNAPSHOT_BEGIN,
            Frame::Chunk(_) => kind::CHUNK,
            Frame::Batch(_) => kind::BATCH,
            Frame::MoreAwaits(_) => kind::MORE_AWAITS,
            Frame::Lineage(_) => kind::LINEAGE,
            Frame::Keys(_) => kind::KEYS,
            Frame::Heartbeat(_) => kind::HEARTBEAT,
            Frame::Reply(_) => kind::REPLY,
            Frame::Refused(_) => kind::REFUSED,
        }
    }

    /// For errors and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Frame::Hello(_) => "Hello",
            Frame::Ack(_) => "Ack",
            Frame::SendAfter(_) => "SendAfter",
            Frame::Write(_) => "Write",
            Frame::Alive => "Alive",
            Frame::Welcome(_) => "Welcome",
            Frame::SnapshotBegin(_) => "SnapshotBegin",
            Frame::Chunk(_) => "Chunk",
            Frame::Batch(_) => "Batch",
            Frame::MoreAwaits(_) => "MoreAwaits",
            Frame::Lineage(_) => "Lineage",
            Frame::Keys(_) => "Keys",
            Frame::Heartbeat(_) => "Heartbeat",
            Frame::Reply(_) => "Reply",
            Frame::Refused(_) => "Refused",
        }
    }
}

pub(super) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const ACK: u8 = 2;
    pub(crate) const SEND_AFTER: u8 = 3;
    pub(crate) const WRITE: u8 = 4;
    pub(crate) const ALIVE: u8 = 5;
    pub(crate) const WELCOME: u8 = 64;
    pub(crate) const SNAPSHOT_BEGIN: u8 = 65;
    pub(crate) const CHUNK: u8 = 66;
    pub(crate) const BATCH: u8 = 67;
    pub(crate) const MORE_AWAITS: u8 = 68;
    pub(crate) const LINEAGE: u8 = 69;
    pub(crate) const KEYS: u8 = 70;
    pub(crate) const HEARTBEAT: u8 = 71;
    pub(crate) const REPLY: u8 = 72;
    pub(crate) const REFUSED: u8 = 73;
}

// By hand, because a derived reader refuses an array that is longer than it knows.
impl<'de> Deserialize<'de> for Hello {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hello, D::Error> {
        struct HelloVisitor;
        impl<'de> Visitor<'de> for HelloVisitor {
            type Value = Hello;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of at least 6 fields")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Hello, A::Error> {
                fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
                    fields: &mut A,
                    index: usize,
                ) -> Result<T, A::Error> {
                    let field = fields.next_element()?;
                    field.ok_or_else(|| serde::de::Error::invalid_length(index, &HelloVisitor))
                }
                let hello = Hello {
                    versions: next(&mut fields, 0)?,
                    token: next(&mut fields, 1)?,
                    edge: next(&mut fields, 2)?,
                    shard: next(&mut fields, 3)?,
                    at: next(&mut fields, 4)?,
                    stamps: next(&mut fields, 5)?,
                };
                while fields.next_element::<IgnoredAny>()?.is_some() {}
                Ok(hello)
            }
        }
        deserializer.deserialize_seq(HelloVisitor)
    }
}
