//! What is sent: the id that names the event for ever, and the body.

use carillon_persist::history::OutboxEvent;
use carillon_world::{AppId, DeviceId, Epoch, MessageId, Millis, ShardId};

use super::ERROR_CHARS_MAX;
use crate::core::render::time;

/// The id of a record of the history. Without a full stop, which separates what is signed.
pub fn event_id(shard: ShardId, epoch: Epoch, n: u64) -> String {
    format!("{shard}-{}-{:016x}-{n}", epoch.number, epoch.tag)
}

/// The body of an event. Devices are named by their own ids: a customer's system knows them by no other.
pub fn body(event: &OutboxEvent<'_>) -> String {
    let of = (event.app, event.device, event.message);
    object(event.event, event.at, of, event.data)
}

/// The body of a test.
pub fn test_body(at: Millis, app: AppId, callback: &str) -> String {
    let data = serde_json::json!({ "callback": callback }).to_string();
    object("callback.test", at, (Some(app), None, None), &data)
}

/// `data` is an object as JSON; names and ids need no escapes.
fn object(
    kind: &str,
    at: Millis,
    (app, device, message): (Option<AppId>, Option<DeviceId>, Option<MessageId>),
    data: &str,
) -> String {
    let mut members = Vec::with_capacity(4);
    members.extend(app.map(|app| format!(r#""app":"{app}""#)));
    members.extend(device.map(|device| format!(r#""device":"{device}""#)));
    members.extend(message.map(|message| format!(r#""message":"{message}""#)));
    let rest = data.trim().strip_prefix('{').and_then(|data| data.strip_suffix('}'));
    members.extend(rest.map(str::trim).filter(|rest| !rest.is_empty()).map(str::to_owned));
    let (at, members) = (time(at), members.join(","));
    format!(r#"{{"type":"{kind}","timestamp":"{at}","data":{{{members}}}}}"#)
}

/// The beginning of what somebody else wrote, fit for a line.
pub fn excerpt(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(ERROR_CHARS_MAX).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_type_time_and_data_with_whom_it_is_about() {
        let event = OutboxEvent {
            event: "message.delivered",
            at: Millis(1_700_000_000_120),
            change: None,
            app: Some(AppId::new(0xa1)),
            device: Some(DeviceId::new(7)),
            message: Some(MessageId::new(8)),
            data: "{}",
        };
        assert_eq!(
            body(&event),
            r#"{"type":"message.delivered","timestamp":"2023-11-14T22:13:20.120Z","data":{"app":"00000000000000a1","device":"0000000000000007","message":"0000000000000008"}}"#
        );
        let event =
            OutboxEvent { device: None, message: None, data: r#" {"a": {"b": "}"}} "#, ..event };
        let read: serde_json::Value = serde_json::from_str(&body(&event)).unwrap();
        let expected = serde_json::json!({"app": "00000000000000a1", "a": {"b": "}"}});
        assert_eq!(read["data"], expected);
        let epoch = Epoch { number: 17, tag: 0xc0ffee };
        assert_eq!(event_id(ShardId::new(3), epoch, 9), "3-17-0000000000c0ffee-9");
        assert_eq!(excerpt(&format!("a\r\nb\u{7}{}", "c".repeat(500))).chars().count(), 200);
        assert_eq!(excerpt(" \u{1b}[31m"), "[31m");
    }
}
