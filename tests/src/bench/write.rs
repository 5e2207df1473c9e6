//! The write path against its limit: a fleet imported through the API, and the very same rows written by a program
//! that does nothing else.

use std::path::Path;
use std::time::Duration;

use super::fleet;
use super::store::{
    Work, make_tables, mariadb_statements, mariadb_work, sqlite_rows, write_mariadb, write_sqlite,
};
use super::{BenchError, Figure, Goal, Spread, Usage, print, progress};
use crate::cluster::{Cluster, Store};
use crate::mariadb::MariaDb;

const DEVICES: u64 = 1_000_000;
const TIMES: usize = 3;
const RATIO_LEAST: f64 = 0.5;
const GROWTH_BYTES_MAX: f64 = 64.0 * 1024.0 * 1024.0;

/// `BENCH_DEVICES` makes it smaller, for a look at a profile.
fn devices() -> u64 {
    let given = std::env::var("BENCH_DEVICES").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(DEVICES)
}

/// # Errors
/// If a device is not read back as it was sent.
pub(super) async fn run() -> Result<(), BenchError> {
    let folder = tempfile::tempdir().map_err(|error| BenchError(error.to_string()))?;
    let lines = folder.path().join("fleet.ndjson");
    progress(&format!("write {} lines", devices()));
    let schema = fleet::write_lines(devices(), &lines)?;
    for store in super::stores() {
        let mut ours = Vec::new();
        let mut bare = Vec::new();
        let mut work = (Work::default(), Work::default());
        for turn in 0..TIMES {
            let last = turn + 1 == TIMES;
            let (rate, bare_rate, done) = one(store, &lines, &schema, last).await?;
            progress(&format!("{store:?}: {rate:.0} devices/s, bare {bare_rate:.0}"));
            ours.push(rate);
            bare.push(bare_rate);
            work = done;
        }
        report(store, &Spread::of(&ours), &Spread::of(&bare), work);
    }
    Ok(())
}

fn report(store: Store, ours: &Spread, bare: &Spread, (did, bare_did): (Work, Work)) {
    let name = format!("{store:?}").to_lowercase();
    print(&Figure {
        figure: format!("import_{name}"),
        value: ours.median / bare.median,
        unit: "ratio",
        against: format!(
            "the same rows by bare statements: {bare} devices/s, {} statements, {} transactions, {} rows; \
             import: {ours} devices/s, {} statements, {} transactions, {} rows",
            bare_did.statements,
            bare_did.transactions,
            bare_did.rows,
            did.statements,
            did.transactions,
            did.rows
        ),
        goal: Goal::AtLeast(RATIO_LEAST),
    });
}

/// Devices a second of an import and of the bare program, into stores of their own that were empty.
async fn one(
    store: Store,
    lines: &Path,
    schema: &serde_json::Value,
    last: bool,
) -> Result<(f64, f64, (Work, Work)), BenchError> {
    let cluster = Cluster::start(store, 0).await;
    let app = fleet::declare(|| cluster.admin(), schema).await;
    let token = cluster.admin().token;
    let at = cluster.admin_address();
    let before = work_of(&cluster);
    let import = |lines: std::path::PathBuf| {
        let (token, app) = (token.clone(), app.clone());
        tokio::task::spawn_blocking(move || fleet::import(at, &token, &app, &lines))
    };
    let (report, took) = import(lines.to_path_buf()).await.expect("the import does not panic")?;
    let did = work_of(&cluster) - before;
    if report["created"] != devices() || report["bad"] != 0 {
        return Err(BenchError(format!("the import's report: {report}")));
    }
    let same = fleet::compare(at, &token, &app, lines)?;
    if same != devices() {
        return Err(BenchError(format!("{same} devices read back of {}", devices())));
    }
    if last {
        again(&cluster, store, import(lines.to_path_buf())).await?;
    }
    let (bare_took, bare_did) = write_bare(cluster).await?;
    if did.rows < devices() || bare_did.rows < devices() {
        return Err(BenchError(format!(
            "the server counted {} and {} rows",
            did.rows, bare_did.rows
        )));
    }
    let rate = |took: Duration| devices() as f64 / took.as_secs_f64();
    Ok((rate(took), rate(bare_took), (did, bare_did)))
}

type Importing = tokio::task::JoinHandle<Result<(serde_json::Value, Duration), BenchError>>;

/// The same lines once more: nothing changes, and central holds no more than before.
async fn again(cluster: &Cluster, store: Store, import: Importing) -> Result<(), BenchError> {
    let usage = || Usage::of(cluster.central_pid()).map_err(|error| BenchError(error.to_string()));
    let before = usage()?;
    let watched = async {
        let mut most = before.resident_bytes;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            most = most.max(usage().map_or(0, |usage| usage.resident_bytes));
            if import.is_finished() {
                return most;
            }
        }
    };
    let most = watched.await;
    let (report, _) = import.await.expect("the import does not panic")?;
    if report["unchanged"] != devices() {
        return Err(BenchError(format!("the second import's report: {report}")));
    }
    print(&Figure {
        figure: format!("import_again_growth_{store:?}").to_lowercase(),
        value: most.saturating_sub(before.resident_bytes) as f64,
        unit: "bytes",
        against: format!("{} bytes resident before", before.resident_bytes),
        goal: Goal::AtMost(GROWTH_BYTES_MAX),
    });
    Ok(())
}

fn work_of(cluster: &Cluster) -> Work {
    match &cluster.mariadb {
        Some(server) => mariadb_work(server),
        None => sqlite_work(&cluster.store_file()),
    }
}

/// SQLite counts nothing across connections; the lease row counts central's transactions, and each wrote its rows.
fn sqlite_work(file: &Path) -> Work {
    let count = |sql: &str| {
        let connection = rusqlite::Connection::open(file).expect("central's file");
        connection.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number").unsigned_abs()
    };
    let transactions = count("SELECT batches FROM lease");
    Work { statements: transactions, transactions, rows: count("SELECT COUNT(*) FROM devices") }
}

async fn write_bare(mut cluster: Cluster) -> Result<(Duration, Work), BenchError> {
    cluster.stop_central();
    let Some(server) = cluster.mariadb.take() else {
        let file = cluster.store_file();
        let other = cluster.data().join("bare.db");
        make_tables(&format!("sqlite:{}", other.display())).await?;
        let written = tokio::task::spawn_blocking(move || {
            let rows = sqlite_rows(&file)?;
            write_sqlite(&other, &rows)
        });
        return written.await.expect("the bare program does not panic");
    };
    let statements = mariadb_statements(&server.url("carillon")).await?;
    drop(server);
    // A server of its own, as fresh as the other was.
    let fresh = MariaDb::start();
    let url = fresh.url("carillon");
    make_tables(&url).await?;
    let before = mariadb_work(&fresh);
    let took = write_mariadb(&url, &statements).await?;
    Ok((took, mariadb_work(&fresh) - before))
}
