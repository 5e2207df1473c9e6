-- When seqs were the head, so that a restart knows how old changes are.
CREATE TABLE IF NOT EXISTS seq_times (
    shard INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (shard, seq)
) STRICT, WITHOUT ROWID;

-- Hours since 1970. Devices count as seen no earlier than `seen_since`.
CREATE TABLE IF NOT EXISTS device_seen (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    device INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    PRIMARY KEY (shard, app, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS seen_since (
    shard INTEGER NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;

-- Forgotten devices whose receipts are still to be deleted.
CREATE TABLE IF NOT EXISTS erasures (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    device INTEGER NOT NULL,
    PRIMARY KEY (shard, app, device)
) STRICT, WITHOUT ROWID;

CREATE VIEW IF NOT EXISTS device_seen_view AS
    SELECT shard, printf('%016x', app) AS app, printf('%016x', device) AS device,
           strftime('%Y-%m-%dT%H:00:00Z', hour * 3600, 'unixepoch') AS seen
    FROM device_seen;
