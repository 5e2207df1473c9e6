//! A breach of each rule of Web Push, and bodies opened by a library that shares nothing with ours.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon_tests::providers::{KindCounts, Program, Simulator, open_aes128gcm};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::client::{Asked, Client, ask, es256, now_s, tls};

/// RFC 8291, section 5.
mod example {
    pub(crate) const PLAIN: &str = "When I grow up, I want to be a watermelon";
    pub(crate) const PRIVATE: &str = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
    pub(crate) const PUBLIC: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    pub(crate) const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";
    pub(crate) const BODY: &str = concat!(
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz",
        "AC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    );
}

fn base64(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}

/// An application server.
#[derive(Debug)]
struct Sender {
    pem: String,
    public: String,
    origin: String,
}

impl Sender {
    fn new(push: &Simulator) -> Sender {
        let pair = KeyPair::generate().expect("randomness");
        let public = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
        Sender { pem: pair.serialize_pem(), public, origin: push.url() }
    }

    fn claims(&self) -> Value {
        json!({ "aud": self.origin, "exp": now_s() + 12 * 3600, "sub": "mailto:ops@example.com" })
    }

    fn vapid(&self, header: &Value, claims: &Value) -> String {
        format!("vapid t={}, k={}", es256(&self.pem, header, claims), self.public)
    }

    fn vapid_with(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.claims();
        change(&mut claims);
        self.vapid(&json!({ "alg": "ES256", "typ": "JWT" }), &claims)
    }

    /// A right request to a subscription with the keys of the example.
    fn push(&self, path: &str) -> Asked {
        let mut asked = Asked {
            method: "POST".to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: base64(example::BODY),
        };
        asked.add("authorization", &self.vapid_with(|_| ()));
        asked.add("ttl", "3600");
        asked.add("urgency", "normal");
        asked.add("topic", &"t".repeat(32));
        asked.add("content-encoding", "aes128gcm");
        asked
    }
}

/// A subscription with the keys of the example; its path.
async fn subscribe(push: &mut Simulator, vapid: Option<&str>) -> String {
    let input = json!({ "private_key": example::PRIVATE, "auth": example::AUTH, "vapid": vapid, "count": 2 });
    let made = push.call("POST", "subscriptions", input).await;
    assert_eq!(made["keys"], json!({ "p256dh": example::PUBLIC, "auth": example::AUTH }));
    let endpoint = format!("{}1", made["endpoint_base"].as_str().expect("a text"));
    endpoint.strip_prefix(&push.url()).expect("an endpoint of the simulator").to_owned()
}

type Case = (&'static str, u16, fn(&mut Asked, &Sender));

const CASES: &[Case] = &[
    ("method", 405, |asked, _| asked.method = "PUT".to_owned()),
    ("subscription_unknown", 404, |asked, _| asked.path.push('7')),
    ("subscription_unknown", 404, |asked, _| asked.path = "/push/unknown".to_owned()),
    ("vapid_missing", 401, |asked, _| asked.remove("authorization")),
    ("vapid_missing", 401, |asked, _| asked.set("authorization", "WebPush a.b.c")),
    ("vapid_parameters", 403, |asked, sender| {
        asked.set("authorization", &format!("vapid k={}", sender.public));
    }),
    ("vapid_key", 403, |asked, sender| {
        let text = sender.vapid_with(|_| ());
        asked.set("authorization", &text[..text.len() - 4]);
    }),
    ("vapid_malformed", 403, |asked, sender| {
        asked.set("authorization", &format!("vapid t=a.b.c, k={}", sender.public));
    }),
    ("vapid_algorithm", 403, |asked, sender| {
        asked.set("authorization", &sender.vapid(&json!({ "alg": "none" }), &sender.claims()));
    }),
    ("vapid_signature", 403, |asked, sender| {
        // Signed by one key, with another's in its place.
        let other = KeyPair::generate().expect("randomness");
        let text = sender.vapid_with(|_| ());
        let token = text.split_once(", k=").expect("two parameters").0;
        let other = URL_SAFE_NO_PAD.encode(other.public_key_raw());
        asked.set("authorization", &format!("{token}, k={other}"));
    }),
    ("vapid_audience", 403, |asked, sender| {
        let text = sender.vapid_with(|claims| claims["aud"] = json!("https://push.example"));
        asked.set("authorization", &text);
    }),
    ("vapid_audience", 403, |asked, sender| {
        // The whole endpoint instead of its origin is a usual mistake.
        let url = format!("{}{}", sender.origin, asked.path);
        asked.set("authorization", &sender.vapid_with(|claims| claims["aud"] = json!(url)));
    }),
    ("vapid_times", 403, |asked, sender| {
        asked.set("authorization", &sender.vapid_with(|claims| claims["exp"] = Value::Null));
    }),
    ("vapid_expired", 403, |asked, sender| {
        asked.set("authorization", &sender.vapid_with(|claims| claims["exp"] = json!(now_s() - 1)));
    }),
    ("vapid_lives_too_long", 403, |asked, sender| {
        let late = now_s() + 25 * 3600;
        asked.set("authorization", &sender.vapid_with(|claims| claims["exp"] = json!(late)));
    }),
    ("vapid_subject", 403, |asked, sender| {
        let text = sender.vapid_with(|claims| claims["sub"] = json!("ops@example.com"));
        asked.set("authorization", &text);
    }),
    ("vapid_key_of_another", 403, |asked, sender| {
        let pair = KeyPair::generate().expect("randomness");
        let other = Sender {
            pem: pair.serialize_pem(),
            public: URL_SAFE_NO_PAD.encode(pair.public_key_raw()),
            origin: sender.origin.clone(),
        };
        asked.set("authorization", &other.vapid_with(|_| ()));
    }),
    ("ttl_missing", 400, |asked, _| asked.remove("ttl")),
    ("ttl", 400, |asked, _| asked.set("ttl", "an hour")),
    ("ttl", 400, |asked, _| asked.set("ttl", "-1")),
    ("urgency", 400, |asked, _| asked.set("urgency", "urgent")),
    ("topic", 400, |asked, _| asked.set("topic", &"t".repeat(33))),
    ("topic", 400, |asked, _| asked.set("topic", "a+b")),
    ("duplicate_headers", 400, |asked, _| asked.add("ttl", "3600")),
    ("content_encoding", 400, |asked, _| asked.remove("content-encoding")),
    ("content_encoding", 400, |asked, _| asked.set("content-encoding", "aesgcm")),
    ("encoding_of_nothing", 400, |asked, _| asked.body.clear()),
    ("body_short", 400, |asked, _| asked.body.truncate(102)),
    ("body_key_id", 400, |asked, _| asked.body[20] = 64),
    ("body_key_id", 400, |asked, _| asked.body[21] = 2),
    ("body_record_size", 400, |asked, _| asked.body[16..20].copy_from_slice(&[0, 0, 0, 17])),
    ("body_record_size", 400, |asked, _| asked.body[16..20].copy_from_slice(&[0, 0, 0, 50])),
    ("body_size", 413, |asked, _| asked.body.resize(4097, 0)),
];

#[tokio::test]
async fn a_breach_of_each_rule_is_refused_and_counted() {
    let mut push = Simulator::start(Program::WebPush, &[]);
    let sender = Sender::new(&push);
    let path = subscribe(&mut push, Some(&sender.public)).await;
    let client = Client::connect(&push).await;
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for (breach, status, change) in CASES {
        let mut asked = sender.push(&path);
        let right = client.ask(&asked).await;
        assert_eq!(right.status, 201, "{breach}: {right:?}");
        assert!(right.header("location").starts_with(&push.url()), "{right:?}");
        change(&mut asked, &sender);
        let wrong = client.ask(&asked).await;
        assert_eq!(wrong.status, *status, "{breach}: {wrong:?}");
        *expected.entry((*breach).to_owned()).or_default() += 1;
        assert_eq!(push.counts().await.breaches, expected, "{breach}");
    }
    let counts = push.counts().await;
    assert_eq!(counts.total.accepted.sum(), CASES.len() as u64);
    // A token that was good grows old.
    let asked = sender.push(&path);
    assert_eq!(client.ask(&asked).await.status, 201);
    push.set_clock_ahead_ms(12 * 3_600_000 + 60_000).await;
    assert_eq!(client.ask(&asked).await.status, 403);
}

#[tokio::test]
async fn a_body_that_no_browser_could_open_is_taken_and_counted() {
    let mut push = Simulator::start(Program::WebPush, &[]);
    let sender = Sender::new(&push);
    let path = subscribe(&mut push, None).await;
    let client = Client::connect(&push).await;
    let mut asked = sender.push(&path);
    *asked.body.last_mut().unwrap() ^= 1;
    assert_eq!(client.ask(&asked).await.status, 201);
    assert_eq!(push.counts().await.breaches["body_not_for_the_subscription"], 1);
    // Sealed for the example's keys, sent to another subscription.
    let other = push.subscribe(1, None).await;
    let other: Value = serde_json::from_str(&other[0]).unwrap();
    let endpoint = other["endpoint"].as_str().unwrap();
    let asked = sender.push(endpoint.strip_prefix(&push.url()).unwrap());
    assert_eq!(client.ask(&asked).await.status, 201);
    assert_eq!(push.counts().await.breaches["body_not_for_the_subscription"], 2);
    push.set_opening_bodies(false).await;
    assert_eq!(client.ask(&asked).await.status, 201);
    assert_eq!(push.counts().await.breaches["body_not_for_the_subscription"], 2);
}

#[tokio::test]
async fn topics_tell_wakes_and_a_push_may_be_empty() {
    let mut push = Simulator::start(Program::WebPush, &[]);
    let sender = Sender::new(&push);
    let path = subscribe(&mut push, None).await;
    let mut asked = sender.push(&path);
    assert_eq!(ask(&push, &asked).await.status, 201);
    asked.set("topic", "wake");
    asked.remove("content-encoding");
    asked.body.clear();
    assert_eq!(ask(&push, &asked).await.status, 201);
    let counts = push.counts().await;
    assert_eq!(counts.total.accepted, KindCounts { alerts: 1, wakes: 1 });
    assert!(counts.breaches.is_empty());
}

#[tokio::test]
async fn it_redirects_and_answers_without_end_when_told_and_speaks_http1_too() {
    let mut push = Simulator::start(Program::WebPush, &[]);
    let sender = Sender::new(&push);
    let path = subscribe(&mut push, None).await;
    let token = path.rsplit('/').next().unwrap();
    let asked = sender.push(&path);
    push.behave(json!([{ "tokens": [token], "redirect": "http://169.254.169.254/" }])).await;
    let answered = ask(&push, &asked).await;
    assert_eq!((answered.status, answered.header("location")), (307, "http://169.254.169.254/"));
    push.behave(json!([{ "tokens": [token], "status": 410, "reason": "gone" }])).await;
    assert_eq!(ask(&push, &asked).await.status, 410);

    push.behave(json!([{ "endless": true }])).await;
    let mut stream = tls(&push, &["http/1.1"]).await.unwrap();
    let mut text = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in &asked.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n", asked.body.len()));
    stream.write_all(&[text.as_bytes(), &asked.body].concat()).await.unwrap();
    let mut heard = Vec::new();
    while heard.len() < 10_000_000 {
        let read = tokio::io::AsyncReadExt::read_buf(&mut stream, &mut heard).await.unwrap();
        assert_ne!(read, 0, "after {} bytes", heard.len());
    }
    assert!(heard.starts_with(b"HTTP/1.1 201 "));
}

#[tokio::test]
async fn a_captured_body_is_opened_by_an_independent_library() {
    let mut push = Simulator::start(Program::WebPush, &[]);
    let sender = Sender::new(&push);
    let path = subscribe(&mut push, None).await;
    assert_eq!(ask(&push, &sender.push(&path)).await.status, 201);
    let captured = push.captured().await;
    assert_eq!(captured.len(), 1);
    let mut told = captured[0].known.clone();
    assert_eq!(told["private_key"], example::PRIVATE);
    assert_eq!(told["public_key"], example::PUBLIC);
    told["body"] = json!(URL_SAFE_NO_PAD.encode(captured[0].bytes()));
    assert_eq!(String::from_utf8(open_aes128gcm(&told).unwrap()).unwrap(), example::PLAIN);

    let mut torn = captured[0].bytes();
    torn[100] ^= 1;
    told["body"] = json!(URL_SAFE_NO_PAD.encode(torn));
    open_aes128gcm(&told).unwrap_err();
}
