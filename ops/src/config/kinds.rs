//! The types a key may have: how each is written, and what is expected of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use carillon_central::config::{EventLogFormat, EventLogPlan, EventLogTo, HttpsUrl, Network};
use carillon_persist::StoreUrl;
use carillon_persist::history::kafka::is_topic;
use carillon_persist::history::lake::LakeUrl;

use super::{Kind, TomlType};
use crate::hexadecimal;

/// A type that stands in the table of keys. Every value can be written as text, because the
/// environment and flags know nothing else; the file must use the kind's TOML type.
pub(crate) trait Setting: Sized {
    const KIND: Kind;

    /// `None` if the text is not what [`Kind::expected`] says.
    fn parse(text: &str) -> Option<Self>;

    /// The value of a key that has neither a default nor anything set.
    fn absent() -> Option<Self> {
        None
    }
}

const fn text_kind(expected: &'static str, placeholder: &'static str) -> Kind {
    Kind { expected, placeholder, toml: TomlType::String, secret: false, shown: true }
}

const fn number_kind(expected: &'static str) -> Kind {
    Kind { expected, placeholder: "NUMBER", toml: TomlType::Integer, secret: false, shown: true }
}

impl<T: Setting> Setting for Option<T> {
    const KIND: Kind = T::KIND;

    fn parse(text: &str) -> Option<Self> {
        T::parse(text).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl Setting for SocketAddr {
    const KIND: Kind = text_kind("an IP address with port, like \"127.0.0.1:7700\"", "ADDRESS");

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// Where to listen, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListenAt(pub(crate) Option<SocketAddr>);

impl Setting for ListenAt {
    const KIND: Kind =
        text_kind("an IP address with port, like \"127.0.0.1:7443\", or \"off\"", "ADDRESS");

    fn parse(text: &str) -> Option<Self> {
        if text == "off" { Some(Self(None)) } else { text.parse().ok().map(Some).map(Self) }
    }
}

impl Setting for PathBuf {
    const KIND: Kind = text_kind("a path", "PATH");

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && !text.contains('\0')).then(|| Self::from(text))
    }
}

impl Setting for String {
    const KIND: Kind = text_kind("a text that is not empty", "TEXT");

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.to_owned())
    }
}

impl Setting for bool {
    const KIND: Kind = Kind {
        expected: "true or false",
        placeholder: "BOOL",
        toml: TomlType::Boolean,
        secret: false,
        shown: true,
    };

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for NonZeroUsize {
    const KIND: Kind = number_kind("a whole number from 1");

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for NonZeroU32 {
    const KIND: Kind = number_kind("a whole number from 1 to 4294967295");

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for Duration {
    const KIND: Kind =
        text_kind("a duration above zero in ms, s, m, h or d, like \"30s\"", "DURATION");

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        Some(Self::from_millis(number.checked_mul(unit_ms)?)).filter(|d| *d <= DURATION_MAX)
    }
}

/// How long, if there is an end to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DurationOrOff(pub(crate) Option<Duration>);

impl Setting for DurationOrOff {
    const KIND: Kind =
        text_kind("a duration in ms, s, m, h or d, like \"180d\", or \"off\"", "DURATION");

    fn parse(text: &str) -> Option<Self> {
        match text {
            "off" | "0" => Some(Self(None)),
            _ => Duration::parse(text).map(Some).map(Self),
        }
    }
}

/// A century: no timer arithmetic overflows below it, and no one means more.
const DURATION_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteSize(pub(crate) usize);

impl Setting for ByteSize {
    const KIND: Kind = text_kind("a size above zero in B, KiB, MiB or GiB, like \"4MiB\"", "SIZE");

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let unit_bytes: u64 = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        Some(Self(usize::try_from(number.checked_mul(unit_bytes)?).ok()?))
    }
}

/// Splits `30s` into a number above zero and a unit.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number = text[..digits].parse().ok().filter(|number| *number > 0)?;
    Some((number, text[digits..].trim_start()))
}

/// A host name or IP address with a port, for connecting to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort(pub(crate) String);

impl Setting for HostPort {
    const KIND: Kind = text_kind("a host with port, like \"central.internal:7701\"", "HOST:PORT");

    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let good = !host.is_empty() && host.chars().all(plain)
            || text.parse::<SocketAddr>().is_ok_and(|address| address.is_ipv6());
        (good && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| Self(text.to_owned()))
    }
}

/// Words with dots between, that the names of metrics begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetricPrefix(pub(crate) String);

impl Setting for MetricPrefix {
    const KIND: Kind = text_kind(
        "1 to 100 letters, digits, hyphens, underscores and dots, no dot first, last or beside another",
        "PREFIX",
    );

    fn parse(text: &str) -> Option<Self> {
        let is_known = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(is_known);
        (text.len() <= 100 && text.split('.').all(is_word)).then(|| Self(text.to_owned()))
    }
}

/// Several of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPorts(pub(crate) String);

impl Setting for HostPorts {
    const KIND: Kind =
        text_kind("hosts with port like \"kafka-1.internal:9092\", by commas", "HOSTS");

    fn parse(text: &str) -> Option<Self> {
        let hosts: Option<Vec<_>> =
            text.split(',').map(|host| HostPort::parse(host.trim()).map(|host| host.0)).collect();
        hosts.map(|hosts| Self(hosts.join(",")))
    }
}

/// The name of a topic of Kafka's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicName(pub(crate) String);

impl Setting for TopicName {
    const KIND: Kind = text_kind(
        "1 to 90 lower-case letters, digits, dots, hyphens and underscores, no dot first",
        "TOPIC",
    );

    fn parse(text: &str) -> Option<Self> {
        is_topic(text).then(|| Self(text.to_owned()))
    }
}

/// Partitions of a topic, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Partitions(pub(crate) Vec<u16>);

impl Setting for Partitions {
    const KIND: Kind = text_kind("different numbers from 0, by commas", "PARTITIONS");

    fn parse(text: &str) -> Option<Self> {
        let mut all: Vec<u16> =
            text.split(',').map(|part| part.trim().parse().ok()).collect::<Option<_>>()?;
        let given = all.len();
        all.sort_unstable();
        all.dedup();
        (all.len() == given).then_some(Self(all))
    }
}

/// Where central takes the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistoryTo {
    Off,
    Lake,
    Kafka,
    Discard,
}

impl Setting for HistoryTo {
    const KIND: Kind = text_kind("\"lake\", \"kafka\", \"discard\" or \"off\"", "PLACE");

    fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            "lake" => Some(Self::Lake),
            "kafka" => Some(Self::Kafka),
            "discard" => Some(Self::Discard),
            _ => None,
        }
    }
}

impl Setting for EventLogTo {
    const KIND: Kind = text_kind("\"stdout\" or the path of a file", "PLACE");

    fn parse(text: &str) -> Option<Self> {
        match text {
            "stdout" => Some(Self::Stdout),
            path => PathBuf::parse(path).map(Self::File),
        }
    }
}

impl Setting for EventLogFormat {
    const KIND: Kind = text_kind("\"json\" or \"csv\"", "FORMAT");

    fn parse(text: &str) -> Option<Self> {
        match text {
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// Events of the history, some by the words that their names begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventPatterns(pub(crate) Vec<String>);

impl Setting for EventPatterns {
    const KIND: Kind = text_kind(
        "names of events like \"message.state\" or \"device.*\", by commas; docs/history.md lists them",
        "EVENTS",
    );

    fn parse(text: &str) -> Option<Self> {
        let patterns = text.split(',').map(|part| part.trim().to_owned());
        let patterns: Vec<String> = patterns.collect();
        patterns.iter().all(|part| EventLogPlan::is_pattern(part)).then_some(Self(patterns))
    }
}

impl Setting for LakeUrl {
    const KIND: Kind = text_kind(
        "\"file:///ABSOLUTE/PATH\", the bare path, \"s3://BUCKET/PREFIX\" or, if built with it, \"hdfs://NAMENODE:PORT/PATH\"",
        "URL",
    );

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Text at a terminal, JSON otherwise.
    Auto,
    Text,
    Json,
}

impl Setting for LogFormat {
    const KIND: Kind = text_kind("one of \"auto\", \"text\", \"json\"", "FORMAT");

    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Directives of tracing's filter, known to parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFilter(pub(crate) String);

impl Setting for LogFilter {
    const KIND: Kind =
        text_kind("a filter, like \"info\" or \"info,carillon_edge=debug\"", "FILTER");

    fn parse(text: &str) -> Option<Self> {
        let good = !text.is_empty() && tracing_subscriber::EnvFilter::try_new(text).is_ok();
        good.then(|| Self(text.to_owned()))
    }
}

/// Something that must not be shown: `Debug` prints only that it is there.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Fewer characters than this can be guessed: 32 hexadecimal digits are 128 bits.
const SECRET_CHARS_MIN: usize = 32;
const SECRET_CHARS_MAX: usize = 1024;

const fn secret_kind(expected: &'static str) -> Kind {
    Kind { expected, placeholder: "PATH", toml: TomlType::String, secret: true, shown: false }
}

impl Setting for Secret {
    const KIND: Kind = secret_kind("a secret of 32 to 1024 visible ASCII characters");

    fn parse(text: &str) -> Option<Self> {
        let good = (SECRET_CHARS_MIN..=SECRET_CHARS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| Self(text.to_owned()))
    }
}

/// 256 bits that keys are derived from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RootSecret(pub(crate) [u8; 32]);

impl fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootSecret(…)")
    }
}

impl Setting for RootSecret {
    const KIND: Kind = secret_kind("64 hexadecimal digits");

    fn parse(text: &str) -> Option<Self> {
        hexadecimal::decode(text).map(Self)
    }
}

/// Keys that secrets are encrypted under; the first encrypts.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CredentialKeyList(pub(crate) Vec<[u8; 32]>);

impl fmt::Debug for CredentialKeyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialKeyList({} keys)", self.0.len())
    }
}

impl Setting for CredentialKeyList {
    const KIND: Kind = secret_kind("64 hexadecimal digits, or several such by commas");

    fn parse(text: &str) -> Option<Self> {
        text.split(',').map(|key| hexadecimal::decode(key.trim())).collect::<Option<_>>().map(Self)
    }
}

impl Setting for HttpsUrl {
    const KIND: Kind = text_kind("a URL that begins with https://", "URL");

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// TCP ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) Vec<u16>);

impl Setting for Ports {
    const KIND: Kind = text_kind("ports from 1 to 65535, by commas", "PORTS");

    fn parse(text: &str) -> Option<Self> {
        let port = |part: &str| part.trim().parse::<u16>().ok().filter(|port| *port > 0);
        text.split(',').map(port).collect::<Option<_>>().map(Self)
    }
}

/// Networks of IP addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Networks(pub(crate) Vec<Network>);

impl Setting for Networks {
    const KIND: Kind = text_kind("networks like \"10.1.0.0/16\", by commas", "NETWORKS");

    fn parse(text: &str) -> Option<Self> {
        text.split(',').map(|part| part.trim().parse().ok()).collect::<Option<_>>().map(Self)
    }
}

/// A password that somebody else's system asks for, so its strength is not ours to judge.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Setting for Password {
    const KIND: Kind = secret_kind("a password of 1 to 1024 bytes");

    fn parse(text: &str) -> Option<Self> {
        (1..=SECRET_CHARS_MAX).contains(&text.len()).then(|| Self(text.to_owned()))
    }
}

impl Password {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

/// Settings of librdkafka's, some of which are secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KafkaProperties(pub(crate) BTreeMap<String, String>);

impl fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KafkaProperties").field(&self.0.keys()).finish()
    }
}

impl Setting for KafkaProperties {
    const KIND: Kind = secret_kind("lines of `name = value`, each name once; # begins a comment");

    fn parse(text: &str) -> Option<Self> {
        let mut properties = BTreeMap::new();
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line.split_once('=')?;
            let name = name.trim();
            let is_name =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._".contains(&b);
            if name.is_empty() || !name.bytes().all(is_name) {
                return None;
            }
            if properties.insert(name.to_owned(), value.trim().to_owned()).is_some() {
                return None;
            }
        }
        Some(Self(properties))
    }
}

impl Setting for StoreUrl {
    const KIND: Kind = Kind {
        expected: "\"sqlite:PATH\" or \"mysql://USER:PASSWORD@HOST:PORT/DATABASE\"",
        placeholder: "URL",
        toml: TomlType::String,
        secret: false,
        shown: false,
    };

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// The URL of a MySQL server with `password` in it; `None` if the URL has one already, names no user
/// to have it, or is not that of a server.
pub(crate) fn with_password(url: &StoreUrl, password: &Password) -> Option<StoreUrl> {
    let StoreUrl::Mysql(text) = url else { return None };
    let (user, rest) = text.strip_prefix("mysql://")?.split_once('@')?;
    if user.is_empty() || user.contains([':', '/']) {
        return None;
    }
    // Whatever could end the password or the authority is escaped, and everything else may be.
    let escaped: String = password.0.bytes().map(|byte| format!("%{byte:02X}")).collect();
    format!("mysql://{user}:{escaped}@{rest}").parse().ok()
}
