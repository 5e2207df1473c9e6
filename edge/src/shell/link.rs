//! The link to central: follows the shard, publishes its world, and carries devices' writes.
//!
//! One task on a thread of its own owns all of it, so nothing is locked. The rules of the stream are in
//! [`carillon_world::stream`]; here are the socket, the clock and the patience: connect over TLS, feed what comes,
//! write what the receiver wants written, and connect again when a link has ended, at random times that grow apart. An
//! edge never gives up and never stops serving what it has.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use carillon_world::ShardId;
use carillon_world::stream::{
    Action, FrameDecoder, FrameError, KeyPurpose, Keys, LinkToken, ReceiveError, Receiver,
    ReceiverConfig, RefusalCode, Unserved, encode,
};
use carillon_world::{DeviceReceipts, UpstreamReply, UpstreamRequest};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::state::{Call, Phase, Published, Shared};
use super::tls;
use crate::core::gather::Gather;
use crate::core::keys::{KeyRing, Purpose};
use crate::core::memory::Tightness;
use crate::{CentralConfig, EdgeError};

/// Bytes read at a time: a few records of TLS.
const READ_BYTES: usize = 64 * 1024;

/// No further frames are put behind what the socket has not taken yet, beyond this.
const OUT_BYTES_MAX: usize = 256 * 1024;

/// The first pause between two attempts is this part of the longest.
const BACKOFF_STEPS: u32 = 40;

/// Where central is, resolved to types before anything starts.
pub(super) struct Target {
    address: String,
    server_name: ServerName<'static>,
    connector: TlsConnector,
}

impl Target {
    /// # Errors
    /// If the address is no `host:port`, or nothing says whom to trust.
    pub(super) fn try_new(config: &CentralConfig) -> Result<Target, EdgeError> {
        let wrong = EdgeError::Config { what: "central.address: host:port" };
        let Some((host, port)) = config.address.rsplit_once(':') else { return Err(wrong) };
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(wrong);
        }
        let name =
            config.server_name.as_deref().unwrap_or(host).trim_matches(['[', ']']).to_owned();
        let server_name = ServerName::try_from(name);
        let server_name = server_name
            .map_err(|_| EdgeError::Config { what: "central.server_name: a host's name" })?;
        let connector = TlsConnector::from(Arc::new(tls::client_config(&config.trust)?));
        Ok(Target { address: config.address.clone(), server_name, connector })
    }
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    #[error("connect to central")]
    Connect(#[source] std::io::Error),
    #[error("central did not answer in time")]
    ConnectTimeout,
    #[error("central closed the link")]
    Closed,
    #[error("read or write")]
    Io(#[source] std::io::Error),
    #[error("central has been silent for too long")]
    Silent,
    #[error("what central sent is no frame")]
    Frame(#[from] FrameError),
    #[error("follow central")]
    Receive(#[from] ReceiveError),
}

/// Follows central on the present thread until the edge has stopped.
pub(super) fn run(
    shared: Arc<Shared>,
    target: Target,
    calls: mpsc::Receiver<Call>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut phase = shared.phase.subscribe();
    runtime.block_on(async {
        tokio::select! {
            _ = phase.wait_for(|phase| *phase >= Phase::Stopped) => {}
            () = Link::new(shared.clone(), target, calls).follow() => {}
        }
    });
    // A name that is being resolved is not waited for.
    runtime.shutdown_background();
    Ok(())
}

struct Link {
    shared: Arc<Shared>,
    target: Target,
    calls: mpsc::Receiver<Call>,
    receiver: Receiver,
    next_id: u64,
    /// Sent, not yet answered.
    waiting: HashMap<u64, Waiter>,
    receipts: Gather<oneshot::Sender<UpstreamReply>>,
    tightness: Tightness,
}

/// Who waits for a reply.
enum Waiter {
    One(oneshot::Sender<UpstreamReply>),
    /// Those whose receipts are under way.
    Receipts,
}

impl Link {
    fn new(shared: Arc<Shared>, target: Target, calls: mpsc::Receiver<Call>) -> Link {
        let config = ReceiverConfig {
            writes_max: shared.config.central.writes_max.get(),
            world_bytes_max: shared.world_bytes_max,
            ..ReceiverConfig::default()
        };
        let token = LinkToken::new(shared.config.central.token.expose().as_bytes().to_vec());
        let receiver = Receiver::new(config, ShardId::FIRST, token, shared.config.name.clone());
        let tightness = Tightness::new(shared.world_bytes_max);
        Link {
            shared,
            target,
            calls,
            receiver,
            next_id: 0,
            waiting: HashMap::new(),
            receipts: Gather::default(),
            tightness,
        }
    }

    async fn follow(mut self) {
        let longest = self.shared.config.central.backoff_max;
        let mut pause = longest / BACKOFF_STEPS;
        loop {
            let began = Instant::now();
            let Err(end) = self.attempt().await;
            let lasted = began.elapsed();
            self.close();
            let error = &end as &dyn std::error::Error;
            match &end {
                LinkEnd::Receive(ReceiveError::Refused { code: RefusalCode::TOKEN, .. }) => {
                    tracing::error!(error, "central refuses this edge's token");
                }
                LinkEnd::Receive(ReceiveError::NoRoom { needed, available }) => {
                    self.shared.set_needed(Some(*needed));
                    tracing::error!(
                        needed_bytes = needed,
                        available_bytes = available,
                        "central's world needs more memory than there is for it: not ready; tried again later"
                    );
                }
                _ => tracing::warn!(error, "link to central ended"),
            }
            if lasted > longest {
                pause = longest / BACKOFF_STEPS;
            }
            tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// One connection, from its beginning to its end.
    async fn attempt(&mut self) -> Result<std::convert::Infallible, LinkEnd> {
        let connected =
            tokio::time::timeout(self.shared.config.central.connect_timeout, self.connect()).await;
        let stream = connected.map_err(|_| LinkEnd::ConnectTimeout)?.map_err(LinkEnd::Connect)?;
        self.receiver.handle_connected(Instant::now());
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut decoder = FrameDecoder::new(self.receiver.frame_bytes_max());
        let mut buffer = vec![0; READ_BYTES];
        let mut out = BytesMut::new();
        let mut unflushed = false;
        loop {
            let now = Instant::now();
            while out.len() < OUT_BYTES_MAX
                && let Some(frame) = self.receiver.poll_frame(now)
            {
                out.extend_from_slice(&encode(&frame));
            }
            self.note_live(now);
            let live = self.shared.is_live();
            // A frame that is due cannot go while `out` is full: waiting for it would be spinning.
            let deadline = if out.len() < OUT_BYTES_MAX {
                self.receiver.poll_timeout()
            } else {
                self.receiver.silent_at()
            };
            let deadline = deadline.unwrap_or(now + Duration::from_secs(1));
            let mut timer = pin!(tokio::time::sleep_until(deadline.into()));
            tokio::select! {
                read = reader.read(&mut buffer) => match read {
                    Ok(0) => return Err(LinkEnd::Closed),
                    Ok(bytes) => {
                        decoder.feed(&buffer[..bytes]);
                        while let Some((frame, bytes)) = decoder.next_frame()? {
                            let now = Instant::now();
                            let action = self.receiver.handle_frame(now, frame, bytes)?;
                            // First, so that no world is served as if central were out of reach.
                            self.note_live(now);
                            self.act(action);
                        }
                    }
                    Err(error) => return Err(LinkEnd::Io(error)),
                },
                pushed = push(&mut writer, &mut out, &mut unflushed), if !out.is_empty() || unflushed => {
                    pushed.map_err(LinkEnd::Io)?;
                }
                call = self.calls.recv(), if live && self.has_room() => {
                    if let Some(call) = call {
                        self.send(call);
                    }
                }
                () = timer.as_mut() => {
                    if !self.receiver.live(Instant::now()) {
                        return Err(LinkEnd::Silent);
                    }
                }
            }
        }
    }

    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(&self.target.address).await?;
        stream.set_nodelay(true)?;
        self.target.connector.connect(self.target.server_name.clone(), stream).await
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Nothing => {}
            Action::Publish { world, applied, snapshot } => {
                let changes = if snapshot {
                    self.shared.metrics.snapshots.inc();
                    tracing::info!(seq = world.seq().get(), "world taken from a snapshot");
                    Published::Everything
                } else {
                    Published::Applied(Arc::new(applied))
                };
                self.note_usage(world.usage().total());
                self.shared.publish(world, changes);
            }
            Action::Unserve(Unserved::NoRoom) => {
                tracing::error!(
                    available_bytes = self.shared.world_bytes_max,
                    "there is no room for the world served beside the snapshot that comes; nothing is served until it is whole"
                );
                self.shared.withdraw();
            }
            Action::Unserve(Unserved::CutOff) => {
                tracing::error!(
                    "a restore cut this edge's world off; it serves nothing until it has the restored one"
                );
                self.shared.withdraw();
            }
            Action::Keys(keys) => self.shared.keys.store(Arc::new(ring(keys))),
            Action::Reply { id, body } => {
                // A device that gave up is not there to be told.
                let Some(waiter) = self.waiting.remove(&id) else { return };
                match (UpstreamReply::decode(&body), waiter) {
                    (Ok(reply), Waiter::One(asker)) => {
                        let _ = asker.send(reply);
                    }
                    (Ok(reply), Waiter::Receipts) => {
                        for (asker, own) in self.receipts.handle_reply(&reply) {
                            let _ = asker.send(own);
                        }
                        self.send_receipts();
                    }
                    (Err(error), waiter) => {
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "central's reply cannot be read"
                        );
                        if let Waiter::Receipts = waiter {
                            drop(self.receipts.handle_lost());
                            self.send_receipts();
                        }
                    }
                }
            }
        }
    }

    fn note_usage(&mut self, bytes: u64) {
        let available_bytes = self.shared.world_bytes_max;
        match self.tightness.handle_usage(bytes) {
            Some(true) => tracing::warn!(
                bytes,
                available_bytes,
                "the world takes more than 90 % of the memory that there is for it"
            ),
            Some(false) => {
                tracing::info!(bytes, available_bytes, "there is room for the world again");
            }
            None => {}
        }
    }

    fn note_live(&mut self, now: Instant) {
        let live = self.receiver.live(now);
        if live && !self.shared.is_live() {
            self.shared.metrics.link_connects.inc();
            tracing::info!("link to central is up");
        }
        self.shared.set_live(live);
        if let Some(lag) = self.receiver.lag() {
            self.shared.metrics.world_lag_changes.set(lag.try_into().unwrap_or(i64::MAX));
        }
    }

    /// Whether another write may be sent. Those whose devices gave up no longer count here.
    fn has_room(&mut self) -> bool {
        let most = self.shared.config.central.writes_max.get();
        if self.waiting.len() >= most {
            self.waiting.retain(|_, waiter| match waiter {
                Waiter::One(asker) => !asker.is_closed(),
                Waiter::Receipts => true,
            });
        }
        self.waiting.len() + self.receipts.len() < most
    }

    fn send(&mut self, Call { request, reply }: Call) {
        match request {
            UpstreamRequest::Receipts { app, device, generation, receipts } => {
                self.receipts.push(DeviceReceipts { app, device, generation, receipts }, reply);
                self.send_receipts();
            }
            // Where there is no room the call is dropped, which its device hears as an unknown outcome.
            request => drop(self.queue(&request, Waiter::One(reply))),
        }
    }

    /// The next receipts, if none are under way.
    fn send_receipts(&mut self) {
        while let Some(request) = self.receipts.poll_request() {
            if !self.queue(&request, Waiter::Receipts) {
                drop(self.receipts.handle_lost());
            }
        }
    }

    /// Whether there was room for it.
    fn queue(&mut self, request: &UpstreamRequest, waiter: Waiter) -> bool {
        let id = self.next_id;
        self.next_id += 1;
        let queued = self.receiver.queue_write(id, request.encode()).is_ok();
        if queued {
            self.waiting.insert(id, waiter);
        }
        queued
    }

    /// Ends what the connection began: no reply will come.
    fn close(&mut self) {
        self.receiver.handle_disconnected();
        self.shared.set_live(false);
        self.waiting.clear();
        self.receipts.clear();
        while self.calls.try_recv().is_ok() {}
    }
}

/// Writes some of `out`, or flushes what was written. Cancel safe: what the socket took is gone from `out`.
async fn push(
    writer: &mut (impl AsyncWrite + Unpin),
    out: &mut BytesMut,
    unflushed: &mut bool,
) -> std::io::Result<()> {
    if out.is_empty() {
        writer.flush().await?;
        *unflushed = false;
    } else {
        let taken = writer.write(out).await?;
        if taken == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        out.advance(taken);
        *unflushed = true;
    }
    Ok(())
}

fn ring(keys: Keys) -> KeyRing {
    let purpose = |purpose| match purpose {
        KeyPurpose::Session => Purpose::Session,
        KeyPurpose::Cursor => Purpose::Cursor,
        KeyPurpose::Ticket => Purpose::Ticket,
    };
    KeyRing::new(
        keys.seal_day,
        keys.keys.into_iter().map(|key| (purpose(key.purpose), key.day, key.key.0)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trust;

    #[test]
    fn central_is_a_host_and_a_port() {
        let target = |address: &str| {
            let trust = Trust::Pinned([0; 32]);
            Target::try_new(&CentralConfig {
                address: address.into(),
                trust,
                ..CentralConfig::default()
            })
        };
        for good in ["127.0.0.1:7701", "central.example:1", "[::1]:7701"] {
            assert!(target(good).is_ok(), "{good}");
        }
        for bad in ["", "central", ":7701", "central:", "central:99999", "cen tral:1"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
