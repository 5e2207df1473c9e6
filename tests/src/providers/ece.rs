//! Opens message bodies (RFC 8188, RFC 8291), as a browser does.
//!
//! ```text
//! salt 16 | record size 4 | length of key id 1 | key id: sender's public point 65 | one record
//! ```

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

const SALT_BYTES: usize = 16;
const POINT_BYTES: usize = 65;
const HEADER_BYTES: usize = SALT_BYTES + 4 + 1 + POINT_BYTES;
const TAG_BYTES: usize = 16;
/// A record has its delimiter and its tag at least.
const RECORD_MIN: usize = 1 + TAG_BYTES;
const LAST_RECORD: u8 = 2;

/// A browser's half of a subscription.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) private: PrivateKey,
    /// The uncompressed point.
    pub(super) public: Vec<u8>,
    pub(super) auth: [u8; 16],
}

/// A body whose form is right.
#[derive(Debug)]
pub(super) struct Sealed<'a> {
    salt: &'a [u8],
    sender: &'a [u8],
    record: &'a [u8],
}

/// Cuts a body into its parts; the error is the breach.
pub(super) fn parse(body: &[u8]) -> Result<Sealed<'_>, &'static str> {
    if body.len() < HEADER_BYTES + RECORD_MIN {
        return Err("body_short");
    }
    let (header, record) = body.split_at(HEADER_BYTES);
    let (salt, rest) = header.split_at(SALT_BYTES);
    let size = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
    if usize::from(rest[4]) != POINT_BYTES || rest[5] != 4 {
        return Err("body_key_id");
    }
    // RFC 8291, section 4: one record, which is the last.
    if (size as usize) < RECORD_MIN + 1 || record.len() > size as usize {
        return Err("body_record_size");
    }
    Ok(Sealed { salt, sender: &rest[5..], record })
}

/// A length of key material.
#[derive(Clone, Copy)]
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(prk: &Prk, info: &[&[u8]]) -> Option<[u8; N]> {
    let mut out = [0; N];
    prk.expand(info, Bytes(N)).ok()?.fill(&mut out).ok()?;
    Some(out)
}

impl Receiver {
    /// The plaintext; `None` if the body was not made for this subscription.
    pub(super) fn open(&self, sealed: &Sealed<'_>) -> Option<Vec<u8>> {
        let sender = UnparsedPublicKey::new(&ECDH_P256, sealed.sender);
        let ikm: [u8; 32] = agree(&self.private, sender, (), |secret| {
            let prk = Salt::new(HKDF_SHA256, &self.auth).extract(secret);
            expand(&prk, &[b"WebPush: info\0", &self.public, sealed.sender]).ok_or(())
        })
        .ok()?;
        let prk = Salt::new(HKDF_SHA256, sealed.salt).extract(&ikm);
        let key: [u8; 16] = expand(&prk, &[b"Content-Encoding: aes128gcm\0"])?;
        let nonce: [u8; 12] = expand(&prk, &[b"Content-Encoding: nonce\0"])?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?);
        let mut plain = sealed.record.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = key.open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
        plain.truncate(opened);
        // The delimiter of the last record, then nothing but padding.
        let end = plain.iter().rposition(|byte| *byte != 0)?;
        if plain[end] != LAST_RECORD {
            return None;
        }
        plain.truncate(end);
        Some(plain)
    }
}
