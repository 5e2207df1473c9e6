//! Values of attributes as JSON has them, in and out: one form for the admin API, imports, exports and devices.
//!
//! | type | JSON |
//! |---|---|
//! | `string` | a string |
//! | `number` | a number |
//! | `bool` | `true`, `false` |
//! | `version`, `date`, `time` | a string, as an expression writes it |
//! | `point` | `{"lat": 55.605, "lon": 13.0038}`, in degrees |
//! | `set` | an array of strings, in any order, repeats and all; it comes back sorted |
//!
//! What comes out goes in again and is the same value. A value that comes in is judged twice: its form when it is
//! read, its type and size when the writer knows the declaration.

use std::fmt;
use std::sync::Arc;

use carillon_expr::{Number, Point, Set, Type, Value};
use carillon_world::Problem;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::limits::{SET_ENTRIES_MAX, SET_ENTRY_BYTES_MAX, STRING_VALUE_BYTES_MAX};
use super::problem;

/// A JSON value given for an attribute. Whether it fits is known when the attribute's type is.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    String(Arc<str>),
    Number(Number),
    Bool(bool),
    /// Degrees, not yet known to be on the Earth.
    Point {
        lat: Number,
        lon: Number,
    },
    Set(Set),
}

impl Given {
    /// The value as the declared type.
    ///
    /// # Errors
    /// `wrong-type`, or `invalid` for what is too long, or nowhere on the Earth.
    pub fn to_value(&self, name: &str, kind: Type) -> Result<Value, Problem> {
        let unread = |e: &dyn fmt::Display| problem::wrong_type(format!("{name:?}: {e}"));
        match (self, kind) {
            (Given::String(text), Type::String) if text.len() > STRING_VALUE_BYTES_MAX => Err(
                problem::invalid(format!("{name:?} has more than {STRING_VALUE_BYTES_MAX} bytes")),
            ),
            (Given::String(text), Type::String) => Ok(Value::String(text.clone())),
            (Given::Number(number), Type::Number) => Ok(Value::Number(*number)),
            (Given::Bool(flag), Type::Bool) => Ok(Value::Bool(*flag)),
            (Given::String(text), Type::Version) => {
                text.parse().map(Value::Version).map_err(|e| unread(&e))
            }
            (Given::String(text), Type::Date) => {
                text.parse().map(Value::Date).map_err(|e| unread(&e))
            }
            (Given::String(text), Type::Time) => {
                text.parse().map(Value::Time).map_err(|e| unread(&e))
            }
            (Given::Point { lat, lon }, Type::Point) => {
                Point::try_new(lat.get(), lon.get()).map(Value::Point).ok_or_else(|| {
                    let detail = "`lat` is -90 to 90 and `lon` is -180 to 180, in degrees";
                    problem::invalid(format!("{name:?}: {detail}"))
                })
            }
            (Given::Set(set), Type::Set) => {
                check_set(name, set)?;
                Ok(Value::Set(set.clone()))
            }
            _ => Err(problem::wrong_type(format!(
                "{name:?} is declared as {kind}, and this is {}",
                self.kind()
            ))),
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Given::String(_) => "a string",
            Given::Number(_) => "a number",
            Given::Bool(_) => "a bool",
            Given::Point { .. } => "a point",
            Given::Set(_) => "a set",
        }
    }

    /// Bytes that it holds beside itself, about.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Given::String(text) => text.len(),
            Given::Number(_) | Given::Bool(_) | Given::Point { .. } => 0,
            Given::Set(set) => set.entries().iter().map(|entry| 32 + entry.len()).sum(),
        }
    }
}

fn check_set(name: &str, set: &Set) -> Result<(), Problem> {
    let entries = set.entries();
    if entries.len() > SET_ENTRIES_MAX {
        let detail = format!("{name:?} has {} entries, at most {SET_ENTRIES_MAX}", entries.len());
        return Err(problem::invalid(detail));
    }
    if entries.iter().any(|entry| entry.len() > SET_ENTRY_BYTES_MAX) {
        let detail = format!("an entry of {name:?} has more than {SET_ENTRY_BYTES_MAX} bytes");
        return Err(problem::invalid(detail));
    }
    Ok(())
}

/// What a value counts towards [`DEVICE_VALUES_BYTES_MAX`](super::limits::DEVICE_VALUES_BYTES_MAX): the bytes of its
/// texts, and 4 for each entry of a set, which is more than its quotes and comma take in an export.
pub(crate) fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Set(set) => set.entries().iter().map(|entry| 4 + entry.len()).sum(),
        Value::Number(_)
        | Value::Bool(_)
        | Value::Version(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::Point(_) => 0,
    }
}

/// The JSON form of a value.
pub(crate) fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.as_ref().into(),
        Value::Number(number) => number_json(number.get()),
        Value::Bool(flag) => (*flag).into(),
        Value::Version(version) => version.to_string().into(),
        Value::Date(date) => date.to_string().into(),
        Value::Time(time) => time.to_string().into(),
        Value::Point(point) => {
            let degrees = |units: i32| number_json(f64::from(units) / 1e7);
            let (lat, lon) = (point.latitude_units(), point.longitude_units());
            serde_json::json!({"lat": degrees(lat), "lon": degrees(lon)})
        }
        Value::Set(set) => set.entries().iter().map(|entry| &**entry).collect(),
    }
}

/// A whole number without a fraction, as whoever sent `7` expects it back.
fn number_json(number: f64) -> serde_json::Value {
    let whole = number as i64;
    // Both conversions are exact below 2^53; -0.0 stays what it is.
    if whole.unsigned_abs() < 1 << 53 && (whole as f64).to_bits() == number.to_bits() {
        whole.into()
    } else {
        number.into()
    }
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Given, D::Error> {
        deserializer.deserialize_any(GivenVisitor)
    }
}

struct GivenVisitor;

impl<'de> Visitor<'de> for GivenVisitor {
    type Value = Given;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number, a bool, an array of strings, or {\"lat\": …, \"lon\": …}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Given, E> {
        Ok(Given::String(text.into()))
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Given, E> {
        Ok(Given::Bool(flag))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "JSON numbers are doubles to most who write them"
    )]
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Given, E> {
        self.visit_f64(number as f64)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "JSON numbers are doubles to most who write them"
    )]
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Given, E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Given, E> {
        finite(number).map(Given::Number)
    }

    /// As many as the body holds; their number is judged with the type.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Given, A::Error> {
        let mut entries: Vec<Arc<str>> = Vec::new();
        while let Some(entry) = seq.next_element::<Arc<str>>()? {
            entries.push(entry);
        }
        Ok(Given::Set(entries.into_iter().collect()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given, A::Error> {
        let (mut lat, mut lon) = (None, None);
        while let Some(name) = map.next_key::<String>()? {
            let coordinate = match name.as_str() {
                "lat" => &mut lat,
                "lon" => &mut lon,
                _ => return Err(de::Error::unknown_field(&name, &["lat", "lon"])),
            };
            if coordinate.replace(finite(map.next_value()?)?).is_some() {
                return Err(de::Error::custom(format_args!("{name:?} is given twice")));
            }
        }
        Ok(Given::Point {
            lat: lat.ok_or_else(|| de::Error::missing_field("lat"))?,
            lon: lon.ok_or_else(|| de::Error::missing_field("lon"))?,
        })
    }
}

fn finite<E: de::Error>(number: f64) -> Result<Number, E> {
    Number::try_new(number).ok_or_else(|| E::custom("expected a finite number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Given {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_value_of_every_type_comes_out_as_it_went_in() {
        for (json, kind, out) in [
            (r#""é\u0000""#, Type::String, r#""é\u0000""#),
            ("3.0", Type::Number, "3"),
            ("-0.5", Type::Number, "-0.5"),
            ("true", Type::Bool, "true"),
            (r#""v2.3.0""#, Type::Version, r#""2.3""#),
            (r#""2026-11-21""#, Type::Date, r#""2026-11-21""#),
            (r#""2026-11-21T08:30+01:00""#, Type::Time, r#""2026-11-21T07:30:00Z""#),
            (r#"{"lon":13.0038,"lat":55.605}"#, Type::Point, r#"{"lat":55.605,"lon":13.0038}"#),
            (r#"{"lat":-90,"lon":180}"#, Type::Point, r#"{"lat":-90,"lon":180}"#),
            (r#"["b","a","b",""]"#, Type::Set, r#"["","a","b"]"#),
            ("[]", Type::Set, "[]"),
        ] {
            let value = parse(json).to_value("a", kind).unwrap();
            assert_eq!(value.kind(), kind);
            let printed = to_json(&value).to_string();
            assert_eq!(printed, out);
            assert_eq!(parse(&printed).to_value("a", kind).unwrap(), value, "{json}");
        }
    }

    #[test]
    fn a_place_is_kept_to_its_last_unit() {
        for units in [1, -1, 899_999_999, 123_456_789, -900_000_000] {
            let point = Point::from_units(units, -units).unwrap();
            let json = to_json(&Value::Point(point)).to_string();
            assert_eq!(
                parse(&json).to_value("p", Type::Point).unwrap(),
                Value::Point(point),
                "{json}"
            );
        }
    }

    #[test]
    fn a_value_that_does_not_fit_its_declared_type_is_refused() {
        for (json, kind) in [
            ("\"2026-02-30\"", Type::Date),
            ("\"2026-11-21\"", Type::Time),
            ("\"59, 18\"", Type::Point),
            ("[\"59\", \"18\"]", Type::Point),
            ("{\"lat\": 1, \"lon\": 2}", Type::Set),
            ("\"x\"", Type::Set),
            ("[\"x\"]", Type::String),
            ("3", Type::String),
            ("\"x\"", Type::Version),
            ("true", Type::Number),
            ("1", Type::Bool),
        ] {
            assert_eq!(parse(json).to_value("a", kind).unwrap_err().code, "wrong-type", "{json}");
        }
        for json in [r#"{"lat":90.1,"lon":0}"#, r#"{"lat":0,"lon":-180.5}"#] {
            let refused = parse(json).to_value("a", Type::Point).unwrap_err();
            assert_eq!(refused.code, "invalid", "{json}");
        }
        for bad in [
            "null",
            "{}",
            "[1]",
            "[null]",
            r#"["a",["b"]]"#,
            r#"{"lat":1}"#,
            r#"{"lat":1,"lat":1,"lon":2}"#,
            r#"{"lat":"1","lon":2}"#,
            r#"{"lat":1,"lon":2,"alt":3}"#,
        ] {
            assert!(serde_json::from_str::<Given>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn texts_and_sets_have_limits_and_repeats_do_not_count() {
        let text = |bytes| Given::String("x".repeat(bytes).into()).to_value("a", Type::String);
        assert!(text(STRING_VALUE_BYTES_MAX).is_ok());
        assert_eq!(text(STRING_VALUE_BYTES_MAX + 1).unwrap_err().code, "invalid");
        let set = |entries: Vec<String>| {
            Given::Set(entries.into_iter().collect()).to_value("a", Type::Set)
        };
        let many = |n: usize| (0..n).map(|n| n.to_string()).collect::<Vec<_>>();
        assert!(set(many(SET_ENTRIES_MAX)).is_ok());
        assert!(set(many(SET_ENTRIES_MAX + 1)).unwrap_err().detail.contains("257 entries"));
        assert!(set(vec!["x".to_owned(); 10 * SET_ENTRIES_MAX]).is_ok());
        assert!(set(vec!["x".repeat(SET_ENTRY_BYTES_MAX)]).is_ok());
        let long = set(vec!["x".repeat(SET_ENTRY_BYTES_MAX + 1)]).unwrap_err();
        assert!(long.code == "invalid" && long.detail.contains("256 bytes"), "{long:?}");
    }

    #[test]
    fn numbers_are_written_as_they_were_sent() {
        for (number, text) in [
            (7.0, "7"),
            (-7.0, "-7"),
            (0.0, "0"),
            (-0.0, "-0.0"),
            (0.5, "0.5"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (1e300, "1e+300"),
        ] {
            let json = number_json(number);
            assert_eq!(json.to_string(), text);
            assert_eq!(json.as_f64().map(f64::to_bits), Some(number.to_bits()));
        }
    }
}
