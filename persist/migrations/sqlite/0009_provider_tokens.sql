-- When the token was made that a push provider is shown for a key: all of a team's servers show the same, for providers
-- refuse those that change it often. `id` is a digest of the team, the key's name and its public half.
CREATE TABLE IF NOT EXISTS provider_tokens (
    id BLOB NOT NULL,
    issued_at INTEGER NOT NULL,
    PRIMARY KEY (id)
) STRICT, WITHOUT ROWID;
