//! The event log, as it is configured.

use std::fmt;
use std::path::PathBuf;

use crate::core::history::{EVENTS, covers};

/// Lines for people beside the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLogPlan {
    pub to: EventLogTo,
    pub format: EventLogFormat,
    /// Names of events, or `message.*` for all that begin so; empty: all.
    pub events: Vec<String>,
    /// Whether devices are named by their ids rather than by their pseudonyms.
    pub device_ids: bool,
    /// The most bytes of a file.
    pub rotate_bytes: u64,
    /// Whether another day of UTC begins another file.
    pub rotate_daily: bool,
    /// Files that are kept besides the newest. At least 1.
    pub rotate_keep: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventLogTo {
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventLogFormat {
    Json,
    Csv,
}

impl EventLogPlan {
    /// All events as JSON, in files of 100 MiB of which ten are kept.
    pub fn new(to: EventLogTo) -> EventLogPlan {
        EventLogPlan {
            to,
            format: EventLogFormat::Json,
            events: Vec::new(),
            device_ids: true,
            rotate_bytes: 100 * 1024 * 1024,
            rotate_daily: false,
            rotate_keep: 10,
        }
    }

    /// Whether an event is to be told.
    pub fn wants(&self, event: &str) -> bool {
        self.events.is_empty() || self.events.iter().any(|pattern| covers(pattern, event))
    }

    /// Whether a name or pattern stands for any of the events that there are.
    pub fn is_pattern(pattern: &str) -> bool {
        EVENTS.iter().any(|event| covers(pattern, event))
    }
}

impl fmt::Display for EventLogTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventLogTo::Stdout => f.write_str("stdout"),
            EventLogTo::File(path) => path.display().fmt(f),
        }
    }
}
