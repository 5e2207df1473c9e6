//! The world: one shard at one position, as a value.
//!
//! `clone` is cheap and shares everything, so the one writer changes its clone and publishes it, readers keep the
//! world that they took, and a decision that fails is undone by dropping it (P2).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::message::{Message, Revision};
use crate::partition::Slice;
use crate::pmap::PMap;
use crate::usage::Usage;
use crate::{
    AppId, AudienceId, Batch, Change, DeviceId, Judgement, Lineage, MessageId, Millis, Partition,
    Position, RevisionRecord, Row, Seq, ShardId,
};

/// A batch or a row that does not fit the world. The sender's fault or ours; the world that met it is dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("batch begins at {got} where {expected} was expected")]
    Gap { expected: Seq, got: Seq },
    #[error("app {app} is not known")]
    UnknownApp { app: AppId },
    #[error("message {message} is not known")]
    UnknownMessage { message: MessageId },
    #[error("message {message} has no revision, or no variant")]
    EmptyMessage { message: MessageId },
    #[error("message {message} differs from its last revision")]
    TornMessage { message: MessageId },
    #[error("expression of message {message} does not fit its app: {faults}")]
    Expression { message: MessageId, faults: String },
    #[error("audience {audience} has no record")]
    EmptyAudience { audience: AudienceId },
    #[error("audience {audience} differs from its last record")]
    TornAudience { audience: AudienceId },
    #[error("expression of audience {audience} does not fit its app: {faults}")]
    AudienceExpression { audience: AudienceId, faults: String },
    #[error("horizon {horizon} lies beyond seq {seq}")]
    HorizonAhead { horizon: Seq, seq: Seq },
}

/// How much a world holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub apps: u64,
    pub devices: u64,
    pub messages: u64,
}

/// What a batch touched: whom to wake.
#[derive(Debug, Default)]
pub struct Applied {
    /// Changed or gone.
    pub devices: Vec<(AppId, DeviceId)>,
    pub messages: Vec<MessageChange>,
    /// An app, attribute, group or audience changed.
    pub schema_changed: bool,
    /// Reported as seen later than before, where an app has volatile messages.
    pub seen: Vec<(AppId, DeviceId)>,
    /// The committed clock moved.
    pub ticked: bool,
}

/// A message that changed. It concerns a device if either side addresses it.
#[derive(Clone, Debug)]
pub struct MessageChange {
    pub app: AppId,
    pub id: MessageId,
    pub before: Option<Revision>,
    pub after: Revision,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct World {
    shard: ShardId,
    lineage: Arc<Lineage>,
    seq: Seq,
    horizon: Seq,
    clock: Millis,
    apps: PMap<AppId, Arc<App>>,
    /// The sum over the apps.
    usage: Usage,
    /// The same of [`App::volatile_messages`].
    volatile_messages: u64,
}

impl World {
    /// A shard to which nothing has happened yet.
    pub fn empty(shard: ShardId, lineage: Lineage) -> World {
        World::assembled(shard, lineage, Seq::ZERO, Seq::ZERO, Millis::ZERO, PMap::new())
    }

    pub(crate) fn assembled(
        shard: ShardId,
        lineage: Lineage,
        seq: Seq,
        horizon: Seq,
        clock: Millis,
        apps: PMap<AppId, Arc<App>>,
    ) -> World {
        let mut usage = Usage::ZERO;
        apps.values().for_each(|app| usage.add(&app.usage()));
        let volatile_messages = apps.values().map(|app| app.volatile_messages()).sum();
        let lineage = Arc::new(lineage);
        World { shard, lineage, seq, horizon, clock, apps, usage, volatile_messages }
    }

    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Everything up to here is applied.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// From here on every revision that was in force and every tombstone is known.
    pub fn horizon(&self) -> Seq {
        self.horizon
    }

    /// The committed clock, by which everything volatile is judged. It advances in ticks, and only while something
    /// follows it; 0 before the first.
    pub fn clock(&self) -> Millis {
        self.clock
    }

    /// Whether a message that is scheduled or active is volatile, so that the clock has to run.
    pub fn follows_clock(&self) -> bool {
        self.volatile_messages > 0
    }

    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    pub fn set_lineage(&mut self, lineage: Lineage) {
        self.lineage = Arc::new(lineage);
    }

    pub fn position(&self) -> Position {
        Position { shard: self.shard, epoch: self.lineage.epoch_at(self.seq), seq: self.seq }
    }

    pub fn judge(&self, position: Position) -> Judgement {
        self.lineage.judge(self.seq, position)
    }

    pub fn app(&self, id: AppId) -> Option<&App> {
        self.apps.get(id).map(|app| &**app)
    }

    pub fn apps(&self) -> impl Iterator<Item = &App> {
        self.apps.values().map(|app| &**app)
    }

    /// Looks at every app.
    pub fn app_by_key(&self, publishable_key: &str) -> Option<&App> {
        self.apps().find(|app| &*app.row().publishable_key == publishable_key)
    }

    /// Looks at every app.
    pub fn app_by_name(&self, name: &str) -> Option<&App> {
        self.apps().find(|app| &*app.row().name == name)
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts { apps: self.apps.len() as u64, devices: 0, messages: 0 };
        for app in self.apps() {
            counts.devices += app.device_count() as u64;
            counts.messages += app.message_count() as u64;
        }
        counts
    }

    /// The RAM that the world takes.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// What [`World::usage`] has to be: walks over everything.
    pub fn surveyed(&self) -> Usage {
        let mut usage = Usage::ZERO;
        self.apps().for_each(|app| usage.add(&app.surveyed()));
        usage
    }

    /// The rows of one partition, by app in a stable order.
    pub fn partition_rows(&self, partition: Partition) -> Vec<Row> {
        let mut rows = Vec::new();
        if let Slice::Schema = partition.slice()
            && self.clock > Millis::ZERO
        {
            rows.push(Row::Clock { at: self.clock });
        }
        for app in self.apps() {
            match partition.slice() {
                Slice::Schema => {
                    rows.push(Row::App(app.row().clone()));
                    rows.extend(app.attributes().cloned().map(Row::Attribute));
                    rows.extend(app.groups().cloned().map(Row::Group));
                    rows.extend(app.audiences_after(None).map(|audience| Row::Audience {
                        row: audience.row().clone(),
                        records: audience.records(),
                    }));
                }
                Slice::Messages { prefix, bits } => {
                    rows.extend(app.messages_prefixed(prefix, bits).map(|message| Row::Message {
                        row: message.row().clone(),
                        revisions: message.records(),
                    }));
                }
                Slice::Devices { prefix, bits } => {
                    rows.extend(app.devices_prefixed(prefix, bits).cloned().map(Row::Device));
                }
            }
        }
        rows
    }

    /// Applies the batch that follows.
    ///
    /// # Errors
    /// If it does not follow or does not fit. The world is then half changed: drop it.
    pub fn apply(&mut self, batch: &Batch) -> Result<Applied, ApplyError> {
        if batch.first != self.seq.next() {
            return Err(ApplyError::Gap { expected: self.seq.next(), got: batch.first });
        }
        let mut applied = Applied::default();
        for (seq, change) in batch.numbered() {
            // A tick takes no RAM, and is no reason to add up what every app does.
            let before = match change {
                Change::Clock { .. } => None,
                _ => Some(self.sums_of(change.app())),
            };
            self.apply_one(seq, change, &mut applied)?;
            self.seq = seq;
            if let Some((usage, volatile_messages)) = before {
                let after = self.sums_of(change.app());
                self.usage.add(&after.0);
                self.usage.subtract(&usage);
                self.volatile_messages += after.1;
                self.volatile_messages -= volatile_messages;
            }
        }
        Ok(applied)
    }

    fn apply_one(
        &mut self,
        seq: Seq,
        change: &Change,
        applied: &mut Applied,
    ) -> Result<(), ApplyError> {
        match change {
            Change::App(_)
            | Change::Attribute(_)
            | Change::AttributeGone { .. }
            | Change::Group(_)
            | Change::GroupGone { .. } => applied.schema_changed = true,
            _ => {}
        }
        match change {
            Change::App(row) => match self.apps.get_mut(row.id) {
                Some(app) => Arc::make_mut(app).put_row(row.clone()),
                None => drop(self.apps.insert(row.id, Arc::new(App::new(row.clone())))),
            },
            Change::Attribute(row) => self.app_mut(row.app)?.put_attribute(row.clone()),
            Change::AttributeGone { app, id } => self.app_mut(*app)?.drop_attribute(*id),
            Change::Group(row) => self.app_mut(row.app)?.put_group(row.clone()),
            Change::GroupGone { app, id } => self.app_mut(*app)?.drop_group(*id),
            Change::Device(row) => {
                self.app_mut(row.app)?.put_device(row.clone());
                applied.devices.push((row.app, row.id));
            }
            Change::DeviceGone { app, id } => {
                self.app_mut(*app)?.drop_device(*id);
                applied.devices.push((*app, *id));
            }
            Change::Message(row) => {
                let app = self.app_mut(row.app)?;
                if row.variants.is_empty() {
                    return Err(ApplyError::EmptyMessage { message: row.id });
                }
                let revision = Revision::read(&RevisionRecord::of(row, seq), app, row.id)?;
                let message = match app.message(row.id) {
                    Some(message) => message.revised(row.clone(), revision),
                    None => Message::new(row.clone(), vec![revision]),
                };
                applied.messages.push(app.revise(message, seq));
            }
            Change::MessageState { app, id, state } => {
                let app = self.app_mut(*app)?;
                let message =
                    app.message(*id).ok_or(ApplyError::UnknownMessage { message: *id })?;
                let message = message.in_state(*state, seq, app)?;
                applied.messages.push(app.revise(message, seq));
            }
            Change::Audience(row) => {
                let changes = self.app_mut(row.app)?.revise_audience(row.clone(), seq)?;
                applied.messages.extend(changes);
            }
            Change::AudienceGone { app, id } => self.app_mut(*app)?.drop_audience(*id),
            Change::Seen { app, at, devices } => {
                let known = self.app_mut(*app)?;
                for id in devices {
                    if known.see(*id, *at) && known.volatile_messages() > 0 {
                        applied.seen.push((*app, *id));
                    }
                }
            }
            Change::Clock { at } => {
                applied.ticked |= *at > self.clock;
                self.clock = self.clock.max(*at);
            }
            Change::Purge { horizon } => {
                if *horizon > seq {
                    return Err(ApplyError::HorizonAhead { horizon: *horizon, seq });
                }
                self.horizon = self.horizon.max(*horizon);
                // An app that has nothing to forget stays shared with the worlds before.
                let reached = self.apps.iter().filter(|(_, app)| app.reach(*horizon));
                let ids: Vec<AppId> = reached.map(|(id, _)| id).collect();
                for id in ids {
                    self.app_mut(id)?.purge(*horizon);
                }
            }
        }
        Ok(())
    }

    /// The usage and the volatile messages of one app, or of all.
    fn sums_of(&self, app: Option<AppId>) -> (Usage, u64) {
        let of = |app: &App| (app.usage(), app.volatile_messages());
        match app {
            Some(id) => self.app(id).map_or((Usage::ZERO, 0), of),
            None => {
                let (mut usage, mut volatile_messages) = (Usage::ZERO, 0);
                for (more, messages) in self.apps().map(of) {
                    usage.add(&more);
                    volatile_messages += messages;
                }
                (usage, volatile_messages)
            }
        }
    }

    fn app_mut(&mut self, id: AppId) -> Result<&mut App, ApplyError> {
        self.apps.get_mut(id).map(Arc::make_mut).ok_or(ApplyError::UnknownApp { app: id })
    }
}

#[cfg(test)]
mod tests;
