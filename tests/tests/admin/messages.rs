//! Messages: create, read, edit, recall, and what is refused of each.

use carillon_tests::admin::text;
use serde_json::{Value, json};

use crate::bench::{App, Bench, Call, holds, shows};

pub(crate) const CREATE: &str = "POST /v1/apps/{app}/messages";
pub(crate) const GET: &str = "GET /v1/apps/{app}/messages/{message}";
pub(crate) const EDIT: &str = "PATCH /v1/apps/{app}/messages/{message}";
pub(crate) const RECALL: &str = "POST /v1/apps/{app}/messages/{message}:recall";
pub(crate) const LIST: &str = "GET /v1/apps/{app}/messages";
const BODY_BYTES_MAX: usize = 64 * 1024;

pub(crate) async fn check(bench: &mut Bench) {
    let app = bench.app().await;
    bench.attribute(&app, "country", "string", "both").await;
    bench.attribute(&app, "age", "number", "both").await;
    bench.attribute(&app, "app_version", "version", "both").await;
    bench.group(&app, "vip", "server").await;
    created(bench, &app).await;
    bad_contents(bench, &app).await;
    bad_expressions(bench, &app).await;
    edited(bench, &app).await;
    recalled(bench, &app).await;
    bodies_reach_devices(bench).await;
}

async fn created(bench: &mut Bench, app: &App) {
    let new = json!({"to": "country in ('KE','SE') and not  #vip", "body": {"text": "é"}, "priority": "high",
                     "collapse_key": "k"});
    let answer = bench.written(Call::to(CREATE, &[&app.id]).json(new)).await;
    assert_eq!(answer.status, 201);
    let made = answer.json();
    let id = text(&made, "id");
    let position = answer.header("carillon-position").to_owned();
    let at = &made["position"];
    assert_eq!(format!("{}/{}/{}", at["shard"], at["epoch"], at["seq"]), position);
    let mut expected = json!({
        "id": id, "revision": 1, "state": "active", "to": "country in (\"KE\", \"SE\") and not #vip",
        "body": {"text": "é"}, "priority": "high", "collapse_key": "k", "not_before": null,
        "created_at": made["created_at"], "expires_at": made["expires_at"], "push": null, "push_state": "none", "position": at,
    });
    assert_eq!(made, expected);
    // 30 days, the same time of day.
    let (created, expires) = (text(&made, "created_at"), text(&made, "expires_at"));
    assert_eq!(&created[10..], &expires[10..], "{made}");
    expected.as_object_mut().expect("an object").remove("position");
    assert_eq!(bench.read(Call::to(GET, &[&app.id, id])).await.json(), expected);
    let listed = bench.read(Call::to(LIST, &[&app.id])).await.json();
    assert_eq!(listed, json!({"messages": [expected], "next": null}));
    let plain =
        bench.written(Call::to(CREATE, &[&app.id]).json(json!({"to": "all", "body": null}))).await;
    let plain = plain.json();
    assert_eq!(
        (text(&plain, "priority"), &plain["body"], &plain["collapse_key"]),
        ("normal", &Value::Null, &Value::Null)
    );
    // Which content type a caller names does not matter: curl names that of a form.
    for kind in ["application/x-www-form-urlencoded", "text/plain", "nonsense"] {
        let call = Call::to(CREATE, &[&app.id]).header("content-type", kind);
        bench.written(call.clone().json(json!({"to": "all", "body": kind}))).await;
        bench.refused(call.text("to=all"), 400, "bad-request").await;
    }
}

async fn bad_contents(bench: &mut Bench, app: &App) {
    let create = |body: Value| Call::to(CREATE, &[&app.id]).json(body);
    let large = "x".repeat(BODY_BYTES_MAX - 2);
    bench.written(create(json!({"to": "all", "body": large}))).await;
    let id = bench.message(app, json!({"to": "all", "body": 1})).await;
    let edit = |body: Value| Call::to(EDIT, &[&app.id, &id]).json(body);
    let too_large = json!({"to": "all", "body": format!("{large}x")});
    bench.refused(create(too_large.clone()), 413, "too-large").await;
    bench.refused(edit(too_large), 413, "too-large").await;
    for key in ["", &"k".repeat(65)] {
        bench
            .refused(create(json!({"to": "all", "body": 1, "collapse_key": key})), 422, "invalid")
            .await;
    }
    for priority in [json!("High"), json!("urgent"), json!(""), json!(null), json!(1)] {
        let body = json!({"to": "all", "body": 1, "priority": priority});
        bench.refused(create(body), 400, "bad-request").await;
    }
    // Bodies that no device could read: they would stop everything that comes after them.
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for body in [r#""\ud800""#, r#"{"a":"\udc00\ud800"}"#, "1e999", "[-1e400]", &deep] {
        for call in [Call::to(CREATE, &[&app.id]), Call::to(EDIT, &[&app.id, &id])] {
            let call = call.text(format!("{{\"to\": \"all\", \"body\": {body}}}"));
            bench.refused(call, 422, "invalid").await;
        }
    }
    for body in ["\"\u{1}\"", "01", "[1,]", "'a'", "NaN", "\"\\x\""] {
        let call =
            Call::to(CREATE, &[&app.id]).text(format!("{{\"to\": \"all\", \"body\": {body}}}"));
        bench.refused(call, 400, "bad-request").await;
    }
    bench
        .refused(
            Call::to("POST /v1/apps/{app}/messages/{message}:recall", &[&app.id, "x"]),
            404,
            "not-found",
        )
        .await;
    for action in ["", ":", ":unrecall", ":recall:recall", ":RECALL"] {
        let before = bench.state().await;
        let path = format!("/v1/apps/{}/messages/{id}{action}", app.id);
        let answer = bench.admin.call("POST", &path, Value::Null).await;
        let (status, code) = match action {
            "" => (405, "method-not-allowed"),
            _ => (404, "not-found"),
        };
        bench.problem(RECALL, &answer, status, code);
        bench.unmoved(before, &path).await;
    }
}

async fn bad_expressions(bench: &mut Bench, app: &App) {
    let id = bench.message(app, json!({"to": "all", "body": 1})).await;
    let list = (0..20_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let cases = [
        ("contry == \"KE\"", 1, 1),
        ("country == \"KE\"\n  and #vap", 2, 7),
        ("country == 7", 1, 12),
        ("age == \"7\"", 1, 8),
        ("app_version >= 2.3", 1, 16),
        ("has country and", 1, 16),
        ("", 1, 1),
        ("  \n ", 2, 2),
        ("all all", 1, 5),
        ("(all", 1, 1),
        ("all)", 1, 4),
        ("country = \"KE\"", 1, 9),
        ("country == \"KE", 1, 12),
        ("é == 1", 1, 1),
        ("all\u{0}", 1, 4),
    ];
    for (to, line, column) in cases {
        for call in [
            Call::to(CREATE, &[&app.id]).json(json!({"to": to, "body": 1})),
            Call::to(EDIT, &[&app.id, &id]).json(json!({"to": to})),
            Call::to("POST /v1/apps/{app}/audience:preview", &[&app.id]).json(json!({"to": to})),
        ] {
            let problem = bench.refused(call, 422, "bad-expression").await;
            let error = &problem["errors"][0];
            assert_eq!(
                (&error["line"], &error["column"]),
                (&json!(line), &json!(column)),
                "{to:?}: {error}"
            );
            for name in ["kind", "message", "rendered"] {
                assert!(!text(error, name).is_empty(), "{to:?}: {error}");
            }
            let (start, end) = (&error["span"]["start"], &error["span"]["end"]);
            let span = start.as_u64().zip(end.as_u64()).expect("a span");
            assert!(span.0 <= span.1 && span.1 <= to.len() as u64, "{to:?}: {error}");
            assert!(text(error, "rendered").contains('^'), "{to:?}: a caret in {error}");
        }
    }
    for (to, suggestion) in [("contry == \"KE\"", "country"), ("#vap", "vip")] {
        let call = Call::to(CREATE, &[&app.id]).json(json!({"to": to, "body": 1}));
        let problem = bench.refused(call, 422, "bad-expression").await;
        assert!(text(&problem["errors"][0], "suggestion").contains(suggestion), "{problem}");
    }
    for to in [
        format!("age in ({list})"),
        format!("{}all{}", "(".repeat(300), ")".repeat(300)),
        format!("all {}", " ".repeat(65 * 1024)),
        "not ".repeat(300) + "all",
    ] {
        let call = Call::to(CREATE, &[&app.id]).json(json!({"to": to, "body": 1}));
        bench.refused(call, 422, "bad-expression").await;
    }
    // Editors count in UTF-16, where an emoji is two and an accented letter one.
    let call = Call::to(CREATE, &[&app.id]).json(json!({"to": "/* é😀 */ nobody", "body": 1}));
    let problem = bench.refused(call, 422, "bad-expression").await;
    let error = &problem["errors"][0];
    assert_eq!(error["span"], json!({"start": 13, "end": 19}), "{error}");
    assert_eq!(error["span_utf16"], json!({"start": 10, "end": 16}), "{error}");
}

async fn edited(bench: &mut Bench, app: &App) {
    let id = bench.message(app, json!({"to": "all", "body": 1})).await;
    let edit = |body: Value| Call::to(EDIT, &[&app.id, &id]).json(body);
    let first = bench.read(Call::to(GET, &[&app.id, &id])).await.json();
    // Nothing, and the same again, is no revision.
    for same in [json!({}), json!({"to": " all ", "body": 1, "priority": "normal"})] {
        let mut answer = bench.unchanged(edit(same)).await.json();
        answer.as_object_mut().expect("an object").remove("position");
        assert_eq!(answer, first);
    }
    let edits = [
        ("to", json!("has age")),
        ("body", json!(null)),
        ("body", json!([{"deep": [1.0, "é"]}])),
        ("priority", json!("low")),
        ("expires_at", json!("2099-12-31T23:59:59.999Z")),
        ("not_before", json!("2020-01-01T00:00:00.000Z")),
        ("not_before", json!(null)),
    ];
    let mut expected = first.clone();
    for (revision, (name, value)) in (2..).zip(edits) {
        let mut body = json!({});
        body[name] = value.clone();
        let answer = bench.written(edit(body)).await.json();
        expected[name] = value;
        expected["revision"] = json!(revision);
        expected["position"] = answer["position"].clone();
        assert_eq!(answer, expected);
    }
    expected.as_object_mut().expect("an object").remove("position");
    assert_eq!(bench.read(Call::to(GET, &[&app.id, &id])).await.json(), expected);

    let matching = |tag: &str| edit(json!({"body": tag})).header("if-match", tag);
    for (tag, status, code) in [
        ("\"7\"", 412, "revision-mismatch"),
        ("\"9\"", 412, "revision-mismatch"),
        ("\"0\"", 412, "revision-mismatch"),
        ("8", 400, "bad-request"),
        ("W/\"8\"", 400, "bad-request"),
        ("\"8\", \"9\"", 400, "bad-request"),
        ("\"x\"", 400, "bad-request"),
        ("\"-1\"", 400, "bad-request"),
        ("\"99999999999\"", 400, "bad-request"),
        ("", 400, "bad-request"),
        ("é", 400, "bad-request"),
    ] {
        bench.refused(matching(tag), status, code).await;
    }
    let answer = bench.written(matching("\"8\"")).await;
    assert_eq!(answer.header("etag"), "\"9\"");
    bench.refused(matching("\"8\""), 412, "revision-mismatch").await;
    bench.written(matching("*")).await;
    // A member that cannot be null is not silently left as it is.
    for name in ["to", "priority", "expires_at"] {
        let mut body = json!({"body": "other"});
        body[name] = Value::Null;
        bench.refused(edit(body), 400, "bad-request").await;
    }
    for (status, code, body) in [
        (422, "bad-window", json!({"expires_at": "2020-01-01T00:00:00Z"})),
        (422, "bad-window", json!({"not_before": "2100-01-01T00:00:00Z"})),
        (400, "bad-request", json!({"collapse_key": "other"})),
        (400, "bad-request", json!({"revision": 1})),
    ] {
        bench.refused(edit(body), status, code).await;
    }
}

async fn recalled(bench: &mut Bench, app: &App) {
    let id = bench.message(app, json!({"to": "all", "body": "x"})).await;
    let recall = Call::to(RECALL, &[&app.id, &id]);
    let edit = Call::to(EDIT, &[&app.id, &id]).json(json!({"body": "y"}));
    let answer = bench.written(recall.clone()).await.json();
    assert_eq!(
        (text(&answer, "state"), &answer["body"], &answer["revision"]),
        ("recalled", &json!("x"), &json!(1))
    );
    let again = bench.unchanged(recall).await.json();
    assert_eq!((&again["state"], &again["revision"]), (&answer["state"], &answer["revision"]));
    bench.refused(edit.clone(), 409, "recalled").await;
    bench.refused(edit.header("if-match", "\"7\""), 412, "revision-mismatch").await;
    // Before it starts, too.
    let id = bench.message(app, json!({"to": "all", "body": 1, "not_before": "2097-01-01T00:00:00Z", "expires_at": "2098-01-01T00:00:00Z"})).await;
    bench.written(Call::to(RECALL, &[&app.id, &id])).await;
    let edit = Call::to(EDIT, &[&app.id, &id]).json(json!({"not_before": null}));
    bench.refused(edit, 409, "recalled").await;
}

/// What a device gets is what the admin wrote, byte for byte, and follows edits and recalls.
async fn bodies_reach_devices(bench: &mut Bench) {
    let app = bench.app().await;
    let mut phone = bench.phone(&app).build().expect("a client");
    let deep = format!("{}{}", "[".repeat(60), "]".repeat(60));
    let bodies = [
        "null",
        "true",
        "-0.0",
        "1E+2",
        "12345678901234567890123",
        "\"\"",
        "{}",
        &deep,
        r#"{ "b": 1.0,  "a": "é\u00e9\ud83d\ude00\/\u0000", "a": [ ] }"#,
        "{\"id\":\"0000000000000000\",\"tag\":1,\"body\":{\"body\":[]}}",
    ];
    let mut ids = Vec::new();
    for body in bodies {
        let call =
            Call::to(CREATE, &[&app.id]).text(format!("{{\"to\":\"all\",\"body\": {body} }}"));
        let made = bench.written(call).await.json();
        let id = text(&made, "id").to_owned();
        shows(&mut phone, &id, body).await;
        if ids.is_empty() {
            let (_, device) = phone.status().registered.expect("it polled");
            bench.reported(&app, &device.to_string()).await;
        }
        ids.push(id);
    }
    for (id, body) in ids.iter().zip(["[1 , 2]", "\"\\\\\""]) {
        let call = Call::to(EDIT, &[&app.id, id]).text(format!("{{\"body\":{body}}}"));
        bench.written(call).await;
        shows(&mut phone, id, body).await;
    }
    for id in &ids[2..] {
        bench.written(Call::to(RECALL, &[&app.id, id])).await;
    }
    holds(&mut phone, &[&ids[0], &ids[1]]).await;
}
