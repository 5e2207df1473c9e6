//! What librdkafka tells while it works: its log lines and the last error, for whoever waits in vain.

use std::sync::Mutex;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError as ClientError;

use super::error::KafkaError;

#[derive(Debug, Default)]
pub(super) struct Told {
    last: Mutex<Option<String>>,
}

impl Told {
    /// The last error since the last call of this, or that there was none.
    pub(super) fn take(&self) -> String {
        let mut last = self.last.lock().expect("nobody panics while holding it");
        last.take().unwrap_or_else(|| "no error was reported".to_owned())
    }

    pub(super) fn note(&self, what: String) {
        *self.last.lock().expect("nobody panics while holding it") = Some(what);
    }
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        match level {
            // It calls an error what it repairs by itself; who waits for it decides whether a person must look.
            Emerg | Alert | Critical | Error | Warning => {
                tracing::warn!(target: "librdkafka", facility, text, "Kafka's client warns");
            }
            Notice | Info => {
                tracing::info!(target: "librdkafka", facility, text, "Kafka's client tells");
            }
            Debug => tracing::debug!(target: "librdkafka", facility, text, "Kafka's client tells"),
        }
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.note(format!("{error}: {reason}"));
    }
}

/// An error of a client's making. Values are left out, since they may be secrets.
pub(super) fn made_wrong(error: ClientError) -> KafkaError {
    match error {
        ClientError::ClientConfig(_, _, name, _) => {
            KafkaError::Setting { name, what: "librdkafka does not take it".to_owned() }
        }
        other => KafkaError::Client { what: other.to_string() },
    }
}
