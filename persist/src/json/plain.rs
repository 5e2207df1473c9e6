//! Attributes and groups exactly as we write them, which is how nearly all of them stand, read without a parser: a
//! start reads tens of millions.
//!
//! Whatever is written otherwise (an escape, a space, another order of things) is `None`, and the parser's to judge.

use carillon_expr::{Number, Value, parse_id};
use carillon_world::{AttributeId, GroupId};

/// `["<16 hex digits>",…]`
pub(super) fn groups(text: &str) -> Option<Vec<GroupId>> {
    const EACH: usize = r#""0123456789abcdef","#.len();
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    if inside.is_empty() {
        return Some(Vec::new());
    }
    let count = (inside.len() + 1) / EACH;
    if count * EACH != inside.len() + 1 {
        return None;
    }
    let mut groups = Vec::with_capacity(count);
    let mut rest = inside;
    loop {
        let (id, after) = quoted_id(rest)?;
        groups.push(GroupId::new(id));
        if after.is_empty() {
            return Some(groups);
        }
        rest = after.strip_prefix(',')?;
    }
}

/// `{"<16 hex digits>":value,…}`
pub(super) fn attributes(text: &str) -> Option<Vec<(AttributeId, Value)>> {
    let mut rest = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut attributes = Vec::with_capacity(8);
    if rest.is_empty() {
        return Some(attributes);
    }
    loop {
        let (id, after) = quoted_id(rest)?;
        let (value, after) = value(after.strip_prefix(':')?)?;
        attributes.push((AttributeId::new(id), value));
        if after.is_empty() {
            return Some(attributes);
        }
        rest = after.strip_prefix(',')?;
    }
}

fn quoted_id(text: &str) -> Option<(u64, &str)> {
    let digits = text.strip_prefix('"')?;
    let (digits, rest) = (digits.get(..16)?, digits.get(16..)?);
    Some((parse_id(digits).ok()?, rest.strip_prefix('"')?))
}

fn value(text: &str) -> Option<(Value, &str)> {
    match text.as_bytes().first()? {
        b'"' => {
            let (text, rest) = quoted(text)?;
            Some((Value::String(text.into()), rest))
        }
        b't' => Some((Value::Bool(true), text.strip_prefix("true")?)),
        b'f' => Some((Value::Bool(false), text.strip_prefix("false")?)),
        b'{' => {
            let (version, rest) = quoted(text.strip_prefix("{\"v\":")?)?;
            Some((Value::Version(version.parse().ok()?), rest.strip_prefix('}')?))
        }
        b'-' | b'0'..=b'9' => {
            let end = text.find(',').unwrap_or(text.len());
            let (number, rest) = text.split_at(end);
            // What Rust reads and JSON has not, such as `1.` or `+1`, is the parser's to refuse.
            let digits = |c: char| matches!(c, '0'..='9' | '-' | '.');
            let plain =
                number.chars().all(digits) && number.ends_with(|c: char| c.is_ascii_digit());
            let leading = number.trim_start_matches('-');
            let zeros = leading.len() > 1 && leading.starts_with('0') && !leading.starts_with("0.");
            if !plain || zeros || leading.starts_with('.') {
                return None;
            }
            Some((Value::Number(Number::try_new(number.parse().ok()?)?), rest))
        }
        _ => None,
    }
}

/// A text without escapes, and what follows its closing quote.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('"')?;
    let end = inside.bytes().position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
    (inside.as_bytes()[end] == b'"').then(|| (&inside[..end], &inside[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::super::{read_any_attributes, write_attributes, write_groups};
    use super::*;

    /// SplitMix64.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = *state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn value(state: &mut u64) -> Value {
        let texts = ["", "KE", "a \"quote\"", "back\\slash", "tab\t", "é 🎉", "},{", "\u{7f}"];
        match next(state) % 7 {
            0 => Value::String(texts[(next(state) % 8) as usize].into()),
            1 => Value::Number(Number::try_new((next(state) % 2_000) as f64 - 1_000.0).unwrap()),
            2 => Value::Number(
                Number::try_new(f64::from_bits(next(state)))
                    .unwrap_or(Number::try_new(0.1).unwrap()),
            ),
            3 => Value::Bool(next(state).is_multiple_of(2)),
            4 => Value::Date(format!("2026-11-{}", next(state) % 20 + 10).parse().unwrap()),
            5 => Value::Set([texts[(next(state) % 8) as usize], "x"].into_iter().collect()),
            _ => {
                Value::Version(format!("{}.{}", next(state) % 9, next(state) % 9).parse().unwrap())
            }
        }
    }

    #[test]
    fn what_is_read_plainly_is_what_the_parser_reads() {
        let mut state = 7;
        let (mut plain, mut others) = (0, 0);
        for _ in 0..20_000 {
            let count = next(&mut state) % 5;
            let written: Vec<_> = (0..count)
                .map(|_| (AttributeId::new(next(&mut state)), value(&mut state)))
                .collect();
            let mut text = write_attributes(&written).into_bytes();
            // Some are damaged, one byte each.
            if next(&mut state).is_multiple_of(3) {
                let at = (next(&mut state) % text.len() as u64) as usize;
                text[at] = b" \"\\,:{}[]0af-+.e"[(next(&mut state) % 16) as usize];
            }
            let Ok(text) = String::from_utf8(text) else { continue };
            match (attributes(&text), read_any_attributes(&text)) {
                (Some(read), Ok(parsed)) => {
                    assert_eq!(read, parsed.into_vec(), "{text}");
                    plain += 1;
                }
                (Some(read), Err(error)) => panic!("{text}: {read:?}, but {error}"),
                (None, _) => others += 1,
            }
        }
        assert!(plain > 5_000 && others > 1_000, "{plain} and {others}");
        // What is no number of JSON is none here either; no damage of one byte makes all of these.
        assert!(attributes(r#"{"0000000000000001":-0.5}"#).is_some());
        for number in ["-.5", ".5", "5.", "-", "+5", "05", "1e", "1e+", "0x1", "--5", "1.2.3"] {
            let text = format!("{{\"0000000000000001\":{number}}}");
            assert_eq!(attributes(&text), None, "{number}");
        }
    }

    #[test]
    fn groups_are_read_as_they_are_written_and_nothing_else_is() {
        for count in [0, 1, 2, 50] {
            let ids: Vec<GroupId> =
                (0..count).map(|n| GroupId::new(n * 0x1234_5678_9abc)).collect();
            assert_eq!(groups(&write_groups(&ids)), Some(ids));
        }
        let one = r#"["0000000000000005"]"#;
        assert!(groups(one).is_some());
        for at in 0..one.len() {
            for byte in [" ", "x", "\"", "[", ",", "]"] {
                let mut text = one.to_owned();
                text.replace_range(at..=at, byte);
                if text != one {
                    assert_eq!(groups(&text), None, "{text}");
                }
            }
        }
        assert_eq!(groups(r#"["0000000000000005",]"#), None);
        assert_eq!(groups(r#"["000000000000000é"]"#), None);
    }
}
