//! What librdkafka tells while it works: its log lines and the last error, for whoever waits in vain.

use std::sync::Mutex;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

use super::error::KafkaError;

/// Log lines and errors that are looked at for the last one.
const EVENTS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Told {
    last: Mutex<Option<String>>,
}

impl Told {
    /// The last error since the last call of this, or that there was none.
    pub(super) fn take(&self) -> String {
        let mut last = self.last.lock().expect("nobody panics while holding it");
        last.take().unwrap_or_else(nothing)
    }

    fn last(&self) -> String {
        let last = self.last.lock().expect("nobody panics while holding it");
        last.clone().unwrap_or_else(nothing)
    }

    fn is_silent(&self) -> bool {
        self.last.lock().expect("nobody panics while holding it").is_none()
    }

    pub(super) fn note(&self, what: String) {
        *self.last.lock().expect("nobody panics while holding it") = Some(what);
    }
}

fn nothing() -> String {
    "no error was reported".to_owned()
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        // The errors that follow from it do not say why.
        if matches!(level, Emerg | Alert | Critical | Error) {
            self.note(text.to_owned());
        }
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
        let is_sequel = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        let mut last = self.last.lock().expect("nobody panics while holding it");
        // That all are down follows from what was wrong with the last of them.
        if last.is_none() || !is_sequel {
            *last = Some(format!("{error}: {reason}"));
        }
    }
}

impl ConsumerContext for Told {}

/// The last error of a consumer that reads nothing yet: it is told only to who polls, an event at a time. It stays, as the
/// last try before a deadline often has no time to hear why it is in vain.
pub(super) fn told(consumer: &BaseConsumer<Told>) -> String {
    for _ in 0..EVENTS_MAX {
        if let Some(Err(error)) = consumer.poll(Duration::ZERO)
            && consumer.context().is_silent()
        {
            consumer.context().note(error.to_string());
        }
    }
    consumer.context().last()
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
