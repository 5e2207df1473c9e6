//! What the language asks of the outside: names when it is written, values when it is evaluated.

use crate::{AttributeId, AudienceId, Expression, GroupId, Time, Type, Value};

/// The longest attribute or group name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// The names that one app has declared. Names and ids correspond one to one.
pub trait Schema {
    /// Finds an attribute by its exact name.
    fn attribute(&self, name: &str) -> Option<(AttributeId, Type)>;
    /// The present name of an attribute.
    fn attribute_name(&self, id: AttributeId) -> Option<(&str, Type)>;
    /// Finds a group by its exact name.
    fn group(&self, name: &str) -> Option<GroupId>;
    /// The present name of a group.
    fn group_name(&self, id: GroupId) -> Option<&str>;
    /// Shows every attribute name once, in any order; asked for near names and for completion.
    fn visit_attribute_names(&self, visit: &mut dyn FnMut(&str));
    /// Shows every group name once, in any order; asked for near names and for completion.
    fn visit_group_names(&self, visit: &mut dyn FnMut(&str));

    /// Finds an audience by its exact name.
    fn audience(&self, _name: &str) -> Option<AudienceId> {
        None
    }
    /// The present name of an audience.
    fn audience_name(&self, _id: AudienceId) -> Option<&str> {
        None
    }
    /// What an audience stands for, read against this schema with
    /// [`Expression::parse_audience`] after every audience that it refers to.
    fn audience_expression(&self, _id: AudienceId) -> Option<&Expression> {
        None
    }
    /// Shows every audience name once, in any order; asked for near names and for completion.
    fn visit_audience_names(&self, _visit: &mut dyn FnMut(&str)) {}
    /// Shows values that devices have of an attribute, with how many devices have each; asked for
    /// completion. The most frequent first is best; looking at a few hundred is enough.
    fn visit_values(&self, _id: AttributeId, _visit: &mut dyn FnMut(&Value, u64)) {}
}

/// What one device is, as far as expressions can see.
pub trait Profile {
    /// The value of an attribute; `None` if the device lacks it.
    fn attribute(&self, id: AttributeId) -> Option<&Value>;
    /// Whether the device is a member.
    fn in_group(&self, id: GroupId) -> bool;
    /// Its id; without one, `device(...)` and `sample(...)` are unknown.
    fn device_id(&self) -> Option<u64> {
        None
    }
    /// The user that it belongs to, if any.
    fn user(&self) -> Option<&str> {
        None
    }
    /// When it was last seen, if that is known.
    fn last_seen(&self) -> Option<Time> {
        None
    }
}

/// What an evaluation depends on besides the device. By default neither is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The world's committed clock; without it everything that looks at the clock is unknown.
    pub now: Option<Time>,
    /// The id of the message, which is the salt of a `sample` that names none; without it such a
    /// sample is unknown. A preview of a message to be gives any id.
    pub message: Option<u64>,
}

impl Context {
    /// At a time, for no message in particular.
    #[must_use]
    pub const fn at(now: Time) -> Self {
        Self { now: Some(now), message: None }
    }

    /// The same for one message.
    #[must_use]
    pub const fn for_message(self, id: u64) -> Self {
        Self { message: Some(id), ..self }
    }
}

/// Words that mean something in an expression, or will: no attribute may have such a name.
///
/// The second line holds words that the language keeps for itself so that it can grow without
/// taking a name away from an app.
const RESERVED: &[&str] = &[
    "and",
    "or",
    "not",
    "in",
    "has",
    "all",
    "true",
    "false", //
    "any",
    "none",
    "between",
    "starts_with",
    "ends_with",
    "contains",
    "matches",
    "device",
    "user",
    "within",
    "near",
    "sample",
    "last_seen",
    "now",
];

/// Whether no attribute may be called so: a word of the language, or a name that reads as a version
/// literal (`v2`, `v2.3`).
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || looks_like_version(name)
}

fn looks_like_version(name: &str) -> bool {
    name.strip_prefix('v').is_some_and(|rest| {
        rest.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Whether an attribute can be declared under this name.
///
/// 1 to 64 bytes of ASCII letters, digits and `_`, not beginning with a digit; `.` and `-` may stand
/// between two of those; not [reserved](is_reserved). Case matters.
#[must_use]
pub fn valid_attribute_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.split(['.', '-']).all(|part| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
        && !is_reserved(name)
}

/// Whether a group or an audience can have this name: 1 to 64 bytes of ASCII letters, digits and `_ - . : /`, not
/// beginning with `:`. Case matters. No word is reserved, since a `#` or `@` stands before the
/// name.
#[must_use]
pub fn valid_group_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with(':')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:/".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_names_are_words_joined_by_dots_and_dashes() {
        for good in ["a", "_x", "app_version", "in-app", "a.b-c", "and_more", "V2", "vip", "v2x"] {
            assert!(valid_attribute_name(good), "{good}");
        }
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in
            ["", "1a", "a.", "a..b", "-a", "å", "a b", "and", "near", "v2", "v2.3.1", ":a", &long]
        {
            assert!(!valid_attribute_name(bad), "{bad}");
        }
        assert!(valid_attribute_name(&long[1..]));
    }

    #[test]
    fn group_names_may_hold_paths_but_not_begin_with_a_colon() {
        for good in ["vip", "1", "and", "team:a/b", "-", "v2.3"] {
            assert!(valid_group_name(good), "{good}");
        }
        let long = "g".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", ":a", "a b", "å", "a)", "#a", &long] {
            assert!(!valid_group_name(bad), "{bad}");
        }
    }
}
