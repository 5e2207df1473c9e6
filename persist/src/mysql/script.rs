//! A batch as text: statements from START TRANSACTION to COMMIT, in as few packets as the server takes.

use carillon_world::{AppId, MessageId};

use crate::callback::stored::{forget_endpoint, forget_log};
use crate::encode::{Cell, OUTBOX_ROW_BYTES, Step, plan, standing};
use crate::history::{EndedDevice, ForgetOutbox};
use crate::names::Named;
use crate::tables::{
    ENDED, OF_MESSAGES, Present, SAID, Table, erase_beside, erase_seen, of_devices, purge_messages,
    purge_tombstones,
};
use crate::{Erase, ForgetKeys, OldCounts, StoreBatch, StoreError};

/// Rows a statement at most. More gains nothing and makes the server's parser hold much at once.
const ROWS_MAX: usize = 1024;
/// What a statement with one row of the outbox has beside the events, at most.
const OUTBOX_BESIDE_BYTES: usize = 1024;
const DIGITS: [u8; 16] = *b"0123456789abcdef";
const COMMIT: &str = "COMMIT";
const SEPARATOR: &str = ";\n";

/// What the session was found to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    pub(super) packet_bytes_max: usize,
    pub(super) backslash_escapes: bool,
}

/// What is sent at once.
#[derive(Debug, Default)]
pub(super) struct Packet {
    pub(super) sql: String,
    pub(super) statements: usize,
    /// Statements of which it matters how many rows they found, by their place.
    pub(super) counted: Vec<(usize, Counted)>,
}

/// What rows are counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Keys,
    Receipts,
    Counts,
}

/// The packets of a batch, each but a very large row at most 80% of what the server takes. Only the last has a COMMIT.
///
/// # Errors
/// [`StoreError::Invalid`] if a row has no form in the store, or is more than the server takes.
pub(super) fn packets(batch: &StoreBatch, dialect: Dialect) -> Result<Vec<Packet>, StoreError> {
    let shard = batch.shard.get();
    let bytes_max = dialect.packet_bytes_max / 10 * 8;
    let steps = plan(batch, outbox_row_bytes(bytes_max))?;
    let mut script = Script { sent: Vec::new(), open: Packet::default(), bytes_max, dialect };
    script.statement("START TRANSACTION");
    script.statement(&format!(
        "UPDATE lease SET head = {}, committed_at = {}, owner_connection = CONNECTION_ID(), batches = batches + 1 \
         WHERE shard = {shard} AND epoch_number = {} AND epoch_tag = {} AND head = {}",
        batch.last(),
        batch.now.0,
        batch.epoch.number,
        batch.epoch.tag,
        batch.head
    ));
    // Fails, and so stops the rest, unless the lease row changed.
    script.statement(&format!(
        "INSERT INTO fence (shard, held) VALUES ({shard}, IF(ROW_COUNT() = 1, 1, NULL)) ON DUPLICATE KEY UPDATE held = 1"
    ));
    for step in &steps {
        match step {
            Step::Insert { table, cells } => script.insert(table, cells),
            Step::State { app, message, seq, state } => {
                let key = format!(
                    "shard = {shard} AND app = {} AND message = {}",
                    app.get(),
                    message.get()
                );
                script.statement(&format!(
                    "INSERT INTO message_revisions (shard, app, message, from_seq, active, to_expression, heads) \
                     SELECT shard, app, message, {seq}, {}, to_expression, heads FROM message_revisions \
                     WHERE {key} AND from_seq < {seq} ORDER BY from_seq DESC LIMIT 1",
                    standing(*state)
                ));
                script.statement(&format!(
                    "UPDATE messages SET state = '{}', changed_seq = {seq} WHERE {key}",
                    state.name()
                ));
            }
            Step::Purge { from, horizon } => {
                for statement in purge(shard, from.get(), horizon.get()) {
                    script.statement(&statement);
                }
            }
            Step::ForgetKeys(ForgetKeys { before, rows_max }) => {
                let delete = format!(
                    "DELETE FROM idempotency WHERE shard = {shard} AND created_at < {} ORDER BY created_at \
                     LIMIT {rows_max}",
                    before.0
                );
                script.counted(&delete, Counted::Keys);
            }
            Step::Erase(Erase { devices, rows_max }) => {
                let these = of_devices(shard, devices, |id| id.to_string());
                let receipts = format!("DELETE FROM receipts WHERE {these} LIMIT {rows_max}");
                script.counted(&receipts, Counted::Receipts);
                script.statement(&erase_seen(&these));
                for statement in erase_beside(&these) {
                    script.statement(&statement);
                }
                script.statement(&format!(
                    "DELETE FROM erasures WHERE {these} AND NOT EXISTS (SELECT 1 FROM receipts AS r \
                     WHERE r.shard = erasures.shard AND r.app = erasures.app AND r.device = erasures.device)"
                ));
            }
            Step::ForgetOutbox(ForgetOutbox { through, devices }) => {
                script.statement(&format!(
                    "DELETE FROM outbox WHERE shard = {shard} AND first_event <= {through}"
                ));
                for EndedDevice { app, device, event } in devices {
                    script.statement(&format!(
                        "DELETE FROM device_pseudonyms WHERE shard = {shard} AND app = {} AND device = {} AND since <= {event}",
                        app.get(),
                        device.get()
                    ));
                }
            }
            Step::ForgetCallback(id) => {
                for statement in forget_endpoint(shard, &id.get().to_string()) {
                    script.statement(&statement);
                }
            }
            Step::ForgetCallbackLog(through) => script.statement(&forget_log(shard, *through)),
            Step::ForgetCounts(forget) => {
                let which = match &forget.which {
                    OldCounts::Before(span, at) => {
                        format!("span = '{}' AND at < {}", span.name(), at.0)
                    }
                    OldCounts::Of(messages) => {
                        let one = |(app, message): &(AppId, MessageId)| {
                            format!("app = {} AND message = {}", app.get(), message.get())
                        };
                        let any: Vec<String> = messages.iter().map(one).collect();
                        format!("({})", any.join(" OR "))
                    }
                };
                let delete = format!(
                    "DELETE FROM message_counts WHERE shard = {shard} AND {which} LIMIT {}",
                    forget.rows_max
                );
                script.counted(&delete, Counted::Counts);
            }
        }
    }
    script.finish()
}

/// What of the events of a batch is one row: as hexadecimal it takes twice the bytes, beside numbers and columns.
fn outbox_row_bytes(packet_bytes: usize) -> usize {
    OUTBOX_ROW_BYTES.min(packet_bytes.saturating_sub(OUTBOX_BESIDE_BYTES) / 2)
}

/// Every statement finds its rows through an index by what changed above `from`: the joins begin there, whatever the
/// server thinks of the sizes of the tables.
fn purge(shard: u16, from: u64, horizon: u64) -> Vec<String> {
    // The newest revision of each message and audience that the horizon reaches stays; what is older goes.
    let superseded = SAID.map(|(table, id)| {
        format!(
            "DELETE old FROM (SELECT app, {id}, MAX(from_seq) AS kept FROM {table} FORCE INDEX ({table}_from) \
             WHERE shard = {shard} AND from_seq > {from} AND from_seq <= {horizon} GROUP BY app, {id}) AS newer \
             STRAIGHT_JOIN {table} AS old FORCE INDEX (PRIMARY) \
             ON old.shard = {shard} AND old.app = newer.app AND old.{id} = newer.{id} AND old.from_seq < newer.kept"
        )
    });
    let of_ended = OF_MESSAGES.map(|table| {
        format!(
            "DELETE old FROM messages AS m FORCE INDEX (messages_changed) STRAIGHT_JOIN {table} AS old \
             FORCE INDEX (PRIMARY) ON old.shard = {shard} AND old.app = m.app AND old.message = m.message \
             WHERE m.shard = {shard} AND m.changed_seq > {from} AND m.changed_seq <= {horizon} AND m.{ENDED}"
        )
    });
    let of_gone = format!(
        "DELETE old FROM audiences AS a FORCE INDEX (audiences_changed) STRAIGHT_JOIN audience_revisions AS old \
         FORCE INDEX (PRIMARY) ON old.shard = {shard} AND old.app = a.app AND old.audience = a.audience \
         WHERE a.shard = {shard} AND a.changed_seq > {from} AND a.changed_seq <= {horizon} AND a.deleted = 1"
    );
    let mut statements = Vec::from(superseded);
    statements.extend(of_ended);
    statements.extend([of_gone, purge_messages(shard, from, horizon)]);
    statements.extend(purge_tombstones(shard, from, horizon));
    statements
}

#[derive(Debug)]
struct Script {
    sent: Vec<Packet>,
    open: Packet,
    bytes_max: usize,
    dialect: Dialect,
}

impl Script {
    /// Whether `bytes` more, and a COMMIT, still fit.
    fn fits(&self, bytes: usize) -> bool {
        self.open.sql.len() + bytes + 2 * SEPARATOR.len() + COMMIT.len() <= self.bytes_max
    }

    fn next_packet(&mut self) {
        self.sent.push(std::mem::take(&mut self.open));
    }

    fn statement(&mut self, statement: &str) {
        if self.open.statements > 0 && !self.fits(statement.len()) {
            self.next_packet();
        }
        self.begin(statement);
    }

    fn counted(&mut self, statement: &str, counted: Counted) {
        self.statement(statement);
        self.open.counted.push((self.open.statements - 1, counted));
    }

    fn begin(&mut self, statement: &str) {
        if self.open.statements > 0 {
            self.open.sql.push_str(SEPARATOR);
        }
        self.open.sql.push_str(statement);
        self.open.statements += 1;
    }

    fn insert(&mut self, table: &Table, cells: &[Cell<'_>]) {
        let head = table.insert();
        let tail = on_duplicate(table);
        let mut rows = 0;
        for row in cells.chunks_exact(table.columns.len()) {
            // Written where it most often stays: rows are many, and ends of statements are few.
            let mark = self.open.sql.len();
            if rows > 0 {
                self.open.sql.push(',');
            }
            let start = self.open.sql.len();
            tuple(&mut self.open.sql, row, self.dialect.backslash_escapes);
            if 0 < rows && rows < ROWS_MAX && self.fits(tail.len()) {
                rows += 1;
                continue;
            }
            let row_sql = self.open.sql.split_off(start);
            self.open.sql.truncate(mark);
            if rows > 0 {
                self.open.sql.push_str(&tail);
            }
            if self.open.statements > 0 && !self.fits(head.len() + row_sql.len() + tail.len()) {
                self.next_packet();
            }
            self.begin(&head);
            self.open.sql.push_str(&row_sql);
            rows = 1;
        }
        if rows > 0 {
            self.open.sql.push_str(&tail);
        }
    }

    fn finish(mut self) -> Result<Vec<Packet>, StoreError> {
        self.begin(COMMIT);
        self.next_packet();
        // The byte that says what the packet is counts, too.
        match self.sent.iter().map(|packet| packet.sql.len() + 1).max() {
            Some(largest) if largest > self.dialect.packet_bytes_max => {
                Err(StoreError::invalid(format!(
                    "a row makes a packet of {largest} bytes; the server's max_allowed_packet is {}",
                    self.dialect.packet_bytes_max
                )))
            }
            _ => Ok(self.sent),
        }
    }
}

fn on_duplicate(table: &Table) -> String {
    let (keys, others) = table.columns.split_at(table.keys);
    let set = match table.present {
        Present::Replace => {
            others.iter().map(|c| format!("{c} = VALUES({c})")).collect::<Vec<_>>().join(", ")
        }
        Present::Keep => format!("{key} = {key}", key = keys[0]),
        Present::Raise => others
            .iter()
            .map(|c| format!("{c} = GREATEST({c}, VALUES({c}))"))
            .collect::<Vec<_>>()
            .join(", "),
    };
    format!(" ON DUPLICATE KEY UPDATE {set}")
}

fn tuple(out: &mut String, row: &[Cell<'_>], backslash_escapes: bool) {
    for (index, cell) in row.iter().enumerate() {
        out.push(if index == 0 { '(' } else { ',' });
        match cell {
            Cell::Null => out.push_str("NULL"),
            Cell::Int(number) => out.push_str(itoa::Buffer::new().format(*number)),
            Cell::Text(text) => quote(out, text, backslash_escapes),
            Cell::Blob(blob) => {
                out.push_str("X'");
                for byte in *blob {
                    let digit = |of: u8| char::from(DIGITS[usize::from(of)]);
                    out.extend([digit(byte >> 4), digit(byte & 15)]);
                }
                out.push('\'');
            }
        }
    }
    out.push(')');
}

/// A literal of a session whose character set is UTF-8, in which no byte of a longer character looks like a quote.
fn quote(out: &mut String, text: &str, backslash_escapes: bool) {
    out.push('\'');
    let mut rest = text;
    while let Some(at) = rest.find(|c| c == '\'' || (c == '\\' && backslash_escapes)) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        // Both are doubled, and both are one byte.
        out.push_str(&special[..1]);
        out.push_str(&special[..1]);
        rest = &special[1..];
    }
    out.push_str(rest);
    out.push('\'');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use carillon_world::{Batch, Change, DeviceId, Epoch, Millis, Seq, ShardId};

    use super::*;
    use crate::history::{BatchHistory, OutboxEvent, OutboxRow};
    use crate::{BatchUpkeep, IdempotencyRow, ReceiptRow, Tallies};

    fn batch(changes: u64, receipts: u64, text: &str) -> StoreBatch {
        let gone = |id| Change::DeviceGone { app: AppId::new(1), id: DeviceId::new(id) };
        let receipt = |id| ReceiptRow {
            app: AppId::new(1),
            device: DeviceId::new(2),
            id,
            message: MessageId::new(3),
            kind: text.to_owned(),
            at: Millis(4),
        };
        StoreBatch {
            shard: ShardId::FIRST,
            epoch: Epoch { number: 5, tag: u64::MAX },
            head: Seq::new(10),
            horizon: Seq::ZERO,
            changes: Some(Arc::new(Batch {
                first: Seq::new(11),
                changes: (0..changes).map(gone).collect(),
            })),
            idempotency: Vec::<IdempotencyRow>::new(),
            receipts: (0..receipts).map(receipt).collect(),
            push_jobs: Vec::new(),
            push_times: Vec::new(),
            tallies: Tallies::default(),
            upkeep: BatchUpkeep::default(),
            history: BatchHistory::default(),
            now: Millis(6),
        }
    }

    fn packets_of(batch: &StoreBatch, packet_bytes_max: usize) -> Result<Vec<Packet>, StoreError> {
        packets(batch, Dialect { packet_bytes_max, backslash_escapes: false })
    }

    #[test]
    fn a_batch_is_one_packet_if_it_fits_and_begins_with_its_fence() {
        let packets = packets_of(&batch(3, 1, "displayed"), 1 << 24).unwrap();
        assert_eq!(packets.len(), 1);
        let statements: Vec<_> = packets[0].sql.split(SEPARATOR).collect();
        assert_eq!(statements.len(), packets[0].statements);
        assert_eq!(statements[0], "START TRANSACTION");
        assert!(
            statements[1]
                .ends_with("epoch_number = 5 AND epoch_tag = 18446744073709551615 AND head = 10")
        );
        assert!(statements[2].contains("IF(ROW_COUNT() = 1, 1, NULL)"));
        assert_eq!(*statements.last().unwrap(), COMMIT);
    }

    #[test]
    fn a_large_batch_is_split_under_the_limit_and_only_its_last_packet_commits() {
        let packets = packets_of(&batch(4000, 4000, "it's"), 8192).unwrap();
        assert!(packets.len() > 10);
        let mut rows = 0;
        for (index, packet) in packets.iter().enumerate() {
            assert!(packet.sql.len() <= 8192 / 10 * 8, "{}", packet.sql.len());
            assert_eq!(packet.sql.ends_with(COMMIT), index + 1 == packets.len());
            assert_eq!(packet.sql.split(SEPARATOR).count(), packet.statements);
            rows += packet.sql.matches("),(").count() + packet.sql.matches("VALUES (0,").count();
        }
        assert_eq!(rows, 20_000 + 1, "tombstones, erasures, hours, books, receipts and the fence");
    }

    #[test]
    fn events_of_a_batch_are_as_many_rows_as_the_server_takes() {
        let data = format!("\"{}\"", "x".repeat(1_000));
        let mut payload = Vec::new();
        for _ in 0..300 {
            let (app, device, message) = (None, None, None);
            let (event, at) = ("a.b", Millis(1));
            OutboxEvent { event, at, change: None, app, device, message, data: &data }
                .write(&mut payload);
        }
        let mut batch = batch(1, 0, "");
        let row = OutboxRow { epoch: batch.epoch, first: 1, events: 300, payload: payload.into() };
        batch.history.outbox = Some(row);
        for (packet_bytes_max, events) in [(8_192, 2), (65_536, 25), (1 << 24, 256)] {
            let packets = packets_of(&batch, packet_bytes_max).unwrap();
            let sql: Vec<&str> = packets.iter().map(|packet| packet.sql.as_str()).collect();
            let rows = sql.concat().matches(",5,18446744073709551615,").count();
            assert_eq!(rows, 300_usize.div_ceil(events), "{packet_bytes_max}");
        }
    }

    #[test]
    fn a_row_beyond_what_the_server_takes_is_refused_before_it_is_sent() {
        let large = "x".repeat(9000);
        assert!(matches!(packets_of(&batch(1, 1, &large), 8192), Err(StoreError::Invalid { .. })));
        assert!(packets_of(&batch(1, 1, &large[..7000]), 8192).is_ok());
    }

    #[test]
    fn literals_cannot_be_left_from_within() {
        for (text, plain, escaped) in [
            ("", "''", "''"),
            ("a", "'a'", "'a'"),
            ("it's", "'it''s'", "'it''s'"),
            ("\\' OR 1", "'\\'' OR 1'", "'\\\\'' OR 1'"),
            ("é\\", "'é\\'", "'é\\\\'"),
        ] {
            for (backslash_escapes, expected) in [(false, plain), (true, escaped)] {
                let mut out = String::new();
                quote(&mut out, text, backslash_escapes);
                assert_eq!(out, expected);
            }
            // The driver escapes more, but with the same meaning where the mode leaves only the quote.
            assert_eq!(mysql_async::Value::from(text).as_sql(true), plain);
        }
    }
}
