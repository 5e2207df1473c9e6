//! What a check gathers: faults, and near names for what is unknown.
//!
//! A fault never stops the check: the condition becomes a placeholder, the tree is thrown away at the
//! end, and the writer learns of all faults at once.

use std::collections::HashMap;
use std::ops::Range;

use crate::diagnostic::{DIAGNOSTICS_MAX, Diagnostic, DiagnosticKind, Diagnostics};
use crate::{NAME_BYTES_MAX, Schema};

/// Different unknown names that get a suggestion; each costs a look at all declared names.
const SUGGESTED_MAX: usize = 8;

/// Declared names looked at for one suggestion, so that a million groups cannot stall a check.
const LOOKED_AT_MAX: usize = 100_000;

/// The faults of one text.
#[derive(Debug)]
pub(crate) struct Faults<'a> {
    text: &'a str,
    found: Vec<Found>,
}

/// A fault before its line and column are known: counting them for each would cost as many passes
/// over the text.
#[derive(Debug)]
struct Found {
    kind: DiagnosticKind,
    span: Range<usize>,
    message: String,
    suggestion: Option<String>,
}

impl<'a> Faults<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, found: Vec::new() }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= DIAGNOSTICS_MAX
    }

    pub(crate) fn add(
        &mut self,
        kind: DiagnosticKind,
        span: Range<usize>,
        message: String,
        suggestion: Option<String>,
    ) {
        if !self.is_full() {
            self.found.push(Found { kind, span, message, suggestion });
        }
    }

    /// Also when there are enough already: what ended the reading must be told.
    pub(crate) fn add_always(&mut self, kind: DiagnosticKind, span: Range<usize>, message: String) {
        self.found.truncate(DIAGNOSTICS_MAX - 1);
        self.add(kind, span, message, None);
    }

    pub(crate) fn finish(self) -> Result<(), Diagnostics> {
        if self.found.is_empty() {
            return Ok(());
        }
        let diagnose = |found: Found| {
            Diagnostic::new(found.kind, self.text, found.span, found.message)
                .suggest(found.suggestion)
        };
        Err(Diagnostics::new(self.found.into_iter().map(diagnose).collect()))
    }
}

/// What sort of name is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NameKind {
    Attribute,
    Group,
    Audience,
}

/// Near names found so far, for each unknown one.
#[derive(Debug, Default)]
pub(crate) struct Names {
    near: HashMap<(NameKind, String), Option<String>>,
}

impl Names {
    /// The declared name with the smallest edit distance, if that is small for the name's length.
    pub(crate) fn near(
        &mut self,
        schema: &dyn Schema,
        kind: NameKind,
        name: &str,
    ) -> Option<String> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let key = (kind, name.to_owned());
        if let Some(known) = self.near.get(&key) {
            return known.clone();
        }
        if self.near.len() == SUGGESTED_MAX {
            return None;
        }
        let mut nearest = Nearest::new(name);
        let mut looked_at = 0;
        let mut visit = |candidate: &str| {
            looked_at += 1;
            if looked_at <= LOOKED_AT_MAX {
                nearest.offer(candidate);
            }
        };
        match kind {
            NameKind::Attribute => schema.visit_attribute_names(&mut visit),
            NameKind::Group => schema.visit_group_names(&mut visit),
            NameKind::Audience => schema.visit_audience_names(&mut visit),
        }
        let nearest = nearest.finish();
        self.near.insert(key, nearest.clone());
        nearest
    }
}

/// The word of `words` that is near to `name`.
pub(crate) fn near_word(name: &str, words: &[&str]) -> Option<String> {
    if name.len() < 2 {
        return None;
    }
    let mut nearest = Nearest::new(name);
    words.iter().for_each(|word| nearest.offer(word));
    nearest.finish()
}

struct Nearest<'a> {
    name: &'a str,
    best: Option<(usize, String)>,
}

impl<'a> Nearest<'a> {
    fn new(name: &'a str) -> Self {
        Self { name, best: None }
    }

    fn offer(&mut self, candidate: &str) {
        let allowed = (self.name.len() / 3).clamp(1, 3);
        let Some(distance) = edit_distance(self.name, candidate, allowed) else { return };
        // Names come in any order; the smaller one of two equally near makes the answer stable.
        let better = self
            .best
            .as_ref()
            .is_none_or(|(least, best)| (distance, candidate) < (*least, best.as_str()));
        if better {
            self.best = Some((distance, candidate.to_owned()));
        }
    }

    fn finish(self) -> Option<String> {
        self.best.map(|(_, name)| name)
    }
}

/// Edits (insert, delete, replace, swap of two neighbours) between two names, without regard to
/// case; `None` above `allowed` or if a name is longer than a name can be.
fn edit_distance(a: &str, b: &str, allowed: usize) -> Option<usize> {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > allowed || a.len().max(b.len()) > NAME_BYTES_MAX {
        return None;
    }
    let mut above = [0; NAME_BYTES_MAX + 1];
    let mut row: [usize; NAME_BYTES_MAX + 1] = std::array::from_fn(|index| index);
    for i in 1..=a.len() {
        let mut next = [0; NAME_BYTES_MAX + 1];
        next[0] = i;
        let mut least = i;
        for j in 1..=b.len() {
            let same = |i: usize, j: usize| a[i - 1].eq_ignore_ascii_case(&b[j - 1]);
            let mut distance = (row[j] + 1).min(next[j - 1] + 1);
            distance = distance.min(row[j - 1] + usize::from(!same(i, j)));
            if i > 1 && j > 1 && same(i, j - 1) && same(i - 1, j) {
                distance = distance.min(above[j - 2] + 1);
            }
            next[j] = distance;
            least = least.min(distance);
        }
        if least > allowed {
            return None;
        }
        above = row;
        row = next;
    }
    Some(row[b.len()]).filter(|&distance| distance <= allowed)
}
