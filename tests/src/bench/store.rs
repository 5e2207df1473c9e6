//! The two stores as a benchmark sees them: their own counters, their rows, and a bare program that writes those rows.

use std::path::Path;
use std::time::{Duration, Instant};

use carillon_persist::{AnyStore, StoreOptions, StoreUrl};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};
use rusqlite::types::Value;

use super::BenchError;
use crate::mariadb::MariaDb;

/// The columns of `devices`, all of them, so that the bare program writes the same.
const COLUMNS: &str = "shard, app, device, generation_seq, p_seq, created_at, user_id, attributes, group_ids, \
                       secret_sha256, push_tokens, changed_seq, deleted";
const COLUMNS_COUNT: usize = 13;
/// Rows of one of the bare program's statements.
const ROWS: usize = 1000;

/// What a store says it has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) statements: u64,
    pub(super) transactions: u64,
    pub(super) rows: u64,
}

impl std::ops::Sub for Work {
    type Output = Work;

    fn sub(self, before: Work) -> Work {
        Work {
            statements: self.statements - before.statements,
            transactions: self.transactions - before.transactions,
            rows: self.rows - before.rows,
        }
    }
}

/// The counters of a MariaDB server.
pub(super) fn mariadb_work(server: &MariaDb) -> Work {
    let shown = server.sql(
        "SHOW GLOBAL STATUS WHERE Variable_name IN \
         ('Com_insert', 'Com_update', 'Com_delete', 'Com_commit', 'Handler_write', 'Handler_update')",
    );
    let of = |names: &[&str]| {
        let lines = shown.lines().filter_map(|line| line.split_once('\t'));
        lines
            .filter(|(name, _)| names.iter().any(|n| name.eq_ignore_ascii_case(n)))
            .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
            .sum()
    };
    Work {
        statements: of(&["Com_insert", "Com_update", "Com_delete"]),
        transactions: of(&["Com_commit"]),
        rows: of(&["Handler_write", "Handler_update"]),
    }
}

/// An empty database with the very tables that central makes.
///
/// # Errors
/// If the store refuses.
pub(super) async fn make_tables(url: &str) -> Result<(), BenchError> {
    let url: StoreUrl = url.parse().map_err(|error| BenchError(format!("{error}")))?;
    let store = AnyStore::open(&url, &StoreOptions::default()).await;
    store.map(drop).map_err(|error| BenchError(format!("make tables: {error}")))
}

/// All rows of `devices` of an SQLite file, in the order in which they were committed.
///
/// # Errors
/// If they cannot be read.
pub(super) fn sqlite_rows(file: &Path) -> Result<Vec<[Value; COLUMNS_COUNT]>, BenchError> {
    let read = || -> rusqlite::Result<Vec<[Value; COLUMNS_COUNT]>> {
        let connection = rusqlite::Connection::open(file)?;
        let select = format!("SELECT {COLUMNS} FROM devices ORDER BY changed_seq");
        let mut statement = connection.prepare(&select)?;
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let mut cells = [const { Value::Null }; COLUMNS_COUNT];
            for (index, cell) in cells.iter_mut().enumerate() {
                *cell = row.get(index)?;
            }
            all.push(cells);
        }
        Ok(all)
    };
    read().map_err(|error| BenchError(format!("read the rows: {error}")))
}

/// Writes the rows and does nothing else: one connection with central's own durability, a statement of 1,000 rows
/// prepared beforehand, a commit a statement. Gives the time from the first statement to the last commit.
///
/// # Errors
/// If a statement fails.
pub(super) fn write_sqlite(
    file: &Path,
    rows: &[[Value; COLUMNS_COUNT]],
) -> Result<(Duration, Work), BenchError> {
    let write = || -> rusqlite::Result<(Duration, Work)> {
        let mut connection = rusqlite::Connection::open(file)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -(64 << 10))?;
        // Statements are kept ready; the last may be of another size.
        connection.set_prepared_statement_cache_capacity(4);
        connection.prepare_cached(&insert(ROWS.min(rows.len())))?;
        let mut work = Work::default();
        let began = Instant::now();
        for chunk in rows.chunks(ROWS) {
            let transaction = connection.transaction()?;
            let cells = chunk.iter().flatten();
            let changed = transaction
                .prepare_cached(&insert(chunk.len()))?
                .execute(rusqlite::params_from_iter(cells))?;
            transaction.commit()?;
            work.statements += 1;
            work.transactions += 1;
            work.rows += changed as u64;
        }
        Ok((began.elapsed(), work))
    };
    write().map_err(|error| BenchError(format!("write the rows: {error}")))
}

fn insert(rows: usize) -> String {
    let row = format!("({})", ["?"; COLUMNS_COUNT].join(","));
    let rows = vec![row; rows].join(",");
    format!("INSERT INTO devices ({COLUMNS}) VALUES {rows}")
}

/// The statements that write all rows of `devices` of `database`, in the order in which they were committed.
///
/// # Errors
/// If they cannot be read.
pub(super) async fn mariadb_statements(url: &str) -> Result<Vec<String>, BenchError> {
    let read = async {
        let mut conn = connect(url).await?;
        let select = format!("SELECT {COLUMNS} FROM devices ORDER BY changed_seq");
        let mut result = conn.query_iter(select).await?;
        let mut statements = Vec::new();
        let mut open = 0;
        while let Some(row) = result.next().await? {
            if open == 0 {
                statements.push(format!("INSERT INTO devices ({COLUMNS}) VALUES "));
            }
            if let Some(statement) = statements.last_mut() {
                statement.push(if open == 0 { '(' } else { ',' });
                if open > 0 {
                    statement.push('(');
                }
                for (index, value) in row.unwrap().into_iter().enumerate() {
                    if index > 0 {
                        statement.push(',');
                    }
                    match value {
                        mysql_async::Value::Bytes(bytes)
                            if std::str::from_utf8(&bytes).is_err() =>
                        {
                            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
                            statement.push_str(&format!("X'{hex}'"));
                        }
                        value => statement.push_str(&value.as_sql(false)),
                    }
                }
                statement.push(')');
            }
            open = (open + 1) % ROWS;
        }
        drop(result);
        conn.disconnect().await?;
        Ok::<_, mysql_async::Error>(statements)
    };
    read.await.map_err(|error| BenchError(format!("read the rows: {error}")))
}

/// As [`write_sqlite`]; each statement commits by itself.
///
/// # Errors
/// If a statement fails.
pub(super) async fn write_mariadb(
    url: &str,
    statements: &[String],
) -> Result<Duration, BenchError> {
    let write = async {
        let mut conn = connect(url).await?;
        let began = Instant::now();
        for statement in statements {
            conn.query_drop(statement).await?;
            conn.query_drop("COMMIT").await?;
        }
        let took = began.elapsed();
        conn.disconnect().await?;
        Ok::<_, mysql_async::Error>(took)
    };
    write.await.map_err(|error| BenchError(format!("write the rows: {error}")))
}

/// A connection that commits when told to.
pub(super) async fn connect(url: &str) -> mysql_async::Result<Conn> {
    let opts = OptsBuilder::from_opts(Opts::from_url(url)?).prefer_socket(false);
    let mut conn = Conn::new(opts).await?;
    conn.query_drop("SET NAMES utf8mb4 COLLATE utf8mb4_bin").await?;
    conn.query_drop("SET SESSION autocommit = 0").await?;
    Ok(conn)
}
