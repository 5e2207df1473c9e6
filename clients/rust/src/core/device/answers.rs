//! What a device makes of answers and failures.

use bytes::Bytes;
use http::StatusCode;
use serde::de::DeserializeOwned;

#[cfg(test)]
use super::Fault;
use super::{Device, InFlight, Operation, POLL_PAUSE_MS, RequestId};
use crate::core::edges::{BACKOFF_MAX_MS, RETRY_AFTER_MAX_MS, backoff_ms, retry_after_ms};
use crate::core::event::{Event, FailureKind, Stored, WriteError};
use crate::core::gather::Gathering;
use crate::core::store::{Identity, Message, Transaction};
use crate::core::wire;
use crate::ids::{Cursor, MessageId};

type Response = http::Response<Bytes>;

impl Device {
    /// Takes an answer, whenever it comes and however often. Only a poll's is still judged when it is late, by the
    /// cursor that it was computed from; of all others only the one that is waited for counts.
    pub fn handle_response(&mut self, now: u64, id: RequestId, response: &Response) {
        let Some(flight) = self.in_flight.take_if(|flight| flight.id == id) else {
            self.handle_late(now, id, response);
            return;
        };
        match (id.operation, response.status()) {
            (_, StatusCode::UNAUTHORIZED) if id.operation != Operation::Enrol => {
                self.handle_unauthorized(now, id.operation, response);
            }
            (Operation::Enrol, StatusCode::OK | StatusCode::CREATED) => {
                self.handle_enrolled(now, &flight, response)
            }
            (Operation::Session, StatusCode::OK) => self.handle_session(now, &flight, response),
            (Operation::Poll, StatusCode::NO_CONTENT) => {
                self.edges.succeeded(flight.edge);
                self.setbacks = 0;
                self.poll_at = flight.sent_at + POLL_PAUSE_MS;
                self.events.push_back(Event::UpToDate);
            }
            (Operation::Poll, StatusCode::OK) => self.handle_polled(now, Some(&flight), response),
            (Operation::Fetch, StatusCode::OK) => self.handle_fetched(now, &flight, response),
            (Operation::Patch, StatusCode::OK) => self.handle_patched(now, &flight, response),
            (Operation::Receipts, status) if status.is_success() => {
                self.edges.succeeded(flight.edge);
                self.write_done(Ok(()));
            }
            (Operation::Forget, status) if status.is_success() => self.handle_forgotten(now),
            _ => self.handle_refused(now, &flight, response),
        }
    }

    /// The request will not be answered. Nothing is known of whether the server saw it.
    pub fn handle_failure(&mut self, now: u64, id: RequestId, kind: FailureKind) {
        if let Some(flight) = self.in_flight.take_if(|flight| flight.id == id) {
            self.failed(now, &flight, kind, None);
        }
    }

    fn handle_late(&mut self, now: u64, id: RequestId, response: &Response) {
        let known = (self.first_number..self.next_number).contains(&id.number);
        if known && id.operation == Operation::Poll && response.status() == StatusCode::OK {
            self.handle_polled(now, None, response);
        } else {
            self.events.push_back(Event::Dropped { operation: id.operation });
        }
    }

    fn handle_enrolled(&mut self, now: u64, flight: &InFlight, response: &Response) {
        let Some(enrolled) = self.parsed::<wire::Enrolled>(now, flight, response) else { return };
        let Some(identity) = self.saved().identity.clone() else { return };
        let wire::Enrolled { id, app, session, cursor } = enrolled;
        let identity = Identity { registered: Some((app, id)), session: Some(session), ..identity };
        if self.commit(now, Transaction::Begin { identity: Some(identity), cursor }) {
            self.first_number = self.next_number;
            self.events.push_back(Event::Enrolled { app, device: id });
        }
    }

    fn handle_session(&mut self, now: u64, flight: &InFlight, response: &Response) {
        let Some(given) = self.parsed::<wire::SessionGiven>(now, flight, response) else { return };
        if self.commit(now, Transaction::Session(Some(given.session))) {
            self.events.push_back(Event::SessionRenewed);
        }
    }

    fn handle_polled(&mut self, now: u64, flight: Option<&InFlight>, response: &Response) {
        let answer = match flight {
            Some(flight) => self.parsed::<wire::Answer>(now, flight, response),
            None => serde_json::from_slice(response.body()).ok(),
        };
        let Some(mut answer) = answer else { return };
        if self.drops(&answer.after) {
            self.events.push_back(Event::Dropped { operation: Operation::Poll });
            if let Some(flight) = flight
                && flight.cursor != answer.after
            {
                // Not late but wrong: something between us and the server mixes answers up.
                self.misled(now, flight);
            }
            return;
        }
        let Some(inventory) = answer.inventory.take() else {
            let store = answer.messages.into_iter().map(Into::into).collect();
            #[cfg(test)]
            if self.breaks(Fault::KeepGone) {
                answer.gone.clear();
            }
            self.store_answer(
                now,
                &answer.after,
                store,
                answer.gone,
                answer.cursor,
                false,
                answer.poll_after,
            );
            return;
        };
        let gathering = Gathering::new(answer, inventory, self.saved());
        if gathering.is_whole() {
            self.store_gathering(now, gathering);
        } else if flight.is_some() {
            #[cfg(test)]
            if self.breaks(Fault::CursorFirst) {
                self.commit(now, Transaction::Cursor(gathering.cursor.clone()));
            }
            self.gathering = Some(gathering);
        } else {
            // Late, and bodies would have to be fetched: the next poll brings a younger inventory.
            self.events.push_back(Event::Dropped { operation: Operation::Poll });
        }
    }

    /// Whether an answer computed from `after` must not be stored at this moment.
    fn drops(&self, after: &Option<Cursor>) -> bool {
        let writing = self.in_flight.as_ref().is_some_and(|flight| {
            matches!(flight.id.operation, Operation::Patch | Operation::Forget)
        });
        let late = *after != self.saved().cursor;
        #[cfg(test)]
        match self.fault {
            Some(Fault::ApplyLate) => return false,
            Some(Fault::WriteMovesHeld) => return late,
            _ => {}
        }
        writing || late
    }

    fn handle_fetched(&mut self, now: u64, flight: &InFlight, response: &Response) {
        let Some(fetched) = self.parsed::<wire::Fetched>(now, flight, response) else { return };
        let Some(mut gathering) = self.gathering.take() else { return };
        if gathering.take(fetched).is_err() {
            self.misled(now, flight);
        } else if gathering.is_whole() {
            self.store_gathering(now, gathering);
        } else {
            self.gathering = Some(gathering);
        }
    }

    fn store_gathering(&mut self, now: u64, gathering: Gathering) {
        let (after, cursor) = (gathering.after.clone(), gathering.cursor.clone());
        let poll_after = gathering.poll_after;
        #[cfg_attr(not(test), expect(unused_mut, reason = "a planted fault changes it"))]
        let (store, mut remove) = gathering.into_changes(self.saved());
        #[cfg(test)]
        {
            if self.breaks(Fault::KeepUnlisted) {
                remove.clear();
            }
            if self.breaks(Fault::CursorFirst) {
                let after = self.saved().cursor.clone();
                self.store_answer(now, &after, store, remove, cursor, true, poll_after);
                return;
            }
        }
        self.store_answer(now, &after, store, remove, cursor, true, poll_after);
    }

    /// Stores an answer whole, in one transaction with its cursor, if it was computed from the cursor held now.
    #[expect(clippy::too_many_arguments, reason = "the parts of one answer")]
    fn store_answer(
        &mut self,
        now: u64,
        after: &Option<Cursor>,
        store: Vec<(MessageId, Message)>,
        remove: Vec<MessageId>,
        cursor: Cursor,
        inventory: bool,
        poll_after: f64,
    ) {
        if self.drops(after) {
            self.events.push_back(Event::Dropped { operation: Operation::Poll });
            return;
        }
        let held = &self.saved().messages;
        // Delivery is at least once: what is here with the same tag is a repeat.
        let repeat = |id: &MessageId, message: &Message| {
            held.get(id).is_some_and(|old| old.tag == message.tag)
        };
        let store: Vec<_> =
            store.into_iter().filter(|(id, message)| !repeat(id, message)).collect();
        let gone: Vec<_> = remove.into_iter().filter(|id| held.contains_key(id)).collect();
        let messages = store
            .iter()
            .map(|(id, message)| Stored { id: *id, tag: message.tag, body: message.body.clone() })
            .collect();
        if self.commit(now, Transaction::Answer { store, remove: gone.clone(), cursor }) {
            self.setbacks = 0;
            self.poll_at = now + pause_ms(poll_after);
            self.events.push_back(Event::Stored { messages, gone, inventory });
        }
    }

    fn handle_patched(&mut self, now: u64, flight: &InFlight, response: &Response) {
        let Some(patched) = self.parsed::<wire::Patched>(now, flight, response) else { return };
        let matches = patched.after == self.saved().cursor;
        #[cfg(test)]
        let matches =
            matches || self.breaks(Fault::WriteMovesHeld) || self.breaks(Fault::ApplyLate);
        if let Some(cursor) = patched.cursor
            && matches
            && !self.commit(now, Transaction::Cursor(cursor))
        {
            return;
        }
        self.write_done(Ok(()));
    }

    fn handle_forgotten(&mut self, now: u64) {
        if self.commit(now, Transaction::Begin { identity: None, cursor: None }) {
            self.done = true;
            self.first_number = self.next_number;
            self.gathering = None;
            self.write_done(Ok(()));
            self.drop_writes();
            self.events.push_back(Event::Forgotten);
        }
    }

    fn handle_unauthorized(&mut self, now: u64, operation: Operation, response: &Response) {
        let problem = wire::problem(response);
        if problem.code == "unknown" {
            if operation == Operation::Forget {
                return self.handle_forgotten(now);
            }
            return self.handle_unknown(now);
        }
        if operation == Operation::Session {
            // The secret itself is refused. An operator may repair that; asking often does not.
            let pause = wire::retry_after_ms(response.headers()).unwrap_or(BACKOFF_MAX_MS);
            self.set_back(now, Some(pause));
            self.events.push_back(Event::Refused { operation, problem });
            return;
        }
        if self.commit(now, Transaction::Session(None)) {
            self.set_back_after_first(now);
        }
    }

    /// Drops everything. With a key, the device enrols again under another secret.
    fn handle_unknown(&mut self, now: u64) {
        let registered = self.saved().identity.as_ref().and_then(|identity| identity.registered);
        if !self.commit(now, Transaction::Begin { identity: None, cursor: None }) {
            return;
        }
        self.first_number = self.next_number;
        self.gathering = None;
        self.drop_writes();
        self.done = self.config.app_key.is_none();
        self.set_back_after_first(now);
        if let Some((app, device)) = registered {
            self.events.push_back(Event::Unknown { app, device });
        }
    }

    /// Any other status.
    fn handle_refused(&mut self, now: u64, flight: &InFlight, response: &Response) {
        let operation = flight.id.operation;
        let retry_after = wire::retry_after_ms(response.headers());
        let problem = wire::problem(response);
        let kind = FailureKind::Status(problem.status);
        let is_write = operation.is_write();
        match response.status() {
            StatusCode::BAD_REQUEST if problem.code == "bad-cursor" && flight.cursor.is_some() => {
                self.gathering = None;
                // A fetch's cursor is not the one held: the next poll tells what that one is worth.
                if operation == Operation::Fetch {
                    self.set_back_after_first(now);
                } else if self.commit(now, Transaction::Clear) {
                    self.set_back_after_first(now);
                    self.events.push_back(Event::Cleared);
                }
            }
            StatusCode::CONFLICT if operation == Operation::Fetch => {
                self.gathering = None;
                self.set_back_after_first(now);
                self.events.push_back(Event::Dropped { operation });
            }
            StatusCode::TOO_MANY_REQUESTS if is_write => self.rest_write(now, retry_after),
            StatusCode::TOO_MANY_REQUESTS => {
                self.set_back(now, retry_after);
                self.events.push_back(Event::Failed { operation, edge: flight.edge, kind });
            }
            // Not this edge but what stands behind all of them: the edge goes on answering polls.
            StatusCode::SERVICE_UNAVAILABLE if is_write && problem.code != "behind" => {
                self.rest_write(now, retry_after);
                self.events.push_back(Event::Failed { operation, edge: flight.edge, kind });
            }
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                #[cfg(test)]
                if operation == Operation::Fetch && self.breaks(Fault::StoreHalf) {
                    self.store_half(now);
                }
                if operation == Operation::Fetch {
                    self.give_up_gathering();
                }
                self.failed(now, flight, kind, retry_after);
            }
            _ if is_write => self.write_done(Err(WriteError::Refused(problem))),
            _ => {
                self.gathering = None;
                self.set_back(now, Some(retry_after.unwrap_or(BACKOFF_MAX_MS)));
                self.events.push_back(Event::Refused { operation, problem });
            }
        }
    }

    /// The edge is behind what has been gathered: the inventory is dropped whole, and asked for again.
    fn give_up_gathering(&mut self) {
        self.gathering = None;
        self.events.push_back(Event::Dropped { operation: Operation::Fetch });
    }

    #[cfg(test)]
    fn store_half(&mut self, now: u64) {
        if let Some(mut gathering) = self.gathering.take() {
            gathering.give_up();
            self.store_gathering(now, gathering);
        }
    }

    fn rest_write(&mut self, now: u64, retry_after: Option<u64>) {
        if let Some(write) = self.outbox.front_mut() {
            write.failures = write.failures.saturating_add(1);
            write.rests_until = now
                + match retry_after {
                    Some(asked) => retry_after_ms(asked, &mut self.random),
                    None => backoff_ms(write.failures, &mut self.random),
                };
        }
    }

    fn write_done(&mut self, result: Result<(), WriteError>) {
        if let Some(write) = self.outbox.pop() {
            self.events.push_back(Event::Written { write, result });
        }
    }

    fn drop_writes(&mut self) {
        while let Some(write) = self.outbox.pop() {
            self.events.push_back(Event::Written { write, result: Err(WriteError::DeviceGone) });
        }
    }

    /// The edge is to blame, or the way to it: the next one is asked.
    fn failed(&mut self, now: u64, flight: &InFlight, kind: FailureKind, retry_after: Option<u64>) {
        let (operation, edge) = (flight.id.operation, flight.edge);
        self.edges.failed(now, edge, retry_after, &mut self.random);
        if operation.is_write() {
            // Polls go on between its attempts, even if every attempt takes all the time it may.
            self.rest_write(now, retry_after);
        }
        self.events.push_back(Event::Failed { operation, edge, kind });
    }

    /// A well-formed answer that does not fit the request.
    fn misled(&mut self, now: u64, flight: &InFlight) {
        self.set_back(now, None);
        let kind = FailureKind::Malformed;
        self.events.push_back(Event::Failed {
            operation: flight.id.operation,
            edge: flight.edge,
            kind,
        });
    }

    /// Nobody's edge is to blame: the device pauses.
    pub(super) fn set_back(&mut self, now: u64, retry_after: Option<u64>) {
        self.setbacks = self.setbacks.saturating_add(1);
        let pause = match retry_after {
            Some(asked) => retry_after_ms(asked, &mut self.random),
            None => backoff_ms(self.setbacks, &mut self.random),
        };
        self.rests_until = self.rests_until.max(now + pause);
    }

    /// What is part of a normal life is done at once the first time; only in a row does it earn a pause.
    fn set_back_after_first(&mut self, now: u64) {
        if self.setbacks == 0 {
            self.setbacks = 1;
        } else {
            self.set_back(now, None);
        }
    }

    /// The body of a good answer. One that does not parse, cut short for instance, is a failure of the edge.
    fn parsed<T: DeserializeOwned>(
        &mut self,
        now: u64,
        flight: &InFlight,
        response: &Response,
    ) -> Option<T> {
        match serde_json::from_slice(response.body()) {
            Ok(parsed) => {
                self.edges.succeeded(flight.edge);
                Some(parsed)
            }
            Err(_) => {
                self.failed(now, flight, FailureKind::Malformed, None);
                None
            }
        }
    }
}

/// Milliseconds, from the seconds of `poll_after`.
pub(super) fn pause_ms(poll_after: f64) -> u64 {
    // Saturates; a number that is negative gives 0.
    ((poll_after * 1_000.0) as u64).min(RETRY_AFTER_MAX_MS)
}
