//! From a store to a shard that is owned and in RAM.

use std::time::{Duration, Instant};

use carillon_persist::{AnyStore, EpochClaim, Store, StoreError, Tallies, Tally};
use carillon_world::{Epoch, Millis, WorldBuilder};

use super::loading::Loading;
use super::random;
use super::witness::{self, Heard};
use crate::config::{Config, StoreConfig};
use crate::core::limits::IDEMPOTENCY_KEPT;
use crate::core::writer::Loaded;
use crate::error::CentralError;

const RETRY_EVERY: Duration = Duration::from_millis(250);

/// A shard that this process owns.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) loaded: Loaded,
    pub(crate) epoch: Epoch,
    pub(crate) clock: Millis,
    pub(crate) clock_read_at: Instant,
    /// No setting of the store puts what is acknowledged at risk.
    pub(crate) durable: bool,
    /// The history, if there is one, said how far it is.
    pub(crate) is_heard: bool,
}

/// Opens the store; waits for one that is not there yet, such as a database that starts at the same time.
///
/// # Errors
/// When it does not answer in time, or cannot be used.
pub async fn open_store(config: &StoreConfig) -> Result<AnyStore, CentralError> {
    let deadline = Instant::now() + config.connect_timeout;
    loop {
        match AnyStore::open(&config.url, &config.options).await {
            Ok(store) => return Ok(store),
            Err(StoreError::Unavailable { .. } | StoreError::Timeout { .. })
                if Instant::now() < deadline =>
            {
                tokio::time::sleep(RETRY_EVERY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Begins an epoch and loads everything.
pub(super) async fn open_shard<S: Store>(
    config: &Config,
    store: &mut S,
) -> Result<Opened, CentralError> {
    let shard = config.shard;
    let started = Instant::now();
    for setting in store.unsafe_settings() {
        tracing::warn!(%setting, "the store may lose what it has acknowledged, which is allowed");
    }
    let claim = EpochClaim { tag: random::id(), held: None, number_min: 0, fork: false };
    let opening = store.begin_epoch(shard, claim).await?;
    let (opening, heard) = match &config.history {
        Some(plan) => witness::hear(plan, shard, store, opening).await?,
        None => (opening, Heard::default()),
    };
    let mut builder = WorldBuilder::new(shard);
    let mut loading = Loading::begin(config.store.on_loading.clone(), store.estimate_rows().await?);
    let mut sink = |row| {
        builder.insert(row);
        loading.row();
    };
    store.load(shard, &mut sink).await?;
    drop(loading);
    let world = builder
        .finish(opening.lineage, opening.head, opening.horizon)
        .map_err(|source| CentralError::Load { shard, source })?;
    let clock = store.clock().await?;
    let clock_read_at = Instant::now();
    let keys =
        store.load_idempotency(shard, Millis(clock.0.saturating_sub(IDEMPOTENCY_KEPT))).await?;
    let kept = store.load_kept(shard).await?;
    let mut tallies = Tallies::default();
    let mut sink = |tally| match tally {
        Tally::Book(row) => tallies.books.push(row),
        Tally::Count(row) => tallies.counts.push(row),
    };
    store.load_tallies(shard, &mut sink).await?;
    let counts = world.counts();
    tracing::info!(
        %shard,
        epoch = opening.epoch.number,
        head = opening.head.get(),
        apps = counts.apps,
        devices = counts.devices,
        messages = counts.messages,
        seconds = started.elapsed().as_secs_f64(),
        "the shard is open"
    );
    let durable = store.unsafe_settings().is_empty();
    let loaded = Loaded { world, keys, kept, tallies, fork: heard.fork };
    let is_heard = heard.answered;
    Ok(Opened { loaded, epoch: opening.epoch, clock, clock_read_at, durable, is_heard })
}
