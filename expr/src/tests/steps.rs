//! Nothing takes more than linear time: steps are counted over texts and trees that grow, of shapes that are hard on
//! parsers, compilers and matchers. The tokenizer's own steps are counted in `tests/tokens.rs`.

use super::{App, Device, context, number, set, text};
use crate::steps::counted;
use crate::{AudienceId, Context, Dialect, Expression, Limits, Schema};

const WIDE: Limits = Limits {
    bytes_max: usize::MAX,
    nodes_max: usize::MAX,
    depth_max: usize::MAX,
    audience_depth_max: usize::MAX,
};

/// A shape of some size, and how it is called.
type Family = (&'static str, fn(usize) -> String);

/// What was done, its steps, and how many they may be.
type Taken = (&'static str, u64, u64);

const FAMILIES: &[Family] = &[
    ("open parentheses", |n| "(".repeat(n)),
    ("closed parentheses", |n| ")".repeat(n)),
    ("deep parentheses", |n| nested("(", "#vip", ")", n)),
    ("a chain of not", |n| format!("{}#vip", "not ".repeat(deep(n)))),
    ("not and parentheses", |n| nested("not(", "#vip", ")", n / 2)),
    ("or within and within or", |n| nested("(#vip or (age > 1 and ", "#staff", "))", n / 2)),
    ("many chains of not", |n| vec![format!("{}#vip", "not ".repeat(9)); n].join(" and ")),
    ("a long or", |n| vec!["age == 1 or #vip"; n].join(" or ")),
    ("a long or of different tests", |n| each(n, " or ", |at| format!("age == {at}"))),
    ("a long and", |n| each(n, " and ", |at| format!("(age > {at} or not #vip)"))),
    ("shared parts", |n| {
        each(n, " or ", |at| {
            format!("(age > {0} or #vip) and #staff or (age > {0} or #vip) and premium", at % 7)
        })
    }),
    ("ands of ors of ands", |n| {
        each(n, " and ", |at| {
            format!("(#vip and age > {at} or (#staff or score < {at}) and premium)")
        })
    }),
    ("a long list", |n| format!("age in ({})", each(n, ", ", |at| at.to_string()))),
    ("a long list of texts", |n| {
        format!("country in ({}) ignoring case", each(n, ", ", |at| format!("'É{at}'")))
    }),
    ("a long list of entries", |n| format!("tags all ({})", each(n, ", ", |at| format!("'{at}'")))),
    ("many devices", |n| format!("device({})", each(n, ", ", |at| format!("{at:016x}")))),
    ("a long string", |n| format!("country == \"{}\"", "é\\n\\u{e5}".repeat(n))),
    ("a torn string", |n| format!("country == \"{}", "\\\"".repeat(n))),
    ("faults", |n| each(n, " and ", |at| format!("zebra{at} == 1"))),
    ("faults within lists", |n| format!("age in ({})", each(n, ", ", |at| format!("x{at}")))),
    ("conditions without and", |n| "age > 1 country ".repeat(n)),
    ("slips", |n| "#vip & #staff | NOT premium AND ".repeat(n) + "all"),
    ("stars", |n| each(n, " or ", |_| format!("country matches \"{}b\"", "*a".repeat(100)))),
    ("folded texts", |n| {
        each(n, " or ", |at| {
            format!("country contains \"{}b{at}\" ignoring case", "aab".repeat(60))
        })
    }),
    ("comments", |n| "/* ( */ // )\n".repeat(n) + "all"),
];

fn nested(open: &str, inner: &str, close: &str, n: usize) -> String {
    let n = deep(n);
    format!("{}{inner}{}", open.repeat(n), close.repeat(n))
}

/// As deep as may be, where depth has a limit that no configuration lifts.
fn deep(n: usize) -> usize {
    n.min(Limits::STORED.depth_max / 2 - 1)
}

fn each(n: usize, joint: &str, part: impl Fn(usize) -> String) -> String {
    (0..n).map(part).collect::<Vec<_>>().join(joint)
}

fn device() -> Device {
    Device { id: 7, user: Some("ann".into()), ..Device::default() }
        .with("age", number(1.0))
        .with("country", text(&"aab".repeat(20)))
        .with("tags", set(&["0", "1"]))
        .member("vip")
}

/// The steps of reading a text and of each use of what was read.
fn steps(source: &str, schema: &dyn Schema) -> Vec<Taken> {
    let bytes = source.len() as u64 + 8;
    let (read, taken) = counted(|| Expression::parse(source, schema, &WIDE));
    let mut all = vec![("parsing and compiling, by bytes", taken, 10 * bytes)];
    let (device, context): (Device, Context) = (device(), context());
    if let Ok(read) = read {
        let nodes = read.nodes() as u64 + 8;
        // A test may go through the device's text.
        let seen = 64 + 4 * 256;
        let mut add = |what, taken, most| all.push((what, taken, most));
        add(
            "evaluation, by nodes",
            counted(|| read.evaluate_in(&device, &context)).1,
            nodes * seen,
        );
        let logic = counted(|| read.matches_in(&Device::default(), &context)).1;
        add("evaluation where nothing is known, by nodes", logic, nodes);
        add("terms, by nodes", counted(|| read.terms()).1, 8 * nodes);
        add("print, by bytes", counted(|| read.to_stored()).1, 4 * bytes);
        add(
            "explanation, by nodes",
            counted(|| read.explain(&device, &context, schema)).1,
            nodes * seen,
        );
        add("SQL, by nodes", counted(|| read.to_sql(Dialect::MariaDb, &context)).1, 8 * nodes);
    }
    all
}

#[test]
fn no_text_takes_more_than_linear_time() {
    for (name, family) in FAMILIES {
        let mut before: Option<(usize, Vec<Taken>)> = None;
        for n in [50, 400, 3_200] {
            let source = family(n);
            let taken = steps(&source, &App);
            for (what, steps, most) in &taken {
                assert!(steps <= most, "{name}, {n}: {what} took {steps} steps, at most {most}");
            }
            if let Some((bytes, before)) = before {
                for ((what, small, _), (_, large, _)) in before.iter().zip(&taken) {
                    // Eight times the text, eight times the steps, and a tenth for what is there once.
                    let growth = source.len() as f64 / bytes as f64;
                    let most = (*small as f64 + 100.0) * growth * 1.1;
                    assert!(
                        *large as f64 <= most,
                        "{name}, {n}: {what} went from {small} to {large} steps while the text grew by {growth:.1}"
                    );
                }
            }
            before = Some((source.len(), taken));
        }
    }
}

/// Audiences that name the one before many times: written out they would multiply.
#[test]
fn audiences_take_linear_time_however_often_they_are_named() {
    struct Nested(Vec<Expression>);
    impl Schema for Nested {
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
        fn audience_expression(&self, id: AudienceId) -> Option<&Expression> {
            self.0.get(usize::try_from(id.get()).ok()?)
        }
    }
    let mut schema = Nested(vec![super::parse("#vip or age > 3")]);
    for level in 1..16_u64 {
        let below = format!("@:{}", AudienceId::new(level - 1));
        let part =
            |at| format!("{below} and (#staff or age > {at}) or not {below} and score < {at}");
        let source = each(40, " and ", |at| format!("({})", part(at)));
        let read = |schema: &Nested| {
            Expression::parse_audience(AudienceId::new(level), &source, schema, &WIDE)
        };
        let (read, taken) = counted(|| read(&schema));
        let read = read.unwrap();
        let most = 10 * source.len() as u64 + 40 * read.nodes() as u64;
        assert!(taken <= most, "level {level}: {taken} steps, at most {most}");
        // What tells false from unknown is compiled when it is first asked for.
        read.evaluate_in(&device(), &context());
        let taken = counted(|| read.evaluate_in(&device(), &context())).1;
        assert!(taken <= 4 * read.nodes() as u64, "level {level}: {taken} of {}", read.nodes());
        let taken = counted(|| read.terms()).1;
        assert!(taken <= 8 * read.nodes() as u64, "level {level}: {taken} of {}", read.nodes());
        schema.0.push(read);
    }
}

/// Texts and patterns on which a matcher that goes back takes the product of their lengths.
#[test]
fn a_test_of_a_text_takes_linear_time() {
    for source in [
        format!("country matches \"{}b\"", "*a".repeat(127)),
        format!("country matches \"*{}b*\"", "a".repeat(253)),
        format!("country matches \"{}\" ignoring case", "?*".repeat(255)),
        format!("country contains \"{}b\" ignoring case", "a".repeat(255)),
        format!("country contains \"{}ab\" ignoring case", "ab".repeat(120)),
    ] {
        let expression = super::parse(&source);
        for letters in [1_000, 100_000] {
            let device = Device::default().with("country", text(&"a".repeat(letters)));
            let taken = counted(|| expression.matches(&device)).1;
            let most = 2 * letters as u64 + 1_024;
            assert!(taken <= most, "{source:.60}: {taken} steps for {letters} letters");
        }
    }
}
