-- Ids are BIGINT UNSIGNED; the *_view views show them as 16 hexadecimal digits. Times are milliseconds since 1970 UTC.
-- JSON stands in text columns, because a column of type JSON would rewrite it and bodies must come back byte by byte.
-- Keys that come from callers are VARBINARY: comparison of text would ignore spaces at the end.
CREATE TABLE IF NOT EXISTS installation (
    one TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    shards SMALLINT UNSIGNED NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS lease (
    shard SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    epoch_number BIGINT UNSIGNED NOT NULL,
    epoch_tag BIGINT UNSIGNED NOT NULL,
    head BIGINT UNSIGNED NOT NULL,
    horizon BIGINT UNSIGNED NOT NULL,
    owner_connection BIGINT UNSIGNED NOT NULL,
    batches BIGINT UNSIGNED NOT NULL,
    committed_at BIGINT UNSIGNED NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS fence (
    shard SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    held TINYINT UNSIGNED NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS lineage (
    shard SMALLINT UNSIGNED NOT NULL,
    epoch_number BIGINT UNSIGNED NOT NULL,
    epoch_tag BIGINT UNSIGNED NOT NULL,
    began_after BIGINT UNSIGNED NOT NULL,
    fork TINYINT UNSIGNED NOT NULL,
    began_at BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, epoch_number)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS apps (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    name TEXT NOT NULL,
    environment VARCHAR(16) NOT NULL,
    publishable_key TEXT NOT NULL,
    created_at BIGINT UNSIGNED NOT NULL,
    changed_seq BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, app),
    KEY apps_changed (shard, changed_seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS attributes (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    attribute BIGINT UNSIGNED NOT NULL,
    name TEXT NOT NULL,
    type VARCHAR(16) NOT NULL,
    set_by VARCHAR(16) NOT NULL,
    changed_seq BIGINT UNSIGNED NOT NULL,
    deleted TINYINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, app, attribute),
    KEY attributes_changed (shard, changed_seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS app_groups (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    group_id BIGINT UNSIGNED NOT NULL,
    name TEXT NOT NULL,
    set_by VARCHAR(16) NOT NULL,
    changed_seq BIGINT UNSIGNED NOT NULL,
    deleted TINYINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, app, group_id),
    KEY app_groups_changed (shard, changed_seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS devices (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    device BIGINT UNSIGNED NOT NULL,
    generation_seq BIGINT UNSIGNED NOT NULL,
    p_seq BIGINT UNSIGNED NOT NULL,
    created_at BIGINT UNSIGNED NOT NULL,
    user_id TEXT NULL,
    attributes MEDIUMTEXT NOT NULL,
    group_ids MEDIUMTEXT NOT NULL,
    secret_sha256 BINARY(32) NULL,
    push_tokens MEDIUMTEXT NULL,
    changed_seq BIGINT UNSIGNED NOT NULL,
    deleted TINYINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, app, device),
    KEY devices_changed (shard, changed_seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS messages (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    message BIGINT UNSIGNED NOT NULL,
    revision INT UNSIGNED NOT NULL,
    state VARCHAR(16) NOT NULL,
    to_expression MEDIUMTEXT NOT NULL,
    priority VARCHAR(16) NOT NULL,
    collapse_key TEXT NULL,
    created_at BIGINT UNSIGNED NOT NULL,
    not_before BIGINT UNSIGNED NULL,
    expires_at BIGINT UNSIGNED NOT NULL,
    variants MEDIUMTEXT NOT NULL,
    changed_seq BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, app, message),
    KEY messages_changed (shard, changed_seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS message_revisions (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    message BIGINT UNSIGNED NOT NULL,
    from_seq BIGINT UNSIGNED NOT NULL,
    active TINYINT UNSIGNED NOT NULL,
    to_expression MEDIUMTEXT NOT NULL,
    heads MEDIUMTEXT NOT NULL,
    PRIMARY KEY (shard, app, message, from_seq),
    KEY message_revisions_from (shard, from_seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS idempotency (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    idempotency_key VARBINARY(128) NOT NULL,
    request_sha256 BINARY(32) NOT NULL,
    response MEDIUMBLOB NOT NULL,
    created_at BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, app, idempotency_key),
    KEY idempotency_created (shard, created_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS receipts (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    device BIGINT UNSIGNED NOT NULL,
    receipt BIGINT UNSIGNED NOT NULL,
    message BIGINT UNSIGNED NOT NULL,
    kind TEXT NOT NULL,
    at BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, app, device, receipt)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE OR REPLACE VIEW apps_view AS
    SELECT shard, LOWER(LPAD(HEX(app), 16, '0')) AS app, name, environment, publishable_key,
           FROM_UNIXTIME(created_at / 1000) AS created_at, changed_seq
    FROM apps;

CREATE OR REPLACE VIEW attributes_view AS
    SELECT shard, LOWER(LPAD(HEX(app), 16, '0')) AS app, LOWER(LPAD(HEX(attribute), 16, '0')) AS attribute, name, type,
           set_by, changed_seq
    FROM attributes WHERE deleted = 0;

CREATE OR REPLACE VIEW app_groups_view AS
    SELECT shard, LOWER(LPAD(HEX(app), 16, '0')) AS app, LOWER(LPAD(HEX(group_id), 16, '0')) AS group_id, name, set_by,
           changed_seq
    FROM app_groups WHERE deleted = 0;

CREATE OR REPLACE VIEW devices_view AS
    SELECT shard, LOWER(LPAD(HEX(app), 16, '0')) AS app, LOWER(LPAD(HEX(device), 16, '0')) AS device, user_id, attributes,
           group_ids, generation_seq, p_seq, FROM_UNIXTIME(created_at / 1000) AS created_at, changed_seq
    FROM devices WHERE deleted = 0;

CREATE OR REPLACE VIEW messages_view AS
    SELECT shard, LOWER(LPAD(HEX(app), 16, '0')) AS app, LOWER(LPAD(HEX(message), 16, '0')) AS message, revision, state,
           to_expression, priority, collapse_key, FROM_UNIXTIME(created_at / 1000) AS created_at,
           FROM_UNIXTIME(not_before / 1000) AS not_before, FROM_UNIXTIME(expires_at / 1000) AS expires_at, variants,
           changed_seq
    FROM messages;

CREATE OR REPLACE VIEW memberships AS
    SELECT d.shard AS shard, LOWER(LPAD(HEX(d.app), 16, '0')) AS app, LOWER(LPAD(HEX(d.device), 16, '0')) AS device,
           member.group_id AS group_id, g.name AS group_name
    FROM devices AS d
    JOIN JSON_TABLE(d.group_ids, '$[*]' COLUMNS (group_id CHAR(16) PATH '$')) AS member
    LEFT JOIN app_groups AS g
        ON g.shard = d.shard AND g.app = d.app AND g.deleted = 0
        AND g.group_id = CAST(CONV(member.group_id, 16, 10) AS UNSIGNED)
    WHERE d.deleted = 0;
