//! Both stores under one suite, each real: a SQLite file, and a MariaDB server started here.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "whatever fails here fails the test")]

mod callbacks;
mod crash;
mod files;
mod model;
mod outbox;
mod purge;
mod settings;
mod suite;
mod tallies;

use std::path::PathBuf;

use carillon_persist::{AnyStore, StoreError, StoreOptions, StoreUrl};
use carillon_tests::mariadb::MariaDb;
use rusqlite::types::Value;

/// What the suite needs of a store besides the store: an operator's access, and a way to take it down.
trait Bench {
    fn url(&self, database: &str) -> StoreUrl;
    /// Runs SQL past the store. Rows are lines, columns are separated by tabs.
    fn sql(&self, database: &str, sql: &str) -> String;
    /// Statements to be run from within a load.
    fn sql_later(&self, database: &str, sql: String) -> Box<dyn FnOnce() + Send + '_>;
    /// A trigger that lets the insert of a receipt of kind `trap` fail.
    fn set_trap(&self, database: &str);
    fn take_down(&mut self, database: &str);
    fn bring_up(&mut self);
}

async fn open(
    bench: &impl Bench,
    database: &str,
    options: &StoreOptions,
) -> Result<AnyStore, StoreError> {
    AnyStore::open(&bench.url(database), options).await
}

struct SqliteBench {
    folder: tempfile::TempDir,
    locked: Option<rusqlite::Connection>,
}

impl SqliteBench {
    fn path(&self, database: &str) -> PathBuf {
        self.folder.path().join(database)
    }
}

impl Bench for SqliteBench {
    fn url(&self, database: &str) -> StoreUrl {
        StoreUrl::Sqlite(self.path(database))
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        let connection = rusqlite::Connection::open(self.path(database)).unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        let mut lines = String::new();
        while let Some(row) = rows.next().unwrap() {
            let line: Vec<String> = (0..columns)
                .map(|index| match row.get::<_, Value>(index).unwrap() {
                    Value::Null => "NULL".to_owned(),
                    Value::Integer(number) => number.to_string(),
                    Value::Real(number) => number.to_string(),
                    Value::Text(text) => text,
                    Value::Blob(blob) => format!("{blob:02x?}"),
                })
                .collect();
            lines.push_str(&line.join("\t"));
            lines.push('\n');
        }
        lines
    }

    fn sql_later(&self, database: &str, sql: String) -> Box<dyn FnOnce() + Send + '_> {
        let path = self.path(database);
        Box::new(move || rusqlite::Connection::open(path).unwrap().execute_batch(&sql).unwrap())
    }

    fn set_trap(&self, database: &str) {
        let trap = "CREATE TRIGGER trap BEFORE INSERT ON receipts WHEN NEW.kind = 'trap' \
                    BEGIN SELECT RAISE(ABORT, 'trapped'); END";
        self.sql(database, trap);
    }

    fn take_down(&mut self, database: &str) {
        let connection = rusqlite::Connection::open(self.path(database)).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        self.locked = Some(connection);
    }

    fn bring_up(&mut self) {
        self.locked = None;
    }
}

impl Bench for MariaDb {
    fn url(&self, database: &str) -> StoreUrl {
        MariaDb::url(self, database).parse().unwrap()
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        MariaDb::sql(self, &format!("USE `{database}`; {sql}"))
    }

    fn sql_later(&self, database: &str, sql: String) -> Box<dyn FnOnce() + Send + '_> {
        let database = database.to_owned();
        Box::new(move || drop(Bench::sql(self, &database, &sql)))
    }

    fn set_trap(&self, database: &str) {
        // NULL, so that the error is the very one that a fence makes.
        let trap = "CREATE TRIGGER trap BEFORE INSERT ON receipts FOR EACH ROW \
                    SET NEW.message = IF(NEW.kind = 'trap', NULL, NEW.message)";
        Bench::sql(self, database, trap);
    }

    fn take_down(&mut self, _database: &str) {
        self.stop();
    }

    fn bring_up(&mut self) {
        self.restart();
    }
}

#[tokio::test]
async fn sqlite_keeps_the_contract_of_a_store() {
    let mut bench = SqliteBench { folder: tempfile::tempdir().unwrap(), locked: None };
    suite::run(&mut bench).await;
}

#[tokio::test]
async fn mariadb_keeps_the_contract_of_a_store() {
    let mut bench = MariaDb::start();
    suite::run(&mut bench).await;
    purge::mariadb_reads_only_what_a_step_forgets(&bench).await;
    settings::a_server_that_may_lose_commits_is_refused_unless_allowed(&bench).await;
    settings::a_server_that_becomes_unsafe_is_noticed_at_the_next_connection(&mut bench).await;
    crash::a_paused_owner_is_deposed(&bench).await;
    crash::a_batch_larger_than_a_packet_is_whole_or_absent(&bench).await;
    crash::a_timeout_has_an_unknown_outcome_that_a_fence_resolves(&bench).await;
    crash::killed_servers_leave_batches_whole_or_absent_and_a_fence_tells_which(&mut bench).await;
}
