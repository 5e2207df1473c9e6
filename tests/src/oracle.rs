//! The oracle of recipient expressions: all uses of one agree, over the stores' own tables.
//!
//! Random worlds times random expressions that cover every operator. For each device an interpreter of our own, which
//! shares nothing with `carillon-expr`, says what the expression is; evaluation, sets, index terms, canonical text and
//! the SQL in MariaDB and in SQLite must say the same. `make oracle N=… SEED=…` runs it at any length, a test runs it
//! for CI. World `n` of a run has the seed `SEED + n`, so a failure is replayed by the seed that it prints.

mod compare;
mod generate;
mod judge;
mod shrink;
mod stores;
mod tree;
mod world;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use carillon_expr::{Dialect, Expression, Truth};
use carillon_world::AppId;

use compare::{Asked, ask};
pub use compare::{Seam, Use};
use generate::{Generator, is_mixed};
use judge::Outcomes;
use stores::Stores;
use tree::write;
pub use tree::{Right, Tree, What};
pub use world::Device;
use world::{LIMITS, World};

use crate::mariadb::MariaDb;

const EXPRESSIONS_OF_A_WORLD: u64 = 40;
const DEVICES_OF_A_WORLD: usize = 24;
/// A run of fewer expressions may miss an operator.
const FLOORS_FROM: u64 = 5_000;
/// Each operator was seen true, false and unknown at least once in so many expressions.
const EXPRESSIONS_OF_AN_OUTCOME: u64 = 2_000;
/// What a failure may cost.
const SHRINKS_MAX: usize = 1_500;
/// Larger trees are not looked into for the counts of operators, which takes steps of size times depth.
const COUNTED_SIZE_MAX: usize = 64;

/// How much to ask.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub expressions: u64,
    /// Of the first world.
    pub seed: u64,
    pub threads: u64,
}

/// What was asked.
#[derive(Debug, Default)]
pub struct Report {
    pub expressions: u64,
    pub worlds: u64,
    /// Expressions with both recipients and others.
    pub mixed: u64,
    /// Answers of the two databases for a device.
    pub rows: u64,
    /// Of the expressions and all their parts.
    outcomes: Outcomes,
}

impl Report {
    fn add(&mut self, other: Report) {
        self.expressions += other.expressions;
        self.worlds += other.worlds;
        self.mixed += other.mixed;
        self.rows += other.rows;
        for (operator, outcome) in other.outcomes {
            let sum = self.outcomes.entry(operator).or_default();
            sum.is_decided = outcome.is_decided;
            sum.falses += outcome.falses;
            sum.unknowns += outcome.unknowns;
            sum.trues += outcome.trues;
        }
    }

    /// What was too little to mean anything, if something was.
    ///
    /// # Errors
    /// A floor that was missed.
    pub fn check_floors(&self) -> Result<(), String> {
        if self.mixed * 2 < self.expressions {
            return Err(format!(
                "{} of {} expressions have both recipients and others; half must",
                self.mixed, self.expressions
            ));
        }
        if self.expressions < FLOORS_FROM {
            return Ok(());
        }
        let (known, seen) =
            (tree::operators(), self.outcomes.keys().cloned().collect::<BTreeSet<_>>());
        let odd: Vec<&String> = known.symmetric_difference(&seen).collect();
        if !odd.is_empty() {
            return Err(format!("operators that did not come, or are not listed: {odd:?}"));
        }
        let least = self.expressions / EXPRESSIONS_OF_AN_OUTCOME;
        let (rarest, outcome) = self.rarest();
        if outcome < least {
            return Err(format!("`{rarest}` had one of its outcomes {outcome} times, not {least}"));
        }
        Ok(())
    }

    fn rarest(&self) -> (&str, u64) {
        let each = self.outcomes.iter().filter(|(operator, _)| *operator != "all");
        let each = each.map(|(operator, outcome)| (operator.as_str(), outcome.least()));
        each.min_by_key(|(_, least)| *least).unwrap_or(("nothing", 0))
    }

    /// How well the expressions told apart, for people.
    pub fn coverage(&self) -> String {
        let (rarest, least) = self.rarest();
        format!(
            "oracle: {} % of the expressions have both recipients and others; {} operators, each true, false and \
             (where it can be) unknown at least {least} times (`{rarest}`); {} rows of SQL compared",
            self.mixed * 100 / self.expressions.max(1),
            self.outcomes.len(),
            self.rows
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { expressions, worlds, .. } = self;
        write!(f, "oracle ok: expressions={expressions} worlds={worlds} disagreements=0")
    }
}

/// A disagreement, as small as it could be made.
#[derive(Debug)]
pub struct Failure {
    /// Of the world.
    pub seed: u64,
    /// Which expression of the world, from 0.
    pub number: usize,
    pub tree: Tree,
    /// Those that are wrong.
    pub uses: Vec<Use>,
    pub devices: Vec<Device>,
    told: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told)
    }
}

/// Runs a plan. Each thread has databases of its own on the server.
///
/// # Errors
/// The first disagreement that was found, shrunk.
///
/// # Panics
/// If a store does not work.
pub fn run(plan: Plan, server: &MariaDb, seam: Seam<'_>) -> Result<Report, Box<Failure>> {
    // Another run on the same server must find nothing there.
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let worlds = plan.expressions.div_ceil(EXPRESSIONS_OF_A_WORLD);
    let part = |thread: u64| {
        let mut stores = Stores::open(server, folder.path(), &format!("oracle_{number}_{thread}"));
        let mut report = Report::default();
        for at in (thread..worlds).step_by(plan.threads.max(1) as usize) {
            let begun = at * EXPRESSIONS_OF_A_WORLD;
            let count = (plan.expressions - begun).min(EXPRESSIONS_OF_A_WORLD);
            report.add(one_world(plan.seed + at, count as usize, &mut stores, seam)?);
        }
        Ok(report)
    };
    let part = &part;
    let parts: Vec<Result<Report, Box<Failure>>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..plan.threads.max(1)).map(|thread| scope.spawn(move || part(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let mut sum = Report::default();
    for part in parts {
        sum.add(part?);
    }
    Ok(sum)
}

fn one_world(
    seed: u64,
    count: usize,
    stores: &mut Stores,
    seam: Seam<'_>,
) -> Result<Report, Box<Failure>> {
    let mut generator = Generator::new(seed);
    let world = generator.world(seed, DEVICES_OF_A_WORLD);
    let app = stores.write(&world);
    let (trees, masks): (Vec<Tree>, Vec<u64>) =
        (0..count).map(|_| (generator.expression(&world), generator.bits())).unzip();
    let mut report = Report { expressions: count as u64, worlds: 1, ..Report::default() };
    let Ok(asked) = ask(&world, app, &trees, &masks, stores, seam) else {
        // One of them, or only all of them together: each is asked alone.
        for (number, (tree, mask)) in trees.iter().zip(&masks).enumerate() {
            let mut case = Case { world: world.clone(), app, mask: *mask, stores, seam };
            if case.wrong(tree).is_some() {
                return Err(Box::new(case.shrunk(tree.clone(), number)));
            }
        }
        let error = ask(&world, app, &trees, &masks, stores, seam).err();
        panic!("seed {seed}: {error:?}");
    };
    for (number, ((tree, mask), asked)) in trees.iter().zip(&masks).zip(&asked).enumerate() {
        if !asked.wrong().is_empty() {
            let mut case = Case { world, app, mask: *mask, stores, seam };
            return Err(Box::new(case.shrunk(tree.clone(), number)));
        }
        report.rows += 2 * world.devices.len() as u64;
        report.mixed += u64::from(is_mixed(tree, &world));
        if tree.size() <= COUNTED_SIZE_MAX {
            for device in &world.devices {
                judge::count(tree, device, &world, &mut report.outcomes);
            }
        }
    }
    Ok(report)
}

/// One expression of one world, to be made smaller.
struct Case<'a> {
    world: World,
    app: AppId,
    mask: u64,
    stores: &'a mut Stores,
    seam: Seam<'a>,
}

/// Which uses are wrong, and what all say, or why there is nothing to say.
struct Wrong {
    uses: Vec<Use>,
    said: Result<Asked, String>,
}

impl Case<'_> {
    fn wrong(&mut self, tree: &Tree) -> Option<Wrong> {
        let Case { world, app, mask, stores, seam } = self;
        match ask(world, *app, std::slice::from_ref(tree), &[*mask], stores, *seam) {
            Ok(asked) => {
                let asked = asked.into_iter().next()?;
                let uses = asked.wrong();
                (!uses.is_empty()).then_some(Wrong { uses, said: Ok(asked) })
            }
            Err((used, error)) => Some(Wrong { uses: vec![used], said: Err(error) }),
        }
    }

    /// First a smaller expression, then one device, then less of it.
    fn shrunk(&mut self, mut tree: Tree, number: usize) -> Failure {
        let seed = self.world.seed;
        let Some(mut wrong) = self.wrong(&tree) else {
            // The index was filled with all expressions.
            let (uses, devices) = (vec![Use::Terms], Vec::new());
            let told = format!("oracle: seed {seed}: wrong only among others: {}", write(&tree));
            return Failure { seed, number, tree, uses, devices, told };
        };
        let wanted = wrong.uses.clone();
        let is_wanted = |wrong: &Wrong| wrong.uses.iter().any(|used| wanted.contains(used));
        let mut budget = SHRINKS_MAX;
        while budget > 0 {
            let mut smaller = shrink::smaller(&tree, &self.world).into_iter().take(budget);
            let found = smaller.find_map(|tree| {
                budget -= 1;
                let wrong = self.wrong(&tree).filter(is_wanted)?;
                Some((tree, wrong))
            });
            let Some(found) = found else { break };
            (tree, wrong) = found;
        }
        if let Some(device) = self.first_wrong(&wrong) {
            let mut poorer = vec![device];
            let mut budget = SHRINKS_MAX / 10;
            while let Some(device) = poorer.pop().filter(|_| budget > 0) {
                budget -= 1;
                let mut world = self.world.clone();
                world.devices = vec![device.clone()];
                let app = self.stores.write(&world);
                let before = (std::mem::replace(&mut self.world, world), self.app);
                self.app = app;
                match self.wrong(&tree).filter(is_wanted) {
                    Some(found) => {
                        wrong = found;
                        poorer = shrink::poorer(&device);
                    }
                    None => (self.world, self.app) = before,
                }
            }
        }
        let told = self.tell(&tree, number, &wrong);
        let devices = self.world.devices.clone();
        Failure { seed, number, tree, uses: wrong.uses, devices, told }
    }

    fn first_wrong(&self, wrong: &Wrong) -> Option<Device> {
        let asked = wrong.said.as_ref().ok()?;
        let is_wrong = |at: &usize| asked.said.iter().any(|said| said[*at] != asked.expected[*at]);
        let at = (0..self.world.devices.len()).find(is_wrong)?;
        Some(self.world.devices[at].clone())
    }

    fn tell(&self, tree: &Tree, number: usize, wrong: &Wrong) -> String {
        let world = &self.world;
        let word = |truth: Truth| format!("{truth:?}").to_lowercase();
        let source = write(tree);
        let uses: Vec<String> = wrong.uses.iter().map(ToString::to_string).collect();
        let mut told = vec![
            format!(
                "oracle: DISAGREEMENT, seed {}, expression {number}: {}",
                world.seed,
                uses.join(", ")
            ),
            format!("  expression  {source}"),
        ];
        let read = Expression::parse(&source, world, &LIMITS);
        if let Ok(read) = &read {
            told.push(format!("  canonical   {}", read.to_text(world)));
        }
        told.push(format!("  clock       {}", world.now));
        told.push(format!("  message     {:016x}", world.message));
        for (index, name) in tree::AUDIENCES.iter().enumerate() {
            if tree.any(&|part| *part == Tree::Audience(index)) {
                told.push(format!("  @{name} is {}", write(&world.audiences[index])));
            }
        }
        let at = self.first_wrong(wrong).and_then(|device| {
            let at = world.devices.iter().position(|known| known.row.id == device.row.id)?;
            told.push(format!("  device      {device:?}"));
            Some(at)
        });
        match &wrong.said {
            Ok(asked) => {
                if let Some(at) = at {
                    told.push(format!("  {:12}{}", "interpreter", word(asked.expected[at])));
                    for (used, said) in Use::ALL.into_iter().zip(&asked.said) {
                        let mark = if said[at] == asked.expected[at] { "" } else { "   <- wrong" };
                        told.push(format!("  {used:12}{}{mark}", word(said[at])));
                    }
                }
                for (used, fault) in &asked.faults {
                    told.push(format!("  {used}: {fault}"));
                }
            }
            Err(error) => told.push(format!("  {}: {error}", wrong.uses[0])),
        }
        for (used, dialect) in [(Use::MariaDb, Dialect::MariaDb), (Use::Sqlite, Dialect::Sqlite)] {
            if let Ok(read) = &read
                && wrong.uses.contains(&used)
                && let Ok(condition) = read.to_sql(dialect, &world.context())
            {
                told.push(format!("  {used} was asked {condition:.4000}"));
            }
        }
        let count = number + 1;
        told.push(format!("again: make oracle N={count} SEED={}", world.seed));
        told.join("\n")
    }
}
