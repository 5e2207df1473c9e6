-- What an app may hold; NULL, or no row, is central's default. A table of its own, because a column cannot be added
-- twice without harm.
CREATE TABLE IF NOT EXISTS app_quotas (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    devices_max BIGINT UNSIGNED,
    groups_max BIGINT UNSIGNED,
    live_messages_max BIGINT UNSIGNED,
    bodies_bytes_max BIGINT UNSIGNED,
    PRIMARY KEY (shard, app)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
