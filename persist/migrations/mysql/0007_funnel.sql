-- What is known of each device's store: the newest position that it was seen to have stored, and for each message 9 bytes
-- in `marks`, the id (big-endian) and bits: 1 delivered, 2 displayed, 4 opened, 8 dismissed, 16 action, 32 withdrawn after
-- a recall, 64 no longer held. In rising order of the ids.
CREATE TABLE IF NOT EXISTS device_books (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    device BIGINT UNSIGNED NOT NULL,
    held_seq BIGINT UNSIGNED NOT NULL,
    marks MEDIUMBLOB NOT NULL,
    PRIMARY KEY (shard, app, device)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- How often what became of each message: `span` is total, minute, hour or day, `at` when the span begins (0 for totals),
-- `counter` what is counted, such as delivered or failed:apns:Unregistered.
CREATE TABLE IF NOT EXISTS message_counts (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    message BIGINT UNSIGNED NOT NULL,
    span VARCHAR(8) NOT NULL,
    counter VARCHAR(64) NOT NULL,
    at BIGINT UNSIGNED NOT NULL,
    n BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, app, message, span, counter, at),
    KEY message_counts_at (shard, span, at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE OR REPLACE VIEW device_books_view AS
    SELECT shard, LOWER(LPAD(HEX(app), 16, '0')) AS app, LOWER(LPAD(HEX(device), 16, '0')) AS device, held_seq,
           LENGTH(marks) DIV 9 AS messages, LOWER(HEX(marks)) AS marks
    FROM device_books;

CREATE OR REPLACE VIEW message_counts_view AS
    SELECT shard, LOWER(LPAD(HEX(app), 16, '0')) AS app, LOWER(LPAD(HEX(message), 16, '0')) AS message, span, counter,
           IF(at = 0, NULL, FROM_UNIXTIME(at / 1000)) AS at, n
    FROM message_counts;
