//! Which counts are old.
//!
//! What is in RAM is looked at in parts, and forgotten there at once; what was found is then forgotten in the store, in
//! steps. Both may be done twice. So nothing is asked of the store while nothing is old, and whatever a restart finds
//! that nobody needs any more goes as well.

use std::collections::BTreeSet;

use carillon_persist::OldCounts;
use carillon_world::{AppId, MessageId, Millis};

use crate::core::funnel::{FunnelRetention, SPANS};
use crate::core::ledger::Ledger;

/// Messages looked at in one part: about 1 ms.
const LOOKED_MAX: usize = 2_000;
/// Between two parts, in ms.
const LOOK_EVERY: u64 = 10_000;
/// Between two looks at all, in ms.
const ALL_EVERY: u64 = 10 * 60 * 1000;
/// Messages of one step: each is a term of a condition.
const MESSAGES_MAX: usize = 100;

#[derive(Debug)]
pub(super) struct OldRows {
    retention: FunnelRetention,
    /// The last message that was looked at.
    after: Option<(AppId, MessageId)>,
    look_at: Millis,
    /// Those that the world has forgotten.
    messages: BTreeSet<(AppId, MessageId)>,
    /// Which of [`SPANS`] have counts in the store that are old, and before when.
    spans: [Option<Millis>; 3],
    /// What the step under way forgets.
    taken: Option<OldCounts>,
}

impl OldRows {
    pub(super) fn new(retention: FunnelRetention, now: Millis) -> OldRows {
        OldRows {
            retention,
            after: None,
            look_at: now,
            messages: BTreeSet::new(),
            spans: [None; 3],
            taken: None,
        }
    }

    /// What the next step forgets, if there is anything.
    pub(super) fn take(&mut self, now: Millis, ledger: &mut Ledger) -> Option<OldCounts> {
        if now >= self.look_at {
            self.look(now, ledger);
        }
        let span = self.spans.iter().position(Option::is_some);
        self.taken = match (self.messages.is_empty(), span) {
            (false, _) => {
                Some(OldCounts::Of(self.messages.iter().take(MESSAGES_MAX).copied().collect()))
            }
            (true, Some(index)) => {
                self.spans[index].map(|before| OldCounts::Before(SPANS[index].0, before))
            }
            (true, None) => None,
        };
        self.taken.clone()
    }

    /// The store has nothing more of what was taken last.
    pub(super) fn handle_drained(&mut self) {
        match self.taken.take() {
            Some(OldCounts::Of(messages)) => {
                self.messages.retain(|message| !messages.contains(message));
            }
            Some(OldCounts::Before(span, before)) => {
                let index = SPANS.iter().position(|(known, _)| *known == span);
                if let Some(index) = index.filter(|index| self.spans[*index] == Some(before)) {
                    self.spans[index] = None;
                }
            }
            None => {}
        }
    }

    fn look(&mut self, now: Millis, ledger: &mut Ledger) {
        let part = ledger.ahead.tally.funnel.after(self.after, LOOKED_MAX);
        let old = self.retention.old(now);
        for &(app, message) in &part {
            // As of what is committed: what is ahead may yet be undone.
            let known = ledger.committed.world.app(app);
            let is_known = known.is_some_and(|app| app.message(message).is_some());
            let tally = &mut ledger.ahead.tally;
            if !is_known {
                tally.funnel.forget_message(app, message);
                tally.books.forget_message(app, message);
                self.messages.insert((app, message));
                continue;
            }
            let found = tally.funnel.forget_old((app, message), old);
            for (index, _) in found.iter().enumerate().filter(|(_, found)| **found) {
                self.spans[index] = Some(old[index]);
            }
        }
        self.after = part.last().copied().filter(|_| part.len() == LOOKED_MAX);
        self.look_at = now.plus(if self.after.is_some() { LOOK_EVERY } else { ALL_EVERY });
    }
}
