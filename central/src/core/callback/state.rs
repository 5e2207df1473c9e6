//! All endpoints of a shard as they are decided; a clone shares them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use carillon_persist::{
    CallbackId, CallbackLogRow, CallbackProgress, CallbackRow, CallbackState, CallbacksKept,
};
use carillon_world::{AppId, PMap};

use super::wanted::wants;
use crate::core::history::events_of_apps;

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub row: Arc<CallbackRow>,
    pub progress: Arc<CallbackProgress>,
}

impl Endpoint {
    pub(crate) fn is_active(&self) -> bool {
        self.row.state == CallbackState::Active
    }
}

#[derive(Clone, Debug, Default)]
pub struct Callbacks {
    endpoints: PMap<u64, Endpoint>,
    /// What somebody of an app wants, paused or not.
    wanted: Arc<HashMap<AppId, HashSet<&'static str>>>,
    /// The last event of each app in the log.
    last: PMap<AppId, u64>,
    /// Events up to this were looked at for the log.
    pub(crate) logged: u64,
    pub(crate) log_bytes: u64,
}

impl Callbacks {
    pub(crate) fn load(kept: CallbacksKept) -> Callbacks {
        let endpoints = kept.endpoints.into_iter().map(|(row, progress)| {
            let id = row.id.get();
            (id, Endpoint { row: Arc::new(row), progress: Arc::new(progress) })
        });
        let mut endpoints: Vec<_> = endpoints.collect();
        endpoints.sort_unstable_by_key(|(id, _)| *id);
        let mut last = kept.last;
        last.sort_unstable();
        let mut callbacks = Callbacks {
            endpoints: PMap::from_entries(endpoints),
            wanted: Arc::default(),
            last: PMap::from_entries(last),
            logged: kept.logged,
            log_bytes: kept.log_bytes,
        };
        callbacks.look_wanted();
        callbacks
    }

    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    pub(crate) fn get(&self, id: CallbackId) -> Option<&Endpoint> {
        self.endpoints.get(id.get())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    pub(crate) fn of(&self, app: AppId) -> impl Iterator<Item = &Endpoint> {
        self.iter().filter(move |endpoint| endpoint.row.app == app)
    }

    /// Whether somebody of the app wants the event.
    pub(crate) fn is_wanted(&self, app: AppId, event: &str) -> bool {
        self.wanted.get(&app).is_some_and(|events| events.contains(event))
    }

    /// The last event of the app in the log; 0 if there is none.
    pub(crate) fn last(&self, app: AppId) -> u64 {
        self.last.get(app).copied().unwrap_or(0)
    }

    pub(crate) fn put(&mut self, endpoint: Endpoint) {
        let id = endpoint.row.id.get();
        let row = endpoint.row.clone();
        let before = self.endpoints.insert(id, endpoint);
        if before.is_none_or(|before| before.row.events != row.events) {
            self.look_wanted();
        }
    }

    pub(crate) fn put_progress(&mut self, id: CallbackId, progress: Arc<CallbackProgress>) {
        if let Some(endpoint) = self.endpoints.get_mut(id.get()) {
            endpoint.progress = progress;
        }
    }

    pub(crate) fn remove(&mut self, id: CallbackId) {
        self.endpoints.remove(id.get());
        self.look_wanted();
    }

    pub(crate) fn note_logged(&mut self, rows: &[CallbackLogRow], through: u64) {
        for row in rows {
            self.last.insert(row.app, row.last.max(self.last(row.app)));
            self.log_bytes += row.payload.len() as u64;
        }
        self.logged = self.logged.max(through);
    }

    pub(crate) fn note_forgotten(&mut self, bytes: u64) {
        self.log_bytes = self.log_bytes.saturating_sub(bytes);
    }

    fn look_wanted(&mut self) {
        let mut wanted: HashMap<AppId, HashSet<&'static str>> = HashMap::new();
        for endpoint in self.endpoints.values() {
            let of_app = wanted.entry(endpoint.row.app).or_default();
            of_app.extend(events_of_apps().filter(|event| wants(&endpoint.row.events, event)));
        }
        self.wanted = Arc::new(wanted);
    }
}
