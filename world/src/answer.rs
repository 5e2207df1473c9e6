//! What a device should have: deltas, inventories and fetches, from positions that may lie in the past.
//!
//! H(x) is the set of (id, tag) that a device had at seq x. A cursor says how far a client's own store has come:
//! `held` is the world of the last answer it stored, `floor` the newest position that any answer to it reflected.
//! Answers are computed from `held`, never from `floor`; a world below `floor` answers nobody. Behind outranks
//! reset, reset outranks past. Each function looks at one world (P2).
//!
//! A volatile message is judged by the world's clock, and by when the device was seen as the world knows it; what it was
//! at `held` the world cannot tell any more. A digest in the cursor tells: `volatile.rs` has the reasoning.

mod stored;
mod volatile;

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::message::Message;
use crate::pmap::mix;
use crate::{DeviceRow, Judgement, Lineage, MessageId, Millis, Position, Seq, Tag, World};

pub use stored::stored;

/// How far a client's store of messages has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The world of the last answer that the client has stored; `None` for a new store.
    pub held: Option<Position>,
    /// The newest position that any answer to it reflected.
    pub floor: Option<Position>,
    /// It came with news, or with whatever else leaves open what the client has stored, and nobody has confirmed its
    /// arrival yet: an inventory that replaces what it held, or a profile that changed, after which no position from
    /// before can be judged.
    pub fresh: bool,
    /// A digest of H(held), where it is known.
    pub digest: Option<u64>,
    /// A digest of what was volatile in H(held), where it is known.
    pub volatile: Option<u64>,
}

impl Cursor {
    pub const EMPTY: Cursor =
        Cursor { held: None, floor: None, fresh: false, digest: None, volatile: None };

    fn judge(&self, world: &World) -> Judgement {
        let judge =
            |position: Option<Position>| position.map_or(Judgement::Past, |p| world.judge(p));
        judge(self.held).max(judge(self.floor))
    }
}

/// Bounds of one answer.
#[derive(Clone, Copy, Debug)]
pub struct AnswerLimits {
    /// Bytes of bodies; one body always goes, whatever its size.
    pub bytes_max: usize,
    /// Changes that `held` may lag before a bookmark moves it.
    pub bookmark_changes: u64,
}

impl Default for AnswerLimits {
    fn default() -> AnswerLimits {
        AnswerLimits { bytes_max: 256 * 1024, bookmark_changes: 1_000 }
    }
}

/// An answer to store whole, with its cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Wire objects, written as they are.
    pub messages: Vec<Bytes>,
    pub gone: Vec<MessageId>,
    /// All of H(w), sorted by id: whatever is not in it goes, whatever is missing is fetched.
    pub inventory: Option<Vec<(MessageId, Tag)>>,
    pub cursor: Cursor,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    News(News),
    /// This world lags behind what the client has seen.
    Behind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// An id in neither list did not fit and is asked again.
    Bodies {
        messages: Vec<Bytes>,
        gone: Vec<MessageId>,
        cursor: Cursor,
    },
    Behind,
    /// The cursor is cut off.
    Reset,
}

/// One message's share of the digest of a set; shares add up, so a delta moves the digest without the whole set.
fn share(id: MessageId, tag: Tag) -> u64 {
    mix(id.get() ^ mix(tag.get()))
}

/// What `device` should get that presents `cursor`.
pub fn poll(world: &World, device: &DeviceRow, cursor: &Cursor, limits: &AnswerLimits) -> Outcome {
    poll_by(world, device, cursor, limits, INDEX_WORTH)
}

/// From so many changes on, the index is asked instead: its candidates are most often fewer.
const INDEX_WORTH: usize = 256;

fn poll_by(
    world: &World,
    device: &DeviceRow,
    cursor: &Cursor,
    limits: &AnswerLimits,
    index_worth: usize,
) -> Outcome {
    let judgement = cursor.judge(world);
    if judgement == Judgement::Behind {
        return Outcome::Behind;
    }
    let Some(app) = world.app(device.app) else { return Outcome::Nothing };
    let held = cursor.held.filter(|_| judgement == Judgement::Past).map(|position| position.seq);
    let Some(held) = held else { return inventory(world, app, device, cursor, Seq::ZERO, limits) };
    if held < world.horizon() {
        return inventory(world, app, device, cursor, held, limits);
    }
    if device.p > held {
        return unaltered(world, app, device, cursor)
            .unwrap_or_else(|| inventory(world, app, device, cursor, held, limits));
    }
    delta(world, app, device, cursor, held, limits, index_worth)
}

/// A profile change that altered nothing: by its digest the client holds exactly H(w), and gets a bookmark.
fn unaltered(world: &World, app: &App, device: &DeviceRow, cursor: &Cursor) -> Option<Outcome> {
    let digest = cursor.digest?;
    let mut sums = Digests::default();
    for message in candidates(app, device) {
        if let Some(tag) = message.present().addresses(device, world.clock()) {
            sums.add(message, tag);
        }
    }
    (sums.all == digest).then(|| {
        let mut news = bookmark(world, Some(sums.all), sums.volatile);
        // Of the position presented nothing can be said any more; of this one it can.
        news.cursor.fresh = true;
        Outcome::News(news)
    })
}

/// The digests of H(w) and of what is volatile in it.
#[derive(Debug, Default)]
struct Digests {
    all: u64,
    volatile: u64,
}

impl Digests {
    fn add(&mut self, message: &Message, tag: Tag) {
        let share = share(message.row().id, tag);
        self.all = self.all.wrapping_add(share);
        if message.present().is_volatile() {
            self.volatile = self.volatile.wrapping_add(share);
        }
    }
}

fn bookmark(world: &World, digest: Option<u64>, volatile: u64) -> News {
    let at = Some(world.position());
    let volatile = Some(volatile);
    let cursor = Cursor { held: at, floor: at, fresh: false, digest, volatile };
    News { messages: Vec::new(), gone: Vec::new(), inventory: None, cursor }
}

fn candidates<'a>(app: &'a App, device: &DeviceRow) -> impl Iterator<Item = &'a Message> {
    app.index().candidates(device).into_iter().filter_map(|id| app.message(id))
}

fn wire(message: &Message, device: &DeviceRow, clock: Millis) -> Option<Bytes> {
    let variant = message.present().variant(device, clock)?;
    Some(message.row().variants[variant].wire.clone())
}

fn inventory(
    world: &World,
    app: &App,
    device: &DeviceRow,
    cursor: &Cursor,
    held: Seq,
    limits: &AnswerLimits,
) -> Outcome {
    let mut all = Vec::new();
    let mut changed = Vec::new();
    let mut sums = Digests::default();
    for message in candidates(app, device) {
        let Some(tag) = message.present().addresses(device, world.clock()) else { continue };
        sums.add(message, tag);
        all.push((message.row().id, tag));
        if message.changed() > held {
            changed.push(message);
        }
    }
    changed.sort_unstable_by_key(|message| message.changed());
    let mut messages = Vec::new();
    let mut bytes = 0;
    for body in changed.into_iter().filter_map(|message| wire(message, device, world.clock())) {
        bytes += body.len();
        if bytes > limits.bytes_max && !messages.is_empty() {
            break;
        }
        messages.push(body);
    }
    let mut news = bookmark(world, Some(sums.all), sums.volatile);
    // An empty one takes away what the client had.
    news.cursor.fresh = !all.is_empty() || cursor.held.is_some();
    News { messages, inventory: Some(all), ..news }.into()
}

impl From<News> for Outcome {
    fn from(news: News) -> Outcome {
        Outcome::News(news)
    }
}

fn delta(
    world: &World,
    app: &App,
    device: &DeviceRow,
    cursor: &Cursor,
    held: Seq,
    limits: &AnswerLimits,
    index_worth: usize,
) -> Outcome {
    let changed = changed(app, device, held, index_worth);
    let clock = world.clock();
    let Some(past) = volatile::judge(app, device, clock, (held, cursor.volatile), &changed) else {
        return inventory(world, app, device, cursor, held, limits);
    };
    let mut news = bookmark(world, None, past.digest);
    let mut digest = cursor.digest;
    let mut bytes = 0;
    let mut touched = false;
    for message in changed.into_iter().chain(past.altered) {
        let id = message.row().id;
        let before = match past.held.iter().find(|(known, _)| *known == id) {
            Some((_, tag)) => *tag,
            None => message.at(held).and_then(|revision| revision.addresses(device, clock)),
        };
        let after = message.present().addresses(device, clock);
        touched |= message.revisions().iter().any(|revision| {
            revision.from() > held && volatile::may_have_addressed(revision, device, clock)
        });
        let (old, new) =
            (before.map_or(0, |tag| share(id, tag)), after.map_or(0, |tag| share(id, tag)));
        digest = digest.map(|sum| sum.wrapping_sub(old).wrapping_add(new));
        match wire(message, device, clock) {
            Some(body) => {
                bytes += body.len();
                news.messages.push(body);
            }
            None if before.is_some() => news.gone.push(id),
            None => {}
        }
    }
    if bytes > limits.bytes_max {
        return inventory(world, app, device, cursor, held, limits);
    }
    news.cursor.digest = digest;
    news.cursor.fresh = !news.messages.is_empty() || !news.gone.is_empty();
    let lag = world.seq().since(held);
    let quarter = world.seq().since(world.horizon()) / 4;
    let lags =
        lag > limits.bookmark_changes || (world.horizon() > Seq::ZERO && lag > quarter.max(1));
    if news.cursor.fresh || touched || cursor.fresh || lags {
        news.into()
    } else {
        Outcome::Nothing
    }
}

/// The messages that changed after `held`, or those of them that any retained revision may address to the device.
fn changed<'a>(
    app: &'a App,
    device: &DeviceRow,
    held: Seq,
    index_worth: usize,
) -> Vec<&'a Message> {
    let records = app.records();
    if records.count_after(held) == 0 {
        // The common case: nothing changed for anybody.
        Vec::new()
    } else if records.after(held).take(index_worth).count() < index_worth {
        let ids: BTreeSet<MessageId> = records.after(held).map(|(_, id)| id).collect();
        ids.into_iter().filter_map(|id| app.message(id)).collect()
    } else {
        candidates(app, device).filter(|message| message.changed() > held).collect()
    }
}

/// The digest of what is volatile in H(w): while it stays, no tick concerns the device.
pub fn volatile_digest(world: &World, device: &DeviceRow) -> u64 {
    let Some(app) = world.app(device.app) else { return 0 };
    let shares = app.volatile(device).filter_map(|message| {
        let tag = message.present().addresses(device, world.clock())?;
        Some(share(message.row().id, tag))
    });
    shares.fold(0, u64::wrapping_add)
}

/// Bodies by id, each judged again for this device.
pub fn fetch(
    world: &World,
    device: &DeviceRow,
    cursor: &Cursor,
    ids: &[MessageId],
    limits: &AnswerLimits,
) -> Fetched {
    match cursor.judge(world) {
        Judgement::Behind => return Fetched::Behind,
        Judgement::Reset => return Fetched::Reset,
        Judgement::Past => {}
    }
    let app = world.app(device.app);
    let (mut messages, mut gone) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for id in ids {
        match app
            .and_then(|app| app.message(*id))
            .and_then(|message| wire(message, device, world.clock()))
        {
            None => gone.push(*id),
            Some(body) => {
                bytes += body.len();
                if bytes > limits.bytes_max && !messages.is_empty() {
                    break;
                }
                messages.push(body);
            }
        }
    }
    let here = world.position();
    // What came from another world need not be what stood in the inventory.
    let same = cursor.held == Some(here);
    let (digest, volatile) = (cursor.digest.filter(|_| same), cursor.volatile.filter(|_| same));
    let cursor = Cursor { floor: Some(here), digest, volatile, ..*cursor };
    Fetched::Bodies { messages, gone, cursor }
}

/// The cursor that goes with the answer to a write committed at `committed`: its floor raised, and nothing else.
/// `None` if the cursor presented is cut off, or this lineage cannot tell.
pub fn raise_floor(lineage: &Lineage, cursor: &Cursor, committed: Position) -> Option<Cursor> {
    let known = |position: Position| lineage.judge(Seq::new(u64::MAX), position) == Judgement::Past;
    if ![cursor.held, cursor.floor, Some(committed)].into_iter().flatten().all(known) {
        return None;
    }
    let floor = cursor.floor.filter(|floor| floor.seq >= committed.seq).unwrap_or(committed);
    Some(Cursor { floor: Some(floor), ..*cursor })
}

#[cfg(test)]
mod tests;
