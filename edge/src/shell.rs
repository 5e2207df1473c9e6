//! The edge's sockets, threads and clocks.
//!
//! | thread | does |
//! | --- | --- |
//! | `edge-core-N` | accepts and serves devices; as many as cores, nothing shared on a request's way |
//! | `edge-link` | follows central, publishes worlds, carries writes |
//! | `edge-ops` | health, metrics, the certificate's files |
//!
//! Stopping has two phases: all are told to drain, then after a deadline what is left is dropped.

mod cores;
mod handler;
mod link;
mod listen;
mod memory;
mod ops;
mod state;
mod tls;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use self::cores::Listener;
use self::state::{Phase, Shared};
use self::tls::Certificate;
use crate::{Config, EdgeError};

/// How often a stopping edge looks whether its cores are done.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// Runs an edge until `shutdown` is done, then drains it.
///
/// # Errors
/// If it cannot start, or one of its threads panicked.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), EdgeError> {
    let edge = Edge::start(config)?;
    shutdown.await;
    edge.stop().await
}

/// Where an edge listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub tls: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub ops: Option<SocketAddr>,
}

/// A running edge. Dropping it kills it: connections are cut where they are.
#[derive(Debug)]
pub struct Edge {
    shared: Arc<Shared>,
    certificate: Option<Arc<Certificate>>,
    addresses: Addresses,
    cores: Vec<JoinHandle<()>>,
    /// The link and the ops listener, which outlive the cores.
    others: Vec<JoinHandle<()>>,
}

impl Edge {
    /// Binds its addresses and starts its threads. It serves devices as soon as central has given it a world; until
    /// then they get 503.
    ///
    /// # Errors
    /// If configuration, certificates or addresses cannot be used.
    pub fn start(config: Config) -> Result<Edge, EdgeError> {
        config.check()?;
        let cores = config
            .cores
            .or_else(|| std::thread::available_parallelism().ok())
            .map_or(1, |n| n.get());
        let link = link::Target::try_new(&config.central)?;
        let bind =
            |address: Option<SocketAddr>| address.map(|a| listen::bind(a, cores)).transpose();
        let tls = bind(config.listen.tls)?;
        let http = bind(config.listen.http)?;
        let ops = config.listen.ops.map(|address| listen::bind(address, 1)).transpose()?;
        let certificate = match &tls {
            Some(_) => Some(Arc::new(Certificate::load(config.listen.certificate.clone())?)),
            None => None,
        };
        let (calls, queue) = mpsc::channel(config.central.writes_max.get());
        let memory_max = config.memory_max.or_else(memory::limit);
        let world_bytes_max = memory_max.map_or(u64::MAX, crate::core::memory::for_worlds);
        tracing::info!(memory_max, world_bytes_max, "memory for worlds");
        let shared = Shared::new(config, cores, calls, world_bytes_max);
        let server_config = certificate
            .clone()
            .map(|c| tls::server_config(c, shared.clone()))
            .transpose()?
            .map(Arc::new);
        let addresses = Addresses { tls: first(&tls), http: first(&http), ops: first(&ops) };
        if let (Some(certificate), None) = (&certificate, &shared.config.listen.certificate) {
            let sha256 = tls::fingerprint(&certificate.leaf());
            tracing::warn!(sha256, "no certificate is configured; made one for development");
        }
        let mut edge = Edge {
            shared: shared.clone(),
            certificate,
            addresses,
            cores: Vec::new(),
            others: Vec::new(),
        };
        let mut tls = tls.unwrap_or_default().into_iter();
        let mut http = http.unwrap_or_default().into_iter();
        for index in 0..cores {
            let secure =
                tls.next().map(|listener| Listener { listener, tls: server_config.clone() });
            let plain = http.next().map(|listener| Listener { listener, tls: None });
            let listeners = secure.into_iter().chain(plain).collect();
            let shared = shared.clone();
            let work = move || cores::run(shared, index, listeners);
            edge.cores.push(spawn("edge-core", format!("edge-core-{index}"), work)?);
        }
        let (shared, certificate) = (edge.shared.clone(), edge.certificate.clone());
        let ops = ops.and_then(|listeners| listeners.into_iter().next());
        edge.others.push(spawn("edge-ops", "edge-ops".into(), move || {
            ops::run(shared, certificate, ops)
        })?);
        let shared = edge.shared.clone();
        edge.others
            .push(spawn("edge-link", "edge-link".into(), move || link::run(shared, link, queue))?);
        let Addresses { tls, http, ops } = addresses;
        tracing::info!(?tls, ?http, ?ops, cores, "edge listens");
        Ok(edge)
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// SHA-256 of the certificate that devices are shown, in hexadecimal; `None` without a TLS listener.
    pub fn certificate_fingerprint(&self) -> Option<String> {
        self.certificate.as_ref().map(|certificate| tls::fingerprint(&certificate.leaf()))
    }

    /// The certificate that devices are shown, DER; `None` without a TLS listener.
    pub fn certificate_der(&self) -> Option<Vec<u8>> {
        self.certificate.as_ref().map(|certificate| certificate.leaf().to_vec())
    }

    /// Reads the certificate's files again; they are also read when they change.
    ///
    /// # Errors
    /// If they cannot be used; what was shown before stays.
    pub fn reload_certificate(&self) -> Result<(), EdgeError> {
        self.certificate.as_ref().map_or(Ok(()), |certificate| certificate.reload())
    }

    /// What gives the text that `/metrics` answers, for as long as anybody asks it.
    pub fn metrics(&self) -> impl Fn() -> String + Send + Sync + use<> {
        let scrape = ops::Scrape::new(self.shared.clone());
        move || scrape.text()
    }

    /// Whether devices are answered: there are a world and keys.
    pub fn is_ready(&self) -> bool {
        self.shared.world.load().is_some() && self.shared.keys.load().can_seal()
    }

    /// Stops accepting, answers parked polls spread over [`Config::drain_spread`], finishes requests, and ends at
    /// latest after [`Config::drain_max`]. If the future is dropped the edge is killed.
    ///
    /// # Errors
    /// If one of its threads panicked.
    pub async fn stop(mut self) -> Result<(), EdgeError> {
        let deadline = Instant::now() + self.shared.config.drain_max;
        self.shared.phase.send_replace(Phase::Draining);
        tracing::info!("edge drains");
        while self.cores.iter().any(|core| !core.is_finished()) && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        self.end()
    }

    /// Cuts every connection where it is, as a crash would.
    ///
    /// # Errors
    /// If one of its threads panicked.
    pub fn kill(mut self) -> Result<(), EdgeError> {
        self.end()
    }

    /// Tells all threads to stop and waits for them: each looks at the phase between any two things that it does.
    fn end(&mut self) -> Result<(), EdgeError> {
        self.shared.phase.send_replace(Phase::Stopped);
        let mut panicked = Ok(());
        for thread in self.cores.drain(..).chain(self.others.drain(..)) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                panicked = Err(EdgeError::Panicked { name });
            }
        }
        panicked
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(error = &error as &dyn std::error::Error, "edge stopped");
        }
    }
}

fn first(listeners: &Option<Vec<TcpListener>>) -> Option<SocketAddr> {
    listeners.as_ref()?.first()?.local_addr().ok()
}

fn spawn(
    kind: &'static str,
    name: String,
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> Result<JoinHandle<()>, EdgeError> {
    let body = move || {
        if let Err(error) = work() {
            tracing::error!(%error, thread = kind, "thread ended");
        }
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(body)
        .map_err(|source| EdgeError::Thread { name: kind, source })
}
