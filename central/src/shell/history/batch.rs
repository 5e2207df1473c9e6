//! From rows of the outbox to records: each device gets the name that the store has for it, or a new one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use carillon_persist::history::{OutboxEvent, OutboxRow, Pseudonym, PseudonymRow, Record};
use carillon_persist::{AnyStore, Store as _};
use carillon_world::{AppId, DeviceId, ShardId};

use super::PublishError;
use crate::core::write::Write;
use crate::shell::random;
use crate::shell::write_handle::WriteHandle;

/// Names that are remembered; beyond it all are asked for again.
const NAMES_MAX: usize = 200_000;
/// Names that one write brings.
const WRITE_MAX: usize = 10_000;
/// The event after which a device is nameless.
const ENDED: &str = "device.deleted";

type Key = (AppId, DeviceId);

#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Key, Pseudonym>,
    /// Devices whose end was read, and which the store has not forgotten.
    ended: HashSet<Key>,
    /// Those of them that came back, under another name.
    renamed: HashMap<Key, Pseudonym>,
}

fn key(event: &OutboxEvent<'_>) -> Option<Key> {
    Some((event.app?, event.device?))
}

impl Names {
    /// Learns the names of all devices of these events. What has none gets one, which is durable when this returns:
    /// else a device could be told under two.
    pub(super) async fn look_up(
        &mut self,
        store: &mut AnyStore,
        writes: &WriteHandle,
        shard: ShardId,
        rows: &[(&OutboxRow, Vec<OutboxEvent<'_>>)],
    ) -> Result<(), PublishError> {
        if self.known.len() > NAMES_MAX {
            self.known.clear();
        }
        let keys = rows.iter().flat_map(|(_, events)| events).filter_map(key);
        let is_new = |key: &Key| !self.known.contains_key(key) && !self.ended.contains(key);
        let asked: HashSet<Key> = keys.filter(is_new).collect();
        if asked.is_empty() {
            return Ok(());
        }
        let asked: Vec<Key> = asked.into_iter().collect();
        for row in store.pseudonyms(shard, &asked).await? {
            self.known.insert((row.app, row.device), row.pseudonym);
        }
        let nameless: Vec<PseudonymRow> = asked
            .into_iter()
            .filter(|key| !self.known.contains_key(key))
            .map(|(app, device)| PseudonymRow { app, device, pseudonym: draw() })
            .collect();
        for some in nameless.chunks(WRITE_MAX) {
            writes.write(Write::Pseudonyms(Arc::from(some))).await.result?;
            self.known.extend(some.iter().map(|row| ((row.app, row.device), row.pseudonym)));
        }
        Ok(())
    }

    /// Appends the records of a row's events, in their order.
    pub(super) fn records(
        &mut self,
        shard: ShardId,
        row: &OutboxRow,
        events: &[OutboxEvent<'_>],
        records: &mut Vec<Record>,
    ) -> Result<(), PublishError> {
        for (seq, event) in (row.first..).zip(events) {
            let name = key(event).map(|key| self.name(key));
            records.push(event.record(shard, row.epoch, seq, name)?);
            if let Some(key) = key(event).filter(|_| event.event == ENDED) {
                self.known.remove(&key);
                self.renamed.remove(&key);
                self.ended.insert(key);
            }
        }
        Ok(())
    }

    /// As [`Names::records`], where nobody reads them: only who is gone counts.
    pub(super) fn note_ended(&mut self, events: &[OutboxEvent<'_>]) {
        let ended = events.iter().filter(|event| event.event == ENDED);
        self.ended.extend(ended.filter_map(key));
    }

    fn name(&mut self, key: Key) -> Pseudonym {
        match self.known.get(&key) {
            Some(name) => *name,
            // It came back after its end: nobody is to see that it is the same.
            None => *self.renamed.entry(key).or_insert_with(draw),
        }
    }

    /// Devices that are to be forgotten, and those names that begin with that.
    pub(super) fn take_ended(&mut self) -> (Vec<Key>, Vec<PseudonymRow>) {
        let renamed: Vec<PseudonymRow> = self
            .renamed
            .drain()
            .map(|((app, device), pseudonym)| PseudonymRow { app, device, pseudonym })
            .collect();
        self.known.extend(renamed.iter().map(|row| ((row.app, row.device), row.pseudonym)));
        (self.ended.drain().collect(), renamed)
    }
}

fn draw() -> Pseudonym {
    let mut bytes = [0; Pseudonym::BYTES];
    let (front, back) = bytes.split_at_mut(8);
    front.copy_from_slice(&random::id().to_be_bytes());
    back.copy_from_slice(&random::id().to_be_bytes());
    Pseudonym::new(bytes)
}
