//! Whether what the store calls committed survives a crash of its machine: the settings that decide it, judged.

use std::fmt;

/// A setting under which an acknowledged write may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsafeSetting {
    pub name: &'static str,
    /// As the store shows it.
    pub found: String,
    pub needed: &'static str,
}

impl fmt::Display for UnsafeSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnsafeSetting { name, found, needed } = self;
        write!(f, "{name} is {found} and must be {needed}")
    }
}

/// Settings as one sentence.
pub(crate) fn listed(settings: &[UnsafeSetting]) -> String {
    settings.iter().map(UnsafeSetting::to_string).collect::<Vec<_>>().join(", ")
}

/// Names and values of a server's variables. MySQL has more of them than MariaDB; the statement is right for both.
pub(crate) const SHOW_VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
    ('innodb_flush_log_at_trx_commit', 'log_bin', 'sync_binlog', 'read_only', 'super_read_only')";

/// What is unsafe in a server with these variables.
pub(crate) fn judge_server(variables: &[(String, String)]) -> Vec<UnsafeSetting> {
    let value = |name: &str| {
        let found = variables.iter().find(|(variable, _)| variable.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_ascii_uppercase())
    };
    let is_on = |name: &str| value(name).is_some_and(|value| value != "OFF" && value != "0");
    let mut found = Vec::new();
    let mut note = |name: &'static str, needed| {
        let shown = value(name).unwrap_or_else(|| "not shown".to_owned());
        found.push(UnsafeSetting { name, found: shown, needed });
    };
    // MariaDB's 3 syncs as often as 1 and more.
    if !matches!(value("innodb_flush_log_at_trx_commit").as_deref(), Some("1" | "3")) {
        note("innodb_flush_log_at_trx_commit", "1");
    }
    // Without a binary log it does not matter.
    if is_on("log_bin") && value("sync_binlog").as_deref() != Some("1") {
        note("sync_binlog", "1");
    }
    for name in ["read_only", "super_read_only"] {
        // A replica: what is written there is on no other server, and may be in the way of what comes from its primary.
        if is_on(name) {
            note(name, "OFF");
        }
    }
    found
}

/// What is unsafe in an SQLite connection that shows these pragmas.
pub(crate) fn judge_sqlite(journal_mode: &str, synchronous: i64) -> Vec<UnsafeSetting> {
    let mut found = Vec::new();
    if journal_mode != "wal" {
        found.push(UnsafeSetting {
            name: "journal_mode",
            found: journal_mode.to_owned(),
            needed: "wal (the file must be on a local file system)",
        });
    }
    if synchronous < 2 {
        let name = if synchronous == 1 { "NORMAL" } else { "OFF" };
        found.push(UnsafeSetting {
            name: "synchronous",
            found: name.to_owned(),
            needed: "FULL or EXTRA",
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(variables: &[(&str, &str)]) -> Vec<&'static str> {
        let owned: Vec<_> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        judge_server(&owned).iter().map(|setting| setting.name).collect()
    }

    #[test]
    fn a_server_is_safe_only_if_a_commit_is_on_disk_and_it_is_no_replica() {
        let flush = "innodb_flush_log_at_trx_commit";
        let none: [&str; 0] = [];
        assert_eq!(names(&[(flush, "1"), ("log_bin", "OFF"), ("sync_binlog", "0")]), none);
        assert_eq!(names(&[(flush, "3"), ("log_bin", "ON"), ("sync_binlog", "1")]), none);
        assert_eq!(names(&[(flush, "2")]), [flush]);
        assert_eq!(names(&[(flush, "0"), ("read_only", "OFF")]), [flush]);
        assert_eq!(
            names(&[(flush, "1"), ("log_bin", "ON"), ("sync_binlog", "0")]),
            ["sync_binlog"]
        );
        assert_eq!(
            names(&[(flush, "1"), ("read_only", "ON"), ("super_read_only", "1")]),
            ["read_only", "super_read_only"]
        );
        // A server that does not say is not taken at its word.
        assert_eq!(names(&[]), [flush]);
    }

    #[test]
    fn a_file_is_safe_only_with_its_log_and_with_syncs() {
        assert_eq!(judge_sqlite("wal", 2), []);
        assert_eq!(judge_sqlite("wal", 3), []);
        assert_eq!(
            listed(&judge_sqlite("memory", 1)),
            "journal_mode is memory and must be wal (the file must be on a local file system), \
             synchronous is NORMAL and must be FULL or EXTRA"
        );
    }
}
