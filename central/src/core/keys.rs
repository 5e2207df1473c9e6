//! The keys that edges seal with, derived and never stored: HKDF-SHA256 over a root secret from configuration,
//! labelled by purpose and day.
//!
//! The root secret stays at central. Edges get the derived keys of the days whose sessions and cursors still count,
//! and of two days to come, so that every edge accepts a key before any edge seals with it.

use aws_lc_rs::hkdf;
use carillon_world::Millis;
use carillon_world::stream::{DerivedKey, KeyBytes, KeyPurpose, Keys};

/// How long sessions and cursors are accepted, in days.
pub const ACCEPTED_DAYS: u32 = 400;
/// Days whose keys edges get ahead of time.
const AHEAD_DAYS: u32 = 2;
pub const DAY: u64 = 24 * 60 * 60 * 1000;

/// What all keys are derived from. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct RootSecret([u8; 32]);

impl RootSecret {
    pub const fn new(secret: [u8; 32]) -> RootSecret {
        RootSecret(secret)
    }

    /// The key of one purpose and day: info = `carillon/v1/<purpose>/<day>`, no salt.
    ///
    /// # Panics
    /// Never: the output is shorter than HKDF allows.
    pub fn derive(&self, purpose: KeyPurpose, day: u32) -> KeyBytes {
        let info = format!("carillon/v1/{}/{day}", purpose.as_str());
        let info = [info.as_bytes()];
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&self.0);
        let okm = prk.expand(&info, hkdf::HKDF_SHA256).expect("one hash is short enough");
        let mut key = [0; 32];
        okm.fill(&mut key).expect("the length is that of the hash");
        KeyBytes(key)
    }

    /// All keys that edges may need at `now`.
    pub fn keys(&self, now: Millis) -> Keys {
        let seal_day = day_of(now);
        let mut keys = Vec::new();
        for day in seal_day.saturating_sub(ACCEPTED_DAYS)..=seal_day + AHEAD_DAYS {
            for purpose in [KeyPurpose::Session, KeyPurpose::Cursor] {
                keys.push(DerivedKey { purpose, day, key: self.derive(purpose, day) });
            }
        }
        // Tickets live 12 hours, so yesterday's key still opens one.
        for day in seal_day.saturating_sub(1)..=seal_day + 1 {
            keys.push(DerivedKey {
                purpose: KeyPurpose::Ticket,
                day,
                key: self.derive(KeyPurpose::Ticket, day),
            });
        }
        Keys { seal_day, keys }
    }
}

impl std::fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootSecret(..)")
    }
}

/// Days since 1970-01-01 UTC.
pub fn day_of(now: Millis) -> u32 {
    u32::try_from(now.0 / DAY).unwrap_or(u32::MAX - AHEAD_DAYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_purpose_day_and_root_and_repeat() {
        let root = RootSecret::new([7; 32]);
        let key = root.derive(KeyPurpose::Session, 20_000);
        assert_eq!(key, root.derive(KeyPurpose::Session, 20_000));
        assert_ne!(key, root.derive(KeyPurpose::Cursor, 20_000));
        assert_ne!(key, root.derive(KeyPurpose::Session, 20_001));
        assert_ne!(key, RootSecret::new([8; 32]).derive(KeyPurpose::Session, 20_000));
    }

    #[test]
    fn the_derivation_is_that_of_rfc_5869() {
        // HKDF-SHA256, ikm = 32 × 0x07, no salt, info = "carillon/v1/session/20000", by an independent implementation.
        let key = RootSecret::new([7; 32]).derive(KeyPurpose::Session, 20_000);
        let hex: String = key.0.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "beaaf1a611ca7dd7bb4e93ed75ef272b3e42ae0bb1bfb3100f01a79d0c248a13");
    }

    #[test]
    fn edges_get_400_days_and_two_to_come() {
        let now = Millis(20_000 * DAY + 5);
        let keys = RootSecret::new([7; 32]).keys(now);
        assert_eq!(keys.seal_day, 20_000);
        let sessions: Vec<u32> =
            keys.keys.iter().filter(|k| k.purpose == KeyPurpose::Session).map(|k| k.day).collect();
        assert_eq!(
            (sessions[0], sessions.len(), sessions[sessions.len() - 1]),
            (19_600, 403, 20_002)
        );
        assert_eq!(keys.keys.iter().filter(|k| k.purpose == KeyPurpose::Ticket).count(), 3);
    }
}
