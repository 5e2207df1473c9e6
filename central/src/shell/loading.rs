//! How far the load of a shard is, for whoever waits for it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the log says how far it is.
const LOG_EVERY: Duration = Duration::from_secs(2);
/// How often somebody who watches is told.
const SHOW_EVERY: Duration = Duration::from_millis(100);
/// Rows between two looks at the clock.
const LOOK_EVERY_ROWS: u64 = 1024;

/// How far a load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    pub rows: u64,
    /// About how many there will be; may turn out to be wrong.
    pub expected: u64,
    /// Nothing more comes.
    pub finished: bool,
}

/// Somebody who watches a load, such as a bar at a terminal. Without one the log says how far it is.
#[derive(Clone)]
pub struct OnLoading(Arc<dyn Fn(LoadProgress) + Send + Sync>);

impl OnLoading {
    pub fn new(show: impl Fn(LoadProgress) + Send + Sync + 'static) -> OnLoading {
        OnLoading(Arc::new(show))
    }
}

impl fmt::Debug for OnLoading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnLoading(..)")
    }
}

#[derive(Debug)]
pub(super) struct Loading {
    watcher: Option<OnLoading>,
    began: Instant,
    told_at: Instant,
    rows: u64,
    expected: u64,
}

impl Loading {
    pub(super) fn begin(watcher: Option<OnLoading>, expected: u64) -> Loading {
        let now = Instant::now();
        Loading { watcher, began: now, told_at: now, rows: 0, expected }
    }

    pub(super) fn row(&mut self) {
        self.rows += 1;
        if self.rows.is_multiple_of(LOOK_EVERY_ROWS) {
            self.look(Instant::now());
        }
    }

    fn look(&mut self, now: Instant) {
        let every = if self.watcher.is_some() { SHOW_EVERY } else { LOG_EVERY };
        if now < self.told_at + every {
            return;
        }
        self.told_at = now;
        match &self.watcher {
            Some(OnLoading(show)) => show(self.progress(false)),
            None => {
                let rows_per_second = self.rows as f64 / (now - self.began).as_secs_f64();
                tracing::info!(
                    rows = self.rows,
                    expected = self.expected,
                    rows_per_second = rows_per_second as u64,
                    "the shard is loading"
                );
            }
        }
    }

    fn progress(&self, finished: bool) -> LoadProgress {
        // An estimate that was too low is raised, so that nobody is shown more than all.
        LoadProgress { rows: self.rows, expected: self.expected.max(self.rows), finished }
    }
}

/// However the load ends: a bar has to go before a fault is told.
impl Drop for Loading {
    fn drop(&mut self) {
        if let Some(OnLoading(show)) = &self.watcher {
            show(self.progress(true));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_watcher_is_told_now_and_then_and_at_the_end_and_never_more_than_all() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = told.clone();
        let watcher = OnLoading::new(move |progress| seen.lock().unwrap().push(progress));
        let mut loading = Loading::begin(Some(watcher), 10);
        (0..50).for_each(|_| loading.row());
        let began = loading.began;
        loading.look(began + SHOW_EVERY / 2);
        loading.look(began + SHOW_EVERY);
        loading.look(began + SHOW_EVERY);
        loading.look(began + SHOW_EVERY * 3);
        drop(loading);
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 3);
        assert!(told.iter().all(|progress| progress.rows == 50 && progress.expected == 50));
        assert_eq!(told.iter().filter(|progress| progress.finished).count(), 1);
    }
}
