//! The versions of the schema. Each store brings its own SQL and runs it; which files are due is decided here.
//!
//! MySQL commits each statement about a table by itself, so every statement of a migration can be run again.

use std::collections::HashSet;

use crate::StoreError;
use crate::tables;

#[derive(Debug)]
pub(crate) struct Migration {
    pub(crate) version: u32,
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

pub(crate) static SQLITE: [Migration; 11] = [
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
    Migration {
        version: 4,
        name: "audiences",
        sql: include_str!("../migrations/sqlite/0004_audiences.sql"),
    },
    Migration {
        version: 5,
        name: "clock",
        sql: include_str!("../migrations/sqlite/0005_clock.sql"),
    },
    Migration { version: 6, name: "push", sql: include_str!("../migrations/sqlite/0006_push.sql") },
    Migration {
        version: 7,
        name: "funnel",
        sql: include_str!("../migrations/sqlite/0007_funnel.sql"),
    },
    Migration {
        version: 8,
        name: "history",
        sql: include_str!("../migrations/sqlite/0008_history.sql"),
    },
    Migration {
        version: 9,
        name: "provider_tokens",
        sql: include_str!("../migrations/sqlite/0009_provider_tokens.sql"),
    },
    Migration {
        version: 10,
        name: "callbacks",
        sql: include_str!("../migrations/sqlite/0010_callbacks.sql"),
    },
    Migration {
        version: 11,
        name: "pseudonyms",
        sql: include_str!("../migrations/sqlite/0011_pseudonyms.sql"),
    },
];

pub(crate) static MYSQL: [Migration; 11] = [
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
    Migration {
        version: 4,
        name: "audiences",
        sql: include_str!("../migrations/mysql/0004_audiences.sql"),
    },
    Migration {
        version: 5,
        name: "clock",
        sql: include_str!("../migrations/mysql/0005_clock.sql"),
    },
    Migration { version: 6, name: "push", sql: include_str!("../migrations/mysql/0006_push.sql") },
    Migration {
        version: 7,
        name: "funnel",
        sql: include_str!("../migrations/mysql/0007_funnel.sql"),
    },
    Migration {
        version: 8,
        name: "history",
        sql: include_str!("../migrations/mysql/0008_history.sql"),
    },
    Migration {
        version: 9,
        name: "provider_tokens",
        sql: include_str!("../migrations/mysql/0009_provider_tokens.sql"),
    },
    Migration {
        version: 10,
        name: "callbacks",
        sql: include_str!("../migrations/mysql/0010_callbacks.sql"),
    },
    Migration {
        version: 11,
        name: "pseudonyms",
        sql: include_str!("../migrations/mysql/0011_pseudonyms.sql"),
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

/// Whether the tables of a migrated store have the columns that we read and write; `found` are the table and column of
/// each that is there.
///
/// # Errors
/// [`StoreError::Damaged`]: somebody took one away, or restored a part.
pub(crate) fn judge_columns(found: &HashSet<(String, String)>) -> Result<(), StoreError> {
    for table in tables::ALL {
        let is_there = |column: &str| found.contains(&(table.name.to_owned(), column.to_owned()));
        let detail = match table.columns.iter().find(|column| !is_there(column)) {
            None => continue,
            Some(_) if !found.iter().any(|(name, _)| name == table.name) => {
                "it is missing".to_owned()
            }
            Some(column) => format!("it has no column {column}"),
        };
        return Err(StoreError::Damaged { table: table.name, detail });
    }
    Ok(())
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
        assert!(SQLITE.iter().map(|m| m.version).eq((1..).take(SQLITE.len())));
    }

    #[test]
    fn every_statement_can_be_run_again() {
        for migration in SQLITE.iter().chain(&MYSQL) {
            for statement in statements(migration.sql) {
                let harmless =
                    ["IF NOT EXISTS", "IF EXISTS", "OR REPLACE", "OR IGNORE", "INSERT IGNORE"];
                assert!(
                    harmless.iter().any(|words| statement.contains(words)),
                    "{} {statement}",
                    migration.name
                );
            }
        }
    }

    #[test]
    fn a_table_or_a_column_that_is_missing_is_named() {
        let mut found: HashSet<(String, String)> = tables::ALL
            .iter()
            .flat_map(|table| {
                table.columns.iter().map(|c| (table.name.to_owned(), (*c).to_owned()))
            })
            .collect();
        // What else is there does not matter.
        found.insert(("somebody".to_owned(), "else".to_owned()));
        assert!(judge_columns(&found).is_ok());
        let told = |found: &HashSet<_>| judge_columns(found).unwrap_err().to_string();
        assert!(found.remove(&("devices".to_owned(), "p_seq".to_owned())));
        assert!(told(&found).contains("table devices: it has no column p_seq"), "{}", told(&found));
        found.retain(|(table, _)| table != "devices");
        assert!(told(&found).contains("table devices: it is missing"), "{}", told(&found));
    }

    #[test]
    fn only_newer_migrations_are_due_and_a_newer_store_is_refused_with_advice() {
        assert_eq!(due(&SQLITE, 0).unwrap().len(), SQLITE.len());
        let last = SQLITE.last().unwrap().version;
        assert!(due(&SQLITE, last.into()).unwrap().is_empty());
        let error = due(&SQLITE, 99).unwrap_err();
        assert!(error.to_string().contains("start the release that migrated it"), "{error}");
    }
}
