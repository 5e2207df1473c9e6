//! What the threads of one edge share.
//!
//! The link publishes, the cores read. A reader takes one world and never waits for a writer. After a publish each
//! core is told what changed through a mailbox of its own that merges what a busy core has not yet read: it holds a
//! bounded number of changes, then only "look at everything".

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use carillon_world::{AnswerLimits, Applied, UpstreamReply, UpstreamRequest, World};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::Config;
use crate::core::keys::KeyRing;
use crate::core::limiter::Limiter;
use crate::core::mail::Mail;
use crate::metrics::Metrics;

/// How far an edge is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// No new connections; parked polls are answered; requests are finished.
    Draining,
    /// Whatever is still open is dropped.
    Stopped,
}

/// A write on its way to central. If the sender is dropped, no reply will come.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: UpstreamRequest,
    pub(crate) reply: oneshot::Sender<UpstreamReply>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) answer_limits: AnswerLimits,
    pub(crate) metrics: Metrics,
    pub(crate) world: ArcSwapOption<World>,
    pub(crate) keys: ArcSwap<KeyRing>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) calls: mpsc::Sender<Call>,
    pub(crate) connections: AtomicUsize,
    pub(crate) mailboxes: Vec<Mailbox>,
    limiter: Mutex<Limiter>,
    live: AtomicBool,
    /// Bytes that worlds may take.
    pub(crate) world_bytes_max: u64,
    /// What central's world needs while that is more; `None` as soon as it fits.
    needed: Mutex<Option<u64>>,
    /// Since when the link is down; `None` while it is up.
    down_since: Mutex<Option<Instant>>,
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        cores: usize,
        calls: mpsc::Sender<Call>,
        world_bytes_max: u64,
    ) -> Arc<Shared> {
        let limits = &config.limits;
        let limiter =
            Limiter::new(limits.enrol_every, limits.enrol_burst.get(), limits.enrol_sources_max);
        let mailbox = || Mailbox::new(limits.wake_changes_max);
        let metrics = Metrics::default();
        metrics.world_bytes_max.set(world_bytes_max.try_into().unwrap_or(i64::MAX));
        Arc::new(Shared {
            answer_limits: AnswerLimits {
                bytes_max: limits.answer_bytes_max,
                ..AnswerLimits::default()
            },
            metrics,
            world: ArcSwapOption::empty(),
            keys: ArcSwap::from_pointee(KeyRing::default()),
            phase: watch::Sender::new(Phase::Serving),
            calls,
            connections: AtomicUsize::new(0),
            mailboxes: std::iter::repeat_with(mailbox).take(cores).collect(),
            limiter: Mutex::new(limiter),
            live: AtomicBool::new(false),
            world_bytes_max,
            needed: Mutex::new(None),
            down_since: Mutex::new(Some(Instant::now())),
            config,
        })
    }

    /// Serves `world` from here on, then tells every core what changed: in this order, so that a request which parks
    /// after a core has looked sees the world that the core was told of.
    pub(crate) fn publish(&self, world: Arc<World>, changes: Published) {
        self.metrics.world_seq.set(world.seq().get().try_into().unwrap_or(i64::MAX));
        self.metrics.world_bytes.set(world.usage().total().try_into().unwrap_or(i64::MAX));
        self.set_needed(None);
        self.world.store(Some(world));
        for mailbox in &self.mailboxes {
            mailbox.put(|mail| match &changes {
                Published::Applied(applied) => mail.add(applied, mailbox.changes_max),
                Published::Everything => mail.add_everything(),
            });
        }
    }

    /// Serves nothing until the next publish: a restore cut the world off.
    pub(crate) fn withdraw(&self) {
        self.metrics.world_bytes.set(0);
        self.world.store(None);
        for mailbox in &self.mailboxes {
            mailbox.put(Mail::add_everything);
        }
    }

    /// Bytes that central's world needs, while that is more than there are.
    pub(crate) fn needed(&self) -> Option<u64> {
        *lock(&self.needed)
    }

    pub(crate) fn set_needed(&self, needed: Option<u64>) {
        *lock(&self.needed) = needed;
        self.metrics.world_bytes_needed.set(needed.unwrap_or(0).try_into().unwrap_or(i64::MAX));
    }

    /// Whether the link to central is up.
    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    pub(crate) fn set_live(&self, live: bool) {
        if self.live.swap(live, Ordering::AcqRel) == live {
            return;
        }
        *lock(&self.down_since) = (!live).then(Instant::now);
        self.metrics.link_up.set(i64::from(live));
        for mailbox in &self.mailboxes {
            mailbox.put(Mail::add_link);
        }
    }

    /// How long the link has been down; zero while it is up.
    pub(crate) fn down_for(&self) -> Duration {
        lock(&self.down_since).map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// # Errors
    /// How long the source has to wait.
    pub(crate) fn may_enrol(&self, source: std::net::IpAddr) -> Result<(), Duration> {
        lock(&self.limiter).take(Instant::now(), crate::core::limiter::Source::of(source))
    }
}

/// What a publish brought.
#[derive(Debug)]
pub(crate) enum Published {
    Applied(Arc<Applied>),
    /// A snapshot, or more than is worth telling.
    Everything,
}

/// Where one core is told what to look at.
#[derive(Debug)]
pub(crate) struct Mailbox {
    changes_max: usize,
    mail: Mutex<Mail>,
    pub(crate) ready: Notify,
}

impl Mailbox {
    fn new(changes_max: usize) -> Mailbox {
        Mailbox { changes_max, mail: Mutex::new(Mail::default()), ready: Notify::new() }
    }

    fn put(&self, change: impl FnOnce(&mut Mail)) {
        change(&mut lock(&self.mail));
        self.ready.notify_one();
    }

    /// Takes all that came since the last time.
    pub(crate) fn take(&self) -> Mail {
        std::mem::take(&mut lock(&self.mail))
    }
}

/// A panic elsewhere leaves these plain values whole, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
