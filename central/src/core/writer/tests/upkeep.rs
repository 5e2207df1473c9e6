//! What is forgotten, and that it goes in steps that leave writers their share.

use carillon_persist::{BatchUpkeep, Erase, ForgetKeys};

use super::*;
use crate::core::limits::{ERASE_DEVICES_MAX, SWEEP_DEVICES_MAX};

const HOUR: u64 = 60 * 60 * 1000;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

fn config() -> WriterConfig {
    WriterConfig {
        retention: WEEK,
        retained_changes_max: u64::MAX,
        device_ttl: None,
        purge_step: 100,
        purge_pause: 10,
        ..WriterConfig::default()
    }
}

/// With the app of [`Bench::with_app`], committed long before `config` begins.
fn bench(config: WriterConfig) -> Bench {
    let mut bench = Bench::with_app();
    bench.restart(config, Kept::default());
    bench
}

impl Bench {
    fn restart(&mut self, config: WriterConfig, kept: Kept) {
        let world = self.writer.committed().clone();
        self.writer = Writer::new(config, self.now, Loaded { kept, ..Loaded::from(world) });
    }

    fn tick(&mut self) {
        self.writer.handle_tick(self.now);
    }

    /// The next batch with a step of this kind. Steps of other kinds commit on the way, and found nothing.
    fn step(&mut self, kind: StepKind) -> StoreBatch {
        for _ in 0..100_000 {
            self.now = self.now.max(self.writer.poll_timeout());
            self.tick();
            let under_way = self.writer.step_under_way();
            let Some(batch) = self.batch() else { continue };
            if under_way == Some(kind) {
                return batch;
            }
            self.committed();
        }
        panic!("no step of kind {kind:?}");
    }

    /// Ticks through `time` with what becomes due, and gives the steps.
    fn steps_within(&mut self, time: u64) -> Vec<StepKind> {
        let until = self.now.plus(time);
        let mut steps = Vec::new();
        loop {
            let next = self.writer.poll_timeout();
            if next > until {
                self.now = until;
                return steps;
            }
            assert!(next > self.now || steps.is_empty(), "it spins");
            self.now = self.now.max(next);
            self.tick();
            steps.extend(self.writer.step_under_way());
            self.settle();
        }
    }

    fn devices(&mut self, ids: std::ops::Range<u64>) {
        self.ok(import(ids.map(|n| line(n, n, "KE")).collect()));
    }

    fn horizon(&self) -> u64 {
        self.writer.committed().horizon().get()
    }
}

fn purges(batch: &StoreBatch) -> Vec<u64> {
    let changes = batch.changes.iter().flat_map(|batch| &batch.changes);
    changes
        .filter_map(|change| match change {
            Change::Purge { horizon } => Some(horizon.get()),
            _ => None,
        })
        .collect()
}

fn gone(batch: &StoreBatch) -> Vec<u64> {
    let changes = batch.changes.iter().flat_map(|batch| &batch.changes);
    changes
        .filter_map(|change| match change {
            Change::DeviceGone { id, .. } => Some(id.get()),
            _ => None,
        })
        .collect()
}

#[test]
fn steps_are_bounded_one_at_a_time_and_pause_as_long_as_the_last_one_took() {
    let mut bench = bench(config());
    bench.devices(1..501);
    bench.steps_within(HOUR);
    bench.now = bench.now.plus(WEEK);
    let first = bench.step(StepKind::Purge);
    assert_eq!((purges(&first), first.horizon), (vec![100], Seq::ZERO));
    // However long the store takes, and whatever writers do meanwhile, there is no second one.
    for n in 0..5 {
        bench.now = bench.now.plus(50);
        bench.write(group(n + 1, &format!("g{n}")));
        bench.tick();
    }
    bench.committed();
    let began = bench.now;
    let writers = bench.batch().unwrap();
    assert_eq!((purges(&writers), writers.changes.unwrap().changes.len()), (vec![], 5));
    bench.committed();
    assert_eq!(bench.writer.poll_timeout(), began.plus(250), "it took 250 ms");
    bench.tick();
    assert_eq!(bench.writer.step_under_way(), None);
    let second = bench.step(StepKind::Purge);
    assert_eq!((purges(&second), second.horizon), (vec![200], Seq::new(100)));
    bench.committed();
    assert_eq!(bench.writer.poll_timeout(), bench.now.plus(10), "never less than the pause");
    let mut last = 200;
    while bench.horizon() < 504 {
        let step = purges(&bench.step(StepKind::Purge));
        assert!(step[0] > last && step[0] <= last + 100, "{step:?} after {last}");
        last = step[0];
        bench.committed();
    }
}

#[test]
fn a_step_is_written_with_what_writers_wrote_meanwhile() {
    let mut bench = bench(config());
    bench.devices(1..301);
    bench.steps_within(HOUR);
    bench.now = bench.now.plus(WEEK);
    let id = bench.write(group(1, "a"));
    let batch = bench.step(StepKind::Purge);
    assert_eq!((purges(&batch).len(), batch.changes.unwrap().changes.len()), (1, 2));
    bench.committed();
    assert_eq!(bench.state(id), "ok");
}

#[test]
fn samples_go_to_the_store_and_a_restart_goes_on_with_them() {
    let mut bench = bench(config());
    let mut kept = Kept { seen_since: Some(bench.now), ..Kept::default() };
    for n in 0..20 {
        bench.write(import(vec![line(n + 1, n + 1, "KE")]));
        let batch = bench.batch().unwrap();
        assert_eq!(batch.upkeep.sample, n % 2 == 0, "every ten minutes or so");
        if batch.upkeep.sample {
            kept.samples.push((batch.last(), bench.now));
        }
        bench.committed();
        bench.now = bench.now.plus(6 * 60 * 1000);
    }
    // The last write had no sample of its own, and nothing follows it.
    bench.tick();
    let tail = bench.batch().unwrap();
    assert!(tail.changes.is_none() && tail.upkeep.sample);
    kept.samples.push((tail.last(), bench.now));
    bench.committed();
    let (first, last) = (kept.samples[0], kept.samples[kept.samples.len() - 1]);
    assert_eq!(last.0, bench.writer.committed().seq());

    bench.now = first.1.plus(WEEK);
    bench.restart(config(), kept);
    assert_eq!(purges(&bench.step(StepKind::Purge)), [first.0.get()]);
    bench.committed();
    bench.now = last.1.plus(WEEK);
    bench.steps_within(HOUR);
    assert_eq!(bench.horizon(), last.0.get());
}

#[test]
fn an_idle_shard_comes_to_rest() {
    let mut bench = bench(config());
    bench.devices(1..301);
    let last = bench.writer.committed().seq();
    bench.steps_within(2 * WEEK);
    assert_eq!(bench.horizon(), last.get());
    let rest = bench.writer.committed().seq();
    let steps = bench.steps_within(5 * WEEK);
    assert_eq!(bench.writer.committed().seq(), rest, "its own purges are no reason to purge");
    assert!(steps.iter().all(|kind| *kind == StepKind::Keys), "{steps:?}");
}

#[test]
fn ended_messages_leave_the_world_when_the_horizon_passes_their_end() {
    let mut bench = bench(config());
    let expires_at = Some(bench.now.plus(DAY));
    bench.ok(create(CreateMessage { expires_at, ..message(1) }));
    bench.ok(create(message(2)));
    bench.ok(Write::RecallMessage { app: APP, id: MessageId::new(2) });
    bench.ok(create(CreateMessage { expires_at: Some(bench.now.plus(300 * DAY)), ..message(3) }));
    let left = |bench: &Bench| {
        let app = bench.writer.committed().app(APP).unwrap();
        let mut ids: Vec<u64> = app.messages_after(None).map(|m| m.row().id.get()).collect();
        ids.sort_unstable();
        ids
    };
    bench.steps_within(WEEK - HOUR);
    assert_eq!(left(&bench), [1, 2, 3]);
    bench.steps_within(2 * HOUR);
    assert_eq!(left(&bench), [1, 3], "the one that was recalled is a week old");
    bench.steps_within(DAY + HOUR);
    assert_eq!(left(&bench), [3]);
}

#[test]
fn keys_are_forgotten_a_step_after_the_other_until_the_store_has_no_more() {
    let mut bench = bench(config());
    let forget = |bench: &mut Bench| {
        let batch = bench.step(StepKind::Keys);
        assert!(batch.changes.is_none());
        let before = Millis(bench.now.0 - DAY);
        assert_eq!(batch.upkeep.forget_keys, Some(ForgetKeys { before, rows_max: 100 }));
    };
    // At the opening there may be any number of them that nobody has in RAM.
    for _ in 0..7 {
        forget(&mut bench);
        bench.found(Committed { keys_forgotten: 100, ..Committed::default() });
        assert_eq!(bench.writer.poll_timeout(), bench.now.plus(10));
    }
    forget(&mut bench);
    bench.found(Committed { keys_forgotten: 99, ..Committed::default() });
    let over = bench.now;
    forget(&mut bench);
    assert!(bench.now >= over.plus(HOUR));
    // Nobody says what became of it, so it is done again.
    bench.writer.handle_unknown();
    bench.writer.handle_epoch(bench.now, &lineage(&[(1, 0), (9, 4)]), Seq::new(4), 0);
    let failed = bench.now;
    forget(&mut bench);
    assert_eq!(bench.now, failed.plus(1_000));
}

#[test]
fn keys_in_ram_are_forgotten_a_bounded_number_at_a_time() {
    let key = |n: u64, at: u64| IdempotencyRow {
        app: APP,
        key: format!("{n}").into(),
        request: [0; 32],
        response: bytes::Bytes::new(),
        created_at: Millis(at),
    };
    let now = Bench::with_app().now;
    let most = KEYS_FORGOTTEN_MAX as u64;
    let rows = (0..most + 10).map(|n| key(n, 5)).chain([key(1 << 40, now.0)]).collect();
    let world = Bench::with_app().writer.committed().clone();
    let mut bench = Bench::configured(config(), world, rows);
    let known =
        |bench: &Bench, n: u64| bench.writer.ledger.keys.get(APP, &format!("{n}").into()).is_some();
    bench.now = bench.now.plus(KEYS_EVERY);
    bench.tick();
    assert!(!known(&bench, most - 1) && known(&bench, most));
    bench.now = bench.now.plus(KEYS_PAUSE);
    bench.tick();
    assert!(!known(&bench, most + 9) && known(&bench, 1 << 40));
}

#[test]
fn a_step_that_the_store_refuses_is_taken_again_after_a_while() {
    let mut bench = bench(config());
    bench.devices(1..301);
    bench.steps_within(HOUR);
    bench.now = bench.now.plus(WEEK);
    let purge = purges(&bench.step(StepKind::Purge));
    bench.refused();
    let failed = bench.now;
    assert_eq!(bench.writer.step_under_way(), None);
    assert_eq!(purges(&bench.step(StepKind::Purge)), purge);
    assert!(bench.now >= failed.plus(1_000));
    // One that waits behind a batch that is refused goes with it.
    bench.committed();
    bench.write(group(1, "a"));
    bench.batch().unwrap();
    bench.now = bench.writer.poll_timeout().max(bench.now);
    bench.tick();
    assert!(bench.writer.step_under_way().is_some());
    bench.refused();
    assert_eq!(bench.writer.step_under_way(), None);
}

#[test]
fn devices_that_are_not_seen_for_long_are_forgotten_in_steps_and_the_others_stay() {
    let config = WriterConfig { device_ttl: Some(180 * DAY), ..config() };
    let mut bench = bench(config);
    let kept = Kept { seen_since: Some(Millis(0)), ..Kept::default() };
    bench.restart(config, kept);
    bench.devices(1..1_001);
    bench.steps_within(100 * DAY);
    let seen = Write::Seen {
        app: APP,
        devices: (1..51).map(|n| (DeviceId::new(n), bench.now.hour())).collect(),
    };
    bench.ok(seen);
    bench.devices(2_001..2_011);
    bench.steps_within(80 * DAY - HOUR);
    assert_eq!(bench.writer.committed().app(APP).unwrap().device_count(), 1_010);
    let mut forgotten = Vec::new();
    while forgotten.len() < 950 {
        let step = gone(&bench.step(StepKind::Devices));
        assert!(!step.is_empty() && step.len() <= 100, "{}", step.len());
        forgotten.extend(step);
        bench.committed();
    }
    forgotten.sort_unstable();
    assert_eq!(forgotten, (51..1_001).collect::<Vec<_>>());
    bench.steps_within(99 * DAY);
    assert_eq!(bench.writer.committed().app(APP).unwrap().device_count(), 60);
    bench.steps_within(3 * DAY);
    assert_eq!(bench.writer.committed().app(APP).unwrap().device_count(), 0);
}

#[test]
fn no_device_is_forgotten_unless_configuration_says_so() {
    let mut bench = bench(config());
    bench.devices(1..11);
    let steps = bench.steps_within(400 * DAY);
    assert!(!steps.contains(&StepKind::Devices));
    assert_eq!(bench.writer.committed().app(APP).unwrap().device_count(), 10);
}

#[test]
fn a_look_at_many_devices_goes_in_parts() {
    let config = WriterConfig { device_ttl: Some(DAY), ..config() };
    let mut bench = bench(config);
    let kept = Kept { seen_since: Some(Millis(0)), ..Kept::default() };
    bench.restart(config, kept);
    let many = 2 * SWEEP_DEVICES_MAX as u64 + 10;
    bench.devices(1..many + 1);
    let all: Vec<_> = (1..=many).map(|n| (DeviceId::new(n), bench.now.hour() + 24)).collect();
    bench.now = bench.now.plus(DAY);
    for part in all.chunks(1_000) {
        bench.ok(Write::Seen { app: APP, devices: part.to_vec() });
    }
    bench.now = bench.now.plus(DAY / 2);
    bench.steps_within(HOUR);
    assert_eq!(bench.writer.committed().app(APP).unwrap().device_count() as u64, many);
    let mut forgotten = 0;
    while forgotten < many {
        forgotten += gone(&bench.step(StepKind::Devices)).len() as u64;
        bench.committed();
    }
}

#[test]
fn what_is_gone_is_erased_until_nothing_is_left_and_a_restart_knows() {
    let mut bench = bench(config());
    bench.devices(1..ERASE_DEVICES_MAX as u64 + 3);
    for n in [5, 6] {
        bench.ok(Write::DeleteDevice { app: APP, device: DeviceId::new(n) });
    }
    let of = |ids: &[u64]| ids.iter().map(|n| (APP, DeviceId::new(*n))).collect::<Vec<_>>();
    let erase = |devices| Some(Erase { devices, rows_max: 100 });
    let full = Committed { receipts_erased: 100, ..Committed::default() };
    assert_eq!(bench.step(StepKind::Erasures).upkeep.erase, erase(of(&[5, 6])));
    bench.found(full);
    assert_eq!(bench.step(StepKind::Erasures).upkeep.erase, erase(of(&[5, 6])));
    // One that goes meanwhile waits for its own.
    bench.write(Write::DeleteDevice { app: APP, device: DeviceId::new(7) });
    bench.found(Committed { receipts_erased: 99, ..Committed::default() });
    bench.settle();
    assert_eq!(bench.step(StepKind::Erasures).upkeep.erase, erase(of(&[7])));
    bench.committed();
    assert!(!bench.steps_within(DAY).contains(&StepKind::Erasures));

    let many: Vec<u64> = (0..ERASE_DEVICES_MAX as u64 + 1).collect();
    let kept = Kept { erasures: of(&many), ..Kept::default() };
    bench.restart(config(), kept);
    let (few, last) = many.split_at(ERASE_DEVICES_MAX);
    assert_eq!(bench.step(StepKind::Erasures).upkeep.erase, erase(of(few)));
    bench.committed();
    assert_eq!(bench.step(StepKind::Erasures).upkeep.erase, erase(of(last)));
}

#[test]
fn a_report_of_devices_seen_changes_nothing_but_when_they_were_seen() {
    let mut bench = bench(config());
    bench.devices(1..4);
    let head = bench.writer.committed().seq();
    let hour = bench.now.hour();
    let report = |devices: &[(u64, u32)]| Write::Seen {
        app: APP,
        devices: devices.iter().map(|(n, hour)| (DeviceId::new(*n), *hour)).collect(),
    };
    let seen = |hour, devices: &[u64]| {
        let devices = devices.iter().map(|id| DeviceId::new(*id)).collect();
        Change::Seen { app: APP, at: Millis::of_hour(hour), devices }
    };
    // 2 has a clock of long ago, 3 one that runs ahead, 9 is nobody.
    let id = bench.write(report(&[(1, hour), (1, hour), (2, 7), (3, hour + 99), (9, hour)]));
    let batch = bench.batch().unwrap();
    assert_eq!(batch.changes.unwrap().changes, [seen(hour - 1, &[2]), seen(hour, &[1, 3])]);
    assert_eq!(bench.state(id), "waits");
    bench.committed();
    assert_eq!(bench.state(id), "ok");
    assert_eq!(bench.writer.committed().seq(), head.plus(2));
    let row =
        |n| bench.writer.committed().app(APP).unwrap().device(DeviceId::new(n)).unwrap().clone();
    assert_eq!((row(2).last_seen, row(2).p < head), (Millis::of_hour(hour - 1), true));
    // The same again is not even a batch.
    bench.write(report(&[(1, hour), (2, hour - 1)]));
    assert!(bench.batch().is_none());
    bench.now = bench.now.plus(HOUR);
    bench.write(report(&[(1, hour + 1)]));
    assert_eq!(bench.batch().unwrap().changes.unwrap().changes, [seen(hour + 1, &[1])]);
    bench.committed();
    let many = (0..=carillon_world::SEEN_DEVICES_MAX as u64).map(|n| (n, hour)).collect::<Vec<_>>();
    assert_eq!(bench.code(report(&many)), "too-large");
}

#[test]
fn reports_of_many_edges_are_cut_into_batches_too() {
    let mut bench = bench(config());
    bench.devices(1..6_001);
    bench.now = bench.now.plus(HOUR);
    bench.write(group(1, "a"));
    bench.batch().unwrap();
    for part in 0..6 {
        let ids = part * 1_000 + 1..part * 1_000 + 1_001;
        let devices = ids.map(|n| (DeviceId::new(n), bench.now.hour())).collect();
        bench.write(Write::Seen { app: APP, devices });
    }
    bench.committed();
    let sizes: Vec<usize> = std::iter::from_fn(|| {
        let batch = bench.batch()?;
        bench.committed();
        let seen = |change: &Change| match change {
            Change::Seen { devices, .. } => devices.len(),
            other => panic!("{other:?}"),
        };
        Some(batch.changes.unwrap().changes.iter().map(seen).sum::<usize>())
    })
    .collect();
    assert_eq!(sizes, [4_000, 2_000]);
}

#[test]
fn the_store_is_told_once_since_when_devices_are_looked_at() {
    let mut bench = bench(config());
    let since = Some(bench.now);
    bench.write(group(1, "a"));
    assert_eq!(bench.batch().unwrap().upkeep.seen_since, since);
    bench.refused();
    bench.now = bench.now.plus(5);
    bench.write(group(2, "b"));
    assert_eq!(bench.batch().unwrap().upkeep.seen_since, since);
    bench.committed();
    bench.write(group(3, "c"));
    let upkeep = bench.batch().unwrap().upkeep;
    assert_eq!(BatchUpkeep { sample: false, ..upkeep }, BatchUpkeep::default());
}

#[test]
fn a_users_devices_are_erased_and_nobody_elses() {
    let mut bench = bench(config());
    let of = |user: &str, id| ImportLine { user: Some(user.into()), ..line(id, id, "KE") };
    bench.ok(import(vec![of("ann", 1), of("ann", 2), of("ben", 3), line(4, 4, "KE")]));
    let erase = Write::EraseUser {
        app: APP,
        user: "ann".into(),
        devices: [1, 2, 3, 4, 9].map(DeviceId::new).into(),
    };
    let Reply::Erased(count) = bench.ok(erase.clone()) else { panic!("another reply") };
    assert_eq!(count, 2);
    assert_eq!([1, 2, 3, 4].map(|id| bench.device(id).is_some()), [false, false, true, true]);
    let Reply::Erased(count) = bench.ok(erase) else { panic!("another reply") };
    assert_eq!(count, 0);
}
