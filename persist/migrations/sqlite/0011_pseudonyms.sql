-- A device that is deleted and comes back has another name from the event `since` on; until its end is with the history it has
-- both.
CREATE TABLE IF NOT EXISTS device_pseudonyms (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    device INTEGER NOT NULL,
    since INTEGER NOT NULL,
    pseudonym BLOB NOT NULL,
    PRIMARY KEY (shard, app, device, since)
) STRICT, WITHOUT ROWID;

-- Gone already, if this is run for the second time.
CREATE TABLE IF NOT EXISTS pseudonyms (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    device INTEGER NOT NULL,
    pseudonym BLOB NOT NULL,
    PRIMARY KEY (shard, app, device)
) STRICT, WITHOUT ROWID;

INSERT OR IGNORE INTO device_pseudonyms (shard, app, device, since, pseudonym)
    SELECT shard, app, device, 0, pseudonym FROM pseudonyms;

DROP VIEW IF EXISTS pseudonyms_view;

CREATE VIEW IF NOT EXISTS pseudonyms_view AS
    SELECT shard, printf('%016x', app) AS app, printf('%016x', device) AS device, since,
           LOWER(HEX(pseudonym)) AS pseudonym
    FROM device_pseudonyms;

DROP TABLE IF EXISTS pseudonyms;
