//! The task that owns a shard: it feeds the writer, carries its batches to the store and publishes what is durable.
//!
//! One thing at a time is with the store (a batch, a new epoch, a reading of the clock); it goes there by value and
//! comes back with the result, so that nothing else can use it meanwhile.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_persist::{
    CommitError, Committed, EpochClaim, Opening, Store, StoreBatch, StoreError,
};
use carillon_world::{Epoch, Millis};
use tokio::sync::{mpsc, oneshot, watch};

use super::clock::READ_EVERY;
use super::opening::Opened;
use super::random;
use super::shared::{Phase, Shared, reached};
use super::write_handle::{COMMANDS_MAX, Command, WriteHandle};
use crate::config::Config;
use crate::core::limits::PENDING_BYTES_MAX;
use crate::core::problem::{self, Problem};
use crate::core::write::{Answer, ReplyId, Write};
use crate::core::writer::Writer;
use crate::error::CentralError;
use crate::metrics::BatchOutcome;

/// How long writes are decided before the store is looked at again.
const DECIDE_MAX: Duration = Duration::from_millis(2);
/// How often a store that is down is asked whether it is back.
const PROBE_EVERY: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// What came back from the store.
enum Done {
    Commit { started: Instant, result: Result<Committed, CommitError> },
    Epoch(Result<Opening, StoreError>),
    Clock(Result<Millis, StoreError>),
}

type Work<S> = Pin<Box<dyn Future<Output = (S, Done)> + Send>>;

pub(crate) struct WriterTask<S> {
    shared: Arc<Shared>,
    writer: Writer,
    epoch: Epoch,
    /// `None` while `work` has it.
    store: Option<S>,
    work: Option<Work<S>>,
    /// The claim of the epoch that is to settle a doubt, and the pause before it is made again.
    claim: Option<(EpochClaim, Duration)>,
    clock_at: Instant,
    commands: mpsc::Receiver<Command>,
    /// Writes that came while the outcome of a batch was asked for.
    held: Vec<Command>,
    held_bytes: usize,
    replies: HashMap<u64, oneshot::Sender<Answer>>,
    next_id: u64,
    phase: watch::Receiver<Phase>,
}

impl<S: Store + 'static> WriterTask<S> {
    pub(crate) fn new(
        config: &Config,
        shared: Arc<Shared>,
        store: S,
        opened: Opened,
        phase: watch::Receiver<Phase>,
    ) -> (WriteHandle, WriterTask<S>) {
        let (handle, commands) = WriteHandle::new(shared.clone(), config.write_timeout);
        let writer = Writer::new(config.writer, shared.clock.now(), opened.loaded);
        shared.set_tally(writer.tally());
        let task = WriterTask {
            writer,
            shared,
            epoch: opened.epoch,
            store: Some(store),
            work: None,
            claim: None,
            clock_at: Instant::now() + READ_EVERY,
            commands,
            held: Vec::new(),
            held_bytes: 0,
            replies: HashMap::new(),
            next_id: 0,
            phase,
        };
        (handle, task)
    }

    /// Runs until closing begins and everything taken is answered.
    ///
    /// # Errors
    /// [`CentralError::Fenced`] when the shard is another's.
    pub(crate) async fn run(mut self) -> Result<(), CentralError> {
        let ended = self.serve().await;
        self.shared.health.set_unready();
        if let Err(error) = &ended {
            tracing::error!(%error, "central gives the shard up");
        }
        ended
    }

    async fn serve(&mut self) -> Result<(), CentralError> {
        loop {
            // Here and not only when nothing else happens: callers that never pause must not hold up starts and ends.
            if self.writer.poll_timeout() <= self.shared.clock.now() {
                self.handle_time();
            }
            self.deliver();
            self.start_work();
            self.shared
                .metrics
                .writes_pending
                .set(i64::try_from(self.writer.pending()).unwrap_or(i64::MAX));
            let wake = self.next_wake();
            tokio::select! {
                biased;
                (store, done) = at_work(&mut self.work) => {
                    self.work = None;
                    self.store = Some(store);
                    self.handle_done(done)?;
                }
                () = reached(&mut self.phase, Phase::Closing), if !self.commands.is_closed() => {
                    self.commands.close();
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.handle_commands(command),
                    // Closed, and everything that was sent has been taken.
                    None if self.writer.pending() == 0
                        && self.held.is_empty()
                        && self.work.is_none() =>
                    {
                        return Ok(());
                    }
                    None => {
                        let (store, done) = at_work(&mut self.work).await;
                        self.work = None;
                        self.store = Some(store);
                        self.handle_done(done)?;
                    }
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    /// Decides `first` and what else has come, for a while.
    fn handle_commands(&mut self, first: Command) {
        let until = Instant::now() + DECIDE_MAX;
        let mut next = Some(first);
        while let Some(command) = next {
            // A session rests on what is committed, so it is given in any case.
            if self.writer.is_in_doubt() && !matches!(command.write, Write::Session { .. }) {
                self.hold(command);
            } else {
                self.decide(command);
            }
            next = if Instant::now() < until { self.commands.try_recv().ok() } else { None };
        }
    }

    fn decide(&mut self, Command { write, reply }: Command) {
        let id = self.next_id;
        self.next_id += 1;
        self.replies.insert(id, reply);
        self.writer.handle_write(self.shared.clock.now(), write, ReplyId(id));
    }

    /// Keeps a write until it is known what became of the batch before it. Once the store is seen to be away, that may
    /// take as long as it likes, and whoever comes is told at once.
    fn hold(&mut self, command: Command) {
        let away = self.claim.is_some_and(|(_, pause)| !pause.is_zero());
        let bytes = self.held_bytes + command.write.weight();
        if away {
            self.refuse(command, problem::unavailable());
        } else if self.held.len() >= COMMANDS_MAX || bytes > PENDING_BYTES_MAX {
            self.refuse(command, problem::overloaded());
        } else {
            self.held_bytes = bytes;
            self.held.push(command);
        }
    }

    fn refuse(&self, command: Command, problem: Problem) {
        let answer = Answer { result: Err(problem), at: self.shared.world().position() };
        // A caller that went away does not want to know.
        let _ = command.reply.send(answer);
    }

    fn take_held(&mut self) -> Vec<Command> {
        self.held_bytes = 0;
        std::mem::take(&mut self.held)
    }

    fn handle_time(&mut self) {
        // A clock that jumped would start and end messages wrongly.
        if !self.shared.clock.has_jumped() {
            self.writer.handle_tick(self.shared.clock.now());
        }
    }

    fn handle_done(&mut self, done: Done) -> Result<(), CentralError> {
        let now = self.shared.clock.now();
        match done {
            Done::Commit { started, result } => {
                let took = started.elapsed();
                self.shared.metrics.commit_duration.observe(took.as_secs_f64());
                self.handle_outcome(now, result, took)?;
            }
            Done::Epoch(Ok(opening)) => {
                tracing::warn!(
                    epoch = opening.epoch.number,
                    "a new epoch settled what became of a batch"
                );
                self.claim = None;
                self.epoch = opening.epoch;
                self.shared.set_store_up(true);
                let began_after = opening.lineage.newest().began_after;
                let published =
                    self.writer.handle_epoch(now, &opening.lineage, began_after, opening.events);
                self.shared.publish(published);
                for command in self.take_held() {
                    self.decide(command);
                }
            }
            Done::Epoch(Err(StoreError::Fenced { shard, .. })) => {
                return Err(CentralError::Fenced { shard });
            }
            Done::Epoch(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "begin an epoch to settle a batch"
                );
                if let Some((_, pause)) = &mut self.claim {
                    *pause = (*pause * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
                }
                self.writer.handle_away();
                for command in self.take_held() {
                    self.refuse(command, problem::unavailable());
                }
            }
            Done::Clock(Ok(reading)) => {
                self.shared.set_store_up(true);
                let was_off = self.shared.clock.has_jumped();
                let adopted = self.shared.clock.handle_reading(Instant::now(), reading);
                if !adopted && !was_off {
                    tracing::error!(
                        reading = reading.0,
                        "the store's clock jumped: starts and ends are held"
                    );
                }
            }
            Done::Clock(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "read the store's clock");
                self.shared.set_store_up(false);
                self.clock_at = Instant::now() + PROBE_EVERY;
            }
        }
        Ok(())
    }

    fn handle_outcome(
        &mut self,
        now: Millis,
        result: Result<Committed, CommitError>,
        took: Duration,
    ) -> Result<(), CentralError> {
        match result {
            Ok(found) => {
                self.shared.metrics.batch(BatchOutcome::Committed);
                self.shared.set_store_up(true);
                let before = self.writer.step_under_way();
                self.shared.publish(self.writer.handle_committed(now, found, took));
                if let Some(kind) = before.filter(|_| self.writer.step_under_way().is_none()) {
                    self.shared.metrics.step(kind, found);
                }
            }
            Err(error @ CommitError::Refused { .. }) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the store refused a batch"
                );
                self.shared.metrics.batch(BatchOutcome::Refused);
                self.store_is_down();
                self.writer.handle_refused(now);
            }
            Err(error @ CommitError::Unknown { .. }) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the outcome of a batch is unknown"
                );
                self.shared.metrics.batch(BatchOutcome::Unknown);
                self.store_is_down();
                self.writer.handle_unknown();
                let number_min = self.epoch.number + 1;
                let claim = EpochClaim {
                    tag: random::id(),
                    held: Some(self.epoch),
                    number_min,
                    fork: false,
                };
                self.claim = Some((claim, Duration::ZERO));
            }
            Err(CommitError::Fenced { shard, .. }) => return Err(CentralError::Fenced { shard }),
        }
        Ok(())
    }

    fn store_is_down(&mut self) {
        self.shared.set_store_up(false);
        self.clock_at = self.clock_at.min(Instant::now() + PROBE_EVERY);
    }

    /// Gives the store its next work, if it is free and there is any. The clock goes before batches, which might
    /// never end.
    fn start_work(&mut self) {
        let Some(mut store) = self.store.take() else { return };
        let now = self.shared.clock.now();
        let shard = self.shared.shard;
        if let Some((claim, pause)) = self.claim {
            self.work = Some(Box::pin(async move {
                tokio::time::sleep(pause).await;
                let result = store.begin_epoch(shard, claim).await;
                (store, Done::Epoch(result))
            }));
        } else if Instant::now() >= self.clock_at {
            self.clock_at = Instant::now() + READ_EVERY;
            let is_up = self.shared.health.is_store_up();
            self.work = Some(Box::pin(async move {
                // A store that took no batch may tell the time all the same.
                let pinged = if is_up { Ok(()) } else { store.ping().await };
                let result = match pinged {
                    Ok(()) => store.clock().await,
                    Err(error) => Err(error),
                };
                (store, Done::Clock(result))
            }));
        } else if let Some(batch) = self.writer.poll_batch(now) {
            self.work = Some(commit(store, batch));
        } else {
            self.store = Some(store);
        }
    }

    /// When there is something to do though nothing happens.
    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let clock = self.shared.clock.now();
        let tick = if self.shared.clock.has_jumped() || self.writer.is_in_doubt() {
            READ_EVERY
        } else {
            Duration::from_millis(self.writer.poll_timeout().0.saturating_sub(clock.0))
                .min(READ_EVERY)
        };
        let at = now + tick;
        if self.store.is_some() { at.min(self.clock_at) } else { at }
    }

    fn deliver(&mut self) {
        while let Some((ReplyId(id), answer)) = self.writer.poll_reply() {
            if let Some(reply) = self.replies.remove(&id) {
                // A caller that went away loses its answer, not its write.
                let _ = reply.send(answer);
            }
        }
    }
}

fn commit<S: Store + 'static>(mut store: S, batch: StoreBatch) -> Work<S> {
    Box::pin(async move {
        let started = Instant::now();
        let result = store.commit(&batch).await;
        (store, Done::Commit { started, result })
    })
}

/// The result of the work, or never if there is none. Cancel safe: the work goes on with the next call.
async fn at_work<S>(work: &mut Option<Work<S>>) -> (S, Done) {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}
