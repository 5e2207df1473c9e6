use super::*;
use crate::fixture::{
    APP, Random, assert_alike, commit, device, lineage, message, purge, random_change, rows, state,
    stored, world,
};
use crate::{MessageId, MessageState, Millis, RevisionRecord};

fn shuffled(mut rows: Vec<Row>, random: &mut Random) -> Vec<Row> {
    for at in (1..rows.len()).rev() {
        rows.swap(at, random.below(at as u64 + 1) as usize);
    }
    rows
}

#[test]
fn rows_make_the_same_world_in_any_order() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let mut world = world();
        for _ in 0..150 {
            let change = random_change(&mut random, &world);
            commit(&mut world, vec![change]);
        }
        let mut builder = WorldBuilder::new(ShardId::FIRST);
        shuffled(rows(&world), &mut random).into_iter().for_each(|row| builder.insert(row));
        let built = builder.finish(lineage(), world.seq(), world.horizon()).expect("they fit");
        assert_eq!(rows(&built), rows(&world), "seed {seed}");
        assert_alike(&built, &world, &format!("seed {seed}"));
    }
}

/// A walk applies changes to what is there already; the outcome is as if the world had applied them.
#[test]
fn changes_on_top_of_rows_make_the_world_that_applied_them() {
    for seed in 0..30 {
        let mut random = Random(seed);
        let mut world = world();
        let mut builder = WorldBuilder::new(ShardId::FIRST);
        rows(&world).into_iter().for_each(|row| builder.insert(row));
        for _ in 0..150 {
            let change = random_change(&mut random, &world);
            builder.apply(world.seq().next(), &change);
            commit(&mut world, vec![change]);
        }
        let built = builder.finish(lineage(), world.seq(), world.horizon()).expect("they fit");
        assert_eq!(rows(&built), rows(&world), "seed {seed}");
        assert_alike(&built, &world, &format!("seed {seed}"));
    }
}

fn row(change: Change) -> Row {
    match change {
        Change::App(row) => Row::App(row),
        Change::Group(row) => Row::Group(row),
        Change::Device(row) => Row::Device(row),
        other => panic!("{other:?} is no row"),
    }
}

fn message_row(id: u64, to: &str, from: u64) -> (Arc<MessageRow>, Row) {
    let Change::Message(row) = message(id, to) else { unreachable!("it is a message") };
    let revisions = vec![RevisionRecord::of(&row, Seq::new(from))];
    (row.clone(), Row::Message { row, revisions })
}

fn finish(rows: Vec<Row>) -> Result<World, ApplyError> {
    let mut builder = WorldBuilder::new(ShardId::FIRST);
    rows.into_iter().for_each(|row| builder.insert(row));
    builder.finish(lineage(), Seq::new(20), Seq::new(10))
}

#[test]
fn rows_without_their_app_make_no_world() {
    let unknown = ApplyError::UnknownApp { app: APP };
    for orphan in [
        row(device(1, &[], None, None)),
        row(crate::fixture::group(1, "g")),
        message_row(1, "all", 11).1,
    ] {
        assert_eq!(finish(vec![orphan]).err(), Some(unknown.clone()));
    }
    assert_eq!(finish(vec![]).expect("nothing is a world").counts().apps, 0);
}

#[test]
fn a_message_that_contradicts_itself_makes_no_world() {
    let app = || row(crate::fixture::app(APP));
    let (whole, good) = message_row(1, "all", 11);
    assert!(finish(vec![app(), good]).is_ok());
    let with = |change: fn(&mut MessageRow), revisions: Vec<RevisionRecord>| {
        let mut row = (*whole).clone();
        change(&mut row);
        finish(vec![app(), Row::Message { row: Arc::new(row), revisions }]).err()
    };
    let empty = Some(ApplyError::EmptyMessage { message: whole.id });
    let record = RevisionRecord::of(&whole, Seq::new(11));
    assert_eq!(with(|_| (), vec![]), empty);
    assert_eq!(with(|row| row.variants.clear(), vec![record.clone()]), empty);
    // A variant that the present revision has and the row lacks would be a body that nobody can give.
    let mut more = record.clone();
    more.variants.insert(0, (Some("all".into()), whole.variants[0].tag));
    let torn = Some(ApplyError::TornMessage { message: whole.id });
    assert_eq!(with(|_| (), vec![more]), torn);
    assert_eq!(with(|row| row.to = stored(1).into(), vec![record.clone()]), torn);
    assert_eq!(with(|row| row.state = MessageState::Recalled, vec![record.clone()]), torn);
    let mut bad = record;
    bad.to = "nonsense ==".into();
    let error = with(|row| row.to = "nonsense ==".into(), vec![bad]);
    assert!(matches!(error, Some(ApplyError::Expression { .. })), "{error:?}");
}

#[test]
fn what_is_over_before_the_horizon_is_not_even_read() {
    let app = || row(crate::fixture::app(APP));
    let (mut gone, _) = message_row(1, &stored(9), 10);
    Arc::make_mut(&mut gone).state = MessageState::Recalled;
    let at = |from| vec![RevisionRecord::of(&gone, Seq::new(from))];
    let of = |from| finish(vec![app(), Row::Message { row: gone.clone(), revisions: at(from) }]);
    assert_eq!(of(10).expect("its group may be gone too").counts().messages, 0);
    assert!(of(11).is_err(), "from the horizon on everything must be there");
}

#[test]
fn a_change_that_does_not_fit_is_told_at_the_end() {
    let mut builder = WorldBuilder::new(ShardId::FIRST);
    builder.insert(row(crate::fixture::app(APP)));
    builder.apply(Seq::new(5), &state(3, MessageState::Recalled));
    let unknown = ApplyError::UnknownMessage { message: MessageId::new(3) };
    assert_eq!(builder.finish(lineage(), Seq::new(5), Seq::ZERO).err(), Some(unknown));
}

#[test]
fn a_partition_that_is_forgotten_takes_its_rows_and_no_others() {
    let mut world = world();
    let devices = (1..=200).map(|id| device(id, &[1], None, None));
    commit(&mut world, devices.chain((1..=200).map(|id| message(id, "all"))).collect());
    for partition in Partition::all().filter(|partition| partition.get() % 50 != 0) {
        let mut builder = WorldBuilder::new(ShardId::FIRST);
        rows(&world).into_iter().for_each(|row| builder.insert(row));
        builder.forget(partition);
        let built = builder.finish(lineage(), world.seq(), Seq::ZERO).expect("they fit");
        let left: Vec<Row> =
            rows(&world).into_iter().filter(|row| row.partition() != partition).collect();
        assert_eq!(rows(&built), left, "{partition:?}");
    }
}

#[test]
fn a_purge_among_the_changes_is_done_when_the_world_is_made() {
    let mut builder = WorldBuilder::new(ShardId::FIRST);
    builder.insert(row(crate::fixture::app(APP)));
    builder.apply(Seq::new(11), &message(1, "all"));
    builder.apply(Seq::new(12), &message(1, "not all"));
    builder.apply(Seq::new(13), &purge(12));
    let world = builder.finish(lineage(), Seq::new(13), Seq::new(12)).expect("they fit");
    let app = world.app(APP).expect("it is there");
    assert_eq!(app.row().created_at, Millis(0));
    assert_eq!(app.message(MessageId::new(1)).map(|m| m.revisions().len()), Some(1));
}
