use http::Method;
use serde_json::{Value, json};

use crate::harness::{ADMIN, start};

fn device(n: u64) -> String {
    format!("{n:016x}")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_but_health_refuses_a_caller_without_the_token() {
    let bench = start().await;
    let document: Value = serde_json::from_str(carillon_central::openapi()).unwrap();
    let mut calls = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let filled = path
            .replace("{app}", "00000000000000aa")
            .replace("{name}", "country")
            .replace("{group}", "00000000000000aa")
            .replace("{device}", "00000000000000aa")
            .replace("{callback}", "00000000000000aa")
            .replace("{message}", "00000000000000aa");
        for method in item.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            for headers in [&[][..], &[("authorization", "Bearer wrong-token-wrong-token")]] {
                let reply = bench.send(method.clone(), &filled, headers, "not even json").await;
                if ["/healthz", "/readyz", "/metrics", "/openapi.json"].contains(&path.as_str()) {
                    reply.json(200);
                } else {
                    reply.problem(401, "unauthorized");
                    assert_eq!(reply.headers["www-authenticate"], "Bearer");
                    calls += 1;
                }
            }
        }
    }
    assert_eq!(calls, 2 * 50);
    // A path that is none of ours, and a method that a path does not have.
    bench.get("/v1/nothing").await.problem(404, "not-found");
    bench.delete("/v1/apps").await.problem(405, "method-not-allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_are_created_once_and_found() {
    let bench = start().await;
    let created =
        bench.post("/v1/apps", json!({"name": "Shop", "environment": "production"})).await;
    let app = created.json(201);
    assert!(app["publishable_key"].as_str().unwrap().starts_with("pk_"));
    let position = created.headers["carillon-position"].to_str().unwrap();
    assert!(position.starts_with("0/") && position.ends_with("/1"), "{position}");
    let path = format!("/v1/apps/{}", app["id"].as_str().unwrap());
    let found = bench.get(&path).await.json(200);
    for (key, value) in app.as_object().unwrap() {
        assert_eq!(&found[key], value, "{key}");
    }
    assert_eq!(
        (&found["usage"]["devices"], &found["limits"]["groups_max"]),
        (&json!(0), &json!(1_000_000))
    );
    assert_eq!(bench.get("/v1/apps").await.json(200), json!({"apps": [app]}));
    bench
        .post("/v1/apps", json!({"name": "Shop", "environment": "sandbox"}))
        .await
        .problem(409, "exists");
    bench
        .post("/v1/apps", json!({"name": "", "environment": "sandbox"}))
        .await
        .problem(422, "invalid");
    bench
        .post("/v1/apps", json!({"name": "x", "environment": "moon"}))
        .await
        .problem(400, "bad-request");
    bench.post("/v1/apps", json!({"name": "x"})).await.problem(400, "bad-request");
    bench
        .post("/v1/apps", json!({"name": "x", "environment": "sandbox", "a": 1}))
        .await
        .problem(400, "bad-request");
    bench.post_text("/v1/apps", "{").await.problem(400, "bad-request");
    bench.post_text("/v1/apps", &"x".repeat(1024 * 1024 + 1)).await.problem(413, "too-large");
    for path in ["/v1/apps/00000000000000aa", "/v1/apps/zz", "/v1/apps/%ff"] {
        assert!([400, 404].contains(&bench.get(path).await.status), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_declared_and_deleted() {
    let bench = start().await;
    let app = bench.app().await;
    let listed = bench.get(&format!("{app}/attributes")).await.json(200);
    let names: Vec<&str> = listed["attributes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["app_version", "country"]);
    let age = format!("{app}/attributes/age");
    let declared = bench.put(&age, json!({"type": "number"})).await.json(200);
    assert_eq!((&declared["type"], &declared["set_by"]), (&json!("number"), &json!("server")));
    let again = bench.put(&age, json!({"type": "number"})).await.json(200);
    assert_eq!(declared["id"], again["id"]);
    bench.put(&age, json!({"type": "bool"})).await.json(200);
    bench.put(&age, json!({"type": "colour"})).await.problem(400, "bad-request");
    bench
        .put(&format!("{app}/attributes/and"), json!({"type": "bool"}))
        .await
        .problem(422, "invalid");
    bench.delete(&age).await.json(204);
    bench.delete(&age).await.problem(404, "not-found");
    bench
        .post(&format!("{app}/messages"), json!({"to": "country == \"KE\"", "body": 1}))
        .await
        .json(201);
    let refused =
        bench.delete(&format!("{app}/attributes/country")).await.problem(409, "referenced");
    assert_eq!(refused["messages"].as_array().unwrap().len(), 1);
    bench
        .put(&format!("{app}/attributes/country"), json!({"type": "bool"}))
        .await
        .problem(409, "referenced");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_have_names_members_and_pages() {
    let bench = start().await;
    let app = bench.app().await;
    let groups = format!("{app}/groups");
    for n in 0..5 {
        bench.post(&groups, json!({"name": format!("g{n}")})).await.json(201);
    }
    bench.post(&groups, json!({"name": "g0"})).await.problem(409, "exists");
    bench.post(&groups, json!({"name": "no good"})).await.problem(422, "invalid");
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = bench.get(&format!("{groups}?limit=2{after}")).await.json(200);
        for group in page["groups"].as_array().unwrap() {
            names.push(group["name"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    names.sort();
    assert_eq!(names, ["g0", "g1", "g2", "g3", "g4", "vip"]);
    for bad in ["limit=0", "limit=1001", "limit=x", "after=zz"] {
        bench.get(&format!("{groups}?{bad}")).await.problem(400, "bad-request");
    }

    let import: String = (1..=3).map(|n| format!("{{\"id\":\"{}\"}}\n", device(n))).collect();
    bench.post_text(&format!("{app}/devices:import"), &import).await.json(200);
    let add = format!("{groups}/name:vip/members:add");
    let ids = json!({"devices": [device(1), device(2), device(9)]});
    let report = bench.post(&add, ids.clone()).await.json(200);
    assert_eq!(
        (&report["changed"], &report["unchanged"], &report["unknown"]),
        (&json!(2), &json!(0), &json!([device(9)]))
    );
    let report = bench.post(&add, ids).await.json(200);
    assert_eq!((&report["changed"], &report["unchanged"]), (&json!(0), &json!(2)));
    let vip = bench.get(&format!("{groups}/name:vip")).await.json(200);
    assert_eq!(vip["members"], 2);
    let by_id = format!("{groups}/{}", vip["id"].as_str().unwrap());
    assert_eq!(bench.get(&by_id).await.json(200), vip);
    assert_eq!(bench.patch(&by_id, json!({"name": "gold"})).await.json(200)["name"], "gold");
    bench.patch(&by_id, json!({"name": "g1"})).await.problem(409, "exists");
    bench.delete(&by_id).await.problem(409, "in-use");
    let report = bench
        .post(&format!("{by_id}/members:remove"), json!({"devices": [device(1), device(2)]}))
        .await;
    assert_eq!(report.json(200)["changed"], 2);
    bench.delete(&by_id).await.json(204);
    bench.get(&by_id).await.problem(404, "not-found");
    bench.post(&add, json!({"devices": []})).await.problem(404, "not-found");
    let many: Vec<String> = (0..10_001).map(device).collect();
    bench
        .post(&format!("{groups}/name:g1/members:add"), json!({"devices": many}))
        .await
        .problem(413, "too-large");
    let many: Vec<String> = (0..10_000).map(device).collect();
    let report = bench
        .post(&format!("{groups}/name:g1/members:add"), json!({"devices": many}))
        .await
        .json(200);
    assert_eq!(report["changed"], 3);
    assert_eq!(report["unknown"].as_array().unwrap().len(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_patched_revoked_and_forgotten() {
    let bench = start().await;
    let app = bench.app().await;
    bench
        .post_text(&format!("{app}/devices:import"), &format!("{{\"id\":\"{}\"}}", device(1)))
        .await
        .json(200);
    let path = format!("{app}/devices/{}", device(1));
    let patched = bench
        .patch(
            &path,
            json!({
                "user": "u1",
                "attributes": {"country": "KE", "app_version": "v2.3.0"},
                "groups": {"vip": true},
                "tokens": [{"channel": "fcm", "token": "t"}],
            }),
        )
        .await
        .json(200);
    assert_eq!(patched["attributes"], json!({"country": "KE", "app_version": "2.3"}));
    assert_eq!(
        (&patched["user"], &patched["groups"], &patched["tokens"]),
        (&json!("u1"), &json!(["vip"]), &json!(1))
    );
    assert_eq!(bench.get(&path).await.json(200), patched);
    let patched = bench
        .patch(
            &path,
            json!({"user": null, "attributes": {"country": null}, "groups": {"vip": false}}),
        )
        .await
        .json(200);
    assert_eq!(patched["attributes"], json!({"app_version": "2.3"}));
    assert_eq!(
        (&patched["user"], &patched["groups"], &patched["tokens"]),
        (&Value::Null, &json!([]), &json!(1))
    );
    for (body, status, code) in [
        (json!({"attributes": {"colour": "red"}}), 422, "unknown-attribute"),
        (json!({"attributes": {"country": 3}}), 422, "wrong-type"),
        (json!({"attributes": {"country": []}}), 422, "wrong-type"),
        (json!({"attributes": {"country": [1]}}), 400, "bad-request"),
        (json!({"attributes": {"app_version": "x"}}), 422, "wrong-type"),
        (json!({"groups": {"nobody": true}}), 422, "unknown-group"),
        (json!({"user": ""}), 422, "invalid"),
        (json!({"tokens": [{"channel": "pigeon", "token": "t"}]}), 400, "bad-request"),
    ] {
        bench.patch(&path, body).await.problem(status, code);
    }
    bench.post(&format!("{path}/revoke"), json!(null)).await.json(200);
    bench.delete(&path).await.json(204);
    for reply in
        [bench.get(&path).await, bench.delete(&path).await, bench.patch(&path, json!({})).await]
    {
        reply.problem(404, "not-found");
    }
    bench.post(&format!("{path}/revoke"), json!(null)).await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_keeps_the_good_lines_and_reports_the_bad_ones() {
    let bench = start().await;
    let app = bench.app().await;
    let import = format!("{app}/devices:import");
    let mut lines: Vec<String> = (1..=1_200)
        .map(|n| {
            let secret = format!("{n:064x}");
            format!(r##"{{"id":"{}","secret_sha256":"{secret}","attributes":{{"country":"KE"}},"groups":["vip"]}}"##, device(n))
        })
        .collect();
    lines[9] = "{".to_owned();
    lines[10] = r#"{"attributes":{"colour":"red"}}"#.to_owned();
    lines[699] = format!(r#"{{"user":"{}"}}"#, "x".repeat(2 * 1024 * 1024));
    lines[700] = r#"{"secret_sha256":"00"}"#.to_owned();
    let report = bench.post_text(&import, &lines.join("\n")).await.json(200);
    assert_eq!(
        (&report["lines"], &report["created"], &report["bad"]),
        (&json!(1_200), &json!(1_196), &json!(4))
    );
    let errors: Vec<_> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["line"].as_u64().unwrap(), e["code"].as_str().unwrap()))
        .collect();
    assert_eq!(
        errors,
        [(10, "bad-line"), (11, "unknown-attribute"), (700, "too-large"), (701, "bad-line")]
    );

    let again = bench.post_text(&import, &(lines.join("\r\n") + "\n\n")).await.json(200);
    assert_eq!((&again["created"], &again["unchanged"]), (&json!(0), &json!(1_196)));
    assert_eq!(report["position"], again["position"], "a repeat moves nothing");

    let mut exported: Vec<Value> = bench
        .get(&format!("{app}/devices:export"))
        .await
        .text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    exported.sort_by_key(|line| line["id"].as_str().unwrap().to_owned());
    let mut expected: Vec<Value> = lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|l: &Value| l["id"].is_string())
        .collect();
    expected.sort_by_key(|line| line["id"].as_str().unwrap().to_owned());
    assert_eq!(exported, expected, "an export is an import again");

    let mut seen = 0;
    let mut after = String::new();
    loop {
        let page = bench.get(&format!("{app}/devices?limit=500{after}")).await.json(200);
        seen += page["devices"].as_array().unwrap().len();
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, 1_196);
    bench
        .post_text("/v1/apps/00000000000000aa/devices:import", "{}")
        .await
        .problem(404, "not-found");
    let empty = bench.post_text(&import, "").await.json(200);
    assert_eq!((&empty["lines"], &empty["position"]), (&json!(0), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_created_edited_and_recalled() {
    let bench = start().await;
    let app = bench.app().await;
    let messages = format!("{app}/messages");
    let raw = r##"{"to":"#vip and country==\"KE\"","body":{ "b": 1.0, "a": "é" },"priority":"high","collapse_key":"c"}"##;
    let created = bench.post_text(&messages, raw).await;
    let message = created.json(201);
    assert!(
        created.text.contains(r#""body":{ "b": 1.0, "a": "é" }"#),
        "kept as given: {}",
        created.text
    );
    assert_eq!(created.headers["etag"], "\"1\"");
    assert_eq!(message["to"], "#vip and country == \"KE\"");
    assert_eq!((&message["state"], &message["revision"]), (&json!("active"), &json!(1)));
    let path = format!("{messages}/{}", message["id"].as_str().unwrap());
    let read = bench.get(&path).await;
    assert!(read.text.contains(r#""body":{ "b": 1.0, "a": "é" }"#), "{}", read.text);
    assert_eq!(read.headers["etag"], "\"1\"");

    let edited = bench.patch_if(&path, "\"1\"", json!({"to": "all", "body": null})).await;
    assert_eq!(edited.headers["etag"], "\"2\"");
    let edited = edited.json(200);
    assert_eq!(
        (&edited["to"], &edited["body"], &edited["priority"]),
        (&json!("all"), &Value::Null, &json!("high"))
    );
    bench.patch_if(&path, "\"1\"", json!({"body": 2})).await.problem(412, "revision-mismatch");
    bench.patch_if(&path, "3", json!({"body": 2})).await.problem(400, "bad-request");
    bench.patch_if(&path, "*", json!({"body": 2})).await.json(200);
    let scheduled = bench
        .patch(
            &path,
            json!({"not_before": "2999-01-01T00:00:00Z", "expires_at": "2999-01-02T00:00:00Z"}),
        )
        .await;
    assert_eq!(scheduled.json(200)["state"], "scheduled");
    assert_eq!(bench.patch(&path, json!({"not_before": null})).await.json(200)["state"], "active");

    assert_eq!(
        bench.post(&format!("{path}:recall"), json!(null)).await.json(200)["state"],
        "recalled"
    );
    bench.post(&format!("{path}:recall"), json!(null)).await.json(200);
    bench.patch(&path, json!({"body": 3})).await.problem(409, "recalled");
    bench.post(&format!("{path}:explode"), json!(null)).await.problem(404, "not-found");
    bench.post(&path, json!(null)).await.problem(405, "method-not-allowed");
    bench
        .post(&format!("{messages}/00000000000000aa:recall"), json!(null))
        .await
        .problem(404, "not-found");
    bench.get(&format!("{messages}/00000000000000aa")).await.problem(404, "not-found");

    bench.post(&messages, json!({"to": "all", "body": 1})).await.json(201);
    let active = bench.get(&format!("{messages}?state=active")).await.json(200);
    assert_eq!(active["messages"].as_array().unwrap().len(), 1);
    assert_eq!(bench.get(&messages).await.json(200)["messages"].as_array().unwrap().len(), 2);
    bench.get(&format!("{messages}?state=lost")).await.problem(400, "bad-request");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_say_what_is_wrong() {
    let bench = start().await;
    let app = bench.app().await;
    let messages = format!("{app}/messages");
    let refused = bench
        .post(&messages, json!({"to": "contry == \"KE\" and app_version >= 3", "body": 1}))
        .await;
    let problem = refused.problem(422, "bad-expression");
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{problem}");
    assert_eq!(errors[0]["suggestion"], "country");
    assert_eq!((&errors[0]["line"], &errors[0]["column"]), (&json!(1), &json!(1)));
    assert_eq!(errors[0]["span"], json!({"start": 0, "end": 6}));
    assert!(errors[0]["rendered"].as_str().unwrap().contains('^'));
    bench.post(&messages, json!({"to": "all and", "body": 1})).await.problem(422, "bad-expression");
    bench.post(&messages, json!({"to": "all"})).await.problem(400, "bad-request");
    let large = "x".repeat(64 * 1024);
    bench.post(&messages, json!({"to": "all", "body": large})).await.problem(413, "too-large");
    for (not_before, expires_at) in [
        (Value::Null, json!("2001-01-01T00:00:00Z")),
        (json!("2999-01-02T00:00:00Z"), json!("2999-01-01T00:00:00Z")),
    ] {
        let body =
            json!({"to": "all", "body": 1, "not_before": not_before, "expires_at": expires_at});
        bench.post(&messages, body).await.problem(422, "bad-window");
    }
    bench
        .post(&messages, json!({"to": "all", "body": 1, "expires_at": "soon"}))
        .await
        .problem(400, "bad-request");
    bench
        .post(&messages, json!({"to": "all", "body": 1, "collapse_key": ""}))
        .await
        .problem(422, "invalid");
    bench
        .post("/v1/apps/00000000000000aa/messages", json!({"to": "all", "body": 1}))
        .await
        .problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_creates_once_also_across_a_restart() {
    let bench = start().await;
    let app = bench.app().await;
    let messages = format!("{app}/messages");
    let token = format!("Bearer {ADMIN}");
    let headers = [("authorization", token.as_str()), ("idempotency-key", "key-1")];
    let body = r#"{"to":"all","body":{"a": 1}}"#;
    let first = bench.send(Method::POST, &messages, &headers, body).await;
    first.json(201);
    let again = bench.send(Method::POST, &messages, &headers, body).await;
    assert_eq!((first.status, &first.text), (again.status, &again.text));
    let other = bench.send(Method::POST, &messages, &headers, r#"{"to":"all","body":2}"#).await;
    other.problem(409, "idempotency-key-reused");
    let bench = bench.restart().await;
    let again = bench.send(Method::POST, &messages, &headers, body).await;
    assert_eq!((first.status, &first.text), (again.status, &again.text));
    assert_eq!(bench.get(&messages).await.json(200)["messages"].as_array().unwrap().len(), 1);
    let long = "k".repeat(129);
    let headers = [("authorization", token.as_str()), ("idempotency-key", long.as_str())];
    bench.send(Method::POST, &messages, &headers, body).await.problem(422, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_counts_exactly() {
    let bench = start().await;
    let app = bench.app().await;
    let import: String = (1..=100)
        .map(|n| {
            let country = if n % 4 == 0 { r#","attributes":{"country":"KE"}"# } else { "" };
            format!("{{\"id\":\"{}\"{country}}}\n", device(n))
        })
        .collect();
    bench.post_text(&format!("{app}/devices:import"), &import).await.json(200);
    let preview = format!("{app}/audience:preview");
    let answer = bench
        .post(&preview, json!({"to": "country in (\"SE\",\"KE\")", "sample": 3}))
        .await
        .json(200);
    assert_eq!((&answer["count"], &answer["of"]), (&json!(25), &json!(100)));
    assert_eq!(answer["to"], "country in (\"KE\", \"SE\")");
    assert_eq!(answer["sample"].as_array().unwrap().len(), 3);
    let answer = bench.post(&preview, json!({"to": "not country == \"KE\""})).await.json(200);
    assert_eq!(answer["count"], 0, "a device without a country is unknown, not true");
    bench.post(&preview, json!({"to": "and"})).await.problem(422, "bad-expression");
    bench.post(&preview, json!({"to": "all", "sample": 1001})).await.problem(422, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_fires_as_a_committed_change_also_after_a_restart() {
    let bench = start().await;
    let app = bench.app().await;
    let messages = format!("{app}/messages");
    let at = |ms: i64| {
        let time = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(ms);
        format!("{time:.3}")
    };
    let body = json!({"to": "all", "body": 1, "not_before": at(300), "expires_at": at(900)});
    let message = bench.post(&messages, body).await.json(201);
    assert_eq!(message["state"], "scheduled");
    let path = format!("{messages}/{}", message["id"].as_str().unwrap());
    let bench = bench.restart().await;
    let mut states = vec![];
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while states.last().is_none_or(|s| s != "expired") {
        assert!(std::time::Instant::now() < until, "{states:?}");
        let state = bench.get(&path).await.json(200)["state"].as_str().unwrap().to_owned();
        if states.last() != Some(&state) {
            states.push(state);
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(states.ends_with(&["active".to_owned(), "expired".to_owned()]), "{states:?}");
    bench.patch(&path, json!({"body": 2})).await.problem(409, "ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_say_how_it_is() {
    let bench = start().await;
    let app = bench.app().await;
    bench.post(&format!("{app}/messages"), json!({"to": "all", "body": 1})).await.json(201);
    let health = bench.get("/readyz").await.json(200);
    assert_eq!(
        (&health["ready"], &health["store_up"], &health["head"]),
        (&json!(true), &json!(true), &json!(5))
    );
    let metrics = bench.get("/metrics").await.text;
    for line in [
        "central_head_seq 5",
        "central_messages 1",
        "central_changes_total 5",
        "central_store_up 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}: {metrics}");
    }
}
