//! What the app is told.

use std::sync::Arc;

use serde::Deserialize;

use super::device::Operation;
use super::outbox::WriteId;
use super::store::StoreError;
use crate::ids::{AppId, DeviceId, MessageId, Tag};

/// A message that was stored, with another content than the device had for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub id: MessageId,
    pub tag: Tag,
    /// JSON, as it was sent.
    pub body: Arc<str>,
}

/// What happened to a device, in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The device is a new one: its store is empty.
    Enrolled { app: AppId, device: DeviceId },
    /// A session was given for the secret.
    SessionRenewed,
    /// The server does not know this device (any more): everything was dropped, and it enrols again if it can.
    Unknown { app: AppId, device: DeviceId },
    /// The device was forgotten at its own wish: everything was dropped, and nothing follows.
    Forgotten,
    /// An answer was stored, whole. Both lists are empty if only the cursor moved.
    Stored { messages: Vec<Stored>, gone: Vec<MessageId>, inventory: bool },
    /// The server has nothing newer for this device.
    UpToDate,
    /// The cursor is unknown to the server: the messages were dropped, and all come again.
    Cleared,
    /// An answer came late, or while a write was under way, or was given up; nothing of it was stored.
    Dropped { operation: Operation },
    /// A write is answered for good.
    Written { write: WriteId, result: Result<(), WriteError> },
    /// A request brought no usable answer; it, or what replaces it, follows by itself.
    Failed { operation: Operation, edge: usize, kind: FailureKind },
    /// The server refuses the enrolment or the secret. It is tried again, rarely.
    Refused { operation: Operation, problem: Problem },
    /// The store refused a transaction; what it was about is asked for again.
    StoreFailed(StoreError),
}

/// Why a request brought no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection.
    Connect,
    /// The connection ended before the answer did.
    Broken,
    /// No answer in time.
    Timeout,
    /// The answer is larger than [`super::ANSWER_BYTES_MAX`].
    TooLarge,
    /// The answer is not what the protocol says, or was cut short.
    Malformed,
    /// This status.
    Status(u16),
}

/// A refusal, as `application/problem+json` says it. Fields that are missing are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Problem {
    #[serde(skip)]
    pub status: u16,
    #[serde(default)]
    pub code: String,
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub detail: String,
}

/// Why a write will never be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("the server refuses the write: {} {}: {}", .0.status, .0.code, .0.detail)]
    Refused(Problem),
    /// The device that it was for is no more.
    #[error("the device is no longer known to the server")]
    DeviceGone,
}
