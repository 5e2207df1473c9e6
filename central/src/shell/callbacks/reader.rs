//! Reads the callbacks' log, for all endpoints and the admin API by one connection to the store.

use std::time::Duration;

use carillon_persist::{AnyStore, CallbackLogFrom, CallbackLogRow, Store as _, StoreError};
use carillon_world::ShardId;
use tokio::sync::{mpsc, oneshot};

use crate::config::StoreConfig;
use crate::shell::opening::open_store;

/// Readings that wait; whoever asks for one more waits to ask.
const ASKS_MAX: usize = 64;
/// How long a store that is away may hold up those who ask.
const CONNECT_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Ask {
    from: CallbackLogFrom,
    bytes_max: u64,
    reply: oneshot::Sender<Result<Vec<CallbackLogRow>, ReadError>>,
}

/// Why nothing was read; the log says more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the log of callbacks cannot be read")]
pub(crate) struct ReadError;

#[derive(Clone, Debug)]
pub(crate) struct LogReader(mpsc::Sender<Ask>);

#[derive(Debug)]
pub(crate) struct Asks(mpsc::Receiver<Ask>);

impl LogReader {
    pub(crate) fn new() -> (LogReader, Asks) {
        let (sender, receiver) = mpsc::channel(ASKS_MAX);
        (LogReader(sender), Asks(receiver))
    }

    /// As [`Store::callback_log`](carillon_persist::Store::callback_log).
    pub(crate) async fn read(
        &self,
        from: CallbackLogFrom,
        bytes_max: u64,
    ) -> Result<Vec<CallbackLogRow>, ReadError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Ask { from, bytes_max, reply }).await.map_err(|_| ReadError)?;
        answer.await.map_err(|_| ReadError)?
    }
}

/// Answers until nobody can ask any more.
pub(super) async fn serve(mut asks: Asks, store: StoreConfig, shard: ShardId) {
    let config = StoreConfig { connect_timeout: store.connect_timeout.min(CONNECT_MAX), ..store };
    let mut open: Option<AnyStore> = None;
    while let Some(Ask { from, bytes_max, reply }) = asks.0.recv().await {
        let read = match open.take() {
            Some(store) => Ok(store),
            None => open_store(&config).await.map_err(|error| error.to_string()),
        };
        let read = match read {
            Ok(mut store) => {
                let read: Result<_, StoreError> = store.callback_log(shard, from, bytes_max).await;
                if read.is_ok() {
                    open = Some(store);
                }
                read.map_err(|error| error.to_string())
            }
            Err(error) => Err(error),
        };
        let read = read.map_err(|error| {
            tracing::warn!(error, "the log of callbacks cannot be read; callbacks wait");
            ReadError
        });
        // Whoever asked may be gone.
        let _ = reply.send(read);
    }
}
