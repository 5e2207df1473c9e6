//! The one that writes what comes from a source.

use std::ops::Range;
use std::sync::Arc;

use carillon_world::{Epoch, ShardId};
use futures_util::stream::{self, StreamExt};
use object_store::{ObjectStoreExt, PutPayload};
use tokio::sync::Semaphore;

use super::chain::{Chain, Commit, CommitFile, REQUESTS_MAX, Tails};
use super::columns::{Buffer, FolderRows};
use super::encode::encode;
use super::{LakeError, Shape, ShardTail};
use crate::history::Record;

/// Takes the records of one source and puts them into the lake, each once. See [`super`] for how.
///
/// What was pushed and not committed is gone with it; the source has to tell it again, from [`LakeWriter::end`].
#[derive(Debug)]
pub struct LakeWriter {
    chain: Chain,
    shape: Shape,
    commits_kept: u64,
    /// Random, so that what two writers stage under one number differs in name.
    token: u64,
    /// The newest commit.
    n: u64,
    end: Option<u64>,
    /// Of all that was committed or pushed.
    tails: Tails,
    buffer: Buffer,
    /// A commit that was begun. It is ended before the next is thought of.
    pending: Option<Pending>,
    fenced_by: Option<u64>,
}

/// What one [`LakeWriter::commit`] wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    pub files: usize,
    pub rows: u64,
    /// Of the files.
    pub bytes: u64,
}

#[derive(Debug)]
struct Pending {
    commit: Commit,
    folders: Arc<Vec<FolderRows>>,
    /// What each file of the commit holds: the folder's place and some of its rows.
    parts: Vec<(usize, Range<usize>)>,
    staged: Vec<bool>,
    rows: usize,
    bytes: usize,
    /// The commit exists; readers may not see all of its files yet.
    is_committed: bool,
}

impl LakeWriter {
    pub(super) fn new(chain: Chain, shape: Shape, commits_kept: u64, newest: Commit) -> LakeWriter {
        LakeWriter {
            chain,
            shape,
            commits_kept,
            token: rand::random(),
            n: newest.n,
            end: newest.end,
            tails: newest.tails(),
            buffer: Buffer::default(),
            pending: None,
            fenced_by: None,
        }
    }

    /// How far the source has been taken, as the newest commit was told; `None` before the first.
    pub fn end(&self) -> Option<u64> {
        self.end
    }

    /// The greatest record of a shard that was pushed or committed: epoch and number of the event.
    pub fn last(&self, shard: ShardId) -> Option<(Epoch, u64)> {
        self.tails.get(&shard).map(|tail| (tail.epoch, tail.seq))
    }

    /// Takes a record, unless it has it already: false if it is not greater than the last of its shard.
    pub fn push(&mut self, record: &Record) -> bool {
        let tail = self.tails.get(&record.id.shard);
        if tail.is_some_and(|tail| record.id.order() <= tail.order()) {
            return false;
        }
        // Of this epoch: a fork counts on from less than what it cuts off.
        let last = tail.filter(|tail| tail.epoch == record.id.epoch).and_then(|tail| tail.change);
        let change = record.change.max(last);
        let tail = ShardTail { epoch: record.id.epoch, seq: record.id.seq, change };
        self.tails.insert(record.id.shard, tail);
        self.buffer.push(record);
        true
    }

    /// Rows that wait for a commit.
    pub fn rows(&self) -> usize {
        self.buffer.rows() + self.pending.as_ref().map_or(0, |pending| pending.rows)
    }

    /// About what they take in memory.
    pub fn bytes(&self) -> usize {
        self.buffer.bytes() + self.pending.as_ref().map_or(0, |pending| pending.bytes)
    }

    /// Puts all that was pushed into the lake and notes that the source has been taken to `end`. Does nothing if there
    /// is nothing to put and to note. Needs a runtime of tokio, whose blocking threads encode one file at a time; holds
    /// a few encoded files in memory.
    ///
    /// Dropping the future, like an error, leaves everything as it is for another call, with the same `end` or a
    /// greater one and with more pushed if need be.
    ///
    /// # Errors
    /// [`LakeError::Unavailable`]; [`LakeError::Fenced`], and then always, if another has resumed the source;
    /// [`LakeError::Damaged`] if a staged file is gone.
    pub async fn commit(&mut self, end: u64) -> Result<Committed, LakeError> {
        if let Some(n) = self.fenced_by {
            return Err(self.chain.fenced(n));
        }
        let mut done = self.end_pending().await?;
        if self.buffer.rows() > 0 || self.end != Some(end) {
            self.pending = Some(self.begin(end));
            done += self.end_pending().await?;
        }
        Ok(done)
    }

    /// Decides what the next commit is; nothing of it is changed later.
    fn begin(&mut self, end: u64) -> Pending {
        let (rows, bytes) = (self.buffer.rows(), self.buffer.bytes());
        let folders = std::mem::take(&mut self.buffer).into_folders();
        let n = self.n + 1;
        let mut commit = Commit::new(n, self.token, Some(end), &self.tails);
        commit.rows = rows as u64;
        let mut parts = Vec::new();
        for (at, folder) in folders.iter().enumerate() {
            let rows = folder.rows();
            for (part, from) in (0..rows).step_by(self.shape.file_rows_max).enumerate() {
                let part_rows = from..rows.min(from + self.shape.file_rows_max);
                let source = self.chain.source();
                commit.files.push(CommitFile {
                    staged: source.staged(n, self.token, parts.len()).to_string(),
                    path: source.file(&folder.folder, n, part).to_string(),
                    rows: part_rows.len() as u64,
                    bytes: 0,
                });
                parts.push((at, part_rows));
            }
        }
        let staged = vec![false; parts.len()];
        Pending {
            commit,
            folders: Arc::new(folders),
            parts,
            staged,
            rows,
            bytes,
            is_committed: false,
        }
    }

    async fn end_pending(&mut self) -> Result<Committed, LakeError> {
        let Some(pending) = &mut self.pending else { return Ok(Committed::default()) };
        let ended = pending.run(&self.chain, self.shape).await;
        if let Err(LakeError::Fenced { n, .. }) = &ended {
            self.fenced_by = Some(*n);
        }
        ended?;
        let commit = &pending.commit;
        let done = Committed {
            files: commit.files.len(),
            rows: commit.rows,
            bytes: commit.files.iter().map(|file| file.bytes).sum(),
        };
        (self.n, self.end) = (commit.n, commit.end);
        self.pending = None;
        if let Some(old) = self.n.checked_sub(self.commits_kept).filter(|old| *old > 0) {
            self.chain.forget(old).await;
        }
        Ok(done)
    }
}

impl Pending {
    async fn run(&mut self, chain: &Chain, shape: Shape) -> Result<(), LakeError> {
        if !self.is_committed {
            self.stage(chain, shape).await?;
            chain.create(&self.commit).await?;
            self.is_committed = true;
        }
        chain.publish(&self.commit.files).await
    }

    /// Puts the files that are not there yet where no reader looks.
    async fn stage(&mut self, chain: &Chain, shape: Shape) -> Result<(), LakeError> {
        // One processor is enough for a million rows in five seconds, and others need theirs.
        let encoder = Arc::new(Semaphore::new(1));
        let missing = (0..self.parts.len()).filter(|file| !self.staged[*file]);
        let puts: Vec<_> = missing
            .map(|file| {
                let (folder, rows) = self.parts[file].clone();
                let folders = self.folders.clone();
                let path = self.commit.files[file].staged.clone();
                let encoder = encoder.clone();
                async move {
                    let permit = encoder.acquire_owned().await.expect("it is never closed");
                    let encoded = tokio::task::spawn_blocking(move || {
                        let encoded = encode(&folders[folder], rows, shape);
                        drop(permit);
                        encoded
                    });
                    let failed = "encode a file for";
                    let encoded = encoded
                        .await
                        .map_err(|error| LakeError::unavailable(failed, &path, error))?
                        .map_err(|error| LakeError::unavailable(failed, &path, error))?;
                    let bytes = encoded.len() as u64;
                    let staged = path.as_str().into();
                    let put = chain.store().put(&staged, PutPayload::from(encoded)).await;
                    put.map_err(|error| LakeError::unavailable("put", path, error))?;
                    Ok((file, bytes))
                }
            })
            .collect();
        let mut puts = stream::iter(puts).buffer_unordered(REQUESTS_MAX);
        while let Some(put) = puts.next().await {
            let (file, bytes) = put?;
            self.commit.files[file].bytes = bytes;
            self.staged[file] = true;
        }
        Ok(())
    }
}

impl std::ops::AddAssign for Committed {
    fn add_assign(&mut self, more: Committed) {
        self.files += more.files;
        self.rows += more.rows;
        self.bytes += more.bytes;
    }
}
