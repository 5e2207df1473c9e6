//! What each construct means, and how it prints.

use expect_test::{Expect, expect};

use super::{App, Device, attribute_id, group_id, number, parse, text, version};
use crate::{Expression, Limits, Schema, Term, Terms, Truth, Value};

const ALIKE: &[(&str, &str)] = &[
    // Operators and their other spelling.
    ("#vip && !premium || #staff", "#vip and not premium or #staff"),
    ("!#vip", "not #vip"),
    ("not not #vip", "not not #vip"),
    ("! ! #vip", "not not #vip"),
    // Precedence: a comparison binds tighter than `not`, then `and`, then `or`.
    ("not country == \"SE\"", "not (country == \"SE\")"),
    ("not #vip and #staff", "(not #vip) and #staff"),
    ("#vip or #staff and premium", "#vip or (#staff and premium)"),
    // Nested chains of one kind are one chain.
    ("(#vip or #staff) or (premium or all)", "#vip or #staff or premium or all"),
    ("#vip and (#staff and (premium and all))", "#vip and #staff and premium and all"),
    // Sugar.
    ("premium == true", "premium"),
    ("country not in ('SE')", "not country in ('SE')"),
    ("country\nnot\tin('SE')", "country not in (\"SE\")"),
    // Lists are sets.
    ("age in (3, 1, 2, 1)", "age in (1,2,3)"),
    // Literals.
    ("app_version == v2", "app_version == v2.0.0"),
    ("age == -0", "age == 0"),
    ("age == 1e3", "age == 1000"),
    ("age == 1.50", "age == 1.5"),
    (r#"country == "\u{e5}\t\"\'""#, "country == 'å\t\"\\''"),
    // Spaces.
    ("  ( ( all ) )  ", "all"),
    ("age\u{a0}>\r\n3", "age>3"),
    // Ids instead of names.
    ("#:b000000000000001", "#staff"),
    (":a000000000000002 > 3 and has :A000000000000000", "age > 3 and has country"),
    // Names that begin with a word of the language, or look like something else.
    ("in-app", "in-app == true"),
    ("#and and#v2.3", "#and and #v2.3"),
];

#[test]
fn spellings_that_mean_the_same_are_the_same_tree() {
    for (left, right) in ALIKE {
        assert_eq!(parse(left), parse(right), "{left} | {right}");
    }
}

#[test]
fn different_expressions_are_different_trees() {
    let sources = [
        "all",
        "#vip",
        "not #vip",
        "has age",
        "age == 1",
        "age != 1",
        "age < 1",
        "age in (1)",
        "premium",
        "premium == false",
        "premium != true",
        "#vip or #staff",
        "#vip and #staff",
        "#staff or #vip",
        "not (#vip or #staff)",
        "not #vip or #staff",
    ];
    for (i, left) in sources.iter().enumerate() {
        for (j, right) in sources.iter().enumerate() {
            assert_eq!(parse(left) == parse(right), i == j, "{left} | {right}");
        }
    }
}

fn check_print(source: &str, expected: Expect) {
    let expression = parse(source);
    expected.assert_eq(&format!("{}\n{}", expression.to_text(&App), expression.to_stored()));
}

#[test]
fn canonical_text_has_names_or_ids() {
    check_print(
        r#"!(#vip||#team:a/b)&&country in('SE',"KE")&&app_version>=v2.3.0&&!has age"#,
        expect![[r#"
            not (#vip or #team:a/b) and country in ("KE", "SE") and app_version >= v2.3 and not has age
            not (#:b000000000000000 or #:b000000000000002) and :a000000000000000 in ("KE", "SE") and :a000000000000006 >= v2.3 and not has :a000000000000002"#]],
    );
    check_print(
        "premium == true or premium != true or os.version not in (v10.0)",
        expect![[r#"
        premium or premium != true or os.version not in (v10)
        :a000000000000004 or :a000000000000004 != true or :a000000000000007 not in (v10)"#]],
    );
    check_print(
        r#"country == '"\\ \n\u{7} å😀'"#,
        expect![[r#"
        country == "\"\\ \n\u{7} å😀"
        :a000000000000000 == "\"\\ \n\u{7} å😀""#]],
    );
    check_print(
        "age in (1e300, 0.1, -5) and all",
        expect![[r#"
        age in (-5, 0.1, 1e300) and all
        :a000000000000002 in (-5, 0.1, 1e300) and all"#]],
    );
}

#[test]
fn names_that_would_not_parse_print_as_ids() {
    struct Odd;
    impl Schema for Odd {
        fn attribute(&self, _: &str) -> Option<(crate::AttributeId, crate::Type)> {
            None
        }
        fn attribute_name(&self, _: crate::AttributeId) -> Option<(&str, crate::Type)> {
            Some(("and", crate::Type::Bool))
        }
        fn group(&self, _: &str) -> Option<crate::GroupId> {
            None
        }
        fn group_name(&self, _: crate::GroupId) -> Option<&str> {
            Some(":x")
        }
        fn visit_attribute_names(&self, _: &mut dyn FnMut(&str)) {}
        fn visit_group_names(&self, _: &mut dyn FnMut(&str)) {}
    }
    let stored = parse("premium and #vip").to_stored();
    let read = Expression::parse(&stored, &Odd, &Limits::STORED).unwrap();
    assert_eq!(read.to_text(&Odd), stored);
}

#[test]
fn an_expression_lists_what_it_refers_to() {
    let expression = parse("#staff and age > 3 or has age and (premium or #vip) and #vip");
    assert_eq!(expression.attributes(), [attribute_id(2), attribute_id(4)]);
    assert_eq!(expression.groups(), [group_id(0), group_id(1)]);
    assert_eq!(expression.nodes(), 10);
    assert_eq!(parse("country not in ('a', 'b')").nodes(), 4);
    assert_eq!(parse("all"), Expression::everyone());
    assert_eq!(format!("{:?}", parse("#vip")), "Expression(#:b000000000000000)");
}

#[test]
fn an_expression_is_shared_between_threads() {
    let expression = parse("#vip");
    let theirs = expression.clone();
    let outcome = std::thread::spawn(move || theirs.matches(&Device::default().member("vip")));
    assert!(outcome.join().unwrap());
    assert!(!expression.matches(&Device::default()));
}

#[test]
fn and_or_not_follow_the_truth_tables() {
    use Truth::{False, True, Unknown};
    // `all` is true, `not all` false, and a comparison with a lacking attribute unknown.
    let operand = |truth| match truth {
        True => "all",
        False => "not all",
        Unknown => "age == 1",
    };
    let device = Device::default();
    let rows = [
        // a, b, a and b, a or b
        (True, True, True, True),
        (True, Unknown, Unknown, True),
        (True, False, False, True),
        (Unknown, True, Unknown, True),
        (Unknown, Unknown, Unknown, Unknown),
        (Unknown, False, False, Unknown),
        (False, True, False, True),
        (False, Unknown, False, Unknown),
        (False, False, False, False),
    ];
    for (a, b, and, or) in rows {
        let (x, y) = (operand(a), operand(b));
        assert_eq!(parse(&format!("{x} and {y}")).evaluate(&device), and, "{a:?} and {b:?}");
        assert_eq!(parse(&format!("{x} or {y}")).evaluate(&device), or, "{a:?} or {b:?}");
    }
    for (a, not) in [(True, False), (Unknown, Unknown), (False, True)] {
        assert_eq!(parse(&format!("not {}", operand(a))).evaluate(&device), not);
        assert_eq!(!a, not);
    }
}

#[test]
fn each_test_is_true_false_or_unknown_as_documented() {
    use Truth::{False, True, Unknown};
    let device = Device::default()
        .with("country", text("SE"))
        .with("age", number(30.0))
        .with("premium", Value::Bool(false))
        .with("app_version", version("2.10"))
        .member("vip");
    for (source, truth) in [
        ("all", True),
        ("#vip", True),
        ("#staff", False),
        ("not #staff", True),
        ("has age", True),
        ("has score", False),
        ("not has score", True),
        ("age == 30.0", True),
        ("age != 30", False),
        ("age < 30", False),
        ("age <= 30", True),
        ("age > 29.5", True),
        ("age >= 31", False),
        ("score < 1", Unknown),
        ("score != 1", Unknown),
        ("not score == 1", Unknown),
        ("score in (1, 2)", Unknown),
        ("score not in (1, 2)", Unknown),
        ("age in (29, 30)", True),
        ("age not in (29, 30)", False),
        ("country == \"se\"", False),
        ("country < \"T\"", True),
        ("country in (\"KE\", \"SE\")", True),
        ("premium", False),
        ("not premium", True),
        ("premium == false", True),
        ("in-app", Unknown),
        ("app_version >= v2.9", True),
        ("app_version == v2.10.0", True),
        ("app_version < v2.10.0.1", True),
        ("os.version > v1", Unknown),
        ("not country == \"SE\" or score > 1", Unknown),
        ("country == \"SE\" or score > 1", True),
    ] {
        let expression = parse(source);
        assert_eq!(expression.evaluate(&device), truth, "{source}");
        assert_eq!(expression.matches(&device), truth == True, "{source}");
    }
}

#[test]
fn a_value_of_another_type_counts_as_lacking() {
    let (id, _) = App.attribute("age").unwrap();
    let mut device = Device::default();
    device.values.insert(id, text("30"));
    for source in ["age == 30", "age != 30", "age in (30)", "age not in (30)"] {
        assert_eq!(parse(source).evaluate(&device), Truth::Unknown, "{source}");
    }
}

fn check_terms(rows: &[(&str, Terms)]) {
    for (source, terms) in rows {
        assert_eq!(parse(source).terms(), *terms, "{source}");
    }
}

fn any<const N: usize>(terms: [&Term; N]) -> Terms {
    Terms::Any(terms.into_iter().cloned().collect())
}

#[test]
fn terms_are_the_cheapest_necessary_set() {
    let (vip, staff) = (Term::Group(group_id(0)), Term::Group(group_id(1)));
    let has_age = Term::Has(attribute_id(2));
    let country = |name| Term::Equals(attribute_id(0), text(name));
    let premium = |flag| Term::Equals(attribute_id(4), Value::Bool(flag));
    check_terms(&[
        ("all", Terms::Everyone),
        ("not all", Terms::Nobody),
        ("#vip", any([&vip])),
        ("not #vip", Terms::Everyone),
        ("has age", any([&has_age])),
        ("not has age", Terms::Everyone),
        ("age > 3", any([&has_age])),
        ("not age > 3", any([&has_age])),
        ("age == 3", any([&Term::Equals(attribute_id(2), number(3.0))])),
        ("not age == 3", any([&has_age])),
        ("not age != 3", any([&Term::Equals(attribute_id(2), number(3.0))])),
        ("premium", any([&premium(true)])),
        ("not premium", any([&premium(false)])),
        ("premium != true", any([&premium(false)])),
        ("not premium != true", any([&premium(true)])),
        ("country in ('b', 'a')", any([&country("a"), &country("b")])),
        ("country not in ('b', 'a')", any([&Term::Has(attribute_id(0))])),
        ("#vip and country in ('a', 'b')", any([&vip])),
        ("has age and country in ('a', 'b')", any([&country("a"), &country("b")])),
        ("#vip or #staff", any([&vip, &staff])),
        ("#vip or #vip or age == 3 or has age", any([&vip, &has_age])),
        ("#vip or not #staff", Terms::Everyone),
        ("#vip and not #staff", any([&vip])),
        ("#vip or not all", any([&vip])),
        ("#vip and not all", Terms::Nobody),
        ("not (not #vip or age > 3)", any([&vip])),
        ("not (not #vip and not #staff)", any([&vip, &staff])),
    ]);
}
