//! Who the device is: sessions, secrets, and being unknown.

use super::*;

#[test]
fn a_session_that_is_no_longer_good_is_renewed_with_the_secret() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    bench.respond(poll, &refusal(401, "session", None));
    let renewal = bench.send();
    assert_eq!(renewal.http.uri(), "/v1/devices/session");
    let secret = String::from(Secret::new([1; 32]));
    assert_eq!(body(&renewal), json!({"app": hex(1), "id": hex(0xd1), "secret": secret}));
    assert_eq!(header(&renewal, "authorization"), None);
    bench.ok(renewal.id, &json!({"session": "s2"}));
    let poll = bench.send();
    assert_eq!(header(&poll, "authorization"), Some("Bearer s2"));
    assert_eq!(header(&poll, "carillon-cursor"), Some("c0"), "the store is as it was");
}

#[test]
fn sessions_that_are_refused_again_and_again_are_not_renewed_in_a_hot_loop() {
    let mut bench = Bench::enrolled(1);
    for _ in 0..10 {
        let poll = bench.send_poll();
        bench.respond(poll, &refusal(401, "session", None));
        let renewal = bench.send();
        bench.ok(renewal.id, &json!({"session": "s2"}));
    }
    assert!(bench.now > 60_000, "{}", bench.now);
}

#[test]
fn a_device_that_is_unknown_drops_everything_and_enrols_with_another_secret() {
    for at_session in [false, true] {
        let mut bench = Bench::enrolled(1);
        let poll = bench.send_poll();
        bench.ok(poll, &news(Some("c0"), &[message(1, 11)], &[], "c1"));
        let mut request = bench.send();
        let write = bench.patch();
        if at_session {
            bench.respond(request.id, &refusal(401, "session", None));
            request = bench.send();
        }
        bench.events();
        bench.respond(request.id, &refusal(401, "unknown", None));
        assert_eq!((bench.held(), bench.cursor()), (vec![], None));
        let events = bench.events();
        let [
            Event::Written { write: w, result: Err(WriteError::DeviceGone) },
            Event::Unknown { device, .. },
        ] = events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!((w, device), (write, DeviceId::new(0xd1)));
        let enrol = bench.send();
        assert_eq!(enrol.id.operation(), Operation::Enrol);
        assert_eq!(body(&enrol)["secret"], String::from(Secret::new([2; 32])));
    }
}

#[test]
fn answers_to_who_the_device_was_before_are_not_taken() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    bench.respond(poll, &refusal(401, "unknown", None));
    let enrol = bench.send();
    bench.respond(
        enrol.id,
        &answer(200, &json!({"id": hex(2), "app": hex(1), "session": "s2", "cursor": null})),
    );
    bench.ok(poll, &news(None, &[message(1, 11)], &[], "c1"));
    bench.enrol(enrol.id, "d3", "s3");
    assert_eq!((bench.held(), bench.cursor()), (vec![], None));
    let registered =
        bench.device.saved().identity.as_ref().and_then(|identity| identity.registered);
    assert_eq!(registered, Some((AppId::new(1), DeviceId::new(2))));
}

fn imported() -> Saved {
    let registered = Some((AppId::new(1), DeviceId::new(0xd1)));
    let identity = Identity { secret: Secret::new([9; 32]), registered, session: None };
    Saved { identity: Some(identity), ..Saved::default() }
}

#[test]
fn an_imported_device_asks_for_a_session_first() {
    let mut bench = Bench::with(DeviceConfig::default(), imported());
    let request = bench.send();
    assert_eq!(request.http.uri(), "/v1/devices/session");
    bench.ok(request.id, &json!({"session": "s1"}));
    let poll = bench.send();
    assert_eq!((poll.id.operation(), header(&poll, "carillon-cursor")), (Operation::Poll, None));
}

#[test]
fn a_secret_that_is_refused_is_shown_again_rarely() {
    let mut bench = Bench::with(DeviceConfig::default(), imported());
    let request = bench.send();
    bench.respond(request.id, &refusal(401, "session", None));
    assert!(matches!(bench.events()[..], [Event::Refused { operation: Operation::Session, .. }]));
    assert_eq!(bench.send().id.operation(), Operation::Session);
    assert!(bench.now >= 60_000);
}

#[test]
fn a_device_without_a_key_ends_when_it_is_unknown() {
    let mut bench = Bench::with(DeviceConfig::default(), imported());
    let request = bench.send();
    bench.respond(request.id, &refusal(401, "unknown", None));
    assert!(matches!(bench.device.poll_request(bench.now), Next::Done));
    assert_eq!(bench.device.standing(), Standing::Done);
}
