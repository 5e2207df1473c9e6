use super::*;
use crate::fixture::{
    APP, assert_alike, at, audience, commit, device, group, message, message_in, purge, row, rows,
    state, stored, world,
};
use crate::{
    App, ApplyError, Batch, Change, MessageRow, MessageState, ShardId, Tag, Variant, World,
    WorldBuilder,
};

fn in_app(world: &World) -> &App {
    world.app(APP).expect("it is there")
}

fn say(world: &mut World, id: u64, expression: &str) -> crate::Applied {
    let change = audience(world, id, expression, &format!("a{id}"));
    commit(world, vec![change])
}

fn refused(world: &World, change: Change) -> ApplyError {
    let batch = Batch { first: world.seq().next(), changes: vec![change] };
    world.clone().apply(&batch).expect_err("it does not fit")
}

fn changed(applied: &crate::Applied) -> Vec<u64> {
    applied.messages.iter().map(|change| change.id.get()).collect()
}

/// Whether the device was a recipient of the message at each of these seqs.
fn had(world: &World, message: u64, seqs: &[u64]) -> Vec<bool> {
    let device = row(world, 1);
    let message = in_app(world).message(MessageId::new(message)).expect("it is there");
    let at = |seq: &u64| {
        message.at(Seq::new(*seq)).is_some_and(|r| r.addresses(&device, world.clock()).is_some())
    };
    seqs.iter().map(at).collect()
}

fn rebuilt(world: &World) -> World {
    let mut builder = WorldBuilder::new(ShardId::FIRST);
    rows(world).into_iter().for_each(|row| builder.insert(row));
    builder.finish(world.lineage().clone(), world.seq(), world.horizon()).expect("rows fit")
}

/// `@1` is group 1, `@2` is `@1`; the device is in group 1 alone.
fn nested() -> World {
    let mut world = world();
    commit(&mut world, vec![device(1, &[1], None, None)]);
    say(&mut world, 1, &stored(1));
    say(&mut world, 2, &at(1));
    world
}

#[test]
fn an_edit_is_a_change_of_every_live_message_that_uses_it_however_indirectly() {
    let mut world = nested();
    let Change::Message(plain) = message(13, "all") else { unreachable!("it is a message") };
    let selector =
        Variant { selector: Some(at(2).into()), tag: Tag::new(99), ..plain.variants[0].clone() };
    let variants = vec![selector, plain.variants[0].clone()];
    commit(
        &mut world,
        vec![
            message(10, &at(1)),
            message(11, &format!("{} and {}", at(2), stored(1))),
            message_in(12, &at(2), MessageState::Scheduled),
            Change::Message(Arc::new(MessageRow { variants, ..(*plain).clone() })),
            message(14, &stored(1)),
            message(15, &at(1)),
            state(15, MessageState::Recalled),
        ],
    );
    let before = world.seq().get();
    let applied = say(&mut world, 1, &stored(2));
    assert_eq!(changed(&applied), [10, 11, 12, 13], "neither who does not use it nor who is over");
    let held = row(&world, 1);
    for change in &applied.messages {
        let was =
            change.before.as_ref().and_then(|revision| revision.addresses(&held, world.clock()));
        let is = change.after.addresses(&held, world.clock());
        assert_eq!(change.after.from().get(), before + 1);
        match change.id.get() {
            12 => assert_eq!((was, is), (None, None), "scheduled"),
            13 => assert_eq!((was, is), (Some(Tag::new(99)), Some(Tag::new(13))), "the selector"),
            id => assert_eq!((was, is), (Some(Tag::new(id)), None)),
        }
    }
    for id in [10, 11] {
        assert_eq!(had(&world, id, &[before, before + 1]), [true, false], "{id}");
    }
    commit(&mut world, vec![message(16, &at(1)), state(16, MessageState::Expired)]);
    assert_eq!(changed(&say(&mut world, 2, "all")), [11, 12, 13]);
    assert_eq!(changed(&say(&mut world, 1, "all")), [10], "nobody else uses it any more");
    let app = in_app(&world);
    assert_eq!(app.audience_messages(AudienceId::new(1)), [MessageId::new(10)]);
    // What has ended may still be recalled, and between the two nothing changed it.
    commit(&mut world, vec![state(12, MessageState::Active), state(16, MessageState::Recalled)]);
    assert_eq!(had(&world, 12, &[world.seq().get()]), [true], "it begins by what is said then");
    assert_alike(&rebuilt(&world), &world, "rebuilt");
    assert_eq!(rows(&rebuilt(&world)), rows(&world));
    // What is over prints as it was, and can still be asked whom it would be for.
    let app = in_app(&world);
    let over = app.message(MessageId::new(15)).expect("it is there");
    assert_eq!(over.expression().to_text(app), "@a1");
    assert!(over.recipients(app).matches(&*held), "`@1` is all");
    assert!(!over.recipients(app).groups().contains(&GroupId::new(1)));
}

#[test]
fn a_revision_says_what_the_audience_said_then_also_in_a_world_from_rows() {
    let mut world = nested();
    commit(&mut world, vec![message(10, &at(2))]);
    let from = world.seq().get();
    say(&mut world, 1, &stored(2));
    commit(&mut world, vec![message(10, &format!("{} or {}", at(2), stored(3)))]);
    say(&mut world, 1, "all");
    say(&mut world, 2, "not all");
    say(&mut world, 2, &at(1));
    let seqs: Vec<u64> = (from - 1..=world.seq().get()).collect();
    let expected = [false, true, false, false, true, false, true];
    assert_eq!(had(&world, 10, &seqs), expected);
    assert_eq!(had(&rebuilt(&world), 10, &seqs), expected);
    for horizon in seqs {
        commit(&mut world, vec![purge(horizon)]);
        let again = rebuilt(&world);
        assert_alike(&again, &world, &format!("horizon {horizon}"));
        let kept: Vec<u64> = (horizon.max(from)..from + 6).collect();
        let wanted = &expected[(kept[0] + 1 - from) as usize..];
        assert_eq!(had(&world, 10, &kept), wanted, "horizon {horizon}");
    }
    let said =
        |id| in_app(&world).audience(AudienceId::new(id)).expect("it is there").revisions().len();
    assert_eq!((said(1), said(2)), (1, 1), "nothing is kept but what is in force");
    let message = in_app(&world).message(MessageId::new(10)).expect("it is there");
    assert_eq!(message.revisions().len(), 1);
}

#[test]
fn a_rename_changes_nothing_but_print() {
    let mut world = nested();
    commit(&mut world, vec![message(10, &at(2))]);
    let change = audience(&world, 1, &stored(1), "vips");
    assert!(commit(&mut world, vec![change]).messages.is_empty());
    let app = in_app(&world);
    let two = app.audience_by_name("a2").expect("it is there");
    assert_eq!(two.expression().to_text(app), "@vips");
    assert!(app.audience_by_name("a1").is_none());
    let one = app.audience_by_name("vips").expect("it is there");
    assert_eq!((one.revisions().len(), one.row().revision), (1, 2));
    assert_alike(&rebuilt(&world), &world, "rebuilt");
}

#[test]
fn what_does_not_fit_is_refused() {
    let world = nested();
    let (first, second) = (AudienceId::new(1), AudienceId::new(2));
    let faults = [
        audience(&world, 1, &at(1), "a1"),
        audience(&world, 1, &at(2), "a1"),
        audience(&world, 1, &at(3), "a1"),
        audience(&world, 1, &stored(9), "a1"),
        audience(&world, 1, "and", "a1"),
    ];
    for change in faults {
        let error = refused(&world, change);
        assert!(
            matches!(error, ApplyError::AudienceExpression { audience, .. } if audience == first)
        );
    }
    let torn = |from: Seq, expression: &str| {
        let row = in_app(&world).audience(second).expect("it is there").row();
        let row = AudienceRow { from, expression: expression.into(), ..AudienceRow::clone(row) };
        refused(&world, Change::Audience(Arc::new(row)))
    };
    assert_eq!(torn(world.seq(), "all"), ApplyError::TornAudience { audience: second });
    assert_eq!(torn(world.seq().next(), &at(1)), ApplyError::TornAudience { audience: second });
}

#[test]
fn what_an_audience_refers_to_is_told_until_it_is_purged() {
    let mut world = nested();
    commit(&mut world, vec![message(10, &at(2)), group(4, "g4")]);
    let refers = |world: &World| {
        let app = in_app(world);
        let told = [
            app.references_group(GroupId::new(1)),
            app.references_audience(AudienceId::new(1)),
            app.references_audience(AudienceId::new(2)),
        ];
        told.map(|of| (of.messages.len(), of.audiences.len()))
    };
    assert_eq!(refers(&world), [(1, 2), (1, 1), (1, 0)]);
    say(&mut world, 2, &stored(4));
    assert_eq!(refers(&world), [(1, 2), (1, 1), (1, 0)], "as it was is still held");
    let horizon = world.seq().get();
    commit(&mut world, vec![purge(horizon)]);
    assert_eq!(refers(&world), [(0, 1), (0, 0), (1, 0)]);
    commit(&mut world, vec![Change::AudienceGone { app: APP, id: AudienceId::new(1) }]);
    let app = in_app(&world);
    assert!(app.audience(AudienceId::new(1)).is_none() && app.audience_by_name("a1").is_none());
    assert_eq!(app.audience_count(), 1);
    assert_alike(&rebuilt(&world), &world, "rebuilt");
}

#[test]
fn audiences_are_read_after_those_that_they_name_whatever_their_ids() {
    let text = |text: &str| Arc::<str>::from(text);
    let world = world();
    let texts = BTreeMap::from([
        (AudienceId::new(1), text(&at(3))),
        (AudienceId::new(2), text(&stored(1))),
        (AudienceId::new(3), text(&format!("{} and {}", at(2), at(2)))),
        (AudienceId::new(4), text(&at(5))),
        (AudienceId::new(5), text(&at(4))),
        (AudienceId::new(6), text("user in (\"@:0000000000000001\")")),
    ]);
    let order = in_order(&texts, in_app(&world)).expect("each can be read");
    let order: Vec<u64> = order.into_iter().map(AudienceId::get).collect();
    assert_eq!(order, [2, 6, 3, 1, 4, 5], "a cycle comes last");
    let wrong = BTreeMap::from([(AudienceId::new(1), text(&stored(9)))]);
    assert_eq!(in_order(&wrong, in_app(&world)).expect_err("no such group").0, AudienceId::new(1));
}

#[test]
fn a_purge_reaches_an_app_that_has_nothing_to_forget_but_of_audiences() {
    let mut world = nested();
    say(&mut world, 1, "all");
    let horizon = world.seq().get();
    commit(&mut world, vec![purge(horizon)]);
    let audience = in_app(&world).audience(AudienceId::new(1)).expect("it is there");
    assert_eq!(audience.revisions().len(), 1);
}
