//! The commits of one source, as objects: see [`super`] for the rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use carillon_world::{Epoch, Seq, ShardId};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};

use super::names::{Source, number_of};
use super::{LakeError, ShardTail};

/// How many requests for objects are under way at once. A remote store answers each after 10 to 100 ms.
pub(super) const REQUESTS_MAX: usize = 8;
/// How often a writer that resumes is outrun by others before it gives up.
const CLAIMS_MAX: usize = 16;
/// The greatest version of a commit that this program can go on from.
const COMMIT_VERSION: u16 = 1;

#[derive(Clone, Debug)]
pub(super) struct Chain {
    store: Arc<dyn ObjectStore>,
    /// Where it is, if that is a folder.
    local: Option<Arc<std::path::Path>>,
    source: Source,
}

/// One link of the chain, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Commit {
    pub(super) v: u16,
    pub(super) n: u64,
    /// Random, of the writer that made it: 16 hexadecimal digits.
    pub(super) writer: String,
    /// How far the source has been taken, in its own numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<u64>,
    pub(super) rows: u64,
    pub(super) files: Vec<CommitFile>,
    shards: BTreeMap<u16, CommitTail>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CommitFile {
    pub(super) staged: String,
    pub(super) path: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct CommitTail {
    epoch: u64,
    /// 16 hexadecimal digits, since many readers of JSON have no whole numbers of 64 bits.
    tag: String,
    seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    change: Option<u64>,
}

pub(super) type Tails = BTreeMap<ShardId, ShardTail>;

impl Commit {
    pub(super) fn new(n: u64, writer: u64, end: Option<u64>, tails: &Tails) -> Commit {
        let shard = |(shard, tail): (&ShardId, &ShardTail)| {
            let tail = CommitTail {
                epoch: tail.epoch.number,
                tag: format!("{:016x}", tail.epoch.tag),
                seq: tail.seq,
                change: tail.change.map(|seq| seq.get()),
            };
            (shard.get(), tail)
        };
        Commit {
            v: COMMIT_VERSION,
            n,
            writer: format!("{writer:016x}"),
            end,
            rows: 0,
            files: Vec::new(),
            shards: tails.iter().map(shard).collect(),
        }
    }

    pub(super) fn tails(&self) -> Tails {
        let shard = |(shard, tail): (&u16, &CommitTail)| {
            let tag = u64::from_str_radix(&tail.tag, 16).expect("checked when it was read");
            let epoch = Epoch { number: tail.epoch, tag };
            let change = tail.change.map(Seq::new);
            (ShardId::new(*shard), ShardTail { epoch, seq: tail.seq, change })
        };
        self.shards.iter().map(shard).collect()
    }

    /// Its files that are among those staged.
    fn left(&self, staged: &[Path]) -> Vec<&CommitFile> {
        let is_left = |file: &&CommitFile| staged.iter().any(|p| p.as_ref() == file.staged);
        self.files.iter().filter(is_left).collect()
    }

    fn parse(text: &[u8], n: u64) -> Result<Commit, String> {
        let commit: Commit = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if commit.v == 0 || commit.v > COMMIT_VERSION {
            return Err(format!("a commit of version {}, which is not known here", commit.v));
        }
        if commit.n != n {
            return Err(format!("it says that it is number {}", commit.n));
        }
        let is_tag = |tail: &CommitTail| u64::from_str_radix(&tail.tag, 16).is_ok();
        let is_path = |path: &str| Path::parse(path).is_ok();
        if !commit.shards.values().all(is_tag)
            || !commit.files.iter().all(|file| is_path(&file.staged) && is_path(&file.path))
        {
            return Err("a tag or path in it is none".to_owned());
        }
        Ok(commit)
    }
}

impl Chain {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        local: Option<Arc<std::path::Path>>,
        source: Source,
    ) -> Chain {
        Chain { store, local, source }
    }

    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn fenced(&self, n: u64) -> LakeError {
        LakeError::Fenced { source_name: self.source.to_string(), n }
    }

    pub(super) async fn newest(&self) -> Result<Option<Commit>, LakeError> {
        for _ in 0..CLAIMS_MAX {
            let Some(n) = self.numbers().await?.into_iter().max() else { return Ok(None) };
            // Nothing, if its writer has made so many since that it was removed.
            if let Some(commit) = self.commit(n).await? {
                return Ok(Some(commit));
            }
        }
        Err(self.fenced(0))
    }

    /// The newest commit of which readers see all files; `None` if there is none, or it was removed meanwhile.
    pub(super) async fn published(&self) -> Result<Option<Commit>, LakeError> {
        let Some(newest) = self.newest().await? else { return Ok(None) };
        // Staged before the commit was made: what is not there any more is where readers look.
        if newest.left(&self.staged().await?).is_empty() {
            return Ok(Some(newest));
        }
        // Of the one before they saw all before this one was made.
        match newest.n {
            0 | 1 => Ok(None),
            n => self.commit(n - 1).await,
        }
    }

    /// Makes a commit of its own, the newest, and tidies up behind the writer before.
    pub(super) async fn resume(&self, commits_kept: u64) -> Result<Commit, LakeError> {
        let writer = rand::random();
        for _ in 0..CLAIMS_MAX {
            let before = self.newest().await?;
            // What its commit names was staged before the commit was made, so this sees it.
            let staged = self.staged().await?;
            if let Some(before) = &before {
                self.publish(before.left(&staged)).await?;
            }
            let n = before.as_ref().map_or(1, |commit| commit.n + 1);
            let end = before.as_ref().and_then(|commit| commit.end);
            let tails = before.map(|commit| commit.tails()).unwrap_or_default();
            let claim = Commit::new(n, writer, end, &tails);
            match self.create(&claim).await {
                Ok(()) => {}
                Err(LakeError::Fenced { .. }) => continue,
                Err(error) => return Err(error),
            }
            // Of none that comes after this commit: its writer may be about to make it.
            // What was killed in the middle of a put HDFS shows as `.<name>.tmp.<number>`.
            let of = |path: &Path| number_of(name(path).trim_start_matches('.'));
            let is_over = |path: &Path| of(path).is_some_and(|staged| staged <= n);
            self.delete(staged.into_iter().filter(is_over)).await?;
            self.sweep(n).await;
            let too_old = n.saturating_sub(commits_kept);
            let old = self.numbers().await?.into_iter().filter(|old| *old <= too_old);
            self.delete(old.map(|old| self.source.commit(old))).await?;
            return Ok(claim);
        }
        Err(self.fenced(0))
    }

    /// Makes a commit if there is none of its number, and it is to be the newest. After
    /// [`LakeError::Unavailable`] it may be there or come to be there: the very same one is to be made again.
    pub(super) async fn create(&self, commit: &Commit) -> Result<(), LakeError> {
        let path = self.source.commit(commit.n);
        let text = serde_json::to_vec(commit).expect("numbers and texts, written to memory");
        let made = self.store.put_opts(&path, PutPayload::from(text), PutMode::Create.into()).await;
        match made {
            Ok(_) => {}
            // By someone else, or by an attempt of ours whose answer was lost.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                if self.commit(commit.n).await?.as_ref() != Some(commit) {
                    return Err(self.fenced(commit.n));
                }
            }
            Err(error) => return Err(LakeError::unavailable("make the commit", path, error)),
        }
        // If so, either this one is as it should be and another has resumed after it, or it took the place of one
        // that was removed for its age. Both ways the caller is no longer the writer.
        let mut later = self.store.list_with_offset(Some(&self.source.commits()), &path);
        let later = later.try_next().await;
        let later = later
            .map_err(|error| LakeError::unavailable("look for later commits than", &path, error))?;
        match later.and_then(|meta| number_of(name(&meta.location))) {
            Some(later) => Err(self.fenced(later)),
            None => Ok(()),
        }
    }

    /// Lets readers see the files of a commit. May be done again, and by several at once.
    pub(super) async fn publish(
        &self,
        files: impl IntoIterator<Item = &CommitFile>,
    ) -> Result<(), LakeError> {
        all(files.into_iter().map(|file| self.publish_one(file).boxed()).collect()).await
    }

    async fn publish_one(&self, file: &CommitFile) -> Result<(), LakeError> {
        let (staged, path) = (Path::from(file.staged.as_str()), Path::from(file.path.as_str()));
        match self.store.rename(&staged, &path).await {
            Ok(()) => Ok(()),
            Err(Error::NotFound { .. }) => match self.store.head(&path).await {
                Ok(_) => Ok(()),
                Err(Error::NotFound { .. }) => {
                    Err(LakeError::damaged(path, "it was committed, and is not there"))
                }
                Err(error) => Err(LakeError::unavailable("look for", path, error)),
            },
            // HDFS says of a file that is renamed already only that something went wrong.
            Err(error) => match self.is_renamed(&staged, &path).await {
                true => Ok(()),
                false => Err(LakeError::unavailable("rename a staged file to", path, error)),
            },
        }
    }

    async fn is_renamed(&self, from: &Path, to: &Path) -> bool {
        matches!(self.store.head(from).await, Err(Error::NotFound { .. }))
            && self.store.head(to).await.is_ok()
    }

    /// Removes a commit that is too old to matter. What is left behind goes when the source is next resumed.
    pub(super) async fn forget(&self, n: u64) {
        if let Err(error) = self.delete([self.source.commit(n)]).await {
            tracing::debug!(%error, n, "an old commit of the history lake stays for a while");
        }
    }

    /// Removes what processes that were killed in the middle of a put left in a folder: `<name>#<number>`, which the
    /// store itself does not list. Up to a number, like all that was staged.
    async fn sweep(&self, up_to: u64) {
        let Some(local) = self.local.clone() else { return };
        let folders = [self.source.staging(), self.source.commits()];
        let sweep = move || {
            for folder in folders {
                let Ok(entries) = std::fs::read_dir(local.join(folder.as_ref())) else { continue };
                for entry in entries.flatten() {
                    let name = entry.file_name();
                    let is_left = name.to_str().is_some_and(|name| {
                        name.contains('#') && number_of(name).is_some_and(|n| n <= up_to)
                    });
                    if is_left && let Err(error) = std::fs::remove_file(entry.path()) {
                        tracing::debug!(%error, ?name, "a part of a file stays in the history lake");
                    }
                }
            }
        };
        // It panics nowhere, and would only leave more behind.
        let _ = tokio::task::spawn_blocking(sweep).await;
    }

    async fn commit(&self, n: u64) -> Result<Option<Commit>, LakeError> {
        let path = self.source.commit(n);
        let read = match self.store.get(&path).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        match read {
            Ok(text) => match Commit::parse(&text, n) {
                Ok(commit) => Ok(Some(commit)),
                Err(detail) => Err(LakeError::damaged(path, detail)),
            },
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(LakeError::unavailable("read", path, error)),
        }
    }

    async fn numbers(&self) -> Result<Vec<u64>, LakeError> {
        let commits = self.list(&self.source.commits()).await?;
        Ok(commits.iter().filter_map(|path| number_of(name(path))).collect())
    }

    async fn staged(&self) -> Result<Vec<Path>, LakeError> {
        self.list(&self.source.staging()).await
    }

    async fn list(&self, folder: &Path) -> Result<Vec<Path>, LakeError> {
        let found = self.store.list(Some(folder)).map_ok(|meta| meta.location).try_collect().await;
        found.map_err(|error| LakeError::unavailable("list", folder, error))
    }

    async fn delete(&self, paths: impl IntoIterator<Item = Path>) -> Result<(), LakeError> {
        all(paths.into_iter().map(|path| self.delete_one(path).boxed()).collect()).await
    }

    async fn delete_one(&self, path: Path) -> Result<(), LakeError> {
        match self.store.delete(&path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(LakeError::unavailable("delete", path, error)),
        }
    }
}

/// In any order, some at once. Boxed, as the compiler otherwise cannot see that it is `Send`.
async fn all(requests: Vec<BoxFuture<'_, Result<(), LakeError>>>) -> Result<(), LakeError> {
    stream::iter(requests).buffer_unordered(REQUESTS_MAX).try_collect::<()>().await
}

fn name(path: &Path) -> &str {
    path.filename().unwrap_or_default()
}
