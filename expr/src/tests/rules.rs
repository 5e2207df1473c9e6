//! Every rule of the grammar and every kind of fault has a text here, with exactly what it is read as or told; a rule or
//! kind that is added without one fails.

use std::collections::BTreeSet;

use expect_test::{Expect, expect};

use super::{App, parse};
use crate::parse::token_rules;
use crate::{DiagnosticKind, Expression, Limits};

const PAGE: &str = include_str!("../../../docs/expressions.md");

/// Texts of each rule of the page's grammar, by the rule's name.
const RULES: &[(&str, &[&str])] = &[
    ("expression", &["#vip or #staff", "#vip||#staff or all"]),
    (
        "conjunction",
        &["#vip and #staff", "#vip&&#staff and all", "#vip and #staff or all and #vip"],
    ),
    ("operand", &["not #vip", "! #vip", "(#vip)", "not (#vip or #staff)", "not not #vip"]),
    (
        "condition",
        &[
            "all",
            "#vip",
            "@nordic",
            "has country",
            "has user",
            "has last_seen",
            "device('00000000000000AB', 00000000000000ac)",
            "near(home, 59.3, -18, 5km)",
            "near(59.3, -18, 250m)",
            "sample(10%)",
            "sample(0.5%, 'salt')",
            "local_time(utc_offset) >= 09:00",
            "local_day(utc_offset) in (sat, sun)",
            "premium",
            "age > 3",
        ],
    ),
    ("name", &["country == 'SE'", "user == 'ann'", "last_seen > 2026-11-21T07:30:00Z"]),
    (
        "test",
        &[
            "country == 'SE'",
            "country != 'SE' ignoring case",
            "country in ('SE', 'NO')",
            "country not in ('SE') ignoring case",
            "age between 1 and 2",
            "age not between 1 and 2",
            "country starts_with 'S'",
            "country not ends_with 'E'",
            "country contains 'x' ignoring case",
            "country matches 'S*?'",
            "tags any ('a')",
            "tags all ('a', 'b')",
            "tags not none ('a')",
            "tags contains 'a'",
            "signed_up within 7d",
            "signed_up not within last 7d",
            "birthday within next 2w",
            "local_time(utc_offset) between 22:00 and 06:00",
        ],
    ),
    ("comparison", &["age == 1", "age != 1", "age < 1", "age <= 1", "age > 1", "age >= 1"]),
    ("folding", &["country == 'Å' ignoring case"]),
    ("list", &["age in (1)", "age in (2, 1, 1)"]),
    (
        "value",
        &[
            "country == 'SE'",
            "age == 1",
            "premium == true",
            "premium != false",
            "app_version == v2",
            "birthday == 2026-11-21",
            "signed_up == 2026-11-21T07:30:00Z",
            "local_time(utc_offset) < 23:59",
            "local_day(utc_offset) in (mon)",
            "signed_up > now",
            "signed_up > now - 7d",
            "birthday < now + 1w",
        ],
    ),
    ("attribute", &["has in-app", "has os.version", "has :a000000000000000"]),
    ("identifier", &["has utc_offset"]),
    ("part", &["os.version == v1"]),
    ("group", &["#vip", "#:b000000000000000"]),
    ("audience", &["@nordic", "@:c000000000000000"]),
    ("label", &["#team:a/b", "#v2.3", "#and"]),
    ("label start", &["@team/a"]),
    ("id", &["#:B000000000000001"]),
    (
        "device",
        &["device(\"00000000000000ab\")", "device('00000000000000ab')", "device(00000000000000ab)"],
    ),
    ("string", &["country == \"it's\"", "country == 'a \"b\"'", "country == ''"]),
    ("escape", &[r#"country == "\"\'\\\n\t\u{e5}\u{1F600}""#]),
    ("number", &["age == -1", "age == 1.50", "age == 1e3", "age == -2.5E-1", "age == 1e+2"]),
    ("version", &["app_version == v1.2.3.4", "app_version == v10"]),
    ("date", &["birthday == 0001-01-01"]),
    ("time", &["signed_up == 2026-11-21T07:30Z", "signed_up == 2026-11-21T07:30:15.5+02:00"]),
    ("clock", &["local_time(utc_offset) == 00:00"]),
    ("day", &["local_day(utc_offset) in (mon, tue, wed, thu, fri, sat, sun)"]),
    (
        "duration",
        &[
            "signed_up within 30s",
            "signed_up within 5m",
            "signed_up within 12h",
            "signed_up within 7d",
            "signed_up within 2w",
        ],
    ),
    ("distance", &["near(0, 0, 500m)", "near(0, 0, 1.5km)"]),
    ("percentage", &["sample(12.5%, 'x')"]),
    ("digits", &["age == 007"]),
    ("comment", &["all // to the end", "all /* between */ and /* ( */ #vip"]),
];

#[test]
fn every_rule_of_the_page_is_read_as_it_says() {
    let (_, grammar) = PAGE.split_once("```ebnf\n").unwrap();
    let (grammar, _) = grammar.split_once("```").unwrap();
    let named = grammar.lines().filter_map(|line| Some(line.split_once(" = ")?.0));
    let named: BTreeSet<&str> = named.filter(|name| !name.starts_with(' ')).collect();
    let shown: BTreeSet<&str> = RULES.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, shown, "rules of the page, and those with texts here");
    let mut lines = String::new();
    for (name, texts) in RULES {
        lines.push_str(&format!("{name}\n"));
        for text in *texts {
            lines.push_str(&format!("    {text}  =>  {}\n", parse(text).to_text(&App)));
        }
    }
    expect![[r#"
        expression
            #vip or #staff  =>  #vip or #staff
            #vip||#staff or all  =>  #vip or #staff or all
        conjunction
            #vip and #staff  =>  #vip and #staff
            #vip&&#staff and all  =>  #vip and #staff and all
            #vip and #staff or all and #vip  =>  #vip and #staff or all and #vip
        operand
            not #vip  =>  not #vip
            ! #vip  =>  not #vip
            (#vip)  =>  #vip
            not (#vip or #staff)  =>  not (#vip or #staff)
            not not #vip  =>  not not #vip
        condition
            all  =>  all
            #vip  =>  #vip
            @nordic  =>  @nordic
            has country  =>  has country
            has user  =>  has user
            has last_seen  =>  has last_seen
            device('00000000000000AB', 00000000000000ac)  =>  device("00000000000000ab", "00000000000000ac")
            near(home, 59.3, -18, 5km)  =>  near(home, 59.3, -18, 5km)
            near(59.3, -18, 250m)  =>  near(home, 59.3, -18, 250m)
            sample(10%)  =>  sample(10%)
            sample(0.5%, 'salt')  =>  sample(0.5%, "salt")
            local_time(utc_offset) >= 09:00  =>  local_time(utc_offset) >= 09:00
            local_day(utc_offset) in (sat, sun)  =>  local_day(utc_offset) in (sat, sun)
            premium  =>  premium
            age > 3  =>  age > 3
        name
            country == 'SE'  =>  country == "SE"
            user == 'ann'  =>  user == "ann"
            last_seen > 2026-11-21T07:30:00Z  =>  last_seen > 2026-11-21T07:30:00Z
        test
            country == 'SE'  =>  country == "SE"
            country != 'SE' ignoring case  =>  country not in ("se") ignoring case
            country in ('SE', 'NO')  =>  country in ("NO", "SE")
            country not in ('SE') ignoring case  =>  country not in ("se") ignoring case
            age between 1 and 2  =>  age between 1 and 2
            age not between 1 and 2  =>  age not between 1 and 2
            country starts_with 'S'  =>  country starts_with "S"
            country not ends_with 'E'  =>  country not ends_with "E"
            country contains 'x' ignoring case  =>  country contains "x" ignoring case
            country matches 'S*?'  =>  country matches "S*?"
            tags any ('a')  =>  tags any ("a")
            tags all ('a', 'b')  =>  tags all ("a", "b")
            tags not none ('a')  =>  tags not none ("a")
            tags contains 'a'  =>  tags any ("a")
            signed_up within 7d  =>  signed_up within 7d
            signed_up not within last 7d  =>  signed_up not within 7d
            birthday within next 2w  =>  birthday within next 14d
            local_time(utc_offset) between 22:00 and 06:00  =>  local_time(utc_offset) between 22:00 and 06:00
        comparison
            age == 1  =>  age == 1
            age != 1  =>  age != 1
            age < 1  =>  age < 1
            age <= 1  =>  age <= 1
            age > 1  =>  age > 1
            age >= 1  =>  age >= 1
        folding
            country == 'Å' ignoring case  =>  country in ("å") ignoring case
        list
            age in (1)  =>  age in (1)
            age in (2, 1, 1)  =>  age in (1, 2)
        value
            country == 'SE'  =>  country == "SE"
            age == 1  =>  age == 1
            premium == true  =>  premium
            premium != false  =>  premium != false
            app_version == v2  =>  app_version == v2
            birthday == 2026-11-21  =>  birthday == 2026-11-21
            signed_up == 2026-11-21T07:30:00Z  =>  signed_up == 2026-11-21T07:30:00Z
            local_time(utc_offset) < 23:59  =>  local_time(utc_offset) < 23:59
            local_day(utc_offset) in (mon)  =>  local_day(utc_offset) in (mon)
            signed_up > now  =>  signed_up > now
            signed_up > now - 7d  =>  signed_up > now - 7d
            birthday < now + 1w  =>  birthday < now + 7d
        attribute
            has in-app  =>  has in-app
            has os.version  =>  has os.version
            has :a000000000000000  =>  has country
        identifier
            has utc_offset  =>  has utc_offset
        part
            os.version == v1  =>  os.version == v1
        group
            #vip  =>  #vip
            #:b000000000000000  =>  #vip
        audience
            @nordic  =>  @nordic
            @:c000000000000000  =>  @nordic
        label
            #team:a/b  =>  #team:a/b
            #v2.3  =>  #v2.3
            #and  =>  #and
        label start
            @team/a  =>  @team/a
        id
            #:B000000000000001  =>  #staff
        device
            device("00000000000000ab")  =>  device("00000000000000ab")
            device('00000000000000ab')  =>  device("00000000000000ab")
            device(00000000000000ab)  =>  device("00000000000000ab")
        string
            country == "it's"  =>  country == "it's"
            country == 'a "b"'  =>  country == "a \"b\""
            country == ''  =>  country == ""
        escape
            country == "\"\'\\\n\t\u{e5}\u{1F600}"  =>  country == "\"'\\\n\tå😀"
        number
            age == -1  =>  age == -1
            age == 1.50  =>  age == 1.5
            age == 1e3  =>  age == 1000
            age == -2.5E-1  =>  age == -0.25
            age == 1e+2  =>  age == 100
        version
            app_version == v1.2.3.4  =>  app_version == v1.2.3.4
            app_version == v10  =>  app_version == v10
        date
            birthday == 0001-01-01  =>  birthday == 0001-01-01
        time
            signed_up == 2026-11-21T07:30Z  =>  signed_up == 2026-11-21T07:30:00Z
            signed_up == 2026-11-21T07:30:15.5+02:00  =>  signed_up == 2026-11-21T05:30:15.500Z
        clock
            local_time(utc_offset) == 00:00  =>  local_time(utc_offset) == 00:00
        day
            local_day(utc_offset) in (mon, tue, wed, thu, fri, sat, sun)  =>  local_day(utc_offset) in (mon, tue, wed, thu, fri, sat, sun)
        duration
            signed_up within 30s  =>  signed_up within 30s
            signed_up within 5m  =>  signed_up within 5m
            signed_up within 12h  =>  signed_up within 12h
            signed_up within 7d  =>  signed_up within 7d
            signed_up within 2w  =>  signed_up within 14d
        distance
            near(0, 0, 500m)  =>  near(home, 0, 0, 500m)
            near(0, 0, 1.5km)  =>  near(home, 0, 0, 1500m)
        percentage
            sample(12.5%, 'x')  =>  sample(12.5%, "x")
        digits
            age == 007  =>  age == 7
        comment
            all // to the end  =>  all
            all /* between */ and /* ( */ #vip  =>  all and #vip
    "#]].assert_eq(&lines);
}

/// A text for each rule of the tokens, with the tokens that are made of it.
const TOKENS: &[(&str, &str)] = &[
    ("tokens", "a (b"),
    ("token", "a"),
    ("WHITESPACE", " \t\r\n\u{a0}\u{feff}a"),
    ("COMMENT", "a // b\nc /* d */ e"),
    ("string", "\"a\\\"b\" 'c\"'"),
    ("torn", "a \"b"),
    ("group", "#vip #:00000000000000ab #a:/b.c-d"),
    ("audience", "@vip @:00000000000000AB"),
    ("id", ":00000000000000ab"),
    ("hex_id", ":00000000000000ab1"),
    ("label", "#a::b"),
    ("label_start", "#-a"),
    ("operator", "=== == => =< = <= <> < >= > != ! && & || |"),
    ("open", "(("),
    ("close", "))"),
    ("comma", ",,"),
    ("sign", "now - 7d + x"),
    ("literal", "42 -1.5e-3 10% 5km 7d 2026-11-21T07:30:00.5+01:00 09:00"),
    ("literal_char", "1-a 1:b"),
    ("name", "country in-app os.version _x v2.3"),
    ("name_start", "_ a"),
    ("word", "a_1"),
    ("odd", "“SE” é1"),
    ("junk", "$ \\ ; .a"),
];

#[test]
fn every_rule_of_the_tokens_makes_the_tokens_that_it_says() {
    let named: BTreeSet<String> = token_rules().into_iter().filter(|name| name != "EOI").collect();
    let shown: BTreeSet<String> = TOKENS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(named, shown, "rules of grammar.pest, and those with texts here");
    let mut lines = String::new();
    for (name, text) in TOKENS {
        let tokens = crate::parse::tokens(text);
        let made = tokens.iter().map(|token| format!("{:?} `{}`", token.kind, &text[token.span()]));
        let made: Vec<String> = made.collect();
        lines.push_str(&format!("{name}: {}\n", made.join(", ").escape_debug()));
    }
    expect![[r#"
        tokens: Word(Name) `a`, Open `(`, Word(Name) `b`, End ``
        token: Word(Name) `a`, End ``
        WHITESPACE: Word(Name) `a`, End ``
        COMMENT: Word(Name) `a`, Word(Name) `c`, Word(Name) `e`, End ``
        string: String `\"a\\\"b\"`, String `\'c\"\'`, End ``
        torn: Word(Name) `a`, Torn `\"b`, End ``
        group: Group `#vip`, Group `#:00000000000000ab`, Group `#a:/b.c-d`, End ``
        audience: Audience `@vip`, Audience `@:00000000000000AB`, End ``
        id: Id `:00000000000000ab`, End ``
        hex_id: Junk `:`, Literal `00000000000000ab1`, End ``
        label: Group `#a::b`, End ``
        label_start: Group `#-a`, End ``
        operator: Operator `===`, Operator `==`, Operator `=>`, Operator `=<`, Operator `=`, Operator `<=`, Operator `<>`, Operator `<`, Operator `>=`, Operator `>`, Operator `!=`, Operator `!`, Operator `&&`, Operator `&`, Operator `||`, Operator `|`, End ``
        open: Open `(`, Open `(`, End ``
        close: Close `)`, Close `)`, End ``
        comma: Comma `,`, Comma `,`, End ``
        sign: Word(Name) `now`, Sign `-`, Literal `7d`, Sign `+`, Word(Name) `x`, End ``
        literal: Literal `42`, Literal `-1.5e-3`, Literal `10%`, Literal `5km`, Literal `7d`, Literal `2026-11-21T07:30:00.5+01:00`, Literal `09:00`, End ``
        literal_char: Literal `1`, Sign `-`, Word(Name) `a`, Literal `1`, Junk `:`, Word(Name) `b`, End ``
        name: Word(Name) `country`, Word(Name) `in-app`, Word(Name) `os.version`, Word(Name) `_x`, Word(Name) `v2.3`, End ``
        name_start: Word(Name) `_`, Word(Name) `a`, End ``
        word: Word(Name) `a_1`, End ``
        odd: Odd `“SE”`, Odd `é1`, End ``
        junk: Junk `$`, Junk `\\`, Junk `;`, Junk `.`, Word(Name) `a`, End ``
    "#]].assert_eq(&lines);
}

/// A text that has such a fault; for some under limits of its own.
const fn example(kind: DiagnosticKind) -> &'static str {
    match kind {
        DiagnosticKind::Syntax => "#vip and",
        DiagnosticKind::UnknownAttribute => "contry == 'SE'",
        DiagnosticKind::UnknownGroup => "#vpi",
        DiagnosticKind::UnknownAudience => "@nordci",
        DiagnosticKind::AudienceCycle => "#vip or @engaged",
        DiagnosticKind::AudienceTooDeep => "@team/a",
        DiagnosticKind::WrongType => "age == '3'",
        DiagnosticKind::NumberOutOfRange => "age > 1e999",
        DiagnosticKind::EmptyRange => "age between 2 and 1",
        DiagnosticKind::BadPattern => "country matches 'a\\\\'",
        DiagnosticKind::TooLong => "country == 'a text of some length'",
        DiagnosticKind::TooManyNodes => "#vip or #staff",
        DiagnosticKind::TooDeep => "not (not #vip)",
    }
}

const KINDS: [DiagnosticKind; 13] = [
    DiagnosticKind::Syntax,
    DiagnosticKind::UnknownAttribute,
    DiagnosticKind::UnknownGroup,
    DiagnosticKind::UnknownAudience,
    DiagnosticKind::AudienceCycle,
    DiagnosticKind::AudienceTooDeep,
    DiagnosticKind::WrongType,
    DiagnosticKind::NumberOutOfRange,
    DiagnosticKind::EmptyRange,
    DiagnosticKind::BadPattern,
    DiagnosticKind::TooLong,
    DiagnosticKind::TooManyNodes,
    DiagnosticKind::TooDeep,
];

fn check_kinds(expected: Expect) {
    let mut all = String::new();
    for kind in KINDS {
        let (text, mut limits) = (example(kind), Limits::default());
        match kind {
            DiagnosticKind::TooLong => limits.bytes_max = 20,
            DiagnosticKind::TooManyNodes => limits.nodes_max = 2,
            DiagnosticKind::TooDeep => limits.depth_max = 2,
            DiagnosticKind::AudienceTooDeep => limits.audience_depth_max = 1,
            _ => {}
        }
        let read = match kind {
            // The one that `@engaged` stands for.
            DiagnosticKind::AudienceCycle => {
                Expression::parse_audience(super::audience_id(1), text, &App, &limits)
            }
            _ => Expression::parse(text, &App, &limits),
        };
        let faults = read.unwrap_err();
        assert!(faults.as_slice().iter().all(|fault| fault.kind == kind), "{faults:?}");
        all.push_str(&format!("{kind}\n{}\n", faults.render(text)));
    }
    expected.assert_eq(&all);
}

#[test]
fn every_kind_of_fault_is_told_as_it_says() {
    // A kind that is added has no arm in `example`, which does not compile; and must be in the list.
    let declared =
        include_str!("../diagnostic.rs").split_once("pub enum DiagnosticKind {").unwrap().1;
    let declared = declared.split_once("\n}").unwrap().0.lines();
    let declared = declared.filter(|line| line.ends_with(',') && !line.contains("///")).count();
    assert_eq!(declared, KINDS.len());
    check_kinds(expect![[r#"
        syntax
        error: expected a condition such as `country == "SE"`, `has country`, `#group` or `all`, found the end
         --> expression:1:9
          |
        1 | #vip and
          |         ^

        unknown_attribute
        error: unknown attribute `contry`
         --> expression:1:1
          |
        1 | contry == 'SE'
          | ^^^^^^
          |
          = help: did you mean `country`?

        unknown_group
        error: unknown group `#vpi`
         --> expression:1:1
          |
        1 | #vpi
          | ^^^^
          |
          = help: did you mean `#vip`?

        unknown_audience
        error: unknown audience `@nordci`
         --> expression:1:1
          |
        1 | @nordci
          | ^^^^^^^
          |
          = help: did you mean `@nordic`?

        audience_cycle
        error: an audience cannot refer to itself
         --> expression:1:9
          |
        1 | #vip or @engaged
          |         ^^^^^^^^

        audience_too_deep
        error: audiences are nested too deep: at most 1 within each other
         --> expression:1:1
          |
        1 | @team/a
          | ^^^^^^^

        wrong_type
        error: expected a number because age is a number
         --> expression:1:8
          |
        1 | age == '3'
          |        ^^^
          |
          = help: did you mean `3`?

        number_out_of_range
        error: this number is out of range: at most 1.7976931348623157e308
         --> expression:1:7
          |
        1 | age > 1e999
          |       ^^^^^

        empty_range
        error: the range is empty: 2 is more than 1
         --> expression:1:13
          |
        1 | age between 2 and 1
          |             ^^^^^^^
          |
          = help: did you mean `1 and 2`?

        bad_pattern
        error: a pattern ends with `\`, which takes the next character as it is
         --> expression:1:17
          |
        1 | country matches 'a\\'
          |                 ^^^^^

        too_long
        error: the expression is too long: 34 bytes, at most 20
         --> expression:1:21
          |
        1 | country == 'a text of some length'
          |                     ^^^^^^^^^^^^^^

        too_many_nodes
        error: the expression has too many nodes (operators, tests and list entries): 3, at most 2
         --> expression:1:1
          |
        1 | #vip or #staff
          | ^^^^^^^^^^^^^^

        too_deep
        error: the expression is nested too deep: at most 2 parentheses and `not`s within each other
         --> expression:1:6
          |
        1 | not (not #vip)
          |      ^^^

    "#]]);
}
