//! Whom a pass pushes: a walk over an app's devices in the order of their places.
//!
//! Each device has a time at which its push is due, which follows from the device and the run alone: at once, after a
//! grace if it was here of late and may poll, or when its quiet hours are over. A pass is for those due within its
//! bounds. So a device is in one pass, whatever is restarted, and nothing is kept of those that wait.

use std::borrow::Cow;
use std::sync::Arc;

use carillon_expr::{Columns, Context, Profile as _, Value};
use carillon_persist::{PushJobRow, RunKind};
use carillon_world::{
    App, AttributeId, DeviceId, DeviceRow, Message, Millis, PushChannel, Quiet, QuietHours, Seq,
};
use roaring::RoaringBitmap;

use super::policy::Notices;
use super::quiet;
use super::report::Counts;

/// Devices whose recipients are worked out as one set.
const BLOCK: usize = 1_024;
/// A device that was seen within this may still be here. `last_seen` is the beginning of an hour, and a device that stays
/// is reported once an hour: so an hour is two.
const RECENT: u64 = 2 * 60 * 60 * 1000;
/// The attribute that says which language a device's user reads.
const LOCALE: &str = "locale";

/// One token to push to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub device: DeviceId,
    pub token: Arc<str>,
    /// Its place in [`Notices::all`].
    pub notice: usize,
    pub attempts: u32,
    /// The step that it belongs to; `None` for one that is tried again.
    pub(crate) step: Option<u64>,
}

/// What a walk looks up beside the world.
pub trait Books {
    /// The newest change of which the device has shown that it stored it.
    fn held(&self, device: DeviceId) -> Option<Seq>;
    /// Whether the device has had as many pushes as it may have for now.
    fn is_capped(&self, device: DeviceId) -> bool;
}

/// A stretch of the walk.
#[derive(Debug, Default)]
pub struct Chunk {
    pub targets: Vec<Target>,
    /// The last device looked at; `None` if there was none.
    pub last: Option<DeviceId>,
    /// No device comes after it.
    pub ended: bool,
    /// When the earliest device is due that the pass is too early for.
    pub next_due: Option<Millis>,
    pub counts: Counts,
}

/// How far one stretch may go.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// It ends when it has found so many; a device has few.
    pub targets: usize,
    pub devices: usize,
    /// No further than devices at this place: see [`App::place`].
    pub place: u64,
}

/// The walk of one run, on one world.
#[derive(Debug)]
pub struct Walk<'a, B> {
    app: &'a App,
    message: &'a Message,
    job: &'a PushJobRow,
    notices: &'a Notices,
    books: &'a B,
    quiet: Option<&'a QuietHours>,
    obeys_cap: bool,
    /// How long devices that were here of late get to poll, in ms.
    grace: u64,
    locale: Option<AttributeId>,
    offset: Option<AttributeId>,
    clock: Millis,
}

impl<'a, B: Books> Walk<'a, B> {
    /// `clock`: the world's, by which volatile expressions are judged.
    pub fn new(
        app: &'a App,
        message: &'a Message,
        job: &'a PushJobRow,
        notices: &'a Notices,
        books: &'a B,
        grace: u64,
        clock: Millis,
    ) -> Walk<'a, B> {
        let policy = message.row().push.as_deref();
        // What was withdrawn should go as soon as may be, and a wake disturbs nobody.
        let quiet = policy
            .filter(|_| job.kind == RunKind::Send)
            .and_then(|policy| policy.quiet_hours.as_ref());
        let attribute = |name: &str| app.attribute_by_name(name).map(|row| row.id);
        Walk {
            app,
            message,
            job,
            notices,
            books,
            quiet,
            obeys_cap: job.kind == RunKind::Send && policy.is_some_and(|of| !of.ignore_cap),
            grace,
            locale: attribute(LOCALE),
            offset: quiet.and_then(|of| attribute(&of.offset)),
            clock,
        }
    }

    /// The next devices after one.
    pub fn chunk(&self, after: Option<DeviceId>, reach: Reach) -> Chunk {
        let mut chunk = Chunk { last: after, ..Chunk::default() };
        let mut devices = self.app.devices_after(after).peekable();
        let mut looked = 0;
        let mut block: Vec<&DeviceRow> = Vec::with_capacity(BLOCK);
        while chunk.targets.len() < reach.targets && looked < reach.devices {
            block.clear();
            while block.len() < BLOCK
                && let Some(row) = devices.next_if(|row| App::place(row.id) <= reach.place)
            {
                block.push(row);
            }
            let Some(last) = block.last() else { break };
            looked += block.len();
            chunk.last = Some(last.id);
            if let Some(cut) = self.block(&block, reach.targets, &mut chunk) {
                chunk.last = Some(cut);
                return chunk;
            }
        }
        chunk.ended = devices.peek().is_none();
        chunk
    }

    /// The tokens of a device that is tried again, if it is still to be pushed.
    pub fn again(&self, device: DeviceId, attempts: u32) -> Vec<Target> {
        let Some(row) = self.app.device(device) else { return Vec::new() };
        let mut chunk = Chunk::default();
        if self.describes(row) && !self.has_it(row) {
            self.targets(row, &mut chunk);
        }
        chunk.targets.iter_mut().for_each(|target| target.attempts = attempts);
        chunk.targets
    }

    /// The device after which it broke off, because there were targets enough.
    fn block(&self, block: &[&DeviceRow], most: usize, chunk: &mut Chunk) -> Option<DeviceId> {
        let is_full = |chunk: &Chunk| chunk.targets.len() >= most;
        match self.job.kind {
            RunKind::Send => {
                let context = Context {
                    now: self.clock.to_time(),
                    message: Some(self.message.row().id.get()),
                };
                let rows = self.message.expression().recipients(&Block(block), &context);
                for row in rows.iter().map(|row| block[row as usize]) {
                    self.recipient(row, chunk);
                    if is_full(chunk) {
                        return Some(row.id);
                    }
                }
            }
            // Whoever had any of its revisions may have it.
            RunKind::Withdraw => {
                for row in block.iter().filter(|row| self.describes(row)) {
                    self.recipient(row, chunk);
                    if is_full(chunk) {
                        return Some(row.id);
                    }
                }
            }
        }
        None
    }

    fn describes(&self, row: &DeviceRow) -> bool {
        let revisions = self.message.revisions();
        let told = |of: &carillon_world::Revision| of.addresses(row, self.clock).is_some();
        match self.job.kind {
            RunKind::Send => revisions.last().is_some_and(told),
            RunKind::Withdraw => revisions.iter().any(told),
        }
    }

    fn has_it(&self, row: &DeviceRow) -> bool {
        self.books.held(row.id).is_some_and(|held| held >= self.job.began_seq)
    }

    /// A device that is to get the push in the pass in which it is due.
    fn recipient(&self, row: &DeviceRow, chunk: &mut Chunk) {
        if tokens(row, self.job.channel).next().is_none() {
            return;
        }
        let (began, until) = (self.job.began_at, self.job.due_to.unwrap_or(Millis::ZERO));
        let recent = row.last_seen > Millis::ZERO && row.last_seen.plus(RECENT) > began;
        let base = if recent { began.plus(self.grace) } else { began };
        let within = |due: Millis| self.job.due_from < due && due <= until;
        let due = match self.quiet {
            None => base,
            Some(hours) => {
                let awake = quiet::awake(hours, quiet::offset(row, self.offset), base);
                match hours.then {
                    Quiet::Hold => awake,
                    Quiet::Skip if awake == base => base,
                    Quiet::Skip => {
                        chunk.counts.quiet += u64::from(within(base));
                        chunk.next_due =
                            earlier(chunk.next_due, Some(base).filter(|at| *at > until));
                        return;
                    }
                }
            }
        };
        if due > until {
            chunk.next_due = earlier(chunk.next_due, Some(due));
        }
        if within(due) && !self.has_it(row) {
            if self.obeys_cap && self.books.is_capped(row.id) {
                chunk.counts.capped += 1;
            } else {
                self.targets(row, chunk);
            }
        }
    }

    fn targets(&self, row: &DeviceRow, chunk: &mut Chunk) {
        let locale = match self.locale.and_then(|id| row.attribute(id)) {
            Some(Value::String(locale)) => Some(&**locale),
            _ => None,
        };
        let notice = self.notices.choose(locale);
        chunk.targets.extend(tokens(row, self.job.channel).map(|token| Target {
            device: row.id,
            token: token.clone(),
            notice,
            attempts: 0,
            step: None,
        }));
    }
}

pub(crate) fn earlier(a: Option<Millis>, b: Option<Millis>) -> Option<Millis> {
    a.into_iter().chain(b).min()
}

fn tokens(row: &DeviceRow, channel: PushChannel) -> impl Iterator<Item = &Arc<str>> {
    let tokens = row.private.iter().flat_map(|private| &private.tokens);
    tokens.filter(move |of| of.channel == channel).map(|of| &of.token)
}

/// Devices as rows of columns, in the order of the walk.
struct Block<'a>(&'a [&'a DeviceRow]);

impl Columns for Block<'_> {
    type Device = DeviceRow;

    fn all(&self) -> Cow<'_, RoaringBitmap> {
        Cow::Owned(RoaringBitmap::from_sorted_iter(0..self.0.len() as u32).unwrap_or_default())
    }

    fn device(&self, row: u32) -> Option<&DeviceRow> {
        self.0.get(row as usize).copied()
    }

    fn row(&self, device: u64) -> Option<u32> {
        let at = self.0.iter().position(|row| row.id.get() == device)?;
        u32::try_from(at).ok()
    }
}
