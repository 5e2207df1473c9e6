//! Typed values: what a device has and what an expression compares it with.
//!
//! Equality, order and hash agree for every type, so that values can be index keys. Values of
//! different types are never equal; the order between types only serves sorting.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Date, Point, Time};

/// The type of a declared attribute.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    String,
    Number,
    Bool,
    Version,
    Date,
    Time,
    Point,
    Set,
}

impl Type {
    /// All types, in the order in which they sort.
    pub const ALL: [Self; 8] = [
        Self::String,
        Self::Number,
        Self::Bool,
        Self::Version,
        Self::Date,
        Self::Time,
        Self::Point,
        Self::Set,
    ];

    /// The name as admins write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Bool => "bool",
            Self::Version => "version",
            Self::Date => "date",
            Self::Time => "time",
            Self::Point => "point",
            Self::Set => "set",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is not the name of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a type: string, number, bool, version, date, time, point or set")]
pub struct ParseTypeError;

impl FromStr for Type {
    type Err = ParseTypeError;

    fn from_str(text: &str) -> Result<Self, ParseTypeError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(ParseTypeError)
    }
}

/// One value. A clone never copies text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Compared byte by byte, which is the order of code points; case matters.
    String(Arc<str>),
    Number(Number),
    Bool(bool),
    Version(Version),
    Date(Date),
    Time(Time),
    Point(Point),
    Set(Set),
}

impl Value {
    #[must_use]
    pub fn kind(&self) -> Type {
        match self {
            Self::String(_) => Type::String,
            Self::Number(_) => Type::Number,
            Self::Bool(_) => Type::Bool,
            Self::Version(_) => Type::Version,
            Self::Date(_) => Type::Date,
            Self::Time(_) => Type::Time,
            Self::Point(_) => Type::Point,
            Self::Set(_) => Type::Set,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => fmt::Debug::fmt(text, f),
            Self::Number(number) => fmt::Display::fmt(number, f),
            Self::Bool(flag) => fmt::Display::fmt(flag, f),
            Self::Version(version) => write!(f, "v{version}"),
            Self::Date(date) => fmt::Display::fmt(date, f),
            Self::Time(time) => fmt::Display::fmt(time, f),
            Self::Point(point) => fmt::Debug::fmt(point, f),
            Self::Set(set) => fmt::Debug::fmt(set, f),
        }
    }
}

/// A set of strings: sorted, distinct, perhaps empty. A clone copies nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set(Arc<[Arc<str>]>);

impl Set {
    /// The entries, sorted and distinct.
    #[must_use]
    pub fn entries(&self) -> &[Arc<str>] {
        &self.0
    }

    #[must_use]
    pub fn contains(&self, entry: &str) -> bool {
        self.0.binary_search_by(|known| (**known).cmp(entry)).is_ok()
    }
}

impl<S: Into<Arc<str>>> FromIterator<S> for Set {
    fn from_iter<I: IntoIterator<Item = S>>(entries: I) -> Self {
        let mut entries: Vec<Arc<str>> = entries.into_iter().map(Into::into).collect();
        entries.sort_unstable();
        entries.dedup();
        Self(entries.into())
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

impl Serialize for Set {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|entry| &**entry))
    }
}

impl<'de> Deserialize<'de> for Set {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Arc<str>>::deserialize(deserializer).map(Self::from_iter)
    }
}

/// A finite number; `-0` is `0`.
#[derive(Clone, Copy)]
pub struct Number(f64);

impl Number {
    /// `None` unless `number` is finite.
    #[must_use]
    pub fn try_new(number: f64) -> Option<Self> {
        // Adding zero turns -0 into 0 and changes nothing else.
        number.is_finite().then_some(Self(number + 0.0))
    }

    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        // Agrees with `==` because neither NaN nor -0 can occur.
        self.0.total_cmp(&other.0)
    }
}

impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The shortest text that reads back as the same number; an exponent where digits alone would be
/// long (from 10^17 and below 10^-6).
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.abs();
        if magnitude != 0.0 && !(1e-6..1e17).contains(&magnitude) {
            write!(f, "{:e}", self.0)
        } else {
            write!(f, "{}", self.0)
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_new(f64::deserialize(deserializer)?)
            .ok_or_else(|| de::Error::custom("expected a finite number"))
    }
}

/// The most components that a version can have; missing ones are 0, so `v2 == v2.0`.
pub const VERSION_COMPONENTS_MAX: usize = 4;

/// A version, compared component by component as numbers: `v2.9 < v2.10`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version([u32; VERSION_COMPONENTS_MAX]);

impl Version {
    /// From all components, the missing ones 0.
    #[must_use]
    pub const fn new(components: [u32; VERSION_COMPONENTS_MAX]) -> Self {
        Self(components)
    }

    /// All components, the missing ones 0.
    #[must_use]
    pub const fn components(self) -> [u32; VERSION_COMPONENTS_MAX] {
        self.0
    }
}

/// Without the `v` and without trailing zero components: `v2.0` prints as `2`.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().rposition(|&component| component != 0).unwrap_or(0);
        write!(f, "{}", self.0[0])?;
        for component in &self.0[1..=used] {
            write!(f, ".{component}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{self}")
    }
}

/// Why a text is no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseVersionError {
    #[error("expected a version such as 2.3 or v2.3.1")]
    Form,
    #[error("a version has at most {VERSION_COMPONENTS_MAX} components")]
    TooManyComponents,
    #[error("a component of a version is at most {}", u32::MAX)]
    ComponentTooLarge,
}

/// Reads `2.3` or `v2.3`.
impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, ParseVersionError> {
        let digits = text.strip_prefix('v').unwrap_or(text);
        let mut components = [0; VERSION_COMPONENTS_MAX];
        for (index, part) in digits.split('.').enumerate() {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(ParseVersionError::Form);
            }
            let slot = components.get_mut(index).ok_or(ParseVersionError::TooManyComponents)?;
            *slot = part.parse().map_err(|_| ParseVersionError::ComponentTooLarge)?;
        }
        Ok(Self(components))
    }
}

/// Text where a human reads, else the four components.
impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            <[u32; VERSION_COMPONENTS_MAX]>::deserialize(deserializer).map(Self)
        }
    }
}

/// A pair of tag (0 string, 1 number, 2 bool, 3 version, 4 date, 5 time, 6 point, 7 set) and payload,
/// in every format.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut pair = serializer.serialize_tuple(2)?;
        match self {
            Self::String(text) => {
                pair.serialize_element(&0u8)?;
                pair.serialize_element(&**text)?;
            }
            Self::Number(number) => {
                pair.serialize_element(&1u8)?;
                pair.serialize_element(number)?;
            }
            Self::Bool(flag) => {
                pair.serialize_element(&2u8)?;
                pair.serialize_element(flag)?;
            }
            Self::Version(version) => {
                pair.serialize_element(&3u8)?;
                pair.serialize_element(version)?;
            }
            Self::Date(date) => {
                pair.serialize_element(&4u8)?;
                pair.serialize_element(date)?;
            }
            Self::Time(time) => {
                pair.serialize_element(&5u8)?;
                pair.serialize_element(time)?;
            }
            Self::Point(point) => {
                pair.serialize_element(&6u8)?;
                pair.serialize_element(point)?;
            }
            Self::Set(set) => {
                pair.serialize_element(&7u8)?;
                pair.serialize_element(set)?;
            }
        }
        pair.end()
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairVisitor;
        impl<'de> Visitor<'de> for PairVisitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pair of value tag and payload")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Value, A::Error> {
                fn payload<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(
                    pair: &mut A,
                ) -> Result<T, A::Error> {
                    pair.next_element()?
                        .ok_or_else(|| de::Error::invalid_length(1, &"tag and payload"))
                }
                let tag: u8 = pair
                    .next_element()?
                    .ok_or_else(|| de::Error::invalid_length(0, &"tag and payload"))?;
                match tag {
                    0 => payload(&mut pair).map(Value::String),
                    1 => payload(&mut pair).map(Value::Number),
                    2 => payload(&mut pair).map(Value::Bool),
                    3 => payload(&mut pair).map(Value::Version),
                    4 => payload(&mut pair).map(Value::Date),
                    5 => payload(&mut pair).map(Value::Time),
                    6 => payload(&mut pair).map(Value::Point),
                    7 => payload(&mut pair).map(Value::Set),
                    _ => Err(de::Error::custom(format_args!("unknown value tag {tag}"))),
                }
            }
        }
        deserializer.deserialize_tuple(2, PairVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_compare_by_numeric_components_and_missing_ones_are_zero() {
        assert!(version("2.9") < version("v2.10"));
        assert_eq!(version("v2"), version("2.0.0.0"));
        assert!(version("2") < version("2.0.0.1"));
        assert_eq!(version("v2.0.10.0").to_string(), "2.0.10");
        assert_eq!(version("0.0").to_string(), "0");
        for (bad, why) in [
            ("", ParseVersionError::Form),
            ("v", ParseVersionError::Form),
            ("1.", ParseVersionError::Form),
            ("+1", ParseVersionError::Form),
            ("1.2-beta", ParseVersionError::Form),
            ("1.2.3.4.5", ParseVersionError::TooManyComponents),
            ("4294967296", ParseVersionError::ComponentTooLarge),
        ] {
            assert_eq!(bad.parse::<Version>(), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn numbers_are_finite_without_a_negative_zero_and_print_shortest() {
        assert!(Number::try_new(f64::NAN).is_none());
        assert!(Number::try_new(f64::INFINITY).is_none());
        assert!(Number::try_new(-0.0).unwrap().get().is_sign_positive());
        for (number, text) in [
            (0.0, "0"),
            (-1.5, "-1.5"),
            (1e16, "10000000000000000"),
            (1e17, "1e17"),
            (f64::MAX, "1.7976931348623157e308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (0.000_001, "0.000001"),
        ] {
            assert_eq!(Number::try_new(number).unwrap().to_string(), text);
        }
    }

    #[test]
    fn values_keep_their_type_through_messagepack_and_json() {
        for value in [
            Value::String("é".into()),
            Value::Number(Number::try_new(2.5).unwrap()),
            Value::Bool(true),
            Value::Version(version("2.3")),
            Value::Date("2026-11-21".parse().unwrap()),
            Value::Time("2026-11-21T07:30:00.001Z".parse().unwrap()),
            Value::Point(Point::try_new(59.3293, 18.0686).unwrap()),
            Value::Set(["b", "a", "b"].into_iter().collect()),
            Value::Set(Set::from_iter([""; 0])),
        ] {
            let bytes = rmp_serde::to_vec(&value).unwrap();
            assert_eq!(rmp_serde::from_slice::<Value>(&bytes).unwrap(), value);
            let json = serde_json::to_string(&value).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
        }
        assert_eq!(rmp_serde::to_vec(&Value::Bool(true)).unwrap(), [0x92, 2, 0xc3]);
        assert!(rmp_serde::from_slice::<Value>(&[0x92, 9, 0xc3]).is_err());
        assert!(rmp_serde::from_slice::<Value>(&[0x91, 2]).is_err());
        let nan = rmp_serde::to_vec(&(1u8, f64::NAN)).unwrap();
        assert!(rmp_serde::from_slice::<Value>(&nan).is_err());
    }

    #[test]
    fn types_are_written_in_lower_case() {
        for kind in Type::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
        assert_eq!("String".parse::<Type>(), Err(ParseTypeError));
        assert_eq!(size_of::<Version>(), 16);
        assert_eq!(size_of::<Value>(), 24);
    }
}
