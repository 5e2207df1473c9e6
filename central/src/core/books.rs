//! What is known of each device's own store of messages: how far it has come, and what the device did with each message.
//!
//! An edge reports that a device has stored everything up to a position. That is all it may say, and all that is needed:
//! what the device had there follows from the world. So a report may come twice or late, and one that is lost is made
//! good by the next one, which is judged as a whole: whatever is active and addressed at the newer position is marked
//! then. What both came and went between two reports is not counted, since nobody can say that it was ever there.
//!
//! A book is in RAM what it is in the store: a position, and 9 bytes for each message (see [`BookRow::marks`]). Marks are
//! only set, each counts once, and a mark of a message that the world has forgotten goes when its book is next written.
//! A book never outlives its device.

use std::collections::HashMap;
use std::sync::Arc;

use carillon_persist::BookRow;
use carillon_world::{
    AppId, DeviceId, DeviceRow, Message, MessageId, MessageState, PMap, Seq, World, stored,
};

/// Messages that one book has marks of: 144 KiB. Beyond it further ones are neither marked nor counted. A device holds
/// fewer by far.
const MARKS_MAX: usize = 16_384;

/// What is known of one device and one message. The bits of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Delivered = 1,
    Displayed = 2,
    Opened = 4,
    Dismissed = 8,
    Action = 16,
    /// It came after a recall of what was delivered to it, and does not hold it any more.
    Withdrawn = 32,
    /// It was delivered and is not held any more, but for another reason than a recall.
    Left = 64,
}

/// Marks by message, in rising order of their ids, which is the order of the entries.
type Marks = Vec<(MessageId, u8)>;

#[derive(Clone, Debug)]
struct Book {
    held: Seq,
    marks: Arc<[u8]>,
}

impl Book {
    fn marks(&self) -> Marks {
        let entry = |entry: &[u8]| {
            let id = u64::from_be_bytes(entry[..8].try_into().expect("an entry begins with an id"));
            (MessageId::new(id), entry[8])
        };
        self.marks.chunks_exact(BookRow::MARK_BYTES).map(entry).collect()
    }

    fn bits(&self, message: MessageId) -> u8 {
        let entries = self.marks.as_chunks::<{ BookRow::MARK_BYTES }>().0;
        let id = message.get().to_be_bytes();
        match entries.binary_search_by(|entry| entry[..8].cmp(&id[..])) {
            Ok(at) => entries[at][8],
            Err(_) => 0,
        }
    }
}

fn encoded(marks: &Marks) -> Arc<[u8]> {
    marks.iter().flat_map(|(id, bits)| id.get().to_be_bytes().into_iter().chain([*bits])).collect()
}

fn has(bits: u8, mark: Mark) -> bool {
    bits & mark as u8 != 0
}

/// Whether the device may still show it, by what is known.
fn is_out(bits: u8) -> bool {
    has(bits, Mark::Delivered) && !has(bits, Mark::Withdrawn) && !has(bits, Mark::Left)
}

/// The books of a shard. A clone is two pointers.
#[derive(Clone, Debug, Default)]
pub struct Books {
    apps: PMap<AppId, PMap<DeviceId, Book>>,
    /// How many books say of a message that it is out. Follows from the books.
    out: PMap<AppId, PMap<MessageId, u64>>,
}

impl Books {
    /// Of the rows of devices that `world` has.
    pub(crate) fn load(rows: Vec<BookRow>, world: &World) -> Books {
        let mut apps: HashMap<AppId, Vec<(DeviceId, Book)>> = HashMap::new();
        let mut out: HashMap<AppId, HashMap<MessageId, u64>> = HashMap::new();
        for BookRow { app, device, held, marks } in rows {
            let Some(known) = world.app(app).filter(|app| app.device(device).is_some()) else {
                continue;
            };
            let book = Book { held, marks };
            let counts = out.entry(app).or_default();
            let marks = book.marks().into_iter();
            for (message, _) in
                marks.filter(|(id, bits)| is_out(*bits) && known.message(*id).is_some())
            {
                *counts.entry(message).or_default() += 1;
            }
            apps.entry(app).or_default().push((device, book));
        }
        let books = apps.into_iter().map(|(app, books)| (app, PMap::from_entries(books)));
        let out = out.into_iter();
        let out = out.map(|(app, counts)| (app, PMap::from_entries(counts.into_iter().collect())));
        Books { apps: PMap::from_entries(books.collect()), out: PMap::from_entries(out.collect()) }
    }

    fn book(&self, app: AppId, device: DeviceId) -> Option<&Book> {
        self.apps.get(app)?.get(device)
    }

    /// The newest position that the device was seen to have stored.
    pub fn held(&self, app: AppId, device: DeviceId) -> Option<Seq> {
        self.book(app, device).map(|book| book.held).filter(|held| *held > Seq::ZERO)
    }

    pub fn has_mark(&self, app: AppId, device: DeviceId, message: MessageId, mark: Mark) -> bool {
        self.book(app, device).is_some_and(|book| has(book.bits(message), mark))
    }

    /// Devices that have the message, by what they were last seen to have stored.
    pub fn out(&self, app: AppId, message: MessageId) -> u64 {
        self.out.get(app).and_then(|out| out.get(message)).copied().unwrap_or(0)
    }

    /// As the store has it; empty if there is none.
    pub(crate) fn row(&self, app: AppId, device: DeviceId) -> BookRow {
        let book = self.book(app, device);
        let held = book.map_or(Seq::ZERO, |book| book.held);
        BookRow { app, device, held, marks: book.map_or(Arc::default(), |book| book.marks.clone()) }
    }

    pub(crate) fn remove(&mut self, app: AppId, device: DeviceId) {
        if self.book(app, device).is_none() {
            return;
        }
        let book = self.apps.get_mut(app).and_then(|books| books.remove(device));
        for (message, bits) in book.iter().flat_map(Book::marks) {
            self.shift(app, message, bits, 0);
        }
    }

    /// The world has forgotten the message.
    pub(crate) fn forget_message(&mut self, app: AppId, message: MessageId) {
        if self.out.get(app).is_some_and(|out| out.get(message).is_some()) {
            self.out.get_mut(app).and_then(|out| out.remove(message));
        }
    }

    /// The device did something with a message. Whether that was not known.
    pub(crate) fn mark(
        &mut self,
        app: AppId,
        device: DeviceId,
        message: MessageId,
        mark: Mark,
    ) -> bool {
        let book = self.book(app, device);
        let held = book.map_or(Seq::ZERO, |book| book.held);
        let mut marks = book.map_or(Marks::new(), Book::marks);
        let before = bits_of(&marks, message);
        if has(before, mark) || !set(&mut marks, message, before | mark as u8) {
            return false;
        }
        self.put(app, device, held, &marks);
        true
    }

    /// The device, as it is in `world`, has stored everything up to `held`; `volatile` is the digest of its cursor. The
    /// caller has seen that `held` is in the past, not below the horizon, and that the profile did not change after it.
    /// Gives the marks that were set, each of which counts once; `None` if all of it was known.
    ///
    /// Cost: that of a delta, or of an inventory if the profile changed or the book is new; and the marks.
    pub(crate) fn handle_stored(
        &mut self,
        world: &World,
        device: &DeviceRow,
        held: Seq,
        volatile: Option<u64>,
    ) -> Option<Vec<(MessageId, Mark)>> {
        let app = world.app(device.app)?;
        let book = self.book(device.app, device.id);
        let known = book.map_or(Seq::ZERO, |book| book.held);
        // A report that comes after a newer one says only what was there once.
        let late = held < known;
        let judged = known >= device.p && known >= world.horizon() && known > Seq::ZERO;
        let since = (judged && !late).then_some(known);
        let mut holds: HashMap<MessageId, bool> =
            stored(world, device, (held, volatile), since).into_iter().collect();
        let before = book.map_or(Marks::new(), Book::marks);
        let (mut marks, mut first) = (Marks::with_capacity(before.len()), Vec::new());
        for (id, bits) in &before {
            let Some(message) = app.message(*id) else {
                self.shift(device.app, *id, *bits, 0);
                continue;
            };
            let in_h = holds.remove(id).or_else(|| {
                let unknown = late || since.is_some() || is_volatile_at(message, held);
                (!unknown).then_some(false)
            });
            let after = match in_h {
                // Not at the newer position, or it would be marked.
                Some(true) if late && !has(*bits, Mark::Delivered) => {
                    judge(*bits | Mark::Delivered as u8, message, known, Some(false))
                }
                _ if late => *bits,
                in_h => judge(*bits, message, held, in_h),
            };
            for mark in [Mark::Delivered, Mark::Withdrawn] {
                if has(after & !bits, mark) {
                    first.push((*id, mark));
                }
            }
            self.shift(device.app, *id, *bits, after);
            marks.push((*id, after));
        }
        let mut news: Vec<MessageId> =
            holds.into_iter().filter_map(|(id, holds)| holds.then_some(id)).collect();
        news.sort_unstable();
        for id in news {
            let Some(message) = app.message(id) else { continue };
            let bits = Mark::Delivered as u8;
            let bits = if late { judge(bits, message, known, Some(false)) } else { bits };
            if !set(&mut marks, id, bits) {
                continue;
            }
            first.push((id, Mark::Delivered));
            if has(bits, Mark::Withdrawn) {
                first.push((id, Mark::Withdrawn));
            }
            self.shift(device.app, id, 0, bits);
        }
        let held = held.max(known);
        if marks == before && held == known {
            return None;
        }
        self.put(device.app, device.id, held, &marks);
        Some(first)
    }

    fn put(&mut self, app: AppId, device: DeviceId, held: Seq, marks: &Marks) {
        if self.apps.get(app).is_none() {
            self.apps.insert(app, PMap::new());
        }
        let books = self.apps.get_mut(app).expect("it was put there");
        books.insert(device, Book { held, marks: encoded(marks) });
    }

    /// A book's bits of a message change.
    fn shift(&mut self, app: AppId, message: MessageId, before: u8, after: u8) {
        if is_out(before) == is_out(after) {
            return;
        }
        if self.out.get(app).is_none() {
            self.out.insert(app, PMap::new());
        }
        let out = self.out.get_mut(app).expect("it was put there");
        let count = out.get(message).copied().unwrap_or(0);
        let count = if is_out(after) { count + 1 } else { count.saturating_sub(1) };
        if count == 0 {
            out.remove(message)
        } else {
            out.insert(message, count)
        };
    }
}

/// The bits of a message after a report of `held`; `in_h`: whether it is in H(held), where that is known.
fn judge(bits: u8, message: &Message, held: Seq, in_h: Option<bool>) -> u8 {
    let left = Mark::Left as u8;
    let open = has(bits, Mark::Delivered) && !has(bits, Mark::Withdrawn);
    // A recall is final, so the message is in no H after it.
    let recalled = message.row().state == MessageState::Recalled && message.changed() <= held;
    match in_h {
        _ if open && recalled => (bits & !left) | Mark::Withdrawn as u8,
        Some(true) => (bits & !left) | Mark::Delivered as u8,
        Some(false) if open => bits | left,
        _ => bits,
    }
}

fn is_volatile_at(message: &Message, seq: Seq) -> bool {
    let revision = message.revisions().iter().rev().find(|revision| revision.from() <= seq);
    revision.is_some_and(|revision| revision.is_active() && revision.is_volatile())
}

fn bits_of(marks: &Marks, message: MessageId) -> u8 {
    marks.binary_search_by_key(&message, |(id, _)| *id).map_or(0, |at| marks[at].1)
}

/// Whether there was room for it.
fn set(marks: &mut Marks, message: MessageId, bits: u8) -> bool {
    match marks.binary_search_by_key(&message, |(id, _)| *id) {
        Ok(at) => marks[at].1 = bits,
        Err(_) if marks.len() >= MARKS_MAX => return false,
        Err(at) => marks.insert(at, (message, bits)),
    }
    true
}
