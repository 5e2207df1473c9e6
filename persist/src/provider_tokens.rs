//! When the tokens were made that push providers are shown: apart from all batches, since all shards of a store share them.

use std::time::Duration;

use carillon_world::Millis;

use crate::StoreError;
use crate::json::Damage;

/// A digest of what makes tokens different from each other.
pub type ProviderTokenId = [u8; 32];

/// After that nobody has used the token for long.
const KEPT: u64 = 24 * 60 * 60 * 1000;

/// Id, now and how long it lasts. A time that lies far ahead was written by a clock that was wrong.
pub(crate) const CLAIM_SQLITE: &str = "INSERT INTO provider_tokens (id, issued_at) VALUES (?1, ?2) \
    ON CONFLICT (id) DO UPDATE SET issued_at = ?2 WHERE issued_at + ?3 <= ?2 OR issued_at > ?2 + ?3";

/// The same, with the parameters in the order in which they stand.
pub(crate) const CLAIM_MYSQL: &str = "INSERT INTO provider_tokens (id, issued_at) VALUES (?, ?) \
    ON DUPLICATE KEY UPDATE issued_at = IF(? >= issued_at + ? OR issued_at > ? + ?, ?, issued_at)";

pub(crate) const SELECT: &str = "SELECT issued_at FROM provider_tokens WHERE id = ?";

pub(crate) const FORGET: &str = "DELETE FROM provider_tokens WHERE issued_at < ?";

pub(crate) fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

/// What was issued before is deleted.
pub(crate) fn forgotten(now: u64) -> u64 {
    now.saturating_sub(KEPT)
}

pub(crate) fn issued(read: Option<Result<u64, Damage>>) -> Result<Millis, StoreError> {
    let read = read.unwrap_or_else(|| Err("it has no row of what was just written".to_owned()));
    read.map(Millis).map_err(|detail| StoreError::Damaged { table: "provider_tokens", detail })
}
