//! The JSON in the tables' text columns.
//!
//! Attributes are `{"<16 hex digits>": value}`, where a version is `{"v":"2.3"}`, a date `{"d":"2026-11-21"}`, a time
//! `{"t":"2026-11-21T07:30:00.000Z"}`, a set `{"s":["a","b"]}`, a point `{"p":[latitude,longitude],"u":[x,y,z]}` in whole
//! units (see `carillon_expr::Point`; the SQL of an expression asks for `u`), and everything else what it looks like,
//! so that they can be typed without the attribute's declaration. Bodies are written and read as they are.

mod plain;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use carillon_expr::{Date, Number, Point, Set, Time, Value, Version, parse_id};
use carillon_world::{AttributeId, GroupId, Millis, Priority, PushToken, Tag, Variant};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// Why a column is not what we write. A sentence for the operator.
pub(crate) type Damage = String;

/// What a revision keeps of a variant: selector and tag.
type Head = (Option<Arc<str>>, Tag);

pub(crate) fn write_attributes(attributes: &[(AttributeId, Value)]) -> String {
    let mut out = Vec::with_capacity(2 + attributes.len() * 32);
    list(&mut out, *b"{}", attributes, |out, (id, value)| {
        out.extend_from_slice(format!("\"{id}\":").as_bytes());
        match value {
            Value::String(text) => json(out, &**text),
            Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Value::Bool(flag) => json(out, flag),
            Value::Version(version) => {
                out.extend_from_slice(format!("{{\"v\":\"{version}\"}}").as_bytes())
            }
            Value::Date(date) => out.extend_from_slice(format!("{{\"d\":\"{date}\"}}").as_bytes()),
            // All of one width, so that the text sorts as the time does.
            Value::Time(time) => {
                out.extend_from_slice(format!("{{\"t\":\"{}\"}}", time.to_fixed()).as_bytes());
            }
            Value::Point(point) => {
                let (latitude, longitude) = (point.latitude_units(), point.longitude_units());
                let [x, y, z] = point.direction();
                out.extend_from_slice(
                    format!("{{\"p\":[{latitude},{longitude}],\"u\":[{x},{y},{z}]}}").as_bytes(),
                );
            }
            Value::Set(set) => {
                out.extend_from_slice(b"{\"s\":");
                json(out, set);
                out.push(b'}');
            }
        }
    });
    text(out)
}

pub(crate) fn read_attributes(text: &str) -> Result<Box<[(AttributeId, Value)]>, Damage> {
    let attributes = match plain::attributes(text) {
        Some(attributes) => attributes.into(),
        None => read_any_attributes(text)?,
    };
    if !attributes.is_sorted_by(|a, b| a.0 < b.0) {
        return Err("its attributes are not sorted".to_owned());
    }
    Ok(attributes)
}

fn read_any_attributes(text: &str) -> Result<Box<[(AttributeId, Value)]>, Damage> {
    let RawMap(pairs) = parse(text)?;
    let attributes: Result<Box<[_]>, Damage> = pairs
        .into_iter()
        .map(|(id, raw)| Ok((AttributeId::new(parse_hex(id)?), read_value(raw.get())?)))
        .collect();
    attributes
}

fn read_value(raw: &str) -> Result<Value, Damage> {
    #[derive(Deserialize)]
    enum Tagged {
        #[serde(rename = "v")]
        Version(Version),
        #[serde(rename = "d")]
        Date(Date),
        #[serde(rename = "t")]
        Time(Time),
        #[serde(rename = "s")]
        Set(Set),
    }
    #[derive(Deserialize)]
    struct PointIn {
        p: (i32, i32),
        u: [i32; 3],
    }
    match raw.as_bytes().first() {
        Some(b'"') => Ok(Value::String(parse(raw)?)),
        Some(b't' | b'f') => Ok(Value::Bool(parse(raw)?)),
        Some(b'{') if raw.starts_with("{\"p\"") => {
            let PointIn { p: (latitude, longitude), u } = parse(raw)?;
            Point::from_units(latitude, longitude)
                .filter(|point| point.direction() == u)
                .map(Value::Point)
                .ok_or_else(|| format!("{raw} is no point"))
        }
        Some(b'{') => Ok(match parse(raw)? {
            Tagged::Version(version) => Value::Version(version),
            Tagged::Date(date) => Value::Date(date),
            Tagged::Time(time) => Value::Time(time),
            Tagged::Set(set) => Value::Set(set),
        }),
        // Not by serde_json, which is off by one unit in the last place for some numbers.
        _ => raw
            .parse()
            .ok()
            .and_then(Number::try_new)
            .map(Value::Number)
            .ok_or_else(|| format!("{raw} is no number")),
    }
}

pub(crate) fn write_groups(groups: &[GroupId]) -> String {
    let mut out = Vec::with_capacity(2 + groups.len() * 19);
    list(&mut out, *b"[]", groups, |out, id| out.extend_from_slice(format!("\"{id}\"").as_bytes()));
    text(out)
}

pub(crate) fn read_groups(text: &str) -> Result<Box<[GroupId]>, Damage> {
    let groups: Box<[GroupId]> = match plain::groups(text) {
        Some(groups) => groups.into(),
        None => parse(text)?,
    };
    if !groups.is_sorted_by(|a, b| a < b) {
        return Err("its groups are not sorted".to_owned());
    }
    Ok(groups)
}

pub(crate) fn write_tokens(tokens: &[PushToken]) -> String {
    let mut out = Vec::with_capacity(2 + tokens.len() * 200);
    json(&mut out, tokens);
    text(out)
}

pub(crate) fn read_tokens(text: &str) -> Result<Vec<PushToken>, Damage> {
    parse(text)
}

/// # Errors
/// If a body is not JSON, or has white space around it, which would not come back.
pub(crate) fn write_variants(variants: &[Variant]) -> Result<String, Damage> {
    let mut out = Vec::with_capacity(
        64 + variants.iter().map(|variant| variant.wire.len() + 64).sum::<usize>(),
    );
    for variant in variants {
        let raw: &RawValue =
            serde_json::from_slice(&variant.wire).map_err(|error| format!("a body: {error}"))?;
        if raw.get().len() != variant.wire.len() {
            return Err("a body has white space around it".to_owned());
        }
    }
    list(&mut out, *b"[]", variants, |out, variant| {
        out.extend_from_slice(b"{\"selector\":");
        json(out, &variant.selector);
        out.extend_from_slice(format!(",\"tag\":\"{}\",\"wire\":", variant.tag).as_bytes());
        out.extend_from_slice(&variant.wire);
        out.push(b'}');
    });
    Ok(text(out))
}

/// Checks each tag against the body that it stands for.
pub(crate) fn read_variants(
    text: &str,
    priority: Priority,
    expires_at: Millis,
) -> Result<Vec<Variant>, Damage> {
    #[derive(Deserialize)]
    struct VariantIn<'a> {
        selector: Option<Arc<str>>,
        tag: &'a str,
        #[serde(borrow)]
        wire: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct WireIn<'a> {
        tag: &'a str,
        #[serde(borrow)]
        body: &'a RawValue,
    }
    let variants: Vec<VariantIn<'_>> = parse(text)?;
    if variants.is_empty() {
        return Err("it has no body".to_owned());
    }
    let read = |variant: VariantIn<'_>| {
        let tag = Tag::new(parse_hex(variant.tag)?);
        let wire: WireIn<'_> = parse(variant.wire.get())?;
        if wire.tag != variant.tag
            || Tag::of(wire.body.get().as_bytes(), priority, expires_at) != tag
        {
            return Err(format!("its tag {tag} is not that of its body"));
        }
        let wire = Bytes::copy_from_slice(variant.wire.get().as_bytes());
        Ok(Variant { selector: variant.selector, tag, wire })
    };
    variants.into_iter().map(read).collect()
}

/// `[[selector or null, "<16 hex digits of the tag>"], …]`
pub(crate) fn write_heads(variants: &[Variant]) -> String {
    let mut out = Vec::with_capacity(variants.len() * 32);
    list(&mut out, *b"[]", variants, |out, variant| {
        out.push(b'[');
        json(out, &variant.selector);
        out.extend_from_slice(format!(",\"{}\"]", variant.tag).as_bytes());
    });
    text(out)
}

pub(crate) fn read_heads(text: &str) -> Result<Vec<Head>, Damage> {
    let heads: Vec<(Option<Arc<str>>, Cow<'_, str>)> = parse(text)?;
    heads.into_iter().map(|(selector, tag)| Ok((selector, Tag::new(parse_hex(&tag)?)))).collect()
}

/// An object's pairs in the order in which they stand.
struct RawMap<'a>(Vec<(&'a str, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for RawMap<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawMap<'a>, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = RawMap<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawMap<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<&str, &RawValue>()? {
                    pairs.push((key, value));
                }
                Ok(RawMap(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

fn list<T>(
    out: &mut Vec<u8>,
    brackets: [u8; 2],
    items: &[T],
    mut item: impl FnMut(&mut Vec<u8>, &T),
) {
    out.push(brackets[0]);
    for (index, it) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        item(out, it);
    }
    out.push(brackets[1]);
}

fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("plain values, written to memory");
}

fn text(out: Vec<u8>) -> String {
    String::from_utf8(out).expect("JSON is text")
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Damage> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn parse_hex(text: &str) -> Result<u64, Damage> {
    parse_id(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: f64) -> Value {
        Value::Number(Number::try_new(number).unwrap())
    }

    #[test]
    fn attributes_keep_type_and_value() {
        let values = [
            Value::String("a \"quoted\" \\ back\u{1} 🎉".into()),
            Value::String("".into()),
            number(2.0),
            number(-1.5e-9),
            number(1e300),
            // serde_json reads this one a unit off unless told to be exact.
            number(31.245_270_191_439_438),
            Value::Bool(false),
            Value::Version("2.10".parse().unwrap()),
            Value::Date("2026-11-21".parse().unwrap()),
            Value::Time("2026-11-21T07:30:00Z".parse().unwrap()),
            Value::Point(Point::try_new(59.3293, -18.0686).unwrap()),
            Value::Set(["b", "a \"quoted\""].into_iter().collect()),
            Value::Set(Set::from_iter([""; 0])),
        ];
        let attributes: Box<[_]> = values
            .into_iter()
            .enumerate()
            .map(|(i, value)| (AttributeId::new(i as u64 * 77), value))
            .collect();
        let text = write_attributes(&attributes);
        assert_eq!(read_attributes(&text).unwrap(), attributes, "{text}");
        assert_eq!(
            write_attributes(&[(AttributeId::new(5), number(2.0))]),
            r#"{"0000000000000005":2}"#
        );
    }

    #[test]
    fn bodies_come_back_byte_by_byte_and_tags_are_checked() {
        let expires_at = Millis(99);
        let body = r#"{"b" : 1.0,"a":"\u00e9 \/ 🎉" }"#;
        let tag = Tag::of(body.as_bytes(), Priority::High, expires_at);
        let wire = format!(r#"{{"id":"0000000000000001","tag":"{tag}","body":{body}}}"#);
        let variants = [Variant { selector: Some("all".into()), tag, wire: Bytes::from(wire) }];
        let text = write_variants(&variants).unwrap();
        assert_eq!(read_variants(&text, Priority::High, expires_at).unwrap(), variants);
        assert!(read_variants(&text, Priority::Low, expires_at).is_err());
        assert!(read_variants(&text.replace("1.0", "1.1"), Priority::High, expires_at).is_err());
        assert!(read_variants("[]", Priority::High, expires_at).is_err());
        assert_eq!(read_heads(&write_heads(&variants)).unwrap(), [(Some("all".into()), tag)]);
    }

    #[test]
    fn a_body_that_would_not_come_back_is_refused() {
        for wire in ["", "{", "{} ", "\n{}", "{}{}", "{\"a\":\u{1}}"] {
            let variant =
                Variant { selector: None, tag: Tag::new(0), wire: Bytes::from(wire.to_owned()) };
            assert!(write_variants(&[variant]).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn what_we_do_not_write_is_damage() {
        for text in [
            "",
            "[]",
            r#"{"5":1}"#,
            r#"{"0000000000000005":null}"#,
            r#"{"0000000000000005":{"w":"2"}}"#,
            r#"{"0000000000000005":{"d":"2026-02-30"}}"#,
            r#"{"0000000000000005":{"p":[0,0],"u":[0,0,0]}}"#,
            r#"{"0000000000000005":{"p":[900000001,0],"u":[0,0,0]}}"#,
        ] {
            assert!(read_attributes(text).is_err(), "{text}");
        }
        assert!(read_attributes(r#"{"0000000000000005":1,"0000000000000004":1}"#).is_err());
        assert!(read_groups(r#"["0000000000000005","0000000000000005"]"#).is_err());
        assert!(read_tokens(r#"[{"channel":"pigeon","token":"x"}]"#).is_err());
    }
}
