//! What follows a term: an operator and its values, and whether they fit.

use std::sync::Arc;

use super::Parser;
use super::operand::{Read, Skip, Tail, Term, What};
use super::token::{Kind, Token, Word};
use super::wanted::{Slot, Wanted, a, or_list};
use crate::calendar::whole_days;
use crate::check::near_word;
use crate::diagnostic::{DiagnosticKind, excerpt};
use crate::eval::FOLDED_CHARS_MAX;
use crate::fold::fold;
use crate::glob::{GLOB_CHARS_MAX, Glob, GlobError};
use crate::tree::{Comparison, Hours, Operand, Place, Quantifier, Span, Subject, Test};
use crate::{AttributeId, Type, Value};

impl<'a> Parser<'a> {
    /// The operator and its values, where there is one.
    pub(super) fn tail(&mut self, term: &Term<'_>, negated: bool) -> Read<Tail> {
        let slot = term.slot;
        if negated {
            self.want(Wanted::OperatorAfterNot(slot));
        }
        let token = self.peek();
        let source = self.source(token);
        let word = match token.kind {
            Kind::Operator if !negated => return self.comparison(slot, token),
            Kind::Word(Word::In) => "in",
            Kind::Word(Word::All) => "all",
            Kind::Word(Word::Name) => self.operator_word(token, source),
            _ => "",
        };
        if !word.is_empty() {
            self.at += 1;
        }
        let tail = match word {
            "in" => Tail::In(self.list(slot)?),
            "between" => {
                let low = self.arg(slot)?;
                self.want(Wanted::BetweenAnd);
                let and = self.peek();
                if !and.is(Word::And) {
                    self.expected(and, Wanted::BetweenAnd);
                    return Err(Skip);
                }
                self.at += 1;
                Tail::Between(low, self.arg(slot)?)
            }
            // For a set, `contains` is `any` with one entry.
            "contains" if slot.kind() == Some(Type::Set) => {
                Tail::Entries(Quantifier::Any, vec![self.arg(slot)?])
            }
            "starts_with" => Tail::Text(Place::Start, self.arg(slot)?),
            "ends_with" => Tail::Text(Place::End, self.arg(slot)?),
            "contains" => Tail::Text(Place::Anywhere, self.arg(slot)?),
            "matches" => Tail::Matches(self.arg(slot)?),
            "any" => Tail::Entries(Quantifier::Any, self.list(slot)?),
            "all" => Tail::Entries(Quantifier::All, self.list(slot)?),
            "none" => Tail::Entries(Quantifier::None, self.list(slot)?),
            "within" => self.within()?,
            _ if negated => {
                self.ended |= token.kind == Kind::End;
                let suggestion = near_word(source, slot.operators());
                let found = match source {
                    "" => "the end".to_owned(),
                    source => format!("`{}`", excerpt(source)),
                };
                let message =
                    format!("expected an operator such as `in` after `not`, found {found}");
                self.faults.add(DiagnosticKind::Syntax, token.span(), message, suggestion);
                return Err(Skip);
            }
            _ if token.kind == Kind::Word(Word::Name) && !is_shouted_joint(source) => {
                let suggestion = near_word(source, slot.operators());
                let message = format!(
                    "expected an operator ({}), `and` or `or`, found `{}`",
                    or_list(slot.operators()),
                    excerpt(source)
                );
                self.faults.add(DiagnosticKind::Syntax, token.span(), message, suggestion);
                return Err(Skip);
            }
            _ => match token.kind {
                Kind::End | Kind::Close | Kind::Word(Word::And | Word::Or) => return Ok(None),
                Kind::Word(Word::Name) => return Ok(None),
                _ => {
                    self.expected(token, Wanted::Operator(slot));
                    return Err(Skip);
                }
            },
        };
        Ok(Some(tail))
    }

    /// The operator that a word is; one in upper case is told of and taken as meant.
    fn operator_word(&mut self, token: Token, source: &'a str) -> &'a str {
        const WORDS: [&str; 10] = [
            "in",
            "between",
            "starts_with",
            "ends_with",
            "contains",
            "matches",
            "any",
            "all",
            "none",
            "within",
        ];
        if WORDS.contains(&source) {
            return source;
        }
        // `AND` ends the condition; the caller tells.
        self.shouted(token, &WORDS).unwrap_or("")
    }

    fn comparison(&mut self, slot: Slot, token: Token) -> Read<Tail> {
        let source = self.source(token);
        let (symbol, slip) = match source {
            "=" | "===" => ("==", Some("equality is written `==`")),
            "=>" => (">=", Some("at least is written `>=`")),
            "=<" => ("<=", Some("at most is written `<=`")),
            "<>" => ("!=", Some("inequality is written `!=`")),
            _ => (source, None),
        };
        let Some(comparison) = Comparison::from_symbol(symbol) else {
            return self.no_comparison(slot, token);
        };
        if let Some(message) = slip {
            self.slip(token, message, symbol);
        }
        self.at += 1;
        Ok(Some(Tail::Compare(comparison, token, self.arg(slot)?)))
    }

    /// An operator that compares nothing: it joins, or is a fault.
    fn no_comparison(&mut self, slot: Slot, token: Token) -> Read<Tail> {
        if matches!(self.source(token), "&&" | "||" | "&" | "|") {
            return Ok(None);
        }
        self.expected(token, Wanted::Operator(slot));
        Err(Skip)
    }

    fn within(&mut self) -> Result<Tail, Skip> {
        self.want(Wanted::Duration);
        let token = self.peek();
        let ahead = match self.source(token) {
            "last" => Some(false),
            "next" => Some(true),
            _ => None,
        };
        self.at += usize::from(ahead.is_some());
        let token = self.peek();
        if token.kind != Kind::Literal {
            self.expected(token, Wanted::Duration);
            return Err(Skip);
        }
        self.at += 1;
        Ok(Tail::Within {
            ahead: ahead == Some(true),
            ms: self.duration(token),
            span: token.span(),
        })
    }

    /// `ignoring case` after a string.
    pub(super) fn ignoring_case(&mut self, term: &Term<'_>, tail: &Tail) -> Result<bool, Skip> {
        if term.slot.kind() == Some(Type::String) && !matches!(tail, Tail::Between(..)) {
            self.want(Wanted::Ignoring);
        }
        let ignoring = self.peek();
        if self.source(ignoring) != "ignoring" {
            return Ok(false);
        }
        self.at += 1;
        self.want(Wanted::Case);
        let case = self.peek();
        if self.source(case) != "case" {
            self.expected(case, Wanted::Case);
            return Err(Skip);
        }
        self.at += 1;
        let orders = match tail {
            Tail::Compare(comparison, ..) => comparison.is_order(),
            Tail::Between(..) => true,
            _ => false,
        };
        let Term { name, slot, .. } = term;
        let message = match slot.kind() {
            Some(Type::String) if orders => "an order of strings cannot ignore case".to_owned(),
            Some(Type::String) | None if !orders => return Ok(true),
            Some(kind) => {
                format!("only a string can be compared ignoring case, and {name} is {}", a(kind))
            }
            None => return Ok(true),
        };
        let span = ignoring.span().start..case.span().end;
        self.faults.add(DiagnosticKind::WrongType, span, message, None);
        Ok(true)
    }

    /// A term that stands alone.
    pub(super) fn flag(&mut self, term: &Term<'_>) -> Option<Test> {
        let What::Subject(subject) = term.what else {
            self.ended |= self.at_end();
            if !matches!(term.what, What::Unknown) {
                let message = format!(
                    "expected a comparison because {} is no condition by itself",
                    term.name
                );
                self.faults.add(DiagnosticKind::WrongType, term.span.clone(), message, None);
            }
            return None;
        };
        let kind = term.slot.kind()?;
        if kind == Type::Bool {
            let value = Operand::Value(Value::Bool(true));
            return Some(Test::Compare { subject, comparison: Comparison::Equal, value });
        }
        self.ended |= self.at_end();
        let message = format!(
            "expected a comparison because {} is {} and no condition by itself",
            term.name,
            a(kind)
        );
        let suggestion = Some(format!("has {}", &self.text[term.span.clone()]));
        self.faults.add(DiagnosticKind::WrongType, term.span.clone(), message, suggestion);
        None
    }

    /// The test, if operator and values fit the term.
    pub(super) fn checked(&mut self, term: &Term<'_>, tail: Tail, folded: bool) -> Option<Test> {
        let subject = match term.what {
            What::Subject(subject) => subject,
            What::LocalTime(offset) => return self.local_time(term, offset, tail),
            What::LocalDay(offset) => return self.local_day(term, offset, tail),
            What::Unknown => return None,
        };
        let kind = term.slot.kind()?;
        let fits = match &tail {
            Tail::Compare(comparison, ..) => {
                !matches!(kind, Type::Point | Type::Set)
                    && (kind != Type::Bool || !comparison.is_order())
            }
            Tail::In(_) => !matches!(kind, Type::Point | Type::Set),
            Tail::Between(..) => !matches!(kind, Type::Bool | Type::Point | Type::Set),
            Tail::Text(..) | Tail::Matches(_) => kind == Type::String,
            Tail::Entries(..) => kind == Type::Set,
            Tail::Within { .. } => matches!(kind, Type::Date | Type::Time),
        };
        if !fits {
            self.misfit(term, kind, &tail);
            return None;
        }
        match tail {
            Tail::Compare(comparison, _, arg) => {
                let value = self.operand_of(&arg, kind, term.name)?;
                if !folded {
                    return Some(Test::Compare { subject, comparison, value });
                }
                let Operand::Value(Value::String(text)) = value else { return None };
                let values = Arc::new([Value::String(fold(&text).into())]);
                Some(Test::In { subject, values, fold: true })
            }
            Tail::In(args) => {
                let mut values = self.values(&args, kind, term.name)?;
                if folded {
                    for value in &mut values {
                        if let Value::String(text) = value {
                            *text = fold(text).into();
                        }
                    }
                }
                values.sort_unstable();
                values.dedup();
                Some(Test::In { subject, values: values.into(), fold: folded })
            }
            Tail::Between(low, high) => {
                let (from, to) = (&low, &high);
                let (low, high) =
                    (self.operand_of(from, kind, term.name), self.operand_of(to, kind, term.name));
                let (low, high) = (low?, high?);
                if below(&high, &low) {
                    let span = from.span().start..to.span().end;
                    let (from, to) = (&self.text[from.span()], &self.text[to.span()]);
                    let message = format!(
                        "the range is empty: {} is more than {}",
                        excerpt(from),
                        excerpt(to)
                    );
                    let swapped = Some(format!("{to} and {from}")).filter(|text| text.len() <= 80);
                    self.faults.add(DiagnosticKind::EmptyRange, span, message, swapped);
                    return None;
                }
                Some(Test::Between { subject, low, high })
            }
            Tail::Text(place, arg) => {
                let pattern = self.text_of(&arg, term.name)?;
                let pattern = if folded { fold(&pattern).into() } else { pattern };
                let searched = folded && place == Place::Anywhere;
                if searched && pattern.chars().nth(FOLDED_CHARS_MAX).is_some() {
                    let message = format!(
                        "ignoring case, `contains` looks for at most {FOLDED_CHARS_MAX} characters"
                    );
                    self.faults.add(DiagnosticKind::BadPattern, arg.span(), message, None);
                    return None;
                }
                Some(Test::Text { subject, place, pattern, fold: folded })
            }
            Tail::Matches(arg) => {
                let pattern = self.text_of(&arg, term.name)?;
                let pattern = if folded { fold(&pattern).into() } else { pattern };
                let glob = match Glob::try_new(&pattern) {
                    Ok(glob) => glob,
                    Err(error) => {
                        let message = match error {
                            GlobError::TooLong => {
                                format!(
                                    "a pattern has at most {GLOB_CHARS_MAX} characters besides `*`"
                                )
                            }
                            GlobError::Unfinished => {
                                "a pattern ends with `\\`, which takes the next character as it is"
                                    .to_owned()
                            }
                        };
                        self.faults.add(DiagnosticKind::BadPattern, arg.span(), message, None);
                        return None;
                    }
                };
                Some(Test::Matches { subject, glob: Arc::new(glob), fold: folded })
            }
            Tail::Entries(quantifier, args) => {
                let Subject::Attribute(attribute) = subject else { return None };
                let values = self.values(&args, Type::String, term.name)?;
                let mut entries: Vec<Arc<str>> = values
                    .into_iter()
                    .filter_map(|value| match value {
                        Value::String(text) => Some(text),
                        _ => None,
                    })
                    .collect();
                entries.sort_unstable();
                entries.dedup();
                Some(Test::Entries { attribute, quantifier, entries: entries.into() })
            }
            Tail::Within { ahead, ms, span } => {
                let ms = ms?;
                let span_of = match kind {
                    Type::Date => whole_days(ms).map(Span::Days),
                    _ => Some(Span::Ms(ms)),
                };
                let Some(within) = span_of else {
                    let message = format!(
                        "expected whole days, such as `7d`, because {} is a date",
                        term.name
                    );
                    self.faults.add(DiagnosticKind::WrongType, span, message, None);
                    return None;
                };
                Some(Test::Within { subject, span: within, ahead })
            }
        }
    }

    /// The operator does not fit the type.
    fn misfit(&mut self, term: &Term<'_>, kind: Type, tail: &Tail) {
        let message = if kind == Type::Point {
            format!("{} is a point: use `near({}, 59.33, 18.07, 5km)`", term.name, term.name)
        } else {
            format!(
                "expected {} because {} is {}",
                or_list(term.slot.operators()),
                term.name,
                a(kind)
            )
        };
        let span = match tail {
            Tail::Compare(_, token, _) => token.span(),
            _ => {
                // From the end of the term to the operator there is at most `not`.
                let after = &self.text[term.span.end..];
                let start = term.span.end + (after.len() - after.trim_start().len());
                start..start + self.text[start..].find(|c: char| !super::is_word(c)).unwrap_or(0)
            }
        };
        self.faults.add(DiagnosticKind::WrongType, span, message, None);
    }

    fn local_time(&mut self, term: &Term<'_>, offset: AttributeId, tail: Tail) -> Option<Test> {
        let hours = match tail {
            Tail::Compare(comparison, _, arg) => Hours::Compare(comparison, self.clock_of(&arg)?),
            Tail::Between(low, high) => {
                let (low, high) = (self.clock_of(&low), self.clock_of(&high));
                Hours::Between(low?, high?)
            }
            _ => {
                self.local_misfit(term);
                return None;
            }
        };
        Some(Test::LocalTime { offset, hours })
    }

    fn local_day(&mut self, term: &Term<'_>, offset: AttributeId, tail: Tail) -> Option<Test> {
        let (args, negated) = match tail {
            Tail::Compare(Comparison::Equal, _, arg) => (vec![arg], false),
            Tail::Compare(Comparison::NotEqual, _, arg) => (vec![arg], true),
            Tail::In(args) => (args, false),
            _ => {
                self.local_misfit(term);
                return None;
            }
        };
        let days: Vec<Option<u8>> = args.iter().map(|arg| self.day_of(arg)).collect();
        let days = days.into_iter().try_fold(0, |days, day| Some(days | day?))?;
        Some(Test::LocalDay { offset, days: if negated { 0x7f & !days } else { days } })
    }

    fn local_misfit(&mut self, term: &Term<'_>) {
        let message = format!("expected {} after `{}`", or_list(term.slot.operators()), term.name);
        self.faults.add(DiagnosticKind::WrongType, term.span.clone(), message, None);
    }
}

/// Whether nothing between `low` and `high` can exist: only told of values of the same sort.
fn below(high: &Operand, low: &Operand) -> bool {
    match (high, low) {
        (Operand::Value(high), Operand::Value(low)) => high < low,
        (Operand::Now(high), Operand::Now(low)) => high < low,
        _ => false,
    }
}

/// `AND` or `OR`, which is told of where the condition has ended.
fn is_shouted_joint(source: &str) -> bool {
    ["and", "or"].iter().any(|word| word.eq_ignore_ascii_case(source))
}
