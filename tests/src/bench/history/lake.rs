//! Into Parquet files on the local disk, committed and synced.

use std::ops::ControlFlow;
use std::time::Instant;

use carillon_persist::history::lake::{Lake, LakeOptions, LakeUrl, Query};

use super::super::{BenchError, Figure, Goal, Spread, print};
use super::{failed, record, records};

const ROUNDS: u64 = 5;
const ROWS: u64 = 500_000;
/// Records that are on the way at a time, as the archiver reads them.
const PIECE: u64 = 10_000;

pub(super) async fn run() -> Result<(), BenchError> {
    let folder = tempfile::tempdir().map_err(failed)?;
    let lake = Lake::open(&LakeOptions::new(LakeUrl::Local(folder.path().to_owned())));
    let lake = lake.map_err(failed)?;
    let mut writer = lake.resume("shard-0").await.map_err(failed)?;
    let (mut rates, mut bytes) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        let (from, until) = (1 + round * ROWS, 1 + (round + 1) * ROWS);
        // Made before, since nobody waits for that.
        let pieces: Vec<_> = (from..until)
            .step_by(PIECE as usize)
            .map(|first| records(first..=first + PIECE - 1))
            .collect();
        let begun_at = Instant::now();
        for record in pieces.iter().flatten() {
            writer.push(record);
        }
        let done = writer.commit(until - 1).await.map_err(failed)?;
        rates.push(ROWS as f64 / begun_at.elapsed().as_secs_f64());
        bytes += done.bytes;
    }
    let mut next = 1;
    let mut wrong = None;
    let sink = |found: carillon_persist::history::Record| {
        if found != record(next) {
            wrong = Some(found);
            return ControlFlow::Break(());
        }
        next += 1;
        ControlFlow::Continue(())
    };
    lake.read(&Query::first(usize::MAX / 4), sink).await.map_err(failed)?;
    let rows = ROUNDS * ROWS;
    if let Some(found) = wrong {
        return Err(BenchError(format!("{found:?} is in the lake in the place of {next}")));
    }
    if next != rows + 1 {
        return Err(BenchError(format!("{} rows of {rows} are in the lake", next - 1)));
    }
    let spread = Spread::of(&rates);
    let against = format!("{ROWS} rows a commit into a local folder, synced, all read back");
    print(&Figure {
        figure: "history_into_parquet".to_owned(),
        value: spread.median,
        unit: "events/s",
        against: format!("{against}; {spread}"),
        goal: Goal::AtLeast(200_000.0),
    });
    print(&Figure {
        figure: "history_bytes_in_the_lake".to_owned(),
        value: bytes as f64 / rows as f64,
        unit: "bytes/event",
        against: "zstd 3; each of another device, whose pseudonym is 16 random bytes".to_owned(),
        goal: Goal::None,
    });
    Ok(())
}
