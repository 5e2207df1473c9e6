//! Tests of the language through its public interface, over one small app.

mod errors;
mod language;
mod limits;
mod properties;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    AttributeId, Expression, GroupId, Limits, Number, Profile, Schema, Type, Value, Version,
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
];

const GROUPS: &[&str] = &["vip", "staff", "team:a/b", "v2.3", "and"];

/// The declared names of the tests' app. Ids are spread so that none is the index of another.
struct App;

fn attribute_id(index: usize) -> AttributeId {
    AttributeId::new(0xa000_0000_0000_0000 + index as u64)
}

fn group_id(index: usize) -> GroupId {
    GroupId::new(0xb000_0000_0000_0000 + index as u64)
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
}

#[derive(Clone, Debug, Default)]
struct Device {
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

/// Parses what must be right.
fn parse(source: &str) -> Expression {
    Expression::parse(source, &App, &Limits::default())
        .unwrap_or_else(|faults| panic!("{}", faults.render(source)))
}
