//! Raw bytes on their way: who looks at them, and what becomes of them.

use bytes::Bytes;

use super::End;

/// Decides what becomes of bytes as they are read, on all connections, before faults and scripts see them.
pub type Tap = Box<dyn FnMut(&Chunk<'_>) -> Fate + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From who connects to the target.
    Up,
    /// From the target to who connects.
    Down,
}

/// Bytes that were read at once.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The connection's number, from 0.
    pub connection: u64,
    pub direction: Direction,
    pub bytes: &'a [u8],
}

/// What becomes of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Pass,
    /// These pass in its place, which may be none: its bytes may come with those of a later one.
    Instead(Bytes),
    /// So many of its bytes pass, and nothing that follows in this direction of the connection.
    Swallow {
        after: usize,
    },
    /// So many of its bytes pass, then the connection ends.
    Cut {
        after: usize,
        end: End,
    },
}
