//! How far the stores of devices have come, for central to know what was delivered.
//!
//! A client that presents a fresh cursor has stored what came with it, so that is noted and goes to central, newest wins,
//! about once a second. A report that central did not take waits for the next time, as far as memory allows. What is lost
//! all the same (the edge dies, or too many wait) is not lost for long: the answer to the device's next news is fresh
//! again, and central judges that position as a whole, so that everything which is still active is made good. Only what
//! ended in between is never counted as delivered.

use std::collections::{BTreeMap, HashMap};

use carillon_world::{
    AppId, DELIVERED_DEVICES_MAX, DeviceId, Stored, UpstreamReply, UpstreamRequest,
};

/// Devices that wait to be reported, about 100 bytes each. Beyond it no further one is noted.
const WAITING_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub struct Delivered {
    waiting: BTreeMap<AppId, HashMap<DeviceId, Stored>>,
    waiting_count: usize,
    /// The report that central has not answered.
    under_way: Option<(AppId, Vec<Stored>)>,
}

impl Delivered {
    /// A device presented a fresh cursor whose positions are in the past.
    pub fn note(&mut self, app: AppId, stored: Stored) {
        let devices = self.waiting.entry(app).or_default();
        match devices.get_mut(&stored.device) {
            Some(known) if newer(&stored, known) => *known = stored,
            Some(_) => {}
            None if self.waiting_count >= WAITING_MAX => {}
            None => {
                devices.insert(stored.device, stored);
                self.waiting_count += 1;
            }
        }
    }

    /// The next report, if there is anything to say and none is under way.
    pub fn poll_report(&mut self) -> Option<UpstreamRequest> {
        if self.under_way.is_some() {
            return None;
        }
        let mut entry = self.waiting.first_entry()?;
        let app = *entry.key();
        let all = entry.get_mut();
        let mut devices: Vec<DeviceId> = all.keys().take(DELIVERED_DEVICES_MAX).copied().collect();
        devices.sort_unstable();
        let devices: Vec<Stored> = devices.iter().filter_map(|id| all.remove(id)).collect();
        if all.is_empty() {
            entry.remove();
        }
        self.waiting_count -= devices.len();
        if devices.is_empty() {
            return None;
        }
        self.under_way = Some((app, devices.clone()));
        Some(UpstreamRequest::Delivered { app, devices })
    }

    /// Central's reply to the report under way; `None` if none will come. Whether it is done with: else the devices wait
    /// again.
    pub fn handle_reply(&mut self, reply: Option<&UpstreamReply>) -> bool {
        let Some((app, devices)) = self.under_way.take() else { return true };
        let again = match reply {
            None => true,
            // What is refused for what it says would be refused again.
            Some(UpstreamReply::Refused { problem }) => {
                problem.status >= 500 || problem.status == 429
            }
            Some(_) => false,
        };
        if again {
            devices.into_iter().for_each(|stored| self.note(app, stored));
        }
        !again
    }

    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }
}

/// Of two positions of one device, which is later; epochs count on across restores.
fn newer(stored: &Stored, known: &Stored) -> bool {
    let key = |stored: &Stored| (stored.at.epoch.number, stored.at.seq);
    key(stored) > key(known)
}

#[cfg(test)]
mod tests {
    use carillon_world::{Epoch, Position, Problem, Seq, ShardId};

    use super::*;

    const APP: AppId = AppId::new(1);

    fn stored(device: u64, epoch: u64, seq: u64) -> Stored {
        let epoch = Epoch { number: epoch, tag: 7 };
        let at = Position { shard: ShardId::FIRST, epoch, seq: Seq::new(seq) };
        Stored { device: DeviceId::new(device), at, volatile: None }
    }

    fn report(delivered: &mut Delivered) -> Option<Vec<(u64, u64)>> {
        let UpstreamRequest::Delivered { devices, .. } = delivered.poll_report()? else {
            panic!("a report of what was delivered")
        };
        assert!(!devices.is_empty() && devices.len() <= DELIVERED_DEVICES_MAX);
        Some(devices.iter().map(|stored| (stored.device.get(), stored.at.seq.get())).collect())
    }

    fn written() -> UpstreamReply {
        UpstreamReply::Written { committed: stored(0, 1, 1).at }
    }

    fn refused(status: u16) -> UpstreamReply {
        let problem = Problem {
            status,
            code: String::new(),
            title: String::new(),
            detail: String::new(),
            retry_after: None,
            extra: None,
        };
        UpstreamReply::Refused { problem }
    }

    #[test]
    fn the_newest_position_of_a_device_goes_once() {
        let mut delivered = Delivered::default();
        for (epoch, seq) in [(1, 5), (1, 9), (1, 7), (1, 9)] {
            delivered.note(APP, stored(4, epoch, seq));
        }
        delivered.note(APP, stored(3, 1, 50));
        // After a restore seqs are used again.
        delivered.note(APP, stored(3, 2, 20));
        assert_eq!(report(&mut delivered), Some(vec![(3, 20), (4, 9)]));
        assert_eq!(report(&mut delivered), None, "one at a time");
        assert!(delivered.handle_reply(Some(&written())));
        assert_eq!(report(&mut delivered), None);
    }

    #[test]
    fn what_central_did_not_take_goes_again_unless_it_never_will() {
        let mut delivered = Delivered::default();
        for reply in [None, Some(refused(503)), Some(refused(429))] {
            delivered.note(APP, stored(4, 1, 5));
            assert_eq!(report(&mut delivered), Some(vec![(4, 5)]));
            assert!(!delivered.handle_reply(reply.as_ref()));
        }
        // What came meanwhile is newer.
        assert_eq!(report(&mut delivered), Some(vec![(4, 5)]));
        delivered.note(APP, stored(4, 1, 8));
        assert!(!delivered.handle_reply(None));
        assert_eq!(report(&mut delivered), Some(vec![(4, 8)]));
        assert!(delivered.handle_reply(Some(&refused(400))));
        assert_eq!(report(&mut delivered), None);
    }

    #[test]
    fn what_waits_is_bounded_and_known_devices_still_move_on() {
        let mut delivered = Delivered::default();
        let all = WAITING_MAX as u64 + 500;
        (0..all).for_each(|n| delivered.note(APP, stored(n, 1, 5)));
        (0..all).for_each(|n| delivered.note(APP, stored(n, 1, 6)));
        let mut count = 0;
        while let Some(devices) = report(&mut delivered) {
            assert!(devices.iter().all(|(_, seq)| *seq == 6));
            count += devices.len();
            delivered.handle_reply(Some(&written()));
        }
        assert_eq!(count, WAITING_MAX);
        assert_eq!(delivered.waiting_count, 0);
    }
}
