//! The calls of devices at an edge: what its handlers do around the real `Call`, parking included.

use std::time::{Duration, Instant};

use carillon_client::FailureKind;
use carillon_edge::core::answer::Answer;
use carillon_edge::core::call::{self, Call, Head, Step};
use carillon_edge::core::decide::{Awaits, View};
use carillon_edge::core::parking::Ticket;
use carillon_edge::core::route;
use carillon_edge::core::sabotage::Sabotage;

use crate::edge::{Asker, Request};
use crate::plan::Fault;
use crate::sim::{Event, Sim};

/// A call that is not answered yet.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) call: Call,
    pub(crate) request: Request,
    /// Its place, while it is parked.
    pub(crate) ticket: Option<Ticket>,
    /// When it is answered at the latest.
    until: Instant,
    pub(crate) awaits_news: bool,
}

impl Sim {
    /// A request arrives.
    pub(crate) fn arrive(&mut self, request: Request) {
        let edge = request.edge;
        if !self.edges[edge].up {
            return self.fails(request.asker, FailureKind::Connect);
        }
        let (now, http) = (self.instant(), &request.http);
        let routed = route::route(http.method(), http.uri().path(), http.uri().query());
        let call = routed
            .map_err(call::refused)
            .and_then(|route| Head::read(route, http.headers()))
            .and_then(|head| head.with_body(http.body(), now));
        match call {
            Ok(call) => {
                let id = self.draw_number();
                let open = Open { call, request, ticket: None, until: now, awaits_news: false };
                self.edges[edge].calls.insert(id, open);
                self.visit(edge, id);
            }
            Err(answer) => self.send_answer(&request, edge, &answer),
        }
        self.pump_all();
    }

    /// Looks at a call, and does what it is told.
    pub(crate) fn visit(&mut self, edge: usize, id: u64) {
        let now = self.instant();
        self.visit_at(edge, id, now);
    }

    fn visit_at(&mut self, edge: usize, id: u64, now: Instant) {
        let entropy = self.random.entropy();
        let number = self.draw_number();
        let sabotage = match self.plan.fault {
            Some(Fault::Sabotage(sabotage)) => sabotage,
            _ => Sabotage::None,
        };
        let it = &mut self.edges[edge];
        let Some(open) = it.calls.get_mut(&id) else { return };
        let view = View {
            world: it.world.as_deref(),
            keys: &it.keys,
            live: it.live,
            draining: false,
            spread: Duration::ZERO,
            limits: &self.plan.answers,
            sabotage,
        };
        match open.call.look(&view, now, entropy) {
            Step::Answer(answer) => {
                if let Some((app, device)) = answer.device {
                    self.saw(edge, app, device);
                    if let Some(stored) = &answer.stored {
                        self.edges[edge].delivered.note(app, **stored);
                    }
                }
                self.answer(edge, id, &answer);
            }
            Step::Park(park) => {
                self.saw(edge, park.app, park.device);
                let it = &mut self.edges[edge];
                let Some(open) = it.calls.get_mut(&id) else { return };
                open.awaits_news = matches!(park.awaits, Awaits::News { .. });
                match it.parking.park(&park, id) {
                    Ok(parked) => {
                        open.ticket = Some(parked.ticket);
                        open.until = park.until;
                        self.trace.count("parked");
                        let (until, incarnation) = (park.until, it.incarnation);
                        let until = self.millis(until).max(self.now + 1);
                        self.at(until, Event::CallDue { edge, incarnation, call: id });
                        if let Some(oldest) = parked.evicted {
                            self.trace.count("evicted");
                            self.evict(edge, oldest);
                        }
                    }
                    Err(_) => {
                        self.trace.count("no place");
                        self.answer(edge, id, &call::no_place());
                    }
                }
            }
            Step::Upstream(request) => {
                if !it.live || it.receiver.queue_write(number, request.encode()).is_err() {
                    self.trace.count("writes not sent");
                    return self.answer(edge, id, &call::not_sent());
                }
                it.waiting.insert(number, id);
                let (incarnation, patience) = (it.incarnation, self.plan.patience);
                self.after(patience, Event::Patience { edge, incarnation, number });
            }
        }
    }

    /// A later call of its device took its place: as if its time were up.
    fn evict(&mut self, edge: usize, id: u64) {
        if let Some(open) = self.edges[edge].calls.get_mut(&id) {
            open.ticket = None;
            let until = open.until;
            self.visit_at(edge, id, until);
        }
    }

    /// A parked call has waited as long as it may.
    pub(crate) fn call_due(&mut self, edge: usize, incarnation: u64, id: u64) {
        let it = &mut self.edges[edge];
        if it.incarnation != incarnation || !it.up {
            return;
        }
        if let Some(ticket) = it.calls.get_mut(&id).and_then(|open| open.ticket.take()) {
            it.parking.remove(ticket);
            self.visit(edge, id);
        }
    }

    pub(crate) fn out_of_patience(&mut self, edge: usize, incarnation: u64, number: u64) {
        let it = &mut self.edges[edge];
        if it.incarnation != incarnation || !it.up {
            return;
        }
        if let Some(call) = it.waiting.remove(&number) {
            self.answer(edge, call, &call::unanswered());
        }
    }

    /// The device closed the connection: whatever was parked for it is forgotten, a write that was sent stays sent.
    pub(crate) fn hang_up(&mut self, edge: usize, asker: Asker) {
        let it = &mut self.edges[edge];
        let of = |open: &Open| open.request.asker == asker && open.ticket.is_some();
        let ids: Vec<u64> =
            it.calls.iter().filter(|(_, open)| of(open)).map(|(id, _)| *id).collect();
        for id in ids {
            let ticket = it.calls.remove(&id).and_then(|open| open.ticket);
            ticket.and_then(|ticket| it.parking.remove(ticket));
        }
    }

    pub(crate) fn answer(&mut self, edge: usize, id: u64, answer: &Answer) {
        let it = &mut self.edges[edge];
        let Some(open) = it.calls.remove(&id) else { return };
        if let Some(ticket) = open.ticket {
            it.parking.remove(ticket);
        }
        self.send_answer(&open.request, edge, answer);
    }
}
