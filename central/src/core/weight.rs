//! How large a change becomes on the wire, without encoding it: batches are cut by this.
//!
//! An upper bound, within a few tens of bytes of the truth: ids and seqs count as 9 bytes, lengths as 5.

use carillon_expr::Value;
use carillon_world::{Change, DeviceRow, MessageRow};

const FIXED: usize = 96;

pub(crate) fn of_change(change: &Change) -> usize {
    FIXED
        + match change {
            Change::App(row) => row.name.len() + row.publishable_key.len(),
            Change::Attribute(row) => row.name.len(),
            Change::Group(row) => row.name.len(),
            Change::Audience(row) => row.name.len() + row.expression.len(),
            Change::Device(row) => of_device(row),
            Change::Message(row) => of_message(row),
            Change::AttributeGone { .. }
            | Change::GroupGone { .. }
            | Change::AudienceGone { .. }
            | Change::DeviceGone { .. }
            | Change::MessageState { .. }
            | Change::Purge { .. }
            | Change::Clock { .. } => 0,
            Change::Seen { devices, .. } => devices.len() * 9,
        }
}

/// How many rows of the store it writes.
pub(crate) fn rows_of_change(change: &Change) -> usize {
    match change {
        Change::Seen { devices, .. } => devices.len(),
        _ => 1,
    }
}

/// With what the store alone keeps, since a batch has to fit its statements too.
fn of_device(row: &DeviceRow) -> usize {
    let text = |value: &Value| match value {
        Value::String(text) => text.len(),
        Value::Version(_) => 20,
        Value::Number(_) | Value::Bool(_) | Value::Date(_) | Value::Time(_) => 9,
        Value::Point(_) => 10,
        Value::Set(set) => set.entries().iter().map(|entry| 5 + entry.len()).sum(),
    };
    let private = row.private.as_deref();
    row.user.as_ref().map_or(0, |user| user.len())
        + row.attributes.iter().map(|(_, value)| 16 + text(value)).sum::<usize>()
        + row.groups.len() * 9
        + private.map_or(0, |p| 32 + p.tokens.iter().map(|t| 16 + t.token.len()).sum::<usize>())
}

fn of_message(row: &MessageRow) -> usize {
    let variant = |v: &carillon_world::Variant| {
        32 + v.wire.len() + v.selector.as_ref().map_or(0, |s| s.len())
    };
    row.to.len()
        + row.collapse_key.as_ref().map_or(0, |k| k.len())
        + row.variants.iter().map(variant).sum::<usize>()
}
