//! Which line of the lineage a claim writes: the same rule for both stores, and for one that is simulated.

use carillon_world::{Epoch, Lineage, LineageEntry, Millis, Seq, ShardId};

use crate::{EpochClaim, Opening, StoreError};

/// The lease row of a shard and its lineage, as they are in the store. A shard without an epoch has neither.
#[derive(Clone, Debug)]
pub struct Holding {
    pub epoch: Epoch,
    pub head: Seq,
    pub horizon: Seq,
    pub lineage: Vec<LineageEntry>,
    /// The number of the last event of the history.
    pub events: u64,
}

/// What to do about a claim.
#[derive(Debug)]
pub enum Verdict {
    /// Write the last line of the opening's lineage and its epoch into the lease, then commit.
    Begin(Opening),
    /// This very claim was committed before.
    Begun(Opening),
}

/// Numbers stay below 2^62, so that they sort rightly as signed integers.
const NUMBER_MAX: u64 = 1 << 62;

/// Judges a claim against what the store holds.
///
/// # Errors
/// [`StoreError::Fenced`] by rule, [`StoreError::Damaged`] if lease and lineage disagree.
pub fn judge_claim(
    shard: ShardId,
    holding: Holding,
    claim: EpochClaim,
    clock: Millis,
) -> Result<Verdict, StoreError> {
    let Holding { epoch, head, horizon, lineage, events } = holding;
    let newest = lineage.last().copied();
    let lineage = match newest {
        Some(_) => Some(Lineage::try_new(lineage).map_err(|error| damaged(error.to_string()))?),
        None => None,
    };
    if newest.is_some_and(|line| line.epoch != epoch || line.began_after > head)
        || (newest.is_none() && epoch.number > 0)
    {
        let (number, tag) = (epoch.number, epoch.tag);
        let of_lease =
            format!("the lease of shard {shard} is of epoch {number} (tag {tag}) at {head}");
        return Err(damaged(match newest {
            None => format!("it is empty, and {of_lease}"),
            Some(line) => format!(
                "its newest line for shard {shard} is epoch {} (tag {}) from {} on, and {of_lease}",
                line.epoch.number, line.epoch.tag, line.began_after
            ),
        }));
    }
    if let Some(lineage) = &lineage
        && epoch.tag == claim.tag
    {
        return Ok(Verdict::Begun(Opening {
            lineage: lineage.clone(),
            head,
            horizon,
            epoch,
            events,
        }));
    }
    if let Some(held) = claim.held
        && held != epoch
    {
        return Err(StoreError::Fenced { shard, held, lineage });
    }
    let number = (epoch.number + 1).max(clock.0).max(claim.number_min);
    if number >= NUMBER_MAX {
        return Err(StoreError::invalid(format!("an epoch numbered {number}")));
    }
    let epoch = Epoch { number, tag: claim.tag };
    let line = LineageEntry { epoch, began_after: head, fork: claim.fork };
    let lineage = match lineage {
        Some(mut lineage) => {
            lineage.push(line).expect("a greater number, at the head");
            lineage
        }
        None => Lineage::try_new(vec![line]).expect("one line is a lineage"),
    };
    Ok(Verdict::Begin(Opening { lineage, head, horizon, epoch, events }))
}

fn damaged(detail: String) -> StoreError {
    StoreError::Damaged { table: "lineage", detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(tag: u64) -> EpochClaim {
        EpochClaim { tag, held: None, number_min: 0, fork: false }
    }

    fn fresh() -> Holding {
        Holding {
            epoch: Epoch { number: 0, tag: 0 },
            head: Seq::ZERO,
            horizon: Seq::ZERO,
            lineage: vec![],
            events: 0,
        }
    }

    fn after(opening: &Opening, head: u64) -> Holding {
        let lineage = opening.lineage.entries().to_vec();
        Holding {
            epoch: opening.epoch,
            head: Seq::new(head),
            horizon: Seq::ZERO,
            lineage,
            events: 0,
        }
    }

    fn begin(holding: Holding, claim: EpochClaim, clock: u64) -> Opening {
        match judge_claim(ShardId::FIRST, holding, claim, Millis(clock)).unwrap() {
            Verdict::Begin(opening) => opening,
            Verdict::Begun(opening) => panic!("{opening:?} had begun"),
        }
    }

    #[test]
    fn numbers_follow_the_clock_the_last_epoch_and_the_witnesses_whichever_is_highest() {
        let first = begin(fresh(), claim(1), 1000);
        assert_eq!(first.epoch, Epoch { number: 1000, tag: 1 });
        let second = begin(after(&first, 7), claim(2), 400);
        assert_eq!(second.epoch.number, 1001, "the clock ran back");
        assert_eq!(second.lineage.newest().began_after, Seq::new(7));
        let third = begin(after(&second, 7), EpochClaim { number_min: 5000, ..claim(3) }, 400);
        assert_eq!(third.epoch.number, 5000);
        assert_eq!(third.lineage.entries().len(), 3);
    }

    #[test]
    fn a_claim_made_twice_begins_one_epoch() {
        let first = begin(fresh(), claim(1), 1000);
        let again = judge_claim(ShardId::FIRST, after(&first, 3), claim(1), Millis(2000)).unwrap();
        assert!(
            matches!(again, Verdict::Begun(opening) if opening.epoch == first.epoch && opening.head == Seq::new(3))
        );
    }

    #[test]
    fn a_claim_on_an_epoch_that_ended_is_fenced_and_shows_where_it_ended() {
        let mine = begin(fresh(), claim(1), 1000);
        let theirs = begin(after(&mine, 9), claim(2), 1000);
        let again = EpochClaim { held: Some(mine.epoch), ..claim(3) };
        let error = judge_claim(ShardId::FIRST, after(&theirs, 12), again, Millis(0)).unwrap_err();
        let StoreError::Fenced { lineage: Some(lineage), .. } = error else { panic!("{error:?}") };
        assert_eq!(lineage.entries()[1].began_after, Seq::new(9));
        let emptied = judge_claim(ShardId::FIRST, fresh(), again, Millis(0)).unwrap_err();
        assert!(matches!(emptied, StoreError::Fenced { lineage: None, .. }));
    }

    #[test]
    fn a_lease_that_disagrees_with_the_lineage_is_damage() {
        let opening = begin(fresh(), claim(1), 1000);
        let mut holding = after(&opening, 9);
        holding.epoch.tag = 5;
        assert!(matches!(
            judge_claim(ShardId::FIRST, holding, claim(2), Millis(0)),
            Err(StoreError::Damaged { .. })
        ));
        let mut holding = after(&opening, 9);
        holding.lineage.clear();
        assert!(matches!(
            judge_claim(ShardId::FIRST, holding, claim(2), Millis(0)),
            Err(StoreError::Damaged { .. })
        ));
    }
}
