//! Evaluation for one device, in Kleene's three-valued logic.
//!
//! | `a`     | `b`     | `a and b` | `a or b` | `not a` |
//! |---------|---------|-----------|----------|---------|
//! | true    | true    | true      | true     | false   |
//! | true    | unknown | unknown   | true     | false   |
//! | true    | false   | false     | true     | false   |
//! | unknown | true    | unknown   | true     | unknown |
//! | unknown | unknown | unknown   | unknown  | unknown |
//! | unknown | false   | false     | unknown  | unknown |
//! | false   | true    | false     | true     | true    |
//! | false   | unknown | false     | unknown  | true    |
//! | false   | false   | false     | false    | true    |
//!
//! A comparison or `in` is unknown for a device that lacks the attribute; `has`, `#group` and `all`
//! never are. Each node is visited at most once, and a list is searched by halving.

use std::cmp::Ordering;

use crate::tree::{Comparison, Node};
use crate::{Expression, Profile, Value};

/// The outcome for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Truth {
    True,
    False,
    /// It depends on an attribute that the device lacks.
    Unknown,
}

impl From<bool> for Truth {
    fn from(truth: bool) -> Self {
        if truth { Self::True } else { Self::False }
    }
}

impl std::ops::Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
        }
    }
}

impl Expression {
    /// Whether the device is a recipient: whether the outcome is [`Truth::True`].
    pub fn matches(&self, device: &impl Profile) -> bool {
        self.evaluate(device) == Truth::True
    }

    /// The outcome for one device.
    ///
    /// A value of another type than the expression was checked against counts as lacking.
    pub fn evaluate(&self, device: &impl Profile) -> Truth {
        evaluate(self.root(), device)
    }
}

fn evaluate(node: &Node, device: &impl Profile) -> Truth {
    match node {
        Node::Everyone => Truth::True,
        Node::Group(id) => device.in_group(*id).into(),
        Node::Has(id) => device.attribute(*id).is_some().into(),
        Node::Compare { attribute, comparison, value } => match device.attribute(*attribute) {
            Some(actual) if actual.kind() == value.kind() => {
                comparison.holds(actual.cmp(value)).into()
            }
            _ => Truth::Unknown,
        },
        Node::In { attribute, values } => match device.attribute(*attribute) {
            Some(actual) if values.first().map(Value::kind) == Some(actual.kind()) => {
                values.binary_search(actual).is_ok().into()
            }
            _ => Truth::Unknown,
        },
        Node::Not(inner) => !evaluate(inner, device),
        Node::And(children) => chain(children, device, Truth::True, Truth::False),
        Node::Or(children) => chain(children, device, Truth::False, Truth::True),
    }
}

/// `neutral` unless a child is `decisive`, which ends the walk, or unknown.
fn chain(children: &[Node], device: &impl Profile, neutral: Truth, decisive: Truth) -> Truth {
    let mut outcome = neutral;
    for child in children {
        let truth = evaluate(child, device);
        if truth == decisive {
            return decisive;
        }
        if truth == Truth::Unknown {
            outcome = Truth::Unknown;
        }
    }
    outcome
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}
