//! Audiences: written, edited, renamed, deleted; used by messages, by each other, and by every call that takes an
//! expression.

use carillon_tests::admin::text;
use serde_json::{Value, json};

use crate::bench::{App, Bench, Call, holds};

const PUT: &str = "PUT /v1/apps/{app}/audiences/{name}";
const GET: &str = "GET /v1/apps/{app}/audiences/{name}";
const LIST: &str = "GET /v1/apps/{app}/audiences";
const RENAME: &str = "PATCH /v1/apps/{app}/audiences/{name}";
const DELETE: &str = "DELETE /v1/apps/{app}/audiences/{name}";
const COMPARE: &str = "POST /v1/apps/{app}/audience:compare";
const MESSAGE: &str = "GET /v1/apps/{app}/messages/{message}";
const RECALL: &str = "POST /v1/apps/{app}/messages/{message}:recall";

pub(crate) async fn check(bench: &mut Bench) {
    written(bench).await;
    listed(bench).await;
    used(bench).await;
    compared(bench).await;
    refused(bench).await;
    reach_devices(bench).await;
}

fn put(app: &App, name: &str, expression: &str) -> Call {
    Call::to(PUT, &[&app.id, name]).json(json!({"expression": expression}))
}

/// Twelve devices: each second from KE, each third a vip.
async fn fleet(bench: &mut Bench) -> App {
    let app = bench.app().await;
    bench.attribute(&app, "country", "string", "both").await;
    bench.group(&app, "vip", "both").await;
    let line = |n: u64| {
        let country = if n.is_multiple_of(2) { json!({"country": "KE"}) } else { json!({}) };
        let groups = if n.is_multiple_of(3) { json!(["vip"]) } else { json!([]) };
        json!({"id": format!("{n:016x}"), "attributes": country, "groups": groups})
    };
    let lines: Vec<Value> = (1..=12).map(line).collect();
    bench.import(&app, &lines).await;
    app
}

async fn written(bench: &mut Bench) {
    let app = fleet(bench).await;
    let longest = "a".repeat(64);
    for name in ["vips", "VIPS", "team:a/b", "v2.3", "and", &longest] {
        let made = bench.written(put(&app, name, "#vip and country=='KE'")).await;
        assert_eq!(made.status, 201);
        let made = made.json();
        let expected = json!({"id": made["id"], "name": name, "revision": 1,
                              "expression": "#vip and country == \"KE\""});
        assert_eq!(made, expected);
        let same = bench.unchanged(put(&app, name, "#vip  and country == 'KE'")).await;
        assert_eq!((same.status, same.json()), (200, expected));
    }
    let edited = bench.written(put(&app, "vips", "#vip").header("if-match", "\"1\"")).await;
    assert_eq!((edited.status, &edited.json()["revision"]), (200, &json!(2)));
    let found = bench.read(Call::to(GET, &[&app.id, "vips"])).await.json();
    let expected = json!({"id": edited.json()["id"], "name": "vips", "revision": 2,
                          "expression": "#vip", "devices": 4, "of": 12, "messages": [],
                          "message_count": 0, "audiences": []});
    assert_eq!(found, expected);
    for (tag, status, code) in [
        ("\"1\"", 412, "revision-mismatch"),
        ("\"3\"", 412, "revision-mismatch"),
        ("2", 400, "bad-request"),
        ("\"x\"", 400, "bad-request"),
    ] {
        bench.refused(put(&app, "vips", "all").header("if-match", tag), status, code).await;
        let rename = Call::to(RENAME, &[&app.id, "vips"]).json(json!({"name": "x"}));
        bench.refused(rename.header("if-match", tag), status, code).await;
        let delete = Call::to(DELETE, &[&app.id, "vips"]);
        bench.refused(delete.header("if-match", tag), status, code).await;
    }
    bench
        .refused(put(&app, "none", "all").header("if-match", "\"1\""), 412, "revision-mismatch")
        .await;
    let gone = bench.written(Call::to(DELETE, &[&app.id, "vips"]).header("if-match", "*")).await;
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    for call in [Call::to(GET, &[&app.id, "vips"]), Call::to(DELETE, &[&app.id, "vips"])] {
        bench.refused(call, 404, "not-found").await;
    }
    let again = bench.written(put(&app, "vips", "#vip")).await;
    assert_eq!((again.status, &again.json()["revision"]), (201, &json!(1)));
    assert_ne!(again.json()["id"], edited.json()["id"], "an id is never given twice");
}

async fn listed(bench: &mut Bench) {
    let app = bench.app().await;
    let none = bench.read(Call::to(LIST, &[&app.id])).await.json();
    assert_eq!(none, json!({"audiences": [], "next": null}));
    let mut made = Vec::new();
    for n in 0..7 {
        let name = format!("a{n}");
        let nested = if n == 0 { "all".to_owned() } else { format!("not @a{}", n - 1) };
        made.push(bench.written(put(&app, &name, &nested)).await.json());
    }
    made.sort_by(|a, b| text(a, "id").cmp(text(b, "id")));
    let (mut pages, mut query) = (Vec::new(), "limit=3".to_owned());
    loop {
        let page = bench.read(Call::to(LIST, &[&app.id]).query(&query)).await.json();
        pages.extend(page["audiences"].as_array().expect("a page").clone());
        match page["next"].as_str() {
            Some(next) => query = format!("limit=3&after={next}"),
            None => break,
        }
    }
    pages.sort_by(|a, b| text(a, "id").cmp(text(b, "id")));
    assert_eq!(pages, made);
    for query in ["limit=0", "limit=1001", "limit=x", "after=x"] {
        bench.refused(Call::to(LIST, &[&app.id]).query(query), 400, "bad-request").await;
    }
}

/// By messages, by audiences, and by every call that takes an expression.
async fn used(bench: &mut Bench) {
    let app = fleet(bench).await;
    bench.written(put(&app, "vips", "#vip")).await;
    bench.written(put(&app, "plain", "not @vips")).await;
    let message = bench.message(&app, json!({"to": "@plain and country == 'KE'", "body": 1})).await;
    let other = bench.message(&app, json!({"to": "all and @vips", "body": 1})).await;
    let found = bench.read(Call::to(GET, &[&app.id, "vips"])).await.json();
    let mut messages: Vec<&str> =
        found["messages"].as_array().expect("ids").iter().filter_map(Value::as_str).collect();
    messages.sort_unstable();
    let mut both = [message.as_str(), other.as_str()];
    both.sort_unstable();
    assert_eq!(messages, both);
    assert_eq!((&found["message_count"], &found["audiences"]), (&json!(2), &json!(["plain"])));
    let referenced = bench.refused(Call::to(DELETE, &[&app.id, "vips"]), 409, "referenced").await;
    assert_eq!(referenced["audiences"], json!(["plain"]));
    assert_eq!(referenced["messages"].as_array().map(Vec::len), Some(2));
    let group = Call::to("DELETE /v1/apps/{app}/groups/{group}", &[&app.id, "name:vip"]);
    let referenced = bench.refused(group, 409, "referenced").await;
    assert_eq!(referenced["audiences"].as_array().map(Vec::len), Some(2));
    // A rename changes nothing but print.
    let rename = |name: &str| Call::to(RENAME, &[&app.id, "vips"]).json(json!({"name": name}));
    bench.refused(rename("plain"), 409, "exists").await;
    assert_eq!(bench.unchanged(rename("vips")).await.json()["revision"], 1);
    assert_eq!(bench.written(rename("gold")).await.json()["revision"], 2);
    let shown = bench.read(Call::to(MESSAGE, &[&app.id, &other])).await.json();
    assert_eq!((text(&shown, "to"), &shown["revision"]), ("all and @gold", &json!(1)));
    // Every other use of an expression knows it.
    let to = "@gold and country == 'KE'";
    let preview = Call::to("POST /v1/apps/{app}/audience:preview", &[&app.id]);
    let preview = bench.read(preview.json(json!({"to": to, "sample": 0}))).await.json();
    assert_eq!(
        (&preview["count"], text(&preview, "to")),
        (&json!(2), "@gold and country == \"KE\"")
    );
    let explain = Call::to("POST /v1/apps/{app}/audience:explain", &[&app.id]);
    let body = json!({"to": "@plain", "device": format!("{:016x}", 3)});
    let explained = bench.read(explain.json(body)).await.json();
    let parts: Vec<(&str, &str)> = explained["parts"]
        .as_array()
        .expect("parts")
        .iter()
        .map(|part| (text(part, "text"), text(part, "truth")))
        .collect();
    let expected = [("@plain", "false"), ("not", "false"), ("@gold", "true"), ("#vip", "true")];
    assert_eq!((parts, &explained["matches"]), (expected.to_vec(), &json!(false)));
    let complete = Call::to("POST /v1/apps/{app}/expression:complete", &[&app.id]);
    let offered = bench.read(complete.json(json!({"text": "not @g"}))).await.json();
    let first = &offered["suggestions"][0];
    assert_eq!((text(first, "text"), text(first, "kind")), ("@gold", "audience"), "{offered}");
}

async fn compared(bench: &mut Bench) {
    let app = fleet(bench).await;
    bench.written(put(&app, "vips", "#vip")).await;
    bench.written(put(&app, "plain", "not @vips")).await;
    let message = bench.message(&app, json!({"to": "@plain and country == 'KE'", "body": 1})).await;
    let compare = |body: Value| Call::to(COMPARE, &[&app.id]).json(body);
    // From 3, 6, 9, 12 to all of KE: 2, 4, 6, 8, 10, 12.
    let edit = json!({"audience": "vips", "after": "country == 'KE'", "sample": 100});
    let found = bench.read(compare(edit)).await.json();
    let ids = |of: &[u64]| -> Value { of.iter().map(|n| format!("{n:016x}")).collect() };
    let sorted = |side: &Value| -> Value {
        let mut all: Vec<&str> =
            side["sample"].as_array().expect("ids").iter().filter_map(Value::as_str).collect();
        all.sort_unstable();
        json!(all)
    };
    assert_eq!((text(&found, "before"), text(&found, "after")), ("#vip", "country == \"KE\""));
    assert_eq!(sorted(&found["gain"]), ids(&[2, 4, 8, 10]));
    assert_eq!(sorted(&found["lose"]), ids(&[3, 9]));
    assert_eq!((&found["keep"], &found["of"]), (&json!(2), &json!(12)));
    // The message was for 2, 4, 8, 10, and would be for nobody.
    let messages = json!([{"message": message, "gain": 0, "lose": 4, "keep": 0}]);
    assert_eq!((&found["messages"], &found["message_count"]), (&messages, &json!(1)));
    let same = bench.read(compare(json!({"audience": "vips", "after": "#vip"}))).await.json();
    assert_eq!((&same["keep"], &same["messages"][0]["keep"]), (&json!(4), &json!(4)));
    let plain = bench.read(compare(json!({"before": "@vips", "after": "@plain"}))).await.json();
    assert_eq!((&plain["gain"]["count"], &plain["lose"]["count"]), (&json!(8), &json!(4)));
    assert_eq!(plain["messages"], json!([]));
    bench.refused(compare(json!({"audience": "none", "after": "all"})), 404, "not-found").await;
    let cycle = json!({"audience": "vips", "after": "@plain"});
    let problem = bench.refused(compare(cycle), 422, "bad-expression").await;
    assert_eq!(problem["errors"][0]["kind"], "audience_cycle");
    for body in [
        json!({"audience": "vips", "before": "all", "after": "all"}),
        json!({"audience": "vips", "message": message, "after": "all"}),
    ] {
        bench.refused(compare(body), 422, "invalid").await;
    }
}

async fn refused(bench: &mut Bench) {
    let app = fleet(bench).await;
    bench.written(put(&app, "vips", "#vip")).await;
    bench.written(put(&app, "plain", "not @vips")).await;
    for name in ["a b", ":a", "é", "#vip", "@vips", "a\n", &"a".repeat(65)] {
        bench.refused(put(&app, name, "all"), 422, "invalid").await;
        let rename = Call::to(RENAME, &[&app.id, "vips"]).json(json!({"name": name}));
        bench.refused(rename, 422, "invalid").await;
    }
    for (expression, kind) in [
        ("@vip", "unknown_audience"),
        ("#vips", "unknown_group"),
        ("@plain", "audience_cycle"),
        ("@vips", "audience_cycle"),
        ("#vip and", "syntax"),
    ] {
        let problem = bench.refused(put(&app, "vips", expression), 422, "bad-expression").await;
        let error = &problem["errors"][0];
        assert_eq!(text(error, "kind"), kind, "{expression}: {problem}");
        assert!(error["line"] == 1 && error["column"].is_u64(), "{problem}");
        assert!(text(error, "rendered").contains('^'), "{problem}");
    }
    let near = bench.refused(put(&app, "x", "@vipz"), 422, "bad-expression").await;
    assert_eq!(near["errors"][0]["suggestion"], "@vips");
    let message = Call::to("POST /v1/apps/{app}/messages", &[&app.id]);
    let message = message.json(json!({"to": "@vipz", "body": 1}));
    bench.refused(message, 422, "bad-expression").await;
    let unknown = Call::to(RENAME, &[&app.id, "none"]).json(json!({"name": "x"}));
    bench.refused(unknown, 404, "not-found").await;
    // Sixteen within each other, and no more.
    bench.written(put(&app, "n0", "all")).await;
    for n in 1..=16 {
        bench.written(put(&app, &format!("n{n}"), &format!("@n{}", n - 1))).await;
    }
    let problem = bench.refused(put(&app, "n17", "@n16"), 422, "bad-expression").await;
    assert_eq!(problem["errors"][0]["kind"], "audience_too_deep");
    let problem = bench.refused(put(&app, "n0", "@vips"), 422, "audience-breaks").await;
    assert_eq!(problem["broken"][0]["audience"], "n16", "{problem}");
}

/// Edits reach devices, through audiences of audiences too, and a message that was recalled stays recalled.
async fn reach_devices(bench: &mut Bench) {
    let app = bench.app().await;
    bench.group(&app, "vip", "both").await;
    bench.written(put(&app, "vips", "#vip")).await;
    bench.written(put(&app, "plain", "not @vips")).await;
    let mut vip = bench.phone(&app).groups(["vip"]).seed(1).build().expect("a client");
    let mut other = bench.phone(&app).seed(2).build().expect("a client");
    let to_vips = bench.message(&app, json!({"to": "@vips", "body": 1})).await;
    let to_plain = bench.message(&app, json!({"to": "@plain", "body": 2})).await;
    let over = bench.message(&app, json!({"to": "@vips", "body": 3})).await;
    bench.written(Call::to(RECALL, &[&app.id, &over])).await;
    holds(&mut vip, &[&to_vips]).await;
    holds(&mut other, &[&to_plain]).await;
    for phone in [&vip, &other] {
        let (_, device) = phone.status().registered.expect("it polled");
        bench.reported(&app, &device.to_string()).await;
    }
    bench.written(put(&app, "vips", "not #vip")).await;
    holds(&mut vip, &[&to_plain]).await;
    holds(&mut other, &[&to_vips]).await;
    bench.written(put(&app, "plain", "all")).await;
    holds(&mut vip, &[&to_plain]).await;
    holds(&mut other, &[&to_vips, &to_plain]).await;
    bench.written(put(&app, "vips", "#vip")).await;
    holds(&mut vip, &[&to_vips, &to_plain]).await;
    holds(&mut other, &[&to_plain]).await;
}
