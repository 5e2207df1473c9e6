//! The checked tree behind an expression.
//!
//! One tree serves every use (evaluation, index terms, print), so that the uses cannot drift apart.
//!
//! Invariants, which `parse` establishes and every walk relies on:
//!
//! - The height is at most `2 × DEPTH_CEILING + 2`, so recursion over a tree needs no guard.
//! - `And` and `Or` have at least two children, none of them of the same kind.
//! - The values of `In` have one type, are sorted, distinct, and at least one.

use std::fmt;
use std::sync::Arc;

use crate::{AttributeId, GroupId, Value};

/// An expression, checked and immutable. A clone is one reference count.
///
/// Two are equal if their trees are, whatever they are named at present. `Debug` shows the
/// [stored text](Expression::to_stored).
#[derive(Clone)]
pub struct Expression {
    program: Arc<Program>,
}

struct Program {
    root: Node,
    nodes: usize,
    /// Sorted, distinct.
    attributes: Box<[AttributeId]>,
    /// Sorted, distinct.
    groups: Box<[GroupId]>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Everyone,
    Group(GroupId),
    Has(AttributeId),
    Compare { attribute: AttributeId, comparison: Comparison, value: Value },
    In { attribute: AttributeId, values: Box<[Value]> },
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    const ALL: [Self; 6] = [
        Self::Equal,
        Self::NotEqual,
        Self::Less,
        Self::LessOrEqual,
        Self::Greater,
        Self::GreaterOrEqual,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    pub(crate) fn from_symbol(symbol: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|comparison| comparison.as_str() == symbol)
    }

    /// Whether it asks for an order rather than for equality.
    pub(crate) const fn is_order(self) -> bool {
        !matches!(self, Self::Equal | Self::NotEqual)
    }
}

impl Expression {
    /// `all`: every device of the app.
    #[must_use]
    pub fn everyone() -> Self {
        Self::from_root(Node::Everyone)
    }

    /// The attributes referred to, sorted and distinct.
    #[must_use]
    pub fn attributes(&self) -> &[AttributeId] {
        &self.program.attributes
    }

    /// The groups referred to, sorted and distinct.
    #[must_use]
    pub fn groups(&self) -> &[GroupId] {
        &self.program.groups
    }

    /// The size that bounds the cost of an evaluation: operators, tests and list entries.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.program.nodes
    }

    pub(crate) fn root(&self) -> &Node {
        &self.program.root
    }

    /// Brings a tree whose height is bounded into the shape that this module promises.
    pub(crate) fn from_root(root: Node) -> Self {
        let root = root.flatten();
        let (mut attributes, mut groups) = (Vec::new(), Vec::new());
        let nodes = root.survey(&mut attributes, &mut groups);
        attributes.sort_unstable();
        attributes.dedup();
        groups.sort_unstable();
        groups.dedup();
        let program = Program { root, nodes, attributes: attributes.into(), groups: groups.into() };
        Self { program: Arc::new(program) }
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.program, &other.program) || self.program.root == other.program.root
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({})", self.to_stored())
    }
}

impl Node {
    /// Merges chains within chains of the same kind; each node is moved once, so this is linear.
    fn flatten(self) -> Self {
        match self {
            Self::And(children) => {
                let mut flat = Vec::with_capacity(children.len());
                gather(children, &mut flat, &|node| match node {
                    Self::And(children) => Ok(children),
                    other => Err(other),
                });
                Self::And(flat)
            }
            Self::Or(children) => {
                let mut flat = Vec::with_capacity(children.len());
                gather(children, &mut flat, &|node| match node {
                    Self::Or(children) => Ok(children),
                    other => Err(other),
                });
                Self::Or(flat)
            }
            Self::Not(inner) => Self::Not(Box::new(inner.flatten())),
            leaf => leaf,
        }
    }

    /// Counts nodes and collects references.
    fn survey(&self, attributes: &mut Vec<AttributeId>, groups: &mut Vec<GroupId>) -> usize {
        match self {
            Self::Everyone => 1,
            Self::Group(id) => {
                groups.push(*id);
                1
            }
            Self::Has(id) | Self::Compare { attribute: id, .. } => {
                attributes.push(*id);
                1
            }
            Self::In { attribute, values } => {
                attributes.push(*attribute);
                1 + values.len()
            }
            Self::Not(inner) => 1 + inner.survey(attributes, groups),
            Self::And(children) | Self::Or(children) => {
                1 + children.iter().map(|child| child.survey(attributes, groups)).sum::<usize>()
            }
        }
    }
}

/// Appends the children to `flat`, those that `open` takes apart as their own children.
fn gather(
    children: Vec<Node>,
    flat: &mut Vec<Node>,
    open: &dyn Fn(Node) -> Result<Vec<Node>, Node>,
) {
    for child in children {
        match open(child) {
            Ok(grandchildren) => gather(grandchildren, flat, open),
            Err(other) => flat.push(other.flatten()),
        }
    }
}
