//! The links to edges: one task each, around the stream's sender. A link holds no queue of its own: what it sends next
//! is read from the shared change log when the last piece is written.

mod upstream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use carillon_world::stream::{FrameDecoder, RefusalCode, Sender, SenderEvent};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::shared::{Phase, Shared, reached};
use super::write_handle::WriteHandle;
use crate::config::LinkConfig;
use crate::core::auth::Token;
use crate::core::keys::{RootSecret, day_of};

/// Bytes taken from the log at a time: one write to the socket.
const PIECE_BYTES: usize = 256 * 1024;
const READ_BYTES: usize = 64 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every link has.
#[derive(Clone)]
pub(super) struct Links {
    pub(super) config: LinkConfig,
    pub(super) token: Token,
    pub(super) root: RootSecret,
    pub(super) acceptor: TlsAcceptor,
    pub(super) shared: Arc<Shared>,
    pub(super) writes: WriteHandle,
}

impl Links {
    /// Accepts edges until central drains; links end when it closes.
    pub(super) async fn serve(self, listener: TcpListener, mut phase: watch::Receiver<Phase>) {
        let slots = Arc::new(Semaphore::new(self.config.links_max.get()));
        let mut links = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = reached(&mut phase, Phase::Draining) => break,
                accepted = listener.accept() => accepted,
            };
            while links.try_join_next().is_some() {}
            let socket = match accepted {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "accept on the stream's listener");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Beyond the limit a connection is closed at once: its edge tries again, perhaps elsewhere.
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                self.shared.metrics.links_refused.inc();
                continue;
            };
            let (links_of, phase) = (self.clone(), phase.clone());
            links.spawn(async move {
                links_of.run(socket, phase).await;
                drop(slot);
            });
        }
        drop(listener);
        while links.join_next().await.is_some() {}
    }

    async fn run(self, socket: TcpStream, mut phase: watch::Receiver<Phase>) {
        let peer = socket.peer_addr().ok();
        // Frames are whole when they are written; waiting for more would only delay them.
        let _ = socket.set_nodelay(true);
        let handshake =
            tokio::time::timeout(self.config.hello_timeout, self.acceptor.accept(socket));
        let stream = tokio::select! {
            () = reached(&mut phase, Phase::Closing) => return,
            done = handshake => match done {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(?peer, %error, "TLS of a link failed"),
                Err(_) => return tracing::debug!(?peer, "TLS of a link took too long"),
            },
        };
        let (shared, hello_timeout) = (self.shared.clone(), self.config.hello_timeout);
        let mut link = Link::new(self, stream);
        let counted = Counted::new(&shared);
        let ended = link.serve(hello_timeout, phase).await;
        drop(counted);
        match ended {
            Ok(()) => tracing::info!(?peer, edge = link.edge.as_deref(), "a link ended"),
            Err(reason) => {
                tracing::info!(?peer, edge = link.edge.as_deref(), reason, "a link was closed")
            }
        }
    }
}

/// Counts a link for as long as it lives, however it ends.
struct Counted<'a>(&'a Shared);

impl Counted<'_> {
    fn new(shared: &Shared) -> Counted<'_> {
        shared.metrics.links.inc();
        Counted(shared)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.links.dec();
    }
}

/// One edge.
struct Link {
    links: Links,
    stream: TlsStream<TcpStream>,
    sender: Sender,
    decoder: FrameDecoder,
    /// What goes out next; not refilled until it is written.
    out: Bytes,
    /// Whether TLS may hold bytes that were written.
    unflushed: bool,
    /// Close when `out` is written.
    closing: bool,
    /// Writes of the edge that wait for the writer; the sender bounds how many.
    writes: FuturesUnordered<BoxFuture<'static, (u64, Bytes)>>,
    /// The day whose keys the edge has.
    keys_of: Option<u32>,
    edge: Option<String>,
}

/// Writes some of `bytes`, or flushes what was written if there are none. Cancel safe: one step a call.
async fn push(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<usize> {
    if bytes.is_empty() { writer.flush().await.map(|()| 0) } else { writer.write(bytes).await }
}

type Ended = Result<(), String>;

impl Link {
    fn new(links: Links, stream: TlsStream<TcpStream>) -> Link {
        let sender = Sender::new(links.config.sender.clone(), links.shared.shard, Instant::now());
        let decoder = FrameDecoder::new(sender.frame_bytes_max());
        Link {
            links,
            stream,
            sender,
            decoder,
            out: Bytes::new(),
            unflushed: false,
            closing: false,
            writes: FuturesUnordered::new(),
            keys_of: None,
            edge: None,
        }
    }

    /// Serves until either side ends it. A write to the socket never keeps the link from reading, else both ends could
    /// wait for each other.
    async fn serve(&mut self, hello_timeout: Duration, mut phase: watch::Receiver<Phase>) -> Ended {
        let mut published = self.links.shared.subscribe();
        let hello_by = Instant::now() + hello_timeout;
        let mut read = BytesMut::with_capacity(READ_BYTES);
        loop {
            self.fill();
            if self.closing && self.out.is_empty() && !self.unflushed {
                let _ = self.stream.shutdown().await;
                return Ok(());
            }
            // A heartbeat that is due cannot go before what is in `out`: waiting for it would be spinning.
            let wake = if self.out.is_empty() {
                self.sender.poll_timeout()
            } else {
                self.sender.silent_at()
            };
            let wake = if self.edge.is_none() { wake.min(hello_by) } else { wake };
            let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
            tokio::select! {
                pushed = push(&mut writer, &self.out), if !self.out.is_empty() || self.unflushed => {
                    self.unflushed = !self.out.is_empty();
                    self.out.advance(pushed.map_err(|e| e.to_string())?);
                }
                got = reader.read_buf(&mut read) => {
                    if got.map_err(|e| e.to_string())? == 0 {
                        return Ok(());
                    }
                    self.handle_bytes(&read)?;
                    read.clear();
                }
                Some((id, reply)) = self.writes.next() => {
                    self.sender.queue_reply(id, reply).map_err(|e| e.to_string())?;
                }
                changed = published.changed(), if self.out.is_empty() => {
                    changed.map_err(|_| "central ended".to_owned())?;
                }
                () = tokio::time::sleep_until(wake.into()) => {
                    let now = Instant::now();
                    self.sender.handle_timeout(now).map_err(|e| e.to_string())?;
                    if self.edge.is_none() && now >= hello_by {
                        return Err("no hello in time".to_owned());
                    }
                }
                () = reached(&mut phase, Phase::Closing), if self.writes.is_empty() => {
                    if self.out.is_empty() && !self.unflushed {
                        return Ok(());
                    }
                    self.closing = true;
                    // What is left goes out; the wait is bounded by the drain's deadline.
                    self.write_rest().await?;
                    return Ok(());
                }
            }
        }
    }

    async fn write_rest(&mut self) -> Ended {
        let rest = std::mem::take(&mut self.out);
        self.stream.write_all(&rest).await.map_err(|e| e.to_string())?;
        self.stream.flush().await.map_err(|e| e.to_string())
    }

    /// Takes the next piece from the sender once the last one is written.
    fn fill(&mut self) {
        if !self.out.is_empty() || self.closing {
            return;
        }
        let now = Instant::now();
        let clock = self.links.shared.clock.now();
        if self.edge.is_some() && self.keys_of != Some(day_of(clock)) {
            self.keys_of = Some(day_of(clock));
            self.sender.queue_keys(self.links.root.keys(clock));
        }
        let shared = self.links.shared.clone();
        // The log first: a world is published before its last batch is in the log, so this world is not older.
        let log = shared.log();
        let world = shared.world();
        let mut piece = BytesMut::new();
        while piece.len() < PIECE_BYTES {
            let Some(outgoing) = self.sender.poll_frame(now, clock, &log, &world) else { break };
            if outgoing.close {
                self.closing = true;
            }
            if piece.is_empty() && outgoing.bytes.len() >= PIECE_BYTES / 4 {
                // A large frame goes as it is, shared with every other link.
                self.out = outgoing.bytes;
                return;
            }
            piece.extend_from_slice(&outgoing.bytes);
            if self.closing {
                break;
            }
        }
        self.out = piece.freeze();
    }

    fn handle_bytes(&mut self, bytes: &[u8]) -> Ended {
        self.decoder.feed(bytes);
        while let Some((frame, _)) = self.decoder.next_frame().map_err(|e| e.to_string())? {
            let event =
                self.sender.handle_frame(Instant::now(), frame).map_err(|e| e.to_string())?;
            if let Some(event) = event {
                self.handle_event(event);
            }
            self.decoder.set_limit(self.sender.frame_bytes_max());
        }
        Ok(())
    }

    fn handle_event(&mut self, event: SenderEvent) {
        match event {
            SenderEvent::Hello { token, edge, at } => {
                if self.links.token.is(token.as_bytes()) {
                    tracing::info!(edge, at = at.map(|at| at.seq.get()), "an edge is linked");
                    self.edge = Some(edge);
                    self.sender.accept();
                } else {
                    tracing::warn!(edge, "an edge came with another token");
                    self.links.shared.metrics.links_refused.inc();
                    self.edge = Some(edge);
                    self.sender.refuse(RefusalCode::TOKEN, "not the token of this link");
                }
            }
            SenderEvent::Write { id, body } => {
                let writes = self.links.writes.clone();
                self.writes
                    .push(Box::pin(async move { (id, upstream::answer(&writes, &body).await) }));
            }
        }
    }
}
