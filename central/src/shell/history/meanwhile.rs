//! While the history takes nothing, those who follow it hear what happens all the same.
//!
//! Nothing leaves the outbox meanwhile. Once the history is there again it is read anew from where it was, and what those
//! who follow were told already they know again.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::followers::Followers;
use super::reading::{READ_BYTES, Reading};
use super::{LINGER, LOOK_AGAIN, PublishError, Publisher, open_store};

/// What the history takes for less time than this is not read twice.
const GRACE: Duration = Duration::from_secs(1);

pub(super) struct Meanwhile {
    of: Arc<Publisher>,
    /// Kept until the history has taken something: so each row is read once for those who follow, however often the
    /// history is tried.
    reading: Option<Reading>,
}

impl Meanwhile {
    pub(super) fn new(of: Arc<Publisher>) -> Meanwhile {
        Meanwhile { of, reading: None }
    }

    /// The history has what `Meanwhile` read, or will be told it anyway.
    pub(super) fn end(&mut self) {
        self.reading = None;
    }

    /// Does what may take the history long. Those who follow know everything up to `from`, if it is said.
    pub(super) async fn during<T>(
        &mut self,
        from: Option<&Reading>,
        followers: &mut Followers,
        work: impl Future<Output = T>,
    ) -> T {
        let over = Notify::new();
        let work = work.inspect(|_| over.notify_one());
        let (done, ()) = tokio::join!(work, self.tell(from, followers, over.notified()));
        done
    }

    /// Tells those who follow what happens, until something is over.
    pub(super) async fn tell(
        &mut self,
        from: Option<&Reading>,
        followers: &mut Followers,
        over: impl Future<Output = ()>,
    ) {
        let mut over = pin!(over);
        let mut changed = self.of.shared.subscribe();
        if timeout(GRACE, over.as_mut()).await.is_ok() {
            return;
        }
        loop {
            changed.mark_unchanged();
            // Never cut short, as one of them may have heard what another has not.
            let told = match followers.is_anybody() {
                true => self.next(from, followers).await,
                false => Ok(0),
            };
            let pause = match told {
                Ok(bytes) if bytes >= READ_BYTES / 2 => Duration::ZERO,
                Ok(_) => {
                    let quiet = timeout(LOOK_AGAIN, changed.changed());
                    tokio::select! {
                        () = &mut over => return,
                        _ = quiet => LINGER,
                    }
                }
                // Whoever tries the history says so, as it needs the same store.
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "the outbox cannot be read"
                    );
                    self.reading = None;
                    LOOK_AGAIN
                }
            };
            if timeout(pause, over.as_mut()).await.is_ok() {
                return;
            }
        }
    }

    async fn next(
        &mut self,
        from: Option<&Reading>,
        followers: &mut Followers,
    ) -> Result<u64, PublishError> {
        let reading = match &mut self.reading {
            Some(reading) => reading,
            none => {
                let store = open_store(&self.of.store).await?;
                none.insert(match from {
                    Some(from) => from.fork(store),
                    None => Reading::new(self.of.clone(), store),
                })
            }
        };
        Ok(reading.next(followers, false).await?.map_or(0, |piece| piece.bytes))
    }
}
