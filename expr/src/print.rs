//! Canonical text: one text for one tree, which parses back to that tree.
//!
//! Two forms. With names, for people. With ids (`:16 digits` for an attribute, `#:16 digits` for a
//! group), for storage: it needs no schema and outlives every rename. Parentheses stand only where
//! the tree needs them, so a printed text never nests deeper than the one it was parsed from.

use std::fmt::Write as _;

use crate::tree::{Comparison, Node};
use crate::{
    AttributeId, Expression, GroupId, Schema, Value, valid_attribute_name, valid_group_name,
};

impl Expression {
    /// The canonical text with the present names. What the schema does not name, or names in a way
    /// that would not parse, is printed by its id.
    #[must_use]
    pub fn to_text(&self, schema: &dyn Schema) -> String {
        self.print(Some(schema))
    }

    /// The canonical text with ids instead of names, for storage. It may be longer than what was
    /// parsed, so read it with [`Limits::STORED`](crate::Limits::STORED).
    #[must_use]
    pub fn to_stored(&self) -> String {
        self.print(None)
    }

    fn print(&self, schema: Option<&dyn Schema>) -> String {
        let mut printer = Printer { schema, out: String::new() };
        printer.node(self.root());
        printer.out
    }
}

struct Printer<'a> {
    schema: Option<&'a dyn Schema>,
    out: String,
}

impl Printer<'_> {
    fn node(&mut self, node: &Node) {
        match node {
            Node::Everyone => self.out.push_str("all"),
            Node::Group(id) => self.group(*id),
            Node::Has(id) => {
                self.out.push_str("has ");
                self.attribute(*id);
            }
            Node::Compare {
                attribute,
                comparison: Comparison::Equal,
                value: Value::Bool(true),
            } => self.attribute(*attribute),
            Node::Compare { attribute, comparison, value } => {
                self.attribute(*attribute);
                self.out.push(' ');
                self.out.push_str(comparison.as_str());
                self.out.push(' ');
                self.value(value);
            }
            Node::In { attribute, values } => self.list(*attribute, " in (", values),
            Node::Not(inner) => match &**inner {
                Node::In { attribute, values } => self.list(*attribute, " not in (", values),
                inner => {
                    self.out.push_str("not ");
                    self.within(inner, matches!(inner, Node::And(_) | Node::Or(_)));
                }
            },
            Node::And(children) => self.chain(children, " and "),
            Node::Or(children) => self.chain(children, " or "),
        }
    }

    fn chain(&mut self, children: &[Node], operator: &str) {
        for (index, child) in children.iter().enumerate() {
            if index > 0 {
                self.out.push_str(operator);
            }
            // Within `or` nothing needs parentheses: `and` binds tighter, and `or` is merged.
            self.within(child, matches!(child, Node::Or(_)));
        }
    }

    fn within(&mut self, node: &Node, parentheses: bool) {
        if parentheses {
            self.out.push('(');
        }
        self.node(node);
        if parentheses {
            self.out.push(')');
        }
    }

    fn list(&mut self, attribute: AttributeId, operator: &str, values: &[Value]) {
        self.attribute(attribute);
        self.out.push_str(operator);
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            self.value(value);
        }
        self.out.push(')');
    }

    fn attribute(&mut self, id: AttributeId) {
        let name = self.schema.and_then(|schema| schema.attribute_name(id)).map(|(name, _)| name);
        match name.filter(|name| valid_attribute_name(name)) {
            Some(name) => self.out.push_str(name),
            None => self.id(":", id),
        }
    }

    fn group(&mut self, id: GroupId) {
        let name = self.schema.and_then(|schema| schema.group_name(id));
        match name.filter(|name| valid_group_name(name)) {
            Some(name) => {
                self.out.push('#');
                self.out.push_str(name);
            }
            None => self.id("#:", id),
        }
    }

    fn id(&mut self, sigil: &str, id: impl std::fmt::Display) {
        write!(self.out, "{sigil}{id}").expect("writing to a string cannot fail");
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => quote(text, &mut self.out),
            Value::Number(number) => self.id("", number),
            Value::Bool(flag) => self.id("", flag),
            Value::Version(version) => self.id("v", version),
        }
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
