//! An event as a line of text, for people who read with `grep` and for tables.
//!
//! One line is one event whatever is in it: the only member that holds texts of others is JSON, which needs no line
//! breaks.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io::Write as _;

use carillon_expr::Time;
use carillon_world::{AppId, MessageId, Millis, Seq};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{OutboxEvent, Record, RecordId};

/// The first line of a table.
pub const CSV_HEADER: &str =
    "time,event,app,device,message,data,shard,epoch,epoch_tag,event_seq,change_seq\r\n";

/// What a line tells. The device is whatever names it to the reader: its pseudonym, or itself.
#[derive(Clone, Copy, Debug)]
pub struct EventLine<'a, D> {
    pub id: RecordId,
    pub change: Option<Seq>,
    pub at: Millis,
    pub event: &'a str,
    pub app: Option<AppId>,
    pub device: Option<D>,
    pub message: Option<MessageId>,
    /// A JSON object.
    pub data: &'a str,
}

/// Milliseconds since 1970 in RFC 3339, always as many characters.
struct At(Millis);

impl Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0.0).ok().and_then(Time::from_ms) {
            Some(time) => f.write_str(&time.to_fixed()),
            // After the year 9999.
            None => write!(f, "{}", self.0.0),
        }
    }
}

impl Serialize for At {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'a> EventLine<'a, super::Pseudonym> {
    /// Of a record, whose device is a pseudonym.
    pub fn of_record(record: &'a Record) -> EventLine<'a, super::Pseudonym> {
        EventLine {
            id: record.id,
            change: record.change,
            at: record.at,
            event: record.event.as_str(),
            app: record.app,
            device: record.device,
            message: record.message,
            data: record.data.get(),
        }
    }
}

impl<'a> EventLine<'a, carillon_world::DeviceId> {
    /// Of an event on its way out of the store, whose device is its id.
    pub fn of_event(
        id: RecordId,
        event: &OutboxEvent<'a>,
    ) -> EventLine<'a, carillon_world::DeviceId> {
        EventLine {
            id,
            change: event.change,
            at: event.at,
            event: event.event,
            app: event.app,
            device: event.device,
            message: event.message,
            data: event.data,
        }
    }
}

impl<D: Display> EventLine<'_, D> {
    /// Appends a row of a table as RFC 4180 has it, in the order of [`CSV_HEADER`].
    pub fn write_csv(&self, out: &mut Vec<u8>) {
        // A vector takes everything.
        let _ = write!(out, "{},{},", At(self.at), self.event);
        let _ = write_some(out, self.app);
        out.push(b',');
        let _ = write_some(out, self.device.as_ref());
        out.push(b',');
        let _ = write_some(out, self.message);
        out.push(b',');
        quote(self.data, out);
        let epoch = self.id.epoch;
        let (shard, seq) = (self.id.shard, self.id.seq);
        let _ = write!(out, ",{shard},{},{:016x},{seq},", epoch.number, epoch.tag);
        let _ = write_some(out, self.change);
        out.extend(b"\r\n");
    }

    /// Appends an object in one line, which begins with when and what.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Line<'a> {
            time: At,
            event: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            app: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            device: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            message: Option<String>,
            data: &'a RawValue,
            shard: u16,
            epoch: u64,
            tag: String,
            n: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            seq: Option<u64>,
        }
        let empty: &RawValue = serde_json::from_str("{}").expect("an object");
        let data = one_line(self.data);
        let line = Line {
            time: At(self.at),
            event: self.event,
            app: self.app.map(|app| app.to_string()),
            device: self.device.as_ref().map(ToString::to_string),
            message: self.message.map(|message| message.to_string()),
            data: serde_json::from_str(&data).unwrap_or(empty),
            shard: self.id.shard.get(),
            epoch: self.id.epoch.number,
            tag: format!("{:016x}", self.id.epoch.tag),
            n: self.id.seq,
            seq: self.change.map(Seq::get),
        };
        serde_json::to_writer(&mut *out, &line).expect("numbers and texts, written to memory");
        out.push(b'\n');
    }

    /// Appends it as a person reads it.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        let _ = write!(out, "{}  {:<18}", At(self.at), self.event);
        if let Some(app) = self.app {
            let _ = write!(out, "  app={app}");
        }
        if let Some(message) = self.message {
            let _ = write!(out, "  message={message}");
        }
        if let Some(device) = &self.device {
            let _ = write!(out, "  device={device}");
        }
        let _ = writeln!(out, "  {}", one_line(self.data));
    }
}

fn write_some(out: &mut Vec<u8>, value: Option<impl Display>) -> std::io::Result<()> {
    value.map_or(Ok(()), |value| write!(out, "{value}"))
}

/// JSON has line breaks only between its members, where a space is as good.
fn one_line(json: &str) -> Cow<'_, str> {
    match json.contains(['\n', '\r']) {
        true => json.replace(['\n', '\r'], " ").into(),
        false => json.into(),
    }
}

/// A field that may hold anything.
fn quote(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend(one_line(text).replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use carillon_world::{DeviceId, Epoch, ShardId};

    use super::*;

    fn line(data: &str) -> EventLine<'_, DeviceId> {
        EventLine {
            id: RecordId {
                shard: ShardId::FIRST,
                epoch: Epoch { number: 5, tag: 0xc0ffee },
                seq: 17,
            },
            change: Some(Seq::new(3)),
            at: Millis(1_763_721_575_123),
            event: "message.delivered",
            app: Some(AppId::new(0xa1)),
            device: Some(DeviceId::new(0xd1)),
            message: None,
            data,
        }
    }

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_is_one_line_in_each_form() {
        let data = "{\"a\":\"x\\n\\\"y\\\"\",\n\"b\":1}";
        assert_eq!(
            text(|out| line(data).write_csv(out)),
            "2025-11-21T10:39:35.123Z,message.delivered,00000000000000a1,00000000000000d1,,\
             \"{\"\"a\"\":\"\"x\\n\\\"\"y\\\"\"\"\", \"\"b\"\":1}\",0,5,0000000000c0ffee,17,3\r\n"
        );
        assert_eq!(
            text(|out| line("{\"a\":\n1}").write_json(out)),
            "{\"time\":\"2025-11-21T10:39:35.123Z\",\"event\":\"message.delivered\",\
             \"app\":\"00000000000000a1\",\"device\":\"00000000000000d1\",\"data\":{\"a\": 1},\
             \"shard\":0,\"epoch\":5,\"tag\":\"0000000000c0ffee\",\"n\":17,\"seq\":3}\n"
        );
        assert_eq!(
            text(|out| line("{}").write_text(out)),
            "2025-11-21T10:39:35.123Z  message.delivered   app=00000000000000a1  \
             device=00000000000000d1  {}\n"
        );
    }
}
