//! Rows that wait to be written, a column a field, so that taking one allocates nothing of its own.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use carillon_world::{Epoch, ShardId};

use super::names::{Folder, Hour};
use crate::history::Record;

/// About what a folder takes for itself, in bytes, however few rows it has.
const FOLDER_BYTES: usize = 1024;
/// What a row takes but for its data: six numbers, a pseudonym and the flags.
const ROW_BYTES: usize = 5 * 8 + 16 + 1;

const HAS_CHANGE: u8 = 1;
const HAS_DEVICE: u8 = 2;
const HAS_MESSAGE: u8 = 4;

/// By folder and shard.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    parts: HashMap<(Folder, ShardId), Columns>,
    rows: usize,
    data_bytes: usize,
}

/// Of one folder and shard, in the shard's order.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// Each with the row that it begins at.
    epochs: Vec<(usize, Epoch)>,
    seqs: Vec<u64>,
    changes: Vec<u64>,
    ats: Vec<u64>,
    devices: Vec<u128>,
    messages: Vec<u64>,
    flags: Vec<u8>,
    data: String,
    /// Where each row's data ends.
    data_ends: Vec<usize>,
}

/// A row of [`Columns`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) seq: u64,
    pub(super) change: Option<u64>,
    pub(super) at: u64,
    pub(super) device: Option<u128>,
    pub(super) message: Option<u64>,
    pub(super) data: &'a str,
}

/// All rows for one folder; the shards rise.
#[derive(Debug)]
pub(super) struct FolderRows {
    pub(super) folder: Folder,
    pub(super) shards: Vec<(ShardId, Columns)>,
}

impl Buffer {
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// About what it holds in memory.
    pub(super) fn bytes(&self) -> usize {
        self.data_bytes + self.rows * ROW_BYTES + self.parts.len() * FOLDER_BYTES
    }

    pub(super) fn push(&mut self, record: &Record) {
        let hour = Hour::of(record.at);
        let folder = Folder { app: record.app, event: record.event.clone(), hour };
        let columns = self.parts.entry((folder, record.id.shard)).or_default();
        columns.push(record);
        self.rows += 1;
        self.data_bytes += record.data.get().len();
    }

    pub(super) fn into_folders(self) -> Vec<FolderRows> {
        let mut folders: BTreeMap<Folder, Vec<(ShardId, Columns)>> = BTreeMap::new();
        for ((folder, shard), columns) in self.parts {
            folders.entry(folder).or_default().push((shard, columns));
        }
        let sorted = |(folder, mut shards): (Folder, Vec<(ShardId, Columns)>)| {
            shards.sort_by_key(|(shard, _)| *shard);
            FolderRows { folder, shards }
        };
        folders.into_iter().map(sorted).collect()
    }
}

impl FolderRows {
    pub(super) fn rows(&self) -> usize {
        self.shards.iter().map(|(_, columns)| columns.rows()).sum()
    }
}

impl Columns {
    pub(super) fn rows(&self) -> usize {
        self.seqs.len()
    }

    fn push(&mut self, record: &Record) {
        if self.epochs.last().is_none_or(|(_, last)| *last != record.id.epoch) {
            self.epochs.push((self.rows(), record.id.epoch));
        }
        let mut flags = 0;
        let mut flag = |bit, has| flags |= if has { bit } else { 0 };
        flag(HAS_CHANGE, record.change.is_some());
        flag(HAS_DEVICE, record.device.is_some());
        flag(HAS_MESSAGE, record.message.is_some());
        self.seqs.push(record.id.seq);
        self.changes.push(record.change.map_or(0, |seq| seq.get()));
        self.ats.push(record.at.0);
        self.devices.push(record.device.map_or(0, |device| u128::from_be_bytes(*device.bytes())));
        self.messages.push(record.message.map_or(0, |message| message.get()));
        self.flags.push(flags);
        self.data.push_str(record.data.get());
        self.data_ends.push(self.data.len());
    }

    pub(super) fn row(&self, row: usize) -> Row<'_> {
        let has = |bit| self.flags[row] & bit != 0;
        let begin = if row == 0 { 0 } else { self.data_ends[row - 1] };
        Row {
            seq: self.seqs[row],
            change: has(HAS_CHANGE).then(|| self.changes[row]),
            at: self.ats[row],
            device: has(HAS_DEVICE).then(|| self.devices[row]),
            message: has(HAS_MESSAGE).then(|| self.messages[row]),
            data: &self.data[begin..self.data_ends[row]],
        }
    }

    /// The part of some rows that is of one epoch, from the first of them. Not empty, as they are not.
    pub(super) fn same_epoch(&self, rows: Range<usize>) -> (Epoch, Range<usize>) {
        let at = self.epochs.partition_point(|(begins, _)| *begins <= rows.start);
        let (_, epoch) = self.epochs[at - 1];
        let end = self.epochs.get(at).map_or(rows.end, |(begins, _)| rows.end.min(*begins));
        (epoch, rows.start..end)
    }
}
