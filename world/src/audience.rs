//! Audiences: the named expressions of an app, what each said since the horizon, and the messages that use them.
//!
//! Expressions refer to audiences by id and hold what those said when they were read. So an edit of an audience reads
//! again every audience and every live message that uses it, however indirectly, and nothing is looked up when a
//! device is matched. What always holds:
//!
//! - the present expression of an audience, and that of a live message's present revision, is read against the present
//!   expressions of all audiences that it uses;
//! - what is superseded stays as it was when it was superseded;
//! - `users` names the live messages that use an audience, and no others.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use carillon_expr::{Diagnostics, Expression, Limits, Schema, Type};

use crate::pmap::PMap;
use crate::usage::{self, Usage};
use crate::{AttributeId, AudienceId, AudienceRecord, AudienceRow, GroupId, MessageId, Seq};

/// What an audience said from a change on.
#[derive(Clone, Debug)]
pub struct AudienceRevision {
    from: Seq,
    text: Arc<str>,
    expression: Expression,
}

impl AudienceRevision {
    /// As long as it was in force, the last that it stood for.
    pub fn expression(&self) -> &Expression {
        &self.expression
    }

    /// In stored form.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    pub fn from(&self) -> Seq {
        self.from
    }

    /// What lies behind it, by the formula of [`usage`].
    pub(crate) fn bytes(&self) -> u64 {
        usage::of_expression(&self.text, &self.expression)
    }
}

/// An audience and what it said from the horizon on, oldest first, the present last.
#[derive(Clone, Debug)]
pub struct Audience {
    row: Arc<AudienceRow>,
    revisions: Vec<AudienceRevision>,
}

impl Audience {
    pub fn row(&self) -> &Arc<AudienceRow> {
        &self.row
    }

    /// What it stands for.
    pub fn expression(&self) -> &Expression {
        &self.present().expression
    }

    /// Not empty.
    pub fn revisions(&self) -> &[AudienceRevision] {
        &self.revisions
    }

    fn present(&self) -> &AudienceRevision {
        self.revisions.last().expect("an audience has a revision")
    }

    pub(crate) fn records(&self) -> Vec<AudienceRecord> {
        let record =
            |of: &AudienceRevision| AudienceRecord { from: of.from, expression: of.text.clone() };
        self.revisions.iter().map(record).collect()
    }

    /// Since when each revision but the first has superseded another.
    fn edits(&self) -> impl Iterator<Item = (Seq, AudienceId)> {
        self.revisions[1..].iter().map(|revision| (revision.from, self.row.id))
    }
}

/// Reads what an audience says.
///
/// # Errors
/// If it does not fit the schema.
pub(crate) fn read(
    id: AudienceId,
    text: &str,
    schema: &dyn Schema,
) -> Result<Expression, Diagnostics> {
    Expression::parse_audience(id, text, schema, &Limits::STORED)
}

/// All audiences of an app. Shares its parts with its clones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audiences {
    rows: PMap<AudienceId, Arc<Audience>>,
    names: Arc<BTreeMap<Arc<str>, AudienceId>>,
    /// See [`Audience::edits`]: what a purge looks at.
    edits: Arc<BTreeSet<(Seq, AudienceId)>>,
    /// Sorted lists, none of them empty.
    users: PMap<AudienceId, Arc<Vec<MessageId>>>,
    /// Entries of all of those lists.
    uses: usize,
    /// Of the audiences.
    usage: Usage,
}

impl Audiences {
    pub(crate) fn get(&self, id: AudienceId) -> Option<&Arc<Audience>> {
        self.rows.get(id)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Audience>> {
        self.rows.get(*self.names.get(name)?)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.keys()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Audience>> {
        self.rows.values()
    }

    /// In a stable order, which is not that of the ids.
    pub(crate) fn iter_after(
        &self,
        after: Option<AudienceId>,
    ) -> impl Iterator<Item = &Arc<Audience>> {
        self.rows.iter_after(after).map(|(_, audience)| audience)
    }

    /// The live messages that use it, sorted.
    pub(crate) fn users(&self, id: AudienceId) -> &[MessageId] {
        self.users.get(id).map_or(&[], |list| list)
    }

    /// The audiences that use it, however indirectly, each after all of them that it uses itself.
    pub(crate) fn nested_users(&self, id: AudienceId) -> Vec<AudienceId> {
        let mut found: Vec<(usize, AudienceId)> = self
            .iter()
            .filter(|audience| audience.expression().audiences().binary_search(&id).is_ok())
            .map(|audience| (audience.expression().audience_depth(), audience.row.id))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// The audience says this from `row.from` on.
    pub(crate) fn put(&mut self, row: Arc<AudienceRow>, expression: Expression) {
        let before = self.rows.get(row.id).cloned();
        let mut revisions = before.as_ref().map_or_else(Vec::new, |of| of.revisions.clone());
        let (from, text) = (row.from, row.expression.clone());
        revisions.push(AudienceRevision { from, text, expression });
        self.replace(before, Some(Audience { row, revisions }));
    }

    /// The same audience under another name.
    pub(crate) fn rename(&mut self, row: Arc<AudienceRow>) {
        if let Some(before) = self.rows.get(row.id).cloned() {
            let revisions = before.revisions.clone();
            self.replace(Some(before), Some(Audience { row, revisions }));
        }
    }

    /// What it says stands for something else, because of an audience that it uses.
    pub(crate) fn put_expression(&mut self, id: AudienceId, expression: Expression) {
        if let Some(before) = self.rows.get(id).cloned() {
            let mut after = Audience::clone(&before);
            after.revisions.last_mut().expect("an audience has a revision").expression = expression;
            self.replace(Some(before), Some(after));
        }
    }

    pub(crate) fn remove(&mut self, id: AudienceId) {
        self.replace(self.rows.get(id).cloned(), None);
    }

    /// Brings everything that is derived from an audience after it.
    fn replace(&mut self, before: Option<Arc<Audience>>, after: Option<Audience>) {
        if let Some(before) = &before {
            self.usage.subtract(&usage::of_audience(before));
            Arc::make_mut(&mut self.names).remove(&before.row.name);
            self.rows.remove(before.row.id);
        }
        let edits = |of: Option<&Audience>| of.map_or_else(Vec::new, |of| of.edits().collect());
        let (old, new) = (edits(before.as_deref()), edits(after.as_ref()));
        if old != new {
            let edits = Arc::make_mut(&mut self.edits);
            edits.retain(|edit| !old.contains(edit));
            edits.extend(new);
        }
        if let Some(after) = after {
            self.usage.add(&usage::of_audience(&after));
            Arc::make_mut(&mut self.names).insert(after.row.name.clone(), after.row.id);
            self.rows.insert(after.row.id, Arc::new(after));
        }
    }

    /// A message used these, and uses those. Both sorted.
    pub(crate) fn moved(&mut self, id: MessageId, before: &[AudienceId], after: &[AudienceId]) {
        for audience in before.iter().filter(|audience| after.binary_search(audience).is_err()) {
            let Some(list) = self.users.get_mut(*audience) else { continue };
            let list = Arc::make_mut(list);
            if let Ok(at) = list.binary_search(&id) {
                list.remove(at);
                self.uses -= 1;
            }
            if list.is_empty() {
                self.users.remove(*audience);
            }
        }
        for audience in after.iter().filter(|audience| before.binary_search(audience).is_err()) {
            if self.users.get(*audience).is_none() {
                self.users.insert(*audience, Arc::default());
            }
            let list = self.users.get_mut(*audience).expect("it was put there");
            if let Err(at) = list.binary_search(&id) {
                Arc::make_mut(list).insert(at, id);
                self.uses += 1;
            }
        }
    }

    /// Whether a purge to `horizon` would forget something.
    pub(crate) fn reach(&self, horizon: Seq) -> bool {
        self.edits.first().is_some_and(|(from, _)| *from <= horizon)
    }

    /// Forgets what was said before the revisions that are in force at `horizon`.
    pub(crate) fn purge(&mut self, horizon: Seq) {
        let reached: BTreeSet<AudienceId> =
            self.edits.iter().take_while(|(from, _)| *from <= horizon).map(|(_, id)| *id).collect();
        for id in reached {
            let Some(before) = self.rows.get(id).cloned() else { continue };
            let first = before.revisions.partition_point(|revision| revision.from <= horizon);
            let revisions = before.revisions[first.saturating_sub(1)..].to_vec();
            let row = before.row.clone();
            self.replace(Some(before), Some(Audience { row, revisions }));
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let mut usage = self.usage;
        usage.indexes += usage::of_uses(self.users.len(), self.uses);
        usage
    }

    /// What [`Audiences::usage`] has to be: walks over everything.
    pub(crate) fn surveyed(&self) -> Usage {
        let mut usage = Usage::ZERO;
        self.iter().for_each(|audience| usage.add(&usage::of_audience(audience)));
        let uses = self.users.values().map(|list| list.len()).sum();
        usage.indexes += usage::of_uses(self.users.values().count(), uses);
        usage
    }
}

/// Puts stored texts in an order in which each comes after those that it refers to. What is part of a cycle comes
/// last, and cannot be read.
///
/// # Errors
/// The first text that does not fit the schema, whatever audiences it names.
pub(crate) fn in_order(
    texts: &BTreeMap<AudienceId, Arc<str>>,
    schema: &dyn Schema,
) -> Result<Vec<AudienceId>, (AudienceId, Diagnostics)> {
    let mut waits_for: BTreeMap<AudienceId, usize> = BTreeMap::new();
    let mut named_by: BTreeMap<AudienceId, Vec<AudienceId>> = BTreeMap::new();
    for (id, text) in texts {
        let names = NamesOnly::of(schema);
        Expression::parse(text, &names, &Limits::STORED).map_err(|faults| (*id, faults))?;
        let named = names.asked.into_inner();
        let known = named.into_iter().filter(|other| texts.contains_key(other));
        let count = known.map(|other| named_by.entry(other).or_default().push(*id)).count();
        waits_for.insert(*id, count);
    }
    let is_free = |(id, count): (&AudienceId, &usize)| (*count == 0).then_some(*id);
    let mut order: Vec<AudienceId> = waits_for.iter().filter_map(is_free).collect();
    let mut done = 0;
    while let Some(id) = order.get(done) {
        for other in named_by.remove(id).unwrap_or_default() {
            let count = waits_for.get_mut(&other).expect("each text was counted");
            *count -= 1;
            if *count == 0 {
                order.push(other);
            }
        }
        done += 1;
    }
    order.extend(waits_for.into_iter().filter(|(_, count)| *count > 0).map(|(id, _)| id));
    Ok(order)
}

/// Knows that every audience is there, and not what it says: for what is printed and never evaluated, or to learn which
/// audiences a text names.
pub(crate) struct NamesOnly<'a> {
    schema: &'a dyn Schema,
    asked: RefCell<BTreeSet<AudienceId>>,
    anyone: Expression,
}

impl<'a> NamesOnly<'a> {
    pub(crate) fn of(schema: &'a dyn Schema) -> NamesOnly<'a> {
        NamesOnly { schema, asked: RefCell::default(), anyone: Expression::everyone() }
    }
}

impl Schema for NamesOnly<'_> {
    fn attribute(&self, name: &str) -> Option<(AttributeId, Type)> {
        self.schema.attribute(name)
    }

    fn attribute_name(&self, id: AttributeId) -> Option<(&str, Type)> {
        self.schema.attribute_name(id)
    }

    fn group(&self, name: &str) -> Option<GroupId> {
        self.schema.group(name)
    }

    fn group_name(&self, id: GroupId) -> Option<&str> {
        self.schema.group_name(id)
    }

    fn visit_attribute_names(&self, visit: &mut dyn FnMut(&str)) {
        self.schema.visit_attribute_names(visit);
    }

    fn visit_group_names(&self, visit: &mut dyn FnMut(&str)) {
        self.schema.visit_group_names(visit);
    }

    fn audience_expression(&self, id: AudienceId) -> Option<&Expression> {
        self.asked.borrow_mut().insert(id);
        Some(&self.anyone)
    }
}

#[cfg(test)]
mod tests;
