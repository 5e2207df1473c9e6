//! Random histories of pushes: a real writer, a real run, a provider that is down, slow or forgetful, and crashes at any
//! point. The oracle is what the provider was handed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use carillon_persist::{Committed, Kept, PushJobRow, RunKind};
use carillon_world::{
    AppId, DeviceId, Environment, Epoch, Lineage, LineageEntry, MessageId, Millis, Priority,
    PushChannel, PushPolicy, PushToken, SealedCredential, Seq, ShardId, World,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::jobs::{JobKey, Jobs, Standing};
use super::policy::Notices;
use super::run::{Run, RunLimits};
use super::walk::{Books, Reach, Target, Walk};
use crate::core::channel::{Outcome, Reason, Scope};
use crate::core::input::ImportLine;
use crate::core::write::{CreateMessage, EditMessage, ReplyId, Write};
use crate::core::writer::{Loaded, Writer, WriterConfig};

const APP: AppId = AppId::new(0xa);
const MESSAGE: MessageId = MessageId::new(0xee);
const DEVICES: u64 = 300;
const GRACE: u64 = 5_000;
const LIMITS: RunLimits =
    RunLimits { window: 40, step: 5, retries: 6, attempts: 4, is_capped: false };
const KEY: JobKey = JobKey { app: APP, channel: PushChannel::Apns, message: MESSAGE };

/// Devices that have shown what they stored.
#[derive(Default)]
struct Held(BTreeMap<DeviceId, Seq>);

impl Books for Held {
    fn held(&self, device: DeviceId) -> Option<Seq> {
        self.0.get(&device).copied()
    }
    fn is_capped(&self, _device: DeviceId) -> bool {
        false
    }
}

/// What the provider was handed and took, of one run.
#[derive(Default)]
struct Taken {
    times: BTreeMap<DeviceId, u64>,
    gone: BTreeSet<DeviceId>,
    failed: BTreeSet<DeviceId>,
}

struct Bench {
    random: StdRng,
    now: Millis,
    writer: Writer,
    jobs: Jobs,
    held: Held,
    run: Option<Run>,
    in_flight: Vec<Target>,
    taken: BTreeMap<u32, Taken>,
    kills: u64,
    is_down: bool,
    next: u64,
    counted: u64,
    /// Whether trouble is still made.
    rough: bool,
    /// The last run whose reports may count less: one that an edit took the place of, or that a crash cut short.
    stopped: bool,
    handed_after_stopped: u64,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        let epoch = Epoch { number: 1, tag: 1 };
        let line = LineageEntry { epoch, began_after: Seq::ZERO, fork: false };
        let world = World::empty(ShardId::FIRST, Lineage::try_new(vec![line]).unwrap());
        let now = Millis(1_000_000_000_000);
        let writer = Writer::new(WriterConfig::default(), now, Loaded::from(world));
        let mut bench = Bench {
            random: StdRng::seed_from_u64(seed),
            now,
            writer,
            jobs: Jobs::default(),
            held: Held::default(),
            run: None,
            in_flight: Vec::new(),
            taken: BTreeMap::new(),
            kills: 0,
            is_down: false,
            next: 0,
            counted: 0,
            rough: true,
            stopped: false,
            handed_after_stopped: 0,
        };
        bench.write(Write::CreateApp {
            id: APP,
            name: "a".into(),
            environment: Environment::Sandbox,
            publishable_key: "pk".into(),
        });
        let credential =
            SealedCredential { sealed: b"x"[..].into(), about: "k".into(), set_at: now };
        let credential = Some(credential);
        bench.write(Write::SetCredential { app: APP, channel: PushChannel::Apns, credential });
        let token = |n: u64| PushToken { channel: PushChannel::Apns, token: format!("{n}").into() };
        let line = |n: u64| ImportLine {
            line: n,
            id: DeviceId::new(n),
            secret: None,
            user: None,
            attributes: vec![],
            groups: vec![],
            // A tenth has none.
            tokens: Some(if n.is_multiple_of(10) { vec![] } else { vec![token(n)] }),
        };
        bench.write(Write::ImportDevices { app: APP, lines: (1..=DEVICES).map(line).collect() });
        // A few were here of late, and get a grace.
        let hour = bench.now.hour();
        let seen = (1..=DEVICES).filter(|n| n.is_multiple_of(7)).map(|n| (DeviceId::new(n), hour));
        bench.write(Write::Seen { app: APP, devices: seen.collect() });
        bench
    }

    fn write(&mut self, write: Write) {
        self.next += 1;
        self.writer.handle_write(self.now, write, ReplyId(self.next));
        while self.writer.poll_batch(self.now).is_some() {
            let published =
                self.writer.handle_committed(self.now, Committed::default(), Duration::ZERO);
            self.jobs = published.jobs;
        }
        while let Some((_, answer)) = self.writer.poll_reply() {
            answer.result.unwrap();
        }
    }

    fn policy(&self) -> Option<Arc<PushPolicy>> {
        let text = r#"{"kind":"alert","text":{"title":"t","body":"b"}}"#;
        Some(Arc::new(serde_json::from_str(text).unwrap()))
    }

    fn create(&mut self) {
        let push = self.policy();
        self.write(Write::CreateMessage(Box::new(CreateMessage {
            app: APP,
            id: MESSAGE,
            key: None,
            to: "all".into(),
            body: "1".into(),
            priority: Priority::Normal,
            collapse_key: None,
            not_before: None,
            expires_at: None,
            push,
        })));
    }

    fn edit(&mut self) {
        let body = format!("{}", self.random.random::<u32>());
        self.write(Write::EditMessage(Box::new(EditMessage {
            app: APP,
            id: MESSAGE,
            if_match: None,
            to: None,
            body: Some(body.as_str().into()),
            priority: None,
            not_before: None,
            expires_at: None,
            push: None,
        })));
    }

    fn job(&self) -> &PushJobRow {
        self.jobs.get(KEY).expect("the message is pushed")
    }

    fn standing(&self) -> Standing {
        let app = self.writer.committed().app(APP).unwrap();
        self.jobs.standing(app.message(MESSAGE).unwrap().row())
    }

    /// As a lane does.
    fn step(&mut self) {
        self.now = self.now.plus(self.random.random_range(1..400));
        let job = self.job().clone();
        if let Some(run) = &mut self.run {
            run.handle_job(Some(&job));
            if run.is_closed() {
                self.run = None;
                self.in_flight.clear();
            }
        }
        if self.run.is_none() && job.is_live() {
            self.run = Some(Run::new(job.clone(), LIMITS));
        }
        let Some(run) = &mut self.run else { return };
        let job = run.job().clone();
        let world = self.writer.committed();
        let app = world.app(APP).unwrap();
        let message = app.message(MESSAGE).unwrap();
        let notices = Notices::of(message.row(), job.kind, job.began_at).unwrap();
        let walk = Walk::new(app, message, &job, &notices, &self.held, GRACE, world.clock());
        while let Some((device, attempts)) = run.poll_retry(self.now) {
            run.handle_retry(device, walk.again(device, attempts));
        }
        if let Some(after) = run.poll_walk(self.now) {
            let reach = Reach { targets: LIMITS.step, devices: 2_000, place: u64::MAX };
            run.handle_chunk(walk.chunk(after, reach));
        }
        for _ in 0..self.random.random_range(0..12) {
            let Some(target) = run.poll_target(self.now) else { break };
            if self.stopped && job.kind == RunKind::Send {
                self.handed_after_stopped += 1;
            }
            self.in_flight.push(target);
        }
        assert_eq!(run.in_flight(), self.in_flight.len());
        assert!(run.unreported() <= LIMITS.window, "{}", run.unreported());
        for _ in 0..self.random.random_range(0..12) {
            if self.in_flight.is_empty() {
                break;
            }
            let at = self.random.random_range(0..self.in_flight.len());
            let target = self.in_flight.swap_remove(at);
            let outcome = self.outcome(job.run, &target);
            let run = self.run.as_mut().unwrap();
            run.handle_outcome(self.now, target, outcome, self.random.random());
        }
        self.report();
        self.note_stopped();
    }

    /// Once it says so, the provider has nothing of it that is not answered.
    fn note_stopped(&mut self) {
        if self.stopped || self.standing() != Standing::Stopped {
            return;
        }
        self.stopped = true;
        let sending = self.run.as_ref().is_some_and(|run| run.job().kind == RunKind::Send);
        assert!(!sending || self.in_flight.is_empty(), "stopped with requests in flight");
    }

    fn outcome(&mut self, run: u32, target: &Target) -> Outcome {
        let taken = self.taken.entry(run).or_default();
        let reason = Reason("r");
        let bad = if self.rough { self.random.random_range(0..100) } else { 100 };
        match bad {
            _ if self.is_down => Outcome::Later { after: None, scope: Scope::Channel, reason },
            0..2 => {
                taken.gone.insert(target.device);
                Outcome::Gone { since: None }
            }
            2..4 => {
                taken.failed.insert(target.device);
                Outcome::Failed { reason }
            }
            4..14 => {
                if target.attempts + 1 >= LIMITS.attempts {
                    taken.failed.insert(target.device);
                }
                let after = (bad < 9).then_some(Duration::from_secs(30));
                Outcome::Later { after, scope: Scope::Target, reason }
            }
            _ => {
                *taken.times.entry(target.device).or_default() += 1;
                Outcome::Accepted
            }
        }
    }

    fn report(&mut self) {
        let Some(run) = &mut self.run else { return };
        let Some(report) = run.poll_report(self.now).cloned() else { return };
        // Now and then the answer is lost, and the same report comes again.
        let times = if self.random.random_range(0..10) == 0 { 2 } else { 1 };
        for _ in 0..times {
            let before = self.jobs.get(KEY).cloned();
            self.write(Write::PushReport(Arc::new(report.clone())));
            if before.is_some_and(|job| job.run == report.run && job.reports < report.number) {
                self.counted += report.counts.accepted;
            }
        }
        let job = self.job().clone();
        self.run.as_mut().unwrap().handle_reported(Some(&job));
    }

    /// Everything that is not committed is gone; what was in flight the provider may have taken or not.
    fn kill(&mut self) {
        let run = self.job().run;
        for target in std::mem::take(&mut self.in_flight) {
            if self.random.random_range(0..2) == 0 && !self.is_down {
                *self.taken.entry(run).or_default().times.entry(target.device).or_default() += 1;
            }
        }
        self.run = None;
        self.kills += 1;
        let kept = Kept { push_jobs: self.jobs.of(APP, MESSAGE).to_vec(), ..Kept::default() };
        let world = self.writer.committed().clone();
        let loaded = Loaded { kept, ..Loaded::from(world) };
        self.writer = Writer::new(WriterConfig::default(), self.now, loaded);
    }

    fn finish(&mut self) {
        self.rough = false;
        self.is_down = false;
        for _ in 0..100_000 {
            if !self.job().is_live() {
                return;
            }
            self.step();
        }
        panic!("it never ends: {:?}", self.job());
    }

    /// Everybody with a token was pushed in the run, but for those whose token is gone or whom the provider does not take.
    fn check(&self, run: u32) -> u64 {
        let none = Taken::default();
        let taken = self.taken.get(&run).unwrap_or(&none);
        let held = |n: &u64| self.held.0.contains_key(&DeviceId::new(*n));
        let lost: BTreeSet<DeviceId> =
            self.taken.range(..run).flat_map(|(_, taken)| taken.gone.iter().copied()).collect();
        for n in (1..=DEVICES).filter(|n| !n.is_multiple_of(10) && !held(n)) {
            let device = DeviceId::new(n);
            let pushed = taken.times.contains_key(&device);
            let excused = taken.gone.contains(&device)
                || taken.failed.contains(&device)
                || lost.contains(&device);
            assert!(pushed || excused, "device {n} was not pushed in run {run}");
        }
        taken.times.values().map(|times| times - 1).sum()
    }
}

#[derive(Debug, Default)]
struct Seen {
    kills: u64,
    repeats: u64,
    stopped: u64,
    withdrawn: u64,
    edits: u64,
    held: u64,
}

fn history(seed: u64, seen: &mut Seen) {
    let mut bench = Bench::new(seed);
    bench.create();
    let mut kills_of_run = 0;
    let mut recalled = false;
    let steps = bench.random.random_range(20..400);
    for _ in 0..steps {
        bench.step();
        match bench.random.random_range(0..200) {
            0..4 => {
                bench.kill();
                kills_of_run += 1;
            }
            4..8 => bench.is_down ^= true,
            8 if !recalled => {
                bench.edit();
                kills_of_run = 0;
                seen.edits += 1;
            }
            9 if !recalled && seed.is_multiple_of(3) => {
                recalled = true;
                bench.write(Write::RecallMessage { app: APP, id: MESSAGE });
                assert!(matches!(bench.standing(), Standing::Stopping | Standing::Stopped));
                bench.note_stopped();
            }
            10..13 => {
                // It came by and stored the message.
                let n = bench.random.random_range(1..=DEVICES);
                let at = bench.writer.committed().seq();
                bench.held.0.insert(DeviceId::new(n), at);
            }
            _ => {}
        }
    }
    bench.finish();
    let repeats = bench.check(bench.job().run);
    assert!(
        recalled || repeats <= kills_of_run * LIMITS.window as u64,
        "{repeats} repeats in {kills_of_run} kills"
    );
    assert_eq!(bench.handed_after_stopped, 0);
    if recalled {
        assert_eq!(bench.standing(), Standing::Stopped);
        assert_eq!(bench.job().kind, RunKind::Withdraw, "they were woken");
        seen.stopped += 1;
        seen.withdrawn += bench.taken[&bench.job().run].times.len() as u64;
    } else {
        assert_eq!(bench.standing(), Standing::Done);
    }
    if bench.kills == 0 && seen.edits == 0 {
        let accepted: u64 = bench.taken.values().flat_map(|taken| taken.times.values()).sum();
        assert_eq!(bench.counted, accepted, "each push is counted once");
    }
    seen.kills += bench.kills;
    seen.repeats += repeats;
    seen.held += bench.held.0.len() as u64;
}

#[test]
fn whatever_happens_everybody_is_pushed_and_nobody_after_stopped() {
    let (first, count) = match std::env::var("CARILLON_PUSH_SEED") {
        Ok(seed) => (seed.parse().expect("a number"), 1),
        Err(_) => (0, 400),
    };
    let mut seen = Seen::default();
    for seed in first..first + count {
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history(seed, &mut seen)));
        if let Err(panic) = result {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            panic!("CARILLON_PUSH_SEED={seed}: {text}");
        }
    }
    assert!(
        count == 1
            || (seen.kills > 500
                && seen.repeats > 200
                && seen.stopped > 20
                && seen.edits > 50
                && seen.held > 100),
        "{seen:?}"
    );
}
