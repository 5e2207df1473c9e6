//! What goes into the history, and in which words.
//!
//! Whatever is committed is told in the batch that commits it. What identifies somebody stays in the store: users, tokens
//! and secrets are not told, devices go out under pseudonyms, and attributes only where the operator says so.

use carillon_persist::history::{OutboxEvent, OutboxRow};
use carillon_persist::{CallbackId, CallbackRow, CallbackState, PushJobRow, ReceiptRow};
use carillon_world::{
    AppId, Change, DeviceId, DeviceRow, Epoch, LineageEntry, MessageId, MessageRow, Millis, Seq,
    World,
};
use serde_json::{Map, json};

use super::books::Mark;
use super::funnel::channel_name;
use super::push::report::PushReport;
use super::{render, value};

/// How a history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryConfig {
    /// Bytes of events that may wait in the store; beyond it writes are refused.
    pub outbox_bytes_max: u64,
    /// Whether the values of attributes are told.
    pub attributes: bool,
}

/// The names of all events.
pub const EVENTS: [&str; 25] = [
    "app.changed",
    "attribute.changed",
    "attribute.deleted",
    "audience.changed",
    "audience.deleted",
    "callback.changed",
    "callback.deleted",
    "device.changed",
    "device.created",
    "device.deleted",
    "device.receipt",
    "devices.seen",
    "group.changed",
    "group.deleted",
    "history.purged",
    "message.created",
    "message.delivered",
    "message.edited",
    "message.left",
    "message.state",
    "message.withdrawn",
    "push.progress",
    "push.state",
    "shard.opened",
    "token.removed",
];

/// Those of them that are of no app, and the operator's business alone.
const OF_THE_SHARD: [&str; 2] = ["history.purged", "shard.opened"];

/// The names of all events that happen to something of an app.
pub fn events_of_apps() -> impl Iterator<Item = &'static str> {
    EVENTS.into_iter().filter(|event| !OF_THE_SHARD.contains(event))
}

/// Whether a name or pattern stands for an event: `message.state`, `message.*`, `*`.
pub fn covers(pattern: &str, event: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(prefix) => prefix.ends_with('.') && event.starts_with(prefix),
        None => pattern == event,
    }
}

/// Bytes of events after which a batch is closed.
pub(crate) const LOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One thing to be told.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: &'static str,
    pub(crate) change: Option<Seq>,
    pub(crate) app: Option<AppId>,
    pub(crate) device: Option<DeviceId>,
    pub(crate) message: Option<MessageId>,
    /// A JSON object.
    pub(crate) data: serde_json::Value,
}

/// Bytes of an event's data, as JSON. What is larger is left out: Kafka would never take it, nor anything behind it.
const DATA_BYTES_MAX: usize = 768 * 1024;

/// The event after which a device has another name, if it comes back.
pub(crate) const DEVICE_DELETED: &str = "device.deleted";

/// The events of a batch, as the outbox holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventLog {
    first: u64,
    events: u32,
    payload: Vec<u8>,
}

impl EventLog {
    /// Appends the event with the number `seq`; gives how many bytes it takes.
    pub(crate) fn push(&mut self, seq: u64, at: Millis, event: &Event) -> u64 {
        if self.events == 0 {
            self.first = seq;
        }
        let before = self.payload.len();
        let mut data = event.data.to_string();
        if data.len() > DATA_BYTES_MAX {
            data = json!({"too_large": data.len()}).to_string();
        }
        let Event { name, change, app, device, message, .. } = *event;
        let event = OutboxEvent { event: name, at, change, app, device, message, data: &data };
        event.write(&mut self.payload);
        self.events += 1;
        (self.payload.len() - before) as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events == 0
    }

    pub(crate) fn bytes(&self) -> usize {
        self.payload.len()
    }

    /// The number of the last event; `None` if there is none.
    pub(crate) fn last(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.first + u64::from(self.events) - 1)
    }

    /// As the store takes it; `None` if there is nothing to tell.
    pub(crate) fn row(&mut self, epoch: Epoch) -> Option<OutboxRow> {
        (!self.is_empty()).then(|| OutboxRow {
            epoch,
            first: self.first,
            events: self.events,
            payload: std::mem::take(&mut self.payload).into(),
        })
    }
}

impl Event {
    fn of(name: &'static str, data: serde_json::Value) -> Event {
        Event { name, change: None, app: None, device: None, message: None, data }
    }

    fn in_app(name: &'static str, app: AppId, data: serde_json::Value) -> Event {
        Event { app: Some(app), ..Event::of(name, data) }
    }

    /// An owner opened the shard. If it is a fork, then of the events of epochs before this one those with a number above
    /// `events` never were, nor were changes after `began_after`, nor anything of epochs between this one and
    /// `from_epoch`, which is told where it is known.
    pub(crate) fn opened(line: &LineageEntry, events: u64, from_epoch: Option<u64>) -> Event {
        let LineageEntry { epoch, began_after, fork } = line;
        let mut data = json!({"epoch": epoch.number, "tag": format!("{:016x}", epoch.tag),
            "began_after": began_after.get(), "events": events, "fork": fork});
        if let Some(from) = from_epoch {
            data["from_epoch"] = from.into();
        }
        Event::of("shard.opened", data)
    }

    pub(crate) fn device_deleted(app: AppId, id: DeviceId) -> Event {
        Event { device: Some(id), ..Event::in_app(DEVICE_DELETED, app, json!({})) }
    }

    /// What became of a message on a device; `None` if that is nobody's business.
    pub(crate) fn mark(
        (app, device): (AppId, DeviceId),
        message: MessageId,
        mark: Mark,
    ) -> Option<Event> {
        let name = match mark {
            Mark::Delivered => "message.delivered",
            Mark::Withdrawn => "message.withdrawn",
            Mark::Left => "message.left",
            // Those are receipts, each with an id of its own.
            Mark::Displayed | Mark::Opened | Mark::Dismissed | Mark::Action => return None,
        };
        let (device, message) = (Some(device), Some(message));
        Some(Event { device, message, ..Event::in_app(name, app, json!({})) })
    }

    /// A repeat has the same receipt id.
    pub(crate) fn receipt(row: &ReceiptRow) -> Event {
        let (kind, action) = match row.kind.split_once(':') {
            Some((kind, action)) => (kind, Some(action)),
            None => (&*row.kind, None),
        };
        let mut data = json!({"receipt": format!("{:016x}", row.id), "kind": kind,
            "at": row.at.0});
        if let Some(action) = action {
            data["action"] = action.into();
        }
        let (device, message) = (Some(row.device), Some(row.message));
        Event { device, message, ..Event::in_app("device.receipt", row.app, data) }
    }

    /// An endpoint was made, changed, paused; without its URL, which may hold a secret.
    pub(crate) fn callback(row: &CallbackRow) -> Event {
        let events: Vec<&str> = row.events.split(' ').collect();
        let data = json!({"callback": row.id.to_string(), "events": events,
            "state": state_name(row.state)});
        Event::in_app("callback.changed", row.app, data)
    }

    pub(crate) fn callback_deleted(app: AppId, id: CallbackId) -> Event {
        Event::in_app("callback.deleted", app, json!({"callback": id.to_string()}))
    }

    /// A run of pushes began, stopped, ended.
    pub(crate) fn job(job: &PushJobRow) -> Event {
        let data = json!({"channel": channel_name(job.channel), "run": job.run,
            "kind": word(&job.kind), "state": word(&job.state)});
        Event { message: Some(job.message), ..Event::in_app("push.state", job.app, data) }
    }

    /// What became of some pushes.
    pub(crate) fn pushed(report: &PushReport) -> Event {
        let failed: Map<String, serde_json::Value> =
            report.counts.failed.iter().map(|(reason, n)| (reason.0.into(), (*n).into())).collect();
        let counts = &report.counts;
        let data = json!({"channel": channel_name(report.key.channel), "run": report.run,
            "accepted": counts.accepted, "failed": failed, "gone": report.gone.len(),
            "quiet": counts.quiet, "capped": counts.capped});
        let message = Some(report.key.message);
        Event { message, ..Event::in_app("push.progress", report.key.app, data) }
    }

    /// A provider said that a token is no more.
    pub(crate) fn token_removed(report: &PushReport, device: DeviceId) -> Event {
        let data = json!({"channel": channel_name(report.key.channel)});
        let (device, message) = (Some(device), Some(report.key.message));
        Event { device, message, ..Event::in_app("token.removed", report.key.app, data) }
    }
}

/// What a change is, told by the world in which it was not made yet; `None` for a tick of the clock, which says nothing.
pub(crate) fn of_change(
    before: &World,
    seq: Seq,
    change: &Change,
    config: HistoryConfig,
) -> Option<Event> {
    let event = match change {
        Change::App(row) => Event::in_app(
            "app.changed",
            row.id,
            json!({"name": row.name, "environment": word(&row.environment)}),
        ),
        Change::Attribute(row) => Event::in_app(
            "attribute.changed",
            row.app,
            json!({"attribute": row.id.to_string(), "name": row.name, "type": row.kind.to_string()}),
        ),
        Change::AttributeGone { app, id } => {
            Event::in_app("attribute.deleted", *app, json!({"attribute": id.to_string()}))
        }
        Change::Group(row) => Event::in_app(
            "group.changed",
            row.app,
            json!({"group": row.id.to_string(), "name": row.name}),
        ),
        Change::GroupGone { app, id } => {
            Event::in_app("group.deleted", *app, json!({"group": id.to_string()}))
        }
        Change::Audience(row) => Event::in_app(
            "audience.changed",
            row.app,
            json!({"audience": row.id.to_string(), "name": row.name, "expression": row.expression}),
        ),
        Change::AudienceGone { app, id } => {
            Event::in_app("audience.deleted", *app, json!({"audience": id.to_string()}))
        }
        Change::Device(row) => device(before, row, config),
        Change::DeviceGone { app, id } => Event::device_deleted(*app, *id),
        Change::Message(row) => message(row),
        Change::MessageState { app, id, state } => Event {
            message: Some(*id),
            ..Event::in_app("message.state", *app, json!({"state": word(state)}))
        },
        Change::Purge { horizon } => Event::of("history.purged", json!({"horizon": horizon.get()})),
        Change::Seen { app, at, devices } => {
            Event::in_app("devices.seen", *app, json!({"hour": at.0, "devices": devices.len()}))
        }
        Change::Clock { .. } => return None,
    };
    Some(Event { change: Some(seq), ..event })
}

/// `active`, or why an endpoint is paused.
pub(crate) const fn state_name(state: CallbackState) -> &'static str {
    match state {
        CallbackState::Active => "active",
        CallbackState::Admin => "admin",
        CallbackState::Failing => "failing",
        CallbackState::Gone => "gone",
    }
}

/// A variant's name in lower case.
fn word(variant: &impl std::fmt::Debug) -> String {
    format!("{variant:?}").to_lowercase()
}

fn device(before: &World, row: &DeviceRow, config: HistoryConfig) -> Event {
    let app = before.app(row.app);
    let known = app.and_then(|app| app.device(row.id));
    let name = if known.is_none() { "device.created" } else { "device.changed" };
    let groups = row.groups.iter().filter_map(|id| Some(&*app?.group(*id)?.name));
    let mut data = json!({"groups": groups.collect::<Vec<_>>()});
    let joined = row.groups.iter().filter(|id| known.is_none_or(|was| !was.groups.contains(id)));
    let left = known.iter().flat_map(|was| was.groups.iter()).filter(|id| !row.groups.contains(id));
    for (member, ids) in [("joined", joined.collect::<Vec<_>>()), ("left", left.collect())] {
        if !ids.is_empty() && known.is_some() {
            let names = ids.iter().filter_map(|id| Some(&*app?.group(**id)?.name));
            data[member] = names.collect::<Vec<_>>().into();
        }
    }
    if config.attributes {
        let values = row.attributes.iter().filter_map(|(id, value)| {
            let name = app?.attribute(*id)?.name.to_string();
            Some((name, value::to_json(value)))
        });
        data["attributes"] = values.collect::<Map<_, _>>().into();
    }
    Event { device: Some(row.id), ..Event::in_app(name, row.app, data) }
}

fn message(row: &MessageRow) -> Event {
    let name = if row.revision == 1 { "message.created" } else { "message.edited" };
    let body: serde_json::Value = serde_json::from_str(render::body_of(row)).unwrap_or_default();
    let data = json!({
        "revision": row.revision,
        "state": word(&row.state),
        "to": row.to,
        "priority": render::priority(row.priority),
        "collapse_key": row.collapse_key,
        "not_before": row.not_before.map(|at| at.0),
        "expires_at": row.expires_at.0,
        "push": row.push.is_some(),
        "body": body,
    });
    Event { message: Some(row.id), ..Event::in_app(name, row.app, data) }
}
