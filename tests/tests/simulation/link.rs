//! Connections between central and the edges: bytes in order, in pieces of any size, after any delay; cut, stalled,
//! and noticed by either end at its own time or never. What goes over them are the real frames of the real sender and
//! receiver.

use bytes::{Bytes, BytesMut};
use carillon_central::core::keys::day_of;
use carillon_world::stream::{Frame, FrameDecoder, Sender, SenderEvent, encode};
use carillon_world::{UpstreamReply, UpstreamRequest};

use crate::sim::{Event, Sim};
use crate::store::SHARD;

/// What a socket takes before it makes its writer wait.
const PIPE_BYTES: usize = 16 << 10;

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    bytes: BytesMut,
    /// Whether bytes are on their way.
    flows: bool,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) edge: usize,
    pub(crate) sender: Sender,
    decoder: FrameDecoder,
    /// The day whose keys the edge has.
    keys_of: Option<u32>,
    down: Pipe,
    up: Pipe,
    central_open: bool,
    edge_open: bool,
    /// Central closes when all is written.
    closing: bool,
    /// No byte goes through any more.
    cut: bool,
    stalled_until: u64,
    latency: u64,
    timer_at: u64,
}

impl Sim {
    /// An edge opens a connection; central takes it if it is there.
    pub(crate) fn dial(&mut self, edge: usize, incarnation: u64) {
        let dialling = &self.edges[edge];
        if dialling.incarnation != incarnation || !dialling.up || dialling.link.is_some() {
            return;
        }
        if self.central.is_none() {
            return self.dial_later(edge);
        }
        let id = self.draw_number();
        let sender = Sender::new(self.plan.sender.clone(), SHARD, self.instant());
        let latency = if self.faults { self.random.within(1, 80) } else { 5 };
        let link = Link {
            edge,
            decoder: FrameDecoder::new(sender.frame_bytes_max()),
            sender,
            keys_of: None,
            down: Pipe::default(),
            up: Pipe::default(),
            central_open: true,
            edge_open: true,
            closing: false,
            cut: false,
            stalled_until: 0,
            latency,
            timer_at: u64::MAX,
        };
        self.links.insert(id, link);
        self.note("link opens", [id, edge as u64, 0]);
        self.trace.count("connections");
        self.edge_connected(edge, id);
        self.pump(id);
    }

    pub(crate) fn dial_later(&mut self, edge: usize) {
        let pause = self.random.within(50, if self.faults { 2_000 } else { 200 });
        let incarnation = self.edges[edge].incarnation;
        self.after(pause, Event::Dial { edge, incarnation });
    }

    /// Everything that either end wants to write goes into the pipes, as far as they take it.
    pub(crate) fn pump(&mut self, id: u64) {
        let (now, clock) = (self.instant(), self.clock());
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(central) = self.central.as_ref().filter(|_| link.central_open && !link.closing)
        {
            if link.keys_of.is_some_and(|day| day != day_of(clock)) {
                link.keys_of = Some(day_of(clock));
                link.sender.queue_keys(self.keychain.keys(clock));
            }
            while link.down.bytes.len() < PIPE_BYTES
                && let Some(out) = link.sender.poll_frame(now, clock, &central.log, &central.world)
            {
                link.down.bytes.extend_from_slice(&out.bytes);
                if out.close {
                    link.closing = true;
                    break;
                }
            }
        }
        let edge = &mut self.edges[link.edge];
        if link.edge_open {
            while link.up.bytes.len() < PIPE_BYTES
                && let Some(frame) = edge.receiver.poll_frame(now)
            {
                link.up.bytes.extend_from_slice(&encode(&frame));
            }
        }
        let mut flows = Vec::new();
        for (down, pipe) in [(true, &mut link.down), (false, &mut link.up)] {
            if !pipe.bytes.is_empty() && !pipe.flows && !link.cut {
                pipe.flows = true;
                flows.push(down);
            }
        }
        let (latency, stalled_until, edge) = (link.latency, link.stalled_until, link.edge);
        // What is due cannot go while the pipe is full: waiting for it would be spinning.
        let is_full = link.down.bytes.len() >= PIPE_BYTES;
        let wakes = link.central_open.then(|| match is_full {
            true => link.sender.silent_at(),
            false => link.sender.poll_timeout(),
        });
        let edge_is_full = link.up.bytes.len() >= PIPE_BYTES;
        if link.closing && link.down.bytes.is_empty() && link.central_open {
            self.central_end(id);
        }
        for down in flows {
            let at = (self.now + 1 + self.random.below(latency)).max(stalled_until);
            self.at(at, Event::Flow { link: id, down });
        }
        let wakes = wakes.map(|at| self.millis(at).max(self.now + 1));
        if let (Some(at), Some(link)) = (wakes, self.links.get_mut(&id))
            && (at < link.timer_at || link.timer_at <= self.now)
        {
            link.timer_at = at;
            self.at(at, Event::LinkTimer { link: id });
        }
        self.edge_timer(edge, edge_is_full);
    }

    pub(crate) fn pump_all(&mut self) {
        let ids: Vec<u64> = self.links.keys().copied().collect();
        ids.into_iter().for_each(|id| self.pump(id));
    }

    /// Some bytes arrive at one end.
    pub(crate) fn flow(&mut self, id: u64, down: bool) {
        let most = match self.random.below(10) {
            0 => self.random.within(1, 9),
            1..4 => self.random.within(1, 300),
            _ => self.random.within(200, 8_000),
        };
        let Some(link) = self.links.get_mut(&id) else { return };
        let pipe = if down { &mut link.down } else { &mut link.up };
        pipe.flows = false;
        if link.cut {
            return;
        }
        if self.now < link.stalled_until {
            pipe.flows = true;
            let at = link.stalled_until;
            return self.at(at, Event::Flow { link: id, down });
        }
        let most = usize::try_from(most).expect("a small number").min(pipe.bytes.len());
        let piece = pipe.bytes.split_to(most).freeze();
        match (down, link.edge_open, link.central_open) {
            (true, true, _) => self.edge_receives(id, &piece),
            (false, _, true) => self.central_receives(id, &piece),
            // Nobody reads it any more.
            _ => {}
        }
        if self.faults && self.walks(id) && self.random.percent(4) {
            self.trace.count("cut snapshots");
            self.cut(id);
        }
        self.central_turn();
        self.pump(id);
    }

    /// Whether a snapshot is under way, and a cut would leave a part of it.
    fn walks(&self, id: u64) -> bool {
        let walks = |edge: usize| self.edges[edge].receiver.snapshot_partitions().is_some();
        self.links.get(&id).is_some_and(|link| link.edge_open && walks(link.edge))
    }

    fn central_receives(&mut self, id: u64, piece: &Bytes) {
        let now = self.instant();
        let Some(link) = self.links.get_mut(&id) else { return };
        link.decoder.feed(piece);
        let mut writes = Vec::new();
        while let Some((frame, _)) = link.decoder.next_frame().expect("edges send frames") {
            if let Frame::SendAfter(_) = frame {
                self.trace.count("send-afters");
            }
            // With faults or without, no edge may ever break the protocol.
            match link.sender.handle_frame(now, frame).expect("edges keep to the protocol") {
                Some(SenderEvent::Hello { at, .. }) => {
                    self.trace.note(self.now, "hello", [id, at.map_or(0, |p| p.seq.get()), 0]);
                    link.sender.accept();
                    let clock = carillon_world::Millis(self.plan.clock_from + self.now);
                    link.keys_of = Some(day_of(clock));
                    link.sender.queue_keys(self.keychain.keys(clock));
                }
                Some(SenderEvent::Write { id: number, body }) => writes.push((number, body)),
                None => {}
            }
            link.decoder.set_limit(link.sender.frame_bytes_max());
        }
        for (number, body) in writes {
            let request = UpstreamRequest::decode(&body).expect("edges send requests");
            self.central_asked(id, number, request);
        }
    }

    /// Central answers a device's write.
    pub(crate) fn reply_to_edge(&mut self, id: u64, number: u64, reply: &UpstreamReply) {
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.central_open) {
            link.sender.queue_reply(number, reply.encode()).expect("the write was open");
        }
    }

    /// Central looks whether the edge was silent for too long.
    pub(crate) fn link_timer(&mut self, id: u64) {
        let now = self.instant();
        let Some(link) = self.links.get_mut(&id).filter(|link| link.central_open) else { return };
        link.timer_at = u64::MAX;
        if link.sender.handle_timeout(now).is_err() {
            self.trace.count("silent links");
            self.central_end(id);
        }
        self.pump(id);
    }

    /// No byte goes through any more; each end may notice, at its own time.
    pub(crate) fn cut(&mut self, id: u64) {
        let ends = [(true, self.random.below(3_000)), (false, self.random.below(3_000))];
        let noticed = [self.random.percent(80), self.random.percent(70)];
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.cut) else { return };
        link.cut = true;
        self.note("cut", [id, 0, 0]);
        self.trace.count("cuts");
        for ((at_edge, after), _) in ends.into_iter().zip(noticed).filter(|(_, noticed)| *noticed) {
            self.after(after, Event::Notice { link: id, at_edge });
        }
    }

    /// Nothing arrives for a while, and nothing is lost.
    pub(crate) fn stall(&mut self, id: u64, millis: u64) {
        let until = self.now + millis;
        if let Some(link) = self.links.get_mut(&id) {
            link.stalled_until = until;
            self.note("stall", [id, millis, 0]);
            self.trace.count("stalls");
        }
    }

    pub(crate) fn unstall_all(&mut self) {
        for link in self.links.values_mut() {
            link.stalled_until = 0;
            link.latency = 5;
        }
        self.pump_all();
    }

    /// One end finds the connection gone.
    pub(crate) fn notice(&mut self, id: u64, at_edge: bool) {
        if at_edge { self.edge_end(id) } else { self.central_end(id) }
    }

    /// Central's end is closed.
    pub(crate) fn central_end(&mut self, id: u64) {
        let delay = 1 + self.random.below(200);
        let Some(link) = self.links.get_mut(&id).filter(|link| link.central_open) else { return };
        link.central_open = false;
        let (is_over, tells) = (!link.edge_open, !link.cut);
        self.note("link ends at central", [id, 0, 0]);
        if is_over {
            self.links.remove(&id);
        } else if tells {
            self.after(delay, Event::Notice { link: id, at_edge: true });
        }
    }

    /// The edge's end is closed: it connects again.
    pub(crate) fn edge_end(&mut self, id: u64) {
        let delay = 1 + self.random.below(200);
        let Some(link) = self.links.get_mut(&id).filter(|link| link.edge_open) else { return };
        link.edge_open = false;
        let (edge, is_over, tells) = (link.edge, !link.central_open, !link.cut);
        self.note("link ends at edge", [id, edge as u64, 0]);
        if is_over {
            self.links.remove(&id);
        } else if tells {
            self.after(delay, Event::Notice { link: id, at_edge: false });
        }
        self.edge_disconnected(edge, id);
    }

    /// Central's process is gone; an edge may notice, or hear nothing ever again.
    pub(crate) fn central_links_die(&mut self) {
        let ids: Vec<u64> = self.links.keys().copied().collect();
        for id in ids {
            if self.random.percent(30) {
                self.links.get_mut(&id).expect("just listed").cut = true;
            }
            self.central_end(id);
        }
    }

    /// The edge's process is gone.
    pub(crate) fn edge_link_dies(&mut self, id: u64) {
        let silently = self.random.percent(30);
        let Some(link) = self.links.get_mut(&id) else { return };
        link.cut |= silently;
        link.edge_open = false;
        if !link.central_open {
            self.links.remove(&id);
        } else if !silently {
            self.after(50, Event::Notice { link: id, at_edge: false });
        }
    }
}
