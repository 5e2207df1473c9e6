//! What a push is, and what a provider said of it.
//!
//! The words that the pusher and the channels share. A channel turns a [`Notice`] into a provider's format once, and
//! sends it to many targets; the pusher decides who is a target, when, and what follows from each [`Outcome`].

pub mod apns;
pub mod credential;
pub mod fcm;
pub mod sign;
pub mod web_push;

mod payload;

pub use payload::retry_after;

use std::sync::Arc;
use std::time::Duration;

use carillon_world::{AlertText, MessageId, Millis, Priority, PushOverrides};

/// What one message says over a channel: the same for all devices of one locale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub message: MessageId,
    /// What the device shows; `None` is a wake, which says nothing of the message, not even its id.
    pub text: Option<AlertText>,
    /// Pushes of one id take each other's place on a device. At most 32 characters of base64url's alphabet.
    pub collapse: Arc<str>,
    pub priority: Priority,
    /// The provider may keep it until then.
    pub expires_at: Millis,
    /// For alerts; a wake has none.
    pub overrides: PushOverrides,
}

/// What a provider said, in words that the pusher acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider has it.
    Accepted,
    /// The token is no more: it is removed. `since`: when the provider last knew that, if it says so.
    Gone { since: Option<Millis> },
    /// Not now: try again, after `after` if the provider said so.
    Later { after: Option<Duration>, scope: Scope, reason: Reason },
    /// Nobody was asked, because as many requests to the target's own service are in flight as may be: again soon.
    Busy,
    /// Never for this target.
    Failed { reason: Reason },
    /// The provider refuses our credential: nothing of this lane will go until it is replaced or the provider relents.
    Refused { reason: Reason },
}

/// What has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything of the lane: the provider is down, or slows us.
    Channel,
    /// This target: its device, or its own push service, is slowed.
    Target,
}

/// Why a push failed, as counted: one of few, in snake case, never text of a provider's or a device's choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason(pub &'static str);

/// Why a notice cannot be sent over a channel at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// With its overrides.
    #[error("the payload for {channel} would have {bytes} bytes, at most {bytes_max}")]
    TooLarge { channel: &'static str, bytes: usize, bytes_max: usize },
}
