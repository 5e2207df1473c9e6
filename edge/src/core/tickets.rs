//! TLS session tickets that every edge can open.
//!
//! A device that comes back to another edge then skips the full handshake, which is most of what a short connection
//! costs. The keys are central's. It hands out the next key before the present one ends, so the newest but one seals:
//! every edge that hears from central has it. A ticket says when it was made, because an edge that lost central keeps
//! its keys longer than a ticket is good.
//!
//! ```text
//! | number of the key (u32, big-endian) | nonce (12) | ciphertext and tag (AES-256-GCM-SIV, bound to "ticket") |
//! plaintext: | made at, seconds since 1970 (u64, big-endian) | state |
//! ```

use aws_lc_rs::aead::{Aad, Nonce};

use super::keys::KeyRing;
use super::seal::Entropy;

/// How long a ticket is good, in seconds.
pub const LIFETIME_SECONDS: u32 = 12 * 60 * 60;

/// How far the clock of the edge that made a ticket may be ahead, in seconds.
const SKEW_MAX: u64 = 300;

const HEADER: usize = 4 + 12;
const TIME: usize = 8;
const TAG: usize = 16;
const BOUND_TO: &[u8] = b"ticket";

/// `now` in seconds since 1970. `None` while the ring has no key for tickets: the client then gets none.
pub fn seal(ring: &KeyRing, now: u64, entropy: Entropy, state: &[u8]) -> Option<Vec<u8>> {
    let (number, key) = ring.ticket_sealing()?;
    let mut ticket = Vec::with_capacity(HEADER + TIME + state.len() + TAG);
    ticket.extend_from_slice(&number.to_be_bytes());
    ticket.extend_from_slice(&entropy.0);
    ticket.extend_from_slice(&now.to_be_bytes());
    ticket.extend_from_slice(state);
    let nonce = Nonce::assume_unique_for_key(entropy.0);
    let tag =
        key.seal_in_place_separate_tag(nonce, Aad::from(BOUND_TO), &mut ticket[HEADER..]).ok()?;
    ticket.extend_from_slice(tag.as_ref());
    Some(ticket)
}

/// `None` for what is forged or too old.
pub fn open(ring: &KeyRing, now: u64, ticket: &[u8]) -> Option<Vec<u8>> {
    if ticket.len() < HEADER + TIME + TAG {
        return None;
    }
    let (header, body) = ticket.split_at(HEADER);
    let key = ring.ticket(u32::from_be_bytes(header[..4].try_into().expect("four bytes")))?;
    let nonce = Nonce::try_assume_unique_for_key(&header[4..]).ok()?;
    let mut body = body.to_vec();
    let plain = key.open_in_place(nonce, Aad::from(BOUND_TO), &mut body).ok()?;
    let (made_at, state) = plain.split_first_chunk::<TIME>()?;
    let made_at = u64::from_be_bytes(*made_at);
    let good =
        made_at <= now + SKEW_MAX && now <= made_at.saturating_add(u64::from(LIFETIME_SECONDS));
    good.then(|| state.to_vec())
}

#[cfg(test)]
mod tests {
    use super::super::keys::Purpose;
    use super::*;

    const ENTROPY: Entropy = Entropy([9; 12]);
    const NOW: u64 = 1_800_000_000;

    fn ring(numbers: std::ops::RangeInclusive<u32>) -> KeyRing {
        KeyRing::new(20_000, numbers.map(|number| (Purpose::Ticket, number, [number as u8; 32])))
    }

    #[test]
    fn a_ticket_is_good_for_twelve_hours() {
        let ticket = seal(&ring(1..=3), NOW, ENTROPY, b"state").unwrap();
        let lifetime = u64::from(LIFETIME_SECONDS);
        for now in [NOW - SKEW_MAX, NOW, NOW + lifetime] {
            assert_eq!(open(&ring(1..=3), now, &ticket).as_deref(), Some(&b"state"[..]), "{now}");
        }
        assert_eq!(open(&ring(1..=3), NOW + lifetime + 1, &ticket), None);
        assert_eq!(open(&ring(1..=3), NOW - SKEW_MAX - 1, &ticket), None);
    }

    #[test]
    fn an_edge_that_has_not_heard_of_the_newest_key_opens_what_others_seal() {
        let ticket = seal(&ring(1..=4), NOW, ENTROPY, b"state").unwrap();
        assert!(open(&ring(1..=3), NOW, &ticket).is_some());
        assert!(open(&ring(1..=2), NOW, &ticket).is_none());
        assert!(seal(&ring(7..=7), NOW, ENTROPY, b"state").is_some(), "a lone key seals");
    }

    #[test]
    fn a_forged_or_cut_ticket_does_not_open() {
        let ring = ring(1..=3);
        let ticket = seal(&ring, NOW, ENTROPY, b"state").unwrap();
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(open(&ring, NOW, &forged), None, "byte {at}");
            assert_eq!(open(&ring, NOW, &ticket[..at]), None);
        }
    }

    #[test]
    fn without_a_key_there_is_no_ticket() {
        assert_eq!(seal(&KeyRing::default(), NOW, ENTROPY, b"state"), None);
    }
}
