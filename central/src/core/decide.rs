//! Decides one write against everything decided before it.
//!
//! Each function looks, refuses or puts its changes, and answers. What it refuses may rest on a change that is not
//! committed yet, so the writer holds refusals back as it holds back everything else.

mod apps;
mod audiences;
mod callbacks;
mod devices;
mod import;
mod messages;
mod push;
mod selves;

use std::sync::Arc;

use carillon_world::{App, AppId, ApplyError, DeviceId, DeviceRow, Millis};

use super::ledger::Ledger;
use super::problem::{self, Problem};
use super::write::{CallbackWrite, Reply, Write};

/// Why a write did not go through.
#[derive(Debug)]
pub(crate) enum Fault {
    Refused(Problem),
    /// A fault of ours: what is ahead has to be made again.
    Broken(ApplyError),
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Fault {
        Fault::Refused(problem)
    }
}

impl From<ApplyError> for Fault {
    fn from(error: ApplyError) -> Fault {
        Fault::Broken(error)
    }
}

pub(crate) type Decided = Result<Reply, Fault>;

pub(crate) fn decide(ledger: &mut Ledger, now: Millis, write: &Write) -> Decided {
    // A recall is what cannot wait, and a message has one.
    let is_let = matches!(
        write,
        Write::PushReport(_)
            | Write::Pseudonyms(_)
            | Write::HistorySent { .. }
            | Write::Session { .. }
            | Write::RecallMessage { .. }
    ) || matches!(write, Write::Callback(write) if !matches!(**write, CallbackWrite::Create(_) | CallbackWrite::Patch(_)));
    if ledger.is_history_full() && !is_let {
        return Err(problem::history_full().into());
    }
    match write {
        Write::CreateApp { id, name, environment, publishable_key } => {
            apps::create(ledger, now, *id, name, *environment, publishable_key)
        }
        Write::SetQuotas { app, edit } => apps::set_quotas(ledger, *app, edit),
        Write::SetCredential { app, channel, credential } => {
            push::set_credential(ledger, *app, *channel, credential.as_ref())
        }
        Write::SetPushSettings { app, settings } => push::set_settings(ledger, *app, *settings),
        Write::PushReport(report) => push::report(ledger, now, report),
        Write::Pseudonyms(rows) => {
            ledger.put_pseudonyms(rows);
            Ok(Reply::Done)
        }
        Write::HistorySent { forget, bytes } => {
            ledger.forget_outbox(forget, *bytes);
            Ok(Reply::Done)
        }
        Write::Callback(write) => callbacks::decide(ledger, now, write),
        Write::DeclareAttribute { app, id, name, kind, set_by } => {
            apps::declare(ledger, *app, *id, name, *kind, *set_by)
        }
        Write::DeleteAttribute { app, name } => apps::delete_attribute(ledger, *app, name),
        Write::CreateGroup { app, id, name, set_by } => {
            apps::create_group(ledger, *app, *id, name, *set_by)
        }
        Write::RenameGroup { app, group, name } => apps::rename_group(ledger, *app, group, name),
        Write::DeleteGroup { app, group } => apps::delete_group(ledger, *app, group),
        Write::PutAudience(put) => audiences::put(ledger, now, put),
        Write::RenameAudience { app, audience, name, if_match } => {
            audiences::rename(ledger, *app, audience, name, *if_match)
        }
        Write::DeleteAudience { app, audience, if_match } => {
            audiences::delete(ledger, *app, audience, *if_match)
        }
        Write::Members { app, group, join, devices } => {
            devices::members(ledger, *app, group, *join, devices)
        }
        Write::ImportDevices { app, lines } => import::import(ledger, now, *app, lines),
        Write::PatchDevice { app, device, edit } => devices::patch(ledger, *app, *device, edit),
        Write::DeleteDevice { app, device } => devices::delete(ledger, *app, *device),
        Write::EraseUser { app, user, devices } => devices::erase_user(ledger, *app, user, devices),
        Write::RevokeDevice { app, device } => devices::revoke(ledger, *app, *device),
        Write::CreateMessage(create) => messages::create(ledger, now, create),
        Write::EditMessage(edit) => messages::edit(ledger, now, edit),
        Write::RecallMessage { app, id } => messages::recall(ledger, *app, *id),
        Write::Enrol { publishable_key, device, secret, profile } => {
            for_device(selves::enrol(ledger, now, publishable_key, *device, *secret, profile))
        }
        Write::Session { app, device, secret } => {
            Ok(selves::session(&ledger.committed, *app, *device, secret)?)
        }
        Write::PatchSelf { app, device, generation, edit } => {
            for_device(selves::patch(ledger, now, (*app, *device, *generation), edit))
        }
        Write::Forget { app, device, generation } => {
            selves::forget(ledger, *app, *device, *generation)
        }
        Write::Receipts { app, device, generation, receipts } => {
            selves::receipts(ledger, now, (*app, *device, *generation), receipts)
        }
        Write::Seen { app, devices } => selves::seen(ledger, now, *app, devices),
        Write::Delivered { app, devices } => selves::delivered(ledger, now, *app, devices),
        Write::ReceiptBatch { devices } => selves::receipt_batch(ledger, now, devices),
    }
}

fn for_device(decided: Decided) -> Decided {
    decided.map_err(|fault| match fault {
        Fault::Refused(problem) => Fault::Refused(problem::for_device(problem)),
        broken @ Fault::Broken(_) => broken,
    })
}

fn app_of(ledger: &Ledger, app: AppId) -> Result<&App, Problem> {
    ledger.world().app(app).ok_or_else(|| problem::not_found("app"))
}

fn device_of(ledger: &Ledger, app: AppId, device: DeviceId) -> Result<&Arc<DeviceRow>, Problem> {
    app_of(ledger, app)?.device(device).ok_or_else(|| problem::not_found("device"))
}
