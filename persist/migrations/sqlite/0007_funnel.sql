-- What is known of each device's store: the newest position that it was seen to have stored, and for each message 9 bytes
-- in `marks`, the id (big-endian) and bits: 1 delivered, 2 displayed, 4 opened, 8 dismissed, 16 action, 32 withdrawn after
-- a recall, 64 no longer held. In rising order of the ids.
CREATE TABLE IF NOT EXISTS device_books (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    device INTEGER NOT NULL,
    held_seq INTEGER NOT NULL,
    marks BLOB NOT NULL,
    PRIMARY KEY (shard, app, device)
) STRICT, WITHOUT ROWID;

-- How often what became of each message: `span` is total, minute, hour or day, `at` when the span begins (0 for totals),
-- `counter` what is counted, such as delivered or failed:apns:Unregistered.
CREATE TABLE IF NOT EXISTS message_counts (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    message INTEGER NOT NULL,
    span TEXT NOT NULL,
    counter TEXT NOT NULL,
    at INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (shard, app, message, span, counter, at)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS message_counts_at ON message_counts (shard, span, at);

CREATE VIEW IF NOT EXISTS device_books_view AS
    SELECT shard, printf('%016x', app) AS app, printf('%016x', device) AS device, held_seq,
           LENGTH(marks) / 9 AS messages, HEX(marks) AS marks
    FROM device_books;

CREATE VIEW IF NOT EXISTS message_counts_view AS
    SELECT shard, printf('%016x', app) AS app, printf('%016x', message) AS message, span, counter,
           CASE at WHEN 0 THEN NULL ELSE strftime('%Y-%m-%dT%H:%M:00Z', at / 1000, 'unixepoch') END AS at, n
    FROM message_counts;
