-- Named expressions, and what each said since the horizon. What an edit makes of messages is in no table: it follows.
CREATE TABLE IF NOT EXISTS audiences (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    audience BIGINT UNSIGNED NOT NULL,
    name TEXT NOT NULL,
    revision INT UNSIGNED NOT NULL,
    from_seq BIGINT UNSIGNED NOT NULL,
    expression MEDIUMTEXT NOT NULL,
    changed_seq BIGINT UNSIGNED NOT NULL,
    deleted TINYINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, app, audience),
    KEY audiences_changed (shard, changed_seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS audience_revisions (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    audience BIGINT UNSIGNED NOT NULL,
    from_seq BIGINT UNSIGNED NOT NULL,
    expression MEDIUMTEXT NOT NULL,
    PRIMARY KEY (shard, app, audience, from_seq),
    KEY audience_revisions_from (shard, from_seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE OR REPLACE VIEW audiences_view AS
    SELECT shard, LOWER(LPAD(HEX(app), 16, '0')) AS app, LOWER(LPAD(HEX(audience), 16, '0')) AS audience, name, revision,
           from_seq, expression, changed_seq
    FROM audiences WHERE deleted = 0;
