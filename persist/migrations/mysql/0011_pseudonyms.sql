-- A device that is deleted and comes back has another name from the event `since` on; until its end is with the history it has
-- both.
CREATE TABLE IF NOT EXISTS device_pseudonyms (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    device BIGINT UNSIGNED NOT NULL,
    since BIGINT UNSIGNED NOT NULL,
    pseudonym BINARY(16) NOT NULL,
    PRIMARY KEY (shard, app, device, since)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Gone already, if this is run for the second time.
CREATE TABLE IF NOT EXISTS pseudonyms (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    device BIGINT UNSIGNED NOT NULL,
    pseudonym BINARY(16) NOT NULL,
    PRIMARY KEY (shard, app, device)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

INSERT IGNORE INTO device_pseudonyms (shard, app, device, since, pseudonym)
    SELECT shard, app, device, 0, pseudonym FROM pseudonyms;

CREATE OR REPLACE VIEW pseudonyms_view AS
    SELECT shard, LOWER(LPAD(HEX(app), 16, '0')) AS app, LOWER(LPAD(HEX(device), 16, '0')) AS device, since,
           LOWER(HEX(pseudonym)) AS pseudonym
    FROM device_pseudonyms;

DROP TABLE IF EXISTS pseudonyms;
