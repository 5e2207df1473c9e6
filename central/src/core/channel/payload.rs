//! What the providers' formats have in common.

use std::time::Duration;

use carillon_world::{MessageId, Millis};
use serde_json::{Map, Value};

use super::{NoticeError, Outcome, Reason, Scope};

/// Longest wait that a provider may ask of us. A faulty answer does not stop a channel for a year.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Merges `over` into `base`, object by object; any other value takes the place of what was there.
pub(super) fn merge(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (name, value) in over {
        match (base.get_mut(name), value) {
            (Some(Value::Object(base)), Value::Object(over)) => merge(base, over),
            _ => {
                base.insert(name.clone(), value.clone());
            }
        }
    }
}

/// An id as the APIs write it.
pub(super) fn hex(message: MessageId) -> String {
    format!("{:016x}", message.get())
}

pub(super) const fn fits(
    channel: &'static str,
    bytes: usize,
    bytes_max: usize,
) -> Result<(), NoticeError> {
    if bytes > bytes_max {
        return Err(NoticeError::TooLarge { channel, bytes, bytes_max });
    }
    Ok(())
}

/// Whole seconds from `now` to `until`, at most `max`; 0 if it is over.
pub(super) const fn seconds_left(now: Millis, until: Millis, max: u64) -> u64 {
    let left = until.0.saturating_sub(now.0) / 1000;
    if left < max { left } else { max }
}

/// `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
pub fn retry_after(now: Millis, text: &str) -> Option<Duration> {
    let wait = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let parser = jiff::fmt::rfc2822::DateTimeParser::new();
            let at = parser.parse_timestamp(text.trim()).ok()?.as_millisecond();
            Duration::from_millis(u64::try_from(at).ok()?.saturating_sub(now.0))
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

pub(super) const fn later(scope: Scope, after: Option<Duration>, reason: &'static str) -> Outcome {
    Outcome::Later { after, scope, reason: Reason(reason) }
}

pub(super) const fn failed(reason: &'static str) -> Outcome {
    Outcome::Failed { reason: Reason(reason) }
}

pub(super) const fn refused(reason: &'static str) -> Outcome {
    Outcome::Refused { reason: Reason(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_is_merged_object_by_object() {
        let object = |text: &str| match serde_json::from_str(text).unwrap() {
            Value::Object(object) => object,
            other => panic!("{other}"),
        };
        let mut base = object(r#"{"aps":{"alert":{"title":"a","body":"b"}},"x":1}"#);
        merge(&mut base, &object(r#"{"aps":{"sound":"s","alert":{"body":"c"}},"x":{"y":2}}"#));
        let expected =
            object(r#"{"aps":{"alert":{"title":"a","body":"c"},"sound":"s"},"x":{"y":2}}"#);
        assert_eq!(base, expected);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now = Millis(1_700_000_000_000);
        for (text, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999", Some(86_400)),
            ("Tue, 14 Nov 2023 22:14:20 GMT", Some(60)),
            ("Tue, 14 Nov 2000 22:14:20 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(now, text), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
