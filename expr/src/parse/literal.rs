//! Values as they are written, and whether they fit where they stand.

use std::ops::Range;
use std::sync::Arc;

use super::Parser;
use super::operand::Skip;
use super::token::{Kind, Token, Word};
use super::wanted::{Slot, Wanted, a, example};
use crate::calendar::{SPAN_MS_MAX, WEEKDAYS, clock_minutes, parse_span, print_span, whole_days};
use crate::diagnostic::DiagnosticKind;
use crate::print::quote;
use crate::steps::step;
use crate::tree::{Operand, Span};
use crate::{Date, NAME_BYTES_MAX, Number, ParseTimeError, Time, Type, Value, Version};

/// A value before its type is known.
pub(super) enum Arg {
    Token(Token),
    Now(Offset),
}

/// `now`, `now - 7d` or `now + 12h`.
pub(super) struct Offset {
    /// `None` after a fault that was told.
    pub(super) ms: Option<i64>,
    pub(super) span: Range<usize>,
}

impl Arg {
    pub(super) fn span(&self) -> Range<usize> {
        match self {
            Self::Token(token) => token.span(),
            Self::Now(offset) => offset.span.clone(),
        }
    }
}

impl Parser<'_> {
    /// Takes what stands where a value should.
    pub(super) fn arg(&mut self, slot: Slot) -> Result<Arg, Skip> {
        self.want(Wanted::Value(slot));
        let token = self.peek();
        match token.kind {
            Kind::Word(Word::Name) if self.source(token).split('-').next() == Some("now") => {
                self.now(token).map(Arg::Now)
            }
            Kind::String
            | Kind::Literal
            | Kind::Odd
            | Kind::Word(Word::True | Word::False | Word::Name) => {
                self.at += 1;
                Ok(Arg::Token(token))
            }
            _ => {
                self.expected(token, Wanted::Value(slot));
                Err(Skip)
            }
        }
    }

    /// `now`, and an offset that may be written without spaces: `now-7d`.
    fn now(&mut self, token: Token) -> Result<Offset, Skip> {
        self.at += 1;
        let mut span = token.span();
        if let Some(glued) = self.source(token).strip_prefix("now-") {
            let ms = self.span_ms(glued, token, Wanted::Offset).map(|ms| -ms);
            return Ok(Offset { ms, span });
        }
        let next = self.peek();
        let (negative, duration) = match (next.kind, self.source(next)) {
            (Kind::Sign, sign) => {
                self.at += 1;
                self.want(Wanted::Offset);
                let duration = self.peek();
                if duration.kind != Kind::Literal {
                    self.expected(duration, Wanted::Offset);
                    return Err(Skip);
                }
                (sign == "-", duration)
            }
            (Kind::Literal, source) if source.starts_with(['-', '+']) => {
                (source.starts_with('-'), next)
            }
            _ => {
                self.want(Wanted::OffsetSign);
                return Ok(Offset { ms: Some(0), span });
            }
        };
        self.at += 1;
        span.end = duration.span().end;
        let digits = self.source(duration).trim_start_matches(['-', '+']);
        let ms = self.span_ms(digits, duration, Wanted::Offset);
        Ok(Offset { ms: ms.map(|ms| if negative { -ms } else { ms }), span })
    }

    /// The milliseconds of `within 7d`.
    pub(super) fn duration(&mut self, token: Token) -> Option<i64> {
        self.span_ms(self.source(token), token, Wanted::Duration)
    }

    fn span_ms(&mut self, text: &str, token: Token, wanted: Wanted) -> Option<i64> {
        let ms = parse_span(text);
        if ms.is_none() {
            let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
            if text.len() > unit.len() && ["s", "m", "h", "d", "w"].contains(&unit) {
                let message = format!("a duration is at most {}", print_span(SPAN_MS_MAX));
                self.faults.add(DiagnosticKind::NumberOutOfRange, token.span(), message, None);
            } else {
                self.expected(token, wanted);
            }
        }
        ms
    }

    /// What is compared: a value of the type, or the clock.
    pub(super) fn operand_of(&mut self, arg: &Arg, kind: Type, name: &str) -> Option<Operand> {
        let offset = match arg {
            Arg::Token(token) => return self.value(*token, kind, name).map(Operand::Value),
            Arg::Now(offset) => offset,
        };
        let ms = offset.ms?;
        let message = match (kind, whole_days(ms)) {
            (Type::Time, _) => return Some(Operand::Now(Span::Ms(ms))),
            (Type::Date, Some(days)) => return Some(Operand::Now(Span::Days(days))),
            (Type::Date, None) => {
                format!("expected whole days, such as `now - 7d`, because {name} is a date")
            }
            _ => format!("expected {} because {name} is {}", a(kind), a(kind)),
        };
        self.faults.add(DiagnosticKind::WrongType, offset.span.clone(), message, None);
        None
    }

    /// The values of a list; `None` after a fault in one of them.
    pub(super) fn values(&mut self, args: &[Arg], kind: Type, name: &str) -> Option<Vec<Value>> {
        let mut values = Vec::with_capacity(args.len());
        let mut whole = true;
        for arg in args {
            match arg {
                Arg::Token(token) => match self.value(*token, kind, name) {
                    Some(value) => values.push(value),
                    None => whole = false,
                },
                Arg::Now(offset) => {
                    whole = false;
                    let message = "`now` cannot stand in a list".to_owned();
                    let kind = DiagnosticKind::WrongType;
                    self.faults.add(kind, offset.span.clone(), message, None);
                }
            }
        }
        whole.then_some(values)
    }

    pub(super) fn text_of(&mut self, arg: &Arg, name: &str) -> Option<Arc<str>> {
        match self.operand_of(arg, Type::String, name)? {
            Operand::Value(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Minutes since midnight.
    pub(super) fn clock_of(&mut self, arg: &Arg) -> Option<u16> {
        let minutes = clock_minutes(&self.text[arg.span()]);
        if minutes.is_none() {
            let message = format!("expected {}", Wanted::Value(Slot::LocalTime));
            self.faults.add(DiagnosticKind::WrongType, arg.span(), message, None);
        }
        minutes.and_then(|minutes| u16::try_from(minutes).ok())
    }

    /// A day of the week, as a bit.
    pub(super) fn day_of(&mut self, arg: &Arg) -> Option<u8> {
        let text = &self.text[arg.span()];
        let day = WEEKDAYS.iter().position(|day| *day == text);
        if day.is_none() {
            let lower = text.trim_matches(['"', '\'']).to_lowercase();
            let suggestion =
                lower.get(..3).filter(|short| WEEKDAYS.contains(short)).map(str::to_owned);
            let message = format!("expected {}", Wanted::Value(Slot::LocalDay));
            self.faults.add(DiagnosticKind::WrongType, arg.span(), message, suggestion);
        }
        day.map(|day| 1 << day)
    }

    /// Parts per million from `10%` or `0.5%`.
    pub(super) fn percentage(&mut self, token: Token) -> Result<Option<u32>, Skip> {
        let Some(digits) = self.source(token).strip_suffix('%') else {
            self.expected(token, Wanted::Percentage);
            return Err(Skip);
        };
        self.at += 1;
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let ppm = Some(whole)
            .filter(|whole| (1..=3).contains(&whole.len()) && all_digits(whole))
            .filter(|_| fraction.len() <= 4 && all_digits(fraction) && !digits.ends_with('.'))
            .and_then(|whole| format!("{whole}{fraction:0<4}").parse::<u32>().ok())
            .filter(|ppm| *ppm <= 1_000_000);
        if ppm.is_none() {
            let message = "a percentage is from 0% to 100%, with at most 4 decimals".to_owned();
            self.faults.add(DiagnosticKind::NumberOutOfRange, token.span(), message, None);
        }
        Ok(ppm)
    }

    fn value(&mut self, token: Token, kind: Type, name: &str) -> Option<Value> {
        let raw = self.source(token);
        let out_of_range = match (token.kind, kind) {
            (Kind::String, Type::String) => {
                return self.string(token).map(|text| Value::String(text.into()));
            }
            (Kind::Word(Word::True | Word::False), Type::Bool) => {
                return Some(Value::Bool(raw == "true"));
            }
            (Kind::Literal, Type::Number) if is_number(raw) => {
                match raw.parse().ok().and_then(Number::try_new) {
                    Some(number) => return Some(Value::Number(number)),
                    None => format!("this number is out of range: at most {:e}", f64::MAX),
                }
            }
            (Kind::Word(Word::Name), Type::Version) if looks_like_version(raw) => {
                match raw.parse() {
                    Ok(version) => return Some(Value::Version(version)),
                    Err(error) => crate::ParseVersionError::to_string(&error),
                }
            }
            (Kind::Literal, Type::Date) => match raw.parse() {
                Ok(date) => return Some(Value::Date(date)),
                Err(ParseTimeError::Date) => {
                    self.wrong_type(token, kind, name);
                    return None;
                }
                Err(error) => error.to_string(),
            },
            (Kind::Literal, Type::Time) => match raw.parse() {
                Ok(time) => return Some(Value::Time(time)),
                Err(ParseTimeError::Time) => {
                    self.wrong_type(token, kind, name);
                    return None;
                }
                Err(error) => error.to_string(),
            },
            (_, kind) => {
                self.wrong_type(token, kind, name);
                return None;
            }
        };
        self.faults.add(DiagnosticKind::NumberOutOfRange, token.span(), out_of_range, None);
        None
    }

    fn wrong_type(&mut self, token: Token, kind: Type, name: &str) {
        let raw = self.source(token);
        let content = match token.kind {
            Kind::String => unescape(raw).unwrap_or_default(),
            _ => raw.trim_matches(['“', '”', '‘', '’', '„']).to_owned(),
        };
        let replacement = match kind {
            Type::String => {
                let mut quoted = String::new();
                quote(&content, &mut quoted);
                Some(quoted)
            }
            Type::Number => {
                content.parse().ok().and_then(Number::try_new).map(|number| number.to_string())
            }
            Type::Bool => Some(content.to_lowercase())
                .filter(|word| ["true", "false"].contains(&word.as_str())),
            Type::Version => content
                .parse::<Version>()
                .ok()
                .map(|_| format!("v{}", content.trim_start_matches('v'))),
            Type::Date => content
                .parse::<Date>()
                .or_else(|_| content.parse::<Time>().map(Time::date))
                .ok()
                .map(|date| date.to_string()),
            // A bare day is refused: `<= 2026-01-31` would leave out nearly all of that day.
            Type::Time => content
                .parse::<Time>()
                .or_else(|_| format!("{content}T00:00:00Z").parse::<Time>())
                .ok()
                .map(|time| time.to_string()),
            Type::Point | Type::Set => None,
        };
        let unquoted =
            matches!(token.kind, Kind::Word(_) | Kind::Odd) && !matches!(raw, "true" | "false");
        let quotes = if kind == Type::String && unquoted { ", in quotes," } else { "" };
        let such = match kind {
            Type::Date | Type::Time => format!(" such as `{}`,", example(kind)),
            _ => String::new(),
        };
        let message = format!("expected {}{quotes}{such} because {name} is {}", a(kind), a(kind));
        let replacement = replacement.filter(|text| text.len() <= NAME_BYTES_MAX);
        self.faults.add(DiagnosticKind::WrongType, token.span(), message, replacement);
    }

    /// The text of a string literal.
    pub(super) fn string(&mut self, token: Token) -> Option<String> {
        match unescape(self.source(token)) {
            Ok(text) => Some(text),
            Err(Escape { at, message }) => {
                let start = token.span().start;
                let place = start + at.start..start + at.end;
                self.faults.add(DiagnosticKind::Syntax, place, message.to_owned(), None);
                None
            }
        }
    }
}

/// Metres from `5km`, `2.5km` or `800m`.
pub(super) fn distance(text: &str) -> Option<f64> {
    let (digits, unit) = match text.strip_suffix("km") {
        Some(digits) => (digits, 1_000.0),
        None => (text.strip_suffix('m')?, 1.0),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    digits.parse::<f64>().ok().filter(|_| plain && is_number(digits)).map(|count| count * unit)
}

/// Digits with at most one dot between them and an exponent: Rust's `parse` takes more than that.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            (mantissa, exponent.strip_prefix(['-', '+']).unwrap_or(exponent))
        }
        None => (text, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    [whole, fraction, exponent]
        .iter()
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

fn looks_like_version(text: &str) -> bool {
    text.strip_prefix('v').is_some_and(|rest| {
        rest.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// A fault within a string literal, at bytes of the literal.
#[derive(Debug)]
pub(crate) struct Escape {
    at: Range<usize>,
    message: &'static str,
}

/// The text of a string literal, whose quotes the tokens have seen to.
pub(crate) fn unescape(literal: &str) -> Result<String, Escape> {
    let end = literal.len() - 1;
    let mut text = String::with_capacity(end);
    let mut at = 1;
    while let Some(c) = literal[at..end].chars().next() {
        step(1);
        let start = at;
        at += c.len_utf8();
        if c != '\\' {
            if c.is_control() && c != '\t' {
                let message = "a control character in a string is written `\\u{..}`";
                return Err(Escape { at: start..at, message });
            }
            text.push(c);
            continue;
        }
        let escape = literal[at..end].chars().next().unwrap_or('\\');
        at += escape.len_utf8();
        text.push(match escape {
            '"' | '\'' | '\\' => escape,
            'n' => '\n',
            't' => '\t',
            'u' => {
                let digits = literal[at..end]
                    .strip_prefix('{')
                    .and_then(|rest| rest.find('}').map(|length| &rest[..length]))
                    .filter(|digits| (1..=6).contains(&digits.len()))
                    .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
                let c = digits
                    .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                    .and_then(char::from_u32);
                let (Some(digits), Some(c)) = (digits, c) else {
                    let message = "expected the hexadecimal number of a character, as in `\\u{e5}`";
                    return Err(Escape { at: start..at, message });
                };
                at += digits.len() + 2;
                if c == '\0' {
                    // SQLite ends texts there.
                    let message = "the character `\\u{0}` cannot stand in a string";
                    return Err(Escape { at: start..at, message });
                }
                c
            }
            _ => {
                let message =
                    "unknown escape; there are `\\\"`, `\\'`, `\\\\`, `\\n`, `\\t` and `\\u{..}`";
                return Err(Escape { at: start..at.min(end), message });
            }
        });
    }
    Ok(text)
}
