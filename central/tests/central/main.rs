//! Central on real sockets over SQLite: the admin API's good and bad input, a store that fails, links to edges.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod channels;
mod harness;
mod import;
mod limits;
mod links;
mod retention;
mod store;
