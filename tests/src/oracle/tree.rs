//! The language as the oracle knows it: a tree of its own and how it is written.
//!
//! It shares nothing with `carillon-expr` but values and ids, so that a mistake there is not made here as well; what
//! trees mean is in `judge.rs`.

use std::collections::BTreeSet;

use carillon_expr::{AttributeId, AudienceId, GroupId, Number, Point, Time, Type, Value};

/// The declared attributes of every world.
pub(super) const ATTRIBUTES: [(&str, Type); 13] = [
    ("country", Type::String),
    ("platform", Type::String),
    ("age", Type::Number),
    ("score", Type::Number),
    ("premium", Type::Bool),
    ("in-app", Type::Bool),
    ("app_version", Type::Version),
    ("os.version", Type::Version),
    ("birthday", Type::Date),
    ("signed_up", Type::Time),
    ("home", Type::Point),
    ("tags", Type::Set),
    ("utc_offset", Type::Number),
];
pub(super) const GROUPS: [&str; 5] = ["vip", "staff", "team:a/b", "v2.3", "and"];
/// Each refers to earlier ones only; what they say differs from world to world.
pub(super) const AUDIENCES: [&str; 4] = ["nordic", "engaged", "team/a", "all"];

pub(super) const HOME: usize = 10;
pub(super) const TAGS: usize = 11;
pub(super) const OFFSET: usize = 12;

pub(super) const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Ids are spread so that none is the index of another, and have the highest bit, which SQLite takes for a sign.
pub(super) fn attribute_id(index: usize) -> AttributeId {
    AttributeId::new(0xa000_0000_0000_0000 + index as u64)
}

pub(super) fn group_id(index: usize) -> GroupId {
    GroupId::new(0xb000_0000_0000_0000 + index as u64)
}

pub(super) fn audience_id(index: usize) -> AudienceId {
    AudienceId::new(0xc000_0000_0000_0000 + index as u64)
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
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
    /// Operator, negated.
    Entries(&'static str, bool, Vec<String>),
    /// Negated, ahead, amount, unit.
    Within(What, bool, bool, i64, char),
    Near(f64, f64, u32),
    /// Millionths.
    Sample(u32, Option<String>),
    LocalTime(&'static str, u16),
    LocalBetween(bool, u16, u16),
    LocalDay(bool, Vec<usize>),
    Not(Box<Tree>),
    And(Vec<Tree>),
    Or(Vec<Tree>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    Attribute(usize),
    User,
    LastSeen,
}

impl What {
    /// Those of certain types.
    pub(super) fn of(kinds: &[Type]) -> Vec<What> {
        let all = (0..ATTRIBUTES.len()).map(What::Attribute).chain([What::User, What::LastSeen]);
        all.filter(|what| kinds.contains(&what.kind())).collect()
    }

    pub(super) fn kind(self) -> Type {
        match self {
            What::Attribute(index) => ATTRIBUTES[index].1,
            What::User => Type::String,
            What::LastSeen => Type::Time,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            What::Attribute(index) => ATTRIBUTES[index].0,
            What::User => "user",
            What::LastSeen => "last_seen",
        }
    }

    /// For the names of operators: what SQL and indexes treat apart.
    fn class(self) -> &'static str {
        match self {
            What::Attribute(index) => ATTRIBUTES[index].1.as_str(),
            What::User => "user",
            What::LastSeen => "last_seen",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Right {
    Value(Value),
    /// An amount and its unit from the clock.
    Now(i64, char),
}

impl Right {
    fn class(&self) -> &'static str {
        match self {
            Right::Value(_) => "",
            Right::Now(..) => " now",
        }
    }
}

impl Tree {
    /// The operator at the root, by a name that tells apart whatever any use treats apart.
    pub fn operator(&self) -> String {
        let not = |negated: bool| if negated { "not " } else { "" };
        let fold = |fold: bool| if fold { " ignoring case" } else { "" };
        match self {
            Tree::All => "all".to_owned(),
            Tree::Group(_) => "#group".to_owned(),
            Tree::Audience(_) => "@audience".to_owned(),
            Tree::Devices(_) => "device()".to_owned(),
            Tree::Has(what) => format!("has {}", what.class()),
            Tree::Flag(_) => "bool alone".to_owned(),
            Tree::Compare(what, symbol, right) => {
                format!("{} {symbol}{}", what.class(), right.class())
            }
            Tree::Between(what, negated, low, high) => {
                let now = if low.class() == high.class() { low.class() } else { " now at one end" };
                format!("{} {}between{now}", what.class(), not(*negated))
            }
            Tree::In(what, negated, folded, _) => {
                format!("{} {}in{}", what.class(), not(*negated), fold(*folded))
            }
            Tree::Alike(what, symbol, _) => format!("{} {symbol} ignoring case", what.class()),
            Tree::Text(what, operator, negated, folded, _) => {
                format!("{} {}{operator}{}", what.class(), not(*negated), fold(*folded))
            }
            Tree::Entries(operator, negated, _) => format!("set {}{operator}", not(*negated)),
            Tree::Within(what, negated, ahead, ..) => {
                let way = if *ahead { "next" } else { "last" };
                format!("{} {}within {way}", what.class(), not(*negated))
            }
            Tree::Near(..) => "near()".to_owned(),
            Tree::Sample(_, None) => "sample()".to_owned(),
            Tree::Sample(_, Some(_)) => "sample() with salt".to_owned(),
            Tree::LocalTime(symbol, _) => format!("local_time() {symbol}"),
            Tree::LocalBetween(negated, low, high) => {
                let over = if low > high { " over midnight" } else { "" };
                format!("local_time() {}between{over}", not(*negated))
            }
            Tree::LocalDay(negated, _) => format!("local_day() {}in", not(*negated)),
            Tree::Not(_) => "not".to_owned(),
            Tree::And(_) => "and".to_owned(),
            Tree::Or(_) => "or".to_owned(),
        }
    }

    /// Whether the operator is never unknown.
    pub(super) fn is_decided(&self) -> bool {
        matches!(
            self,
            Tree::All | Tree::Group(_) | Tree::Devices(_) | Tree::Has(_) | Tree::Sample(..)
        )
    }

    /// What it is made of; empty for a condition.
    pub(super) fn kids(&self) -> &[Tree] {
        match self {
            Tree::Not(inner) => std::slice::from_ref(inner),
            Tree::And(kids) | Tree::Or(kids) => kids,
            _ => &[],
        }
    }

    /// Conditions and operators.
    pub fn size(&self) -> usize {
        1 + self.kids().iter().map(Tree::size).sum::<usize>()
    }

    /// Whether some part, not counting what audiences say, is such.
    pub fn any(&self, is: &dyn Fn(&Tree) -> bool) -> bool {
        is(self) || self.kids().iter().any(|kid| kid.any(is))
    }
}

/// The names of all operators, as [`Tree::operator`] gives them.
pub(super) fn operators() -> BTreeSet<String> {
    const ORDER: [&str; 6] = ["==", "!=", "<", "<=", ">", ">="];
    const CLOCKED: [&str; 3] = ["date", "time", "last_seen"];
    const ORDERED: [&str; 7] = ["string", "user", "number", "version", "date", "time", "last_seen"];
    let mut all: BTreeSet<String> = [
        "all",
        "#group",
        "@audience",
        "device()",
        "bool alone",
        "near()",
        "sample()",
        "sample() with salt",
        "not",
        "and",
        "or",
        "bool ==",
        "bool !=",
        "bool in",
        "bool not in",
        "has point",
        "has set",
        "has bool",
        "local_day() in",
        "local_day() not in",
    ]
    .map(str::to_owned)
    .into();
    for class in ORDERED {
        let nows: &[&str] = if CLOCKED.contains(&class) { &["", " now"] } else { &[""] };
        for now in nows {
            all.extend(ORDER.map(|symbol| format!("{class} {symbol}{now}")));
        }
        all.insert(format!("has {class}"));
        for not in ["", "not "] {
            all.extend(nows.iter().map(|now| format!("{class} {not}between{now}")));
            all.insert(format!("{class} {not}in"));
        }
    }
    for not in ["", "not "] {
        for class in CLOCKED {
            all.insert(format!("{class} {not}between now at one end"));
            all.extend(["last", "next"].map(|way| format!("{class} {not}within {way}")));
        }
        for class in ["string", "user"] {
            for fold in ["", " ignoring case"] {
                let places = ["starts_with", "ends_with", "contains", "matches"];
                all.extend(places.map(|place| format!("{class} {not}{place}{fold}")));
            }
            all.insert(format!("{class} {not}in ignoring case"));
            all.extend(["==", "!="].map(|symbol| format!("{class} {symbol} ignoring case")));
        }
        all.extend(["any", "all", "none", "contains"].map(|word| format!("set {not}{word}")));
        all.extend(["", " over midnight"].map(|over| format!("local_time() {not}between{over}")));
    }
    all.extend(ORDER.map(|symbol| format!("local_time() {symbol}")));
    all
}

pub(super) fn text(text: &str) -> Value {
    Value::String(text.into())
}

/// # Panics
/// If it is not finite.
pub(super) fn number(number: f64) -> Value {
    Value::Number(Number::try_new(number).expect("a finite number"))
}

/// # Panics
/// If it is not on the globe.
pub(super) fn point(latitude: f64, longitude: f64) -> Point {
    Point::try_new(latitude, longitude).expect("a place on the globe")
}

/// # Panics
/// If it is not in the years 1 to 9999.
pub(super) fn time(ms: i64) -> Time {
    Time::from_ms(ms).expect("a time of the calendar")
}

pub(super) fn unit_ms(unit: char) -> i64 {
    match unit {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => 7 * 86_400_000,
    }
}

/// Writes a string in the oracle's own way: single quotes, and escapes wherever they are allowed.
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
        Tree::Audience(index) => format!("@{}", AUDIENCES[*index]),
        Tree::Devices(ids) => {
            let ids: Vec<_> = ids.iter().map(|id| format!("{id:016X}")).collect();
            format!("device('{}')", ids.join("' , '"))
        }
        Tree::Has(what) => format!("has {}", what.name()),
        Tree::Flag(index) => ATTRIBUTES[*index].0.to_owned(),
        Tree::Compare(what, symbol, right) => {
            format!("{}{symbol}{}", what.name(), write_right(right))
        }
        Tree::Between(what, negated, low, high) => {
            let (low, high) = (write_right(low), write_right(high));
            format!("{}{} between {low} and {high}", what.name(), not(negated))
        }
        Tree::In(what, negated, fold, values) => {
            let values: Vec<_> = values.iter().map(write_value).collect();
            format!("{}{} in({}){}", what.name(), not(negated), values.join(","), ignoring(fold))
        }
        Tree::Alike(what, symbol, word) => {
            format!("{} {symbol} {} ignoring case", what.name(), write_text(word))
        }
        Tree::Text(what, operator, negated, fold, piece) => {
            let (name, piece) = (what.name(), write_text(piece));
            format!("{name}{} {operator} {piece}{}", not(negated), ignoring(fold))
        }
        Tree::Entries(operator, negated, entries) => {
            let list: Vec<_> = entries.iter().map(|entry| write_text(entry)).collect();
            let list = list.join(",");
            let list = if *operator == "contains" { list } else { format!("({list})") };
            format!("{}{} {operator} {list}", ATTRIBUTES[TAGS].0, not(negated))
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
            let (low, high) = (clock(low), clock(high));
            format!("local_time(utc_offset){} between {low} and {high}", not(negated))
        }
        Tree::LocalDay(negated, days) => {
            let days: Vec<_> = days.iter().map(|day| DAYS[*day]).collect();
            format!("local_day(utc_offset){} in ({})", not(negated), days.join(", "))
        }
        Tree::Not(inner) => format!("!({})", write(inner)),
        Tree::And(trees) => chain(trees, "&&"),
        Tree::Or(trees) => chain(trees, " or "),
    }
}
