//! What no client may ever see, whatever the network does: an older content after a newer one, a recalled message
//! again. And counts of what it did see.
//!
//! Bodies are `{"v": n, "fixed": bool, …}`: `v` only grows over a message's edits, and a `fixed` message is to all and
//! stays so, hence it goes by its recall alone.

use std::collections::{BTreeMap, BTreeSet};

use carillon_client::{Event, FailureKind, MessageId, Operation};
use serde_json::Value;

#[derive(Debug, Default)]
pub(crate) struct Watch {
    versions: BTreeMap<MessageId, i64>,
    fixed: BTreeSet<MessageId>,
    ended: BTreeSet<MessageId>,
    /// What must not be; empty at the end.
    pub(crate) faults: Vec<String>,
    pub(crate) counts: Seen,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) stored: u64,
    pub(crate) messages: u64,
    pub(crate) inventories: u64,
    pub(crate) dropped: u64,
    pub(crate) dropped_fetches: u64,
    pub(crate) broken: u64,
    pub(crate) malformed: u64,
    pub(crate) unreachable: u64,
    pub(crate) behind: u64,
    pub(crate) enrolled: u64,
    pub(crate) failed_fetches: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Seen) {
        self.stored += other.stored;
        self.messages += other.messages;
        self.inventories += other.inventories;
        self.dropped += other.dropped;
        self.dropped_fetches += other.dropped_fetches;
        self.broken += other.broken;
        self.malformed += other.malformed;
        self.unreachable += other.unreachable;
        self.behind += other.behind;
        self.enrolled += other.enrolled;
        self.failed_fetches += other.failed_fetches;
    }
}

impl Watch {
    pub(crate) fn note(&mut self, event: &Event) {
        let counts = &mut self.counts;
        match event {
            Event::Stored { messages, gone, inventory } => {
                counts.stored += 1;
                counts.messages += messages.len() as u64;
                counts.inventories += u64::from(*inventory);
                for message in messages {
                    self.stored(message.id, &message.body);
                }
                self.ended.extend(gone.iter().filter(|id| self.fixed.contains(id)));
            }
            Event::Enrolled { .. } => counts.enrolled += 1,
            Event::Dropped { operation } => {
                counts.dropped += 1;
                counts.dropped_fetches += u64::from(*operation == Operation::Fetch);
            }
            Event::Failed { operation, kind, .. } => {
                counts.failed_fetches += u64::from(*operation == Operation::Fetch);
                match kind {
                    FailureKind::Broken => counts.broken += 1,
                    FailureKind::Malformed => counts.malformed += 1,
                    FailureKind::Connect => counts.unreachable += 1,
                    FailureKind::Status(503) if *operation != Operation::Patch => {
                        counts.behind += 1;
                    }
                    _ => {}
                }
            }
            Event::Unknown { .. }
            | Event::Forgotten
            | Event::Cleared
            | Event::Refused { .. }
            | Event::StoreFailed(_)
            | Event::Written { result: Err(_), .. } => self.faults.push(format!("{event:?}")),
            _ => {}
        }
    }

    fn stored(&mut self, id: MessageId, body: &str) {
        let body: Value = serde_json::from_str(body).expect("a body is JSON");
        let version = body["v"].as_i64().unwrap_or_else(|| panic!("no version in {body}"));
        let before = self.versions.insert(id, version);
        if before.is_some_and(|before| before > version) {
            self.faults.push(format!("{id} went back from {before:?} to {version}"));
        }
        if self.ended.contains(&id) {
            self.faults.push(format!("{id} came again after its recall"));
        }
        if body["fixed"] == true {
            self.fixed.insert(id);
        }
    }
}
