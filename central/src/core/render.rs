//! The text forms that admins and devices read: times, and the JSON object that a device gets of a message.

use bytes::Bytes;
use carillon_world::{MessageId, MessageRow, Millis, Priority, Tag, Variant};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::limits::TIME_MAX;

/// RFC 3339 in UTC with milliseconds. Times beyond the year 9999 print as its end.
pub fn time(at: Millis) -> String {
    let millis = i64::try_from(at.0.min(TIME_MAX)).expect("the year 9999 fits");
    let stamp = jiff::Timestamp::from_millisecond(millis).expect("the year 9999 is a timestamp");
    format!("{stamp:.3}")
}

/// Reads RFC 3339; `None` for other text, and for times before 1970 or after 9999.
pub fn parse_time(text: &str) -> Option<Millis> {
    let stamp: jiff::Timestamp = text.parse().ok()?;
    let millis = u64::try_from(stamp.as_millisecond()).ok()?;
    (millis <= TIME_MAX).then_some(Millis(millis))
}

pub const fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
    }
}

/// The one variant of a message with one body. `body` is JSON text and goes out as it is.
pub(crate) fn variant(id: MessageId, urgency: Priority, expires_at: Millis, body: &str) -> Variant {
    let tag = Tag::of(body.as_bytes(), urgency, expires_at);
    let (urgency, expires_at) = (priority(urgency), time(expires_at));
    let wire = format!(
        r#"{{"id":"{id}","tag":"{tag}","priority":"{urgency}","expires_at":"{expires_at}","body":{body}}}"#
    );
    Variant { selector: None, tag, wire: Bytes::from(wire) }
}

/// The JSON text of a message's body. `null` if the stored bytes are damaged.
pub fn body_of(row: &MessageRow) -> &str {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow)]
        body: &'a RawValue,
    }
    let wire = row.variants.first().and_then(|v| serde_json::from_slice::<Wire<'_>>(&v.wire).ok());
    wire.map_or("null", |wire| wire.body.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_read_back() {
        assert_eq!(time(Millis(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(Millis(1_700_000_000_120)), "2023-11-14T22:13:20.120Z");
        assert_eq!(parse_time("2023-11-14T22:13:20.12Z"), Some(Millis(1_700_000_000_120)));
        assert_eq!(parse_time("2023-11-14T23:13:20.120+01:00"), Some(Millis(1_700_000_000_120)));
        assert_eq!(time(Millis(u64::MAX)), "9999-12-30T00:00:00.000Z");
        for bad in ["", "yesterday", "1969-12-31T23:59:59Z", "2023-11-14"] {
            assert_eq!(parse_time(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_device_gets_the_body_as_it_was_written() {
        let body = "{ \"b\": 1.0,\n \"a\": \"é\\u00e9\" }";
        let v = variant(MessageId::new(7), Priority::High, Millis(0), body);
        let text = std::str::from_utf8(&v.wire).unwrap();
        assert_eq!(
            text,
            format!(
                "{{\"id\":\"0000000000000007\",\"tag\":\"{}\",\"priority\":\"high\",\
                 \"expires_at\":\"1970-01-01T00:00:00.000Z\",\"body\":{body}}}",
                v.tag
            )
        );
    }
}
