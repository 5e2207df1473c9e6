//! Rows for the tests of this crate: one app with three groups, a string and a number.

use std::sync::Arc;

use bytes::Bytes;
use carillon_expr::{Number, Type, Value};

use crate::pmap::mix;
use crate::{
    App, AppId, AppRow, AttributeId, AttributeRow, AudienceId, AudienceRow, Batch, Change,
    DeviceId, DeviceRow, Environment, Epoch, GroupId, GroupRow, Lineage, LineageEntry, MessageId,
    MessageRow, MessageState, Millis, Partition, Priority, Row, Seq, SetBy, ShardId, Tag, Variant,
    World,
};

pub(crate) const HOUR: u64 = 60 * 60 * 1000;
pub(crate) const APP: AppId = AppId::new(0xa1);
pub(crate) const COUNTRY: AttributeId = AttributeId::new(0xb1);
pub(crate) const AGE: AttributeId = AttributeId::new(0xb2);

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % end
    }
}

pub(crate) fn lineage() -> Lineage {
    let epoch = Epoch { number: 1, tag: 1 };
    let line = LineageEntry { epoch, began_after: Seq::ZERO, fork: false };
    Lineage::try_new(vec![line]).expect("one line")
}

pub(crate) fn app(id: AppId) -> Change {
    Change::App(Arc::new(AppRow {
        id,
        name: format!("app {id}").into(),
        environment: Environment::Sandbox,
        publishable_key: format!("pk {id}").into(),
        created_at: Millis(0),
        quotas: crate::Quotas::default(),
        push: None,
    }))
}

pub(crate) fn attribute(id: AttributeId, name: &str, kind: Type) -> Change {
    let (app, name) = (APP, name.into());
    Change::Attribute(Arc::new(AttributeRow { id, app, name, kind, set_by: SetBy::Both }))
}

pub(crate) fn group(id: u64, name: &str) -> Change {
    let (id, app, name) = (GroupId::new(id), APP, name.into());
    Change::Group(Arc::new(GroupRow { id, app, name, set_by: SetBy::Server }))
}

pub(crate) fn device(id: u64, groups: &[u64], country: Option<&str>, age: Option<u32>) -> Change {
    let country = country.map(|text| (COUNTRY, Value::String(text.into())));
    let number = |n| Number::try_new(f64::from(n)).expect("finite");
    let age = age.map(|n| (AGE, Value::Number(number(n))));
    Change::Device(Arc::new(DeviceRow {
        id: DeviceId::new(id),
        app: APP,
        generation: Seq::new(1),
        p: Seq::new(1),
        created_at: Millis(0),
        user: None,
        attributes: country.into_iter().chain(age).collect(),
        groups: groups.iter().map(|id| GroupId::new(*id)).collect(),
        private: None,
        last_seen: Millis::ZERO,
    }))
}

pub(crate) fn message(id: u64, to: &str) -> Change {
    message_in(id, to, MessageState::Active)
}

pub(crate) fn message_in(id: u64, to: &str, state: MessageState) -> Change {
    Change::Message(Arc::new(MessageRow {
        id: MessageId::new(id),
        app: APP,
        revision: 1,
        state,
        to: to.into(),
        priority: Priority::Normal,
        collapse_key: None,
        created_at: Millis(0),
        not_before: None,
        expires_at: Millis(9),
        push: None,
        variants: vec![Variant {
            selector: None,
            tag: Tag::new(id),
            wire: Bytes::from(format!("{id}")),
        }],
    }))
}

pub(crate) fn state(id: u64, state: MessageState) -> Change {
    Change::MessageState { app: APP, id: MessageId::new(id), state }
}

pub(crate) fn purge(horizon: u64) -> Change {
    Change::Purge { horizon: Seq::new(horizon) }
}

/// The app, its attributes `country` and `age`, its groups 1 to 3: at seq 6.
pub(crate) fn world() -> World {
    let mut world = World::empty(ShardId::FIRST, lineage());
    let groups = (1..=3).map(|n| group(n, &format!("g{n}")));
    let mut changes = vec![
        app(APP),
        attribute(COUNTRY, "country", Type::String),
        attribute(AGE, "age", Type::Number),
    ];
    changes.extend(groups);
    commit(&mut world, changes);
    world
}

pub(crate) fn commit(world: &mut World, changes: Vec<Change>) -> crate::Applied {
    world.apply(&Batch { first: world.seq().next(), changes }).expect("fits")
}

pub(crate) fn row(world: &World, id: u64) -> Arc<DeviceRow> {
    let device = world.app(APP).and_then(|app| app.device(DeviceId::new(id)));
    device.expect("it is there").clone()
}

/// `#:…`: the stored form of a group's name.
pub(crate) fn stored(group: u64) -> String {
    format!("#:{}", GroupId::new(group))
}

/// `@:…`: the stored form of an audience's name.
pub(crate) fn at(audience: u64) -> String {
    format!("@:{}", AudienceId::new(audience))
}

/// Says what it said before under another name, or something else from the next seq on.
pub(crate) fn audience(world: &World, id: u64, expression: &str, name: &str) -> Change {
    let id = AudienceId::new(id);
    let before = world.app(APP).and_then(|app| app.audience(id)).map(|before| before.row());
    let same = before.filter(|before| &*before.expression == expression);
    Change::Audience(Arc::new(AudienceRow {
        id,
        app: APP,
        name: name.into(),
        revision: before.map_or(1, |before| before.revision + 1),
        from: same.map_or(world.seq().next(), |before| before.from),
        expression: expression.into(),
    }))
}

/// What every retained revision of a message and of an audience says of every device, with what leads to them.
fn told(world: &World) -> Vec<String> {
    let mut told = vec![format!("{:?}", world.usage())];
    for app in world.apps() {
        for message in app.messages_after(None) {
            for revision in message.revisions() {
                let tags = app.devices().map(|device| revision.addresses(device, world.clock()));
                let (id, from) = (message.row().id, revision.from());
                let active = revision.is_active();
                told.push(format!("{id} {from} {active} {:?}", tags.collect::<Vec<_>>()));
            }
        }
        for audience in app.audiences_after(None) {
            let id = audience.row().id;
            for said in audience.revisions() {
                let fits = app.devices().map(|device| said.expression().matches(&**device));
                told.push(format!("{id} {} {:?}", said.from(), fits.collect::<Vec<_>>()));
            }
            told.push(format!("{id} {:?}", app.audience_messages(id)));
        }
        let changes: Vec<_> = app.records().after(world.horizon()).collect();
        told.push(format!("{changes:?}"));
        told.extend(app.devices().map(|device| format!("{:?}", app.index().candidates(device))));
    }
    told
}

/// Fails at the first thing that two worlds say otherwise.
#[track_caller]
pub(crate) fn assert_alike(a: &World, b: &World, when: &str) {
    let (a, b) = (told(a), told(b));
    let differ = a.iter().zip(&b).find(|(a, b)| a != b);
    assert!(differ.is_none() && a.len() == b.len(), "{when}: {differ:#?}");
}

/// All rows, partition by partition.
pub(crate) fn rows(world: &World) -> Vec<Row> {
    Partition::all().flat_map(|partition| world.partition_rows(partition)).collect()
}

/// A change that fits `world` and would not fit every other: any kind, in any state of its life.
pub(crate) fn random_change(random: &mut Random, world: &World) -> Change {
    let app = world.app(APP).expect("it is there");
    let some = |random: &mut Random| {
        let live = app.messages_after(None).filter(|message| {
            !matches!(message.row().state, MessageState::Recalled | MessageState::Expired)
        });
        let live: Vec<u64> = live.map(|message| message.row().id.get()).collect();
        (!live.is_empty()).then(|| live[random.below(live.len() as u64) as usize])
    };
    match random.below(16) {
        13 => Change::Clock { at: Millis(random.below(100) * HOUR) },
        14 | 15 => {
            let devices = (0..4).map(|_| DeviceId::new(random.below(12))).collect();
            Change::Seen { app: APP, at: Millis(random.below(100) * HOUR), devices }
        }
        0 => Change::DeviceGone { app: APP, id: DeviceId::new(random.below(12)) },
        1 => purge(world.seq().get().saturating_sub(random.below(40))),
        2..5 => {
            let groups: Vec<u64> = (1..=3).filter(|_| random.below(2) == 0).collect();
            let country = [None, Some("KE"), Some("SE")][random.below(3) as usize];
            let age = [None, Some(1), Some(2)][random.below(3) as usize];
            device(random.below(12), &groups, country, age)
        }
        10..12 => random_audience(random, world, app),
        12 => {
            let gone = app.audiences_after(None).map(|of| of.row().id);
            let gone = gone.into_iter().find(|id| app.references_audience(*id).is_empty());
            match gone {
                Some(id) => Change::AudienceGone { app: APP, id },
                None => random_audience(random, world, app),
            }
        }
        5 if let Some(ended) = app
            .messages_after(None)
            .find(|message| message.row().state == MessageState::Expired) =>
        {
            state(ended.row().id.get(), MessageState::Recalled)
        }
        5 | 6 => match some(random) {
            Some(id) => {
                let to = [MessageState::Active, MessageState::Expired, MessageState::Recalled];
                state(id, to[random.below(3) as usize])
            }
            None => message(world.seq().get() + 1_000, "all"),
        },
        _ => {
            let id = some(random).filter(|_| random.below(2) == 0);
            let id = id.unwrap_or_else(|| world.seq().get() + 1_000);
            let state = [MessageState::Active, MessageState::Scheduled][random.below(2) as usize];
            let names: Vec<u64> = app.audiences_after(None).map(|of| of.row().id.get()).collect();
            let to = random_text(random, &names);
            let Change::Message(row) = message_in(id, &to, state) else {
                unreachable!("it is a message")
            };
            let mut row = MessageRow::clone(&row);
            if random.below(3) == 0 {
                let selector = Some(random_text(random, &names).into());
                let first = Variant { selector, tag: Tag::new(id + 1), ..row.variants[0].clone() };
                row.variants.insert(0, first);
            }
            Change::Message(Arc::new(row))
        }
    }
}

/// A new audience, an edit or a rename. At most five, which may use each other.
fn random_audience(random: &mut Random, world: &World, app: &App) -> Change {
    let ids: Vec<u64> = app.audiences_after(None).map(|of| of.row().id.get()).collect();
    let known = (!ids.is_empty() && (ids.len() >= 5 || random.below(2) == 0))
        .then(|| ids[random.below(ids.len() as u64) as usize]);
    let Some(id) = known else {
        let id = world.seq().get() + 5_000;
        return audience(world, id, &random_text(random, &ids), &format!("a{id}"));
    };
    let present = app.audience(AudienceId::new(id)).expect("it is there");
    if random.below(4) == 0 {
        let name = format!("a{id}-{}", world.seq());
        return audience(world, id, &present.row().expression, &name);
    }
    let uses_it = |other: &&u64| {
        let other = app.audience(AudienceId::new(**other)).expect("it is there");
        other.expression().audiences().contains(&AudienceId::new(id))
    };
    let others: Vec<u64> =
        ids.iter().filter(|other| **other != id && !uses_it(other)).copied().collect();
    audience(world, id, &random_text(random, &others), &present.row().name)
}

/// In stored form.
pub(crate) fn random_expression(random: &mut Random) -> String {
    random_text(random, &[])
}

/// In stored form; it may use these audiences.
fn random_text(random: &mut Random, audiences: &[u64]) -> String {
    let atom = |random: &mut Random| {
        let atom = match random.below(if audiences.is_empty() { 8 } else { 12 }) {
            8.. => at(audiences[random.below(audiences.len() as u64) as usize]),
            4 => "last_seen within 5h".to_owned(),
            5 => "user in (\"u\", \"v\") or device(\"0000000000000001\")".to_owned(),
            0 => "all".to_owned(),
            1 => format!(":{COUNTRY} == \"KE\""),
            2 => format!(":{COUNTRY} in (\"KE\", \"SE\")"),
            3 => format!(":{AGE} > 1"),
            _ => stored(1 + random.below(3)),
        };
        if random.below(4) == 0 { format!("not {atom}") } else { atom }
    };
    let (a, b) = (atom(random), atom(random));
    match random.below(3) {
        0 => a,
        1 => format!("{a} and {b}"),
        _ => format!("{a} or {b}"),
    }
}
