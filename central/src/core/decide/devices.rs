//! Devices as admins change them.

use std::sync::Arc;

use carillon_expr::Value;
use carillon_world::{
    App, AppId, AttributeId, Change, DeviceId, DevicePrivate, DeviceRow, GroupId, Seq, SetBy,
};

use super::apps::group_of;
use super::{Decided, Fault, app_of, device_of};
use crate::core::input::{GroupRef, ProfileEdit, check_tokens, check_user};
use crate::core::ledger::Ledger;
use crate::core::limits::{DEVICE_ATTRIBUTES_MAX, DEVICE_GROUPS_MAX, REPORT_MAX};
use crate::core::problem::{self, Problem};
use crate::core::write::{MembersReport, Reply};

/// Who asks: what they may set differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setter {
    Server,
    Device,
}

impl Setter {
    pub(super) fn may(self, set_by: SetBy) -> bool {
        match self {
            Setter::Server => set_by.server(),
            Setter::Device => set_by.device(),
        }
    }

    pub(super) fn refusal(self, what: &str, name: &str) -> Problem {
        let who = if self == Setter::Server { "the server" } else { "devices" };
        problem::not_allowed(format!("the app does not let {who} set the {what} {name:?}"))
    }
}

pub(super) fn patch(
    ledger: &mut Ledger,
    app: AppId,
    device: DeviceId,
    edit: &ProfileEdit,
) -> Decided {
    let before = device_of(ledger, app, device)?.clone();
    let row = edited(app_of(ledger, app)?, &before, edit, Setter::Server, ledger.next_seq())?;
    Ok(Reply::Device(put(ledger, &before, row)?))
}

pub(super) fn delete(ledger: &mut Ledger, app: AppId, device: DeviceId) -> Decided {
    device_of(ledger, app, device)?;
    ledger.put(vec![Change::DeviceGone { app, id: device }])?;
    Ok(Reply::Done)
}

/// A device that got another user meanwhile stays.
pub(super) fn erase_user(
    ledger: &mut Ledger,
    app: AppId,
    user: &str,
    devices: &[DeviceId],
) -> Decided {
    let known = app_of(ledger, app)?;
    let theirs =
        |id: &&DeviceId| known.device(**id).is_some_and(|row| row.user.as_deref() == Some(user));
    let gone: Vec<Change> =
        devices.iter().filter(theirs).map(|id| Change::DeviceGone { app, id: *id }).collect();
    let count = gone.len() as u64;
    for change in gone {
        ledger.put(vec![change])?;
    }
    Ok(Reply::Erased(count))
}

/// Every session given so far ends; the device gets another with its secret.
pub(super) fn revoke(ledger: &mut Ledger, app: AppId, device: DeviceId) -> Decided {
    let before = device_of(ledger, app, device)?;
    let row = Arc::new(DeviceRow { generation: ledger.next_seq(), ..DeviceRow::clone(before) });
    ledger.put(vec![Change::Device(row.clone())])?;
    Ok(Reply::Device(row))
}

/// Membership of up to a chunk of devices; each is a write of its own.
pub(super) fn members(
    ledger: &mut Ledger,
    app: AppId,
    group: &GroupRef,
    join: bool,
    devices: &[DeviceId],
) -> Decided {
    let row = group_of(app_of(ledger, app)?, group)?;
    if !Setter::Server.may(row.set_by) {
        return Err(Setter::Server.refusal("group", &row.name).into());
    }
    let group = row.id;
    let mut report = MembersReport::default();
    for &id in devices {
        let Ok(before) = device_of(ledger, app, id) else {
            if report.unknown.len() < REPORT_MAX {
                report.unknown.push(id);
            }
            continue;
        };
        let mut groups = before.groups.to_vec();
        if !set_member(&mut groups, group, join) {
            report.unchanged += 1;
            continue;
        }
        if groups.len() > DEVICE_GROUPS_MAX {
            report.full.push(id);
            continue;
        }
        let row =
            DeviceRow { groups: groups.into(), p: ledger.next_seq(), ..DeviceRow::clone(before) };
        match ledger.grow(vec![Change::Device(Arc::new(row))]) {
            Ok(()) => report.changed += 1,
            Err(Fault::Refused(refused)) => {
                report.refused = Some(refused);
                break;
            }
            Err(broken) => return Err(broken),
        }
    }
    Ok(Reply::Members(report))
}

/// Puts the row unless nothing changed, and gives what holds.
pub(super) fn put(
    ledger: &mut Ledger,
    before: &Arc<DeviceRow>,
    row: DeviceRow,
) -> Result<Arc<DeviceRow>, Fault> {
    if row == **before {
        return Ok(before.clone());
    }
    let row = Arc::new(row);
    ledger.grow(vec![Change::Device(row.clone())])?;
    Ok(row)
}

/// The row after the edit. `p` moves to `seq` only if matching can tell the difference.
pub(super) fn edited(
    app: &App,
    before: &DeviceRow,
    edit: &ProfileEdit,
    by: Setter,
    seq: Seq,
) -> Result<DeviceRow, Problem> {
    let mut row = before.clone();
    if let Some(user) = &edit.user {
        if let Some(user) = user {
            check_user(user)?;
        }
        row.user = user.clone();
    }
    if !edit.attributes.is_empty() {
        let mut attributes = row.attributes.to_vec();
        for (name, value) in &edit.attributes {
            let declared =
                app.attribute_by_name(name).ok_or_else(|| problem::unknown_attribute(name))?;
            if !by.may(declared.set_by) {
                return Err(by.refusal("attribute", name));
            }
            let value = value.as_ref().map(|v| v.to_value(name, declared.kind)).transpose()?;
            set_value(&mut attributes, declared.id, value);
        }
        if attributes.len() > DEVICE_ATTRIBUTES_MAX {
            return Err(too_many_attributes());
        }
        row.attributes = attributes.into();
    }
    if !edit.groups.is_empty() {
        let mut groups = row.groups.to_vec();
        for (name, join) in &edit.groups {
            let group = name.find(app).ok_or_else(|| problem::unknown_group(&name.to_string()))?;
            if !by.may(group.set_by) {
                return Err(by.refusal("group", &group.name));
            }
            set_member(&mut groups, group.id, *join);
        }
        if groups.len() > DEVICE_GROUPS_MAX {
            return Err(too_many_groups());
        }
        row.groups = groups.into();
    }
    if let Some(tokens) = &edit.tokens {
        check_tokens(tokens)?;
        let private = row.private.get_or_insert_default();
        private.tokens.clone_from(tokens);
        if **private == DevicePrivate::default() && before.private.is_none() {
            row.private = None;
        }
    }
    if !row.same_profile(before) {
        row.p = seq;
    }
    Ok(row)
}

pub(super) fn too_many_attributes() -> Problem {
    problem::limit(format!("a device has at most {DEVICE_ATTRIBUTES_MAX} attributes"))
}

pub(super) fn too_many_groups() -> Problem {
    problem::limit(format!("a device is in at most {DEVICE_GROUPS_MAX} groups"))
}

pub(super) fn set_value(
    attributes: &mut Vec<(AttributeId, Value)>,
    id: AttributeId,
    value: Option<Value>,
) {
    match (attributes.binary_search_by_key(&id, |(id, _)| *id), value) {
        (Ok(at), Some(value)) => attributes[at].1 = value,
        (Ok(at), None) => {
            attributes.remove(at);
        }
        (Err(at), Some(value)) => attributes.insert(at, (id, value)),
        (Err(_), None) => {}
    }
}

/// Whether it changed anything.
pub(super) fn set_member(groups: &mut Vec<GroupId>, id: GroupId, join: bool) -> bool {
    match (groups.binary_search(&id), join) {
        (Ok(at), false) => {
            groups.remove(at);
            true
        }
        (Err(at), true) => {
            groups.insert(at, id);
            true
        }
        _ => false,
    }
}
