//! A small world for the tests of the core.

use std::sync::Arc;

use bytes::Bytes;
use carillon_world::{
    AppId, AppRow, Applied, Batch, Change, DeviceId, DeviceRow, Environment, Epoch, GroupId,
    GroupRow, Lineage, LineageEntry, MessageId, MessageRow, MessageState, Millis, Position,
    Priority, Row, Seq, SetBy, ShardId, Tag, Variant, World, WorldBuilder,
};

use super::keys::{KeyRing, Purpose};
use super::seal::{Entropy, Session, seal_session};

pub(crate) const APP: AppId = AppId::new(0xa1);
pub(crate) const OTHER_APP: AppId = AppId::new(0xa2);
/// In the group [`VIP`].
pub(crate) const DEVICE: DeviceId = DeviceId::new(0xd1);
/// In no group.
pub(crate) const OTHER: DeviceId = DeviceId::new(0xd2);
pub(crate) const VIP: GroupId = GroupId::new(0x91);
pub(crate) const ENTROPY: Entropy = Entropy([5; 12]);
pub(crate) const EPOCH: Epoch = Epoch { number: 1000, tag: 7 };
/// The seq of [`world`].
pub(crate) const HEAD: u64 = 10;
pub(crate) const GENERATION: u64 = 3;

pub(crate) fn lineage() -> Lineage {
    let line = LineageEntry { epoch: EPOCH, began_after: Seq::ZERO, fork: false };
    Lineage::try_new(vec![line]).expect("one line is a lineage")
}

pub(crate) fn position(seq: u64) -> Position {
    Position { shard: ShardId::FIRST, epoch: EPOCH, seq: Seq::new(seq) }
}

pub(crate) fn device(app: AppId, id: DeviceId, groups: &[GroupId]) -> DeviceRow {
    DeviceRow {
        id,
        app,
        generation: Seq::new(GENERATION),
        p: Seq::new(GENERATION),
        created_at: Millis(0),
        user: None,
        attributes: Box::default(),
        groups: groups.into(),
        private: None,
        last_seen: Millis::ZERO,
    }
}

/// Two apps; in the first two devices and a group, no message.
pub(crate) fn world() -> World {
    let mut builder = WorldBuilder::new(ShardId::FIRST);
    for (app, name) in [(APP, "one"), (OTHER_APP, "two")] {
        builder.insert(Row::App(Arc::new(AppRow {
            id: app,
            name: name.into(),
            environment: Environment::Sandbox,
            publishable_key: format!("pk-{name}").into(),
            created_at: Millis(0),
            quotas: carillon_world::Quotas::default(),
            push: None,
        })));
    }
    let group = GroupRow { id: VIP, app: APP, name: "vip".into(), set_by: SetBy::Server };
    builder.insert(Row::Group(Arc::new(group)));
    for row in
        [device(APP, DEVICE, &[VIP]), device(APP, OTHER, &[]), device(OTHER_APP, DEVICE, &[])]
    {
        builder.insert(Row::Device(Arc::new(row)));
    }
    builder.finish(lineage(), Seq::new(HEAD), Seq::ZERO).expect("the rows make a world")
}

pub(crate) fn vip() -> String {
    format!("#:{VIP}")
}

/// A message that is active at once.
pub(crate) fn message(id: u64, to: &str) -> Change {
    message_of(APP, id, to, "null")
}

pub(crate) fn message_of(app: AppId, id: u64, to: &str, body: &str) -> Change {
    let (id, expires_at) = (MessageId::new(id), Millis(4_000_000_000_000));
    let tag = Tag::of(body.as_bytes(), Priority::Normal, expires_at);
    let wire = format!(r#"{{"id":"{id}","tag":"{tag}","body":{body}}}"#);
    Change::Message(Arc::new(MessageRow {
        id,
        app,
        revision: 1,
        state: MessageState::Active,
        to: to.into(),
        priority: Priority::Normal,
        collapse_key: None,
        created_at: Millis(0),
        not_before: None,
        expires_at,
        push: None,
        variants: vec![Variant { selector: None, tag, wire: Bytes::from(wire) }],
    }))
}

pub(crate) fn recall(id: u64) -> Change {
    Change::MessageState { app: APP, id: MessageId::new(id), state: MessageState::Recalled }
}

/// `world` after one more batch.
pub(crate) fn after(world: &World, changes: Vec<Change>) -> (World, Applied) {
    let mut next = world.clone();
    let batch = Batch { first: world.seq().next(), changes };
    let applied = next.apply(&batch).expect("the batch applies");
    (next, applied)
}

/// Keys that seal on day 20,000.
pub(crate) fn keys() -> KeyRing {
    let of_day = |day: u32| [(Purpose::Session, day, [1; 32]), (Purpose::Cursor, day, [2; 32])];
    KeyRing::new(20_000, (19_600..=20_002).flat_map(of_day))
}

pub(crate) fn session(app: AppId, device: DeviceId, generation: Position) -> String {
    seal_session(&keys(), ENTROPY, &Session { app, device, generation }).expect("there are keys")
}
