-- What is to be told to the history, a row a batch: `events` of them from the number `first_event` on, in `payload` as
-- MessagePack (name, at, seq, app, device, message, data), each with its length in front (4 bytes, little-endian). A row
-- goes once the history has it.
CREATE TABLE IF NOT EXISTS outbox (
    shard INTEGER NOT NULL,
    first_event INTEGER NOT NULL,
    epoch_number INTEGER NOT NULL,
    epoch_tag INTEGER NOT NULL,
    events INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (shard, first_event)
) STRICT;

-- The number of the last event there ever was.
CREATE TABLE IF NOT EXISTS event_heads (
    shard INTEGER NOT NULL,
    head INTEGER NOT NULL,
    PRIMARY KEY (shard)
) STRICT;

-- What devices are called in the history: 16 random bytes. Without its row a device in the history is nobody.
CREATE TABLE IF NOT EXISTS pseudonyms (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    device INTEGER NOT NULL,
    pseudonym BLOB NOT NULL,
    PRIMARY KEY (shard, app, device)
) STRICT, WITHOUT ROWID;

CREATE VIEW IF NOT EXISTS pseudonyms_view AS
    SELECT shard, printf('%016x', app) AS app, printf('%016x', device) AS device, LOWER(HEX(pseudonym)) AS pseudonym
    FROM pseudonyms;
