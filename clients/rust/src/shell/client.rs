//! A device on real connections: the state machine, one connection, and a channel for what the app asks.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::http::{EdgeUrl, EdgeUrlError, HttpTransport, TransportError};
use super::tls::{ClientTls, TlsError};
use crate::core::{
    Command, CommandError, Device, DeviceConfig, Event, Identity, MemoryStore, Message,
    MessageStore, Next, Profile, ProfilePatch, PushToken, Receipt, Request, RequestId, Saved,
    Standing, StoreError, Transaction, WRITES_MAX, WriteError, WriteId,
};
use crate::ids::{AppId, Cursor, DeviceId, MessageId, Secret, Session};

/// A client cannot be built from what was given.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("at least one edge is needed")]
    NoEdge,
    #[error(transparent)]
    Edge(#[from] EdgeUrlError),
    /// There is no system-wide trust on purpose: a device of an app talks to that app's edges.
    #[error("an https edge needs a root certificate")]
    NoTrust,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("neither a key to enrol with nor an identity is given")]
    NoKey,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a [`Handle`] asked for was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// Whether a write was done is unknown.
    #[error("the client has stopped")]
    Stopped,
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Who a device is, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub standing: Standing,
    pub registered: Option<(AppId, DeviceId)>,
    pub session: Option<Session>,
    pub cursor: Option<Cursor>,
}

impl Status {
    fn of(device: &Device) -> Status {
        let Saved { identity, cursor, .. } = device.saved();
        let identity = identity.as_ref();
        Status {
            standing: device.standing(),
            registered: identity.and_then(|identity| identity.registered),
            session: identity.and_then(|identity| identity.session.clone()),
            cursor: cursor.clone(),
        }
    }
}

/// Collects what a [`Client`] needs.
#[derive(Debug)]
pub struct ClientBuilder {
    edges: Vec<String>,
    app_key: Option<String>,
    roots: Option<Vec<u8>>,
    tls: Option<ClientTls>,
    profile: Profile,
    wait: Duration,
    seed: Option<u64>,
    identity: Option<Identity>,
    store: Box<dyn MessageStore>,
}

impl ClientBuilder {
    /// Addresses of edges, `https://host:port`. Which one is asked first is random.
    #[must_use]
    pub fn edges<E: Into<String>>(mut self, edges: impl IntoIterator<Item = E>) -> ClientBuilder {
        self.edges = edges.into_iter().map(Into::into).collect();
        self
    }

    /// The app's publishable key. A device with an identity needs none, but is lost if the server forgets it.
    #[must_use]
    pub fn app_key(mut self, key: impl Into<String>) -> ClientBuilder {
        self.app_key = Some(key.into());
        self
    }

    /// Trusts edges whose certificate this authority signed, PEM or DER. See [`ClientBuilder::tls`] for many devices.
    #[must_use]
    pub fn root_certificate(mut self, certificate: impl Into<Vec<u8>>) -> ClientBuilder {
        self.roots = Some(certificate.into());
        self
    }

    /// Trust that is shared with other clients, and its session tickets with it.
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> ClientBuilder {
        self.tls = Some(tls);
        self
    }

    /// Attributes to enrol with.
    #[must_use]
    pub fn attributes<N: Into<String>>(
        mut self,
        attributes: impl IntoIterator<Item = (N, serde_json::Value)>,
    ) -> ClientBuilder {
        self.profile.attributes =
            attributes.into_iter().map(|(name, value)| (name.into(), value)).collect();
        self
    }

    /// Names of groups to enrol into.
    #[must_use]
    pub fn groups<N: Into<String>>(mut self, groups: impl IntoIterator<Item = N>) -> ClientBuilder {
        self.profile.groups = groups.into_iter().map(Into::into).collect();
        self
    }

    /// Push tokens to enrol with.
    #[must_use]
    pub fn tokens(mut self, tokens: Vec<PushToken>) -> ClientBuilder {
        self.profile.tokens = tokens;
        self
    }

    /// How long the server may hold a poll; whole seconds, 30 unless told, 60 at most.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> ClientBuilder {
        self.wait = wait;
        self
    }

    /// Fixes the jitter and the first edge. Only for tests: receipts of two runs with one seed have the same ids.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> ClientBuilder {
        self.seed = Some(seed);
        self
    }

    /// Begins as a device that the server knows already, for instance from an import. The first request shows the
    /// secret for a session. Ignored if the store holds an identity.
    #[must_use]
    pub fn imported(mut self, app: AppId, device: DeviceId, secret: Secret) -> ClientBuilder {
        self.identity = Some(Identity { secret, registered: Some((app, device)), session: None });
        self
    }

    /// Where messages and identity are kept; in RAM unless told.
    #[must_use]
    pub fn store(mut self, store: impl MessageStore + 'static) -> ClientBuilder {
        self.store = Box::new(store);
        self
    }

    /// # Errors
    /// If something is missing or unusable. Nothing is connected yet.
    pub fn build(self) -> Result<Client, BuildError> {
        let edges: Vec<EdgeUrl> =
            self.edges.iter().map(|edge| edge.parse()).collect::<Result<_, _>>()?;
        if edges.is_empty() {
            return Err(BuildError::NoEdge);
        }
        let tls = match (self.tls, self.roots) {
            (Some(tls), _) => Some(tls),
            (None, Some(roots)) => Some(ClientTls::with_roots(&roots)?),
            (None, None) => None,
        };
        if tls.is_none() && edges.iter().any(EdgeUrl::is_tls) {
            return Err(BuildError::NoTrust);
        }
        let mut store = self.store;
        if store.saved().identity.is_none() {
            if self.identity.is_none() && self.app_key.is_none() {
                return Err(BuildError::NoKey);
            }
            if self.identity.is_some() {
                store.commit(Transaction::Begin { identity: self.identity, cursor: None })?;
            }
        }
        let config = DeviceConfig {
            app_key: self.app_key,
            profile: self.profile,
            edges: edges.len(),
            wait_s: self.wait.as_secs(),
            seed: self.seed.unwrap_or_else(rand::random),
        };
        let device = Device::new(config, store, Box::new(|| Secret::new(rand::random())));
        let (asks_in, asks) = mpsc::channel(WRITES_MAX);
        Ok(Client {
            device,
            edges,
            tls,
            began: Instant::now(),
            transport: None,
            exchange: None,
            asks_in,
            asks,
            waiting: BTreeMap::new(),
        })
    }
}

#[derive(Debug)]
enum Ask {
    Command(Command, oneshot::Sender<Result<(), HandleError>>),
    Messages(oneshot::Sender<BTreeMap<MessageId, Message>>),
    Status(oneshot::Sender<Status>),
}

type Answered = (HttpTransport, Result<http::Response<Bytes>, TransportError>);

struct Exchange {
    id: RequestId,
    edge: usize,
    future: Pin<Box<dyn Future<Output = Answered> + Send>>,
}

/// One device with its connection. Nothing happens but within [`Client::run`], [`Client::run_with`] or
/// [`Client::next_event`].
pub struct Client {
    device: Device,
    edges: Vec<EdgeUrl>,
    tls: Option<ClientTls>,
    began: Instant,
    /// The edge asked last, with the connection to it.
    transport: Option<(usize, HttpTransport)>,
    exchange: Option<Exchange>,
    asks_in: mpsc::Sender<Ask>,
    asks: mpsc::Receiver<Ask>,
    waiting: BTreeMap<WriteId, oneshot::Sender<Result<(), HandleError>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("device", &self.device)
            .field("edges", &self.edges)
            .finish_non_exhaustive()
    }
}

impl Client {
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            edges: Vec::new(),
            app_key: None,
            roots: None,
            tls: None,
            profile: Profile::default(),
            wait: Duration::from_secs(30),
            seed: None,
            identity: None,
            store: Box::new(MemoryStore::default()),
        }
    }

    /// For asking from other tasks while the client runs.
    pub fn handle(&self) -> Handle {
        Handle { asks: self.asks_in.clone() }
    }

    /// The messages held, shared rather than copied, whether or not they have expired.
    pub fn messages(&self) -> BTreeMap<MessageId, Message> {
        self.device.saved().messages.clone()
    }

    /// Everything held.
    pub fn saved(&self) -> &Saved {
        self.device.saved()
    }

    pub fn status(&self) -> Status {
        Status::of(&self.device)
    }

    /// Runs until `shutdown` is ready or nothing can happen any more, and sends what happens. A full channel holds the
    /// device back; a closed one is ignored. May be called again.
    pub async fn run(&mut self, events: mpsc::Sender<Event>, shutdown: impl Future<Output = ()>) {
        let work = async {
            while let Some(event) = self.next_event().await {
                // Who no longer listens does not stop the device.
                let _ = events.send(event).await;
            }
        };
        tokio::select! {
            () = shutdown => {}
            () = work => {}
        }
    }

    /// [`Client::run`] with a function instead of a channel, for many devices that report to one place.
    pub async fn run_with(
        &mut self,
        mut on_event: impl FnMut(Event),
        shutdown: impl Future<Output = ()>,
    ) {
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                event = self.next_event() => match event {
                    Some(event) => on_event(event),
                    None => return,
                },
            }
        }
    }

    /// Goes on until something happens; `None` if nothing will any more. May be dropped at any time: a request that is
    /// under way is kept for the next call.
    pub async fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.device.poll_event() {
                self.report(&event);
                return Some(event);
            }
            match self.device.poll_request(self.now()) {
                Next::Send(request) => self.start(request),
                // A timeout was an event as well; the loop sees it.
                Next::Abort(_) => self.exchange = None,
                Next::Done => return None,
                Next::WaitUntil(at) => self.wait_until(at).await,
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis())
            .expect("a process does not run for 500 million years")
    }

    fn start(&mut self, request: Request) {
        let Request { id, edge, http } = request;
        let mut transport = match self.transport.take() {
            Some((at, transport)) if at == edge => transport,
            _ => HttpTransport::new(self.edges[edge].clone(), self.tls.clone()),
        };
        let future = Box::pin(async move {
            let result = transport.exchange(http).await;
            (transport, result)
        });
        self.exchange = Some(Exchange { id, edge, future });
    }

    async fn wait_until(&mut self, at: u64) {
        let deadline = self.began + Duration::from_millis(at);
        let answered = async {
            match &mut self.exchange {
                Some(exchange) => {
                    let (transport, result) = exchange.future.as_mut().await;
                    (exchange.id, exchange.edge, transport, result)
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            (id, edge, transport, result) = answered => {
                self.exchange = None;
                self.transport = Some((edge, transport));
                match result {
                    Ok(response) => self.device.handle_response(self.now(), id, &response),
                    Err(error) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "no answer from an edge");
                        self.device.handle_failure(self.now(), id, error.kind());
                    }
                }
            }
            Some(ask) = self.asks.recv() => self.take(ask),
            () = tokio::time::sleep_until(deadline) => {}
        }
    }

    fn take(&mut self, ask: Ask) {
        // Whoever asked may have left meanwhile.
        match ask {
            Ask::Messages(reply) => drop(reply.send(self.messages())),
            Ask::Status(reply) => drop(reply.send(self.status())),
            Ask::Command(command, reply) => match self.device.command(&command) {
                Ok(write) => drop(self.waiting.insert(write, reply)),
                Err(error) => drop(reply.send(Err(error.into()))),
            },
        }
    }

    fn report(&mut self, event: &Event) {
        if let Event::Written { write, result } = event
            && let Some(reply) = self.waiting.remove(write)
        {
            // Whoever asked may have left meanwhile.
            let _ = reply.send(result.clone().map_err(HandleError::Write));
        }
    }
}

/// Asks a running client. Answers come only while it runs.
#[derive(Clone, Debug)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
}

impl Handle {
    /// Changes the profile; ready when the server has committed it. Dropping the future does not take it back.
    ///
    /// # Errors
    /// If the server refuses it, too many writes wait, or the client stops before.
    pub async fn patch(&self, patch: ProfilePatch) -> Result<(), HandleError> {
        self.command(Command::Patch(patch)).await
    }

    /// Sends 1 to 200 receipts; ready when they are durable.
    ///
    /// # Errors
    /// As for [`Handle::patch`].
    pub async fn receipts(&self, receipts: Vec<Receipt>) -> Result<(), HandleError> {
        self.command(Command::Receipts(receipts)).await
    }

    /// Has the server forget the device, and the device everything; the client then stops.
    ///
    /// # Errors
    /// As for [`Handle::patch`].
    pub async fn forget(&self) -> Result<(), HandleError> {
        self.command(Command::Forget).await
    }

    /// The messages held at this moment.
    ///
    /// # Errors
    /// If the client has stopped.
    pub async fn messages(&self) -> Result<BTreeMap<MessageId, Message>, HandleError> {
        self.ask(Ask::Messages).await
    }

    /// # Errors
    /// If the client has stopped.
    pub async fn status(&self) -> Result<Status, HandleError> {
        self.ask(Ask::Status).await
    }

    async fn command(&self, command: Command) -> Result<(), HandleError> {
        self.ask(|reply| Ask::Command(command, reply)).await?
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| HandleError::Stopped)?;
        answer.await.map_err(|_| HandleError::Stopped)
    }
}
