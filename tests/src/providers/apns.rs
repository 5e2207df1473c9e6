//! Apple's push service, by "Sending notification requests to APNs", "Establishing a token-based connection to APNs" and
//! "Handling notification responses from APNs".
//!
//! Stricter than the real one where that says that it "may return an error" or drops a push in silence: a push whose
//! type and payload do not fit is refused.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use rcgen::KeyPair;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::books::Kind;
use super::jwt::Jwt;
use super::provider::{Answer, Connection, Extra, Judged, Payload, Provider, Push, Refusal, bare};

const PAYLOAD_MAX: usize = 4096;
const COLLAPSE_ID_MAX: usize = 64;
const TOKEN_AGE_MAX_S: u64 = 60 * 60;
const TOKEN_UPDATE_MIN_MS: u64 = 20 * 60 * 1000;
/// Clocks of one machine are read at different moments.
const CLOCK_LEEWAY_S: u64 = 2;
/// Today's tokens have 64 digits, and Apple says not to rely on it.
const DEVICE_TOKEN_DIGITS: std::ops::RangeInclusive<usize> = 64..=200;
/// Provider tokens that are remembered; a sender in order has one an hour.
const VERIFIED_MAX: usize = 1000;

/// The rules of APNs, and the keys that were made for senders.
#[derive(Debug)]
pub struct Apns {
    auth: Mutex<Auth>,
    ids: AtomicU64,
}

#[derive(Debug)]
struct Auth {
    /// By key id.
    keys: HashMap<String, Arc<Key>>,
    /// By the text of the `authorization` header.
    verified: HashMap<Box<[u8]>, Verified>,
    /// When each team's provider token was new for the last time.
    updated_ms: HashMap<String, u64>,
    update_min_ms: u64,
}

#[derive(Debug)]
struct Key {
    team: String,
    /// `TEAM.KEY`.
    identity: String,
    topics: Vec<String>,
    public: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Verified {
    key: Arc<Key>,
    issued_at_s: u64,
}

/// The headers that are looked at.
#[derive(Debug, Default)]
struct Headers<'a> {
    authorization: Option<&'a HeaderValue>,
    topic: Option<&'a HeaderValue>,
    push_type: Option<&'a HeaderValue>,
    priority: Option<&'a HeaderValue>,
    expiration: Option<&'a HeaderValue>,
    collapse_id: Option<&'a HeaderValue>,
    id: Option<&'a HeaderValue>,
}

impl<'a> Headers<'a> {
    fn read(head: &'a Parts) -> Result<Headers<'a>, Refusal> {
        let mut headers = Headers::default();
        for (name, value) in &head.headers {
            let place = match name.as_str() {
                "authorization" => &mut headers.authorization,
                "apns-topic" => &mut headers.topic,
                "apns-push-type" => &mut headers.push_type,
                "apns-priority" => &mut headers.priority,
                "apns-expiration" => &mut headers.expiration,
                "apns-collapse-id" => &mut headers.collapse_id,
                "apns-id" => &mut headers.id,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(Refusal::new(400, "DuplicateHeaders", "duplicate_headers"));
            }
        }
        Ok(headers)
    }
}

/// As much of a payload as is judged.
#[derive(Debug, Deserialize)]
struct Body {
    aps: Option<Aps>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Aps {
    alert: Option<Alert>,
    badge: Option<IgnoredAny>,
    sound: Option<IgnoredAny>,
    content_available: Option<u8>,
}

/// A text or a dictionary, of which nothing is kept.
#[derive(Debug)]
struct Alert;

impl<'de> Deserialize<'de> for Alert {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Alert, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Alert;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or a dictionary")
            }

            fn visit_str<E>(self, _: &str) -> Result<Alert, E> {
                Ok(Alert)
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Alert, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Alert)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Default for Apns {
    fn default() -> Apns {
        let auth = Auth {
            keys: HashMap::new(),
            verified: HashMap::new(),
            updated_ms: HashMap::new(),
            update_min_ms: TOKEN_UPDATE_MIN_MS,
        };
        Apns { auth: Mutex::new(auth), ids: AtomicU64::new(0) }
    }
}

impl Auth {
    /// Whose a provider token is; a token that is seen for the first time is an update.
    fn identify(&mut self, now_ms: u64, header: Option<&HeaderValue>) -> Result<Verified, Refusal> {
        const INVALID: fn(&'static str) -> Refusal =
            |breach| Refusal::new(403, "InvalidProviderToken", breach);
        let missing = Refusal::new(403, "MissingProviderToken", "provider_token_missing");
        let text = header.ok_or(missing)?.as_bytes();
        let verified = match self.verified.get(text) {
            Some(verified) => verified.clone(),
            None => {
                let jwt = text.strip_prefix(b"bearer ").or_else(|| text.strip_prefix(b"Bearer "));
                let jwt = std::str::from_utf8(jwt.ok_or(missing)?);
                let jwt =
                    jwt.ok().and_then(Jwt::parse).ok_or(INVALID("provider_token_malformed"))?;
                let key = jwt.header["kid"].as_str().and_then(|kid| self.keys.get(kid));
                let key = Arc::clone(key.ok_or(INVALID("provider_token_key"))?);
                if jwt.header["alg"] != "ES256" {
                    return Err(INVALID("provider_token_algorithm"));
                }
                if !jwt.is_signed("ES256", &ECDSA_P256_SHA256_FIXED, &key.public) {
                    return Err(INVALID("provider_token_signature"));
                }
                if jwt.claim("iss") != Some(&key.team) {
                    return Err(INVALID("provider_token_team"));
                }
                let issued_at_s = jwt.time("iat").ok_or(INVALID("provider_token_iat"))?;
                check_age(now_ms, issued_at_s)?;
                let last = self.updated_ms.get(&key.team);
                if last.is_some_and(|last| now_ms < last + self.update_min_ms) {
                    let breach = "provider_token_updates";
                    return Err(Refusal::new(429, "TooManyProviderTokenUpdates", breach));
                }
                self.updated_ms.insert(key.team.clone(), now_ms);
                if self.verified.len() >= VERIFIED_MAX {
                    self.verified.clear();
                }
                let verified = Verified { key, issued_at_s };
                self.verified.insert(text.into(), verified.clone());
                verified
            }
        };
        check_age(now_ms, verified.issued_at_s)?;
        Ok(verified)
    }

    /// Makes a key, as Apple does: the sender gets the private half once.
    fn make_key(&mut self, input: &Value) -> Result<Value, String> {
        let text = |key: &str| input[key].as_str().ok_or_else(|| format!("{key} is a text"));
        let (team, id) = (text("team")?, text("key")?);
        let topics = input["topics"].as_array().ok_or("topics is a list")?;
        let topics = topics.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let pair = KeyPair::generate().map_err(|error| error.to_string())?;
        let key = Key {
            team: team.to_owned(),
            identity: format!("{team}.{id}"),
            topics,
            public: pair.public_key_raw().to_vec(),
        };
        self.keys.insert(id.to_owned(), Arc::new(key));
        // Tokens of a key that is replaced are no longer good.
        self.verified.clear();
        Ok(json!({ "team": team, "key": id, "p8": pair.serialize_pem() }))
    }
}

fn check_age(now_ms: u64, issued_at_s: u64) -> Result<(), Refusal> {
    let now_s = now_ms / 1000;
    if issued_at_s > now_s + CLOCK_LEEWAY_S {
        return Err(Refusal::new(403, "InvalidProviderToken", "provider_token_from_the_future"));
    }
    if now_s - issued_at_s.min(now_s) > TOKEN_AGE_MAX_S {
        return Err(Refusal::new(403, "ExpiredProviderToken", "provider_token_expired"));
    }
    Ok(())
}

fn device_token(head: &Parts) -> Result<&str, Refusal> {
    if head.method != Method::POST {
        return Err(Refusal::new(405, "MethodNotAllowed", "method"));
    }
    let token = head.uri.path().strip_prefix("/3/device/");
    let token = token.ok_or(Refusal::new(404, "BadPath", "path"))?;
    if token.is_empty() {
        return Err(Refusal::new(400, "MissingDeviceToken", "device_token_missing"));
    }
    let is_hex = token.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || token.len() % 2 != 0 || !DEVICE_TOKEN_DIGITS.contains(&token.len()) {
        return Err(Refusal::new(400, "BadDeviceToken", "device_token"));
    }
    Ok(token)
}

fn is_canonical_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn check_topic(topic: Option<&HeaderValue>, key: &Key) -> Result<(), Refusal> {
    let topic = topic.ok_or(Refusal::new(400, "MissingTopic", "topic_missing"))?.as_bytes();
    let is_bundle = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    if topic.is_empty() || !topic.iter().all(is_bundle) {
        return Err(Refusal::new(400, "BadTopic", "topic_malformed"));
    }
    if !key.topics.iter().any(|known| known.as_bytes() == topic) {
        return Err(Refusal::new(400, "TopicDisallowed", "topic_of_another"));
    }
    Ok(())
}

/// The rules of the headers that say how to deliver; returns the kind and the collapse id.
fn check_delivery<'a>(headers: &Headers<'a>) -> Result<(Kind, Option<&'a str>), Refusal> {
    let kind = match headers.push_type.map(HeaderValue::as_bytes) {
        Some(b"alert") => Kind::Alert,
        Some(b"background") => Kind::Wake,
        None => return Err(Refusal::new(400, "InvalidPushType", "push_type_missing")),
        Some(_) => return Err(Refusal::new(400, "InvalidPushType", "push_type")),
    };
    match (headers.priority.map(HeaderValue::as_bytes), kind) {
        (Some(b"1" | b"5"), _) | (Some(b"10") | None, Kind::Alert) => {}
        // Without the header a push has priority 10.
        (Some(b"10") | None, Kind::Wake) => {
            return Err(Refusal::new(400, "BadPriority", "background_priority"));
        }
        (Some(_), _) => return Err(Refusal::new(400, "BadPriority", "priority")),
    }
    if let Some(expiration) = headers.expiration {
        let seconds = expiration.to_str().ok().and_then(|text| text.parse::<u32>().ok());
        if seconds.is_none() {
            return Err(Refusal::new(400, "BadExpirationDate", "expiration"));
        }
    }
    if headers.id.is_some_and(|id| !is_canonical_uuid(id.as_bytes())) {
        return Err(Refusal::new(400, "BadMessageId", "id"));
    }
    let bad_collapse = Refusal::new(400, "BadCollapseId", "collapse_id");
    let collapse = headers.collapse_id.map(|id| id.to_str().map_err(|_| bad_collapse));
    let collapse = collapse.transpose()?;
    if collapse.is_some_and(|id| id.is_empty() || id.len() > COLLAPSE_ID_MAX) {
        return Err(bad_collapse);
    }
    Ok((kind, collapse))
}

fn check_payload(kind: Kind, body: &Payload) -> Result<(), Refusal> {
    let Payload::Whole(body) = body else {
        return Err(Refusal::new(413, "PayloadTooLarge", "payload_size"));
    };
    if body.is_empty() {
        return Err(Refusal::new(400, "PayloadEmpty", "payload_empty"));
    }
    // Apple has no word of its own for these two.
    let Ok(body) = serde_json::from_slice::<Body>(body) else {
        return Err(Refusal::new(400, "PayloadEmpty", "payload_malformed"));
    };
    let aps = body.aps.ok_or(Refusal::new(400, "PayloadEmpty", "payload_without_aps"))?;
    match kind {
        Kind::Alert if aps.alert.is_none() => {
            Err(Refusal::new(400, "InvalidPushType", "alert_without_alert"))
        }
        Kind::Wake if aps.content_available != Some(1) => {
            Err(Refusal::new(400, "InvalidPushType", "background_without_content_available"))
        }
        Kind::Wake if aps.alert.is_some() || aps.badge.is_some() || aps.sound.is_some() => {
            Err(Refusal::new(400, "InvalidPushType", "background_that_shows"))
        }
        Kind::Alert | Kind::Wake => Ok(()),
    }
}

impl Apns {
    /// The id of the request, or one that is made for it.
    fn add_id(&self, head: &Parts, response: &mut Response<Answer>) {
        let given = head.headers.get("apns-id").filter(|id| is_canonical_uuid(id.as_bytes()));
        let id = given.cloned().unwrap_or_else(|| {
            let n = self.ids.fetch_add(1, Ordering::Relaxed);
            let id = format!("{:08X}-0000-4000-8000-{:012X}", n >> 48, n & 0xFFFF_FFFF_FFFF);
            HeaderValue::try_from(id).expect("digits and hyphens are a header's value")
        });
        response.headers_mut().insert("apns-id", id);
    }
}

impl Provider for Apns {
    const PROTOCOLS: &'static [&'static [u8]] = &[b"h2"];
    const BODY_MAX: usize = PAYLOAD_MAX;

    fn judge<'a>(
        &self,
        now_ms: u64,
        connection: &Connection,
        head: &'a Parts,
        body: &'a Payload,
    ) -> Result<Judged<'a>, Refusal> {
        let token = device_token(head)?;
        let headers = Headers::read(head)?;
        let verified = {
            let mut auth = self.auth.lock().unwrap_or_else(PoisonError::into_inner);
            auth.identify(now_ms, headers.authorization)?
        };
        let identity = &verified.key.identity;
        let first = connection.identity.get_or_init(|| identity.clone());
        if first != identity {
            let is_team = first.split('.').next() == Some(&verified.key.team);
            return Err(if is_team {
                Refusal::new(403, "UnrelatedKeyIdInToken", "second_key_on_connection")
            } else {
                Refusal::new(403, "InvalidProviderToken", "second_team_on_connection")
            });
        }
        check_topic(headers.topic, &verified.key)?;
        let (kind, collapse) = check_delivery(&headers)?;
        check_payload(kind, body)?;
        let collapse = collapse.map(Into::into);
        Ok(Judged::Push(Push { token: token.into(), kind, collapse, breach: None }))
    }

    fn accept(&self, head: &Parts) -> Response<Answer> {
        let mut response = bare(200);
        self.add_id(head, &mut response);
        response
    }

    fn refuse(&self, head: &Parts, status: u16, reason: &str, extra: &Extra) -> Response<Answer> {
        let mut body = json!({ "reason": reason });
        if let Some(since) = extra.gone_since_ms {
            body["timestamp"] = since.into();
        }
        let mut response = super::provider::json(status, &body);
        if let Some(retry_after) = &extra.retry_after {
            response.headers_mut().insert(http::header::RETRY_AFTER, retry_after.clone());
        }
        self.add_id(head, &mut response);
        response
    }

    fn control(&self, call: &str, input: &Value) -> Option<Result<Value, String>> {
        let mut auth = self.auth.lock().unwrap_or_else(PoisonError::into_inner);
        match call {
            "keys" => Some(auth.make_key(input)),
            "token_updates" => Some(match input["min_ms"].as_u64() {
                Some(min_ms) => {
                    auth.update_min_ms = min_ms;
                    Ok(json!({}))
                }
                None => Err("min_ms is a number".to_owned()),
            }),
            _ => None,
        }
    }
}
