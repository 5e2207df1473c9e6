//! How many bytes of RAM a world holds, by a formula that both tiers share.
//!
//! Computed and not measured, because central has to know what a write would cost before it is made, because a
//! process holds more than its world, and because an edge has to know what will come before it comes.
//!
//! What always holds: the usage is a function of what the world holds, never of how it came to hold it. So central
//! and its edges agree, whatever each went through, but for [`Usage::private`], which only central has.
//!
//! # The formula
//!
//! Each allocation counts with the size class that jemalloc gives it ([`allocation`]). An entry of a persistent trie
//! counts twice its size ([`trie_entry`]): leaves are between an eighth and all full, and the branches above them are
//! a tenth. What several clones share counts once; texts and expressions that revisions of one message share count
//! for each revision. A test compares the sum with the resident size of a process.

use std::mem::size_of;
use std::sync::Arc;

use bytes::Bytes;
use carillon_expr::{Expression, Value};

use crate::app::App;
use crate::audience::{Audience, AudienceRevision};
use crate::group_names;
use crate::message::{Message, Revision};
use crate::{
    AppRow, AttributeId, AttributeRow, AudienceRecord, AudienceRow, DevicePrivate, DeviceRow,
    GroupId, GroupRow, MessageRow, PushToken, Variant,
};

/// Bytes of RAM by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Apps, attributes, groups and audiences.
    pub declarations: u64,
    /// Profiles of devices.
    pub devices: u64,
    /// What only central holds of devices: secrets, push tokens, and its index of secrets.
    pub private: u64,
    /// Messages without their bodies.
    pub messages: u64,
    /// Bodies as they go on the wire, also those of messages that have ended and are not purged yet.
    pub bodies: u64,
    /// What each retained revision of a message or an audience said, and when messages changed.
    pub revisions: u64,
    /// From the terms of a device, and from audiences, to messages.
    pub indexes: u64,
}

impl Usage {
    pub const ZERO: Usage = Usage {
        declarations: 0,
        devices: 0,
        private: 0,
        messages: 0,
        bodies: 0,
        revisions: 0,
        indexes: 0,
    };

    /// Each part by its name, in a fixed order.
    pub const fn parts(&self) -> [(&'static str, u64); 7] {
        [
            ("declarations", self.declarations),
            ("devices", self.devices),
            ("private", self.private),
            ("messages", self.messages),
            ("bodies", self.bodies),
            ("revisions", self.revisions),
            ("indexes", self.indexes),
        ]
    }

    /// What a message adds to [`Usage::bodies`].
    pub fn of_bodies(row: &MessageRow) -> u64 {
        row.variants.iter().map(|of| of_body(&of.wire)).sum()
    }

    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    /// What the same world costs an edge.
    pub fn at_edge(&self) -> u64 {
        self.total() - self.private
    }

    pub(crate) fn add(&mut self, other: &Usage) {
        self.declarations += other.declarations;
        self.devices += other.devices;
        self.private += other.private;
        self.messages += other.messages;
        self.bodies += other.bodies;
        self.revisions += other.revisions;
        self.indexes += other.indexes;
    }

    /// # Panics
    /// If `other` was never added, which would be our own fault: overflow is checked in every build.
    pub(crate) fn subtract(&mut self, other: &Usage) {
        self.declarations -= other.declarations;
        self.devices -= other.devices;
        self.private -= other.private;
        self.messages -= other.messages;
        self.bodies -= other.bodies;
        self.revisions -= other.revisions;
        self.indexes -= other.indexes;
    }
}

/// The size class of jemalloc for an allocation: multiples of 16 up to 128, then four classes to a doubling.
pub(crate) const fn allocation(bytes: usize) -> u64 {
    let rounded = match bytes {
        0 => 0,
        1..=8 => 8,
        9..=128 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(bytes.next_power_of_two() / 8),
    };
    rounded as u64
}

/// What one entry with a value of this size costs a persistent map.
pub(crate) const fn trie_entry(value_bytes: usize) -> u64 {
    2 * (8 + value_bytes) as u64
}

/// An allocation behind an [`Arc`], which has two counters.
const fn shared(bytes: usize) -> u64 {
    allocation(16 + bytes)
}

fn text(text: &Arc<str>) -> u64 {
    shared(text.len())
}

fn opt_text(of: Option<&Arc<str>>) -> u64 {
    of.map_or(0, text)
}

/// An app without anything in it: its row, its maps and their empty roots.
pub(crate) fn of_app(row: &AppRow) -> Usage {
    const ROOTS: u64 = 17;
    let row = shared(size_of::<AppRow>()) + text(&row.name) + text(&row.publishable_key);
    let declarations = row + shared(size_of::<App>()) + trie_entry(8) + ROOTS * shared(24);
    Usage { declarations, ..Usage::ZERO }
}

pub(crate) fn of_attribute(row: &AttributeRow) -> Usage {
    // Entries of two B-trees, by id and by name, whose nodes are two thirds full or better.
    const ENTRIES: u64 =
        ((size_of::<AttributeId>() + 8 + 16 + size_of::<AttributeId>()) * 3 / 2) as u64;
    let declarations = shared(size_of::<AttributeRow>()) + text(&row.name) + ENTRIES;
    Usage { declarations, ..Usage::ZERO }
}

/// With its entries by id, by name, and in the count of members.
pub(crate) fn of_group(row: &GroupRow) -> Usage {
    let declarations = shared(size_of::<GroupRow>())
        + text(&row.name)
        + trie_entry(8)
        + group_names::ENTRY_BYTES
        + trie_entry(8);
    Usage { declarations, ..Usage::ZERO }
}

/// With its entries by id and by name, and those that tell a purge of its edits.
pub(crate) fn of_audience(audience: &Audience) -> Usage {
    /// Of a B-tree, whose nodes are two thirds full or better.
    const NAME: u64 = ((16 + 8) * 3 / 2) as u64;
    const EDIT: u64 = ((8 + 8) * 3 / 2) as u64;
    let (row, said) = (audience.row(), audience.revisions());
    let declarations = shared(size_of::<Audience>())
        + trie_entry(8)
        + NAME
        + shared(size_of::<AudienceRow>())
        + text(&row.name)
        + text(&row.expression);
    let revisions = allocation(size_of_val(said))
        + said.iter().map(AudienceRevision::bytes).sum::<u64>()
        + (said.len() as u64 - 1) * EDIT;
    Usage { declarations, revisions, ..Usage::ZERO }
}

/// Of lists of the messages that use an audience, with so many entries.
pub(crate) const fn of_uses(lists: usize, entries: usize) -> u64 {
    lists as u64 * INDEX_TERM + entries as u64 * INDEX_POSTING
}

/// An audience that is not parsed yet: at least this will be there.
pub(crate) fn of_staged_audience(row: &AudienceRow, records: &[AudienceRecord]) -> u64 {
    shared(size_of::<Audience>())
        + shared(size_of::<AudienceRow>())
        + text(&row.name)
        + records.iter().map(|record| text(&record.expression)).sum::<u64>()
}

pub(crate) fn of_device(row: &DeviceRow) -> Usage {
    let value = |value: &Value| match value {
        Value::String(of) => text(of),
        Value::Set(of) => {
            shared(size_of_val(of.entries())) + of.entries().iter().map(text).sum::<u64>()
        }
        Value::Number(_)
        | Value::Bool(_)
        | Value::Version(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::Point(_) => 0,
    };
    let devices = shared(size_of::<DeviceRow>())
        + trie_entry(8)
        + opt_text(row.user.as_ref())
        + allocation(row.attributes.len() * size_of::<(AttributeId, Value)>())
        + row.attributes.iter().map(|(_, of)| value(of)).sum::<u64>()
        + allocation(row.groups.len() * size_of::<GroupId>());
    let private = row.private.as_deref().map_or(0, of_private);
    Usage { devices, private, ..Usage::ZERO }
}

fn of_private(private: &DevicePrivate) -> u64 {
    /// An app and a device, by the first 64 bits of the secret.
    const INDEX_ENTRY: u64 = trie_entry(24);
    allocation(size_of::<DevicePrivate>())
        + allocation(private.tokens.len() * size_of::<PushToken>())
        + private.tokens.iter().map(|of| text(&of.token)).sum::<u64>()
        + if private.secret.is_some() { INDEX_ENTRY } else { 0 }
}

pub(crate) fn of_message(message: &Message) -> Usage {
    let row = message.row();
    let messages = shared(size_of::<Message>())
        + trie_entry(8)
        + shared(size_of::<MessageRow>())
        + opt_text(row.collapse_key.as_ref())
        + allocation(row.variants.len() * size_of::<Variant>())
        + row.variants.iter().map(|of| opt_text(of.selector.as_ref())).sum::<u64>();
    let bodies = Usage::of_bodies(row);
    let revisions = allocation(size_of_val(message.revisions()))
        + message.revisions().iter().map(Revision::bytes).sum::<u64>();
    Usage { messages, bodies, revisions, ..Usage::ZERO }
}

/// A message that is not parsed yet: at least this will be there.
pub(crate) fn of_staged(row: &MessageRow) -> u64 {
    shared(size_of::<Message>())
        + shared(size_of::<MessageRow>())
        + text(&row.to)
        + Usage::of_bodies(row)
}

/// A body, and the counters that its readers share.
pub(crate) fn of_body(wire: &Bytes) -> u64 {
    allocation(wire.len()) + shared(16)
}

/// An expression and the text it came from.
pub(crate) fn of_expression(source: &Arc<str>, expression: &Expression) -> u64 {
    // The values' texts are part of the source; each test stands in the tree and in the program.
    text(source) + source.len() as u64 + expression.allocations().map(allocation).sum::<u64>()
}

/// A term of the index, with its list; and one message in a list, which has room to grow.
pub(crate) const INDEX_TERM: u64 = trie_entry(8) + shared(24) + 16;
pub(crate) const INDEX_POSTING: u64 = 12;

/// When a message changed: a seq and an id, in chunks that have room to grow.
pub(crate) const RECORD: u64 = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, Random, commit, random_change, rows};
    use crate::{ShardId, WorldBuilder};

    #[test]
    fn allocations_have_the_size_classes_of_jemalloc() {
        let pairs = [
            (0, 0),
            (1, 8),
            (8, 8),
            (9, 16),
            (17, 32),
            (113, 128),
            (128, 128),
            (129, 160),
            (160, 160),
            (257, 320),
            (4096, 4096),
            (4097, 5120),
            (65_537, 81_920),
        ];
        for (bytes, class) in pairs {
            assert_eq!(allocation(bytes), class, "{bytes}");
        }
    }

    /// Of groups and attributes that nothing refers to.
    fn random_declaration(random: &mut Random) -> crate::Change {
        let id = random.below(6);
        let name = "n".repeat(1 + random.below(60) as usize);
        match random.below(5) {
            0 => crate::Change::GroupGone { app: fixture::APP, id: GroupId::new(50 + id) },
            1 => crate::Change::AttributeGone { app: fixture::APP, id: AttributeId::new(70 + id) },
            2 => fixture::attribute(AttributeId::new(70 + id), &name, carillon_expr::Type::Bool),
            3 => fixture::group(50 + id, &name),
            _ => fixture::app(fixture::APP),
        }
    }

    /// What is counted on the way is what a walk over everything counts, and what an edge that gets the rows counts.
    #[test]
    fn the_usage_is_that_of_the_content_whatever_the_history() {
        for seed in 0..60 {
            let mut random = Random(seed);
            let mut world = fixture::world();
            for step in 0..200 {
                let change = match random.below(5) {
                    0 => random_declaration(&mut random),
                    _ => random_change(&mut random, &world),
                };
                commit(&mut world, vec![change]);
                assert_eq!(world.usage(), world.surveyed(), "seed {seed} step {step}");
                for app in world.apps() {
                    let live = app.messages_after(None).filter(|m| m.is_live()).count();
                    assert_eq!(app.live_messages(), live as u64, "seed {seed} step {step}");
                    let volatile = app.messages_after(None).filter(|m| m.is_volatile()).count();
                    assert_eq!(app.volatile_messages(), volatile as u64, "seed {seed} step {step}");
                    assert_eq!(world.follows_clock(), volatile > 0, "one app");
                }
            }
            let mut builder = WorldBuilder::new(ShardId::FIRST);
            rows(&world).into_iter().for_each(|row| builder.insert(row));
            let built =
                builder.finish(fixture::lineage(), world.seq(), world.horizon()).expect("fits");
            assert_eq!(built.usage(), world.usage(), "seed {seed}");
        }
    }

    #[test]
    fn what_goes_gives_its_bytes_back() {
        let mut world = fixture::world();
        let before = world.usage();
        let seq = world.seq().get();
        let changes = vec![
            fixture::device(1, &[1, 2], Some("KE"), Some(7)),
            fixture::group(9, "more"),
            fixture::message(5, "all"),
            fixture::message(5, &fixture::stored(1)),
        ];
        commit(&mut world, changes);
        let held = world.usage();
        for ((name, bytes), (_, had)) in held.parts().into_iter().zip(before.parts()) {
            assert_eq!(bytes > had, name != "private", "{name}");
        }
        let gone = vec![
            crate::Change::DeviceGone { app: fixture::APP, id: crate::DeviceId::new(1) },
            crate::Change::GroupGone { app: fixture::APP, id: GroupId::new(9) },
            fixture::state(5, crate::MessageState::Recalled),
            fixture::purge(seq + 7),
        ];
        commit(&mut world, gone);
        assert_eq!(world.usage(), before);
    }

    #[test]
    fn an_audience_counts_until_it_is_gone_and_what_it_said_until_it_is_purged() {
        let mut world = fixture::world();
        let before = world.usage();
        let said = fixture::audience(&world, 7, &fixture::stored(1), "a");
        commit(&mut world, vec![said]);
        let held = world.usage();
        assert!(held.declarations > before.declarations && held.revisions > before.revisions);
        commit(&mut world, vec![fixture::message(5, &fixture::at(7))]);
        assert!(world.usage().indexes > held.indexes);
        let used = world.usage();
        let said = fixture::audience(&world, 7, &fixture::stored(2), "a");
        commit(&mut world, vec![said]);
        let edited = world.usage();
        assert_eq!((edited.declarations, edited.messages), (used.declarations, used.messages));
        assert!(
            edited.revisions > used.revisions + 2 * RECORD,
            "of the audience and of the message"
        );
        let seq = world.seq().get();
        commit(&mut world, vec![fixture::purge(seq)]);
        assert_eq!(world.usage().revisions + RECORD, used.revisions);
        let over = fixture::state(5, crate::MessageState::Recalled);
        commit(&mut world, vec![over, fixture::purge(seq + 2)]);
        commit(
            &mut world,
            vec![crate::Change::AudienceGone { app: fixture::APP, id: crate::AudienceId::new(7) }],
        );
        assert_eq!(world.usage(), before);
    }

    #[test]
    fn an_edge_lacks_what_is_private_and_nothing_else() {
        let crate::Change::Device(row) = fixture::device(1, &[], None, None) else {
            unreachable!("it is a device")
        };
        let secret = Some(crate::SecretHash([7; 32]));
        let token = PushToken { channel: crate::PushChannel::Fcm, token: "t".repeat(100).into() };
        let private = Some(Box::new(DevicePrivate { secret, tokens: vec![token] }));
        let usage = of_device(&DeviceRow { private, ..DeviceRow::clone(&row) });
        assert!(usage.private > 200, "{usage:?}");
        assert_eq!(usage.at_edge(), of_device(&row).total());
    }
}
