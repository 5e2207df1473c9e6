//! `carillon fleet`: the fleet's lines on standard output, for imports, benchmarks and trials.

use std::io::{self, Write};

use super::{ATTRIBUTES, Fleet, GROUPS, group_name};
use crate::failure::Failure;

/// Bytes written at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// What `carillon fleet` can be told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Lines to write.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    devices: u64,
    /// What the fleet is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write what an app has to declare, as JSON, instead of lines.
    #[arg(long)]
    schema: bool,
}

/// Writes lines until all are written or nobody reads them any more.
///
/// # Errors
/// [`Failure::Output`]
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = if options.schema {
        writeln!(out, "{}", schema())
    } else {
        write(&Fleet::new(options.seed), options.devices, &mut out)
    };
    match written {
        // As of `head`, which is content.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Failure::Output),
    }
}

fn schema() -> serde_json::Value {
    let attributes: serde_json::Map<String, serde_json::Value> =
        ATTRIBUTES.iter().map(|&(name, kind)| (name.to_owned(), kind.into())).collect();
    let groups: Vec<String> = (0..GROUPS).map(group_name).collect();
    serde_json::json!({"attributes": attributes, "groups": groups})
}

fn write(fleet: &Fleet, devices: u64, out: &mut impl Write) -> io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE_BYTES + 1024);
    for index in 0..devices {
        fleet.device(index).write_line(true, &mut piece);
        if piece.len() >= PIECE_BYTES {
            out.write_all(&piece)?;
            piece.clear();
        }
    }
    out.write_all(&piece)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_names_only_what_the_schema_declares() {
        let schema = schema();
        let mut text = Vec::new();
        write(&Fleet::new(1), 3_000, &mut text).expect("a vector takes all");
        let text = String::from_utf8(text).expect("UTF-8");
        assert_eq!(text.lines().count(), 3_000);
        let groups: std::collections::HashSet<_> =
            schema["groups"].as_array().expect("a list").iter().collect();
        assert_eq!(groups.len(), usize::from(GROUPS));
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            for name in line["attributes"].as_object().expect("an object").keys() {
                assert!(schema["attributes"].get(name).is_some(), "{name}");
            }
            for group in line["groups"].as_array().expect("a list") {
                assert!(groups.contains(group), "{group}");
            }
        }
    }
}
