-- What is to be told to the history, a row a batch: `events` of them from the number `first_event` on, in `payload` as
-- MessagePack (name, at, seq, app, device, message, data), each with its length in front (4 bytes, little-endian). A row
-- goes once the history has it.
CREATE TABLE IF NOT EXISTS outbox (
    shard SMALLINT UNSIGNED NOT NULL,
    first_event BIGINT UNSIGNED NOT NULL,
    epoch_number BIGINT UNSIGNED NOT NULL,
    epoch_tag BIGINT UNSIGNED NOT NULL,
    events INT UNSIGNED NOT NULL,
    bytes INT UNSIGNED NOT NULL,
    payload LONGBLOB NOT NULL,
    PRIMARY KEY (shard, first_event)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- The number of the last event there ever was.
CREATE TABLE IF NOT EXISTS event_heads (
    shard SMALLINT UNSIGNED NOT NULL,
    head BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- What devices are called in the history: 16 random bytes. Without its row a device in the history is nobody.
CREATE TABLE IF NOT EXISTS pseudonyms (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    device BIGINT UNSIGNED NOT NULL,
    pseudonym BINARY(16) NOT NULL,
    PRIMARY KEY (shard, app, device)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE OR REPLACE VIEW pseudonyms_view AS
    SELECT shard, LOWER(LPAD(HEX(app), 16, '0')) AS app, LOWER(LPAD(HEX(device), 16, '0')) AS device,
           LOWER(HEX(pseudonym)) AS pseudonym
    FROM pseudonyms;
