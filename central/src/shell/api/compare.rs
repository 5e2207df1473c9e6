//! Who gains and who loses by an edit, before it is saved.

use axum::extract::State;
use carillon_world::{AppId, DeviceId, MessageId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, Refusal, json};
use super::extract::{Caller, Params, RawBody};
use super::preview::{check_sample, ten};
use super::{Api, Asked, app_of};
use crate::core::auth::Action;
use crate::core::{expression, problem, render};
use crate::shell::random;

/// One of `before` and `message`, and what would take its place.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edit {
    /// An expression.
    before: Option<String>,
    /// A message, by the recipients that it has now.
    #[schema(value_type = Option<String>)]
    message: Option<MessageId>,
    /// The edited expression.
    after: String,
    /// Ids to give of either side, 0 to 1,000.
    #[serde(default = "ten")]
    sample: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ComparisonBody {
    /// The expression that is there, canonical.
    before: String,
    /// The edited one, canonical.
    after: String,
    /// Devices that become recipients.
    gain: Side,
    /// Devices that cease to be.
    lose: Side,
    /// Devices that are recipients either way.
    keep: u64,
    /// Devices of the app.
    of: u64,
    /// The clock by which both were judged.
    at: String,
}

#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Side {
    count: u64,
    #[schema(value_type = Vec<String>)]
    sample: Vec<DeviceId>,
}

impl Side {
    fn add(&mut self, id: DeviceId, sample: usize) {
        self.count += 1;
        if self.sample.len() < sample {
            self.sample.push(id);
        }
    }
}

/// Counts the devices that an edit of an expression would gain and lose, exactly, and names a few.
#[utoipa::path(post, path = "/v1/apps/{app}/audience:compare", tag = "messages", params(("app" = String, Path)),
    request_body = Edit, responses(
    (status = 200, body = ComparisonBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn compare(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::PreviewAudience, &app)?;
    let input: Edit = input.json().await?;
    check_sample(input.sample)?;
    let body = api.ponder(move |asked| judge(asked, app, &input)).await?;
    Ok(json(StatusCode::OK, &body))
}

/// Evaluates both for every device of the app: about 0.2 s a million.
fn judge(asked: &Asked<'_>, app: AppId, input: &Edit) -> Result<ComparisonBody, Refusal> {
    let (app, limits) = (app_of(asked.world, app)?, asked.limits);
    let before = match (&input.before, input.message) {
        (Some(text), None) => expression::read(text, app, limits)?,
        (None, Some(id)) => {
            let message = app.message(id).ok_or_else(|| problem::not_found("message"))?;
            message.expression().clone()
        }
        _ => return Err(problem::invalid("give one of `before` and `message`").into()),
    };
    let after = expression::read(&input.after, app, limits)?;
    // The same draw for both, since an edit does not change a message's id.
    let salt = input.message.map_or_else(random::id, MessageId::get);
    let context = asked.context(salt);
    let mut body = ComparisonBody {
        before: before.to_text(app),
        after: after.to_text(app),
        gain: Side::default(),
        lose: Side::default(),
        keep: 0,
        of: 0,
        at: render::time(asked.at),
    };
    for row in app.devices() {
        body.of += 1;
        match (before.matches_in(&**row, &context), after.matches_in(&**row, &context)) {
            (false, true) => body.gain.add(row.id, input.sample),
            (true, false) => body.lose.add(row.id, input.sample),
            (true, true) => body.keep += 1,
            (false, false) => {}
        }
    }
    Ok(body)
}
