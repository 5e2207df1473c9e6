//! APNs: payloads, the provider token's age, and what an answer means.
//!
//! From Apple's "Sending notification requests to APNs", "Establishing a token-based connection to APNs" and "Handling
//! notification responses from APNs".

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_world::{Millis, Priority};
use serde::Deserialize;
use serde_json::json;

use super::payload::{failed, fits, hex, later, merge, refused};
use super::sign::EcKey;
use super::{Notice, NoticeError, Outcome, Scope};

/// Bytes of a payload at most.
pub const PAYLOAD_BYTES_MAX: usize = 4096;
/// Apple says not to assume a length; today's have 64 digits.
pub const TOKEN_CHARS_MAX: usize = 200;

/// How long a provider token is used: APNs refuses one that is older than 60 minutes, and whoever changes it more often than
/// every 20, so nobody may make one without knowing of the last.
pub const PROVIDER_TOKEN_LASTS: Duration = Duration::from_secs(45 * 60);

/// A request but for its token: what `prepare` makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    pub body: Bytes,
    /// `background` for a wake, else `alert`.
    pub push_type: &'static str,
    pub priority: u8,
    /// In seconds since 1970.
    pub expiration: u64,
    pub collapse: Arc<str>,
}

/// Puts a notice into APNs' format.
///
/// # Errors
/// If the payload is larger than APNs takes.
pub fn render(notice: &Notice) -> Result<Push, NoticeError> {
    let (push_type, priority, mut payload) = match &notice.text {
        // Apple: a background push has priority 5; with 10 it is an error.
        None => ("background", 5, json!({ "aps": { "content-available": 1 }, "carillon": "wake" })),
        Some(text) => {
            let priority = match notice.priority {
                Priority::High => 10,
                Priority::Normal => 5,
                Priority::Low => 1,
            };
            let payload = json!({
                "aps": { "alert": { "title": &*text.title, "body": &*text.body } },
                "carillon": "alert",
                "message": hex(notice.message),
            });
            ("alert", priority, payload)
        }
    };
    if let (Some(over), Some(payload), true) =
        (&notice.overrides.apns, payload.as_object_mut(), notice.text.is_some())
    {
        merge(payload, over);
    }
    let body = Bytes::from(payload.to_string());
    fits("apns", body.len(), PAYLOAD_BYTES_MAX)?;
    Ok(Push {
        body,
        push_type,
        priority,
        expiration: notice.expires_at.0 / 1000,
        collapse: notice.collapse.clone(),
    })
}

/// Whether a device's token may stand in a path: hexadecimal digits.
pub fn is_token(token: &str) -> bool {
    !token.is_empty()
        && token.len() <= TOKEN_CHARS_MAX
        && token.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The provider token of a team's key: the text after `bearer`. It is the same for the same time, so that neither a
/// restart nor another central of the team counts as a change to APNs.
pub fn provider_token(key: &EcKey, team_id: &str, key_id: &str, issued_at: Millis) -> String {
    key.same_jwt(key_id, &json!({ "iss": team_id, "iat": issued_at.0 / 1000 }))
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Outcome(Outcome),
    /// The provider token is stale: renew it if it may be, and send once more.
    Stale,
}

#[derive(Deserialize)]
struct Answer {
    reason: String,
    timestamp: Option<u64>,
}

/// `body` is the answer's, cut off at a bound.
pub fn classify(status: u16, after: Option<Duration>, body: &[u8]) -> Verdict {
    if status == 200 {
        return Verdict::Outcome(Outcome::Accepted);
    }
    let answer: Option<Answer> = serde_json::from_slice(body).ok();
    let since = answer.as_ref().and_then(|answer| answer.timestamp).map(Millis);
    let reason = answer.as_ref().map_or("", |answer| answer.reason.as_str());
    Verdict::Outcome(match (status, reason) {
        (403, "ExpiredProviderToken") => return Verdict::Stale,
        (410, _) => Outcome::Gone { since },
        // Not gone: with a wrong topic or environment it would be said of every device.
        (400, "BadDeviceToken") => failed("bad_device_token"),
        (400, "DeviceTokenNotForTopic") => failed("device_token_not_for_topic"),
        (400, "TopicDisallowed") => failed("topic_disallowed"),
        (400, "BadTopic") => failed("bad_topic"),
        (400, "MissingTopic") => failed("missing_topic"),
        (400, "BadCollapseId") => failed("bad_collapse_id"),
        (400, "BadExpirationDate") => failed("bad_expiration_date"),
        (400, "BadMessageId") => failed("bad_message_id"),
        (400, "BadPriority") => failed("bad_priority"),
        (400, "InvalidPushType") => failed("invalid_push_type"),
        (400, "DuplicateHeaders") => failed("duplicate_headers"),
        (400, "MissingDeviceToken") => failed("missing_device_token"),
        (400, "PayloadEmpty") => failed("payload_empty"),
        (400, "IdleTimeout") => later(Scope::Channel, after, "idle_timeout"),
        (400, _) => failed("bad_request"),
        (403, "InvalidProviderToken") => refused("invalid_provider_token"),
        (403, "MissingProviderToken") => refused("missing_provider_token"),
        (403, "BadCertificate") => refused("bad_certificate"),
        (403, "BadCertificateEnvironment") => refused("bad_certificate_environment"),
        (401 | 403, _) => refused("forbidden"),
        (404, _) => failed("bad_path"),
        (405, _) => failed("method_not_allowed"),
        (413, _) => failed("payload_too_large"),
        // Somebody else uses the team's key, too: all tokens of the team are slowed.
        (429, "TooManyProviderTokenUpdates") => {
            later(Scope::Channel, after, "too_many_provider_token_updates")
        }
        (429, _) => later(Scope::Target, after, "too_many_requests"),
        (500, _) => later(Scope::Channel, after, "internal_server_error"),
        (503, "Shutdown") => later(Scope::Channel, after, "shutdown"),
        (503, _) => later(Scope::Channel, after, "service_unavailable"),
        (500.., _) => later(Scope::Channel, after, "server_error"),
        _ => failed("unexpected_status"),
    })
}

#[cfg(test)]
mod tests {
    use carillon_world::{AlertText, MessageId, PushOverrides};

    use super::*;
    use crate::core::channel::Reason;

    fn notice(text: Option<(&str, &str)>, priority: Priority) -> Notice {
        Notice {
            message: MessageId::new(0xab),
            text: text.map(|(title, body)| AlertText { title: title.into(), body: body.into() }),
            collapse: "abc".into(),
            priority,
            expires_at: Millis(1_700_000_000_999),
            overrides: PushOverrides::default(),
        }
    }

    #[test]
    fn a_wake_says_nothing_and_ignores_overrides() {
        let mut wake = notice(None, Priority::High);
        wake.overrides.apns = serde_json::from_str(r#"{"aps":{"badge":1}}"#).unwrap();
        let push = render(&wake).unwrap();
        assert_eq!(push.body, r#"{"aps":{"content-available":1},"carillon":"wake"}"#.as_bytes());
        assert_eq!((push.push_type, push.priority), ("background", 5));
        assert_eq!(push.expiration, 1_700_000_000);
    }

    #[test]
    fn an_alert_has_its_text_and_its_overrides_within_4_kib() {
        let mut alert = notice(Some(("T", "B\"")), Priority::High);
        alert.overrides.apns =
            serde_json::from_str(r#"{"aps":{"sound":"ding","alert":{"subtitle":"s"}},"k":[1]}"#)
                .unwrap();
        let push = render(&alert).unwrap();
        let payload: serde_json::Value = serde_json::from_slice(&push.body).unwrap();
        assert_eq!(
            payload,
            json!({
                "aps": { "alert": { "title": "T", "body": "B\"", "subtitle": "s" }, "sound": "ding" },
                "carillon": "alert", "message": "00000000000000ab", "k": [1],
            })
        );
        assert_eq!((push.push_type, push.priority), ("alert", 10));
        assert_eq!(render(&notice(Some(("", "")), Priority::Normal)).unwrap().priority, 5);
        assert_eq!(render(&notice(Some(("", "")), Priority::Low)).unwrap().priority, 1);

        let spare =
            PAYLOAD_BYTES_MAX - render(&notice(Some(("", "")), Priority::Low)).unwrap().body.len();
        let body = "x".repeat(spare);
        assert!(render(&notice(Some(("", &body)), Priority::Low)).is_ok());
        let body = "x".repeat(spare + 1);
        assert_eq!(
            render(&notice(Some(("", &body)), Priority::Low)),
            Err(NoticeError::TooLarge { channel: "apns", bytes: 4097, bytes_max: 4096 })
        );
    }

    #[test]
    fn a_provider_token_is_one_text_whoever_makes_it_and_signed_by_the_key() {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let key = || EcKey::from_pem(&pem).unwrap();
        let issued_at = Millis(1_700_000_000_000);
        let ours = provider_token(&key(), "TEAM", "KEY", issued_at);
        assert_eq!(ours, provider_token(&key(), "TEAM", "KEY", issued_at));
        assert_ne!(ours, provider_token(&key(), "TEAM", "KEY", issued_at.plus(1000)));
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let other = provider_token(&EcKey::from_pem(&other).unwrap(), "TEAM", "KEY", issued_at);
        assert_ne!(ours, other);
        let verifies = |token: &str| {
            use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
            use base64::Engine as _;
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let signature =
                base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signature).unwrap();
            let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key().public().to_vec());
            public.verify(signed.as_bytes(), &signature).is_ok()
        };
        assert!(verifies(&ours) && !verifies(&other));
    }

    #[test]
    fn every_answer_of_apples_table_has_its_outcome() {
        let after = Some(Duration::from_secs(7));
        let outcome = |status, reason: &str| {
            let body = format!(r#"{{"reason":"{reason}","timestamp":1700000000123}}"#);
            classify(status, after, body.as_bytes())
        };
        let is = |verdict, expected| assert_eq!(verdict, Verdict::Outcome(expected));
        is(classify(200, None, b""), Outcome::Accepted);
        is(outcome(410, "Unregistered"), Outcome::Gone { since: Some(Millis(1_700_000_000_123)) });
        is(classify(410, None, b"no JSON"), Outcome::Gone { since: None });
        is(outcome(400, "BadDeviceToken"), failed("bad_device_token"));
        is(outcome(400, "DeviceTokenNotForTopic"), failed("device_token_not_for_topic"));
        is(outcome(400, "WhatIsNotInTheTable"), failed("bad_request"));
        is(outcome(403, "InvalidProviderToken"), refused("invalid_provider_token"));
        is(outcome(403, "Forbidden"), refused("forbidden"));
        is(outcome(404, "BadPath"), failed("bad_path"));
        is(outcome(405, "MethodNotAllowed"), failed("method_not_allowed"));
        is(outcome(413, "PayloadTooLarge"), failed("payload_too_large"));
        is(outcome(429, "TooManyRequests"), later(Scope::Target, after, "too_many_requests"));
        is(
            outcome(429, "TooManyProviderTokenUpdates"),
            later(Scope::Channel, after, "too_many_provider_token_updates"),
        );
        is(
            outcome(500, "InternalServerError"),
            later(Scope::Channel, after, "internal_server_error"),
        );
        is(outcome(503, "ServiceUnavailable"), later(Scope::Channel, after, "service_unavailable"));
        is(outcome(503, "Shutdown"), later(Scope::Channel, after, "shutdown"));
        is(outcome(302, ""), failed("unexpected_status"));
        assert_eq!(outcome(403, "ExpiredProviderToken"), Verdict::Stale);
        assert_ne!(Reason("a"), Reason("b"));
    }

    #[test]
    fn a_token_that_is_no_hex_never_gets_into_a_path() {
        assert!(is_token("00fcEA"));
        for bad in ["", "00 ", "../3", "0x00", "00?", "é", &"0".repeat(TOKEN_CHARS_MAX + 1)] {
            assert!(!is_token(bad), "{bad}");
        }
    }
}
