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
use crate::core::write::{CallbackWrite, Missed, Write};
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
    let mut missed: BTreeMap<CallbackId, Missed> = BTreeMap::new();
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
            let id = endpoint.row.id;
            let of = missed.entry(id).or_insert(Missed { id, events: 0, through: 0 });
            of.events += events as u64;
            of.through = of.through.max(row.last);
        }
    }
    let Some(newest) = rows[..count].last() else { return Ok(None) };
    let write = CallbackWrite::Forget {
        through: newest.first,
        bytes,
        missed: missed.into_values().collect(),
    };
    Ok(Some(Step { write, is_full: count == rows.len().min(ROWS_MAX) }))
}

#[cfg(test)]
mod tests {
    use carillon_persist::{
        CallbackEvent, CallbackProgress, CallbackRow, CallbackState, CallbacksKept,
    };
    use carillon_world::AppId;

    use super::*;

    const ONE: AppId = AppId::new(0xa);
    const OTHER: AppId = AppId::new(0xb);

    fn endpoint(id: u64, app: AppId, cursor: u64) -> (CallbackRow, CallbackProgress) {
        let row = CallbackRow {
            id: CallbackId::new(id),
            app,
            url: "https://a.example/".into(),
            events: "group.*".into(),
            description: "".into(),
            state: CallbackState::Active,
            changed_at: Millis(1),
            run: 1,
            secrets: Vec::new(),
            created_at: Millis(1),
        };
        (row, CallbackProgress { cursor, ..CallbackProgress::default() })
    }

    /// Of events that happened at the time of their number.
    fn row(app: AppId, first: u64, between: &[u64], last: u64) -> CallbackLogRow {
        let numbers = std::iter::once(first).chain(between.iter().copied()).chain([last]);
        let event =
            |n| CallbackEvent { n, at: Millis(n), id: "i", kind: "group.changed", body: "{}" };
        let events: Vec<CallbackEvent<'_>> = numbers.map(event).collect();
        let payload = CallbackEvent::write(&events);
        CallbackLogRow { app, first, last, first_at: Millis(first), payload }
    }

    #[test]
    fn what_one_app_forgets_moves_no_endpoint_of_another() {
        // The first row of one app reaches over all of the other's.
        let rows = [row(ONE, 1, &[3], 9), row(OTHER, 2, &[], 4), row(OTHER, 5, &[], 6)];
        let callbacks = Callbacks::load(CallbacksKept {
            endpoints: vec![endpoint(1, ONE, 1), endpoint(2, OTHER, 0), endpoint(3, OTHER, 4)],
            logged: 9,
            log_bytes: rows.iter().map(|row| row.payload.len() as u64).sum(),
            last: vec![(ONE, 9), (OTHER, 6)],
        });
        let step = step(&callbacks, &rows, Millis(5), u64::MAX).unwrap().unwrap();
        let CallbackWrite::Forget { through, bytes, missed } = step.write else {
            panic!("rows go")
        };
        let gone = &rows[..2];
        assert_eq!((through, step.is_full), (2, false));
        assert_eq!(bytes, gone.iter().map(|row| row.payload.len() as u64).sum::<u64>());
        let expected = [
            Missed { id: CallbackId::new(1), events: 2, through: 9 },
            Missed { id: CallbackId::new(2), events: 2, through: 4 },
        ];
        assert_eq!(missed, expected, "5 and 6 are still to come");
    }
}
