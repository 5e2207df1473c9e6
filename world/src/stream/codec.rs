//! The bytes of frames.
//!
//! ```text
//! | length: u32 BE | kind: u8 | body: one MessagePack value |
//!                  |<---------------- length -------------->|
//! ```
//!
//! The decoder checks a length as soon as it has the four bytes, before it keeps any byte that follows, and checks
//! of each frame what its readers rely on: batches and messages that are not empty, seqs that cannot overflow.

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{Chunk, EpochBatch, Frame, SnapshotBegin, kind};
use crate::{Batch, Change, Epoch, Partition, Row, SEEN_DEVICES_MAX, Seq};

/// The most that a peer may send in one frame before it is known.
pub const UNKNOWN_PEER_FRAME_BYTES_MAX: usize = 64 << 10;

/// The most that a known peer may send in one frame, unless configured otherwise. The largest that are sent are a
/// batch (a quarter of a window, or one record of 1 MiB) and a chunk (a sixteenth of a window and one record).
pub const FRAME_BYTES_MAX: usize = 8 << 20;

const LENGTH_BYTES: usize = 4;

/// A decoder that kept more than this for one large frame gives it back after it.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// No seq reaches 2^63; see [`Seq`].
const SEQ_END: u64 = 1 << 63;

/// What came is not a frame. The link is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {bytes} bytes, more than the {bytes_max} allowed")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("a frame without a kind")]
    Empty,
    #[error("a frame of the unknown kind {kind}")]
    UnknownKind { kind: u8 },
    #[error("the body of a frame of kind {kind}")]
    Malformed { kind: u8, source: rmp_serde::decode::Error },
    #[error("{bytes} bytes after the body of a frame of kind {kind}")]
    Trailing { kind: u8, bytes: usize },
    #[error("a frame of kind {kind} with {what}")]
    Invalid { kind: u8, what: &'static str },
}

/// The whole frame, length included.
///
/// # Panics
/// If it were larger than 4 GiB, which would be our own fault.
pub fn encode(frame: &Frame) -> Bytes {
    match frame {
        Frame::Hello(body) => encode_body(frame.kind(), body),
        Frame::Ack(body) | Frame::SendAfter(body) => encode_body(frame.kind(), body),
        Frame::Write(body) | Frame::Reply(body) => encode_body(frame.kind(), body),
        Frame::Alive => encode_body(frame.kind(), &[(); 0]),
        Frame::Welcome(body) => encode_body(frame.kind(), body),
        Frame::SnapshotBegin(body) => encode_body(frame.kind(), body),
        Frame::Chunk(body) => encode_body(frame.kind(), body),
        Frame::Batch(body) => encode_batch(body.epoch, &body.batch),
        Frame::MoreAwaits(body) => encode_body(frame.kind(), body),
        Frame::Lineage(body) => encode_body(frame.kind(), &(body,)),
        Frame::Keys(body) => encode_body(frame.kind(), body),
        Frame::Heartbeat(body) => encode_body(frame.kind(), body),
        Frame::Refused(body) => encode_body(frame.kind(), body),
    }
}

/// The whole frame of a batch: encoded once, kept in the change log, shared by every receiver.
pub fn encode_batch(epoch: Epoch, batch: &Batch) -> Bytes {
    encode_body(kind::BATCH, &(epoch, batch))
}

/// The rows of a chunk as they are gathered; the header comes when the range is known.
#[derive(Debug, Default)]
pub(super) struct ChunkRows {
    bytes: Vec<u8>,
    count: u32,
}

impl ChunkRows {
    pub(super) fn push(&mut self, row: &Row) {
        write(&mut self.bytes, row);
        self.count += 1;
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The whole frame, the same as [`encode`] makes of a [`Chunk`].
    pub(super) fn into_frame(
        self,
        from: Partition,
        to: Partition,
        stamp: Seq,
        more: bool,
    ) -> Bytes {
        const FIELDS: u8 = 5;
        const FIX_ARRAY: u8 = 0x90;
        let mut out = Vec::with_capacity(self.bytes.len() + 32);
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        out.extend_from_slice(&[kind::CHUNK, FIX_ARRAY | FIELDS]);
        write(&mut out, &from.get());
        write(&mut out, &to.get());
        write(&mut out, &stamp);
        write(&mut out, &more);
        match (u8::try_from(self.count), u16::try_from(self.count)) {
            (Ok(count @ 0..16), _) => out.push(FIX_ARRAY | count),
            (_, Ok(count)) => {
                out.push(0xdc);
                out.extend_from_slice(&count.to_be_bytes());
            }
            _ => {
                out.push(0xdd);
                out.extend_from_slice(&self.count.to_be_bytes());
            }
        }
        out.extend_from_slice(&self.bytes);
        with_length(out)
    }
}

fn encode_body(kind: u8, body: &impl Serialize) -> Bytes {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.push(kind);
    write(&mut out, body);
    with_length(out)
}

fn write(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    rmp_serde::encode::write(out, value).expect("memory takes every value whose length is known");
}

fn with_length(mut out: Vec<u8>) -> Bytes {
    let length = u32::try_from(out.len() - LENGTH_BYTES).expect("a frame is far below 4 GiB");
    out[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    out.into()
}

/// Takes bytes as they come and gives frames. What it keeps is bounded by its limit and the bytes of one `feed`.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    bytes_max: usize,
}

impl FrameDecoder {
    /// `bytes_max`: the most that a frame may have, without its length field.
    pub fn new(bytes_max: usize) -> FrameDecoder {
        FrameDecoder { buffer: BytesMut::new(), bytes_max }
    }

    pub fn set_limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Takes bytes. Ask for frames until there is none before feeding again.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame and how many bytes it took, length field included.
    ///
    /// # Errors
    /// If what came is not a frame or is larger than allowed. Nothing after that can be read.
    pub fn next_frame(&mut self) -> Result<Option<(Frame, usize)>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let bytes = u32::from_be_bytes(*length) as usize;
        if bytes > self.bytes_max {
            return Err(FrameError::TooLarge { bytes, bytes_max: self.bytes_max });
        }
        if self.buffer.len() < LENGTH_BYTES + bytes {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let frame = decode(&self.buffer[..bytes])?;
        self.buffer.advance(bytes);
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
        Ok(Some((frame, LENGTH_BYTES + bytes)))
    }
}

/// `frame` is without its length field.
fn decode(frame: &[u8]) -> Result<Frame, FrameError> {
    let (&kind, body) = frame.split_first().ok_or(FrameError::Empty)?;
    Ok(match kind {
        kind::HELLO => Frame::Hello(read(kind, body)?),
        kind::ACK => Frame::Ack(read(kind, body)?),
        kind::SEND_AFTER => Frame::SendAfter(read(kind, body)?),
        kind::WRITE => Frame::Write(read(kind, body)?),
        kind::ALIVE => {
            let [] = read::<[(); 0]>(kind, body)?;
            Frame::Alive
        }
        kind::WELCOME => Frame::Welcome(read(kind, body)?),
        kind::SNAPSHOT_BEGIN => Frame::SnapshotBegin(checked_begin(read(kind, body)?)?),
        kind::CHUNK => Frame::Chunk(checked_chunk(read(kind, body)?)?),
        kind::BATCH => Frame::Batch(checked_batch(read(kind, body)?)?),
        kind::MORE_AWAITS => Frame::MoreAwaits(read(kind, body)?),
        kind::LINEAGE => {
            let (lineage,) = read(kind, body)?;
            Frame::Lineage(lineage)
        }
        kind::KEYS => Frame::Keys(read(kind, body)?),
        kind::HEARTBEAT => Frame::Heartbeat(read(kind, body)?),
        kind::REPLY => Frame::Reply(read(kind, body)?),
        kind::REFUSED => Frame::Refused(read(kind, body)?),
        kind => return Err(FrameError::UnknownKind { kind }),
    })
}

fn read<T: DeserializeOwned>(kind: u8, body: &[u8]) -> Result<T, FrameError> {
    let mut rest = body;
    let value =
        rmp_serde::from_read(&mut rest).map_err(|source| FrameError::Malformed { kind, source })?;
    match rest.len() {
        0 => Ok(value),
        bytes => Err(FrameError::Trailing { kind, bytes }),
    }
}

fn checked_batch(body: EpochBatch) -> Result<EpochBatch, FrameError> {
    let invalid = |what| FrameError::Invalid { kind: kind::BATCH, what };
    let first = body.batch.first.get();
    if body.batch.changes.is_empty() {
        return Err(invalid("no change"));
    }
    if first == 0 || first >= SEQ_END - body.batch.changes.len() as u64 {
        return Err(invalid("a seq out of range"));
    }
    for change in &body.batch.changes {
        match change {
            Change::Message(row) if row.variants.is_empty() => {
                return Err(invalid("a message without a body"));
            }
            Change::Audience(row) if row.from.get() >= SEQ_END => {
                return Err(invalid("a seq out of range"));
            }
            Change::Purge { horizon } if horizon.get() >= SEQ_END => {
                return Err(invalid("a horizon out of range"));
            }
            Change::Seen { devices, .. } if devices.len() > SEEN_DEVICES_MAX => {
                return Err(invalid("too many devices seen"));
            }
            _ => {}
        }
    }
    Ok(body)
}

fn checked_begin(begin: SnapshotBegin) -> Result<SnapshotBegin, FrameError> {
    if begin.from.get() >= SEQ_END || begin.horizon.get() >= SEQ_END {
        return Err(FrameError::Invalid { kind: kind::SNAPSHOT_BEGIN, what: "a seq out of range" });
    }
    Ok(begin)
}

fn checked_chunk(chunk: Chunk) -> Result<Chunk, FrameError> {
    let invalid = |what| FrameError::Invalid { kind: kind::CHUNK, what };
    if chunk.from > chunk.to || Partition::new(chunk.to).is_none() {
        return Err(invalid("partitions that do not exist"));
    }
    if chunk.stamp.get() >= SEQ_END {
        return Err(invalid("a seq out of range"));
    }
    for row in &chunk.rows {
        if let Row::Message { row, revisions } = row
            && (row.variants.is_empty() || revisions.is_empty())
        {
            return Err(invalid("a message without a body or a revision"));
        }
        if let Row::Audience { records, .. } = row
            && records.is_empty()
        {
            return Err(invalid("an audience without a record"));
        }
    }
    Ok(chunk)
}

#[cfg(test)]
mod tests;
