//! What an edge counts. Base units; labels from closed enums, never an id.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::core::answer::Outcome;
use crate::core::route::Route;

/// The label of what became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PollLabels {
    outcome: OutcomeLabel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CallLabels {
    call: CallLabel,
    outcome: OutcomeLabel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct UpstreamLabels {
    pub(crate) outcome: UpstreamOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum OutcomeLabel {
    News,
    Nothing,
    Behind,
    Reset,
    Unauthorized,
    Refused,
    Unavailable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum CallLabel {
    Enrol,
    Session,
    Patch,
    Forget,
    Fetch,
    Receipts,
    Other,
}

/// What became of a request to central.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum UpstreamOutcome {
    Answered,
    /// The link was down or its queue full; nothing was sent.
    NotSent,
    /// Sent, but no reply came: the outcome is unknown.
    Lost,
}

/// Gives label values their text.
macro_rules! label_text {
    ($label:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl EncodeLabelValue for $label {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
                let text = match self {
                    $($label::$variant => $text,)+
                };
                text.encode(encoder)
            }
        }
    };
}

label_text!(OutcomeLabel {
    News => "news",
    Nothing => "nothing",
    Behind => "behind",
    Reset => "reset",
    Unauthorized => "unauthorized",
    Refused => "refused",
    Unavailable => "unavailable",
});
label_text!(CallLabel {
    Enrol => "enrol",
    Session => "session",
    Patch => "patch",
    Forget => "forget",
    Fetch => "fetch",
    Receipts => "receipts",
    Other => "other",
});
label_text!(UpstreamOutcome { Answered => "answered", NotSent => "not_sent", Lost => "lost" });

/// Handles of all metrics of one edge; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) handshakes_failed: Counter,
    pub(crate) parked_polls: Gauge,
    pub(crate) parked_evicted: Counter,
    polls: Family<PollLabels, Counter>,
    calls: Family<CallLabels, Counter>,
    pub(crate) upstream: Family<UpstreamLabels, Counter>,
    pub(crate) wakes: Counter,
    pub(crate) answer_bytes: Counter,
    pub(crate) enrolments_limited: Counter,
    pub(crate) world_seq: Gauge,
    pub(crate) world_lag_changes: Gauge,
    pub(crate) world_bytes: Gauge,
    pub(crate) world_bytes_max: Gauge,
    pub(crate) world_bytes_needed: Gauge,
    pub(crate) snapshots: Counter,
    pub(crate) link_up: Gauge,
    pub(crate) link_down_seconds: Gauge<f64, AtomicU64>,
    pub(crate) link_connects: Counter,
    pub(crate) certificate_not_after_seconds: Gauge,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("edge");
        r.register("connections", "Open connections of devices", self.connections.clone());
        let help = "Connections closed at once because the maximum was reached";
        r.register("connections_refused", help, self.connections_refused.clone());
        r.register(
            "handshakes_failed",
            "TLS handshakes that failed or took too long",
            self.handshakes_failed.clone(),
        );
        r.register("parked_polls", "Requests that wait for a change", self.parked_polls.clone());
        let help = "Parked requests that gave way to a later one of their device";
        r.register("parked_evicted", help, self.parked_evicted.clone());
        r.register("polls", "Polls answered, by outcome", self.polls.clone());
        r.register("calls", "Other calls answered, by call and outcome", self.calls.clone());
        r.register("upstream_requests", "Requests to central, by outcome", self.upstream.clone());
        r.register("wakes", "Parked requests woken by a change", self.wakes.clone());
        r.register_with_unit("answer", "Bodies of answers", Unit::Bytes, self.answer_bytes.clone());
        r.register(
            "enrolments_limited",
            "Enrolments refused by the rate limit",
            self.enrolments_limited.clone(),
        );
        r.register("world_seq", "Sequence number of the world served", self.world_seq.clone());
        let help = "Changes that central has committed and this world lacks, as last heard";
        r.register("world_lag_changes", help, self.world_lag_changes.clone());
        let help = "RAM that the world served takes";
        r.register_with_unit("world", help, Unit::Bytes, self.world_bytes.clone());
        let help = "RAM that worlds may take on this machine";
        r.register_with_unit("world_max", help, Unit::Bytes, self.world_bytes_max.clone());
        let help = "RAM that central's world would take, while that is too much; else 0";
        r.register_with_unit("world_needed", help, Unit::Bytes, self.world_bytes_needed.clone());
        r.register("snapshots", "Worlds that were taken from a snapshot", self.snapshots.clone());
        r.register("link_up", "1 while the link to central is up", self.link_up.clone());
        let help = "How long the link to central has been down; 0 while it is up";
        r.register_with_unit("link_down", help, Unit::Seconds, self.link_down_seconds.clone());
        r.register(
            "link_connects",
            "Times that the link to central came up",
            self.link_connects.clone(),
        );
        let help =
            "When the certificate shown to devices ends, in seconds since 1970; 0 if unknown";
        r.register_with_unit(
            "certificate_not_after",
            help,
            Unit::Seconds,
            self.certificate_not_after_seconds.clone(),
        );
    }

    pub(crate) fn count(&self, route: Option<Route>, outcome: Outcome, bytes: usize) {
        let outcome = match outcome {
            Outcome::News => OutcomeLabel::News,
            Outcome::Nothing => OutcomeLabel::Nothing,
            Outcome::Behind => OutcomeLabel::Behind,
            Outcome::Reset => OutcomeLabel::Reset,
            Outcome::Unauthorized => OutcomeLabel::Unauthorized,
            Outcome::Refused => OutcomeLabel::Refused,
            Outcome::Unavailable => OutcomeLabel::Unavailable,
        };
        self.answer_bytes.inc_by(bytes as u64);
        let call = match route {
            Some(Route::Poll { .. }) => {
                self.polls.get_or_create(&PollLabels { outcome }).inc();
                return;
            }
            Some(Route::Enrol) => CallLabel::Enrol,
            Some(Route::Session) => CallLabel::Session,
            Some(Route::Patch) => CallLabel::Patch,
            Some(Route::Forget) => CallLabel::Forget,
            Some(Route::Fetch) => CallLabel::Fetch,
            Some(Route::Receipts) => CallLabel::Receipts,
            None => CallLabel::Other,
        };
        self.calls.get_or_create(&CallLabels { call, outcome }).inc();
    }

    pub(crate) fn upstream(&self, outcome: UpstreamOutcome) {
        self.upstream.get_or_create(&UpstreamLabels { outcome }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_prefix_and_units_and_label_values_are_words() {
        let mut registry = Registry::default();
        let metrics = Metrics::default();
        metrics.register(&mut registry);
        metrics.count(Some(Route::Fetch), Outcome::Behind, 7);
        metrics.count(Some(Route::Poll { wait: std::time::Duration::ZERO }), Outcome::News, 5);
        metrics.upstream(UpstreamOutcome::Lost);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "edge_answer_bytes_total 12",
            "edge_link_down_seconds 0.0",
            "edge_world_max_bytes 0",
            "edge_polls_total{outcome=\"news\"} 1",
            "edge_calls_total{call=\"fetch\",outcome=\"behind\"} 1",
            "edge_upstream_requests_total{outcome=\"lost\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
