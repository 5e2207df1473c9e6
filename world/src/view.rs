//! The world: one shard at one position, as a value.
//!
//! `clone` is cheap and shares everything, so the one writer changes its clone and publishes it, readers keep the
//! world that they took, and a decision that fails is undone by dropping it (P2).

use std::collections::BTreeMap;
use std::sync::Arc;

use carillon_expr::{Expression, Schema, Type};
use serde::{Deserialize, Serialize};

use crate::audience::{self, Audience, Audiences};
use crate::builder::Devices;
use crate::group_names::GroupNames;
use crate::message::{Index, Message, Places, Records, Revision, Shrunk};
use crate::partition::Slice;
use crate::pmap::PMap;
use crate::usage::{self, Usage};
use crate::{
    AppId, AppRow, AttributeId, AttributeRow, AudienceId, AudienceRow, Batch, Change, DeviceId,
    DeviceRow, GroupId, GroupRow, Judgement, Lineage, MessageId, Millis, Partition, Position,
    RevisionRecord, Row, Seq, ShardId,
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

/// What refers to something in a retained revision, however indirectly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub messages: Vec<MessageId>,
    pub audiences: Vec<AudienceId>,
}

impl References {
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.audiences.is_empty()
    }
}

/// A tenant's part of a world. Shares its parts with its clones.
#[derive(Clone, Debug)]
pub struct App {
    row: Arc<AppRow>,
    attributes: Arc<BTreeMap<AttributeId, Arc<AttributeRow>>>,
    attribute_names: Arc<BTreeMap<Arc<str>, AttributeId>>,
    groups: PMap<GroupId, Arc<GroupRow>>,
    group_names: GroupNames,
    members: PMap<GroupId, u64>,
    audiences: Audiences,
    devices: PMap<DeviceId, Arc<DeviceRow>>,
    messages: PMap<MessageId, Arc<Message>>,
    index: Index,
    /// Of the messages that are active and volatile.
    volatile: Index,
    records: Records,
    /// Messages that are scheduled or active.
    live_messages: u64,
    /// Those of them that are volatile.
    volatile_messages: u64,
    /// Of everything but the audiences, the index and the records, which count for themselves.
    usage: Usage,
}

impl App {
    pub(crate) fn new(row: Arc<AppRow>) -> App {
        App {
            usage: usage::of_app(&row),
            row,
            attributes: Arc::default(),
            attribute_names: Arc::default(),
            groups: PMap::new(),
            group_names: GroupNames::default(),
            members: PMap::new(),
            audiences: Audiences::default(),
            devices: PMap::new(),
            messages: PMap::new(),
            index: Index::default(),
            volatile: Index::default(),
            records: Records::default(),
            live_messages: 0,
            volatile_messages: 0,
        }
    }

    /// The app with these devices and nothing else.
    pub(crate) fn with_devices(row: Arc<AppRow>, devices: Devices) -> App {
        let mut app = App::new(row);
        app.usage.add(&devices.usage);
        app.devices = devices.rows;
        for (group, members) in devices.members.into_iter().filter(|(_, members)| *members > 0) {
            app.members.insert(group, members);
        }
        app
    }

    pub fn row(&self) -> &Arc<AppRow> {
        &self.row
    }

    pub fn attribute(&self, id: AttributeId) -> Option<&Arc<AttributeRow>> {
        self.attributes.get(&id)
    }

    pub fn attribute_by_name(&self, name: &str) -> Option<&Arc<AttributeRow>> {
        self.attributes.get(self.attribute_names.get(name)?)
    }

    /// By id.
    pub fn attributes(&self) -> impl Iterator<Item = &Arc<AttributeRow>> {
        self.attributes.values()
    }

    pub fn group(&self, id: GroupId) -> Option<&Arc<GroupRow>> {
        self.groups.get(id)
    }

    pub fn group_by_name(&self, name: &str) -> Option<&Arc<GroupRow>> {
        self.group_names.find(name)
    }

    /// In a stable order, which is not that of the ids.
    pub fn groups_after(&self, after: Option<GroupId>) -> impl Iterator<Item = &Arc<GroupRow>> {
        self.groups.iter_after(after).map(|(_, row)| row)
    }

    pub fn groups(&self) -> impl Iterator<Item = &Arc<GroupRow>> {
        self.groups.values()
    }

    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// How many devices are in a group.
    pub fn group_members(&self, id: GroupId) -> u64 {
        self.members.get(id).copied().unwrap_or(0)
    }

    pub fn audience(&self, id: AudienceId) -> Option<&Audience> {
        self.audiences.get(id).map(|audience| &**audience)
    }

    pub fn audience_by_name(&self, name: &str) -> Option<&Audience> {
        self.audiences.find(name).map(|audience| &**audience)
    }

    /// In a stable order, which is not that of the ids.
    pub fn audiences_after(&self, after: Option<AudienceId>) -> impl Iterator<Item = &Audience> {
        self.audiences.iter_after(after).map(|audience| &**audience)
    }

    pub fn audience_count(&self) -> usize {
        self.audiences.len()
    }

    /// The live messages that use an audience, however indirectly: an edit of it is a change of each. Sorted.
    pub fn audience_messages(&self, id: AudienceId) -> &[MessageId] {
        self.audiences.users(id)
    }

    /// The audiences that use an audience, however indirectly, each after all of them that it uses itself.
    pub fn audience_audiences(&self, id: AudienceId) -> Vec<AudienceId> {
        self.audiences.nested_users(id)
    }

    pub fn device(&self, id: DeviceId) -> Option<&Arc<DeviceRow>> {
        self.devices.get(id)
    }

    pub fn devices(&self) -> impl Iterator<Item = &Arc<DeviceRow>> {
        self.devices.values()
    }

    /// In a stable order, which is not that of the ids.
    pub fn devices_after(&self, after: Option<DeviceId>) -> impl Iterator<Item = &Arc<DeviceRow>> {
        self.devices.iter_after(after).map(|(_, row)| row)
    }

    pub fn device_count(&self) -> usize {
        self.devices.len()
    }

    pub fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(id).map(|message| &**message)
    }

    /// In a stable order, which is not that of the ids.
    pub fn messages_after(&self, after: Option<MessageId>) -> impl Iterator<Item = &Message> {
        self.messages.iter_after(after).map(|(_, message)| &**message)
    }

    pub fn message_count(&self) -> usize {
        self.messages.len()
    }

    /// Messages that are scheduled or active.
    pub fn live_messages(&self) -> u64 {
        self.live_messages
    }

    /// Messages that are scheduled or active, and whose recipients change with the clock or with when devices were seen.
    pub fn volatile_messages(&self) -> u64 {
        self.volatile_messages
    }

    /// The RAM that the app takes.
    pub fn usage(&self) -> Usage {
        let mut usage = self.usage;
        usage.add(&self.audiences.usage());
        usage.indexes += self.index.bytes() + self.volatile.bytes();
        usage.revisions += self.records.len() as u64 * usage::RECORD;
        usage
    }

    /// What [`App::usage`] has to be: walks over everything.
    pub fn surveyed(&self) -> Usage {
        let mut usage = usage::of_app(&self.row);
        self.attributes.values().for_each(|row| usage.add(&usage::of_attribute(row)));
        self.groups.values().for_each(|row| usage.add(&usage::of_group(row)));
        self.devices.values().for_each(|row| usage.add(&usage::of_device(row)));
        self.messages.values().for_each(|message| usage.add(&usage::of_message(message)));
        usage.add(&self.audiences.surveyed());
        usage.indexes += self.index.surveyed() + self.volatile.surveyed();
        usage.revisions += self.records.after(Seq::ZERO).count() as u64 * usage::RECORD;
        usage
    }

    /// What refers to the attribute.
    pub fn references_attribute(&self, id: AttributeId) -> References {
        self.referring(|e| e.attributes().binary_search(&id).is_ok())
    }

    /// What refers to the group.
    pub fn references_group(&self, id: GroupId) -> References {
        self.referring(|e| e.groups().binary_search(&id).is_ok())
    }

    /// What refers to the audience.
    pub fn references_audience(&self, id: AudienceId) -> References {
        self.referring(|e| e.audiences().binary_search(&id).is_ok())
    }

    fn referring(&self, refers: impl Fn(&Expression) -> bool) -> References {
        let messages = self.messages.iter().filter(|(_, of)| of.expressions().any(&refers));
        let said = |of: &Audience| of.revisions().iter().any(|of| refers(of.expression()));
        let audiences = self.audiences.iter().filter(|of| said(of));
        References {
            messages: messages.map(|(id, _)| id).collect(),
            audiences: audiences.map(|of| of.row().id).collect(),
        }
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// The messages that are active, volatile, and may be addressed to `device` at some time. By id. Costs nothing worth
    /// mentioning where there are none.
    pub(crate) fn volatile(&self, device: &DeviceRow) -> impl Iterator<Item = &Message> {
        let none = self.volatile.is_empty();
        let ids = if none { Vec::new() } else { self.volatile.candidates(device) };
        ids.into_iter().filter_map(|id| self.message(id))
    }

    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    fn put_row(&mut self, row: Arc<AppRow>) {
        self.usage.subtract(&usage::of_app(&self.row));
        self.usage.add(&usage::of_app(&row));
        self.row = row;
    }

    pub(crate) fn put_attribute(&mut self, row: Arc<AttributeRow>) {
        self.drop_attribute(row.id);
        self.usage.add(&usage::of_attribute(&row));
        Arc::make_mut(&mut self.attribute_names).insert(row.name.clone(), row.id);
        Arc::make_mut(&mut self.attributes).insert(row.id, row);
    }

    pub(crate) fn drop_attribute(&mut self, id: AttributeId) {
        if let Some(row) = Arc::make_mut(&mut self.attributes).remove(&id) {
            Arc::make_mut(&mut self.attribute_names).remove(&row.name);
            self.usage.subtract(&usage::of_attribute(&row));
        }
    }

    pub(crate) fn put_group(&mut self, row: Arc<GroupRow>) {
        self.drop_group(row.id);
        self.usage.add(&usage::of_group(&row));
        self.group_names.add(row.clone());
        self.groups.insert(row.id, row);
    }

    pub(crate) fn drop_group(&mut self, id: GroupId) {
        if let Some(row) = self.groups.remove(id) {
            self.group_names.remove(&row);
            self.usage.subtract(&usage::of_group(&row));
        }
    }

    pub(crate) fn put_device(&mut self, row: Arc<DeviceRow>) {
        let before = self.devices.get(row.id);
        let row = not_before(row, before);
        let before = self.devices.insert(row.id, row.clone());
        self.usage.add(&usage::of_device(&row));
        if let Some(before) = &before {
            self.usage.subtract(&usage::of_device(before));
        }
        if before.as_ref().is_some_and(|before| before.groups == row.groups) {
            return;
        }
        self.count(before.iter().flat_map(|before| before.groups.iter()), false);
        self.count(row.groups.iter(), true);
    }

    /// Whether that was news. Costs no more and no less RAM.
    fn see(&mut self, id: DeviceId, at: Millis) -> bool {
        let Some(row) = self.devices.get(id).filter(|row| row.last_seen < at) else { return false };
        let row = DeviceRow { last_seen: at, ..DeviceRow::clone(row) };
        self.devices.insert(id, Arc::new(row));
        true
    }

    pub(crate) fn drop_device(&mut self, id: DeviceId) {
        let before = self.devices.remove(id);
        if let Some(before) = &before {
            self.usage.subtract(&usage::of_device(before));
        }
        self.count(before.iter().flat_map(|before| before.groups.iter()), false);
    }

    fn count<'a>(&mut self, groups: impl Iterator<Item = &'a GroupId>, joined: bool) {
        for group in groups {
            match self.members.get_mut(*group) {
                Some(members) if joined => *members += 1,
                Some(members) if *members > 1 => *members -= 1,
                Some(_) => drop(self.members.remove(*group)),
                None if joined => drop(self.members.insert(*group, 1)),
                None => {}
            }
        }
    }

    /// Puts a message where `before` stood.
    pub(crate) fn put_message(&mut self, message: Message) -> Option<Arc<Message>> {
        let id = message.row().id;
        let message = Arc::new(message);
        let before = self.messages.insert(id, message.clone());
        self.replaced(id, before.as_deref(), Some(&message));
        before
    }

    /// An audience says this from `row.from` on, and so does whatever audience uses it. No message is looked at.
    pub(crate) fn put_audience(&mut self, row: Arc<AudienceRow>) -> Result<(), ApplyError> {
        let id = row.id;
        let expression = self.read_audience(id, &row.expression)?;
        let users = self.audiences.nested_users(id);
        self.audiences.put(row, expression);
        for user in users {
            let Some(said) = self.audiences.get(user) else { continue };
            let text = said.row().expression.clone();
            let expression = self.read_audience(user, &text)?;
            self.audiences.put_expression(user, expression);
        }
        Ok(())
    }

    fn read_audience(&self, id: AudienceId, text: &str) -> Result<Expression, ApplyError> {
        let told = |faults: carillon_expr::Diagnostics| ApplyError::AudienceExpression {
            audience: id,
            faults: faults.to_string(),
        };
        audience::read(id, text, self).map_err(told)
    }

    /// The audience's row changed at `seq`. Every live message that uses it changes with what it says.
    fn revise_audience(
        &mut self,
        row: Arc<AudienceRow>,
        seq: Seq,
    ) -> Result<Vec<MessageChange>, ApplyError> {
        let id = row.id;
        let before = self.audiences.get(id).map(|before| before.row().clone());
        let renamed = before.as_ref().is_some_and(|before| before.expression == row.expression);
        let from = before.as_ref().filter(|_| renamed).map_or(seq, |before| before.from);
        if row.from != from {
            return Err(ApplyError::TornAudience { audience: id });
        }
        if renamed {
            self.audiences.rename(row);
            return Ok(Vec::new());
        }
        self.put_audience(row)?;
        let mut changes = Vec::new();
        for message in self.audiences.users(id).to_vec() {
            let before = self.messages.get(message);
            let before = before.ok_or(ApplyError::UnknownMessage { message })?;
            let revision = before.present().read_again(seq, self, message)?;
            let after = before.revised(before.row().clone(), revision);
            changes.push(self.revise(after, seq));
        }
        Ok(changes)
    }

    /// Brings everything that is derived from a message after it.
    fn replaced(&mut self, id: MessageId, before: Option<&Message>, after: Option<&Message>) {
        let used = |of: Option<&Message>| of.map_or_else(Vec::new, Message::live_audiences);
        self.audiences.moved(id, &used(before), &used(after));
        self.index.replace(id, &Places::retained(before), &Places::retained(after));
        self.volatile.replace(id, &Places::volatile(before), &Places::volatile(after));
        self.account(before, after);
    }

    fn account(&mut self, before: Option<&Message>, after: Option<&Message>) {
        if let Some(after) = after {
            self.usage.add(&usage::of_message(after));
            self.live_messages += u64::from(after.is_live());
            self.volatile_messages += u64::from(after.is_volatile());
        }
        if let Some(before) = before {
            self.usage.subtract(&usage::of_message(before));
            self.live_messages -= u64::from(before.is_live());
            self.volatile_messages -= u64::from(before.is_volatile());
        }
    }

    pub(crate) fn record(&mut self, seq: Seq, id: MessageId) {
        self.records.push(seq, id);
    }

    fn revise(&mut self, message: Message, seq: Seq) -> MessageChange {
        let (id, after) = (message.row().id, message.present().clone());
        let before = self.put_message(message);
        self.records.push(seq, id);
        MessageChange { app: self.row.id, id, before: before.map(|m| m.present().clone()), after }
    }

    /// Whether a purge to `horizon` would forget something.
    fn reach(&self, horizon: Seq) -> bool {
        self.records.reach(horizon) || self.audiences.reach(horizon)
    }

    /// Cost: the messages and audiences that changed up to `horizon`, and the lists of the index that those messages
    /// stand in. What is forgotten of a message that goes on is no present revision, and what goes is over: neither is
    /// among the volatile.
    fn purge(&mut self, horizon: Seq) {
        self.audiences.purge(horizon);
        let mut shrunk = Vec::new();
        for id in self.records.purge(horizon) {
            let Some(before) = self.messages.get(id).cloned() else { continue };
            let after = before.purged(horizon).map(Arc::new);
            self.account(Some(&before), after.as_deref());
            match &after {
                Some(message) => drop(self.messages.insert(id, message.clone())),
                None => drop(self.messages.remove(id)),
            }
            shrunk.push(Shrunk { id, before, after });
        }
        self.index.shrink(&shrunk);
    }
}

/// The row as it takes the place of `before`: nobody was ever seen earlier than is known.
pub(crate) fn not_before(row: Arc<DeviceRow>, before: Option<&Arc<DeviceRow>>) -> Arc<DeviceRow> {
    match before {
        Some(before) if before.last_seen > row.last_seen => {
            let row = DeviceRow { last_seen: before.last_seen, ..DeviceRow::clone(&row) };
            Arc::new(row)
        }
        _ => row,
    }
}

impl Schema for App {
    fn attribute(&self, name: &str) -> Option<(AttributeId, Type)> {
        self.attribute_by_name(name).map(|row| (row.id, row.kind))
    }

    fn attribute_name(&self, id: AttributeId) -> Option<(&str, Type)> {
        self.attributes.get(&id).map(|row| (&*row.name, row.kind))
    }

    fn group(&self, name: &str) -> Option<GroupId> {
        self.group_by_name(name).map(|row| row.id)
    }

    fn group_name(&self, id: GroupId) -> Option<&str> {
        self.groups.get(id).map(|row| &*row.name)
    }

    fn audience(&self, name: &str) -> Option<AudienceId> {
        self.audience_by_name(name).map(|audience| audience.row().id)
    }

    fn audience_name(&self, id: AudienceId) -> Option<&str> {
        self.audiences.get(id).map(|audience| &*audience.row().name)
    }

    fn audience_expression(&self, id: AudienceId) -> Option<&Expression> {
        self.audiences.get(id).map(|audience| audience.expression())
    }

    fn visit_audience_names(&self, visit: &mut dyn FnMut(&str)) {
        self.audiences.names().for_each(|name| visit(name));
    }

    fn visit_attribute_names(&self, visit: &mut dyn FnMut(&str)) {
        self.attribute_names.keys().for_each(|name| visit(name));
    }

    fn visit_group_names(&self, visit: &mut dyn FnMut(&str)) {
        self.groups.values().for_each(|row| visit(&row.name));
    }
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
        let volatile_messages = apps.values().map(|app| app.volatile_messages).sum();
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
        self.apps().find(|app| &*app.row.publishable_key == publishable_key)
    }

    /// Looks at every app.
    pub fn app_by_name(&self, name: &str) -> Option<&App> {
        self.apps().find(|app| &*app.row.name == name)
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts { apps: self.apps.len() as u64, devices: 0, messages: 0 };
        for app in self.apps() {
            counts.devices += app.devices.len() as u64;
            counts.messages += app.messages.len() as u64;
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
                    rows.push(Row::App(app.row.clone()));
                    rows.extend(app.attributes.values().cloned().map(Row::Attribute));
                    rows.extend(app.groups.values().cloned().map(Row::Group));
                    rows.extend(app.audiences.iter().map(|audience| Row::Audience {
                        row: audience.row().clone(),
                        records: audience.records(),
                    }));
                }
                Slice::Messages { prefix, bits } => {
                    rows.extend(app.messages.prefixed(prefix, bits).map(|(_, message)| {
                        Row::Message { row: message.row().clone(), revisions: message.records() }
                    }));
                }
                Slice::Devices { prefix, bits } => {
                    rows.extend(
                        app.devices.prefixed(prefix, bits).map(|(_, row)| Row::Device(row.clone())),
                    );
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
            Change::AudienceGone { app, id } => self.app_mut(*app)?.audiences.remove(*id),
            Change::Seen { app, at, devices } => {
                let known = self.app_mut(*app)?;
                for id in devices {
                    if known.see(*id, *at) && known.volatile_messages > 0 {
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
        let of = |app: &App| (app.usage(), app.volatile_messages);
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
