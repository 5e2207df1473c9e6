//! When each device was last seen, to the hour.
//!
//! Edges report it in batches, it goes to the store beside the changes, and it decides one thing: which devices nobody
//! misses. Losing a report is harmless, forgetting a device that is used is not; so whatever is uncertain counts as
//! seen.

use std::collections::HashMap;

use carillon_persist::{Kept, SeenRow};
use carillon_world::{AppId, DeviceId, DeviceRow, Millis};

const DAY: u64 = 24 * 60 * 60 * 1000;
/// After an outage devices get this long to come back, in ms, or the whole time for which one is kept, if that is less.
const GRACE: u64 = 7 * DAY;
/// So long without a commit counts as an outage, in ms: reports of devices seen are commits, too.
const OUTAGE: u64 = DAY;

/// About 24 bytes a device that was ever seen.
#[derive(Debug)]
pub struct LastSeen {
    apps: HashMap<AppId, HashMap<DeviceId, u32>>,
    /// Every device counts as seen then: before, nobody looked.
    since: Millis,
}

impl Default for LastSeen {
    fn default() -> LastSeen {
        LastSeen { apps: HashMap::new(), since: Millis(0) }
    }
}

impl LastSeen {
    /// Takes what the store has.
    pub fn insert(&mut self, row: SeenRow) {
        self.note(row.app, row.device, row.hour);
    }

    /// Takes over what was decided at earlier openings, at `now`. Gives the time since when devices are looked at, if
    /// the store has to be told.
    pub(crate) fn open(&mut self, kept: &Kept, ttl: Option<u64>, now: Millis) -> Option<Millis> {
        self.since = match kept.seen_since {
            // The first opening that looks.
            None => now,
            Some(since) => {
                let away = kept.committed_at.is_some_and(|at| at.plus(OUTAGE) <= now);
                let ttl = ttl.unwrap_or(0);
                let spared = Millis(now.0.saturating_sub(ttl.saturating_sub(GRACE.min(ttl))));
                if away { since.max(spared) } else { since }
            }
        };
        (kept.seen_since != Some(self.since)).then_some(self.since)
    }

    /// Whether it is news.
    pub(crate) fn note(&mut self, app: AppId, device: DeviceId, hour: u32) -> bool {
        let known = self.apps.entry(app).or_default().entry(device).or_insert(0);
        let later = hour > *known;
        *known = hour.max(*known);
        later
    }

    pub(crate) fn forget(&mut self, app: AppId, device: DeviceId) {
        if let Some(devices) = self.apps.get_mut(&app) {
            devices.remove(&device);
        }
    }

    /// The last moment at which the device may have been seen.
    pub(crate) fn last(&self, row: &DeviceRow) -> Millis {
        let hour = self.apps.get(&row.app).and_then(|devices| devices.get(&row.id));
        // The end of the hour.
        let seen = hour.map_or(Millis(0), |hour| Millis::of_hour(hour.saturating_add(1)));
        seen.max(row.created_at).max(self.since)
    }
}

#[cfg(test)]
mod tests {
    use carillon_world::Seq;

    use super::*;

    const APP: AppId = AppId::new(1);
    const HOUR: u64 = 60 * 60 * 1000;

    fn row(device: u64, created_at: u64) -> DeviceRow {
        DeviceRow {
            id: DeviceId::new(device),
            app: APP,
            generation: Seq::new(1),
            p: Seq::new(1),
            created_at: Millis(created_at),
            user: None,
            attributes: Box::default(),
            groups: Box::default(),
            private: None,
        }
    }

    #[test]
    fn a_device_was_seen_when_it_was_made_reported_or_nobody_looked_whichever_is_last() {
        let mut seen = LastSeen::default();
        assert_eq!(seen.last(&row(7, 5)), Millis(5));
        assert!(seen.note(APP, DeviceId::new(7), 3));
        assert!(!seen.note(APP, DeviceId::new(7), 3) && !seen.note(APP, DeviceId::new(7), 2));
        assert_eq!(seen.last(&row(7, 5)), Millis(4 * HOUR), "perhaps at the end of the hour");
        assert_eq!(seen.last(&row(7, 9 * HOUR)), Millis(9 * HOUR));
        let kept = Kept { seen_since: Some(Millis(50 * HOUR)), ..Kept::default() };
        assert_eq!(seen.open(&kept, None, Millis(51 * HOUR)), None);
        assert_eq!(seen.last(&row(7, 5)), Millis(50 * HOUR));
        seen.forget(APP, DeviceId::new(7));
        assert!(seen.note(APP, DeviceId::new(7), 1));
    }

    #[test]
    fn an_upgrade_and_an_outage_count_as_seen() {
        let ttl = Some(180 * DAY);
        let now = Millis(1_000 * DAY);
        let open = |seen_since, committed_at| {
            let kept = Kept { seen_since, committed_at, ..Kept::default() };
            LastSeen::default().open(&kept, ttl, now)
        };
        assert_eq!(open(None, Some(now)), Some(now), "no release before looked");
        assert_eq!(open(Some(Millis(5)), Some(Millis(now.0 - OUTAGE + 1))), None);
        let spared = open(Some(Millis(5)), Some(Millis(now.0 - 200 * DAY)));
        assert_eq!(spared, Some(Millis(now.0 - 173 * DAY)), "a week is left to come back");
        let later = Millis(now.0 - DAY);
        assert_eq!(open(Some(later), Some(Millis(now.0 - 200 * DAY))), None);
    }
}
