//! Connections to one origin, over which requests are spread.
//!
//! A pool of our own, because clients that keep one connection an origin cannot use a provider that allows several, and
//! because what a lost connection means for the requests on it has to be known: a request that the provider has
//! certainly not processed (RFC 9113, sections 6.8 and 8.7) goes out again on another connection. So does one that was
//! lost on a connection whose end the provider had announced: its last frames may be lost with it, and a push that comes
//! twice takes its own place. Any other loss is reported.
//!
//! What always holds: no connection has more requests in flight than [`PoolLimits::streams_max`] or than the provider
//! allows; all but one wait until the provider said how many that is; a request ends within
//! [`PoolLimits::request_timeout`]. A request waits with the pool and not with a connection, so that whichever has room
//! first takes it. There is no lock of ours on its way while a connection has room.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
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
use tokio::sync::{Mutex, Notify};

use crate::config::ProviderConfig;
use crate::core::channel::{Outcome, Reason, Scope};
use crate::core::outbound::HttpsUrl;
use crate::shell::outbound::{DialError, Dialer};

/// Connections that a request is tried on at most, if each one closes before it took the request. A provider that
/// closes connections after some hundred requests leaves out every other one, so a few would not do.
const TRIES: usize = 32;
/// How long a pool that could not get one connection more waits before it tries again.
const GROW_AGAIN: Duration = Duration::from_secs(1);
/// Requests on a connection before the provider said how many it takes: one asks, as it were, for all.
const STREAMS_FIRST: usize = 1;
/// The limit comes with the provider's first frame, and nothing tells of it: it is looked for so often at first, and
/// with every request afterwards.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOKS_MAX: u32 = 200;
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
    /// A request ended, or a connection opened or closed.
    freed: Notify,
}

struct Connection {
    sender: Sender,
    in_flight: AtomicUsize,
    /// As many may be.
    room: AtomicUsize,
    closed: AtomicBool,
    /// The provider announced its end, with GOAWAY.
    leaving: AtomicBool,
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
            freed: Notify::new(),
        }))
    }

    /// Sends what `make` gives and reads the answer. `make` is asked again if the request has to go out again.
    pub(super) async fn send(
        &self,
        make: impl Fn(Protocol) -> Request<Full<Bytes>>,
    ) -> Result<Reply, Lost> {
        let tries = async {
            for _ in 0..TRIES {
                let seat = self.seat().await?;
                match seat.connection.send(&make, self.0.limits.reply_bytes_max).await {
                    Ok(reply) => return Ok(reply),
                    Err(Fault::NotTaken) => {}
                    Err(Fault::Lost(Lost::Connection))
                        if seat.connection.leaving.load(Ordering::Acquire) => {}
                    Err(Fault::Lost(lost)) => return Err(lost),
                }
            }
            Err(Lost::Connection)
        };
        tokio::time::timeout(self.0.limits.request_timeout, tries)
            .await
            .unwrap_or(Err(Lost::Timeout))
    }

    /// A place on the first open connection that has one: full connections write and read more at a time than two
    /// that are half full. The first connection is waited for; another is opened aside when all are full.
    async fn seat(&self) -> Result<Seat<'_>, Lost> {
        loop {
            match self.try_seat() {
                Room::Seat(seat) => return Ok(seat),
                Room::Full => {}
                Room::NoneOpen => {
                    self.dial_first().await?;
                    continue;
                }
            }
            let mut freed = pin!(self.0.freed.notified());
            freed.as_mut().enable();
            // What ended before this waited told nobody.
            if let Room::Seat(seat) = self.try_seat() {
                return Ok(seat);
            }
            freed.await;
        }
    }

    fn try_seat(&self) -> Room<'_> {
        let open = self.0.open.load();
        let mut is_any_open = false;
        for connection in open.iter().filter(|connection| !connection.is_closed()) {
            is_any_open = true;
            let room = connection.room.load(Ordering::Relaxed);
            if connection.in_flight.load(Ordering::Relaxed) >= room {
                continue;
            }
            // Counted before it is compared, so that two at once cannot both take the last place.
            if connection.in_flight.fetch_add(1, Ordering::Relaxed) < room {
                return Room::Seat(Seat { connection: connection.clone(), pool: &self.0 });
            }
            connection.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        if !is_any_open {
            return Room::NoneOpen;
        }
        if open.len() < self.0.limits.connections_max {
            self.grow();
        }
        Room::Full
    }

    /// Opens a connection unless one is open.
    async fn dial_first(&self) -> Result<(), Lost> {
        let inner = &*self.0;
        let failed_before = inner.dials_failed.load(Ordering::Acquire);
        let mut last = inner.dialing.lock().await;
        if inner.open.load().iter().any(|connection| !connection.is_closed()) {
            return Ok(());
        }
        // Whoever waited while an attempt failed takes that as its own.
        if inner.dials_failed.load(Ordering::Acquire) != failed_before
            && let Some(lost) = *last
        {
            return Err(lost);
        }
        self.dial().await.inspect_err(|lost| {
            *last = Some(*lost);
            inner.dials_failed.fetch_add(1, Ordering::Release);
        })
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

    async fn dial(&self) -> Result<(), Lost> {
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
                .initial_max_send_streams(STREAMS_FIRST)
                .handshake(io);
            let (sender, mut driver) = shake.await.map_err(|_| Lost::Connection)?;
            let connection = Arc::new(Connection::new(Sender::Http2(sender), STREAMS_FIRST));
            let (pool, driven) = (Arc::downgrade(&self.0), Arc::downgrade(&connection));
            let (mut known, streams_max) = (STREAMS_FIRST, limits.streams_max.max(1));
            self.0.clone().drive(&connection, async move {
                let (mut look, mut looks) = (tokio::time::interval(LOOK_EVERY), LOOKS_MAX);
                let ended = poll_fn(|cx| {
                    let polled = Pin::new(&mut driver).poll(cx);
                    while known == STREAMS_FIRST && looks > 0 && look.poll_tick(cx).is_ready() {
                        looks -= 1;
                    }
                    // A provider that allows none for a while is asked with one, which waits here.
                    let room = driver.current_max_send_streams().clamp(1, streams_max);
                    if room != known {
                        known = room;
                        if let Some(connection) = driven.upgrade() {
                            connection.room.store(room, Ordering::Relaxed);
                        }
                        if let Some(pool) = pool.upgrade() {
                            pool.freed.notify_waiters();
                        }
                    }
                    polled
                });
                // Without an error only after a GOAWAY that says there is none.
                ended.await.is_ok()
            });
            connection
        } else {
            let mut builder = http1::Builder::new();
            let shake = builder.max_buf_size(HEADER_BYTES_MAX as usize).handshake(io);
            let (sender, driver) = shake.await.map_err(|_| Lost::Connection)?;
            let connection = Arc::new(Connection::new(Sender::Http1(Mutex::new(sender)), 1));
            self.0.clone().drive(&connection, async move {
                let _ = driver.await;
                false
            });
            connection
        };
        self.0.open.rcu(|open| {
            let mut more = Vec::clone(open);
            more.push(connection.clone());
            more
        });
        self.0.freed.notify_waiters();
        Ok(())
    }
}

impl Inner {
    /// Runs a connection until it takes no more requests. The driver gives whether the provider announced that. It
    /// ends when the pool lets go of the connection, too.
    fn drive(
        self: Arc<Inner>,
        connection: &Arc<Connection>,
        driver: impl Future<Output = bool> + Send + 'static,
    ) {
        let (pool, driven) = (Arc::downgrade(&self), Arc::downgrade(connection));
        tokio::spawn(async move {
            let is_leaving = driver.await;
            if let (Some(pool), Some(connection)) = (pool.upgrade(), driven.upgrade()) {
                connection.leaving.store(is_leaving, Ordering::Release);
                connection.closed.store(true, Ordering::Release);
                pool.remove(&connection);
                pool.freed.notify_waiters();
            }
        });
    }

    fn remove(&self, connection: &Arc<Connection>) {
        self.open.rcu(|open| {
            let mut fewer = Vec::clone(open);
            fewer.retain(|one| !Arc::ptr_eq(one, connection));
            fewer
        });
    }
}

impl Connection {
    fn new(sender: Sender, room: usize) -> Connection {
        Connection {
            sender,
            in_flight: AtomicUsize::new(0),
            room: AtomicUsize::new(room),
            closed: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        }
    }

    fn is_closed(&self) -> bool {
        let is_closed = match &self.sender {
            Sender::Http1(_) => false,
            Sender::Http2(sender) => sender.is_closed(),
        };
        is_closed || self.closed.load(Ordering::Acquire)
    }

    async fn send(
        &self,
        make: &impl Fn(Protocol) -> Request<Full<Bytes>>,
        reply_bytes_max: usize,
    ) -> Result<Reply, Fault> {
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

/// One request's place on a connection.
struct Seat<'a> {
    connection: Arc<Connection>,
    pool: &'a Inner,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.connection.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.pool.freed.notify_one();
    }
}

enum Room<'a> {
    Seat(Seat<'a>),
    Full,
    NoneOpen,
}
