//! Rows as a Parquet file.
//!
//! The columns, of version 1. All ids and tags are lower-case hexadecimal, as everywhere outside:
//!
//! | column | type | |
//! |---|---|---|
//! | `shard` | INT32 | |
//! | `epoch` | INT64 | number of the epoch |
//! | `epoch_tag` | STRING | 16 digits |
//! | `event_seq` | INT64 | with the two before it, names the event for ever |
//! | `change_seq` | INT64, may be null | the change that it tells of |
//! | `happened_at` | TIMESTAMP(MILLIS, UTC) | |
//! | `event` | STRING | |
//! | `app` | STRING, may be null | 16 digits |
//! | `device` | STRING, may be null | 32 digits, a pseudonym |
//! | `message` | STRING, may be null | 16 digits |
//! | `data` | STRING | a JSON object |
//!
//! The rows of a file rise by (`shard`, `epoch`, `event_seq`).

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow_array::builder::{Int64Builder, StringBuilder, TimestampMillisecondBuilder};
use arrow_array::{
    ArrayRef, DictionaryArray, Int8Array, Int32Array, RecordBatch, StringArray, types::Int8Type,
};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use carillon_world::ShardId;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::columns::{Columns, FolderRows};
use super::{LAKE_SCHEMA, Shape};

/// The key under which a file says of what version its columns are.
pub(super) const SCHEMA_KEY: &str = "carillon.schema";
/// Rows turned into Arrow at once, so that besides the file itself little is in memory.
const BATCH_ROWS: usize = 8192;
/// One in a hundred row groups is read in vain.
const BLOOM_FALSE: f64 = 0.01;

pub(super) const SHARD: &str = "shard";
pub(super) const EPOCH: &str = "epoch";
pub(super) const EPOCH_TAG: &str = "epoch_tag";
pub(super) const EVENT_SEQ: &str = "event_seq";
pub(super) const CHANGE_SEQ: &str = "change_seq";
/// Not `at`, which has to be quoted in DuckDB.
pub(super) const AT: &str = "happened_at";
pub(super) const EVENT: &str = "event";
pub(super) const APP: &str = "app";
pub(super) const DEVICE: &str = "device";
pub(super) const MESSAGE: &str = "message";
pub(super) const DATA: &str = "data";

static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    // Built with one entry for all rows of a batch; plain text in the file.
    let constant = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    let at = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let columns = [
        (SHARD, DataType::Int32, false),
        (EPOCH, DataType::Int64, false),
        (EPOCH_TAG, constant.clone(), false),
        (EVENT_SEQ, DataType::Int64, false),
        (CHANGE_SEQ, DataType::Int64, true),
        (AT, at, false),
        (EVENT, constant.clone(), false),
        (APP, constant, true),
        (DEVICE, DataType::Utf8, true),
        (MESSAGE, DataType::Utf8, true),
        (DATA, DataType::Utf8, false),
    ];
    let fields = columns.map(|(name, of, nullable)| Field::new(name, of, nullable));
    Arc::new(Schema::new(fields.to_vec()))
});

/// Some rows of a folder, counted over all its shards, as a file.
pub(super) fn encode(
    of: &FolderRows,
    rows: Range<usize>,
    shape: Shape,
) -> Result<Vec<u8>, ParquetError> {
    let options = ArrowWriterOptions::new()
        .with_properties(properties(rows.len(), shape)?)
        .with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), SCHEMA.clone(), options)?;
    let mut begins = 0;
    for (shard, columns) in &of.shards {
        let ends = begins + columns.rows();
        let (from, to) = (rows.start.max(begins), rows.end.min(ends));
        let mut left = from.saturating_sub(begins)..to.saturating_sub(begins);
        while !left.is_empty() {
            let (epoch, same) = columns.same_epoch(left.clone());
            let part = same.start..same.end.min(same.start + BATCH_ROWS);
            left.start = part.end;
            writer.write(&batch(of, *shard, columns, epoch, part)?)?;
        }
        begins = ends;
    }
    writer.into_inner()
}

fn properties(rows: usize, shape: Shape) -> Result<WriterProperties, ParquetError> {
    let column = |name: &str| ColumnPath::from(name);
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(shape.zstd_level)?))
        .set_max_row_group_row_count(Some(shape.row_group_rows_max))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_key_value_metadata(Some(vec![KeyValue::new(
            SCHEMA_KEY.to_owned(),
            LAKE_SCHEMA.to_string(),
        )]))
        .set_column_statistics_enabled(column(DATA), EnabledStatistics::None)
        .set_column_dictionary_enabled(column(DEVICE), false);
    // They rise or nearly do: differences of neighbours.
    for rising in [EVENT_SEQ, CHANGE_SEQ, AT] {
        builder = builder
            .set_column_dictionary_enabled(column(rising), false)
            .set_column_encoding(column(rising), Encoding::DELTA_BINARY_PACKED);
    }
    for looked_up in [DEVICE, MESSAGE] {
        let values = rows.min(shape.row_group_rows_max) as u64;
        builder = builder
            .set_column_bloom_filter_enabled(column(looked_up), true)
            .set_column_bloom_filter_fpp(column(looked_up), BLOOM_FALSE)
            .set_column_bloom_filter_max_ndv(column(looked_up), values);
    }
    Ok(builder.build())
}

fn batch(
    of: &FolderRows,
    shard: ShardId,
    columns: &Columns,
    epoch: carillon_world::Epoch,
    part: Range<usize>,
) -> Result<RecordBatch, ParquetError> {
    let rows = part.len();
    let mut seqs = Int64Builder::with_capacity(rows);
    let mut changes = Int64Builder::with_capacity(rows);
    let mut ats = TimestampMillisecondBuilder::with_capacity(rows).with_timezone("UTC");
    let mut devices = StringBuilder::with_capacity(rows, rows * 32);
    let mut messages = StringBuilder::with_capacity(rows, rows * 16);
    let mut data = StringBuilder::with_capacity(rows, 0);
    let mut digits = [0; 32];
    for row in part.map(|row| columns.row(row)) {
        seqs.append_value(row.seq.cast_signed());
        changes.append_option(row.change.map(u64::cast_signed));
        ats.append_value(row.at.cast_signed());
        devices.append_option(row.device.map(|of| hex(&of.to_be_bytes(), &mut digits)));
        messages.append_option(row.message.map(|of| hex(&of.to_be_bytes(), &mut digits)));
        data.append_value(row.data);
    }
    let app = of.folder.app.map(|app| format!("{:016x}", app.get()));
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_value(i32::from(shard.get()), rows)),
        Arc::new(arrow_array::Int64Array::from_value(epoch.number.cast_signed(), rows)),
        constant(Some(&format!("{:016x}", epoch.tag)), rows)?,
        Arc::new(seqs.finish()),
        Arc::new(changes.finish()),
        Arc::new(ats.finish()),
        constant(Some(of.folder.event.as_str()), rows)?,
        constant(app.as_deref(), rows)?,
        Arc::new(devices.finish()),
        Arc::new(messages.finish()),
        Arc::new(data.finish()),
    ];
    Ok(RecordBatch::try_new(SCHEMA.clone(), arrays)?)
}

/// The same text, or none, in all rows.
fn constant(text: Option<&str>, rows: usize) -> Result<ArrayRef, ParquetError> {
    let keys = match text {
        Some(_) => Int8Array::from_value(0, rows),
        None => Int8Array::new_null(rows),
    };
    let values = Arc::new(StringArray::from_iter_values(text));
    Ok(Arc::new(DictionaryArray::<Int8Type>::try_new(keys, values)?))
}

fn hex<'a>(bytes: &[u8], digits: &'a mut [u8; 32]) -> &'a str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(digits.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    std::str::from_utf8(&digits[..bytes.len() * 2]).expect("digits")
}
