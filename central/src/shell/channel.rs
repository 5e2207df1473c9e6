//! Channels: how a push reaches a provider.
//!
//! A channel is what differs between providers and nothing else: no retries of its own, no queue, no store, no counting.
//! Whom to push, when, how often and what follows from an answer is the pusher's.

use std::fmt::Debug;
use std::future::Future;

use carillon_world::{AppRow, Millis, PushChannel, SealedCredential};

use crate::core::channel::{Notice, NoticeError, Outcome};

/// How channels come to be: the real one opens what a credential is for, tests put their own in its place.
pub trait Open: Debug + Send + Sync + 'static {
    type Channel: Channel;

    /// Connects to nobody yet.
    ///
    /// # Errors
    /// If the credential cannot be read, as a sentence without secrets.
    fn open(
        &self,
        app: &AppRow,
        channel: PushChannel,
        credential: &SealedCredential,
    ) -> Result<Self::Channel, String>;
}

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
