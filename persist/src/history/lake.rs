//! The lake: the history as Parquet files in folders that any tool for such files reads.
//!
//! It stands apart because it must take each record exactly once from sources that tell them more than once, from
//! processes that are killed at any moment, and from two that both believe to be the one that writes. All that it asks
//! of the place where it lies is to make an object only if there is none of that name, to rename one, and to list what
//! is there.
//!
//! # A chain of commits for each source
//!
//! A flush has a number `n`, one more than the last of its source, and these steps:
//!
//! 1. its files are put into `_staging/`, where no reader looks;
//! 2. `_commits/<source>/<n>.json` is made, unless it is there already. It names the files, how far the source has been
//!    taken and the last record of each shard. From here on the rows are in the lake; before, they are not;
//! 3. each file is renamed to where readers look. Only then may `n + 1` begin.
//!
//! A writer begins with [`Lake::resume`]: it reads the newest commit, does its step 3 again where it was left off, makes
//! the next commit, an empty one, and removes what is still staged under that number or a lower one.
//!
//! What always holds:
//! - Whoever makes commit `n` first is the only one whose files of `n` readers ever see. Others get
//!   [`LakeError::Fenced`]. The empty commit of a writer that resumes so ends all that others had staged, *before* it
//!   removes their files; files of a higher number are not its to remove, as a later writer may be about to commit them.
//! - If commit `n + 1` exists, then all files of `n` are where readers look. So only the newest needs looking after.
//! - Old commits are removed. So that one who slept through all of them cannot make theirs anew, a writer looks whether
//!   there is a later one before step 3.
//! - A file that readers see never changes, and its rows are in no other: at every moment a reader finds each row at
//!   most once, and after `resume` every committed row exactly once.

mod chain;
mod columns;
mod encode;
mod names;
mod place;
mod read;
#[cfg(test)]
mod tests;
mod writer;

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use carillon_world::{Epoch, Seq, ShardId};
use object_store::ObjectStore;

use chain::Chain;
use names::Source;

pub use place::{LakeOptions, LakeUrl, LakeUrlError, S3Options};
pub use read::{Fork, Query};
pub use writer::{Committed, LakeWriter};

/// The version of the columns, written into each file as `carillon.schema`. A greater one has more of them.
pub const LAKE_SCHEMA: u16 = 1;

/// A place with history in it. Cheap to clone.
#[derive(Clone)]
pub struct Lake {
    store: Arc<dyn ObjectStore>,
    /// Where it is, if that is a folder.
    local: Option<Arc<Path>>,
    shape: Shape,
    /// How many commits of a source are left for people to look at. At least 1.
    commits_kept: u64,
}

/// What files are to look like: see [`LakeOptions`].
#[derive(Clone, Copy, Debug)]
struct Shape {
    file_rows_max: usize,
    row_group_rows_max: usize,
    zstd_level: i32,
}

/// The last record of a shard that the lake has from one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardTail {
    pub epoch: Epoch,
    /// The event's number in its shard.
    pub seq: u64,
    /// The greatest change that any of the shard's records of this epoch tells of.
    pub change: Option<Seq>,
}

#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The options cannot be used.
    #[error("could not {attempted}")]
    Setup { attempted: &'static str, source: Box<dyn Error + Send + Sync> },
    #[error(
        "{0:?} is no name of a source: up to 100 lower-case letters, digits, dots, hyphens and underscores, no dot first"
    )]
    SourceName(String),
    /// The place cannot be reached or said no. The same call may be made again.
    #[error("could not {attempted} {path}")]
    Unavailable { attempted: &'static str, path: String, source: Box<dyn Error + Send + Sync> },
    /// Another writer has resumed this source. Never retried; who should write after all resumes it anew.
    #[error("another writer of the history from {source_name} made commit {n}")]
    Fenced { source_name: String, n: u64 },
    /// What was read cannot have been written by us.
    #[error("the lake is damaged: {path}: {detail}")]
    Damaged { path: String, detail: String },
}

impl Lake {
    /// # Errors
    /// [`LakeError::Setup`]. Whether a remote place can be reached is seen at its first use.
    pub fn open(options: &LakeOptions) -> Result<Lake, LakeError> {
        let setup =
            |attempted, detail: String| LakeError::Setup { attempted, source: detail.into() };
        if !(1..=22).contains(&options.zstd_level) {
            let detail = format!("{} is not from 1 to 22", options.zstd_level);
            return Err(setup("set the level of compression", detail));
        }
        if options.file_rows_max == 0 || options.row_group_rows_max == 0 {
            return Err(setup("set the rows of a file", "at least one".to_owned()));
        }
        Ok(Lake::over(options.open()?, options))
    }

    fn over(store: Arc<dyn ObjectStore>, options: &LakeOptions) -> Lake {
        let shape = Shape {
            file_rows_max: options.file_rows_max,
            row_group_rows_max: options.row_group_rows_max,
            zstd_level: options.zstd_level,
        };
        let local = match &options.url {
            LakeUrl::Local(path) => Some(path.as_path().into()),
            LakeUrl::S3 { .. } | LakeUrl::Hdfs { .. } => None,
        };
        Lake { store, local, shape, commits_kept: 100 }
    }

    /// Becomes the one that writes what comes from a source, a name such as `shard-0` of up to 100 lower-case letters,
    /// digits, dots, hyphens and underscores. Whoever was it before is [`LakeError::Fenced`] from here on.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`], after which it may be called again; [`LakeError::Fenced`] if others keep resuming
    /// the same source.
    pub async fn resume(&self, source: &str) -> Result<LakeWriter, LakeError> {
        let chain = self.chain(source)?;
        let newest = chain.resume(self.commits_kept).await?;
        Ok(LakeWriter::new(chain, self.shape, self.commits_kept, newest))
    }

    /// What the lake has of a shard, from one source, without becoming its writer.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`] or [`LakeError::Damaged`].
    pub async fn tail(&self, source: &str, shard: ShardId) -> Result<Option<ShardTail>, LakeError> {
        let newest = self.chain(source)?.newest().await?;
        Ok(newest.and_then(|commit| commit.tails().get(&shard).copied()))
    }

    /// How far a source has been taken, as far as readers see it: all up to there is where they look. The newest commit
    /// may be further, until its files are renamed. Does not become the source's writer.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`] or [`LakeError::Damaged`].
    pub async fn end(&self, source: &str) -> Result<Option<u64>, LakeError> {
        Ok(self.chain(source)?.published().await?.and_then(|commit| commit.end))
    }

    fn chain(&self, source: &str) -> Result<Chain, LakeError> {
        let source: Source = source.parse()?;
        Ok(Chain::new(self.store.clone(), self.local.clone(), source))
    }
}

impl ShardTail {
    /// By which the records of a shard rise.
    pub fn order(&self) -> (u64, u64) {
        (self.epoch.number, self.seq)
    }
}

impl LakeError {
    fn unavailable(
        attempted: &'static str,
        path: impl fmt::Display,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> LakeError {
        LakeError::Unavailable { attempted, path: path.to_string(), source: source.into() }
    }

    fn damaged(path: impl fmt::Display, detail: impl fmt::Display) -> LakeError {
        LakeError::Damaged { path: path.to_string(), detail: detail.to_string() }
    }
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lake({}, {:?})", self.store, self.shape)
    }
}
