use std::collections::BTreeSet;

use super::*;
use crate::fixture::{
    APP, Random, commit, device, message, message_in, purge, random_change, random_expression, row,
    state, stored, world,
};
use crate::{App, World};

fn in_app(world: &World) -> &App {
    world.app(APP).expect("it is there")
}

fn matching(app: &App, device: &DeviceRow) -> BTreeSet<MessageId> {
    let any =
        |message: &Message| message.revisions().iter().any(|r| !r.over && r.to.matches(device));
    app.messages_after(None).filter(|m| any(m)).map(|m| m.row().id).collect()
}

/// By brute force: whatever any retained revision is true of is named, through every edit, end and purge.
#[test]
fn the_index_names_every_message_that_any_retained_revision_addresses() {
    let mut named = 0;
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut world = world();
        for _ in 0..150 {
            let change = random_change(&mut random, &world);
            commit(&mut world, vec![change]);
            let app = in_app(&world);
            for device in app.devices() {
                let candidates = app.index().candidates(device);
                assert!(candidates.is_sorted_by(|a, b| a < b), "without repeats");
                let candidates: BTreeSet<MessageId> = candidates.into_iter().collect();
                let wanted = matching(app, device);
                assert!(candidates.is_superset(&wanted), "seed {seed}");
                assert!(candidates.iter().all(|id| app.message(*id).is_some()), "seed {seed}");
                named += wanted.len();
            }
        }
    }
    assert!(named > 10_000, "{named}");
}

/// Whatever terms an expression is filed under, a device looks under all that it has.
#[test]
fn the_index_finds_messages_by_every_kind_of_term() {
    let mut world = world();
    let tags = crate::AttributeId::new(0xb3);
    let sets = crate::fixture::attribute(tags, "tags", carillon_expr::Type::Set);
    let crate::Change::Device(plain) = device(7, &[], Some("KE"), None) else { unreachable!() };
    let set = ["red", "blue"].into_iter().map(Arc::from).collect();
    let mut attributes = plain.attributes.to_vec();
    attributes.push((tags, carillon_expr::Value::Set(set)));
    let row = DeviceRow {
        user: Some("u".into()),
        attributes: attributes.into(),
        ..DeviceRow::clone(&plain)
    };
    commit(&mut world, vec![sets, crate::Change::Device(row.clone().into())]);
    let texts = [
        "user in (\"u\")",
        "has user",
        "device(\"0000000000000007\")",
        ":00000000000000b3 any (\"red\", \"green\")",
    ];
    for (id, text) in texts.iter().enumerate() {
        commit(&mut world, vec![message(100 + id as u64, text)]);
    }
    let app = in_app(&world);
    assert_eq!(matching(app, &row).len(), texts.len());
    assert_eq!(app.index().candidates(&row).len(), texts.len());
}

/// P7 for ticks: what is not volatile, not active or not for this device is not judged again.
#[test]
fn only_what_is_active_and_volatile_is_looked_at_for_a_tick() {
    let mut world = world();
    let to_vips = |id| message(id, &format!("{} and last_seen within 2h", stored(1)));
    let scheduled = message_in(4, "last_seen within 2h", MessageState::Scheduled);
    let changes = vec![
        device(1, &[1], None, None),
        device(2, &[2], None, None),
        message(3, "all"),
        scheduled,
        to_vips(5),
        to_vips(6),
    ];
    commit(&mut world, changes);
    let looked = |world: &World, id| {
        let row = row(world, id);
        in_app(world).volatile(&row).map(|m| m.row().id.get()).collect::<Vec<u64>>()
    };
    assert_eq!((looked(&world, 1), looked(&world, 2)), (vec![5, 6], vec![]));
    assert_eq!(in_app(&world).volatile_messages(), 3, "the scheduled one counts, too");
    let all = |id| message(id, "all");
    commit(&mut world, vec![state(4, MessageState::Active), state(5, MessageState::Recalled)]);
    commit(&mut world, vec![all(6)]);
    assert_eq!((looked(&world, 1), looked(&world, 2)), (vec![4], vec![4]));
    assert!(in_app(&world).volatile_messages() == 1 && world.follows_clock());
    commit(&mut world, vec![state(4, MessageState::Expired)]);
    assert!(!world.follows_clock());
}

/// P7 rests on it.
#[test]
fn messages_that_share_no_term_with_a_device_are_not_looked_at() {
    let mut world = world();
    commit(&mut world, vec![device(1, &[1], Some("KE"), None)]);
    let to_others = |id: u64| match id % 3 {
        0 => message(id, &stored(2)),
        1 => message(id, &format!("{} and not {}", stored(3), stored(1))),
        _ => message(id, ":00000000000000b1 == \"SE\""),
    };
    commit(&mut world, (100..1_100).map(to_others).collect());
    assert_eq!(in_app(&world).index().candidates(&row(&world, 1)), []);
    commit(&mut world, vec![message(5, &format!("{} and {}", stored(1), stored(2)))]);
    let app = in_app(&world);
    assert_eq!(app.index().candidates(&row(&world, 1)).len(), 1, "one term is enough to be asked");
}

#[test]
fn an_index_that_all_messages_left_is_empty() {
    let mut random = Random(3);
    let mut world = world();
    for id in 0..200 {
        commit(&mut world, vec![message(id, &random_expression(&mut random))]);
        commit(&mut world, vec![message(id, &random_expression(&mut random))]);
        commit(&mut world, vec![state(id, MessageState::Recalled)]);
    }
    assert!(in_app(&world).index().by_term.len() > 5);
    let seq = world.seq().get();
    commit(&mut world, vec![purge(seq)]);
    let app = in_app(&world);
    assert_eq!(app.message_count(), 0);
    assert!(app.index().by_term.is_empty() && app.index().everyone.is_empty());
}

#[test]
fn the_revision_in_force_is_the_last_that_began() {
    let mut world = world();
    let first = world.seq().get() + 1;
    commit(&mut world, vec![message_in(1, "all", MessageState::Scheduled)]);
    commit(&mut world, vec![state(1, MessageState::Active)]);
    commit(&mut world, vec![message(1, &stored(1)), state(1, MessageState::Recalled)]);
    let message = in_app(&world).message(MessageId::new(1)).expect("it is there");
    let at = |seq: u64| message.at(Seq::new(seq)).map(|r| (r.from().get() - first, r.is_active()));
    assert_eq!(at(first - 1), None);
    assert_eq!(
        [0, 1, 2, 3, 9].map(|k| at(first + k)),
        [Some((0, false)), Some((1, true)), Some((2, true)), Some((3, false)), Some((3, false)),]
    );
    assert_eq!(message.changed().get(), first + 3);
    assert_eq!(message.expression().to_stored(), stored(1));
}

#[test]
fn records_are_found_by_seq_across_chunks_and_a_clone_keeps_what_it_had() {
    let all = 3 * RECORDS_PER_CHUNK as u64 + 5;
    let mut records = Records::default();
    // Every other seq, so that each search meets a hit and a miss.
    for k in 1..=all {
        records.push(Seq::new(2 * k), MessageId::new(k));
    }
    let edge = 2 * RECORDS_PER_CHUNK as u64;
    for seq in [0, 1, 2, 3, edge - 1, edge, edge + 1, edge + 2, 2 * all - 1, 2 * all, 2 * all + 1] {
        let found: Vec<u64> = records.after(Seq::new(seq)).map(|(_, id)| id.get()).collect();
        let wanted: Vec<u64> = (1..=all).filter(|k| 2 * k > seq).collect();
        assert_eq!(found, wanted, "after {seq}");
        assert!(records.count_after(Seq::new(seq)) >= wanted.len());
        assert_eq!(records.count_after(Seq::new(seq)) == 0, wanted.is_empty());
    }
    let before = records.clone();
    let purged = records.purge(Seq::new(edge + 3));
    assert_eq!(purged.len(), RECORDS_PER_CHUNK + 1);
    assert_eq!(
        records.after(Seq::ZERO).next(),
        Some((Seq::new(edge + 4), MessageId::new(RECORDS_PER_CHUNK as u64 + 2)))
    );
    assert_eq!(before.after(Seq::ZERO).count() as u64, all);
    assert_eq!(records.purge(Seq::new(edge + 3)), [], "once");
    assert_eq!(records.purge(Seq::new(u64::MAX)).len() as u64, all - purged.len() as u64);
    assert_eq!(records.count_after(Seq::ZERO), 0);
}

#[test]
fn a_message_that_changed_often_is_purged_once() {
    let mut records = Records::default();
    for seq in 1..=10 {
        records.push(Seq::new(seq), MessageId::new(seq % 2));
    }
    assert_eq!(records.purge(Seq::new(6)), [MessageId::new(0), MessageId::new(1)]);
}
