//! How requests and links hand their writes to the task that owns the shard, and wait for what became of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::shared::Shared;
use crate::core::problem::{self, Problem};
use crate::core::write::{Answer, Write};

/// Writes that wait to be decided; the writer bounds what waits to be committed.
pub(super) const COMMANDS_MAX: usize = 1024;

/// A write on its way to the task.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) write: Write,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// How tasks reach the writer.
#[derive(Clone, Debug)]
pub(crate) struct WriteHandle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    timeout: Duration,
}

/// A write that was handed over.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Or why it was not handed over.
    reply: Result<oneshot::Receiver<Answer>, Problem>,
    shared: Arc<Shared>,
    deadline: tokio::time::Instant,
}

impl WriteHandle {
    pub(super) fn new(
        shared: Arc<Shared>,
        timeout: Duration,
    ) -> (WriteHandle, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        (WriteHandle { commands, shared, timeout }, receiver)
    }

    /// Has a write decided and committed. Dropping the future does not undo the write.
    pub(crate) async fn write(&self, write: Write) -> Answer {
        self.begin(write).await.answer().await
    }

    /// Hands a write over. Those of one caller are decided in the order in which they are handed over.
    pub(crate) async fn begin(&self, write: Write) -> Waiting {
        let deadline = tokio::time::Instant::now() + self.timeout;
        let (reply, receiver) = oneshot::channel();
        let sent =
            tokio::time::timeout_at(deadline, self.commands.send(Command { write, reply })).await;
        let reply = match sent {
            Ok(Ok(())) => Ok(receiver),
            Ok(Err(_)) => Err(problem::unavailable()),
            Err(_) => Err(problem::overloaded()),
        };
        Waiting { reply, shared: self.shared.clone(), deadline }
    }
}

impl Waiting {
    pub(crate) async fn answer(self) -> Answer {
        let problem = match self.reply {
            Ok(receiver) => match tokio::time::timeout_at(self.deadline, receiver).await {
                Ok(Ok(answer)) => return answer,
                // Too late, or the writer gave up: the batch may yet turn out to be durable.
                Ok(Err(_)) | Err(_) => problem::outcome_unknown(),
            },
            Err(problem) => problem,
        };
        Answer { result: Err(problem), at: self.shared.world().position() }
    }
}
