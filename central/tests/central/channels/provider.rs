//! A provider: TLS and HTTP/2 on a port of this host, with a script that answers.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use carillon_central::config::{ProviderConfig, StoreConfig};
use carillon_persist::StoreUrl;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Response};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

pub(super) enum Answer {
    Status(u16, &'static str),
    Full(Response<Bytes>),
    /// Goes on sending until nobody listens.
    Endless,
    /// The stream is reset.
    Reset(h2::Reason),
    /// The connection is cut.
    Cut,
    /// The answer comes and no further request is taken on this connection.
    GoAway,
}

pub(super) type Script = dyn Fn(Seen) -> BoxFuture<'static, Answer> + Send + Sync;

pub(super) struct Provider {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
    pub(super) connections: Arc<AtomicUsize>,
    /// Most streams that one connection had at a time.
    pub(super) streams_peak: Arc<AtomicUsize>,
    pub(super) ca: tempfile::NamedTempFile,
    folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A certificate for localhost and 127.0.0.1 that signs itself, and what serves it.
pub(super) fn identity(protocols: &[&[u8]]) -> (tempfile::NamedTempFile, TlsAcceptor) {
    let names = ["localhost", "127.0.0.1", "push.example", "other.example"];
    let made = rcgen::generate_simple_self_signed(names.map(str::to_owned)).unwrap();
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(made.cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    (ca, TlsAcceptor::from(Arc::new(config)))
}

impl Provider {
    pub(super) async fn start(
        streams_max: u32,
        script: impl Fn(Seen) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
    ) -> Provider {
        let (ca, acceptor) = identity(&[b"h2"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let streams_peak = Arc::new(AtomicUsize::new(0));
        let script: Arc<Script> = Arc::new(script);
        let task = {
            let (seen, connections, peak) =
                (seen.clone(), connections.clone(), streams_peak.clone());
            tokio::spawn(async move {
                loop {
                    let (tcp, _) = listener.accept().await.unwrap();
                    connections.fetch_add(1, Ordering::Relaxed);
                    let (acceptor, script) = (acceptor.clone(), script.clone());
                    let (seen, peak) = (seen.clone(), peak.clone());
                    tokio::spawn(async move {
                        let Ok(tls) = acceptor.accept(tcp).await else { return };
                        connection(tls, streams_max, script, seen, peak).await;
                    });
                }
            })
        };
        let folder = tempfile::tempdir().unwrap();
        Provider { address, seen, connections, streams_peak, ca, folder, task }
    }

    /// Configuration with every provider at this one.
    /// Where the times of provider tokens are kept, for as long as this stands.
    pub(super) fn store(&self) -> StoreConfig {
        let url = StoreUrl::Sqlite(self.folder.path().join("carillon.db"));
        StoreConfig { url, ..StoreConfig::default() }
    }

    pub(super) fn config(&self) -> ProviderConfig {
        let url = |path: &str| {
            format!("https://localhost:{}{path}", self.address.port()).parse().unwrap()
        };
        ProviderConfig {
            apns_production: url(""),
            apns_sandbox: url(""),
            fcm: url(""),
            fcm_token_url: url("/token"),
            ca_file: Some(self.ca.path().to_owned()),
            web_push_ports: vec![self.address.port()],
            private_networks: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            ..ProviderConfig::default()
        }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn connection(
    tls: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    streams_max: u32,
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<Seen>>>,
    peak: Arc<AtomicUsize>,
) {
    let mut builder = h2::server::Builder::new();
    let shake = builder.max_concurrent_streams(streams_max).handshake::<_, Bytes>(tls);
    let Ok(mut h2) = shake.await else { return };
    let (cut, mut cut_seen) = tokio::sync::mpsc::unbounded_channel();
    let (away, mut away_seen) = tokio::sync::mpsc::unbounded_channel();
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let (request, mut respond) = tokio::select! {
            biased;
            _ = cut_seen.recv() => return,
            Some(()) = away_seen.recv() => {
                h2.graceful_shutdown();
                continue;
            }
            accepted = h2.accept() => match accepted {
                Some(Ok(accepted)) => accepted,
                _ => return,
            },
        };
        let now_open = open.fetch_add(1, Ordering::Relaxed) + 1;
        peak.fetch_max(now_open, Ordering::Relaxed);
        let (script, seen, open) = (script.clone(), seen.clone(), open.clone());
        let (cut, away) = (cut.clone(), away.clone());
        tokio::spawn(async move {
            let (head, mut incoming) = request.into_parts();
            let mut body = Vec::new();
            while let Some(Ok(data)) = incoming.data().await {
                let _ = incoming.flow_control().release_capacity(data.len());
                body.extend_from_slice(&data);
            }
            let path = head.uri.path().to_owned();
            let one = Seen { path, headers: head.headers, body: body.into() };
            seen.lock().unwrap().push(one.clone());
            let answer = script(one).await;
            open.fetch_sub(1, Ordering::Relaxed);
            let full = |status: u16, body: &'static str| {
                Response::builder()
                    .status(status)
                    .body(Bytes::from_static(body.as_bytes()))
                    .unwrap()
            };
            let response = match answer {
                Answer::Status(status, body) => full(status, body),
                Answer::Full(response) => response,
                Answer::GoAway => {
                    let _ = away.send(());
                    full(200, "")
                }
                Answer::Reset(reason) => return respond.send_reset(reason),
                Answer::Cut => {
                    let _ = cut.send(());
                    return;
                }
                Answer::Endless => {
                    let response = Response::builder().status(201).body(()).unwrap();
                    let Ok(mut stream) = respond.send_response(response, false) else { return };
                    loop {
                        stream.reserve_capacity(1024);
                        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                        let Some(Ok(room)) = room else { return };
                        if stream.send_data(Bytes::from(vec![b'x'; room]), false).is_err() {
                            return;
                        }
                    }
                }
            };
            let (head, body) = response.into_parts();
            let is_empty = body.is_empty();
            if let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), is_empty)
                && !is_empty
            {
                let _ = stream.send_data(body, true);
            }
        });
    }
}
