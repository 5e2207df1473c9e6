//! The log: text for a person at a terminal, one JSON object a line for everything else.

mod json;

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Sends the log to standard error from here on. Called once, before the first thread starts.
pub(crate) fn start(settings: &LogSettings) {
    let terminal = io::stderr().is_terminal();
    let filter = EnvFilter::new(&settings.filter.0);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let text = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    if text {
        log.with_ansi(terminal).init();
    } else {
        log.event_format(json::Lines).init();
    }
}

/// As [`start`], as text whoever reads it, for a command that a person runs.
pub(crate) fn start_text(filter: &str) {
    let filter = EnvFilter::new(filter);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    log.with_ansi(io::stderr().is_terminal()).init();
}
