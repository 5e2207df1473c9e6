//! Each tier's part of the settings, in the tier's own terms.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use carillon_central::config::{
    AdminConfig, AudienceLimits, BatchLimits, Budgets, CallbackConfig, CallbackLimits,
    CredentialKey, CredentialKeys, EventLogPlan, FunnelRetention, HistoryConfig, HistoryPlan,
    HistorySink, LinkConfig, ProviderConfig, PusherConfig, QuotaLimits, Schedule, StoreConfig,
    Token as CentralToken, WriterConfig,
};
use carillon_central::{Config as Central, Identity};
use carillon_edge::{
    CentralConfig, CertificateFiles, Config as Edge, Limits, ListenConfig, Token as EdgeToken,
    Trust,
};
use carillon_expr::Limits as ExpressionLimits;
use carillon_persist::history::lake::LakeUrl;
use carillon_persist::{StoreOptions, StoreUrl};
use carillon_world::stream::SenderConfig;

use crate::config::{
    CredentialKeyList, HistorySettings, HistoryTo, RootSecret, Secret, Settings, with_password,
};
use crate::data::{DataError, DataFolder, PemFiles};
use crate::link_token;

/// File of the data folder with the admin API's bearer token.
pub(crate) const ADMIN_TOKEN: &str = "admin.token";

/// What central needs and the settings leave open: from the data folder, made at the first start.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) admin_token: Secret,
    pub(crate) link_token: Secret,
    pub(crate) root_secret: RootSecret,
    pub(crate) credential_keys: CredentialKeyList,
    pub(crate) identity: PemFiles,
    pub(crate) store: StoreUrl,
    /// The folder of the history, where no other place is named.
    pub(crate) history: PathBuf,
}

/// Fills what the settings leave open.
///
/// # Errors
/// A file of the folder can be neither read nor written, or holds what it cannot.
pub(crate) fn made(settings: &Settings, data: &DataFolder) -> Result<Made, DataError> {
    let central = &settings.central;
    let identity = match (&central.stream_certificate_file, &central.stream_key_file) {
        (Some(certificate), Some(key)) => {
            PemFiles { certificate: certificate.clone(), key: key.clone() }
        }
        _ => data.certificate("central")?,
    };
    let development_ca = central.stream_certificate_file.is_none();
    Ok(Made {
        admin_token: match &central.admin_token {
            Some(token) => token.clone(),
            None => data.secret(ADMIN_TOKEN)?,
        },
        link_token: match &central.link_token {
            Some(token) => token.clone(),
            None => data.link_token(development_ca)?,
        },
        root_secret: match &central.root_secret {
            Some(secret) => secret.clone(),
            None => data.secret("root.secret")?,
        },
        credential_keys: match &settings.push.credentials_key {
            Some(keys) => keys.clone(),
            None => data.secret("credentials.secret")?,
        },
        identity,
        history: data.file("history"),
        store: match (&central.store, &central.store_password) {
            (None, _) => StoreUrl::Sqlite(data.file("carillon.db")),
            (Some(url), None) => url.clone(),
            // The check of the configuration refused a URL that cannot take the password.
            (Some(url), Some(password)) => {
                with_password(url, password).unwrap_or_else(|| url.clone())
            }
        },
    })
}

/// Threads or connections that load a shard where nothing is said: more than a few gain nothing, because one thread
/// takes what they bring.
fn loaders() -> NonZeroUsize {
    const MOST: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");
    std::thread::available_parallelism().map_or(NonZeroUsize::MIN, |cores| cores.min(MOST))
}

pub(crate) fn central(settings: &Settings, made: &Made) -> Central {
    let central = &settings.central;
    let token = |secret: &Secret| CentralToken::new(secret.reveal());
    Central {
        store: StoreConfig {
            url: made.store.clone(),
            options: StoreOptions {
                allow_unsafe: central.allow_unsafe_store,
                loaders: central.store_loaders.unwrap_or_else(loaders),
                sqlite_cache: central.store_cache_bytes.0 as u64,
                ..StoreOptions::default()
            },
            connect_timeout: central.store_connect_timeout,
            on_loading: None,
        },
        admin: AdminConfig {
            listen: central.listen,
            token: token(&made.admin_token),
            connections_max: central.connections_max,
            body_bytes_max: central.body_bytes_max.0,
            read_timeout: central.read_timeout,
        },
        link: LinkConfig {
            listen: central.stream_listen,
            identity: Some(Identity::Files {
                certificate: made.identity.certificate.clone(),
                key: made.identity.key.clone(),
            }),
            token: token(&made.link_token),
            links_max: central.links_max,
            hello_timeout: central.hello_timeout,
            sender: SenderConfig {
                window: central.stream_window.0 as u64,
                ..SenderConfig::default()
            },
        },
        ops_listen: central.ops_listen.0,
        root_secret: Some(carillon_central::config::RootSecret::new(made.root_secret.0)),
        writer: WriterConfig {
            // Central sets it by its plan of the history.
            history: None,
            // And this by its callbacks' configuration.
            callbacks: CallbackLimits::default(),
            // A duration of the configuration is at most a century.
            clock_tick: central.clock_tick.as_millis() as u64,
            retention: central.horizon.as_millis() as u64,
            retained_changes_max: central.horizon_changes.get() as u64,
            device_ttl: central.device_ttl.0.map(|ttl| ttl.as_millis() as u64),
            purge_step: central.purge_step.get() as u64,
            purge_pause: central.purge_pause.as_millis() as u64,
            funnel: FunnelRetention {
                minutes: central.funnel_minutes.as_millis() as u64,
                hours: central.funnel_hours.as_millis() as u64,
                days: central.funnel_days.as_millis() as u64,
            },
            batch: BatchLimits {
                changes_max: central.batch_changes_max,
                bytes_max: central.stream_window.0 / 4,
            },
            budgets: Budgets {
                world_bytes_max: central.world_bytes_max.0 as u64,
                quotas: QuotaLimits {
                    devices_max: central.quota_devices.get() as u64,
                    groups_max: central.quota_groups.get() as u64,
                    live_messages_max: central.quota_live_messages.get() as u64,
                    bodies_bytes_max: central.quota_bodies_bytes.0 as u64,
                },
                audiences: AudienceLimits {
                    per_app_max: central.audiences_max.get(),
                    messages_max: central.audience_messages_max.get(),
                },
                expressions: ExpressionLimits {
                    bytes_max: central.expression_bytes_max.0,
                    nodes_max: central.expression_nodes_max.get(),
                    depth_max: central.expression_depth_max.get(),
                    audience_depth_max: central.audience_depth_max.get(),
                },
                volatile_messages_max: central.volatile_messages_max.get() as u64,
            },
        },
        pusher: pusher(settings),
        providers: providers(settings),
        credential_keys: CredentialKeys::new(
            made.credential_keys.0.iter().map(|key| CredentialKey::new(*key)).collect(),
        )
        .map(Arc::new),
        callbacks: callbacks(settings),
        history: history(settings, made),
        write_timeout: central.write_timeout,
        log_bytes_max: central.log_bytes_max.0,
        drain_max: settings.process.drain_max,
        ..Central::default()
    }
}

fn history(settings: &Settings, made: &Made) -> Option<HistoryPlan> {
    let history = &settings.history;
    let sink = match history.to {
        HistoryTo::Off => return None,
        HistoryTo::Lake => {
            let folder = || LakeUrl::Local(made.history.clone());
            let url = history.lake.clone().unwrap_or_else(folder);
            HistorySink::Lake(crate::history::lake(&HistorySettings {
                lake: Some(url),
                ..history.clone()
            })?)
        }
        // The check of the configuration refused this without brokers.
        HistoryTo::Kafka => HistorySink::Kafka(crate::history::kafka(history)?),
        HistoryTo::Discard => HistorySink::Nowhere,
    };
    Some(HistoryPlan {
        sink,
        told: HistoryConfig {
            outbox_bytes_max: history.outbox_bytes_max.0 as u64,
            attributes: history.attributes,
        },
        flush_every: history.flush_every,
        flush_bytes: history.flush_bytes.0,
        accept_restore: history.accept_restore,
        event_log: event_log(settings),
    })
}

fn event_log(settings: &Settings) -> Option<EventLogPlan> {
    let log = &settings.event_log;
    Some(EventLogPlan {
        to: log.to.clone()?,
        format: log.format,
        events: log.events.clone().map(|events| events.0).unwrap_or_default(),
        device_ids: log.device_ids,
        rotate_bytes: log.rotate_bytes.0 as u64,
        rotate_daily: log.rotate_daily,
        rotate_keep: log.rotate_keep.get(),
    })
}

fn callbacks(settings: &Settings) -> CallbackConfig {
    let of = &settings.callbacks;
    CallbackConfig {
        ports: of.ports.0.clone(),
        private_networks: of.private_networks.clone().map_or_else(Vec::new, |of| of.0),
        ca_file: of.ca_file.clone(),
        concurrency: of.concurrency.get(),
        endpoints_max: of.endpoints_max.get(),
        connect_timeout: of.connect_timeout,
        request_timeout: of.request_timeout,
        reply_bytes_max: of.reply_bytes_max.0,
        schedule: Schedule {
            // A duration of the configuration is at most a century.
            first: of.retry_after.as_millis() as u64,
            tried_for: of.retry_for.as_millis() as u64,
            ..Schedule::default()
        },
        pause_after: of.pause_after,
        retention: of.retention,
        bytes_max: of.bytes_max.0 as u64,
    }
}

fn pusher(settings: &Settings) -> PusherConfig {
    let push = &settings.push;
    PusherConfig {
        batch: push.batch,
        grace: push.grace,
        retries_max: push.retries_max,
        attempts_max: push.attempts_max,
        threads: push.threads,
        apns_rate: push.apns_rate,
        fcm_rate: push.fcm_rate,
        web_push_rate: push.web_push_rate,
    }
}

fn providers(settings: &Settings) -> ProviderConfig {
    let push = &settings.push;
    ProviderConfig {
        apns_production: push.apns_url.clone(),
        apns_sandbox: push.apns_sandbox_url.clone(),
        fcm: push.fcm_url.clone(),
        fcm_token_url: push.fcm_token_url.clone(),
        ca_file: push.ca_file.clone(),
        web_push_ports: push.web_push_ports.0.clone(),
        private_networks: push.private_networks.clone().map_or_else(Vec::new, |of| of.0),
        connections_max: push.connections_max.get(),
        streams_max: push.streams_max.get(),
        origins_max: push.origins_max.get(),
        origin_connections_max: push.origin_connections_max.get(),
        origin_in_flight_max: push.origin_in_flight_max.get(),
        web_push_in_flight_max: push.web_push_in_flight_max.get(),
        connect_timeout: push.connect_timeout,
        request_timeout: push.request_timeout,
        reply_bytes_max: push.reply_bytes_max.0,
        ..ProviderConfig::default()
    }
}

pub(crate) fn edge(settings: &Settings) -> Edge {
    let edge = &settings.edge;
    let token = edge.link_token.as_ref().map_or("", Secret::reveal);
    let trust = match (&edge.central_ca_file, link_token::ca_named(token)) {
        (Some(path), _) => Trust::CaFile(path.clone()),
        (None, Some(digest)) => Trust::Pinned(digest),
        (None, None) => Trust::None,
    };
    let certificate = match (&edge.certificate_file, &edge.key_file) {
        (Some(chain), Some(key)) => {
            Some(CertificateFiles { chain: chain.clone(), key: key.clone() })
        }
        _ => None,
    };
    Edge {
        name: edge.name.clone(),
        central: CentralConfig {
            address: edge.central.0.clone(),
            server_name: edge.central_name.clone(),
            trust,
            token: EdgeToken::new(token),
            connect_timeout: edge.connect_timeout,
            backoff_max: edge.backoff_max,
            write_timeout: edge.write_timeout,
            writes_max: edge.writes_max,
        },
        listen: ListenConfig {
            tls: edge.listen.0,
            http: edge.plain_listen.0,
            ops: edge.ops_listen.0,
            certificate,
            forwarded_for: edge.forwarded_for,
        },
        limits: Limits {
            connections_max: edge.connections_max,
            parked_max: edge.parked_max,
            parked_per_device_max: edge.parked_per_device_max,
            body_bytes_max: edge.body_bytes_max.0,
            head_bytes_max: edge.head_bytes_max.0,
            h2_streams_max: edge.h2_streams_max.get(),
            handshake_timeout: edge.handshake_timeout,
            head_timeout: edge.head_timeout,
            body_timeout: edge.body_timeout,
            send_timeout: edge.send_timeout,
            answer_bytes_max: edge.answer_bytes_max.0,
            enrol_burst: edge.enrol_burst,
            enrol_every: edge.enrol_every,
            enrol_sources_max: edge.enrol_sources_max.get(),
            ..Limits::default()
        },
        memory_max: edge.memory_max.as_ref().map(|max| max.0 as u64),
        cores: edge.cores,
        drain_max: settings.process.drain_max,
        drain_spread: edge.drain_spread,
        ..Edge::default()
    }
}

/// The edge that `up` runs beside central, whose stream listens on `stream`. What it was not told
/// it takes from the same folder.
///
/// # Errors
/// A certificate can be neither read nor made.
pub(crate) fn edge_beside(
    settings: &Settings,
    made: &Made,
    stream: SocketAddr,
    data: &DataFolder,
) -> Result<Edge, DataError> {
    let mut edge = edge(settings);
    edge.central.address = reachable(stream).to_string();
    edge.central.token = EdgeToken::new(made.link_token.reveal());
    // The very certificate: one that the operator gave may name the machine by its public name only.
    let digest = link_token::certificate_digest(&made.identity.certificate)?;
    edge.central.trust = Trust::Pinned(digest);
    if edge.listen.certificate.is_none() {
        let files = data.certificate("edge")?;
        edge.listen.certificate =
            Some(CertificateFiles { chain: files.certificate, key: files.key });
    }
    Ok(edge)
}

/// Where a listener is reached from its own machine: one that is bound to all addresses, on loopback.
pub(crate) fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn defaults() -> Settings {
        Sources::default().load().expect("no faults").settings
    }

    /// Else an operator would read one default and meet another.
    #[test]
    fn the_defaults_of_the_table_are_those_of_the_tiers() {
        let settings = defaults();
        assert_eq!(format!("{:#?}", edge(&settings)), format!("{:#?}", Edge::default()));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = DataFolder::open(folder.path()).expect("open");
        let mut central = central(&settings, &made(&settings, &data).expect("make"));
        let default = Central::default();
        assert!(central.faults().is_empty(), "{:?}", central.faults());
        assert_eq!(central.store.url, StoreUrl::Sqlite(data.file("carillon.db")));
        central.store.url = default.store.url.clone();
        (central.admin.token, central.link.token) = (None, None);
        (central.link.identity, central.root_secret) = (None, None);
        assert!(central.credential_keys.take().is_some());
        let history = central.history.take().expect("one is kept");
        let HistorySink::Lake(lake) = &history.sink else { panic!("{history:?}") };
        assert_eq!(lake.url, LakeUrl::Local(data.file("history")));
        assert!(!history.told.attributes && !history.accept_restore);
        assert_eq!(format!("{central:#?}"), format!("{default:#?}"));
    }

    #[test]
    fn an_edge_trusts_the_authority_that_its_token_names() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = DataFolder::open(folder.path()).expect("open");
        let mut settings = defaults();
        let made = made(&settings, &data).expect("make");
        settings.edge.link_token = Some(made.link_token);
        let ca = link_token::certificate_digest(&data.file("ca.pem")).expect("PEM");
        let Trust::Pinned(pinned) = edge(&settings).central.trust else {
            panic!("{:?}", edge(&settings).central.trust);
        };
        assert_eq!(pinned, ca);
        // What central shows ends with that authority.
        let chain = std::fs::read_to_string(made.identity.certificate).expect("read");
        assert!(chain.ends_with(&std::fs::read_to_string(data.file("ca.pem")).expect("read")));
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        for (bound, reached) in [
            ("0.0.0.0:7443", "127.0.0.1:7443"),
            ("[::]:7443", "[::1]:7443"),
            ("192.0.2.1:7443", "192.0.2.1:7443"),
        ] {
            let bound: SocketAddr = bound.parse().expect("an address");
            assert_eq!(reachable(bound).to_string(), reached);
        }
    }
}
