//! FCM's HTTP v1 API: messages, the claims that an access token is asked for with, and what an answer means.
//!
//! From Firebase's references of `projects.messages`, `ErrorCode`, and Google's "Using OAuth 2.0 for server to server
//! applications".

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use carillon_world::{Millis, Priority};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::credential::FcmCredential;
use super::payload::{failed, fits, hex, later, merge, refused, seconds_left};
use super::{Notice, NoticeError, Outcome, Scope};

/// Bytes of a message at most, without its target.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// Today's tokens have about 160 characters; a web token with its keys more.
pub const TOKEN_CHARS_MAX: usize = 4096;
/// Longest time to live that FCM takes: four weeks, in seconds.
const TTL_MAX: u64 = 28 * 24 * 60 * 60;
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// Google takes an hour at most; less than that allows for clocks that differ.
const ASSERTION_SECONDS: u64 = 55 * 60;

/// A message but for its token and the time it has left, which differ from push to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// From `"android":{` on; the whole in [`body`](Push::body).
    android: Bytes,
    /// `"webpush":{"headers":{` and its rest.
    webpush: Bytes,
    /// All other fields, from the comma on, and the closing brackets.
    rest: Bytes,
    /// Not if the message's overrides say how long.
    android_ttl: bool,
    webpush_ttl: bool,
    expires_at: Millis,
}

/// Puts a notice into FCM's format.
///
/// # Errors
/// If the message is larger than FCM takes.
pub fn render(notice: &Notice) -> Result<Push, NoticeError> {
    let over = &notice.overrides;
    let is_high = notice.priority == Priority::High;
    let expiration = (notice.expires_at.0 / 1000).to_string();
    let mut android = Map::new();
    android.insert("priority".into(), if is_high { "high" } else { "normal" }.into());
    android.insert("collapse_key".into(), (*notice.collapse).into());
    let mut webpush_headers = Map::new();
    webpush_headers.insert("Urgency".into(), urgency(notice.priority).into());
    webpush_headers.insert("Topic".into(), (*notice.collapse).into());
    let mut webpush = Map::new();
    let mut apns_payload = Map::new();
    let (push_type, apns_priority, data, notification) = match &notice.text {
        None => {
            apns_payload.insert("aps".into(), json!({ "content-available": 1 }));
            ("background", "5", json!({ "carillon": "wake" }), None)
        }
        Some(text) => {
            // What is shown already is replaced by its tag, what is not yet by its collapse key.
            android.insert("notification".into(), json!({ "tag": &*notice.collapse }));
            let priority = match notice.priority {
                Priority::High => "10",
                Priority::Normal => "5",
                Priority::Low => "1",
            };
            let data = json!({ "carillon": "alert", "message": hex(notice.message) });
            let shown = json!({ "title": &*text.title, "body": &*text.body });
            ("alert", priority, data, Some(shown))
        }
    };
    if notice.text.is_some() {
        if let Some(over) = &over.android {
            merge(&mut android, over);
        }
        if let Some(over) = &over.apns {
            merge(&mut apns_payload, over);
        }
        if let Some(over) = &over.webpush {
            let mut over = over.clone();
            if let Some(Value::Object(headers)) = over.remove("headers") {
                merge(&mut webpush_headers, &headers);
            }
            merge(&mut webpush, &over);
        }
    }
    let mut apns = json!({ "headers": {
        "apns-push-type": push_type, "apns-priority": apns_priority,
        "apns-collapse-id": &*notice.collapse, "apns-expiration": expiration,
    } });
    if !apns_payload.is_empty() {
        apns["payload"] = apns_payload.into();
    }
    let mut rest = json!({ "data": data, "apns": apns });
    if let Some(notification) = notification {
        rest["notification"] = notification;
    }

    let android_ttl = !android.contains_key("ttl");
    let webpush_ttl = !webpush_headers.contains_key("TTL");
    // Without the opening bracket: fields that differ come first.
    let fields = |object: Value| object.to_string()[1..].to_owned();
    let mut webpush = fields(webpush.into());
    if webpush.len() > 1 {
        webpush.insert(0, ',');
    }
    let push = Push {
        android: fields(android.into()).into(),
        webpush: (fields(webpush_headers.into()) + &webpush).into(),
        rest: format!(",{}}}", fields(rest)).into(),
        android_ttl,
        webpush_ttl,
        expires_at: notice.expires_at,
    };
    fits("fcm", push.body(Millis::ZERO, "").len(), MESSAGE_BYTES_MAX)?;
    Ok(push)
}

impl Push {
    /// The request's body for one token, which [`is_token`].
    pub fn body(&self, now: Millis, token: &str) -> Bytes {
        let ttl = seconds_left(now, self.expires_at, TTL_MAX).to_string();
        let parts: [&[u8]; 13] = [
            br#"{"message":{"token":""#,
            token.as_bytes(),
            br#"","android":{"#,
            if self.android_ttl { br#""ttl":""# } else { b"" },
            if self.android_ttl { ttl.as_bytes() } else { b"" },
            if self.android_ttl { br#"s","# } else { b"" },
            &self.android,
            br#","webpush":{"headers":{"#,
            if self.webpush_ttl { br#""TTL":""# } else { b"" },
            if self.webpush_ttl { ttl.as_bytes() } else { b"" },
            if self.webpush_ttl { br#"","# } else { b"" },
            &self.webpush,
            &self.rest,
        ];
        let mut body = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            body.extend_from_slice(part);
        }
        body.freeze()
    }
}

const fn urgency(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

/// Whether a device's token may stand in JSON as it is.
pub fn is_token(token: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    !token.is_empty() && token.len() <= TOKEN_CHARS_MAX && token.bytes().all(is_plain)
}

/// The body of the request for an access token (RFC 7523, section 2.1). `audience` is the URL it is sent to.
pub fn token_request(credential: &FcmCredential, audience: &str, now: Millis) -> Bytes {
    let issued_at = now.0 / 1000;
    let assertion = credential.key.jwt(
        credential.private_key_id.as_deref(),
        &json!({
            "iss": &*credential.client_email, "scope": SCOPE, "aud": audience,
            "iat": issued_at, "exp": issued_at + ASSERTION_SECONDS,
        }),
    );
    // A compact token has no character that a form would escape.
    format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
    )
    .into()
}

/// An access token as the token URL hands it out.
#[derive(Deserialize)]
#[expect(missing_debug_implementations, reason = "a secret")]
pub struct AccessToken {
    pub access_token: String,
    /// In seconds.
    pub expires_in: u64,
}

/// When an access token is renewed: at nine tenths of its life, and at least 10 s before its end.
pub fn renew_at(now: Millis, expires_in: u64) -> Millis {
    let life = expires_in.min(24 * 60 * 60) * 1000;
    now.plus((life / 10 * 9).min(life.saturating_sub(10_000)))
}

/// What a refusal of the token URL means (RFC 6749, section 5.2): whether our credential is at fault.
pub fn classify_token(status: u16, after: Option<Duration>) -> Outcome {
    match status {
        400 | 401 | 403 => refused("invalid_grant"),
        _ => later(Scope::Channel, after, "no_access_token"),
    }
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Outcome(Outcome),
    /// The access token is not valid: renew it, and send once more.
    Stale,
}

#[derive(Default, Deserialize)]
struct Answer {
    error: Status,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    status: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(rename = "errorCode", default)]
    error_code: Option<String>,
}

/// `body` is the answer's, cut off at a bound.
pub fn classify(status: u16, after: Option<Duration>, body: &[u8]) -> Verdict {
    if status == 200 {
        return Verdict::Outcome(Outcome::Accepted);
    }
    let Answer { error } = serde_json::from_slice(body).unwrap_or_default();
    let code = error.details.iter().find_map(|detail| detail.error_code.as_deref());
    Verdict::Outcome(match (status, code.unwrap_or(&error.status)) {
        (404, "UNREGISTERED" | "NOT_FOUND") => Outcome::Gone { since: None },
        // Not in FCM's words, so of something on the way to it.
        (404, _) => failed("not_found"),
        (403, "SENDER_ID_MISMATCH") => failed("sender_id_mismatch"),
        // APNs' or a web push service's credential within Firebase, not ours.
        (401, "THIRD_PARTY_AUTH_ERROR") => failed("third_party_auth_error"),
        (401, _) => return Verdict::Stale,
        (403, _) => refused("permission_denied"),
        (400, _) => failed("invalid_argument"),
        (413, _) => failed("payload_too_large"),
        (429, _) => later(Scope::Channel, after, "quota_exceeded"),
        (503, _) => later(Scope::Channel, after, "unavailable"),
        (500, _) => later(Scope::Channel, after, "internal"),
        (500.., _) => later(Scope::Channel, after, "server_error"),
        _ => failed("unexpected_status"),
    })
}

#[cfg(test)]
mod tests {
    use carillon_world::{AlertText, MessageId, PushOverrides};

    use super::*;

    fn notice(alert: bool) -> Notice {
        Notice {
            message: MessageId::new(0xab),
            text: alert.then(|| AlertText { title: "T".into(), body: "B".into() }),
            collapse: "abc".into(),
            priority: Priority::High,
            expires_at: Millis(1_700_000_000_000),
            overrides: PushOverrides::default(),
        }
    }

    fn body(notice: &Notice) -> Value {
        let body = render(notice).unwrap().body(Millis(1_699_999_940_000), "tok:en");
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn a_wake_is_data_alone() {
        let mut wake = notice(false);
        wake.overrides.android = serde_json::from_str(r#"{"priority":"normal"}"#).unwrap();
        assert_eq!(
            body(&wake),
            json!({ "message": {
                "token": "tok:en",
                "data": { "carillon": "wake" },
                "android": { "priority": "high", "ttl": "60s", "collapse_key": "abc" },
                "apns": {
                    "headers": {
                        "apns-push-type": "background", "apns-priority": "5",
                        "apns-collapse-id": "abc", "apns-expiration": "1700000000",
                    },
                    "payload": { "aps": { "content-available": 1 } },
                },
                "webpush": { "headers": { "TTL": "60", "Urgency": "high", "Topic": "abc" } },
            } })
        );
    }

    #[test]
    fn an_alert_has_a_notification_and_its_overrides() {
        let mut alert = notice(true);
        alert.overrides = serde_json::from_value(json!({
            "android": { "ttl": "5s", "notification": { "channel_id": "c" } },
            "apns": { "aps": { "sound": "s" } },
            "webpush": { "headers": { "TTL": "9" }, "fcm_options": { "link": "https://x.example" } },
        }))
        .unwrap();
        let message = &body(&alert)["message"];
        assert_eq!(message["notification"], json!({ "title": "T", "body": "B" }));
        assert_eq!(message["data"], json!({ "carillon": "alert", "message": "00000000000000ab" }));
        assert_eq!(
            message["android"],
            json!({
                "priority": "high", "ttl": "5s", "collapse_key": "abc",
                "notification": { "tag": "abc", "channel_id": "c" },
            })
        );
        assert_eq!(message["apns"]["payload"], json!({ "aps": { "sound": "s" } }));
        assert_eq!(message["apns"]["headers"]["apns-push-type"], "alert");
        assert_eq!(
            message["webpush"],
            json!({
                "headers": { "TTL": "9", "Urgency": "high", "Topic": "abc" },
                "fcm_options": { "link": "https://x.example" },
            })
        );
        alert.text = Some(AlertText { title: "".into(), body: "x".repeat(4096).into() });
        assert!(matches!(render(&alert), Err(NoticeError::TooLarge { channel: "fcm", .. })));
    }

    #[test]
    fn the_time_to_live_is_what_is_left_and_within_four_weeks() {
        let push = render(&notice(false)).unwrap();
        for (now, ttl) in [(0, "2419200s"), (1_699_999_999_000, "1s"), (1_800_000_000_000, "0s")] {
            let body: Value = serde_json::from_slice(&push.body(Millis(now), "t")).unwrap();
            assert_eq!(body["message"]["android"]["ttl"], ttl);
        }
    }

    #[test]
    fn every_answer_of_the_reference_has_its_outcome() {
        let after = Some(Duration::from_secs(7));
        let of = |status, code: &str| {
            let body = json!({ "error": { "code": status, "status": "S", "details": [
                { "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [] },
                { "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code },
            ] } });
            classify(status, after, body.to_string().as_bytes())
        };
        let is = |verdict, expected| assert_eq!(verdict, Verdict::Outcome(expected));
        is(classify(200, None, b"{}"), Outcome::Accepted);
        is(of(404, "UNREGISTERED"), Outcome::Gone { since: None });
        is(classify(404, None, b"<html>"), failed("not_found"));
        is(of(400, "INVALID_ARGUMENT"), failed("invalid_argument"));
        is(of(403, "SENDER_ID_MISMATCH"), failed("sender_id_mismatch"));
        is(
            classify(403, None, br#"{"error":{"status":"PERMISSION_DENIED"}}"#),
            refused("permission_denied"),
        );
        is(of(401, "THIRD_PARTY_AUTH_ERROR"), failed("third_party_auth_error"));
        is(of(429, "QUOTA_EXCEEDED"), later(Scope::Channel, after, "quota_exceeded"));
        is(of(503, "UNAVAILABLE"), later(Scope::Channel, after, "unavailable"));
        is(of(500, "INTERNAL"), later(Scope::Channel, after, "internal"));
        is(classify(502, None, b"<html>"), later(Scope::Channel, None, "server_error"));
        assert_eq!(classify(401, None, b"{}"), Verdict::Stale);
        assert_eq!(classify_token(400, None), refused("invalid_grant"));
        assert_eq!(classify_token(503, after), later(Scope::Channel, after, "no_access_token"));
    }

    #[test]
    fn an_access_token_is_renewed_before_its_end() {
        let after = |expires_in| renew_at(Millis(0), expires_in).0;
        assert_eq!(after(3600), 3_240_000);
        assert_eq!(after(20), 10_000);
        assert_eq!(after(5), 0);
    }

    #[test]
    fn a_token_cannot_leave_its_place_in_the_json() {
        assert!(is_token("cR:APA91b-_x"));
        for bad in ["", "a\"b", "a\\", "a b", "é", "a\n"] {
            assert!(!is_token(bad), "{bad}");
        }
    }
}
