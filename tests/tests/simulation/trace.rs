//! What happened in a run: a hash of everything, the last lines for whoever has to find a fault, and counts.

use std::collections::{BTreeMap, VecDeque};

/// Lines that a failing run prints.
const LINES: usize = 100;

#[derive(Clone, Copy, Debug)]
struct Line {
    now: u64,
    what: &'static str,
    numbers: [u64; 3],
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c] = self.numbers;
        write!(f, "{:>9} ms  {:<28} {a:x} {b:x} {c:x}", self.now, self.what)
    }
}

/// Prints itself when a check panics, unless it is told to be quiet.
#[derive(Debug)]
pub(crate) struct Trace {
    seed: u64,
    quiet: bool,
    hash: u64,
    last: VecDeque<Line>,
    counts: BTreeMap<&'static str, u64>,
}

impl Trace {
    pub(crate) fn new(seed: u64, quiet: bool) -> Trace {
        Trace { seed, quiet, hash: 0, last: VecDeque::new(), counts: BTreeMap::new() }
    }

    pub(crate) fn note(&mut self, now: u64, what: &'static str, numbers: [u64; 3]) {
        for part in [now, what.len() as u64, u64::from(what.as_bytes()[0])].iter().chain(&numbers) {
            self.hash = (self.hash ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        if self.last.len() == LINES {
            self.last.pop_front();
        }
        self.last.push_back(Line { now, what, numbers });
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// What was counted, and a hash of all that was noted.
    pub(crate) fn ended(&self) -> (BTreeMap<&'static str, u64>, u64) {
        (self.counts.clone(), self.hash)
    }
}

impl Drop for Trace {
    #[expect(clippy::print_stderr, reason = "for whoever reads why a test failed")]
    fn drop(&mut self) {
        if std::thread::panicking() && !self.quiet {
            for line in &self.last {
                eprintln!("{line}");
            }
            eprintln!(
                "seed {} fails; again with: SIM_SEED={} cargo nextest run --release -p carillon-tests --test simulation",
                self.seed, self.seed
            );
        }
    }
}
