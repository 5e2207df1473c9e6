//! The control port: plain HTTP/1.1 with JSON on the loopback interface. What each call does stands at the method of
//! [`super::Simulator`] that makes it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::provider::{Answer, Provider, json as answer};
use super::serve::Server;

/// Answers calls for ever.
pub(super) async fn listen<P: Provider>(server: Arc<Server<P>>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let service = service_fn(|request| respond(&server, request));
            // An error is the caller's end of the connection.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond<P: Provider>(
    server: &Server<P>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, hyper::Error> {
    let is_get = request.method() == Method::GET;
    let call = request.uri().path().trim_start_matches('/').to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    Ok(match respond_to(server, is_get, &call, body).await {
        Ok(value) => answer(200, &value),
        Err(words) => answer(400, &json!({ "error": words })),
    })
}

fn input<T: DeserializeOwned>(body: &Bytes) -> Result<T, String> {
    let body: &[u8] = if body.is_empty() { b"null" } else { body };
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// A number under a key; 0 for null.
fn number<N: TryFrom<i64>>(body: &Bytes, key: &str) -> Result<N, String> {
    let value: Value = input(body)?;
    let n = match &value[key] {
        Value::Null => Some(0),
        value => value.as_i64(),
    };
    n.and_then(|n| N::try_from(n).ok()).ok_or_else(|| format!("{key} is not such a number"))
}

async fn respond_to<P: Provider>(
    server: &Server<P>,
    is_get: bool,
    call: &str,
    body: Bytes,
) -> Result<Value, String> {
    if let Some(result) = server.provider.control(call, &input(&body)?) {
        return result;
    }
    let written = |value: Result<Value, serde_json::Error>| value.map_err(|e| e.to_string());
    match (is_get, call) {
        (true, "counts") => return written(serde_json::to_value(server.books.counts())),
        (true, "bodies") => {
            let captured = server.books.captured(|token| server.provider.captured(token));
            return written(serde_json::to_value(captured));
        }
        (false, "tokens") => {
            let tokens: Vec<String> = input(&body)?;
            return written(serde_json::to_value(server.books.tokens(&tokens)));
        }
        (false, "mark") => return Ok(json!({ "mark": server.books.mark() })),
        (false, "reset") => server.books.reset(),
        (false, "behaviour") => server.rules.set(input(&body)?)?,
        (false, "goaway") => {
            server.go_away_after.store(number(&body, "after")?, Ordering::Relaxed);
        }
        (false, "streams") => server.streams_max.store(number(&body, "max")?, Ordering::Relaxed),
        (false, "clock") => server.ahead_ms.store(number(&body, "ahead_ms")?, Ordering::Relaxed),
        (false, "down") => server.gate.close().await,
        (false, "up") => server.gate.open().await,
        (false, "cut") => server.gate.cut().await,
        _ => return Err(format!("no such call: {call}")),
    }
    Ok(json!({}))
}
