//! What may come next in an expression that is being written.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use axum::extract::State;
use carillon_expr::{
    AttributeId, AudienceId, Completion, Expression, GroupId, Profile, Schema, SuggestionKind,
    Type, Value,
};
use carillon_world::{App, AppId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, Refusal, json};
use super::extract::{Caller, Params, RawBody};
use super::{Api, Asked, app_of};
use crate::core::auth::Action;
use crate::core::problem;

/// Devices whose values are counted for one answer, and values that are: about 0.2 s.
const DEVICES_COUNTED_MAX: u64 = 1_000_000;
const VALUES_COUNTED_MAX: u64 = 2_000_000;
/// Values that are told apart; those that are met after so many others are not shown.
const VALUES_APART_MAX: usize = 10_000;

/// A text and the place of the cursor in it; at its end if that is not said.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Typed {
    text: String,
    /// In bytes of the text's UTF-8.
    cursor: Option<usize>,
    /// In UTF-16 code units, as browsers count, in place of `cursor`.
    cursor_utf16: Option<usize>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompletionBody {
    /// What a suggestion takes the place of: the word that has been begun, in bytes.
    span: Span,
    /// The same in UTF-16 code units.
    span_utf16: Span,
    /// By kind, then by how many devices have it, then by name; at most 200.
    suggestions: Vec<SuggestionBody>,
    /// Devices whose values were counted, at most a million; 0 if no value of a device may come here.
    counted: u64,
    /// Devices of the app.
    of: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Span {
    start: usize,
    end: usize,
}

impl From<std::ops::Range<usize>> for Span {
    fn from(range: std::ops::Range<usize>) -> Span {
        Span { start: range.start, end: range.end }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SuggestionBody {
    text: String,
    #[schema(value_type = KindName)]
    kind: SuggestionKind,
    /// The type of an attribute.
    #[schema(value_type = Option<String>)]
    detail: Option<Type>,
    /// Of the devices that were counted, those that have the value.
    count: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "it stands for another crate's type in the document")]
pub(crate) enum KindName {
    Value,
    Operator,
    Attribute,
    Group,
    Audience,
    Function,
    Word,
}

/// Says what may come at the cursor: names, operators, and values that devices have, with how many have each. What
/// stands after the cursor is not looked at.
#[utoipa::path(post, path = "/v1/apps/{app}/expression:complete", tag = "messages", params(("app" = String, Path)),
    request_body = Typed, responses(
    (status = 200, body = CompletionBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn complete(
    State(api): State<Api>,
    caller: Caller,
    Params(app): Params<String>,
    input: RawBody,
) -> Answered {
    let app = caller.may_in(Action::PreviewAudience, &app)?;
    let input: Typed = input.json().await?;
    let body = api.ponder(move |asked| suggest(asked, app, &input)).await?;
    Ok(json(StatusCode::OK, &body))
}

fn suggest(asked: &Asked<'_>, app: AppId, input: &Typed) -> Result<CompletionBody, Refusal> {
    let (app, limits) = (app_of(asked.world, app)?, asked.limits());
    let cursor = match (input.cursor, input.cursor_utf16) {
        (Some(_), Some(_)) => {
            return Err(problem::invalid("give one of `cursor` and `cursor_utf16`").into());
        }
        (cursor, None) => cursor.unwrap_or(input.text.len()),
        (None, Some(units)) => byte_of(&input.text, units),
    };
    let counted = Counted { app, devices: Cell::new(0) };
    let completion = carillon_expr::complete(&input.text, cursor, &counted, limits);
    let Completion { span, span_utf16, suggestions } = completion;
    let suggestions = suggestions.into_iter().map(|suggestion| SuggestionBody {
        text: suggestion.text,
        kind: suggestion.kind,
        detail: suggestion.detail,
        count: suggestion.count,
    });
    Ok(CompletionBody {
        span: span.into(),
        span_utf16: span_utf16.into(),
        suggestions: suggestions.collect(),
        counted: counted.devices.get(),
        of: app.device_count() as u64,
    })
}

/// The byte before which so many UTF-16 code units stand; the end if there are fewer. Within a pair, its beginning.
fn byte_of(text: &str, units: usize) -> usize {
    let mut left = units;
    for (at, character) in text.char_indices() {
        match left.checked_sub(character.len_utf16()) {
            Some(rest) => left = rest,
            None => return at,
        }
    }
    text.len()
}

/// The app's names, and its values by how many devices have each.
struct Counted<'a> {
    app: &'a App,
    devices: Cell<u64>,
}

impl Schema for Counted<'_> {
    fn attribute(&self, name: &str) -> Option<(AttributeId, Type)> {
        Schema::attribute(self.app, name)
    }

    fn attribute_name(&self, id: AttributeId) -> Option<(&str, Type)> {
        self.app.attribute_name(id)
    }

    fn group(&self, name: &str) -> Option<GroupId> {
        Schema::group(self.app, name)
    }

    fn group_name(&self, id: GroupId) -> Option<&str> {
        self.app.group_name(id)
    }

    fn visit_attribute_names(&self, visit: &mut dyn FnMut(&str)) {
        self.app.visit_attribute_names(visit);
    }

    fn visit_group_names(&self, visit: &mut dyn FnMut(&str)) {
        self.app.visit_group_names(visit);
    }

    fn audience(&self, name: &str) -> Option<AudienceId> {
        Schema::audience(self.app, name)
    }

    fn audience_name(&self, id: AudienceId) -> Option<&str> {
        self.app.audience_name(id)
    }

    fn audience_expression(&self, id: AudienceId) -> Option<&Expression> {
        self.app.audience_expression(id)
    }

    fn visit_audience_names(&self, visit: &mut dyn FnMut(&str)) {
        self.app.visit_audience_names(visit);
    }

    fn visit_values(&self, id: AttributeId, visit: &mut dyn FnMut(&Value, u64)) {
        let mut whole: Tally<&Value> = Tally::default();
        let mut entries: Tally<&Arc<str>> = Tally::default();
        let mut devices = 0;
        for row in self.app.devices() {
            if devices >= DEVICES_COUNTED_MAX || whole.seen + entries.seen >= VALUES_COUNTED_MAX {
                break;
            }
            devices += 1;
            match Profile::attribute(&**row, id) {
                Some(Value::Set(set)) => set.entries().iter().for_each(|entry| entries.add(entry)),
                Some(value) => whole.add(value),
                None => {}
            }
        }
        self.devices.set(devices);
        whole.into_most_frequent().into_iter().for_each(|(value, count)| visit(value, count));
        for (entry, count) in entries.into_most_frequent() {
            visit(&Value::Set(std::iter::once(entry.clone()).collect()), count);
        }
    }
}

/// How often each of the first [`VALUES_APART_MAX`] things came.
#[derive(Debug)]
struct Tally<K> {
    counts: HashMap<K, u64>,
    seen: u64,
}

impl<K> Default for Tally<K> {
    fn default() -> Tally<K> {
        Tally { counts: HashMap::new(), seen: 0 }
    }
}

impl<K: Hash + Ord> Tally<K> {
    fn add(&mut self, key: K) {
        self.seen += 1;
        let room = self.counts.len() < VALUES_APART_MAX;
        match self.counts.get_mut(&key) {
            Some(count) => *count += 1,
            None if room => {
                self.counts.insert(key, 1);
            }
            None => {}
        }
    }

    fn into_most_frequent(self) -> Vec<(K, u64)> {
        let mut all: Vec<(K, u64)> = self.counts.into_iter().collect();
        all.sort_unstable_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf_16_places_are_those_of_bytes_and_never_within_a_character() {
        let text = "é😀x";
        let places = [0, 1, 2, 3, 4, 5, usize::MAX].map(|units| byte_of(text, units));
        assert_eq!(places, [0, 2, 2, 6, 7, 7, 7]);
    }

    #[test]
    fn the_most_frequent_come_first_and_only_so_many_are_told_apart() {
        let mut tally = Tally::default();
        for n in 0..VALUES_APART_MAX as u64 + 100 {
            tally.add(n);
        }
        for n in [7, 7, 3, VALUES_APART_MAX as u64] {
            tally.add(n);
        }
        assert_eq!(tally.seen, VALUES_APART_MAX as u64 + 104);
        let all = tally.into_most_frequent();
        assert_eq!((&all[..3], all.len()), (&[(7, 3), (3, 2), (0, 1)][..], VALUES_APART_MAX));
    }
}
