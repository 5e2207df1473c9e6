//! What each construct means, and how it prints.

use expect_test::{Expect, expect};

use super::{
    App, Device, attribute_id, context, date, group_id, now, number, parse, point, set, text, time,
    version,
};
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
    // Comments.
    ("#vip // the good ones\n and /* not */ #staff /**/", "#vip and #staff"),
    // What may be negated before its operator.
    ("age not between 1 and 2", "not age between 1 and 2"),
    ("country not contains 'a'", "not (country contains 'a')"),
    ("tags not any ('a')", "not tags any ('a')"),
    ("signed_up not within 3d", "not signed_up within last 3d"),
    // Case.
    ("country == 'ÅSE' ignoring case", "country in ('åse') ignoring case"),
    ("country != 'ÅSE' ignoring case", "country not in ('åse') ignoring case"),
    ("country starts_with 'S' ignoring case", "country starts_with 's' ignoring case"),
    ("country matches 'ÅS*' ignoring case", "country matches 'ås*' ignoring case"),
    // Sets.
    ("tags contains 'a'", "tags any ('a', 'a')"),
    ("tags all ('b', 'a')", "tags all ('a', 'b')"),
    // Time.
    ("signed_up within 48h", "signed_up within 2d"),
    ("birthday within 2w", "birthday within 14d"),
    ("signed_up > now-60m", "signed_up > now - 1h"),
    ("signed_up > now -60m", "signed_up > now - 1h"),
    ("signed_up < now+60m", "signed_up < now + 1h"),
    ("signed_up < now + 0d", "signed_up < now"),
    ("signed_up == 2026-11-21T08:30+01:00", "signed_up == 2026-11-21T07:30:00.000Z"),
    ("local_day(utc_offset) in (sun, mon, sun)", "local_day(utc_offset) in (mon, sun)"),
    ("local_day(utc_offset) != sun", "local_day(utc_offset) in (mon, tue, wed, thu, fri, sat)"),
    // Places, shares, devices.
    ("near(59.33, 18.07, 5km)", "near(home, 59.3300, 18.0700000, 5000m)"),
    ("near(-59.33, 18, 0.5km)", "near(:a00000000000000a, -59.33, 18, 500m)"),
    ("sample(10%)", "sample(010.0%)"),
    ("sample(0.5%, 'a')", "sample(0.5000%,\"a\")"),
    ("device('00000000000000AB', 00000000000000ab)", "device(\"00000000000000ab\")"),
    (
        "device(abcdefabcdefabcd, 1234567812345678)",
        "device('1234567812345678', 'abcdefabcdefabcd')",
    ),
    // Audiences, users.
    ("@:c000000000000000 or @nordic", "@nordic or @nordic"),
    ("user in ('b', 'a')", "user in ('a', 'b')"),
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
fn every_construct_has_a_canonical_form() {
    let forms = [
        "device(\"00000000000000ab\", \"ffffffffffffffff\")",
        "has user and has last_seen",
        "user == \"ann\" or user not in (\"bob\", \"eve\")",
        "user matches \"a*\" ignoring case",
        "age between 18 and 30.5 and app_version not between v1 and v2.3",
        "country < \"M\" and country between \"A\" and \"M\"",
        "country starts_with \"S\" or country not ends_with \"e\" or country contains \"x\"",
        "country in (\"ke\", \"se\") ignoring case",
        "country not matches \"a?\\\\*b*\"",
        "tags any (\"a\", \"b\") and tags all (\"c\") and tags not none (\"d\")",
        "birthday == 2026-11-21 and birthday > now - 7d and birthday <= now",
        "signed_up >= 2026-11-21T07:30:00.250Z and signed_up < now + 36h",
        "signed_up between 2026-01-01T00:00:00Z and now",
        "last_seen within 90m and not #vip and signed_up not within next 30d",
        "near(home, 59.33, -18.0686001, 5km) or near(home, 0, 0, 1234m)",
        "sample(10%, \"a b\") or sample(0.0001%) or sample(33.3333%)",
        "local_time(utc_offset) between 22:00 and 06:30 or local_time(utc_offset) >= 09:05",
        "local_time(utc_offset) not between 09:00 and 17:00",
        "local_day(utc_offset) in (mon, fri) or local_day(utc_offset) not in (sun)",
        "@nordic and not (@engaged or @team/a)",
    ];
    for form in forms {
        assert_eq!(parse(form).to_text(&App), form);
        let stored = parse(form).to_stored();
        let again = Expression::parse(&stored, &App, &Limits::STORED).unwrap();
        assert_eq!(again.to_text(&App), form, "{stored}");
    }
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
    let device = Device { id: 0xab, last_seen: Some(now()), ..Device::default() }
        .with("country", text("SE"))
        .with("age", number(30.0))
        .with("premium", Value::Bool(false))
        .with("app_version", version("2.10"))
        .with("birthday", date("2026-11-20"))
        .with("signed_up", time("2026-11-21T06:30:00Z"))
        .with("home", point(59.3293, 18.0686))
        .with("tags", set(&["news", "Åre"]))
        .with("utc_offset", number(60.0))
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
        ("device(00000000000000ab)", True),
        ("device(00000000000000ac)", False),
        ("has user", False),
        ("user == \"ann\"", Unknown),
        ("has last_seen", True),
        ("last_seen within 1h", True),
        ("age between 30 and 30", True),
        ("age not between 1 and 29", True),
        ("score between 1 and 2", Unknown),
        ("country starts_with \"S\"", True),
        ("country starts_with \"\"", True),
        ("country starts_with \"s\"", False),
        ("country starts_with \"s\" ignoring case", True),
        ("country ends_with \"e\" ignoring case", True),
        ("country contains \"se\"", False),
        ("country contains \"Se\" ignoring case", True),
        ("country matches \"S?\"", True),
        ("country matches \"s*\"", False),
        ("country == \"sE\" ignoring case", True),
        ("platform contains \"x\"", Unknown),
        ("platform not contains \"x\"", Unknown),
        ("tags any (\"news\", \"x\")", True),
        ("tags all (\"news\", \"x\")", False),
        ("tags none (\"x\", \"åre\")", True),
        ("tags contains \"Åre\"", True),
        ("birthday within 1d", True),
        ("birthday within 0d", False),
        ("birthday within next 9d", False),
        ("birthday == now - 1d", True),
        ("signed_up within 1h", True),
        ("signed_up within 3599s", False),
        ("signed_up <= now - 1h", True),
        ("signed_up between now - 1h and now", True),
        ("near(59.3293, 18.0686, 0m)", True),
        ("near(59.33, 18.06, 1km)", True),
        ("near(57.7089, 11.9746, 396km)", False),
        ("near(57.7089, 11.9746, 398km)", True),
        ("sample(100%)", True),
        ("sample(0%)", False),
        // 08:30 on a Saturday.
        ("local_time(utc_offset) == 08:30", True),
        ("local_time(utc_offset) between 22:00 and 08:30", True),
        ("local_time(utc_offset) between 22:00 and 08:29", False),
        ("local_time(score) > 00:00", Unknown),
        ("local_day(utc_offset) == sat", True),
        ("local_day(utc_offset) in (mon, tue)", False),
        ("@nordic", True),
        ("@nordic and @engaged", True),
        ("@team/a", True),
    ] {
        let expression = parse(source);
        assert_eq!(expression.evaluate_in(&device, &context()), truth, "{source}");
        assert_eq!(expression.matches_in(&device, &context()), truth == True, "{source}");
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
    let entry = |name: &str| Term::Contains(attribute_id(11), name.into());
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
        ("user == \"ann\"", any([&Term::User("ann".into())])),
        ("user in (\"b\", \"a\")", any([&Term::User("a".into()), &Term::User("b".into())])),
        ("user != \"ann\"", any([&Term::HasUser])),
        ("user != \"ann\" or user == \"bob\"", any([&Term::HasUser])),
        ("device(00000000000000ab)", any([&Term::Device(0xab)])),
        ("not device(00000000000000ab)", Terms::Everyone),
        ("tags any (\"b\", \"a\")", any([&entry("a"), &entry("b")])),
        ("tags all (\"b\", \"a\")", any([&entry("a")])),
        ("not tags none (\"b\", \"a\")", any([&entry("a"), &entry("b")])),
        ("tags none (\"b\")", any([&Term::Has(attribute_id(11))])),
        ("country contains \"S\" and age between 1 and 2", any([&Term::Has(attribute_id(0))])),
        ("country == \"a\" ignoring case", any([&Term::Has(attribute_id(0))])),
        ("signed_up > now", any([&Term::Has(attribute_id(9))])),
        ("near(0, 0, 1km)", any([&Term::Has(attribute_id(10))])),
        ("local_time(utc_offset) > 09:00", any([&Term::Has(attribute_id(12))])),
        ("last_seen within 7d", Terms::Everyone),
        ("sample(10%)", Terms::Everyone),
        ("sample(10%) and #vip", any([&vip])),
        ("@nordic", any([&country("FI"), &country("NO"), &country("SE")])),
        ("@team/a", Terms::Everyone),
        ("@nordic and @team/a", any([&country("FI"), &country("NO"), &country("SE")])),
    ]);
}

/// Each kind of term that an expression can be filed under is one that a device looks under.
#[test]
fn a_device_looks_under_every_kind_of_term() {
    let user: std::sync::Arc<str> = "ann".into();
    let attributes = [(attribute_id(0), text("SE")), (attribute_id(11), set(&["a", "b"]))];
    let mut seen = Vec::new();
    crate::visit_terms(0xab, Some(&user), &attributes, &[group_id(1)], &mut |term| {
        seen.push(term.clone());
    });
    seen.sort_unstable();
    let mut expected = vec![
        Term::Device(0xab),
        Term::HasUser,
        Term::User(user),
        Term::Group(group_id(1)),
        Term::Has(attribute_id(0)),
        Term::Equals(attribute_id(0), text("SE")),
        Term::Has(attribute_id(11)),
        Term::Equals(attribute_id(11), set(&["a", "b"])),
        Term::Contains(attribute_id(11), "a".into()),
        Term::Contains(attribute_id(11), "b".into()),
    ];
    expected.sort_unstable();
    assert_eq!(seen, expected);
    crate::visit_terms(1, None, &[], &[], &mut |term| assert_eq!(*term, Term::Device(1)));
}
