//! Watches the HTTP/2 frames of a connection (RFC 9113, section 4.1), because the library refuses streams over the limit
//! by itself and tells nobody.
//!
//! Only headers of frames are read, and the error code of `RST_STREAM`:
//!
//! ```text
//! length 24 | type 8 | flags 8 | reserved 1, stream 31 | payload
//! ```

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::books::Books;
use super::provider::Connection;

const HEADER_BYTES: usize = 9;
/// The client's connection preface, before its first frame.
const PREFACE_BYTES: usize = 24;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

/// A frame of which the header and up to four bytes of payload are known.
#[derive(Clone, Copy, Debug)]
struct Seen {
    kind: u8,
    flags: u8,
    first: [u8; 4],
}

/// Cuts one direction's bytes into frames.
#[derive(Debug)]
struct Cutter {
    /// Before anything: the preface.
    skip: usize,
    /// Header, then the first bytes of the payload.
    head: [u8; HEADER_BYTES + 4],
    filled: usize,
}

impl Cutter {
    fn new(skip: usize) -> Cutter {
        Cutter { skip, head: [0; HEADER_BYTES + 4], filled: 0 }
    }

    fn feed(&mut self, mut bytes: &[u8], mut saw: impl FnMut(Seen)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            bytes = &bytes[skipped..];
            self.skip -= skipped;
            if self.skip > 0 {
                return;
            }
            // Of the payload no more than there is.
            let wanted = if self.filled < HEADER_BYTES {
                HEADER_BYTES
            } else {
                HEADER_BYTES + self.payload().min(4)
            };
            let taken = (wanted - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled >= HEADER_BYTES && self.filled == HEADER_BYTES + self.payload().min(4) {
                let mut first = [0; 4];
                first.copy_from_slice(&self.head[HEADER_BYTES..]);
                saw(Seen { kind: self.head[3], flags: self.head[4], first });
                self.skip = self.payload() - self.payload().min(4);
                self.filled = 0;
            }
        }
    }

    fn payload(&self) -> usize {
        usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2])
    }
}

/// A connection whose frames are watched.
#[derive(Debug)]
pub(super) struct FrameWatch<S> {
    stream: S,
    received: Cutter,
    sent: Cutter,
    connection: Arc<Connection>,
    books: Arc<Books>,
}

impl<S> FrameWatch<S> {
    pub(super) fn new(stream: S, connection: Arc<Connection>, books: Arc<Books>) -> FrameWatch<S> {
        let received = Cutter::new(PREFACE_BYTES);
        FrameWatch { stream, received, sent: Cutter::new(0), connection, books }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameWatch<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let FrameWatch { received, connection, .. } = this;
        received.feed(&buffer.filled()[before..], |frame| {
            if frame.kind == SETTINGS && frame.flags & ACK != 0 {
                connection.settings_known.store(true, Ordering::Relaxed);
            }
        });
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameWatch<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        let FrameWatch { sent, connection, books, .. } = this;
        sent.feed(&bytes[..written], |frame| {
            if frame.kind == RST_STREAM && frame.first == REFUSED_STREAM {
                if connection.settings_known.load(Ordering::Relaxed) {
                    books.breached("too_many_streams");
                } else {
                    books.stream_refused_early();
                }
            }
        });
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_wherever_the_bytes_are_torn() {
        let mut bytes = vec![b'p'; PREFACE_BYTES];
        bytes.extend([0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]);
        bytes.extend([0, 0, 6, 0, 1, 0, 0, 0, 1]);
        bytes.extend(*b"sixsix");
        bytes.extend([0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1]);
        bytes.extend(REFUSED_STREAM);
        bytes.extend([0, 0, 2, 0, 0, 0, 0, 0, 3]);
        bytes.extend(*b"ab");
        for piece in 1..bytes.len() {
            let mut cutter = Cutter::new(PREFACE_BYTES);
            let mut kinds = Vec::new();
            let mut refused = 0;
            for part in bytes.chunks(piece) {
                cutter.feed(part, |frame| {
                    kinds.push(frame.kind);
                    let is_reset = frame.kind == RST_STREAM;
                    refused += u32::from(is_reset && frame.first == REFUSED_STREAM);
                });
            }
            assert_eq!(
                (kinds, refused),
                (vec![SETTINGS, 0, RST_STREAM, 0], 1),
                "pieces of {piece}"
            );
        }
    }
}
