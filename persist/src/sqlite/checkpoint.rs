//! Folding the log into the file while batches go on.
//!
//! A checkpoint writes each page that changed since the last one and syncs the file: tens of milliseconds, for which
//! batches would have to wait. So a thread with a connection of its own does the bulk in the mode that holds nobody up.
//! What batches append meanwhile is little; the thread of the store folds that itself, between two batches, and then
//! SQLite begins the log anew within the same file. (It is not truncated: a log that has its size needs no new size
//! synced with each commit.) SQLite allows it since 3.51.3, which mended the beginning anew under a checkpoint of
//! another connection: <https://sqlite.org/wal.html#walresetbug>.

use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::{Setup, down};
use crate::StoreError;

/// The log is folded when so many of its frames, each a page of 4 KiB and a header, are not in the file: 16 MiB.
const FRAMES_MAX: i64 = 4096;
/// Beyond it a batch waits for the fold, so that the log stays bounded whatever the disk does.
const FRAMES_LIMIT: i64 = 8 * FRAMES_MAX;
/// What is left to the thread of the store: about a millisecond.
const FRAMES_LEFT: i64 = 256;
/// Each pass leaves what was appended during it. If batches append as fast as that, more passes gain nothing.
const PASSES_MAX: u32 = 4;
/// How long the file of a log that has grown stays, in bytes.
pub(super) const FILE_BYTES_MAX: i64 = FRAMES_LIMIT * 4096;

/// Lives on the thread of the store.
#[derive(Debug)]
pub(super) struct Checkpointer {
    /// `None` only while dropping.
    requests: Option<mpsc::Sender<()>>,
    done: mpsc::Receiver<Result<(), StoreError>>,
    thread: Option<JoinHandle<()>>,
    under_way: bool,
}

impl Checkpointer {
    pub(super) fn start(setup: Setup) -> std::io::Result<Checkpointer> {
        let (requests, mut inbox) = mpsc::channel(1);
        let (outbox, done) = mpsc::channel(1);
        let thread =
            std::thread::Builder::new().name("carillon-fold".to_owned()).spawn(move || {
                while let Some(()) = inbox.blocking_recv() {
                    if outbox.blocking_send(fold(&setup)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Checkpointer { requests: Some(requests), done, thread: Some(thread), under_way: false })
    }

    /// Does what is due between two batches. If it fails the log grows, which harms nobody, and the next batch tries
    /// again.
    pub(super) fn look(&mut self, connection: &Connection) {
        if let Err(error) = self.try_look(connection) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the log of the SQLite store could not be folded in"
            );
        }
    }

    fn try_look(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let down = down("fold the log of the SQLite store");
        let unfolded = run(connection, LOOK).map_err(down)?;
        if self.under_way {
            let folded = match self.done.try_recv() {
                Err(TryRecvError::Empty) if unfolded < FRAMES_LIMIT => return Ok(()),
                Ok(folded) => Some(folded),
                Err(_) => self.done.blocking_recv(),
            };
            self.under_way = false;
            let ended = || StoreError::unavailable("ask the thread that folds", "it has ended");
            folded.ok_or_else(ended)??;
            run(connection, FOLD).map(drop).map_err(down)
        } else {
            if unfolded >= FRAMES_MAX
                && let Some(requests) = &self.requests
            {
                self.under_way = requests.try_send(()).is_ok();
            }
            Ok(())
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It panicked only if we have a fault, and then said so.
            let _ = thread.join();
        }
    }
}

/// The bulk, while batches go on.
fn fold(setup: &Setup) -> Result<(), StoreError> {
    let down = down("fold the log of the SQLite store");
    let connection = setup.connect().map_err(down)?;
    for _ in 0..PASSES_MAX {
        run(&connection, FOLD).map_err(down)?;
        if run(&connection, LOOK).map_err(down)? <= FRAMES_LEFT {
            break;
        }
    }
    Ok(())
}

/// Folds what no reader needs in the log, and waits for nobody.
const FOLD: &str = "PRAGMA wal_checkpoint(PASSIVE)";
const LOOK: &str = "PRAGMA wal_checkpoint(NOOP)";

/// How many frames of the log are not in the file afterwards.
fn run(connection: &Connection, checkpoint: &str) -> rusqlite::Result<i64> {
    connection.prepare_cached(checkpoint)?.query_row([], |row| {
        let (log, folded): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(log - folded)
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::StoreOptions;

    const ROW_BYTES: u32 = 3_000;

    fn insert(connection: &Connection, rows: u32) {
        let insert = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) \
                      INSERT INTO t SELECT randomblob(?) FROM n";
        connection.execute(insert, [rows, ROW_BYTES]).unwrap();
    }

    #[test]
    fn a_log_that_grows_is_folded_between_batches_and_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let setup = Setup::new(&path, &StoreOptions::default());
        let connection = setup.connect().unwrap();
        connection.execute_batch("CREATE TABLE t (x)").unwrap();
        let mut checkpointer = Checkpointer::start(setup).unwrap();
        let log = path.with_file_name("db-wal");
        let (mut folds, mut rows, mut was_under_way) = (0, 0, false);
        let began = Instant::now();
        while folds < 5 {
            assert!(began.elapsed() < Duration::from_secs(60), "{folds} folds of {rows} rows");
            insert(&connection, 100);
            rows += 100;
            checkpointer.look(&connection);
            if was_under_way && !checkpointer.under_way {
                folds += 1;
                assert_eq!(run(&connection, LOOK), Ok(0), "nothing is left between two batches");
            }
            was_under_way = checkpointer.under_way;
            assert!(std::fs::metadata(&log).unwrap().len() < 2 * FILE_BYTES_MAX as u64);
        }
        // Five times what is folded at once, so it began anew.
        assert!(rows >= 5 * FRAMES_MAX as u32, "{rows} rows");
        assert!(std::fs::metadata(&log).unwrap().len() < u64::from(rows) * u64::from(ROW_BYTES));
        drop((checkpointer, connection));
        let connection = Connection::open(&path).unwrap();
        let found = connection.query_row("SELECT COUNT(*) FROM t", [], |row| row.get(0));
        assert_eq!(found, Ok(rows));
        let sound = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0));
        assert_eq!(sound, Ok("ok".to_owned()));
    }

    #[test]
    fn a_reader_that_stays_keeps_the_log_and_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let setup = Setup::new(&path, &StoreOptions::default());
        let connection = setup.connect().unwrap();
        connection.execute_batch("CREATE TABLE t (x)").unwrap();
        insert(&connection, 1);
        let mut reader = setup.connect().unwrap();
        let read = reader.transaction().unwrap();
        let count = "SELECT COUNT(*) FROM t";
        assert_eq!(read.query_row(count, [], |row| row.get(0)), Ok(1));
        let mut checkpointer = Checkpointer::start(setup).unwrap();
        for _ in 0..3 * FRAMES_MAX / 100 {
            insert(&connection, 100);
            checkpointer.look(&connection);
        }
        assert_eq!(read.query_row(count, [], |row| row.get(0)), Ok(1), "it sees what it saw");
        assert!(run(&connection, LOOK).unwrap() > 2 * FRAMES_MAX);
        read.rollback().unwrap();
        while run(&connection, LOOK).unwrap() > 0 {
            checkpointer.look(&connection);
        }
    }
}
