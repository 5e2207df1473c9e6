//! What can go wrong with a store, by what the caller does next.

use std::error::Error;
use std::time::Duration;

use carillon_world::{Epoch, Lineage, Seq, ShardId};

use crate::UnsafeSetting;
use crate::durability::listed;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or said no. Trying again later is right.
    #[error("{attempted}")]
    Unavailable {
        /// What was attempted.
        attempted: &'static str,
        source: Box<dyn Error + Send + Sync>,
    },
    /// As `Unavailable`, but it did not even answer.
    #[error("{attempted}: no answer within {after:?}")]
    Timeout { attempted: &'static str, after: Duration },
    /// Another owner began an epoch. Never retried: this process must give the shard up.
    #[error("shard {shard} belongs to another owner: {held:?} was to be held")]
    Fenced {
        shard: ShardId,
        held: Epoch,
        /// As it is in the store, so that the end of the epoch once held can be read from it.
        lineage: Option<Lineage>,
    },
    /// What was read cannot have been written by us.
    #[error(
        "the store is damaged: table {table}: {detail}: restore a backup from before that, or mend it by hand while \
         central is stopped"
    )]
    Damaged { table: &'static str, detail: String },
    /// The database says that its own files are damaged. Never retried.
    #[error("could not {attempted}, because the database itself is damaged: restore a backup")]
    Corrupt { attempted: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error(
        "the store's schema is version {found}, and this release knows versions up to {known}: start the release that \
         migrated it, or restore a backup made before that"
    )]
    NewerSchema { found: u32, known: u32 },
    #[error(
        "the store may lose what it has acknowledged: {}; set it right, or allow it with --central-allow-unsafe-store true",
        listed(.settings)
    )]
    Unsafe { settings: Vec<UnsafeSetting> },
    /// What was to be written has no form in the store: a fault of the caller.
    #[error("this cannot be stored: {detail}")]
    Invalid { detail: String },
}

impl StoreError {
    pub(crate) fn unavailable(
        attempted: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> StoreError {
        StoreError::Unavailable { attempted, source: source.into() }
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> StoreError {
        StoreError::Invalid { detail: detail.into() }
    }
}

/// What became of a batch that was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Certainly not committed.
    #[error("the batch was refused")]
    Refused { source: StoreError },
    /// COMMIT was on its way. Begin an epoch that holds the present one: `Opening::head` tells.
    #[error("the outcome of the batch is unknown")]
    Unknown { source: StoreError },
    /// Certainly not committed, nor will any later batch be: the lease is another's, or the head is elsewhere.
    #[error(
        "shard {shard} is fenced: the batch has {ours:?} after {head}, the store has {theirs:?} at {found}"
    )]
    Fenced { shard: ShardId, ours: Epoch, head: Seq, theirs: Epoch, found: Seq },
}
