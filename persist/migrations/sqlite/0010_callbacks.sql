-- Whom a customer's systems have central call. `events`: names, separated by spaces; `state`: active, or why it is paused
-- (admin, failing, gone). `secrets`: encrypted under a key that is not in the database. `run` changes when what is under way
-- has to begin anew.
CREATE TABLE IF NOT EXISTS callback_endpoints (
    shard INTEGER NOT NULL,
    callback INTEGER NOT NULL,
    app INTEGER NOT NULL,
    url TEXT NOT NULL,
    events TEXT NOT NULL,
    description TEXT NOT NULL,
    state TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    run INTEGER NOT NULL,
    secrets TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (shard, callback)
) STRICT, WITHOUT ROWID;

-- How far each is: events up to `after_event` were delivered, given up, or are in `retries`, as
-- event:attempts:began:due.
CREATE TABLE IF NOT EXISTS callback_progress (
    shard INTEGER NOT NULL,
    callback INTEGER NOT NULL,
    after_event INTEGER NOT NULL,
    retries TEXT NOT NULL,
    delivered INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    missed INTEGER NOT NULL,
    last_success_at INTEGER,
    last_failure_at INTEGER,
    failing_since INTEGER,
    last_error TEXT,
    PRIMARY KEY (shard, callback)
) STRICT, WITHOUT ROWID;

-- Events that somebody is to be called for, as they are sent: of one app, in `payload` as MessagePack. Each goes when it is
-- old, whoever has had it.
CREATE TABLE IF NOT EXISTS callback_log (
    shard INTEGER NOT NULL,
    first_event INTEGER NOT NULL,
    app INTEGER NOT NULL,
    last_event INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (shard, first_event)
) STRICT;

CREATE INDEX IF NOT EXISTS callback_log_app ON callback_log (shard, app, first_event);

-- The last event that was looked at for the log.
CREATE TABLE IF NOT EXISTS callback_heads (
    shard INTEGER NOT NULL,
    logged INTEGER NOT NULL,
    PRIMARY KEY (shard)
) STRICT;

CREATE VIEW IF NOT EXISTS callback_endpoints_view AS
    SELECT e.shard, printf('%016x', e.callback) AS callback, printf('%016x', e.app) AS app, e.url, e.events, e.state,
           p.after_event, p.retries, p.delivered, p.failed, p.missed, p.last_error
    FROM callback_endpoints AS e JOIN callback_progress AS p ON p.shard = e.shard AND p.callback = e.callback;
