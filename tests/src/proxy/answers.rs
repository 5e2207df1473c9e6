//! HTTP/1.1 answers in a stream of bytes, as far as a fault needs them: where one begins, where its body does, where
//! it ends. Nothing else of it is read.

use std::mem;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::End;

/// A head or an answer beyond these is passed on untouched.
const HEAD_BYTES_MAX: usize = 64 << 10;
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// What is kept of a request.
const REQUEST_BYTES_MAX: usize = 128 << 10;

const HEAD_END: &[u8] = b"\r\n\r\n";

/// What becomes of an answer.
#[derive(Clone, Debug)]
pub enum Verdict {
    Pass,
    /// The head passes and so many bytes of the body, then the connection ends. Zero: after the headers.
    Cut {
        body_bytes: usize,
        end: End,
    },
    /// Passes that much later.
    Late(Duration),
    /// These bytes pass, such as an answer of before; the server's own is swallowed.
    Instead(Bytes),
}

/// A request and its answer, whole.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The connection's number, from 0.
    pub connection: u64,
    /// As much as was seen, 128 KiB at most. Empty if the script came after it.
    pub request: &'a [u8],
    pub status: u16,
    pub answer: &'a Bytes,
    /// Bytes of the answer up to its body.
    pub head_bytes: usize,
}

impl Exchange<'_> {
    pub fn body(&self) -> &[u8] {
        &self.answer[self.head_bytes..]
    }

    /// Method and path, `GET /v1/messages?wait=30`.
    pub fn request_line(&self) -> &str {
        let line = self.request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = std::str::from_utf8(line).unwrap_or_default();
        line.rsplit_once(' ').map_or(line, |(line, _version)| line)
    }

    /// A header of the request, trimmed; empty where absent.
    pub fn request_header(&self, name: &str) -> &str {
        header(self.request, name).unwrap_or_default()
    }
}

/// The value of a header in a head that begins with a line of another kind.
fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = &head[..find(head, HEAD_END).unwrap_or(head.len())];
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    lines
        .filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'))
        .find_map(|(key, value)| key.trim().eq_ignore_ascii_case(name).then_some(value.trim()))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The request under way, as far as its connection has seen it: without pipelining the bytes since the last answer.
#[derive(Debug, Default)]
pub(super) struct Requests(Vec<u8>);

impl Requests {
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let room = REQUEST_BYTES_MAX - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Its answer is here.
    pub(super) fn answered(&mut self) -> Vec<u8> {
        mem::take(&mut self.0)
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) bytes: Bytes,
    pub(super) head_bytes: usize,
    status: u16,
}

impl Answer {
    pub(super) fn exchange<'a>(&'a self, connection: u64, request: &'a [u8]) -> Exchange<'a> {
        let Answer { bytes, head_bytes, status } = self;
        Exchange { connection, request, status: *status, answer: bytes, head_bytes: *head_bytes }
    }
}

/// Cuts a stream into answers.
#[derive(Debug, Default)]
pub(super) struct AnswerReader {
    buffer: BytesMut,
    /// An answer's end could not be told: everything from there on is one stream.
    unframed: bool,
}

impl AnswerReader {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next answer that is whole.
    pub(super) fn next_answer(&mut self) -> Option<Answer> {
        if self.unframed {
            return None;
        }
        let Some(end) = find(&self.buffer, HEAD_END) else {
            self.unframed = self.buffer.len() > HEAD_BYTES_MAX;
            return None;
        };
        let head_bytes = end + HEAD_END.len();
        let Some((status, body_bytes)) = framing(&self.buffer[..head_bytes]) else {
            self.unframed = true;
            return None;
        };
        let bytes = head_bytes + body_bytes;
        self.unframed = bytes > ANSWER_BYTES_MAX;
        if self.unframed || self.buffer.len() < bytes {
            return None;
        }
        Some(Answer { bytes: self.buffer.split_to(bytes).freeze(), head_bytes, status })
    }

    /// What belongs to no answer that could be waited for.
    pub(super) fn take_unframed(&mut self) -> Bytes {
        if self.unframed { self.take_rest() } else { Bytes::new() }
    }

    /// All that is here, whole or not.
    pub(super) fn take_rest(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }
}

/// Status, and bytes of the body. `None` if the head does not say them.
fn framing(head: &[u8]) -> Option<(u16, usize)> {
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    let status: u16 = line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    match header(head, "content-length") {
        Some(bytes) => Some((status, bytes.parse().ok()?)),
        None if matches!(status, 100..=199 | 204 | 304) => Some((status, 0)),
        None => None,
    }
}
