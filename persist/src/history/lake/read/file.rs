//! What a query asks for, out of one file, of which no more is fetched than that needs.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{
    Array, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow_schema::ArrowError;
use bytes::Bytes;
use carillon_world::{AppId, Epoch, MessageId, Millis, Seq, ShardId};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicate, ArrowPredicateFn, RowFilter};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataPushDecoder, RowGroupMetaData,
};
use parquet::file::statistics::Statistics;
use serde_json::value::RawValue;

use super::super::LakeError;
use super::super::encode::{
    APP, AT, CHANGE_SEQ, DATA, DEVICE, EPOCH, EPOCH_TAG, EVENT, EVENT_SEQ, MESSAGE, SCHEMA_KEY,
    SHARD,
};
use super::{Query, keep_first};
use crate::history::{EventName, Record, RecordId};

/// Fetched first: the whole of a small file, and the description of any.
const TAIL_BYTES: u64 = 64 * 1024;
const BATCH_ROWS: usize = 8192;

/// The records in a file that a query asks for, at most about twice its limit, in no particular order.
pub(super) async fn read(
    store: &dyn ObjectStore,
    meta: &ObjectMeta,
    query: &Query,
) -> Result<Vec<Record>, LakeError> {
    let file = File::open(store, meta).await?;
    let described = Arc::new(file.description().await?);
    let damaged = |error: ParquetError| LakeError::damaged(&meta.location, error);
    let version = described.file_metadata().key_value_metadata();
    let version = version.and_then(|pairs| pairs.iter().find(|pair| pair.key == SCHEMA_KEY));
    let version = version.and_then(|pair| pair.value.as_deref()?.parse::<u16>().ok());
    if version.is_none_or(|version| version == 0) {
        return Err(LakeError::damaged(&meta.location, "it says no version of its columns"));
    }
    let mut groups = Vec::new();
    for (at, group) in described.row_groups().iter().enumerate() {
        if file.may_have(group, query).await? {
            groups.push(at);
        }
    }
    let mut found = Vec::new();
    if groups.is_empty() {
        return Ok(found);
    }
    let mut decoder = decoder(described, groups, query).map_err(damaged)?;
    let mut events = HashMap::new();
    loop {
        match decoder.try_decode().map_err(damaged)? {
            DecodeResult::NeedsData(ranges) => {
                let data = file.fetch(&ranges).await?;
                decoder.push_ranges(ranges, data).map_err(damaged)?;
            }
            DecodeResult::Data(batch) => {
                records(&batch, &mut events, &mut found)
                    .map_err(|detail| LakeError::damaged(&meta.location, detail))?;
                if !query.forks.is_empty() {
                    found.retain(|record| query.is_true(record));
                }
                if found.len() > query.limit.saturating_mul(2) {
                    keep_first(&mut found, query.limit);
                }
            }
            DecodeResult::Finished => return Ok(found),
        }
    }
}

struct File<'a> {
    store: &'a dyn ObjectStore,
    meta: &'a ObjectMeta,
    tail_begins: u64,
    tail: Bytes,
}

impl<'a> File<'a> {
    async fn open(store: &'a dyn ObjectStore, meta: &'a ObjectMeta) -> Result<File<'a>, LakeError> {
        let tail_begins = meta.size.saturating_sub(TAIL_BYTES);
        let tail = store.get_range(&meta.location, tail_begins..meta.size).await;
        let tail = tail.map_err(|error| LakeError::unavailable("read", &meta.location, error))?;
        Ok(File { store, meta, tail_begins, tail })
    }

    async fn fetch(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, LakeError> {
        let is_here =
            |range: &Range<u64>| range.start >= self.tail_begins && range.end <= self.meta.size;
        let away: Vec<_> = ranges.iter().filter(|range| !is_here(range)).cloned().collect();
        let mut fetched = Vec::new();
        if !away.is_empty() {
            let got = self.store.get_ranges(&self.meta.location, &away).await;
            fetched =
                got.map_err(|error| LakeError::unavailable("read", &self.meta.location, error))?;
        }
        let mut fetched = fetched.into_iter();
        let parts = ranges.iter().map(|range| {
            if !is_here(range) {
                return fetched.next().unwrap_or_default();
            }
            let from = (range.start - self.tail_begins) as usize;
            let to = (range.end - self.tail_begins) as usize;
            self.tail.slice(from.min(to).min(self.tail.len())..to.min(self.tail.len()))
        });
        Ok(parts.collect())
    }

    async fn description(&self) -> Result<ParquetMetaData, LakeError> {
        let damaged = |error: ParquetError| LakeError::damaged(&self.meta.location, error);
        let mut decoder = ParquetMetaDataPushDecoder::try_new(self.meta.size).map_err(damaged)?;
        let tail = self.tail_begins..self.meta.size;
        decoder.push_range(tail, self.tail.clone()).map_err(damaged)?;
        loop {
            match decoder.try_decode().map_err(damaged)? {
                DecodeResult::Data(described) => return Ok(described),
                DecodeResult::NeedsData(ranges) => {
                    let data = self.fetch(&ranges).await?;
                    decoder.push_ranges(ranges, data).map_err(damaged)?;
                }
                DecodeResult::Finished => {
                    return Err(LakeError::damaged(&self.meta.location, "it has no description"));
                }
            }
        }
    }

    async fn may_have(&self, group: &RowGroupMetaData, query: &Query) -> Result<bool, LakeError> {
        if let Some(Statistics::Int64(of)) = column_of(group, AT).and_then(|of| of.statistics()) {
            let earliest = of
                .min_opt()
                .is_none_or(|min| query.until.is_none_or(|until| min.cast_unsigned() < until.0));
            let latest = of
                .max_opt()
                .is_none_or(|max| query.from.is_none_or(|from| from.0 <= max.cast_unsigned()));
            if !earliest || !latest {
                return Ok(false);
            }
        }
        for (name, text) in looked_up(query) {
            if !self.may_have_text(group, name, &text).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn may_have_text(
        &self,
        group: &RowGroupMetaData,
        name: &str,
        text: &str,
    ) -> Result<bool, LakeError> {
        let Some(column) = column_of(group, name) else { return Ok(false) };
        let at = column.bloom_filter_offset().and_then(|at| u64::try_from(at).ok());
        let length = column.bloom_filter_length().and_then(|length| u64::try_from(length).ok());
        let (Some(at), Some(length)) = (at, length) else { return Ok(true) };
        let range = at..at.saturating_add(length).min(self.meta.size).max(at);
        let fetched = self.fetch(&[range]).await?;
        let filter = Sbbf::from_bytes(&fetched[0])
            .map_err(|error| LakeError::damaged(&self.meta.location, error))?;
        Ok(filter.check(&text))
    }
}

fn column_of<'a>(group: &'a RowGroupMetaData, name: &str) -> Option<&'a ColumnChunkMetaData> {
    group.columns().iter().find(|column| column.column_path().string() == name)
}

/// The columns that have a Bloom filter, with what a query wants in them.
fn looked_up(query: &Query) -> Vec<(&'static str, String)> {
    let device = query.device.map(|device| (DEVICE, device.to_string()));
    let message = query.message.map(|message| (MESSAGE, format!("{:016x}", message.get())));
    device.into_iter().chain(message).collect()
}

fn decoder(
    described: Arc<ParquetMetaData>,
    groups: Vec<usize>,
    query: &Query,
) -> Result<ParquetPushDecoder, ParquetError> {
    let descr = described.file_metadata().schema_descr_ptr();
    let mut predicates: Vec<Box<dyn ArrowPredicate>> = Vec::new();
    for (name, text) in looked_up(query) {
        let is_it = move |batch: RecordBatch| {
            let column: &StringArray = column(&batch, name)?;
            Ok(column.iter().map(|of| Some(of == Some(text.as_str()))).collect::<BooleanArray>())
        };
        let mask = ProjectionMask::columns(&descr, [name]);
        predicates.push(Box::new(ArrowPredicateFn::new(mask, is_it)));
    }
    if query.from.is_some() || query.until.is_some() {
        let query = query.clone();
        let is_then = move |batch: RecordBatch| {
            let column: &TimestampMillisecondArray = column(&batch, AT)?;
            let wanted = |at: &i64| Some(query.wants_at(at.cast_unsigned()));
            Ok(column.values().iter().map(wanted).collect::<BooleanArray>())
        };
        let mask = ProjectionMask::columns(&descr, [AT]);
        predicates.push(Box::new(ArrowPredicateFn::new(mask, is_then)));
    }
    ParquetPushDecoderBuilder::try_new_decoder(described)?
        .with_batch_size(BATCH_ROWS)
        .with_row_groups(groups)
        .with_row_filter(RowFilter::new(predicates))
        .build()
}

fn column<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T, ArrowError> {
    let found = batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref());
    found.ok_or_else(|| ArrowError::SchemaError(format!("no column {name} of its type")))
}

fn records(
    batch: &RecordBatch,
    events: &mut HashMap<String, EventName>,
    found: &mut Vec<Record>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let shards: &Int32Array = column(batch, SHARD)?;
    let epochs: &Int64Array = column(batch, EPOCH)?;
    let tags: &StringArray = column(batch, EPOCH_TAG)?;
    let seqs: &Int64Array = column(batch, EVENT_SEQ)?;
    let changes: &Int64Array = column(batch, CHANGE_SEQ)?;
    let ats: &TimestampMillisecondArray = column(batch, AT)?;
    let names: &StringArray = column(batch, EVENT)?;
    let apps: &StringArray = column(batch, APP)?;
    let devices: &StringArray = column(batch, DEVICE)?;
    let messages: &StringArray = column(batch, MESSAGE)?;
    let data: &StringArray = column(batch, DATA)?;
    for row in 0..batch.num_rows() {
        let text = |of: &'_ StringArray| of.is_valid(row).then(|| of.value(row).to_owned());
        let id =
            |of: &StringArray| text(of).map(|digits| u64::from_str_radix(&digits, 16)).transpose();
        let name = names.value(row);
        let event = match events.get(name) {
            Some(event) => event.clone(),
            None => {
                let event: EventName = name.parse()?;
                events.insert(name.to_owned(), event.clone());
                event
            }
        };
        let tag = u64::from_str_radix(tags.value(row), 16)?;
        found.push(Record {
            id: RecordId {
                shard: ShardId::new(u16::try_from(shards.value(row))?),
                epoch: Epoch { number: epochs.value(row).cast_unsigned(), tag },
                seq: seqs.value(row).cast_unsigned(),
            },
            change: changes.is_valid(row).then(|| Seq::new(changes.value(row).cast_unsigned())),
            at: Millis(ats.value(row).cast_unsigned()),
            event,
            app: id(apps)?.map(AppId::new),
            device: text(devices).map(|digits| digits.parse()).transpose()?,
            message: id(messages)?.map(MessageId::new),
            data: RawValue::from_string(data.value(row).to_owned())?,
        });
    }
    Ok(())
}
