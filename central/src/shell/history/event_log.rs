//! The event log: what happens, as lines for people with `grep`.
//!
//! A thread of its own writes them, since a disk or a pipe may take any time. The publisher waits for it a little, so
//! that a kill loses no line; a place that takes nothing for longer loses lines, which are counted, and holds up nobody.
//! Where it is a file, its last line says what it has already.

mod file;

use std::time::Duration;

use carillon_persist::history::{EventLine, OutboxEvent, Record};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};

use self::file::Out;
use crate::config::{EventLogFormat, EventLogPlan};
use crate::metrics::Metrics;

/// Bytes of lines that are handed over at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that wait to be written.
const PIECES_WAITING: usize = 16;
/// How long the publisher waits for a place that takes nothing. Then it does not wait again until it takes something.
const PATIENCE: Duration = Duration::from_secs(2);

/// By which the events of a shard rise.
type Order = (u64, u64);

#[derive(Debug)]
pub(super) struct EventLog {
    plan: EventLogPlan,
    counts: Counts,
    pieces: mpsc::Sender<Piece>,
    /// How many pieces were written or given up.
    done: watch::Receiver<u64>,
    sent: u64,
    /// The last event that was told, so that one that is read again is not.
    told: Option<Order>,
    /// The place took nothing when it was last waited for.
    is_stuck: bool,
}

/// Of lines.
#[derive(Clone, Debug)]
struct Counts {
    written: Counter,
    lost: Counter,
}

#[derive(Debug)]
struct Piece {
    text: Vec<u8>,
    lines: u64,
}

impl EventLog {
    /// Starts the thread, and looks how far the log is. Whatever the place is, this succeeds: what cannot be written is
    /// counted.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) async fn start(plan: EventLogPlan, metrics: &Metrics) -> std::io::Result<EventLog> {
        let (pieces, inbox) = mpsc::channel(PIECES_WAITING);
        let (written, done) = watch::channel(0);
        let (opened, last) = tokio::sync::oneshot::channel();
        let counts = Counts {
            written: metrics.event_log_lines.clone(),
            lost: metrics.event_log_lost.clone(),
        };
        let of_thread = (plan.clone(), counts.clone());
        std::thread::Builder::new().name("carillon-log".to_owned()).spawn(move || {
            let (plan, counts) = of_thread;
            let out = Out::new(&plan);
            // Nobody may be waiting any longer.
            let _ = opened.send(out.last());
            write(out, inbox, &written, &counts);
        })?;
        // A place that does not even open is stuck already, as a pipe without a reader.
        let last = tokio::time::timeout(PATIENCE, last).await;
        let is_stuck = last.is_err();
        let told = last.ok().and_then(Result::ok).flatten();
        Ok(EventLog { plan, counts, pieces, done, sent: 0, told, is_stuck })
    }

    /// Tells events, each with its record.
    pub(super) async fn take<'a>(
        &mut self,
        events: impl Iterator<Item = (&'a OutboxEvent<'a>, &'a Record)>,
    ) {
        let mut piece = Piece { text: Vec::new(), lines: 0 };
        for (event, record) in events {
            let order = record.id.order();
            if self.told.is_some_and(|told| order <= told) {
                continue;
            }
            self.told = Some(order);
            if !self.plan.wants(event.event) {
                continue;
            }
            match self.plan.device_ids {
                true => line(self.plan.format, &EventLine::of_event(record.id, event), &mut piece),
                false => line(self.plan.format, &EventLine::of_record(record), &mut piece),
            }
            if piece.text.len() >= PIECE_BYTES {
                let full = std::mem::replace(&mut piece, Piece { text: Vec::new(), lines: 0 });
                self.hand_over(full).await;
            }
        }
        if piece.lines > 0 {
            self.hand_over(piece).await;
        }
    }

    async fn hand_over(&mut self, piece: Piece) {
        let lines = piece.lines;
        let sent = match self.is_stuck {
            true => self.pieces.try_send(piece).is_ok(),
            false => {
                let sent = tokio::time::timeout(PATIENCE, self.pieces.send(piece)).await;
                self.is_stuck = sent.is_err();
                sent.is_ok_and(|sent| sent.is_ok())
            }
        };
        if sent {
            self.sent += 1;
        } else {
            self.counts.lost.inc_by(lines);
        }
    }

    /// Waits until all lines are written or given up, or nothing goes on.
    pub(super) async fn settle(&mut self) {
        let sent = self.sent;
        if self.is_stuck && *self.done.borrow() < sent {
            return;
        }
        let written = self.done.wait_for(|done| *done >= sent);
        let was_stuck = self.is_stuck;
        self.is_stuck = tokio::time::timeout(PATIENCE, written).await.is_err();
        if self.is_stuck && !was_stuck {
            tracing::warn!(to = %self.plan.to, "the event log takes no lines; the history goes on without it");
        }
    }
}

fn line<D: std::fmt::Display>(format: EventLogFormat, line: &EventLine<'_, D>, piece: &mut Piece) {
    match format {
        EventLogFormat::Json => line.write_json(&mut piece.text),
        EventLogFormat::Csv => line.write_csv(&mut piece.text),
    }
    piece.lines += 1;
}

/// Writes until nobody tells anything any more. A failure is said once, until it is over.
fn write(
    mut out: Out,
    mut inbox: mpsc::Receiver<Piece>,
    written: &watch::Sender<u64>,
    counts: &Counts,
) {
    let mut has_failed = false;
    while let Some(piece) = inbox.blocking_recv() {
        match out.write(&piece.text) {
            Ok(()) => {
                counts.written.inc_by(piece.lines);
                if std::mem::take(&mut has_failed) {
                    tracing::info!("the event log is written again");
                }
            }
            Err((error, lost)) => {
                counts.lost.inc_by(lost);
                counts.written.inc_by(piece.lines.saturating_sub(lost));
                if !std::mem::replace(&mut has_failed, true) {
                    tracing::warn!(%error, lost, "the event log cannot be written; lines are lost until it can");
                }
            }
        }
        written.send_modify(|done| *done += 1);
    }
}
