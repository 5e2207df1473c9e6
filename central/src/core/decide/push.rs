//! What an app's pushes need, and how far they are.

use std::sync::Arc;

use carillon_persist::{JobState, PushJobRow, RunKind};
use carillon_world::{
    AppId, AppPush, AppRow, Change, DevicePrivate, DeviceRow, Millis, PushChannel, PushSettings,
    SealedCredential,
};

use super::{Decided, app_of};
use crate::core::funnel::{Counter, Skip};
use crate::core::history::Event;
use crate::core::ledger::Ledger;
use crate::core::problem;
use crate::core::push::jobs::{self, JobKey};
use crate::core::push::policy;
use crate::core::push::report::{Progress, PushReport};
use crate::core::write::Reply;

/// `None` takes the credential away. What is being pushed with it stops until there is another.
pub(super) fn set_credential(
    ledger: &mut Ledger,
    app: AppId,
    channel: PushChannel,
    credential: Option<&SealedCredential>,
) -> Decided {
    let before = app_of(ledger, app)?.row();
    let mut push = before.push.as_deref().cloned().unwrap_or_default();
    match credential {
        Some(of) => {
            push.credentials.insert(channel, of.clone());
        }
        None => {
            if push.credentials.remove(&channel).is_none() {
                return Err(problem::not_found("credential").into());
            }
        }
    }
    put(ledger, app, push)
}

pub(super) fn set_settings(ledger: &mut Ledger, app: AppId, settings: PushSettings) -> Decided {
    policy::check_settings(&settings)?;
    let before = app_of(ledger, app)?.row();
    let push = AppPush { settings, ..before.push.as_deref().cloned().unwrap_or_default() };
    put(ledger, app, push)
}

fn put(ledger: &mut Ledger, app: AppId, push: AppPush) -> Decided {
    let before = app_of(ledger, app)?.row();
    let row = Arc::new(AppRow { push: Some(Arc::new(push)), ..AppRow::clone(before) });
    if row != *before {
        ledger.put(vec![Change::App(row.clone())])?;
    }
    Ok(Reply::App(row))
}

/// A report of a run that is not the job's any more is only counted; a repeat changes nothing.
pub(super) fn report(ledger: &mut Ledger, now: Millis, report: &PushReport) -> Decided {
    let key = report.key;
    let Some(job) = ledger.ahead.jobs.get(key).cloned() else { return Ok(Reply::Done) };
    let is_current = job.run == report.run && job.is_live();
    let is_last = report.progress == Progress::Superseded;
    if is_current && !is_last && report.number != job.reports + 1 {
        return Ok(Reply::Done);
    }
    if !is_current && !is_last {
        return Ok(Reply::Done);
    }
    remove_tokens(ledger, now, report)?;
    count(ledger, now, report);
    let cap = app_of(ledger, key.app)?.row().push.as_ref().and_then(|push| push.settings.cap);
    for device in report.pushed.iter().filter(|_| report.kind == RunKind::Send) {
        if let Some(cap) = cap
            && ledger.world().app(key.app).is_some_and(|app| app.device(*device).is_some())
        {
            ledger.put_pushed(key.app, *device, cap);
        }
    }
    if is_current && let Some(job) = after_report(ledger, &job, report, now) {
        ledger.put_job(job);
    }
    Ok(Reply::Done)
}

fn after_report(
    ledger: &Ledger,
    job: &PushJobRow,
    report: &PushReport,
    now: Millis,
) -> Option<PushJobRow> {
    let reported =
        PushJobRow { reports: report.number, retries: report.retries.clone(), ..job.clone() };
    let mut after = match report.progress {
        Progress::Superseded => return None,
        Progress::Stopped if job.state != JobState::Stopping => return None,
        Progress::Stopped => {
            let app = ledger.world().app(job.app);
            let recalled = app.and_then(|app| app.message(job.message))?.changed();
            return Some(jobs::withdrawn(job, recalled, now));
        }
        Progress::Within { after, next_due } => PushJobRow { after, next_due, ..reported },
        Progress::Passed { next_due } => PushJobRow {
            due_from: job.due_to.unwrap_or(job.due_from),
            due_to: next_due,
            after: None,
            next_due: None,
            ..reported
        },
    };
    if after.state == JobState::Sending && after.due_to.is_none() && after.retries.is_empty() {
        after.state = JobState::Done;
    }
    Some(after)
}

/// One change a device, each for itself: a report may name more than a batch holds.
fn remove_tokens(
    ledger: &mut Ledger,
    now: Millis,
    report: &PushReport,
) -> Result<(), carillon_world::ApplyError> {
    let JobKey { app, channel, message } = report.key;
    let mut removed = 0;
    for (device, token) in &report.gone {
        let row = ledger.world().app(app).and_then(|app| app.device(*device));
        let Some((row, private)) = row.and_then(|row| Some((row, row.private.as_deref()?))) else {
            continue;
        };
        let is_it = |of: &carillon_world::PushToken| of.channel == channel && of.token == *token;
        if !private.tokens.iter().any(is_it) {
            continue;
        }
        let tokens = private.tokens.iter().filter(|of| !is_it(of)).cloned().collect();
        let private = Some(Box::new(DevicePrivate { tokens, ..private.clone() }));
        let row = DeviceRow { private, ..DeviceRow::clone(row) };
        ledger.put(vec![Change::Device(Arc::new(row))])?;
        ledger.tell(&Event::token_removed(report, *device));
        removed += 1;
    }
    if removed > 0 {
        ledger.count(now, app, message, Counter::Removed(channel), removed);
    }
    Ok(())
}

fn count(ledger: &mut Ledger, now: Millis, report: &PushReport) {
    let JobKey { app, channel, message } = report.key;
    let counts = &report.counts;
    if !counts.is_empty() || !report.gone.is_empty() {
        ledger.tell(&Event::pushed(report));
    }
    let pushed = match report.kind {
        RunKind::Send => Counter::Pushed(channel),
        RunKind::Withdraw => Counter::WithdrawPushed(channel),
    };
    let failed =
        counts.failed.iter().map(|(reason, n)| (Counter::Failed(channel, reason.0.into()), *n));
    let others = [
        (pushed, counts.accepted),
        (Counter::Skipped(Skip::Quiet), counts.quiet),
        (Counter::Skipped(Skip::Capped), counts.capped),
    ];
    for (counter, n) in failed.chain(others).filter(|(_, n)| *n > 0) {
        ledger.count(now, app, message, counter, n);
    }
}
