//! Reads one condition: a group, an audience, a function, or a term with an operator.
//!
//! Two sorts of faults: after one of syntax the reader looks for the next `and`, `or` or `)`; after a
//! wrong name, type or range it goes on, since it knows where the condition ends.

use std::ops::Range;

use super::Parser;
use super::literal::Arg;
use super::token::{Kind, Token, Word};
use super::wanted::{Slot, Wanted};
use crate::check::near_word;
use crate::diagnostic::{DiagnosticKind, excerpt};
use crate::point::{RADIUS_METRES_MAX, reach};
use crate::tree::{Comparison, Place, Quantifier, Subject, Test};
use crate::{AttributeId, Point, Type};

/// What is written before parentheses.
pub(crate) const FUNCTIONS: [&str; 5] = ["device", "near", "sample", "local_time", "local_day"];

/// A fault of syntax was told; the reader has to find its way back.
pub(super) struct Skip;

/// `None` after a fault that was told and needs no skipping.
pub(super) type Read<T> = Result<Option<T>, Skip>;

/// What stands before an operator.
pub(super) struct Term<'a> {
    pub(super) slot: Slot,
    pub(super) what: What,
    pub(super) name: &'a str,
    pub(super) span: Range<usize>,
}

pub(super) enum What {
    Subject(Subject),
    LocalTime(AttributeId),
    LocalDay(AttributeId),
    /// A fault that was told.
    Unknown,
}

/// An operator with what follows it, before it is checked.
pub(super) enum Tail {
    Compare(Comparison, Token, Arg),
    In(Vec<Arg>),
    Between(Arg, Arg),
    Text(Place, Arg),
    Matches(Arg),
    Entries(Quantifier, Vec<Arg>),
    Within { ahead: bool, ms: Option<i64>, span: Range<usize> },
}

impl<'a> Parser<'a> {
    /// The node of the next condition; `None` after a fault.
    pub(super) fn operand(&mut self) -> Option<u32> {
        self.inside = false;
        self.condition().unwrap_or_else(|Skip| {
            self.skip_to_joint();
            None
        })
    }

    fn condition(&mut self) -> Read<u32> {
        let token = self.peek();
        let test = match token.kind {
            Kind::Group => {
                self.at += 1;
                self.group(token).map(Test::Group)
            }
            Kind::Audience => {
                self.at += 1;
                let id = self.audience(token);
                return Ok(id.map(|id| self.draft.audience(id)));
            }
            Kind::Word(Word::All) => {
                self.at += 1;
                Some(Test::Everyone)
            }
            Kind::Word(Word::Has) => {
                self.at += 1;
                self.has()?
            }
            Kind::Word(Word::Name) => match self.shouted(token, &["has", "all"]) {
                Some("has") => {
                    self.at += 1;
                    self.has()?
                }
                Some(_) => {
                    self.at += 1;
                    None
                }
                None => return self.named(token),
            },
            Kind::Id => return self.test(),
            Kind::String | Kind::Literal => {
                let message = "a comparison begins with an attribute, as in `country == \"SE\"`";
                self.syntax(token, message);
                return Err(Skip);
            }
            Kind::Junk if matches!(self.source(token), "#" | "@") => {
                let (sigil, what) = match self.source(token) {
                    "#" => ("#", "a group"),
                    _ => ("@", "an audience"),
                };
                self.syntax(token, &format!("expected the name of {what} right after `{sigil}`"));
                return Err(Skip);
            }
            _ => {
                self.expected(token, Wanted::Condition);
                return Err(Skip);
            }
        };
        Ok(test.map(|test| self.draft.test(test)))
    }

    /// A condition that begins with a name.
    fn named(&mut self, token: Token) -> Read<u32> {
        let name = self.source(token);
        let called = self.peek_second().kind == Kind::Open;
        let declared = || self.schema.attribute(name).is_some();
        let test = match name {
            "device" if called || !declared() => self.device()?,
            "near" if called || !declared() => self.near()?,
            "sample" if called || !declared() => self.sample()?,
            _ if called && !FUNCTIONS.contains(&name) => {
                let suggestion = near_word(name, &FUNCTIONS);
                let message = format!("unknown function `{}`", excerpt(name));
                self.faults.add(DiagnosticKind::Syntax, token.span(), message, suggestion);
                return Err(Skip);
            }
            _ => return self.test(),
        };
        Ok(test.map(|test| self.draft.test(test)))
    }

    fn has(&mut self) -> Read<Test> {
        self.want(Wanted::Attribute(None));
        let token = self.peek();
        let attribute = match token.kind {
            Kind::Id | Kind::Word(Word::Name) => token,
            _ => {
                self.expected(token, Wanted::Attribute(None));
                return Err(Skip);
            }
        };
        self.at += 1;
        let term = self.subject(attribute);
        Ok(match term.what {
            What::Subject(subject) => Some(Test::Has(subject)),
            _ => None,
        })
    }

    /// A term, with or without an operator.
    fn test(&mut self) -> Read<u32> {
        let term = self.term()?;
        self.want(Wanted::Operator(term.slot));
        let negated = self.peek().is(Word::Not);
        self.at += usize::from(negated);
        let Some(tail) = self.tail(&term, negated)? else {
            let test = self.flag(&term);
            return Ok(test.map(|test| self.draft.test(test)));
        };
        let fold = self.ignoring_case(&term, &tail)?;
        // Ignoring case there is only `in`, so that one question has one form.
        let unlike = fold && matches!(tail, Tail::Compare(Comparison::NotEqual, ..));
        let Some(test) = self.checked(&term, tail, fold) else { return Ok(None) };
        let node = self.draft.test(test);
        Ok(Some(if negated != unlike { self.draft.not(node) } else { node }))
    }

    fn term(&mut self) -> Result<Term<'a>, Skip> {
        let token = self.take();
        let name = self.source(token);
        let called = self.peek().kind == Kind::Open;
        let local = matches!(name, "local_time" | "local_day");
        if !(local && (called || self.schema.attribute(name).is_none())) {
            return Ok(self.subject(token));
        }
        self.arguments_open()?;
        self.want(Wanted::Attribute(Some(Type::Number)));
        let argument = self.peek();
        if !matches!(argument.kind, Kind::Id | Kind::Word(Word::Name)) {
            self.expected(argument, Wanted::Attribute(Some(Type::Number)));
            return Err(Skip);
        }
        self.at += 1;
        let attribute = self.attribute_of(argument, Type::Number);
        self.close()?;
        let span = token.span().start..self.tokens[self.at - 1].span().end;
        let (slot, what): (_, fn(AttributeId) -> What) = match name {
            "local_time" => (Slot::LocalTime, What::LocalTime),
            _ => (Slot::LocalDay, What::LocalDay),
        };
        Ok(Term { slot, what: attribute.map_or(What::Unknown, what), name, span })
    }

    /// An attribute, `user` or `last_seen`.
    fn subject(&mut self, token: Token) -> Term<'a> {
        let name = self.source(token);
        let span = token.span();
        let subject = |slot, subject, name| Term {
            slot,
            what: What::Subject(subject),
            name,
            span: span.clone(),
        };
        match name {
            "user" => subject(Slot::User, Subject::User, name),
            "last_seen" => subject(Slot::LastSeen, Subject::LastSeen, name),
            _ => match self.attribute(token) {
                Some((id, kind, name)) => {
                    subject(Slot::Attribute(id, kind), Subject::Attribute(id), name)
                }
                None => Term { slot: Slot::Unknown, what: What::Unknown, name, span },
            },
        }
    }

    fn device(&mut self) -> Read<Test> {
        self.at += 1;
        self.arguments_open()?;
        let (mut ids, mut whole) = (Vec::new(), true);
        loop {
            self.want(Wanted::DeviceId);
            let token = self.take();
            if !matches!(token.kind, Kind::String | Kind::Literal | Kind::Word(Word::Name)) {
                self.expected(token, Wanted::DeviceId);
                return Err(Skip);
            }
            match crate::parse_id(self.source(token).trim_matches(['"', '\''])) {
                Ok(id) => ids.push(id),
                Err(_) => {
                    whole = false;
                    self.expected(token, Wanted::DeviceId);
                }
            }
            if self.comma_or_close()? {
                break;
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(whole.then(|| Test::Device(ids.into())))
    }

    fn sample(&mut self) -> Read<Test> {
        self.at += 1;
        self.arguments_open()?;
        self.want(Wanted::Percentage);
        let token = self.peek();
        let ppm = self.percentage(token)?;
        let salt = if self.comma_or_close()? {
            Some(None)
        } else {
            self.want(Wanted::Salt);
            let salt = self.take();
            if salt.kind != Kind::String {
                self.expected(salt, Wanted::Salt);
                return Err(Skip);
            }
            let text = self.string(salt);
            self.close()?;
            text.map(|text| Some(text.into()))
        };
        Ok(ppm.zip(salt).map(|(ppm, salt)| Test::Sample { ppm, salt }))
    }

    fn near(&mut self) -> Read<Test> {
        let name = self.take();
        self.arguments_open()?;
        self.want(Wanted::Attribute(Some(Type::Point)));
        self.want(Wanted::Latitude);
        let token = self.peek();
        let attribute = if matches!(token.kind, Kind::Id | Kind::Word(Word::Name)) {
            self.at += 1;
            let attribute = self.attribute_of(token, Type::Point);
            self.comma()?;
            attribute
        } else {
            self.only_point(name)
        };
        let mut coordinate = |wanted, most: f64| {
            self.want(wanted);
            let token = self.take();
            let degrees = Some(self.source(token))
                .filter(|_| token.kind == Kind::Literal)
                .and_then(|text| text.parse::<f64>().ok());
            let Some(degrees) = degrees else {
                self.expected(token, wanted);
                return Err(Skip);
            };
            self.comma()?;
            if degrees.abs() <= most {
                return Ok(Some(degrees));
            }
            let message = format!("expected {wanted}, from -{most} to {most}");
            self.faults.add(DiagnosticKind::NumberOutOfRange, token.span(), message, None);
            Ok(None)
        };
        let latitude = coordinate(Wanted::Latitude, 90.0)?;
        let longitude = coordinate(Wanted::Longitude, 180.0)?;
        self.want(Wanted::Radius);
        let token = self.take();
        let Some(metres) = super::literal::distance(self.source(token)) else {
            self.expected(token, Wanted::Radius);
            return Err(Skip);
        };
        self.close()?;
        if metres > f64::from(RADIUS_METRES_MAX) {
            let message = format!(
                "a distance is at most {}km, half around the Earth",
                RADIUS_METRES_MAX / 1_000
            );
            self.faults.add(DiagnosticKind::NumberOutOfRange, token.span(), message, None);
            return Ok(None);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 20,100,000"
        )]
        let metres = metres.round() as u32;
        let centre = latitude.zip(longitude).and_then(|(lat, lon)| Point::try_new(lat, lon));
        Ok(attribute.zip(centre).map(|(attribute, centre)| Test::Near {
            attribute,
            centre,
            metres,
            reach: reach(metres),
        }))
    }

    /// The attribute that `near` means when it names none.
    fn only_point(&mut self, function: Token) -> Option<AttributeId> {
        let (mut only, mut count) = (None, 0);
        self.schema.visit_attribute_names(&mut |name| {
            if let Some((id, Type::Point)) = self.schema.attribute(name) {
                only = Some(id);
                count += 1;
            }
        });
        if count == 1 {
            return only;
        }
        let message = match count {
            0 => "no attribute is declared as a point".to_owned(),
            _ => format!(
                "{count} attributes are points: say which, as in `near(home, 59.33, 18.07, 5km)`"
            ),
        };
        self.faults.add(DiagnosticKind::UnknownAttribute, function.span(), message, None);
        None
    }

    pub(super) fn list(&mut self, slot: Slot) -> Result<Vec<Arg>, Skip> {
        self.want(Wanted::ListOpen);
        let open = self.peek();
        if open.kind != Kind::Open {
            self.expected(open, Wanted::ListOpen);
            return Err(Skip);
        }
        self.at += 1;
        self.inside = true;
        let mut args = vec![self.arg(slot)?];
        while !self.comma_or_close()? {
            args.push(self.arg(slot)?);
        }
        Ok(args)
    }

    fn arguments_open(&mut self) -> Result<(), Skip> {
        self.punctuation(Kind::Open, Wanted::ArgumentsOpen)
    }

    fn comma(&mut self) -> Result<(), Skip> {
        self.punctuation(Kind::Comma, Wanted::Comma)
    }

    fn close(&mut self) -> Result<(), Skip> {
        self.punctuation(Kind::Close, Wanted::Close)
    }

    fn punctuation(&mut self, kind: Kind, wanted: Wanted) -> Result<(), Skip> {
        self.want(wanted);
        let token = self.peek();
        if token.kind != kind {
            self.expected(token, wanted);
            return Err(Skip);
        }
        self.at += 1;
        match kind {
            Kind::Open => self.inside = true,
            Kind::Close => self.inside = false,
            _ => {}
        }
        Ok(())
    }

    /// Whether the list ends here.
    fn comma_or_close(&mut self) -> Result<bool, Skip> {
        self.want(Wanted::CommaOrClose);
        let token = self.peek();
        match token.kind {
            Kind::Comma | Kind::Close => {
                self.at += 1;
                self.inside = token.kind == Kind::Comma;
                Ok(token.kind == Kind::Close)
            }
            _ => {
                self.expected(token, Wanted::CommaOrClose);
                Err(Skip)
            }
        }
    }
}
