//! The admin API under `/v1`: HTTP with a bearer token, JSON, errors as `application/problem+json` (RFC 9457).
//!
//! Handlers are small: they ask `authorize` first, check shapes, hand a [`Write`](crate::core::write::Write) to the
//! writer or read one world, and print. A world is read within a synchronous block, never across an `.await`.

mod answer;
mod apps;
mod attributes;
mod audiences;
mod callbacks;
mod compare;
mod complete;
mod devices;
mod explain;
mod extract;
mod funnel;
mod groups;
mod health;
mod import_export;
mod messages;
mod preview;
mod push;
mod users;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use carillon_expr::{Context, Limits};
use carillon_world::{App, AppId, Millis, Position, World};
use futures_util::FutureExt as _;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::answer::Refusal;
use super::callbacks::{CallbackSender, LogReader};
use super::shared::Shared;
use super::write_handle::WriteHandle;
use crate::config::AdminConfig;
use crate::core::budget::Budgets;
use crate::core::channel::credential::CredentialKeys;
use crate::core::write::{Reply, Write};
use crate::core::{expression, problem};

/// Previews and the like at a time: each keeps a core busy.
const PREVIEWS_MAX: usize = 2;
/// Exports at a time: each keeps a thread and a world, for as long as its reader likes.
const EXPORTS_MAX: usize = 4;

/// What every handler has.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writes: WriteHandle,
    pub(crate) config: Arc<AdminConfig>,
    pub(crate) previews: Arc<Semaphore>,
    pub(crate) exports: Arc<Semaphore>,
    pub(crate) credential_keys: Option<Arc<CredentialKeys>>,
    pub(crate) callbacks: CallbackDoor,
}

/// How the API reaches whom central calls.
#[derive(Clone, Debug)]
pub(crate) struct CallbackDoor {
    pub(crate) sender: Arc<CallbackSender>,
    /// `None` where no history is told.
    pub(crate) reader: Option<LogReader>,
}

impl Api {
    pub(crate) fn new(
        shared: Arc<Shared>,
        writes: WriteHandle,
        config: AdminConfig,
        credential_keys: Option<Arc<CredentialKeys>>,
        callbacks: CallbackDoor,
    ) -> Api {
        Api {
            shared,
            writes,
            config: Arc::new(config),
            previews: Arc::new(Semaphore::new(PREVIEWS_MAX)),
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            credential_keys,
            callbacks,
        }
    }

    async fn write(&self, write: Write) -> Result<(Reply, Position), Refusal> {
        let answer = self.writes.write(write).await;
        Ok((answer.result?, answer.at))
    }

    fn world(&self) -> Arc<World> {
        self.shared.world()
    }

    /// Does what keeps a core busy, over one world, on a thread for it; waits while as many are under way as may be.
    async fn ponder<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Asked<'_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = self.previews.clone().acquire_owned().await;
        let permit = permit.map_err(|_| problem::overloaded())?;
        let (world, budgets) = (self.world(), self.shared.budgets);
        let now = self.shared.clock.now();
        // The thread holds the permit: a caller who goes away does not end the work.
        let done = tokio::task::spawn_blocking(move || {
            let at = expression::clock(&world, now);
            let done = work(&Asked { world: &world, budgets: &budgets, at });
            drop(permit);
            done
        });
        done.await.map_err(|_| problem::internal())?
    }
}

/// What an expression is read and judged by.
#[derive(Debug)]
struct Asked<'a> {
    world: &'a World,
    budgets: &'a Budgets,
    /// The clock.
    at: Millis,
}

impl Asked<'_> {
    fn limits(&self) -> &Limits {
        &self.budgets.expressions
    }

    fn context(&self, message: u64) -> Context {
        Context { now: self.at.to_time(), message: Some(message) }
    }
}

fn app_of(world: &World, id: AppId) -> Result<&App, Refusal> {
    Ok(world.app(id).ok_or_else(|| problem::not_found("app"))?)
}

#[derive(Debug, utoipa::OpenApi)]
#[openapi(
    info(title = "Carillon admin API", description = "Apps, devices, groups, audiences and messages of one installation."),
    components(schemas(answer::ProblemBody)),
    modifiers(&Bearer),
    security(("token" = []))
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme =
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        openapi.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

/// The routes and their OpenAPI document.
fn routes() -> (Router<Api>, utoipa::openapi::OpenApi) {
    let (router, mut document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(apps::create, apps::list))
        .routes(routes!(apps::get, apps::patch))
        .routes(routes!(attributes::list))
        .routes(routes!(attributes::declare, attributes::delete))
        .routes(routes!(groups::create, groups::list))
        .routes(routes!(groups::get, groups::rename, groups::delete))
        .routes(routes!(groups::add_members))
        .routes(routes!(groups::remove_members))
        .routes(routes!(audiences::list))
        .routes(routes!(audiences::get, audiences::put, audiences::rename, audiences::delete))
        .routes(routes!(devices::list))
        .routes(routes!(devices::get, devices::patch, devices::delete))
        .routes(routes!(devices::revoke))
        .routes(routes!(import_export::import))
        .routes(routes!(import_export::export))
        .routes(routes!(messages::create, messages::list))
        .routes(routes!(messages::get, messages::edit, messages::act))
        .routes(routes!(push::get, push::patch))
        .routes(routes!(push::put, push::delete))
        .routes(routes!(callbacks::create, callbacks::list))
        .routes(routes!(callbacks::get, callbacks::patch, callbacks::delete))
        .routes(routes!(callbacks::rotate_secret))
        .routes(routes!(callbacks::replay))
        .routes(routes!(callbacks::test))
        .routes(routes!(funnel::funnel))
        .routes(routes!(funnel::series))
        .routes(routes!(preview::preview))
        .routes(routes!(explain::explain))
        .routes(routes!(compare::compare))
        .routes(routes!(complete::complete))
        .routes(routes!(users::act))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::openapi))
        .split_for_parts();
    messages::document_actions(&mut document);
    users::document_actions(&mut document);
    name_operations(&mut document);
    let router =
        router.fallback(answer::no_such_route).method_not_allowed_fallback(answer::no_such_method);
    (router, document)
}

/// Handlers are named within their module, operations within the whole document: `groups_create`.
fn name_operations(document: &mut utoipa::openapi::OpenApi) {
    for item in document.paths.paths.values_mut() {
        let calls =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in calls.into_iter().flatten() {
            let tag = operation.tags.iter().flatten().next();
            if let (Some(tag), Some(id)) = (tag, &operation.operation_id) {
                operation.operation_id = Some(format!("{tag}_{id}"));
            }
        }
    }
}

/// The OpenAPI document of the admin API, as JSON. Anyone may ask for it, so it is made once.
pub(crate) fn openapi() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| routes().1.to_json().expect("the document is plain data"));
    &TEXT
}

pub(crate) fn router(api: Api) -> Router {
    routes().0.with_state(api)
}

/// Health and metrics alone, for a listener of their own.
pub(crate) fn ops_router(api: Api) -> Router {
    OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .split_for_parts()
        .0
        .fallback(answer::no_such_route)
        .method_not_allowed_fallback(answer::no_such_method)
        .with_state(api)
}

/// Answers one request. A handler that panics costs its caller a 500 and nobody else anything.
pub(crate) async fn serve(
    router: Router,
    shared: Arc<Shared>,
    request: http::Request<Body>,
) -> Response {
    let answered = AssertUnwindSafe(router.oneshot(request)).catch_unwind().await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            tracing::error!("an admin request panicked");
            Refusal::from(problem::internal()).into_response()
        }
    };
    shared.metrics.status(response.status());
    let headers = response.headers_mut();
    headers
        .entry(http::header::CACHE_CONTROL)
        .or_insert(http::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_router_builds_and_every_call_is_documented() {
        let document: serde_json::Value = serde_json::from_str(super::openapi()).unwrap();
        let mut calls = Vec::new();
        let mut ids = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let responses = operation["responses"].as_object().map_or(0, serde_json::Map::len);
                assert!(responses > 0, "{method} {path} says nothing of its answers");
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id), "{method} {path} is not the only {id}");
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let name = format!("{{{}}}", parameter["name"].as_str().unwrap());
                    assert_eq!(
                        parameter["in"] == "path",
                        path.contains(&name),
                        "{method} {path} {name}"
                    );
                }
                calls.push(format!("{} {path}", method.to_uppercase()));
            }
        }
        calls.sort();
        let expected = [
            "DELETE /v1/apps/{app}/attributes/{name}",
            "DELETE /v1/apps/{app}/audiences/{name}",
            "DELETE /v1/apps/{app}/callbacks/{callback}",
            "DELETE /v1/apps/{app}/devices/{device}",
            "DELETE /v1/apps/{app}/groups/{group}",
            "DELETE /v1/apps/{app}/push/{channel}",
            "GET /healthz",
            "GET /metrics",
            "GET /openapi.json",
            "GET /readyz",
            "GET /v1/apps",
            "GET /v1/apps/{app}",
            "GET /v1/apps/{app}/attributes",
            "GET /v1/apps/{app}/audiences",
            "GET /v1/apps/{app}/audiences/{name}",
            "GET /v1/apps/{app}/callbacks",
            "GET /v1/apps/{app}/callbacks/{callback}",
            "GET /v1/apps/{app}/devices",
            "GET /v1/apps/{app}/devices/{device}",
            "GET /v1/apps/{app}/devices:export",
            "GET /v1/apps/{app}/groups",
            "GET /v1/apps/{app}/groups/{group}",
            "GET /v1/apps/{app}/messages",
            "GET /v1/apps/{app}/messages/{message}",
            "GET /v1/apps/{app}/messages/{message}/funnel",
            "GET /v1/apps/{app}/messages/{message}/funnel/series",
            "GET /v1/apps/{app}/push",
            "PATCH /v1/apps/{app}",
            "PATCH /v1/apps/{app}/audiences/{name}",
            "PATCH /v1/apps/{app}/callbacks/{callback}",
            "PATCH /v1/apps/{app}/devices/{device}",
            "PATCH /v1/apps/{app}/groups/{group}",
            "PATCH /v1/apps/{app}/messages/{message}",
            "PATCH /v1/apps/{app}/push",
            "POST /v1/apps",
            "POST /v1/apps/{app}/audience:compare",
            "POST /v1/apps/{app}/audience:explain",
            "POST /v1/apps/{app}/audience:preview",
            "POST /v1/apps/{app}/callbacks",
            "POST /v1/apps/{app}/callbacks/{callback}/replay",
            "POST /v1/apps/{app}/callbacks/{callback}/rotate-secret",
            "POST /v1/apps/{app}/callbacks/{callback}/test",
            "POST /v1/apps/{app}/devices/{device}/revoke",
            "POST /v1/apps/{app}/devices:import",
            "POST /v1/apps/{app}/expression:complete",
            "POST /v1/apps/{app}/groups",
            "POST /v1/apps/{app}/groups/{group}/members:add",
            "POST /v1/apps/{app}/groups/{group}/members:remove",
            "POST /v1/apps/{app}/messages",
            "POST /v1/apps/{app}/messages/{message}:recall",
            "POST /v1/apps/{app}/users/{user}:erase",
            "PUT /v1/apps/{app}/attributes/{name}",
            "PUT /v1/apps/{app}/audiences/{name}",
            "PUT /v1/apps/{app}/push/{channel}",
        ];
        assert_eq!(calls, expected);
    }
}
