//! DuckDB, by its Python package: a reader of Parquet that shares no code with us.

use std::process::Command;

use serde_json::Value;

use super::folder;

/// Prints the rows of each query as a JSON list of lists. Times with a zone are cast, as DuckDB asks another package for
/// those.
const ASK: &str = "
import duckdb, json, sys
connection = duckdb.connect()
connection.execute(\"SET TimeZone = 'UTC'\")
for query in sys.argv[1:]:
    answer, rows = connection.sql(query), []
    if answer is not None:
        quoted = ['\"' + name.replace('\"', '\"\"') + '\"' for name in answer.columns]
        shown = [f'CAST({name} AS VARCHAR)' if 'ZONE' in str(of) else name for name, of in zip(quoted, answer.types)]
        rows = answer.project(', '.join(shown)).fetchall()
    print(json.dumps(rows, default=str))
";

/// The rows of a query, each a list. No extension is there to be loaded: local files alone can be read.
///
/// # Panics
/// If DuckDB is not installed or refuses the query.
pub fn duckdb(query: &str) -> Vec<Value> {
    duckdb_all(&[query.to_owned()]).remove(0)
}

/// The rows of each of these queries, of which later ones know what earlier ones made.
///
/// # Panics
/// As [`duckdb`].
pub fn duckdb_all(queries: &[String]) -> Vec<Vec<Value>> {
    let output = Command::new("python3")
        .args(["-c", ASK])
        .args(queries)
        .env("PYTHONPATH", folder())
        .output()
        .expect("python3 is there: run scripts/install-test-deps.sh");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let answers = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    answers.lines().map(|rows| serde_json::from_str(rows).expect("rows are JSON")).collect()
}
