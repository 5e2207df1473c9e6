//! What all tasks of one central see: the published world, the change log, the clock, health and metrics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arc_swap::ArcSwap;
use carillon_world::stream::encode_batch;
use carillon_world::{App, ChangeLog, LogBatch, Millis, ShardId, World};
use tokio::sync::watch;

use super::clock::Clock;
use super::opening::Opened;
use crate::config::{Budgets, Config};
use crate::core::budget::is_nearly_full;
use crate::core::callback::state::Callbacks;
use crate::core::push::books::AppBooks;
use crate::core::push::caps::Caps;
use crate::core::push::jobs::Jobs;
use crate::core::tally::Tally;
use crate::core::writer::Published;
use crate::metrics::Metrics;

/// How far central is with stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    /// Nothing new comes in; what is under way finishes.
    Draining,
    /// The writer's queue is emptied, then the links close.
    Closing,
}

/// Waits until stopping is at least so far, or whoever would say so is gone. Cancel safe.
pub(crate) async fn reached(phase: &mut watch::Receiver<Phase>, at_least: Phase) {
    // The guard that comes back is dropped here: it must not live across an await.
    let _ = phase.wait_for(|phase| *phase >= at_least).await;
}

/// The callbacks of a durable state.
#[derive(Debug)]
pub(crate) struct CallbackView {
    pub(crate) callbacks: Callbacks,
    /// The number of the last event of that state.
    pub(crate) events: u64,
}

pub(crate) struct Shared {
    pub(crate) shard: ShardId,
    pub(crate) clock: Clock,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) budgets: Budgets,
    /// Bytes of events that may wait in the store; `None`: no history is kept.
    pub(crate) outbox_bytes_max: Option<u64>,
    world: ArcSwap<World>,
    jobs: ArcSwap<Jobs>,
    caps: ArcSwap<Caps>,
    /// Counts publications that concern pushes.
    pushes: watch::Sender<u64>,
    tally: ArcSwap<Tally>,
    callbacks: ArcSwap<CallbackView>,
    /// Counts publications that concern callbacks.
    callbacks_changed: watch::Sender<u64>,
    /// A lock, because every link reads it and the writer alone changes it, for the time of one push. Never held
    /// across an `.await`.
    log: RwLock<ChangeLog>,
    /// Counts publications, so that links wake.
    published: watch::Sender<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(config: &Config, opened: &Opened) -> Shared {
        let metrics = Metrics::new();
        metrics.world(&opened.loaded.world);
        let budget = config.writer.budgets.world_bytes_max;
        metrics.world_bytes_max.set(i64::try_from(budget).unwrap_or(i64::MAX));
        metrics.store_up.set(1);
        metrics.store_durable.set(opened.durable.into());
        let shared = Shared {
            shard: config.shard,
            clock: Clock::new(opened.clock_read_at, opened.clock),
            health: Health {
                ready: AtomicBool::new(true),
                store_up: AtomicBool::new(true),
                durable: opened.durable,
                nearly_full: AtomicBool::new(false),
                outbox_half_full: AtomicBool::new(false),
            },
            metrics,
            budgets: config.writer.budgets,
            outbox_bytes_max: config.writer.history.map(|history| history.outbox_bytes_max),
            log: RwLock::new(ChangeLog::new(config.log_bytes_max, opened.loaded.world.seq())),
            world: ArcSwap::from_pointee(opened.loaded.world.clone()),
            jobs: ArcSwap::from_pointee(Jobs::new(opened.loaded.kept.push_jobs.clone())),
            caps: ArcSwap::from_pointee(Caps::load(
                opened.loaded.kept.push_times.clone(),
                &opened.loaded.world,
            )),
            pushes: watch::Sender::new(0),
            tally: ArcSwap::from_pointee(Tally::default()),
            callbacks: ArcSwap::from_pointee(CallbackView {
                callbacks: Callbacks::load(opened.loaded.kept.callbacks.clone()),
                events: opened.loaded.kept.outbox.head,
            }),
            callbacks_changed: watch::Sender::new(0),
            published: watch::Sender::new(0),
        };
        shared.note_usage(opened.loaded.world.usage().total());
        shared.note_outbox(opened.loaded.kept.outbox.bytes);
        shared
    }

    /// What is counted, in the text format of OpenMetrics.
    pub(crate) fn scrape(&self) -> String {
        self.metrics.clock_jumped.set(i64::from(self.clock.has_jumped()));
        // Here, since after a start the pusher may not have looked at what it found.
        let jobs = i64::try_from(self.jobs().live_count()).unwrap_or(i64::MAX);
        self.metrics.push_jobs.set(jobs);
        self.metrics.text(&self.world())
    }

    /// The newest durable world.
    pub(crate) fn world(&self) -> Arc<World> {
        self.world.load_full()
    }

    /// The pushes of the newest durable world.
    pub(crate) fn jobs(&self) -> Arc<Jobs> {
        self.jobs.load_full()
    }

    /// Changes when jobs, or what pushes need, were published.
    pub(crate) fn pushes_changed(&self) -> watch::Receiver<u64> {
        self.pushes.subscribe()
    }

    /// What pushes ask of an app's devices.
    pub(crate) fn books(&self, app: &App, now: Millis) -> AppBooks {
        let row = app.row();
        let cap = row.push.as_ref().and_then(|push| push.settings.cap);
        AppBooks::new(self.tally(), self.caps.load_full(), row.id, cap, now)
    }

    /// The endpoints, and how far each is, as durable.
    pub(crate) fn callbacks(&self) -> Arc<CallbackView> {
        self.callbacks.load_full()
    }

    /// Changes when endpoints or their log were published.
    pub(crate) fn callbacks_changed(&self) -> watch::Receiver<u64> {
        self.callbacks_changed.subscribe()
    }

    /// What is counted beside it, as durable; at least as new as a world that was taken before.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        self.tally.load_full()
    }

    /// Shows what was loaded; before anybody can ask.
    pub(crate) fn set_tally(&self, tally: &Tally) {
        self.tally.store(Arc::new(tally.clone()));
    }

    pub(crate) fn log(&self) -> RwLockReadGuard<'_, ChangeLog> {
        // A push either happened or did not: a panic elsewhere leaves the log whole.
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_mut(&self) -> RwLockWriteGuard<'_, ChangeLog> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when a world was published.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Shows readers and links what became durable: first the world, then the log, then the wake.
    pub(crate) fn publish(&self, published: Published) {
        self.metrics.world(&published.world);
        self.note_usage(published.world.usage().total());
        self.note_outbox(published.outbox_bytes);
        self.tally.store(Arc::new(published.tally));
        self.world.store(published.world);
        self.caps.store(Arc::new(published.caps));
        self.jobs.store(Arc::new(published.jobs));
        let (callbacks, events) = (published.callbacks, published.events);
        self.callbacks.store(Arc::new(CallbackView { callbacks, events }));
        if let Some((epoch, batch)) = published.batch {
            let frame = encode_batch(epoch, &batch);
            self.metrics.changes.inc_by(batch.changes.len() as u64);
            self.metrics.batch_changes.observe(batch.changes.len() as f64);
            self.log_mut().push(Arc::new(LogBatch {
                epoch,
                first: batch.first,
                last: batch.last(),
                frame,
            }));
        }
        self.published.send_modify(|count| *count = count.wrapping_add(1));
        if published.callbacks_changed {
            self.callbacks_changed.send_modify(|count| *count = count.wrapping_add(1));
        }
        if published.pushes_changed {
            self.pushes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Says once when the world becomes nearly full, and once when it is no more.
    pub(crate) fn note_usage(&self, bytes: u64) {
        let bytes_max = self.budgets.world_bytes_max;
        let was = self.health.is_nearly_full();
        let is = is_nearly_full(bytes, bytes_max, was);
        self.health.nearly_full.store(is, Ordering::Relaxed);
        match (was, is) {
            (false, true) => tracing::warn!(
                bytes,
                bytes_max,
                "the world takes more than 80 % of world_bytes_max; beyond it what grows is refused with 507"
            ),
            (true, false) => tracing::info!(bytes, bytes_max, "there is room in the world again"),
            _ => {}
        }
    }

    /// Says once when the outbox is half full, and once when it is no more.
    fn note_outbox(&self, bytes: u64) {
        self.metrics.outbox_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let Some(bytes_max) = self.outbox_bytes_max else { return };
        let is = bytes >= bytes_max / 2;
        if self.health.outbox_half_full.swap(is, Ordering::Relaxed) != is {
            if is {
                tracing::error!(
                    bytes,
                    bytes_max,
                    "half of what may wait for the history waits; when it is full, writes are refused"
                );
            } else {
                tracing::info!(bytes, bytes_max, "the history has caught up");
            }
        }
    }

    pub(crate) fn set_store_up(&self, up: bool) {
        self.health.store_up.store(up, Ordering::Relaxed);
        self.metrics.store_up.set(i64::from(up));
    }
}

#[derive(Debug)]
pub(crate) struct Health {
    ready: AtomicBool,
    store_up: AtomicBool,
    /// As of the start; a store that becomes unsafe later is not used, unless it is allowed to be.
    durable: bool,
    nearly_full: AtomicBool,
    outbox_half_full: AtomicBool,
}

impl Health {
    /// Whether this process owns the shard and is not stopping.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn is_store_up(&self) -> bool {
        self.store_up.load(Ordering::Relaxed)
    }

    /// Whether what is acknowledged is safe with the store.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }

    /// Whether the world takes most of what it may.
    pub(crate) fn is_nearly_full(&self) -> bool {
        self.nearly_full.load(Ordering::Relaxed)
    }

    /// Whether half of what may wait for the history waits.
    pub(crate) fn is_outbox_half_full(&self) -> bool {
        self.outbox_half_full.load(Ordering::Relaxed)
    }

    pub(crate) fn set_unready(&self) {
        self.ready.store(false, Ordering::Relaxed);
    }
}
