//! Central and some edges at random: batches, purges, restarts, restores, cuts, delays, a tiny window and a tiny log.
//!
//! After each step: central has no more than a window (or one item) in flight, and what an edge published is a world
//! that central had, at a seq that does not go back in its lineage. At rest: every edge has central's world.
//!
//! `CARILLON_SEED=n` replays one seed.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::*;
use crate::fixture::assert_alike;
use crate::{
    AudienceId, AudienceRow, GroupId, GroupRow, Judgement, MessageId, MessageRow, MessageState,
    Priority, SetBy, Tag, Variant,
};

const SEEDS: u64 = 300;
const STEPS: u64 = 1_000;
const EDGES: usize = 3;

/// What happened over all seeds: a run in which one of these never occurs tests too little.
#[derive(Debug, Default)]
struct Tally {
    events: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn count(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }
}

#[derive(Debug)]
struct Shard {
    random: Random,
    central: Central,
    /// Applied, published, but not yet in the log.
    behind: Option<Arc<LogBatch>>,
    /// Every world that central had, by epoch number and seq.
    history: HashMap<(u64, Seq), World>,
    backups: Vec<World>,
    states: BTreeMap<MessageId, MessageState>,
    epochs: u64,
    ids: u64,
}

impl Shard {
    fn new(seed: u64) -> Shard {
        let mut random = Random::new(seed);
        let log_bytes_max = [600, 1_500, 6_000, 1 << 20][random.below(4) as usize];
        let mut central = Central::new(log_bytes_max);
        central.commit(vec![app_row(APP, "shop"), app_row(AppId::new(2), "other")]);
        let (history, backups, states) = (HashMap::new(), Vec::new(), BTreeMap::new());
        let mut shard =
            Shard { random, central, behind: None, history, backups, states, epochs: 1, ids: 0 };
        // The one group that messages name; it never goes.
        let group =
            GroupRow { id: GroupId::new(1), app: APP, name: "named".into(), set_by: SetBy::Server };
        shard.behind = Some(shard.central.apply(vec![Change::Group(Arc::new(group))]));
        shard.catch_up();
        for _ in 0..shard.random.below(30) {
            shard.commit();
        }
        shard.remember();
        shard
    }

    fn remember(&mut self) {
        let world = &self.central.world;
        self.history.insert((world.lineage().newest().epoch.number, world.seq()), world.clone());
    }

    fn change(&mut self, seq: Seq) -> Change {
        let random = &mut self.random;
        let app = if random.one_in(4) { AppId::new(2) } else { APP };
        let device = DeviceId::new(1 + random.below(60));
        match random.below(17) {
            15.. => {
                let id = AudienceId::new(1 + random.below(3));
                self.audience(id, seq)
            }
            12 => Change::Clock { at: Millis(random.below(1_000_000)) },
            13..15 => {
                let devices = (0..6).map(|_| DeviceId::new(1 + random.below(60))).collect();
                Change::Seen { app, at: Millis(random.below(1_000)), devices }
            }
            0..5 => {
                let user = "u".repeat(1 + random.below(60) as usize);
                let groups =
                    if random.one_in(2) { Box::from([GroupId::new(1)]) } else { Box::default() };
                let Change::Device(row) = device_row(device.get(), &user, seq) else {
                    unreachable!()
                };
                Change::Device(Arc::new(DeviceRow { app, groups, ..(*row).clone() }))
            }
            5 => Change::DeviceGone { app, id: device },
            6 => {
                let id = GroupId::new(2 + random.below(5));
                Change::Group(Arc::new(GroupRow {
                    id,
                    app,
                    name: format!("g{id}").into(),
                    set_by: SetBy::Server,
                }))
            }
            7 => Change::GroupGone { app, id: GroupId::new(2 + random.below(5)) },
            8 => {
                let horizon = Seq::new(random.below(seq.get()));
                Change::Purge { horizon: horizon.max(self.central.world.horizon()) }
            }
            9 if !self.states.is_empty() => {
                let at = random.below(self.states.len() as u64) as usize;
                let (&id, &state) = self.states.iter().nth(at).expect("below the length");
                let state = match state {
                    MessageState::Scheduled => MessageState::Active,
                    _ if random.one_in(2) => MessageState::Expired,
                    _ => MessageState::Recalled,
                };
                // A message that ended never changes again.
                match state {
                    MessageState::Active => self.states.insert(id, state),
                    _ => self.states.remove(&id),
                };
                Change::MessageState { app: APP, id, state }
            }
            _ => {
                let edits = !self.states.is_empty() && random.one_in(2);
                let at = random.below(self.states.len() as u64) as usize;
                let (id, state) = match self.states.iter().nth(at) {
                    Some((&id, &state)) if edits => (id, state),
                    _ => {
                        self.ids += 1;
                        let started = self.random.one_in(2);
                        let state =
                            if started { MessageState::Active } else { MessageState::Scheduled };
                        (MessageId::new(self.ids), state)
                    }
                };
                self.states.insert(id, state);
                let tag = Tag::new(self.random.next());
                let wire = Bytes::from(vec![b'm'; self.random.below(200) as usize]);
                Change::Message(Arc::new(MessageRow {
                    id,
                    app: APP,
                    revision: 1,
                    state,
                    to: self.to(),
                    priority: Priority::Normal,
                    collapse_key: None,
                    created_at: Millis(1),
                    not_before: None,
                    expires_at: Millis(99),
                    push: None,
                    variants: vec![Variant { selector: None, tag, wire }],
                }))
            }
        }
    }

    /// It never says the same twice, so this is always an edit; an audience uses none but those with greater ids.
    fn audience(&mut self, id: AudienceId, seq: Seq) -> Change {
        let central = self.central.world.app(APP).expect("it is there");
        let other = AudienceId::new(id.get() + 1);
        let other = central.audience(other).filter(|_| self.random.one_in(2));
        let to = match other {
            Some(other) => format!("@:{}", other.row().id),
            None => "#:0000000000000001".to_owned(),
        };
        Change::Audience(Arc::new(AudienceRow {
            id,
            app: APP,
            name: format!("a{id}").into(),
            revision: 1,
            from: seq,
            expression: format!("{to} and sample(50%, \"{seq}\")").into(),
        }))
    }

    fn to(&mut self) -> Arc<str> {
        let central = self.central.world.app(APP).expect("it is there");
        let audience = AudienceId::new(1 + self.random.below(3));
        match self.random.below(3) {
            0 => "all".into(),
            1 if central.audience(audience).is_some() => format!("@:{audience}").into(),
            _ => "#:0000000000000001".into(),
        }
    }

    fn commit(&mut self) {
        self.catch_up();
        let mut changes = Vec::new();
        let mut seq = self.central.world.seq().next();
        for _ in 0..1 + self.random.below(4) {
            // A purge comes alone, as the ticker commits it.
            match self.change(seq) {
                purge @ Change::Purge { .. } if changes.is_empty() => {
                    changes.push(purge);
                    break;
                }
                Change::Purge { .. } => break,
                change => changes.push(change),
            }
            seq = seq.next();
        }
        self.behind = Some(self.central.apply(changes));
        self.remember();
        if !self.random.one_in(4) {
            self.catch_up();
        }
    }

    fn catch_up(&mut self) {
        if let Some(batch) = self.behind.take() {
            self.central.log.push(batch);
        }
    }

    fn next_epoch(&mut self) -> u64 {
        self.epochs += 1 + self.random.below(3);
        self.epochs
    }

    fn restore(&mut self) -> bool {
        let Some(at) = self.backups.len().checked_sub(1) else { return false };
        let backup = self.backups.remove(self.random.below(at as u64 + 1) as usize);
        // Backups of the branch that is lost are of no use.
        self.backups.retain(|other| other.seq() <= backup.seq());
        let number = self.next_epoch();
        self.behind = None;
        self.central.restore(&backup, number);
        self.states.clear();
        // Ids are never given twice, so messages of the lost branch get other ids.
        self.ids += 1_000;
        self.remember();
        true
    }
}

/// One connection, with what is under way in it.
#[derive(Debug)]
struct Link {
    sender: Sender,
    to_edge: Vec<u8>,
    to_central: Vec<u8>,
    edge_decoder: FrameDecoder,
    central_decoder: FrameDecoder,
    /// Central closed it: it ends when the edge has read all.
    closing: bool,
}

#[derive(Debug)]
struct Edge {
    receiver: Receiver,
    link: Option<Link>,
    served: Option<Arc<World>>,
    window: u64,
}

impl Edge {
    fn new(window: u64) -> Edge {
        let receiver = Receiver::new(ReceiverConfig::default(), SHARD, token(), "e".into());
        Edge { receiver, link: None, served: None, window }
    }

    fn connect(&mut self, now: Instant) {
        self.cut();
        let config = SenderConfig { window: self.window, ..SenderConfig::default() };
        let sender = Sender::new(config, SHARD, now);
        let decoder = || FrameDecoder::new(FRAME_BYTES_MAX);
        let (edge_decoder, central_decoder) = (decoder(), decoder());
        let (to_edge, to_central) = (Vec::new(), Vec::new());
        self.link = Some(Link {
            sender,
            to_edge,
            to_central,
            edge_decoder,
            central_decoder,
            closing: false,
        });
        self.receiver.handle_connected(now);
    }

    fn cut(&mut self) {
        if self.link.take().is_some() {
            self.receiver.handle_disconnected();
        }
    }

    /// Central writes at most `frames` frames.
    fn central_writes(&mut self, frames: u64, now: Instant, shard: &Shard) -> bool {
        let Some(link) = &mut self.link else { return false };
        for done in 0..frames {
            assert!(done < STEPS_MAX as u64, "the sender never comes to rest");
            let (log, world) = (&shard.central.log, &shard.central.world);
            let Some(outgoing) = link.sender.poll_frame(now, CLOCK, log, world) else {
                return done > 0;
            };
            link.to_edge.extend_from_slice(&outgoing.bytes);
            link.closing |= outgoing.close;
            let unacknowledged = link.sender.unacknowledged();
            assert!(
                unacknowledged <= self.window || link.sender.items_in_flight() == 1,
                "{unacknowledged} bytes in {} items, window {}",
                link.sender.items_in_flight(),
                self.window
            );
        }
        true
    }

    fn edge_writes(&mut self, now: Instant) -> bool {
        let Some(link) = &mut self.link else { return false };
        let before = link.to_central.len();
        while let Some(frame) = self.receiver.poll_frame(now) {
            link.to_central.extend_from_slice(&encode(&frame));
        }
        link.to_central.len() > before
    }

    fn central_reads(&mut self, bytes: u64, now: Instant) -> bool {
        let Some(link) = &mut self.link else { return false };
        let bytes = link.to_central.len().min(bytes as usize);
        link.central_decoder.feed(&link.to_central[..bytes]);
        link.to_central.drain(..bytes);
        while let Some((frame, _)) =
            link.central_decoder.next_frame().expect("whole frames of our own")
        {
            let event = link.sender.handle_frame(now, frame).expect("an edge that keeps the rules");
            if let Some(SenderEvent::Hello { .. }) = event {
                link.sender.accept();
            }
        }
        bytes > 0
    }

    fn edge_reads(&mut self, bytes: u64, now: Instant, shard: &Shard, tally: &mut Tally) -> bool {
        let Some(link) = &mut self.link else { return false };
        let bytes = link.to_edge.len().min(bytes as usize);
        link.edge_decoder.feed(&link.to_edge[..bytes]);
        link.to_edge.drain(..bytes);
        while let Some((frame, taken)) =
            link.edge_decoder.next_frame().expect("whole frames of our own")
        {
            match &frame {
                Frame::SnapshotBegin(begin) if begin.resumed => tally.count("walk resumed"),
                Frame::SnapshotBegin(_) if self.served.is_some() => {
                    tally.count("walk while a world is served")
                }
                Frame::SnapshotBegin(_) => tally.count("walk from scratch"),
                Frame::Chunk(Chunk { more: true, .. }) => tally.count("part of a partition"),
                Frame::Batch(_) if self.receiver.snapshot_partitions().is_some() => {
                    tally.count("batch in a walk")
                }
                Frame::Batch(_) => tally.count("batch"),
                Frame::MoreAwaits(_) => tally.count("more awaits"),
                // Its `sent` is checked by the edge, and a difference would fail this test.
                Frame::Heartbeat(_) => tally.count("heartbeat"),
                Frame::Lineage(_) => tally.count("lineage"),
                _ => {}
            }
            match self
                .receiver
                .handle_frame(now, frame, taken)
                .expect("a central that keeps the rules")
            {
                Action::Publish { world, snapshot, .. } => {
                    tally.count(if snapshot { "snapshot published" } else { "published" });
                    check_published(&world, self.served.as_deref(), shard, snapshot);
                    self.served = Some(world);
                }
                Action::Unserve(_) => {
                    tally.count("unserved");
                    self.served = None;
                }
                Action::Nothing | Action::Keys(_) | Action::Reply { .. } => {}
            }
        }
        if link.closing && link.to_edge.is_empty() {
            self.cut();
        }
        bytes > 0
    }
}

fn check_published(world: &World, before: Option<&World>, shard: &Shard, whole: bool) {
    if let Some(before) = before
        && world.judge(before.position()) != Judgement::Reset
    {
        assert!(world.seq() >= before.seq(), "published {} after {}", world.seq(), before.seq());
    }
    // A batch belongs to the newest epoch that had begun when it was committed; several may begin at one seq.
    let central = world
        .lineage()
        .entries()
        .iter()
        .rev()
        .find_map(|line| shard.history.get(&(line.epoch.number, world.seq())));
    let central = central.unwrap_or_else(|| panic!("central was never at {:?}", world.position()));
    assert_eq!(world.horizon(), central.horizon());
    assert_eq!(world.clock(), central.clock(), "at {}", world.seq());
    assert_eq!(world.counts(), central.counts());
    if whole {
        assert_eq!(contents(world).3, contents(central).3, "a snapshot at {}", world.seq());
    }
}

fn step(shard: &mut Shard, edges: &mut [Edge], now: &mut Instant, tally: &mut Tally) {
    let edge = shard.random.below(edges.len() as u64) as usize;
    let some = 1 + shard.random.below(400);
    match shard.random.below(40) {
        0..6 => shard.commit(),
        6 => shard.catch_up(),
        7 if shard.random.one_in(4) => shard.backups.push(shard.central.world.clone()),
        8 if shard.random.one_in(8) => {
            // What was not in the log yet was committed: the process finds it in the store.
            shard.behind = None;
            let number = shard.next_epoch();
            shard.central.restart(number);
            shard.remember();
            edges.iter_mut().for_each(Edge::cut);
            tally.count("restart");
        }
        9 if shard.random.one_in(6) => {
            shard.catch_up();
            let number = shard.next_epoch();
            shard.central.begin_epoch(number, false);
            shard.remember();
            tally.count("epoch within the process");
        }
        10 if shard.random.one_in(10) => {
            if shard.restore() {
                tally.count("restore");
                if shard.random.one_in(2) {
                    edges.iter_mut().for_each(Edge::cut);
                }
            }
        }
        11 if shard.random.one_in(2) || edges[edge].receiver.snapshot_partitions().is_some() => {
            edges[edge].cut();
            tally.count("cut");
        }
        12 if shard.random.one_in(6) => *now += Duration::from_secs(5),
        12 => *now += Duration::from_millis(shard.random.below(80)),
        13 | 14 => {
            if edges[edge].link.is_none() {
                edges[edge].connect(*now);
            }
        }
        15..20 => {
            edges[edge].edge_writes(*now);
        }
        20..25 => {
            edges[edge].central_reads(some, *now);
        }
        25..32 => {
            edges[edge].central_writes(1 + some % 4, *now, shard);
        }
        _ => {
            edges[edge].edge_reads(some * 4, *now, shard, tally);
        }
    }
}

/// No more writes: everything that is under way arrives.
fn come_to_rest(shard: &mut Shard, edges: &mut [Edge], now: &mut Instant, tally: &mut Tally) {
    shard.catch_up();
    for edge in edges {
        for round in 0.. {
            assert!(round < 20_000, "the edge never comes to rest");
            if edge.link.is_none() {
                edge.connect(*now);
            }
            let moved = [
                edge.edge_writes(*now),
                edge.central_reads(u64::MAX, *now),
                edge.central_writes(u64::MAX, *now, shard),
                edge.edge_reads(u64::MAX, *now, shard, tally),
            ];
            if moved == [false; 4] && edge.link.is_some() {
                break;
            }
        }
        let served = edge.served.as_deref().expect("an edge at rest has a world");
        assert_eq!(contents(served), contents(&shard.central.world));
        assert_alike(served, &shard.central.world, "at rest");
        assert_eq!(edge.receiver.snapshot_partitions(), None);
    }
}

fn run(seed: u64, tally: &mut Tally) {
    let mut shard = Shard::new(seed);
    let mut now = Instant::now();
    let mut edges: Vec<Edge> = (0..EDGES)
        .map(|_| Edge::new([200, 1_600, 8_000, 1 << 20][shard.random.below(4) as usize]))
        .collect();
    for _ in 0..2 {
        for _ in 0..STEPS / 2 {
            step(&mut shard, &mut edges, &mut now, tally);
        }
        come_to_rest(&mut shard, &mut edges, &mut now, tally);
    }
}

#[test]
fn edges_have_what_central_has_whatever_happens_on_the_way() {
    let mut tally = Tally::default();
    if let Some(seed) = std::env::var("CARILLON_SEED").ok().and_then(|text| text.parse().ok()) {
        run(seed, &mut tally);
        return;
    }
    for seed in 0..SEEDS {
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed, &mut tally)));
        assert!(outcome.is_ok(), "replay with CARILLON_SEED={seed}");
    }
    for event in [
        "batch",
        "batch in a walk",
        "cut",
        "epoch within the process",
        "heartbeat",
        "lineage",
        "more awaits",
        "part of a partition",
        "published",
        "restart",
        "restore",
        "snapshot published",
        "unserved",
        "walk from scratch",
        "walk resumed",
        "walk while a world is served",
    ] {
        assert!(
            tally.events.get(event).is_some_and(|&times| times > 50),
            "{event} is too rare: {tally:?}"
        );
    }
    println!("{tally:?}");
}
