//! Why a device is a recipient, or is none: an expression, or a message, part by part.

use axum::extract::State;
use axum::response::IntoResponse as _;
use carillon_expr::{Explanation, Truth};
use carillon_world::{AppId, DeviceId, MessageId, MessageState, Millis};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, Refusal, json};
use super::extract::{Caller, Params, RawBody};
use super::messages::StateName;
use super::{Api, Asked, app_of};
use crate::core::auth::Action;
use crate::core::{expression, problem, render};
use crate::shell::random;

/// One of `to` and `message`, and a device.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// An expression.
    to: Option<String>,
    /// A message, by the recipients and the state that it has now.
    #[schema(value_type = Option<String>)]
    message: Option<MessageId>,
    #[schema(value_type = String)]
    device: DeviceId,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplanationBody {
    #[schema(value_type = String)]
    device: DeviceId,
    /// `null` if an expression was asked about.
    message: Option<AskedMessage>,
    /// The expression, canonical.
    to: String,
    /// Whether it is true for the device.
    matches: bool,
    /// The clock by which it was judged.
    at: String,
    /// The tree, from the whole to the smallest parts, each before those that it is made of. An audience is taken
    /// apart where it is met first.
    parts: Vec<PartBody>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AskedMessage {
    #[schema(value_type = String)]
    id: MessageId,
    #[schema(value_type = StateName)]
    state: MessageState,
    /// Whether the device gets it: it is active and its expression is true for the device.
    gets: bool,
}

/// One part of the expression. The tree is a list with the places of parents, because it may be deeper than readers
/// of JSON take.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartBody {
    /// The place, in the list and from 0, of the part that this one belongs to; `null` for the whole.
    parent: Option<usize>,
    /// Parts around it.
    depth: usize,
    /// The canonical text of a test; `and`, `or` or `not`; or the name of an audience.
    text: String,
    #[schema(value_type = TruthName)]
    truth: Truth,
    /// What a test looked at.
    saw: Vec<SawBody>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "it stands for another crate's type in the document")]
pub(crate) enum TruthName {
    True,
    False,
    Unknown,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SawBody {
    /// The name of an attribute, or `user`, `device`, `message`, `now`, `last_seen`.
    name: String,
    /// As an expression would write it, a long one cut with `…`; `null` if the device has none.
    value: Option<String>,
}

/// Says which parts of an expression were true, false or unknown for a device and what they looked at; for a message,
/// why the device gets it or does not. As text if `Accept` asks for `text/plain`.
#[utoipa::path(post, path = "/v1/apps/{app}/audience:explain", tag = "messages",
    params(("app" = String, Path), ("Accept" = Option<String>, Header)),
    request_body = Question, responses(
    (status = 200, content((ExplanationBody = "application/json"), (String = "text/plain"))),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn explain(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    headers: HeaderMap,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::PreviewAudience, &app)?;
    let input: Question = input.json().await?;
    let asked = api.ponder(move |asked| answer(asked, app, &input)).await?;
    if wants_text(&headers) {
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        return Ok(([(header::CONTENT_TYPE, kind)], asked.text()).into_response());
    }
    Ok(json(StatusCode::OK, &asked.body()))
}

/// Whether `text/plain` is what the caller names first.
fn wants_text(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let first = accept.and_then(|accept| accept.split([',', ';']).next());
    first.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/plain"))
}

/// The answer before it has a form.
struct Answer {
    device: DeviceId,
    message: Option<(MessageId, MessageState)>,
    to: String,
    explanation: Explanation,
    at: Millis,
}

fn answer(asked: &Asked<'_>, app: AppId, input: &Question) -> Result<Answer, Refusal> {
    let (app, limits) = (app_of(asked.world, app)?, asked.limits());
    let (expression, message) = match (&input.to, input.message) {
        (Some(text), None) => (expression::read(text, app, limits)?, None),
        (None, Some(id)) => {
            let message = app.message(id).ok_or_else(|| problem::not_found("message"))?;
            (message.recipients(app), Some((id, message.row().state)))
        }
        _ => return Err(problem::invalid("give one of `to` and `message`").into()),
    };
    let device = app.device(input.device).ok_or_else(|| problem::not_found("device"))?;
    // As in a preview, a message to be has any id.
    let salt = message.map_or_else(random::id, |(id, _)| id.get());
    let context = asked.context(salt);
    Ok(Answer {
        device: input.device,
        message,
        to: expression.to_text(app),
        explanation: expression.explain(&**device, &context, app),
        at: asked.at,
    })
}

impl Answer {
    fn gets(&self, state: MessageState) -> bool {
        state == MessageState::Active && self.explanation.matches
    }

    fn text(&self) -> String {
        let (device, parts) = (self.device, &self.explanation);
        match self.message {
            Some((id, state)) => {
                let gets = if self.gets(state) { "gets" } else { "does not get" };
                let state = state_name(state);
                format!("device {device} {gets} message {id}, which is {state}\n{parts}")
            }
            None => {
                let is = if parts.matches { "is a recipient" } else { "is no recipient" };
                format!("device {device} {is}\n{parts}")
            }
        }
    }

    fn body(self) -> ExplanationBody {
        let message = self.message.map(|(id, state)| {
            let gets = self.gets(state);
            AskedMessage { id, state, gets }
        });
        let Explanation { matches, parts } = self.explanation;
        // The newest part of each depth.
        let mut newest: Vec<usize> = Vec::new();
        let part = |(at, part): (usize, carillon_expr::Part)| {
            newest.truncate(part.depth);
            let parent = newest.last().copied();
            newest.push(at);
            let saw = part.saw.into_iter().map(|saw| SawBody { name: saw.name, value: saw.value });
            let saw = saw.collect();
            PartBody { parent, depth: part.depth, text: part.text, truth: part.truth, saw }
        };
        let parts = parts.into_iter().enumerate().map(part).collect();
        let at = render::time(self.at);
        ExplanationBody { device: self.device, message, to: self.to, matches, at, parts }
    }
}

const fn state_name(state: MessageState) -> &'static str {
    match state {
        MessageState::Scheduled => "scheduled",
        MessageState::Active => "active",
        MessageState::Expired => "expired",
        MessageState::Recalled => "recalled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_for_whoever_asks_for_it_first() {
        let wants = |accept: &'static str| {
            wants_text(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        assert!(wants("text/plain") && wants("Text/Plain; q=0.9, */*"));
        for other in ["", "*/*", "application/json, text/plain", "text/plain2", "text/*"] {
            assert!(!wants(other), "{other}");
        }
        assert!(!wants_text(&HeaderMap::new()));
    }
}
