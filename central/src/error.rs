//! Why central does not start, or stops. What a caller did wrong is a [`Problem`](crate::core::problem::Problem).

use std::net::SocketAddr;
use std::path::PathBuf;

use carillon_persist::StoreError;
use carillon_world::{ApplyError, ShardId};

#[derive(Debug, thiserror::Error)]
pub enum CentralError {
    /// All faults of the configuration, one a line.
    #[error("configuration: {}", .0.join("; "))]
    Config(Vec<String>),
    #[error("listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// Certificate or key that cannot be used.
    #[error("use the stream's certificate and key")]
    Tls { source: Box<dyn std::error::Error + Send + Sync> },
    /// A file of certificates to trust that cannot be used.
    #[error("trust the certificates of {}", path.display())]
    Roots { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("start threads")]
    Threads(#[source] std::io::Error),
    #[error("open the store")]
    Store(#[from] StoreError),
    /// The store's rows do not make a world: damaged, or changed by hand.
    #[error(
        "the store's rows of shard {shard} do not fit together: restore a backup, or mend by hand what is named here"
    )]
    Load { shard: ShardId, source: ApplyError },
    /// The history knows changes that the store does not: it was restored from a backup, or is another one.
    #[error(
        "the store of shard {shard} lost changes: it ends at change {head} and event {events}, and the history knows \
         change {change} and event {event} of epoch {epoch}. If that is so because it was restored from a backup, start once with --history-accept-restore: what was \
         lost is then cut off in a new epoch, which the history says as well"
    )]
    Restored { shard: ShardId, head: u64, events: u64, change: u64, event: u64, epoch: u64 },
    /// A fork is to be told, and the history does not say from where.
    #[error(
        "the history of shard {shard} does not answer, and only it knows what a restore cut off: start again once it does, or, \
         if nothing was restored, without --history-accept-restore"
    )]
    NoWitness { shard: ShardId },
    /// Another owner has the shard, or its database is not what this process opened. Start anew to take it again.
    #[error("shard {shard} was taken by another owner")]
    Fenced { shard: ShardId },
    /// A task of central panicked, which is a fault of ours.
    #[error("task {name} panicked")]
    Panicked { name: &'static str },
}
