mod history;

use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::{
    AppId, AppRow, Batch, Change, DeviceId, Environment, Epoch, GroupId, GroupRow, LineageEntry,
    MessageRow, MessageState, Millis, Priority, SetBy, ShardId, Variant,
};

const APP: AppId = AppId::new(1);
const DEVICE: DeviceId = DeviceId::new(5);

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % n
    }
}

fn device(groups: &[GroupId], p: Seq) -> Change {
    Change::Device(Arc::new(DeviceRow {
        id: DEVICE,
        app: APP,
        generation: Seq::new(1),
        p,
        created_at: Millis(0),
        user: None,
        attributes: Box::default(),
        groups: groups.into(),
        private: None,
        last_seen: Millis::ZERO,
    }))
}

/// About 90 bytes on the wire.
fn message(id: MessageId, to: &str, tag: Tag, state: MessageState, revision: u32) -> Change {
    let pad = "x".repeat(40);
    let wire = Bytes::from(format!(r#"{{"id":"{id}","tag":"{tag}","pad":"{pad}"}}"#));
    Change::Message(Arc::new(MessageRow {
        id,
        app: APP,
        revision,
        state,
        to: to.into(),
        priority: Priority::Normal,
        collapse_key: None,
        created_at: Millis(0),
        not_before: None,
        expires_at: Millis(9),
        push: None,
        variants: vec![Variant { selector: None, tag, wire }],
    }))
}

fn to_all(id: u64) -> Change {
    message(MessageId::new(id), "all", Tag::new(id), MessageState::Active, 1)
}

fn to_group_1(id: u64) -> Change {
    let to = format!("#:{}", GroupId::new(1));
    message(MessageId::new(id), &to, Tag::new(id), MessageState::Active, 1)
}

fn parsed(wire: &Bytes) -> (MessageId, Tag) {
    let value: Value = serde_json::from_slice(wire).expect("JSON");
    let id = value["id"].as_str().expect("an id").parse().expect("an id");
    let tag = u64::from_str_radix(value["tag"].as_str().expect("a tag"), 16).expect("a tag");
    (id, Tag::new(tag))
}

/// One app, three groups, and the device in none of them, at seq 5.
fn start() -> World {
    let epoch = Epoch { number: 1, tag: 1 };
    let line = LineageEntry { epoch, began_after: Seq::ZERO, fork: false };
    let mut world = World::empty(ShardId::FIRST, Lineage::try_new(vec![line]).expect("one line"));
    let app = AppRow {
        id: APP,
        name: "a".into(),
        environment: Environment::Sandbox,
        publishable_key: "k".into(),
        created_at: Millis(0),
        quotas: crate::Quotas::default(),
        push: None,
    };
    let group = |n: u64| {
        let name = format!("g{n}").into();
        Change::Group(Arc::new(GroupRow {
            id: GroupId::new(n),
            app: APP,
            name,
            set_by: SetBy::Server,
        }))
    };
    let mut changes = vec![Change::App(Arc::new(app))];
    changes.extend((0..3).map(group));
    changes.push(device(&[], Seq::new(5)));
    commit(&mut world, changes);
    world
}

fn commit(world: &mut World, changes: Vec<Change>) {
    world.apply(&Batch { first: world.seq().next(), changes }).expect("fits");
}

fn asked(world: &World, cursor: &Cursor) -> Outcome {
    let row = world.app(APP).and_then(|app| app.device(DEVICE)).expect("it is there");
    poll(world, row, cursor, &AnswerLimits::default())
}

fn news(world: &World, cursor: &Cursor) -> News {
    match asked(world, cursor) {
        Outcome::News(news) => news,
        other => panic!("{other:?}"),
    }
}

/// A cursor at `world` with nothing outstanding.
fn settled(world: &World) -> Cursor {
    let mut cursor = Cursor::EMPTY;
    for _ in 0..5 {
        match asked(world, &cursor) {
            Outcome::News(news) => cursor = news.cursor,
            Outcome::Nothing => return cursor,
            Outcome::Behind => panic!("behind itself"),
        }
    }
    panic!("there is always something new");
}

fn ids(news: &News) -> Vec<u64> {
    news.messages.iter().map(|wire| parsed(wire).0.get()).collect()
}

#[test]
fn news_make_a_fresh_cursor_and_who_shows_it_gets_one_that_is_not() {
    let mut world = start();
    let cursor = settled(&world);
    commit(&mut world, vec![to_all(10)]);
    let first = news(&world, &cursor);
    assert_eq!((ids(&first), first.cursor.fresh), (vec![10], true));
    let second = news(&world, &first.cursor);
    assert_eq!((ids(&second), second.gone.len(), second.cursor.fresh), (vec![], 0, false));
    assert_eq!(asked(&world, &second.cursor), Outcome::Nothing);
}

#[test]
fn a_cursor_that_lags_by_more_than_a_thousand_changes_gets_a_bookmark_and_not_before() {
    let mut world = start();
    let cursor = settled(&world);
    for id in 0..1_000 {
        commit(&mut world, vec![to_group_1(id + 100)]);
    }
    assert_eq!(asked(&world, &cursor), Outcome::Nothing);
    commit(&mut world, vec![to_group_1(5_000)]);
    let bookmark = news(&world, &cursor);
    assert_eq!((ids(&bookmark), bookmark.inventory.as_ref()), (vec![], None));
    assert_eq!(bookmark.cursor.held, Some(world.position()));
    assert!(!bookmark.cursor.fresh);
}

#[test]
fn a_cursor_that_lags_by_a_quarter_of_the_horizon_gets_a_bookmark() {
    let mut world = start();
    for id in 0..100 {
        commit(&mut world, vec![to_group_1(id + 100)]);
    }
    commit(&mut world, vec![Change::Purge { horizon: Seq::new(26) }]);
    let cursor = settled(&world);
    // The head is 106, so a quarter of what lies above the horizon is 20, and grows by one in four.
    for id in 0..26 {
        commit(&mut world, vec![to_group_1(id + 1_000)]);
        assert_eq!(asked(&world, &cursor), Outcome::Nothing, "{id}");
    }
    commit(&mut world, vec![to_group_1(2_000)]);
    assert_eq!(news(&world, &cursor).cursor.held, Some(world.position()));
}

#[test]
fn a_revision_that_came_and_went_moves_the_cursor_at_once() {
    let mut world = start();
    let cursor = settled(&world);
    commit(&mut world, vec![to_all(10)]);
    let state = MessageState::Recalled;
    commit(&mut world, vec![Change::MessageState { app: APP, id: MessageId::new(10), state }]);
    let bookmark = news(&world, &cursor);
    assert_eq!((ids(&bookmark), bookmark.gone.len()), (vec![], 0), "it never had it");
    assert_eq!(bookmark.cursor.held, Some(world.position()));
}

#[test]
fn a_profile_change_that_alters_nothing_is_a_bookmark_and_one_that_does_an_inventory() {
    let mut world = start();
    commit(&mut world, vec![to_all(10), to_group_1(11)]);
    let cursor = settled(&world);
    let p = world.seq().next();
    commit(&mut world, vec![device(&[GroupId::new(2)], p)]);
    let unaltered = news(&world, &cursor);
    assert_eq!((unaltered.inventory.as_ref(), ids(&unaltered)), (None, vec![]));
    let blind = Cursor { digest: None, ..cursor };
    assert!(news(&world, &blind).inventory.is_some(), "without a digest nobody can tell");
    let p = world.seq().next();
    commit(&mut world, vec![device(&[GroupId::new(1)], p)]);
    let altered = news(&world, &cursor);
    assert_eq!(altered.inventory.as_ref().map(Vec::len), Some(2));
    assert_eq!(ids(&altered), Vec::<u64>::new(), "neither changed after what is held: to fetch");
}

#[test]
fn a_delta_that_is_too_large_is_an_inventory_with_some_of_the_bodies() {
    let mut world = start();
    let cursor = settled(&world);
    commit(&mut world, (0..10).map(|id| to_all(id + 100)).collect());
    let row = world.app(APP).and_then(|app| app.device(DEVICE)).expect("it is there");
    let of = |bytes_max| {
        let limits = AnswerLimits { bytes_max, ..AnswerLimits::default() };
        match poll(&world, row, &cursor, &limits) {
            Outcome::News(news) => news,
            other => panic!("{other:?}"),
        }
    };
    let all: usize = of(usize::MAX).messages.iter().map(Bytes::len).sum();
    assert!(of(all).inventory.is_none(), "what fits exactly is a delta");
    let cut = of(all - 1);
    assert_eq!((cut.inventory.as_ref().map(Vec::len), cut.messages.len()), (Some(10), 9));
    assert_eq!(of(0).messages.len(), 1, "one body always goes");
}

#[test]
fn a_fetch_stops_at_its_bytes_after_one_body_at_least_and_names_what_is_gone() {
    let mut world = start();
    commit(&mut world, vec![to_all(10), to_all(11), to_group_1(12), to_all(13)]);
    let cursor = settled(&world);
    let row = world.app(APP).and_then(|app| app.device(DEVICE)).expect("it is there");
    let wanted = [12, 99, 10, 11, 13].map(MessageId::new);
    let of = |bytes_max| {
        let limits = AnswerLimits { bytes_max, ..AnswerLimits::default() };
        match fetch(&world, row, &cursor, &wanted, &limits) {
            Fetched::Bodies { messages, gone, .. } => {
                let ids: Vec<u64> = messages.iter().map(|wire| parsed(wire).0.get()).collect();
                (ids, gone.iter().map(|id| id.get()).collect::<Vec<u64>>())
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of(usize::MAX), (vec![10, 11, 13], vec![12, 99]), "unknown and not addressed alike");
    assert_eq!(of(0), (vec![10], vec![12, 99]), "the others are asked again");
}

#[test]
fn behind_outranks_reset() {
    let world = start();
    let cut = Position { epoch: Epoch { number: 1, tag: 9 }, ..world.position() };
    let ahead = Position { seq: world.seq().next(), ..world.position() };
    let cursor = |held, floor| Cursor { held: Some(held), floor: Some(floor), ..Cursor::EMPTY };
    assert_eq!(asked(&world, &cursor(cut, ahead)), Outcome::Behind);
    assert_eq!(asked(&world, &cursor(ahead, cut)), Outcome::Behind);
    assert!(news(&world, &cursor(world.position(), cut)).inventory.is_some());
    let row = world.app(APP).and_then(|app| app.device(DEVICE)).expect("it is there");
    let fetched = |cursor| fetch(&world, row, &cursor, &[], &AnswerLimits::default());
    assert_eq!(fetched(cursor(cut, ahead)), Fetched::Behind);
    assert_eq!(fetched(cursor(world.position(), cut)), Fetched::Reset);
}

#[test]
fn what_is_cut_off_is_no_reason_to_keep_bodies_back() {
    let mut world = start();
    commit(&mut world, vec![to_all(10)]);
    let cut = Position { epoch: Epoch { number: 1, tag: 9 }, ..world.position() };
    let cursor = Cursor { held: Some(cut), floor: Some(cut), ..Cursor::EMPTY };
    assert_eq!(ids(&news(&world, &cursor)), [10], "the seq of another branch says nothing here");
}

#[test]
fn a_write_raises_the_floor_alone_and_a_cut_off_cursor_gets_none_back() {
    let world = start();
    let at = |seq: u64| Position { seq: Seq::new(seq), ..world.position() };
    let cursor = Cursor {
        held: Some(at(2)),
        floor: Some(at(3)),
        fresh: true,
        digest: Some(1),
        volatile: Some(2),
    };
    let raised = raise_floor(world.lineage(), &cursor, at(9)).expect("in the past");
    assert_eq!(raised, Cursor { floor: Some(at(9)), ..cursor });
    let lower = raise_floor(world.lineage(), &cursor, at(1)).expect("in the past");
    assert_eq!(lower, cursor, "a floor never sinks");
    let cut = Position { epoch: Epoch { number: 1, tag: 2 }, ..at(2) };
    assert_eq!(raise_floor(world.lineage(), &Cursor { held: Some(cut), ..cursor }, at(9)), None);
    assert_eq!(raise_floor(world.lineage(), &Cursor { floor: Some(cut), ..cursor }, at(9)), None);
    assert_eq!(raise_floor(world.lineage(), &cursor, cut), None, "a write that was lost again");
}
