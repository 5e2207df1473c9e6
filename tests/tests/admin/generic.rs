//! What every operation of the document refuses alike: strangers, unknown ids, other methods, and bodies that are not
//! what its schema says. An operation that is added to central has to be added here.

use carillon_tests::admin::text;
use serde_json::{Value, json};

use crate::bench::{App, Bench, Call, percent};
use crate::document::Operation;

/// An id that nothing has.
const NOBODY: &str = "00000000000000ff";
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Things of one app, for calls that are right but for one fault.
#[derive(Debug)]
struct Things {
    app: App,
    group: String,
    device: String,
    message: String,
    callback: String,
}

/// A credential for Web Push, with the key of RFC 8291's example.
pub(crate) fn vapid() -> Value {
    json!({"subject": "mailto:ops@example.com", "private_key": "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"})
}

/// Checks all of it, for every operation.
pub(crate) async fn check(bench: &mut Bench) {
    let things = things(bench).await;
    for operation in bench.document.operations.clone() {
        let (parameters, body) = sample(&things, &operation.call);
        let right = right_call(&operation, &parameters, &body);
        other_methods(bench, &operation, &parameters).await;
        if !operation.secured {
            continue;
        }
        strangers(bench, &right).await;
        for (index, parameter) in names(&operation.path).iter().enumerate() {
            // A user is what devices say it is: nobody is a user without devices.
            if matches!(&**parameter, "name" | "user") {
                continue;
            }
            for unknown in unknown_ids(parameter) {
                let mut parameters = parameters.clone();
                parameters[index] = unknown.to_owned();
                let call = right_call(&operation, &parameters, &body);
                bench.refused(call, 404, "not-found").await;
            }
        }
        if operation.request.as_ref().is_some_and(|(kind, _)| kind == "application/json") {
            bodies(bench, &operation, &right, body.as_ref().expect("a body")).await;
        }
    }
    paths(bench).await;
}

async fn things(bench: &mut Bench) -> Things {
    let app = bench.app().await;
    bench.attribute(&app, "country", "string", "both").await;
    let group = bench.group(&app, "vip", "both").await;
    let device = "00000000000000d1".to_owned();
    let line = json!({"id": device, "attributes": {"country": "KE"}, "groups": ["vip"]});
    bench.import(&app, &[line]).await;
    let audience = Call::to("PUT /v1/apps/{app}/audiences/{name}", &[&app.id, "vips"]);
    bench.written(audience.json(json!({"expression": "#vip"}))).await;
    let message = bench.message(&app, json!({"to": "#vip and country == \"KE\"", "body": 1})).await;
    let hear = Call::to("POST /v1/apps/{app}/callbacks", &[&app.id]).json(hearer());
    let callback = text(&bench.unchanged(hear).await.json(), "id").to_owned();
    Things { app, group, device, message, callback }
}

/// A callback for what does not happen here, at an address that nobody has.
pub(crate) fn hearer() -> Value {
    json!({"url": "https://callbacks.invalid/", "events": ["token.removed"], "description": "d"})
}

/// The parameters of a right call, and its body if it has one.
fn sample(things: &Things, call: &str) -> (Vec<String>, Option<Value>) {
    let Things { app: App { id: app, .. }, group, device, message, callback } = things;
    let with = |parameters: &[&String], body: Value| {
        (parameters.iter().map(|p| (*p).clone()).collect(), Some(body).filter(|b| !b.is_null()))
    };
    let members = json!({"devices": [device]});
    let (country, vips) = ("country".to_owned(), "vips".to_owned());
    match call {
        "GET /healthz" | "GET /readyz" | "GET /metrics" | "GET /openapi.json" | "GET /v1/apps" => {
            with(&[], Value::Null)
        }
        "POST /v1/apps" => with(&[], json!({"name": "never made", "environment": "sandbox"})),
        "GET /v1/apps/{app}"
        | "GET /v1/apps/{app}/attributes"
        | "GET /v1/apps/{app}/devices"
        | "GET /v1/apps/{app}/devices:export"
        | "POST /v1/apps/{app}/devices:import"
        | "GET /v1/apps/{app}/groups"
        | "GET /v1/apps/{app}/audiences"
        | "GET /v1/apps/{app}/callbacks"
        | "GET /v1/apps/{app}/messages" => with(&[app], Value::Null),
        "PUT /v1/apps/{app}/attributes/{name}" => {
            with(&[app, &country], json!({"type": "string", "set_by": "both"}))
        }
        "DELETE /v1/apps/{app}/attributes/{name}" => with(&[app, &country], Value::Null),
        "PATCH /v1/apps/{app}" => {
            with(&[app], json!({"quotas": {"devices_max": 1000, "groups_max": null}}))
        }
        "POST /v1/apps/{app}/groups" => with(&[app], json!({"name": "new", "set_by": "server"})),
        "GET /v1/apps/{app}/groups/{group}" | "DELETE /v1/apps/{app}/groups/{group}" => {
            with(&[app, group], Value::Null)
        }
        "PATCH /v1/apps/{app}/groups/{group}" => with(&[app, group], json!({"name": "gold"})),
        "POST /v1/apps/{app}/groups/{group}/members:add"
        | "POST /v1/apps/{app}/groups/{group}/members:remove" => with(&[app, group], members),
        "PUT /v1/apps/{app}/audiences/{name}" => {
            with(&[app, &vips], json!({"expression": "not #vip"}))
        }
        "PATCH /v1/apps/{app}/audiences/{name}" => with(&[app, &vips], json!({"name": "gold"})),
        "GET /v1/apps/{app}/audiences/{name}" | "DELETE /v1/apps/{app}/audiences/{name}" => {
            with(&[app, &vips], Value::Null)
        }
        "GET /v1/apps/{app}/devices/{device}"
        | "DELETE /v1/apps/{app}/devices/{device}"
        | "POST /v1/apps/{app}/devices/{device}/revoke" => with(&[app, device], Value::Null),
        "PATCH /v1/apps/{app}/devices/{device}" => with(
            &[app, device],
            json!({"user": "ann", "attributes": {"country": "SE"}, "groups": {"vip": false},
                   "tokens": [{"channel": "fcm", "token": "t"}]}),
        ),
        "POST /v1/apps/{app}/messages" => with(
            &[app],
            json!({"to": "all", "body": {"text": "never made"}, "priority": "high", "collapse_key": "k",
                   "not_before": "2096-01-01T00:00:00Z", "expires_at": "2097-01-01T00:00:00Z"}),
        ),
        "GET /v1/apps/{app}/messages/{message}"
        | "GET /v1/apps/{app}/messages/{message}/funnel"
        | "GET /v1/apps/{app}/messages/{message}/funnel/series"
        | "POST /v1/apps/{app}/messages/{message}:recall" => with(&[app, message], Value::Null),
        "PATCH /v1/apps/{app}/messages/{message}" => with(
            &[app, message],
            json!({"to": "all", "body": {"text": "never made"}, "priority": "high",
                   "not_before": "2096-01-01T00:00:00Z", "expires_at": "2097-01-01T00:00:00Z"}),
        ),
        "GET /v1/apps/{app}/push" => with(&[app], Value::Null),
        "PATCH /v1/apps/{app}/push" => {
            with(&[app], json!({"rate": 100, "cap": {"pushes": 3, "period_s": 3600}}))
        }
        "PUT /v1/apps/{app}/push/{channel}" => {
            with(&[app, &"web_push".to_owned()], json!({"credential": vapid()}))
        }
        "DELETE /v1/apps/{app}/push/{channel}" => with(&[app, &"web_push".to_owned()], Value::Null),
        "POST /v1/apps/{app}/callbacks" => with(&[app], hearer()),
        "GET /v1/apps/{app}/callbacks/{callback}"
        | "DELETE /v1/apps/{app}/callbacks/{callback}"
        | "POST /v1/apps/{app}/callbacks/{callback}/test" => with(&[app, callback], Value::Null),
        "PATCH /v1/apps/{app}/callbacks/{callback}" => with(
            &[app, callback],
            json!({"url": "https://other.invalid/", "events": ["*"], "description": "e",
                   "state": "paused"}),
        ),
        "POST /v1/apps/{app}/callbacks/{callback}/rotate-secret" => {
            with(&[app, callback], json!({"overlap_s": 60}))
        }
        "POST /v1/apps/{app}/callbacks/{callback}/replay" => {
            with(&[app, callback], json!({"from": "2026-01-01T00:00:00Z"}))
        }
        "POST /v1/apps/{app}/users/{user}:erase" => with(&[app, &"nobody".to_owned()], Value::Null),
        "POST /v1/apps/{app}/audience:preview" => with(&[app], json!({"to": "all", "sample": 3})),
        "POST /v1/apps/{app}/audience:explain" => {
            with(&[app], json!({"to": "country == \"KE\"", "device": device}))
        }
        "POST /v1/apps/{app}/audience:compare" => {
            with(&[app], json!({"message": message, "after": "all", "sample": 3}))
        }
        "POST /v1/apps/{app}/expression:complete" => {
            with(&[app], json!({"text": "country == ", "cursor": 3}))
        }
        other => panic!("{other} is documented, but nothing here calls it"),
    }
}

fn right_call(operation: &Operation, parameters: &[String], body: &Option<Value>) -> Call {
    let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
    let call = Call::of(operation, &parameters);
    let call = match operation.path.ends_with("/series") {
        true => call.query("counter=delivered&bucket=hour"),
        false => call,
    };
    match body {
        Some(body) => call.json(body.clone()),
        None => call,
    }
}

fn names(path: &str) -> Vec<String> {
    let named = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    named.map(str::to_owned).collect()
}

fn unknown_ids(parameter: &str) -> Vec<&'static str> {
    let mut ids =
        vec![NOBODY, "ff", "00000000000000fg", "+0000000000000ff", "00000000000000ff0", " "];
    if parameter == "group" {
        ids.extend(["name:nobody", "name:", "vip"]);
    }
    ids
}

/// The token comes before everything else: a stranger does not learn what is there.
async fn strangers(bench: &mut Bench, right: &Call) {
    let token = bench.admin.token.clone();
    let wrong = [
        None,
        Some("Bearer ".to_owned()),
        Some(format!("Bearer {}", &token[1..])),
        Some(format!("Bearer {token}x")),
        Some(format!("Basic {token}")),
        Some(token.clone()),
    ];
    for authorization in wrong {
        let before = bench.state().await;
        let mut request = bench.request(right);
        request.headers_mut().remove("authorization");
        if let Some(value) = &authorization {
            let value = value.parse().expect("a header");
            request.headers_mut().insert("authorization", value);
        }
        let answer = bench.admin.send(request).await;
        bench.problem(right.operation(), &answer, 401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{right:?}: {answer:?}");
        bench.unmoved(before, &format!("{right:?} with {authorization:?}")).await;
    }
}

async fn other_methods(bench: &mut Bench, operation: &Operation, parameters: &[String]) {
    for method in bench.document.other_methods(&operation.path) {
        let mut path = operation.path.clone();
        for (name, value) in names(&operation.path).iter().zip(parameters) {
            path = path.replace(&format!("{{{name}}}"), &percent(value));
        }
        let before = bench.state().await;
        let answer = bench.admin.call(method, &path, json!({})).await;
        // Those without a token document no refusals.
        let counted = if operation.secured { operation.call.as_str() } else { "" };
        bench.problem(counted, &answer, 405, "method-not-allowed");
        // RFC 9110, 15.5.6: the answer says which methods there are.
        let allowed: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
        assert!(!allowed.contains(&method), "{method} {path}: {answer:?}");
        let own = operation.method.as_str();
        assert!(allowed.contains(&own), "{method} {path}: {own} is allowed: {answer:?}");
        bench.unmoved(before, &format!("{method} {path}")).await;
    }
}

/// Bodies that are not JSON, not objects, or not of the schema's types.
async fn bodies(bench: &mut Bench, operation: &Operation, right: &Call, sample: &Value) {
    let members = sample.as_object().expect("an object");
    let texts: [&[u8]; 12] = [
        b"",
        b" ",
        b"{",
        b"{}x",
        b"{\"a\" 1}",
        b"{\"a\":1,}",
        b"nul",
        b"null",
        b"7",
        b"\"x\"",
        b"[]",
        b"\xff\xfe",
    ];
    let mut bad: Vec<Vec<u8>> = texts.iter().map(|text| text.to_vec()).collect();
    // A sequence of the right values is no object either.
    bad.push(json!(members.values().collect::<Vec<_>>()).to_string().into());
    let mut unknown = members.clone();
    unknown.insert("surprise".to_owned(), json!(1));
    bad.push(Value::Object(unknown).to_string().into());
    let (_, schema) = operation.request.clone().expect("a body");
    let schema = bench.document.resolve(&schema).clone();
    for (name, member) in members {
        // Given twice.
        let text = sample.to_string();
        bad.push(format!("{},{}:{member}}}", &text[..text.len() - 1], json!(name)).into());
        let required = schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
        if required {
            let mut without = members.clone();
            without.remove(name);
            bad.push(Value::Object(without).to_string().into());
        }
        let property = bench.document.resolve(&schema["properties"][name]).clone();
        for wrong in [json!(true), json!(-7.5), json!("surprise"), json!(["x"]), json!({"x": 1})] {
            if !bench.document.may_be(&property, &wrong) {
                let mut other = members.clone();
                other.insert(name.clone(), wrong);
                bad.push(Value::Object(other).to_string().into());
            }
        }
    }
    for body in bad {
        let problem = bench.refused(right.clone().text(body.clone()), 400, "bad-request").await;
        let detail = text(&problem, "detail");
        let body = String::from_utf8_lossy(&body);
        assert!(detail.contains("line 1 column"), "{}: {body}: {detail}", operation.call);
    }
    let lines = "{\n\n  \"surprise\": 1 }";
    let problem = bench.refused(right.clone().text(lines), 400, "bad-request").await;
    assert!(text(&problem, "detail").contains("line 3 column"), "{problem}");
    let large = sample.to_string() + &" ".repeat(BODY_BYTES_MAX);
    bench.refused(right.clone().text(large), 413, "too-large").await;
}

/// Paths that lead nowhere, or hold what is no text.
async fn paths(bench: &mut Bench) {
    for path in ["/", "/v1", "/v1/", "/v1/app", "/v2/apps", "/v1/apps/x/y", "/openapi", "/v1/apps/"]
    {
        let answer = bench.admin.call("GET", path, Value::Null).await;
        answer.expect_problem(404, "not-found");
    }
    let answer = bench.admin.call("GET", "/v1/apps/%FF%FE", Value::Null).await;
    answer.expect_problem(400, "bad-request");
}
