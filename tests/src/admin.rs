//! The admin API as a test calls it.

use std::time::Duration;

use bytes::Bytes;
use carillon_client::HttpTransport;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// One connection with the admin's token. Paths begin at the root: `/v1/apps`.
#[derive(Debug)]
pub struct Admin {
    http: HttpTransport,
    pub token: String,
}

/// What a call brought.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header's text, empty where absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// # Panics
    /// Unless this is a problem with this status and code, as RFC 9457 writes one.
    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> Value {
        let json = self.json();
        assert_eq!((self.status, json["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(json["status"], status, "{self:?}");
        for key in ["type", "title", "detail"] {
            assert!(json[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {json}");
        }
        json
    }
}

impl Admin {
    /// # Panics
    /// If `url` is no URL of a server.
    pub fn new(url: &str, token: &str) -> Admin {
        let http = HttpTransport::new(url.parse().expect("an URL"), None);
        Admin { http, token: token.trim().to_owned() }
    }

    /// Sends a request as it is.
    ///
    /// # Panics
    /// If no answer comes.
    pub async fn send(&mut self, request: Request<Bytes>) -> Answer {
        self.try_send(request).await.expect("an answer")
    }

    /// As [`Admin::send`], for a server that may be away.
    ///
    /// # Errors
    /// If no answer comes; in words.
    pub async fn try_send(&mut self, request: Request<Bytes>) -> Result<Answer, String> {
        let answer = self.http.request(request, PATIENCE).await.map_err(|e| format!("{e:?}"))?;
        let (head, body) = answer.into_parts();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// A request with the token and this body.
    pub fn request(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
        Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(body.into())
            .expect("a request")
    }

    /// An import into an app, given by its path: one JSON object a line.
    pub fn import(&self, app: &str, lines: &[String]) -> Request<Bytes> {
        let mut request = self.request("POST", &format!("{app}/devices:import"), lines.join("\n"));
        let kind = HeaderValue::from_static("application/x-ndjson");
        request.headers_mut().insert(CONTENT_TYPE, kind);
        request
    }

    /// Calls with a JSON body, none for null.
    ///
    /// # Panics
    /// If no answer comes.
    pub async fn call(&mut self, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = self.request(method, path, body);
        self.send(request).await
    }

    /// Calls and returns the answer's JSON.
    ///
    /// # Panics
    /// Unless the status is 2xx.
    pub async fn ok(&mut self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.call(method, path, body).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        answer.json()
    }
}

/// The string at `key`.
///
/// # Panics
/// If there is none.
#[track_caller]
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key} in {value}"))
}
