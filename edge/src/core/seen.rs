//! Which devices came by of late, for central to know whom nobody misses.
//!
//! Coarse and lossy on purpose: a device is noted once an hour, reports go in small pieces, and what does not fit or
//! gets lost is noted at the device's next poll or in its next hour. Each device's hour begins at a time of its own, so
//! that a fleet is not reported at once when the clock strikes.

use std::collections::{BTreeMap, HashMap};

use carillon_world::{AppId, DeviceId, Millis, SEEN_DEVICES_MAX, UpstreamRequest};

const HOUR: u64 = 60 * 60 * 1000;
/// Devices remembered as noted; about 35 bytes each. Beyond it all are forgotten, and so noted again.
const NOTED_MAX: usize = 250_000;
/// Devices that wait to be reported. Beyond it none is noted.
const WAITING_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub struct Seen {
    /// The hour, by the device's own count, in which it was noted last.
    noted: HashMap<(AppId, DeviceId), u64>,
    waiting: BTreeMap<AppId, Vec<(DeviceId, u32)>>,
    waiting_count: usize,
}

impl Seen {
    /// A device showed a good session at `now`, by whatever clock: central corrects it.
    pub fn note(&mut self, now: Millis, app: AppId, device: DeviceId) {
        // Ids are random, so their hours begin at random times.
        let hour = now.plus(device.get() % HOUR).0 / HOUR;
        let key = (app, device);
        if self.noted.get(&key) == Some(&hour) || self.waiting_count >= WAITING_MAX {
            return;
        }
        if self.noted.len() >= NOTED_MAX && !self.noted.contains_key(&key) {
            self.noted.clear();
        }
        self.noted.insert(key, hour);
        self.waiting.entry(app).or_default().push((device, now.hour()));
        self.waiting_count += 1;
    }

    /// The next report, if there is anything to say.
    pub fn poll_report(&mut self) -> Option<UpstreamRequest> {
        let mut entry = self.waiting.first_entry()?;
        let app = *entry.key();
        let all = entry.get_mut();
        let devices = all.split_off(all.len().saturating_sub(SEEN_DEVICES_MAX));
        if all.is_empty() {
            entry.remove();
        }
        self.waiting_count -= devices.len();
        Some(UpstreamRequest::Seen { app, devices })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: AppId = AppId::new(1);
    const NOW: Millis = Millis(1_000_000 * HOUR);

    fn reported(seen: &mut Seen) -> Vec<(u64, u64, u32)> {
        let mut all = Vec::new();
        while let Some(report) = seen.poll_report() {
            let UpstreamRequest::Seen { app, devices } = report else { panic!("{report:?}") };
            assert!(!devices.is_empty() && devices.len() <= SEEN_DEVICES_MAX);
            all.extend(devices.into_iter().map(|(id, hour)| (app.get(), id.get(), hour)));
        }
        all.sort_unstable();
        all
    }

    #[test]
    fn a_device_is_reported_once_an_hour() {
        let mut seen = Seen::default();
        for minute in 0..60 {
            seen.note(NOW.plus(minute * HOUR / 60), APP, DeviceId::new(0));
        }
        assert_eq!(reported(&mut seen), [(1, 0, 1_000_000)]);
        seen.note(NOW.plus(HOUR - 1), APP, DeviceId::new(0));
        assert_eq!(reported(&mut seen), []);
        seen.note(NOW.plus(HOUR), APP, DeviceId::new(0));
        // The same id may be another app's device.
        seen.note(NOW.plus(HOUR), AppId::new(2), DeviceId::new(0));
        assert_eq!(reported(&mut seen), [(1, 0, 1_000_001), (2, 0, 1_000_001)]);
    }

    #[test]
    fn the_hours_of_a_fleet_do_not_begin_together() {
        let mut seen = Seen::default();
        let all = |seen: &mut Seen, at: Millis| {
            (0..6_000).for_each(|n| seen.note(at, APP, DeviceId::new(n * HOUR / 6_000)));
            reported(seen).len()
        };
        assert_eq!(all(&mut seen, NOW), 6_000);
        for minute in 1..=60 {
            assert_eq!(all(&mut seen, NOW.plus(minute * HOUR / 60)), 100, "{minute}");
        }
    }

    #[test]
    fn what_waits_is_bounded_and_what_did_not_fit_comes_with_its_next_poll() {
        let mut seen = Seen::default();
        let all = WAITING_MAX as u64 + 500;
        (0..all).for_each(|n| seen.note(NOW, APP, DeviceId::new(n * HOUR)));
        assert_eq!(reported(&mut seen).len(), WAITING_MAX);
        (0..all).for_each(|n| seen.note(NOW, APP, DeviceId::new(n * HOUR)));
        assert_eq!(reported(&mut seen).len(), 500);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_devices_are_then_noted_again() {
        let mut seen = Seen::default();
        for n in 0..=NOTED_MAX as u64 {
            seen.note(NOW, APP, DeviceId::new(n * HOUR));
            if n % 5_000 == 0 {
                reported(&mut seen);
            }
        }
        assert_eq!(seen.noted.len(), 1);
        reported(&mut seen);
        seen.note(NOW, APP, DeviceId::new(0));
        assert_eq!(reported(&mut seen).len(), 1);
    }
}
