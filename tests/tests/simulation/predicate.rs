//! Recipient expressions as the simulation understands them: text on one side, plain evaluation on the other, and no
//! code of the language in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use carillon_expr::Value;
use carillon_world::DeviceRow;

use crate::random::Random;
use crate::workload::MOMENT;

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Plain {
    Text(String),
    Number(i64),
    Flag(bool),
    Release(u32, u32),
    /// Milliseconds since 1970, of whole seconds about [`MIDNIGHT`].
    Moment(u64),
}

/// A run begins shortly before it: 2024-10-04T00:00:00Z.
pub(crate) const MIDNIGHT: u64 = 20_000 * 24 * 60 * 60 * 1000;

impl Plain {
    fn of(value: &Value) -> Plain {
        match value {
            Value::String(text) => Plain::Text(text.to_string()),
            Value::Number(number) => Plain::Number(number.get() as i64),
            Value::Bool(flag) => Plain::Flag(*flag),
            Value::Version(version) => {
                let [major, minor, ..] = version.components();
                Plain::Release(major, minor)
            }
            Value::Time(time) => Plain::Moment(time.ms() as u64),
            Value::Date(_) | Value::Point(_) | Value::Set(_) => {
                panic!("the simulation declares no attribute of such a type")
            }
        }
    }

    /// As an expression writes it.
    fn literal(&self) -> String {
        match self {
            Plain::Text(text) => format!("\"{text}\""),
            Plain::Number(number) => number.to_string(),
            Plain::Flag(flag) => flag.to_string(),
            // Zeros at the end are not written.
            Plain::Release(major, 0) => format!("v{major}"),
            Plain::Release(major, minor) => format!("v{major}.{minor}"),
            Plain::Moment(_) => panic!("a moment is compared with the clock alone"),
        }
    }

    /// As a device or an admin gives it.
    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Plain::Text(text) => text.as_str().into(),
            Plain::Number(number) => (*number).into(),
            Plain::Flag(flag) => (*flag).into(),
            Plain::Release(major, minor) => format!("{major}.{minor}").into(),
            Plain::Moment(ms) => {
                let (day, from) = if *ms < MIDNIGHT { (3, MIDNIGHT - DAY) } else { (4, MIDNIGHT) };
                let second = (ms - from) / 1_000;
                let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
                format!("2024-10-0{day}T{hour:02}:{minute:02}:{second:02}Z").into()
            }
        }
    }
}

const DAY: u64 = 24 * 60 * 60 * 1000;

/// A device as it was committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// The seq that made its present sessions valid.
    pub(crate) generation: u64,
    /// The hour in which it was reported as seen last.
    pub(crate) seen: Option<u64>,
    pub(crate) attributes: BTreeMap<u64, Plain>,
    pub(crate) groups: BTreeSet<u64>,
}

impl Record {
    pub(crate) fn of(row: &DeviceRow) -> Record {
        Record {
            generation: row.generation.get(),
            seen: (row.last_seen.0 > 0).then_some(row.last_seen.0),
            attributes: row.attributes.iter().map(|(id, v)| (id.get(), Plain::of(v))).collect(),
            groups: row.groups.iter().map(|id| id.get()).collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Predicate {
    Everyone,
    InGroup(u64),
    InAudience(u64),
    Has(u64),
    Is(u64, Plain),
    AtLeast(u64, Plain),
    OneOf(u64, Vec<Plain>),
    /// Seen so many minutes before the clock at most.
    Seen(u64),
    /// A moment so many seconds before the clock at most.
    Lately(u64, u64),
    /// A moment so many seconds after the clock at most.
    Soon(u64, u64),
    /// A moment before the clock.
    Past(u64),
    Not(Box<Predicate>),
    Both(Vec<Predicate>),
    Either(Vec<Predicate>),
}

/// What each audience says at some moment.
pub(crate) type Audiences = BTreeMap<u64, Predicate>;

/// What is the same for every device at some moment.
#[derive(Debug)]
pub(crate) struct Then {
    /// The committed clock.
    pub(crate) clock: u64,
    pub(crate) audiences: Audiences,
}

/// The present names of attributes, groups and audiences.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    pub(crate) attributes: BTreeMap<u64, String>,
    pub(crate) groups: BTreeMap<u64, String>,
    pub(crate) audiences: BTreeMap<u64, String>,
}

/// What an expression may be made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) kinds: &'a [(u64, Kind)],
    pub(crate) groups: &'a [u64],
    pub(crate) audiences: &'a [u64],
}

impl Predicate {
    /// Whether it looks at the clock or at when the device was seen.
    pub(crate) fn is_volatile(&self, audiences: &Audiences) -> bool {
        let any = |parts: &[Predicate]| parts.iter().any(|part| part.is_volatile(audiences));
        match self {
            Predicate::InAudience(id) => audiences[id].is_volatile(audiences),
            Predicate::Seen(_)
            | Predicate::Lately(..)
            | Predicate::Soon(..)
            | Predicate::Past(_) => true,
            Predicate::Not(inner) => inner.is_volatile(audiences),
            Predicate::Both(parts) | Predicate::Either(parts) => any(parts),
            _ => false,
        }
    }

    /// Three-valued: `None` where it hangs on what the device does not have.
    pub(crate) fn holds(&self, device: &Record, then: &Then) -> Option<bool> {
        let clock = then.clock;
        let value = |id: &u64| device.attributes.get(id);
        let moment = |id: &u64| match value(id) {
            Some(Plain::Moment(ms)) => Some(*ms),
            _ => None,
        };
        match self {
            Predicate::Everyone => Some(true),
            Predicate::InGroup(id) => Some(device.groups.contains(id)),
            Predicate::InAudience(id) => then.audiences[id].holds(device, then),
            Predicate::Has(id) => Some(value(id).is_some()),
            Predicate::Is(id, other) => value(id).map(|value| value == other),
            Predicate::AtLeast(id, other) => value(id).map(|value| value >= other),
            Predicate::OneOf(id, others) => value(id).map(|value| others.contains(value)),
            Predicate::Seen(minutes) => {
                let seen = device.seen?.min(clock);
                Some(seen + minutes * 60_000 >= clock)
            }
            Predicate::Lately(id, seconds) => {
                moment(id).map(|at| at <= clock && at + seconds * 1_000 >= clock)
            }
            Predicate::Soon(id, seconds) => {
                moment(id).map(|at| at >= clock && at <= clock + seconds * 1_000)
            }
            Predicate::Past(id) => moment(id).map(|at| at < clock),
            Predicate::Not(inner) => inner.holds(device, then).map(|holds| !holds),
            Predicate::Both(parts) => Predicate::fold(parts, device, then, false),
            Predicate::Either(parts) => Predicate::fold(parts, device, then, true),
        }
    }

    /// One part that holds as `decisive` decides; else one that is unknown leaves all unknown.
    fn fold(parts: &[Predicate], device: &Record, then: &Then, decisive: bool) -> Option<bool> {
        let held: Vec<Option<bool>> = parts.iter().map(|part| part.holds(device, then)).collect();
        if held.contains(&Some(decisive)) {
            Some(decisive)
        } else if held.contains(&None) {
            None
        } else {
            Some(!decisive)
        }
    }

    /// Whether it hangs on the audience, also through others.
    pub(crate) fn uses(&self, audience: u64, audiences: &Audiences) -> bool {
        match self {
            Predicate::InAudience(id) => *id == audience || audiences[id].uses(audience, audiences),
            Predicate::Not(inner) => inner.uses(audience, audiences),
            Predicate::Both(parts) | Predicate::Either(parts) => {
                parts.iter().any(|part| part.uses(audience, audiences))
            }
            _ => false,
        }
    }

    /// With the present names, as an admin writes it; or with ids, as the store keeps it.
    pub(crate) fn text(&self, names: Option<&Names>) -> String {
        let mut out = String::new();
        self.print(names, &mut out);
        out
    }

    fn print(&self, names: Option<&Names>, out: &mut String) {
        let attribute = |id: &u64| {
            names.and_then(|n| n.attributes.get(id).cloned()).unwrap_or(format!(":{id:016x}"))
        };
        match self {
            Predicate::Everyone => out.push_str("all"),
            Predicate::InGroup(id) => {
                let name = names.and_then(|n| n.groups.get(id).cloned());
                write!(out, "#{}", name.unwrap_or(format!(":{id:016x}"))).expect("a string");
            }
            Predicate::InAudience(id) => {
                let name = names.and_then(|n| n.audiences.get(id).cloned());
                write!(out, "@{}", name.unwrap_or(format!(":{id:016x}"))).expect("a string");
            }
            Predicate::Has(id) => write!(out, "has {}", attribute(id)).expect("a string"),
            Predicate::Is(id, Plain::Flag(true)) => out.push_str(&attribute(id)),
            Predicate::Is(id, value) => {
                write!(out, "{} == {}", attribute(id), value.literal()).expect("a string");
            }
            Predicate::AtLeast(id, value) => {
                write!(out, "{} >= {}", attribute(id), value.literal()).expect("a string");
            }
            Predicate::OneOf(id, values) => Predicate::list(&attribute(id), "in", values, out),
            Predicate::Seen(minutes) => {
                write!(out, "last_seen within {minutes}m").expect("a string");
            }
            Predicate::Lately(id, seconds) => {
                write!(out, "{} within {seconds}s", attribute(id)).expect("a string");
            }
            Predicate::Soon(id, seconds) => {
                write!(out, "{} within next {seconds}s", attribute(id)).expect("a string");
            }
            Predicate::Past(id) => write!(out, "{} < now", attribute(id)).expect("a string"),
            Predicate::Not(inner) => match &**inner {
                Predicate::Seen(_) | Predicate::Lately(..) | Predicate::Soon(..) => {
                    let plain = inner.text(names);
                    out.push_str(&plain.replacen(" within ", " not within ", 1));
                }
                Predicate::OneOf(id, values) => {
                    Predicate::list(&attribute(id), "not in", values, out);
                }
                Predicate::Both(_) | Predicate::Either(_) => {
                    out.push_str("not (");
                    inner.print(names, out);
                    out.push(')');
                }
                inner => {
                    out.push_str("not ");
                    inner.print(names, out);
                }
            },
            Predicate::Both(parts) => {
                for (n, part) in parts.iter().enumerate() {
                    out.push_str(if n > 0 { " and " } else { "" });
                    let wrapped = matches!(part, Predicate::Either(_));
                    out.push_str(if wrapped { "(" } else { "" });
                    part.print(names, out);
                    out.push_str(if wrapped { ")" } else { "" });
                }
            }
            Predicate::Either(parts) => {
                for (n, part) in parts.iter().enumerate() {
                    out.push_str(if n > 0 { " or " } else { "" });
                    part.print(names, out);
                }
            }
        }
    }

    fn list(attribute: &str, operator: &str, values: &[Plain], out: &mut String) {
        let values: Vec<String> = values.iter().map(Plain::literal).collect();
        write!(out, "{attribute} {operator} ({})", values.join(", ")).expect("a string");
    }

    pub(crate) fn random(random: &mut Random, of: &Parts<'_>) -> Predicate {
        match random.below(10) {
            0..6 => Predicate::atom(random, of),
            6..8 => Predicate::Both(Predicate::parts(random, of, true)),
            8 => Predicate::Either(Predicate::parts(random, of, false)),
            _ => {
                let parts = Predicate::parts(random, of, true);
                Predicate::Not(Box::new(Predicate::Both(parts)))
            }
        }
    }

    /// Two or three different parts; one may be of the other connective.
    fn parts(random: &mut Random, of: &Parts<'_>, both: bool) -> Vec<Predicate> {
        let mut parts = Vec::new();
        for _ in 0..random.within(2, 3) {
            parts.push(Predicate::atom(random, of));
        }
        if random.percent(30) {
            let inner = vec![Predicate::atom(random, of), Predicate::atom(random, of)];
            if inner[0] != inner[1] {
                parts.push(if both { Predicate::Either(inner) } else { Predicate::Both(inner) });
            }
        }
        let mut different: Vec<Predicate> = Vec::new();
        for part in parts {
            if !different.contains(&part) {
                different.push(part);
            }
        }
        if different.len() < 2 {
            different.push(Predicate::Everyone);
        }
        different
    }

    fn atom(random: &mut Random, of: &Parts<'_>) -> Predicate {
        let &(id, kind) = random.pick(of.kinds);
        let seconds = *random.pick(&[7, 13, 31, 45]);
        let plain = match random.below(if of.audiences.is_empty() { 12 } else { 15 }) {
            12.. => Predicate::InAudience(*random.pick(of.audiences)),
            10 => match random.below(3) {
                0 => Predicate::Soon(MOMENT, seconds),
                1 => Predicate::Lately(MOMENT, seconds),
                _ => Predicate::Past(MOMENT),
            },
            11 => Predicate::Seen(*random.pick(&[1, 57, 58, 59, 61, 90])),
            0 => Predicate::Everyone,
            1..4 => Predicate::InGroup(*random.pick(of.groups)),
            4 => Predicate::Has(id),
            _ => match kind {
                Kind::Text if random.percent(50) => {
                    let mut values = vec![kind.value(random), kind.value(random)];
                    values.sort();
                    values.dedup();
                    if values.len() < 2 { Predicate::Has(id) } else { Predicate::OneOf(id, values) }
                }
                Kind::Text => Predicate::Is(id, kind.value(random)),
                Kind::Flag => Predicate::Is(id, Plain::Flag(true)),
                Kind::Moment => Predicate::Past(id),
                Kind::Number | Kind::Release => Predicate::AtLeast(id, kind.value(random)),
            },
        };
        if random.percent(25) { Predicate::Not(Box::new(plain)) } else { plain }
    }
}

/// What values an attribute takes. Few, so that devices differ but none is alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Flag,
    Release,
    Moment,
}

impl Kind {
    pub(crate) fn value(self, random: &mut Random) -> Plain {
        match self {
            Kind::Text => Plain::Text((*random.pick(&["KE", "SE", "NO", "BR"])).to_owned()),
            Kind::Number => Plain::Number(random.below(5) as i64),
            Kind::Flag => Plain::Flag(random.percent(50)),
            Kind::Release => Plain::Release(random.below(3) as u32, random.below(3) as u32),
            Kind::Moment => Plain::Moment(MIDNIGHT - 180_000 + random.below(360) * 1_000),
        }
    }
}
