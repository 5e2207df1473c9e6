use carillon_world::{Change, Epoch, Lineage, LineageEntry, Seq};
use serde_json::Value;

use super::super::fixture::{
    APP, DEVICE, ENTROPY, GENERATION, HEAD, OTHER, OTHER_APP, VIP, after, device, keys, lineage,
    message, message_of, position, recall, session, vip, world,
};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// One edge and one moment; a test changes what it is about.
struct Edge {
    world: Option<World>,
    keys: KeyRing,
    live: bool,
    draining: bool,
    spread: Duration,
    sabotage: Sabotage,
    start: Instant,
}

impl Edge {
    fn new(world: World) -> Edge {
        Edge {
            world: Some(world),
            keys: keys(),
            live: true,
            draining: false,
            spread: Duration::ZERO,
            sabotage: Sabotage::None,
            start: Instant::now(),
        }
    }

    /// Decides what was asked `late` ago.
    fn decide(
        &self,
        session: &str,
        cursor: Option<&str>,
        ask: Ask<'_>,
        late: Duration,
    ) -> Decision {
        let limits = AnswerLimits::default();
        let view = View {
            world: self.world.as_ref(),
            keys: &self.keys,
            live: self.live,
            draining: self.draining,
            spread: self.spread,
            limits: &limits,
            sabotage: self.sabotage,
        };
        let asked = Asked { session, app: None, cursor, ask, arrived: self.start };
        decide(&view, self.start + late, &asked, ENTROPY)
    }

    fn poll(&self, session: &str, cursor: Option<&str>) -> Decision {
        self.decide(session, cursor, Ask::Poll { wait: Duration::ZERO }, Duration::ZERO)
    }

    /// A poll of [`DEVICE`] that is answered at once.
    fn answer(&self, cursor: Option<&str>) -> Answer {
        answered(self.poll(&mine(), cursor))
    }

    fn news(&self, cursor: Option<&str>) -> Value {
        json(&self.answer(cursor))
    }
}

fn mine() -> String {
    session(APP, DEVICE, position(GENERATION))
}

/// Without whom it is for, of which one test is.
fn answered(decision: Decision) -> Answer {
    match decision {
        Decision::Answer(answer) => Answer { device: None, ..answer },
        other => panic!("no answer but {other:?}"),
    }
}

fn parked(decision: Decision) -> Park {
    match decision {
        Decision::Park(park) => park,
        other => panic!("not parked but {other:?}"),
    }
}

fn json(answer: &Answer) -> Value {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    serde_json::from_slice(&answer.body).expect("an answer is JSON")
}

fn code(answer: &Answer) -> (u16, String) {
    let body: Value = serde_json::from_slice(&answer.body).expect("a problem is JSON");
    (answer.status.as_u16(), body["code"].as_str().expect("a problem has a code").to_owned())
}

fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn cursor_at(held: Position, floor: Position) -> String {
    let cursor = Cursor { held: Some(held), floor: Some(floor), ..Cursor::EMPTY };
    seal::seal_cursor(&keys(), ENTROPY, APP, DEVICE, &cursor).expect("there are keys")
}

fn text<'a>(answer: &'a Value, member: &str) -> &'a str {
    answer[member].as_str().expect("a string")
}

fn ids(answer: &Value) -> Vec<String> {
    let messages = answer["messages"].as_array().expect("messages");
    messages.iter().map(|message| text(message, "id").to_owned()).collect()
}

/// A cursor that has stored everything of the edge's world and is not fresh.
fn settled(edge: &Edge) -> String {
    let first = edge.news(None);
    let second = edge.answer(Some(text(&first, "cursor")));
    match second.status {
        StatusCode::NO_CONTENT => text(&first, "cursor").to_owned(),
        _ => text(&json(&second), "cursor").to_owned(),
    }
}

#[test]
fn an_empty_store_gets_what_is_addressed_and_a_cursor_and_nothing_twice() {
    let (w, _) = after(
        &world(),
        vec![message(1, &vip()), message(2, "all"), message_of(OTHER_APP, 3, "all", "1")],
    );
    let edge = Edge::new(w);
    let first = edge.news(None);
    assert_eq!(first["after"], Value::Null);
    let mut got = ids(&first);
    got.sort();
    assert_eq!(got, ["0000000000000001", "0000000000000002"]);
    assert_eq!(first["poll_after"], 0);
    let bookmark = edge.news(Some(text(&first, "cursor")));
    assert_eq!(bookmark["after"], first["cursor"], "a fresh cursor is answered at once");
    assert_eq!(ids(&bookmark), [""; 0]);
    let settled = text(&bookmark, "cursor");
    assert_eq!(edge.answer(Some(settled)), Answer::nothing());
}

#[test]
fn a_device_gets_only_what_is_addressed_to_it() {
    let (w, _) = after(&world(), vec![message(1, &vip())]);
    let edge = Edge::new(w);
    let stranger = session(APP, OTHER, position(GENERATION));
    let answer = answered(edge.poll(&stranger, None));
    assert!(!std::str::from_utf8(&answer.body).expect("text").contains("0000000000000001"));
}

#[test]
fn a_poll_with_nothing_to_say_waits_for_its_device_and_then_says_so() {
    let mut edge = Edge::new(world());
    let cursor = settled(&edge);
    let wait = Ask::Poll { wait: 30 * SECOND };
    let park = parked(edge.decide(&mine(), Some(&cursor), wait, Duration::ZERO));
    assert_eq!((park.app, park.device, park.until), (APP, DEVICE, edge.start + 30 * SECOND));
    assert!(matches!(park.awaits, Awaits::News { device, .. } if device.id == DEVICE));
    assert_eq!(answered(edge.decide(&mine(), Some(&cursor), wait, 30 * SECOND)), Answer::nothing());
    edge.draining = true;
    assert_eq!(
        answered(edge.decide(&mine(), Some(&cursor), wait, Duration::ZERO)),
        Answer::nothing()
    );
}

#[test]
fn a_recall_and_a_message_that_no_longer_matches_are_gone() {
    let (w, _) = after(&world(), vec![message(1, &vip()), message(2, &vip()), message(3, "all")]);
    let before = Edge::new(w.clone());
    let cursor = settled(&before);
    let (w, _) = after(&w, vec![recall(1), message(2, "not all")]);
    let news = Edge::new(w).news(Some(&cursor));
    let mut gone: Vec<_> =
        news["gone"].as_array().expect("gone").iter().map(|id| id.as_str().unwrap()).collect();
    gone.sort_unstable();
    assert_eq!(gone, ["0000000000000001", "0000000000000002"]);
    assert_eq!(news["messages"], Value::Array(vec![]));
}

#[test]
fn an_edge_that_is_behind_waits_a_second_and_never_answers() {
    let edge = Edge::new(world());
    let ahead = cursor_at(position(HEAD), position(HEAD + 1));
    for (wait, patience) in [(Duration::ZERO, SECOND), (30 * SECOND, 30 * SECOND)] {
        let ask = Ask::Poll { wait };
        let park = parked(edge.decide(&mine(), Some(&ahead), ask, Duration::ZERO));
        assert_eq!(park.until, edge.start + patience);
        assert!(matches!(park.awaits, Awaits::Position(p) if p == position(HEAD + 1)));
        let late = answered(edge.decide(&mine(), Some(&ahead), ask, patience));
        assert_eq!((code(&late), late.retry_after), (refusal(503, "behind"), Some(1)));
    }
    let park = parked(edge.poll(&session(APP, DEVICE, position(HEAD + 1)), None));
    assert!(matches!(park.awaits, Awaits::Position(_)), "a session from a newer world");
    let fetch = Ask::Fetch { ids: &[MessageId::new(1)] };
    let park = parked(edge.decide(&mine(), Some(&ahead), fetch, Duration::ZERO));
    assert_eq!(park.until, edge.start + SECOND);
}

#[test]
fn an_epoch_that_is_not_known_yet_is_behind() {
    let edge = Edge::new(world());
    let newer = Position { epoch: Epoch { number: 2000, tag: 1 }, ..position(1) };
    parked(edge.poll(&mine(), Some(&cursor_at(newer, newer))));
}

#[test]
fn sessions_are_refused_by_what_is_wrong_with_them() {
    let edge = Edge::new(world());
    let session_refused = refusal(401, "session");
    assert_eq!(code(&answered(edge.poll("forged", None))), session_refused);
    let mut forged = mine();
    forged.replace_range(40..41, if &forged[40..41] == "A" { "B" } else { "A" });
    assert_eq!(code(&answered(edge.poll(&forged, None))), session_refused);
    let old = session(APP, DEVICE, position(GENERATION - 1));
    assert_eq!(code(&answered(edge.poll(&old, None))), session_refused);
    let missing = session(APP, DeviceId::new(0xdead), position(GENERATION));
    assert_eq!(code(&answered(edge.poll(&missing, None))), refusal(401, "unknown"));
    let no_app = session(AppId::new(0xdead), DEVICE, position(GENERATION));
    assert_eq!(code(&answered(edge.poll(&no_app, None))), refusal(401, "unknown"));
    let mine = mine();
    let asked = Asked {
        session: &mine,
        app: Some(OTHER_APP),
        cursor: None,
        ask: Ask::Write,
        arrived: edge.start,
    };
    let view = View {
        world: edge.world.as_ref(),
        keys: &edge.keys,
        live: true,
        draining: false,
        spread: Duration::ZERO,
        limits: &AnswerLimits::default(),
        sabotage: Sabotage::None,
    };
    assert_eq!(code(&answered(decide(&view, edge.start, &asked, ENTROPY))), session_refused);
}

#[test]
fn a_revoked_device_is_refused_with_its_old_session() {
    let mut row = device(APP, DEVICE, &[VIP]);
    row.generation = Seq::new(HEAD + 1);
    let (w, _) = after(&world(), vec![Change::Device(Arc::new(row))]);
    let edge = Edge::new(w);
    assert_eq!(code(&edge.answer(None)), refusal(401, "session"));
    let new = session(APP, DEVICE, position(HEAD + 1));
    assert_eq!(answered(edge.poll(&new, None)).status, StatusCode::OK);
}

#[test]
fn a_cursor_of_another_device_or_forged_is_a_bad_cursor() {
    let edge = Edge::new(world());
    let bad = refusal(400, "bad-cursor");
    let others =
        seal::seal_cursor(&keys(), ENTROPY, APP, OTHER, &Cursor::EMPTY).expect("there are keys");
    assert_eq!(code(&edge.answer(Some(&others))), bad);
    let of_other_app =
        seal::seal_cursor(&keys(), ENTROPY, OTHER_APP, DEVICE, &Cursor::EMPTY).expect("keys");
    assert_eq!(code(&edge.answer(Some(&of_other_app))), bad);
    assert_eq!(code(&edge.answer(Some("x"))), bad);
    assert_eq!(code(&edge.answer(Some(""))), bad);
    assert_eq!(code(&edge.answer(Some(&mine()))), bad, "a session is no cursor");
    assert_eq!(code(&answered(edge.decide(&mine(), Some("x"), Ask::Write, SECOND))), bad);
}

/// The world after a restore that kept only the first five changes.
fn restored() -> World {
    let fork = LineageEntry {
        epoch: Epoch { number: 2000, tag: 9 },
        began_after: Seq::new(5),
        fork: true,
    };
    let mut lines = lineage().entries().to_vec();
    lines.push(fork);
    let mut world = world();
    world.set_lineage(Lineage::try_new(lines).expect("in order"));
    world
}

#[test]
fn after_a_restore_a_cursor_that_it_cut_off_gets_an_inventory() {
    let (w, _) = after(&restored(), vec![message(1, "all")]);
    let edge = Edge::new(w);
    let cut_off = cursor_at(position(6), position(6));
    let news = edge.news(Some(&cut_off));
    assert_eq!(news["inventory"].as_array().expect("an inventory").len(), 1);
    assert_eq!(text(&news, "after"), cut_off);
    let fetch = Ask::Fetch { ids: &[MessageId::new(1)] };
    let fetched = answered(edge.decide(&mine(), Some(&cut_off), fetch, Duration::ZERO));
    assert_eq!(code(&fetched), refusal(409, "reset"));
    let session_of_lost_enrolment = session(APP, DEVICE, position(6));
    assert_eq!(
        code(&answered(edge.poll(&session_of_lost_enrolment, None))),
        refusal(401, "session")
    );
}

#[test]
fn without_a_live_link_nothing_is_called_cut_off() {
    let mut edge = Edge::new(restored());
    edge.live = false;
    let cut_off = cursor_at(position(6), position(6));
    let lost = session(APP, DEVICE, position(6));
    for (who, cursor) in [(mine(), Some(&*cut_off)), (lost, None)] {
        let ask = Ask::Poll { wait: 30 * SECOND };
        let park = parked(edge.decide(&who, cursor, ask, Duration::ZERO));
        assert_eq!(park.until, edge.start + SECOND);
        assert!(matches!(park.awaits, Awaits::Link));
        assert_eq!(code(&answered(edge.decide(&who, cursor, ask, SECOND))), refusal(503, "behind"));
    }
    let good = cursor_at(position(5), position(5));
    assert!(!edge.answer(Some(&good)).is_problem(), "what is in the past is answered");
}

#[test]
fn behind_outranks_reset() {
    let edge = Edge::new(restored());
    let newer = Position { epoch: Epoch { number: 3000, tag: 1 }, ..position(1) };
    parked(edge.poll(&mine(), Some(&cursor_at(position(6), newer))));
    parked(edge.poll(&mine(), Some(&cursor_at(newer, position(6)))));
}

#[test]
fn an_edge_without_a_world_or_keys_is_unavailable() {
    let mut edge = Edge::new(world());
    edge.keys = KeyRing::default();
    assert_eq!(code(&edge.answer(None)), refusal(503, "unavailable"));
    edge.world = None;
    edge.keys = keys();
    assert_eq!(code(&edge.answer(None)), refusal(503, "unavailable"));
}

#[test]
fn keys_newer_than_all_here_are_not_called_forged_while_the_link_is_down() {
    let mut edge = Edge::new(world());
    let later = KeyRing::new(20_003, [(super::super::keys::Purpose::Cursor, 20_003, [3; 32])]);
    let cursor =
        seal::seal_cursor(&later, ENTROPY, APP, DEVICE, &Cursor::EMPTY).expect("there is a key");
    assert_eq!(code(&edge.answer(Some(&cursor))), refusal(400, "bad-cursor"));
    edge.live = false;
    assert_eq!(code(&edge.answer(Some(&cursor))), refusal(503, "behind"));
}

#[test]
fn a_fetch_gives_bodies_and_leaves_out_what_is_not_addressed() {
    let (w, _) =
        after(&world(), vec![message(1, &vip()), message(2, "not all"), message(3, "all")]);
    let edge = Edge::new(w);
    let cursor = text(&edge.news(None), "cursor").to_owned();
    let ask = Ask::Fetch { ids: &[MessageId::new(1), MessageId::new(2), MessageId::new(99)] };
    let fetched = json(&answered(edge.decide(&mine(), Some(&cursor), ask, Duration::ZERO)));
    assert_eq!(ids(&fetched), ["0000000000000001"]);
    assert_eq!(fetched["gone"], serde_json::json!(["0000000000000002", "0000000000000063"]));
    assert_eq!(text(&fetched, "after"), cursor);
    assert!(fetched.get("poll_after").is_none());
    let without = answered(edge.decide(&mine(), None, ask, Duration::ZERO));
    assert_eq!(code(&without), refusal(400, "bad-request"));
}

#[test]
fn a_write_may_go_when_the_session_is_good() {
    let edge = Edge::new(world());
    let cursor = cursor_at(position(HEAD), position(HEAD + 5));
    match edge.decide(&mine(), Some(&cursor), Ask::Write, Duration::ZERO) {
        Decision::Proceed(writer) => {
            assert_eq!((writer.session.app, writer.session.device), (APP, DEVICE));
            assert_eq!(writer.cursor.and_then(|cursor| cursor.floor), Some(position(HEAD + 5)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stopping_edge_spreads_the_next_polls() {
    let (w, _) = after(&world(), vec![message(1, "all")]);
    let mut edge = Edge::new(w);
    edge.spread = 10 * SECOND;
    let asked = edge.news(None)["poll_after"].as_f64().expect("a number");
    assert!(asked > 0.0 && asked < 10.0, "{asked}");
    assert_eq!(share(10 * SECOND, Entropy([0; 12])), Duration::ZERO);
    assert_eq!(share(10 * SECOND, Entropy([255; 12])), Duration::from_millis(9_999));
}

#[test]
fn sabotage_drop_hides_one_message_of_a_device() {
    let (w, _) = after(&world(), vec![message(1, "all"), message(2, "all")]);
    let mut edge = Edge::new(w);
    assert_eq!(ids(&edge.news(None)).len(), 2);
    edge.sabotage = Sabotage::Drop;
    let news = edge.news(None);
    assert_eq!(ids(&news), ["0000000000000002"]);
    assert_eq!(news["inventory"].as_array().map(Vec::len), Some(1));
}

#[test]
fn sabotage_extra_leaks_one_message_to_a_stranger() {
    let (w, _) = after(&world(), vec![message(1, "not all"), message(2, "all")]);
    let mut edge = Edge::new(w);
    assert_eq!(ids(&edge.news(None)), ["0000000000000002"]);
    edge.sabotage = Sabotage::Extra;
    let news = edge.news(None);
    assert_eq!(ids(&news), ["0000000000000002", "0000000000000001"]);
    assert_eq!(news["inventory"].as_array().map(Vec::len), Some(2));
}

#[test]
fn sabotage_stale_keeps_one_recalled_message() {
    let (w, _) = after(&world(), vec![message(1, "all"), message(2, "all")]);
    let cursor = settled(&Edge::new(w.clone()));
    let (w, _) = after(&w, vec![recall(1), recall(2)]);
    let mut edge = Edge::new(w);
    assert_eq!(edge.news(Some(&cursor))["gone"].as_array().map(Vec::len), Some(2));
    edge.sabotage = Sabotage::Stale;
    assert_eq!(edge.news(Some(&cursor))["gone"], serde_json::json!(["0000000000000002"]));
}

#[test]
fn an_answer_says_whom_it_is_for_only_where_that_was_proved() {
    let edge = Edge::new(world());
    let nobody = session(APP, DeviceId::new(0xdead), position(GENERATION));
    for (session, cursor, status, device) in [
        (mine().as_str(), None, 200, Some((APP, DEVICE))),
        (mine().as_str(), Some("forged"), 400, Some((APP, DEVICE))),
        (nobody.as_str(), None, 401, None),
        ("forged", None, 401, None),
    ] {
        let Decision::Answer(answer) = edge.poll(session, cursor) else { panic!("parked") };
        assert_eq!((answer.status.as_u16(), answer.device), (status, device));
    }
}
