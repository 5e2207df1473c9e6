//! Audiences as callers write them: an edit is tried out first, so that what it would break elsewhere is told to whoever
//! edits, and not met by whoever comes next.

use std::sync::Arc;

use carillon_expr::{AudienceId, Expression, Limits};
use carillon_world::{App, ApplyError, AudienceRow, Batch, Change, Message, World};

use super::budget::Budgets;
use super::problem::{self, Broken, Problem};

/// What audiences may cost. What is there stays, whatever a limit was lowered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudienceLimits {
    pub per_app_max: usize,
    /// Live messages that may use one audience, however indirectly: an edit reads each of them again.
    pub messages_max: usize,
}

impl Default for AudienceLimits {
    fn default() -> AudienceLimits {
        AudienceLimits { per_app_max: 1_000, messages_max: 1_000 }
    }
}

/// Why an audience cannot be written so.
#[derive(Debug)]
pub enum Fault {
    Refused(Problem),
    /// A fault of ours.
    Broken(ApplyError),
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Fault {
        Fault::Refused(problem)
    }
}

/// The world in which the audience says this: `row.from` is the seq that comes next.
///
/// # Errors
/// `audience-breaks` if an expression that uses it would exceed its limits, `audience-reach` if more messages than may
/// would use one audience, `too-many-volatile-messages` if more than may would look at the clock.
pub fn tried(world: &World, budgets: &Budgets, row: &Arc<AudienceRow>) -> Result<World, Fault> {
    let mut trial = world.clone();
    let batch = Batch { first: row.from, changes: vec![Change::Audience(row.clone())] };
    trial.apply(&batch).map_err(Fault::Broken)?;
    if let (Some(before), Some(after)) = (world.app(row.app), trial.app(row.app)) {
        let broken = broken(before, after, row.id, &budgets.expressions);
        if !broken.is_empty() {
            return Err(problem::audience_breaks(&broken).into());
        }
        let volatile = after.volatile_messages().saturating_sub(before.volatile_messages());
        budgets.allow_volatile(before, volatile)?;
        let uses = after.audience(row.id).map_or(&[][..], |of| of.expression().audiences());
        for id in uses.iter().chain([&row.id]) {
            let (had, has) =
                (before.audience_messages(*id).len(), after.audience_messages(*id).len());
            let name = after.audience(*id).map_or("", |of| &of.row().name);
            within(name, has, budgets.audiences.messages_max.max(had))?;
        }
    }
    Ok(trial)
}

/// Whether a message may use what its expression says it uses. `before`: as it is, if it is there.
///
/// # Errors
/// `audience-reach`
pub(crate) fn check_reach(
    app: &App,
    expression: &Expression,
    before: Option<&Message>,
    limits: &AudienceLimits,
) -> Result<(), Problem> {
    for id in expression.audiences() {
        let users = app.audience_messages(*id);
        let counted = before.is_some_and(|of| users.binary_search(&of.row().id).is_ok());
        let name = app.audience(*id).map_or("", |of| &of.row().name);
        if !counted {
            within(name, users.len() + 1, limits.messages_max)?;
        }
    }
    Ok(())
}

fn within(audience: &str, messages: usize, most: usize) -> Result<(), Problem> {
    if messages <= most { Ok(()) } else { Err(problem::audience_reach(audience, messages, most)) }
}

/// What would exceed a limit that it keeps now, or keeps less badly.
fn broken(before: &App, after: &App, id: AudienceId, limits: &Limits) -> Vec<Broken> {
    let mut broken = Vec::new();
    for user in before.audience_audiences(id) {
        let expressions = before.audience(user).zip(after.audience(user));
        let Some((was, is)) = expressions else { continue };
        if let Some(why) = worse(was.expression(), is.expression(), limits) {
            broken.push(Broken::Audience { name: is.row().name.clone(), why });
        }
    }
    for user in before.audience_messages(id) {
        let present = |app: &App| {
            let message = app.message(*user)?;
            message.revisions().last().map(|of| of.expressions().cloned().collect::<Vec<_>>())
        };
        let (was, is) = (present(before).unwrap_or_default(), present(after).unwrap_or_default());
        if let Some(why) = was.iter().zip(&is).find_map(|(was, is)| worse(was, is, limits)) {
            broken.push(Broken::Message { id: *user, why });
        }
    }
    broken
}

fn worse(was: &Expression, is: &Expression, limits: &Limits) -> Option<String> {
    let (nodes, depth) = (is.nodes(), is.audience_depth());
    if nodes > limits.nodes_max.max(was.nodes()) {
        return Some(format!("it would have {nodes} nodes, at most {}", limits.nodes_max));
    }
    if depth > limits.audience_depth_max.max(was.audience_depth()) {
        let most = limits.audience_depth_max;
        return Some(format!("its audiences would be nested {depth} deep, at most {most}"));
    }
    None
}
