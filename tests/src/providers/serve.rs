//! The socket of a simulator: connections, requests, and how both are made to fail.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::LOCATION;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::behaviour::{Effect, Reset, Rules};
use super::books::Books;
use super::frames::FrameWatch;
use super::provider::{Answer, Connection, Extra, Judged, Payload, Provider, bare};

const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// A port that was closed a moment ago may need one.
const BIND_AGAIN_AFTER: Duration = Duration::from_millis(20);
const FRAME_WINDOW_BYTES: u32 = 1 << 20;

/// A simulator under way.
pub(super) struct Server<P> {
    pub(super) provider: P,
    pub(super) books: Arc<Books>,
    pub(super) rules: Rules,
    /// How far the simulator's clock is ahead of the system's.
    pub(super) ahead_ms: AtomicI64,
    /// Each connection is told to go away after so many requests; 0 is never.
    pub(super) go_away_after: AtomicU64,
    /// For connections to come.
    pub(super) streams_max: AtomicU32,
    pub(super) gate: Gate,
}

/// Whether the port is open, and the end of all connections.
#[derive(Debug)]
pub(super) struct Gate {
    wanted: watch::Sender<bool>,
    is_open: watch::Sender<bool>,
    /// What today's connections listen to. A cut replaces it.
    cuts: Mutex<watch::Sender<()>>,
    pub(super) address: OnceLock<SocketAddr>,
}

impl Gate {
    pub(super) fn new() -> Gate {
        Gate {
            wanted: watch::Sender::new(true),
            is_open: watch::Sender::new(true),
            cuts: Mutex::default(),
            address: OnceLock::new(),
        }
    }

    /// Closes the port and every connection; when this returns, no push is taken any more, but for what a second
    /// thread of the server is just taking.
    pub(super) async fn close(&self) {
        self.set(false).await;
        self.cut().await;
    }

    pub(super) async fn open(&self) {
        self.set(true).await;
    }

    async fn set(&self, open: bool) {
        self.wanted.send_replace(open);
        // Fails only if the sender is gone, which is ours.
        let _ = self.is_open.subscribe().wait_for(|is_open| *is_open == open).await;
    }

    /// Closes every connection without a word.
    pub(super) async fn cut(&self) {
        let cuts = std::mem::take(&mut *self.cuts.lock().unwrap_or_else(PoisonError::into_inner));
        cuts.send_replace(());
        cuts.closed().await;
    }

    fn join(&self) -> watch::Receiver<()> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner).subscribe()
    }
}

/// The stream or connection ends without an answer.
#[derive(Debug)]
pub(super) struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reset as told")
    }
}

impl std::error::Error for Cut {}

/// Accepts connections for as long as the port is to be open.
pub(super) async fn listen<P: Provider>(
    server: Arc<Server<P>>,
    acceptor: TlsAcceptor,
    first: TcpListener,
) {
    let mut wanted = server.gate.wanted.subscribe();
    let mut listener = Some(first);
    let address = *server.gate.address.get().expect("it is set before anything is accepted");
    loop {
        let is_wanted = *wanted.borrow_and_update();
        if !is_wanted {
            listener = None;
            server.gate.is_open.send_replace(false);
        }
        let Some(open) = &listener else {
            if is_wanted {
                match TcpListener::bind(address).await {
                    Ok(bound) => {
                        listener = Some(bound);
                        server.gate.is_open.send_replace(true);
                    }
                    Err(_) => tokio::time::sleep(BIND_AGAIN_AFTER).await,
                }
            } else if wanted.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            accepted = open.accept() => {
                // An error is a connection that ended before it was accepted, or too many files; the next tells.
                if let Ok((stream, _)) = accepted {
                    let cuts = server.gate.join();
                    tokio::spawn(connection(Arc::clone(&server), acceptor.clone(), stream, cuts));
                }
            }
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn connection<P: Provider>(
    server: Arc<Server<P>>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    mut cuts: watch::Receiver<()>,
) {
    let known = Arc::new(Connection::default());
    server.books.connected();
    tokio::select! {
        _ = speak(&server, acceptor, stream, &known) => {}
        _ = cuts.changed() => {}
    }
    // Requests are tasks of their own, which outlive the connection; nothing is taken after its end.
    known.is_to_end.store(true, Ordering::SeqCst);
    server.books.disconnected();
}

/// Serves one connection to its end.
async fn speak<P: Provider>(
    server: &Arc<Server<P>>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    known: &Arc<Connection>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let handshake = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await?;
    let Ok(stream) = handshake else {
        server.books.breached("tls_handshake");
        return Ok(());
    };
    let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    let service = {
        let server = Arc::clone(server);
        let known = Arc::clone(known);
        service_fn(move |request| {
            let server = Arc::clone(&server);
            let known = Arc::clone(&known);
            async move { answer(&server, &known, request).await }
        })
    };
    if protocol.as_deref() == Some(b"h2") {
        let io = FrameWatch::new(stream, Arc::clone(known), Arc::clone(&server.books));
        let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .auto_date_header(false)
            .initial_connection_window_size(FRAME_WINDOW_BYTES)
            .max_concurrent_streams(server.streams_max.load(Ordering::Relaxed));
        let mut http = pin!(http.serve_connection(TokioIo::new(io), service));
        loop {
            tokio::select! {
                // An error is the client's end of the connection.
                _ = &mut http => return Ok(()),
                () = known.wake.notified() => {}
            }
            if known.is_to_end.load(Ordering::Relaxed) {
                return Ok(());
            }
            if known.is_to_go_away.load(Ordering::Relaxed) {
                http.as_mut().graceful_shutdown();
            }
        }
    }
    // A client that speaks HTTP/1.1 may say so or say nothing.
    if !P::PROTOCOLS.contains(&b"http/1.1".as_slice()) {
        server.books.breached("no_http2");
        return Ok(());
    }
    let http = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = http => {}
        () = known.wake.notified() => {}
    }
    Ok(())
}

async fn answer<P: Provider>(
    server: &Server<P>,
    connection: &Connection,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Cut> {
    let go_away_after = server.go_away_after.load(Ordering::Relaxed);
    let requests = connection.requests.fetch_add(1, Ordering::Relaxed) + 1;
    if go_away_after > 0 && requests == go_away_after {
        connection.is_to_go_away.store(true, Ordering::Relaxed);
        connection.wake.notify_one();
    }
    let (head, body) = request.into_parts();
    let body = read(body, P::BODY_MAX).await?;
    let push = match server.provider.judge(server.now_ms(), connection, &head, &body) {
        Ok(Judged::Push(push)) => push,
        Ok(Judged::Done(response)) => {
            server.books.answered(response.status().as_u16(), None, None);
            return Ok(response);
        }
        Err(refusal) => {
            server.books.answered(refusal.status, Some(refusal.reason), refusal.breach);
            let extra = Extra::default();
            return Ok(server.provider.refuse(&head, refusal.status, refusal.reason, &extra));
        }
    };
    if let Payload::Whole(body) = &body {
        server.books.received(&push.token, push.kind, &head.headers, body);
    }
    if let Some(breach) = push.breach {
        server.books.breached(breach);
    }
    let decision = server.rules.decide(&push);
    if !decision.slow.is_zero() {
        tokio::time::sleep(decision.slow).await;
    }
    if connection.is_to_end.load(Ordering::SeqCst) {
        return Err(Cut);
    }
    if decision.is_accepted || matches!(decision.effect, Effect::Accept) {
        server.books.accepted(&push.token, push.kind, push.collapse.as_deref());
    }
    let response = match decision.effect {
        Effect::Accept => server.provider.accept(&head),
        Effect::Refuse { status, reason, extra } => {
            server.books.answered(status, Some(&reason), None);
            return Ok(server.provider.refuse(&head, status, &reason, &extra));
        }
        Effect::Redirect(location) => {
            let mut response = bare(307);
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Effect::Endless => {
            let mut response = server.provider.accept(&head);
            *response.body_mut() = Answer::Endless;
            response
        }
        Effect::Reset(reset) => {
            server.books.reset_one();
            if reset == Reset::Connection {
                connection.is_to_end.store(true, Ordering::Relaxed);
                connection.wake.notify_one();
                // The connection's own task ends it; this request has no answer before that.
                std::future::pending::<()>().await;
            }
            return Err(Cut);
        }
    };
    server.books.answered(response.status().as_u16(), None, None);
    Ok(response)
}

async fn read(mut body: Incoming, max: usize) -> Result<Payload, Cut> {
    let mut whole = bytes::Bytes::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Cut)?.into_data() else { continue };
        if whole.len() + data.len() > max {
            return Ok(Payload::TooLarge);
        }
        // A small body comes in one frame and is not copied.
        whole = if whole.is_empty() { data } else { [whole, data].concat().into() };
    }
    Ok(Payload::Whole(whole))
}

impl<P> Server<P> {
    /// The simulator's time in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        now.saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }
}
