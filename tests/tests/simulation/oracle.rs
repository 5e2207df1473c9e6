//! The truth, kept the plainest way: every device, message and audience as each commit left it, by seq. What a device
//! should have at any seq is worked out anew from that, by [`Predicate`] and nothing of the language or the world.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use carillon_world::{Batch, Change, MessageRow, MessageState, Millis};

use crate::predicate::{Audiences, Predicate, Record, Then};

/// A message from one commit on.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    pub(crate) number: u32,
    pub(crate) state: MessageState,
    pub(crate) to: Predicate,
    pub(crate) tag: u64,
    not_before: Option<Millis>,
    expires_at: Millis,
}

/// (id, tag) of what a device should have.
pub(crate) type Due = Rc<BTreeMap<u64, u64>>;

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    head: u64,
    /// The last change but ticks, reports and the purges that follow from their number.
    last_work: u64,
    horizon: u64,
    batch_ends: BTreeSet<u64>,
    devices: BTreeMap<u64, Vec<(u64, Option<Record>)>>,
    messages: BTreeMap<u64, Vec<(u64, Revision)>>,
    /// What each audience said from a seq on; `None` from when it is gone.
    audiences: BTreeMap<u64, Vec<(u64, Option<Predicate>)>>,
    /// Seqs at which an audience was edited that is not counted yet.
    edited: Vec<u64>,
    /// The committed clock from seqs on.
    clocks: Vec<(u64, u64)>,
    /// Seqs at which any message or audience changed.
    message_seqs: Vec<u64>,
    /// What was written, by the stored text that it must come to.
    predicates: BTreeMap<String, Predicate>,
    /// The bodies written, by the number in each.
    bodies: BTreeMap<u64, String>,
    /// What each tag stands for: number of the body, urgency and end.
    tags: BTreeMap<u64, (u64, u8, u64)>,
    /// The message that each create came to, by the number of its body.
    created: BTreeMap<u64, u64>,
    /// When a device's own write, which carries a number, was committed.
    notes: BTreeMap<u64, u64>,
    /// What was worked out, by device, last seq of any message and of the device, and the clock.
    memo: BTreeMap<(u64, u64, u64, u64), Due>,
}

/// The number that the simulation puts into every body, `{"n":7,…}`.
pub(crate) fn number_in(body: &str) -> u64 {
    let digits: String =
        body.trim_start_matches("{\"n\":").chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("every body of the simulation has its number")
}

impl Oracle {
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    pub(crate) fn last_work(&self) -> u64 {
        self.last_work
    }

    /// Whether a world may stand at this seq.
    pub(crate) fn is_batch_end(&self, seq: u64) -> bool {
        seq == 0 || self.batch_ends.contains(&seq)
    }

    /// An expression that is about to be written.
    pub(crate) fn expect_predicate(&mut self, predicate: &Predicate) {
        let before = self.predicates.insert(predicate.text(None), predicate.clone());
        assert!(before.is_none_or(|before| before == *predicate), "one text for two predicates");
    }

    /// A body that is about to be written.
    pub(crate) fn expect_body(&mut self, number: u64, body: &str) {
        self.bodies.insert(number, body.to_owned());
    }

    /// The body that a tag stands for.
    pub(crate) fn body(&self, tag: u64) -> &str {
        &self.bodies[&self.tags[&tag].0]
    }

    /// Takes what became durable.
    pub(crate) fn commit(&mut self, now: Millis, batch: &Batch, note: u64) {
        assert_eq!(batch.first.get(), self.head + 1, "commits follow each other");
        for (seq, change) in batch.numbered() {
            self.take(now, seq.get(), change, note);
        }
        self.head = batch.last().get();
        self.batch_ends.insert(self.head);
    }

    fn take(&mut self, now: Millis, seq: u64, change: &Change, note: u64) {
        if !matches!(change, Change::Clock { .. } | Change::Seen { .. } | Change::Purge { .. }) {
            self.last_work = seq;
        }
        match change {
            Change::Device(row) => {
                let mut record = Record::of(row);
                let before = self.devices.get(&row.id.get()).and_then(|versions| versions.last());
                // What a profile says of it does not count.
                record.seen = before.and_then(|(_, before)| before.as_ref()?.seen);
                if let Some(crate::predicate::Plain::Number(n)) = record.attributes.get(&note) {
                    self.notes.entry(*n as u64).or_insert(seq);
                }
                self.devices.entry(row.id.get()).or_default().push((seq, Some(record)));
            }
            Change::DeviceGone { id, .. } => {
                self.devices.entry(id.get()).or_default().push((seq, None));
            }
            Change::Message(row) => self.take_message(seq, row),
            Change::MessageState { id, state, .. } => {
                let revisions = self.messages.get_mut(&id.get()).expect("it was created");
                let mut revision = revisions.last().expect("a first revision").1.clone();
                match state {
                    MessageState::Active => {
                        assert_eq!(revision.state, MessageState::Scheduled, "{id} starts twice");
                        assert!(revision.not_before.is_some_and(|at| at <= now), "{id} too early");
                    }
                    MessageState::Expired => {
                        assert!(revision.expires_at <= now, "{id} ends too early");
                    }
                    MessageState::Recalled => {}
                    MessageState::Scheduled => panic!("nothing goes back to its schedule"),
                }
                assert_ne!(revision.state, MessageState::Recalled, "a recall of {id} is final");
                revision.state = *state;
                revisions.push((seq, revision));
                self.message_seqs.push(seq);
            }
            Change::Audience(row) => {
                let says = self.predicates.get(&*row.expression);
                let says =
                    says.unwrap_or_else(|| panic!("{:?} was never written so", row.expression));
                let (id, says) = (row.id.get(), says.clone());
                if self.audiences_at(seq).get(&id) != Some(&says) {
                    self.audiences.entry(id).or_default().push((seq, Some(says)));
                    self.edit_audience(seq, id);
                }
            }
            Change::AudienceGone { id, .. } => {
                let present = self.audiences_at(seq);
                let uses = |to: &Predicate| to.uses(id.get(), &present);
                assert!(!present.values().any(uses), "{id} goes though an audience uses it");
                let versions = self.audiences.get_mut(&id.get()).expect("it was created");
                versions.push((seq, None));
            }
            Change::Purge { horizon } => {
                assert!(horizon.get() >= self.horizon, "the horizon never falls");
                self.horizon = horizon.get();
            }
            Change::Clock { at } => {
                assert!(at.0 > self.clock_at(seq), "the clock runs back to {}", at.0);
                assert!(*at <= now, "the clock runs ahead");
                self.clocks.push((seq, at.0));
            }
            Change::Seen { at, devices, .. } => {
                assert!(*at <= now, "seen in the future");
                for id in devices {
                    let versions = self.devices.get_mut(&id.get()).expect("it is there");
                    let last = versions.last().and_then(|(_, record)| record.clone());
                    let record = last.expect("it is there");
                    assert!(record.seen < Some(at.0), "a report of what is known");
                    versions.push((seq, Some(Record { seen: Some(at.0), ..record })));
                }
            }
            Change::App(_)
            | Change::Attribute(_)
            | Change::AttributeGone { .. }
            | Change::Group(_)
            | Change::GroupGone { .. } => {}
        }
    }

    /// Every message that is not over and uses the audience is another from `seq` on.
    fn edit_audience(&mut self, seq: u64, id: u64) {
        let present = self.audiences_at(seq);
        for revisions in self.messages.values_mut() {
            let revision = revisions.last().expect("a first revision").1.clone();
            let live = [MessageState::Active, MessageState::Scheduled].contains(&revision.state);
            if live && revision.to.uses(id, &present) {
                revisions.push((seq, revision));
            }
        }
        self.message_seqs.push(seq);
        self.edited.push(seq);
    }

    /// What every audience said at `seq`.
    pub(crate) fn audiences_at(&self, seq: u64) -> Audiences {
        let said = self.audiences.iter().filter_map(|(id, v)| Some((*id, at(v, seq)?.1.clone()?)));
        said.collect()
    }

    /// The audience edits since the last call: whether anybody had something else after it than before.
    pub(crate) fn felt_edits(&mut self) -> Vec<bool> {
        let edited = std::mem::take(&mut self.edited);
        let felt = |seq: u64, oracle: &mut Oracle| {
            let devices: Vec<u64> = oracle.devices_at(seq).into_iter().map(|(id, _)| id).collect();
            devices.into_iter().any(|id| oracle.due(id, seq) != oracle.due(id, seq - 1))
        };
        edited.into_iter().map(|seq| felt(seq, self)).collect()
    }

    fn take_message(&mut self, seq: u64, row: &MessageRow) {
        let id = row.id.get();
        let to = self.predicates.get(&*row.to);
        let to = to.unwrap_or_else(|| panic!("{:?} was never written so", row.to)).clone();
        let variant = &row.variants[0];
        let wire = std::str::from_utf8(&variant.wire).expect("JSON");
        let (_, rest) = wire.split_once("\"body\":").expect("a body");
        let body = rest.strip_suffix('}').expect("the end of the object");
        let number = number_in(body);
        assert_eq!(self.bodies[&number], body, "the body of {id:x} is as it was written");
        let meaning = (number, row.priority as u8, row.expires_at.0);
        let tag = variant.tag.get();
        assert_eq!(*self.tags.entry(tag).or_insert(meaning), meaning, "a tag for two contents");
        let revisions = self.messages.entry(id).or_default();
        let before = revisions.last().map_or(0, |(_, revision)| revision.number);
        assert_eq!(row.revision, before + 1, "revisions of {id:x} are counted");
        if before == 0 {
            let twice = self.created.insert(number, id);
            assert_eq!(twice, None, "create {number} was applied twice");
        } else {
            let over = [MessageState::Recalled, MessageState::Expired];
            let state = revisions.last().expect("a revision").1.state;
            assert!(!over.contains(&state), "{id:x} is edited though it is over");
        }
        let (state, number) = (row.state, row.revision);
        let (not_before, expires_at) = (row.not_before, row.expires_at);
        revisions.push((seq, Revision { number, state, to, tag, not_before, expires_at }));
        self.message_seqs.push(seq);
    }

    /// The device's record at `seq`, if it was there then.
    pub(crate) fn device(&self, device: u64, seq: u64) -> Option<&Record> {
        at(self.devices.get(&device)?, seq).and_then(|(_, record)| record.as_ref())
    }

    /// Ids of the devices that are there.
    pub(crate) fn devices(&self) -> Vec<u64> {
        self.devices_at(self.head).into_iter().map(|(id, _)| id).collect()
    }

    /// The devices that were there at `seq`.
    pub(crate) fn devices_at(&self, seq: u64) -> Vec<(u64, &Record)> {
        let there = self.devices.iter().filter_map(|(id, v)| Some((*id, at(v, seq)?.1.as_ref()?)));
        there.collect()
    }

    /// The messages that there were at `seq`, each with its revisions until then.
    pub(crate) fn messages_at(&self, seq: u64) -> impl Iterator<Item = (u64, &[(u64, Revision)])> {
        let until = move |v: &Vec<(u64, Revision)>| v.partition_point(|(from, _)| *from <= seq);
        let all = self.messages.iter().map(move |(id, v)| (*id, &v[..until(v)]));
        all.filter(|(_, revisions)| !revisions.is_empty())
    }

    pub(crate) fn message(&self, id: u64) -> Option<&[(u64, Revision)]> {
        self.messages.get(&id).map(Vec::as_slice)
    }

    /// Messages whose start or end was due at `then`.
    pub(crate) fn overdue(&self, then: Millis) -> Vec<u64> {
        let is_overdue = |revision: &Revision| match revision.state {
            MessageState::Scheduled => {
                revision.not_before.is_none_or(|at| at <= then) || revision.expires_at <= then
            }
            MessageState::Active => revision.expires_at <= then,
            MessageState::Expired | MessageState::Recalled => false,
        };
        let last = self.messages.iter().filter_map(|(id, v)| Some((*id, &v.last()?.1)));
        last.filter(|(_, revision)| is_overdue(revision)).map(|(id, _)| id).collect()
    }

    /// The committed clock at `seq`.
    pub(crate) fn clock_at(&self, seq: u64) -> u64 {
        at(&self.clocks, seq).map_or(0, |(_, clock)| *clock)
    }

    /// How many of what the device should have at `seq` is volatile.
    pub(crate) fn volatile_due(&mut self, device: u64, seq: u64) -> usize {
        let (due, audiences) = (self.due(device, seq), self.audiences_at(seq));
        let is_volatile = |id: &&u64| {
            let there = at(&self.messages[*id], seq);
            there.is_some_and(|(_, revision)| revision.to.is_volatile(&audiences))
        };
        due.keys().filter(is_volatile).count()
    }

    /// How many messages that did not change between the two seqs became due or ceased to be.
    pub(crate) fn altered(&mut self, device: u64, from: u64, to: u64) -> usize {
        let (old, new) = (self.due(device, from), self.due(device, to));
        let revision = |id: &u64, seq| at(&self.messages[id], seq).map(|(since, _)| *since);
        let ids: BTreeSet<u64> = old.keys().chain(new.keys()).copied().collect();
        let altered = |id: &&u64| {
            revision(id, from) == revision(id, to) && old.contains_key(id) != new.contains_key(id)
        };
        ids.iter().filter(altered).count()
    }

    pub(crate) fn active_messages(&self) -> usize {
        let active = |v: &&Vec<(u64, Revision)>| {
            v.last().is_some_and(|(_, r)| r.state == MessageState::Active)
        };
        self.messages.values().filter(active).count()
    }

    /// When the device's own write with this number was committed.
    pub(crate) fn note(&self, number: u64) -> Option<u64> {
        self.notes.get(&number).copied()
    }

    /// H(seq) of the device: what it should have in the world at `seq`. Nothing if it is not there.
    pub(crate) fn due(&mut self, device: u64, seq: u64) -> Due {
        assert!(seq <= self.head, "no world stands at {seq} yet");
        let versions = self.devices.get(&device).map_or(&[][..], Vec::as_slice);
        let Some((profile_seq, Some(record))) = at(versions, seq) else { return Due::default() };
        let messages = self.message_seqs.partition_point(|s| *s <= seq);
        let message_seq = messages.checked_sub(1).map_or(0, |last| self.message_seqs[last]);
        let clock = self.clock_at(seq);
        let key = (device, message_seq, *profile_seq, clock);
        if let Some(known) = self.memo.get(&key) {
            return known.clone();
        }
        let then = Then { clock, audiences: self.audiences_at(seq) };
        let due = self.messages.iter().filter_map(|(id, revisions)| {
            let (_, revision) = at(revisions, seq)?;
            let is_due = revision.state == MessageState::Active
                && revision.to.holds(record, &then) == Some(true);
            is_due.then_some((*id, revision.tag))
        });
        let due: Due = Rc::new(due.collect());
        self.memo.insert(key, due.clone());
        due
    }
}

/// The version in force at `seq`.
fn at<T>(versions: &[(u64, T)], seq: u64) -> Option<&(u64, T)> {
    let after = versions.partition_point(|(from, _)| *from <= seq);
    versions[..after].last()
}
