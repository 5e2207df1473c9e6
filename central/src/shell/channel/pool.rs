//! Connections to one origin, over which requests are spread.
//!
//! A pool of our own, because clients that keep one connection an origin cannot use a provider that allows several, and
//! because what a lost connection means for the requests on it has to be known: a request that the provider has
//! certainly not processed (RFC 9113, sections 6.8 and 8.7) goes out again on another connection, any other is reported.
//!
//! What always holds: no connection has more requests in flight than [`PoolLimits::streams_max`] or than the provider
//! allows; none is sent before the provider said how many that is; a request ends within
//! [`PoolLimits::request_timeout`]. There is no lock on a request's way while a connection is open.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{Mutex, Semaphore};

use crate::config::ProviderConfig;
use crate::core::channel::{Outcome, Reason, Scope};
use crate::core::outbound::HttpsUrl;
use crate::shell::outbound::{DialError, Dialer};

/// Connections that a request is tried on at most, if each one closes before it took the request.
const TRIES: usize = 4;
/// How long a pool that could not get one connection more waits before it tries again.
const GROW_AGAIN: Duration = Duration::from_secs(1);
/// Header fields of an answer, in bytes as RFC 9113 counts them.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct PoolLimits {
    pub(super) connections_max: usize,
    pub(super) streams_max: usize,
    pub(super) request_timeout: Duration,
    pub(super) reply_bytes_max: usize,
    pub(super) keep_alive_interval: Duration,
    pub(super) keep_alive_timeout: Duration,
    /// Whether a connection without requests is kept alive.
    pub(super) keep_idle: bool,
}

impl PoolLimits {
    pub(super) const fn of_lane(config: &ProviderConfig) -> PoolLimits {
        PoolLimits {
            connections_max: config.connections_max,
            streams_max: config.streams_max,
            request_timeout: config.request_timeout,
            reply_bytes_max: config.reply_bytes_max,
            keep_alive_interval: config.keep_alive_interval,
            keep_alive_timeout: config.keep_alive_timeout,
            keep_idle: true,
        }
    }
}

/// An answer. Its body is cut off at [`PoolLimits::reply_bytes_max`].
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn retry_after(&self) -> Option<&str> {
        self.headers.get(header::RETRY_AFTER)?.to_str().ok()
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    Dial(DialError),
    /// The connection ended under the request.
    Connection,
    /// The request's own stream was reset.
    Reset,
    Timeout,
}

impl Lost {
    /// As the pusher has to see it. `origin` is what waits when a connection is lost: the lane if all its targets are
    /// behind it.
    pub(super) fn outcome(self, origin: Scope) -> Outcome {
        let later = |scope, reason| Outcome::Later { after: None, scope, reason: Reason(reason) };
        match self {
            Lost::Dial(DialError::Port) => {
                Outcome::Failed { reason: Reason("endpoint_port_not_allowed") }
            }
            Lost::Dial(DialError::Address) => {
                Outcome::Failed { reason: Reason("endpoint_address_not_allowed") }
            }
            Lost::Dial(DialError::Resolve) => later(origin, "unresolved"),
            Lost::Dial(DialError::Connect | DialError::Timeout) => later(origin, "unreachable"),
            Lost::Dial(DialError::Tls) => later(origin, "tls"),
            Lost::Connection => later(origin, "connection_lost"),
            Lost::Reset => later(Scope::Target, "reset"),
            Lost::Timeout => later(origin, "timeout"),
        }
    }
}

/// How a request is written, which depends on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    dialer: Dialer,
    url: HttpsUrl,
    limits: PoolLimits,
    open: ArcSwap<Vec<Arc<Connection>>>,
    /// Held by who opens the first connection, so that a thousand requests do not open a thousand. Holds how the last
    /// attempt failed.
    dialing: Mutex<Option<Lost>>,
    dials_failed: AtomicU64,
    growing: AtomicBool,
}

struct Connection {
    sender: Sender,
    /// Under way or waiting for their turn.
    in_flight: AtomicUsize,
    permits: Semaphore,
    /// What the provider allows at present.
    streams: AtomicUsize,
}

enum Sender {
    Http1(Mutex<http1::SendRequest<Full<Bytes>>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What became of one try.
enum Fault {
    /// Certainly not processed: it may go out again.
    NotTaken,
    Lost(Lost),
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.0.open.load().len();
        f.debug_struct("Pool")
            .field("url", &self.0.url)
            .field("open", &open)
            .finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(dialer: Dialer, url: HttpsUrl, limits: PoolLimits) -> Pool {
        Pool(Arc::new(Inner {
            dialer,
            url,
            limits,
            open: ArcSwap::default(),
            dialing: Mutex::new(None),
            dials_failed: AtomicU64::new(0),
            growing: AtomicBool::new(false),
        }))
    }

    /// Sends what `make` gives and reads the answer. `make` is asked again if the request has to go out again.
    pub(super) async fn send(
        &self,
        make: impl Fn(Protocol) -> Request<Full<Bytes>>,
    ) -> Result<Reply, Lost> {
        let tries = async {
            for _ in 0..TRIES {
                let connection = self.pick().await?;
                match connection.send(&make, self.0.limits.reply_bytes_max).await {
                    Ok(reply) => return Ok(reply),
                    Err(Fault::NotTaken) => {}
                    Err(Fault::Lost(lost)) => return Err(lost),
                }
            }
            Err(Lost::Connection)
        };
        tokio::time::timeout(self.0.limits.request_timeout, tries)
            .await
            .unwrap_or(Err(Lost::Timeout))
    }

    /// The open connection with the fewest requests. The first is waited for; more are opened aside, when all that are
    /// open are half full.
    async fn pick(&self) -> Result<Arc<Connection>, Lost> {
        if let Some(connection) = self.least_loaded() {
            return Ok(connection);
        }
        let inner = &*self.0;
        let failed_before = inner.dials_failed.load(Ordering::Acquire);
        let mut last = inner.dialing.lock().await;
        if let Some(connection) = self.least_loaded() {
            return Ok(connection);
        }
        // Whoever waited while an attempt failed takes that as its own.
        if inner.dials_failed.load(Ordering::Acquire) != failed_before
            && let Some(lost) = *last
        {
            return Err(lost);
        }
        match self.dial().await {
            Ok(connection) => Ok(connection),
            Err(lost) => {
                *last = Some(lost);
                inner.dials_failed.fetch_add(1, Ordering::Release);
                Err(lost)
            }
        }
    }

    fn least_loaded(&self) -> Option<Arc<Connection>> {
        let open = self.0.open.load();
        let mut best: Option<(usize, &Arc<Connection>)> = None;
        for connection in open.iter().filter(|connection| !connection.is_closed()) {
            let in_flight = connection.in_flight.load(Ordering::Relaxed);
            if best.is_none_or(|(fewest, _)| in_flight < fewest) {
                best = Some((in_flight, connection));
            }
        }
        let (in_flight, connection) = best?;
        let room = connection.streams.load(Ordering::Relaxed).min(self.0.limits.streams_max);
        if in_flight >= room.div_ceil(2) && open.len() < self.0.limits.connections_max {
            self.grow();
        }
        Some(connection.clone())
    }

    fn grow(&self) {
        if self.0.growing.swap(true, Ordering::AcqRel) {
            return;
        }
        let pool = self.clone();
        // Ends by itself: dialling and waiting are bounded.
        tokio::spawn(async move {
            if pool.dial().await.is_err() {
                tokio::time::sleep(GROW_AGAIN).await;
            }
            pool.0.growing.store(false, Ordering::Release);
        });
    }

    async fn dial(&self) -> Result<Arc<Connection>, Lost> {
        let Inner { dialer, url, limits, .. } = &*self.0;
        let stream = dialer.dial(url).await.map_err(Lost::Dial)?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        let connection = if is_h2 {
            let shake = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(limits.keep_alive_interval)
                .keep_alive_timeout(limits.keep_alive_timeout)
                .keep_alive_while_idle(limits.keep_idle)
                .max_header_list_size(HEADER_BYTES_MAX)
                // Until the provider's own number is there.
                .initial_max_send_streams(1)
                .handshake(io);
            let (sender, driver) = shake.await.map_err(|_| Lost::Connection)?;
            let connection = Arc::new(Connection::new(Sender::Http2(sender), limits.streams_max));
            let (pool, driven) = (Arc::downgrade(&self.0), Arc::downgrade(&connection));
            // Ends when the connection does, which it does when the pool lets go of it.
            tokio::spawn(async move {
                let mut driver = driver;
                let ended = poll_fn(|cx| {
                    let polled = Pin::new(&mut driver).poll(cx);
                    if let Some(connection) = driven.upgrade() {
                        connection
                            .streams
                            .store(driver.current_max_send_streams(), Ordering::Relaxed);
                    }
                    polled
                });
                let _ = ended.await;
                if let Some(connection) = driven.upgrade() {
                    connection.permits.close();
                    if let Some(pool) = pool.upgrade() {
                        pool.remove(&connection);
                    }
                }
            });
            connection
        } else {
            let mut builder = http1::Builder::new();
            let shake = builder.max_buf_size(HEADER_BYTES_MAX as usize).handshake(io);
            let (sender, driver) = shake.await.map_err(|_| Lost::Connection)?;
            let connection = Arc::new(Connection::new(Sender::Http1(Mutex::new(sender)), 1));
            let (pool, driven) = (Arc::downgrade(&self.0), Arc::downgrade(&connection));
            tokio::spawn(async move {
                let _ = driver.await;
                if let Some(connection) = driven.upgrade() {
                    connection.permits.close();
                    if let Some(pool) = pool.upgrade() {
                        pool.remove(&connection);
                    }
                }
            });
            connection
        };
        self.0.open.rcu(|open| {
            let mut more = Vec::clone(open);
            more.push(connection.clone());
            more
        });
        Ok(connection)
    }
}

impl Inner {
    fn remove(&self, connection: &Arc<Connection>) {
        self.open.rcu(|open| {
            let mut fewer = Vec::clone(open);
            fewer.retain(|one| !Arc::ptr_eq(one, connection));
            fewer
        });
    }
}

impl Connection {
    fn new(sender: Sender, streams_max: usize) -> Connection {
        Connection {
            sender,
            in_flight: AtomicUsize::new(0),
            permits: Semaphore::new(streams_max.min(Semaphore::MAX_PERMITS)),
            streams: AtomicUsize::new(streams_max),
        }
    }

    fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(_) => self.permits.is_closed(),
            Sender::Http2(sender) => self.permits.is_closed() || sender.is_closed(),
        }
    }

    async fn send(
        &self,
        make: &impl Fn(Protocol) -> Request<Full<Bytes>>,
        reply_bytes_max: usize,
    ) -> Result<Reply, Fault> {
        let _counted = Counted::new(&self.in_flight);
        // Closed with the connection: nothing was sent.
        let _permit = self.permits.acquire().await.map_err(|_| Fault::NotTaken)?;
        let response = match &self.sender {
            Sender::Http2(sender) => {
                sender.clone().send_request(make(Protocol::Http2)).await.map_err(fault)?
            }
            Sender::Http1(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await.map_err(|_| Fault::NotTaken)?;
                let response = sender.send_request(make(Protocol::Http1)).await.map_err(fault)?;
                drop(sender);
                response
            }
        };
        read(response, reply_bytes_max).await
    }
}

/// Reads to the end or the bound, whichever comes first.
async fn read(response: Response<Incoming>, bytes_max: usize) -> Result<Reply, Fault> {
    let (head, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    while !body.is_end_stream() {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let room = bytes_max - bytes.len();
                    bytes.extend_from_slice(&data[..data.len().min(room)]);
                    if data.len() >= room {
                        break;
                    }
                }
            }
            // The status is what counts, and it is here.
            Some(Err(_)) => break,
        }
    }
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: bytes.freeze() })
}

fn fault(error: hyper::Error) -> Fault {
    // Never left the queue.
    if error.is_canceled() || error.is_user() || error.is_closed() {
        return Fault::NotTaken;
    }
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            let reason = h2.reason();
            // Streams above the last that a GOAWAY names, and refused ones, were not processed.
            let is_left_out =
                h2.is_go_away() && h2.is_remote() && reason == Some(h2::Reason::NO_ERROR);
            let is_refused = h2.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
            return if is_left_out || is_refused {
                Fault::NotTaken
            } else if h2.is_reset() {
                Fault::Lost(Lost::Reset)
            } else {
                Fault::Lost(Lost::Connection)
            };
        }
        source = cause.source();
    }
    Fault::Lost(Lost::Connection)
}

struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Counted<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
