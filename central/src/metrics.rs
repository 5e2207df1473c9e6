//! What central counts. Base units; labels from closed enums, never an id.

use std::sync::{Mutex, PoisonError};

use carillon_persist::Committed;
use carillon_world::{App, PushChannel, World};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::core::callback::state::Callbacks;
use crate::core::writer::StepKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StatusLabels {
    pub(crate) status: StatusClass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum StatusClass {
    Success,
    ClientError,
    ServerError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct BatchLabels {
    pub(crate) outcome: BatchOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum BatchOutcome {
    Committed,
    Refused,
    /// Settled later by a new epoch.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StepLabels {
    pub(crate) kind: StepLabel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum StepLabel {
    Erasures,
    Purge,
    Keys,
    Devices,
    Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PartLabels {
    part: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PushLabels {
    pub(crate) channel: ChannelLabel,
    pub(crate) outcome: PushOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ChannelLabels {
    pub(crate) channel: ChannelLabel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum ChannelLabel {
    Apns,
    Fcm,
    WebPush,
}

impl From<PushChannel> for ChannelLabel {
    fn from(channel: PushChannel) -> ChannelLabel {
        match channel {
            PushChannel::Apns => ChannelLabel::Apns,
            PushChannel::Fcm => ChannelLabel::Fcm,
            PushChannel::WebPush => ChannelLabel::WebPush,
        }
    }
}

/// What came of a push that was handed to a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum PushOutcome {
    Accepted,
    Gone,
    Failed,
    /// It is tried again.
    Later,
    /// Our credential was refused.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CallbackLabels {
    outcome: CallbackOutcome,
}

/// What came of a call of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum CallbackOutcome {
    Delivered,
    /// It is tried again, or given up.
    Failed,
    Gone,
    /// The log had forgotten the event.
    Missed,
}

/// The id of one of the [`APPS_SHOWN`] largest apps, or `other` for all the others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AppLabels {
    app: String,
}

/// Apps that have a label of their own, so that a thousand tenants do not make thousands of series.
const APPS_SHOWN: usize = 20;

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// Held by whoever makes a text of it, since sizes are counted anew for each.
    scrape: Mutex<()>,
    pub(crate) requests: Family<StatusLabels, Counter>,
    pub(crate) batches: Family<BatchLabels, Counter>,
    pub(crate) changes: Counter,
    pub(crate) commit_duration: Histogram,
    pub(crate) batch_changes: Histogram,
    pub(crate) writes_pending: Gauge,
    pub(crate) store_up: Gauge,
    pub(crate) store_durable: Gauge,
    pub(crate) clock_jumped: Gauge,
    pub(crate) head: Gauge,
    pub(crate) horizon: Gauge,
    pub(crate) apps: Gauge,
    pub(crate) devices: Gauge,
    pub(crate) messages: Gauge,
    pub(crate) steps: Family<StepLabels, Counter>,
    pub(crate) keys_forgotten: Counter,
    pub(crate) receipts_erased: Counter,
    pub(crate) counts_forgotten: Counter,
    world_bytes: Family<PartLabels, Gauge>,
    pub(crate) world_bytes_max: Gauge,
    app_bytes: Family<AppLabels, Gauge>,
    app_devices: Family<AppLabels, Gauge>,
    app_live_messages: Family<AppLabels, Gauge>,
    pub(crate) links: Gauge,
    pub(crate) links_refused: Counter,
    pub(crate) import_lines: Counter,
    pub(crate) outbox_bytes: Gauge,
    pub(crate) history_events: Counter,
    pub(crate) history_failures: Counter,
    pub(crate) history_lag: Histogram,
    pub(crate) event_log_lines: Counter,
    pub(crate) event_log_lost: Counter,
    pub(crate) push_jobs: Gauge,
    pushes: Family<PushLabels, Counter>,
    push_pauses: Family<ChannelLabels, Counter>,
    push_in_flight: Family<ChannelLabels, Gauge>,
    callbacks: Family<CallbackLabels, Counter>,
    pub(crate) callback_duration: Histogram,
    callback_endpoints: Gauge,
    callback_paused: Gauge,
    callback_behind: Gauge,
    callback_retries: Gauge,
    callback_log_bytes: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let m = Metrics {
            registry: Registry::with_prefix("central"),
            scrape: Mutex::default(),
            requests: Family::default(),
            batches: Family::default(),
            changes: Counter::default(),
            // 0.25 ms to 8 s.
            commit_duration: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            batch_changes: Histogram::new(exponential_buckets(1.0, 2.0, 13)),
            writes_pending: Gauge::default(),
            store_up: Gauge::default(),
            store_durable: Gauge::default(),
            clock_jumped: Gauge::default(),
            head: Gauge::default(),
            horizon: Gauge::default(),
            apps: Gauge::default(),
            devices: Gauge::default(),
            messages: Gauge::default(),
            steps: Family::default(),
            keys_forgotten: Counter::default(),
            receipts_erased: Counter::default(),
            counts_forgotten: Counter::default(),
            world_bytes: Family::default(),
            world_bytes_max: Gauge::default(),
            app_bytes: Family::default(),
            app_devices: Family::default(),
            app_live_messages: Family::default(),
            links: Gauge::default(),
            links_refused: Counter::default(),
            import_lines: Counter::default(),
            outbox_bytes: Gauge::default(),
            history_events: Counter::default(),
            history_failures: Counter::default(),
            event_log_lines: Counter::default(),
            event_log_lost: Counter::default(),
            history_lag: Histogram::new(exponential_buckets(0.01, 4.0, 10)),
            push_jobs: Gauge::default(),
            pushes: Family::default(),
            push_pauses: Family::default(),
            push_in_flight: Family::default(),
            callbacks: Family::default(),
            callback_duration: Histogram::new(exponential_buckets(0.005, 2.0, 13)),
            callback_endpoints: Gauge::default(),
            callback_paused: Gauge::default(),
            callback_behind: Gauge::default(),
            callback_retries: Gauge::default(),
            callback_log_bytes: Gauge::default(),
        };
        m.registered()
    }

    fn registered(mut self) -> Metrics {
        let r = &mut self.registry;
        r.register("http_requests", "Admin requests answered", self.requests.clone());
        r.register("batches", "Batches that the store was given", self.batches.clone());
        r.register("changes", "Changes committed", self.changes.clone());
        let help = "From handing a batch to the store to its answer";
        r.register_with_unit("commit_duration", help, Unit::Seconds, self.commit_duration.clone());
        r.register("batch_changes", "Changes in a batch", self.batch_changes.clone());
        r.register("writes_pending", "Writes that wait for a commit", self.writes_pending.clone());
        r.register(
            "store_durable",
            "Whether the store's settings keep what is acknowledged",
            self.store_durable.clone(),
        );
        r.register("store_up", "Whether the store took the last batch", self.store_up.clone());
        let help =
            "Whether the store's clock jumped by more than 5 minutes, which holds starts and ends";
        r.register("clock_jumped", help, self.clock_jumped.clone());
        r.register("head_seq", "The newest committed seq", self.head.clone());
        r.register("horizon_seq", "The seq up to which history is forgotten", self.horizon.clone());
        r.register("apps", "Apps", self.apps.clone());
        r.register("devices", "Devices", self.devices.clone());
        r.register("messages", "Messages that the world holds", self.messages.clone());
        r.register("forget_steps", "Steps in which old rows were forgotten", self.steps.clone());
        r.register("keys_forgotten", "Idempotency keys forgotten", self.keys_forgotten.clone());
        let help = "Receipts of forgotten devices that were deleted";
        r.register("receipts_erased", help, self.receipts_erased.clone());
        let help = "Old counts of messages that were deleted";
        r.register("counts_forgotten", help, self.counts_forgotten.clone());
        let help = "RAM that the world takes, by what it is for";
        r.register_with_unit("world", help, Unit::Bytes, self.world_bytes.clone());
        let help = "RAM that the world may take; what would grow it further is refused";
        r.register_with_unit("world_max", help, Unit::Bytes, self.world_bytes_max.clone());
        let help = "RAM that an app takes; the largest apps by their ids, the others as one";
        r.register_with_unit("app", help, Unit::Bytes, self.app_bytes.clone());
        r.register("app_devices", "Devices of an app", self.app_devices.clone());
        let help = "Messages of an app that are scheduled or active";
        r.register("app_live_messages", help, self.app_live_messages.clone());
        r.register("links", "Edges that are connected", self.links.clone());
        r.register("links_refused", "Links refused at hello", self.links_refused.clone());
        r.register("import_lines", "Lines read by imports", self.import_lines.clone());
        let help = "Events that wait in the store for the history";
        r.register_with_unit("outbox", help, Unit::Bytes, self.outbox_bytes.clone());
        let help = "Events given to Kafka or to the files of the lake";
        r.register("history_events", help, self.history_events.clone());
        let help = "Times that the history could not be written";
        r.register("history_failures", help, self.history_failures.clone());
        let help = "From an event to when the history has it";
        r.register_with_unit("history_lag", help, Unit::Seconds, self.history_lag.clone());
        let help = "Lines of the event log";
        r.register("event_log_lines", help, self.event_log_lines.clone());
        let help = "Lines that the event log's place did not take";
        r.register("event_log_lost", help, self.event_log_lost.clone());
        r.register(
            "push_jobs",
            "Messages with pushes to hand over, by channel",
            self.push_jobs.clone(),
        );
        r.register(
            "pushes",
            "Pushes handed to a provider, by what came of it",
            self.pushes.clone(),
        );
        r.register(
            "push_pauses",
            "Times that a provider took nothing for a while",
            self.push_pauses.clone(),
        );
        r.register(
            "push_in_flight",
            "Pushes that a provider has not answered",
            self.push_in_flight.clone(),
        );
        let help = "Calls of endpoints, by what came of it";
        r.register("callbacks", help, self.callbacks.clone());
        let help = "From a call of an endpoint to its answer";
        r.register_with_unit(
            "callback_duration",
            help,
            Unit::Seconds,
            self.callback_duration.clone(),
        );
        r.register(
            "callback_endpoints",
            "Endpoints that are called",
            self.callback_endpoints.clone(),
        );
        r.register("callback_paused", "Endpoints that are paused", self.callback_paused.clone());
        let help = "Endpoints that are called and have not had all there is";
        r.register("callback_behind", help, self.callback_behind.clone());
        let help = "Events that wait to be tried again, of all endpoints";
        r.register("callback_retries", help, self.callback_retries.clone());
        let help = "Events kept for callbacks";
        r.register_with_unit("callback_log", help, Unit::Bytes, self.callback_log_bytes.clone());
        self
    }

    /// In the text format of OpenMetrics, with what `world` holds by part and app.
    pub(crate) fn text(&self, world: &World) -> String {
        let _alone = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.sizes(world);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string cannot fail");
        text
    }

    /// At each scrape and not at each commit: it looks at every app.
    fn sizes(&self, world: &World) {
        for (part, bytes) in world.usage().parts() {
            self.world_bytes.get_or_create(&PartLabels { part }).set(number(bytes));
        }
        for family in [&self.app_bytes, &self.app_devices, &self.app_live_messages] {
            family.clear();
        }
        let mut apps: Vec<(u64, &App)> =
            world.apps().map(|app| (app.usage().total(), app)).collect();
        apps.sort_by_key(|(bytes, app)| (std::cmp::Reverse(*bytes), app.row().id));
        for (rank, (bytes, app)) in apps.into_iter().enumerate() {
            let shown = rank < APPS_SHOWN;
            let label = if shown { app.row().id.to_string() } else { "other".to_owned() };
            let labels = AppLabels { app: label };
            self.app_bytes.get_or_create(&labels).inc_by(number(bytes));
            self.app_devices.get_or_create(&labels).inc_by(number(app.device_count() as u64));
            self.app_live_messages.get_or_create(&labels).inc_by(number(app.live_messages()));
        }
    }

    pub(crate) fn status(&self, status: http::StatusCode) {
        let status = match status.as_u16() {
            0..400 => StatusClass::Success,
            400..500 => StatusClass::ClientError,
            _ => StatusClass::ServerError,
        };
        self.requests.get_or_create(&StatusLabels { status }).inc();
    }

    pub(crate) fn batch(&self, outcome: BatchOutcome) {
        self.batches.get_or_create(&BatchLabels { outcome }).inc();
    }

    pub(crate) fn push(&self, channel: PushChannel, outcome: PushOutcome) {
        self.pushes.get_or_create(&PushLabels { channel: channel.into(), outcome }).inc();
    }

    pub(crate) fn push_pause(&self, channel: PushChannel) {
        self.push_pauses.get_or_create(&ChannelLabels { channel: channel.into() }).inc();
    }

    pub(crate) fn push_in_flight(&self, channel: PushChannel, more: i64) {
        self.push_in_flight.get_or_create(&ChannelLabels { channel: channel.into() }).inc_by(more);
    }

    pub(crate) fn callback(&self, outcome: CallbackOutcome) {
        self.callbacks.get_or_create(&CallbackLabels { outcome }).inc();
    }

    /// How all endpoints are.
    pub(crate) fn callbacks(&self, callbacks: &Callbacks) {
        let (mut active, mut behind, mut retries) = (0, 0, 0);
        for endpoint in callbacks.iter() {
            retries += endpoint.progress.retries.len() as u64;
            if endpoint.is_active() {
                active += 1;
                behind += u64::from(endpoint.progress.cursor < callbacks.last(endpoint.row.app));
            }
        }
        self.callback_endpoints.set(number(active));
        self.callback_paused.set(number((callbacks.len() as u64).saturating_sub(active)));
        self.callback_behind.set(number(behind));
        self.callback_retries.set(number(retries));
        self.callback_log_bytes.set(number(callbacks.log_bytes));
    }

    pub(crate) fn step(&self, kind: StepKind, found: Committed) {
        let kind = match kind {
            StepKind::Erasures => StepLabel::Erasures,
            StepKind::Purge => StepLabel::Purge,
            StepKind::Keys => StepLabel::Keys,
            StepKind::Devices => StepLabel::Devices,
            StepKind::Counts => StepLabel::Counts,
        };
        self.steps.get_or_create(&StepLabels { kind }).inc();
        self.keys_forgotten.inc_by(found.keys_forgotten);
        self.receipts_erased.inc_by(found.receipts_erased);
        self.counts_forgotten.inc_by(found.counts_forgotten);
    }

    pub(crate) fn world(&self, world: &World) {
        let counts = world.counts();
        self.head.set(number(world.seq().get()));
        self.horizon.set(number(world.horizon().get()));
        self.apps.set(number(counts.apps));
        self.devices.set(number(counts.devices));
        self.messages.set(number(counts.messages));
    }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
