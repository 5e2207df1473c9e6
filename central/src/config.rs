//! What central is told at its start. Everything has a default but what has to be secret.

mod callback;
mod event_log;
mod provider;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carillon_persist::history::kafka::KafkaOptions;
use carillon_persist::history::lake::LakeOptions;
use carillon_persist::{StoreOptions, StoreUrl};
use carillon_world::ShardId;
use carillon_world::stream::SenderConfig;

pub use self::callback::CallbackConfig;
pub use self::event_log::{EventLogFormat, EventLogPlan, EventLogTo};
pub use self::provider::ProviderConfig;
use crate::OnLoading;
pub use crate::core::audience::AudienceLimits;
pub use crate::core::auth::Token;
pub use crate::core::budget::{Budgets, QuotaLimits};
pub use crate::core::callback::CallbackLimits;
pub use crate::core::callback::schedule::Schedule;
pub use crate::core::channel::credential::{CredentialKey, CredentialKeys};
pub use crate::core::funnel::FunnelRetention;
pub use crate::core::history::HistoryConfig;
pub use crate::core::keys::RootSecret;
pub use crate::core::outbound::{HttpsUrl, Network};
pub use crate::core::writer::{BatchLimits, WriterConfig};

#[derive(Clone, Debug)]
pub struct Config {
    pub shard: ShardId,
    pub store: StoreConfig,
    pub admin: AdminConfig,
    pub link: LinkConfig,
    /// Health and metrics on a listener of their own, so that they answer while the admin API is full. The admin
    /// listener has them, too.
    pub ops_listen: Option<SocketAddr>,
    /// What the keys that edges seal with are derived from. Change it and every device needs its secret again.
    pub root_secret: Option<RootSecret>,
    pub writer: WriterConfig,
    pub pusher: PusherConfig,
    pub providers: ProviderConfig,
    /// What push credentials are encrypted under; without one none can be set.
    pub credential_keys: Option<Arc<CredentialKeys>>,
    pub callbacks: CallbackConfig,
    /// `None`: what happened is not kept.
    pub history: Option<HistoryPlan>,
    /// How long a caller waits for its write; then 503, outcome unknown.
    pub write_timeout: Duration,
    /// Bytes of the change log that edges catch up from; beyond it they get a snapshot.
    pub log_bytes_max: usize,
    /// How long central may take to stop: requests and batches under way finish meanwhile.
    pub drain_max: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            shard: ShardId::FIRST,
            store: StoreConfig::default(),
            admin: AdminConfig::default(),
            link: LinkConfig::default(),
            ops_listen: None,
            root_secret: None,
            writer: WriterConfig::default(),
            pusher: PusherConfig::default(),
            providers: ProviderConfig::default(),
            credential_keys: None,
            callbacks: CallbackConfig::default(),
            history: None,
            write_timeout: Duration::from_secs(10),
            log_bytes_max: 256 * 1024 * 1024,
            drain_max: Duration::from_secs(10),
        }
    }
}

/// Whether and where the history is kept.
#[derive(Clone, Debug)]
pub struct HistoryPlan {
    pub sink: HistorySink,
    /// What is told, and how much of it may wait.
    pub told: HistoryConfig,
    /// How long events wait for others before they become files of the lake.
    pub flush_every: Duration,
    /// Bytes of events after which files are written at once.
    pub flush_bytes: usize,
    /// Go on, in a fork, if the history knows changes that the store lost.
    pub accept_restore: bool,
    /// Where lines for people go too.
    pub event_log: Option<EventLogPlan>,
}

#[derive(Clone, Debug)]
pub enum HistorySink {
    /// Straight into files.
    Lake(LakeOptions),
    /// To a topic, of which `carillon archive` makes files.
    Kafka(KafkaOptions),
    /// Told to callbacks, then dropped.
    Nowhere,
}

/// Where the truth is kept.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub url: StoreUrl,
    pub options: StoreOptions,
    /// How long the store may take to be reached at the start.
    pub connect_timeout: Duration,
    /// Who watches while a shard is loaded.
    pub on_loading: Option<OnLoading>,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            url: StoreUrl::Sqlite(PathBuf::from("carillon.db")),
            options: StoreOptions::default(),
            connect_timeout: Duration::from_secs(30),
            on_loading: None,
        }
    }
}

/// The admin API: HTTP, for use on the host or behind something that speaks TLS.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    pub listen: SocketAddr,
    pub token: Option<Token>,
    pub connections_max: NonZeroUsize,
    /// Bytes of a request's body, but for imports, which are streamed.
    pub body_bytes_max: usize,
    /// How long a request's header, and each piece of a body, may take to come.
    pub read_timeout: Duration,
}

impl Default for AdminConfig {
    fn default() -> AdminConfig {
        AdminConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7700)),
            token: None,
            connections_max: NonZeroUsize::new(1024).expect("not zero"),
            body_bytes_max: 1024 * 1024,
            read_timeout: Duration::from_secs(30),
        }
    }
}

/// How central pushes.
#[derive(Clone, Copy, Debug)]
pub struct PusherConfig {
    /// Threads of the pusher's own, which give way to those that answer callers.
    pub threads: NonZeroUsize,
    /// Pushes of one message and channel that are handed over before they are committed: what a crash repeats at most.
    pub batch: NonZeroUsize,
    /// How long a device that was here of late gets to poll before it is pushed.
    pub grace: Duration,
    /// Pushes of one message and channel that the store remembers to be tried again; as many wait before the others.
    pub retries_max: NonZeroUsize,
    /// Tries of a push whose provider slows that device alone; then it counts as failed.
    pub attempts_max: NonZeroU32,
    /// Pushes a second over all apps; `None` is as many as the provider takes.
    pub apns_rate: Option<NonZeroU32>,
    pub fcm_rate: Option<NonZeroU32>,
    pub web_push_rate: Option<NonZeroU32>,
}

impl PusherConfig {
    /// Targets that are reported together: a batch has eight such steps, so that it moves on while one is committed.
    pub(crate) fn step(&self) -> usize {
        (self.batch.get() / 8).max(1)
    }
}

impl Default for PusherConfig {
    fn default() -> PusherConfig {
        PusherConfig {
            threads: NonZeroUsize::MIN,
            batch: NonZeroUsize::new(10_000).expect("not zero"),
            grace: Duration::from_secs(5),
            retries_max: NonZeroUsize::new(1_000).expect("not zero"),
            attempts_max: NonZeroU32::new(8).expect("not zero"),
            apns_rate: None,
            fcm_rate: None,
            web_push_rate: None,
        }
    }
}

/// The stream to edges: TLS with a shared token.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    pub listen: SocketAddr,
    pub identity: Option<Identity>,
    pub token: Option<Token>,
    /// Edges at a time.
    pub links_max: NonZeroUsize,
    /// How long TLS and the first frame may take.
    pub hello_timeout: Duration,
    pub sender: SenderConfig,
}

impl Default for LinkConfig {
    fn default() -> LinkConfig {
        LinkConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7701)),
            identity: None,
            token: None,
            links_max: NonZeroUsize::new(1024).expect("not zero"),
            hello_timeout: Duration::from_secs(10),
            sender: SenderConfig::default(),
        }
    }
}

/// What central proves itself to edges with: a certificate chain, leaf first, and its key, both PEM.
#[derive(Clone)]
pub enum Identity {
    Files { certificate: PathBuf, key: PathBuf },
    Pem { certificate: String, key: String },
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Identity::Files { certificate, key } => {
                f.debug_struct("Files").field("certificate", certificate).field("key", key).finish()
            }
            Identity::Pem { .. } => f.write_str("Pem(..)"),
        }
    }
}

impl Config {
    /// Everything that is wrong with it, as sentences; empty if central can start.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let exposed =
            |ip: IpAddr| if ip.is_loopback() { "" } else { ", above all beyond loopback" };
        if self.admin.token.is_none() {
            let where_to = exposed(self.admin.listen.ip());
            faults.push(format!("the admin API on {} needs a token{where_to}", self.admin.listen));
        }
        let where_to = exposed(self.link.listen.ip());
        if self.link.token.is_none() {
            faults.push(format!("the stream on {} needs a token{where_to}", self.link.listen));
        }
        if self.link.identity.is_none() {
            faults.push(format!(
                "the stream on {} needs a certificate and a key{where_to}",
                self.link.listen
            ));
        }
        if self.root_secret.is_none() {
            faults.push("a root secret is needed".to_owned());
        }
        faults.extend(self.providers.faults());
        faults.extend(self.callbacks.faults());
        if self.link.sender.window < 8 * 1024 {
            faults.push("a window of less than 8 KiB carries nothing".to_owned());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_without_token_and_certificate_is_refused_with_all_reasons_at_once() {
        let mut config = Config::default();
        config.link.listen = "0.0.0.0:7701".parse().unwrap();
        let faults = config.faults();
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(
            faults[1].contains("0.0.0.0:7701") && faults[1].contains("beyond loopback"),
            "{faults:?}"
        );
        assert!(faults[2].contains("certificate"), "{faults:?}");
    }
}
