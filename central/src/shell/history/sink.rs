//! Where the history goes, and how far it is there.

use std::time::Duration;

use carillon_persist::history::Record;
use carillon_persist::history::kafka::Producer;
use carillon_persist::history::lake::{Lake, LakeWriter};
use carillon_world::{Epoch, Seq, ShardId};

use super::PublishError;
use crate::config::{HistoryPlan, HistorySink};

/// To Kafka goes what is there: its reader makes files of it.
const KAFKA_FLUSH_EVERY: Duration = Duration::ZERO;

#[derive(Debug)]
pub(super) enum Sink {
    Lake(Box<LakeWriter>),
    Kafka(Producer),
    Nowhere,
}

/// The newest that the history has of a shard: a position that the store must know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Witness {
    pub(crate) epoch: Epoch,
    /// The greatest change of this epoch that it is known to have.
    pub(crate) change: Option<Seq>,
    /// The number of its last event.
    pub(crate) event: u64,
}

/// What the lake calls a shard's outbox.
fn source(shard: ShardId) -> String {
    format!("shard-{shard}")
}

impl Sink {
    pub(super) async fn open(sink: HistorySink, shard: ShardId) -> Result<Sink, PublishError> {
        Ok(match sink {
            HistorySink::Lake(options) => {
                let writer = Lake::open(&options)?.resume(&source(shard)).await?;
                Sink::Lake(Box::new(writer))
            }
            HistorySink::Kafka(options) => Sink::Kafka(Producer::open(&options, shard).await?),
            HistorySink::Nowhere => Sink::Nowhere,
        })
    }

    /// Takes records that follow those that it took before.
    pub(super) async fn take(&mut self, records: &[Record]) -> Result<(), PublishError> {
        match self {
            // What it has already it drops.
            Sink::Lake(writer) => records.iter().for_each(|record| {
                writer.push(record);
            }),
            Sink::Kafka(producer) => producer.send(records).await?,
            Sink::Nowhere => {}
        }
        Ok(())
    }

    /// Whether records are read by anybody; else devices need no names.
    pub(super) const fn is_read(&self) -> bool {
        !matches!(self, Sink::Nowhere)
    }

    pub(super) fn is_full(&self, plan: &HistoryPlan) -> bool {
        match self {
            Sink::Lake(writer) => writer.bytes() >= plan.flush_bytes,
            Sink::Kafka(_) | Sink::Nowhere => true,
        }
    }

    pub(super) fn flush_every(&self, plan: &HistoryPlan) -> Duration {
        match self {
            Sink::Lake(_) => plan.flush_every,
            Sink::Kafka(_) | Sink::Nowhere => KAFKA_FLUSH_EVERY,
        }
    }

    /// When this returns, everything up to the event `last` is kept.
    pub(super) async fn flush(&mut self, last: u64) -> Result<(), PublishError> {
        match self {
            Sink::Lake(writer) => {
                writer.commit(last).await?;
            }
            // Acknowledged as it was taken.
            Sink::Kafka(_) | Sink::Nowhere => {}
        }
        Ok(())
    }
}

/// Asks the history how far it is.
pub(crate) async fn tail(
    sink: HistorySink,
    shard: ShardId,
) -> Result<Option<Witness>, Box<dyn std::error::Error + Send + Sync>> {
    Ok(match sink {
        HistorySink::Lake(options) => {
            let tail = Lake::open(&options)?.tail(&source(shard), shard).await?;
            tail.map(|tail| Witness { epoch: tail.epoch, change: tail.change, event: tail.seq })
        }
        HistorySink::Kafka(options) => {
            let tail = Producer::open(&options, shard).await?.tail().await?;
            tail.map(|tail| Witness { epoch: tail.epoch, change: tail.seq, event: tail.n })
        }
        HistorySink::Nowhere => None,
    })
}
