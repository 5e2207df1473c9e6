//! What a client holds of the volatile messages, worked out from a digest.
//!
//! A world knows every revision that was in force at `held`, but not the clock of then, nor when the device had been seen
//! by then; so it cannot say whether the device had a message whose revision at `held` was volatile. The cursor carries
//! the sum of the shares of those that it had. What the sum has to be made of:
//!
//! * *Steady* messages, active and volatile, that did not change after `held`: each is held with one of its tags, or not.
//!   Which of them may be held at all is known, since the index's terms look at nothing that is volatile and a device
//!   whose profile changed after `held` never comes here.
//! * *Doubtful* messages that changed after `held`, and whose revision at `held` was active and volatile: each was held
//!   with one of that revision's tags, or not.
//! * Nothing else: a message that is volatile only since its change is no part of the sum, and one that was not volatile
//!   at `held` is judged as every other.
//!
//! If the steady messages are held as they are due at present, the rest of the sum says which of the doubtful ones were
//! held: the one choice whose shares add up to it. If none does, the clock altered what is due. Most often that is one
//! message, since ticks are frequent and windows begin and end one by one; then the sum is right once that one message
//! is held otherwise, and it goes with the delta. What is still not explained is answered with an inventory, as is a sum
//! that is not known, unless there is nothing that it could consist of.
//!
//! Two choices that add up to one sum are as unlikely as two digests that meet: the number of choices is bounded.

use crate::app::App;
use crate::message::{Message, Revision};
use crate::{DeviceRow, MessageId, Millis, Seq, Tag};

use super::share;

/// Choices that are tried: 2 for each doubtful message with one variant. One change that touches more of what a device
/// holds is answered with an inventory.
const CHOICES_MAX: usize = 256;

/// What is known of `held`, and of the present.
#[derive(Debug)]
pub(super) struct Past<'a> {
    /// The digest of what is volatile in H(w).
    pub(super) digest: u64,
    /// Messages whose tag at `held` follows from the sum; `None`: not held.
    pub(super) held: Vec<(MessageId, Option<Tag>)>,
    /// Those of them that did not change after `held`, but by the clock.
    pub(super) altered: Option<&'a Message>,
}

/// Messages that may have been held, each with the tags that it may have been held with.
type Doubts = Vec<(MessageId, Vec<Tag>)>;

/// One way in which they may have been held, and what its shares add up to.
type Choice = (u64, Vec<(MessageId, Option<Tag>)>);

/// Works out what the device had at `held`, of which the volatile has the digest `sum`. `changed`: what changed after
/// `held`, but perhaps without what no retained revision may address to the device. `None`: it cannot be told.
///
/// Cost: an evaluation of each active volatile message that the index names for the device.
pub(super) fn judge<'a>(
    app: &'a App,
    device: &DeviceRow,
    clock: Millis,
    (held, sum): (Seq, Option<u64>),
    changed: &[&'a Message],
) -> Option<Past<'a>> {
    let mut digest = 0_u64;
    // Of the steady ones, as they are due at present.
    let mut base = 0_u64;
    let mut steady = Vec::new();
    for message in app.volatile(device) {
        let tag = message.present().addresses(device, clock);
        let share = tag.map_or(0, |tag| share(message.row().id, tag));
        digest = digest.wrapping_add(share);
        if message.changed() <= held {
            base = base.wrapping_add(share);
            steady.push((message, tag));
        }
    }
    let mut doubts = Doubts::new();
    for message in changed {
        let before = message.at(held).filter(|revision| revision.is_volatile());
        if let Some(before) = before.filter(|revision| revision.may_address(device)) {
            doubts.push((message.row().id, before.tags()));
        }
    }
    let Some(sum) = sum else {
        let empty = steady.is_empty() && doubts.is_empty();
        return empty.then(|| Past { digest, held: Vec::new(), altered: None });
    };
    let choices = choices(&doubts)?;
    let found =
        |rest: u64| choices.iter().find(|(sum, _)| *sum == rest).map(|(_, held)| held.clone());
    if let Some(held) = found(sum.wrapping_sub(base)) {
        return Some(Past { digest, held, altered: None });
    }
    for (message, present) in steady {
        let id = message.row().id;
        let others = base.wrapping_sub(present.map_or(0, |tag| share(id, tag)));
        let tags = message.present().tags().into_iter().map(Some);
        for tag in std::iter::once(None).chain(tags).filter(|tag| *tag != present) {
            let with = others.wrapping_add(tag.map_or(0, |tag| share(id, tag)));
            if let Some(mut held) = found(sum.wrapping_sub(with)) {
                held.push((id, tag));
                return Some(Past { digest, held, altered: Some(message) });
            }
        }
    }
    None
}

/// Every way in which the doubtful messages may have been held; `None` if they are too many.
fn choices(doubts: &Doubts) -> Option<Vec<Choice>> {
    let mut all: Vec<Choice> = vec![(0, Vec::new())];
    for (id, tags) in doubts {
        if all.len() * (tags.len() + 1) > CHOICES_MAX {
            return None;
        }
        let ways: Vec<Option<Tag>> =
            std::iter::once(None).chain(tags.iter().copied().map(Some)).collect();
        let with = |(sum, held): &Choice, way: Option<Tag>| {
            let mut held = held.clone();
            held.push((*id, way));
            (sum.wrapping_add(way.map_or(0, |tag| share(*id, tag))), held)
        };
        let mut next = Vec::with_capacity(all.len() * ways.len());
        for choice in &all {
            next.extend(ways.iter().map(|way| with(choice, *way)));
        }
        all = next;
    }
    Some(all)
}

/// Whether the revision addresses the device, or may have while it was in force: what is volatile is not judged by the
/// clock of another time.
pub(super) fn may_have_addressed(revision: &Revision, device: &DeviceRow, clock: Millis) -> bool {
    revision.addresses(device, clock).is_some()
        || revision.is_volatile() && revision.may_address(device)
}
