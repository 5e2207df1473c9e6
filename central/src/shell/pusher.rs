//! The pusher: a task for each lane (an app's channel) that has something to push, so that a provider that is down holds
//! up nothing else.
//!
//! Lanes follow the committed jobs and write back only through the shard's one writer. They keep nothing that is not in
//! those jobs but what is handed over and not reported.

mod lane;
mod slot;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use carillon_world::{AppId, AppRow, Millis, PushChannel, SealedCredential};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::lane::Lane;
use super::channel::{self, AnyChannel, Providers};
use super::shared::{Phase, Shared, reached};
use super::write_handle::WriteHandle;
use crate::config::PusherConfig;
use crate::core::channel::credential::{Credential, CredentialKeys};
use crate::core::push::rate::Bucket;

/// Buckets of apps that are kept; beyond it those that are full are forgotten.
const BUCKETS_MAX: usize = 10_000;

pub(crate) struct Pusher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writes: WriteHandle,
    pub(crate) config: PusherConfig,
    pub(crate) opener: Arc<Opener>,
}

impl Pusher {
    /// Runs until draining begins and every lane has reported what was in flight.
    pub(crate) async fn run(self, mut phase: watch::Receiver<Phase>) {
        let rates = Arc::new(Rates::new(self.config));
        let mut changed = self.shared.pushes_changed();
        let mut lanes: JoinSet<(AppId, PushChannel)> = JoinSet::new();
        let mut running: HashSet<(AppId, PushChannel)> = HashSet::new();
        loop {
            changed.mark_unchanged();
            let jobs = self.shared.jobs();
            for key in jobs.live_lanes() {
                if running.insert(key) {
                    let (shared, writes) = (self.shared.clone(), self.writes.clone());
                    let (opener, rates) = (self.opener.clone(), rates.clone());
                    let lane = Lane::new(key, shared, writes, self.config, opener, rates);
                    lanes.spawn(lane.run(phase.clone()));
                }
            }
            drop(jobs);
            tokio::select! {
                () = reached(&mut phase, Phase::Draining) => break,
                changed = changed.changed() => if changed.is_err() { break },
                Some(ended) = lanes.join_next(), if !lanes.is_empty() => match ended {
                    Ok(key) => {
                        running.remove(&key);
                    }
                    // Which one it was is not known; those that still run are in the way of nobody.
                    Err(error) => {
                        tracing::error!(%error, "a lane of pushes ended unexpectedly");
                        lanes.shutdown().await;
                        running.clear();
                    }
                },
            }
        }
        while lanes.join_next().await.is_some() {}
    }
}

/// What it takes to open a channel from a stored credential.
#[derive(Debug)]
pub(crate) struct Opener {
    pub(crate) providers: Providers,
    pub(crate) keys: Option<Arc<CredentialKeys>>,
}

impl Opener {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// If the credential does not open, in words without secrets.
    fn open(
        &self,
        app: &AppRow,
        channel: PushChannel,
        credential: &SealedCredential,
    ) -> Result<AnyChannel, String> {
        let keys = self.keys.as_ref().ok_or("central has no key for credentials")?;
        let json = keys.open(app.id, channel, &credential.sealed).map_err(|e| e.to_string())?;
        let credential = Credential::parse(channel, &json).map_err(|e| e.to_string())?;
        Ok(channel::open(credential, app.environment, &self.providers))
    }
}

/// How fast pushes may go, over all lanes.
#[derive(Debug)]
pub(crate) struct Rates {
    /// By channel, as configured.
    providers: [(PushChannel, Option<Mutex<Bucket>>); 3],
    /// By app; the rate comes with each take.
    apps: Mutex<HashMap<AppId, Bucket>>,
}

impl Rates {
    fn new(config: PusherConfig) -> Rates {
        let bucket = |rate: Option<std::num::NonZeroU32>| {
            rate.map(|rate| Mutex::new(Bucket::new(rate.get(), Millis::ZERO)))
        };
        Rates {
            providers: [
                (PushChannel::Apns, bucket(config.apns_rate)),
                (PushChannel::Fcm, bucket(config.fcm_rate)),
                (PushChannel::WebPush, bucket(config.web_push_rate)),
            ],
            apps: Mutex::default(),
        }
    }

    /// # Errors
    /// If one has to wait: from when on it is worth to ask again.
    fn take(
        &self,
        now: Millis,
        app: AppId,
        rate: Option<u32>,
        channel: PushChannel,
    ) -> Result<(), Millis> {
        let provider = self.providers.iter().find(|(of, _)| *of == channel);
        if let Some(bucket) = provider.and_then(|(_, bucket)| bucket.as_ref()) {
            bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now)?;
        }
        let Some(rate) = rate else { return Ok(()) };
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        if apps.len() >= BUCKETS_MAX && !apps.contains_key(&app) {
            apps.clear();
        }
        let bucket = apps.entry(app).or_insert_with(|| Bucket::new(rate, now));
        bucket.set_rate(rate);
        bucket.take(now)
    }
}
