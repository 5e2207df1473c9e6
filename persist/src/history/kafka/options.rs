//! Which topic of which brokers, and how it is to be reached.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;

use super::error::KafkaError;

/// Longest name of a topic. Kafka takes 249 bytes, and capitals too; but a source of the lake is named after it, with the
/// partition's number.
pub const TOPIC_BYTES_MAX: usize = 90;

/// What [`super::Producer`] and [`super::Reader`] promise depends on these, so they are not the operator's to set.
pub(super) const OURS: &[&str] = &[
    "acks",
    "bootstrap.servers",
    "metadata.broker.list",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "isolation.level",
    "auto.offset.reset",
    "allow.auto.create.topics",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.send.max.retries",
    "message.timeout.ms",
    "request.required.acks",
    "retries",
    "transactional.id",
];

/// Whether `name` may be that of a topic.
pub fn is_topic(name: &str) -> bool {
    let is_known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (1..=TOPIC_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_known)
        && !name.starts_with('.')
}

#[derive(Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// `host:port`, several by commas: those asked for all others.
    pub brokers: String,
    pub topic: String,
    /// More of librdkafka's settings, such as `security.protocol`. May hold secrets.
    pub properties: BTreeMap<String, String>,
    /// Of the topic, if it has to be created.
    pub partitions: u16,
    /// Copies of each partition, if the topic has to be created; `None` is what the brokers think right.
    pub replication: Option<u16>,
    /// How long brokers may leave a request without an answer, and a sent record without an acknowledgement while they
    /// acknowledge no other either.
    pub wait_max: Duration,
}

impl KafkaOptions {
    /// With one partition, and 30 s to answer.
    pub fn new(brokers: impl Into<String>, topic: impl Into<String>) -> KafkaOptions {
        KafkaOptions {
            brokers: brokers.into(),
            topic: topic.into(),
            properties: BTreeMap::new(),
            partitions: 1,
            replication: None,
            wait_max: Duration::from_secs(30),
        }
    }

    /// # Errors
    /// [`KafkaError::Setting`] for what can be known to be wrong without asking a broker.
    pub fn check(&self) -> Result<(), KafkaError> {
        let refuse = |name: &str, what: &str| {
            Err(KafkaError::Setting { name: name.to_owned(), what: what.to_owned() })
        };
        if !is_topic(&self.topic) {
            let what =
                "1 to 90 lower-case letters, digits, dots, hyphens and underscores, no dot first";
            return refuse("topic", what);
        }
        if self.partitions == 0 {
            return refuse("partitions", "at least one is needed");
        }
        if let Some(name) = self.properties.keys().find(|name| OURS.contains(&name.as_str())) {
            return refuse(name, "it is not to be set, since no record may be lost by it");
        }
        let protocol = self.properties.get("security.protocol").map(|text| text.to_lowercase());
        match protocol.as_deref() {
            Some("ssl" | "sasl_ssl") if !cfg!(feature = "kafka-tls") => refuse(
                "security.protocol",
                "this executable was built without TLS to Kafka (cargo's feature kafka-tls)",
            ),
            _ => Ok(()),
        }
    }

    /// What every client has in common.
    pub(super) fn client(&self) -> Result<ClientConfig, KafkaError> {
        self.check()?;
        let mut config = ClientConfig::new();
        config
            // Only where the operator says nothing else.
            .set("client.id", "carillon")
            // A broker that restarts is found again soon; librdkafka's own 10 s are for larger fleets of clients.
            .set("reconnect.backoff.max.ms", "2000")
            .set("retry.backoff.max.ms", "1000");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        Ok(config)
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            // Their values may be secrets.
            .field("properties", &self.properties.keys())
            .field("partitions", &self.partitions)
            .field("replication", &self.replication)
            .field("wait_max", &self.wait_max)
            .finish()
    }
}
