//! A TCP proxy that does to connections what networks do: it delays, drips, stalls, swallows, cuts, resets and refuses.
//!
//! It stands between any two processes and is told what to do while connections run. [`Faults`] are about bytes and
//! hold for every connection, open ones too; a [`Script`] is about HTTP/1.1 answers and decides for each of them; a
//! [`Tap`] decides on raw bytes, for any other protocol.
//! Whatever it does it counts, so that a test can assert that its faults happened.
//!
//! What always holds: without faults the bytes of each direction pass unchanged and in order, and one side's end
//! (its FIN) is passed on alone.

mod answers;
mod pipe;
mod tap;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use answers::{Exchange, Verdict};
use pipe::Pipe;
pub use tap::{Chunk, Direction, Fate, Tap};

/// Decides what becomes of each HTTP answer, on all connections in the order in which answers are whole.
pub type Script = Box<dyn FnMut(&Exchange<'_>) -> Verdict + Send>;

/// What every connection meets, from the moment at which it is set. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub arrivals: Arrivals,
    /// From who connects to the target.
    pub up: Flow,
    /// From the target to who connects.
    pub down: Flow,
}

impl Faults {
    /// Nothing moves in either direction, and nobody is told: a link that hangs.
    pub const STALLED: Faults =
        Faults { arrivals: Arrivals::Forwarded, up: Flow::STALLED, down: Flow::STALLED };
}

/// What a connection that arrives meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    #[default]
    Forwarded,
    /// Reset at once.
    Refused,
    /// Accepted; what it sends is read and leads nowhere. Lasts as long as the connection.
    BlackHole,
}

/// What one direction of every connection meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Nothing is read and nothing passed on; what was sent waits in buffers.
    pub stalled: bool,
    /// Everything is read and nothing passed on.
    pub swallowed: bool,
    /// How long each byte is on its way, beside what it takes anyway.
    pub delay: Duration,
    pub drip: Option<Drip>,
    pub cut: Option<Cut>,
}

impl Flow {
    pub const STALLED: Flow =
        Flow { stalled: true, swallowed: false, delay: Duration::ZERO, drip: None, cut: None };
}

/// At most so many bytes at a time, and a pause after each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drip {
    pub bytes: usize,
    pub every: Duration,
}

/// The connection ends in this way once so many bytes of the direction have passed; at once if more have already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub after_bytes: u64,
    pub end: End,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both directions, each side sees a FIN.
    Close,
    /// Both sides see a reset; what they have not read yet may be lost.
    Reset,
    /// Only this direction: its receiver sees a FIN, what its sender still sends is swallowed.
    HalfClose,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub connections: u64,
    pub refused: u64,
    pub black_holes: u64,
    /// Bytes passed on.
    pub up_bytes: u64,
    pub down_bytes: u64,
    /// Bytes read and not passed on, both directions.
    pub swallowed_bytes: u64,
    /// Connections or directions that were ended by [`Cut`], [`Verdict::Cut`], [`Fate::Cut`] or on the test's word.
    pub cuts: u64,
    /// HTTP answers that a script decided on.
    pub answers: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    refused: AtomicU64,
    black_holes: AtomicU64,
    up_bytes: AtomicU64,
    down_bytes: AtomicU64,
    swallowed_bytes: AtomicU64,
    cuts: AtomicU64,
    answers: AtomicU64,
}

struct Shared {
    target: SocketAddr,
    faults: watch::Sender<Faults>,
    /// How often all connections were ended, and how the last time.
    ends: watch::Sender<(u64, End)>,
    script: Mutex<Option<Script>>,
    tap: Mutex<Option<Tap>>,
    counters: Counters,
}

impl Shared {
    fn with_script<T>(&self, work: impl FnOnce(&mut Option<Script>) -> T) -> T {
        // A script that panicked has failed its test already.
        work(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn fate(&self, chunk: &Chunk<'_>) -> Fate {
        let mut tap = self.tap.lock().unwrap_or_else(PoisonError::into_inner);
        tap.as_mut().map_or(Fate::Pass, |tap| tap(chunk))
    }
}

/// A proxy on a port of its own. Dropping it closes the port and every connection.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .field("target", &self.shared.target)
            .field("faults", &*self.shared.faults.borrow())
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.close_all();
    }
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1. The target is connected to anew for every connection, so it may come later.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            target,
            faults: watch::Sender::new(Faults::default()),
            ends: watch::Sender::new((0, End::Close)),
            script: Mutex::new(None),
            tap: Mutex::new(None),
            counters: Counters::default(),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Proxy { address, shared, accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// For a target that speaks plain HTTP.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replaces all faults.
    pub fn set(&self, faults: Faults) {
        self.shared.faults.send_replace(faults);
    }

    /// Changes some faults.
    pub fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.faults.send_modify(change);
    }

    /// Hands every HTTP answer from here on to `script`; an answer that is already on its way may still pass. A
    /// connection whose answers say neither length nor that they have no body passes untouched from the first such on.
    pub fn script(&self, script: impl FnMut(&Exchange<'_>) -> Verdict + Send + 'static) {
        self.shared.with_script(|held| *held = Some(Box::new(script)));
    }

    /// Lets answers pass again.
    pub fn unscript(&self) {
        self.shared.with_script(|held| *held = None);
    }

    /// Hands all bytes from here on to `tap`, which must not block.
    pub fn tap(&self, tap: impl FnMut(&Chunk<'_>) -> Fate + Send + 'static) {
        *self.shared.tap.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(tap));
    }

    /// Ends every open connection, with a FIN to both sides.
    pub fn close_all(&self) {
        self.shared.ends.send_modify(|ends| *ends = (ends.0 + 1, End::Close));
    }

    /// Ends every open connection, with a reset to both sides.
    pub fn reset_all(&self) {
        self.shared.ends.send_modify(|ends| *ends = (ends.0 + 1, End::Reset));
    }

    pub fn counts(&self) -> Counts {
        let counters = &self.shared.counters;
        Counts {
            connections: counters.connections.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            black_holes: counters.black_holes.load(Relaxed),
            up_bytes: counters.up_bytes.load(Relaxed),
            down_bytes: counters.down_bytes.load(Relaxed),
            swallowed_bytes: counters.swallowed_bytes.load(Relaxed),
            cuts: counters.cuts.load(Relaxed),
            answers: counters.answers.load(Relaxed),
        }
    }
}

/// The system refuses to accept only where it is short of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let number = shared.counters.connections.fetch_add(1, Relaxed);
        tokio::spawn(serve(client, number, shared.clone()));
    }
}

/// One connection, from its arrival to its end.
async fn serve(mut client: TcpStream, number: u64, shared: Arc<Shared>) {
    let mut ends = shared.ends.subscribe();
    let arrivals = shared.faults.borrow().arrivals;
    match arrivals {
        Arrivals::Refused => {
            shared.counters.refused.fetch_add(1, Relaxed);
            return reset(&client);
        }
        Arrivals::BlackHole => {
            shared.counters.black_holes.fetch_add(1, Relaxed);
            tokio::select! {
                () = swallow(&mut client, &shared) => {}
                _ = ends.changed() => {}
            }
            return;
        }
        Arrivals::Forwarded => {}
    }
    let Ok(mut target) = TcpStream::connect(shared.target).await else { return reset(&client) };
    // Both fail only if the socket has ended, which the pipes see.
    let _ = (client.set_nodelay(true), target.set_nodelay(true));
    let requests = Mutex::default();
    let (from_client, to_client) = client.split();
    let (from_target, to_target) = target.split();
    let up = Pipe::new(&shared, Direction::Up, number, &requests).run(from_client, to_target);
    let down = Pipe::new(&shared, Direction::Down, number, &requests).run(from_target, to_client);
    let end = tokio::select! {
        both = async { tokio::try_join!(up, down) } => both.err(),
        _ = ends.changed() => {
            shared.counters.cuts.fetch_add(1, Relaxed);
            Some(ends.borrow().1)
        }
    };
    if end == Some(End::Reset) {
        reset(&client);
        reset(&target);
    }
}

/// The socket's end will be a reset.
fn reset(socket: &TcpStream) {
    // Fails only if it has ended.
    let _ = socket.set_zero_linger();
}

/// Reads until the other side ends.
async fn swallow(from: &mut TcpStream, shared: &Shared) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        shared.counters.swallowed_bytes.fetch_add(bytes as u64, Relaxed);
    }
}

/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;
