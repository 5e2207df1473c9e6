//! An edge's shell for the real receiver, decisions, parking, seals and writes: what its link and its cores do,
//! without sockets and threads. Killed and started again empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use carillon_client::RequestId;
use carillon_edge::core::call;
use carillon_edge::core::delivered::Delivered;
use carillon_edge::core::keys::{KeyRing, Purpose};
use carillon_edge::core::mail::Mail;
use carillon_edge::core::parking::Parking;
use carillon_edge::core::seen::Seen;
use carillon_world::stream::{Action, Frame, FrameDecoder, KeyPurpose, Keys, LinkToken, Receiver};
use carillon_world::{AppId, DeviceId, UpstreamReply, World};

use crate::calls::Open;
use crate::plan::Fault;
use crate::sim::{Event, Sim};
use crate::store::SHARD;

/// Whose request it is, and whether it is the second copy that a network made of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) client: usize,
    pub(crate) incarnation: u64,
    pub(crate) id: RequestId,
    pub(crate) copy: bool,
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) asker: Asker,
    pub(crate) edge: usize,
    pub(crate) http: http::Request<Bytes>,
}

#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) incarnation: u64,
    pub(crate) up: bool,
    pub(crate) receiver: Receiver,
    pub(crate) link: Option<u64>,
    decoder: FrameDecoder,
    pub(crate) world: Option<Arc<World>>,
    pub(crate) keys: KeyRing,
    pub(crate) live: bool,
    pub(crate) parking: Parking<u64>,
    /// Whom it saw, and whether a report of them is on its way.
    pub(crate) seen: Seen,
    pub(crate) delivered: Delivered,
    /// The number of the report that central has not answered.
    pub(crate) delivered_comes: Option<u64>,
    pub(crate) report_comes: bool,
    pub(crate) calls: BTreeMap<u64, Open>,
    /// Calls that wait for central, by the number of their request.
    pub(crate) waiting: BTreeMap<u64, u64>,
    mail: Mail,
    mail_comes: bool,
    timer_at: u64,
}

impl Edge {
    pub(crate) fn new(plan: &crate::plan::Plan, incarnation: u64) -> Edge {
        let token = LinkToken::new(&b"token"[..]);
        let receiver = Receiver::new(plan.receiver.clone(), SHARD, token, "edge".to_owned());
        Edge {
            incarnation,
            up: true,
            decoder: FrameDecoder::new(receiver.frame_bytes_max()),
            receiver,
            link: None,
            world: None,
            keys: KeyRing::default(),
            live: false,
            parking: Parking::new(plan.parked_max, plan.parked_per_device_max),
            seen: Seen::default(),
            delivered: Delivered::default(),
            delivered_comes: None,
            report_comes: false,
            calls: BTreeMap::new(),
            waiting: BTreeMap::new(),
            mail: Mail::default(),
            mail_comes: false,
            timer_at: u64::MAX,
        }
    }

    pub(crate) fn seq(&self) -> Option<u64> {
        self.world.as_ref().map(|world| world.seq().get())
    }

    pub(crate) fn parked(&self) -> usize {
        self.parking.len()
    }

    /// The requests that wait for news, and the device's own view of it.
    pub(crate) fn awaiting_news(&self) -> impl Iterator<Item = &Request> {
        self.calls
            .values()
            .filter(|open| open.awaits_news && open.ticket.is_some())
            .map(|o| &o.request)
    }
}

impl Sim {
    pub(crate) fn crash_edge(&mut self, edge: usize) {
        if !self.edges[edge].up {
            return;
        }
        self.note("edge crashes", [edge as u64, 0, 0]);
        self.trace.count("edge crashes");
        let it = &mut self.edges[edge];
        it.up = false;
        let calls = std::mem::take(&mut it.calls);
        if let Some(link) = it.link.take() {
            self.edge_link_dies(link);
        }
        for open in calls.into_values() {
            self.fails(open.request.asker, carillon_client::FailureKind::Broken);
        }
        let pause = self.random.within(100, 8_000);
        self.after(pause, Event::StartEdge { edge });
    }

    pub(crate) fn start_edge(&mut self, edge: usize) {
        if self.edges[edge].up {
            return;
        }
        let incarnation = self.draw_number();
        self.note("edge starts", [edge as u64, incarnation, 0]);
        self.edges[edge] = Edge::new(&self.plan, incarnation);
        self.dial_later(edge);
    }

    pub(crate) fn edge_connected(&mut self, edge: usize, link: u64) {
        let now = self.instant();
        let it = &mut self.edges[edge];
        it.link = Some(link);
        it.decoder = FrameDecoder::new(it.receiver.frame_bytes_max());
        it.receiver.handle_connected(now);
    }

    pub(crate) fn edge_disconnected(&mut self, edge: usize, link: u64) {
        let it = &mut self.edges[edge];
        if it.link != Some(link) {
            return;
        }
        it.link = None;
        it.receiver.handle_disconnected();
        it.delivered_comes = None;
        let waiting = std::mem::take(&mut it.waiting);
        for call in waiting.into_values() {
            self.trace.count("unanswered writes");
            self.answer(edge, call, &call::unanswered());
        }
        self.note_live(edge);
        self.dial_later(edge);
    }

    pub(crate) fn edge_receives(&mut self, link: u64, piece: &Bytes) {
        let edge = self.links[&link].edge;
        self.edges[edge].decoder.feed(piece);
        while self.edges[edge].link == Some(link) {
            let next = self.edges[edge].decoder.next_frame().expect("central sends frames");
            let Some((frame, bytes)) = next else { break };
            if let Frame::MoreAwaits(_) = frame {
                self.trace.count("silences");
            }
            let now = self.instant();
            let action = self.edges[edge].receiver.handle_frame(now, frame, bytes);
            // With faults or without, central may never break the protocol.
            let action = action.expect("central keeps to the protocol");
            self.note_live(edge);
            self.act(edge, action);
        }
    }

    fn act(&mut self, edge: usize, action: Action) {
        match action {
            Action::Nothing => {}
            Action::Publish { world, applied, snapshot } => {
                self.note("edge has", [edge as u64, world.seq().get(), u64::from(snapshot)]);
                self.check_published(edge, &world);
                self.edges[edge].world = Some(world);
                if snapshot {
                    self.trace.count("snapshots");
                    self.edges[edge].mail.add_everything();
                } else {
                    let most = self.plan.wake_changes_max;
                    self.edges[edge].mail.add(&Arc::new(applied), most);
                }
                self.mail_comes(edge);
            }
            Action::Unserve(why) => {
                panic!("nothing was restored and the room is unlimited: {why:?}")
            }
            Action::Keys(keys) => self.edges[edge].keys = ring(keys),
            Action::Reply { id, body } => {
                let reply = UpstreamReply::decode(&body).expect("central sends replies");
                if self.edges[edge].delivered_comes == Some(id) {
                    self.edges[edge].delivered_comes = None;
                    self.edges[edge].delivered.handle_reply(Some(&reply));
                    return;
                }
                let Some(call) = self.edges[edge].waiting.remove(&id) else { return };
                let entropy = self.random.entropy();
                let it = &self.edges[edge];
                let Some(open) = it.calls.get(&call) else { return };
                let answer = open.call.replied(it.world.as_deref(), &it.keys, entropy, reply);
                self.answer(edge, call, &answer);
            }
        }
    }

    /// The edge saw a device, and will say so.
    pub(crate) fn saw(&mut self, edge: usize, app: AppId, device: DeviceId) {
        let now = self.clock();
        let it = &mut self.edges[edge];
        it.seen.note(now, app, device);
        if !it.report_comes {
            it.report_comes = true;
            let incarnation = it.incarnation;
            self.after(2_000, Event::Report { edge, incarnation });
        }
    }

    pub(crate) fn report(&mut self, edge: usize, incarnation: u64) {
        if self.edges[edge].incarnation != incarnation || !self.edges[edge].up {
            return;
        }
        self.edges[edge].report_comes = false;
        while self.edges[edge].live {
            let number = self.draw_number();
            let it = &mut self.edges[edge];
            let Some(report) = it.seen.poll_report() else { break };
            // What cannot be sent is lost, and nobody waits for its answer.
            if it.receiver.queue_write(number, report.encode()).is_err() {
                break;
            }
            self.trace.count("reports");
        }
        // One whose answer was lost with its link goes again.
        if self.edges[edge].live && self.edges[edge].delivered_comes.is_none() {
            let number = self.draw_number();
            let it = &mut self.edges[edge];
            it.delivered.handle_reply(None);
            if let Some(report) = it.delivered.poll_report() {
                if it.receiver.queue_write(number, report.encode()).is_ok() {
                    it.delivered_comes = Some(number);
                }
                self.trace.count("reports of deliveries");
            }
        }
        self.pump_all();
    }

    fn note_live(&mut self, edge: usize) {
        let now = self.instant();
        let it = &mut self.edges[edge];
        let live = it.receiver.live(now);
        if live != it.live {
            it.live = live;
            it.mail.add_link();
            self.mail_comes(edge);
        }
    }

    /// The cores are told a moment later.
    fn mail_comes(&mut self, edge: usize) {
        let delay = self.random.below(4);
        let it = &mut self.edges[edge];
        if !it.mail_comes {
            it.mail_comes = true;
            let incarnation = it.incarnation;
            self.after(delay, Event::Mail { edge, incarnation });
        }
    }

    pub(crate) fn look_at_mail(&mut self, edge: usize, incarnation: u64) {
        let it = &mut self.edges[edge];
        if it.incarnation != incarnation || !it.up {
            return;
        }
        it.mail_comes = false;
        let mail = std::mem::take(&mut it.mail);
        let mut woken = Vec::new();
        if self.plan.fault != Some(Fault::NeverWake) {
            for ticket in mail.woken(it.world.as_deref(), &mut it.parking) {
                woken.extend(it.parking.remove(ticket));
            }
        }
        let sweeps = self.plan.fault != Some(Fault::NeverSweep);
        if let Some(world) = it.world.as_deref().filter(|_| sweeps) {
            while it.parking.is_sweeping() {
                for ticket in it.parking.sweep(world, 3) {
                    self.trace.count("wakes by the clock");
                    woken.extend(it.parking.remove(ticket));
                }
            }
        }
        for call in woken {
            self.trace.count("wakes");
            if let Some(open) = self.edges[edge].calls.get_mut(&call) {
                open.ticket = None;
            }
            self.visit(edge, call);
        }
        self.check_nobody_sleeps_over_news(edge);
        self.pump_all();
    }

    /// The edge's timer for its link: when the receiver has something to write, or if that is in vain, when it gives up.
    pub(crate) fn edge_timer(&mut self, edge: usize, is_full: bool) {
        let receiver = &self.edges[edge].receiver;
        let at = if is_full { receiver.silent_at() } else { receiver.poll_timeout() };
        let Some(at) = at else { return };
        let at = self.millis(at).max(self.now + 1);
        let it = &mut self.edges[edge];
        if at < it.timer_at || it.timer_at <= self.now {
            it.timer_at = at;
            let incarnation = it.incarnation;
            self.at(at, Event::EdgeTimer { edge, incarnation });
        }
    }

    pub(crate) fn edge_timed(&mut self, edge: usize, incarnation: u64) {
        let now = self.instant();
        let it = &mut self.edges[edge];
        let Some(link) = it.link.filter(|_| it.incarnation == incarnation && it.up) else { return };
        it.timer_at = u64::MAX;
        let due = it.receiver.poll_timeout().is_some_and(|at| at <= now);
        if due && !it.receiver.live(now) {
            self.trace.count("silent centrals");
            self.note_live(edge);
            self.edge_end(link);
        }
        self.pump(link);
    }
}

fn ring(keys: Keys) -> KeyRing {
    let purpose = |purpose| match purpose {
        KeyPurpose::Session => Purpose::Session,
        KeyPurpose::Cursor => Purpose::Cursor,
        KeyPurpose::Ticket => Purpose::Ticket,
    };
    let keys_of_day = keys.keys.into_iter().map(|key| (purpose(key.purpose), key.day, key.key.0));
    KeyRing::new(keys.seal_day, keys_of_day)
}
