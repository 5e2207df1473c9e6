//! What a person sees while a run goes on, on standard error: progress bars and a live table at a terminal, else a
//! line now and then.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use super::live::{Counts, Live};
use super::plan::Kind;

const TABLE_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What the table shows; each row fits 80 columns.
const ROWS: [&str; 5] = ["clients", "edge", "written", "changed", "deliveries"];

#[derive(Debug)]
pub(super) struct Show {
    /// `None` if nobody watches.
    terminal: Option<MultiProgress>,
    began: Instant,
}

impl Show {
    pub(super) fn new() -> Self {
        let terminal = io::stderr().is_terminal().then(MultiProgress::new);
        Self { terminal, began: Instant::now() }
    }

    /// Says one thing that stays.
    pub(super) fn say(&self, text: &str) {
        let line = format!("{:6.1} s  {text}", self.began.elapsed().as_secs_f64());
        match &self.terminal {
            Some(terminal) => drop(terminal.println(line)),
            // Nobody is left to tell if standard error is closed.
            None => drop(writeln!(io::stderr(), "{line}")),
        }
    }

    /// A bar of `total` steps; shown only at a terminal.
    pub(super) fn bar(&self, what: &'static str, total: u64) -> ProgressBar {
        let Some(terminal) = &self.terminal else { return ProgressBar::hidden() };
        let style = "{prefix:>10}  {bar:40} {human_pos} of {human_len}";
        let style = ProgressStyle::with_template(style).expect("a template");
        terminal.add(ProgressBar::new(total).with_style(style).with_prefix(what))
    }

    /// Shows `live` until the returned task is aborted.
    pub(super) fn watch(&self, live: Arc<Live>, clients: u64) -> Watch {
        let began = self.began;
        let rows = self.terminal.as_ref().map(|terminal| {
            let style = ProgressStyle::with_template("{prefix:>10}  {msg}").expect("a template");
            ROWS.map(|what| {
                terminal.add(ProgressBar::new_spinner().with_style(style.clone()).with_prefix(what))
            })
        });
        let shown = rows.clone();
        let task = tokio::spawn(async move {
            let mut before = (Instant::now(), 0);
            loop {
                let every = if rows.is_some() { TABLE_EVERY } else { LINE_EVERY };
                tokio::time::sleep(every).await;
                let counts = live.counts();
                let passed = before.0.elapsed().as_secs_f64();
                let rate = (counts.deliveries - before.1) as f64 / passed;
                before = (Instant::now(), counts.deliveries);
                let cells = cells(&counts, clients, rate);
                match &rows {
                    Some(rows) => {
                        rows.iter().zip(cells).for_each(|(row, cell)| row.set_message(cell));
                    }
                    None => {
                        let elapsed = began.elapsed().as_secs_f64();
                        let _ = writeln!(io::stderr(), "{elapsed:6.1} s  {}", cells.join("; "));
                    }
                }
            }
        });
        Watch { task, rows: shown }
    }
}

/// A table that is being shown; dropping it takes it away.
#[derive(Debug)]
pub(super) struct Watch {
    task: JoinHandle<()>,
    rows: Option<[ProgressBar; ROWS.len()]>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
        self.rows.iter().flatten().for_each(ProgressBar::finish_and_clear);
    }
}

fn cells(counts: &Counts, clients: u64, rate: f64) -> [String; ROWS.len()] {
    let Counts { connected, failures, at_rest, deliveries, p50_ms, p99_ms, .. } = counts;
    let resting = if *at_rest > 0 { format!(", {at_rest} at rest") } else { String::new() };
    let edge = match (counts.edge_is_up, counts.happened.count(Kind::Kill)) {
        (false, _) => "killed",
        (true, 0) => "up",
        (true, _) => "up again",
    };
    let events = |kinds: &[Kind]| {
        let event = |kind: &Kind| format!("{} {}", kind.name(), counts.happened.count(*kind));
        kinds.iter().map(event).collect::<Vec<_>>().join(", ")
    };
    [
        format!("{connected} of {clients} connected{resting}"),
        format!("{edge}, {failures} requests failed"),
        events(&[Kind::Send, Kind::Schedule, Kind::Expire, Kind::Kill]),
        events(&[Kind::EditContent, Kind::EditRecipients, Kind::Recall, Kind::Move]),
        format!("{deliveries}, {rate:.0}/s, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_happened() {
        let live = Live::new(2);
        live.note_connected();
        live.note_event(Kind::Send);
        live.note_event(Kind::Send);
        live.note_event(Kind::Kill);
        let [clients, edge, written, changed, deliveries] = cells(&live.counts(), 2, 0.4);
        assert_eq!(clients, "1 of 2 connected");
        assert_eq!(edge, "up again, 0 requests failed");
        assert_eq!(written, "send 2, schedule 0, expire 0, edge kill 1");
        assert_eq!(changed, "edit content 0, edit recipients 0, recall 0, move 0");
        assert_eq!(deliveries, "0, 0/s, p50 0.0 ms, p99 0.0 ms");
    }
}
