//! One device: what it asks next, and what it makes of the answers.
//!
//! What always holds: an answer is stored whole, in one transaction with its cursor, and only if it was computed from
//! the cursor held at that moment; while a write of the profile is unanswered no poll's answer is stored, so that the
//! cursor of the write's answer can be taken; at most one request is under way. A poll is given up for a write, because
//! its answer would be dropped anyway.
//!
//! The caller asks [`Device::poll_request`], does what it says, hands answers and failures in, and reads
//! [`Device::poll_event`]. Times are milliseconds of any clock that never runs back.

mod answers;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use http::Method;

use super::edges::Edges;
use super::event::{Event, FailureKind};
use super::gather::Gathering;
use super::outbox::{Command, CommandError, Outbox, Profile, WriteId};
use super::random::Random;
use super::store::{Identity, MessageStore, Saved, Transaction};
use super::wire;
use crate::ids::{Cursor, Secret};

/// Most that an answer's body may have; the shell stops reading there. An inventory is 256 KiB of bodies and some
/// 40 bytes a message, so this is room for 400,000 messages.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long an answer may take beyond the time that the request asked the server to wait.
const ANSWER_MS_MAX: u64 = 15_000;
/// Polls begin at least this far apart, so that a server that does not hold them is not hammered.
const POLL_PAUSE_MS: u64 = 1_000;
/// Longest wait that a server accepts.
const WAIT_S_MAX: u64 = 60;

/// Makes a secret of 256 bits that nobody can guess.
pub type SecretSource = Box<dyn FnMut() -> Secret + Send>;

/// What a device is told at the start.
#[derive(Clone, Debug)]
pub struct DeviceConfig {
    /// The app's publishable key. Without one a device that the server does not know is lost.
    pub app_key: Option<String>,
    /// What it says of itself when it enrols.
    pub profile: Profile,
    /// How many edges there are; requests name one by its place, from 0.
    pub edges: usize,
    /// Seconds for which the server may hold a poll, 60 at most.
    pub wait_s: u64,
    /// For jitter, for receipt ids and for the edge to start at. Never the same twice, outside of tests.
    pub seed: u64,
}

impl Default for DeviceConfig {
    fn default() -> DeviceConfig {
        DeviceConfig { app_key: None, profile: Profile::default(), edges: 1, wait_s: 30, seed: 0 }
    }
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Enrol,
    Session,
    Poll,
    Fetch,
    Patch,
    Receipts,
    Forget,
}

impl Operation {
    fn is_write(self) -> bool {
        matches!(self, Operation::Patch | Operation::Receipts | Operation::Forget)
    }
}

/// A request of this device, never the same twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    number: u64,
    operation: Operation,
}

impl RequestId {
    pub const fn operation(self) -> Operation {
        self.operation
    }
}

/// A request to send.
#[derive(Debug)]
pub struct Request {
    pub id: RequestId,
    /// The place of the edge to ask, from 0.
    pub edge: usize,
    /// The URI is the path alone.
    pub http: http::Request<Bytes>,
}

/// What the caller does next.
#[derive(Debug)]
#[must_use]
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart at once, and a box would be an allocation a request"
)]
pub enum Next {
    Send(Request),
    /// No longer wait for this answer; over HTTP/1.1 that closes its connection. Then ask again.
    Abort(RequestId),
    /// Ask again at this time, or after an answer, a failure or a command.
    WaitUntil(u64),
    /// Nothing will happen again: the device was forgotten, or is unknown and has no key to enrol with.
    Done,
}

/// How far the device is with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not enrolled yet.
    Nobody,
    /// Enrolled; a session is asked for.
    WithoutSession,
    /// It can poll and write.
    Ready,
    /// Nothing will happen again.
    Done,
}

#[derive(Debug)]
struct InFlight {
    id: RequestId,
    edge: usize,
    sent_at: u64,
    /// No answer counts from here on.
    deadline: u64,
    /// The cursor presented.
    cursor: Option<Cursor>,
}

/// Rules of section 5 of the design that a test breaks, to see that it would notice.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Answers are stored whatever they were computed from.
    ApplyLate,
    /// Poll answers are stored while a write is unanswered, and the write's cursor is then taken all the same.
    WriteMovesHeld,
    /// An inventory is stored although bodies are missing, if an edge says that it is behind.
    StoreHalf,
    /// The cursor is stored before the bodies are fetched.
    CursorFirst,
    /// What an inventory does not list stays.
    KeepUnlisted,
    /// `gone` is not heeded.
    KeepGone,
}

/// One device's protocol.
pub struct Device {
    config: DeviceConfig,
    store: Box<dyn MessageStore>,
    secrets: SecretSource,
    random: Random,
    edges: Edges,
    in_flight: Option<InFlight>,
    gathering: Option<Gathering>,
    outbox: Outbox,
    events: VecDeque<Event>,
    /// Number of the next request.
    next_number: u64,
    /// Requests below were sent by who this device was before it enrolled (again).
    first_number: u64,
    /// No request before this time.
    rests_until: u64,
    /// No poll before this time.
    poll_at: u64,
    /// Setbacks in a row that no edge is to blame for: refusals, lost sessions, inventories given up.
    setbacks: u32,
    done: bool,
    #[cfg(test)]
    fault: Option<Fault>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("standing", &self.standing())
            .field("in_flight", &self.in_flight)
            .field("gathering", &self.gathering.is_some())
            .field("writes", &self.outbox.len())
            .finish_non_exhaustive()
    }
}

impl Device {
    /// A device that goes on from what `store` holds: it enrols if that is nothing.
    pub fn new(
        config: DeviceConfig,
        store: Box<dyn MessageStore>,
        secrets: SecretSource,
    ) -> Device {
        let mut random = Random::new(config.seed);
        Device {
            edges: Edges::new(config.edges, &mut random),
            config,
            store,
            secrets,
            random,
            in_flight: None,
            gathering: None,
            outbox: Outbox::default(),
            events: VecDeque::new(),
            next_number: 0,
            first_number: 0,
            rests_until: 0,
            poll_at: 0,
            setbacks: 0,
            done: false,
            #[cfg(test)]
            fault: None,
        }
    }

    /// Everything that the device holds.
    pub fn saved(&self) -> &Saved {
        self.store.saved()
    }

    pub fn standing(&self) -> Standing {
        match &self.saved().identity {
            _ if self.done => Standing::Done,
            Some(Identity { registered: Some(_), session: Some(_), .. }) => Standing::Ready,
            Some(Identity { registered: Some(_), session: None, .. }) => Standing::WithoutSession,
            _ => Standing::Nobody,
        }
    }

    /// Takes a write; it is sent as soon as the device can, and repeated until it is answered for good.
    ///
    /// # Errors
    /// If it is not taken. Then nothing follows; else [`Event::Written`] does.
    pub fn command(&mut self, command: &Command) -> Result<WriteId, CommandError> {
        if self.done {
            return Err(CommandError::Forgotten);
        }
        self.outbox.push(command, &mut self.random)
    }

    /// Writes that are not answered for good yet, at most [`WRITES_MAX`](super::WRITES_MAX).
    pub fn writes_waiting(&self) -> usize {
        self.outbox.len()
    }

    /// What happened since it was asked last.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What to do at `now`. To be asked again after whatever it said was done, and after each input.
    pub fn poll_request(&mut self, now: u64) -> Next {
        if let Some(flight) = &self.in_flight {
            return self.poll_in_flight(now, flight.id, flight.deadline);
        }
        let operation = match self.standing() {
            Standing::Done => return Next::Done,
            Standing::Nobody => Operation::Enrol,
            Standing::WithoutSession => Operation::Session,
            Standing::Ready if self.gathering.is_some() => Operation::Fetch,
            Standing::Ready => match self.outbox.front() {
                Some(write) if write.rests_until <= now => write.operation,
                _ => Operation::Poll,
            },
        };
        let mut at = self.rests_until.max(self.edges.free_at());
        if operation == Operation::Poll {
            at = at.max(self.poll_at);
            if let Some(write) = self.outbox.front() {
                at = at.min(write.rests_until.max(self.rests_until).max(self.edges.free_at()));
            }
        }
        if now < at {
            return Next::WaitUntil(at);
        }
        match self.edges.pick(now) {
            Some(edge) => self.send(now, edge, operation),
            None => Next::WaitUntil(self.edges.free_at()),
        }
    }

    fn poll_in_flight(&mut self, now: u64, id: RequestId, deadline: u64) -> Next {
        if now >= deadline {
            self.handle_failure(now, id, FailureKind::Timeout);
            return Next::Abort(id);
        }
        let mut at = deadline;
        if let (Operation::Poll, Some(write)) = (id.operation, self.outbox.front()) {
            let due = write.rests_until.max(self.rests_until);
            if due <= now {
                self.in_flight = None;
                return Next::Abort(id);
            }
            at = at.min(due);
        }
        Next::WaitUntil(at)
    }

    fn send(&mut self, now: u64, edge: usize, operation: Operation) -> Next {
        if operation == Operation::Enrol && self.saved().identity.is_none() {
            // Saved before it is sent: a repeat after a crash finds the same device.
            let identity = Identity { secret: (self.secrets)(), registered: None, session: None };
            if !self.commit(now, Transaction::Begin { identity: Some(identity), cursor: None }) {
                return Next::WaitUntil(self.rests_until);
            }
        }
        let Some((http, cursor)) = self.request(operation) else {
            self.done = true;
            return Next::Done;
        };
        let wait_ms = if operation == Operation::Poll { self.wait_s() * 1_000 } else { 0 };
        let id = RequestId { number: self.next_number, operation };
        self.next_number += 1;
        self.in_flight = Some(InFlight {
            id,
            edge,
            sent_at: now,
            deadline: now + wait_ms + ANSWER_MS_MAX,
            cursor,
        });
        Next::Send(Request { id, edge, http })
    }

    fn wait_s(&self) -> u64 {
        self.config.wait_s.min(WAIT_S_MAX)
    }

    /// The request and the cursor it presents. `None` if there is no key to enrol with.
    fn request(&self, operation: Operation) -> Option<(http::Request<Bytes>, Option<Cursor>)> {
        let saved = self.saved();
        let identity = saved.identity.as_ref();
        let session = identity.and_then(|identity| identity.session.as_ref());
        let held = saved.cursor.as_ref();
        let (method, path, session, cursor, body) = match operation {
            Operation::Enrol => {
                let key = self.config.app_key.as_deref()?;
                let body = wire::EnrolBody {
                    key,
                    secret: &identity?.secret,
                    profile: &self.config.profile,
                };
                (Method::POST, "/v1/devices".into(), None, None, Some(wire::encode(&body)))
            }
            Operation::Session => {
                let Identity { secret, registered, .. } = identity?;
                let (app, id) = (*registered)?;
                let body = wire::SessionBody { app, id, secret };
                (Method::POST, "/v1/devices/session".into(), None, None, Some(wire::encode(&body)))
            }
            Operation::Poll => {
                let wait = self.wait_s();
                (Method::GET, format!("/v1/messages?wait={wait}"), session, held, None)
            }
            Operation::Fetch => {
                let gathering = self.gathering.as_ref()?;
                let body = wire::encode(&wire::FetchBody { ids: gathering.wanted() });
                (
                    Method::POST,
                    "/v1/messages:fetch".into(),
                    session,
                    Some(&gathering.cursor),
                    Some(body),
                )
            }
            Operation::Patch | Operation::Receipts | Operation::Forget => {
                let write = self.outbox.front()?;
                let presented = held.filter(|_| write.operation == Operation::Patch);
                (
                    write.method.clone(),
                    write.path.to_owned(),
                    session,
                    presented,
                    write.body.clone(),
                )
            }
        };
        Some((wire::request(method, &path, session, cursor, body), cursor.cloned()))
    }

    /// Makes a transaction durable. If that fails, the device pauses and asks again for what it was about.
    fn commit(&mut self, now: u64, transaction: Transaction) -> bool {
        match self.store.commit(transaction) {
            Ok(()) => true,
            Err(error) => {
                self.events.push_back(Event::StoreFailed(error));
                self.set_back(now, None);
                false
            }
        }
    }

    #[cfg(test)]
    fn breaks(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}
