//! What central decides, without I/O: the same code runs under the shell and under a seeded simulation.
//!
//! No clock, socket, task or randomness in here. Time comes in as [`carillon_world::Millis`] of the store's clock,
//! random ids come in with the write that needs them.

pub mod audience;
pub mod auth;
pub mod books;
pub mod budget;
pub mod callback;
pub mod channel;
pub mod expression;
pub mod funnel;
pub mod history;
pub mod input;
pub mod keys;
pub mod limits;
pub mod outbound;
pub mod problem;
pub mod push;
pub mod render;
pub mod schedule;
pub mod seen;
pub mod tally;
pub mod upstream;
pub mod value;
pub mod write;
pub mod writer;

mod decide;
mod idempotency;
mod ledger;
mod state;
mod weight;
