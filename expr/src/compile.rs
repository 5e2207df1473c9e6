//! From a tree to what is run: equal parts shared, constants folded, audiences unfolded.
//!
//! [`Dag`] holds every distinct subexpression once, also across audiences, so that audiences that refer
//! to audiences cannot multiply. [`Code`] is made of it for one device: since a recipient is a device
//! for which the whole is *true*, the two questions "is it true" and "is it false" are each
//! two-valued and need no more than jumps:
//!
//! - `not a` is true where `a` is false; `a and b` is true where both are, and false where one is; `or`
//!   the other way round;
//! - a test is true, false or neither (unknown), and a step asks for one of the first two.
//!
//! So evaluation needs no stack and no memory but a bit for each part that is used twice, and takes at
//! most one step for each test and each of those parts.

use std::collections::{BTreeMap, HashMap};

use crate::steps::step;
use crate::tree::{Join, Node, Test, Tree, index};
use crate::{AudienceId, Expression};

/// Distinct nodes, children before parents.
#[derive(Debug)]
pub(crate) struct Dag {
    tests: Vec<Test>,
    nodes: Vec<DagNode>,
    kids: Vec<u32>,
    root: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum DagNode {
    /// Only ever the root.
    Const(bool),
    Test(u32),
    Not(u32),
    /// At least two distinct kids.
    Chain {
        join: Join,
        from: u32,
        to: u32,
    },
}

/// A question about a node: whether it is true (`wanted`) or false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) node: u32,
    pub(crate) wanted: bool,
}

impl Ask {
    /// A place in a table of two entries a node.
    pub(crate) fn place(self) -> usize {
        self.node as usize * 2 + usize::from(self.wanted)
    }
}

/// What a question comes down to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked<'a> {
    Const(bool),
    /// Whether the test is true, or false.
    Test(&'a Test, u32, bool),
    /// The same question of all kids, which must all hold, or one of them.
    Kids {
        all: bool,
        kids: &'a [u32],
        wanted: bool,
    },
}

impl Dag {
    /// Sizes of its arrays, in bytes.
    pub(crate) fn arrays(&self) -> [usize; 3] {
        [size_of_val(&*self.tests), size_of_val(&*self.nodes), size_of_val(&*self.kids)]
    }

    pub(crate) fn nodes(&self) -> &[DagNode] {
        &self.nodes
    }

    pub(crate) fn tests(&self) -> &[Test] {
        &self.tests
    }

    pub(crate) fn root(&self) -> u32 {
        self.root
    }

    /// Looks through negations.
    pub(crate) fn direct(&self, mut ask: Ask) -> Ask {
        while let DagNode::Not(inner) = self.nodes[ask.node as usize] {
            step(1);
            ask = Ask { node: inner, wanted: !ask.wanted };
        }
        ask
    }

    pub(crate) fn asked(&self, ask: Ask) -> Asked<'_> {
        let Ask { node, wanted } = self.direct(ask);
        match self.nodes[node as usize] {
            DagNode::Const(truth) => Asked::Const(truth == wanted),
            DagNode::Test(test) => Asked::Test(&self.tests[test as usize], test, wanted),
            DagNode::Chain { join, from, to } => Asked::Kids {
                all: (join == Join::And) == wanted,
                kids: &self.kids[from as usize..to as usize],
                wanted,
            },
            DagNode::Not(_) => unreachable!("seen through"),
        }
    }

    pub(crate) fn is_volatile(&self) -> bool {
        let seen = self.reached(Ask { node: self.root, wanted: true });
        self.nodes.iter().enumerate().any(|(at, node)| match node {
            DagNode::Test(test) => {
                (seen[at * 2] > 0 || seen[at * 2 + 1] > 0)
                    && self.tests[*test as usize].is_volatile()
            }
            _ => false,
        })
    }

    /// How often each question is asked on the way to `ask`, where each part is worked out once; 2
    /// stands for more.
    pub(crate) fn reached(&self, ask: Ask) -> Vec<u8> {
        let mut count = vec![0_u8; self.nodes.len() * 2];
        count[ask.place()] = 1;
        for node in (0..index(self.nodes.len())).rev() {
            for wanted in [false, true] {
                let ask = Ask { node, wanted };
                let times = count[ask.place()];
                step(1);
                if times == 0 {
                    continue;
                }
                match self.nodes[node as usize] {
                    DagNode::Not(inner) => {
                        let place = Ask { node: inner, wanted: !wanted }.place();
                        count[place] = (count[place] + times).min(2);
                    }
                    DagNode::Chain { from, to, .. } => {
                        for kid in &self.kids[from as usize..to as usize] {
                            step(1);
                            let place = Ask { node: *kid, wanted }.place();
                            count[place] = (count[place] + 1).min(2);
                        }
                    }
                    DagNode::Const(_) | DagNode::Test(_) => {}
                }
            }
        }
        count
    }

    /// The parts that are asked for more than once, children before parents.
    pub(crate) fn shared(&self, ask: Ask) -> Vec<Ask> {
        let count = self.reached(ask);
        let places = count.iter().enumerate().filter(|(_, times)| **times > 1);
        places
            .map(|(place, _)| Ask { node: index(place / 2), wanted: place % 2 == 1 })
            .filter(|ask| matches!(self.nodes[ask.node as usize], DagNode::Chain { .. }))
            .collect()
    }

    pub(crate) fn of(tree: &Tree, audiences: &BTreeMap<AudienceId, Expression>) -> Self {
        let mut builder = Builder::default();
        let imported: BTreeMap<AudienceId, u32> =
            audiences.iter().map(|(id, audience)| (*id, builder.import(audience.dag()))).collect();
        let mut made: Vec<u32> = Vec::with_capacity(tree.nodes().len());
        for node in tree.nodes() {
            step(1);
            made.push(match node {
                Node::Test(test) => builder.test(test),
                Node::Audience(id) => imported[id],
                Node::Not(inner) => builder.not(made[*inner as usize]),
                Node::Chain { join, from, to } => {
                    let kids = tree.chain(*from, *to).iter().map(|kid| made[*kid as usize]);
                    builder.chain(*join, kids.collect())
                }
            });
        }
        let root = *made.last().expect("a tree has a root");
        builder.finish(root)
    }
}

#[derive(Default)]
struct Builder {
    tests: Vec<Test>,
    nodes: Vec<DagNode>,
    kids: Vec<u32>,
    known_tests: HashMap<Test, u32>,
    known: HashMap<Key, u32>,
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Const(bool),
    Not(u32),
    Chain(Join, Box<[u32]>),
}

impl Builder {
    fn push(&mut self, node: DagNode) -> u32 {
        self.nodes.push(node);
        index(self.nodes.len() - 1)
    }

    fn constant(&mut self, truth: bool) -> u32 {
        if let Some(known) = self.known.get(&Key::Const(truth)) {
            return *known;
        }
        let at = self.push(DagNode::Const(truth));
        self.known.insert(Key::Const(truth), at);
        at
    }

    fn test(&mut self, test: &Test) -> u32 {
        match test {
            Test::Everyone | Test::Sample { ppm: 1_000_000, .. } => return self.constant(true),
            Test::Sample { ppm: 0, .. } => return self.constant(false),
            _ => {}
        }
        if let Some(known) = self.known_tests.get(test) {
            return *known;
        }
        self.tests.push(test.clone());
        let at = self.push(DagNode::Test(index(self.tests.len() - 1)));
        self.known_tests.insert(test.clone(), at);
        at
    }

    fn not(&mut self, inner: u32) -> u32 {
        match self.nodes[inner as usize] {
            DagNode::Const(truth) => return self.constant(!truth),
            DagNode::Not(twice) => return twice,
            _ => {}
        }
        if let Some(known) = self.known.get(&Key::Not(inner)) {
            return *known;
        }
        let at = self.push(DagNode::Not(inner));
        self.known.insert(Key::Not(inner), at);
        at
    }

    /// A chain without what cannot matter: repeats, and constants that leave the others to decide.
    fn chain(&mut self, join: Join, kids: Vec<u32>) -> u32 {
        let neutral = join == Join::And;
        let mut seen = std::collections::HashSet::with_capacity(kids.len());
        let mut kept = Vec::with_capacity(kids.len());
        for kid in kids {
            step(1);
            match self.nodes[kid as usize] {
                DagNode::Const(truth) if truth == neutral => {}
                DagNode::Const(_) => return kid,
                _ if seen.insert(kid) => kept.push(kid),
                _ => {}
            }
        }
        match kept[..] {
            [] => return self.constant(neutral),
            [only] => return only,
            _ => {}
        }
        let key = Key::Chain(join, kept.clone().into());
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let from = index(self.kids.len());
        self.kids.extend(kept);
        let at = self.push(DagNode::Chain { join, from, to: index(self.kids.len()) });
        self.known.insert(key, at);
        at
    }

    /// The root of another one, which is taken over whole.
    fn import(&mut self, other: &Dag) -> u32 {
        let mut made: Vec<u32> = Vec::with_capacity(other.nodes.len());
        for node in &other.nodes {
            step(1);
            made.push(match *node {
                DagNode::Const(truth) => self.constant(truth),
                DagNode::Test(test) => self.test(&other.tests[test as usize]),
                DagNode::Not(inner) => self.not(made[inner as usize]),
                DagNode::Chain { join, from, to } => {
                    let kids = &other.kids[from as usize..to as usize];
                    self.chain(join, kids.iter().map(|kid| made[*kid as usize]).collect())
                }
            });
        }
        made[other.root as usize]
    }

    fn finish(mut self, root: u32) -> Dag {
        self.tests.shrink_to_fit();
        self.nodes.shrink_to_fit();
        self.kids.shrink_to_fit();
        Dag { tests: self.tests, nodes: self.nodes, kids: self.kids, root }
    }
}

/// The answer of a section.
pub(crate) const YES: u32 = u32::MAX;
pub(crate) const NO: u32 = u32::MAX - 1;

/// Steps that answer one question. Each section but the last answers for a part that is used more
/// than once and leaves the answer in a bit; they stand in the order in which they are run.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) steps: Box<[Step]>,
    /// Where each section begins: a step, [`YES`] or [`NO`].
    pub(crate) sections: Box<[u32]>,
}

/// Asks one thing, and goes on at `yes` or `no`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) what: What,
    pub(crate) yes: u32,
    pub(crate) no: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    True(u32),
    False(u32),
    /// The answer of an earlier section.
    Section(u32),
}

impl Code {
    /// Sizes of its arrays, in bytes.
    pub(crate) fn arrays(&self) -> [usize; 2] {
        [size_of_val(&*self.steps), size_of_val(&*self.sections)]
    }
}

impl Dag {
    /// The code that answers whether the whole is true (`wanted`) or false.
    pub(crate) fn code(&self, wanted: bool) -> Code {
        let root = self.direct(Ask { node: self.root, wanted });
        let shared: Vec<Ask> = self.shared(root).into_iter().filter(|ask| *ask != root).collect();
        let mut emitter = Emitter { dag: self, section_of: HashMap::new(), steps: Vec::new() };
        let mut sections = Vec::with_capacity(shared.len() + 1);
        for ask in shared {
            sections.push(emitter.emit(ask));
            emitter.section_of.insert(ask.place(), index(sections.len() - 1));
        }
        sections.push(emitter.emit(root));
        Code { steps: emitter.steps.into(), sections: sections.into() }
    }
}

struct Emitter<'a> {
    dag: &'a Dag,
    section_of: HashMap<usize, u32>,
    /// Each step stands after those that it can go on to.
    steps: Vec<Step>,
}

/// A chain whose kids are emitted from the last to the first.
struct Open<'a> {
    all: bool,
    wanted: bool,
    /// The kids that are still to come.
    kids: &'a [u32],
    yes: u32,
    no: u32,
    /// Where the kid after the next one begins.
    entry: u32,
}

impl Emitter<'_> {
    /// Where the answer of `ask` begins.
    fn emit(&mut self, ask: Ask) -> u32 {
        let mut open: Vec<Open<'_>> = Vec::new();
        let mut next = Some((ask, YES, NO));
        let mut entry = NO;
        loop {
            step(1);
            if let Some((ask, yes, no)) = next.take() {
                let ask = self.dag.direct(ask);
                let section = self.section_of.get(&ask.place()).copied();
                entry = match (section, self.dag.asked(ask)) {
                    (Some(section), _) => self.push(What::Section(section), yes, no),
                    (None, Asked::Const(true)) => yes,
                    (None, Asked::Const(false)) => no,
                    (None, Asked::Test(_, test, true)) => self.push(What::True(test), yes, no),
                    (None, Asked::Test(_, test, false)) => self.push(What::False(test), yes, no),
                    (None, Asked::Kids { all, kids, wanted }) => {
                        let entry = if all { yes } else { no };
                        open.push(Open { all, wanted, kids, yes, no, entry });
                        entry
                    }
                };
            }
            let Some(chain) = open.last_mut() else { return entry };
            chain.entry = entry;
            match chain.kids.split_last() {
                Some((kid, before)) => {
                    chain.kids = before;
                    let ask = Ask { node: *kid, wanted: chain.wanted };
                    next = Some(if chain.all {
                        (ask, entry, chain.no)
                    } else {
                        (ask, chain.yes, entry)
                    });
                }
                None => drop(open.pop()),
            }
        }
    }

    fn push(&mut self, what: What, yes: u32, no: u32) -> u32 {
        self.steps.push(Step { what, yes, no });
        index(self.steps.len() - 1)
    }
}
