//! Central: the owner of a shard's truth.
//!
//! It stands apart from the edges because there is one owner a shard and any number of edges: here writes are
//! decided, made durable and handed to whoever follows; there devices are answered. Central knows neither how the
//! store keeps its rows nor how devices talk.
//!
//! - [`core`] decides: one [`core::writer::Writer`] a shard, without I/O.
//! - The shell gives it a store, a clock, the admin API ([`Addresses::admin`]) and the links to edges.
//!
//! Start with [`Central::start`], or [`run`] to the end.

pub mod config;
pub mod core;

mod error;
mod metrics;
mod shell;

pub use config::{Config, Identity};
pub use error::CentralError;
pub use shell::{Addresses, Central, LoadProgress, OnLoading, open_store, openapi, run};
pub use shell::{callbacks, channel, outbound};
