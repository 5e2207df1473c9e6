//! What central refuses so that nothing in it grows, over real sockets.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{ADMIN, Bench, start, start_with};

const PATIENCE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_millis(300);

async fn admin(bench: &Bench) -> TcpStream {
    TcpStream::connect(bench.central.addresses().admin).await.unwrap()
}

/// The status of the next answer on this connection; `None` if it is closed instead.
async fn status(stream: &mut TcpStream) -> Option<u16> {
    let mut line = [0; 12];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut line)).await;
    read.expect("in time").ok()?;
    std::str::from_utf8(&line[9..]).unwrap().parse().ok()
}

async fn closes(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("in time");
}

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_beyond_the_connections_waits_until_one_is_closed() {
    let bench =
        start_with(|config| config.admin.connections_max = std::num::NonZeroUsize::MIN).await;
    let mut first = admin(&bench).await;
    first.write_all(HEALTH).await.unwrap();
    assert_eq!(status(&mut first).await, Some(200));
    let mut second = admin(&bench).await;
    second.write_all(HEALTH).await.unwrap();
    let mut byte = [0];
    assert!(tokio::time::timeout(SOON, second.read(&mut byte)).await.is_err(), "it waits");
    drop(first);
    let read = tokio::time::timeout(PATIENCE, second.read_exact(&mut byte)).await;
    assert_eq!((read.unwrap().unwrap(), byte), (1, *b"H"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_is_given_up() {
    let bench = start_with(|config| config.admin.read_timeout = SOON).await;
    let mut head = admin(&bench).await;
    head.write_all(b"GET /healthz HT").await.unwrap();
    closes(&mut head).await;
    let mut idle = admin(&bench).await;
    closes(&mut idle).await;
    let request = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\ncontent-length: 10\r\n\r\n{{"
        )
    };
    let mut body = admin(&bench).await;
    body.write_all(request("/v1/apps").as_bytes()).await.unwrap();
    assert_eq!(status(&mut body).await, Some(408));
    let app = bench.app().await;
    let mut import = admin(&bench).await;
    import.write_all(request(&format!("{app}/devices:import")).as_bytes()).await.unwrap();
    assert_eq!(status(&mut import).await, Some(408));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_beyond_16_kib_is_refused() {
    let bench = start().await;
    let mut stream = admin(&bench).await;
    let pad = "x".repeat(20_000);
    let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-pad: {pad}\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).await;
    assert_eq!(status(&mut stream).await, Some(431));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_the_store_keeps_too_long_has_an_unknown_outcome() {
    let bench = start_with(|config| {
        config.write_timeout = SOON;
        config.drain_max = SOON;
    })
    .await;
    let app = bench.app().await;
    let messages = format!("{app}/messages");
    bench.faults.hang();
    let answer = bench.post(&messages, json!({"to": "all", "body": 1})).await;
    answer.problem(503, "outcome-unknown");
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(bench.get(&app).await.status, 200, "readers do not wait for the store");
    bench.faults.none();
    let deadline = Instant::now() + PATIENCE;
    while bench.get(&messages).await.json(200)["messages"].as_array().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "it was with the store, which took it after all");
    }
    bench.faults.hang();
    bench.post(&messages, json!({"to": "all", "body": 1})).await.problem(503, "outcome-unknown");
    // What does not end is given up after `drain_max`.
    tokio::time::timeout(PATIENCE, bench.central.stop()).await.expect("in time").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_beyond_the_links_is_closed_at_once() {
    let bench = start_with(|config| config.link.links_max = std::num::NonZeroUsize::MIN).await;
    let first = TcpStream::connect(bench.central.addresses().link).await.unwrap();
    let mut second = TcpStream::connect(bench.central.addresses().link).await.unwrap();
    closes(&mut second).await;
    let metrics = bench.get("/metrics").await.text;
    assert!(metrics.contains("central_links_refused_total 1\n"), "{metrics}");
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_does_not_introduce_itself_in_time_is_closed() {
    let bench = start_with(|config| config.link.hello_timeout = SOON).await;
    let mut silent = TcpStream::connect(bench.central.addresses().link).await.unwrap();
    closes(&mut silent).await;
    let mut without_hello = crate::links::connect_tls(&bench).await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, without_hello.read_to_end(&mut rest)).await;
    let _ = read.expect("in time");
    assert_eq!(rest, b"", "central says nothing to who it does not know");
}

/// One value each at its limit, which is taken, and one beyond it.
#[tokio::test(flavor = "multi_thread")]
async fn names_and_values_beyond_their_lengths_are_refused() {
    let bench = start().await;
    let app = bench.app().await;
    let x = |n: usize| "x".repeat(n);
    let named = |n: usize| json!({"name": x(n), "environment": "sandbox"});
    bench.post("/v1/apps", named(128)).await.json(201);
    bench.post("/v1/apps", named(129)).await.problem(422, "invalid");
    let groups = format!("{app}/groups");
    bench.post(&groups, json!({"name": x(64)})).await.json(201);
    bench.post(&groups, json!({"name": x(65)})).await.problem(422, "invalid");
    let attribute = |n: usize| format!("{app}/attributes/{}", x(n));
    bench.put(&attribute(64), json!({"type": "string"})).await.json(200);
    bench.put(&attribute(65), json!({"type": "string"})).await.problem(422, "invalid");

    let import = format!("{app}/devices:import");
    bench.post_text(&import, r#"{"id":"00000000000000d1"}"#).await.json(200);
    let device = format!("{app}/devices/00000000000000d1");
    let token = |n: usize| json!({"channel": "fcm", "token": x(n)});
    let tokens = |n: usize| json!({"tokens": vec![token(1); n]});
    for (good, bad) in [
        (json!({"user": x(256)}), json!({"user": x(257)})),
        (
            json!({"attributes": {"country": x(1_024)}}),
            json!({"attributes": {"country": x(1_025)}}),
        ),
        (tokens(10), tokens(11)),
        (json!({"tokens": [token(4_096)]}), json!({"tokens": [token(4_097)]})),
        (json!({"tokens": []}), json!({"tokens": [token(0)]})),
    ] {
        bench.patch(&device, good).await.json(200);
        bench.patch(&device, bad).await.problem(422, "invalid");
    }

    let messages = format!("{app}/messages");
    let collapsed = |n: usize| json!({"to": "all", "body": 1, "collapse_key": x(n)});
    bench.post(&messages, collapsed(64)).await.json(201);
    bench.post(&messages, collapsed(65)).await.problem(422, "invalid");
    let bearer = format!("Bearer {ADMIN}");
    for (n, wanted) in [(128, 201), (129, 422)] {
        let key = x(n);
        let headers = [("authorization", &*bearer), ("idempotency-key", &*key)];
        let body = Bytes::from(json!({"to": "all", "body": 1}).to_string());
        assert_eq!(bench.send(Method::POST, &messages, &headers, body).await.status, wanted);
    }
}

/// Declared concurrently, so that few commits carry them all.
async fn make(bench: &Bench, count: usize, one: impl Fn(usize) -> (Method, String, String)) {
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", &*bearer)];
    for chunk in (0..count).collect::<Vec<_>>().chunks(64) {
        let calls = chunk.iter().map(|n| {
            let (method, path, body) = one(*n);
            async move { bench.send(method, &path, &headers, body).await.status }
        });
        let statuses = futures_util::future::join_all(calls).await;
        assert!(statuses.iter().all(|status| matches!(status, 200 | 201)), "{statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_only_so_many_attributes_and_groups() {
    let bench = start().await;
    let app = bench.app().await;
    make(&bench, 257, |n| {
        let path = format!("{app}/attributes/a{n}");
        (Method::PUT, path, json!({"type": "bool", "set_by": "both"}).to_string())
    })
    .await;
    make(&bench, 1_025, |n| {
        (Method::POST, format!("{app}/groups"), json!({"name": format!("g{n}")}).to_string())
    })
    .await;
    let import = format!("{app}/devices:import");
    let line = |attributes: usize, groups: usize| {
        let attributes: serde_json::Map<String, serde_json::Value> =
            (0..attributes).map(|n| (format!("a{n}"), json!(true))).collect();
        let groups: Vec<String> = (0..groups).map(|n| format!("g{n}")).collect();
        json!({"id": "00000000000000d1", "attributes": attributes, "groups": groups}).to_string()
    };
    let bad = |report: serde_json::Value| report["errors"][0]["code"].as_str().map(str::to_owned);
    let full = bench.post_text(&import, &line(256, 1_024)).await.json(200);
    assert_eq!((full["created"].as_u64(), bad(full)), (Some(1), None));
    for (attributes, groups) in [(257, 0), (0, 1_025)] {
        let report = bench.post_text(&import, &line(attributes, groups)).await.json(200);
        assert_eq!(bad(report).as_deref(), Some("limit"), "{attributes} {groups}");
    }
    let device = format!("{app}/devices/00000000000000d1");
    let one_more = json!({"attributes": {"a256": true}});
    bench.patch(&device, one_more).await.problem(422, "limit");
    bench.patch(&device, json!({"groups": {"g1024": true}})).await.problem(422, "limit");
    let add = format!("{app}/groups/name:g1024/members:add");
    let report = bench.post(&add, json!({"devices": ["00000000000000d1"]})).await;
    assert!(report.text.contains("00000000000000d1"), "{}", report.text);
    let shown = bench.get(&device).await.json(200);
    assert_eq!(shown["groups"].as_array().map(Vec::len), Some(1_024));
}
