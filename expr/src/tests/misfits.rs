//! Errors of operators that do not fit a type and of values that do not fit their place, with their exact
//! text.

use expect_test::expect;

use super::errors::{check, check_messages, fail};
use crate::DiagnosticKind;

#[test]
fn an_operator_must_fit_the_type() {
    check(
        "age starts_with \"4\"",
        DiagnosticKind::WrongType,
        expect![[r#"
        error: expected `==`, `!=`, `<`, `<=`, `>`, `>=`, `in` or `between` because age is a number
         --> expression:1:5
          |
        1 | age starts_with "4"
          |     ^^^^^^^^^^^
    "#]],
    );
    check_messages(
        &[
            "home == 1",
            "home",
            "tags == \"a\"",
            "tags in (\"a\")",
            "tags",
            "country any (\"a\")",
            "premium between true and false",
            "country within 7d",
            "age not contains \"4\"",
            "age contains \"4\" ignoring case",
            "age == 4 ignoring case",
            "country < \"a\" ignoring case",
            "country between \"a\" and \"b\" ignoring case",
            "local_time(utc_offset) in (09:00)",
            "local_day(utc_offset) > mon",
            "local_time(utc_offset)",
            "local_time(country) > 09:00",
            "near(country, 1, 2, 3km)",
            "user > 3",
            "last_seen == \"x\"",
            "has user and user",
        ],
        expect![[r#"
            home == 1  =>  line 1, column 6: home is a point: use `near(home, 59.33, 18.07, 5km)`
            home  =>  line 1, column 1: expected a comparison because home is a point and no condition by itself (did you mean `has home`?)
            tags == "a"  =>  line 1, column 6: expected `any`, `all`, `none` or `contains` because tags is a set
            tags in ("a")  =>  line 1, column 6: expected `any`, `all`, `none` or `contains` because tags is a set
            tags  =>  line 1, column 1: expected a comparison because tags is a set and no condition by itself (did you mean `has tags`?)
            country any ("a")  =>  line 1, column 9: expected `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `between`, `starts_with`, `ends_with`, `contains` or `matches` because country is a string
            premium between true and false  =>  line 1, column 9: expected `==`, `!=` or `in` because premium is a bool
            country within 7d  =>  line 1, column 9: expected `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `between`, `starts_with`, `ends_with`, `contains` or `matches` because country is a string
            age not contains "4"  =>  line 1, column 5: expected `==`, `!=`, `<`, `<=`, `>`, `>=`, `in` or `between` because age is a number
            age contains "4" ignoring case  =>  line 1, column 5: expected `==`, `!=`, `<`, `<=`, `>`, `>=`, `in` or `between` because age is a number; line 1, column 18: only a string can be compared ignoring case, and age is a number
            age == 4 ignoring case  =>  line 1, column 10: only a string can be compared ignoring case, and age is a number
            country < "a" ignoring case  =>  line 1, column 15: an order of strings cannot ignore case
            country between "a" and "b" ignoring case  =>  line 1, column 29: an order of strings cannot ignore case
            local_time(utc_offset) in (09:00)  =>  line 1, column 1: expected `==`, `!=`, `<`, `<=`, `>`, `>=` or `between` after `local_time`
            local_day(utc_offset) > mon  =>  line 1, column 1: expected `==`, `!=` or `in` after `local_day`
            local_time(utc_offset)  =>  line 1, column 1: expected a comparison because local_time is no condition by itself
            local_time(country) > 09:00  =>  line 1, column 12: expected the name of an attribute that is a number, and country is a string
            near(country, 1, 2, 3km)  =>  line 1, column 6: expected the name of an attribute that is a point, and country is a string
            user > 3  =>  line 1, column 8: expected a string because user is a string (did you mean `"3"`?)
            last_seen == "x"  =>  line 1, column 14: expected a time such as `2026-11-21T07:30:00Z`, because last_seen is a time
            has user and user  =>  line 1, column 14: expected a comparison because user is a string and no condition by itself (did you mean `has user`?)
        "#]],
    );
}

#[test]
fn a_value_must_fit_where_it_stands() {
    check(
        "signed_up < 2026-01-31",
        DiagnosticKind::WrongType,
        expect![[r#"
        error: expected a time such as `2026-11-21T07:30:00Z`, because signed_up is a time
         --> expression:1:13
          |
        1 | signed_up < 2026-01-31
          |             ^^^^^^^^^^
          |
          = help: did you mean `2026-01-31T00:00:00Z`?
    "#]],
    );
    check_messages(
        &[
            "birthday == 2026-02-30",
            "birthday == 0000-01-01",
            "birthday == \"2026-01-31\"",
            "birthday == 2026-01-31T07:30:00Z",
            "birthday within 12h",
            "birthday > now - 12h",
            "birthday in (now)",
            "age > now",
            "signed_up > now - 7x",
            "signed_up > now -",
            "signed_up > 2026-01-31T25:00:00Z",
            "signed_up within 7",
            "signed_up within tomorrow",
            "signed_up within 99999d",
            "signed_up within next",
            "age between 30 and 18",
            "age between 18",
            "age between 18 or 30",
            "local_time(utc_offset) > 25:00",
            "local_time(utc_offset) > \"09:00\"",
            "local_day(utc_offset) == Monday",
            "sample(110%)",
            "sample(1.23456%)",
            "sample(10)",
            "sample(10%, salt)",
            "sample(10%",
            "near(91, 0, 5km)",
            "near(0, 181, 5km)",
            "near(0, 0, 5mi)",
            "near(0, 0, 50000km)",
            "near(0, x, 5km)",
            "near(home 0, 0, 5km)",
            "device(\"12\")",
            "device(#vip)",
            "device()",
            "country matches \"a\\\\\"",
            "country == \"a\\u{0}\"",
            "tags any \"a\"",
            "country contains \"a\" ignoring",
            "country contains \"a\" ignoring cases",
            "country startswith \"S\"",
            "country not startswith \"S\"",
            "country STARTS_WITH \"S\"",
            "/* never closed",
            "#vip /* never closed",
            "@nordic,",
        ],
        expect![[r#"
            birthday == 2026-02-30  =>  line 1, column 13: there is no such day or hour
            birthday == 0000-01-01  =>  line 1, column 13: a year is from 0001 to 9999
            birthday == "2026-01-31"  =>  line 1, column 13: expected a date such as `2026-11-21`, because birthday is a date (did you mean `2026-01-31`?)
            birthday == 2026-01-31T07:30:00Z  =>  line 1, column 13: expected a date such as `2026-11-21`, because birthday is a date (did you mean `2026-01-31`?)
            birthday within 12h  =>  line 1, column 17: expected whole days, such as `7d`, because birthday is a date
            birthday > now - 12h  =>  line 1, column 12: expected whole days, such as `now - 7d`, because birthday is a date
            birthday in (now)  =>  line 1, column 14: `now` cannot stand in a list
            age > now  =>  line 1, column 7: expected a number because age is a number
            signed_up > now - 7x  =>  line 1, column 19: expected a duration such as `7d`, found `7x`
            signed_up > now -  =>  line 1, column 18: expected a duration such as `7d`, found the end
            signed_up > 2026-01-31T25:00:00Z  =>  line 1, column 13: expected a time such as `2026-11-21T07:30:00Z`, because signed_up is a time
            signed_up within 7  =>  line 1, column 18: expected a duration such as `7d`, `12h` or `30m`, found `7`
            signed_up within tomorrow  =>  line 1, column 18: expected a duration such as `7d`, `12h` or `30m`, found `tomorrow`
            signed_up within 99999d  =>  line 1, column 18: a duration is at most 36525d
            signed_up within next  =>  line 1, column 22: expected a duration such as `7d`, `12h` or `30m`, found the end
            age between 30 and 18  =>  line 1, column 13: the range is empty: 30 is more than 18 (did you mean `18 and 30`?)
            age between 18  =>  line 1, column 15: expected `and` and the upper end, found the end
            age between 18 or 30  =>  line 1, column 16: expected `and` and the upper end, found `or`; line 1, column 19: a comparison begins with an attribute, as in `country == "SE"`
            local_time(utc_offset) > 25:00  =>  line 1, column 26: expected a time of day such as `09:00`
            local_time(utc_offset) > "09:00"  =>  line 1, column 26: expected a time of day such as `09:00`
            local_day(utc_offset) == Monday  =>  line 1, column 26: expected a day: `mon`, `tue`, `wed`, `thu`, `fri`, `sat` or `sun` (did you mean `mon`?)
            sample(110%)  =>  line 1, column 8: a percentage is from 0% to 100%, with at most 4 decimals
            sample(1.23456%)  =>  line 1, column 8: a percentage is from 0% to 100%, with at most 4 decimals
            sample(10)  =>  line 1, column 8: expected a percentage such as `10%` or `0.5%`, found `10`
            sample(10%, salt)  =>  line 1, column 13: expected a string, the salt, found `salt`
            sample(10%  =>  line 1, column 11: expected `,` or `)`, found the end
            near(91, 0, 5km)  =>  line 1, column 6: expected a latitude in degrees such as `59.33`, from -90 to 90
            near(0, 181, 5km)  =>  line 1, column 9: expected a longitude in degrees such as `18.07`, from -180 to 180
            near(0, 0, 5mi)  =>  line 1, column 12: expected a distance such as `5km` or `800m`, found `5mi`
            near(0, 0, 50000km)  =>  line 1, column 12: a distance is at most 20100km, half around the Earth
            near(0, x, 5km)  =>  line 1, column 9: expected a longitude in degrees such as `18.07`, found `x`
            near(home 0, 0, 5km)  =>  line 1, column 11: expected `,`, found `0`
            device("12")  =>  line 1, column 8: expected the id of a device: 16 hexadecimal digits, found `"12"`
            device(#vip)  =>  line 1, column 8: expected the id of a device: 16 hexadecimal digits, found `#vip`
            device()  =>  line 1, column 8: expected the id of a device: 16 hexadecimal digits, found `)`
            country matches "a\\"  =>  line 1, column 17: a pattern ends with `\`, which takes the next character as it is
            country == "a\u{0}"  =>  line 1, column 14: the character `\u{0}` cannot stand in a string
            tags any "a"  =>  line 1, column 10: expected `(` and a list of values, found `"a"`
            country contains "a" ignoring  =>  line 1, column 30: expected `case` after `ignoring`, found the end
            country contains "a" ignoring cases  =>  line 1, column 31: expected `case` after `ignoring`, found `cases`
            country startswith "S"  =>  line 1, column 9: expected an operator (`==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `between`, `starts_with`, `ends_with`, `contains` or `matches`), `and` or `or`, found `startswith` (did you mean `starts_with`?)
            country not startswith "S"  =>  line 1, column 13: expected an operator such as `in` after `not`, found `startswith` (did you mean `starts_with`?)
            country STARTS_WITH "S"  =>  line 1, column 9: `starts_with` is written in lower case (did you mean `starts_with`?)
            /* never closed  =>  line 1, column 1: this comment is never closed
            #vip /* never closed  =>  line 1, column 6: this comment is never closed
            @nordic,  =>  line 1, column 8: expected `and` or `or`, found `,`
        "#]],
    );
    let long = format!("country matches \"{}\"", "a".repeat(256));
    assert_eq!(fail(&long).as_slice()[0].kind, DiagnosticKind::BadPattern);
    let long = format!("country contains \"{}\" ignoring case", "a".repeat(257));
    assert_eq!(fail(&long).as_slice()[0].kind, DiagnosticKind::BadPattern);
}
