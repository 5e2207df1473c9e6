//! Index terms: what a device must have, at least one of, to be a recipient.
//!
//! Matching many messages to one device starts from an index, not from all messages. The terms of an
//! expression are the entries under which the index files it: a *necessary* condition, as selective
//! as the shape of the expression allows, which evaluation then confirms. [`visit_terms`] is the
//! other side: the entries under which a device looks. Both stand here so that no kind of term can be
//! known to one side only.

use std::collections::HashSet;
use std::sync::Arc;

use crate::compile::{Ask, Asked, Dag};
use crate::steps::step;
use crate::tree::{Comparison, Operand, Quantifier, Subject, Test, index};
use crate::{AttributeId, Expression, GroupId, Value};

/// One thing that a device can have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Term {
    /// It is a member.
    Group(GroupId),
    /// Its value equals this one.
    Equals(AttributeId, Value),
    /// It has some value.
    Has(AttributeId),
    /// It has this id.
    Device(u64),
    /// It belongs to this user.
    User(Arc<str>),
    /// It belongs to some user.
    HasUser,
    /// Its set has this entry.
    Contains(AttributeId, Arc<str>),
}

/// Shows every term that a device satisfies, each once: an index that files expressions under their
/// [`terms`](Expression::terms) looks under these.
pub fn visit_terms<'a>(
    id: u64,
    user: Option<&Arc<str>>,
    attributes: impl IntoIterator<Item = &'a (AttributeId, Value)>,
    groups: impl IntoIterator<Item = &'a GroupId>,
    visit: &mut dyn FnMut(&Term),
) {
    visit(&Term::Device(id));
    if let Some(user) = user {
        visit(&Term::HasUser);
        visit(&Term::User(user.clone()));
    }
    for group in groups {
        visit(&Term::Group(*group));
    }
    for (attribute, value) in attributes {
        visit(&Term::Has(*attribute));
        visit(&Term::Equals(*attribute, value.clone()));
        if let Value::Set(set) = value {
            for entry in set.entries() {
                visit(&Term::Contains(*attribute, entry.clone()));
            }
        }
    }
}

/// Where an index files an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Terms {
    /// Every recipient satisfies at least one of these. Not empty, sorted, distinct.
    Any(Vec<Term>),
    /// No necessary term is known: any device may be a recipient.
    Everyone,
    /// No device can be a recipient.
    Nobody,
}

impl Expression {
    /// The cheapest necessary terms. Takes `n log n` steps, so keep the answer.
    ///
    /// A conjunction is filed under its best child, a disjunction under all of them, and a negation
    /// is pushed inward first: `not country == "SE"` needs `has country`, since it is unknown
    /// otherwise.
    #[must_use]
    pub fn terms(&self) -> Terms {
        let dag = self.dag();
        let root = Ask { node: dag.root(), wanted: true };
        let needs = Needs::of_all(dag);
        match needs[root.place()] {
            Needs::Nobody => Terms::Nobody,
            Needs::Everyone => Terms::Everyone,
            Needs::Any { .. } => {
                let mut terms = collect(dag, root, &needs);
                let present: HashSet<_> = terms
                    .iter()
                    .filter_map(|term| match term {
                        Term::Has(id) => Some(*id),
                        _ => None,
                    })
                    .collect();
                let any_user = terms.contains(&Term::HasUser);
                terms.retain(|term| match term {
                    Term::Equals(id, _) | Term::Contains(id, _) => !present.contains(id),
                    Term::User(_) => !any_user,
                    _ => true,
                });
                terms.sort_unstable();
                terms.dedup();
                Terms::Any(terms)
            }
        }
    }
}

/// How much of an index a question takes in: less is more selective. `Has` takes in most devices, so
/// the number of those counts first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    Nobody,
    Any { has: usize, terms: usize },
    Everyone,
}

impl Needs {
    /// For each question about each node.
    fn of_all(dag: &Dag) -> Vec<Self> {
        let mut needs = vec![Self::Everyone; dag.nodes().len() * 2];
        for node in 0..index(dag.nodes().len()) {
            for wanted in [false, true] {
                step(1);
                let ask = Ask { node, wanted };
                needs[ask.place()] = match dag.asked(ask) {
                    Asked::Const(true) => Self::Everyone,
                    Asked::Const(false) => Self::Nobody,
                    Asked::Test(test, _, wanted) => Self::of_test(test, wanted),
                    Asked::Kids { all, kids, wanted } => {
                        let each = kids.iter().map(|kid| needs[Ask { node: *kid, wanted }.place()]);
                        if all {
                            each.min().unwrap_or(Self::Everyone)
                        } else {
                            each.fold(Self::Nobody, Self::or)
                        }
                    }
                };
            }
        }
        needs
    }

    fn of_test(test: &Test, wanted: bool) -> Self {
        let (mut has, mut terms) = (0, 0);
        let known = test.visit_needs(wanted, &mut |term| {
            terms += 1;
            has += usize::from(matches!(term, Term::Has(_) | Term::HasUser));
        });
        if known { Self::Any { has, terms } } else { Self::Everyone }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Everyone, _) | (_, Self::Everyone) => Self::Everyone,
            (Self::Nobody, needs) | (needs, Self::Nobody) => needs,
            (Self::Any { has: a, terms: x }, Self::Any { has: b, terms: y }) => {
                Self::Any { has: a.saturating_add(b), terms: x.saturating_add(y) }
            }
        }
    }
}

/// The terms of a question, unsorted. Each question is looked at once.
fn collect(dag: &Dag, root: Ask, needs: &[Needs]) -> Vec<Term> {
    let mut terms = Vec::new();
    let mut seen = vec![false; needs.len()];
    let mut open = vec![root];
    while let Some(ask) = open.pop() {
        step(1);
        if std::mem::replace(&mut seen[ask.place()], true) {
            continue;
        }
        match dag.asked(ask) {
            Asked::Const(_) => {}
            Asked::Test(test, _, wanted) => {
                test.visit_needs(wanted, &mut |term| terms.push(term));
            }
            Asked::Kids { all, kids, wanted } => {
                let kids = kids.iter().map(|kid| Ask { node: *kid, wanted });
                if all {
                    open.extend(kids.min_by_key(|kid| needs[kid.place()]));
                } else {
                    open.extend(kids);
                }
            }
        }
    }
    terms
}

impl Test {
    /// Shows the terms of which a device must satisfy one for the test to be true, or false where not
    /// `wanted`; shows none and says `false` if any device may do.
    fn visit_needs(&self, wanted: bool, visit: &mut dyn FnMut(Term)) -> bool {
        let mut equals = |subject: &Subject, value: &Value| match (subject, value) {
            (Subject::Attribute(id), value) => visit(Term::Equals(*id, value.clone())),
            (Subject::User, Value::String(user)) => visit(Term::User(user.clone())),
            _ => {}
        };
        match (self, wanted) {
            (Self::Group(id), true) => visit(Term::Group(*id)),
            (Self::Device(ids), true) => ids.iter().for_each(|id| visit(Term::Device(*id))),
            (Self::Has(subject), true) => return has(*subject, visit),
            // To lack something is no entry of an index.
            (Self::Group(_) | Self::Device(_) | Self::Has(_), false) => return false,
            (Self::Everyone | Self::Sample { .. }, _) => return false,
            (
                Self::Compare { subject, comparison, value: Operand::Value(Value::Bool(flag)) },
                _,
            ) => {
                let equal = *comparison == Comparison::Equal;
                equals(subject, &Value::Bool(*flag == (equal == wanted)));
            }
            (
                Self::Compare {
                    subject,
                    comparison: Comparison::Equal,
                    value: Operand::Value(value),
                },
                true,
            )
            | (
                Self::Compare {
                    subject,
                    comparison: Comparison::NotEqual,
                    value: Operand::Value(value),
                },
                false,
            ) if *subject != Subject::LastSeen => equals(subject, value),
            (Self::In { subject, values, fold: false }, true) if *subject != Subject::LastSeen => {
                values.iter().for_each(|value| equals(subject, value));
            }
            (Self::Entries { attribute, quantifier, entries }, _) => match (quantifier, wanted) {
                (Quantifier::Any, true) | (Quantifier::None, false) => {
                    entries
                        .iter()
                        .for_each(|entry| visit(Term::Contains(*attribute, entry.clone())));
                }
                (Quantifier::All, true) => {
                    entries
                        .iter()
                        .take(1)
                        .for_each(|e| visit(Term::Contains(*attribute, e.clone())));
                }
                _ => visit(Term::Has(*attribute)),
            },
            (
                Self::Compare { subject, .. }
                | Self::Between { subject, .. }
                | Self::In { subject, .. }
                | Self::Text { subject, .. }
                | Self::Matches { subject, .. }
                | Self::Within { subject, .. },
                _,
            ) => return has(*subject, visit),
            (
                Self::Near { attribute, .. }
                | Self::LocalTime { offset: attribute, .. }
                | Self::LocalDay { offset: attribute, .. },
                _,
            ) => visit(Term::Has(*attribute)),
        }
        true
    }
}

/// Whether it is known to be needed that the device has it: `last_seen` is in no index.
fn has(subject: Subject, visit: &mut dyn FnMut(Term)) -> bool {
    match subject {
        Subject::Attribute(id) => visit(Term::Has(id)),
        Subject::User => visit(Term::HasUser),
        Subject::LastSeen => return false,
    }
    true
}
