//! An edge with real sockets: real TLS to a scripted central, real HTTP from devices.

mod central;
mod client;
mod follow;
mod limits;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon_edge::{CentralConfig, Config, Edge, EdgeError, ListenConfig, Token, Trust};
use central::{Central, TOKEN, message};
use client::{Reply, SECRET, request, send};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(30);

fn config(central: &Central) -> Config {
    let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    Config {
        central: CentralConfig {
            address: central.address.to_string(),
            trust: Trust::CaPem(central.ca.clone()),
            token: Token::new(TOKEN),
            backoff_max: Duration::from_millis(400),
            ..CentralConfig::default()
        },
        listen: ListenConfig { tls: any, http: any, ops: any, ..ListenConfig::default() },
        cores: NonZeroUsize::new(2),
        drain_spread: Duration::from_millis(50),
        ..Config::default()
    }
}

/// A running edge that has a world.
async fn start(config: Config) -> (Edge, Device) {
    let edge = Edge::start(config).expect("the edge starts");
    until(|| edge.is_ready()).await;
    let http = edge.addresses().http.expect("it listens");
    (edge, Device { http, session: String::new(), id: String::new() })
}

async fn until(mut true_: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !true_() {
        assert!(Instant::now() < deadline, "it did not become true in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Device {
    http: SocketAddr,
    session: String,
    id: String,
}

impl Device {
    async fn enrol(&mut self) -> Reply {
        let body = format!(r#"{{"key":"{}","secret":"{SECRET}"}}"#, central::KEY);
        let reply = self.send(request(Method::POST, "/v1/devices", &[], &body)).await;
        if reply.status < 300 {
            self.session = reply.text("session");
            self.id = reply.text("id");
        }
        reply
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        send(self.http, request).await.expect("an answer")
    }

    fn call(
        &self,
        method: Method,
        path: &str,
        cursor: Option<&str>,
        body: &str,
    ) -> Request<Full<Bytes>> {
        let bearer = format!("Bearer {}", self.session);
        let mut headers = vec![("authorization", &*bearer)];
        headers.extend(cursor.map(|cursor| ("carillon-cursor", cursor)));
        request(method, path, &headers, body)
    }

    async fn poll(&self, wait: u32, cursor: Option<&str>) -> Reply {
        self.send(self.call(Method::GET, &format!("/v1/messages?wait={wait}"), cursor, "")).await
    }

    /// A cursor with which the next poll parks.
    async fn settle(&self, cursor: &str) -> String {
        let mut cursor = cursor.to_owned();
        for _ in 0..5 {
            let reply = self.poll(0, Some(&cursor)).await;
            match reply.status {
                204 => return cursor,
                200 => cursor = reply.text("cursor"),
                _ => panic!("{reply:?}"),
            }
        }
        panic!("there is always something new");
    }
}

async fn ops(edge: &Edge, path: &str) -> Reply {
    let to = edge.addresses().ops.expect("it listens");
    send(to, request(Method::GET, path, &[], "")).await.expect("an answer")
}

/// The value of a metric without labels.
async fn metric(edge: &Edge, name: &str) -> f64 {
    let reply = ops(edge, "/metrics").await;
    let text = String::from_utf8(reply.body.to_vec()).expect("text");
    let line = text.lines().find(|line| line.split_once(' ').is_some_and(|(n, _)| n == name));
    line.and_then(|line| line.split_once(' ')?.1.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_enrols_polls_fetches_writes_and_is_forgotten() {
    let central = Central::start().await;
    central.commit(vec![message(1), message(2)]);
    let (edge, mut device) = start(config(&central)).await;
    let enrolled = device.enrol().await;
    assert_eq!(enrolled.status, 201);
    let cookie = enrolled.headers["set-cookie"].to_str().expect("text");
    let session = device.session.clone();
    assert_eq!(
        cookie,
        format!(
            "__Host-carillon-{}={session}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=34560000",
            central::APP
        )
    );
    assert_eq!(device.enrol().await.status, 200, "a repeat finds the same device");
    let first = device.poll(0, Some(&enrolled.text("cursor"))).await;
    assert_eq!(first.status, 200, "the enrolment's floor was reached: {first:?}");
    let mut ids = first.ids();
    ids.sort();
    assert_eq!(ids, ["0000000000000001", "0000000000000002"]);
    let cursor = first.text("cursor");
    let body = r#"{"ids":["0000000000000002","0000000000000009"]}"#;
    let fetched =
        device.send(device.call(Method::POST, "/v1/messages:fetch", Some(&cursor), body)).await;
    assert_eq!(
        (fetched.ids(), fetched.json()["gone"][0].as_str()),
        (vec!["0000000000000002".to_owned()], Some("0000000000000009"))
    );

    let patch = r#"{"attributes":{"a":1}}"#;
    let patched =
        device.send(device.call(Method::PATCH, "/v1/devices/self", Some(&cursor), patch)).await;
    assert_eq!((patched.status, patched.text("after")), (200, cursor.clone()));
    let raised = patched.text("cursor");
    assert!(
        device.poll(5, Some(&raised)).await.status < 300,
        "the edge reaches the write that it carried"
    );
    let without = device.send(device.call(Method::PATCH, "/v1/devices/self", None, patch)).await;
    assert_eq!((without.status, &without.json()), (200, &serde_json::json!({"after": null})));

    let receipts = r#"{"receipts":[{"id":"0000000000000001","message":"0000000000000002","kind":"opened","at":"2026-11-21T00:00:00Z"}]}"#;
    let received = device.send(device.call(Method::POST, "/v1/receipts", None, receipts)).await;
    assert_eq!((received.status, &*received.body), (202, &b"{}"[..]));

    let login = format!(r#"{{"app":"{}","id":"{}","secret":"{SECRET}"}}"#, central::APP, device.id);
    let session = device.send(request(Method::POST, "/v1/devices/session", &[], &login)).await;
    assert_eq!(session.status, 200);
    device.session = session.text("session");
    assert!(device.poll(0, None).await.status == 200);

    let forgotten = device.send(device.call(Method::DELETE, "/v1/devices/self", None, "")).await;
    assert_eq!(forgotten.status, 204);
    assert!(forgotten.headers["set-cookie"].to_str().expect("text").ends_with("Max-Age=0"));
    let id = device.id.parse().expect("an id");
    assert!(central.device(id).is_none());
    until_status(&device, 401).await;
    assert_eq!(device.poll(0, None).await.problem(), (401, "unknown".into()));
    let session = device.send(request(Method::POST, "/v1/devices/session", &[], &login)).await;
    assert_eq!(session.problem(), (401, "unknown".into()));
    edge.stop().await.expect("no thread panicked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn central_is_told_once_which_devices_came_by() {
    let central = Central::start().await;
    let (edge, mut device) = start(config(&central)).await;
    device.enrol().await;
    let stranger = request(Method::GET, "/v1/messages", &[("authorization", "Bearer x")], "");
    assert_eq!(device.send(stranger).await.status, 401);
    for _ in 0..20 {
        assert!(device.poll(0, None).await.status < 300);
    }
    until(|| !central.seen().is_empty()).await;
    for _ in 0..20 {
        assert!(device.poll(0, None).await.status < 300);
    }
    // Reports go every two seconds.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let own = device.id.parse().expect("an id");
    // Twice only if its hour ended in between, and each core counts by itself.
    let seen = central.seen();
    assert!(seen.iter().all(|id| *id == own) && seen.len() <= 4, "{seen:?}");
    edge.stop().await.expect("no thread panicked");
}

async fn until_status(device: &Device, status: u16) {
    let deadline = Instant::now() + PATIENCE;
    while device.poll(0, None).await.status != status {
        assert!(Instant::now() < deadline, "no {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_poll_is_answered_when_a_message_is_committed() {
    let central = Central::start().await;
    let (edge, mut device) = start(config(&central)).await;
    let cursor = device.enrol().await.text("cursor");
    let cursor = device.settle(&cursor).await;
    let wakes = metric(&edge, "edge_wakes_total").await;
    let sent = Instant::now();
    let (answer, ()) = tokio::join!(device.poll(60, Some(&cursor)), async {
        wait_for_metric(&edge, "edge_parked_polls", 1.0).await;
        central.commit(vec![message(7)]);
    });
    assert_eq!(answer.ids(), ["0000000000000007"]);
    assert_eq!(answer.text("after"), cursor);
    assert!(sent.elapsed() < PATIENCE, "it was woken, not timed out");
    assert!(metric(&edge, "edge_wakes_total").await > wakes);
    edge.kill().expect("no thread panicked");
}

async fn wait_for_metric(edge: &Edge, name: &str, value: f64) {
    let deadline = Instant::now() + PATIENCE;
    while metric(edge, name).await != value {
        assert!(Instant::now() < deadline, "{name} is not {value}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_and_2_over_tls_answer_alike_and_a_ticket_resumes_at_another_edge() {
    let central = Central::start().await;
    central.commit(vec![message(1)]);
    let (edge, mut device) = start(config(&central)).await;
    device.enrol().await;
    let to = edge.addresses().tls.expect("it listens");
    let certificate = edge.certificate_der().expect("it shows one");
    let h2 = client::tls(certificate.clone(), b"h2");
    let answer = client::send_h2(client::connect_tls(to, &h2).await, h2_call(&device)).await;
    assert_eq!(answer.ids(), ["0000000000000001"]);
    let h1 = client::tls(certificate, b"http/1.1");
    let cookie = format!("__Host-carillon-{}={}", central::APP, device.session);
    let by_cookie = || request(Method::GET, "/v1/messages", &[("cookie", &cookie)], "");
    let stream = client::connect_tls(to, &h1).await;
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    assert_eq!(client::send_h1(stream, by_cookie()).await.ids(), ["0000000000000001"]);
    let stream = client::connect_tls(to, &h1).await;
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    edge.stop().await.expect("no thread panicked");
}

fn h2_call(device: &Device) -> Request<Full<Bytes>> {
    let mut call = device.call(Method::GET, "/v1/messages", None, "");
    call.headers_mut().remove("host");
    *call.uri_mut() = "https://localhost/v1/messages".parse().expect("a URI");
    call
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_without_central_serves_what_it_has_and_says_how_old_it_is() {
    let central = Central::start().await;
    central.commit(vec![message(1)]);
    let (edge, mut device) = start(config(&central)).await;
    device.enrol().await;
    until_status(&device, 200).await;
    central.set_up(false);
    wait_for_metric(&edge, "edge_link_up", 0.0).await;
    assert_eq!(device.poll(0, None).await.ids(), ["0000000000000001"]);
    let ready = ops(&edge, "/readyz").await;
    assert_eq!((ready.status, &ready.json()["link_up"]), (200, &Value::Bool(false)));
    assert!(ready.json()["behind_seconds"].is_u64());
    assert!(metric(&edge, "edge_link_down_seconds").await > 0.0);
    let patched = device.send(device.call(Method::PATCH, "/v1/devices/self", None, "{}")).await;
    assert_eq!(patched.problem(), (503, "unavailable".into()));
    assert!(patched.headers.contains_key("retry-after"));
    central.set_up(true);
    central.commit(vec![message(2)]);
    wait_for_metric(&edge, "edge_link_up", 1.0).await;
    let deadline = Instant::now() + PATIENCE;
    while device.poll(0, None).await.ids().len() != 2 {
        assert!(Instant::now() < deadline, "what was committed meanwhile arrives");
    }
    edge.kill().expect("no thread panicked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_edge_goes_on_from_the_cursor_of_one_that_died() {
    let central = Central::start().await;
    central.commit(vec![message(1)]);
    let (edge, mut device) = start(config(&central)).await;
    let cursor = device.enrol().await.text("cursor");
    let cursor = device.settle(&cursor).await;
    edge.kill().expect("no thread panicked");
    central.commit(vec![message(2)]);
    let (edge, fresh) = start(config(&central)).await;
    device.http = fresh.http;
    assert_eq!(
        device.poll(5, Some(&cursor)).await.ids(),
        ["0000000000000002"],
        "a delta, not all again"
    );
    drop(edge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_edge_answers_parked_polls_and_accepts_no_more() {
    let central = Central::start().await;
    let (edge, mut device) = start(config(&central)).await;
    let cursor = device.enrol().await.text("cursor");
    let cursor = device.settle(&cursor).await;
    let began = Instant::now();
    let http = device.http;
    let (answer, ()) = tokio::join!(device.poll(60, Some(&cursor)), async {
        wait_for_metric(&edge, "edge_parked_polls", 1.0).await;
        edge.stop().await.expect("no thread panicked");
    });
    assert_eq!(answer.status, 204);
    assert_eq!(answer.headers["connection"], "close");
    assert!(began.elapsed() < Config::default().drain_max, "nobody waited for the deadline");
    assert!(TcpStream::connect(http).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_gives_no_world_and_no_readiness() {
    let central = Central::start().await;
    let mut config = config(&central);
    config.central.token = Token::new("another");
    let edge = Edge::start(config).expect("the edge starts");
    let device = Device {
        http: edge.addresses().http.expect("it listens"),
        session: "x".into(),
        id: String::new(),
    };
    let answer = device.poll(0, None).await;
    assert_eq!(answer.problem(), (503, "unavailable".into()));
    assert_eq!(ops(&edge, "/readyz").await.status, 503);
    assert_eq!(ops(&edge, "/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn central_is_not_followed_without_the_right_authority() {
    let central = Central::start().await;
    let other = Central::start().await;
    let mut wrong = config(&central);
    wrong.central.trust = Trust::CaPem(other.ca.clone());
    let edge = Edge::start(wrong).expect("the edge starts");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!edge.is_ready());
    let mut nobody = config(&central);
    nobody.central.trust = Trust::None;
    assert!(matches!(Edge::start(nobody), Err(EdgeError::Config { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_lost_is_an_unknown_outcome() {
    let central = Central::start().await;
    let mut config = config(&central);
    config.central.write_timeout = Duration::from_millis(200);
    let (edge, mut device) = start(config).await;
    device.enrol().await;
    until_status(&device, 200).await;
    central.set_mute(true);
    let answer = device.send(device.call(Method::PATCH, "/v1/devices/self", None, "{}")).await;
    assert_eq!(answer.problem(), (503, "unavailable".into()));
    assert!(answer.text("detail").contains("outcome unknown"));
    drop(edge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_limits_are_refused() {
    let central = Central::start().await;
    let mut config = config(&central);
    config.limits.body_bytes_max = 1000;
    config.limits.enrol_burst = NonZeroU32::new(2).expect("not zero");
    config.limits.enrol_every = Duration::from_secs(1000);
    config.limits.parked_per_device_max = NonZeroUsize::MIN;
    config.cores = NonZeroUsize::new(1);
    let (edge, mut device) = start(config).await;
    let cursor = device.enrol().await.text("cursor");
    let cursor = device.settle(&cursor).await;

    let large = format!(r#"{{"attributes":{{"a":"{}"}}}}"#, "x".repeat(1000));
    let answer = device.send(device.call(Method::PATCH, "/v1/devices/self", None, &large)).await;
    assert_eq!(answer.problem(), (413, "too-large".into()));
    let answer = device.send(device.call(Method::PATCH, "/v1/devices/self", None, "{")).await;
    assert_eq!(answer.problem(), (400, "bad-request".into()));
    let bad = request(Method::POST, "/v1/devices", &[], r#"{"key":"k"}"#);
    assert_eq!(device.send(bad).await.problem(), (400, "bad-request".into()));
    let limited = device.enrol().await;
    assert_eq!(limited.problem(), (429, "rate-limited".into()));
    assert!(limited.headers.contains_key("retry-after"));

    let (older, newer) = tokio::join!(device.poll(30, Some(&cursor)), async {
        wait_for_metric(&edge, "edge_parked_polls", 1.0).await;
        device.poll(1, Some(&cursor)).await
    });
    assert_eq!(
        (older.status, newer.status),
        (204, 204),
        "the older one gave way long before its 30 s"
    );
    assert_eq!(metric(&edge, "edge_parked_evicted_total").await, 1.0);

    let (not_found, wrong_method) = (
        device.send(device.call(Method::GET, "/v1/nothing", None, "")).await,
        device.send(device.call(Method::PUT, "/v1/messages", None, "")).await,
    );
    assert_eq!(not_found.problem(), (404, "not-found".into()));
    assert_eq!(
        (wrong_method.problem().0, &wrong_method.headers["allow"]),
        (405, &"GET".parse().expect("a value"))
    );
    drop(edge);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_too_many_connections_are_closed() {
    let central = Central::start().await;
    let mut config = config(&central);
    config.limits.head_timeout = Duration::from_millis(200);
    config.limits.handshake_timeout = Duration::from_millis(200);
    config.limits.body_timeout = Duration::from_millis(200);
    config.limits.connections_max = NonZeroUsize::new(3).expect("not zero");
    let (edge, mut device) = start(config).await;
    let mut slow = TcpStream::connect(device.http).await.expect("it listens");
    slow.write_all(b"GET /v1/messages HT").await.expect("taken");
    assert_closes(&mut slow).await;
    let mut silent =
        TcpStream::connect(edge.addresses().tls.expect("it listens")).await.expect("it listens");
    assert_closes(&mut silent).await;
    let mut long = TcpStream::connect(device.http).await.expect("it listens");
    long.write_all(b"POST /v1/devices HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
        .await
        .expect("taken");
    let mut text = vec![0; 4096];
    let bytes = tokio::time::timeout(PATIENCE, long.read(&mut text))
        .await
        .expect("in time")
        .expect("an answer");
    assert!(
        text[..bytes].starts_with(b"HTTP/1.1 400"),
        "{}",
        String::from_utf8_lossy(&text[..bytes])
    );
    drop(long);
    wait_for_metric(&edge, "edge_connections", 0.0).await;

    let cursor = device.enrol().await.text("cursor");
    let cursor = device.settle(&cursor).await;
    wait_for_metric(&edge, "edge_connections", 0.0).await;
    let polls = [1, 2, 3].map(|_| {
        send(device.http, device.call(Method::GET, "/v1/messages?wait=2", Some(&cursor), ""))
    });
    let [one, two, three] = polls;
    let held = tokio::spawn(async move { tokio::join!(one, two, three) });
    wait_for_metric(&edge, "edge_connections", 3.0).await;
    let mut refused = TcpStream::connect(device.http).await.expect("the kernel accepts");
    assert_closes(&mut refused).await;
    assert_eq!(metric(&edge, "edge_connections_refused_total").await, 1.0);
    let (one, two, three) = held.await.expect("no panic");
    for reply in [one, two, three] {
        assert_eq!(reply.expect("an answer").status, 204);
    }
    drop(edge);
}

/// The edge closes or resets it, having sent nothing but perhaps an error.
async fn assert_closes(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    let _ = end.expect("closed in time");
}
