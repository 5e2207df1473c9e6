//! From changes to rows: what a batch writes, in the order in which it must be written, for either store.
//!
//! Each table has one form of row; a deletion is a row whose other columns are empty. So all changes of a table are
//! one multi-row insert, and rows of one key take effect in their order.

use std::borrow::Cow;
use std::collections::HashMap;

use carillon_world::{AppId, Change, DeviceRow, MessageId, MessageRow, MessageState, Millis, Seq};

use crate::callback;
use crate::history::{BatchHistory, ForgetOutbox};
use crate::names::Named;
use crate::push;
use crate::tables::{
    APP_PUSH, APPS, ATTRIBUTES, AUDIENCE_REVISIONS, AUDIENCES, CALLBACK_ENDPOINTS, CALLBACK_HEADS,
    CALLBACK_LOG, CALLBACK_PROGRESS, COMMITTED_CLOCK, DEVICE_BOOKS, DEVICE_SEEN, DEVICES, ERASURES,
    EVENT_HEADS, GROUPS, IDEMPOTENCY, MESSAGE_COUNTS, MESSAGE_PUSH, MESSAGES, OUTBOX, PSEUDONYMS,
    PUSH_JOBS, PUSH_TIMES, QUOTAS, RECEIPTS, REVISIONS, SEEN_SINCE, SEQ_TIMES, Table,
};
use crate::{
    CallbackId, CountRow, Erase, ForgetCounts, ForgetKeys, IDEMPOTENCY_KEY_BYTES_MAX, PushJobRow,
    StoreBatch, StoreError, Tallies, json,
};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Int(u64),
    Text(Cow<'a, str>),
    Blob(&'a [u8]),
}

/// What stands between the fence and COMMIT.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// Whole rows, `table.columns.len()` cells each. Not empty.
    Insert {
        table: &'static Table,
        cells: Vec<Cell<'a>>,
    },
    /// A start, an end or a recall of a message that this batch has not written before.
    State {
        app: AppId,
        message: MessageId,
        seq: Seq,
        state: MessageState,
    },
    /// What `Change::Purge` forgets, of what changed above `from`.
    Purge {
        from: Seq,
        horizon: Seq,
    },
    ForgetKeys(ForgetKeys),
    Erase(&'a Erase),
    ForgetCounts(&'a ForgetCounts),
    ForgetOutbox(&'a ForgetOutbox),
    ForgetCallback(CallbackId),
    /// Rows of the log up to the one with this first event.
    ForgetCallbackLog(u64),
}

/// Bytes of events in a row of the outbox, about: no statement is to be much longer than others.
pub(crate) const OUTBOX_ROW_BYTES: usize = 256 * 1024;

/// Events of a batch are rows of about `outbox_row_bytes` each.
///
/// # Errors
/// [`StoreError::Invalid`] if the batch does not follow its head or a row has no form in the store.
pub(crate) fn plan(
    batch: &StoreBatch,
    outbox_row_bytes: usize,
) -> Result<Vec<Step<'_>>, StoreError> {
    let mut steps = Vec::new();
    if let Some(changes) = &batch.changes {
        if changes.changes.is_empty() || changes.first != batch.head.next() {
            let detail = format!(
                "{} changes from {} after {}",
                changes.changes.len(),
                changes.first,
                batch.head
            );
            return Err(StoreError::Invalid { detail });
        }
        let mut run = Run::new(batch.shard.get().into());
        let mut from = batch.horizon;
        for (seq, change) in changes.numbered() {
            if let Change::Purge { horizon } = change {
                run.finish(&mut steps)?;
                steps.push(Step::Purge { from, horizon: *horizon });
                from = from.max(*horizon);
            } else {
                run.add(seq, change)?;
            }
        }
        run.finish(&mut steps)?;
    }
    upkeep(batch, &mut steps);
    let shard = Cell::Int(batch.shard.get().into());
    let mut keys = Vec::with_capacity(batch.idempotency.len() * IDEMPOTENCY.columns.len());
    for row in &batch.idempotency {
        if row.key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            return Err(StoreError::invalid(format!(
                "an idempotency key of {} bytes",
                row.key.len()
            )));
        }
        keys.extend([
            shard.clone(),
            Cell::Int(row.app.get()),
            text(&row.key),
            Cell::Blob(&row.request),
            Cell::Blob(&row.response),
            Cell::Int(row.created_at.0),
        ]);
    }
    insert(&mut steps, &IDEMPOTENCY, keys);
    let mut receipts = Vec::with_capacity(batch.receipts.len() * RECEIPTS.columns.len());
    for row in &batch.receipts {
        receipts.extend([
            shard.clone(),
            Cell::Int(row.app.get()),
            Cell::Int(row.device.get()),
            Cell::Int(row.id),
            Cell::Int(row.message.get()),
            text(&row.kind),
            Cell::Int(row.at.0),
        ]);
    }
    insert(&mut steps, &RECEIPTS, receipts);
    let jobs = batch.push_jobs.iter().flat_map(|row| job(batch.shard.get().into(), row));
    insert(&mut steps, &PUSH_JOBS, jobs.collect());
    let times = batch.push_times.iter().flat_map(|row| {
        let minutes = push::write_minutes(&row.minutes);
        [
            shard.clone(),
            Cell::Int(row.app.get()),
            Cell::Int(row.device.get()),
            Cell::Text(minutes.into()),
        ]
    });
    insert(&mut steps, &PUSH_TIMES, times.collect());
    tallies(&shard, &batch.tallies, &mut steps)?;
    history(&shard, &batch.history, outbox_row_bytes, &mut steps);
    Ok(steps)
}

fn history<'a>(
    shard: &Cell<'static>,
    history: &'a BatchHistory,
    outbox_row_bytes: usize,
    steps: &mut Vec<Step<'a>>,
) {
    // First, so that a device that is forgotten and met again in one batch has a name after it.
    steps.extend(history.forget.as_ref().map(Step::ForgetOutbox));
    let names = history.pseudonyms.iter().flat_map(|row| {
        let (app, device) = (Cell::Int(row.app.get()), Cell::Int(row.device.get()));
        [shard.clone(), app, device, Cell::Int(row.since), Cell::Blob(row.pseudonym.bytes())]
    });
    insert(steps, &PSEUDONYMS, names.collect());
    let callbacks = &history.callbacks;
    steps.extend(callbacks.gone.iter().copied().map(Step::ForgetCallback));
    steps.extend(callbacks.forget.map(Step::ForgetCallbackLog));
    let [endpoints, progress, log, heads] = callback::stored::cells(shard, callbacks);
    insert(steps, &CALLBACK_ENDPOINTS, endpoints);
    insert(steps, &CALLBACK_PROGRESS, progress);
    insert(steps, &CALLBACK_LOG, log);
    insert(steps, &CALLBACK_HEADS, heads);
    let Some(row) = &history.outbox else { return };
    let cells = row.pieces(outbox_row_bytes).flat_map(|(first, events, payload)| {
        [
            shard.clone(),
            Cell::Int(first),
            Cell::Int(row.epoch.number),
            Cell::Int(row.epoch.tag),
            Cell::Int(events.into()),
            Cell::Int(payload.len() as u64),
            Cell::Blob(payload),
        ]
    });
    insert(steps, &OUTBOX, cells.collect());
    insert(steps, &EVENT_HEADS, vec![shard.clone(), Cell::Int(row.last())]);
}

fn tallies<'a>(
    shard: &Cell<'static>,
    tallies: &'a Tallies,
    steps: &mut Vec<Step<'a>>,
) -> Result<(), StoreError> {
    let mut books = Vec::with_capacity(tallies.books.len() * DEVICE_BOOKS.columns.len());
    for row in &tallies.books {
        if !row.is_sound() {
            return Err(StoreError::invalid(format!("the book of device {}", row.device)));
        }
        let (app, device) = (Cell::Int(row.app.get()), Cell::Int(row.device.get()));
        let held = Cell::Int(row.held.get());
        books.extend([shard.clone(), app, device, held, Cell::Blob(&row.marks)]);
    }
    insert(steps, &DEVICE_BOOKS, books);
    let mut counts = Vec::with_capacity(tallies.counts.len() * MESSAGE_COUNTS.columns.len());
    for row in &tallies.counts {
        if row.counter.len() > CountRow::COUNTER_BYTES_MAX {
            let bytes = row.counter.len();
            return Err(StoreError::invalid(format!("a counter's name of {bytes} bytes")));
        }
        counts.extend([
            shard.clone(),
            Cell::Int(row.app.get()),
            Cell::Int(row.message.get()),
            word(row.span.name()),
            text(&row.counter),
            Cell::Int(row.at.0),
            Cell::Int(row.n),
        ]);
    }
    insert(steps, &MESSAGE_COUNTS, counts);
    Ok(())
}

fn upkeep<'a>(batch: &'a StoreBatch, steps: &mut Vec<Step<'a>>) {
    let shard = Cell::Int(batch.shard.get().into());
    let upkeep = &batch.upkeep;
    if upkeep.sample {
        let row = vec![shard.clone(), Cell::Int(batch.last().get()), Cell::Int(batch.now.0)];
        insert(steps, &SEQ_TIMES, row);
    }
    if let Some(since) = upkeep.seen_since {
        insert(steps, &SEEN_SINCE, vec![shard.clone(), Cell::Int(since.0)]);
    }
    if let Some(forget) = upkeep.forget_keys {
        steps.push(Step::ForgetKeys(forget));
    }
    if let Some(erase) = &upkeep.erase {
        steps.push(Step::Erase(erase));
    }
    if let Some(forget) = &upkeep.forget_counts {
        steps.push(Step::ForgetCounts(forget));
    }
}

/// Changes between two purges.
#[derive(Debug)]
struct Run<'a> {
    shard: u64,
    states: Vec<Step<'a>>,
    apps: Vec<Cell<'a>>,
    quotas: Vec<Cell<'a>>,
    app_push: Vec<Cell<'a>>,
    attributes: Vec<Cell<'a>>,
    groups: Vec<Cell<'a>>,
    audiences: Vec<Cell<'a>>,
    audience_revisions: Vec<Cell<'a>>,
    devices: Vec<Cell<'a>>,
    /// The last row of each message that the run wrote, with its state and seq; written at the end.
    messages: HashMap<(AppId, MessageId), (&'a MessageRow, MessageState, Seq)>,
    revisions: Vec<Cell<'a>>,
    /// The devices that are gone, whose receipts go later.
    erasures: Vec<Cell<'a>>,
    /// Hours in which devices were seen; 0 for one that is gone, so that who gets its id was never seen.
    seen: Vec<Cell<'a>>,
    /// Empty books of devices that are gone, so that nothing of them is left even until they are erased.
    books: Vec<Cell<'a>>,
    clock: Option<Millis>,
}

impl<'a> Run<'a> {
    fn new(shard: u64) -> Run<'a> {
        Run {
            shard,
            states: Vec::new(),
            apps: Vec::new(),
            quotas: Vec::new(),
            app_push: Vec::new(),
            attributes: Vec::new(),
            groups: Vec::new(),
            audiences: Vec::new(),
            audience_revisions: Vec::new(),
            devices: Vec::new(),
            messages: HashMap::new(),
            revisions: Vec::new(),
            erasures: Vec::new(),
            seen: Vec::new(),
            books: Vec::new(),
            clock: None,
        }
    }

    fn add(&mut self, seq: Seq, change: &'a Change) -> Result<(), StoreError> {
        let shard = Cell::Int(self.shard);
        let at = Cell::Int(seq.get());
        let live = Cell::Int(0);
        let gone = Cell::Int(1);
        match change {
            Change::App(row) => {
                let own = |quota: Option<u64>| quota.map_or(Cell::Null, Cell::Int);
                self.quotas.extend([
                    shard.clone(),
                    Cell::Int(row.id.get()),
                    own(row.quotas.devices_max),
                    own(row.quotas.groups_max),
                    own(row.quotas.live_messages_max),
                    own(row.quotas.bodies_bytes_max),
                ]);
                if let Some(of) = &row.push {
                    let (settings, credentials) = push::write_app(of);
                    self.app_push.extend([
                        shard.clone(),
                        Cell::Int(row.id.get()),
                        Cell::Text(settings.into()),
                        Cell::Text(credentials.into()),
                    ]);
                }
                self.apps.extend([
                    shard,
                    Cell::Int(row.id.get()),
                    text(&row.name),
                    word(row.environment.name()),
                    text(&row.publishable_key),
                    Cell::Int(row.created_at.0),
                    at,
                ]);
            }
            Change::Attribute(row) => self.attributes.extend([
                shard,
                Cell::Int(row.app.get()),
                Cell::Int(row.id.get()),
                text(&row.name),
                word(row.kind.as_str()),
                word(row.set_by.name()),
                at,
                live,
            ]),
            Change::AttributeGone { app, id } => self.attributes.extend([
                shard,
                Cell::Int(app.get()),
                Cell::Int(id.get()),
                word(""),
                word(""),
                word(""),
                at,
                gone,
            ]),
            Change::Group(row) => self.groups.extend([
                shard,
                Cell::Int(row.app.get()),
                Cell::Int(row.id.get()),
                text(&row.name),
                word(row.set_by.name()),
                at,
                live,
            ]),
            Change::GroupGone { app, id } => {
                self.groups.extend([
                    shard,
                    Cell::Int(app.get()),
                    Cell::Int(id.get()),
                    word(""),
                    word(""),
                    at,
                    gone,
                ]);
            }
            Change::Audience(row) => {
                let key = [shard, Cell::Int(row.app.get()), Cell::Int(row.id.get())];
                self.audience_revisions.extend(key.clone());
                // A rename writes the row that is there.
                self.audience_revisions.extend([Cell::Int(row.from.get()), text(&row.expression)]);
                self.audiences.extend(key);
                self.audiences.extend([
                    text(&row.name),
                    Cell::Int(row.revision.into()),
                    Cell::Int(row.from.get()),
                    text(&row.expression),
                    at,
                    live,
                ]);
            }
            Change::AudienceGone { app, id } => {
                self.audiences.extend([
                    shard,
                    Cell::Int(app.get()),
                    Cell::Int(id.get()),
                    word(""),
                    Cell::Int(0),
                    Cell::Int(0),
                    word(""),
                    at,
                    gone,
                ]);
            }
            Change::Device(row) => self.devices.extend(device(self.shard, row, seq)),
            // A tombstone says nothing of the device but that it was there.
            Change::DeviceGone { app, id } => {
                let key = [shard, Cell::Int(app.get()), Cell::Int(id.get())];
                self.erasures.extend(key.clone());
                self.seen.extend(key.clone().into_iter().chain([Cell::Int(0)]));
                self.books.extend(key.clone().into_iter().chain([Cell::Int(0), Cell::Blob(&[])]));
                self.devices.extend(key);
                self.devices.extend([
                    Cell::Int(0),
                    Cell::Int(0),
                    Cell::Int(0),
                    Cell::Null,
                    word("{}"),
                    word("[]"),
                    Cell::Null,
                    Cell::Null,
                    at,
                    gone,
                ]);
            }
            Change::Message(row) => self.message(row, row.state, seq),
            Change::MessageState { app, id, state } => match self.messages.get(&(*app, *id)) {
                Some(&(row, ..)) => self.message(row, *state, seq),
                None => {
                    self.states.push(Step::State { app: *app, message: *id, seq, state: *state })
                }
            },
            // Not later than what is there only if the writer is at fault: it puts what is news.
            Change::Seen { app, at, devices } => {
                for device in devices {
                    self.seen.extend([
                        shard.clone(),
                        Cell::Int(app.get()),
                        Cell::Int(device.get()),
                        Cell::Int(at.hour().into()),
                    ]);
                }
            }
            Change::Clock { at } => self.clock = self.clock.max(Some(*at)),
            Change::Purge { .. } => unreachable!("a purge ends the run"),
        }
        Ok(())
    }

    fn message(&mut self, row: &'a MessageRow, state: MessageState, seq: Seq) {
        self.messages.insert((row.app, row.id), (row, state, seq));
        self.revisions.extend([
            Cell::Int(self.shard),
            Cell::Int(row.app.get()),
            Cell::Int(row.id.get()),
            Cell::Int(seq.get()),
            Cell::Int(standing(state)),
            text(&row.to),
            Cell::Text(json::write_heads(&row.variants).into()),
        ]);
    }

    /// Moves everything to `steps`. States come first: they concern what stands in the store before the run.
    fn finish(&mut self, steps: &mut Vec<Step<'a>>) -> Result<(), StoreError> {
        let run = std::mem::replace(self, Run::new(self.shard));
        steps.extend(run.states);
        let mut latest: Vec<_> = run.messages.into_values().collect();
        latest.sort_unstable_by_key(|(.., seq)| *seq);
        let mut messages = Vec::with_capacity(latest.len() * MESSAGES.columns.len());
        let mut policies = Vec::new();
        for (row, state, seq) in latest {
            if let Some(policy) = &row.push {
                policies.extend([
                    Cell::Int(run.shard),
                    Cell::Int(row.app.get()),
                    Cell::Int(row.id.get()),
                    Cell::Text(push::write_policy(policy).into()),
                ]);
            }
            let variants = json::write_variants(&row.variants)
                .map_err(|detail| StoreError::invalid(format!("message {}: {detail}", row.id)))?;
            messages.extend([
                Cell::Int(run.shard),
                Cell::Int(row.app.get()),
                Cell::Int(row.id.get()),
                Cell::Int(row.revision.into()),
                word(state.name()),
                text(&row.to),
                word(row.priority.name()),
                row.collapse_key.as_deref().map_or(Cell::Null, text),
                Cell::Int(row.created_at.0),
                row.not_before.map_or(Cell::Null, |at| Cell::Int(at.0)),
                Cell::Int(row.expires_at.0),
                Cell::Text(variants.into()),
                Cell::Int(seq.get()),
            ]);
        }
        insert(steps, &APPS, run.apps);
        insert(steps, &QUOTAS, run.quotas);
        insert(steps, &APP_PUSH, run.app_push);
        insert(steps, &ATTRIBUTES, run.attributes);
        insert(steps, &GROUPS, run.groups);
        insert(steps, &AUDIENCES, run.audiences);
        insert(steps, &AUDIENCE_REVISIONS, run.audience_revisions);
        insert(steps, &DEVICES, run.devices);
        insert(steps, &MESSAGES, messages);
        insert(steps, &MESSAGE_PUSH, policies);
        insert(steps, &REVISIONS, run.revisions);
        insert(steps, &ERASURES, run.erasures);
        insert(steps, &DEVICE_SEEN, run.seen);
        insert(steps, &DEVICE_BOOKS, run.books);
        let clock = run.clock.map(|at| vec![Cell::Int(run.shard), Cell::Int(at.0)]);
        insert(steps, &COMMITTED_CLOCK, clock.unwrap_or_default());
        Ok(())
    }
}

/// The column `active` of a revision: whether it was, or put an end to the message.
pub(crate) const fn standing(state: MessageState) -> u64 {
    match state {
        MessageState::Scheduled => 0,
        MessageState::Active => 1,
        MessageState::Expired | MessageState::Recalled => 2,
    }
}

fn device(shard: u64, row: &DeviceRow, seq: Seq) -> [Cell<'_>; 13] {
    let private = row.private.as_deref();
    [
        Cell::Int(shard),
        Cell::Int(row.app.get()),
        Cell::Int(row.id.get()),
        Cell::Int(row.generation.get()),
        Cell::Int(row.p.get()),
        Cell::Int(row.created_at.0),
        row.user.as_deref().map_or(Cell::Null, text),
        Cell::Text(json::write_attributes(&row.attributes).into()),
        Cell::Text(json::write_groups(&row.groups).into()),
        private.and_then(|p| p.secret.as_ref()).map_or(Cell::Null, |hash| Cell::Blob(&hash.0)),
        private.map_or(Cell::Null, |p| Cell::Text(json::write_tokens(&p.tokens).into())),
        Cell::Int(seq.get()),
        Cell::Int(0),
    ]
}

fn job(shard: u64, row: &PushJobRow) -> [Cell<'_>; 15] {
    let time = |at: Option<Millis>| at.map_or(Cell::Null, |at| Cell::Int(at.0));
    [
        Cell::Int(shard),
        Cell::Int(row.app.get()),
        Cell::Int(row.message.get()),
        word(row.channel.name()),
        Cell::Int(row.run.into()),
        word(row.kind.name()),
        word(row.state.name()),
        Cell::Int(row.reports),
        Cell::Int(row.began_seq.get()),
        Cell::Int(row.began_at.0),
        Cell::Int(row.due_from.0),
        time(row.due_to),
        row.after.map_or(Cell::Null, |device| Cell::Int(device.get())),
        time(row.next_due),
        Cell::Text(push::write_retries(&row.retries).into()),
    ]
}

fn insert<'a>(steps: &mut Vec<Step<'a>>, table: &'static Table, cells: Vec<Cell<'a>>) {
    debug_assert!(
        cells.len().is_multiple_of(table.columns.len()),
        "rows of {} are not whole",
        table.name
    );
    if !cells.is_empty() {
        steps.push(Step::Insert { table, cells });
    }
}

fn text(text: &str) -> Cell<'_> {
    Cell::Text(Cow::Borrowed(text))
}

fn word(word: &'static str) -> Cell<'static> {
    Cell::Text(Cow::Borrowed(word))
}
