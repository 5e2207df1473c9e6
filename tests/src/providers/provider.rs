//! What differs between the providers: which requests are right, and how answers look.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response};
use http_body::{Body, Frame, SizeHint};
use serde_json::Value;
use tokio::sync::Notify;

use super::books::Kind;

/// A push that broke no rule.
#[derive(Debug)]
pub struct Push<'a> {
    pub(super) token: Cow<'a, str>,
    pub(super) kind: Kind,
    pub(super) collapse: Option<Cow<'a, str>>,
    /// A rule that the provider cannot see broken, but the device would.
    pub(super) breach: Option<&'static str>,
}

/// A request that broke a rule, and what the provider documents for that.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    pub(super) status: u16,
    pub(super) reason: &'static str,
    /// The rule, in snake case; `None` where a refusal is nobody's fault.
    pub(super) breach: Option<&'static str>,
}

impl Refusal {
    pub(super) const fn new(status: u16, reason: &'static str, breach: &'static str) -> Refusal {
        Refusal { status, reason, breach: Some(breach) }
    }
}

/// What a provider makes of a request.
#[derive(Debug)]
pub enum Judged<'a> {
    Push(Push<'a>),
    /// Something else than a push, answered.
    Done(Response<Answer>),
}

/// The body of a request.
#[derive(Debug)]
pub enum Payload {
    Whole(Bytes),
    /// Over the provider's maximum; the rest was not read.
    TooLarge,
}

/// What an answer says besides status and reason.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    pub(super) retry_after: Option<HeaderValue>,
    /// Milliseconds since 1970 at which a token ended.
    pub(super) gone_since_ms: Option<u64>,
}

/// What is known of a connection.
#[derive(Debug, Default)]
pub struct Connection {
    pub(super) requests: AtomicU64,
    /// Whose provider token came first, and by which key; `TEAM.KEY`.
    pub(super) identity: OnceLock<String>,
    /// The client has acknowledged our settings, and so is bound by them.
    pub(super) settings_known: AtomicBool,
    pub(super) is_to_end: AtomicBool,
    pub(super) is_to_go_away: AtomicBool,
    pub(super) wake: Notify,
}

/// A push provider.
pub trait Provider: Send + Sync + 'static {
    /// By ALPN, best first.
    const PROTOCOLS: &'static [&'static [u8]];
    /// Longer bodies are not read to the end.
    const BODY_MAX: usize;

    /// Judges a request. `now_ms` is the simulator's clock.
    ///
    /// # Errors
    /// If it breaks a rule.
    fn judge<'a>(
        &self,
        now_ms: u64,
        connection: &Connection,
        head: &'a Parts,
        body: &'a Payload,
    ) -> Result<Judged<'a>, Refusal>;

    fn accept(&self, head: &Parts) -> Response<Answer>;

    fn refuse(&self, head: &Parts, status: u16, reason: &str, extra: &Extra) -> Response<Answer>;

    /// A call of the control port that only this provider has; `None` if it has no such call.
    ///
    /// # Errors
    /// In words, if the input is wrong.
    fn control(&self, call: &str, input: &Value) -> Option<Result<Value, String>>;

    /// What a captured body tells besides its bytes.
    fn captured(&self, _token: &str) -> Value {
        Value::Null
    }
}

/// The body of an answer.
#[derive(Debug)]
pub enum Answer {
    Whole(Option<Bytes>),
    /// Goes on for as long as the client reads.
    Endless,
}

impl Answer {
    pub(super) fn empty() -> Answer {
        Answer::Whole(None)
    }

    pub(super) fn text(text: impl Into<Bytes>) -> Answer {
        Answer::Whole(Some(text.into()))
    }
}

static ENDLESS: [u8; 16 * 1024] = [b' '; 16 * 1024];

impl Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(match self.get_mut() {
            Answer::Whole(rest) => rest.take().map(|bytes| Ok(Frame::data(bytes))),
            Answer::Endless => Some(Ok(Frame::data(Bytes::from_static(&ENDLESS)))),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(rest) => {
                SizeHint::with_exact(rest.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Answer::Endless => SizeHint::default(),
        }
    }
}

/// A response without a body.
pub(super) fn bare(status: u16) -> Response<Answer> {
    let mut response = Response::new(Answer::empty());
    *response.status_mut() = status_code(status);
    response
}

/// A response with a JSON body.
pub(super) fn json(status: u16, value: &Value) -> Response<Answer> {
    let mut response = Response::new(Answer::text(value.to_string()));
    *response.status_mut() = status_code(status);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

/// 128 random bits in hex.
pub(super) fn random() -> Result<String, String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system gave no randomness")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn status_code(status: u16) -> http::StatusCode {
    http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR)
}
