//! Index terms: what a device must have, at least one of, to be a recipient.
//!
//! Matching many messages to one device starts from an index, not from all messages. The terms of an
//! expression are the entries under which the index files it: a *necessary* condition, as selective
//! as the shape of the expression allows, which evaluation then confirms.

use std::collections::HashSet;

use crate::tree::{Comparison, Node};
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
        match necessary(self.root(), true) {
            Needs::Nobody => Terms::Nobody,
            Needs::Everyone => Terms::Everyone,
            Needs::Any { mut terms, .. } => {
                let present: HashSet<_> = terms
                    .iter()
                    .filter_map(|term| match term {
                        Term::Has(id) => Some(*id),
                        _ => None,
                    })
                    .collect();
                terms.retain(|term| !matches!(term, Term::Equals(id, _) if present.contains(id)));
                terms.sort_unstable();
                terms.dedup();
                Terms::Any(terms)
            }
        }
    }
}

/// [`Terms`] while they are gathered: unsorted, with the number of `Has` among them.
enum Needs {
    Nobody,
    Any { terms: Vec<Term>, has: usize },
    Everyone,
}

impl Needs {
    fn one(term: Term) -> Self {
        let has = usize::from(matches!(term, Term::Has(_)));
        Self::Any { terms: vec![term], has }
    }

    fn has(attribute: AttributeId) -> Self {
        Self::one(Term::Has(attribute))
    }

    /// Less is more selective: `Has` takes in most devices, so the number of those counts first.
    fn cost(&self) -> (u8, usize, usize) {
        match self {
            Self::Nobody => (0, 0, 0),
            Self::Any { terms, has } => (1, *has, terms.len()),
            Self::Everyone => (2, 0, 0),
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Everyone, _) | (_, Self::Everyone) => Self::Everyone,
            (Self::Nobody, needs) | (needs, Self::Nobody) => needs,
            (Self::Any { terms: a, has: x }, Self::Any { terms: b, has: y }) => {
                // Moving the smaller into the larger keeps nested unions at n log n.
                let (mut terms, less) = if a.len() < b.len() { (b, a) } else { (a, b) };
                terms.extend(less);
                Self::Any { terms, has: x + y }
            }
        }
    }
}

/// What a device needs for `node` to be true (`wanted`) or false (not `wanted`).
fn necessary(node: &Node, wanted: bool) -> Needs {
    match node {
        Node::Everyone if wanted => Needs::Everyone,
        Node::Everyone => Needs::Nobody,
        Node::Group(id) if wanted => Needs::one(Term::Group(*id)),
        Node::Has(id) if wanted => Needs::has(*id),
        // To lack something is no entry of an index.
        Node::Group(_) | Node::Has(_) => Needs::Everyone,
        Node::Compare { attribute, comparison, value } => match (comparison, value) {
            (Comparison::Equal | Comparison::NotEqual, Value::Bool(flag)) => {
                let equal = *comparison == Comparison::Equal;
                Needs::one(Term::Equals(*attribute, Value::Bool(*flag == (equal == wanted))))
            }
            (Comparison::Equal, _) if wanted => Needs::one(Term::Equals(*attribute, value.clone())),
            (Comparison::NotEqual, _) if !wanted => {
                Needs::one(Term::Equals(*attribute, value.clone()))
            }
            _ => Needs::has(*attribute),
        },
        Node::In { attribute, values } if wanted => Needs::Any {
            terms: values.iter().map(|value| Term::Equals(*attribute, value.clone())).collect(),
            has: 0,
        },
        Node::In { attribute, .. } => Needs::has(*attribute),
        Node::Not(inner) => necessary(inner, !wanted),
        // One child decides a disjunction that must be true or a conjunction that must be false.
        Node::Or(children) if wanted => any(children, wanted),
        Node::And(children) if !wanted => any(children, wanted),
        Node::And(children) | Node::Or(children) => children
            .iter()
            .map(|child| necessary(child, wanted))
            .min_by_key(Needs::cost)
            .unwrap_or(Needs::Everyone),
    }
}

fn any(children: &[Node], wanted: bool) -> Needs {
    children.iter().map(|child| necessary(child, wanted)).fold(Needs::Nobody, Needs::or)
}
