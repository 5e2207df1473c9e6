//! Lines out of pieces, none longer than a limit, whatever the pieces are.

use carillon_world::SecretHash;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Without its end.
    Text(&'a [u8]),
    /// Its bytes were dropped as they came.
    TooLong,
}

/// Holds at most one piece and one line.
#[derive(Debug)]
pub(super) struct Lines {
    bytes_max: usize,
    buffer: Vec<u8>,
    /// Where in `buffer` the next line begins.
    start: usize,
    /// Up to where no line end is left: a long line in many pieces is looked through once.
    looked: usize,
    /// Whether the bytes up to the next line end belong to a line that is too long.
    skipping: bool,
}

impl Lines {
    pub(super) fn new(bytes_max: usize) -> Lines {
        Lines { bytes_max, buffer: Vec::new(), start: 0, looked: 0, skipping: false }
    }

    /// Takes a piece. Ask for lines until there is none before the next one.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.start);
        self.looked -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(piece);
    }

    pub(super) fn next_line(&mut self) -> Option<Line<'_>> {
        let rest = &self.buffer[self.start..];
        let found = self.buffer[self.looked..].iter().position(|b| *b == b'\n');
        self.looked = found.map_or(self.buffer.len(), |at| self.looked + at + 1);
        match found {
            Some(_) => {
                let line = &self.buffer[self.start..self.looked - 1];
                let line = if self.skipping || line.len() > self.bytes_max {
                    Line::TooLong
                } else {
                    Line::Text(line)
                };
                self.skipping = false;
                self.start = self.looked;
                Some(line)
            }
            None => {
                if rest.len() > self.bytes_max {
                    self.skipping = true;
                }
                if self.skipping {
                    self.start = self.buffer.len();
                }
                None
            }
        }
    }

    /// The last line, if the text does not end with a line end.
    pub(super) fn finish(&self) -> Option<Line<'_>> {
        if self.skipping {
            return Some(Line::TooLong);
        }
        let line = &self.buffer[self.start..];
        (!line.is_empty()).then_some(Line::Text(line))
    }
}

/// 64 hexadecimal digits.
pub(super) fn hash(hex: &str) -> Option<SecretHash> {
    let digits = hex.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(SecretHash(hash))
}

pub(super) fn hex(hash: &SecretHash) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in hash.0 {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `None` is a line that is too long.
    fn split(pieces: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let owned = |line: Line<'_>| match line {
            Line::Text(text) => Some(text.to_vec()),
            Line::TooLong => None,
        };
        let mut lines = Lines::new(4);
        let mut all = Vec::new();
        for piece in pieces {
            lines.feed(piece);
            while let Some(line) = lines.next_line() {
                all.push(owned(line));
            }
        }
        all.extend(lines.finish().map(owned));
        all
    }

    fn text(text: &[u8]) -> Option<Vec<u8>> {
        Some(text.to_vec())
    }

    #[test]
    fn lines_do_not_depend_on_how_the_bytes_come() {
        let whole = b"ab\n\nabcd\nabcde\nx\nabcdefghijkl\nyz";
        let expected = [text(b"ab"), text(b""), text(b"abcd"), None, text(b"x"), None, text(b"yz")];
        assert_eq!(split(&[whole]), expected);
        for size in 1..whole.len() {
            let pieces: Vec<&[u8]> = whole.chunks(size).collect();
            assert_eq!(split(&pieces), expected, "pieces of {size}");
        }
        assert_eq!(split(&[b"abcdefg"]), [None]);
        assert!(split(&[b""]).is_empty());
    }

    #[test]
    fn a_hash_reads_back_and_bad_ones_are_refused() {
        let secret = SecretHash(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(hash(&hex(&secret)), Some(secret));
        assert_eq!(hash(&"0".repeat(63)), None);
        assert_eq!(hash(&"g".repeat(64)), None);
        assert_eq!(hash(&"é".repeat(32)), None);
    }
}
