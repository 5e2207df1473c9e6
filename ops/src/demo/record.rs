//! What the demo itself knows: every device and every message, as its own acknowledged writes made them.
//!
//! This is what the tiers are judged by, so nothing of theirs is used: no `expr`, no `world`, and nothing that a server
//! said but that a write was done, and a message's id. Time comes in as an argument.
//!
//! Clients are the devices with the lowest indices. Each change says what clients should have from then on that they
//! should not have had before: the deliveries to wait for.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use carillon_client::MessageId;

use super::expressions::{EXPRESSIONS, Profile};

/// One content of one message. The body says both numbers, so an arriving body names its edition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Edition {
    /// The message's place in the record.
    pub(super) message: u32,
    /// Counts contents, from 1.
    pub(super) content: u32,
}

/// A client should have an edition from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) client: usize,
    pub(super) edition: Edition,
    /// When this came to be.
    pub(super) since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Starts at this time.
    Scheduled(Instant),
    /// Ends at this time, if it does so before the run is over.
    Active {
        until: Option<Instant>,
    },
    Over,
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) id: MessageId,
    /// Place in [`EXPRESSIONS`].
    pub(super) to: usize,
    pub(super) content: u32,
    pub(super) body: Arc<str>,
    pub(super) state: State,
}

impl Message {
    fn is_active(&self) -> bool {
        matches!(self.state, State::Active { .. })
    }
}

/// Whether an expression ever described, and ever passed over, a client when a message was written with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) described: bool,
    pub(super) passed_over: bool,
}

#[derive(Debug)]
pub(super) struct Record {
    devices: Vec<Profile>,
    clients: usize,
    messages: Vec<Message>,
    uses: [Use; EXPRESSIONS.len()],
}

impl Record {
    /// The first `clients` of `devices` are connected.
    pub(super) fn new(devices: Vec<Profile>, clients: usize) -> Self {
        Self { devices, clients, messages: Vec::new(), uses: Default::default() }
    }

    pub(super) fn devices(&self) -> &[Profile] {
        &self.devices
    }

    pub(super) fn messages(&self) -> &[Message] {
        &self.messages
    }

    pub(super) fn uses(&self) -> &[Use] {
        &self.uses
    }

    fn clients(&self) -> impl Iterator<Item = (usize, &Profile)> {
        self.devices[..self.clients].iter().enumerate()
    }

    fn note_use(&mut self, to: usize) {
        let describes = EXPRESSIONS[to].describes;
        let described = self.clients().filter(|(_, profile)| describes(profile)).count();
        self.uses[to].described |= described > 0;
        self.uses[to].passed_over |= described < self.clients;
    }

    /// Notes a message that was created at `at`.
    pub(super) fn created(&mut self, at: Instant, message: Message) -> Vec<Due> {
        self.note_use(message.to);
        self.messages.push(message);
        self.due_to_all_described(self.messages.len() - 1, at)
    }

    /// Notes another body of the message at this place.
    pub(super) fn content_edited(&mut self, at: Instant, place: usize, body: Arc<str>) -> Vec<Due> {
        let message = &mut self.messages[place];
        message.content += 1;
        message.body = body;
        self.due_to_all_described(place, at)
    }

    /// Notes other recipients of the message at this place. Who had it and still should gets nothing.
    pub(super) fn recipients_edited(&mut self, at: Instant, place: usize, to: usize) -> Vec<Due> {
        self.note_use(to);
        let before = std::mem::replace(&mut self.messages[place].to, to);
        let mut due = self.due_to_all_described(place, at);
        due.retain(|due| !(EXPRESSIONS[before].describes)(&self.devices[due.client]));
        due
    }

    pub(super) fn recalled(&mut self, place: usize) {
        self.messages[place].state = State::Over;
    }

    /// Notes that devices left or joined a group.
    pub(super) fn moved(
        &mut self,
        at: Instant,
        group: u16,
        join: bool,
        devices: &[usize],
    ) -> Vec<Due> {
        let mut due = Vec::new();
        for device in devices {
            let profile = &mut self.devices[*device];
            let before = profile.clone();
            match (profile.groups.binary_search(&group), join) {
                (Err(place), true) => profile.groups.insert(place, group),
                (Ok(place), false) => drop(profile.groups.remove(place)),
                (Ok(_), true) | (Err(_), false) => continue,
            }
            if *device >= self.clients {
                continue;
            }
            let (profile, messages) = (&self.devices[*device], (0..).zip(&self.messages));
            for (number, message) in messages.filter(|(_, message)| message.is_active()) {
                let describes = EXPRESSIONS[message.to].describes;
                if describes(profile) && !describes(&before) {
                    let edition = Edition { message: number, content: message.content };
                    due.push(Due { client: *device, edition, since: at });
                }
            }
        }
        due
    }

    /// When a message next starts or ends by itself.
    pub(super) fn next_change(&self) -> Option<Instant> {
        let change = |message: &Message| match message.state {
            State::Scheduled(at) => Some(at),
            State::Active { until } => until,
            State::Over => None,
        };
        self.messages.iter().filter_map(change).min()
    }

    /// Starts and ends what is due at `now`. A start counts from the time for which it was asked, so that a late one
    /// shows as a slow delivery.
    pub(super) fn pass_time(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        for place in 0..self.messages.len() {
            match self.messages[place].state {
                State::Scheduled(at) if at <= now => {
                    self.messages[place].state = State::Active { until: None };
                    due.append(&mut self.due_to_all_described(place, at));
                }
                State::Active { until: Some(at) } if at <= now => {
                    self.messages[place].state = State::Over;
                }
                State::Scheduled(_) | State::Active { .. } | State::Over => {}
            }
        }
        due
    }

    fn due_to_all_described(&self, place: usize, since: Instant) -> Vec<Due> {
        let message = &self.messages[place];
        if !message.is_active() {
            return Vec::new();
        }
        let number = u32::try_from(place).expect("fewer messages than seconds in a century");
        let edition = Edition { message: number, content: message.content };
        let describes = EXPRESSIONS[message.to].describes;
        let described = self.clients().filter(|(_, profile)| describes(profile));
        described.map(|(client, _)| Due { client, edition, since }).collect()
    }

    /// Ids and bodies of all that are active.
    pub(super) fn active(&self) -> BTreeMap<MessageId, &Message> {
        let active = self.messages.iter().filter(|message| message.is_active());
        active.map(|message| (message.id, message)).collect()
    }

    /// Exactly what a client that has come to rest holds.
    pub(super) fn should_hold(&self, client: usize) -> BTreeMap<MessageId, &Message> {
        let mut messages = self.active();
        messages.retain(|_, message| (EXPRESSIONS[message.to].describes)(&self.devices[client]));
        messages
    }
}
