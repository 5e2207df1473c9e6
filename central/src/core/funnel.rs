//! Stand-in until the funnel is merged.

use std::sync::Arc;

use carillon_world::{AppId, MessageId, Millis, PushChannel};

use super::ledger::Ledger;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    Pushed(PushChannel),
    Failed(PushChannel, Arc<str>),
    Skipped(Arc<str>),
    Removed(PushChannel),
    WithdrawPushed(PushChannel),
}

impl Ledger {
    pub(crate) fn count(
        &mut self,
        now: Millis,
        app: AppId,
        message: MessageId,
        counter: Counter,
        n: u64,
    ) {
        tracing::debug!(?counter, n, %app, %message, ?now, "counted");
    }
}
