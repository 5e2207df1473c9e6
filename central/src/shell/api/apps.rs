//! Apps.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use carillon_world::{App, AppId, AppRow, Environment};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, json, unexpected, written};
use super::extract::{Caller, Params, RawBody, nullable};
use super::{Api, app_of};
use crate::core::auth::Action;
use crate::core::budget::QuotaLimits;
use crate::core::render;
use crate::core::write::{QuotaEdit, Reply, Write};
use crate::shell::random;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewApp {
    /// 1 to 128 bytes, unique.
    #[schema(value_type = String)]
    name: Arc<str>,
    #[schema(value_type = EnvironmentName)]
    environment: Environment,
}

/// Which of a push provider's worlds the app talks to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "it stands for another crate's type in the document")]
pub(crate) enum EnvironmentName {
    Sandbox,
    Production,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppBody {
    #[schema(value_type = String)]
    id: AppId,
    #[schema(value_type = String)]
    name: Arc<str>,
    #[schema(value_type = EnvironmentName)]
    environment: Environment,
    /// Ships inside the app's binary; devices enrol with it.
    #[schema(value_type = String)]
    publishable_key: Arc<str>,
    created_at: String,
}

/// An app with what it may hold and what it holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppDetailBody {
    #[serde(flatten)]
    app: AppBody,
    /// The app's own quotas; `null` is central's default.
    quotas: OwnQuotas,
    /// What holds.
    limits: LimitsBody,
    usage: UsageBody,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnQuotas {
    devices_max: Option<u64>,
    groups_max: Option<u64>,
    live_messages_max: Option<u64>,
    bodies_bytes_max: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitsBody {
    devices_max: u64,
    groups_max: u64,
    live_messages_max: u64,
    bodies_bytes_max: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageBody {
    devices: u64,
    groups: u64,
    /// Messages that are scheduled or active.
    live_messages: u64,
    /// Also of messages that have ended and are not purged yet.
    bodies_bytes: u64,
    /// RAM that the app takes of the world.
    bytes: u64,
    /// The same by what it is for.
    #[schema(value_type = Object)]
    bytes_by_part: BTreeMap<&'static str, u64>,
}

impl AppDetailBody {
    fn of(app: &App, defaults: &QuotaLimits) -> AppDetailBody {
        let (own, usage) = (&app.row().quotas, app.usage());
        let limits = defaults.of(own);
        AppDetailBody {
            app: AppBody::from(&**app.row()),
            quotas: OwnQuotas {
                devices_max: own.devices_max,
                groups_max: own.groups_max,
                live_messages_max: own.live_messages_max,
                bodies_bytes_max: own.bodies_bytes_max,
            },
            limits: LimitsBody {
                devices_max: limits.devices_max,
                groups_max: limits.groups_max,
                live_messages_max: limits.live_messages_max,
                bodies_bytes_max: limits.bodies_bytes_max,
            },
            usage: UsageBody {
                devices: app.device_count() as u64,
                groups: app.group_count() as u64,
                live_messages: app.live_messages(),
                bodies_bytes: usage.bodies,
                bytes: usage.total(),
                bytes_by_part: usage.parts().into_iter().collect(),
            },
        }
    }
}

/// What an app shall have; what is not named stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppPatch {
    quotas: QuotasPatch,
}

/// `null` goes back to central's default. A quota below what the app has only keeps more from coming.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuotasPatch {
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>)]
    devices_max: Option<Option<u64>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>)]
    groups_max: Option<Option<u64>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>)]
    live_messages_max: Option<Option<u64>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<u64>)]
    bodies_bytes_max: Option<Option<u64>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppList {
    apps: Vec<AppBody>,
}

impl From<&AppRow> for AppBody {
    fn from(row: &AppRow) -> AppBody {
        AppBody {
            id: row.id,
            name: row.name.clone(),
            environment: row.environment,
            publishable_key: row.publishable_key.clone(),
            created_at: render::time(row.created_at),
        }
    }
}

/// Creates an app.
#[utoipa::path(post, path = "/v1/apps", tag = "apps", request_body = NewApp, responses(
    (status = 201, body = AppBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn create(State(api): State<Api>, caller: Caller, body: RawBody) -> Answered {
    caller.may(Action::WriteApps)?;
    let NewApp { name, environment } = body.json().await?;
    let publishable_key = format!("pk_{}", random::text(16)).into();
    let write =
        Write::CreateApp { id: AppId::new(random::id()), name, environment, publishable_key };
    match api.write(write).await? {
        (Reply::App(row), at) => Ok(written(StatusCode::CREATED, at, &AppBody::from(&*row))),
        _ => Err(unexpected()),
    }
}

/// Lists all apps, by name.
#[utoipa::path(get, path = "/v1/apps", tag = "apps", responses(
    (status = 200, body = AppList),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn list(State(api): State<Api>, caller: Caller) -> Answered {
    caller.may(Action::ReadApps)?;
    let mut apps: Vec<AppBody> =
        api.world().apps().map(|app| AppBody::from(&**app.row())).collect();
    apps.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(json(StatusCode::OK, &AppList { apps }))
}

/// Changes an app's quotas.
#[utoipa::path(patch, path = "/v1/apps/{app}", tag = "apps", params(("app" = String, Path)), request_body = AppPatch,
    responses(
    (status = 200, body = AppDetailBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn patch(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    body: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteApps, &app)?;
    let AppPatch { quotas } = body.json().await?;
    let edit = QuotaEdit {
        devices_max: quotas.devices_max,
        groups_max: quotas.groups_max,
        live_messages_max: quotas.live_messages_max,
        bodies_bytes_max: quotas.bodies_bytes_max,
    };
    let (_, at) = api.write(Write::SetQuotas { app, edit }).await?;
    let body = AppDetailBody::of(app_of(&api.world(), app)?, &api.shared.budgets.quotas);
    Ok(written(StatusCode::OK, at, &body))
}

/// Gives one app, with what it may hold and what it holds.
#[utoipa::path(get, path = "/v1/apps/{app}", tag = "apps", params(("app" = String, Path)), responses(
    (status = 200, body = AppDetailBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
) -> Answered {
    let app = caller.may_in(Action::ReadApps, &app)?;
    let body = AppDetailBody::of(app_of(&api.world(), app)?, &api.shared.budgets.quotas);
    Ok(json(StatusCode::OK, &body))
}
