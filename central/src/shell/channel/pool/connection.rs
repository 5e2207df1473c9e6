//! One connection of a pool.
//!
//! HTTP/2 is spoken with `h2` itself, which hyper is made of: hyper gives each request a task and two channels of its
//! own, which is a quarter of what a push costs, and asks for nothing that is needed here. HTTP/1.1 is hyper's.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{Ping, PingPong, RecvStream};
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep};

use super::{Lost, PoolLimits, Protocol, Reply};

/// Requests on a connection before the provider said how many it takes: one asks, as it were, for all.
const STREAMS_FIRST: usize = 1;
/// The limit comes with the provider's first frame, and nothing tells of it: it is looked for so often at first, and
/// with every request afterwards.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOKS_MAX: u32 = 200;
/// Header fields of an answer, in bytes as RFC 9113 counts them.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Of answers that are on their way and not read.
const WINDOW_BYTES: u32 = 1024 * 1024;

pub(super) struct Connection {
    sender: Sender,
    pub(super) in_flight: AtomicUsize,
    /// As many may be.
    pub(super) room: AtomicUsize,
    /// It takes no more requests; those on it may still be answered.
    pub(super) closed: AtomicBool,
    /// The provider announced its end, with GOAWAY.
    pub(super) leaving: AtomicBool,
}

enum Sender {
    Http1(Mutex<http1::SendRequest<Full<Bytes>>>),
    Http2(h2::client::SendRequest<Bytes>),
}

/// What became of one try.
pub(super) enum Fault {
    /// Certainly not processed: it may go out again.
    NotTaken,
    Lost(Lost),
}

/// What moves an HTTP/2 connection on.
pub(super) type Http2Driver<T> = h2::client::Connection<T, Bytes>;
pub(super) type Http1Driver<T> = http1::Connection<TokioIo<T>, Full<Bytes>>;

impl Connection {
    pub(super) async fn http2<T>(io: T) -> Result<(Connection, Http2Driver<T>), Lost>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let shake = h2::client::Builder::new()
            .enable_push(false)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_header_list_size(HEADER_BYTES_MAX)
            .initial_max_send_streams(STREAMS_FIRST)
            .handshake(io);
        let (sender, driver) = shake.await.map_err(|_| Lost::Connection)?;
        Ok((Connection::new(Sender::Http2(sender), STREAMS_FIRST), driver))
    }

    pub(super) async fn http1<T>(io: T) -> Result<(Connection, Http1Driver<T>), Lost>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let mut builder = http1::Builder::new();
        let shake = builder.max_buf_size(HEADER_BYTES_MAX as usize).handshake(TokioIo::new(io));
        let (sender, driver) = shake.await.map_err(|_| Lost::Connection)?;
        Ok((Connection::new(Sender::Http1(Mutex::new(sender)), 1), driver))
    }

    fn new(sender: Sender, room: usize) -> Connection {
        Connection {
            sender,
            in_flight: AtomicUsize::new(0),
            room: AtomicUsize::new(room),
            closed: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) async fn send(
        &self,
        make: &impl Fn(Protocol) -> Request<Bytes>,
        reply_bytes_max: usize,
    ) -> Result<Reply, Fault> {
        match &self.sender {
            Sender::Http2(sender) => {
                let (mut head, body) = make(Protocol::Http2).into_parts();
                head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(body.len()));
                let request = Request::from_parts(head, ());
                let sent = sender.clone().send_request(request, body.is_empty());
                // It has no stream, so the provider knows nothing of it.
                let (response, mut stream) = sent.map_err(|error| {
                    self.leaving.fetch_or(error.is_go_away(), Ordering::AcqRel);
                    self.closed.store(true, Ordering::Release);
                    Fault::NotTaken
                })?;
                if !body.is_empty() {
                    stream.send_data(body, true).map_err(|error| fault(&error))?;
                }
                let response = response.await.map_err(|error| fault(&error))?;
                Ok(read_http2(response, reply_bytes_max).await)
            }
            Sender::Http1(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await.map_err(|_| Fault::NotTaken)?;
                let request = make(Protocol::Http1).map(Full::new);
                let response = sender.send_request(request).await.map_err(|error| {
                    // Never left the queue.
                    let is_left = error.is_canceled() || error.is_user() || error.is_closed();
                    if is_left { Fault::NotTaken } else { Fault::Lost(Lost::Connection) }
                })?;
                drop(sender);
                Ok(read_http1(response, reply_bytes_max).await)
            }
        }
    }
}

fn fault(error: &h2::Error) -> Fault {
    // Streams above the last that a GOAWAY names, and refused ones, were not processed.
    let is_left_out =
        error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    if is_left_out || is_refused {
        Fault::NotTaken
    } else if error.is_reset() {
        Fault::Lost(Lost::Reset)
    } else {
        Fault::Lost(Lost::Connection)
    }
}

/// Reads to the end or the bound, whichever comes first. If the rest is lost, the status is what counts, and it is here.
async fn read_http2(response: Response<RecvStream>, bytes_max: usize) -> Reply {
    let (head, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    while !body.is_end_stream()
        && let Some(Ok(data)) = body.data().await
    {
        if !take(&mut bytes, &data, bytes_max) {
            break;
        }
        if body.flow_control().release_capacity(data.len()).is_err() {
            break;
        }
    }
    reply(head.status, head.headers, bytes)
}

async fn read_http1(response: Response<Incoming>, bytes_max: usize) -> Reply {
    let (head, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    while !body.is_end_stream()
        && let Some(Ok(frame)) = body.frame().await
    {
        if frame.data_ref().is_some_and(|data| !take(&mut bytes, data, bytes_max)) {
            break;
        }
    }
    reply(head.status, head.headers, bytes)
}

/// Whether there is room for more.
fn take(bytes: &mut BytesMut, data: &[u8], bytes_max: usize) -> bool {
    let room = bytes_max - bytes.len();
    bytes.extend_from_slice(&data[..data.len().min(room)]);
    data.len() < room
}

fn reply(status: http::StatusCode, headers: HeaderMap, bytes: BytesMut) -> Reply {
    Reply { status: status.as_u16(), headers, body: bytes.freeze() }
}

/// Moves a connection on until it ends, and says of each change how many requests it takes. Gives whether the provider
/// announced the end.
pub(super) async fn drive_http2<T>(
    mut driver: Http2Driver<T>,
    limits: PoolLimits,
    is_idle: impl Fn() -> bool,
    mut on_room: impl FnMut(usize),
) -> bool
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut alive = driver.ping_pong().map(|pings| KeepAlive::new(pings, limits));
    let (mut look, mut looks) = (tokio::time::interval(LOOK_EVERY), LOOKS_MAX);
    let (mut known, streams_max) = (STREAMS_FIRST, limits.streams_max.max(1));
    let ended = poll_fn(|cx| {
        let polled = Pin::new(&mut driver).poll(cx);
        while known == STREAMS_FIRST && looks > 0 && look.poll_tick(cx).is_ready() {
            looks -= 1;
        }
        // A provider that allows none for a while is asked with one, which waits here.
        let room = driver.max_concurrent_send_streams().clamp(1, streams_max);
        if room != known {
            known = room;
            on_room(room);
        }
        // Without an error only after a GOAWAY that says there is none.
        let polled = polled.map(|ended| ended.is_ok());
        let is_dead = |alive: &mut KeepAlive| alive.poll_dead(cx, &is_idle).is_ready();
        if polled.is_pending() && alive.as_mut().is_some_and(is_dead) {
            return Poll::Ready(false);
        }
        polled
    });
    ended.await
}

/// Asks now and then whether the provider is still there (RFC 9113, section 6.7), because a connection that is cut off
/// silently looks like one on which nothing happens.
struct KeepAlive {
    pings: PingPong,
    every: Interval,
    timeout: Duration,
    while_idle: bool,
    /// When the answer to the ping under way has to be here.
    due: Option<Pin<Box<Sleep>>>,
}

impl KeepAlive {
    fn new(pings: PingPong, limits: PoolLimits) -> KeepAlive {
        let first = Instant::now() + limits.keep_alive_interval;
        let mut every = tokio::time::interval_at(first, limits.keep_alive_interval);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        KeepAlive {
            pings,
            every,
            timeout: limits.keep_alive_timeout,
            while_idle: limits.keep_idle,
            due: None,
        }
    }

    /// Ready if it is not.
    fn poll_dead(&mut self, cx: &mut Context<'_>, is_idle: impl Fn() -> bool) -> Poll<()> {
        loop {
            if let Some(due) = &mut self.due {
                match self.pings.poll_pong(cx) {
                    Poll::Ready(_) => self.due = None,
                    Poll::Pending => return due.as_mut().poll(cx),
                }
            }
            if self.every.poll_tick(cx).is_pending() {
                return Poll::Pending;
            }
            let is_wanted = self.while_idle || !is_idle();
            if is_wanted && self.pings.send_ping(Ping::opaque()).is_ok() {
                self.due = Some(Box::pin(tokio::time::sleep(self.timeout)));
            }
        }
    }
}
