//! Central and one edge as `up` runs them, in a folder of their own, with an edge that can be killed and restarted.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon_central::Central;
use carillon_client::{ClientTls, HttpTransport};
use carillon_edge::{Config as EdgeConfig, Edge};
use serde_json::Value;

use super::admin::Admin;
use super::error::DemoError;
use super::options::Options;
use crate::config::{ListenAt, Settings, Sources};
use crate::data::{DataError, DataFolder};
use crate::failure::Failure;
use crate::tiers::parts;

/// Where the edge's port is drawn from: below the ports that Linux (from 32768) and others give to connecting sockets.
/// A client that tries a dead port among those may be given that very port, connect to itself, and so take it from the
/// edge that comes back.
const PORTS: std::ops::Range<u64> = 20_000..32_000;
const PORTS_TRIED: usize = 200;
/// How long an edge may take until it serves, or has applied a write.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Tiers {
    central: Central,
    /// `None` between a kill and the restart.
    edge: Option<Edge>,
    edge_config: EdgeConfig,
    admin: Admin,
    tls: ClientTls,
    port: u16,
}

impl Tiers {
    /// Starts both; the edge has a world when this returns.
    pub(super) async fn start(folder: &Path, options: &Options) -> Result<Self, DemoError> {
        let port = free_port()?;
        let settings = settings(folder, options, port)?;
        let data = DataFolder::open(folder).map_err(Failure::Data)?;
        let made = parts::made(&settings, &data).map_err(Failure::Data)?;
        let config = parts::central(&settings, &made);
        let store = carillon_central::open_store(&config.store).await.map_err(Failure::Central)?;
        let central = Central::start(config, store).await.map_err(Failure::Central)?;
        let listens = central.addresses();
        let edge_config = EdgeConfig {
            sabotage: options.sabotage(),
            ..parts::edge_beside(&settings, &made, listens.link, &data).map_err(Failure::Data)?
        };
        let ca = std::fs::read(data.ca())
            .map_err(|source| Failure::Data(DataError::Read { path: data.ca(), source }))?;
        let mut tiers = Self {
            edge: Some(Edge::start(edge_config.clone()).map_err(Failure::Edge)?),
            central,
            edge_config,
            admin: Admin::new(listens.admin, made.admin_token),
            tls: ClientTls::with_roots(&ca)?,
            port,
        };
        tiers.edge_applied(0).await?;
        Ok(tiers)
    }

    pub(super) fn admin(&self) -> Admin {
        self.admin.clone()
    }

    /// The address that devices use, through all restarts.
    pub(super) fn devices(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Trust in the CA that signed the edge's certificate.
    pub(super) fn tls(&self) -> ClientTls {
        self.tls.clone()
    }

    /// Cuts all connections of the edge where they are.
    pub(super) async fn kill_edge(&mut self) -> Result<(), DemoError> {
        let Some(edge) = self.edge.take() else { return Ok(()) };
        let killed = tokio::task::spawn_blocking(move || edge.kill()).await;
        killed.map_err(|_| DemoError::Panicked("the edge"))?.map_err(Failure::StopEdge)?;
        Ok(())
    }

    /// Starts the edge again where it was; it takes a while until it has a world.
    pub(super) async fn restart_edge(&mut self) -> Result<(), DemoError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Edge::start(self.edge_config.clone()) {
                Ok(edge) => {
                    self.edge = Some(edge);
                    return Ok(());
                }
                // Somebody may hold the port for a moment.
                Err(error) if Instant::now() >= deadline => {
                    return Err(Failure::Edge(error).into());
                }
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Whether it has a world to answer from.
    pub(super) fn edge_is_ready(&self) -> bool {
        self.edge.as_ref().is_some_and(Edge::is_ready)
    }

    /// Waits until the edge serves a world with the change `seq`.
    pub(super) async fn edge_applied(&mut self, seq: u64) -> Result<(), DemoError> {
        let ops = self.edge.as_ref().and_then(|edge| edge.addresses().ops);
        let ops = ops.ok_or(DemoError::Panicked("the edge"))?;
        let url = format!("http://{ops}").parse().expect("an address makes a URL");
        let mut http = HttpTransport::new(url, None);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let request = http::Request::get("/readyz").body(Bytes::new()).expect("a request");
            // Whatever goes wrong here, the deadline tells.
            if let Ok(answer) = http.request(request, PATIENCE).await
                && answer.status().is_success()
                && let Ok(state) = serde_json::from_slice::<Value>(answer.body())
                && state["world_seq"].as_u64().is_some_and(|applied| applied >= seq)
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let what = format!("the edge has not applied change {seq}");
        Err(DemoError::Patience { seconds: PATIENCE.as_secs(), what })
    }

    /// Drains both.
    pub(super) async fn stop(self) -> Result<(), DemoError> {
        if let Some(edge) = self.edge {
            edge.stop().await.map_err(Failure::StopEdge)?;
        }
        self.central.stop().await.map_err(Failure::StopCentral)?;
        Ok(())
    }
}

/// The defaults, on loopback and free ports, with everything in `folder`.
fn settings(folder: &Path, options: &Options, port: u16) -> Result<Settings, DemoError> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut settings = Sources::default().load().map_err(Failure::Configuration)?.settings;
    settings.process.data = folder.to_owned();
    settings.central.listen = any;
    settings.central.stream_listen = any;
    settings.central.store.clone_from(&options.store);
    settings.edge.listen = ListenAt(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    settings.edge.ops_listen = ListenAt(Some(any));
    Ok(settings)
}

fn free_port() -> Result<u16, DemoError> {
    let drawn = std::iter::repeat_with(|| rand::random_range(PORTS)).take(PORTS_TRIED);
    drawn
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or(DemoError::NoPort)
}
