//! The configuration of every command: one table of keys, four sources, one typed struct.
//!
//! Its own reader rather than a crate, because an operator is told about *all* faults at once, each
//! with its key, where the value came from and what was expected, and because a key is written down
//! once: the table in `keys` yields the structs, the parser, the flags, `config print-defaults` and
//! `docs/configuration.md`.
//!
//! In rising order: defaults, the TOML file, `CARILLON__SECTION__KEY` in the environment, flags.
//! What always holds: a secret is never taken from the file's text or a flag, where others can read
//! it, and is shown by no `Debug` and in no fault.

mod check;
mod faults;
mod keys;
mod kinds;
mod print;
mod reader;
#[cfg(test)]
mod tests;

pub(crate) use faults::{Fault, Faults, Origin, Unknown};
use keys::PAIRS;
pub(crate) use keys::{
    ArchiveSettings, HistorySettings, LogSettings, MetricsSettings, SECTIONS, Settings,
};
pub(crate) use kinds::{
    CredentialKeyList, HistoryTo, ListenAt, LogFormat, Password, RootSecret, Secret, Setting,
    with_password,
};
#[cfg(test)]
use print::reference_markdown;
pub(crate) use print::{defaults_toml, joined};
pub(crate) use reader::{Loaded, Sources};

/// One configuration key, as the table states it.
#[derive(Debug)]
pub(crate) struct Key {
    /// Dotted, as in the TOML file: `central.listen`.
    pub(crate) path: &'static str,
    /// What it does, one line of text per element, each with the space that follows `///`.
    pub(crate) about: &'static [&'static str],
    /// The default as text; empty when the key has none.
    pub(crate) default: &'static str,
    pub(crate) kind: &'static Kind,
}

/// What is told to an operator about the values of a key.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Completes "expected …".
    pub(crate) expected: &'static str,
    /// The placeholder in `--help`.
    pub(crate) placeholder: &'static str,
    /// The type that the TOML file must use.
    pub(crate) toml: TomlType,
    /// Taken only from the environment or from the file that `<key>_file` names.
    pub(crate) secret: bool,
    /// Whether a fault may quote the value.
    pub(crate) shown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TomlType {
    String,
    Integer,
    Boolean,
}

/// A section of the TOML file; the first has no name and holds the keys above all tables.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) about: &'static [&'static str],
    pub(crate) keys: &'static [Key],
}

impl Key {
    /// The name inside its section.
    pub(crate) fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The path that file and flags use: a secret's is that of the file which holds it.
    pub(crate) fn written_path(&self) -> String {
        if self.kind.secret { format!("{}_file", self.path) } else { self.path.to_owned() }
    }

    pub(crate) fn flag(&self) -> String {
        self.written_path().replace(['.', '_'], "-")
    }

    /// The variable that holds the value itself, for a secret too.
    pub(crate) fn variable(&self) -> String {
        variable(self.path)
    }
}

fn variable(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.replace('.', "__").to_uppercase())
}

/// Two underscores, so that `CARILLON_BIN` and the like are nobody's unknown key.
const VARIABLE_PREFIX: &str = "CARILLON__";

fn all_keys() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}
