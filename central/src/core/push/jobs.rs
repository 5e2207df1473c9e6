//! The jobs of a shard, and what a change makes of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use carillon_persist::{JobState, PushJobRow, RunKind};
use carillon_world::{
    AppId, AppPush, MessageId, MessageRow, MessageState, Millis, PMap, PushChannel, Seq, World,
};

/// Jobs looked at by one step of forgetting: a bound on what a purge adds to a batch.
const SWEPT_MAX: usize = 64;

/// All jobs; a clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    apps: PMap<AppId, PMap<MessageId, Arc<[PushJobRow]>>>,
    /// Those that are not done.
    live: Arc<BTreeSet<JobKey>>,
    /// The message up to which forgetting has looked.
    swept: Option<(AppId, Option<MessageId>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    pub app: AppId,
    pub channel: PushChannel,
    pub message: MessageId,
}

impl JobKey {
    pub fn of(row: &PushJobRow) -> JobKey {
        JobKey { app: row.app, channel: row.channel, message: row.message }
    }
}

/// How the pushes of a message stand, over all its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has none, or not yet.
    None,
    Sending,
    Done,
    /// It was recalled, and requests may still be in flight.
    Stopping,
    /// It was recalled, and nothing of it is handed to a provider any more; who may have it is being woken.
    Stopped,
}

impl Jobs {
    pub(crate) fn new(rows: Vec<PushJobRow>) -> Jobs {
        let mut jobs = Jobs::default();
        for row in rows {
            jobs.put(row);
        }
        jobs
    }

    /// The jobs of a message, by channel.
    pub fn of(&self, app: AppId, message: MessageId) -> &[PushJobRow] {
        let of_app = self.apps.get(app);
        of_app.and_then(|messages| messages.get(message)).map_or(&[], |jobs| jobs)
    }

    pub fn get(&self, key: JobKey) -> Option<&PushJobRow> {
        self.of(key.app, key.message).iter().find(|row| row.channel == key.channel)
    }

    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Where there are jobs that are not done.
    pub fn live_lanes(&self) -> Vec<(AppId, PushChannel)> {
        let mut lanes: Vec<_> = self.live.iter().map(|key| (key.app, key.channel)).collect();
        lanes.dedup();
        lanes
    }

    /// The jobs of one app's channel that are not done.
    pub fn live_of(&self, app: AppId, channel: PushChannel) -> impl Iterator<Item = JobKey> {
        let first = JobKey { app, channel, message: MessageId::new(0) };
        let last = JobKey { app, channel, message: MessageId::new(u64::MAX) };
        self.live.range(first..=last).copied()
    }

    pub fn standing(&self, row: &MessageRow) -> Standing {
        let jobs = self.of(row.app, row.id);
        let any = |state| jobs.iter().any(|job| job.state == state);
        if jobs.is_empty() {
            Standing::None
        } else if any(JobState::Stopping) {
            Standing::Stopping
        } else if row.state == MessageState::Recalled {
            Standing::Stopped
        } else if any(JobState::Sending) {
            Standing::Sending
        } else {
            Standing::Done
        }
    }

    pub(crate) fn put(&mut self, row: PushJobRow) {
        let key = JobKey::of(&row);
        if row.is_live() != self.live.contains(&key) {
            let live = Arc::make_mut(&mut self.live);
            if row.is_live() {
                live.insert(key)
            } else {
                live.remove(&key)
            };
        }
        let mut of_app = self.apps.get(row.app).cloned().unwrap_or_default();
        let mut jobs: Vec<PushJobRow> = self.of(key.app, key.message).to_vec();
        match jobs.iter_mut().find(|job| job.channel == key.channel) {
            Some(job) => *job = row,
            None => jobs.push(row),
        }
        of_app.insert(key.message, jobs.into());
        self.apps.insert(key.app, of_app);
    }

    /// Forgets jobs of messages that the world has forgotten, some at a time.
    pub(crate) fn sweep(&mut self, world: &World) {
        let mut left = SWEPT_MAX;
        let (app, after) = match self.swept {
            Some((app, after)) if self.apps.get(app).is_some() => (app, after),
            at => match self.apps.iter_after(at.map(|(app, _)| app)).next() {
                Some((app, _)) => (app, None),
                None => {
                    self.swept = None;
                    return;
                }
            },
        };
        let of_app = self.apps.get(app).expect("found above");
        let mut gone = Vec::new();
        let mut last = after;
        for (message, _) in of_app.iter_after(after).take(left) {
            left -= 1;
            last = Some(message);
            if world.app(app).is_none_or(|known| known.message(message).is_none()) {
                gone.push(message);
            }
        }
        self.swept = if left > 0 {
            self.apps.iter_after(Some(app)).next().map(|(app, _)| (app, None))
        } else {
            Some((app, last))
        };
        if gone.is_empty() {
            return;
        }
        let mut of_app = of_app.clone();
        for message in gone {
            for job in of_app.remove(message).iter().flat_map(|jobs| jobs.iter()) {
                if self.live.contains(&JobKey::of(job)) {
                    Arc::make_mut(&mut self.live).remove(&JobKey::of(job));
                }
            }
        }
        if of_app.is_empty() {
            self.apps.remove(app);
        } else {
            self.apps.insert(app, of_app);
        }
    }
}

/// What a change of a message, committed at `seq`, makes of its jobs: those that are written.
pub(crate) fn after_change(
    before: &[PushJobRow],
    row: &MessageRow,
    push: Option<&AppPush>,
    seq: Seq,
    now: Millis,
) -> Vec<PushJobRow> {
    let begun = |before: Option<&PushJobRow>, channel, kind| {
        let run = before.map_or(1, |job| job.run.saturating_add(1));
        PushJobRow {
            app: row.app,
            message: row.id,
            channel,
            run,
            kind,
            state: JobState::Sending,
            reports: 0,
            began_seq: seq,
            began_at: now,
            due_from: Millis::ZERO,
            due_to: Some(now),
            after: None,
            next_due: None,
            retries: Vec::new(),
        }
    };
    let of = |channel| before.iter().find(|job| job.channel == channel);
    let ended =
        |job: &PushJobRow| PushJobRow { state: JobState::Done, retries: Vec::new(), ..job.clone() };
    match row.state {
        MessageState::Active if row.push.is_some() => {
            let channels = push.into_iter().flat_map(|push| push.credentials.keys().copied());
            channels.map(|channel| begun(of(channel), channel, RunKind::Send)).collect()
        }
        MessageState::Active => Vec::new(),
        MessageState::Scheduled | MessageState::Expired => {
            before.iter().filter(|job| job.is_live()).map(ended).collect()
        }
        MessageState::Recalled => {
            let stopped = |job: &PushJobRow| match (job.kind, job.state) {
                (RunKind::Withdraw, _) | (_, JobState::Stopping) => None,
                // What asks for requests in flight is the run that made them; the withdrawal begins when it has answered.
                (RunKind::Send, JobState::Sending) => {
                    Some(PushJobRow { state: JobState::Stopping, ..job.clone() })
                }
                (RunKind::Send, JobState::Done) => {
                    Some(begun(Some(job), job.channel, RunKind::Withdraw))
                }
            };
            before.iter().filter_map(stopped).collect()
        }
    }
}

/// The run that wakes who may have a message, after its stopping run has no request in flight any more.
pub(crate) fn withdrawn(stopping: &PushJobRow, recalled: Seq, now: Millis) -> PushJobRow {
    PushJobRow {
        run: stopping.run.saturating_add(1),
        kind: RunKind::Withdraw,
        state: JobState::Sending,
        reports: 0,
        began_seq: recalled,
        began_at: now,
        due_from: Millis::ZERO,
        due_to: Some(now),
        after: None,
        next_due: None,
        retries: Vec::new(),
        ..stopping.clone()
    }
}
