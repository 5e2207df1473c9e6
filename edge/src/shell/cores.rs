//! One core: a thread with a runtime, listeners and a registry of parked polls of its own.
//!
//! Nothing here is shared with other cores but what [`Shared`] holds, so a connection is served from its first byte to
//! its last without a lock on its way. Everything runs on one thread, so between a decision and the parking that
//! follows it no wake can be lost; a world published by another thread meanwhile is noticed by looking again.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use carillon_world::{Millis, UpstreamRequest};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio_rustls::TlsAcceptor;

use super::handler::{self, Peer};
use super::listen;
use super::state::{self, Phase, Shared};
use crate::core::answer::Answer;
use crate::core::call::{Call, Step};
use crate::core::decide::View;
use crate::core::delivered::Delivered;
use crate::core::parking::{Parking, Ticket};
use crate::core::seal::Entropy;
use crate::core::seen::Seen;

/// Pause after the system refused to accept (out of file descriptors, say), so that a core does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often an idle HTTP/2 connection is asked whether it is still there, and how long it may take to say so. Rare,
/// because an answer wakes a phone's radio.
const H2_PING_EVERY: Duration = Duration::from_secs(120);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes that one HTTP/2 stream and connection may send before we read: a body has at most 64 KiB.
const H2_STREAM_WINDOW: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW: u32 = 128 * 1024;

/// Bytes of answers that HTTP/2 holds for one stream while its peer does not read.
const H2_SEND_BUFFER: usize = 64 * 1024;

/// Messages that a core judges for a tick of the clock before it looks at its connections again: a few ms.
const SWEEP_EVALUATIONS: u64 = 20_000;

/// How often central is told which devices were seen, and in how many reports at most.
const SEEN_EVERY: Duration = Duration::from_secs(2);
const SEEN_REPORTS_MAX: usize = 4;

/// How often central is told what was delivered.
const DELIVERED_EVERY: Duration = Duration::from_secs(1);
/// How long an edge that stops takes to say the last of it.
const DELIVERED_LAST_MAX: Duration = Duration::from_secs(1);

/// Why a parked request is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// Something changed that may concern it.
    Look,
    /// A later request of its device took its place.
    Evicted,
    /// The edge stops.
    Drain,
}

/// What one core's tasks share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    parking: RefCell<Parking<oneshot::Sender<Wake>>>,
    seen: RefCell<Seen>,
    delivered: RefCell<Delivered>,
    /// Told once, when draining begins.
    drain: Notify,
    /// Told whenever a connection ends.
    closed: Notify,
    open: Cell<usize>,
}

/// What came of looking at a call.
pub(super) enum Visit<'a> {
    Answer(Answer),
    Upstream(UpstreamRequest),
    Parked(Parked<'a>),
    /// No place to park.
    Full,
}

/// A parked request. Dropping it gives its place back.
pub(super) struct Parked<'a> {
    pub(super) until: Instant,
    pub(super) woken: oneshot::Receiver<Wake>,
    core: &'a Core,
    ticket: Ticket,
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.core.parking.borrow_mut().remove(self.ticket);
        self.core.shared.metrics.parked_polls.dec();
    }
}

impl Core {
    fn new(shared: Arc<Shared>) -> Core {
        let limits = &shared.config.limits;
        let parking = Parking::new(limits.parked_max.get(), limits.parked_per_device_max.get());
        Core {
            parking: RefCell::new(parking),
            seen: RefCell::default(),
            delivered: RefCell::default(),
            drain: Notify::new(),
            closed: Notify::new(),
            open: Cell::new(0),
            shared,
        }
    }

    /// Looks at a call with the world of this moment; parks it if there is nothing to say yet, and looks again if the
    /// world or the link changed meanwhile.
    pub(super) fn visit(&self, now: Instant, call: &mut Call, entropy: Entropy) -> Visit<'_> {
        loop {
            let live = self.shared.is_live();
            let world = self.shared.world.load();
            let draining = self.shared.is_draining();
            let view = View {
                world: world.as_deref(),
                keys: &self.shared.keys.load(),
                live,
                draining,
                spread: if draining { self.shared.config.drain_spread } else { Duration::ZERO },
                limits: &self.shared.answer_limits,
                sabotage: self.shared.config.sabotage,
            };
            let park = match call.look(&view, now, entropy) {
                Step::Park(park) => park,
                Step::Answer(answer) => {
                    if let Some((app, device)) = answer.device {
                        self.seen.borrow_mut().note(clock(), app, device);
                        if let Some(stored) = &answer.stored {
                            self.delivered.borrow_mut().note(app, **stored);
                        }
                    }
                    return Visit::Answer(answer);
                }
                // Central sees the device in the write itself.
                Step::Upstream(request) => return Visit::Upstream(request),
            };
            self.seen.borrow_mut().note(clock(), park.app, park.device);
            let (waker, woken) = oneshot::channel();
            let Ok(parked) = self.parking.borrow_mut().park(&park, waker) else {
                return Visit::Full;
            };
            self.shared.metrics.parked_polls.inc();
            if let Some(oldest) = parked.evicted {
                self.shared.metrics.parked_evicted.inc();
                // Its handler may just have come to its end by itself.
                let _ = oldest.send(Wake::Evicted);
            }
            let guard = Parked { until: park.until, woken, core: self, ticket: parked.ticket };
            let again = self.shared.world.load();
            let same = match (&*world, &*again) {
                (Some(before), Some(after)) => Arc::ptr_eq(before, after),
                (None, None) => true,
                _ => false,
            };
            if same && self.shared.is_live() == live {
                return Visit::Parked(guard);
            }
        }
    }

    /// Wakes those whom what was published concerns.
    fn look_at_mail(&self, mailbox: usize) {
        let mail = self.shared.mailboxes[mailbox].take();
        let mut parking = self.parking.borrow_mut();
        let woken = mail.woken(self.shared.world.load().as_deref(), &mut parking);
        self.wake(&mut parking, woken);
    }

    /// Looks at some more of those whom the clock may concern.
    fn sweep(&self) {
        let mut parking = self.parking.borrow_mut();
        if let Some(world) = &*self.shared.world.load() {
            let woken = parking.sweep(world, SWEEP_EVALUATIONS);
            self.wake(&mut parking, woken);
        }
    }

    fn is_sweeping(&self) -> bool {
        self.parking.borrow().is_sweeping() && self.shared.world.load().is_some()
    }

    fn wake(&self, parking: &mut Parking<oneshot::Sender<Wake>>, woken: Vec<Ticket>) {
        for ticket in woken {
            // A request that two changes concern is out of the registry after the first.
            if let Some(waker) = parking.remove(ticket) {
                self.shared.metrics.wakes.inc();
                let _ = waker.send(Wake::Look);
            }
        }
    }

    /// Tells central whom this core has seen, in small pieces. Nobody waits for an answer, and what cannot be sent is
    /// lost: the devices come by again.
    async fn report_seen(&self) {
        loop {
            tokio::time::sleep(SEEN_EVERY).await;
            if !self.shared.is_live() {
                continue;
            }
            for _ in 0..SEEN_REPORTS_MAX {
                let Some(request) = self.seen.borrow_mut().poll_report() else { break };
                let (reply, _) = oneshot::channel();
                if self.shared.calls.try_send(state::Call { request, reply }).is_err() {
                    break;
                }
            }
        }
    }

    /// Tells central what was delivered, one report after the other until nothing waits or central does not take it.
    async fn report_delivered(&self) {
        while self.shared.is_live() {
            let Some(request) = self.delivered.borrow_mut().poll_report() else { return };
            let (reply, answered) = oneshot::channel();
            let sent = self.shared.calls.try_send(state::Call { request, reply }).is_ok();
            let patience = self.shared.config.central.write_timeout;
            let reply = match sent {
                true => tokio::time::timeout(patience, answered).await.ok().and_then(Result::ok),
                false => None,
            };
            if !self.delivered.borrow_mut().handle_reply(reply.as_ref()) {
                return;
            }
        }
    }

    /// All that is left, in so far as central takes it.
    async fn report_last(&self) {
        self.report_delivered().await;
        while self.delivered.borrow().is_under_way() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn drain_parked(&self) {
        let mut parking = self.parking.borrow_mut();
        for ticket in parking.all() {
            if let Some(waker) = parking.remove(ticket) {
                let _ = waker.send(Wake::Drain);
            }
        }
    }
}

/// One listener of a core.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) listener: TcpListener,
    /// `None`: plain HTTP.
    pub(super) tls: Option<Arc<ServerConfig>>,
}

/// Runs one core on the present thread until the edge stops.
pub(super) fn run(
    shared: Arc<Shared>,
    index: usize,
    listeners: Vec<Listener>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())?;
    runtime.block_on(serve(shared, index, listeners))
}

async fn serve(shared: Arc<Shared>, index: usize, listeners: Vec<Listener>) -> std::io::Result<()> {
    let core = Rc::new(Core::new(shared.clone()));
    let mut accepting = Vec::new();
    for Listener { listener, tls } in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accepting.push(tokio::task::spawn_local(accept(
            core.clone(),
            listener,
            tls.map(TlsAcceptor::from),
        )));
    }
    // Ends with the runtime.
    let reporter = core.clone();
    tokio::task::spawn_local(async move { reporter.report_seen().await });
    let reporter = core.clone();
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(DELIVERED_EVERY).await;
            reporter.report_delivered().await;
        }
    });
    let mut phase = shared.phase.subscribe();
    {
        // Also true at once if the edge was stopped before this thread came so far.
        let mut draining = pin!(phase.wait_for(|phase| *phase >= Phase::Draining));
        loop {
            tokio::select! {
                () = shared.mailboxes[index].ready.notified() => core.look_at_mail(index),
                _ = draining.as_mut() => break,
                // After whatever else is ready on this core.
                () = tokio::task::yield_now(), if core.is_sweeping() => core.sweep(),
            }
        }
    }
    core.drain.notify_waiters();
    for task in accepting {
        // An acceptor that panicked has been reported already.
        let _ = task.await;
    }
    core.drain_parked();
    // Changes may come to a connection until its last request is answered, so mail is read to the end.
    let mut deadline = pin!(phase.wait_for(|phase| *phase >= Phase::Stopped));
    while core.open.get() > 0 {
        tokio::select! {
            () = core.closed.notified() => {}
            () = shared.mailboxes[index].ready.notified() => core.look_at_mail(index),
            _ = deadline.as_mut() => return Ok(()),
        }
    }
    // What is not said by then the devices' next polls say elsewhere.
    let _ = tokio::time::timeout(DELIVERED_LAST_MAX, core.report_last()).await;
    Ok(())
}

/// Accepts until draining begins, then empties the queue, since closing the socket would reset what waits in it.
async fn accept(core: Rc<Core>, listener: tokio::net::TcpListener, tls: Option<TlsAcceptor>) {
    let mut drain = pin!(core.drain.notified());
    while !core.shared.is_draining() {
        let accepted = tokio::select! {
            biased;
            () = drain.as_mut() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => admit(&core, stream, from, tls.clone()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, from)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            admit(&core, stream, from, tls.clone());
        }
    }
}

/// The time of day, for what is only told to central.
fn clock() -> Millis {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Millis(since.as_millis().try_into().unwrap_or(u64::MAX))
}

fn admit(core: &Rc<Core>, stream: TcpStream, from: SocketAddr, tls: Option<TlsAcceptor>) {
    let limits = &core.shared.config.limits;
    let Some(place) = Place::take(core) else {
        core.shared.metrics.connections_refused.inc();
        return;
    };
    if listen::configure(&stream, limits.send_timeout).is_err() {
        return;
    }
    let core = core.clone();
    tokio::task::spawn_local(async move {
        let _place = place;
        let forwarded = tls.is_none() && core.shared.config.listen.forwarded_for;
        connection(&core, stream, Peer { address: from.ip(), forwarded }, tls).await;
    });
}

/// One of the edge's connections.
#[derive(Debug)]
struct Place {
    core: Rc<Core>,
}

impl Place {
    fn take(core: &Rc<Core>) -> Option<Place> {
        let most = core.shared.config.limits.connections_max.get();
        let taken =
            core.shared.connections.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                (open < most).then_some(open + 1)
            });
        taken.ok()?;
        core.open.set(core.open.get() + 1);
        core.shared.metrics.connections.inc();
        Some(Place { core: core.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.core.shared.connections.fetch_sub(1, Ordering::AcqRel);
        self.core.shared.metrics.connections.dec();
        self.core.open.set(self.core.open.get() - 1);
        self.core.closed.notify_one();
    }
}

/// One connection from its handshake to its end. Each protocol's future is boxed, so that a connection takes the memory
/// of what it speaks and not of the largest.
async fn connection(core: &Rc<Core>, stream: TcpStream, peer: Peer, tls: Option<TlsAcceptor>) {
    let Some(tls) = tls else {
        return Box::pin(http1(core, stream, peer)).await;
    };
    let patience = core.shared.config.limits.handshake_timeout;
    let shaken = tokio::time::timeout(patience, Box::pin(tls.accept(stream))).await;
    let Ok(Ok(stream)) = shaken else {
        core.shared.metrics.handshakes_failed.inc();
        return;
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        Box::pin(http2(core, stream, peer)).await;
    } else {
        Box::pin(http1(core, stream, peer)).await;
    }
}

async fn http1(core: &Rc<Core>, stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) {
    let limits = &core.shared.config.limits;
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_bytes_max);
    let service = service_fn(|request: http::Request<Incoming>| {
        let core = core.clone();
        async move { Ok::<_, Infallible>(handler::handle(core, peer, request).await) }
    });
    let drain = core.drain.notified();
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    if !core.shared.is_draining() {
        tokio::select! {
            // What ends a connection early is the peer's affair: it comes back.
            _ = served.as_mut() => return,
            () = drain => {}
        }
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

async fn http2(core: &Rc<Core>, stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) {
    let limits = &core.shared.config.limits;
    let mut builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
    let head_bytes_max = u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams_max)
        .max_header_list_size(head_bytes_max)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buf_size(H2_SEND_BUFFER)
        .keep_alive_interval(H2_PING_EVERY)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    let service = service_fn(|request: http::Request<Incoming>| {
        let core = core.clone();
        async move { Ok::<_, Infallible>(handler::handle(core, peer, request).await) }
    });
    let drain = core.drain.notified();
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    if !core.shared.is_draining() {
        tokio::select! {
            _ = served.as_mut() => return,
            () = drain => {}
        }
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

/// Runs what HTTP/2 spawns on the core's own thread.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
