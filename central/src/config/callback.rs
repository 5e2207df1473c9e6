//! How central calls a customer's systems.

use std::path::PathBuf;
use std::time::Duration;

use crate::core::callback::schedule::Schedule;
use crate::core::outbound::Network;

#[derive(Clone, Debug)]
pub struct CallbackConfig {
    /// Ports that an endpoint may have.
    pub ports: Vec<u16>,
    /// Networks that an endpoint may be in although they are not public.
    pub private_networks: Vec<Network>,
    /// Certificates in PEM that are trusted besides Mozilla's.
    pub ca_file: Option<PathBuf>,
    /// Requests to one endpoint at a time.
    pub concurrency: usize,
    /// Endpoints of all apps.
    pub endpoints_max: usize,
    /// For resolving, TCP and TLS together.
    pub connect_timeout: Duration,
    /// From the first byte of a request to the last of its answer, waiting for a connection included.
    pub request_timeout: Duration,
    /// Bytes of an answer's body that are read at most.
    pub reply_bytes_max: usize,
    pub schedule: Schedule,
    /// An endpoint without a success for so long is paused.
    pub pause_after: Duration,
    /// How long events are kept, for endpoints that are behind and for replays.
    pub retention: Duration,
    /// Bytes of them; beyond it the oldest go earlier.
    pub bytes_max: u64,
}

impl Default for CallbackConfig {
    fn default() -> CallbackConfig {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        CallbackConfig {
            ports: vec![443],
            private_networks: Vec::new(),
            ca_file: None,
            concurrency: 4,
            endpoints_max: 1_000,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(15),
            reply_bytes_max: 4 * 1024,
            schedule: Schedule::default(),
            pause_after: 24 * HOUR,
            retention: 72 * HOUR,
            bytes_max: 1024 * 1024 * 1024,
        }
    }
}

impl CallbackConfig {
    /// Everything that is wrong with it, as sentences.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.ports.is_empty() || self.concurrency == 0 || self.reply_bytes_max == 0 {
            faults.push(
                "the ports, concurrency or reply_bytes_max of callbacks let nothing through"
                    .to_owned(),
            );
        }
        faults
    }
}
