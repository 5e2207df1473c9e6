//! Who else hears what the outbox holds, before the history forgets it there.

use carillon_persist::history::{OutboxEvent, OutboxRow};

use super::PublishError;
use crate::shell::callbacks::CallbackFollower;

pub(super) struct Followers {
    pub(super) callbacks: Option<CallbackFollower>,
}

impl Followers {
    /// Rows of the outbox with their events, each row perhaps more than once. What a follower is to keep it has when this
    /// returns.
    ///
    /// # Errors
    /// If the rows have to be told again.
    pub(super) async fn take(
        &mut self,
        rows: &[(&OutboxRow, Vec<OutboxEvent<'_>>)],
    ) -> Result<(), PublishError> {
        if let Some(callbacks) = &self.callbacks {
            callbacks.take(rows).await?;
        }
        Ok(())
    }
}
