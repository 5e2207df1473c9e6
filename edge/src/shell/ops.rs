//! Health and metrics, on a thread of their own so that they answer while every core is busy.

use std::convert::Infallible;
use std::net::TcpListener;
use std::pin::pin;
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
use tokio::sync::Semaphore;

use super::state::{Phase, Shared};
use super::tls::Certificate;

/// Operators' connections at a time.
const CONNECTIONS_MAX: usize = 64;
/// How long an operator's connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the certificate's files are looked at.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(10);
/// Pause after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the edge counts, as a text.
#[derive(Debug)]
pub(super) struct Scrape {
    shared: Arc<Shared>,
    registry: Registry,
}

impl Scrape {
    pub(super) fn new(shared: Arc<Shared>) -> Scrape {
        let mut registry = Registry::default();
        shared.metrics.register(&mut registry);
        Scrape { shared, registry }
    }

    /// In the text format of OpenMetrics.
    pub(super) fn text(&self) -> String {
        self.shared.metrics.link_down_seconds.set(self.shared.down_for().as_secs_f64());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("a string takes every character");
        text
    }
}

/// Serves until the edge has stopped. Without a listener it only watches the certificate.
pub(super) fn run(
    shared: Arc<Shared>,
    certificate: Option<Arc<Certificate>>,
    listener: Option<TcpListener>,
) -> std::io::Result<()> {
    let scrape = Arc::new(Scrape::new(shared.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())?;
    runtime.block_on(async move {
        if let Some(certificate) = certificate {
            tokio::task::spawn_local(watch(certificate));
        }
        let mut phase = shared.phase.subscribe();
        let mut stopped = pin!(phase.wait_for(|phase| *phase >= Phase::Stopped));
        let Some(listener) = listener else {
            let _ = stopped.await;
            return Ok(());
        };
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                _ = stopped.as_mut() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let (shared, scrape) = (shared.clone(), scrape.clone());
            tokio::task::spawn_local(async move {
                let _place = place;
                let service = service_fn(|request: Request<Incoming>| {
                    let answer = answer(&shared, &scrape, &request);
                    std::future::ready(Ok::<_, Infallible>(answer))
                });
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .max_buf_size(16 * 1024);
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

/// Reads the certificate again when one of its files has changed. What cannot be used is said once and tried again
/// at the next change.
async fn watch(certificate: Arc<Certificate>) {
    let Some(files) = certificate.files().cloned() else { return };
    let changed = || {
        let time = |path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
        (time(&files.chain), time(&files.key))
    };
    let mut seen = changed();
    loop {
        tokio::time::sleep(CERTIFICATE_EVERY).await;
        let times = changed();
        if times == seen {
            continue;
        }
        seen = times;
        match certificate.reload() {
            Ok(()) => tracing::info!("certificate read again"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "the changed certificate cannot be used; the one before is still shown"
                );
            }
        }
    }
}

fn answer<B>(shared: &Shared, scrape: &Scrape, request: &Request<B>) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/readyz") => ready(shared),
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, METRICS, scrape.text()),
        _ => (StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Ready: there is a world to serve and keys to seal with, central's world fits, and the edge is not stopping. Central being down does not
/// make an edge unready, for every edge would be; how long it has been down is said.
fn ready(shared: &Shared) -> (StatusCode, &'static str, String) {
    let world = shared.world.load();
    let seq = world.as_ref().map(|world| world.seq().get());
    let needed = shared.needed();
    let ready =
        seq.is_some() && needed.is_none() && shared.keys.load().can_seal() && !shared.is_draining();
    let mut body = serde_json::json!({
        "ready": ready,
        "world": seq.is_some(),
        "world_seq": seq,
        "link_up": shared.is_live(),
        "behind_seconds": shared.down_for().as_secs(),
        "draining": shared.is_draining(),
    });
    if let Some(needed) = needed {
        let available = shared.world_bytes_max;
        body["memory"] = serde_json::json!({
            "needed_bytes": needed,
            "available_bytes": available,
            "missing_bytes": needed.saturating_sub(available),
            "detail": "central's world needs more memory than edge.memory_max leaves for it",
        });
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, JSON, format!("{body}\n"))
}
