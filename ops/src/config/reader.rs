//! Reads the four sources into one typed struct, gathering every fault on the way.
//!
//! The reader knows nothing of particular keys: `keys` asks it for one after the other. A value that
//! a higher source overrides is not judged.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::kinds::Setting;
use super::{
    Fault, Faults, Key, Origin, PAIRS, Settings, TomlType, Unknown, VARIABLE_PREFIX, all_keys,
    variable,
};

/// A configuration of a few dozen keys is a few KiB; this only keeps a wrong path from filling RAM.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where values come from, besides the defaults.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) file: Option<PathBuf>,
    /// All variables of the process; those without our prefix are passed over.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Written path (`central.listen`) and value of each flag given.
    pub(crate) flags: Vec<(String, String)>,
    /// Paths of keys that this command cannot do without, though others can.
    pub(crate) required: &'static [&'static str],
}

/// A configuration without faults. Unknown keys are the caller's to warn of or to refuse.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    pub(crate) unknown: Vec<Unknown>,
}

impl Sources {
    /// Reads all sources.
    ///
    /// # Errors
    /// Every fault found, and then the unknown keys too.
    pub(crate) fn load(&self) -> Result<Loaded, Faults> {
        let mut reader = Reader { required: self.required, ..Reader::default() };
        if let Some(path) = &self.file {
            reader.add_file(path);
        }
        reader.add_environment(&self.environment);
        for (path, value) in &self.flags {
            let origin = Origin::Flag(format!("--{}", path.replace(['.', '_'], "-")));
            reader.add(path.clone(), Value::Text(value.clone()), origin);
        }
        reader.check_pairs();
        let settings = Settings::read(&mut reader);
        if let Some(settings) = &settings {
            let edge_alone = self.required.contains(&"edge.link_token");
            for fault in settings.faults(edge_alone) {
                let origin = reader.origins.get(fault.key.as_str()).cloned();
                reader.faults.push(Fault { origin: origin.unwrap_or(Origin::Default), ..fault });
            }
        }
        reader.finish(settings)
    }
}

/// A value as it was found.
#[derive(Clone, Debug)]
enum Value {
    /// From the environment, a flag or a secret's file: text, whatever the key's type.
    Text(String),
    /// From the TOML file, with its type there.
    Toml { text: String, toml: TomlType },
    /// From the TOML file, of a type that no key has.
    Odd(String),
}

#[derive(Clone, Debug)]
struct Found {
    value: Value,
    origin: Origin,
}

#[derive(Debug, Default)]
pub(super) struct Reader {
    /// By path, the highest source that names it.
    found: BTreeMap<String, Found>,
    /// Where each value that was taken came from.
    origins: BTreeMap<&'static str, Origin>,
    faults: Vec<Fault>,
    required: &'static [&'static str],
}

impl Reader {
    fn add(&mut self, path: String, value: Value, origin: Origin) {
        // A secret and the file that holds it are one key: the higher source replaces both.
        if let Some(key) = all_keys().find(|key| key.kind.secret && key.path == path) {
            self.found.remove(&key.written_path());
        } else if let Some(key) = all_keys().find(|key| key.written_path() == path) {
            self.found.remove(key.path);
        }
        self.found.insert(path, Found { value, origin });
    }

    fn fault(&mut self, key: &str, what: String, origin: Origin) {
        self.faults.push(Fault { key: key.to_owned(), what, origin });
    }

    fn add_file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) => {
                return self.fault(&name, format!("cannot be read: {error}"), Origin::Default);
            }
        };
        let origin_at = |offset: usize| Origin::File {
            path: path.to_owned(),
            line: 1 + text.as_bytes()[..offset.min(text.len())]
                .iter()
                .filter(|b| **b == b'\n')
                .count(),
        };
        // Recoverable, so that a slip in one line does not hide the faults of the others.
        let (table, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let origin = origin_at(error.span().map_or(0, |span| span.start));
            self.fault("syntax", error.message().to_owned(), origin);
        }
        for (key, value) in table.get_ref() {
            let section = key.get_ref();
            let is_section = all_keys()
                .any(|known| known.path.split_once('.').is_some_and(|(name, _)| name == section));
            match value.get_ref() {
                DeValue::Table(entries) => {
                    for (key, value) in entries {
                        let path = format!("{section}.{}", key.get_ref());
                        self.add(path, toml_value(&text, value), origin_at(key.span().start));
                    }
                }
                _ if is_section => self.fault(
                    section,
                    format!("expected a table, [{section}]; found {}", quoted(&text, value)),
                    origin_at(key.span().start),
                ),
                _ => {
                    let origin = origin_at(key.span().start);
                    self.add(section.to_string(), toml_value(&text, value), origin);
                }
            }
        }
    }

    fn add_environment(&mut self, variables: &[(OsString, OsString)]) {
        for (name, value) in variables {
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(VARIABLE_PREFIX))
            else {
                continue;
            };
            let path = rest.replace("__", ".").to_lowercase();
            let origin = Origin::Environment(format!("{VARIABLE_PREFIX}{rest}"));
            match value.to_str() {
                Some(value) => self.add(path, Value::Text(value.to_owned()), origin),
                None => self.fault(&path, "expected UTF-8".to_owned(), origin),
            }
        }
    }

    /// Notes each certificate without its key, and the other way round.
    fn check_pairs(&mut self) {
        for (one, other) in PAIRS.iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            // A secret stands in a file that another key names.
            let found = |key: &str| {
                self.found.get(key).or_else(|| self.found.get(format!("{key}_file").as_str()))
            };
            if let Some(found) = found(one).filter(|_| found(other).is_none()) {
                let origin = found.origin.clone();
                self.fault(other, format!("required, since {one} is set"), origin);
            }
        }
    }

    /// The value of `key`, or `None` after noting a fault.
    pub(super) fn take<T: Setting>(&mut self, key: &'static Key) -> Option<T> {
        let value = match self.take_found(key) {
            Err(()) => return None,
            Ok(None) if key.default.is_empty() => {
                let absent = T::absent().filter(|_| !self.required.contains(&key.path));
                if absent.is_none() {
                    self.fault(key.path, format!("required; {}", how_to_set(key)), Origin::Default);
                }
                return absent;
            }
            Ok(None) => {
                Found { value: Value::Text(key.default.to_owned()), origin: Origin::Default }
            }
            Ok(Some(found)) => found,
        };
        let parsed = match &value.value {
            Value::Text(text) => T::parse(text),
            Value::Toml { text, toml } if *toml == key.kind.toml => T::parse(text),
            Value::Toml { .. } | Value::Odd(_) => None,
        };
        if parsed.is_some() {
            self.origins.insert(key.path, value.origin);
        } else {
            let found = match &value.value {
                _ if !key.kind.shown => "a value that is not shown".to_owned(),
                Value::Text(text) => format!("{text:?}"),
                Value::Toml { text, toml: TomlType::String } => format!("{text:?}"),
                Value::Toml { text, .. } | Value::Odd(text) => text.clone(),
            };
            let what = format!("expected {}; found {found}", key.kind.expected);
            self.fault(key.path, what, value.origin);
        }
        parsed
    }

    /// What the sources say of `key`, a secret already read from its file.
    fn take_found(&mut self, key: &Key) -> Result<Option<Found>, ()> {
        let plain = self.found.remove(key.path);
        if !key.kind.secret {
            return Ok(plain);
        }
        if let Some(found) = plain {
            if matches!(found.origin, Origin::Environment(_)) {
                return Ok(Some(found));
            }
            let what = format!("a secret must not stand here; {}", how_to_set(key));
            self.fault(key.path, what, found.origin);
            return Err(());
        }
        let Some(named) = self.found.remove(&key.written_path()) else {
            return Ok(None);
        };
        let path = match &named.value {
            Value::Text(text) | Value::Toml { text, toml: TomlType::String } => {
                PathBuf::parse(text)
            }
            Value::Toml { .. } | Value::Odd(_) => None,
        };
        let Some(path) = path else {
            let what = format!("expected {}", PathBuf::KIND.expected);
            self.fault(&key.written_path(), what, named.origin);
            return Err(());
        };
        match read_text(&path) {
            Ok(text) => {
                // Editors and `echo` end a file with a newline that is no part of the secret.
                let text = text.trim_end_matches(['\r', '\n']).to_owned();
                Ok(Some(Found { value: Value::Text(text), origin: named.origin }))
            }
            Err(error) => {
                let what = format!("{} cannot be read: {error}", path.display());
                self.fault(&key.written_path(), what, named.origin);
                Err(())
            }
        }
    }

    fn finish(self, settings: Option<Settings>) -> Result<Loaded, Faults> {
        let unknown: Vec<Unknown> = self
            .found
            .into_iter()
            .map(|(key, found)| Unknown { suggestion: nearest(&key), key, origin: found.origin })
            .collect();
        match settings {
            Some(settings) if self.faults.is_empty() => Ok(Loaded { settings, unknown }),
            _ => Err(Faults { faults: self.faults, unknown }),
        }
    }
}

fn toml_value(text: &str, value: &Spanned<DeValue<'_>>) -> Value {
    match value.get_ref() {
        DeValue::String(string) => Value::Toml { text: string.to_string(), toml: TomlType::String },
        DeValue::Integer(integer) if integer.radix() == 10 => {
            Value::Toml { text: integer.as_str().to_owned(), toml: TomlType::Integer }
        }
        DeValue::Boolean(value) => Value::Toml { text: value.to_string(), toml: TomlType::Boolean },
        _ => Value::Odd(quoted(text, value)),
    }
}

/// A value as it stands in the file, or its type if it is long.
fn quoted(text: &str, value: &Spanned<DeValue<'_>>) -> String {
    match text.get(value.span()) {
        Some(source) if source.len() <= 40 && !source.contains('\n') => source.to_owned(),
        _ => format!("a value of type {}", value.get_ref().type_str()),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    if file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)? as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// How the value of a key can be given.
fn how_to_set(key: &Key) -> String {
    format!("set {} or the variable {}", key.written_path(), variable(key.path))
}

/// The known key that `path` was most likely meant to be.
fn nearest(path: &str) -> Option<String> {
    let last = path.rsplit('.').next().unwrap_or(path);
    all_keys()
        .map(Key::written_path)
        .map(|known| {
            // The right name in the wrong section is as near as a slip of one letter.
            let elsewhere = known.rsplit('.').next() == Some(last);
            (if elsewhere { 1 } else { distance(path, &known) }, known)
        })
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, known)| known)
}

/// Levenshtein distance in bytes, for short keys.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
