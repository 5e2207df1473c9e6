//! A chunk of an import: each line is a write of its own, so a bad one leaves its neighbours alone and the chunk may
//! span batches.

use std::sync::Arc;

use carillon_world::{App, AppId, Change, DevicePrivate, DeviceRow, Millis, Seq};

use super::devices::{Setter, check_attributes, set_member, set_value, too_many_groups};
use super::{Decided, Fault, app_of};
use crate::core::budget::Quota;
use crate::core::input::{ImportLine, check_tokens, check_user};
use crate::core::ledger::Ledger;
use crate::core::limits::DEVICE_GROUPS_MAX;
use crate::core::problem::{self, Problem};
use crate::core::write::{BadLine, ImportReport, Reply};

pub(super) fn import(
    ledger: &mut Ledger,
    now: Millis,
    app: AppId,
    lines: &[ImportLine],
) -> Decided {
    app_of(ledger, app)?;
    let mut report = ImportReport::default();
    for line in lines {
        let known = app_of(ledger, app)?;
        let before = known.device(line.id).cloned();
        let row = match imported(ledger, known, before.as_deref(), line, now) {
            Ok(row) => row,
            Err(refused) => {
                report.bad.push(bad(line, refused));
                continue;
            }
        };
        if before.as_deref() == Some(&row) {
            report.unchanged += 1;
            continue;
        }
        match ledger.grow(vec![Change::Device(Arc::new(row))]) {
            Ok(()) if before.is_some() => report.changed += 1,
            Ok(()) => report.created += 1,
            Err(Fault::Refused(refused)) => report.bad.push(bad(line, refused)),
            Err(broken) => return Err(broken),
        }
    }
    Ok(Reply::Imported(report))
}

fn bad(line: &ImportLine, refused: Problem) -> BadLine {
    BadLine { line: line.line, code: refused.code, detail: refused.detail }
}

/// The row that the line makes of the device: its whole profile is replaced.
fn imported(
    ledger: &Ledger,
    app: &App,
    before: Option<&DeviceRow>,
    line: &ImportLine,
    now: Millis,
) -> Result<DeviceRow, Problem> {
    let seq: Seq = ledger.next_seq();
    if before.is_none() {
        ledger.budgets.allow(app, Quota::Devices, 1)?;
    }
    if let Some(user) = &line.user {
        check_user(user)?;
    }
    let mut attributes = Vec::with_capacity(line.attributes.len());
    for (name, value) in &line.attributes {
        let declared =
            app.attribute_by_name(name).ok_or_else(|| problem::unknown_attribute(name))?;
        let value = value.to_value(name, declared.kind)?;
        // An export holds what devices set, too, and has to come in again.
        let held = before.and_then(|row| carillon_expr::Profile::attribute(row, declared.id));
        if !Setter::Server.may(declared.set_by) && held != Some(&value) {
            return Err(Setter::Server.refusal("attribute", name));
        }
        set_value(&mut attributes, declared.id, Some(value));
    }
    check_attributes(&attributes)?;
    let mut groups = Vec::with_capacity(line.groups.len());
    for name in &line.groups {
        let group = name.find(app).ok_or_else(|| problem::unknown_group(&name.to_string()))?;
        let held = before.is_some_and(|row| carillon_expr::Profile::in_group(row, group.id));
        if !Setter::Server.may(group.set_by) && !held {
            return Err(Setter::Server.refusal("group", &group.name));
        }
        set_member(&mut groups, group.id, true);
    }
    if groups.len() > DEVICE_GROUPS_MAX {
        return Err(too_many_groups());
    }
    let held = before.and_then(|row| row.private.as_deref());
    let secret = line.secret.or(held.and_then(|p| p.secret));
    if let Some(secret) = &line.secret
        && ledger.ahead.by_secret(app.row().id, secret).is_some_and(|holder| holder.id != line.id)
    {
        return Err(problem::problem(
            409,
            "secret-taken",
            "Secret taken",
            "another device has this secret",
        ));
    }
    let tokens = match &line.tokens {
        Some(tokens) => {
            check_tokens(tokens)?;
            tokens.clone()
        }
        None => held.map_or_else(Vec::new, |p| p.tokens.clone()),
    };
    let private = DevicePrivate { secret, tokens };
    let private = (private != DevicePrivate::default()).then(|| Box::new(private));
    // Another secret ends the sessions that the former one gave.
    let reset = before.is_none() || secret != held.and_then(|p| p.secret);
    let mut row = DeviceRow {
        id: line.id,
        app: app.row().id,
        generation: before.filter(|_| !reset).map_or(seq, |row| row.generation),
        p: seq,
        created_at: before.map_or(now, |row| row.created_at),
        user: line.user.clone(),
        attributes: attributes.into(),
        groups: groups.into(),
        private,
        last_seen: before.map_or(Millis::ZERO, |row| row.last_seen),
    };
    if let Some(before) = before.filter(|before| before.same_profile(&row)) {
        row.p = before.p;
    }
    Ok(row)
}
