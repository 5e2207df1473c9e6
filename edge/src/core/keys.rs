//! The keys with which an edge seals and opens what devices carry.
//!
//! Central derives one key per purpose and day from a root secret and hands out the derived keys, never the root.
//! An edge stores none: a ring is replaced whole by each frame of keys. Central sends the keys of coming days
//! before any edge seals with them, so that what one edge seals every other edge opens.

use std::collections::HashMap;

use aws_lc_rs::aead::{AES_256_GCM_SIV, LessSafeKey, UnboundKey};

/// Days for which a session or cursor is accepted after it was sealed.
pub const ACCEPT_DAYS: u32 = 400;

/// Keys that a ring holds at most: 403 days of sessions and of cursors and a day of tickets need 810. It bounds
/// what a faulty central can make an edge keep (about 1 KiB a key).
pub const KEYS_MAX: usize = 4096;

/// What a key is for. Each purpose has keys of its own, so that nothing sealed as one thing opens as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    Session,
    Cursor,
    /// TLS session tickets. Their keys have rising numbers, which need not be days.
    Ticket,
}

/// The keys of the last frame. An empty ring opens and seals nothing.
#[derive(Debug, Default)]
pub struct KeyRing {
    seal_day: u32,
    ticket_seals: Option<u32>,
    keys: HashMap<(Purpose, u32), LessSafeKey>,
}

impl KeyRing {
    /// Takes the keys of one frame. Those beyond [`KEYS_MAX`] are left out.
    pub fn new(seal_day: u32, keys: impl IntoIterator<Item = (Purpose, u32, [u8; 32])>) -> KeyRing {
        let cipher = |bytes: [u8; 32]| {
            let key = UnboundKey::new(&AES_256_GCM_SIV, &bytes).expect("the cipher takes 32 bytes");
            LessSafeKey::new(key)
        };
        let keys = keys
            .into_iter()
            .take(KEYS_MAX)
            .map(|(purpose, day, bytes)| ((purpose, day), cipher(bytes)));
        let keys: HashMap<_, _> = keys.collect();
        let mut tickets: Vec<u32> =
            keys.keys().filter(|(p, _)| *p == Purpose::Ticket).map(|(_, n)| *n).collect();
        tickets.sort_unstable();
        let ticket_seals = tickets.iter().rev().take(2).next_back().copied();
        KeyRing { seal_day, ticket_seals, keys }
    }

    /// The day whose keys seal sessions and cursors.
    pub fn seal_day(&self) -> u32 {
        self.seal_day
    }

    /// Whether sessions and cursors can be sealed.
    pub fn can_seal(&self) -> bool {
        self.sealing(Purpose::Session).is_some() && self.sealing(Purpose::Cursor).is_some()
    }

    pub(crate) fn sealing(&self, purpose: Purpose) -> Option<(u32, &LessSafeKey)> {
        Some((self.seal_day, self.keys.get(&(purpose, self.seal_day))?))
    }

    /// The key of `day`, unless it is older than [`ACCEPT_DAYS`].
    pub(crate) fn opening(&self, purpose: Purpose, day: u32) -> Option<&LessSafeKey> {
        if day < self.seal_day.saturating_sub(ACCEPT_DAYS) {
            return None;
        }
        self.keys.get(&(purpose, day))
    }

    pub(crate) fn ticket(&self, number: u32) -> Option<&LessSafeKey> {
        self.keys.get(&(Purpose::Ticket, number))
    }

    /// The newest but one, because every edge has it; a lone key if there is but one.
    pub(crate) fn ticket_sealing(&self) -> Option<(u32, &LessSafeKey)> {
        let number = self.ticket_seals?;
        Some((number, self.ticket(number)?))
    }

    /// Whether `day` is later than every key of its purpose here: another edge has keys that this one lacks.
    pub(crate) fn is_ahead(&self, purpose: Purpose, day: u32) -> bool {
        self.keys.keys().filter(|(p, _)| *p == purpose).all(|(_, known)| *known < day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(seal_day: u32, days: std::ops::RangeInclusive<u32>) -> KeyRing {
        KeyRing::new(seal_day, days.map(|day| (Purpose::Cursor, day, [day as u8; 32])))
    }

    #[test]
    fn a_key_is_accepted_before_anyone_seals_with_it() {
        let ring = ring(500, 100..=502);
        assert_eq!(ring.sealing(Purpose::Cursor).map(|(day, _)| day), Some(500));
        assert!(ring.opening(Purpose::Cursor, 502).is_some());
        assert!(ring.opening(Purpose::Cursor, 503).is_none());
    }

    #[test]
    fn a_key_is_accepted_for_400_days_even_if_central_sends_older_ones() {
        let ring = ring(500, 90..=502);
        assert!(ring.opening(Purpose::Cursor, 100).is_some());
        assert!(ring.opening(Purpose::Cursor, 99).is_none());
    }

    #[test]
    fn purposes_do_not_share_keys() {
        let ring = ring(500, 100..=502);
        assert!(ring.opening(Purpose::Session, 500).is_none());
        assert!(!ring.can_seal());
    }

    #[test]
    fn a_ring_keeps_no_more_keys_than_its_maximum() {
        let ring = ring(500, 0..=10_000);
        assert_eq!(ring.keys.len(), KEYS_MAX);
    }
}
