//! Random expressions over random devices: print and parse, terms, and a second evaluator.

use proptest::prelude::*;

use super::{ATTRIBUTES, App, Device, GROUPS, attribute_id, group_id, number, text, version};
use crate::{Expression, Limits, Profile, Term, Terms, Truth, Type, Value};

/// An expression as the test knows it; the crate only ever sees its text.
#[derive(Clone, Debug)]
enum Tree {
    All,
    Group(usize),
    Has(usize),
    Flag(usize),
    Compare(usize, &'static str, Value),
    In(usize, bool, Vec<Value>),
    Not(Box<Tree>),
    And(Vec<Tree>),
    Or(Vec<Tree>),
}

fn value(kind: Type) -> BoxedStrategy<Value> {
    match kind {
        Type::String => prop_oneof![
            3 => prop::sample::select(vec!["", "SE", "KE", "se", "å"]).prop_map(text),
            1 => any::<String>().prop_map(|s| text(&s)),
        ]
        .boxed(),
        Type::Number => prop_oneof![
            3 => (-3..3).prop_map(|n| number(f64::from(n) / 2.0)),
            1 => any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(number),
        ]
        .boxed(),
        Type::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Type::Version => prop_oneof![
            3 => prop::sample::select(vec!["2", "2.0.1", "2.3", "2.10", "v10"]).prop_map(version),
            1 => any::<[u32; 4]>().prop_map(|parts| Value::Version(crate::Version::new(parts))),
        ]
        .boxed(),
    }
}

fn leaf() -> impl Strategy<Value = Tree> {
    let attribute = 0..ATTRIBUTES.len();
    prop_oneof![
        1 => Just(Tree::All),
        3 => (0..GROUPS.len()).prop_map(Tree::Group),
        2 => attribute.clone().prop_map(Tree::Has),
        1 => prop::sample::select(vec![4, 5]).prop_map(Tree::Flag),
        6 => attribute.clone().prop_flat_map(|index| {
            let kind = ATTRIBUTES[index].1;
            let mut symbols = vec!["==", "!="];
            if kind != Type::Bool {
                symbols.extend(["<", "<=", ">", ">="]);
            }
            (Just(index), prop::sample::select(symbols), value(kind))
                .prop_map(|(index, symbol, value)| Tree::Compare(index, symbol, value))
        }),
        3 => attribute.prop_flat_map(|index| {
            let values = prop::collection::vec(value(ATTRIBUTES[index].1), 1..5);
            (Just(index), any::<bool>(), values)
                .prop_map(|(index, negated, values)| Tree::In(index, negated, values))
        }),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    leaf().prop_recursive(6, 60, 5, |inner| {
        prop_oneof![
            inner.clone().prop_map(|tree| Tree::Not(Box::new(tree))),
            prop::collection::vec(inner.clone(), 1..5).prop_map(Tree::And),
            prop::collection::vec(inner, 1..5).prop_map(Tree::Or),
        ]
    })
}

fn device() -> impl Strategy<Value = Device> {
    let values: Vec<_> =
        ATTRIBUTES.iter().map(|(_, kind)| prop::option::weighted(0.7, value(*kind))).collect();
    let groups = prop::collection::vec(any::<bool>(), GROUPS.len());
    (values, groups).prop_map(|(values, groups)| Device {
        values: values
            .into_iter()
            .enumerate()
            .filter_map(|(index, value)| Some((attribute_id(index), value?)))
            .collect(),
        groups: (0..GROUPS.len()).filter(|&index| groups[index]).map(group_id).collect(),
    })
}

/// Writes a literal in the test's own way, single quotes and escapes wherever they are allowed.
fn write_value(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let escape = |c: char| match c {
                '\'' => "\\'".to_owned(),
                '\\' => "\\\\".to_owned(),
                c if c.is_control() => format!("\\u{{{:06X}}}", u32::from(c)),
                c => c.to_string(),
            };
            format!("'{}'", text.chars().map(escape).collect::<String>())
        }
        Value::Number(number) => format!("{:e}", number.get()),
        Value::Bool(flag) => flag.to_string(),
        Value::Version(version) => {
            let [a, b, c, d] = version.components();
            format!("v{a}.{b}.{c}.{d}")
        }
    }
}

/// Writes a tree with a parenthesis around everything.
fn write(tree: &Tree) -> String {
    let name = |index: &usize| ATTRIBUTES[*index].0;
    let chain = |trees: &[Tree], operator: &str| {
        let parts: Vec<_> = trees.iter().map(write).collect();
        format!("({})", parts.join(operator))
    };
    match tree {
        Tree::All => "(all)".to_owned(),
        Tree::Group(index) => format!("#{}", GROUPS[*index]),
        Tree::Has(index) => format!("has {}", name(index)),
        Tree::Flag(index) => name(index).to_owned(),
        Tree::Compare(index, symbol, value) => {
            format!("{}{symbol}{}", name(index), write_value(value))
        }
        Tree::In(index, negated, values) => {
            let values: Vec<_> = values.iter().map(write_value).collect();
            let operator = if *negated { "not in" } else { "in" };
            format!("{} {operator}({})", name(index), values.join(","))
        }
        Tree::Not(inner) => format!("!({})", write(inner)),
        Tree::And(trees) => chain(trees, "&&"),
        Tree::Or(trees) => chain(trees, " or "),
    }
}

/// Kleene's logic as minimum and maximum over false 0, unknown 1, true 2.
fn naive(tree: &Tree, device: &Device) -> u8 {
    let truth = |yes: bool| if yes { 2 } else { 0 };
    let actual = |index: &usize| device.values.get(&attribute_id(*index));
    match tree {
        Tree::All => 2,
        Tree::Group(index) => truth(device.groups.contains(&group_id(*index))),
        Tree::Has(index) => truth(actual(index).is_some()),
        Tree::Flag(index) => actual(index).map_or(1, |value| truth(*value == Value::Bool(true))),
        Tree::Compare(index, symbol, value) => actual(index).map_or(1, |actual| {
            truth(match *symbol {
                "==" => same(actual, value),
                "!=" => !same(actual, value),
                "<" => less(actual, value),
                "<=" => less(actual, value) || same(actual, value),
                ">" => less(value, actual),
                _ => !less(actual, value),
            })
        }),
        Tree::In(index, negated, values) => actual(index)
            .map_or(1, |actual| truth(values.iter().any(|value| same(value, actual)) != *negated)),
        Tree::Not(inner) => 2 - naive(inner, device),
        Tree::And(trees) => trees.iter().map(|tree| naive(tree, device)).min().unwrap(),
        Tree::Or(trees) => trees.iter().map(|tree| naive(tree, device)).max().unwrap(),
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
        _ => panic!("the test compares values of one type"),
    }
}

fn satisfies(device: &Device, term: &Term) -> bool {
    match term {
        Term::Group(id) => device.in_group(*id),
        Term::Equals(id, value) => device.attribute(*id) == Some(value),
        Term::Has(id) => device.attribute(*id).is_some(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn parse_of_print_is_the_identity(tree in tree()) {
        let expression = Expression::parse(&write(&tree), &App, &Limits::default()).unwrap();
        for printed in [expression.to_text(&App), expression.to_stored()] {
            let again = Expression::parse(&printed, &App, &Limits::STORED).unwrap();
            prop_assert_eq!(&again, &expression);
            prop_assert_eq!(again.to_text(&App), expression.to_text(&App));
            prop_assert_eq!(again.to_stored(), expression.to_stored());
            prop_assert_eq!(again.nodes(), expression.nodes());
            prop_assert_eq!(again.attributes(), expression.attributes());
            prop_assert_eq!(again.groups(), expression.groups());
        }
    }

    #[test]
    fn evaluation_agrees_with_a_naive_evaluator_and_terms_are_necessary(
        tree in tree(),
        devices in prop::collection::vec(device(), 8),
    ) {
        let expression = Expression::parse(&write(&tree), &App, &Limits::default()).unwrap();
        let terms = expression.terms();
        if let Terms::Any(terms) = &terms {
            prop_assert!(terms.is_sorted_by(|a, b| a < b) && !terms.is_empty());
        }
        for device in devices {
            let expected = [Truth::False, Truth::Unknown, Truth::True][naive(&tree, &device) as usize];
            prop_assert_eq!(expression.evaluate(&device), expected);
            prop_assert_eq!(expression.matches(&device), expected == Truth::True);
            if expected == Truth::True {
                prop_assert!(match &terms {
                    Terms::Any(terms) => terms.iter().any(|term| satisfies(&device, term)),
                    Terms::Everyone => true,
                    Terms::Nobody => false,
                }, "{:?}", terms);
            }
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused_without_panic(source in any::<String>()) {
        if let Err(faults) = Expression::parse(&source, &App, &Limits::default()) {
            prop_assert!(!faults.render(&source).is_empty());
        }
    }

    #[test]
    fn any_mix_of_tokens_is_parsed_or_refused_without_panic(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "and", "or", "not", "in", "has", "all", "(", ")", ",", "#vip", "#", ":", "country",
            "age", "premium", "\"SE\"", "'", "3", "-", "v2.3", "==", "<", "=", "!", "&&", "\\", "\n",
            "“", "1.2.3",
        ]), 0..12),
        spaced in any::<bool>(),
    ) {
        let source = tokens.join(if spaced { " " } else { "" });
        match Expression::parse(&source, &App, &Limits::default()) {
            Ok(expression) => {
                let again = Expression::parse(&expression.to_text(&App), &App, &Limits::STORED);
                prop_assert_eq!(again.unwrap(), expression);
            }
            Err(faults) => {
                for fault in &faults {
                    prop_assert!(source.get(fault.span.clone()).is_some());
                    prop_assert!(!fault.render(&source).is_empty());
                }
            }
        }
    }
}
