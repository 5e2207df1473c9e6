//! The secrets that calls are signed with, and the signature: HMAC-SHA256 as Standard Webhooks has it.
//!
//! A secret leaves this process twice: in the answer that made it, as text, and in the store, sealed.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

const BYTES: usize = 32;
const PREFIX: &str = "whsec_";

#[expect(missing_debug_implementations, reason = "a secret")]
pub struct CallbackSecret(Zeroizing<Vec<u8>>);

impl CallbackSecret {
    /// From random bytes.
    pub fn new(bytes: [u8; BYTES]) -> CallbackSecret {
        CallbackSecret(Zeroizing::new(bytes.to_vec()))
    }

    pub(crate) fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> CallbackSecret {
        CallbackSecret(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As its owner keeps it: `whsec_` and base64.
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}", Zeroizing::new(STANDARD.encode(&*self.0)).as_str()))
    }

    /// `v1,` and the signature of a call at this time, in seconds since 1970.
    pub fn sign(&self, id: &str, at: u64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{id}.{at}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the reference libraries' tests.
    #[test]
    fn it_signs_as_the_reference_does() {
        let bytes = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let secret = CallbackSecret::from_bytes(Zeroizing::new(bytes));
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(&*secret.text(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let text = CallbackSecret::new([7; 32]).text();
        assert!(text.starts_with("whsec_") && text.len() == 6 + 44);
    }
}
