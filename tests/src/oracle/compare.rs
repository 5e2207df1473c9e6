//! One world and its expressions, asked in every way.

use std::collections::{HashMap, HashSet};
use std::fmt;

use carillon_expr::{Dialect, Expression, RoaringBitmap, Term, Terms, Truth, visit_terms};
use carillon_world::AppId;

use super::judge;
use super::stores::Stores;
use super::tree::{Tree, write};
use super::world::{Device, LIMITS, Sets, World};

/// A way to say who the recipients are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// For one device.
    Evaluation,
    /// Sets of rows, of columns of which some are kept.
    Sets,
    /// An index over all expressions of the world, then evaluation.
    Terms,
    /// Evaluation of what is read from what was printed, by names and by ids.
    Text,
    MariaDb,
    Sqlite,
}

impl Use {
    pub const ALL: [Use; 6] =
        [Use::Evaluation, Use::Sets, Use::Terms, Use::Text, Use::MariaDb, Use::Sqlite];
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Use::Evaluation => "evaluation",
            Use::Sets => "sets",
            Use::Terms => "terms",
            Use::Text => "text",
            Use::MariaDb => "MariaDB",
            Use::Sqlite => "SQLite",
        })
    }
}

/// Takes the place of what a use says: for tests of the oracle, which plant a fault in a use by it.
pub type Seam<'a> = &'a (dyn Fn(Use, &Tree, &Device, Truth) -> Truth + Sync);

/// What all uses say of one expression.
#[derive(Debug)]
pub(super) struct Asked {
    /// The interpreter's word for each device.
    pub(super) expected: Vec<Truth>,
    /// In the order of [`Use::ALL`], for each device; an index knows recipients from others only, so what it does not
    /// find is here whatever the interpreter says that is no recipient.
    pub(super) said: Vec<Vec<Truth>>,
    /// What a use says against itself.
    pub(super) faults: Vec<(Use, String)>,
}

impl Asked {
    /// The uses that are wrong.
    pub(super) fn wrong(&self) -> Vec<Use> {
        let said = Use::ALL.into_iter().zip(&self.said);
        let wrong = said.filter(|(_, said)| **said != self.expected).map(|(used, _)| used);
        let mut wrong: Vec<Use> = wrong.chain(self.faults.iter().map(|(used, _)| *used)).collect();
        wrong.sort_unstable();
        wrong.dedup();
        wrong
    }
}

/// Asks about `trees` together, as a query and an index do.
///
/// # Errors
/// If the expressions cannot be asked about at all: one is refused, has no SQL, or a database refuses that.
pub(super) fn ask(
    world: &World,
    app: AppId,
    trees: &[Tree],
    masks: &[u64],
    stores: &mut Stores,
    seam: Seam<'_>,
) -> Result<Vec<Asked>, (Use, String)> {
    let mut expressions = Vec::with_capacity(trees.len());
    for tree in trees {
        let source = write(tree);
        let read = Expression::parse(&source, world, &LIMITS);
        expressions.push(read.map_err(|faults| (Use::Text, faults.render(&source)))?);
    }
    let by_index = by_index(world, &expressions);
    let mut by_sql = Vec::new();
    for (used, dialect) in [(Use::MariaDb, Dialect::MariaDb), (Use::Sqlite, Dialect::Sqlite)] {
        let conditions = expressions.iter().map(|each| each.to_sql(dialect, &world.context()));
        let conditions: Vec<String> =
            conditions.collect::<Result<_, _>>().map_err(|error| (used, error.to_string()))?;
        let mut said =
            stores.ask(dialect, app, world, &conditions).map_err(|error| (used, error))?;
        found_alike(world, app, stores, dialect, &conditions, &mut said)
            .map_err(|error| (used, error))?;
        by_sql.push(said.into_iter());
    }
    let sets = Sets::of(world);
    let mut asked = Vec::with_capacity(trees.len());
    for (at, ((tree, expression), by_index)) in
        trees.iter().zip(&expressions).zip(by_index).enumerate()
    {
        let expected: Vec<Truth> =
            world.devices.iter().map(|device| judge::truth(tree, device, world)).collect();
        let mut faults = Vec::new();
        let mut said = vec![
            evaluated(world, expression, &mut faults),
            by_sets(world, expression, &sets, masks[at], &mut faults),
            recipients_only(by_index, &expected),
            reread(world, expression, &mut faults),
        ];
        said.extend(by_sql.iter_mut().filter_map(Iterator::next));
        for (used, said) in Use::ALL.into_iter().zip(&mut said) {
            for (said, device) in said.iter_mut().zip(&world.devices) {
                *said = seam(used, tree, device, *said);
            }
        }
        asked.push(Asked { expected, said, faults });
    }
    Ok(asked)
}

/// The query of the manual, which only knows recipients, finds those that the condition is true for. Asked of some.
fn found_alike(
    world: &World,
    app: AppId,
    stores: &mut Stores,
    dialect: Dialect,
    conditions: &[String],
    said: &mut [Vec<Truth>],
) -> Result<(), String> {
    for (condition, said) in conditions.iter().zip(said).step_by(8) {
        let found = stores.find(dialect, app, condition)?;
        for (said, device) in said.iter_mut().zip(&world.devices) {
            let is_found = found.contains(&device.row.id.get());
            if is_found != (*said == Truth::True) {
                *said = if is_found { Truth::True } else { Truth::False };
            }
        }
        if found.iter().any(|id| world.devices.iter().all(|device| device.row.id.get() != *id)) {
            return Err(format!("devices that are not there: {found:x?}"));
        }
    }
    Ok(())
}

fn evaluated(
    world: &World,
    expression: &Expression,
    faults: &mut Vec<(Use, String)>,
) -> Vec<Truth> {
    let context = world.context();
    let each = world.devices.iter().map(|device| {
        let truth = expression.evaluate_in(device, &context);
        if expression.matches_in(device, &context) != (truth == Truth::True) {
            faults
                .push((Use::Evaluation, format!("evaluated to {truth:?}, but matches otherwise")));
        }
        let explained = expression.explain(device, &context, world).parts[0].truth;
        if explained != truth {
            faults.push((Use::Evaluation, format!("{truth:?}, but explained as {explained:?}")));
        }
        truth
    });
    each.collect()
}

fn by_sets(
    world: &World,
    expression: &Expression,
    sets: &Sets<'_>,
    mask: u64,
    faults: &mut Vec<(Use, String)>,
) -> Vec<Truth> {
    let (kept, context) = (sets.kept(mask), world.context());
    let recipients: RoaringBitmap = expression.recipients(&kept, &context);
    let excluded = expression.excluded(&kept, &context);
    if !recipients.is_disjoint(&excluded) {
        faults.push((Use::Sets, "a row is a recipient and excluded".to_owned()));
    }
    let mut truths = vec![Truth::Unknown; world.devices.len()];
    Sets::devices(&excluded).for_each(|at| truths[at] = Truth::False);
    Sets::devices(&recipients).for_each(|at| truths[at] = Truth::True);
    truths
}

/// Files all expressions under their terms, looks each device up, and evaluates what is found. For each expression,
/// for each device, whether it came out.
fn by_index(world: &World, expressions: &[Expression]) -> Vec<Vec<bool>> {
    let mut filed: HashMap<Term, Vec<usize>> = HashMap::new();
    let mut always = Vec::new();
    for (at, expression) in expressions.iter().enumerate() {
        match expression.terms() {
            Terms::Everyone => always.push(at),
            Terms::Nobody => {}
            Terms::Any(terms) => {
                terms.into_iter().for_each(|term| filed.entry(term).or_default().push(at));
            }
        }
    }
    let mut out = vec![vec![false; world.devices.len()]; expressions.len()];
    let context = world.context();
    for (column, device) in world.devices.iter().enumerate() {
        let row = &device.row;
        let mut found: HashSet<usize> = always.iter().copied().collect();
        visit_terms(row.id.get(), row.user.as_ref(), &row.attributes, &row.groups, &mut |term| {
            found.extend(filed.get(term).into_iter().flatten());
        });
        for at in found {
            out[at][column] = expressions[at].matches_in(device, &context);
        }
    }
    out
}

fn recipients_only(found: Vec<bool>, expected: &[Truth]) -> Vec<Truth> {
    let each = found.into_iter().zip(expected).map(|(found, expected)| match (found, expected) {
        (true, _) => Truth::True,
        (false, Truth::True) => Truth::False,
        (false, other) => *other,
    });
    each.collect()
}

/// Prints, reads again, and prints again.
fn reread(world: &World, expression: &Expression, faults: &mut Vec<(Use, String)>) -> Vec<Truth> {
    let mut fault = |text: String| faults.push((Use::Text, text));
    let mut truths = Vec::new();
    for (printed, by_names) in [(expression.to_stored(), false), (expression.to_text(world), true)]
    {
        let again = match Expression::parse(&printed, world, &LIMITS) {
            Ok(again) => again,
            Err(refused) => {
                fault(format!("what was printed is refused: {}", refused.render(&printed)));
                continue;
            }
        };
        if again != *expression {
            fault(format!("{printed} is read as another expression"));
        }
        let twice = if by_names { again.to_text(world) } else { again.to_stored() };
        if twice != printed {
            fault(format!("{printed} is printed again as {twice}"));
        }
        let context = world.context();
        let each: Vec<Truth> =
            world.devices.iter().map(|device| again.evaluate_in(device, &context)).collect();
        if truths.is_empty() {
            truths = each;
        } else if truths != each {
            fault("the texts by names and by ids have other recipients".to_owned());
        }
    }
    truths.resize(world.devices.len(), Truth::Unknown);
    truths
}
