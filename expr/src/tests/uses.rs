//! What is done with an expression besides evaluating it: explanation, completion, SQL, differences,
//! samples, and knowing that it depends on the clock.

use std::borrow::Cow;

use expect_test::{Expect, expect};
use roaring::RoaringBitmap;

use super::{App, Device, context, number, parse, set, text};
use crate::{
    Columns, Context, Dialect, Expression, Limits, Profile, SqlError, SuggestionKind, complete,
    sample_hash_of,
};

#[test]
fn an_explanation_shows_every_part_and_what_it_saw() {
    let device = Device { id: 7, user: Some("ann".into()), ..Device::default() }
        .with("country", text("SE"))
        .with("age", number(28.0))
        .with("tags", set(&["news"]))
        .member("vip");
    let expression = parse(
        "@team/a and not (#staff or @nordic) or tags all (\"news\", \"sport\") and sample(50%)
         or user == \"ann\" and score > 3 or last_seen within 7d",
    );
    let explained = expression.explain(&device, &context(), &App);
    assert!(!explained.matches);
    expect![[r#"
        unknown  or
        false      and
        true         @team/a
        true           or
        true             and
        true               @nordic
        true                 country in ("FI", "NO", "SE")    [country is "SE"]
        true               or
        true                 #vip
        false                age > 30    [age is 28]
        unknown          @engaged
        unknown            and
        unknown              last_seen within 7d    [last_seen is missing, now is 2026-11-21T07:30:00Z]
        true                 not
        false                  #staff
        false        not
        true           or
        false            #staff
        true             @nordic
        false      and
        false        tags all ("news", "sport")    [tags is ("news")]
        false        sample(50%)    [device is "0000000000000007", message is "000000000000feed"]
        unknown    and
        true         user == "ann"    [user is "ann"]
        unknown      score > 3    [score is missing]
        unknown    last_seen within 7d    [last_seen is missing, now is 2026-11-21T07:30:00Z]
    "#]].assert_eq(&explained.to_string());
    expect![[r#"[{"depth":0,"text":"or","truth":"unknown","saw":[]},{"depth":1,"text":"and","truth":"false","saw":[]},{"depth":2,"text":"@team/a","truth":"true","saw":[]}]"#]].assert_eq(&serde_json::to_string(&explained.parts[..3]).unwrap());
}

#[test]
fn an_explanation_cuts_long_values_between_characters() {
    let entries: Vec<String> = (0..200).map(|n| format!("é{n:0>20}")).collect();
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let device = Device::default().with("tags", set(&entries)).with("country", text("SE"));
    let explained =
        parse("tags any (\"x\") or country == \"SE\"").explain(&device, &context(), &App);
    let shown = explained.parts[1].saw[0].value.as_deref().unwrap();
    assert!((1_022..=1_027).contains(&shown.len()), "{} bytes", shown.len());
    assert!(shown.starts_with("(\"é000") && shown.ends_with('…'), "{shown}");
    assert_eq!(explained.parts[2].saw[0].value.as_deref(), Some("\"SE\""));
}

/// The text with `|` at the cursor, then what is suggested.
fn check_completion(source: &str, expected: Expect) {
    let cursor = source.find('|').unwrap();
    let text = source.replacen('|', "", 1);
    let completion = complete(&text, cursor, &App, &Limits::default());
    let mut lines = format!("{:?}\n", &text[completion.span.clone()]);
    for suggestion in &completion.suggestions {
        let count = suggestion.count.map_or(String::new(), |count| format!(" {count}"));
        let detail = suggestion.detail.map_or(String::new(), |kind| format!(" {kind}"));
        lines.push_str(&format!("{:?} {}{detail}{count}\n", suggestion.kind, suggestion.text));
    }
    expected.assert_eq(&lines);
}

#[test]
fn completion_knows_what_may_come() {
    check_completion(
        "|",
        expect![[r#"
        ""
        Attribute age number
        Attribute app_version version
        Attribute birthday date
        Attribute country string
        Attribute home point
        Attribute in-app bool
        Attribute last_seen
        Attribute os.version version
        Attribute platform string
        Attribute premium bool
        Attribute score number
        Attribute signed_up time
        Attribute tags set
        Attribute user
        Attribute utc_offset number
        Group #and
        Group #staff
        Group #team:a/b
        Group #v2.3
        Group #vip
        Audience @engaged
        Audience @nordic
        Audience @team/a
        Function device(
        Function local_day(
        Function local_time(
        Function near(
        Function sample(
        Word (
        Word all
        Word has
        Word not
    "#]],
    );
    check_completion(
        "not (co|untry",
        expect![[r#"
        "co"
        Attribute country string
    "#]],
    );
    check_completion(
        "country |",
        expect![[r#"
        ""
        Operator !=
        Operator <
        Operator <=
        Operator ==
        Operator >
        Operator >=
        Operator between
        Operator contains
        Operator ends_with
        Operator in
        Operator matches
        Operator not
        Operator starts_with
    "#]],
    );
    check_completion(
        "country not |",
        expect![[r#"
        ""
        Operator between
        Operator contains
        Operator ends_with
        Operator in
        Operator matches
        Operator starts_with
    "#]],
    );
    check_completion(
        "country == |",
        expect![[r#"
        ""
        Value "KE" 900
        Value "SE" 700
        Value "NO" 30
    "#]],
    );
    check_completion(
        "country in (\"SE\", '|",
        expect![[r#"
        "'"
        Value "KE" 900
        Value "SE" 700
        Value "NO" 30
    "#]],
    );
    check_completion(
        "country in (\"SE\" |",
        expect![[r#"
        ""
        Word )
        Word ,
    "#]],
    );
    check_completion(
        "country == \"SE\" |",
        expect![[r#"
        ""
        Word and
        Word ignoring case
        Word or
    "#]],
    );
    check_completion(
        "premium |",
        expect![[r#"
        ""
        Operator !=
        Operator ==
        Operator in
        Operator not
        Word and
        Word or
    "#]],
    );
    check_completion(
        "tags |",
        expect![[r#"
        ""
        Operator all
        Operator any
        Operator contains
        Operator none
        Operator not
    "#]],
    );
    check_completion(
        "#vip and #s|",
        expect![[r##"
        "#s"
        Group #staff
    "##]],
    );
    check_completion(
        "@|",
        expect![[r#"
        "@"
        Audience @engaged
        Audience @nordic
        Audience @team/a
    "#]],
    );
    check_completion(
        "has |",
        expect![[r#"
        ""
        Attribute age number
        Attribute app_version version
        Attribute birthday date
        Attribute country string
        Attribute home point
        Attribute in-app bool
        Attribute last_seen
        Attribute os.version version
        Attribute platform string
        Attribute premium bool
        Attribute score number
        Attribute signed_up time
        Attribute tags set
        Attribute user
        Attribute utc_offset number
    "#]],
    );
    check_completion(
        "signed_up within |",
        expect![[r#"
        ""
        Value 1h
        Value 24h
        Value 30d
        Value 7d
        Value next
    "#]],
    );
    check_completion(
        "signed_up > |",
        expect![[r#"
        ""
        Value now
    "#]],
    );
    check_completion(
        "age between 3 |",
        expect![[r#"
        ""
        Word and
    "#]],
    );
    check_completion(
        "local_time(|",
        expect![[r#"
        ""
        Attribute age number
        Attribute score number
        Attribute utc_offset number
    "#]],
    );
    check_completion(
        "local_day(utc_offset) == |",
        expect![[r#"
        ""
        Value fri
        Value mon
        Value sat
        Value sun
        Value thu
        Value tue
        Value wed
    "#]],
    );
    check_completion(
        "near(|",
        expect![[r#"
        ""
        Attribute home point
    "#]],
    );
    check_completion(
        "sample(|",
        expect![[r#"
        ""
        Value 1%
        Value 10%
        Value 50%
    "#]],
    );
    check_completion(
        "this is wrong ) and pre|",
        expect![[r#"
        "pre"
        Attribute premium bool
    "#]],
    );
    check_completion(
        "#vip // and |",
        expect![[r#"
        ""
        Word and
        Word or
    "#]],
    );
    check_completion(
        "/* #vip |",
        expect![[r#"
        ""
    "#]],
    );
}

#[test]
fn a_completed_word_is_what_the_parser_takes() {
    for (source, kind) in [
        ("pre|", SuggestionKind::Attribute),
        ("#sta|", SuggestionKind::Group),
        ("@nor|", SuggestionKind::Audience),
        ("country == S|", SuggestionKind::Value),
        ("country == \"S|", SuggestionKind::Value),
    ] {
        let cursor = source.len() - 1;
        let text = &source[..cursor];
        let completion = complete(text, cursor, &App, &Limits::default());
        for suggestion in completion.suggestions.iter().filter(|found| found.kind == kind) {
            let mut whole = text.to_owned();
            whole.replace_range(completion.span.clone(), &suggestion.text);
            parse(&whole);
        }
    }
    let utf16 = complete("country == '😀' and pr", 100, &App, &Limits::default());
    assert_eq!((utf16.span, utf16.span_utf16), (22..24, 20..22));
}

#[test]
fn sql_has_no_text_of_its_writer_outside_literals() {
    let check = |source: &str, maria: Expect, sqlite: Expect| {
        let expression = parse(source);
        maria.assert_eq(&expression.to_sql(Dialect::MariaDb, &context()).unwrap());
        sqlite.assert_eq(&expression.to_sql(Dialect::Sqlite, &context()).unwrap());
    };
    check(
        "country == \"x' OR 1=1 -- \\\\\" and not #vip",
        expect![[
            r#"((CAST(JSON_VALUE(d.attributes, '$."a000000000000000"') AS BINARY) = X'7827204F5220313D31202D2D205C') AND (NOT (LOCATE('"b000000000000000"', d.group_ids) > 0)))"#
        ]],
        expect![[
            r#"((json_extract(d.attributes, '$."a000000000000000"') = 'x'' OR 1=1 -- \') AND (NOT (instr(d.group_ids, '"b000000000000000"') > 0)))"#
        ]],
    );
    check(
        "user contains \"É'\" ignoring case",
        expect!["(LOCATE(X'C3A927', REPLACE(CAST(d.user_id AS BINARY), X'C389', X'C3A9')) > 0)"],
        expect!["(instr(REPLACE(d.user_id, 'É', 'é'), 'é''') > 0)"],
    );
    check(
        "app_version >= v2.3 or age in (1, 2.5)",
        expect![[
            r#"((CONCAT(LPAD(SUBSTRING_INDEX(SUBSTRING_INDEX(CONCAT(JSON_VALUE(d.attributes, '$."a000000000000006".v'), '.0.0.0'), '.', 1), '.', -1), 10, '0'), LPAD(SUBSTRING_INDEX(SUBSTRING_INDEX(CONCAT(JSON_VALUE(d.attributes, '$."a000000000000006".v'), '.0.0.0'), '.', 2), '.', -1), 10, '0'), LPAD(SUBSTRING_INDEX(SUBSTRING_INDEX(CONCAT(JSON_VALUE(d.attributes, '$."a000000000000006".v'), '.0.0.0'), '.', 3), '.', -1), 10, '0'), LPAD(SUBSTRING_INDEX(SUBSTRING_INDEX(CONCAT(JSON_VALUE(d.attributes, '$."a000000000000006".v'), '.0.0.0'), '.', 4), '.', -1), 10, '0')) >= '0000000002000000000300000000000000000000') OR (CAST(JSON_VALUE(d.attributes, '$."a000000000000002"') AS DOUBLE) IN (1e0, 2.5e0)))"#
        ]],
        expect![[
            r#"((CASE WHEN json_extract(d.attributes, '$."a000000000000006".v') IS NOT NULL THEN printf('%010d%010d%010d%010d', json_extract('[' || replace(json_extract(d.attributes, '$."a000000000000006".v'), '.', ',') || ']', '$[0]'), json_extract('[' || replace(json_extract(d.attributes, '$."a000000000000006".v'), '.', ',') || ']', '$[1]'), json_extract('[' || replace(json_extract(d.attributes, '$."a000000000000006".v'), '.', ',') || ']', '$[2]'), json_extract('[' || replace(json_extract(d.attributes, '$."a000000000000006".v'), '.', ',') || ']', '$[3]')) END >= '0000000002000000000300000000000000000000') OR (CAST(d.attributes -> '$."a000000000000002"' AS REAL) IN (CAST('1' AS REAL), CAST('2.5' AS REAL))))"#
        ]],
    );
    check(
        "near(59.33, -18.07, 5km) and sample(12.5%, \"a\")",
        expect![[
            r#"(((CAST(JSON_VALUE(d.attributes, '$."a00000000000000a".u[0]') AS SIGNED) - (520693896)) * (CAST(JSON_VALUE(d.attributes, '$."a00000000000000a".u[0]') AS SIGNED) - (520693896)) + (CAST(JSON_VALUE(d.attributes, '$."a00000000000000a".u[1]') AS SIGNED) - (-169887290)) * (CAST(JSON_VALUE(d.attributes, '$."a00000000000000a".u[1]') AS SIGNED) - (-169887290)) + (CAST(JSON_VALUE(d.attributes, '$."a00000000000000a".u[2]') AS SIGNED) - (923546252)) * (CAST(JSON_VALUE(d.attributes, '$."a00000000000000a".u[2]') AS SIGNED) - (923546252)) <= 710106219264) AND (LEFT(SHA2(CONCAT(X'636172696C6C6F6E2E73616D706C652E7631000000000000000161', UNHEX(LPAD(HEX(d.device), 16, '0'))), 256), 16) < '2000000000000000'))"#
        ]],
        expect![[
            r#"(((json_extract(d.attributes, '$."a00000000000000a".u[0]') - (520693896)) * (json_extract(d.attributes, '$."a00000000000000a".u[0]') - (520693896)) + (json_extract(d.attributes, '$."a00000000000000a".u[1]') - (-169887290)) * (json_extract(d.attributes, '$."a00000000000000a".u[1]') - (-169887290)) + (json_extract(d.attributes, '$."a00000000000000a".u[2]') - (923546252)) * (json_extract(d.attributes, '$."a00000000000000a".u[2]') - (923546252)) <= 710106219264) AND (carillon_sample(X'636172696C6C6F6E2E73616D706C652E7631000000000000000161', d.device) < '2000000000000000'))"#
        ]],
    );
    check(
        "tags all (\"a\", \"b\") and country matches \"a*[%?\"",
        expect![[
            r#"((CASE WHEN JSON_CONTAINS_PATH(d.attributes, 'one', '$."a00000000000000b".s') THEN EXISTS (SELECT 1 FROM JSON_TABLE(d.attributes, '$."a00000000000000b".s[*]' COLUMNS (entry LONGTEXT CHARACTER SET utf8mb4 PATH '$')) AS e WHERE CAST(e.entry AS BINARY) IN (X'61')) * EXISTS (SELECT 1 FROM JSON_TABLE(d.attributes, '$."a00000000000000b".s[*]' COLUMNS (entry LONGTEXT CHARACTER SET utf8mb4 PATH '$')) AS e WHERE CAST(e.entry AS BINARY) IN (X'62')) = 1 END) AND (CONVERT(CAST(JSON_VALUE(d.attributes, '$."a000000000000000"') AS BINARY) USING utf8mb4) COLLATE utf8mb4_bin LIKE CONVERT(X'61255B7C255F' USING utf8mb4) ESCAPE '|'))"#
        ]],
        expect![[
            r#"((CASE WHEN json_type(d.attributes, '$."a00000000000000b".s') IS NOT NULL THEN EXISTS (SELECT 1 FROM json_each(d.attributes, '$."a00000000000000b".s') AS e WHERE e.value IN ('a')) * EXISTS (SELECT 1 FROM json_each(d.attributes, '$."a00000000000000b".s') AS e WHERE e.value IN ('b')) = 1 END) AND (json_extract(d.attributes, '$."a000000000000000"') GLOB 'a*[[]%?'))"#
        ]],
    );
    check(
        "signed_up within 1d and birthday <= now - 3d",
        expect![[
            r#"((JSON_VALUE(d.attributes, '$."a000000000000009".t') BETWEEN '2026-11-20T07:30:00.000Z' AND '2026-11-21T07:30:00.000Z') AND (JSON_VALUE(d.attributes, '$."a000000000000008".d') <= '2026-11-18'))"#
        ]],
        expect![[
            r#"((json_extract(d.attributes, '$."a000000000000009".t') BETWEEN '2026-11-20T07:30:00.000Z' AND '2026-11-21T07:30:00.000Z') AND (json_extract(d.attributes, '$."a000000000000008".d') <= '2026-11-18'))"#
        ]],
    );
    check(
        "local_time(utc_offset) between 22:00 and 06:00",
        expect![[
            r#"(CASE WHEN CAST(JSON_VALUE(d.attributes, '$."a00000000000000c"') AS DOUBLE) > -1440 AND CAST(JSON_VALUE(d.attributes, '$."a00000000000000c"') AS DOUBLE) < 1440 AND CAST(JSON_VALUE(d.attributes, '$."a00000000000000c"') AS DOUBLE) = CAST(CAST(JSON_VALUE(d.attributes, '$."a00000000000000c"') AS DOUBLE) AS SIGNED) THEN (((CAST(CAST(JSON_VALUE(d.attributes, '$."a00000000000000c"') AS DOUBLE) AS SIGNED)) + 2045920770) MOD 1440 >= 1320 OR ((CAST(CAST(JSON_VALUE(d.attributes, '$."a00000000000000c"') AS DOUBLE) AS SIGNED)) + 2045920770) MOD 1440 <= 360) END)"#
        ]],
        expect![[
            r#"(CASE WHEN CAST(d.attributes -> '$."a00000000000000c"' AS REAL) > -1440 AND CAST(d.attributes -> '$."a00000000000000c"' AS REAL) < 1440 AND CAST(d.attributes -> '$."a00000000000000c"' AS REAL) = CAST(CAST(d.attributes -> '$."a00000000000000c"' AS REAL) AS INTEGER) THEN (((CAST(CAST(d.attributes -> '$."a00000000000000c"' AS REAL) AS INTEGER)) + 2045920770) % 1440 >= 1320 OR ((CAST(CAST(d.attributes -> '$."a00000000000000c"' AS REAL) AS INTEGER)) + 2045920770) % 1440 <= 360) END)"#
        ]],
    );
    check(
        "last_seen > now - 1h and @nordic",
        expect![[
            r#"((LEAST(d.last_seen, 1795246200000) > 1795242600000) AND (CAST(JSON_VALUE(d.attributes, '$."a000000000000000"') AS BINARY) IN (X'4649', X'4E4F', X'5345')))"#
        ]],
        expect![[
            r#"((min(d.last_seen, 1795246200000) > 1795242600000) AND (json_extract(d.attributes, '$."a000000000000000"') IN ('FI', 'NO', 'SE')))"#
        ]],
    );
}

#[test]
fn sql_of_long_chains_is_shallow_and_of_deep_ones_refused() {
    let source = vec!["#vip"; 5_000].join(" or #staff and ");
    let limits = Limits { bytes_max: 1 << 20, ..Limits::default() };
    let expression = Expression::parse(&source, &App, &limits).unwrap();
    let sql = expression.to_sql(Dialect::Sqlite, &context()).unwrap();
    let mut depth = 0_i32;
    let deepest = sql.bytes().map(|b| {
        depth += i32::from(b == b'(') - i32::from(b == b')');
        depth
    });
    assert!(deepest.max().unwrap() < 30);
    let deep = format!("{}#vip{}", "not (#vip and ".repeat(255), ")".repeat(255));
    let limits = Limits { depth_max: 512, ..Limits::default() };
    let deep = Expression::parse(&deep, &App, &limits).unwrap();
    assert!(deep.to_sql(Dialect::Sqlite, &context()).is_ok());
    let wide = format!("not (#vip or {} and ", ["#staff"; 8].join(" or "));
    let deep = format!("{}#vip{}", wide.repeat(255), ")".repeat(255));
    let deep = Expression::parse(&deep, &App, &limits).unwrap();
    assert_eq!(deep.to_sql(Dialect::Sqlite, &context()), Err(SqlError::TooDeep));
}

/// Each letter that is folded is a call around the others.
#[test]
fn sql_that_folds_every_letter_fits_alone_and_is_refused_where_it_would_be_too_deep() {
    let letters: String =
        (0x61..0x2000).filter_map(char::from_u32).filter(|c| c.is_alphabetic()).collect();
    let folds = format!("country in (\"{letters}\") ignoring case");
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    let sql = |source: &str| parse(source).to_sql(Dialect::Sqlite, &context());
    let alone = sql(&folds).unwrap();
    let found = |condition: &str| -> Option<bool> {
        let upper: String = letters.chars().map(|c| if c == 'a' { 'A' } else { c }).collect();
        let query = format!(
            "SELECT ({condition}) FROM (SELECT json_object('a000000000000000', ?1) AS attributes) AS d"
        );
        connection.query_row(&query, (upper,), |row| row.get(0)).unwrap()
    };
    assert_eq!(found(&alone), Some(true));
    let below = sql(&format!("{}{folds}", "not ".repeat(50))).unwrap();
    assert_eq!(found(&below), Some(true));
    assert_eq!(sql(&format!("{}{folds}", "not ".repeat(255))), Err(SqlError::TooDeep));
    assert_eq!(parse(&folds).to_sql(Dialect::MariaDb, &context()), Err(SqlError::TooDeep));
}

#[test]
fn what_looks_at_the_clock_is_volatile() {
    for (source, volatile) in [
        ("#vip and age > 3 and sample(10%)", false),
        ("last_seen within 7d", true),
        ("last_seen > 2026-01-01T00:00:00Z", true),
        ("has last_seen", true),
        ("signed_up within 7d", true),
        ("signed_up > 2026-01-01T00:00:00Z", false),
        ("signed_up > now", true),
        ("birthday between 2026-01-01 and now", true),
        ("local_time(utc_offset) > 09:00", true),
        ("local_day(utc_offset) == mon", true),
        ("@nordic", false),
        ("@team/a", true),
        // A constant decides.
        ("all or @team/a", false),
        ("not all and last_seen within 7d or #vip", false),
    ] {
        assert_eq!(parse(source).is_volatile(), volatile, "{source}");
    }
}

#[test]
fn an_expression_lists_its_audiences_and_what_they_refer_to() {
    let expression = parse("@team/a or #and");
    let ids = |names: &[&str]| {
        names.iter().map(|name| crate::Schema::audience(&App, name).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(expression.audiences(), ids(&["nordic", "engaged", "team/a"]));
    assert_eq!(expression.audience_depth(), 2);
    assert_eq!(parse("@nordic").audience_depth(), 1);
    assert_eq!(parse("#vip").audience_depth(), 0);
    let group = |name| crate::Schema::group(&App, name).unwrap();
    assert_eq!(expression.groups(), [group("vip"), group("staff"), group("and")]);
    assert_eq!(expression.attributes().len(), 2);
}

#[test]
fn equal_parts_are_run_once() {
    let part = "(#vip or age > 3 or #staff)";
    let twice = parse(&format!("{part} and premium or {part} and has score"));
    let device = Device::default().with("score", number(1.0));
    let (matches, steps) = twice.matches_counted(&device, &context());
    assert!(!matches);
    // Three steps for the part, and two to ask for its answer.
    assert_eq!(steps, 5);
    let folded = parse("all and (not all or #vip or #vip) and sample(100%)");
    assert_eq!(folded.matches_counted(&device, &context()).1, 1);
}

/// Device ids are those of the first rows, so that a vector names them.
#[test]
fn samples_follow_their_definition_bit_by_bit() {
    let prefix = |salt: &str| {
        [b"carillon.sample.v1", &(salt.len() as u64).to_be_bytes()[..], salt.as_bytes()].concat()
    };
    let mut vectors = String::new();
    for (salt, device) in [("", 0), ("salt", 1), ("salt", u64::MAX), ("å😀", 0xfeed)] {
        vectors.push_str(&format!(
            "{salt:?} {device:016x} {:016x}\n",
            sample_hash_of(&prefix(salt), device)
        ));
    }
    expect![[r#"
        "" 0000000000000000 653267fe9165e4ca
        "salt" 0000000000000001 be7d1d6722946eb4
        "salt" ffffffffffffffff 8ff743b22c960e32
        "å😀" 000000000000feed 435004c31391e4b5
    "#]]
    .assert_eq(&vectors);
    // A share is the part of the hashes below it, and a larger one holds a smaller one.
    let mut counts = [0; 3];
    for id in 0..20_000 {
        let device = Device { id, ..Device::default() };
        let within = ["sample(1%, \"x\")", "sample(10%, \"x\")", "sample(50%, \"x\")"]
            .map(|source| parse(source).matches(&device));
        assert!(within.is_sorted());
        within.iter().zip(&mut counts).for_each(|(yes, count)| *count += usize::from(*yes));
    }
    expect!["[203, 1992, 10024]"].assert_eq(&format!("{counts:?}"));
    // The default salt is the message's id, as its 16 digits.
    let named = parse("sample(50%, \"000000000000feed\")");
    let default = parse("sample(50%)");
    for id in 0..100 {
        let device = Device { id, ..Device::default() };
        assert_eq!(default.matches_in(&device, &context()), named.matches(&device));
    }
}

#[test]
fn a_difference_tells_gains_and_losses() {
    struct Rows(Vec<Device>);
    impl Columns for Rows {
        type Device = Device;
        fn all(&self) -> Cow<'_, RoaringBitmap> {
            Cow::Owned((0..self.0.len() as u32).collect())
        }
        fn device(&self, row: u32) -> Option<&Device> {
            self.0.get(row as usize)
        }
        fn row(&self, device: u64) -> Option<u32> {
            self.0.iter().position(|known| known.device_id() == Some(device)).map(|row| row as u32)
        }
    }
    let rows =
        Rows((0..10).map(|age| Device::default().with("age", number(f64::from(age)))).collect());
    let difference =
        parse("age < 5").difference(&parse("age between 2 and 7"), &rows, &Context::default());
    assert_eq!(difference.gains.iter().collect::<Vec<_>>(), [5, 6, 7]);
    assert_eq!(difference.losses.iter().collect::<Vec<_>>(), [0, 1]);
}
