//! A lake in memory whose every call can fail, be the last, or wait while others write.

mod faults;
mod model;
mod reading;

use std::sync::Arc;

use carillon_world::{AppId, Epoch, MessageId, Millis, Seq, ShardId};
use object_store::ObjectStore;
use serde_json::value::RawValue;

use super::{Lake, LakeOptions};
use crate::history::{EventName, Pseudonym, Record, RecordId};

/// 2025-11-21T10:39:35.123Z.
const AT: u64 = 1_763_721_575_123;
const HOUR: u64 = 60 * 60 * 1000;

fn lake(store: Arc<dyn ObjectStore>) -> Lake {
    let options = LakeOptions {
        file_rows_max: 3,
        row_group_rows_max: 2,
        ..LakeOptions::new("/nowhere".parse().unwrap())
    };
    Lake::over(store, &options)
}

/// The `n`th thing, from 1, that happened in two shards. The second began an epoch after the tenth.
fn record(n: u64) -> Record {
    let shard = ShardId::new(n.is_multiple_of(5).into());
    let epoch = Epoch { number: if shard.get() == 1 && n > 10 { 8 } else { 7 }, tag: n / 11 };
    let data = format!(r#"{{"n":{n},"ö":"\"{}"}}"#, "x".repeat(n as usize % 7));
    Record {
        id: RecordId { shard, epoch, seq: if epoch.number == 8 { n - 10 } else { n } },
        change: (!n.is_multiple_of(3)).then(|| Seq::new(n / 3)),
        at: Millis(AT + n / 9 * HOUR + n % 2),
        event: EventName::of(if n.is_multiple_of(4) { "push.sent" } else { "message.created" }),
        app: (!n.is_multiple_of(6)).then(|| AppId::new(0xa0 + n % 2)),
        device: n.is_multiple_of(4).then(|| Pseudonym::new([n as u8; 16])),
        message: n.is_multiple_of(2).then(|| MessageId::new(n / 4)),
        data: RawValue::from_string(data).unwrap(),
    }
}
