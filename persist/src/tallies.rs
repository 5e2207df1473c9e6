//! What is counted beside the changes: how far each device's store has come and what it did, and how often what became
//! of each message.
//!
//! Rows hold whole values, so that writing one twice is harmless. They have no seq, move no head and go to no edge; they
//! commit with their batch, so they never say more than the changes do.

use std::sync::Arc;

use carillon_world::{AppId, DeviceId, MessageId, Millis, Seq};

/// The rows of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    pub books: Vec<BookRow>,
    pub counts: Vec<CountRow>,
}

/// One of them, as it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tally {
    Book(BookRow),
    Count(CountRow),
}

/// What is known of one device's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookRow {
    pub app: AppId,
    pub device: DeviceId,
    /// The newest position that the device was seen to have stored; zero if none was.
    pub held: Seq,
    /// One entry of [`BookRow::MARK_BYTES`] for each message, in rising order of their ids:
    ///
    /// ```text
    /// | message id (8, big-endian) | bits (1) |
    /// ```
    pub marks: Arc<[u8]>,
}

impl BookRow {
    pub const MARK_BYTES: usize = 9;

    /// Whether the entries are whole, and in order.
    pub fn is_sound(&self) -> bool {
        let entries = self.marks.chunks(BookRow::MARK_BYTES);
        self.marks.len().is_multiple_of(BookRow::MARK_BYTES)
            && entries.is_sorted_by(|a, b| a[..8] < b[..8])
    }
}

/// How often something became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountRow {
    pub app: AppId,
    pub message: MessageId,
    pub span: CountSpan,
    /// When the span begins; zero for [`CountSpan::Total`].
    pub at: Millis,
    /// What is counted, at most [`CountRow::COUNTER_BYTES_MAX`] bytes.
    pub counter: Arc<str>,
    pub n: u64,
}

impl CountRow {
    pub const COUNTER_BYTES_MAX: usize = 64;
}

/// The time over which something is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CountSpan {
    Total,
    Minute,
    Hour,
    Day,
}

/// Counts that are forgotten, at most `rows_max` of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForgetCounts {
    pub which: OldCounts,
    pub rows_max: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldCounts {
    /// Of spans of this length that began before this. Not of totals.
    Before(CountSpan, Millis),
    /// All of these messages. Not empty, and few: each is a term of one condition.
    Of(Vec<(AppId, MessageId)>),
}
