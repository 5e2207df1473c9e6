//! The trait that both stores implement, and what goes over it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_world::{
    AppId, Batch, DeviceId, Epoch, Lineage, MessageId, Millis, Row, Seq, ShardId,
};

use crate::history::{BatchHistory, OutboxRow, PseudonymRow};
use crate::provider_tokens::ProviderTokenId;
use crate::{
    BatchUpkeep, CallbackLogFrom, CallbackLogRow, CommitError, Committed, Kept, MysqlStore,
    PushJobRow, PushTimesRow, SqliteStore, StoreError, StoreOptions, StoreUrl, Tallies, Tally,
    UnsafeSetting,
};

/// The longest idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// A shard as its owner finds it when an epoch begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Ends with the line of the epoch that began.
    pub lineage: Lineage,
    /// The last committed change.
    pub head: Seq,
    pub horizon: Seq,
    pub epoch: Epoch,
    /// The number of the last event of the history.
    pub events: u64,
}

/// The wish to begin an epoch.
#[derive(Clone, Copy, Debug)]
pub struct EpochClaim {
    /// Random. The same claim made twice begins one epoch, so a claim whose answer was lost is simply repeated.
    pub tag: u64,
    /// The claim fails unless the lease still names this epoch.
    pub held: Option<Epoch>,
    /// The number will be at least this; one above what a witness has shown.
    pub number_min: u64,
    /// Changes before the epoch were lost.
    pub fork: bool,
}

/// One transaction.
#[derive(Clone, Debug)]
pub struct StoreBatch {
    pub shard: ShardId,
    /// The epoch of the owner, which the lease must still name.
    pub epoch: Epoch,
    /// Where the owner thinks the head is. `changes` begin right after it.
    pub head: Seq,
    /// The horizon as it is before this batch, or lower: a purge looks at what lies above it and nowhere else.
    pub horizon: Seq,
    /// `None`: only the rows below, which leaves the head where it is.
    pub changes: Option<Arc<Batch>>,
    pub idempotency: Vec<IdempotencyRow>,
    pub receipts: Vec<ReceiptRow>,
    pub push_jobs: Vec<PushJobRow>,
    pub push_times: Vec<PushTimesRow>,
    pub tallies: Tallies,
    pub upkeep: BatchUpkeep,
    pub history: BatchHistory,
    /// The committed clock.
    pub now: Millis,
}

impl StoreBatch {
    /// The head once this is committed.
    pub fn last(&self) -> Seq {
        self.changes.as_ref().map_or(self.head, |batch| batch.last())
    }
}

/// The answer to a request that carried an idempotency key, kept so that a repeat gets the same.
#[derive(Clone, PartialEq, Eq)]
pub struct IdempotencyRow {
    pub app: AppId,
    /// At most [`IDEMPOTENCY_KEY_BYTES_MAX`] bytes.
    pub key: Arc<str>,
    /// SHA-256 of the request.
    pub request: [u8; 32],
    pub response: Bytes,
    pub created_at: Millis,
}

impl fmt::Debug for IdempotencyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IdempotencyRow { app, key, response, created_at, .. } = self;
        write!(f, "IdempotencyRow({app}, {key:?}, {} bytes, {})", response.len(), created_at.0)
    }
}

/// What a device says it did with a message. Writing one twice is harmless: the first counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRow {
    pub app: AppId,
    pub device: DeviceId,
    /// Chosen by the device.
    pub id: u64,
    pub message: MessageId,
    pub kind: String,
    pub at: Millis,
}

/// A store of shards. One value is used by one task; whoever needs a second opens a second.
///
/// No future here is cancel safe: dropping one drops the connection, and for a commit it is an unknown outcome.
pub trait Store: Send {
    /// Makes the caller the owner of `shard`, in one transaction that writes the lease and a line of the lineage.
    /// It waits for a transaction of the present owner, or ends that owner's connection after a second.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if `claim.held` is not what the lease names.
    fn begin_epoch(
        &mut self,
        shard: ShardId,
        claim: EpochClaim,
    ) -> impl Future<Output = Result<Opening, StoreError>> + Send;

    /// Streams every row of `shard`, as it is at one instant: an app's rows after the app, devices last. Only the owner
    /// may load: if another one came meanwhile, what was read is of no use.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for what cannot have been written by [`commit`](Store::commit), [`StoreError::Fenced`] if
    /// another owner came; `sink` has seen part.
    fn load(
        &mut self,
        shard: ShardId,
        sink: &mut (dyn FnMut(Row) + Send),
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// About how many rows [`load`](Store::load) will stream, for those who wait; at once, and perhaps far off.
    fn estimate_rows(&mut self) -> impl Future<Output = Result<u64, StoreError>> + Send {
        std::future::ready(Ok(0))
    }

    /// The idempotency rows made at `since` or later.
    fn load_idempotency(
        &mut self,
        shard: ShardId,
        since: Millis,
    ) -> impl Future<Output = Result<Vec<IdempotencyRow>, StoreError>> + Send;

    /// What the store remembers beside rows.
    fn load_kept(
        &mut self,
        shard: ShardId,
    ) -> impl Future<Output = Result<Kept, StoreError>> + Send;

    /// Streams what was counted, as [`load`](Store::load) does rows.
    ///
    /// # Errors
    /// [`StoreError::Damaged`]; `sink` has seen part.
    fn load_tallies(
        &mut self,
        shard: ShardId,
        sink: &mut (dyn FnMut(Tally) + Send),
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Commits `batch` whole or not at all. `Ok` only when it is durable.
    fn commit(
        &mut self,
        batch: &StoreBatch,
    ) -> impl Future<Output = Result<Committed, CommitError>> + Send;

    /// The rows of the outbox after that with the event `after`, oldest first: about `bytes_max` of them, and at least
    /// one if there is one.
    fn outbox(
        &mut self,
        shard: ShardId,
        after: u64,
        bytes_max: u64,
    ) -> impl Future<Output = Result<Vec<OutboxRow>, StoreError>> + Send;

    /// The first event of the outbox that an epoch with a greater number told: its number, and the epoch's.
    fn outbox_after_epoch(
        &mut self,
        shard: ShardId,
        epoch: u64,
    ) -> impl Future<Output = Result<Option<(u64, u64)>, StoreError>> + Send;

    /// The pseudonyms of those of these devices that have some, the newest of each device first.
    fn pseudonyms(
        &mut self,
        shard: ShardId,
        devices: &[(AppId, DeviceId)],
    ) -> impl Future<Output = Result<Vec<PseudonymRow>, StoreError>> + Send;

    /// When the token was made that a provider is shown: `now`, if there is none yet or it is `lasts` old. Whoever asks
    /// for the same `id`, of any shard, is told the same.
    fn provider_token(
        &mut self,
        id: &ProviderTokenId,
        now: Millis,
        lasts: Duration,
    ) -> impl Future<Output = Result<Millis, StoreError>> + Send;

    /// Rows of the callbacks' log in the order of their events: about `bytes_max` of them, and at least one if there is one.
    fn callback_log(
        &mut self,
        shard: ShardId,
        from: CallbackLogFrom,
        bytes_max: u64,
    ) -> impl Future<Output = Result<Vec<CallbackLogRow>, StoreError>> + Send;

    /// The store's clock, which counts.
    fn clock(&mut self) -> impl Future<Output = Result<Millis, StoreError>> + Send;

    /// Whether the store would take a batch: it writes, and takes that back. To be asked after a batch was refused,
    /// since a store that is locked, full or read-only still tells the time.
    ///
    /// # Errors
    /// If it would not.
    fn ping(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The number of shards, as written when the store was created.
    fn shards(&self) -> u16;

    /// Settings of the store under which acknowledged writes may be lost, as of the last connection. Not empty only
    /// where [`StoreOptions::allow_unsafe`] says so: else nothing is written.
    fn unsafe_settings(&self) -> &[UnsafeSetting];
}

/// Whichever store the configuration names.
#[derive(Debug)]
pub enum AnyStore {
    Sqlite(SqliteStore),
    Mysql(MysqlStore),
}

impl AnyStore {
    /// Opens the store, creates what is missing and migrates what is older.
    ///
    /// # Errors
    /// If it cannot be reached, or [`StoreError::NewerSchema`].
    pub async fn open(url: &StoreUrl, options: &StoreOptions) -> Result<AnyStore, StoreError> {
        match url {
            StoreUrl::Sqlite(path) => Ok(AnyStore::Sqlite(SqliteStore::open(path, options).await?)),
            StoreUrl::Mysql(url) => Ok(AnyStore::Mysql(MysqlStore::open(url, options).await?)),
        }
    }
}

impl Store for AnyStore {
    async fn begin_epoch(
        &mut self,
        shard: ShardId,
        claim: EpochClaim,
    ) -> Result<Opening, StoreError> {
        match self {
            AnyStore::Sqlite(store) => store.begin_epoch(shard, claim).await,
            AnyStore::Mysql(store) => store.begin_epoch(shard, claim).await,
        }
    }

    async fn load(
        &mut self,
        shard: ShardId,
        sink: &mut (dyn FnMut(Row) + Send),
    ) -> Result<(), StoreError> {
        match self {
            AnyStore::Sqlite(store) => store.load(shard, sink).await,
            AnyStore::Mysql(store) => store.load(shard, sink).await,
        }
    }

    async fn estimate_rows(&mut self) -> Result<u64, StoreError> {
        match self {
            AnyStore::Sqlite(store) => store.estimate_rows().await,
            AnyStore::Mysql(store) => store.estimate_rows().await,
        }
    }

    async fn load_idempotency(
        &mut self,
        shard: ShardId,
        since: Millis,
    ) -> Result<Vec<IdempotencyRow>, StoreError> {
        match self {
            AnyStore::Sqlite(store) => store.load_idempotency(shard, since).await,
            AnyStore::Mysql(store) => store.load_idempotency(shard, since).await,
        }
    }

    async fn load_kept(&mut self, shard: ShardId) -> Result<Kept, StoreError> {
        match self {
            AnyStore::Sqlite(store) => store.load_kept(shard).await,
            AnyStore::Mysql(store) => store.load_kept(shard).await,
        }
    }

    async fn load_tallies(
        &mut self,
        shard: ShardId,
        sink: &mut (dyn FnMut(Tally) + Send),
    ) -> Result<(), StoreError> {
        match self {
            AnyStore::Sqlite(store) => store.load_tallies(shard, sink).await,
            AnyStore::Mysql(store) => store.load_tallies(shard, sink).await,
        }
    }

    async fn commit(&mut self, batch: &StoreBatch) -> Result<Committed, CommitError> {
        match self {
            AnyStore::Sqlite(store) => store.commit(batch).await,
            AnyStore::Mysql(store) => store.commit(batch).await,
        }
    }

    async fn outbox(
        &mut self,
        shard: ShardId,
        after: u64,
        bytes_max: u64,
    ) -> Result<Vec<OutboxRow>, StoreError> {
        match self {
            AnyStore::Sqlite(store) => store.outbox(shard, after, bytes_max).await,
            AnyStore::Mysql(store) => store.outbox(shard, after, bytes_max).await,
        }
    }

    async fn outbox_after_epoch(
        &mut self,
        shard: ShardId,
        epoch: u64,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        match self {
            AnyStore::Sqlite(store) => store.outbox_after_epoch(shard, epoch).await,
            AnyStore::Mysql(store) => store.outbox_after_epoch(shard, epoch).await,
        }
    }

    async fn pseudonyms(
        &mut self,
        shard: ShardId,
        devices: &[(AppId, DeviceId)],
    ) -> Result<Vec<PseudonymRow>, StoreError> {
        match self {
            AnyStore::Sqlite(store) => store.pseudonyms(shard, devices).await,
            AnyStore::Mysql(store) => store.pseudonyms(shard, devices).await,
        }
    }

    async fn provider_token(
        &mut self,
        id: &ProviderTokenId,
        now: Millis,
        lasts: Duration,
    ) -> Result<Millis, StoreError> {
        match self {
            AnyStore::Sqlite(store) => store.provider_token(id, now, lasts).await,
            AnyStore::Mysql(store) => store.provider_token(id, now, lasts).await,
        }
    }

    async fn callback_log(
        &mut self,
        shard: ShardId,
        from: CallbackLogFrom,
        bytes_max: u64,
    ) -> Result<Vec<CallbackLogRow>, StoreError> {
        match self {
            AnyStore::Sqlite(store) => store.callback_log(shard, from, bytes_max).await,
            AnyStore::Mysql(store) => store.callback_log(shard, from, bytes_max).await,
        }
    }

    async fn clock(&mut self) -> Result<Millis, StoreError> {
        match self {
            AnyStore::Sqlite(store) => store.clock().await,
            AnyStore::Mysql(store) => store.clock().await,
        }
    }

    async fn ping(&mut self) -> Result<(), StoreError> {
        match self {
            AnyStore::Sqlite(store) => store.ping().await,
            AnyStore::Mysql(store) => store.ping().await,
        }
    }

    fn shards(&self) -> u16 {
        match self {
            AnyStore::Sqlite(store) => store.shards(),
            AnyStore::Mysql(store) => store.shards(),
        }
    }

    fn unsafe_settings(&self) -> &[UnsafeSetting] {
        match self {
            AnyStore::Sqlite(store) => store.unsafe_settings(),
            AnyStore::Mysql(store) => store.unsafe_settings(),
        }
    }
}
