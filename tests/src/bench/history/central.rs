//! What telling costs central: the same changes with a history and without, in turns.

use std::time::Duration;

use super::super::{BenchError, Figure, Goal, Spread, Usage, print};
use super::failed;
use crate::cluster::{Cluster, Store, ops_get};
use crate::history::Moves;
use crate::pushes::metric;

const ROUNDS: usize = 5;
/// Each an event a move.
const DEVICES: u64 = 50_000;
/// Of all devices, in a round.
const MOVES: u64 = 4;

pub(super) async fn run() -> Result<(), BenchError> {
    let mut told = Side::start("lake").await;
    let mut untold = Side::start("off").await;
    let (mut with, mut without, mut more) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (a, b) = (told.round().await?, untold.round().await?);
        with.push(a);
        without.push(b);
        more.push(a - b);
    }
    let (with, without) = (Spread::of(&with), Spread::of(&without));
    let spread = Spread::of(&more);
    print(&Figure {
        figure: "history_central_cpu".to_owned(),
        value: spread.median,
        unit: "us/event",
        against: format!(
            "moves of devices between groups on SQLite, imported: with the history, up to files in the lake, {with} us a \
             change; without {without}; more {spread}"
        ),
        goal: Goal::None,
    });
    Ok(())
}

struct Side {
    cluster: Cluster,
    moves: Moves,
}

impl Side {
    async fn start(to: &str) -> Side {
        let flags = ["--history-to", to, "--history-flush-every", "1s"];
        let cluster = Cluster::start_with(Store::Sqlite, &flags, &[]).await;
        let moves = Moves::start(&cluster, DEVICES).await;
        let mut side = Side { cluster, moves };
        side.moves.all().await;
        side.quiet().await;
        side
    }

    /// Microseconds of central's processor time a change, until its history is written.
    async fn round(&mut self) -> Result<f64, BenchError> {
        let pid = self.cluster.central_pid();
        let before = Usage::of(pid).map_err(failed)?.cpu;
        for _ in 0..MOVES {
            self.moves.all().await;
        }
        self.quiet().await;
        let used = Usage::of(pid).map_err(failed)?.cpu - before;
        Ok(used.as_secs_f64() * 1e6 / (DEVICES * MOVES) as f64)
    }

    /// Waits until nothing waits to be told.
    async fn quiet(&self) {
        loop {
            let metrics = ops_get(self.cluster.admin_address(), "/metrics").await;
            let bytes = metrics.ok().and_then(|(_, text)| metric(&text, "central_outbox_bytes"));
            if bytes == Some(0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
