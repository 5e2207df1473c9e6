//! JSON web tokens, taken apart and verified by hand (RFC 7515, RFC 7519).

use aws_lc_rs::signature::{UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Longer ones are not looked at; an RS256 token with few claims has some 800.
const TEXT_MAX: usize = 4096;

/// A token whose signature is not checked yet.
#[derive(Debug)]
pub(super) struct Jwt<'a> {
    pub(super) header: Value,
    pub(super) claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    /// `None` if it is no token: three parts of base64url without padding, the first two JSON objects.
    pub(super) fn parse(text: &'a str) -> Option<Jwt<'a>> {
        if text.len() > TEXT_MAX {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let object = |part: &str| -> Option<Value> {
            let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
            value.is_object().then_some(value)
        };
        Some(Jwt {
            header: object(header)?,
            claims: object(claims)?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// The header's `alg` is `name`, and the signature is that of `public`.
    pub(super) fn is_signed(
        &self,
        name: &str,
        algorithm: &'static dyn VerificationAlgorithm,
        public: &[u8],
    ) -> bool {
        self.header["alg"] == name
            && UnparsedPublicKey::new(algorithm, public)
                .verify(self.signed.as_bytes(), &self.signature)
                .is_ok()
    }

    pub(super) fn claim(&self, name: &str) -> Option<&str> {
        self.claims[name].as_str()
    }

    /// A time of the claims, in seconds since 1970.
    pub(super) fn time(&self, name: &str) -> Option<u64> {
        self.claims[name].as_u64()
    }
}
