//! Each rule of the device protocol, as a sentence.

mod standing;

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::core::outbox::{ProfilePatch, Receipt, ReceiptKind, WRITES_MAX};
use crate::core::store::{MemoryStore, Message, Priority, StoreError};
use crate::core::{Problem, WriteError};
use crate::ids::{AppId, DeviceId, MessageId, Session, Tag};

type Response = http::Response<Bytes>;

/// A store that counts its transactions, and can refuse them.
#[derive(Debug, Default)]
struct Watched {
    inner: MemoryStore,
    watch: Arc<Mutex<Watch>>,
}

#[derive(Debug, Default)]
struct Watch {
    commits: usize,
    refuses: bool,
}

impl MessageStore for Watched {
    fn saved(&self) -> &Saved {
        self.inner.saved()
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(), StoreError> {
        let mut watch = self.watch.lock().unwrap();
        if watch.refuses {
            return Err(StoreError("disk full".into()));
        }
        watch.commits += 1;
        self.inner.commit(transaction)
    }
}

struct Bench {
    device: Device,
    now: u64,
    watch: Arc<Mutex<Watch>>,
}

fn answer(status: u16, body: &Value) -> Response {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    http::Response::builder().status(status).body(body).unwrap()
}

fn refusal(status: u16, code: &str, retry_after: Option<&str>) -> Response {
    let mut response = answer(status, &json!({"code": code, "title": "no", "detail": "because"}));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.parse().unwrap());
    }
    response
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn message(id: u64, tag: u64) -> Value {
    json!({"id": hex(id), "tag": hex(tag), "priority": "high", "expires_at": "2030-01-01T00:00:00.000Z", "body": {"n": tag}})
}

fn news(after: Option<&str>, messages: &[Value], gone: &[u64], cursor: &str) -> Value {
    let gone: Vec<_> = gone.iter().map(|id| hex(*id)).collect();
    json!({"after": after, "messages": messages, "gone": gone, "cursor": cursor, "poll_after": 0})
}

fn inventory(after: Option<&str>, messages: &[Value], all: &[(u64, u64)], cursor: &str) -> Value {
    let mut news = news(after, messages, &[], cursor);
    news["inventory"] = all.iter().map(|(id, tag)| json!([hex(*id), hex(*tag)])).collect();
    news
}

impl Bench {
    fn new(edges: usize) -> Bench {
        let config =
            DeviceConfig { app_key: Some("pk".into()), edges, seed: 1, ..DeviceConfig::default() };
        Bench::with(config, Saved::default())
    }

    fn with(config: DeviceConfig, saved: Saved) -> Bench {
        let store = Watched { inner: MemoryStore::new(saved), watch: Arc::default() };
        let watch = store.watch.clone();
        let mut secrets = 0;
        let secret = move || {
            secrets += 1;
            Secret::new([secrets; 32])
        };
        Bench { device: Device::new(config, Box::new(store), Box::new(secret)), now: 0, watch }
    }

    /// Enrolled, with the cursor `c0` and nothing held.
    fn enrolled(edges: usize) -> Bench {
        let mut bench = Bench::new(edges);
        let enrol = bench.send();
        assert_eq!(enrol.id.operation(), Operation::Enrol);
        bench.enrol(enrol.id, "d1", "s1");
        bench.events();
        bench
    }

    fn enrol(&mut self, id: RequestId, device: &str, session: &str) {
        let device = format!("{device:0>16}");
        let body = json!({"id": device, "app": hex(1), "session": session, "cursor": "c0"});
        self.respond(id, &answer(201, &body));
    }

    /// The next request, after whatever pause it takes.
    fn send(&mut self) -> Request {
        for _ in 0..10 {
            match self.device.poll_request(self.now) {
                Next::Send(request) => return request,
                Next::WaitUntil(at) => self.now = at,
                other => panic!("{other:?} instead of a request"),
            }
        }
        panic!("no request");
    }

    fn send_poll(&mut self) -> RequestId {
        let request = self.send();
        assert_eq!(request.id.operation(), Operation::Poll);
        request.id
    }

    fn respond(&mut self, id: RequestId, response: &Response) {
        self.device.handle_response(self.now, id, response);
    }

    fn ok(&mut self, id: RequestId, body: &Value) {
        self.respond(id, &answer(200, body));
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.device.poll_event()).collect()
    }

    /// (id, tag) of all messages held.
    fn held(&self) -> Vec<(u64, u64)> {
        self.device
            .saved()
            .messages
            .iter()
            .map(|(id, message)| (id.get(), message.tag.get()))
            .collect()
    }

    fn cursor(&self) -> Option<&str> {
        self.device.saved().cursor.as_ref().map(Cursor::as_str)
    }

    fn commits(&self) -> usize {
        self.watch.lock().unwrap().commits
    }

    fn patch(&mut self) -> WriteId {
        let groups = [("vip".to_owned(), true)].into();
        self.device
            .command(&Command::Patch(ProfilePatch { groups, ..ProfilePatch::default() }))
            .unwrap()
    }

    /// Sends a patch while nothing else is under way.
    fn send_patch(&mut self) -> RequestId {
        self.patch();
        let request = self.send();
        assert_eq!(request.id.operation(), Operation::Patch);
        request.id
    }
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.http.headers().get(name).map(|value| value.to_str().unwrap())
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(request.http.body()).unwrap()
}

#[test]
fn an_enrolment_is_repeated_with_the_same_secret_until_it_is_answered() {
    let mut bench = Bench::new(1);
    let first = bench.send();
    assert_eq!((first.http.method().as_str(), first.http.uri().path()), ("POST", "/v1/devices"));
    assert_eq!(body(&first)["key"], "pk");
    bench.device.handle_failure(bench.now, first.id, FailureKind::Broken);
    let second = bench.send();
    assert_eq!(body(&first), body(&second));
    bench.enrol(second.id, "d1", "s1");
    assert!(matches!(bench.events()[..], [Event::Failed { .. }, Event::Enrolled { .. }]));
    assert_eq!(bench.cursor(), Some("c0"));
    let poll = bench.send();
    assert_eq!(header(&poll, "authorization"), Some("Bearer s1"));
    assert_eq!(header(&poll, "carillon-cursor"), Some("c0"));
    assert_eq!(poll.http.uri(), "/v1/messages?wait=30");
    assert!(!format!("{poll:?}").contains("s1"), "a session is never printed");
}

#[test]
fn an_answer_is_stored_whole_in_one_transaction_with_its_cursor() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    let before = bench.commits();
    bench.ok(poll, &news(Some("c0"), &[message(1, 11), message(2, 12)], &[], "c1"));
    assert_eq!(
        (bench.commits() - before, bench.held(), bench.cursor()),
        (1, vec![(1, 11), (2, 12)], Some("c1"))
    );
    let poll = bench.send_poll();
    bench.ok(poll, &news(Some("c1"), &[message(2, 13)], &[1], "c2"));
    assert_eq!(
        (bench.commits() - before, bench.held(), bench.cursor()),
        (2, vec![(2, 13)], Some("c2"))
    );
}

#[test]
fn an_answer_computed_from_another_cursor_is_dropped() {
    let mut bench = Bench::enrolled(1);
    for after in [Some("c9"), None] {
        let poll = bench.send_poll();
        bench.ok(poll, &news(after, &[message(1, 11)], &[], "c1"));
        assert_eq!((bench.held(), bench.cursor()), (vec![], Some("c0")));
        let events = bench.events();
        assert!(matches!(events[0], Event::Dropped { operation: Operation::Poll }), "{events:?}");
    }
}

#[test]
fn a_repeated_answer_is_dropped_the_second_time() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    let first = news(Some("c0"), &[message(1, 11)], &[], "c1");
    bench.ok(poll, &first);
    let next = bench.send_poll();
    bench.ok(next, &news(Some("c1"), &[], &[1], "c2"));
    bench.events();
    bench.ok(poll, &first);
    assert!(matches!(bench.events()[..], [Event::Dropped { .. }]));
    assert_eq!((bench.held(), bench.cursor()), (vec![], Some("c2")));
}

#[test]
fn a_late_answer_is_stored_if_it_was_computed_from_the_cursor_held() {
    let mut bench = Bench::enrolled(1);
    let slow = bench.send_poll();
    bench.now += 30_000 + ANSWER_MS_MAX;
    assert!(matches!(bench.device.poll_request(bench.now), Next::Abort(id) if id == slow));
    let again = bench.send_poll();
    bench.ok(slow, &news(Some("c0"), &[message(1, 11)], &[], "c1"));
    assert_eq!((bench.held(), bench.cursor()), (vec![(1, 11)], Some("c1")));
    // That makes the one that is waited for the late one.
    bench.ok(again, &news(Some("c0"), &[message(1, 10)], &[], "c2"));
    assert_eq!((bench.held(), bench.cursor()), (vec![(1, 11)], Some("c1")));
}

#[test]
fn an_answer_cut_at_any_byte_stores_nothing() {
    let whole = Bytes::from(inventory(Some("c0"), &[message(1, 11)], &[(1, 11)], "c1").to_string());
    for cut in 0..whole.len() {
        let mut bench = Bench::enrolled(1);
        let poll = bench.send_poll();
        let before = bench.commits();
        bench.respond(poll, &http::Response::new(whole.slice(..cut)));
        assert_eq!((bench.commits(), bench.cursor()), (before, Some("c0")), "cut at {cut}");
        let events = bench.events();
        assert!(
            matches!(events[..], [Event::Failed { kind: FailureKind::Malformed, .. }]),
            "{events:?}"
        );
    }
}

#[test]
fn an_answer_that_does_not_say_what_it_was_computed_from_is_malformed() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    let mut body = news(Some("c0"), &[message(1, 11)], &[], "c1");
    body.as_object_mut().unwrap().remove("after");
    bench.ok(poll, &body);
    assert!(matches!(bench.events()[..], [Event::Failed { kind: FailureKind::Malformed, .. }]));
    assert_eq!(bench.held(), vec![]);
}

#[test]
fn a_message_that_comes_again_with_the_same_tag_is_no_news() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    bench.ok(poll, &news(Some("c0"), &[message(1, 11)], &[], "c1"));
    bench.events();
    let poll = bench.send_poll();
    bench.ok(poll, &news(Some("c1"), &[message(1, 11), message(2, 12)], &[9], "c2"));
    let events = bench.events();
    let [Event::Stored { messages, gone, inventory: false }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(messages.iter().map(|stored| stored.id.get()).collect::<Vec<_>>(), [2]);
    assert_eq!(&*messages[0].body, r#"{"n":12}"#);
    assert!(gone.is_empty(), "what was not held is not gone");
}

#[test]
fn an_inventory_is_stored_in_one_go_when_all_bodies_are_there() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    bench.ok(poll, &news(Some("c0"), &[message(1, 11), message(2, 12), message(3, 13)], &[], "c1"));
    let poll = bench.send_poll();
    let before = bench.commits();
    // 1 is as it is here, 2 changed, 3 is not listed, 4 comes along, 5 and 6 are new.
    let all = [(1, 11), (2, 22), (4, 14), (5, 15), (6, 16)];
    bench.ok(poll, &inventory(Some("c1"), &[message(4, 14)], &all, "i1"));

    let first = bench.send();
    assert_eq!(first.http.uri(), "/v1/messages:fetch");
    assert_eq!(header(&first, "carillon-cursor"), Some("i1"));
    assert_eq!(body(&first), json!({"ids": [hex(2), hex(5), hex(6)]}));
    bench.ok(first.id, &news(Some("i1"), &[message(2, 22)], &[6], "i2"));

    // 5 was in neither list; the cursor is the one that the fetch raised.
    let second = bench.send();
    assert_eq!(header(&second, "carillon-cursor"), Some("i2"));
    assert_eq!(body(&second), json!({"ids": [hex(5)]}));
    assert_eq!(
        (bench.commits(), bench.cursor()),
        (before, Some("c1")),
        "nothing is stored before all is there"
    );
    bench.ok(second.id, &news(Some("i2"), &[message(5, 25)], &[], "i3"));

    assert_eq!((bench.commits() - before, bench.cursor()), (1, Some("i3")));
    assert_eq!(bench.held(), vec![(1, 11), (2, 22), (4, 14), (5, 25)], "6 is no longer addressed");
    let events = bench.events();
    let Some(Event::Stored { gone, inventory: true, .. }) = events.last() else {
        panic!("{events:?}")
    };
    assert_eq!(gone[..], [MessageId::new(3)]);
}

#[test]
fn a_fetch_asks_for_200_bodies_at_most() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    let all: Vec<_> = (0..450).map(|id| (id, id)).collect();
    bench.ok(poll, &inventory(Some("c0"), &[], &all, "i1"));
    for (round, count) in [(1, 200), (2, 200), (3, 50)] {
        let fetch = bench.send();
        let ids: Vec<MessageId> = serde_json::from_value(body(&fetch)["ids"].clone()).unwrap();
        assert_eq!(ids.len(), count);
        let messages: Vec<_> = ids.iter().map(|id| message(id.get(), id.get())).collect();
        let (after, cursor) = (format!("i{round}"), format!("i{}", round + 1));
        bench.ok(fetch.id, &news(Some(&after), &messages, &[], &cursor));
    }
    assert_eq!((bench.held().len(), bench.cursor()), (450, Some("i4")));
}

#[test]
fn a_fetch_that_is_refused_drops_the_inventory_whole() {
    for refused in [
        refusal(409, "reset", None),
        refusal(503, "behind", Some("1")),
        refusal(503, "unavailable", None),
    ] {
        let mut bench = Bench::enrolled(2);
        let poll = bench.send_poll();
        bench.ok(poll, &inventory(Some("c0"), &[message(1, 11)], &[(1, 11), (2, 12)], "i1"));
        let fetch = bench.send();
        bench.respond(fetch.id, &refused);
        assert_eq!((bench.held(), bench.cursor()), (vec![], Some("c0")));
        let poll = bench.send();
        assert_eq!(
            (poll.id.operation(), header(&poll, "carillon-cursor")),
            (Operation::Poll, Some("c0"))
        );
    }
}

#[test]
fn a_fetch_computed_from_another_cursor_or_without_progress_drops_the_inventory() {
    for body in [
        news(Some("c0"), &[message(2, 12)], &[], "i2"),
        news(Some("i1"), &[message(7, 12)], &[8], "i2"),
    ] {
        let mut bench = Bench::enrolled(1);
        let poll = bench.send_poll();
        bench.ok(poll, &inventory(Some("c0"), &[], &[(2, 12)], "i1"));
        let fetch = bench.send();
        bench.ok(fetch.id, &body);
        assert_eq!((bench.held(), bench.cursor()), (vec![], Some("c0")));
        bench.send_poll();
    }
}

#[test]
fn a_fetch_that_is_lost_is_sent_again_to_the_next_edge() {
    let mut bench = Bench::enrolled(2);
    let poll = bench.send_poll();
    bench.ok(poll, &inventory(Some("c0"), &[], &[(2, 12)], "i1"));
    let first = bench.send();
    bench.device.handle_failure(bench.now, first.id, FailureKind::Broken);
    let second = bench.send();
    assert_ne!(first.edge, second.edge);
    assert_eq!(first.http.body(), second.http.body());
    bench.ok(second.id, &news(Some("i1"), &[message(2, 12)], &[], "i2"));
    assert_eq!(bench.cursor(), Some("i2"));
}

#[test]
fn nothing_new_stores_nothing_and_polls_are_a_second_apart() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    let (sent_at, before) = (bench.now, bench.commits());
    bench.respond(poll, &answer(204, &Value::Null));
    assert!(matches!(bench.events()[..], [Event::UpToDate]));
    assert_eq!((bench.commits(), bench.cursor()), (before, Some("c0")));
    bench.send_poll();
    assert_eq!(bench.now, sent_at + POLL_PAUSE_MS);
    bench.now += 30_000;
}

#[test]
fn poll_after_holds_the_next_poll_back() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    let mut body = news(Some("c0"), &[], &[], "c1");
    body["poll_after"] = json!(2.5);
    bench.ok(poll, &body);
    assert!(
        matches!(bench.device.poll_request(bench.now), Next::WaitUntil(at) if at == bench.now + 2_500)
    );
    assert_eq!([pause(-1.0), pause(1e300), pause(0.0)], [0, 3_600_000, 0]);

    fn pause(seconds: f64) -> u64 {
        answers::pause_ms(seconds)
    }
}

#[test]
fn while_a_write_is_unanswered_poll_answers_are_dropped_and_its_cursor_is_taken() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    let write = bench.patch();
    assert!(
        matches!(bench.device.poll_request(bench.now), Next::Abort(id) if id == poll),
        "its answer would be dropped"
    );
    let patch = bench.send();
    assert_eq!(
        (patch.http.method().as_str(), header(&patch, "carillon-cursor")),
        ("PATCH", Some("c0"))
    );
    assert_eq!(body(&patch), json!({"groups": {"vip": true}}));

    bench.ok(poll, &news(Some("c0"), &[message(1, 11)], &[], "c1"));
    assert_eq!((bench.held(), bench.cursor()), (vec![], Some("c0")));
    bench.ok(patch.id, &json!({"after": "c0", "cursor": "w1"}));
    assert_eq!(bench.cursor(), Some("w1"));
    let events = bench.events();
    assert!(
        matches!(&events[..], [Event::Dropped { .. }, Event::Written { write: w, result: Ok(()) }] if *w == write)
    );
}

#[test]
fn a_write_that_answers_for_another_cursor_or_without_one_leaves_the_cursor() {
    for body in [
        json!({"after": "c9", "cursor": "w1"}),
        json!({"after": null, "cursor": "w1"}),
        json!({"after": "c0"}),
    ] {
        let mut bench = Bench::enrolled(1);
        let patch = bench.send_patch();
        bench.ok(patch, &body);
        assert_eq!(bench.cursor(), Some("c0"));
        assert!(matches!(bench.events()[..], [Event::Written { result: Ok(()), .. }]));
    }
}

#[test]
fn a_write_that_is_lost_is_repeated_and_one_that_is_refused_is_not() {
    let mut bench = Bench::enrolled(1);
    let first = bench.send_patch();
    bench.device.handle_failure(bench.now, first, FailureKind::Timeout);
    let mut again = bench.send();
    while again.id.operation() != Operation::Patch {
        bench.respond(again.id, &answer(204, &Value::Null));
        again = bench.send();
    }
    bench.respond(again.id, &refusal(422, "unknown-attribute", None));
    let problem = Problem {
        status: 422,
        code: "unknown-attribute".into(),
        title: "no".into(),
        detail: "because".into(),
    };
    let refused = bench.events().into_iter().find_map(|event| match event {
        Event::Written { result, .. } => Some(result),
        _ => None,
    });
    assert_eq!(refused, Some(Err(WriteError::Refused(problem))));
    bench.send_poll();
}

#[test]
fn polls_go_on_while_a_write_cannot_be_taken_upstream() {
    let mut bench = Bench::enrolled(1);
    let patch = bench.send_patch();
    bench.respond(patch, &refusal(503, "unavailable", Some("20")));
    let refused_at = bench.now;
    let poll = bench.send_poll();
    assert!(bench.now < refused_at + 20_000);
    bench.ok(poll, &news(Some("c0"), &[message(1, 11)], &[], "c1"));
    assert_eq!(bench.held(), vec![(1, 11)], "the write is answered, if not done");
    let poll = bench.send_poll();
    let Next::WaitUntil(at) = bench.device.poll_request(bench.now) else {
        panic!("a poll is under way")
    };
    assert!(at >= refused_at + 20_000);
    bench.now = at;
    assert!(matches!(bench.device.poll_request(bench.now), Next::Abort(id) if id == poll));
    assert_eq!(bench.send().id.operation(), Operation::Patch);
}

#[test]
fn a_bad_cursor_means_the_empty_store() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    bench.ok(poll, &news(Some("c0"), &[message(1, 11)], &[], "c1"));
    let poll = bench.send_poll();
    bench.respond(poll, &refusal(400, "bad-cursor", None));
    assert_eq!((bench.held(), bench.cursor()), (vec![], None));
    let poll = bench.send();
    assert_eq!((poll.id.operation(), header(&poll, "carillon-cursor")), (Operation::Poll, None));
    bench.ok(poll.id, &inventory(None, &[message(1, 11)], &[(1, 11)], "c2"));
    assert_eq!((bench.held(), bench.cursor()), (vec![(1, 11)], Some("c2")));
}

#[test]
fn an_edge_that_fails_or_is_behind_is_left_for_the_next_at_once() {
    let fail: [fn(&mut Bench, RequestId); 3] = [
        |bench, id| bench.device.handle_failure(bench.now, id, FailureKind::Connect),
        |bench, id| bench.respond(id, &refusal(503, "behind", Some("1"))),
        |bench, id| bench.respond(id, &answer(502, &json!("not a problem"))),
    ];
    for fail in fail {
        let mut bench = Bench::enrolled(2);
        let first = bench.send();
        fail(&mut bench, first.id);
        let then = bench.now;
        let second = bench.send();
        assert_eq!((bench.now, second.edge), (then, 1 - first.edge));
        fail(&mut bench, second.id);
        bench.send_poll();
        assert!(bench.now > then, "both rest");
    }
}

#[test]
fn retry_after_is_a_minimum() {
    for (status, code) in [(503, "behind"), (503, "unavailable"), (429, "rate-limited")] {
        let mut bench = Bench::enrolled(1);
        let poll = bench.send_poll();
        bench.respond(poll, &refusal(status, code, Some("7")));
        let then = bench.now;
        bench.send_poll();
        assert!((7_000..=8_000).contains(&(bench.now - then)), "{code}: {}", bench.now - then);
    }
    // A whole app is limited, not an edge: the others are not asked either.
    let mut bench = Bench::enrolled(3);
    let poll = bench.send_poll();
    bench.respond(poll, &refusal(429, "rate-limited", Some("7")));
    bench.send_poll();
    assert!(bench.now >= 7_000);
}

#[test]
fn failures_in_a_row_back_off_up_to_a_minute_and_a_success_ends_that() {
    let mut bench = Bench::enrolled(1);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let poll = bench.send_poll();
        let then = bench.now;
        bench.device.handle_failure(then, poll, FailureKind::Connect);
        let Next::WaitUntil(at) = bench.device.poll_request(then) else { panic!("it pauses") };
        pauses.push(at - then);
    }
    assert!(
        pauses[0] <= 500 && pauses[11] >= 30_000 && pauses.iter().all(|ms| *ms <= 60_000),
        "{pauses:?}"
    );
    let poll = bench.send_poll();
    bench.respond(poll, &answer(204, &Value::Null));
    let poll = bench.send_poll();
    let then = bench.now;
    bench.device.handle_failure(then, poll, FailureKind::Connect);
    bench.send_poll();
    assert!(bench.now - then <= 500);
}

#[test]
fn an_answer_may_take_the_wait_and_15_seconds() {
    let mut bench = Bench::enrolled(2);
    let poll = bench.send();
    let sent_at = bench.now;
    assert!(
        matches!(bench.device.poll_request(sent_at), Next::WaitUntil(at) if at == sent_at + 45_000)
    );
    bench.now = sent_at + 45_000;
    assert!(matches!(bench.device.poll_request(bench.now), Next::Abort(id) if id == poll.id));
    assert!(matches!(bench.events()[..], [Event::Failed { kind: FailureKind::Timeout, .. }]));
    assert_ne!(bench.send().edge, poll.edge);
}

#[test]
fn what_has_expired_stays_in_the_store_but_is_not_shown() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    let mut endless = message(2, 12);
    endless["expires_at"] = Value::Null;
    bench.ok(poll, &news(Some("c0"), &[message(1, 11), endless], &[], "c1"));
    let shown = |at: &str| -> Vec<u64> {
        bench.device.saved().visible(at.parse().unwrap()).map(|(id, _)| id.get()).collect()
    };
    assert_eq!(shown("2029-12-31T23:59:59.999Z"), [1, 2]);
    assert_eq!(shown("2030-01-01T00:00:00Z"), [2]);
    assert_eq!(bench.held().len(), 2);
    let expected = Message {
        tag: Tag::new(11),
        priority: Priority::High,
        expires_at: Some("2030-01-01T00:00:00Z".parse().unwrap()),
        body: r#"{"n":11}"#.into(),
    };
    assert_eq!(bench.device.saved().messages[&MessageId::new(1)], expected);
}

#[test]
fn receipts_go_with_an_id_each_that_a_repeat_keeps() {
    let mut bench = Bench::enrolled(1);
    let receipt = |kind| Receipt {
        message: MessageId::new(5),
        kind,
        at: "2026-01-02T03:04:05Z".parse().unwrap(),
    };
    let receipts = vec![receipt(ReceiptKind::Opened), receipt(ReceiptKind::Action("buy".into()))];
    bench.device.command(&Command::Receipts(receipts)).unwrap();
    let first = bench.send();
    assert_eq!(
        (first.http.uri().path(), header(&first, "carillon-cursor")),
        ("/v1/receipts", None)
    );
    let sent = body(&first);
    assert_eq!(sent["receipts"][0]["message"], hex(5));
    assert_eq!(sent["receipts"][0]["at"], "2026-01-02T03:04:05.000Z");
    assert_eq!(
        (&sent["receipts"][1]["kind"], &sent["receipts"][1]["action"]),
        (&json!("action"), &json!("buy"))
    );
    assert_ne!(sent["receipts"][0]["id"], sent["receipts"][1]["id"]);
    bench.respond(first.id, &refusal(503, "behind", Some("1")));
    let mut again = bench.send();
    while again.id.operation() == Operation::Poll {
        bench.respond(again.id, &answer(204, &Value::Null));
        again = bench.send();
    }
    assert_eq!(first.http.body(), again.http.body());
    bench.respond(again.id, &answer(202, &json!({})));
    assert!(
        bench.events().iter().any(|event| matches!(event, Event::Written { result: Ok(()), .. }))
    );
}

#[test]
fn commands_beyond_the_limits_are_refused() {
    let mut bench = Bench::enrolled(1);
    assert_eq!(bench.device.command(&Command::Receipts(vec![])), Err(CommandError::ReceiptCount));
    let attributes = [("long".to_owned(), Some(json!("x".repeat(70_000))))].into();
    let patch = ProfilePatch { attributes, ..ProfilePatch::default() };
    assert_eq!(bench.device.command(&Command::Patch(patch)), Err(CommandError::TooLarge));
    for _ in 0..WRITES_MAX {
        bench.patch();
    }
    assert_eq!(bench.device.command(&Command::Forget), Err(CommandError::Full));
}

#[test]
fn a_device_that_forgets_itself_drops_everything_and_ends() {
    for response in [answer(204, &Value::Null), refusal(401, "unknown", None)] {
        let mut bench = Bench::enrolled(1);
        let poll = bench.send_poll();
        bench.ok(poll, &news(Some("c0"), &[message(1, 11)], &[], "c1"));
        bench.events();
        bench.device.command(&Command::Forget).unwrap();
        let forget = bench.send();
        assert_eq!(
            (forget.http.method().as_str(), forget.http.uri().path()),
            ("DELETE", "/v1/devices/self")
        );
        bench.respond(forget.id, &response);
        assert!(matches!(
            bench.events()[..],
            [Event::Written { result: Ok(()), .. }, Event::Forgotten]
        ));
        assert_eq!(bench.device.saved(), &Saved::default());
        assert!(matches!(bench.device.poll_request(bench.now), Next::Done));
        assert_eq!(bench.device.command(&Command::Forget), Err(CommandError::Forgotten));
    }
}

#[test]
fn an_answer_that_the_store_refuses_is_asked_for_again() {
    let mut bench = Bench::enrolled(1);
    let poll = bench.send_poll();
    bench.watch.lock().unwrap().refuses = true;
    let body = news(Some("c0"), &[message(1, 11)], &[], "c1");
    bench.ok(poll, &body);
    assert!(matches!(bench.events()[..], [Event::StoreFailed(_)]));
    assert_eq!((bench.held(), bench.cursor()), (vec![], Some("c0")));
    bench.watch.lock().unwrap().refuses = false;
    let poll = bench.send_poll();
    bench.ok(poll, &body);
    assert_eq!(bench.held(), vec![(1, 11)]);
}

#[test]
fn a_refused_enrolment_is_said_and_tried_again_rarely() {
    let mut bench = Bench::new(1);
    let enrol = bench.send();
    bench.respond(enrol.id, &refusal(401, "unknown-app", None));
    let events = bench.events();
    assert!(
        matches!(&events[..], [Event::Refused { operation: Operation::Enrol, problem }] if problem.code == "unknown-app")
    );
    assert_eq!(bench.send().id.operation(), Operation::Enrol);
    assert!(bench.now >= 60_000);
}

#[test]
fn a_session_that_could_not_stand_in_a_header_is_malformed() {
    let mut bench = Bench::new(1);
    let enrol = bench.send();
    let body = json!({"id": hex(2), "app": hex(1), "session": "a\r\nb: c", "cursor": "c0"});
    bench.respond(enrol.id, &answer(201, &body));
    assert!(matches!(bench.events()[..], [Event::Failed { kind: FailureKind::Malformed, .. }]));
    assert!(Session::parse("a\r\nb: c").is_err());
}
