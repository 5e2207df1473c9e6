//! When messages start and end.
//!
//! The entries are hints: each is looked up again when it falls due, so an entry of a write that never committed,
//! or of a window that was edited since, costs one look and does nothing.

use std::collections::BTreeSet;

use carillon_world::{AppId, MessageId, MessageRow, MessageState, Millis, World};

#[derive(Clone, Debug, Default)]
pub struct Schedule {
    due: BTreeSet<(Millis, AppId, MessageId)>,
}

impl Schedule {
    pub fn of(world: &World) -> Schedule {
        let mut schedule = Schedule::default();
        for app in world.apps() {
            for message in app.messages_after(None) {
                schedule.note(message.row());
            }
        }
        schedule
    }

    /// Remembers when the message has its next start or end, if it has one.
    pub fn note(&mut self, row: &MessageRow) {
        if let Some(at) = due(row) {
            self.due.insert((at, row.app, row.id));
        }
    }

    pub fn next_due(&self) -> Option<Millis> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// Takes out one message that may be due at `now`.
    pub fn pop(&mut self, now: Millis) -> Option<(AppId, MessageId)> {
        let &(at, app, id) = self.due.first()?;
        (at <= now).then(|| {
            self.due.pop_first();
            (app, id)
        })
    }
}

fn due(row: &MessageRow) -> Option<Millis> {
    match row.state {
        MessageState::Scheduled => {
            Some(row.not_before.map_or(Millis(0), |start| start.min(row.expires_at)))
        }
        MessageState::Active => Some(row.expires_at),
        MessageState::Expired | MessageState::Recalled => None,
    }
}

/// The state that the message should go to at `now`. A message whose end is due is never started.
pub fn transition(row: &MessageRow, now: Millis) -> Option<MessageState> {
    match row.state {
        MessageState::Scheduled | MessageState::Active if row.expires_at <= now => {
            Some(MessageState::Expired)
        }
        MessageState::Scheduled if row.not_before.is_none_or(|start| start <= now) => {
            Some(MessageState::Active)
        }
        _ => None,
    }
}
