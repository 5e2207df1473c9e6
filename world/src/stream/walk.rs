//! Central's half of a snapshot: which partitions an edge holds, and the next chunk.
//!
//! Nothing of the world is pinned but the rows of one partition that is too large for one chunk, while its parts go.
//! The rules that make the walk right are in the stream's own documentation.

use std::sync::Arc;

use bytes::Bytes;

use super::Stamps;
use super::codec::ChunkRows;
use crate::{Partition, Row, Seq, World};

#[derive(Debug)]
pub(super) struct Walk {
    /// The stamp of each partition that was sent whole; by partition.
    stamps: Vec<Option<Seq>>,
    unfinished: Option<Unfinished>,
}

/// A partition of which a part was sent.
#[derive(Clone, Debug)]
struct Unfinished {
    partition: Partition,
    stamp: Seq,
    rows: Arc<[Row]>,
    sent: usize,
}

/// The next chunk, and what becomes of the walk if it is sent.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) frame: Bytes,
    stamp: Seq,
    /// Whole with this chunk.
    whole: std::ops::Range<usize>,
    unfinished: Option<Unfinished>,
}

impl Walk {
    pub(super) fn from_scratch() -> Walk {
        Walk { stamps: vec![None; Partition::COUNT], unfinished: None }
    }

    /// The walk of an edge that holds these partitions. `None` if the ranges make no sense.
    pub(super) fn holding(stamps: &Stamps) -> Option<Walk> {
        let mut walk = Walk::from_scratch();
        let mut free = 0;
        for &(from, to, seq) in &stamps.ranges {
            let (from, to) = (usize::from(from), usize::from(to));
            if from < free || to < from || to >= Partition::COUNT {
                return None;
            }
            walk.stamps[from..=to].fill(Some(seq));
            free = to + 1;
        }
        Some(walk)
    }

    /// Everything up to `cursor` was sent.
    pub(super) fn advance(&mut self, cursor: Seq) {
        for stamp in self.stamps.iter_mut().flatten() {
            *stamp = cursor.max(*stamp);
        }
    }

    /// Keeps what can be brought forward by a log that gives everything after `reach`. Returns the lowest seq of
    /// what was kept, `None` if that is nothing.
    pub(super) fn begin(&mut self, reach: Seq) -> Option<Seq> {
        self.unfinished = None;
        for stamp in &mut self.stamps {
            if stamp.is_some_and(|seq| seq < reach) {
                *stamp = None;
            }
        }
        self.stamps.iter().flatten().min().copied()
    }

    /// The greatest stamp that was sent; 0 if there is none.
    pub(super) fn top(&self) -> Seq {
        let unfinished = self.unfinished.iter().map(|unfinished| unfinished.stamp);
        self.stamps.iter().flatten().copied().chain(unfinished).max().unwrap_or(Seq::ZERO)
    }

    /// Whether the rest of a partition has to go before anything else.
    pub(super) fn is_inside_partition(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Whether the edge is whole when it has everything up to `cursor`.
    pub(super) fn is_done(&self, cursor: Seq) -> bool {
        self.unfinished.is_none()
            && self.stamps.iter().all(|stamp| stamp.is_some_and(|seq| seq <= cursor))
    }

    /// The next chunk, of at least `target` bytes if there is so much, and at most a record more. `None` if every
    /// partition was sent.
    pub(super) fn prepare(&self, world: &World, target: usize) -> Option<Prepared> {
        let mut chunk = ChunkRows::default();
        if let Some(unfinished) = &self.unfinished {
            let rest = fill(&mut chunk, unfinished.clone(), target);
            let (at, stamp) = (unfinished.partition, unfinished.stamp);
            let frame = chunk.into_frame(at, at, stamp, rest.is_some());
            let from = usize::from(at.get());
            let whole = from..from + usize::from(rest.is_none());
            return Some(Prepared { frame, stamp, whole, unfinished: rest });
        }
        let first = self.stamps.iter().position(Option::is_none)?;
        let stamp = world.seq();
        let mut rest = None;
        let mut end = first;
        while rest.is_none()
            && chunk.bytes() < target
            && self.stamps.get(end).is_some_and(Option::is_none)
        {
            let rows = world.partition_rows(partition(end)).into();
            rest = fill(
                &mut chunk,
                Unfinished { partition: partition(end), stamp, rows, sent: 0 },
                target,
            );
            end += 1;
        }
        let frame = chunk.into_frame(partition(first), partition(end - 1), stamp, rest.is_some());
        let whole = first..end - usize::from(rest.is_some());
        Some(Prepared { frame, stamp, whole, unfinished: rest })
    }

    /// The chunk was sent.
    pub(super) fn commit(&mut self, prepared: Prepared) {
        self.stamps[prepared.whole].fill(Some(prepared.stamp));
        self.unfinished = prepared.unfinished;
    }
}

fn partition(index: usize) -> Partition {
    let number = u16::try_from(index).ok();
    number.and_then(Partition::new).expect("a walk has one stamp for each partition")
}

/// Returns what did not fit.
fn fill(chunk: &mut ChunkRows, mut from: Unfinished, target: usize) -> Option<Unfinished> {
    for row in &from.rows[from.sent..] {
        if chunk.bytes() >= target {
            break;
        }
        chunk.push(row);
        from.sent += 1;
    }
    (from.sent < from.rows.len()).then_some(from)
}
