//! The live devices: real clients that long-poll over TLS, each in a task of its own.
//!
//! They run on a runtime of their own, so that thousands of them do not stand in central's way. At the end each gives
//! its poll up and goes on, with what it has stored, as a client that does not wait, until it is told that there is
//! nothing new: then it is at rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_client::{
    AppId, BuildError, Client, ClientBuilder, ClientTls, DeviceId, Event, MemoryStore, Message,
    MessageId, Secret,
};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::error::DemoError;
use super::live::Live;
use super::record::Edition;
use crate::fleet::Fleet;

/// How long the edge may hold a poll.
const WAIT: Duration = Duration::from_secs(25);
/// Clients that connect at a time, when they begin and when they come to rest: a TLS handshake costs a millisecond of
/// a core at each end.
const CONNECTING_MAX: usize = 64;
/// How long a client may take to come to rest, once it is its turn.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long all clients may take to connect, and as much again for each thousand.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);

/// Where clients connect and who they are.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) app: AppId,
    pub(super) edge: String,
    pub(super) tls: ClientTls,
}

/// What a client held in the end.
#[derive(Debug)]
pub(super) struct Rested {
    pub(super) device: DeviceId,
    /// Whether an edge told it that it has everything.
    pub(super) at_rest: bool,
    pub(super) holds: BTreeMap<MessageId, Message>,
}

#[derive(Debug)]
pub(super) struct Clients {
    tasks: Vec<JoinHandle<Result<Rested, BuildError>>>,
    finish: watch::Sender<bool>,
    live: Arc<Live>,
}

impl Clients {
    /// Starts the first `count` devices of the fleet on `runtime`.
    pub(super) fn start(
        runtime: &Handle,
        target: &Target,
        fleet: &Fleet,
        count: usize,
        live: &Arc<Live>,
    ) -> Self {
        let finish = watch::Sender::new(false);
        let connecting = Arc::new(Semaphore::new(CONNECTING_MAX));
        let start = |number| {
            let device = fleet.device(number as u64);
            let one = One {
                number,
                device: DeviceId::new(device.id),
                secret: Secret::new(device.secret),
                target: target.clone(),
                live: live.clone(),
                connecting: connecting.clone(),
            };
            runtime.spawn(one.run(finish.subscribe()))
        };
        let tasks = (0..count).map(start).collect();
        Self { tasks, finish, live: live.clone() }
    }

    /// Waits until all have a session.
    pub(super) async fn connected(&self) -> Result<(), DemoError> {
        let all = self.tasks.len() as u64;
        let patience =
            CONNECT_PATIENCE + CONNECT_PATIENCE * u32::try_from(all / 1_000).unwrap_or(0);
        let deadline = Instant::now() + patience;
        loop {
            let connected = self.live.counts().connected;
            if connected == all {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let what = format!("{connected} of {all} clients are connected");
                return Err(DemoError::Patience { seconds: patience.as_secs(), what });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lets each come to rest and gives what they hold, by number.
    pub(super) async fn rest(self) -> Result<Vec<Rested>, DemoError> {
        self.finish.send_replace(true);
        let mut rested = Vec::with_capacity(self.tasks.len());
        for task in self.tasks {
            rested.push(task.await.map_err(|_| DemoError::Panicked("a client"))??);
        }
        Ok(rested)
    }
}

/// One client's task.
struct One {
    number: usize,
    device: DeviceId,
    secret: Secret,
    target: Target,
    live: Arc<Live>,
    connecting: Arc<Semaphore>,
}

impl One {
    async fn run(self, mut finish: watch::Receiver<bool>) -> Result<Rested, BuildError> {
        let mut turn = self.connecting.clone().acquire_owned().await.ok();
        let imported = self
            .builder(WAIT)
            .imported(self.target.app, self.device, self.secret.clone())
            .build()?;
        let mut client = Box::new(imported);
        loop {
            let event = tokio::select! {
                biased;
                // An error means that the demo is over, too.
                _ = finish.wait_for(|finish| *finish) => break,
                event = client.next_event() => event,
            };
            match event {
                Some(Event::SessionRenewed) if turn.take().is_some() => self.live.note_connected(),
                Some(event) => self.note(&event),
                None => break,
            }
        }
        let saved = client.saved().clone();
        drop(client);
        let _turn = self.connecting.acquire().await;
        let mut client =
            Box::new(self.builder(Duration::ZERO).store(MemoryStore::new(saved)).build()?);
        let up_to_date = async {
            loop {
                match client.next_event().await {
                    Some(Event::UpToDate) => return true,
                    Some(event) => self.note(&event),
                    None => return false,
                }
            }
        };
        let at_rest = tokio::time::timeout(PATIENCE, up_to_date).await.unwrap_or(false);
        self.live.note_at_rest();
        Ok(Rested { device: self.device, at_rest, holds: client.messages() })
    }

    fn builder(&self, wait: Duration) -> ClientBuilder {
        let Target { edge, tls, .. } = &self.target;
        Client::builder().edges([edge.clone()]).tls(tls.clone()).wait(wait)
    }

    fn note(&self, event: &Event) {
        match event {
            Event::Stored { messages, .. } => {
                let now = Instant::now();
                for message in messages {
                    self.live.note_delivery(self.number, edition(&message.body), now);
                }
            }
            Event::Failed { .. } | Event::Refused { .. } => self.live.note_failure(),
            _ => {}
        }
    }
}

/// The edition that the campaign wrote into a body.
fn edition(body: &str) -> Option<Edition> {
    #[derive(serde::Deserialize)]
    struct Body {
        message: u32,
        content: u32,
    }
    let Body { message, content } = serde_json::from_str(body).ok()?;
    Some(Edition { message, content })
}
