//! One record as a message: JSON, key and headers.

use std::ops::Range;

use carillon_world::ShardId;
use rdkafka::message::{Header, Headers, OwnedHeaders};

use super::RECORD_BYTES_MAX;
use super::error::KafkaError;
use crate::history::{RECORD_SCHEMA, Record, RecordId};

/// Records on their way to the thread that sends them.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// The JSON of all, one after the other.
    text: Vec<u8>,
    records: Vec<(RecordId, Range<usize>)>,
}

impl Piece {
    pub(super) fn of(records: &[Record]) -> Result<Piece, KafkaError> {
        let mut piece = Piece::default();
        for record in records {
            let from = piece.text.len();
            record.write_json(&mut piece.text);
            let bytes = piece.text.len() - from;
            if bytes > RECORD_BYTES_MAX {
                let max = RECORD_BYTES_MAX;
                return Err(KafkaError::TooLarge { record: record.id, bytes, max });
            }
            piece.records.push((record.id, from..piece.text.len()));
        }
        Ok(piece)
    }

    /// Each record's id and JSON.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RecordId, &[u8])> {
        self.records.iter().map(|(id, range)| (*id, &self.text[range.clone()]))
    }
}

pub(super) fn headers(id: &RecordId) -> OwnedHeaders {
    let mut number = itoa::Buffer::new();
    let mut headers = OwnedHeaders::new_with_capacity(5);
    let mut put = |key: &str, value: u64| {
        let value = Some(number.format(value));
        let all = std::mem::take(&mut headers);
        headers = all.insert(Header { key, value });
    };
    put("carillon-v", RECORD_SCHEMA.into());
    put("carillon-shard", id.shard.get().into());
    put("carillon-epoch", id.epoch.number);
    put("carillon-n", id.seq);
    let tag = format!("{:016x}", id.epoch.tag);
    headers.insert(Header { key: "carillon-tag", value: Some(tag.as_str()) })
}

/// The shard that the headers name, if they are ours.
pub(super) fn shard(headers: &impl Headers) -> Option<ShardId> {
    let of_shard = headers.iter().find(|header| header.key == "carillon-shard")?;
    let text = std::str::from_utf8(of_shard.value?).ok()?;
    text.parse().ok().map(ShardId::new)
}
