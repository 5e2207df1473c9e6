-- How messages are announced to devices that are not here; a message without a row is not. Tables of their own, because a
-- column cannot be added twice without harm.
CREATE TABLE IF NOT EXISTS message_push (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    message INTEGER NOT NULL,
    policy TEXT NOT NULL,
    PRIMARY KEY (shard, app, message)
) STRICT;

-- What an app's pushes may do, and its credentials by channel, each encrypted under a key that is not in the database.
CREATE TABLE IF NOT EXISTS app_push (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    settings TEXT NOT NULL,
    credentials TEXT NOT NULL,
    PRIMARY KEY (shard, app)
) STRICT, WITHOUT ROWID;

-- How far a message's pushes are, by channel. `after_device`: all devices up to it were handed to the provider in this pass;
-- `due_from` and `due_to`: the pass is for devices that are due after the one and until the other; `retries`: devices that
-- are tried again, as device:attempts:due.
CREATE TABLE IF NOT EXISTS push_jobs (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    message INTEGER NOT NULL,
    channel TEXT NOT NULL,
    run INTEGER NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    reports INTEGER NOT NULL,
    began_seq INTEGER NOT NULL,
    began_at INTEGER NOT NULL,
    due_from INTEGER NOT NULL,
    due_to INTEGER,
    after_device INTEGER,
    next_due INTEGER,
    retries TEXT NOT NULL,
    PRIMARY KEY (shard, app, message, channel)
) STRICT;

-- When devices of apps with a frequency cap were pushed, in minutes since 1970.
CREATE TABLE IF NOT EXISTS push_times (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    device INTEGER NOT NULL,
    minutes TEXT NOT NULL,
    PRIMARY KEY (shard, app, device)
) STRICT, WITHOUT ROWID;

CREATE VIEW IF NOT EXISTS push_jobs_view AS
    SELECT shard, printf('%016x', app) AS app, printf('%016x', message) AS message, channel, run, kind, state, began_seq,
           strftime('%Y-%m-%dT%H:%M:%SZ', began_at / 1000, 'unixepoch') AS began_at,
           printf('%016x', after_device) AS after_device, retries
    FROM push_jobs;
