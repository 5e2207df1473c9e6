//! Apps, the attributes that they declare, and groups.

use carillon_tests::admin::text;
use serde_json::{Value, json};

use crate::bench::{Bench, Call};

const APPS: &str = "POST /v1/apps";
const APP: &str = "GET /v1/apps/{app}";
const ATTRIBUTE: &str = "PUT /v1/apps/{app}/attributes/{name}";
const DELETE_ATTRIBUTE: &str = "DELETE /v1/apps/{app}/attributes/{name}";
const ATTRIBUTES: &str = "GET /v1/apps/{app}/attributes";
const GROUPS: &str = "POST /v1/apps/{app}/groups";
const GROUP: &str = "GET /v1/apps/{app}/groups/{group}";
const RENAME: &str = "PATCH /v1/apps/{app}/groups/{group}";
const DELETE_GROUP: &str = "DELETE /v1/apps/{app}/groups/{group}";

pub(crate) async fn check(bench: &mut Bench) {
    apps(bench).await;
    attributes(bench).await;
    attributes_in_use(bench).await;
    groups(bench).await;
    groups_in_use(bench).await;
}

fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

async fn apps(bench: &mut Bench) {
    // Names that a database might take for one another are not.
    let long = "é".repeat(64);
    let names = ["Ωmega", "omega", "Omega", "omega ", "o", "名前", "a\\'\"%_`;--", &long];
    for (name, environment) in names.iter().zip(["sandbox", "production"].iter().cycle()) {
        let new = json!({"name": name, "environment": environment});
        let made = bench.written(Call::to(APPS, &[]).json(new.clone())).await;
        assert_eq!(made.status, 201);
        let made = made.json();
        assert_eq!((text(&made, "name"), text(&made, "environment")), (*name, *environment));
        assert!(
            is_id(text(&made, "id")) && text(&made, "publishable_key").starts_with("pk_"),
            "{made}"
        );
        let upper = text(&made, "id").to_uppercase();
        for id in [text(&made, "id"), &upper] {
            let mut found = bench.read(Call::to(APP, &[id])).await.json();
            let members = found.as_object_mut().expect("an object");
            for more in ["quotas", "limits", "usage"] {
                assert!(members.remove(more).is_some_and(|more| more.is_object()), "{more}");
            }
            assert_eq!(found, made);
        }
        bench.refused(Call::to(APPS, &[]).json(new), 409, "exists").await;
    }
    let listed = bench.read(Call::to("GET /v1/apps", &[])).await.json();
    let listed: Vec<&str> =
        listed["apps"].as_array().expect("apps").iter().map(|app| text(app, "name")).collect();
    assert!(listed.is_sorted() && names.iter().all(|name| listed.contains(name)), "{listed:?}");
    let too_long = "é".repeat(64) + "x";
    for name in ["", " ", "\t\n", "a\nb", "a\u{0}b", "a\u{7f}", &too_long] {
        let new = json!({"name": name, "environment": "sandbox"});
        bench.refused(Call::to(APPS, &[]).json(new), 422, "invalid").await;
    }
    for environment in ["Sandbox", "", "test"] {
        let new = json!({"name": "x", "environment": environment});
        bench.refused(Call::to(APPS, &[]).json(new), 400, "bad-request").await;
    }
    // Half of a surrogate pair is no text.
    let half = r#"{"name": "\ud800", "environment": "sandbox"}"#;
    bench.refused(Call::to(APPS, &[]).text(half), 400, "bad-request").await;
}

async fn attributes(bench: &mut Bench) {
    let app = bench.app().await;
    let at = |name: &str| Call::to(ATTRIBUTE, &[&app.id, name]);
    let longest = "x".repeat(64);
    let names = ["country", "Country", "_", "in-app", "a.b-c", "and_more", "V2", &longest];
    let kinds = ["string", "number", "bool", "version", "date", "time", "point", "set"];
    let setters = ["server", "device", "both"];
    let mut declared = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        let (kind, set_by) = (kinds[index % kinds.len()], setters[index % 3]);
        let body = json!({"type": kind, "set_by": set_by});
        let made = bench.written(at(name).json(body.clone())).await.json();
        let id = text(&made, "id");
        assert!(is_id(id));
        assert_eq!(made, json!({"id": id, "name": name, "type": kind, "set_by": set_by}));
        assert_eq!(bench.unchanged(at(name).json(body)).await.json(), made, "a repeat");
        declared.push(made);
    }
    declared.sort_by(|a, b| text(a, "name").cmp(text(b, "name")));
    let listed = bench.read(Call::to(ATTRIBUTES, &[&app.id])).await.json();
    assert_eq!(listed, json!({"attributes": declared}));
    // The server alone, if nothing is said; who may set it can be changed, and the type while nothing uses it.
    let made = bench.written(at("bare").json(json!({"type": "bool"}))).await.json();
    assert_eq!(text(&made, "set_by"), "server");
    for body in
        [json!({"type": "bool", "set_by": "both"}), json!({"type": "number", "set_by": "both"})]
    {
        let changed = bench.written(at("bare").json(body.clone())).await.json();
        assert_eq!((&changed["id"], &changed["type"]), (&made["id"], &body["type"]));
    }
    let gone = bench.written(Call::to(DELETE_ATTRIBUTE, &[&app.id, "bare"])).await;
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    bench.refused(Call::to(DELETE_ATTRIBUTE, &[&app.id, "bare"]), 404, "not-found").await;
    let again = bench.written(at("bare").json(json!({"type": "bool"}))).await.json();
    assert_ne!(again["id"], made["id"], "an id is never given twice");

    let too_long = "x".repeat(65);
    for name in [
        "1a", "a b", "é", "a..b", "-a", "a-", ".", "and", "or", "not", "in", "has", "all", "true",
        "false", "a/b", "a\u{0}", "#a", "%", "名", "v2", "near", &too_long,
    ] {
        bench.refused(at(name).json(json!({"type": "string"})), 422, "invalid").await;
    }
    for body in [
        json!({"type": "dates"}),
        json!({"type": "String"}),
        json!({"type": ""}),
        json!({"type": "string", "set_by": "nobody"}),
        json!({"type": "string", "set_by": null}),
    ] {
        bench.refused(at("country").json(body), 400, "bad-request").await;
    }
    for unknown in ["nothing", "COUNTRY", " country"] {
        bench.refused(Call::to(DELETE_ATTRIBUTE, &[&app.id, unknown]), 404, "not-found").await;
    }
    let nobody = "00000000000000ff";
    let call = Call::to(ATTRIBUTE, &[nobody, "country"]).json(json!({"type": "string"}));
    bench.refused(call, 404, "not-found").await;
}

/// What a message refers to, also by an earlier revision, or a device has a value of, is neither deleted nor retyped.
async fn attributes_in_use(bench: &mut Bench) {
    let app = bench.app().await;
    bench.attribute(&app, "country", "string", "server").await;
    bench.attribute(&app, "age", "number", "server").await;
    bench.import(&app, &[json!({"id": "00000000000000d1", "attributes": {"age": 7}})]).await;
    let retype = |name: &str| {
        Call::to(ATTRIBUTE, &[&app.id, name]).json(json!({"type": "version", "set_by": "server"}))
    };
    let delete = |name: &str| Call::to(DELETE_ATTRIBUTE, &[&app.id, name]);
    bench.refused(retype("age"), 409, "in-use").await;
    bench.refused(delete("age"), 409, "in-use").await;
    let first = bench.message(&app, json!({"to": "country == \"KE\"", "body": 1})).await;
    let second = bench.message(&app, json!({"to": "has country", "body": 2})).await;
    let edit = Call::to("PATCH /v1/apps/{app}/messages/{message}", &[&app.id, &second]);
    bench.written(edit.json(json!({"to": "all"}))).await;
    for call in [retype("country"), delete("country")] {
        let problem = bench.refused(call, 409, "referenced").await;
        let mut listed: Vec<&str> =
            problem["messages"].as_array().expect("ids").iter().filter_map(Value::as_str).collect();
        listed.sort_unstable();
        let mut expected = [first.as_str(), &second];
        expected.sort_unstable();
        assert_eq!(listed, expected);
    }
    // Who may set it does not concern messages.
    let both = json!({"type": "string", "set_by": "both"});
    bench.written(Call::to(ATTRIBUTE, &[&app.id, "country"]).json(both)).await;
    let patch = Call::to("PATCH /v1/apps/{app}/devices/{device}", &[&app.id, "00000000000000d1"]);
    bench.written(patch.json(json!({"attributes": {"age": null}}))).await;
    bench.written(retype("age")).await;
    bench.written(delete("age")).await;
}

async fn groups(bench: &mut Bench) {
    let app = bench.app().await;
    let longest = "g".repeat(64);
    let names = ["vip", "VIP", "a/b:c.d-e_f", "and", "-", "0", &longest];
    let mut made = Vec::new();
    for (name, set_by) in names.into_iter().zip(["server", "device", "both"].into_iter().cycle()) {
        let new = json!({"name": name, "set_by": set_by});
        let answer = bench.written(Call::to(GROUPS, &[&app.id]).json(new.clone())).await;
        assert_eq!(answer.status, 201);
        let group = answer.json();
        let id = text(&group, "id").to_owned();
        assert!(is_id(&id));
        assert_eq!(group, json!({"id": id, "name": name, "set_by": set_by, "members": 0}));
        for reference in [id, format!("name:{name}")] {
            assert_eq!(bench.read(Call::to(GROUP, &[&app.id, &reference])).await.json(), group);
        }
        bench.refused(Call::to(GROUPS, &[&app.id]).json(new), 409, "exists").await;
        made.push(group);
    }
    made.sort_by(|a, b| text(a, "id").cmp(text(b, "id")));
    let mut listed = bench.read(Call::to("GET /v1/apps/{app}/groups", &[&app.id])).await.json();
    // The order is stable, and nothing else.
    let all = listed["groups"].as_array_mut().expect("groups");
    all.sort_by(|a, b| text(a, "id").cmp(text(b, "id")));
    assert_eq!(listed, json!({"groups": made, "next": null}));
    let bare =
        bench.written(Call::to(GROUPS, &[&app.id]).json(json!({"name": "bare"}))).await.json();
    assert_eq!(text(&bare, "set_by"), "server");

    let too_long = "g".repeat(65);
    for name in ["", " ", "a b", ":a", "é", "#vip", "a\n", "a\u{0}", "名", &too_long] {
        let call = Call::to(GROUPS, &[&app.id]).json(json!({"name": name}));
        bench.refused(call, 422, "invalid").await;
        let call = Call::to(RENAME, &[&app.id, "name:bare"]).json(json!({"name": name}));
        bench.refused(call, 422, "invalid").await;
    }
    let set_by = json!({"name": "x", "set_by": "admin"});
    bench.refused(Call::to(GROUPS, &[&app.id]).json(set_by), 400, "bad-request").await;

    let rename =
        |name: &str| Call::to(RENAME, &[&app.id, text(&bare, "id")]).json(json!({"name": name}));
    bench.refused(rename("vip"), 409, "exists").await;
    assert_eq!(bench.unchanged(rename("bare")).await.json(), bare);
    let renamed = bench.written(rename("Bare")).await.json();
    assert_eq!((&renamed["id"], text(&renamed, "name")), (&bare["id"], "Bare"));
    bench.refused(Call::to(GROUP, &[&app.id, "name:bare"]), 404, "not-found").await;
    let gone = bench.written(Call::to(DELETE_GROUP, &[&app.id, "name:Bare"])).await;
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    bench.refused(Call::to(DELETE_GROUP, &[&app.id, text(&bare, "id")]), 404, "not-found").await;
}

async fn groups_in_use(bench: &mut Bench) {
    let app = bench.app().await;
    let vip = bench.group(&app, "vip", "server").await;
    let message = bench.message(&app, json!({"to": "not #vip", "body": 1})).await;
    let delete = Call::to(DELETE_GROUP, &[&app.id, &vip]);
    let problem = bench.refused(delete.clone(), 409, "referenced").await;
    assert_eq!(problem["messages"], json!([message]));
    // Messages refer to ids: a rename changes nothing but print.
    let rename = Call::to(RENAME, &[&app.id, &vip]).json(json!({"name": "gold"}));
    bench.written(rename).await;
    let read = Call::to("GET /v1/apps/{app}/messages/{message}", &[&app.id, &message]);
    let read = bench.read(read).await.json();
    assert_eq!((text(&read, "to"), &read["revision"]), ("not #gold", &json!(1)));
    // Recalled messages are remembered to the horizon, and what they refer to with them.
    let recall = Call::to("POST /v1/apps/{app}/messages/{message}:recall", &[&app.id, &message]);
    bench.written(recall).await;
    bench.refused(delete, 409, "referenced").await;

    let staff = bench.group(&app, "staff", "server").await;
    bench.import(&app, &[json!({"id": "00000000000000d1", "groups": ["staff"]})]).await;
    let delete = Call::to(DELETE_GROUP, &[&app.id, &staff]);
    bench.refused(delete.clone(), 409, "in-use").await;
    let remove = Call::to("POST /v1/apps/{app}/groups/{group}/members:remove", &[&app.id, &staff]);
    bench.written(remove.json(json!({"devices": ["00000000000000d1"]}))).await;
    bench.written(delete).await;
}
