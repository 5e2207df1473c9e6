//! The requests of one core that wait for something.
//!
//! A parked poll costs nothing until a change concerns its device: it is woken when its device changed or is gone, or
//! when a changed message addresses or addressed it. Requests that wait for a newer world are woken when the world has
//! what they wait for. Waking too many is harmless, since a woken request decides again; waking too few would hold a
//! message back, so whatever is not certain wakes.
//!
//! A tick of the clock may concern every parked poll of an app that has volatile messages. So it begins a *sweep*, which
//! looks at them in parts of bounded work, and wakes those for whom something else is due than when they were parked.
//!
//! Bounded twice: in all, and by device, so that one client cannot take every place.

use std::collections::{BTreeMap, HashMap};

use carillon_world::{App, AppId, Applied, DeviceId, Judgement, Revision, World, volatile_digest};

use super::decide::{Awaits, Park};

/// Names one parked request; never given twice in a registry's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    place: usize,
    number: u64,
}

/// The registry has no place left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no place to park: {places} are taken")]
pub struct Full {
    pub places: usize,
}

/// What parking gave.
#[derive(Debug)]
pub struct Parked<W> {
    pub ticket: Ticket,
    /// The device's oldest request, which had to make room: decide it as if its time were up.
    pub evicted: Option<W>,
}

#[derive(Debug)]
struct Slot<W> {
    number: u64,
    app: AppId,
    device: DeviceId,
    awaits: Awaits,
    waiter: W,
}

impl<W> Slot<W> {
    /// Whether something else that is volatile is due by `world` than when the request was parked.
    fn is_altered(&self, world: &World) -> bool {
        let Awaits::News { volatile, .. } = &self.awaits else { return false };
        let device = world.app(self.app).and_then(|app| app.device(self.device));
        device.is_none_or(|device| volatile_digest(world, device) != *volatile)
    }
}

/// Parked requests, each with what the shell needs to wake it.
#[derive(Debug)]
pub struct Parking<W> {
    places_max: usize,
    per_device_max: usize,
    next_number: u64,
    slots: Vec<Option<Slot<W>>>,
    free: Vec<usize>,
    /// By app, so that a message's change looks only at its app's devices; then by device, oldest first.
    by_device: HashMap<AppId, HashMap<DeviceId, Vec<Ticket>>>,
    /// Those that wait for a world or the link, not for news. In order, so that who is woken does not hang on chance.
    blocked: BTreeMap<usize, u64>,
    /// The place that a sweep looks at next, and how many it still has to look at.
    sweep_at: usize,
    sweep_left: usize,
}

impl<W> Parking<W> {
    /// # Panics
    /// If a maximum is 0, which configuration does not allow.
    pub fn new(places_max: usize, per_device_max: usize) -> Parking<W> {
        assert!(places_max > 0 && per_device_max > 0, "a registry has places");
        Parking {
            places_max,
            per_device_max,
            next_number: 0,
            slots: Vec::new(),
            free: Vec::new(),
            by_device: HashMap::new(),
            blocked: BTreeMap::new(),
            sweep_at: 0,
            sweep_left: 0,
        }
    }

    /// Registers a request. `park.until` is for the shell's timer; the registry knows no time.
    ///
    /// # Errors
    /// If all places are taken, by requests of other devices.
    pub fn park(&mut self, park: &Park, waiter: W) -> Result<Parked<W>, Full> {
        let of_device = self.by_device.get(&park.app).and_then(|devices| devices.get(&park.device));
        let oldest = of_device
            .filter(|tickets| tickets.len() >= self.per_device_max)
            .map(|tickets| tickets[0]);
        let evicted = oldest.and_then(|ticket| self.remove(ticket));
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.slots.len() < self.places_max => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return Err(Full { places: self.places_max }),
        };
        let number = self.next_number;
        self.next_number += 1;
        let ticket = Ticket { place, number };
        if !matches!(park.awaits, Awaits::News { .. }) {
            self.blocked.insert(place, number);
        }
        let (app, device) = (park.app, park.device);
        self.slots[place] = Some(Slot { number, app, device, awaits: park.awaits.clone(), waiter });
        self.by_device.entry(app).or_default().entry(device).or_default().push(ticket);
        Ok(Parked { ticket, evicted })
    }

    /// Takes a request out; `None` if it is out already.
    pub fn remove(&mut self, ticket: Ticket) -> Option<W> {
        let slot = self.slots.get_mut(ticket.place)?;
        let Slot { app, device, waiter, .. } = slot.take_if(|slot| slot.number == ticket.number)?;
        self.free.push(ticket.place);
        self.blocked.remove(&ticket.place);
        let devices = self.by_device.get_mut(&app).expect("each slot is listed");
        let tickets = devices.get_mut(&device).expect("each slot is listed");
        tickets.retain(|listed| *listed != ticket);
        if tickets.is_empty() {
            devices.remove(&device);
        }
        if devices.is_empty() {
            self.by_device.remove(&app);
        }
        Some(waiter)
    }

    /// Which requests `world` may answer, now that `applied` led to it, but for the clock. Cost: a map lookup a changed
    /// device, an evaluation of two revisions a changed message and parked device of its app, one of the volatile messages
    /// for a device that was seen, or for every one of the app if a volatile message changed. Sorted, without repeats.
    pub fn woken_by(&self, world: &World, applied: &Applied) -> Vec<Ticket> {
        let mut woken = Vec::new();
        for (app, device) in &applied.devices {
            let tickets = self.by_device.get(app).and_then(|devices| devices.get(device));
            woken.extend(tickets.into_iter().flatten());
        }
        for (app, device) in &applied.seen {
            let tickets = self.by_device.get(app).and_then(|devices| devices.get(device));
            let altered =
                |ticket: &&Ticket| self.slot(**ticket).is_some_and(|slot| slot.is_altered(world));
            woken.extend(tickets.into_iter().flatten().filter(altered));
        }
        for change in &applied.messages {
            let revisions = || change.before.iter().chain([&change.after]);
            let volatile = revisions().any(Revision::is_volatile);
            let devices = self.by_device.get(&change.app).into_iter().flatten();
            for ticket in devices.flat_map(|(_, tickets)| tickets) {
                let Some(slot) = self.slot(*ticket) else { continue };
                let Awaits::News { device, .. } = &slot.awaits else { continue };
                let addresses =
                    |revision: &Revision| revision.addresses(device, world.clock()).is_some();
                if revisions().any(addresses) || (volatile && slot.is_altered(world)) {
                    woken.push(*ticket);
                }
            }
        }
        woken.extend(self.woken_by_world(world));
        woken.sort_unstable();
        woken.dedup();
        woken
    }

    /// The clock moved: everybody who is parked now is to be looked at once more. Who parks later does so by what the
    /// world of then says.
    pub fn begin_sweep(&mut self) {
        self.sweep_left = self.slots.len();
    }

    /// Whether [`Parking::sweep`] has something to do.
    pub fn is_sweeping(&self) -> bool {
        self.sweep_left > 0
    }

    /// The next part of a sweep: those for whom something else is due by `world` than when they were parked. Looks at one
    /// request at least, and at so many that about `evaluations` messages are judged.
    pub fn sweep(&mut self, world: &World, evaluations: u64) -> Vec<Ticket> {
        let (mut woken, mut judged) = (Vec::new(), 0);
        while self.sweep_left > 0 && judged < evaluations {
            self.sweep_left -= 1;
            let place = self.sweep_at;
            self.sweep_at = (place + 1) % self.slots.len();
            let Some(slot) = &self.slots[place] else { continue };
            judged += 1 + world.app(slot.app).map_or(0, App::volatile_messages);
            if slot.is_altered(world) {
                woken.push(Ticket { place, number: slot.number });
            }
        }
        woken
    }

    /// Those that wait for a position which `world` has, or which it can judge. Sorted.
    pub fn woken_by_world(&self, world: &World) -> Vec<Ticket> {
        self.blocked_where(|awaits| match awaits {
            Awaits::Position(position) => world.judge(*position) != Judgement::Behind,
            Awaits::News { .. } | Awaits::Link => false,
        })
    }

    /// Those that wait for the link to central or for a world, when the link came or went. Sorted.
    pub fn woken_by_link(&self) -> Vec<Ticket> {
        self.blocked_where(|_| true)
    }

    /// Everyone: a snapshot replaced the world, or there were too many changes to look at each.
    pub fn all(&self) -> Vec<Ticket> {
        let taken = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(place, slot)| Some((place, slot.as_ref()?.number)));
        taken.map(|(place, number)| Ticket { place, number }).collect()
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn blocked_where(&self, wakes: impl Fn(&Awaits) -> bool) -> Vec<Ticket> {
        let blocked =
            self.blocked.iter().map(|(place, number)| Ticket { place: *place, number: *number });
        blocked
            .filter(|ticket| self.slot(*ticket).is_some_and(|slot| wakes(&slot.awaits)))
            .collect()
    }

    fn slot(&self, ticket: Ticket) -> Option<&Slot<W>> {
        self.slots.get(ticket.place)?.as_ref().filter(|slot| slot.number == ticket.number)
    }
}

#[cfg(test)]
mod tests;
