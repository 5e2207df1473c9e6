//! SQLite's log as another process sees it, as far as a kill needs it: <https://sqlite.org/fileformat2.html#walformat>.

use std::path::{Path, PathBuf};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// The log beside a database.
pub(super) fn beside(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Bytes of the log, 0 if there is none.
pub(super) fn bytes(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |file| file.len())
}

/// Whether the log ends with pages of a transaction that did not come to its commit.
pub(super) fn ends_within_a_transaction(log: &[u8]) -> bool {
    let word =
        |at: usize| log.get(at..at + 4).map(|b| u32::from_be_bytes(b.try_into().expect("4")));
    let (Some(page), Some(salts)) = (word(8), log.get(16..24)) else { return !log.is_empty() };
    let frame_bytes = FRAME_HEADER_BYTES + page as usize;
    let mut within = false;
    for at in (HEADER_BYTES..log.len()).step_by(frame_bytes) {
        match log.get(at + 8..at + 16) {
            // What follows was written before the log began anew.
            Some(of_frame) if of_frame != salts => return within,
            // The size of the database after a commit, 0 in the frames before.
            Some(_) if log.len() - at >= frame_bytes => within = word(at + 4) == Some(0),
            _ => return true,
        }
    }
    within
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_says_whether_its_last_transaction_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("db");
        let database = rusqlite::Connection::open(&file).expect("open");
        database.pragma_update(None, "journal_mode", "WAL").expect("set");
        database.pragma_update(None, "cache_size", 1).expect("set");
        database
            .execute_batch("CREATE TABLE t (x); BEGIN; INSERT INTO t VALUES (1); COMMIT")
            .expect("run");
        let log = beside(&file);
        let whole = std::fs::read(&log).expect("read");
        assert_eq!(bytes(&log), whole.len() as u64);
        assert!(!ends_within_a_transaction(&whole) && !ends_within_a_transaction(&[]));
        assert!(ends_within_a_transaction(&whole[..whole.len() - 1]), "a torn frame");
        // More than the cache takes is written before the commit.
        let many = "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99) \
                    INSERT INTO t SELECT randomblob(3000) FROM n";
        database.execute_batch(many).expect("run");
        assert!(ends_within_a_transaction(&std::fs::read(&log).expect("read")));
        database.execute_batch("COMMIT").expect("run");
        assert!(!ends_within_a_transaction(&std::fs::read(&log).expect("read")));
    }
}
