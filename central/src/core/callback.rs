//! Callbacks: which events an endpoint is called for, what is sent, how it is signed, and when it is tried again.
//!
//! Nothing of this is part of the world: edges and devices know no callbacks. The endpoints are decided by the shard's
//! writer like everything else that is stored, and the events come out of the outbox, where they are anyway; so callbacks
//! cost a caller's write nothing.

pub mod delivery;
pub mod render;
pub mod schedule;
pub mod secret;
pub mod state;
pub mod wanted;

#[cfg(test)]
mod tests;

/// Endpoints' limits, of which an admin hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallbackLimits {
    /// Endpoints of all apps.
    pub endpoints_max: usize,
}

impl Default for CallbackLimits {
    fn default() -> CallbackLimits {
        CallbackLimits { endpoints_max: 1_000 }
    }
}

/// Names and patterns of one endpoint.
pub const EVENTS_MAX: usize = 64;
pub const DESCRIPTION_BYTES_MAX: usize = 512;
/// Characters of what went wrong last.
pub const ERROR_CHARS_MAX: usize = 200;
/// Longest time for which two secrets are used, in ms: 30 days.
pub const OVERLAP_MAX: u64 = 30 * 24 * 60 * 60 * 1000;
/// Secrets of one endpoint that are used at a time. Two before the newest: whoever lost the answer of a rotation rotates
/// again, while the endpoint works with what it had before both.
pub const SECRETS_MAX: usize = 3;
