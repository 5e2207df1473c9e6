//! The idempotency keys of the last 24 hours.
//!
//! They are not part of the persistent state: a batch that fails takes its keys out again by name.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use carillon_persist::IdempotencyRow;
use carillon_world::{AppId, Millis};

use super::limits::{IDEMPOTENCY_KEPT, IDEMPOTENCY_KEYS_MAX};

/// What a key stands for: the request that it came with, and what that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRecord {
    pub(crate) app: AppId,
    pub(crate) key: Arc<str>,
    pub(crate) request: [u8; 32],
    /// JSON of [`super::write::CreatedMessage`].
    pub(crate) answer: Arc<str>,
    pub(crate) at: Millis,
}

impl From<IdempotencyRow> for KeyRecord {
    fn from(row: IdempotencyRow) -> KeyRecord {
        // What is not text cannot be an answer of ours; it is found out when the key is used.
        let answer = std::str::from_utf8(&row.response).unwrap_or_default().into();
        KeyRecord { app: row.app, key: row.key, request: row.request, answer, at: row.created_at }
    }
}

impl From<&KeyRecord> for IdempotencyRow {
    fn from(record: &KeyRecord) -> IdempotencyRow {
        IdempotencyRow {
            app: record.app,
            key: record.key.clone(),
            request: record.request,
            response: Bytes::copy_from_slice(record.answer.as_bytes()),
            created_at: record.at,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Keys {
    records: HashMap<(AppId, Arc<str>), KeyRecord>,
    /// In the order of their times, which is that of their insertion; may name keys that are gone.
    order: VecDeque<(Millis, AppId, Arc<str>)>,
}

impl Keys {
    /// `records` may come in any order.
    pub(crate) fn new(mut records: Vec<KeyRecord>) -> Keys {
        records.sort_by_key(|record| record.at);
        let mut keys = Keys::default();
        for record in records {
            keys.insert(record);
        }
        keys
    }

    pub(crate) fn get(&self, app: AppId, key: &Arc<str>) -> Option<&KeyRecord> {
        self.records.get(&(app, key.clone()))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= IDEMPOTENCY_KEYS_MAX
    }

    pub(crate) fn insert(&mut self, record: KeyRecord) {
        self.order.push_back((record.at, record.app, record.key.clone()));
        self.records.insert((record.app, record.key.clone()), record);
    }

    pub(crate) fn remove(&mut self, record: &KeyRecord) {
        self.records.remove(&(record.app, record.key.clone()));
    }

    /// Forgets what is older than 24 hours, at most `most` keys. Whether there are more.
    pub(crate) fn forget(&mut self, now: Millis, most: usize) -> bool {
        let before = Millis(now.0.saturating_sub(IDEMPOTENCY_KEPT));
        let old = |keys: &Keys| keys.order.front().is_some_and(|(at, ..)| *at < before);
        for _ in 0..most {
            if !old(self) {
                break;
            }
            let (at, app, key) = self.order.pop_front().expect("there is a front");
            if self.records.get(&(app, key.clone())).is_some_and(|record| record.at == at) {
                self.records.remove(&(app, key));
            }
        }
        old(self)
    }
}
