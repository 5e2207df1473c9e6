//! Messages: create, read, edit, recall.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use carillon_world::{
    App, MessageId, MessageRow, MessageState, Millis, Position, Priority, PushPolicy,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, Refusal, json, raw, tagged, unexpected, written};
use super::extract::{
    Caller, Page, Params, RawBody, RawQuery, given, if_match, nullable, page, parse,
};
use super::push::{PolicyForm, StandingName};
use super::{Api, app_of};
use crate::core::auth::Action;
use crate::core::input::check_message_body;
use crate::core::problem;
use crate::core::push::jobs::Jobs;
use crate::core::render;
use crate::core::write::{
    CreateMessage, CreatedMessage, EditMessage, IdempotencyKey, Reply, Write,
};
use crate::shell::random;

/// The end of a path that recalls; the rest is the message's path.
const RECALL: &str = ":recall";

/// A time in an answer or a request: RFC 3339.
#[derive(Clone, Copy, Debug)]
struct Time(Millis);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = render::parse_time(&text).map(Time);
        time.ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "{text:?} is not a time such as 2026-01-31T12:00:00Z"
            ))
        })
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMessage {
    /// The recipient expression.
    to: String,
    /// Any JSON of at most 64 KiB and 60 levels; devices get it as it is written here.
    #[schema(value_type = serde_json::Value)]
    body: Box<RawValue>,
    #[serde(default = "normal")]
    #[schema(value_type = PriorityName)]
    priority: Priority,
    #[schema(value_type = Option<String>)]
    collapse_key: Option<Arc<str>>,
    /// RFC 3339; at once if it is not said.
    #[schema(value_type = Option<String>)]
    not_before: Option<Time>,
    /// RFC 3339; 30 days later if it is not said.
    #[schema(value_type = Option<String>)]
    expires_at: Option<Time>,
    /// How devices that are not here hear of it; not at all if it is not said.
    #[schema(value_type = Option<PolicyForm>)]
    push: Option<Arc<PushPolicy>>,
}

fn normal() -> Priority {
    Priority::Normal
}

/// What it does not name stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessagePatch {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = String, required = false)]
    to: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = serde_json::Value, required = false)]
    body: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = PriorityName, required = false)]
    priority: Option<Priority>,
    /// `null`: at once.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>)]
    not_before: Option<Option<Time>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = String, required = false)]
    expires_at: Option<Time>,
    /// Replaces the whole policy; what was being pushed is pushed anew.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = PolicyForm, required = false)]
    push: Option<Arc<PushPolicy>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "it stands for another crate's type in the document")]
pub(crate) enum PriorityName {
    Low,
    Normal,
    High,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "it stands for another crate's type in the document")]
pub(crate) enum StateName {
    Scheduled,
    Active,
    Expired,
    Recalled,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageBody {
    #[schema(value_type = String)]
    id: MessageId,
    /// Counts edits, from 1.
    revision: u32,
    #[schema(value_type = StateName)]
    state: MessageState,
    /// The recipient expression, canonical.
    to: String,
    #[schema(value_type = serde_json::Value)]
    body: Box<RawValue>,
    #[schema(value_type = PriorityName)]
    priority: Priority,
    #[schema(value_type = Option<String>)]
    collapse_key: Option<Arc<str>>,
    created_at: String,
    not_before: Option<String>,
    expires_at: String,
    #[schema(value_type = Option<PolicyForm>)]
    push: Option<Arc<PushPolicy>>,
    /// How its pushes stand.
    push_state: StandingName,
    /// Where a write was committed; absent when the message is only read.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<PositionBody>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PositionBody {
    shard: u16,
    epoch: u64,
    seq: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageList {
    messages: Vec<MessageBody>,
    /// `after` of the next page.
    next: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct StateFilter {
    #[param(value_type = Option<StateName>)]
    state: Option<MessageState>,
}

fn body(jobs: &Jobs, row: &MessageRow, to: String, at: Option<Position>) -> MessageBody {
    MessageBody {
        id: row.id,
        revision: row.revision,
        state: row.state,
        to,
        body: raw(render::body_of(row)),
        priority: row.priority,
        collapse_key: row.collapse_key.clone(),
        created_at: render::time(row.created_at),
        not_before: row.not_before.map(render::time),
        expires_at: render::time(row.expires_at),
        push: row.push.clone(),
        push_state: jobs.standing(row).into(),
        position: at.map(position_body),
    }
}

fn created_body(
    created: CreatedMessage,
    text: Box<RawValue>,
    push: Option<Arc<PushPolicy>>,
) -> MessageBody {
    // What is being pushed as it is created is being pushed when that is told.
    let pushed = push.is_some() && created.state == MessageState::Active && created.is_pushed;
    MessageBody {
        id: created.id,
        revision: 1,
        state: created.state,
        to: created.to,
        body: text,
        priority: created.priority,
        collapse_key: created.collapse_key,
        created_at: render::time(created.created_at),
        not_before: created.not_before.map(render::time),
        expires_at: render::time(created.expires_at),
        push,
        push_state: if pushed { StandingName::Sending } else { StandingName::None },
        position: Some(position_body(created.position)),
    }
}

fn position_body(at: Position) -> PositionBody {
    PositionBody { shard: at.shard.get(), epoch: at.epoch.number, seq: at.seq.get() }
}

fn read(jobs: &Jobs, app: &App, message: &carillon_world::Message) -> MessageBody {
    body(jobs, message.row(), message.expression().to_text(app), None)
}

pub(super) fn message_id(text: &str) -> Result<MessageId, Refusal> {
    Ok(text.parse().map_err(|_| problem::not_found("message"))?)
}

/// Creates a message. With an `Idempotency-Key` a repeat within 24 hours gets the same answer and creates nothing.
#[utoipa::path(post, path = "/v1/apps/{app}/messages", tag = "messages",
    params(("app" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = NewMessage, responses(
    (status = 201, body = MessageBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    headers: HeaderMap,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteMessages, &app)?;
    let bytes = input.bytes().await?;
    let key = idempotency_key(&headers, &bytes)?;
    let input: NewMessage = parse(&bytes)?;
    check_message_body(input.body.get())?;
    let create = CreateMessage {
        app,
        id: MessageId::new(random::id()),
        key,
        to: input.to,
        body: input.body.get().into(),
        priority: input.priority,
        collapse_key: input.collapse_key,
        not_before: input.not_before.map(|t| t.0),
        expires_at: input.expires_at.map(|t| t.0),
        push: input.push.clone(),
    };
    match api.write(Write::CreateMessage(Box::new(create))).await? {
        (Reply::Created(created), _) => {
            let at = created.position;
            Ok(tagged(
                written(StatusCode::CREATED, at, &created_body(created, input.body, input.push)),
                1,
            ))
        }
        _ => Err(unexpected()),
    }
}

fn idempotency_key(headers: &HeaderMap, body: &[u8]) -> Result<Option<IdempotencyKey>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value
        .to_str()
        .map_err(|_| problem::bad_request("`Idempotency-Key` is not visible ASCII"))?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
    let request = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
    Ok(Some(IdempotencyKey { key: key.into(), request }))
}

/// Lists the app's messages, a page at a time, in a stable order.
#[utoipa::path(get, path = "/v1/apps/{app}/messages", tag = "messages",
    params(("app" = String, Path), Page, StateFilter), responses(
    (status = 200, body = MessageList),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    query: RawQuery,
) -> Answered {
    let app = caller.may_in(Action::ReadMessages, &app)?;
    let (query, filter): (Page, StateFilter) = (query.read()?, query.read()?);
    let (limit, after) = (query.limit()?, query.after()?);
    let (world, jobs) = (api.world(), api.shared.jobs());
    let app = app_of(&world, app)?;
    let wanted = app
        .messages_after(after)
        .filter(|m| filter.state.is_none_or(|state| m.row().state == state));
    let (found, more) = page(wanted, limit);
    let next = found.last().filter(|_| more).map(|m| m.row().id.to_string());
    let messages = found.into_iter().map(|m| read(&jobs, app, m)).collect();
    Ok(json(StatusCode::OK, &MessageList { messages, next }))
}

/// Gives one message. `ETag` is its revision.
#[utoipa::path(get, path = "/v1/apps/{app}/messages/{message}", tag = "messages",
    params(("app" = String, Path), ("message" = String, Path)), responses(
    (status = 200, body = MessageBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Params((app, message)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::ReadMessages, &app)?;
    if message.ends_with(RECALL) {
        return Ok(wrong_method(HeaderValue::from_static("POST")));
    }
    let world = api.world();
    let app = app_of(&world, app)?;
    let message =
        app.message(message_id(&message)?).ok_or_else(|| problem::not_found("message"))?;
    Ok(tagged(
        json(StatusCode::OK, &read(&api.shared.jobs(), app, message)),
        message.row().revision,
    ))
}

/// Edits a message that has not ended: recipients, content, priority or window. `If-Match` with the revision that was
/// read refuses an edit on top of another's (412).
#[utoipa::path(patch, path = "/v1/apps/{app}/messages/{message}", tag = "messages",
    params(("app" = String, Path), ("message" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = MessagePatch, responses(
    (status = 200, body = MessageBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn edit(
    State(api): State<Api>,
    caller: Caller,
    Params((app, message)): Params<(String, String)>,
    headers: HeaderMap,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteMessages, &app)?;
    if message.ends_with(RECALL) {
        return Ok(wrong_method(HeaderValue::from_static("POST")));
    }
    let id = message_id(&message)?;
    let if_match = if_match(&headers)?;
    let input: MessagePatch = input.json().await?;
    if let Some(body) = &input.body {
        check_message_body(body.get())?;
    }
    let edit = EditMessage {
        app,
        id,
        if_match,
        to: input.to,
        body: input.body.map(|body| body.get().into()),
        priority: input.priority,
        not_before: input.not_before.map(|time| time.map(|t| t.0)),
        expires_at: input.expires_at.map(|t| t.0),
        push: input.push,
    };
    answer(&api, api.write(Write::EditMessage(Box::new(edit))).await?)
}

/// Recalls a message, which is final; a repeat changes nothing.
///
/// Routes cannot tell `{message}:recall` from `{message}`, so this takes every POST to a message.
#[utoipa::path(post, path = "/v1/apps/{app}/messages/{message}", operation_id = "recall", tag = "messages",
    params(("app" = String, Path), ("message" = String, Path)), responses(
    (status = 200, body = MessageBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn act(
    State(api): State<Api>,
    caller: Caller,
    Params((app, action)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::WriteMessages, &app)?;
    let message = match action.rsplit_once(':') {
        Some((message, "recall")) => message,
        Some(_) => return Err(problem::not_found("path").into()),
        None => return Ok(wrong_method(HeaderValue::from_static("GET,HEAD,PATCH"))),
    };
    answer(&api, api.write(Write::RecallMessage { app, id: message_id(message)? }).await?)
}

/// A 405 on a path that routes cannot tell from another.
fn wrong_method(allow: HeaderValue) -> Response {
    let mut response = super::answer::method_not_allowed().into_response();
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

fn answer(api: &Api, (reply, at): (Reply, Position)) -> Answered {
    match reply {
        Reply::Message { row, to } => Ok(tagged(
            written(StatusCode::OK, at, &body(&api.shared.jobs(), &row, to, Some(at))),
            row.revision,
        )),
        _ => Err(unexpected()),
    }
}

/// Moves the POST of a message to the path that callers use.
pub(super) fn document_actions(document: &mut utoipa::openapi::OpenApi) {
    let paths = &mut document.paths.paths;
    let Some(item) = paths.get_mut("/v1/apps/{app}/messages/{message}") else { return };
    let post = item.post.take();
    let recall = paths.entry("/v1/apps/{app}/messages/{message}:recall".to_owned()).or_default();
    recall.post = post;
}
