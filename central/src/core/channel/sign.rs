//! Private keys of credentials, and the JSON Web Tokens that they sign (RFC 7515, compact form).
//!
//! Keys live in types that nothing can print or copy. A key proves itself when it is read: it signs a text, and the
//! signature is verified with its public half.

use aws_lc_rs::agreement;
use aws_lc_rs::encoding::AsBigEndian as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair as _, RsaKeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

const PROBE: &[u8] = b"carillon";
/// What providers take: RSA-2048 and up; beyond 4096 a signature costs several ms.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// A P-256 key, for ES256.
#[expect(missing_debug_implementations, reason = "a secret")]
pub struct EcKey(EcdsaKeyPair);

/// An RSA key, for RS256.
#[expect(missing_debug_implementations, reason = "a secret")]
pub struct RsaKey(RsaKeyPair);

/// What is wrong with a key, without a word of it.
pub type KeyFault = &'static str;

impl EcKey {
    /// # Errors
    /// If it is not a P-256 key in PKCS #8, or does not sign.
    pub fn from_pem(pem: &str) -> Result<EcKey, KeyFault> {
        let der = pkcs8(pem)?;
        EcdsaKeyPair::from_pkcs8(
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            der.secret_pkcs8_der(),
        )
        .map_err(|_| "is not a P-256 key")
        .and_then(|pair| EcKey(pair).proven())
    }

    /// From the 32 bytes of the private number, which is how VAPID keys are handed around.
    ///
    /// # Errors
    /// If they are not a private key of P-256.
    pub fn from_scalar(scalar: &[u8]) -> Result<EcKey, KeyFault> {
        const WRONG: KeyFault = "is not the private number of a P-256 key";
        let public = agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, scalar)
            .and_then(|key| key.compute_public_key().map_err(Into::into))
            .map_err(|_| WRONG)?;
        EcdsaKeyPair::from_private_key_and_public_key(
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            scalar,
            public.as_ref(),
        )
        .map_err(|_| WRONG)
        .and_then(|pair| EcKey(pair).proven())
    }

    fn proven(self) -> Result<EcKey, KeyFault> {
        let public =
            UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, self.public().to_vec());
        let proven = public.verify(PROBE, &self.sign(PROBE)).is_ok();
        if proven { Ok(self) } else { Err("does not fit its own public half") }
    }

    /// The public point, uncompressed: 65 bytes.
    pub fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        // The generator is for other libraries' sake: this one draws its nonce itself.
        let signed = self.0.sign(&SystemRandom::new(), text);
        signed.expect("a P-256 key signs anything").as_ref().to_vec()
    }

    /// As [`EcKey::jwt`], but the same whenever and wherever it is made: the signature's nonce follows from the key and the
    /// text (RFC 6979), which the library of the other signatures cannot do.
    pub fn same_jwt(&self, kid: &str, claims: &Value) -> String {
        let number = self.0.private_key().as_be_bytes().expect("a key that signs has a number");
        let number: &[u8] = number.as_ref();
        let key = SigningKey::from_slice(number).expect("it was read as a key of P-256");
        let header = serde_json::json!({ "alg": "ES256", "typ": "JWT", "kid": kid });
        compact(&header, claims, |text| {
            let signature: Signature = key.sign(text);
            signature.to_bytes().to_vec()
        })
    }

    /// A token of `claims` under ES256; `kid` names the key.
    pub fn jwt(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = serde_json::json!({ "alg": "ES256", "typ": "JWT" });
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        compact(&header, claims, |text| self.sign(text))
    }
}

impl RsaKey {
    /// # Errors
    /// If it is not an RSA key of 2048 to 4096 bits in PKCS #8, or does not sign.
    pub fn from_pem(pem: &str) -> Result<RsaKey, KeyFault> {
        let der = pkcs8(pem)?;
        let pair =
            RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| "is not an RSA key")?;
        if !RSA_BYTES.contains(&pair.public_modulus_len()) {
            return Err("is not an RSA key of 2048 to 4096 bits");
        }
        let key = RsaKey(pair);
        let public = UnparsedPublicKey::new(
            &signature::RSA_PKCS1_2048_8192_SHA256,
            key.0.public_key().as_ref().to_vec(),
        );
        let proven = public.verify(PROBE, &key.sign(PROBE)).is_ok();
        if proven { Ok(key) } else { Err("does not fit its own public half") }
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        let mut signed = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signed)
            .expect("an RSA key of this size signs anything");
        signed
    }

    /// A token of `claims` under RS256; `kid` names the key.
    pub fn jwt(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = serde_json::json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        compact(&header, claims, |text| self.sign(text))
    }
}

fn pkcs8(pem: &str) -> Result<PrivatePkcs8KeyDer<'static>, KeyFault> {
    PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| "is not a PEM text that begins with -----BEGIN PRIVATE KEY-----")
}

fn compact(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let mut text = URL_SAFE_NO_PAD.encode(header.to_string());
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut text);
    let signed = sign(text.as_bytes());
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signed, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_verifies_under_the_public_half_and_names_its_key() {
        let made = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EcKey::from_pem(&made.serialize_pem()).unwrap();
        let jwt = key.jwt(Some("K"), &serde_json::json!({ "iss": "T", "iat": 7 }));
        let parts: Vec<&str> = jwt.split('.').collect();
        let json = |part: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!(json(parts[0])["kid"], "K");
        assert_eq!(json(parts[0])["alg"], "ES256");
        assert_eq!(json(parts[1]), serde_json::json!({ "iss": "T", "iat": 7 }));
        let public = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, key.public());
        let signed = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
        public.verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &signed).unwrap();
    }

    #[test]
    fn keys_of_another_kind_are_refused() {
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        assert_eq!(EcKey::from_pem(&p384.serialize_pem()).err(), Some("is not a P-256 key"));
        assert_eq!(RsaKey::from_pem(&p256.serialize_pem()).err(), Some("is not an RSA key"));
        assert!(EcKey::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA").is_err());
        assert!(EcKey::from_scalar(&[0; 32]).is_err(), "zero is no key");
        assert!(EcKey::from_scalar(&[1; 31]).is_err());
        assert!(EcKey::from_scalar(&[1; 32]).is_ok());
    }
}
