//! Planted faults, so that a checker of the whole can be seen to find one. Off unless configured; one call in the poll
//! handler is all that the rest of the edge knows of it.
//!
//! Each fault is a function of the device and the world alone, so it survives restarts of the edge.

use carillon_world::{App, DeviceRow, Message, MessageId, MessageState, Millis, News, Tag};

/// A fault that every answer with news commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    #[default]
    None,
    /// Hides from each device the message with the lowest id that it should have.
    Drop,
    /// Leaks to each device the message with the lowest id that is not addressed to it.
    Extra,
    /// Never tells a device that the recalled message with the lowest id of those it had is gone.
    Stale,
}

/// Falsifies one answer.
pub(crate) fn plant(
    sabotage: Sabotage,
    app: &App,
    device: &DeviceRow,
    clock: Millis,
    news: &mut News,
) {
    match sabotage {
        Sabotage::None => {}
        Sabotage::Drop => hide(app, device, clock, news),
        Sabotage::Extra => leak(app, device, clock, news),
        Sabotage::Stale => keep(app, device, clock, news),
    }
}

fn hide(app: &App, device: &DeviceRow, clock: Millis, news: &mut News) {
    let addressed = app.messages_after(None).filter(|m| tag_now(m, device, clock).is_some());
    let Some(id) = addressed.map(|m| m.row().id).min() else { return };
    let quoted = format!("\"{id}\"");
    let names_it =
        |wire: &[u8]| wire.windows(quoted.len()).any(|window| window == quoted.as_bytes());
    news.messages.retain(|wire| !names_it(wire));
    if let Some(inventory) = &mut news.inventory {
        inventory.retain(|(listed, _)| *listed != id);
    }
}

fn leak(app: &App, device: &DeviceRow, clock: Millis, news: &mut News) {
    let strangers =
        app.messages_after(None).filter(|m| is_active(m) && tag_now(m, device, clock).is_none());
    let Some(message) = strangers.min_by_key(|m| m.row().id) else { return };
    let variant = message.row().variants.last().expect("a message has a variant");
    news.messages.push(variant.wire.clone());
    if let Some(inventory) = &mut news.inventory {
        inventory.push((message.row().id, variant.tag));
    }
}

fn keep(app: &App, device: &DeviceRow, clock: Millis, news: &mut News) {
    let had = |m: &&Message| {
        m.row().state == MessageState::Recalled && tag_before(m, device, clock).is_some()
    };
    let kept: Option<MessageId> = match &news.inventory {
        Some(_) => app.messages_after(None).filter(had).map(|m| m.row().id).min(),
        None => {
            news.gone.iter().filter(|id| app.message(**id).as_ref().is_some_and(had)).min().copied()
        }
    };
    let Some(id) = kept else { return };
    news.gone.retain(|gone| *gone != id);
    let tag = app.message(id).and_then(|m| tag_before(m, device, clock));
    if let (Some(inventory), Some(tag)) = (&mut news.inventory, tag) {
        inventory.push((id, tag));
    }
}

fn is_active(message: &Message) -> bool {
    message.row().state == MessageState::Active
}

/// The tag with which the message is the device's, if it is.
fn tag_now(message: &Message, device: &DeviceRow, clock: Millis) -> Option<Tag> {
    message.revisions().last().and_then(|revision| revision.addresses(device, clock))
}

/// The tag with which it was the device's last.
fn tag_before(message: &Message, device: &DeviceRow, clock: Millis) -> Option<Tag> {
    message.revisions().iter().rev().find_map(|revision| revision.addresses(device, clock))
}
