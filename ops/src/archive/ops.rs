//! Health and metrics of an archiver.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::metrics::Metrics;
use crate::exporter::Scrape;

/// Operators' connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// How long an operator's connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens, and answers for as long as the process runs.
pub(super) async fn listen(address: SocketAddr, metrics: Arc<Metrics>) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(ops = %listener.local_addr()?, "the archiver listens");
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let shared = Arc::new((metrics, registry));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let shared = shared.clone();
            tokio::spawn(async move {
                let _place = place;
                let service = service_fn(|request: Request<Incoming>| {
                    let answer = answer(&shared.0, &shared.1, &request);
                    std::future::ready(Ok::<_, Infallible>(answer))
                });
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .max_buf_size(16 * 1024);
                // A peer that goes away is nobody's fault.
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(())
}

/// What gives the text of these metrics.
pub(super) fn scrape(metrics: &Metrics) -> Scrape {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    Scrape::new(move || text(&registry))
}

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)
        .expect("a string takes every character");
    text
}

fn answer<B>(
    metrics: &Metrics,
    registry: &Registry,
    request: &Request<B>,
) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => match metrics.is_ready.get() {
            0 => (StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n".to_owned()),
            _ => (StatusCode::OK, TEXT, "ready\n".to_owned()),
        },
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, METRICS, text(registry)),
        _ => (StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
