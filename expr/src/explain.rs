//! Why a device is a recipient, or is none.
//!
//! The expression as a tree with the outcome of every part and what it looked at. It is worked out from
//! the tree as it was written, so that the reader finds what he wrote, not what the compiler made
//! of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::diagnostic::floor_boundary;
use crate::eval::truth;
use crate::print::Printer;
use crate::steps::step;
use crate::tree::{Join, Node, Operand, Subject, Test};
use crate::{AttributeId, AudienceId, Context, Expression, Profile, Schema, Truth, Value};

/// The most bytes of a value that are shown. A large set may be looked at by thousands of tests, and each shows it.
const SHOWN_BYTES_MAX: usize = 1_024;

/// The outcome of an expression for one device, part by part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whether the device is a recipient.
    pub matches: bool,
    /// The parts from the whole to the smallest, each before those it is made of.
    pub parts: Vec<Part>,
}

/// One part of an expression.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// 0 for the whole; a part belongs to the last one before it that is one less deep.
    pub depth: usize,
    /// The canonical text of a test; for what is made of parts, its operator or its name.
    pub text: String,
    pub truth: Truth,
    /// What the test looked at.
    pub saw: Vec<Saw>,
}

/// Something of the device, or of the moment, that a test looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Saw {
    /// The name of an attribute, or `user`, `last_seen`, `device`, `now`, `message`.
    pub name: String,
    /// As it would be written in an expression, a long one cut with `…`; `None` if there is none.
    pub value: Option<String>,
}

impl Expression {
    /// Works out every part, also those that cannot change the whole. An audience is taken apart where
    /// it is met first. Takes steps in proportion to [`nodes`](Expression::nodes).
    pub fn explain(
        &self,
        device: &impl Profile,
        context: &Context,
        schema: &dyn Schema,
    ) -> Explanation {
        let explainer = Explainer { device, context, schema };
        let mut audiences: BTreeMap<AudienceId, (Truth, bool)> = BTreeMap::new();
        let truths = explainer.truths(self, &mut audiences);
        let matches = truths.last() == Some(&Truth::True);
        let mut parts = Vec::new();
        let mut open = vec![Open { of: self, truths, next: vec![(self.tree().root(), 0)] }];
        while let Some(level) = open.last_mut() {
            step(1);
            let Some((node, depth)) = level.next.pop() else {
                open.pop();
                continue;
            };
            let truth = level.truths[node as usize];
            let tree = level.of.tree();
            let (mut text, mut saw) = (String::new(), Vec::new());
            let mut inner = None;
            match tree.node(node) {
                Node::Test(test) => {
                    let mut printer = Printer::new(Some(schema));
                    printer.test(test, false);
                    text = printer.out;
                    saw = explainer.saw(test);
                }
                Node::Not(kid) => {
                    text.push_str("not");
                    level.next.push((*kid, depth + 1));
                }
                Node::Chain { join, from, to } => {
                    text.push_str(match join {
                        Join::And => "and",
                        Join::Or => "or",
                    });
                    let kids = tree.chain(*from, *to).iter().rev();
                    level.next.extend(kids.map(|kid| (*kid, depth + 1)));
                }
                Node::Audience(id) => {
                    let mut printer = Printer::new(Some(schema));
                    printer.audience(*id);
                    text = printer.out;
                    let shown = audiences
                        .get_mut(id)
                        .is_none_or(|(_, shown)| std::mem::replace(shown, true));
                    inner = level.of.audience(*id).filter(|_| !shown);
                }
            }
            parts.push(Part { depth, text, truth, saw });
            if let Some(of) = inner {
                let truths = explainer.truths(of, &mut audiences);
                open.push(Open { of, truths, next: vec![(of.tree().root(), depth + 1)] });
            }
        }
        Explanation { matches, parts }
    }
}

/// A tree that is being walked.
struct Open<'a> {
    of: &'a Expression,
    truths: Vec<Truth>,
    /// Nodes with their depth, the next one last.
    next: Vec<(u32, usize)>,
}

struct Explainer<'a, P> {
    device: &'a P,
    context: &'a Context,
    schema: &'a dyn Schema,
}

impl<P: Profile> Explainer<'_, P> {
    /// The outcome of each node of a tree. `audiences` holds those met so far, and whether they were
    /// taken apart.
    fn truths(
        &self,
        of: &Expression,
        audiences: &mut BTreeMap<AudienceId, (Truth, bool)>,
    ) -> Vec<Truth> {
        let tree = of.tree();
        let mut truths: Vec<Truth> = Vec::with_capacity(tree.nodes().len());
        for node in tree.nodes() {
            step(1);
            truths.push(match node {
                Node::Test(test) => truth(test, self.device, self.context).into(),
                Node::Not(inner) => !truths[*inner as usize],
                Node::Audience(id) => {
                    let known = audiences.entry(*id).or_insert_with(|| {
                        let audience = of.audience(*id);
                        let truth = audience.map(|of| of.evaluate_in(self.device, self.context));
                        (truth.unwrap_or(Truth::Unknown), false)
                    });
                    known.0
                }
                Node::Chain { join, from, to } => {
                    let kids = tree.chain(*from, *to).iter().map(|kid| truths[*kid as usize]);
                    let (neutral, decisive) = match join {
                        Join::And => (Truth::True, Truth::False),
                        Join::Or => (Truth::False, Truth::True),
                    };
                    kids.fold(neutral, |sum, kid| match (sum, kid) {
                        (sum, kid) if sum == decisive || kid == decisive => decisive,
                        (Truth::Unknown, _) | (_, Truth::Unknown) => Truth::Unknown,
                        _ => neutral,
                    })
                }
            });
        }
        truths
    }

    fn saw(&self, test: &Test) -> Vec<Saw> {
        let device = |saw: &mut Vec<Saw>| {
            let id = self.device.device_id().map(|id| format!("\"{id:016x}\""));
            saw.push(Saw { name: "device".to_owned(), value: id });
        };
        let now = |saw: &mut Vec<Saw>| {
            let now = self.context.now.map(|now| now.to_string());
            saw.push(Saw { name: "now".to_owned(), value: now });
        };
        let mut saw = Vec::new();
        if let Some(id) = test.attribute() {
            saw.push(self.value_of(id));
        }
        match test {
            Test::Device(_) => device(&mut saw),
            Test::Sample { salt, .. } => {
                device(&mut saw);
                if salt.is_none() {
                    let id = self.context.message.map(|id| format!("\"{id:016x}\""));
                    saw.push(Saw { name: "message".to_owned(), value: id });
                }
            }
            Test::Has(subject)
            | Test::Compare { subject, .. }
            | Test::Between { subject, .. }
            | Test::In { subject, .. }
            | Test::Text { subject, .. }
            | Test::Matches { subject, .. }
            | Test::Within { subject, .. } => match subject {
                Subject::Attribute(_) => {}
                Subject::User => {
                    let user =
                        self.device.user().map(|user| self.print(&Value::String(user.into())));
                    saw.push(Saw { name: "user".to_owned(), value: user });
                }
                Subject::LastSeen => {
                    let seen = self.device.last_seen().map(|seen| seen.to_string());
                    saw.push(Saw { name: "last_seen".to_owned(), value: seen });
                }
            },
            _ => {}
        }
        let clock = |operand: &Operand| matches!(operand, Operand::Now(_));
        let looked = match test {
            Test::Within { .. } | Test::LocalTime { .. } | Test::LocalDay { .. } => true,
            Test::Compare { value, .. } => clock(value),
            Test::Between { low, high, .. } => clock(low) || clock(high),
            _ => false,
        };
        if looked {
            now(&mut saw);
        }
        saw
    }

    fn value_of(&self, id: AttributeId) -> Saw {
        let mut printer = Printer::new(Some(self.schema));
        printer.attribute(id);
        let value = self.device.attribute(id).map(|value| self.print(value));
        Saw { name: printer.out, value }
    }

    fn print(&self, value: &Value) -> String {
        let mut printer = Printer::new(Some(self.schema));
        printer.value(value);
        let mut shown = printer.out;
        if shown.len() > SHOWN_BYTES_MAX {
            shown.truncate(floor_boundary(&shown, SHOWN_BYTES_MAX));
            shown.push('…');
        }
        shown
    }
}

/// One line a part: the outcome, the part indented by its depth, and what it looked at.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            let truth = match part.truth {
                Truth::True => "true",
                Truth::False => "false",
                Truth::Unknown => "unknown",
            };
            write!(f, "{truth:<7}  {:indent$}{}", "", part.text, indent = part.depth * 2)?;
            for (at, saw) in part.saw.iter().enumerate() {
                f.write_str(if at == 0 { "    [" } else { ", " })?;
                match &saw.value {
                    Some(value) => write!(f, "{} is {value}", saw.name)?,
                    None => write!(f, "{} is missing", saw.name)?,
                }
            }
            f.write_str(if part.saw.is_empty() { "\n" } else { "]\n" })?;
        }
        Ok(())
    }
}
