//! What the API knows of users: that they can be forgotten.

use std::sync::Arc;

use axum::extract::State;
use carillon_world::{AppId, DeviceId, World};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{
    Answered, ProblemBody, Refusal, no_such_method, position, unexpected, written,
};
use super::extract::{Caller, Params};
use super::{Api, app_of};
use crate::core::auth::Action;
use crate::core::limits::{ERASE_CHUNK, ERASE_ROUNDS_MAX};
use crate::core::problem;
use crate::core::write::{Reply, Write};

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErasedBody {
    user: String,
    /// Devices that this call forgot.
    devices: u64,
    /// Where the app has none of them any more.
    position: String,
}

/// Forgets all devices of a user: profiles, secrets, push tokens and sessions at once, receipts within moments. A repeat
/// finds none.
///
/// Devices go in steps, so others are not kept waiting. If it is cut short, what was done stays done: repeat it.
///
/// Routes cannot tell `{user}:erase` from `{user}`, so this takes every POST to a user.
#[utoipa::path(post, path = "/v1/apps/{app}/users/{user}", operation_id = "erase", tag = "users",
    params(("app" = String, Path), ("user" = String, Path, description = "The app's own id of the user, percent-encoded")),
    responses(
    (status = 200, body = ErasedBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn act(
    State(api): State<Api>,
    caller: Caller,
    Params((app, action)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::WriteDevices, &app)?;
    let Some((user, "erase")) = action.rsplit_once(':') else {
        return Err(no_such_method().await);
    };
    let (mut erased, user) = (0, Arc::<str>::from(user));
    let mut world = api.world();
    let mut at = world.position();
    // Again, until none is left: devices may join the user meanwhile.
    for _ in 0..ERASE_ROUNDS_MAX {
        let found = find(&api, world, app, user.clone()).await?;
        if found.is_empty() {
            break;
        }
        for devices in found.chunks(ERASE_CHUNK) {
            let (user, devices) = (user.clone(), devices.to_vec());
            match api.write(Write::EraseUser { app, user, devices }).await {
                Ok((Reply::Erased(count), position)) => {
                    erased += count;
                    at = position;
                }
                Ok(_) => return Err(unexpected()),
                Err(refusal) => return Err(refusal.with("devices", erased.into())),
            }
        }
        world = api.world();
    }
    let body = ErasedBody { user: user.to_string(), devices: erased, position: position(at) };
    Ok(written(StatusCode::OK, at, &body))
}

/// Looks at every device of the app, about 20 ms a million, on a thread of its own.
async fn find(
    api: &Api,
    world: Arc<World>,
    app: AppId,
    user: Arc<str>,
) -> Result<Vec<DeviceId>, Refusal> {
    let _permit = api.previews.acquire().await.map_err(|_| problem::overloaded())?;
    let found = tokio::task::spawn_blocking(move || of_user(&world, app, &user)).await;
    found.map_err(|_| problem::internal())?
}

fn of_user(world: &World, app: AppId, user: &str) -> Result<Vec<DeviceId>, Refusal> {
    let devices = app_of(world, app)?.devices();
    Ok(devices.filter(|row| row.user.as_deref() == Some(user)).map(|row| row.id).collect())
}

/// Moves the POST of a user to the path that callers use.
pub(super) fn document_actions(document: &mut utoipa::openapi::OpenApi) {
    let paths = &mut document.paths.paths;
    if let Some(item) = paths.remove("/v1/apps/{app}/users/{user}") {
        paths.insert("/v1/apps/{app}/users/{user}:erase".to_owned(), item);
    }
}
