//! Web Push: subscriptions, encryption (RFC 8291 over RFC 8188), the sender's proof (RFC 8292), and what an answer
//! means (RFC 8030).
//!
//! Randomness comes in: a salt and a key pair for each push.
//!
//! ```text
//!  body = salt (16) ‖ record size (4) ‖ 65 ‖ our public key (65) ‖ AES-128-GCM(text ‖ 0x02 ‖ zeros)
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use carillon_world::{Millis, Priority};
use serde::Deserialize;
use serde_json::json;

use super::credential::WebPushCredential;
use super::payload::{failed, fits, hex, later, merge, seconds_left};
use super::{Notice, NoticeError, Outcome, Scope};
use crate::core::outbound::{HttpsUrl, UrlError};

pub const SALT_LEN: usize = 16;
const AUTH_LEN: usize = 16;
const POINT_LEN: usize = 65;
const TAG_LEN: usize = 16;
const HEADER_LEN: usize = SALT_LEN + 4 + 1 + POINT_LEN;
/// Every push service takes a body of 4096 bytes (RFC 8030, section 7.2); RFC 8291 wants one record.
const BODY_BYTES_MAX: usize = 4096;
/// What is left of that for the text: 3993.
pub const TEXT_BYTES_MAX: usize = BODY_BYTES_MAX - HEADER_LEN - TAG_LEN - 1;
/// Texts are padded to one of these, so that a body's length tells a push service at most which of four a text fits
/// into: a wake is as long as a short alert.
const PADDED: [usize; 4] = [512, 1024, 2048, TEXT_BYTES_MAX];
/// Bytes of a subscription's JSON at most: a URL and two keys.
const SUBSCRIPTION_BYTES_MAX: usize = 4096;
/// Push services differ in how long they keep something; four weeks is what browsers' services take at most.
const TTL_MAX: u64 = 28 * 24 * 60 * 60;
/// How long a proof is used, and when it ends; RFC 8292 allows 24 hours.
const PROOF_USED: u64 = 8 * 60 * 60 * 1000;
const PROOF_ENDS: u64 = 12 * 60 * 60;

/// Browsers' scripts hand keys out with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a browser's `PushSubscription.toJSON()` gave. Whoever has it can push, so `Debug` shows the origin alone.
pub struct Subscription {
    pub endpoint: HttpsUrl,
    point: [u8; POINT_LEN],
    auth: [u8; AUTH_LEN],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    #[error("expected a push subscription's JSON with endpoint, keys.p256dh and keys.auth")]
    Shape,
    #[error("the endpoint cannot be used: {0}")]
    Endpoint(UrlError),
    #[error("p256dh is the base64url of a P-256 point of 65 bytes, auth that of 16 bytes")]
    Keys,
}

impl Subscription {
    /// # Errors
    /// If the token is not a subscription that we can encrypt for.
    pub fn parse(token: &str) -> Result<Subscription, SubscriptionError> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            #[serde(borrow)]
            endpoint: std::borrow::Cow<'a, str>,
            #[serde(borrow)]
            keys: RawKeys<'a>,
        }
        #[derive(Deserialize)]
        struct RawKeys<'a> {
            #[serde(borrow)]
            p256dh: std::borrow::Cow<'a, str>,
            #[serde(borrow)]
            auth: std::borrow::Cow<'a, str>,
        }
        if token.len() > SUBSCRIPTION_BYTES_MAX {
            return Err(SubscriptionError::Shape);
        }
        let raw: Raw<'_> = serde_json::from_str(token).map_err(|_| SubscriptionError::Shape)?;
        let endpoint = raw.endpoint.parse().map_err(SubscriptionError::Endpoint)?;
        let decoded = |text: &str| BASE64.decode(text).map_err(|_| SubscriptionError::Keys);
        let point: [u8; POINT_LEN] =
            decoded(&raw.keys.p256dh)?.try_into().map_err(|_| SubscriptionError::Keys)?;
        let auth = decoded(&raw.keys.auth)?.try_into().map_err(|_| SubscriptionError::Keys)?;
        Ok(Subscription { endpoint, point, auth })
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A notice before it is encrypted for one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Padded already.
    text: Bytes,
    pub urgency: &'static str,
    pub topic: Arc<str>,
    expires_at: Millis,
}

impl Push {
    /// Seconds that the push service may keep it.
    pub const fn ttl(&self, now: Millis) -> u64 {
        seconds_left(now, self.expires_at, TTL_MAX)
    }
}

/// Puts a notice into the form that a service worker gets: `{"carillon":"wake"}`, or the text of an alert with its
/// message's id.
///
/// # Errors
/// If it is larger than push services take.
pub fn render(notice: &Notice) -> Result<Push, NoticeError> {
    let payload = match &notice.text {
        None => json!({ "carillon": "wake" }),
        Some(text) => {
            let mut payload = json!({
                "carillon": "alert", "message": hex(notice.message),
                "title": &*text.title, "body": &*text.body,
            });
            if let (Some(over), Some(payload)) =
                (&notice.overrides.webpush, payload.as_object_mut())
            {
                merge(payload, over);
            }
            payload
        }
    };
    let mut text = payload.to_string().into_bytes();
    fits("web_push", text.len(), TEXT_BYTES_MAX)?;
    let padded = PADDED.into_iter().find(|len| *len >= text.len()).unwrap_or(TEXT_BYTES_MAX);
    text.push(0x02);
    text.resize(padded + 1, 0);
    Ok(Push {
        text: text.into(),
        urgency: match notice.priority {
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        },
        topic: notice.collapse.clone(),
        expires_at: notice.expires_at,
    })
}

/// The request's body: the push encrypted for one subscription with a fresh salt and a fresh key of ours.
///
/// # Errors
/// [`SubscriptionError::Keys`] if the subscription's key is no point of the curve.
pub fn encrypt(
    push: &Push,
    subscription: &Subscription,
    salt: [u8; SALT_LEN],
    ours: &PrivateKey,
) -> Result<Bytes, SubscriptionError> {
    seal(&push.text, subscription, salt, ours)
}

fn seal(
    padded: &[u8],
    subscription: &Subscription,
    salt: [u8; SALT_LEN],
    ours: &PrivateKey,
) -> Result<Bytes, SubscriptionError> {
    let public = ours.compute_public_key().map_err(|_| SubscriptionError::Keys)?;
    let peer = UnparsedPublicKey::new(&ECDH_P256, subscription.point.as_slice());
    // RFC 8291, section 3.3 and 3.4.
    let info: [&[u8]; 3] = [b"WebPush: info\0", &subscription.point, public.as_ref()];
    let (key, nonce) = agreement::agree(ours, peer, SubscriptionError::Keys, |secret| {
        let mut ikm = [0; 32];
        expand(&subscription.auth, secret, &info, &mut ikm);
        let (mut key, mut nonce) = ([0; 16], [0; 12]);
        expand(&salt, &ikm, &[b"Content-Encoding: aes128gcm\0"], &mut key);
        expand(&salt, &ikm, &[b"Content-Encoding: nonce\0"], &mut nonce);
        Ok((key, nonce))
    })?;
    let mut body = Vec::with_capacity(HEADER_LEN + padded.len() + TAG_LEN);
    body.extend_from_slice(&salt);
    body.extend_from_slice(&u32::try_from(BODY_BYTES_MAX).unwrap_or(u32::MAX).to_be_bytes());
    body.push(POINT_LEN as u8);
    body.extend_from_slice(public.as_ref());
    body.extend_from_slice(padded);
    let cipher = UnboundKey::new(&AES_128_GCM, &key).expect("the cipher takes 16 bytes");
    let tag = LessSafeKey::new(cipher)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::empty(),
            &mut body[HEADER_LEN..],
        )
        .expect("the cipher takes texts of this length");
    body.extend_from_slice(tag.as_ref());
    Ok(body.into())
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(salt: &[u8], secret: &[u8], info: &[&[u8]], out: &mut [u8]) {
    let prk = Salt::new(HKDF_SHA256, salt).extract(secret);
    prk.expand(info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("HKDF gives up to 255 hashes");
}

/// The `authorization` of one origin: who sends, signed (RFC 8292, section 3).
pub fn proof(credential: &WebPushCredential, origin: &str, now: Millis) -> String {
    let claims = json!({
        "aud": origin, "exp": now.0 / 1000 + PROOF_ENDS, "sub": &*credential.subject,
    });
    format!("vapid t={}, k={}", credential.key.jwt(None, &claims), credential.public_key())
}

/// Whether a proof that was made at `made_at` has to be replaced.
pub const fn is_renewed(now: Millis, made_at: Millis) -> bool {
    now.0.abs_diff(made_at.0) >= PROOF_USED
}

/// What an answer means. A push service is the target's own, so nothing it says holds up the lane.
pub fn classify(status: u16, after: Option<Duration>) -> Outcome {
    match status {
        200..=202 | 204 => Outcome::Accepted,
        404 | 410 => Outcome::Gone { since: None },
        // The subscription may be of another key, or the service of another mind.
        400 => failed("bad_request"),
        401 | 403 => failed("forbidden"),
        413 => failed("payload_too_large"),
        429 => later(Scope::Target, after, "too_many_requests"),
        300..=399 => failed("redirect"),
        500.. => later(Scope::Target, after, "server_error"),
        _ => failed("unexpected_status"),
    }
}

#[cfg(test)]
mod tests {
    use carillon_world::{AlertText, MessageId, PushOverrides};

    use super::*;

    // RFC 8291, appendix A.
    const TEXT: &str = "When I grow up, I want to be a watermelon";
    const OURS: &str = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
    const SALT: &str = "DGv6ra1nlYgDCS1FRnbzlw";
    const TOKEN: &str = r#"{"endpoint":"https://push.example.net/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV","expirationTime":null,"keys":{"p256dh":"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4","auth":"BTBZMqHH6r4Tts7J_aSIgg=="}}"#;
    const THEIRS: &str = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
    const BODY: &str = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";

    fn private(text: &str) -> PrivateKey {
        PrivateKey::from_private_key(&ECDH_P256, &BASE64.decode(text).unwrap()).unwrap()
    }

    fn salt() -> [u8; SALT_LEN] {
        BASE64.decode(SALT).unwrap().try_into().unwrap()
    }

    /// The receiver's side, from the RFC and not from the code above.
    fn decrypt(body: &[u8]) -> Vec<u8> {
        let subscription = Subscription::parse(TOKEN).unwrap();
        let (salt, theirs) = (&body[..16], &body[21..86]);
        let info: [&[u8]; 3] = [b"WebPush: info\0", &subscription.point, theirs];
        let peer = UnparsedPublicKey::new(&ECDH_P256, theirs);
        let (key, nonce) = agreement::agree(&private(THEIRS), peer, (), |secret| {
            let (mut ikm, mut key, mut nonce) = ([0; 32], [0; 16], [0; 12]);
            expand(&subscription.auth, secret, &info, &mut ikm);
            expand(salt, &ikm, &[b"Content-Encoding: aes128gcm\0"], &mut key);
            expand(salt, &ikm, &[b"Content-Encoding: nonce\0"], &mut nonce);
            Ok((key, nonce))
        })
        .unwrap();
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
        let mut text = body[86..].to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let text = cipher.open_in_place(nonce, Aad::empty(), &mut text).unwrap();
        let end = text.iter().rposition(|b| *b != 0).unwrap();
        assert_eq!(text[end], 0x02, "the last record");
        text[..end].to_vec()
    }

    fn notice(text: Option<&str>) -> Notice {
        Notice {
            message: MessageId::new(0xab),
            text: text.map(|body| AlertText { title: "T".into(), body: body.into() }),
            collapse: "wake".into(),
            priority: Priority::Normal,
            expires_at: Millis(1_700_000_000_000),
            overrides: PushOverrides::default(),
        }
    }

    #[test]
    fn the_example_of_rfc_8291_comes_out_byte_for_byte() {
        let subscription = Subscription::parse(TOKEN).unwrap();
        let padded = [TEXT.as_bytes(), &[0x02]].concat();
        let body = seal(&padded, &subscription, salt(), &private(OURS)).unwrap();
        assert_eq!(BASE64.encode(&body), BODY);
        assert_eq!(decrypt(&body), TEXT.as_bytes());
    }

    #[test]
    fn a_wakes_length_is_that_of_a_short_alert_and_none_is_over_4096_bytes() {
        let subscription = Subscription::parse(TOKEN).unwrap();
        let body = |notice: &Notice| {
            let push = render(notice).unwrap();
            encrypt(&push, &subscription, salt(), &private(OURS)).unwrap()
        };
        let wake = body(&notice(None));
        assert_eq!(decrypt(&wake), br#"{"carillon":"wake"}"#);
        assert_eq!(wake.len(), body(&notice(Some("hello"))).len());
        let frame = render(&notice(Some(""))).unwrap();
        let empty = frame.text.iter().rposition(|b| *b == 0x02).unwrap();
        let largest = notice(Some(&"x".repeat(TEXT_BYTES_MAX - empty)));
        assert_eq!(body(&largest).len(), BODY_BYTES_MAX);
        let over = notice(Some(&"x".repeat(TEXT_BYTES_MAX - empty + 1)));
        assert!(matches!(render(&over), Err(NoticeError::TooLarge { bytes: 3994, .. })));
        let mut alert = notice(Some("b"));
        alert.overrides.webpush = serde_json::from_str(r#"{"icon":"/i.png","title":"U"}"#).unwrap();
        let text: serde_json::Value = serde_json::from_slice(&decrypt(&body(&alert))).unwrap();
        assert_eq!(
            text,
            json!({ "carillon": "alert", "message": "00000000000000ab", "title": "U", "body": "b", "icon": "/i.png" })
        );
    }

    #[test]
    fn a_subscription_that_nobody_can_encrypt_for_is_refused() {
        let with = |from: &str, to: &str| Subscription::parse(&TOKEN.replace(from, to)).map(|_| ());
        assert_eq!(with("", ""), Ok(()));
        assert_eq!(with("https", "http"), Err(SubscriptionError::Endpoint(UrlError::NotHttps)));
        assert_eq!(with("BCVx", "CVx"), Err(SubscriptionError::Keys));
        assert_eq!(with("gg==", ""), Err(SubscriptionError::Keys));
        assert_eq!(with("p256dh", "p"), Err(SubscriptionError::Shape));
        assert_eq!(with("null", &"7".repeat(5000)), Err(SubscriptionError::Shape));
        // Of the right length, and not on the curve.
        let off = Subscription::parse(&TOKEN.replace("Aiw4", "Aiw8")).unwrap();
        let error = encrypt(&render(&notice(None)).unwrap(), &off, salt(), &private(OURS));
        assert_eq!(error, Err(SubscriptionError::Keys));
        assert!(!format!("{off:?}").contains("JzLQ3raZ"));
    }

    #[test]
    fn a_proof_names_the_origin_and_ends_within_a_day() {
        let key = super::super::sign::EcKey::from_scalar(&BASE64.decode(OURS).unwrap()).unwrap();
        let credential = WebPushCredential { subject: "mailto:a@b.example".into(), key };
        let proof = proof(&credential, "https://push.example.net", Millis(1_000_000));
        let (jwt, k) = proof.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
        assert_eq!(BASE64.decode(k).unwrap().len(), POINT_LEN);
        let claims = BASE64.decode(jwt.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(
            claims,
            json!({ "aud": "https://push.example.net", "exp": 44_200, "sub": "mailto:a@b.example" })
        );
        assert!(is_renewed(Millis(PROOF_USED), Millis(0)) && !is_renewed(Millis(1), Millis(0)));
    }

    #[test]
    fn answers_of_one_push_service_never_hold_up_the_lane() {
        let after = Some(Duration::from_secs(7));
        for (status, expected) in [
            (201, Outcome::Accepted),
            (202, Outcome::Accepted),
            (204, Outcome::Accepted),
            (404, Outcome::Gone { since: None }),
            (410, Outcome::Gone { since: None }),
            (400, failed("bad_request")),
            (401, failed("forbidden")),
            (403, failed("forbidden")),
            (413, failed("payload_too_large")),
            (301, failed("redirect")),
            (307, failed("redirect")),
            (429, later(Scope::Target, after, "too_many_requests")),
            (500, later(Scope::Target, after, "server_error")),
            (503, later(Scope::Target, after, "server_error")),
            (418, failed("unexpected_status")),
        ] {
            assert_eq!(classify(status, after), expected, "{status}");
        }
    }
}
