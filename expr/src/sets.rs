//! Evaluation for all devices at once, as sets of rows.
//!
//! What the columns keep as a set is joined as sets; what they do not (an order, a pattern, a
//! distance) is asked of each device, but only of those that the rest has left: in a conjunction the
//! kept sets come first and each part sees only what the parts before it let through, in a
//! disjunction only what they did not.

use std::borrow::Cow;

use roaring::RoaringBitmap;

use crate::compile::{Ask, Asked, Dag};
use crate::eval::truth;
use crate::tree::{Comparison, Operand, Quantifier, Subject, Test};
use crate::{AttributeId, Context, Expression, GroupId, Profile, Value};

/// The devices of an app as columns. A device is a row, a number that means it in these columns only.
/// A set that is not kept is `None`, which costs a look at devices and changes no answer.
pub trait Columns {
    type Device: Profile;

    /// Every row.
    fn all(&self) -> Cow<'_, RoaringBitmap>;
    /// What is in a row of [`Columns::all`].
    fn device(&self, row: u32) -> Option<&Self::Device>;
    /// The row of a device.
    fn row(&self, device: u64) -> Option<u32>;
    /// The members of a group.
    fn group(&self, _id: GroupId) -> Option<Cow<'_, RoaringBitmap>> {
        None
    }
    /// Who has a value of an attribute.
    fn has(&self, _id: AttributeId) -> Option<Cow<'_, RoaringBitmap>> {
        None
    }
    /// Who has this value.
    fn equals(&self, _id: AttributeId, _value: &Value) -> Option<Cow<'_, RoaringBitmap>> {
        None
    }
    /// Who has this entry in a set.
    fn contains(&self, _id: AttributeId, _entry: &str) -> Option<Cow<'_, RoaringBitmap>> {
        None
    }
    /// The devices of a user.
    fn user(&self, _user: &str) -> Option<Cow<'_, RoaringBitmap>> {
        None
    }
}

/// What an edit changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Rows that become recipients.
    pub gains: RoaringBitmap,
    /// Rows that cease to be.
    pub losses: RoaringBitmap,
}

impl Expression {
    /// The rows of all recipients.
    pub fn recipients<C: Columns>(&self, columns: &C, context: &Context) -> RoaringBitmap {
        answer(self.dag(), true, columns, context)
    }

    /// The rows for which the whole is false; for the others that are no recipients it is unknown.
    pub fn excluded<C: Columns>(&self, columns: &C, context: &Context) -> RoaringBitmap {
        answer(self.dag(), false, columns, context)
    }

    /// Who gains and who loses if `edited` takes the place of this expression.
    pub fn difference<C: Columns>(
        &self,
        edited: &Expression,
        columns: &C,
        context: &Context,
    ) -> Difference {
        let before = self.recipients(columns, context);
        let after = edited.recipients(columns, context);
        Difference { gains: &after - &before, losses: before - after }
    }
}

fn answer<C: Columns>(dag: &Dag, wanted: bool, columns: &C, context: &Context) -> RoaringBitmap {
    let root = dag.direct(Ask { node: dag.root(), wanted });
    let mut search = Search { dag, columns, context, known: Vec::new() };
    for ask in dag.shared(root) {
        if ask != root {
            let rows = search.run(ask);
            search.known.push((ask, rows));
        }
    }
    search.run(root)
}

struct Search<'a, C> {
    dag: &'a Dag,
    columns: &'a C,
    context: &'a Context,
    /// The parts that are used more than once, over all rows; in the order of their places.
    known: Vec<(Ask, RoaringBitmap)>,
}

/// A chain of which some kids are still to come.
#[derive(Default)]
struct Open {
    all: bool,
    /// Whether the rows of a kid are awaited.
    pending: bool,
    /// In reverse, the next one last.
    kids: Vec<Ask>,
    /// The rows that are still undecided.
    within: RoaringBitmap,
    /// The rows found, of a disjunction.
    found: RoaringBitmap,
}

impl Open {
    /// Takes the rows of the kid that is awaited, if one is.
    fn take(&mut self, rows: RoaringBitmap) {
        if !std::mem::take(&mut self.pending) {
            return;
        }
        if self.all {
            self.within = rows;
        } else {
            self.within -= &rows;
            self.found |= rows;
        }
    }
}

impl<C: Columns> Search<'_, C> {
    /// The rows, among all, for which the answer is yes.
    fn run(&self, ask: Ask) -> RoaringBitmap {
        let mut open: Vec<Open> = Vec::new();
        let mut next = Some((ask, self.columns.all().into_owned()));
        let mut rows = RoaringBitmap::new();
        loop {
            if let Some((ask, within)) = next.take() {
                let ask = self.dag.direct(ask);
                match self.simple(ask, &within) {
                    Ok(simple) => rows = simple,
                    Err((all, mut kids)) => {
                        // The sort is stable, and what comes last is taken first.
                        kids.reverse();
                        kids.sort_by_key(|kid| std::cmp::Reverse(self.cost(*kid)));
                        open.push(Open { all, kids, within, ..Open::default() });
                    }
                }
            }
            let Some(chain) = open.last_mut() else { return rows };
            chain.take(std::mem::take(&mut rows));
            next = self.advance(chain);
            if next.is_none() {
                let chain = open.pop().unwrap_or_default();
                rows = if chain.all { chain.within } else { chain.found };
                if open.is_empty() {
                    return rows;
                }
            }
        }
    }

    /// Goes through the kids of a chain up to the next one that is a chain itself.
    fn advance(&self, chain: &mut Open) -> Option<(Ask, RoaringBitmap)> {
        while let Some(kid) = chain.kids.pop().filter(|_| !chain.within.is_empty()) {
            let kid = self.dag.direct(kid);
            match self.simple(kid, &chain.within) {
                Ok(rows) => {
                    chain.pending = true;
                    chain.take(rows);
                }
                Err(_) => {
                    chain.pending = true;
                    return Some((kid, chain.within.clone()));
                }
            }
        }
        None
    }

    /// The rows of `within` for which the answer is yes, or the kids of a chain.
    fn simple(&self, ask: Ask, within: &RoaringBitmap) -> Result<RoaringBitmap, (bool, Vec<Ask>)> {
        if let Ok(known) = self.known.binary_search_by_key(&ask.place(), |(ask, _)| ask.place()) {
            return Ok(within & &self.known[known].1);
        }
        match self.dag.asked(ask) {
            Asked::Const(true) => Ok(within.clone()),
            Asked::Const(false) => Ok(RoaringBitmap::new()),
            Asked::Test(test, _, wanted) => Ok(self.test(test, wanted, within)),
            Asked::Kids { all, kids, wanted } => {
                Err((all, kids.iter().map(|kid| Ask { node: *kid, wanted }).collect()))
            }
        }
    }

    /// Which kids to take first: those that are kept as sets, then tests, then the rest.
    fn cost(&self, ask: Ask) -> u8 {
        match self.dag.asked(ask) {
            Asked::Const(_) => 0,
            Asked::Test(test, ..) => match test {
                Test::Group(_) | Test::Device(_) | Test::Has(_) | Test::In { fold: false, .. } => 0,
                Test::Entries { .. } => 0,
                Test::Compare { comparison, .. } => u8::from(comparison.is_order()),
                Test::Text { .. } | Test::Matches { .. } | Test::In { .. } => 3,
                Test::Sample { .. } => 4,
                _ => 1,
            },
            Asked::Kids { .. } => 2,
        }
    }

    /// The rows of `within` for which the test is true, or false where not `wanted`.
    fn test(&self, test: &Test, wanted: bool, within: &RoaringBitmap) -> RoaringBitmap {
        // Who lacks the value is in neither set.
        let has = test.attribute().and_then(|id| self.columns.has(id));
        let presence = matches!(test, Test::Has(_));
        let able = match &has {
            Some(has) if !presence => Cow::Owned(within & &**has),
            _ => Cow::Borrowed(within),
        };
        match self.kept(test) {
            None => self.scan(test, wanted, &able),
            Some(Kept { yes, inverse, .. }) if inverse != wanted => &*able & yes,
            Some(Kept { yes, decided, .. }) if decided || has.is_some() => &*able - yes,
            // Without the set of those that have a value, who lacks one and who has another cannot
            // be told apart.
            Some(Kept { yes, .. }) => self.scan(test, wanted, &(&*able - yes)),
        }
    }

    fn scan(&self, test: &Test, wanted: bool, among: &RoaringBitmap) -> RoaringBitmap {
        among
            .iter()
            .filter(|row| {
                let device = self.columns.device(*row);
                device.is_some_and(|device| truth(test, device, self.context) == Some(wanted))
            })
            .collect()
    }

    /// The rows for which a test is true, or false, if the columns keep either.
    fn kept(&self, test: &Test) -> Option<Kept> {
        let equal = |subject: &Subject, value: &Value| match (subject, value) {
            (Subject::Attribute(id), value) => self.columns.equals(*id, value),
            (Subject::User, Value::String(user)) => self.columns.user(user),
            _ => None,
        };
        let decided = |yes| Kept { yes, inverse: false, decided: true };
        let valued = |yes, inverse| Kept { yes, inverse, decided: false };
        Some(match test {
            Test::Group(id) => decided(self.columns.group(*id)?.into_owned()),
            Test::Device(ids) => {
                decided(ids.iter().filter_map(|id| self.columns.row(*id)).collect())
            }
            Test::Has(Subject::Attribute(id)) => decided(self.columns.has(*id)?.into_owned()),
            Test::Compare { subject, comparison, value: Operand::Value(value) }
                if !comparison.is_order() =>
            {
                let inverse = *comparison == Comparison::NotEqual;
                valued(equal(subject, value)?.into_owned(), inverse)
            }
            Test::In { subject, values, fold: false } => {
                valued(union(values.iter().map(|value| equal(subject, value)))?, false)
            }
            Test::Entries { attribute, quantifier, entries } => {
                let mut sets = entries.iter().map(|entry| self.columns.contains(*attribute, entry));
                match quantifier {
                    Quantifier::Any => valued(union(sets)?, false),
                    Quantifier::None => valued(union(sets)?, true),
                    Quantifier::All => {
                        let mut every = sets.next()??.into_owned();
                        for set in sets {
                            every &= &*set?;
                        }
                        valued(every, false)
                    }
                }
            }
            _ => return None,
        })
    }
}

/// All of them together, if all are kept.
fn union<'a>(
    mut sets: impl Iterator<Item = Option<Cow<'a, RoaringBitmap>>>,
) -> Option<RoaringBitmap> {
    sets.try_fold(RoaringBitmap::new(), |sum, set| Some(sum | &*set?))
}

/// A set that the columns keep.
struct Kept {
    /// The rows for which the test is true, or false where `inverse`.
    yes: RoaringBitmap,
    inverse: bool,
    /// Whether all other rows have the other outcome, rather than some being unknown.
    decided: bool,
}
