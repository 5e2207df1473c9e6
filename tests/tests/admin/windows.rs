//! Windows: when messages start and end, and which windows are refused.

use std::time::Duration;

use carillon_tests::admin::text;
use serde_json::{Value, json};

use crate::bench::{App, Bench, Call, PATIENCE, holds};
use crate::messages::{CREATE, EDIT, GET, LIST, RECALL};

pub(crate) async fn check(bench: &mut Bench) {
    let app = bench.app().await;
    bad_windows(bench, &app).await;
    far_windows(bench, &app).await;
    starts_and_ends_fire(bench).await;
    starts_and_ends_survive_a_restart(bench).await;
}

/// What central's clock shows.
async fn now(bench: &mut Bench, app: &App) -> String {
    // A message tells the time and is recalled at once.
    let call = Call::to(CREATE, &[&app.id]).json(json!({"to": "all", "body": 0}));
    let made = bench.written(call).await.json();
    bench.written(Call::to(RECALL, &[&app.id, text(&made, "id")])).await;
    text(&made, "created_at").to_owned()
}

/// A time that central wrote and so many ms, less than half a day.
fn plus(time: &str, by_ms: u64) -> String {
    let (date, clock) = time.split_once('T').expect("RFC 3339");
    let field = |text: &str| text.parse::<u64>().expect("digits");
    let millis = field(&clock[..2]) * 3_600_000
        + field(&clock[3..5]) * 60_000
        + field(&clock[6..8]) * 1_000
        + field(&clock[9..12])
        + by_ms;
    // An offset says which day is meant, so that nothing here counts days.
    let (hours, rest) = (millis / 3_600_000, millis % 3_600_000);
    let (day_hours, offset) = if hours < 24 { (hours, "Z") } else { (hours - 12, "-12:00") };
    let (minutes, rest) = (rest / 60_000, rest % 60_000);
    format!("{date}T{day_hours:02}:{minutes:02}:{:02}.{:03}{offset}", rest / 1_000, rest % 1_000)
}

async fn bad_windows(bench: &mut Bench, app: &App) {
    let message = |window: Value| {
        let mut body = json!({"to": "all", "body": 1});
        for (name, time) in window.as_object().expect("an object") {
            body[name] = time.clone();
        }
        Call::to(CREATE, &[&app.id]).json(body)
    };
    let now = now(bench, app).await;
    for (window, status, code) in [
        (json!({"expires_at": "2020-01-01T00:00:00Z"}), 422, "bad-window"),
        (json!({"expires_at": "1970-01-01T00:00:00Z"}), 422, "bad-window"),
        (json!({"expires_at": now}), 422, "bad-window"),
        (
            json!({"not_before": "2097-01-01T00:00:00Z", "expires_at": "2096-01-01T00:00:00Z"}),
            422,
            "bad-window",
        ),
        (
            json!({"not_before": "2096-01-01T00:00:00Z", "expires_at": "2096-01-01T00:00:00Z"}),
            422,
            "bad-window",
        ),
        (
            json!({"not_before": "2096-01-01T00:00:00Z", "expires_at": "2020-01-01T00:00:00Z"}),
            422,
            "bad-window",
        ),
        // 30 days behind it is beyond what can be written.
        (json!({"not_before": "9999-12-29T00:00:00Z"}), 422, "bad-window"),
        (json!({"expires_at": "9999-12-31T00:00:00Z"}), 400, "bad-request"),
        (json!({"expires_at": "10000-01-01T00:00:00Z"}), 400, "bad-request"),
        (json!({"expires_at": "1969-12-31T23:59:59Z"}), 400, "bad-request"),
        (json!({"expires_at": "2096-01-01"}), 400, "bad-request"),
        (json!({"expires_at": "2096-01-01T00:00:00"}), 400, "bad-request"),
        (json!({"expires_at": "2096-02-30T00:00:00Z"}), 400, "bad-request"),
        (json!({"expires_at": "2096-01-01T25:00:00Z"}), 400, "bad-request"),
        (json!({"expires_at": "tomorrow"}), 400, "bad-request"),
        (json!({"expires_at": ""}), 400, "bad-request"),
        (json!({"expires_at": 4_000_000_000_000_u64}), 400, "bad-request"),
        (json!({"not_before": -1}), 400, "bad-request"),
    ] {
        bench.refused(message(window), status, code).await;
    }
}

async fn far_windows(bench: &mut Bench, app: &App) {
    let far = json!({"to": "all", "body": 1, "not_before": "9999-12-29T23:59:59.999Z", "expires_at": "9999-12-30T00:00:00Z"});
    let made = bench.written(Call::to(CREATE, &[&app.id]).json(far)).await.json();
    assert_eq!(
        (text(&made, "state"), text(&made, "expires_at")),
        ("scheduled", "9999-12-30T00:00:00.000Z")
    );
    // Another zone, and a start that has passed.
    let zone = json!({"to": "all", "body": 1, "not_before": "2020-02-29T23:30:00.5+01:00", "expires_at": "2096-01-01T00:00:00+14:00"});
    let made = bench.written(Call::to(CREATE, &[&app.id]).json(zone)).await.json();
    assert_eq!(text(&made, "state"), "active");
    assert_eq!(text(&made, "not_before"), "2020-02-29T22:30:00.500Z");
    assert_eq!(text(&made, "expires_at"), "2095-12-31T10:00:00.000Z");
    // An edit moves it back to the schedule, and from there to the present.
    let edit = |body: Value| Call::to(EDIT, &[&app.id, text(&made, "id")]).json(body);
    let moved = bench.written(edit(json!({"not_before": "2095-01-01T00:00:00Z"}))).await.json();
    assert_eq!(text(&moved, "state"), "scheduled");
    let moved = bench.written(edit(json!({"not_before": null}))).await.json();
    assert_eq!(text(&moved, "state"), "active");
    for (state, count) in [("scheduled", 1), ("active", 1), ("recalled", 1), ("expired", 0)] {
        let listed =
            bench.read(Call::to(LIST, &[&app.id]).query(&format!("state={state}"))).await.json();
        let listed = listed["messages"].as_array().expect("messages");
        assert!(listed.iter().all(|message| message["state"] == state), "{listed:?}");
        assert_eq!(listed.len(), count, "{state}");
    }
    for query in [
        "state=Active",
        "state=",
        "state=gone",
        "state=active&state=expired",
        "limit=x&state=active",
    ] {
        bench.refused(Call::to(LIST, &[&app.id]).query(query), 400, "bad-request").await;
    }
}

/// The state of a message, once it is this.
async fn becomes(bench: &mut Bench, app: &App, id: &str, state: &str) -> Value {
    let began = std::time::Instant::now();
    loop {
        let answer = bench.send(&Call::to(GET, &[&app.id, id])).await.json();
        if answer["state"] == state {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "is not {state}: {answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A start and an end are committed changes: the seq moves, and a device sees both.
async fn starts_and_ends_fire(bench: &mut Bench) {
    let app = bench.app().await;
    let mut phone = bench.phone(&app).build().expect("a client");
    let always = bench.message(&app, json!({"to": "all", "body": 0})).await;
    holds(&mut phone, &[&always]).await;
    let (_, device) = phone.status().registered.expect("it polled");
    bench.reported(&app, &device.to_string()).await;
    let base = now(bench, &app).await;
    let (start, end) = (plus(&base, 1_500), plus(&base, 3_500));
    let message = json!({"to": "all", "body": 1, "not_before": start, "expires_at": end});
    let id = bench.message(&app, message).await;
    let scheduled = bench.send(&Call::to(GET, &[&app.id, &id])).await.json();
    assert_eq!(scheduled["state"], "scheduled");
    let head = bench.head().await;
    holds(&mut phone, &[&always, &id]).await;
    let started = becomes(bench, &app, &id, "active").await;
    assert_eq!((bench.head().await, &started["revision"]), (head + 1, &json!(1)));
    holds(&mut phone, &[&always]).await;
    becomes(bench, &app, &id, "expired").await;
    assert_eq!(bench.head().await, head + 2);
    bench.refused(Call::to(EDIT, &[&app.id, &id]).json(json!({"body": 2})), 409, "ended").await;
    let longer = json!({"expires_at": "2096-01-01T00:00:00Z"});
    bench.refused(Call::to(EDIT, &[&app.id, &id]).json(longer), 409, "ended").await;
    // An edit can move a start and an end that have not come.
    let end = plus(&now(bench, &app).await, 1_200);
    let id = bench.message(&app, json!({"to": "all", "body": 1, "expires_at": end})).await;
    let postponed = json!({"expires_at": "2096-01-01T00:00:00Z"});
    bench.written(Call::to(EDIT, &[&app.id, &id]).json(postponed)).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    holds(&mut phone, &[&always, &id]).await;
    assert_eq!(becomes(bench, &app, &id, "active").await["revision"], 2);
}

/// What falls due while central is away fires when it is back; a message whose end is due is never started.
async fn starts_and_ends_survive_a_restart(bench: &mut Bench) {
    let app = bench.app().await;
    let mut phone = bench.phone(&app).build().expect("a client");
    let always = bench.message(&app, json!({"to": "all", "body": 0})).await;
    let far = json!({"to": "all", "body": 1, "not_before": "2096-01-01T00:00:00Z", "expires_at": "2097-01-01T00:00:00Z"});
    let far = bench.message(&app, far).await;
    let base = now(bench, &app).await;
    let (soon, then, late) = (plus(&base, 2_500), plus(&base, 3_000), plus(&base, 9_000));
    let starts = json!({"to": "all", "body": 1, "not_before": soon});
    let starts = bench.message(&app, starts).await;
    let ends = bench.message(&app, json!({"to": "all", "body": 2, "expires_at": then})).await;
    let never = json!({"to": "all", "body": 3, "not_before": soon, "expires_at": then});
    let never = bench.message(&app, never).await;
    let later_start = json!({"to": "all", "body": 4, "not_before": late});
    let later_start = bench.message(&app, later_start).await;
    holds(&mut phone, &[&always, &ends]).await;
    bench.cluster.kill_central();
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    bench.cluster.start_central().await;
    bench.admin = bench.cluster.admin();
    holds(&mut phone, &[&always, &starts]).await;
    for (id, state) in
        [(&starts, "active"), (&ends, "expired"), (&never, "expired"), (&far, "scheduled")]
    {
        becomes(bench, &app, id, state).await;
    }
    holds(&mut phone, &[&always, &starts, &later_start]).await;
    let (_, device) = phone.status().registered.expect("it polled");
    bench.reported(&app, &device.to_string()).await;
}
