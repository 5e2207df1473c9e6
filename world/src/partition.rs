//! The fixed partitions by which a snapshot walks a world.
//!
//! Fixed, so that both ends name the same rows by the same number whatever changes between two connections. Ids are
//! mixed first, so partitions are even even where ids were chosen by hand.

use crate::pmap::{Key, mix};
use crate::{AppId, Change, Row};

const MESSAGE_BITS: u32 = 8;
const DEVICE_BITS: u32 = 10;
const MESSAGES_FROM: u16 = 1;
const DEVICES_FROM: u16 = MESSAGES_FROM + (1 << MESSAGE_BITS);

/// 0 holds the clock, apps, attributes, groups and audiences; then come 256 partitions of messages, then 1,024 of
/// devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition(u16);

/// What a partition is a slice of: the prefix of the mixed ids, and its bits.
pub(crate) enum Slice {
    Schema,
    Messages { prefix: u64, bits: u32 },
    Devices { prefix: u64, bits: u32 },
}

impl Partition {
    pub const COUNT: usize = DEVICES_FROM as usize + (1 << DEVICE_BITS);

    pub fn new(number: u16) -> Option<Partition> {
        (usize::from(number) < Partition::COUNT).then_some(Partition(number))
    }

    pub const fn get(self) -> u16 {
        self.0
    }

    pub fn all() -> impl Iterator<Item = Partition> {
        (0..Partition::COUNT as u16).map(Partition)
    }

    pub(crate) fn of_message(id: impl Key) -> Partition {
        Partition(MESSAGES_FROM + (mix(id.bits()) >> (64 - MESSAGE_BITS)) as u16)
    }

    pub(crate) fn of_device(id: impl Key) -> Partition {
        Partition(DEVICES_FROM + (mix(id.bits()) >> (64 - DEVICE_BITS)) as u16)
    }

    pub(crate) fn slice(self) -> Slice {
        match self.0 {
            0 => Slice::Schema,
            n if n < DEVICES_FROM => {
                Slice::Messages { prefix: (n - MESSAGES_FROM).into(), bits: MESSAGE_BITS }
            }
            n => Slice::Devices { prefix: (n - DEVICES_FROM).into(), bits: DEVICE_BITS },
        }
    }
}

impl Row {
    pub fn partition(&self) -> Partition {
        match self {
            Row::App(_)
            | Row::Attribute(_)
            | Row::Group(_)
            | Row::Audience { .. }
            | Row::Clock { .. } => Partition(0),
            Row::Message { row, .. } => Partition::of_message(row.id),
            Row::Device(row) => Partition::of_device(row.id),
        }
    }
}

impl Change {
    /// The app that it is about; `None` if it is about none in particular.
    pub(crate) fn app(&self) -> Option<AppId> {
        Some(match self {
            Change::App(row) => row.id,
            Change::Attribute(row) => row.app,
            Change::Group(row) => row.app,
            Change::Device(row) => row.app,
            Change::Message(row) => row.app,
            Change::Audience(row) => row.app,
            Change::AttributeGone { app, .. }
            | Change::GroupGone { app, .. }
            | Change::DeviceGone { app, .. }
            | Change::MessageState { app, .. }
            | Change::AudienceGone { app, .. }
            | Change::Seen { app, .. } => *app,
            Change::Purge { .. } | Change::Clock { .. } => return None,
        })
    }

    /// `None` if it concerns several.
    pub fn partition(&self) -> Option<Partition> {
        Some(match self {
            Change::App(_)
            | Change::Attribute(_)
            | Change::AttributeGone { .. }
            | Change::Group(_)
            | Change::GroupGone { .. }
            | Change::Audience(_)
            | Change::AudienceGone { .. }
            | Change::Clock { .. } => Partition(0),
            Change::Message(row) => Partition::of_message(row.id),
            Change::MessageState { id, .. } => Partition::of_message(*id),
            Change::Device(row) => Partition::of_device(row.id),
            Change::DeviceGone { id, .. } => Partition::of_device(*id),
            Change::Purge { .. } | Change::Seen { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fixture::{APP, app, device, message, state};
    use crate::{DeviceId, MessageId, MessageState};

    /// Both ends of a link name rows by these numbers, and may be of different releases.
    #[test]
    fn the_numbers_never_change() {
        assert_eq!(Partition::COUNT, 1_281);
        let of = |change: Change| change.partition().map(Partition::get);
        assert_eq!([0, 1, 2].map(|id| of(message(id, "all"))), MESSAGES.map(Some));
        assert_eq!([0, 1, 2].map(|id| of(device(id, &[], None, None))), DEVICES.map(Some));
        assert_eq!(of(app(APP)), Some(0));
        assert_eq!(of(crate::fixture::audience(&crate::fixture::world(), 1, "all", "a")), Some(0));
        assert_eq!(of(crate::fixture::purge(1)), None, "it concerns them all");
    }

    #[test]
    fn a_row_and_every_change_of_it_have_one_partition() {
        for id in 0..500 {
            let (a, b) = (message(id, "all"), state(id, MessageState::Recalled));
            assert_eq!(a.partition(), b.partition());
            let gone = Change::DeviceGone { app: APP, id: DeviceId::new(id) };
            assert_eq!(device(id, &[], None, None).partition(), gone.partition());
        }
    }

    #[test]
    fn ids_chosen_by_hand_spread_over_all_partitions() {
        let all: BTreeSet<Partition> = (0..20_000)
            .flat_map(|n| {
                [Partition::of_message(MessageId::new(n)), Partition::of_device(DeviceId::new(n))]
            })
            .collect();
        assert_eq!(all.len(), Partition::COUNT - 1);
        assert_eq!(Partition::all().count(), Partition::COUNT);
        assert!(Partition::new(1_280).is_some() && Partition::new(1_281).is_none());
    }

    const MESSAGES: [u16; 3] = [1, 87, 220];
    const DEVICES: [u16; 3] = [257, 603, 1136];
}
