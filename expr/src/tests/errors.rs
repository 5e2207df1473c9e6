//! Every error with its exact text.

use expect_test::{Expect, expect};

use super::{App, parse};
use crate::{DiagnosticKind, Diagnostics, Expression, Limits};

fn fail(source: &str) -> Diagnostics {
    match Expression::parse(source, &App, &Limits::default()) {
        Err(faults) => faults,
        Ok(expression) => panic!("{source:?} was read as {expression:?}"),
    }
}

fn check(source: &str, kind: DiagnosticKind, expected: Expect) {
    let faults = fail(source);
    expected.assert_eq(&faults.render(source));
    assert!(faults.iter().all(|fault| fault.kind == kind), "{faults:?}");
}

/// Only the messages, one a line, for many sources; control characters show as `·`.
fn check_messages(sources: &[&str], expected: Expect) {
    let line = |source: &&str| {
        let shown = source.replace(char::is_control, "·");
        format!(
            "{shown}  =>  {}
",
            fail(source)
        )
    };
    let lines: String = sources.iter().map(line).collect();
    expected.assert_eq(&lines);
}

#[test]
fn an_unknown_attribute_suggests_a_near_name() {
    check(
        "#vip and contry == \"SE\"",
        DiagnosticKind::UnknownAttribute,
        expect![[r#"
        error: unknown attribute `contry`
         --> line 1, column 10
          |
        1 | #vip and contry == "SE"
          |          ^^^^^^
          = help: did you mean `country`?
    "#]],
    );
}

#[test]
fn an_unknown_group_suggests_a_near_name() {
    check(
        "not #stfaf",
        DiagnosticKind::UnknownGroup,
        expect![[r#"
        error: unknown group `#stfaf`
         --> line 1, column 5
          |
        1 | not #stfaf
          |     ^^^^^^
          = help: did you mean `#staff`?
    "#]],
    );
}

#[test]
fn names_that_resemble_nothing_get_no_suggestion() {
    check_messages(
        &[
            "zebra == 1",
            "has zebra",
            "#zebra",
            "has :00000000000000ff",
            "#:00000000000000ff",
            "COUNTRY == \"SE\"",
            &"x".repeat(100),
        ],
        expect![[r#"
            zebra == 1  =>  line 1, column 1: unknown attribute `zebra`
            has zebra  =>  line 1, column 5: unknown attribute `zebra`
            #zebra  =>  line 1, column 1: unknown group `#zebra`
            has :00000000000000ff  =>  line 1, column 5: there is no attribute with the id 00000000000000ff
            #:00000000000000ff  =>  line 1, column 1: there is no group with the id 00000000000000ff
            COUNTRY == "SE"  =>  line 1, column 1: unknown attribute `COUNTRY` (did you mean `country`?)
            xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx  =>  line 1, column 1: unknown attribute `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…`
        "#]],
    );
}

#[test]
fn a_wrong_type_says_which_type_the_attribute_has() {
    check(
        "age == \"42\"",
        DiagnosticKind::WrongType,
        expect![[r#"
        error: expected a number because age is a number
         --> line 1, column 8
          |
        1 | age == "42"
          |        ^^^^
          = help: did you mean `42`?
    "#]],
    );
    check_messages(
        &[
            "age == \"old\"",
            "age < true",
            "age == v2",
            "country == 46",
            "country == true",
            "country == SE",
            "country == “SE”",
            "country in (SE, \"KE\", NO)",
            "premium == 1",
            "premium == True",
            "app_version >= 2.3",
            "app_version >= 2.3.1",
            "app_version >= \"2.3.1\"",
            "app_version >= \"new\"",
            "os.version < 12%",
            "premium < true",
            "country",
            "not age and #vip",
        ],
        expect![[r#"
            age == "old"  =>  line 1, column 8: expected a number because age is a number
            age < true  =>  line 1, column 7: expected a number because age is a number
            age == v2  =>  line 1, column 8: expected a number because age is a number
            country == 46  =>  line 1, column 12: expected a string because country is a string (did you mean `"46"`?)
            country == true  =>  line 1, column 12: expected a string because country is a string (did you mean `"true"`?)
            country == SE  =>  line 1, column 12: expected a string, in quotes, because country is a string (did you mean `"SE"`?)
            country == “SE”  =>  line 1, column 12: expected a string, in quotes, because country is a string (did you mean `"SE"`?)
            country in (SE, "KE", NO)  =>  line 1, column 13: expected a string, in quotes, because country is a string (did you mean `"SE"`?); line 1, column 23: expected a string, in quotes, because country is a string (did you mean `"NO"`?)
            premium == 1  =>  line 1, column 12: expected a bool because premium is a bool
            premium == True  =>  line 1, column 12: expected a bool because premium is a bool (did you mean `true`?)
            app_version >= 2.3  =>  line 1, column 16: expected a version because app_version is a version (did you mean `v2.3`?)
            app_version >= 2.3.1  =>  line 1, column 16: expected a version because app_version is a version (did you mean `v2.3.1`?)
            app_version >= "2.3.1"  =>  line 1, column 16: expected a version because app_version is a version (did you mean `v2.3.1`?)
            app_version >= "new"  =>  line 1, column 16: expected a version because app_version is a version
            os.version < 12%  =>  line 1, column 14: expected a version because os.version is a version
            premium < true  =>  line 1, column 9: expected `==` or `!=` because premium is a bool
            country  =>  line 1, column 1: expected a comparison because country is a string and no condition by itself (did you mean `has country`?)
            not age and #vip  =>  line 1, column 5: expected a comparison because age is a number and no condition by itself (did you mean `has age`?)
        "#]],
    );
}

#[test]
fn a_number_out_of_range_is_refused() {
    check(
        "age < 1e999",
        DiagnosticKind::NumberOutOfRange,
        expect![[r#"
        error: this number is out of range: at most 1.7976931348623157e308
         --> line 1, column 7
          |
        1 | age < 1e999
          |       ^^^^^
    "#]],
    );
    check_messages(
        &["app_version < v1.2.3.4.5", "app_version < v4294967296", "age > -1e309"],
        expect![[r#"
            app_version < v1.2.3.4.5  =>  line 1, column 15: a version has at most 4 components
            app_version < v4294967296  =>  line 1, column 15: a component of a version is at most 4294967295
            age > -1e309  =>  line 1, column 7: this number is out of range: at most 1.7976931348623157e308
        "#]],
    );
}

#[test]
fn all_names_and_types_are_checked_before_the_answer() {
    let source = "contry == \"SE\"\n  or #vpi and age == \"old\"\n  or premium >= true";
    let faults = fail(source);
    expect![[r#"
        error: unknown attribute `contry`
         --> line 1, column 1
          |
        1 | contry == "SE"
          | ^^^^^^
          = help: did you mean `country`?

        error: unknown group `#vpi`
         --> line 2, column 6
          |
        2 |   or #vpi and age == "old"
          |      ^^^^
          = help: did you mean `#vip`?

        error: expected a number because age is a number
         --> line 2, column 22
          |
        2 |   or #vpi and age == "old"
          |                      ^^^^^

        error: expected `==` or `!=` because premium is a bool
         --> line 3, column 14
          |
        3 |   or premium >= true
          |              ^^
    "#]]
    .assert_eq(&faults.render(source));
    expect!["line 1, column 1: unknown attribute `contry` (did you mean `country`?); line 2, column 6: unknown group `#vpi` (did you mean `#vip`?); line 2, column 22: expected a number because age is a number; line 3, column 14: expected `==` or `!=` because premium is a bool"].assert_eq(&faults.to_string());
}

#[test]
fn at_most_100_faults_are_told() {
    let source = vec!["zebra"; 1_000].join(" or ");
    assert_eq!(fail(&source).as_slice().len(), 100);
}

#[test]
fn syntax_errors_say_what_was_expected() {
    check(
        "country == \"SE\" age > 3",
        DiagnosticKind::Syntax,
        expect![[r#"
        error: expected `and` or `or`, found `age`
         --> line 1, column 17
          |
        1 | country == "SE" age > 3
          |                 ^^^
    "#]],
    );
    check_messages(
        &[
            "",
            "   ",
            "and",
            "#vip and",
            "#vip or )",
            "#vip or or #staff",
            "not",
            "( )",
            "true",
            "\"SE\" == country",
            "country =",
            "country ==",
            "country == and",
            "country == (",
            "country in",
            "country in \"SE\"",
            "country in (",
            "country in ()",
            "country in (\"SE\"",
            "country in (\"SE\" \"KE\")",
            "country in (\"SE\",)",
            "country not",
            "country not \"SE\"",
            "country ~ \"SE\"",
            "country all",
            "has",
            "has has",
            "has #vip",
            "has (country)",
            "#",
            "# vip",
            "#vip #staff",
            "#vip !",
            "#vip % 3",
            ":1234",
            "-1 < age",
            "'SE' == country",
            "country in ('SE' 'KE', 'NO')",
            "age < -",
            "country == \u{7}",
        ],
        expect![[r#"
              =>  line 1, column 1: expected a condition such as `country == "SE"`, `has country`, `#group` or `all`, found the end
                 =>  line 1, column 4: expected a condition such as `country == "SE"`, `has country`, `#group` or `all`, found the end
            and  =>  line 1, column 1: expected a condition such as `country == "SE"`, `has country`, `#group` or `all`, found `and`
            #vip and  =>  line 1, column 9: expected a condition such as `country == "SE"`, `has country`, `#group` or `all`, found the end
            #vip or )  =>  line 1, column 9: expected a condition such as `country == "SE"`, `has country`, `#group` or `all`, found `)`
            #vip or or #staff  =>  line 1, column 9: expected a condition such as `country == "SE"`, `has country`, `#group` or `all`, found `or`
            not  =>  line 1, column 4: expected a condition such as `country == "SE"`, `has country`, `#group` or `all`, found the end
            ( )  =>  line 1, column 3: expected a condition such as `country == "SE"`, `has country`, `#group` or `all`, found `)`
            true  =>  line 1, column 1: expected a condition such as `country == "SE"`, `has country`, `#group` or `all`, found `true`
            "SE" == country  =>  line 1, column 1: a comparison begins with an attribute, as in `country == "SE"`
            country =  =>  line 1, column 9: equality is written `==` (did you mean `==`?)
            country ==  =>  line 1, column 11: expected a value ("text", a number, `true`, `false` or a version such as `v2.3`), found the end
            country == and  =>  line 1, column 12: expected a value ("text", a number, `true`, `false` or a version such as `v2.3`), found `and`
            country == (  =>  line 1, column 12: expected a value ("text", a number, `true`, `false` or a version such as `v2.3`), found `(`
            country in  =>  line 1, column 11: expected `(` and a list of values, found the end
            country in "SE"  =>  line 1, column 12: expected `(` and a list of values, found `"SE"`
            country in (  =>  line 1, column 13: expected a value ("text", a number, `true`, `false` or a version such as `v2.3`), found the end
            country in ()  =>  line 1, column 13: expected a value ("text", a number, `true`, `false` or a version such as `v2.3`), found `)`
            country in ("SE"  =>  line 1, column 17: expected `,` or `)`, found the end
            country in ("SE" "KE")  =>  line 1, column 18: expected `,` or `)`, found `"KE"`
            country in ("SE",)  =>  line 1, column 18: expected a value ("text", a number, `true`, `false` or a version such as `v2.3`), found `)`
            country not  =>  line 1, column 12: expected `in` after `not`, found the end
            country not "SE"  =>  line 1, column 13: expected `in` after `not`, found `"SE"`
            country ~ "SE"  =>  line 1, column 9: expected a comparison (`==`, `!=`, `<`, `<=`, `>`, `>=`, `in`), `and` or `or`, found `~`
            country all  =>  line 1, column 9: expected a comparison (`==`, `!=`, `<`, `<=`, `>`, `>=`, `in`), `and` or `or`, found `all`
            has  =>  line 1, column 4: expected the name of an attribute, found the end
            has has  =>  line 1, column 5: expected the name of an attribute, found `has`
            has #vip  =>  line 1, column 5: expected the name of an attribute, found `#`
            has (country)  =>  line 1, column 5: expected the name of an attribute, found `(`
            #  =>  line 1, column 1: expected the name of a group right after `#`
            # vip  =>  line 1, column 1: expected the name of a group right after `#`
            #vip #staff  =>  line 1, column 6: expected `and` or `or`, found `#`
            #vip !  =>  line 1, column 6: expected `and` or `or`, found `!`
            #vip % 3  =>  line 1, column 6: expected `and` or `or`, found `%`
            :1234  =>  line 1, column 1: expected a condition such as `country == "SE"`, `has country`, `#group` or `all`, found `:`
            -1 < age  =>  line 1, column 1: a comparison begins with an attribute, as in `country == "SE"`
            'SE' == country  =>  line 1, column 1: a comparison begins with an attribute, as in `country == "SE"`
            country in ('SE' 'KE', 'NO')  =>  line 1, column 18: expected `,` or `)`, found `'KE'`
            age < -  =>  line 1, column 7: expected a number because age is a number
            country == ·  =>  line 1, column 12: expected a value ("text", a number, `true`, `false` or a version such as `v2.3`), found `�`
        "#]],
    );
}

#[test]
fn common_slips_suggest_the_right_spelling() {
    check(
        "country = \"SE\"",
        DiagnosticKind::Syntax,
        expect![[r#"
        error: equality is written `==`
         --> line 1, column 9
          |
        1 | country = "SE"
          |         ^
          = help: did you mean `==`?
    "#]],
    );
    check_messages(
        &[
            "age => 3",
            "age =< 3",
            "age <> 3",
            "age === 3",
            "#vip & #staff",
            "#vip | #staff",
            "#vip AND #staff",
            "NOT country == \"SE\"",
            "country IN (\"SE\")",
        ],
        expect![[r#"
            age => 3  =>  line 1, column 5: at least is written `>=` (did you mean `>=`?)
            age =< 3  =>  line 1, column 5: at most is written `<=` (did you mean `<=`?)
            age <> 3  =>  line 1, column 5: inequality is written `!=` (did you mean `!=`?)
            age === 3  =>  line 1, column 7: equality is written `==` (did you mean `==`?)
            #vip & #staff  =>  line 1, column 6: `and` is written `and` or `&&` (did you mean `and`?)
            #vip | #staff  =>  line 1, column 6: `or` is written `or` or `||` (did you mean `or`?)
            #vip AND #staff  =>  line 1, column 6: `and` is written in lower case (did you mean `and`?)
            NOT country == "SE"  =>  line 1, column 1: `not` is written in lower case (did you mean `not`?)
            country IN ("SE")  =>  line 1, column 9: `in` is written in lower case (did you mean `in`?)
        "#]],
    );
}

#[test]
fn strings_must_be_closed_on_their_line_and_well_escaped() {
    check(
        "country == \"SE\n or #vip",
        DiagnosticKind::Syntax,
        expect![[r#"
        error: this string is never closed
         --> line 1, column 12
          |
        1 | country == "SE
          |            ^^^
    "#]],
    );
    check_messages(
        &[
            "country == '",
            "country == \"a\\",
            "country == \"a\\\"",
            r#"country == "a\q""#,
            r#"country == "a\u{}""#,
            r#"country == "a\u{110000}""#,
            r#"country == "a\u{d800}""#,
            r#"country == "a\u{1234567}""#,
            r#"country == "a\u12""#,
            "country == \"a\u{1}b\"",
            "country == \"a\\\u{1}b\"",
        ],
        expect![[r#"
            country == '  =>  line 1, column 12: this string is never closed
            country == "a\  =>  line 1, column 12: this string is never closed
            country == "a\"  =>  line 1, column 12: this string is never closed
            country == "a\q"  =>  line 1, column 14: unknown escape; there are `\"`, `\'`, `\\`, `\n`, `\t` and `\u{..}`
            country == "a\u{}"  =>  line 1, column 14: expected the hexadecimal number of a character, as in `\u{e5}`
            country == "a\u{110000}"  =>  line 1, column 14: expected the hexadecimal number of a character, as in `\u{e5}`
            country == "a\u{d800}"  =>  line 1, column 14: expected the hexadecimal number of a character, as in `\u{e5}`
            country == "a\u{1234567}"  =>  line 1, column 14: expected the hexadecimal number of a character, as in `\u{e5}`
            country == "a\u12"  =>  line 1, column 14: expected the hexadecimal number of a character, as in `\u{e5}`
            country == "a·b"  =>  line 1, column 14: a control character in a string is written `\u{..}`
            country == "a\·b"  =>  line 1, column 14: unknown escape; there are `\"`, `\'`, `\\`, `\n`, `\t` and `\u{..}`
        "#]],
    );
}

#[test]
fn parentheses_must_match() {
    check(
        "(#vip or (#staff)",
        DiagnosticKind::Syntax,
        expect![[r#"
        error: this `(` is never closed
         --> line 1, column 1
          |
        1 | (#vip or (#staff)
          | ^
    "#]],
    );
    check(
        "#vip) or #staff",
        DiagnosticKind::Syntax,
        expect![[r#"
        error: this `)` closes nothing
         --> line 1, column 5
          |
        1 | #vip) or #staff
          |     ^
    "#]],
    );
}

#[test]
fn each_limit_has_its_own_error() {
    let with = |source: &str, limits: Limits| {
        let faults = Expression::parse(source, &App, &limits).unwrap_err();
        (faults.as_slice()[0].kind, faults.render(source))
    };
    let limits = Limits { bytes_max: 20, nodes_max: 4, depth_max: 3 };

    let (kind, text) = with("#vip or #staff or äge", limits);
    assert_eq!(kind, DiagnosticKind::TooLong);
    expect![[r#"
        error: the expression is too long: 22 bytes, at most 20
         --> line 1, column 20
          |
        1 | #vip or #staff or äge
          |                    ^^
    "#]]
    .assert_eq(&text);

    let (kind, text) = with("age in (1,2,3,4)", limits);
    assert_eq!(kind, DiagnosticKind::TooManyNodes);
    expect![[r#"
        error: the expression has too many nodes (operators, tests and list entries): 5, at most 4
         --> line 1, column 1
          |
        1 | age in (1,2,3,4)
          | ^^^^^^^^^^^^^^^^
    "#]]
    .assert_eq(&text);

    let (kind, text) = with("not (not (#vip))", limits);
    assert_eq!(kind, DiagnosticKind::TooDeep);
    expect![[r#"
        error: the expression is nested too deep: at most 3 parentheses and `not`s within each other
         --> line 1, column 10
          |
        1 | not (not (#vip))
          |          ^
    "#]]
    .assert_eq(&text);

    assert!(Expression::parse("not (not #vip)", &App, &limits).is_ok());
    assert!(Expression::parse("age in (1,2,3)", &App, &limits).is_ok());
}

#[test]
fn a_place_counts_bytes_lines_and_characters() {
    let source = "country == \"åäö\"\r\n\tand \"x\"";
    let faults = fail(source);
    let fault = &faults.as_slice()[0];
    assert_eq!(&source[fault.span.clone()], "\"x\"");
    assert_eq!((fault.line, fault.column), (2, 6));
    let source = "country == \"åäö\" or agr > 3";
    let fault = &fail(source).into_vec()[0];
    assert_eq!((fault.span.clone(), fault.line, fault.column), (23..26, 1, 21));
    assert_eq!(fault.suggestion.as_deref(), Some("age"));
}

#[test]
fn a_long_line_is_cut_around_the_fault() {
    let source = format!("{}agr > 3{}", "#vip or ".repeat(50), " or #staff".repeat(50));
    check(
        &source,
        DiagnosticKind::UnknownAttribute,
        expect![[r#"
        error: unknown attribute `agr`
         --> line 1, column 401
          |
        1 | …#vip or #vip or #vip or #vip or #vip or agr > 3 or #staff or #staff or #staff or #staff or #staff or…
          |                                          ^^^
          = help: did you mean `age`?
    "#]],
    );
}

#[test]
fn rendering_never_panics_whatever_source_it_is_given() {
    let fault = fail("country == \"åäö\" or agr > 3").into_vec().remove(0);
    for source in ["", "å", "åååååååååååååååååå", "\n\n\n", "country == \"å"] {
        assert!(fault.render(source).contains("unknown attribute"));
    }
}

#[test]
fn what_a_suggestion_says_mends_the_text() {
    for source in [
        "contry == \"SE\"",
        "#vpi",
        "age == \"42\"",
        "country == SE",
        "app_version >= \"2.3.1\"",
        "app_version >= 2.3.1",
        "premium == \"TRUE\"",
        "country",
        "country = \"SE\"",
        "#vip AND #staff",
        "NOT premium",
    ] {
        let fault = fail(source).into_vec().remove(0);
        let mut mended = source.to_owned();
        mended.replace_range(fault.span.clone(), &fault.suggestion.expect("a suggestion"));
        parse(&mended);
    }
}
