//! The publisher: takes what the outbox holds to the topic or the lake, and off the outbox once it is there.
//!
//! It reads the store by a connection of its own and writes through the shard's one writer, so it never stands before a
//! caller. It keeps nothing that it could not read again: after any failure it begins anew behind what the outbox has
//! forgotten, and what the history has already it is told twice, under the same id.
//!
//! Those who follow it, the callbacks and the event log, hear of an event before the history does, and also while the
//! history is away.

mod batch;
mod event_log;
mod followers;
mod meanwhile;
mod reading;
mod sink;

use std::sync::Arc;
use std::time::Duration;

use carillon_persist::AnyStore;
use carillon_persist::history::ForgetOutbox;
use carillon_world::Millis;
use tokio::sync::watch;
use tokio::time::Instant;

use self::event_log::EventLog;
use self::followers::Followers;
use self::meanwhile::Meanwhile;
use self::reading::{Piece, READ_BYTES, Reading};
use self::sink::Sink;
use super::callbacks::CallbackFollower;
use super::opening::open_store;
use super::shared::{Phase, Shared, reached};
use super::witness::Known;
use super::write_handle::WriteHandle;
use crate::config::{HistoryPlan, StoreConfig};
use crate::core::problem::Problem;
use crate::core::write::Write;
use crate::error::CentralError;

pub(super) use self::sink::{Witness, tail};

/// Between two looks at the outbox while something comes in, so that a busy shard is read in large pieces.
const LINGER: Duration = Duration::from_millis(50);
/// However quiet it is, the outbox is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Devices whose names one transaction forgets, about, so that it holds up nobody who commits with it.
const ENDED_MAX: usize = 10_000;
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// Why the history has to wait.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("read the outbox")]
    Store(#[from] carillon_persist::StoreError),
    #[error("open the store")]
    Open(#[from] CentralError),
    /// As [`super::witness::hear`] would have said.
    #[error(transparent)]
    Restored(CentralError),
    #[error("ask the history how far it is")]
    Ask(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the writer refused it: {0}")]
    Refused(String),
    #[error("write to the lake")]
    Lake(#[from] carillon_persist::history::lake::LakeError),
    #[error("write to Kafka")]
    Kafka(#[from] carillon_persist::history::kafka::KafkaError),
    #[error("use what the outbox holds")]
    Record(#[from] carillon_persist::history::RecordError),
}

impl From<Problem> for PublishError {
    fn from(problem: Problem) -> PublishError {
        PublishError::Refused(format!("{}: {}", problem.code, problem.detail))
    }
}

pub(crate) struct Publisher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writes: WriteHandle,
    pub(crate) plan: HistoryPlan,
    pub(crate) store: StoreConfig,
    /// The history said how far it is when the shard was opened.
    pub(crate) is_heard: bool,
}

/// What was told and is to come off the outbox. It is kept until the writer says that it has: after that the rows are gone,
/// and nobody could say any more how much they were.
#[derive(Debug, Default)]
struct Taken {
    forget: ForgetOutbox,
    bytes: u64,
}

impl Taken {
    fn is_nothing(&self) -> bool {
        self.forget == ForgetOutbox::default()
    }
}

impl Publisher {
    /// Runs until draining begins; then what is gathered already is written.
    pub(crate) async fn run(self, mut phase: watch::Receiver<Phase>) {
        let of = Arc::new(self);
        let mut followers = of.followers().await;
        let mut meanwhile = Meanwhile::new(of.clone());
        let mut attempt =
            Attempt { pause: BACKOFF_MIN, is_heard: of.is_heard, taken: Taken::default() };
        loop {
            let ended =
                publish(of.clone(), &mut followers, &mut meanwhile, &mut phase, &mut attempt).await;
            let Err(error) = ended else { return };
            of.shared.metrics.history_failures.inc();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the history cannot be written; its events wait in the store"
            );
            let mut is_draining = false;
            let over = async {
                tokio::select! {
                    () = reached(&mut phase, Phase::Draining) => is_draining = true,
                    () = tokio::time::sleep(attempt.pause) => {}
                }
            };
            if attempt.taken.is_nothing() {
                meanwhile.tell(None, &mut followers, over).await;
            } else {
                // Names that are to be forgotten may be found, and those drawn now be forgotten with them.
                over.await;
            }
            if is_draining {
                return;
            }
            attempt.pause = (attempt.pause * 2).min(BACKOFF_MAX);
        }
    }

    async fn followers(&self) -> Followers {
        let log = match self.plan.event_log.clone() {
            Some(plan) => match EventLog::start(plan, &self.shared.metrics).await {
                Ok(log) => Some(log),
                Err(error) => {
                    tracing::error!(%error, "the event log has no thread; nothing is written to it");
                    None
                }
            },
            None => None,
        };
        let callbacks = CallbackFollower::new(self.shared.clone(), self.writes.clone());
        Followers { callbacks, log }
    }

    /// Takes events off the outbox.
    async fn forget(&self, taken: &mut Taken) -> Result<(), PublishError> {
        let forget = Arc::new(taken.forget.clone());
        let sent = Write::HistorySent { forget, bytes: taken.bytes };
        self.writes.write(sent).await.result?;
        *taken = Taken::default();
        Ok(())
    }

    /// Asks a history that did not answer when the shard was opened: nothing is told after what the store lost.
    async fn hear(&self, store: &mut AnyStore) -> Result<(), PublishError> {
        let tail = tail(self.plan.sink.clone(), self.shared.shard);
        let Some(witness) = tail.await.map_err(PublishError::Ask)? else { return Ok(()) };
        let (world, events) = (self.shared.world(), self.shared.callbacks().events);
        let (shard, lineage) = (self.shared.shard, world.lineage());
        let known = Known { shard, lineage, head: world.seq(), events };
        match known.lost(store, &witness).await? {
            Some(lost) => Err(PublishError::Restored(lost)),
            None => Ok(()),
        }
    }
}

/// What outlives an attempt to publish.
struct Attempt {
    /// Before the next one.
    pause: Duration,
    /// The history said how far it is, and it is not further than the store.
    is_heard: bool,
    taken: Taken,
}

/// Publishes until draining begins, or something fails.
async fn publish(
    of: Arc<Publisher>,
    followers: &mut Followers,
    meanwhile: &mut Meanwhile,
    phase: &mut watch::Receiver<Phase>,
    attempt: &mut Attempt,
) -> Result<(), PublishError> {
    let mut store = open_store(&of.store).await?;
    // Most often nothing; but who owns the shard no longer hears of it here, before it takes the lake from who does.
    of.forget(&mut attempt.taken).await?;
    if !attempt.is_heard {
        meanwhile.during(None, followers, of.hear(&mut store)).await?;
        attempt.is_heard = true;
    }
    let opening = Sink::open(of.plan.sink.clone(), of.shared.shard);
    let sink = meanwhile.during(None, followers, opening).await?;
    let mut changed = of.shared.subscribe();
    let reading = Reading::new(of.clone(), store);
    let mut under_way = UnderWay::new(of, reading, sink);
    let mut is_draining = false;
    loop {
        changed.mark_unchanged();
        let bytes = under_way.read(followers, meanwhile).await?;
        let is_over = is_draining && bytes == 0;
        if under_way.is_due() || is_over {
            under_way.flush(followers, meanwhile, &mut attempt.taken).await?;
            attempt.pause = BACKOFF_MIN;
        }
        if is_over {
            return Ok(());
        }
        // A busy shard is read in large pieces, a quiet one when something happens.
        if bytes >= READ_BYTES / 2 || is_draining {
            continue;
        }
        let until = under_way.flush_at().min(Instant::now() + LOOK_AGAIN);
        tokio::select! {
            () = reached(phase, Phase::Draining) => {
                is_draining = *phase.borrow() >= Phase::Draining;
                if !is_draining {
                    // Central is gone without draining, and whatever it had with it.
                    return Ok(());
                }
                continue;
            }
            changed = changed.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep_until(until) => {}
        }
        tokio::time::sleep(LINGER).await;
    }
}

/// Events that were read and are not off the outbox.
struct UnderWay {
    of: Arc<Publisher>,
    reading: Reading,
    sink: Sink,
    /// Of the rows that were read since the last flush.
    bytes: u64,
    /// When the first of them happened, and was read.
    oldest: Option<(Millis, Instant)>,
}

impl UnderWay {
    fn new(of: Arc<Publisher>, reading: Reading, sink: Sink) -> UnderWay {
        UnderWay { of, reading, sink, bytes: 0, oldest: None }
    }

    /// Takes some of the outbox to the sink: so many bytes of payloads.
    async fn read(
        &mut self,
        followers: &mut Followers,
        meanwhile: &mut Meanwhile,
    ) -> Result<u64, PublishError> {
        let next = self.reading.next(followers, self.sink.is_read()).await?;
        let Some(Piece { records, bytes, first_at }) = next else { return Ok(0) };
        let UnderWay { reading, sink, .. } = self;
        meanwhile.during(Some(&*reading), followers, sink.take(&records)).await?;
        self.of.shared.metrics.history_events.inc_by(records.len() as u64);
        self.oldest.get_or_insert((first_at, Instant::now()));
        self.bytes += bytes;
        Ok(bytes)
    }

    fn flush_at(&self) -> Instant {
        let every = self.sink.flush_every(&self.of.plan);
        self.oldest.map_or_else(|| Instant::now() + LOOK_AGAIN, |(_, read)| read + every)
    }

    fn is_due(&self) -> bool {
        self.bytes > 0
            && (self.flush_at() <= Instant::now()
                || self.sink.is_full(&self.of.plan)
                || self.reading.names.ended() >= ENDED_MAX)
    }

    /// Has the sink keep what it was given, then takes it off the outbox.
    async fn flush(
        &mut self,
        followers: &mut Followers,
        meanwhile: &mut Meanwhile,
        taken: &mut Taken,
    ) -> Result<(), PublishError> {
        if self.bytes == 0 {
            return Ok(());
        }
        followers.settle().await;
        let through = self.reading.last;
        let UnderWay { reading, sink, .. } = self;
        meanwhile.during(Some(&*reading), followers, sink.flush(through)).await?;
        meanwhile.end();
        let devices = self.reading.names.take_ended();
        *taken = Taken { forget: ForgetOutbox { through, devices }, bytes: self.bytes };
        self.of.forget(taken).await?;
        if let Some((at, _)) = self.oldest.take() {
            let lag = self.of.shared.clock.now().0.saturating_sub(at.0);
            self.of.shared.metrics.history_lag.observe(lag as f64 / 1e3);
        }
        self.bytes = 0;
        Ok(())
    }
}
