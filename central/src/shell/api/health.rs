//! Health, metrics and the API's own description: unauthenticated, and none of them touches the store.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::answer::json;

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    Safe,
    Unsafe,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthBody {
    /// Whether writes are taken.
    ready: bool,
    /// Whether the store took the last batch.
    store_up: bool,
    /// `unsafe`: the store's settings put what is acknowledged at risk, which the configuration allows.
    durability: Durability,
    /// The store's clock jumped: starts and ends are held until it agrees again.
    clock_jumped: bool,
    /// The newest committed seq.
    head: u64,
    /// Edges that are connected.
    links: u64,
    /// RAM that the world takes.
    world_bytes: u64,
    /// RAM that it may take; what would grow it further is refused with 507.
    world_bytes_max: u64,
    /// It takes more than 80 %.
    world_nearly_full: bool,
    /// Half of the events that may wait for the history wait; when it is full, writes are refused with 503.
    outbox_half_full: bool,
}

fn health(api: &Api) -> HealthBody {
    let health = &api.shared.health;
    HealthBody {
        ready: health.is_ready(),
        store_up: health.is_store_up(),
        durability: if health.is_durable() { Durability::Safe } else { Durability::Unsafe },
        clock_jumped: api.shared.clock.has_jumped(),
        head: api.world().seq().get(),
        links: u64::try_from(api.shared.metrics.links.get()).unwrap_or(0),
        world_bytes: api.world().usage().total(),
        world_bytes_max: api.shared.budgets.world_bytes_max,
        world_nearly_full: health.is_nearly_full(),
        outbox_half_full: health.is_outbox_half_full(),
    }
}

/// Says that the process answers.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = 200, body = HealthBody)))]
pub(crate) async fn healthz(State(api): State<Api>) -> Response {
    json(StatusCode::OK, &health(&api))
}

/// Says whether central takes writes: 503 while the store is down, or central is starting or stopping.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, body = HealthBody), (status = 503, body = HealthBody),
))]
pub(crate) async fn readyz(State(api): State<Api>) -> Response {
    let body = health(&api);
    json(
        if body.ready && body.store_up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
        &body,
    )
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()), responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
))]
pub(crate) async fn metrics(State(api): State<Api>) -> Response {
    let kind =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], api.shared.scrape()).into_response()
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "health", security(()), responses(
    (status = 200, body = Object, content_type = "application/json"),
))]
pub(crate) async fn openapi() -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], super::openapi()).into_response()
}
