//! One thing that happened, as others get to read it.
//!
//! As JSON, a record is one object of these members, in this order; those that do not apply are not there:
//!
//! ```json
//! {"v":1,"shard":0,"epoch":1763721575000,"tag":"00c0ffee00c0ffee","n":17,"seq":12,"at":1763721575123,
//!  "event":"device.changed","app":"00000000000000a1","device":"7d…32 digits…","message":"00000000000000b2","data":{}}
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use carillon_world::{AppId, Epoch, MessageId, Millis, Seq, ShardId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The version of a record's members; a greater one has more of them.
pub const RECORD_SCHEMA: u16 = 1;
/// The longest name of an event.
pub const EVENT_BYTES_MAX: usize = 40;

/// Names an event for ever. Ordered as things happened in its shard, but for what a restore cut off: see
/// `shard.opened`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordId {
    pub shard: ShardId,
    pub epoch: Epoch,
    /// Counts the shard's events, from 1.
    pub seq: u64,
}

impl RecordId {
    /// By which the records of one shard rise.
    pub fn order(&self) -> (u64, u64) {
        (self.epoch.number, self.seq)
    }
}

/// What happened, such as `message.created`: lower-case words, dots and underscores.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventName(Arc<str>);

/// Stands for a device in everything that leaves the store. Random; what device it stands for is in the store alone,
/// until the device is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pseudonym([u8; 16]);

#[derive(Clone, Debug)]
pub struct Record {
    pub id: RecordId,
    /// The change that it tells of.
    pub change: Option<Seq>,
    pub at: Millis,
    pub event: EventName,
    pub app: Option<AppId>,
    /// `None` also for a device that was forgotten before this was told.
    pub device: Option<Pseudonym>,
    pub message: Option<MessageId>,
    /// A JSON object.
    pub data: Box<RawValue>,
}

impl PartialEq for Record {
    fn eq(&self, other: &Record) -> bool {
        let all = |of: &Record| (of.id, of.change, of.at, of.app, of.device, of.message);
        all(self) == all(other) && self.event == other.event && self.data.get() == other.data.get()
    }
}

/// Text that is no record.
#[derive(Debug, thiserror::Error)]
#[error("no record of the history: {0}")]
pub struct RecordError(String);

impl RecordError {
    pub(crate) fn new(detail: String) -> RecordError {
        RecordError(detail)
    }
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    v: u16,
    shard: u16,
    epoch: u64,
    tag: Hex,
    n: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    at: u64,
    #[serde(borrow)]
    event: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    app: Option<Hex>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<Pseudonym>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<Hex>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// 16 hexadecimal digits, since many readers of JSON have no whole numbers of 64 bits.
#[derive(Clone, Copy)]
struct Hex(u64);

impl Record {
    /// Appends it as JSON, in one line.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let wire = Wire {
            v: RECORD_SCHEMA,
            shard: self.id.shard.get(),
            epoch: self.id.epoch.number,
            tag: Hex(self.id.epoch.tag),
            n: self.id.seq,
            seq: self.change.map(|seq| seq.get()),
            at: self.at.0,
            event: self.event.as_str().into(),
            app: self.app.map(|app| Hex(app.get())),
            device: self.device,
            message: self.message.map(|message| Hex(message.get())),
            data: &self.data,
        };
        serde_json::to_writer(out, &wire).expect("numbers and texts, written to memory");
    }

    /// # Errors
    /// If it is no record, or has no version that is known: a greater one has at least these members.
    pub fn from_json(text: &[u8]) -> Result<Record, RecordError> {
        let wire: Wire<'_> =
            serde_json::from_slice(text).map_err(|error| RecordError(error.to_string()))?;
        if wire.v < RECORD_SCHEMA {
            return Err(RecordError(format!("version {}", wire.v)));
        }
        let epoch = Epoch { number: wire.epoch, tag: wire.tag.0 };
        Ok(Record {
            id: RecordId { shard: ShardId::new(wire.shard), epoch, seq: wire.n },
            change: wire.seq.map(Seq::new),
            at: Millis(wire.at),
            event: wire.event.parse()?,
            app: wire.app.map(|app| AppId::new(app.0)),
            device: wire.device,
            message: wire.message.map(|message| MessageId::new(message.0)),
            data: wire.data.to_owned(),
        })
    }
}

impl EventName {
    /// # Panics
    /// If it is no name, which is our own fault.
    pub fn of(name: &'static str) -> EventName {
        name.parse().expect("a name of an event")
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EventName {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<EventName, RecordError> {
        let is_known = |b: u8| b.is_ascii_lowercase() || b == b'.' || b == b'_';
        // It becomes the name of a folder.
        let is_name = (1..=EVENT_BYTES_MAX).contains(&text.len())
            && text.bytes().all(is_known)
            && !text.starts_with('.');
        if is_name {
            Ok(EventName(text.into()))
        } else {
            Err(RecordError(format!("the event {text:?}")))
        }
    }
}

impl fmt::Debug for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pseudonym {
    pub const BYTES: usize = 16;

    pub const fn new(bytes: [u8; Pseudonym::BYTES]) -> Pseudonym {
        Pseudonym(bytes)
    }

    pub fn bytes(&self) -> &[u8; Pseudonym::BYTES] {
        &self.0
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pseudonym({self})")
    }
}

impl FromStr for Pseudonym {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Pseudonym, RecordError> {
        let is_hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        let number = number.ok_or_else(|| RecordError(format!("the pseudonym {text:?}")))?;
        Ok(Pseudonym(number.to_be_bytes()))
    }
}

impl Serialize for Pseudonym {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pseudonym {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Pseudonym, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Hex, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let is_hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = is_hex.then(|| u64::from_str_radix(&text, 16).ok()).flatten();
        number.map(Hex).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no id")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            id: RecordId {
                shard: ShardId::new(3),
                epoch: Epoch { number: 1000, tag: 0xc0ffee },
                seq: 17,
            },
            change: Some(Seq::new(12)),
            at: Millis(1_763_721_575_123),
            event: EventName::of("device.changed"),
            app: Some(AppId::new(0xa1)),
            device: Some(Pseudonym::new([7; 16])),
            message: None,
            data: RawValue::from_string(r#"{"groups":["vip"]}"#.to_owned()).unwrap(),
        }
    }

    #[test]
    fn a_record_is_one_line_of_json_and_is_read_back() {
        let mut text = Vec::new();
        record().write_json(&mut text);
        assert_eq!(
            String::from_utf8(text.clone()).unwrap(),
            r#"{"v":1,"shard":3,"epoch":1000,"tag":"0000000000c0ffee","n":17,"seq":12,"at":1763721575123,"event":"device.changed","app":"00000000000000a1","device":"07070707070707070707070707070707","data":{"groups":["vip"]}}"#
        );
        assert_eq!(Record::from_json(&text).unwrap(), record());
        let bare = Record { change: None, app: None, device: None, ..record() };
        text.clear();
        bare.write_json(&mut text);
        assert_eq!(Record::from_json(&text).unwrap(), bare);
    }

    #[test]
    fn what_is_no_record_is_refused_and_a_later_version_is_read() {
        let mut text = Vec::new();
        record().write_json(&mut text);
        let text = String::from_utf8(text).unwrap();
        let later = text.replace(r#""v":1,"#, r#""v":2,"what":"ever","#);
        assert_eq!(Record::from_json(later.as_bytes()).unwrap(), record());
        for (from, to) in [
            (r#""v":1"#, r#""v":0"#),
            ("device.changed", "../changed"),
            ("device.changed", ""),
            ("0000000000c0ffee", "c0ffee"),
            ("0000000000c0ffee", "+000000000c0ffee"),
            ("07070707070707070707070707070707", "7"),
            (r#""shard":3"#, r#""shard":70000"#),
        ] {
            assert!(text.contains(from));
            Record::from_json(text.replacen(from, to, 1).as_bytes()).unwrap_err();
        }
    }
}
