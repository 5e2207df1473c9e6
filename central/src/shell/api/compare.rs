//! Who gains and who loses by an edit, before it is saved.

use std::sync::Arc;

use axum::extract::State;
use carillon_expr::Expression;
use carillon_world::{App, AppId, AudienceRow, DeviceId, MessageId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, Refusal, json};
use super::extract::{Caller, Params, RawBody};
use super::preview::{check_sample, ten};
use super::{Api, Asked, app_of};
use crate::core::audience::{Fault, tried};
use crate::core::auth::Action;
use crate::core::{expression, problem, render};
use crate::shell::random;

/// Evaluations for the messages that use an audience: about a second.
const EVALUATIONS_MAX: usize = 20_000_000;

/// One of `before`, `message` and `audience`, and what would take its place.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edit {
    /// An expression.
    before: Option<String>,
    /// A message, by the recipients that it has now.
    #[schema(value_type = Option<String>)]
    message: Option<MessageId>,
    /// An audience, by its name: also says who each message that uses it would gain and lose.
    audience: Option<String>,
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
    /// For an audience: the scheduled and active messages that use it, also through other audiences. With many devices
    /// not all of them are looked at.
    messages: Vec<MessageComparison>,
    /// How many there are.
    message_count: usize,
}

/// How many devices a message would gain and lose by an edit of an audience.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageComparison {
    #[schema(value_type = String)]
    message: MessageId,
    gain: u64,
    lose: u64,
    keep: u64,
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
    let (app, limits) = (app_of(asked.world, app)?, asked.limits());
    let before = match (&input.before, input.message, &input.audience) {
        (Some(text), None, None) => expression::read(text, app, limits)?,
        (None, Some(id), None) => {
            let message = app.message(id).ok_or_else(|| problem::not_found("message"))?;
            message.recipients(app)
        }
        (None, None, Some(name)) => return judge_audience(asked, app, name, input),
        _ => {
            let detail = "give one of `before`, `message` and `audience`";
            return Err(problem::invalid(detail).into());
        }
    };
    let after = expression::read(&input.after, app, limits)?;
    // The same draw for both, since an edit does not change a message's id.
    let salt = input.message.map_or_else(random::id, MessageId::get);
    Ok(weigh(asked, app, (&before, &after), salt, input.sample))
}

/// What is there and what would take its place. `salt`: the id of the message that samples without a salt of their own
/// are drawn for.
fn weigh(
    asked: &Asked<'_>,
    app: &App,
    (before, after): (&Expression, &Expression),
    salt: u64,
    sample: usize,
) -> ComparisonBody {
    let context = asked.context(salt);
    let mut body = ComparisonBody {
        before: before.to_text(app),
        after: after.to_text(app),
        gain: Side::default(),
        lose: Side::default(),
        keep: 0,
        of: 0,
        at: render::time(asked.at),
        messages: Vec::new(),
        message_count: 0,
    };
    for row in app.devices() {
        body.of += 1;
        match (before.matches_in(&**row, &context), after.matches_in(&**row, &context)) {
            (false, true) => body.gain.add(row.id, sample),
            (true, false) => body.lose.add(row.id, sample),
            (true, true) => body.keep += 1,
            (false, false) => {}
        }
    }
    body
}

/// By a world in which the edit is made; what the edit would be refused for, the comparison is refused for.
fn judge_audience(
    asked: &Asked<'_>,
    app: &App,
    name: &str,
    input: &Edit,
) -> Result<ComparisonBody, Refusal> {
    let audience = app.audience_by_name(name).ok_or_else(|| problem::not_found("audience"))?;
    let (row, before) = (audience.row(), audience.expression());
    let after = expression::read_audience(row.id, &input.after, app, asked.limits())?;
    let stored = after.to_stored();
    let mut edited = asked.world.clone();
    if *row.expression != *stored {
        let (from, expression) = (asked.world.seq().next(), stored.into());
        let row = Arc::new(AudienceRow { from, expression, ..AudienceRow::clone(row) });
        edited = tried(asked.world, asked.budgets, &row).map_err(|fault| match fault {
            Fault::Refused(problem) => problem,
            Fault::Broken(_) => problem::internal(),
        })?;
    }
    let edited = app_of(&edited, app.row().id)?;
    let mut body = weigh(asked, app, (before, &after), random::id(), input.sample);
    let users = app.audience_messages(row.id);
    body.message_count = users.len();
    let most = (EVALUATIONS_MAX / (2 * app.device_count().max(1))).max(1);
    for id in users.iter().take(most) {
        let present = |app: &App| app.message(*id).map(|message| message.expression().clone());
        let Some((before, after)) = present(app).zip(present(edited)) else { continue };
        let sides = weigh(asked, app, (&before, &after), id.get(), 0);
        let (gain, lose) = (sides.gain.count, sides.lose.count);
        body.messages.push(MessageComparison { message: *id, gain, lose, keep: sides.keep });
    }
    Ok(body)
}
