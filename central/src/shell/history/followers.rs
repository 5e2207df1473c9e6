//! Who else hears what the publisher reads, before the history itself does.
//!
//! None of them can hold up the history for long, nor fail it.

use carillon_persist::history::{OutboxEvent, OutboxRow, Record};

use super::event_log::EventLog;

/// Kept over the publisher's attempts, so that what is read once more is not told once more.
#[derive(Debug)]
pub(super) struct Followers {
    pub(super) log: Option<EventLog>,
}

impl Followers {
    /// Tells rows of the outbox with their events; `records` are those of all events, in their order.
    pub(super) async fn take(
        &mut self,
        rows: &[(&OutboxRow, Vec<OutboxEvent<'_>>)],
        records: &[Record],
    ) {
        if let Some(log) = &mut self.log {
            let events = rows.iter().flat_map(|(_, events)| events);
            log.take(events.zip(records)).await;
        }
    }

    /// Waits, within limits, until what was told is where it belongs. From here on the outbox may forget it.
    pub(super) async fn settle(&mut self) {
        if let Some(log) = &mut self.log {
            log.settle().await;
        }
    }
}
