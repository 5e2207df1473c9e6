//! `carillon archive`: takes the history from its topic into the lake.
//!
//! It keeps nothing of its own. How far a partition has been taken stands in the lake's newest commit of it, so what a
//! killed archiver had not committed is read again, and no record is in the lake twice. It reads only while less waits
//! than it may hold, and a lake that cannot be reached stops it from reading until it can.

mod metrics;
mod ops;
mod partition;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use carillon_persist::history::kafka::{Batch, KafkaError, KafkaOptions, Reader};
use carillon_persist::history::lake::{Lake, LakeError};
use tokio::time::Instant;

use self::metrics::Metrics;
use self::partition::Partition;
use crate::config::{ArchiveSettings, Settings};
use crate::exporter::Exporter;
use crate::failure::Failure;
use crate::history;
use crate::signals::Signals;

/// Pauses between attempts after an error, from the first to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error("history.kafka_brokers and history.lake are needed")]
    Incomplete,
    #[error("the topic has {there} partitions, and archive.partitions names {named}")]
    NoPartition { named: u16, there: u16 },
    #[error("what was read could not be written in {0:?}; it will be read again")]
    Late(Duration),
}

impl ArchiveError {
    /// Whether trying again mends nothing.
    fn is_lasting(&self) -> bool {
        match self {
            ArchiveError::Kafka(error) => matches!(
                error,
                KafkaError::Setting { .. }
                    | KafkaError::Client { .. }
                    | KafkaError::OutOfRange { .. }
            ),
            ArchiveError::Lake(error) => !matches!(error, LakeError::Unavailable { .. }),
            ArchiveError::Incomplete | ArchiveError::NoPartition { .. } => true,
            ArchiveError::Late(_) => false,
        }
    }
}

/// Runs until a signal comes, then writes what it has read.
///
/// # Errors
/// [`Failure::Archive`] for what does not pass by itself, and for what could not be written at the end.
pub(crate) async fn run(settings: &Settings) -> Result<(), Failure> {
    let mut signals = Signals::catch().map_err(Failure::Signals)?;
    let metrics = Arc::new(Metrics::default());
    if let Some(address) = settings.archive.ops_listen.0 {
        let listening = ops::listen(address, metrics.clone()).await;
        listening.map_err(|source| Failure::Ops { address, source })?;
    }
    let _exporter = Exporter::start(&settings.metrics, &[ops::scrape(&metrics)]);
    let mut archiver = Archiver::new(settings, metrics).map_err(Failure::Archive)?;
    let signal = tokio::select! {
        error = archiver.run() => return Err(Failure::Archive(error)),
        signal = signals.next() => signal,
    };
    tracing::info!(signal, "draining");
    let drain_max: Duration = settings.process.drain_max;
    tokio::select! {
        ended = tokio::time::timeout(drain_max, archiver.flush_all()) => {
            ended.unwrap_or(Err(ArchiveError::Late(drain_max))).map_err(Failure::Archive)?;
        }
        _ = signals.next() => return Err(Failure::Hurried),
    }
    tracing::info!("stopped");
    Ok(())
}

#[derive(Debug)]
struct Archiver {
    kafka: KafkaOptions,
    lake: Lake,
    settings: ArchiveSettings,
    metrics: Arc<Metrics>,
    /// By number. Complete once there is a reader.
    partitions: BTreeMap<i32, Partition>,
    reader: Option<Reader>,
}

impl Archiver {
    fn new(settings: &Settings, metrics: Arc<Metrics>) -> Result<Archiver, ArchiveError> {
        let kafka = history::kafka(&settings.history).ok_or(ArchiveError::Incomplete)?;
        let lake = history::lake(&settings.history).ok_or(ArchiveError::Incomplete)?;
        kafka.check()?;
        Ok(Archiver {
            kafka,
            lake: Lake::open(&lake)?,
            settings: settings.archive.clone(),
            metrics,
            partitions: BTreeMap::new(),
            reader: None,
        })
    }

    /// Works until something fails for good. Cancel safe: what was read and not written is still there.
    async fn run(&mut self) -> ArchiveError {
        let mut pause = PAUSE_FIRST;
        loop {
            let begun_at = Instant::now();
            let Err(error) = self.work().await;
            self.metrics.is_ready.set(0);
            if error.is_lasting() {
                return error;
            }
            self.metrics.failures.inc();
            if begun_at.elapsed() > PAUSE_MAX {
                pause = PAUSE_FIRST;
            }
            let cause = error.source().map(ToString::to_string);
            tracing::warn!(%error, cause, ?pause, "the archiver tries again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn work(&mut self) -> Result<Infallible, ArchiveError> {
        loop {
            self.flush_due().await?;
            if self.reader.is_none() {
                self.begin().await?;
                continue;
            }
            self.metrics.is_ready.set(1);
            let due = self.partitions.values().filter_map(|partition| partition.due()).min();
            let reader = self.reader.as_mut().expect("looked for above");
            let batch = tokio::select! {
                batch = reader.next() => batch,
                () = until(due) => continue,
            };
            match batch {
                Ok(batch) => self.take(&batch),
                Err(error) => {
                    self.reader = None;
                    return Err(error.into());
                }
            }
        }
    }

    /// Becomes the writer of each partition, and reads on from where the lake ends.
    async fn begin(&mut self) -> Result<(), ArchiveError> {
        let there = Reader::partitions(&self.kafka).await?;
        let wanted = match &self.settings.partitions {
            Some(partitions) => partitions.0.clone(),
            None => (0..there).collect(),
        };
        for number in wanted {
            if number >= there {
                return Err(ArchiveError::NoPartition { named: number, there });
            }
            let number = i32::from(number);
            if !self.partitions.contains_key(&number) {
                let source = format!("{}-{number}", self.kafka.topic);
                let writer = self.lake.resume(&source).await?;
                let partition = Partition::new(number, writer, self.settings.flush_interval);
                self.partitions.insert(number, partition);
            }
        }
        loop {
            let starts = self.partitions.iter().map(|(n, partition)| (*n, partition.start()));
            match Reader::open(&self.kafka, &starts.collect()).await {
                Ok(reader) => {
                    self.reader = Some(reader);
                    tracing::info!(
                        topic = self.kafka.topic,
                        partitions = self.partitions.len(),
                        "the archiver reads"
                    );
                    return Ok(());
                }
                // Kafka keeps a topic for a time alone. To wait would not bring them back.
                Err(KafkaError::OutOfRange { partition, low, wanted, .. }) if wanted < low => {
                    let missed = low - wanted;
                    self.metrics.missed.inc_by(missed);
                    tracing::error!(
                        partition,
                        from = wanted,
                        to = low,
                        missed,
                        "Kafka forgot messages before they were archived"
                    );
                    if let Some(partition) = self.partitions.get_mut(&partition) {
                        partition.skip_to(low);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self, batch: &Batch) {
        for unreadable in &batch.unreadable {
            tracing::error!(
                partition = batch.partition,
                offset = unreadable.offset,
                error = %unreadable.error,
                "a message of the topic is no record"
            );
        }
        self.metrics.unreadable.inc_by(batch.unreadable.len() as u64);
        let partition =
            self.partitions.get_mut(&batch.partition).expect("only what is ours is read");
        let taken = partition.take(batch);
        self.metrics.records.inc_by(taken);
        self.metrics.repeats.inc_by(batch.records.len() as u64 - taken);
        if let Some(record) = batch.records.last() {
            self.metrics.last_event_milliseconds.set(record.at.0.cast_signed());
        }
    }

    /// Writes what has waited long enough, or is too much.
    async fn flush_due(&mut self) -> Result<(), ArchiveError> {
        let now = Instant::now();
        let due = |partition: &&mut Partition| partition.due().is_some_and(|due| due <= now);
        for partition in self.partitions.values_mut().filter(due) {
            partition.flush(&self.metrics).await?;
        }
        loop {
            let sum = |of: fn(&Partition) -> usize| self.partitions.values().map(of).sum::<usize>();
            let (rows, bytes) = (sum(Partition::rows), sum(Partition::bytes));
            self.metrics.waiting_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
            let fits = rows < self.settings.flush_rows.get() && bytes < self.settings.flush_bytes.0;
            let most = self.partitions.values_mut().max_by_key(|partition| partition.bytes());
            match most.filter(|most| !fits && most.rows() > 0) {
                Some(most) => most.flush(&self.metrics).await?,
                None => return Ok(()),
            }
        }
    }

    /// Writes all that was read.
    async fn flush_all(&mut self) -> Result<(), ArchiveError> {
        for partition in self.partitions.values_mut().filter(|one| one.due().is_some()) {
            partition.flush(&self.metrics).await?;
        }
        Ok(())
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
