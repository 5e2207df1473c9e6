//! Messages with the revisions that somebody may still hold, and the index from a device's terms to them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use carillon_expr::{Context, Expression, Limits, Schema, Term, Terms, visit_terms};

use crate::audience::NamesOnly;
use crate::pmap::PMap;
use crate::usage;
use crate::view::ApplyError;
use crate::{
    AudienceId, DeviceRow, MessageId, MessageRow, MessageState, Millis, RevisionRecord, Seq, Tag,
};

/// What a message said from a seq on: enough to know who had what at its time.
#[derive(Clone, Debug)]
pub struct Revision {
    from: Seq,
    /// The message's own change that it goes back to; `from` is later if an audience was edited since.
    own: Seq,
    active: bool,
    over: bool,
    to_text: Arc<str>,
    to: Expression,
    variants: Arc<[Head]>,
    /// Names the message, for samples without a salt.
    message: MessageId,
    is_volatile: bool,
}

#[derive(Clone, Debug)]
struct Head {
    selector: Option<(Arc<str>, Expression)>,
    tag: Tag,
}

impl Revision {
    /// # Errors
    /// If an expression does not fit the schema.
    pub(crate) fn read(
        record: &RevisionRecord,
        schema: &dyn Schema,
        id: MessageId,
    ) -> Result<Revision, ApplyError> {
        let names = NamesOnly::of(schema);
        // What is over is for nobody, whatever audiences say: it is not read again, so it never depends on what they
        // said when it was read.
        let schema = if record.over { &names } else { schema };
        let parse = |text: &str| {
            Expression::parse(text, schema, &Limits::STORED).map_err(|faults| {
                ApplyError::Expression { message: id, faults: faults.to_string() }
            })
        };
        let mut variants = Vec::with_capacity(record.variants.len());
        for (selector, tag) in &record.variants {
            let selector = match selector {
                Some(text) => Some((text.clone(), parse(text)?)),
                None => None,
            };
            variants.push(Head { selector, tag: *tag });
        }
        let to = parse(&record.to)?;
        let to_text = record.to.clone();
        let selectors = variants.iter().filter_map(|head| head.selector.as_ref());
        let is_volatile = to.is_volatile() || selectors.clone().any(|(_, of)| of.is_volatile());
        Ok(Revision {
            from: record.from,
            own: record.from,
            active: record.active,
            over: record.over,
            to_text,
            to,
            variants: variants.into(),
            message: id,
            is_volatile,
        })
    }

    /// The same, read once more because an audience says something else from `from` on.
    ///
    /// # Errors
    /// As [`Revision::read`].
    pub(crate) fn read_again(
        &self,
        from: Seq,
        schema: &dyn Schema,
        id: MessageId,
    ) -> Result<Revision, ApplyError> {
        let again = Revision::read(&self.record(), schema, id)?;
        Ok(Revision { from, ..again })
    }

    /// It was last made by an edit of an audience at `from`, if that was later.
    pub(crate) fn begin_later(&mut self, from: Seq) {
        self.from = self.from.max(from);
    }

    /// The message's own change that it goes back to.
    pub(crate) fn record(&self) -> RevisionRecord {
        let head = |head: &Head| (head.selector.as_ref().map(|(text, _)| text.clone()), head.tag);
        RevisionRecord {
            from: self.own,
            active: self.active,
            to: self.to_text.clone(),
            variants: self.variants.iter().map(head).collect(),
            over: self.over,
        }
    }

    pub fn from(&self) -> Seq {
        self.from
    }

    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whether what a device has of it can change with the clock, or with when the device was seen.
    pub fn is_volatile(&self) -> bool {
        self.is_volatile
    }

    /// The tag that `device` has by this revision at `clock`; `None` if it has nothing of it.
    pub fn addresses(&self, device: &DeviceRow, clock: Millis) -> Option<Tag> {
        self.variant(device, clock).map(|variant| self.variants[variant].tag)
    }

    /// Which variant `device` has: the first that fits.
    pub(crate) fn variant(&self, device: &DeviceRow, clock: Millis) -> Option<usize> {
        let context = Context { now: clock.to_time(), message: Some(self.message.get()) };
        if !self.active || !self.to.matches_in(device, &context) {
            return None;
        }
        let fits = |of: &Expression| of.matches_in(device, &context);
        self.variants.iter().position(|head| head.selector.as_ref().is_none_or(|(_, of)| fits(of)))
    }

    /// Whether it may be addressed to the device, as far as nothing volatile is looked at.
    pub(crate) fn may_address(&self, device: &DeviceRow) -> bool {
        let terms = match self.to.terms() {
            Terms::Any(terms) => terms,
            Terms::Everyone => return self.active,
            Terms::Nobody => return false,
        };
        let mut found = false;
        let (attributes, groups) = (&device.attributes, &device.groups);
        visit_terms(device.id.get(), device.user.as_ref(), attributes, groups, &mut |term| {
            found |= terms.binary_search(term).is_ok();
        });
        self.active && found
    }

    /// The tags that a device may have by this revision, each once.
    pub(crate) fn tags(&self) -> Vec<Tag> {
        let mut tags: Vec<Tag> = self.variants.iter().map(|head| head.tag).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    /// What lies behind it, by the formula of [`usage`].
    pub(crate) fn bytes(&self) -> u64 {
        let selector = |(text, of): &(Arc<str>, Expression)| usage::of_expression(text, of);
        let selectors: u64 =
            self.variants.iter().filter_map(|head| head.selector.as_ref()).map(selector).sum();
        usage::of_expression(&self.to_text, &self.to)
            + usage::allocation(16 + size_of_val(&*self.variants))
            + selectors
    }

    /// The audiences that it uses, however indirectly. Sorted, without repeats.
    pub(crate) fn audiences(&self) -> Vec<AudienceId> {
        let mut ids: Vec<AudienceId> =
            self.expressions().flat_map(|of| of.audiences().iter().copied()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Its recipients, and the selectors of the variants that have one.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let selectors =
            self.variants.iter().filter_map(|head| head.selector.as_ref().map(|(_, of)| of));
        std::iter::once(&self.to).chain(selectors)
    }
}

/// A message and its revisions from the horizon on, oldest first, the present one last.
#[derive(Clone, Debug)]
pub struct Message {
    row: Arc<MessageRow>,
    revisions: Vec<Revision>,
}

impl Message {
    pub(crate) fn new(row: Arc<MessageRow>, revisions: Vec<Revision>) -> Message {
        Message { row, revisions }
    }

    pub fn row(&self) -> &Arc<MessageRow> {
        &self.row
    }

    /// The recipients by the present revision. Of a message that is over it is for print alone: it does not know what
    /// audiences say.
    pub fn expression(&self) -> &Expression {
        &self.present().to
    }

    /// As [`Message::expression`], to be evaluated: of a message that is over it asks what audiences say now.
    pub fn recipients(&self, schema: &dyn Schema) -> Expression {
        let present = self.expression();
        if !self.row.is_over() || present.audiences().is_empty() {
            return present.clone();
        }
        let read = Expression::parse(&self.row.to, schema, &Limits::STORED);
        read.unwrap_or_else(|_| present.clone())
    }

    /// Whether it is or may become active.
    pub fn is_live(&self) -> bool {
        !self.row.is_over()
    }

    /// The audiences that an edit of would change it: those that its present revision uses, if it is live. Sorted.
    pub(crate) fn live_audiences(&self) -> Vec<AudienceId> {
        if self.is_live() { self.present().audiences() } else { Vec::new() }
    }

    /// Whether who has it changes, or will when it starts, with the clock or with when devices were seen.
    pub fn is_volatile(&self) -> bool {
        self.is_live() && self.present().is_volatile
    }

    /// The seq of the last change.
    pub fn changed(&self) -> Seq {
        self.present().from
    }

    pub fn revisions(&self) -> &[Revision] {
        &self.revisions
    }

    /// The message's own changes that [`Message::revisions`] go back to, oldest first.
    pub(crate) fn records(&self) -> Vec<RevisionRecord> {
        self.revisions.chunk_by(|a, b| a.own == b.own).map(|alike| alike[0].record()).collect()
    }

    pub(crate) fn present(&self) -> &Revision {
        self.revisions.last().expect("a message has a revision")
    }

    /// The revision in force at `seq`; `None` if there was none yet.
    pub(crate) fn at(&self, seq: Seq) -> Option<&Revision> {
        let after = self.revisions.partition_point(|revision| revision.from <= seq);
        after.checked_sub(1).map(|at| &self.revisions[at])
    }

    /// The message after another revision.
    pub(crate) fn revised(&self, row: Arc<MessageRow>, revision: Revision) -> Message {
        let mut revisions = Vec::with_capacity(self.revisions.len() + 1);
        revisions.extend_from_slice(&self.revisions);
        revisions.push(revision);
        Message { row, revisions }
    }

    /// The message after a start, an end or a recall at `seq`.
    ///
    /// # Errors
    /// As [`Revision::read`].
    pub(crate) fn in_state(
        &self,
        state: MessageState,
        seq: Seq,
        schema: &dyn Schema,
    ) -> Result<Message, ApplyError> {
        let row = MessageRow { state, ..MessageRow::clone(&self.row) };
        let (active, over) = (state == MessageState::Active, row.is_over());
        let mut revision = Revision { from: seq, own: seq, active, over, ..self.present().clone() };
        if over && revision.expressions().any(|of| !of.audiences().is_empty()) {
            revision = Revision::read(&revision.record(), schema, row.id)?;
        }
        Ok(self.revised(Arc::new(row), revision))
    }

    /// What is left of it when nobody is owed anything from before `horizon`; `None` if it is forgotten.
    pub(crate) fn purged(&self, horizon: Seq) -> Option<Message> {
        if self.row.is_over() && self.changed() <= horizon {
            return None;
        }
        let first =
            self.revisions.partition_point(|revision| revision.from <= horizon).saturating_sub(1);
        Some(Message { row: self.row.clone(), revisions: self.revisions[first..].to_vec() })
    }

    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.revisions.iter().flat_map(Revision::expressions)
    }
}

/// From a device's terms to the messages that may be addressed to it: a superset, which the caller evaluates. So a poll
/// looks at what may match and at nothing else. An app has two: of what any retained revision may address, and of what
/// is active and volatile.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    /// By the hash of a term; two terms that share one cost an evaluation each.
    by_term: PMap<u64, Arc<Vec<MessageId>>>,
    /// Those without a necessary term.
    everyone: Arc<Vec<MessageId>>,
    /// Entries of all lists.
    postings: usize,
}

fn hash(term: &Term) -> u64 {
    let mut hasher = DefaultHasher::new();
    term.hash(&mut hasher);
    hasher.finish()
}

/// Where a message stands in an index. Sorted, without repeats.
#[derive(PartialEq)]
pub(crate) struct Places {
    terms: Vec<u64>,
    everyone: bool,
}

impl Places {
    /// By all its revisions that may address anybody.
    pub(crate) fn retained(message: Option<&Message>) -> Places {
        let all = message.into_iter().flat_map(|message| &message.revisions);
        Places::of(all.filter(|revision| !revision.over))
    }

    /// By its present revision, if that is active and volatile.
    pub(crate) fn volatile(message: Option<&Message>) -> Places {
        let present = message.map(Message::present);
        Places::of(present.filter(|revision| revision.active && revision.is_volatile))
    }

    fn of<'a>(revisions: impl IntoIterator<Item = &'a Revision>) -> Places {
        let mut places = Places { terms: Vec::new(), everyone: false };
        for revision in revisions {
            match revision.to.terms() {
                Terms::Any(terms) => places.terms.extend(terms.iter().map(hash)),
                Terms::Everyone => places.everyone = true,
                Terms::Nobody => {}
            }
        }
        places.terms.sort_unstable();
        places.terms.dedup();
        places
    }

    /// In how many lists of the index the message stands.
    fn entries(&self) -> usize {
        self.terms.len() + usize::from(self.everyone)
    }
}

impl Index {
    /// Moves a message from one set of places to another.
    pub(crate) fn replace(&mut self, id: MessageId, old: &Places, new: &Places) {
        if old == new {
            return;
        }
        self.postings = self.postings + new.entries() - old.entries();
        for term in old.terms.iter().filter(|term| new.terms.binary_search(term).is_err()) {
            let emptied = self.by_term.get_mut(*term).is_some_and(|list| {
                drop_from(list, id);
                list.is_empty()
            });
            if emptied {
                self.by_term.remove(*term);
            }
        }
        for term in new.terms.iter().filter(|term| old.terms.binary_search(term).is_err()) {
            match self.by_term.get_mut(*term) {
                Some(list) => add_to(list, id),
                None => drop(self.by_term.insert(*term, Arc::new(vec![id]))),
            }
        }
        match (old.everyone, new.everyone) {
            (true, false) => drop_from(&mut self.everyone, id),
            (false, true) => add_to(&mut self.everyone, id),
            _ => {}
        }
    }

    /// Takes messages out of where they no longer stand. One pass over each list, so that a thousand messages of a
    /// long list cost hardly more than one.
    pub(crate) fn shrink(&mut self, shrunk: &[Shrunk]) {
        let mut by_term: HashMap<u64, Vec<MessageId>> = HashMap::new();
        let mut everyone = Vec::new();
        for Shrunk { id, before, after } in shrunk {
            let (old, new) = (Places::retained(Some(before)), Places::retained(after.as_deref()));
            self.postings = self.postings + new.entries() - old.entries();
            let left = old.terms.iter().filter(|term| new.terms.binary_search(term).is_err());
            left.for_each(|term| by_term.entry(*term).or_default().push(*id));
            if old.everyone && !new.everyone {
                everyone.push(*id);
            }
        }
        for (term, mut gone) in by_term {
            let emptied = self.by_term.get_mut(term).is_some_and(|list| {
                drop_all_from(list, &mut gone);
                list.is_empty()
            });
            if emptied {
                self.by_term.remove(term);
            }
        }
        drop_all_from(&mut self.everyone, &mut everyone);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.postings == 0
    }

    /// By the formula of [`usage`].
    pub(crate) fn bytes(&self) -> u64 {
        self.by_term.len() as u64 * usage::INDEX_TERM + self.postings as u64 * usage::INDEX_POSTING
    }

    /// What [`Index::bytes`] has to be: walks over everything.
    pub(crate) fn surveyed(&self) -> u64 {
        let postings = self.by_term.values().map(|list| list.len()).sum::<usize>();
        let postings = postings + self.everyone.len();
        self.by_term.values().count() as u64 * usage::INDEX_TERM
            + postings as u64 * usage::INDEX_POSTING
    }

    /// All messages of the index that may be addressed to `device`. Sorted, without repeats.
    pub(crate) fn candidates(&self, device: &DeviceRow) -> Vec<MessageId> {
        let mut ids = Vec::clone(&self.everyone);
        let mut take = |term: &Term| {
            if let Some(list) = self.by_term.get(hash(term)) {
                ids.extend_from_slice(list);
            }
        };
        if !self.by_term.is_empty() {
            let (attributes, groups) = (&device.attributes, &device.groups);
            visit_terms(device.id.get(), device.user.as_ref(), attributes, groups, &mut take);
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

/// A message that says less than it did: it lost revisions, or all of itself.
pub(crate) struct Shrunk {
    pub(crate) id: MessageId,
    pub(crate) before: Arc<Message>,
    pub(crate) after: Option<Arc<Message>>,
}

fn add_to(list: &mut Arc<Vec<MessageId>>, id: MessageId) {
    if let Err(at) = list.binary_search(&id) {
        Arc::make_mut(list).insert(at, id);
    }
}

fn drop_from(list: &mut Arc<Vec<MessageId>>, id: MessageId) {
    if let Ok(at) = list.binary_search(&id) {
        Arc::make_mut(list).remove(at);
    }
}

fn drop_all_from(list: &mut Arc<Vec<MessageId>>, gone: &mut [MessageId]) {
    if gone.is_empty() {
        return;
    }
    gone.sort_unstable();
    let kept = list.iter().copied().filter(|id| gone.binary_search(id).is_err());
    *list = Arc::new(kept.collect());
}

/// Which of an app's messages changed at which seq, oldest first, from the horizon on. In chunks, so that a clone that changes
/// copies the list of chunks and one chunk, not a million records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    chunks: Arc<Vec<RecordChunk>>,
    len: usize,
}

/// Not empty, oldest first.
type RecordChunk = Arc<Vec<(Seq, MessageId)>>;

const RECORDS_PER_CHUNK: usize = 512;

impl Records {
    /// `seq` is at least as great as all before: an edit of an audience changes several.
    pub(crate) fn push(&mut self, seq: Seq, id: MessageId) {
        self.len += 1;
        let chunks = Arc::make_mut(&mut self.chunks);
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < RECORDS_PER_CHUNK => Arc::make_mut(chunk).push((seq, id)),
            _ => chunks.push(Arc::new(vec![(seq, id)])),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The records with a greater seq.
    pub(crate) fn after(&self, seq: Seq) -> impl Iterator<Item = (Seq, MessageId)> {
        let from =
            self.chunks.partition_point(|chunk| chunk.last().is_some_and(|(last, _)| *last <= seq));
        self.chunks[from..]
            .iter()
            .flat_map(|chunk| chunk.iter().copied())
            .skip_while(move |(at, _)| *at <= seq)
    }

    /// At least how many records have a greater seq, without looking at them: counts the whole of the first chunk.
    pub(crate) fn count_after(&self, seq: Seq) -> usize {
        let from =
            self.chunks.partition_point(|chunk| chunk.last().is_some_and(|(last, _)| *last <= seq));
        self.chunks[from..].iter().map(|chunk| chunk.len()).sum()
    }

    /// Whether there is a record up to `horizon`.
    pub(crate) fn reach(&self, horizon: Seq) -> bool {
        let oldest = self.chunks.first().and_then(|chunk| chunk.first());
        oldest.is_some_and(|(seq, _)| *seq <= horizon)
    }

    /// Takes out the records up to `horizon`.
    pub(crate) fn purge(&mut self, horizon: Seq) -> Vec<MessageId> {
        let mut ids = Vec::new();
        let chunks = Arc::make_mut(&mut self.chunks);
        let whole =
            chunks.partition_point(|chunk| chunk.last().is_some_and(|(last, _)| *last <= horizon));
        for chunk in chunks.drain(..whole) {
            ids.extend(chunk.iter().map(|(_, id)| *id));
        }
        if let Some(chunk) = chunks.first_mut() {
            let old = chunk.partition_point(|(seq, _)| *seq <= horizon);
            if old > 0 {
                ids.extend(Arc::make_mut(chunk).drain(..old).map(|(_, id)| id));
            }
        }
        self.len -= ids.len();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

#[cfg(test)]
mod tests;
