//! Tests of the language through its public interface, over one small app.

mod cookbook;
mod errors;
mod language;
mod limits;
mod misfits;
mod properties;
mod rules;
mod sqlite;
mod steps;
mod uses;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use crate::{
    AttributeId, AudienceId, Context, Expression, GroupId, Limits, Number, Point, Profile, Schema,
    Set, Time, Type, Value, Version,
};

const ATTRIBUTES: &[(&str, Type)] = &[
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

const GROUPS: &[&str] = &["vip", "staff", "team:a/b", "v2.3", "and"];

/// Audiences with what they stand for; each refers to earlier ones only.
const AUDIENCES: &[(&str, &str)] = &[
    ("nordic", "country in (\"SE\", \"NO\", \"FI\")"),
    ("engaged", "last_seen within 7d and not #staff"),
    ("team/a", "@nordic and (#vip or age > 30) or @engaged"),
];

/// The declared names of the tests' app. Ids are spread so that none is the index of another.
struct App;

fn attribute_id(index: usize) -> AttributeId {
    AttributeId::new(0xa000_0000_0000_0000 + index as u64)
}

fn group_id(index: usize) -> GroupId {
    GroupId::new(0xb000_0000_0000_0000 + index as u64)
}

fn audience_id(index: usize) -> AudienceId {
    AudienceId::new(0xc000_0000_0000_0000 + index as u64)
}

impl Schema for App {
    fn attribute(&self, name: &str) -> Option<(AttributeId, Type)> {
        let index = ATTRIBUTES.iter().position(|(declared, _)| *declared == name)?;
        Some((attribute_id(index), ATTRIBUTES[index].1))
    }

    fn attribute_name(&self, id: AttributeId) -> Option<(&str, Type)> {
        (0..ATTRIBUTES.len())
            .find(|&index| attribute_id(index) == id)
            .map(|index| ATTRIBUTES[index])
    }

    fn group(&self, name: &str) -> Option<GroupId> {
        GROUPS.iter().position(|declared| *declared == name).map(group_id)
    }

    fn group_name(&self, id: GroupId) -> Option<&str> {
        (0..GROUPS.len()).find(|&index| group_id(index) == id).map(|index| GROUPS[index])
    }

    fn visit_attribute_names(&self, visit: &mut dyn FnMut(&str)) {
        ATTRIBUTES.iter().for_each(|(name, _)| visit(name));
    }

    fn visit_group_names(&self, visit: &mut dyn FnMut(&str)) {
        GROUPS.iter().for_each(|name| visit(name));
    }

    fn audience(&self, name: &str) -> Option<AudienceId> {
        AUDIENCES.iter().position(|(declared, _)| *declared == name).map(audience_id)
    }

    fn audience_name(&self, id: AudienceId) -> Option<&str> {
        (0..AUDIENCES.len()).find(|&index| audience_id(index) == id).map(|index| AUDIENCES[index].0)
    }

    fn audience_expression(&self, id: AudienceId) -> Option<&Expression> {
        static PARSED: [OnceLock<Expression>; AUDIENCES.len()] =
            [const { OnceLock::new() }; AUDIENCES.len()];
        let index = (0..AUDIENCES.len()).find(|&index| audience_id(index) == id)?;
        Some(PARSED[index].get_or_init(|| {
            Expression::parse_audience(id, AUDIENCES[index].1, &App, &Limits::default())
                .unwrap_or_else(|faults| panic!("{}", faults.render(AUDIENCES[index].1)))
        }))
    }

    fn visit_audience_names(&self, visit: &mut dyn FnMut(&str)) {
        AUDIENCES.iter().for_each(|(name, _)| visit(name));
    }

    fn visit_values(&self, id: AttributeId, visit: &mut dyn FnMut(&Value, u64)) {
        if id == attribute_id(0) {
            visit(&text("SE"), 700);
            visit(&text("NO"), 30);
            visit(&text("KE"), 900);
        }
    }
}

/// The clock of the tests: a Saturday.
fn now() -> Time {
    "2026-11-21T07:30:00Z".parse().unwrap()
}

fn context() -> Context {
    Context::at(now()).for_message(0xfeed)
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Device {
    id: u64,
    user: Option<String>,
    last_seen: Option<Time>,
    values: BTreeMap<AttributeId, Value>,
    groups: BTreeSet<GroupId>,
}

impl Device {
    fn with(mut self, name: &str, value: Value) -> Self {
        let (id, kind) = App.attribute(name).unwrap();
        assert_eq!(kind, value.kind());
        self.values.insert(id, value);
        self
    }

    fn member(mut self, name: &str) -> Self {
        self.groups.insert(App.group(name).unwrap());
        self
    }
}

impl Profile for Device {
    fn attribute(&self, id: AttributeId) -> Option<&Value> {
        self.values.get(&id)
    }

    fn in_group(&self, id: GroupId) -> bool {
        self.groups.contains(&id)
    }

    fn device_id(&self) -> Option<u64> {
        Some(self.id)
    }

    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    fn last_seen(&self) -> Option<Time> {
        self.last_seen
    }
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

fn number(number: f64) -> Value {
    Value::Number(Number::try_new(number).unwrap())
}

fn version(text: &str) -> Value {
    Value::Version(text.parse::<Version>().unwrap())
}

fn date(text: &str) -> Value {
    Value::Date(text.parse().unwrap())
}

fn time(text: &str) -> Value {
    Value::Time(text.parse().unwrap())
}

fn point(latitude: f64, longitude: f64) -> Value {
    Value::Point(Point::try_new(latitude, longitude).unwrap())
}

fn set(entries: &[&str]) -> Value {
    Value::Set(entries.iter().copied().collect::<Set>())
}

/// Parses what must be right.
fn parse(source: &str) -> Expression {
    Expression::parse(source, &App, &Limits::default())
        .unwrap_or_else(|faults| panic!("{}", faults.render(source)))
}
