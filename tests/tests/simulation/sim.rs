//! One run: every node in one thread, a heap of what will happen when, and one seeded source of chance. Events of one
//! moment happen in the order in which they were planned, so a seed means one run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, Instant};

use carillon_world::Millis;

use crate::admin::AdminCall;
use crate::central::Central;
use crate::device::{Client, Delivery};
use crate::edge::{Asker, Edge, Request};
use crate::link::Link;
use crate::oracle::Oracle;
use crate::plan::{Fault, Keychain, Plan};
use crate::random::Random;
use crate::store::Store;
use crate::trace::Trace;

/// How long everything may take to come to rest, in ms: schedules and ends that were set go by, and long polls end.
const REST_MAX: u64 = 600_000;
/// Times that a run comes to rest.
const ROUNDS: usize = 3;
/// More than ever happens in one ms, unless nodes keep each other busy for ever.
const STEPS_A_MOMENT_MAX: u32 = 10_000;

#[derive(Debug)]
pub(crate) enum Event {
    StartCentral,
    StoreDone { central: u64 },
    PushLog { central: u64 },
    Tick { central: u64 },
    Dial { edge: usize, incarnation: u64 },
    Flow { link: u64, down: bool },
    Notice { link: u64, at_edge: bool },
    LinkTimer { link: u64 },
    StartEdge { edge: usize },
    EdgeTimer { edge: usize, incarnation: u64 },
    Mail { edge: usize, incarnation: u64 },
    Report { edge: usize, incarnation: u64 },
    Arrive(Box<Request>),
    CallDue { edge: usize, incarnation: u64, call: u64 },
    Patience { edge: usize, incarnation: u64, number: u64 },
    HangUp { edge: usize, asker: Asker },
    WakeClient { client: usize, incarnation: u64 },
    Deliver(Box<Delivery>),
    AdminAsks { number: u64 },
    Work,
    Trouble,
}

/// Orders events by time, then by when they were planned.
#[derive(Debug)]
struct Planned {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Planned) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Planned) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Planned) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

#[derive(Debug)]
pub(crate) struct Sim {
    base: Instant,
    /// Virtual time since the run began, in ms.
    pub(crate) now: u64,
    planned: BinaryHeap<Reverse<Planned>>,
    planned_count: u64,
    /// How much has happened at this moment.
    steps_now: u32,
    next_number: u64,
    pub(crate) random: Random,
    pub(crate) plan: Plan,
    pub(crate) keychain: Keychain,
    pub(crate) trace: Trace,
    pub(crate) oracle: Oracle,
    pub(crate) store: Store,
    pub(crate) central: Option<Central>,
    pub(crate) links: BTreeMap<u64, Link>,
    pub(crate) edges: [Edge; 2],
    pub(crate) clients: Vec<Client>,
    pub(crate) admin: BTreeMap<u64, AdminCall>,
    /// Messages whose creation was acknowledged, and the number of their first body.
    pub(crate) acknowledged: BTreeSet<(u64, u64)>,
    /// Whether anything fails, is late or lost at present.
    pub(crate) faults: bool,
    /// Whether anybody writes at present.
    pub(crate) works: bool,
}

impl Sim {
    pub(crate) fn new(seed: u64, fault: Option<Fault>, quiet: bool) -> Sim {
        let mut random = Random::new(seed);
        let plan = Plan::of(&mut random, fault);
        let keychain = Keychain::new(plan.clock_from);
        let edges = [Edge::new(&plan, 1), Edge::new(&plan, 2)];
        Sim {
            base: Instant::now(),
            now: 0,
            planned: BinaryHeap::new(),
            planned_count: 0,
            steps_now: 0,
            next_number: 10,
            random,
            plan,
            keychain,
            trace: Trace::new(seed, quiet),
            oracle: Oracle::default(),
            store: Store::new(),
            central: None,
            links: BTreeMap::new(),
            edges,
            clients: Vec::new(),
            admin: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            faults: false,
            works: false,
        }
    }

    /// Numbers that are never given twice.
    pub(crate) fn draw_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(crate) fn instant(&self) -> Instant {
        self.base + Duration::from_millis(self.now)
    }

    /// The virtual time of an instant.
    pub(crate) fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.base);
        u64::try_from(since.as_millis()).expect("a run is short")
    }

    /// The store's clock.
    pub(crate) fn clock(&self) -> Millis {
        Millis(self.plan.clock_from + self.now)
    }

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        assert!(at >= self.now, "nothing happens in the past");
        self.planned_count += 1;
        self.planned.push(Reverse(Planned { at, number: self.planned_count, event }));
    }

    pub(crate) fn after(&mut self, millis: u64, event: Event) {
        self.at(self.now + millis, event);
    }

    pub(crate) fn note(&mut self, what: &'static str, numbers: [u64; 3]) {
        self.trace.note(self.now, what, numbers);
    }

    /// The whole run. Gives what was counted, and a hash of all that happened.
    pub(crate) fn run(mut self) -> (BTreeMap<&'static str, u64>, u64) {
        self.set_up();
        for _ in 0..ROUNDS {
            self.faults = true;
            self.works = true;
            self.after(1, Event::Work);
            self.after(500, Event::Trouble);
            let busy = self.random.within(8_000, 30_000);
            self.run_for(busy);
            self.rest();
        }
        self.trace.ended()
    }

    pub(crate) fn run_for(&mut self, millis: u64) {
        let until = self.now + millis;
        while self.planned.peek().is_some_and(|Reverse(next)| next.at <= until) {
            self.step();
        }
        self.now = until;
    }

    fn step(&mut self) {
        let Some(Reverse(next)) = self.planned.pop() else { panic!("nothing will ever happen") };
        self.steps_now = if next.at == self.now { self.steps_now + 1 } else { 0 };
        assert!(self.steps_now < STEPS_A_MOMENT_MAX, "time stands still: {:?}", next.event);
        self.now = next.at;
        self.trace.count("steps");
        self.happens(next.event);
        self.check_bounds();
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::StartCentral => self.start_central(),
            Event::StoreDone { central } => self.store_done(central),
            Event::PushLog { central } => self.push_log(central),
            Event::Tick { central } => self.tick(central),
            Event::Dial { edge, incarnation } => self.dial(edge, incarnation),
            Event::Flow { link, down } => self.flow(link, down),
            Event::Notice { link, at_edge } => self.notice(link, at_edge),
            Event::LinkTimer { link } => self.link_timer(link),
            Event::StartEdge { edge } => self.start_edge(edge),
            Event::EdgeTimer { edge, incarnation } => self.edge_timed(edge, incarnation),
            Event::Mail { edge, incarnation } => self.look_at_mail(edge, incarnation),
            Event::Report { edge, incarnation } => self.report(edge, incarnation),
            Event::Arrive(request) => self.arrive(*request),
            Event::CallDue { edge, incarnation, call } => self.call_due(edge, incarnation, call),
            Event::Patience { edge, incarnation, number } => {
                self.out_of_patience(edge, incarnation, number);
            }
            Event::HangUp { edge, asker } => self.hang_up(edge, asker),
            Event::WakeClient { client, incarnation } => self.wake_client(client, incarnation),
            Event::Deliver(delivery) => self.deliver(&delivery),
            Event::AdminAsks { number } => self.admin_asks(number),
            Event::Work => self.work(),
            Event::Trouble => self.trouble(),
        }
    }

    /// Faults and writes stop, and time goes by until every client got a 204, or a bookmark, from an edge that has applied the
    /// last write. The clock goes on, so there has to come a moment between two ticks at which everybody has what is due.
    fn rest(&mut self) {
        self.note("rest", [0, 0, 0]);
        self.faults = false;
        self.works = false;
        self.store.down_until = 0;
        self.start_central();
        for edge in 0..self.edges.len() {
            self.start_edge(edge);
        }
        self.unstall_all();
        self.clients.iter_mut().for_each(|client| client.up_to_date_at = None);
        let until = self.now + REST_MAX;
        while !self.is_at_rest() {
            assert!(self.now < until, "P1: it never comes to rest: {}", self.unrest());
            self.step();
        }
        self.check_rest();
    }

    /// Who is not at rest.
    fn unrest(&self) -> String {
        let head = self.oracle.head();
        let idle = self.central.as_ref().map(Central::is_idle);
        let edges = self.edges.each_ref().map(Edge::seq);
        let mut text = format!("head {head:x}, central is idle {idle:?}, edges at {edges:x?}");
        for (which, client) in self.clients.iter().enumerate() {
            let writes = client.device.writes_waiting();
            if client.up_to_date_at < Some(self.oracle.last_work()) || writes > 0 {
                let at = client.up_to_date_at;
                text += &format!(", client {which:x} {at:x?} {writes} {:?}", client.device);
            }
        }
        text
    }

    fn is_at_rest(&mut self) -> bool {
        let (head, work) = (self.oracle.head(), self.oracle.last_work());
        let at_rest = self.admin.is_empty()
            && self.central.as_ref().is_some_and(Central::is_idle)
            && self.edges.iter().all(|edge| edge.seq() == Some(head))
            && self.clients.iter().all(|client| {
                // Who lags by enough ticks gets a bookmark in place of a 204.
                let seq = client.up_to_date_at.max(client.held.seq());
                seq >= Some(work) && client.device.writes_waiting() == 0
            });
        at_rest && (0..self.clients.len()).all(|which| self.holds_what_is_due(which))
    }
}
