//! The grammar of tokens takes a step or so a byte. A test of its own, because the counter is the parser library's,
//! which is one for the process.

use std::num::NonZeroUsize;

use carillon_expr::{AttributeId, Expression, GroupId, Limits, Schema, Type};

/// Nothing is declared: what is asked is how long it takes to know that.
struct Nothing;

impl Schema for Nothing {
    fn attribute(&self, _: &str) -> Option<(AttributeId, Type)> {
        None
    }

    fn attribute_name(&self, _: AttributeId) -> Option<(&str, Type)> {
        None
    }

    fn group(&self, _: &str) -> Option<GroupId> {
        None
    }

    fn group_name(&self, _: GroupId) -> Option<&str> {
        None
    }

    fn visit_attribute_names(&self, _: &mut dyn FnMut(&str)) {}

    fn visit_group_names(&self, _: &mut dyn FnMut(&str)) {}
}

/// Calls of the library for a byte of text, of the worst of texts.
const CALLS_OF_A_BYTE: usize = 120;

/// The tokenizer panics when a limit of calls ends it, since otherwise it never fails.
#[test]
fn tokens_take_linear_time() {
    let n = 20_000;
    let pieces = [
        "(",
        ")",
        ",",
        "\"",
        "'",
        "\\",
        "\"\\\"",
        "'\\'",
        "a",
        "a.",
        "a-",
        "a.-",
        "1",
        "1.",
        "1-",
        "-",
        "+",
        "-1",
        "1e+",
        "#",
        "#a",
        "#:",
        "@:0",
        "@",
        ":",
        ":0000000000000000",
        ":000000000000000",
        "/",
        "/*",
        "/* */",
        "//",
        "// \n",
        "*/",
        "=",
        "==",
        "!",
        "!=",
        "<",
        "<>",
        "=<",
        "&",
        "&&",
        "|",
        "||",
        " ",
        "\n",
        "\u{a0}",
        "é",
        "é1",
        "\u{10FFFF}",
        "\u{1}",
        "%",
        "5km ",
        "not ",
        "a b ",
        "2026-11-21T07:30:00Z ",
        "09:00 ",
        "\"é\" ",
        "$",
        "#:0000000000000000",
        "/**",
        "/*/",
    ];
    for piece in pieces {
        for before in ["", "\"", "/*", "a == ", "#"] {
            let text = format!("{before}{}", piece.repeat(n / piece.len()));
            let limits = Limits { bytes_max: usize::MAX, ..Limits::default() };
            pest::set_call_limit(NonZeroUsize::new(text.len() * CALLS_OF_A_BYTE));
            let read = Expression::parse(&text, &Nothing, &limits);
            assert!(read.is_err(), "nothing is declared");
        }
    }
    pest::set_call_limit(NonZeroUsize::new(10));
    let outcome =
        std::panic::catch_unwind(|| Expression::parse("all and all", &Nothing, &Limits::default()));
    assert!(outcome.is_err(), "the counter counts");
}
