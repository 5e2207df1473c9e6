//! Who writes what: an admin who creates, edits and recalls messages and moves devices about, and devices that write
//! their own profiles. Calls of the admin are lost, late and repeated too.

use std::collections::BTreeMap;
use std::sync::Arc;

use carillon_central::core::input::{GroupRef, ImportLine, ProfileEdit};
use carillon_central::core::value::Given;
use carillon_central::core::write::{
    CreateMessage, EditMessage, IdempotencyKey, PutAudience, Write,
};

use carillon_client::{Command, ProfilePatch, Receipt, ReceiptKind, Secret};
use carillon_expr::{AttributeId, AudienceId, GroupId, Number, Type};
use carillon_world::{
    AppId, DeviceId, MessageId, MessageState, Millis, Priority, SecretHash, SetBy,
};

use crate::admin::AdminCall;
use crate::device::Client;
use crate::predicate::{Kind, Names, Parts, Plain, Predicate};
use crate::sim::{Event, Sim};

pub(crate) const APP: AppId = AppId::new(0xa);
/// Devices that never ask.
pub(crate) const SILENT: u64 = 6;
pub(crate) const SILENT_FROM: u64 = 0x1000;

/// At most so many audiences at a time, so that they use each other and messages use them.
const AUDIENCES: usize = 5;

/// (id, name, kind, who sets it). The fifth is a number that each of a device's own writes carries, the last a time that
/// the clock comes to while a run lasts.
pub(crate) const ATTRIBUTES: [(u64, &str, Kind, SetBy); 6] = [
    (0x11, "country", Kind::Text, SetBy::Both),
    (0x12, "level", Kind::Number, SetBy::Both),
    (0x13, "premium", Kind::Flag, SetBy::Server),
    (0x14, "release", Kind::Release, SetBy::Both),
    (0x15, "note", Kind::Number, SetBy::Both),
    (MOMENT, "moment", Kind::Moment, SetBy::Both),
];
pub(crate) const MOMENT: u64 = 0x16;
pub(crate) const NOTE: AttributeId = AttributeId::new(0x15);
pub(crate) const GROUPS: [(u64, &str, SetBy); 5] = [
    (0x21, "vip", SetBy::Server),
    (0x22, "staff", SetBy::Server),
    (0x23, "beta", SetBy::Both),
    (0x24, "news", SetBy::Both),
    (0x25, "late", SetBy::Server),
];

fn kinds() -> Vec<(u64, Kind)> {
    ATTRIBUTES[..4].iter().map(|&(id, _, kind, _)| (id, kind)).collect()
}

fn scalar(value: &Plain) -> Given {
    match value {
        Plain::Number(n) => Given::Number(Number::try_new(*n as f64).expect("finite")),
        Plain::Flag(flag) => Given::Bool(*flag),
        Plain::Text(_) | Plain::Release(..) | Plain::Moment(_) => {
            Given::String(value.json().as_str().expect("text").into())
        }
    }
}

impl Sim {
    pub(crate) fn import_line(&mut self, id: DeviceId) -> ImportLine {
        let mut attributes = Vec::new();
        for (_, name, kind, _) in ATTRIBUTES[..4].iter().chain(&ATTRIBUTES[5..]) {
            if self.random.percent(60) {
                attributes.push(((*name).to_owned(), scalar(&kind.value(&mut self.random))));
            }
        }
        let some = |random: &mut crate::random::Random| random.percent(35);
        let groups = GROUPS.iter().filter(|_| some(&mut self.random));
        let groups = groups.map(|(id, ..)| GroupRef::Id(GroupId::new(*id))).collect();
        let user = self.random.percent(20).then(|| "someone".into());
        ImportLine { line: 1, id, secret: None, user, attributes, groups, tokens: None }
    }

    /// One write of somebody, and the next soon.
    pub(crate) fn work(&mut self) {
        if !self.works {
            return;
        }
        let pause = self.random.within(5, 350);
        self.after(pause, Event::Work);
        match self.random.below(100) {
            0..26 if self.oracle.active_messages() < 25 => self.create(),
            0..34 => self.recall(),
            34..58 => self.edit(),
            58..65 => self.move_members(),
            65..68 => self.flicker(),
            68..76 => self.patch_device(),
            76..78 => {
                let device = self.some_device();
                self.ask(Write::RevokeDevice { app: APP, device });
            }
            78..80 => {
                let device = self.some_device();
                self.ask(Write::DeleteDevice { app: APP, device });
            }
            80..83 => self.import(),
            83..86 => self.change_schema(),
            86..91 => self.change_audience(),
            91..97 => self.patch_self(),
            97 | 98 => self.send_receipt(),
            _ => {
                let which = self.random.index(self.clients.len());
                // A full outbox refuses; nothing follows then.
                let _ = self.clients[which].device.command(&Command::Forget);
                self.client_turn(which);
            }
        }
    }

    /// A whole profile, of a device that asks, of one that does not, or of one that is new.
    fn import(&mut self) {
        let which = self.random.index(self.clients.len());
        let client = &self.clients[which];
        let identity = client.device.saved().identity.clone();
        let line = match (identity, client.id()) {
            // With its secret: were the device deleted meanwhile, one that nobody can be would take its place.
            (Some(identity), Some(id)) if self.random.percent(50) => {
                let secret = Some(hash(&identity.secret));
                ImportLine { secret, ..self.import_line(DeviceId::new(id)) }
            }
            _ if self.random.percent(50) => {
                let id = SILENT_FROM + self.random.below(SILENT);
                self.import_line(DeviceId::new(id))
            }
            _ => {
                let id = DeviceId::new(self.random.draw());
                self.import_line(id)
            }
        };
        self.ask(Write::ImportDevices { app: APP, lines: vec![line] });
    }

    fn some_device(&mut self) -> DeviceId {
        let devices = self.oracle.devices();
        DeviceId::new(if devices.is_empty() { 1 } else { *self.random.pick(&devices) })
    }

    /// The names as the admin reads them; none while central is away, and then ids are written.
    fn names(&self) -> Option<Names> {
        let app = self.central.as_ref()?.world.app(APP)?;
        Some(Names {
            attributes: app.attributes().map(|row| (row.id.get(), row.name.to_string())).collect(),
            groups: app.groups().map(|row| (row.id.get(), row.name.to_string())).collect(),
            audiences: app
                .audiences_after(None)
                .map(|of| (of.row().id.get(), of.row().name.to_string()))
                .collect(),
        })
    }

    /// An expression, as text.
    fn expression(&mut self) -> String {
        let names = self.names();
        let groups: Vec<u64> = match &names {
            Some(names) if !names.groups.is_empty() => names.groups.keys().copied().collect(),
            _ => GROUPS.iter().map(|(id, ..)| *id).collect(),
        };
        let audiences: Vec<u64> =
            names.as_ref().map_or(Vec::new(), |names| names.audiences.keys().copied().collect());
        let parts = Parts { kinds: &kinds(), groups: &groups, audiences: &audiences };
        let predicate = Predicate::random(&mut self.random, &parts);
        self.oracle.expect_predicate(&predicate);
        predicate.text(names.as_ref())
    }

    /// A body with its number.
    fn body(&mut self) -> (u64, String) {
        let number = self.draw_number();
        let pad = match self.random.below(10) {
            0 => self.random.within(500, 2_000),
            _ => self.random.below(120),
        };
        let body = format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(pad as usize));
        self.oracle.expect_body(number, &body);
        (number, body)
    }

    fn window(&mut self) -> (Option<Millis>, Option<Millis>) {
        let now = self.clock();
        let soon = |random: &mut crate::random::Random| now.plus(random.within(500, 20_000));
        let start = self.random.percent(30).then(|| soon(&mut self.random));
        let end = self.random.percent(35).then(|| soon(&mut self.random).plus(5_000));
        (start, end)
    }

    fn create(&mut self) {
        let (number, body) = self.body();
        let (not_before, expires_at) = self.window();
        let mut request = [0; 32];
        request[..8].copy_from_slice(&number.to_be_bytes());
        let create = CreateMessage {
            app: APP,
            id: MessageId::new(self.random.draw()),
            key: Some(IdempotencyKey { key: format!("k{number}").into(), request }),
            to: self.expression(),
            body: body.into(),
            priority: *self.random.pick(&[Priority::Low, Priority::Normal, Priority::High]),
            collapse_key: None,
            not_before,
            expires_at,
            push: None,
        };
        let write = Write::CreateMessage(Box::new(create));
        self.call(AdminCall { write, created: Some(number), tries: 0 });
    }

    fn some_message(&mut self) -> Option<MessageId> {
        let open = [MessageState::Active, MessageState::Scheduled];
        let mut ids: Vec<u64> = Vec::new();
        for (id, _) in &self.acknowledged {
            let last = self.oracle.message(*id).and_then(|revisions| revisions.last());
            if last.is_some_and(|(_, r)| open.contains(&r.state)) || id.is_multiple_of(16) {
                ids.push(*id);
            }
        }
        (!ids.is_empty()).then(|| MessageId::new(*self.random.pick(&ids)))
    }

    fn recall(&mut self) {
        if let Some(id) = self.some_message() {
            self.ask(Write::RecallMessage { app: APP, id });
        }
    }

    fn edit(&mut self) {
        let Some(id) = self.some_message() else { return };
        let to = self.random.percent(60).then(|| self.expression());
        let body = self.random.percent(40).then(|| self.body().1.into());
        let (not_before, expires_at) = self.window();
        let edit = EditMessage {
            app: APP,
            id,
            if_match: self.random.percent(10).then_some(2),
            to,
            body,
            priority: None,
            not_before: not_before.filter(|_| self.random.percent(40)).map(Some),
            expires_at: expires_at.filter(|_| self.random.percent(40)),
            push: None,
        };
        self.ask(Write::EditMessage(Box::new(edit)));
    }

    fn move_members(&mut self) {
        let (id, ..) = *self.random.pick(&GROUPS);
        let devices = (0..self.random.within(1, 8)).map(|_| self.some_device()).collect();
        let (group, join) = (GroupRef::Id(GroupId::new(id)), self.random.percent(55));
        self.ask(Write::Members { app: APP, group, join, devices });
    }

    /// A group loses devices and gets them back at once: who looks in between must not think that nothing happened.
    fn flicker(&mut self) {
        let (id, ..) = *self.random.pick(&GROUPS);
        let devices: Vec<DeviceId> =
            self.clients.iter().filter_map(Client::id).map(DeviceId::new).collect();
        for (join, after) in [(false, 0), (true, self.random.within(20, 400))] {
            let (group, devices) = (GroupRef::Id(GroupId::new(id)), devices.clone());
            let write = Write::Members { app: APP, group, join, devices };
            self.call_after(after, AdminCall { write, created: None, tries: 0 });
        }
    }

    fn patch_device(&mut self) {
        let device = self.some_device();
        let which = *self.random.pick(&[0, 1, 2, 3, 5, 5]);
        let (_, name, kind, _) = ATTRIBUTES[which];
        let value = self.random.percent(75).then(|| scalar(&kind.value(&mut self.random)));
        let mut edit = ProfileEdit { attributes: vec![(name.into(), value)], ..Default::default() };
        if self.random.percent(40) {
            let (id, ..) = *self.random.pick(&GROUPS);
            edit.groups.push((GroupRef::Id(GroupId::new(id)), self.random.percent(50)));
        }
        self.ask(Write::PatchDevice { app: APP, device, edit });
    }

    /// Groups come, are renamed and go; attributes come and go. Names are never used again for another.
    fn change_schema(&mut self) {
        let fresh = format!("g{}", self.draw_number());
        let known: Vec<u64> = self.names().map_or(Vec::new(), |n| n.groups.into_keys().collect());
        let some = |random: &mut crate::random::Random| {
            GroupRef::Id(GroupId::new(if known.is_empty() { 1 } else { *random.pick(&known) }))
        };
        let write = match self.random.below(5) {
            0 | 1 => {
                let (id, name) = (GroupId::new(self.random.draw()), fresh.into());
                Write::CreateGroup { app: APP, id, name, set_by: SetBy::Both }
            }
            2 => {
                let group = some(&mut self.random);
                // Those that devices name in their own requests keep their names.
                let fixed = |of: &u64| group == GroupRef::Id(GroupId::new(*of));
                if GROUPS.iter().any(|(id, ..)| fixed(id)) {
                    return;
                }
                Write::RenameGroup { app: APP, group, name: fresh.into() }
            }
            3 => Write::DeleteGroup { app: APP, group: some(&mut self.random) },
            _ => {
                let (id, name) = (AttributeId::new(self.random.draw()), fresh.into());
                let (kind, set_by) = (Type::Bool, SetBy::Server);
                Write::DeclareAttribute { app: APP, id, name, kind, set_by }
            }
        };
        self.ask(write);
    }

    /// Audiences come, are edited and renamed, and go, where nothing uses them; what would be a cycle is refused.
    fn change_audience(&mut self) {
        let fresh: Arc<str> = format!("a{}", self.draw_number()).into();
        let known: Vec<String> =
            self.names().map_or(Vec::new(), |names| names.audiences.into_values().collect());
        let some = |random: &mut crate::random::Random| -> Option<Arc<str>> {
            (!known.is_empty()).then(|| random.pick(&known).as_str().into())
        };
        let edited = some(&mut self.random);
        let write = match (self.random.below(12), edited) {
            (0, Some(audience)) => {
                Write::RenameAudience { app: APP, audience, name: fresh, if_match: None }
            }
            (1, Some(audience)) => Write::DeleteAudience { app: APP, audience, if_match: None },
            (draw, edited) => {
                let known = edited.filter(|_| known.len() >= AUDIENCES || draw < 9);
                let put = PutAudience {
                    app: APP,
                    id: AudienceId::new(self.random.draw()),
                    name: known.unwrap_or(fresh),
                    expression: self.expression(),
                    if_match: self.random.percent(5).then_some(2),
                };
                Write::PutAudience(Box::new(put))
            }
        };
        self.ask(write);
    }

    /// A device writes its own profile.
    fn patch_self(&mut self) {
        let which = self.random.index(self.clients.len());
        let number = self.draw_number();
        let mut attributes = BTreeMap::from([("note".to_owned(), Some(number.into()))]);
        let &(_, name, kind, set_by) = self.random.pick(&ATTRIBUTES[..4]);
        if set_by.device() && self.random.percent(70) {
            let value = self.random.percent(80).then(|| kind.value(&mut self.random).json());
            attributes.insert(name.to_owned(), value);
        }
        let mut groups = BTreeMap::new();
        if self.random.percent(50) {
            let name = *self.random.pick(&["beta", "news"]);
            groups.insert(name.to_owned(), self.random.percent(50));
        }
        let patch = Command::Patch(ProfilePatch { attributes, groups, tokens: None });
        let client = &mut self.clients[which];
        if let Ok(write) = client.device.command(&patch) {
            client.notes.insert(write, number);
        }
        self.client_turn(which);
    }

    fn send_receipt(&mut self) {
        let which = self.random.index(self.clients.len());
        let saved = self.clients[which].device.saved();
        let shown = saved.messages.iter().find_map(|(id, m)| Some((*id, m.expires_at?)));
        if let Some((message, at)) = shown {
            let receipts = vec![Receipt { message, kind: ReceiptKind::Displayed, at }];
            let _ = self.clients[which].device.command(&Command::Receipts(receipts));
            self.client_turn(which);
        }
    }
}

/// As an importer computes it.
pub(crate) fn hash(secret: &Secret) -> SecretHash {
    let secret = String::from(secret.clone());
    let login = format!(r#"{{"app":"{APP}","id":"{APP}","secret":"{secret}"}}"#);
    carillon_edge::core::body::login(login.as_bytes()).expect("a login").secret
}
