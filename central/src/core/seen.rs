//! Which devices nobody misses.
//!
//! Edges report which devices they saw, and each device's row has the hour of the last report. Losing a report is
//! harmless, forgetting a device that is used is not; so whatever is uncertain counts as seen.

use carillon_persist::Kept;
use carillon_world::{DeviceRow, Millis};

const HOUR: u64 = 60 * 60 * 1000;
const DAY: u64 = 24 * HOUR;
/// After an outage devices get this long to come back, in ms, or the whole time for which one is kept, if that is less.
const GRACE: u64 = 7 * DAY;
/// So long without a commit counts as an outage, in ms: reports of devices seen are commits, too.
const OUTAGE: u64 = DAY;

#[derive(Debug)]
pub(crate) struct LastSeen {
    /// Every device counts as seen then: before, nobody looked.
    since: Millis,
}

impl LastSeen {
    /// Takes over what was decided at earlier openings, at `now`, and the time since when devices are looked at, if the
    /// store has to be told.
    pub(crate) fn open(kept: &Kept, ttl: Option<u64>, now: Millis) -> (LastSeen, Option<Millis>) {
        let since = match kept.seen_since {
            // The first opening that looks.
            None => now,
            Some(since) => {
                let away = kept.committed_at.is_some_and(|at| at.plus(OUTAGE) <= now);
                let ttl = ttl.unwrap_or(0);
                let spared = Millis(now.0.saturating_sub(ttl.saturating_sub(GRACE.min(ttl))));
                if away { since.max(spared) } else { since }
            }
        };
        (LastSeen { since }, (kept.seen_since != Some(since)).then_some(since))
    }

    /// The last moment at which the device may have been seen.
    pub(crate) fn last(&self, row: &DeviceRow) -> Millis {
        let never = row.last_seen == Millis::ZERO;
        // The end of the hour.
        let seen = if never { Millis::ZERO } else { row.last_seen.plus(HOUR) };
        seen.max(row.created_at).max(self.since)
    }
}

#[cfg(test)]
mod tests {
    use carillon_world::{AppId, DeviceId, Seq};

    use super::*;

    fn row(last_seen: u64, created_at: u64) -> DeviceRow {
        DeviceRow {
            id: DeviceId::new(7),
            app: AppId::new(1),
            generation: Seq::new(1),
            p: Seq::new(1),
            created_at: Millis(created_at),
            user: None,
            attributes: Box::default(),
            groups: Box::default(),
            private: None,
            last_seen: Millis(last_seen),
        }
    }

    #[test]
    fn a_device_was_seen_when_it_was_made_reported_or_nobody_looked_whichever_is_last() {
        let open = |since| {
            let kept = Kept { seen_since: Some(Millis(since)), ..Kept::default() };
            LastSeen::open(&kept, None, Millis(51 * HOUR))
        };
        let (seen, told) = open(1);
        assert_eq!(told, None);
        assert_eq!(seen.last(&row(0, 5)), Millis(5));
        assert_eq!(
            seen.last(&row(3 * HOUR, 5)),
            Millis(4 * HOUR),
            "perhaps at the end of the hour"
        );
        assert_eq!(seen.last(&row(3 * HOUR, 9 * HOUR)), Millis(9 * HOUR));
        assert_eq!(open(50 * HOUR).0.last(&row(3 * HOUR, 5)), Millis(50 * HOUR));
    }

    #[test]
    fn an_upgrade_and_an_outage_count_as_seen() {
        let ttl = Some(180 * DAY);
        let now = Millis(1_000 * DAY);
        let open = |seen_since, committed_at| {
            let kept = Kept { seen_since, committed_at, ..Kept::default() };
            LastSeen::open(&kept, ttl, now).1
        };
        assert_eq!(open(None, Some(now)), Some(now), "no release before looked");
        assert_eq!(open(Some(Millis(5)), Some(Millis(now.0 - OUTAGE + 1))), None);
        let spared = open(Some(Millis(5)), Some(Millis(now.0 - 200 * DAY)));
        assert_eq!(spared, Some(Millis(now.0 - 173 * DAY)), "a week is left to come back");
        let later = Millis(now.0 - DAY);
        assert_eq!(open(Some(later), Some(Millis(now.0 - 200 * DAY))), None);
    }
}
