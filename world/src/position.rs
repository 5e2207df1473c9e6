//! Epochs, positions and the lineage: how anybody tells whether a position is in a shard's past.
//!
//! Each opening of a shard's database writes a line of the lineage. A position is in the past if and only if its
//! epoch has a line and its seq is not beyond where the next line began. A restart or takeover therefore resets
//! nobody, and a restore resets exactly those who saw what it lost, although it uses their seqs again.

use serde::{Deserialize, Serialize};

use crate::ids::{Seq, ShardId};

/// One opening of a shard's database by an owner: the number orders, the tag tells two restores of one backup apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch {
    pub number: u64,
    pub tag: u64,
}

/// A place in a shard's history: the epoch in which `seq` was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    pub shard: ShardId,
    pub epoch: Epoch,
    pub seq: Seq,
}

/// One line of the lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageEntry {
    pub epoch: Epoch,
    /// Every change of this epoch has a greater seq.
    pub began_after: Seq,
    /// Changes before this epoch were lost (a restore).
    pub fork: bool,
}

/// All epochs of a shard, oldest first: numbers rise strictly, `began_after` never falls. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<LineageEntry>", into = "Vec<LineageEntry>")]
pub struct Lineage(Vec<LineageEntry>);

/// How a position stands to a world. Where several positions are judged, the greater verdict counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Judgement {
    /// Answer from it.
    Past,
    /// A restore cut it off: an inventory.
    Reset,
    /// This world lags: wait, then 503.
    Behind,
}

/// The lines do not make a lineage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lineage line {line} is out of order or the lineage is empty")]
pub struct LineageError {
    pub line: usize,
}

impl Lineage {
    /// # Errors
    /// If there is no line, or numbers or `began_after` are out of order.
    pub fn try_new(lines: Vec<LineageEntry>) -> Result<Lineage, LineageError> {
        if lines.is_empty() {
            return Err(LineageError { line: 0 });
        }
        for (i, pair) in lines.windows(2).enumerate() {
            if pair[1].epoch.number <= pair[0].epoch.number
                || pair[1].began_after < pair[0].began_after
            {
                return Err(LineageError { line: i + 1 });
            }
        }
        Ok(Lineage(lines))
    }

    /// The epoch in which changes are committed.
    pub fn newest(&self) -> LineageEntry {
        *self.0.last().expect("a lineage is never empty")
    }

    pub fn entries(&self) -> &[LineageEntry] {
        &self.0
    }

    /// The newest epoch that had begun at `seq`.
    pub fn epoch_at(&self, seq: Seq) -> Epoch {
        let after = self.0.partition_point(|line| line.began_after <= seq);
        self.0[after.saturating_sub(1)].epoch
    }

    /// Judges `position` for a world of this lineage that has applied everything up to `world`.
    pub fn judge(&self, world: Seq, position: Position) -> Judgement {
        let Ok(line) =
            self.0.binary_search_by_key(&position.epoch.number, |line| line.epoch.number)
        else {
            return if position.epoch.number > self.newest().epoch.number {
                Judgement::Behind
            } else {
                Judgement::Reset
            };
        };
        if self.0[line].epoch != position.epoch {
            return Judgement::Reset;
        }
        match self.0.get(line + 1) {
            Some(next) if position.seq > next.began_after => Judgement::Reset,
            _ if position.seq <= world => Judgement::Past,
            _ => Judgement::Behind,
        }
    }

    /// Adds a line.
    ///
    /// # Errors
    /// If it does not follow the newest.
    pub fn push(&mut self, line: LineageEntry) -> Result<(), LineageError> {
        let newest = self.newest();
        if line.epoch.number <= newest.epoch.number || line.began_after < newest.began_after {
            return Err(LineageError { line: self.0.len() });
        }
        self.0.push(line);
        Ok(())
    }
}

impl TryFrom<Vec<LineageEntry>> for Lineage {
    type Error = LineageError;
    fn try_from(lines: Vec<LineageEntry>) -> Result<Lineage, LineageError> {
        Lineage::try_new(lines)
    }
}

impl From<Lineage> for Vec<LineageEntry> {
    fn from(lineage: Lineage) -> Vec<LineageEntry> {
        lineage.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u64) -> Epoch {
        Epoch { number, tag: number * 7 }
    }

    fn at(epoch: Epoch, seq: u64) -> Position {
        Position { shard: ShardId::FIRST, epoch, seq: Seq::new(seq) }
    }

    fn lineage(lines: &[(u64, u64)]) -> Lineage {
        let line = |&(number, after)| LineageEntry {
            epoch: epoch(number),
            began_after: Seq::new(after),
            fork: false,
        };
        Lineage::try_new(lines.iter().map(line).collect()).expect("in order")
    }

    #[test]
    fn a_restart_resets_nobody() {
        let l = lineage(&[(1, 0), (5, 10)]);
        assert_eq!(l.judge(Seq::new(10), at(epoch(1), 10)), Judgement::Past);
        assert_eq!(l.judge(Seq::new(9), at(epoch(1), 10)), Judgement::Behind);
        assert_eq!(l.judge(Seq::new(10), at(epoch(5), 11)), Judgement::Behind);
    }

    #[test]
    fn a_restore_resets_those_who_saw_what_it_lost() {
        let l = lineage(&[(1, 0), (5, 10)]);
        assert_eq!(l.judge(Seq::new(30), at(epoch(1), 11)), Judgement::Reset);
        assert_eq!(
            l.judge(Seq::new(30), at(epoch(4), 8)),
            Judgement::Reset,
            "an epoch that was cut off"
        );
        assert_eq!(
            l.judge(Seq::new(30), at(epoch(6), 8)),
            Judgement::Behind,
            "an epoch yet unheard of"
        );
        let twin = Epoch { number: 5, tag: 1 };
        assert_eq!(
            l.judge(Seq::new(30), at(twin, 8)),
            Judgement::Reset,
            "the same backup restored twice"
        );
    }

    #[test]
    fn the_epoch_of_a_seq_is_the_newest_that_had_begun() {
        let l = lineage(&[(1, 0), (5, 10), (7, 10)]);
        assert_eq!(l.epoch_at(Seq::new(0)), epoch(1));
        assert_eq!(l.epoch_at(Seq::new(9)), epoch(1));
        assert_eq!(l.epoch_at(Seq::new(10)), epoch(7));
        assert_eq!(l.epoch_at(Seq::new(99)), epoch(7));
    }

    #[test]
    fn lines_out_of_order_are_refused() {
        let line = |number, after| LineageEntry {
            epoch: epoch(number),
            began_after: Seq::new(after),
            fork: false,
        };
        assert!(Lineage::try_new(vec![]).is_err());
        assert!(Lineage::try_new(vec![line(2, 0), line(2, 1)]).is_err());
        assert!(Lineage::try_new(vec![line(1, 5), line(2, 4)]).is_err());
    }
}
