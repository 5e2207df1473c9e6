//! The committed clock: that it runs while something follows it, and then alone.

use super::*;

const HOUR: u64 = 60 * 60 * 1000;
const TICK: u64 = 10_000;

/// Everybody who was seen in the last two hours.
fn to_seen(id: u64) -> CreateMessage {
    CreateMessage { to: "last_seen within 2h".into(), ..message(id) }
}

impl Bench {
    /// Ticks through `time` with what becomes due, and gives what is committed and when.
    fn changes_within(&mut self, time: u64) -> Vec<(u64, Change)> {
        let (begun, until) = (self.now, self.now.plus(time));
        let mut changes = Vec::new();
        loop {
            self.writer.handle_tick(self.now);
            while let Some(batch) = self.batch() {
                let of_batch = batch.changes.iter().flat_map(|batch| batch.changes.clone());
                changes.extend(of_batch.map(|change| (self.now.0 - begun.0, change)));
                self.committed();
            }
            let next = self.writer.poll_timeout();
            if next > until {
                self.now = until;
                return changes;
            }
            self.now = next.max(self.now.plus(1));
        }
    }

    fn clock(&self) -> Millis {
        self.writer.committed().clock()
    }
}

#[test]
fn a_volatile_message_brings_the_clock_up_to_date_in_its_own_batch() {
    let mut bench = Bench::with_app();
    bench.ok(create(message(7)));
    assert_eq!(bench.clock(), Millis::ZERO, "nothing looks at it");
    bench.now = bench.now.plus(1);
    bench.write(create(to_seen(8)));
    let changes = bench.batch().unwrap().changes.unwrap();
    assert!(
        matches!(changes.changes[..], [Change::Clock { at }, Change::Message(_)] if at == bench.now)
    );
    bench.committed();
    assert_eq!(bench.clock(), bench.now);
    // A second one at the same moment has nothing to bring.
    bench.write(create(to_seen(9)));
    assert_eq!(bench.batch().unwrap().changes.unwrap().changes.len(), 1);
    bench.committed();
    // So does an edit.
    bench.now = bench.now.plus(5);
    let Write::EditMessage(of_seven) = edit(7, None, "1") else { panic!() };
    let to = Some("has last_seen".into());
    bench.ok(Write::EditMessage(Box::new(EditMessage { to, ..*of_seven })));
    assert_eq!(bench.clock(), bench.now);
}

#[test]
fn the_clock_ticks_while_a_live_message_is_volatile_and_an_idle_shard_writes_nothing() {
    let mut bench = Bench::with_app();
    bench.ok(create(message(7)));
    bench.changes_within(TICK);
    let is_tick = |(_, change): &(u64, Change)| matches!(change, Change::Clock { .. });
    assert!(!bench.changes_within(3 * HOUR).iter().any(is_tick));
    // Also one that has not begun: nobody has to wait for its first tick.
    let later = Some(bench.now.plus(HOUR));
    bench.ok(create(CreateMessage { not_before: later, ..to_seen(8) }));
    let begun = bench.now;
    let ticks = bench.changes_within(TICK * 10);
    let expected = (1..=10).map(|n| {
        let at = begun.plus(n * TICK);
        (n * TICK, Change::Clock { at })
    });
    let ticks: Vec<_> = ticks.into_iter().filter(is_tick).collect();
    assert_eq!(ticks, expected.collect::<Vec<_>>());
    bench.ok(Write::RecallMessage { app: APP, id: MessageId::new(8) });
    assert!(!bench.changes_within(3 * HOUR).iter().any(is_tick));
}

#[test]
fn a_start_is_judged_by_the_clock_of_the_start() {
    let mut bench = Bench::with_app();
    let later = bench.now.plus(TICK / 2);
    bench.ok(create(CreateMessage { not_before: Some(later), ..to_seen(8) }));
    let changes = bench.changes_within(TICK / 2);
    let started = changes.iter().position(|(_, c)| matches!(c, Change::MessageState { .. }));
    let started = started.unwrap();
    assert_eq!(changes[started - 1], (TICK / 2, Change::Clock { at: later }));
}

#[test]
fn ticks_and_reports_are_no_reason_for_a_sample() {
    let mut bench = Bench::with_app();
    bench.ok(create(to_seen(8)));
    bench.changes_within(HOUR);
    for _ in 0..50 {
        bench.now = bench.now.plus(TICK);
        bench.writer.handle_tick(bench.now);
        while let Some(batch) = bench.batch() {
            assert!(!batch.upkeep.sample);
            bench.committed();
        }
    }
}

#[test]
fn a_tick_that_the_store_refused_comes_again_and_the_clock_never_runs_back() {
    let mut bench = Bench::with_app();
    bench.ok(create(to_seen(8)));
    let before = bench.clock();
    bench.now = bench.now.plus(TICK);
    bench.writer.handle_tick(bench.now);
    bench.batch().unwrap();
    bench.refused();
    assert_eq!(bench.clock(), before);
    assert!(bench.writer.poll_timeout() > bench.now, "not at once");
    let again = bench.changes_within(TICK);
    assert!(matches!(again[0].1, Change::Clock { at } if at > before.plus(TICK)));
    // The store's clock was set back: the committed one waits.
    let clock = bench.clock();
    bench.now = Millis(clock.0 - HOUR);
    bench.ok(create(to_seen(9)));
    assert_eq!(bench.clock(), clock);
    assert!(bench.changes_within(HOUR / 2).is_empty());
}

#[test]
fn an_app_has_so_many_volatile_messages_and_others_as_before() {
    let mut config = WriterConfig::default();
    config.budgets.volatile_messages_max = 2;
    let world = Bench::with_app().writer.committed().clone();
    let mut bench = Bench::configured(config, world, Vec::new());
    bench.ok(create(to_seen(7)));
    let later = Some(bench.now.plus(HOUR));
    bench.ok(create(CreateMessage { not_before: later, ..to_seen(8) }));
    assert_eq!(bench.code(create(to_seen(9))), "too-many-volatile-messages");
    bench.ok(create(message(9)));
    let recipients = |id, to: &str| {
        let Write::EditMessage(edit) = edit(id, None, "1") else { panic!() };
        Write::EditMessage(Box::new(EditMessage { to: Some(to.into()), ..*edit }))
    };
    let volatile = "last_seen within 3h";
    assert_eq!(bench.code(recipients(9, volatile)), "too-many-volatile-messages");
    bench.ok(recipients(7, volatile));
    bench.ok(recipients(7, "all"));
    bench.ok(recipients(9, volatile));
}

#[test]
fn receipts_for_volatile_messages_count_though_the_device_fell_out() {
    let mut bench = Bench::with_app();
    bench.ok(enrol(1, 1));
    bench.ok(create(to_seen(8)));
    bench.ok(create(CreateMessage { to: "#vip".into(), ..message(9) }));
    let generation = bench.device(1).unwrap().generation;
    let receipt = |id, message| Receipt {
        id,
        message: MessageId::new(message),
        kind: ReceiptKind::Displayed,
        at: Millis(1),
    };
    let receipts = vec![receipt(1, 8), receipt(2, 9)];
    let device = DeviceId::new(1);
    bench.write(Write::Receipts { app: APP, device, generation, receipts });
    let kept = bench.batch().unwrap().receipts;
    assert_eq!(kept.iter().map(|row| row.id).collect::<Vec<_>>(), [1]);
}
