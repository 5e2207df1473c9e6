//! The embedded store: one file, one thread that alone touches it.
//!
//! SQLite blocks, so it has a thread of its own with a channel in front. The connection is opened on demand and
//! dropped after any error that leaves its state in doubt. `synchronous=FULL`: an answer means durable.

mod checkpoint;
mod load;
mod write;

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use carillon_world::{AppId, DeviceId, Epoch, LineageEntry, Millis, Row, Seq, ShardId};
use rusqlite::types::ValueRef;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use tokio::sync::{mpsc, oneshot};

use self::checkpoint::Checkpointer;
use crate::callback::stored as callback;
use crate::durability::judge_sqlite;
use crate::epoch::{Holding, Verdict, judge_claim};
use crate::history::{self, OutboxRow, PseudonymRow, stored};
use crate::json::Damage;
use crate::migrate::{self, CREATE_VERSIONS, SELECT_VERSION};
use crate::provider_tokens::{self, ProviderTokenId};
use crate::push;
use crate::read::{
    self, Columns, SELECT_ERASURES, SELECT_IDEMPOTENCY, SELECT_LEASE, SELECT_LINEAGE,
    SELECT_SEQ_TIMES, SELECT_TIMES,
};
use crate::{
    CallbackLogFrom, CallbackLogRow, CommitError, Committed, EpochClaim, IdempotencyRow, Kept,
    Opening, Store, StoreBatch, StoreError, StoreOptions, Tally, UnsafeSetting,
};

/// Rows that travel together from the thread to the loader: few wake-ups, little memory.
const LOAD_CHUNK_ROWS: usize = 512;
/// Chunks that wait for the loader at most.
const LOAD_CHUNKS_MAX: usize = 8;
/// Statements kept ready: four sizes of eight tables and a few more.
const STATEMENTS_MAX: usize = 64;

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// See [`Store`].
#[derive(Debug)]
pub struct SqliteStore {
    /// `None` only while dropping.
    jobs: Option<mpsc::UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
    shards: u16,
    unsafe_settings: Vec<UnsafeSetting>,
}

impl SqliteStore {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// If the file cannot be opened, or [`StoreError::NewerSchema`].
    pub async fn open(path: &Path, options: &StoreOptions) -> Result<SqliteStore, StoreError> {
        // Unbounded, yet there is never more than one job, because each call awaits its answer.
        let (jobs, mut inbox) = mpsc::unbounded_channel::<Job>();
        let setup = Setup::new(path, options);
        let started = |error| StoreError::unavailable("start a thread of the SQLite store", error);
        let mut checkpointer = Checkpointer::start(setup.clone()).map_err(started)?;
        let mut worker = Worker {
            setup,
            allow_unsafe: options.allow_unsafe,
            loaders: options.loaders,
            connection: None,
            sql: write::Sql::default(),
        };
        let thread = std::thread::Builder::new()
            .name("carillon-sqlite".to_owned())
            .spawn(move || {
                while let Some(job) = inbox.blocking_recv() {
                    job(&mut worker);
                    // After the answer to the batch that made the log long.
                    if let Some(connection) = &worker.connection {
                        checkpointer.look(connection);
                    }
                }
            })
            .map_err(started)?;
        let mut store = SqliteStore {
            jobs: Some(jobs),
            thread: Some(thread),
            shards: 0,
            unsafe_settings: Vec::new(),
        };
        let shards = options.shards;
        store.unsafe_settings = store.call(|worker| worker.unsafe_settings()).await?;
        store.shards = store.call(move |worker| worker.migrate(shards)).await?;
        Ok(store)
    }

    /// What the table of pseudonyms has of a device, by a connection that can only read. Blocks.
    pub(crate) fn peek_pseudonym(
        path: &Path,
        patience: Duration,
        app: AppId,
        device: DeviceId,
    ) -> Result<Option<PseudonymRow>, StoreError> {
        let down = down("read pseudonyms");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(down)?;
        connection.busy_timeout(patience).map_err(down)?;
        let count = connection.query_row("SELECT shards FROM installation", [], |row| {
            Ok(row.get::<_, i64>(0)?.unsigned_abs())
        });
        let select = stored::select_pseudonyms(app, &[device], |id| signed(id).to_string());
        let mut statement = connection.prepare(&select).map_err(down)?;
        for shard in history::shards(count.map_err(down)?) {
            let mut rows = statement.query([shard.get()]).map_err(down)?;
            if let Some(row) = rows.next().map_err(down)? {
                return Ok(Some(stored::pseudonym(&mut Fields(row))?));
            }
        }
        Ok(None)
    }

    /// Runs `job` on the thread.
    async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.start(job)?
            .await
            .map_err(|error| StoreError::unavailable("ask the thread of the SQLite store", error))?
    }

    fn start<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |worker| {
            // A caller that went away does not want to know.
            let _ = answer.send(job(worker));
        });
        let jobs = self.jobs.as_ref().expect("present until dropped");
        match jobs.send(job) {
            Ok(()) => Ok(answered),
            Err(_) => {
                Err(StoreError::unavailable("ask the thread of the SQLite store", "it has ended"))
            }
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It panicked only if we have a fault, and then said so.
            let _ = thread.join();
        }
    }
}

impl Store for SqliteStore {
    async fn begin_epoch(
        &mut self,
        shard: ShardId,
        claim: EpochClaim,
    ) -> Result<Opening, StoreError> {
        let shards = self.shards;
        self.call(move |worker| worker.begin_epoch(shards, shard, claim)).await
    }

    async fn load(
        &mut self,
        shard: ShardId,
        sink: &mut (dyn FnMut(Row) + Send),
    ) -> Result<(), StoreError> {
        let (chunks, mut inbox) = mpsc::channel(LOAD_CHUNKS_MAX);
        let loaded = self.start(move |worker| worker.load(shard, &chunks))?;
        while let Some(rows) = inbox.recv().await {
            let rows: Vec<Row> = rows;
            rows.into_iter().for_each(&mut *sink);
        }
        loaded
            .await
            .map_err(|error| StoreError::unavailable("load from the SQLite store", error))?
    }

    async fn estimate_rows(&mut self) -> Result<u64, StoreError> {
        self.call(|worker| {
            let select = "SELECT COALESCE(MAX(rowid), 0) FROM devices";
            let rows = worker.connection()?.query_row(select, [], |row| row.get::<_, i64>(0));
            rows.map(i64::unsigned_abs).map_err(down("count devices"))
        })
        .await
    }

    async fn load_idempotency(
        &mut self,
        shard: ShardId,
        since: Millis,
    ) -> Result<Vec<IdempotencyRow>, StoreError> {
        self.call(move |worker| worker.load_idempotency(shard, since)).await
    }

    async fn load_kept(&mut self, shard: ShardId) -> Result<Kept, StoreError> {
        self.call(move |worker| worker.load_kept(shard)).await
    }

    async fn load_tallies(
        &mut self,
        shard: ShardId,
        sink: &mut (dyn FnMut(Tally) + Send),
    ) -> Result<(), StoreError> {
        let (chunks, mut inbox) = mpsc::channel(LOAD_CHUNKS_MAX);
        let loaded = self.start(move |worker| worker.load_tallies(shard, &chunks))?;
        while let Some(tallies) = inbox.recv().await {
            let tallies: Vec<Tally> = tallies;
            tallies.into_iter().for_each(&mut *sink);
        }
        loaded
            .await
            .map_err(|error| StoreError::unavailable("load from the SQLite store", error))?
    }

    async fn commit(&mut self, batch: &StoreBatch) -> Result<Committed, CommitError> {
        let batch = batch.clone();
        let refused = |source| CommitError::Refused { source };
        let committed = self.start(move |worker| worker.commit(&batch)).map_err(refused)?;
        match committed.await {
            Ok(result) => result,
            Err(error) => Err(CommitError::Unknown {
                source: StoreError::unavailable("commit a batch", error),
            }),
        }
    }

    async fn outbox(
        &mut self,
        shard: ShardId,
        after: u64,
        bytes_max: u64,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        self.call(move |worker| worker.outbox(shard, after, bytes_max)).await
    }

    async fn outbox_after_epoch(
        &mut self,
        shard: ShardId,
        epoch: u64,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        self.call(move |worker| worker.outbox_after_epoch(shard, epoch)).await
    }

    async fn pseudonyms(
        &mut self,
        shard: ShardId,
        devices: &[(AppId, DeviceId)],
    ) -> Result<Vec<PseudonymRow>, StoreError> {
        let devices = devices.to_vec();
        self.call(move |worker| worker.pseudonyms(shard, devices)).await
    }

    async fn provider_token(
        &mut self,
        id: &ProviderTokenId,
        now: Millis,
        lasts: Duration,
    ) -> Result<Millis, StoreError> {
        let id = *id;
        self.call(move |worker| worker.provider_token(&id, now, lasts)).await
    }

    async fn callback_log(
        &mut self,
        shard: ShardId,
        from: CallbackLogFrom,
        bytes_max: u64,
    ) -> Result<Vec<CallbackLogRow>, StoreError> {
        self.call(move |worker| worker.callback_log(shard, from, bytes_max)).await
    }

    async fn clock(&mut self) -> Result<Millis, StoreError> {
        self.call(|worker| {
            worker
                .connection()
                .and_then(|connection| clock(connection).map_err(down("read the clock")))
        })
        .await
    }

    async fn ping(&mut self) -> Result<(), StoreError> {
        self.call(|worker| {
            let down = down("write to the SQLite store");
            let transaction = begin(worker.connection()?).map_err(down)?;
            transaction.execute(migrate::WRITE_NOTHING, []).map_err(down)?;
            transaction.rollback().map_err(down)
        })
        .await
    }

    fn shards(&self) -> u16 {
        self.shards
    }

    fn unsafe_settings(&self) -> &[UnsafeSetting] {
        &self.unsafe_settings
    }
}

/// Where the file is and how it is opened.
#[derive(Clone, Debug)]
struct Setup {
    path: PathBuf,
    busy_timeout: Duration,
    cache_kib: i64,
}

impl Setup {
    fn new(path: &Path, options: &StoreOptions) -> Setup {
        Setup {
            path: path.to_owned(),
            busy_timeout: options.connect_timeout,
            cache_kib: i64::try_from(options.sqlite_cache >> 10).unwrap_or(i64::MAX),
        }
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        // It holds push tokens and the hashes of secrets, so it is made for its owner alone; SQLite gives its log and
        // index the same mode. A file that is there keeps the mode that somebody chose for it. What prevents it
        // from being made SQLite says next. Names with a colon in front are SQLite's own and no files.
        if !self.path.to_string_lossy().starts_with(':') {
            let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path);
        }
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(self.busy_timeout)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // The two that macOS needs for FULL to be true.
        connection.pragma_update(None, "fullfsync", true)?;
        connection.pragma_update(None, "checkpoint_fullfsync", true)?;
        connection.pragma_update(None, "journal_size_limit", checkpoint::FILE_BYTES_MAX)?;
        // Ours to do, so that no answer waits for it.
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        // Negative: KiB.
        connection.pragma_update(None, "cache_size", -self.cache_kib)?;
        Ok(connection)
    }
}

/// What the thread owns.
#[derive(Debug)]
struct Worker {
    setup: Setup,
    allow_unsafe: bool,
    loaders: NonZeroUsize,
    connection: Option<Connection>,
    sql: write::Sql,
}

impl Worker {
    fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        if self.connection.is_none() {
            let down = down("open the SQLite store");
            let connection = self.setup.connect().map_err(down)?;
            let settings = unsafe_settings(&connection).map_err(down)?;
            if !settings.is_empty() && !self.allow_unsafe {
                return Err(StoreError::Unsafe { settings });
            }
            self.connection = Some(connection);
        }
        Ok(self.connection.as_mut().expect("just opened"))
    }

    fn unsafe_settings(&mut self) -> Result<Vec<UnsafeSetting>, StoreError> {
        unsafe_settings(self.connection()?).map_err(down("read the SQLite store's settings"))
    }

    /// Returns the number of shards.
    fn migrate(&mut self, shards: u16) -> Result<u16, StoreError> {
        let attempted = "migrate the SQLite store";
        let down = down(attempted);
        let transaction = begin(self.connection()?).map_err(down)?;
        transaction.execute_batch(CREATE_VERSIONS).map_err(down)?;
        let found: Option<i64> =
            transaction.query_row(SELECT_VERSION, [], |row| row.get(0)).map_err(down)?;
        for migration in migrate::due(&migrate::SQLITE, found.unwrap_or(0).unsigned_abs())? {
            for statement in migrate::statements(migration.sql) {
                transaction.execute_batch(&statement).map_err(down)?;
            }
            let row = params![migration.version, migration.name];
            transaction
                .execute("INSERT INTO schema_version (version, name) VALUES (?, ?)", row)
                .map_err(down)?;
        }
        migrate::judge_columns(&columns(&transaction).map_err(down)?)?;
        let insert = "INSERT INTO installation (one, shards) VALUES (1, ?) ON CONFLICT DO NOTHING";
        transaction.execute(insert, [shards]).map_err(down)?;
        let shards = transaction
            .query_row("SELECT shards FROM installation", [], |row| row.get(0))
            .map_err(down)?;
        transaction.commit().map_err(down)?;
        Ok(shards)
    }

    fn begin_epoch(
        &mut self,
        shards: u16,
        shard: ShardId,
        claim: EpochClaim,
    ) -> Result<Opening, StoreError> {
        if shard.get() >= shards {
            return Err(StoreError::invalid(format!("shard {shard} of {shards}")));
        }
        let down = down("begin an epoch");
        // After a doubtful commit the log is read anew, as another process would read it.
        self.connection = None;
        let transaction = begin(self.connection()?).map_err(down)?;
        let insert = "INSERT INTO lease VALUES (?, 0, 0, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING";
        transaction.execute(insert, [shard.get()]).map_err(down)?;
        let (epoch, head, horizon) = transaction
            .query_row(SELECT_LEASE, [shard.get()], |row| Ok(read::lease(&mut Fields(row))))
            .map_err(down)??;
        let events: Option<i64> = transaction
            .query_row(stored::SELECT_EVENT_HEAD, [shard.get()], |row| row.get(0))
            .optional()
            .map_err(down)?;
        let events = events.unwrap_or(0).unsigned_abs();
        let lineage = lineage(&transaction, shard)?;
        let now = clock(&transaction).map_err(down)?;
        let opening = match judge_claim(
            shard,
            Holding { epoch, head, horizon, lineage, events },
            claim,
            now,
        )? {
            Verdict::Begun(opening) => return Ok(opening),
            Verdict::Begin(opening) => opening,
        };
        let (number, tag) = (signed(opening.epoch.number), signed(opening.epoch.tag));
        let update = "UPDATE lease SET epoch_number = ?, epoch_tag = ?, owner_connection = ?, batches = batches + 1 \
                      WHERE shard = ?";
        transaction
            .execute(update, params![number, tag, std::process::id(), shard.get()])
            .map_err(down)?;
        let line = params![shard.get(), number, tag, signed(head.get()), claim.fork, signed(now.0)];
        transaction.execute("INSERT INTO lineage VALUES (?, ?, ?, ?, ?, ?)", line).map_err(down)?;
        transaction.commit().map_err(down)?;
        Ok(opening)
    }

    fn load_idempotency(
        &mut self,
        shard: ShardId,
        since: Millis,
    ) -> Result<Vec<IdempotencyRow>, StoreError> {
        let down = down("load idempotency keys");
        let mut statement = self.connection()?.prepare(SELECT_IDEMPOTENCY).map_err(down)?;
        let mut rows = statement.query(params![shard.get(), signed(since.0)]).map_err(down)?;
        let mut loaded = Vec::new();
        while let Some(row) = rows.next().map_err(down)? {
            loaded.push(read::idempotency(&mut Fields(row))?);
        }
        Ok(loaded)
    }

    fn load_kept(&mut self, shard: ShardId) -> Result<Kept, StoreError> {
        let down = down("load what is kept beside rows");
        let shard = shard.get();
        let connection = self.connection()?;
        let mut kept = Kept::default();
        let mut statement = connection.prepare(SELECT_SEQ_TIMES).map_err(down)?;
        let mut rows = statement.query([shard]).map_err(down)?;
        while let Some(row) = rows.next().map_err(down)? {
            kept.samples.push(read::seq_time(&mut Fields(row))?);
        }
        (kept.committed_at, kept.seen_since) = connection
            .query_row(SELECT_TIMES, [shard, shard], |row| Ok(read::times(&mut Fields(row))))
            .map_err(down)??;
        let mut statement = connection.prepare(SELECT_ERASURES).map_err(down)?;
        let mut rows = statement.query([shard]).map_err(down)?;
        while let Some(row) = rows.next().map_err(down)? {
            kept.erasures.push(read::erasure(&mut Fields(row))?);
        }
        let mut statement = connection.prepare(push::SELECT_JOBS).map_err(down)?;
        let mut rows = statement.query([shard]).map_err(down)?;
        while let Some(row) = rows.next().map_err(down)? {
            kept.push_jobs.push(push::job(&mut Fields(row))?);
        }
        let mut statement = connection.prepare(push::SELECT_TIMES).map_err(down)?;
        let mut rows = statement.query([shard]).map_err(down)?;
        while let Some(row) = rows.next().map_err(down)? {
            kept.push_times.push(push::times(&mut Fields(row))?);
        }
        kept.outbox = connection
            .query_row(stored::SELECT_OUTBOX_KEPT, [shard, shard], |row| {
                Ok(stored::outbox_kept(&mut Fields(row)))
            })
            .map_err(down)??;
        let callbacks = &mut kept.callbacks;
        let mut statement = connection.prepare(callback::SELECT_ENDPOINTS).map_err(down)?;
        let mut rows = statement.query([shard]).map_err(down)?;
        while let Some(row) = rows.next().map_err(down)? {
            callbacks.endpoints.push(callback::endpoint(&mut Fields(row))?);
        }
        (callbacks.logged, callbacks.log_bytes) = connection
            .query_row(callback::SELECT_HEAD, [shard, shard], |row| {
                Ok(callback::head(&mut Fields(row)))
            })
            .map_err(down)??;
        let mut statement = connection.prepare(callback::SELECT_LAST).map_err(down)?;
        let mut rows = statement.query([shard]).map_err(down)?;
        while let Some(row) = rows.next().map_err(down)? {
            callbacks.last.push(callback::last(&mut Fields(row))?);
        }
        Ok(kept)
    }

    fn callback_log(
        &mut self,
        shard: ShardId,
        from: CallbackLogFrom,
        bytes_max: u64,
    ) -> Result<Vec<CallbackLogRow>, StoreError> {
        let down = down("read the log of callbacks");
        let query = callback::LogQuery { shard, from, id: |id| signed(id).to_string() };
        let connection = self.connection()?;
        let mut start = 0;
        if let Some(select) = query.start() {
            start = connection
                .query_row(&select, [], |row| Ok(callback::start(&mut Fields(row))))
                .map_err(down)??;
        }
        let mut statement = connection.prepare(&query.sizes(start)).map_err(down)?;
        let mut rows = statement.query([]).map_err(down)?;
        let mut sizes = Vec::new();
        while let Some(row) = rows.next().map_err(down)? {
            sizes.push(callback::size(&mut Fields(row))?);
        }
        let Some(range) = query.range(&sizes, bytes_max) else { return Ok(Vec::new()) };
        let mut statement = connection.prepare(&query.rows(range)).map_err(down)?;
        let mut rows = statement.query([]).map_err(down)?;
        let mut log = Vec::new();
        while let Some(row) = rows.next().map_err(down)? {
            log.push(callback::row(&mut Fields(row))?);
        }
        Ok(log)
    }

    fn outbox(
        &mut self,
        shard: ShardId,
        after: u64,
        bytes_max: u64,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let down = down("read the outbox");
        let connection = self.connection()?;
        let mut statement =
            connection.prepare_cached(&stored::select_outbox_sizes()).map_err(down)?;
        let sizes = statement
            .query_map(params![shard.get(), signed(after)], |row| {
                Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, i64>(1)?.unsigned_abs()))
            })
            .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
            .map_err(down)?;
        let Some((first, last)) = stored::outbox_range(&sizes, bytes_max) else {
            return Ok(Vec::new());
        };
        let mut statement = connection.prepare_cached(stored::SELECT_OUTBOX).map_err(down)?;
        let mut rows =
            statement.query(params![shard.get(), signed(first), signed(last)]).map_err(down)?;
        let mut outbox = Vec::new();
        while let Some(row) = rows.next().map_err(down)? {
            outbox.push(stored::outbox(&mut Fields(row))?);
        }
        Ok(outbox)
    }

    fn outbox_after_epoch(
        &mut self,
        shard: ShardId,
        epoch: u64,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let down = down("look into the outbox");
        let connection = self.connection()?;
        let mut statement =
            connection.prepare_cached(stored::SELECT_OUTBOX_AFTER_EPOCH).map_err(down)?;
        let mut rows = statement.query(params![shard.get(), signed(epoch)]).map_err(down)?;
        let row = rows.next().map_err(down)?;
        row.map(|row| stored::outbox_size(&mut Fields(row))).transpose()
    }

    fn pseudonyms(
        &mut self,
        shard: ShardId,
        mut devices: Vec<(AppId, DeviceId)>,
    ) -> Result<Vec<PseudonymRow>, StoreError> {
        let down = down("read pseudonyms");
        let connection = self.connection()?;
        let mut found = Vec::new();
        for (app, ids) in stored::by_app(&mut devices) {
            let select = stored::select_pseudonyms(app, &ids, |id| signed(id).to_string());
            let mut statement = connection.prepare(&select).map_err(down)?;
            let mut rows = statement.query([shard.get()]).map_err(down)?;
            while let Some(row) = rows.next().map_err(down)? {
                found.push(stored::pseudonym(&mut Fields(row))?);
            }
        }
        Ok(found)
    }

    fn provider_token(
        &mut self,
        id: &ProviderTokenId,
        now: Millis,
        lasts: Duration,
    ) -> Result<Millis, StoreError> {
        let down = down("ask for a provider's token");
        let transaction = begin(self.connection()?).map_err(down)?;
        let (now, lasts) = (now.0, provider_tokens::millis(lasts));
        let claim = params![id, signed(now), signed(lasts)];
        transaction.execute(provider_tokens::CLAIM_SQLITE, claim).map_err(down)?;
        let forgotten = signed(provider_tokens::forgotten(now));
        transaction.execute(provider_tokens::FORGET, [forgotten]).map_err(down)?;
        let issued = transaction
            .query_row(provider_tokens::SELECT, [id], |row| Ok(Fields(row).int(0)))
            .map_err(down)?;
        transaction.commit().map_err(down)?;
        provider_tokens::issued(Some(issued))
    }
}

/// Takes the write lock at once, so that no later statement can fail for want of it.
fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Read back, because a file system without shared memory has no log, and SQLite then keeps the journal it had.
fn unsafe_settings(connection: &Connection) -> rusqlite::Result<Vec<UnsafeSetting>> {
    let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    let synchronous = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    Ok(judge_sqlite(&journal, synchronous))
}

/// The epoch, head and horizon of the lease.
fn lease(connection: &Connection, shard: ShardId) -> Result<Option<(Epoch, Seq, Seq)>, StoreError> {
    let found = connection
        .query_row(SELECT_LEASE, [shard.get()], |row| Ok(read::lease(&mut Fields(row))))
        .optional()
        .map_err(down("read the lease"))?;
    found.transpose()
}

fn lineage(connection: &Connection, shard: ShardId) -> Result<Vec<LineageEntry>, StoreError> {
    let down = down("read the lineage");
    let mut statement = connection.prepare(SELECT_LINEAGE).map_err(down)?;
    let mut rows = statement.query([shard.get()]).map_err(down)?;
    let mut lineage = Vec::new();
    while let Some(row) = rows.next().map_err(down)? {
        lineage.push(read::lineage_entry(&mut Fields(row))?);
    }
    Ok(lineage)
}

fn clock(connection: &Connection) -> rusqlite::Result<Millis> {
    let now = connection
        .query_row("SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)", [], |row| {
            row.get::<_, i64>(0)
        })
        .optional()?;
    Ok(Millis(now.unwrap_or(0).unsigned_abs()))
}

/// The 64 bits as SQLite keeps them.
fn signed(bits: u64) -> i64 {
    bits.cast_signed()
}

/// The table and name of every column.
fn columns(connection: &Connection) -> rusqlite::Result<HashSet<(String, String)>> {
    let select = "SELECT t.name, c.name FROM sqlite_schema AS t JOIN pragma_table_info(t.name) AS c \
                  WHERE t.type = 'table'";
    let mut statement = connection.prepare(select)?;
    let columns = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    columns.collect()
}

fn down(attempted: &'static str) -> impl Fn(rusqlite::Error) -> StoreError + Copy {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt { attempted, source: error.into() }
        }
        _ => StoreError::unavailable(attempted, error),
    }
}

struct Fields<'a, 'r>(&'a rusqlite::Row<'r>);

impl Fields<'_, '_> {
    fn at(&self, index: usize) -> Result<ValueRef<'_>, Damage> {
        self.0.get_ref(index).map_err(|error| error.to_string())
    }
}

impl Columns for Fields<'_, '_> {
    fn opt_int(&mut self, index: usize) -> Result<Option<u64>, Damage> {
        match self.at(index)? {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(bits) => Ok(Some(bits.cast_unsigned())),
            other => Err(format!("{:?} in column {index}", other.data_type())),
        }
    }

    fn opt_text(&mut self, index: usize) -> Result<Option<String>, Damage> {
        match self.at(index)? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(text) => std::str::from_utf8(text)
                .map(|text| Some(text.to_owned()))
                .map_err(|error| error.to_string()),
            other => Err(format!("{:?} in column {index}", other.data_type())),
        }
    }

    fn opt_blob(&mut self, index: usize) -> Result<Option<Vec<u8>>, Damage> {
        match self.at(index)? {
            ValueRef::Null => Ok(None),
            ValueRef::Blob(blob) => Ok(Some(blob.to_owned())),
            other => Err(format!("{:?} in column {index}", other.data_type())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_keeps_no_more_of_the_file_than_it_may() {
        let folder = tempfile::tempdir().unwrap();
        for (bytes, kept) in [(64 << 20, -65_536), (1 << 20, -1_024), (0, 0)] {
            let options = StoreOptions { sqlite_cache: bytes, ..StoreOptions::default() };
            let connection = Setup::new(&folder.path().join("db"), &options).connect().unwrap();
            let size = connection.pragma_query_value(None, "cache_size", |row| row.get(0));
            assert_eq!(size, Ok(kept), "negative: KiB");
        }
    }
}
