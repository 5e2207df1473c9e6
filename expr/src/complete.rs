//! What may come next: the parser reads the text up to the word at the cursor and says what it would
//! take there.

use std::ops::Range;

use serde::Serialize;

use crate::calendar::WEEKDAYS;
use crate::diagnostic::{floor_boundary, utf16_len};
use crate::parse::{FUNCTIONS, Kind, Parser, Slot, Wanted, tokens};
use crate::print::Printer;
use crate::{Limits, Schema, Type, Value, valid_attribute_name};

/// The most suggestions of one answer.
const SUGGESTIONS_MAX: usize = 200;

/// Names looked at for one answer, so that a million groups cannot stall it.
const LOOKED_AT_MAX: usize = 100_000;

/// What may be written at a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Completion {
    /// What a suggestion takes the place of: the word that has been begun, in bytes.
    pub span: Range<usize>,
    /// The same in UTF-16 code units.
    pub span_utf16: Range<usize>,
    /// By kind, then by how many devices have it, then by name; at most 200.
    pub suggestions: Vec<Suggestion>,
}

/// One thing that may be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    pub text: String,
    pub kind: SuggestionKind,
    /// The type of an attribute.
    pub detail: Option<Type>,
    /// How many devices have the value, if that is known.
    pub count: Option<u64>,
}

/// What sort of thing it is; they are listed in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SuggestionKind {
    Value,
    Operator,
    Attribute,
    Group,
    Audience,
    Function,
    Word,
}

/// What may come at byte `cursor` of a text. What stands after the cursor is not looked at.
#[must_use]
pub fn complete(text: &str, cursor: usize, schema: &dyn Schema, limits: &Limits) -> Completion {
    let cursor = floor_boundary(text, cursor);
    let before = &text[..cursor];
    if before.len() > limits.bytes_max {
        return completion(text, cursor..cursor, Vec::new());
    }
    let tokens = tokens(before);
    let last = tokens.len().checked_sub(2).map(|at| tokens[at]);
    let begun = last.filter(|token| token.span().end == cursor);
    let start = match begun {
        Some(token) => match token.kind {
            Kind::Torn if before[token.span()].starts_with('/') => {
                return completion(text, cursor..cursor, Vec::new());
            }
            Kind::Word(_)
            | Kind::Id
            | Kind::Group
            | Kind::Audience
            | Kind::Literal
            | Kind::Torn => token.span().start,
            Kind::Junk if matches!(&before[token.span()], "#" | "@") => token.span().start,
            _ => cursor,
        },
        None => cursor,
    };
    let mut finder = Finder { schema, begun: &before[start..], found: Vec::new() };
    let wanted = Parser::new(&before[..start], schema, limits, None).wanted_at_end();
    wanted.into_iter().for_each(|wanted| finder.offer_all(wanted));
    let mut found = finder.found;
    found.sort_by(|a, b| {
        let key = |s: &Suggestion| (s.kind, std::cmp::Reverse(s.count));
        key(a).cmp(&key(b)).then_with(|| a.text.cmp(&b.text))
    });
    found.dedup();
    found.truncate(SUGGESTIONS_MAX);
    completion(text, start..cursor, found)
}

fn completion(text: &str, span: Range<usize>, suggestions: Vec<Suggestion>) -> Completion {
    let start = utf16_len(&text[..span.start]);
    let span_utf16 = start..start + utf16_len(&text[span.clone()]);
    Completion { span, span_utf16, suggestions }
}

struct Finder<'a> {
    schema: &'a dyn Schema,
    begun: &'a str,
    found: Vec<Suggestion>,
}

impl Finder<'_> {
    fn offer_all(&mut self, wanted: Wanted) {
        use SuggestionKind::{Function, Operator, Value as Literal, Word as Plain};
        match wanted {
            Wanted::Condition => {
                self.attributes(None);
                self.names();
                self.words(Plain, &["all", "has", "not", "("]);
                self.words(SuggestionKind::Attribute, &["last_seen", "user"]);
                for function in FUNCTIONS {
                    self.offer(&format!("{function}("), Function, None, None);
                }
            }
            Wanted::Joint => self.words(Plain, &["and", "or"]),
            Wanted::Attribute(kind) => {
                self.attributes(kind);
                if kind.is_none() {
                    self.words(SuggestionKind::Attribute, &["last_seen", "user"]);
                }
            }
            Wanted::Operator(slot) => {
                self.words(Operator, slot.operators());
                if !slot.operators().is_empty() {
                    self.words(Operator, &["not"]);
                }
            }
            Wanted::OperatorAfterNot(slot) => {
                let words = slot.operators().iter().filter(|operator| operator.len() > 2);
                words.for_each(|word| self.words(Operator, &[word]));
                self.words(Operator, &["in"]);
            }
            Wanted::Value(slot) => self.values(slot),
            Wanted::Duration => self.words(Literal, &["1h", "24h", "7d", "30d", "next"]),
            Wanted::Offset => self.words(Literal, &["1h", "24h", "7d", "30d"]),
            Wanted::OffsetSign => self.words(Operator, &["-", "+"]),
            Wanted::ListOpen | Wanted::ArgumentsOpen => self.words(Plain, &["("]),
            Wanted::CommaOrClose => self.words(Plain, &[",", ")"]),
            Wanted::Close => self.words(Plain, &[")"]),
            Wanted::Comma => self.words(Plain, &[","]),
            Wanted::BetweenAnd => self.words(Plain, &["and"]),
            Wanted::Ignoring => self.words(Plain, &["ignoring case"]),
            Wanted::Case => self.words(Plain, &["case"]),
            Wanted::Percentage => self.words(Literal, &["1%", "10%", "50%"]),
            Wanted::Radius => self.words(Literal, &["1km", "5km", "25km"]),
            Wanted::DeviceId | Wanted::Latitude | Wanted::Longitude | Wanted::Salt => {}
        }
    }

    fn words(&mut self, kind: SuggestionKind, words: &[&str]) {
        for word in words {
            self.offer(word, kind, None, None);
        }
    }

    fn attributes(&mut self, wanted: Option<Type>) {
        let schema = self.schema;
        let mut looked_at = 0;
        schema.visit_attribute_names(&mut |name| {
            looked_at += 1;
            if looked_at > LOOKED_AT_MAX || !valid_attribute_name(name) {
                return;
            }
            let kind = schema.attribute(name).map(|(_, kind)| kind);
            if wanted.is_none() || wanted == kind {
                self.offer(name, SuggestionKind::Attribute, kind, None);
            }
        });
    }

    fn names(&mut self) {
        let schema = self.schema;
        let mut looked_at = 0;
        schema.visit_group_names(&mut |name| {
            looked_at += 1;
            if looked_at <= LOOKED_AT_MAX {
                self.offer(&format!("#{name}"), SuggestionKind::Group, None, None);
            }
        });
        schema.visit_audience_names(&mut |name| {
            looked_at += 1;
            if looked_at <= LOOKED_AT_MAX {
                self.offer(&format!("@{name}"), SuggestionKind::Audience, None, None);
            }
        });
    }

    fn values(&mut self, slot: Slot) {
        let fixed: &[&str] = match (slot, slot.kind()) {
            (Slot::LocalDay, _) => &WEEKDAYS,
            (_, Some(Type::Bool)) => &["true", "false"],
            (_, Some(Type::Time | Type::Date)) => &["now"],
            _ => &[],
        };
        self.words(SuggestionKind::Value, fixed);
        let Slot::Attribute(id, kind) = slot else { return };
        if kind == Type::Bool {
            return;
        }
        let schema = self.schema;
        let mut looked_at = 0;
        schema.visit_values(id, &mut |value, count| {
            looked_at += 1;
            if looked_at > LOOKED_AT_MAX {
                return;
            }
            let mut printer = Printer::new(None);
            match value {
                Value::Set(set) => {
                    for entry in set.entries() {
                        let entry = Value::String(entry.clone());
                        let mut printer = Printer::new(None);
                        printer.value(&entry);
                        self.offer(&printer.out, SuggestionKind::Value, None, Some(count));
                    }
                    return;
                }
                value => printer.value(value),
            }
            self.offer(&printer.out, SuggestionKind::Value, None, Some(count));
        });
    }

    /// Keeps what goes on as the word was begun; a quote of either kind begins a string.
    fn offer(
        &mut self,
        text: &str,
        kind: SuggestionKind,
        detail: Option<Type>,
        count: Option<u64>,
    ) {
        // Room for the best of more than will be shown, without keeping a million names.
        if self.found.len() >= LOOKED_AT_MAX {
            return;
        }
        let begun = self.begun.replacen('\'', "\"", 1);
        let fits = text.len() >= begun.len()
            && text.is_char_boundary(begun.len())
            && text[..begun.len()].to_lowercase() == begun.to_lowercase();
        if fits {
            let text = text.to_owned();
            self.found.push(Suggestion { text, kind, detail, count });
        }
    }
}
