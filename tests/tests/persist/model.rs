//! The oracle: what a store must hold after a history, and random histories to make it hold much.
//!
//! Deliberately plain: maps, and the rules of each change written out once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use carillon_expr::{Number, Type, Value};
use carillon_world::{
    AppId, AppRow, AttributeId, AttributeRow, AudienceId, AudienceRecord, AudienceRow, Batch,
    Change, DeviceId, DevicePrivate, DeviceRow, Environment, GroupId, GroupRow, MessageId,
    MessageRow, MessageState, Millis, Priority, PushChannel, PushToken, Quotas, RevisionRecord,
    Row, SecretHash, Seq, SetBy, Tag, Variant,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// A row or a tombstone, with the seq of its last change.
type Kept<T> = (Option<Arc<T>>, Seq);

#[derive(Clone, Debug)]
pub(crate) struct KeptMessage {
    pub(crate) row: MessageRow,
    pub(crate) changed: Seq,
    pub(crate) revisions: Vec<RevisionRecord>,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) head: Seq,
    pub(crate) horizon: Seq,
    pub(crate) clock: Millis,
    pub(crate) apps: BTreeMap<AppId, Arc<AppRow>>,
    pub(crate) attributes: BTreeMap<(AppId, AttributeId), Kept<AttributeRow>>,
    pub(crate) groups: BTreeMap<(AppId, GroupId), Kept<GroupRow>>,
    pub(crate) audiences: BTreeMap<(AppId, AudienceId), Kept<AudienceRow>>,
    pub(crate) said: BTreeMap<(AppId, AudienceId), Vec<AudienceRecord>>,
    pub(crate) devices: BTreeMap<(AppId, DeviceId), Kept<DeviceRow>>,
    pub(crate) messages: BTreeMap<(AppId, MessageId), KeptMessage>,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            head: Seq::ZERO,
            horizon: Seq::ZERO,
            clock: Millis::ZERO,
            apps: BTreeMap::new(),
            attributes: BTreeMap::new(),
            groups: BTreeMap::new(),
            audiences: BTreeMap::new(),
            said: BTreeMap::new(),
            devices: BTreeMap::new(),
            messages: BTreeMap::new(),
        }
    }
}

impl Model {
    pub(crate) fn apply_batch(&mut self, batch: &Batch) {
        for (seq, change) in batch.numbered() {
            self.apply(seq, change);
        }
    }

    fn apply(&mut self, seq: Seq, change: &Change) {
        self.head = seq;
        match change {
            Change::App(row) => drop(self.apps.insert(row.id, row.clone())),
            Change::Attribute(row) => {
                drop(self.attributes.insert((row.app, row.id), (Some(row.clone()), seq)))
            }
            Change::AttributeGone { app, id } => {
                drop(self.attributes.insert((*app, *id), (None, seq)))
            }
            Change::Group(row) => {
                drop(self.groups.insert((row.app, row.id), (Some(row.clone()), seq)))
            }
            Change::GroupGone { app, id } => drop(self.groups.insert((*app, *id), (None, seq))),
            Change::Audience(row) => {
                let said = self.said.entry((row.app, row.id)).or_default();
                if said.last().is_none_or(|last| last.expression != row.expression) {
                    said.push(AudienceRecord { from: seq, expression: row.expression.clone() });
                }
                drop(self.audiences.insert((row.app, row.id), (Some(row.clone()), seq)))
            }
            Change::AudienceGone { app, id } => {
                drop(self.audiences.insert((*app, *id), (None, seq)))
            }
            Change::Device(row) => {
                let before = self.devices.get(&(row.app, row.id)).and_then(|(row, _)| row.as_ref());
                let last_seen = before.map_or(Millis::ZERO, |before| before.last_seen);
                let row = Arc::new(DeviceRow { last_seen, ..DeviceRow::clone(row) });
                drop(self.devices.insert((row.app, row.id), (Some(row), seq)))
            }
            Change::Seen { app, at, devices } => {
                for id in devices {
                    let (row, _) = self.devices.get_mut(&(*app, *id)).expect("it is there");
                    let row = row.as_mut().expect("it is there");
                    *row = Arc::new(DeviceRow { last_seen: *at, ..DeviceRow::clone(row) });
                }
            }
            Change::Clock { at } => self.clock = self.clock.max(*at),
            Change::DeviceGone { app, id } => drop(self.devices.insert((*app, *id), (None, seq))),
            Change::Message(row) => {
                let before = self.messages.remove(&(row.app, row.id));
                let mut revisions = before.map(|message| message.revisions).unwrap_or_default();
                revisions.push(RevisionRecord::of(row, seq));
                let kept = KeptMessage { row: MessageRow::clone(row), changed: seq, revisions };
                self.messages.insert((row.app, row.id), kept);
            }
            Change::MessageState { app, id, state } => {
                let kept = self
                    .messages
                    .get_mut(&(*app, *id))
                    .expect("the history names messages that are there");
                kept.row.state = *state;
                kept.changed = seq;
                kept.revisions.push(RevisionRecord::of(&kept.row, seq));
            }
            Change::Purge { horizon } => self.purge(*horizon),
        }
    }

    fn purge(&mut self, horizon: Seq) {
        self.horizon = self.horizon.max(horizon);
        self.attributes.retain(|_, (row, seq)| row.is_some() || *seq > horizon);
        self.groups.retain(|_, (row, seq)| row.is_some() || *seq > horizon);
        self.audiences.retain(|_, (row, seq)| row.is_some() || *seq > horizon);
        self.said.retain(|key, _| self.audiences.contains_key(key));
        for said in self.said.values_mut() {
            let in_force = said.iter().rposition(|record| record.from <= horizon).unwrap_or(0);
            said.drain(..in_force);
        }
        self.devices.retain(|_, (row, seq)| row.is_some() || *seq > horizon);
        self.messages.retain(|_, message| {
            let ended = matches!(message.row.state, MessageState::Expired | MessageState::Recalled);
            !ended || message.changed > horizon
        });
        for message in self.messages.values_mut() {
            let in_force = message
                .revisions
                .iter()
                .rposition(|revision| revision.from <= horizon)
                .unwrap_or(0);
            message.revisions.drain(..in_force);
        }
    }

    /// The audiences that are not gone.
    fn there(&self) -> Vec<(AppId, AudienceId)> {
        self.audiences.iter().filter(|(_, (row, _))| row.is_some()).map(|(key, _)| *key).collect()
    }

    /// All rows, in the order of [`sorted`].
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.apps.values().cloned().map(Row::App).collect();
        rows.extend(
            self.attributes.values().filter_map(|(row, _)| row.clone()).map(Row::Attribute),
        );
        rows.extend(self.groups.values().filter_map(|(row, _)| row.clone()).map(Row::Group));
        rows.extend(self.audiences.iter().filter_map(|(key, (row, _))| {
            let records = self.said[key].clone();
            row.clone().map(|row| Row::Audience { row, records })
        }));
        rows.extend(self.devices.values().filter_map(|(row, _)| row.clone()).map(Row::Device));
        rows.extend(self.messages.values().map(|message| Row::Message {
            row: Arc::new(message.row.clone()),
            revisions: message.revisions.clone(),
        }));
        if self.clock > Millis::ZERO {
            rows.push(Row::Clock { at: self.clock });
        }
        sorted(rows)
    }

    /// Of the live rows and of the tombstones of each table that has them: how many, and the sum of their seqs.
    pub(crate) fn footprint(&self) -> Vec<(&'static str, bool, u64, u64)> {
        fn of<K, T>(
            name: &'static str,
            kept: &BTreeMap<K, Kept<T>>,
        ) -> [(&'static str, bool, u64, u64); 2] {
            [false, true].map(|deleted| {
                let seqs = kept
                    .values()
                    .filter(|(row, _)| row.is_none() == deleted)
                    .map(|(_, seq)| seq.get());
                (name, deleted, seqs.clone().count() as u64, seqs.sum())
            })
        }
        let attributes = of("attributes", &self.attributes);
        let groups = of("app_groups", &self.groups);
        let audiences = of("audiences", &self.audiences);
        [attributes, groups, audiences, of("devices", &self.devices)].concat()
    }

    /// The lines of the `memberships` view.
    pub(crate) fn memberships(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for device in self.devices.values().filter_map(|(row, _)| row.as_ref()) {
            for group in &device.groups {
                let name = match self.groups.get(&(device.app, *group)) {
                    Some((Some(row), _)) => row.name.to_string(),
                    _ => "NULL".to_owned(),
                };
                lines.push(format!("{}\t{}\t{group}\t{name}", device.app, device.id));
            }
        }
        lines.sort();
        lines
    }
}

pub(crate) fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| match row {
        Row::App(row) => (0, row.id.get(), 0),
        Row::Attribute(row) => (1, row.app.get(), row.id.get()),
        Row::Group(row) => (2, row.app.get(), row.id.get()),
        Row::Device(row) => (3, row.app.get(), row.id.get()),
        Row::Message { row, .. } => (4, row.app.get(), row.id.get()),
        Row::Audience { row, .. } => (5, row.app.get(), row.id.get()),
        Row::Clock { .. } => (6, 0, 0),
    });
    rows
}

/// Texts that break careless SQL and JSON.
pub(crate) const TEXTS: [&str; 14] = [
    "",
    "plain",
    "it's",
    "a \"quoted\" word",
    "back\\slash",
    "ends with a backslash\\",
    "\\'; DROP TABLE devices; --",
    "emoji 🎉 and ünïcödé and 漢字",
    "tab\tnewline\ncarriage\rbell\u{7}unit\u{1f}",
    "\u{1a}control-z",
    "trailing spaces  ",
    "{\"json\":[1,null]}",
    "%_ like? $1 :name @var #hash /* comment */ -- x",
    "\u{feff}bom and \u{202e}override",
];

/// Makes histories that only depend on their seed.
#[derive(Debug)]
pub(crate) struct Generator {
    pub(crate) random: StdRng,
    /// What was made so far; the caller applies each batch to its own.
    model: Model,
    /// How often each kind of change was made.
    pub(crate) made: BTreeMap<&'static str, u32>,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Generator {
        Generator {
            random: StdRng::seed_from_u64(seed),
            model: Model::default(),
            made: BTreeMap::new(),
        }
    }

    /// The next batch of the history: 1 to `changes_max` changes.
    pub(crate) fn batch(&mut self, changes_max: usize) -> Arc<Batch> {
        let first = self.model.head.next();
        let mut changes = Vec::new();
        for _ in 0..self.random.random_range(1..=changes_max) {
            let (kind, change) = self.change();
            *self.made.entry(kind).or_default() += 1;
            self.model.apply(self.model.head.next(), &change);
            changes.push(change);
        }
        Arc::new(Batch { first, changes })
    }

    /// A batch of `count` devices: fresh ones, or if `gone` the removal of as many as there are.
    pub(crate) fn devices(&mut self, count: usize, gone: bool) -> Arc<Batch> {
        let first = self.model.head.next();
        let made = if self.model.apps.is_empty() { Some(self.app_change().1) } else { None };
        let app = match &made {
            Some(Change::App(row)) => row.id,
            _ => self.app(),
        };
        let there: Vec<_> = self
            .model
            .devices
            .iter()
            .filter(|(_, (row, _))| row.is_some())
            .map(|(key, _)| *key)
            .collect();
        let changes: Vec<Change> = if gone {
            there.into_iter().take(count).map(|(app, id)| Change::DeviceGone { app, id }).collect()
        } else {
            let devices = count - usize::from(made.is_some());
            let devices = (0..devices).map(|_| {
                let id = DeviceId::new(self.random.random());
                self.device(app, id)
            });
            made.into_iter().chain(devices).collect()
        };
        let batch = Batch { first, changes };
        self.model.apply_batch(&batch);
        Arc::new(batch)
    }

    fn change(&mut self) -> (&'static str, Change) {
        if self.model.apps.is_empty() {
            return self.app_change();
        }
        match self.random.random_range(0..112) {
            0..2 => self.app_change(),
            2..8 => ("attribute", self.attribute()),
            8..10 => match self.pick(|model| model.attributes.keys().copied().collect()) {
                Some((app, id)) => ("attribute gone", Change::AttributeGone { app, id }),
                None => ("attribute", self.attribute()),
            },
            10..18 => ("group", self.group()),
            18..20 => match self.pick(|model| model.groups.keys().copied().collect()) {
                Some((app, id)) => ("group gone", Change::GroupGone { app, id }),
                None => ("group", self.group()),
            },
            20..35 => {
                let (app, id) = (self.app(), DeviceId::new(self.random.random()));
                ("device", self.device(app, id))
            }
            // Also of devices that are gone: they come back.
            35..55 => match self.pick(|model| model.devices.keys().copied().collect()) {
                Some((app, id)) => ("device again", self.device(app, id)),
                None => self.app_change(),
            },
            55..65 => match self.pick(|model| model.devices.keys().copied().collect()) {
                Some((app, id)) => ("device gone", Change::DeviceGone { app, id }),
                None => self.app_change(),
            },
            65..75 => {
                let (app, id) = (self.app(), MessageId::new(self.random.random()));
                ("message", self.message(app, id, 1))
            }
            75..83 => match self.pick(|model| model.messages.keys().copied().collect()) {
                Some((app, id)) => {
                    let revision = self.model.messages[&(app, id)].row.revision + 1;
                    ("edit", self.message(app, id, revision))
                }
                None => self.app_change(),
            },
            83..97 => match self.pick(|model| model.messages.keys().copied().collect()) {
                Some((app, id)) => {
                    let states = [
                        MessageState::Scheduled,
                        MessageState::Active,
                        MessageState::Expired,
                        MessageState::Recalled,
                    ];
                    ("state", Change::MessageState { app, id, state: self.one_of(&states) })
                }
                None => self.app_change(),
            },
            100..104 => ("audience", self.audience()),
            104..106 => match self.pick(|model| model.there()) {
                Some((app, id)) => ("audience gone", Change::AudienceGone { app, id }),
                None => ("audience", self.audience()),
            },
            106..108 => ("clock", Change::Clock { at: self.time() }),
            108.. => self.seen(),
            _ => {
                let horizon = self.random.random_range(0..=self.model.head.get());
                ("purge", Change::Purge { horizon: Seq::new(horizon) })
            }
        }
    }

    /// Some devices of one app, later than any of them was seen before.
    fn seen(&mut self) -> (&'static str, Change) {
        let app = self.app();
        let there = self.model.devices.values().filter_map(|(row, _)| row.clone());
        let there: Vec<_> = there.filter(|row| row.app == app).collect();
        let some: Vec<_> = there.choose_multiple(&mut self.random, 3).collect();
        let last = some.iter().map(|row| row.last_seen.hour()).max();
        let Some(last) = last else { return self.app_change() };
        let at = Millis::of_hour(last + self.random.random_range(1..5));
        let devices = some.into_iter().map(|row| row.id).collect();
        ("seen", Change::Seen { app, at, devices })
    }

    fn app_change(&mut self) -> (&'static str, Change) {
        let there: Vec<AppId> = self.model.apps.keys().copied().collect();
        let id = match there.choose(&mut self.random) {
            Some(id) if there.len() >= 3 => *id,
            _ => AppId::new(self.random.random()),
        };
        let row = AppRow {
            id,
            name: self.text(),
            environment: self.one_of(&[Environment::Sandbox, Environment::Production]),
            publishable_key: format!("pk_{:x}", self.random.random::<u64>()).into(),
            created_at: self.time(),
            push: None,
            quotas: Quotas {
                devices_max: self.random.random_bool(0.3).then(|| self.random.random()),
                groups_max: self.random.random_bool(0.3).then_some(0),
                live_messages_max: self.random.random_bool(0.3).then_some(1_000),
                bodies_bytes_max: self.random.random_bool(0.3).then_some(u64::MAX),
            },
        };
        ("app", Change::App(Arc::new(row)))
    }

    fn attribute(&mut self) -> Change {
        let id = AttributeId::new(self.random.random());
        let (app, name) = (self.app(), self.text());
        let (kind, set_by) = (self.one_of(&Type::ALL), self.set_by());
        Change::Attribute(Arc::new(AttributeRow { id, app, name, kind, set_by }))
    }

    fn group(&mut self) -> Change {
        let id = GroupId::new(self.random.random());
        // The view is compared line by line.
        let name = format!("group-{:x}", self.random.random::<u16>()).into();
        Change::Group(Arc::new(GroupRow { id, app: self.app(), name, set_by: self.set_by() }))
    }

    /// A new one, an edit or a rename; none comes back.
    fn audience(&mut self) -> Change {
        let known = self.pick(|model| model.there()).filter(|_| self.random.random_bool(0.7));
        let (app, id) =
            known.unwrap_or_else(|| (self.app(), AudienceId::new(self.random.random())));
        let before = match self.model.audiences.get(&(app, id)) {
            Some((Some(row), _)) => Some(row.clone()),
            _ => None,
        };
        let same = before.as_ref().filter(|_| self.random.random_bool(0.3));
        let expression = same.map_or_else(|| self.text(), |before| before.expression.clone());
        let unchanged = before.as_ref().filter(|before| before.expression == expression);
        let from = unchanged.map_or(self.model.head.next(), |before| before.from);
        let revision = before.as_ref().map_or(1, |before| before.revision + 1);
        Change::Audience(Arc::new(AudienceRow {
            id,
            app,
            name: self.text(),
            revision,
            from,
            expression,
        }))
    }

    fn device(&mut self, app: AppId, id: DeviceId) -> Change {
        let mut attributes: Vec<(AttributeId, Value)> = (0..self.random.random_range(0..5))
            .map(|_| (AttributeId::new(self.random.random()), self.value()))
            .collect();
        attributes.sort_by_key(|(id, _)| *id);
        let known: Vec<GroupId> =
            self.model.groups.keys().filter(|(of, _)| *of == app).map(|(_, id)| *id).collect();
        let mut groups: Vec<GroupId> =
            known.choose_multiple(&mut self.random, 3).copied().collect();
        if self.random.random_ratio(1, 8) {
            groups.push(GroupId::new(self.random.random()));
        }
        groups.sort();
        let tokens = (0..self.random.random_range(0..3))
            .map(|_| PushToken {
                channel: self.one_of(&[PushChannel::Apns, PushChannel::Fcm, PushChannel::WebPush]),
                token: self.text(),
            })
            .collect();
        let secret = self.random.random_bool(0.5).then(|| SecretHash(self.random.random()));
        Change::Device(Arc::new(DeviceRow {
            id,
            app,
            generation: Seq::new(self.random.random_range(0..=self.model.head.get())),
            p: Seq::new(self.random.random_range(0..=self.model.head.get())),
            created_at: self.time(),
            user: self.random.random_bool(0.5).then(|| self.text()),
            attributes: attributes.into(),
            groups: groups.into(),
            private: self
                .random
                .random_bool(0.8)
                .then(|| Box::new(DevicePrivate { secret, tokens })),
            last_seen: Millis::ZERO,
        }))
    }

    fn message(&mut self, app: AppId, id: MessageId, revision: u32) -> Change {
        let priority = self.one_of(&[Priority::Low, Priority::Normal, Priority::High]);
        let expires_at = self.time();
        let variants = (0..self.random.random_range(1..3))
            .map(|_| {
                let text: String = (0..4).map(|_| self.text().to_string()).collect();
                // A body of unusual form, which must come back as it is.
                let quoted = serde_json::to_string(&text).unwrap();
                let body =
                    format!("{{ \"z\": 1.50,\"a\":[ ] ,\"a\":\"\\u00e9\\/\", \"text\":{quoted}}}");
                let tag = Tag::of(body.as_bytes(), priority, expires_at);
                let wire = format!(r#"{{"id":"{id}","tag":"{tag}","priority":"x","body":{body}}}"#);
                let selector = self.random.random_bool(0.3).then(|| self.text());
                Variant { selector, tag, wire: Bytes::from(wire) }
            })
            .collect();
        Change::Message(Arc::new(MessageRow {
            id,
            app,
            revision,
            state: self.one_of(&[MessageState::Scheduled, MessageState::Active]),
            to: self.text(),
            priority,
            collapse_key: self.random.random_bool(0.3).then(|| self.text()),
            created_at: self.time(),
            not_before: self.random.random_bool(0.5).then(|| self.time()),
            expires_at,
            push: None,
            variants,
        }))
    }

    fn value(&mut self) -> Value {
        match self.random.random_range(0..4) {
            0 => Value::String(self.text()),
            1 => {
                let numbers =
                    [0.0, -1.5, 1e17, 1e-7, f64::MAX, f64::MIN_POSITIVE, self.random.random()];
                Value::Number(Number::try_new(self.one_of(&numbers)).unwrap())
            }
            2 => Value::Bool(self.random.random()),
            _ => Value::Version(
                format!("{}.{}", self.random.random::<u32>(), self.random.random::<u8>())
                    .parse()
                    .unwrap(),
            ),
        }
    }

    fn app(&mut self) -> AppId {
        if self.model.apps.is_empty() {
            return AppId::new(1);
        }
        self.pick(|model| model.apps.keys().copied().collect()).unwrap()
    }

    fn set_by(&mut self) -> SetBy {
        self.one_of(&[SetBy::Server, SetBy::Device, SetBy::Both])
    }

    fn text(&mut self) -> Arc<str> {
        self.one_of(&TEXTS).into()
    }

    fn time(&mut self) -> Millis {
        Millis(self.random.random_range(0..1 << 42))
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.random).unwrap()
    }

    fn pick<K: Copy>(&mut self, keys: impl FnOnce(&Model) -> Vec<K>) -> Option<K> {
        keys(&self.model).choose(&mut self.random).copied()
    }
}
