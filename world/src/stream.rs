//! The stream between tiers: central sends one shard's changes, an edge follows them.
//!
//! Both ends are state machines without I/O, because reconnects, late frames, restarts and restores come in any
//! order and a seeded test has to replay each order. The shells that own sockets, clocks and tokens are in `central`
//! and `edge`. One connection carries one shard.
//!
//! # Stages of a connection
//!
//! 1. The edge sends [`Hello`]: the versions it speaks, its token, where its world is, and what it holds of a
//!    snapshot that was cut off. Central answers [`Welcome`] (or [`Refused`], and closes).
//! 2. If the edge's position is in the past and the change log reaches back, changes follow at once. Else central
//!    sends [`SnapshotBegin`] and walks over the partitions. It may begin again within the connection, when the log
//!    was trimmed under a slow edge.
//! 3. Batches follow as they are committed, until the link ends.
//!
//! # Who may send what
//!
//! * Batches and chunks count against the *window*: central has at most `window` bytes unacknowledged, or a single
//!   item of any size. When the next one does not fit it sends `MoreAwaits` and then no batch or chunk until
//!   `SendAfter`; each `SendAfter` allows one further `MoreAwaits`.
//! * Everything else is small, outside the window and never held back by it: `Welcome`, `SnapshotBegin`, `Lineage`,
//!   `Keys`, `Reply`, `Heartbeat`, `Refused`. Their number is bounded otherwise.
//! * The edge acknowledges what it has *applied*, cumulatively, at latest every eighth of a window or 50 ms. What
//!   acknowledges more than was sent closes the link; what acknowledges less than is known changes nothing.
//! * Within a connection central never rewinds. A batch that the edge has already is ignored, a gap is an error, and
//!   every error closes the link: a reconnect costs a `Hello`.
//!
//! # The snapshot walk
//!
//! Let `c` be central's cursor: everything in the log up to `c` was sent, or is not needed. Each partition that the
//! edge holds is *at* max(its stamp, `c`), and that is the invariant from which all follows:
//!
//! * `SnapshotBegin.from` sets `c` on both sides. What the edge holds at less than that is void on both sides, since
//!   changes in between will not come.
//! * Before each chunk central sends the log up to its end, and reads the chunk from a world that is not older than
//!   `c`. So the stamp is never below `c`, and no change between stamp and cursor is missed.
//! * The edge applies a change to a partition only if its seq is beyond that partition's stamp (so nothing is applied
//!   twice where the world was ahead of the log) and only if it holds that partition (the others will come with
//!   later stamps). A purge concerns all partitions; it is idempotent, so it is applied whatever the stamps. A report
//!   of devices seen concerns the partitions of its devices, each by its own stamp. The clock is a row of the first
//!   partition, so that a world has the clock of its seq and no other.
//! * A partition that is too large for one chunk goes in parts, read at once, with no batch in between.
//! * All partitions there, and `c` not below any stamp: the shard is whole at `c`, and served.
//! * After a reconnect the edge names the seq of each partition that it holds. Those from which the log can be
//!   followed are kept; `c` starts at the lowest of them.
//!
//! # Lineage
//!
//! `Welcome` and `Lineage` carry it. An edge whose position is not in the past of what it is told serves nothing of
//! its world, and gets a snapshot: after `Welcome` at once; after a `Lineage` that cuts off what this very
//! connection carried, central closes and the edge opens again, so that acknowledgements of two branches never mix.
//! An edge refuses a lineage that ends before the one it knows: a deposed owner still sends.

mod codec;
mod flow;
mod frame;
mod partial;
mod receiver;
mod sender;
mod walk;

pub use codec::{
    FRAME_BYTES_MAX, FrameDecoder, FrameError, UNKNOWN_PEER_FRAME_BYTES_MAX, encode, encode_batch,
};
pub use frame::{
    Chunk, DerivedKey, Envelope, EpochBatch, Frame, Heartbeat, Hello, KeyBytes, KeyPurpose, Keys,
    LinkToken, MoreAwaits, Progress, RefusalCode, Refused, SnapshotBegin, Stamps, VERSIONS,
    Welcome,
};
pub use receiver::{Action, ReceiveError, Receiver, ReceiverConfig, Unserved, WriteQueueFull};
pub use sender::{Outgoing, Sender, SenderConfig, SenderError, SenderEvent};

#[cfg(test)]
mod tests;
