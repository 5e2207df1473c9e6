-- Named expressions, and what each said since the horizon. What an edit makes of messages is in no table: it follows.
CREATE TABLE IF NOT EXISTS audiences (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    audience INTEGER NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    from_seq INTEGER NOT NULL,
    expression TEXT NOT NULL,
    changed_seq INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    PRIMARY KEY (shard, app, audience)
) STRICT;

CREATE INDEX IF NOT EXISTS audiences_changed ON audiences (shard, changed_seq);

CREATE TABLE IF NOT EXISTS audience_revisions (
    shard INTEGER NOT NULL,
    app INTEGER NOT NULL,
    audience INTEGER NOT NULL,
    from_seq INTEGER NOT NULL,
    expression TEXT NOT NULL,
    PRIMARY KEY (shard, app, audience, from_seq)
) STRICT;

CREATE INDEX IF NOT EXISTS audience_revisions_from ON audience_revisions (shard, from_seq);

CREATE VIEW IF NOT EXISTS audiences_view AS
    SELECT shard, printf('%016x', app) AS app, printf('%016x', audience) AS audience, name, revision, from_seq,
           expression, changed_seq
    FROM audiences WHERE deleted = 0;
