//! Callbacks: whom a customer's systems have us call, how far each is, and what they are called for.
//!
//! An event that somebody wants is kept once an app, as it will be sent ([`CallbackLogRow`]). Nothing is kept for each
//! endpoint but how far it is ([`CallbackProgress`]), so an endpoint costs the store the same whether it is fast, slow or
//! away for days. Rows of the log are never changed, and go when they are old.

pub(crate) mod stored;

use std::sync::Arc;

use bytes::Bytes;
use carillon_world::{AppId, Millis};
use serde::{Deserialize, Serialize};

use crate::StoreError;

carillon_expr::random_id! {
    /// Names an endpoint.
    pub struct CallbackId;
}

/// Whether an endpoint is called, or why it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackState {
    Active,
    /// An admin paused it.
    Admin,
    /// Nothing has succeeded for long.
    Failing,
    /// It answered 410.
    Gone,
}

/// A secret that calls are signed with, encrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSecret {
    pub sealed: Bytes,
    /// It is used until then; `None` for the newest.
    pub until: Option<Millis>,
}

impl std::fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedSecret").field("until", &self.until).finish_non_exhaustive()
    }
}

/// What an admin said of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackRow {
    pub id: CallbackId,
    pub app: AppId,
    pub url: Arc<str>,
    /// Names of events and `prefix.*`, separated by spaces.
    pub events: Arc<str>,
    pub description: Arc<str>,
    pub state: CallbackState,
    /// When the state became what it is.
    pub changed_at: Millis,
    /// Another number means that what is under way is to begin anew from what the store holds.
    pub run: u32,
    /// The newest first.
    pub secrets: Vec<SealedSecret>,
    pub created_at: Millis,
}

/// How far an endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallbackProgress {
    /// Events up to this were delivered, given up or forgotten, or are among `retries`.
    pub cursor: u64,
    /// Rising by event.
    pub retries: Vec<CallbackRetry>,
    pub delivered: u64,
    /// Given up.
    pub failed: u64,
    /// Forgotten before they could be sent.
    pub missed: u64,
    pub last_success_at: Option<Millis>,
    pub last_failure_at: Option<Millis>,
    /// The first failure since the last success.
    pub failing_since: Option<Millis>,
    pub last_error: Option<Arc<str>>,
}

/// An event that was tried and not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallbackRetry {
    pub event: u64,
    pub attempts: u32,
    /// When it was tried first.
    pub began: Millis,
    pub due: Millis,
}

/// Events of one app, as they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackLogRow {
    pub app: AppId,
    /// The numbers of the first and the last of them.
    pub first: u64,
    pub last: u64,
    pub first_at: Millis,
    /// As [`CallbackEvent::write`] made it.
    pub payload: Bytes,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallbackEvent<'a> {
    /// Its number among the shard's events.
    pub n: u64,
    pub at: Millis,
    /// Names it for ever.
    pub id: &'a str,
    pub kind: &'a str,
    /// What is sent.
    pub body: &'a str,
}

/// What a batch does about callbacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchCallbacks {
    pub endpoints: Vec<Arc<CallbackRow>>,
    pub progress: Vec<(CallbackId, Arc<CallbackProgress>)>,
    /// In none of the above.
    pub gone: Vec<CallbackId>,
    pub log: Vec<CallbackLogRow>,
    /// Events up to this were looked at.
    pub logged: Option<u64>,
    /// Rows of the log up to the one with this first event go.
    pub forget: Option<u64>,
}

/// Callbacks at an opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallbacksKept {
    pub endpoints: Vec<(CallbackRow, CallbackProgress)>,
    pub logged: u64,
    /// Of all payloads.
    pub log_bytes: u64,
    /// The last event of each app in the log.
    pub last: Vec<(AppId, u64)>,
}

/// Which rows of the log are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackLogFrom {
    /// Of all apps.
    Oldest,
    /// Of one app, with events after this one.
    After(AppId, u64),
    /// Of one app, from this time on, and perhaps some before.
    Since(AppId, Millis),
}

impl CallbackEvent<'_> {
    /// What a row's events become.
    pub fn write(events: &[CallbackEvent<'_>]) -> Bytes {
        rmp_serde::to_vec(events).expect("numbers and texts, written to memory").into()
    }
}

impl CallbackLogRow {
    /// In their order.
    ///
    /// # Errors
    /// [`StoreError::Damaged`]
    pub fn events(&self) -> Result<Vec<CallbackEvent<'_>>, StoreError> {
        rmp_serde::from_slice(&self.payload).map_err(|error| StoreError::Damaged {
            table: "callback_log",
            detail: format!("the row from {} on: {error}", self.first),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_log_gives_back_what_was_written_and_a_damaged_one_is_told() {
        let event = |n| CallbackEvent { n, at: Millis(5), id: "0-1-2-3", kind: "a.b", body: "{}" };
        let payload = CallbackEvent::write(&[event(3), event(9)]);
        let app = AppId::new(1);
        let row = CallbackLogRow { app, first: 3, last: 9, first_at: Millis(5), payload };
        assert_eq!(row.events().unwrap(), [event(3), event(9)]);
        for bytes in [0, 1, row.payload.len() - 1] {
            let torn = CallbackLogRow { payload: row.payload.slice(..bytes), ..row.clone() };
            torn.events().unwrap_err();
        }
    }
}
