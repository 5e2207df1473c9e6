//! What the history knows of a shard, against what its store does: a store that was restored from a backup knows less.

use std::time::Duration;

use carillon_persist::{EpochClaim, Opening, Store};
use carillon_world::{Judgement, Lineage, LineageEntry, Position, Seq, ShardId};

use super::history::{self, Witness};
use super::random;
use crate::config::HistoryPlan;
use crate::core::writer::Forked;
use crate::error::CentralError;

/// How long the history may take to say how far it is.
const WITNESS_WAIT: Duration = Duration::from_secs(10);

/// What came of asking.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// A fork that the history is to be told of.
    pub(crate) fork: Option<Forked>,
    /// It answered. If not, it is to be asked again before it is told anything.
    pub(crate) answered: bool,
}

/// A store, as far as the history can know it.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    pub(crate) shard: ShardId,
    pub(crate) lineage: &'a Lineage,
    pub(crate) head: Seq,
    /// The number of its last event.
    pub(crate) events: u64,
}

/// Begins a fork if the history knows more than the store. A history that does not answer proves nothing, and holds up
/// nobody; but where a fork was asked for, or may not have been told, only it knows from where it is one.
///
/// # Errors
/// [`CentralError::Restored`] if it does, and that is not accepted; [`CentralError::NoWitness`].
pub(super) async fn hear<S: Store>(
    plan: &HistoryPlan,
    shard: ShardId,
    store: &mut S,
    opening: Opening,
) -> Result<(Opening, Heard), CentralError> {
    let Some(witness) = ask(plan, shard).await else {
        if plan.accept_restore || untold_fork(&opening.lineage).is_some() {
            return Err(CentralError::NoWitness { shard });
        }
        return Ok((opening, Heard::default()));
    };
    let Some(witness) = witness else { return Ok((opening, Heard { fork: None, answered: true })) };
    let known =
        Known { shard, lineage: &opening.lineage, head: opening.head, events: opening.events };
    let lost = known.lost(store, &witness).await?;
    if let Some(lost) = lost {
        if !plan.accept_restore {
            return Err(lost);
        }
        tracing::warn!(error = &lost as &dyn std::error::Error, "a fork begins");
        let claim = EpochClaim {
            tag: random::id(),
            held: Some(opening.epoch),
            number_min: witness.epoch.number + 1,
            fork: true,
        };
        let opening = store.begin_epoch(shard, claim).await?;
        let line = opening.lineage.newest();
        let fork = fork(store, shard, &opening.lineage, &line, &witness).await?;
        return Ok((opening, Heard { fork: Some(fork), answered: true }));
    }
    let mut heard = Heard { fork: None, answered: true };
    let untold =
        untold_fork(&opening.lineage).filter(|line| witness.epoch.number < line.epoch.number);
    if let Some(line) = untold {
        heard.fork = Some(fork(store, shard, &opening.lineage, line, &witness).await?);
    }
    Ok((opening, heard))
}

/// The history's newest; the outer `None` if it does not answer.
async fn ask(plan: &HistoryPlan, shard: ShardId) -> Option<Option<Witness>> {
    let asked = tokio::time::timeout(WITNESS_WAIT, history::tail(plan.sink.clone(), shard)).await;
    match asked {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::warn!(%shard, error = &*error as &dyn std::error::Error, "the history cannot be asked how far it is");
            None
        }
        Err(_) => {
            tracing::warn!(%shard, "the history does not say how far it is");
            None
        }
    }
}

impl Known<'_> {
    /// [`CentralError::Restored`] if the history knows more.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub(crate) async fn lost<S: Store>(
        &self,
        store: &mut S,
        witness: &Witness,
    ) -> Result<Option<CentralError>, CentralError> {
        // What later epochs told is not what the history knows, though it may have the same numbers.
        let later = store.outbox_after_epoch(self.shard, witness.epoch.number).await?;
        let events = later.map_or(self.events, |(first, _)| first - 1);
        Ok(self.has_lost(events, witness).then(|| CentralError::Restored {
            shard: self.shard,
            head: self.head.get(),
            events,
            change: witness.change.unwrap_or(Seq::ZERO).get(),
            event: witness.event,
            epoch: witness.epoch.number,
        }))
    }

    /// Whether not all that the history has is there; `events`: those of epochs up to the history's. They count also where
    /// no change is among them.
    fn has_lost(&self, events: u64, witness: &Witness) -> bool {
        if newest_fork(self.lineage).is_some_and(|line| witness.epoch.number < line.epoch.number) {
            return false;
        }
        let seq = witness.change.unwrap_or(Seq::ZERO);
        let position = Position { shard: self.shard, epoch: witness.epoch, seq };
        self.lineage.judge(self.head, position) != Judgement::Past || witness.event > events
    }
}

fn newest_fork(lineage: &Lineage) -> Option<&LineageEntry> {
    lineage.entries().iter().rfind(|line| line.fork)
}

/// A fork of which the history may not have been told: its own owner may have ended too soon.
fn untold_fork(lineage: &Lineage) -> Option<&LineageEntry> {
    newest_fork(lineage).filter(|line| line.began_after == lineage.newest().began_after)
}

/// What the history is to hear of the fork that began with `line`.
async fn fork<S: Store>(
    store: &mut S,
    shard: ShardId,
    lineage: &Lineage,
    line: &LineageEntry,
    witness: &Witness,
) -> Result<Forked, CentralError> {
    let from = backed_up(lineage, witness);
    // Owners between the backup and the fork could not ask the history, and what they committed is true.
    let before = store.outbox_after_epoch(shard, witness.epoch.number).await?;
    let before = before.filter(|(_, epoch)| *epoch < line.epoch.number);
    let began = before.and_then(|(first, number)| {
        let line = lineage.entries().iter().find(|line| line.epoch.number == number)?;
        Some((line.epoch, first - 1))
    });
    let (epoch, events) = began.map_or((line.epoch, None), |(epoch, last)| (epoch, Some(last)));
    Ok(Forked { epoch, from, events })
}

/// The number of the epoch that a backup was of, or 0: the newest that it shares with what the history has.
fn backed_up(lineage: &Lineage, witness: &Witness) -> u64 {
    let is_shared = |line: &&LineageEntry| {
        line.epoch.number < witness.epoch.number || line.epoch == witness.epoch
    };
    lineage.entries().iter().rfind(is_shared).map_or(0, |line| line.epoch.number)
}

#[cfg(test)]
mod tests {
    use carillon_world::Epoch;

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
        let lineage = |lines: Vec<LineageEntry>| Lineage::try_new(lines).expect("rising");
        let plain = lineage(vec![line(1, 0, false), line(5, 50, false)]);
        let lost = |lineage: &Lineage, number, change: Option<u64>, event| {
            let witness = Witness { epoch: epoch(number), change: change.map(Seq::new), event };
            let known = Known { shard: ShardId::FIRST, lineage, head: Seq::new(50), events: 80 };
            known.has_lost(80, &witness)
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
        let forked = lineage(vec![line(1, 0, false), line(5, 50, true)]);
        assert!(!lost(&forked, 1, Some(99), 99), "cut off already");
        assert!(!lost(&forked, 5, Some(50), 80));
        assert!(lost(&forked, 5, Some(50), 81));
    }
}
