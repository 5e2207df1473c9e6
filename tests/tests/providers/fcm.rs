//! A breach of each rule of FCM, at the token endpoint and in messages.

use std::collections::BTreeMap;

use carillon_tests::providers::{KindCounts, Program, Simulator};
use serde_json::{Value, json};

use crate::client::{Asked, Client, ask, es256, now_s, rs256};

const PROJECT: &str = "bells";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

fn escape(text: &str) -> String {
    let escaped = text.bytes().map(|byte| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    escaped.collect()
}

/// The parts of a request for an access token.
#[derive(Clone, Debug)]
struct Grant {
    header: Value,
    claims: Value,
    key: String,
    grant_type: String,
}

impl Grant {
    fn new(account: &Value) -> Grant {
        Grant {
            header: json!({ "alg": "RS256", "typ": "JWT", "kid": account["private_key_id"] }),
            claims: json!({
                "iss": account["client_email"], "scope": SCOPE, "aud": account["token_uri"],
                "iat": now_s(), "exp": now_s() + 3600,
            }),
            key: text(account, "private_key").to_owned(),
            grant_type: "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned(),
        }
    }

    fn asked(&self) -> Asked {
        self.asked_with(&rs256(&self.key, &self.header, &self.claims))
    }

    fn asked_with(&self, assertion: &str) -> Asked {
        let grant_type = escape(&self.grant_type);
        Asked {
            method: "POST".to_owned(),
            path: "/token".to_owned(),
            headers: vec![(
                "content-type".to_owned(),
                "application/x-www-form-urlencoded".to_owned(),
            )],
            body: format!("grant_type={grant_type}&assertion={assertion}").into(),
        }
    }
}

async fn access_token(fcm: &Simulator, account: &Value) -> String {
    let granted = ask(fcm, &Grant::new(account).asked()).await;
    assert_eq!(granted.status, 200, "{granted:?}");
    assert_eq!(granted.json()["token_type"], "Bearer");
    text(&granted.json(), "access_token").to_owned()
}

fn send(access: &str, message: &Value) -> Asked {
    Asked {
        method: "POST".to_owned(),
        path: format!("/v1/projects/{PROJECT}/messages:send"),
        headers: vec![
            ("authorization".to_owned(), format!("Bearer {access}")),
            ("content-type".to_owned(), "application/json".to_owned()),
        ],
        body: json!({ "message": message }).to_string().into(),
    }
}

/// With every part that a sender of ours may use.
fn alert(token: &str) -> Value {
    json!({
        "token": token,
        "notification": { "title": "t", "body": "b" },
        "data": { "message": "0123" },
        "android": {
            "collapseKey": "one", "priority": "HIGH", "ttl": "3600s",
            "notification": { "tag": "one", "channel_id": "bells", "lightSettings": {
                "color": { "red": 1, "green": 0.5, "blue": 0, "alpha": 1 },
                "lightOnDuration": "0.5s", "lightOffDuration": "1s"
            } },
        },
        "apns": {
            "headers": { "apns-priority": "10", "apns-collapse-id": "one" },
            "payload": { "aps": { "sound": "default" } },
        },
        "webpush": {
            "headers": { "TTL": "3600", "Urgency": "high" },
            "notification": { "icon": "https://example.com/i.png" },
        },
    })
}

/// A breach, its status and error, and what makes it of something right.
type Case<T> = (&'static str, u16, &'static str, T);
type ChangeGrant = fn(&mut Grant);
type ChangeRaw = fn(&Grant, &mut Asked);
type ChangeRequest = fn(&mut Asked);
type ChangeMessage = fn(&mut Value);

/// A grant with one thing wrong.
const GRANTS: &[(&str, &str, ChangeGrant)] = &[
    ("token_grant_type", "unsupported_grant_type", |grant| {
        grant.grant_type = "client_credentials".to_owned();
    }),
    ("assertion_issuer", "invalid_grant", |grant| grant.claims["iss"] = json!("a@b")),
    ("assertion_algorithm", "invalid_grant", |grant| grant.header["alg"] = json!("HS256")),
    ("assertion_key", "invalid_grant", |grant| grant.header["kid"] = json!("other")),
    ("assertion_audience", "invalid_grant", |grant| {
        grant.claims["aud"] = json!("https://oauth2.googleapis.com/token");
    }),
    ("assertion_scope", "invalid_scope", |grant| grant.claims["scope"] = json!("openid")),
    ("assertion_times", "invalid_grant", |grant| grant.claims["exp"] = Value::Null),
    ("assertion_times", "invalid_grant", |grant| grant.claims["iat"] = Value::Null),
    ("assertion_not_of_this_time", "invalid_grant", |grant| {
        grant.claims["iat"] = json!(now_s() + 60);
    }),
    ("assertion_not_of_this_time", "invalid_grant", |grant| {
        grant.claims["exp"] = json!(now_s() - 1);
    }),
    ("assertion_lives_too_long", "invalid_grant", |grant| {
        grant.claims["exp"] = json!(now_s() + 3700);
    }),
];

const INVALID: &str = "INVALID_ARGUMENT";

/// An alert with one thing wrong in its request.
const REQUESTS: &[Case<ChangeRequest>] = &[
    ("path", 404, "NOT_FOUND", |asked| asked.path = asked.path.replace("/v1/", "/v2/")),
    ("method", 404, "NOT_FOUND", |asked| asked.method = "PUT".to_owned()),
    ("access_token_missing", 401, "UNAUTHENTICATED", |asked| asked.remove("authorization")),
    ("access_token_unknown", 401, "UNAUTHENTICATED", |asked| {
        asked.set("authorization", "Bearer ya29.unknown");
    }),
    ("project_of_another", 403, "PERMISSION_DENIED", |asked| {
        asked.path = asked.path.replace(PROJECT, "other");
    }),
    ("content_type", 400, INVALID, |asked| asked.set("content-type", "text/plain")),
    ("body_malformed", 400, INVALID, |asked| asked.body = b"{".to_vec()),
    ("message_missing", 400, INVALID, |asked| asked.body = b"{}".to_vec()),
    ("field_unknown", 400, INVALID, |asked| asked.body = br#"{"to":"x"}"#.to_vec()),
    ("message_size", 400, INVALID, |asked| asked.body = vec![b' '; 70_000]),
];

/// An alert with one thing wrong in its message.
const MESSAGES: &[(&str, ChangeMessage)] = &[
    ("target", |message| message["token"] = Value::Null),
    ("target", |message| message["topic"] = json!("weather")),
    ("registration_token", |message| message["token"] = json!("")),
    ("registration_token", |message| message["token"] = json!("white space")),
    ("data_value", |message| message["data"]["n"] = json!(1)),
    ("data_value", |message| message["android"]["data"] = json!({ "list": ["a"] })),
    ("data_key", |message| message["data"]["from"] = json!("me")),
    ("data_key", |message| message["data"]["google.id"] = json!("me")),
    ("field_unknown", |message| message["priority"] = json!("HIGH")),
    ("field_unknown", |message| message["notification"]["sound"] = json!("default")),
    ("field_unknown", |message| message["android"]["time_to_live"] = json!(60)),
    ("field_type", |message| message["notification"]["title"] = json!(1)),
    ("field_type", |message| message["android"]["ttl"] = json!(60)),
    ("field_type", |message| message["android"]["ttl"] = json!("60")),
    ("field_type", |message| message["android"]["ttl"] = json!("2419201s")),
    ("field_type", |message| message["android"]["priority"] = json!("10")),
    ("field_type", |message| message["android"]["notification"] = json!("text")),
    ("field_type", |message| message["apns"]["headers"]["apns-priority"] = json!(10)),
    ("field_type", |message| message["webpush"]["notification"] = json!([])),
    ("apns_headers", |message| message["apns"]["headers"]["apns-priority"] = json!("7")),
    ("apns_headers", |message| {
        message["apns"]["headers"]["apns-collapse-id"] = json!("c".repeat(65));
    }),
    ("webpush_headers", |message| message["webpush"]["headers"]["Urgency"] = json!("loud")),
    ("webpush_headers", |message| message["webpush"]["headers"]["TTL"] = json!("an hour")),
    ("message_size", |message| message["data"]["long"] = json!("x".repeat(4096))),
    ("message_size", |message| {
        message["apns"]["payload"]["long"] = json!("x".repeat(4096));
    }),
];

#[tokio::test]
async fn a_breach_of_each_rule_of_a_grant_is_refused_and_counted() {
    let mut fcm = Simulator::start(Program::Fcm, &[]);
    let account = fcm.make_fcm_account(PROJECT).await;
    let other = fcm.make_fcm_account(PROJECT).await;
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let mut cases: Vec<Case<Asked>> = Vec::new();
    for (breach, error, change) in GRANTS {
        let mut grant = Grant::new(&account);
        change(&mut grant);
        cases.push((breach, 400, error, grant.asked()));
    }
    let right = Grant::new(&account);
    let raw: &[Case<ChangeRaw>] = &[
        ("token_method", 405, "invalid_request", |_, asked| asked.method = "GET".to_owned()),
        ("token_content_type", 400, "invalid_request", |_, asked| {
            asked.set("content-type", "application/json");
        }),
        ("token_size", 400, "invalid_request", |_, asked| asked.body = vec![b'a'; 70_000]),
        ("assertion_missing", 400, "invalid_grant", |grant, asked| {
            asked.body = format!("grant_type={}", escape(&grant.grant_type)).into();
        }),
        ("assertion_malformed", 400, "invalid_grant", |grant, asked| {
            *asked = grant.asked_with("no.token");
        }),
    ];
    for (breach, status, error, change) in raw {
        let mut asked = right.asked();
        change(&right, &mut asked);
        cases.push((breach, *status, error, asked));
    }
    let by_another = Grant { key: text(&other, "private_key").to_owned(), ..right.clone() };
    cases.push(("assertion_signature", 400, "invalid_grant", by_another.asked()));
    for (breach, status, error, asked) in cases {
        assert_eq!(ask(&fcm, &right.asked()).await.status, 200);
        let wrong = ask(&fcm, &asked).await;
        assert_eq!((wrong.status, &wrong.json()["error"]), (status, &json!(error)), "{breach}");
        *expected.entry(breach.to_owned()).or_default() += 1;
        assert_eq!(fcm.counts().await.breaches, expected);
    }
    assert_eq!(fcm.grants().await, expected.values().sum::<u64>());
    fcm.set_token_endpoint_status(503).await;
    assert_eq!(ask(&fcm, &right.asked()).await.status, 503);
    assert_eq!(fcm.counts().await.breaches, expected, "that was nobody's fault");
}

#[tokio::test]
async fn a_breach_of_each_rule_of_a_message_is_refused_and_counted() {
    let mut fcm = Simulator::start(Program::Fcm, &[]);
    let account = fcm.make_fcm_account(PROJECT).await;
    let access = access_token(&fcm, &account).await;
    let right = send(&access, &alert("device:1"));
    let client = Client::connect(&fcm).await;
    let mut cases: Vec<Case<Asked>> = Vec::new();
    for (breach, status, reason, change) in REQUESTS {
        let mut asked = right.clone();
        change(&mut asked);
        cases.push((breach, *status, reason, asked));
    }
    for (breach, change) in MESSAGES {
        let mut message = alert("device:1");
        change(&mut message);
        cases.push((breach, 400, INVALID, send(&access, &message)));
    }
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let count = cases.len() as u64;
    for (breach, status, reason, asked) in cases {
        let answered = client.ask(&right).await;
        assert_eq!(answered.status, 200, "{answered:?}");
        assert!(text(&answered.json(), "name").starts_with("projects/bells/messages/"));
        let wrong = client.ask(&asked).await;
        let error = &wrong.json()["error"];
        assert_eq!((wrong.status, &error["status"]), (status, &json!(reason)), "{breach}");
        assert_eq!(error["code"], status, "{error}");
        if reason == INVALID {
            assert_eq!(error["details"][0]["errorCode"], INVALID, "{error}");
        }
        *expected.entry(breach.to_owned()).or_default() += 1;
        assert_eq!(fcm.counts().await.breaches, expected, "{breach}");
    }
    let counts = fcm.counts().await;
    assert_eq!(counts.total.accepted, KindCounts { alerts: count, wakes: 0 });
    assert_eq!(counts.tokens.two_collapse_ids.sum(), 0);
}

#[tokio::test]
async fn wakes_and_alerts_are_told_apart_and_both_forms_of_names_are_taken() {
    let mut fcm = Simulator::start(Program::Fcm, &[]);
    let account = fcm.make_fcm_account(PROJECT).await;
    let access = access_token(&fcm, &account).await;
    let client = Client::connect(&fcm).await;
    let wake = json!({
        "token": "d", "data": { "wake": "1" },
        "android": { "collapse_key": "wake", "priority": "high", "ttl": "0s" },
        "apns": {
            "headers": { "apns-priority": "5", "apns-push-type": "background" },
            "payload": { "aps": { "content-available": 1 } },
        },
    });
    assert_eq!(client.ask(&send(&access, &wake)).await.status, 200);
    let mut other = wake.clone();
    other["android"]["collapse_key"] = json!("other");
    assert_eq!(client.ask(&send(&access, &other)).await.status, 200);
    let shown = json!({ "token": "d", "android": { "notification": { "title": "t" } } });
    assert_eq!(client.ask(&send(&access, &shown)).await.status, 200);
    let counts = fcm.counts().await;
    assert_eq!(counts.total.accepted, KindCounts { alerts: 1, wakes: 2 });
    assert_eq!(counts.tokens.two_collapse_ids, KindCounts { alerts: 0, wakes: 1 });
}

#[tokio::test]
async fn access_ends_after_an_hour_or_when_told_and_a_token_of_another_kind_of_key_is_none() {
    let mut fcm = Simulator::start(Program::Fcm, &[]);
    let account = fcm.make_fcm_account(PROJECT).await;
    let asked = send(&access_token(&fcm, &account).await, &alert("d"));
    fcm.set_clock_ahead_ms(3_590_000).await;
    assert_eq!(ask(&fcm, &asked).await.status, 200);
    fcm.set_clock_ahead_ms(3_610_000).await;
    assert_eq!(ask(&fcm, &asked).await.status, 401);
    fcm.set_clock_ahead_ms(0).await;
    fcm.expire_access().await;
    assert_eq!(ask(&fcm, &asked).await.status, 401);
    assert_eq!(fcm.counts().await.breaches["access_token_expired"], 2);
    fcm.set_access_life_s(1).await;
    let granted = ask(&fcm, &Grant::new(&account).asked()).await;
    assert_eq!(granted.json()["expires_in"], 1);

    let elliptic = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let grant = Grant::new(&account);
    let forged = es256(&elliptic, &grant.header, &grant.claims);
    assert_eq!(ask(&fcm, &grant.asked_with(&forged)).await.status, 400);
    assert_eq!(fcm.counts().await.breaches["assertion_signature"], 1);
}

#[tokio::test]
async fn it_answers_as_told_with_the_codes_of_fcm() {
    let mut fcm = Simulator::start(Program::Fcm, &[]);
    let account = fcm.make_fcm_account(PROJECT).await;
    let access = access_token(&fcm, &account).await;
    let client = Client::connect(&fcm).await;
    let told = [
        (404, "UNREGISTERED", "NOT_FOUND"),
        (403, "SENDER_ID_MISMATCH", "PERMISSION_DENIED"),
        (429, "QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED"),
        (503, "UNAVAILABLE", "UNAVAILABLE"),
        (500, "INTERNAL", "INTERNAL"),
    ];
    for (status, reason, canonical) in told {
        let rule = json!({ "status": status, "reason": reason, "retry_after": "3" });
        fcm.behave(json!([rule])).await;
        let answered = client.ask(&send(&access, &alert("d"))).await;
        assert_eq!((answered.status, answered.header("retry-after")), (status, "3"));
        let error = &answered.json()["error"];
        assert_eq!(error["status"], canonical);
        assert_eq!(error["details"][0]["errorCode"], reason);
        assert_eq!(
            error["details"][0]["@type"],
            "type.googleapis.com/google.firebase.fcm.v1.FcmError"
        );
    }
    assert_eq!(fcm.counts().await.by_reason.len(), 5);
}
