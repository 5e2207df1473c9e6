//! How a simulator fails when told, and what it counts.

use std::time::{Duration, Instant};

use carillon_tests::providers::{KindCounts, Program, Simulator};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::apns::Sender;
use crate::client::{Answered, Client, PATIENCE, tls};

async fn start() -> (Simulator, Sender) {
    let mut apns = Simulator::start(Program::Apns, &[]);
    let sender = Sender::new(&mut apns, "TEAM", "KEY1").await;
    (apns, sender)
}

/// The provider token of the first request goes for all: a second one would come too early.
struct Pusher {
    client: Client,
    sender: Sender,
    authorization: String,
}

impl Pusher {
    async fn connect(apns: &Simulator, sender: &Sender, authorization: &str) -> Pusher {
        let client = Client::connect(apns).await;
        Pusher { client, sender: sender.clone(), authorization: authorization.to_owned() }
    }

    async fn alert(&self, n: u64, collapse: &str) -> Result<Answered, hyper::Error> {
        let mut asked = self.sender.alert(n);
        asked.set("authorization", &self.authorization);
        asked.set("apns-collapse-id", collapse);
        self.client.send(&asked).await
    }

    async fn wake(&self, n: u64) -> Result<Answered, hyper::Error> {
        let mut asked = self.sender.wake(n);
        asked.set("authorization", &self.authorization);
        self.client.send(&asked).await
    }

    async fn status(&self, n: u64) -> u16 {
        self.alert(n, "one").await.expect("an answer").status
    }
}

fn token(n: u64) -> String {
    format!("{n:064x}")
}

#[tokio::test]
async fn it_answers_as_told_for_shares_sets_and_kinds() {
    let (mut apns, sender) = start().await;
    let pusher = Pusher::connect(&apns, &sender, &sender.token_of(crate::client::now_s())).await;
    let rule = json!({
        "tokens": [token(1)], "status": 410, "reason": "Unregistered", "gone_since_ms": 1_700_000_000_000_u64
    });
    apns.behave(json!([rule])).await;
    let gone = pusher.alert(1, "one").await.unwrap();
    assert_eq!(gone.status, 410);
    assert_eq!(
        gone.json(),
        json!({ "reason": "Unregistered", "timestamp": 1_700_000_000_000_u64 })
    );
    assert_eq!(pusher.status(2).await, 200);

    let rule =
        json!({ "share": 0.25, "status": 429, "reason": "TooManyRequests", "retry_after": "7" });
    apns.behave(json!([rule])).await;
    let mut busy = 0;
    for n in 0..40 {
        let answered = pusher.alert(n, "one").await.unwrap();
        if answered.status == 429 {
            assert_eq!(answered.header("retry-after"), "7");
            busy += 1;
        }
    }
    assert_eq!(busy, 10);

    apns.behave(json!([{ "share_of_tokens": 0.5, "status": 410, "reason": "Unregistered" }])).await;
    let mut first = Vec::new();
    let mut second = Vec::new();
    for statuses in [&mut first, &mut second] {
        for n in 0..100 {
            statuses.push(pusher.status(n).await);
        }
    }
    assert_eq!(first, second, "the same tokens every time");
    let gone = first.iter().filter(|status| **status == 410).count();
    assert!((25..=75).contains(&gone), "{gone} of 100");

    let rules = json!([
        { "kind": "wake", "status": 500, "reason": "InternalServerError" },
        { "times": 2, "status": 503, "reason": "ServiceUnavailable" },
    ]);
    apns.behave(rules).await;
    assert_eq!(pusher.wake(1).await.unwrap().status, 500);
    let statuses = [pusher.status(1).await, pusher.status(1).await, pusher.status(1).await];
    assert_eq!(statuses, [503, 503, 200]);
    apns.behave(json!([])).await;
    assert_eq!(pusher.wake(1).await.unwrap().status, 200);
    let counts = apns.counts().await;
    assert_eq!(counts.by_reason["TooManyRequests"], 10);
    assert_eq!(counts.by_reason["ServiceUnavailable"], 2);
    assert!(counts.breaches.is_empty(), "{:?}", counts.breaches);
}

#[tokio::test]
async fn it_is_slow_and_resets_as_told() {
    let (mut apns, sender) = start().await;
    let authorization = sender.token_of(crate::client::now_s());
    let pusher = Pusher::connect(&apns, &sender, &authorization).await;
    apns.behave(json!([{ "slow_ms": 300 }])).await;
    let started = Instant::now();
    assert_eq!(pusher.status(1).await, 200);
    assert!(started.elapsed() >= Duration::from_millis(300));

    apns.behave(json!([{ "times": 1, "reset": "stream" }])).await;
    let reset = pusher.alert(1, "one").await.unwrap_err();
    assert!(!reset.is_closed(), "{reset:?}");
    assert_eq!(pusher.status(1).await, 200, "the connection goes on");
    let before = apns.counts().await;
    assert_eq!((before.resets, before.total.accepted.alerts), (1, 2));

    // An answer that is lost: the push was taken.
    apns.behave(json!([{ "times": 1, "reset": "connection", "accepted": true }])).await;
    pusher.alert(2, "one").await.unwrap_err();
    let ended = tokio::time::timeout(PATIENCE, pusher.client.ended).await;
    // It may end by an error or in silence; it ends.
    drop(ended.expect("the connection ends").unwrap());
    let after = apns.counts().await;
    assert_eq!((after.resets, after.total.accepted.alerts), (2, 3));
    assert_eq!(apns.tokens(&[token(2)]).await[0].alerts, 1);
    let again = Pusher::connect(&apns, &sender, &authorization).await;
    assert_eq!(again.status(2).await, 200);
    assert_eq!(apns.counts().await.connections, 2);
}

#[tokio::test]
async fn a_connection_goes_away_after_so_many_requests_and_answers_those() {
    let (mut apns, sender) = start().await;
    let pusher = Pusher::connect(&apns, &sender, &sender.token_of(crate::client::now_s())).await;
    apns.go_away_after(3).await;
    apns.behave(json!([{ "slow_ms": 50 }])).await;
    let three = tokio::join!(pusher.status(1), pusher.status(2), pusher.status(3));
    assert_eq!(three, (200, 200, 200), "those under way are answered");
    let ended = tokio::time::timeout(PATIENCE, pusher.client.ended).await;
    ended.expect("the connection ends").unwrap().expect("without an error");
}

#[tokio::test]
async fn down_refuses_connections_and_takes_nothing_and_up_is_on_the_same_port() {
    let (mut apns, sender) = start().await;
    let authorization = sender.token_of(crate::client::now_s());
    let pusher = Pusher::connect(&apns, &sender, &authorization).await;
    assert_eq!(pusher.status(1).await, 200);
    apns.behave(json!([{ "slow_ms": 200 }])).await;
    let mut control = apns.control();
    let (push, ()) = tokio::join!(pusher.alert(2, "one"), async {
        let mut counts = async || control.ok("GET", "/counts", Value::Null).await;
        while counts().await["total"]["received"]["alerts"] != 2 {}
        apns.down().await;
    });
    push.unwrap_err();
    assert!(Client::try_connect(&apns).await.is_err(), "the port is closed");
    assert_eq!(apns.counts().await.connections_open, 0);
    apns.up().await;
    // As slow as the one that was cut off, and after it.
    let again = Pusher::connect(&apns, &sender, &authorization).await;
    assert_eq!(again.status(3).await, 200);
    apns.behave(json!([])).await;
    let states = apns.tokens(&[token(1), token(2), token(3)]).await;
    assert_eq!(states.iter().map(|state| state.alerts).collect::<Vec<_>>(), [1, 0, 1]);
    apns.cut().await;
    let ended = tokio::time::timeout(PATIENCE, again.client.ended).await;
    drop(ended.expect("the connection ends").unwrap());
    let third = Pusher::connect(&apns, &sender, &authorization).await;
    assert_eq!(third.status(3).await, 200, "the port stayed open");
}

#[tokio::test]
async fn marks_repeats_and_collapse_ids_are_counted() {
    let (mut apns, sender) = start().await;
    let pusher = Pusher::connect(&apns, &sender, &sender.token_of(crate::client::now_s())).await;
    for (n, collapse) in [(1, "one"), (1, "one"), (1, "one"), (2, "one"), (2, "two"), (2, "three")]
    {
        pusher.alert(n, collapse).await.unwrap();
    }
    pusher.wake(1).await.unwrap();
    let counts = apns.counts().await;
    assert_eq!(counts.total.accepted, KindCounts { alerts: 6, wakes: 1 });
    assert_eq!((counts.tokens.seen, counts.tokens.alerted, counts.tokens.woken), (2, 2, 1));
    assert_eq!(counts.tokens.repeats, KindCounts { alerts: 2, wakes: 0 });
    assert_eq!(counts.tokens.two_collapse_ids, KindCounts { alerts: 1, wakes: 0 });
    let states = apns.tokens(&[token(1), token(2), token(3)]).await;
    let told = states.iter().map(|state| (state.alerts, state.wakes, state.two_alert_collapse_ids));
    assert_eq!(told.collect::<Vec<_>>(), [(3, 1, false), (3, 0, true), (0, 0, false)]);
    assert_eq!(apns.captured().await.len(), 7);

    assert_eq!(apns.mark().await, 1);
    pusher.wake(1).await.unwrap();
    apns.behave(json!([{ "status": 503, "reason": "ServiceUnavailable" }])).await;
    pusher.alert(1, "one").await.unwrap();
    let since = apns.counts().await.since_mark;
    assert_eq!(since.accepted, KindCounts { alerts: 0, wakes: 1 });
    assert_eq!(since.received, KindCounts { alerts: 1, wakes: 1 }, "it was handed over in vain");
    assert_eq!(since.requests, 2);
    let captured = apns.captured().await;
    let tokens: Vec<&str> = captured.iter().map(|push| push.token.as_str()).collect();
    assert_eq!(tokens, [token(1), token(1)]);
    assert_eq!(captured[0].bytes(), br#"{"aps":{"content-available":1}}"#);
    assert_eq!(captured[0].headers["apns-collapse-id"], "wake");

    apns.reset().await;
    let counts = apns.counts().await;
    assert_eq!((counts.total.requests, counts.tokens.seen, counts.connections_open), (0, 0, 1));
}

#[tokio::test]
async fn bodies_are_captured_up_to_a_number() {
    let mut apns = Simulator::start(Program::Apns, &["--capture", "3"]);
    let sender = Sender::new(&mut apns, "TEAM", "KEY1").await;
    let pusher = Pusher::connect(&apns, &sender, &sender.token_of(crate::client::now_s())).await;
    for n in 0..5 {
        pusher.status(n).await;
    }
    assert_eq!(apns.captured().await.len(), 3);
}

/// A frame's header and payload.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The headers of a request, as literals without indexing (RFC 7541, section 6.2.2). They end neither the stream.
fn open_stream(stream: u32) -> Vec<u8> {
    let mut block = Vec::new();
    let headers =
        [(":method", "POST"), (":scheme", "https"), (":path", "/3/device/00"), (":authority", "a")];
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend(text.as_bytes());
        }
    }
    frame(1, 4, stream, &block)
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_and_counted_once_the_client_knows_it() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut apns = Simulator::start(Program::Apns, &["--max-streams", "7"]);
    for (known, max) in [(true, 7), (false, 3)] {
        apns.set_streams_max(max).await;
        let mut stream = tls(&apns, &["h2"]).await.unwrap();
        let mut bytes = [PREFACE, &frame(4, 0, 0, &[])].concat();
        if known {
            bytes.extend(frame(4, 1, 0, &[]));
        }
        // None of them ends, so all are open at a time.
        bytes.extend((0..=max).flat_map(|n| open_stream(2 * n + 1)));
        stream.write_all(&bytes).await.unwrap();
        // Until the reset of the last one.
        let reset = frame(3, 0, 2 * max + 1, &[0, 0, 0, 7]);
        let mut heard = Vec::new();
        while !heard.windows(reset.len()).any(|window| window == reset) {
            let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut heard)).await;
            assert_ne!(read.expect("a refusal in time").unwrap(), 0, "{heard:?}");
        }
        let counts = apns.counts().await;
        assert_eq!(counts.breaches, [("too_many_streams".to_owned(), 1)].into());
        assert_eq!(counts.streams_refused_early, u64::from(!known));
    }
}

#[tokio::test]
async fn it_ends_when_its_input_closes_and_at_a_signal() {
    for signal in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_apns_simulator"))
            .arg("--data")
            .arg(folder.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        assert!(told["listen"].is_u64() && told["control"].is_u64(), "{told}");
        if signal {
            let kill = ["-TERM", &child.id().to_string()].map(str::to_owned);
            assert!(std::process::Command::new("kill").args(kill).status().unwrap().success());
        } else {
            drop(child.stdin.take());
        }
        let ended = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        assert!(ended.success(), "{ended:?}");
    }
}
