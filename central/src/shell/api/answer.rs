//! Answers: JSON with the position it rests on, and problems.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use carillon_world::Position;
use carillon_world::Problem;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use crate::core::problem;

const POSITION: HeaderName = HeaderName::from_static("carillon-position");

/// A problem on its way out.
#[derive(Debug)]
pub(crate) struct Refusal(Box<Problem>);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal(Box::new(problem))
    }
}

impl Refusal {
    /// Adds a member to the problem; one that the problem has already stays.
    pub(crate) fn with(mut self, name: &str, value: serde_json::Value) -> Refusal {
        let mut extra = match self.0.extra.as_deref().map(serde_json::from_str) {
            Some(Ok(serde_json::Value::Object(members))) => members,
            _ => serde_json::Map::new(),
        };
        extra.entry(name).or_insert(value);
        self.0.extra = Some(serde_json::Value::Object(extra).to_string());
        self
    }
}

/// The members of a problem that are always there (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemBody {
    /// `https://carillon.dev/problems/<code>`.
    r#type: String,
    code: String,
    title: String,
    status: u16,
    detail: String,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The problem as JSON, a [`ProblemBody`] with what is added.
    pub(crate) fn body(&self) -> serde_json::Value {
        let problem = &*self.0;
        let body = ProblemBody {
            r#type: format!("https://carillon.dev/problems/{}", problem.code),
            code: problem.code.clone(),
            title: problem.title.clone(),
            status: self.status().as_u16(),
            detail: problem.detail.clone(),
        };
        let mut body = serde_json::to_value(body).expect("strings and numbers make JSON");
        if let Some(Ok(serde_json::Value::Object(extra))) =
            problem.extra.as_deref().map(serde_json::from_str)
        {
            for (name, value) in extra {
                body.as_object_mut().expect("a struct is an object").entry(name).or_insert(value);
            }
        }
        body
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, body) = (self.status(), self.body());
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        (status, headers, body.to_string()).into_response()
    }
}

pub(crate) type Answered = Result<Response, Refusal>;

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_string(body).expect("strings, numbers and JSON texts make JSON");
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text)
        .into_response()
}

/// What an answer of lines is said to be.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// An answer of lines, each a JSON object, that goes on until the sender is dropped.
pub(crate) fn ndjson(pieces: mpsc::Receiver<Bytes>) -> Response {
    let pieces = futures_util::stream::unfold(pieces, async |mut pieces: mpsc::Receiver<Bytes>| {
        let piece = pieces.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), pieces))
    });
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON))];
    (headers, Body::from_stream(pieces)).into_response()
}

/// A JSON answer to a write.
pub(crate) fn written(status: StatusCode, at: Position, body: &impl Serialize) -> Response {
    at_position(at, json(status, body))
}

/// With the `ETag` of a revision.
pub(crate) fn tagged(mut response: Response, revision: u32) -> Response {
    let etag = HeaderValue::from_str(&format!("\"{revision}\"")).expect("digits and quotes");
    response.headers_mut().insert(header::ETAG, etag);
    response
}

/// An empty answer to a write.
pub(crate) fn done(at: Position) -> Response {
    at_position(at, StatusCode::NO_CONTENT.into_response())
}

fn at_position(at: Position, mut response: Response) -> Response {
    let value = HeaderValue::from_str(&position(at)).expect("digits and slashes");
    response.headers_mut().insert(POSITION, value);
    response
}

/// `<shard>/<epoch number>/<seq>`.
pub(crate) fn position(at: Position) -> String {
    format!("{}/{}/{}", at.shard, at.epoch.number, at.seq)
}

/// JSON text inside an answer, as it was written.
pub(crate) fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned())
        .unwrap_or_else(|_| RawValue::from_string("null".to_owned()).expect("null is JSON"))
}

/// The writer answered with something that this call does not ask for: a fault of ours.
pub(crate) fn unexpected() -> Refusal {
    tracing::error!("the writer answered another question");
    problem::internal().into()
}

pub(crate) async fn no_such_route() -> Refusal {
    problem::not_found("path").into()
}

pub(crate) async fn no_such_method() -> Refusal {
    method_not_allowed()
}

pub(crate) fn method_not_allowed() -> Refusal {
    problem::problem(405, "method-not-allowed", "Method not allowed", "this path has other methods")
        .into()
}
