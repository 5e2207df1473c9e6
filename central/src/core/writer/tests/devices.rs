//! Devices, as admins and as they themselves change them.

use super::*;

#[test]
fn p_moves_only_when_matching_can_tell() {
    let mut bench = Bench::with_app();
    bench.ok(enrol(1, 1));
    let p = bench.device(1).unwrap().p;
    let tokens = vec![carillon_world::PushToken {
        channel: carillon_world::PushChannel::Fcm,
        token: "t".into(),
    }];
    let edit = ProfileEdit { tokens: Some(tokens), ..ProfileEdit::default() };
    bench.ok(Write::PatchDevice { app: APP, device: DeviceId::new(1), edit });
    bench.ok(Write::RevokeDevice { app: APP, device: DeviceId::new(1) });
    assert_eq!(bench.device(1).unwrap().p, p);
    let edit = ProfileEdit { user: Some(Some("u".into())), ..ProfileEdit::default() };
    bench.ok(Write::PatchDevice { app: APP, device: DeviceId::new(1), edit });
    assert_eq!(bench.device(1).unwrap().p, bench.writer.committed().seq());
}

#[test]
fn an_enrolment_is_found_again_by_its_secret_also_while_it_is_pending() {
    let mut bench = Bench::with_app();
    let first = bench.write(enrol(1, 9));
    bench.batch().unwrap();
    let again = bench.write(enrol(2, 9));
    bench.committed();
    bench.settle();
    let Ok(Reply::Enrolled { device, created, generation, .. }) = bench.answers[&first].result
    else {
        panic!()
    };
    assert_eq!((device, created), (DeviceId::new(1), true));
    let Ok(Reply::Enrolled { device: same, created, .. }) = bench.answers[&again].result else {
        panic!()
    };
    assert_eq!((same, created), (device, false));

    let session = |secret| Write::Session {
        app: APP,
        device: DeviceId::new(1),
        secret: SecretHash([secret; 32]),
    };
    let Reply::Session { generation: given } = bench.ok(session(9)) else { panic!() };
    assert_eq!(given, generation);
    assert_eq!(bench.code(session(8)), "session");
    let unknown =
        Write::Session { app: APP, device: DeviceId::new(5), secret: SecretHash([9; 32]) };
    assert_eq!(bench.code(unknown), "unknown");

    // The secret is free again when its device is gone; the other apps never saw it.
    let generation = bench.device(1).unwrap().generation;
    bench.ok(Write::Forget { app: APP, device: DeviceId::new(1), generation });
    let Reply::Enrolled { device, created, .. } = bench.ok(enrol(3, 9)) else { panic!() };
    assert_eq!((device, created), (DeviceId::new(3), true));
    bench.app(AppId::new(0xb), "pk_other");
    let other = Write::Enrol {
        publishable_key: "pk_other".into(),
        device: DeviceId::new(4),
        secret: SecretHash([9; 32]),
        profile: ProfileEdit::default(),
    };
    let Reply::Enrolled { device, created, .. } = bench.ok(other) else { panic!() };
    assert_eq!((device, created), (DeviceId::new(4), true));
    assert_eq!(
        bench.code(Write::Enrol {
            publishable_key: "pk_none".into(),
            device: DeviceId::new(5),
            secret: SecretHash([1; 32]),
            profile: ProfileEdit::default(),
        }),
        "unknown-app"
    );
}

#[test]
fn a_refused_enrolment_leaves_no_trace() {
    let mut bench = Bench::with_app();
    bench.write(enrol(1, 9));
    bench.batch().unwrap();
    bench.refused();
    let Reply::Enrolled { device, created, .. } = bench.ok(enrol(2, 9)) else { panic!() };
    assert_eq!((device, created), (DeviceId::new(2), true));
}

#[test]
fn revocation_ends_the_generation() {
    let mut bench = Bench::with_app();
    bench.ok(enrol(1, 9));
    let old = bench.device(1).unwrap().generation;
    bench.ok(Write::RevokeDevice { app: APP, device: DeviceId::new(1) });
    let new = bench.device(1).unwrap().generation;
    assert!(new > old);
    let patch = |generation| Write::PatchSelf {
        app: APP,
        device: DeviceId::new(1),
        generation,
        edit: ProfileEdit::default(),
    };
    assert_eq!(bench.code(patch(old)), "session");
    bench.ok(patch(new));
}

#[test]
fn a_device_sets_only_what_the_app_lets_it_set() {
    let mut bench = Bench::with_app();
    bench.ok(enrol(1, 9));
    let generation = bench.device(1).unwrap().generation;
    let patch = |patch: ProfilePatch| Write::PatchSelf {
        app: APP,
        device: DeviceId::new(1),
        generation,
        edit: ProfileEdit::from_patch(patch).unwrap(),
    };
    let attribute = |name: &str, json: &str| {
        patch(ProfilePatch {
            attributes: vec![(name.into(), Some(json.into()))],
            ..ProfilePatch::default()
        })
    };
    bench.ok(attribute("country", "\"KE\""));
    assert_eq!(bench.device(1).unwrap().attributes.len(), 1);
    assert_eq!(bench.code(attribute("plan", "\"x\"")), "not-allowed");
    assert_eq!(bench.code(attribute("country", "1")), "wrong-type");
    assert_eq!(bench.code(attribute("colour", "1")), "unknown-attribute");
    let join = ProfilePatch { groups: vec![("vip".into(), true)], ..ProfilePatch::default() };
    assert_eq!(bench.code(patch(join)), "not-allowed");
    bench.ok(attribute("country", "null"));
    assert!(bench.device(1).unwrap().attributes.is_empty());
}

#[test]
fn bad_import_lines_leave_the_good_ones_alone() {
    let mut bench = Bench::with_app();
    bench.ok(enrol(9, 9));
    let mut lines: Vec<ImportLine> = (1..=5).map(|n| line(n, n, "KE")).collect();
    lines[1].attributes[0].0 = "colour".into();
    lines[2].attributes[0].1 = Given::Bool(true);
    lines[3].secret = Some(SecretHash([9; 32]));
    let Reply::Imported(report) = bench.ok(import(lines)) else { panic!() };
    let bad: Vec<_> = report.bad.iter().map(|bad| (bad.line, bad.code.as_str())).collect();
    assert_eq!(bad, [(2, "unknown-attribute"), (3, "wrong-type"), (4, "secret-taken")]);
    assert_eq!(report.created, 2);
    assert!(bench.device(5).is_some() && bench.device(2).is_none());
}

#[test]
fn an_import_line_with_another_secret_ends_the_generation() {
    let mut bench = Bench::with_app();
    let secret = |n| ImportLine { secret: Some(SecretHash([n; 32])), ..line(1, 1, "KE") };
    bench.ok(import(vec![secret(1)]));
    let first = bench.device(1).unwrap().generation;
    bench.ok(import(vec![line(1, 1, "SE")]));
    assert_eq!(bench.device(1).unwrap().generation, first, "a line without a secret leaves it");
    bench.ok(import(vec![secret(2)]));
    assert!(bench.device(1).unwrap().generation > first);
    let Reply::Enrolled { device, created, .. } = bench.ok(enrol(2, 2)) else { panic!() };
    assert_eq!((device, created), (DeviceId::new(1), false));
    let Reply::Enrolled { created, .. } = bench.ok(enrol(3, 1)) else { panic!() };
    assert!(created, "the former secret is nobody's");
}

#[test]
fn what_messages_refer_to_or_devices_have_is_not_deleted() {
    let mut bench = Bench::with_app();
    bench.ok(import(vec![line(1, 1, "KE")]));
    let members = |join| Write::Members {
        app: APP,
        group: GroupRef::Id(VIP),
        join,
        devices: vec![DeviceId::new(1)],
    };
    bench.ok(members(true));
    let delete_group = Write::DeleteGroup { app: APP, group: GroupRef::Id(VIP) };
    let delete_attribute = Write::DeleteAttribute { app: APP, name: "country".into() };
    assert_eq!(bench.code(delete_group.clone()), "in-use");
    assert_eq!(bench.code(delete_attribute.clone()), "in-use");
    bench.ok(create(CreateMessage { to: "#vip and country == \"KE\"".into(), ..message(7) }));
    bench.ok(members(false));
    let problem = bench.done(delete_group).result.unwrap_err();
    assert_eq!(problem.code, "referenced");
    assert!(problem.extra.unwrap().contains("0000000000000007"));
    assert_eq!(bench.code(delete_attribute), "referenced");
    let retype = Write::DeclareAttribute {
        app: APP,
        id: AttributeId::new(77),
        name: "country".into(),
        kind: Type::Number,
        set_by: SetBy::Both,
    };
    assert_eq!(bench.code(retype), "referenced");
    bench.ok(Write::DeleteAttribute { app: APP, name: "plan".into() });
}
