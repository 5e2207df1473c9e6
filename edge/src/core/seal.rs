//! Sessions and cursors as text that only the tiers can make or read.
//!
//! ```text
//! base64url, no padding:
//! | version = 1 (1 byte) | day (u32, big-endian) | nonce (12) | ciphertext and tag (AES-256-GCM-SIV) |
//! ```
//!
//! The plaintext is a MessagePack array to which later versions may append: an opener ignores elements that it does
//! not know, and fills what an older sealer left out. A session is bound to its purpose; what it says is who. A
//! cursor is bound to its device as well, so that no other device's cursor opens. The nonce comes from the caller,
//! which keeps this pure; the cipher tolerates a repeated one.

use aws_lc_rs::aead::{Aad, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon_world::{AppId, Cursor, DeviceId, Position};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::keys::{KeyRing, Purpose};

/// Length in characters of the longest session or cursor that is looked at.
pub const SEALED_MAX: usize = 1024;

const VERSION: u8 = 1;
/// Version, day and nonce.
const HEADER: usize = 1 + 4 + NONCE;
const NONCE: usize = 12;
const TAG: usize = 16;

/// Twelve random bytes, drawn once per request. A session and a cursor may share them, since their keys differ.
#[derive(Clone, Copy, Debug)]
pub struct Entropy(pub [u8; NONCE]);

/// Who is asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    pub app: AppId,
    pub device: DeviceId,
    /// The enrolment, revocation or secret reset that made this session valid.
    pub generation: Position,
}

/// Why a text does not open. Devices learn only that it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("sealed text is malformed")]
    Malformed,
    #[error("no key of day {day}")]
    UnknownDay {
        day: u32,
        /** Later than any key here. */
        ahead: bool,
    },
    #[error("sealed text is forged or belongs to another device")]
    Forged,
}

/// `None` while the ring has no key of its day.
pub fn seal_session(ring: &KeyRing, entropy: Entropy, session: &Session) -> Option<String> {
    let body = rmp_serde::to_vec(&(session.app, session.device, session.generation))
        .expect("plain data encodes");
    seal(ring, Purpose::Session, b"session", entropy, body)
}

/// # Errors
/// If the text was not sealed as a session with a key that is still accepted.
pub fn open_session(ring: &KeyRing, text: &str) -> Result<Session, OpenError> {
    let SessionBody(session) = open(ring, Purpose::Session, b"session", text)?;
    Ok(session)
}

/// `None` while the ring has no key of its day.
pub fn seal_cursor(
    ring: &KeyRing,
    entropy: Entropy,
    app: AppId,
    device: DeviceId,
    cursor: &Cursor,
) -> Option<String> {
    let Cursor { held, floor, fresh, digest, volatile } = *cursor;
    // What is not known is left out, as by the release before.
    let body = match volatile {
        None => rmp_serde::to_vec(&(held, floor, fresh, digest)),
        Some(volatile) => rmp_serde::to_vec(&(held, floor, fresh, digest, volatile)),
    };
    let body = body.expect("plain data encodes");
    seal(ring, Purpose::Cursor, &cursor_aad(app, device), entropy, body)
}

/// # Errors
/// If the text was not sealed as a cursor of this device with a key that is still accepted.
pub fn open_cursor(
    ring: &KeyRing,
    app: AppId,
    device: DeviceId,
    text: &str,
) -> Result<Cursor, OpenError> {
    let CursorBody(cursor) = open(ring, Purpose::Cursor, &cursor_aad(app, device), text)?;
    Ok(cursor)
}

/// Purpose, app and device, each of fixed length, so that no two devices share one.
fn cursor_aad(app: AppId, device: DeviceId) -> [u8; 22] {
    let mut aad = [0; 22];
    aad[..6].copy_from_slice(b"cursor");
    aad[6..14].copy_from_slice(&app.get().to_be_bytes());
    aad[14..].copy_from_slice(&device.get().to_be_bytes());
    aad
}

fn seal(
    ring: &KeyRing,
    purpose: Purpose,
    aad: &[u8],
    entropy: Entropy,
    body: Vec<u8>,
) -> Option<String> {
    let (day, key) = ring.sealing(purpose)?;
    let mut sealed = Vec::with_capacity(HEADER + body.len() + TAG);
    sealed.push(VERSION);
    sealed.extend_from_slice(&day.to_be_bytes());
    sealed.extend_from_slice(&entropy.0);
    let mut text = body;
    let nonce = Nonce::assume_unique_for_key(entropy.0);
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut text)
        .expect("a short text can be sealed");
    sealed.append(&mut text);
    Some(URL_SAFE_NO_PAD.encode(sealed))
}

fn open<T: for<'de> Deserialize<'de>>(
    ring: &KeyRing,
    purpose: Purpose,
    aad: &[u8],
    text: &str,
) -> Result<T, OpenError> {
    if text.len() > SEALED_MAX {
        return Err(OpenError::Malformed);
    }
    let mut bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| OpenError::Malformed)?;
    if bytes.len() < HEADER + TAG || bytes[0] != VERSION {
        return Err(OpenError::Malformed);
    }
    let (header, body) = bytes.split_at_mut(HEADER);
    let day = u32::from_be_bytes(header[1..5].try_into().expect("four bytes"));
    let nonce = Nonce::try_assume_unique_for_key(&header[5..]).expect("twelve bytes");
    let unknown = || OpenError::UnknownDay { day, ahead: ring.is_ahead(purpose, day) };
    let key = ring.opening(purpose, day).ok_or_else(unknown)?;
    let plain = key.open_in_place(nonce, Aad::from(aad), body).map_err(|_| OpenError::Forged)?;
    rmp_serde::from_slice(plain).map_err(|_| OpenError::Malformed)
}

/// Reads past the elements that a later version appended.
fn skip_rest<'de, A: SeqAccess<'de>>(seq: &mut A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

struct SessionBody(Session);

impl<'de> Deserialize<'de> for SessionBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SessionBody, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = SessionBody;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the elements of a session")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<SessionBody, A::Error> {
                let missing = |at| serde::de::Error::invalid_length(at, &"a whole session");
                let app = seq.next_element()?.ok_or_else(|| missing(0))?;
                let device = seq.next_element()?.ok_or_else(|| missing(1))?;
                let generation = seq.next_element()?.ok_or_else(|| missing(2))?;
                skip_rest(&mut seq)?;
                Ok(SessionBody(Session { app, device, generation }))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

struct CursorBody(Cursor);

impl<'de> Deserialize<'de> for CursorBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CursorBody, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = CursorBody;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the elements of a cursor")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<CursorBody, A::Error> {
                let missing = |at| serde::de::Error::invalid_length(at, &"a whole cursor");
                let held = seq.next_element()?.ok_or_else(|| missing(0))?;
                let floor = seq.next_element()?.ok_or_else(|| missing(1))?;
                let fresh = seq.next_element()?.ok_or_else(|| missing(2))?;
                let digest = seq.next_element()?.ok_or_else(|| missing(3))?;
                // Not in the cursors of the release before.
                let volatile = seq.next_element::<Option<u64>>()?.flatten();
                skip_rest(&mut seq)?;
                Ok(CursorBody(Cursor { held, floor, fresh, digest, volatile }))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

#[cfg(test)]
mod tests;
