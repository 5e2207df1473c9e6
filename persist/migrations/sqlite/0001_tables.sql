-- Ids are the 64 bits as a signed integer; the *_view views show them as 16 hexadecimal digits. Times are milliseconds
-- since 1970 UTC. Tables of small rows are WITHOUT ROWID; in the others that would move whole rows at every split.
CREATE TABLE IF NOT EXISTS installation (
    one INTEGER NOT NULL PRIMARY KEY,
    shards INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS lease (
    shard INTEGER NOT NULL PRIMARY KEY,
    epoch_number INTEGER NOT NULL,
    epoch_tag INTEGER NOT NULL,
    head INTEGER NOT NULL,
    horizon INTEGER NOT NULL,
    owner_connection INTEGER NOT NULL,
    batches INTEGER NOT NULL,
    committed_at INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS lineage (
    shard INTEGER NOT NULL,
    epoch_number INTEGER NOT NULL,
    epoch_tag INTEGER NOT NULL,
    began_after INTEGER NOT NULL,
    fork INTEGER NOT NULL,
    began_at INTEGER NOT NULL,
    PRIMARY KEY (shard, epoch_number)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS apps (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    name TEXT NOT NULL,
    environment TEXT NOT NULL,
    publishable_key TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    changed_seq INTEGER NOT NULL,
    PRIMARY KEY (shard, app)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS apps_changed ON apps (shard, changed_seq);

CREATE TABLE IF NOT EXISTS attributes (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    attribute INTEGER NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    set_by TEXT NOT NULL,
    changed_seq INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    PRIMARY KEY (shard, app, attribute)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS attributes_changed ON attributes (shard, changed_seq);

CREATE TABLE IF NOT EXISTS app_groups (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    group_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    set_by TEXT NOT NULL,
    changed_seq INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    PRIMARY KEY (shard, app, group_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS app_groups_changed ON app_groups (shard, changed_seq);

CREATE TABLE IF NOT EXISTS devices (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    device INTEGER NOT NULL,
    generation_seq INTEGER NOT NULL,
    p_seq INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    user_id TEXT,
    attributes TEXT NOT NULL,
    group_ids TEXT NOT NULL,
    secret_sha256 BLOB,
    push_tokens TEXT,
    changed_seq INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    PRIMARY KEY (shard, app, device)
) STRICT;

CREATE INDEX IF NOT EXISTS devices_changed ON devices (shard, changed_seq);

CREATE TABLE IF NOT EXISTS messages (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    message INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    state TEXT NOT NULL,
    to_expression TEXT NOT NULL,
    priority TEXT NOT NULL,
    collapse_key TEXT,
    created_at INTEGER NOT NULL,
    not_before INTEGER,
    expires_at INTEGER NOT NULL,
    variants TEXT NOT NULL,
    changed_seq INTEGER NOT NULL,
    PRIMARY KEY (shard, app, message)
) STRICT;

CREATE INDEX IF NOT EXISTS messages_changed ON messages (shard, changed_seq);

CREATE TABLE IF NOT EXISTS message_revisions (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    message INTEGER NOT NULL,
    from_seq INTEGER NOT NULL,
    active INTEGER NOT NULL,
    to_expression TEXT NOT NULL,
    heads TEXT NOT NULL,
    PRIMARY KEY (shard, app, message, from_seq)
) STRICT;

CREATE INDEX IF NOT EXISTS message_revisions_from ON message_revisions (shard, from_seq);

CREATE TABLE IF NOT EXISTS idempotency (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_sha256 BLOB NOT NULL,
    response BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (shard, app, idempotency_key)
) STRICT;

CREATE INDEX IF NOT EXISTS idempotency_created ON idempotency (shard, created_at);

CREATE TABLE IF NOT EXISTS receipts (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    device INTEGER NOT NULL,
    receipt INTEGER NOT NULL,
    message INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (shard, app, device, receipt)
) STRICT, WITHOUT ROWID;

CREATE VIEW IF NOT EXISTS apps_view AS
    SELECT shard, printf('%016x', app) AS app, name, environment, publishable_key,
           strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at, changed_seq
    FROM apps;

CREATE VIEW IF NOT EXISTS attributes_view AS
    SELECT shard, printf('%016x', app) AS app, printf('%016x', attribute) AS attribute, name, type,
           set_by, changed_seq
    FROM attributes WHERE deleted = 0;

CREATE VIEW IF NOT EXISTS app_groups_view AS
    SELECT shard, printf('%016x', app) AS app, printf('%016x', group_id) AS group_id, name, set_by,
           changed_seq
    FROM app_groups WHERE deleted = 0;

CREATE VIEW IF NOT EXISTS devices_view AS
    SELECT shard, printf('%016x', app) AS app, printf('%016x', device) AS device, user_id, attributes,
           group_ids, generation_seq, p_seq,
           strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at, changed_seq
    FROM devices WHERE deleted = 0;

CREATE VIEW IF NOT EXISTS messages_view AS
    SELECT shard, printf('%016x', app) AS app, printf('%016x', message) AS message, revision, state,
           to_expression, priority, collapse_key,
           strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at,
           strftime('%Y-%m-%dT%H:%M:%fZ', not_before / 1000.0, 'unixepoch') AS not_before,
           strftime('%Y-%m-%dT%H:%M:%fZ', expires_at / 1000.0, 'unixepoch') AS expires_at, variants,
           changed_seq
    FROM messages;

-- Lets the view below find a group by the text form of its id.
CREATE INDEX IF NOT EXISTS app_groups_hex ON app_groups (shard, app, printf('%016x', group_id));

CREATE VIEW IF NOT EXISTS memberships AS
    SELECT d.shard AS shard, printf('%016x', d.app) AS app, printf('%016x', d.device) AS device,
           member.value AS group_id, g.name AS group_name
    FROM devices AS d
    JOIN json_each(d.group_ids) AS member
    LEFT JOIN app_groups AS g
        ON g.shard = d.shard AND g.app = d.app AND g.deleted = 0 AND printf('%016x', g.group_id) = member.value
    WHERE d.deleted = 0;
