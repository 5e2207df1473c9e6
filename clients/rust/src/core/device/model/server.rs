//! A server that keeps the whole log and computes everything from it anew, for every answer.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::core::random::Random;
use crate::core::store::Saved;
use crate::ids::{DeviceId, MessageId, Tag};

/// Bodies that one answer carries.
const PAGE: usize = 2;

/// One shard's log: a change has the seq of its place, from 1.
#[derive(Clone, Debug)]
enum Change {
    Message { id: u64, tag: u64, group: char, negated: bool, active: bool },
    Profile { device: u64, groups: BTreeSet<char> },
    Enrolled { device: u64, secret: String },
    Revoked { device: u64 },
    Forgotten { device: u64 },
    Purged { horizon: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Epoch {
    number: u64,
    tag: u64,
    began_after: u64,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    epoch: Epoch,
    seq: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Past,
    Reset,
    Behind,
}

struct Who {
    secret: String,
    groups: BTreeSet<char>,
    /// Seq of the last real change of the profile.
    changed: u64,
    /// Seq that set the generation.
    generation: u64,
}

/// What a message is: (tag, changed).
type Held = BTreeMap<u64, (u64, u64)>;

#[derive(Clone, Debug)]
struct World {
    log: Vec<Change>,
    epochs: Vec<Epoch>,
    at: u64,
}

impl World {
    fn seen(&self, at: u64) -> impl Iterator<Item = (u64, &Change)> {
        self.log[..at as usize].iter().enumerate().map(|(i, change)| (i as u64 + 1, change))
    }

    fn position(&self, seq: u64) -> Position {
        let epoch = *self
            .epochs
            .iter()
            .rev()
            .find(|epoch| epoch.began_after <= seq)
            .expect("the first begins at 0");
        Position { epoch, seq }
    }

    fn here(&self) -> Position {
        self.position(self.at)
    }

    fn judge(&self, position: Position) -> Verdict {
        match self.epochs.iter().position(|epoch| *epoch == position.epoch) {
            Some(i)
                if self.epochs.get(i + 1).is_some_and(|next| position.seq > next.began_after) =>
            {
                Verdict::Reset
            }
            Some(_) if position.seq > self.at => Verdict::Behind,
            Some(_) => Verdict::Past,
            None if position.epoch.number > self.here().epoch.number => Verdict::Behind,
            None => Verdict::Reset,
        }
    }

    fn judge_all(&self, positions: [Option<Position>; 2]) -> Verdict {
        positions
            .into_iter()
            .flatten()
            .map(|position| self.judge(position))
            .max()
            .unwrap_or(Verdict::Past)
    }

    fn who(&self, device: u64) -> Option<Who> {
        let mut who: Option<Who> = None;
        for (seq, change) in self.seen(self.at) {
            match (change, &mut who) {
                (Change::Enrolled { device: d, secret }, who) if *d == device => {
                    let secret = secret.clone();
                    *who = Some(Who {
                        secret,
                        groups: BTreeSet::new(),
                        changed: seq,
                        generation: seq,
                    });
                }
                (Change::Profile { device: d, groups }, Some(who))
                    if *d == device && who.groups != *groups =>
                {
                    who.groups = groups.clone();
                    who.changed = seq;
                }
                (Change::Revoked { device: d }, Some(who)) if *d == device => who.generation = seq,
                (Change::Forgotten { device: d }, who) if *d == device => *who = None,
                _ => {}
            }
        }
        who
    }

    /// H for a device in these groups, at a seq.
    fn should_have(&self, at: u64, groups: &BTreeSet<char>) -> Held {
        let mut held = Held::new();
        for (seq, change) in self.seen(at) {
            if let Change::Message { id, tag, group, negated, active } = change {
                held.remove(id);
                if *active && groups.contains(group) != *negated {
                    held.insert(*id, (*tag, seq));
                }
            }
        }
        held
    }

    fn horizon(&self) -> u64 {
        let horizons = self.seen(self.at).map(|(_, change)| match change {
            Change::Purged { horizon } => *horizon,
            _ => 0,
        });
        horizons.max().unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug)]
struct CursorState {
    device: u64,
    held: Option<Position>,
    floor: Option<Position>,
}

pub(super) struct Server {
    central: World,
    edges: Vec<World>,
    /// What is sealed in the text `c<place>`.
    cursors: Vec<CursorState>,
    /// What is sealed in the text `s<place>`.
    sessions: Vec<(u64, Position)>,
    /// Ids and tags are never given twice.
    count: u64,
    pub(super) restores: u64,
}

type Response = http::Response<Bytes>;

fn reply(status: u16, body: &Value) -> Response {
    http::Response::builder().status(status).body(Bytes::from(body.to_string())).unwrap()
}

fn refuse(status: u16, code: &str) -> Response {
    let mut response = reply(status, &json!({ "code": code, "status": status }));
    if status == 503 {
        response.headers_mut().insert("retry-after", "1".parse().unwrap());
    }
    response
}

fn message(id: u64, tag: u64) -> Value {
    let (id, tag) = (MessageId::new(id), Tag::new(tag));
    json!({"id": id, "tag": tag, "priority": "normal", "expires_at": null, "body": {"says": tag}})
}

impl Server {
    pub(super) fn new(edges: usize) -> Server {
        let central =
            World { log: vec![], epochs: vec![Epoch { number: 1, tag: 0, began_after: 0 }], at: 0 };
        let edges = vec![central.clone(); edges];
        Server { central, edges, cursors: vec![], sessions: vec![], count: 0, restores: 0 }
    }

    /// (epoch number, seq) of a cursor's floor.
    pub(super) fn floor(&self, cursor: &str) -> Option<(u64, u64)> {
        let place: usize = cursor.strip_prefix('c')?.parse().ok()?;
        self.cursors.get(place)?.floor.map(|floor| (floor.epoch.number, floor.seq))
    }

    fn commit(&mut self, change: Change) {
        self.central.log.push(change);
        self.central.at += 1;
    }

    fn fresh(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn seal_cursor(&mut self, state: CursorState) -> String {
        self.cursors.push(state);
        format!("c{}", self.cursors.len() - 1)
    }

    fn seal_session(&mut self, device: u64) -> String {
        let generation =
            self.central.who(device).expect("sessions are for known devices").generation;
        self.sessions.push((device, self.central.position(generation)));
        format!("s{}", self.sessions.len() - 1)
    }

    /// Something happens that the device did not ask for.
    pub(super) fn live(&mut self, device: Option<DeviceId>, wild: bool, random: &mut Random) {
        let what = match random.up_to(99) {
            40..60 if !wild => 99,
            what => what,
        };
        match what {
            0..40 => {
                let id = random.up_to(4) + 1;
                let before = self.central.log.iter().rev().find_map(|change| match change {
                    Change::Message { id: other, tag, .. } if *other == id => Some(*tag),
                    _ => None,
                });
                let tag = match before {
                    // An edit of the recipients alone keeps the content.
                    Some(tag) if random.up_to(9) < 3 => tag,
                    _ => self.fresh(),
                };
                let group = if random.up_to(1) == 0 { 'a' } else { 'b' };
                let (negated, active) = (random.up_to(9) < 3, random.up_to(9) < 7);
                self.commit(Change::Message { id, tag, group, negated, active });
            }
            40..50 => {
                if let Some(device) = device {
                    let groups = ['a', 'b'].into_iter().filter(|_| random.up_to(1) == 0).collect();
                    self.commit(Change::Profile { device: device.get(), groups });
                }
            }
            50..54 => {
                let horizon = self.central.at.saturating_sub(random.up_to(3));
                self.commit(Change::Purged { horizon });
            }
            54..56 => {
                if let Some(device) = device {
                    self.commit(Change::Revoked { device: device.get() });
                }
            }
            56..57 => {
                if let Some(device) = device {
                    self.commit(Change::Forgotten { device: device.get() });
                }
            }
            57..60 => self.restore(random),
            _ => {
                let edge = random.up_to(self.edges.len() as u64 - 1) as usize;
                let changes = random.up_to(5);
                self.pull(edge, changes);
            }
        }
    }

    fn restore(&mut self, random: &mut Random) {
        self.restores += 1;
        let central = &mut self.central;
        central.at = central.at.saturating_sub(random.up_to(6));
        central.log.truncate(central.at as usize);
        let number = central.epochs.last().expect("never empty").number + 1 + random.up_to(1);
        central.epochs.retain(|epoch| epoch.began_after <= central.at);
        central.epochs.push(Epoch { number, tag: random.next(), began_after: central.at });
    }

    fn pull(&mut self, edge: usize, changes: u64) {
        let Server { central, edges, .. } = self;
        let edge = &mut edges[edge];
        let at = match central.judge(edge.here()) {
            Verdict::Past => (edge.at + changes).min(central.at),
            // A snapshot.
            Verdict::Reset | Verdict::Behind => central.at,
        };
        *edge = World { at, ..central.clone() };
    }

    pub(super) fn catch_up(&mut self) {
        for edge in 0..self.edges.len() {
            self.pull(edge, u64::MAX / 2);
        }
    }

    pub(super) fn holds_exactly(&self, saved: &Saved) -> bool {
        let Some((_, device)) = saved.identity.as_ref().and_then(|who| who.registered) else {
            return false;
        };
        let Some(who) = self.central.who(device.get()) else { return false };
        let want = self.central.should_have(self.central.at, &who.groups);
        let want: BTreeMap<_, _> = want
            .into_iter()
            .map(|(id, (tag, _))| {
                (MessageId::new(id), json!({ "says": Tag::new(tag) }).to_string())
            })
            .collect();
        let have: BTreeMap<_, _> =
            saved.messages.iter().map(|(id, it)| (*id, it.body.to_string())).collect();
        want == have && saved.messages.values().all(|it| it.body.contains(&it.tag.to_string()))
    }

    pub(super) fn answer(
        &mut self,
        edge: usize,
        request: &http::Request<Bytes>,
        random: &mut Random,
    ) -> Response {
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let path = request.uri().path();
        match (request.method().as_str(), path) {
            ("POST", "/v1/devices") => return self.enrol(&body),
            ("POST", "/v1/devices/session") => return self.session(&body),
            _ => {}
        }
        let header = |name: &str| {
            request.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        let session = header("authorization").expect("the client has a session by now");
        let place: usize = session.strip_prefix("Bearer s").expect("ours").parse().unwrap();
        let (device, generation) = self.sessions[place];
        let writes = request.method() == "PATCH";
        let world = if writes { self.central.clone() } else { self.edges[edge].clone() };
        match world.judge(generation) {
            Verdict::Behind => return refuse(503, "behind"),
            Verdict::Reset => return refuse(401, "session"),
            Verdict::Past => {}
        }
        let Some(who) = world.who(device) else { return refuse(401, "unknown") };
        if who.generation != generation.seq {
            return refuse(401, "session");
        }
        let presented = header("carillon-cursor");
        let empty = CursorState { device, held: None, floor: None };
        let cursor = match &presented {
            Some(text) => {
                self.cursors[text.strip_prefix('c').expect("ours").parse::<usize>().unwrap()]
            }
            None => empty,
        };
        if cursor.device != device || presented.is_some() && random.up_to(199) == 0 {
            return refuse(400, "bad-cursor");
        }
        match path {
            "/v1/messages" => self.poll(&world, &who, cursor, presented),
            "/v1/messages:fetch" => self.fetch(&world, &who, cursor, presented, &body, random),
            "/v1/devices/self" if writes => self.patch(&who, cursor, presented, &body, random),
            _ => panic!("the client asks for {path}"),
        }
    }

    fn enrol(&mut self, body: &Value) -> Response {
        let secret = body["secret"].as_str().expect("a secret").to_owned();
        let known = (1..=self.count)
            .find(|id| self.central.who(*id).is_some_and(|who| who.secret == secret));
        let device = known.unwrap_or_else(|| self.fresh());
        if known.is_none() {
            self.commit(Change::Enrolled { device, secret });
        }
        let cursor =
            self.seal_cursor(CursorState { device, held: None, floor: Some(self.central.here()) });
        let session = self.seal_session(device);
        let id = DeviceId::new(device);
        let status = if known.is_some() { 200 } else { 201 };
        reply(
            status,
            &json!({"id": id, "app": "00000000000000aa", "session": session, "cursor": cursor}),
        )
    }

    fn session(&mut self, body: &Value) -> Response {
        let device: DeviceId = body["id"].as_str().expect("an id").parse().unwrap();
        match self.central.who(device.get()) {
            None => refuse(401, "unknown"),
            Some(who) if body["secret"] != who.secret.as_str() => refuse(401, "session"),
            Some(_) => {
                let session = self.seal_session(device.get());
                reply(200, &json!({ "session": session }))
            }
        }
    }

    fn patch(
        &mut self,
        who: &Who,
        cursor: CursorState,
        presented: Option<String>,
        body: &Value,
        random: &mut Random,
    ) -> Response {
        if random.up_to(9) == 0 {
            return refuse(503, "unavailable");
        }
        let mut groups = who.groups.clone();
        for (name, join) in body["groups"].as_object().expect("the runs patch groups") {
            let group = name.chars().next().unwrap();
            if join == &json!(true) {
                groups.insert(group)
            } else {
                groups.remove(&group)
            };
        }
        self.commit(Change::Profile { device: cursor.device, groups });
        let mut answer = json!({ "after": presented });
        let cut_off = self.central.judge_all([cursor.held, cursor.floor]) != Verdict::Past;
        if presented.is_some() && !cut_off {
            let floor = Some(self.central.here());
            answer["cursor"] = json!(self.seal_cursor(CursorState { floor, ..cursor }));
        }
        reply(200, &answer)
    }

    fn poll(
        &mut self,
        world: &World,
        who: &Who,
        cursor: CursorState,
        presented: Option<String>,
    ) -> Response {
        let verdict = world.judge_all([cursor.held, cursor.floor]);
        if verdict == Verdict::Behind {
            return refuse(503, "behind");
        }
        let here = Some(world.here());
        let now = world.should_have(world.at, &who.groups);
        let held = cursor.held.map(|held| held.seq);
        let delta = held.filter(|held| {
            verdict == Verdict::Past && who.changed <= *held && *held >= world.horizon()
        });
        let mut answer = json!({ "after": presented, "poll_after": 0 });
        let newer = |after: u64| now.iter().filter(move |(_, (_, changed))| *changed > after);
        if let Some(held) = delta {
            let before = world.should_have(held, &who.groups);
            let messages: Vec<_> = newer(held).map(|(id, (tag, _))| message(*id, *tag)).collect();
            let gone: Vec<_> = before
                .keys()
                .filter(|id| !now.contains_key(id))
                .map(|id| MessageId::new(*id))
                .collect();
            let addressed = |change: &Change| match change {
                Change::Message { group, negated, .. } => who.groups.contains(group) != *negated,
                _ => false,
            };
            let touched = world.log[held as usize..world.at as usize].iter().any(addressed);
            if messages.is_empty() && gone.is_empty() && !touched {
                return http::Response::builder().status(204).body(Bytes::new()).unwrap();
            }
            answer["messages"] = json!(messages);
            answer["gone"] = json!(gone);
        } else {
            // A `held` that is cut off says nothing about what is newer here.
            let after = if verdict == Verdict::Past { held.unwrap_or(0) } else { 0 };
            let mut bodies: Vec<_> =
                newer(after).map(|(id, (tag, changed))| (changed, id, tag)).collect();
            bodies.sort();
            let bodies: Vec<_> =
                bodies.into_iter().take(PAGE).map(|(_, id, tag)| message(*id, *tag)).collect();
            let inventory: Vec<_> =
                now.iter().map(|(id, (tag, _))| (MessageId::new(*id), Tag::new(*tag))).collect();
            answer["messages"] = json!(bodies);
            answer["gone"] = json!([]);
            answer["inventory"] = json!(inventory);
        }
        answer["cursor"] =
            json!(self.seal_cursor(CursorState { held: here, floor: here, ..cursor }));
        reply(200, &answer)
    }

    fn fetch(
        &mut self,
        world: &World,
        who: &Who,
        cursor: CursorState,
        presented: Option<String>,
        body: &Value,
        random: &mut Random,
    ) -> Response {
        match world.judge_all([cursor.held, cursor.floor]) {
            Verdict::Behind => return refuse(503, "behind"),
            Verdict::Reset => return refuse(409, "reset"),
            Verdict::Past => {}
        }
        let now = world.should_have(world.at, &who.groups);
        let most = random.up_to(1) + 1;
        let (mut messages, mut gone) = (vec![], vec![]);
        for id in body["ids"].as_array().expect("a fetch names ids") {
            let id: MessageId = id.as_str().unwrap().parse().unwrap();
            match now.get(&id.get()) {
                Some((tag, _)) if (messages.len() as u64) < most => {
                    messages.push(message(id.get(), *tag))
                }
                Some(_) => break,
                None => gone.push(id),
            }
        }
        let raised = self.seal_cursor(CursorState { floor: Some(world.here()), ..cursor });
        reply(
            200,
            &json!({"after": presented, "messages": messages, "gone": gone, "cursor": raised}),
        )
    }
}
