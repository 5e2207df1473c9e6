//! Resolves names and checks types, one operand at a time.
//!
//! A fault never stops the check: the operand becomes a placeholder, the tree is thrown away at the
//! end, and the writer learns of all faults at once.

use std::collections::HashMap;
use std::ops::Range;

use pest::iterators::Pair;

use crate::diagnostic::{DIAGNOSTICS_MAX, Diagnostic, DiagnosticKind, Diagnostics, excerpt};
use crate::parse::Rule;
use crate::print::quote;
use crate::tree::{Comparison, Node};
use crate::{
    AttributeId, GroupId, NAME_BYTES_MAX, Number, ParseVersionError, Schema, Type, Value, Version,
};

/// Different unknown names that get a suggestion; each costs a look at all declared names.
const SUGGESTED_MAX: usize = 8;

/// Declared names looked at for one suggestion, so that a million groups cannot stall a check.
const LOOKED_AT_MAX: usize = 100_000;

pub(crate) struct Checker<'a> {
    text: &'a str,
    schema: &'a dyn Schema,
    faults: Vec<Diagnostic>,
    /// The near name, if any, of each unknown attribute (`false`) or group (`true`).
    near: HashMap<(bool, String), Option<String>>,
}

/// An attribute as resolved, with its name for messages.
struct Attribute<'a> {
    id: AttributeId,
    kind: Type,
    name: &'a str,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(text: &'a str, schema: &'a dyn Schema) -> Self {
        Self { text, schema, faults: Vec::new(), near: HashMap::new() }
    }

    pub(crate) fn finish(self) -> Result<(), Diagnostics> {
        if self.faults.is_empty() { Ok(()) } else { Err(Diagnostics::new(self.faults)) }
    }

    /// The node of one operand; a placeholder after a fault.
    pub(crate) fn operand(&mut self, token: Pair<'_, Rule>) -> Node {
        let node = match token.as_rule() {
            Rule::everyone => Some(Node::Everyone),
            Rule::group => self.group(&token).map(Node::Group),
            Rule::has => token
                .into_inner()
                .find(|part| part.as_rule() == Rule::attribute)
                .and_then(|part| self.attribute(&part))
                .map(|attribute| Node::Has(attribute.id)),
            Rule::test => self.test(token),
            rule => unreachable!("the grammar has no operand {rule:?}"),
        };
        node.unwrap_or(Node::Everyone)
    }

    fn test(&mut self, token: Pair<'_, Rule>) -> Option<Node> {
        let mut parts = token.into_inner();
        let subject = parts.next()?;
        let attribute = self.attribute(&subject);
        let Some(operator) = parts.next() else { return self.flag(&subject, &attribute?) };
        match operator.as_rule() {
            Rule::comparison => {
                let comparison = Comparison::from_symbol(operator.as_str())?;
                let value = parts.next()?;
                let attribute = attribute?;
                let fits = self.ordered(&operator, comparison, &attribute);
                let value = self.value(&value, &attribute)?;
                fits.then_some(Node::Compare { attribute: attribute.id, comparison, value })
            }
            _ => {
                let negated = operator.as_rule() == Rule::not_in;
                let node = self.list(parts.next()?, &attribute?)?;
                Some(if negated { Node::Not(Box::new(node)) } else { node })
            }
        }
    }

    /// An attribute that stands alone.
    fn flag(&mut self, subject: &Pair<'_, Rule>, attribute: &Attribute<'_>) -> Option<Node> {
        if attribute.kind == Type::Bool {
            return Some(Node::Compare {
                attribute: attribute.id,
                comparison: Comparison::Equal,
                value: Value::Bool(true),
            });
        }
        let Attribute { kind, name, .. } = attribute;
        let message = format!(
            "expected a comparison because {name} is {} and no condition by itself",
            a(*kind)
        );
        let suggestion = Some(format!("has {}", subject.as_str()));
        self.fault(DiagnosticKind::WrongType, span(subject), message, suggestion);
        None
    }

    fn ordered(
        &mut self,
        operator: &Pair<'_, Rule>,
        comparison: Comparison,
        attribute: &Attribute<'_>,
    ) -> bool {
        let fits = attribute.kind != Type::Bool || !comparison.is_order();
        if !fits {
            let message = format!("expected `==` or `!=` because {} is a bool", attribute.name);
            self.fault(DiagnosticKind::WrongType, span(operator), message, None);
        }
        fits
    }

    fn list(&mut self, list: Pair<'_, Rule>, attribute: &Attribute<'_>) -> Option<Node> {
        let mut values = Vec::new();
        let mut whole = true;
        for part in list.into_inner() {
            if matches!(part.as_rule(), Rule::list_open | Rule::comma | Rule::list_close) {
                continue;
            }
            match self.value(&part, attribute) {
                Some(value) => values.push(value),
                None => whole = false,
            }
        }
        values.sort_unstable();
        values.dedup();
        whole.then(|| Node::In { attribute: attribute.id, values: values.into() })
    }

    fn attribute(&mut self, token: &Pair<'_, Rule>) -> Option<Attribute<'a>> {
        let text = token.as_str();
        if let Some(digits) = text.strip_prefix(':') {
            let id = digits.parse().ok()?;
            if let Some((name, kind)) = self.schema.attribute_name(id) {
                return Some(Attribute { id, kind, name });
            }
            let message = format!("there is no attribute with the id {id}");
            self.fault(DiagnosticKind::UnknownAttribute, span(token), message, None);
            return None;
        }
        if let Some((id, kind)) = self.schema.attribute(text) {
            let name = self.schema.attribute_name(id).map_or("it", |(name, _)| name);
            return Some(Attribute { id, kind, name });
        }
        let suggestion = self.near(false, text);
        let message = format!("unknown attribute `{}`", excerpt(text));
        self.fault(DiagnosticKind::UnknownAttribute, span(token), message, suggestion);
        None
    }

    fn group(&mut self, token: &Pair<'_, Rule>) -> Option<GroupId> {
        let name = &token.as_str()[1..];
        if let Some(digits) = name.strip_prefix(':') {
            let id = digits.parse().ok()?;
            if self.schema.group_name(id).is_some() {
                return Some(id);
            }
            let message = format!("there is no group with the id {id}");
            self.fault(DiagnosticKind::UnknownGroup, span(token), message, None);
            return None;
        }
        let found = self.schema.group(name);
        if found.is_none() {
            let suggestion = self.near(true, name).map(|near| format!("#{near}"));
            let message = format!("unknown group `#{}`", excerpt(name));
            self.fault(DiagnosticKind::UnknownGroup, span(token), message, suggestion);
        }
        found
    }

    fn value(&mut self, token: &Pair<'_, Rule>, attribute: &Attribute<'_>) -> Option<Value> {
        let raw = token.as_str();
        match (token.as_rule(), attribute.kind) {
            (Rule::string, Type::String) => {
                self.string(token).map(|text| Value::String(text.into()))
            }
            (Rule::boolean, Type::Bool) => Some(Value::Bool(raw == "true")),
            (Rule::number, Type::Number) => {
                let number = raw.parse().ok().and_then(Number::try_new);
                if number.is_none() {
                    let message = format!("this number is out of range: at most {:e}", f64::MAX);
                    self.fault(DiagnosticKind::NumberOutOfRange, span(token), message, None);
                }
                number.map(Value::Number)
            }
            (Rule::version, Type::Version) => match raw.parse() {
                Ok(version) => Some(Value::Version(version)),
                Err(error) => {
                    let kind = DiagnosticKind::NumberOutOfRange;
                    self.fault(kind, span(token), ParseVersionError::to_string(&error), None);
                    None
                }
            },
            (_, kind) => {
                self.wrong_type(token, kind, attribute.name);
                None
            }
        }
    }

    fn wrong_type(&mut self, token: &Pair<'_, Rule>, kind: Type, name: &str) {
        let raw = token.as_str();
        let content = match token.as_rule() {
            Rule::string => unescape(raw).unwrap_or_default(),
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
        };
        let quotes = if kind == Type::String && token.as_rule() == Rule::unquoted {
            ", in quotes,"
        } else {
            ""
        };
        let message = format!("expected {}{quotes} because {name} is {}", a(kind), a(kind));
        let replacement = replacement.filter(|text| text.len() <= NAME_BYTES_MAX);
        self.fault(DiagnosticKind::WrongType, span(token), message, replacement);
    }

    fn string(&mut self, token: &Pair<'_, Rule>) -> Option<String> {
        match unescape(token.as_str()) {
            Ok(text) => Some(text),
            Err(Escape { at, message }) => {
                let start = span(token).start;
                let place = start + at.start..start + at.end;
                self.fault(DiagnosticKind::Syntax, place, message.to_owned(), None);
                None
            }
        }
    }

    fn fault(
        &mut self,
        kind: DiagnosticKind,
        span: Range<usize>,
        message: String,
        suggestion: Option<String>,
    ) {
        if self.faults.len() < DIAGNOSTICS_MAX {
            let fault = Diagnostic::new(kind, self.text, span, message);
            self.faults.push(fault.suggest(suggestion));
        }
    }

    /// The declared name with the smallest edit distance, if that is small for the name's length.
    fn near(&mut self, group: bool, name: &str) -> Option<String> {
        if self.faults.len() >= DIAGNOSTICS_MAX || name.len() > NAME_BYTES_MAX {
            return None;
        }
        let key = (group, name.to_owned());
        if let Some(known) = self.near.get(&key) {
            return known.clone();
        }
        if self.near.len() == SUGGESTED_MAX {
            return None;
        }
        let mut nearest: Option<(usize, String)> = None;
        let mut looked_at = 0;
        let mut visit = |candidate: &str| {
            looked_at += 1;
            if looked_at > LOOKED_AT_MAX {
                return;
            }
            let allowed = (name.len() / 3).clamp(1, 3);
            let Some(distance) = edit_distance(name, candidate, allowed) else { return };
            // Names come in any order; the smaller one of two equally near makes the answer stable.
            let better = nearest
                .as_ref()
                .is_none_or(|(least, best)| (distance, candidate) < (*least, best.as_str()));
            if better {
                nearest = Some((distance, candidate.to_owned()));
            }
        };
        if group {
            self.schema.visit_group_names(&mut visit);
        } else {
            self.schema.visit_attribute_names(&mut visit);
        }
        let nearest = nearest.map(|(_, name)| name);
        self.near.insert(key, nearest.clone());
        nearest
    }
}

fn span(token: &Pair<'_, Rule>) -> Range<usize> {
    let span = token.as_span();
    span.start()..span.end()
}

fn a(kind: Type) -> &'static str {
    match kind {
        Type::String => "a string",
        Type::Number => "a number",
        Type::Bool => "a bool",
        Type::Version => "a version",
    }
}

/// A fault within a string literal, at bytes of the literal.
struct Escape {
    at: Range<usize>,
    message: &'static str,
}

/// The text of a string literal, whose quotes the grammar has seen to.
fn unescape(literal: &str) -> Result<String, Escape> {
    let end = literal.len() - 1;
    let mut text = String::with_capacity(end);
    let mut at = 1;
    while let Some(c) = literal[at..end].chars().next() {
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

/// Edits (insert, delete, replace, swap of two neighbours) between two names, without regard to
/// case; `None` above `allowed` or if a name is longer than a name can be.
fn edit_distance(a: &str, b: &str, allowed: usize) -> Option<usize> {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > allowed || a.len().max(b.len()) > NAME_BYTES_MAX {
        return None;
    }
    let mut above = [0; NAME_BYTES_MAX + 1];
    let mut row: [usize; NAME_BYTES_MAX + 1] = std::array::from_fn(|index| index);
    for i in 1..=a.len() {
        let mut next = [0; NAME_BYTES_MAX + 1];
        next[0] = i;
        let mut least = i;
        for j in 1..=b.len() {
            let same = |i: usize, j: usize| a[i - 1].eq_ignore_ascii_case(&b[j - 1]);
            let mut distance = (row[j] + 1).min(next[j - 1] + 1);
            distance = distance.min(row[j - 1] + usize::from(!same(i, j)));
            if i > 1 && j > 1 && same(i, j - 1) && same(i - 1, j) {
                distance = distance.min(above[j - 2] + 1);
            }
            next[j] = distance;
            least = least.min(distance);
        }
        if least > allowed {
            return None;
        }
        above = row;
        row = next;
    }
    Some(row[b.len()]).filter(|&distance| distance <= allowed)
}
