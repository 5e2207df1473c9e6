//! Callbacks as the tables of either store hold them. Each `SELECT` stands beside the function that reads its columns.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carillon_world::{AppId, Millis, ShardId};
use serde::{Deserialize, Serialize};

use super::{
    BatchCallbacks, CallbackId, CallbackLogFrom, CallbackLogRow, CallbackProgress, CallbackRetry,
    CallbackRow, SealedSecret,
};
use crate::StoreError;
use crate::encode::Cell;
use crate::json::Damage;
use crate::names::Named as _;
use crate::read::{Columns, in_table};

/// Rows whose sizes are looked at before they are read.
const ROWS_MAX: usize = 1_024;

#[derive(Deserialize, Serialize)]
struct SecretText {
    sealed: String,
    until: Option<u64>,
}

fn write_secrets(secrets: &[SealedSecret]) -> String {
    let text = |of: &SealedSecret| SecretText {
        sealed: STANDARD.encode(&of.sealed),
        until: of.until.map(|until| until.0),
    };
    let texts: Vec<SecretText> = secrets.iter().map(text).collect();
    serde_json::to_string(&texts).expect("texts and numbers make JSON")
}

fn read_secrets(text: &str) -> Result<Vec<SealedSecret>, Damage> {
    // What the parser says may quote the text.
    let damage = || "secrets".to_owned();
    let texts: Vec<SecretText> = serde_json::from_str(text).map_err(|_| damage())?;
    let secret = |of: SecretText| {
        let sealed = STANDARD.decode(&of.sealed).map_err(|_| damage())?.into();
        Ok(SealedSecret { sealed, until: of.until.map(Millis) })
    };
    texts.into_iter().map(secret).collect()
}

fn write_retries(retries: &[CallbackRetry]) -> String {
    let mut out = String::with_capacity(retries.len() * 40);
    for CallbackRetry { event, attempts, began, due } in retries {
        let space = if out.is_empty() { "" } else { " " };
        write!(out, "{space}{event}:{attempts}:{}:{}", began.0, due.0).expect("a string takes it");
    }
    out
}

fn read_retries(text: &str) -> Result<Vec<CallbackRetry>, Damage> {
    let one = |part: &str| {
        let mut parts = part.split(':');
        let retry = CallbackRetry {
            event: parts.next()?.parse().ok()?,
            attempts: parts.next()?.parse().ok()?,
            began: Millis(parts.next()?.parse().ok()?),
            due: Millis(parts.next()?.parse().ok()?),
        };
        parts.next().is_none().then_some(retry)
    };
    let parts = text.split_ascii_whitespace();
    parts.map(|part| one(part).ok_or_else(|| format!("the retry {part:?}"))).collect()
}

/// The cells of each table's rows: endpoints, progress, log, heads.
pub(crate) fn cells<'a>(
    shard: &Cell<'static>,
    callbacks: &'a BatchCallbacks,
) -> [Vec<Cell<'a>>; 4] {
    let text = |text: &'a str| Cell::Text(text.into());
    let endpoints = callbacks.endpoints.iter().flat_map(|row| {
        [
            shard.clone(),
            Cell::Int(row.id.get()),
            Cell::Int(row.app.get()),
            text(&row.url),
            text(&row.events),
            text(&row.description),
            Cell::Text(row.state.name().into()),
            Cell::Int(row.changed_at.0),
            Cell::Int(row.run.into()),
            Cell::Text(write_secrets(&row.secrets).into()),
            Cell::Int(row.created_at.0),
        ]
    });
    let at = |at: Option<Millis>| at.map_or(Cell::Null, |at| Cell::Int(at.0));
    let progress = callbacks.progress.iter().flat_map(|(id, of)| {
        [
            shard.clone(),
            Cell::Int(id.get()),
            Cell::Int(of.cursor),
            Cell::Text(write_retries(&of.retries).into()),
            Cell::Int(of.delivered),
            Cell::Int(of.failed),
            Cell::Int(of.missed),
            at(of.last_success_at),
            at(of.last_failure_at),
            at(of.failing_since),
            of.last_error.as_deref().map_or(Cell::Null, text),
        ]
    });
    let log = callbacks.log.iter().flat_map(|row| {
        [
            shard.clone(),
            Cell::Int(row.first),
            Cell::Int(row.app.get()),
            Cell::Int(row.last),
            Cell::Int(row.first_at.0),
            Cell::Int(row.payload.len() as u64),
            Cell::Blob(&row.payload),
        ]
    });
    let heads = callbacks.logged.into_iter().flat_map(|head| [shard.clone(), Cell::Int(head)]);
    [endpoints.collect(), progress.collect(), log.collect(), heads.collect()]
}

/// One parameter: the shard.
pub(crate) const SELECT_ENDPOINTS: &str = "SELECT e.callback, e.app, e.url, e.events, e.description, e.state, e.changed_at, \
                                           e.run, e.secrets, e.created_at, p.after_event, p.retries, p.delivered, p.failed, \
                                           p.missed, p.last_success_at, p.last_failure_at, p.failing_since, p.last_error \
                                           FROM callback_endpoints AS e JOIN callback_progress AS p \
                                           ON p.shard = e.shard AND p.callback = e.callback WHERE e.shard = ?";

pub(crate) fn endpoint(
    columns: &mut impl Columns,
) -> Result<(CallbackRow, CallbackProgress), StoreError> {
    let mut read = || {
        let row = CallbackRow {
            id: CallbackId::new(columns.int(0)?),
            app: AppId::new(columns.int(1)?),
            url: columns.text(2)?.into(),
            events: columns.text(3)?.into(),
            description: columns.text(4)?.into(),
            state: columns.name(5)?,
            changed_at: Millis(columns.int(6)?),
            run: columns.int(7)?.try_into().map_err(|_| "a run beyond 32 bits".to_owned())?,
            secrets: read_secrets(&columns.text(8)?)?,
            created_at: Millis(columns.int(9)?),
        };
        let progress = CallbackProgress {
            cursor: columns.int(10)?,
            retries: read_retries(&columns.text(11)?)?,
            delivered: columns.int(12)?,
            failed: columns.int(13)?,
            missed: columns.int(14)?,
            last_success_at: columns.opt_int(15)?.map(Millis),
            last_failure_at: columns.opt_int(16)?.map(Millis),
            failing_since: columns.opt_int(17)?.map(Millis),
            last_error: columns.opt_text(18)?.map(Into::into),
        };
        Ok((row, progress))
    };
    in_table("callback_endpoints", read())
}

/// Two parameters, both the shard.
pub(crate) const SELECT_HEAD: &str = "SELECT CAST(COALESCE((SELECT logged FROM callback_heads WHERE shard = ?), 0) AS UNSIGNED), \
                                      CAST(COALESCE((SELECT SUM(bytes) FROM callback_log WHERE shard = ?), 0) AS UNSIGNED)";

/// How far the log is, and its bytes.
pub(crate) fn head(columns: &mut impl Columns) -> Result<(u64, u64), StoreError> {
    let mut read = || Ok((columns.int(0)?, columns.int(1)?));
    in_table("callback_log", read())
}

/// One parameter: the shard.
pub(crate) const SELECT_LAST: &str =
    "SELECT app, MAX(last_event) FROM callback_log WHERE shard = ? GROUP BY app";

pub(crate) fn last(columns: &mut impl Columns) -> Result<(AppId, u64), StoreError> {
    let mut read = || Ok((AppId::new(columns.int(0)?), columns.int(1)?));
    in_table("callback_log", read())
}

/// A look at the log, in texts for a store that writes ids as `id`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogQuery {
    pub(crate) shard: ShardId,
    pub(crate) from: CallbackLogFrom,
    pub(crate) id: fn(u64) -> String,
}

impl LogQuery {
    fn condition(&self) -> String {
        match self.from {
            CallbackLogFrom::Oldest => format!("shard = {}", self.shard),
            CallbackLogFrom::After(app, _) | CallbackLogFrom::Since(app, _) => {
                format!("shard = {} AND app = {}", self.shard, (self.id)(app.get()))
            }
        }
    }

    /// Gives one column, which may be null: the first event of the first row.
    pub(crate) fn start(&self) -> Option<String> {
        let before = match self.from {
            CallbackLogFrom::Oldest => return None,
            CallbackLogFrom::After(_, event) => format!("first_event <= {}", event.min(MAX)),
            CallbackLogFrom::Since(_, at) => format!("first_at < {}", at.0.min(MAX)),
        };
        let condition = self.condition();
        Some(format!("SELECT MAX(first_event) FROM callback_log WHERE {condition} AND {before}"))
    }

    /// Of the rows from `start` on, in the order of their events; [`size`] reads it.
    pub(crate) fn sizes(&self, start: u64) -> String {
        let condition = self.condition();
        format!(
            "SELECT first_event, last_event, bytes FROM callback_log WHERE {condition} AND first_event >= {start} \
             ORDER BY first_event LIMIT {ROWS_MAX}"
        )
    }

    /// The first events of the first and last row to read.
    pub(crate) fn range(&self, sizes: &[(u64, u64, u64)], bytes_max: u64) -> Option<(u64, u64)> {
        let is_wanted = |last: u64| match self.from {
            CallbackLogFrom::After(_, event) => last > event,
            CallbackLogFrom::Oldest | CallbackLogFrom::Since(..) => true,
        };
        let wanted = sizes.iter().filter(|(_, last, _)| is_wanted(*last));
        let sizes: Vec<(u64, u64)> = wanted.map(|(first, _, bytes)| (*first, *bytes)).collect();
        crate::history::stored::outbox_range(&sizes, bytes_max)
    }

    pub(crate) fn rows(&self, (first, last): (u64, u64)) -> String {
        let condition = self.condition();
        format!(
            "SELECT app, first_event, last_event, first_at, payload FROM callback_log WHERE {condition} \
             AND first_event BETWEEN {first} AND {last} ORDER BY first_event"
        )
    }
}

/// Beyond it a literal is no whole number to SQLite.
const MAX: u64 = i64::MAX as u64;

pub(crate) fn start(columns: &mut impl Columns) -> Result<u64, StoreError> {
    in_table("callback_log", columns.opt_int(0).map(Option::unwrap_or_default))
}

pub(crate) fn size(columns: &mut impl Columns) -> Result<(u64, u64, u64), StoreError> {
    let mut read = || Ok((columns.int(0)?, columns.int(1)?, columns.int(2)?));
    in_table("callback_log", read())
}

pub(crate) fn row(columns: &mut impl Columns) -> Result<CallbackLogRow, StoreError> {
    let mut read = || {
        Ok(CallbackLogRow {
            app: AppId::new(columns.int(0)?),
            first: columns.int(1)?,
            last: columns.int(2)?,
            first_at: Millis(columns.int(3)?),
            payload: columns.opt_blob(4)?.ok_or("a payload is NULL")?.into(),
        })
    };
    in_table("callback_log", read())
}

/// What goes with endpoints.
pub(crate) fn forget_endpoint(shard: u16, id: &str) -> [String; 2] {
    ["callback_endpoints", "callback_progress"]
        .map(|table| format!("DELETE FROM {table} WHERE shard = {shard} AND callback = {id}"))
}

pub(crate) fn forget_log(shard: u16, through: u64) -> String {
    format!("DELETE FROM callback_log WHERE shard = {shard} AND first_event <= {through}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_endpoint_has_reads_back_and_shows_no_secret_when_it_is_damaged() {
        let secret = |until| SealedSecret { sealed: b"\x00secret"[..].into(), until };
        let secrets = [secret(None), secret(Some(Millis(7)))];
        let text = write_secrets(&secrets);
        assert_eq!(read_secrets(&text).unwrap(), secrets);
        assert_eq!(read_secrets(&text.replace("sealed", "saled")).unwrap_err(), "secrets");
        let retry = |event| CallbackRetry { event, attempts: 3, began: Millis(5), due: Millis(9) };
        for retries in [vec![], vec![retry(1), retry(u64::MAX)]] {
            assert_eq!(read_retries(&write_retries(&retries)).unwrap(), retries);
        }
        for bad in ["x", "1:2:3", "1:2:3:4:5", "1:-2:3:4"] {
            assert!(read_retries(bad).is_err(), "{bad}");
        }
    }
}
