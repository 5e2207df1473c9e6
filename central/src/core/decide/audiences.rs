//! Audiences: write, rename, delete.

use std::sync::Arc;

use carillon_expr::{AudienceId, valid_group_name};
use carillon_world::{App, AppId, Audience, AudienceRow, Change, Millis, World};

use super::{Decided, Fault, app_of};
use crate::core::audience::{self, tried};
use crate::core::expression;
use crate::core::ledger::Ledger;
use crate::core::limits::AUDIENCE_REVISIONS_BYTES_MAX;
use crate::core::problem::{self, Problem};
use crate::core::write::{PutAudience, Reply};

/// Creates the audience or edits what it says; the same again changes nothing.
pub(super) fn put(ledger: &mut Ledger, now: Millis, put: &PutAudience) -> Decided {
    let app = app_of(ledger, put.app)?;
    let before = app.audience_by_name(&put.name);
    match before {
        Some(before) => matches(put.if_match, before)?,
        None => {
            if put.if_match.is_some() {
                let detail = "there is no such audience";
                return Err(problem::revision_mismatch(detail).into());
            }
            free_name(app, &put.name)?;
            let most = ledger.budgets.audiences.per_app_max;
            if app.audience_count() >= most {
                return Err(problem::too_many_audiences(most).into());
            }
        }
    }
    let id = before.map_or(put.id, |before| before.row().id);
    let limits = &ledger.budgets.expressions;
    let expression = expression::read_audience(id, &put.expression, app, limits)?;
    let (stored, text) = (expression.to_stored(), expression.to_text(app));
    let mut revision = 1;
    if let Some(before) = before {
        if *before.row().expression == *stored {
            let row = before.row().clone();
            return Ok(Reply::Audience { row, expression: text, created: false });
        }
        let kept: usize = before.revisions().iter().map(|said| said.text().len()).sum();
        if kept + stored.len() > AUDIENCE_REVISIONS_BYTES_MAX {
            return Err(problem::limit(
                "the audience was edited so often that no more can be remembered; wait until its older edits are \
                 purged",
            )
            .into());
        }
        revision = next_revision(before)?;
    }
    let (app, name, from) = (put.app, put.name.clone(), ledger.next_seq());
    let expression = stored.into();
    let row = Arc::new(AudienceRow { id, app, name, revision, from, expression });
    let trial = tried(ledger.world(), &ledger.budgets, &row).map_err(|fault| match fault {
        audience::Fault::Refused(problem) => Fault::Refused(problem),
        audience::Fault::Broken(error) => Fault::Broken(error),
    })?;
    // One edit can grow the world by a revision of a thousand messages, so it is always asked.
    ledger.budgets.admit(&ledger.world().usage(), &trial.usage())?;
    // Messages that begin to look at the clock are judged by the time at which they did.
    let volatile = |world: &World| world.app(put.app).map_or(0, App::volatile_messages);
    let follows = volatile(&trial) > volatile(ledger.world());
    let clock = ledger.clock(now).filter(|_| follows);
    ledger.put([Change::Audience(row.clone())].into_iter().chain(clock).collect())?;
    Ok(Reply::Audience { row, expression: text, created: revision == 1 })
}

pub(super) fn rename(
    ledger: &mut Ledger,
    app: AppId,
    audience: &str,
    name: &Arc<str>,
    if_match: Option<u32>,
) -> Decided {
    let known = app_of(ledger, app)?;
    let before = audience_of(known, audience)?;
    matches(if_match, before)?;
    let text = before.expression().to_text(known);
    if before.row().name == *name {
        let row = before.row().clone();
        return Ok(Reply::Audience { row, expression: text, created: false });
    }
    free_name(known, name)?;
    let revision = next_revision(before)?;
    let row = AudienceRow { name: name.clone(), revision, ..AudienceRow::clone(before.row()) };
    let row = Arc::new(row);
    ledger.grow(vec![Change::Audience(row.clone())])?;
    Ok(Reply::Audience { row, expression: text, created: false })
}

pub(super) fn delete(
    ledger: &mut Ledger,
    app: AppId,
    audience: &str,
    if_match: Option<u32>,
) -> Decided {
    let known = app_of(ledger, app)?;
    let before = audience_of(known, audience)?;
    matches(if_match, before)?;
    let id: AudienceId = before.row().id;
    let references = known.references_audience(id);
    if !references.is_empty() {
        return Err(problem::referenced("audience", known, &references).into());
    }
    ledger.put(vec![Change::AudienceGone { app, id }])?;
    Ok(Reply::Done)
}

fn audience_of<'a>(app: &'a App, name: &str) -> Result<&'a Audience, Problem> {
    app.audience_by_name(name).ok_or_else(|| problem::not_found("audience"))
}

fn matches(if_match: Option<u32>, audience: &Audience) -> Result<(), Problem> {
    let revision = audience.row().revision;
    if if_match.is_some_and(|wanted| wanted != revision) {
        return Err(problem::revision_mismatch(format!("the audience is at revision {revision}")));
    }
    Ok(())
}

fn next_revision(audience: &Audience) -> Result<u32, Problem> {
    let next = audience.row().revision.checked_add(1);
    next.ok_or_else(|| problem::limit("the audience has too many revisions"))
}

fn free_name(app: &App, name: &str) -> Result<(), Problem> {
    if !valid_group_name(name) {
        return Err(problem::invalid(format!(
            "{name:?} cannot be an audience's name: 1 to 64 letters, digits and `_ - . : /`, not beginning with `:`"
        )));
    }
    match app.audience_by_name(name) {
        Some(_) => Err(problem::exists(format!("there is an audience {name:?}"))),
        None => Ok(()),
    }
}
