//! A shard out of MySQL, over several connections.
//!
//! Devices are nearly all there is, so they are read in slices of their primary key; each loader has a connection of
//! its own and takes the next slice when it is done with one. The connections see the same, because nobody but the
//! owner writes; that the owner is still the owner is looked at again when everything is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use carillon_world::{AppId, Row, Seq, ShardId};
use mysql_async::prelude::Queryable;
use mysql_async::{Opts, Params};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::link::{Fields, Link, within};
use super::{MysqlStore, lease};
use crate::read::{DEVICES, Reader, SOURCES, Source, TALLIES, tally, unchanged};
use crate::{StoreError, StoreOptions, Tally};

/// Rows read under one time limit, and then handed on together.
const LOAD_CHUNK_ROWS: usize = 512;
/// Chunks that wait for whoever takes them.
const LOAD_CHUNKS_MAX: usize = 8;
/// Slices of one app's devices. Ids are random, so they are about even.
const SLICES: u64 = 16;
/// With more apps than this the slices are of apps.
const APPS_SLICED_MAX: usize = 256;

const ATTEMPTED: &str = "load from the store";
/// Sees one state of the store to its end.
const BEGIN: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
                     START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// Rows on their way to whoever loads; after a fault nothing comes.
type Chunks = mpsc::Sender<Result<Vec<Row>, StoreError>>;

/// Devices from `first` to `last`, both included, each an app and a device. Either one app, or whole apps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slice {
    first: (u64, u64),
    last: (u64, u64),
}

impl MysqlStore {
    pub(super) async fn load_all(
        &mut self,
        shard: ShardId,
        sink: &mut (dyn FnMut(Row) + Send),
    ) -> Result<(), StoreError> {
        let mut link = self.take().await?;
        let before = lease(&mut link, shard).await?;
        link.run(BEGIN).await.map_err(|failure| failure.into_error(ATTEMPTED))?;
        let mut reader = Reader::new(before);
        for source in &SOURCES {
            let limit = self.options.read_timeout;
            let (select, params) = ((source, source.select), (shard.get(),).into());
            stream(&mut link, select, params, limit, &mut reader, Out::Sink(sink)).await?;
        }
        let beside = reader.beside();
        reader.finish()?;
        link.run("COMMIT").await.map_err(|failure| failure.into_error(ATTEMPTED))?;
        self.link = Some(link);

        let slices: Arc<[Slice]> = slices(beside.apps().collect()).into();
        let next = Arc::new(AtomicUsize::new(0));
        let (chunks, mut inbox) = mpsc::channel(LOAD_CHUNKS_MAX);
        let mut loaders = JoinSet::new();
        for _ in 0..self.options.loaders.get() {
            let (opts, options) = (self.opts.clone(), self.options.clone());
            let (slices, next, chunks) = (slices.clone(), next.clone(), chunks.clone());
            let reader = beside.beside();
            loaders.spawn(async move {
                let loaded =
                    load_devices(opts, options, shard, &slices, &next, reader, &chunks).await;
                if let Err(error) = loaded {
                    // Whoever loads went away if it is not wanted.
                    let _ = chunks.send(Err(error)).await;
                }
            });
        }
        drop(chunks);
        while let Some(rows) = inbox.recv().await {
            // At a fault the other loaders end with their set.
            rows?.into_iter().for_each(&mut *sink);
        }
        while let Some(ended) = loaders.join_next().await {
            ended.map_err(|error| StoreError::unavailable(ATTEMPTED, error))?;
        }
        let mut link = self.take().await?;
        let after = lease(&mut link, shard).await?;
        self.link = Some(link);
        unchanged(shard, before, after)
    }
}

impl MysqlStore {
    pub(super) async fn load_all_tallies(
        &mut self,
        shard: ShardId,
        sink: &mut (dyn FnMut(Tally) + Send),
    ) -> Result<(), StoreError> {
        let limit = self.options.read_timeout;
        let mut link = self.take().await?;
        let head = lease(&mut link, shard).await?.map_or(Seq::ZERO, |(_, head, _)| head);
        for source in &TALLIES {
            let rows = link.conn.exec_iter(source.select, (shard.get(),));
            let mut rows = within(ATTEMPTED, limit, rows).await?;
            loop {
                let next = async {
                    let mut chunk = Vec::with_capacity(LOAD_CHUNK_ROWS);
                    while chunk.len() < LOAD_CHUNK_ROWS
                        && let Some(row) = rows.next().await?
                    {
                        chunk.push(row);
                    }
                    Ok(chunk)
                };
                let chunk = within(ATTEMPTED, limit, next).await?;
                let finished = chunk.len() < LOAD_CHUNK_ROWS;
                for row in chunk {
                    sink(tally(source.table, &mut Fields(row), head)?);
                }
                if finished {
                    break;
                }
            }
        }
        self.link = Some(link);
        Ok(())
    }
}

/// Slices that together have every key there can be, so that devices of an app that is not known are met as well.
fn slices(mut apps: Vec<AppId>) -> Vec<Slice> {
    apps.sort_unstable();
    let mut slices = Vec::new();
    let mut whole = |from: u64, to: Option<u64>| {
        if let Some(to) = to.filter(|to| from <= *to) {
            slices.push(Slice { first: (from, 0), last: (to, u64::MAX) });
        }
    };
    if apps.len() > APPS_SLICED_MAX {
        let mut from = Some(0);
        for group in apps.chunks(apps.len().div_ceil(APPS_SLICED_MAX)) {
            let to = group.last().map_or(u64::MAX, |app| app.get());
            if let Some(from) = from {
                whole(from, Some(to));
            }
            from = to.checked_add(1);
        }
        if let Some(from) = from {
            whole(from, Some(u64::MAX));
        }
        return slices;
    }
    let mut from = Some(0);
    for app in &apps {
        if let Some(from) = from {
            whole(from, app.get().checked_sub(1));
        }
        from = app.get().checked_add(1);
    }
    if let Some(from) = from {
        whole(from, Some(u64::MAX));
    }
    for app in apps.iter().map(|app| app.get()) {
        let step = u64::MAX / SLICES + 1;
        slices.extend(
            (0..SLICES)
                .map(|n| Slice { first: (app, n * step), last: (app, n * step + (step - 1)) }),
        );
    }
    slices
}

async fn load_devices(
    opts: Opts,
    options: StoreOptions,
    shard: ShardId,
    slices: &[Slice],
    next: &AtomicUsize,
    mut reader: Reader,
    chunks: &Chunks,
) -> Result<(), StoreError> {
    let mut link = Link::open(&opts, &options).await?;
    link.run(BEGIN).await.map_err(|failure| failure.into_error(ATTEMPTED))?;
    // The key is named, because the server may take the index of seqs for better.
    let select = DEVICES
        .select
        .replace("+shard", "shard")
        .replace("FROM devices", "FROM devices FORCE INDEX (PRIMARY)");
    let of_app = format!("{select} AND app = ? AND device >= ? AND device <= ?");
    let of_apps = format!("{select} AND app >= ? AND app <= ?");
    while let Some(Slice { first, last }) = slices.get(next.fetch_add(1, Ordering::Relaxed)) {
        let (select, params): (_, Params) = if first.0 == last.0 {
            (&of_app, (shard.get(), first.0, first.1, last.1).into())
        } else {
            (&of_apps, (shard.get(), first.0, last.0).into())
        };
        let (limit, out) = (options.read_timeout, Out::Send(chunks));
        stream(&mut link, (&DEVICES, select), params, limit, &mut reader, out).await?;
    }
    Ok(())
}

/// Where rows go.
enum Out<'a> {
    Sink(&'a mut (dyn FnMut(Row) + Send)),
    Send(&'a Chunks),
}

/// Reads every row of a select, in chunks that each come within the time limit.
async fn stream(
    link: &mut Link,
    (source, select): (&Source, &str),
    params: Params,
    limit: Duration,
    reader: &mut Reader,
    mut out: Out<'_>,
) -> Result<(), StoreError> {
    let rows = link.conn.exec_iter(select, params);
    let mut rows = within(ATTEMPTED, limit, rows).await?;
    loop {
        let next = async {
            let mut chunk = Vec::with_capacity(LOAD_CHUNK_ROWS);
            while chunk.len() < LOAD_CHUNK_ROWS
                && let Some(row) = rows.next().await?
            {
                chunk.push(row);
            }
            Ok(chunk)
        };
        let chunk = within(ATTEMPTED, limit, next).await?;
        let finished = chunk.len() < LOAD_CHUNK_ROWS;
        let mut read = Vec::with_capacity(chunk.len());
        for row in chunk {
            read.extend(reader.read(source.table, &mut Fields(row))?);
        }
        match &mut out {
            Out::Sink(sink) => read.into_iter().for_each(sink),
            Out::Send(chunks) => {
                let gone = |_| StoreError::unavailable(ATTEMPTED, "the loader went away");
                chunks.send(Ok(read)).await.map_err(gone)?;
            }
        }
        if finished {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many apps there are, every key is in one slice and in no other.
    #[test]
    fn slices_have_every_key_once() {
        let ids = |count: u64| -> Vec<AppId> {
            (0..count).map(|n| AppId::new(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
        };
        let ends = vec![AppId::new(0), AppId::new(u64::MAX), AppId::new(7), AppId::new(8)];
        for apps in [vec![], ids(1), ends, ids(256), ids(257), ids(5_000)] {
            let mut slices = slices(apps.clone());
            slices.sort_unstable_by_key(|slice| slice.first);
            let mut expected = Some((0, 0));
            for Slice { first, last } in slices {
                assert_eq!(Some(first), expected, "{} apps", apps.len());
                assert!(first.0 == last.0 || (first.1 == 0 && last.1 == u64::MAX));
                expected = match last.1.checked_add(1) {
                    Some(device) => Some((last.0, device)),
                    None => last.0.checked_add(1).map(|app| (app, 0)),
                };
            }
            assert_eq!(expected, None, "{} apps: up to the last key", apps.len());
        }
    }
}
