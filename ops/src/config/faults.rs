//! What an operator reads when a configuration is wrong.

use std::fmt;
use std::path::PathBuf;

/// Where a value was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `line` counts from 1.
    File { path: PathBuf, line: usize },
    /// The variable's name.
    Environment(String),
    /// With its dashes.
    Flag(String),
    /// Built in, or absent.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Dotted path, or the file's name if the file as a whole is at fault.
    pub(crate) key: String,
    /// A clause that follows the key: "expected …; found …".
    pub(crate) what: String,
    pub(crate) origin: Origin,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)?;
        match &self.origin {
            Origin::Default => Ok(()),
            origin => write!(f, " ({origin})"),
        }
    }
}

/// A key that this version does not know; another version may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    pub(crate) key: String,
    pub(crate) origin: Origin,
    /// The nearest known key, if one is near.
    pub(crate) suggestion: Option<String>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: unknown key", self.key)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, ", did you mean {suggestion}?")?;
        }
        write!(f, " ({})", self.origin)
    }
}

/// Everything wrong with a configuration, at once.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) faults: Vec<Fault>,
    pub(crate) unknown: Vec<Unknown>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len() + self.unknown.len();
        write!(f, "the configuration has {count} fault{}", if count == 1 { "" } else { "s" })?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))?;
        self.unknown.iter().try_for_each(|unknown| write!(f, "\n  {unknown}"))
    }
}

impl std::error::Error for Faults {}
