//! Callbacks: a task for each endpoint, so that one that is slow or down holds up nobody else; beside them one that reads the
//! log for all, and one that forgets what is old.
//!
//! All of them are on a thread of their own that gives way to callers, and write through the shard's one writer. They keep
//! nothing but what is under way: an endpoint that begins anew begins with what the store holds of it.

mod engine;
mod follower;
mod keeper;
mod reader;
mod sender;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use carillon_persist::{CallbackId, CallbackRow};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use self::engine::Engine;
use self::keeper::Keeper;
use self::reader::Asks;
use super::shared::{CallbackView, Phase, Shared, reached};
use super::write_handle::WriteHandle;
use crate::config::{CallbackConfig, StoreConfig};
use crate::core::callback::delivery::DeliveryLimits;

pub(crate) use self::follower::CallbackFollower;
pub(crate) use self::reader::LogReader;
pub use self::sender::{Call, CallbackSender, Called, Line};

/// Events of one endpoint that wait to be tried again.
const RETRIES_MAX: usize = 1_000;
/// Between two looks at what was published, so that a busy shard does not wake everybody at each batch.
const LINGER: Duration = Duration::from_millis(20);
/// Before endpoints that ended unexpectedly begin anew.
const ENDED_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Callbacks {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writes: WriteHandle,
    pub(crate) config: CallbackConfig,
    pub(crate) sender: Arc<CallbackSender>,
    pub(crate) store: StoreConfig,
    pub(crate) reader: LogReader,
    pub(crate) asks: Asks,
}

/// An endpoint that is under way, and what it was told of last.
struct Running {
    news: Arc<Notify>,
    row: Arc<CallbackRow>,
    last: u64,
    missed: u64,
}

impl Callbacks {
    /// Runs until draining begins and every endpoint has said how far it is.
    pub(crate) async fn run(self, mut phase: watch::Receiver<Phase>) {
        let Callbacks { shared, writes, config, sender, store, reader, asks } = self;
        let limits = DeliveryLimits {
            concurrency: config.concurrency,
            retries_max: RETRIES_MAX,
            schedule: config.schedule,
            pause_after: u64::try_from(config.pause_after.as_millis()).unwrap_or(u64::MAX),
        };
        let serving = tokio::spawn(reader::serve(asks, store, shared.shard));
        let keeper = Keeper::new(shared.clone(), writes.clone(), reader.clone(), &config);
        let keeping = tokio::spawn(keeper.run());
        let mut changed = shared.callbacks_changed();
        let mut engines: JoinSet<CallbackId> = JoinSet::new();
        let mut running: HashMap<CallbackId, Running> = HashMap::new();
        loop {
            changed.mark_unchanged();
            let view = shared.callbacks();
            shared.metrics.callbacks(&view.callbacks);
            for endpoint in view.callbacks.iter() {
                let (id, row) = (endpoint.row.id, &endpoint.row);
                let last = view.callbacks.last(row.app);
                let missed = endpoint.progress.missed;
                if let Some(of) = running.get_mut(&id) {
                    if of.last != last || of.missed != missed || !Arc::ptr_eq(&of.row, row) {
                        (of.last, of.missed, of.row) = (last, missed, row.clone());
                        of.news.notify_one();
                    }
                } else if endpoint.is_active() {
                    let news = Arc::new(Notify::new());
                    let engine = Engine {
                        id,
                        run: row.run,
                        shared: shared.clone(),
                        writes: writes.clone(),
                        sender: sender.clone(),
                        reader: reader.clone(),
                        limits,
                        news: news.clone(),
                    };
                    engines.spawn(engine.run(phase.clone()));
                    running.insert(id, Running { news, row: row.clone(), last, missed });
                }
            }
            notify_deleted(&view, &mut running);
            drop(view);
            tokio::select! {
                () = reached(&mut phase, Phase::Draining) => break,
                changed = changed.changed() => if changed.is_err() { break },
                Some(ended) = engines.join_next(), if !engines.is_empty() => match ended {
                    Ok(id) => {
                        running.remove(&id);
                        continue;
                    }
                    // Which one it was is not known, so all begin anew, from what is stored.
                    Err(error) => {
                        tracing::error!(%error, "an endpoint of callbacks ended unexpectedly");
                        engines.shutdown().await;
                        running.clear();
                        tokio::time::sleep(ENDED_PAUSE).await;
                    }
                },
            }
            tokio::time::sleep(LINGER).await;
        }
        while engines.join_next().await.is_some() {}
        keeping.abort();
        serving.abort();
    }
}

/// Those that are there no more end.
fn notify_deleted(view: &CallbackView, running: &mut HashMap<CallbackId, Running>) {
    for (id, of) in running.iter() {
        if view.callbacks.get(*id).is_none() {
            of.news.notify_one();
        }
    }
}
