-- When the token was made that a push provider is shown for a key: all of a team's servers show the same, for providers
-- refuse those that change it often. `id` is a digest of the team, the key's name and its public half.
CREATE TABLE IF NOT EXISTS provider_tokens (
    id BINARY(32) NOT NULL,
    issued_at BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
