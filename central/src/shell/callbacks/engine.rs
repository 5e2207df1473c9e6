//! One endpoint under way: reads the log, calls, and says how far it is. What it does next is decided by
//! [`Delivery`](crate::core::callback::delivery::Delivery).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use carillon_persist::{CallbackId, CallbackLogFrom, CallbackLogRow, StoreError};
use carillon_world::{AppId, Millis};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::reader::{LogReader, ReadError};
use super::sender::{Call, CallbackSender, Called, Line};
use crate::core::callback::delivery::{Delivery, DeliveryLimits, Outcome, Report, Try};
use crate::core::callback::state::Endpoint;
use crate::core::callback::wanted::wants;
use crate::core::write::{CallbackReport, CallbackWrite, Write};
use crate::metrics::CallbackOutcome;
use crate::shell::shared::{Phase, Shared, reached};
use crate::shell::write_handle::WriteHandle;

/// Bytes of the log that one endpoint reads at a time, and holds.
const READ_BYTES: u64 = 256 * 1024;
/// Read for one event that is tried again: its row.
const ROW_BYTES: u64 = 1;
/// After the log could not be read, or a report not committed.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Connections that are not used so long are closed.
const IDLE: Duration = Duration::from_secs(60);
/// How long what is under way may take to end once central stops.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// However long there is nothing to do, it is looked again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

pub(super) struct Engine {
    pub(super) id: CallbackId,
    pub(super) run: u32,
    pub(super) shared: Arc<Shared>,
    pub(super) writes: WriteHandle,
    pub(super) sender: Arc<CallbackSender>,
    pub(super) reader: LogReader,
    pub(super) limits: DeliveryLimits,
    /// Told when something about the endpoint or its log was published.
    pub(super) news: Arc<Notify>,
}

/// An event that was read and not tried.
struct Item {
    n: u64,
    call: Call,
}

type Read = Result<Vec<CallbackLogRow>, ReadError>;
type Flying = FuturesUnordered<BoxFuture<'static, (u64, Outcome)>>;

struct UnderWay {
    of: Engine,
    app: AppId,
    delivery: Delivery,
    items: VecDeque<Item>,
    flying: Flying,
    /// With the app's last event in the log when it was asked for.
    reading: Option<BoxFuture<'static, (u64, Read)>>,
    reporting: Option<BoxFuture<'static, bool>>,
    line: Option<Arc<Line>>,
    used_at: Instant,
    /// Neither reads nor reports before.
    store_at: Instant,
}

impl Engine {
    /// The endpoint as it is stored; `None` once this run is over.
    fn endpoint(&self) -> Option<Endpoint> {
        let view = self.shared.callbacks();
        let found = view.callbacks.get(self.id);
        found.filter(|of| of.is_active() && of.row.run == self.run).cloned()
    }

    /// Until the endpoint is paused, changed or deleted, or central stops.
    pub(super) async fn run(self, mut phase: watch::Receiver<Phase>) -> CallbackId {
        let id = self.id;
        let Some(endpoint) = self.endpoint() else { return id };
        let news = self.news.clone();
        let mut under_way = UnderWay {
            app: endpoint.row.app,
            delivery: Delivery::new(self.limits, &endpoint.progress, self.shared.clock.now()),
            of: self,
            items: VecDeque::new(),
            flying: FuturesUnordered::new(),
            reading: None,
            reporting: None,
            line: None,
            used_at: Instant::now(),
            store_at: Instant::now(),
        };
        loop {
            if !under_way.go_on() {
                return id;
            }
            let wake = under_way.wake();
            let UnderWay { flying, reading, reporting, .. } = &mut under_way;
            tokio::select! {
                () = reached(&mut phase, Phase::Draining) => {
                    under_way.drain().await;
                    return id;
                }
                Some((event, outcome)) = flying.next(), if !flying.is_empty() => {
                    under_way.settle(event, outcome);
                }
                (asked, read) = at_work(reading) => {
                    under_way.reading = None;
                    under_way.take_log(asked, read);
                }
                is_committed = at_work(reporting) => {
                    under_way.reporting = None;
                    under_way.take_reported(is_committed);
                }
                () = news.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }
}

/// Cancel safe: the work goes on with the next call.
async fn at_work<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

impl UnderWay {
    fn now(&self) -> Millis {
        self.of.shared.clock.now()
    }

    /// Begins whatever may begin; false once the run is over.
    fn go_on(&mut self) -> bool {
        let view = self.of.shared.callbacks();
        let Some(endpoint) = self.of.endpoint() else { return false };
        let forgotten = endpoint.progress.cursor;
        if forgotten > self.delivery.cursor() {
            self.delivery.handle_forgotten(forgotten);
        }
        let now = self.now();
        while let Some(of) = self.delivery.poll_try(now) {
            self.begin(now, of, &endpoint);
        }
        if Instant::now() >= self.store_at {
            let last = view.callbacks.last(self.app);
            let read = self.delivery.read();
            if self.reading.is_none() && last > read && self.delivery.wants_read() {
                let (reader, from) =
                    (self.of.reader.clone(), CallbackLogFrom::After(self.app, read));
                self.reading =
                    Some(async move { (last, reader.read(from, READ_BYTES).await) }.boxed());
            }
            if let Some(report) = self.delivery.poll_report(now, false) {
                self.reporting = Some(self.report(report));
            }
        }
        if self.flying.is_empty() && self.used_at.elapsed() >= IDLE {
            self.line = None;
        }
        true
    }

    fn wake(&self) -> Instant {
        let (now, clock) = (Instant::now(), self.now());
        let mut wake = now + LOOK_AGAIN;
        if self.line.is_some() && self.flying.is_empty() {
            wake = wake.min(self.used_at + IDLE);
        }
        if let Some(due) = self.delivery.poll_timeout(clock) {
            let due = now + Duration::from_millis(due.0.saturating_sub(clock.0));
            // A report that has to wait for the store is what is due, at most times.
            wake = wake.min(due.max(self.store_at.min(now + STORE_PAUSE)));
        }
        if self.store_at > now {
            wake = wake.min(self.store_at);
        }
        wake
    }

    fn begin(&mut self, now: Millis, Try { event, is_retry }: Try, endpoint: &Endpoint) {
        self.used_at = Instant::now();
        let call = if is_retry {
            None
        } else {
            while self.items.front().is_some_and(|item| item.n < event) {
                self.items.pop_front();
            }
            self.items.pop_front().map(|item| item.call)
        };
        let line = match &self.line {
            Some(line) => Ok(line.clone()),
            None => self.of.sender.line(&endpoint.row.url).map(Arc::new),
        };
        self.line = line.as_ref().ok().cloned();
        let secrets = self.of.sender.secrets(&endpoint.row, now);
        let (line, secrets) = match (line, secrets) {
            (Ok(line), Ok(secrets)) => (line, secrets),
            (Err(error), _) | (_, Err(error)) => {
                let outcome = Outcome::Failed { error: error.into(), after: None };
                self.flying.push(std::future::ready((event, outcome)).boxed());
                return;
            }
        };
        let (sender, reader, app) = (self.of.sender.clone(), self.of.reader.clone(), self.app);
        let shared = self.of.shared.clone();
        let calling = async move {
            let call = match call {
                Some(call) => call,
                None => match look_up(&reader, app, event).await {
                    Ok(Some(call)) => call,
                    Ok(None) => return (event, Outcome::Missing),
                    Err(error) => {
                        let error = error.to_string().into();
                        return (event, Outcome::Failed { error, after: None });
                    }
                },
            };
            let Called { outcome, took, .. } = sender.call(&line, &secrets, &call).await;
            shared.metrics.callback_duration.observe(took.as_secs_f64());
            (event, outcome)
        };
        self.flying.push(calling.boxed());
    }

    fn settle(&mut self, event: u64, outcome: Outcome) {
        let counted = match &outcome {
            Outcome::Delivered => CallbackOutcome::Delivered,
            Outcome::Gone { .. } => CallbackOutcome::Gone,
            Outcome::Failed { .. } => CallbackOutcome::Failed,
            Outcome::Missing => CallbackOutcome::Missed,
        };
        self.of.shared.metrics.callback(counted);
        self.delivery.handle_outcome(self.now(), event, outcome, rand::random());
    }

    /// What was read when the app's last event in the log was `asked`.
    fn take_log(&mut self, asked: u64, read: Read) {
        let taken = read.map_err(|_| None).and_then(|rows| self.queue(asked, &rows).map_err(Some));
        if let Err(error) = taken {
            if let Some(error) = error {
                tracing::error!(%error, "the log of callbacks is damaged");
            }
            self.store_at = Instant::now() + STORE_PAUSE;
        }
    }

    fn queue(&mut self, asked: u64, rows: &[CallbackLogRow]) -> Result<(), StoreError> {
        let Some(endpoint) = self.of.endpoint() else { return Ok(()) };
        let before = self.delivery.read();
        let mut items = Vec::new();
        for row in rows {
            for event in row.events()? {
                if event.n > before && wants(&endpoint.row.events, event.kind) {
                    let body = event.body.to_owned().into();
                    items.push(Item { n: event.n, call: Call { id: event.id.into(), body } });
                }
            }
        }
        // Nothing is left of what was there, or never was.
        let through = rows.last().map_or(asked, |row| row.last);
        self.delivery.handle_read(items.iter().map(|item| item.n), through);
        self.items.extend(items);
        Ok(())
    }

    fn report(&self, report: Report) -> BoxFuture<'static, bool> {
        let report = CallbackReport { id: self.of.id, run: self.of.run, report };
        let write = Write::Callback(Box::new(CallbackWrite::Report(report)));
        let writes = self.of.writes.clone();
        async move { writes.write(write).await.result.is_ok() }.boxed()
    }

    fn take_reported(&mut self, is_committed: bool) {
        self.delivery.handle_reported(is_committed);
        if !is_committed {
            self.store_at = Instant::now() + STORE_PAUSE;
        }
    }

    /// Lets end what is under way, for a while, and says how far it is.
    async fn drain(&mut self) {
        let until = Instant::now() + DRAIN_MAX;
        while !self.flying.is_empty() {
            let Ok(Some((event, outcome))) =
                tokio::time::timeout_at(until, self.flying.next()).await
            else {
                break;
            };
            self.settle(event, outcome);
        }
        if let Some(reporting) = self.reporting.take() {
            self.delivery.handle_reported(reporting.await);
        }
        if let Some(report) = self.delivery.poll_report(self.now(), true) {
            self.report(report).await;
        }
    }
}

/// One event of the log; `None` if it is not there any more.
async fn look_up(reader: &LogReader, app: AppId, event: u64) -> Result<Option<Call>, ReadError> {
    let rows = reader.read(CallbackLogFrom::After(app, event - 1), ROW_BYTES).await?;
    let find = |row: &CallbackLogRow| {
        let events = row.events().ok()?;
        let found = events.into_iter().find(|of| of.n == event)?;
        Some(Call { id: found.id.into(), body: found.body.to_owned().into() })
    };
    Ok(rows.iter().find_map(find))
}
