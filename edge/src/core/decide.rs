//! What to answer a device, decided on one world.
//!
//! One synchronous function serves everything that looks at a world: a poll, a fetch, and finding out who asks before
//! a write goes upstream. It takes the world once, never waits and never draws the time or chance itself; where there
//! is nothing to say yet it says until when, and for what, the request should be parked. The shell parks it and comes
//! back, so a request is answered from the world of its last visit, whole.
//!
//! Order of judgement: the session as a position (behind, then cut off), the device, its generation, the cursor's
//! seal, the cursor's positions. An edge that is behind never answers; one without a live link to central does not
//! call anything cut off either, for its lineage may be the old one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_world::{
    AnswerLimits, AppId, Cursor, DeviceId, DeviceRow, Fetched, Judgement, MessageId, News, Outcome,
    Position, Stored, World,
};
use http::StatusCode;

use super::answer::{self, Answer, Body};
use super::keys::KeyRing;
use super::sabotage::{self, Sabotage};
use super::seal::{self, Entropy, OpenError, Session};

/// Least time that an edge which is behind waits before it says so: long enough for a change that is on its way.
pub const BEHIND_WAIT_MIN: Duration = Duration::from_secs(1);

/// What an edge has at the moment at which it decides.
#[derive(Debug)]
pub struct View<'a> {
    /// `None` until the first snapshot is whole.
    pub world: Option<&'a World>,
    pub keys: &'a KeyRing,
    /// Whether the link to central is up.
    pub live: bool,
    /// The edge is about to stop: polls with nothing to say are not held.
    pub draining: bool,
    /// Clients are asked to spread their next polls over this time; zero is at once.
    pub spread: Duration,
    pub limits: &'a AnswerLimits,
    pub sabotage: Sabotage,
}

/// A request that shows a session.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Sealed.
    pub session: &'a str,
    /// The app that the session must be of, where the request says so.
    pub app: Option<AppId>,
    /// Sealed; `None` is an empty store.
    pub cursor: Option<&'a str>,
    pub ask: Ask<'a>,
    pub arrived: Instant,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// What is new, or nothing after `wait`.
    Poll {
        wait: Duration,
    },
    Fetch {
        ids: &'a [MessageId],
    },
    /// Who is asking, because a write follows.
    Write,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Decision {
    Answer(Answer),
    /// Nothing to say yet. Ask again when woken, and at `until` at the latest.
    Park(Park),
    /// The session is good: the write may go upstream.
    Proceed(Writer),
}

/// For whom, until when and for what a request waits.
#[derive(Clone, Debug)]
pub struct Park {
    pub app: AppId,
    pub device: DeviceId,
    pub until: Instant,
    pub awaits: Awaits,
}

/// What would let a parked request be answered.
#[derive(Clone, Debug)]
pub enum Awaits {
    /// A change that concerns this device, or a tick after which something else that is volatile is due than what has
    /// this digest.
    News { device: Arc<DeviceRow>, volatile: u64 },
    /// A world that has this position in its past.
    Position(Position),
    /// The link to central.
    Link,
}

/// A device whose write may go upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    pub session: Session,
    /// The cursor presented, opened.
    pub cursor: Option<Cursor>,
}

/// Decides one request on one world. Cost: opening two seals and `world::poll`.
pub fn decide(view: &View<'_>, now: Instant, asked: &Asked<'_>, entropy: Entropy) -> Decision {
    let mut shown = Shown::default();
    match try_decide(view, now, asked, entropy, &mut shown) {
        Ok(Decision::Answer(answer)) | Err(answer) => {
            let Shown { device, stored } = shown;
            Decision::Answer(Answer { device, stored, ..answer })
        }
        Ok(decision) => decision,
    }
}

/// What a request showed beside what it asked for.
#[derive(Debug, Default)]
struct Shown {
    device: Option<(AppId, DeviceId)>,
    stored: Option<Box<Stored>>,
}

fn try_decide(
    view: &View<'_>,
    now: Instant,
    asked: &Asked<'_>,
    entropy: Entropy,
    shown: &mut Shown,
) -> Result<Decision, Answer> {
    let Some(world) = view.world else {
        return Err(answer::unavailable("the edge has no world yet", 1));
    };
    if !view.keys.can_seal() {
        return Err(answer::unavailable("the edge has no keys yet", 1));
    }
    let session = match seal::open_session(view.keys, asked.session) {
        Ok(session) => session,
        Err(error) => return Err(unopened(view, error, answer::no_session)),
    };
    if asked.app.is_some_and(|app| app != session.app) {
        return Err(answer::no_session());
    }
    let wait = |awaits| wait_for_world(view, now, asked, &session, awaits);
    match judge(world, session.generation) {
        Judgement::Behind => return wait(Awaits::Position(session.generation)),
        Judgement::Reset if !view.live => return wait(Awaits::Link),
        Judgement::Reset => return Err(answer::no_session()),
        Judgement::Past => {}
    }
    let app = world.app(session.app).ok_or_else(answer::unknown_device)?;
    let device = app.device(session.device).ok_or_else(answer::unknown_device)?;
    if device.generation != session.generation.seq {
        return Err(answer::no_session());
    }
    shown.device = Some((session.app, session.device));
    let cursor = match asked
        .cursor
        .map(|text| seal::open_cursor(view.keys, session.app, session.device, text))
    {
        None => None,
        Some(Ok(cursor)) => Some(cursor),
        Some(Err(error)) => return Err(unopened(view, error, answer::bad_cursor)),
    };
    if let Ask::Write = asked.ask {
        return Ok(Decision::Proceed(Writer { session, cursor }));
    }
    let held = cursor.unwrap_or(Cursor::EMPTY);
    let positions = [held.floor, held.held].into_iter().flatten();
    let verdicts = positions.map(|position| (judge(world, position), position));
    let worst = verdicts.max_by_key(|(verdict, _)| *verdict);
    let verdict = worst.map(|(verdict, _)| verdict);
    match worst {
        Some((Judgement::Behind, position)) => return wait(Awaits::Position(position)),
        Some((Judgement::Reset, _)) if !view.live => return wait(Awaits::Link),
        _ => {}
    }
    match asked.ask {
        Ask::Write => unreachable!("returned above"),
        Ask::Poll { wait: held_for } => {
            // A poll, and not a fetch: that one shows the cursor of an inventory which is not stored yet.
            if let Some(at) = held.held.filter(|_| held.fresh && verdict != Some(Judgement::Reset))
            {
                let volatile = held.volatile;
                shown.stored = Some(Box::new(Stored { device: session.device, at, volatile }));
            }
            match carillon_world::poll(world, device, &held, view.limits) {
                Outcome::Behind => wait(Awaits::Position(world.position())),
                Outcome::News(mut news) => {
                    sabotage::plant(view.sabotage, app, device, world.clock(), &mut news);
                    news_answer(view, asked, &session, &news, entropy).map(Decision::Answer)
                }
                Outcome::Nothing => {
                    let until = asked.arrived + held_for;
                    if now >= until || view.draining {
                        return Err(Answer::nothing());
                    }
                    // The cursor's digest is right, or there would have been news; where it has none, nothing volatile
                    // can be due.
                    let volatile = held.volatile.unwrap_or(0);
                    debug_assert_eq!(volatile, carillon_world::volatile_digest(world, device));
                    let awaits = Awaits::News { device: device.clone(), volatile };
                    Ok(Decision::Park(Park {
                        app: session.app,
                        device: session.device,
                        until,
                        awaits,
                    }))
                }
            }
        }
        Ask::Fetch { ids } => {
            if asked.cursor.is_none() {
                return Err(answer::bad_request(
                    "a fetch needs the cursor of its inventory in Carillon-Cursor",
                ));
            }
            match carillon_world::fetch(world, device, &held, ids, view.limits) {
                Fetched::Behind => wait(Awaits::Position(world.position())),
                Fetched::Reset => Err(answer::reset()),
                Fetched::Bodies { messages, gone, cursor } => {
                    let cursor = seal_cursor(view.keys, entropy, &session, &cursor)?;
                    let body = Body {
                        after: asked.cursor,
                        messages: &messages,
                        gone: &gone,
                        inventory: None,
                        cursor: &cursor,
                        poll_after: None,
                    };
                    Ok(Decision::Answer(Answer::json(StatusCode::OK, body.write())))
                }
            }
        }
    }
}

fn news_answer(
    view: &View<'_>,
    asked: &Asked<'_>,
    session: &Session,
    news: &News,
    entropy: Entropy,
) -> Result<Answer, Answer> {
    let cursor = seal_cursor(view.keys, entropy, session, &news.cursor)?;
    let body = Body {
        after: asked.cursor,
        messages: &news.messages,
        gone: &news.gone,
        inventory: news.inventory.as_deref(),
        cursor: &cursor,
        poll_after: Some(share(view.spread, entropy)),
    };
    Ok(Answer::json(StatusCode::OK, body.write()))
}

pub(crate) fn seal_cursor(
    keys: &KeyRing,
    entropy: Entropy,
    session: &Session,
    cursor: &Cursor,
) -> Result<String, Answer> {
    let sealed = seal::seal_cursor(keys, entropy, session.app, session.device, cursor);
    sealed.ok_or_else(|| answer::unavailable("the edge has no keys yet", 1))
}

/// A position of another shard than this world's says nothing about it: only a forged or misrouted one gets here
/// while there is one shard.
fn judge(world: &World, position: Position) -> Judgement {
    if position.shard != world.shard() { Judgement::Reset } else { world.judge(position) }
}

/// An edge that was cut off for days lacks the newest keys: what does not open here may be good elsewhere.
fn unopened(view: &View<'_>, error: OpenError, refusal: fn() -> Answer) -> Answer {
    match error {
        OpenError::UnknownDay { ahead: true, .. } if !view.live => answer::behind(),
        _ => refusal(),
    }
}

fn wait_for_world(
    view: &View<'_>,
    now: Instant,
    asked: &Asked<'_>,
    session: &Session,
    awaits: Awaits,
) -> Result<Decision, Answer> {
    let longest = match asked.ask {
        Ask::Poll { wait } if view.live && !view.draining => wait.max(BEHIND_WAIT_MIN),
        _ => BEHIND_WAIT_MIN,
    };
    let until = asked.arrived + longest;
    if now >= until {
        return Err(answer::behind());
    }
    Ok(Decision::Park(Park { app: session.app, device: session.device, until, awaits }))
}

/// A random share of `whole`, in whole milliseconds.
pub fn share(whole: Duration, entropy: Entropy) -> Duration {
    let draw = u64::from_be_bytes(entropy.0[..8].try_into().expect("eight bytes"));
    let millis = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
    let share = (u128::from(draw) * u128::from(millis)) >> 64;
    Duration::from_millis(u64::try_from(share).expect("less than the whole"))
}

#[cfg(test)]
mod tests;
