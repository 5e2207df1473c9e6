//! One partition on its way into the lake.

use std::time::Duration;

use carillon_persist::history::kafka::{Batch, Start};
use carillon_persist::history::lake::{LakeError, LakeWriter};
use tokio::time::Instant;

use super::metrics::Metrics;

#[derive(Debug)]
pub(super) struct Partition {
    number: i32,
    writer: LakeWriter,
    /// The offset after the last message that was read; `None` if none ever was.
    next: Option<u64>,
    /// When something was read that the lake does not know of yet.
    since: Option<Instant>,
    flush_interval: Duration,
}

impl Partition {
    pub(super) fn new(number: i32, writer: LakeWriter, flush_interval: Duration) -> Partition {
        let next = writer.end();
        Partition { number, writer, next, since: None, flush_interval }
    }

    /// Where to read on.
    pub(super) fn start(&self) -> Start {
        self.next.map_or(Start::Earliest, Start::At)
    }

    /// Reads on later than where it stood, because there is nothing before.
    pub(super) fn skip_to(&mut self, offset: u64) {
        self.next = Some(offset);
        self.since.get_or_insert_with(Instant::now);
    }

    /// Takes what the lake does not have, and gives how much that was.
    pub(super) fn take(&mut self, batch: &Batch) -> u64 {
        let mut taken = 0;
        for record in &batch.records {
            taken += u64::from(self.writer.push(record));
        }
        self.next = Some(batch.end);
        self.since.get_or_insert_with(Instant::now);
        taken
    }

    /// When it is to be written, whatever else comes; `None` if there is nothing to write.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + self.flush_interval)
    }

    pub(super) fn rows(&self) -> usize {
        self.writer.rows()
    }

    pub(super) fn bytes(&self) -> usize {
        self.writer.bytes()
    }

    /// Cancel safe: then it is still to be written.
    pub(super) async fn flush(&mut self, metrics: &Metrics) -> Result<(), LakeError> {
        let Some(end) = self.next else { return Ok(()) };
        let begun_at = Instant::now();
        let done = self.writer.commit(end).await?;
        self.since = None;
        metrics.commits.inc();
        metrics.rows.inc_by(done.rows);
        metrics.files.inc_by(done.files as u64);
        metrics.bytes.inc_by(done.bytes);
        tracing::info!(
            partition = self.number,
            end,
            rows = done.rows,
            files = done.files,
            bytes = done.bytes,
            took = ?begun_at.elapsed(),
            "written to the lake"
        );
        Ok(())
    }
}
