//! An edge: it holds the world of a shard in RAM and works out what a device should have when the device asks.
//!
//! Edges are clones that can be added or lost freely, so this crate knows neither the store nor central's inside: it
//! follows central's stream, answers devices from what it has, and sends their writes upstream. An edge that loses
//! central goes on serving what it holds, and says how old that is.
//!
//! [`core`] is pure: one world in, one decision out. [`Edge`] gives it sockets, one runtime a core.

mod config;
pub mod core;
mod error;
mod metrics;
mod shell;

pub use config::{CentralConfig, CertificateFiles, Config, Limits, ListenConfig, Token, Trust};
pub use core::sabotage::Sabotage;
pub use error::EdgeError;
pub use shell::{Addresses, Edge, run};
