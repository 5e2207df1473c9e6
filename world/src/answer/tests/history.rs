//! Random histories of one device: several edges of different age, some on a branch that a restore cut off; answers
//! stored, lost, late and repeated; fetches from other edges; writes of the device's own. Whatever is answered is compared with
//! what the history says, by brute force and without the world's own bookkeeping.

use std::collections::{BTreeMap, BTreeSet};

use carillon_expr::{Time, Type};

use super::*;
use crate::{AttributeId, AttributeRow, AudienceId, AudienceRow, Partition, WorldBuilder};

const HOUR: u64 = 60 * 60 * 1000;
/// An attribute that the device has all the time, in the middle of what the clock goes through.
const BEGINS: AttributeId = AttributeId::new(9);
const BEGINS_AT: u64 = 1_025 * HOUR;
const CLOCK_FROM: u64 = 1_000 * HOUR;

/// Something that an expression looks at.
#[derive(Clone, Copy, Debug)]
enum Test {
    Group(u64),
    Audience(u64),
    /// Seen so many hours before the clock at most.
    Seen(u64),
    /// Begins so many hours after the clock at most.
    Ahead(u64),
    /// Began so many hours before the clock at least.
    Began(u64),
}

impl Test {
    fn random(random: &mut Random) -> Test {
        match random.below(6) {
            0 => Test::Seen(random.below(4)),
            1 => Test::Ahead(1 + random.below(20)),
            2 => Test::Began(random.below(10)),
            _ => Test::Group(random.below(3)),
        }
    }

    fn text(self) -> String {
        match self {
            Test::Group(group) => format!("#:{}", GroupId::new(group)),
            Test::Audience(id) => format!("@:{}", AudienceId::new(id)),
            Test::Seen(hours) => format!("last_seen within {hours}h"),
            Test::Ahead(hours) => format!(":{BEGINS} within next {hours}h"),
            Test::Began(hours) => format!(":{BEGINS} <= now - {hours}h"),
        }
    }

    /// `None`: unknown.
    fn holds(self, truth: &Truth, audiences: &Audiences) -> Option<bool> {
        match self {
            Test::Audience(id) => audiences[&id].outcome(truth, audiences),
            Test::Group(group) => Some(truth.groups.contains(&GroupId::new(group))),
            Test::Seen(hours) => {
                let seen = truth.seen?.min(truth.clock);
                Some(seen + hours * HOUR >= truth.clock)
            }
            Test::Ahead(hours) => {
                let ends = truth.clock + hours * HOUR;
                Some((truth.clock..=ends).contains(&BEGINS_AT))
            }
            Test::Began(hours) => Some(BEGINS_AT + hours * HOUR <= truth.clock),
        }
    }
}

/// "one of these", or "all of these": (test, negated).
#[derive(Clone, Debug)]
struct To {
    any: bool,
    literals: Vec<(Test, bool)>,
}

/// What each audience says. None uses one with a smaller number, so none uses itself.
type Audiences = BTreeMap<u64, To>;

impl To {
    /// It may use the audiences from `from` on.
    fn random(random: &mut Random, audiences: &Audiences, from: u64) -> To {
        let known: Vec<u64> = audiences.range(from..).map(|(id, _)| *id).collect();
        let literal = |random: &mut Random| {
            let test = if !known.is_empty() && random.below(2) == 0 {
                Test::Audience(known[random.below(known.len() as u64) as usize])
            } else {
                Test::random(random)
            };
            (test, random.below(4) == 0)
        };
        let literals = (0..1 + random.below(2)).map(|_| literal(random)).collect();
        To { any: random.below(2) == 0, literals }
    }

    fn text(&self) -> String {
        let literal = |(test, negated): &(Test, bool)| {
            format!("{}{}", if *negated { "not " } else { "" }, test.text())
        };
        let parts: Vec<String> = self.literals.iter().map(literal).collect();
        parts.join(if self.any { " or " } else { " and " })
    }

    fn is_volatile(&self, audiences: &Audiences) -> bool {
        self.literals.iter().any(|(test, _)| match test {
            Test::Group(_) => false,
            Test::Audience(id) => audiences[id].is_volatile(audiences),
            Test::Seen(_) | Test::Ahead(_) | Test::Began(_) => true,
        })
    }

    /// `None`: unknown.
    fn outcome(&self, truth: &Truth, audiences: &Audiences) -> Option<bool> {
        let outcome = |(test, negated): &(Test, bool)| {
            test.holds(truth, audiences).map(|holds| holds != *negated)
        };
        let all: Vec<Option<bool>> = self.literals.iter().map(outcome).collect();
        let decisive = Some(self.any);
        if all.contains(&decisive) {
            decisive
        } else if all.contains(&None) {
            None
        } else {
            Some(!self.any)
        }
    }

    fn holds(&self, truth: &Truth, audiences: &Audiences) -> bool {
        self.outcome(truth, audiences) == Some(true)
    }

    fn uses(&self, audience: u64, audiences: &Audiences) -> bool {
        self.literals.iter().any(|(test, _)| match test {
            Test::Audience(id) => *id == audience || audiences[id].uses(audience, audiences),
            _ => false,
        })
    }
}

#[derive(Clone, Debug)]
struct Told {
    tag: Tag,
    to: To,
    state: MessageState,
    revision: u32,
    /// The seq of its last change.
    changed: Seq,
}

type Held = BTreeMap<MessageId, Tag>;

/// What the history says at one moment.
#[derive(Clone, Debug)]
struct Truth {
    messages: BTreeMap<MessageId, Told>,
    groups: Vec<GroupId>,
    audiences: Audiences,
    clock: u64,
    /// When the device was last seen.
    seen: Option<u64>,
    /// Every revision that was ever active: when, and to whom by what audiences said then.
    active: Vec<(Seq, To, Audiences)>,
}

impl Truth {
    fn h(&self) -> Held {
        self.h_where(|_| true)
    }

    fn h_where(&self, which: impl Fn(&Told) -> bool) -> Held {
        let active = |told: &Told| {
            told.state == MessageState::Active && told.to.holds(self, &self.audiences)
        };
        self.messages
            .iter()
            .filter(|(_, told)| active(told) && which(told))
            .map(|(id, told)| (*id, told.tag))
            .collect()
    }

    fn volatile_h(&self) -> Held {
        self.h_where(|told| told.to.is_volatile(&self.audiences))
    }

    /// How many volatile messages that are the same as in `before` became due or ceased to be.
    fn altered_since(&self, before: &Truth) -> usize {
        let (old, new) = (before.volatile_h(), self.volatile_h());
        let same = |id: &MessageId| match (before.messages.get(id), self.messages.get(id)) {
            (Some(old), Some(new)) => old.changed == new.changed,
            _ => false,
        };
        let ids: BTreeSet<MessageId> = old.keys().chain(new.keys()).copied().collect();
        ids.iter().filter(|id| same(id) && old.contains_key(id) != new.contains_key(id)).count()
    }

    fn change(&mut self, random: &mut Random, seq: Seq) -> Change {
        let change = self.draw(random, seq);
        let changed = |(id, told): &(&MessageId, &Told)| match &change {
            Change::Message(row) => row.id == **id,
            Change::MessageState { id: one, .. } => one == *id,
            Change::Audience(row) => told.to.uses(row.id.get(), &self.audiences),
            _ => false,
        };
        let ids: Vec<MessageId> = self.messages.iter().filter(changed).map(|(id, _)| *id).collect();
        for id in ids {
            let told = self.messages.get_mut(&id).expect("it was found");
            if matches!(told.state, MessageState::Active | MessageState::Scheduled) {
                told.changed = seq;
            }
            if told.state == MessageState::Active {
                self.active.push((seq, told.to.clone(), self.audiences.clone()));
            }
        }
        change
    }

    /// One that is in one of `states`, if there is one.
    fn pick(&self, random: &mut Random, states: &[MessageState]) -> Option<MessageId> {
        let fits: Vec<MessageId> = self
            .messages
            .iter()
            .filter(|(_, told)| states.contains(&told.state))
            .map(|(id, _)| *id)
            .collect();
        (!fits.is_empty()).then(|| fits[random.below(fits.len() as u64) as usize])
    }

    fn draw(&mut self, random: &mut Random, seq: Seq) -> Change {
        use MessageState::{Active, Expired, Recalled, Scheduled};
        match random.below(19) {
            0..2 => return self.regroup(random, seq),
            12..15 => {
                // A clock that is told an earlier time stays.
                let at = self.clock + random.below(4) * HOUR / 2 - random.below(3) * HOUR / 2;
                self.clock = self.clock.max(at);
                return Change::Clock { at: Millis(at) };
            }
            16.. => return self.say(random, seq),
            15 => {
                let at = self.clock / HOUR * HOUR + HOUR - random.below(4) * HOUR;
                self.seen = self.seen.max(Some(at));
                return Change::Seen { app: APP, at: Millis(at), devices: vec![DEVICE] };
            }
            2 if seq.get() > 12 => {
                return Change::Purge { horizon: Seq::new(seq.get() - 1 - random.below(6)) };
            }
            3..6 => {
                if let Some(id) = self.pick(random, &[Active, Scheduled]) {
                    let told = self.messages.get_mut(&id).expect("it was picked");
                    told.state = match (told.state, random.below(3)) {
                        (Scheduled, 0 | 1) => Active,
                        (_, 0) => Expired,
                        _ => Recalled,
                    };
                    told.changed = seq;
                    return Change::MessageState { app: APP, id, state: told.state };
                }
            }
            _ => {}
        }
        let edited = self.pick(random, &[Active, Scheduled]).filter(|_| random.below(2) == 0);
        let id = edited.unwrap_or_else(|| MessageId::new(seq.get()));
        let before = self.messages.get(&id);
        let told = Told {
            // Half of the edits change the recipients alone.
            tag: before
                .filter(|_| random.below(2) == 0)
                .map_or(Tag::new(seq.get()), |told| told.tag),
            to: To::random(random, &self.audiences, 0),
            state: before
                .map_or(if random.below(4) == 0 { Scheduled } else { Active }, |told| told.state),
            revision: before.map_or(1, |told| told.revision + 1),
            changed: seq,
        };
        let change = message(id, &told.to.text(), told.tag, told.state, told.revision);
        self.messages.insert(id, told);
        change
    }

    fn say(&mut self, random: &mut Random, seq: Seq) -> Change {
        let id = random.below(4);
        let to = To::random(random, &self.audiences, id + 1);
        let expression = to.text();
        let same = self.audiences.get(&id).is_some_and(|before| before.text() == expression);
        if same {
            // That would be a rename, which says nothing else.
            return self.regroup(random, seq);
        }
        self.audiences.insert(id, to);
        Change::Audience(Arc::new(AudienceRow {
            id: AudienceId::new(id),
            app: APP,
            name: format!("a{id}").into(),
            revision: 1,
            from: seq,
            expression: expression.into(),
        }))
    }

    fn regroup(&mut self, random: &mut Random, seq: Seq) -> Change {
        self.groups = (0..3).filter(|_| random.below(2) == 0).map(GroupId::new).collect();
        profile(&self.groups, seq)
    }
}

/// The device as the store has it: without when it was seen.
fn profile(groups: &[GroupId], p: Seq) -> Change {
    let Change::Device(row) = device(groups, p) else { unreachable!("it is a device") };
    let begins = i64::try_from(BEGINS_AT).ok().and_then(Time::from_ms).expect("a time");
    let attributes = Box::new([(BEGINS, carillon_expr::Value::Time(begins))]);
    Change::Device(Arc::new(DeviceRow { attributes, ..DeviceRow::clone(&row) }))
}

/// The shard at one moment, and the moment before it. A restore makes branches.
struct Moment {
    world: World,
    truth: Truth,
    parent: Option<usize>,
}

struct History {
    moments: Vec<Moment>,
    head: usize,
    epoch: u64,
}

impl History {
    fn new() -> History {
        let mut world = start();
        let begins = AttributeRow {
            id: BEGINS,
            app: APP,
            name: "begins".into(),
            kind: Type::Time,
            set_by: SetBy::Server,
        };
        let at = world.seq().next().next();
        let clock = Change::Clock { at: Millis(CLOCK_FROM) };
        commit(&mut world, vec![Change::Attribute(Arc::new(begins)), profile(&[], at), clock]);
        let truth = Truth {
            messages: BTreeMap::new(),
            groups: Vec::new(),
            audiences: Audiences::new(),
            clock: CLOCK_FROM,
            seen: None,
            active: Vec::new(),
        };
        let first = Moment { world, truth, parent: None };
        History { moments: vec![first], head: 0, epoch: 1 }
    }

    fn add(&mut self, world: World, truth: Truth, parent: usize) {
        self.moments.push(Moment { world, truth, parent: Some(parent) });
        self.head = self.moments.len() - 1;
    }

    fn commit(&mut self, mut change: impl FnMut(&mut Truth, Seq) -> Change, changes: u64) {
        let Moment { world, truth, .. } = &self.moments[self.head];
        let (mut world, mut truth) = (world.clone(), truth.clone());
        let first = world.seq().next();
        let changes = (0..changes).map(|k| change(&mut truth, first.plus(k))).collect();
        world.apply(&Batch { first, changes }).expect("fits");
        if first.get().is_multiple_of(3) {
            world = restarted(&world);
        }
        self.add(world, truth, self.head);
    }

    /// An owner opens the shard: where it was, or where it was `back` moments ago.
    fn open(&mut self, back: u64) {
        let parent = (0..back).fold(self.head, |at, _| self.moments[at].parent.unwrap_or(at));
        let Moment { world, truth, .. } = &self.moments[parent];
        let (mut world, truth) = (world.clone(), truth.clone());
        self.epoch += 1;
        let mut lineage = world.lineage().clone();
        let epoch = Epoch { number: self.epoch, tag: self.epoch * 7 };
        let line = LineageEntry { epoch, began_after: world.seq(), fork: back > 0 };
        lineage.push(line).expect("a later epoch");
        world.set_lineage(lineage);
        self.add(world, truth, parent);
    }

    /// The moment of `position` in the past of `at`, if it is there.
    fn find(&self, position: Position, at: usize) -> Option<usize> {
        std::iter::successors(Some(at), |at| self.moments[*at].parent)
            .find(|at| self.moments[*at].world.position() == position)
    }

    /// A recent moment, of whatever branch: the world of an edge that may lag or not have heard of a restore.
    fn some_edge(&self, random: &mut Random) -> usize {
        self.moments.len() - 1 - random.below(5.min(self.moments.len() as u64)) as usize
    }
}

/// The same world, made of its rows.
fn restarted(world: &World) -> World {
    let mut builder = WorldBuilder::new(world.shard());
    let rows = Partition::all().flat_map(|partition| world.partition_rows(partition));
    rows.for_each(|row| builder.insert(row));
    builder.finish(world.lineage().clone(), world.seq(), world.horizon()).expect("rows fit")
}

fn digest_by(held: &Held) -> u64 {
    held.iter().fold(0, |sum, (id, tag)| sum.wrapping_add(share(*id, *tag)))
}

struct Client {
    held: Held,
    cursor: Cursor,
    /// Bodies were fetched from another world than that of the inventory.
    mixed: bool,
}

/// Polls, and checks the answer against the history. `None`: the edge is behind.
fn ask(
    history: &History,
    client: &Client,
    at: usize,
    limits: &AnswerLimits,
    index_worth: usize,
) -> Option<Outcome> {
    let Moment { world, truth, .. } = &history.moments[at];
    let device = world.app(APP).and_then(|app| app.device(DEVICE)).expect("it is there");
    let cursor = &client.cursor;
    let outcome = poll_by(world, device, cursor, limits, index_worth);
    let shown: Vec<Position> = [cursor.held, cursor.floor].into_iter().flatten().collect();
    let past = shown.iter().all(|position| history.find(*position, at).is_some());
    let later = shown.iter().any(|position| {
        history.find(*position, at).is_none()
            && history.find(world.position(), history.head).is_some()
            && history.find(*position, history.head).is_some()
    });
    assert!(!later || outcome == Outcome::Behind, "P4: answered from before what was seen");
    let h = truth.h();
    match &outcome {
        Outcome::Behind => {
            assert!(!past, "an edge that has all that was seen answers");
            assert!(at != history.head, "the newest world is never behind");
            return None;
        }
        Outcome::Nothing => {
            assert!(past && !cursor.fresh, "a bookmark is due");
            let held = cursor.held.expect("an empty store gets an inventory").seq;
            let told = truth.active.iter().filter(|(seq, ..)| *seq > held);
            assert!(
                !told.into_iter().any(|(_, to, then)| to.holds(truth, then)),
                "what addressed the device moves its cursor"
            );
            assert!(client.mixed || client.held == h, "P1: 204 is said to who lacks something");
        }
        Outcome::News(news) => {
            assert_eq!(news.cursor.held, Some(world.position()));
            assert_eq!(news.cursor.floor, Some(world.position()));
            for (id, tag) in news.messages.iter().map(parsed) {
                assert_eq!(h.get(&id), Some(&tag), "P8");
            }
            let bytes: usize = news.messages.iter().map(Bytes::len).sum();
            assert!(bytes <= limits.bytes_max || news.messages.len() == 1, "P6: {bytes}");
            match &news.inventory {
                Some(all) => assert_eq!(all.iter().copied().collect::<Held>(), h),
                None => {
                    assert!(past, "a delta from what was cut off");
                    let held = history.find(cursor.held.expect("a delta"), at).expect("the past");
                    let before = history.moments[held].truth.h();
                    for id in &news.gone {
                        assert!(before.contains_key(id), "P8: told of what it never had");
                        assert!(!h.contains_key(id), "gone, though it has it");
                    }
                }
            }
            let empty = news.messages.is_empty()
                && news.gone.is_empty()
                && news.inventory.as_ref().is_none_or(Vec::is_empty);
            // Whatever leaves open what the client holds is to be confirmed.
            let open = match (&news.inventory, cursor.held) {
                (_, None) => false,
                (Some(_), Some(_)) => true,
                (None, Some(held)) => device.p > held.seq,
            };
            assert_eq!(news.cursor.fresh, !empty || open);
            assert!(
                news.cursor.digest.is_none_or(|sum| sum == digest_by(&h)),
                "the digest of H(w)"
            );
            assert_eq!(news.cursor.volatile, Some(digest_by(&truth.volatile_h())));
        }
    }
    Some(outcome)
}

impl Client {
    /// Stores an answer of the edge `at` whole, fetching what it lacks from the edge `other`; drops it if that one
    /// cannot answer.
    fn store(
        &mut self,
        history: &History,
        news: News,
        at: usize,
        other: usize,
        limits: &AnswerLimits,
    ) {
        let Moment { world, truth, .. } = &history.moments[other];
        let (mut next, mut cursor) = (self.held.clone(), news.cursor);
        next.extend(news.messages.iter().map(parsed));
        next.retain(|id, _| !news.gone.contains(id));
        let mut mixed = self.mixed && news.inventory.is_none();
        if let Some(all) = &news.inventory {
            next.retain(|id, _| all.iter().any(|(other, _)| other == id));
            let lacks = |(id, tag): &&(MessageId, Tag)| next.get(id) != Some(tag);
            let mut lacking: Vec<MessageId> = all.iter().filter(lacks).map(|(id, _)| *id).collect();
            while !lacking.is_empty() {
                let row = world.app(APP).and_then(|app| app.device(DEVICE)).expect("it is there");
                let fetched = fetch(world, row, &cursor, &lacking, limits);
                let past = [cursor.held, cursor.floor].into_iter().flatten();
                let past = past.into_iter().all(|at| history.find(at, other).is_some());
                let Fetched::Bodies { messages, gone, cursor: raised } = fetched else {
                    assert!(!past, "an edge that has all that was seen gives bodies");
                    return;
                };
                assert!(past, "bodies from a world that lacks what was seen");
                assert!(!messages.is_empty() || !gone.is_empty(), "a fetch gets on");
                let same = cursor.held == Some(world.position());
                assert_eq!(raised.floor, Some(world.position()));
                assert_eq!(raised.digest, cursor.digest.filter(|_| same));
                assert_eq!(raised.volatile, cursor.volatile.filter(|_| same));
                mixed |= !same;
                cursor = raised;
                let h = truth.h();
                assert!(gone.iter().all(|id| lacking.contains(id) && !h.contains_key(id)));
                let got: Held = messages.iter().map(parsed).collect();
                assert!(got.iter().all(|(id, tag)| lacking.contains(id) && h.get(id) == Some(tag)));
                let bytes: usize = messages.iter().map(Bytes::len).sum();
                assert!(bytes <= limits.bytes_max || messages.len() == 1, "P6: {bytes}");
                lacking.retain(|id| !gone.contains(id) && !got.contains_key(id));
                next.extend(got);
            }
        }
        (self.held, self.cursor, self.mixed) = (next, cursor, mixed);
        let had_all = self.mixed || self.held == history.moments[at].truth.h();
        assert!(had_all, "P1: what was stored is not H");
    }

    /// The device changes its profile through the edge `at`; half of the answers are lost.
    fn write(&mut self, history: &History, at: usize, lost: bool) {
        let committed = history.moments[history.head].world.position();
        let lineage = history.moments[at].world.lineage();
        let raised = raise_floor(lineage, &self.cursor, committed);
        if at == history.head {
            let shown = [self.cursor.held, self.cursor.floor].into_iter().flatten();
            let known = shown.into_iter().all(|position| history.find(position, at).is_some());
            assert_eq!(raised.is_some(), known, "no cursor for one that is cut off");
        }
        if let Some(raised) = raised.filter(|_| !lost) {
            assert_eq!((raised.floor, raised.held), (Some(committed), self.cursor.held));
            self.cursor = raised;
        }
    }
}

/// Counts deltas, inventories, bookmarks, waits and 204s; and of them deltas and inventories because of the clock, and
/// 204s while something volatile is held.
fn run(seed: u64, seen: &mut [u64; KINDS]) {
    let mut random = Random(seed);
    let mut history = History::new();
    let limits = AnswerLimits { bytes_max: 300, bookmark_changes: 20 };
    let index_worth = [0, 2, usize::MAX][(seed % 3) as usize];
    let mut client = Client { held: Held::new(), cursor: Cursor::EMPTY, mixed: false };
    let mut flying: Vec<(Cursor, News, usize)> = Vec::new();
    for _ in 0..60 {
        match random.below(24) {
            0 => history.open(0),
            1 => history.open(1 + random.below(5)),
            2..5 => {
                history.commit(|truth, seq| truth.regroup(&mut random, seq), 1);
                let at =
                    if random.below(3) > 0 { history.head } else { history.some_edge(&mut random) };
                client.write(&history, at, random.below(2) == 0);
            }
            _ => {
                let changes = 1 + random.below(3);
                history.commit(|truth, seq| truth.change(&mut random, seq), changes);
            }
        }
        if random.below(2) == 0 {
            let at = history.some_edge(&mut random);
            let outcome = ask(&history, &client, at, &limits, index_worth);
            seen[kind(outcome.as_ref())] += 1;
            if let Some(kind) = volatile_kind(&history, &client.cursor, at, outcome.as_ref()) {
                seen[kind] += 1;
            }
            if let Some(Outcome::News(news)) = outcome {
                let other = if random.below(2) == 0 { at } else { history.some_edge(&mut random) };
                match random.below(4) {
                    0 => flying.push((client.cursor, news, at)),
                    1 => {
                        flying.push((client.cursor, news.clone(), at));
                        client.store(&history, news, at, other, &limits);
                    }
                    _ => client.store(&history, news, at, other, &limits),
                }
            }
        }
        if !flying.is_empty() && random.below(3) == 0 {
            let late = flying.swap_remove(random.below(flying.len() as u64) as usize);
            let (after, news, at) = late;
            if after == client.cursor {
                let other = history.some_edge(&mut random);
                client.store(&history, news, at, other, &limits);
            }
        }
    }
    let head = history.head;
    for _ in 0..100 {
        match ask(&history, &client, head, &limits, index_worth) {
            Some(Outcome::News(news)) => client.store(&history, news, head, head, &limits),
            Some(Outcome::Nothing) => {
                assert_eq!(client.held, history.moments[head].truth.h(), "P1");
                return;
            }
            Some(Outcome::Behind) | None => unreachable!("the newest world is never behind"),
        }
    }
    panic!("never at rest");
}

fn kind(outcome: Option<&Outcome>) -> usize {
    match outcome {
        Some(Outcome::News(news)) if news.inventory.is_some() => 1,
        Some(Outcome::News(news)) if news.cursor.fresh => 0,
        Some(Outcome::News(_)) => 2,
        Some(Outcome::Behind) | None => 3,
        Some(Outcome::Nothing) => 4,
    }
}

const KINDS: usize = 8;

/// What the clock had to do with it.
fn volatile_kind(
    history: &History,
    cursor: &Cursor,
    at: usize,
    outcome: Option<&Outcome>,
) -> Option<usize> {
    let now = &history.moments[at].truth;
    let held = history.find(cursor.held?, at)?;
    let altered = now.altered_since(&history.moments[held].truth);
    match outcome? {
        Outcome::News(news) if news.inventory.is_none() && altered == 1 => Some(5),
        Outcome::News(news) if news.inventory.is_some() && altered > 1 => Some(6),
        Outcome::Nothing if !now.volatile_h().is_empty() => Some(7),
        _ => None,
    }
}

#[test]
fn every_answer_is_what_the_history_says_and_a_client_at_rest_holds_h() {
    let mut seen = [0; KINDS];
    for seed in 0..3_000 {
        let outcome = std::panic::catch_unwind(|| {
            let mut seen = [0; KINDS];
            run(seed, &mut seen);
            seen
        });
        let Ok(one) = outcome else { panic!("seed {seed}: see above") };
        (0..KINDS).for_each(|kind| seen[kind] += one[kind]);
    }
    let floors = [1_000, 1_000, 1_000, 1_000, 1_000, 200, 400, 1_000];
    let enough = seen.iter().zip(floors).all(|(count, floor)| *count > floor);
    assert!(enough, "deltas, inventories, …: {seen:?}");
}

/// The same history twice, but the last change of one is a purge: whoever holds the horizon or later cannot tell.
fn twins(seed: u64, compared: &mut u64) {
    let mut random = Random(seed);
    let mut history = History::new();
    for _ in 0..40 {
        let changes = 1 + random.below(3);
        let change = |truth: &mut Truth, seq| match truth.change(&mut random, seq) {
            Change::Purge { .. } => truth.regroup(&mut random, seq),
            change => change,
        };
        history.commit(change, changes);
    }
    let Moment { world, truth, .. } = &history.moments[history.head];
    let horizon = Seq::new(world.seq().get() - random.below(60).min(world.seq().get()));
    let app = world.app(APP).expect("it is there").row().clone();
    let mut plain = world.clone();
    let mut purged = if seed.is_multiple_of(2) { world.clone() } else { restarted(world) };
    commit(&mut plain, vec![Change::App(app)]);
    commit(&mut purged, vec![Change::Purge { horizon }]);
    // Short answers, so that deltas become inventories too; no bookmarks but those that are due for other reasons.
    let limits = AnswerLimits { bytes_max: 700, bookmark_changes: u64::MAX };
    let row = world.app(APP).and_then(|app| app.device(DEVICE)).expect("it is there");
    for moment in &history.moments {
        let at = Some(moment.world.position());
        let digest = (random.below(2) == 0).then(|| digest_by(&moment.truth.h()));
        let volatile = (random.below(4) > 0).then(|| digest_by(&moment.truth.volatile_h()));
        let fresh = random.below(2) == 0;
        let cursor = Cursor { held: at, floor: at, fresh, digest, volatile };
        let by = |world: &World, index_worth| poll_by(world, row, &cursor, &limits, index_worth);
        for index_worth in [0, usize::MAX] {
            match (by(&plain, index_worth), by(&purged, index_worth)) {
                (_, Outcome::News(news)) if moment.world.seq() < horizon => {
                    let all = news.inventory.expect("from before the horizon nothing is known");
                    assert_eq!(all.into_iter().collect::<Held>(), truth.h());
                }
                // A horizon bounds how far a cursor may lag, so it may be moved earlier.
                (Outcome::Nothing, Outcome::News(news)) => {
                    assert!(news.messages.is_empty() && news.gone.is_empty());
                    assert!(news.inventory.is_none() && !news.cursor.fresh);
                }
                (plain, purged) => {
                    assert_eq!(plain, purged, "from {at:?} with the horizon at {horizon}");
                    *compared += 1;
                }
            }
        }
    }
}

#[test]
fn a_purge_changes_nothing_that_a_cursor_from_the_horizon_on_gets() {
    let mut compared = 0;
    for seed in 0..1_000 {
        let outcome = std::panic::catch_unwind(|| {
            let mut compared = 0;
            twins(seed, &mut compared);
            compared
        });
        let Ok(one) = outcome else { panic!("seed {seed}: see above") };
        compared += one;
    }
    assert!(compared > 10_000, "{compared}");
}

/// What `stored` says of each moment of a history since the profile last changed, on every later world.
fn reports(seed: u64, counts: &mut [u64; 3]) {
    let mut random = Random(seed);
    let mut history = History::new();
    for _ in 0..40 {
        let changes = 1 + random.below(3);
        history.commit(|truth, seq| truth.change(&mut random, seq), changes);
    }
    let moments = &history.moments;
    for (at, Moment { world, .. }) in moments.iter().enumerate() {
        let row = world.app(APP).and_then(|app| app.device(DEVICE)).expect("it is there");
        let first = row.p.max(world.horizon());
        let known: Vec<&Moment> =
            moments[..=at].iter().filter(|moment| moment.world.seq() >= first).collect();
        for (index, moment) in known.iter().enumerate() {
            let (h, seq) = (moment.truth.h(), moment.world.seq());
            let digest = digest_by(&moment.truth.volatile_h());
            for since in std::iter::once(None).chain(known[..=index].iter().map(Some)) {
                let before = since.map_or_else(Held::new, |before| before.truth.h());
                let mut found: BTreeSet<MessageId> = before.keys().copied().collect();
                let since = since.map(|before| before.world.seq());
                for (id, holds) in stored(world, row, (seq, Some(digest)), since) {
                    assert_eq!(holds, h.contains_key(&id), "{id} at {seq} since {since:?}");
                    if holds {
                        found.insert(id)
                    } else {
                        found.remove(&id)
                    };
                    counts[usize::from(holds)] += 1;
                }
                let open = moment.truth.volatile_h();
                // One message that the clock altered is found by the digest, several are not.
                let altered = moments[at].truth.altered_since(&moment.truth);
                let missed = |id: &&MessageId| found.contains(*id) != h.contains_key(*id);
                for id in h.keys().chain(&before.keys().copied().collect::<Vec<_>>()).filter(missed)
                {
                    let was = known.iter().any(|m| m.truth.volatile_h().contains_key(id));
                    let told = altered > 1 && (was || open.contains_key(id));
                    assert!(told, "{id} at {seq} since {since:?}, {altered} altered");
                    counts[2] += 1;
                }
            }
        }
    }
}

#[test]
fn what_is_reported_as_stored_is_what_the_device_had() {
    let mut counts = [0; 3];
    for seed in 0..300 {
        let outcome = std::panic::catch_unwind(|| {
            let mut counts = [0; 3];
            reports(seed, &mut counts);
            counts
        });
        let Ok(one) = outcome else { panic!("seed {seed}: see above") };
        (0..3).for_each(|n| counts[n] += one[n]);
    }
    let [lost, held, open] = counts;
    assert!(lost > 10_000 && held > 10_000, "{counts:?}");
    // The clock altered more than a digest explains.
    assert!(open * 20 < held, "{counts:?}");
}
