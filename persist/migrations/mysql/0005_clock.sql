-- The clock by which volatile expressions are judged, in milliseconds since 1970. A table of its own, because a column
-- cannot be added twice without harm.
CREATE TABLE IF NOT EXISTS committed_clock (
    shard SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    at BIGINT UNSIGNED NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
