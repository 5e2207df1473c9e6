//! What is counted beside the world: the books of devices and the funnels of messages.
//!
//! Part of the state that a batch is decided on, and published with it. What a batch touched is remembered by key; its
//! rows are made from the state after it, so that they hold whole values and each is written once.

use std::collections::BTreeSet;

use carillon_persist::Tallies;
use carillon_world::{AppId, DeviceId, MessageId, Seq, World};

use super::books::{Books, Mark};
use super::funnel::{CountKey, Counter, Funnel};

/// A clone is three pointers.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub books: Books,
    pub funnel: Funnel,
}

impl Tally {
    pub(crate) fn load(tallies: Tallies, world: &World) -> Tally {
        let Tallies { books, counts } = tallies;
        Tally { books: Books::load(books, world), funnel: Funnel::load(counts) }
    }

    /// The newest position that the device was seen to have stored.
    pub fn held(&self, app: AppId, device: DeviceId) -> Option<Seq> {
        self.books.held(app, device)
    }

    pub fn has_mark(&self, app: AppId, device: DeviceId, message: MessageId, mark: Mark) -> bool {
        self.books.has_mark(app, device, message, mark)
    }
}

/// The counter of a mark; none for what is not counted.
pub(crate) fn counter_of(mark: Mark) -> Option<Counter> {
    Some(match mark {
        Mark::Delivered => Counter::Delivered,
        Mark::Displayed => Counter::Displayed,
        Mark::Opened => Counter::Opened,
        Mark::Dismissed => Counter::Dismissed,
        Mark::Action => Counter::Action,
        Mark::Withdrawn => Counter::Withdrawn,
        Mark::Left => return None,
    })
}

/// What a batch touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) books: BTreeSet<(AppId, DeviceId)>,
    pub(crate) counts: BTreeSet<CountKey>,
}

impl Touched {
    pub(crate) fn is_empty(&self) -> bool {
        self.books.is_empty() && self.counts.is_empty()
    }

    pub(crate) fn extend(&mut self, other: Touched) {
        self.books.extend(other.books);
        self.counts.extend(other.counts);
    }

    /// The rows, as they are in a state. The book of a device that is gone goes with the device.
    pub(crate) fn rows(&self, world: &World, tally: &Tally) -> Tallies {
        let is_there =
            |app: AppId, device| world.app(app).is_some_and(|a| a.device(device).is_some());
        let books = self.books.iter().filter(|(app, device)| is_there(*app, *device));
        Tallies {
            books: books.map(|(app, device)| tally.books.row(*app, *device)).collect(),
            counts: self.counts.iter().map(|key| tally.funnel.row(key)).collect(),
        }
    }
}
