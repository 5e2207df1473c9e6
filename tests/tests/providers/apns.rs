//! A breach of each rule of APNs.

use std::collections::BTreeMap;

use carillon_tests::providers::{Program, Simulator};
use serde_json::{Value, json};

use crate::client::{Asked, Client, ask, es256, now_s, tls};

pub(crate) const TOPIC: &str = "com.example.bells";

/// A team's key, and the provider token of the hour.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    team: String,
    key: String,
    p8: String,
}

impl Sender {
    pub(crate) async fn new(apns: &mut Simulator, team: &str, key: &str) -> Sender {
        let input = json!({ "team": team, "key": key, "topics": [TOPIC] });
        let made = apns.call("POST", "keys", input).await;
        let p8 = made["p8"].as_str().expect("a key").to_owned();
        Sender { team: team.to_owned(), key: key.to_owned(), p8 }
    }

    fn token(&self, header: Value, claims: Value) -> String {
        format!("bearer {}", es256(&self.p8, &header, &claims))
    }

    fn header(&self) -> Value {
        json!({ "alg": "ES256", "kid": self.key })
    }

    pub(crate) fn token_of(&self, issued_at_s: u64) -> String {
        self.token(self.header(), json!({ "iss": self.team, "iat": issued_at_s }))
    }

    /// A right request.
    pub(crate) fn alert(&self, n: u64) -> Asked {
        let mut asked = Asked {
            method: "POST".to_owned(),
            path: format!("/3/device/{n:064x}"),
            headers: Vec::new(),
            body: json!({ "aps": { "alert": { "title": "t", "body": "b" } } }).to_string().into(),
        };
        asked.add("authorization", &self.token_of(now_s()));
        asked.add("apns-topic", TOPIC);
        asked.add("apns-push-type", "alert");
        asked.add("apns-priority", "10");
        asked.add("apns-expiration", &(now_s() + 3600).to_string());
        asked.add("apns-collapse-id", &"c".repeat(64));
        asked.add("apns-id", "123e4567-e89b-12d3-a456-4266554400a0");
        asked
    }

    pub(crate) fn wake(&self, n: u64) -> Asked {
        let mut asked = self.alert(n);
        asked.set("apns-push-type", "background");
        asked.set("apns-priority", "5");
        asked.set("apns-collapse-id", "wake");
        asked.body = json!({ "aps": { "content-available": 1 } }).to_string().into();
        asked
    }
}

/// Lets a sender have as many tokens as it likes.
pub(crate) async fn allow_updates(apns: &mut Simulator) {
    apns.call("POST", "token_updates", json!({ "min_ms": 0 })).await;
}

#[derive(Clone, Copy)]
struct Case {
    breach: &'static str,
    status: u16,
    reason: &'static str,
    change: fn(&mut Asked, &Sender),
}

const fn case(
    breach: &'static str,
    status: u16,
    reason: &'static str,
    change: fn(&mut Asked, &Sender),
) -> Case {
    Case { breach, status, reason, change }
}

const INVALID: &str = "InvalidProviderToken";

/// An alert with one thing wrong.
const ALERTS: &[Case] = &[
    case("method", 405, "MethodNotAllowed", |asked, _| asked.method = "PUT".to_owned()),
    case("path", 404, "BadPath", |asked, _| asked.path = asked.path.replace("/3/", "/2/")),
    case("device_token_missing", 400, "MissingDeviceToken", |asked, _| {
        asked.path = "/3/device/".to_owned();
    }),
    case("device_token", 400, "BadDeviceToken", |asked, _| asked.path.push_str("zz")),
    case("device_token", 400, "BadDeviceToken", |asked, _| asked.path.push('0')),
    case("device_token", 400, "BadDeviceToken", |asked, _| asked.path.truncate(40)),
    case("provider_token_missing", 403, "MissingProviderToken", |asked, _| {
        asked.remove("authorization");
    }),
    case("provider_token_missing", 403, "MissingProviderToken", |asked, sender| {
        asked.set("authorization", &sender.token_of(now_s()).replace("bearer", "basic"));
    }),
    case("provider_token_malformed", 403, INVALID, |asked, _| {
        asked.set("authorization", "bearer some.token");
    }),
    case("provider_token_key", 403, INVALID, |asked, sender| {
        let claims = json!({ "iss": sender.team, "iat": now_s() });
        asked.set("authorization", &sender.token(json!({ "alg": "ES256", "kid": "?" }), claims));
    }),
    case("provider_token_key", 403, INVALID, |asked, sender| {
        let claims = json!({ "iss": sender.team, "iat": now_s() });
        asked.set("authorization", &sender.token(json!({ "alg": "ES256" }), claims));
    }),
    case("provider_token_algorithm", 403, INVALID, |asked, sender| {
        let claims = json!({ "iss": sender.team, "iat": now_s() });
        let header = json!({ "alg": "none", "kid": sender.key });
        asked.set("authorization", &sender.token(header, claims));
    }),
    case("provider_token_signature", 403, INVALID, |asked, sender| {
        let mut token = sender.token_of(now_s()).into_bytes();
        let place = token.len() - 10;
        token[place] = if token[place] == b'A' { b'B' } else { b'A' };
        asked.set("authorization", &String::from_utf8(token).expect("ASCII"));
    }),
    case("provider_token_signature", 403, INVALID, |asked, sender| {
        // The claims of one token under the signature of another.
        let (one, other) = (sender.token_of(now_s()), sender.token_of(now_s() - 60));
        let claims = one.rsplit_once('.').expect("three parts").0;
        let signature = other.rsplit_once('.').expect("three parts").1;
        asked.set("authorization", &format!("{claims}.{signature}"));
    }),
    case("provider_token_team", 403, INVALID, |asked, sender| {
        let claims = json!({ "iss": "OTHER", "iat": now_s() });
        asked.set("authorization", &sender.token(sender.header(), claims));
    }),
    case("provider_token_iat", 403, INVALID, |asked, sender| {
        asked.set("authorization", &sender.token(sender.header(), json!({ "iss": sender.team })));
    }),
    case("provider_token_from_the_future", 403, INVALID, |asked, sender| {
        asked.set("authorization", &sender.token_of(now_s() + 60));
    }),
    case("provider_token_expired", 403, "ExpiredProviderToken", |asked, sender| {
        asked.set("authorization", &sender.token_of(now_s() - 3605));
    }),
    case("topic_missing", 400, "MissingTopic", |asked, _| asked.remove("apns-topic")),
    case("topic_malformed", 400, "BadTopic", |asked, _| asked.set("apns-topic", "com example")),
    case("topic_of_another", 400, "TopicDisallowed", |asked, _| {
        asked.set("apns-topic", "com.example.other");
    }),
    case("push_type_missing", 400, "InvalidPushType", |asked, _| asked.remove("apns-push-type")),
    case("push_type", 400, "InvalidPushType", |asked, _| asked.set("apns-push-type", "loud")),
    case("priority", 400, "BadPriority", |asked, _| asked.set("apns-priority", "7")),
    case("expiration", 400, "BadExpirationDate", |asked, _| {
        asked.set("apns-expiration", "tomorrow");
    }),
    case("expiration", 400, "BadExpirationDate", |asked, _| {
        // Milliseconds are a usual mistake.
        asked.set("apns-expiration", &(now_s() * 1000).to_string());
    }),
    case("id", 400, "BadMessageId", |asked, _| asked.set("apns-id", "1")),
    case("collapse_id", 400, "BadCollapseId", |asked, _| {
        asked.set("apns-collapse-id", &"c".repeat(65));
    }),
    case("duplicate_headers", 400, "DuplicateHeaders", |asked, _| asked.add("apns-topic", TOPIC)),
    case("payload_empty", 400, "PayloadEmpty", |asked, _| asked.body.clear()),
    case("payload_malformed", 400, "PayloadEmpty", |asked, _| {
        asked.body.pop();
    }),
    case("payload_malformed", 400, "PayloadEmpty", |asked, _| asked.body = b"[1]".to_vec()),
    case("payload_without_aps", 400, "PayloadEmpty", |asked, _| asked.body = b"{}".to_vec()),
    case("payload_size", 413, "PayloadTooLarge", |asked, _| pad(asked, 4097)),
    case("alert_without_alert", 400, "InvalidPushType", |asked, _| {
        asked.body = br#"{"aps":{"content-available":1}}"#.to_vec();
    }),
];

/// A wake with one thing wrong.
const WAKES: &[Case] = &[
    case("background_priority", 400, "BadPriority", |asked, _| asked.set("apns-priority", "10")),
    case("background_priority", 400, "BadPriority", |asked, _| asked.remove("apns-priority")),
    case("background_without_content_available", 400, "InvalidPushType", |asked, _| {
        asked.body = br#"{"aps":{}}"#.to_vec();
    }),
    case("background_that_shows", 400, "InvalidPushType", |asked, _| {
        asked.body = br#"{"aps":{"content-available":1,"alert":"x"}}"#.to_vec();
    }),
    case("background_that_shows", 400, "InvalidPushType", |asked, _| {
        asked.body = br#"{"aps":{"content-available":1,"badge":3}}"#.to_vec();
    }),
];

/// Makes the body so long with a key of the app's own.
fn pad(asked: &mut Asked, bytes: usize) {
    let empty = json!({ "aps": { "alert": "a" }, "own": "" }).to_string().len();
    let own = "x".repeat(bytes - empty);
    asked.body = json!({ "aps": { "alert": "a" }, "own": own }).to_string().into();
    assert_eq!(asked.body.len(), bytes);
}

#[tokio::test]
async fn a_breach_of_each_rule_is_refused_and_counted() {
    let mut apns = Simulator::start(Program::Apns, &[]);
    allow_updates(&mut apns).await;
    let sender = Sender::new(&mut apns, "TEAM", "KEY1").await;
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let alerts = ALERTS.iter().map(|case| (case, sender.alert(1)));
    let wakes = WAKES.iter().map(|case| (case, sender.wake(1)));
    for (case, mut asked) in alerts.chain(wakes) {
        let right = ask(&apns, &asked).await;
        assert_eq!((right.status, &right.body[..]), (200, &b""[..]), "{}: {asked:?}", case.breach);
        (case.change)(&mut asked, &sender);
        let wrong = ask(&apns, &asked).await;
        assert_eq!((wrong.status, &wrong.json()["reason"]), (case.status, &json!(case.reason)));
        assert!(!wrong.header("apns-id").is_empty(), "{wrong:?}");
        *expected.entry(case.breach.to_owned()).or_default() += 1;
        assert_eq!(apns.counts().await.breaches, expected, "{asked:?}");
    }
    let counts = apns.counts().await;
    let cases = (ALERTS.len() + WAKES.len()) as u64;
    assert_eq!((counts.total.requests, counts.total.accepted.sum()), (2 * cases, cases));
    assert_eq!((counts.total.accepted.wakes, counts.by_status[&200]), (WAKES.len() as u64, cases));
}

#[tokio::test]
async fn what_is_allowed_at_its_limit_is_taken() {
    let mut apns = Simulator::start(Program::Apns, &[]);
    allow_updates(&mut apns).await;
    let sender = Sender::new(&mut apns, "TEAM", "KEY1").await;
    let changes: &[fn(&mut Asked, &Sender)] = &[
        |asked, _| pad(asked, 4096),
        |asked, _| asked.remove("apns-priority"),
        |asked, _| asked.set("apns-priority", "1"),
        |asked, _| asked.set("apns-expiration", "0"),
        |asked, _| asked.remove("apns-id"),
        |asked, _| asked.remove("apns-collapse-id"),
        |asked, _| asked.path.push_str("00"),
        |asked, sender| asked.set("authorization", &sender.token_of(now_s() - 3590)),
        |asked, _| asked.body = br#"{"aps":{"alert":"text"},"own":[1,{"a":null}]}"#.to_vec(),
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut asked = sender.alert(1);
        change(&mut asked, &sender);
        let answered = ask(&apns, &asked).await;
        assert_eq!(answered.status, 200, "change {n}: {answered:?}");
        assert_eq!(answered.header("apns-id").len(), 36, "given or made: {answered:?}");
    }
    let mut asked = sender.alert(1);
    asked.set("apns-id", "00000000-0000-0000-0000-00000000000a");
    let answered = ask(&apns, &asked).await;
    assert_eq!(answered.header("apns-id"), "00000000-0000-0000-0000-00000000000a");
}

#[tokio::test]
async fn a_provider_token_lives_an_hour_and_is_renewed_after_twenty_minutes() {
    const MINUTE_MS: i64 = 60_000;
    let mut apns = Simulator::start(Program::Apns, &[]);
    let sender = Sender::new(&mut apns, "TEAM", "KEY1").await;
    let client = Client::connect(&apns).await;
    let mut asked = sender.alert(1);
    let at = async |apns: &mut Simulator, minute: i64, asked: &Asked| {
        apns.set_clock_ahead_ms(minute * MINUTE_MS).await;
        let answered = client.ask(asked).await;
        (answered.status, answered.json()["reason"].as_str().unwrap_or_default().to_owned())
    };
    let ok = (200, String::new());
    assert_eq!(at(&mut apns, 0, &asked).await, ok);
    assert_eq!(at(&mut apns, 19, &asked).await, ok);
    let first = asked.clone();
    asked.set("authorization", &sender.token_of(now_s() + 19 * 60));
    let too_many = (429, "TooManyProviderTokenUpdates".to_owned());
    assert_eq!(at(&mut apns, 19, &asked).await, too_many);
    assert_eq!(at(&mut apns, 19, &first).await, ok, "the old one is still good");
    // A refused one is no update: the first came at minute 0.
    assert_eq!(at(&mut apns, 21, &asked).await, ok);
    assert_eq!(at(&mut apns, 59, &first).await, ok);
    assert_eq!(at(&mut apns, 61, &first).await, (403, "ExpiredProviderToken".to_owned()));
    assert_eq!(at(&mut apns, 61, &asked).await, ok);
    // Another team's tokens are its own.
    let other = Sender::new(&mut apns, "OTHER", "KEY9").await;
    let mut asked = other.alert(1);
    asked.set("authorization", &other.token_of(now_s() + 61 * 60));
    assert_eq!(ask(&apns, &asked).await.status, 200);
    let breaches = apns.counts().await.breaches;
    assert_eq!(breaches["provider_token_updates"], 1);
    assert_eq!(breaches["provider_token_expired"], 1);
    assert_eq!(breaches.len(), 2);
}

#[tokio::test]
async fn a_connection_is_one_teams_and_one_keys() {
    let mut apns = Simulator::start(Program::Apns, &[]);
    allow_updates(&mut apns).await;
    let sender = Sender::new(&mut apns, "TEAM", "KEY1").await;
    let second_key = Sender::new(&mut apns, "TEAM", "KEY2").await;
    let second_team = Sender::new(&mut apns, "OTHER", "KEY3").await;
    let client = Client::connect(&apns).await;
    assert_eq!(client.ask(&sender.alert(1)).await.status, 200);
    let wrong = client.ask(&second_key.alert(1)).await;
    assert_eq!((wrong.status, &wrong.json()["reason"]), (403, &json!("UnrelatedKeyIdInToken")));
    let wrong = client.ask(&second_team.alert(1)).await;
    assert_eq!((wrong.status, &wrong.json()["reason"]), (403, &json!(INVALID)));
    assert_eq!(client.ask(&sender.alert(1)).await.status, 200);
    for other in [second_key, second_team] {
        assert_eq!(ask(&apns, &other.alert(1)).await.status, 200);
    }
    let breaches = apns.counts().await.breaches;
    let expected = [("second_key_on_connection", 1), ("second_team_on_connection", 1)];
    assert_eq!(breaches, expected.map(|(name, n)| (name.to_owned(), n)).into());
}

#[tokio::test]
async fn only_http2_is_spoken() {
    let mut apns = Simulator::start(Program::Apns, &[]);
    assert!(tls(&apns, &["http/1.1"]).await.is_err(), "no common protocol");
    let mut silent = tls(&apns, &[]).await.expect("a client may offer nothing, and is cut then");
    let mut nothing = [0; 1];
    let read = tokio::io::AsyncReadExt::read(&mut silent, &mut nothing).await;
    assert_eq!(read.unwrap_or(0), 0);
    let breaches = apns.counts().await.breaches;
    assert_eq!((breaches["tls_handshake"], breaches["no_http2"]), (1, 1));
}
