//! Reads the outbox in its order, and tells what it reads to those who follow the history.

use std::sync::Arc;

use carillon_persist::history::Record;
use carillon_persist::{AnyStore, Store as _};
use carillon_world::Millis;

use super::batch::Names;
use super::followers::Followers;
use super::{PublishError, Publisher};

/// Bytes of the outbox that are read at a time.
pub(super) const READ_BYTES: u64 = 4 * 1024 * 1024;

pub(super) struct Reading {
    of: Arc<Publisher>,
    store: AnyStore,
    pub(super) names: Names,
    /// The last event that was read.
    pub(super) last: u64,
}

/// Some rows of the outbox.
pub(super) struct Piece {
    /// None where nobody reads them.
    pub(super) records: Vec<Record>,
    /// Of payloads.
    pub(super) bytes: u64,
    /// When the first event happened.
    pub(super) first_at: Millis,
}

impl Reading {
    /// From the first that the outbox has.
    pub(super) fn new(of: Arc<Publisher>, store: AnyStore) -> Reading {
        Reading { of, store, names: Names::default(), last: 0 }
    }

    /// Another one that goes on from here, by a connection of its own.
    pub(super) fn fork(&self, store: AnyStore) -> Reading {
        Reading { of: self.of.clone(), store, names: self.names.clone(), last: self.last }
    }

    /// The next rows, which those who follow were told when this returns; `None` if there are no more. Records are made if
    /// somebody reads them.
    pub(super) async fn next(
        &mut self,
        followers: &mut Followers,
        is_read: bool,
    ) -> Result<Option<Piece>, PublishError> {
        let shard = self.of.shared.shard;
        let found = self.store.outbox(shard, self.last, READ_BYTES).await?;
        let mut rows = Vec::with_capacity(found.len());
        for row in &found {
            rows.push((row, row.events()?));
        }
        let Some((last, _)) = rows.last() else { return Ok(None) };
        let last = last.last();
        let slots = self.names.slots(&rows);
        let mut records = Vec::new();
        if is_read || followers.log.is_some() {
            self.names.look_up(&mut self.store, &self.of.writes, shard, &slots).await?;
            records = self.names.records(shard, &rows, &slots)?;
        }
        followers.take(&rows, &records).await?;
        self.last = last;
        let first = rows.iter().find_map(|(_, events)| events.first());
        Ok(Some(Piece {
            records,
            bytes: rows.iter().map(|(row, _)| row.payload.len() as u64).sum(),
            first_at: first.map_or(Millis::ZERO, |event| event.at),
        }))
    }
}
