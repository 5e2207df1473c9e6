//! The expression's two costs: reading a text, once for each change, and evaluating it, for each device and message.
//!
//! Reading is held against a scan that only cuts the same text into tokens and counts them; evaluation against the same
//! condition written by hand in Rust over the same rows, which is as fast as an expression could ever be.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use carillon_expr::{
    AttributeId, Context, Expression, GroupId, Limits, Number, Profile, Schema, Time, Type, Value,
    Version,
};
use carillon_world::{AppId, DeviceId, DeviceRow, Millis, Seq};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{BenchError, Figure, Goal, Spread, print, progress};

const TIMES: usize = 5;
const LASTS: Duration = Duration::from_millis(400);
const DEVICES: u64 = 4_096;
const TEXT_BYTES: usize = 1_024;

const ATTRIBUTES: [(&str, Type); 8] = [
    ("country", Type::String),
    ("platform", Type::String),
    ("age", Type::Number),
    ("spent", Type::Number),
    ("premium", Type::Bool),
    ("app_version", Type::Version),
    ("signed_up", Type::Time),
    ("interests", Type::Set),
];
const GROUPS: [&str; 2] = ["vip", "staff"];
const COUNTRIES: [&str; 8] = ["SE", "NO", "FI", "DK", "KE", "US", "DE", "BR"];
const INTERESTS: [&str; 6] = ["news", "sport", "food", "travel", "music", "film"];

/// What the list of a thousand holds.
static LIST: [f64; 1_000] = {
    let mut list = [0.0; 1_000];
    let mut at = 1;
    while at < list.len() {
        list[at] = list[at - 1] + 3.0;
        at += 1;
    }
    list
};

struct App;

impl Schema for App {
    fn attribute(&self, name: &str) -> Option<(AttributeId, Type)> {
        let at = ATTRIBUTES.iter().position(|(known, _)| *known == name)?;
        Some((id(at), ATTRIBUTES[at].1))
    }

    fn attribute_name(&self, id: AttributeId) -> Option<(&str, Type)> {
        ATTRIBUTES.get(usize::try_from(id.get()).ok()?).copied()
    }

    fn group(&self, name: &str) -> Option<GroupId> {
        GROUPS.iter().position(|known| *known == name).map(|at| GroupId::new(at as u64))
    }

    fn group_name(&self, id: GroupId) -> Option<&str> {
        GROUPS.get(usize::try_from(id.get()).ok()?).copied()
    }

    fn visit_attribute_names(&self, visit: &mut dyn FnMut(&str)) {
        ATTRIBUTES.iter().for_each(|(name, _)| visit(name));
    }

    fn visit_group_names(&self, visit: &mut dyn FnMut(&str)) {
        GROUPS.iter().for_each(|name| visit(name));
    }
}

const fn id(at: usize) -> AttributeId {
    AttributeId::new(at as u64)
}

/// An expression, and the same question by hand.
struct Shape {
    name: &'static str,
    source: String,
    by_hand: fn(&DeviceRow) -> bool,
    /// Only where the code by hand looks values up as often as an evaluation must.
    over_hand: Goal,
}

/// # Errors
/// If an answer is not the one that was worked out by hand.
pub(super) async fn run() -> Result<(), BenchError> {
    reading()?;
    let devices = devices();
    for shape in shapes() {
        evaluation(&shape, &devices)?;
    }
    Ok(())
}

/// A text of a kilobyte of all sorts of conditions.
fn text() -> String {
    let mut text = String::new();
    for at in 0.. {
        let part = match at % 6 {
            0 => format!("country in (\"SE\", \"NO\", \"F{at}\") and age between {at} and 90"),
            1 => format!("app_version >= v2.{at} and not #staff"),
            2 => format!("(platform == \"ios\" or spent > {at}.5) and premium"),
            3 => format!("interests any (\"news\", \"sport{at}\")"),
            4 => format!("signed_up within {}d and not has spent", at + 1),
            _ => format!("country matches \"S*{at}?\" ignoring case or #vip"),
        };
        if text.len() + part.len() + 4 > TEXT_BYTES {
            break;
        }
        if at > 0 {
            text.push_str(" or ");
        }
        text.push_str(&part);
    }
    // Exactly a kilobyte, so that the figure is what it says.
    let missing = TEXT_BYTES - text.len();
    let _ = write!(text, "{:missing$}", "");
    text
}

fn reading() -> Result<(), BenchError> {
    let text = text();
    let limits = Limits::default();
    let read = Expression::parse(&text, &App, &limits);
    let read = read.map_err(|faults| BenchError(faults.render(&text)))?;
    let (nodes, tokens) = (read.nodes(), scan(&text));
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let mut whole = true;
        ours.push(nanoseconds(|| {
            let read = Expression::parse(black_box(&text), &App, &limits);
            whole &= read.is_ok_and(|read| read.nodes() == nodes);
        }));
        bare.push(nanoseconds(|| whole &= scan(black_box(&text)) == tokens));
        if !whole {
            return Err(BenchError("the text was read as something else".to_owned()));
        }
    }
    let micros = |each: &[f64]| Spread::of(&each.iter().map(|ns| ns / 1_000.0).collect::<Vec<_>>());
    let (ours, bare) = (micros(&ours), micros(&bare));
    progress(&format!("read a text of {} bytes: {ours} µs, scan {bare} µs", text.len()));
    print(&Figure {
        figure: "expr_parse_and_check_1kb".to_owned(),
        value: ours.median,
        unit: "µs",
        against: format!(
            "a scan that counts the {tokens} tokens of the text: {bare} µs; read, checked and compiled to {nodes} nodes: {ours} µs"
        ),
        goal: Goal::None,
    });
    print(&Figure {
        figure: "expr_parse_and_check_1kb_over_scan".to_owned(),
        value: ours.median / bare.median,
        unit: "ratio",
        against: format!("a scan that counts the tokens: {bare} µs"),
        goal: Goal::None,
    });
    Ok(())
}

/// The tokens of a text without faults or comments, counted and thrown away: no reader could do less.
fn scan(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut tokens) = (0, 0);
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    while let Some(byte) = bytes.get(at) {
        let rest = &bytes[at + 1..];
        at += 1 + match byte {
            b' ' | b'\n' => {
                at += 1;
                continue;
            }
            b'"' => rest.iter().position(|byte| *byte == b'"').map_or(rest.len(), |end| end + 1),
            b'=' | b'<' | b'>' | b'!' => usize::from(rest.first() == Some(&b'=')),
            b'#' => rest.iter().take_while(|byte| is_word(byte)).count(),
            byte if is_word(byte) => rest.iter().take_while(|byte| is_word(byte)).count(),
            _ => 0,
        };
        tokens += 1;
    }
    tokens
}

fn devices() -> Vec<DeviceRow> {
    let mut random = StdRng::seed_from_u64(4);
    let mut one = |of: &[&str]| of.choose(&mut random).copied().unwrap_or_default().to_owned();
    let words: Vec<(String, String, String)> = (0..DEVICES)
        .map(|_| (one(&COUNTRIES), one(&["ios", "android", "web"]), one(&INTERESTS)))
        .collect();
    let number = |number: u32| Value::Number(Number::try_new(f64::from(number)).expect("finite"));
    words
        .into_iter()
        .enumerate()
        .map(|(at, (country, platform, interest))| {
            let values = [
                Value::String(country.into()),
                Value::String(platform.into()),
                number(random.random_range(10..90)),
                number(random.random_range(0..1_000)),
                Value::Bool(random.random()),
                Value::Version(Version::new([2, random.random_range(0..20), 0, 0])),
                Value::Time(Time::from_ms(1_795_000_000_000).expect("2026")),
                Value::Set([interest, "all".to_owned()].into_iter().collect()),
            ];
            let attributes: Vec<_> =
                values.into_iter().enumerate().map(|(at, value)| (id(at), value)).collect();
            // One in ten lacks something.
            let lacks = random.random_range(0..80);
            DeviceRow {
                id: DeviceId::new(at as u64),
                app: AppId::new(1),
                generation: Seq::ZERO,
                p: Seq::ZERO,
                created_at: Millis(1),
                user: None,
                attributes: attributes
                    .into_iter()
                    .filter(|(known, _)| *known != id(lacks))
                    .collect(),
                groups: (0..2).filter(|_| random.random_ratio(1, 4)).map(GroupId::new).collect(),
                private: None,
                last_seen: Millis::ZERO,
            }
        })
        .collect()
}

fn country(device: &DeviceRow) -> Option<&str> {
    match device.attribute(id(0))? {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn amount(device: &DeviceRow, at: usize) -> Option<f64> {
    match device.attribute(id(at))? {
        Value::Number(number) => Some(number.get()),
        _ => None,
    }
}

fn shapes() -> Vec<Shape> {
    let joined = |count: usize, joint: &str, part: &dyn Fn(usize) -> String| {
        (0..count).map(part).collect::<Vec<_>>().join(joint)
    };
    vec![
        Shape {
            name: "usual",
            source: "#vip and country in (\"KE\", \"SE\") and app_version >= v2.3 and not #staff"
                .to_owned(),
            by_hand: |device| {
                device.in_group(GroupId::new(0))
                    && country(device).is_some_and(|country| country == "KE" || country == "SE")
                    && matches!(device.attribute(id(5)), Some(Value::Version(version)) if *version >= Version::new([2, 3, 0, 0]))
                    && !device.in_group(GroupId::new(1))
            },
            over_hand: Goal::AtMost(3.0),
        },
        Shape {
            // Every part is asked: none of them decides before the last.
            name: "or_of_1000_numbers",
            source: joined(1_000, " or ", &|at| format!("age == {}", at + 1_000)),
            by_hand: |device| {
                amount(device, 2).is_some_and(|age| {
                    (0..1_000_u32).any(|at| age == f64::from(black_box(at) + 1_000))
                })
            },
            over_hand: Goal::None,
        },
        Shape {
            name: "and_of_100_ors",
            source: joined(100, " and ", &|at| {
                format!("(country != \"X{at}\" or age < {at} or #vip)")
            }),
            by_hand: |device| {
                (0..100_u32).all(|at| {
                    let name = [b'X', b'0' + (black_box(at) % 10) as u8];
                    country(device).is_some_and(|country| country.as_bytes() != name)
                        || amount(device, 2).is_some_and(|age| age < f64::from(at))
                        || device.in_group(GroupId::new(0))
                })
            },
            over_hand: Goal::None,
        },
        Shape {
            name: "list_of_1000",
            source: format!("age in ({})", joined(1_000, ", ", &|at| (at * 3).to_string())),
            by_hand: |device| {
                amount(device, 2).is_some_and(|age| {
                    black_box(&LIST).binary_search_by(|known| known.total_cmp(&age)).is_ok()
                })
            },
            over_hand: Goal::None,
        },
    ]
}

fn evaluation(shape: &Shape, devices: &[DeviceRow]) -> Result<(), BenchError> {
    let limits = Limits::default();
    let read = Expression::parse(&shape.source, &App, &limits);
    let read = read.map_err(|faults| BenchError(faults.render(&shape.source)))?;
    let context = Context::default();
    let expected = devices.iter().filter(|device| (shape.by_hand)(device)).count();
    let steps: u64 = devices.iter().map(|device| read.matches_counted(device, &context).1).sum();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let mut right = true;
        ours.push(nanoseconds(|| {
            let matches = |device: &&DeviceRow| read.matches_in(black_box(*device), &context);
            right &= devices.iter().filter(matches).count() == expected;
        }));
        bare.push(nanoseconds(|| {
            let matches = |device: &&DeviceRow| (shape.by_hand)(black_box(device));
            right &= devices.iter().filter(matches).count() == expected;
        }));
        if !right {
            return Err(BenchError(format!("{}: the two find other devices", shape.name)));
        }
    }
    // Those that were asked: an evaluation ends as soon as the whole is decided.
    let a_step =
        |each: &[f64]| Spread::of(&each.iter().map(|ns| ns / steps as f64).collect::<Vec<_>>());
    let (ours, bare) = (a_step(&ours), a_step(&bare));
    let asked = steps as f64 / devices.len() as f64;
    progress(&format!("{}: {ours} ns a node, by hand {bare}", shape.name));
    print(&Figure {
        figure: format!("expr_evaluate_{}", shape.name),
        value: ours.median,
        unit: "ns/node",
        against: format!(
            "the same condition by hand in Rust over the same rows: {bare} ns; evaluation: {ours} ns for each of the \
             {asked:.1} nodes asked of {} a device; {expected} of {} devices are recipients",
            read.nodes(),
            devices.len()
        ),
        goal: Goal::None,
    });
    print(&Figure {
        figure: format!("expr_evaluate_{}_over_hand", shape.name),
        value: ours.median / bare.median,
        unit: "ratio",
        against: "the same condition by hand in Rust over the same rows".to_owned(),
        goal: shape.over_hand,
    });
    Ok(())
}

/// How long one call takes, over as many as fill [`LASTS`].
fn nanoseconds(mut call: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut calls = 0_u32;
    while begun.elapsed() < LASTS {
        for _ in 0..8 {
            call();
        }
        calls += 8;
    }
    begun.elapsed().as_nanos() as f64 / f64::from(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scan_counts_what_a_person_counts() {
        assert_eq!(scan("#vip and age >= 3 or not (country in (\"S E\", \"NO\"))"), 16);
        assert_eq!(text().len(), TEXT_BYTES);
    }
}
