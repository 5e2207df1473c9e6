//! What an edge is told at its start. Everything has a default but central's address and token.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use crate::EdgeError;
use crate::core::sabotage::Sabotage;

/// One edge.
#[derive(Clone, Debug)]
pub struct Config {
    /// How central's logs and metrics call this edge; at most 64 bytes.
    pub name: String,
    pub central: CentralConfig,
    pub listen: ListenConfig,
    pub limits: Limits,
    /// RAM that the process may take, in bytes. A world that needs more is not loaded. `None`: what its control group
    /// allows, or what the machine has left at the start, whichever is less.
    pub memory_max: Option<u64>,
    /// Cores, each with a thread, a runtime and listeners of its own. `None`: as many as the machine gives us.
    pub cores: Option<NonZeroUsize>,
    /// How long the edge may take to stop: parked polls are answered and requests finished meanwhile.
    pub drain_max: Duration,
    /// When the edge stops, parked polls are answered over this time, and clients asked to spread their next polls
    /// over it, so that the other edges are not met by all of them at once. Less than `drain_max`.
    pub drain_spread: Duration,
    /// A planted fault, for the test of those who check an edge.
    pub sabotage: Sabotage,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: "edge".to_owned(),
            central: CentralConfig::default(),
            listen: ListenConfig::default(),
            limits: Limits::default(),
            memory_max: None,
            cores: None,
            drain_max: Duration::from_secs(10),
            drain_spread: Duration::from_secs(2),
            sabotage: Sabotage::None,
        }
    }
}

/// Where central is and why it is to be believed.
#[derive(Clone, Debug)]
pub struct CentralConfig {
    /// `host:port` of central's stream listener.
    pub address: String,
    /// The name that central's certificate must have. `None`: the host of `address`.
    pub server_name: Option<String>,
    pub trust: Trust,
    /// What central knows its edges by.
    pub token: Token,
    pub connect_timeout: Duration,
    /// Longest pause between attempts to reach central. They begin at a fortieth of it, double, and are random in
    /// their upper half, so that edges do not come back in step.
    pub backoff_max: Duration,
    /// How long a device's write may wait for central; then 503, outcome unknown.
    pub write_timeout: Duration,
    /// Writes that may be on their way to central at a time, not more than central allows; beyond it 503.
    pub writes_max: NonZeroUsize,
}

impl Default for CentralConfig {
    fn default() -> CentralConfig {
        CentralConfig {
            address: "127.0.0.1:7701".to_owned(),
            server_name: None,
            trust: Trust::None,
            token: Token::default(),
            connect_timeout: Duration::from_secs(5),
            backoff_max: Duration::from_secs(10),
            write_timeout: Duration::from_secs(15),
            writes_max: NonZeroUsize::new(1024).expect("not zero"),
        }
    }
}

/// By what central's certificate is judged.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// Nothing is trusted: configuration has to say.
    #[default]
    None,
    /// The authorities in a PEM file.
    CaFile(PathBuf),
    /// The authorities in this PEM text.
    CaPem(String),
    /// The SHA-256 of central's certificate, or of an authority in the chain that it shows. Names are not looked at
    /// where its own certificate is pinned.
    Pinned([u8; 32]),
}

/// A shared secret. Its `Debug` shows nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub fn new(text: impl Into<String>) -> Token {
        Token(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Where devices and operators connect. Port 0 takes a free one.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// HTTPS for devices.
    pub tls: Option<SocketAddr>,
    /// Plain HTTP for a load balancer that speaks TLS itself.
    pub http: Option<SocketAddr>,
    /// Health and metrics.
    pub ops: Option<SocketAddr>,
    /// `None`: a self-signed certificate is made at every start, for development.
    pub certificate: Option<CertificateFiles>,
    /// Believe the last `X-Forwarded-For` of requests on the plain listener. Only behind a proxy that sets it.
    pub forwarded_for: bool,
}

impl Default for ListenConfig {
    fn default() -> ListenConfig {
        ListenConfig {
            tls: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7443))),
            http: None,
            ops: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 7444))),
            certificate: None,
            forwarded_for: false,
        }
    }
}

/// PEM files, read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Leaf first.
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// What one edge takes on. Beyond a limit a request is refused; nothing grows.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections, in all. Beyond it new ones are closed at once. About 25 KiB each while a poll is parked.
    pub connections_max: NonZeroUsize,
    /// Parked polls of one core; beyond it 503.
    pub parked_max: NonZeroUsize,
    /// Parked polls of one device; the oldest gives way with a 204.
    pub parked_per_device_max: NonZeroUsize,
    /// Bytes of a request's body; beyond it 413.
    pub body_bytes_max: usize,
    /// Bytes of a request's head, at least 8192, which is the least that the HTTP library takes.
    pub head_bytes_max: usize,
    /// Requests of one HTTP/2 connection at a time.
    pub h2_streams_max: u32,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a request's head may take, counted from the end of the one before: also how long an idle connection
    /// is kept.
    pub head_timeout: Duration,
    /// How long a request's body may take.
    pub body_timeout: Duration,
    /// How long a peer may leave what was sent to it unacknowledged before the connection is dropped.
    pub send_timeout: Duration,
    /// Bytes of messages in one answer, about.
    pub answer_bytes_max: usize,
    /// Enrolments at once from one source (IPv4 address or IPv6 /64). Not small, because a cellular network may put
    /// thousands of devices behind one address.
    pub enrol_burst: NonZeroU32,
    /// Time in which a source earns one enrolment back.
    pub enrol_every: Duration,
    /// Sources that are told apart; further ones share one allowance.
    pub enrol_sources_max: usize,
    /// Changes that a core may have to look at after a publish; beyond it all parked polls are woken instead.
    pub wake_changes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        let count = |n| NonZeroUsize::new(n).expect("not zero");
        Limits {
            connections_max: count(200_000),
            parked_max: count(200_000),
            parked_per_device_max: count(4),
            body_bytes_max: 64 * 1024,
            head_bytes_max: 16 * 1024,
            h2_streams_max: 16,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(30),
            answer_bytes_max: 256 * 1024,
            enrol_burst: NonZeroU32::new(100).expect("not zero"),
            enrol_every: Duration::from_millis(100),
            enrol_sources_max: 65_536,
            wake_changes_max: 16_384,
        }
    }
}

impl Config {
    /// # Errors
    /// The first value that an edge cannot run with.
    pub fn check(&self) -> Result<(), EdgeError> {
        let faults = [
            (self.name.len() > NAME_BYTES_MAX, "name: at most 64 bytes"),
            (
                self.listen.tls.is_none() && self.listen.http.is_none(),
                "listen: neither tls nor http",
            ),
            (self.limits.head_bytes_max < 8192, "limits.head_bytes_max: at least 8192"),
            (self.limits.body_bytes_max > BODY_BYTES_MOST, "limits.body_bytes_max: at most 65536"),
            (self.drain_spread >= self.drain_max, "drain_spread: less than drain_max"),
            (self.central.backoff_max.is_zero(), "central.backoff_max: more than zero"),
        ];
        match faults.iter().find(|(wrong, _)| *wrong) {
            Some((_, what)) => Err(EdgeError::Config { what }),
            None => Ok(()),
        }
    }
}

/// Bytes of an edge's name.
const NAME_BYTES_MAX: usize = 64;

/// A body as large as this still fits a request to central.
const BODY_BYTES_MOST: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_sound_and_what_is_not_is_refused() {
        assert!(Config::default().check().is_ok());
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().is_err()
        };
        assert!(refused(|c| c.name = "n".repeat(65)));
        assert!(refused(|c| c.listen.tls = None));
        assert!(refused(|c| c.limits.head_bytes_max = 8191));
        assert!(refused(|c| c.limits.body_bytes_max = 65_537));
        assert!(refused(|c| c.drain_spread = c.drain_max));
        assert!(refused(|c| c.central.backoff_max = Duration::ZERO));
    }

    #[test]
    fn a_token_is_not_shown() {
        assert_eq!(format!("{:?}", Token::new("secret")), "Token(..)");
    }
}
