//! The command line. Each key of the configuration is a flag too, made from the table of keys.

use std::env;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand};

use crate::config::{Key, SECTIONS, Sources, joined};
use crate::demo::Options;
use crate::{explain, fleet, history, import};

/// Targeted push fanout: write one message and a recipient expression, and every device that the
/// expression describes, now or later, has it.
#[derive(Debug, Parser)]
#[command(name = "carillon", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Commands,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Commands {
    /// Run central and one edge in this process, with an SQLite file: everything, to try it.
    ///
    /// Secrets, a development CA and certificates are made in the data folder at the first start.
    Up(TierArgs<true, true>),
    /// Run the tier that owns the truth: admin API, store, and the stream to the edges.
    Central(TierArgs<true, false>),
    /// Run an edge: the stateless tier that devices talk to.
    Edge(TierArgs<false, true>),
    /// Take the history from its topic in Kafka into the lake, as Parquet files.
    ///
    /// May be killed at any moment: each record is in the lake once. Needs neither central nor its store.
    Archive(TierArgs<false, false>),
    /// Say what happened, of a device, a message or a time: from the lake and what the topic has beyond it.
    ///
    /// Only reads. What central has not written to either yet is not shown: with `history.to = "lake"` that is up to
    /// `history.flush_every`.
    History(history::Options),
    /// Run the tiers on loopback under a live fleet, and judge what every device got.
    ///
    /// Imports devices, connects clients that long-poll over TLS, then sends, schedules, edits and recalls messages,
    /// moves devices between groups, and kills the edge. The last line is the verdict.
    Demo(Options),
    /// Write a made-up fleet of devices, one JSON object a line, as `devices:import` takes it.
    ///
    /// The demo and the benchmarks use the same. Secrets follow from the seed: never for a server that matters.
    Fleet(fleet::command::Options),
    /// Import devices from a file, one JSON object a line, and report what came of each.
    ///
    /// Streams to central's admin API, which has to be running. Good lines stay whatever the others are; a repeat
    /// changes nothing, so an import that was cut short is simply run again.
    Import(import::Options),
    /// Say why a device is a recipient of an expression or a message, or is none, part by part.
    ///
    /// Asks central's admin API, which has to be running.
    Explain(explain::Options),
    /// Show what can be configured.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a TOML file of all keys with their defaults.
    PrintDefaults,
}

/// What the commands that run a tier have in common. That of neither tier runs the archiver.
#[derive(Debug, Args)]
pub(crate) struct TierArgs<const CENTRAL: bool, const EDGE: bool> {
    /// TOML file to read; variables CARILLON__SECTION__KEY and flags override it.
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Judge the configuration and end: 0 if it is good, 2 if not.
    #[arg(long)]
    pub(crate) check_config: bool,
    #[command(flatten)]
    keys: KeyFlags<CENTRAL, EDGE>,
}

impl<const CENTRAL: bool, const EDGE: bool> TierArgs<CENTRAL, EDGE> {
    /// File, environment and flags.
    pub(crate) fn sources(&self) -> Sources {
        Sources {
            file: self.config.clone(),
            environment: env::vars_os().collect(),
            flags: self.keys.0.clone(),
            // An edge next to its central has the token that central made.
            required: match (CENTRAL, EDGE) {
                (true, _) => &[],
                (false, true) => &["edge.link_token"],
                (false, false) => &["history.kafka_brokers", "history.lake"],
            },
        }
    }
}

/// Keys that `-h` shows; `--help` shows all.
const SHORT_HELP: [&str; 11] = [
    "data",
    "log.filter",
    "central.listen",
    "central.stream_listen",
    "central.store",
    "edge.central",
    "edge.link_token",
    "edge.listen",
    "history.kafka_brokers",
    "history.lake",
    "archive.flush_interval",
];

/// The keys given as flags: written path and value. Values are judged with those of the other
/// sources, so that all faults come at once.
#[derive(Debug, Default)]
pub(crate) struct KeyFlags<const CENTRAL: bool, const EDGE: bool>(Vec<(String, String)>);

impl<const CENTRAL: bool, const EDGE: bool> Args for KeyFlags<CENTRAL, EDGE> {
    fn augment_args(command: Command) -> Command {
        add_flags(command, &SHORT_HELP, |section, _| match section {
            "central" | "event_log" => CENTRAL,
            "edge" => EDGE,
            "push" => CENTRAL || EDGE,
            "history" => CENTRAL || !EDGE,
            "archive" => !CENTRAL && !EDGE,
            _ => true,
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const CENTRAL: bool, const EDGE: bool> FromArgMatches for KeyFlags<CENTRAL, EDGE> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(given_flags(matches)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Adds a flag for each key that a command has, which its section's name and it say.
pub(crate) fn add_flags(
    mut command: Command,
    short_help: &[&str],
    has: impl Fn(&str, &Key) -> bool,
) -> Command {
    for section in SECTIONS {
        let heading = if section.name.is_empty() { "process" } else { section.name };
        for key in section.keys.iter().filter(|key| has(section.name, key)) {
            let default = match key.default {
                "" => String::new(),
                default => format!(" [default: {default}]"),
            };
            command = command.arg(
                Arg::new(key.written_path())
                    .long(key.flag())
                    .value_name(key.kind.placeholder)
                    .help(format!("{}{default}", joined(key.about)))
                    .help_heading(heading)
                    .hide_short_help(!short_help.contains(&key.path)),
            );
        }
    }
    command
}

/// Written path and value of each such flag that was given.
pub(crate) fn given_flags(matches: &ArgMatches) -> Vec<(String, String)> {
    let paths = SECTIONS.iter().flat_map(|section| section.keys).map(|key| key.written_path());
    let given = paths.filter_map(|path| {
        let value = matches.try_get_one::<String>(&path).ok().flatten()?.clone();
        Some((path, value))
    });
    given.collect()
}
