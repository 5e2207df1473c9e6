//! The edge's end: follows one shard over any number of connections and keeps the edge's copy of its world.
//!
//! What always holds: a world that was published stays whole and is never changed; within one lineage the published
//! seq never goes back; an edge that was cut off by a restore serves nothing until it has the restored truth.
//! `stream.rs` has the rules.
//!
//! The shell feeds frames and time, writes what `poll_frame` gives until it gives nothing, and polls again after
//! every frame, at `poll_timeout`, and after `queue_write`. It opens a connection again when it ended, when
//! `handle_frame` failed, or when the receiver is not `live` at `poll_timeout`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::codec::FRAME_BYTES_MAX;
use super::partial::Partial;
use super::{
    Envelope, EpochBatch, Frame, Heartbeat, Hello, Keys, LinkToken, Progress, RefusalCode,
    SnapshotBegin, VERSIONS, Welcome,
};
use crate::{
    Applied, ApplyError, Counts, Epoch, Judgement, Lineage, Position, Seq, ShardId, World,
};

#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    pub heartbeat: Duration,
    /// Silence that means a dead link: three heartbeats, so a lost packet costs nothing.
    pub silence_max: Duration,
    /// How long something applied may wait for its acknowledgement.
    pub ack_delay: Duration,
    /// The most bytes in a frame from central.
    pub frame_bytes_max: usize,
    /// Writes that may wait for their replies; not more than central allows.
    pub writes_max: usize,
    /// The RAM that worlds may take, by the formula of [`Usage`](crate::Usage). While a snapshot comes that is the
    /// world served and what is there of the next one.
    pub world_bytes_max: u64,
}

impl Default for ReceiverConfig {
    fn default() -> ReceiverConfig {
        ReceiverConfig {
            heartbeat: Duration::from_secs(5),
            silence_max: Duration::from_secs(15),
            ack_delay: Duration::from_millis(50),
            frame_bytes_max: FRAME_BYTES_MAX,
            writes_max: 1024,
            world_bytes_max: u64::MAX,
        }
    }
}

#[derive(Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    shard: ShardId,
    token: LinkToken,
    name: String,
    world: Option<Arc<World>>,
    /// A batch did not apply to the world, or had no room: it is served, but only a snapshot leads further.
    spoilt: bool,
    partial: Option<Partial>,
    /// The newest that was heard. World and partial are in its past.
    lineage: Option<Lineage>,
    head: Option<Seq>,
    /// What the whole world of the walk under way will take, in bytes.
    expected: u64,
    link: Option<Link>,
}

/// What ends with the connection.
#[derive(Debug)]
struct Link {
    stage: Stage,
    heard_at: Instant,
    /// When to say that we are here.
    alive_at: Instant,
    /// Bytes that may wait for an acknowledgement.
    ack_bytes_max: u64,
    /// Bytes applied since the last acknowledgement.
    ack_bytes: u64,
    ack_at: Option<Instant>,
    send_after: bool,
    chunks: u64,
    writes: VecDeque<Envelope>,
    /// Writes queued or sent, without a reply.
    writes_open: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// `Hello` was not sent yet.
    Opened,
    AwaitWelcome,
    /// What comes next tells whether central goes on from the world or begins a walk.
    Welcomed,
    Following,
    Walking,
}

/// What the shell does next.
#[derive(Debug)]
#[must_use]
pub enum Action {
    Nothing,
    /// Answer from this world from here on, and wake whom `applied` concerns; after a `snapshot` that is everybody.
    Publish {
        world: Arc<World>,
        applied: Applied,
        snapshot: bool,
    },
    /// Answer nothing from the world any more.
    Unserve(Unserved),
    Keys(Keys),
    Reply {
        id: u64,
        body: Bytes,
    },
}

/// Why a world is not served any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// A restore cut it off.
    CutOff,
    /// Only without it there is room for the snapshot that comes.
    NoRoom,
}

/// The connection is of no use any more. The world stays, and another connection goes on from it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("central refused the link ({code:?}): {reason}")]
    Refused { code: RefusalCode, reason: String },
    #[error("a {frame} frame where none may come")]
    Unexpected { frame: &'static str },
    #[error("version {got}, which was not offered")]
    Version { got: u16 },
    #[error("shard {got} instead of {ours}")]
    Shard { got: ShardId, ours: ShardId },
    /// A deposed owner still sends.
    #[error("a lineage that ends with {got:?} when {known:?} is known")]
    StaleLineage { got: Epoch, known: Epoch },
    #[error("a batch from {first} to {last} of {epoch:?}, which the lineage does not have there")]
    WrongEpoch { epoch: Epoch, first: Seq, last: Seq },
    #[error("a batch from {first} after {applied}")]
    Gap { applied: Seq, first: Seq },
    #[error("a heartbeat that says {sent} was sent when {applied} is applied")]
    Lost { applied: Seq, sent: Seq },
    #[error("a walk with {what}")]
    BrokenWalk { what: &'static str },
    /// The store behind central lost changes, and no restore was declared yet.
    #[error("a snapshot at {from} when {applied} is served in the same lineage")]
    Rollback { applied: Seq, from: Seq },
    /// This machine has too little memory for the world. It may come to fit later.
    #[error("the world needs {needed} bytes and {available} are available for it")]
    NoRoom { needed: u64, available: u64 },
    #[error("apply")]
    Apply(#[from] ApplyError),
}

/// Too many writes wait for their replies, or there is no link. Answer the device that it shall try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room or no link for another write")]
pub struct WriteQueueFull;

impl Receiver {
    /// `name`: for people, at most [`Hello::EDGE_BYTES_MAX`] bytes.
    pub fn new(config: ReceiverConfig, shard: ShardId, token: LinkToken, name: String) -> Receiver {
        let (world, partial, lineage, head, link) = (None, None, None, None, None);
        Receiver {
            config,
            shard,
            token,
            name,
            world,
            spoilt: false,
            partial,
            lineage,
            head,
            expected: 0,
            link,
        }
    }

    #[cfg(test)]
    pub(super) fn set_config(&mut self, config: ReceiverConfig) {
        self.config = config;
    }

    /// The world to answer from, if there is one.
    pub fn world(&self) -> Option<&Arc<World>> {
        self.world.as_ref()
    }

    /// The most bytes that a frame from central may have.
    pub fn frame_bytes_max(&self) -> usize {
        self.config.frame_bytes_max
    }

    /// A connection is open.
    pub fn handle_connected(&mut self, now: Instant) {
        self.link = Some(Link {
            stage: Stage::Opened,
            heard_at: now,
            alive_at: now + self.config.heartbeat,
            ack_bytes_max: 0,
            ack_bytes: 0,
            ack_at: None,
            send_after: false,
            chunks: 0,
            writes: VecDeque::new(),
            writes_open: 0,
        });
    }

    /// The connection ended. World and snapshot stay; the outcome of writes without a reply is unknown.
    pub fn handle_disconnected(&mut self) {
        self.link = None;
        if let Some(partial) = &mut self.partial {
            partial.drop_unfinished();
        }
    }

    /// Whether central was heard lately.
    pub fn live(&self, now: Instant) -> bool {
        self.link.as_ref().is_some_and(|link| {
            !matches!(link.stage, Stage::Opened | Stage::AwaitWelcome)
                && now < link.heard_at + self.config.silence_max
        })
    }

    /// How many changes the world lacks, by what was heard. `None` without a world.
    pub fn lag(&self) -> Option<u64> {
        let applied = self.world.as_ref()?.seq();
        Some(self.head.map_or(0, |head| head.since(applied)))
    }

    /// How many partitions of a snapshot are there, while one comes.
    pub fn snapshot_partitions(&self) -> Option<usize> {
        self.partial.as_ref().map(Partial::partitions)
    }

    /// Queues a request to central.
    ///
    /// # Errors
    /// If there is no link that streams, or too many requests wait.
    pub fn queue_write(&mut self, id: u64, body: Bytes) -> Result<(), WriteQueueFull> {
        let link = self.link.as_mut().ok_or(WriteQueueFull)?;
        let streams = !matches!(link.stage, Stage::Opened | Stage::AwaitWelcome);
        if !streams || link.writes_open >= self.config.writes_max {
            return Err(WriteQueueFull);
        }
        link.writes_open += 1;
        link.writes.push_back(Envelope { id, body });
        Ok(())
    }

    /// Takes one frame of `bytes` (length field included) that arrived at `now`.
    ///
    /// # Errors
    /// If the connection is of no use any more: close it.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        frame: Frame,
        bytes: usize,
    ) -> Result<Action, ReceiveError> {
        let name = frame.name();
        let unexpected = ReceiveError::Unexpected { frame: name };
        let Some(link) = &mut self.link else { return Err(unexpected) };
        link.heard_at = now;
        match (link.stage, frame) {
            (Stage::AwaitWelcome, Frame::Welcome(welcome)) => self.take_welcome(welcome),
            (Stage::Opened | Stage::AwaitWelcome, Frame::Refused(refused)) => {
                Err(ReceiveError::Refused { code: refused.code, reason: refused.reason })
            }
            (Stage::Opened | Stage::AwaitWelcome, _) => Err(unexpected),
            (_, Frame::Keys(keys)) => Ok(Action::Keys(keys)),
            (_, Frame::Reply(Envelope { id, body })) => {
                link.writes_open = link.writes_open.saturating_sub(1);
                Ok(Action::Reply { id, body })
            }
            (_, Frame::Refused(refused)) => {
                Err(ReceiveError::Refused { code: refused.code, reason: refused.reason })
            }
            (_, Frame::Lineage(lineage)) => self.take_lineage(lineage),
            (_, Frame::SnapshotBegin(begin)) => self.take_begin(&begin),
            (_, Frame::Chunk(chunk)) => {
                let partial = self
                    .partial
                    .as_mut()
                    .filter(|_| link.stage == Stage::Walking)
                    .ok_or(unexpected)?;
                partial.take_chunk(chunk)?;
                link.chunks += 1;
                link.applied(now, bytes, self.config.ack_delay);
                self.go_on()
            }
            (_, Frame::Batch(body)) => {
                self.settle(&unexpected)?;
                self.take_batch(&body, now, bytes)
            }
            (_, Frame::MoreAwaits(more)) => {
                self.settle(&unexpected)?;
                self.head = Some(more.head);
                self.link.as_mut().ok_or(unexpected)?.send_after = true;
                Ok(Action::Nothing)
            }
            (_, Frame::Heartbeat(heartbeat)) => {
                self.settle(&unexpected)?;
                self.take_heartbeat(heartbeat)
            }
            (
                _,
                Frame::Hello(_)
                | Frame::Ack(_)
                | Frame::SendAfter(_)
                | Frame::Write(_)
                | Frame::Alive,
            ) => Err(unexpected),
            (_, Frame::Welcome(_)) => Err(unexpected),
        }
    }

    fn take_welcome(&mut self, welcome: Welcome) -> Result<Action, ReceiveError> {
        if !VERSIONS.contains(&welcome.version) {
            return Err(ReceiveError::Version { got: welcome.version });
        }
        if welcome.shard != self.shard {
            return Err(ReceiveError::Shard { got: welcome.shard, ours: self.shard });
        }
        let action = self.take_lineage(welcome.lineage)?;
        if let Some(link) = &mut self.link {
            link.stage = Stage::Welcomed;
            link.ack_bytes_max = welcome.window / ACKS_A_WINDOW;
        }
        Ok(action)
    }

    /// Judges what is there by a lineage that central sent.
    fn take_lineage(&mut self, lineage: Lineage) -> Result<Action, ReceiveError> {
        let (got, shard) = (lineage.newest().epoch, self.shard);
        let Some(known) = self.lineage.replace(lineage.clone()) else { return Ok(Action::Nothing) };
        if known.newest().epoch.number > got.number {
            let stale = ReceiveError::StaleLineage { got, known: known.newest().epoch };
            self.lineage = Some(known);
            return Err(stale);
        }
        let is_past = |seq| {
            let position = Position { shard, epoch: known.epoch_at(seq), seq };
            lineage.judge(seq, position) == Judgement::Past
        };
        if self.partial.as_ref().is_some_and(|partial| !is_past(partial.top())) {
            self.partial = None;
            if let Some(link) = self.link.as_mut().filter(|link| link.stage == Stage::Walking) {
                link.stage = Stage::Welcomed;
            }
        }
        let Some(world) = &self.world else { return Ok(Action::Nothing) };
        if !is_past(world.seq()) {
            self.world = None;
            self.head = None;
            return Ok(Action::Unserve(Unserved::CutOff));
        }
        if lineage == known {
            return Ok(Action::Nothing);
        }
        let mut next = World::clone(world);
        next.set_lineage(lineage);
        Ok(self.publish(next, Applied::default(), false))
    }

    fn take_begin(&mut self, begin: &SnapshotBegin) -> Result<Action, ReceiveError> {
        if let Some(world) = &self.world
            && begin.from < world.seq()
        {
            return Err(ReceiveError::Rollback { applied: world.seq(), from: begin.from });
        }
        match &mut self.partial {
            Some(partial) if begin.resumed => partial.resume(begin),
            None if begin.resumed => {
                return Err(ReceiveError::BrokenWalk { what: "nothing to go on from" });
            }
            _ => self.partial = Some(Partial::new(self.shard, begin)),
        }
        if let Some(link) = &mut self.link {
            link.stage = Stage::Walking;
        }
        self.expected = begin.bytes.unwrap_or_else(|| estimated(&begin.counts));
        self.go_on()
    }

    /// Goes on with a walk if there is room for what is there and what will come.
    fn go_on(&mut self) -> Result<Action, ReceiveError> {
        let present = self.partial.as_ref().map_or(0, Partial::bytes);
        let (needed, available) = (self.expected.max(present), self.config.world_bytes_max);
        if needed > available {
            self.partial = None;
            return Err(ReceiveError::NoRoom { needed, available });
        }
        let action = self.finish_walk()?;
        let walking = self.partial.is_some();
        let served = self.world.as_ref().map(|world| world.usage().total());
        if walking && served.is_some_and(|served| served > available - needed) {
            self.world = None;
            self.head = None;
            return Ok(Action::Unserve(Unserved::NoRoom));
        }
        Ok(action)
    }

    /// Anything but a `SnapshotBegin` after the `Welcome` means that central goes on from the world.
    fn settle(&mut self, unexpected: &ReceiveError) -> Result<(), ReceiveError> {
        if let Some(link) = self.link.as_mut().filter(|link| link.stage == Stage::Welcomed) {
            if self.world.is_none() || self.spoilt {
                return Err(unexpected.clone());
            }
            link.stage = Stage::Following;
            self.partial = None;
        }
        Ok(())
    }

    fn take_batch(
        &mut self,
        body: &EpochBatch,
        now: Instant,
        bytes: usize,
    ) -> Result<Action, ReceiveError> {
        self.check_epoch(body)?;
        let (first, last) = (body.batch.first, body.batch.last());
        let link = self.link.as_mut().ok_or(ReceiveError::Unexpected { frame: "Batch" })?;
        if let Some(partial) = self.partial.as_mut().filter(|_| link.stage == Stage::Walking) {
            partial.take_batch(body)?;
            link.applied(now, bytes, self.config.ack_delay);
            return self.go_on();
        }
        let world = self.world.as_ref().ok_or(ReceiveError::Unexpected { frame: "Batch" })?;
        if last > world.seq() && first != world.seq().next() {
            return Err(ReceiveError::Gap { applied: world.seq(), first });
        }
        link.applied(now, bytes, self.config.ack_delay);
        if last <= world.seq() {
            return Ok(Action::Nothing);
        }
        let mut next = World::clone(world);
        match next.apply(&body.batch) {
            Ok(applied) => {
                let (needed, available) = (next.usage().total(), self.config.world_bytes_max);
                if needed > available && needed > world.usage().total() {
                    self.spoilt = true;
                    return Err(ReceiveError::NoRoom { needed, available });
                }
                Ok(self.publish(next, applied, false))
            }
            Err(error) => {
                self.spoilt = true;
                Err(error.into())
            }
        }
    }

    /// Whether the lineage has the batch's seqs in the batch's epoch.
    fn check_epoch(&self, body: &EpochBatch) -> Result<(), ReceiveError> {
        let (epoch, first, last) = (body.epoch, body.batch.first, body.batch.last());
        let fits = self.lineage.as_ref().is_some_and(|lineage| {
            let began = lineage
                .entries()
                .iter()
                .find(|line| line.epoch == epoch)
                .map(|line| line.began_after);
            let position = Position { shard: self.shard, epoch, seq: last };
            began.is_some_and(|after| after < first)
                && lineage.judge(last, position) == Judgement::Past
        });
        if fits { Ok(()) } else { Err(ReceiveError::WrongEpoch { epoch, first, last }) }
    }

    fn take_heartbeat(&mut self, heartbeat: Heartbeat) -> Result<Action, ReceiveError> {
        self.head = Some(heartbeat.head);
        let applied = self.progress().seq;
        if heartbeat.sent != applied {
            return Err(ReceiveError::Lost { applied, sent: heartbeat.sent });
        }
        Ok(Action::Nothing)
    }

    fn finish_walk(&mut self) -> Result<Action, ReceiveError> {
        let Some(partial) = self.partial.take_if(|partial| partial.is_whole()) else {
            return Ok(Action::Nothing);
        };
        let lineage = self.lineage.clone().ok_or(ReceiveError::Unexpected { frame: "Chunk" })?;
        let world = partial.finish(lineage)?;
        self.spoilt = false;
        if let Some(link) = &mut self.link {
            link.stage = Stage::Following;
        }
        Ok(self.publish(world, Applied::default(), true))
    }

    fn publish(&mut self, world: World, applied: Applied, snapshot: bool) -> Action {
        let world = Arc::new(world);
        self.head = self.head.max(Some(world.seq()));
        self.world = Some(world.clone());
        Action::Publish { world, applied, snapshot }
    }

    /// The next frame to write, if there is one.
    pub fn poll_frame(&mut self, now: Instant) -> Option<Frame> {
        let progress = self.progress();
        let link = self.link.as_mut()?;
        match link.stage {
            Stage::Opened => {
                link.stage = Stage::AwaitWelcome;
                return Some(Frame::Hello(self.hello()));
            }
            Stage::AwaitWelcome => return None,
            Stage::Welcomed | Stage::Following | Stage::Walking => {}
        }
        if link.send_after {
            link.send_after = false;
            link.acknowledged();
            return Some(Frame::SendAfter(progress));
        }
        if link.ack_at.is_some_and(|at| now >= at)
            || (link.ack_at.is_some() && link.ack_bytes >= link.ack_bytes_max)
        {
            link.acknowledged();
            return Some(Frame::Ack(progress));
        }
        if let Some(write) = link.writes.pop_front() {
            return Some(Frame::Write(write));
        }
        if now >= link.alive_at {
            link.alive_at = now + self.config.heartbeat;
            return Some(Frame::Alive);
        }
        None
    }

    /// When the link is dead, unless central is heard before. `None` without a connection.
    pub fn silent_at(&self) -> Option<Instant> {
        Some(self.link.as_ref()?.heard_at + self.config.silence_max)
    }

    /// When `poll_frame` and `live` want to be called, unless something happens before. `None` without a connection. In
    /// the past while a frame is due, so whoever cannot write yet waits for [`Receiver::silent_at`] instead.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let (link, dead) = (self.link.as_ref()?, self.silent_at()?);
        Some(match link.stage {
            Stage::Opened | Stage::AwaitWelcome => dead,
            _ => dead.min(link.alive_at).min(link.ack_at.unwrap_or(dead)),
        })
    }

    /// What central gets to know of how far we are.
    fn progress(&self) -> Progress {
        let link = self.link.as_ref();
        let partial =
            self.partial.as_ref().filter(|_| link.is_some_and(|link| link.stage == Stage::Walking));
        let followed = self.world.as_ref().map(|world| world.seq());
        Progress {
            seq: partial.map(Partial::applied).or(followed).unwrap_or(Seq::ZERO),
            chunks: link.map_or(0, |link| link.chunks),
        }
    }

    fn hello(&self) -> Hello {
        let stamps = self.partial.as_ref().zip(self.lineage.as_ref());
        Hello {
            versions: VERSIONS.to_vec(),
            token: self.token.clone(),
            edge: self.name.clone(),
            shard: self.shard,
            at: self.world.as_ref().filter(|_| !self.spoilt).map(|world| world.position()),
            stamps: stamps.and_then(|(partial, lineage)| partial.stamps(lineage)),
        }
    }
}

/// About what a world takes of which only the counts are known, in bytes: generous, for it is asked only of a central
/// of the release before.
fn estimated(counts: &Counts) -> u64 {
    const DEVICE: u64 = 800;
    const MESSAGE: u64 = 4_000;
    counts.devices.saturating_mul(DEVICE).saturating_add(counts.messages.saturating_mul(MESSAGE))
}

/// The edge acknowledges at latest every eighth of a window.
const ACKS_A_WINDOW: u64 = 8;

impl Link {
    /// A batch or chunk was applied.
    fn applied(&mut self, now: Instant, bytes: usize, ack_delay: Duration) {
        self.ack_bytes += bytes as u64;
        self.ack_at.get_or_insert(now + ack_delay);
    }

    fn acknowledged(&mut self) {
        self.ack_bytes = 0;
        self.ack_at = None;
    }
}
