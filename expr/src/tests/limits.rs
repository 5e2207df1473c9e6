//! Hostile sizes: deep, long, wide. Each runs on the 2 MiB stack of a test thread.

use std::time::{Duration, Instant};

use super::{App, Device, number, parse};
use crate::{DiagnosticKind, Expression, Limits, Terms, Truth};

const WIDE: Limits = Limits {
    bytes_max: usize::MAX,
    nodes_max: usize::MAX,
    depth_max: usize::MAX,
    audience_depth_max: usize::MAX,
};

/// Every walk over a tree, each of which recurses.
fn walk(expression: &Expression) {
    let device = Device::default().with("age", number(1.0)).member("vip");
    assert_ne!(expression.evaluate(&device), Truth::Unknown);
    let _ = expression.terms();
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
    ];
    for source in shapes {
        let begin = Instant::now();
        let outcome = Expression::parse(&source, &App, &WIDE);
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
