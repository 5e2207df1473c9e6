//! A world from a store's tables or a snapshot: rows in any order, then one check that they fit together.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::message::{Message, Revision};
use crate::pmap::PMap;
use crate::view::{App, ApplyError};
use crate::{
    AppId, AppRow, AttributeId, AttributeRow, Change, DeviceId, DeviceRow, GroupId, GroupRow,
    Lineage, MessageId, MessageRow, MessageState, Partition, RevisionRecord, Row, Seq, ShardId,
    World,
};

/// Rows of a shard that are not yet a world. Nothing is parsed or indexed before [`WorldBuilder::finish`], since an
/// app's rows may come before the app.
#[derive(Debug)]
pub struct WorldBuilder {
    shard: ShardId,
    apps: BTreeMap<AppId, Staged>,
    fault: Option<ApplyError>,
}

#[derive(Debug, Default)]
struct Staged {
    row: Option<Arc<AppRow>>,
    attributes: BTreeMap<AttributeId, Arc<AttributeRow>>,
    groups: BTreeMap<GroupId, Arc<GroupRow>>,
    devices: BTreeMap<DeviceId, Arc<DeviceRow>>,
    messages: BTreeMap<MessageId, (Arc<MessageRow>, Vec<RevisionRecord>)>,
}

impl WorldBuilder {
    pub fn new(shard: ShardId) -> WorldBuilder {
        WorldBuilder { shard, apps: BTreeMap::new(), fault: None }
    }

    fn app(&mut self, id: AppId) -> &mut Staged {
        self.apps.entry(id).or_default()
    }

    /// Takes a row; it replaces one of the same id.
    pub fn insert(&mut self, row: Row) {
        match row {
            Row::App(row) => self.app(row.id).row = Some(row.clone()),
            Row::Attribute(row) => drop(self.app(row.app).attributes.insert(row.id, row)),
            Row::Group(row) => drop(self.app(row.app).groups.insert(row.id, row)),
            Row::Device(row) => drop(self.app(row.app).devices.insert(row.id, row)),
            Row::Message { row, revisions } => {
                drop(self.app(row.app).messages.insert(row.id, (row, revisions)));
            }
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
            Change::GroupGone { app, id } => drop(self.app(*app).groups.remove(id)),
            Change::DeviceGone { app, id } => drop(self.app(*app).devices.remove(id)),
            Change::Message(row) => {
                let staged = self.app(row.app).messages.entry(row.id);
                let (present, revisions) = staged.or_insert_with(|| (row.clone(), Vec::new()));
                *present = row.clone();
                revisions.push(RevisionRecord::of(row, seq));
            }
            Change::MessageState { app, id, state } => match self.app(*app).messages.get_mut(id) {
                Some((row, revisions)) => {
                    *row = Arc::new(MessageRow { state: *state, ..MessageRow::clone(row) });
                    revisions.push(RevisionRecord::of(row, seq));
                }
                None => self.fault = Some(ApplyError::UnknownMessage { message: *id }),
            },
            // `finish` purges to its horizon.
            Change::Purge { .. } => {}
        }
    }

    /// Drops the rows of one partition.
    pub fn forget(&mut self, partition: Partition) {
        let other = |row: Row| row.partition() != partition;
        for app in self.apps.values_mut() {
            if partition.get() == 0 {
                app.row = None;
                app.attributes.clear();
                app.groups.clear();
            } else {
                app.devices.retain(|_, row| other(Row::Device(row.clone())));
                app.messages.retain(|_, (row, _)| {
                    other(Row::Message { row: row.clone(), revisions: Vec::new() })
                });
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
        Ok(World::assembled(self.shard, lineage, seq, horizon, apps))
    }
}

impl Staged {
    fn assemble(self, id: AppId, horizon: Seq) -> Result<Option<App>, ApplyError> {
        let Some(row) = self.row else {
            // What `forget` emptied leaves nothing behind.
            let empty = self.attributes.is_empty()
                && self.groups.is_empty()
                && self.devices.is_empty()
                && self.messages.is_empty();
            return if empty { Ok(None) } else { Err(ApplyError::UnknownApp { app: id }) };
        };
        let mut app = App::new(row);
        self.attributes.into_values().for_each(|row| app.put_attribute(row));
        self.groups.into_values().for_each(|row| app.put_group(row));
        self.devices.into_values().for_each(|row| app.put_device(row));
        let mut records = Vec::new();
        for (id, (row, revisions)) in self.messages {
            if let Some(message) = assemble_message(&app, row, &revisions, horizon)? {
                let changes =
                    message.revisions().iter().map(Revision::from).filter(|from| *from > horizon);
                records.extend(changes.map(|from| (from, id)));
                app.put_message(message);
            }
        }
        records.sort_unstable();
        records.into_iter().for_each(|(seq, id)| app.record(seq, id));
        Ok(Some(app))
    }
}

/// `None` if it is over and before the horizon: then its expressions may refer to what is gone.
fn assemble_message(
    app: &App,
    row: Arc<MessageRow>,
    records: &[RevisionRecord],
    horizon: Seq,
) -> Result<Option<Message>, ApplyError> {
    let empty = ApplyError::EmptyMessage { message: row.id };
    let Some(last) = records.last().filter(|_| !row.variants.is_empty()) else { return Err(empty) };
    // A body is found by its place among the variants of the present revision.
    if *last != RevisionRecord::of(&row, last.from) {
        return Err(ApplyError::TornMessage { message: row.id });
    }
    let over = matches!(row.state, MessageState::Expired | MessageState::Recalled);
    if over && last.from <= horizon {
        return Ok(None);
    }
    let first = records.partition_point(|record| record.from <= horizon).saturating_sub(1);
    let mut revisions = Vec::with_capacity(records.len() - first);
    for record in &records[first..] {
        if record.variants.is_empty() {
            return Err(empty);
        }
        revisions.push(Revision::read(record, app, row.id)?);
    }
    Ok(Some(Message::new(row, revisions)))
}

#[cfg(test)]
mod tests;
