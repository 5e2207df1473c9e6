//! Push providers as separate programs that enforce what the providers publish: a push service that refuses what the
//! real one would refuse, and counts by name what was wrong.
//!
//! None of this shares code with the channels that it judges: tokens are verified by hand, so that a mistake in a
//! library that signs is not undone by the same library. The programs are `apns_simulator`, `fcm_simulator` and
//! `web_push_simulator`; a test starts one by [`Simulator`], and drives it over its control port, which is plain HTTP
//! with JSON on the loopback interface.
//!
//! They are made to be driven by a load generator on the same two cores: a token's signature is checked once, nothing
//! is logged for a request, and what is kept of a device is 24 bytes ([`books`]).

mod apns;
mod behaviour;
mod books;
mod control;
mod ece;
mod fcm;
mod fcm_message;
mod frames;
mod http_ece;
mod jwt;
mod program;
mod provider;
mod serve;
mod simulator;
pub(crate) mod tls;
mod web_push;

pub use apns::Apns;
pub use books::{Captured, Counts, KindCounts, Period, TokenCounts, TokenState};
pub use fcm::Fcm;
pub use http_ece::open_aes128gcm;
pub use program::{Options, run};
pub use simulator::{Program, Simulator};
pub use web_push::WebPush;

/// First thing in a program: rustls takes no side by itself.
///
/// # Panics
/// If another provider of cryptography was installed.
pub fn use_aws_lc_rs() {
    let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    assert!(installed.is_ok(), "another provider of cryptography is installed");
}
