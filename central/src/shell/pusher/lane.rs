//! One lane: the runs of an app's channel, its connections, and when it has to wait.
//!
//! A provider that is down, or slows us, pauses the lane: what it did not take goes back to the front of its run, and
//! after the pause few are tried at first. So nothing is lost, nothing is counted as failed, and nothing more is read
//! from the world until the provider is back.

use std::sync::Arc;
use std::time::Duration;

use carillon_persist::{JobState, PushJobRow, RunKind};
use carillon_world::{AppId, Millis, PushChannel, SealedCredential, World};
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;

use super::slot::{Handed, Reported, Request, Slot, hand, report};
use super::{Opener, Rates};
use crate::config::PusherConfig;
use crate::core::channel::{Outcome, Reason, Scope};
use crate::core::push::jobs::JobKey;
use crate::core::push::run::{Run, RunLimits};
use crate::core::push::walk::{Reach, Walk};
use crate::metrics::PushOutcome;
use crate::shell::channel::{AnyChannel, Channel as _};
use crate::shell::random;
use crate::shell::shared::{Phase, Shared, reached};
use crate::shell::write_handle::WriteHandle;

/// Messages that one lane pushes at a time; the others wait for one of them to end.
const RUNS_MAX: usize = 64;
/// Windows of runs that a lane holds at a time, whatever their number.
const WINDOWS_MAX: usize = 4;
/// Devices that one stretch of a walk looks at: about a millisecond.
const DEVICES_LOOKED_AT: usize = 8 * 1024;
/// A lane without anything to do keeps its connections so long.
const IDLE: Duration = Duration::from_secs(300);
/// The pause after a provider did not take a push and did not say until when; twice as long each time.
const PAUSE_MIN: u64 = 500;
const PAUSE_MAX: u64 = 30_000;
/// The pause after it refused our credential: longer, for it will not get better by itself.
const REFUSED_PAUSE_MIN: u64 = 10_000;
const REFUSED_PAUSE_MAX: u64 = 300_000;
/// How often a walk that is spread over time goes on.
const PACE: u64 = 100;
/// However long there is nothing to do, it is looked again after this.
const LOOK_AGAIN: u64 = 60_000;

/// A channel and the credential that it was opened with.
struct Opened {
    credential: SealedCredential,
    /// `None` if it could not be opened.
    channel: Option<Arc<AnyChannel>>,
}

pub(super) struct Lane {
    app: AppId,
    kind: PushChannel,
    shared: Arc<Shared>,
    writes: WriteHandle,
    config: PusherConfig,
    opener: Arc<Opener>,
    rates: Arc<Rates>,
    opened: Option<Opened>,
    slots: Vec<Slot>,
    /// Numbers slots, and says whose turn it is.
    next_slot: u64,
    turn: usize,
    /// Nothing is handed over before this.
    paused_until: Millis,
    pause: u64,
    /// How many may be in flight for now: few after a pause, twice as many with each that is taken.
    ramp: usize,
    in_flight: usize,
    /// As many of them are in the metrics.
    noted: i64,
    /// Pushes a second that the app may have.
    rate: Option<u32>,
    /// The app has a frequency cap.
    is_capped: bool,
    /// When a job is due that has no run yet.
    sync_at: Millis,
    /// When there is something to do although nothing comes.
    wake: Millis,
}

impl Lane {
    pub(super) fn new(
        (app, kind): (AppId, PushChannel),
        shared: Arc<Shared>,
        writes: WriteHandle,
        config: PusherConfig,
        opener: Arc<Opener>,
        rates: Arc<Rates>,
    ) -> Lane {
        Lane {
            app,
            kind,
            shared,
            writes,
            config,
            opener,
            rates,
            opened: None,
            slots: Vec::new(),
            next_slot: 0,
            turn: 0,
            paused_until: Millis::ZERO,
            pause: 0,
            ramp: usize::MAX,
            in_flight: 0,
            noted: 0,
            rate: None,
            is_capped: false,
            sync_at: Millis::ZERO,
            wake: Millis::ZERO,
        }
    }

    /// Runs until it has had nothing to do for a while, or draining begins and nothing is in flight.
    pub(super) async fn run(mut self, mut phase: watch::Receiver<Phase>) -> (AppId, PushChannel) {
        let mut changed = self.shared.pushes_changed();
        let mut flying = FuturesUnordered::new();
        let mut reports = FuturesUnordered::new();
        let mut is_draining = false;
        let mut is_stale = true;
        loop {
            let now = self.shared.clock.now();
            self.wake = now.plus(LOOK_AGAIN);
            let mut more = false;
            if !is_draining {
                if is_stale || now >= self.sync_at {
                    self.sync(now);
                    is_stale = false;
                }
                self.wake = self.wake.min(self.sync_at);
                more = self.walk(now);
            }
            // Also while draining: a step that is half handed over would be handed over again by whoever goes on.
            while let Some(request) = self.poll_request(now) {
                flying.push(hand(now, request));
            }
            for slot in &mut self.slots {
                let Some(due) = slot.run.report_due() else { continue };
                let at = if is_draining { now.max(due) } else { now };
                if due > at {
                    self.wake = self.wake.min(due);
                } else if let Some(of) = slot.run.poll_report(at) {
                    reports.push(report(self.writes.clone(), slot.id, Arc::new(of.clone()), false));
                }
            }
            self.slots.retain(|slot| !slot.run.is_closed());
            self.note_in_flight(flying.len());
            if is_draining && flying.is_empty() && reports.is_empty() {
                break;
            }
            let is_idle = self.slots.is_empty()
                && self.shared.jobs().live_of(self.app, self.kind).next().is_none();
            if is_idle && !is_draining {
                tokio::select! {
                    changed = changed.changed() => match changed {
                        Ok(()) => is_stale = true,
                        Err(_) => break,
                    },
                    () = reached(&mut phase, Phase::Draining) => break,
                    () = tokio::time::sleep(IDLE) => break,
                }
                continue;
            }
            let pause = Duration::from_millis(self.wake.0.saturating_sub(now.0));
            tokio::select! {
                biased;
                Some(handed) = flying.next(), if !flying.is_empty() => {
                    self.handle_handed(handed);
                    // What came back meanwhile, before anything else is looked at.
                    while let Some(Some(handed)) = flying.next().now_or_never() {
                        self.handle_handed(handed);
                    }
                }
                Some(reported) = reports.next(), if !reports.is_empty() => {
                    if let Some(Reported { slot, report: of, .. }) = self.handle_reported(reported) {
                        reports.push(report(self.writes.clone(), slot, of, true));
                    }
                }
                changed = changed.changed(), if !is_draining => match changed {
                    Ok(()) => is_stale = true,
                    Err(_) => break,
                },
                () = reached(&mut phase, Phase::Draining), if !is_draining => is_draining = true,
                () = tokio::task::yield_now(), if more => {}
                () = tokio::time::sleep(pause), if !more && !is_draining => {}
            }
        }
        self.note_in_flight(0);
        (self.app, self.kind)
    }

    /// Follows the committed jobs and the app's credential.
    fn sync(&mut self, now: Millis) {
        let (world, jobs) = (self.shared.world(), self.shared.jobs());
        self.reopen(&world, now);
        self.sync_at = now.plus(LOOK_AGAIN);
        for slot in &mut self.slots {
            slot.run.handle_job(jobs.get(slot.run.key()));
        }
        self.slots.retain(|slot| !slot.run.is_closed() && !slot.run.is_idle(now));
        let app = world.app(self.app);
        for key in jobs.live_of(self.app, self.kind) {
            let Some(job) = jobs.get(key) else { continue };
            let due = due(job);
            if due > now {
                self.sync_at = self.sync_at.min(due);
                continue;
            }
            if self.slots.len() >= RUNS_MAX || self.has_run(key, job.run) {
                continue;
            }
            let message = app.and_then(|app| app.message(key.message));
            let notices = message.and_then(|of| {
                crate::core::push::policy::Notices::of(of.row(), job.kind, job.began_at)
            });
            let Some(notices) = notices else { continue };
            let limits = RunLimits {
                window: self.config.batch.get(),
                step: self.config.step(),
                retries: self.config.retries_max.get(),
                attempts: self.config.attempts_max.get(),
                is_capped: self.is_capped
                    && message.is_some_and(|of| {
                        of.row().push.as_ref().is_some_and(|push| !push.ignore_cap)
                    }),
            };
            let mut slot = Slot::new(self.next_slot, Run::new(job.clone(), limits), notices);
            if let Some(Opened { channel: Some(channel), .. }) = &self.opened {
                slot.prepare(channel);
            }
            self.next_slot += 1;
            self.slots.push(slot);
        }
    }

    fn has_run(&self, key: JobKey, run: u32) -> bool {
        self.slots.iter().any(|slot| slot.run.key() == key && slot.run.job().run == run)
    }

    /// Opens the channel if there is none, or the credential is another.
    fn reopen(&mut self, world: &World, now: Millis) {
        let app = world.app(self.app).map(|app| app.row());
        let settings = app.and_then(|row| Some(row.push.as_ref()?.settings)).unwrap_or_default();
        (self.rate, self.is_capped) = (settings.rate, settings.cap.is_some());
        let credential =
            app.and_then(|row| row.push.as_ref()).and_then(|push| push.credentials.get(&self.kind));
        let (Some(row), Some(credential)) = (app, credential) else {
            self.opened = None;
            return;
        };
        if self.opened.as_ref().is_some_and(|opened| opened.credential == *credential) {
            return;
        }
        let channel = match self.opener.open(row, self.kind, credential) {
            Ok(channel) => Some(Arc::new(channel)),
            Err(error) => {
                tracing::error!(app = %self.app, channel = ?self.kind, %error, "a push channel cannot be opened");
                None
            }
        };
        self.opened = Some(Opened { credential: credential.clone(), channel: channel.clone() });
        (self.paused_until, self.pause, self.ramp) = (now, 0, usize::MAX);
        if let Some(channel) = channel {
            self.slots.iter_mut().for_each(|slot| slot.prepare(&channel));
        }
    }

    /// Lets each run look for targets, a stretch at most. Whether one of them could go on at once.
    fn walk(&mut self, now: Millis) -> bool {
        if self.paused_until > now || !self.is_open() {
            return false;
        }
        let mut room = (WINDOWS_MAX * self.config.batch.get())
            .saturating_sub(self.slots.iter().map(|slot| slot.run.unreported()).sum());
        let mut more = false;
        if !self.slots.iter().any(|slot| slot.run.wants_world(now)) {
            let next = self.slots.iter().filter_map(|slot| slot.run.poll_timeout()).min();
            self.wake = self.wake.min(next.unwrap_or(self.wake));
            return false;
        }
        let world = self.shared.world();
        let Some(app) = world.app(self.app) else { return false };
        let books = self.shared.books(app, now);
        for slot in &mut self.slots {
            if let Some(at) = slot.run.poll_timeout() {
                self.wake = self.wake.min(at.max(now));
            }
            if !slot.run.wants_world(now) {
                continue;
            }
            let Some(message) = app.message(slot.run.key().message) else { continue };
            let grace = u64::try_from(self.config.grace.as_millis()).unwrap_or(u64::MAX);
            let job = slot.run.job().clone();
            let walk =
                Walk::new(app, message, &job, &slot.notices, &books, grace, world.clock().max(now));
            while let Some((device, attempts)) = slot.run.poll_retry(now) {
                slot.run.handle_retry(device, walk.again(device, attempts));
            }
            let Some(after) = slot.run.poll_walk(now).filter(|_| room > 0) else { continue };
            let place = place(message.row(), &job, now);
            let targets = self.config.step().min(room);
            let chunk = walk.chunk(after, Reach { targets, devices: DEVICES_LOOKED_AT, place });
            room = room.saturating_sub(chunk.targets.len());
            let is_paced = place < u64::MAX && !chunk.ended && chunk.targets.len() < targets;
            if is_paced {
                self.wake = self.wake.min(now.plus(PACE));
            }
            more |= !is_paced && !chunk.ended;
            slot.run.handle_chunk(chunk);
        }
        more
    }

    fn is_open(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.channel.is_some())
    }

    /// The next push to hand to the provider, if one may go.
    fn poll_request(&mut self, now: Millis) -> Option<Request> {
        let channel = self.opened.as_ref()?.channel.clone()?;
        if self.paused_until > now {
            self.wake = self.wake.min(self.paused_until);
            return None;
        }
        let most = channel.in_flight_max().min(self.ramp);
        for _ in 0..self.slots.len() {
            if self.in_flight >= most {
                return None;
            }
            self.turn = (self.turn + 1) % self.slots.len();
            let slot = &mut self.slots[self.turn];
            let Some(target) = slot.run.poll_target(now) else { continue };
            let Some(prepared) = slot.prepared.get(target.notice).cloned().flatten() else {
                let reason = Reason("payload_too_large");
                slot.run.handle_outcome(now, target, Outcome::Failed { reason }, 0);
                continue;
            };
            if let Err(then) = self.rates.take(now, self.app, self.rate, self.kind) {
                self.slots[self.turn].run.put_back(target);
                self.wake = self.wake.min(then);
                return None;
            }
            self.in_flight += 1;
            return Some(Request { slot: self.slots[self.turn].id, target, channel, prepared });
        }
        None
    }

    fn handle_handed(&mut self, Handed { slot, target, outcome }: Handed) {
        self.in_flight -= 1;
        let now = self.shared.clock.now();
        let counted = match &outcome {
            Outcome::Accepted => {
                self.pause = 0;
                self.ramp = self.ramp.saturating_mul(2).max(2);
                Some(PushOutcome::Accepted)
            }
            Outcome::Gone { .. } => Some(PushOutcome::Gone),
            Outcome::Failed { .. } => Some(PushOutcome::Failed),
            Outcome::Later { scope: Scope::Target, .. } => Some(PushOutcome::Later),
            Outcome::Busy => None,
            Outcome::Later { scope: Scope::Channel, after, reason } => {
                let said = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(PAUSE_MAX));
                self.pause_lane(now, said, (PAUSE_MIN, PAUSE_MAX), *reason);
                Some(PushOutcome::Later)
            }
            Outcome::Refused { reason } => {
                self.pause_lane(now, None, (REFUSED_PAUSE_MIN, REFUSED_PAUSE_MAX), *reason);
                Some(PushOutcome::Refused)
            }
        };
        if let Some(counted) = counted {
            self.shared.metrics.push(self.kind, counted);
        }
        if let Some(slot) = self.slots.iter_mut().find(|of| of.id == slot) {
            slot.run.handle_outcome(now, target, outcome, random::id());
        }
    }

    /// Of many that come back together one counts: the pause is under way then.
    fn pause_lane(&mut self, now: Millis, said: Option<u64>, bounds: (u64, u64), reason: Reason) {
        self.ramp = 1;
        if self.paused_until > now {
            if let Some(said) = said {
                self.paused_until = self.paused_until.max(now.plus(said));
            }
            return;
        }
        self.pause = (self.pause * 2).clamp(bounds.0, bounds.1);
        let pause = said.unwrap_or(self.pause + random::id() % (self.pause / 4 + 1));
        self.paused_until = now.plus(pause);
        self.shared.metrics.push_pause(self.kind);
        tracing::warn!(
            app = %self.app, channel = ?self.kind, reason = reason.0, pause_ms = pause,
            "a push provider takes nothing for now"
        );
    }

    /// Gives back a report that is to be sent again.
    fn handle_reported(&mut self, reported: Reported) -> Option<Reported> {
        let slot = self.slots.iter_mut().find(|slot| slot.id == reported.slot)?;
        let jobs = self.shared.jobs();
        let job = jobs.get(slot.run.key());
        let is_last = reported.report.progress.is_last();
        // Whether it was committed although nobody said so.
        let is_known = job.is_none_or(|job| {
            job.run != reported.report.run || job.reports >= reported.report.number
        });
        if reported.answer.result.is_ok() || is_last || is_known {
            slot.run.handle_reported(job);
            return None;
        }
        Some(reported)
    }

    fn note_in_flight(&mut self, flying: usize) {
        let flying = i64::try_from(flying).unwrap_or(i64::MAX);
        self.shared.metrics.push_in_flight(self.kind, flying - self.noted);
        self.noted = flying;
    }
}

/// When the job has something to do.
fn due(job: &PushJobRow) -> Millis {
    if job.state == JobState::Stopping {
        return Millis::ZERO;
    }
    let retries = job.retries.iter().map(|retry| retry.due);
    job.due_to.into_iter().chain(retries).min().unwrap_or(Millis::ZERO)
}

/// Up to which place the first pass of a run that is spread over time may go by now.
fn place(row: &carillon_world::MessageRow, job: &PushJobRow, now: Millis) -> u64 {
    let over = row.push.as_ref().map_or(0, |push| u64::from(push.over_s) * 1_000);
    let is_first = job.due_from == Millis::ZERO && job.kind == RunKind::Send;
    let passed = now.0.saturating_sub(job.began_at.0);
    if !is_first || passed >= over {
        return u64::MAX;
    }
    let share = u128::from(u64::MAX) * u128::from(passed) / u128::from(over);
    u64::try_from(share).unwrap_or(u64::MAX)
}
