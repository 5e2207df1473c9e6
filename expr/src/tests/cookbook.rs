//! The examples of `docs/expressions.md`.

use std::sync::OnceLock;

use super::{date, number, point, set, text, time, version};
use crate::{
    AttributeId, AudienceId, Context, Expression, GroupId, Limits, Profile, Schema, Time, Truth,
    Type, Value, sample_hash_of,
};

const PAGE: &str = include_str!("../../../docs/expressions.md");

/// The app of the page.
struct Page;

const ATTRIBUTES: &[(&str, Type)] = &[
    ("country", Type::String),
    ("city", Type::String),
    ("region", Type::String),
    ("language", Type::String),
    ("platform", Type::String),
    ("age", Type::Number),
    ("spent", Type::Number),
    ("utc_offset", Type::Number),
    ("premium", Type::Bool),
    ("app_version", Type::Version),
    ("os_version", Type::Version),
    ("birthday", Type::Date),
    ("next_birthday", Type::Date),
    ("signed_up", Type::Time),
    ("trial_ends", Type::Time),
    ("last_order", Type::Time),
    ("home", Type::Point),
    ("interests", Type::Set),
];

const GROUPS: &[&str] = &["vip", "staff", "beta", "team:sales"];

const AUDIENCES: &[(&str, &str)] = &[
    ("nordic", "country in (\"SE\", \"NO\", \"FI\", \"DK\", \"IS\")"),
    ("payers", "premium or spent > 0"),
    ("engaged", "last_seen within 7d"),
];

impl Schema for Page {
    fn attribute(&self, name: &str) -> Option<(AttributeId, Type)> {
        let at = ATTRIBUTES.iter().position(|(known, _)| *known == name)?;
        Some((AttributeId::new(at as u64), ATTRIBUTES[at].1))
    }

    fn attribute_name(&self, id: AttributeId) -> Option<(&str, Type)> {
        ATTRIBUTES.get(id.get() as usize).copied()
    }

    fn group(&self, name: &str) -> Option<GroupId> {
        GROUPS.iter().position(|known| *known == name).map(|at| GroupId::new(at as u64))
    }

    fn group_name(&self, id: GroupId) -> Option<&str> {
        GROUPS.get(id.get() as usize).copied()
    }

    fn visit_attribute_names(&self, visit: &mut dyn FnMut(&str)) {
        ATTRIBUTES.iter().for_each(|(name, _)| visit(name));
    }

    fn visit_group_names(&self, visit: &mut dyn FnMut(&str)) {
        GROUPS.iter().for_each(|name| visit(name));
    }

    fn audience(&self, name: &str) -> Option<AudienceId> {
        AUDIENCES.iter().position(|(known, _)| *known == name).map(|at| AudienceId::new(at as u64))
    }

    fn audience_name(&self, id: AudienceId) -> Option<&str> {
        AUDIENCES.get(id.get() as usize).map(|(name, _)| *name)
    }

    fn audience_expression(&self, id: AudienceId) -> Option<&Expression> {
        static READ: [OnceLock<Expression>; AUDIENCES.len()] =
            [const { OnceLock::new() }; AUDIENCES.len()];
        let at = id.get() as usize;
        let (_, source) = AUDIENCES.get(at)?;
        Some(READ[at].get_or_init(|| Expression::parse(source, &Page, &Limits::default()).unwrap()))
    }
}

struct Ann;

impl Profile for Ann {
    fn attribute(&self, id: AttributeId) -> Option<&Value> {
        static VALUES: OnceLock<Vec<(&str, Value)>> = OnceLock::new();
        let (name, _) = Page.attribute_name(id)?;
        let values = VALUES.get_or_init(|| {
            vec![
                ("country", text("SE")),
                ("city", text("Malmö")),
                ("platform", text("ios")),
                ("age", number(34.0)),
                ("premium", Value::Bool(true)),
                ("app_version", version("2.10")),
                ("interests", set(&["news", "sport"])),
                ("birthday", date("1992-11-23")),
                ("signed_up", time("2026-11-14T07:30:00Z")),
                ("home", point(55.605, 13.0038)),
                ("utc_offset", number(60.0)),
            ]
        });
        values.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn in_group(&self, id: GroupId) -> bool {
        id == Page.group("vip").unwrap()
    }

    fn device_id(&self) -> Option<u64> {
        Some(0xab)
    }

    fn user(&self) -> Option<&str> {
        Some("ann")
    }

    fn last_seen(&self) -> Option<Time> {
        "2026-11-21T06:00:00Z".parse().ok()
    }
}

/// The insides of all fences of a kind, in order.
fn fences(kind: &str) -> Vec<&'static str> {
    let open = format!("```{kind}\n");
    PAGE.split(&open).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

fn read(source: &str) -> Expression {
    Expression::parse(source, &Page, &Limits::default())
        .unwrap_or_else(|faults| panic!("{}", faults.render(source)))
}

#[test]
fn every_recipe_is_an_expression() {
    let recipes = fences("expr");
    assert_eq!(recipes.len(), 1 + 20, "the one at the top, and the cookbook");
    for source in recipes {
        let expression = read(source);
        let printed = expression.to_text(&Page);
        assert_eq!(read(&printed), expression, "{printed}");
        assert_eq!(read(&printed).to_text(&Page), printed);
    }
}

#[test]
fn every_example_has_the_truth_that_the_page_says() {
    let context = Context::at(super::now());
    let mut count = 0;
    for line in fences("truth").iter().flat_map(|fence| fence.lines()) {
        let (source, truth) = line.split_once("=> ").unwrap();
        let truth = match truth {
            "true" => Truth::True,
            "false" => Truth::False,
            "unknown" => Truth::Unknown,
            other => panic!("{other}"),
        };
        assert_eq!(read(source.trim()).evaluate_in(&Ann, &context), truth, "{source}");
        count += 1;
    }
    assert!(count > 50);
}

#[test]
fn the_page_has_the_vectors_of_samples() {
    for (salt, device) in [("", 0_u64), ("salt", 1), ("salt", u64::MAX), ("å😀", 0xfeed)] {
        let prefix =
            [b"carillon.sample.v1", &(salt.len() as u64).to_be_bytes()[..], salt.as_bytes()]
                .concat();
        let row = format!(
            "| `\"{salt}\"` | `{device:016x}` | `{:016x}` |",
            sample_hash_of(&prefix, device)
        );
        assert!(PAGE.contains(&row), "{row}");
    }
}

#[test]
fn the_page_names_every_word_of_the_language() {
    let ebnf = fences("ebnf").concat();
    for word in [
        "and",
        "or",
        "not",
        "in",
        "has",
        "all",
        "true",
        "false",
        "any",
        "none",
        "between",
        "starts_with",
        "ends_with",
        "contains",
        "matches",
        "device",
        "user",
        "within",
        "last",
        "next",
        "near",
        "sample",
        "last_seen",
        "now",
        "local_time",
        "local_day",
        "ignoring",
        "case",
    ] {
        assert!(ebnf.contains(&format!("\"{word}\"")), "{word}");
    }
}
