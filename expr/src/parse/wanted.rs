//! What may stand at a place: one vocabulary for the words of an error and for completion.

use std::fmt;

use crate::{AttributeId, Type};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Condition,
    Joint,
    /// The name of an attribute, of one type where given.
    Attribute(Option<Type>),
    /// What may follow a term; `not` may stand before most of them.
    Operator(Slot),
    /// What may follow `not` after a term.
    OperatorAfterNot(Slot),
    Value(Slot),
    /// `last`, `next` or a duration.
    Duration,
    /// A duration after `now -`.
    Offset,
    /// `+` or `-` after `now`.
    OffsetSign,
    ListOpen,
    ArgumentsOpen,
    CommaOrClose,
    Close,
    Comma,
    BetweenAnd,
    /// `ignoring` after a value.
    Ignoring,
    /// `case` after `ignoring`.
    Case,
    DeviceId,
    Latitude,
    Longitude,
    Radius,
    Percentage,
    Salt,
}

/// What is being compared, as far as it decides what may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Attribute(AttributeId, Type),
    User,
    LastSeen,
    LocalTime,
    LocalDay,
    /// An attribute that is not declared.
    Unknown,
}

impl Slot {
    pub(crate) const fn kind(self) -> Option<Type> {
        match self {
            Self::Attribute(_, kind) => Some(kind),
            Self::User => Some(Type::String),
            Self::LastSeen => Some(Type::Time),
            Self::LocalTime | Self::LocalDay | Self::Unknown => None,
        }
    }

    /// The operators that fit, as they are written.
    pub(crate) const fn operators(self) -> &'static [&'static str] {
        match self {
            Self::LocalTime => &["==", "!=", "<", "<=", ">", ">=", "between"],
            Self::LocalDay => &["==", "!=", "in"],
            Self::Unknown => &["==", "!=", "<", "<=", ">", ">=", "in"],
            Self::User | Self::LastSeen | Self::Attribute(..) => match self.kind() {
                Some(Type::String) => &[
                    "==",
                    "!=",
                    "<",
                    "<=",
                    ">",
                    ">=",
                    "in",
                    "between",
                    "starts_with",
                    "ends_with",
                    "contains",
                    "matches",
                ],
                Some(Type::Number | Type::Version) => {
                    &["==", "!=", "<", "<=", ">", ">=", "in", "between"]
                }
                Some(Type::Date | Type::Time) => {
                    &["==", "!=", "<", "<=", ">", ">=", "in", "between", "within"]
                }
                Some(Type::Bool) => &["==", "!=", "in"],
                Some(Type::Set) => &["any", "all", "none", "contains"],
                Some(Type::Point) | None => &[],
            },
        }
    }
}

pub(crate) fn a(kind: Type) -> &'static str {
    match kind {
        Type::String => "a string",
        Type::Number => "a number",
        Type::Bool => "a bool",
        Type::Version => "a version",
        Type::Date => "a date",
        Type::Time => "a time",
        Type::Point => "a point",
        Type::Set => "a set",
    }
}

/// A literal of the type, for messages.
pub(crate) fn example(kind: Type) -> &'static str {
    match kind {
        Type::String | Type::Set => "\"text\"",
        Type::Number => "42",
        Type::Bool => "true",
        Type::Version => "v2.3",
        Type::Date => "2026-11-21",
        Type::Time => "2026-11-21T07:30:00Z",
        Type::Point => "59.33, 18.07",
    }
}

/// `a`, `b` or `c`, each in backquotes.
pub(crate) fn or_list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        _ => quoted.concat(),
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Condition => {
                "a condition such as `country == \"SE\"`, `has country`, `#group` or `all`"
            }
            Self::Joint => "`and` or `or`",
            Self::Attribute(None) => "the name of an attribute",
            Self::Attribute(Some(kind)) => {
                return write!(f, "the name of an attribute that is {}", a(*kind));
            }
            Self::Operator(slot) | Self::OperatorAfterNot(slot) => {
                let operators = slot.operators();
                let words = if matches!(self, Self::OperatorAfterNot(_)) {
                    &operators[operators.iter().position(|o| is_word(o)).unwrap_or(0)..]
                } else {
                    operators
                };
                return f.write_str(&or_list(words));
            }
            Self::Value(slot) => match (slot, slot.kind()) {
                (Slot::LocalTime, _) => "a time of day such as `09:00`",
                (Slot::LocalDay, _) => "a day: `mon`, `tue`, `wed`, `thu`, `fri`, `sat` or `sun`",
                (_, Some(kind)) => return write!(f, "{} such as `{}`", a(kind), example(kind)),
                (_, None) => {
                    "a value (\"text\", a number, `true`, `false` or a version such as `v2.3`)"
                }
            },
            Self::Duration => "a duration such as `7d`, `12h` or `30m`",
            Self::Offset => "a duration such as `7d`",
            Self::OffsetSign => "`-` or `+` and a duration",
            Self::ListOpen => "`(` and a list of values",
            Self::ArgumentsOpen => "`(`",
            Self::CommaOrClose => "`,` or `)`",
            Self::Close => "`)`",
            Self::Comma => "`,`",
            Self::BetweenAnd => "`and` and the upper end",
            Self::Ignoring => "`ignoring case`",
            Self::Case => "`case` after `ignoring`",
            Self::DeviceId => "the id of a device: 16 hexadecimal digits",
            Self::Latitude => "a latitude in degrees such as `59.33`",
            Self::Longitude => "a longitude in degrees such as `18.07`",
            Self::Radius => "a distance such as `5km` or `800m`",
            Self::Percentage => "a percentage such as `10%` or `0.5%`",
            Self::Salt => "a string, the salt",
        })
    }
}

fn is_word(operator: &str) -> bool {
    operator.starts_with(|c: char| c.is_ascii_alphabetic())
}
