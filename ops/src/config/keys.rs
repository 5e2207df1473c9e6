//! The table of keys. A line here is a field, a flag, a variable, a line of `print-defaults` and a
//! row of `docs/configuration.md`; nothing else has to be touched to add one.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use carillon_central::config::{EventLogFormat, EventLogTo, HttpsUrl};
use carillon_persist::StoreUrl;
use carillon_persist::history::lake::LakeUrl;

use super::kinds::{
    ByteSize, CredentialKeyList, DurationOrOff, EventPatterns, HistoryTo, HostPort, HostPorts,
    KafkaProperties, ListenAt, LogFilter, LogFormat, MetricPrefix, Networks, Partitions, Password,
    Ports, RootSecret, Secret, Setting, TopicName,
};
use super::reader::Reader;
use super::{Key, Section};

/// Makes of each section a struct and its list of keys. `$prefix` is the section's name with a dot,
/// empty for the keys above all tables; a default of `""` means that the key has none.
macro_rules! settings {
    ($($(#[doc = $about:literal])+ $name:literal $prefix:literal $section:ident: $Struct:ident {
        $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:literal,)+
    })+) => {
        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub(crate) struct $Struct { $($(#[doc = $doc])+ pub(crate) $key: $type,)+ }

            impl $Struct {
                const KEYS: &[Key] = &[$(Key {
                    path: concat!($prefix, stringify!($key)),
                    about: &[$($doc),+],
                    default: $default,
                    kind: &<$type as Setting>::KIND,
                }),+];

                fn read(reader: &mut Reader) -> Option<Self> {
                    let mut keys = Self::KEYS.iter();
                    // All keys are taken before the first fault ends it, so that all are judged.
                    $(let $key = reader.take::<$type>(keys.next().expect("one key per field"));)+
                    Some(Self { $($key: $key?,)+ })
                }
            }
        )+

        /// Everything that can be configured.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct Settings { $(pub(crate) $section: $Struct,)+ }

        impl Settings {
            pub(super) fn read(reader: &mut Reader) -> Option<Self> {
                $(let $section = $Struct::read(reader);)+
                Some(Self { $($section: $section?,)+ })
            }
        }

        /// All sections, in the order in which they are printed.
        pub(crate) const SECTIONS: &[Section] = &[
            $(Section { name: $name, about: &[$($about),+], keys: $Struct::KEYS }),+
        ];
    };
}

settings! {
    /// What concerns the process as a whole.
    "" "" process: ProcessSettings {
        /// Folder of what `up` and `central` make at their first start: secrets, the development
        /// CA, certificates and, unless `central.store` says otherwise, the database.
        data: PathBuf = "carillon-data",
        /// How long a SIGTERM or SIGINT waits for open requests before the process ends anyway.
        drain_max: Duration = "10s",
    }

    /// The log, on standard error.
    "log" "log." log: LogSettings {
        /// `auto` is text at a terminal and one JSON object a line otherwise.
        format: LogFormat = "auto",
        /// Least level that is written, also by module, as tracing's EnvFilter takes it.
        filter: LogFilter = "info",
    }

    /// Counters and gauges, sent as /metrics shows them; see docs/metrics.md.
    "metrics" "metrics." metrics: MetricsSettings {
        /// Where Graphite takes lines over TCP. Not set: it gets none.
        graphite: Option<HostPort> = "",
        /// Where StatsD takes datagrams over UDP. Not set: it gets none.
        statsd: Option<HostPort> = "",
        /// What all names begin with there. Not alike on two processes.
        prefix: MetricPrefix = "carillon",
        /// How often they are sent.
        interval: Duration = "10s",
    }

    /// The tier that owns the truth.
    "central" "central." central: CentralSettings {
        /// Where the admin API listens (HTTP).
        listen: SocketAddr = "127.0.0.1:7700",
        /// Where /healthz, /readyz and /metrics are answered too (HTTP), as they are on `listen`.
        ops_listen: ListenAt = "off",
        /// Where edges connect (TLS).
        stream_listen: SocketAddr = "127.0.0.1:7701",
        /// The database. Not set: an SQLite file `carillon.db` in the data folder. A server has to take packets of 4 MiB
        /// (`max_allowed_packet`), which is less than servers come with.
        store: Option<StoreUrl> = "",
        /// Password of the user that `store` names, so that it need not stand in the URL.
        store_password: Option<Password> = "",
        /// Use a store whose settings may lose what it has acknowledged, such as
        /// `innodb_flush_log_at_trx_commit = 2`; health then says `durability: unsafe`.
        allow_unsafe_store: bool = "false",
        /// The admin API's bearer token. Not set: made at the first start, in the data folder.
        admin_token: Option<Secret> = "",
        /// What edges show when they connect. Not set: made at the first start, in the data folder.
        link_token: Option<Secret> = "",
        /// What the keys of sessions and cursors are derived from; to change it signs every device
        /// out. Not set: made at the first start, in the data folder.
        root_secret: Option<RootSecret> = "",
        /// Certificate chain (PEM) shown to edges. Not set: one of the development CA.
        stream_certificate_file: Option<PathBuf> = "",
        /// Key (PEM) of that certificate.
        stream_key_file: Option<PathBuf> = "",
        /// Bytes that one edge may have unacknowledged.
        stream_window: ByteSize = "4MiB",
        /// Changes in one transaction of the store; its bytes are at most a quarter of `stream_window`.
        batch_changes_max: NonZeroUsize = "4000",
        /// Bytes of encoded changes kept in RAM for edges that reconnect.
        log_bytes_max: ByteSize = "256MiB",
        /// How long recalled, edited and ended messages are remembered for devices that were away.
        horizon: Duration = "7d",
        /// How many changes are remembered at most, whatever their age.
        horizon_changes: NonZeroUsize = "1000000",
        /// How often the clock advances that expressions look at, 1s to 1h, while a message looks at it or
        /// at `last_seen`; each tick judges such messages again for every device that waits.
        clock_tick: Duration = "10s",
        /// Scheduled and active messages of an app that look at the clock or at `last_seen`; one more is
        /// refused with `too-many-volatile-messages`.
        volatile_messages_max: NonZeroUsize = "1000",
        /// How long a device is kept that is not seen; `off` keeps all for ever.
        device_ttl: DurationOrOff = "180d",
        /// Rows of each table that are forgotten in one transaction at most, fewer where that takes
        /// long; see docs/retention.md.
        purge_step: NonZeroUsize = "500",
        /// Least pause between two such transactions; it is as long as the last one took, if that is
        /// longer.
        purge_pause: Duration = "10ms",
        /// How long what is counted of a message by minute is kept; all of it goes with the message, the
        /// horizon after its end.
        funnel_minutes: Duration = "48h",
        /// The same by hour.
        funnel_hours: Duration = "30d",
        /// The same by day.
        funnel_days: Duration = "400d",
        /// RAM that the world may take, as central counts it; what would grow it further is refused
        /// with 507. Every edge has to hold the world, so it follows from the smallest of them.
        world_bytes_max: ByteSize = "8GiB",
        /// Devices of an app that has no quota of its own.
        quota_devices: NonZeroUsize = "20000000",
        /// Groups of an app that has no quota of its own.
        quota_groups: NonZeroUsize = "1000000",
        /// Scheduled and active messages of an app that has no quota of its own.
        quota_live_messages: NonZeroUsize = "100000",
        /// Message bodies of an app that has no quota of its own, ended ones until they are purged.
        quota_bodies_bytes: ByteSize = "1GiB",
        /// Bytes of the text of an expression, at most 256KiB; beyond it `too_long`. Those that are
        /// stored stay, as with the next three.
        expression_bytes_max: ByteSize = "64KiB",
        /// Operators, tests and list entries of an expression, with those of each audience that it
        /// names, at most 32768; beyond it `too_many_nodes`.
        expression_nodes_max: NonZeroUsize = "16384",
        /// Parentheses and `not` that are open at one place of an expression, at most 512; beyond it
        /// `too_deep`.
        expression_depth_max: NonZeroUsize = "256",
        /// Audiences within audiences, at most 64; beyond it `audience_too_deep`.
        audience_depth_max: NonZeroUsize = "16",
        /// Audiences of an app; beyond it `too-many-audiences`.
        audiences_max: NonZeroUsize = "1000",
        /// Scheduled and active messages that may use one audience, also through others, since an edit reads each again;
        /// beyond it `audience-reach`.
        audience_messages_max: NonZeroUsize = "1000",
        /// Open connections to the admin API.
        connections_max: NonZeroUsize = "1024",
        /// Body of a request to the admin API, imports excepted; beyond it 413.
        body_bytes_max: ByteSize = "1MiB",
        /// How long a request's head, and each piece of its body, may take.
        read_timeout: Duration = "30s",
        /// How long a caller waits for its write; then 503, outcome unknown.
        write_timeout: Duration = "10s",
        /// How long the store may take to answer at the start.
        store_connect_timeout: Duration = "30s",
        /// Threads (SQLite) or connections (MySQL) that read devices at the start. Not set: one a core, at
        /// most 4.
        store_loaders: Option<NonZeroUsize> = "",
        /// What each of central's connections to an SQLite file keeps of it in memory at most; three are open: one
        /// writes, one feeds the history, one the callbacks.
        store_cache_bytes: ByteSize = "64MiB",
        /// Edges connected at a time.
        links_max: NonZeroUsize = "1024",
        /// How long an edge's TLS handshake and first frame may take.
        hello_timeout: Duration = "10s",
    }

    /// Central's way to the providers of pushes; see docs/push.md.
    "push" "push." push: PushSettings {
        /// What credentials are encrypted under in the database. Several, by commas, to replace one: the first encrypts,
        /// all decrypt. Not set: made at the first start, in the data folder.
        credentials_key: Option<CredentialKeyList> = "",
        /// Where pushes to Apple's devices go, of apps in production.
        apns_url: HttpsUrl = "https://api.push.apple.com",
        /// As `apns_url`, of apps in the sandbox.
        apns_sandbox_url: HttpsUrl = "https://api.sandbox.push.apple.com",
        /// Where pushes over Firebase Cloud Messaging go.
        fcm_url: HttpsUrl = "https://fcm.googleapis.com",
        /// Where a service account gets its access tokens.
        fcm_token_url: HttpsUrl = "https://oauth2.googleapis.com/token",
        /// Certificate authorities (PEM) trusted besides the public ones.
        ca_file: Option<PathBuf> = "",
        /// Ports that a Web Push endpoint may have, by commas.
        web_push_ports: Ports = "443",
        /// Networks, by commas, that a Web Push endpoint may be in although they are not public, such as
        /// 10.1.0.0/16. Not set: none.
        private_networks: Option<Networks> = "",
        /// Threads that push, at a lower priority than those that answer callers. One makes some ten thousand pushes a
        /// second.
        threads: NonZeroUsize = "1",
        /// Pushes of one message and channel that are handed over before they are committed: what a crash repeats at
        /// most, each of which takes the place of the first on its device.
        batch: NonZeroUsize = "10000",
        /// How long a device that was here within the last hour or two gets to poll before it is pushed.
        grace: Duration = "5s",
        /// Pushes of one message and channel that the database remembers to be tried again; the others wait for them.
        retries_max: NonZeroUsize = "1000",
        /// Tries of a push whose provider slows that device alone; then it counts as failed.
        attempts_max: NonZeroU32 = "8",
        /// Pushes a second to APNs. Not set: as many as it takes.
        apns_rate: Option<NonZeroU32> = "",
        /// Pushes a second to FCM. Not set: as many as it takes.
        fcm_rate: Option<NonZeroU32> = "",
        /// Pushes a second over Web Push. Not set: as many as are taken.
        web_push_rate: Option<NonZeroU32> = "",
        /// Connections to APNs or FCM for one app; more are opened as they are needed.
        connections_max: NonZeroUsize = "4",
        /// Requests in flight on one of them, fewer if the provider says so.
        streams_max: NonZeroUsize = "1000",
        /// Origins of Web Push endpoints of one app with open connections.
        origins_max: NonZeroUsize = "256",
        /// Connections to one of them; more than one only if it does not speak HTTP/2.
        origin_connections_max: NonZeroUsize = "4",
        /// Requests in flight to one of them, so that a slow one leaves room for the others.
        origin_in_flight_max: NonZeroUsize = "100",
        /// Requests in flight to all of them.
        web_push_in_flight_max: NonZeroUsize = "1000",
        /// How long resolving a name, TCP and TLS may take together.
        connect_timeout: Duration = "10s",
        /// How long a provider may take to answer a push, waiting for a connection included.
        request_timeout: Duration = "30s",
        /// Bytes of a provider's answer that are read.
        reply_bytes_max: ByteSize = "16KiB",
    }

    /// What happened, kept for ever: by central in its database, from there in Kafka or straight in the files of the lake,
    /// and by `carillon archive` from Kafka in the lake; see docs/history.md.
    "history" "history." history: HistorySettings {
        /// Where central takes it: `lake` writes the files itself, `kafka` writes the topic of which `carillon archive`
        /// makes them, `discard` keeps none but calls callbacks, `off` keeps none.
        to: HistoryTo = "lake",
        /// Kafka's brokers, those asked for all others.
        kafka_brokers: Option<HostPorts> = "",
        /// The topic, which is created if there is none.
        kafka_topic: TopicName = "carillon.history",
        /// Partitions of a topic that has to be created, at most 65535; a shard is in one of them. Not to be changed while
        /// the topic is in use.
        kafka_partitions: NonZeroU32 = "4",
        /// Copies of each partition of a topic that has to be created. Not set: as many as the brokers think right.
        kafka_replication: Option<NonZeroU32> = "",
        /// More settings of Kafka's client, as librdkafka names them, such as `security.protocol` and
        /// `sasl.password`. Those that records could be lost by are refused.
        kafka_properties: Option<KafkaProperties> = "",
        /// How long Kafka may leave a record or a question unanswered.
        kafka_timeout: Duration = "30s",
        /// The lake, where the history is kept as Parquet files. Not set: central's folder `history` in the data folder.
        lake: Option<LakeUrl> = "",
        /// The store of a lake at s3://. Not set: Amazon's.
        s3_endpoint: Option<String> = "",
        /// Region of the bucket. Not set: what AWS_REGION says.
        s3_region: Option<String> = "",
        /// Id of the key. Not set: as the usual variables of AWS say, or the machine's role.
        s3_key_id: Option<String> = "",
        /// The key.
        s3_secret: Option<Password> = "",
        /// Whether the bucket stands in the URL's path rather than in its host name, as most stores but Amazon's want.
        s3_path_style: bool = "false",
        /// Whether the endpoint may be spoken to without TLS.
        s3_allow_http: bool = "false",
        /// How hard the files are compressed by zstd, 1 to 22.
        lake_compression: NonZeroU32 = "3",
        /// Rows of one file at most.
        lake_file_rows_max: NonZeroUsize = "1000000",
        /// How long events wait for others before central makes files of them.
        flush_every: Duration = "60s",
        /// Events after which central makes files at once.
        flush_bytes: ByteSize = "64MiB",
        /// Events that may wait in the database for Kafka or the lake. From half of it on there is an alarm; beyond it
        /// writes are refused with 503.
        outbox_bytes_max: ByteSize = "1GiB",
        /// Tell the values of devices' attributes too. They stay in the files when a device is forgotten.
        attributes: bool = "false",
        /// Start although the history knows changes that the database lost, because it was restored from a backup. The
        /// history is told what was cut off. To be said once, not to be left in a file.
        accept_restore: bool = "false",
    }

    /// Lines for people beside the history, as it happens; see docs/history.md.
    "event_log" "event_log." event_log: EventLogSettings {
        /// Where central writes a line an event: a file, or `stdout`. Not set: nowhere.
        to: Option<EventLogTo> = "",
        /// `json`, or `csv` with a header.
        format: EventLogFormat = "json",
        /// Events that are written, by commas; `message.*` are all that begin so. Not set: all.
        events: Option<EventPatterns> = "",
        /// Whether devices are named by their ids, which the rest of the history never tells, rather than by pseudonyms.
        device_ids: bool = "true",
        /// Bytes of a file; before it has more it is renamed, to `.1`, that to `.2` and so on.
        rotate_bytes: ByteSize = "100MiB",
        /// Rename it too when a day of UTC is over and something happens.
        rotate_daily: bool = "false",
        /// Renamed files that are kept.
        rotate_keep: NonZeroUsize = "10",
    }

    /// Calls of customers' systems; see docs/callbacks.md.
    "callbacks" "callbacks." callbacks: CallbackSettings {
        /// Ports that an endpoint may have, by commas.
        ports: Ports = "443",
        /// Networks, by commas, that an endpoint may be in although they are not public, such as 10.1.0.0/16. Not set:
        /// none.
        private_networks: Option<Networks> = "",
        /// Certificate authorities (PEM) trusted besides the public ones.
        ca_file: Option<PathBuf> = "",
        /// Endpoints of all apps; beyond it `too-many-callbacks`.
        endpoints_max: NonZeroUsize = "1000",
        /// Requests to one endpoint at a time.
        concurrency: NonZeroUsize = "4",
        /// How long resolving a name, TCP and TLS may take together.
        connect_timeout: Duration = "10s",
        /// How long an endpoint may take to answer, waiting for a connection included.
        request_timeout: Duration = "15s",
        /// Bytes of an endpoint's answer that are read.
        reply_bytes_max: ByteSize = "4KiB",
        /// The pause before an event is tried for the second time; each further one is three times as long, up to 4h.
        retry_after: Duration = "5s",
        /// How long an event is tried.
        retry_for: Duration = "24h",
        /// An endpoint that took nothing for so long, although it was tried, is paused.
        pause_after: Duration = "24h",
        /// How long events are kept for endpoints that are behind, and to be sent again.
        retention: Duration = "72h",
        /// Bytes of such events in the database; beyond it the oldest go earlier.
        bytes_max: ByteSize = "1GiB",
    }

    /// The archiver, which takes the topic into the lake.
    "archive" "archive." archive: ArchiveSettings {
        /// Partitions to take. Not set: all. No two archivers may take the same; the later one stops the earlier.
        partitions: Option<Partitions> = "",
        /// How long a record waits at most to be written; each time makes a file for each folder of the lake that has news.
        flush_interval: Duration = "60s",
        /// Rows that wait at most, over all partitions; with more, the partition with the most of them is written.
        flush_rows: NonZeroUsize = "1000000",
        /// The same in bytes of memory, about.
        flush_bytes: ByteSize = "256MiB",
        /// Where /healthz, /readyz and /metrics are answered (HTTP).
        ops_listen: ListenAt = "off",
    }

    /// The tier that devices talk to.
    "edge" "edge." edge: EdgeSettings {
        /// What this edge is called in central's log and metrics.
        name: String = "edge",
        /// Where central's stream listens; `up` takes its own.
        central: HostPort = "127.0.0.1:7701",
        /// What central knows its edges by. A token that `central` or `up` made also names central's
        /// CA, so that nothing else is needed to trust it.
        link_token: Option<Secret> = "",
        /// Certificate authorities (PEM) that central's certificate must come from. Not set: the one
        /// that the token names.
        central_ca_file: Option<PathBuf> = "",
        /// Name in central's certificate. Not set: the host of `edge.central`.
        central_name: Option<String> = "",
        /// Where devices connect (HTTPS).
        listen: ListenAt = "0.0.0.0:7443",
        /// Where a load balancer that ends TLS itself connects (HTTP).
        plain_listen: ListenAt = "off",
        /// Whether the last address of X-Forwarded-For on `plain_listen` is believed; only behind a
        /// load balancer that sets it.
        forwarded_for: bool = "false",
        /// Where /healthz, /readyz and /metrics are answered (HTTP).
        ops_listen: ListenAt = "127.0.0.1:7444",
        /// Certificate chain (PEM, leaf first) shown to devices, read again when it changes. Not set:
        /// made for localhost, by `up` with its development CA, by `edge` self-signed.
        certificate_file: Option<PathBuf> = "",
        /// Key (PEM) of that certificate.
        key_file: Option<PathBuf> = "",
        /// RAM that the process may take. A world that does not fit is not loaded, and the edge is not
        /// ready. Not set: what the control group allows or the machine has left, whichever is less.
        memory_max: Option<ByteSize> = "",
        /// Threads, each with a runtime and listeners of its own. Not set: one a core.
        cores: Option<NonZeroUsize> = "",
        /// Time over which parked polls are answered when the edge stops, and clients are asked to
        /// spread their next ones. Less than `drain_max`.
        drain_spread: Duration = "2s",
        /// How long connecting to central may take.
        connect_timeout: Duration = "5s",
        /// Longest pause between attempts to reach central.
        backoff_max: Duration = "10s",
        /// How long a device's write may wait for central; then 503.
        write_timeout: Duration = "15s",
        /// Writes that may be on their way to central at a time; beyond it 503.
        writes_max: NonZeroUsize = "1024",
        /// Open connections; beyond it new ones are closed at once. About 25 KiB each.
        connections_max: NonZeroUsize = "200000",
        /// Parked polls of one core; beyond it 503.
        parked_max: NonZeroUsize = "200000",
        /// Parked polls of one device; beyond it the oldest is answered.
        parked_per_device_max: NonZeroUsize = "4",
        /// Body of a request; beyond it 413.
        body_bytes_max: ByteSize = "64KiB",
        /// Head of a request, at least 8KiB; beyond it 431.
        head_bytes_max: ByteSize = "16KiB",
        /// Requests of one HTTP/2 connection at a time.
        h2_streams_max: NonZeroU32 = "16",
        /// How long a TLS handshake may take.
        handshake_timeout: Duration = "10s",
        /// How long a request's head may take; an idle connection is kept as long.
        head_timeout: Duration = "60s",
        /// How long a request's body may take.
        body_timeout: Duration = "10s",
        /// How long a peer may leave what was sent unacknowledged.
        send_timeout: Duration = "30s",
        /// Messages in one answer, about.
        answer_bytes_max: ByteSize = "256KiB",
        /// Enrolments at once from one source (IPv4 address or IPv6 /64).
        enrol_burst: NonZeroU32 = "100",
        /// Time in which a source earns one enrolment back.
        enrol_every: Duration = "100ms",
        /// Sources that are told apart; further ones share one allowance.
        enrol_sources_max: NonZeroUsize = "65536",
    }
}

/// Keys that are set together or not at all.
pub(super) const PAIRS: &[(&str, &str)] = &[
    ("central.stream_certificate_file", "central.stream_key_file"),
    ("edge.certificate_file", "edge.key_file"),
    ("history.s3_key_id", "history.s3_secret"),
];
