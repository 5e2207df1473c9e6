//! The tables that batches write, with their columns in the order in which rows are made and read.

/// What an insert does when the key is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Present {
    Replace,
    Keep,
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

/// What a purge forgets but superseded revisions, whose statement differs between the stores: tombstones, and
/// messages that have ended, with their revisions. No sequence number exceeds 63 bits, so literals fit everywhere.
pub(crate) fn purge_statements(shard: u16, horizon: u64) -> Vec<String> {
    let mut statements: Vec<String> = ["attributes", "app_groups", "devices"]
        .iter()
        .map(|table| format!("DELETE FROM {table} WHERE shard = {shard} AND deleted = 1 AND changed_seq <= {horizon}"))
        .collect();
    let ended = format!("m.state IN ('expired', 'recalled') AND m.changed_seq <= {horizon}");
    statements.push(format!(
        "DELETE FROM message_revisions WHERE shard = {shard} AND from_seq <= {horizon} AND EXISTS (\
         SELECT 1 FROM messages AS m WHERE m.shard = message_revisions.shard AND m.app = message_revisions.app \
         AND m.message = message_revisions.message AND {ended})"
    ));
    statements.push(format!(
        "DELETE FROM messages WHERE shard = {shard} AND {}",
        ended.replace("m.", "")
    ));
    statements.push(format!(
        "UPDATE lease SET horizon = {horizon} WHERE shard = {shard} AND horizon < {horizon}"
    ));
    statements
}
