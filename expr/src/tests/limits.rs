//! Hostile sizes: deep, long, wide. Each runs on the 2 MiB stack of a test thread, and what must be
//! linear is counted in steps, which no busy machine changes.

use std::time::{Duration, Instant};

use super::{App, Device, context, number, parse};
use crate::{DiagnosticKind, Dialect, Expression, Limits, Schema, Terms, Truth};

const WIDE: Limits = Limits {
    bytes_max: usize::MAX,
    nodes_max: usize::MAX,
    depth_max: usize::MAX,
    audience_depth_max: usize::MAX,
};

/// Every walk over a tree.
fn walk(expression: &Expression) {
    let device = Device::default().with("age", number(1.0)).member("vip");
    assert_ne!(expression.evaluate(&device), Truth::Unknown);
    let _ = expression.terms();
    let explained = expression.explain(&device, &context(), &App);
    assert!(explained.parts.len() <= expression.nodes());
    let (_, steps) = expression.matches_counted(&device, &context());
    assert!(steps <= expression.nodes() as u64);
    for dialect in [Dialect::MariaDb, Dialect::Sqlite] {
        let _ = expression.to_sql(dialect, &context());
    }
    for printed in [expression.to_text(&App), expression.to_stored()] {
        let again = Expression::parse(&printed, &App, &Limits::STORED).unwrap();
        assert!(again == *expression);
        assert_eq!(again.nodes(), expression.nodes());
    }
    assert!(format!("{expression:?}").len() > 2);
}

#[test]
fn sixteen_thousand_clauses_in_one_chain_fit_the_default_limits() {
    for operator in ["||", "&&"] {
        let source = vec!["#v"; 16_000].join(operator).replace("#v", "all");
        assert!(Expression::parse(&source, &App, &Limits::default()).is_err(), "80,000 bytes");
        let limits = Limits { bytes_max: 1 << 20, ..Limits::default() };
        let expression = Expression::parse(&source, &App, &limits).unwrap();
        assert_eq!(expression.nodes(), 16_001);
        walk(&expression);
    }
    let short = vec!["all"; 13_000].join("||");
    walk(&parse(&short));
    let long = Expression::parse(
        &vec!["age == 1 or #vip"; 8_000].join(" or "),
        &App,
        &Limits { bytes_max: 1 << 20, ..Limits::default() },
    )
    .unwrap();
    walk(&long);
    assert!(matches!(long.terms(), Terms::Any(terms) if terms.len() == 2));
}

#[test]
fn the_deepest_nesting_is_walked_without_overflow() {
    for depth in [256, 512] {
        let limits = Limits { depth_max: depth, ..WIDE };
        for source in [
            format!("{}#vip{}", "(".repeat(depth), ")".repeat(depth)),
            format!("{}#vip", "not ".repeat(depth)),
            format!("{}#vip", "!".repeat(depth)),
            format!("{}#vip{}", "not(".repeat(depth / 2), ")".repeat(depth / 2)),
            format!("{}#vip{}", "#vip or #staff and (".repeat(depth), ")".repeat(depth)),
            format!("{}#vip{}", "(#vip and ".repeat(depth), ")".repeat(depth)),
            format!("{}#vip{}", "(".repeat(depth), " or #vip and #vip)".repeat(depth)),
        ] {
            walk(&Expression::parse(&source, &App, &limits).unwrap());
            let deeper = source.replacen("#vip", "(#vip)", 1_000);
            let faults = Expression::parse(&deeper, &App, &limits).unwrap_err();
            assert_eq!(faults.as_slice()[0].kind, DiagnosticKind::TooDeep);
        }
    }
}

#[test]
fn depth_counts_what_is_open_at_one_place() {
    let limits = Limits { depth_max: 2, ..Limits::default() };
    let fits = vec!["not (#vip)"; 1_000].join(" and ");
    assert!(Expression::parse(&fits, &App, &limits).is_ok());
    assert!(Expression::parse("(not (#vip))", &App, &limits).is_err());
}

/// 1 MB of each shape; anything worse than linear would take minutes.
#[test]
fn hostile_texts_take_linear_time() {
    let n = 1_000_000;
    let shapes: Vec<String> = vec![
        "(".repeat(n),
        ")".repeat(n),
        "not ".repeat(n / 4),
        "!".repeat(n),
        "()".repeat(n / 2),
        " ".repeat(n),
        "\n".repeat(n),
        "\"".repeat(n),
        "#".repeat(n),
        ":".repeat(n),
        "a".repeat(n),
        "a.".repeat(n / 2),
        "#vip and ".repeat(n / 9),
        "zebra and ".repeat(n / 10) + "all",
        "#zebra".repeat(n / 6),
        format!("country == \"{}", "\\\"".repeat(n / 2)),
        format!("country == \"{}\"", "\\u{1}".repeat(n / 5)),
        format!("age == {}", "9".repeat(n)),
        format!("age == 0.{}", "1".repeat(n)),
        format!("app_version == v{}", "1.".repeat(n / 2)),
        format!("country == {}", "%".repeat(n)),
        format!("age in ({}1", "1,".repeat(n / 2)),
        format!("age in ({}1)", "1,".repeat(n / 2)),
        format!("age in ({}1)", "x,".repeat(n / 2)),
        "country not ".repeat(n / 12),
        "(#vip) and ".repeat(n / 11) + "(((all",
        (0..n / 8).map(|i| format!("z{i:05x}||")).collect::<String>() + "all",
        "\u{10FFFF}".repeat(n / 4),
        "/*".repeat(n / 2),
        "/* */".repeat(n / 5),
        "// \n".repeat(n / 4),
        "@".repeat(n),
        "@nordic or ".repeat(n / 11) + "all",
        "age between ".repeat(n / 12),
        "age between 1 and ".repeat(n / 18),
        "near(".repeat(n / 5),
        "device(".repeat(n / 7),
        format!("device({}1)", "0000000000000001,".repeat(n / 17)),
        "foo(".repeat(n / 4) + &")".repeat(n / 4),
        "country ignoring ".repeat(n / 17),
        "now-7d ".repeat(n / 7),
        format!("country matches \"{}\"", "*?".repeat(n / 2)),
        format!("country contains \"{}\"", "é".repeat(n / 2)),
        format!("tags any ({}'a')", "'a',".repeat(n / 4)),
        "country == 'a' ignoring case or ".repeat(n / 32) + "all",
    ];
    for source in shapes {
        let begin = Instant::now();
        let (outcome, steps) = Expression::parse_counted(&source, &App, &WIDE);
        assert!(steps <= 8 * source.len() as u64 + 8, "{steps} steps for {} bytes", source.len());
        if let Err(faults) = &outcome {
            assert!(faults.render(&source).len() < 100_000);
        }
        let took = begin.elapsed();
        let head: String = source.chars().take(30).collect();
        assert!(took < Duration::from_secs(5), "{head}: {took:?}");
    }
}

#[test]
fn a_long_list_is_searched_by_halving() {
    let entries: Vec<_> = (0..50_000).map(|entry| entry.to_string()).collect();
    let source = format!("age in ({})", entries.join(", "));
    let expression = Expression::parse(&source, &App, &WIDE).unwrap();
    let device = |age| Device::default().with("age", number(age));
    let (inside, outside) = (device(49_999.0), device(0.5));
    let begin = Instant::now();
    for _ in 0..50_000 {
        assert!(expression.matches(&inside));
        assert!(!expression.matches(&outside));
    }
    // Linear search would look at 5 thousand million values.
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

/// Texts and patterns that make a matcher that goes back take the product of their lengths.
#[test]
fn patterns_take_linear_time() {
    let device = Device::default().with("country", super::text(&"a".repeat(1_000_000)));
    for source in [
        format!("country matches \"{}b\"", "*a".repeat(127)),
        format!("country matches \"*{}b*\"", "a".repeat(253)),
        format!("country matches \"{}\"", "?*".repeat(255)),
        format!("country contains \"{}b\" ignoring case", "a".repeat(255)),
        format!("country contains \"{}b\"", "a".repeat(60_000)),
        format!("country ends_with \"b{}\" ignoring case", "a".repeat(60_000)),
    ] {
        let expression = parse(&source);
        let begin = Instant::now();
        assert_eq!(expression.matches(&device), source.contains("?*"));
        assert!(begin.elapsed() < Duration::from_secs(5), "{source:.60}: {:?}", begin.elapsed());
    }
}

/// Audiences that name the one before twice: written out they would double 40 times.
#[test]
fn audiences_cannot_multiply() {
    struct Doubling(Vec<Expression>);
    impl Schema for Doubling {
        fn attribute(&self, name: &str) -> Option<(crate::AttributeId, crate::Type)> {
            App.attribute(name)
        }
        fn attribute_name(&self, id: crate::AttributeId) -> Option<(&str, crate::Type)> {
            App.attribute_name(id)
        }
        fn group(&self, name: &str) -> Option<crate::GroupId> {
            App.group(name)
        }
        fn group_name(&self, id: crate::GroupId) -> Option<&str> {
            App.group_name(id)
        }
        fn visit_attribute_names(&self, _: &mut dyn FnMut(&str)) {}
        fn visit_group_names(&self, _: &mut dyn FnMut(&str)) {}
        fn audience_expression(&self, id: crate::AudienceId) -> Option<&Expression> {
            self.0.get(usize::try_from(id.get()).ok()?)
        }
    }
    let mut schema = Doubling(vec![parse("#vip or age > 3")]);
    for level in 1..40_u64 {
        let below = crate::AudienceId::new(level - 1);
        let source = format!(
            "@:{below} and (#staff or age > {level}) or not @:{below} and country == \"{level}\""
        );
        let limits = Limits { audience_depth_max: 40, ..Limits::default() };
        let id = crate::AudienceId::new(level);
        schema.0.push(Expression::parse_audience(id, &source, &schema, &limits).unwrap());
    }
    let top = schema.0.last().unwrap();
    assert_eq!(top.audience_depth(), 39);
    assert_eq!(top.nodes(), 3 + 39 * 10);
    let device = Device::default().with("age", number(1.0)).member("staff");
    let (_, steps) = top.matches_counted(&device, &context());
    assert!(steps <= 2 * top.nodes() as u64, "{steps}");
    assert!(matches!(top.terms(), Terms::Any(_) | Terms::Everyone));
    assert!(top.explain(&device, &context(), &schema).parts.len() < 1_000);
    // SQL has no names for parts: it says that it would be too long instead of trying.
    assert!(top.to_sql(Dialect::MariaDb, &context()).is_err());
}

/// Sixteen times the text takes sixteen times the steps, to the step.
#[test]
fn steps_grow_with_the_text() {
    let wide = Limits { bytes_max: 1 << 24, nodes_max: 1 << 24, ..Limits::default() };
    let steps = |count: usize| {
        let source = vec!["(country in ('a', 'b') or not #vip)"; count].join(" and ");
        let (outcome, steps) = Expression::parse_counted(&source, &App, &wide);
        outcome.unwrap();
        steps
    };
    let (small, large) = (steps(100), steps(1_600));
    assert!(large <= 16 * small && large >= 15 * small, "{small} {large}");
}
