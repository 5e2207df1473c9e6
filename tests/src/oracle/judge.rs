//! What trees mean, told as plainly as it can be: an interpreter that shares nothing with `carillon-expr` but values.

use std::collections::BTreeMap;

use carillon_expr::{Date, Profile as _, Time, Truth, Type, Value};
use sha2::{Digest, Sha256};

use super::tree::{
    HOME, OFFSET, Right, Tree, What, attribute_id, group_id, point, text, time, unit_ms,
};
use super::world::{Device, World};

/// How often each operator was true, unknown, false.
pub(super) type Outcomes = BTreeMap<String, Outcome>;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    pub(super) falses: u64,
    pub(super) unknowns: u64,
    pub(super) trues: u64,
    /// Whether it can be unknown at all.
    pub(super) is_decided: bool,
}

impl Outcome {
    /// The rarest of what can happen.
    pub(super) fn least(&self) -> u64 {
        let known = self.falses.min(self.trues);
        if self.is_decided { known } else { known.min(self.unknowns) }
    }
}

/// Counts what every part of `tree` is for `device`.
pub(super) fn count(tree: &Tree, device: &Device, world: &World, outcomes: &mut Outcomes) {
    let outcome = outcomes.entry(tree.operator()).or_default();
    outcome.is_decided = tree.is_decided();
    match judge(tree, device, world) {
        0 => outcome.falses += 1,
        1 => outcome.unknowns += 1,
        _ => outcome.trues += 1,
    }
    for kid in tree.kids() {
        count(kid, device, world, outcomes);
    }
}

/// What the expression is for the device.
pub(super) fn truth(tree: &Tree, device: &Device, world: &World) -> Truth {
    [Truth::False, Truth::Unknown, Truth::True][usize::from(judge(tree, device, world))]
}

const fn known(yes: bool) -> u8 {
    if yes { 2 } else { 0 }
}

/// Kleene's logic as minimum and maximum over false 0, unknown 1, true 2.
fn judge(tree: &Tree, device: &Device, world: &World) -> u8 {
    let now = world.now;
    let actual = |what: What| -> Option<Value> {
        match what {
            What::Attribute(index) => {
                let id = attribute_id(index);
                let found = device.row.attributes.iter().find(|(known, _)| *known == id);
                found.map(|(_, value)| value.clone())
            }
            What::User => device.row.user.as_deref().map(text),
            What::LastSeen => device.last_seen().map(|seen| Value::Time(seen.min(now))),
        }
    };
    let resolve = |what: What, right: &Right| match right {
        Right::Value(value) => value.clone(),
        Right::Now(n, unit) => after(now, *n, *unit, what.kind()),
    };
    let flip = |negated: bool, truth: u8| if negated { 2 - truth } else { truth };
    let wall = || {
        let Some(Value::Number(offset)) = actual(What::Attribute(OFFSET)) else { return None };
        let offset = offset.get();
        if offset.fract() != 0.0 || offset.abs() >= 1_440.0 {
            return None;
        }
        Some(now.ms().div_euclid(60_000) + offset as i64)
    };
    match tree {
        Tree::All => 2,
        Tree::Group(index) => known(device.row.groups.contains(&group_id(*index))),
        Tree::Audience(index) => judge(&world.audiences[*index], device, world),
        Tree::Devices(ids) => known(ids.contains(&device.row.id.get())),
        Tree::Has(what) => known(actual(*what).is_some()),
        Tree::Flag(index) => {
            actual(What::Attribute(*index)).map_or(1, |value| known(value == Value::Bool(true)))
        }
        Tree::Compare(what, symbol, right) => actual(*what).map_or(1, |actual| {
            let value = &resolve(*what, right);
            known(match *symbol {
                "==" => same(&actual, value),
                "!=" => !same(&actual, value),
                "<" => less(&actual, value),
                "<=" => less(&actual, value) || same(&actual, value),
                ">" => less(value, &actual),
                _ => !less(&actual, value),
            })
        }),
        Tree::Between(what, negated, low, high) => actual(*what).map_or(1, |actual| {
            let (low, high) = (resolve(*what, low), resolve(*what, high));
            flip(*negated, known(!less(&actual, &low) && !less(&high, &actual)))
        }),
        Tree::In(what, negated, fold, values) => actual(*what).map_or(1, |actual| {
            let fold = |value: &Value| match value {
                Value::String(s) if *fold => text(&lower(s)),
                value => value.clone(),
            };
            flip(*negated, known(values.iter().any(|value| same(&fold(value), &fold(&actual)))))
        }),
        Tree::Alike(what, symbol, word) => actual(*what).map_or(1, |actual| {
            flip(*symbol == "!=", known(lower(&string(&actual)) == lower(word)))
        }),
        Tree::Text(what, operator, negated, fold, piece) => actual(*what).map_or(1, |actual| {
            let lower = |s: &str| if *fold { lower(s) } else { s.to_owned() };
            let a: Vec<char> = lower(&string(&actual)).chars().collect();
            let p: Vec<char> = lower(piece).chars().collect();
            flip(
                *negated,
                known(match *operator {
                    "starts_with" => a.len() >= p.len() && a[..p.len()] == p,
                    "ends_with" => a.len() >= p.len() && a[a.len() - p.len()..] == p,
                    "contains" => (0..=a.len()).any(|from| a[from..].starts_with(&p)),
                    _ => glob(&p, &a),
                }),
            )
        }),
        Tree::Entries(operator, negated, entries) => {
            let Some(Value::Set(set)) = actual(What::Attribute(super::tree::TAGS)) else {
                return 1;
            };
            let has = |entry: &String| set.entries().iter().any(|known| **known == **entry);
            flip(
                *negated,
                known(match *operator {
                    "all" => entries.iter().all(has),
                    "none" => !entries.iter().any(has),
                    _ => entries.iter().any(has),
                }),
            )
        }
        Tree::Within(what, negated, ahead, n, unit) => actual(*what).map_or(1, |actual| {
            let (from, to) = if *ahead { (0, *n) } else { (-n, 0) };
            let from = after(now, from, *unit, what.kind());
            let to = after(now, to, *unit, what.kind());
            flip(*negated, known(!less(&actual, &from) && !less(&to, &actual)))
        }),
        Tree::Near(latitude, longitude, metres) => {
            let Some(Value::Point(home)) = actual(What::Attribute(HOME)) else { return 1 };
            // The definition itself, in wider integers: see `expr/src/point.rs`.
            let centre = point(*latitude, *longitude);
            let squares = home.direction().into_iter().zip(centre.direction());
            let chord: i128 = squares.map(|(a, b)| (i128::from(a) - i128::from(b)).pow(2)).sum();
            let half = f64::from(*metres) / (2.0 * 6_371_008.8);
            let reach = if half >= std::f64::consts::FRAC_PI_2 { 3.0 } else { 2.0 * half.sin() };
            known(chord as f64 <= (reach * 1_073_741_824.0).powi(2) + 0.5)
        }
        Tree::Sample(ppm, salt) => {
            let salt = salt.clone().unwrap_or(format!("{:016x}", world.message));
            let mut bytes = b"carillon.sample.v1".to_vec();
            bytes.extend((salt.len() as u64).to_be_bytes());
            bytes.extend(salt.as_bytes());
            bytes.extend(device.row.id.get().to_be_bytes());
            let digest = Sha256::digest(&bytes);
            let hash = digest[..8].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
            known(u128::from(hash) * 1_000_000 < u128::from(*ppm) << 64)
        }
        Tree::LocalTime(symbol, minute) => wall().map_or(1, |wall| {
            let (actual, minute) = (wall.rem_euclid(1_440), i64::from(*minute));
            known(match *symbol {
                "==" => actual == minute,
                "!=" => actual != minute,
                "<" => actual < minute,
                "<=" => actual <= minute,
                ">" => actual > minute,
                _ => actual >= minute,
            })
        }),
        Tree::LocalBetween(negated, low, high) => wall().map_or(1, |wall| {
            let actual = wall.rem_euclid(1_440);
            let mut minute = i64::from(*low);
            let mut found = actual == minute;
            while minute != i64::from(*high) {
                minute = (minute + 1) % 1_440;
                found |= actual == minute;
            }
            flip(*negated, known(found))
        }),
        Tree::LocalDay(negated, days) => wall().map_or(1, |wall| {
            // The first day of 1970 was a Thursday.
            let day = (3 + wall.div_euclid(1_440)).rem_euclid(7);
            flip(*negated, known(days.contains(&(day as usize))))
        }),
        Tree::Not(inner) => 2 - judge(inner, device, world),
        Tree::And(kids) => kids.iter().map(|kid| judge(kid, device, world)).min().unwrap_or(2),
        Tree::Or(kids) => kids.iter().map(|kid| judge(kid, device, world)).max().unwrap_or(0),
    }
}

/// So long after the clock.
fn after(now: Time, n: i64, unit: char, kind: Type) -> Value {
    if kind == Type::Date {
        let days = i64::from(now.date().days()) + n * unit_ms(unit) / 86_400_000;
        return Value::Date(Date::from_days(days).expect("spans of a century at most"));
    }
    Value::Time(time(now.ms() + n * unit_ms(unit)))
}

fn string(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        other => panic!("{other:?} is no string"),
    }
}

fn lower(text: &str) -> String {
    let lower = |c: char| {
        let known = (c as u32) < 0x590 || (0x1e00..0x2000).contains(&(c as u32));
        let all: Vec<char> = c.to_lowercase().collect();
        match all[..] {
            _ if c == 'ς' => 'σ',
            [only] if known => only,
            _ => c,
        }
    };
    text.chars().map(lower).collect()
}

fn glob(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        ['\\', c, rest @ ..] => text.first() == Some(c) && glob(rest, &text[1..]),
        ['?', rest @ ..] => !text.is_empty() && glob(rest, &text[1..]),
        [c, rest @ ..] => text.first() == Some(c) && glob(rest, &text[1..]),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    !less(a, b) && !less(b, a)
}

fn less(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.chars().lt(b.chars()),
        (Value::Number(a), Value::Number(b)) => a.get() < b.get(),
        (Value::Bool(a), Value::Bool(b)) => !a & b,
        (Value::Version(a), Value::Version(b)) => a.components().into_iter().lt(b.components()),
        (Value::Date(a), Value::Date(b)) => a.days() < b.days(),
        (Value::Time(a), Value::Time(b)) => a.ms() < b.ms(),
        _ => panic!("values of two types, or of one without order"),
    }
}
