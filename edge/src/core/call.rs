//! One call of a device, from its head to its answer, without the socket.
//!
//! Whoever serves it reads the head and, where the call has one, the body; looks; does what it is told (answer, park,
//! ask central), and looks again when the parked call is woken. So the order of the refusals, what goes upstream and
//! what becomes of the reply are the same under real connections and in a simulation. A call asks central at most
//! once, and one that shows a session only after the session was judged.

use std::time::{Duration, Instant};

use carillon_world::{ProfilePatch, Receipt, UpstreamReply, UpstreamRequest, World};
use http::HeaderMap;

use super::answer::{self, Answer};
use super::body::{self, BodyError, Enrolment, Login};
use super::decide::{Ask, Asked, Decision, Park, View, Writer, decide};
use super::keys::KeyRing;
use super::route::{self, Credentials, HeadError, Route};
use super::seal::Entropy;
use super::writes;

/// The head of a call whose body, if it has one, was not read yet.
#[derive(Debug)]
pub struct Head {
    route: Route,
    shown: Option<Shown>,
}

/// What a call shows of its device, kept while it is parked.
#[derive(Debug)]
struct Shown {
    credentials: Credentials,
    cursor: Option<String>,
}

impl Head {
    /// # Errors
    /// The answer, if the call shows no session where it has to, or a header is not what it should be.
    pub fn read(route: Route, headers: &HeaderMap) -> Result<Head, Answer> {
        let shown = match route {
            Route::Enrol | Route::Session => None,
            _ => {
                let credentials = route::credentials(headers).map_err(refused)?;
                let cursor = route::cursor(headers).map_err(refused)?.map(str::to_owned);
                Some(Shown { credentials, cursor })
            }
        };
        Ok(Head { route, shown })
    }

    /// Whether the call has a body to be read.
    pub fn has_body(&self) -> bool {
        !matches!(self.route, Route::Poll { .. } | Route::Forget)
    }

    /// `body`: whole, or empty if the call has none. `arrived`: when the head did.
    ///
    /// # Errors
    /// The answer, if the body is not what the call needs.
    pub fn with_body(self, body: &[u8], arrived: Instant) -> Result<Call, Answer> {
        let errand = match self.route {
            Route::Enrol => Errand::Enrol(Some(parsed(body::enrolment(body))?)),
            Route::Session => Errand::Login(parsed(body::login(body))?),
            Route::Poll { wait } => Errand::Poll { wait },
            Route::Fetch => Errand::Fetch { ids: parsed(body::fetch(body))? },
            Route::Patch => Errand::Patch(Some(parsed(body::patch(body))?)),
            Route::Forget => Errand::Forget,
            Route::Receipts => Errand::Receipts(parsed(body::receipts(body))?),
        };
        Ok(Call { shown: self.shown, errand, arrived, writer: None })
    }
}

/// What the call is for. What goes upstream is taken out when it goes.
#[derive(Debug)]
enum Errand {
    Enrol(Option<Enrolment>),
    Login(Login),
    Poll { wait: Duration },
    Fetch { ids: Vec<carillon_world::MessageId> },
    Patch(Option<ProfilePatch>),
    Forget,
    Receipts(Vec<Receipt>),
}

/// A call that was read whole and is not answered yet.
#[derive(Debug)]
pub struct Call {
    shown: Option<Shown>,
    errand: Errand,
    arrived: Instant,
    /// Who asked, once the session was judged good for a write.
    writer: Option<Writer>,
}

/// What to do with a call.
#[derive(Debug)]
pub enum Step {
    Answer(Answer),
    /// Look again when woken, and at `until` at the latest.
    Park(Park),
    /// Send it to central; then [`Call::replied`].
    Upstream(UpstreamRequest),
}

impl Call {
    /// What to do at `now`. Not to be called again once it said to ask central.
    pub fn look(&mut self, view: &View<'_>, now: Instant, entropy: Entropy) -> Step {
        let Some(shown) = &self.shown else { return self.upstream() };
        let ask = match &self.errand {
            Errand::Poll { wait } => Ask::Poll { wait: *wait },
            Errand::Fetch { ids } => Ask::Fetch { ids },
            _ => Ask::Write,
        };
        let asked = Asked {
            session: &shown.credentials.session,
            app: shown.credentials.app,
            cursor: shown.cursor.as_deref(),
            ask,
            arrived: self.arrived,
        };
        match decide(view, now, &asked, entropy) {
            Decision::Answer(answer) => Step::Answer(answer),
            Decision::Park(park) => Step::Park(park),
            Decision::Proceed(writer) => {
                self.writer = Some(writer);
                self.upstream()
            }
        }
    }

    fn upstream(&mut self) -> Step {
        let request = match (&mut self.errand, &self.writer) {
            (Errand::Enrol(enrolment), _) => enrolment.take().map(writes::enrol),
            (Errand::Login(login), _) => Some(writes::login(login)),
            (Errand::Patch(patch), Some(writer)) => {
                patch.take().map(|patch| writes::patch(writer, patch))
            }
            (Errand::Forget, Some(writer)) => Some(writes::forget(writer)),
            (Errand::Receipts(receipts), Some(writer)) => {
                Some(writes::receipts(writer, std::mem::take(receipts)))
            }
            _ => None,
        };
        Step::Upstream(request.expect("a write is asked for once, and by whom is known"))
    }

    /// The answer that central's reply makes.
    pub fn replied(
        &self,
        world: Option<&World>,
        keys: &KeyRing,
        entropy: Entropy,
        reply: UpstreamReply,
    ) -> Answer {
        match (&self.errand, &self.writer) {
            (Errand::Enrol(_), _) => writes::enrolled(keys, entropy, reply),
            (Errand::Login(login), _) => writes::logged_in(keys, entropy, login, reply),
            (Errand::Patch(_), Some(writer)) => match world {
                Some(world) => {
                    let presented = self.shown.as_ref().and_then(|shown| shown.cursor.as_deref());
                    writes::patched(world, keys, entropy, writer, presented, reply)
                }
                None => answer::unavailable("the edge has no world", 1),
            },
            (Errand::Forget, Some(writer)) => writes::forgotten(writer, reply),
            (Errand::Receipts(_), _) => writes::received(reply),
            _ => unreachable!("only a write is replied to, and by whom is known"),
        }
    }
}

/// The answer to a head that names no call.
pub fn refused(error: HeadError) -> Answer {
    match error {
        HeadError::NotFound => answer::not_found(),
        HeadError::Method { allow } => answer::method_not_allowed(allow),
        HeadError::Bad { detail } => answer::bad_request(detail),
        HeadError::NoSession => answer::no_session(),
        HeadError::BadCursor => answer::bad_cursor(),
    }
}

/// There is no place to park the call.
pub fn no_place() -> Answer {
    answer::unavailable("too many polls are held here", 2)
}

/// The write did not leave this edge.
pub fn not_sent() -> Answer {
    answer::unavailable("central cannot be reached; nothing was written", 2)
}

/// The write was sent, and nothing came back.
pub fn unanswered() -> Answer {
    answer::unavailable("outcome unknown: no reply from central; repeat the request", 2)
}

fn parsed<T>(body: Result<T, BodyError>) -> Result<T, Answer> {
    body.map_err(|error| answer::bad_request(error.to_string()))
}

#[cfg(test)]
mod tests {
    use carillon_world::AnswerLimits;

    use super::super::fixture::{
        APP, DEVICE, ENTROPY, GENERATION, HEAD, keys, position, session, world,
    };
    use super::super::sabotage::Sabotage;
    use super::*;

    fn head(route: Route, with_session: bool) -> Result<Head, Answer> {
        let mut headers = HeaderMap::new();
        if with_session {
            let bearer = format!("Bearer {}", session(APP, DEVICE, position(GENERATION)));
            headers.insert("authorization", bearer.parse().unwrap());
        }
        Head::read(route, &headers)
    }

    fn look(call: &mut Call, has_world: bool, now: Instant) -> Step {
        let (world, keys) = (world(), keys());
        let view = View {
            world: has_world.then_some(&world),
            keys: &keys,
            live: true,
            draining: false,
            spread: Duration::ZERO,
            limits: &AnswerLimits::default(),
            sabotage: Sabotage::None,
        };
        call.look(&view, now, ENTROPY)
    }

    fn status(step: Step) -> u16 {
        match step {
            Step::Answer(answer) => answer.status.as_u16(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_without_a_session_is_refused_before_its_body_is_read() {
        for route in [Route::Poll { wait: Duration::ZERO }, Route::Patch, Route::Receipts] {
            assert_eq!(head(route, false).unwrap_err().status.as_u16(), 401);
        }
        assert!(head(Route::Enrol, false).is_ok_and(|head| head.has_body()));
        assert!(head(Route::Forget, true).is_ok_and(|head| !head.has_body()));
    }

    #[test]
    fn a_poll_is_answered_or_parked_and_never_goes_upstream() {
        let now = Instant::now();
        let poll = Route::Poll { wait: Duration::from_secs(9) };
        let mut call = head(poll, true).unwrap().with_body(b"", now).unwrap();
        assert_eq!(status(look(&mut call, false, now)), 503, "no world");
        assert_eq!(status(look(&mut call, true, now)), 200, "the inventory of an empty store");
    }

    #[test]
    fn a_patch_goes_upstream_once_who_asks_is_known_and_raises_the_floor_it_presented() {
        let now = Instant::now();
        let bad = head(Route::Patch, true).unwrap().with_body(b"[", now).unwrap_err();
        assert_eq!(bad.status.as_u16(), 400);
        let patch = br#"{"groups":{"vip":true}}"#;
        let mut call = head(Route::Patch, true).unwrap().with_body(patch, now).unwrap();
        assert_eq!(status(look(&mut call, false, now)), 503, "who asks is not known");
        let Step::Upstream(UpstreamRequest::Patch { device, patch, .. }) =
            look(&mut call, true, now)
        else {
            panic!("a patch goes upstream")
        };
        assert_eq!((device, patch.groups), (DEVICE, vec![("vip".to_owned(), true)]));
        let reply = UpstreamReply::Written { committed: position(HEAD + 1) };
        let answer = call.replied(Some(&world()), &keys(), ENTROPY, reply.clone());
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &br#"{"after":null}"#[..]));
        assert_eq!(call.replied(None, &keys(), ENTROPY, reply).status.as_u16(), 503);
    }

    #[test]
    fn an_enrolment_needs_no_world_to_go_upstream() {
        let body = format!(r#"{{"key":"pk-one","secret":"{}"}}"#, "A".repeat(43));
        let now = Instant::now();
        let mut call = head(Route::Enrol, false).unwrap().with_body(body.as_bytes(), now).unwrap();
        let step = look(&mut call, false, now);
        assert!(matches!(step, Step::Upstream(UpstreamRequest::Enrol { .. })), "{step:?}");
    }
}
