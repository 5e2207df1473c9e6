//! From settings to running tiers, and from a signal to their end.
//!
//! `up` runs both tiers in one process, but they meet as two machines would: over TLS, with a token,
//! and nothing in memory is shared.

mod greeting;
mod loading;
pub(crate) mod parts;

use std::future;

use carillon_central::{Central, CentralError};
use carillon_edge::Edge;

use self::greeting::Greeting;
use crate::config::Settings;
use crate::data::DataFolder;
use crate::exporter::{Exporter, Scrape};
use crate::failure::{Failure, say};
use crate::signals::Signals;

/// What of Carillon a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tiers {
    Both,
    Central,
    Edge,
}

/// Runs until a signal comes, then drains.
///
/// # Errors
/// A tier cannot start or gives up, or a second signal came before all was drained.
pub(crate) async fn run(tiers: Tiers, settings: &Settings) -> Result<(), Failure> {
    let mut signals = Signals::catch().map_err(Failure::Signals)?;
    let mut running = tokio::select! {
        running = Running::start(tiers, settings) => running?,
        signal = signals.next() => {
            tracing::info!(signal, "ended while starting");
            return Ok(());
        }
    };
    let signal = tokio::select! {
        error = running.failed() => return Err(Failure::RunCentral(error)),
        signal = signals.next() => signal,
    };
    tracing::info!(signal, "draining");
    tokio::select! {
        stopped = running.stop() => stopped,
        _ = signals.next() => Err(Failure::Hurried),
    }
}

/// The tiers of this process.
#[derive(Debug)]
struct Running {
    central: Option<Central>,
    edge: Option<Edge>,
    _exporter: Exporter,
}

impl Running {
    async fn start(tiers: Tiers, settings: &Settings) -> Result<Self, Failure> {
        if tiers == Tiers::Edge {
            let edge = Edge::start(parts::edge(settings)).map_err(Failure::Edge)?;
            return Ok(Self::of(settings, None, Some(edge)));
        }
        let data = DataFolder::open(&settings.process.data)?;
        let made = parts::made(settings, &data)?;
        let mut config = parts::central(settings, &made);
        config.store.on_loading = loading::bar();
        let store = carillon_central::open_store(&config.store).await.map_err(Failure::Central)?;
        let central = Central::start(config, store).await.map_err(Failure::Central)?;
        let listens = central.addresses();
        tracing::info!(admin = %listens.admin, stream = %listens.link, "central listens");
        if tiers == Tiers::Central {
            return Ok(Self::of(settings, Some(central), None));
        }
        let config = parts::edge_beside(settings, &made, listens.link, &data)?;
        let edge = Edge::start(config).map_err(Failure::Edge)?;
        let admin_token = data.file(parts::ADMIN_TOKEN);
        let greeting = Greeting {
            data: &settings.process.data,
            admin: parts::reachable(listens.admin),
            stream: listens.link,
            devices: edge.addresses().tls.map(parts::reachable),
            devices_plain: edge.addresses().http.map(parts::reachable),
            ops: edge.addresses().ops.map(parts::reachable),
            admin_token: settings.central.admin_token.is_none().then_some(&admin_token),
            ca: settings.edge.certificate_file.is_none().then(|| data.ca()),
        };
        say(&greeting.text())?;
        Ok(Self::of(settings, Some(central), Some(edge)))
    }

    fn of(settings: &Settings, central: Option<Central>, edge: Option<Edge>) -> Self {
        let of_central = central.iter().map(|central| Scrape::new(central.metrics()));
        let of_edge = edge.iter().map(|edge| Scrape::new(edge.metrics()));
        let scrapes: Vec<Scrape> = of_central.chain(of_edge).collect();
        let _exporter = Exporter::start(&settings.metrics, &scrapes);
        Self { central, edge, _exporter }
    }

    /// Waits for a tier to give up by itself. Cancel safe.
    async fn failed(&mut self) -> CentralError {
        match &mut self.central {
            Some(central) => central.failed().await,
            // What fails in a running edge it repairs or reports; it does not end.
            None => future::pending().await,
        }
    }

    /// The edge first, so that the writes of its devices still find central.
    async fn stop(self) -> Result<(), Failure> {
        if let Some(edge) = self.edge {
            edge.stop().await.map_err(Failure::StopEdge)?;
        }
        if let Some(central) = self.central {
            central.stop().await.map_err(Failure::StopCentral)?;
        }
        tracing::info!("stopped");
        Ok(())
    }
}
