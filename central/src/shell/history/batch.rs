//! From rows of the outbox to records: each device gets the name that the store has for it, or a new one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use carillon_persist::history::{
    EndedDevice, OutboxEvent, OutboxRow, Pseudonym, PseudonymRow, Record,
};
use carillon_persist::{AnyStore, Store as _};
use carillon_world::{AppId, DeviceId, ShardId};

use super::PublishError;
use crate::core::history::DEVICE_DELETED;
use crate::core::write::Write;
use crate::shell::random;
use crate::shell::write_handle::WriteHandle;

/// Names that are remembered; beyond it all are asked for again.
const NAMES_MAX: usize = 200_000;
/// Names that one write brings.
const WRITE_MAX: usize = 10_000;

type Key = (AppId, DeviceId);
/// A row of the outbox with its events.
pub(super) type Row<'a> = (&'a OutboxRow, Vec<OutboxEvent<'a>>);

/// The name that a device has from an event on; with 0, the oldest that the store has not forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    device: Key,
    since: u64,
}

/// Whoever is told under a name has it in the store first, and keeps it there until what it is told under it is off the
/// outbox: so it is the same name however often that is read and told.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    known: HashMap<Key, Pseudonym>,
    /// After the end of a device, which the store has not forgotten.
    later: HashMap<Slot, Pseudonym>,
    /// The last event that told of a device's end, likewise.
    ended: HashMap<Key, u64>,
}

fn key(event: &OutboxEvent<'_>) -> Option<Key> {
    Some((event.app?, event.device?))
}

impl Names {
    /// Which name each event is told under, if it is of a device. Takes rows in their order, each once.
    pub(super) fn slots(&mut self, rows: &[Row<'_>]) -> Vec<Option<Slot>> {
        let mut slots = Vec::new();
        for (row, events) in rows {
            for (seq, event) in (row.first..).zip(events) {
                let device = key(event);
                slots.push(device.map(|device| {
                    let since = self.ended.get(&device).map_or(0, |end| end + 1);
                    Slot { device, since }
                }));
                if let Some(device) = device.filter(|_| event.event == DEVICE_DELETED) {
                    self.ended.insert(device, seq);
                }
            }
        }
        slots
    }

    /// Learns all these names. Who has none gets one, which is durable when this returns.
    pub(super) async fn look_up(
        &mut self,
        store: &mut AnyStore,
        writes: &WriteHandle,
        shard: ShardId,
        slots: &[Option<Slot>],
    ) -> Result<(), PublishError> {
        if self.known.len() > NAMES_MAX {
            self.known.clear();
        }
        let nameless = slots.iter().flatten().filter(|slot| self.name(slot).is_none());
        let nameless: HashSet<Slot> = nameless.copied().collect();
        if nameless.is_empty() {
            return Ok(());
        }
        self.ask(store, shard, &nameless).await?;
        let mut drawn: Vec<PseudonymRow> = nameless
            .iter()
            .filter(|slot| self.name(slot).is_none())
            .copied()
            .map(|Slot { device: (app, device), since }| PseudonymRow {
                app,
                device,
                since,
                pseudonym: draw(),
            })
            .collect();
        // The oldest first: were only a later one of a device written, it would be taken for the oldest.
        drawn.sort_unstable_by_key(|row| row.since);
        for some in drawn.chunks(WRITE_MAX) {
            writes.write(Write::Pseudonyms(Arc::from(some))).await.result?;
        }
        if !drawn.is_empty() {
            // The first name stays, which may be one that we wrote before and had no answer for.
            self.ask(store, shard, &nameless).await?;
        }
        Ok(())
    }

    /// Learns what the store has.
    async fn ask(
        &mut self,
        store: &mut AnyStore,
        shard: ShardId,
        slots: &HashSet<Slot>,
    ) -> Result<(), PublishError> {
        let devices: HashSet<Key> = slots.iter().map(|slot| slot.device).collect();
        let devices: Vec<Key> = devices.into_iter().collect();
        // The newest of a device first, so that the oldest stays.
        for row in store.pseudonyms(shard, &devices).await? {
            let slot = Slot { device: (row.app, row.device), since: row.since };
            if slot.since > 0 && slots.contains(&slot) {
                self.later.insert(slot, row.pseudonym);
            }
            self.known.insert(slot.device, row.pseudonym);
        }
        Ok(())
    }

    /// How many devices the store is to forget.
    pub(super) fn ended(&self) -> usize {
        self.ended.len()
    }

    fn name(&self, slot: &Slot) -> Option<Pseudonym> {
        if slot.since == 0 {
            self.known.get(&slot.device).copied()
        } else {
            self.later.get(slot).copied()
        }
    }

    /// The records of rows, in their order.
    pub(super) fn records(
        &self,
        shard: ShardId,
        rows: &[Row<'_>],
        slots: &[Option<Slot>],
    ) -> Result<Vec<Record>, PublishError> {
        let events = rows.iter().flat_map(|(row, events)| {
            (row.first..).zip(events).map(|(seq, event)| (row.epoch, seq, event))
        });
        let record = |((epoch, seq, event), slot): ((_, _, &OutboxEvent<'_>), &Option<Slot>)| {
            let name = slot.as_ref().and_then(|slot| self.name(slot));
            Ok(event.record(shard, epoch, seq, name)?)
        };
        events.zip(slots).map(record).collect()
    }

    /// Devices that the store is to forget up to their end.
    pub(super) fn take_ended(&mut self) -> Vec<EndedDevice> {
        let mut ended = Vec::with_capacity(self.ended.len());
        for (device, event) in self.ended.drain() {
            match self.later.remove(&Slot { device, since: event + 1 }) {
                Some(name) => self.known.insert(device, name),
                None => self.known.remove(&device),
            };
            ended.push(EndedDevice { app: device.0, device: device.1, event });
        }
        self.later.clear();
        ended
    }
}

fn draw() -> Pseudonym {
    let mut bytes = [0; Pseudonym::BYTES];
    let (front, back) = bytes.split_at_mut(8);
    front.copy_from_slice(&random::id().to_be_bytes());
    back.copy_from_slice(&random::id().to_be_bytes());
    Pseudonym::new(bytes)
}
