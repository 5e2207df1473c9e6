//! The demo as an admin: calls of the public API over HTTP, one connection each.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use carillon_client::{HttpTransport, MessageId};
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::error::DemoError;
use crate::config::Secret;

/// A call may wait for a commit of a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Admin {
    address: SocketAddr,
    token: Secret,
    http: HttpTransport,
    /// Of the newest write that was answered.
    seq: u64,
}

impl Clone for Admin {
    /// Another connection.
    fn clone(&self) -> Self {
        Self { seq: self.seq, ..Self::new(self.address, self.token.clone()) }
    }
}

impl Admin {
    pub(super) fn new(address: SocketAddr, token: Secret) -> Self {
        let url = format!("http://{address}").parse().expect("an address makes a URL");
        Self { address, token, http: HttpTransport::new(url, None), seq: 0 }
    }

    /// The newest change that an edge must have applied to know all writes of this connection.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) async fn post(&mut self, path: &str, body: &Value) -> Result<Value, DemoError> {
        self.call("POST", path, Some(body), None).await
    }

    pub(super) async fn put(&mut self, path: &str, body: &Value) -> Result<Value, DemoError> {
        self.call("PUT", path, Some(body), None).await
    }

    pub(super) async fn patch(&mut self, path: &str, body: &Value) -> Result<Value, DemoError> {
        self.call("PATCH", path, Some(body), None).await
    }

    pub(super) async fn get(&mut self, path: &str) -> Result<Value, DemoError> {
        self.call("GET", path, None, None).await
    }

    /// Creates a message and gives its id. Repeated with the same key it creates nothing.
    pub(super) async fn create(
        &mut self,
        path: &str,
        key: &str,
        body: &Value,
    ) -> Result<MessageId, DemoError> {
        let answer = self.call("POST", path, Some(body), Some(key)).await?;
        let id = answer["id"].as_str().and_then(|id| id.parse().ok());
        id.ok_or_else(|| DemoError::Answer { path: path.to_owned(), field: "id" })
    }

    async fn call(
        &mut self,
        method: &'static str,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<Value, DemoError> {
        let mut request = self.request(method, path);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(Bytes::from(body)).expect("parts made here make a request");
        let transport = |source| DemoError::Transport { method, path: path.to_owned(), source };
        let answer = self.http.request(request, PATIENCE).await.map_err(transport)?;
        let position = answer.headers().get("carillon-position").and_then(|at| at.to_str().ok());
        let seq = position.and_then(|at| at.rsplit('/').next()?.parse().ok());
        self.seq = self.seq.max(seq.unwrap_or(0));
        accepted(method, path, answer.status(), answer.body())
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let token = format!("Bearer {}", self.token.reveal());
        Request::builder().method(method).uri(path).header("authorization", token)
    }

    /// Streams NDJSON into an import and gives its report. A connection of its own: it is held for as long as that
    /// takes.
    pub(super) async fn import(
        &self,
        path: &str,
        pieces: mpsc::Receiver<Bytes>,
    ) -> Result<Value, DemoError> {
        let stream =
            TcpStream::connect(self.address).await.map_err(DemoError::io("reach central"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(DemoError::Import)?;
        let request = self
            .request("POST", path)
            .header("host", self.address.to_string())
            .header("content-type", "application/x-ndjson")
            .body(Upload(pieces))
            .expect("parts made here make a request");
        let exchange = async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            // The sender goes only here: without it the connection would not outlive the head.
            let body = body.collect().await?.to_bytes();
            drop(sender);
            Ok::<_, hyper::Error>((head.status, body))
        };
        // The connection ends by itself after that, since nobody can ask it for more.
        let (answer, _) = tokio::join!(exchange, connection);
        let (status, body) = answer.map_err(DemoError::Import)?;
        accepted("POST", path, status, &body)
    }
}

fn accepted(
    method: &'static str,
    path: &str,
    status: http::StatusCode,
    body: &[u8],
) -> Result<Value, DemoError> {
    if status.is_success() {
        return Ok(serde_json::from_slice(body).unwrap_or(Value::Null));
    }
    let answer = String::from_utf8_lossy(body).into_owned();
    Err(DemoError::Refused { method, path: path.to_owned(), status, answer })
}

/// A body of pieces as they come.
struct Upload(mpsc::Receiver<Bytes>);

impl Body for Upload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
