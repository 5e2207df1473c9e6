//! Devices one by one: read, patch, forget, revoke.

use bytes::Bytes;
use carillon_client::HttpTransport;
use carillon_tests::admin::text;
use http::Request;
use serde_json::{Value, json};

use crate::bench::{App, Bench, Call, PATIENCE, holds};
use crate::import::id;

const GET: &str = "GET /v1/apps/{app}/devices/{device}";
const PATCH: &str = "PATCH /v1/apps/{app}/devices/{device}";
const DELETE: &str = "DELETE /v1/apps/{app}/devices/{device}";
const REVOKE: &str = "POST /v1/apps/{app}/devices/{device}/revoke";

pub(crate) async fn check(bench: &mut Bench) {
    let app = app(bench).await;
    good_patches(bench, &app).await;
    values_of_every_type(bench, &app).await;
    bad_patches(bench, &app).await;
    other_apps(bench, &app).await;
    sessions(bench).await;
    a_patch_reaches_the_device(bench).await;
}

async fn app(bench: &mut Bench) -> App {
    let app = bench.app().await;
    for (name, kind) in [("s", "string"), ("n", "number"), ("b", "bool"), ("v", "version")] {
        bench.attribute(&app, name, kind, "both").await;
    }
    for (name, kind) in [("day", "date"), ("at", "time"), ("place", "point"), ("tags", "set")] {
        bench.attribute(&app, name, kind, "both").await;
    }
    bench.attribute(&app, "own", "string", "device").await;
    bench.group(&app, "vip", "server").await;
    bench.group(&app, "self", "device").await;
    bench.import(&app, &[json!({"id": id(1)}), json!({"id": id(2)})]).await;
    app
}

async fn good_patches(bench: &mut Bench, app: &App) {
    let patch = |body: Value| Call::to(PATCH, &[&app.id, &id(1)]).json(body);
    let created = bench.read(Call::to(GET, &[&app.id, &id(1)])).await.json();
    let seq_of = |device: &Value| device["profile_changed_seq"].as_u64().expect("a seq");
    let body = json!({"user": "ann", "attributes": {"s": "é\u{0}\n", "n": -0.5, "b": true, "v": "v2.3"},
                      "groups": {"vip": true}, "tokens": [{"channel": "fcm", "token": "t"}]});
    let answer = bench.written(patch(body.clone())).await;
    let device = answer.json();
    assert_eq!(
        device,
        json!({"id": id(1), "user": "ann", "groups": ["vip"], "tokens": 1, "last_seen": null,
               "attributes": {"s": "é\u{0}\n", "n": -0.5, "b": true, "v": "2.3"},
               "created_at": created["created_at"], "profile_changed_seq": seq_of(&device)})
    );
    assert_eq!(seq_of(&device), crate::bench::seq(&answer), "its profile changed there");
    assert_eq!(bench.read(Call::to(GET, &[&app.id, &id(1)])).await.json(), device);
    // A repeat changes nothing, and neither does nothing, nor another way to write the same.
    for same in [
        body,
        json!({}),
        json!({"attributes": {"v": "2.3.0", "n": -5e-1}}),
        json!({"groups": {"self2": false}}),
    ] {
        if same["groups"]["self2"].is_boolean() {
            bench.refused(patch(same), 422, "unknown-group").await;
        } else {
            assert_eq!(bench.unchanged(patch(same)).await.json(), device);
        }
    }
    // Tokens concern no message, so the profile did not change.
    let tokens = bench.written(patch(json!({"tokens": []}))).await.json();
    assert_eq!((&tokens["tokens"], seq_of(&tokens)), (&json!(0), seq_of(&device)));
    let null = json!({"user": null, "attributes": {"s": null, "b": null, "v": null}, "groups": {"vip": false}});
    let less = bench.written(patch(null)).await.json();
    assert_eq!(
        (&less["user"], &less["attributes"], &less["groups"]),
        (&Value::Null, &json!({"n": -0.5}), &json!([]))
    );
    // Groups may be named by id, as in an import.
    let group = Call::to("GET /v1/apps/{app}/groups/{group}", &[&app.id, "name:vip"]);
    let group = bench.read(group).await.json();
    let joined = bench.written(patch(json!({"groups": {text(&group, "id"): true}}))).await.json();
    assert_eq!(joined["groups"], json!(["vip"]));
    let longest = json!({"user": "u".repeat(256), "attributes": {"s": "x".repeat(1_024)}});
    bench.written(patch(longest)).await;
}

/// What is answered can be sent as it is, and messages find it.
async fn values_of_every_type(bench: &mut Bench, app: &App) {
    let patch = |body: Value| Call::to(PATCH, &[&app.id, &id(2)]).json(json!({"attributes": body}));
    let given = json!({"day": "2026-11-21", "at": "2026-11-21T08:30+01:00", "tags": ["b", "a", "b", "\u{0}é"],
                       "place": {"lon": 13.0038, "lat": 55.605}});
    let device = bench.written(patch(given)).await.json();
    let held = json!({"day": "2026-11-21", "at": "2026-11-21T07:30:00Z", "tags": ["\u{0}é", "a", "b"],
                      "place": {"lat": 55.605, "lon": 13.0038}});
    assert_eq!(device["attributes"], held);
    assert_eq!(bench.unchanged(patch(held)).await.json(), device, "what came out goes in");
    let preview = |to: &str| {
        let call = Call::to("POST /v1/apps/{app}/audience:preview", &[&app.id]);
        call.json(json!({"to": to}))
    };
    for to in [
        "day == 2026-11-21",
        "at between 2026-11-21T07:30:00Z and 2026-11-21T07:30:00Z",
        "tags all (\"a\", \"b\") and tags none (\"c\")",
        "near(place, 55.6, 13, 5km)",
    ] {
        let found = bench.read(preview(to)).await.json();
        assert_eq!((&found["count"], &found["sample"]), (&json!(1), &json!([id(2)])), "{to}");
    }
    // An empty set is a value; whatever is numeric is a place if it is on the Earth.
    for good in [
        json!({"tags": []}),
        json!({"tags": (0..256).map(|n| n.to_string()).collect::<Vec<_>>()}),
        json!({"tags": ["x".repeat(256)]}),
        json!({"place": {"lat": -90, "lon": 180}}),
    ] {
        bench.written(patch(good)).await;
    }
    for (code, bad) in [
        ("invalid", json!({"tags": (0..257).map(|n| n.to_string()).collect::<Vec<_>>()})),
        ("invalid", json!({"tags": ["x".repeat(257)]})),
        ("invalid", json!({"place": {"lat": 90.1, "lon": 0}})),
        ("invalid", json!({"place": {"lat": 0, "lon": -180.1}})),
        ("wrong-type", json!({"tags": "a"})),
        ("wrong-type", json!({"tags": {"lat": 1, "lon": 2}})),
        ("wrong-type", json!({"place": ["55.6", "13"]})),
        ("wrong-type", json!({"place": "55.6, 13"})),
        ("wrong-type", json!({"s": ["a"]})),
        ("wrong-type", json!({"day": "2026-02-29"})),
        ("wrong-type", json!({"day": "2026-11-21T00:00:00Z"})),
        ("wrong-type", json!({"at": "2026-11-21"})),
    ] {
        bench.refused(patch(bad), 422, code).await;
    }
    for bad in [
        json!({"tags": ["a", 1]}),
        json!({"tags": [["a"]]}),
        json!({"place": [55.6, 13]}),
        json!({"place": {"lat": 55.6}}),
        json!({"place": {"lat": 55.6, "lon": 13, "alt": 3}}),
        json!({"place": {"lat": "55.6", "lon": 13}}),
    ] {
        bench.refused(patch(bad), 400, "bad-request").await;
    }
    // Four sets of 64 KiB are all that a device may have.
    let many: Vec<String> = (0..256).map(|n| format!("{n:0>252}")).collect();
    for name in ["t1", "t2", "t3", "t4"] {
        bench.attribute(app, name, "set", "server").await;
    }
    let three = json!({"tags": null, "t1": many, "t2": many, "t3": many});
    bench.written(patch(three)).await;
    bench.refused(patch(json!({"tags": ["a"], "t4": many})), 422, "limit").await;
    let none = json!({"t1": null, "t2": null, "t3": null, "place": null, "day": null, "at": null});
    bench.written(patch(none)).await;
}

async fn bad_patches(bench: &mut Bench, app: &App) {
    let patch = |body: Value| Call::to(PATCH, &[&app.id, &id(1)]).json(body);
    let token = |n: usize| vec![json!({"channel": "fcm", "token": "t"}); n];
    let bad = [
        (422, "unknown-attribute", json!({"attributes": {"nothing": 1}})),
        (422, "unknown-attribute", json!({"attributes": {"S": "a"}})),
        (422, "unknown-attribute", json!({"attributes": {"nothing": null}})),
        (422, "unknown-attribute", json!({"attributes": {"": 1}})),
        (422, "wrong-type", json!({"attributes": {"s": 1}})),
        (422, "wrong-type", json!({"attributes": {"s": true}})),
        (422, "wrong-type", json!({"attributes": {"n": "1"}})),
        (422, "wrong-type", json!({"attributes": {"b": "true"}})),
        (422, "wrong-type", json!({"attributes": {"v": 2.3}})),
        (422, "wrong-type", json!({"attributes": {"v": ""}})),
        (422, "wrong-type", json!({"attributes": {"v": "2."}})),
        (422, "wrong-type", json!({"attributes": {"v": "4294967296"}})),
        (422, "wrong-type", json!({"attributes": {"v": "1.2.3.4.5.6.7.8.9"}})),
        (422, "invalid", json!({"attributes": {"s": "x".repeat(1_025)}})),
        (403, "not-allowed", json!({"attributes": {"own": "a"}})),
        (403, "not-allowed", json!({"attributes": {"own": null}})),
        (422, "unknown-group", json!({"groups": {"nothing": true}})),
        (422, "unknown-group", json!({"groups": {"VIP": false}})),
        (403, "not-allowed", json!({"groups": {"self": true}})),
        (422, "invalid", json!({"user": ""})),
        (422, "invalid", json!({"user": "u".repeat(257)})),
        (422, "invalid", json!({"tokens": token(11)})),
        (422, "invalid", json!({"tokens": [{"channel": "fcm", "token": ""}]})),
        (422, "invalid", json!({"tokens": [{"channel": "fcm", "token": "t".repeat(4_097)}]})),
        (400, "bad-request", json!({"tokens": [{"channel": "pigeon", "token": "t"}]})),
        (400, "bad-request", json!({"tokens": [{"channel": "fcm"}]})),
        (400, "bad-request", json!({"tokens": null})),
        (400, "bad-request", json!({"attributes": null})),
        (422, "wrong-type", json!({"attributes": {"s": ["a"]}})),
        (400, "bad-request", json!({"attributes": {"s": {"a": 1}}})),
        (400, "bad-request", json!({"groups": {"vip": 1}})),
        (400, "bad-request", json!({"groups": {"vip": null}})),
    ];
    for (status, code, body) in bad {
        // A good half does not go through beside a bad one.
        let mut beside = body.clone();
        for (name, good) in [("user", json!("bob")), ("attributes", json!({"b": false}))] {
            if beside.get(name).is_none() {
                beside[name] = good;
            }
        }
        bench.refused(patch(body), status, code).await;
        bench.refused(patch(beside), status, code).await;
    }
    for twice in [
        r#"{"attributes":{"s":"a","s":"a"}}"#,
        r#"{"groups":{"vip":true,"vip":false}}"#,
        r#"{"attributes":{"n":1e999}}"#,
        r#"{"attributes":{"s":"\udc00"}}"#,
    ] {
        bench.refused(Call::to(PATCH, &[&app.id, &id(1)]).text(twice), 400, "bad-request").await;
    }
    let forgotten = bench.written(Call::to(DELETE, &[&app.id, &id(2)])).await;
    assert_eq!((forgotten.status, forgotten.body.len()), (204, 0));
    for operation in [GET, DELETE, REVOKE] {
        bench.refused(Call::to(operation, &[&app.id, &id(2)]), 404, "not-found").await;
    }
    bench.refused(Call::to(PATCH, &[&app.id, &id(2)]).json(json!({})), 404, "not-found").await;
}

/// No app sees another: an id of one is nothing in the other.
async fn other_apps(bench: &mut Bench, app: &App) {
    let other = bench.app().await;
    for operation in [GET, DELETE, REVOKE] {
        bench.refused(Call::to(operation, &[&other.id, &id(1)]), 404, "not-found").await;
    }
    bench.refused(Call::to(PATCH, &[&other.id, &id(1)]).json(json!({})), 404, "not-found").await;
    let group = Call::to("GET /v1/apps/{app}/groups/{group}", &[&app.id, "name:vip"]);
    let group = bench.read(group).await.json();
    let group = Call::to("GET /v1/apps/{app}/groups/{group}", &[&other.id, text(&group, "id")]);
    bench.refused(group, 404, "not-found").await;
    let message = bench.message(app, json!({"to": "all", "body": 1})).await;
    for operation in
        ["GET /v1/apps/{app}/messages/{message}", "POST /v1/apps/{app}/messages/{message}:recall"]
    {
        bench.refused(Call::to(operation, &[&other.id, &message]), 404, "not-found").await;
    }
}

/// A revoked session ends at the edge, and the device gets another with its secret; a forgotten device is unknown.
async fn sessions(bench: &mut Bench) {
    let app = bench.app().await;
    let mut edge = HttpTransport::new(
        bench.cluster.edge(0).url().parse().expect("an URL"),
        Some(bench.cluster.tls()),
    );
    let secret = "A".repeat(43);
    let enrol = json!({"key": app.key, "secret": secret});
    let (status, enrolled) = ask(&mut edge, "POST", "/v1/devices", "", &enrol).await;
    assert_eq!(status, 201, "{enrolled}");
    let (device, session) = (text(&enrolled, "id"), text(&enrolled, "session"));
    until(&mut edge, session, 200, "").await;
    bench.reported(&app, device).await;
    let before = bench.read(Call::to(GET, &[&app.id, device])).await.json();
    let revoked = bench.written(Call::to(REVOKE, &[&app.id, device])).await.json();
    assert_eq!(revoked, before, "a revocation is no change of the profile");
    until(&mut edge, session, 401, "session").await;
    let show = json!({"app": app.id, "id": device, "secret": secret});
    let (status, again) = ask(&mut edge, "POST", "/v1/devices/session", "", &show).await;
    assert_eq!(status, 200, "{again}");
    let session = text(&again, "session");
    until(&mut edge, session, 200, "").await;
    bench.written(Call::to(DELETE, &[&app.id, device])).await;
    until(&mut edge, session, 401, "unknown").await;
    let (status, unknown) = ask(&mut edge, "POST", "/v1/devices/session", "", &show).await;
    assert_eq!((status, text(&unknown, "code")), (401, "unknown"));
}

async fn ask(
    edge: &mut HttpTransport,
    method: &str,
    path: &str,
    session: &str,
    body: &Value,
) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = Request::builder().method(method).uri(path);
    let request = request.header("authorization", format!("Bearer {session}"));
    let request = request.body(Bytes::from(body)).expect("a request");
    let answer = edge.request(request, PATIENCE).await.expect("an answer");
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or(Value::Null))
}

/// Polls until the edge answers so, which it does once it has applied what was written.
async fn until(edge: &mut HttpTransport, session: &str, status: u16, code: &str) {
    let began = std::time::Instant::now();
    loop {
        let (found, answer) = ask(edge, "GET", "/v1/messages?wait=0", session, &Value::Null).await;
        if found == status {
            assert_eq!(answer["code"].as_str().unwrap_or_default(), code);
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{found} {answer}");
    }
}

async fn a_patch_reaches_the_device(bench: &mut Bench) {
    let app = bench.app().await;
    bench.attribute(&app, "country", "string", "both").await;
    let kenya = bench.message(&app, json!({"to": "country == \"KE\"", "body": 1})).await;
    let rest = bench.message(&app, json!({"to": "not has country", "body": 2})).await;
    let mut phone = bench.phone(&app).build().expect("a client");
    holds(&mut phone, &[&rest]).await;
    let (_, device) = phone.status().registered.expect("it polled");
    bench.reported(&app, &device.to_string()).await;
    let patch = Call::to(PATCH, &[&app.id, &device.to_string()]);
    bench.written(patch.json(json!({"attributes": {"country": "KE"}}))).await;
    holds(&mut phone, &[&kenya]).await;
}
