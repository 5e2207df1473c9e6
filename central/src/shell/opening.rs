//! From a store to a shard that is owned and in RAM.

use std::time::{Duration, Instant};

use carillon_persist::{AnyStore, EpochClaim, Opening, Store, StoreError, Tallies, Tally};
use carillon_world::{Epoch, Judgement, Millis, Position, Seq, ShardId, WorldBuilder};

use super::history::{self, Witness};
use super::loading::Loading;
use super::random;
use crate::config::{Config, HistoryPlan, StoreConfig};
use crate::core::limits::IDEMPOTENCY_KEPT;
use crate::core::writer::Loaded;
use crate::error::CentralError;

const RETRY_EVERY: Duration = Duration::from_millis(250);
/// How long the history may take to say how far it is.
const WITNESS_WAIT: Duration = Duration::from_secs(10);

/// A shard that this process owns.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) loaded: Loaded,
    pub(crate) epoch: Epoch,
    pub(crate) clock: Millis,
    pub(crate) clock_read_at: Instant,
    /// No setting of the store puts what is acknowledged at risk.
    pub(crate) durable: bool,
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
    let opening = match &config.history {
        Some(plan) => hear_witness(plan, shard, store, opening).await?,
        None => opening,
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
    let loaded = Loaded { world, keys, kept, tallies };
    Ok(Opened { loaded, epoch: opening.epoch, clock, clock_read_at, durable })
}

/// Asks the history whether it knows more than the store. A history that does not answer proves nothing, and holds up
/// nobody.
///
/// # Errors
/// [`CentralError::Restored`] if it does, and that is not accepted.
async fn hear_witness<S: Store>(
    plan: &HistoryPlan,
    shard: ShardId,
    store: &mut S,
    opening: Opening,
) -> Result<Opening, CentralError> {
    let asked = tokio::time::timeout(WITNESS_WAIT, history::tail(plan.sink.clone(), shard)).await;
    let witness = match asked {
        Ok(Ok(witness)) => witness,
        Ok(Err(error)) => {
            tracing::warn!(%shard, error = &*error as &dyn std::error::Error, "the history cannot be asked how far it is");
            None
        }
        Err(_) => {
            tracing::warn!(%shard, "the history does not say how far it is");
            None
        }
    };
    let Some(Witness { epoch, change }) = witness else { return Ok(opening) };
    let change = change.unwrap_or(Seq::ZERO);
    let forked = opening.lineage.entries().iter().rfind(|line| line.fork);
    let is_cut_off = forked.is_some_and(|line| epoch.number < line.epoch.number);
    let position = Position { shard, epoch, seq: change };
    if is_cut_off || opening.lineage.judge(opening.head, position) == Judgement::Past {
        return Ok(opening);
    }
    if !plan.accept_restore {
        let (change, epoch, head) = (change.get(), epoch.number, opening.head.get());
        return Err(CentralError::Restored { shard, head, change, epoch });
    }
    tracing::warn!(
        %shard, head = opening.head.get(), change = change.get(), epoch = epoch.number,
        "the history knows changes that the store lost: a fork begins"
    );
    let claim = EpochClaim {
        tag: random::id(),
        held: Some(opening.epoch),
        number_min: epoch.number + 1,
        fork: true,
    };
    Ok(store.begin_epoch(shard, claim).await?)
}
