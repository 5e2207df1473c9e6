//! A browser vendor's push service (RFC 8030 with VAPID, RFC 8292), and the browser behind it (RFC 8291): bodies are
//! opened, and one that no browser could open is counted though the service takes it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, LOCATION, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use serde_json::{Value, json};

use super::books::Kind;
use super::ece::{Receiver, parse};
use super::jwt::Jwt;
use super::provider::{Answer, Connection, Extra, Judged, Payload, Provider, Push, Refusal};
use super::provider::{bare, random};

/// What services take at least (RFC 8030, section 7.2), and browsers' at most.
const BODY_MAX: usize = 4096;
const TOPIC_MAX: usize = 32;
const TOKEN_LIFE_MAX_S: u64 = 24 * 60 * 60;
const CLOCK_LEEWAY_S: u64 = 2;
const POINT_BYTES: usize = 65;
/// Tokens that are remembered; a sender in order has one a day.
const VERIFIED_MAX: usize = 1000;
/// The topic of pushes that say nothing, as our senders agreed on: a body that is sealed does not tell.
const WAKE_TOPIC: &str = "wake";

/// The rules of Web Push, and the subscriptions that were made.
#[derive(Debug)]
pub struct WebPush {
    origin: String,
    /// By the first part of their ids.
    batches: Mutex<HashMap<String, Arc<Batch>>>,
    /// By the `authorization` header.
    verified: Mutex<HashMap<Box<[u8]>, Verified>>,
    is_opening: AtomicBool,
    ids: AtomicU64,
}

/// Subscriptions that share a key, so that a million of them are small: `BATCH-0`, `BATCH-1` and so on.
#[derive(Debug)]
struct Batch {
    count: u64,
    receiver: Receiver,
    /// The sender's public key, if only that sender may push.
    vapid: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Verified {
    key: Arc<[u8]>,
    expires_s: u64,
}

const fn bad(breach: &'static str) -> Refusal {
    Refusal::new(400, "bad_request", breach)
}

const fn forbidden(breach: &'static str) -> Refusal {
    Refusal::new(403, "forbidden", breach)
}

impl WebPush {
    /// `url` is the simulator's own.
    pub fn new(url: &str) -> WebPush {
        WebPush {
            origin: url.to_owned(),
            batches: Mutex::default(),
            verified: Mutex::default(),
            is_opening: AtomicBool::new(true),
            ids: AtomicU64::new(0),
        }
    }

    fn batch(&self, id: &str) -> Option<Arc<Batch>> {
        let (batch, n) = id.split_once('-')?;
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = batches.get(batch)?;
        n.parse::<u64>().is_ok_and(|n| n < batch.count).then(|| Arc::clone(batch))
    }

    fn subscribe(&self, input: &Value) -> Result<Value, String> {
        let bytes = |key: &str| match &input[key] {
            Value::Null => Ok(None),
            Value::String(text) => {
                URL_SAFE_NO_PAD.decode(text).map(Some).map_err(|error| format!("{key}: {error}"))
            }
            _ => Err(format!("{key} is a text in base64url")),
        };
        let private = match bytes("private_key")? {
            Some(key) => PrivateKey::from_private_key(&ECDH_P256, &key).map_err(|e| e.to_string()),
            None => PrivateKey::generate(&ECDH_P256).map_err(|e| e.to_string()),
        }?;
        let auth = match bytes("auth")? {
            Some(auth) => auth.try_into().map_err(|_| "auth has 16 bytes")?,
            None => {
                let mut auth = [0; 16];
                aws_lc_rs::rand::fill(&mut auth).map_err(|error| error.to_string())?;
                auth
            }
        };
        let vapid = bytes("vapid")?;
        if vapid.as_ref().is_some_and(|key| key.len() != POINT_BYTES) {
            return Err(format!("vapid is an uncompressed point of {POINT_BYTES} bytes"));
        }
        let public = private.compute_public_key().map_err(|error| error.to_string())?;
        let receiver = Receiver { private, public: public.as_ref().to_vec(), auth };
        let count = input["count"].as_u64().unwrap_or(1);
        let name = random()?;
        let told = json!({
            "endpoint_base": format!("{}/push/{name}-", self.origin),
            "count": count,
            "keys": {
                "p256dh": URL_SAFE_NO_PAD.encode(&receiver.public),
                "auth": URL_SAFE_NO_PAD.encode(receiver.auth),
            },
        });
        let batch = Arc::new(Batch { count, receiver, vapid });
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).insert(name, batch);
        Ok(told)
    }

    /// Whose the request is, if it says so rightly.
    fn identify(&self, now_ms: u64, head: &Parts) -> Result<Verified, Refusal> {
        let header = head.headers.get(AUTHORIZATION);
        let missing = Refusal::new(401, "unauthorized", "vapid_missing");
        let text = header.ok_or(missing)?.as_bytes();
        let now_s = now_ms / 1000;
        let mut known = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verified) = known.get(text) {
            if verified.expires_s <= now_s {
                return Err(forbidden("vapid_expired"));
            }
            return Ok(verified.clone());
        }
        let credentials = text.strip_prefix(b"vapid ").ok_or(missing)?;
        let credentials = std::str::from_utf8(credentials).unwrap_or_default();
        let parameter = |name: &str| {
            let mut parts = credentials.split(',').filter_map(|part| part.trim().split_once('='));
            parts.find(|(known, _)| *known == name).map(|(_, value)| value)
        };
        let (Some(token), Some(key)) = (parameter("t"), parameter("k")) else {
            return Err(forbidden("vapid_parameters"));
        };
        let key = URL_SAFE_NO_PAD.decode(key).ok().filter(|key| key.len() == POINT_BYTES);
        let key = key.ok_or(forbidden("vapid_key"))?;
        let jwt = Jwt::parse(token).ok_or(forbidden("vapid_malformed"))?;
        if jwt.header["alg"] != "ES256" {
            return Err(forbidden("vapid_algorithm"));
        }
        if !jwt.is_signed("ES256", &ECDSA_P256_SHA256_FIXED, &key) {
            return Err(forbidden("vapid_signature"));
        }
        if jwt.claim("aud") != Some(&self.origin) {
            return Err(forbidden("vapid_audience"));
        }
        let expires_s = jwt.time("exp").ok_or(forbidden("vapid_times"))?;
        if expires_s <= now_s {
            return Err(forbidden("vapid_expired"));
        }
        if expires_s > now_s + TOKEN_LIFE_MAX_S + CLOCK_LEEWAY_S {
            return Err(forbidden("vapid_lives_too_long"));
        }
        let subject = jwt.claim("sub").unwrap_or_default();
        if !subject.starts_with("mailto:") && !subject.starts_with("https://") {
            return Err(forbidden("vapid_subject"));
        }
        if known.len() >= VERIFIED_MAX {
            known.clear();
        }
        let verified = Verified { key: key.into(), expires_s };
        known.insert(text.into(), verified.clone());
        Ok(verified)
    }
}

/// The value of a header that may stand once.
fn single<'a>(head: &'a Parts, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = head.headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(bad("duplicate_headers"));
    }
    first.map(|value| value.to_str().map_err(|_| bad("header_text"))).transpose()
}

/// The rules of RFC 8030, section 5; returns the topic.
fn check_delivery(head: &Parts) -> Result<Option<&str>, Refusal> {
    let ttl = single(head, "ttl")?.ok_or(bad("ttl_missing"))?;
    if ttl.parse::<u32>().is_err() || ttl.starts_with('+') {
        return Err(bad("ttl"));
    }
    let urgencies = ["very-low", "low", "normal", "high"];
    if single(head, "urgency")?.is_some_and(|urgency| !urgencies.contains(&urgency)) {
        return Err(bad("urgency"));
    }
    let topic = single(head, "topic")?;
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_topic =
        |topic: &str| (1..=TOPIC_MAX).contains(&topic.len()) && topic.bytes().all(is_base64);
    if topic.is_some_and(|topic| !is_topic(topic)) {
        return Err(bad("topic"));
    }
    Ok(topic)
}

/// The rules of a body that the service can see; the breach is one that only the browser sees.
fn check_body(
    head: &Parts,
    body: &Bytes,
    receiver: Option<&Receiver>,
) -> Result<Option<&'static str>, Refusal> {
    let encoding = single(head, CONTENT_ENCODING.as_str())?;
    if body.is_empty() {
        return if encoding.is_none() { Ok(None) } else { Err(bad("encoding_of_nothing")) };
    }
    if encoding != Some("aes128gcm") {
        return Err(bad("content_encoding"));
    }
    let sealed = parse(body).map_err(bad)?;
    let is_open = receiver.is_none_or(|receiver| receiver.open(&sealed).is_some());
    Ok((!is_open).then_some("body_not_for_the_subscription"))
}

impl Provider for WebPush {
    const PROTOCOLS: &'static [&'static [u8]] = &[b"h2", b"http/1.1"];
    const BODY_MAX: usize = BODY_MAX;

    fn judge<'a>(
        &self,
        now_ms: u64,
        _: &Connection,
        head: &'a Parts,
        body: &'a Payload,
    ) -> Result<Judged<'a>, Refusal> {
        let unknown = Refusal::new(404, "not_found", "subscription_unknown");
        let id = head.uri.path().strip_prefix("/push/").ok_or(unknown)?;
        if head.method != Method::POST {
            return Err(Refusal::new(405, "method_not_allowed", "method"));
        }
        let batch = self.batch(id).ok_or(unknown)?;
        let verified = self.identify(now_ms, head)?;
        if batch.vapid.as_ref().is_some_and(|key| **key != *verified.key) {
            return Err(forbidden("vapid_key_of_another"));
        }
        let topic = check_delivery(head)?;
        let Payload::Whole(body) = body else {
            return Err(Refusal::new(413, "payload_too_large", "body_size"));
        };
        let receiver = self.is_opening.load(Ordering::Relaxed).then_some(&batch.receiver);
        let breach = check_body(head, body, receiver)?;
        let kind = if topic == Some(WAKE_TOPIC) { Kind::Wake } else { Kind::Alert };
        Ok(Judged::Push(Push { token: id.into(), kind, collapse: topic.map(Into::into), breach }))
    }

    fn accept(&self, head: &Parts) -> Response<Answer> {
        let mut response = bare(201);
        let n = self.ids.fetch_add(1, Ordering::Relaxed);
        let location = HeaderValue::try_from(format!("{}/message/{n}", self.origin));
        let headers = response.headers_mut();
        headers.insert(LOCATION, location.expect("an URL is a header's value"));
        // Ours keeps a message for as long as it is told.
        if let Some(ttl) = head.headers.get("ttl") {
            headers.insert("ttl", ttl.clone());
        }
        response
    }

    fn refuse(&self, _: &Parts, status: u16, reason: &str, extra: &Extra) -> Response<Answer> {
        let mut response = super::provider::json(status, &json!({ "error": reason }));
        if let Some(retry_after) = &extra.retry_after {
            response.headers_mut().insert(RETRY_AFTER, retry_after.clone());
        }
        response
    }

    fn control(&self, call: &str, input: &Value) -> Option<Result<Value, String>> {
        match call {
            "subscriptions" => Some(self.subscribe(input)),
            "open_bodies" => {
                self.is_opening.store(input["open"] == true, Ordering::Relaxed);
                Some(Ok(json!({})))
            }
            _ => None,
        }
    }

    /// What a browser has: the keys that open a body.
    fn captured(&self, token: &str) -> Value {
        let Some(batch) = self.batch(token) else { return Value::Null };
        let private: Option<EcPrivateKeyBin<'_>> = batch.receiver.private.as_be_bytes().ok();
        json!({
            "private_key": private.map(|key| URL_SAFE_NO_PAD.encode(key.as_ref())),
            "public_key": URL_SAFE_NO_PAD.encode(&batch.receiver.public),
            "auth": URL_SAFE_NO_PAD.encode(batch.receiver.auth),
        })
    }
}
