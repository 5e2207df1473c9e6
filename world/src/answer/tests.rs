//! Random histories, one device, several worlds of different age, answers stored, lost and late: what the client holds
//! when it comes to rest is H of the newest world, computed here by brute force from the whole history.

use std::collections::BTreeMap;
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

/// What the history says: per message its tag, group, negation and whether it is active; and the device's groups.
#[derive(Clone, Default)]
struct Truth {
    messages: BTreeMap<MessageId, (Tag, u64, bool, MessageState)>,
    groups: Vec<GroupId>,
}

impl Truth {
    fn h(&self) -> BTreeMap<MessageId, Tag> {
        let of =
            |(id, (tag, group, negated, state)): (&MessageId, &(Tag, u64, bool, MessageState))| {
                let inside = self.groups.contains(&GroupId::new(*group));
                (*state == MessageState::Active && inside != *negated).then_some((*id, *tag))
            };
        self.messages.iter().filter_map(of).collect()
    }
}

fn wire_of(id: MessageId, tag: Tag) -> Bytes {
    Bytes::from(format!(r#"{{"id":"{id}","tag":"{tag}","pad":"{}"}}"#, "x".repeat(40)))
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
    }))
}

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
    world.apply(&Batch { first: Seq::new(1), changes }).expect("fits");
    world
}

fn random_change(random: &mut Random, truth: &mut Truth, seq: Seq) -> Change {
    match random.below(10) {
        0..2 => {
            truth.groups = (0..3).filter(|_| random.below(2) == 0).map(GroupId::new).collect();
            device(&truth.groups, seq)
        }
        2 if seq.get() > 12 => Change::Purge { horizon: Seq::new(seq.get() - 1 - random.below(6)) },
        3..5 if truth.messages.values().any(|m| m.3 == MessageState::Active) => {
            let (id, message) = truth
                .messages
                .iter_mut()
                .find(|(_, m)| m.3 == MessageState::Active)
                .expect("there is one");
            message.3 =
                if random.below(2) == 0 { MessageState::Recalled } else { MessageState::Expired };
            Change::MessageState { app: APP, id: *id, state: message.3 }
        }
        _ => {
            let edits =
                truth.messages.iter().find(|(_, m)| m.3 == MessageState::Active).map(|(id, _)| *id);
            let id =
                edits.filter(|_| random.below(2) == 0).unwrap_or_else(|| MessageId::new(seq.get()));
            let kept = truth.messages.get(&id).map(|m| m.0).filter(|_| random.below(3) == 0);
            let tag = kept.unwrap_or(Tag::new(seq.get()));
            let (group, negated) = (random.below(3), random.below(4) == 0);
            truth.messages.insert(id, (tag, group, negated, MessageState::Active));
            let to = format!("{}#:{}", if negated { "not " } else { "" }, GroupId::new(group));
            Change::Message(Arc::new(MessageRow {
                id,
                app: APP,
                revision: 1,
                state: MessageState::Active,
                to: to.into(),
                priority: Priority::Normal,
                collapse_key: None,
                created_at: Millis(0),
                not_before: None,
                expires_at: Millis(9),
                variants: vec![Variant { selector: None, tag, wire: wire_of(id, tag) }],
            }))
        }
    }
}

struct Client {
    held: BTreeMap<MessageId, Tag>,
    cursor: Cursor,
}

fn parsed(wire: &Bytes) -> (MessageId, Tag) {
    let value: Value = serde_json::from_slice(wire).expect("JSON");
    let id = value["id"].as_str().expect("an id").parse().expect("an id");
    let tag = u64::from_str_radix(value["tag"].as_str().expect("a tag"), 16).expect("a tag");
    (id, Tag::new(tag))
}

impl Client {
    /// Stores an answer whole, fetching what it lacks from `world`; drops it if that world is behind.
    fn store(&mut self, news: News, world: &World, limits: &AnswerLimits) {
        let mut next = self.held.clone();
        next.extend(news.messages.iter().map(parsed));
        next.retain(|id, _| !news.gone.contains(id));
        let mut cursor = news.cursor;
        if let Some(all) = news.inventory {
            next.retain(|id, _| all.iter().any(|(other, _)| other == id));
            let mut lacking: Vec<MessageId> = all
                .iter()
                .filter(|(id, tag)| next.get(id) != Some(tag))
                .map(|(id, _)| *id)
                .collect();
            while !lacking.is_empty() {
                let device =
                    world.app(APP).and_then(|app| app.device(DEVICE)).expect("it is there");
                let Fetched::Bodies { messages, gone, cursor: raised } =
                    fetch(world, device, &cursor, &lacking, limits)
                else {
                    return;
                };
                assert!(!messages.is_empty() || !gone.is_empty(), "a fetch gets on");
                cursor = raised;
                let got: Vec<(MessageId, Tag)> = messages.iter().map(parsed).collect();
                lacking
                    .retain(|id| !gone.contains(id) && !got.iter().any(|(other, _)| other == id));
                next.extend(got);
            }
        }
        (self.held, self.cursor) = (next, cursor);
    }
}

/// Returns how many deltas, inventories and bookmarks were seen.
fn run(seed: u64) -> [u64; 3] {
    let mut random = Random(seed);
    let (mut truth, mut worlds) = (Truth::default(), vec![start()]);
    let limits = AnswerLimits { bytes_max: 300, bookmark_changes: 20 };
    let mut client = Client { held: BTreeMap::new(), cursor: Cursor::EMPTY };
    let mut seen = [0; 3];
    let mut step = |client: &mut Client, world: &World, fetched_from: &World, lost: bool| {
        let device = world.app(APP).and_then(|app| app.device(DEVICE)).expect("it is there");
        match poll(world, device, &client.cursor, &limits) {
            Outcome::Behind => {
                assert!(client.cursor.floor.is_some_and(|f| f.seq > world.seq()), "P4")
            }
            Outcome::Nothing => return true,
            Outcome::News(news) => {
                let empty = news.messages.is_empty() && news.gone.is_empty();
                seen[if news.inventory.is_some() {
                    1
                } else if empty {
                    2
                } else {
                    0
                }] += 1;
                if !lost {
                    client.store(news, fetched_from, &limits);
                }
            }
        }
        false
    };
    for _ in 0..60 {
        let mut world = worlds.last().expect("one").clone();
        let mut changes = Vec::new();
        for k in 0..1 + random.below(3) {
            changes.push(random_change(&mut random, &mut truth, world.seq().plus(k + 1)));
        }
        world.apply(&Batch { first: world.seq().next(), changes }).expect("fits");
        worlds.push(world);
        let recent = |random: &mut Random| {
            let back = random.below(4.min(worlds.len() as u64)) as usize;
            worlds[worlds.len() - 1 - back].clone()
        };
        let (world, other) = (recent(&mut random), recent(&mut random));
        let lost = random.below(4) == 0;
        if random.below(2) == 0 {
            step(&mut client, &world, &other, lost);
        }
    }
    let newest = worlds.last().expect("one");
    let rested = (0..100).any(|_| step(&mut client, newest, newest, false));
    assert!(rested, "seed {seed}: never at rest");
    assert_eq!(client.held, truth.h(), "seed {seed}");
    seen
}

#[test]
fn a_client_at_rest_holds_exactly_h_of_the_newest_world() {
    let mut seen = [0; 3];
    for seed in 0..3_000 {
        let one = run(seed);
        (0..3).for_each(|kind| seen[kind] += one[kind]);
    }
    assert!(seen.iter().all(|count| *count > 1_000), "deltas, inventories, bookmarks: {seen:?}");
}

#[test]
fn a_write_raises_the_floor_alone_and_a_cut_off_cursor_gets_none_back() {
    let world = start();
    let at = |seq: u64| Position { seq: Seq::new(seq), ..world.position() };
    let cursor = Cursor { held: Some(at(2)), floor: Some(at(3)), fresh: true, digest: Some(1) };
    let raised = raise_floor(world.lineage(), &cursor, at(9)).expect("in the past");
    assert_eq!(raised, Cursor { floor: Some(at(9)), ..cursor });
    let lower = raise_floor(world.lineage(), &cursor, at(1)).expect("in the past");
    assert_eq!(lower, cursor, "a floor never sinks");
    let cut = Position { epoch: Epoch { number: 1, tag: 2 }, ..at(2) };
    assert_eq!(raise_floor(world.lineage(), &Cursor { held: Some(cut), ..cursor }, at(9)), None);
}
