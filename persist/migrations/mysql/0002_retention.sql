-- When seqs were the head, so that a restart knows how old changes are.
CREATE TABLE IF NOT EXISTS seq_times (
    shard SMALLINT UNSIGNED NOT NULL,
    seq BIGINT UNSIGNED NOT NULL,
    at BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, seq)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Hours since 1970. Devices count as seen no earlier than `seen_since`.
CREATE TABLE IF NOT EXISTS device_seen (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    device BIGINT UNSIGNED NOT NULL,
    hour INT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, app, device)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS seen_since (
    shard SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    at BIGINT UNSIGNED NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Forgotten devices whose receipts are still to be deleted.
CREATE TABLE IF NOT EXISTS erasures (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    device BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, app, device)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE OR REPLACE VIEW device_seen_view AS
    SELECT shard, LOWER(LPAD(HEX(app), 16, '0')) AS app, LOWER(LPAD(HEX(device), 16, '0')) AS device,
           FROM_UNIXTIME(hour * 3600) AS seen
    FROM device_seen;
