//! Who an expression would reach, without writing anything.

use axum::extract::State;
use carillon_expr::Context;
use carillon_world::{AppId, DeviceId, World};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, Refusal, json};
use super::extract::{Caller, Params, RawBody};
use super::{Api, app_of};
use crate::core::auth::Action;
use crate::core::{expression, problem};
use crate::shell::random;

const SAMPLE_MAX: usize = 1_000;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Audience {
    to: String,
    /// Ids to give, 0 to 1,000.
    #[serde(default = "ten")]
    sample: usize,
}

fn ten() -> usize {
    10
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AudienceBody {
    /// Devices that the expression is true for.
    count: u64,
    #[schema(value_type = Vec<String>)]
    sample: Vec<DeviceId>,
    /// Devices of the app.
    of: u64,
    /// The expression, canonical.
    to: String,
}

/// Counts the devices that an expression describes, exactly, and names a few.
#[utoipa::path(post, path = "/v1/apps/{app}/audience:preview", tag = "messages", params(("app" = String, Path)),
    request_body = Audience, responses(
    (status = 200, body = AudienceBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn preview(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::PreviewAudience, &app)?;
    let input: Audience = input.json().await?;
    if input.sample > SAMPLE_MAX {
        return Err(problem::invalid(format!("`sample` is at most {SAMPLE_MAX}")).into());
    }
    let world = api.world();
    let _permit = api.previews.acquire().await.map_err(|_| problem::overloaded())?;
    let counted = tokio::task::spawn_blocking(move || count(&world, app, &input)).await;
    let body = counted.map_err(|_| problem::internal())??;
    Ok(json(StatusCode::OK, &body))
}

/// Evaluates for every device of the app: about 0.1 s a million.
fn count(world: &World, app: AppId, input: &Audience) -> Result<AudienceBody, Refusal> {
    let app = app_of(world, app)?;
    let expression = expression::read(&input.to, app)?;
    // A sample that names no salt has the message's id for one, and the message has none yet.
    let context = Context { message: Some(random::id()), ..Context::default() };
    let mut body =
        AudienceBody { count: 0, sample: Vec::new(), of: 0, to: expression.to_text(app) };
    for row in app.devices() {
        body.of += 1;
        if expression.matches_in(&**row, &context) {
            body.count += 1;
            if body.sample.len() < input.sample {
                body.sample.push(row.id);
            }
        }
    }
    Ok(body)
}
