//! The tables that batches write, with their columns in the order in which rows are made and read.

use carillon_world::{AppId, DeviceId};

/// What an insert does when the key is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Present {
    Replace,
    Keep,
    /// Of each column the greater value stays.
    Raise,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// The first `keys` are the primary key.
    pub(crate) columns: &'static [&'static str],
    pub(crate) keys: usize,
    pub(crate) present: Present,
}

impl Table {
    const fn of(name: &'static str, keys: usize, columns: &'static [&'static str]) -> Table {
        Table { name, columns, keys, present: Present::Replace }
    }

    /// Everything up to the tuples of an `INSERT`.
    pub(crate) fn insert(&self) -> String {
        format!("INSERT INTO {} ({}) VALUES ", self.name, self.columns.join(", "))
    }
}

pub(crate) static APPS: Table = Table::of(
    "apps",
    2,
    &["shard", "app", "name", "environment", "publishable_key", "created_at", "changed_seq"],
);

pub(crate) static QUOTAS: Table = Table::of(
    "app_quotas",
    2,
    &["shard", "app", "devices_max", "groups_max", "live_messages_max", "bodies_bytes_max"],
);

pub(crate) static APP_PUSH: Table =
    Table::of("app_push", 2, &["shard", "app", "settings", "credentials"]);

pub(crate) static MESSAGE_PUSH: Table =
    Table::of("message_push", 3, &["shard", "app", "message", "policy"]);

pub(crate) static PUSH_JOBS: Table = Table::of(
    "push_jobs",
    4,
    &[
        "shard",
        "app",
        "message",
        "channel",
        "run",
        "kind",
        "state",
        "reports",
        "began_seq",
        "began_at",
        "due_from",
        "due_to",
        "after_device",
        "next_due",
        "retries",
    ],
);

pub(crate) static ATTRIBUTES: Table = Table::of(
    "attributes",
    3,
    &["shard", "app", "attribute", "name", "type", "set_by", "changed_seq", "deleted"],
);

pub(crate) static GROUPS: Table = Table::of(
    "app_groups",
    3,
    &["shard", "app", "group_id", "name", "set_by", "changed_seq", "deleted"],
);

pub(crate) static AUDIENCES: Table = Table::of(
    "audiences",
    3,
    &[
        "shard",
        "app",
        "audience",
        "name",
        "revision",
        "from_seq",
        "expression",
        "changed_seq",
        "deleted",
    ],
);

pub(crate) static AUDIENCE_REVISIONS: Table =
    Table::of("audience_revisions", 4, &["shard", "app", "audience", "from_seq", "expression"]);

pub(crate) static DEVICES: Table = Table::of(
    "devices",
    3,
    &[
        "shard",
        "app",
        "device",
        "generation_seq",
        "p_seq",
        "created_at",
        "user_id",
        "attributes",
        "group_ids",
        "secret_sha256",
        "push_tokens",
        "changed_seq",
        "deleted",
    ],
);

pub(crate) static MESSAGES: Table = Table::of(
    "messages",
    3,
    &[
        "shard",
        "app",
        "message",
        "revision",
        "state",
        "to_expression",
        "priority",
        "collapse_key",
        "created_at",
        "not_before",
        "expires_at",
        "variants",
        "changed_seq",
    ],
);

pub(crate) static REVISIONS: Table = Table::of(
    "message_revisions",
    4,
    &["shard", "app", "message", "from_seq", "active", "to_expression", "heads"],
);

pub(crate) static IDEMPOTENCY: Table = Table::of(
    "idempotency",
    3,
    &["shard", "app", "idempotency_key", "request_sha256", "response", "created_at"],
);

pub(crate) static RECEIPTS: Table = Table {
    present: Present::Keep,
    ..Table::of("receipts", 4, &["shard", "app", "device", "receipt", "message", "kind", "at"])
};

pub(crate) static SEQ_TIMES: Table = Table::of("seq_times", 2, &["shard", "seq", "at"]);

pub(crate) static DEVICE_SEEN: Table =
    Table::of("device_seen", 3, &["shard", "app", "device", "hour"]);

pub(crate) static SEEN_SINCE: Table = Table::of("seen_since", 1, &["shard", "at"]);

pub(crate) static COMMITTED_CLOCK: Table =
    Table { present: Present::Raise, ..Table::of("committed_clock", 1, &["shard", "at"]) };

pub(crate) static ERASURES: Table = Table {
    present: Present::Keep,
    // Nothing but its key.
    ..Table::of("erasures", 3, &["shard", "app", "device"])
};

pub(crate) static DEVICE_BOOKS: Table =
    Table::of("device_books", 3, &["shard", "app", "device", "held_seq", "marks"]);

pub(crate) static MESSAGE_COUNTS: Table =
    Table::of("message_counts", 6, &["shard", "app", "message", "span", "counter", "at", "n"]);

/// The owner of each shard, and how far it is.
pub(crate) static LEASE: Table = Table::of(
    "lease",
    1,
    &[
        "shard",
        "epoch_number",
        "epoch_tag",
        "head",
        "horizon",
        "owner_connection",
        "batches",
        "committed_at",
    ],
);

pub(crate) static LINEAGE: Table = Table::of(
    "lineage",
    2,
    &["shard", "epoch_number", "epoch_tag", "began_after", "fork", "began_at"],
);

pub(crate) static PUSH_TIMES: Table =
    Table::of("push_times", 3, &["shard", "app", "device", "minutes"]);

pub(crate) static OUTBOX: Table = Table::of(
    "outbox",
    2,
    &["shard", "first_event", "epoch_number", "epoch_tag", "events", "bytes", "payload"],
);

pub(crate) static EVENT_HEADS: Table = Table::of("event_heads", 1, &["shard", "head"]);

pub(crate) static PSEUDONYMS: Table = Table {
    present: Present::Keep,
    ..Table::of("device_pseudonyms", 4, &["shard", "app", "device", "since", "pseudonym"])
};

pub(crate) static PROVIDER_TOKENS: Table = Table::of("provider_tokens", 1, &["id", "issued_at"]);

pub(crate) static CALLBACK_ENDPOINTS: Table = Table::of(
    "callback_endpoints",
    2,
    &[
        "shard",
        "callback",
        "app",
        "url",
        "events",
        "description",
        "state",
        "changed_at",
        "run",
        "secrets",
        "created_at",
    ],
);

pub(crate) static CALLBACK_PROGRESS: Table = Table::of(
    "callback_progress",
    2,
    &[
        "shard",
        "callback",
        "after_event",
        "retries",
        "delivered",
        "failed",
        "missed",
        "last_success_at",
        "last_failure_at",
        "failing_since",
        "last_error",
    ],
);

pub(crate) static CALLBACK_LOG: Table = Table::of(
    "callback_log",
    2,
    &["shard", "first_event", "app", "last_event", "first_at", "bytes", "payload"],
);

pub(crate) static CALLBACK_HEADS: Table = Table::of("callback_heads", 1, &["shard", "logged"]);

/// Every table that a store must have.
pub(crate) static ALL: [&Table; 32] = [
    &LEASE,
    &LINEAGE,
    &APPS,
    &QUOTAS,
    &ATTRIBUTES,
    &GROUPS,
    &AUDIENCES,
    &AUDIENCE_REVISIONS,
    &DEVICES,
    &MESSAGES,
    &REVISIONS,
    &IDEMPOTENCY,
    &RECEIPTS,
    &SEQ_TIMES,
    &DEVICE_SEEN,
    &SEEN_SINCE,
    &COMMITTED_CLOCK,
    &ERASURES,
    &APP_PUSH,
    &MESSAGE_PUSH,
    &PUSH_JOBS,
    &PUSH_TIMES,
    &DEVICE_BOOKS,
    &MESSAGE_COUNTS,
    &OUTBOX,
    &EVENT_HEADS,
    &PSEUDONYMS,
    &PROVIDER_TOKENS,
    &CALLBACK_ENDPOINTS,
    &CALLBACK_PROGRESS,
    &CALLBACK_LOG,
    &CALLBACK_HEADS,
];

/// Where what was said at some time is kept, and the id that it was said under.
pub(crate) const SAID: [(&str, &str); 2] =
    [("message_revisions", "message"), ("audience_revisions", "audience")];

/// What goes with a message that ended.
pub(crate) const OF_MESSAGES: [&str; 3] = ["message_revisions", "message_push", "push_jobs"];

/// What a purge forgets with one statement for both stores: tombstones, and the times of seqs that are past. Each
/// looks only at what changed above `from`, by an index; what lies below was forgotten before. No sequence number
/// exceeds 63 bits, so literals fit everywhere.
pub(crate) fn purge_tombstones(shard: u16, from: u64, horizon: u64) -> Vec<String> {
    let mut statements: Vec<String> = ["attributes", "app_groups", "audiences", "devices"]
        .iter()
        .map(|table| {
            format!(
                "DELETE FROM {table} WHERE shard = {shard} AND changed_seq > {from} AND changed_seq <= {horizon} \
                 AND deleted = 1"
            )
        })
        .collect();
    statements.push(format!("DELETE FROM seq_times WHERE shard = {shard} AND seq <= {horizon}"));
    statements.push(format!(
        "UPDATE lease SET horizon = {horizon} WHERE shard = {shard} AND horizon < {horizon}"
    ));
    statements
}

/// Messages that ended above `from`, the horizon included. Their revisions have to go first; so have those of audiences
/// before their tombstones.
pub(crate) fn purge_messages(shard: u16, from: u64, horizon: u64) -> String {
    format!(
        "DELETE FROM messages WHERE shard = {shard} AND changed_seq > {from} AND changed_seq <= {horizon} AND {ENDED}"
    )
}

/// Of a row of `messages`.
pub(crate) const ENDED: &str = "state IN ('expired', 'recalled')";

/// When devices were seen that are gone; `these` as [`of_devices`] gives them. One that came back keeps its own.
pub(crate) fn erase_seen(these: &str) -> String {
    format!(
        "DELETE FROM device_seen WHERE {these} AND NOT EXISTS (SELECT 1 FROM devices AS d \
         WHERE d.shard = device_seen.shard AND d.app = device_seen.app AND d.device = device_seen.device \
         AND d.deleted = 0)"
    )
}

/// What is kept beside the rows of devices that are gone, as [`erase_seen`].
pub(crate) fn erase_beside(these: &str) -> [String; 2] {
    ["device_books", "push_times"].map(|table| {
        format!(
            "DELETE FROM {table} WHERE {these} AND NOT EXISTS (SELECT 1 FROM devices AS d \
             WHERE d.shard = {table}.shard AND d.app = {table}.app AND d.device = {table}.device \
             AND d.deleted = 0)"
        )
    })
}

/// Rows of any table whose key begins with one of these devices.
pub(crate) fn of_devices(
    shard: u16,
    devices: &[(AppId, DeviceId)],
    id: fn(u64) -> String,
) -> String {
    let one = |(app, device): &(AppId, DeviceId)| {
        format!("app = {} AND device = {}", id(app.get()), id(device.get()))
    };
    let any: Vec<String> = devices.iter().map(one).collect();
    format!("shard = {shard} AND ({})", any.join(" OR "))
}
