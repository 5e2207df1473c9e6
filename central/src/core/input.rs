//! What callers say about devices and messages, with its shape checked but not yet its meaning: names are not
//! resolved and values have no declared type, because only the writer knows the schema that a write meets.

use std::fmt;
use std::sync::Arc;

use carillon_expr::{GroupId, Number, Type, Value};
use carillon_world::{App, DeviceId, GroupRow, PushToken, SecretHash};
use carillon_world::{Problem, ProfilePatch};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::limits::{
    DEVICE_TOKENS_MAX, MESSAGE_BODY_DEPTH_MAX, STRING_VALUE_BYTES_MAX, TOKEN_BYTES_MAX,
    USER_BYTES_MAX,
};
use super::problem;

/// A JSON value given for an attribute. Whether it fits is known when the attribute's type is.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    String(Arc<str>),
    Number(Number),
    Bool(bool),
}

impl Scalar {
    /// The value as the declared type.
    ///
    /// # Errors
    /// `wrong-type`, or `invalid` for a text that is too long.
    pub fn to_value(&self, name: &str, kind: Type) -> Result<Value, Problem> {
        match (self, kind) {
            (Scalar::String(text), Type::String) if text.len() > STRING_VALUE_BYTES_MAX => Err(
                problem::invalid(format!("{name:?} has more than {STRING_VALUE_BYTES_MAX} bytes")),
            ),
            (Scalar::String(text), Type::String) => Ok(Value::String(text.clone())),
            (Scalar::Number(number), Type::Number) => Ok(Value::Number(*number)),
            (Scalar::Bool(flag), Type::Bool) => Ok(Value::Bool(*flag)),
            (Scalar::String(text), Type::Version) => text
                .parse()
                .map(Value::Version)
                .map_err(|e| problem::wrong_type(format!("{name:?}: {e}"))),
            (Scalar::String(text), Type::Date) => text
                .parse()
                .map(Value::Date)
                .map_err(|e| problem::wrong_type(format!("{name:?}: {e}"))),
            (Scalar::String(text), Type::Time) => text
                .parse()
                .map(Value::Time)
                .map_err(|e| problem::wrong_type(format!("{name:?}: {e}"))),
            _ => Err(problem::wrong_type(format!(
                "{name:?} is declared as {kind}, and this is {}",
                self.kind()
            ))),
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Scalar::String(_) => "a string",
            Scalar::Number(_) => "a number",
            Scalar::Bool(_) => "a bool",
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        struct ScalarVisitor;
        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number or a bool")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::String(text.into()))
            }
            fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(flag))
            }
            #[expect(
                clippy::cast_precision_loss,
                reason = "JSON numbers are doubles to most who write them"
            )]
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                self.visit_f64(number as f64)
            }
            #[expect(
                clippy::cast_precision_loss,
                reason = "JSON numbers are doubles to most who write them"
            )]
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
                self.visit_f64(number as f64)
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
                Number::try_new(number)
                    .map(Scalar::Number)
                    .ok_or_else(|| E::custom("expected a finite number"))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// The members of a JSON object in the order given; a name given twice is an error.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs<V>(pub Vec<(String, V)>);

impl<V> Default for Pairs<V> {
    fn default() -> Pairs<V> {
        Pairs(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs<V>, D::Error> {
        struct PairsVisitor<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for PairsVisitor<V> {
            type Value = Pairs<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<V>, A::Error> {
                let mut pairs = Vec::new();
                let mut seen = std::collections::HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, V>()? {
                    if !seen.insert(name.clone()) {
                        return Err(de::Error::custom(format_args!("{name:?} is given twice")));
                    }
                    pairs.push((name, value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor(std::marker::PhantomData))
    }
}

/// How a caller names a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRef {
    Id(GroupId),
    Name(String),
    /// A name if there is one, else 16 hexadecimal digits: an import line's form.
    Either(String),
}

impl GroupRef {
    /// From a path: 16 hexadecimal digits or `name:<name>`.
    pub fn from_path(text: &str) -> Option<GroupRef> {
        match text.strip_prefix("name:") {
            Some(name) => Some(GroupRef::Name(name.to_owned())),
            None => text.parse().ok().map(GroupRef::Id),
        }
    }

    pub fn find<'a>(&self, app: &'a App) -> Option<&'a Arc<GroupRow>> {
        match self {
            GroupRef::Id(id) => app.group(*id),
            GroupRef::Name(name) => app.group_by_name(name),
            GroupRef::Either(text) => {
                app.group_by_name(text).or_else(|| text.parse().ok().and_then(|id| app.group(id)))
            }
        }
    }
}

impl fmt::Display for GroupRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupRef::Id(id) => id.fmt(f),
            GroupRef::Name(text) | GroupRef::Either(text) => f.write_str(text),
        }
    }
}

/// What a write changes of a device's profile; what it does not name stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProfileEdit {
    /// `Some(None)` removes it.
    pub user: Option<Option<Arc<str>>>,
    /// `None` removes the value.
    pub attributes: Vec<(String, Option<Scalar>)>,
    /// Whether to join or to leave.
    pub groups: Vec<(GroupRef, bool)>,
    /// All of the device's tokens.
    pub tokens: Option<Vec<PushToken>>,
}

impl ProfileEdit {
    /// From a device, through an edge.
    ///
    /// # Errors
    /// If a value is not JSON, or not a string, number or bool.
    pub fn from_patch(patch: ProfilePatch) -> Result<ProfileEdit, Problem> {
        let mut attributes = Vec::with_capacity(patch.attributes.len());
        for (name, json) in patch.attributes {
            let value = match json {
                None => None,
                Some(json) => serde_json::from_str::<Option<Scalar>>(&json)
                    .map_err(|e| problem::wrong_type(format!("{name:?}: {e}")))?,
            };
            attributes.push((name, value));
        }
        let groups =
            patch.groups.into_iter().map(|(name, join)| (GroupRef::Name(name), join)).collect();
        if let Some(tokens) = &patch.tokens {
            check_tokens(tokens)?;
        }
        Ok(ProfileEdit { user: None, attributes, groups, tokens: patch.tokens })
    }
}

/// One line of an import: the whole profile of one device.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportLine {
    /// Counted from 1.
    pub line: u64,
    /// Drawn by the shell where the line names none.
    pub id: DeviceId,
    /// `None` leaves what the device has.
    pub secret: Option<SecretHash>,
    pub user: Option<Arc<str>>,
    pub attributes: Vec<(String, Scalar)>,
    pub groups: Vec<GroupRef>,
    /// `None` leaves what the device has.
    pub tokens: Option<Vec<PushToken>>,
}

/// # Errors
/// `invalid` if there are too many or one is too long or empty.
pub fn check_tokens(tokens: &[PushToken]) -> Result<(), Problem> {
    if tokens.len() > DEVICE_TOKENS_MAX {
        return Err(problem::invalid(format!(
            "a device has at most {DEVICE_TOKENS_MAX} push tokens"
        )));
    }
    if tokens.iter().any(|t| t.token.is_empty() || t.token.len() > TOKEN_BYTES_MAX) {
        return Err(problem::invalid(format!("a push token has 1 to {TOKEN_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// Whether every device can read this JSON text. It goes out as it is, among others, so what one parser refuses would
/// keep its device from all that follows.
///
/// # Errors
/// `invalid` for half a surrogate pair, a number beyond a double, or more levels than
/// [`MESSAGE_BODY_DEPTH_MAX`].
pub fn check_message_body(body: &str) -> Result<(), Problem> {
    let unreadable = |why: &dyn fmt::Display| {
        problem::invalid(format!("devices could not read this body: {why}"))
    };
    // serde_json's own limit, 128 levels, comes before the recursion below could grow.
    let json = serde_json::from_str(body).map_err(|e| unreadable(&e))?;
    if depth(&json) > MESSAGE_BODY_DEPTH_MAX {
        return Err(unreadable(&format_args!("it has more than {MESSAGE_BODY_DEPTH_MAX} levels")));
    }
    Ok(())
}

fn depth(json: &serde_json::Value) -> usize {
    match json {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// # Errors
/// `invalid` if it is empty or too long.
pub fn check_user(user: &str) -> Result<(), Problem> {
    if user.is_empty() || user.len() > USER_BYTES_MAX {
        return Err(problem::invalid(format!("a user has 1 to {USER_BYTES_MAX} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_fits_its_declared_type_or_is_refused() {
        let parse = |json: &str| serde_json::from_str::<Scalar>(json).unwrap();
        assert_eq!(
            parse("\"2.3\"").to_value("v", Type::Version).unwrap(),
            Value::Version("2.3".parse().unwrap())
        );
        assert_eq!(
            parse("3").to_value("n", Type::Number).unwrap(),
            parse("3.0").to_value("n", Type::Number).unwrap()
        );
        assert_eq!(
            parse("\"2026-11-21\"").to_value("d", Type::Date).unwrap(),
            Value::Date("2026-11-21".parse().unwrap())
        );
        assert_eq!(
            parse("\"2026-11-21T08:30+01:00\"").to_value("t", Type::Time).unwrap(),
            Value::Time("2026-11-21T07:30:00Z".parse().unwrap())
        );
        for (json, kind) in [
            ("\"2026-02-30\"", Type::Date),
            ("\"2026-11-21\"", Type::Time),
            ("\"59, 18\"", Type::Point),
            ("3", Type::String),
            ("\"x\"", Type::Version),
            ("true", Type::Number),
            ("1", Type::Bool),
        ] {
            assert_eq!(parse(json).to_value("a", kind).unwrap_err().code, "wrong-type", "{json}");
        }
        let long = Scalar::String("x".repeat(STRING_VALUE_BYTES_MAX + 1).into());
        assert_eq!(long.to_value("a", Type::String).unwrap_err().code, "invalid");
        for bad in ["null", "[]", "{}"] {
            assert!(serde_json::from_str::<Scalar>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_body_that_a_device_could_not_read_is_refused() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let good = [
            "null",
            "-0.0",
            "1e308",
            r#""\ud83d\ude00\u0000""#,
            "123456789012345678901234",
            &nested(60),
        ];
        for body in good {
            assert_eq!(check_message_body(body), Ok(()), "{body}");
        }
        for body in
            [r#""\ud800""#, r#"{"\udc00":1}"#, "1e309", "[-1e999]", &nested(61), &nested(5_000)]
        {
            assert_eq!(check_message_body(body).unwrap_err().code, "invalid", "{body}");
        }
    }

    #[test]
    fn a_name_given_twice_is_refused() {
        assert!(serde_json::from_str::<Pairs<bool>>(r#"{"a":true,"a":false}"#).is_err());
        let pairs = serde_json::from_str::<Pairs<bool>>(r#"{"b":true,"a":false}"#).unwrap();
        assert_eq!(pairs.0, [("b".to_owned(), true), ("a".to_owned(), false)]);
    }
}
