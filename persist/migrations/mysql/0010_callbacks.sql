-- Whom a customer's systems have central call. `events`: names, separated by spaces; `state`: active, or why it is paused
-- (admin, failing, gone). `secrets`: encrypted under a key that is not in the database. `run` changes when what is under way
-- has to begin anew.
CREATE TABLE IF NOT EXISTS callback_endpoints (
    shard SMALLINT UNSIGNED NOT NULL,
    callback BIGINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    url TEXT NOT NULL,
    events TEXT NOT NULL,
    description TEXT NOT NULL,
    state VARCHAR(16) NOT NULL,
    changed_at BIGINT UNSIGNED NOT NULL,
    run INT UNSIGNED NOT NULL,
    secrets TEXT NOT NULL,
    created_at BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard, callback)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- How far each is: events up to `after_event` were delivered, given up, or are in `retries`, as
-- event:attempts:began:due.
CREATE TABLE IF NOT EXISTS callback_progress (
    shard SMALLINT UNSIGNED NOT NULL,
    callback BIGINT UNSIGNED NOT NULL,
    after_event BIGINT UNSIGNED NOT NULL,
    retries MEDIUMTEXT NOT NULL,
    delivered BIGINT UNSIGNED NOT NULL,
    failed BIGINT UNSIGNED NOT NULL,
    missed BIGINT UNSIGNED NOT NULL,
    last_success_at BIGINT UNSIGNED NULL,
    last_failure_at BIGINT UNSIGNED NULL,
    failing_since BIGINT UNSIGNED NULL,
    last_error TEXT NULL,
    PRIMARY KEY (shard, callback)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Events that somebody is to be called for, as they are sent: of one app, in `payload` as MessagePack. Each goes when it is
-- old, whoever has had it.
CREATE TABLE IF NOT EXISTS callback_log (
    shard SMALLINT UNSIGNED NOT NULL,
    first_event BIGINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    last_event BIGINT UNSIGNED NOT NULL,
    first_at BIGINT UNSIGNED NOT NULL,
    bytes INT UNSIGNED NOT NULL,
    payload LONGBLOB NOT NULL,
    PRIMARY KEY (shard, first_event),
    KEY callback_log_app (shard, app, first_event)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- The last event that was looked at for the log.
CREATE TABLE IF NOT EXISTS callback_heads (
    shard SMALLINT UNSIGNED NOT NULL,
    logged BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (shard)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE OR REPLACE VIEW callback_endpoints_view AS
    SELECT e.shard, LOWER(LPAD(HEX(e.callback), 16, '0')) AS callback, LOWER(LPAD(HEX(e.app), 16, '0')) AS app, e.url,
           e.events, e.state, p.after_event, p.retries, p.delivered, p.failed, p.missed, p.last_error
    FROM callback_endpoints AS e JOIN callback_progress AS p ON p.shard = e.shard AND p.callback = e.callback;
