//! The executable `carillon`: configuration, log, runtime, tiers, drain, exit code, in that order.
//!
//! What a tier does is in its own crate; here is only what a process does.

mod allocator;
mod archive;
mod cli;
mod config;
mod data;
mod demo;
mod explain;
mod exporter;
mod failure;
mod fleet;
mod hexadecimal;
mod history;
mod import;
mod link_token;
mod log;
mod open_files;
mod remote;
mod signals;
mod tiers;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Commands, ConfigCommand, TierArgs};
use crate::config::{Faults, Loaded};
use crate::failure::{Failure, say};
use crate::tiers::Tiers;

fn main() -> ExitCode {
    // Before anything that may speak TLS: rustls panics at its first use without it.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("main installs the only one, first");
    open_files::raise();
    let outcome = match Cli::parse().command {
        Commands::Demo(options) => {
            return demo::run(&options).unwrap_or_else(|failure| failure.report());
        }
        Commands::Up(args) => serve(&args, Some(Tiers::Both)),
        Commands::Central(args) => serve(&args, Some(Tiers::Central)),
        Commands::Edge(args) => serve(&args, Some(Tiers::Edge)),
        Commands::Archive(args) => serve(&args, None),
        Commands::History(options) => history::query::run(&options),
        Commands::Import(options) => import::run(&options),
        Commands::Explain(options) => explain::run(&options),
        Commands::Fleet(options) => fleet::command::run(&options),
        Commands::Config(ConfigCommand::PrintDefaults) => say(&config::defaults_toml()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Judges the configuration and, unless that was all that was asked for, runs tiers with it, or else the archiver.
fn serve<const CENTRAL: bool, const EDGE: bool>(
    args: &TierArgs<CENTRAL, EDGE>,
    tiers: Option<Tiers>,
) -> Result<(), Failure> {
    let Loaded { settings, unknown } = args.sources().load()?;
    if args.check_config {
        if !unknown.is_empty() {
            return Err(Faults { faults: Vec::new(), unknown }.into());
        }
        return say("the configuration is good\n");
    }
    log::start(&settings.log);
    for unknown in unknown {
        let (key, origin) = (&unknown.key, unknown.origin.to_string());
        tracing::warn!(key, origin, suggestion = unknown.suggestion, "unknown configuration key");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?tiers, "carillon starts");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("carillon")
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let outcome = runtime.block_on(async {
        match tiers {
            Some(tiers) => tiers::run(tiers, &settings).await,
            None => archive::run(&settings).await,
        }
    });
    // What has not ended by the deadline of the drain is not waited for again.
    runtime.shutdown_background();
    outcome
}
