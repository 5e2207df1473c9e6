//! Faults that lie between keys, or in the files that they name.

use std::path::Path;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use carillon_persist::history::kafka::KafkaError;

use super::{Fault, HistoryTo, Origin, Settings, with_password};
use crate::{history, link_token};

/// The least that the HTTP library takes.
const HEAD_BYTES_MIN: usize = 8 << 10;

/// With the longest body, an expression of so many bytes and nodes, each a name that is stored as an id, stays below
/// the 1 MiB of a message's record.
const EXPRESSION_BYTES_MAX: usize = 256 << 10;
const EXPRESSION_NODES_MAX: usize = 32_768;
/// The parser counts more as this.
const EXPRESSION_DEPTH_MAX: usize = 512;
/// A tick is a batch and, for every device that waits, a look at what is volatile; beyond an hour the hours of
/// `last_seen` would pass unnoticed.
const CLOCK_TICK_MIN: Duration = Duration::from_secs(1);
const CLOCK_TICK_MAX: Duration = Duration::from_secs(60 * 60);
/// Each edit of an audience reads all that name it, however indirectly.
const AUDIENCE_DEPTH_MAX: usize = 64;
const LAKE_COMPRESSION_MAX: u32 = 22;

impl Settings {
    /// Judges settings that are each well formed; the reader adds where each came from. An edge that runs without its central beside it
    /// has to be told whom to trust.
    pub(super) fn faults(&self, edge_alone: bool) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, what: String| {
            faults.push(Fault { key: key.to_owned(), what, origin: Origin::Default });
        };
        let drain_max: Duration = self.process.drain_max;
        if self.edge.drain_spread >= drain_max {
            fault(
                "edge.drain_spread",
                format!("expected less than drain_max, which is {drain_max:?}"),
            );
        }
        if self.edge.head_bytes_max.0 < HEAD_BYTES_MIN {
            fault("edge.head_bytes_max", "expected at least 8KiB".to_owned());
        }
        let central = &self.central;
        for (key, value, most) in [
            ("expression_bytes_max", central.expression_bytes_max.0, EXPRESSION_BYTES_MAX),
            ("expression_nodes_max", central.expression_nodes_max.get(), EXPRESSION_NODES_MAX),
            ("expression_depth_max", central.expression_depth_max.get(), EXPRESSION_DEPTH_MAX),
            ("audience_depth_max", central.audience_depth_max.get(), AUDIENCE_DEPTH_MAX),
        ] {
            if value > most {
                fault(&format!("central.{key}"), format!("expected at most {most}"));
            }
        }
        let tick: Duration = central.clock_tick;
        if !(CLOCK_TICK_MIN..=CLOCK_TICK_MAX).contains(&tick) {
            fault("central.clock_tick", "expected 1s to 1h".to_owned());
        }
        if self.edge.listen.0.is_none() && self.edge.plain_listen.0.is_none() {
            fault("edge.listen", "expected an address here or in edge.plain_listen".to_owned());
        }
        if let Some(password) = &self.central.store_password
            && self.central.store.as_ref().is_none_or(|url| with_password(url, password).is_none())
        {
            let what = "expected central.store to be mysql://USER@…, with a user and no password";
            fault("central.store_password", what.to_owned());
        }
        let token = self.edge.link_token.as_ref().filter(|_| self.edge.central_ca_file.is_none());
        if token.is_some_and(|token| edge_alone && link_token::ca_named(token.reveal()).is_none()) {
            let what = "required, since the link token names no certificate authority";
            fault("edge.central_ca_file", what.to_owned());
        }
        for (key, value) in [
            ("history.kafka_partitions", Some(self.history.kafka_partitions)),
            ("history.kafka_replication", self.history.kafka_replication),
        ] {
            if value.is_some_and(|value| u16::try_from(value.get()).is_err()) {
                fault(key, "expected at most 65535".to_owned());
            }
        }
        if self.history.lake_compression.get() > LAKE_COMPRESSION_MAX {
            fault("history.lake_compression", format!("expected at most {LAKE_COMPRESSION_MAX}"));
        }
        if self.history.to == HistoryTo::Off && self.event_log.to.is_some() {
            let what = "expected a history: with history.to = \"off\" nothing is told".to_owned();
            fault("event_log.to", what);
        }
        if self.history.to == HistoryTo::Kafka && self.history.kafka_brokers.is_none() {
            let what = "expected brokers, as host:port, because history.to is kafka".to_owned();
            fault("history.kafka_brokers", what);
        }
        // The other options of Kafka's were judged as they were read.
        if let Some(kafka) = history::kafka(&self.history)
            && let Err(KafkaError::Setting { name, what }) = kafka.check()
        {
            fault("history.kafka_properties", format!("{name}: {what}"));
        }
        let certificates = [
            ("central.stream_certificate_file", &self.central.stream_certificate_file),
            ("edge.certificate_file", &self.edge.certificate_file),
            ("edge.central_ca_file", &self.edge.central_ca_file),
        ];
        for (key, path) in certificates {
            if let Some(what) = path.as_deref().and_then(certificate_fault) {
                fault(key, what);
            }
        }
        let keys = [
            ("central.stream_key_file", &self.central.stream_key_file),
            ("edge.key_file", &self.edge.key_file),
        ];
        for (key, path) in keys {
            if let Some(error) =
                path.as_deref().and_then(|path| PrivateKeyDer::from_pem_file(path).err())
            {
                fault(key, format!("no private key in PEM can be read: {error}"));
            }
        }
        faults
    }
}

fn certificate_fault(path: &Path) -> Option<String> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match certificates {
        Ok(certificates) if <Vec<_>>::is_empty(&certificates) => {
            Some("no certificate in PEM is in the file".to_owned())
        }
        Ok(_) => None,
        Err(error) => Some(format!("no certificate in PEM can be read: {error}")),
    }
}
