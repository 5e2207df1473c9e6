//! The outbox: what a batch has to tell, in the very transaction that makes it true.
//!
//! A row holds the events of one batch, so that telling costs a batch one row whatever happened in it; only a batch with
//! more of them than a statement should carry has several. Their numbers follow from the row's first, and no event has a
//! number that another of its epoch had. Devices are named by their ids
//! here, as everywhere in the store; a [`Pseudonym`] takes their place when the events leave it.

use std::iter;

use bytes::Bytes;
use carillon_world::{AppId, DeviceId, Epoch, MessageId, Millis, Seq, ShardId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{EventName, Pseudonym, Record, RecordError, RecordId};
use crate::{BatchCallbacks, StoreError};

/// An event on its way into a row, and out of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEvent<'a> {
    pub event: &'a str,
    pub at: Millis,
    /// The change that it tells of.
    pub change: Option<Seq>,
    pub app: Option<AppId>,
    pub device: Option<DeviceId>,
    pub message: Option<MessageId>,
    /// A JSON object.
    pub data: &'a str,
}

/// The events of one batch, or a part of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    pub epoch: Epoch,
    /// The number of the first.
    pub first: u64,
    /// How many there are; not 0.
    pub events: u32,
    /// Each as [`OutboxEvent::write`] wrote it.
    pub payload: Bytes,
}

/// Events that are with whoever keeps the history, and are no business of the store any more; 0 and none are nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForgetOutbox {
    /// The last event of the last row that goes.
    pub through: u64,
    /// Devices whose end was among them: their names up to there are forgotten.
    pub devices: Vec<EndedDevice>,
}

/// A device that was deleted, and may have come back since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedDevice {
    pub app: AppId,
    pub device: DeviceId,
    /// The number of the event that tells so; of the last such event, if there are several.
    pub event: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PseudonymRow {
    pub app: AppId,
    pub device: DeviceId,
    /// The first event that it may be told under. A device has another name after each end.
    pub since: u64,
    pub pseudonym: Pseudonym,
}

/// What a batch does about the history. Nothing, where none is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchHistory {
    pub outbox: Option<OutboxRow>,
    /// The first that a device gets from an event on stays.
    pub pseudonyms: Vec<PseudonymRow>,
    pub forget: Option<ForgetOutbox>,
    pub callbacks: BatchCallbacks,
}

/// The outbox at an opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxKept {
    /// The number of the last event there ever was.
    pub head: u64,
    /// Of all payloads.
    pub bytes: u64,
}

impl OutboxEvent<'_> {
    /// Appends it as MessagePack, with the length in front (4 bytes, little-endian).
    pub fn write(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend([0; 4]);
        rmp_serde::encode::write(out, self).expect("numbers and texts, written to memory");
        let length = u32::try_from(out.len() - at - 4).expect("an event is smaller than a batch");
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

impl OutboxRow {
    /// The number of the last event.
    pub fn last(&self) -> u64 {
        self.first + u64::from(self.events) - 1
    }

    /// The row in pieces of at most so many bytes, or of one event that has more: the number of the first, how many there
    /// are, and their part of the payload.
    pub(crate) fn pieces(&self, bytes_max: usize) -> impl Iterator<Item = (u64, u32, &[u8])> {
        let (mut first, mut rest) = (self.first, &self.payload[..]);
        iter::from_fn(move || {
            let (mut events, mut bytes) = (0, 0);
            if rest.len() <= bytes_max {
                // Most often the whole row.
                (events, bytes) = (self.events - (first - self.first) as u32, rest.len());
            }
            while let Some((length, _)) = rest[bytes..].split_first_chunk::<4>() {
                let end = bytes + 4 + u32::from_le_bytes(*length) as usize;
                if events > 0 && end > bytes_max {
                    break;
                }
                (events, bytes) = (events + 1, end);
            }
            let (piece, more) = rest.split_at(bytes);
            let at = first;
            (first, rest) = (first + u64::from(events), more);
            (events > 0).then_some((at, events, piece))
        })
    }

    /// # Errors
    /// [`StoreError::Damaged`]
    pub fn events(&self) -> Result<Vec<OutboxEvent<'_>>, StoreError> {
        let damaged = |detail: String| StoreError::Damaged { table: "outbox", detail };
        let mut rest = &self.payload[..];
        // Not sized by what a damaged row says.
        let mut events = Vec::new();
        for n in 1..=self.events {
            let torn = || damaged(format!("event {n} of the row from {} on is torn", self.first));
            let (length, more) = rest.split_first_chunk().ok_or_else(torn)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (event, more) = more.split_at_checked(length).ok_or_else(torn)?;
            events.push(rmp_serde::from_slice(event).map_err(|error| {
                damaged(format!("event {n} of the row from {} on: {error}", self.first))
            })?);
            rest = more;
        }
        if !rest.is_empty() {
            return Err(damaged(format!(
                "the row from {} on has more than its events",
                self.first
            )));
        }
        Ok(events)
    }
}

impl OutboxEvent<'_> {
    /// The event as others get it.
    ///
    /// # Errors
    /// If it has no name or no object: a damaged row.
    pub fn record(
        &self,
        shard: ShardId,
        epoch: Epoch,
        seq: u64,
        device: Option<Pseudonym>,
    ) -> Result<Record, RecordError> {
        Ok(Record {
            id: RecordId { shard, epoch, seq },
            change: self.change,
            at: self.at,
            event: self.event.parse::<EventName>()?,
            app: self.app,
            device,
            message: self.message,
            data: RawValue::from_string(self.data.to_owned())
                .map_err(|error| RecordError::new(error.to_string()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_back_what_was_written_and_a_damaged_one_is_told() {
        let event = OutboxEvent {
            event: "device.changed",
            at: Millis(7),
            change: Some(Seq::new(3)),
            app: Some(AppId::new(u64::MAX)),
            device: None,
            message: Some(MessageId::new(5)),
            data: r#"{"groups":["vip"]}"#,
        };
        let mut payload = Vec::new();
        event.write(&mut payload);
        event.write(&mut payload);
        let row = OutboxRow {
            epoch: Epoch { number: 2, tag: 3 },
            first: 10,
            events: 2,
            payload: payload.into(),
        };
        assert_eq!(row.last(), 11);
        assert_eq!(row.events().unwrap(), [event.clone(), event.clone()]);
        let record = event.record(ShardId::FIRST, row.epoch, 11, None).unwrap();
        assert_eq!((record.id.seq, record.event.as_str()), (11, event.event));
        for (events, bytes) in [(1, row.payload.len()), (3, row.payload.len()), (2, 20)] {
            let torn = OutboxRow { events, payload: row.payload.slice(..bytes), ..row.clone() };
            torn.events().unwrap_err();
        }
    }

    fn row(data: &[&str]) -> OutboxRow {
        let mut payload = Vec::new();
        for data in data {
            let of = OutboxEvent {
                event: "a.b",
                at: Millis(1),
                change: None,
                app: None,
                device: None,
                message: None,
                data,
            };
            of.write(&mut payload);
        }
        let epoch = Epoch { number: 1, tag: 2 };
        OutboxRow { epoch, first: 7, events: data.len() as u32, payload: payload.into() }
    }

    #[test]
    fn pieces_of_a_row_are_its_events_in_their_order() {
        let long = format!("\"{}\"", "x".repeat(500));
        let data = ["{}", "1", &long, "2", "3", &long, &long, "4"];
        let row = row(&data);
        let whole = row.payload.len();
        for bytes_max in 0..=whole + 1 {
            let (mut next, mut found) = (row.first, Vec::new());
            for (first, events, payload) in row.pieces(bytes_max) {
                assert_eq!(first, next);
                assert!(events == 1 || (events > 0 && payload.len() <= bytes_max), "{bytes_max}");
                let payload = payload.to_vec().into();
                let piece = OutboxRow { epoch: row.epoch, first, events, payload };
                found.extend(piece.events().unwrap().iter().map(|event| event.data.to_owned()));
                next = piece.last() + 1;
            }
            assert_eq!(found, data, "{bytes_max}");
        }
        assert_eq!(row.pieces(whole).count(), 1);
        assert_eq!(row.pieces(whole - 1).count(), 2);
        assert_eq!(row.pieces(0).count(), data.len());
    }
}
