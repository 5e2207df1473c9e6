//! What is refused when the world or an app's quota is full, and what goes on.

use carillon_world::{PushChannel, PushToken, Quotas};

use super::*;
use crate::core::budget::Budgets;
use crate::core::write::QuotaEdit;

/// The same shard under another bound.
fn bounded(bench: &Bench, world_bytes_max: u64) -> Bench {
    let budgets = Budgets { world_bytes_max, ..Budgets::default() };
    let config = WriterConfig { budgets, ..WriterConfig::default() };
    Bench::configured(config, bench.writer.committed().clone(), Vec::new())
}

fn bytes(bench: &Bench) -> u64 {
    bench.writer.committed().usage().total()
}

fn with_quotas(edit: QuotaEdit) -> Bench {
    let mut bench = Bench::with_app();
    bench.ok(Write::SetQuotas { app: APP, edit });
    bench
}

fn members(join: bool, devices: &[u64]) -> Write {
    let devices = devices.iter().map(|id| DeviceId::new(*id)).collect();
    Write::Members { app: APP, group: GroupRef::Id(VIP), join, devices }
}

/// An app with two devices, one of them in the group, and a message of 1,000 bytes; then a bound that is reached.
fn full() -> Bench {
    let mut bench = Bench::with_app();
    bench.ok(import(vec![line(1, 1, "KE"), line(2, 2, "SE")]));
    bench.ok(enrol(3, 3));
    bench.ok(members(true, &[1]));
    bench.ok(create(CreateMessage { body: large().into(), ..message(7) }));
    bounded(&bench, bytes(&bench))
}

fn large() -> String {
    format!("\"{}\"", "x".repeat(1_000))
}

#[test]
fn a_full_world_refuses_every_kind_of_growth() {
    let mut bench = full();
    let token = PushToken { channel: PushChannel::Fcm, token: "t".repeat(50).into() };
    let tokens = ProfileEdit { tokens: Some(vec![token]), ..ProfileEdit::default() };
    let user = ProfileEdit { user: Some(Some("u".repeat(40).into())), ..ProfileEdit::default() };
    let generation = bench.device(3).expect("it enrolled").generation;
    let attribute = Write::DeclareAttribute {
        app: APP,
        id: AttributeId::new(9),
        name: "more".into(),
        kind: Type::Bool,
        set_by: SetBy::Both,
    };
    let app = Write::CreateApp {
        id: AppId::new(0xb),
        name: "b".into(),
        environment: Environment::Sandbox,
        publishable_key: "pk_b".into(),
    };
    let longer = format!("\"{}\"", "y".repeat(5_000));
    for write in [
        app,
        attribute,
        group(9, "more"),
        create(message(8)),
        edit(7, None, &longer),
        enrol(4, 4),
        Write::PatchDevice { app: APP, device: DeviceId::new(1), edit: user.clone() },
        Write::PatchSelf { app: APP, device: DeviceId::new(3), generation, edit: tokens },
    ] {
        let before = bytes(&bench);
        let refused = bench.done(write.clone()).result.expect_err("it grows");
        assert_eq!((refused.status, refused.code.as_str()), (507, "world-full"), "{write:?}");
        assert_eq!(bytes(&bench), before);
    }
    assert!(bench.batch().is_none(), "nothing of it went to the store");
}

#[test]
fn a_full_world_takes_whatever_shrinks_or_keeps() {
    let mut bench = full();
    let full_at = bytes(&bench);
    let unset =
        ProfileEdit { attributes: vec![("country".into(), None)], ..ProfileEdit::default() };
    let generation = bench.device(3).expect("it enrolled").generation;
    bench.ok(edit(7, None, "\"small\""));
    bench.ok(Write::RecallMessage { app: APP, id: MessageId::new(7) });
    bench.ok(members(false, &[1]));
    bench.ok(Write::RevokeDevice { app: APP, device: DeviceId::new(1) });
    bench.ok(Write::PatchDevice { app: APP, device: DeviceId::new(1), edit: unset });
    bench.ok(import(vec![line(1, 2, "NO")]));
    bench.ok(Write::DeleteDevice { app: APP, device: DeviceId::new(1) });
    bench.ok(Write::Forget { app: APP, device: DeviceId::new(3), generation });
    bench.ok(Write::DeleteAttribute { app: APP, name: "plan".into() });
    assert!(bytes(&bench) < full_at);
    bench.ok(enrol(5, 5));
}

#[test]
fn what_falls_due_is_committed_however_full_the_world_is() {
    let mut bench = Bench::with_app();
    let start = bench.now.plus(1_000);
    bench.ok(create(CreateMessage { not_before: Some(start), ..message(7) }));
    let mut bench = bounded(&bench, 1);
    bench.now = start;
    bench.writer.handle_tick(start);
    bench.settle();
    assert_eq!(bench.message(7).state, MessageState::Active);
}

#[test]
fn edits_that_keep_have_a_reserve_and_no_more() {
    let bench = full();
    let before = bytes(&bench);
    let mut bench = bounded(&bench, u64::MAX);
    bench.ok(import((10..200).map(|n| line(n, n, "KE")).collect()));
    assert!(bytes(&bench) > 4 * before, "a revision is less than a sixteenth");
    let mut bench = bounded(&bench, bytes(&bench));
    let most = bytes(&bench) + bytes(&bench) / 16;
    let mut edits = 0;
    let refused = loop {
        let body = format!("\"{}\"", format!("{edits}").repeat(1_000).get(..1_000).unwrap());
        match bench.done(edit(7, None, &body)).result {
            Ok(_) => edits += 1,
            Err(problem) => break problem.code,
        }
        assert!(bytes(&bench) <= most, "after {edits} edits");
    };
    assert_eq!(refused, "world-full");
    assert!(edits > 0, "the first goes into the reserve");
    bench.ok(Write::RecallMessage { app: APP, id: MessageId::new(7) });
}

#[test]
fn lines_and_members_are_refused_one_by_one() {
    let mut bench = Bench::with_app();
    bench.ok(import((1..=4).map(|n| line(n, n, "KE")).collect()));
    let device = {
        let before = bytes(&bench);
        bench.ok(import(vec![line(1, 5, "KE")]));
        bytes(&bench) - before
    };
    let mut bench = bounded(&bench, bytes(&bench) + 2 * device);
    // Three more where there is room for two; known ones change and stay.
    let lines = vec![line(1, 6, "KE"), line(2, 1, "SE"), line(3, 7, "KE"), line(4, 8, "KE")];
    let Reply::Imported(report) = bench.ok(import(lines)) else { panic!("another reply") };
    assert_eq!((report.created, report.changed, report.bad.len()), (2, 1, 1));
    assert_eq!((report.bad[0].line, report.bad[0].code.as_str()), (4, "world-full"));
    assert_eq!(bench.device(1).unwrap().attributes[0].1, carillon_expr::Value::String("SE".into()));

    let mut bench = bounded(&bench, bytes(&bench) + 8);
    let Reply::Members(report) = bench.ok(members(true, &[1, 2, 3])) else { panic!() };
    assert_eq!(report.changed, 1, "a membership is 8 bytes");
    assert_eq!(report.refused.map(|problem| problem.code).as_deref(), Some("world-full"));
}

#[test]
fn each_quota_is_refused_by_its_name_with_limit_and_use() {
    let quotas = QuotaEdit {
        devices_max: Some(Some(2)),
        groups_max: Some(Some(1)),
        live_messages_max: Some(Some(1)),
        bodies_bytes_max: Some(Some(2_000)),
    };
    let mut bench = with_quotas(quotas);
    bench.ok(enrol(1, 1));
    bench.ok(import(vec![line(1, 2, "KE")]));
    bench.ok(create(message(7)));
    let refusal = |bench: &mut Bench, write: Write| {
        let problem = bench.done(write).result.expect_err("a quota is used up");
        assert_eq!((problem.status, problem.code.as_str()), (403, "quota-exceeded"));
        problem
    };
    let quota_of = |problem: Problem| -> serde_json::Value {
        serde_json::from_str(&problem.extra.expect("it says which")).expect("JSON")
    };
    let groups = quota_of(refusal(&mut bench, group(9, "more")));
    assert_eq!(groups, serde_json::json!({"quota": "groups_max", "limit": 1, "used": 1}));
    let live = quota_of(refusal(&mut bench, create(message(8))));
    assert_eq!(live, serde_json::json!({"quota": "live_messages_max", "limit": 1, "used": 1}));
    let longer = format!("\"{}\"", "y".repeat(3_000));
    assert_eq!(quota_of(refusal(&mut bench, edit(7, None, &longer)))["quota"], "bodies_bytes_max");
    let Reply::Imported(report) = bench.ok(import(vec![line(1, 3, "KE"), line(2, 2, "SE")])) else {
        panic!("another reply")
    };
    assert_eq!((report.changed, report.bad.len()), (1, 1));
    assert_eq!((report.bad[0].line, report.bad[0].code.as_str()), (1, "quota-exceeded"));
    // A device is not told how much the app has.
    let told = refusal(&mut bench, enrol(4, 4));
    assert_eq!((told.extra, told.detail.contains('2')), (None, false));
    // A repeat of what is there is not refused.
    let Reply::Enrolled { created, .. } = bench.ok(enrol(9, 1)) else { panic!() };
    assert!(!created);

    // What ends makes room, what is deleted as well; other apps have theirs.
    bench.ok(Write::RecallMessage { app: APP, id: MessageId::new(7) });
    bench.ok(create(message(8)));
    bench.ok(Write::DeleteDevice { app: APP, device: DeviceId::new(2) });
    bench.ok(enrol(4, 4));
    bench.app(AppId::new(0xb), "pk_b");
    let other = AppId::new(0xb);
    let line = ImportLine { attributes: vec![], ..line(1, 30, "") };
    bench.ok(Write::ImportDevices { app: other, lines: vec![line] });
}

#[test]
fn quotas_change_one_by_one_and_go_back_to_the_default() {
    let mut bench = with_quotas(QuotaEdit { devices_max: Some(Some(0)), ..QuotaEdit::default() });
    assert_eq!(bench.code(enrol(1, 1)), "quota-exceeded");
    let edit = QuotaEdit { groups_max: Some(Some(5)), ..QuotaEdit::default() };
    bench.ok(Write::SetQuotas { app: APP, edit });
    let quotas = bench.writer.committed().app(APP).unwrap().row().quotas;
    let own = Quotas { devices_max: Some(0), groups_max: Some(5), ..Quotas::default() };
    assert_eq!(quotas, own);
    let seq = bench.writer.committed().seq();
    bench.ok(Write::SetQuotas { app: APP, edit });
    assert_eq!(bench.writer.committed().seq(), seq, "nothing changed");
    let edit = QuotaEdit { devices_max: Some(None), ..QuotaEdit::default() };
    bench.ok(Write::SetQuotas { app: APP, edit });
    bench.ok(enrol(1, 1));
}

/// What is refused rests on writes that may yet be lost, so a lost batch frees its room.
#[test]
fn room_that_a_lost_batch_took_is_there_again() {
    let mut bench = with_quotas(QuotaEdit { devices_max: Some(Some(1)), ..QuotaEdit::default() });
    let first = bench.write(enrol(1, 1));
    bench.batch().unwrap();
    let second = bench.write(enrol(2, 2));
    assert_eq!(bench.state(second), "waits", "the refusal rests on what is not durable");
    bench.refused();
    bench.settle();
    assert_eq!((bench.state(first), bench.state(second)), ("unavailable", "ok"));
}
