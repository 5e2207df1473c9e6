//! One run of a job: what is handed to the provider next, what became of it, and what to report.
//!
//! The targets of a stretch of the walk make a step. Steps are settled in any order and reported in theirs, so what a
//! crash repeats is bounded: no more than `window` pushes are ever handed over and not reported. What a provider does not
//! take for now stays in its step for a moment, or goes to the retries, which the store keeps; if there are too many of
//! those, steps wait and the walk with them, which is what bounds a provider's being down.
//!
//! Invariants: a target is in one place (the queue, waiting, or in flight); `unreported` counts those of all steps that
//! are not committed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use carillon_persist::{JobState, PushJobRow, Retry};
use carillon_world::{DeviceId, Millis};

use super::jobs::JobKey;
use super::report::{Counts, Progress, PushReport};
use super::walk::{Chunk, Target, earlier};
use crate::core::channel::{Outcome, Reason, Scope};

/// What a run may hold.
#[derive(Clone, Copy, Debug)]
pub struct RunLimits {
    /// Pushes handed over and not reported: what a crash repeats at most.
    pub window: usize,
    /// Targets of a step.
    pub step: usize,
    /// Devices that the store remembers to be tried again.
    pub retries: usize,
    /// Tries of one target, after which it counts as failed.
    pub attempts: u32,
    /// Whether a frequency cap has to know who was pushed.
    pub is_capped: bool,
}

/// Before a target is tried again: a second, then twice as long each time,
const BACKOFF_MIN: u64 = 1_000;
/// at most ten minutes.
const BACKOFF_MAX: u64 = 10 * 60 * 1000;
/// Before a target whose service has as many requests as it may have is handed over again, and up to twice as long.
const BUSY: u64 = 250;
/// Between two reports, unless half a window waits for one: each shares a batch with the writes of callers.
const REPORT_PAUSE: u64 = 50;
/// What comes again this soon waits in its step; what takes longer is left to the retries.
const PATIENCE: u64 = 3_000;

/// What became of the targets of a step.
#[derive(Clone, Debug, Default)]
struct Tally {
    counts: Counts,
    gone: Vec<(DeviceId, Arc<str>)>,
    pushed: Vec<DeviceId>,
    later: Vec<Retry>,
}

#[derive(Debug)]
struct Step {
    /// All devices up to this one are in this step or before it.
    last: Option<DeviceId>,
    targets: usize,
    open: usize,
    tally: Tally,
}

/// A device that is tried again.
#[derive(Debug)]
struct Trying {
    /// Targets that did not come back yet.
    open: usize,
    /// One of them has to be tried once more.
    again: bool,
}

/// A report that is with the writer.
#[derive(Debug)]
struct Sent {
    steps: usize,
    passed: bool,
    report: PushReport,
}

#[derive(Debug)]
pub struct Run {
    /// As committed.
    job: PushJobRow,
    limits: RunLimits,
    walked: Option<DeviceId>,
    ended: bool,
    next_due: Option<Millis>,
    steps: VecDeque<Step>,
    /// The number of the first step.
    first: u64,
    unreported: usize,
    queue: VecDeque<Target>,
    /// Tried again soon, by when and a number of its own.
    waiting: BTreeMap<(Millis, u64), Target>,
    waited: u64,
    retries: BTreeMap<DeviceId, Retry>,
    /// When the first of them is due that is not being tried.
    retry_at: Option<Millis>,
    /// Those that are being tried.
    trying: BTreeMap<DeviceId, Trying>,
    /// What became of retries since the last report.
    tried: Tally,
    is_news: bool,
    in_flight: usize,
    sent: Option<Sent>,
    /// When the last report was given out.
    reported_at: Millis,
    /// Nothing is handed over any more, because the job is stopping or has gone on without this run.
    over: bool,
    /// The last report was taken.
    closed: bool,
}

impl Run {
    pub fn new(job: PushJobRow, limits: RunLimits) -> Run {
        let retries = job.retries.iter().map(|retry| (retry.device, *retry)).collect();
        let over = job.state != JobState::Sending;
        let mut run = Run {
            walked: job.after,
            next_due: job.next_due,
            job,
            limits,
            ended: false,
            steps: VecDeque::new(),
            first: 0,
            unreported: 0,
            queue: VecDeque::new(),
            waiting: BTreeMap::new(),
            waited: 0,
            retries,
            retry_at: None,
            trying: BTreeMap::new(),
            tried: Tally::default(),
            is_news: false,
            in_flight: 0,
            sent: None,
            reported_at: Millis::ZERO,
            over,
            closed: false,
        };
        run.plan_retries();
        run
    }

    fn plan_retries(&mut self) {
        let tried = |retry: &&Retry| !self.trying.contains_key(&retry.device);
        self.retry_at = self.retries.values().filter(tried).map(|retry| retry.due).min();
    }

    pub fn job(&self) -> &PushJobRow {
        &self.job
    }

    pub fn key(&self) -> JobKey {
        JobKey::of(&self.job)
    }

    /// Requests that are with the provider.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Targets that a crash would hand over again.
    pub fn unreported(&self) -> usize {
        self.unreported + self.trying.len()
    }

    /// Whether the run has nothing to do until later, and holds nothing that its job does not say.
    pub fn is_idle(&self, now: Millis) -> bool {
        let holds = self.in_flight > 0
            || self.sent.is_some()
            || self.is_news
            || !self.steps.is_empty()
            || !self.waiting.is_empty()
            || !self.trying.is_empty();
        !self.over
            && !holds
            && self.walked == self.job.after
            && self.poll_timeout().is_none_or(|at| at > now)
    }

    /// Whether the run has nothing to do any more, and never will.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// What is committed of the job now; `None` if it is not there any more. A run that is not the job's any more hands
    /// nothing over from then on.
    pub fn handle_job(&mut self, job: Option<&PushJobRow>) {
        match job {
            Some(job) if job.run == self.job.run && job.state != JobState::Done => {
                if job.state == JobState::Stopping {
                    self.stop();
                }
                self.job.state = job.state;
            }
            _ => {
                self.job.state = JobState::Done;
                self.stop();
                // The job may be done by this run's own report, which tells.
                self.closed |= self.in_flight == 0 && self.sent.is_none() && !self.has_tally();
            }
        }
    }

    fn stop(&mut self) {
        self.over = true;
        self.queue.clear();
        self.waiting.clear();
    }

    fn has_tally(&self) -> bool {
        let told = |tally: &Tally| !tally.counts.is_empty() || !tally.gone.is_empty();
        told(&self.tried) || self.steps.iter().any(|step| told(&step.tally))
    }

    /// After which device a walk goes on, if it should: there is room, and the pass is due.
    pub fn poll_walk(&self, now: Millis) -> Option<Option<DeviceId>> {
        let due = self.job.due_to.is_some_and(|due| due <= now);
        // Retries that are as many as may be hold the walk up.
        let room = self.unreported + self.trying.len() + self.limits.step <= self.limits.window
            && self.retries.len() + self.later() < self.limits.retries;
        let wanted = !self.over && !self.ended && due && room && self.queue.is_empty();
        wanted.then_some(self.walked)
    }

    /// What the walk found.
    pub fn handle_chunk(&mut self, chunk: Chunk) {
        if self.over {
            return;
        }
        self.walked = chunk.last;
        self.ended = chunk.ended;
        self.next_due = earlier(self.next_due, chunk.next_due);
        let sent = self.sent.as_ref().map_or(0, |sent| sent.steps);
        let tally = Tally { counts: chunk.counts, ..Tally::default() };
        let open = self.steps.len() > sent;
        match self.steps.back_mut() {
            // A stretch in which there is nobody needs no step of its own.
            Some(step) if chunk.targets.is_empty() && open => {
                step.last = chunk.last;
                step.tally.counts.add(&tally.counts);
            }
            _ => {
                let number = self.first + self.steps.len() as u64;
                let targets = chunk.targets.len();
                self.steps.push_back(Step { last: chunk.last, targets, open: targets, tally });
                self.unreported += targets;
                let of_step = |target| Target { step: Some(number), ..target };
                self.queue.extend(chunk.targets.into_iter().map(of_step));
            }
        }
    }

    /// Whether there is something to look up in the world: a stretch of the walk, or a device that is tried again.
    pub fn wants_world(&self, now: Millis) -> bool {
        self.poll_walk(now).is_some() || self.poll_retry(now).is_some()
    }

    /// A device that the store remembers and whose time has come: give its targets to [`Run::handle_retry`].
    pub fn poll_retry(&self, now: Millis) -> Option<(DeviceId, u32)> {
        let full = self.unreported + self.trying.len() >= self.limits.window;
        if self.over || full || self.retry_at.is_none_or(|at| at > now) {
            return None;
        }
        let due = |retry: &&Retry| retry.due <= now && !self.trying.contains_key(&retry.device);
        self.retries.values().find(due).map(|retry| (retry.device, retry.attempts))
    }

    pub fn handle_retry(&mut self, device: DeviceId, targets: Vec<Target>) {
        if targets.is_empty() {
            self.retries.remove(&device);
            self.is_news = true;
            self.plan_retries();
            return;
        }
        self.trying.insert(device, Trying { open: targets.len(), again: false });
        self.queue.extend(targets);
        self.plan_retries();
    }

    /// The next one to hand to the provider. It is in flight then, until [`Run::handle_outcome`].
    pub fn poll_target(&mut self, now: Millis) -> Option<Target> {
        if self.over {
            return None;
        }
        let waiting = self.waiting.first_entry().filter(|entry| entry.key().0 <= now);
        let target = waiting.map(|entry| entry.remove()).or_else(|| self.queue.pop_front())?;
        self.in_flight += 1;
        Some(target)
    }

    /// Gives back one that was not handed over after all.
    pub fn put_back(&mut self, target: Target) {
        self.in_flight -= 1;
        if !self.over {
            self.queue.push_front(target);
        }
    }

    /// `chance`: random bits, by which those that wait are spread.
    pub fn handle_outcome(&mut self, now: Millis, target: Target, outcome: Outcome, chance: u64) {
        match outcome {
            Outcome::Accepted => {
                let is_capped = self.limits.is_capped;
                self.settle(target, |tally, target| {
                    tally.counts.accepted += 1;
                    if is_capped {
                        tally.pushed.push(target.device);
                    }
                });
            }
            Outcome::Gone { .. } => {
                self.settle(target, |tally, target| {
                    tally.gone.push((target.device, target.token.clone()));
                });
            }
            Outcome::Failed { reason } => self.fail(target, reason),
            // The lane waits, and this is no fault of the target's.
            Outcome::Later { scope: Scope::Channel, .. } | Outcome::Refused { .. } => {
                self.put_back(target);
            }
            // Nobody was asked, so it was no try.
            Outcome::Busy => self.wait(now.plus(BUSY + chance % BUSY), target),
            Outcome::Later { after, scope: Scope::Target, reason } => {
                let attempts = target.attempts + 1;
                if attempts >= self.limits.attempts {
                    return self.fail(target, reason);
                }
                let pause = pause(after, attempts, chance);
                let (target, due) = (Target { attempts, ..target }, now.plus(pause));
                let full = self.retries.len() + self.later() >= self.limits.retries;
                if pause <= PATIENCE || (full && target.step.is_some()) {
                    return self.wait(due, target);
                }
                let retry = Retry { device: target.device, attempts, due };
                match target.step {
                    Some(_) => self.settle(target, |tally, _| tally.later.push(retry)),
                    None => {
                        self.retries.insert(target.device, retry);
                        self.settle_retry(target.device, false);
                    }
                }
            }
        }
    }

    /// It stays in its step and is handed over again at `due`.
    fn wait(&mut self, due: Millis, target: Target) {
        self.in_flight -= 1;
        if !self.over {
            self.waiting.insert((due, self.waited), target);
            self.waited += 1;
        }
    }

    fn fail(&mut self, target: Target, reason: Reason) {
        self.settle(target, |tally, _| *tally.counts.failed.entry(reason).or_default() += 1);
    }

    fn settle(&mut self, target: Target, note: impl FnOnce(&mut Tally, &Target)) {
        match target.step {
            Some(number) => {
                self.in_flight -= 1;
                let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
                if let Some(step) = at.and_then(|at| self.steps.get_mut(at)) {
                    note(&mut step.tally, &target);
                    step.open -= 1;
                }
            }
            None => {
                note(&mut self.tried, &target);
                self.settle_retry(target.device, true);
            }
        }
    }

    /// One target of a device that was tried again came back; `done`: it is settled for good.
    fn settle_retry(&mut self, device: DeviceId, done: bool) {
        self.in_flight -= 1;
        self.is_news = true;
        let Some(trying) = self.trying.get_mut(&device) else { return };
        trying.open -= 1;
        trying.again |= !done;
        let (is_over, again) = (trying.open == 0, trying.again);
        if is_over {
            self.trying.remove(&device);
            if !again {
                self.retries.remove(&device);
            }
            self.plan_retries();
        }
    }

    /// Devices of open steps that will be tried again.
    fn later(&self) -> usize {
        self.steps.iter().map(|step| step.tally.later.len()).sum()
    }

    /// What is to be committed, if there is something and nothing is with the writer. It stays the same until
    /// [`Run::handle_reported`], so it may be sent again.
    pub fn poll_report(&mut self, now: Millis) -> Option<&PushReport> {
        if self.report_due().is_some_and(|due| due <= now) {
            self.sent = if self.over { self.last_report() } else { Some(self.next_report()) };
            self.reported_at = now;
        }
        self.sent.as_ref().map(|sent| &sent.report)
    }

    /// When [`Run::poll_report`] has one that was not given out before; at once if it is in the past, and `None` if that
    /// depends on what comes back.
    pub fn report_due(&self) -> Option<Millis> {
        if self.sent.is_some() || self.closed {
            return None;
        }
        if self.over {
            return (self.in_flight == 0).then_some(Millis::ZERO);
        }
        let settled: usize =
            self.steps.iter().take_while(|step| step.open == 0).map(|step| step.targets).sum();
        // What is settled and not reported is in the way of what could be handed over.
        if settled * 2 >= self.limits.window || self.has_passed() {
            return Some(Millis::ZERO);
        }
        let is_settled = self.steps.front().is_some_and(|step| step.open == 0);
        (is_settled || self.is_news).then(|| self.reported_at.plus(REPORT_PAUSE))
    }

    fn has_passed(&self) -> bool {
        self.ended && self.queue.is_empty() && self.steps.iter().all(|step| step.open == 0)
    }

    fn next_report(&mut self) -> Sent {
        let steps = self.steps.iter().take_while(|step| step.open == 0).count();
        let mut tally = std::mem::take(&mut self.tried);
        self.is_news = false;
        let mut after = self.job.after;
        for step in self.steps.iter_mut().take(steps) {
            after = step.last;
            take(&mut tally, &mut step.tally);
        }
        self.retries.extend(tally.later.drain(..).map(|retry| (retry.device, retry)));
        self.plan_retries();
        let passed = self.ended && steps == self.steps.len() && self.queue.is_empty();
        let progress = if passed {
            Progress::Passed { next_due: self.next_due }
        } else {
            Progress::Within { after, next_due: self.next_due }
        };
        let report = self.report(progress, tally);
        Sent { steps, passed, report }
    }

    /// What an ended run has not told yet, once nothing of it is in flight.
    fn last_report(&mut self) -> Option<Sent> {
        if self.in_flight > 0 {
            return None;
        }
        let mut tally = std::mem::take(&mut self.tried);
        for step in &mut self.steps {
            take(&mut tally, &mut step.tally);
        }
        let progress = match self.job.state {
            JobState::Stopping => Progress::Stopped,
            JobState::Sending | JobState::Done => Progress::Superseded,
        };
        self.retries.clear();
        let report = self.report(progress, tally);
        Some(Sent { steps: self.steps.len(), passed: false, report })
    }

    fn report(&self, progress: Progress, tally: Tally) -> PushReport {
        PushReport {
            key: self.key(),
            run: self.job.run,
            kind: self.job.kind,
            number: self.job.reports + 1,
            progress,
            retries: self.retries.values().copied().collect(),
            counts: tally.counts,
            pushed: tally.pushed,
            gone: tally.gone,
        }
    }

    /// The report was committed, and this is the job since; `None` if it went on without this run.
    pub fn handle_reported(&mut self, job: Option<&PushJobRow>) {
        let Some(sent) = self.sent.take() else { return };
        for step in self.steps.drain(..sent.steps.min(self.steps.len())) {
            self.unreported -= step.targets;
            self.first += 1;
        }
        if sent.report.progress.is_last() {
            self.closed = true;
            return;
        }
        let same = job.filter(|job| job.run == self.job.run);
        if let Some(job) = same {
            self.job = job.clone();
            if sent.passed {
                self.walked = None;
                self.ended = false;
                self.next_due = None;
            }
        }
        self.handle_job(same);
    }

    /// When there is something to do although nothing came.
    pub fn poll_timeout(&self) -> Option<Millis> {
        if self.over {
            return None;
        }
        let pass = self.job.due_to.filter(|_| !self.ended);
        let waiting = self.waiting.keys().next().map(|(due, _)| *due);
        earlier(earlier(pass, waiting), self.retry_at)
    }
}

fn take(into: &mut Tally, from: &mut Tally) {
    into.counts.add(&std::mem::take(&mut from.counts));
    into.gone.append(&mut from.gone);
    into.pushed.append(&mut from.pushed);
    into.later.append(&mut from.later);
}

/// What the provider said, or twice as long each time; a quarter more by chance.
fn pause(after: Option<Duration>, attempts: u32, chance: u64) -> u64 {
    let said = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(BACKOFF_MAX));
    let base = said.unwrap_or_else(|| {
        BACKOFF_MIN.saturating_mul(1 << attempts.saturating_sub(1).min(20)).min(BACKOFF_MAX)
    });
    base + chance % (base / 4 + 1)
}
