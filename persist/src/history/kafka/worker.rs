//! The thread of a [`super::Producer`]: owns librdkafka's client, whose calls block.
//!
//! A call of `send` is [`Job::Begin`], pieces and [`Job::End`]. A client is thrown away when a call did not end well, as
//! one that was cancelled did not: what it has in flight is unknown, and the next call begins with the same records.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use carillon_world::ShardId;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::client::{Told, made_wrong};
use super::error::KafkaError;
use super::message::{self, Piece};
use super::options::KafkaOptions;
use super::topic;

/// How often acknowledgements are looked for while some are awaited; librdkafka's wait does not end early.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How often an idle client's events are taken, which pile up otherwise.
const IDLE_EVERY: Duration = Duration::from_secs(1);

/// What a call of `send` waits for.
type Done = oneshot::Sender<Result<(), KafkaError>>;

#[derive(Debug)]
pub(super) enum Job {
    Begin(Done),
    /// With its share of what may be on the way.
    Piece(Piece, OwnedSemaphorePermit),
    End,
}

/// Counts what comes back.
#[derive(Debug, Default)]
struct Tracker {
    told: Told,
    acknowledged: AtomicUsize,
    failed: AtomicUsize,
}

impl ClientContext for Tracker {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.told.log(level, facility, text);
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.told.error(error, reason);
    }
}

impl ProducerContext for Tracker {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => self.acknowledged.fetch_add(1, Ordering::Relaxed),
            Err((error, _)) => {
                // The first says why; those that follow only that they follow.
                if self.failed.load(Ordering::Relaxed) == 0 {
                    self.told.note(error.to_string());
                }
                self.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

struct Client {
    producer: BaseProducer<Tracker>,
    /// Found at the first record.
    partition: Option<i32>,
    sent: usize,
}

pub(super) struct Worker {
    options: KafkaOptions,
    shard: ShardId,
    runtime: Handle,
    client: Option<Client>,
    /// The call that is on, unless it has failed already.
    call: Option<Done>,
}

impl Worker {
    pub(super) fn new(options: KafkaOptions, shard: ShardId, runtime: Handle) -> Worker {
        Worker { options, shard, runtime, client: None, call: None }
    }

    pub(super) fn run(
        mut self,
        jobs: &Receiver<Job>,
        opened: oneshot::Sender<Result<(), KafkaError>>,
    ) {
        let made = self.client().map(drop);
        // Who waits no longer for it has dropped the sender of jobs too.
        let is_made = made.is_ok();
        if opened.send(made).is_err() || !is_made {
            return;
        }
        loop {
            match jobs.recv_timeout(IDLE_EVERY) {
                Ok(Job::Begin(done)) => {
                    if self.call.is_some() {
                        // The last call was cancelled, with records on their way.
                        self.client = None;
                    }
                    self.call = Some(done);
                }
                Ok(Job::Piece(piece, _room)) => self.step(|worker| worker.send(&piece)),
                Ok(Job::End) => {
                    self.step(Worker::settle);
                    if let Some(done) = self.call.take() {
                        // Whoever is not there to hear it sends the same again, which those who read drop.
                        let _ = done.send(Ok(()));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(client) = &self.client {
                        client.producer.poll(Duration::ZERO);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// One step of the call that is on, if one is; if it fails, the call has.
    fn step(&mut self, work: impl FnOnce(&mut Worker) -> Result<(), KafkaError>) {
        if self.call.is_none() {
            return;
        }
        if let Err(error) = work(self) {
            self.client = None;
            if let Some(done) = self.call.take() {
                // Nobody waits if the call was cancelled.
                let _ = done.send(Err(error));
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.call.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn client(&mut self) -> Result<&mut Client, KafkaError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let mut config = self.options.client()?;
                for (name, value) in OURS {
                    config.set(*name, *value);
                }
                let producer = BaseProducer::from_config_and_context(&config, Tracker::default())
                    .map_err(made_wrong)?;
                Client { producer, partition: None, sent: 0 }
            }
        };
        Ok(self.client.insert(client))
    }

    fn send(&mut self, piece: &Piece) -> Result<(), KafkaError> {
        let partition = match self.client()?.partition {
            Some(partition) => partition,
            None => {
                let partitions = topic::ensure(&self.options, &self.runtime)?;
                let partition = topic::partition_of(self.shard, partitions);
                *self.client()?.partition.insert(partition)
            }
        };
        let key = self.shard.get().to_string();
        let topic = self.options.topic.clone();
        for (id, text) in piece.iter() {
            let mut record = BaseRecord::to(&topic)
                .partition(partition)
                .key(&key)
                .payload(text)
                .headers(message::headers(&id));
            loop {
                let client = self.client()?;
                match client.producer.send(record) {
                    Ok(()) => {
                        client.sent += 1;
                        break;
                    }
                    Err((ClientError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        record = back;
                        let tracker = client.producer.context();
                        let full = client.sent - tracker.acknowledged.load(Ordering::Relaxed);
                        self.wait(|waiting| waiting <= full / 2)?;
                    }
                    Err((error, _)) => return Err(self.refused(&error.to_string())),
                }
            }
        }
        // Takes what has come back meanwhile, so that a failure is seen before the end.
        self.wait(|_| true)
    }

    fn settle(&mut self) -> Result<(), KafkaError> {
        self.wait(|waiting| waiting == 0)
    }

    /// Waits until `enough` is true of the number of records that are not acknowledged.
    fn wait(&mut self, enough: impl Fn(usize) -> bool) -> Result<(), KafkaError> {
        let Some(client) = &self.client else { return Ok(()) };
        let tracker = client.producer.context();
        let mut last = (Instant::now(), tracker.acknowledged.load(Ordering::Relaxed));
        client.producer.poll(Duration::ZERO);
        loop {
            if tracker.failed.load(Ordering::Relaxed) > 0 {
                return Err(self.refused(&tracker.told.take()));
            }
            let acknowledged = tracker.acknowledged.load(Ordering::Relaxed);
            let waiting = client.sent - acknowledged;
            if enough(waiting) {
                return Ok(());
            }
            if acknowledged > last.1 {
                last = (Instant::now(), acknowledged);
            }
            let waited = last.0.elapsed();
            if waited >= self.options.wait_max || self.is_cancelled() {
                let what = tracker.told.take();
                return Err(KafkaError::Unacknowledged { waiting, waited, what });
            }
            client.producer.poll(LOOK_EVERY);
        }
    }

    /// With the error that ended librdkafka's client, if one did, since the others only follow from it.
    fn refused(&self, what: &str) -> KafkaError {
        let fatal = self.client.as_ref().and_then(|client| client.producer.client().fatal_error());
        let what = match fatal {
            Some((code, reason)) => format!("{what}; {code}: {reason}"),
            None => what.to_owned(),
        };
        KafkaError::Refused { what }
    }
}

/// What the order of records depends on, and what is right for our sizes.
const OURS: &[(&str, &str)] = &[
    ("enable.idempotence", "true"),
    ("acks", "all"),
    // A second request could be taken although the first was refused: brokers that do not know a producer take any
    // number as its first.
    ("max.in.flight.requests.per.connection", "1"),
    ("enable.gapless.guarantee", "true"),
    // None is given up alone; `wait_max` gives up all.
    ("message.timeout.ms", "0"),
    ("queue.buffering.max.kbytes", "32768"),
    ("queue.buffering.max.messages", "100000"),
    ("linger.ms", "2"),
    ("compression.type", "lz4"),
];
