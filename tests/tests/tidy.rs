//! What no lint says about the tree: which crate may use which, where clocks and runtimes may not
//! be, and how long a file may grow.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests is a folder of the workspace")
        .into()
}

/// Folder of each crate, and which of ours its code may use. Who is not listed may be used by nobody.
const ARROWS: [(&str, &[&str]); 8] = [
    ("expr", &[]),
    ("world", &["carillon-expr"]),
    ("persist", &["carillon-expr", "carillon-world"]),
    ("central", &["carillon-expr", "carillon-world", "carillon-persist"]),
    // Neither persist nor central: that is what keeps an edge stateless.
    ("edge", &["carillon-expr", "carillon-world"]),
    // The HTTP API alone.
    ("clients/rust", &[]),
    (
        "ops",
        &[
            "carillon-expr",
            "carillon-world",
            "carillon-persist",
            "carillon-central",
            "carillon-edge",
            "carillon-client",
        ],
    ),
    (
        "tests",
        &[
            "carillon-expr",
            "carillon-world",
            "carillon-persist",
            "carillon-central",
            "carillon-edge",
            "carillon-client",
        ],
    ),
];

const LINES_MAX: usize = 800;

/// What a core may not name: it is handed time and randomness.
const AMBIENT: [&str; 8] = [
    "tokio",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "thread_rng",
    "rand::rng(",
    "rand::random",
];

/// Marks of unfinished work, put together so that this file does not hold them.
fn unfinished() -> [String; 4] {
    [["to", "do!("], ["unimplem", "ented!("], ["FIX", "ME"], ["TO", "DO"]]
        .map(|parts| parts.concat())
}

#[derive(Debug)]
struct Source {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
}

/// All Rust files of the workspace.
fn sources() -> Vec<Source> {
    let root = root();
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = ARROWS.iter().map(|(folder, _)| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                let path = path.strip_prefix(&root).expect("below the root").to_string_lossy();
                sources.push(Source { path: path.into_owned(), text });
            }
        }
    }
    assert!(sources.len() > 20, "the walk found the tree: {}", sources.len());
    sources
}

/// `folder` is a pure core, or a crate that is one as a whole.
fn is_core(path: &str) -> bool {
    path.starts_with("world/src/")
        || path.starts_with("expr/src/")
        || path.contains("/core/")
        || path.ends_with("/core.rs")
}

/// The code of a file without its comments and its tests, which may use what they like.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let is_tests = source.path.ends_with("/tests.rs") || source.path.contains("/tests/");
    source
        .text
        .lines()
        .enumerate()
        .take_while(move |(_, line)| !is_tests && !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// Whether a line awaits, rather than names a field that begins so.
fn awaits(line: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.split(".await").skip(1).any(|rest| !rest.starts_with(is_name))
}

fn our_dependencies(table: &toml::Table, kind: &str) -> BTreeSet<String> {
    let names =
        table.get(kind).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
    names.filter(|name| name.starts_with("carillon")).cloned().collect()
}

fn check(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn crates_use_only_what_the_map_allows() {
    let root = root();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the workspace's manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let members = manifest["workspace"]["members"].as_array().expect("a list of members");
    let members: BTreeSet<&str> = members.iter().filter_map(toml::Value::as_str).collect();
    assert_eq!(
        members,
        ARROWS.iter().map(|(folder, _)| *folder).collect(),
        "every crate is on the map"
    );

    let mut faults = Vec::new();
    for (folder, allowed) in ARROWS {
        let text = fs::read_to_string(root.join(folder).join("Cargo.toml")).expect("a manifest");
        let manifest: toml::Table = text.parse().expect("TOML");
        for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
            for name in our_dependencies(&manifest, kind) {
                if !allowed.contains(&name.as_str()) {
                    faults.push(format!("{folder}/Cargo.toml: {kind} has {name}"));
                }
            }
        }
    }
    check(faults);
}

#[test]
fn versions_stand_once_in_the_workspace() {
    let mut faults = Vec::new();
    for (folder, _) in ARROWS {
        let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
        let manifest: toml::Table = text.parse().expect("TOML");
        for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
            for (name, value) in
                manifest.get(kind).and_then(toml::Value::as_table).into_iter().flatten()
            {
                if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    faults.push(format!(
                        "{folder}/Cargo.toml: {kind} gives {name} a version of its own"
                    ));
                }
            }
        }
        if manifest.get("lints").and_then(|lints| lints.get("workspace")).is_none() {
            faults.push(format!("{folder}/Cargo.toml: does not inherit the workspace's lints"));
        }
    }
    check(faults);
}

#[test]
fn cores_take_time_and_randomness_as_arguments() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| is_core(&source.path)) {
        for (line, text) in code(source) {
            for ambient in AMBIENT.iter().filter(|ambient| text.contains(**ambient)) {
                faults.push(format!("{}:{line}: {ambient} in a core", source.path));
            }
            if text.contains("async fn") || awaits(text) {
                faults.push(format!("{}:{line}: async in a core", source.path));
            }
        }
    }
    check(faults);
}

#[test]
fn central_and_edge_are_a_core_and_a_shell() {
    for tier in ["central", "edge"] {
        let folder = root().join(tier).join("src");
        assert!(folder.join("core").is_dir() && folder.join("shell").is_dir(), "{tier}");
    }
}

#[test]
fn files_stay_short_enough_to_read() {
    let long = sources().into_iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines, {LINES_MAX} at most", source.path))
    });
    check(long.collect());
}

#[test]
fn nothing_is_marked_as_unfinished() {
    let marks = unfinished();
    let mut faults = Vec::new();
    for source in sources() {
        for (index, text) in source.text.lines().enumerate() {
            for mark in marks.iter().filter(|mark| text.contains(mark.as_str())) {
                faults.push(format!("{}:{}: {mark}", source.path, index + 1));
            }
        }
    }
    check(faults);
}
