//! The rules of the stream, each by hand; `model` has them all at random.

mod model;
mod room;
mod rules;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::{
    AppId, AppRow, Batch, Change, ChangeLog, DeviceId, DeviceRow, Environment, Epoch, Lineage,
    LineageEntry, LogBatch, Millis, Partition, Position, Row, Seq, ShardId, World,
};

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Evenly in 0..end; 0 if that is empty.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

const SHARD: ShardId = ShardId::FIRST;
const APP: AppId = AppId::new(1);
const CLOCK: Millis = Millis(7);

/// More than any test here needs.
const STEPS_MAX: usize = 100_000;

fn epoch(number: u64) -> Epoch {
    Epoch { number, tag: number * 77 }
}

fn app_row(id: AppId, name: &str) -> Change {
    Change::App(Arc::new(AppRow {
        id,
        name: name.into(),
        environment: Environment::Sandbox,
        publishable_key: format!("pk{id}").into(),
        created_at: Millis(1),
        quotas: crate::Quotas::default(),
        push: None,
    }))
}

fn device_row(id: u64, user: &str, seq: Seq) -> Change {
    Change::Device(Arc::new(DeviceRow {
        id: DeviceId::new(id),
        app: APP,
        generation: seq,
        p: seq,
        created_at: Millis(1),
        user: Some(user.into()),
        attributes: Box::new([]),
        groups: Box::new([]),
        private: None,
        last_seen: Millis::ZERO,
    }))
}

/// The truth: a world, its log, and the ways in which they change.
#[derive(Debug)]
struct Central {
    world: World,
    log: ChangeLog,
    log_bytes_max: usize,
}

impl Central {
    fn new(log_bytes_max: usize) -> Central {
        let line = LineageEntry { epoch: epoch(1), began_after: Seq::ZERO, fork: false };
        let world = World::empty(SHARD, Lineage::try_new(vec![line]).unwrap());
        Central { world, log: ChangeLog::new(log_bytes_max, Seq::ZERO), log_bytes_max }
    }

    /// Applies a batch to the world; the log gets it when the caller says so.
    fn apply(&mut self, changes: Vec<Change>) -> Arc<LogBatch> {
        let batch = Batch { first: self.world.seq().next(), changes };
        let mut next = self.world.clone();
        next.apply(&batch).expect("the test makes valid batches");
        self.world = next;
        let epoch = self.world.lineage().newest().epoch;
        let frame = encode_batch(epoch, &batch);
        Arc::new(LogBatch { epoch, first: batch.first, last: batch.last(), frame })
    }

    /// Returns the size of the batch's frame.
    fn commit(&mut self, changes: Vec<Change>) -> u64 {
        let batch = self.apply(changes);
        let bytes = batch.frame.len() as u64;
        self.log.push(batch);
        bytes
    }

    /// One device, whose user name makes the frame about so long.
    fn commit_device(&mut self, id: u64, bytes: usize) -> u64 {
        let seq = self.world.seq().next();
        self.commit(vec![device_row(id, &"u".repeat(bytes), seq)])
    }

    /// `count` devices in batches of their own, after the app that they belong to.
    fn with_devices(log_bytes_max: usize, count: u64) -> Central {
        let mut central = Central::new(log_bytes_max);
        central.commit(vec![app_row(APP, "shop")]);
        (1..=count).for_each(|id| {
            central.commit_device(id, 50);
        });
        central
    }

    fn begin_epoch(&mut self, number: u64, fork: bool) {
        let mut lineage = self.world.lineage().clone();
        lineage
            .push(LineageEntry { epoch: epoch(number), began_after: self.world.seq(), fork })
            .unwrap();
        self.world.set_lineage(lineage);
    }

    /// The process starts again: a new epoch, an empty log.
    fn restart(&mut self, number: u64) {
        self.begin_epoch(number, false);
        self.log = ChangeLog::new(self.log_bytes_max, self.world.seq());
    }

    /// The store is what it was when `backup` was taken, and the operator accepted that.
    fn restore(&mut self, backup: &World, number: u64) {
        self.world = backup.clone();
        self.begin_epoch(number, true);
        self.log = ChangeLog::new(self.log_bytes_max, self.world.seq());
    }
}

/// All rows, the seq, the horizon and the lineage.
fn contents(world: &World) -> (Seq, Seq, Lineage, Vec<Vec<Row>>) {
    let rows = Partition::all().map(|partition| world.partition_rows(partition)).collect();
    (world.seq(), world.horizon(), world.lineage().clone(), rows)
}

fn token() -> LinkToken {
    LinkToken::new(&b"secret"[..])
}

fn hello(at: Option<Position>, stamps: Option<Stamps>) -> Hello {
    Hello { versions: vec![1], token: token(), edge: "e".into(), shard: SHARD, at, stamps }
}

fn decode(bytes: &[u8]) -> Frame {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    decoder.feed(bytes);
    decoder.next_frame().expect("our own frames can be read").expect("and are whole").0
}

/// A sender that said welcome to `hello`.
fn accepted(window: u64, hello: Hello, central: &Central, now: Instant) -> Sender {
    let config = SenderConfig { window, ..SenderConfig::default() };
    let mut sender = Sender::new(config, SHARD, now);
    let event = sender.handle_frame(now, Frame::Hello(hello)).expect("a good hello");
    assert!(matches!(event, Some(SenderEvent::Hello { .. })));
    sender.accept();
    let welcome = poll(&mut sender, now, central).expect("a welcome");
    assert!(matches!(welcome, Frame::Welcome(_)));
    sender
}

fn poll(sender: &mut Sender, now: Instant, central: &Central) -> Option<Frame> {
    sender
        .poll_frame(now, CLOCK, &central.log, &central.world)
        .map(|outgoing| decode(&outgoing.bytes))
}

/// All that the sender has to say.
fn poll_all(sender: &mut Sender, now: Instant, central: &Central) -> Vec<Frame> {
    let frames: Vec<Frame> =
        std::iter::from_fn(|| poll(sender, now, central)).take(STEPS_MAX).collect();
    assert!(frames.len() < STEPS_MAX, "the sender never comes to rest");
    frames
}

fn names(frames: &[Frame]) -> Vec<&'static str> {
    frames.iter().map(Frame::name).collect()
}

/// A sender and a receiver on one connection without delay.
#[derive(Debug)]
struct Pair {
    sender: Sender,
    receiver: Receiver,
    now: Instant,
    actions: Vec<Action>,
    to_edge: Vec<Frame>,
    to_central: Vec<Frame>,
}

impl Pair {
    fn new(window: u64) -> Pair {
        let now = Instant::now();
        let receiver = Receiver::new(ReceiverConfig::default(), SHARD, token(), "e".into());
        let mut pair = Pair {
            sender: Sender::new(SenderConfig { window, ..SenderConfig::default() }, SHARD, now),
            receiver,
            now,
            actions: Vec::new(),
            to_edge: Vec::new(),
            to_central: Vec::new(),
        };
        pair.receiver.handle_connected(now);
        pair
    }

    fn reconnect(&mut self, window: u64) {
        self.receiver.handle_disconnected();
        self.sender =
            Sender::new(SenderConfig { window, ..SenderConfig::default() }, SHARD, self.now);
        self.receiver.handle_connected(self.now);
        self.actions.clear();
        self.to_edge.clear();
        self.to_central.clear();
    }

    /// One frame of the edge's, if it has any, else one of central's. `false` when neither has.
    fn step(&mut self, central: &Central) -> Result<bool, ReceiveError> {
        if let Some(frame) = self.receiver.poll_frame(self.now) {
            self.to_central.push(frame.clone());
            if let Some(SenderEvent::Hello { .. }) =
                self.sender.handle_frame(self.now, frame).unwrap()
            {
                self.sender.accept();
            }
            return Ok(true);
        }
        let Some(outgoing) = self.sender.poll_frame(self.now, CLOCK, &central.log, &central.world)
        else {
            return Ok(false);
        };
        let frame = decode(&outgoing.bytes);
        self.to_edge.push(frame.clone());
        let action = self.receiver.handle_frame(self.now, frame, outgoing.bytes.len())?;
        if !matches!(action, Action::Nothing) {
            self.actions.push(action);
        }
        Ok(true)
    }

    fn run(&mut self, central: &Central) {
        let steps = (0..STEPS_MAX)
            .take_while(|_| self.step(central).expect("no fault on this link"))
            .count();
        assert!(steps < STEPS_MAX, "the link never comes to rest");
    }

    fn seq(&self) -> Option<Seq> {
        self.receiver.world().map(|world| world.seq())
    }
}

fn later(now: Instant, millis: u64) -> Instant {
    now + Duration::from_millis(millis)
}

fn body(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}
