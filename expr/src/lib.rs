//! The recipient expression: the small language in which an admin says who gets a message.
//!
//! `#vip and country in ("KE", "SE") and app_version >= v2.3 and not #staff`
//!
//! The language stands apart because several tiers must agree on it to the last bit: central checks
//! and stores what an admin wrote, every edge evaluates it for every poll. This crate therefore
//! does no I/O, knows no other crate of ours, and asks for names and values through the two traits
//! of [`schema`](Schema).
//!
//! `docs/expressions.md` is the language; this is how it is run:
//!
//! - `parse` makes a tree of a text, which `print`, `sql` and `explain` walk;
//! - `compile` makes of the tree, with the audiences that it names, a graph in which every part stands
//!   once, and of that the jumps that `eval` runs for one device; `sets` and `terms` walk the graph.
//!
//! What always holds:
//!
//! - An [`Expression`] is checked: its names are resolved to ids, its literals have the types of
//!   their attributes, its size and depth are within limits. Only parsing makes one.
//! - No text can panic the parser, overflow the stack (nothing recurses) or take more than linear time.
//! - Parsing what an expression prints, by names or by ids, gives that expression again.
//! - Something that a device lacks makes a test *unknown*, never false; only what is *true* makes a
//!   recipient.
//! - Evaluation for one device, sets of devices, index terms and SQL agree on every input.

mod calendar;
mod ids;
mod point;
mod schema;
mod steps;
mod value;

mod diagnostic;
mod expression;
mod fold;
mod glob;
mod tree;

mod check;
mod parse;
mod print;

mod compile;
mod eval;
mod sets;
mod sql;
mod terms;

mod complete;
mod explain;

#[doc(hidden)]
pub use ids::serde_support as __serde;

pub use calendar::{Date, ParseTimeError, Time};
pub use complete::{Completion, Suggestion, SuggestionKind, complete};
pub use diagnostic::{Diagnostic, DiagnosticKind, Diagnostics};
pub use eval::{Truth, sample_hash_of};
pub use explain::{Explanation, Part, Saw};
pub use expression::Expression;
pub use ids::{AttributeId, AudienceId, GroupId, ParseIdError, parse_id};
pub use parse::Limits;
pub use point::Point;
/// What the columns of [`Columns`] are made of, so that callers need no version of their own.
pub use roaring::RoaringBitmap;
pub use schema::{
    Context, NAME_BYTES_MAX, Profile, Schema, is_reserved, valid_attribute_name, valid_group_name,
};
pub use sets::{Columns, Difference};
pub use sql::{Dialect, SqlError};
pub use terms::{Term, Terms, visit_terms};
pub use value::{
    Number, ParseTypeError, ParseVersionError, Set, Type, VERSION_COMPONENTS_MAX, Value, Version,
};

#[cfg(test)]
mod tests;
