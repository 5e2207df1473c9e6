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

mod connection;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, Request, header};
use tokio::sync::{Mutex, Notify};

use self::connection::{Connection, Fault, drive_http2};
use crate::config::ProviderConfig;
use crate::core::channel::{Outcome, Reason, Scope};
use crate::core::outbound::HttpsUrl;
use crate::shell::outbound::{DialError, Dialer};

/// Connections that a request is tried on at most, if each one closes before it took the request. A provider that
/// closes connections after some hundred requests leaves out every other one, so a few would not do.
const TRIES: usize = 32;
/// How long a pool that could not get one connection more waits before it tries again.
const GROW_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(in crate::shell) struct PoolLimits {
    pub(in crate::shell) connections_max: usize,
    pub(in crate::shell) streams_max: usize,
    pub(in crate::shell) request_timeout: Duration,
    pub(in crate::shell) reply_bytes_max: usize,
    pub(in crate::shell) keep_alive_interval: Duration,
    pub(in crate::shell) keep_alive_timeout: Duration,
    /// Whether a connection without requests is kept alive.
    pub(in crate::shell) keep_idle: bool,
}

impl PoolLimits {
    pub(in crate::shell) const fn of_lane(config: &ProviderConfig) -> PoolLimits {
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
pub(in crate::shell) struct Reply {
    pub(in crate::shell) status: u16,
    pub(in crate::shell) headers: HeaderMap,
    pub(in crate::shell) body: Bytes,
}

impl Reply {
    pub(in crate::shell) fn retry_after(&self) -> Option<&str> {
        self.headers.get(header::RETRY_AFTER)?.to_str().ok()
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shell) enum Lost {
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
    pub(in crate::shell) fn outcome(self, origin: Scope) -> Outcome {
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
pub(in crate::shell) enum Protocol {
    Http1,
    Http2,
}

#[derive(Clone)]
pub(in crate::shell) struct Pool(Arc<Inner>);

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
    pub(in crate::shell) fn new(dialer: Dialer, url: HttpsUrl, limits: PoolLimits) -> Pool {
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
    pub(in crate::shell) async fn send(
        &self,
        make: impl Fn(Protocol) -> Request<Bytes>,
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
        let connection = if is_h2 {
            let (connection, driver) = Connection::http2(stream).await?;
            let connection = Arc::new(connection);
            let (pool, driven) = (Arc::downgrade(&self.0), Arc::downgrade(&connection));
            let on_room = move |room| {
                if let (Some(pool), Some(connection)) = (pool.upgrade(), driven.upgrade()) {
                    connection.room.store(room, Ordering::Relaxed);
                    pool.freed.notify_waiters();
                }
            };
            let asked = Arc::downgrade(&connection);
            let is_idle =
                move || asked.upgrade().is_none_or(|of| of.in_flight.load(Ordering::Relaxed) == 0);
            self.0.clone().drive(&connection, drive_http2(driver, *limits, is_idle, on_room));
            connection
        } else {
            let (connection, driver) = Connection::http1(stream).await?;
            let connection = Arc::new(connection);
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
                connection.leaving.fetch_or(is_leaving, Ordering::AcqRel);
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
