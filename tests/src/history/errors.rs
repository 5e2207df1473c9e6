//! Errors that a broker did not mean: a proxy before it has answers to Produce say them.
//!
//! The records of such an answer are in the topic all the same, which is the worse case for whoever sends them again: an
//! error that tells of nothing taken is what librdkafka's own cluster serves for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::proxy::{Chunk, Direction, Fate, Proxy};

/// The key of Produce.
const PRODUCE: i16 = 0;
/// From this version of Produce on lengths are variable, and there are tagged fields.
const FLEXIBLE: i16 = 9;

/// What answers to Produce say, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum BrokerError {
    CorruptMessage = 2,
    NotLeader = 6,
    RequestTimedOut = 7,
    NotEnoughReplicas = 19,
    /// Ends the client's attempt for good.
    TopicAuthorizationFailed = 29,
    /// Ends an idempotent client.
    OutOfOrderSequence = 45,
    StorageError = 56,
}

impl BrokerError {
    pub const ALL: [BrokerError; 7] = [
        BrokerError::CorruptMessage,
        BrokerError::NotLeader,
        BrokerError::RequestTimedOut,
        BrokerError::NotEnoughReplicas,
        BrokerError::TopicAuthorizationFailed,
        BrokerError::OutOfOrderSequence,
        BrokerError::StorageError,
    ];
}

/// Injects errors into what passes a proxy.
#[derive(Clone, Debug, Default)]
pub struct BrokerErrors(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    /// For the next answers.
    waiting: VecDeque<BrokerError>,
    injected: u64,
    connections: HashMap<u64, Connection>,
}

#[derive(Debug, Default)]
struct Connection {
    up: Vec<u8>,
    /// Bytes of a request that are of no interest.
    skip: usize,
    down: Vec<u8>,
    /// Versions of requests to produce that are not answered, by their numbers.
    asked: HashMap<i32, i16>,
}

impl BrokerErrors {
    /// To be called before anybody connects, since connections are followed from their begin.
    pub fn at(proxy: &Proxy) -> BrokerErrors {
        let errors = BrokerErrors::default();
        let shared = errors.clone();
        proxy.tap(move |chunk| shared.with(|shared| shared.judge(chunk)));
        errors
    }

    /// The next answers to Produce say these.
    pub fn inject(&self, errors: &[BrokerError]) {
        self.with(|shared| shared.waiting.extend(errors));
    }

    /// Errors that no answer was there for are forgotten.
    pub fn relent(&self) {
        self.with(|shared| shared.waiting.clear());
    }

    /// Answers that were altered so far.
    pub fn injected(&self) -> u64 {
        self.with(|shared| shared.injected)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Shared) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shared {
    fn judge(&mut self, chunk: &Chunk<'_>) -> Fate {
        let connection = self.connections.entry(chunk.connection).or_default();
        if chunk.direction == Direction::Up {
            connection.requests(chunk.bytes);
            return Fate::Pass;
        }
        connection.down.extend_from_slice(chunk.bytes);
        let mut whole = 0;
        while let Some(frame) = frame(&connection.down[whole..]) {
            let answer = &mut connection.down[whole + 4..whole + 4 + frame];
            whole += 4 + frame;
            let Some(number) = answer.first_chunk().map(|number| i32::from_be_bytes(*number))
            else {
                continue;
            };
            let Some(version) = connection.asked.remove(&number) else { continue };
            let Some(error) = self.waiting.front() else { continue };
            // Without a topic it has no room for an error.
            if let Some(at) = error_at(answer, version) {
                answer[at..at + 2].copy_from_slice(&(*error as i16).to_be_bytes());
                self.waiting.pop_front();
                self.injected += 1;
            }
        }
        Fate::Instead(connection.down.drain(..whole).collect::<Vec<_>>().into())
    }
}

impl Connection {
    /// Takes note of requests to produce.
    fn requests(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            // Length, key, version and number.
            let taken = (12 - self.up.len()).min(bytes.len());
            self.up.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            let Some(head) = self.up.first_chunk::<12>() else { return };
            let length = usize::try_from(i32::from_be_bytes([head[0], head[1], head[2], head[3]]))
                .expect("a client of ours");
            if i16::from_be_bytes([head[4], head[5]]) == PRODUCE {
                let version = i16::from_be_bytes([head[6], head[7]]);
                let number = i32::from_be_bytes([head[8], head[9], head[10], head[11]]);
                self.asked.insert(number, version);
            }
            self.skip = length - 8;
            self.up.clear();
        }
    }
}

/// How long the frame is that bytes begin with, its own four bytes of length not counted; `None` if it is not whole.
fn frame(bytes: &[u8]) -> Option<usize> {
    let length = usize::try_from(i32::from_be_bytes(*bytes.first_chunk()?)).ok()?;
    (bytes.len() >= 4 + length).then_some(length)
}

/// Where an answer to Produce has the error of its first partition.
fn error_at(answer: &[u8], version: i16) -> Option<usize> {
    let is_flexible = version >= FLEXIBLE;
    // Behind the number of the answer, and its tagged fields, of which nobody sends any.
    let mut at = if is_flexible { 5 } else { 4 };
    let topics = length(answer, &mut at, is_flexible, 4)?;
    let name = length(answer, &mut at, is_flexible, 2)?;
    at += name;
    let partitions = length(answer, &mut at, is_flexible, 4)?;
    at += 4;
    (topics > 0 && partitions > 0 && at + 2 <= answer.len()).then_some(at)
}

/// A length of so many bytes, or a variable one, which says one more than it is.
fn length(answer: &[u8], at: &mut usize, is_flexible: bool, bytes: usize) -> Option<usize> {
    let mut value = 0;
    if !is_flexible {
        for byte in answer.get(*at..*at + bytes)? {
            value = value << 8 | usize::from(*byte);
        }
        *at += bytes;
        return Some(value);
    }
    for shift in [0, 7, 14, 21, 28] {
        let byte = *answer.get(*at)?;
        *at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn frame_of(body: &[u8]) -> Vec<u8> {
        let mut frame = i32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(body);
        frame
    }

    fn request(key: i16, version: i16, number: i32) -> Vec<u8> {
        let mut body = key.to_be_bytes().to_vec();
        body.extend(version.to_be_bytes());
        body.extend(number.to_be_bytes());
        body.extend([7; 40]);
        frame_of(&body)
    }

    /// One topic with one partition, and where its error stands.
    fn answer(number: i32, version: i16) -> (Vec<u8>, usize) {
        let mut body = number.to_be_bytes().to_vec();
        if version >= FLEXIBLE {
            body.extend([0, 2, 3, b'a', b'b', 2]);
        } else {
            body.extend([0, 0, 0, 1, 0, 2, b'a', b'b', 0, 0, 0, 1]);
        }
        body.extend(5_i32.to_be_bytes());
        let at = 4 + body.len();
        body.extend([0; 10]);
        (frame_of(&body), at)
    }

    fn down(shared: &mut Shared, bytes: &[u8]) -> Bytes {
        let chunk = Chunk { connection: 3, direction: Direction::Down, bytes };
        match shared.judge(&chunk) {
            Fate::Instead(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_answers_to_produce_are_altered_however_they_are_cut() {
        for version in [3, 8, 9, 10] {
            for cut in [1, 3, 5, 11, 1000] {
                let mut shared = Shared::default();
                let asked =
                    [request(PRODUCE, version, 1), request(3, 9, 2), request(0, version, 3)];
                for bytes in asked.concat().chunks(cut) {
                    let chunk = Chunk { connection: 3, direction: Direction::Up, bytes };
                    assert_eq!(shared.judge(&chunk), Fate::Pass);
                }
                shared.waiting.push_back(BrokerError::NotLeader);
                let ((first, at), (other, _), (last, _)) =
                    (answer(1, version), answer(2, 9), answer(3, version));
                let said = [first.clone(), other.clone(), last.clone()].concat();
                let heard: Vec<u8> =
                    said.chunks(cut).flat_map(|bytes| down(&mut shared, bytes)).collect();
                let mut altered = first;
                altered[at + 1] = 6;
                assert_eq!(heard, [altered, other, last].concat(), "{version} {cut}");
                assert_eq!((shared.injected, shared.waiting.len()), (1, 0));
            }
        }
    }
}
