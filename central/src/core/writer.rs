//! The one writer of a shard: group commit without I/O.
//!
//! A write is decided when it comes, against everything decided before it, and joins the open batch. One batch at a
//! time is with the store; the others gather. A lone caller waits for no timer: with nothing under way, its batch is
//! ready at once. Whatever a write is answered, also a refusal or "nothing changed", it is answered only when all it
//! was decided against is durable.
//!
//! ```text
//! handle_write ─▶ decide ─▶ open batch ─▶ poll_batch ─▶ store ─▶ handle_committed ─▶ replies, world, log
//!                   ▲                                      ├───▶ handle_refused: its callers 503, the rest again
//!                   └───────── decided again ◀─────────────┴───▶ handle_unknown … handle_epoch: one of the two
//! ```
//!
//! The caller (a task, or a simulation) calls `poll_reply` and `poll_batch` until they give nothing after each
//! `handle_*`, and `handle_tick` at `poll_timeout`.

mod counts;
mod pace;
mod retention;
mod upkeep;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use carillon_persist::history::BatchHistory;
use carillon_persist::{Committed, IdempotencyRow, Kept, StoreBatch, Tallies};
use carillon_world::{Batch, Change, Epoch, Lineage, LineageEntry, Millis, Seq, World};

use super::budget::Budgets;
use super::callback::CallbackLimits;
use super::callback::state::Callbacks;
use super::decide::{Fault, decide};
use super::funnel::FunnelRetention;
use super::history::{Event, HistoryConfig};
use super::idempotency::KeyRecord;
pub use super::ledger::BatchLimits;
use super::ledger::{Draft, Ledger, Pending};
use super::limits::{
    CLOCK_TICK, DEVICE_TTL, KEYS_FORGOTTEN_MAX, PENDING_BYTES_MAX, PENDING_WRITES_MAX, PURGE_PAUSE,
    PURGE_STEP, TICK_CHANGES_MAX,
};
use super::problem::{self, Problem};
use super::push::caps::Caps;
use super::push::jobs::Jobs;
use super::seen::LastSeen;
use super::tally::Tally;
use super::write::{Answer, ReplyId, Write};
pub use upkeep::StepKind;
use upkeep::Upkeep;

/// After a batch was refused, starts and ends wait this long, in ms, so that a store that is down is not asked in a
/// loop. Writes of callers are tried at once.
const TICK_PAUSE: u64 = 1_000;
/// How often idempotency keys are forgotten in RAM, in ms; and again, where one time was not enough.
const KEYS_EVERY: u64 = 60_000;
const KEYS_PAUSE: u64 = 100;

/// What retention and batches follow.
#[derive(Clone, Copy, Debug)]
pub struct WriterConfig {
    /// How often the committed clock advances while something follows it, in ms, not 0.
    pub clock_tick: u64,
    /// How long superseded revisions and tombstones are kept, in ms.
    pub retention: u64,
    /// How many changes are kept at most.
    pub retained_changes_max: u64,
    /// How long a device is kept that is not seen, in ms; `None`: for ever.
    pub device_ttl: Option<u64>,
    /// Rows of each table that one step forgets at most, not 0.
    pub purge_step: u64,
    /// Least time between two such steps, in ms; it is longer where a step takes longer.
    pub purge_pause: u64,
    /// How long what is counted is kept by span.
    pub funnel: FunnelRetention,
    /// What one batch may hold.
    pub batch: BatchLimits,
    /// What may grow, and how far.
    pub budgets: Budgets,
    /// `None`: no history is kept.
    pub history: Option<HistoryConfig>,
    pub callbacks: CallbackLimits,
}

impl Default for WriterConfig {
    fn default() -> WriterConfig {
        WriterConfig {
            clock_tick: CLOCK_TICK,
            retention: 7 * 24 * 60 * 60 * 1000,
            retained_changes_max: 1_000_000,
            device_ttl: Some(DEVICE_TTL),
            purge_step: PURGE_STEP,
            purge_pause: PURGE_PAUSE,
            funnel: FunnelRetention::default(),
            batch: BatchLimits::default(),
            budgets: Budgets::default(),
            history: None,
            callbacks: CallbackLimits::default(),
        }
    }
}

/// What the store holds at an opening.
#[derive(Debug)]
pub struct Loaded {
    pub world: World,
    pub keys: Vec<IdempotencyRow>,
    pub kept: Kept,
    pub tallies: Tallies,
    /// A fork that the history is to be told of.
    pub fork: Option<Forked>,
}

/// A branch that goes on from a backup while the history has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forked {
    /// The epoch that it began with: that of the fork, or an earlier one whose owner did not know better.
    pub epoch: Epoch,
    /// The number of the epoch that the backup was of, or 0.
    pub from: u64,
    /// The number of the last event before it, where it did not begin with the fork.
    pub events: Option<u64>,
}

impl From<World> for Loaded {
    /// A store that remembers nothing beside rows.
    fn from(world: World) -> Loaded {
        let tallies = Tallies::default();
        Loaded { world, keys: Vec::new(), kept: Kept::default(), tallies, fork: None }
    }
}

/// What readers and followers get after something became durable, or a new epoch began.
#[derive(Clone, Debug)]
pub struct Published {
    pub world: Arc<World>,
    /// The pushes as they are with this world.
    pub jobs: Jobs,
    pub caps: Caps,
    /// Whether the batch changed jobs, or what pushes need.
    pub pushes_changed: bool,
    pub tally: Tally,
    /// Bytes of events that wait for the history.
    pub outbox_bytes: u64,
    /// The number of the last event of the history.
    pub events: u64,
    pub callbacks: Callbacks,
    /// Whether whoever calls endpoints is to look.
    pub callbacks_changed: bool,
    /// The batch and the epoch in which it was committed; `None` if only the lineage changed, or only receipts came.
    pub batch: Option<(Epoch, Arc<Batch>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Free,
    InFlight,
    /// It is not known whether the batch with the store committed; nothing is sent until a new epoch tells.
    InDoubt,
}

#[derive(Debug)]
pub struct Writer {
    ledger: Ledger,
    stage: Stage,
    replies: VecDeque<(ReplyId, Answer)>,
    pending: usize,
    pending_bytes: usize,
    upkeep: Upkeep,
    /// Between two ticks of the committed clock, in ms.
    clock_tick: u64,
    /// No tick before this.
    tick_after: Millis,
    keys_at: Millis,
    /// What the history is to be told of.
    fork: Option<Forked>,
}

impl Writer {
    pub fn new(config: WriterConfig, now: Millis, loaded: Loaded) -> Writer {
        let Loaded { world, keys, mut kept, tallies, fork } = loaded;
        let pushes = (std::mem::take(&mut kept.push_jobs), std::mem::take(&mut kept.push_times));
        let keys = keys.into_iter().map(KeyRecord::from).collect();
        let (seen, since) = LastSeen::open(&kept, config.device_ttl, now);
        let history = (kept.outbox, std::mem::take(&mut kept.callbacks));
        let mut writer = Writer {
            upkeep: Upkeep::new(config, now, world.seq(), kept, since),
            clock_tick: config.clock_tick,
            ledger: Ledger::new(&config, history, world, tallies, keys, seen, pushes),
            stage: Stage::Free,
            replies: VecDeque::new(),
            pending: 0,
            pending_bytes: 0,
            tick_after: now,
            keys_at: now.plus(KEYS_EVERY),
            fork,
        };
        writer.ledger.now = now;
        let lines = writer.ledger.world().lineage().entries();
        // Owners before this one told of theirs, but perhaps for one that ended before it could tell of a fork.
        let told = lines.len().checked_sub(2).map_or(0, |at| lines[at].epoch.number);
        let began_after = writer.ledger.world().lineage().newest().began_after;
        let untold = lines.iter().find(|line| line.fork && line.began_after == began_after);
        let before = untold.map_or(told, |line| told.min(line.epoch.number - 1));
        writer.ledger.committed.opened = before;
        writer.ledger.ahead.opened = before;
        writer.tell_opened();
        writer
    }

    /// Tells of every epoch that the history was not told of. Its batch may be refused like any other; then it is told
    /// again with what comes next, so that a store that is down is not asked for this alone.
    fn tell_opened(&mut self) {
        let told = self.ledger.ahead.opened;
        if self.ledger.world().lineage().newest().epoch.number == told {
            return;
        }
        let lineage = self.ledger.world().lineage().clone();
        for line in lineage.entries().iter().filter(|line| line.epoch.number > told) {
            let own = self.fork.filter(|fork| fork.epoch == line.epoch && fork.events.is_none());
            let from = own.map(|fork| fork.from);
            let event = Event::opened(line, self.ledger.ahead.events, from);
            self.ledger.tell(&event);
            self.ledger.ahead.opened = line.epoch.number;
        }
        let Some(Forked { epoch, from, events: Some(events) }) = self.fork else { return };
        let began = lineage.entries().iter().find(|line| line.epoch == epoch);
        if let Some(line) = began.map(|line| LineageEntry { fork: true, ..*line }) {
            self.ledger.tell(&Event::opened(&line, events, Some(from)));
        }
    }

    /// The world that is durable.
    pub fn committed(&self) -> &World {
        &self.ledger.committed.world
    }

    /// What is counted beside it.
    pub fn tally(&self) -> &Tally {
        &self.ledger.committed.tally
    }

    /// Writes that wait for an answer.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Whether the outcome of a batch is not known.
    pub fn is_in_doubt(&self) -> bool {
        self.stage == Stage::InDoubt
    }

    /// What the batches are about to forget; `None` if nothing.
    pub fn step_under_way(&self) -> Option<StepKind> {
        self.upkeep.under_way()
    }

    /// Takes a write. Its answer comes out of [`Writer::poll_reply`], once.
    pub fn handle_write(&mut self, now: Millis, write: Write, id: ReplyId) {
        let weight = write.weight();
        if let Write::Session { .. } = write {
            let result = decide(&mut self.ledger, now, &write).map_err(refusal);
            self.replies.push_back((id, Answer { result, at: self.committed().position() }));
            return;
        }
        if self.pending >= PENDING_WRITES_MAX || self.pending_bytes + weight > PENDING_BYTES_MAX {
            let at = self.committed().position();
            self.replies.push_back((id, Answer { result: Err(problem::overloaded()), at }));
            return;
        }
        self.pending += 1;
        self.pending_bytes += weight;
        self.decide(now, write, id);
    }

    /// The next batch for the store, if none is there. It is durable, refused or in doubt before the next one goes.
    pub fn poll_batch(&mut self, now: Millis) -> Option<StoreBatch> {
        if self.stage != Stage::Free {
            return None;
        }
        self.ledger.batches.front()?;
        if self.ledger.batches.len() == 1 {
            self.ledger.close();
        }
        let shard = self.ledger.committed.world.shard();
        let head = self.ledger.committed.world.seq();
        let horizon = self.ledger.committed.world.horizon();
        let draft = self.ledger.batches.front_mut().expect("looked at above");
        assert_eq!(draft.first, head.next(), "batches follow each other");
        if !draft.changes.is_empty() {
            draft.sent = Some(Arc::new(Batch {
                first: draft.first,
                changes: std::mem::take(&mut draft.changes),
            }));
        }
        self.stage = Stage::InFlight;
        self.ledger.in_flight = true;
        let upkeep = self.upkeep.handle_sent(now, draft);
        let after = draft.after.as_ref().expect("a batch with the store is closed");
        let tallies = draft.touched.rows(&after.world, &after.tally);
        let history = BatchHistory {
            outbox: draft.log.row(draft.epoch),
            pseudonyms: draft.pseudonyms.clone(),
            forget: draft.forget.clone(),
            callbacks: draft.callbacks.rows(),
        };
        Some(StoreBatch {
            shard,
            epoch: draft.epoch,
            head,
            horizon,
            changes: draft.sent.clone(),
            idempotency: draft.keys.iter().map(IdempotencyRow::from).collect(),
            receipts: draft.receipts.clone(),
            push_jobs: draft.push_jobs.clone(),
            push_times: draft.push_times.clone(),
            tallies,
            upkeep,
            history,
            now,
        })
    }

    /// The batch with the store is durable; `found` is what the store says of it, and `took` how long that took.
    pub fn handle_committed(&mut self, now: Millis, found: Committed, took: Duration) -> Published {
        self.stage = Stage::Free;
        let draft = self.ledger.commit_first();
        self.note_committed(now, &draft, Some((found, took)));
        let pushes_changed = changes_pushes(&draft);
        let published = Published {
            world: Arc::new(self.ledger.committed.world.clone()),
            jobs: self.ledger.committed.jobs.clone(),
            caps: self.ledger.committed.caps.clone(),
            pushes_changed,
            tally: self.ledger.committed.tally.clone(),
            outbox_bytes: self.ledger.committed.outbox_bytes,
            events: self.ledger.committed.events,
            callbacks: self.ledger.committed.callbacks.clone(),
            callbacks_changed: draft.callbacks.is_news(),
            batch: draft.sent.map(|batch| (draft.epoch, batch)),
        };
        self.answer(draft.waiting);
        self.settle();
        published
    }

    /// The batch with the store did not commit and never will. Its callers are told so; what was decided on top of it
    /// is decided again, in order.
    pub fn handle_refused(&mut self, now: Millis) {
        self.stage = Stage::Free;
        self.undo(now, &problem::unavailable());
    }

    /// Nobody can tell whether the batch with the store committed. Nothing goes to the store until
    /// [`Writer::handle_epoch`].
    pub fn handle_unknown(&mut self) {
        self.stage = Stage::InDoubt;
    }

    /// The store cannot be asked what became of the batch in doubt. What was decided on top of it never went to the
    /// store: its callers are told so rather than kept waiting, and nothing of it will be applied.
    pub fn handle_away(&mut self) {
        debug_assert!(self.is_in_doubt(), "else there is nothing to ask");
        for pending in self.ledger.roll_back(true).into_iter().flat_map(|draft| draft.waiting) {
            // What began in the batch in doubt may be applied so far.
            let is_bulk =
                matches!(pending.write, Write::Members { .. } | Write::ImportDevices { .. });
            let problem = if is_bulk { problem::outcome_unknown() } else { problem::unavailable() };
            self.refuse(vec![pending], &problem);
        }
    }

    /// A new epoch began after `began_after` and the event numbered `events`, which settles what was in doubt: what the store had by then is
    /// committed, what it had not never will be.
    pub fn handle_epoch(
        &mut self,
        now: Millis,
        lineage: &Lineage,
        began_after: Seq,
        events: u64,
    ) -> Published {
        let first = self.ledger.batches.front().filter(|_| self.ledger.in_flight);
        // Receipts alone move no seq, so nothing tells; sending them again is harmless. What they counted may be in the
        // store and is not here: that is written once more, as it is here.
        let last = first.and_then(|draft| draft.sent.as_ref()).map(|batch| batch.last());
        // Events do tell, where there are any.
        let told = first.and_then(|draft| draft.log.last()).map(|last| events >= last);
        let in_flight = first.is_some();
        self.stage = Stage::Free;
        let mut batch = None;
        let mut undone = VecDeque::new();
        if last.map_or(told == Some(true), |last| began_after >= last) {
            let mut draft = self.ledger.commit_first();
            self.note_committed(now, &draft, None);
            batch = draft.sent.take().map(|batch| (draft.epoch, batch));
            self.answer(draft.waiting);
            undone = self.ledger.roll_back(false);
        } else {
            let mut all = self.ledger.roll_back(false);
            if in_flight && let Some(failed) = all.pop_front() {
                let is_certain = last.is_some() || told.is_some();
                let problem =
                    if is_certain { problem::unavailable() } else { problem::outcome_unknown() };
                if !is_certain {
                    self.ledger.owe(failed.touched);
                }
                self.refuse(failed.waiting, &problem);
            }
            undone.append(&mut all);
        }
        self.ledger.committed.world.set_lineage(lineage.clone());
        self.ledger.ahead.world.set_lineage(lineage.clone());
        self.ledger.raise_events(events);
        self.ledger.now = now;
        self.tell_opened();
        self.again(now, undone);
        let committed = &self.ledger.committed;
        Published {
            world: Arc::new(committed.world.clone()),
            jobs: committed.jobs.clone(),
            caps: committed.caps.clone(),
            pushes_changed: true,
            tally: committed.tally.clone(),
            outbox_bytes: committed.outbox_bytes,
            events: committed.events,
            callbacks: committed.callbacks.clone(),
            callbacks_changed: true,
            batch,
        }
    }

    /// Commits the starts and ends that are due, and a tick of the clock, and forgets a step of what is old. Call it at
    /// [`Writer::poll_timeout`], but not while it is in doubt what time it is.
    pub fn handle_tick(&mut self, now: Millis) {
        if now < self.tick_after || self.stage == Stage::InDoubt {
            return;
        }
        self.ledger.now = now;
        self.tell_opened();
        if let Err(error) = self.ledger.tick(now, TICK_CHANGES_MAX) {
            self.mend(now, &error);
        }
        if self.ledger.next_clock(self.clock_tick).is_some_and(|due| due <= now) {
            let tick = Vec::from_iter(self.ledger.clock(now));
            if let Err(error) = self.ledger.put(tick) {
                self.mend(now, &error);
            }
        }
        if now >= self.keys_at {
            let more = self.ledger.keys.forget(now, KEYS_FORGOTTEN_MAX);
            self.keys_at = now.plus(if more { KEYS_PAUSE } else { KEYS_EVERY });
        }
        if let Err(error) = self.upkeep.handle_time(now, &mut self.ledger) {
            self.mend(now, &error);
        }
    }

    /// When [`Writer::handle_tick`] has something to do.
    pub fn poll_timeout(&self) -> Millis {
        let clock = self.ledger.next_clock(self.clock_tick);
        let due = [self.ledger.schedule.next_due(), self.upkeep.poll_timeout(), clock];
        due.into_iter().flatten().fold(self.keys_at, Millis::min).max(self.tick_after)
    }

    /// The next answer that may be given.
    pub fn poll_reply(&mut self) -> Option<(ReplyId, Answer)> {
        self.replies.pop_front()
    }

    fn decide(&mut self, now: Millis, write: Write, id: ReplyId) {
        self.ledger.now = now;
        self.tell_opened();
        let result = match decide(&mut self.ledger, now, &write) {
            Ok(reply) => Ok(reply),
            Err(Fault::Refused(problem)) => Err(problem),
            Err(Fault::Broken(error)) => {
                self.mend(now, &error);
                Err(problem::internal())
            }
        };
        let pending = Pending { id, write, answer: Answer { result, at: self.ledger.position() } };
        if self.ledger.batches.is_empty() {
            self.answer(vec![pending]);
        } else {
            self.ledger.open().waiting.push(pending);
        }
    }

    fn note_committed(&mut self, now: Millis, draft: &Draft, found: Option<(Committed, Duration)>) {
        let world = &self.ledger.committed.world;
        self.upkeep.handle_committed(now, draft, (world.seq(), world.horizon()), found);
    }

    /// A write's changes did not fit the world that they were decided against: our own fault. That write is dropped,
    /// the others are decided again.
    fn mend(&mut self, now: Millis, error: &carillon_world::ApplyError) {
        tracing::error!(%error, "a decided write does not fit the world");
        let undone = self.ledger.roll_back(true);
        self.again(now, undone);
    }

    /// Fails the oldest batch and decides the others again.
    fn undo(&mut self, now: Millis, problem: &Problem) {
        let mut undone = self.ledger.roll_back(false);
        if let Some(failed) = undone.pop_front() {
            self.refuse(failed.waiting, problem);
        }
        self.tick_after = now.plus(TICK_PAUSE);
        self.again(now, undone);
    }

    fn again(&mut self, now: Millis, undone: VecDeque<Draft>) {
        for pending in undone.into_iter().flat_map(|draft| draft.waiting) {
            self.decide(now, pending.write, pending.id);
        }
        self.ledger.pay();
        let left = self.ledger.batches.iter().find_map(|draft| draft.step);
        self.upkeep.handle_undone(now, left);
        self.settle();
    }

    /// Answers that rest on nothing that is not durable yet.
    fn settle(&mut self) {
        while self.stage == Stage::Free && self.ledger.batches.front().is_some_and(Draft::is_empty)
        {
            let draft = self.ledger.batches.pop_front().expect("looked at above");
            self.answer(draft.waiting);
        }
    }

    fn refuse(&mut self, waiting: Vec<Pending>, problem: &Problem) {
        let at = self.committed().position();
        let refused = waiting
            .into_iter()
            .map(|p| Pending { answer: Answer { result: Err(problem.clone()), at }, ..p });
        let refused = refused.collect();
        self.answer(refused);
    }

    fn answer(&mut self, waiting: Vec<Pending>) {
        for Pending { id, write, answer } in waiting {
            self.pending -= 1;
            self.pending_bytes -= write.weight();
            self.replies.push_back((id, answer));
        }
    }
}

fn changes_pushes(draft: &Draft) -> bool {
    let changes = draft.sent.iter().flat_map(|batch| &batch.changes);
    !draft.push_jobs.is_empty() || changes.into_iter().any(|c| matches!(c, Change::App(_)))
}

fn refusal(fault: Fault) -> Problem {
    match fault {
        Fault::Refused(problem) => problem,
        Fault::Broken(_) => problem::internal(),
    }
}

#[cfg(test)]
mod tests;
