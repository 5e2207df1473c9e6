//! The fixed partitions by which a snapshot walks a world.
//!
//! Fixed, so that both ends name the same rows by the same number whatever changes between two connections. Ids are
//! mixed first, so partitions are even even where ids were chosen by hand.

use crate::pmap::{Key, mix};
use crate::{Change, Row};

const MESSAGE_BITS: u32 = 8;
const DEVICE_BITS: u32 = 10;
const MESSAGES_FROM: u16 = 1;
const DEVICES_FROM: u16 = MESSAGES_FROM + (1 << MESSAGE_BITS);

/// 0 holds apps, attributes and groups; then come 256 partitions of messages, then 1,024 of devices.
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

    fn of_message(id: impl Key) -> Partition {
        Partition(MESSAGES_FROM + (mix(id.bits()) >> (64 - MESSAGE_BITS)) as u16)
    }

    fn of_device(id: impl Key) -> Partition {
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
            Row::App(_) | Row::Attribute(_) | Row::Group(_) => Partition(0),
            Row::Message { row, .. } => Partition::of_message(row.id),
            Row::Device(row) => Partition::of_device(row.id),
        }
    }
}

impl Change {
    /// `None` if it concerns them all.
    pub fn partition(&self) -> Option<Partition> {
        Some(match self {
            Change::App(_)
            | Change::Attribute(_)
            | Change::AttributeGone { .. }
            | Change::Group(_)
            | Change::GroupGone { .. } => Partition(0),
            Change::Message(row) => Partition::of_message(row.id),
            Change::MessageState { id, .. } => Partition::of_message(*id),
            Change::Device(row) => Partition::of_device(row.id),
            Change::DeviceGone { id, .. } => Partition::of_device(*id),
            Change::Purge { .. } => return None,
        })
    }
}
