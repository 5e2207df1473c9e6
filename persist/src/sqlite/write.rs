//! One batch into SQLite.

use std::collections::HashMap;

use carillon_world::MessageState;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{DropBehavior, ErrorCode, ToSql, Transaction, params, params_from_iter};

use super::{Fields, Worker, begin, down, signed};
use crate::encode::{Cell, Step, plan};
use crate::names::Named;
use crate::read::{self, SELECT_LEASE};
use crate::tables::{Present, Table, purge_statements};
use crate::{CommitError, StoreBatch};

/// Rows a statement. A few sizes, so that each stays prepared; 128 rows of 13 columns are far below SQLite's 32,766
/// parameters.
const SIZES: [usize; 3] = [128, 16, 1];

const COPY_REVISION: &str = "INSERT INTO message_revisions (shard, app, message, from_seq, active, to_expression, heads) \
                             SELECT shard, app, message, ?4, ?5, to_expression, heads FROM message_revisions \
                             WHERE shard = ?1 AND app = ?2 AND message = ?3 AND from_seq < ?4 \
                             ORDER BY from_seq DESC LIMIT 1";

const SET_STATE: &str = "UPDATE messages SET state = ?5, changed_seq = ?4 WHERE shard = ?1 AND app = ?2 AND message = ?3";

const FORGET_SUPERSEDED: &str = "DELETE FROM message_revisions WHERE shard = ?1 AND from_seq < ?2 AND EXISTS (\
                                 SELECT 1 FROM message_revisions AS newer WHERE newer.shard = message_revisions.shard \
                                 AND newer.app = message_revisions.app AND newer.message = message_revisions.message \
                                 AND newer.from_seq > message_revisions.from_seq AND newer.from_seq <= ?2)";

impl Worker {
    pub(super) fn commit(&mut self, batch: &StoreBatch) -> Result<(), CommitError> {
        let refused = |source| CommitError::Refused { source };
        let steps = plan(batch).map_err(refused)?;
        self.connection().map_err(refused)?;
        let connection = self.connection.as_mut().expect("just opened");
        let written = begin(connection)
            .map_err(|error| refused(down("begin a transaction")(error)))
            .and_then(|mut transaction| {
                fence(&transaction, batch)?;
                write(&transaction, &mut self.sql, batch, &steps)
                    .map_err(|error| refused(down("write a batch")(error)))?;
                // What becomes of a COMMIT that fails is decided below.
                transaction.set_drop_behavior(DropBehavior::Ignore);
                Ok(())
            });
        if let Err(error) = written {
            // A transaction that could not be rolled back would swallow the next batch.
            if !connection.is_autocommit() {
                self.connection = None;
            }
            return Err(error);
        }
        let Err(error) = connection.execute_batch("COMMIT") else { return Ok(()) };
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
) -> rusqlite::Result<()> {
    let shard = batch.shard.get();
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
                let active = *state == MessageState::Active;
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
            Step::Purge { horizon } => {
                for statement in purge_statements(shard, horizon.get()) {
                    transaction.execute(&statement, [])?;
                }
                transaction.execute(FORGET_SUPERSEDED, params![shard, signed(horizon.get())])?;
            }
            Step::ForgetKeys { before } => {
                let delete = "DELETE FROM idempotency WHERE shard = ? AND created_at < ?";
                transaction.prepare_cached(delete)?.execute(params![shard, signed(*before)])?;
            }
        }
    }
    Ok(())
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
