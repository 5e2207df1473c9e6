//! A shard out of SQLite, by several threads.
//!
//! Devices are nearly all there is, so they are read in blocks of their row numbers, which is the order in which they
//! stand in the file; each thread has a connection of its own and takes the next block when it is done with one. The
//! connections see the same, because nobody but the owner writes; that the owner is still the owner is looked at again
//! when everything is read.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use carillon_world::{Row, Seq, ShardId};
use rusqlite::{Connection, OpenFlags, params};
use tokio::sync::mpsc;

use super::{Fields, LOAD_CHUNK_ROWS, Worker, down, lease};
use crate::read::{DEVICES, Reader, SOURCES, TALLIES, tally, unchanged};
use crate::{StoreError, Tally};

/// Rows that a thread takes at a time: a few dozen milliseconds of work.
const BLOCK_ROWS: i64 = 16_384;

const ATTEMPTED: &str = "load from the SQLite store";

impl Worker {
    pub(super) fn load(
        &mut self,
        shard: ShardId,
        chunks: &mpsc::Sender<Vec<Row>>,
    ) -> Result<(), StoreError> {
        let down = down(ATTEMPTED);
        let (loaders, path) = (self.loaders.get(), self.setup.path.clone());
        let connection = self.connection()?;
        let before = lease(connection, shard)?;
        let mut reader = Reader::new(before);
        let mut out = Chunks::new(chunks);
        for source in &SOURCES {
            let mut statement = connection.prepare(source.select).map_err(down)?;
            let mut rows = statement.query([shard.get()]).map_err(down)?;
            while let Some(row) = rows.next().map_err(down)? {
                if let Some(row) = reader.read(source.table, &mut Fields(row))? {
                    out.push(row)?;
                }
            }
        }
        let beside = reader.beside();
        reader.finish()?;
        out.send()?;
        let last: Option<i64> = connection
            .query_row("SELECT MAX(rowid) FROM devices", [], |row| row.get(0))
            .map_err(down)?;
        let blocks = Blocks {
            next: AtomicI64::new(0),
            last: last.unwrap_or(-1),
            stop: AtomicBool::new(false),
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..loaders)
                .map(|_| {
                    scope.spawn(|| {
                        blocks.stop_at_fault(load_devices(
                            &path,
                            shard,
                            &blocks,
                            beside.beside(),
                            chunks,
                        ))
                    })
                })
                .collect();
            let mut result =
                blocks.stop_at_fault(load_devices(&path, shard, &blocks, beside.beside(), chunks));
            for other in others {
                let ended = other.join();
                let ended = ended.unwrap_or_else(|_| {
                    Err(StoreError::unavailable(ATTEMPTED, "a thread of the loader panicked"))
                });
                result = result.and(ended);
            }
            result
        })?;
        unchanged(shard, before, lease(self.connection()?, shard)?)
    }

    pub(super) fn load_tallies(
        &mut self,
        shard: ShardId,
        chunks: &mpsc::Sender<Vec<Tally>>,
    ) -> Result<(), StoreError> {
        let down = down(ATTEMPTED);
        let connection = self.connection()?;
        let head = lease(connection, shard)?.map_or(Seq::ZERO, |(_, head, _)| head);
        let mut out = Chunks::new(chunks);
        for source in &TALLIES {
            let mut statement = connection.prepare(source.select).map_err(down)?;
            let mut rows = statement.query([shard.get()]).map_err(down)?;
            while let Some(row) = rows.next().map_err(down)? {
                out.push(tally(source.table, &mut Fields(row), head)?)?;
            }
        }
        out.send()
    }
}

/// Which rows are still to be read.
struct Blocks {
    next: AtomicI64,
    last: i64,
    /// Another thread met a fault.
    stop: AtomicBool,
}

impl Blocks {
    fn take(&self) -> Option<i64> {
        let from = self.next.fetch_add(BLOCK_ROWS, Ordering::Relaxed);
        (from <= self.last && !self.stop.load(Ordering::Relaxed)).then_some(from)
    }

    fn stop_at_fault<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        result
    }
}

fn load_devices(
    path: &Path,
    shard: ShardId,
    blocks: &Blocks,
    mut reader: Reader,
    chunks: &mpsc::Sender<Vec<Row>>,
) -> Result<(), StoreError> {
    let down = down(ATTEMPTED);
    // But for writing as the connection of the worker.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(path, flags).map_err(down)?;
    // One snapshot for all its blocks.
    connection.execute_batch("BEGIN").map_err(down)?;
    let select = format!("{} AND rowid >= ? AND rowid < ?", DEVICES.select);
    let mut statement = connection.prepare(&select).map_err(down)?;
    let mut out = Chunks::new(chunks);
    while let Some(from) = blocks.take() {
        let mut rows =
            statement.query(params![shard.get(), from, from + BLOCK_ROWS]).map_err(down)?;
        while let Some(row) = rows.next().map_err(down)? {
            if let Some(row) = reader.read(DEVICES.table, &mut Fields(row))? {
                out.push(row)?;
            }
        }
    }
    out.send()
}

/// Rows on their way to whoever loads, some at a time.
struct Chunks<'a, T> {
    chunk: Vec<T>,
    chunks: &'a mpsc::Sender<Vec<T>>,
}

impl<'a, T> Chunks<'a, T> {
    fn new(chunks: &'a mpsc::Sender<Vec<T>>) -> Chunks<'a, T> {
        Chunks { chunk: Vec::with_capacity(LOAD_CHUNK_ROWS), chunks }
    }

    fn push(&mut self, row: T) -> Result<(), StoreError> {
        self.chunk.push(row);
        if self.chunk.len() == LOAD_CHUNK_ROWS { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), StoreError> {
        let full = std::mem::replace(&mut self.chunk, Vec::with_capacity(LOAD_CHUNK_ROWS));
        let gone = |_| StoreError::unavailable(ATTEMPTED, "the loader went away");
        self.chunks.blocking_send(full).map_err(gone)
    }
}
