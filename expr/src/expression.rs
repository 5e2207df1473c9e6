//! An expression as the other crates hold it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::compile::{Code, Dag};
use crate::tree::{Node, Test, Tree};
use crate::{AttributeId, AudienceId, GroupId};

/// An expression, checked and immutable. A clone is one reference count.
///
/// Two are equal if they were written alike: their trees are equal, whatever names stand for now, and
/// whatever the audiences that they refer to say. `Debug` shows the
/// [stored text](Expression::to_stored).
#[derive(Clone)]
pub struct Expression {
    program: Arc<Program>,
}

struct Program {
    tree: Tree,
    dag: Dag,
    /// Whether the whole is true.
    is_true: Code,
    /// Whether the whole is false: asked only to tell false from unknown.
    is_false: OnceLock<Code>,
    nodes: usize,
    is_volatile: bool,
    /// Sorted, distinct.
    attributes: Box<[AttributeId]>,
    groups: Box<[GroupId]>,
    /// Those that the tree names, sorted by id.
    direct: Box<[(AudienceId, Expression)]>,
    /// All, however indirectly, sorted, with the weight of each one's own tree.
    audiences: Box<[AudienceId]>,
    weights: Box<[usize]>,
    audience_depth: usize,
}

impl Expression {
    /// `all`: every device of the app.
    #[must_use]
    pub fn everyone() -> Self {
        Self::compiled(Tree::leaf(Test::Everyone), BTreeMap::new())
    }

    /// The attributes referred to, also by the audiences referred to. Sorted and distinct.
    #[must_use]
    pub fn attributes(&self) -> &[AttributeId] {
        &self.program.attributes
    }

    /// The groups referred to, also by the audiences referred to. Sorted and distinct.
    #[must_use]
    pub fn groups(&self) -> &[GroupId] {
        &self.program.groups
    }

    /// The audiences referred to, also by audiences. Sorted and distinct. When one of them is
    /// edited, this expression has to be read again.
    #[must_use]
    pub fn audiences(&self) -> &[AudienceId] {
        &self.program.audiences
    }

    /// How deep audiences are nested in it; 0 if it refers to none.
    #[must_use]
    pub fn audience_depth(&self) -> usize {
        self.program.audience_depth
    }

    /// The size that bounds the cost of an evaluation: operators, tests and list entries, with those
    /// of each audience once.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.program.nodes
    }

    /// Whether the outcome can change while the device's profile does not: it looks at the clock or
    /// at `last_seen`. What constants make irrelevant does not count.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        self.program.is_volatile
    }

    /// Sizes in bytes of what it keeps on the heap, for budgets. Without the texts in its tests,
    /// which are no longer than its own text, and without the audiences that it shares.
    pub fn allocations(&self) -> impl Iterator<Item = usize> {
        let program = &*self.program;
        let lists = [
            size_of_val(&*program.attributes),
            size_of_val(&*program.groups),
            size_of_val(&*program.direct),
            size_of_val(&*program.audiences),
            size_of_val(&*program.weights),
        ];
        // The code for `false` is made when an explanation first asks for it, and is about as long.
        std::iter::once(size_of::<Program>() + 16)
            .chain(program.tree.arrays())
            .chain(program.dag.arrays())
            .chain(program.is_true.arrays())
            .chain(lists)
    }

    /// Distinct operators and tests after folding.
    pub(crate) fn distinct(&self) -> usize {
        self.program.dag.nodes().len()
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.program.tree
    }

    pub(crate) fn dag(&self) -> &Dag {
        &self.program.dag
    }

    pub(crate) fn is_true(&self) -> &Code {
        &self.program.is_true
    }

    pub(crate) fn is_false(&self) -> &Code {
        self.program.is_false.get_or_init(|| self.program.dag.code(false))
    }

    /// An audience that the tree names.
    pub(crate) fn audience(&self, id: AudienceId) -> Option<&Expression> {
        let at = self.program.direct.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(&self.program.direct[at].1)
    }

    /// `audiences` holds every audience that the tree names.
    pub(crate) fn compiled(tree: Tree, audiences: BTreeMap<AudienceId, Expression>) -> Self {
        let (mut attributes, mut groups) = (Vec::new(), Vec::new());
        let mut weights = BTreeMap::new();
        for node in tree.nodes() {
            if let Node::Test(test) = node {
                attributes.extend(test.attribute());
                if let Test::Group(id) = test {
                    groups.push(*id);
                }
            }
        }
        for (id, audience) in &audiences {
            attributes.extend(audience.attributes());
            groups.extend(audience.groups());
            weights.insert(*id, audience.tree().weight());
            let theirs = &audience.program;
            weights.extend(theirs.audiences.iter().copied().zip(theirs.weights.iter().copied()));
        }
        attributes.sort_unstable();
        attributes.dedup();
        groups.sort_unstable();
        groups.dedup();

        let dag = Dag::of(&tree, &audiences);
        let depth = audiences.values().map(|audience| audience.audience_depth() + 1).max();
        let program = Program {
            nodes: tree.weight() + weights.values().sum::<usize>(),
            is_volatile: dag.is_volatile(),
            is_true: dag.code(true),
            is_false: OnceLock::new(),
            tree,
            dag,
            attributes: attributes.into(),
            groups: groups.into(),
            direct: audiences.into_iter().collect(),
            audiences: weights.keys().copied().collect(),
            weights: weights.into_values().collect(),
            audience_depth: depth.unwrap_or(0),
        };
        Self { program: Arc::new(program) }
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.program, &other.program) || self.program.tree == other.program.tree
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({})", self.to_stored())
    }
}
