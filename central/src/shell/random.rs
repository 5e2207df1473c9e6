//! Names that nobody can guess: ids and keys, from the operating system's generator by way of ChaCha.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// 64 random bits.
pub(crate) fn id() -> u64 {
    rand::random()
}

/// So many random bytes, as URL-safe base64.
pub(crate) fn text(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut buffer);
    URL_SAFE_NO_PAD.encode(buffer)
}

pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    rand::random()
}
