//! What a simulator counted: little for each token, so that a million of them stay in some tens of megabytes.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher, Hash as _, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Whether a push shows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Alert,
    Wake,
}

/// The same for a text in every run, so that a share of tokens is always the same share.
pub(super) fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// For keys that are hashes.
#[derive(Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// Accepted pushes of a token.
#[derive(Clone, Copy, Debug, Default)]
struct TokenBook {
    alerts: Accepted,
    wakes: Accepted,
}

/// Of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Accepted {
    /// Of the first push's collapse id; 0 before that.
    first_collapse: u32,
    /// Stops at its maximum; the highest bit says that there was another collapse id.
    count_and_flag: u16,
}

const TWO_COLLAPSE_IDS: u16 = 1 << 15;

// A million tokens are 2^21 places of a hash table, each with its key and a byte.
const _: () = assert!(size_of::<(u64, TokenBook)>() == 24);

/// What an accepted push was to its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    First,
    /// With the collapse id that came first: it takes that one's place on the device.
    Again,
    Other {
        is_first_other: bool,
    },
}

impl Accepted {
    fn add(&mut self, collapse: u32) -> Came {
        let count = self.count();
        let flag = self.count_and_flag & TWO_COLLAPSE_IDS;
        self.count_and_flag = (count + 1).min(TWO_COLLAPSE_IDS - 1) | flag;
        if count == 0 {
            self.first_collapse = collapse;
            Came::First
        } else if self.first_collapse == collapse {
            Came::Again
        } else {
            self.count_and_flag |= TWO_COLLAPSE_IDS;
            Came::Other { is_first_other: flag == 0 }
        }
    }

    fn count(self) -> u16 {
        self.count_and_flag & !TWO_COLLAPSE_IDS
    }

    fn has_two(self) -> bool {
        self.count_and_flag & TWO_COLLAPSE_IDS != 0
    }
}

/// Pushes by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindCounts {
    pub alerts: u64,
    pub wakes: u64,
}

impl KindCounts {
    fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Alert => self.alerts += 1,
            Kind::Wake => self.wakes += 1,
        }
    }

    pub fn sum(self) -> u64 {
        self.alerts + self.wakes
    }
}

/// What came in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// All requests, right or wrong.
    pub requests: u64,
    /// Pushes that broke no rule, whatever was answered.
    pub received: KindCounts,
    /// Of these, those that the simulator took.
    pub accepted: KindCounts,
}

/// What was counted since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub total: Period,
    /// How many marks were set.
    pub marks: u64,
    pub since_mark: Period,
    /// Answers by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Answers that were refusals, by the provider's word.
    pub by_reason: BTreeMap<String, u64>,
    /// Rules that were broken.
    pub breaches: BTreeMap<String, u64>,
    /// Streams or connections that were reset as told.
    pub resets: u64,
    pub tokens: TokenCounts,
    pub connections: u64,
    pub connections_open: u64,
    /// Streams that were refused before the client could know the limit; those after are a breach.
    pub streams_refused_early: u64,
}

/// Tokens that accepted pushes were for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCounts {
    pub seen: u64,
    pub alerted: u64,
    pub woken: u64,
    /// Accepted pushes beyond a token's first of their kind, with the same collapse id as that one.
    pub repeats: KindCounts,
    /// Tokens that had pushes of one kind with different collapse ids.
    pub two_collapse_ids: KindCounts,
}

/// One token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenState {
    pub alerts: u16,
    pub wakes: u16,
    pub two_alert_collapse_ids: bool,
    pub two_wake_collapse_ids: bool,
}

/// A push as it came, whatever was answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Captured {
    pub token: String,
    pub kind: Kind,
    pub headers: BTreeMap<String, String>,
    /// In base64 with padding.
    pub body: String,
    /// What the provider knows of the token, such as the private key of a subscription.
    #[serde(default)]
    pub known: Value,
}

impl Captured {
    /// # Panics
    /// If the body is not base64, as a simulator's is.
    pub fn bytes(&self) -> Vec<u8> {
        STANDARD.decode(&self.body).expect("a simulator writes base64")
    }
}

#[derive(Debug)]
struct Raw {
    token: String,
    kind: Kind,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Debug, Default)]
struct Inner {
    tokens: HashMap<u64, TokenBook, BuildHasherDefault<AsIs>>,
    counts: Counts,
    captured: Vec<Raw>,
}

#[derive(Debug)]
pub(super) struct Books {
    inner: Mutex<Inner>,
    capture_max: usize,
}

impl Books {
    pub(super) fn new(capture_max: usize) -> Books {
        Books { inner: Mutex::default(), capture_max }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A push that broke no rule came.
    pub(super) fn received(&self, token: &str, kind: Kind, headers: &HeaderMap, body: &Bytes) {
        let mut inner = self.inner();
        inner.counts.total.received.add(kind);
        inner.counts.since_mark.received.add(kind);
        if inner.captured.len() < self.capture_max {
            let headers = headers.clone();
            inner.captured.push(Raw { token: token.to_owned(), kind, headers, body: body.clone() });
        }
    }

    pub(super) fn accepted(&self, token: &str, kind: Kind, collapse: Option<&str>) {
        let token = hash(token);
        let collapse = collapse.map_or(0, |id| hash(id) as u32);
        let mut inner = self.inner();
        let Inner { tokens, counts, .. } = &mut *inner;
        counts.total.accepted.add(kind);
        counts.since_mark.accepted.add(kind);
        let seen = tokens.len();
        let book = tokens.entry(token).or_default();
        let (of_kind, of_tokens) = match kind {
            Kind::Alert => (&mut book.alerts, &mut counts.tokens.alerted),
            Kind::Wake => (&mut book.wakes, &mut counts.tokens.woken),
        };
        match of_kind.add(collapse) {
            Came::First => *of_tokens += 1,
            Came::Again => counts.tokens.repeats.add(kind),
            Came::Other { is_first_other: true } => counts.tokens.two_collapse_ids.add(kind),
            Came::Other { is_first_other: false } => {}
        }
        if tokens.len() > seen {
            counts.tokens.seen += 1;
        }
    }

    /// A request was answered.
    pub(super) fn answered(&self, status: u16, reason: Option<&str>, breach: Option<&str>) {
        let mut inner = self.inner();
        let counts = &mut inner.counts;
        counts.total.requests += 1;
        counts.since_mark.requests += 1;
        *counts.by_status.entry(status).or_default() += 1;
        for (map, name) in [(&mut counts.by_reason, reason), (&mut counts.breaches, breach)] {
            if let Some(name) = name {
                count(map, name);
            }
        }
    }

    pub(super) fn reset_one(&self) {
        let mut inner = self.inner();
        inner.counts.total.requests += 1;
        inner.counts.since_mark.requests += 1;
        inner.counts.resets += 1;
    }

    /// A rule was broken outside of a request's own answer.
    pub(super) fn breached(&self, breach: &str) {
        count(&mut self.inner().counts.breaches, breach);
    }

    pub(super) fn stream_refused_early(&self) {
        self.inner().counts.streams_refused_early += 1;
    }

    pub(super) fn connected(&self) {
        let mut inner = self.inner();
        inner.counts.connections += 1;
        inner.counts.connections_open += 1;
    }

    pub(super) fn disconnected(&self) {
        self.inner().counts.connections_open -= 1;
    }

    pub(super) fn counts(&self) -> Counts {
        self.inner().counts.clone()
    }

    /// Begins a period: what is counted since the mark starts at zero, and bodies are captured afresh.
    pub(super) fn mark(&self) -> u64 {
        let mut inner = self.inner();
        inner.counts.since_mark = Period::default();
        inner.counts.marks += 1;
        inner.captured.clear();
        inner.counts.marks
    }

    /// Forgets everything but the connections that are open.
    pub(super) fn reset(&self) {
        let mut inner = self.inner();
        let connections_open = inner.counts.connections_open;
        *inner = Inner::default();
        inner.counts.connections_open = connections_open;
    }

    /// In the order of `tokens`.
    pub(super) fn tokens(&self, tokens: &[String]) -> Vec<TokenState> {
        let inner = self.inner();
        let state = |token: &String| {
            let book = inner.tokens.get(&hash(token)).copied().unwrap_or_default();
            TokenState {
                alerts: book.alerts.count(),
                wakes: book.wakes.count(),
                two_alert_collapse_ids: book.alerts.has_two(),
                two_wake_collapse_ids: book.wakes.has_two(),
            }
        };
        tokens.iter().map(state).collect()
    }

    pub(super) fn captured(&self, known: impl Fn(&str) -> Value) -> Vec<Captured> {
        let inner = self.inner();
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let captured = inner.captured.iter().map(|raw| Captured {
            token: raw.token.clone(),
            kind: raw.kind,
            headers: raw.headers.iter().map(header).collect(),
            body: STANDARD.encode(&raw.body),
            known: known(&raw.token),
        });
        captured.collect()
    }
}

/// Without making a text for a name that is there.
fn count(map: &mut BTreeMap<String, u64>, name: &str) {
    match map.get_mut(name) {
        Some(n) => *n += 1,
        None => drop(map.insert(name.to_owned(), 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_tokens_take_little_memory_however_often_they_are_pushed_to() {
        let books = Books::new(0);
        for push in 0..3 {
            for n in 0..1_000_000 {
                books.accepted(&n.to_string(), Kind::Alert, Some(if push < 2 { "a" } else { "b" }));
            }
        }
        let inner = books.inner();
        // Of 8 places of the table 7 are used at most.
        let places = inner.tokens.capacity() / 7 * 8;
        assert!(places * (size_of::<(u64, TokenBook)>() + 1) < 60_000_000, "{places} places");
        let counts = inner.counts.tokens;
        assert_eq!((counts.seen, counts.alerted, counts.woken), (1_000_000, 1_000_000, 0));
        assert_eq!(counts.repeats, KindCounts { alerts: 1_000_000, wakes: 0 });
        assert_eq!(counts.two_collapse_ids, KindCounts { alerts: 1_000_000, wakes: 0 });
    }

    #[test]
    fn a_count_that_is_full_keeps_its_flag() {
        let mut book = Accepted::default();
        for _ in 0..40_000 {
            book.add(7);
        }
        assert_eq!((book.count(), book.has_two()), (i16::MAX as u16, false));
        assert_eq!(book.add(8), Came::Other { is_first_other: true });
        assert_eq!(book.add(8), Came::Other { is_first_other: false });
        assert_eq!((book.count(), book.has_two()), (i16::MAX as u16, true));
    }
}
