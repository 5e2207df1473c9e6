//! The devices: the real client, over a network that delays, loses, cuts and repeats.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use carillon_client::{
    Device, DeviceConfig, Event as Told, FailureKind, MemoryStore, MessageStore, Next, Operation,
    Profile, Saved, Secret, StoreError, Transaction, WriteId,
};
use carillon_edge::core::answer::Answer;

use crate::checks::Held;
use crate::edge::{Asker, Request};
use crate::plan::Fault;
use crate::random::Random;
use crate::sim::{Event, Sim};

/// A store that can be told to fail once.
#[derive(Debug)]
struct Flaky {
    store: MemoryStore,
    fails: Arc<AtomicBool>,
}

impl MessageStore for Flaky {
    fn saved(&self) -> &Saved {
        self.store.saved()
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(), StoreError> {
        if self.fails.swap(false, Ordering::Relaxed) {
            return Err(StoreError("the disk is full".into()));
        }
        self.store.commit(transaction)
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) device: Device,
    incarnation: u64,
    config: DeviceConfig,
    store_fails: Arc<AtomicBool>,
    wake_at: u64,
    /// Where its requests went, by their ids.
    last_request: Option<(usize, Asker)>,
    /// Whether a fetch was sent since the last poll.
    pub(crate) fetched: bool,
    /// What it held when it was checked last.
    pub(crate) held: Held,
    /// The seq of the world whose 204 is being delivered.
    nothing_at: Option<u64>,
    /// The seq of the world that last had nothing new for it, since the rest began.
    pub(crate) up_to_date_at: Option<u64>,
    /// The numbers of its own writes that are not answered.
    pub(crate) notes: BTreeMap<WriteId, u64>,
}

/// What reaches a client.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    asker: Asker,
    result: Result<http::Response<Bytes>, FailureKind>,
    /// The world that had nothing new, for a 204.
    nothing_at: Option<u64>,
}

fn device(config: &DeviceConfig, saved: Saved, fails: &Arc<AtomicBool>, secrets: u64) -> Device {
    let store = Flaky { store: MemoryStore::new(saved), fails: fails.clone() };
    let mut secrets = Random::new(secrets);
    let secrets = move || Secret::new(secrets.bytes32());
    Device::new(config.clone(), Box::new(store), Box::new(secrets))
}

impl Client {
    pub(crate) fn new(
        random: &mut Random,
        app_key: &str,
        profile: Profile,
        saved: Saved,
    ) -> Client {
        let config = DeviceConfig {
            app_key: Some(app_key.to_owned()),
            profile,
            edges: 2,
            wait_s: *random.pick(&[0, 1, 5, 20]),
            seed: random.draw(),
        };
        let store_fails = Arc::new(AtomicBool::new(false));
        Client {
            device: device(&config, saved, &store_fails, random.draw()),
            incarnation: random.draw(),
            config,
            store_fails,
            wake_at: u64::MAX,
            last_request: None,
            fetched: false,
            held: Held::default(),
            nothing_at: None,
            up_to_date_at: None,
            notes: BTreeMap::new(),
        }
    }

    /// The device's id, if it is enrolled.
    pub(crate) fn id(&self) -> Option<u64> {
        let (_, device) = self.device.saved().identity.as_ref()?.registered?;
        Some(device.get())
    }
}

impl Sim {
    /// The app's process ends and starts again with what was saved; whatever was on its way to it is lost.
    pub(crate) fn restart_client(&mut self, which: usize) {
        self.trace.count("client restarts");
        let (seed, secrets, incarnation) =
            (self.random.draw(), self.random.draw(), self.random.draw());
        let client = &mut self.clients[which];
        client.config.seed = seed;
        let saved = client.device.saved().clone();
        client.device = device(&client.config, saved, &client.store_fails, secrets);
        client.incarnation = incarnation;
        client.wake_at = u64::MAX;
        client.notes.clear();
        client.fetched = false;
        self.client_turn(which);
    }

    pub(crate) fn fail_client_store(&mut self, which: usize) {
        self.trace.count("client store failures");
        self.clients[which].store_fails.store(true, Ordering::Relaxed);
    }

    pub(crate) fn wake_client(&mut self, which: usize, incarnation: u64) {
        if self.clients[which].incarnation == incarnation {
            self.clients[which].wake_at = u64::MAX;
            self.client_turn(which);
        }
    }

    /// Does what the device asks, until it waits.
    pub(crate) fn client_turn(&mut self, which: usize) {
        self.client_told(which);
        loop {
            let now = self.now;
            match self.clients[which].device.poll_request(now) {
                Next::Send(request) => {
                    let (id, edge) = (request.id, request.edge);
                    match id.operation() {
                        Operation::Poll => self.clients[which].fetched = false,
                        Operation::Fetch => self.clients[which].fetched = true,
                        _ => {}
                    }
                    let incarnation = self.clients[which].incarnation;
                    let asker = Asker { client: which, incarnation, id, copy: false };
                    self.clients[which].last_request = Some((edge, asker));
                    self.send_request(Request { asker, edge, http: request.http });
                }
                Next::Abort(_) => {
                    self.trace.count("aborts");
                    if let Some((edge, asker)) = self.clients[which].last_request
                        && self.random.percent(70)
                    {
                        let delay = self.random.below(100);
                        self.after(delay, Event::HangUp { edge, asker });
                    }
                }
                Next::WaitUntil(at) => {
                    let client = &mut self.clients[which];
                    let at = at.max(now + 1);
                    if at < client.wake_at || client.wake_at <= now {
                        client.wake_at = at;
                        let incarnation = client.incarnation;
                        self.at(at, Event::WakeClient { client: which, incarnation });
                    }
                    break;
                }
                Next::Done => return self.replace_client(which),
            }
            self.client_told(which);
        }
    }

    /// Reads what the device tells, and checks what it holds.
    fn client_told(&mut self, which: usize) {
        while let Some(told) = self.clients[which].device.poll_event() {
            match told {
                Told::Stored { messages, gone, inventory } => {
                    self.trace.count("stored");
                    if !messages.is_empty() || !gone.is_empty() {
                        self.trace.count("stored with news");
                    }
                    if inventory {
                        self.trace.count("stored inventories");
                    }
                }
                Told::UpToDate => {
                    let client = &mut self.clients[which];
                    client.up_to_date_at = client.nothing_at;
                }
                Told::Dropped { .. } => self.trace.count("dropped"),
                Told::Written { write, result } => {
                    if let Some(number) = self.clients[which].notes.remove(&write)
                        && result.is_ok()
                    {
                        self.check_own_write(which, number);
                    }
                }
                Told::Unknown { .. } => self.trace.count("unknown devices"),
                Told::SessionRenewed => self.trace.count("sessions renewed"),
                Told::Cleared => panic!("no cursor is ever bad here"),
                _ => {}
            }
        }
        self.check_client(which);
    }

    /// The network takes a request.
    fn send_request(&mut self, request: Request) {
        let what = match request.asker.id.operation() {
            Operation::Poll => "polls",
            Operation::Fetch => "fetches",
            Operation::Patch => "patches",
            Operation::Enrol => "enrolments",
            Operation::Session => "sessions asked",
            Operation::Receipts => "receipts",
            Operation::Forget => "forgets",
        };
        self.trace.count(what);
        self.note(what, [request.asker.client as u64, request.edge as u64, 0]);
        let delay = self.delay();
        if self.faults && self.random.percent(3) {
            self.trace.count("lost requests");
            // Heard of, or not at all: then the device's own patience ends it.
            if self.random.percent(50) {
                self.fails(request.asker, FailureKind::Broken);
            }
            return;
        }
        if self.faults && self.random.percent(3) {
            self.trace.count("repeated requests");
            let asker = Asker { copy: true, ..request.asker };
            let delay = delay + self.random.below(4_000);
            self.after(delay, Event::Arrive(Box::new(Request { asker, ..request.clone() })));
        }
        self.after(delay, Event::Arrive(Box::new(request)));
    }

    /// The network takes an answer.
    pub(crate) fn send_answer(&mut self, request: &Request, edge: usize, answer: &Answer) {
        self.check_answer(request, edge, answer);
        let seq = self.edges[edge].seq();
        self.note(
            "answer",
            [request.asker.client as u64, answer.status.as_u16().into(), seq.unwrap_or(0)],
        );
        let mut response = http::Response::new(answer.body.clone());
        *response.status_mut() = answer.status;
        if let Some(seconds) = answer.retry_after {
            response.headers_mut().insert("retry-after", seconds.into());
        }
        let nothing_at = seq.filter(|_| answer.status.as_u16() == 204);
        let mut asker = request.asker;
        if self.plan.fault == Some(Fault::Misdeliver) && self.random.percent(2) {
            asker.client = (asker.client + 1) % self.clients.len();
            asker.incarnation = self.clients[asker.client].incarnation;
        }
        let delivery = Delivery { asker, result: Ok(response), nothing_at };
        let delay = self.delay();
        if self.faults {
            if self.random.percent(4) {
                self.trace.count("repeated answers");
                let late = delay + self.random.below(20_000);
                self.after(late, Event::Deliver(Box::new(delivery.clone())));
            }
            match self.random.below(100) {
                0..3 => {
                    self.trace.count("lost answers");
                    if self.random.percent(50) {
                        self.fails(asker, FailureKind::Broken);
                    }
                    return;
                }
                3..6 => {
                    self.trace.count("cut answers");
                    return self.cut_short(delivery, delay);
                }
                _ => {}
            }
        }
        self.after(delay, Event::Deliver(Box::new(delivery)));
    }

    /// A transfer that fails; a client that did not notice would find the body cut anywhere.
    fn cut_short(&mut self, delivery: Delivery, delay: u64) {
        let Ok(response) = delivery.result else { return };
        let len = response.body().len();
        if len == 0 || self.random.percent(60) {
            return self.fails(delivery.asker, FailureKind::Broken);
        }
        let cut = self.random.index(len);
        let result = Ok(response.map(|body| body.slice(..cut)));
        self.after(delay, Event::Deliver(Box::new(Delivery { result, ..delivery })));
    }

    /// A client finds its request failed.
    pub(crate) fn fails(&mut self, asker: Asker, kind: FailureKind) {
        if !asker.copy {
            let delay = self.delay();
            let delivery = Delivery { asker, result: Err(kind), nothing_at: None };
            self.after(delay, Event::Deliver(Box::new(delivery)));
        }
    }

    pub(crate) fn deliver(&mut self, delivery: &Delivery) {
        let Asker { client, incarnation, id, .. } = delivery.asker;
        if self.clients[client].incarnation != incarnation {
            return;
        }
        let now = self.now;
        self.note("delivered", [client as u64, u64::from(delivery.result.is_ok()), 0]);
        let device = &mut self.clients[client].device;
        match &delivery.result {
            Ok(response) => device.handle_response(now, id, response),
            Err(kind) => device.handle_failure(now, id, *kind),
        }
        self.clients[client].nothing_at = delivery.nothing_at;
        self.client_turn(client);
        self.clients[client].nothing_at = None;
    }

    /// How long something takes through the network, in ms.
    fn delay(&mut self) -> u64 {
        match (self.faults, self.random.below(100)) {
            (false, _) => self.random.within(1, 10),
            (true, 0..4) => self.random.within(500, 6_000),
            (true, _) => self.random.within(1, 120),
        }
    }
}
