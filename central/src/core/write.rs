//! The writes that a shard's writer decides, and what it answers.
//!
//! A write carries everything that chance decides (ids, keys), so that deciding it again after a failed batch gives
//! the same names.

use std::sync::Arc;

use carillon_expr::{AttributeId, AudienceId, GroupId, Type};
use carillon_persist::history::{ForgetOutbox, PseudonymRow};
use carillon_persist::{CallbackId, CallbackLogRow, SealedSecret};
use carillon_world::{
    AppId, AppRow, AttributeRow, AudienceRow, DeviceId, DeviceRow, Environment, GroupRow,
    MessageId, MessageRow, MessageState, Millis, Position, Priority, PushChannel, PushPolicy,
    PushSettings, Quotas, SealedCredential, SecretHash, Seq, SetBy,
};
use carillon_world::{DeviceReceipts, Problem, Receipt, Stored};
use serde::{Deserialize, Serialize};

use super::callback::delivery::Report;
use super::callback::state::Endpoint;
use super::input::{GroupRef, ImportLine, ProfileEdit};
use super::push::report::PushReport;
use super::value::Given;

/// Pairs an answer with its write. The caller's own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyId(pub u64);

#[derive(Clone, Debug)]
pub enum Write {
    CreateApp {
        id: AppId,
        name: Arc<str>,
        environment: Environment,
        publishable_key: Arc<str>,
    },
    SetQuotas {
        app: AppId,
        edit: QuotaEdit,
    },
    /// `None` takes it away.
    SetCredential {
        app: AppId,
        channel: PushChannel,
        credential: Option<SealedCredential>,
    },
    SetPushSettings {
        app: AppId,
        settings: PushSettings,
    },
    /// What the pusher says of a run.
    PushReport(Arc<PushReport>),
    /// What devices are called in the history.
    Pseudonyms(Arc<[PseudonymRow]>),
    /// The history has these events, of so many bytes.
    HistorySent {
        forget: Arc<ForgetOutbox>,
        bytes: u64,
    },
    Callback(Box<CallbackWrite>),
    DeclareAttribute {
        app: AppId,
        id: AttributeId,
        name: Arc<str>,
        kind: Type,
        set_by: SetBy,
    },
    DeleteAttribute {
        app: AppId,
        name: Arc<str>,
    },
    CreateGroup {
        app: AppId,
        id: GroupId,
        name: Arc<str>,
        set_by: SetBy,
    },
    RenameGroup {
        app: AppId,
        group: GroupRef,
        name: Arc<str>,
    },
    DeleteGroup {
        app: AppId,
        group: GroupRef,
    },
    PutAudience(Box<PutAudience>),
    /// `audience`: its present name.
    RenameAudience {
        app: AppId,
        audience: Arc<str>,
        name: Arc<str>,
        if_match: Option<u32>,
    },
    DeleteAudience {
        app: AppId,
        audience: Arc<str>,
        if_match: Option<u32>,
    },
    Members {
        app: AppId,
        group: GroupRef,
        join: bool,
        devices: Vec<DeviceId>,
    },
    ImportDevices {
        app: AppId,
        lines: Vec<ImportLine>,
    },
    PatchDevice {
        app: AppId,
        device: DeviceId,
        edit: ProfileEdit,
    },
    DeleteDevice {
        app: AppId,
        device: DeviceId,
    },
    /// Deletes those of the devices that are still of this user.
    EraseUser {
        app: AppId,
        user: Arc<str>,
        devices: Vec<DeviceId>,
    },
    RevokeDevice {
        app: AppId,
        device: DeviceId,
    },
    CreateMessage(Box<CreateMessage>),
    EditMessage(Box<EditMessage>),
    RecallMessage {
        app: AppId,
        id: MessageId,
    },
    /// `device`: the id that a device not known before gets.
    Enrol {
        publishable_key: Arc<str>,
        device: DeviceId,
        secret: SecretHash,
        profile: ProfileEdit,
    },
    /// Changes nothing: answered from what is committed.
    Session {
        app: AppId,
        device: DeviceId,
        secret: SecretHash,
    },
    PatchSelf {
        app: AppId,
        device: DeviceId,
        generation: Seq,
        edit: ProfileEdit,
    },
    Forget {
        app: AppId,
        device: DeviceId,
        generation: Seq,
    },
    Receipts {
        app: AppId,
        device: DeviceId,
        generation: Seq,
        receipts: Vec<Receipt>,
    },
    /// What an edge reports: devices and the hour in which they came by.
    Seen {
        app: AppId,
        devices: Vec<(DeviceId, u32)>,
    },
    /// What an edge reports: how far the stores of devices have come.
    Delivered {
        app: AppId,
        devices: Vec<Stored>,
    },
    /// The receipts of several devices, each refused or taken by itself.
    ReceiptBatch {
        devices: Vec<DeviceReceipts>,
    },
}

/// New quotas of an app; what it does not name stays, `Some(None)` goes back to central's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaEdit {
    pub devices_max: Option<Option<u64>>,
    pub groups_max: Option<Option<u64>>,
    pub live_messages_max: Option<Option<u64>>,
    pub bodies_bytes_max: Option<Option<u64>>,
}

impl QuotaEdit {
    pub(crate) fn applied_to(&self, before: Quotas) -> Quotas {
        Quotas {
            devices_max: self.devices_max.unwrap_or(before.devices_max),
            groups_max: self.groups_max.unwrap_or(before.groups_max),
            live_messages_max: self.live_messages_max.unwrap_or(before.live_messages_max),
            bodies_bytes_max: self.bodies_bytes_max.unwrap_or(before.bodies_bytes_max),
        }
    }
}

/// What is decided about callbacks.
#[derive(Clone, Debug)]
pub enum CallbackWrite {
    Create(CreateCallback),
    Patch(PatchCallback),
    Delete {
        app: AppId,
        id: CallbackId,
    },
    /// Signs with another secret from here on, and with those before until `until` at most.
    Rotate {
        app: AppId,
        id: CallbackId,
        secret: SealedSecret,
        until: Millis,
    },
    /// Calls again for what came after the event `cursor`.
    Replay {
        app: AppId,
        id: CallbackId,
        cursor: u64,
    },
    /// Events that are to be called for; those up to `through` were looked at.
    Log {
        rows: Arc<[CallbackLogRow]>,
        through: u64,
    },
    Report(CallbackReport),
    /// Rows of the log that are old go, up to the one with the first event `through`; with the endpoints that had not
    /// had them.
    Forget {
        through: u64,
        bytes: u64,
        missed: Vec<Missed>,
    },
}

/// What an endpoint had not had of rows that go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    pub id: CallbackId,
    /// How many that it wanted.
    pub events: u64,
    /// The last event of those rows that are of its app.
    pub through: u64,
}

#[derive(Clone, Debug)]
pub struct CreateCallback {
    pub app: AppId,
    pub id: CallbackId,
    pub url: Arc<str>,
    /// As [`wanted::parse`](super::callback::wanted::parse) gives them.
    pub events: Arc<str>,
    pub description: Arc<str>,
    pub secret: SealedSecret,
}

/// What it does not name stays.
#[derive(Clone, Debug)]
pub struct PatchCallback {
    pub app: AppId,
    pub id: CallbackId,
    pub url: Option<Arc<str>>,
    pub events: Option<Arc<str>>,
    pub description: Option<Arc<str>>,
    pub active: Option<bool>,
}

/// What whoever calls an endpoint says of it.
#[derive(Clone, Debug)]
pub struct CallbackReport {
    pub id: CallbackId,
    /// The run that it called for.
    pub run: u32,
    pub report: Report,
}

/// A key under which a write may be repeated, and the hash of the request that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    pub key: Arc<str>,
    pub request: [u8; 32],
}

#[derive(Clone, Debug)]
pub struct PutAudience {
    pub app: AppId,
    /// The id that an audience not known before gets.
    pub id: AudienceId,
    pub name: Arc<str>,
    /// With names.
    pub expression: String,
    /// The revision that the caller has seen.
    pub if_match: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct CreateMessage {
    pub app: AppId,
    pub id: MessageId,
    pub key: Option<IdempotencyKey>,
    /// With names.
    pub to: String,
    /// JSON text, kept as given.
    pub body: Arc<str>,
    pub priority: Priority,
    pub collapse_key: Option<Arc<str>>,
    pub not_before: Option<Millis>,
    pub expires_at: Option<Millis>,
    pub push: Option<Arc<PushPolicy>>,
}

/// What it does not name stays.
#[derive(Clone, Debug)]
pub struct EditMessage {
    pub app: AppId,
    pub id: MessageId,
    /// The revision that the caller has seen.
    pub if_match: Option<u32>,
    pub to: Option<String>,
    pub body: Option<Arc<str>>,
    pub priority: Option<Priority>,
    /// `Some(None)`: at once.
    pub not_before: Option<Option<Millis>>,
    pub expires_at: Option<Millis>,
    pub push: Option<Arc<PushPolicy>>,
}

/// An answer and the position that it rests on: committed when the answer is given.
#[derive(Clone, Debug)]
pub struct Answer {
    pub result: Result<Reply, Problem>,
    pub at: Position,
}

#[derive(Clone, Debug)]
pub enum Reply {
    App(Arc<AppRow>),
    Attribute(Arc<AttributeRow>),
    Group {
        row: Arc<GroupRow>,
        members: u64,
    },
    /// `expression`: canonical, with names.
    Audience {
        row: Arc<AudienceRow>,
        expression: String,
        created: bool,
    },
    Members(MembersReport),
    Imported(ImportReport),
    Device(Arc<DeviceRow>),
    /// `to`: canonical, with names.
    Message {
        row: Arc<MessageRow>,
        to: String,
    },
    Created(CreatedMessage),
    Enrolled {
        app: AppId,
        device: DeviceId,
        generation: Position,
        created: bool,
    },
    Session {
        generation: Position,
    },
    Callback(Box<Endpoint>),
    /// How many devices are gone.
    Erased(u64),
    /// For each device, why its receipts were refused.
    Receipts(Vec<Option<Problem>>),
    Done,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembersReport {
    pub changed: u64,
    pub unchanged: u64,
    /// The first 1,000.
    pub unknown: Vec<DeviceId>,
    /// Devices that are in as many groups as a device can be.
    pub full: Vec<DeviceId>,
    /// Why what comes after was not done.
    pub refused: Option<Problem>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    pub created: u64,
    pub changed: u64,
    pub unchanged: u64,
    pub bad: Vec<BadLine>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Counted from 1.
    pub line: u64,
    pub code: String,
    pub detail: String,
}

/// What a create answers, without the body, which the caller has: it is kept with the idempotency key, and a repeat
/// has the same body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedMessage {
    pub id: MessageId,
    pub state: MessageState,
    /// Canonical, with names.
    pub to: String,
    pub priority: Priority,
    pub collapse_key: Option<Arc<str>>,
    pub created_at: Millis,
    pub not_before: Option<Millis>,
    pub expires_at: Millis,
    /// Whether its pushes began with it.
    #[serde(default)]
    pub is_pushed: bool,
    pub position: Position,
}

impl Write {
    /// About how many bytes it holds while it waits.
    pub(crate) fn weight(&self) -> usize {
        let inner = match self {
            Write::Members { devices, .. } => devices.len() * 8,
            Write::ImportDevices { lines, .. } => lines.iter().map(ImportLine::weight).sum(),
            Write::PatchDevice { edit, .. }
            | Write::PatchSelf { edit, .. }
            | Write::Enrol { profile: edit, .. } => edit.weight(),
            Write::PutAudience(put) => put.name.len() + put.expression.len(),
            Write::CreateMessage(m) => m.to.len() + m.body.len(),
            Write::EditMessage(m) => {
                m.to.as_ref().map_or(0, String::len) + m.body.as_ref().map_or(0, |body| body.len())
            }
            Write::Receipts { receipts, .. } => receipts.len() * 64,
            Write::Seen { devices, .. } => devices.len() * 16,
            Write::PushReport(report) => {
                report.retries.len() * 24
                    + report.gone.iter().map(|(_, token)| 32 + token.len()).sum::<usize>()
            }
            Write::Delivered { devices, .. } => devices.len() * 64,
            Write::ReceiptBatch { devices } => {
                devices.iter().map(|device| 64 + device.receipts.len() * 64).sum()
            }
            Write::EraseUser { devices, .. } => devices.len() * 8,
            Write::Callback(write) => match &**write {
                CallbackWrite::Log { rows, .. } => {
                    rows.iter().map(|row| 64 + row.payload.len()).sum()
                }
                CallbackWrite::Report(report) => report.report.retries.len() * 32,
                _ => 0,
            },
            _ => 0,
        };
        inner + 256
    }
}

impl ImportLine {
    fn weight(&self) -> usize {
        96 + self
            .attributes
            .iter()
            .map(|(name, value)| 40 + name.len() + value.weight())
            .sum::<usize>()
            + self.groups.len() * 48
            + self.tokens.iter().flatten().map(|t| 24 + t.token.len()).sum::<usize>()
    }
}

impl ProfileEdit {
    fn weight(&self) -> usize {
        let value = |v: &Option<Given>| v.as_ref().map_or(0, Given::weight);
        self.attributes.iter().map(|(name, v)| 40 + name.len() + value(v)).sum::<usize>()
            + self.groups.len() * 48
            + self.tokens.iter().flatten().map(|t| 24 + t.token.len()).sum::<usize>()
    }
}
