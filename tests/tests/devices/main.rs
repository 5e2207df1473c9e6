//! The device API through the real executable: central and edges as processes, on both stores, with faulty networks
//! between them and the devices.
//!
//! What a device should hold is judged by plain predicates over the tests' own record of what was written; neither
//! `expr` nor `world` is asked.

mod audiences;
mod away;
mod cases;
mod cuts;
mod fetches;
mod fleet;
mod forgery;
mod funnel;
mod input;
mod lag;
mod manual;
mod refusals;
mod repeats;
mod restarts;
mod shop;
mod watch;

use std::time::Duration;

/// For whatever comes by itself; a loaded machine takes some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a test did, in numbers; seen with `--no-capture`.
#[expect(clippy::print_stdout, reason = "a test's own words")]
fn say(text: &str) {
    println!("{text}");
}
