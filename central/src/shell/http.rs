//! The accept loop of the admin API and of health, on hyper, with every limit set.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::api;
use super::shared::{Phase, Shared, reached};
use crate::config::AdminConfig;

/// Bytes of a request's line and headers.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until draining begins, then until the last connection is done.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    shared: Arc<Shared>,
    config: AdminConfig,
    mut phase: watch::Receiver<Phase>,
) {
    let slots = Arc::new(Semaphore::new(config.connections_max.get()));
    let mut connections = JoinSet::new();
    loop {
        let slot = tokio::select! {
            () = reached(&mut phase, Phase::Draining) => break,
            // At the limit nobody is accepted: callers wait in the kernel's queue.
            slot = slots.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = reached(&mut phase, Phase::Draining) => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((socket, _)) => {
                let connection = connection(
                    socket,
                    router.clone(),
                    shared.clone(),
                    config.read_timeout,
                    phase.clone(),
                );
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept on the admin listener");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    socket: TcpStream,
    router: Router,
    shared: Arc<Shared>,
    read_timeout: Duration,
    mut phase: watch::Receiver<Phase>,
) {
    // Without it small answers wait for the peer's delayed acknowledgement; failing to set it costs only time.
    let _ = socket.set_nodelay(true);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (router, shared) = (router.clone(), shared.clone());
        async move {
            Ok::<_, std::convert::Infallible>(
                api::serve(router, shared, request.map(Body::new)).await,
            )
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(read_timeout)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = reached(&mut phase, Phase::Draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended");
    }
}
