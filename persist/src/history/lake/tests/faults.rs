//! A store over another that hurts one call, and looks at what readers see after each.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, Result,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::sync::Notify;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The call does nothing and fails.
    Fails,
    /// The call is carried out, but its answer is lost.
    Lost,
    /// The process ends before the call, or after it: no later one does anything.
    LastBefore,
    LastAfter,
    /// The process stands still before the call, or after it.
    WaitsBefore,
    WaitsAfter,
}

/// What a store makes of a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renames {
    AtOnce,
    /// As S3 does it, which knows no rename.
    ByCopy,
    /// As HDFS does it: where there is nothing to be renamed, it says only that something went wrong.
    Vaguely,
}

/// What the rows of a lake are named by: shard, epoch and number.
pub(super) type Id = (i32, i64, i64);

/// What all who share one place see of it.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) inner: Arc<InMemory>,
    /// With the tag of the object, since no file that was seen may change.
    known: Mutex<HashMap<Path, (usize, Vec<Id>)>>,
}

/// One process's way to a place.
#[derive(Clone, Debug)]
pub(super) struct Way(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Arc<Place>,
    renames: Renames,
    /// The call that is hurt, from 1.
    at: usize,
    fault: Fault,
    calls: AtomicUsize,
    is_dead: AtomicBool,
    reached: Notify,
    released: Notify,
}

impl Place {
    /// All rows that a reader finds. Panics if one is there twice, a file changed, or its rows do not rise.
    pub(super) async fn rows(&self) -> HashSet<Id> {
        let metas: Vec<ObjectMeta> = self.inner.list(None).try_collect().await.unwrap();
        let mut seen = HashSet::new();
        for meta in metas {
            let path = meta.location;
            if !path.as_ref().starts_with("app=") {
                continue;
            }
            assert!(path.as_ref().ends_with(".parquet"), "{path}");
            let bytes = self.inner.get(&path).await.unwrap().bytes().await.unwrap();
            let hash = bytes.iter().fold(7, |hash: usize, byte| {
                hash.wrapping_mul(31).wrapping_add(usize::from(*byte))
            });
            let mut known = self.known.lock().unwrap();
            let (then, ids) = known.entry(path.clone()).or_insert_with(|| (hash, ids(bytes)));
            assert_eq!(*then, hash, "{path} changed");
            for id in ids {
                assert!(seen.insert(*id), "{id:?} is there twice, and in {path}");
            }
        }
        seen
    }

    /// What is there besides the files that readers see, by folder.
    pub(super) async fn others(&self) -> BTreeMap<String, Vec<String>> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let metas: Vec<ObjectMeta> = self.inner.list(None).try_collect().await.unwrap();
        for meta in metas {
            let path = meta.location.to_string();
            let (folder, name) = path.split_once('/').unwrap();
            if folder.starts_with('_') {
                found.entry(folder.to_owned()).or_default().push(name.to_owned());
            }
        }
        found
    }
}

fn ids(file: Bytes) -> Vec<Id> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut ids = Vec::new();
    for batch in reader.map(|batch| batch.unwrap()) {
        let shards = batch.column_by_name("shard").unwrap().as_primitive::<Int32Type>();
        let epochs = batch.column_by_name("epoch").unwrap().as_primitive::<Int64Type>();
        let seqs = batch.column_by_name("event_seq").unwrap().as_primitive::<Int64Type>();
        ids.extend(
            (0..batch.num_rows())
                .map(|row| (shards.value(row), epochs.value(row), seqs.value(row))),
        );
    }
    assert!(ids.is_sorted(), "{ids:?}");
    ids
}

impl Way {
    pub(super) fn sound(place: &Arc<Place>, renames: Renames) -> Way {
        Way::hurt(place, renames, usize::MAX, Fault::Fails)
    }

    pub(super) fn hurt(place: &Arc<Place>, renames: Renames, at: usize, fault: Fault) -> Way {
        Way(Arc::new(Inner {
            place: place.clone(),
            renames,
            at,
            fault,
            calls: AtomicUsize::new(0),
            is_dead: AtomicBool::new(false),
            reached: Notify::new(),
            released: Notify::new(),
        }))
    }

    pub(super) fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.clone())
    }

    /// Whether the call that is hurt has come.
    pub(super) fn is_hurt(&self) -> bool {
        self.0.calls.load(Ordering::Relaxed) >= self.0.at
    }

    /// Comes back when the process stands still.
    pub(super) async fn reached(&self) {
        self.0.reached.notified().await;
    }

    pub(super) fn release(&self) {
        self.0.released.notify_one();
    }

    pub(super) fn calls(&self) -> usize {
        self.0.calls.load(Ordering::Relaxed)
    }

    async fn call<T>(&self, effect: impl Future<Output = Result<T>>) -> Result<T> {
        let inner = &self.0;
        if inner.is_dead.load(Ordering::Relaxed) {
            return Err(lost());
        }
        let is_hurt = inner.calls.fetch_add(1, Ordering::Relaxed) + 1 == inner.at;
        let fault = is_hurt.then_some(inner.fault);
        match fault {
            Some(Fault::Fails) => return Err(lost()),
            Some(Fault::LastBefore) => {
                inner.is_dead.store(true, Ordering::Relaxed);
                return Err(lost());
            }
            Some(Fault::WaitsBefore) => self.wait().await,
            _ => {}
        }
        let done = effect.await;
        inner.place.rows().await;
        match fault {
            Some(Fault::Lost) => Err(lost()),
            Some(Fault::LastAfter) => {
                inner.is_dead.store(true, Ordering::Relaxed);
                Err(lost())
            }
            Some(Fault::WaitsAfter) => {
                self.wait().await;
                done
            }
            _ => done,
        }
    }

    async fn wait(&self) {
        self.0.reached.notify_one();
        self.0.released.notified().await;
    }

    fn inner(&self) -> &Arc<InMemory> {
        &self.0.place.inner
    }

    fn listed(
        &self,
        list: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let way = self.clone();
        let all = async move {
            let all = way.call(async { list.try_collect::<Vec<_>>().await }).await?;
            Ok::<_, Error>(stream::iter(all.into_iter().map(Ok)))
        };
        stream::once(all).try_flatten().boxed()
    }
}

fn lost() -> Error {
    Error::Generic { store: "hurt", source: "no answer".into() }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a hurt store")
    }
}

/// The methods have the shape that `async_trait` gives them.
impl ObjectStore for Way {
    fn put_opts<'s, 'p, 'f>(
        &'s self,
        location: &'p Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Boxed<'f, Result<PutResult>>
    where
        's: 'f,
        'p: 'f,
    {
        Box::pin(self.call(self.inner().put_opts(location, payload, opts)))
    }

    fn put_multipart_opts<'s, 'p, 'f>(
        &'s self,
        location: &'p Path,
        opts: PutMultipartOptions,
    ) -> Boxed<'f, Result<Box<dyn MultipartUpload>>>
    where
        's: 'f,
        'p: 'f,
    {
        Box::pin(self.call(self.inner().put_multipart_opts(location, opts)))
    }

    fn get_opts<'s, 'p, 'f>(
        &'s self,
        location: &'p Path,
        options: GetOptions,
    ) -> Boxed<'f, Result<GetResult>>
    where
        's: 'f,
        'p: 'f,
    {
        Box::pin(self.call(self.inner().get_opts(location, options)))
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let way = self.clone();
        let delete = move |path: Path| {
            let way = way.clone();
            async move {
                way.call(way.inner().delete(&path)).await?;
                Ok(path)
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.inner().list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.inner().list_with_offset(prefix, offset))
    }

    fn list_with_delimiter<'s, 'p, 'f>(
        &'s self,
        prefix: Option<&'p Path>,
    ) -> Boxed<'f, Result<ListResult>>
    where
        's: 'f,
        'p: 'f,
    {
        Box::pin(self.call(self.inner().list_with_delimiter(prefix)))
    }

    fn copy_opts<'s, 'p, 'q, 'f>(
        &'s self,
        from: &'p Path,
        to: &'q Path,
        options: CopyOptions,
    ) -> Boxed<'f, Result<()>>
    where
        's: 'f,
        'p: 'f,
        'q: 'f,
    {
        Box::pin(self.call(self.inner().copy_opts(from, to, options)))
    }

    fn rename_opts<'s, 'p, 'q, 'f>(
        &'s self,
        from: &'p Path,
        to: &'q Path,
        options: RenameOptions,
    ) -> Boxed<'f, Result<()>>
    where
        's: 'f,
        'p: 'f,
        'q: 'f,
    {
        Box::pin(async move {
            if self.0.renames != Renames::ByCopy {
                let renamed = self.call(self.inner().rename_opts(from, to, options)).await;
                let is_vague = self.0.renames == Renames::Vaguely;
                return renamed.map_err(|error| match error {
                    Error::NotFound { .. } if is_vague => lost(),
                    error => error,
                });
            }
            self.copy_opts(from, to, CopyOptions::default()).await?;
            self.delete(from).await
        })
    }
}
