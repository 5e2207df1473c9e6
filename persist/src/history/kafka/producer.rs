//! Writes a shard's records to the topic.

use std::sync::Arc;
use std::sync::mpsc;

use carillon_world::ShardId;
use tokio::sync::{Semaphore, oneshot};

use super::error::KafkaError;
use super::message::Piece;
use super::options::KafkaOptions;
use super::topic::{self, Tail};
use super::worker::{Job, Worker};
use crate::history::Record;

/// Records that are made JSON at a time, less than a millisecond of work.
const PIECE_RECORDS: usize = 500;
/// Pieces on their way to the thread, so that it has work while the next is made.
const PIECES_MAX: usize = 4;

/// Writes to the topic through a thread of its own, which ends soon after this is dropped.
#[derive(Debug)]
pub struct Producer {
    options: KafkaOptions,
    shard: ShardId,
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
}

impl Producer {
    /// Reaches no broker yet: the first [`Producer::send`] does, and creates the topic if there is none. To be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// [`KafkaError::Setting`] or [`KafkaError::Client`] for options that can never work.
    pub async fn open(options: &KafkaOptions, shard: ShardId) -> Result<Producer, KafkaError> {
        options.check()?;
        let (jobs, received) = mpsc::channel();
        let (opened, answer) = oneshot::channel();
        let worker = Worker::new(options.clone(), shard, tokio::runtime::Handle::current());
        std::thread::Builder::new()
            .name(format!("kafka-{shard}"))
            .spawn(move || worker.run(&received, opened))
            .map_err(|error| KafkaError::Client { what: error.to_string() })?;
        answer.await.map_err(|_| KafkaError::Ended)??;
        let room = Arc::new(Semaphore::new(PIECES_MAX));
        Ok(Producer { options: options.clone(), shard, jobs, room })
    }

    /// Sends records that follow each other, and returns when the brokers have acknowledged all. RAM is taken for a
    /// bounded number of them at a time.
    ///
    /// After an error, and after this was cancelled, the topic may have any number of the first of them; so the next
    /// call has to begin with the same record, or some would be missed by those who read.
    ///
    /// # Errors
    /// See [`KafkaError`]; [`KafkaError::Ended`] is final. Waits at most for `wait_max` without any progress.
    ///
    /// # Panics
    /// If a record is of another shard, which is our own fault.
    pub async fn send(&mut self, records: &[Record]) -> Result<(), KafkaError> {
        assert!(records.iter().all(|record| record.id.shard == self.shard), "one shard's records");
        let (done, mut answer) = oneshot::channel();
        self.put(Job::Begin(done))?;
        for records in records.chunks(PIECE_RECORDS) {
            let piece = Piece::of(records)?;
            let room = Arc::clone(&self.room);
            let room = tokio::select! {
                room = room.acquire_owned() => room.expect("it is never closed"),
                // It failed already, so that the others need not be sent.
                failed = &mut answer => return failed.map_err(|_| KafkaError::Ended)?,
            };
            self.put(Job::Piece(piece, room))?;
        }
        self.put(Job::End)?;
        answer.await.map_err(|_| KafkaError::Ended)?
    }

    /// The greatest of the shard's records in the topic, at least the last that was acknowledged to anyone; `None` if
    /// there is none. Cancel safe.
    ///
    /// # Errors
    /// If it cannot be read, or takes longer than `wait_max`.
    pub async fn tail(&self) -> Result<Option<Tail>, KafkaError> {
        topic::tail(&self.options, self.shard).await
    }

    fn put(&self, job: Job) -> Result<(), KafkaError> {
        self.jobs.send(job).map_err(|_| KafkaError::Ended)
    }
}
