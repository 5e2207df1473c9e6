//! From a store to a shard that is owned and in RAM.

use std::time::{Duration, Instant};

use carillon_persist::{AnyStore, EpochClaim, Opening, Store, StoreError, Tallies, Tally};
use carillon_world::{
    Epoch, Judgement, LineageEntry, Millis, Position, Seq, ShardId, WorldBuilder,
};

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
    let (opening, forked_from) = match &config.history {
        Some(plan) => hear_witness(plan, shard, store, opening).await?,
        None => (opening, None),
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
    let loaded = Loaded { world, keys, kept, tallies, forked_from };
    Ok(Opened { loaded, epoch: opening.epoch, clock, clock_read_at, durable })
}

/// Asks the history whether it knows more than the store. If so, a fork begins: with the number of the epoch that it goes
/// on from. A history that does not answer proves nothing, and holds up
/// nobody; but where a fork was asked for, it would never be told.
///
/// # Errors
/// [`CentralError::Restored`] if it does, and that is not accepted; [`CentralError::NoWitness`].
async fn hear_witness<S: Store>(
    plan: &HistoryPlan,
    shard: ShardId,
    store: &mut S,
    opening: Opening,
) -> Result<(Opening, Option<u64>), CentralError> {
    let asked = tokio::time::timeout(WITNESS_WAIT, history::tail(plan.sink.clone(), shard)).await;
    let answer = match asked {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::warn!(%shard, error = &*error as &dyn std::error::Error, "the history cannot be asked how far it is");
            None
        }
        Err(_) => {
            tracing::warn!(%shard, "the history does not say how far it is");
            None
        }
    };
    if answer.is_none() && plan.accept_restore {
        return Err(CentralError::NoWitness { shard });
    }
    let lost = answer.flatten().filter(|witness| has_lost(&opening, shard, witness));
    let Some(witness) = lost else { return Ok((opening, None)) };
    let (change, event) = (witness.change.unwrap_or(Seq::ZERO).get(), witness.event);
    let (head, events, epoch) = (opening.head.get(), opening.events, witness.epoch.number);
    if !plan.accept_restore {
        return Err(CentralError::Restored { shard, head, events, change, event, epoch });
    }
    tracing::warn!(
        %shard, head, events, change, event, epoch,
        "the history knows what the store lost: a fork begins"
    );
    let claim = EpochClaim {
        tag: random::id(),
        held: Some(opening.epoch),
        number_min: epoch + 1,
        fork: true,
    };
    let from = backed_up(&opening, &witness);
    Ok((store.begin_epoch(shard, claim).await?, Some(from)))
}

/// The number of the epoch that a backup was of, or 0: the newest that it shares with what the history has. Those behind it
/// are of starts after the restore, and told nothing.
fn backed_up(opening: &Opening, witness: &Witness) -> u64 {
    let is_shared = |line: &&LineageEntry| {
        line.epoch.number < witness.epoch.number || line.epoch == witness.epoch
    };
    opening.lineage.entries().iter().rfind(is_shared).map_or(0, |line| line.epoch.number)
}

/// Whether a store does not have all that the history has. Events count also where no change is among them.
fn has_lost(opening: &Opening, shard: ShardId, witness: &Witness) -> bool {
    let forked = opening.lineage.entries().iter().rfind(|line| line.fork);
    if forked.is_some_and(|line| witness.epoch.number < line.epoch.number) {
        return false;
    }
    let seq = witness.change.unwrap_or(Seq::ZERO);
    let position = Position { shard, epoch: witness.epoch, seq };
    opening.lineage.judge(opening.head, position) != Judgement::Past
        || witness.event > opening.events
}

#[cfg(test)]
mod tests {
    use carillon_world::Lineage;

    use super::*;

    fn epoch(number: u64) -> Epoch {
        Epoch { number, tag: number }
    }

    #[test]
    fn a_store_that_lacks_a_change_an_event_or_an_epoch_of_the_history_has_lost_something() {
        let line = |number, began_after, fork| LineageEntry {
            epoch: epoch(number),
            began_after: Seq::new(began_after),
            fork,
        };
        let opening = |lines: Vec<LineageEntry>| Opening {
            epoch: lines.last().expect("one").epoch,
            lineage: Lineage::try_new(lines).expect("rising"),
            head: Seq::new(50),
            horizon: Seq::ZERO,
            events: 80,
        };
        let plain = opening(vec![line(1, 0, false), line(5, 50, false)]);
        let lost = |of: &Opening, number, change: Option<u64>, event| {
            let witness = Witness { epoch: epoch(number), change: change.map(Seq::new), event };
            has_lost(of, ShardId::FIRST, &witness)
        };
        let from = |number| {
            let witness = Witness { epoch: epoch(number), change: None, event: 99 };
            backed_up(&plain, &witness)
        };
        assert_eq!((from(1), from(3), from(5), from(9)), (1, 1, 5, 5));
        assert!(!lost(&plain, 1, Some(50), 80));
        assert!(!lost(&plain, 1, None, 80));
        assert!(lost(&plain, 1, Some(51), 80));
        assert!(lost(&plain, 1, Some(50), 81), "of receipts alone");
        assert!(lost(&plain, 1, None, 81), "no change is seen");
        assert!(lost(&plain, 3, None, 80), "an epoch that it never had");
        let forked = opening(vec![line(1, 0, false), line(5, 50, true)]);
        assert!(!lost(&forked, 1, Some(99), 99), "cut off already");
        assert!(!lost(&forked, 5, Some(50), 80));
        assert!(lost(&forked, 5, Some(50), 81));
    }
}
