//! What must hold, whatever happens: each check names the promise that it is about. What a device should have comes
//! from the oracle, never from the code under test.

use std::collections::BTreeMap;

use bytes::Bytes;
use carillon_client::{Cursor as Sealed, Operation};
use carillon_edge::core::answer::Answer;
use carillon_edge::core::seal::{self, Session};
use carillon_expr::AudienceId;
use carillon_world::{Cursor, DeviceId, MessageId, MessageState, Millis, World};
use serde_json::Value;

use crate::edge::Request;
use crate::oracle::number_in;
use crate::predicate::Record;
use crate::sim::Sim;
use crate::workload::APP;

/// What a client held when it was looked at last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    device: Option<u64>,
    sealed: Option<Sealed>,
    seq: Option<u64>,
    floor: u64,
    /// (id, tag).
    messages: BTreeMap<u64, u64>,
}

impl Held {
    /// The seq of the world that is held.
    pub(crate) fn seq(&self) -> Option<u64> {
        self.seq
    }
}

fn number(hex: &Value) -> u64 {
    u64::from_str_radix(hex.as_str().expect("an id is text"), 16).expect("16 digits")
}

/// (id, tag) of wire messages, and their bytes in all.
fn wired(messages: &Value) -> (BTreeMap<u64, u64>, usize) {
    let list = messages.as_array().expect("a list of messages");
    let bytes = list.iter().map(|message| message.to_string().len()).sum();
    (list.iter().map(|message| (number(&message["id"]), number(&message["tag"]))).collect(), bytes)
}

impl Sim {
    pub(crate) fn open(&self, device: u64, sealed: &str) -> Cursor {
        let cursor = seal::open_cursor(&self.keychain.ring, APP, DeviceId::new(device), sealed);
        cursor.expect("only the edges' own cursors are about")
    }

    /// The session that a request shows, and the cursor it presents.
    fn shown(&self, http: &http::Request<Bytes>) -> (Session, Option<(String, Cursor)>) {
        let text = |name| http.headers().get(name).map(|v| v.to_str().expect("ASCII").to_owned());
        let bearer = text("authorization").expect("a session");
        let session = seal::open_session(&self.keychain.ring, &bearer["Bearer ".len()..]);
        let session = session.expect("only the edges' own sessions are about");
        assert_eq!(session.app, APP);
        let cursor = text("carillon-cursor").map(|sealed| {
            let cursor = self.open(session.device.get(), &sealed);
            (sealed, cursor)
        });
        (session, cursor)
    }

    /// An edge answers. P2: from one world, and what it says leads from what the device had to what it should have
    /// there. P4: never from a world older than the device has seen. P6: no larger than the limit. P8: no id that the
    /// device was not to know of.
    pub(crate) fn check_answer(&mut self, request: &Request, edge: usize, answer: &Answer) {
        let operation = request.asker.id.operation();
        let status = answer.status.as_u16();
        match status {
            401 => self.trace.count("unauthorized"),
            503 if answer.body.windows(8).any(|w| w == b"\"behind\"") => self.trace.count("behind"),
            503 => self.trace.count("unavailable"),
            204 if operation == Operation::Poll => self.trace.count("nothing new"),
            400 | 404 | 405 | 409 | 413 | 500 => {
                panic!("{status} to {operation:?}: {:?}", answer.body)
            }
            _ => {}
        }
        let is_about_messages = matches!(operation, Operation::Poll | Operation::Fetch);
        if !is_about_messages || !matches!(status, 200 | 204) {
            return;
        }
        let w = self.edges[edge].seq().expect("who answers has a world");
        let (session, shown) = self.shown(&request.http);
        let device = session.device.get();
        let record = self.oracle.device(device, w).expect("who is answered is known");
        assert_eq!(record.generation, session.generation.seq.get(), "P8: a session that ended");
        let presented = shown.as_ref().map_or(Cursor::EMPTY, |(_, cursor)| *cursor);
        for position in [presented.floor, presented.held].into_iter().flatten() {
            assert!(position.seq.get() <= w, "P4: answered at {w} who has seen {position:?}");
        }
        let due = self.oracle.due(device, w);
        let held = presented.held.map(|position| position.seq.get());
        if status == 204 {
            let had = self.oracle.due(device, held.expect("an empty store gets an inventory"));
            assert_eq!(had, due, "P1: nothing new at {w} for {device:x}, who has {held:?}");
            if self.oracle.volatile_due(device, w) > 0 {
                self.trace.count("nothing new of what is volatile");
            }
            return;
        }
        let body: Value = serde_json::from_slice(&answer.body).expect("an answer is JSON");
        let after = shown.as_ref().map(|(sealed, _)| sealed.as_str());
        assert_eq!(body["after"].as_str(), after, "P2: computed from the cursor presented");
        let cursor = self.open(device, body["cursor"].as_str().expect("a cursor"));
        assert_eq!(cursor.floor.map(|p| p.seq.get()), Some(w), "P4: the floor is this world");
        let (messages, bytes) = wired(&body["messages"]);
        let most = self.plan.answers.bytes_max;
        assert!(bytes <= most || messages.len() == 1, "P6: {bytes} bytes of bodies");
        for (id, tag) in &messages {
            assert_eq!(due.get(id), Some(tag), "P2, P8: {id:x} to {device:x} at {w}");
        }
        let gone: Vec<u64> = body["gone"].as_array().expect("a list").iter().map(number).collect();
        if operation == Operation::Fetch {
            assert!(gone.iter().all(|id| !due.contains_key(id)), "P2: gone at {w}: {gone:x?}");
            assert_eq!(cursor.held, presented.held, "a fetch leaves what is held");
            return;
        }
        assert_eq!(cursor.held.map(|p| p.seq.get()), Some(w), "P2: held is this world");
        if held.is_some_and(|held| self.oracle.altered(device, held, w) > 0) {
            self.trace.count(match body["inventory"].is_array() {
                true => "inventories by the clock or the profile",
                false => "deltas by the clock",
            });
        }
        if let Some(inventory) = body["inventory"].as_array() {
            self.trace.count("inventories");
            let listed = inventory.iter().map(|pair| (number(&pair[0]), number(&pair[1])));
            let listed: BTreeMap<u64, u64> = listed.collect();
            assert_eq!(listed, *due, "P2: the inventory of {device:x} at {w}");
            return;
        }
        self.trace.count("deltas");
        let mut store = (*self.oracle.due(device, held.expect("a delta from something"))).clone();
        for id in &gone {
            assert!(store.remove(id).is_some(), "P8: {id:x} is gone, but {device:x} never had it");
        }
        store.extend(messages);
        assert_eq!(store, *due, "P2: the delta of {device:x} from {held:?} to {w}");
    }

    /// A client was told something. P2: its store is what it should have at the one world that its cursor names.
    /// P4: that world and the floor never go back.
    pub(crate) fn check_client(&mut self, which: usize) {
        let client = &self.clients[which];
        let saved = client.device.saved();
        let id = client.id();
        let before = match client.held.device == id {
            true => client.held.clone(),
            false => Held { device: id, ..Held::default() },
        };
        let tags = saved.messages.iter().map(|(id, message)| (id.get(), message.tag.get()));
        let messages: BTreeMap<u64, u64> = tags.collect();
        if before.sealed == saved.cursor {
            assert_eq!(messages, before.messages, "messages and cursor change together");
            self.clients[which].held = before;
            return;
        }
        let sealed = saved.cursor.clone().expect("a cursor is only replaced");
        let device = id.expect("who has a cursor is enrolled");
        let cursor = self.open(device, sealed.as_str());
        let seq = cursor.held.map(|position| position.seq.get());
        let floor = cursor.floor.map_or(0, |position| position.seq.get());
        assert!(seq >= before.seq, "P4: {device:x} held {:?}, holds {seq:?}", before.seq);
        assert!(floor >= before.floor, "P4: {device:x} saw {}, saw {floor}", before.floor);
        assert!(Some(floor) >= seq, "what is held was seen");
        for (tag, message) in saved.messages.values().map(|message| (message.tag.get(), message)) {
            assert_eq!(&*message.body, self.oracle.body(tag), "the body of a tag");
        }
        let fetched = client.fetched;
        match seq {
            None => assert_eq!(messages.len(), 0, "nothing held"),
            Some(_) if seq == before.seq => assert_eq!(messages, before.messages, "one world"),
            Some(seq) if fetched => self.check_gathered(device, &messages, seq, floor),
            Some(seq) => {
                let due = self.oracle.due(device, seq);
                assert_eq!(messages, *due, "P2: {device:x} holds world {seq}");
            }
        }
        self.clients[which].held = Held { device: id, sealed: Some(sealed), seq, floor, messages };
    }

    /// An inventory of `seq` whose bodies were fetched up to `floor`: each of its ids is as it was at one of these
    /// worlds, and missing only if it was not due at one of them.
    fn check_gathered(&mut self, device: u64, messages: &BTreeMap<u64, u64>, seq: u64, floor: u64) {
        self.trace.count("gathered");
        let inventory = self.oracle.due(device, seq);
        let worlds: Vec<_> = (seq..=floor).map(|x| self.oracle.due(device, x)).collect();
        for (id, tag) in messages {
            assert!(inventory.contains_key(id), "P2: {id:x} is not in the inventory of {seq}");
            let known = worlds.iter().any(|due| due.get(id) == Some(tag));
            assert!(known, "P2: {id:x} of {device:x} has a tag of no world in {seq}..={floor}");
        }
        for id in inventory.keys().filter(|id| !messages.contains_key(id)) {
            let left = worlds.iter().any(|due| !due.contains_key(id));
            assert!(left, "P1: {device:x} lacks {id:x}, due throughout {seq}..={floor}");
        }
    }

    /// A device's own write was acknowledged: it is durable, and whatever the device reads next has it.
    pub(crate) fn check_own_write(&mut self, which: usize, number: u64) {
        self.trace.count("own writes");
        let seq = self.oracle.note(number).expect("P3: an acknowledged write is durable");
        let client = &self.clients[which];
        if let (Some(device), Some(sealed)) = (client.id(), &client.device.saved().cursor) {
            let floor = self.open(device, sealed.as_str()).floor.map(|position| position.seq.get());
            assert!(floor >= Some(seq), "P4: {device:x} wrote at {seq} and may read {floor:?}");
        }
    }

    /// An edge begins to serve a world. P2: it is one that was committed, whole, and newer than the last.
    pub(crate) fn check_published(&self, edge: usize, world: &World) {
        let seq = world.seq().get();
        assert!(self.oracle.is_batch_end(seq), "P2: edge {edge} serves half of a batch, {seq}");
        assert!(Some(seq) >= self.edges[edge].seq(), "P4: edge {edge} goes back to {seq}");
        self.check_world(world);
    }

    /// Every device and every message is as it was committed, and so is what the world remembers of each message.
    fn check_world(&self, world: &World) {
        let (seq, horizon) = (world.seq().get(), world.horizon().get());
        assert_eq!(world.clock().0, self.oracle.clock_at(seq), "P2: the clock at {seq}");
        let Some(app) = world.app(APP) else { return };
        let devices = self.oracle.devices_at(seq);
        assert_eq!(app.device_count(), devices.len(), "P2: the devices at {seq}");
        for (id, record) in devices {
            let row = app.device(DeviceId::new(id));
            let row = row.unwrap_or_else(|| panic!("P2: {id:x} is missing at {seq}"));
            assert_eq!(Record::of(row), *record, "P2: {id:x} at {seq}");
        }
        for (id, revisions) in self.oracle.messages_at(seq) {
            let (changed, last) = revisions.last().expect("a revision");
            let Some(message) = app.message(MessageId::new(id)) else {
                let over = [MessageState::Expired, MessageState::Recalled].contains(&last.state);
                assert!(over && *changed <= horizon, "P2: {id:x} is missing at {seq}");
                continue;
            };
            let row = message.row();
            assert_eq!((row.revision, row.state), (last.number, last.state), "P2: {id:x} at {seq}");
            let kept: Vec<u64> = message.revisions().iter().map(|r| r.from().get()).collect();
            let all: Vec<u64> = revisions.iter().map(|(from, _)| *from).collect();
            let past = all.iter().filter(|from| **from <= horizon).count().saturating_sub(1);
            assert_eq!(kept, all[past..], "P2: what {seq} knows of {id:x} from {horizon} on");
        }
        for (id, says) in self.oracle.audiences_at(seq) {
            let audience = app.audience(AudienceId::new(id)).expect("P2: every audience is there");
            assert_eq!(*audience.row().expression, says.text(None), "P2: {id:x} at {seq}");
        }
        assert_eq!(app.audience_count(), self.oracle.audiences_at(seq).len(), "P2: at {seq}");
        let known = self.oracle.messages_at(seq).count();
        assert!(app.message_count() <= known, "P2: a message of no commit at {seq}");
    }

    /// Whoever is parked for news has none coming that the edge knows of.
    pub(crate) fn check_nobody_sleeps_over_news(&mut self, edge: usize) {
        let Some(w) = self.edges[edge].seq() else { return };
        let waiting: Vec<(u64, u64)> = self.edges[edge]
            .awaiting_news()
            .map(|request| {
                let (session, cursor) = self.shown(&request.http);
                let held = cursor.and_then(|(_, cursor)| cursor.held).expect("nothing is new");
                (session.device.get(), held.seq.get())
            })
            .collect();
        for (device, held) in waiting {
            let (had, due) = (self.oracle.due(device, held), self.oracle.due(device, w));
            assert_eq!(had, due, "a poll of {device:x} sleeps from {held} though {w} is here");
        }
    }

    /// Central loaded the store. P3: everything that was committed is there.
    pub(crate) fn check_loaded(&self, world: &World) {
        assert_eq!(world.seq().get(), self.oracle.head(), "P3: all that was committed");
        self.check_world(world);
        for (id, created) in &self.acknowledged {
            assert!(self.oracle.message(*id).is_some(), "P3: create {created} is lost");
        }
    }

    /// P6, after every step.
    pub(crate) fn check_bounds(&self) {
        for link in self.links.values() {
            let (bytes, items) = (link.sender.unacknowledged(), link.sender.items_in_flight());
            let window = self.plan.sender.window;
            assert!(bytes <= window || items == 1, "P6: {items} items, {bytes} bytes of {window}");
        }
        for edge in &self.edges {
            assert!(edge.parked() <= self.plan.parked_max, "P6: parked polls");
        }
        for client in &self.clients {
            assert!(client.device.writes_waiting() <= carillon_client::WRITES_MAX, "P6: outbox");
        }
        if let Some(central) = &self.central {
            let (bytes, most) = (central.log.bytes(), self.plan.log_bytes_max);
            assert!(bytes <= most || central.log.batches() == 1, "P6: a log of {bytes} of {most}");
        }
    }

    /// Whether a client holds exactly what it should have at the head, by ids and tags.
    pub(crate) fn holds_what_is_due(&mut self, which: usize) -> bool {
        let client = &self.clients[which];
        let Some(device) = client.id() else { return false };
        let saved = &client.device.saved().messages;
        let held: BTreeMap<u64, u64> =
            saved.iter().map(|(id, message)| (id.get(), message.tag.get())).collect();
        let head = self.oracle.head();
        *self.oracle.due(device, head) == held
    }

    /// P1: all is at rest, so every client holds exactly what it should have, ids, tags and bodies.
    pub(crate) fn check_rest(&mut self) {
        let head = self.oracle.head();
        // Ticks pause for a second after a batch was refused.
        let overdue = self.oracle.overdue(Millis(self.clock().0 - 2_000));
        assert!(overdue.is_empty(), "P1: {overdue:x?} should have started or ended");
        for which in 0..self.clients.len() {
            let client = &self.clients[which];
            let device = client.id().expect("enrolled");
            let saved = &client.device.saved().messages;
            let held = saved.iter().map(|(id, m)| (id.get(), (m.tag.get(), m.body.to_string())));
            let held: BTreeMap<u64, (u64, String)> = held.collect();
            assert!(self.oracle.device(device, head).is_some(), "{device:x} is known");
            let due = self.oracle.due(device, head);
            let due = due.iter().map(|(id, tag)| (*id, (*tag, self.oracle.body(*tag).to_owned())));
            let due: BTreeMap<u64, (u64, String)> = due.collect();
            assert_eq!(held, due, "P1: {device:x} at rest");
            due.values().for_each(|(_, body)| assert!(number_in(body) > 0));
        }
        self.trace.count("rests");
    }
}
