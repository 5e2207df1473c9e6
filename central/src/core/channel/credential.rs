//! Credentials: what an app shows a provider, and how it is kept.
//!
//! An admin gives one as JSON; it can be replaced and deleted but never read back. What is stored is
//! [sealed](CredentialKeys) under a key from central's configuration and bound to the app and the channel, so that a
//! row copied to another app opens nothing. Neither a credential nor anything that holds one has `Debug`, `Clone` or a
//! serde form; what may be shown is [`Credential::about`].
//!
//! | channel | JSON |
//! | --- | --- |
//! | `apns` | `{"team_id": "…", "key_id": "…", "key": "-----BEGIN PRIVATE KEY-----…", "topic": "com.example.app"}` |
//! | `fcm` | the service account's JSON as Google gives it: `project_id`, `client_email`, `private_key`; the rest is ignored |
//! | `web_push` | `{"subject": "mailto:ops@example.com", "private_key": "base64url of 32 bytes"}` |

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use carillon_world::{AppId, PushChannel};
use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use super::sign::{EcKey, RsaKey};

/// Bytes of a credential's JSON at most. A service account has about 2,400.
pub const CREDENTIAL_BYTES_MAX: usize = 16 * 1024;

/// An app's right to push over one channel, with keys that were tried.
#[expect(missing_debug_implementations, reason = "a secret")]
pub enum Credential {
    Apns(ApnsCredential),
    Fcm(FcmCredential),
    WebPush(WebPushCredential),
}

#[expect(missing_debug_implementations, reason = "a secret")]
pub struct ApnsCredential {
    pub team_id: Arc<str>,
    pub key_id: Arc<str>,
    /// The app's bundle id.
    pub topic: Arc<str>,
    pub key: EcKey,
}

#[expect(missing_debug_implementations, reason = "a secret")]
pub struct FcmCredential {
    pub project_id: Arc<str>,
    pub client_email: Arc<str>,
    pub private_key_id: Option<Arc<str>>,
    pub key: RsaKey,
}

#[expect(missing_debug_implementations, reason = "a secret")]
pub struct WebPushCredential {
    /// Whom a push service may write to: `mailto:` or `https:`.
    pub subject: Arc<str>,
    pub key: EcKey,
}

/// What is wrong with a credential's JSON, without a word of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {fault}")]
pub struct CredentialError {
    /// As in the JSON; `credential` if it is not one field's fault.
    pub field: &'static str,
    pub fault: &'static str,
}

const fn wrong(field: &'static str, fault: &'static str) -> CredentialError {
    CredentialError { field, fault }
}

// Fields that the provider's own file has and we need not are ignored, because admins paste that file.
#[derive(Deserialize)]
struct Raw {
    team_id: Option<String>,
    key_id: Option<String>,
    key: Option<Zeroizing<String>>,
    topic: Option<String>,
    project_id: Option<String>,
    client_email: Option<String>,
    private_key_id: Option<String>,
    private_key: Option<Zeroizing<String>>,
    subject: Option<String>,
}

fn needed<T>(field: &'static str, value: Option<T>) -> Result<T, CredentialError> {
    value.ok_or(wrong(field, "is missing"))
}

/// Text that may stand in a URL, a header and a log: letters, digits and some signs.
fn plain(
    field: &'static str,
    value: Option<String>,
    signs: &str,
    bytes_max: usize,
) -> Result<Arc<str>, CredentialError> {
    let value = needed(field, value)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || signs.contains(c);
    if value.is_empty() || value.len() > bytes_max || !value.chars().all(is_plain) {
        return Err(wrong(field, "is empty, too long, or has characters that do not belong there"));
    }
    Ok(value.into())
}

impl Credential {
    /// Reads a credential and tries its key: a signature is made and verified.
    ///
    /// # Errors
    /// The first fault found. Its text is safe to show.
    pub fn parse(channel: PushChannel, json: &[u8]) -> Result<Credential, CredentialError> {
        if json.len() > CREDENTIAL_BYTES_MAX {
            return Err(wrong("credential", "is longer than 16 KiB"));
        }
        // The parser's own message may quote the text.
        let raw: Raw = serde_json::from_slice(json).map_err(|_| {
            wrong("credential", "is not a JSON object whose fields are texts, each given once")
        })?;
        match channel {
            PushChannel::Apns => {
                let ten = |field, value: Option<String>| {
                    let text = plain(field, value, "", 10)?;
                    if text.len() == 10 { Ok(text) } else { Err(wrong(field, "has 10 characters")) }
                };
                let key = EcKey::from_pem(&needed("key", raw.key)?);
                Ok(Credential::Apns(ApnsCredential {
                    team_id: ten("team_id", raw.team_id)?,
                    key_id: ten("key_id", raw.key_id)?,
                    topic: plain("topic", raw.topic, ".-_", 255)?,
                    key: key.map_err(|fault| wrong("key", fault))?,
                }))
            }
            PushChannel::Fcm => {
                let key = RsaKey::from_pem(&needed("private_key", raw.private_key)?);
                Ok(Credential::Fcm(FcmCredential {
                    project_id: plain("project_id", raw.project_id, ".-:", 128)?,
                    client_email: plain("client_email", raw.client_email, "@.-_+", 320)?,
                    private_key_id: match raw.private_key_id {
                        None => None,
                        id => Some(plain("private_key_id", id, "-_", 128)?),
                    },
                    key: key.map_err(|fault| wrong("private_key", fault))?,
                }))
            }
            PushChannel::WebPush => {
                let subject = plain("subject", raw.subject, "@.-_+:/~%=?&", 320)?;
                let is_contact = subject.strip_prefix("mailto:").is_some_and(|to| to.contains('@'))
                    || subject.strip_prefix("https://").is_some_and(|to| !to.is_empty());
                if !is_contact {
                    return Err(wrong("subject", "begins with mailto: or https://"));
                }
                let text = needed("private_key", raw.private_key)?;
                let key = if text.starts_with("-----BEGIN") {
                    EcKey::from_pem(&text)
                } else {
                    let scalar = URL_SAFE_NO_PAD
                        .decode(text.trim_end_matches('='))
                        .map(Zeroizing::new)
                        .map_err(|_| wrong("private_key", "is neither base64url nor PEM"))?;
                    EcKey::from_scalar(&scalar)
                };
                let key = key.map_err(|fault| wrong("private_key", fault))?;
                Ok(Credential::WebPush(WebPushCredential { subject, key }))
            }
        }
    }

    pub const fn channel(&self) -> PushChannel {
        match self {
            Credential::Apns(_) => PushChannel::Apns,
            Credential::Fcm(_) => PushChannel::Fcm,
            Credential::WebPush(_) => PushChannel::WebPush,
        }
    }

    /// What may be shown of it: whose it is, and which key. Web Push: the public key that browsers subscribe with
    /// (`applicationServerKey`).
    pub fn about(&self) -> String {
        match self {
            Credential::Apns(c) => {
                format!("team {}, key {}, topic {}", c.team_id, c.key_id, c.topic)
            }
            Credential::Fcm(c) => format!("project {}, {}", c.project_id, c.client_email),
            Credential::WebPush(c) => c.public_key(),
        }
    }
}

impl WebPushCredential {
    /// The public point as base64url, as browsers take it.
    pub fn public_key(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key.public())
    }
}

/// One key that credentials are sealed under: 32 bytes from configuration. `Debug` shows its id alone.
pub struct CredentialKey {
    id: [u8; KEY_ID_LEN],
    cipher: LessSafeKey,
}

const VERSION: u8 = 1;
const KEY_ID_LEN: usize = 4;
const HEADER_LEN: usize = 1 + KEY_ID_LEN + NONCE_LEN;
pub const SEAL_NONCE_LEN: usize = NONCE_LEN;

impl CredentialKey {
    pub fn new(mut bytes: [u8; 32]) -> CredentialKey {
        let cipher = UnboundKey::new(&AES_256_GCM_SIV, &bytes).expect("the cipher takes 32 bytes");
        // Enough to tell a handful of keys apart, and says nothing of the key.
        let mut labelled = Zeroizing::new(b"carillon/v1/credential-key-id".to_vec());
        labelled.extend_from_slice(&bytes);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &labelled);
        bytes.zeroize();
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&digest.as_ref()[..KEY_ID_LEN]);
        CredentialKey { id, cipher: LessSafeKey::new(cipher) }
    }
}

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The keys of one installation: the first seals, all open. To rotate, put a key first, seal what is stored again,
/// take the old key out.
///
/// ```text
///  byte 0       version, 1
///  bytes 1-4    id of the key: first bytes of SHA-256("carillon/v1/credential-key-id" ‖ key)
///  bytes 5-16   nonce
///  from 17 on   AES-256-GCM-SIV of the JSON; associated data: version, key id, app id (8 bytes, big endian), channel;
///                of a secret of a callback its id (8 bytes, big endian), too
/// ```
#[derive(Debug)]
pub struct CredentialKeys(Vec<CredentialKey>);

/// Why a sealed credential does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("a stored credential was sealed under a key that is not configured")]
    UnknownKey,
    /// Damaged, or of another app or channel.
    #[error("a stored credential does not open as one of this app and channel")]
    Damaged,
}

impl CredentialKeys {
    /// `None` without a key.
    pub fn new(keys: Vec<CredentialKey>) -> Option<CredentialKeys> {
        (!keys.is_empty()).then_some(CredentialKeys(keys))
    }

    /// Seals a credential's JSON. The nonce is random; should one come twice, all that shows is whether the same JSON
    /// was sealed for the same app.
    pub fn seal(
        &self,
        app: AppId,
        channel: PushChannel,
        json: &[u8],
        nonce: [u8; SEAL_NONCE_LEN],
    ) -> Bytes {
        self.seal_for(Use::Credential(channel), app, json, nonce)
    }

    /// Seals a secret of a callback.
    pub(crate) fn seal_callback(
        &self,
        app: AppId,
        callback: u64,
        secret: &[u8],
        nonce: [u8; SEAL_NONCE_LEN],
    ) -> Bytes {
        self.seal_for(Use::Callback(callback), app, secret, nonce)
    }

    /// The secret that was sealed for this callback.
    ///
    /// # Errors
    /// As [`CredentialKeys::open`].
    pub(crate) fn open_callback(
        &self,
        app: AppId,
        callback: u64,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.open_for(Use::Callback(callback), app, sealed)
    }

    fn seal_for(&self, of: Use, app: AppId, text: &[u8], nonce: [u8; SEAL_NONCE_LEN]) -> Bytes {
        let key = &self.0[0];
        let mut text = text.to_vec();
        key.cipher
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound_to(key.id, app, of)),
                &mut text,
            )
            .expect("the cipher takes texts of this length");
        let mut sealed = Vec::with_capacity(HEADER_LEN + text.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&text);
        sealed.into()
    }

    /// The JSON that was sealed; wiped when it is dropped.
    ///
    /// # Errors
    /// If the key is not among these, or the bytes are not what was sealed for this app and channel.
    pub fn open(
        &self,
        app: AppId,
        channel: PushChannel,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.open_for(Use::Credential(channel), app, sealed)
    }

    fn open_for(
        &self,
        of: Use,
        app: AppId,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (header, text) = sealed.split_at_checked(HEADER_LEN).ok_or(OpenError::Damaged)?;
        if header[0] != VERSION {
            return Err(OpenError::Damaged);
        }
        let id = &header[1..=KEY_ID_LEN];
        let key = self.0.iter().find(|key| key.id == id).ok_or(OpenError::UnknownKey)?;
        let mut text = Zeroizing::new(text.to_vec());
        let nonce = Nonce::try_assume_unique_for_key(&header[1 + KEY_ID_LEN..])
            .map_err(|_| OpenError::Damaged)?;
        let aad = Aad::from(bound_to(key.id, app, of));
        let opened =
            key.cipher.open_in_place(nonce, aad, &mut text).map_err(|_| OpenError::Damaged)?.len();
        text.truncate(opened);
        Ok(text)
    }
}

/// What is sealed opens for this use alone.
#[derive(Clone, Copy)]
enum Use {
    Credential(PushChannel),
    Callback(u64),
}

fn bound_to(id: [u8; KEY_ID_LEN], app: AppId, of: Use) -> Vec<u8> {
    let mut bound = Vec::with_capacity(6 + 8 + 8);
    bound.push(VERSION);
    bound.extend(id);
    bound.push(match of {
        Use::Credential(PushChannel::Apns) => 1,
        Use::Credential(PushChannel::Fcm) => 2,
        Use::Credential(PushChannel::WebPush) => 3,
        Use::Callback(_) => 4,
    });
    bound.extend(app.get().to_be_bytes());
    if let Use::Callback(callback) = of {
        bound.extend(callback.to_be_bytes());
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "MARK-OF-A-SECRET";

    fn ec_pem() -> String {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem()
    }

    fn rsa_pem() -> String {
        use aws_lc_rs::encoding::AsDer as _;
        let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let der = pair.as_der().unwrap();
        let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
    }

    fn fault(channel: PushChannel, json: &serde_json::Value) -> String {
        let error = Credential::parse(channel, json.to_string().as_bytes()).err().unwrap();
        assert!(!error.to_string().contains("MARK"), "{error}");
        error.to_string()
    }

    #[test]
    fn a_credential_says_whose_it_is_and_nothing_else() {
        let apns = serde_json::json!({
            "team_id": "ABCDE12345", "key_id": "KEY1234567", "key": ec_pem(), "topic": "com.example.app"
        });
        let read = |channel, json: &serde_json::Value| {
            Credential::parse(channel, json.to_string().as_bytes()).map(|c| c.about())
        };
        assert_eq!(
            read(PushChannel::Apns, &apns).unwrap(),
            "team ABCDE12345, key KEY1234567, topic com.example.app"
        );
        let fcm = serde_json::json!({
            "type": "service_account", "project_id": "demo-1", "private_key_id": "0f",
            "private_key": rsa_pem(), "client_email": "push@demo-1.iam.gserviceaccount.com",
            "token_uri": "https://evil.example/token"
        });
        assert_eq!(
            read(PushChannel::Fcm, &fcm).unwrap(),
            "project demo-1, push@demo-1.iam.gserviceaccount.com"
        );
        // The key of RFC 8292's examples is not published; this one is of RFC 8291's appendix.
        let web_push = serde_json::json!({
            "subject": "mailto:a@b.example", "private_key": "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
        });
        assert_eq!(
            read(PushChannel::WebPush, &web_push).unwrap(),
            "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8"
        );
    }

    #[test]
    fn a_fault_names_its_field_and_quotes_nothing() {
        let good = serde_json::json!({
            "team_id": "ABCDE12345", "key_id": "KEY1234567", "key": ec_pem(), "topic": "com.example.app"
        });
        for (field, value, expected) in [
            ("team_id", serde_json::json!(null), "team_id is missing"),
            ("team_id", "MARK".into(), "team_id has 10 characters"),
            ("topic", "com.example/MARK".into(), "topic is empty, too long"),
            ("topic", "a\r\nMARK: x".into(), "topic is empty, too long"),
            ("key", MARK.into(), "key is not a PEM text"),
            ("key", rsa_pem().into(), "key is not a P-256 key"),
            ("key", 7.into(), "credential is not a JSON object"),
        ] {
            let mut json = good.clone();
            json[field] = value;
            let text = fault(PushChannel::Apns, &json);
            assert!(text.starts_with(expected), "{field}: {text}");
        }
        assert_eq!(fault(PushChannel::Fcm, &good), "private_key is missing");
        let web_push = serde_json::json!({ "subject": "tel:1", "private_key": MARK });
        assert_eq!(
            fault(PushChannel::WebPush, &web_push),
            "subject begins with mailto: or https://"
        );
        let web_push = serde_json::json!({ "subject": "mailto:a@b", "private_key": MARK });
        assert!(fault(PushChannel::WebPush, &web_push).starts_with("private_key is"));
        let long = vec![b' '; CREDENTIAL_BYTES_MAX + 1];
        let error = Credential::parse(PushChannel::Apns, &long).err().unwrap();
        assert_eq!(error.field, "credential");
    }

    #[test]
    fn what_is_sealed_opens_for_its_app_and_channel_alone_and_keys_can_be_rotated() {
        let keys = |seeds: &[u8]| {
            CredentialKeys::new(seeds.iter().map(|seed| CredentialKey::new([*seed; 32])).collect())
                .unwrap()
        };
        let (app, other) = (AppId::new(1), AppId::new(2));
        let old = keys(&[1]);
        let sealed = old.seal(app, PushChannel::Apns, MARK.as_bytes(), [9; SEAL_NONCE_LEN]);
        let open = |keys: &CredentialKeys, app, channel, sealed: &[u8]| {
            keys.open(app, channel, sealed).map(|text| text.to_vec())
        };
        assert!(!sealed.windows(4).any(|window| window == b"MARK"));
        assert_eq!(open(&old, app, PushChannel::Apns, &sealed), Ok(MARK.into()));
        assert_eq!(open(&keys(&[2, 1]), app, PushChannel::Apns, &sealed), Ok(MARK.into()));
        assert_eq!(open(&keys(&[2]), app, PushChannel::Apns, &sealed), Err(OpenError::UnknownKey));
        assert_eq!(open(&old, other, PushChannel::Apns, &sealed), Err(OpenError::Damaged));
        assert_eq!(open(&old, app, PushChannel::Fcm, &sealed), Err(OpenError::Damaged));
        for at in 0..sealed.len() {
            let mut bent = sealed.to_vec();
            bent[at] ^= 1;
            assert!(open(&old, app, PushChannel::Apns, &bent).is_err(), "byte {at}");
            assert!(open(&old, app, PushChannel::Apns, &sealed[..at]).is_err(), "cut at {at}");
        }
        let secret = old.seal_callback(app, 7, MARK.as_bytes(), [9; SEAL_NONCE_LEN]);
        let open = |app, id| old.open_callback(app, id, &secret).map(|text| text.to_vec());
        assert_eq!(open(app, 7), Ok(MARK.into()));
        assert_eq!(
            (open(app, 8), open(other, 7)),
            (Err(OpenError::Damaged), Err(OpenError::Damaged))
        );
        assert!(old.open(app, PushChannel::Apns, &secret).is_err());
        assert!(!format!("{old:?}").contains("[1, 1, 1, 1, 1"));
        assert!(CredentialKeys::new(Vec::new()).is_none());
    }
}
