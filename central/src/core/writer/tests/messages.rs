//! Messages, their windows and their keys.

use super::*;
use crate::core::limits::IDEMPOTENCY_KEPT;

#[test]
fn of_two_edits_of_one_revision_one_wins_and_one_gets_412() {
    let mut bench = Bench::with_app();
    bench.ok(create(message(7)));
    let (a, b) = (bench.write(edit(7, Some(1), "2")), bench.write(edit(7, Some(1), "3")));
    bench.settle();
    assert_eq!((bench.state(a), bench.state(b)), ("ok", "revision-mismatch"));
    assert_eq!(
        (bench.message(7).revision, crate::core::render::body_of(bench.message(7))),
        (2, "2")
    );

    // In two pipelined batches as well, and when the first of them fails the other one wins.
    let a = bench.write(edit(7, Some(2), "4"));
    bench.batch().unwrap();
    let b = bench.write(edit(7, Some(2), "5"));
    bench.refused();
    bench.settle();
    assert_eq!((bench.state(a), bench.state(b)), ("unavailable", "ok"));
    assert_eq!(crate::core::render::body_of(bench.message(7)), "5");
}

#[test]
fn a_repeat_with_the_same_key_gets_the_same_answer_and_another_body_is_refused() {
    let mut bench = Bench::with_app();
    let key = |request| Some(IdempotencyKey { key: "k".into(), request: [request; 32] });
    let Reply::Created(first) = bench.ok(create(CreateMessage { key: key(1), ..message(7) }))
    else {
        panic!()
    };
    let seq = bench.writer.committed().seq();
    let Reply::Created(again) = bench.ok(create(CreateMessage { key: key(1), ..message(8) }))
    else {
        panic!()
    };
    assert_eq!(first, again);
    assert_eq!(bench.writer.committed().seq(), seq);
    assert_eq!(
        bench.code(create(CreateMessage { key: key(2), ..message(9) })),
        "idempotency-key-reused"
    );

    // After a restart the key is known from the store.
    let mut batches = Bench::with_app();
    batches.write(create(CreateMessage { key: key(1), ..message(7) }));
    let rows = batches.batch().unwrap().idempotency;
    batches.committed();
    let mut restarted = Bench::with(batches.writer.committed().clone(), rows);
    let Reply::Created(again) = restarted.ok(create(CreateMessage { key: key(1), ..message(8) }))
    else {
        panic!()
    };
    assert_eq!(again.id, MessageId::new(7));
}

#[test]
fn a_key_is_free_again_when_its_batch_failed_and_after_24_hours() {
    let mut bench = Bench::with_app();
    let keyed = |id| CreateMessage {
        key: Some(IdempotencyKey { key: "k".into(), request: [1; 32] }),
        ..message(id)
    };
    let lost = bench.write(create(keyed(7)));
    bench.batch().unwrap();
    bench.refused();
    assert_eq!(bench.state(lost), "unavailable");
    let Reply::Created(created) = bench.ok(create(keyed(8))) else { panic!() };
    assert_eq!(created.id, MessageId::new(8));
    bench.now = bench.now.plus(IDEMPOTENCY_KEPT + 1);
    bench.writer.handle_tick(bench.now);
    let Reply::Created(created) = bench.ok(create(keyed(9))) else { panic!() };
    assert_eq!(created.id, MessageId::new(9));
}

#[test]
fn a_repeat_of_a_pending_create_waits_for_it() {
    let mut bench = Bench::with_app();
    let keyed = |id| CreateMessage {
        key: Some(IdempotencyKey { key: "k".into(), request: [1; 32] }),
        ..message(id)
    };
    bench.write(create(keyed(7)));
    bench.batch().unwrap();
    let again = bench.write(create(keyed(8)));
    assert_eq!(bench.state(again), "waits");
    bench.refused();
    bench.settle();
    let Ok(Reply::Created(created)) = &bench.answers[&again].result else { panic!() };
    assert_eq!(created.id, MessageId::new(8), "the first one never was");
}

#[test]
fn a_message_starts_and_ends_as_committed_changes() {
    let mut bench = Bench::with_app();
    let (start, end) = (bench.now.plus(1_000), bench.now.plus(5_000));
    bench.ok(create(CreateMessage {
        not_before: Some(start),
        expires_at: Some(end),
        ..message(7)
    }));
    assert_eq!(bench.message(7).state, MessageState::Scheduled);
    // What is looked at anyway, comes first.
    for _ in 0..2 {
        bench.now = bench.now.max(bench.writer.poll_timeout());
        bench.writer.handle_tick(bench.now);
        bench.settle();
    }
    assert_eq!(bench.writer.poll_timeout(), start);
    bench.writer.handle_tick(Millis(start.0 - 1));
    assert!(bench.batch().is_none(), "not yet");
    bench.now = start;
    bench.writer.handle_tick(start);
    let batch = bench.batch().unwrap();
    let (app, id, state) = (APP, MessageId::new(7), MessageState::Active);
    assert_eq!(batch.changes.unwrap().changes, [Change::MessageState { app, id, state }]);
    bench.committed();
    assert_eq!(bench.writer.poll_timeout(), end);

    // After a restart as well.
    let mut bench = Bench::with(bench.writer.committed().clone(), Vec::new());
    bench.now = end;
    bench.writer.handle_tick(end);
    bench.settle();
    assert_eq!(bench.message(7).state, MessageState::Expired);
    assert_eq!(bench.code(edit(7, None, "2")), "ended");
}

#[test]
fn a_message_that_was_edited_before_its_start_starts_once() {
    let mut bench = Bench::with_app();
    let (first, second) = (bench.now.plus(1_000), bench.now.plus(2_000));
    bench.ok(create(CreateMessage { not_before: Some(first), ..message(7) }));
    let Write::EditMessage(edit) = edit(7, None, "1") else { panic!() };
    bench.ok(Write::EditMessage(Box::new(EditMessage { not_before: Some(Some(second)), ..*edit })));
    // Late, as after a store that was down: both times have passed.
    bench.now = second.plus(1);
    bench.writer.handle_tick(bench.now);
    let (app, id, state) = (APP, MessageId::new(7), MessageState::Active);
    assert_eq!(
        bench.batch().unwrap().changes.unwrap().changes,
        [Change::MessageState { app, id, state }]
    );
}

#[test]
fn a_message_whose_end_is_due_is_never_started() {
    let mut bench = Bench::with_app();
    let (start, end) = (bench.now.plus(1_000), bench.now.plus(2_000));
    bench.ok(create(CreateMessage {
        not_before: Some(start),
        expires_at: Some(end),
        ..message(7)
    }));
    bench.now = end;
    bench.writer.handle_tick(end);
    bench.settle();
    assert_eq!(bench.message(7).state, MessageState::Expired);
}

#[test]
fn a_start_that_the_store_refused_is_tried_again_after_a_pause() {
    let mut bench = Bench::with_app();
    let start = bench.now.plus(1_000);
    bench.ok(create(CreateMessage { not_before: Some(start), ..message(7) }));
    bench.now = start;
    bench.writer.handle_tick(start);
    bench.batch().unwrap();
    bench.refused();
    bench.writer.handle_tick(start);
    assert!(bench.batch().is_none(), "a store that is down is not asked in a loop");
    assert_eq!(bench.writer.poll_timeout(), start.plus(TICK_PAUSE));
    bench.now = start.plus(TICK_PAUSE);
    bench.writer.handle_tick(bench.now);
    bench.settle();
    assert_eq!(bench.message(7).state, MessageState::Active);
}

#[test]
fn an_edit_moves_the_window_and_bad_windows_are_refused() {
    let mut bench = Bench::with_app();
    let now = bench.now;
    bench.ok(create(message(7)));
    let window = |not_before, expires_at| {
        Write::EditMessage(Box::new(EditMessage {
            app: APP,
            id: MessageId::new(7),
            if_match: None,
            to: None,
            body: None,
            priority: None,
            not_before,
            expires_at,
            push: None,
        }))
    };
    bench.ok(window(Some(Some(now.plus(1_000))), None));
    assert_eq!(bench.message(7).state, MessageState::Scheduled, "withdrawn until it starts");
    bench.ok(window(Some(None), None));
    assert_eq!(bench.message(7).state, MessageState::Active);
    assert_eq!(bench.code(window(None, Some(now))), "bad-window");
    assert_eq!(bench.code(window(Some(Some(now.plus(10))), Some(now.plus(10)))), "bad-window");
    let past = CreateMessage { expires_at: Some(Millis(now.0 - 1)), ..message(8) };
    assert_eq!(bench.code(create(past)), "bad-window");
}

#[test]
fn a_recall_is_final_and_may_be_repeated() {
    let mut bench = Bench::with_app();
    bench.ok(create(message(7)));
    let recall = Write::RecallMessage { app: APP, id: MessageId::new(7) };
    bench.ok(recall.clone());
    let seq = bench.writer.committed().seq();
    bench.ok(recall);
    assert_eq!(bench.writer.committed().seq(), seq);
    assert_eq!(bench.message(7).state, MessageState::Recalled);
    assert_eq!(bench.code(edit(7, None, "2")), "recalled");
}

#[test]
fn stored_recipients_outlive_a_rename() {
    let mut bench = Bench::with_app();
    bench.ok(create(CreateMessage { to: "#vip".into(), ..message(7) }));
    assert_eq!(&*bench.message(7).to, "#:0000000000000071");
    bench.ok(Write::RenameGroup {
        app: APP,
        group: GroupRef::Name("vip".into()),
        name: "gold".into(),
    });
    let Reply::Message { to, .. } = bench.ok(edit(7, None, "2")) else { panic!() };
    assert_eq!(to, "#gold");
    assert_eq!(
        bench.code(create(CreateMessage { to: "#vip".into(), ..message(8) })),
        "bad-expression"
    );
}

#[test]
fn receipts_count_only_when_addressed_and_change_nothing_but_when_the_device_was_seen() {
    let mut bench = Bench::with_app();
    bench.ok(enrol(1, 9));
    bench.ok(create(message(7)));
    bench.ok(create(CreateMessage { to: "#vip".into(), ..message(8) }));
    let generation = bench.device(1).unwrap().generation;
    let receipt = |id, message| Receipt {
        id,
        message: MessageId::new(message),
        kind: ReceiptKind::Opened,
        at: Millis(5),
    };
    let receipts =
        |receipts| Write::Receipts { app: APP, device: DeviceId::new(1), generation, receipts };
    let id = bench.write(receipts(vec![receipt(1, 7), receipt(2, 8), receipt(3, 99)]));
    assert_eq!(bench.state(id), "waits");
    let batch = bench.batch().unwrap();
    assert_eq!(batch.receipts.iter().map(|row| row.id).collect::<Vec<_>>(), [1]);
    // That the device came by is news, once an hour.
    let changes = batch.changes.unwrap();
    assert!(matches!(changes.changes[..], [Change::Seen { .. }]), "{changes:?}");
    bench.committed();
    assert_eq!(bench.state(id), "ok");
    bench.write(receipts(vec![receipt(5, 7)]));
    assert!(bench.batch().unwrap().changes.is_none());
    assert!(bench.committed().batch.is_none());
    assert!(bench.done(receipts(vec![receipt(4, 99)])).result.is_ok(), "the answer tells nothing");
}

/// Who has message 7, among devices 1 to 100 of whom the even ones belong to "ada".
fn recipients_of(to: &str) -> Vec<u64> {
    let mut bench = Bench::with_app();
    let bare = |n| ImportLine {
        attributes: vec![],
        user: (n % 2 == 0).then(|| "ada".into()),
        ..line(n, n, "")
    };
    bench.ok(import((1..=100).map(bare).collect()));
    bench.ok(create(CreateMessage { to: to.into(), ..message(7) }));
    let app = bench.writer.committed().app(APP).unwrap();
    let revision = app.message(MessageId::new(7)).unwrap().revisions().last().unwrap();
    let device = |n: &u64| app.device(DeviceId::new(*n)).unwrap();
    (1..=100).filter(|n| revision.addresses(device(n), Millis::ZERO).is_some()).collect()
}

#[test]
fn expressions_may_look_at_the_device_its_user_and_a_sample_of_the_message() {
    assert_eq!(recipients_of("device(\"0000000000000011\", \"0000000000000007\")"), [7, 0x11]);
    let even: Vec<u64> = (1..=50).map(|n| 2 * n).collect();
    assert_eq!(recipients_of("user in (\"ada\", \"bob\")"), even);
    let half = recipients_of("sample(50%)").len();
    assert!((20..80).contains(&half), "{half}");
    assert_eq!(recipients_of("sample(100%)").len(), 100);
}
