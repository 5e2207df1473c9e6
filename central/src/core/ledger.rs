//! What is committed, what is decided on top of it, and the batches in between.
//!
//! Invariants: `ahead` is `committed` plus the changes of every batch in order; batches follow each other without a
//! gap; only the last one is open; each holds the writes whose answers wait for it, in the order they were decided.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use carillon_persist::history::{EndedDevice, ForgetOutbox, OutboxKept, PseudonymRow};
use carillon_persist::{
    BatchCallbacks, BatchUpkeep, CallbackId, CallbackLogRow, CallbackProgress, CallbackRow,
    CallbacksKept, PushJobRow, PushTimesRow, ReceiptRow, Tallies,
};
use carillon_world::{
    AppId, ApplyError, Batch, Change, DeviceId, DeviceRow, Epoch, FrequencyCap, MessageId,
    MessageState, Millis, Position, Seq, World,
};

use super::books::Mark;
use super::budget::Budgets;
use super::callback::CallbackLimits;
use super::callback::state::{Callbacks, Endpoint};
use super::decide::Fault;
use super::funnel::Counter;
use super::history::{self, Event, EventLog, HistoryConfig, LOG_BYTES_MAX};
use super::idempotency::{KeyRecord, Keys};
use super::limits::{BATCH_BYTES_MAX, BATCH_CHANGES_MAX};
use super::push::caps::Caps;
use super::push::jobs::{self, JobKey, Jobs};
use super::schedule::Schedule;
use super::seen::LastSeen;
use super::state::State;
use super::tally::{Touched, counter_of};
use super::weight;
use super::write::{Answer, ReplyId, Write};
use super::writer::{StepKind, WriterConfig};

/// No event has a greater number that a store can hold.
const ANY_EVENT: u64 = i64::MAX.cast_unsigned();

/// Where a batch is cut. Changes that stand or fall together come in one batch, whatever its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    pub changes_max: NonZeroUsize,
    /// Encoded. A quarter of the stream's window, so that a window always holds several.
    pub bytes_max: usize,
}

impl Default for BatchLimits {
    fn default() -> BatchLimits {
        BatchLimits { changes_max: BATCH_CHANGES_MAX, bytes_max: BATCH_BYTES_MAX }
    }
}

/// A write that was decided and whose answer waits.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) id: ReplyId,
    pub(crate) write: Write,
    pub(crate) answer: Answer,
}

/// What one transaction will commit.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) epoch: Epoch,
    pub(crate) first: Seq,
    pub(crate) changes: Vec<Change>,
    pub(crate) bytes: usize,
    /// Rows that the changes write.
    pub(crate) rows: usize,
    pub(crate) keys: Vec<KeyRecord>,
    pub(crate) receipts: Vec<ReceiptRow>,
    pub(crate) push_jobs: Vec<PushJobRow>,
    pub(crate) push_times: Vec<PushTimesRow>,
    /// Whose rows go with it.
    pub(crate) touched: Touched,
    /// It writes what is owed.
    pub(crate) pays: bool,
    pub(crate) upkeep: BatchUpkeep,
    /// What it tells the history.
    pub(crate) log: EventLog,
    pub(crate) pseudonyms: Vec<PseudonymRow>,
    pub(crate) forget: Option<ForgetOutbox>,
    pub(crate) callbacks: CallbackDraft,
    /// The step of forgetting that it holds.
    pub(crate) step: Option<StepKind>,
    /// When it was sent, if it carries a sample.
    pub(crate) sampled_at: Option<Millis>,
    pub(crate) waiting: Vec<Pending>,
    /// The changes, once they are with the store.
    pub(crate) sent: Option<Arc<Batch>>,
    /// The state after its last change, once it is closed.
    pub(crate) after: Option<State>,
}

impl Draft {
    /// Whether there is nothing to commit: only answers that rest on the batch before.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.keys.is_empty()
            && self.receipts.is_empty()
            && self.push_jobs.is_empty()
            && self.push_times.is_empty()
            && self.touched.is_empty()
            && self.upkeep == BatchUpkeep::default()
            && self.log.is_empty()
            && self.pseudonyms.is_empty()
            && self.forget.is_none()
            && self.callbacks == CallbackDraft::default()
    }
}

/// What a batch does about callbacks: of each endpoint as it is after it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct CallbackDraft {
    /// `None`: it is gone.
    endpoints: BTreeMap<CallbackId, Option<Arc<CallbackRow>>>,
    progress: BTreeMap<CallbackId, Arc<CallbackProgress>>,
    log: Vec<CallbackLogRow>,
    logged: Option<u64>,
    forget: Option<u64>,
}

impl CallbackDraft {
    /// Whether whoever calls endpoints is to look.
    pub(crate) fn is_news(&self) -> bool {
        !self.endpoints.is_empty() || !self.log.is_empty() || self.forget.is_some()
    }

    pub(crate) fn rows(&self) -> BatchCallbacks {
        let mut rows = BatchCallbacks {
            progress: self.progress.iter().map(|(id, of)| (*id, of.clone())).collect(),
            log: self.log.clone(),
            logged: self.logged,
            forget: self.forget,
            ..BatchCallbacks::default()
        };
        for (id, row) in &self.endpoints {
            match row {
                Some(row) => rows.endpoints.push(row.clone()),
                None => rows.gone.push(*id),
            }
        }
        rows
    }
}

#[derive(Debug)]
pub(crate) struct Ledger {
    limits: BatchLimits,
    pub(crate) budgets: Budgets,
    pub(crate) committed: State,
    pub(crate) ahead: State,
    pub(crate) batches: VecDeque<Draft>,
    /// Whether the first batch is with the store.
    pub(crate) in_flight: bool,
    pub(crate) keys: Keys,
    pub(crate) schedule: Schedule,
    pub(crate) seen: LastSeen,
    /// When what is decided is decided.
    pub(crate) now: Millis,
    /// `None`: no history is kept.
    pub(crate) history: Option<HistoryConfig>,
    pub(crate) callbacks: CallbackLimits,
    /// Of which the store may have other counts than we: a batch that may have committed did not count here.
    owed: Touched,
}

impl Ledger {
    pub(crate) fn new(
        config: &WriterConfig,
        (outbox, callbacks): (OutboxKept, CallbacksKept),
        world: World,
        tallies: Tallies,
        keys: Vec<KeyRecord>,
        seen: LastSeen,
        (jobs, push_times): (Vec<PushJobRow>, Vec<PushTimesRow>),
    ) -> Ledger {
        let schedule = Schedule::of(&world);
        let mut committed = State::load(world, tallies);
        committed.jobs = Jobs::new(jobs);
        committed.caps = Caps::load(push_times, &committed.world);
        committed.callbacks = Callbacks::load(callbacks);
        committed.events = outbox.head;
        committed.outbox_bytes = outbox.bytes;
        let ahead = committed.clone();
        Ledger {
            limits: config.batch,
            budgets: config.budgets,
            committed,
            ahead,
            batches: VecDeque::new(),
            in_flight: false,
            keys: Keys::new(keys),
            schedule,
            seen,
            now: Millis::ZERO,
            history: config.history,
            callbacks: config.callbacks,
            owed: Touched::default(),
        }
    }

    /// The world that a write is decided against.
    pub(crate) fn world(&self) -> &World {
        &self.ahead.world
    }

    /// The seq that the next change gets.
    pub(crate) fn next_seq(&self) -> Seq {
        self.ahead.world.seq().next()
    }

    /// Where the writes decided so far are.
    pub(crate) fn position(&self) -> Position {
        self.ahead.world.position()
    }

    /// The position of a seq of this world's past.
    pub(crate) fn position_of(&self, seq: Seq) -> Position {
        let world = self.world();
        Position { shard: world.shard(), epoch: world.lineage().epoch_at(seq), seq }
    }

    /// The open batch; opens one if the last is closed or with the store.
    pub(crate) fn open(&mut self) -> &mut Draft {
        let closed = self.batches.back().is_none_or(|draft| draft.after.is_some());
        if closed {
            self.batches.push_back(Draft {
                epoch: self.ahead.world.lineage().newest().epoch,
                first: self.next_seq(),
                changes: Vec::new(),
                bytes: 0,
                rows: 0,
                keys: Vec::new(),
                receipts: Vec::new(),
                push_jobs: Vec::new(),
                push_times: Vec::new(),
                touched: self.owed.clone(),
                pays: !self.owed.is_empty(),
                upkeep: BatchUpkeep::default(),
                log: EventLog::default(),
                pseudonyms: Vec::new(),
                forget: None,
                callbacks: CallbackDraft::default(),
                step: None,
                sampled_at: None,
                waiting: Vec::new(),
                sent: None,
                after: None,
            });
        }
        self.batches.back_mut().expect("one was opened")
    }

    /// Closes the open batch: nothing joins it any more.
    pub(crate) fn close(&mut self) {
        let after = self.ahead.clone();
        if let Some(draft) = self.batches.back_mut() {
            draft.after.get_or_insert(after);
        }
    }

    /// Appends changes that stand or fall together. They come in one batch, whatever its size.
    ///
    /// # Errors
    /// If they do not fit the world: a fault of ours, after which `ahead` has to be made again.
    pub(crate) fn put(&mut self, changes: Vec<Change>) -> Result<(), ApplyError> {
        if changes.is_empty() {
            return Ok(());
        }
        let bytes: usize = changes.iter().map(weight::of_change).sum();
        let rows: usize = changes.iter().map(weight::rows_of_change).sum();
        let limits = self.limits;
        let open = self.open();
        let full = open.rows + rows > limits.changes_max.get()
            || open.bytes + bytes > limits.bytes_max
            || open.log.bytes() > LOG_BYTES_MAX;
        if full && !open.changes.is_empty() {
            self.close();
        }
        // Before `ahead` moves on: a batch begins at the seq that comes next.
        self.open();
        let batch = Batch { first: self.next_seq(), changes };
        let events = self.events_of(&batch);
        self.ahead.apply(&batch)?;
        for change in &batch.changes {
            note(&mut self.schedule, &self.ahead.world, change);
        }
        let open = self.open();
        open.bytes += bytes;
        open.rows += rows;
        events.iter().for_each(|event| self.tell(event));
        for (seq, change) in batch.numbered() {
            self.follow(seq, change);
        }
        if self.history.is_none() {
            self.forget_names(&batch);
        }
        self.open().changes.extend(batch.changes);
        Ok(())
    }

    /// A device that goes while no history is kept had its name from one that was: nobody else would take it away. While
    /// events of then wait, which would only give it another, its end waits with them.
    fn forget_names(&mut self, batch: &Batch) {
        let mut devices = Vec::new();
        for (seq, change) in batch.numbered() {
            let Change::DeviceGone { app, id } = change else { continue };
            if self.ahead.outbox_bytes > 0 {
                self.log(&Event { change: Some(seq), ..Event::device_deleted(*app, *id) });
            } else {
                devices.push(EndedDevice { app: *app, device: *id, event: ANY_EVENT });
            }
        }
        if !devices.is_empty() {
            self.forget_outbox(&ForgetOutbox { through: 0, devices }, 0);
        }
    }

    /// Begins, stops and ends the pushes of the message that a change is about.
    fn follow(&mut self, seq: Seq, change: &Change) {
        let (app, id) = match change {
            Change::Message(row) => (row.app, row.id),
            Change::MessageState { app, id, .. } => (*app, *id),
            Change::Purge { .. } => return self.ahead.jobs.sweep(&self.ahead.world),
            _ => return,
        };
        let Some(app) = self.ahead.world.app(app) else { return };
        let Some(message) = app.message(id) else { return };
        let before = self.ahead.jobs.of(app.row().id, id);
        if before.is_empty() && message.row().push.is_none() {
            return;
        }
        let push = app.row().push.as_deref();
        for job in jobs::after_change(before, message.row(), push, seq, self.now) {
            self.put_job(job);
        }
    }

    /// Remembers for the app's frequency cap that a device was pushed.
    pub(crate) fn put_pushed(&mut self, app: AppId, device: DeviceId, cap: FrequencyCap) {
        let row = self.ahead.caps.note(app, device, cap, self.now);
        self.open().push_times.push(row);
    }

    /// What changes that are about to be put tell the history.
    fn events_of(&self, batch: &Batch) -> Vec<Event> {
        let Some(config) = self.history else { return Vec::new() };
        let event = |(seq, change)| history::of_change(&self.ahead.world, seq, change, config);
        batch.numbered().filter_map(event).collect()
    }

    /// Tells the history with the batch that is open, if one is kept.
    pub(crate) fn tell(&mut self, event: &Event) {
        if self.history.is_some() {
            self.log(event);
        }
    }

    fn log(&mut self, event: &Event) {
        self.ahead.events += 1;
        let (seq, at) = (self.ahead.events, self.now);
        self.ahead.outbox_bytes += self.open().log.push(seq, at, event);
    }

    /// Whether as much waits for the history as may.
    pub(crate) fn is_history_full(&self) -> bool {
        self.history.is_some_and(|config| self.ahead.outbox_bytes >= config.outbox_bytes_max)
    }

    /// The history has events of so many bytes.
    pub(crate) fn forget_outbox(&mut self, forget: &ForgetOutbox, bytes: u64) {
        // Said again, as by a publisher that had no answer in time, it counts once.
        if forget.through > self.ahead.sent {
            self.ahead.sent = forget.through;
            self.ahead.outbox_bytes = self.ahead.outbox_bytes.saturating_sub(bytes);
        }
        let known = self.open().forget.get_or_insert_default();
        known.through = known.through.max(forget.through);
        known.devices.extend_from_slice(&forget.devices);
    }

    pub(crate) fn put_pseudonyms(&mut self, rows: &[PseudonymRow]) {
        self.make_room();
        let open = self.open();
        open.rows += rows.len();
        open.pseudonyms.extend_from_slice(rows);
    }

    pub(crate) fn put_callback(&mut self, endpoint: Endpoint) {
        let id = endpoint.row.id;
        let draft = &mut self.open().callbacks;
        draft.endpoints.insert(id, Some(endpoint.row.clone()));
        draft.progress.insert(id, endpoint.progress.clone());
        self.ahead.callbacks.put(endpoint);
    }

    pub(crate) fn put_callback_progress(&mut self, id: CallbackId, progress: CallbackProgress) {
        self.make_room();
        let progress = Arc::new(progress);
        self.open().callbacks.progress.insert(id, progress.clone());
        self.ahead.callbacks.put_progress(id, progress);
    }

    pub(crate) fn remove_callback(&mut self, id: CallbackId) {
        let draft = &mut self.open().callbacks;
        draft.endpoints.insert(id, None);
        draft.progress.remove(&id);
        self.ahead.callbacks.remove(id);
    }

    pub(crate) fn put_callback_log(&mut self, rows: &[CallbackLogRow], through: u64) {
        self.make_room();
        let open = self.open();
        open.rows += rows.len();
        open.callbacks.log.extend_from_slice(rows);
        open.callbacks.logged = Some(through);
        self.ahead.callbacks.note_logged(rows, through);
    }

    pub(crate) fn forget_callback_log(&mut self, through: u64, bytes: u64) {
        self.open().callbacks.forget = Some(through);
        self.ahead.callbacks.note_forgotten(bytes);
    }

    /// No event gets a number that is in the store, whoever wrote it.
    pub(crate) fn raise_events(&mut self, events: u64) {
        for state in [&mut self.committed, &mut self.ahead] {
            state.events = state.events.max(events);
        }
    }

    /// Commits how far a job is with the changes that were put last.
    pub(crate) fn put_job(&mut self, job: PushJobRow) {
        let before = self.ahead.jobs.get(JobKey::of(&job));
        if before.is_none_or(|was| (was.run, was.state) != (job.run, job.state)) {
            self.tell(&Event::job(&job));
        }
        self.ahead.jobs.put(job.clone());
        self.open().push_jobs.push(job);
    }

    /// As [`Ledger::put`], for what a caller adds: refuses what would make the world too large. What a caller takes
    /// away, and what falls due, is put without being asked.
    ///
    /// # Errors
    /// 507 `world-full`, with nothing put; or as [`Ledger::put`].
    pub(crate) fn grow(&mut self, changes: Vec<Change>) -> Result<(), Fault> {
        if !self.budgets.has_room(self.world()) {
            // Rare, and a state is cheap to copy, so it is tried out instead of computed in another way.
            let mut trial = self.ahead.clone();
            trial.apply(&Batch { first: self.next_seq(), changes: changes.clone() })?;
            self.budgets.admit(&self.ahead.world.usage(), &trial.world.usage())?;
        }
        Ok(self.put(changes)?)
    }

    /// What brings the committed clock up to date, for whatever is to be judged by it from then on.
    pub(crate) fn clock(&self, now: Millis) -> Option<Change> {
        (now > self.world().clock()).then_some(Change::Clock { at: now })
    }

    /// When the committed clock ticks next; `None` while nothing follows it.
    pub(crate) fn next_clock(&self, tick: u64) -> Option<Millis> {
        let world = self.world();
        world.follows_clock().then(|| world.clock().plus(tick))
    }

    /// Closes the open batch if it is full, before rows change that no change brings. None is opened for that: most
    /// reports have nothing new to say.
    fn make_room(&mut self) {
        let most = self.limits.changes_max.get();
        let is_full = |draft: &Draft| draft.rows >= most || draft.log.bytes() > LOG_BYTES_MAX;
        if self.batches.back().is_some_and(is_full) {
            self.close();
        }
    }

    /// Counts `n` more of a message at `now`; nothing, if the world does not know it.
    pub(crate) fn count(
        &mut self,
        now: Millis,
        app: AppId,
        message: MessageId,
        counter: Counter,
        n: u64,
    ) {
        let is_known = self.world().app(app).is_some_and(|app| app.message(message).is_some());
        if n == 0 || !is_known {
            return;
        }
        self.make_room();
        let keys = self.ahead.tally.funnel.count(now, (app, message), counter, n);
        let open = self.open();
        for key in keys {
            open.rows += usize::from(open.touched.counts.insert(key));
        }
    }

    /// A device did something with a message; counts if that is news.
    pub(crate) fn mark(
        &mut self,
        now: Millis,
        (app, device): (AppId, DeviceId),
        message: MessageId,
        mark: Mark,
    ) {
        self.make_room();
        if self.ahead.tally.books.mark(app, device, message, mark) {
            self.touch_book(app, device);
            if let Some(event) = Event::mark((app, device), message, mark) {
                self.tell(&event);
            }
            if let Some(counter) = counter_of(mark) {
                self.count(now, app, message, counter, 1);
            }
        }
    }

    /// A device has stored everything up to `held`, as [`Books::handle_stored`](super::books::Books::handle_stored) takes
    /// it; counts what is news.
    pub(crate) fn stored(
        &mut self,
        now: Millis,
        device: &DeviceRow,
        held: Seq,
        volatile: Option<u64>,
    ) {
        self.make_room();
        let State { world, tally, .. } = &mut self.ahead;
        let Some(first) = tally.books.handle_stored(world, device, held, volatile) else { return };
        self.touch_book(device.app, device.id);
        for (message, mark) in first {
            if let Some(event) = Event::mark((device.app, device.id), message, mark) {
                self.tell(&event);
            }
            if let Some(counter) = counter_of(mark) {
                self.count(now, device.app, message, counter, 1);
            }
        }
    }

    fn touch_book(&mut self, app: AppId, device: DeviceId) {
        let open = self.open();
        open.rows += usize::from(open.touched.books.insert((app, device)));
    }

    /// Rows whose batch may have committed, though it does not count: the next batch writes what we have.
    pub(crate) fn owe(&mut self, touched: Touched) {
        self.owed.extend(touched);
    }

    /// Sees to it that what is owed goes with a batch.
    pub(crate) fn pay(&mut self) {
        let is_paid = self.batches.iter().any(|draft| draft.pays);
        if !self.owed.is_empty() && !is_paid {
            self.close();
            self.open();
        }
    }

    /// Remembers a key and its answer with the changes that were put last.
    pub(crate) fn put_key(&mut self, record: KeyRecord) {
        self.keys.insert(record.clone());
        self.open().keys.push(record);
    }

    /// The first batch is durable. Gives it back.
    ///
    /// # Panics
    /// If none is with the store, which is our own fault.
    pub(crate) fn commit_first(&mut self) -> Draft {
        assert!(self.in_flight, "a batch is with the store");
        self.in_flight = false;
        let mut draft = self.batches.pop_front().expect("a batch is with the store");
        self.committed = draft.after.take().expect("a batch with the store is closed");
        if draft.pays {
            self.owed = Touched::default();
        }
        draft
    }

    /// Forgets everything that is not committed, or, with `keep_first`, that is not committed nor with the store.
    /// Gives what it forgot, oldest first.
    pub(crate) fn roll_back(&mut self, keep_first: bool) -> VecDeque<Draft> {
        let undone = self.batches.split_off(usize::from(keep_first && self.in_flight));
        match self.batches.front().and_then(|draft| draft.after.as_ref()) {
            Some(after) => self.ahead = after.clone(),
            None => {
                self.in_flight = false;
                self.ahead = self.committed.clone();
            }
        }
        for draft in &undone {
            for record in &draft.keys {
                self.keys.remove(record);
            }
            // Starts and ends that were taken out of the schedule are due again.
            let sent = draft.sent.iter().flat_map(|batch| &batch.changes);
            for change in draft.changes.iter().chain(sent) {
                note(&mut self.schedule, &self.ahead.world, change);
            }
        }
        undone
    }

    /// Puts the starts and ends that are due at `now`, at most `most` of them. Each is put before the next is looked
    /// for, because a message that was edited may stand in the schedule more than once.
    ///
    /// # Errors
    /// As [`Ledger::put`].
    pub(crate) fn tick(&mut self, now: Millis, most: usize) -> Result<usize, ApplyError> {
        let mut count = 0;
        while count < most {
            let Some((app, id)) = self.schedule.pop(now) else { break };
            let message = self.ahead.world.app(app).and_then(|a| a.message(id));
            let Some(message) = message else { continue };
            match super::schedule::transition(message.row(), now) {
                Some(state) => {
                    let starts = state == MessageState::Active && message.is_volatile();
                    let mut changes = Vec::from_iter(self.clock(now).filter(|_| starts));
                    changes.push(Change::MessageState { app, id, state });
                    self.put(changes)?;
                    count += 1;
                }
                None => self.schedule.note(message.row()),
            }
        }
        Ok(count)
    }
}

/// Remembers the next start or end of the message that the change is about, if there is one in `world`.
fn note(schedule: &mut Schedule, world: &World, change: &Change) {
    let (app, id) = match change {
        Change::Message(row) => (row.app, row.id),
        Change::MessageState { app, id, .. } => (*app, *id),
        _ => return,
    };
    if let Some(message) = world.app(app).and_then(|a| a.message(id)) {
        schedule.note(message.row());
    }
}
