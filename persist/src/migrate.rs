//! The versions of the schema. Each store brings its own SQL and runs it; which files are due is decided here.
//!
//! MySQL commits each statement about a table by itself, so every statement of a migration can be run again.

use crate::StoreError;

#[derive(Debug)]
pub(crate) struct Migration {
    pub(crate) version: u32,
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

pub(crate) static SQLITE: [Migration; 3] = [
    Migration {
        version: 1,
        name: "tables",
        sql: include_str!("../migrations/sqlite/0001_tables.sql"),
    },
    Migration {
        version: 2,
        name: "retention",
        sql: include_str!("../migrations/sqlite/0002_retention.sql"),
    },
    Migration {
        version: 3,
        name: "quotas",
        sql: include_str!("../migrations/sqlite/0003_quotas.sql"),
    },
];

pub(crate) static MYSQL: [Migration; 3] = [
    Migration {
        version: 1,
        name: "tables",
        sql: include_str!("../migrations/mysql/0001_tables.sql"),
    },
    Migration {
        version: 2,
        name: "retention",
        sql: include_str!("../migrations/mysql/0002_retention.sql"),
    },
    Migration {
        version: 3,
        name: "quotas",
        sql: include_str!("../migrations/mysql/0003_quotas.sql"),
    },
];

/// Runs in both, before anything else.
pub(crate) const CREATE_VERSIONS: &str = "CREATE TABLE IF NOT EXISTS schema_version \
                                          (version INTEGER NOT NULL PRIMARY KEY, name VARCHAR(64) NOT NULL)";

/// The highest version; NULL before the first.
pub(crate) const SELECT_VERSION: &str = "SELECT MAX(version) FROM schema_version";

/// Runs in both: a write that leaves everything as it is.
pub(crate) const WRITE_NOTHING: &str = "UPDATE installation SET shards = shards";

/// Which of `all` are still to be run on a store of version `found` (0: empty).
///
/// # Errors
/// [`StoreError::NewerSchema`]
pub(crate) fn due(
    all: &'static [Migration],
    found: u64,
) -> Result<&'static [Migration], StoreError> {
    let known = all.last().map_or(0, |migration| migration.version);
    let found = u32::try_from(found).unwrap_or(u32::MAX);
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    Ok(&all[all.partition_point(|migration| migration.version <= found)..])
}

/// The statements of a migration, without comments.
pub(crate) fn statements(sql: &str) -> impl Iterator<Item = String> + '_ {
    let bare = |part: &str| {
        part.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n")
    };
    sql.split(";\n")
        .map(move |part| bare(part).trim().to_owned())
        .filter(|statement| !statement.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_stores_have_the_same_versions_without_a_gap() {
        let names = |all: &[Migration]| all.iter().map(|m| (m.version, m.name)).collect::<Vec<_>>();
        assert_eq!(names(&SQLITE), names(&MYSQL));
        for (index, migration) in SQLITE.iter().enumerate() {
            assert_eq!(migration.version as usize, index + 1);
        }
    }

    #[test]
    fn every_statement_can_be_run_again() {
        for migration in SQLITE.iter().chain(&MYSQL) {
            for statement in statements(migration.sql) {
                assert!(
                    statement.contains("IF NOT EXISTS") || statement.contains("OR REPLACE"),
                    "{} {statement}",
                    migration.name
                );
            }
        }
    }

    #[test]
    fn only_newer_migrations_are_due_and_a_newer_store_is_refused_with_advice() {
        assert_eq!(due(&SQLITE, 0).unwrap().len(), SQLITE.len());
        assert!(due(&SQLITE, SQLITE.len() as u64).unwrap().is_empty());
        let error = due(&SQLITE, 99).unwrap_err();
        assert!(error.to_string().contains("start the release that migrated it"), "{error}");
    }
}
