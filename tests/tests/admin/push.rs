//! What an app's pushes need and may do, and what a message's policy looks like.

use serde_json::{Value, json};

use crate::bench::{Bench, Call};
use crate::generic::vapid;

const GET: &str = "GET /v1/apps/{app}/push";
const PATCH: &str = "PATCH /v1/apps/{app}/push";
const PUT: &str = "PUT /v1/apps/{app}/push/{channel}";
const DELETE: &str = "DELETE /v1/apps/{app}/push/{channel}";
const MESSAGES: &str = "POST /v1/apps/{app}/messages";
const EDIT: &str = "PATCH /v1/apps/{app}/messages/{message}";

pub(crate) async fn check(bench: &mut Bench) {
    credentials(bench).await;
    policies(bench).await;
}

async fn credentials(bench: &mut Bench) {
    let app = bench.app().await;
    let empty = json!({"rate": null, "cap": null, "credentials": {}});
    assert_eq!(bench.read(Call::to(GET, &[&app.id])).await.json(), empty);

    let put = |channel: &str, credential: &Value| {
        Call::to(PUT, &[&app.id, channel]).json(json!({"credential": credential}))
    };
    let set = bench.written(put("web_push", &vapid())).await.json();
    let about = set["credentials"]["web_push"]["about"].as_str().expect("what may be shown");
    assert!(about.len() > 80 && !about.contains("yfWPiYE"), "the public key: {about}");
    let shown = bench.read(Call::to(GET, &[&app.id])).await;
    assert_eq!(shown.json(), set);
    assert!(!String::from_utf8_lossy(&shown.body).contains("yfWPiYE"), "{shown:?}");

    for (channel, credential, field) in [
        ("web_push", json!({"subject": "mailto:a@b", "private_key": "AAAA"}), "private_key"),
        ("web_push", json!({"subject": "ops", "private_key": vapid()["private_key"]}), "subject"),
        ("web_push", json!({"subject": "mailto:a@b"}), "private_key"),
        ("apns", json!({"team_id": "T", "key_id": "K"}), "key"),
        ("apns", vapid(), "key"),
        ("fcm", json!({"project_id": "p", "client_email": "a@b"}), "private_key"),
        (
            "fcm",
            json!({"project_id": "p", "client_email": "a@b", "private_key": "no PEM"}),
            "private_key",
        ),
        ("fcm", json!("text"), "credential"),
        ("apns", json!(7), "credential"),
    ] {
        let refused = bench.refused(put(channel, &credential), 422, "invalid-credential").await;
        let detail = refused["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(field), "{channel}: {detail}");
        assert!(!detail.contains("yfWPiYE"), "{detail}");
    }
    for channel in ["sms", "APNS", "web-push"] {
        bench.refused(put(channel, &vapid()), 404, "not-found").await;
        bench.refused(Call::to(DELETE, &[&app.id, channel]), 404, "not-found").await;
    }

    let limits = json!({"rate": 50, "cap": {"pushes": 3, "period_s": 86400}});
    let set = bench.written(Call::to(PATCH, &[&app.id]).json(limits.clone())).await.json();
    assert_eq!((&set["rate"], &set["cap"]), (&limits["rate"], &limits["cap"]));
    let set = bench.written(Call::to(PATCH, &[&app.id]).json(json!({"rate": null}))).await.json();
    assert_eq!(
        (&set["rate"], &set["cap"]),
        (&Value::Null, &limits["cap"]),
        "what is not named stays"
    );
    for (bad, word) in [
        (json!({"rate": 0}), "rate"),
        (json!({"cap": {"pushes": 0, "period_s": 60}}), "cap"),
        (json!({"cap": {"pushes": 101, "period_s": 60}}), "cap"),
        (json!({"cap": {"pushes": 1, "period_s": 59}}), "cap"),
        (json!({"cap": {"pushes": 1, "period_s": 2_592_001}}), "cap"),
    ] {
        let call = Call::to(PATCH, &[&app.id]).json(bad);
        let refused = bench.refused(call, 422, "invalid-push").await;
        assert!(refused["detail"].as_str().unwrap_or_default().contains(word), "{refused}");
    }

    let gone = bench.written(Call::to(DELETE, &[&app.id, "web_push"])).await.json();
    assert_eq!(gone["credentials"], json!({}));
    bench.refused(Call::to(DELETE, &[&app.id, "web_push"]), 404, "not-found").await;
}

async fn policies(bench: &mut Bench) {
    let app = bench.app().await;
    let create = |push: Value| {
        Call::to(MESSAGES, &[&app.id]).json(json!({"to": "all", "body": 1, "push": push}))
    };
    let text = json!({"title": "t", "body": "b"});
    let long = json!({"title": "t", "body": "b".repeat(3_072)});
    let good = json!({"kind": "alert", "text": text, "locales": {"sv-se": text}, "over_s": 60,
        "quiet_hours": {"from": "22:00", "to": "08:00", "offset": "utc_offset", "then": "hold"},
        "ignore_cap": true, "overrides": {"apns": {"aps": {"sound": "x"}}}});
    let made = bench.written(create(good.clone())).await.json();
    assert_eq!((&made["push"], &made["push_state"]), (&good, &json!("none")), "no credentials");
    let wake = bench.written(create(json!({"kind": "wake"}))).await.json();
    assert_eq!(wake["push"], json!({"kind": "wake"}));
    let id = wake["id"].as_str().expect("an id");
    let edit = Call::to(EDIT, &[&app.id, id]).json(json!({"push": good}));
    assert_eq!(bench.written(edit).await.json()["push"], good);
    for (bad, word) in [
        (json!({"kind": "alert"}), "text"),
        (json!({"kind": "wake", "text": text}), "wake"),
        (json!({"kind": "wake", "overrides": {"android": {"x": 1}}}), "wake"),
        (json!({"kind": "alert", "text": long}), "3072"),
        (json!({"kind": "alert", "text": text, "locales": {"SV": text}}), "SV"),
        (json!({"kind": "alert", "text": text, "locales": {"sv": long}}), "sv"),
        (json!({"kind": "wake", "over_s": 86_401}), "over_s"),
    ] {
        let refused = bench.refused(create(bad.clone()), 422, "invalid-push").await;
        assert!(refused["detail"].as_str().unwrap_or_default().contains(word), "{refused}");
        let edit = Call::to(EDIT, &[&app.id, id]).json(json!({"push": bad}));
        bench.refused(edit, 422, "invalid-push").await;
    }
    for bad in [
        json!({"kind": "shout"}),
        json!({"kind": "wake", "surprise": 1}),
        json!({"kind": "wake", "quiet_hours": {"from": "8:00", "to": "09:00", "then": "hold"}}),
        json!({"kind": "wake", "quiet_hours": {"from": "08:00", "to": "24:00", "then": "hold"}}),
        json!({"kind": "wake", "quiet_hours": {"from": "08:00", "to": "09:00", "then": "wait"}}),
    ] {
        bench.refused(create(bad), 400, "bad-request").await;
    }
}
