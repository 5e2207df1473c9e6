//! Who else hears what the publisher reads, before the history itself does.
//!
//! None of them can hold up the history for long. What callbacks are to know is in the store before the outbox forgets it;
//! the event log may lose lines rather than fail anybody.

use carillon_persist::history::Record;

use super::PublishError;
use super::batch::Row;
use super::event_log::EventLog;
use crate::shell::callbacks::CallbackFollower;

/// Kept over the publisher's attempts, so that what is read once more is not told once more.
pub(super) struct Followers {
    pub(super) callbacks: CallbackFollower,
    pub(super) log: Option<EventLog>,
}

impl Followers {
    /// Whether anybody follows at present.
    pub(super) fn is_anybody(&self) -> bool {
        self.log.is_some() || self.callbacks.is_anybody()
    }

    /// Tells rows of the outbox with their events, each row perhaps more than once; `records` are those of all events, in
    /// their order.
    ///
    /// # Errors
    /// If the rows have to be told again.
    pub(super) async fn take(
        &mut self,
        rows: &[Row<'_>],
        records: &[Record],
    ) -> Result<(), PublishError> {
        self.callbacks.take(rows).await?;
        if let Some(log) = &mut self.log {
            let events = rows.iter().flat_map(|(_, events)| events);
            log.take(events.zip(records)).await;
        }
        Ok(())
    }

    /// Waits, within limits, until what was told is where it belongs. From here on the outbox may forget it.
    pub(super) async fn settle(&mut self) {
        if let Some(log) = &mut self.log {
            log.settle().await;
        }
    }
}
