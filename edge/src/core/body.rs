//! Request bodies: JSON in, checked values out.
//!
//! Shape and size are checked here, at the border; whether an attribute exists or may be set by a device is for
//! central, which has the truth. Unknown members are ignored, so that newer clients can talk to this release.

use std::marker::PhantomData;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon_world::{
    AppId, DeviceId, MessageId, Millis, ProfilePatch, PushToken, Receipt, ReceiptKind, SecretHash,
};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Attributes and groups that one call may name, each.
pub const MEMBERS_MAX: usize = 256;
/// Push tokens of one device.
pub const TOKENS_MAX: usize = 16;
/// Bytes of one push token. A Web Push subscription is the largest, below 1 KiB.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Ids that one fetch may ask for.
pub const FETCH_IDS_MAX: usize = 200;
/// Receipts that one call may bring.
pub const RECEIPTS_MAX: usize = 200;
/// Bytes of the name of an action in a receipt.
pub const ACTION_BYTES_MAX: usize = 64;
/// Bytes of a publishable key that is looked at.
pub const KEY_BYTES_MAX: usize = 128;

/// What is wrong with a body, in words for the device's developer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(String);

impl BodyError {
    fn new(text: impl Into<String>) -> BodyError {
        BodyError(text.into())
    }
}

/// An enrolment: which app, the hash of the secret, and the first profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    pub publishable_key: String,
    pub secret: SecretHash,
    pub profile: ProfilePatch,
}

/// A device that wants a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub app: AppId,
    pub device: DeviceId,
    pub secret: SecretHash,
}

/// # Errors
/// If the body is not an enrolment.
pub fn enrolment(body: &[u8]) -> Result<Enrolment, BodyError> {
    #[derive(Deserialize)]
    struct Body {
        key: String,
        secret: String,
        #[serde(default)]
        attributes: Members<Box<RawValue>>,
        #[serde(default)]
        groups: Vec<String>,
        tokens: Option<Vec<PushToken>>,
    }
    let body: Body = parse(body)?;
    if body.key.len() > KEY_BYTES_MAX {
        return Err(BodyError::new(format!("key: at most {KEY_BYTES_MAX} bytes")));
    }
    let attributes = body.attributes.0.into_iter();
    let profile = ProfilePatch {
        attributes: attributes
            .map(|(name, value)| (name, Some(String::from(Box::<str>::from(value)))))
            .collect(),
        groups: body.groups.into_iter().map(|name| (name, true)).collect(),
        tokens: body.tokens,
    };
    check_profile(&profile)?;
    Ok(Enrolment { publishable_key: body.key, secret: secret(&body.secret)?, profile })
}

/// # Errors
/// If the body does not name an app, a device and a secret.
pub fn login(body: &[u8]) -> Result<Login, BodyError> {
    #[derive(Deserialize)]
    struct Body {
        app: AppId,
        id: DeviceId,
        secret: String,
    }
    let body: Body = parse(body)?;
    Ok(Login { app: body.app, device: body.id, secret: secret(&body.secret)? })
}

/// # Errors
/// If the body is not a change of a profile.
pub fn patch(body: &[u8]) -> Result<ProfilePatch, BodyError> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        attributes: Members<Option<Box<RawValue>>>,
        #[serde(default)]
        groups: Members<bool>,
        tokens: Option<Vec<PushToken>>,
    }
    let body: Body = parse(body)?;
    let attributes = body.attributes.0.into_iter();
    let profile = ProfilePatch {
        attributes: attributes
            .map(|(name, value)| (name, value.map(|v| String::from(Box::<str>::from(v)))))
            .collect(),
        groups: body.groups.0,
        tokens: body.tokens,
    };
    check_profile(&profile)?;
    Ok(profile)
}

/// # Errors
/// If the body does not name 1 to [`FETCH_IDS_MAX`] messages.
pub fn fetch(body: &[u8]) -> Result<Vec<MessageId>, BodyError> {
    #[derive(Deserialize)]
    struct Body {
        ids: Vec<MessageId>,
    }
    let Body { ids } = parse(body)?;
    if ids.is_empty() || ids.len() > FETCH_IDS_MAX {
        return Err(BodyError::new(format!("ids: 1 to {FETCH_IDS_MAX} of them")));
    }
    Ok(ids)
}

/// # Errors
/// If the body does not hold 1 to [`RECEIPTS_MAX`] receipts.
pub fn receipts(body: &[u8]) -> Result<Vec<Receipt>, BodyError> {
    #[derive(Deserialize)]
    struct Body {
        receipts: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        id: String,
        message: MessageId,
        kind: Kind,
        action: Option<String>,
        at: jiff::Timestamp,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Displayed,
        Opened,
        Dismissed,
        Action,
    }
    let Body { receipts } = parse(body)?;
    if receipts.is_empty() || receipts.len() > RECEIPTS_MAX {
        return Err(BodyError::new(format!("receipts: 1 to {RECEIPTS_MAX} of them")));
    }
    let checked = |one: One| {
        let id = carillon_expr::parse_id(&one.id)
            .map_err(|error| BodyError::new(format!("receipt id: {error}")))?;
        let kind = match (one.kind, one.action) {
            (Kind::Action, Some(name)) if !name.is_empty() && name.len() <= ACTION_BYTES_MAX => {
                ReceiptKind::Action(name)
            }
            (Kind::Action, _) => {
                return Err(BodyError::new(format!(
                    "action: 1 to {ACTION_BYTES_MAX} bytes where kind is action"
                )));
            }
            (_, Some(_)) => return Err(BodyError::new("action: only where kind is action")),
            (Kind::Displayed, None) => ReceiptKind::Displayed,
            (Kind::Opened, None) => ReceiptKind::Opened,
            (Kind::Dismissed, None) => ReceiptKind::Dismissed,
        };
        let at = u64::try_from(one.at.as_millisecond())
            .map_err(|_| BodyError::new("at: before 1970"))?;
        Ok(Receipt { id, message: one.message, kind, at: Millis(at) })
    };
    receipts.into_iter().map(checked).collect()
}

/// The secret itself goes no further than this.
fn secret(text: &str) -> Result<SecretHash, BodyError> {
    let wrong = || BodyError::new("secret: 32 bytes in base64url without padding (43 characters)");
    if text.len() != 43 {
        return Err(wrong());
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    let hash = digest(&SHA256, &bytes);
    Ok(SecretHash(hash.as_ref().try_into().expect("SHA-256 has 32 bytes")))
}

fn check_profile(profile: &ProfilePatch) -> Result<(), BodyError> {
    if profile.groups.len() > MEMBERS_MAX || profile.attributes.len() > MEMBERS_MAX {
        return Err(BodyError::new(format!(
            "at most {MEMBERS_MAX} attributes and {MEMBERS_MAX} groups"
        )));
    }
    let tokens = profile.tokens.as_deref().unwrap_or_default();
    if tokens.len() > TOKENS_MAX
        || tokens.iter().any(|t| t.token.is_empty() || t.token.len() > TOKEN_BYTES_MAX)
    {
        return Err(BodyError::new(format!(
            "tokens: at most {TOKENS_MAX}, each of 1 to {TOKEN_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyError> {
    serde_json::from_slice(body).map_err(|error| BodyError::new(error.to_string()))
}

/// The members of a JSON object in their order; a repeated name is refused, since readers disagree on which counts.
#[derive(Debug)]
struct Members<T>(Vec<(String, T)>);

impl<T> Default for Members<T> {
    fn default() -> Members<T> {
        Members(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<T>, D::Error> {
        struct Object<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = Members<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<T>, A::Error> {
                let mut members: Vec<(String, T)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if members.len() == MEMBERS_MAX {
                        return Err(serde::de::Error::custom(format!(
                            "more than {MEMBERS_MAX} members"
                        )));
                    }
                    if members.iter().any(|(known, _)| *known == name) {
                        return Err(serde::de::Error::custom(format!("{name:?} stands twice")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use carillon_world::PushChannel;

    use super::*;

    const SECRET: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn an_enrolment_hashes_the_secret_and_keeps_values_as_written() {
        let body = format!(
            r#"{{"key":"pk","secret":"{SECRET}","attributes":{{"b":1.50,"a":"x"}},"groups":["g"],
                "tokens":[{{"channel":"fcm","token":"t"}}],"later":1}}"#
        );
        let read = enrolment(body.as_bytes()).unwrap();
        let hash = digest(&SHA256, &[0; 32]);
        assert_eq!(read.secret.0, hash.as_ref());
        assert_eq!(read.publishable_key, "pk");
        let attributes = vec![
            ("b".to_owned(), Some("1.50".to_owned())),
            ("a".to_owned(), Some("\"x\"".to_owned())),
        ];
        let token = PushToken { channel: PushChannel::Fcm, token: "t".into() };
        let groups = vec![("g".to_owned(), true)];
        assert_eq!(read.profile, ProfilePatch { attributes, groups, tokens: Some(vec![token]) });
    }

    #[test]
    fn a_secret_is_exactly_32_bytes_in_canonical_base64url() {
        let with =
            |secret: &str| enrolment(format!(r#"{{"key":"pk","secret":"{secret}"}}"#).as_bytes());
        assert!(with(SECRET).is_ok());
        let last_bits_set = format!("{}B", &SECRET[..42]);
        for bad in ["", &SECRET[1..], &format!("{SECRET}="), &last_bits_set, &"+".repeat(43)] {
            assert!(with(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_login_names_app_device_and_secret() {
        let body =
            format!(r#"{{"app":"00000000000000aa","id":"00000000000000bb","secret":"{SECRET}"}}"#);
        let read = login(body.as_bytes()).unwrap();
        assert_eq!((read.app, read.device), (AppId::new(0xaa), DeviceId::new(0xbb)));
        assert!(login(br#"{"app":"aa","id":"00000000000000bb","secret":""}"#).is_err());
    }

    #[test]
    fn a_patch_tells_null_from_absent() {
        let read = patch(br#"{"attributes":{"a":null,"b":true},"groups":{"g":false}}"#).unwrap();
        assert_eq!(
            read.attributes,
            [("a".to_owned(), None), ("b".to_owned(), Some("true".to_owned()))]
        );
        assert_eq!(read.groups, [("g".to_owned(), false)]);
        assert_eq!(read.tokens, None);
        assert_eq!(patch(br#"{"tokens":[]}"#).unwrap().tokens, Some(vec![]));
    }

    #[test]
    fn names_that_stand_twice_and_wrong_shapes_are_refused() {
        for bad in [
            r#"{"attributes":{"a":1,"a":2}}"#,
            r#"{"attributes":[1]}"#,
            r#"{"groups":{"g":1}}"#,
            r#"{"tokens":[{"channel":"smoke","token":"t"}]}"#,
            r#"{"tokens":[{"channel":"fcm","token":""}]}"#,
            "[]",
            "",
            "{",
            r#"{} {}"#,
        ] {
            assert!(patch(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_beyond_their_limits_are_refused() {
        let members =
            |n: usize| (0..n).map(|k| format!("\"a{k}\":1")).collect::<Vec<_>>().join(",");
        let attributes = |n| patch(format!("{{\"attributes\":{{{}}}}}", members(n)).as_bytes());
        assert!(attributes(MEMBERS_MAX).is_ok());
        assert!(attributes(MEMBERS_MAX + 1).is_err());
        let token = r#"{"channel":"fcm","token":"t"}"#;
        let tokens =
            |n: usize| patch(format!("{{\"tokens\":[{}]}}", vec![token; n].join(",")).as_bytes());
        assert!(tokens(TOKENS_MAX).is_ok());
        assert!(tokens(TOKENS_MAX + 1).is_err());
        let long = format!(
            r#"{{"tokens":[{{"channel":"fcm","token":"{}"}}]}}"#,
            "t".repeat(TOKEN_BYTES_MAX + 1)
        );
        assert!(patch(long.as_bytes()).is_err());
        let ids = |n: usize| {
            fetch(format!("{{\"ids\":[{}]}}", vec!["\"00000000000000aa\""; n].join(",")).as_bytes())
        };
        assert_eq!(ids(FETCH_IDS_MAX).unwrap().len(), FETCH_IDS_MAX);
        assert!(ids(0).is_err());
        assert!(ids(FETCH_IDS_MAX + 1).is_err());
        let groups = |n: usize| {
            let groups = vec!["\"g\""; n].join(",");
            enrolment(
                format!(r#"{{"key":"k","secret":"{SECRET}","groups":[{groups}]}}"#).as_bytes(),
            )
        };
        assert!(groups(MEMBERS_MAX).is_ok());
        assert!(groups(MEMBERS_MAX + 1).is_err());
        let key = "k".repeat(KEY_BYTES_MAX + 1);
        assert!(enrolment(format!(r#"{{"key":"{key}","secret":"{SECRET}"}}"#).as_bytes()).is_err());
    }

    #[test]
    fn receipts_name_their_kind_and_time() {
        let one = |more: &str| {
            let head = r#""id":"00000000000000aa","message":"00000000000000bb""#;
            receipts(format!("{{\"receipts\":[{{{head},{more}}}]}}").as_bytes())
        };
        let read = one(r#""kind":"displayed","at":"2026-11-21T00:00:00.250Z""#).unwrap();
        let at = Millis(1_795_219_200_250);
        let message = MessageId::new(0xbb);
        assert_eq!(read, [Receipt { id: 0xaa, message, kind: ReceiptKind::Displayed, at }]);
        let read =
            one(r#""kind":"action","action":"buy","at":"2026-11-21T01:00:00+01:00""#).unwrap();
        assert_eq!(read[0].kind, ReceiptKind::Action("buy".into()));
        for bad in [
            r#""kind":"action","at":"2026-11-21T00:00:00Z""#,
            r#""kind":"opened","action":"buy","at":"2026-11-21T00:00:00Z""#,
            r#""kind":"eaten","at":"2026-11-21T00:00:00Z""#,
            r#""kind":"opened","at":"yesterday""#,
            r#""kind":"opened","at":"1969-01-01T00:00:00Z""#,
        ] {
            assert!(one(bad).is_err(), "{bad}");
        }
        let long =
            format!(r#""kind":"action","action":"{}","at":"2026-11-21T00:00:00Z""#, "a".repeat(65));
        assert!(one(&long).is_err());
        assert!(receipts(br#"{"receipts":[]}"#).is_err());
    }
}
