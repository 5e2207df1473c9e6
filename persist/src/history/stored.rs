//! The outbox as the tables of either store hold it.
//!
//! Each `SELECT` stands beside the function that reads its columns.

use carillon_world::{AppId, DeviceId, Epoch};

use super::{OutboxKept, OutboxRow, Pseudonym, PseudonymRow};
use crate::StoreError;
use crate::json::Damage;
use crate::read::{Columns, in_table};

fn blob(columns: &mut impl Columns, index: usize) -> Result<Vec<u8>, Damage> {
    columns.opt_blob(index)?.ok_or_else(|| format!("column {index} is NULL"))
}

/// One parameter: the shard.
pub(crate) const SELECT_EVENT_HEAD: &str = "SELECT head FROM event_heads WHERE shard = ?";

/// Two parameters, both the shard.
pub(crate) const SELECT_OUTBOX_KEPT: &str = "SELECT CAST(COALESCE((SELECT head FROM event_heads WHERE shard = ?), 0) AS UNSIGNED), \
                                             CAST(COALESCE((SELECT SUM(bytes) FROM outbox WHERE shard = ?), 0) AS UNSIGNED)";

/// Rows whose sizes are looked at before they are read.
const OUTBOX_ROWS_MAX: usize = 4_096;

/// Parameters: the shard and the event after which they come.
pub(crate) fn select_outbox_sizes() -> String {
    format!(
        "SELECT first_event, bytes FROM outbox WHERE shard = ? AND first_event > ? ORDER BY first_event \
         LIMIT {OUTBOX_ROWS_MAX}"
    )
}

/// Parameters: the shard, and the first events of the first and last row.
pub(crate) const SELECT_OUTBOX: &str = "SELECT first_event, epoch_number, epoch_tag, events, payload FROM outbox \
                                        WHERE shard = ? AND first_event BETWEEN ? AND ? ORDER BY first_event";

/// Parameters: the shard and the number of an epoch; [`outbox_size`] reads it.
pub(crate) const SELECT_OUTBOX_AFTER_EPOCH: &str = "SELECT first_event, epoch_number FROM outbox \
                                                    WHERE shard = ? AND epoch_number > ? ORDER BY first_event LIMIT 1";

/// Two numbers of a row, such as its first event and its bytes.
pub(crate) fn outbox_size(columns: &mut impl Columns) -> Result<(u64, u64), StoreError> {
    let mut read = || Ok((columns.int(0)?, columns.int(1)?));
    in_table("outbox", read())
}

/// The first and the last row to read of these, each its first event and its bytes.
pub(crate) fn outbox_range(sizes: &[(u64, u64)], bytes_max: u64) -> Option<(u64, u64)> {
    let mut bytes = 0_u64;
    let fits = |(_, size): &&(u64, u64)| {
        bytes += size;
        bytes <= bytes_max
    };
    let first = sizes.first()?.0;
    Some((first, sizes.iter().take_while(fits).last().map_or(first, |(last, _)| *last)))
}

pub(crate) fn outbox(columns: &mut impl Columns) -> Result<OutboxRow, StoreError> {
    let mut read = || {
        Ok(OutboxRow {
            first: columns.int(0)?,
            epoch: Epoch { number: columns.int(1)?, tag: columns.int(2)? },
            events: u32::try_from(columns.int(3)?).map_err(|error| error.to_string())?,
            payload: blob(columns, 4)?.into(),
        })
    };
    in_table("outbox", read())
}

/// One parameter: the shard. Ids are written as the store's integers by `id`. Of each device the newest first.
pub(crate) fn select_pseudonyms(app: AppId, devices: &[DeviceId], id: fn(u64) -> String) -> String {
    let ids: Vec<String> = devices.iter().map(|device| id(device.get())).collect();
    format!(
        "SELECT app, device, since, pseudonym FROM device_pseudonyms WHERE shard = ? AND app = {} AND device IN ({}) \
         ORDER BY device, since DESC",
        id(app.get()),
        ids.join(", ")
    )
}

pub(crate) fn pseudonym(columns: &mut impl Columns) -> Result<PseudonymRow, StoreError> {
    let mut read = || {
        let bytes = blob(columns, 3)?;
        let bytes = bytes.try_into().map_err(|_| "it is not 16 bytes".to_owned())?;
        Ok(PseudonymRow {
            app: AppId::new(columns.int(0)?),
            device: DeviceId::new(columns.int(1)?),
            since: columns.int(2)?,
            pseudonym: Pseudonym::new(bytes),
        })
    };
    in_table("device_pseudonyms", read())
}

pub(crate) fn outbox_kept(columns: &mut impl Columns) -> Result<OutboxKept, StoreError> {
    let mut read = || Ok(OutboxKept { head: columns.int(0)?, bytes: columns.int(1)? });
    in_table("outbox", read())
}

/// Devices of one statement.
const DEVICES_MAX: usize = 1_000;

/// Some at a time, each time of one app.
pub(crate) fn by_app(devices: &mut [(AppId, DeviceId)]) -> Vec<(AppId, Vec<DeviceId>)> {
    devices.sort_unstable();
    let of_app = devices.chunk_by(|a, b| a.0 == b.0).flat_map(|alike| alike.chunks(DEVICES_MAX));
    of_app.map(|some| (some[0].0, some.iter().map(|(_, device)| *device).collect())).collect()
}
