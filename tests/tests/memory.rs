//! The formula by which worlds count their bytes, against what the process really takes.
//!
//! A test binary of its own, because it has the allocator of the executable, and nothing else may run beside it.

use std::sync::Arc;

use bytes::Bytes;
use carillon_expr::{Number, Type, Value};
use carillon_tests::bench::Usage;
use carillon_world::{
    AppId, AppRow, AttributeId, AttributeRow, Batch, Change, DeviceId, DevicePrivate, DeviceRow,
    Environment, Epoch, GroupId, GroupRow, Lineage, LineageEntry, MessageId, MessageRow,
    MessageState, Millis, Priority, Quotas, Row, SecretHash, Seq, SetBy, ShardId, Tag, Variant,
    World, WorldBuilder,
};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const APP: AppId = AppId::new(7);
const DEVICES: u64 = 200_000;
const MESSAGES: u64 = 20_000;

/// The process may take this much more or less than the formula says.
const MORE: f64 = 1.3;
const LESS: f64 = 0.75;

fn spread(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn schema() -> Vec<Row> {
    let mut rows = vec![Row::App(Arc::new(AppRow {
        id: APP,
        name: "app".into(),
        environment: Environment::Sandbox,
        publishable_key: "key".into(),
        created_at: Millis(0),
        quotas: Quotas::default(),
        push: None,
    }))];
    let kinds = [Type::String, Type::Number, Type::Bool, Type::String, Type::Number, Type::Bool];
    rows.extend(kinds.into_iter().zip(1..).map(|(kind, n)| {
        let (id, name) = (AttributeId::new(n), format!("a{n}").into());
        Row::Attribute(Arc::new(AttributeRow { id, app: APP, name, kind, set_by: SetBy::Both }))
    }));
    rows.extend((0..1_000).map(|n| {
        let (id, name) = (GroupId::new(n), format!("group-{n}").into());
        Row::Group(Arc::new(GroupRow { id, app: APP, name, set_by: SetBy::Both }))
    }));
    rows
}

fn device(n: u64) -> Arc<DeviceRow> {
    let number = |n: u64| Value::Number(Number::try_new((n % 100) as f64).expect("finite"));
    let text = |text: String| Value::String(text.into());
    let mut groups: Vec<GroupId> = (0..8).map(|k| GroupId::new(spread(n + k) % 1_000)).collect();
    groups.sort_unstable();
    groups.dedup();
    let values = [
        text(format!("c{}", n % 200)),
        number(n),
        Value::Bool(n.is_multiple_of(2)),
        text(format!("city-{}", n % 5_000)),
        number(n / 7),
        Value::Bool(n.is_multiple_of(3)),
    ];
    let secret = Some(SecretHash([n as u8; 32]));
    Arc::new(DeviceRow {
        id: DeviceId::new(spread(n)),
        app: APP,
        generation: Seq::new(1),
        p: Seq::new(1),
        created_at: Millis(0),
        user: Some(format!("user-{n}").into()),
        attributes: values.into_iter().zip(1..).map(|(v, id)| (AttributeId::new(id), v)).collect(),
        groups: groups.into(),
        private: n
            .is_multiple_of(2)
            .then(|| Box::new(DevicePrivate { secret, tokens: Vec::new() })),
        last_seen: Millis::ZERO,
    })
}

fn message(n: u64) -> Change {
    let to = format!("#group-{} and a1 == \"c{}\" and a2 > {}", n % 1_000, n % 200, n % 50);
    Change::Message(Arc::new(MessageRow {
        id: MessageId::new(spread(n)),
        app: APP,
        revision: 1,
        state: MessageState::Active,
        to: to.into(),
        priority: Priority::Normal,
        collapse_key: None,
        created_at: Millis(0),
        not_before: None,
        expires_at: Millis(9),
        push: None,
        variants: vec![Variant {
            selector: None,
            tag: Tag::new(n),
            wire: Bytes::from(format!("{{\"body\":\"{}\"}}", "x".repeat(400))),
        }],
    }))
}

fn lineage() -> Lineage {
    let epoch = Epoch { number: 1, tag: 1 };
    let line = LineageEntry { epoch, began_after: Seq::ZERO, fork: false };
    Lineage::try_new(vec![line]).expect("one line")
}

fn resident() -> u64 {
    Usage::of(std::process::id()).expect("we run").resident_bytes
}

#[track_caller]
fn compare(what: &str, counted: u64, grown: u64) {
    let ratio = grown as f64 / counted as f64;
    assert!(
        (LESS..MORE).contains(&ratio),
        "{what}: {counted} counted, {grown} resident: {ratio:.2}"
    );
}

#[test]
fn the_bytes_that_a_world_counts_are_those_that_the_process_takes() {
    let before = resident();
    let mut builder = WorldBuilder::new(ShardId::FIRST);
    schema().into_iter().for_each(|row| builder.insert(row));
    (0..DEVICES).for_each(|n| builder.insert(Row::Device(device(n))));
    let mut world: World =
        builder.finish(lineage(), Seq::new(1), Seq::ZERO).expect("the rows fit together");
    let (loaded, usage) = (resident(), world.usage());
    // Its index of secrets is not there, for that is the writer's.
    let secrets = DEVICES / 2 * 64;
    compare("devices", usage.total() - secrets, loaded - before);

    for part in 0..MESSAGES / 1_000 {
        let changes = (part * 1_000..(part + 1) * 1_000).map(message).collect();
        world.apply(&Batch { first: world.seq().next(), changes }).expect("messages that fit");
    }
    compare("messages", world.usage().total() - usage.total(), resident() - loaded);
    assert_eq!(world.usage(), world.surveyed());
}
