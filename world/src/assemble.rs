//! What messages and audiences said, from what changes of their own say of them.
//!
//! A store and a snapshot hold a message's own revisions and an audience's own records. The revisions that an edit of
//! an audience made of the messages that use it are in neither, since they follow: here the changes since the horizon
//! are gone through once more, in their order. So a world that is assembled is the world that applied them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::app::App;
use crate::audience::in_order;
use crate::message::{Message, Revision};
use crate::view::ApplyError;
use crate::{AudienceId, AudienceRecord, AudienceRow, MessageId, MessageRow, RevisionRecord, Seq};

pub(crate) type StagedAudiences = BTreeMap<AudienceId, (Arc<AudienceRow>, Vec<AudienceRecord>)>;
pub(crate) type StagedMessages = BTreeMap<MessageId, (Arc<MessageRow>, Vec<RevisionRecord>)>;

/// Puts audiences and messages into an app that has its attributes and groups.
///
/// # Errors
/// If they do not fit the app or each other.
pub(crate) fn assemble(
    app: &mut App,
    audiences: StagedAudiences,
    messages: StagedMessages,
    horizon: Seq,
) -> Result<(), ApplyError> {
    let mut later: Vec<(Seq, Said)> = Vec::new();
    begin_audiences(app, audiences, horizon, &mut later)?;
    let mut telling = Telling::default();
    for (id, (row, mut records)) in messages {
        let first = check_message(&row, &records, horizon)?;
        let Some(first) = first else { continue };
        records.drain(..first);
        let past = usize::from(records[0].from <= horizon);
        later.extend((past..records.len()).map(|at| (records[at].from, Said::Message(id, at))));
        let told = Told { row, records, revisions: Vec::new(), uses: Vec::new() };
        telling.messages.insert(id, told);
        if past == 1 {
            telling.tell_first(app, id)?;
        }
    }
    later.sort_unstable_by_key(|(seq, _)| *seq);
    for (seq, said) in later {
        match said {
            Said::Audience(row) => {
                let id = row.id;
                app.put_audience(row)?;
                telling.audience_edited(app, id, seq)?;
            }
            Said::Message(id, at) => telling.tell(app, id, at)?,
        }
    }
    telling.finish(app, horizon);
    Ok(())
}

/// What happened after the horizon.
enum Said {
    /// As the row was.
    Audience(Arc<AudienceRow>),
    /// Which of the message's records.
    Message(MessageId, usize),
}

/// Puts what was said at the horizon, and adds to `later` what came after.
fn begin_audiences(
    app: &mut App,
    audiences: StagedAudiences,
    horizon: Seq,
    later: &mut Vec<(Seq, Said)>,
) -> Result<(), ApplyError> {
    let mut texts = BTreeMap::new();
    let mut first_rows = BTreeMap::new();
    for (id, (row, records)) in audiences {
        let last = records.last().ok_or(ApplyError::EmptyAudience { audience: id })?;
        if *last != AudienceRecord::of(&row) {
            return Err(ApplyError::TornAudience { audience: id });
        }
        let first = records.partition_point(|record| record.from <= horizon).saturating_sub(1);
        for AudienceRecord { from, expression } in records.into_iter().skip(first) {
            let then = AudienceRow { from, expression, ..AudienceRow::clone(&row) };
            let then = Arc::new(then);
            if from <= horizon {
                texts.insert(id, then.expression.clone());
                first_rows.insert(id, then);
            } else {
                later.push((from, Said::Audience(then)));
            }
        }
    }
    let told = |(audience, faults): (AudienceId, carillon_expr::Diagnostics)| {
        ApplyError::AudienceExpression { audience, faults: faults.to_string() }
    };
    for id in in_order(&texts, app).map_err(told)? {
        let row = first_rows.remove(&id).expect("each text has a row");
        app.put_audience(row)?;
    }
    Ok(())
}

/// Where the records begin that are still known; `None` if the message is over and before the horizon: then its
/// expressions may refer to what is gone.
fn check_message(
    row: &MessageRow,
    records: &[RevisionRecord],
    horizon: Seq,
) -> Result<Option<usize>, ApplyError> {
    let empty = ApplyError::EmptyMessage { message: row.id };
    let Some(last) = records.last().filter(|_| !row.variants.is_empty()) else { return Err(empty) };
    // A body is found by its place among the variants of the present revision.
    if !last.is_of(row) {
        return Err(ApplyError::TornMessage { message: row.id });
    }
    if row.is_over() && last.from <= horizon {
        return Ok(None);
    }
    let first = records.partition_point(|record| record.from <= horizon).saturating_sub(1);
    if records[first..].iter().any(|record| record.variants.is_empty()) {
        return Err(empty);
    }
    Ok(Some(first))
}

/// A message of which some records were told.
struct Told {
    row: Arc<MessageRow>,
    records: Vec<RevisionRecord>,
    revisions: Vec<Revision>,
    /// The audiences that an edit of changes it at present. Sorted.
    uses: Vec<AudienceId>,
}

#[derive(Default)]
struct Telling {
    messages: BTreeMap<MessageId, Told>,
    users: BTreeMap<AudienceId, BTreeSet<MessageId>>,
}

impl Telling {
    /// What was in force at the horizon: the message's own, or what the last edit of an audience made of it.
    fn tell_first(&mut self, app: &App, id: MessageId) -> Result<(), ApplyError> {
        self.tell(app, id, 0)?;
        let told = self.messages.get_mut(&id).expect("it is told of messages that are here");
        let froms = told.uses.iter().filter_map(|id| app.audience(*id)).map(|of| of.row().from);
        if let (Some(edited), [revision]) = (froms.max(), &mut *told.revisions) {
            revision.begin_later(edited);
        }
        Ok(())
    }

    fn tell(&mut self, app: &App, id: MessageId, at: usize) -> Result<(), ApplyError> {
        let told = self.messages.get_mut(&id).expect("it is told of messages that are here");
        // The last record of an older release does not say that it put an end.
        let is_last = at + 1 == told.records.len();
        told.records[at].over |= is_last && told.row.is_over();
        let over = told.records[at].over;
        let revision = Revision::read(&told.records[at], app, id)?;
        let uses = if over { Vec::new() } else { revision.audiences() };
        told.revisions.push(revision);
        self.used(id, uses);
        Ok(())
    }

    fn audience_edited(
        &mut self,
        app: &App,
        audience: AudienceId,
        seq: Seq,
    ) -> Result<(), ApplyError> {
        let users: Vec<MessageId> =
            self.users.get(&audience).into_iter().flatten().copied().collect();
        for id in users {
            let told = self.messages.get_mut(&id).expect("it is told of messages that are here");
            let Some(present) = told.revisions.last() else { continue };
            let revision = present.read_again(seq, app, id)?;
            let uses = revision.audiences();
            told.revisions.push(revision);
            self.used(id, uses);
        }
        Ok(())
    }

    fn used(&mut self, id: MessageId, uses: Vec<AudienceId>) {
        let told = self.messages.get_mut(&id).expect("it is told of messages that are here");
        let before = std::mem::replace(&mut told.uses, uses);
        for audience in before.iter().filter(|of| told.uses.binary_search(of).is_err()) {
            self.users.entry(*audience).or_default().remove(&id);
        }
        for audience in told.uses.iter().filter(|of| before.binary_search(of).is_err()) {
            self.users.entry(*audience).or_default().insert(id);
        }
    }

    fn finish(self, app: &mut App, horizon: Seq) {
        let mut records = Vec::new();
        for (id, told) in self.messages {
            let changes = told.revisions.iter().map(Revision::from).filter(|from| *from > horizon);
            records.extend(changes.map(|from| (from, id)));
            app.put_message(Message::new(told.row, told.revisions));
        }
        records.sort_unstable();
        records.into_iter().for_each(|(seq, id)| app.record(seq, id));
    }
}
