//! The admin's work: carries out the plan through the API, and writes into the record what was done.
//!
//! One thing after the other, so that the record has the order that central had.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_client::{AppId, MessageId};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::admin::Admin;
use super::error::DemoError;
use super::expressions::{EXPRESSIONS, GROUPS};
use super::live::Live;
use super::plan::{Event, Kind};
use super::record::{Due, Message, Record, State};
use super::tiers::Tiers;
use crate::fleet::{Fleet, Random, group_name};

/// How long the edge is away after it was killed.
const EDGE_DOWN: Duration = Duration::from_millis(700);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Seconds from the write to a scheduled start, or to an end.
const SOON: std::ops::Range<u64> = 1..4;
/// Devices that leave one group for another, clients and others alike.
const MOVED_CLIENTS: usize = 100;
const MOVED_OTHERS: usize = 200;
/// How long central may take to start and end what is due, and a restarted edge to get a world.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Campaign<'a> {
    pub(super) admin: Admin,
    pub(super) app: AppId,
    pub(super) fleet: &'a Fleet,
    pub(super) clients: usize,
    pub(super) record: Record,
    pub(super) live: &'a Live,
    pub(super) random: Random,
    /// Expressions are used in turn, so that each is.
    pub(super) next_expression: usize,
    pub(super) edge: EdgeState,
}

/// How far the edge is with being killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EdgeState {
    Serving,
    /// Killed; it is started again at this time.
    Away(Instant),
    /// Started at this time; it takes the world from central.
    Starting(Instant),
}

impl EdgeState {
    /// When to look at it next.
    fn next_look(self, now: Instant) -> Option<Instant> {
        match self {
            Self::Serving => None,
            Self::Away(until) => Some(until),
            Self::Starting(_) => Some(now + LOOK_EVERY),
        }
    }
}

impl Campaign<'_> {
    /// Carries all events out, and waits until nothing starts or ends any more.
    pub(super) async fn run(&mut self, tiers: &mut Tiers, plan: &[Event]) -> Result<(), DemoError> {
        let began = Instant::now();
        for event in plan {
            self.wait_until(tiers, began + event.at).await?;
            if self.carry_out(tiers, event.kind).await? {
                self.live.note_event(event.kind);
            }
        }
        while let Some(at) = self.next_change(Instant::now()) {
            self.wait_until(tiers, at).await?;
        }
        self.settled().await
    }

    /// When something happens by itself.
    fn next_change(&self, now: Instant) -> Option<Instant> {
        [self.edge.next_look(now), self.record.next_change()].into_iter().flatten().min()
    }

    /// Lets time pass, with what is due meanwhile.
    async fn wait_until(&mut self, tiers: &mut Tiers, until: Instant) -> Result<(), DemoError> {
        loop {
            let now = Instant::now();
            let due = self.record.pass_time(now);
            self.live.note_due(&due);
            match self.edge {
                EdgeState::Away(until) if until <= now => {
                    tiers.restart_edge().await?;
                    self.edge = EdgeState::Starting(now);
                }
                EdgeState::Starting(_) if tiers.edge_is_ready() => {
                    self.live.note_edge(true);
                    self.edge = EdgeState::Serving;
                }
                EdgeState::Starting(since) if now - since >= PATIENCE => {
                    let what = "the restarted edge has no world".to_owned();
                    return Err(DemoError::Patience { seconds: PATIENCE.as_secs(), what });
                }
                EdgeState::Serving | EdgeState::Away(_) | EdgeState::Starting(_) => {}
            }
            if now >= until {
                return Ok(());
            }
            let next = self.next_change(now).map_or(until, |next| next.min(until));
            tokio::time::sleep_until(next.into()).await;
        }
    }

    /// Gives whether there was something to do it to.
    async fn carry_out(&mut self, tiers: &mut Tiers, kind: Kind) -> Result<bool, DemoError> {
        match kind {
            Kind::Send => self.send(None, None).await?,
            Kind::Schedule => {
                let soon = self.soon();
                self.send(Some(soon), None).await?;
            }
            Kind::Expire => {
                let soon = self.soon();
                self.send(None, Some(soon)).await?;
            }
            Kind::EditContent => return self.edit_content().await,
            Kind::EditRecipients => return self.edit_recipients().await,
            Kind::Recall => return self.recall().await,
            Kind::Move => return self.move_devices().await,
            Kind::Kill => {
                self.live.note_edge(false);
                tiers.kill_edge().await?;
                self.edge = EdgeState::Away(Instant::now() + EDGE_DOWN);
            }
        }
        Ok(true)
    }

    fn soon(&mut self) -> Duration {
        let seconds = SOON.start + self.random.below(SOON.end - SOON.start);
        Duration::from_secs(seconds)
    }

    fn expression(&mut self) -> usize {
        let place = self.next_expression;
        self.next_expression = (place + 1) % EXPRESSIONS.len();
        place
    }

    fn body(message: usize, content: u32) -> Arc<str> {
        let text = format!("This is what message {message} says in edition {content}.");
        // The very bytes that central gets, since a request is made of the same values.
        json!({"message": message, "content": content, "text": text}).to_string().into()
    }

    /// Creates a message that starts, or ends, after a while.
    async fn send(
        &mut self,
        starts: Option<Duration>,
        ends: Option<Duration>,
    ) -> Result<(), DemoError> {
        let number = self.record.messages().len();
        let (to, body) = (self.expression(), Self::body(number, 1));
        let (now, clock) = (Instant::now(), Timestamp::now());
        let mut message = json!({
            "to": EXPRESSIONS[to].text,
            "body": raw(&body),
            "priority": (["low", "normal", "high"][number % 3]),
        });
        for (name, after) in [("not_before", starts), ("expires_at", ends)] {
            if let Some(after) = after {
                message[name] = json!(format!("{:.3}", clock + after));
            }
        }
        let path = format!("/v1/apps/{}/messages", self.app);
        let id = self.admin.create(&path, &format!("demo-{number}"), &message).await?;
        let state = match starts {
            Some(after) => State::Scheduled(now + after),
            None => State::Active { until: ends.map(|after| now + after) },
        };
        let message = Message { id, to, content: 1, body, state };
        let due = self.record.created(Instant::now(), message);
        self.live.note_due(&due);
        Ok(())
    }

    /// A message that is over at no time of its own: scheduled, or active without an end.
    fn pick(&mut self, active_only: bool) -> Option<usize> {
        let fits = |message: &Message| match message.state {
            State::Active { until } => until.is_none(),
            State::Scheduled(_) => !active_only,
            State::Over => false,
        };
        let messages = self.record.messages().iter().enumerate();
        let fitting: Vec<usize> =
            messages.filter(|(_, message)| fits(message)).map(|(place, _)| place).collect();
        (!fitting.is_empty()).then(|| fitting[self.random.index(fitting.len())])
    }

    fn path(&self, place: usize) -> String {
        format!("/v1/apps/{}/messages/{}", self.app, self.record.messages()[place].id)
    }

    async fn edit_content(&mut self) -> Result<bool, DemoError> {
        let Some(place) = self.pick(false) else { return Ok(false) };
        let body = Self::body(place, self.record.messages()[place].content + 1);
        self.admin.patch(&self.path(place), &json!({"body": raw(&body)})).await?;
        let due = self.record.content_edited(Instant::now(), place, body);
        self.live.note_due(&due);
        Ok(true)
    }

    async fn edit_recipients(&mut self) -> Result<bool, DemoError> {
        let Some(place) = self.pick(false) else { return Ok(false) };
        let to = self.expression();
        if to == self.record.messages()[place].to {
            return Ok(false);
        }
        self.admin.patch(&self.path(place), &json!({"to": EXPRESSIONS[to].text})).await?;
        let due = self.record.recipients_edited(Instant::now(), place, to);
        self.live.note_due(&due);
        Ok(true)
    }

    async fn recall(&mut self) -> Result<bool, DemoError> {
        let Some(place) = self.pick(true) else { return Ok(false) };
        self.admin.post(&format!("{}:recall", self.path(place)), &Value::Null).await?;
        self.record.recalled(place);
        Ok(true)
    }

    /// Some devices leave a group and join another.
    async fn move_devices(&mut self) -> Result<bool, DemoError> {
        let from = self.random.index(GROUPS.len());
        let to = (from + 1 + self.random.index(GROUPS.len() - 1)) % GROUPS.len();
        let (from, to) = (GROUPS[from], GROUPS[to]);
        let devices = self.record.devices();
        let moves = |index: &usize| devices[*index].is_in(from) && !devices[*index].is_in(to);
        let (mut clients, mut others): (Vec<usize>, Vec<usize>) =
            (0..devices.len()).filter(moves).partition(|index| *index < self.clients);
        self.random.shuffle(&mut clients);
        self.random.shuffle(&mut others);
        // Half of them stay, so that no group runs empty.
        clients.truncate(MOVED_CLIENTS.min(clients.len().div_ceil(2)));
        others.truncate(MOVED_OTHERS.min(others.len().div_ceil(2)));
        let moving = [clients, others].concat();
        if moving.is_empty() {
            return Ok(false);
        }
        let names: Vec<String> =
            moving.iter().map(|index| self.fleet.device(*index as u64).name()).collect();
        let mut due: Vec<Due> = Vec::new();
        for (group, join) in [(from, false), (to, true)] {
            let action = if join { "add" } else { "remove" };
            let group_name = group_name(group);
            let path = format!("/v1/apps/{}/groups/name:{group_name}/members:{action}", self.app);
            self.admin.post(&path, &json!({"devices": names})).await?;
            due.extend(self.record.moved(Instant::now(), group, join, &moving));
        }
        self.live.note_due(&due);
        Ok(true)
    }

    /// Waits until central, too, has started and ended all that was due, and writes one last time: an edge that has
    /// applied that has applied everything.
    async fn settled(&mut self) -> Result<(), DemoError> {
        let wanted: BTreeSet<MessageId> = self.record.active().keys().copied().collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let scheduled = self.listed("scheduled").await?;
            let active = self.listed("active").await?;
            if scheduled.is_empty() && active == wanted {
                let path = format!("/v1/apps/{}/groups", self.app);
                self.admin.post(&path, &json!({"name": "at-rest"})).await?;
                return Ok(());
            }
            if Instant::now() >= deadline {
                let what = format!(
                    "central has {} scheduled and {} active messages where the record has 0 and {}",
                    scheduled.len(),
                    active.len(),
                    wanted.len()
                );
                return Err(DemoError::Patience { seconds: PATIENCE.as_secs(), what });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn listed(&mut self, state: &str) -> Result<BTreeSet<MessageId>, DemoError> {
        let mut ids = BTreeSet::new();
        let mut after = String::new();
        loop {
            let path = format!("/v1/apps/{}/messages?state={state}&limit=1000{after}", self.app);
            let page = self.admin.get(&path).await?;
            for message in page["messages"].as_array().into_iter().flatten() {
                ids.extend(message["id"].as_str().and_then(|id| id.parse::<MessageId>().ok()));
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(ids),
            }
        }
    }
}

/// A body as part of a request.
fn raw(body: &str) -> Value {
    serde_json::from_str(body).expect("made here as JSON")
}
