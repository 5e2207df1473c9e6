//! Requests and answers as JSON. Fields unknown here are skipped, so that a server may add some.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::event::Problem;
use super::outbox::{Profile, PushToken};
use super::store::{Message, Priority};
use crate::ids::{AppId, Cursor, DeviceId, MessageId, Secret, Session, Tag};

const CURSOR: HeaderName = HeaderName::from_static("carillon-cursor");

/// Builds a request; the URI is the path alone.
pub(super) fn request(
    method: Method,
    path: &str,
    session: Option<&Session>,
    cursor: Option<&Cursor>,
    body: Option<Vec<u8>>,
) -> http::Request<Bytes> {
    let mut request = http::Request::new(Bytes::new());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("paths are written in this crate");
    let headers = request.headers_mut();
    if let Some(session) = session {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", session.as_str()))
            .expect("a session is visible ASCII since it was parsed");
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    if let Some(cursor) = cursor {
        let value = HeaderValue::from_str(cursor.as_str())
            .expect("a cursor is visible ASCII since it was parsed");
        headers.insert(CURSOR, value);
    }
    if let Some(body) = body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Bytes::from(body);
    }
    request
}

pub(super) fn encode<T: Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).expect("request bodies have text keys and finite numbers")
}

#[derive(Serialize)]
pub(super) struct EnrolBody<'a> {
    pub(super) key: &'a str,
    pub(super) secret: &'a Secret,
    #[serde(flatten)]
    pub(super) profile: &'a Profile,
}

#[derive(Serialize)]
pub(super) struct SessionBody<'a> {
    pub(super) app: AppId,
    pub(super) id: DeviceId,
    pub(super) secret: &'a Secret,
}

#[derive(Serialize)]
pub(super) struct FetchBody {
    pub(super) ids: Vec<MessageId>,
}

#[derive(Serialize)]
pub(super) struct PatchBody<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) attributes: &'a BTreeMap<String, Option<serde_json::Value>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) groups: &'a BTreeMap<String, bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tokens: Option<&'a [PushToken]>,
}

#[derive(Deserialize)]
pub(super) struct Enrolled {
    pub(super) id: DeviceId,
    pub(super) app: AppId,
    pub(super) session: Session,
    pub(super) cursor: Option<Cursor>,
}

#[derive(Deserialize)]
pub(super) struct SessionGiven {
    pub(super) session: Session,
}

/// `after` may be null but not missing: an answer that does not say what it was computed from is not applied.
fn stated<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Cursor>, D::Error> {
    Option::deserialize(from)
}

#[derive(Deserialize)]
pub(super) struct Patched {
    #[serde(deserialize_with = "stated")]
    pub(super) after: Option<Cursor>,
    #[serde(default)]
    pub(super) cursor: Option<Cursor>,
}

/// A message on the wire. Not `Message` flattened beside an id, because flattening cannot carry raw JSON.
#[derive(Deserialize)]
pub(super) struct WireMessage {
    id: MessageId,
    tag: Tag,
    #[serde(default)]
    priority: Priority,
    #[serde(default)]
    expires_at: Option<Timestamp>,
    body: Box<RawValue>,
}

impl From<WireMessage> for (MessageId, Message) {
    fn from(wire: WireMessage) -> (MessageId, Message) {
        let WireMessage { id, tag, priority, expires_at, body } = wire;
        (id, Message { tag, priority, expires_at, body: Arc::from(Box::<str>::from(body)) })
    }
}

#[derive(Deserialize)]
pub(super) struct Answer {
    #[serde(deserialize_with = "stated")]
    pub(super) after: Option<Cursor>,
    pub(super) messages: Vec<WireMessage>,
    pub(super) gone: Vec<MessageId>,
    #[serde(default)]
    pub(super) inventory: Option<Vec<(MessageId, Tag)>>,
    pub(super) cursor: Cursor,
    /// Seconds.
    #[serde(default)]
    pub(super) poll_after: f64,
}

#[derive(Deserialize)]
pub(super) struct Fetched {
    #[serde(deserialize_with = "stated")]
    pub(super) after: Option<Cursor>,
    pub(super) messages: Vec<WireMessage>,
    pub(super) gone: Vec<MessageId>,
    pub(super) cursor: Cursor,
}

/// What a refusal says; empty fields if it is not problem+json.
pub(super) fn problem(response: &http::Response<Bytes>) -> Problem {
    let mut problem: Problem = serde_json::from_slice(response.body()).unwrap_or_default();
    problem.status = response.status().as_u16();
    problem
}

/// Milliseconds, from whole seconds. The form with a date is ignored: a device's clock may be anywhere.
pub(super) fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(seconds.saturating_mul(1_000))
}
