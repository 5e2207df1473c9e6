//! A tenant's part of a world: its declarations, audiences, devices and messages, and what is derived from them.
//!
//! Each method brings everything after a change: the index, the counts and the bytes. What belongs to one seq of the
//! shard is the world's.

use std::collections::BTreeMap;
use std::sync::Arc;

use carillon_expr::{Expression, Schema, Type};

use crate::audience::{self, Audience, Audiences};
use crate::builder::Devices;
use crate::group_names::GroupNames;
use crate::message::{Index, Message, Places, Records, Shrunk};
use crate::pmap::{PMap, mix};
use crate::usage::{self, Usage};
use crate::view::{ApplyError, MessageChange};
use crate::{
    AppRow, AttributeId, AttributeRow, AudienceId, AudienceRow, DeviceId, DeviceRow, GroupId,
    GroupRow, MessageId, Millis, Seq,
};

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

    /// Where a device comes in the order of [`App::devices_after`]: places are spread evenly over 64 bits, whatever the
    /// ids are.
    pub fn place(id: DeviceId) -> u64 {
        mix(id.get())
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

    pub(crate) fn devices_prefixed(
        &self,
        prefix: u64,
        bits: u32,
    ) -> impl Iterator<Item = &Arc<DeviceRow>> {
        self.devices.prefixed(prefix, bits).map(|(_, row)| row)
    }

    pub(crate) fn messages_prefixed(
        &self,
        prefix: u64,
        bits: u32,
    ) -> impl Iterator<Item = &Arc<Message>> {
        self.messages.prefixed(prefix, bits).map(|(_, message)| message)
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

    pub(crate) fn put_row(&mut self, row: Arc<AppRow>) {
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
    pub(crate) fn see(&mut self, id: DeviceId, at: Millis) -> bool {
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

    pub(crate) fn drop_audience(&mut self, id: AudienceId) {
        self.audiences.remove(id);
    }

    fn read_audience(&self, id: AudienceId, text: &str) -> Result<Expression, ApplyError> {
        let told = |faults: carillon_expr::Diagnostics| ApplyError::AudienceExpression {
            audience: id,
            faults: faults.to_string(),
        };
        audience::read(id, text, self).map_err(told)
    }

    /// The audience's row changed at `seq`. Every live message that uses it changes with what it says.
    pub(crate) fn revise_audience(
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

    pub(crate) fn revise(&mut self, message: Message, seq: Seq) -> MessageChange {
        let (id, after) = (message.row().id, message.present().clone());
        let before = self.put_message(message);
        self.records.push(seq, id);
        MessageChange { app: self.row.id, id, before: before.map(|m| m.present().clone()), after }
    }

    /// Whether a purge to `horizon` would forget something.
    pub(crate) fn reach(&self, horizon: Seq) -> bool {
        self.records.reach(horizon) || self.audiences.reach(horizon)
    }

    /// Cost: the messages and audiences that changed up to `horizon`, and the lists of the index that those messages
    /// stand in. What is forgotten of a message that goes on is no present revision, and what goes is over: neither is
    /// among the volatile.
    pub(crate) fn purge(&mut self, horizon: Seq) {
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
