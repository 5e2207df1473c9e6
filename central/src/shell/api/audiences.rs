//! Audiences: named expressions that others refer to as `@name`.

use std::sync::Arc;

use axum::extract::State;
use carillon_expr::AudienceId;
use carillon_world::{App, Audience, MessageId, Position};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, done, json, tagged, unexpected, written};
use super::extract::{Caller, Page, Params, RawBody, RawQuery, if_match, page};
use super::{Api, Asked, app_of};
use crate::core::auth::Action;
use crate::core::limits::REFERENCES_MAX;
use crate::core::problem;
use crate::core::write::{PutAudience, Reply, Write};
use crate::shell::random;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AudienceText {
    /// What the audience stands for, as a message's `to`.
    expression: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AudienceName {
    #[schema(value_type = String)]
    name: Arc<str>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NamedAudience {
    #[schema(value_type = String)]
    id: AudienceId,
    #[schema(value_type = String)]
    name: Arc<str>,
    /// Counts edits and renames, from 1.
    revision: u32,
    /// Canonical.
    expression: String,
}

/// An audience with who it describes and who uses it now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsedAudience {
    #[schema(value_type = String)]
    id: AudienceId,
    #[schema(value_type = String)]
    name: Arc<str>,
    /// Counts edits and renames, from 1.
    revision: u32,
    /// Canonical.
    expression: String,
    /// Devices that it describes. A `sample` without a salt, which is another for each message, counts for none in
    /// particular.
    devices: u64,
    /// Devices of the app.
    of: u64,
    /// Scheduled and active messages that use it, also through other audiences: the first 100.
    #[schema(value_type = Vec<String>)]
    messages: Vec<MessageId>,
    /// How many there are.
    message_count: usize,
    /// Audiences that use it, also through others, by name.
    #[schema(value_type = Vec<String>)]
    audiences: Vec<Arc<str>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AudienceList {
    audiences: Vec<NamedAudience>,
    /// `after` of the next page.
    next: Option<String>,
}

fn body(app: &App, audience: &Audience) -> NamedAudience {
    let row = audience.row();
    let expression = audience.expression().to_text(app);
    NamedAudience { id: row.id, name: row.name.clone(), revision: row.revision, expression }
}

fn answer((reply, at): (Reply, Position)) -> Answered {
    let Reply::Audience { row, expression, created } = reply else { return Err(unexpected()) };
    let (id, name, revision) = (row.id, row.name.clone(), row.revision);
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let body = NamedAudience { id, name, revision, expression };
    Ok(tagged(written(status, at, &body), revision))
}

/// Lists the app's audiences, a page at a time.
#[utoipa::path(get, path = "/v1/apps/{app}/audiences", tag = "audiences", params(("app" = String, Path), Page),
    responses(
    (status = 200, body = AudienceList),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    query: RawQuery,
) -> Answered {
    let app = caller.may_in(Action::ReadSchema, &app)?;
    let query: Page = query.read()?;
    let (limit, after) = (query.limit()?, query.after::<AudienceId>()?);
    let world = api.world();
    let app = app_of(&world, app)?;
    let (found, more) = page(app.audiences_after(after), limit);
    let next = found.last().filter(|_| more).map(|audience| audience.row().id.to_string());
    let audiences = found.into_iter().map(|audience| body(app, audience)).collect();
    Ok(json(StatusCode::OK, &AudienceList { audiences, next }))
}

/// Gives one audience, with how many devices it describes and what uses it. `ETag` is its revision.
#[utoipa::path(get, path = "/v1/apps/{app}/audiences/{name}", tag = "audiences",
    params(("app" = String, Path), ("name" = String, Path)), responses(
    (status = 200, body = UsedAudience),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Params((app, name)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::ReadSchema, &app)?;
    let look = api.ponder(move |asked| {
        let app = app_of(asked.world, app)?;
        let found = app.audience_by_name(&name);
        let audience = found.ok_or_else(|| problem::not_found("audience"))?;
        Ok(look(asked, app, audience))
    });
    let used = look.await?;
    Ok(tagged(json(StatusCode::OK, &used), used.revision))
}

/// Evaluates it for every device of the app: about 0.1 s a million.
fn look(asked: &Asked<'_>, app: &App, audience: &Audience) -> UsedAudience {
    let NamedAudience { id, name, revision, expression } = body(app, audience);
    let context = asked.context(random::id());
    let fits = |row: &&Arc<_>| audience.expression().matches_in(&***row, &context);
    let messages = app.audience_messages(id);
    let users = app.audience_audiences(id);
    let mut audiences: Vec<Arc<str>> =
        users.iter().filter_map(|id| app.audience(*id)).map(|of| of.row().name.clone()).collect();
    audiences.sort_unstable();
    UsedAudience {
        id,
        name,
        revision,
        expression,
        devices: app.devices().filter(fits).count() as u64,
        of: app.device_count() as u64,
        messages: messages.iter().take(REFERENCES_MAX).copied().collect(),
        message_count: messages.len(),
        audiences,
    }
}

/// Creates an audience, or edits it: from then on every message that uses it, also through other audiences, is for whom
/// it describes now. The same again changes nothing. `If-Match` with the revision that was read refuses an edit on top
/// of another's (412).
#[utoipa::path(put, path = "/v1/apps/{app}/audiences/{name}", tag = "audiences",
    params(("app" = String, Path), ("name" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = AudienceText, responses(
    (status = 200, body = NamedAudience),
    (status = 201, body = NamedAudience),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn put(
    State(api): State<Api>,
    caller: Caller,
    Params((app, name)): Params<(String, String)>,
    headers: HeaderMap,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteSchema, &app)?;
    let if_match = if_match(&headers)?;
    let AudienceText { expression } = input.json().await?;
    let (id, name) = (AudienceId::new(random::id()), name.into());
    let put = PutAudience { app, id, name, expression, if_match };
    answer(api.write(Write::PutAudience(Box::new(put))).await?)
}

/// Renames an audience; expressions follow, since they refer to ids.
#[utoipa::path(patch, path = "/v1/apps/{app}/audiences/{name}", tag = "audiences",
    params(("app" = String, Path), ("name" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = AudienceName, responses(
    (status = 200, body = NamedAudience),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn rename(
    State(api): State<Api>,
    caller: Caller,
    Params((app, audience)): Params<(String, String)>,
    headers: HeaderMap,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteSchema, &app)?;
    let if_match = if_match(&headers)?;
    let AudienceName { name } = input.json().await?;
    let audience = audience.into();
    answer(api.write(Write::RenameAudience { app, audience, name, if_match }).await?)
}

/// Deletes an audience that no message and no other audience refers to, nor did since the horizon.
#[utoipa::path(delete, path = "/v1/apps/{app}/audiences/{name}", tag = "audiences",
    params(("app" = String, Path), ("name" = String, Path), ("If-Match" = Option<String>, Header)), responses(
    (status = 204),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Params((app, audience)): Params<(String, String)>,
    headers: HeaderMap,
) -> Answered {
    let app = caller.may_in(Action::WriteSchema, &app)?;
    let if_match = if_match(&headers)?;
    let audience = audience.into();
    let (_, at) = api.write(Write::DeleteAudience { app, audience, if_match }).await?;
    Ok(done(at))
}
