//! What a client had stored when it came with a cursor.
//!
//! An edge reports positions, not messages: what a device had at a position follows from the world, so a report is a
//! few bytes and cannot claim what was never addressed to the device.

use super::{candidates, changed, volatile};
use crate::message::Message;
use crate::{DeviceRow, MessageId, Seq, World};

/// From so many changes on, the index is asked instead. Less than for a poll: reports come by the hundred.
const INDEX_WORTH: usize = 32;

/// Of every message that `device` may have got or lost since it had stored `since`: whether it is in H(held). `None`: of
/// every message that it may have had. What is not named is as it was at `since`, or, without it, not held.
///
/// The profile must not have changed since `held`, nor since `since`; neither may be below the horizon. `volatile`: the
/// digest of the cursor whose world was `held`. Where it does not explain itself, nothing is said of what was volatile.
///
/// Cost: that of an inventory without `since`, of a delta with it.
pub fn stored(
    world: &World,
    device: &DeviceRow,
    (held, volatile): (Seq, Option<u64>),
    since: Option<Seq>,
) -> Vec<(MessageId, bool)> {
    let Some(app) = world.app(device.app) else { return Vec::new() };
    let clock = world.clock();
    let after = changed(app, device, held, INDEX_WORTH);
    let past = volatile::judge(app, device, clock, (held, volatile), &after);
    let looked: Vec<&Message> = match since {
        None => candidates(app, device).collect(),
        Some(since) => {
            let mut all = changed(app, device, since, INDEX_WORTH);
            all.extend(app.volatile(device).filter(|message| message.changed() <= since));
            all
        }
    };
    let judged = looked.into_iter().filter_map(|message| {
        let id = message.row().id;
        let Some(revision) = message.at(held) else { return Some((id, false)) };
        if revision.is_active() && revision.is_volatile() {
            let known = &past.as_ref()?.held;
            if let Some((_, tag)) = known.iter().find(|(known, _)| *known == id) {
                return Some((id, tag.is_some()));
            }
        }
        Some((id, revision.addresses(device, clock).is_some()))
    });
    judged.collect()
}
