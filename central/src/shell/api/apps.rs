//! Apps.

use std::sync::Arc;

use axum::extract::State;
use carillon_world::{AppId, AppRow, Environment};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, json, unexpected, written};
use super::extract::{Caller, Params, RawBody};
use super::{Api, app_of};
use crate::core::auth::Action;
use crate::core::render;
use crate::core::write::{Reply, Write};
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

/// Gives one app.
#[utoipa::path(get, path = "/v1/apps/{app}", tag = "apps", params(("app" = String, Path)), responses(
    (status = 200, body = AppBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
) -> Answered {
    let app = caller.may_in(Action::ReadApps, &app)?;
    Ok(json(StatusCode::OK, &AppBody::from(&**app_of(&api.world(), app)?.row())))
}
