-- The clock by which volatile expressions are judged, in milliseconds since 1970. A table of its own, because a column
-- cannot be added twice without harm.
CREATE TABLE IF NOT EXISTS committed_clock (
    shard INTEGER NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;
