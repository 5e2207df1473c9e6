//! Writes that arrive at an edge: device's request to central's, central's reply to the device's answer.
//!
//! An edge decides nothing about a write but who asks. The answer raises the floor of the cursor presented, so that
//! the device reads its own write on any edge; it gets no cursor if it presented none or one that is cut off.

use carillon_world::{
    Cursor, ProfilePatch, Receipt, Seq, UpstreamReply, UpstreamRequest, World, raise_floor,
};
use http::StatusCode;

use super::answer::{self, Answer, Outcome};
use super::body::{Enrolment, Login};
use super::decide::{Writer, seal_cursor};
use super::keys::KeyRing;
use super::route::COOKIE_PREFIX;
use super::seal::{self, Entropy, Session};

/// How long a browser keeps the cookie of a session: the 400 days for which the session itself is accepted.
const COOKIE_SECONDS: u32 = 400 * 24 * 60 * 60;

pub fn enrol(enrolment: Enrolment) -> UpstreamRequest {
    UpstreamRequest::Enrol {
        publishable_key: enrolment.publishable_key,
        secret: enrolment.secret,
        profile: enrolment.profile,
    }
}

pub fn login(login: &Login) -> UpstreamRequest {
    UpstreamRequest::Session { app: login.app, device: login.device, secret: login.secret }
}

pub fn patch(writer: &Writer, patch: ProfilePatch) -> UpstreamRequest {
    let (app, device, generation) = identity(writer);
    UpstreamRequest::Patch { app, device, generation, patch }
}

pub fn forget(writer: &Writer) -> UpstreamRequest {
    let (app, device, generation) = identity(writer);
    UpstreamRequest::Forget { app, device, generation }
}

pub fn receipts(writer: &Writer, receipts: Vec<Receipt>) -> UpstreamRequest {
    let (app, device, generation) = identity(writer);
    UpstreamRequest::Receipts { app, device, generation, receipts }
}

fn identity(writer: &Writer) -> (carillon_world::AppId, carillon_world::DeviceId, Seq) {
    (writer.session.app, writer.session.device, writer.session.generation.seq)
}

/// 201, or 200 for a device that had enrolled with this secret before.
pub fn enrolled(keys: &KeyRing, entropy: Entropy, reply: UpstreamReply) -> Answer {
    let UpstreamReply::Enrolled { app, device, generation, committed, created } = reply else {
        return unexpected(reply);
    };
    let session = Session { app, device, generation };
    let cursor = Cursor { floor: Some(committed), ..Cursor::EMPTY };
    let (Some(sealed), Ok(cursor)) = (
        seal::seal_session(keys, entropy, &session),
        seal_cursor(keys, entropy, &session, &cursor),
    ) else {
        return answer::unavailable("the edge has no keys yet", 1);
    };
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let body =
        format!(r#"{{"id":"{device}","app":"{app}","session":"{sealed}","cursor":"{cursor}"}}"#);
    Answer {
        set_cookie: Some(cookie(&session, &sealed, COOKIE_SECONDS)),
        ..Answer::json(status, body)
    }
}

pub fn logged_in(keys: &KeyRing, entropy: Entropy, login: &Login, reply: UpstreamReply) -> Answer {
    let UpstreamReply::Session { generation, .. } = reply else { return unexpected(reply) };
    let session = Session { app: login.app, device: login.device, generation };
    let Some(sealed) = seal::seal_session(keys, entropy, &session) else {
        return answer::unavailable("the edge has no keys yet", 1);
    };
    let body = format!(r#"{{"session":"{sealed}"}}"#);
    Answer {
        set_cookie: Some(cookie(&session, &sealed, COOKIE_SECONDS)),
        ..Answer::json(StatusCode::OK, body)
    }
}

/// `presented`: the cursor exactly as it came; `writer.cursor` is the same, opened.
pub fn patched(
    world: &World,
    keys: &KeyRing,
    entropy: Entropy,
    writer: &Writer,
    presented: Option<&str>,
    reply: UpstreamReply,
) -> Answer {
    let UpstreamReply::Written { committed } = reply else { return unexpected(reply) };
    let raised = writer.cursor.and_then(|cursor| raise_floor(world.lineage(), &cursor, committed));
    match raised.map(|cursor| seal_cursor(keys, entropy, &writer.session, &cursor)).transpose() {
        Ok(cursor) => answer::written(presented, cursor.as_deref()),
        Err(no_keys) => no_keys,
    }
}

pub fn forgotten(writer: &Writer, reply: UpstreamReply) -> Answer {
    let UpstreamReply::Written { .. } = reply else { return unexpected(reply) };
    Answer {
        outcome: Outcome::News,
        set_cookie: Some(cookie(&writer.session, "", 0)),
        ..Answer::nothing()
    }
}

pub fn received(reply: UpstreamReply) -> Answer {
    let UpstreamReply::Written { .. } = reply else { return unexpected(reply) };
    Answer::json(StatusCode::ACCEPTED, "{}")
}

fn cookie(session: &Session, sealed: &str, seconds: u32) -> String {
    let app = session.app;
    format!(
        "{COOKIE_PREFIX}{app}={sealed}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}"
    )
}

/// A refusal, or a reply of another kind than the request's, which would be central's fault.
fn unexpected(reply: UpstreamReply) -> Answer {
    match reply {
        UpstreamReply::Refused { problem } => Answer::problem(&problem),
        _ => answer::unavailable("central's reply was not understood", 1),
    }
}

#[cfg(test)]
mod tests {
    use carillon_world::{Epoch, Position, Problem};
    use serde_json::{Value, json};

    use super::super::fixture::{APP, DEVICE, ENTROPY, GENERATION, HEAD, keys, position, world};
    use super::*;

    fn writer(cursor: Option<Cursor>) -> Writer {
        Writer {
            session: Session { app: APP, device: DEVICE, generation: position(GENERATION) },
            cursor,
        }
    }

    fn body(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.body).expect("an answer is JSON")
    }

    fn enrolled_with(created: bool) -> Answer {
        let (generation, committed) = (position(HEAD + 1), position(HEAD + 2));
        let reply =
            UpstreamReply::Enrolled { app: APP, device: DEVICE, generation, committed, created };
        enrolled(&keys(), ENTROPY, reply)
    }

    #[test]
    fn an_enrolment_gives_a_session_and_an_empty_cursor_with_a_floor() {
        let answer = enrolled_with(true);
        assert_eq!(answer.status.as_u16(), 201);
        let body = body(&answer);
        assert_eq!((&body["id"], &body["app"]), (&json!(DEVICE), &json!(APP)));
        let session =
            seal::open_session(&keys(), body["session"].as_str().expect("text")).expect("opens");
        assert_eq!(session, Session { app: APP, device: DEVICE, generation: position(HEAD + 1) });
        let cursor = body["cursor"].as_str().expect("text");
        let cursor = seal::open_cursor(&keys(), APP, DEVICE, cursor).expect("opens");
        assert_eq!(cursor, Cursor { floor: Some(position(HEAD + 2)), ..Cursor::EMPTY });
        assert_eq!(enrolled_with(false).status.as_u16(), 200);
    }

    #[test]
    fn the_cookie_is_bound_to_the_host_and_closed_to_scripts() {
        let answer = enrolled_with(true);
        let body = body(&answer);
        let session = body["session"].as_str().expect("text");
        let expected = format!(
            "__Host-carillon-{APP}={session}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=34560000"
        );
        assert_eq!(answer.set_cookie, Some(expected));
    }

    #[test]
    fn a_login_seals_the_generation_that_central_named() {
        let login = Login { app: APP, device: DEVICE, secret: carillon_world::SecretHash([0; 32]) };
        let reply = UpstreamReply::Session { generation: position(4), at: position(9) };
        let answer = logged_in(&keys(), ENTROPY, &login, reply);
        let session = body(&answer)["session"].as_str().expect("text").to_owned();
        assert_eq!(seal::open_session(&keys(), &session).expect("opens").generation, position(4));
    }

    #[test]
    fn a_write_raises_the_floor_alone_and_only_of_a_cursor_in_the_past() {
        let (held, committed) = (position(HEAD - 3), position(HEAD + 4));
        let (digest, volatile) = (Some(7), Some(8));
        let cursor = Cursor { held: Some(held), floor: Some(held), fresh: true, digest, volatile };
        let answer = |cursor, presented| {
            let reply = UpstreamReply::Written { committed };
            patched(&world(), &keys(), ENTROPY, &writer(cursor), presented, reply)
        };
        let raised = body(&answer(Some(cursor), Some("presented")));
        assert_eq!(raised["after"], "presented");
        let sealed = raised["cursor"].as_str().expect("text");
        let opened = seal::open_cursor(&keys(), APP, DEVICE, sealed).expect("opens");
        assert_eq!((opened.held, opened.floor), (Some(held), Some(committed)));
        assert_eq!(body(&answer(None, None)), json!({"after": null}));
        let lost = Position { epoch: Epoch { number: 900, tag: 1 }, ..held };
        let cut_off = Cursor { held: Some(lost), floor: Some(lost), ..Cursor::EMPTY };
        assert_eq!(body(&answer(Some(cut_off), Some("presented"))), json!({"after": "presented"}));
    }

    #[test]
    fn requests_carry_the_sessions_identity_upstream() {
        let generation = Seq::new(GENERATION);
        let who = writer(None);
        assert_eq!(forget(&who), UpstreamRequest::Forget { app: APP, device: DEVICE, generation });
        let change = ProfilePatch { groups: vec![("g".into(), true)], ..ProfilePatch::default() };
        let request =
            UpstreamRequest::Patch { app: APP, device: DEVICE, generation, patch: change.clone() };
        assert_eq!(patch(&who, change), request);
    }

    #[test]
    fn a_refusal_is_passed_on_and_a_reply_of_another_kind_is_not_believed() {
        let problem = Problem {
            status: 403,
            code: "not-allowed".into(),
            title: "t".into(),
            detail: "d".into(),
            retry_after: None,
            extra: None,
        };
        let answer = received(UpstreamReply::Refused { problem });
        assert_eq!((answer.status.as_u16(), &body(&answer)["code"]), (403, &json!("not-allowed")));
        let odd = UpstreamReply::Session { generation: position(1), at: position(1) };
        assert_eq!(received(odd.clone()).status.as_u16(), 503);
        assert_eq!(forgotten(&writer(None), odd).status.as_u16(), 503);
        let written = UpstreamReply::Written { committed: position(1) };
        assert_eq!(enrolled(&keys(), ENTROPY, written.clone()).status.as_u16(), 503);
        let forgotten = forgotten(&writer(None), written.clone());
        assert_eq!(forgotten.status.as_u16(), 204);
        assert!(forgotten.set_cookie.expect("the cookie goes").ends_with("Max-Age=0"));
        assert_eq!(received(written).body, "{}");
    }
}
