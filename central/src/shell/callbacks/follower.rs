//! From the outbox to the callbacks' log: each event that somebody of its app wants, as it will be sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carillon_persist::history::{OutboxEvent, OutboxRow};
use carillon_persist::{CallbackEvent, CallbackLogRow};
use carillon_world::{AppId, ShardId};

use crate::core::callback::render;
use crate::core::callback::state::Callbacks;
use crate::core::problem::{self, Problem};
use crate::core::write::{CallbackWrite, Write};
use crate::shell::shared::{CallbackView, Shared};
use crate::shell::write_handle::WriteHandle;

/// Bytes of a row of the log, about: what is read to try one event again.
const ROW_BYTES: usize = 64 * 1024;
/// Bytes of one write, about, so that it holds up nobody who commits with it.
const WRITE_BYTES: usize = 512 * 1024;
/// How long what was committed may take to be published.
const PUBLISHED_WAIT: Duration = Duration::from_secs(10);

type Told<'a> = (&'a OutboxRow, Vec<OutboxEvent<'a>>);

pub(crate) struct CallbackFollower {
    shared: Arc<Shared>,
    writes: WriteHandle,
}

impl CallbackFollower {
    pub(crate) fn new(shared: Arc<Shared>, writes: WriteHandle) -> CallbackFollower {
        CallbackFollower { shared, writes }
    }

    /// Whether anybody is to be called.
    pub(crate) fn is_anybody(&self) -> bool {
        !self.shared.callbacks().callbacks.is_empty()
    }

    /// When this returns, what is wanted of these rows is in the log.
    ///
    /// # Errors
    /// If the log could not be written; then the rows have to come again.
    pub(crate) async fn take(&self, rows: &[Told<'_>]) -> Result<(), Problem> {
        let Some((last, _)) = rows.last() else { return Ok(()) };
        let view = self.view_with(last.last()).await?;
        let callbacks = &view.callbacks;
        if callbacks.is_empty() {
            return Ok(());
        }
        let mut picked = Picked::default();
        for (row, events) in rows.iter().filter(|(row, _)| row.last() > callbacks.logged) {
            picked.add(self.shared.shard, callbacks, row, events);
            if picked.bytes >= WRITE_BYTES {
                self.write(picked.take(), row.last()).await?;
            }
        }
        self.write(picked.take(), last.last()).await
    }

    /// The endpoints as they were when the event `last` was told, or later. The store shows it a moment before it is
    /// published, and an endpoint that was made before the event is not to miss it.
    async fn view_with(&self, last: u64) -> Result<Arc<CallbackView>, Problem> {
        let mut published = self.shared.subscribe();
        let wait = async {
            loop {
                published.mark_unchanged();
                let view = self.shared.callbacks();
                if view.events >= last {
                    return Ok(view);
                }
                published.changed().await.map_err(|_| problem::unavailable())?;
            }
        };
        tokio::time::timeout(PUBLISHED_WAIT, wait).await.map_err(|_| problem::unavailable())?
    }

    async fn write(&self, rows: Vec<CallbackLogRow>, through: u64) -> Result<(), Problem> {
        if rows.is_empty() {
            return Ok(());
        }
        let write = CallbackWrite::Log { rows: rows.into(), through };
        self.writes.write(Write::Callback(Box::new(write))).await.result.map(|_| ())
    }
}

/// What is on its way into one write.
#[derive(Default)]
struct Picked {
    open: BTreeMap<AppId, OpenRow>,
    closed: Vec<CallbackLogRow>,
    bytes: usize,
}

#[derive(Default)]
struct OpenRow {
    events: Vec<Own>,
    bytes: usize,
}

struct Own {
    n: u64,
    at: carillon_world::Millis,
    id: String,
    kind: String,
    body: String,
}

impl OpenRow {
    fn close(&self, app: AppId) -> Option<CallbackLogRow> {
        let (first, last) = (self.events.first()?, self.events.last()?);
        let events: Vec<CallbackEvent<'_>> = self
            .events
            .iter()
            .map(|Own { n, at, id, kind, body }| CallbackEvent { n: *n, at: *at, id, kind, body })
            .collect();
        let payload = CallbackEvent::write(&events);
        Some(CallbackLogRow { app, first: first.n, last: last.n, first_at: first.at, payload })
    }
}

impl Picked {
    fn add(
        &mut self,
        shard: ShardId,
        callbacks: &Callbacks,
        row: &OutboxRow,
        events: &[OutboxEvent<'_>],
    ) {
        for (n, event) in (row.first..).zip(events) {
            let Some(app) = event.app.filter(|app| callbacks.is_wanted(*app, event.event)) else {
                continue;
            };
            let own = Own {
                n,
                at: event.at,
                id: render::event_id(shard, row.epoch, n),
                kind: event.event.to_owned(),
                body: render::body(event),
            };
            let bytes = own.id.len() + own.kind.len() + own.body.len();
            self.bytes += bytes;
            let open = self.open.entry(app).or_default();
            open.bytes += bytes;
            open.events.push(own);
            if open.bytes >= ROW_BYTES {
                self.closed.extend(open.close(app));
                *open = OpenRow::default();
            }
        }
    }

    fn take(&mut self) -> Vec<CallbackLogRow> {
        let Picked { open, closed, .. } = std::mem::take(self);
        let rest = open.iter().filter_map(|(app, row)| row.close(*app));
        closed.into_iter().chain(rest).collect()
    }
}
