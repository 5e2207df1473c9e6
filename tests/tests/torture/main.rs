//! Long trials of one promise each, under faults: `make torture NAME=write` runs one at its full length, CI a short one.
//!
//! `CARILLON_BIN` names the executable, `CARILLON_TORTURE_ROUNDS` how many rounds a store and `CARILLON_TORTURE_SEED`
//! the run; each trial prints its seed and one line of what it did, and fails below its floors.

mod history;
mod push;
mod write;

const SEED: &str = "CARILLON_TORTURE_SEED";
const ROUNDS: &str = "CARILLON_TORTURE_ROUNDS";

/// A test's output shows it where the test failed or `--nocapture` asks for it.
#[expect(clippy::print_stdout, reason = "the report of the trial")]
fn say(line: &str) {
    println!("{line}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?} and no whole number")))
}

/// What decides all that is random in a trial.
fn seed(trial: &str) -> u64 {
    let seed = number(SEED).unwrap_or_else(rand::random);
    say(&format!("{trial}: {SEED}={seed}"));
    seed
}
