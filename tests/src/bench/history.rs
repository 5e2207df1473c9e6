//! How fast a shard's history goes to a broker that acknowledges it, and comes back.

use std::collections::BTreeMap;
use std::time::Instant;

use carillon_persist::history::kafka::{KafkaOptions, Producer, Reader, Start};
use carillon_persist::history::{EventName, Pseudonym, Record, RecordId};
use carillon_world::{AppId, Epoch, MessageId, Millis, Seq, ShardId};
use serde_json::value::RawValue;

use super::{BenchError, Figure, Goal, Spread, print};
use crate::history::Broker;

const RECORDS: u64 = 500_000;
const ROUNDS: u64 = 5;
/// Records of one call, as a publisher takes them off the outbox.
const CALL_RECORDS: usize = 10_000;

/// # Errors
/// If not every record comes back.
pub(super) async fn run() -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError(error.to_string());
    let broker = Broker::start();
    let options = KafkaOptions::new(broker.brokers(), broker.topic());
    let mut producer =
        Producer::open(&options, ShardId::FIRST).await.map_err(|error| failed(&error))?;
    // Makes the topic.
    producer.send(&records(1..=1)).await.map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    record(RECORDS).write_json(&mut bytes);
    let mut sent = Vec::new();
    for round in 0..ROUNDS {
        let from = 2 + round * RECORDS;
        let records = records(from..=from + RECORDS - 1);
        let begun_at = Instant::now();
        for records in records.chunks(CALL_RECORDS) {
            producer.send(records).await.map_err(|error| failed(&error))?;
        }
        sent.push(RECORDS as f64 / begun_at.elapsed().as_secs_f64());
    }
    let last = 1 + ROUNDS * RECORDS;
    let begun_at = Instant::now();
    let starts = BTreeMap::from([(0, Start::Earliest)]);
    let mut reader = Reader::open(&options, &starts).await.map_err(|error| failed(&error))?;
    let mut next = 1;
    while next <= last {
        let batch = reader.next().await.map_err(|error| failed(&error))?;
        for record in batch.records {
            if record.id.seq != next {
                return Err(BenchError(format!("{:?} came instead of {next}", record.id)));
            }
            next += 1;
        }
    }
    let read = last as f64 / begun_at.elapsed().as_secs_f64();
    let against = format!("records of {} bytes to tansu, in calls of {CALL_RECORDS}", bytes.len());
    let spread = Spread::of(&sent);
    print(&Figure {
        figure: format!("acknowledged, {spread}"),
        value: spread.median,
        unit: "records/s",
        against: against.clone(),
        goal: Goal::AtLeast(100_000.0),
    });
    print(&Figure {
        figure: "read back and parsed".to_owned(),
        value: read,
        unit: "records/s",
        against,
        goal: Goal::AtLeast(100_000.0),
    });
    Ok(())
}

fn records(numbers: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    numbers.map(record).collect()
}

/// About 250 bytes as JSON.
fn record(n: u64) -> Record {
    let data = format!("{{\"platform\":\"android\",\"outcome\":\"accepted\",\"n\":{n}}}");
    // Devices look random to whoever compresses them.
    let device = u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(n);
    Record {
        id: RecordId {
            shard: ShardId::FIRST,
            epoch: Epoch { number: 1_763_721_575_000, tag: 0xc0ffee },
            seq: n,
        },
        change: Some(Seq::new(n)),
        at: Millis(1_763_721_575_123 + n / 100),
        event: EventName::of("message.delivered"),
        app: Some(AppId::new(0xa1)),
        device: Some(Pseudonym::new(device.to_be_bytes())),
        message: Some(MessageId::new(n / 1000)),
        data: RawValue::from_string(data).expect("JSON"),
    }
}
