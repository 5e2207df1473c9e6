//! A run with its words in the provider's format, and the futures that a lane waits for.

use std::sync::Arc;
use std::time::Duration;

use carillon_world::Millis;

use crate::core::channel::Outcome;
use crate::core::push::policy::Notices;
use crate::core::push::report::PushReport;
use crate::core::push::run::Run;
use crate::core::push::walk::Target;
use crate::core::write::{Answer, Write};
use crate::shell::channel::{AnyChannel, AnyPrepared, Channel as _};
use crate::shell::write_handle::WriteHandle;

/// A report that was not committed is sent again after this.
const REPORT_AGAIN: Duration = Duration::from_millis(500);

pub(super) struct Slot {
    pub(super) id: u64,
    pub(super) run: Run,
    pub(super) notices: Notices,
    /// In the order of the notices; `None` for one that the provider would not take. Empty until there is a channel.
    pub(super) prepared: Vec<Option<Arc<AnyPrepared>>>,
}

impl Slot {
    pub(super) fn new(id: u64, run: Run, notices: Notices) -> Slot {
        Slot { id, run, notices, prepared: Vec::new() }
    }

    pub(super) fn prepare(&mut self, channel: &AnyChannel) {
        let prepare = |notice| match channel.prepare(notice) {
            Ok(prepared) => Some(Arc::new(prepared)),
            Err(error) => {
                tracing::error!(message = %self.run.key().message, %error, "a push cannot be sent");
                None
            }
        };
        self.prepared = self.notices.all().iter().map(prepare).collect();
    }
}

/// One push on its way.
pub(super) struct Request {
    pub(super) slot: u64,
    pub(super) target: Target,
    pub(super) channel: Arc<AnyChannel>,
    pub(super) prepared: Arc<AnyPrepared>,
}

pub(super) struct Handed {
    pub(super) slot: u64,
    pub(super) target: Target,
    pub(super) outcome: Outcome,
}

pub(super) async fn hand(now: Millis, request: Request) -> Handed {
    let Request { slot, target, channel, prepared } = request;
    let outcome = channel.send(now, &target.token, &prepared).await;
    Handed { slot, target, outcome }
}

pub(super) struct Reported {
    pub(super) slot: u64,
    pub(super) report: Arc<PushReport>,
    pub(super) answer: Answer,
}

/// Has a report committed; `again`: after a pause, because it was not the first time.
pub(super) async fn report(
    writes: WriteHandle,
    slot: u64,
    report: Arc<PushReport>,
    again: bool,
) -> Reported {
    if again {
        tokio::time::sleep(REPORT_AGAIN).await;
    }
    let answer = writes.write(Write::PushReport(report.clone())).await;
    Reported { slot, report, answer }
}
