//! Whom a customer's systems have us call. A secret is shown by the answer that made it, and never again.

use std::sync::Arc;

use axum::extract::State;
use carillon_persist::{
    CallbackEvent, CallbackId, CallbackLogFrom, CallbackLogRow, CallbackState, SealedSecret,
};
use carillon_world::{AppId, Millis};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::answer::{Answered, ProblemBody, Refusal, done, json, unexpected, written};
use super::extract::{Caller, Params, RawBody, given};
use super::{Api, app_of};
use crate::core::auth::Action;
use crate::core::callback::delivery::Outcome;
use crate::core::callback::secret::CallbackSecret;
use crate::core::callback::state::Endpoint;
use crate::core::callback::{OVERLAP_MAX, render as rendered, wanted};
use crate::core::channel::credential::SEAL_NONCE_LEN;
use crate::core::history::state_name;
use crate::core::write::{CallbackWrite, CreateCallback, PatchCallback, Reply, Write};
use crate::core::{problem, render};
use crate::shell::callbacks::Call;
use crate::shell::random;

/// Bytes of the log that are looked at to say how much waits.
const LOOK_BYTES: u64 = 1024 * 1024;
/// How long the secret before is used unless it is said.
const OVERLAP: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCallback {
    /// `https`, to a public address; at most 2,048 bytes.
    url: String,
    /// Names of events, such as `message.state`, or many by `message.*` or `*`; at most 64.
    events: Vec<String>,
    /// At most 512 bytes.
    description: Option<String>,
}

/// What it does not name stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallbackPatch {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    url: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    events: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    description: Option<String>,
    /// `active` goes on where it stood.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<CallbackStateName>)]
    state: Option<CallbackStateName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CallbackStateName {
    Active,
    Paused,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateForm {
    /// Seconds for which calls are signed with the secret before, too; a day if it is not said, at most 30 days.
    overlap_s: Option<u64>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayForm {
    /// RFC 3339. Events from then on are sent again, as far as they are kept.
    from: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CallbackBody {
    id: String,
    url: String,
    events: Vec<String>,
    description: String,
    state: CallbackStateName,
    /// Why it is paused: `admin`, `failing` (no success for long), `gone` (it answered 410).
    paused: Option<&'static str>,
    /// When the state became what it is.
    changed_at: String,
    created_at: String,
    /// When secrets before the newest end.
    old_secrets_until: Vec<String>,
    /// Events that were taken.
    delivered: u64,
    /// Events that are tried again.
    retrying: u64,
    /// Events that were given up.
    failed: u64,
    /// Events that were forgotten before they could be sent.
    missed: u64,
    last_success_at: Option<String>,
    last_failure_at: Option<String>,
    /// What went wrong then, with the beginning of the answer.
    last_error: Option<String>,
    /// Of one endpoint alone, and where events are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<WaitingBody>,
}

/// What has not been tried.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct WaitingBody {
    events: u64,
    /// There are more than were counted.
    more: bool,
    oldest_at: Option<String>,
}

/// With the secret, which is shown once.
#[derive(Serialize, ToSchema)]
pub(crate) struct CallbackWithSecret {
    #[serde(flatten)]
    callback: CallbackBody,
    /// `whsec_` and base64. Calls are signed with it (Standard Webhooks).
    #[schema(value_type = String)]
    secret: Zeroizing<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CallbackList {
    callbacks: Vec<CallbackBody>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CallbackTestBody {
    /// Whether the answer was 2xx.
    delivered: bool,
    /// `null` if no answer came.
    status: Option<u16>,
    error: Option<String>,
    took_ms: u64,
}

fn callback_id(text: &str) -> Result<CallbackId, Refusal> {
    Ok(text.parse().map_err(|_| problem::not_found("callback"))?)
}

fn find(api: &Api, app: AppId, id: &str) -> Result<Endpoint, Refusal> {
    app_of(&api.world(), app)?;
    let view = api.shared.callbacks();
    let found = view.callbacks.get(callback_id(id)?).filter(|of| of.row.app == app);
    Ok(found.cloned().ok_or_else(|| problem::not_found("callback"))?)
}

fn body(
    api: &Api,
    Endpoint { row, progress }: &Endpoint,
    waiting: Option<WaitingBody>,
) -> CallbackBody {
    let now = api.shared.clock.now();
    let ends = row.secrets.iter().filter_map(|of| of.until).filter(|until| *until > now);
    let is_active = row.state == CallbackState::Active;
    CallbackBody {
        id: row.id.to_string(),
        url: row.url.to_string(),
        events: row.events.split(' ').map(str::to_owned).collect(),
        description: row.description.to_string(),
        state: if is_active { CallbackStateName::Active } else { CallbackStateName::Paused },
        paused: (!is_active).then(|| state_name(row.state)),
        changed_at: render::time(row.changed_at),
        created_at: render::time(row.created_at),
        old_secrets_until: ends.map(render::time).collect(),
        delivered: progress.delivered,
        retrying: progress.retries.len() as u64,
        failed: progress.failed,
        missed: progress.missed,
        last_success_at: progress.last_success_at.map(render::time),
        last_failure_at: progress.last_failure_at.map(render::time),
        last_error: progress.last_error.as_deref().map(str::to_owned),
        waiting,
    }
}

fn url(api: &Api, text: &str) -> Result<Arc<str>, Refusal> {
    api.callbacks.sender.check(text).map_err(problem::invalid_callback)?;
    Ok(text.into())
}

fn events(names: &[String]) -> Result<Arc<str>, Refusal> {
    Ok(wanted::parse(names).map_err(problem::invalid_callback)?.into())
}

/// A secret as it is shown, and as it is kept.
fn draw(
    api: &Api,
    app: AppId,
    id: CallbackId,
) -> Result<(Zeroizing<String>, SealedSecret), Refusal> {
    let Some(keys) = &api.credential_keys else {
        let why = "central has no key to encrypt its secret with; see push.credentials_key";
        return Err(problem::invalid_callback(why).into());
    };
    let secret = CallbackSecret::new(random::bytes());
    let nonce: [u8; SEAL_NONCE_LEN] = random::bytes();
    let sealed = keys.seal_callback(app, id.get(), secret.bytes(), nonce);
    Ok((secret.text(), SealedSecret { sealed, until: None }))
}

async fn write(
    api: &Api,
    write: CallbackWrite,
) -> Result<(Endpoint, carillon_world::Position), Refusal> {
    match api.write(Write::Callback(Box::new(write))).await? {
        (Reply::Callback(endpoint), at) => Ok((*endpoint, at)),
        _ => Err(unexpected()),
    }
}

/// Has central call an endpoint for what happens from here on. The answer has the secret, which nothing shows again.
#[utoipa::path(post, path = "/v1/apps/{app}/callbacks", tag = "callbacks", params(("app" = String, Path)),
    request_body = NewCallback, responses(
    (status = 201, body = CallbackWithSecret),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteCallbacks, &app)?;
    let input: NewCallback = input.json().await?;
    app_of(&api.world(), app)?;
    let id = CallbackId::new(random::id());
    let (secret, sealed) = draw(&api, app, id)?;
    let create = CreateCallback {
        app,
        id,
        url: url(&api, &input.url)?,
        events: events(&input.events)?,
        description: input.description.unwrap_or_default().into(),
        secret: sealed,
    };
    let (endpoint, at) = write(&api, CallbackWrite::Create(create)).await?;
    let body = CallbackWithSecret { callback: body(&api, &endpoint, None), secret };
    Ok(written(StatusCode::CREATED, at, &body))
}

/// Lists an app's callbacks.
#[utoipa::path(get, path = "/v1/apps/{app}/callbacks", tag = "callbacks", params(("app" = String, Path)), responses(
    (status = 200, body = CallbackList),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
) -> Answered {
    let app = caller.may_in(Action::ReadCallbacks, &app)?;
    app_of(&api.world(), app)?;
    let view = api.shared.callbacks();
    let callbacks = view.callbacks.of(app).map(|endpoint| body(&api, endpoint, None)).collect();
    Ok(json(StatusCode::OK, &CallbackList { callbacks }))
}

/// Gives one callback with how far it is, what waits and what went wrong last.
#[utoipa::path(get, path = "/v1/apps/{app}/callbacks/{callback}", tag = "callbacks",
    params(("app" = String, Path), ("callback" = String, Path)), responses(
    (status = 200, body = CallbackBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Params((app, callback)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::ReadCallbacks, &app)?;
    let endpoint = find(&api, app, &callback)?;
    let waiting = waiting(&api, &endpoint).await;
    Ok(json(StatusCode::OK, &body(&api, &endpoint, waiting)))
}

/// `None` if it cannot be told.
async fn waiting(api: &Api, Endpoint { row, progress }: &Endpoint) -> Option<WaitingBody> {
    let reader = api.callbacks.reader.as_ref()?;
    let last = api.shared.callbacks().callbacks.last(row.app);
    if last <= progress.cursor {
        return Some(WaitingBody::default());
    }
    let from = CallbackLogFrom::After(row.app, progress.cursor);
    let rows = reader.read(from, LOOK_BYTES).await.ok()?;
    let mut waiting = WaitingBody::default();
    for row_of_log in &rows {
        let events = row_of_log.events().ok()?;
        let is_waiting = |event: &&CallbackEvent<'_>| {
            event.n > progress.cursor && wanted::wants(&row.events, event.kind)
        };
        for event in events.iter().filter(is_waiting) {
            waiting.events += 1;
            waiting.oldest_at.get_or_insert_with(|| render::time(event.at));
        }
    }
    waiting.more = rows.last().is_some_and(|row| row.last < last);
    Some(waiting)
}

/// Changes a callback, pauses it, or has it go on where it stood.
#[utoipa::path(patch, path = "/v1/apps/{app}/callbacks/{callback}", tag = "callbacks",
    params(("app" = String, Path), ("callback" = String, Path)), request_body = CallbackPatch, responses(
    (status = 200, body = CallbackBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn patch(
    State(api): State<Api>,
    caller: Caller,
    Params((app, callback)): Params<(String, String)>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteCallbacks, &app)?;
    let id = callback_id(&callback)?;
    let input: CallbackPatch = input.json().await?;
    let patch = PatchCallback {
        app,
        id,
        url: input.url.map(|text| url(&api, &text)).transpose()?,
        events: input.events.map(|names| events(&names)).transpose()?,
        description: input.description.map(Into::into),
        active: input.state.map(|state| state == CallbackStateName::Active),
    };
    let (endpoint, at) = write(&api, CallbackWrite::Patch(patch)).await?;
    Ok(written(StatusCode::OK, at, &body(&api, &endpoint, None)))
}

/// Deletes a callback: nothing is sent to it any more.
#[utoipa::path(delete, path = "/v1/apps/{app}/callbacks/{callback}", tag = "callbacks",
    params(("app" = String, Path), ("callback" = String, Path)), responses(
    (status = 204),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Params((app, callback)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::WriteCallbacks, &app)?;
    let delete = CallbackWrite::Delete { app, id: callback_id(&callback)? };
    let (_, at) = api.write(Write::Callback(Box::new(delete))).await?;
    Ok(done(at))
}

/// Makes another secret. For a while calls are signed with those before, too.
#[utoipa::path(post, path = "/v1/apps/{app}/callbacks/{callback}/rotate-secret", tag = "callbacks",
    params(("app" = String, Path), ("callback" = String, Path)), request_body = RotateForm, responses(
    (status = 200, body = CallbackWithSecret),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn rotate_secret(
    State(api): State<Api>,
    caller: Caller,
    Params((app, callback)): Params<(String, String)>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteCallbacks, &app)?;
    let id = callback_id(&callback)?;
    let RotateForm { overlap_s } = input.json().await?;
    let overlap = overlap_s.map_or(OVERLAP, |seconds| seconds.saturating_mul(1000));
    if overlap > OVERLAP_MAX {
        return Err(problem::invalid_callback("`overlap_s` is at most 30 days").into());
    }
    let until = api.shared.clock.now().plus(overlap);
    let (text, secret) = draw(&api, app, id)?;
    let rotate = CallbackWrite::Rotate { app, id, secret, until };
    let (endpoint, at) = write(&api, rotate).await?;
    let body = CallbackWithSecret { callback: body(&api, &endpoint, None), secret: text };
    Ok(written(StatusCode::OK, at, &body))
}

/// Sends again what happened from a time on, under the same ids.
#[utoipa::path(post, path = "/v1/apps/{app}/callbacks/{callback}/replay", tag = "callbacks",
    params(("app" = String, Path), ("callback" = String, Path)), request_body = ReplayForm, responses(
    (status = 200, body = CallbackBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn replay(
    State(api): State<Api>,
    caller: Caller,
    Params((app, callback)): Params<(String, String)>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::WriteCallbacks, &app)?;
    let id = callback_id(&callback)?;
    let ReplayForm { from } = input.json().await?;
    let from = render::parse_time(&from)
        .ok_or_else(|| problem::bad_request("`from` is a time as RFC 3339 writes it"))?;
    let endpoint = find(&api, app, &callback)?;
    let Some(reader) = &api.callbacks.reader else {
        return Err(problem::callbacks_off().into());
    };
    // The row in which it may begin, at least.
    let rows = reader.read(CallbackLogFrom::Since(app, from), 1).await;
    let rows = rows.map_err(|_| problem::unavailable())?;
    let cursor = before(&rows, from).unwrap_or(endpoint.progress.cursor);
    let (endpoint, at) = write(&api, CallbackWrite::Replay { app, id, cursor }).await?;
    let waiting = waiting(&api, &endpoint).await;
    Ok(written(StatusCode::OK, at, &body(&api, &endpoint, waiting)))
}

/// The number before the first event from a time on; of a row that is older, its last.
fn before(rows: &[CallbackLogRow], from: Millis) -> Option<u64> {
    let row = rows.first()?;
    let events = row.events().ok()?;
    let first = events.iter().find(|event| event.at >= from);
    Some(first.map_or(row.last, |event| event.n - 1))
}

/// Sends a `callback.test` now, once, and says what came back.
#[utoipa::path(post, path = "/v1/apps/{app}/callbacks/{callback}/test", tag = "callbacks",
    params(("app" = String, Path), ("callback" = String, Path)), responses(
    (status = 200, body = CallbackTestBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn test(
    State(api): State<Api>,
    caller: Caller,
    Params((app, callback)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::WriteCallbacks, &app)?;
    let endpoint = find(&api, app, &callback)?;
    let (sender, now) = (&api.callbacks.sender, api.shared.clock.now());
    let ready = sender
        .line(&endpoint.row.url)
        .and_then(|line| Ok((line, sender.secrets(&endpoint.row, now)?)));
    let told = match ready {
        Err(error) => {
            CallbackTestBody { delivered: false, status: None, error: Some(error), took_ms: 0 }
        }
        Ok((line, secrets)) => {
            let id = format!("test-{:016x}", random::id()).into();
            let body = rendered::test_body(now, app, &endpoint.row.id.to_string()).into();
            let called = sender.call(&line, &secrets, &Call { id, body }).await;
            let error = match called.outcome {
                Outcome::Delivered => None,
                Outcome::Gone { error } | Outcome::Failed { error, .. } => Some(error.to_string()),
                Outcome::Missing => Some("the event is missing".to_owned()),
            };
            CallbackTestBody {
                delivered: error.is_none(),
                status: called.status,
                error,
                took_ms: called.took.as_millis() as u64,
            }
        }
    };
    Ok(json(StatusCode::OK, &told))
}
