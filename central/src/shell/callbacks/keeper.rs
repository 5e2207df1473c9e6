//! Forgets what the callbacks' log has held for long enough, or has too much of, and counts what somebody missed by that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carillon_persist::{CallbackId, CallbackLogFrom, CallbackLogRow, StoreError};
use carillon_world::Millis;

use super::reader::LogReader;
use crate::config::CallbackConfig;
use crate::core::callback::state::Callbacks;
use crate::core::callback::wanted::wants;
use crate::core::write::{CallbackWrite, Write};
use crate::shell::shared::Shared;
use crate::shell::write_handle::WriteHandle;

/// Bytes that are forgotten at a time.
const STEP_BYTES: u64 = 1024 * 1024;
/// Rows that one transaction forgets.
const ROWS_MAX: usize = 200;
/// Between two looks at the size, and at the age.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const AGE_EVERY: u32 = 30;

pub(super) struct Keeper {
    shared: Arc<Shared>,
    writes: WriteHandle,
    reader: LogReader,
    retention: u64,
    bytes_max: u64,
}

/// What goes in one step.
struct Step {
    write: CallbackWrite,
    /// Perhaps there is more.
    is_full: bool,
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        writes: WriteHandle,
        reader: LogReader,
        config: &CallbackConfig,
    ) -> Keeper {
        let retention = u64::try_from(config.retention.as_millis()).unwrap_or(u64::MAX);
        Keeper { shared, writes, reader, retention, bytes_max: config.bytes_max }
    }

    pub(super) async fn run(self) {
        let mut looks = 0_u32;
        loop {
            let is_large = self.shared.callbacks().callbacks.log_bytes > self.bytes_max;
            if (is_large || looks.is_multiple_of(AGE_EVERY)) && self.step().await {
                continue;
            }
            looks = looks.wrapping_add(1);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether there may be more to forget.
    async fn step(&self) -> bool {
        let Ok(rows) = self.reader.read(CallbackLogFrom::Oldest, STEP_BYTES).await else {
            return false;
        };
        let view = self.shared.callbacks();
        let before = Millis(self.shared.clock.now().0.saturating_sub(self.retention));
        let step = match step(&view.callbacks, &rows, before, self.bytes_max) {
            Ok(Some(step)) => step,
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(%error, "the log of callbacks is damaged");
                return false;
            }
        };
        let forgotten = self.writes.write(Write::Callback(Box::new(step.write))).await;
        forgotten.result.is_ok() && step.is_full
    }
}

/// What goes of the oldest rows: those from before a time, and those beyond `bytes_max`.
fn step(
    callbacks: &Callbacks,
    rows: &[CallbackLogRow],
    before: Millis,
    bytes_max: u64,
) -> Result<Option<Step>, StoreError> {
    let mut missed: BTreeMap<CallbackId, u64> = BTreeMap::new();
    let (mut bytes, mut count) = (0, 0);
    for row in rows.iter().take(ROWS_MAX) {
        let left = callbacks.log_bytes.saturating_sub(bytes);
        if row.first_at >= before && left <= bytes_max {
            break;
        }
        bytes += row.payload.len() as u64;
        count += 1;
        let behind = callbacks.of(row.app).filter(|of| of.progress.cursor < row.last);
        for endpoint in behind {
            let lacks = |event: &carillon_persist::CallbackEvent<'_>| {
                event.n > endpoint.progress.cursor && wants(&endpoint.row.events, event.kind)
            };
            let events = row.events()?.iter().filter(|event| lacks(event)).count();
            *missed.entry(endpoint.row.id).or_default() += events as u64;
        }
    }
    let Some(newest) = rows[..count].last() else { return Ok(None) };
    let write = CallbackWrite::Forget {
        through: newest.first,
        last: rows[..count].iter().map(|row| row.last).max().unwrap_or(0),
        bytes,
        missed: missed.into_iter().collect(),
    };
    Ok(Some(Step { write, is_full: count == rows.len().min(ROWS_MAX) }))
}
