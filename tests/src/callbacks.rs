//! A customer's system that central calls: an HTTPS server that remembers every call, and answers each path as it is told.
//!
//! Signatures are verified by npm's `standardwebhooks`, which shares no code with Carillon.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::providers::tls;

/// How a path answers.
#[derive(Clone, Debug)]
pub enum Behaviour {
    Status(u16),
    /// With headers and a body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// After a while, 204.
    Slow(Duration),
    /// Never.
    Hang,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The event that it tells of.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// # Panics
    /// If the body is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body is JSON")
    }
}

#[derive(Debug, Default)]
struct Books {
    behaviours: HashMap<String, Behaviour>,
    received: Vec<Received>,
    hanging: usize,
}

#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    folder: TempDir,
    books: Arc<Mutex<Books>>,
    connections: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Receiver {
    /// Every path answers 204 until it is told otherwise.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Receiver {
        // Another test of the process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let config = tls::server_config(folder.path(), names, &[b"h2", b"http/1.1"]);
        let acceptor = TlsAcceptor::from(config.expect("a certificate"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (books, connections) = (Arc::<Mutex<Books>>::default(), Arc::<AtomicUsize>::default());
        let (told, counted) = (books.clone(), connections.clone());
        let server = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                counted.fetch_add(1, Ordering::Relaxed);
                let (acceptor, told) = (acceptor.clone(), told.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request| answer(told.clone(), request));
                    // A caller that goes away in the middle is no fault.
                    if is_h2 {
                        let builder =
                            hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                    } else {
                        let builder = hyper::server::conn::http1::Builder::new();
                        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                    }
                });
            }
        });
        Receiver { address, folder, books, connections, server }
    }

    /// The flags that have central call it, and try again soon.
    pub fn flags(&self) -> Vec<String> {
        let ca = tls::ca_path(self.folder.path()).display().to_string();
        let mut flags = Vec::new();
        for (flag, value) in [
            ("--callbacks-ports", self.address.port().to_string()),
            ("--callbacks-private-networks", "127.0.0.0/8".to_owned()),
            ("--callbacks-ca-file", ca),
            ("--callbacks-retry-after", "200ms".to_owned()),
        ] {
            flags.extend([flag.to_owned(), value]);
        }
        flags
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn behave(&self, path: &str, behaviour: Behaviour) {
        lock(&self.books).behaviours.insert(path.to_owned(), behaviour);
    }

    /// How many calls there were so far, without those that are never answered.
    pub fn answered(&self) -> usize {
        let books = lock(&self.books);
        books.received.len() - books.hanging
    }

    /// All calls so far, in order.
    pub fn all(&self) -> Vec<Received> {
        lock(&self.books).received.clone()
    }

    /// The calls of a path so far, in order, whatever they were answered.
    pub fn received(&self, path: &str) -> Vec<Received> {
        lock(&self.books).received.iter().filter(|call| call.path == path).cloned().collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    books: Arc<Mutex<Books>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes);
    let empty = |status| {
        let builder = Response::builder().status(status);
        Ok(builder.body(Full::default()).expect("a status"))
    };
    let Ok(body) = body else { return empty(400) };
    let behaviour = {
        let mut books = lock(&books);
        books.received.push(Received { path: path.clone(), headers: head.headers, body });
        let behaviour = books.behaviours.get(&path).cloned().unwrap_or(Behaviour::Status(204));
        books.hanging += usize::from(matches!(behaviour, Behaviour::Hang));
        behaviour
    };
    match behaviour {
        Behaviour::Status(status) => empty(status),
        Behaviour::Answer(status, headers, body) => {
            let mut builder = Response::builder().status(status);
            for (name, value) in headers {
                builder = builder.header(name, value);
            }
            Ok(builder.body(Full::from(body)).expect("headers"))
        }
        Behaviour::Slow(wait) => {
            tokio::time::sleep(wait).await;
            empty(204)
        }
        Behaviour::Hang => std::future::pending().await,
    }
}

/// What the library says of each call under its secret: `None` if it verifies.
///
/// # Panics
/// If Node or the library is not installed.
pub fn verify(calls: &[(&Received, &str)]) -> Vec<Option<String>> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("webhooks");
    assert!(
        folder.join("node_modules/standardwebhooks").is_dir(),
        "standardwebhooks is not installed: run scripts/install-test-deps.sh"
    );
    let one = |(call, secret): &(&Received, &str)| {
        let named = |name: &str| (name.to_owned(), Value::from(call.header(name)));
        let headers = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(named);
        let headers: serde_json::Map<String, Value> = headers.into_iter().collect();
        let body = String::from_utf8_lossy(&call.body);
        json!({"secret": secret, "headers": headers, "body": body})
    };
    let calls: Vec<Value> = calls.iter().map(one).collect();
    let mut node = Command::new("node")
        .arg(folder.join("verify.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is installed by scripts/install-test-deps.sh");
    let mut input = node.stdin.take().expect("it is piped");
    input.write_all(Value::from(calls).to_string().as_bytes()).expect("node reads");
    drop(input);
    let output = node.wait_with_output().expect("node ends");
    assert!(output.status.success(), "node failed");
    serde_json::from_slice(&output.stdout).expect("a list")
}
