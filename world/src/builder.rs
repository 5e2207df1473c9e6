//! A world from a store's tables or a snapshot: rows in any order, then one check that they fit together.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::app::{App, not_before};
use crate::assemble::{StagedAudiences, StagedMessages, assemble};
use crate::partition::Slice;
use crate::pmap::{PMap, mix};
use crate::usage::{self, Usage};
use crate::view::ApplyError;
use crate::{
    AppId, AppRow, AttributeId, AttributeRow, AudienceRecord, Change, DeviceId, DeviceRow, GroupId,
    GroupRow, Lineage, MessageRow, Millis, Partition, RevisionRecord, Row, Seq, ShardId, World,
};

/// Rows of a shard that are not yet a world. Devices, which are many, go straight to the map that the world will have;
/// nothing is parsed or indexed before [`WorldBuilder::finish`], since an app's rows may come before the app.
#[derive(Debug)]
pub struct WorldBuilder {
    shard: ShardId,
    clock: Millis,
    apps: BTreeMap<AppId, Staged>,
    fault: Option<ApplyError>,
}

#[derive(Debug, Default)]
struct Staged {
    row: Option<Arc<AppRow>>,
    attributes: BTreeMap<AttributeId, Arc<AttributeRow>>,
    groups: BTreeMap<GroupId, Arc<GroupRow>>,
    /// Of the groups.
    group_bytes: u64,
    audiences: StagedAudiences,
    devices: Devices,
    messages: StagedMessages,
    /// Of the messages, about.
    message_bytes: u64,
}

/// Mixes an id, and hashes nothing else: a million devices count eight million memberships.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = mix(self.0 ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = mix(id);
    }
}

/// The devices of an app, with what is counted of them.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    pub(crate) rows: PMap<DeviceId, Arc<DeviceRow>>,
    /// How many devices are in each group that has any.
    pub(crate) members: HashMap<GroupId, u64, BuildHasherDefault<IdHasher>>,
    pub(crate) usage: Usage,
}

impl Devices {
    fn put(&mut self, row: Arc<DeviceRow>) {
        let before = self.rows.get(row.id);
        let row = not_before(row, before);
        self.usage.add(&usage::of_device(&row));
        for group in &row.groups {
            *self.members.entry(*group).or_default() += 1;
        }
        if let Some(before) = self.rows.insert(row.id, row) {
            self.forget(&before);
        }
    }

    fn see(&mut self, id: DeviceId, at: Millis) {
        if let Some(row) = self.rows.get(id).filter(|row| row.last_seen < at) {
            let row = DeviceRow { last_seen: at, ..DeviceRow::clone(row) };
            self.rows.insert(id, Arc::new(row));
        }
    }

    fn remove(&mut self, id: DeviceId) {
        if let Some(before) = self.rows.remove(id) {
            self.forget(&before);
        }
    }

    fn forget(&mut self, before: &DeviceRow) {
        self.usage.subtract(&usage::of_device(before));
        for group in &before.groups {
            if let Some(members) = self.members.get_mut(group) {
                *members -= 1;
            }
        }
    }
}

impl WorldBuilder {
    pub fn new(shard: ShardId) -> WorldBuilder {
        WorldBuilder { shard, clock: Millis::ZERO, apps: BTreeMap::new(), fault: None }
    }

    /// The RAM that the rows take, about: messages count by their bytes alone, for they are not parsed yet.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::ZERO;
        for staged in self.apps.values() {
            usage.add(&staged.devices.usage);
            usage.messages += staged.message_bytes;
            staged.row.iter().for_each(|row| usage.add(&usage::of_app(row)));
            staged.attributes.values().for_each(|row| usage.add(&usage::of_attribute(row)));
            usage.declarations += staged.group_bytes;
            let audiences = staged.audiences.values();
            usage.declarations += audiences
                .map(|(row, records)| usage::of_staged_audience(row, records))
                .sum::<u64>();
        }
        usage
    }

    fn app(&mut self, id: AppId) -> &mut Staged {
        self.apps.entry(id).or_default()
    }

    /// Takes a row; it replaces one of the same id.
    pub fn insert(&mut self, row: Row) {
        match row {
            Row::App(row) => self.app(row.id).row = Some(row.clone()),
            Row::Attribute(row) => drop(self.app(row.app).attributes.insert(row.id, row)),
            Row::Group(row) => self.app(row.app).put_group(row),
            Row::Device(row) => self.app(row.app).devices.put(row),
            Row::Audience { row, records } => {
                drop(self.app(row.app).audiences.insert(row.id, (row, records)));
            }
            Row::Message { row, revisions } => {
                let app = self.app(row.app);
                app.message_bytes += usage::of_staged(&row);
                if let Some((before, _)) = app.messages.insert(row.id, (row, revisions)) {
                    app.message_bytes -= usage::of_staged(&before);
                }
            }
            Row::Clock { at } => self.clock = self.clock.max(at),
        }
    }

    /// Applies a change to the rows that are there. A fault is told by [`WorldBuilder::finish`].
    pub fn apply(&mut self, seq: Seq, change: &Change) {
        match change {
            Change::App(row) => self.insert(Row::App(row.clone())),
            Change::Attribute(row) => self.insert(Row::Attribute(row.clone())),
            Change::Group(row) => self.insert(Row::Group(row.clone())),
            Change::Device(row) => self.insert(Row::Device(row.clone())),
            Change::AttributeGone { app, id } => drop(self.app(*app).attributes.remove(id)),
            Change::GroupGone { app, id } => self.app(*app).drop_group(*id),
            Change::DeviceGone { app, id } => self.app(*app).devices.remove(*id),
            Change::Message(row) => {
                let app = self.app(row.app);
                app.message_bytes += usage::of_staged(row);
                match app.messages.get_mut(&row.id) {
                    Some((present, revisions)) => {
                        app.message_bytes -= usage::of_staged(present);
                        *present = row.clone();
                        revisions.push(RevisionRecord::of(row, seq));
                    }
                    None => {
                        let revisions = vec![RevisionRecord::of(row, seq)];
                        app.messages.insert(row.id, (row.clone(), revisions));
                    }
                }
            }
            Change::MessageState { app, id, state } => match self.app(*app).messages.get_mut(id) {
                Some((row, revisions)) => {
                    *row = Arc::new(MessageRow { state: *state, ..MessageRow::clone(row) });
                    revisions.push(RevisionRecord::of(row, seq));
                }
                None => self.fault = Some(ApplyError::UnknownMessage { message: *id }),
            },
            Change::Audience(row) => {
                let record = AudienceRecord::of(row);
                match self.app(row.app).audiences.get_mut(&row.id) {
                    Some((present, records)) => {
                        // A rename says nothing else.
                        if records.last().is_none_or(|last| last.from < record.from) {
                            records.push(record);
                        }
                        *present = row.clone();
                    }
                    None => self.insert(Row::Audience { row: row.clone(), records: vec![record] }),
                }
            }
            Change::AudienceGone { app, id } => drop(self.app(*app).audiences.remove(id)),
            Change::Seen { app, at, devices } => {
                let known = &mut self.app(*app).devices;
                devices.iter().for_each(|id| known.see(*id, *at));
            }
            Change::Clock { at } => self.clock = self.clock.max(*at),
            // `finish` purges to its horizon.
            Change::Purge { .. } => {}
        }
    }

    /// Drops the rows of one partition.
    pub fn forget(&mut self, partition: Partition) {
        if let Slice::Schema = partition.slice() {
            self.clock = Millis::ZERO;
        }
        for app in self.apps.values_mut() {
            match partition.slice() {
                Slice::Schema => {
                    app.row = None;
                    app.attributes.clear();
                    app.groups.clear();
                    app.audiences.clear();
                    app.group_bytes = 0;
                }
                Slice::Devices { prefix, bits } => {
                    let ids: Vec<DeviceId> =
                        app.devices.rows.prefixed(prefix, bits).map(|(id, _)| id).collect();
                    ids.into_iter().for_each(|id| app.devices.remove(id));
                }
                Slice::Messages { .. } => {
                    let bytes = &mut app.message_bytes;
                    app.messages.retain(|id, (row, _)| {
                        let stays = Partition::of_message(*id) != partition;
                        *bytes -= if stays { 0 } else { usage::of_staged(row) };
                        stays
                    });
                }
            }
        }
    }

    /// The world of these rows at `seq`.
    ///
    /// # Errors
    /// If rows do not fit together or a change did not.
    pub fn finish(self, lineage: Lineage, seq: Seq, horizon: Seq) -> Result<World, ApplyError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut apps = PMap::new();
        for (id, staged) in self.apps {
            if let Some(app) = staged.assemble(id, horizon)? {
                apps.insert(id, Arc::new(app));
            }
        }
        Ok(World::assembled(self.shard, lineage, seq, horizon, self.clock, apps))
    }
}

impl Staged {
    fn put_group(&mut self, row: Arc<GroupRow>) {
        self.drop_group(row.id);
        self.group_bytes += usage::of_group(&row).total();
        self.groups.insert(row.id, row);
    }

    fn drop_group(&mut self, id: GroupId) {
        if let Some(row) = self.groups.remove(&id) {
            self.group_bytes -= usage::of_group(&row).total();
        }
    }

    fn assemble(self, id: AppId, horizon: Seq) -> Result<Option<App>, ApplyError> {
        let Some(row) = self.row else {
            // What `forget` emptied leaves nothing behind.
            let empty = self.attributes.is_empty()
                && self.groups.is_empty()
                && self.audiences.is_empty()
                && self.devices.rows.is_empty()
                && self.messages.is_empty();
            return if empty { Ok(None) } else { Err(ApplyError::UnknownApp { app: id }) };
        };
        let mut app = App::with_devices(row, self.devices);
        self.attributes.into_values().for_each(|row| app.put_attribute(row));
        self.groups.into_values().for_each(|row| app.put_group(row));
        assemble(&mut app, self.audiences, self.messages, horizon)?;
        Ok(Some(app))
    }
}

#[cfg(test)]
mod tests;
