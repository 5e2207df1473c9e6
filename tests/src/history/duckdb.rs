//! DuckDB, by its Python package: a reader of Parquet that shares no code with us.

use std::process::Command;

use serde_json::Value;

use super::folder;

/// Prints each row as a JSON list.
const ASK: &str = "
import duckdb, json, sys
for row in duckdb.connect().execute(sys.argv[1]).fetchall():
    print(json.dumps(row, default=str))
";

/// The rows of a query, each a list. No extension is there to be loaded: local files alone can be read.
///
/// # Panics
/// If DuckDB is not installed or refuses the query.
pub fn duckdb(query: &str) -> Vec<Value> {
    let output = Command::new("python3")
        .args(["-c", ASK, query])
        .env("PYTHONPATH", folder())
        .output()
        .expect("python3 is there: run scripts/install-test-deps.sh");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{query}: {said}");
    let rows = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    rows.lines().map(|row| serde_json::from_str(row).expect("a row is JSON")).collect()
}
