//! To a broker that acknowledges it, and back.

use std::collections::BTreeMap;
use std::time::Instant;

use carillon_persist::history::kafka::{KafkaOptions, Producer, Reader, Start};
use carillon_world::ShardId;

use super::super::{BenchError, Figure, Goal, Spread, print};
use super::{failed, record, records};
use crate::history::Broker;

const RECORDS: u64 = 500_000;
const ROUNDS: u64 = 5;
/// Records of one call, as a publisher takes them off the outbox.
const CALL_RECORDS: usize = 10_000;

pub(super) async fn run() -> Result<(), BenchError> {
    let broker = Broker::start();
    let options = KafkaOptions::new(broker.brokers(), broker.topic());
    let mut producer = Producer::open(&options, ShardId::FIRST).await.map_err(failed)?;
    // Makes the topic.
    producer.send(&records(1..=1)).await.map_err(failed)?;
    let mut bytes = Vec::new();
    record(RECORDS).write_json(&mut bytes);
    let mut sent = Vec::new();
    for round in 0..ROUNDS {
        let from = 2 + round * RECORDS;
        let records = records(from..=from + RECORDS - 1);
        let begun_at = Instant::now();
        for records in records.chunks(CALL_RECORDS) {
            producer.send(records).await.map_err(failed)?;
        }
        sent.push(RECORDS as f64 / begun_at.elapsed().as_secs_f64());
    }
    let last = 1 + ROUNDS * RECORDS;
    let mut read = Vec::new();
    let begun_at = Instant::now();
    let starts = BTreeMap::from([(0, Start::Earliest)]);
    let mut reader = Reader::open(&options, &starts).await.map_err(failed)?;
    let (mut next, mut round) = (1, (1, begun_at));
    while next <= last {
        let batch = reader.next().await.map_err(failed)?;
        for record in batch.records {
            if record.id.seq != next {
                return Err(BenchError(format!("{:?} came instead of {next}", record.id)));
            }
            next += 1;
        }
        if next - round.0 >= RECORDS || next > last {
            read.push((next - round.0) as f64 / round.1.elapsed().as_secs_f64());
            round = (next, Instant::now());
        }
    }
    let against = format!("records of {} bytes to tansu, in calls of {CALL_RECORDS}", bytes.len());
    let spread = Spread::of(&sent);
    print(&Figure {
        figure: "history_into_the_broker".to_owned(),
        value: spread.median,
        unit: "events/s",
        against: format!("{against}; {spread}"),
        goal: Goal::AtLeast(100_000.0),
    });
    let spread = Spread::of(&read);
    print(&Figure {
        figure: "history_out_of_the_broker".to_owned(),
        value: spread.median,
        unit: "events/s",
        against: format!("{against}, read back and parsed; {spread}"),
        goal: Goal::None,
    });
    Ok(())
}
