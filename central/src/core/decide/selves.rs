//! What devices ask for themselves, through an edge: enrolment, sessions, their own profile, receipts.
//!
//! A session proves a generation, and it is compared here again: the edge may lag behind a revocation.

use std::collections::BTreeSet;
use std::sync::Arc;

use carillon_persist::ReceiptRow;
use carillon_world::{
    AppId, ApplyError, Change, DeviceId, DevicePrivate, DeviceRow, Millis, Position, SecretHash,
    Seq,
};
use carillon_world::{
    DELIVERED_DEVICES_MAX, DeviceReceipts, Judgement, RECEIPT_DEVICES_MAX, Receipt, ReceiptKind,
    SEEN_DEVICES_MAX, Stored,
};
use subtle::ConstantTimeEq;

use super::devices::{Setter, edited, put};
use super::{Decided, Fault, app_of};
use crate::core::books::Mark;
use crate::core::budget::Quota;
use crate::core::history::Event;
use crate::core::input::ProfileEdit;
use crate::core::ledger::Ledger;
use crate::core::limits::{ACTION_BYTES_MAX, RECEIPTS_MAX};
use crate::core::problem::{self, Problem};
use crate::core::state::State;
use crate::core::write::Reply;

/// A repeat with the same secret finds the device that the first one made, and leaves its profile as it is.
pub(super) fn enrol(
    ledger: &mut Ledger,
    now: Millis,
    publishable_key: &str,
    id: DeviceId,
    secret: SecretHash,
    profile: &ProfileEdit,
) -> Decided {
    let Some(app) = ledger.world().app_by_key(publishable_key) else {
        let detail = "no app has this publishable key";
        return Err(problem::problem(401, "unknown-app", "Unknown app", detail).into());
    };
    let app_id = app.row().id;
    if let Some(row) = ledger.ahead.by_secret(app_id, &secret) {
        let generation = ledger.position_of(row.generation);
        return Ok(Reply::Enrolled { app: app_id, device: row.id, generation, created: false });
    }
    if app.device(id).is_some() {
        // Two random ids of 64 bits met; the caller draws again.
        return Err(problem::internal().into());
    }
    ledger.budgets.allow(app, Quota::Devices, 1)?;
    let seq = ledger.next_seq();
    let empty = DeviceRow {
        id,
        app: app_id,
        generation: seq,
        p: seq,
        created_at: now,
        user: None,
        attributes: Box::default(),
        groups: Box::default(),
        private: Some(Box::new(DevicePrivate { secret: Some(secret), tokens: Vec::new() })),
        last_seen: Millis::ZERO,
    };
    let row = edited(app, &empty, profile, Setter::Device, seq)?;
    ledger.grow(vec![Change::Device(Arc::new(row))])?;
    let generation = ledger.position_of(seq);
    Ok(Reply::Enrolled { app: app_id, device: id, generation, created: true })
}

/// Answered from what is committed: a session must not name a generation that may yet be lost.
pub(super) fn session(
    committed: &State,
    app: AppId,
    device: DeviceId,
    secret: &SecretHash,
) -> Result<Reply, Problem> {
    let world = &committed.world;
    let row = world.app(app).and_then(|a| a.device(device)).ok_or_else(problem::unknown_device)?;
    let held = row.private.as_ref().and_then(|p| p.secret);
    if !held.is_some_and(|held| bool::from(held.0.ct_eq(&secret.0))) {
        return Err(problem::bad_session());
    }
    let epoch = world.lineage().epoch_at(row.generation);
    Ok(Reply::Session { generation: Position { shard: world.shard(), epoch, seq: row.generation } })
}

pub(super) fn patch(
    ledger: &mut Ledger,
    now: Millis,
    (app, device, generation): (AppId, DeviceId, Seq),
    edit: &ProfileEdit,
) -> Decided {
    let before = own(ledger, app, device, generation)?.clone();
    let row = edited(app_of(ledger, app)?, &before, edit, Setter::Device, ledger.next_seq())?;
    put(ledger, &before, row)?;
    came_by(ledger, now, app, device)?;
    Ok(Reply::Done)
}

pub(super) fn forget(
    ledger: &mut Ledger,
    app: AppId,
    device: DeviceId,
    generation: Seq,
) -> Decided {
    own(ledger, app, device, generation)?;
    ledger.put(vec![Change::DeviceGone { app, id: device }])?;
    Ok(Reply::Done)
}

/// Only receipts for messages that are or were addressed to the device count; the answer is the same for all, so
/// that it tells nothing. Those for volatile messages all count: who had one at which time is kept nowhere.
pub(super) fn receipts(
    ledger: &mut Ledger,
    now: Millis,
    (app, device, generation): (AppId, DeviceId, Seq),
    receipts: &[Receipt],
) -> Decided {
    let row = own(ledger, app, device, generation)?.clone();
    let long =
        |r: &Receipt| matches!(&r.kind, ReceiptKind::Action(a) if a.len() > ACTION_BYTES_MAX);
    if receipts.len() > RECEIPTS_MAX || receipts.iter().any(long) {
        return Err(problem::too_large(format!(
            "at most {RECEIPTS_MAX} receipts, each with an action of at most {ACTION_BYTES_MAX} bytes"
        ))
        .into());
    }
    let clock = ledger.world().clock();
    let known = app_of(ledger, app)?;
    let addressed = |receipt: &&Receipt| {
        let message = known.message(receipt.message);
        message.is_some_and(|m| {
            m.revisions().iter().any(|revision| {
                let volatile = revision.is_active() && revision.is_volatile();
                volatile || revision.addresses(&row, clock).is_some()
            })
        })
    };
    let addressed: Vec<&Receipt> = receipts.iter().filter(addressed).collect();
    let marks: Vec<_> = addressed.iter().map(|r| (r.message, mark_of(&r.kind))).collect();
    let counted: Vec<_> = addressed
        .into_iter()
        .map(|r| {
            let (id, message, at) = (r.id, r.message, r.at);
            ReceiptRow { app, device, id, message, kind: kind(&r.kind), at }
        })
        .collect();
    if !counted.is_empty() {
        counted.iter().for_each(|row| ledger.tell(&Event::receipt(row)));
        ledger.open().receipts.extend(counted);
        for (message, mark) in marks {
            ledger.mark(now, (app, device), message, mark);
        }
    }
    came_by(ledger, now, app, device)?;
    Ok(Reply::Done)
}

/// Each device's receipts by themselves.
pub(super) fn receipt_batch(
    ledger: &mut Ledger,
    now: Millis,
    devices: &[DeviceReceipts],
) -> Decided {
    if devices.len() > RECEIPT_DEVICES_MAX {
        let detail = format!("a request has the receipts of at most {RECEIPT_DEVICES_MAX} devices");
        return Err(problem::too_large(detail).into());
    }
    let mut outcomes = Vec::with_capacity(devices.len());
    for DeviceReceipts { app, device, generation, receipts: of_device } in devices {
        match receipts(ledger, now, (*app, *device, *generation), of_device) {
            Ok(_) => outcomes.push(None),
            Err(Fault::Refused(problem)) => outcomes.push(Some(problem)),
            Err(broken @ Fault::Broken(_)) => return Err(broken),
        }
    }
    Ok(Reply::Receipts(outcomes))
}

/// What a device had at a position is known only while its profile is that of the position, and above the horizon; else
/// the device's next report says it. A position that is not in the past of what is committed says nothing.
pub(super) fn delivered(
    ledger: &mut Ledger,
    now: Millis,
    app: AppId,
    devices: &[Stored],
) -> Decided {
    if devices.len() > DELIVERED_DEVICES_MAX {
        let detail = format!("a report has at most {DELIVERED_DEVICES_MAX} devices");
        return Err(problem::too_large(detail).into());
    }
    app_of(ledger, app)?;
    for Stored { device, at, volatile } in devices {
        let committed = &ledger.committed.world;
        if at.shard != committed.shard() || committed.judge(*at) != Judgement::Past {
            continue;
        }
        let world = ledger.world();
        let row = world.app(app).and_then(|app| app.device(*device)).cloned();
        let above = at.seq >= world.horizon();
        if let Some(row) = row.filter(|row| above && row.p <= at.seq) {
            ledger.stored(now, &row, at.seq, *volatile);
        }
    }
    Ok(Reply::Done)
}

/// Reports come within seconds, so an hour that is neither this one nor the last is the fault of an edge's clock, and
/// what counts is that the device came by.
pub(super) fn seen(
    ledger: &mut Ledger,
    now: Millis,
    app: AppId,
    devices: &[(DeviceId, u32)],
) -> Decided {
    if devices.len() > SEEN_DEVICES_MAX {
        let detail = format!("a report has at most {SEEN_DEVICES_MAX} devices");
        return Err(problem::too_large(detail).into());
    }
    let known = app_of(ledger, app)?;
    // Those of the last hour first, so that each is later than what is known.
    let (mut last, mut this) = (BTreeSet::new(), BTreeSet::new());
    for &(device, hour) in devices {
        let (of_hour, at) = if hour < now.hour() {
            (&mut last, last_hour(now))
        } else {
            (&mut this, this_hour(now))
        };
        if known.device(device).is_some_and(|row| row.last_seen < at) {
            of_hour.insert(device);
        }
    }
    for (devices, at) in [(last, last_hour(now)), (this, this_hour(now))] {
        if !devices.is_empty() {
            let devices = devices.into_iter().collect();
            ledger.put(vec![Change::Seen { app, at, devices }])?;
        }
    }
    Ok(Reply::Done)
}

fn this_hour(now: Millis) -> Millis {
    Millis::of_hour(now.hour())
}

fn last_hour(now: Millis) -> Millis {
    Millis::of_hour(now.hour().saturating_sub(1))
}

/// A write of its own shows that a device is there, without its edge's report.
fn came_by(
    ledger: &mut Ledger,
    now: Millis,
    app: AppId,
    device: DeviceId,
) -> Result<(), ApplyError> {
    let at = this_hour(now);
    let known = ledger.world().app(app).and_then(|app| app.device(device));
    if known.is_some_and(|row| row.last_seen < at) {
        ledger.put(vec![Change::Seen { app, at, devices: vec![device] }])?;
    }
    Ok(())
}

fn mark_of(kind: &ReceiptKind) -> Mark {
    match kind {
        ReceiptKind::Displayed => Mark::Displayed,
        ReceiptKind::Opened => Mark::Opened,
        ReceiptKind::Dismissed => Mark::Dismissed,
        ReceiptKind::Action(_) => Mark::Action,
    }
}

/// As the store keeps it.
fn kind(kind: &ReceiptKind) -> String {
    match kind {
        ReceiptKind::Displayed => "displayed".to_owned(),
        ReceiptKind::Opened => "opened".to_owned(),
        ReceiptKind::Dismissed => "dismissed".to_owned(),
        ReceiptKind::Action(action) => format!("action:{action}"),
    }
}

fn own(
    ledger: &Ledger,
    app: AppId,
    device: DeviceId,
    generation: Seq,
) -> Result<&Arc<DeviceRow>, Problem> {
    let known = ledger.world().app(app).and_then(|a| a.device(device));
    let row = known.ok_or_else(problem::unknown_device)?;
    if row.generation == generation { Ok(row) } else { Err(problem::bad_session()) }
}
