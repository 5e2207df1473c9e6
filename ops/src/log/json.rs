//! One JSON object a line. An error is told with all that caused it, which the subscriber's own format leaves out.

use std::error::Error;
use std::fmt::{self, Debug, Write as _};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// `{"timestamp", "level", "message", …, "target"}`, with the event's fields in their order.
pub(super) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut line = Line { text: String::from("{"), target: None };
        line.put("timestamp", &timestamp);
        line.put("level", event.metadata().level().as_str());
        event.record(&mut line);
        let target = line.target.take();
        line.put("target", target.as_deref().unwrap_or(event.metadata().target()));
        writeln!(writer, "{}}}", line.text)
    }
}

/// A line as far as it is written.
struct Line {
    text: String,
    /// Where a record of the `log` crate comes from: the event has the bridge's own target.
    target: Option<String>,
}

impl Line {
    fn put(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        let comma = if self.text.len() > 1 { "," } else { "" };
        // What cannot be JSON, such as a number that is not finite, is null.
        let name = serde_json::to_string(name).unwrap_or_default();
        let value = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
        // Writing to a string does not fail.
        let _ = write!(self.text, "{comma}{name}:{value}");
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => self.target = Some(value.to_owned()),
            name if name.starts_with("log.") => {}
            name => self.put(name, value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            // Some errors print what caused them themselves.
            let cause = error.to_string();
            if !text.ends_with(&cause) {
                text += ": ";
                text += &cause;
            }
            source = error.source();
        }
        self.put(field.name(), &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if !field.name().starts_with("log.") {
            self.put(field.name(), &format!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing_subscriber::fmt::MakeWriter;

    use super::Lines;

    #[derive(Debug, thiserror::Error)]
    #[error("the batch was refused")]
    struct Refused(#[source] Unavailable);

    #[derive(Debug, thiserror::Error)]
    #[error("the store is away")]
    struct Unavailable(#[source] io::Error);

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Sink {
        type Writer = Sink;

        fn make_writer(&'a self) -> Sink {
            self.clone()
        }
    }

    /// The lines of what `tell` logs, without their timestamps.
    fn lines(tell: impl FnOnce()) -> Vec<Value> {
        let sink = Sink::default();
        let log = tracing_subscriber::fmt().event_format(Lines).with_writer(sink.clone()).finish();
        tracing::subscriber::with_default(log, tell);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let line = |line: &str| {
            let mut line: Value = serde_json::from_str(line).expect(line);
            let timestamp = line.as_object_mut().unwrap().remove("timestamp").unwrap();
            assert!(timestamp.as_str().unwrap().ends_with('Z'), "{timestamp}");
            line
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn an_event_is_an_object_a_line() {
        let told = lines(|| {
            tracing::info!(
                n = 3_u64,
                below = -1,
                of = 0.5,
                no = f64::NAN,
                yes = true,
                "two\n\"lines\""
            );
            tracing::warn!(target: "elsewhere", seq = %7, place = ?Some("here"), "next");
        });
        assert_eq!(
            told,
            [
                json!({"level": "INFO", "message": "two\n\"lines\"", "n": 3, "below": -1, "of": 0.5,
                       "no": null, "yes": true, "target": module_path!()}),
                json!({"level": "WARN", "message": "next", "seq": "7", "place": "Some(\"here\")",
                       "target": "elsewhere"}),
            ]
        );
    }

    #[test]
    fn an_error_is_told_with_what_caused_it() {
        let error = Refused(Unavailable(io::Error::other("Lock wait timeout exceeded")));
        let told = lines(|| {
            tracing::warn!(error = &error as &dyn std::error::Error, "the store refused a batch");
        });
        let text = "the batch was refused: the store is away: Lock wait timeout exceeded";
        assert_eq!(told[0]["error"], text);
    }
}
