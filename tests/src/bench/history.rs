//! What happened, on its way: to the broker, into files, and what it costs who tells it.

mod central;
mod lake;
mod topic;

use carillon_persist::history::{EventName, Pseudonym, Record, RecordId};
use carillon_world::{AppId, Epoch, MessageId, Millis, Seq, ShardId};
use serde_json::value::RawValue;

use super::BenchError;

/// # Errors
/// If not every record comes back.
pub(super) async fn run() -> Result<(), BenchError> {
    topic::run().await?;
    lake::run().await?;
    central::run().await
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError(error.to_string())
}

fn records(numbers: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    numbers.map(record).collect()
}

/// About 250 bytes as JSON.
fn record(n: u64) -> Record {
    let data = format!("{{\"platform\":\"android\",\"outcome\":\"accepted\",\"n\":{n}}}");
    // Devices look random to whoever compresses them.
    let mix = |of: u64| {
        let of = (of ^ (of >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        of ^ (of >> 27)
    };
    let device = u128::from(mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))) << 64
        | u128::from(mix((!n).wrapping_mul(0x94d0_49bb_1331_11eb)));
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
