//! Central's shell for the real writer: it carries batches to the store and back, publishes what is durable, and is
//! killed and started again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use carillon_central::core::upstream::{reply_of, write_of};
use carillon_central::core::write::{Answer, ReplyId, Write};
use carillon_central::core::writer::{Loaded, Published, Writer};
use carillon_persist::{EpochClaim, StoreBatch};
use carillon_world::stream::encode_batch;
use carillon_world::{ChangeLog, DeviceId, Epoch, LogBatch, UpstreamReply, UpstreamRequest, World};

use crate::sim::{Event, Sim};

/// Whom an answer is for.
#[derive(Clone, Copy, Debug)]
enum Caller {
    /// The number of an admin's call.
    Admin(u64),
    Edge {
        link: u64,
        number: u64,
    },
}

/// How a commit will end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Commits,
    Refused,
    Unknown,
}

/// What is with the store.
#[derive(Debug)]
enum Work {
    Commit(Box<StoreBatch>, Fate),
    /// `heard`: whether the answer comes through.
    Epoch {
        claim: EpochClaim,
        heard: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Central {
    incarnation: u64,
    pub(crate) writer: Writer,
    epoch: Epoch,
    /// The newest durable world, as links see it.
    pub(crate) world: Arc<World>,
    pub(crate) log: ChangeLog,
    /// A world is published a moment before its batch is in the log.
    unlogged: VecDeque<Arc<LogBatch>>,
    work: Option<Work>,
    /// To be made until it is answered.
    claim: Option<EpochClaim>,
    callers: BTreeMap<u64, Caller>,
    next_reply: u64,
    tick_at: u64,
}

impl Central {
    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.work.is_none() && self.claim.is_none() && self.writer.pending() == 0
    }
}

impl Sim {
    /// Central's process starts: a new epoch, everything from the store.
    pub(crate) fn start_central(&mut self) {
        if self.central.is_some() {
            return;
        }
        if self.now < self.store.down_until {
            let pause = self.random.within(100, 500);
            return self.after(pause, Event::StartCentral);
        }
        self.settle_store();
        let claim = EpochClaim { tag: self.random.draw(), held: None, number_min: 0, fork: false };
        let opening = self.store.begin_epoch(claim, self.clock()).expect("nobody else claims");
        let (world, keys, kept) = self.store.load(&opening);
        self.check_loaded(&world);
        let clock = self.clock();
        let incarnation = self.draw_number();
        self.note("central starts", [incarnation, world.seq().get(), opening.epoch.number]);
        self.central = Some(Central {
            incarnation,
            writer: Writer::new(
                self.plan.writer,
                clock,
                Loaded { keys, kept, tallies: self.store.tallies(), ..Loaded::from(world.clone()) },
            ),
            epoch: opening.epoch,
            log: ChangeLog::new(self.plan.log_bytes_max, world.seq()),
            world: Arc::new(world),
            unlogged: VecDeque::new(),
            work: None,
            claim: None,
            callers: BTreeMap::new(),
            next_reply: 0,
            tick_at: u64::MAX,
        });
        self.central_turn();
    }

    /// `kill -9`: RAM and connections are gone; what is with the store may or may not come to pass.
    pub(crate) fn crash_central(&mut self) {
        let Some(central) = self.central.take() else { return };
        self.note("central crashes", [central.incarnation, 0, 0]);
        self.trace.count("central crashes");
        match central.work {
            Some(Work::Commit(batch, Fate::Commits | Fate::Unknown)) => {
                self.store.lose_sight_of(*batch);
            }
            Some(Work::Epoch { claim, .. }) if self.random.percent(50) => {
                self.settle_store();
                // Fenced or begun, nobody is there to hear it.
                drop(self.store.begin_epoch(claim, self.clock()));
            }
            _ => {}
        }
        self.central_links_die();
        for caller in central.callers.into_values() {
            if let Caller::Admin(number) = caller {
                self.admin_hears_nothing(number);
            }
        }
        if self.plan.fault == Some(crate::plan::Fault::LoseTail) {
            self.store.lose_tail();
        }
        let pause = self.random.within(50, 5_000);
        self.after(pause, Event::StartCentral);
    }

    /// A transaction out of sight commits, or never will.
    fn settle_store(&mut self) {
        let commits = self.random.percent(50);
        if let Some(batch) = self.store.settle(commits) {
            self.committed(&batch);
        }
    }

    fn committed(&mut self, batch: &StoreBatch) {
        if let Some(changes) = &batch.changes {
            self.oracle.commit(batch.now, changes, crate::workload::NOTE.get());
            self.note("commit", [changes.first.get(), changes.last().get(), 0]);
            for change in &changes.changes {
                self.trace.count("changes");
                match change {
                    carillon_world::Change::Purge { .. } => self.trace.count("purges"),
                    carillon_world::Change::Clock { .. } => self.trace.count("ticks"),
                    carillon_world::Change::Seen { .. } => self.trace.count("seen"),
                    _ => {}
                }
            }
            for felt in self.oracle.felt_edits() {
                self.trace.count("audience edits");
                if felt {
                    self.trace.count("audience edits felt");
                }
            }
        }
    }

    /// Takes a write, whoever it is from.
    fn write(&mut self, write: Write, caller: Caller) {
        let clock = self.clock();
        let central = self.central.as_mut().expect("who writes has looked");
        let id = central.next_reply;
        central.next_reply += 1;
        central.callers.insert(id, caller);
        central.writer.handle_write(clock, write, ReplyId(id));
        self.trace.count("writes");
        self.central_turn();
    }

    pub(crate) fn admin_writes(&mut self, number: u64, write: Write) {
        if self.central.is_some() {
            self.write(write, Caller::Admin(number));
        } else {
            self.admin_hears_nothing(number);
        }
    }

    /// A device's write comes through an edge.
    pub(crate) fn central_asked(&mut self, link: u64, number: u64, request: UpstreamRequest) {
        let drawn = DeviceId::new(self.random.draw());
        match write_of(request, drawn) {
            Ok(write) => self.write(write, Caller::Edge { link, number }),
            Err(problem) => {
                self.reply_to_edge(link, number, &UpstreamReply::Refused { problem });
            }
        }
    }

    /// Does all that central can do at this moment.
    pub(crate) fn central_turn(&mut self) {
        let clock = self.clock();
        let Some(central) = &mut self.central else { return };
        if central.writer.poll_timeout() <= clock && !central.writer.is_in_doubt() {
            central.writer.handle_tick(clock);
        }
        while let Some((id, answer)) = self.central.as_mut().and_then(|c| c.writer.poll_reply()) {
            self.answered(id, answer);
        }
        self.start_work();
        self.pump_all();
        let Some(central) = &mut self.central else { return };
        let due = central.writer.poll_timeout().0.saturating_sub(self.plan.clock_from);
        let due = due.max(self.now + 1).min(self.now + 60_000);
        if due < central.tick_at || central.tick_at <= self.now {
            central.tick_at = due;
            let central = central.incarnation;
            self.at(due, Event::Tick { central });
        }
    }

    fn answered(&mut self, id: ReplyId, answer: Answer) {
        let durable = self.store.head();
        assert!(answer.at.seq <= durable, "P3: answered at {} of {durable}", answer.at.seq);
        let central = self.central.as_mut().expect("it answers");
        match central.callers.remove(&id.0).expect("each write is answered once") {
            Caller::Admin(number) => self.admin_hears(number, answer),
            Caller::Edge { link, number } => self.reply_to_edge(link, number, &reply_of(answer)),
        }
    }

    fn start_work(&mut self) {
        let clock = self.clock();
        let is_down = self.now < self.store.down_until;
        let (fate, heard) = match (self.faults, self.random.below(100)) {
            _ if is_down => (Fate::Refused, false),
            (true, 0..3) => (Fate::Refused, false),
            (true, 3..6) => (Fate::Unknown, true),
            _ => (Fate::Commits, true),
        };
        let Some(central) = self.central.as_mut().filter(|central| central.work.is_none()) else {
            return;
        };
        let work = match central.claim {
            Some(claim) => Work::Epoch { claim, heard },
            None => match central.writer.poll_batch(clock) {
                Some(batch) => Work::Commit(Box::new(batch), fate),
                None => return,
            },
        };
        central.work = Some(work);
        let central = central.incarnation;
        let delay = match (is_down, self.faults && self.random.percent(5)) {
            (true, _) => self.random.within(50, 300),
            (false, true) => self.random.within(100, 800),
            (false, false) => self.random.within(1, 15),
        };
        self.after(delay, Event::StoreDone { central });
    }

    /// The store has answered.
    pub(crate) fn store_done(&mut self, incarnation: u64) {
        let clock = self.clock();
        let is_ours = |central: &&mut Central| central.incarnation == incarnation;
        let Some(central) = self.central.as_mut().filter(is_ours) else { return };
        match central.work.take().expect("the store was asked") {
            Work::Commit(batch, Fate::Commits) => {
                let found = self.store.commit(&batch).expect("the only owner");
                self.committed(&batch);
                let writer = &mut self.central.as_mut().expect("just seen").writer;
                let published = writer.handle_committed(clock, found, Duration::ZERO);
                self.publish(published);
            }
            Work::Commit(_, Fate::Refused) => {
                self.trace.note(self.now, "refused", [0, 0, 0]);
                self.trace.count("refused batches");
                central.writer.handle_refused(clock);
            }
            Work::Commit(batch, Fate::Unknown) => {
                self.trace.note(self.now, "unknown outcome", [0, 0, 0]);
                self.trace.count("unknown outcomes");
                self.store.lose_sight_of(*batch);
                central.writer.handle_unknown();
                let number_min = central.epoch.number + 1;
                let held = Some(central.epoch);
                let tag = self.random.draw();
                central.claim = Some(EpochClaim { tag, held, number_min, fork: false });
            }
            Work::Epoch { claim, heard } => {
                if self.now >= self.store.down_until {
                    self.settle_store();
                    let opening = self.store.begin_epoch(claim, clock).expect("the only owner");
                    if heard {
                        self.epoch_began(&opening);
                    }
                }
            }
        }
        self.central_turn();
    }

    fn epoch_began(&mut self, opening: &carillon_persist::Opening) {
        let clock = self.clock();
        self.note("epoch", [opening.epoch.number, opening.head.get(), 0]);
        let central = self.central.as_mut().expect("it claimed");
        central.claim = None;
        central.epoch = opening.epoch;
        let began_after = opening.lineage.newest().began_after;
        let published =
            central.writer.handle_epoch(clock, &opening.lineage, began_after, opening.events);
        self.publish(published);
    }

    fn publish(&mut self, published: Published) {
        // A thread may lose its turn between the two.
        let delay = if self.random.percent(10) { 40 } else { self.random.below(3) };
        self.log_all();
        let central = self.central.as_mut().expect("it publishes");
        central.world = published.world;
        if let Some((epoch, batch)) = published.batch {
            let frame = encode_batch(epoch, &batch);
            let (first, last) = (batch.first, batch.last());
            central.unlogged.push_back(Arc::new(LogBatch { epoch, first, last, frame }));
            let central = central.incarnation;
            self.after(delay, Event::PushLog { central });
        }
    }

    fn log_all(&mut self) {
        if let Some(central) = &mut self.central {
            while let Some(batch) = central.unlogged.pop_front() {
                central.log.push(batch);
            }
        }
    }

    pub(crate) fn push_log(&mut self, incarnation: u64) {
        if self.central.as_ref().is_some_and(|central| central.incarnation == incarnation) {
            self.log_all();
            self.pump_all();
        }
    }

    pub(crate) fn tick(&mut self, incarnation: u64) {
        if let Some(central) = self.central.as_mut().filter(|c| c.incarnation == incarnation) {
            central.tick_at = u64::MAX;
            self.central_turn();
        }
    }
}
