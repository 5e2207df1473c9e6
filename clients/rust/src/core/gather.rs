//! An inventory on its way to become an answer that can be stored: which bodies are there, which are still to fetch.

use std::collections::{BTreeMap, BTreeSet};

use super::store::{Message, Saved};
use super::wire::{Answer, Fetched};
use crate::ids::{Cursor, MessageId, Tag};

/// Ids that one fetch may ask for.
const FETCH_IDS_MAX: usize = 200;

/// Nothing of it is stored before `missing` is empty, and nothing at all if the device's cursor is not `after` then.
#[derive(Debug)]
pub(super) struct Gathering {
    /// What the inventory was computed from.
    pub(super) after: Option<Cursor>,
    /// As the last answer raised it. Each fetch carries it, so that no edge answers that is behind what is here.
    pub(super) cursor: Cursor,
    inventory: BTreeMap<MessageId, Tag>,
    got: BTreeMap<MessageId, Message>,
    missing: BTreeSet<MessageId>,
    /// Ids of the inventory that were no longer addressed when they were fetched.
    left: BTreeSet<MessageId>,
    /// Seconds.
    pub(super) poll_after: f64,
}

/// A fetch's answer is not one to the fetch that was sent.
#[derive(Debug)]
pub(super) struct Unfit;

impl Gathering {
    /// Takes an answer with this inventory, beside what the device holds.
    pub(super) fn new(
        answer: Answer,
        inventory: Vec<(MessageId, Tag)>,
        saved: &Saved,
    ) -> Gathering {
        let inventory: BTreeMap<_, _> = inventory.into_iter().collect();
        let got: BTreeMap<_, _> =
            answer.messages.into_iter().map(<(MessageId, Message)>::from).collect();
        let has = |id: &MessageId, tag: Tag| {
            got.contains_key(id) || saved.messages.get(id).is_some_and(|message| message.tag == tag)
        };
        let missing =
            inventory.iter().filter(|(id, tag)| !has(id, **tag)).map(|(id, _)| *id).collect();
        Gathering {
            after: answer.after,
            cursor: answer.cursor,
            inventory,
            got,
            missing,
            left: BTreeSet::new(),
            poll_after: answer.poll_after,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }

    /// Gives up the bodies that are missing. A planted fault, for the test that sees it.
    #[cfg(test)]
    pub(super) fn give_up(&mut self) {
        self.missing.clear();
    }

    /// What the next fetch asks for.
    pub(super) fn wanted(&self) -> Vec<MessageId> {
        self.missing.iter().take(FETCH_IDS_MAX).copied().collect()
    }

    /// Takes a fetch's answer. What stands in neither of its lists stays missing.
    ///
    /// # Errors
    /// If it was computed from another cursor than the one sent, or brings nothing that was asked for.
    pub(super) fn take(&mut self, fetched: Fetched) -> Result<(), Unfit> {
        if fetched.after.as_ref() != Some(&self.cursor) {
            return Err(Unfit);
        }
        let before = self.missing.len();
        for wire in fetched.messages {
            let (id, message) = wire.into();
            if self.missing.remove(&id) {
                self.got.insert(id, message);
            }
        }
        for id in fetched.gone {
            if self.missing.remove(&id) {
                self.left.insert(id);
            }
        }
        if self.missing.len() == before {
            return Err(Unfit);
        }
        self.cursor = fetched.cursor;
        Ok(())
    }

    /// What to store and what to remove, given what the device holds.
    pub(super) fn into_changes(self, saved: &Saved) -> (Vec<(MessageId, Message)>, Vec<MessageId>) {
        let kept = |id: &MessageId| self.inventory.contains_key(id) && !self.left.contains(id);
        let remove = saved.messages.keys().filter(|id| !kept(id)).copied().collect();
        let store =
            self.got.into_iter().filter(|(id, _)| self.inventory.contains_key(id)).collect();
        (store, remove)
    }
}
