//! What the admin API says about expressions without sending anything: why a device is a recipient, who would gain and
//! lose by an edit, what may come next in a text; and `carillon explain`, which asks the first of these.

use std::process::{Command, Output};

use carillon_tests::admin::text;
use carillon_tests::cluster::{Cluster, Store};
use serde_json::{Value, json};

use crate::bench::{App, Bench, Call};
use crate::import::id;
use crate::messages::{CREATE, RECALL};

const EXPLAIN: &str = "POST /v1/apps/{app}/audience:explain";
const COMPARE: &str = "POST /v1/apps/{app}/audience:compare";
const COMPLETE: &str = "POST /v1/apps/{app}/expression:complete";
const NOBODY: &str = "00000000000000ff";

/// Devices of the app, numbered from 1.
const DEVICES: u64 = 240;

pub(crate) async fn check(bench: &mut Bench) {
    let app = app(bench).await;
    explained(bench, &app).await;
    messages_explained(bench, &app).await;
    explained_on_the_command_line(bench, &app).await;
    compared(bench, &app).await;
    completed(bench, &app).await;
    by_the_clock(bench, &app).await;
    refused(bench, &app).await;
}

/// One in three from KE and one from SE, the others from nowhere; every fifth a vip; tags by the number.
async fn app(bench: &mut Bench) -> App {
    let app = bench.app().await;
    for (name, kind) in [("country", "string"), ("age", "number"), ("tags", "set")] {
        bench.attribute(&app, name, kind, "server").await;
    }
    bench.group(&app, "vip", "server").await;
    let lines: Vec<Value> = (1..=DEVICES)
        .map(|n| {
            let mut attributes = json!({"tags": if n % 2 == 0 { json!(["even", "n"]) } else { json!(["n"]) }});
            if let Some(country) = [None, Some("KE"), Some("SE")][(n % 3) as usize] {
                attributes["country"] = json!(country);
            }
            let groups = if n % 5 == 0 { json!(["vip"]) } else { json!([]) };
            json!({"id": id(n), "user": format!("user {n}"), "attributes": attributes, "groups": groups})
        })
        .collect();
    bench.import(&app, &lines).await;
    app
}

fn explain(app: &App, body: Value) -> Call {
    Call::to(EXPLAIN, &[&app.id]).json(body)
}

async fn explained(bench: &mut Bench, app: &App) {
    let to = "country in ('KE','SE') and (not #vip or age > 30) or tags all ('even', 'odd')";
    let call = explain(app, json!({"to": to, "device": id(5)}));
    let answer = bench.read(call.clone()).await.json();
    let part = |parent: Value, depth: u64, text: &str, truth: &str, saw: Value| json!({"parent": parent, "depth": depth, "text": text, "truth": truth, "saw": saw});
    let saw = |name: &str, value: Value| json!([{"name": name, "value": value}]);
    let expected = json!({
        "device": id(5), "message": null, "matches": false, "at": answer["at"],
        "to": "country in (\"KE\", \"SE\") and (not #vip or age > 30) or tags all (\"even\", \"odd\")",
        "parts": [
            part(Value::Null, 0, "or", "unknown", json!([])),
            part(json!(0), 1, "and", "unknown", json!([])),
            part(json!(1), 2, "country in (\"KE\", \"SE\")", "true", saw("country", json!("\"SE\""))),
            part(json!(1), 2, "or", "unknown", json!([])),
            part(json!(3), 3, "not", "false", json!([])),
            part(json!(4), 4, "#vip", "true", json!([])),
            part(json!(3), 3, "age > 30", "unknown", saw("age", Value::Null)),
            part(json!(0), 1, "tags all (\"even\", \"odd\")", "false", saw("tags", json!("(\"n\")"))),
        ],
    });
    assert_eq!(answer, expected);
    let answer = bench.read(call.header("accept", "text/plain")).await;
    let lines = [
        format!("device {} is no recipient", id(5)),
        "unknown  or".to_owned(),
        "unknown    and".to_owned(),
        "true         country in (\"KE\", \"SE\")    [country is \"SE\"]".to_owned(),
        "unknown      or".to_owned(),
        "false          not".to_owned(),
        "true             #vip".to_owned(),
        "unknown        age > 30    [age is missing]".to_owned(),
        "false      tags all (\"even\", \"odd\")    [tags is (\"n\")]".to_owned(),
    ];
    assert_eq!(String::from_utf8_lossy(&answer.body), lines.join("\n") + "\n");
    // It says of every device what a preview counts.
    let to = "country != \"KE\" or #vip and user == \"user 30\"";
    let preview = Call::to("POST /v1/apps/{app}/audience:preview", &[&app.id]);
    let counted = bench.read(preview.json(json!({"to": to, "sample": 1000}))).await.json();
    for n in 1..=40 {
        let found = bench.read(explain(app, json!({"to": to, "device": id(n)}))).await.json();
        let sampled = counted["sample"].as_array().expect("ids").contains(&json!(id(n)));
        assert_eq!(found["matches"], json!(sampled), "{n}: {found}");
        assert_eq!(found["parts"][0]["truth"] == "true", sampled, "{n}: {found}");
    }
    // As deep as an expression may be, which is deeper than most readers of JSON go.
    let deep = format!("{}#vip", "not ".repeat(256));
    let found = bench.read(explain(app, json!({"to": deep, "device": id(5)}))).await.json();
    let parts = found["parts"].as_array().expect("parts");
    assert_eq!((parts.len(), &found["matches"]), (257, &json!(true)));
    assert!(parts.iter().skip(1).enumerate().all(|(n, part)| part["parent"] == json!(n)));
}

async fn messages_explained(bench: &mut Bench, app: &App) {
    let new = json!({"to": "sample(50%) or #vip", "body": 1});
    let message = bench.message(app, new).await;
    let mut drawn = 0;
    for n in 1..=20 {
        let call = explain(app, json!({"message": message, "device": id(n)}));
        let found = bench.read(call).await.json();
        assert_eq!(
            found["message"],
            json!({"id": message, "state": "active", "gets": found["matches"]})
        );
        assert_eq!(text(&found, "to"), "sample(50%) or #vip");
        let saw = &found["parts"][1]["saw"];
        let expected = json!([{"name": "device", "value": format!("\"{}\"", id(n))},
                              {"name": "message", "value": format!("\"{message}\"")}]);
        assert_eq!(*saw, expected, "the salt is the message's id");
        drawn += u64::from(found["parts"][1]["truth"] == "true");
    }
    assert!((1..20).contains(&drawn), "{drawn} of 20 are drawn");
    // Who matches a message that is over, or not begun, does not get it.
    let later = json!({"to": "all", "body": 1, "not_before": "2096-01-01T00:00:00Z",
                       "expires_at": "2097-01-01T00:00:00Z"});
    let scheduled = bench.message(app, later).await;
    bench.written(Call::to(RECALL, &[&app.id, &message])).await;
    for (message, state) in [(&scheduled, "scheduled"), (&message, "recalled")] {
        let call = explain(app, json!({"message": message, "device": id(5)}));
        let found = bench.read(call.clone()).await.json();
        assert_eq!(found["matches"], true, "{found}");
        assert_eq!(found["message"], json!({"id": message, "state": state, "gets": false}));
        let answer = bench.read(call.header("accept", "text/plain; charset=utf-8")).await;
        let answer = String::from_utf8_lossy(&answer.body).into_owned();
        let first = format!("device {} does not get message {message}, which is {state}\n", id(5));
        assert!(answer.starts_with(&first), "{answer}");
    }
}

/// Runs `carillon explain` with the cluster's token.
fn cli(bench: &Bench, flags: &[&str]) -> Output {
    let binary = std::env::var_os("CARILLON_BIN")
        .expect("CARILLON_BIN names the executable; run `make test`");
    let mut command = Command::new(binary);
    command.env("CARILLON_ADMIN_TOKEN", &bench.admin.token);
    command.env("CARILLON_ADMIN_URL", format!("http://{}", bench.cluster.admin_address()));
    command.arg("explain").args(flags).output().expect("run carillon")
}

async fn explained_on_the_command_line(bench: &mut Bench, app: &App) {
    let device = id(5);
    let out = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let err = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let asked = ["--app", &app.id, "--device", &device, "--to", "#vip and age > 30"];
    let output = cli(bench, &asked);
    let expected = format!(
        "device {device} is no recipient\nunknown  and\ntrue       #vip\nunknown    age > 30    [age is missing]\n"
    );
    assert_eq!((out(&output), output.status.code()), (expected, Some(0)), "{}", err(&output));
    let message = bench.message(app, json!({"to": "#vip", "body": 1})).await;
    let output =
        cli(bench, &["--app", &app.id, "--device", &device, "--message", &message, "--json"]);
    let json: Value = serde_json::from_str(&out(&output)).expect("JSON");
    assert_eq!(json["message"]["gets"], true, "{json}");
    // What is wrong is told with exit code 1: the expression with its caret, the rest in words.
    let output = cli(bench, &["--app", &app.id, "--device", &device, "--to", "#vop"]);
    assert_eq!(output.status.code(), Some(1));
    let told = err(&output);
    assert!(told.contains("^") && told.contains("#vip") && out(&output).is_empty(), "{told}");
    let output = cli(bench, &["--app", &app.id, "--device", NOBODY, "--to", "all"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("there is no such device"), "{}", err(&output));
    let file = bench.cluster.data().join("wrong.token");
    std::fs::write(&file, "0123456789abcdef\n").expect("write");
    let wrong = ["--token-file", file.to_str().expect("UTF-8")];
    let output = cli(bench, &[&asked[..], &wrong].concat());
    assert_eq!(output.status.code(), Some(1), "the flag wins over the variable");
    assert!(err(&output).contains("401"), "{}", err(&output));
    for usage in [&asked[..4], &[&asked[..], &["--message", &message]].concat()] {
        assert_eq!(cli(bench, usage).status.code(), Some(2), "{usage:?}");
    }
}

fn compare(app: &App, body: Value) -> Call {
    Call::to(COMPARE, &[&app.id]).json(body)
}

async fn compared(bench: &mut Bench, app: &App) {
    type Predicate = fn(u64) -> bool;
    let cases: [(&str, Predicate); 6] = [
        ("all", |_| true),
        ("not all", |_| false),
        ("country in ('KE', 'SE')", |n| n % 3 != 0),
        ("country != 'KE'", |n| n % 3 == 2),
        ("#vip", |n| n % 5 == 0),
        ("tags any ('even') and not #vip", |n| n % 2 == 0 && n % 5 != 0),
    ];
    for (before, had) in cases {
        for (after, has) in cases {
            let body = json!({"before": before, "after": after, "sample": 1000});
            let found = bench.read(compare(app, body)).await.json();
            let ids = |keep: &dyn Fn(u64) -> bool| {
                (1..=DEVICES).filter(|n| keep(*n)).map(id).collect::<Vec<String>>()
            };
            for (side, expected) in
                [("gain", ids(&|n| !had(n) && has(n))), ("lose", ids(&|n| had(n) && !has(n)))]
            {
                assert_eq!(
                    found[side]["count"],
                    json!(expected.len()),
                    "{before} {after}: {found}"
                );
                let mut sample: Vec<&str> = found[side]["sample"]
                    .as_array()
                    .expect("ids")
                    .iter()
                    .filter_map(Value::as_str)
                    .collect();
                sample.sort_unstable();
                assert_eq!(sample, expected, "{before} {after}");
            }
            let keep = (1..=DEVICES).filter(|n| had(*n) && has(*n)).count();
            assert_eq!((&found["keep"], &found["of"]), (&json!(keep), &json!(DEVICES)));
        }
    }
    // The recipients of a message; ten ids unless it is said, and the same draw on both sides.
    let message = bench.message(app, json!({"to": "#vip and sample(50%)", "body": 1})).await;
    let body = json!({"message": message, "after": "#vip and sample(100%) or country == 'KE'"});
    let found = bench.read(compare(app, body)).await.json();
    assert_eq!(text(&found, "before"), "#vip and sample(50%)");
    assert_eq!(text(&found, "after"), "#vip and sample(100%) or country == \"KE\"");
    assert_eq!(
        (&found["lose"]["count"], found["gain"]["sample"].as_array().map(Vec::len)),
        (&json!(0), Some(10))
    );
    let kept = found["keep"].as_u64().expect("a number");
    assert!((1..DEVICES / 5).contains(&kept), "{found}");
    let body = json!({"message": message, "after": "all", "sample": 0});
    let found = bench.read(compare(app, body)).await.json();
    assert_eq!((&found["keep"], &found["gain"]["sample"]), (&json!(kept), &json!([])));
    // A salt of its own draws as an edit would save it: the same for both.
    let body = json!({"before": "sample(50%)", "after": "sample(50%) and all"});
    let found = bench.read(compare(app, body)).await.json();
    assert_eq!((&found["gain"]["count"], &found["lose"]["count"]), (&json!(0), &json!(0)));
}

fn complete(app: &App, body: Value) -> Call {
    Call::to(COMPLETE, &[&app.id]).json(body)
}

async fn completed(bench: &mut Bench, app: &App) {
    let shown = |answer: &Value| {
        let all = answer["suggestions"].as_array().expect("suggestions").clone();
        all.into_iter()
            .map(|s| (text(&s, "text").to_owned(), s["count"].clone()))
            .collect::<Vec<_>>()
    };
    let third = json!(DEVICES / 3);
    let answer = bench.read(complete(app, json!({"text": "country == "}))).await.json();
    let mut values = shown(&answer);
    values.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        values,
        [("\"KE\"".to_owned(), third.clone()), ("\"SE\"".to_owned(), third.clone())]
    );
    assert_eq!((&answer["counted"], &answer["of"]), (&json!(DEVICES), &json!(DEVICES)));
    // Of a set, its entries, by how many devices have each.
    let answer = bench.read(complete(app, json!({"text": "tags any (\"n\", "}))).await.json();
    let half = json!(DEVICES / 2);
    assert_eq!(
        shown(&answer),
        [("\"n\"".to_owned(), json!(DEVICES)), ("\"even\"".to_owned(), half)]
    );
    // A word that has been begun is what the suggestion replaces, in bytes and in UTF-16; what comes after the cursor
    // is not looked at, and neither are values where none may come.
    for cursor in [json!({"cursor": 14}), json!({"cursor_utf16": 12})] {
        let mut body = json!({"text": "/* 😀 */ cou == nonsense ("});
        body.as_object_mut().expect("an object").extend(cursor.as_object().expect("one").clone());
        let answer = bench.read(complete(app, body)).await.json();
        let expected = json!({
            "span": {"start": 11, "end": 14}, "span_utf16": {"start": 9, "end": 12}, "counted": 0, "of": DEVICES,
            "suggestions": [{"text": "country", "kind": "attribute", "detail": "string", "count": null}],
        });
        assert_eq!(answer, expected);
    }
    for (written, expected) in
        [("#", "#vip"), ("a", "age"), ("has c", "country"), ("#vip a", "and")]
    {
        let answer = bench.read(complete(app, json!({"text": written}))).await.json();
        assert!(shown(&answer).iter().any(|(text, _)| text == expected), "{written}: {answer}");
    }
    // Places that are none: beyond the end is the end, within a character its beginning; too long a text has nothing.
    for body in [
        json!({"text": "", "cursor": 99}),
        json!({"text": "é", "cursor": 1}),
        json!({"text": "😀", "cursor_utf16": 1}),
    ] {
        let answer = bench.read(complete(app, body)).await.json();
        assert_eq!(answer["span"], json!({"start": 0, "end": 0}), "{answer}");
    }
    let answer = bench.read(complete(app, json!({"text": " ".repeat(70_000)}))).await.json();
    assert_eq!(answer["suggestions"], json!([]));
}

/// What looks at the clock is judged by one that the answer names.
async fn by_the_clock(bench: &mut Bench, app: &App) {
    let volatile = "not has last_seen";
    let body = json!({"device": id(5), "to": volatile});
    let explained = bench.read(explain(app, body)).await.json();
    assert_eq!((&explained["matches"], explained["at"].is_string()), (&json!(true), true));
    let body = json!({"before": "last_seen within 7d", "after": volatile});
    let compared = bench.read(compare(app, body)).await.json();
    assert_eq!((&compared["gain"]["count"], &compared["of"]), (&json!(DEVICES), &json!(DEVICES)));
    assert!(compared["at"].is_string(), "{compared}");
}

async fn refused(bench: &mut Bench, app: &App) {
    let message = bench.message(app, json!({"to": "all", "body": 1})).await;
    let (device, to) = (id(5), "all");
    for (call, code) in [
        (explain(app, json!({"device": device})), "invalid"),
        (explain(app, json!({"device": device, "to": to, "message": message})), "invalid"),
        (explain(app, json!({"device": device, "to": "nothing"})), "bad-expression"),
        (compare(app, json!({"after": to})), "invalid"),
        (compare(app, json!({"after": to, "before": to, "message": message})), "invalid"),
        (compare(app, json!({"after": to, "before": to, "sample": 1001})), "invalid"),
        (compare(app, json!({"after": "nothing", "before": to})), "bad-expression"),
        (compare(app, json!({"after": to, "before": "nothing"})), "bad-expression"),
        (complete(app, json!({"text": "a", "cursor": 1, "cursor_utf16": 1})), "invalid"),
    ] {
        bench.refused(call, 422, code).await;
    }
    for call in [
        explain(app, json!({"device": NOBODY, "to": to})),
        explain(app, json!({"device": device, "message": NOBODY})),
        compare(app, json!({"message": NOBODY, "after": to})),
    ] {
        bench.refused(call, 404, "not-found").await;
    }
    for call in [
        explain(app, json!({"device": "5", "to": to})),
        compare(app, json!({"before": to, "after": to, "sample": -1})),
        complete(app, json!({"text": "a", "cursor": -1})),
    ] {
        bench.refused(call, 400, "bad-request").await;
    }
    // Another app's devices and messages are nobody's here.
    let other = bench.app().await;
    let theirs =
        bench.written(Call::to(CREATE, &[&other.id]).json(json!({"to": "all", "body": 1}))).await;
    let theirs = text(&theirs.json(), "id").to_owned();
    bench
        .refused(explain(app, json!({"device": device, "message": theirs})), 404, "not-found")
        .await;
    bench.refused(explain(&other, json!({"device": device, "to": "all"})), 404, "not-found").await;
}

/// What is configured is what each call goes by.
#[tokio::test]
async fn limits_of_expressions_are_those_of_the_configuration() {
    let flags = [
        ["--central-expression-bytes-max", "40B"],
        ["--central-expression-nodes-max", "6"],
        ["--central-expression-depth-max", "3"],
    ];
    let cluster = Cluster::start_with(Store::Sqlite, &flags.concat(), &[]).await;
    let mut admin = cluster.admin();
    let app = admin.ok("POST", "/v1/apps", json!({"name": "shop", "environment": "sandbox"})).await;
    let path = format!("/v1/apps/{}", text(&app, "id"));
    let preview = format!("{path}/audience:preview");
    for (fits, more, kind) in [
        (format!("all{}", " ".repeat(37)), format!("all{}", " ".repeat(38)), "too_long"),
        (
            "user in ('a','b','c','d')".into(),
            "user in ('a','b','c','d','e','f')".into(),
            "too_many_nodes",
        ),
        ("not (not all)".into(), "not (not (all))".into(), "too_deep"),
    ] {
        admin.ok("POST", &preview, json!({"to": fits})).await;
        for (call, body) in [
            (&preview, json!({"to": more})),
            (&format!("{path}/messages"), json!({"to": more, "body": 1})),
            (&format!("{path}/audience:compare"), json!({"before": "all", "after": more})),
        ] {
            let answer = admin.call("POST", call, body).await;
            let problem = answer.expect_problem(422, "bad-expression");
            assert_eq!(text(&problem["errors"][0], "kind"), kind, "{more}: {problem}");
        }
    }
}
