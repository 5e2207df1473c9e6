mod audiences;
mod budgets;
mod callbacks;
mod devices;
mod history;
mod messages;
mod receipts;
mod upkeep;
mod volatile;

use std::collections::HashMap;
use std::num::NonZeroUsize;

use carillon_expr::{GroupId, Type};
use carillon_world::{
    AppId, AttributeId, Change, DeviceId, Environment, Epoch, LineageEntry, MessageId,
    MessageState, Priority, ProfilePatch, Receipt, ReceiptKind, Row, SecretHash, SetBy, ShardId,
    WorldBuilder,
};

use super::*;
use crate::core::input::{GroupRef, ImportLine, ProfileEdit};
use crate::core::value::Given;
use crate::core::write::{CreateMessage, EditMessage, IdempotencyKey, Reply};

const APP: AppId = AppId::new(0xa);
const VIP: GroupId = GroupId::new(0x71);
const KEY: &str = "pk_test";

/// A writer with a scripted store.
struct Bench {
    writer: Writer,
    now: Millis,
    next: u64,
    answers: HashMap<u64, Answer>,
}

fn lineage(epochs: &[(u64, u64)]) -> Lineage {
    let line = |&(number, after)| LineageEntry {
        epoch: Epoch { number, tag: number },
        began_after: Seq::new(after),
        fork: false,
    };
    Lineage::try_new(epochs.iter().map(line).collect()).unwrap()
}

impl Bench {
    fn new() -> Bench {
        let world = World::empty(ShardId::FIRST, lineage(&[(1, 0)]));
        Bench::with(world, Vec::new())
    }

    fn with(world: World, keys: Vec<IdempotencyRow>) -> Bench {
        Bench::configured(WriterConfig::default(), world, keys)
    }

    fn configured(config: WriterConfig, world: World, keys: Vec<IdempotencyRow>) -> Bench {
        Bench::loaded(config, Loaded { keys, ..Loaded::from(world) })
    }

    fn loaded(config: WriterConfig, loaded: Loaded) -> Bench {
        let now = Millis(1_000_000_000);
        let writer = Writer::new(config, now, loaded);
        Bench { writer, now, next: 0, answers: HashMap::new() }
    }

    /// With an app that has a group and two attributes, committed as seqs 1 to 4.
    fn with_app() -> Bench {
        let mut bench = Bench::new();
        bench.furnish();
        bench
    }

    fn furnish(&mut self) {
        self.app(APP, KEY);
        self.ok(Write::CreateGroup {
            app: APP,
            id: VIP,
            name: "vip".into(),
            set_by: SetBy::Server,
        });
        for (id, name, set_by) in [(1, "country", SetBy::Both), (2, "plan", SetBy::Server)] {
            let id = AttributeId::new(id);
            self.ok(Write::DeclareAttribute {
                app: APP,
                id,
                name: name.into(),
                kind: Type::String,
                set_by,
            });
        }
    }

    fn app(&mut self, id: AppId, key: &str) {
        let name = format!("app {id}").into();
        self.ok(Write::CreateApp {
            id,
            name,
            environment: Environment::Sandbox,
            publishable_key: key.into(),
        });
    }

    fn write(&mut self, write: Write) -> u64 {
        self.next += 1;
        self.writer.handle_write(self.now, write, ReplyId(self.next));
        self.drain();
        self.next
    }

    fn drain(&mut self) {
        while let Some((ReplyId(id), answer)) = self.writer.poll_reply() {
            assert!(self.answers.insert(id, answer).is_none(), "answered twice");
        }
    }

    /// The next batch, which begins where a store would take it.
    fn batch(&mut self) -> Option<StoreBatch> {
        let batch = self.writer.poll_batch(self.now)?;
        if let Some(changes) = &batch.changes {
            assert_eq!(changes.first, batch.head.next());
        }
        Some(batch)
    }

    fn committed(&mut self) -> Published {
        self.found(Committed::default())
    }

    /// Commits, and the store found this to forget.
    fn found(&mut self, found: Committed) -> Published {
        let published = self.writer.handle_committed(self.now, found, Duration::ZERO);
        self.drain();
        published
    }

    fn refused(&mut self) {
        self.writer.handle_refused(self.now);
        self.drain();
    }

    /// Commits until nothing is left.
    fn settle(&mut self) {
        while self.batch().is_some() {
            self.committed();
        }
    }

    fn done(&mut self, write: Write) -> Answer {
        let id = self.write(write);
        self.settle();
        self.answers.remove(&id).expect("everything is answered when all is committed")
    }

    fn ok(&mut self, write: Write) -> Reply {
        self.done(write).result.unwrap()
    }

    fn code(&mut self, write: Write) -> String {
        self.done(write).result.unwrap_err().code
    }

    /// The answer's problem code, `ok`, or `waits`.
    fn state(&self, id: u64) -> &str {
        match self.answers.get(&id).map(|answer| &answer.result) {
            None => "waits",
            Some(Ok(_)) => "ok",
            Some(Err(problem)) => &problem.code,
        }
    }

    fn device(&self, id: u64) -> Option<&carillon_world::DeviceRow> {
        self.writer.committed().app(APP)?.device(DeviceId::new(id)).map(|row| &**row)
    }

    fn message(&self, id: u64) -> &carillon_world::MessageRow {
        self.writer.committed().app(APP).unwrap().message(MessageId::new(id)).unwrap().row()
    }
}

fn group(id: u64, name: &str) -> Write {
    Write::CreateGroup { app: APP, id: GroupId::new(id), name: name.into(), set_by: SetBy::Server }
}

fn line(number: u64, id: u64, country: &str) -> ImportLine {
    ImportLine {
        line: number,
        id: DeviceId::new(id),
        secret: None,
        user: None,
        attributes: vec![("country".into(), Given::String(country.into()))],
        groups: vec![],
        tokens: None,
    }
}

fn import(lines: Vec<ImportLine>) -> Write {
    Write::ImportDevices { app: APP, lines }
}

fn message(id: u64) -> CreateMessage {
    CreateMessage {
        app: APP,
        id: MessageId::new(id),
        key: None,
        to: "all".into(),
        body: "{\"n\":1}".into(),
        priority: Priority::Normal,
        collapse_key: None,
        not_before: None,
        expires_at: None,
        push: None,
    }
}

fn create(message: CreateMessage) -> Write {
    Write::CreateMessage(Box::new(message))
}

fn edit(id: u64, if_match: Option<u32>, body: &str) -> Write {
    Write::EditMessage(Box::new(EditMessage {
        app: APP,
        id: MessageId::new(id),
        if_match,
        to: None,
        body: Some(body.into()),
        priority: None,
        not_before: None,
        expires_at: None,
        push: None,
    }))
}

fn enrol(device: u64, secret: u8) -> Write {
    Write::Enrol {
        publishable_key: KEY.into(),
        device: DeviceId::new(device),
        secret: SecretHash([secret; 32]),
        profile: ProfileEdit::default(),
    }
}

#[test]
fn a_lone_write_is_ready_for_the_store_at_once_and_answered_only_when_durable() {
    let mut bench = Bench::with_app();
    let id = bench.write(group(1, "a"));
    let batch = bench.batch().expect("no timer");
    assert_eq!((batch.head, batch.last()), (Seq::new(4), Seq::new(5)));
    assert_eq!(bench.state(id), "waits");
    assert!(bench.writer.committed().app(APP).unwrap().group_by_name("a").is_none());
    let published = bench.committed();
    assert_eq!(bench.state(id), "ok");
    assert_eq!(bench.answers[&id].at.seq, Seq::new(5));
    assert_eq!(published.world.seq(), Seq::new(5));
    assert_eq!(published.batch.unwrap().1.last(), Seq::new(5));
}

#[test]
fn writes_gather_while_a_batch_commits() {
    let mut bench = Bench::with_app();
    bench.write(group(1, "a"));
    assert!(bench.batch().is_some());
    let gathered: Vec<u64> = (2..10).map(|n| bench.write(group(n, &format!("g{n}")))).collect();
    assert!(bench.batch().is_none(), "one batch at a time is with the store");
    bench.committed();
    let batch = bench.batch().unwrap();
    assert_eq!(batch.changes.unwrap().changes.len(), 8);
    assert!(gathered.iter().all(|id| bench.state(*id) == "waits"));
    bench.committed();
    assert!(gathered.iter().all(|id| bench.state(*id) == "ok"));
}

#[test]
fn a_refused_batch_fails_its_callers_and_what_followed_is_decided_again() {
    let mut bench = Bench::with_app();
    let first = bench.write(group(1, "a"));
    bench.batch().unwrap();
    let taken = bench.write(group(2, "a"));
    let other = bench.write(group(3, "b"));
    assert_eq!(bench.state(taken), "waits", "the refusal rests on a change that is not durable");
    bench.refused();
    assert_eq!(bench.state(first), "unavailable");
    assert_eq!(bench.answers[&first].result.as_ref().unwrap_err().retry_after, Some(2));
    let batch = bench.batch().unwrap();
    assert_eq!(batch.head, Seq::new(4), "seqs of the lost batch are used again");
    assert_eq!(batch.changes.unwrap().changes.len(), 2);
    bench.committed();
    assert_eq!((bench.state(taken), bench.state(other)), ("ok", "ok"));
    let app = bench.writer.committed().app(APP).unwrap();
    assert_eq!(app.group_by_name("a").unwrap().id, GroupId::new(2));
}

#[test]
fn one_failing_write_never_fails_its_neighbours() {
    let mut bench = Bench::with_app();
    let ids = [
        bench.write(group(1, "a")),
        bench.write(group(2, "not a name!")),
        bench.write(Write::DeleteGroup { app: APP, group: GroupRef::Name("none".into()) }),
        bench.write(group(3, "b")),
    ];
    bench.settle();
    assert_eq!(ids.map(|id| bench.state(id).to_owned()), ["ok", "invalid", "not-found", "ok"]);
}

#[test]
fn a_refusal_with_nothing_pending_is_answered_at_once() {
    let mut bench = Bench::with_app();
    let id = bench.write(group(1, "not a name!"));
    assert_eq!(bench.state(id), "invalid");
    assert!(bench.batch().is_none());
}

#[test]
fn a_write_that_changes_nothing_moves_nothing() {
    let mut bench = Bench::with_app();
    bench.ok(import(vec![line(1, 1, "KE")]));
    bench.ok(create(message(7)));
    let members = Write::Members {
        app: APP,
        group: GroupRef::Id(VIP),
        join: true,
        devices: vec![DeviceId::new(1), DeviceId::new(99)],
    };
    bench.ok(members.clone());
    let seq = bench.writer.committed().seq();
    let Reply::Members(report) = bench.ok(members) else { panic!("another reply") };
    assert_eq!((report.changed, report.unchanged, report.unknown), (0, 1, vec![DeviceId::new(99)]));
    let same = ImportLine { groups: vec![GroupRef::Either("vip".into())], ..line(1, 1, "KE") };
    let Reply::Imported(report) = bench.ok(import(vec![same])) else { panic!("another reply") };
    assert_eq!((report.created, report.changed, report.unchanged), (0, 0, 1));
    let country = AttributeId::new(1);
    bench.ok(Write::DeclareAttribute {
        app: APP,
        id: country,
        name: "country".into(),
        kind: Type::String,
        set_by: SetBy::Both,
    });
    bench.ok(edit(7, None, "{\"n\":1}"));
    assert_eq!(bench.writer.committed().seq(), seq);
    assert_eq!(bench.message(7).revision, 1);
}

#[test]
fn batches_are_cut_by_changes_and_a_bulk_write_spans_them() {
    let mut bench = Bench::with_app();
    let lines = (0..4_500).map(|n| line(n + 1, n + 1, "KE")).collect();
    let id = bench.write(import(lines));
    let sizes: Vec<usize> = std::iter::from_fn(|| {
        let batch = bench.batch()?;
        assert_eq!(bench.state(id), "waits");
        bench.committed();
        Some(batch.changes.unwrap().changes.len())
    })
    .collect();
    assert_eq!(sizes, [4_000, 500]);
    let Ok(Reply::Imported(report)) = &bench.answers[&id].result else { panic!() };
    assert_eq!(report.created, 4_500);
}

#[test]
fn an_operator_may_have_smaller_batches() {
    let batch = BatchLimits { changes_max: NonZeroUsize::MIN, bytes_max: usize::MAX };
    let config = WriterConfig { batch, ..WriterConfig::default() };
    let world = World::empty(ShardId::FIRST, lineage(&[(1, 0)]));
    let mut bench = Bench::configured(config, world, Vec::new());
    bench.app(APP, KEY);
    let bare = |n| ImportLine { attributes: vec![], ..line(n, n, "") };
    let ids: Vec<u64> = (1..=5).map(|n| bench.write(import(vec![bare(n)]))).collect();
    for (done, id) in ids.iter().enumerate() {
        assert_eq!(bench.batch().unwrap().changes.unwrap().changes.len(), 1);
        bench.committed();
        assert_eq!(bench.state(*id), "ok");
        assert_eq!(bench.answers.len(), done + 1);
    }
    assert!(bench.batch().is_none());
}

#[test]
fn batches_are_cut_by_bytes() {
    let mut bench = Bench::with_app();
    let body: Arc<str> = format!("\"{}\"", "x".repeat(60_000)).into();
    for id in 0..40 {
        bench.write(create(CreateMessage { body: body.clone(), ..message(id) }));
    }
    let mut batches = 0;
    while let Some(batch) = bench.batch() {
        let frame = carillon_world::stream::encode_batch(batch.epoch, &batch.changes.unwrap());
        assert!(frame.len() <= crate::core::limits::BATCH_BYTES_MAX, "{}", frame.len());
        batches += 1;
        bench.committed();
    }
    assert_eq!(batches, 3);
}

#[test]
fn too_many_pending_writes_are_refused_at_once() {
    let mut bench = Bench::with_app();
    bench.write(group(1, "a"));
    bench.batch().unwrap();
    let mut ids = Vec::new();
    for n in 0..PENDING_WRITES_MAX as u64 {
        ids.push(bench.write(group(n + 2, &format!("g{n}"))));
    }
    let last = *ids.last().unwrap();
    assert_eq!(bench.state(last), "overloaded");
    assert_eq!(bench.state(ids[0]), "waits");
    bench.committed();
    bench.settle();
    assert_eq!(bench.state(ids[0]), "ok");
    assert_eq!(bench.writer.pending(), 0);
    let after = bench.write(group(1 << 40, "after"));
    bench.settle();
    assert_eq!(bench.state(after), "ok");
}

#[test]
fn a_doubt_holds_everything_until_the_new_epoch_says_that_the_batch_committed() {
    let mut bench = Bench::with_app();
    let doubted = bench.write(group(1, "a"));
    let batch = bench.batch().unwrap();
    let follower = bench.write(group(2, "b"));
    bench.writer.handle_unknown();
    assert!(bench.batch().is_none() && bench.writer.is_in_doubt());
    let published =
        bench.writer.handle_epoch(bench.now, &lineage(&[(1, 0), (9, 5)]), batch.last(), 0);
    bench.drain();
    assert_eq!(bench.state(doubted), "ok");
    assert_eq!(bench.answers[&doubted].at.epoch.number, 1, "committed in the epoch that ended");
    assert_eq!(published.batch.unwrap().0.number, 1);
    assert_eq!(published.world.lineage().newest().epoch.number, 9);
    assert_eq!(bench.state(follower), "waits");
    let next = bench.batch().unwrap();
    assert_eq!((next.epoch.number, next.head), (9, Seq::new(5)));
    bench.committed();
    assert_eq!(bench.answers[&follower].at.epoch.number, 9);
}

#[test]
fn a_doubt_ends_with_a_refusal_when_the_new_epoch_began_before_the_batch() {
    let mut bench = Bench::with_app();
    let doubted = bench.write(group(1, "a"));
    bench.batch().unwrap();
    let follower = bench.write(group(2, "a"));
    bench.writer.handle_unknown();
    let published =
        bench.writer.handle_epoch(bench.now, &lineage(&[(1, 0), (9, 4)]), Seq::new(4), 0);
    bench.drain();
    assert!(published.batch.is_none());
    assert_eq!(bench.state(doubted), "unavailable");
    bench.settle();
    assert_eq!(bench.state(follower), "ok", "decided again without the lost batch");
}

#[test]
fn what_was_decided_on_top_of_a_doubt_is_refused_when_nobody_can_settle_it() {
    let mut bench = Bench::with_app();
    let doubted = bench.write(group(1, "a"));
    let batch = bench.batch().unwrap();
    let (follower, bulk) =
        (bench.write(group(2, "b")), bench.write(import(vec![line(1, 7, "KE")])));
    bench.writer.handle_unknown();
    for _ in 0..2 {
        bench.writer.handle_away();
        bench.drain();
    }
    assert_eq!((bench.state(doubted), bench.state(follower)), ("waits", "unavailable"));
    assert_eq!(bench.state(bulk), "outcome-unknown", "it may have begun in the batch in doubt");
    assert_eq!(bench.writer.pending(), 1);
    bench.writer.handle_epoch(bench.now, &lineage(&[(1, 0), (9, 5)]), batch.last(), 0);
    bench.drain();
    assert_eq!(bench.state(doubted), "ok");
    assert!(bench.batch().is_none(), "nothing is left of what was refused");
    let again = bench.write(group(2, "b"));
    bench.settle();
    assert_eq!(bench.state(again), "ok");
}

/// Any order of writes, commits and refusals leaves the world that the committed batches make.
#[test]
fn the_published_world_is_what_the_committed_batches_make() {
    let mut state = 7_u64;
    let mut random = move |n: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut bench = Bench::with_app();
    let mut copy = bench.writer.committed().clone();
    let (mut epoch, mut refusals, mut doubts) = (1, 0, 0);
    let before = bench.next;
    for step in 0..3_000 {
        match random(10) {
            0..6 => {
                let n = random(20);
                let write = match random(6) {
                    0 => import(vec![line(1, n, ["KE", "SE"][random(2) as usize])]),
                    1 => enrol(100 + step, n as u8),
                    2 => Write::DeleteDevice { app: APP, device: DeviceId::new(n) },
                    3 => create(CreateMessage {
                        expires_at: Some(bench.now.plus(1 + random(50))),
                        ..message(step)
                    }),
                    4 => Write::Members {
                        app: APP,
                        group: GroupRef::Id(VIP),
                        join: random(2) == 0,
                        devices: (0..n).map(DeviceId::new).collect(),
                    },
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
                let published = match random(5) {
                    0 => {
                        refusals += 1;
                        bench.refused();
                        continue;
                    }
                    1 => {
                        doubts += 1;
                        bench.writer.handle_unknown();
                        let committed = random(2) == 0;
                        let after = if committed { batch.last() } else { batch.head };
                        let mut lines = copy.lineage().entries().to_vec();
                        epoch += 1;
                        let began = Epoch { number: epoch, tag: epoch };
                        lines.push(LineageEntry { epoch: began, began_after: after, fork: false });
                        let lineage = Lineage::try_new(lines).unwrap();
                        let published = bench.writer.handle_epoch(bench.now, &lineage, after, 0);
                        bench.drain();
                        copy.set_lineage(lineage);
                        published
                    }
                    _ => bench.committed(),
                };
                if let Some((_, batch)) = &published.batch {
                    copy.apply(batch).unwrap();
                }
                assert_eq!(rows(&published.world), rows(&copy), "step {step}");
                assert_eq!(published.world.position(), copy.position());
            }
        }
    }
    bench.settle();
    assert_eq!(bench.answers.len() as u64, bench.next - before, "every write is answered once");
    assert_eq!((bench.writer.pending, bench.writer.pending_bytes), (0, 0));
    assert!(refusals > 50 && doubts > 50, "{refusals} {doubts}");

    // Loading what is held gives the same writer state again: secrets find their devices.
    let world = bench.writer.committed().clone();
    let mut builder = WorldBuilder::new(ShardId::FIRST);
    all_rows(&world).into_iter().for_each(|row| builder.insert(row));
    let loaded = builder.finish(world.lineage().clone(), world.seq(), world.horizon()).unwrap();
    let state = super::super::state::State::new(loaded);
    for device in world.app(APP).unwrap().devices() {
        let Some(secret) = device.private.as_ref().and_then(|p| p.secret) else { continue };
        assert_eq!(state.by_secret(APP, &secret).map(|row| row.id), Some(device.id));
        assert_eq!(
            bench.writer.ledger.committed.by_secret(APP, &secret).map(|row| row.id),
            Some(device.id)
        );
    }
}

fn all_rows(world: &World) -> Vec<Row> {
    carillon_world::Partition::all().flat_map(|partition| world.partition_rows(partition)).collect()
}

fn rows(world: &World) -> Vec<String> {
    let mut rows: Vec<String> = all_rows(world).iter().map(|row| format!("{row:?}")).collect();
    rows.sort();
    rows
}
