//! Devices, one by one and by the page.

use std::sync::Arc;

use axum::extract::State;
use carillon_world::{App, DeviceId, DeviceRow, Millis, PushToken};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, Refusal, done, json, unexpected, written};
use super::extract::{Caller, Page, Params, RawBody, RawQuery, given, nullable, page};
use super::{Api, app_of};
use crate::core::auth::Action;
use crate::core::input::{GroupRef, Pairs, ProfileEdit};
use crate::core::problem;
use crate::core::render;
use crate::core::value::{self, Given};
use crate::core::write::{Reply, Write};

/// What it does not name stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DevicePatch {
    /// `null` removes it.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    user: Option<Option<Arc<str>>>,
    /// By name; `null` removes it. Versions, dates and times are strings, a point is `{"lat": …, "lon": …}` in degrees,
    /// a set is an array of strings.
    #[serde(default)]
    #[schema(value_type = Object)]
    attributes: Pairs<Option<Given>>,
    /// By name: `true` joins, `false` leaves.
    #[serde(default)]
    #[schema(value_type = Object)]
    groups: Pairs<bool>,
    /// All of the device's tokens.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Vec<TokenBody>, required = false)]
    tokens: Option<Vec<PushToken>>,
}

/// A push provider's address of a device.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenBody {
    /// `apns`, `fcm` or `web_push`.
    channel: String,
    token: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceBody {
    #[schema(value_type = String)]
    id: DeviceId,
    #[schema(value_type = Option<String>)]
    user: Option<Arc<str>>,
    /// By name, in the form in which they are given.
    #[schema(value_type = Object)]
    attributes: serde_json::Map<String, serde_json::Value>,
    groups: Vec<String>,
    /// How many push tokens it has.
    tokens: usize,
    created_at: String,
    /// The hour in which it was last reported as seen; `null` if it never was.
    last_seen: Option<String>,
    /// The seq at which what matching depends on last changed.
    profile_changed_seq: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceList {
    devices: Vec<DeviceBody>,
    /// `after` of the next page.
    next: Option<String>,
}

fn body(app: &App, row: &DeviceRow) -> DeviceBody {
    DeviceBody {
        id: row.id,
        user: row.user.clone(),
        attributes: attributes(app, row),
        groups: groups(app, row),
        tokens: row.private.as_ref().map_or(0, |p| p.tokens.len()),
        created_at: render::time(row.created_at),
        last_seen: (row.last_seen > Millis::ZERO).then(|| render::time(row.last_seen)),
        profile_changed_seq: row.p.get(),
    }
}

/// By their present names, or ids where a name is gone.
pub(super) fn attributes(app: &App, row: &DeviceRow) -> serde_json::Map<String, serde_json::Value> {
    let name = |id| app.attribute(id).map_or_else(|| format!("{id}"), |a| a.name.to_string());
    row.attributes.iter().map(|(id, value)| (name(*id), value::to_json(value))).collect()
}

pub(super) fn groups(app: &App, row: &DeviceRow) -> Vec<String> {
    let name = |id: &_| app.group(*id).map_or_else(|| format!("{id}"), |g| g.name.to_string());
    row.groups.iter().map(name).collect()
}

fn device_id(text: &str) -> Result<DeviceId, Refusal> {
    Ok(text.parse().map_err(|_| problem::not_found("device"))?)
}

fn answer(api: &Api, (reply, at): (Reply, carillon_world::Position)) -> Answered {
    let Reply::Device(row) = reply else { return Err(unexpected()) };
    let world = api.world();
    Ok(written(StatusCode::OK, at, &body(app_of(&world, row.app)?, &row)))
}

/// Lists the app's devices, a page at a time, in a stable order.
#[utoipa::path(get, path = "/v1/apps/{app}/devices", tag = "devices", params(("app" = String, Path), Page), responses(
    (status = 200, body = DeviceList),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    query: RawQuery,
) -> Answered {
    let app = caller.may_in(Action::ReadDevices, &app)?;
    let query: Page = query.read()?;
    let (limit, after) = (query.limit()?, query.after()?);
    let world = api.world();
    let app = app_of(&world, app)?;
    let (rows, more) = page(app.devices_after(after), limit);
    let next = rows.last().filter(|_| more).map(|row| row.id.to_string());
    let devices = rows.into_iter().map(|row| body(app, row)).collect();
    Ok(json(StatusCode::OK, &DeviceList { devices, next }))
}

/// Gives one device.
#[utoipa::path(get, path = "/v1/apps/{app}/devices/{device}", tag = "devices",
    params(("app" = String, Path), ("device" = String, Path)), responses(
    (status = 200, body = DeviceBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Params((app, device)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::ReadDevices, &app)?;
    let world = api.world();
    let app = app_of(&world, app)?;
    let row = app.device(device_id(&device)?).ok_or_else(|| problem::not_found("device"))?;
    Ok(json(StatusCode::OK, &body(app, row)))
}

/// Changes a device's user, attributes, groups or push tokens.
#[utoipa::path(patch, path = "/v1/apps/{app}/devices/{device}", tag = "devices",
    params(("app" = String, Path), ("device" = String, Path)), request_body = DevicePatch, responses(
    (status = 200, body = DeviceBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn patch(
    State(api): State<Api>,
    caller: Caller,
    Params((app, device)): Params<(String, String)>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteDevices, &app)?;
    let device = device_id(&device)?;
    let input: DevicePatch = input.json().await?;
    let edit = ProfileEdit {
        user: input.user,
        attributes: input.attributes.0,
        groups: input
            .groups
            .0
            .into_iter()
            .map(|(name, join)| (GroupRef::Either(name), join))
            .collect(),
        tokens: input.tokens,
    };
    answer(&api, api.write(Write::PatchDevice { app, device, edit }).await?)
}

/// Forgets a device.
#[utoipa::path(delete, path = "/v1/apps/{app}/devices/{device}", tag = "devices",
    params(("app" = String, Path), ("device" = String, Path)), responses(
    (status = 204),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Params((app, device)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::WriteDevices, &app)?;
    let (_, at) = api.write(Write::DeleteDevice { app, device: device_id(&device)? }).await?;
    Ok(done(at))
}

/// Ends every session of the device; with its secret it gets another.
#[utoipa::path(post, path = "/v1/apps/{app}/devices/{device}/revoke", tag = "devices",
    params(("app" = String, Path), ("device" = String, Path)), responses(
    (status = 200, body = DeviceBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Params((app, device)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::WriteDevices, &app)?;
    answer(&api, api.write(Write::RevokeDevice { app, device: device_id(&device)? }).await?)
}
