//! Reports and receipts against a plain record of who stored what, through failed batches, batches of which nobody knows
//! whether they committed, and restarts.

use std::collections::{BTreeMap, BTreeSet};

use carillon_persist::{BookRow, CountRow, CountSpan, Tallies};
use carillon_world::{DeviceReceipts, Millis, Position, Stored};

use super::*;
use crate::core::books::Mark;
use crate::core::funnel::{Counter, Selection};
use crate::core::tally::Tally;

const COUNTRIES: [&str; 2] = ["KE", "SE"];
const TOS: [&str; 4] = ["all", "#vip", "country == \"KE\"", "not #vip and country == \"SE\""];
const KINDS: [(Mark, Counter); 4] = [
    (Mark::Displayed, Counter::Displayed),
    (Mark::Opened, Counter::Opened),
    (Mark::Dismissed, Counter::Dismissed),
    (Mark::Action, Counter::Action),
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.below(all.len() as u64) as usize])
    }
}

#[derive(Debug, Default)]
struct Device {
    country: usize,
    vip: bool,
    p: u64,
    /// What its store held at each position that it stored.
    stored: BTreeMap<u64, (Option<Position>, BTreeSet<u64>)>,
    known: u64,
    delivered: BTreeSet<u64>,
    withdrawn: BTreeSet<u64>,
    did: BTreeSet<(u64, usize)>,
}

#[derive(Debug)]
struct Told {
    tos: Vec<usize>,
    recalled: Option<u64>,
}

/// Of what is committed, by brute force.
#[derive(Debug, Default)]
struct Record {
    devices: BTreeMap<u64, Device>,
    messages: BTreeMap<u64, Told>,
    counts: BTreeMap<(u64, String), u64>,
}

fn fits(device: &Device, to: usize) -> bool {
    match to {
        0 => true,
        1 => device.vip,
        2 => device.country == 0,
        _ => !device.vip && device.country == 1,
    }
}

impl Record {
    fn h(&self, device: &Device) -> BTreeSet<u64> {
        let has = |told: &Told| told.recalled.is_none() && fits(device, *told.tos.last().unwrap());
        self.messages.iter().filter(|(_, told)| has(told)).map(|(id, _)| *id).collect()
    }

    fn count(&mut self, message: u64, counter: &Counter) {
        *self.counts.entry((message, counter.to_string())).or_default() += 1;
    }

    fn report(&mut self, id: u64, at: u64) {
        let Some(device) = self.devices.get_mut(&id).filter(|device| device.p <= at) else {
            return;
        };
        let Some((_, held)) = device.stored.get(&at) else { return };
        device.known = device.known.max(at);
        let mut news = Vec::new();
        for message in held {
            if device.delivered.insert(*message) {
                news.push((*message, Counter::Delivered));
            }
        }
        for message in &device.delivered {
            let recalled = self.messages[message].recalled;
            if recalled.is_some_and(|at| at <= device.known) && device.withdrawn.insert(*message) {
                news.push((*message, Counter::Withdrawn));
            }
        }
        news.iter().for_each(|(message, counter)| self.count(*message, counter));
    }

    fn receipts(&mut self, id: u64, receipts: &[Receipt]) {
        for receipt in receipts {
            let message = receipt.message.get();
            let Some(device) = self.devices.get_mut(&id) else { return };
            let Some(told) = self.messages.get(&message) else { continue };
            let kind = match receipt.kind {
                ReceiptKind::Displayed => 0,
                ReceiptKind::Opened => 1,
                ReceiptKind::Dismissed => 2,
                ReceiptKind::Action(_) => 3,
            };
            let addressed = told.tos.iter().any(|to| fits(device, *to));
            if addressed && device.did.insert((message, kind)) {
                self.count(message, &KINDS[kind].1);
            }
        }
    }

    /// A write that was answered with success, at `at`.
    fn apply(&mut self, write: &Write, at: u64) {
        match write {
            Write::ImportDevices { lines, .. } => {
                let line = &lines[0];
                let country = match &line.attributes[0].1 {
                    Given::String(text) => COUNTRIES.iter().position(|c| **c == **text).unwrap(),
                    other => panic!("{other:?}"),
                };
                let is_new = !self.devices.contains_key(&line.id.get());
                let device = self.devices.entry(line.id.get()).or_default();
                // A line says all of the groups.
                if is_new || device.country != country || device.vip {
                    (device.country, device.vip, device.p) = (country, false, at);
                }
            }
            Write::Members { join, devices, .. } => {
                if let Some(device) = self.devices.get_mut(&devices[0].get())
                    && device.vip != *join
                {
                    (device.vip, device.p) = (*join, at);
                }
            }
            Write::DeleteDevice { device, .. } => drop(self.devices.remove(&device.get())),
            Write::CreateMessage(new) => {
                let to = TOS.iter().position(|to| *to == new.to).unwrap();
                let told = Told { tos: vec![to], recalled: None };
                self.messages.insert(new.id.get(), told);
            }
            Write::EditMessage(edit) => {
                let to = TOS.iter().position(|to| Some(*to) == edit.to.as_deref()).unwrap();
                self.messages.get_mut(&edit.id.get()).unwrap().tos.push(to);
            }
            Write::RecallMessage { id, .. } => {
                self.messages.get_mut(&id.get()).unwrap().recalled.get_or_insert(at);
            }
            Write::Delivered { devices, .. } => {
                devices.iter().for_each(|s| self.report(s.device.get(), s.at.seq.get()));
            }
            Write::Receipts { device, receipts, .. } => self.receipts(device.get(), receipts),
            Write::ReceiptBatch { devices } => {
                devices.iter().for_each(|of| self.receipts(of.device.get(), &of.receipts));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The rows of the store.
#[derive(Debug, Default)]
struct Rows {
    books: BTreeMap<(AppId, DeviceId), BookRow>,
    counts: BTreeMap<(MessageId, CountSpan, Millis, String), CountRow>,
}

impl Rows {
    fn commit(&mut self, batch: &StoreBatch) {
        for change in batch.changes.iter().flat_map(|batch| &batch.changes) {
            if let Change::DeviceGone { app, id } = change {
                self.books.remove(&(*app, *id));
            }
        }
        for row in &batch.tallies.books {
            self.books.insert((row.app, row.device), row.clone());
        }
        for row in &batch.tallies.counts {
            let key = (row.message, row.span, row.at, row.counter.to_string());
            self.counts.insert(key, row.clone());
        }
    }

    fn tallies(&self) -> Tallies {
        Tallies {
            books: self.books.values().cloned().collect(),
            counts: self.counts.values().cloned().collect(),
        }
    }
}

struct Trial {
    bench: Bench,
    record: Record,
    rows: Rows,
    random: Random,
    next: u64,
    receipt: u64,
}

impl Trial {
    fn new(seed: u64) -> Trial {
        let bench = Bench::with_app();
        let (record, rows) = (Record::default(), Rows::default());
        Trial { bench, record, rows, random: Random(seed), next: 100, receipt: 0 }
    }

    fn draw(&mut self) -> Write {
        let devices: Vec<u64> = self.record.devices.keys().copied().collect();
        let live = self.record.messages.iter().filter(|(_, told)| told.recalled.is_none());
        let live: Vec<u64> = live.map(|(id, _)| *id).collect();
        self.next += 1;
        let to = TOS[self.random.below(4) as usize];
        let device = self.random.pick(&devices);
        match (self.random.below(20), device, self.random.pick(&live)) {
            (0..3, Some(device), _) => Write::Members {
                app: APP,
                group: GroupRef::Id(VIP),
                join: self.random.below(2) == 0,
                devices: vec![DeviceId::new(device)],
            },
            (3, Some(device), _) if devices.len() > 4 => {
                Write::DeleteDevice { app: APP, device: DeviceId::new(device) }
            }
            (4..6, _, Some(id)) => Write::RecallMessage { app: APP, id: MessageId::new(id) },
            (6, _, Some(id)) => Write::EditMessage(Box::new(EditMessage {
                app: APP,
                id: MessageId::new(id),
                if_match: None,
                to: Some(to.to_owned()),
                body: None,
                priority: None,
                not_before: None,
                expires_at: None,
                push: None,
            })),
            (7..9, ..) => create(CreateMessage { to: to.into(), ..message(self.next) }),
            (9..11, Some(device), _) => self.receipts(device),
            (11, ..) => {
                let few = devices.iter().take(3).copied().collect::<Vec<_>>();
                let of = few.into_iter().filter_map(|device| match self.receipts(device) {
                    Write::Receipts { app, device, generation, receipts } => {
                        Some(DeviceReceipts { app, device, generation, receipts })
                    }
                    _ => None,
                });
                Write::ReceiptBatch { devices: of.collect() }
            }
            (12.., Some(_), _) => self.report(&devices),
            (_, device, _) => {
                let new = device.is_none() || devices.len() < 6;
                let id = device.filter(|_| !new).unwrap_or(self.next);
                import(vec![line(1, id, COUNTRIES[self.random.below(2) as usize])])
            }
        }
    }

    fn receipts(&mut self, device: u64) -> Write {
        let all: Vec<u64> = self.record.messages.keys().copied().collect();
        let mut receipts = Vec::new();
        for _ in 0..self.random.below(4) {
            let Some(message) = self.random.pick(&all) else { break };
            // Some come again.
            self.receipt += self.random.below(2);
            let kind = match self.random.below(4) {
                0 => ReceiptKind::Displayed,
                1 => ReceiptKind::Opened,
                2 => ReceiptKind::Dismissed,
                _ => ReceiptKind::Action("reply".into()),
            };
            let message = MessageId::new(message);
            receipts.push(Receipt { id: self.receipt, message, kind, at: self.bench.now });
        }
        let generation = self.bench.device(device).map_or(Seq::ZERO, |row| row.generation);
        Write::Receipts { app: APP, device: DeviceId::new(device), generation, receipts }
    }

    /// The newest positions of some devices, or older ones: reports are lost, late and repeated.
    fn report(&mut self, devices: &[u64]) -> Write {
        let mut all = Vec::new();
        for id in devices {
            let stored: Vec<Position> =
                self.record.devices[id].stored.values().filter_map(|(at, _)| *at).collect();
            let newest = stored.last().copied();
            let at = match self.random.below(4) {
                0 => self.random.pick(&stored),
                1 => None,
                _ => newest,
            };
            let device = DeviceId::new(*id);
            all.extend(at.map(|at| Stored { device, at, volatile: Some(0) }));
        }
        Write::Delivered { app: APP, devices: all }
    }

    /// Some devices store what they should have, at the committed world.
    fn poll(&mut self) {
        let at = self.bench.writer.committed().position();
        let held: Vec<(u64, BTreeSet<u64>)> =
            self.record.devices.iter().map(|(id, device)| (*id, self.record.h(device))).collect();
        for (id, held) in held {
            if self.random.below(2) == 0 {
                let device = self.record.devices.get_mut(&id).unwrap();
                device.stored.insert(at.seq.get(), (Some(at), held));
            }
        }
    }

    fn round(&mut self) {
        self.poll();
        let writes: Vec<Write> = (0..=self.random.below(4)).map(|_| self.draw()).collect();
        self.bench.now = self.bench.now.plus(self.random.below(90_000));
        let mut batch = None;
        let mut ids = Vec::new();
        for write in &writes {
            ids.push(self.bench.write(write.clone()));
            // The others gather while the first is with the store.
            batch = batch.or_else(|| self.bench.batch());
        }
        if let Some(batch) = batch {
            self.end(batch);
        }
        while let Some(batch) = self.bench.batch() {
            self.rows.commit(&batch);
            self.bench.committed();
        }
        for (id, write) in ids.iter().zip(&writes) {
            let answer = self.bench.answers.remove(id).expect("each is answered");
            if answer.result.is_ok() {
                self.record.apply(write, answer.at.seq.get());
            }
        }
    }

    fn end(&mut self, batch: StoreBatch) {
        match self.random.below(6) {
            0 => self.bench.refused(),
            1 => {
                let commits = self.random.below(2) == 0;
                if commits {
                    self.rows.commit(&batch);
                }
                self.bench.writer.handle_unknown();
                let began_after = if commits { batch.last() } else { batch.head };
                let mut lineage = self.bench.writer.committed().lineage().clone();
                let number = lineage.newest().epoch.number + 1;
                let epoch = Epoch { number, tag: number };
                lineage.push(LineageEntry { epoch, began_after, fork: false }).unwrap();
                self.bench.writer.handle_epoch(self.bench.now, &lineage, began_after, 0);
                self.bench.drain();
            }
            _ => {
                self.rows.commit(&batch);
                self.bench.committed();
            }
        }
    }

    /// What is committed, what the store would give back, and the record say the same.
    fn agree(&self) {
        let world = self.bench.writer.committed();
        for tally in [self.bench.writer.tally(), &Tally::load(self.rows.tallies(), world)] {
            for (id, told) in &self.record.messages {
                let message = MessageId::new(*id);
                let mut counters = vec![Counter::Delivered, Counter::Withdrawn];
                counters.extend(KINDS.map(|(_, counter)| counter));
                for counter in counters {
                    let n = tally.funnel.total(APP, message, &counter);
                    let key = (*id, counter.to_string());
                    assert_eq!(n, self.record.counts.get(&key).copied().unwrap_or(0), "{key:?}");
                    for span in [CountSpan::Minute, CountSpan::Hour, CountSpan::Day] {
                        let all = (Millis::ZERO, Millis(u64::MAX));
                        let name: Selection = counter.to_string().parse().unwrap();
                        let points = tally.funnel.series(APP, message, &name, span, all).unwrap();
                        assert_eq!(points.iter().map(|(_, n)| n).sum::<u64>(), n, "{key:?}");
                    }
                }
                let holds = |device: &&Device| {
                    let known = device.stored.get(&device.known);
                    known.is_some_and(|(_, held)| held.contains(id))
                };
                let out = self.record.devices.values().filter(holds).count() as u64;
                assert_eq!(tally.books.out(APP, message), out, "{id}, {told:?}");
            }
            for (id, device) in &self.record.devices {
                let known = tally.held(APP, DeviceId::new(*id)).map_or(0, Seq::get);
                assert_eq!(known, device.known, "{id}");
                for message in self.record.messages.keys() {
                    let has = |mark| {
                        tally.has_mark(APP, DeviceId::new(*id), MessageId::new(*message), mark)
                    };
                    assert_eq!(has(Mark::Delivered), device.delivered.contains(message));
                    assert_eq!(has(Mark::Withdrawn), device.withdrawn.contains(message));
                    for (kind, (mark, _)) in KINDS.iter().enumerate() {
                        assert_eq!(has(*mark), device.did.contains(&(*message, kind)));
                    }
                }
            }
        }
    }
}

fn run(seed: u64) -> [u64; 3] {
    let mut trial = Trial::new(seed);
    for round in 0..60 {
        trial.round();
        trial.agree();
        if round % 20 == 19 {
            let world = trial.bench.writer.committed().clone();
            let loaded = Loaded { tallies: trial.rows.tallies(), ..Loaded::from(world) };
            trial.bench.writer = Writer::new(WriterConfig::default(), trial.bench.now, loaded);
            trial.agree();
        }
    }
    let sum = |name: &str| {
        let counts = trial.record.counts.iter();
        counts.filter(|((_, counter), _)| counter == name).map(|(_, n)| n).sum()
    };
    ["delivered", "withdrawn", "opened"].map(sum)
}

#[test]
fn what_is_counted_is_what_the_record_says_whatever_fails() {
    let mut sums = [0; 3];
    for seed in 0..150 {
        let Ok(counted) = std::panic::catch_unwind(|| run(seed)) else {
            panic!("seed {seed}: see above")
        };
        (0..3).for_each(|n| sums[n] += counted[n]);
    }
    assert!(sums.iter().all(|sum| *sum > 500), "{sums:?}");
}

#[test]
fn a_report_that_cannot_be_judged_changes_nothing() {
    let mut bench = Bench::with_app();
    bench.ok(import(vec![line(1, 1, "KE")]));
    bench.ok(create(message(7)));
    let good = bench.writer.committed().position();
    let report = |at, device| {
        let device = DeviceId::new(device);
        let devices = vec![Stored { device, at, volatile: Some(0) }];
        Write::Delivered { app: APP, devices }
    };
    let beyond = Position { seq: good.seq.next(), ..good };
    let cut_off = Position { epoch: Epoch { number: 1, tag: 9 }, ..good };
    let elsewhere = Position { shard: ShardId::new(3), ..good };
    let early = Position { seq: Seq::new(2), ..good };
    for at in [beyond, cut_off, elsewhere, early] {
        bench.ok(report(at, 1));
    }
    bench.ok(report(good, 99));
    let delivered = |bench: &Bench| {
        bench.writer.tally().funnel.total(APP, MessageId::new(7), &Counter::Delivered)
    };
    assert_eq!(delivered(&bench), 0);
    bench.ok(report(good, 1));
    bench.ok(report(good, 1));
    assert_eq!(delivered(&bench), 1);
    let too_many = vec![
        Stored { device: DeviceId::new(1), at: good, volatile: None };
        carillon_world::DELIVERED_DEVICES_MAX + 1
    ];
    assert_eq!(bench.code(Write::Delivered { app: APP, devices: too_many }), "too-large");
}

#[test]
fn counts_are_shown_when_they_are_durable_and_not_before() {
    let mut bench = Bench::with_app();
    bench.ok(import(vec![line(1, 1, "KE")]));
    bench.ok(create(message(7)));
    let at = bench.writer.committed().position();
    let devices = vec![Stored { device: DeviceId::new(1), at, volatile: Some(0) }];
    let id = bench.write(Write::Delivered { app: APP, devices });
    let batch = bench.batch().expect("it has rows");
    assert_eq!(batch.changes, None, "a report is no change");
    assert_eq!((batch.tallies.books.len(), batch.tallies.counts.len()), (1, 4));
    let total = |tally: &Tally| tally.funnel.total(APP, MessageId::new(7), &Counter::Delivered);
    assert_eq!((bench.state(id), total(bench.writer.tally())), ("waits", 0));
    let published = bench.committed();
    assert_eq!((bench.state(id), total(&published.tally)), ("ok", 1));
}

#[test]
fn what_was_counted_of_a_message_goes_when_the_world_forgets_it_and_old_spans_before() {
    let day = 24 * 60 * 60 * 1000;
    let mut bench = Bench::with_app();
    bench.ok(import(vec![line(1, 1, "KE")]));
    bench.ok(create(message(7)));
    let at = bench.writer.committed().position();
    let devices = vec![Stored { device: DeviceId::new(1), at, volatile: Some(0) }];
    bench.ok(Write::Delivered { app: APP, devices });
    let mut rows_forgotten = Vec::new();
    let mut recalled = false;
    for _ in 0..60 {
        bench.now = bench.now.plus(day / 2);
        if bench.now.0 > 1_000_000_000 + 4 * day && !recalled {
            recalled = true;
            bench.ok(Write::RecallMessage { app: APP, id: MessageId::new(7) });
        }
        for _ in 0..20 {
            bench.now = bench.now.plus(1_000);
            bench.writer.handle_tick(bench.now);
            while let Some(batch) = bench.batch() {
                rows_forgotten.extend(batch.upkeep.forget_counts.clone().map(|f| f.which));
                bench.found(Committed::default());
            }
        }
    }
    use carillon_persist::OldCounts;
    let message = (APP, MessageId::new(7));
    assert!(matches!(rows_forgotten[0], OldCounts::Before(CountSpan::Minute, _)));
    assert_eq!(rows_forgotten.last(), Some(&OldCounts::Of(vec![message])));
    assert_eq!(rows_forgotten.len(), 2, "{rows_forgotten:?}");
    let tally = bench.writer.tally();
    assert_eq!(tally.funnel.totals(message.0, message.1).count(), 0);
    assert_eq!(tally.books.out(message.0, message.1), 0);
}
