//! Central's end of one connection.
//!
//! It keeps no queue: a cursor into the shared change log, a mark and a size for each item in flight, and during a
//! snapshot one stamp a partition. So an edge costs central the same whatever the backlog. `stream.rs` has the rules.
//!
//! The shell feeds frames and time, writes what `poll_frame` gives until it gives nothing, and polls again after
//! every frame, at `poll_timeout`, and whenever the log has grown. It publishes a world before it pushes the world's
//! last batch to the log, and gives a world and a log of the same history.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::codec::{self, FRAME_BYTES_MAX, UNKNOWN_PEER_FRAME_BYTES_MAX};
use super::flow::Flow;
use super::frame::VERSION_WITH_BYTES;
use super::walk::Walk;
use super::{
    Envelope, Frame, Heartbeat, Hello, Keys, LinkToken, MoreAwaits, Progress, RefusalCode, Refused,
    SnapshotBegin, Stamps, VERSIONS, Welcome,
};
use crate::{ChangeLog, Judgement, Lineage, LogRead, Millis, Position, Seq, ShardId, World};

#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// Bytes that may be unacknowledged. More lets a long line be full; it is also what a slow edge costs in the
    /// socket's buffers.
    pub window: u64,
    pub heartbeat: Duration,
    /// Silence that means a dead link: three heartbeats, so a lost packet costs nothing.
    pub silence_max: Duration,
    /// The most bytes in a frame from an edge whose token was accepted.
    pub frame_bytes_max: usize,
    /// Writes of one edge that may wait for their replies.
    pub writes_max: usize,
}

impl Default for SenderConfig {
    fn default() -> SenderConfig {
        SenderConfig {
            window: 4 << 20,
            heartbeat: Duration::from_secs(5),
            silence_max: Duration::from_secs(15),
            frame_bytes_max: FRAME_BYTES_MAX,
            writes_max: 1024,
        }
    }
}

#[derive(Debug)]
pub struct Sender {
    config: SenderConfig,
    shard: ShardId,
    stage: Stage,
    /// The latest keys, encoded: those before them are void.
    keys: Option<Bytes>,
    /// At most `writes_max`.
    replies: VecDeque<Bytes>,
    /// Writes whose replies were not queued yet.
    writes_open: usize,
    heard_at: Instant,
    heartbeat_at: Instant,
}

#[derive(Debug)]
enum Stage {
    AwaitHello,
    /// The shell looks at the token.
    AwaitVerdict(Box<Hello>),
    Accepted(Box<Hello>),
    Refusing(Refused),
    Streaming(Box<Streaming>),
    Closed,
}

#[derive(Debug)]
struct Streaming {
    version: u16,
    /// The lineage that the edge knows.
    lineage: Lineage,
    flow: Flow,
    walk: Option<Walk>,
    /// A `SnapshotBegin` that goes before any batch or chunk.
    begin: Option<Frame>,
}

/// What the edge wants of the shell.
#[derive(Debug)]
pub enum SenderEvent {
    /// Check the token in constant time, then call [`Sender::accept`] or [`Sender::refuse`]. `at` may be a witness of
    /// changes that the store lost.
    Hello { token: LinkToken, edge: String, at: Option<Position> },
    /// Answer it with [`Sender::queue_reply`].
    Write { id: u64, body: Bytes },
}

/// Bytes to write, whole frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub bytes: Bytes,
    /// Close the link when they are written.
    pub close: bool,
}

/// The link has to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    #[error("a {frame} frame where none may come")]
    Unexpected { frame: &'static str },
    #[error("a hello with {what}")]
    BadHello { what: &'static str },
    #[error("an acknowledgement of {got:?} when {sent:?} was sent")]
    AckOfUnsent { got: Progress, sent: Progress },
    #[error("more than {writes_max} writes wait for replies")]
    TooManyWrites { writes_max: usize },
    #[error("nothing heard for {0:?}")]
    Silent(Duration),
    #[error("a reply to a write that is not open")]
    ReplyUnasked,
}

impl Sender {
    pub fn new(config: SenderConfig, shard: ShardId, now: Instant) -> Sender {
        let heartbeat_at = now + config.heartbeat;
        let (stage, replies) = (Stage::AwaitHello, VecDeque::new());
        Sender {
            config,
            shard,
            stage,
            keys: None,
            replies,
            writes_open: 0,
            heard_at: now,
            heartbeat_at,
        }
    }

    /// The most bytes that the next frame from the edge may have.
    pub fn frame_bytes_max(&self) -> usize {
        match self.stage {
            Stage::Accepted(_) | Stage::Streaming(_) => self.config.frame_bytes_max,
            _ => UNKNOWN_PEER_FRAME_BYTES_MAX,
        }
    }

    /// Takes one frame that arrived at `now`.
    ///
    /// # Errors
    /// If the edge broke the protocol.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        frame: Frame,
    ) -> Result<Option<SenderEvent>, SenderError> {
        self.heard_at = now;
        let result = self.take_frame(frame);
        if result.is_err() {
            self.stage = Stage::Closed;
        }
        result
    }

    fn take_frame(&mut self, frame: Frame) -> Result<Option<SenderEvent>, SenderError> {
        match (&mut self.stage, frame) {
            (Stage::AwaitHello, Frame::Hello(hello)) => self.take_hello(hello),
            (Stage::Streaming(streaming), Frame::Ack(got)) => {
                let sent = streaming.flow.sent();
                streaming
                    .flow
                    .acknowledge(got)
                    .map_err(|_| SenderError::AckOfUnsent { got, sent })?;
                Ok(None)
            }
            (Stage::Streaming(streaming), Frame::SendAfter(got)) => {
                let sent = streaming.flow.sent();
                streaming
                    .flow
                    .send_after(got)
                    .map_err(|_| SenderError::AckOfUnsent { got, sent })?;
                Ok(None)
            }
            (Stage::Streaming(_), Frame::Write(Envelope { id, body })) => {
                if self.writes_open >= self.config.writes_max {
                    return Err(SenderError::TooManyWrites { writes_max: self.config.writes_max });
                }
                self.writes_open += 1;
                Ok(Some(SenderEvent::Write { id, body }))
            }
            (Stage::Streaming(_), Frame::Alive) => Ok(None),
            // What was under way when this end closed.
            (Stage::Closed, _) => Ok(None),
            (_, frame) => Err(SenderError::Unexpected { frame: frame.name() }),
        }
    }

    fn take_hello(&mut self, hello: Hello) -> Result<Option<SenderEvent>, SenderError> {
        if hello.edge.len() > Hello::EDGE_BYTES_MAX {
            return Err(SenderError::BadHello { what: "a name that is too long" });
        }
        if let Some(stamps) = &hello.stamps
            && (stamps.ranges.len() > Stamps::RANGES_MAX || Walk::holding(stamps).is_none())
        {
            return Err(SenderError::BadHello { what: "stamps that make no sense" });
        }
        if !hello.versions.iter().any(|version| VERSIONS.contains(version)) {
            self.stage = Stage::Refusing(refused(
                RefusalCode::VERSION,
                format!("central speaks {VERSIONS:?}"),
            ));
            return Ok(None);
        }
        if hello.shard != self.shard {
            self.stage = Stage::Refusing(refused(
                RefusalCode::SHARD,
                format!("this is shard {}", self.shard),
            ));
            return Ok(None);
        }
        let event = SenderEvent::Hello {
            token: hello.token.clone(),
            edge: hello.edge.clone(),
            at: hello.at,
        };
        self.stage = Stage::AwaitVerdict(Box::new(hello));
        Ok(Some(event))
    }

    /// The token is right: stream.
    pub fn accept(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::AwaitVerdict(hello) => Stage::Accepted(hello),
            other => other,
        };
    }

    /// Say why not, and close.
    pub fn refuse(&mut self, code: RefusalCode, reason: &str) {
        self.stage = Stage::Refusing(refused(code, reason.to_owned()));
    }

    /// The keys that the edge is to use from here on. They replace those that wait to be sent.
    pub fn queue_keys(&mut self, keys: Keys) {
        self.keys = Some(codec::encode(&Frame::Keys(keys)));
    }

    /// The answer to a write.
    ///
    /// # Errors
    /// If no write is open, which bounds what can wait here.
    pub fn queue_reply(&mut self, id: u64, body: Bytes) -> Result<(), SenderError> {
        self.writes_open = self.writes_open.checked_sub(1).ok_or(SenderError::ReplyUnasked)?;
        self.replies.push_back(codec::encode(&Frame::Reply(Envelope { id, body })));
        Ok(())
    }

    /// The next bytes to write, if there are any. `clock`: the committed clock, for the heartbeat.
    pub fn poll_frame(
        &mut self,
        now: Instant,
        clock: Millis,
        log: &ChangeLog,
        world: &World,
    ) -> Option<Outgoing> {
        if let Stage::Refusing(refused) = &mut self.stage {
            let bytes = codec::encode(&Frame::Refused(refused.clone()));
            self.stage = Stage::Closed;
            return Some(Outgoing { bytes, close: true });
        }
        if let Stage::Accepted(hello) = &self.stage {
            let (streaming, welcome) = Streaming::start(&self.config, hello, log, world);
            self.stage = Stage::Streaming(Box::new(streaming));
            return Some(open(codec::encode(&welcome)));
        }
        let Stage::Streaming(streaming) = &mut self.stage else { return None };
        if streaming.lineage.newest() != world.lineage().newest() {
            let bytes = codec::encode(&Frame::Lineage(world.lineage().clone()));
            let close = streaming.adopt(world.lineage(), self.shard) != Judgement::Past;
            if close {
                self.stage = Stage::Closed;
            }
            return Some(Outgoing { bytes, close });
        }
        if let Some(begin) = streaming.begin.take() {
            return Some(open(codec::encode(&begin)));
        }
        if let Some(keys) = self.keys.take() {
            return Some(open(keys));
        }
        if let Some(reply) = self.replies.pop_front() {
            return Some(open(reply));
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + self.config.heartbeat;
            let heartbeat =
                Heartbeat { sent: streaming.flow.sent().seq, head: head(log, world), clock };
            return Some(open(codec::encode(&Frame::Heartbeat(heartbeat))));
        }
        streaming.next_item(&self.config, log, world).map(open)
    }

    /// When `handle_timeout` and `poll_frame` want to be called, unless something happens before. In the past while a
    /// heartbeat is due, so whoever cannot write yet waits for [`Sender::silent_at`] instead.
    pub fn poll_timeout(&self) -> Instant {
        match self.stage {
            Stage::Streaming(_) => self.silent_at().min(self.heartbeat_at),
            _ => self.silent_at(),
        }
    }

    /// When `handle_timeout` fails, unless the edge is heard before.
    pub fn silent_at(&self) -> Instant {
        self.heard_at + self.config.silence_max
    }

    /// # Errors
    /// If the edge was silent for too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), SenderError> {
        if now >= self.silent_at() {
            self.stage = Stage::Closed;
            return Err(SenderError::Silent(self.config.silence_max));
        }
        Ok(())
    }

    /// Bytes of batches and chunks that were sent and not acknowledged.
    pub fn unacknowledged(&self) -> u64 {
        match &self.stage {
            Stage::Streaming(streaming) => streaming.flow.unacknowledged(),
            _ => 0,
        }
    }

    /// Batches and chunks that were sent and not acknowledged.
    pub fn items_in_flight(&self) -> usize {
        match &self.stage {
            Stage::Streaming(streaming) => streaming.flow.items(),
            _ => 0,
        }
    }

    /// How far the edge has applied, if it streams.
    pub fn acknowledged(&self) -> Option<Progress> {
        match &self.stage {
            Stage::Streaming(streaming) => Some(streaming.flow.acknowledged()),
            _ => None,
        }
    }
}

impl Streaming {
    /// Decides from the edge's `Hello` where to go on.
    fn start(
        config: &SenderConfig,
        hello: &Hello,
        log: &ChangeLog,
        world: &World,
    ) -> (Streaming, Frame) {
        let version = VERSIONS.iter().copied().find(|version| hello.versions.contains(version));
        let version = version.expect("a hello without a common version was refused");
        let lineage = world.lineage().clone();
        let follows = |at: &Position| {
            at.shard == world.shard()
                && world.judge(*at) == Judgement::Past
                && !matches!(log.after(at.seq), LogRead::Trimmed)
        };
        let mut streaming = if let Some(at) = hello.at.filter(follows) {
            let flow = Flow::new(config.window, at.seq);
            Streaming { version, lineage, flow, walk: None, begin: None }
        } else {
            let walk = hello.stamps.as_ref().and_then(|stamps| {
                let seq = stamps.ranges.iter().map(|&(_, _, seq)| seq).max()?;
                let top = Position { shard: world.shard(), epoch: stamps.epoch, seq };
                Walk::holding(stamps).filter(|_| world.judge(top) == Judgement::Past)
            });
            let flow = Flow::new(config.window, Seq::ZERO);
            Streaming {
                version,
                lineage,
                flow,
                walk: Some(walk.unwrap_or_else(Walk::from_scratch)),
                begin: None,
            }
        };
        if streaming.walk.is_some() {
            streaming.begin_walk(log, world);
        }
        let welcome = Welcome {
            version,
            shard: world.shard(),
            lineage: streaming.lineage.clone(),
            window: config.window,
        };
        (streaming, Frame::Welcome(welcome))
    }

    /// (Re)starts the walk with what can be kept, from where the log reaches back to.
    fn begin_walk(&mut self, log: &ChangeLog, world: &World) {
        let reach = reach(log);
        let walk = self.walk.get_or_insert_with(Walk::from_scratch);
        walk.advance(self.flow.sent().seq);
        let kept = walk.begin(reach);
        let from = kept.unwrap_or(world.seq());
        self.flow.skip_to(from);
        let begin = SnapshotBegin {
            counts: world.counts(),
            horizon: world.horizon(),
            from,
            resumed: kept.is_some(),
            bytes: (self.version >= VERSION_WITH_BYTES).then(|| world.usage().at_edge()),
        };
        self.begin = Some(Frame::SnapshotBegin(begin));
    }

    /// Takes a lineage that replaces the one the edge knows, and says what it makes of what this connection sent.
    fn adopt(&mut self, lineage: &Lineage, shard: ShardId) -> Judgement {
        let seq = self.flow.sent().seq.max(self.walk.as_ref().map_or(Seq::ZERO, Walk::top));
        let sent = Position { shard, epoch: self.lineage.epoch_at(seq), seq };
        self.lineage = lineage.clone();
        self.lineage.judge(seq, sent)
    }

    fn next_item(
        &mut self,
        config: &SenderConfig,
        log: &ChangeLog,
        world: &World,
    ) -> Option<Bytes> {
        if self.flow.is_silenced() {
            return None;
        }
        let cursor = self.flow.sent().seq;
        let inside_partition = self.walk.as_ref().is_some_and(Walk::is_inside_partition);
        if !inside_partition {
            match log.after(cursor) {
                LogRead::Batch(batch) => {
                    if !self.flow.admits(batch.frame.len() as u64) {
                        return Some(self.fall_silent(log, world));
                    }
                    self.flow.send_batch(batch.last, batch.frame.len() as u64);
                    self.finish_walk();
                    return Some(batch.frame.clone());
                }
                LogRead::Trimmed if world.seq() >= cursor.max(reach(log)) => {
                    self.begin_walk(log, world);
                    return self.begin.take().map(|begin| codec::encode(&begin));
                }
                // A walk from a world that the log does not reach back to would begin again at once.
                LogRead::Trimmed => return None,
                LogRead::UpToDate => {}
            }
        }
        // A world older than the cursor would give a chunk that lacks what was sent before it.
        if world.seq() < cursor {
            return None;
        }
        let walk = self.walk.as_mut()?;
        let target = usize::try_from(config.window / CHUNKS_A_WINDOW)
            .unwrap_or(usize::MAX)
            .clamp(1, CHUNK_BYTES_MAX);
        let chunk = walk.prepare(world, target)?;
        let frame = chunk.frame.clone();
        if !self.flow.admits(frame.len() as u64) {
            return Some(self.fall_silent(log, world));
        }
        walk.commit(chunk);
        self.flow.send_chunk(frame.len() as u64);
        self.finish_walk();
        Some(frame)
    }

    fn finish_walk(&mut self) {
        let cursor = self.flow.sent().seq;
        self.walk = self.walk.take().filter(|walk| !walk.is_done(cursor));
    }

    fn fall_silent(&mut self, log: &ChangeLog, world: &World) -> Bytes {
        self.flow.silence();
        codec::encode(&Frame::MoreAwaits(MoreAwaits { head: head(log, world) }))
    }
}

/// A window's worth of a snapshot is acknowledged in this many steps.
const CHUNKS_A_WINDOW: u64 = 16;

/// With one record of 1 MiB more a chunk is still far below the most that a frame may have.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// The newest seq that central knows of.
fn head(log: &ChangeLog, world: &World) -> Seq {
    log.head().max(world.seq())
}

fn open(bytes: Bytes) -> Outgoing {
    Outgoing { bytes, close: false }
}

fn refused(code: RefusalCode, reason: String) -> Refused {
    Refused { code, reason }
}

/// The lowest seq from which the log can be followed.
fn reach(log: &ChangeLog) -> Seq {
    Seq::new(log.first().get() - 1)
}
