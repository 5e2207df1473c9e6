//! Whom a customer's systems have us call, how far each is, and the log that they are called from.

use std::sync::Arc;

use carillon_persist::{CallbackId, CallbackProgress, CallbackRow, CallbackState, SealedSecret};
use carillon_world::{AppId, Millis};

use super::{Decided, app_of};
use crate::core::callback::state::Endpoint;
use crate::core::callback::{DESCRIPTION_BYTES_MAX, SECRETS_MAX};
use crate::core::history::Event;
use crate::core::ledger::Ledger;
use crate::core::problem::{self, Problem};
use crate::core::write::{
    CallbackReport, CallbackWrite, CreateCallback, Missed, PatchCallback, Reply,
};

pub(super) fn decide(ledger: &mut Ledger, now: Millis, write: &CallbackWrite) -> Decided {
    match write {
        CallbackWrite::Create(create) => self::create(ledger, now, create),
        CallbackWrite::Patch(edit) => patch(ledger, now, edit),
        CallbackWrite::Delete { app, id } => {
            endpoint_of(ledger, *app, *id)?;
            ledger.remove_callback(*id);
            ledger.tell(&Event::callback_deleted(*app, *id));
            Ok(Reply::Done)
        }
        CallbackWrite::Rotate { app, id, secret, until } => {
            let endpoint = endpoint_of(ledger, *app, *id)?;
            rotate(ledger, now, endpoint, secret, *until)
        }
        CallbackWrite::Replay { app, id, cursor } => {
            let endpoint = endpoint_of(ledger, *app, *id)?;
            replay(ledger, endpoint, *cursor)
        }
        CallbackWrite::Log { rows, through } => {
            // What was looked at before is in the log already, if somebody wanted it.
            if *through > ledger.ahead.callbacks.logged {
                ledger.put_callback_log(rows, *through);
            }
            Ok(Reply::Done)
        }
        CallbackWrite::Report(report) => {
            self::report(ledger, now, report);
            Ok(Reply::Done)
        }
        CallbackWrite::Forget { through, bytes, missed } => {
            for of in missed {
                forget(ledger, *of);
            }
            ledger.forget_callback_log(*through, *bytes);
            Ok(Reply::Done)
        }
    }
}

/// The endpoint goes on after the last that was forgotten of its own app: those of others say nothing of where it is.
fn forget(ledger: &mut Ledger, Missed { id, events, through }: Missed) {
    let Some(endpoint) = ledger.ahead.callbacks.get(id) else { return };
    let before = &*endpoint.progress;
    let progress = CallbackProgress {
        cursor: before.cursor.max(through),
        missed: before.missed + events,
        ..before.clone()
    };
    ledger.put_callback_progress(id, progress);
}

fn endpoint_of(ledger: &Ledger, app: AppId, id: CallbackId) -> Result<Endpoint, Problem> {
    app_of(ledger, app)?;
    let found = ledger.ahead.callbacks.get(id).filter(|endpoint| endpoint.row.app == app);
    found.cloned().ok_or_else(|| problem::not_found("callback"))
}

fn check_description(text: &str) -> Result<(), Problem> {
    if text.len() > DESCRIPTION_BYTES_MAX || text.chars().any(char::is_control) {
        let detail =
            format!("`description` has at most {DESCRIPTION_BYTES_MAX} bytes, in one line");
        return Err(problem::invalid_callback(detail));
    }
    Ok(())
}

fn create(ledger: &mut Ledger, now: Millis, create: &CreateCallback) -> Decided {
    let CreateCallback { app, id, url, events, description, secret } = create;
    app_of(ledger, *app)?;
    if ledger.history.is_none() {
        return Err(problem::callbacks_off().into());
    }
    check_description(description)?;
    let most = ledger.callbacks.endpoints_max;
    if ledger.ahead.callbacks.len() >= most {
        return Err(problem::too_many_callbacks(most).into());
    }
    let row = Arc::new(CallbackRow {
        id: *id,
        app: *app,
        url: url.clone(),
        events: events.clone(),
        description: description.clone(),
        state: CallbackState::Active,
        changed_at: now,
        run: 1,
        secrets: vec![secret.clone()],
        created_at: now,
    });
    ledger.tell(&Event::callback(&row));
    // It is called for what happens from here on.
    let cursor = ledger.ahead.events;
    let progress = Arc::new(CallbackProgress { cursor, ..CallbackProgress::default() });
    put(ledger, Endpoint { row, progress })
}

fn put(ledger: &mut Ledger, endpoint: Endpoint) -> Decided {
    ledger.put_callback(endpoint.clone());
    Ok(Reply::Callback(Box::new(endpoint)))
}

/// Whatever changes, what is under way begins anew, so that nothing goes out by what was said before.
fn patch(ledger: &mut Ledger, now: Millis, edit: &PatchCallback) -> Decided {
    let Endpoint { row, progress } = endpoint_of(ledger, edit.app, edit.id)?;
    let mut after = CallbackRow::clone(&row);
    let mut how_far = CallbackProgress::clone(&progress);
    if let Some(description) = &edit.description {
        check_description(description)?;
        after.description = description.clone();
    }
    if let Some(url) = &edit.url {
        after.url = url.clone();
    }
    if let Some(events) = &edit.events {
        after.events = events.clone();
    }
    match (edit.active, row.state) {
        (Some(true), state) if state != CallbackState::Active => {
            after.state = CallbackState::Active;
            resume(&mut how_far, now);
        }
        (Some(false), CallbackState::Active) => after.state = CallbackState::Admin,
        _ => {}
    }
    if after == *row {
        return Ok(Reply::Callback(Box::new(Endpoint { row, progress })));
    }
    if after.state != row.state {
        after.changed_at = now;
    }
    after.run = row.run.wrapping_add(1);
    let row = Arc::new(after);
    ledger.tell(&Event::callback(&row));
    put(ledger, Endpoint { row, progress: Arc::new(how_far) })
}

/// What waits to be tried again is tried at once, and for as long as what is new.
fn resume(progress: &mut CallbackProgress, now: Millis) {
    progress.failing_since = None;
    for retry in &mut progress.retries {
        (retry.attempts, retry.began, retry.due) = (1, now, now);
    }
}

fn rotate(
    ledger: &mut Ledger,
    now: Millis,
    endpoint: Endpoint,
    secret: &SealedSecret,
    until: Millis,
) -> Decided {
    let mut row = CallbackRow::clone(&endpoint.row);
    let still = |of: &SealedSecret| of.until.is_none_or(|end| end > now);
    let before = row.secrets.iter().filter(|of| still(of)).take(SECRETS_MAX - 1);
    let before = before
        .map(|of| SealedSecret { until: Some(of.until.unwrap_or(until).min(until)), ..of.clone() });
    row.secrets = std::iter::once(secret.clone()).chain(before.filter(still)).collect();
    let row = Arc::new(row);
    ledger.tell(&Event::callback(&row));
    put(ledger, Endpoint { row, ..endpoint })
}

fn replay(ledger: &mut Ledger, endpoint: Endpoint, cursor: u64) -> Decided {
    let mut row = CallbackRow::clone(&endpoint.row);
    row.run = row.run.wrapping_add(1);
    let row = Arc::new(row);
    let mut progress = CallbackProgress::clone(&endpoint.progress);
    progress.cursor = cursor.min(progress.cursor);
    // They come again by themselves.
    progress.retries.retain(|retry| retry.event <= progress.cursor);
    ledger.tell(&Event::callback(&row));
    put(ledger, Endpoint { row, progress: Arc::new(progress) })
}

/// Of a run that is over nothing is taken: the next one began from what is stored.
fn report(ledger: &mut Ledger, now: Millis, report: &CallbackReport) {
    let Some(endpoint) = ledger.ahead.callbacks.get(report.id).cloned() else { return };
    if endpoint.row.run != report.run {
        return;
    }
    let progress = report.report.applied_to(&endpoint.progress);
    match report.report.pause {
        None => ledger.put_callback_progress(report.id, progress),
        Some(state) => {
            let mut row = CallbackRow::clone(&endpoint.row);
            (row.state, row.changed_at, row.run) = (state, now, row.run.wrapping_add(1));
            let row = Arc::new(row);
            ledger.tell(&Event::callback(&row));
            ledger.put_callback(Endpoint { row, progress: Arc::new(progress) });
        }
    }
}
