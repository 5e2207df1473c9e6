//! Planted markers: credentials, the key they are encrypted under, what devices are reached by, and what messages say,
//! looked for in everything that a run leaves behind, while as much as may be goes wrong.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use carillon_tests::admin::{Admin, Answer, text};
use carillon_tests::cluster::{Store, ops_get};
use serde_json::{Value, json};

use crate::bench::{Bench, Channel, Device, Token};

const EVERYONE: &str = "rank >= 0";
const TITLE: &str = "planted-title-of-an-alert";
const WORDS: &str = "planted-words-of-an-alert";
const LOCAL: &str = "planted-words-in-a-locale";
const BODY: &str = "planted-body-of-a-message";
const OVERRIDE: &str = "planted-override-of-an-alert";
const PATH: &str = "planted-path-of-an-endpoint";

/// What must not be found, and what it is.
struct Marker {
    what: String,
    text: String,
}

/// Hears all answers.
struct Ear {
    bench: Bench,
    heard: Vec<String>,
    problems: Vec<String>,
}

impl Ear {
    fn note(&mut self, call: &str, answer: &Answer) {
        let said =
            format!("{call}: {:?}\n{}", answer.headers, String::from_utf8_lossy(&answer.body));
        if answer.status >= 400 {
            self.problems.push(said.clone());
        }
        self.heard.push(said);
    }

    /// With a body as it is.
    async fn send(&mut self, method: &str, rest: &str, kind: &str, body: String) -> Answer {
        let path = format!("{}/{rest}", self.bench.path);
        let mut request = self.bench.admin.request(method, &path, body);
        request.headers_mut().insert("content-type", kind.parse().expect("a header"));
        let answer = self.bench.admin.send(request).await;
        self.note(&format!("{method} {rest}"), &answer);
        answer
    }

    async fn call(&mut self, method: &str, rest: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, rest, "application/json", body).await
    }

    async fn ok(&mut self, method: &str, rest: &str, body: Value) -> Value {
        let answer = self.call(method, rest, body).await;
        assert!((200..300).contains(&answer.status), "{method} {rest}: {answer:?}");
        answer.json()
    }

    /// A call that is to be refused.
    async fn refused(&mut self, method: &str, rest: &str, body: String) {
        let answer = self.send(method, rest, "application/json", body).await;
        assert!((400..500).contains(&answer.status), "{method} {rest}: {answer:?}");
    }

    async fn import(&mut self, lines: &[String]) -> Answer {
        self.send("POST", "devices:import", "application/x-ndjson", lines.join("\n")).await
    }

    async fn alert(&mut self) -> String {
        let input = json!({"to": EVERYONE, "body": {"text": BODY}, "push": alert()});
        text(&self.ok("POST", "messages", input).await, "id").to_owned()
    }

    async fn set_credential(&mut self, channel: Channel) {
        let found = self.bench.credentials.iter().find(|(of, _)| *of == channel);
        let credential = found.expect("all three").1.clone();
        let path = format!("push/{}", channel.name());
        self.ok("PUT", &path, json!({ "credential": credential })).await;
    }

    async fn until_done(&mut self, message: &str) {
        self.bench.until_state(message, "done").await;
        self.ok("GET", &format!("messages/{message}/funnel"), Value::Null).await;
    }
}

fn alert() -> Value {
    json!({"kind": "alert", "text": {"title": TITLE, "body": WORDS},
           "locales": {"sv": {"title": "t", "body": LOCAL}},
           "overrides": {"apns": {"note": OVERRIDE}, "webpush": {"data": {"note": OVERRIDE}}}})
}

/// The long lines of a PEM text.
fn lines(pem: &str) -> Vec<String> {
    let body = pem.lines().filter(|line| !line.starts_with('-') && line.len() >= 40);
    body.map(str::to_owned).collect()
}

fn decoded(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).expect("PEM")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn what_is_secret_is_in_no_log_metric_answer_or_database() {
    let keys =
        [rand::random::<[u8; 32]>(), rand::random::<[u8; 32]>()].map(|key| hexadecimal(&key));
    let folder = tempfile::tempdir().expect("a folder");
    let key_file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let first = key_file("first", &keys[0]);
    let later =
        [key_file("other", &keys[1]), key_file("both", &format!("{},{}", keys[1], keys[0]))];
    let loud = ["--log-filter", "debug"];
    let central = [
        &loud[..],
        &["--push-credentials-key-file", &first],
        &["--push-grace", "100ms", "--push-attempts-max", "2"],
    ]
    .concat();
    let bench = Bench::start(Store::Sqlite, "shop", &central, &[&loud]).await;
    let mut ear = Ear { bench, heard: Vec::new(), problems: Vec::new() };
    for channel in Channel::ALL {
        ear.set_credential(channel).await;
    }
    let devices: Vec<Device> = (0..12)
        .map(|n| Device::new(n, Channel::ALL.map(|of| ear.bench.token(of, n)).to_vec()))
        .collect();
    let line = |device: &Device| {
        let tokens: Vec<Value> = device.tokens.iter().map(Token::json).collect();
        json!({"id": device.id(), "attributes": device.attributes, "tokens": tokens}).to_string()
    };
    let all: Vec<String> = devices.iter().map(line).collect();
    assert_eq!(ear.import(&all).await.status, 200);
    let live = ear.bench.client(&[("rank", json!(50)), ("locale", json!("sv"))]).await;
    let own = Channel::ALL.map(|of| ear.bench.token(of, 50)).to_vec();
    live.set_tokens(&own).await;
    let live_id = live.id.clone();
    drop(live);

    bad_credentials(&mut ear).await;
    bad_messages(&mut ear).await;
    bad_tokens(&mut ear, &devices).await;
    bad_device_calls(&mut ear, &own).await;
    let mut authorizations = providers_fail(&mut ear, &devices).await;
    authorizations.extend(keys_change(&mut ear, &later).await);
    let device = devices[3].id();
    let page = [
        "push",
        "devices",
        "messages",
        "groups",
        "attributes",
        &format!("devices/{device}"),
        &format!("devices/{live_id}"),
        "devices?limit=5",
        "messages?limit=5",
    ];
    for rest in page {
        ear.ok("GET", rest, Value::Null).await;
    }
    let explain = json!({"to": EVERYONE, "device": device});
    ear.ok("POST", "audience:explain", explain).await;

    let [apns, fcm, web_push] = ear.bench.credentials.clone().map(|(_, credential)| credential);
    let (p8, rsa) = (text(&apns, "key"), text(&fcm, "private_key"));
    let vapid = text(&web_push, "private_key");
    let marker = |what: &str, text: &str| Marker { what: what.to_owned(), text: text.to_owned() };
    // What nothing may hold.
    let mut keys_of_ours: Vec<Marker> =
        keys.iter().map(|key| marker("credentials key", key)).collect();
    keys_of_ours.push(marker("VAPID key", vapid));
    keys_of_ours.extend(lines(p8).iter().map(|line| marker(".p8", line)));
    keys_of_ours.extend(lines(rsa).iter().map(|line| marker("service account", line)));
    assert!(keys_of_ours.len() >= 20, "PEM has lines");
    // What reaches a device, or shows that we are we: kept, but told to nobody.
    let mut reaches: Vec<Marker> =
        authorizations.iter().map(|of| marker("authorization", of)).collect();
    assert!(reaches.len() >= 3, "each channel has one");
    for token in devices.iter().flat_map(|device| &device.tokens).chain(&own) {
        reaches.push(marker("token", &token.name()));
        if token.channel == Channel::WebPush {
            let subscription: Value = serde_json::from_str(&token.text).expect("JSON");
            reaches.push(marker("endpoint", text(&subscription, "endpoint")));
            reaches.push(marker("auth", text(&subscription["keys"], "auth")));
            reaches.push(marker("p256dh", text(&subscription["keys"], "p256dh")));
        }
    }
    reaches.push(marker("endpoint", PATH));
    // What messages say: the admin reads it back, and it is in nothing else.
    let said = [TITLE, WORDS, LOCAL, BODY, OVERRIDE].map(|text| marker("text", text));

    let (central_log, edge_log) = (ear.bench.cluster.central_log(), ear.bench.cluster.edge_log(0));
    for log in [&central_log, &edge_log] {
        assert!(log.contains("DEBUG"), "the log is not as loud as it may be");
    }
    let edge = ear.bench.cluster.edge(0).ops;
    let metrics =
        [ear.bench.metrics().await, ops_get(edge, "/metrics").await.expect("an answer").1];
    let silent: Vec<(&str, &str)> =
        [("central's log", &central_log), ("the edge's log", &edge_log)]
            .into_iter()
            .chain(metrics.iter().map(|text| ("metrics", text)))
            .map(|(name, text)| (name, text.as_str()))
            .chain(ear.problems.iter().map(|text| ("a problem", text.as_str())))
            .collect();
    let answers = ear.heard.iter().map(|text| ("an answer", text.as_str()));
    for marker in keys_of_ours.iter().chain(&reaches) {
        for (name, text) in silent.iter().copied().chain(answers.clone()) {
            absent(marker, name, text);
        }
    }
    for marker in &said {
        for (name, text) in &silent {
            absent(marker, name, text);
        }
        let shown = ear.heard.iter().any(|text| text.contains(&marker.text));
        assert!(shown, "{} is shown where it may be: this looks at the right things", marker.text);
    }
    ear.bench.cluster.stop_central();
    let raw = [decoded(p8), decoded(rsa), URL_SAFE_NO_PAD.decode(vapid).expect("base64url")];
    let texts = keys_of_ours.iter().map(|marker| marker.text.clone().into_bytes());
    database(&ear.bench.cluster.data(), &texts.chain(raw).collect::<Vec<_>>());
}

#[track_caller]
fn absent(marker: &Marker, name: &str, text: &str) {
    let Some(at) = text.find(&marker.text) else { return };
    let from = text.floor_char_boundary(at.saturating_sub(300));
    let to = text.ceil_char_boundary((at + 300).min(text.len()));
    panic!("{} {:?} in {name}: …{}…", marker.what, marker.text, &text[from..to]);
}

/// No file of central's folder holds any of these, and one of them holds the messages.
fn database(folder: &Path, secrets: &[Vec<u8>]) {
    let mut has_messages = false;
    for entry in std::fs::read_dir(folder).expect("central's folder") {
        let path = entry.expect("an entry").path();
        if !path.is_file() {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        let holds = |part: &[u8]| bytes.windows(part.len()).any(|at| at == part);
        has_messages |= holds(BODY.as_bytes());
        for secret in secrets {
            assert!(!holds(secret), "a secret is in {}", path.display());
        }
    }
    assert!(has_messages, "the database was looked at");
}

/// Credentials that are refused, with the good ones' secrets in them.
async fn bad_credentials(ear: &mut Ear) {
    let [apns, fcm, web_push] = ear.bench.credentials.clone().map(|(_, credential)| credential);
    let (p8, rsa) = (text(&apns, "key").to_owned(), text(&fcm, "private_key").to_owned());
    let vapid = text(&web_push, "private_key").to_owned();
    let with = |good: &Value, name: &str, value: Value| {
        let mut bad = good.clone();
        bad[name] = value;
        json!({ "credential": bad })
    };
    let of_another = |channel: &str, credential: &Value| {
        (format!("push/{channel}"), json!({ "credential": credential }))
    };
    for (path, input) in [
        ("push/apns".to_owned(), with(&apns, "team_id", json!(p8))),
        ("push/apns".to_owned(), with(&apns, "topic", json!(p8))),
        ("push/apns".to_owned(), with(&apns, "key", json!(p8.replace("PRIVATE", "PUBLIC")))),
        ("push/apns".to_owned(), with(&apns, "key", json!(rsa))),
        ("push/apns".to_owned(), with(&apns, "key", json!([p8]))),
        ("push/fcm".to_owned(), with(&fcm, "client_email", json!(rsa))),
        ("push/fcm".to_owned(), with(&fcm, "project_id", json!({"k": rsa}))),
        ("push/fcm".to_owned(), with(&fcm, "private_key", json!(p8))),
        ("push/web_push".to_owned(), with(&web_push, "subject", json!(vapid))),
        (
            "push/web_push".to_owned(),
            with(&web_push, "private_key", json!(format!("{vapid}{vapid}"))),
        ),
        ("push/web_push".to_owned(), with(&web_push, "private_key", json!(rsa))),
        ("push/apns".to_owned(), json!({"credential": p8})),
        ("push/apns".to_owned(), json!({"credential": apns, "key": p8})),
        ("push/apns".to_owned(), json!({"credentials": apns})),
        of_another("fcm", &apns),
        of_another("web_push", &fcm),
        of_another("sms", &fcm),
    ] {
        ear.refused("PUT", &path, input.to_string()).await;
    }
    // No JSON, in several ways.
    let whole = json!({ "credential": apns }).to_string();
    for body in [
        whole[..whole.len() - 3].to_owned(),
        whole.replacen("\"credential\"", "credential", 1),
        format!("{whole}{whole}"),
        p8.clone(),
        format!("{{\"credential\": {{\"key\": {}, \"key\": {}}}}}", json!(p8), json!(p8)),
        format!("{{\"{vapid}\": 1}}"),
    ] {
        // A member that nobody knows is named in the refusal; that the author wrote a secret there is not.
        if body.starts_with("{\"") && body.contains(&vapid) {
            continue;
        }
        ear.refused("PUT", "push/apns", body).await;
    }
}

/// Policies that are refused, with words that nobody else is to read.
async fn bad_messages(ear: &mut Ear) {
    let text = json!({"title": TITLE, "body": WORDS});
    let long = json!({"title": TITLE, "body": WORDS.repeat(200)});
    for policy in [
        json!({"kind": "wake", "text": text}),
        json!({"kind": "alert", "text": long}),
        json!({"kind": "alert", "text": {"title": TITLE, "body": [WORDS]}}),
        json!({"kind": "alert", "text": text, "locales": {"sv": {"title": LOCAL}}}),
    ] {
        let input = json!({"to": EVERYONE, "body": {"text": BODY}, "push": policy}).to_string();
        ear.refused("POST", "messages", input.clone()).await;
        ear.refused("POST", "messages", input[..input.len() - 2].to_owned()).await;
    }
}

/// Imports and patches with tokens that are refused, and tokens that are taken but lead nowhere.
async fn bad_tokens(ear: &mut Ear, devices: &[Device]) {
    let token = |n: usize, channel: usize| devices[n].tokens[channel].text.clone();
    let (apns, fcm, web) = (token(0, 0), token(0, 1), token(0, 2));
    let bad = [
        json!({"tokens": [{"channel": "sms", "token": apns}]}),
        json!({"tokens": [{"channel": "apns", "token": [apns]}]}),
        json!({"tokens": [{"channel": "fcm", "token": fcm, "more": fcm}]}),
        json!({"tokens": vec![json!({"channel": "fcm", "token": fcm}); 100]}),
        json!({"tokens": [{"channel": "fcm", "token": fcm.repeat(100)}]}),
    ];
    // A spare device, because a token that is only strange is taken.
    let spare = json!({"id": "0000000000000800", "tokens": []}).to_string();
    assert_eq!(ear.import(&[spare]).await.json()["created"], 1);
    let mut refused = 0;
    for body in &bad {
        let answer = ear.call("PATCH", "devices/0000000000000800", body.clone()).await;
        refused += usize::from(answer.status >= 400);
    }
    assert!(refused >= 3, "{refused} of {}", bad.len());
    let with_id = |(n, body): (usize, &Value)| {
        let mut line = body.clone();
        line["id"] = format!("{:016x}", 900 + n).into();
        line.to_string()
    };
    let lines: Vec<String> = bad.iter().enumerate().map(with_id).collect();
    let answer = ear.import(&lines).await;
    assert_ne!(answer.json()["created"], lines.len(), "{answer:?}");
    let keys = serde_json::from_str::<Value>(&web).expect("JSON")["keys"].clone();
    let nowhere = [
        format!("http://push.example/{PATH}"),
        format!("https://10.0.0.1/{PATH}"),
        format!("https://localhost:1/{PATH}"),
        format!("https://name-that-is-not.invalid:{}/{PATH}", ear.bench.web_push.port()),
        format!("https://localhost:{}/{PATH}", ear.bench.web_push.port()),
        PATH.to_owned(),
    ];
    let subscription = |endpoint| json!({"endpoint": endpoint, "keys": keys}).to_string();
    let line = |(n, token): (u64, String)| {
        let token = Token { channel: Channel::WebPush, text: token };
        json!({"id": format!("{:016x}", 1_000 + n), "attributes": {"rank": 0}, "tokens": [token.json()]})
            .to_string()
    };
    let lines: Vec<String> = (0..).zip(nowhere.map(subscription)).map(line).collect();
    let answer = ear.import(&lines).await;
    assert_eq!(answer.json()["created"], lines.len(), "{answer:?}");
}

/// As an app with a fault would call an edge.
async fn bad_device_calls(ear: &mut Ear, own: &[Token]) {
    let mut device = Admin::new(&ear.bench.cluster.edge(0).plain_url(), "");
    let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let enrol = json!({"key": ear.bench.key, "secret": secret});
    let enrolled = device.call("POST", "/v1/devices", enrol.clone()).await;
    assert_eq!(enrolled.status, 201, "{enrolled:?}");
    device.token = text(&enrolled.json(), "session").to_owned();
    let mut refused = 0;
    for token in own {
        for tokens in [
            json!([{"channel": "sms", "token": token.text}]),
            json!([{"channel": "fcm", "token": token.text, "more": token.text}]),
            json!(vec![token.json(); 100]),
            json!([{"channel": "fcm", "token": token.text.repeat(100)}]),
        ] {
            let answer =
                device.call("PATCH", "/v1/devices/self", json!({ "tokens": tokens })).await;
            refused += usize::from(answer.status >= 400);
            ear.note("PATCH self", &answer);
            let mut enrol = enrol.clone();
            enrol["tokens"] = tokens;
            let answer = device.call("POST", "/v1/devices", enrol).await;
            ear.note("POST devices", &answer);
        }
    }
    assert!(refused >= 6, "{refused} of 12");
}

/// Pushes under everything that providers do; gives what they were shown as authorization.
async fn providers_fail(ear: &mut Ear, devices: &[Device]) -> Vec<String> {
    let name = |n: usize, channel: usize| devices[n].tokens[channel].name();
    let wake = json!({"to": EVERYONE, "body": {"text": BODY}, "push": {"kind": "wake"}});
    let wake = text(&ear.ok("POST", "messages", wake).await, "id").to_owned();
    let first = ear.alert().await;
    ear.until_done(&wake).await;
    ear.until_done(&first).await;

    let echo = |n: usize, channel: usize| {
        json!({"tokens": [name(n, channel)], "status": 400,
        "reason": name(n, channel)})
    };
    ear.bench
        .apns
        .behave(
            json!([{"tokens": [name(0, 0)], "status": 410, "reason": "Unregistered"}, echo(1, 0),
            {"tokens": [name(2, 0)], "times": 1, "status": 429, "reason": "TooManyRequests"},
            {"times": 1, "status": 503, "reason": "ServiceUnavailable", "retry_after": "1"},
            {"times": 2, "reset": "stream"},
            {"times": 1, "status": 403, "reason": "InvalidProviderToken"}]),
        )
        .await;
    ear.bench
        .fcm
        .behave(
            json!([{"tokens": [name(0, 1)], "status": 404, "reason": "UNREGISTERED"}, echo(1, 1),
            {"times": 1, "status": 401, "reason": "UNAUTHENTICATED"},
            {"times": 1, "status": 503, "reason": "UNAVAILABLE", "retry_after": "1"},
            {"times": 1, "reset": "connection"}]),
        )
        .await;
    ear.bench.fcm.expire_access().await;
    ear.bench.fcm.set_token_endpoint_status(500).await;
    let elsewhere = format!("https://localhost:1/{PATH}");
    ear.bench
        .web_push
        .behave(json!([{"tokens": [name(0, 2)], "status": 404, "reason": "gone"}, echo(1, 2),
            {"tokens": [name(2, 2)], "status": 403, "reason": "forbidden"},
            {"tokens": [name(3, 2)], "redirect": elsewhere},
            {"tokens": [name(4, 2)], "endless": true},
            {"tokens": [name(5, 2)], "times": 1, "status": 503, "reason": "down"},
            {"times": 1, "reset": "connection"}]))
        .await;
    let troubled = ear.alert().await;
    ear.bench
        .until_counts(Channel::Apns, |of| of.by_reason.contains_key("InvalidProviderToken"))
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    ear.bench.fcm.set_token_endpoint_status(403).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ear.bench.fcm.set_token_endpoint_status(0).await;
    ear.set_credential(Channel::Apns).await;
    ear.set_credential(Channel::Fcm).await;
    ear.until_done(&troubled).await;

    for channel in Channel::ALL {
        ear.bench.simulator(channel).behave(json!([])).await;
        ear.bench.simulator(channel).down().await;
    }
    let down = ear.alert().await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for channel in Channel::ALL {
        ear.bench.simulator(channel).up().await;
    }
    ear.until_done(&down).await;
    ear.ok("POST", &format!("messages/{down}:recall"), Value::Null).await;
    ear.bench.until_state(&down, "stopped").await;
    authorizations(&mut ear.bench).await
}

/// Another key of credentials: with that alone none opens, with both all do.
async fn keys_change(ear: &mut Ear, files: &[String; 2]) -> Vec<String> {
    ear.bench.cluster.stop_central();
    ear.bench.cluster.start_central_with(&["--push-credentials-key-file", &files[0]]).await;
    ear.bench.admin = ear.bench.cluster.admin();
    let message = ear.alert().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(ear.bench.state(&message).await, "sending", "no credential opens");
    ear.bench.cluster.stop_central();
    ear.bench.cluster.start_central_with(&["--push-credentials-key-file", &files[1]]).await;
    ear.bench.admin = ear.bench.cluster.admin();
    ear.until_done(&message).await;
    authorizations(&mut ear.bench).await
}

async fn authorizations(bench: &mut Bench) -> Vec<String> {
    let mut all = Vec::new();
    for channel in Channel::ALL {
        let captured = bench.simulator(channel).captured().await;
        assert!(!captured.is_empty(), "{channel:?}");
        for push in captured {
            // The token itself, after `bearer` or `vapid t=` and before `, k=`, which is public.
            let whole = push.headers["authorization"].clone();
            let token = whole.split([' ', '=', ',']).max_by_key(|part| part.len());
            all.push(token.expect("a part").to_owned());
        }
    }
    all.sort();
    all.dedup();
    all
}
