//! Which pseudonym a device has, for a reader of the history who knows the device.
//!
//! It only reads: it makes no file, migrates nothing, takes no shard, and a running central does not notice it.

use carillon_world::{AppId, DeviceId, ShardId};

use super::Pseudonym;
use crate::mysql::MysqlStore;
use crate::sqlite::SqliteStore;
use crate::{StoreError, StoreOptions, StoreUrl};

/// The pseudonym under which the history tells of a device; `None` if nothing was told of it yet, or it was forgotten.
///
/// # Errors
/// If the store cannot be reached, is none, or is older than the history.
pub async fn pseudonym_of(
    url: &StoreUrl,
    options: &StoreOptions,
    app: AppId,
    device: DeviceId,
) -> Result<Option<Pseudonym>, StoreError> {
    let found = match url {
        StoreUrl::Sqlite(path) => {
            let (path, patience) = (path.clone(), options.connect_timeout);
            let read = move || SqliteStore::peek_pseudonym(&path, patience, app, device);
            let read = tokio::task::spawn_blocking(read).await;
            read.map_err(|error| StoreError::unavailable("read pseudonyms", error))??
        }
        StoreUrl::Mysql(url) => MysqlStore::peek_pseudonym(url, options, app, device).await?,
    };
    Ok(found.map(|row| row.pseudonym))
}

/// All shards of a store, as its table says how many there are.
pub(crate) fn shards(count: u64) -> impl Iterator<Item = ShardId> {
    (0..u16::try_from(count).unwrap_or(u16::MAX)).map(ShardId::new)
}
