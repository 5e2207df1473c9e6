//! The durable state, in RAM: what a commit left survives central's crashes, a commit may be refused or lost on its
//! way, and which epoch a claim begins is decided by the rule of the real stores.

use std::collections::BTreeMap;
use std::sync::Arc;

use carillon_persist::{
    BookRow, Committed, CountRow, CountSpan, EpochClaim, Erase, ForgetKeys, Holding,
    IdempotencyRow, Kept, Opening, StoreBatch, StoreError, Tallies, Verdict, judge_claim,
};
use carillon_world::{
    AppId, Change, DeviceId, Epoch, Lineage, LineageEntry, MessageId, Millis, Partition, Seq,
    ShardId, World, WorldBuilder,
};

pub(crate) const SHARD: ShardId = ShardId::FIRST;

#[derive(Debug)]
pub(crate) struct Store {
    /// `None` until the first epoch.
    world: Option<World>,
    keys: BTreeMap<(AppId, Arc<str>), IdempotencyRow>,
    kept: Kept,
    books: BTreeMap<(AppId, DeviceId), BookRow>,
    counts: BTreeMap<(AppId, MessageId, CountSpan, Millis, Arc<str>), CountRow>,
    /// A transaction whose owner lost sight of it: it commits before the next epoch, or never.
    limbo: Option<StoreBatch>,
    /// The world before the last batch, and where that led.
    before: Option<(World, Seq)>,
    /// Refuses everything until then.
    pub(crate) down_until: u64,
}

/// What the owner of the lease would see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fenced;

impl Store {
    pub(crate) fn new() -> Store {
        Store {
            world: None,
            keys: BTreeMap::new(),
            kept: Kept::default(),
            books: BTreeMap::new(),
            counts: BTreeMap::new(),
            limbo: None,
            before: None,
            down_until: 0,
        }
    }

    pub(crate) fn head(&self) -> Seq {
        self.world.as_ref().map_or(Seq::ZERO, World::seq)
    }

    /// The batch, if its owner still has the lease and knows the head. Nothing is changed yet.
    fn judge(&self, batch: &StoreBatch) -> Result<World, Fenced> {
        let world = self.world.as_ref().ok_or(Fenced)?;
        let mine = world.lineage().newest().epoch == batch.epoch && world.seq() == batch.head;
        if mine { Ok(world.clone()) } else { Err(Fenced) }
    }

    /// Commits whole, or not at all.
    pub(crate) fn commit(&mut self, batch: &StoreBatch) -> Result<Committed, Fenced> {
        let mut world = self.judge(batch)?;
        assert_eq!(batch.horizon, world.horizon(), "a purge looks at what lies above it");
        if let Some(changes) = &batch.changes {
            world.apply(changes).expect("what was decided fits the store");
            for change in &changes.changes {
                if let Change::DeviceGone { app, id } = change {
                    self.kept.erasures.push((*app, *id));
                }
            }
        }
        for row in &batch.idempotency {
            let before = self.keys.insert((row.app, row.key.clone()), row.clone());
            assert!(before.is_none(), "a key is written once");
        }
        let committed = self.keep(batch, &world);
        self.tally(batch, &world);
        let seq = world.seq();
        self.before = self.world.replace(world).map(|before| (before, seq));
        Ok(committed)
    }

    /// What is kept and forgotten beside the changes. Devices have no receipts here.
    fn keep(&mut self, batch: &StoreBatch, world: &World) -> Committed {
        let upkeep = &batch.upkeep;
        if upkeep.sample {
            self.kept.samples.push((world.seq(), batch.now));
        }
        self.kept.samples.retain(|(seq, _)| *seq > world.horizon());
        self.kept.seen_since = upkeep.seen_since.or(self.kept.seen_since);
        self.kept.committed_at = Some(batch.now);
        let mut committed = Committed::default();
        if let Some(ForgetKeys { before, rows_max }) = upkeep.forget_keys {
            let old = self.keys.iter().filter(|(_, row)| row.created_at < before);
            let old: Vec<_> = old.map(|(key, _)| key.clone()).take(rows_max as usize).collect();
            committed.keys_forgotten = old.len() as u64;
            old.iter().for_each(|key| drop(self.keys.remove(key)));
        }
        if let Some(Erase { devices, .. }) = &upkeep.erase {
            self.kept.erasures.retain(|device| !devices.contains(device));
        }
        committed
    }

    fn tally(&mut self, batch: &StoreBatch, world: &World) {
        for row in &batch.tallies.books {
            self.books.insert((row.app, row.device), row.clone());
        }
        self.books.retain(|(app, device), _| {
            world.app(*app).is_some_and(|app| app.device(*device).is_some())
        });
        for row in &batch.tallies.counts {
            let key = (row.app, row.message, row.span, row.at, row.counter.clone());
            self.counts.insert(key, row.clone());
        }
    }

    /// The transaction went off, and nobody hears how it ends.
    pub(crate) fn lose_sight_of(&mut self, batch: StoreBatch) {
        self.limbo = Some(batch);
    }

    /// Settles a transaction that is out of sight, as a claim does by waiting for it. Gives what it committed.
    pub(crate) fn settle(&mut self, commits: bool) -> Option<StoreBatch> {
        let batch = self.limbo.take()?;
        (commits && self.commit(&batch).is_ok()).then_some(batch)
    }

    /// By the rule of the real stores.
    pub(crate) fn begin_epoch(
        &mut self,
        claim: EpochClaim,
        clock: Millis,
    ) -> Result<Opening, StoreError> {
        assert!(self.limbo.is_none(), "a claim waits for what is under way");
        let world = self.world.as_ref();
        let lineage = world.map_or(Vec::new(), |world| world.lineage().entries().to_vec());
        let epoch =
            lineage.last().map_or(Epoch { number: 0, tag: 0 }, |line: &LineageEntry| line.epoch);
        let horizon = world.map_or(Seq::ZERO, World::horizon);
        let holding = Holding { epoch, head: self.head(), horizon, lineage, events: 0 };
        match judge_claim(SHARD, holding, claim, clock)? {
            Verdict::Begin(opening) => {
                self.set_lineage(opening.lineage.clone());
                Ok(opening)
            }
            Verdict::Begun(opening) => Ok(opening),
        }
    }

    fn set_lineage(&mut self, lineage: Lineage) {
        match &mut self.world {
            Some(world) => world.set_lineage(lineage),
            None => self.world = Some(World::empty(SHARD, lineage)),
        }
    }

    /// A planted fault: the last batch is forgotten, as a store does that acknowledges before it syncs.
    pub(crate) fn lose_tail(&mut self) {
        if let Some((before, of)) = self.before.take()
            && let Some(world) = &mut self.world
            && world.seq() == of
        {
            let lineage = world.lineage().clone();
            if lineage.newest().began_after <= before.seq() {
                *world = before;
                world.set_lineage(lineage);
            }
        }
    }

    /// What was counted.
    pub(crate) fn tallies(&self) -> Tallies {
        Tallies {
            books: self.books.values().cloned().collect(),
            counts: self.counts.values().cloned().collect(),
        }
    }

    /// Everything, as an owner that starts loads it: row by row.
    pub(crate) fn load(&self, opening: &Opening) -> (World, Vec<IdempotencyRow>, Kept) {
        let mut builder = WorldBuilder::new(SHARD);
        if let Some(world) = &self.world {
            Partition::all()
                .flat_map(|partition| world.partition_rows(partition))
                .for_each(|row| builder.insert(row));
        }
        let world = builder.finish(opening.lineage.clone(), opening.head, opening.horizon);
        (
            world.expect("rows that were committed make a world"),
            self.keys.values().cloned().collect(),
            self.kept.clone(),
        )
    }
}
