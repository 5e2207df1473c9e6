//! One connection: how it is opened, and what a failure on it means.

use std::future::Future;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, Params, Value};

use super::script::Dialect;
use crate::durability::{SHOW_VARIABLES, judge_server};
use crate::json::Damage;
use crate::read::Columns;
use crate::{StoreError, StoreOptions, UnsafeSetting};

/// `ER_BAD_NULL_ERROR`: what the fence makes of a lease row that did not change.
pub(super) const NULL_REFUSED: u16 = 1048;
/// `ER_LOCK_WAIT_TIMEOUT`
pub(super) const LOCK_WAIT_EXCEEDED: u16 = 1205;
/// What the server says of files that it cannot read: `ER_NOT_KEYFILE`, `ER_CRASHED_ON_USAGE`,
/// `ER_CRASHED_ON_REPAIR`, `ER_INDEX_CORRUPT`, `ER_NO_SUCH_TABLE_IN_ENGINE`.
const CORRUPT: [u16; 5] = [1034, 1194, 1195, 1712, 1932];
/// A connection idle for longer is asked whether it is alive before a batch is entrusted to it, because a batch on a
/// dead one would have an unknown outcome.
const IDLE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Link {
    pub(super) conn: Conn,
    pub(super) dialect: Dialect,
    pub(super) unsafe_settings: Vec<UnsafeSetting>,
    read_timeout: Duration,
    used_at: Instant,
}

impl Link {
    pub(super) async fn open(opts: &Opts, options: &StoreOptions) -> Result<Link, StoreError> {
        let attempted = "connect to the store";
        let conn = within(attempted, options.connect_timeout, Conn::new(opts.clone())).await?;
        let dialect = Dialect { packet_bytes_max: 0, backslash_escapes: true };
        let mut link = Link {
            conn,
            dialect,
            unsafe_settings: Vec::new(),
            read_timeout: options.read_timeout,
            used_at: Instant::now(),
        };
        // Without backslash escapes a quote is the only character of a text that needs care. The clock needs UTC.
        let session = format!(
            "SET NAMES utf8mb4 COLLATE utf8mb4_bin; SET SESSION time_zone = '+00:00', autocommit = 1, \
             sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_BACKSLASH_ESCAPES'; \
             SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; {}",
            link.lock_wait_of_batches()
        );
        link.run(&session).await.map_err(|failure| failure.into_error(attempted))?;
        let settings = link.first(attempted, "SELECT @@max_allowed_packet, @@sql_mode", ()).await?;
        let settings = settings.map(|mut row| Ok((row.int(0)?, row.text(1)?))).transpose();
        let (packet_bytes_max, sql_mode) = settings
            .and_then(|settings: Option<(u64, String)>| {
                settings.ok_or_else(|| "no settings".to_owned())
            })
            .map_err(|detail: Damage| StoreError::unavailable(attempted, detail))?;
        let variables = link.all(attempted, SHOW_VARIABLES, ()).await?;
        let variables: Result<Vec<_>, Damage> =
            variables.into_iter().map(|mut row| Ok((row.text(0)?, row.text(1)?))).collect();
        let variables = variables.map_err(|detail| StoreError::unavailable(attempted, detail))?;
        // Judged at every connection: the server may have come back with other settings.
        link.unsafe_settings = judge_server(&variables);
        if !link.unsafe_settings.is_empty() && !options.allow_unsafe {
            return Err(StoreError::Unsafe { settings: link.unsafe_settings });
        }
        link.dialect = Dialect {
            packet_bytes_max: usize::try_from(packet_bytes_max).unwrap_or(usize::MAX),
            backslash_escapes: !sql_mode.contains("NO_BACKSLASH_ESCAPES"),
        };
        Ok(link)
    }

    /// The statement that makes a batch give up on a locked row before its caller gives up on the batch.
    pub(super) fn lock_wait_of_batches(&self) -> String {
        format!(
            "SET SESSION innodb_lock_wait_timeout = {}",
            (self.read_timeout.as_secs() / 2).max(1)
        )
    }

    /// Whether the connection is alive, as far as one can know.
    pub(super) async fn answers(&mut self) -> bool {
        self.used_at.elapsed() < IDLE_MAX
            || within("ping", self.read_timeout, self.conn.ping()).await.is_ok()
    }

    /// Runs statements that return no rows, to the end or to the first that fails.
    pub(super) async fn run(&mut self, sql: &str) -> Result<(), Failure> {
        self.run_counted(sql, usize::MAX).await.map(drop)
    }

    /// As `run`; `statements` is how many there are. Gives how many rows each changed.
    pub(super) async fn run_counted(
        &mut self,
        sql: &str,
        statements: usize,
    ) -> Result<Vec<u64>, Failure> {
        let mut done = 0;
        let mut changed = Vec::new();
        let all = async {
            let mut results = self.conn.query_iter(sql).await?;
            done += 1;
            changed.push(results.affected_rows());
            while !results.is_empty() {
                results.next().await?;
                done += 1;
                changed.push(results.affected_rows());
            }
            // The driver takes a later statement's error for a result, and returns it only when asked once more.
            let last = results.next().await;
            if last.is_err() {
                done -= 1;
            }
            last.map(|_| ())
        };
        let outcome = tokio::time::timeout(self.read_timeout, all).await;
        self.used_at = Instant::now();
        match outcome {
            Ok(Ok(())) => Ok(changed),
            Ok(Err(error)) => {
                Err(Failure { cause: Cause::Driver(error), left: statements.saturating_sub(done) })
            }
            Err(_) => Err(Failure {
                cause: Cause::Timeout(self.read_timeout),
                left: statements.saturating_sub(done),
            }),
        }
    }

    pub(super) async fn first(
        &mut self,
        attempted: &'static str,
        select: &str,
        params: impl Into<Params> + Send,
    ) -> Result<Option<Fields>, StoreError> {
        let row = within(attempted, self.read_timeout, self.conn.exec_first(select, params.into()))
            .await?;
        self.used_at = Instant::now();
        Ok(row.map(Fields))
    }

    pub(super) async fn all(
        &mut self,
        attempted: &'static str,
        select: &str,
        params: impl Into<Params> + Send,
    ) -> Result<Vec<Fields>, StoreError> {
        let rows: Vec<mysql_async::Row> =
            within(attempted, self.read_timeout, self.conn.exec(select, params.into())).await?;
        self.used_at = Instant::now();
        Ok(rows.into_iter().map(Fields).collect())
    }
}

pub(super) async fn within<T>(
    attempted: &'static str,
    limit: Duration,
    doing: impl Future<Output = mysql_async::Result<T>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, doing).await {
        Ok(result) => result.map_err(|error| down(attempted, error)),
        Err(_) => Err(StoreError::Timeout { attempted, after: limit }),
    }
}

pub(super) fn down(attempted: &'static str, error: mysql_async::Error) -> StoreError {
    match &error {
        mysql_async::Error::Server(server) if CORRUPT.contains(&server.code) => {
            StoreError::Corrupt { attempted, source: error.into() }
        }
        _ => StoreError::unavailable(attempted, error),
    }
}

/// Why a packet of statements did not come to its end.
#[derive(Debug)]
pub(super) struct Failure {
    cause: Cause,
    /// Statements not known to have succeeded.
    left: usize,
}

#[derive(Debug)]
enum Cause {
    Driver(mysql_async::Error),
    Timeout(Duration),
}

impl Failure {
    /// Whether the last statement may have taken effect: the server did not say which failed, or it was that one.
    pub(super) fn may_have_finished(&self) -> bool {
        self.code().is_none() || self.left <= 1
    }

    /// The server's error number, if it was the server that spoke.
    pub(super) fn code(&self) -> Option<u16> {
        match &self.cause {
            Cause::Driver(mysql_async::Error::Server(error)) => Some(error.code),
            _ => None,
        }
    }

    pub(super) fn into_error(self, attempted: &'static str) -> StoreError {
        match self.cause {
            Cause::Driver(error) => down(attempted, error),
            Cause::Timeout(after) => StoreError::Timeout { attempted, after },
        }
    }
}

#[derive(Debug)]
pub(super) struct Fields(pub(super) mysql_async::Row);

impl Columns for Fields {
    fn opt_int(&mut self, index: usize) -> Result<Option<u64>, Damage> {
        match self.0.take(index) {
            Some(Value::NULL) => Ok(None),
            Some(Value::UInt(number)) => Ok(Some(number)),
            Some(Value::Int(number)) => {
                u64::try_from(number).map(Some).map_err(|_| format!("{number} in column {index}"))
            }
            other => Err(format!("no integer but {} in column {index}", kind(other.as_ref()))),
        }
    }

    fn opt_text(&mut self, index: usize) -> Result<Option<String>, Damage> {
        match self.opt_blob(index)? {
            Some(bytes) => String::from_utf8(bytes).map(Some).map_err(|error| error.to_string()),
            None => Ok(None),
        }
    }

    fn opt_blob(&mut self, index: usize) -> Result<Option<Vec<u8>>, Damage> {
        match self.0.take(index) {
            Some(Value::NULL) => Ok(None),
            Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
            other => Err(format!("no bytes but {} in column {index}", kind(other.as_ref()))),
        }
    }
}

/// For error messages, which must not show values: they may be a device's.
fn kind(value: Option<&Value>) -> &'static str {
    match value {
        None => "nothing",
        Some(Value::NULL) => "NULL",
        Some(Value::Bytes(_)) => "bytes",
        Some(Value::Int(_) | Value::UInt(_)) => "an integer",
        Some(Value::Float(_) | Value::Double(_)) => "a float",
        Some(Value::Date(..) | Value::Time(..)) => "a time",
    }
}
