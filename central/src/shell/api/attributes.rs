//! The attributes that an app declares.

use std::sync::Arc;

use axum::extract::State;
use carillon_expr::{AttributeId, Type};
use carillon_world::{AttributeRow, SetBy};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, done, json, unexpected, written};
use super::extract::{Caller, Params, RawBody};
use super::{Api, app_of};
use crate::core::auth::Action;
use crate::core::write::{Reply, Write};
use crate::shell::random;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Declaration {
    #[schema(value_type = TypeName)]
    r#type: Type,
    /// Who may set it; the server alone if it is not said.
    #[serde(default = "server")]
    #[schema(value_type = SetByName)]
    set_by: SetBy,
}

pub(super) fn server() -> SetBy {
    SetBy::Server
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "it stands for another crate's type in the document")]
pub(crate) enum TypeName {
    String,
    Number,
    Bool,
    Version,
    Date,
    Time,
    Point,
    Set,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "it stands for another crate's type in the document")]
pub(crate) enum SetByName {
    Server,
    Device,
    Both,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttributeBody {
    #[schema(value_type = String)]
    id: AttributeId,
    #[schema(value_type = String)]
    name: Arc<str>,
    #[schema(value_type = TypeName)]
    r#type: Type,
    #[schema(value_type = SetByName)]
    set_by: SetBy,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AttributeList {
    attributes: Vec<AttributeBody>,
}

impl From<&AttributeRow> for AttributeBody {
    fn from(row: &AttributeRow) -> AttributeBody {
        AttributeBody { id: row.id, name: row.name.clone(), r#type: row.kind, set_by: row.set_by }
    }
}

/// Declares an attribute; a repeat changes nothing. Retyping one that is in use is a 409.
#[utoipa::path(put, path = "/v1/apps/{app}/attributes/{name}", tag = "attributes",
    params(("app" = String, Path), ("name" = String, Path)), request_body = Declaration, responses(
    (status = 200, body = AttributeBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn declare(
    State(api): State<Api>,
    caller: Caller,
    Params((app, name)): Params<(String, String)>,
    body: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteSchema, &app)?;
    let Declaration { r#type: kind, set_by } = body.json().await?;
    let id = AttributeId::new(random::id());
    match api.write(Write::DeclareAttribute { app, id, name: name.into(), kind, set_by }).await? {
        (Reply::Attribute(row), at) => Ok(written(StatusCode::OK, at, &AttributeBody::from(&*row))),
        _ => Err(unexpected()),
    }
}

/// Lists the app's attributes, by name.
#[utoipa::path(get, path = "/v1/apps/{app}/attributes", tag = "attributes", params(("app" = String, Path)), responses(
    (status = 200, body = AttributeList),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
) -> Answered {
    let app = caller.may_in(Action::ReadSchema, &app)?;
    let world = api.world();
    let rows = app_of(&world, app)?.attributes();
    let mut attributes: Vec<AttributeBody> = rows.map(|row| AttributeBody::from(&**row)).collect();
    attributes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(json(StatusCode::OK, &AttributeList { attributes }))
}

/// Deletes a declaration that no message refers to and no device has a value of.
#[utoipa::path(delete, path = "/v1/apps/{app}/attributes/{name}", tag = "attributes",
    params(("app" = String, Path), ("name" = String, Path)), responses(
    (status = 204),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Params((app, name)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::WriteSchema, &app)?;
    let (_, at) = api.write(Write::DeleteAttribute { app, name: name.into() }).await?;
    Ok(done(at))
}
