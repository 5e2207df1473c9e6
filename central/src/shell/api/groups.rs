//! Groups and their members.

use std::sync::Arc;

use axum::extract::State;
use carillon_expr::GroupId;
use carillon_world::{AppId, DeviceId, GroupRow, Position, SetBy};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, Refusal, done, json, position, unexpected, written};
use super::attributes::{SetByName, server};
use super::extract::{Caller, Page, Params, RawBody, RawQuery, page};
use super::{Api, app_of};
use crate::core::auth::Action;
use crate::core::input::GroupRef;
use crate::core::limits::{MEMBERS_CHUNK, MEMBERS_MAX, REPORT_MAX};
use crate::core::problem;
use crate::core::write::{MembersReport, Reply, Write};
use crate::shell::random;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewGroup {
    #[schema(value_type = String)]
    name: Arc<str>,
    #[serde(default = "server")]
    #[schema(value_type = SetByName)]
    set_by: SetBy,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupName {
    #[schema(value_type = String)]
    name: Arc<str>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GroupBody {
    #[schema(value_type = String)]
    id: GroupId,
    #[schema(value_type = String)]
    name: Arc<str>,
    #[schema(value_type = SetByName)]
    set_by: SetBy,
    members: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GroupList {
    groups: Vec<GroupBody>,
    /// `after` of the next page.
    next: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Members {
    /// At most 10,000 ids.
    #[schema(value_type = Vec<String>)]
    devices: Vec<DeviceId>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MembersBody {
    changed: u64,
    unchanged: u64,
    /// Ids that the app does not know, the first 1,000.
    #[schema(value_type = Vec<String>)]
    unknown: Vec<DeviceId>,
    /// Devices that cannot be in more groups.
    #[schema(value_type = Vec<String>)]
    full: Vec<DeviceId>,
    /// `<shard>/<epoch>/<seq>`.
    position: Option<String>,
}

fn body(row: &GroupRow, members: u64) -> GroupBody {
    GroupBody { id: row.id, name: row.name.clone(), set_by: row.set_by, members }
}

fn group_ref(text: &str) -> Result<GroupRef, Refusal> {
    Ok(GroupRef::from_path(text).ok_or_else(|| problem::not_found("group"))?)
}

/// Creates a group.
#[utoipa::path(post, path = "/v1/apps/{app}/groups", tag = "groups", params(("app" = String, Path)),
    request_body = NewGroup, responses(
    (status = 201, body = GroupBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteSchema, &app)?;
    let NewGroup { name, set_by } = input.json().await?;
    let id = GroupId::new(random::id());
    match api.write(Write::CreateGroup { app, id, name, set_by }).await? {
        (Reply::Group { row, members }, at) => {
            Ok(written(StatusCode::CREATED, at, &body(&row, members)))
        }
        _ => Err(unexpected()),
    }
}

/// Lists the app's groups, a page at a time.
#[utoipa::path(get, path = "/v1/apps/{app}/groups", tag = "groups", params(("app" = String, Path), Page), responses(
    (status = 200, body = GroupList),
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
    let (limit, after) = (query.limit()?, query.after::<GroupId>()?);
    let world = api.world();
    let app = app_of(&world, app)?;
    let (rows, more) = page(app.groups_after(after), limit);
    let next = rows.last().filter(|_| more).map(|row| row.id.to_string());
    let groups = rows.into_iter().map(|row| body(row, app.group_members(row.id))).collect();
    Ok(json(StatusCode::OK, &GroupList { groups, next }))
}

/// Gives one group. `{group}` is its id or `name:<name>`.
#[utoipa::path(get, path = "/v1/apps/{app}/groups/{group}", tag = "groups",
    params(("app" = String, Path), ("group" = String, Path)), responses(
    (status = 200, body = GroupBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Params((app, group)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::ReadSchema, &app)?;
    let world = api.world();
    let app = app_of(&world, app)?;
    let row = group_ref(&group)?.find(app).ok_or_else(|| problem::not_found("group"))?;
    Ok(json(StatusCode::OK, &body(row, app.group_members(row.id))))
}

/// Renames a group; expressions follow, since they refer to ids.
#[utoipa::path(patch, path = "/v1/apps/{app}/groups/{group}", tag = "groups",
    params(("app" = String, Path), ("group" = String, Path)), request_body = GroupName, responses(
    (status = 200, body = GroupBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn rename(
    State(api): State<Api>,
    caller: Caller,
    Params((app, group)): Params<(String, String)>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteSchema, &app)?;
    let group = group_ref(&group)?;
    let GroupName { name } = input.json().await?;
    match api.write(Write::RenameGroup { app, group, name }).await? {
        (Reply::Group { row, members }, at) => {
            Ok(written(StatusCode::OK, at, &body(&row, members)))
        }
        _ => Err(unexpected()),
    }
}

/// Deletes a group that no message refers to and that has no members.
#[utoipa::path(delete, path = "/v1/apps/{app}/groups/{group}", tag = "groups",
    params(("app" = String, Path), ("group" = String, Path)), responses(
    (status = 204),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Params((app, group)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::WriteSchema, &app)?;
    let (_, at) = api.write(Write::DeleteGroup { app, group: group_ref(&group)? }).await?;
    Ok(done(at))
}

/// Adds devices to a group.
#[utoipa::path(post, path = "/v1/apps/{app}/groups/{group}/members:add", tag = "groups",
    params(("app" = String, Path), ("group" = String, Path)), request_body = Members, responses(
    (status = 200, body = MembersBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn add_members(
    State(api): State<Api>,
    caller: Caller,
    Params((app, group)): Params<(String, String)>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteDevices, &app)?;
    members(&api, app, group_ref(&group)?, true, input.json().await?).await
}

/// Removes devices from a group.
#[utoipa::path(post, path = "/v1/apps/{app}/groups/{group}/members:remove", tag = "groups",
    params(("app" = String, Path), ("group" = String, Path)), request_body = Members, responses(
    (status = 200, body = MembersBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn remove_members(
    State(api): State<Api>,
    caller: Caller,
    Params((app, group)): Params<(String, String)>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteDevices, &app)?;
    members(&api, app, group_ref(&group)?, false, input.json().await?).await
}

/// A sequence of writes. If one fails, its problem says what the ones before did.
async fn members(api: &Api, app: AppId, group: GroupRef, join: bool, input: Members) -> Answered {
    if input.devices.len() > MEMBERS_MAX {
        return Err(problem::too_large(format!("at most {MEMBERS_MAX} devices in one call")).into());
    }
    let mut total = MembersReport::default();
    let mut at = None;
    // An empty call still says whether the group is there.
    let chunks =
        input.devices.chunks(MEMBERS_CHUNK).chain(input.devices.is_empty().then_some(&[][..]));
    for chunk in chunks {
        let write = Write::Members { app, group: group.clone(), join, devices: chunk.to_vec() };
        match api.write(write).await {
            Ok((Reply::Members(report), position)) => {
                total.changed += report.changed;
                total.unchanged += report.unchanged;
                total.unknown.extend(report.unknown);
                total.unknown.truncate(REPORT_MAX);
                total.full.extend(report.full);
                at = Some(position);
                if let Some(refused) = report.refused {
                    let report = serde_json::to_value(report_of(total, at))
                        .expect("numbers and strings make JSON");
                    return Err(Refusal::from(refused).with("report", report));
                }
            }
            Ok(_) => return Err(unexpected()),
            Err(refusal) => {
                let report = serde_json::to_value(report_of(total, at))
                    .expect("numbers and strings make JSON");
                return Err(refusal.with("report", report));
            }
        }
    }
    let at = at.ok_or_else(unexpected)?;
    Ok(written(StatusCode::OK, at, &report_of(total, Some(at))))
}

fn report_of(total: MembersReport, at: Option<Position>) -> MembersBody {
    MembersBody {
        changed: total.changed,
        unchanged: total.unchanged,
        unknown: total.unknown,
        full: total.full,
        position: at.map(position),
    }
}
