//! One batch into SQLite.

use std::collections::HashMap;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{DropBehavior, ErrorCode, ToSql, Transaction, params, params_from_iter};

use super::{Fields, Worker, begin, down, signed};
use crate::callback::stored::{forget_endpoint, forget_log};
use crate::encode::{Cell, OUTBOX_ROW_BYTES, Step, plan, standing};
use crate::history::{EndedDevice, ForgetOutbox};
use crate::names::Named;
use crate::read::{self, SELECT_LEASE};
use crate::tables::{
    ENDED, OF_MESSAGES, Present, SAID, Table, erase_beside, erase_seen, of_devices, purge_messages,
    purge_tombstones,
};
use crate::{CommitError, Committed, Erase, ForgetCounts, ForgetKeys, OldCounts, StoreBatch};

/// Rows a statement. A few sizes, so that each stays prepared; 128 rows of 13 columns are far below SQLite's 32,766
/// parameters.
const SIZES: [usize; 3] = [128, 16, 1];

const COPY_REVISION: &str = "INSERT INTO message_revisions (shard, app, message, from_seq, active, to_expression, heads) \
                             SELECT shard, app, message, ?4, ?5, to_expression, heads FROM message_revisions \
                             WHERE shard = ?1 AND app = ?2 AND message = ?3 AND from_seq < ?4 \
                             ORDER BY from_seq DESC LIMIT 1";

const SET_STATE: &str = "UPDATE messages SET state = ?5, changed_seq = ?4 WHERE shard = ?1 AND app = ?2 AND message = ?3";

const FORGET_KEYS: &str = "DELETE FROM idempotency WHERE rowid IN (SELECT rowid FROM idempotency \
                           WHERE shard = ?1 AND created_at < ?2 ORDER BY created_at LIMIT ?3)";

const ERASE_RECEIPTS: &str = "DELETE FROM receipts WHERE (shard, app, device, receipt) IN (\
                              SELECT shard, app, device, receipt FROM receipts \
                              WHERE shard = ?1 AND app = ?2 AND device = ?3 LIMIT ?4)";

const FORGET_COUNTS_BEFORE: &str = "DELETE FROM message_counts WHERE (shard, app, message, span, counter, at) IN (\
                                    SELECT shard, app, message, span, counter, at FROM message_counts \
                                    INDEXED BY message_counts_at \
                                    WHERE shard = ?1 AND span = ?2 AND at < ?3 LIMIT ?4)";

const FORGET_COUNTS_OF: &str = "DELETE FROM message_counts WHERE (shard, app, message, span, counter, at) IN (\
                                SELECT shard, app, message, span, counter, at FROM message_counts \
                                WHERE shard = ?1 AND app = ?2 AND message = ?3 LIMIT ?4)";

const FORGET_OUTBOX: &str = "DELETE FROM outbox WHERE shard = ?1 AND first_event <= ?2";

const FORGET_PSEUDONYM: &str =
    "DELETE FROM device_pseudonyms WHERE shard = ?1 AND app = ?2 AND device = ?3 AND since <= ?4";

impl Worker {
    pub(super) fn commit(&mut self, batch: &StoreBatch) -> Result<Committed, CommitError> {
        let refused = |source| CommitError::Refused { source };
        let steps = plan(batch, OUTBOX_ROW_BYTES).map_err(refused)?;
        self.connection().map_err(refused)?;
        let connection = self.connection.as_mut().expect("just opened");
        let written = begin(connection)
            .map_err(|error| refused(down("begin a transaction")(error)))
            .and_then(|mut transaction| {
                fence(&transaction, batch)?;
                let committed = write(&transaction, &mut self.sql, batch, &steps)
                    .map_err(|error| refused(down("write a batch")(error)))?;
                // What becomes of a COMMIT that fails is decided below.
                transaction.set_drop_behavior(DropBehavior::Ignore);
                Ok(committed)
            });
        let committed = match written {
            Ok(committed) => committed,
            Err(error) => {
                // A transaction that could not be rolled back would swallow the next batch.
                if !connection.is_autocommit() {
                    self.connection = None;
                }
                return Err(error);
            }
        };
        let Err(error) = connection.execute_batch("COMMIT") else { return Ok(committed) };
        let certain = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        );
        let source = down("commit a batch")(error);
        if certain && connection.execute_batch("ROLLBACK").is_ok() {
            return Err(refused(source));
        }
        self.connection = None;
        Err(CommitError::Unknown { source })
    }
}

/// The conditional update of the lease row.
fn fence(transaction: &Transaction<'_>, batch: &StoreBatch) -> Result<(), CommitError> {
    let refused = |error| CommitError::Refused { source: down("fence a batch")(error) };
    let shard = batch.shard.get();
    let update = "UPDATE lease SET head = ?1, committed_at = ?2, owner_connection = ?3, batches = batches + 1 \
                  WHERE shard = ?4 AND epoch_number = ?5 AND epoch_tag = ?6 AND head = ?7";
    let mut statement = transaction.prepare_cached(update).map_err(refused)?;
    let changed = statement
        .execute(params![
            signed(batch.last().get()),
            signed(batch.now.0),
            std::process::id(),
            shard,
            signed(batch.epoch.number),
            signed(batch.epoch.tag),
            signed(batch.head.get()),
        ])
        .map_err(refused)?;
    if changed == 1 {
        return Ok(());
    }
    let (theirs, found, _) = transaction
        .query_row(SELECT_LEASE, [shard], |row| Ok(read::lease(&mut Fields(row))))
        .map_err(refused)?
        .map_err(|source| CommitError::Refused { source })?;
    Err(CommitError::Fenced {
        shard: batch.shard,
        ours: batch.epoch,
        head: batch.head,
        theirs,
        found,
    })
}

fn write(
    transaction: &Transaction<'_>,
    sql: &mut Sql,
    batch: &StoreBatch,
    steps: &[Step<'_>],
) -> rusqlite::Result<Committed> {
    let shard = batch.shard.get();
    let mut committed = Committed::default();
    for step in steps {
        match step {
            Step::Insert { table, cells } => {
                let mut rest = cells.as_slice();
                for size in SIZES {
                    let width = size * table.columns.len();
                    while rest.len() >= width {
                        let (rows, more) = rest.split_at(width);
                        transaction
                            .prepare_cached(sql.insert(table, size))?
                            .execute(params_from_iter(rows))?;
                        rest = more;
                    }
                }
            }
            Step::State { app, message, seq, state } => {
                let (app, message, seq) =
                    (signed(app.get()), signed(message.get()), signed(seq.get()));
                let active = signed(standing(*state));
                transaction
                    .prepare_cached(COPY_REVISION)?
                    .execute(params![shard, app, message, seq, active])?;
                transaction.prepare_cached(SET_STATE)?.execute(params![
                    shard,
                    app,
                    message,
                    seq,
                    state.name()
                ])?;
            }
            Step::Purge { from, horizon } => {
                purge(transaction, shard, from.get(), horizon.get())?;
            }
            Step::ForgetKeys(ForgetKeys { before, rows_max }) => {
                let forgotten = transaction.prepare_cached(FORGET_KEYS)?.execute(params![
                    shard,
                    signed(before.0),
                    rows_max
                ])?;
                committed.keys_forgotten += forgotten as u64;
            }
            Step::Erase(erase) => {
                committed.receipts_erased += erase_receipts(transaction, shard, erase)?;
            }
            Step::ForgetOutbox(forget) => forget_outbox(transaction, shard, forget)?,
            Step::ForgetCallback(id) => {
                for statement in forget_endpoint(shard, &signed(id.get()).to_string()) {
                    transaction.execute(&statement, [])?;
                }
            }
            Step::ForgetCallbackLog(through) => {
                transaction.execute(&forget_log(shard, *through), [])?;
            }
            Step::ForgetCounts(forget) => {
                committed.counts_forgotten += forget_counts(transaction, shard, forget)?;
            }
        }
    }
    Ok(committed)
}

fn purge(
    transaction: &Transaction<'_>,
    shard: u16,
    from: u64,
    horizon: u64,
) -> rusqlite::Result<()> {
    let range = params![shard, signed(from), signed(horizon)];
    for (table, id) in SAID {
        transaction.prepare_cached(&superseded(table, id))?.execute(range)?;
    }
    for table in OF_MESSAGES {
        transaction.prepare_cached(&of_ended(table))?.execute(range)?;
    }
    transaction.prepare_cached(REVISIONS_OF_GONE)?.execute(range)?;
    transaction.execute(&purge_messages(shard, from, horizon), [])?;
    for statement in purge_tombstones(shard, from, horizon) {
        transaction.execute(&statement, [])?;
    }
    Ok(())
}

/// Parameters: the shard, from where, to where. The newest revision of each message or audience that the horizon
/// reaches stays; what is older goes. `CROSS JOIN`, because SQLite then keeps the order, and so begins with what changed.
fn superseded(table: &str, id: &str) -> String {
    format!(
        "DELETE FROM {table} WHERE rowid IN (SELECT old.rowid FROM (\
         SELECT app, {id}, MAX(from_seq) AS kept FROM {table} INDEXED BY {table}_from \
         WHERE shard = ?1 AND from_seq > ?2 AND from_seq <= ?3 GROUP BY app, {id}) AS newer \
         CROSS JOIN {table} AS old ON old.shard = ?1 AND old.app = newer.app \
         AND old.{id} = newer.{id} AND old.from_seq < newer.kept)"
    )
}

/// Parameters as those of [`superseded`].
const REVISIONS_OF_GONE: &str = "DELETE FROM audience_revisions WHERE rowid IN (SELECT old.rowid FROM audiences AS a \
                                 INDEXED BY audiences_changed CROSS JOIN audience_revisions AS old \
                                 ON old.shard = ?1 AND old.app = a.app AND old.audience = a.audience \
                                 WHERE a.shard = ?1 AND a.changed_seq > ?2 AND a.changed_seq <= ?3 AND a.deleted = 1)";

/// Parameters as those of [`superseded`].
fn of_ended(table: &str) -> String {
    format!(
        "DELETE FROM {table} WHERE rowid IN (SELECT old.rowid FROM messages AS m INDEXED BY messages_changed \
         CROSS JOIN {table} AS old ON old.shard = ?1 AND old.app = m.app AND old.message = m.message \
         WHERE m.shard = ?1 AND m.changed_seq > ?2 AND m.changed_seq <= ?3 AND m.{ENDED})"
    )
}

fn erasures_over(these: &str) -> String {
    format!(
        "DELETE FROM erasures WHERE {these} AND NOT EXISTS (SELECT 1 FROM receipts AS r \
         WHERE r.shard = erasures.shard AND r.app = erasures.app AND r.device = erasures.device)"
    )
}

/// How many receipts went.
fn erase_receipts(
    transaction: &Transaction<'_>,
    shard: u16,
    erase: &Erase,
) -> rusqlite::Result<u64> {
    let mut left = erase.rows_max;
    for (app, device) in &erase.devices {
        let key = params![shard, signed(app.get()), signed(device.get()), left];
        let gone = transaction.prepare_cached(ERASE_RECEIPTS)?.execute(key)?;
        left = left.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
        if left == 0 {
            break;
        }
    }
    let these = of_devices(shard, &erase.devices, |id| signed(id).to_string());
    transaction.execute(&erase_seen(&these), [])?;
    for statement in erase_beside(&these) {
        transaction.execute(&statement, [])?;
    }
    transaction.execute(&erasures_over(&these), [])?;
    Ok(u64::from(erase.rows_max - left))
}

fn forget_outbox(
    transaction: &Transaction<'_>,
    shard: u16,
    forget: &ForgetOutbox,
) -> rusqlite::Result<()> {
    transaction.prepare_cached(FORGET_OUTBOX)?.execute(params![shard, signed(forget.through)])?;
    for EndedDevice { app, device, event } in &forget.devices {
        let key = params![shard, signed(app.get()), signed(device.get()), signed(*event)];
        transaction.prepare_cached(FORGET_PSEUDONYM)?.execute(key)?;
    }
    Ok(())
}

/// How many counts went.
fn forget_counts(
    transaction: &Transaction<'_>,
    shard: u16,
    forget: &ForgetCounts,
) -> rusqlite::Result<u64> {
    let mut left = forget.rows_max;
    match &forget.which {
        OldCounts::Before(span, at) => {
            let key = params![shard, span.name(), signed(at.0), left];
            let gone = transaction.prepare_cached(FORGET_COUNTS_BEFORE)?.execute(key)?;
            left = left.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
        }
        OldCounts::Of(messages) => {
            for (app, message) in messages {
                let key = params![shard, signed(app.get()), signed(message.get()), left];
                let gone = transaction.prepare_cached(FORGET_COUNTS_OF)?.execute(key)?;
                left = left.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
                if left == 0 {
                    break;
                }
            }
        }
    }
    Ok(u64::from(forget.rows_max - left))
}

/// The text of each multi-row insert, made once.
#[derive(Debug, Default)]
pub(super) struct Sql(HashMap<(&'static str, usize), String>);

impl Sql {
    fn insert(&mut self, table: &'static Table, rows: usize) -> &str {
        self.0.entry((table.name, rows)).or_insert_with(|| {
            let row = format!("({})", vec!["?"; table.columns.len()].join(", "));
            let (keys, others) = table.columns.split_at(table.keys);
            let conflict = match table.present {
                Present::Replace => {
                    let set: Vec<String> =
                        others.iter().map(|c| format!("{c} = excluded.{c}")).collect();
                    format!("DO UPDATE SET {}", set.join(", "))
                }
                Present::Keep => "DO NOTHING".to_owned(),
                Present::Raise => {
                    let set: Vec<String> =
                        others.iter().map(|c| format!("{c} = MAX({c}, excluded.{c})")).collect();
                    format!("DO UPDATE SET {}", set.join(", "))
                }
            };
            let rows = vec![row; rows].join(", ");
            format!("{}{rows} ON CONFLICT ({}) {conflict}", table.insert(), keys.join(", "))
        })
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Null => ValueRef::Null,
            Cell::Int(bits) => ValueRef::Integer(signed(*bits)),
            Cell::Text(text) => ValueRef::Text(text.as_bytes()),
            Cell::Blob(blob) => ValueRef::Blob(blob),
        }))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::migrate;

    /// However large the tables are, a step that forgets walks an index over its own range.
    #[test]
    fn no_statement_that_forgets_scans_a_table() {
        let connection = Connection::open_in_memory().unwrap();
        for migration in &migrate::SQLITE {
            connection.execute_batch(migration.sql).unwrap();
        }
        let device = (carillon_world::AppId::new(1), carillon_world::DeviceId::new(u64::MAX));
        let these = of_devices(0, &[device, device], |id| signed(id).to_string());
        let mut statements = purge_tombstones(0, 1_000, 2_000);
        statements.extend([
            REVISIONS_OF_GONE.to_owned(),
            purge_messages(0, 1_000, 2_000),
            FORGET_KEYS.to_owned(),
            ERASE_RECEIPTS.to_owned(),
            FORGET_OUTBOX.to_owned(),
            FORGET_PSEUDONYM.to_owned(),
            forget_log(0, 7),
            erase_seen(&these),
            FORGET_COUNTS_BEFORE.to_owned(),
            FORGET_COUNTS_OF.to_owned(),
            erasures_over(&these),
        ]);
        let bare = format!("DELETE FROM devices WHERE shard = 0 AND deleted = 1 AND {these}");
        assert!(plan(&connection, &bare).iter().all(|line| line.contains("SEARCH")), "it tells");
        statements.extend(SAID.map(|(table, id)| superseded(table, id)));
        statements.extend(OF_MESSAGES.map(of_ended));
        statements.extend(erase_beside(&these));
        for statement in statements {
            let plan = plan(&connection, &statement);
            // The rows of one step, gathered, are walked.
            let scans = |line: &&String| line.contains("SCAN") && *line != "SCAN newer";
            assert_eq!(plan.iter().find(scans), None, "{statement}: {plan:?}");
            assert!(plan.iter().any(|line| line.contains("SEARCH")), "{statement}: {plan:?}");
        }
    }

    fn plan(connection: &Connection, statement: &str) -> Vec<String> {
        let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
        for parameter in 1..=explained.parameter_count() {
            explained.raw_bind_parameter(parameter, 1).unwrap();
        }
        let mut rows = explained.raw_query();
        let mut lines = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            lines.push(row.get(3).unwrap());
        }
        lines
    }
}
