//! The client on real sockets against a scripted server: TLS, one kept connection, limits, cut answers.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use carillon_client::{
    AppId, Client, ClientBuilder, ClientTls, DeviceId, Event, FailureKind, FileStore,
    HttpTransport, MessageId, ProfilePatch, Secret, TransportError,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

const SOON: Duration = Duration::from_secs(20);

/// What the server does with one request.
enum Reply {
    Json(u16, Value),
    /// Exactly these bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// No answer ever.
    Park,
}

/// A request as the server saw it.
struct Seen {
    /// Method and target.
    line: String,
    head: String,
    body: Value,
    /// The how many-th on its connection, from 1.
    on_connection: usize,
}

type Script = Arc<dyn Fn(Seen) -> Reply + Send + Sync>;

struct Served {
    url: String,
    certificate: Vec<u8>,
    connections: Arc<AtomicUsize>,
    resumed: Arc<AtomicUsize>,
}

fn script(script: impl Fn(Seen) -> Reply + Send + Sync + 'static) -> Script {
    Arc::new(script)
}

async fn serve(tls: bool, script: Script) -> Served {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = made.cert.der().to_vec();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(certificate.clone())], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scheme = if tls { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    let (connections, resumed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let served =
        Served { url, certificate, connections: connections.clone(), resumed: resumed.clone() };
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            connections.fetch_add(1, Ordering::SeqCst);
            let (acceptor, script, resumed) = (acceptor.clone(), script.clone(), resumed.clone());
            tokio::spawn(async move {
                if !tls {
                    return talk(tcp, script).await;
                }
                if let Ok(stream) = acceptor.accept(tcp).await {
                    if stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                        resumed.fetch_add(1, Ordering::SeqCst);
                    }
                    talk(stream, script).await;
                }
            });
        }
    });
    served
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, script: Script) {
    let mut buffer = Vec::new();
    for on_connection in 1.. {
        let head_end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let head = String::from_utf8(buffer[..head_end].to_vec()).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        while buffer.len() < head_end + length {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = serde_json::from_slice(&buffer[head_end..head_end + length]).unwrap_or_default();
        buffer.drain(..head_end + length);
        let line = head.lines().next().unwrap().trim_end_matches(" http/1.1").to_owned();
        match script(Seen { line, head, body, on_connection }) {
            Reply::Park => std::future::pending().await,
            Reply::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Json(status, body) => {
                let _ = stream.write_all(&json_reply(status, &body)).await;
            }
        }
    }
}

fn json_reply(status: u16, body: &Value) -> Vec<u8> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length =
        if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("HTTP/1.1 {status} X\r\n{length}\r\n{body}").into_bytes()
}

fn enrolled() -> Reply {
    let id = "00000000000000d1";
    Reply::Json(201, json!({"id": id, "app": "00000000000000a1", "session": "s1", "cursor": "c0"}))
}

fn news(after: &str, id: u64, cursor: &str) -> Value {
    let id = format!("{id:016x}");
    let message = json!({"id": id, "tag": id, "priority": "normal", "expires_at": null, "body": {"to": "you"}});
    json!({"after": after, "messages": [message], "gone": [], "cursor": cursor, "poll_after": 0})
}

fn cursor(seen: &Seen) -> Option<&str> {
    seen.head.lines().find_map(|line| line.strip_prefix("carillon-cursor: "))
}

fn client(served: &Served) -> ClientBuilder {
    Client::builder()
        .edges([served.url.clone()])
        .app_key("pk")
        .root_certificate(served.certificate.clone())
}

/// Runs the client until `wanted` of its events were of the kind looked for.
async fn run_until(client: &mut Client, mut wanted: usize, matches: impl Fn(&Event) -> bool) {
    let work = async {
        while wanted > 0 {
            let event = client.next_event().await.expect("the device goes on");
            wanted -= usize::from(matches(&event));
        }
    };
    tokio::time::timeout(SOON, work).await.expect("what is waited for happens soon");
}

fn is_stored(event: &Event) -> bool {
    matches!(event, Event::Stored { .. })
}

#[tokio::test]
async fn a_device_enrols_and_receives_over_one_tls_connection() {
    let served = serve(
        true,
        script(|seen| match (seen.line.as_str(), cursor(&seen)) {
            ("post /v1/devices", _) => {
                assert_eq!((seen.body["key"].as_str(), seen.on_connection), (Some("pk"), 1));
                assert_eq!(seen.body["attributes"], json!({"country": "KE"}));
                assert_eq!(seen.body["groups"], json!(["vip"]));
                enrolled()
            }
            (_, Some("c0")) => {
                assert!(seen.head.contains("authorization: bearer s1"));
                Reply::Json(200, news("c0", 1, "c1"))
            }
            (_, Some("c1")) => Reply::Json(200, news("c1", 2, "c2")),
            _ => Reply::Park,
        }),
    )
    .await;
    let builder = client(&served).attributes([("country", json!("KE"))]).groups(["vip"]);
    let mut client = builder.build().unwrap();
    run_until(&mut client, 2, is_stored).await;
    let held = client.messages();
    assert_eq!(held.keys().copied().collect::<Vec<_>>(), [MessageId::new(1), MessageId::new(2)]);
    assert_eq!(&*held[&MessageId::new(2)].body, r#"{"to":"you"}"#);
    assert_eq!(client.status().registered, Some((AppId::new(0xa1), DeviceId::new(0xd1))));
    assert_eq!(served.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_edge_with_another_certificate_is_not_asked() {
    let served = serve(true, script(|_| panic!("nothing may be sent to a stranger"))).await;
    let other = serve(true, script(|_| Reply::Park)).await;
    for tls in
        [ClientTls::with_roots(&other.certificate), ClientTls::with_exactly(&other.certificate)]
    {
        let mut client = Client::builder()
            .edges([served.url.clone()])
            .app_key("pk")
            .tls(tls.unwrap())
            .build()
            .unwrap();
        let refused =
            |event: &Event| matches!(event, Event::Failed { kind: FailureKind::Connect, .. });
        run_until(&mut client, 2, refused).await;
    }
}

#[tokio::test]
async fn exactly_the_certificate_given_is_trusted_and_sessions_are_resumed() {
    let served = serve(true, script(|_| enrolled())).await;
    let tls = ClientTls::with_exactly(&served.certificate).unwrap();
    for _ in 0..3 {
        let builder = Client::builder().edges([served.url.clone()]).app_key("pk").tls(tls.clone());
        let mut client = builder.build().unwrap();
        run_until(&mut client, 1, |event| matches!(event, Event::Enrolled { .. })).await;
    }
    assert_eq!(served.resumed.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn answers_cut_at_every_byte_lose_nothing() {
    let whole = json_reply(200, &news("c0", 1, "c1"));
    let cuts = Arc::new(AtomicUsize::new(0));
    let length = whole.len();
    let counted = cuts.clone();
    let served = serve(
        false,
        script(move |seen| match (seen.line.as_str(), cursor(&seen)) {
            ("post /v1/devices", _) => enrolled(),
            (_, Some("c0")) => {
                let cut = counted.fetch_add(1, Ordering::SeqCst);
                Reply::Raw(whole[..cut.min(length)].to_vec())
            }
            _ => Reply::Park,
        }),
    )
    .await;
    // Many edges, all the same, so that a failure costs no pause: each rests for itself.
    let edges: Vec<_> = std::iter::repeat_n(served.url.clone(), length + 1).collect();
    let mut client = Client::builder().edges(edges).app_key("pk").build().unwrap();
    run_until(&mut client, 1, is_stored).await;
    assert!(
        cuts.load(Ordering::SeqCst) >= length,
        "each cut was tried: {}",
        cuts.load(Ordering::SeqCst)
    );
    assert_eq!(client.messages().len(), 1);
}

#[tokio::test]
async fn a_write_interrupts_a_parked_poll_and_is_answered_to_its_caller() {
    let served = serve(
        true,
        script(|seen| match (seen.line.as_str(), cursor(&seen)) {
            ("post /v1/devices", _) => enrolled(),
            ("patch /v1/devices/self", at) => {
                assert_eq!(seen.body, json!({"attributes": {"country": null}}));
                Reply::Json(200, json!({"after": at, "cursor": "w1"}))
            }
            (_, Some("w1")) => Reply::Json(200, news("w1", 7, "c1")),
            _ => Reply::Park,
        }),
    )
    .await;
    let mut client = client(&served).build().unwrap();
    let handle = client.handle();
    let (events, mut seen) = mpsc::channel(1);
    let running = tokio::spawn(async move {
        client.run(events, std::future::pending()).await;
    });
    let patch = async {
        assert!(matches!(seen.recv().await, Some(Event::Enrolled { .. })));
        let attributes = [("country".to_owned(), None)].into();
        let written = handle.patch(ProfilePatch { attributes, ..ProfilePatch::default() });
        let (written, _) = tokio::join!(written, async {
            while let Some(event) = seen.recv().await {
                if is_stored(&event) {
                    break;
                }
            }
        });
        assert_eq!(written, Ok(()));
        assert_eq!(handle.messages().await.unwrap().len(), 1);
        assert_eq!(handle.status().await.unwrap().cursor.unwrap().as_str(), "c1");
    };
    tokio::time::timeout(SOON, patch).await.expect("a write does not wait for the poll");
    running.abort();
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced_without_a_failure() {
    let served = serve(
        false,
        script(|seen| match (seen.line.as_str(), seen.on_connection) {
            ("post /v1/devices", _) => enrolled(),
            (_, 2) => Reply::Raw(Vec::new()),
            _ => Reply::Json(200, news("c0", 1, "c1")),
        }),
    )
    .await;
    let mut client = client(&served).build().unwrap();
    let work = async {
        loop {
            match client.next_event().await.unwrap() {
                Event::Stored { .. } => break,
                Event::Enrolled { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(SOON, work).await.unwrap();
    assert_eq!(served.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn raw_requests_have_a_limit_of_time_and_of_size() {
    let served = serve(
        true,
        script(|seen| match seen.line.as_str() {
            "get /small" => Reply::Json(418, json!({"a": 1})),
            "get /large" => {
                let mut bytes = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
                for _ in 0..17 {
                    bytes.extend_from_slice(b"100000\r\n");
                    bytes.resize(bytes.len() + 0x10_0000, b'x');
                    bytes.extend_from_slice(b"\r\n");
                }
                Reply::Raw(bytes)
            }
            _ => Reply::Park,
        }),
    )
    .await;
    let tls = ClientTls::with_roots(&served.certificate).unwrap();
    let mut transport = HttpTransport::new(served.url.parse().unwrap(), Some(tls));
    let get = |path: &str| http::Request::get(path).body(Bytes::new()).unwrap();
    let small = transport.request(get("/small"), SOON).await.unwrap();
    assert_eq!((small.status().as_u16(), &small.body()[..]), (418, &br#"{"a":1}"#[..]));
    assert!(matches!(transport.request(get("/large"), SOON).await, Err(TransportError::TooLarge)));
    let short = Duration::from_millis(50);
    assert!(matches!(
        transport.request(get("/never"), short).await,
        Err(TransportError::Timeout(_))
    ));
    let small = transport.request(get("/small"), SOON).await.unwrap();
    assert_eq!(small.status().as_u16(), 418, "it goes on after a timeout");
}

#[tokio::test]
async fn an_imported_device_on_a_file_goes_on_after_a_restart() {
    let served = serve(
        false,
        script(|seen| match (seen.line.as_str(), cursor(&seen)) {
            ("post /v1/devices/session", _) => {
                assert_eq!(seen.body["id"], "00000000000000d1");
                Reply::Json(200, json!({"session": "s1"}))
            }
            (_, None) => {
                let mut body = news("", 1, "c1");
                body["after"] = Value::Null;
                Reply::Json(200, body)
            }
            (_, Some("c1")) => Reply::Json(200, news("c1", 2, "c2")),
            _ => Reply::Park,
        }),
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.json");
    for count in [1, 2] {
        let mut client = Client::builder()
            .edges([served.url.clone()])
            .imported(AppId::new(0xa1), DeviceId::new(0xd1), Secret::new([3; 32]))
            .store(FileStore::open(&path).unwrap())
            .build()
            .unwrap();
        run_until(&mut client, 1, is_stored).await;
        assert_eq!(client.messages().len(), count);
    }
}

#[test]
fn a_client_without_edges_trust_or_key_is_not_built() {
    let built = |edges: &[&str], key: bool| {
        let builder = Client::builder().edges(edges.iter().copied());
        let builder = if key { builder.app_key("pk") } else { builder };
        builder.build().map(drop).map_err(|error| error.to_string())
    };
    assert!(built(&[], true).unwrap_err().contains("at least one edge"));
    assert!(built(&["https://localhost:1"], true).unwrap_err().contains("root certificate"));
    assert!(built(&["http://localhost:1"], false).unwrap_err().contains("key"));
    for bad in ["localhost", "ftp://localhost", "http://localhost/path", "http://"] {
        assert!(built(&[bad], true).unwrap_err().contains("an edge is"), "{bad}");
    }
    assert_eq!(built(&["http://[::1]:80"], true), Ok(()));
}
