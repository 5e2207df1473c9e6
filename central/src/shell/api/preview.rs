//! Who an expression would reach, without writing anything.

use axum::extract::State;
use carillon_world::{AppId, DeviceId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, Refusal, json};
use super::extract::{Caller, Params, RawBody};
use super::{Api, Asked, app_of};
use crate::core::auth::Action;
use crate::core::{expression, problem, render};
use crate::shell::random;

/// Ids that one answer may be asked for.
const SAMPLE_MAX: usize = 1_000;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Audience {
    to: String,
    /// Ids to give, 0 to 1,000.
    #[serde(default = "ten")]
    sample: usize,
}

pub(super) fn ten() -> usize {
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
    /// The clock by which it was judged.
    at: String,
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
    check_sample(input.sample)?;
    let body = api.ponder(move |asked| count(asked, app, &input)).await?;
    Ok(json(StatusCode::OK, &body))
}

/// # Errors
/// `invalid` if more ids are asked for than one answer gives.
pub(super) fn check_sample(sample: usize) -> Result<(), Refusal> {
    if sample > SAMPLE_MAX {
        return Err(problem::invalid(format!("`sample` is at most {SAMPLE_MAX}")).into());
    }
    Ok(())
}

/// Evaluates for every device of the app: about 0.1 s a million.
fn count(asked: &Asked<'_>, app: AppId, input: &Audience) -> Result<AudienceBody, Refusal> {
    let app = app_of(asked.world, app)?;
    let expression = expression::read(&input.to, app, asked.limits())?;
    // A sample that names no salt has the message's id for one, and the message has none yet.
    let context = asked.context(random::id());
    let (to, at) = (expression.to_text(app), render::time(asked.at));
    let mut body = AudienceBody { count: 0, sample: Vec::new(), of: 0, to, at };
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
