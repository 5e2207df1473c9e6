//! Apps, the attributes they declare, and their groups.

use std::sync::Arc;

use carillon_expr::{
    AttributeId, GroupId, Profile as _, Type, valid_attribute_name, valid_group_name,
};
use carillon_world::{
    App, AppId, AppRow, AttributeRow, Change, Environment, GroupRow, Millis, Quotas, SetBy,
};

use super::{Decided, app_of};
use crate::core::budget::Quota;
use crate::core::input::GroupRef;
use crate::core::ledger::Ledger;
use crate::core::limits::{APP_NAME_BYTES_MAX, APPS_MAX, ATTRIBUTES_PER_APP_MAX};
use crate::core::problem::{self, Problem};
use crate::core::write::{QuotaEdit, Reply};

pub(super) fn create(
    ledger: &mut Ledger,
    now: Millis,
    id: AppId,
    name: &Arc<str>,
    environment: Environment,
    publishable_key: &Arc<str>,
) -> Decided {
    if name.trim().is_empty()
        || name.len() > APP_NAME_BYTES_MAX
        || name.chars().any(char::is_control)
    {
        return Err(
            problem::invalid(format!("an app's name has 1 to {APP_NAME_BYTES_MAX} bytes")).into()
        );
    }
    let world = ledger.world();
    if world.app_by_name(name).is_some() {
        return Err(problem::exists(format!("there is an app {name:?}")).into());
    }
    if world.apps().count() >= APPS_MAX {
        return Err(problem::limit(format!("a shard has at most {APPS_MAX} apps")).into());
    }
    let row = Arc::new(AppRow {
        id,
        name: name.clone(),
        environment,
        publishable_key: publishable_key.clone(),
        created_at: now,
        quotas: Quotas::default(),
        push: None,
    });
    ledger.grow(vec![Change::App(row.clone())])?;
    Ok(Reply::App(row))
}

/// A quota below what the app has takes nothing away: it only keeps more from coming.
pub(super) fn set_quotas(ledger: &mut Ledger, app: AppId, edit: &QuotaEdit) -> Decided {
    let before = app_of(ledger, app)?.row();
    let quotas = edit.applied_to(before.quotas);
    if quotas == before.quotas {
        return Ok(Reply::App(before.clone()));
    }
    let row = Arc::new(AppRow { quotas, ..AppRow::clone(before) });
    ledger.put(vec![Change::App(row.clone())])?;
    Ok(Reply::App(row))
}

pub(super) fn declare(
    ledger: &mut Ledger,
    app: AppId,
    id: AttributeId,
    name: &Arc<str>,
    kind: Type,
    set_by: SetBy,
) -> Decided {
    let known = app_of(ledger, app)?;
    let id = match known.attribute_by_name(name) {
        Some(row) if row.kind == kind && row.set_by == set_by => {
            return Ok(Reply::Attribute(row.clone()));
        }
        Some(row) => {
            if row.kind != kind {
                unreferenced(known, row)?;
            }
            row.id
        }
        None => {
            if !valid_attribute_name(name) {
                let detail = format!(
                    "{name:?} cannot be an attribute's name: letters, digits and `_`, no reserved word"
                );
                return Err(problem::invalid(detail).into());
            }
            if known.attributes().count() >= ATTRIBUTES_PER_APP_MAX {
                return Err(problem::limit(format!(
                    "an app has at most {ATTRIBUTES_PER_APP_MAX} attributes"
                ))
                .into());
            }
            id
        }
    };
    let row = Arc::new(AttributeRow { id, app, name: name.clone(), kind, set_by });
    ledger.grow(vec![Change::Attribute(row.clone())])?;
    Ok(Reply::Attribute(row))
}

pub(super) fn delete_attribute(ledger: &mut Ledger, app: AppId, name: &str) -> Decided {
    let known = app_of(ledger, app)?;
    let row = known.attribute_by_name(name).ok_or_else(|| problem::not_found("attribute"))?;
    unreferenced(known, row)?;
    let id = row.id;
    ledger.put(vec![Change::AttributeGone { app, id }])?;
    Ok(Reply::Done)
}

/// What a retained revision refers to, or a device has a value of, is neither deleted nor retyped. Looks at every
/// device of the app: rare, and about 50 ms a million.
fn unreferenced(app: &App, row: &AttributeRow) -> Result<(), Problem> {
    let references = app.references_attribute(row.id);
    if !references.is_empty() {
        return Err(problem::referenced("attribute", app, &references));
    }
    if app.devices().any(|device| device.attribute(row.id).is_some()) {
        return Err(problem::in_use("devices have a value of this attribute"));
    }
    Ok(())
}

pub(super) fn create_group(
    ledger: &mut Ledger,
    app: AppId,
    id: GroupId,
    name: &Arc<str>,
    set_by: SetBy,
) -> Decided {
    let known = app_of(ledger, app)?;
    free_group_name(known, name)?;
    ledger.budgets.allow(known, Quota::Groups, 1)?;
    let row = Arc::new(GroupRow { id, app, name: name.clone(), set_by });
    ledger.grow(vec![Change::Group(row.clone())])?;
    Ok(Reply::Group { row, members: 0 })
}

pub(super) fn rename_group(
    ledger: &mut Ledger,
    app: AppId,
    group: &GroupRef,
    name: &Arc<str>,
) -> Decided {
    let known = app_of(ledger, app)?;
    let before = group_of(known, group)?;
    let members = known.group_members(before.id);
    if before.name == *name {
        return Ok(Reply::Group { row: before.clone(), members });
    }
    free_group_name(known, name)?;
    let row = Arc::new(GroupRow { name: name.clone(), ..GroupRow::clone(before) });
    ledger.grow(vec![Change::Group(row.clone())])?;
    Ok(Reply::Group { row, members })
}

pub(super) fn delete_group(ledger: &mut Ledger, app: AppId, group: &GroupRef) -> Decided {
    let known = app_of(ledger, app)?;
    let id = group_of(known, group)?.id;
    let references = known.references_group(id);
    if !references.is_empty() {
        return Err(problem::referenced("group", known, &references).into());
    }
    let members = known.group_members(id);
    if members > 0 {
        return Err(
            problem::in_use(format!("the group has {members} members; remove them first")).into()
        );
    }
    ledger.put(vec![Change::GroupGone { app, id }])?;
    Ok(Reply::Done)
}

pub(super) fn group_of<'a>(app: &'a App, group: &GroupRef) -> Result<&'a Arc<GroupRow>, Problem> {
    group.find(app).ok_or_else(|| problem::not_found("group"))
}

fn free_group_name(app: &App, name: &str) -> Result<(), Problem> {
    if !valid_group_name(name) {
        return Err(problem::invalid(format!(
            "{name:?} cannot be a group's name: 1 to 64 letters, digits and `_ - . : /`, not beginning with `:`"
        )));
    }
    match app.group_by_name(name) {
        Some(_) => Err(problem::exists(format!("there is a group {name:?}"))),
        None => Ok(()),
    }
}
