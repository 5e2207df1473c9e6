//! The edge's half of a snapshot: what came of it so far. It outlives the connection, so that a cut costs only what
//! was in flight.
//!
//! Each partition is there whole or not at all, and each that is there is at max(its stamp, `applied`).

use crate::{ApplyError, Change, DeviceId, Lineage, Partition, Seq, ShardId, World, WorldBuilder};

use super::{Chunk, EpochBatch, ReceiveError, SnapshotBegin, Stamps};

#[derive(Debug)]
pub(super) struct Partial {
    builder: WorldBuilder,
    /// By partition; `None` until all its rows are there.
    stamps: Vec<Option<Seq>>,
    /// The partition of which a part is there, and its stamp.
    unfinished: Option<(Partition, Seq)>,
    /// All batches up to here are applied to what is there.
    applied: Seq,
    horizon: Seq,
}

impl Partial {
    pub(super) fn new(shard: ShardId, begin: &SnapshotBegin) -> Partial {
        Partial {
            builder: WorldBuilder::new(shard),
            stamps: vec![None; Partition::COUNT],
            unfinished: None,
            applied: begin.from,
            horizon: begin.horizon,
        }
    }

    /// Goes on with what is held already.
    pub(super) fn resume(&mut self, begin: &SnapshotBegin) {
        self.drop_unfinished();
        for partition in Partition::all() {
            let stamp = &mut self.stamps[usize::from(partition.get())];
            if stamp.is_some_and(|seq| seq.max(self.applied) < begin.from) {
                *stamp = None;
                self.builder.forget(partition);
            }
        }
        for stamp in self.stamps.iter_mut().flatten() {
            *stamp = self.applied.max(*stamp);
        }
        self.applied = begin.from;
        self.horizon = self.horizon.max(begin.horizon);
    }

    pub(super) fn drop_unfinished(&mut self) {
        if let Some((partition, _)) = self.unfinished.take() {
            self.builder.forget(partition);
        }
    }

    /// The RAM that what is there takes.
    pub(super) fn bytes(&self) -> u64 {
        self.builder.usage().total()
    }

    pub(super) fn applied(&self) -> Seq {
        self.applied
    }

    /// The greatest seq of which anything is there.
    pub(super) fn top(&self) -> Seq {
        self.stamps.iter().flatten().copied().fold(self.applied, Seq::max)
    }

    /// How many partitions are there.
    pub(super) fn partitions(&self) -> usize {
        self.stamps.iter().flatten().count()
    }

    /// What to open the next connection with. `None` if nothing is there.
    pub(super) fn stamps(&self, lineage: &Lineage) -> Option<Stamps> {
        let mut ranges: Vec<(u16, u16, Seq)> = Vec::new();
        for partition in Partition::all().map(Partition::get) {
            let Some(stamp) = self.stamps[usize::from(partition)] else { continue };
            let at = stamp.max(self.applied);
            let extends = |&(_, to, seq): &(u16, u16, Seq)| to + 1 == partition && seq == at;
            if let Some(range) = ranges.last_mut().filter(|range| extends(range)) {
                range.1 = partition;
            } else if ranges.len() < Stamps::RANGES_MAX {
                ranges.push((partition, partition, at));
            } else {
                // What is not claimed comes again.
                break;
            }
        }
        let top = ranges.iter().map(|&(_, _, seq)| seq).max()?;
        Some(Stamps { epoch: lineage.epoch_at(top), ranges })
    }

    /// # Errors
    /// If the chunk does not go on where the last one ended.
    pub(super) fn take_chunk(&mut self, chunk: Chunk) -> Result<(), ReceiveError> {
        let broken = |what| Err(ReceiveError::BrokenWalk { what });
        let (from, to) = match (Partition::new(chunk.from), Partition::new(chunk.to)) {
            (Some(from), Some(to)) if chunk.from <= chunk.to => (from, to),
            _ => return broken("partitions that do not exist"),
        };
        let range = chunk.from..=chunk.to;
        if chunk.stamp < self.applied {
            return broken("a chunk older than the batches before it");
        }
        if self.unfinished.is_some_and(|unfinished| unfinished != (from, chunk.stamp)) {
            return broken("a partition that does not go on");
        }
        if chunk.rows.iter().any(|row| !(chunk.from..=chunk.to).contains(&row.partition().get())) {
            return broken("a row of another partition");
        }
        // What the list of stamps had no room for comes again.
        for partition in range.filter_map(Partition::new) {
            let whole = partition != to || !chunk.more;
            let stamp = &mut self.stamps[usize::from(partition.get())];
            if std::mem::replace(stamp, whole.then_some(chunk.stamp)).is_some() {
                self.builder.forget(partition);
            }
        }
        chunk.rows.into_iter().for_each(|row| self.builder.insert(row));
        self.unfinished = chunk.more.then_some((to, chunk.stamp));
        Ok(())
    }

    /// Applies what concerns the partitions that are there.
    ///
    /// # Errors
    /// If the batch does not follow, or comes inside a partition.
    pub(super) fn take_batch(&mut self, body: &EpochBatch) -> Result<(), ReceiveError> {
        let (first, last) = (body.batch.first, body.batch.last());
        if last <= self.applied {
            return Ok(());
        }
        if self.unfinished.is_some() {
            return Err(ReceiveError::BrokenWalk { what: "a batch inside a partition" });
        }
        if first != self.applied.next() {
            return Err(ReceiveError::Gap { applied: self.applied, first });
        }
        for (seq, change) in body.batch.numbered() {
            match change {
                // Its devices are of many partitions.
                Change::Seen { app, at, devices } => {
                    let behind = |id: &&DeviceId| self.lacks(Partition::of_device(**id), seq);
                    let devices = devices.iter().filter(behind).copied().collect();
                    self.builder.apply(seq, &Change::Seen { app: *app, at: *at, devices });
                }
                Change::Purge { horizon } => {
                    self.horizon = self.horizon.max(*horizon);
                    self.builder.apply(seq, change);
                }
                _ if change.partition().is_some_and(|partition| self.lacks(partition, seq)) => {
                    self.builder.apply(seq, change);
                }
                _ => {}
            }
        }
        self.applied = last;
        Ok(())
    }

    /// Whether a partition is there, as it was before `seq`.
    fn lacks(&self, partition: Partition, seq: Seq) -> bool {
        self.stamps[usize::from(partition.get())].is_some_and(|stamp| stamp < seq)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.unfinished.is_none()
            && self.stamps.iter().all(|stamp| stamp.is_some_and(|seq| seq <= self.applied))
    }

    /// # Errors
    /// If the rows do not make a world, which is central's fault.
    pub(super) fn finish(self, lineage: Lineage) -> Result<World, ApplyError> {
        self.builder.finish(lineage, self.applied, self.horizon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{APP, commit, device, lineage, row, rows, world};
    use crate::{Batch, Epoch, Millis};

    /// The row came with a later stamp, and may be that of a device which came back after the report.
    #[test]
    fn a_report_from_before_a_partitions_stamp_says_nothing_of_its_devices() {
        let mut world = world();
        let from = world.seq();
        commit(&mut world, vec![device(1, &[], None, None)]);
        let (counts, horizon) = (world.counts(), Seq::ZERO);
        let begin = SnapshotBegin { counts, horizon, from, resumed: false, bytes: None };
        let last = Partition::all().last().map_or(0, Partition::get);
        let seen_after = |reports: &[u64]| {
            let mut partial = Partial::new(ShardId::FIRST, &begin);
            let (stamp, rows) = (world.seq(), rows(&world));
            partial.take_chunk(Chunk { from: 0, to: last, stamp, more: false, rows }).unwrap();
            for (first, at) in (from.next().get()..).zip(reports) {
                let devices = vec![DeviceId::new(1)];
                let changes = vec![Change::Seen { app: APP, at: Millis(*at), devices }];
                let batch = Batch { first: Seq::new(first), changes };
                let epoch = Epoch { number: 1, tag: 1 };
                partial.take_batch(&EpochBatch { epoch, batch }).unwrap();
            }
            assert!(partial.is_whole());
            row(&partial.finish(lineage()).unwrap(), 1).last_seen
        };
        assert_eq!(seen_after(&[7]), Millis::ZERO);
        assert_eq!(seen_after(&[9, 8]), Millis(8));
    }
}
