//! The table of keys as an operator reads it: a TOML file of all defaults, and the page of the
//! manual.

use std::fmt::Write as _;

#[cfg(test)]
use super::Section;
use super::{Key, SECTIONS, TomlType};

const INTRODUCTION: &str = "\
# Every key of Carillon's configuration with its default; a key without one is commented out.
# A variable of the environment overrides this file, a flag overrides both.
";

/// A TOML file with all keys and their defaults, fit for `--config`.
pub(crate) fn defaults_toml() -> String {
    let mut out = INTRODUCTION.to_owned();
    for section in SECTIONS {
        out.push('\n');
        for line in section.about {
            let _ = writeln!(out, "#{line}");
        }
        if !section.name.is_empty() {
            let _ = writeln!(out, "[{}]", section.name);
        }
        for key in section.keys {
            out.push('\n');
            for line in key.about {
                let _ = writeln!(out, "#{line}");
            }
            let _ = writeln!(out, "# {}. {}", capitalised(key.kind.expected), key.variable());
            let _ = match (key.default, key.kind.toml) {
                ("", _) => writeln!(out, "# {} = …", written_name(key)),
                (text, TomlType::String) => writeln!(out, "{} = {text:?}", key.name()),
                (text, TomlType::Integer | TomlType::Boolean) => {
                    writeln!(out, "{} = {text}", key.name())
                }
            };
        }
    }
    out
}

#[cfg(test)]
const PAGE_HEAD: &str = "\
# Configuration

This page is written by the table of keys in `ops/src/config/keys.rs`; `carillon config
print-defaults` prints the same as a TOML file.

Values come, in rising order, from the defaults, the TOML file that `--config` names, variables of
the environment and flags: `central.listen`, `CARILLON__CENTRAL__LISTEN` and `--central-listen` are
one key. Relative paths start at the folder in which the process was started. An unknown key is
warned of, so that a release can be rolled back without its file; `--check-config` refuses it. That
flag, on `up`, `central`, `edge` and `archive`, reports all faults at once, opens no port, makes no file, and
ends with 0, or with 2 if there is a fault.

A secret is read from the file that `<key>_file` names, or from the variable of the key itself
(`CARILLON__CENTRAL__ADMIN_TOKEN`); in the TOML file or on the command line others could read it.

Durations are written `500ms`, `30s`, `5m`, `12h` or `7d`; sizes `512B`, `64KiB`, `4MiB` or `1GiB`.
";

/// `docs/configuration.md`, for the test that keeps it current.
#[cfg(test)]
pub(crate) fn reference_markdown() -> String {
    let mut out = PAGE_HEAD.to_owned();
    for section in SECTIONS {
        let Section { name, about, keys } = section;
        let title =
            if name.is_empty() { "Above all tables".to_owned() } else { format!("`[{name}]`") };
        let _ = write!(out, "\n## {title}\n\n{}\n\n", joined(about));
        out.push_str("| key | value | default | what it does |\n| --- | --- | --- | --- |\n");
        for key in *keys {
            let default = match key.default {
                "" => "not set".to_owned(),
                default => format!("`{default}`"),
            };
            let (expected, about) = (key.kind.expected, joined(key.about));
            let _ = writeln!(out, "| `{}` | {expected} | {default} | {about} |", written_name(key));
        }
    }
    out
}

fn written_name(key: &Key) -> String {
    if key.kind.secret { format!("{}_file", key.name()) } else { key.name().to_owned() }
}

/// Lines of a doc comment as one.
pub(crate) fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
