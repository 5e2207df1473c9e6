//! How central reaches the providers of pushes.

use std::path::PathBuf;
use std::time::Duration;

use crate::core::outbound::{HttpsUrl, Network};

/// Hosts, roots of trust and limits of the push channels. Which provider an app uses, and under which credential, is
/// the app's.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// Where the pushes of apps in production go. Of these URLs only host and port count.
    pub apns_production: HttpsUrl,
    pub apns_sandbox: HttpsUrl,
    pub fcm: HttpsUrl,
    /// Where FCM's access tokens come from; what a service account's JSON says of it is not followed.
    pub fcm_token_url: HttpsUrl,
    /// Certificates in PEM that are trusted besides Mozilla's.
    pub ca_file: Option<PathBuf>,
    /// Ports that a Web Push endpoint may have.
    pub web_push_ports: Vec<u16>,
    /// Networks that a Web Push endpoint may be in although they are not public.
    pub private_networks: Vec<Network>,
    /// Connections to APNs or FCM of one app at most; more are opened as they are needed.
    pub connections_max: usize,
    /// Requests in flight on one of them at most, and fewer if the provider says so.
    pub streams_max: usize,
    /// Origins of Web Push endpoints of one app with open connections at most.
    pub origins_max: usize,
    /// Connections to one origin at most.
    pub origin_connections_max: usize,
    /// Requests in flight to one origin at most, so that a slow one leaves room for the others.
    pub origin_in_flight_max: usize,
    /// Requests in flight to all origins at most.
    pub web_push_in_flight_max: usize,
    /// For resolving, TCP and TLS together.
    pub connect_timeout: Duration,
    /// From the first byte of a request to the last of its answer, waiting for a connection included.
    pub request_timeout: Duration,
    /// Bytes of an answer's body that are read at most.
    pub reply_bytes_max: usize,
    /// A connection is asked for a sign of life when nothing came for so long.
    pub keep_alive_interval: Duration,
    /// And is given up when none came for so long.
    pub keep_alive_timeout: Duration,
    /// A connection to an origin of Web Push is closed when it was not used for so long.
    pub origin_idle_max: Duration,
}

impl Default for ProviderConfig {
    fn default() -> ProviderConfig {
        let url = |text: &str| text.parse().expect("a URL that is written here");
        ProviderConfig {
            apns_production: url("https://api.push.apple.com"),
            apns_sandbox: url("https://api.sandbox.push.apple.com"),
            fcm: url("https://fcm.googleapis.com"),
            fcm_token_url: url("https://oauth2.googleapis.com/token"),
            ca_file: None,
            web_push_ports: vec![443],
            private_networks: Vec::new(),
            connections_max: 4,
            streams_max: 1000,
            origins_max: 256,
            origin_connections_max: 4,
            origin_in_flight_max: 100,
            web_push_in_flight_max: 1000,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            reply_bytes_max: 16 * 1024,
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(20),
            origin_idle_max: Duration::from_secs(60),
        }
    }
}

impl ProviderConfig {
    /// Everything that is wrong with it, as sentences.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, limit) in [
            ("connections_max", self.connections_max),
            ("streams_max", self.streams_max),
            ("origins_max", self.origins_max),
            ("origin_connections_max", self.origin_connections_max),
            ("origin_in_flight_max", self.origin_in_flight_max),
            ("web_push_in_flight_max", self.web_push_in_flight_max),
            ("reply_bytes_max", self.reply_bytes_max),
        ] {
            if limit == 0 {
                faults
                    .push(format!("{name} of the push providers is 0, which lets nothing through"));
            }
        }
        if self.web_push_ports.is_empty() {
            faults.push("web_push_ports is empty, which lets no Web Push through".to_owned());
        }
        faults
    }
}
