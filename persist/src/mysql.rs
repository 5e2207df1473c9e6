//! The production store: MySQL or MariaDB over one connection.
//!
//! A batch is text, sent whole with its COMMIT, so that it costs one round trip whatever it holds and an owner that
//! pauses never holds the lease row's lock between two statements. The connection is taken out while it is in use
//! and put back only when its state is known.

mod link;
mod load;
mod script;

use std::collections::HashSet;
use std::time::Duration;

use carillon_world::{AppId, DeviceId, Epoch, Millis, Row, Seq, ShardId};
use mysql_async::prelude::Queryable;
use mysql_async::{Opts, OptsBuilder};

use crate::callback::stored as callback;
use crate::epoch::{Holding, Verdict, judge_claim};
use crate::history::{self, OutboxRow, PseudonymRow, stored};
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
use link::{Failure, LOCK_WAIT_EXCEEDED, Link, NULL_REFUSED};
use script::Counted;

/// A lease row that stays locked for longer belongs to an owner that paused: its connection is ended.
const OWNER_PAUSE_S: u64 = 1;
/// How often the connection that holds the lease row is ended before giving up. Each time it may be another's.
const OWNER_KILLS_MAX: usize = 5;
/// Milliseconds; the session's time zone is UTC, so no hour comes twice.
const SELECT_CLOCK: &str = "SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED)";

/// The table and name of every column.
const SELECT_COLUMNS: &str = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()";

const SELECT_SHARDS: &str = "SELECT shards FROM installation";

/// See [`Store`].
#[derive(Debug)]
pub struct MysqlStore {
    opts: Opts,
    options: StoreOptions,
    link: Option<Link>,
    shards: u16,
    unsafe_settings: Vec<UnsafeSetting>,
}

impl MysqlStore {
    /// Connects, and creates or migrates the tables; the database itself must exist.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses, or [`StoreError::NewerSchema`].
    pub async fn open(url: &str, options: &StoreOptions) -> Result<MysqlStore, StoreError> {
        let opts = Opts::from_url(url)
            .map_err(|error| StoreError::unavailable("read the store's address", error))?;
        // The driver would leave TCP for the server's socket on its own host, which costs a second connection.
        let opts = OptsBuilder::from_opts(opts).prefer_socket(false).into();
        let mut store = MysqlStore {
            opts,
            options: options.clone(),
            link: None,
            shards: 0,
            unsafe_settings: Vec::new(),
        };
        let mut link = store.take().await?;
        store.shards = store.migrate(&mut link).await?;
        store.link = Some(link);
        Ok(store)
    }

    /// What the table of pseudonyms has of a device. Nothing is written, so the server's settings are as they are.
    pub(crate) async fn peek_pseudonym(
        url: &str,
        options: &StoreOptions,
        app: AppId,
        device: DeviceId,
    ) -> Result<Option<PseudonymRow>, StoreError> {
        let attempted = "read pseudonyms";
        let opts = Opts::from_url(url)
            .map_err(|error| StoreError::unavailable("read the store's address", error))?;
        let opts = OptsBuilder::from_opts(opts).prefer_socket(false).into();
        let options = StoreOptions { allow_unsafe: true, ..options.clone() };
        let mut link = Link::open(&opts, &options).await?;
        let row = link.first(attempted, SELECT_SHARDS, ()).await?;
        let count = row.ok_or_else(|| "it is empty".to_owned()).and_then(|mut row| row.int(0));
        let select = stored::select_pseudonyms(app, &[device], |id| id.to_string());
        for shard in history::shards(read::in_table("installation", count)?) {
            if let Some(mut row) = link.first(attempted, &select, (shard.get(),)).await? {
                return Ok(Some(stored::pseudonym(&mut row)?));
            }
        }
        Ok(None)
    }

    /// A connection that answers: the one at hand, or a fresh one.
    async fn take(&mut self) -> Result<Link, StoreError> {
        if let Some(mut link) = self.link.take()
            && link.answers().await
        {
            return Ok(link);
        }
        let link = Link::open(&self.opts, &self.options).await?;
        self.unsafe_settings.clone_from(&link.unsafe_settings);
        Ok(link)
    }

    /// Returns the number of shards. Two processes at once do no harm: every statement can be run again.
    async fn migrate(&self, link: &mut Link) -> Result<u16, StoreError> {
        let attempted = "migrate the store";
        link.run(CREATE_VERSIONS).await.map_err(|failure| failure.into_error(attempted))?;
        let found = match link.first(attempted, SELECT_VERSION, ()).await? {
            Some(mut row) => read::in_table("schema_version", row.opt_int(0))?.unwrap_or(0),
            None => 0,
        };
        for migration in migrate::due(&migrate::MYSQL, found)? {
            for statement in migrate::statements(migration.sql) {
                // No time limit: a change of a large table takes as long as it takes.
                link.conn
                    .query_drop(statement)
                    .await
                    .map_err(|error| link::down(attempted, error))?;
            }
            let (version, name) = (migration.version, migration.name);
            let insert = format!(
                "INSERT IGNORE INTO schema_version (version, name) VALUES ({version}, '{name}')"
            );
            link.run(&insert).await.map_err(|failure| failure.into_error(attempted))?;
        }
        let mut columns = HashSet::new();
        for mut row in link.all(attempted, SELECT_COLUMNS, ()).await? {
            let mut read = || Ok((row.text(0)?, row.text(1)?));
            columns.insert(read::in_table("information_schema.columns", read())?);
        }
        migrate::judge_columns(&columns)?;
        let insert = format!(
            "INSERT IGNORE INTO installation (one, shards) VALUES (1, {})",
            self.options.shards
        );
        link.run(&insert).await.map_err(|failure| failure.into_error(attempted))?;
        let row = link.first(attempted, SELECT_SHARDS, ()).await?;
        let shards = row.ok_or_else(|| "it is empty".to_owned()).and_then(|mut row| row.int(0));
        read::in_table(
            "installation",
            shards.and_then(|n| u16::try_from(n).map_err(|error| error.to_string())),
        )
    }

    /// What became of `batch` when its packet failed; `last`: that packet ended with COMMIT.
    async fn judge_failure(
        &mut self,
        mut link: Link,
        failure: Failure,
        last: bool,
        batch: &StoreBatch,
    ) -> CommitError {
        let unknown = last && failure.may_have_finished();
        let null_refused = failure.code() == Some(NULL_REFUSED);
        let source = failure.into_error("commit a batch");
        if unknown {
            return CommitError::Unknown { source };
        }
        // COMMIT was not reached. If this fails too, the server rolls back when the connection is gone.
        if link.run("ROLLBACK").await.is_err() {
            return CommitError::Refused { source };
        }
        let found =
            if null_refused { lease(&mut link, batch.shard).await.ok().flatten() } else { None };
        self.link = Some(link);
        match found {
            Some((theirs, found, _)) if (theirs, found) != (batch.epoch, batch.head) => {
                CommitError::Fenced {
                    shard: batch.shard,
                    ours: batch.epoch,
                    head: batch.head,
                    theirs,
                    found,
                }
            }
            _ => CommitError::Refused { source },
        }
    }

    /// Begins a transaction that holds the lease row of `shard`, which is made if need be. Whoever holds it for longer
    /// than a second loses the connection.
    async fn lock_lease(&self, link: &mut Link, shard: ShardId) -> Result<(), StoreError> {
        let attempted = "lock the lease";
        let failed = |failure: Failure| failure.into_error(attempted);
        link.run(&format!("SET SESSION innodb_lock_wait_timeout = {OWNER_PAUSE_S}"))
            .await
            .map_err(failed)?;
        let lock = format!(
            "START TRANSACTION; INSERT INTO lease VALUES ({shard}, 0, 0, 0, 0, CONNECTION_ID(), 0, 0) \
             ON DUPLICATE KEY UPDATE owner_connection = CONNECTION_ID(), batches = batches + 1"
        );
        for _ in 0..OWNER_KILLS_MAX {
            match link.run(&lock).await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.code() == Some(LOCK_WAIT_EXCEEDED) => {}
                Err(failure) => return Err(failed(failure)),
            }
            // Uncommitted is what is wanted: whoever locks the row has first put its own connection there.
            link.run("ROLLBACK; SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
                .await
                .map_err(failed)?;
            let select = "SELECT owner_connection FROM lease WHERE shard = ? AND owner_connection <> CONNECTION_ID()";
            if let Some(mut row) = link.first(attempted, select, (shard.get(),)).await? {
                let owner = read::in_table("lease", row.int(0))?;
                tracing::warn!(
                    shard = shard.get(),
                    connection = owner,
                    "an owner holds the lease row: ending its connection"
                );
                // It may have gone by itself.
                if let Err(failure) = link.run(&format!("KILL {owner}")).await
                    && failure.code().is_none()
                {
                    return Err(failed(failure));
                }
            }
        }
        Err(StoreError::unavailable(attempted, "another connection keeps it locked"))
    }
}

impl Store for MysqlStore {
    async fn begin_epoch(
        &mut self,
        shard: ShardId,
        claim: EpochClaim,
    ) -> Result<Opening, StoreError> {
        let attempted = "begin an epoch";
        if shard.get() >= self.shards {
            return Err(StoreError::invalid(format!("shard {shard} of {}", self.shards)));
        }
        // The old connection may still carry a lost transaction.
        self.link = None;
        let mut link = Link::open(&self.opts, &self.options).await?;
        self.lock_lease(&mut link, shard).await?;
        let Some((epoch, head, horizon)) = lease(&mut link, shard).await? else {
            return read::in_table("lease", Err("the row just locked is gone".to_owned()));
        };
        let mut lineage = Vec::new();
        for mut row in link.all(attempted, SELECT_LINEAGE, (shard.get(),)).await? {
            lineage.push(read::lineage_entry(&mut row)?);
        }
        let events = match link.first(attempted, stored::SELECT_EVENT_HEAD, (shard.get(),)).await? {
            Some(mut row) => read::in_table("event_heads", row.int(0))?,
            None => 0,
        };
        let now = clock(&mut link).await?;
        let holding = Holding { epoch, head, horizon, lineage, events };
        let verdict = judge_claim(shard, holding, claim, now);
        let end = link.lock_wait_of_batches();
        let opening = match verdict {
            Ok(Verdict::Begin(opening)) => opening,
            Ok(Verdict::Begun(opening)) => {
                link.run(&format!("ROLLBACK; {end}"))
                    .await
                    .map_err(|failure| failure.into_error(attempted))?;
                self.link = Some(link);
                return Ok(opening);
            }
            // Dropping the connection rolls back.
            Err(error) => return Err(error),
        };
        let (Epoch { number, tag }, fork) = (opening.epoch, u8::from(claim.fork));
        let write = format!(
            "UPDATE lease SET epoch_number = {number}, epoch_tag = {tag} WHERE shard = {shard}; \
             INSERT INTO lineage VALUES ({shard}, {number}, {tag}, {head}, {fork}, {}); COMMIT; {end}",
            now.0
        );
        link.run(&write).await.map_err(|failure| failure.into_error(attempted))?;
        self.link = Some(link);
        Ok(opening)
    }

    async fn load(
        &mut self,
        shard: ShardId,
        sink: &mut (dyn FnMut(Row) + Send),
    ) -> Result<(), StoreError> {
        self.load_all(shard, sink).await
    }

    async fn estimate_rows(&mut self) -> Result<u64, StoreError> {
        let select = "SELECT CAST(COALESCE(MAX(table_rows), 0) AS UNSIGNED) FROM information_schema.tables \
                      WHERE table_schema = DATABASE() AND table_name = 'devices'";
        let mut link = self.take().await?;
        let row = link.first("count devices", select, ()).await?;
        self.link = Some(link);
        let rows = row.ok_or_else(|| "no answer".to_owned()).and_then(|mut row| row.int(0));
        read::in_table("devices", rows)
    }

    async fn load_idempotency(
        &mut self,
        shard: ShardId,
        since: Millis,
    ) -> Result<Vec<IdempotencyRow>, StoreError> {
        let mut link = self.take().await?;
        let rows =
            link.all("load idempotency keys", SELECT_IDEMPOTENCY, (shard.get(), since.0)).await?;
        self.link = Some(link);
        rows.into_iter().map(|mut row| read::idempotency(&mut row)).collect()
    }

    async fn load_kept(&mut self, shard: ShardId) -> Result<Kept, StoreError> {
        let attempted = "load what is kept beside rows";
        let shard = shard.get();
        let mut link = self.take().await?;
        let mut kept = Kept::default();
        for mut row in link.all(attempted, SELECT_SEQ_TIMES, (shard,)).await? {
            kept.samples.push(read::seq_time(&mut row)?);
        }
        if let Some(mut row) = link.first(attempted, SELECT_TIMES, (shard, shard)).await? {
            (kept.committed_at, kept.seen_since) = read::times(&mut row)?;
        }
        for mut row in link.all(attempted, SELECT_ERASURES, (shard,)).await? {
            kept.erasures.push(read::erasure(&mut row)?);
        }
        for mut row in link.all(attempted, push::SELECT_JOBS, (shard,)).await? {
            kept.push_jobs.push(push::job(&mut row)?);
        }
        for mut row in link.all(attempted, push::SELECT_TIMES, (shard,)).await? {
            kept.push_times.push(push::times(&mut row)?);
        }
        if let Some(mut row) =
            link.first(attempted, stored::SELECT_OUTBOX_KEPT, (shard, shard)).await?
        {
            kept.outbox = stored::outbox_kept(&mut row)?;
        }
        let callbacks = &mut kept.callbacks;
        for mut row in link.all(attempted, callback::SELECT_ENDPOINTS, (shard,)).await? {
            callbacks.endpoints.push(callback::endpoint(&mut row)?);
        }
        if let Some(mut row) = link.first(attempted, callback::SELECT_HEAD, (shard, shard)).await? {
            (callbacks.logged, callbacks.log_bytes) = callback::head(&mut row)?;
        }
        for mut row in link.all(attempted, callback::SELECT_LAST, (shard,)).await? {
            callbacks.last.push(callback::last(&mut row)?);
        }
        self.link = Some(link);
        Ok(kept)
    }

    async fn load_tallies(
        &mut self,
        shard: ShardId,
        sink: &mut (dyn FnMut(Tally) + Send),
    ) -> Result<(), StoreError> {
        self.load_all_tallies(shard, sink).await
    }

    async fn commit(&mut self, batch: &StoreBatch) -> Result<Committed, CommitError> {
        let refused = |source| CommitError::Refused { source };
        let mut link = self.take().await.map_err(refused)?;
        let packets = match script::packets(batch, link.dialect) {
            Ok(packets) => packets,
            Err(source) => {
                self.link = Some(link);
                return Err(refused(source));
            }
        };
        let mut committed = Committed::default();
        for (index, packet) in packets.iter().enumerate() {
            let changed = match link.run_counted(&packet.sql, packet.statements).await {
                Ok(changed) => changed,
                Err(failure) => {
                    let last = index + 1 == packets.len();
                    return Err(self.judge_failure(link, failure, last, batch).await);
                }
            };
            for (at, counted) in &packet.counted {
                let rows = changed.get(*at).copied().unwrap_or(0);
                match counted {
                    Counted::Keys => committed.keys_forgotten += rows,
                    Counted::Receipts => committed.receipts_erased += rows,
                    Counted::Counts => committed.counts_forgotten += rows,
                }
            }
        }
        self.link = Some(link);
        Ok(committed)
    }

    async fn outbox(
        &mut self,
        shard: ShardId,
        after: u64,
        bytes_max: u64,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        let (attempted, shard) = ("read the outbox", shard.get());
        let mut link = self.take().await?;
        let mut sizes = Vec::new();
        for mut row in link.all(attempted, &stored::select_outbox_sizes(), (shard, after)).await? {
            sizes.push(stored::outbox_size(&mut row)?);
        }
        let mut outbox = Vec::new();
        if let Some((first, last)) = stored::outbox_range(&sizes, bytes_max) {
            for mut row in link.all(attempted, stored::SELECT_OUTBOX, (shard, first, last)).await? {
                outbox.push(stored::outbox(&mut row)?);
            }
        }
        self.link = Some(link);
        Ok(outbox)
    }

    async fn outbox_after_epoch(
        &mut self,
        shard: ShardId,
        epoch: u64,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let mut link = self.take().await?;
        let select = stored::SELECT_OUTBOX_AFTER_EPOCH;
        let row = link.first("look into the outbox", select, (shard.get(), epoch)).await?;
        self.link = Some(link);
        row.map(|mut row| stored::outbox_size(&mut row)).transpose()
    }

    async fn pseudonyms(
        &mut self,
        shard: ShardId,
        devices: &[(AppId, DeviceId)],
    ) -> Result<Vec<PseudonymRow>, StoreError> {
        let mut link = self.take().await?;
        let mut found = Vec::new();
        for (app, ids) in stored::by_app(&mut devices.to_vec()) {
            let select = stored::select_pseudonyms(app, &ids, |id| id.to_string());
            for mut row in link.all("read pseudonyms", &select, (shard.get(),)).await? {
                found.push(stored::pseudonym(&mut row)?);
            }
        }
        self.link = Some(link);
        Ok(found)
    }

    async fn provider_token(
        &mut self,
        id: &ProviderTokenId,
        now: Millis,
        lasts: Duration,
    ) -> Result<Millis, StoreError> {
        let attempted = "ask for a provider's token";
        let mut link = self.take().await?;
        let (now, lasts) = (now.0, provider_tokens::millis(lasts));
        let claim = (id, now, now, lasts, now, lasts, now);
        link.all(attempted, provider_tokens::CLAIM_MYSQL, claim).await?;
        link.all(attempted, provider_tokens::FORGET, (provider_tokens::forgotten(now),)).await?;
        let row = link.first(attempted, provider_tokens::SELECT, (id,)).await?;
        self.link = Some(link);
        provider_tokens::issued(row.map(|mut row| row.int(0)))
    }

    async fn callback_log(
        &mut self,
        shard: ShardId,
        from: CallbackLogFrom,
        bytes_max: u64,
    ) -> Result<Vec<CallbackLogRow>, StoreError> {
        let attempted = "read the log of callbacks";
        let query = callback::LogQuery { shard, from, id: |id| id.to_string() };
        let mut link = self.take().await?;
        let mut start = 0;
        if let Some(select) = query.start()
            && let Some(mut row) = link.first(attempted, &select, ()).await?
        {
            start = callback::start(&mut row)?;
        }
        let mut sizes = Vec::new();
        for mut row in link.all(attempted, &query.sizes(start), ()).await? {
            sizes.push(callback::size(&mut row)?);
        }
        let mut log = Vec::new();
        if let Some(range) = query.range(&sizes, bytes_max) {
            for mut row in link.all(attempted, &query.rows(range), ()).await? {
                log.push(callback::row(&mut row)?);
            }
        }
        self.link = Some(link);
        Ok(log)
    }

    async fn clock(&mut self) -> Result<Millis, StoreError> {
        let mut link = self.take().await?;
        let now = clock(&mut link).await?;
        self.link = Some(link);
        Ok(now)
    }

    async fn ping(&mut self) -> Result<(), StoreError> {
        let mut link = self.take().await?;
        let write = format!("START TRANSACTION; {}; ROLLBACK", migrate::WRITE_NOTHING);
        link.run(&write).await.map_err(|failure| failure.into_error("write to the store"))?;
        self.link = Some(link);
        Ok(())
    }

    fn shards(&self) -> u16 {
        self.shards
    }

    fn unsafe_settings(&self) -> &[UnsafeSetting] {
        &self.unsafe_settings
    }
}

/// The epoch, head and horizon of the lease.
async fn lease(link: &mut Link, shard: ShardId) -> Result<Option<(Epoch, Seq, Seq)>, StoreError> {
    let row = link.first("read the lease", SELECT_LEASE, (shard.get(),)).await?;
    row.map(|mut row| read::lease(&mut row)).transpose()
}

async fn clock(link: &mut Link) -> Result<Millis, StoreError> {
    let row = link.first("read the store's clock", SELECT_CLOCK, ()).await?;
    let now = row.ok_or_else(|| "no answer".to_owned()).and_then(|mut row| row.int(0));
    read::in_table("clock", now.map(Millis))
}
