-- How messages are announced to devices that are not here; a message without a row is not. Tables of their own, because a
-- column cannot be added twice without harm.
CREATE TABLE IF NOT EXISTS message_push (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    message BIGINT UNSIGNED NOT NULL,
    policy MEDIUMTEXT NOT NULL,
    PRIMARY KEY (shard, app, message)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- What an app's pushes may do, and its credentials by channel, each encrypted under a key that is not in the database.
CREATE TABLE IF NOT EXISTS app_push (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    settings TEXT NOT NULL,
    credentials MEDIUMTEXT NOT NULL,
    PRIMARY KEY (shard, app)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- How far a message's pushes are, by channel. `after_device`: all devices up to it were handed to the provider in this pass;
-- `due_from` and `due_to`: the pass is for devices that are due after the one and until the other; `retries`: devices that
-- are tried again, as device:attempts:due.
CREATE TABLE IF NOT EXISTS push_jobs (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    message BIGINT UNSIGNED NOT NULL,
    channel VARCHAR(16) NOT NULL,
    run INT UNSIGNED NOT NULL,
    kind VARCHAR(16) NOT NULL,
    state VARCHAR(16) NOT NULL,
    reports BIGINT UNSIGNED NOT NULL,
    began_seq BIGINT UNSIGNED NOT NULL,
    began_at BIGINT UNSIGNED NOT NULL,
    due_from BIGINT UNSIGNED NOT NULL,
    due_to BIGINT UNSIGNED NULL,
    after_device BIGINT UNSIGNED NULL,
    next_due BIGINT UNSIGNED NULL,
    retries MEDIUMTEXT NOT NULL,
    PRIMARY KEY (shard, app, message, channel)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- When devices of apps with a frequency cap were pushed, in minutes since 1970.
CREATE TABLE IF NOT EXISTS push_times (
    shard SMALLINT UNSIGNED NOT NULL,
    app BIGINT UNSIGNED NOT NULL,
    device BIGINT UNSIGNED NOT NULL,
    minutes TEXT NOT NULL,
    PRIMARY KEY (shard, app, device)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE OR REPLACE VIEW push_jobs_view AS
    SELECT shard, LOWER(LPAD(HEX(app), 16, '0')) AS app, LOWER(LPAD(HEX(message), 16, '0')) AS message, channel, run, kind,
           state, began_seq, FROM_UNIXTIME(began_at / 1000) AS began_at,
           LOWER(LPAD(HEX(after_device), 16, '0')) AS after_device, retries
    FROM push_jobs;
