-- What an app may hold; NULL, or no row, is central's default. A table of its own, because a column cannot be added
-- twice without harm.
CREATE TABLE IF NOT EXISTS app_quotas (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    devices_max INTEGER,
    groups_max INTEGER,
    live_messages_max INTEGER,
    bodies_bytes_max INTEGER,
    PRIMARY KEY (shard, app)
) STRICT, WITHOUT ROWID;
