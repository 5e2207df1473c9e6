//! The store of a shard: what survives `kill -9`, behind one trait with two real implementations.
//!
//! It stands apart because central decides and this remembers. A batch is one transaction that begins with a
//! conditional update of the shard's lease row, so that an owner that was deposed, a lost batch and a repeated batch
//! are all noticed by the very transaction that would do harm. Nothing here knows connections, HTTP or stream frames.

mod callback;
mod durability;
mod encode;
mod epoch;
mod error;
pub mod history;
mod json;
mod migrate;
mod mysql;
mod names;
mod provider_tokens;
mod push;
mod read;
mod sqlite;
mod store;
mod tables;
mod tallies;
mod upkeep;
mod url;

pub use callback::{
    BatchCallbacks, CallbackEvent, CallbackId, CallbackLogFrom, CallbackLogRow, CallbackProgress,
    CallbackRetry, CallbackRow, CallbackState, CallbacksKept, SealedSecret,
};
pub use durability::UnsafeSetting;
pub use epoch::{Holding, Verdict, judge_claim};
pub use error::{CommitError, StoreError};
pub use mysql::MysqlStore;
pub use provider_tokens::ProviderTokenId;
pub use push::{JobState, PushJobRow, PushTimesRow, Retry, RunKind};
pub use sqlite::SqliteStore;
pub use store::{
    AnyStore, EpochClaim, IDEMPOTENCY_KEY_BYTES_MAX, IdempotencyRow, Opening, ReceiptRow, Store,
    StoreBatch,
};
pub use tallies::{BookRow, CountRow, CountSpan, ForgetCounts, OldCounts, Tallies, Tally};
pub use upkeep::{BatchUpkeep, Committed, Erase, ForgetKeys, Kept};
pub use url::{StoreOptions, StoreUrl, StoreUrlError};
