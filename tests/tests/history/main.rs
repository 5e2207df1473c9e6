//! The history, through a broker and stores of other makers. `CARILLON_BIN` names the executable.

mod archive;
mod away;
mod central;
mod event_log;
mod manual;
mod query;
mod restored;
#[cfg(feature = "kafka-tls")]
mod secured;
mod topic;

use std::time::Duration;

use carillon_persist::history::{EventName, Pseudonym, Record, RecordId};
use carillon_world::{AppId, Epoch, MessageId, Millis, Seq, ShardId};
use serde_json::json;
use serde_json::value::to_raw_value;

const PATIENCE: Duration = Duration::from_secs(60);

/// An event of about 250 bytes as JSON, whose members all follow from shard and number.
fn record(shard: u16, n: u64) -> Record {
    const EVENTS: [&str; 3] = ["message.delivered", "message.acknowledged", "device.changed"];
    const HOUR: u64 = 3_600_000;
    Record {
        id: RecordId { shard: ShardId::new(shard), epoch: EPOCH, seq: n },
        change: Some(Seq::new(n)),
        // Some are an hour later, so that there is more than one folder.
        at: Millis(1_763_721_575_123 + n + (n % 2) * HOUR),
        event: EventName::of(EVENTS[(n % 3) as usize]),
        app: n.is_multiple_of(4).then(|| AppId::new(0xa1)),
        device: Some(Pseudonym::new(u128::from(n % 1000).to_be_bytes())),
        message: Some(MessageId::new(n % 7)),
        data: to_raw_value(&json!({"n": n, "shard": shard})).expect("an object"),
    }
}

const EPOCH: Epoch = Epoch { number: 1_763_721_575_000, tag: 0xc0ffee };

fn records(shard: u16, numbers: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    numbers.map(|n| record(shard, n)).collect()
}

#[expect(clippy::print_stdout, reason = "how much was done")]
fn report(line: &str) {
    println!("{line}");
}
