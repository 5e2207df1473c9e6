//! What an archiver counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) records: Counter,
    pub(super) repeats: Counter,
    pub(super) unreadable: Counter,
    pub(super) missed: Counter,
    pub(super) commits: Counter,
    pub(super) rows: Counter,
    pub(super) files: Counter,
    pub(super) bytes: Counter,
    pub(super) failures: Counter,
    pub(super) waiting_rows: Gauge,
    pub(super) last_event_milliseconds: Gauge,
    /// 1 while the topic is read and nothing that failed is outstanding.
    pub(super) is_ready: Gauge,
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("archive");
        r.register("records", "Records read for the first time", self.records.clone());
        r.register("repeats", "Records read that the lake had", self.repeats.clone());
        r.register("unreadable", "Messages that are no records", self.unreadable.clone());
        let help = "Messages that Kafka forgot before they were archived";
        r.register("missed", help, self.missed.clone());
        r.register("commits", "Commits to the lake", self.commits.clone());
        r.register("rows", "Rows committed", self.rows.clone());
        r.register("files", "Files committed", self.files.clone());
        r.register("file_bytes", "Bytes of files committed", self.bytes.clone());
        r.register("failures", "Attempts that failed and are made again", self.failures.clone());
        r.register("waiting_rows", "Rows that wait to be committed", self.waiting_rows.clone());
        let help = "When the last record that was read happened, since 1970";
        r.register("last_event_milliseconds", help, self.last_event_milliseconds.clone());
        r.register("ready", "1 while the topic is read and written", self.is_ready.clone());
    }
}
