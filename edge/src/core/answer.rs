//! Answers as bytes.
//!
//! Messages are held as the bytes that go on the wire; an answer is written around them into one buffer, once. What
//! else stands in an answer (ids, tags, sealed text) needs no escaping by its alphabet.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use carillon_world::{AppId, DeviceId, MessageId, Problem, Stored, Tag};
use http::StatusCode;

/// What became of a request, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Messages, a bookmark or what a write changed.
    News,
    Nothing,
    Behind,
    Reset,
    Unauthorized,
    /// The request itself is wrong.
    Refused,
    /// The edge or central cannot, at present.
    Unavailable,
}

/// One answer, whole. The shell adds nothing to it but `Cache-Control: no-store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub outcome: Outcome,
    /// JSON, or problem JSON where `status` is an error; empty for none.
    pub body: Bytes,
    /// Seconds.
    pub retry_after: Option<u32>,
    pub set_cookie: Option<String>,
    /// The methods that the path has (405).
    pub allow: Option<&'static str>,
    /// Whom it is for, where that was proved.
    pub device: Option<(AppId, DeviceId)>,
    /// What the request showed that the device has stored.
    pub stored: Option<Box<Stored>>,
}

impl Answer {
    pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
        Answer {
            status,
            outcome: Outcome::News,
            body: body.into(),
            retry_after: None,
            set_cookie: None,
            allow: None,
            device: None,
            stored: None,
        }
    }

    /// 204: nothing, and no cursor, since the client stores nothing.
    pub fn nothing() -> Answer {
        Answer { outcome: Outcome::Nothing, ..Answer::json(StatusCode::NO_CONTENT, Bytes::new()) }
    }

    /// Problem JSON (RFC 9457).
    pub fn problem(problem: &Problem) -> Answer {
        let status = StatusCode::from_u16(problem.status)
            .ok()
            .filter(|s| s.is_client_error() || s.is_server_error());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let outcome = match problem.code.as_str() {
            "behind" => Outcome::Behind,
            "reset" => Outcome::Reset,
            _ if status == StatusCode::UNAUTHORIZED => Outcome::Unauthorized,
            _ if status.is_server_error() => Outcome::Unavailable,
            _ => Outcome::Refused,
        };
        let mut members =
            problem.extra.as_deref().and_then(|extra| serde_json::from_str(extra).ok());
        let members: &mut serde_json::Map<String, serde_json::Value> =
            members.get_or_insert_default();
        members.insert(
            "type".into(),
            format!("https://carillon.dev/problems/{}", problem.code).into(),
        );
        members.insert("code".into(), problem.code.as_str().into());
        members.insert("title".into(), problem.title.as_str().into());
        members.insert("status".into(), status.as_u16().into());
        members.insert("detail".into(), problem.detail.as_str().into());
        let body = serde_json::to_vec(members).expect("a map of JSON values is JSON");
        Answer { outcome, retry_after: problem.retry_after, ..Answer::json(status, body) }
    }

    /// Whether the body is problem JSON.
    pub fn is_problem(&self) -> bool {
        self.status.is_client_error() || self.status.is_server_error()
    }
}

/// A problem of the edge's own making.
pub(crate) fn problem(status: u16, code: &str, title: &str, detail: impl Into<String>) -> Problem {
    Problem {
        status,
        code: code.to_owned(),
        title: title.to_owned(),
        detail: detail.into(),
        retry_after: None,
        extra: None,
    }
}

pub(crate) fn bad_request(detail: impl Into<String>) -> Answer {
    Answer::problem(&problem(400, "bad-request", "The request cannot be understood", detail))
}

pub(crate) fn bad_cursor() -> Answer {
    let detail = "drop the cursor and what is stored with it, and poll without one";
    Answer::problem(&problem(400, "bad-cursor", "The cursor does not open", detail))
}

/// 401: the device is known, the session is not (any more) its own.
pub(crate) fn no_session() -> Answer {
    let detail = "get a session with the device's id and secret";
    Answer::problem(&problem(401, "session", "The session is not valid", detail))
}

/// 401: there is no such device.
pub(crate) fn unknown_device() -> Answer {
    let detail = "drop everything and enrol again";
    Answer::problem(&problem(401, "unknown", "The device is not known", detail))
}

pub(crate) fn reset() -> Answer {
    let detail = "poll with this cursor; the answer is an inventory";
    Answer::problem(&problem(409, "reset", "The cursor was cut off by a restore", detail))
}

/// 503: the client has seen more than this edge.
pub(crate) fn behind() -> Answer {
    let detail =
        "this edge has not yet seen what the client has; try another edge, or this one later";
    retry_after(problem(503, "behind", "The edge is behind", detail), 1)
}

/// 503 for any other reason, to be tried again in about `seconds`.
pub(crate) fn unavailable(detail: &str, seconds: u32) -> Answer {
    retry_after(problem(503, "unavailable", "The edge cannot answer at present", detail), seconds)
}

pub(crate) fn not_found() -> Answer {
    Answer::problem(&problem(404, "not-found", "There is no such call", "see the device API"))
}

pub(crate) fn method_not_allowed(allow: &'static str) -> Answer {
    let problem = problem(
        405,
        "method-not-allowed",
        "The call has another method",
        format!("allowed: {allow}"),
    );
    Answer { allow: Some(allow), ..Answer::problem(&problem) }
}

pub(crate) fn rate_limited(wait: Duration) -> Answer {
    let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1);
    let detail = "too many enrolments from this address";
    retry_after(problem(429, "rate-limited", "Too many requests", detail), seconds)
}

pub(crate) fn too_large(bytes_max: usize) -> Answer {
    let detail = format!("a body may have {bytes_max} bytes");
    Answer::problem(&problem(413, "too-large", "The body is too large", detail))
}

fn retry_after(mut problem: Problem, seconds: u32) -> Answer {
    problem.retry_after = Some(seconds);
    Answer::problem(&problem)
}

/// What an answer to a poll or a fetch says, by reference.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    /// The cursor presented, exactly as it came.
    pub(crate) after: Option<&'a str>,
    pub(crate) messages: &'a [Bytes],
    pub(crate) gone: &'a [MessageId],
    pub(crate) inventory: Option<&'a [(MessageId, Tag)]>,
    pub(crate) cursor: &'a str,
    pub(crate) poll_after: Option<Duration>,
}

impl Body<'_> {
    pub(crate) fn write(&self) -> Bytes {
        // 18 bytes an id or tag with quotes, 4 for commas and brackets, 128 for names.
        let fixed = 128 + self.cursor.len() + self.after.map_or(0, str::len);
        let bodies: usize = self.messages.iter().map(|wire| wire.len() + 1).sum();
        let ids = 20 * self.gone.len() + 42 * self.inventory.map_or(0, <[_]>::len);
        let mut out = Vec::with_capacity(fixed + bodies + ids);
        out.extend_from_slice(b"{\"after\":");
        write_sealed(&mut out, self.after);
        out.extend_from_slice(b",\"messages\":[");
        join(&mut out, self.messages, |out, wire| out.extend_from_slice(wire));
        out.extend_from_slice(b"],\"gone\":[");
        join(&mut out, self.gone, |out, id| put(out, format_args!("\"{id}\"")));
        out.push(b']');
        if let Some(inventory) = self.inventory {
            out.extend_from_slice(b",\"inventory\":[");
            join(&mut out, inventory, |out, (id, tag)| {
                put(out, format_args!("[\"{id}\",\"{tag}\"]"))
            });
            out.push(b']');
        }
        out.extend_from_slice(b",\"cursor\":");
        write_sealed(&mut out, Some(self.cursor));
        if let Some(wait) = self.poll_after {
            out.extend_from_slice(b",\"poll_after\":");
            match wait.subsec_millis() {
                0 => put(&mut out, format_args!("{}", wait.as_secs())),
                millis => put(&mut out, format_args!("{}.{millis:03}", wait.as_secs())),
            }
        }
        out.push(b'}');
        out.into()
    }
}

/// `{"after":…,"cursor":…}` for the answer to a write; the cursor is left out if there is none.
pub(crate) fn written(after: Option<&str>, cursor: Option<&str>) -> Answer {
    let mut out = b"{\"after\":".to_vec();
    write_sealed(&mut out, after);
    if let Some(cursor) = cursor {
        out.extend_from_slice(b",\"cursor\":");
        write_sealed(&mut out, Some(cursor));
    }
    out.push(b'}');
    Answer::json(StatusCode::OK, out)
}

/// Sealed text is base64url, so it needs no escaping. It is only written after it opened or was made here.
fn write_sealed(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => {
            debug_assert!(
                text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            );
            put(out, format_args!("\"{text}\""));
        }
        None => out.extend_from_slice(b"null"),
    }
}

fn join<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes every byte");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).expect("an answer is JSON")
    }

    #[test]
    fn an_answer_holds_messages_as_they_are() {
        let wire =
            [Bytes::from_static(br#"{"id":"1","body":{"n":1.50}}"#), Bytes::from_static(b"{}")];
        let body = Body {
            after: Some("abc-_"),
            messages: &wire,
            gone: &[MessageId::new(0xab), MessageId::new(1)],
            inventory: None,
            cursor: "xyz",
            poll_after: Some(Duration::ZERO),
        };
        expect_test::expect![[r#"{"after":"abc-_","messages":[{"id":"1","body":{"n":1.50}},{}],"gone":["00000000000000ab","0000000000000001"],"cursor":"xyz","poll_after":0}"#]]
        .assert_eq(std::str::from_utf8(&body.write()).unwrap());
    }

    #[test]
    fn an_empty_inventory_is_an_inventory() {
        let none = Body {
            after: None,
            messages: &[],
            gone: &[],
            inventory: Some(&[]),
            cursor: "x",
            poll_after: Some(Duration::from_millis(1250)),
        };
        let written = none.write();
        assert_eq!(
            parse(&written),
            json!({"after": null, "messages": [], "gone": [], "inventory": [], "cursor": "x", "poll_after": 1.25})
        );
        let some =
            Body { inventory: Some(&[(MessageId::new(1), Tag::new(2))]), poll_after: None, ..none };
        assert_eq!(
            parse(&some.write())["inventory"],
            json!([["0000000000000001", "0000000000000002"]])
        );
    }

    #[test]
    fn the_buffer_is_never_grown_while_an_answer_is_written() {
        let wire = vec![Bytes::from(vec![b'1'; 100]); 50];
        let gone = vec![MessageId::new(u64::MAX); 77];
        let inventory = vec![(MessageId::new(u64::MAX), Tag::new(u64::MAX)); 333];
        let cursor = "c".repeat(200);
        let body = Body {
            after: Some(&cursor),
            messages: &wire,
            gone: &gone,
            inventory: Some(&inventory),
            cursor: &cursor,
            poll_after: Some(Duration::from_millis(60_001)),
        };
        let written = body.write();
        assert!(written.len() <= 128 + 400 + 50 * 101 + 20 * 77 + 42 * 333);
    }

    #[test]
    fn problems_merge_their_extra_members_but_keep_their_own() {
        let mut refused = problem(422, "wrong-type", "Wrong type", "a \"quoted\" detail");
        refused.extra = Some(r#"{"attribute":"age","status":200}"#.into());
        refused.retry_after = Some(3);
        let answer = Answer::problem(&refused);
        assert_eq!(
            parse(&answer.body),
            json!({
                "type": "https://carillon.dev/problems/wrong-type", "code": "wrong-type", "title": "Wrong type",
                "status": 422, "detail": "a \"quoted\" detail", "attribute": "age",
            })
        );
        assert_eq!((answer.status.as_u16(), answer.retry_after), (422, Some(3)));
        assert!(answer.is_problem());
    }

    #[test]
    fn a_problem_with_a_status_that_is_no_error_becomes_one() {
        assert_eq!(Answer::problem(&problem(200, "odd", "", "")).status.as_u16(), 500);
        assert_eq!(Answer::problem(&problem(9999, "odd", "", "")).status.as_u16(), 500);
    }

    #[test]
    fn waits_are_rounded_up_to_whole_seconds() {
        assert_eq!(rate_limited(Duration::from_millis(1)).retry_after, Some(1));
        assert_eq!(rate_limited(Duration::from_millis(1001)).retry_after, Some(2));
        assert_eq!(behind().retry_after, Some(1));
    }
}
