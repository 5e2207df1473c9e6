//! When devices were pushed of late: what frequency caps look at. Kept only for apps that have a cap.

use std::sync::Arc;

use carillon_persist::PushTimesRow;
use carillon_world::{AppId, DeviceId, FrequencyCap, Millis, PMap, World};

const MINUTE: u64 = 60_000;

/// By app and device: the minutes since 1970 of its pushes, oldest first, as many as its cap has to know. A clone shares
/// them.
#[derive(Clone, Debug, Default)]
pub struct Caps {
    apps: PMap<AppId, PMap<DeviceId, Arc<[u32]>>>,
}

impl Caps {
    pub(crate) fn load(rows: Vec<PushTimesRow>, world: &World) -> Caps {
        let mut caps = Caps::default();
        for row in rows {
            if world.app(row.app).is_some_and(|app| app.device(row.device).is_some()) {
                caps.put(row.app, row.device, row.minutes);
            }
        }
        caps
    }

    fn put(&mut self, app: AppId, device: DeviceId, minutes: Arc<[u32]>) {
        match self.apps.get_mut(app) {
            Some(devices) => {
                devices.insert(device, minutes);
            }
            None => {
                let mut devices = PMap::new();
                devices.insert(device, minutes);
                self.apps.insert(app, devices);
            }
        }
    }

    fn minutes(&self, app: AppId, device: DeviceId) -> &[u32] {
        let of_app = self.apps.get(app);
        of_app.and_then(|devices| devices.get(device)).map_or(&[], |minutes| minutes)
    }

    /// Whether another push would be one too many. A minute counts whole, so that no stretch has more than the cap.
    pub fn is_capped(&self, app: AppId, device: DeviceId, cap: FrequencyCap, now: Millis) -> bool {
        let recent = |minute: &&u32| u64::from(**minute) * MINUTE + period(cap) + MINUTE > now.0;
        let minutes = self.minutes(app, device);
        minutes.len() >= cap.pushes as usize
            && minutes.iter().filter(recent).count() >= cap.pushes as usize
    }

    /// The device was pushed. Gives the row that says so.
    pub(crate) fn note(
        &mut self,
        app: AppId,
        device: DeviceId,
        cap: FrequencyCap,
        now: Millis,
    ) -> PushTimesRow {
        let minute = u32::try_from(now.0 / MINUTE).unwrap_or(u32::MAX);
        let before = self.minutes(app, device);
        // Those that a cap cannot look at any more are forgotten.
        let most = (cap.pushes as usize).saturating_sub(1);
        let kept = &before[before.len().saturating_sub(most)..];
        let minutes: Arc<[u32]> = kept.iter().copied().chain([minute]).collect();
        self.put(app, device, minutes.clone());
        PushTimesRow { app, device, minutes }
    }

    pub(crate) fn remove(&mut self, app: AppId, device: DeviceId) {
        if !self.minutes(app, device).is_empty()
            && let Some(devices) = self.apps.get_mut(app)
        {
            devices.remove(device);
        }
    }
}

fn period(cap: FrequencyCap) -> u64 {
    u64::from(cap.period_s) * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stretch_of_the_period_has_more_pushes_than_the_cap() {
        let (app, device) = (AppId::new(1), DeviceId::new(2));
        let cap = FrequencyCap { pushes: 3, period_s: 3_600 };
        let mut caps = Caps::default();
        let mut pushed = Vec::new();
        for second in 0..4 * 3_600 {
            let now = Millis(1_700_000_000_000 + second * 1_000);
            if !caps.is_capped(app, device, cap, now) {
                let row = caps.note(app, device, cap, now);
                assert!(row.minutes.len() <= 3);
                pushed.push(second);
            }
        }
        assert!((9..=12).contains(&pushed.len()), "{pushed:?}");
        for (n, second) in pushed.iter().enumerate() {
            let within = pushed[n..].iter().filter(|at| **at < second + 3_600).count();
            assert!(within <= 3, "{pushed:?}");
        }
        assert!(!caps.is_capped(app, DeviceId::new(3), cap, Millis(1_700_000_000_000)));
        caps.remove(app, device);
        assert!(!caps.is_capped(app, device, cap, Millis(1_700_000_000_000 + 4 * 3_600_000)));
    }
}
