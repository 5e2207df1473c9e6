//! Canonical text: one text for one tree, which parses back to that tree.
//!
//! Two forms. With names, for people. With ids (`:16 digits` for an attribute, `#:16 digits` for a
//! group, `@:16 digits` for an audience), for storage: it needs no schema and outlives every rename.
//! Parentheses stand only where the tree needs them, so a printed text never nests deeper than the one
//! it was parsed from. Comments and the order within lists are not kept.

use std::fmt::Write as _;

use crate::calendar::{WEEKDAYS, print_span};
use crate::steps::step;
use crate::tree::{Comparison, Hours, Join, Node, Operand, Subject, Test, Tree};
use crate::{
    AttributeId, AudienceId, Expression, GroupId, Schema, Value, valid_attribute_name,
    valid_group_name,
};

impl Expression {
    /// The canonical text with the present names. What the schema does not name, or names in a way
    /// that would not parse, is printed by its id.
    #[must_use]
    pub fn to_text(&self, schema: &dyn Schema) -> String {
        let mut printer = Printer::new(Some(schema));
        printer.tree(self.tree());
        printer.out
    }

    /// The canonical text with ids instead of names, for storage. It may be longer than what was
    /// parsed, so read it with [`Limits::STORED`](crate::Limits::STORED).
    #[must_use]
    pub fn to_stored(&self) -> String {
        let mut printer = Printer::new(None);
        printer.tree(self.tree());
        printer.out
    }
}

pub(crate) struct Printer<'a> {
    schema: Option<&'a dyn Schema>,
    pub(crate) out: String,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(schema: Option<&'a dyn Schema>) -> Self {
        Self { schema, out: String::new() }
    }

    fn tree(&mut self, tree: &Tree) {
        enum Work {
            Node(u32),
            Text(&'static str),
        }
        let mut work = vec![Work::Node(tree.root())];
        while let Some(item) = work.pop() {
            step(1);
            let node = match item {
                Work::Text(text) => {
                    self.out.push_str(text);
                    continue;
                }
                Work::Node(node) => tree.node(node),
            };
            match node {
                Node::Test(test) => self.test(test, false),
                Node::Audience(id) => self.audience(*id),
                Node::Not(inner) => match tree.node(*inner) {
                    Node::Test(test) if takes_not(test) => self.test(test, true),
                    Node::Chain { .. } => {
                        self.out.push_str("not (");
                        work.push(Work::Text(")"));
                        work.push(Work::Node(*inner));
                    }
                    _ => {
                        self.out.push_str("not ");
                        work.push(Work::Node(*inner));
                    }
                },
                Node::Chain { join, from, to } => {
                    let operator = match join {
                        Join::And => " and ",
                        Join::Or => " or ",
                    };
                    let kids = tree.chain(*from, *to);
                    for (at, kid) in kids.iter().enumerate().rev() {
                        // Within `or` nothing needs parentheses: `and` binds tighter, and `or` is
                        // merged.
                        let or = matches!(tree.node(*kid), Node::Chain { join: Join::Or, .. });
                        if or {
                            work.push(Work::Text(")"));
                        }
                        work.push(Work::Node(*kid));
                        if or {
                            work.push(Work::Text("("));
                        }
                        if at > 0 {
                            work.push(Work::Text(operator));
                        }
                    }
                }
            }
        }
    }

    /// One test; with `not` before its operator where `negated`.
    pub(crate) fn test(&mut self, test: &Test, negated: bool) {
        let not = if negated { " not" } else { "" };
        match test {
            Test::Everyone => self.out.push_str("all"),
            Test::Group(id) => self.group(*id),
            Test::Device(ids) => {
                self.out.push_str("device(");
                self.list(ids.iter(), |printer, id| printer.push(format_args!("\"{id:016x}\"")));
            }
            Test::Has(subject) => {
                self.out.push_str("has ");
                self.subject(*subject);
            }
            Test::Compare {
                subject,
                comparison: Comparison::Equal,
                value: Operand::Value(Value::Bool(true)),
            } => self.subject(*subject),
            Test::Compare { subject, comparison, value } => {
                self.subject(*subject);
                self.push(format_args!(" {} ", comparison.as_str()));
                self.operand(value);
            }
            Test::Between { subject, low, high } => {
                self.subject(*subject);
                self.push(format_args!("{not} between "));
                self.operand(low);
                self.out.push_str(" and ");
                self.operand(high);
            }
            Test::In { subject, values, fold } => {
                self.subject(*subject);
                self.push(format_args!("{not} in ("));
                self.list(values.iter(), |printer, value| printer.value(value));
                self.ignoring(*fold);
            }
            Test::Text { subject, place, pattern, fold } => {
                self.subject(*subject);
                self.push(format_args!("{not} {} ", place.as_str()));
                quote(pattern, &mut self.out);
                self.ignoring(*fold);
            }
            Test::Matches { subject, glob, fold } => {
                self.subject(*subject);
                self.push(format_args!("{not} matches "));
                quote(glob.text(), &mut self.out);
                self.ignoring(*fold);
            }
            Test::Entries { attribute, quantifier, entries } => {
                self.attribute(*attribute);
                self.push(format_args!("{not} {} (", quantifier.as_str()));
                self.list(entries.iter(), |printer, entry| quote(entry, &mut printer.out));
            }
            Test::Within { subject, span, ahead } => {
                self.subject(*subject);
                let next = if *ahead { "next " } else { "" };
                self.push(format_args!("{not} within {next}{}", print_span(span.ms())));
            }
            Test::Near { attribute, centre, metres, .. } => {
                self.out.push_str("near(");
                self.attribute(*attribute);
                self.push(format_args!(", {centre}, "));
                match metres % 1_000 {
                    0 => self.push(format_args!("{}km)", metres / 1_000)),
                    _ => self.push(format_args!("{metres}m)")),
                }
            }
            Test::Sample { ppm, salt } => {
                self.push(format_args!("sample({}", ppm / 10_000));
                match ppm % 10_000 {
                    0 => {}
                    rest => {
                        let decimals = format!("{rest:04}");
                        self.push(format_args!(".{}", decimals.trim_end_matches('0')));
                    }
                }
                self.out.push('%');
                if let Some(salt) = salt {
                    self.out.push_str(", ");
                    quote(salt, &mut self.out);
                }
                self.out.push(')');
            }
            Test::LocalTime { offset, hours } => {
                self.out.push_str("local_time(");
                self.attribute(*offset);
                self.out.push(')');
                let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
                match hours {
                    Hours::Compare(comparison, minute) => {
                        self.push(format_args!(" {} {}", comparison.as_str(), clock(*minute)));
                    }
                    Hours::Between(low, high) => {
                        self.push(format_args!(
                            "{not} between {} and {}",
                            clock(*low),
                            clock(*high)
                        ));
                    }
                }
            }
            Test::LocalDay { offset, days } => {
                self.out.push_str("local_day(");
                self.attribute(*offset);
                self.push(format_args!("){not} in ("));
                let days = (0..7).filter(|day| days >> day & 1 == 1);
                self.list(days, |printer, day| printer.out.push_str(WEEKDAYS[day]));
            }
        }
    }

    fn ignoring(&mut self, fold: bool) {
        if fold {
            self.out.push_str(" ignoring case");
        }
    }

    /// The entries and the closing parenthesis.
    fn list<T>(&mut self, entries: impl Iterator<Item = T>, mut entry: impl FnMut(&mut Self, T)) {
        for (at, each) in entries.enumerate() {
            if at > 0 {
                self.out.push_str(", ");
            }
            entry(self, each);
        }
        self.out.push(')');
    }

    pub(crate) fn subject(&mut self, subject: Subject) {
        match subject {
            Subject::Attribute(id) => self.attribute(id),
            Subject::User => self.out.push_str("user"),
            Subject::LastSeen => self.out.push_str("last_seen"),
        }
    }

    pub(crate) fn attribute(&mut self, id: AttributeId) {
        let name = self.schema.and_then(|schema| schema.attribute_name(id)).map(|(name, _)| name);
        match name.filter(|name| valid_attribute_name(name)) {
            Some(name) => self.out.push_str(name),
            None => self.push(format_args!(":{id}")),
        }
    }

    pub(crate) fn group(&mut self, id: GroupId) {
        let name = self.schema.and_then(|schema| schema.group_name(id));
        match name.filter(|name| valid_group_name(name)) {
            Some(name) => self.push(format_args!("#{name}")),
            None => self.push(format_args!("#:{id}")),
        }
    }

    pub(crate) fn audience(&mut self, id: AudienceId) {
        let name = self.schema.and_then(|schema| schema.audience_name(id));
        match name.filter(|name| valid_group_name(name)) {
            Some(name) => self.push(format_args!("@{name}")),
            None => self.push(format_args!("@:{id}")),
        }
    }

    fn operand(&mut self, operand: &Operand) {
        match operand {
            Operand::Value(value) => self.value(value),
            Operand::Now(span) => {
                self.out.push_str("now");
                let ms = span.ms();
                if ms != 0 {
                    let sign = if ms < 0 { '-' } else { '+' };
                    self.push(format_args!(" {sign} {}", print_span(ms.abs())));
                }
            }
        }
    }

    pub(crate) fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => quote(text, &mut self.out),
            Value::Number(number) => self.push(format_args!("{number}")),
            Value::Bool(flag) => self.push(format_args!("{flag}")),
            Value::Version(version) => self.push(format_args!("v{version}")),
            Value::Date(date) => self.push(format_args!("{date}")),
            Value::Time(time) => self.push(format_args!("{time}")),
            Value::Point(point) => self.push(format_args!("{point}")),
            Value::Set(set) => {
                self.out.push('(');
                self.list(set.entries().iter(), |printer, entry| quote(entry, &mut printer.out));
            }
        }
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.out.write_fmt(text).expect("writing to a string cannot fail");
    }
}

/// Whether `not` stands before the operator rather than before the test.
fn takes_not(test: &Test) -> bool {
    match test {
        Test::Between { .. }
        | Test::In { .. }
        | Test::Text { .. }
        | Test::Matches { .. }
        | Test::Entries { .. }
        | Test::Within { .. }
        | Test::LocalDay { .. } => true,
        Test::LocalTime { hours, .. } => matches!(hours, Hours::Between(..)),
        _ => false,
    }
}

/// Writes a string literal: double quotes, escapes only where the grammar needs them or a reader
/// could not see the character.
pub(crate) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                write!(out, "\\u{{{:x}}}", u32::from(c)).expect("writing to a string cannot fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
