//! What the outbox gets: every committed change once, under numbers without a gap, whatever becomes of batches.

use carillon_persist::Kept;
use carillon_persist::history::{BatchHistory, ForgetOutbox, OutboxEvent, OutboxKept};

use super::*;
use crate::core::history::{Event, EventLog};

fn bench(outbox_bytes_max: u64) -> Bench {
    let history = Some(HistoryConfig { outbox_bytes_max, attributes: false });
    let world = World::empty(ShardId::FIRST, lineage(&[(1, 0)]));
    let mut bench =
        Bench::configured(WriterConfig { history, ..WriterConfig::default() }, world, Vec::new());
    bench.app(APP, KEY);
    bench
}

/// A store's outbox, and what its changes were.
#[derive(Default)]
struct Told {
    /// The number of the last event.
    head: u64,
    /// Each event's name and change.
    events: Vec<(String, Option<Seq>)>,
    /// Changes that were committed, but for ticks of the clock.
    changes: Vec<Seq>,
    epochs: Vec<Epoch>,
    bytes: u64,
}

impl Told {
    fn commit(&mut self, history: &BatchHistory, changes: Option<&Batch>) {
        if let Some(row) = &history.outbox {
            assert_eq!(row.first, self.head + 1, "no gap, and none twice");
            self.head = row.last();
            let events = row.events().unwrap();
            let name = |event: &OutboxEvent<'_>| (event.event.to_owned(), event.change);
            self.events.extend(events.iter().map(name));
            self.epochs.push(row.epoch);
            self.bytes += row.payload.len() as u64;
        }
        let changes = changes.into_iter().flat_map(Batch::numbered);
        let told = changes.filter(|(_, change)| !matches!(change, Change::Clock { .. }));
        self.changes.extend(told.map(|(seq, _)| seq));
    }
}

#[test]
fn every_committed_change_is_told_once_whatever_becomes_of_batches() {
    let mut state = 11_u64;
    let mut random = move |n: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut bench = bench(u64::MAX);
    // What the app's own batches told is not seen here.
    let mut told = Told { head: bench.writer.ledger.committed.events, ..Told::default() };
    let before = bench.writer.committed().seq();
    let (mut lines, mut refused, mut doubts) = (vec![(1, 0)], 0, [0; 2]);
    for step in 0..4_000 {
        match random(10) {
            0..6 => {
                let n = random(20);
                let write = match random(5) {
                    0 => import(vec![ImportLine { attributes: vec![], ..line(1, n, "") }]),
                    1 => enrol(100 + step, n as u8),
                    2 => Write::DeleteDevice { app: APP, device: DeviceId::new(n) },
                    3 => create(CreateMessage {
                        expires_at: Some(bench.now.plus(1 + random(50))),
                        ..message(step)
                    }),
                    _ => Write::RecallMessage { app: APP, id: MessageId::new(random(step + 1)) },
                };
                bench.write(write);
            }
            6 => {
                bench.now = bench.now.plus(random(2_000));
                bench.writer.handle_tick(bench.now);
            }
            _ => {
                let Some(batch) = bench.batch() else { continue };
                match random(5) {
                    0 => {
                        refused += 1;
                        bench.refused();
                    }
                    1 => {
                        bench.writer.handle_unknown();
                        let committed = random(2) == 0;
                        doubts[usize::from(committed)] += 1;
                        let mut after = batch.head;
                        if committed {
                            told.commit(&batch.history, batch.changes.as_deref());
                            after = batch.last();
                        }
                        lines.push((lines.len() as u64 + 1, after.get()));
                        bench.writer.handle_epoch(bench.now, &lineage(&lines), after, told.head);
                        bench.drain();
                    }
                    _ => {
                        told.commit(&batch.history, batch.changes.as_deref());
                        bench.committed();
                    }
                }
            }
        }
    }
    while let Some(batch) = bench.batch() {
        told.commit(&batch.history, batch.changes.as_deref());
        bench.committed();
    }
    let world = bench.writer.committed();
    assert!(told.changes.len() as u64 <= world.seq().get() - before.get());
    let changes: Vec<Seq> = told.events.iter().filter_map(|(_, change)| *change).collect();
    assert_eq!(changes, told.changes, "in order");
    assert!(changes.len() > 500 && refused > 50 && doubts[0] > 30 && doubts[1] > 30);
    let opened = told.events.iter().filter(|(name, _)| name == "shard.opened").count();
    assert_eq!(opened, lines.len() - 1, "each epoch says that it began");
    assert!(told.epochs.is_sorted_by_key(|epoch| epoch.number));
    let state = &bench.writer.ledger.committed;
    assert_eq!(state.events, told.head);
    assert!(state.outbox_bytes >= told.bytes, "{} {}", state.outbox_bytes, told.bytes);
}

#[test]
fn a_full_outbox_refuses_writes_until_the_history_has_taken_some() {
    let mut bench = bench(2_000);
    let mut n = 0;
    let refused = loop {
        n += 1;
        let id = bench.write(create(message(n)));
        bench.settle();
        if bench.state(id) != "ok" {
            break id;
        }
        assert!(n < 100);
    };
    assert!(n > 2, "some go in");
    let problem = bench.answers[&refused].result.clone().unwrap_err();
    assert_eq!((problem.status, &*problem.code), (503, "history-full"));
    assert!(problem.retry_after.is_some());
    bench.ok(Write::RecallMessage { app: APP, id: MessageId::new(1) });
    // What is held already may end.
    let due = bench.writer.poll_timeout();
    bench.now = bench.now.max(due);
    bench.writer.handle_tick(bench.now);
    bench.settle();
    let state = &bench.writer.ledger.committed;
    let forget = Arc::new(ForgetOutbox { through: state.events, devices: Vec::new() });
    let sent = Write::HistorySent { forget, bytes: state.outbox_bytes };
    bench.ok(sent.clone());
    assert_eq!(bench.writer.ledger.committed.outbox_bytes, 0);
    bench.ok(create(message(1_000)));
    let waiting = bench.writer.ledger.committed.outbox_bytes;
    bench.ok(sent);
    assert_eq!(bench.writer.ledger.committed.outbox_bytes, waiting, "it counts once");
}

#[test]
fn users_tokens_and_secrets_are_not_told() {
    let mut bench = bench(u64::MAX);
    bench.write(enrol(1, 0xab));
    let mut all = String::new();
    while let Some(batch) = bench.batch() {
        if let Some(row) = &batch.history.outbox {
            let events = row.events().unwrap();
            all.extend(events.iter().map(|event| format!("{} {}\n", event.event, event.data)));
        }
        bench.committed();
    }
    assert!(all.contains("device.created"), "{all}");
    for secret in ["abababab", "user", "token", "secret", "country"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

#[test]
fn a_fork_is_told_by_the_next_owner_if_its_own_ended_too_soon() {
    let line = |number, after, fork| LineageEntry {
        epoch: Epoch { number, tag: number },
        began_after: Seq::new(after),
        fork,
    };
    let told = |lines: Vec<LineageEntry>| {
        let world = World::empty(ShardId::FIRST, Lineage::try_new(lines).unwrap());
        let history = Some(HistoryConfig { outbox_bytes_max: 1 << 20, attributes: false });
        let config = WriterConfig { history, ..WriterConfig::default() };
        let mut bench = Bench::configured(config, world, Vec::new());
        bench.app(APP, KEY);
        let state = &bench.writer.ledger.committed;
        // The app itself is one event.
        (state.events - 1, state.opened)
    };
    let [first, fork, third] = [line(1, 0, false), line(4, 0, true), line(5, 0, false)];
    assert_eq!(told(vec![first, fork]), (1, 4));
    assert_eq!(told(vec![first, fork, third]), (2, 5));
    assert_eq!(told(vec![first, line(4, 0, false), third]), (1, 5));
}

#[test]
fn a_device_that_goes_while_no_history_is_kept_loses_its_name() {
    let mut bench = Bench::with_app();
    bench.ok(import(vec![line(1, 5, "KE")]));
    bench.write(Write::DeleteDevice { app: APP, device: DeviceId::new(5) });
    let forget = bench.batch().unwrap().history.forget.expect("a name");
    assert_eq!(forget.through, 0);
    assert!(forget.devices.iter().all(|of| of.device == DeviceId::new(5) && of.event > 1 << 60));
    bench.committed();
}

#[test]
fn a_device_that_goes_while_events_wait_for_a_history_that_is_off_ends_with_them() {
    let world = World::empty(ShardId::FIRST, lineage(&[(1, 0)]));
    let outbox = OutboxKept { head: 9, bytes: 100 };
    let kept = Kept { outbox, ..Kept::default() };
    let mut bench = Bench::loaded(WriterConfig::default(), Loaded { kept, ..Loaded::from(world) });
    bench.furnish();
    bench.ok(import(vec![line(1, 5, "KE")]));
    bench.write(Write::DeleteDevice { app: APP, device: DeviceId::new(5) });
    let batch = bench.batch().unwrap();
    assert_eq!(batch.history.forget, None, "what waits would only get another name");
    let row = batch.history.outbox.as_ref().expect("its end");
    let events = row.events().unwrap();
    assert_eq!((row.first, events.len(), events[0].event), (10, 1, "device.deleted"));
    assert_eq!((events[0].device, events[0].change), (Some(DeviceId::new(5)), Some(batch.last())));
    bench.committed();
}

#[test]
fn a_branch_that_began_before_its_fork_is_told_from_there() {
    let line = |number, fork| LineageEntry {
        epoch: Epoch { number, tag: number },
        began_after: Seq::ZERO,
        fork,
    };
    let lines = vec![line(1, false), line(5, false), line(9, true)];
    let world = World::empty(ShardId::FIRST, Lineage::try_new(lines).unwrap());
    let kept = Kept { outbox: OutboxKept { head: 90, bytes: 10 }, ..Kept::default() };
    let history = Some(HistoryConfig { outbox_bytes_max: 1 << 20, attributes: false });
    let config = WriterConfig { history, ..WriterConfig::default() };
    let told = |fork| {
        let kept = kept.clone();
        let loaded = Loaded { kept, fork: Some(fork), ..Loaded::from(world.clone()) };
        let mut bench = Bench::loaded(config, loaded);
        let row = bench.batch().unwrap().history.outbox.unwrap();
        let events = row.events().unwrap();
        let data = |event: &OutboxEvent<'_>| {
            let data: serde_json::Value = serde_json::from_str(event.data).unwrap();
            (
                data["epoch"].as_u64(),
                data["fork"] == true,
                data["events"].as_u64(),
                data["from_epoch"].as_u64(),
            )
        };
        events.iter().map(data).collect::<Vec<_>>()
    };
    let epoch = |number| Epoch { number, tag: number };
    let own = Forked { epoch: epoch(9), from: 1, events: None };
    assert_eq!(told(own), [(Some(9), true, Some(90), Some(1))]);
    let earlier = Forked { epoch: epoch(5), from: 1, events: Some(70) };
    assert_eq!(
        told(earlier),
        [(Some(9), true, Some(90), None), (Some(5), true, Some(70), Some(1))]
    );
}

#[test]
fn data_that_kafka_would_never_take_is_left_out() {
    let data = |text: String| serde_json::json!({"attributes": {"a": text}});
    let mut log = EventLog::default();
    for data in [data("a".repeat(700 << 10)), data("\u{1}".repeat(256 << 10))] {
        let event = Event {
            name: "device.changed",
            change: None,
            app: Some(APP),
            device: Some(DeviceId::new(1)),
            message: None,
            data,
        };
        log.push(1, Millis(1), &event);
    }
    let row = log.row(Epoch { number: 1, tag: 1 }).unwrap();
    let events = row.events().unwrap();
    assert!(events[0].data.len() > 700 << 10);
    assert_eq!(events[1].data, r#"{"too_large":1572887}"#);
}
