//! What happens in a run, and when: fixed by the seed before it begins.

use std::time::Duration;

use crate::fleet::Random;

/// A kind of event. The verdict demands at least five of each, and one [`Kind::Kill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message that starts at once.
    Send,
    /// A message that starts seconds later.
    Schedule,
    /// A message that ends by itself seconds later.
    Expire,
    /// Another body for a message.
    EditContent,
    /// Other recipients for a message.
    EditRecipients,
    Recall,
    /// Devices leave one group and join another.
    Move,
    /// The edge is killed, and restarted while writes go on.
    Kill,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::Send,
        Self::Schedule,
        Self::Expire,
        Self::EditContent,
        Self::EditRecipients,
        Self::Recall,
        Self::Move,
        Self::Kill,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Schedule => "schedule",
            Self::Expire => "expire",
            Self::EditContent => "edit content",
            Self::EditRecipients => "edit recipients",
            Self::Recall => "recall",
            Self::Move => "move",
            Self::Kill => "edge kill",
        }
    }

    /// How often it has to have happened.
    pub(super) const fn floor(self) -> u64 {
        match self {
            Self::Kill => 1,
            _ => 5,
        }
    }
}

/// Events of each kind among fifty.
const SHARES: [(Kind, usize); 7] = [
    (Kind::Send, 20),
    (Kind::Schedule, 6),
    (Kind::Expire, 4),
    (Kind::EditContent, 6),
    (Kind::EditRecipients, 5),
    (Kind::Recall, 5),
    (Kind::Move, 4),
];
/// With fewer than three times fifty events some expression would not be used, or a client would get few messages.
const FIFTIES_MIN: u64 = 3;
/// Fifty events in ten seconds: each wakes about two fifths of the clients, which with 2,000 of them is what two cores
/// do without queueing, TLS on both ends included.
const FIFTY_SECONDS: u64 = 10;
/// Sends before anything else, so that there is something to edit and recall.
const FIRST_SENDS: usize = 12;

/// One thing to do, at a time counted from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) at: Duration,
    pub(super) kind: Kind,
}

/// The events of a run of `seconds`, by time.
pub(super) fn events(seed: u64, seconds: u64) -> Vec<Event> {
    let fifties = (seconds / FIFTY_SECONDS).max(FIFTIES_MIN);
    let mut random = Random::new(seed);
    let mut kinds = vec![Kind::Send; FIRST_SENDS];
    for fifty in 0..fifties {
        let mut shuffled: Vec<Kind> =
            SHARES.iter().flat_map(|(kind, share)| std::iter::repeat_n(*kind, *share)).collect();
        if fifty == 0 {
            shuffled.drain(..FIRST_SENDS);
        }
        random.shuffle(&mut shuffled);
        kinds.append(&mut shuffled);
    }
    // Not too early, so that clients hold something; not too late, so that much follows.
    kinds.insert(kinds.len() * 2 / 5, Kind::Kill);
    let count = u32::try_from(kinds.len()).unwrap_or(u32::MAX);
    let every = Duration::from_secs(seconds) / count;
    let event = |(number, kind)| Event { at: every * number, kind };
    (0..).zip(kinds).map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_often_enough_however_short_the_run() {
        for seconds in [1, 6, 30, 600] {
            let events = events(1, seconds);
            for kind in Kind::ALL {
                let count = events.iter().filter(|event| event.kind == kind).count() as u64;
                // Twice the floor, since an event that finds nothing to do is passed over.
                let enough =
                    if kind == Kind::Kill { count == 1 } else { count >= 2 * kind.floor() };
                assert!(enough, "{kind:?}: {count} in {seconds} s");
            }
            assert!(events.is_sorted_by_key(|event| event.at));
            assert!(events.last().expect("events").at < Duration::from_secs(seconds));
        }
        assert_eq!(events(1, 30).len(), 151);
        assert_eq!(events(7, 30), events(7, 30));
        assert_ne!(events(7, 30), events(8, 30));
    }
}
