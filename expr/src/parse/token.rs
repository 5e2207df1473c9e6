//! The tokens of a text.

use std::ops::Range;

use pest::Parser as _;

use crate::steps::step;
use crate::tree::index;

/// The grammar; pest generates the `Rule` of each line.
mod grammar {
    #[derive(Debug, pest_derive::Parser)]
    #[grammar = "grammar.pest"]
    pub(crate) struct Grammar;
}

use grammar::{Grammar, Rule};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    start: u32,
    end: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Word(Word),
    /// `:` and 16 digits.
    Id,
    Group,
    Audience,
    String,
    /// What begins like a number.
    Literal,
    /// A comparison, `!`, `&&`, `||`, or a slip for one.
    Operator,
    Open,
    Close,
    Comma,
    /// `-` or `+` by itself.
    Sign,
    /// A string or a comment that is never closed.
    Torn,
    /// Letters that no name has.
    Odd,
    Junk,
    End,
}

/// The words that can stand where a name can, but are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    And,
    Or,
    Not,
    In,
    Has,
    All,
    True,
    False,
    /// Any other: an attribute, a function, a word whose place tells what it is.
    Name,
}

impl Token {
    pub(crate) fn span(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(crate) fn is(self, word: Word) -> bool {
        self.kind == Kind::Word(word)
    }

    /// Whether a condition can begin with it.
    pub(crate) fn begins_operand(self) -> bool {
        match self.kind {
            Kind::Word(word) => matches!(word, Word::Not | Word::Has | Word::All | Word::Name),
            Kind::Id | Kind::Group | Kind::Audience | Kind::Open => true,
            _ => false,
        }
    }
}

/// The names of the grammar's rules.
#[cfg(test)]
pub(crate) fn token_rules() -> Vec<String> {
    Rule::all_rules().iter().map(|rule| format!("{rule:?}")).collect()
}

/// All tokens, and the end. One pass; `text` is at most 2^32 bytes.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let pairs = Grammar::parse(Rule::tokens, text).expect("any character is a token");
    let mut tokens = Vec::new();
    for pair in pairs {
        step(1);
        let kind = match pair.as_rule() {
            Rule::name => Kind::Word(word(pair.as_str())),
            Rule::id => Kind::Id,
            Rule::group => Kind::Group,
            Rule::audience => Kind::Audience,
            Rule::string => Kind::String,
            Rule::literal => Kind::Literal,
            Rule::operator => Kind::Operator,
            Rule::open => Kind::Open,
            Rule::close => Kind::Close,
            Rule::comma => Kind::Comma,
            Rule::sign => Kind::Sign,
            Rule::torn => Kind::Torn,
            Rule::odd => Kind::Odd,
            Rule::EOI => Kind::End,
            _ => Kind::Junk,
        };
        let span = pair.as_span();
        tokens.push(Token { kind, start: index(span.start()), end: index(span.end()) });
    }
    tokens
}

fn word(text: &str) -> Word {
    match text {
        "and" => Word::And,
        "or" => Word::Or,
        "not" => Word::Not,
        "in" => Word::In,
        "has" => Word::Has,
        "all" => Word::All,
        "true" => Word::True,
        "false" => Word::False,
        _ => Word::Name,
    }
}

/// Whether a character can belong to a word that somebody is typing.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
