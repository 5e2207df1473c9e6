use carillon_expr::Type;

use super::*;
use crate::fixture::{
    AGE, APP, COUNTRY, Random, app, assert_alike, attribute, commit, device, group, lineage,
    message, message_in, purge, random_change, row, rows, state, stored, world,
};
use crate::{DeviceRow, GroupId, MessageState, WorldBuilder};

fn refused(world: &World, change: Change) -> ApplyError {
    let batch = Batch { first: world.seq().next(), changes: vec![change] };
    world.clone().apply(&batch).expect_err("it does not fit")
}

fn in_app(world: &World) -> &App {
    world.app(APP).expect("it is there")
}

#[test]
fn a_batch_that_does_not_follow_is_refused() {
    let mut world = world();
    let (seq, next) = (world.seq(), world.seq().next());
    for first in [seq, next.next(), Seq::new(1)] {
        let batch = Batch { first, changes: vec![message(1, "all")] };
        assert_eq!(world.apply(&batch).err(), Some(ApplyError::Gap { expected: next, got: first }));
    }
    assert_eq!((world.seq(), in_app(&world).message_count()), (seq, 0));
}

#[test]
fn what_refers_to_nothing_is_refused() {
    let empty = World::empty(ShardId::FIRST, lineage());
    let unknown = ApplyError::UnknownApp { app: APP };
    let id = DeviceId::new(9);
    for change in [
        attribute(AGE, "age", Type::Number),
        Change::AttributeGone { app: APP, id: AGE },
        group(1, "g"),
        Change::GroupGone { app: APP, id: GroupId::new(1) },
        device(1, &[], None, None),
        Change::DeviceGone { app: APP, id },
        message(1, "all"),
        state(1, MessageState::Recalled),
    ] {
        assert_eq!(refused(&empty, change), unknown);
    }
    let world = world();
    let message_id = MessageId::new(1);
    let unknown = ApplyError::UnknownMessage { message: message_id };
    assert_eq!(refused(&world, state(1, MessageState::Active)), unknown);
    let Change::Message(row) = message(1, "all") else { unreachable!("it is a message") };
    let bodiless = crate::MessageRow { variants: vec![], ..(*row).clone() };
    assert_eq!(
        refused(&world, Change::Message(Arc::new(bodiless))),
        ApplyError::EmptyMessage { message: message_id }
    );
    for to in [stored(4), "age > 1 and".to_owned(), "country > 1".to_owned()] {
        let error = refused(&world, message(1, &to));
        assert!(
            matches!(error, ApplyError::Expression { message, .. } if message == message_id),
            "{to}: {error}"
        );
    }
    let seq = world.seq().next();
    assert_eq!(
        refused(&world, purge(seq.get() + 1)),
        ApplyError::HorizonAhead { horizon: seq.next(), seq }
    );
}

#[test]
fn a_world_that_was_taken_before_sees_nothing_of_what_follows() {
    let mut random = Random(7);
    let mut world = world();
    let mut taken = Vec::new();
    for _ in 0..400 {
        taken.push((world.clone(), rows(&world), world.horizon(), world.seq()));
        let change = random_change(&mut random, &world);
        commit(&mut world, vec![change]);
    }
    for (world, before, horizon, seq) in taken {
        assert_eq!((rows(&world), world.horizon(), world.seq()), (before, horizon, seq));
    }
}

#[test]
fn every_row_stands_in_one_partition_and_together_they_make_the_same_world() {
    for seed in 0..50 {
        let mut random = Random(seed);
        let mut world = world();
        for _ in 0..200 {
            let change = random_change(&mut random, &world);
            commit(&mut world, vec![change]);
        }
        let mut builder = WorldBuilder::new(ShardId::FIRST);
        for partition in Partition::all() {
            for row in world.partition_rows(partition) {
                assert_eq!(row.partition(), partition);
                builder.insert(row);
            }
        }
        let built = builder
            .finish(world.lineage().clone(), world.seq(), world.horizon())
            .expect("rows of a world fit");
        assert_eq!(rows(&built), rows(&world), "seed {seed}");
        assert_eq!(built.counts(), world.counts());
        assert_alike(&built, &world, &format!("seed {seed}"));
        // What is not in the rows: members, the index, the records of changes.
        let (a, b) = (in_app(&built), in_app(&world));
        for id in (1..=3).map(GroupId::new) {
            assert_eq!(a.group_members(id), b.group_members(id), "seed {seed}");
            assert_eq!(
                b.group_members(id),
                b.devices().filter(|row| row.groups.contains(&id)).count() as u64
            );
        }
        for device in b.devices() {
            assert_eq!(a.index().candidates(device), b.index().candidates(device), "seed {seed}");
        }
        for seq in world.horizon().get()..=world.seq().get() {
            let after = |app: &App| app.records().after(Seq::new(seq)).collect::<Vec<_>>();
            assert_eq!(after(a), after(b), "seed {seed}");
        }
    }
}

#[test]
fn members_are_counted_through_joining_leaving_and_going() {
    let mut world = world();
    let members = |world: &World| [1, 2, 3].map(|id| in_app(world).group_members(GroupId::new(id)));
    commit(&mut world, vec![device(1, &[1, 2], None, None), device(2, &[2], None, None)]);
    assert_eq!(members(&world), [1, 2, 0]);
    commit(&mut world, vec![device(1, &[2, 3], Some("KE"), None)]);
    assert_eq!(members(&world), [0, 2, 1]);
    commit(&mut world, vec![device(1, &[2, 3], Some("SE"), None)]);
    assert_eq!(members(&world), [0, 2, 1], "another country moves no one");
    let gone = |id| Change::DeviceGone { app: APP, id: DeviceId::new(id) };
    commit(&mut world, vec![gone(1), gone(1), gone(77)]);
    assert_eq!(members(&world), [0, 1, 0], "going twice counts once");
    assert_eq!((world.counts().devices, in_app(&world).device_count()), (1, 1));
}

#[test]
fn a_renamed_group_or_attribute_answers_to_its_new_name_alone() {
    let mut world = world();
    commit(&mut world, vec![message(1, &stored(1))]);
    commit(&mut world, vec![group(1, "renamed"), attribute(COUNTRY, "land", Type::String)]);
    let app = in_app(&world);
    assert_eq!(app.group_by_name("renamed").map(|row| row.id), Some(GroupId::new(1)));
    assert_eq!(app.group_by_name("g1"), None);
    assert_eq!(app.attribute_by_name("land").map(|row| row.id), Some(COUNTRY));
    assert_eq!(app.attribute_by_name("country"), None);
    let text = app.message(MessageId::new(1)).map(|m| m.expression().to_text(app));
    assert_eq!(text.as_deref(), Some("#renamed"), "a rename changes nothing but print");
    commit(&mut world, vec![group(9, "g1"), Change::GroupGone { app: APP, id: GroupId::new(9) }]);
    assert_eq!(in_app(&world).group_by_name("g1"), None);
    assert_eq!(in_app(&world).groups().count(), 3);
}

#[test]
fn what_a_retained_revision_refers_to_is_told_until_it_is_purged() {
    let mut world = world();
    let to = format!("{} or :{AGE} > 1", stored(1));
    commit(&mut world, vec![message(1, &to)]);
    let edited_at = world.seq().get() + 1;
    commit(&mut world, vec![message(1, &stored(2))]);
    let refers = |world: &World| {
        let app = in_app(world);
        [
            app.references_group(GroupId::new(1)).messages.len(),
            app.references_group(GroupId::new(2)).messages.len(),
            app.references_attribute(AGE).messages.len(),
            app.references_attribute(COUNTRY).messages.len(),
        ]
    };
    assert_eq!(refers(&world), [1, 1, 1, 0], "somebody may still hold what it said before");
    commit(&mut world, vec![purge(edited_at - 1)]);
    assert_eq!(refers(&world), [1, 1, 1, 0], "the revision in force at the horizon is kept");
    commit(&mut world, vec![purge(edited_at)]);
    assert_eq!(refers(&world), [0, 1, 0, 0]);
}

#[test]
fn a_purge_forgets_what_is_over_at_the_horizon_and_nothing_else() {
    let mut world = world();
    commit(&mut world, vec![message(1, "all"), message(2, "all"), message(3, "all")]);
    commit(
        &mut world,
        vec![state(1, MessageState::Recalled), state(2, MessageState::Expired), message(3, "all")],
    );
    let seq = world.seq().get();
    let left = |world: &World| {
        let app = in_app(world);
        [1, 2, 3].map(|id| app.message(MessageId::new(id)).map_or(0, |m| m.revisions().len()))
    };
    commit(&mut world, vec![purge(seq - 3)]);
    assert_eq!(left(&world), [2, 2, 2], "none was over yet");
    assert_eq!(world.horizon(), Seq::new(seq - 3));
    commit(&mut world, vec![purge(seq - 2)]);
    assert_eq!(left(&world), [0, 2, 2]);
    commit(&mut world, vec![purge(seq - 4)]);
    assert_eq!(world.horizon(), Seq::new(seq - 2), "a horizon never falls");
    commit(&mut world, vec![purge(seq)]);
    assert_eq!(left(&world), [0, 0, 1], "an active message stays whatever its age");
    assert_eq!(in_app(&world).records().count_after(Seq::ZERO), 0);
    let held = row_of(&mut world);
    assert_eq!(in_app(&world).index().candidates(&held), [MessageId::new(3)]);
}

fn row_of(world: &mut World) -> Arc<DeviceRow> {
    commit(world, vec![device(1, &[], None, None)]);
    row(world, 1)
}

#[test]
fn a_batch_tells_whom_it_concerns() {
    let mut world = world();
    let inside = device(1, &[1], None, None);
    let applied = commit(&mut world, vec![inside, message(7, &stored(1))]);
    let held = row(&world, 1);
    assert_eq!(applied.devices, [(APP, DeviceId::new(1))]);
    assert!(!applied.schema_changed);
    let [change] = &*applied.messages else { panic!("{applied:?}") };
    assert!(change.before.is_none() && change.after.addresses(&held, world.clock()).is_some());
    let applied = commit(&mut world, vec![message(7, &stored(2)), group(4, "g4")]);
    let [change] = &*applied.messages else { panic!("{applied:?}") };
    let before = change.before.as_ref().expect("it was there");
    assert!(
        before.addresses(&held, world.clock()).is_some()
            && change.after.addresses(&held, world.clock()).is_none()
    );
    assert!(applied.schema_changed);
    let applied = commit(&mut world, vec![message_in(8, "all", MessageState::Scheduled)]);
    assert!(applied.messages[0].after.addresses(&held, world.clock()).is_none(), "not active yet");
    let gone = Change::DeviceGone { app: APP, id: DeviceId::new(1) };
    assert_eq!(commit(&mut world, vec![gone]).devices, [(APP, DeviceId::new(1))]);
}

#[test]
fn the_clock_never_runs_back_and_says_when_it_moved() {
    let mut world = world();
    let at = |at| Change::Clock { at: Millis(at) };
    assert!(!world.follows_clock() && world.clock() == Millis::ZERO);
    let applied = commit(&mut world, vec![at(5)]);
    assert!(applied.ticked && !applied.schema_changed && world.clock() == Millis(5));
    assert!(!commit(&mut world, vec![at(5)]).ticked);
    assert!(!commit(&mut world, vec![at(4)]).ticked);
    assert_eq!(world.clock(), Millis(5));
}

#[test]
fn a_device_is_seen_once_for_each_hour_and_nothing_sets_it_back_or_moves_its_profile() {
    let mut world = world();
    commit(&mut world, vec![device(1, &[1], None, None), device(2, &[], None, None)]);
    let seen = |at, ids: &[u64]| {
        let devices = ids.iter().map(|id| DeviceId::new(*id)).collect();
        Change::Seen { app: APP, at: Millis(at), devices }
    };
    assert!(commit(&mut world, vec![seen(5, &[1])]).seen.is_empty(), "nothing hangs on it");
    commit(&mut world, vec![message(4, "has last_seen")]);
    let applied = commit(&mut world, vec![seen(7, &[1, 9])]);
    assert_eq!(applied.seen, [(APP, DeviceId::new(1))], "nobody knows the other");
    assert!(applied.devices.is_empty());
    assert!(commit(&mut world, vec![seen(7, &[1]), seen(6, &[1])]).seen.is_empty());
    let p = row(&world, 1).p;
    assert_eq!((row(&world, 1).last_seen, p), (Millis(7), Seq::new(1)));
    // A row that was decided before, or that the store has.
    commit(&mut world, vec![device(1, &[2], None, None)]);
    assert_eq!(row(&world, 1).last_seen, Millis(7));
    assert_eq!(row(&world, 2).last_seen, Millis::ZERO);
    let gone = Change::DeviceGone { app: APP, id: DeviceId::new(1) };
    commit(&mut world, vec![gone, device(1, &[2], None, None)]);
    assert_eq!(row(&world, 1).last_seen, Millis::ZERO, "another device");
}

#[test]
fn a_purge_copies_no_app_that_it_does_not_reach() {
    let other = AppId::new(2);
    let mut world = world();
    commit(&mut world, vec![app(other)]);
    let ended = [message(1, "all"), state(1, MessageState::Expired)];
    commit(&mut world, ended.into());
    let horizon = world.seq().get();
    let before = world.clone();
    commit(&mut world, vec![purge(horizon)]);
    let shared = |id| Arc::ptr_eq(before.apps.get(id).unwrap(), world.apps.get(id).unwrap());
    assert!(shared(other) && !shared(APP));
    assert_eq!(in_app(&world).message_count(), 0);
}

#[test]
fn apps_share_nothing() {
    let mut world = world();
    let other = AppId::new(0xa2);
    commit(&mut world, vec![app(other), message(1, "all"), device(1, &[1], None, None)]);
    let found = world.app_by_key("pk 00000000000000a2").expect("by its key");
    assert_eq!(found.row().id, other);
    assert_eq!((found.device_count(), found.message_count(), found.groups().count()), (0, 0, 0));
    assert_eq!(world.app_by_name("app 00000000000000a1").map(|app| app.row().id), Some(APP));
    assert!(world.app_by_key("pk").is_none() && world.app_by_name("app").is_none());
    let Change::Message(row) = message(2, &stored(1)) else { unreachable!("it is a message") };
    let elsewhere = crate::MessageRow { app: other, ..(*row).clone() };
    let error = refused(&world, Change::Message(Arc::new(elsewhere)));
    assert!(matches!(error, ApplyError::Expression { .. }), "a group of another app: {error}");
}
