//! Messages: create, edit, recall.

use std::sync::Arc;

use carillon_expr::Expression;
use carillon_world::{App, AppId, Change, MessageId, MessageRow, MessageState, Millis, Usage};

use super::{Decided, app_of};
use crate::core::audience::check_reach;
use crate::core::budget::Quota;
use crate::core::expression;
use crate::core::idempotency::KeyRecord;
use crate::core::ledger::Ledger;
use crate::core::limits::{
    COLLAPSE_KEY_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, MESSAGE_BODY_BYTES_MAX, MESSAGE_LIFE,
    TIME_MAX,
};
use crate::core::problem::{self, Problem};
use crate::core::push::policy;
use crate::core::render;
use crate::core::write::{CreateMessage, CreatedMessage, EditMessage, IdempotencyKey, Reply};

pub(super) fn create(ledger: &mut Ledger, now: Millis, create: &CreateMessage) -> Decided {
    if let Some(key) = &create.key
        && let Some(before) = repeated(ledger, create.app, key)?
    {
        return Ok(Reply::Created(before));
    }
    let app = app_of(ledger, create.app)?;
    let expression = expression::read(&create.to, app, &ledger.budgets.expressions)?;
    let to = expression.to_text(app);
    check_reach(app, &expression, None, &ledger.budgets.audiences)?;
    check_body(&create.body)?;
    if let Some(push) = &create.push {
        policy::check(push)?;
    }
    if let Some(key) = &create.collapse_key
        && (key.is_empty() || key.len() > COLLAPSE_KEY_BYTES_MAX)
    {
        return Err(problem::invalid(format!(
            "a collapse key has 1 to {COLLAPSE_KEY_BYTES_MAX} bytes"
        ))
        .into());
    }
    let begins = create.not_before.unwrap_or(now).max(now);
    let expires_at = create.expires_at.unwrap_or(begins.plus(MESSAGE_LIFE));
    let state = check_window(now, create.not_before, expires_at)?;
    if app.message(create.id).is_some() {
        // Two random ids of 64 bits met; the caller draws again.
        return Err(problem::internal().into());
    }
    ledger.budgets.allow(app, Quota::LiveMessages, 1)?;
    let clock = clock(ledger, app, now, &expression, false)?;
    let row = MessageRow {
        id: create.id,
        app: create.app,
        revision: 1,
        state,
        to: expression.to_stored().into(),
        priority: create.priority,
        collapse_key: create.collapse_key.clone(),
        created_at: now,
        not_before: create.not_before,
        expires_at,
        push: create.push.clone(),
        variants: vec![render::variant(create.id, create.priority, expires_at, &create.body)],
    };
    ledger.budgets.allow(app, Quota::Bodies, Usage::of_bodies(&row))?;
    ledger.grow(clock.into_iter().chain([Change::Message(Arc::new(row))]).collect())?;
    let created = CreatedMessage {
        id: create.id,
        state,
        to,
        priority: create.priority,
        collapse_key: create.collapse_key.clone(),
        created_at: now,
        not_before: create.not_before,
        expires_at,
        is_pushed: !ledger.ahead.jobs.of(create.app, create.id).is_empty(),
        position: ledger.position(),
    };
    if let Some(IdempotencyKey { key, request }) = &create.key {
        let answer = serde_json::to_string(&created).expect("strings and numbers make JSON").into();
        ledger.put_key(KeyRecord {
            app: create.app,
            key: key.clone(),
            request: *request,
            answer,
            at: now,
        });
    }
    Ok(Reply::Created(created))
}

/// What the same request was answered before.
fn repeated(
    ledger: &Ledger,
    app: AppId,
    key: &IdempotencyKey,
) -> Result<Option<CreatedMessage>, Problem> {
    if key.key.is_empty() || key.key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        let detail = format!("an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
        return Err(problem::invalid(detail));
    }
    match ledger.keys.get(app, &key.key) {
        Some(record) if record.request == key.request => {
            // An answer that an older release wrote in another form counts as damaged, not as absent.
            serde_json::from_str(&record.answer).map(Some).map_err(|_| problem::internal())
        }
        Some(_) => {
            let detail = "the key was used for another request in the last 24 hours";
            Err(problem::problem(
                409,
                "idempotency-key-reused",
                "Idempotency key used again",
                detail,
            ))
        }
        None if ledger.keys.is_full() => Err(problem::overloaded()),
        None => Ok(None),
    }
}

pub(super) fn edit(ledger: &mut Ledger, now: Millis, edit: &EditMessage) -> Decided {
    let app = app_of(ledger, edit.app)?;
    let message = app.message(edit.id).ok_or_else(|| problem::not_found("message"))?;
    let before = message.row();
    if edit.if_match.is_some_and(|revision| revision != before.revision) {
        let detail = format!("the message is at revision {}", before.revision);
        return Err(problem::revision_mismatch(detail).into());
    }
    match before.state {
        MessageState::Recalled => {
            return Err(over("recalled", "the message was recalled, which is final").into());
        }
        MessageState::Expired => return Err(over("ended", "the message has ended").into()),
        MessageState::Scheduled | MessageState::Active if before.expires_at <= now => {
            return Err(over("ended", "the message has ended").into());
        }
        MessageState::Scheduled | MessageState::Active => {}
    }
    let expression = match &edit.to {
        Some(text) => expression::read(text, app, &ledger.budgets.expressions)?,
        None => message.expression().clone(),
    };
    check_reach(app, &expression, Some(message), &ledger.budgets.audiences)?;
    if let Some(body) = &edit.body {
        check_body(body)?;
    }
    if let Some(push) = &edit.push {
        policy::check(push)?;
    }
    let priority = edit.priority.unwrap_or(before.priority);
    let not_before = edit.not_before.unwrap_or(before.not_before);
    let expires_at = edit.expires_at.unwrap_or(before.expires_at);
    let state = check_window(now, not_before, expires_at)?;
    let body = edit.body.as_deref().unwrap_or_else(|| render::body_of(before));
    let mut row = MessageRow {
        state,
        to: expression.to_stored().into(),
        priority,
        not_before,
        expires_at,
        push: edit.push.clone().or_else(|| before.push.clone()),
        variants: vec![render::variant(edit.id, priority, expires_at, body)],
        ..MessageRow::clone(before)
    };
    let to = expression.to_text(app);
    if row == **before {
        return Ok(Reply::Message { row: before.clone(), to });
    }
    row.revision = before
        .revision
        .checked_add(1)
        .ok_or_else(|| problem::limit("the message has too many revisions"))?;
    let more = Usage::of_bodies(&row).saturating_sub(Usage::of_bodies(before));
    if more > 0 {
        ledger.budgets.allow(app, Quota::Bodies, more)?;
    }
    let row = Arc::new(row);
    let clock = clock(ledger, app, now, &expression, message.is_volatile())?;
    ledger.grow(clock.into_iter().chain([Change::Message(row.clone())]).collect())?;
    Ok(Reply::Message { row, to })
}

/// Final; a repeat changes nothing.
pub(super) fn recall(ledger: &mut Ledger, app: AppId, id: MessageId) -> Decided {
    let known = app_of(ledger, app)?;
    let message = known.message(id).ok_or_else(|| problem::not_found("message"))?;
    let before = message.row();
    let to = message.expression().to_text(known);
    if before.state == MessageState::Recalled {
        return Ok(Reply::Message { row: before.clone(), to });
    }
    let state = MessageState::Recalled;
    let row = Arc::new(MessageRow { state, ..MessageRow::clone(before) });
    ledger.put(vec![Change::MessageState { app, id, state }])?;
    Ok(Reply::Message { row, to })
}

/// What brings the clock up to date before a volatile message is saved, so that it is judged by the time at which it was.
/// `was`: it was volatile before.
///
/// # Errors
/// 403 `too-many-volatile-messages`
fn clock(
    ledger: &Ledger,
    app: &App,
    now: Millis,
    expression: &Expression,
    was: bool,
) -> Result<Option<Change>, Problem> {
    if !expression.is_volatile() {
        return Ok(None);
    }
    ledger.budgets.allow_volatile(app, u64::from(!was))?;
    Ok(ledger.clock(now))
}

fn over(code: &str, detail: &str) -> Problem {
    problem::problem(409, code, "The message is over", detail)
}

fn check_body(body: &str) -> Result<(), Problem> {
    if body.len() > MESSAGE_BODY_BYTES_MAX {
        return Err(problem::too_large(format!(
            "a message's body has at most {MESSAGE_BODY_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// The state that a window gives at `now`.
fn check_window(
    now: Millis,
    not_before: Option<Millis>,
    expires_at: Millis,
) -> Result<MessageState, Problem> {
    if expires_at <= now {
        return Err(problem::bad_window("`expires_at` is in the past"));
    }
    if not_before.is_some_and(|start| expires_at <= start) {
        return Err(problem::bad_window("`expires_at` is not after `not_before`"));
    }
    if expires_at.0 > TIME_MAX {
        return Err(problem::bad_window("`expires_at` is after the year 9999"));
    }
    Ok(if not_before.is_some_and(|start| start > now) {
        MessageState::Scheduled
    } else {
        MessageState::Active
    })
}
