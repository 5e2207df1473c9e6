//! What was published since a core last looked, merged: a bounded number of changes, then only "look at everything".
//!
//! It stands between the link, which publishes when it likes, and a core, which looks when it can. However far the
//! core lags, what waits here does not grow.

use std::sync::Arc;

use carillon_world::{Applied, World};

use super::parking::{Parking, Ticket};

/// What a core has not looked at yet.
#[derive(Debug, Default)]
pub struct Mail {
    /// In order; all of them together have at most the maximum given to `add`.
    applied: Vec<Arc<Applied>>,
    changes: usize,
    everything: bool,
    link: bool,
    ticked: bool,
}

impl Mail {
    /// A world was published that `applied` led to. Beyond `changes_max` everything is to be looked at instead.
    pub fn add(&mut self, applied: &Arc<Applied>, changes_max: usize) {
        // One more, so that batches which concern nobody count too.
        self.changes += applied.devices.len() + applied.messages.len() + applied.seen.len() + 1;
        self.ticked |= applied.ticked;
        if self.everything || self.changes > changes_max {
            self.add_everything();
        } else {
            self.applied.push(applied.clone());
        }
    }

    /// A snapshot replaced the world, or there is none any more.
    pub fn add_everything(&mut self) {
        self.applied = Vec::new();
        self.changes = 0;
        self.everything = true;
    }

    /// The link to central came or went.
    pub fn add_link(&mut self) {
        self.link = true;
    }

    /// Which parked requests all this concerns, now that `world` is served. May name one twice. After a tick of the clock
    /// a sweep begins, which finds the others.
    pub fn woken<W>(&self, world: Option<&World>, parking: &mut Parking<W>) -> Vec<Ticket> {
        let Some(world) = world.filter(|_| !self.everything) else { return parking.all() };
        if self.ticked && world.follows_clock() {
            parking.begin_sweep();
        }
        let mut woken = Vec::new();
        for applied in &self.applied {
            woken.append(&mut parking.woken_by(world, applied));
        }
        if self.link {
            woken.append(&mut parking.woken_by_link());
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use carillon_world::{AppId, DeviceId};

    use super::*;

    fn applied(devices: usize) -> Arc<Applied> {
        let devices = (0..devices as u64).map(|n| (AppId::new(1), DeviceId::new(n))).collect();
        Arc::new(Applied { devices, ..Applied::default() })
    }

    fn waiting(mail: &Mail) -> (usize, bool) {
        (mail.applied.len(), mail.everything)
    }

    #[test]
    fn a_core_that_lags_is_told_to_look_at_everything_instead_of_ever_more() {
        let mut mail = Mail::default();
        mail.add(&applied(3), 10);
        mail.add(&applied(3), 10);
        assert_eq!(waiting(&std::mem::take(&mut mail)), (2, false));
        for _ in 0..1000 {
            mail.add(&applied(3), 10);
        }
        assert_eq!(waiting(&std::mem::take(&mut mail)), (0, true));
        mail.add(&applied(3), 10);
        assert_eq!(waiting(&mail).0, 1, "what was taken does not count");
    }

    #[test]
    fn an_enormous_change_and_endless_empty_ones_are_bounded_too() {
        let mut mail = Mail::default();
        mail.add(&applied(11), 10);
        assert_eq!(waiting(&std::mem::take(&mut mail)), (0, true));
        for _ in 0..1000 {
            mail.add(&applied(0), 10);
        }
        assert_eq!(waiting(&mail), (0, true));
    }
}
