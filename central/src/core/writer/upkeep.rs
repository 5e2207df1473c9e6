//! What is forgotten when, in steps that no caller notices.
//!
//! Five things are forgotten: what the horizon has passed, idempotency keys, devices that were not seen for too long,
//! the receipts of forgotten devices, and old counts. Each step is bounded in rows and takes hardly longer than a batch without one
//! ([`Pace`]), at most one is in the batches at a time, and the next one waits at least as long as the last one took: so
//! writers have at least half of the store, however much there is to forget. A step that fails is taken again; all of
//! them may be taken twice.

use std::collections::VecDeque;
use std::time::Duration;

use carillon_persist::{BatchUpkeep, Committed, Erase, ForgetCounts, ForgetKeys, Kept};
use carillon_world::{AppId, ApplyError, Change, DeviceId, Millis, Seq};

use super::WriterConfig;
use super::counts::OldRows;
use super::pace::Pace;
use super::retention::Retention;
use crate::core::ledger::{Draft, Ledger};
use crate::core::limits::{ERASE_DEVICES_MAX, IDEMPOTENCY_KEPT, SWEEP_DEVICES_MAX};

/// How often it is looked whether something is due, in ms.
const LOOK_EVERY: u64 = 10_000;
/// How often idempotency keys are forgotten, in ms.
const KEYS_EVERY: u64 = 60 * 60 * 1000;
/// How often all devices are looked at, in ms: a device is seen to the hour. More often if they are kept for less than
/// a day.
const SWEEP_EVERY: u64 = 60 * 60 * 1000;
/// Between two parts of a look at all devices, in ms: each takes about 1 ms.
const SWEEP_PAUSE: u64 = 250;
/// After a step that failed, in ms, so that a store that is down is not asked in a loop.
const FAILURE_PAUSE: u64 = 1_000;

/// What a step forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Receipts of devices that are gone.
    Erasures,
    /// What the horizon passes.
    Purge,
    /// Idempotency keys.
    Keys,
    /// Devices that were not seen for too long.
    Devices,
    /// What was counted of messages that are forgotten, or too long ago.
    Counts,
}

/// In this order each gets its turn.
pub(super) const KINDS: [StepKind; 5] =
    [StepKind::Erasures, StepKind::Purge, StepKind::Keys, StepKind::Devices, StepKind::Counts];

#[derive(Debug)]
pub(super) struct Upkeep {
    config: WriterConfig,
    retention: Retention,
    pace: Pace,
    /// The step that is in a batch.
    under_way: Option<StepKind>,
    sent_at: Millis,
    /// No step before this.
    next_at: Millis,
    /// When to look for one; not before `next_at`.
    look_at: Millis,
    turn: usize,
    keys_at: Millis,
    sweep: Sweep,
    counts: OldRows,
    /// Forgotten devices whose receipts may still be there.
    erasures: VecDeque<(AppId, DeviceId)>,
    /// What the store has to be told yet.
    seen_since: Option<Millis>,
}

/// A look at all devices, a part at a time.
#[derive(Debug)]
struct Sweep {
    /// The apps still to be looked at, the present one last.
    apps: Vec<AppId>,
    /// The last device of the present app that was looked at.
    after: Option<DeviceId>,
    next_at: Millis,
}

impl Upkeep {
    /// `kept`: as the store has it; `seq` is the head. `seen_since`: what the store has to be told.
    pub(super) fn new(
        config: WriterConfig,
        now: Millis,
        seq: Seq,
        kept: Kept,
        seen_since: Option<Millis>,
    ) -> Upkeep {
        Upkeep {
            config,
            retention: Retention::new(config, kept.samples, seq),
            pace: Pace::new(config.purge_step),
            under_way: None,
            sent_at: now,
            next_at: now,
            look_at: now,
            turn: 0,
            keys_at: now,
            sweep: Sweep { apps: Vec::new(), after: None, next_at: now },
            counts: OldRows::new(config.funnel, now),
            erasures: kept.erasures.into(),
            seen_since,
        }
    }

    pub(super) fn under_way(&self) -> Option<StepKind> {
        self.under_way
    }

    /// When [`Upkeep::handle_time`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Millis> {
        self.under_way.is_none().then_some(self.look_at)
    }

    /// Puts the next step into the open batch, if one is due.
    ///
    /// # Errors
    /// As [`Ledger::put`].
    pub(super) fn handle_time(
        &mut self,
        now: Millis,
        ledger: &mut Ledger,
    ) -> Result<(), ApplyError> {
        if self.under_way.is_some() || now < self.look_at {
            return Ok(());
        }
        if self.retention.lacks_sample(now) && ledger.batches.is_empty() {
            ledger.open().upkeep.sample = true;
        }
        for turn in 1..=KINDS.len() {
            let turn = (self.turn + turn) % KINDS.len();
            if self.take(KINDS[turn], now, ledger)? {
                ledger.open().step = Some(KINDS[turn]);
                self.under_way = Some(KINDS[turn]);
                self.turn = turn;
                return Ok(());
            }
        }
        self.look_at = now.plus(self.retention.spacing().min(LOOK_EVERY));
        if self.config.device_ttl.is_some() {
            self.look_at = self.look_at.min(self.sweep.next_at);
        }
        Ok(())
    }

    /// Whether there was something to forget.
    fn take(
        &mut self,
        kind: StepKind,
        now: Millis,
        ledger: &mut Ledger,
    ) -> Result<bool, ApplyError> {
        match kind {
            StepKind::Erasures => {
                if self.erasures.is_empty() {
                    return Ok(false);
                }
                let devices = self.erasures.iter().take(ERASE_DEVICES_MAX).copied().collect();
                let rows_max = self.rows_max(kind);
                ledger.open().upkeep.erase = Some(Erase { devices, rows_max });
            }
            StepKind::Purge => {
                let world = ledger.world();
                let rows = self.pace.rows(kind);
                let next = self.retention.next_horizon(now, rows, world.seq(), world.horizon());
                let Some(horizon) = next else { return Ok(false) };
                ledger.put(vec![Change::Purge { horizon }])?;
            }
            StepKind::Keys => {
                if now < self.keys_at {
                    return Ok(false);
                }
                let before = Millis(now.0.saturating_sub(IDEMPOTENCY_KEPT));
                let rows_max = self.rows_max(kind);
                ledger.open().upkeep.forget_keys = Some(ForgetKeys { before, rows_max });
            }
            StepKind::Devices => {
                let Some(ttl) = self.config.device_ttl else { return Ok(false) };
                let rows = self.pace.rows(kind).try_into().unwrap_or(usize::MAX);
                let gone = self.sweep.take(now, ttl, ledger, rows);
                if gone.is_empty() {
                    return Ok(false);
                }
                // Each by itself, so that batches are cut where they always are.
                for (app, id) in gone {
                    ledger.put(vec![Change::DeviceGone { app, id }])?;
                }
            }
            StepKind::Counts => {
                let rows_max = self.rows_max(kind);
                let Some(which) = self.counts.take(now, ledger) else { return Ok(false) };
                ledger.open().upkeep.forget_counts = Some(ForgetCounts { which, rows_max });
            }
        }
        Ok(true)
    }

    fn rows_max(&self, kind: StepKind) -> u32 {
        self.pace.rows(kind).try_into().unwrap_or(u32::MAX)
    }

    /// What goes with a batch that is about to be sent.
    pub(super) fn handle_sent(&mut self, now: Millis, draft: &mut Draft) -> BatchUpkeep {
        if draft.step.is_some() {
            self.sent_at = now;
        }
        let sent = draft.sent.as_ref();
        let changes = sent.is_some_and(|batch| !batch.changes.iter().all(is_no_news));
        draft.upkeep.sample |= changes && self.retention.wants_sample(now);
        draft.upkeep.seen_since = self.seen_since;
        draft.sampled_at = draft.upkeep.sample.then_some(now);
        std::mem::take(&mut draft.upkeep)
    }

    /// A batch is durable and `seq` the head; what it found, and how long that took, is `None` where only that is
    /// known.
    pub(super) fn handle_committed(
        &mut self,
        now: Millis,
        draft: &Draft,
        (seq, horizon): (Seq, Seq),
        found: Option<(Committed, Duration)>,
    ) {
        let changes = draft.sent.iter().flat_map(|batch| &batch.changes);
        let erased = self.erasures.len();
        for change in changes.clone() {
            if let Change::DeviceGone { app, id } = change {
                self.erasures.push_back((*app, *id));
            }
        }
        match draft.sampled_at {
            Some(at) => self.retention.handle_sample(seq, at),
            None if !changes.clone().all(is_no_news) => self.retention.handle_changes(),
            None => {}
        }
        self.retention.handle_horizon(horizon);
        self.seen_since = None;
        let full = |kind, rows: u64| rows >= u64::from(self.rows_max(kind));
        let drained = match (draft.step, found) {
            (Some(kind @ StepKind::Erasures), Some((found, _))) => {
                !full(kind, found.receipts_erased)
            }
            (Some(kind @ StepKind::Keys), Some((found, _))) => !full(kind, found.keys_forgotten),
            (Some(kind @ StepKind::Counts), Some((found, _))) => {
                !full(kind, found.counts_forgotten)
            }
            _ => false,
        };
        if let Some((_, took)) = found {
            self.pace.handle_batch(draft.step, took);
        }
        let Some(kind) = draft.step else {
            if self.erasures.len() > erased {
                self.look_at = self.look_at.min(self.next_at.max(now));
            }
            return;
        };
        self.under_way = None;
        let took = now.0.saturating_sub(self.sent_at.0);
        self.next_at = now.plus(took.max(self.config.purge_pause));
        self.look_at = self.next_at;
        match kind {
            StepKind::Erasures if drained => {
                drop(self.erasures.drain(..erased.min(ERASE_DEVICES_MAX)))
            }
            StepKind::Keys if drained => self.keys_at = now.plus(KEYS_EVERY),
            StepKind::Counts if drained => self.counts.handle_drained(),
            _ => {}
        }
    }

    /// Batches were undone; `left` is the step in those that were not.
    pub(super) fn handle_undone(&mut self, now: Millis, left: Option<StepKind>) {
        if self.under_way != left {
            self.under_way = left;
            self.next_at = now.plus(FAILURE_PAUSE);
            self.look_at = self.next_at;
        }
    }
}

/// Whether the change leaves nothing that could grow old: a batch of nothing else is no reason for a sample, or an idle
/// shard would purge its own purges and ticks for ever.
fn is_no_news(change: &Change) -> bool {
    matches!(change, Change::Purge { .. } | Change::Seen { .. } | Change::Clock { .. })
}

impl Sweep {
    /// Looks at the next devices, a bounded number, and gives those that were not seen for `ttl`, at most `most`.
    fn take(
        &mut self,
        now: Millis,
        ttl: u64,
        ledger: &Ledger,
        most: usize,
    ) -> Vec<(AppId, DeviceId)> {
        let mut found = Vec::new();
        if now < self.next_at {
            return found;
        }
        let world = ledger.world();
        if self.apps.is_empty() {
            self.apps = world.apps().map(|app| app.row().id).collect();
        }
        let mut looked = 0;
        while let Some(id) = self.apps.last() {
            let after = self.after;
            let devices = world.app(*id).into_iter().flat_map(|app| app.devices_after(after));
            for row in devices {
                if looked == SWEEP_DEVICES_MAX || found.len() == most {
                    self.next_at = now.plus(SWEEP_PAUSE);
                    return found;
                }
                looked += 1;
                self.after = Some(row.id);
                if ledger.seen.last(row).plus(ttl) <= now {
                    found.push((row.app, row.id));
                }
            }
            self.after = None;
            self.apps.pop();
        }
        self.next_at = now.plus((ttl / 24).clamp(1_000, SWEEP_EVERY));
        found
    }
}
