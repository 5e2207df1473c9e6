//! Channels: how a push reaches a provider.
//!
//! A channel is what differs between providers and nothing else: no retries of its own, no queue, no store, no counting.
//! Whom to push, when, how often and what follows from an answer is the pusher's.

use std::fmt::Debug;
use std::future::Future;

use carillon_world::Millis;

use crate::core::channel::{Notice, NoticeError, Outcome};

/// One provider under one credential.
pub trait Channel: Debug + Send + Sync + 'static {
    /// A notice in the provider's format, made once and sent to many.
    type Prepared: Debug + Send + Sync + 'static;

    /// How many [`send`](Channel::send)s may be under way at a time.
    fn in_flight_max(&self) -> usize;

    /// # Errors
    /// If the provider would not take it, whoever it is for.
    fn prepare(&self, notice: &Notice) -> Result<Self::Prepared, NoticeError>;

    /// Hands a notice to the provider for one token. It ends in bounded time, and whatever goes wrong is an outcome.
    /// Dropping the future gives the push up, which the provider may have taken by then.
    fn send(
        &self,
        now: Millis,
        token: &str,
        prepared: &Self::Prepared,
    ) -> impl Future<Output = Outcome> + Send;
}
