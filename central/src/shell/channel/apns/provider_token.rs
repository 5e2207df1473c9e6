//! The provider tokens of all teams' keys: each is made here and nowhere else, for all apps, connections and both hosts,
//! because APNs counts a team's tokens, not a connection's.
//!
//! When a token was made the store says, to every central of the team and after every restart: whoever cannot know
//! waits, since a second token too early has APNs refuse both for twenty minutes.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use carillon_persist::{AnyStore, ProviderTokenId, Store as _};
use carillon_world::Millis;
use http::header::HeaderValue;
use tokio::sync::{Notify, mpsc, oneshot};

use super::lock;
use crate::config::StoreConfig;
use crate::core::channel::apns::{self, PROVIDER_TOKEN_LASTS};
use crate::core::channel::credential::ApnsCredential;
use crate::core::channel::sign::EcKey;
use crate::error::CentralError;
use crate::shell::threads;

/// Keys that are remembered although nothing uses them at present.
const IDLE_TOKENS_MAX: usize = 1024;
/// More keys than a shard has, whose tokens all end at once, only wait.
const ASKS_MAX: usize = 64;

#[derive(Debug)]
pub(in crate::shell::channel) struct ProviderTokens {
    slots: Mutex<HashMap<ProviderTokenId, Arc<Slot>>>,
    asks: mpsc::Sender<Ask>,
}

/// When a token was made that may be used at `now`.
struct Ask {
    id: ProviderTokenId,
    now: Millis,
    answer: oneshot::Sender<Millis>,
}

#[derive(Debug, Default)]
struct Slot {
    token: ArcSwapOption<Made>,
    is_making: AtomicBool,
    /// Whoever was making has ended.
    heard: Notify,
}

/// Also where the push that it was made for is given up.
struct Making<'a>(&'a Slot);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.is_making.store(false, Ordering::Release);
        self.0.heard.notify_waiters();
    }
}

pub(super) struct Made {
    header: HeaderValue,
    issued_at: Millis,
}

impl Made {
    pub(super) fn header(&self) -> &HeaderValue {
        &self.header
    }

    fn may_be_used(&self, now: Millis) -> bool {
        now < self.issued_at.plus(PROVIDER_TOKEN_LASTS.as_millis() as u64)
    }
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").field("issued_at", &self.issued_at).finish_non_exhaustive()
    }
}

/// One app's way to its team's token.
pub(super) struct ProviderToken {
    id: ProviderTokenId,
    slot: Arc<Slot>,
    key: EcKey,
    team_id: Arc<str>,
    key_id: Arc<str>,
    asks: mpsc::Sender<Ask>,
}

impl ProviderTokens {
    /// # Errors
    /// If the system gives no thread.
    pub(in crate::shell::channel) fn new(
        store: StoreConfig,
    ) -> Result<ProviderTokens, CentralError> {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        // Apart, since it may wait for the store; it ends when nobody can ask any more.
        threads::run("carillon-provider-tokens", || answer(store, asked))?;
        Ok(ProviderTokens { slots: Mutex::default(), asks })
    }

    pub(super) fn of(&self, credential: ApnsCredential) -> ProviderToken {
        let ApnsCredential { team_id, key_id, key, topic: _ } = credential;
        let id = id(&team_id, &key_id, key.public());
        let mut slots = lock(&self.slots);
        if slots.len() > IDLE_TOKENS_MAX {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        let slot = slots.entry(id).or_default().clone();
        ProviderToken { id, slot, key, team_id, key_id, asks: self.asks.clone() }
    }
}

/// The public key is part of it: naming somebody else's team and key gives nobody its token, nor changes when it ends.
fn id(team_id: &str, key_id: &str, public: &[u8]) -> ProviderTokenId {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in [team_id.as_bytes(), key_id.as_bytes(), public] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Connects anew each time, which is every 45 minutes a key.
async fn answer(config: StoreConfig, mut asked: mpsc::Receiver<Ask>) {
    while let Some(Ask { id, now, answer }) = asked.recv().await {
        let said = async {
            let mut store = AnyStore::open(&config.url, &config.options).await?;
            store.provider_token(&id, now, PROVIDER_TOKEN_LASTS).await
        };
        match said.await {
            // Whoever asked may be gone.
            Ok(issued_at) => drop(answer.send(issued_at)),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the store does not say which provider token is in use; pushes to APNs wait"
            ),
        }
    }
}

impl ProviderToken {
    /// `None` if the store does not say when the last was made.
    pub(super) async fn current(&self, now: Millis) -> Option<Arc<Made>> {
        if let Some(made) = &*self.slot.token.load()
            && made.may_be_used(now)
        {
            return Some(made.clone());
        }
        // Its future is rare and larger than that of a push.
        Box::pin(self.make(now)).await
    }

    /// One asks and makes; the others hear of it at the same moment, whatever came of it.
    async fn make(&self, now: Millis) -> Option<Arc<Made>> {
        let mut heard = pin!(self.slot.heard.notified());
        heard.as_mut().enable();
        let usable = || self.slot.token.load_full().filter(|made| made.may_be_used(now));
        if self.slot.is_making.swap(true, Ordering::AcqRel) {
            heard.await;
            return usable();
        }
        let _making = Making(&self.slot);
        if let Some(made) = usable() {
            return Some(made);
        }
        let issued_at = self.ask(now).await?;
        let text = apns::provider_token(&self.key, &self.team_id, &self.key_id, issued_at);
        let mut header = HeaderValue::from_str(&format!("bearer {text}")).ok()?;
        header.set_sensitive(true);
        let made = Arc::new(Made { header, issued_at });
        self.slot.token.store(Some(made.clone()));
        Some(made)
    }

    async fn ask(&self, now: Millis) -> Option<Millis> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask { id: self.id, now, answer }).await.ok()?;
        answered.await.ok()
    }

    /// What to send with after APNs called `used` stale; `None` if there is no other.
    pub(super) async fn after_stale(&self, now: Millis, used: &Arc<Made>) -> Option<Arc<Made>> {
        let made = self.current(now).await?;
        (!Arc::ptr_eq(&made, used)).then_some(made)
    }
}
