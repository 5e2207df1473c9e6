//! The language as the tests know it: a tree of their own, how it is written, and what it means,
//! told as plainly as it can be and sharing nothing with the crate but the values.

use proptest::prelude::*;

use super::{
    ATTRIBUTES, AUDIENCES, Device, GROUPS, attribute_id, context, date, group_id, now, number,
    point, set, text, time, version,
};
use crate::{Date, Time, Type, Value};

#[derive(Clone, Debug)]
pub(super) enum Tree {
    All,
    Group(usize),
    Audience(usize),
    Devices(Vec<u64>),
    Has(What),
    Flag(usize),
    Compare(What, &'static str, Right),
    /// Negated, ends.
    Between(What, bool, Right, Right),
    /// Negated, ignoring case.
    In(What, bool, bool, Vec<Value>),
    /// `== x ignoring case` or `!=`.
    Alike(What, &'static str, String),
    /// Operator, negated, ignoring case.
    Text(What, &'static str, bool, bool, String),
    Entries(usize, &'static str, bool, Vec<String>),
    /// Negated, ahead, amount, unit.
    Within(What, bool, bool, i64, char),
    Near(f64, f64, u32),
    Sample(u32, Option<String>),
    LocalTime(&'static str, u16),
    LocalBetween(bool, u16, u16),
    LocalDay(bool, Vec<usize>),
    Not(Box<Tree>),
    And(Vec<Tree>),
    Or(Vec<Tree>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What {
    Attribute(usize),
    User,
    LastSeen,
}

impl What {
    fn kind(self) -> Type {
        match self {
            What::Attribute(index) => ATTRIBUTES[index].1,
            What::User => Type::String,
            What::LastSeen => Type::Time,
        }
    }

    fn name(self) -> &'static str {
        match self {
            What::Attribute(index) => ATTRIBUTES[index].0,
            What::User => "user",
            What::LastSeen => "last_seen",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Right {
    Value(Value),
    /// An amount and its unit from the clock.
    Now(i64, char),
}

const HOME: usize = 10;
const TAGS: usize = 11;
const OFFSET: usize = 12;

const LETTERS: &[&str] = &[
    "a", "A", "b", "B", "é", "É", "σ", "ς", "Σ", "ß", "İ", "*", "?", "[", "]", "%", "_", "|", "\\",
    "'", "\"", " ", "😀", "e\u{301}", "\u{1f}", "\n", "ǆ", "\u{212a}",
];

/// Mostly from few, so that two are often the same.
fn word() -> impl Strategy<Value = String> {
    const FEW: &[&str] = &["", "SE", "KE", "se", "å", "SE ", "Åse", "[a]", "a", "[", "A*"];
    prop_oneof![
        6 => prop::sample::select(FEW).prop_map(str::to_owned),
        3 => prop::collection::vec(prop::sample::select(LETTERS), 0..4).prop_map(|l| l.concat()),
        1 => any::<String>().prop_map(|s| s.replace('\0', "0")),
    ]
}

/// Small, so that they are often found.
fn piece() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(LETTERS), 0..3).prop_map(|letters| letters.concat())
}

/// A word with some characters replaced by wildcards.
fn pattern() -> impl Strategy<Value = String> {
    let wild = prop::sample::select(vec!["", "", "", "*", "?"]);
    (word(), prop::collection::vec(wild, 8), any::<bool>()).prop_map(|(word, wild, open)| {
        let mut pattern = String::new();
        for (at, c) in word.chars().enumerate() {
            match (wild[at % 8], c) {
                ("", '\\' | '*' | '?') => pattern.extend(['\\', c]),
                ("", c) => pattern.push(c),
                (wild, _) => pattern.push_str(wild),
            }
        }
        if open { pattern + "*" } else { pattern }
    })
}

fn degrees(most: f64) -> impl Strategy<Value = f64> {
    prop_oneof![
        2 => prop::sample::select(vec![0.0, most, -most, 1e-7, 59.33, 18.07]),
        2 => 59.0..60.0,
        1 => -most..=most,
    ]
    .prop_map(move |degrees: f64| (degrees.clamp(-most, most) * 1e7).round() / 1e7)
}

pub(super) fn value(kind: Type) -> BoxedStrategy<Value> {
    match kind {
        Type::String => word().prop_map(|s| text(&s)).boxed(),
        Type::Number => prop_oneof![
            4 => (-3..3).prop_map(|n| number(f64::from(n) / 2.0)),
            2 => prop::sample::select(vec![60.0, -300.0, 345.0, 1439.0, 1440.0, 330.5, 1e16, 1e17, f64::MAX,
                f64::MIN_POSITIVE, 5e-324, 0.1, 0.30000000000000004, 0.3, 31.245_270_191_439_438])
                .prop_map(number),
            1 => any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(number),
        ]
        .boxed(),
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::Version => prop_oneof![
            3 => prop::sample::select(vec!["2", "2.0.1", "2.3", "2.10", "v10"]).prop_map(version),
            1 => any::<[u32; 4]>().prop_map(|parts| Value::Version(crate::Version::new(parts))),
        ]
        .boxed(),
        Type::Date => prop_oneof![
            3 => (-40_i64..40).prop_map(|d| Value::Date(Date::from_days(i64::from(now().date().days()) + d).unwrap())),
            1 => prop::sample::select(vec!["0001-01-01", "9999-12-31", "2024-02-29", "1969-12-31"]).prop_map(date),
        ]
        .boxed(),
        Type::Time => prop_oneof![
            3 => (-100_i64..100).prop_map(|h| Value::Time(Time::from_ms(now().ms() + h * 3_600_000).unwrap())),
            1 => (-3_i64..3).prop_map(|ms| Value::Time(Time::from_ms(now().ms() + ms).unwrap())),
            1 => prop::sample::select(vec!["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z",
                "1969-12-31T23:59:59.999Z"]).prop_map(time),
        ]
        .boxed(),
        Type::Point => (degrees(90.0), degrees(180.0)).prop_map(|(a, b)| point(a, b)).boxed(),
        Type::Set => prop::collection::vec(prop_oneof![piece(), word()], 0..4)
            .prop_map(|entries| set(&entries.iter().map(String::as_str).collect::<Vec<_>>()))
            .boxed(),
    }
}

fn what(kinds: &'static [Type]) -> impl Strategy<Value = What> {
    let mut all: Vec<What> = (0..ATTRIBUTES.len()).map(What::Attribute).collect();
    all.extend([What::User, What::LastSeen]);
    all.retain(|what| kinds.contains(&what.kind()));
    prop::sample::select(all)
}

fn right(kind: Type) -> BoxedStrategy<Right> {
    let literal = value(kind).prop_map(Right::Value);
    match kind {
        Type::Time => prop_oneof![
            literal,
            (-50_i64..50, prop::sample::select(vec!['s', 'm', 'h', 'd']))
                .prop_map(|(n, u)| Right::Now(n, u)),
        ]
        .boxed(),
        Type::Date => prop_oneof![literal, (-50_i64..50).prop_map(|n| Right::Now(n, 'd'))].boxed(),
        _ => literal.boxed(),
    }
}

const SCALARS: &[Type] =
    &[Type::String, Type::Number, Type::Bool, Type::Version, Type::Date, Type::Time];
const ORDERED: &[Type] = &[Type::String, Type::Number, Type::Version, Type::Date, Type::Time];

fn leaf() -> impl Strategy<Value = Tree> {
    let minutes = || prop_oneof![0_u16..1_440, prop::sample::select(vec![0, 450, 1_439])];
    prop_oneof![
        1 => Just(Tree::All),
        3 => (0..GROUPS.len()).prop_map(Tree::Group),
        2 => (0..AUDIENCES.len()).prop_map(Tree::Audience),
        1 => prop::collection::vec(prop_oneof![0_u64..8, Just(u64::MAX), any::<u64>()], 1..5).prop_map(Tree::Devices),
        2 => what(&Type::ALL).prop_map(Tree::Has),
        1 => prop::sample::select(vec![4, 5]).prop_map(Tree::Flag),
        6 => what(SCALARS).prop_flat_map(|what| {
            let mut symbols = vec!["==", "!="];
            if what.kind() != Type::Bool {
                symbols.extend(["<", "<=", ">", ">="]);
            }
            (Just(what), prop::sample::select(symbols), right(what.kind()))
                .prop_map(|(what, symbol, right)| Tree::Compare(what, symbol, right))
        }),
        2 => what(ORDERED).prop_flat_map(|what| {
            (Just(what), any::<bool>(), right(what.kind()), right(what.kind()))
                .prop_map(|(what, negated, a, b)| {
                    let swap = match (&a, &b) {
                        (Right::Value(a), Right::Value(b)) => b < a,
                        (Right::Now(..), Right::Now(..)) => span_ms(&b) < span_ms(&a),
                        _ => false,
                    };
                    let (a, b) = if swap { (b, a) } else { (a, b) };
                    Tree::Between(what, negated, a, b)
                })
        }),
        3 => what(SCALARS).prop_flat_map(|what| {
            let fold = if what.kind() == Type::String { any::<bool>().boxed() } else { Just(false).boxed() };
            (Just(what), any::<bool>(), fold, prop::collection::vec(value(what.kind()), 1..5))
                .prop_map(|(what, negated, fold, values)| Tree::In(what, negated, fold, values))
        }),
        1 => (what(&[Type::String]), prop::sample::select(vec!["==", "!="]), word())
            .prop_map(|(what, symbol, word)| Tree::Alike(what, symbol, word)),
        3 => (what(&[Type::String]), prop::sample::select(vec!["starts_with", "ends_with", "contains"]),
              any::<bool>(), any::<bool>(), piece())
            .prop_map(|(what, op, negated, fold, piece)| Tree::Text(what, op, negated, fold, piece)),
        2 => (what(&[Type::String]), any::<bool>(), any::<bool>(), pattern())
            .prop_map(|(what, negated, fold, pattern)| Tree::Text(what, "matches", negated, fold, pattern)),
        3 => (prop::sample::select(vec!["any", "all", "none", "contains"]), any::<bool>(),
              prop::collection::vec(prop_oneof![piece(), word()], 1..4))
            .prop_map(|(op, negated, mut entries)| {
                if op == "contains" { entries.truncate(1); }
                Tree::Entries(TAGS, op, negated, entries)
            }),
        3 => (what(&[Type::Date, Type::Time]), any::<bool>(), any::<bool>(), 0_i64..60, prop::sample::select(vec!['m', 'h', 'd', 'w']))
            .prop_map(|(what, negated, ahead, n, unit)| {
                let unit = if what.kind() == Type::Date && unit != 'w' { 'd' } else { unit };
                Tree::Within(what, negated, ahead, n, unit)
            }),
        2 => (degrees(90.0), degrees(180.0), prop_oneof![0_u32..5_000, 0_u32..20_100_000, Just(20_100_000)])
            .prop_map(|(latitude, longitude, metres)| Tree::Near(latitude, longitude, metres)),
        2 => (prop_oneof![0_u32..1_000_000, Just(500_000), Just(0), Just(1_000_000)], prop::option::of(word()))
            .prop_map(|(ppm, salt)| Tree::Sample(ppm, salt)),
        1 => (prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]), minutes())
            .prop_map(|(symbol, minute)| Tree::LocalTime(symbol, minute)),
        1 => (any::<bool>(), minutes(), minutes())
            .prop_map(|(negated, low, high)| Tree::LocalBetween(negated, low, high)),
        1 => (any::<bool>(), prop::collection::vec(0_usize..7, 1..5))
            .prop_map(|(negated, days)| Tree::LocalDay(negated, days)),
    ]
}

pub(super) fn tree() -> impl Strategy<Value = Tree> {
    leaf().prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            inner.clone().prop_map(|tree| Tree::Not(Box::new(tree))),
            prop::collection::vec(inner.clone(), 1..5).prop_map(Tree::And),
            prop::collection::vec(inner.clone(), 1..5).prop_map(Tree::Or),
            // Parts that occur more than once, true here and false there.
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| {
                let not = |tree: &Tree| Box::new(tree.clone());
                Tree::Or(vec![
                    Tree::And(vec![a.clone(), b.clone()]),
                    Tree::And(vec![Tree::Not(not(&a)), c.clone(), b.clone()]),
                    Tree::And(vec![Tree::Not(not(&b)), a, c]),
                ])
            }),
        ]
    })
}

pub(super) fn device() -> impl Strategy<Value = Device> {
    let values: Vec<_> =
        ATTRIBUTES.iter().map(|(_, kind)| prop::option::weighted(0.7, value(*kind))).collect();
    let groups = prop::collection::vec(any::<bool>(), GROUPS.len());
    let user = prop::option::weighted(0.7, word());
    let seen = prop::option::weighted(0.8, value(Type::Time));
    let id = prop_oneof![Just(0), Just(u64::MAX), any::<u64>()];
    (id, user, seen, values, groups).prop_map(|(id, user, seen, values, groups)| Device {
        id,
        user,
        last_seen: seen.map(|seen| match seen {
            Value::Time(time) => time,
            _ => panic!("a time"),
        }),
        values: values
            .into_iter()
            .enumerate()
            .filter_map(|(index, value)| Some((attribute_id(index), value?)))
            .collect(),
        groups: (0..GROUPS.len()).filter(|&index| groups[index]).map(group_id).collect(),
    })
}

fn span_ms(right: &Right) -> i64 {
    match right {
        Right::Now(n, unit) => n * unit_ms(*unit),
        Right::Value(_) => panic!("no span"),
    }
}

fn unit_ms(unit: char) -> i64 {
    match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => 7 * 86_400_000,
    }
}

/// Writes a string in the test's own way, single quotes and escapes wherever they are allowed.
fn write_text(text: &str) -> String {
    let escape = |c: char| match c {
        '\'' => "\\'".to_owned(),
        '\\' => "\\\\".to_owned(),
        c if c.is_control() => format!("\\u{{{:06X}}}", u32::from(c)),
        c => c.to_string(),
    };
    format!("'{}'", text.chars().map(escape).collect::<String>())
}

fn write_value(value: &Value) -> String {
    match value {
        Value::String(text) => write_text(text),
        Value::Number(number) => format!("{:e}", number.get()),
        Value::Bool(flag) => flag.to_string(),
        Value::Version(version) => {
            let [a, b, c, d] = version.components();
            format!("v{a}.{b}.{c}.{d}")
        }
        Value::Time(time) => time.to_fixed().replace('Z', "+00:00"),
        other => format!("{other:?}"),
    }
}

fn write_right(right: &Right) -> String {
    match right {
        Right::Value(value) => write_value(value),
        Right::Now(n, unit) if *n < 0 => format!("now-{}{unit}", -n),
        Right::Now(n, unit) => format!("now + {n}{unit}"),
    }
}

/// Writes a tree with a parenthesis around everything.
pub(super) fn write(tree: &Tree) -> String {
    let chain = |trees: &[Tree], operator: &str| {
        let parts: Vec<_> = trees.iter().map(write).collect();
        format!("({})", parts.join(operator))
    };
    let not = |negated: &bool| if *negated { " not" } else { "" };
    let ignoring = |fold: &bool| if *fold { " ignoring  case" } else { "" };
    let clock = |minute: &u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    match tree {
        Tree::All => "(all)".to_owned(),
        Tree::Group(index) => format!("#{}", GROUPS[*index]),
        Tree::Audience(index) => format!("@{}", AUDIENCES[*index].0),
        Tree::Devices(ids) => {
            let ids: Vec<_> = ids.iter().map(|id| format!("{id:016X}")).collect();
            format!("device('{}')", ids.join("' , '"))
        }
        Tree::Has(what) => format!("has {}", what.name()),
        Tree::Flag(index) => ATTRIBUTES[*index].0.to_owned(),
        Tree::Compare(what, symbol, right) => {
            format!("{}{symbol}{}", what.name(), write_right(right))
        }
        Tree::Between(what, negated, a, b) => {
            format!(
                "{}{} between {} and {}",
                what.name(),
                not(negated),
                write_right(a),
                write_right(b)
            )
        }
        Tree::In(what, negated, fold, values) => {
            let values: Vec<_> = values.iter().map(write_value).collect();
            format!("{}{} in({}){}", what.name(), not(negated), values.join(","), ignoring(fold))
        }
        Tree::Alike(what, symbol, word) => {
            format!("{} {symbol} {} ignoring case", what.name(), write_text(word))
        }
        Tree::Text(what, op, negated, fold, piece) => {
            format!("{}{} {op} {}{}", what.name(), not(negated), write_text(piece), ignoring(fold))
        }
        Tree::Entries(index, op, negated, entries) => {
            let list: Vec<_> = entries.iter().map(|entry| write_text(entry)).collect();
            let list = list.join(",");
            let list = if *op == "contains" { list } else { format!("({list})") };
            format!("{}{} {op} {list}", ATTRIBUTES[*index].0, not(negated))
        }
        Tree::Within(what, negated, ahead, n, unit) => {
            let way = if *ahead { "next" } else { "last" };
            format!("{}{} within {way} {n}{unit}", what.name(), not(negated))
        }
        Tree::Near(latitude, longitude, metres) => {
            format!("near(home,{latitude:.7},{longitude:.7},{metres}m)")
        }
        Tree::Sample(ppm, None) => format!("sample({}.{:04}%)", ppm / 10_000, ppm % 10_000),
        Tree::Sample(ppm, Some(salt)) => {
            format!("sample({}.{:04}%, {})", ppm / 10_000, ppm % 10_000, write_text(salt))
        }
        Tree::LocalTime(symbol, minute) => {
            format!("local_time(utc_offset){symbol}{}", clock(minute))
        }
        Tree::LocalBetween(negated, low, high) => {
            format!(
                "local_time(utc_offset){} between {} and {}",
                not(negated),
                clock(low),
                clock(high)
            )
        }
        Tree::LocalDay(negated, days) => {
            let days: Vec<_> = days
                .iter()
                .map(|day| ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][*day])
                .collect();
            format!("local_day(utc_offset){} in ({})", not(negated), days.join(", "))
        }
        Tree::Not(inner) => format!("!({})", write(inner)),
        Tree::And(trees) => chain(trees, "&&"),
        Tree::Or(trees) => chain(trees, " or "),
    }
}

const fn truth(yes: bool) -> u8 {
    if yes { 2 } else { 0 }
}

/// Kleene's logic as minimum and maximum over false 0, unknown 1, true 2; at the tests' clock.
pub(super) fn naive(tree: &Tree, device: &Device) -> u8 {
    let actual = |what: What| -> Option<Value> {
        match what {
            What::Attribute(index) => device.values.get(&attribute_id(index)).cloned(),
            What::User => device.user.as_deref().map(text),
            What::LastSeen => {
                device.last_seen.map(|seen| Value::Time(if seen > now() { now() } else { seen }))
            }
        }
    };
    let resolve = |what: What, right: &Right| match right {
        Right::Value(value) => value.clone(),
        Right::Now(n, unit) if what.kind() == Type::Date => {
            let days = i64::from(now().date().days()) + n * unit_ms(*unit) / 86_400_000;
            Value::Date(Date::from_days(days).unwrap())
        }
        Right::Now(n, unit) => Value::Time(Time::from_ms(now().ms() + n * unit_ms(*unit)).unwrap()),
    };
    let flip = |negated: bool, truth: u8| if negated { 2 - truth } else { truth };
    let wall = || {
        let Some(Value::Number(offset)) = actual(What::Attribute(OFFSET)) else { return None };
        let offset = offset.get();
        if offset.fract() != 0.0 || offset.abs() >= 1_440.0 {
            return None;
        }
        Some(now().ms() / 60_000 + offset as i64)
    };
    match tree {
        Tree::All => 2,
        Tree::Group(index) => truth(device.groups.contains(&group_id(*index))),
        Tree::Audience(0) => naive(&nordic(), device),
        Tree::Audience(1) => naive(&engaged(), device),
        Tree::Audience(_) => naive(
            &Tree::Or(vec![
                Tree::And(vec![
                    nordic(),
                    Tree::Or(vec![
                        Tree::Group(0),
                        Tree::Compare(What::Attribute(2), ">", Right::Value(number(30.0))),
                    ]),
                ]),
                engaged(),
            ]),
            device,
        ),
        Tree::Devices(ids) => truth(ids.contains(&device.id)),
        Tree::Has(what) => truth(actual(*what).is_some()),
        Tree::Flag(index) => {
            actual(What::Attribute(*index)).map_or(1, |value| truth(value == Value::Bool(true)))
        }
        Tree::Compare(what, symbol, right) => actual(*what).map_or(1, |actual| {
            let value = &resolve(*what, right);
            truth(match *symbol {
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
            flip(*negated, truth(!less(&actual, &low) && !less(&high, &actual)))
        }),
        Tree::In(what, negated, fold, values) => actual(*what).map_or(1, |actual| {
            let fold = |value: &Value| match value {
                Value::String(s) if *fold => text(&lower(s)),
                value => value.clone(),
            };
            flip(*negated, truth(values.iter().any(|value| same(&fold(value), &fold(&actual)))))
        }),
        Tree::Alike(what, symbol, word) => actual(*what).map_or(1, |actual| {
            flip(*symbol == "!=", truth(lower(&string(&actual)) == lower(word)))
        }),
        Tree::Text(what, op, negated, fold, piece) => actual(*what).map_or(1, |actual| {
            let lower = |s: &str| if *fold { lower(s) } else { s.to_owned() };
            let (actual, piece) = (lower(&string(&actual)), lower(piece));
            let (a, p): (Vec<char>, Vec<char>) =
                (actual.chars().collect(), piece.chars().collect());
            flip(
                *negated,
                truth(match *op {
                    "starts_with" => a.len() >= p.len() && a[..p.len()] == p,
                    "ends_with" => a.len() >= p.len() && a[a.len() - p.len()..] == p,
                    "contains" => (0..=a.len()).any(|from| a[from..].starts_with(&p)),
                    _ => glob(&p, &a),
                }),
            )
        }),
        Tree::Entries(index, op, negated, entries) => {
            let Some(Value::Set(set)) = actual(What::Attribute(*index)) else { return 1 };
            let has = |entry: &String| set.entries().iter().any(|known| **known == **entry);
            flip(
                *negated,
                truth(match *op {
                    "all" => entries.iter().all(has),
                    "none" => !entries.iter().any(has),
                    _ => entries.iter().any(has),
                }),
            )
        }
        Tree::Within(what, negated, ahead, n, unit) => actual(*what).map_or(1, |actual| {
            let (from, to) = if *ahead { (0, *n) } else { (-n, 0) };
            let from = resolve(*what, &Right::Now(from, *unit));
            let to = resolve(*what, &Right::Now(to, *unit));
            flip(*negated, truth(!less(&actual, &from) && !less(&to, &actual)))
        }),
        Tree::Near(latitude, longitude, metres) => {
            let Some(Value::Point(home)) = actual(What::Attribute(HOME)) else { return 1 };
            // The definition itself, in wider integers: see `point.rs`.
            let Value::Point(centre) = point(*latitude, *longitude) else { return 1 };
            let squares = home.direction().into_iter().zip(centre.direction());
            let chord: i128 = squares.map(|(a, b)| (i128::from(a) - i128::from(b)).pow(2)).sum();
            let half = f64::from(*metres) / (2.0 * 6_371_008.8);
            let reach = if half >= std::f64::consts::FRAC_PI_2 { 3.0 } else { 2.0 * half.sin() };
            truth(chord as f64 <= (reach * 1_073_741_824.0).powi(2) + 0.5)
        }
        Tree::Sample(ppm, salt) => {
            use sha2::{Digest, Sha256};
            let salt = salt.clone().unwrap_or(format!("{:016x}", context().message.unwrap()));
            let mut bytes = b"carillon.sample.v1".to_vec();
            bytes.extend((salt.len() as u64).to_be_bytes());
            bytes.extend(salt.as_bytes());
            bytes.extend(device.id.to_be_bytes());
            let digest = Sha256::digest(&bytes);
            let hash = u64::from_be_bytes(digest[..8].try_into().unwrap());
            truth(u128::from(hash) * 1_000_000 < u128::from(*ppm) << 64)
        }
        Tree::LocalTime(symbol, minute) => wall().map_or(1, |wall| {
            let (actual, minute) = (wall.rem_euclid(1_440), i64::from(*minute));
            truth(match *symbol {
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
            flip(*negated, truth(found))
        }),
        Tree::LocalDay(negated, days) => wall().map_or(1, |wall| {
            // The tests' clock shows a Saturday.
            let day = (5 + wall.div_euclid(1_440) - i64::from(now().date().days())).rem_euclid(7);
            flip(*negated, truth(days.contains(&(day as usize))))
        }),
        Tree::Not(inner) => 2 - naive(inner, device),
        Tree::And(trees) => trees.iter().map(|tree| naive(tree, device)).min().unwrap(),
        Tree::Or(trees) => trees.iter().map(|tree| naive(tree, device)).max().unwrap(),
    }
}

fn nordic() -> Tree {
    Tree::In(What::Attribute(0), false, false, vec![text("SE"), text("NO"), text("FI")])
}

fn engaged() -> Tree {
    Tree::And(vec![
        Tree::Within(What::LastSeen, false, false, 7, 'd'),
        Tree::Not(Box::new(Tree::Group(1))),
    ])
}

fn string(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        _ => panic!("a string"),
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
        _ => panic!("the test compares values of one type"),
    }
}
