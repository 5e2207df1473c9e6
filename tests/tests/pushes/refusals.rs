//! Policies, limits and credentials that are refused, each with the field that is at fault; and what is allowed at most.

use carillon_tests::cluster::Store;
use serde_json::{Map, Value, json};

use crate::bench::{Bench, KEY, TEAM, TOPIC, alert};

/// With members beside or instead of good ones; null takes one away.
fn with(good: &Value, members: Value) -> Value {
    let mut all = good.as_object().expect("an object").clone();
    for (name, value) in members.as_object().expect("an object") {
        match value {
            Value::Null => drop(all.remove(name)),
            value => drop(all.insert(name.clone(), value.clone())),
        }
    }
    all.into()
}

fn locales(names: impl IntoIterator<Item = String>) -> Value {
    let text = json!({"title": "t", "body": "b"});
    names.into_iter().map(|name| (name, text.clone())).collect::<Map<_, _>>().into()
}

#[tokio::test]
async fn bad_policies_are_refused_with_the_field_that_is_at_fault() {
    let mut bench = Bench::start(Store::Sqlite, "shop", &[], &[]).await;
    let made = json!({"to": "rank < 0", "body": 1, "push": alert("good")});
    let made = bench.ok("POST", "messages", made).await;
    let message = format!("messages/{}", carillon_tests::admin::text(&made, "id"));
    let good = alert("good");
    let long = "x".repeat(3 * 1024 + 1);
    let night = json!({"from": "22:00", "to": "08:00", "then": "skip"});
    let cases = [
        // What a policy says, and what the refusal names.
        (json!({"kind": "alert"}), "text"),
        (json!({"kind": "wake", "text": {"title": "t", "body": "b"}}), "text"),
        (json!({"kind": "wake", "locales": {"sv": {"title": "t", "body": "b"}}}), "locales"),
        (json!({"kind": "wake", "overrides": {"apns": {"aps": {"badge": 1}}}}), "overrides"),
        (with(&good, json!({"over_s": 86_401})), "over_s"),
        (with(&good, json!({"text": {"title": "t", "body": long}})), "text"),
        (with(&good, json!({"locales": {"sv": {"title": "t", "body": long}}})), "sv"),
        (with(&good, json!({"overrides": {"apns": {"x": long}}})), "overrides"),
        (with(&good, json!({"locales": locales(["sv_SE".to_owned()])})), "locales"),
        (with(&good, json!({"locales": locales(["s".to_owned()])})), "locales"),
        (with(&good, json!({"locales": locales(["s".repeat(36)])})), "locales"),
        (with(&good, json!({"locales": locales((0..101).map(|n| format!("l{n}")))})), "locales"),
    ];
    for (policy, field) in cases {
        let create = json!({"to": "all", "body": 1, "push": policy});
        for answer in [
            bench.call("POST", "messages", create).await,
            bench.call("PATCH", &message, json!({"push": policy})).await,
        ] {
            let problem = answer.expect_problem(422, "invalid-push");
            let detail = problem["detail"].as_str().expect("a text");
            assert!(detail.contains(field), "{field} is not named: {problem}");
        }
    }
    // What is no policy at all is refused as any bad body is.
    for policy in [
        json!("wake"),
        json!({}),
        json!({"kind": "shout"}),
        with(&good, json!({"over_s": -1})),
        with(&good, json!({"over_s": "1"})),
        with(&good, json!({"text": {"title": "t"}})),
        with(&good, json!({"text": {"title": "t", "body": "b", "more": 1}})),
        with(&good, json!({"unknown": 1})),
        with(&good, json!({"overrides": {"fcm": {}}})),
        with(&good, json!({"overrides": {"apns": [1]}})),
        with(&good, json!({"quiet_hours": with(&night, json!({"then": null}))})),
        with(&good, json!({"quiet_hours": with(&night, json!({"then": "wait"}))})),
        with(&good, json!({"quiet_hours": with(&night, json!({"from": "24:00"}))})),
        with(&good, json!({"quiet_hours": with(&night, json!({"from": "9:00"}))})),
        with(&good, json!({"quiet_hours": with(&night, json!({"to": 8}))})),
    ] {
        let create = json!({"to": "all", "body": 1, "push": policy});
        for answer in [
            bench.call("POST", "messages", create).await,
            bench.call("PATCH", &message, json!({"push": policy})).await,
        ] {
            assert_eq!(answer.status, 400, "{policy}: {answer:?}");
            answer.expect_problem(400, "bad-request");
        }
    }
    // The limits themselves are allowed.
    let most = with(
        &good,
        json!({"over_s": 86_400, "quiet_hours": night, "ignore_cap": true,
        "locales": locales((10..110).map(|n| format!("l{n}")))}),
    );
    let made = json!({"to": "rank < 0", "body": 1, "push": most});
    let made = bench.ok("POST", "messages", made).await;
    let found = bench
        .ok("GET", &format!("messages/{}", made["id"].as_str().expect("an id")), Value::Null)
        .await;
    assert_eq!(found["push"]["locales"].as_object().map(Map::len), Some(100), "{found}");
    let of = |found: &Value| ["over_s", "ignore_cap"].map(|name| found["push"][name].clone());
    assert_eq!(of(&found), [json!(86_400), json!(true)], "{found}");
    // What was refused changed nothing.
    let found = bench.ok("GET", &message, Value::Null).await;
    assert_eq!(found["push"], good, "{found}");
    // A message without a policy is not pushed.
    let made = bench.ok("POST", "messages", json!({"to": "all", "body": 1})).await;
    assert_eq!((&made["push"], &made["push_state"]), (&Value::Null, &json!("none")), "{made}");
}

#[tokio::test]
async fn bad_limits_are_refused_with_the_field_that_is_at_fault() {
    let mut bench = Bench::start(Store::Sqlite, "shop", &[], &[]).await;
    let before = bench.ok("GET", "push", Value::Null).await;
    let cap = |pushes: i64, period_s: i64| json!({"cap": {"pushes": pushes, "period_s": period_s}});
    for (patch, field) in [
        (json!({"rate": 0}), "rate"),
        (cap(0, 3_600), "pushes"),
        (cap(101, 3_600), "pushes"),
        (cap(1, 59), "period_s"),
        (cap(1, 30 * 24 * 3_600 + 1), "period_s"),
    ] {
        let answer = bench.call("PATCH", "push", patch.clone()).await;
        let problem = answer.expect_problem(422, "invalid-push");
        assert!(problem["detail"].as_str().is_some_and(|of| of.contains(field)), "{problem}");
    }
    for patch in [
        json!({"rate": -1}),
        json!({"rate": "1"}),
        json!({"rate": 1.5}),
        json!({"rate": 4_294_967_296_u64}),
        json!({"cap": {"pushes": 1}}),
        json!({"cap": {"pushes": 1, "period_s": 60, "more": 1}}),
        json!({"cap": 1}),
        json!({"credentials": {}}),
        json!([]),
    ] {
        let answer = bench.call("PATCH", "push", patch).await;
        answer.expect_problem(400, "bad-request");
    }
    assert_eq!(bench.ok("GET", "push", Value::Null).await, before, "nothing changed");
    let set = json!({"rate": 1, "cap": {"pushes": 100, "period_s": 30 * 24 * 3_600}});
    let after = bench.ok("PATCH", "push", set.clone()).await;
    assert_eq!((&after["rate"], &after["cap"]), (&set["rate"], &set["cap"]), "{after}");
    assert_eq!(after["credentials"], before["credentials"], "{after}");
    // What is not named stays, null takes away.
    let after = bench.ok("PATCH", "push", json!({"cap": null})).await;
    assert_eq!((&after["rate"], &after["cap"]), (&json!(1), &Value::Null), "{after}");
    let after = bench.ok("PATCH", "push", json!({})).await;
    assert_eq!(after["rate"], 1, "{after}");
}

#[tokio::test]
async fn bad_credentials_are_refused_with_the_field_that_is_at_fault() {
    let mut bench = Bench::start(Store::Sqlite, "shop", &[], &[]).await;
    let before = bench.ok("GET", "push", Value::Null).await;
    let [apns, fcm, web_push] = bench.credentials.clone().map(|(_, credential)| credential);
    let about = before["credentials"]["apns"]["about"].as_str().expect("a text");
    assert_eq!(about, format!("team {TEAM}, key {KEY}, topic {TOPIC}"));
    let pem =
        |body: &str| format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    let rsa = fcm["private_key"].clone();
    let cases = [
        ("apns", with(&apns, json!({"key": null})), "key"),
        ("apns", with(&apns, json!({"key": "no PEM"})), "key"),
        ("apns", with(&apns, json!({"key": pem("AAAA")})), "key"),
        ("apns", with(&apns, json!({"key": rsa})), "key"),
        ("apns", with(&apns, json!({"team_id": null})), "team_id"),
        ("apns", with(&apns, json!({"team_id": "short"})), "team_id"),
        ("apns", with(&apns, json!({"team_id": "TEAM00000\n"})), "team_id"),
        ("apns", with(&apns, json!({"key_id": "KEY00000012"})), "key_id"),
        ("apns", with(&apns, json!({"topic": ""})), "topic"),
        ("apns", with(&apns, json!({"topic": "com.example shop"})), "topic"),
        ("apns", with(&apns, json!({"topic": 7})), "credential"),
        ("fcm", with(&fcm, json!({"project_id": null})), "project_id"),
        ("fcm", with(&fcm, json!({"project_id": "../x"})), "project_id"),
        ("fcm", with(&fcm, json!({"client_email": null})), "client_email"),
        ("fcm", with(&fcm, json!({"client_email": "a\"b"})), "client_email"),
        ("fcm", with(&fcm, json!({"private_key": null})), "private_key"),
        ("fcm", with(&fcm, json!({"private_key": apns["key"]})), "private_key"),
        ("web_push", with(&web_push, json!({"subject": null})), "subject"),
        ("web_push", with(&web_push, json!({"subject": "ops@example.com"})), "subject"),
        ("web_push", with(&web_push, json!({"private_key": null})), "private_key"),
        ("web_push", with(&web_push, json!({"private_key": "AAAA"})), "private_key"),
        ("web_push", with(&web_push, json!({"private_key": "A".repeat(43)})), "private_key"),
        ("web_push", with(&web_push, json!({"private_key": "!".repeat(43)})), "private_key"),
        ("apns", json!("a text"), "credential"),
        ("fcm", json!([fcm]), "credential"),
        ("web_push", json!(null), "credential"),
        ("apns", with(&apns, json!({"pad": "x".repeat(16 * 1024)})), "credential"),
    ];
    for (channel, credential, field) in cases {
        let input = json!({ "credential": credential });
        let answer = bench.call("PUT", &format!("push/{channel}"), input).await;
        let problem = answer.expect_problem(422, "invalid-credential");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.starts_with(&format!("{field} ")), "{field} is not named: {problem}");
    }
    for channel in ["", "webpush", "APNS", "apns/", "sms"] {
        let answer =
            bench.call("PUT", &format!("push/{channel}"), json!({"credential": apns})).await;
        assert!(answer.status == 404 || answer.status == 405, "{channel}: {answer:?}");
    }
    for input in [json!({}), apns.clone(), json!({"credential": apns, "more": 1}), json!([1])] {
        let answer = bench.call("PUT", "push/apns", input).await;
        answer.expect_problem(400, "bad-request");
    }
    assert_eq!(bench.ok("GET", "push", Value::Null).await, before, "nothing changed");

    // Without a credential there is no channel: nothing is pushed over it, also after another start.
    let deleted = bench.ok("DELETE", "push/fcm", Value::Null).await;
    assert!(deleted["credentials"].get("fcm").is_none(), "{deleted}");
    let devices = bench.devices(2);
    bench.import(&devices).await;
    for restart in [false, true] {
        if restart {
            bench.cluster.kill_central();
            bench.cluster.start_central().await;
            bench.admin = bench.cluster.admin();
        }
        let message = bench.push("rank >= 0", alert("two channels")).await;
        bench.until_state(&message, "done").await;
        let funnel = bench.funnel(&message).await;
        assert_eq!(funnel["pushed"], json!({"apns": 2, "web_push": 2}), "{funnel}");
    }
    assert_eq!(bench.fcm.counts().await.total.requests, 0);
    bench.no_breaches().await;
}
