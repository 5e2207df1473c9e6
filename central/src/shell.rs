//! Sockets, tasks and the store around the core.
//!
//! ```text
//!  admin API ─┐                      ┌─▶ store
//!             ├─▶ writer task ───────┤
//!  links ─────┘   (owns the shard)   └─▶ published world, change log ─▶ links
//! ```
//!
//! Stopping has two phases: listeners close and requests under way finish, then the writer's queue is emptied and the
//! links close; all of it before a deadline.

mod api;
pub mod callbacks;
pub mod channel;
mod clock;
mod history;
mod http;
mod link;
mod loading;
mod opening;
pub mod outbound;
mod pusher;
mod random;
mod shared;
mod threads;
mod tls;
mod witness;
mod write_handle;
mod writer_task;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use carillon_persist::{AnyStore, Store};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::api::{Api, CallbackDoor};
use self::callbacks::{CallbackSender, Callbacks, LogReader};
use self::channel::Providers;
use self::history::Publisher;
use self::link::Links;
use self::pusher::{Opener, Pusher};
use self::shared::{Phase, Shared};
use self::threads::Threads;
use self::writer_task::WriterTask;
use crate::config::Config;
use crate::error::CentralError;

pub use self::loading::{LoadProgress, OnLoading};
pub use self::opening::open_store;

/// Where central listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub admin: SocketAddr,
    pub link: SocketAddr,
    pub ops: Option<SocketAddr>,
}

/// The OpenAPI document of the admin API, as JSON.
pub fn openapi() -> &'static str {
    api::openapi()
}

/// A central that runs. Dropping it stops it without draining.
#[derive(Debug)]
pub struct Central {
    addresses: Addresses,
    phase: watch::Sender<Phase>,
    /// `None` once its end was seen.
    writer: Option<JoinHandle<Result<(), CentralError>>>,
    servers: Vec<(&'static str, JoinHandle<()>)>,
    drain_max: Duration,
    shared: Arc<Shared>,
    /// Of what `servers` calls the pusher; they end with this value.
    _push_threads: Threads,
}

impl Central {
    /// Takes the shard, loads it, and listens. When this returns, every listener is bound and writes are taken.
    ///
    /// # Errors
    /// If the configuration is not whole, a port is taken, or the store refuses.
    pub async fn start<S: Store + 'static>(
        config: Config,
        mut store: S,
    ) -> Result<Central, CentralError> {
        let mut config = config;
        config.writer.history = config.history.as_ref().map(|plan| plan.told);
        config.writer.callbacks.endpoints_max = config.callbacks.endpoints_max;
        let faults = config.faults();
        let (Some(root), Some(link_token), Some(identity), true) = (
            config.root_secret.clone(),
            config.link.token.clone(),
            &config.link.identity,
            faults.is_empty(),
        ) else {
            return Err(CentralError::Config(faults));
        };
        let acceptor = tls::acceptor(identity)?;
        // Bound before the shard is taken, so that a port in use deposes nobody.
        let admin = bind(config.admin.listen).await?;
        let link = bind(config.link.listen).await?;
        let ops = match config.ops_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let addresses = Addresses {
            admin: local(&admin, config.admin.listen)?,
            link: local(&link, config.link.listen)?,
            ops: match (&ops, config.ops_listen) {
                (Some(listener), Some(address)) => Some(local(listener, address)?),
                _ => None,
            },
        };
        let opened = opening::open_shard(&config, &mut store).await?;
        let phase = watch::Sender::new(Phase::Running);
        let is_heard = opened.is_heard;
        let shared = Arc::new(Shared::new(&config, &opened));
        let opener = Arc::new(Opener {
            providers: Providers::new(config.providers.clone(), config.store.clone())?,
            keys: config.credential_keys.clone(),
        });
        let callback_sender =
            Arc::new(CallbackSender::new(&config.callbacks, config.credential_keys.clone())?);
        // Without a history nothing is told that anybody could be called for.
        let (reader, asks) = LogReader::new();
        let asks = config.history.as_ref().map(|_| asks);
        let (writes, task) =
            WriterTask::new(&config, shared.clone(), store, opened, phase.subscribe());
        let writer = tokio::spawn(task.run());

        let mut servers = Vec::new();
        let api = Api::new(
            shared.clone(),
            writes.clone(),
            config.admin.clone(),
            config.credential_keys.clone(),
            CallbackDoor {
                sender: callback_sender.clone(),
                reader: asks.as_ref().map(|_| reader.clone()),
            },
        );
        if let Some(listener) = ops {
            let router = api::ops_router(api.clone());
            let server = http::serve(
                listener,
                router,
                shared.clone(),
                config.admin.clone(),
                phase.subscribe(),
            );
            servers.push(("ops", tokio::spawn(server)));
        }
        let server = http::serve(
            admin,
            api::router(api),
            shared.clone(),
            config.admin.clone(),
            phase.subscribe(),
        );
        servers.push(("admin", tokio::spawn(server)));
        let pusher = Pusher {
            shared: shared.clone(),
            writes: writes.clone(),
            config: config.pusher,
            opener,
        };
        let push_threads = Threads::start("carillon-push", config.pusher.threads)?;
        servers.push(("pusher", push_threads.spawn(pusher.run(phase.subscribe()))));
        if let Some(asks) = asks {
            let callbacks = Callbacks {
                shared: shared.clone(),
                writes: writes.clone(),
                config: config.callbacks.clone(),
                sender: callback_sender,
                store: config.store.clone(),
                reader,
                asks,
            };
            let phase = phase.subscribe();
            let running = threads::run("carillon-calls", || callbacks.run(phase))?;
            servers.push(("callbacks", running));
        }
        if let Some(plan) = config.history.clone() {
            let publisher = Publisher {
                shared: shared.clone(),
                writes: writes.clone(),
                plan,
                store: config.store.clone(),
                is_heard,
            };
            let phase = phase.subscribe();
            let running = threads::run("carillon-history", || publisher.run(phase))?;
            servers.push(("history", running));
        }
        let links = Links {
            config: config.link.clone(),
            token: link_token,
            root,
            acceptor,
            shared: shared.clone(),
            writes,
        };
        servers.push(("links", tokio::spawn(links.serve(link, phase.subscribe()))));
        Ok(Central {
            addresses,
            phase,
            writer: Some(writer),
            servers,
            drain_max: config.drain_max,
            shared,
            _push_threads: push_threads,
        })
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What gives the text that `/metrics` answers, for as long as anybody asks it.
    pub fn metrics(&self) -> impl Fn() -> String + Send + Sync + use<> {
        let shared = self.shared.clone();
        move || shared.scrape()
    }

    /// Waits until central gives up by itself: another owner has the shard. Cancel safe; asked again, it never
    /// answers.
    pub async fn failed(&mut self) -> CentralError {
        let Some(writer) = &mut self.writer else { return std::future::pending().await };
        let ended = writer.await;
        self.writer = None;
        match ended {
            Ok(Err(error)) => error,
            // The writer ends without an error only when it is told to, which takes this value away.
            Ok(Ok(())) | Err(_) => CentralError::Panicked { name: "writer" },
        }
    }

    /// Stops: no new requests, what is under way finishes until the deadline.
    ///
    /// # Errors
    /// If the writer had given up.
    pub async fn stop(mut self) -> Result<(), CentralError> {
        let deadline = tokio::time::Instant::now() + self.drain_max;
        self.phase.send_replace(Phase::Draining);
        for (name, server) in self.servers.iter_mut().filter(|(name, _)| *name != "links") {
            if tokio::time::timeout_at(deadline, &mut *server).await.is_err() {
                tracing::warn!(server = name, "requests were cut off: they did not end in time");
                server.abort();
            }
        }
        self.phase.send_replace(Phase::Closing);
        let ended = match &mut self.writer {
            Some(writer) => tokio::time::timeout_at(deadline, writer).await,
            None => Ok(Ok(Ok(()))),
        };
        for (name, server) in self.servers.iter_mut().filter(|(name, _)| *name == "links") {
            if tokio::time::timeout_at(deadline, &mut *server).await.is_err() {
                tracing::warn!(server = name, "links were cut off: they did not end in time");
                server.abort();
            }
        }
        match ended {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(CentralError::Panicked { name: "writer" }),
            Err(_) => {
                tracing::warn!(
                    "the store did not take the last batch in time; its callers were not answered"
                );
                Ok(())
            }
        }
    }
}

impl Drop for Central {
    fn drop(&mut self) {
        if let Some(writer) = &self.writer {
            writer.abort();
        }
        for (_, server) in &self.servers {
            server.abort();
        }
    }
}

/// Runs central until `shutdown` completes, then drains.
///
/// # Errors
/// If it cannot start, or another owner takes the shard.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), CentralError> {
    let faults = config.faults();
    if !faults.is_empty() {
        return Err(CentralError::Config(faults));
    }
    let store: AnyStore = open_store(&config.store).await?;
    let mut central = Central::start(config, store).await?;
    let Addresses { admin, link, ops } = central.addresses();
    tracing::info!(%admin, %link, ops = ops.map(tracing::field::display), "central listens");
    tokio::select! {
        error = central.failed() => Err(error),
        () = shutdown => {
            tracing::info!("central drains");
            central.stop().await
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, CentralError> {
    TcpListener::bind(address).await.map_err(|source| CentralError::Listen { address, source })
}

fn local(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, CentralError> {
    listener.local_addr().map_err(|source| CentralError::Listen { address, source })
}
