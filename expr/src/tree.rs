//! The checked tree behind an expression: what was written, with names resolved.
//!
//! Print, SQL and explanation work on it; evaluation, sets of devices and index terms work on what
//! [`compile`](crate::compile) makes of it.
//!
//! Invariants, which [`Tree::normalised`] establishes and every walk relies on:
//!
//! - Nodes stand in post-order: children before parents, the root last. So what goes upward is a
//!   loop, and what goes downward keeps a stack of its own; nothing recurses.
//! - `And` and `Or` have at least two children, none of them of the same kind.
//! - Values of a list have one type, are sorted, distinct, and at least one.

use std::sync::Arc;

use crate::glob::Glob;
use crate::steps::step;
use crate::{AttributeId, AudienceId, Date, GroupId, Point, Time, Value};

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    /// What the chains of `nodes` point into.
    children: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Test(Test),
    Audience(AudienceId),
    Not(u32),
    /// The children `from..to` of [`Tree::children`].
    Chain {
        join: Join,
        from: u32,
        to: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Join {
    And,
    Or,
}

/// One question about a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Test {
    Everyone,
    Group(GroupId),
    /// Sorted, distinct, at least one.
    Device(Arc<[u64]>),
    Has(Subject),
    Compare {
        subject: Subject,
        comparison: Comparison,
        value: Operand,
    },
    Between {
        subject: Subject,
        low: Operand,
        high: Operand,
    },
    /// With `fold` the values are strings, folded.
    In {
        subject: Subject,
        values: Arc<[Value]>,
        fold: bool,
    },
    /// With `fold` the pattern is folded.
    Text {
        subject: Subject,
        place: Place,
        pattern: Arc<str>,
        fold: bool,
    },
    Matches {
        subject: Subject,
        glob: Arc<Glob>,
        fold: bool,
    },
    /// Of a set; sorted, distinct, at least one.
    Entries {
        attribute: AttributeId,
        quantifier: Quantifier,
        entries: Arc<[Arc<str>]>,
    },
    /// Between the clock and as much before it, or after it with `ahead`.
    Within {
        subject: Subject,
        span: Span,
        ahead: bool,
    },
    /// `reach` follows from `metres`.
    Near {
        attribute: AttributeId,
        centre: Point,
        metres: u32,
        reach: i64,
    },
    /// `salt`: `None` is the message's id.
    Sample {
        ppm: u32,
        salt: Option<Arc<str>>,
    },
    /// Minutes since midnight where the recipient is, by the offset in minutes of an attribute.
    LocalTime {
        offset: AttributeId,
        hours: Hours,
    },
    /// Bit 0 is Monday; at least one.
    LocalDay {
        offset: AttributeId,
        days: u8,
    },
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Attribute(AttributeId),
    User,
    LastSeen,
}

/// What it is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operand {
    Value(Value),
    /// The clock, that much later.
    Now(Span),
}

/// A distance in time from the clock, perhaps negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Span {
    /// Milliseconds from the clock, for a time.
    Ms(i64),
    /// Days from the clock's day of UTC, for a date.
    Days(i64),
}

impl Span {
    pub(crate) fn ms(self) -> i64 {
        match self {
            Self::Ms(ms) => ms,
            Self::Days(days) => days * 86_400_000,
        }
    }

    /// The ends of what is within it: the earlier and the later.
    pub(crate) fn ends(self, ahead: bool) -> (Self, Self) {
        let (zero, before) = match self {
            Self::Ms(ms) => (Self::Ms(0), Self::Ms(-ms)),
            Self::Days(days) => (Self::Days(0), Self::Days(-days)),
        };
        if ahead { (zero, self) } else { (before, zero) }
    }

    /// The value that lies so far from the clock; `None` if there is no clock.
    pub(crate) fn after_clock(self, now: Option<Time>) -> Option<Value> {
        let now = now?;
        Some(match self {
            Self::Ms(ms) => Value::Time(now.plus(ms)),
            Self::Days(days) => Value::Date(Date::saturating(i64::from(now.date().days()) + days)),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Start,
    End,
    Anywhere,
}

impl Place {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "starts_with",
            Self::End => "ends_with",
            Self::Anywhere => "contains",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Quantifier {
    Any,
    All,
    None,
}

impl Quantifier {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::All => "all",
            Self::None => "none",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hours {
    Compare(Comparison, u16),
    /// Both ends belong to it; over midnight if the first is later.
    Between(u16, u16),
}

impl Hours {
    /// `minute` counts from midnight.
    pub(crate) fn holds(self, minute: u16) -> bool {
        match self {
            Self::Compare(comparison, value) => comparison.holds(minute.cmp(&value)),
            Self::Between(low, high) if low <= high => (low..=high).contains(&minute),
            Self::Between(low, high) => minute >= low || minute <= high,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(crate) const ALL: [Self; 6] = [
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

    pub(crate) fn holds(self, order: std::cmp::Ordering) -> bool {
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

impl Test {
    /// What it costs in nodes: one, and one for each entry of a list.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::In { values, .. } => 1 + values.len(),
            Self::Entries { entries, .. } => 1 + entries.len(),
            Self::Device(ids) => 1 + ids.len(),
            _ => 1,
        }
    }

    pub(crate) fn attribute(&self) -> Option<AttributeId> {
        match self {
            Self::Has(subject)
            | Self::Compare { subject, .. }
            | Self::Between { subject, .. }
            | Self::In { subject, .. }
            | Self::Text { subject, .. }
            | Self::Matches { subject, .. }
            | Self::Within { subject, .. } => match subject {
                Subject::Attribute(id) => Some(*id),
                Subject::User | Subject::LastSeen => None,
            },
            Self::Entries { attribute: id, .. }
            | Self::Near { attribute: id, .. }
            | Self::LocalTime { offset: id, .. }
            | Self::LocalDay { offset: id, .. } => Some(*id),
            Self::Everyone | Self::Group(_) | Self::Device(_) | Self::Sample { .. } => None,
        }
    }

    /// Whether its outcome can change while the device does not: by the clock, or by `last_seen`,
    /// which moves no profile.
    pub(crate) fn is_volatile(&self) -> bool {
        let now = |operand: &Operand| matches!(operand, Operand::Now(_));
        match self {
            Self::Within { .. } | Self::LocalTime { .. } | Self::LocalDay { .. } => true,
            Self::Has(subject) | Self::In { subject, .. } => *subject == Subject::LastSeen,
            Self::Compare { subject, value, .. } => *subject == Subject::LastSeen || now(value),
            Self::Between { subject, low, high } => {
                *subject == Subject::LastSeen || now(low) || now(high)
            }
            _ => false,
        }
    }
}

impl Tree {
    /// Sizes of its arrays, in bytes.
    pub(crate) fn arrays(&self) -> [usize; 2] {
        [size_of_val(&*self.nodes), size_of_val(&*self.children)]
    }

    pub(crate) fn leaf(test: Test) -> Self {
        Self { nodes: vec![Node::Test(test)], children: Vec::new() }
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    pub(crate) fn root(&self) -> u32 {
        index(self.nodes.len() - 1)
    }

    pub(crate) fn chain(&self, from: u32, to: u32) -> &[u32] {
        &self.children[from as usize..to as usize]
    }

    /// Operators, tests and list entries.
    pub(crate) fn weight(&self) -> usize {
        self.nodes
            .iter()
            .map(|node| match node {
                Node::Test(test) => test.weight(),
                _ => 1,
            })
            .sum()
    }
}

/// A tree while it is read: in any shape, each node pushed after its children.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    nodes: Vec<DraftNode>,
}

#[derive(Debug)]
enum DraftNode {
    Taken,
    Test(Test),
    Audience(AudienceId),
    Not(u32),
    Chain(Join, Vec<u32>),
}

impl Draft {
    fn push(&mut self, node: DraftNode) -> u32 {
        self.nodes.push(node);
        index(self.nodes.len() - 1)
    }

    pub(crate) fn test(&mut self, test: Test) -> u32 {
        self.push(DraftNode::Test(test))
    }

    pub(crate) fn audience(&mut self, id: AudienceId) -> u32 {
        self.push(DraftNode::Audience(id))
    }

    pub(crate) fn not(&mut self, inner: u32) -> u32 {
        self.push(DraftNode::Not(inner))
    }

    /// The operand itself if it is alone. `operands` is not empty.
    pub(crate) fn chain(&mut self, join: Join, operands: Vec<u32>) -> u32 {
        match operands[..] {
            [only] => only,
            _ => self.push(DraftNode::Chain(join, operands)),
        }
    }

    /// Merges chains within chains of one kind and puts all in post-order; each node is moved once.
    pub(crate) fn normalised(mut self, root: u32) -> Tree {
        enum Work {
            /// A node, and the kind of chain in which it stands.
            Visit(u32, Option<Join>),
            /// The children of a chain are done, from this place on.
            Close(Join, usize),
            CloseNot,
        }
        let mut tree = Tree { nodes: Vec::with_capacity(self.nodes.len()), children: Vec::new() };
        let mut work = vec![Work::Visit(root, None)];
        let mut done: Vec<u32> = Vec::new();
        while let Some(work_item) = work.pop() {
            step(1);
            let node = match work_item {
                Work::Visit(at, within) => {
                    let slot = &mut self.nodes[at as usize];
                    match std::mem::replace(slot, DraftNode::Taken) {
                        DraftNode::Test(test) => Node::Test(test),
                        DraftNode::Audience(id) => Node::Audience(id),
                        DraftNode::Not(inner) => {
                            work.push(Work::CloseNot);
                            work.push(Work::Visit(inner, None));
                            continue;
                        }
                        DraftNode::Chain(join, children) => {
                            if within != Some(join) {
                                work.push(Work::Close(join, done.len()));
                            }
                            let children = children.into_iter().rev();
                            work.extend(children.map(|child| Work::Visit(child, Some(join))));
                            continue;
                        }
                        DraftNode::Taken => unreachable!("each node has one parent"),
                    }
                }
                Work::Close(join, start) => {
                    let from = index(tree.children.len());
                    step(done.len() - start);
                    tree.children.extend(done.drain(start..));
                    Node::Chain { join, from, to: index(tree.children.len()) }
                }
                Work::CloseNot => Node::Not(done.pop().expect("its operand is done")),
            };
            tree.nodes.push(node);
            done.push(index(tree.nodes.len() - 1));
        }
        // It is kept for as long as a message is.
        tree.nodes.shrink_to_fit();
        tree.children.shrink_to_fit();
        tree
    }
}

/// A place in a list of nodes: each costs at least a byte of text, of which there are fewer than 2^32.
pub(crate) fn index(at: usize) -> u32 {
    u32::try_from(at).expect("a text has fewer than 2^32 bytes")
}
