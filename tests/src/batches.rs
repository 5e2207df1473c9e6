//! Central's batches as a proxy before a MariaDB server sees them: where one begins, where its COMMIT has gone to the
//! server, and which bytes are the server's word that it is committed.
//!
//! It reads frames of the MySQL protocol (four bytes of header, then the payload) from each connection's first byte on,
//! and of their content only what tells these three. Statements of a batch return no rows, so each answer is an OK or an
//! error.

use std::collections::HashMap;

use crate::proxy::{Chunk, Direction};

/// How the text of a batch begins: `persist/src/mysql/script.rs`.
const BEGINS: &[u8] = b"\x03START TRANSACTION;\nUPDATE lease SET head = ";
const ENDS: &[u8] = b";\nCOMMIT";
const HEADER_BYTES: usize = 4;
/// A frame of so many bytes goes on in the next.
const FRAME_BYTES_MAX: usize = 0xff_ffff;
const ERR: u8 = 0xff;
/// `SERVER_MORE_RESULTS_EXISTS`
const MORE_RESULTS: u16 = 0x0008;

/// What a chunk brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The first statement of a batch is in it or was, and its answer is not whole.
    pub in_batch: bool,
    /// The first statement of a batch begins here.
    pub begins: bool,
    /// With this chunk the batch's COMMIT is whole.
    pub commit_sent: bool,
    /// The server's answer to COMMIT is in it, from this byte on.
    pub commit_answered: Option<usize>,
}

/// All connections of a proxy. Feed it from their first bytes on.
#[derive(Debug, Default)]
pub struct Batches {
    wires: HashMap<u64, Wire>,
}

#[derive(Debug, Default)]
struct Wire {
    up: Frames,
    down: Frames,
    in_batch: bool,
    /// The packet under way or answered next ends with COMMIT.
    commits: bool,
}

impl Batches {
    pub fn feed(&mut self, chunk: &Chunk<'_>) -> Seen {
        let wire = self.wires.entry(chunk.connection).or_default();
        match chunk.direction {
            Direction::Up => wire.up(chunk.bytes),
            Direction::Down => wire.down(chunk.bytes),
        }
    }

    /// Whether any batch has begun whose answer is not whole.
    pub fn any_in_flight(&self) -> bool {
        self.wires.values().any(|wire| wire.in_batch)
    }

    /// Forgets all connections: they have ended.
    pub fn clear(&mut self) {
        self.wires.clear();
    }
}

impl Wire {
    fn up(&mut self, bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        self.up.feed(bytes);
        loop {
            if !self.in_batch && self.up.payload().starts_with(BEGINS) {
                self.in_batch = true;
                self.commits = false;
                seen.begins = true;
            }
            let Some((payload, _)) = self.up.next_payload() else { break };
            if self.in_batch && payload.ends_with(ENDS) {
                self.commits = true;
                seen.commit_sent = true;
            }
        }
        seen.in_batch = self.in_batch;
        seen
    }

    fn down(&mut self, bytes: &[u8]) -> Seen {
        let mut seen = Seen { in_batch: self.in_batch, ..Seen::default() };
        self.down.feed(bytes);
        while let Some((payload, at)) = self.down.next_payload() {
            if !self.in_batch {
                continue;
            }
            let failed = payload.first() == Some(&ERR);
            let is_last = failed || status(&payload).is_some_and(|flags| flags & MORE_RESULTS == 0);
            if is_last && !failed && self.commits {
                seen.commit_answered = Some(at);
            }
            if is_last && (failed || self.commits) {
                self.in_batch = false;
            }
        }
        seen
    }
}

/// The server's status in an OK: after its first byte and two numbers of variable length.
fn status(payload: &[u8]) -> Option<u16> {
    let rest = payload.strip_prefix(&[0])?;
    let rest = skip_number(skip_number(rest)?)?;
    Some(u16::from_le_bytes([*rest.first()?, *rest.get(1)?]))
}

fn skip_number(bytes: &[u8]) -> Option<&[u8]> {
    let more = match bytes.first()? {
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => 0,
    };
    bytes.get(1 + more..)
}

/// One direction, cut into payloads.
#[derive(Debug, Default)]
struct Frames {
    buffer: Vec<u8>,
    /// Bytes of the last chunk; those of `buffer` end with them.
    fed: usize,
}

impl Frames {
    fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.fed = bytes.len();
    }

    /// What is there of the payload under way.
    fn payload(&self) -> &[u8] {
        self.buffer.get(HEADER_BYTES..).unwrap_or_default()
    }

    /// The next whole payload, and at which byte of the last chunk its frame begins.
    fn next_payload(&mut self) -> Option<(Vec<u8>, usize)> {
        let header = self.buffer.get(..HEADER_BYTES)?;
        let bytes = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
        assert!(bytes < FRAME_BYTES_MAX, "a payload of many frames is not looked for");
        let at = self.fed.saturating_sub(self.buffer.len());
        let payload = self.buffer.get(HEADER_BYTES..HEADER_BYTES + bytes)?.to_vec();
        self.buffer.drain(..HEADER_BYTES + bytes);
        Some((payload, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_le_bytes()[..3].to_vec();
        bytes.push(0);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn ok(more: bool) -> Vec<u8> {
        frame(&[0, 0xfc, 1, 1, 0, if more { 10 } else { 2 }, 0, 0, 0])
    }

    fn feed(batches: &mut Batches, direction: Direction, bytes: &[u8]) -> Seen {
        batches.feed(&Chunk { connection: 3, direction, bytes })
    }

    #[test]
    fn a_batch_is_seen_from_its_first_statement_to_the_answer_to_its_commit() {
        let mut batches = Batches::default();
        let up = |batches: &mut _, bytes: &[u8]| feed(batches, Direction::Up, bytes);
        let down = |batches: &mut _, bytes: &[u8]| feed(batches, Direction::Down, bytes);
        assert_eq!(up(&mut batches, &frame(b"\x03SELECT 1;\nCOMMIT")), Seen::default());
        assert_eq!(down(&mut batches, &ok(false)), Seen::default());
        let text = b"\x03START TRANSACTION;\nUPDATE lease SET head = 7";
        let half = frame(text);
        assert!(!up(&mut batches, &half[..20]).in_batch);
        let begun = up(&mut batches, &half[20..]);
        assert!(begun.begins && begun.in_batch && !begun.commit_sent);
        let answered = down(&mut batches, &[ok(true), ok(false)].concat());
        assert_eq!(answered, Seen { in_batch: true, ..Seen::default() });
        let sent = up(&mut batches, &frame(b"\x03INSERT x;\nCOMMIT"));
        assert!(!sent.begins && sent.commit_sent && batches.any_in_flight());
        let (first, last) = (ok(true), ok(false));
        let answers = [&first[..], &last[..]].concat();
        assert_eq!(down(&mut batches, &answers[..14]).commit_answered, None);
        assert_eq!(down(&mut batches, &answers[14..]).commit_answered, Some(0));
        assert!(!batches.any_in_flight());
        up(&mut batches, &frame(&[&text[..], ENDS].concat()));
        assert_eq!(down(&mut batches, &answers).commit_answered, Some(first.len()));
        up(&mut batches, &frame(&[&text[..], ENDS].concat()));
        assert_eq!(down(&mut batches, &frame(&[ERR, 24, 4])).commit_answered, None);
        assert!(!batches.any_in_flight(), "an error ends it");
    }
}
