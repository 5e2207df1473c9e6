//! What a policy and the app's own limits say of when, and to whom.

use std::time::{Duration, Instant, SystemTime};

use carillon_tests::admin::text;
use carillon_tests::cluster::Store;
use serde_json::{Value, json};

use crate::bench::{Bench, Channel, Device, Token, alert};

const EVERYONE: &str = "rank >= 0";
/// How long a test waits for the end of a minute.
const NEAR: Duration = Duration::from_secs(20);

fn tokens(devices: &[Device]) -> Vec<Token> {
    devices.iter().flat_map(|device| device.tokens.clone()).collect()
}

/// An edit takes the place of what was shown; a recall stops, wakes, and is complete when everybody came.
async fn edited_and_recalled(store: Store) {
    let mut bench = Bench::start(store, "shop", &["--push-grace", "3s"], &[&[]]).await;
    let devices = bench.devices(20);
    bench.import(&devices).await;
    // They are here: what they have they got by polling, and they are not pushed.
    let (first, second) =
        (bench.client(&[("rank", json!(500))]).await, bench.client(&[("rank", json!(501))]).await);
    let own: Vec<Token> = Channel::ALL.map(|of| bench.token(of, 500)).to_vec();
    first.set_tokens(&own).await;
    bench.until_seen(&first.id).await;
    bench.until_seen(&second.id).await;

    let message = bench.push(EVERYONE, alert("as it was")).await;
    for live in [&first, &second] {
        live.until_holds(&message, true).await;
    }
    bench.until_state(&message, "done").await;
    let all = tokens(&devices);
    assert_eq!(bench.pushed(&all).await, vec![(1, 0); 60]);
    let edit = json!({"body": {"text": "edited"}, "push": alert("as it is")});
    let edited = bench.ok("PATCH", &format!("messages/{message}"), edit).await;
    assert_eq!(edited["push_state"], "sending", "{edited}");
    bench.until_state(&message, "done").await;
    assert_eq!(bench.pushed(&all).await, vec![(2, 0); 60], "an edit is pushed again");
    for channel in Channel::ALL {
        let counts = bench.simulator(channel).counts().await;
        assert_eq!(counts.tokens.two_collapse_ids.sum(), 0, "it replaces: {counts:?}");
        assert_eq!(counts.tokens.repeats.alerts, counts.tokens.alerted, "{counts:?}");
        let captured = bench.simulator(channel).captured().await;
        let of_edit = captured.iter().skip(captured.len() / 2);
        if channel != Channel::WebPush {
            for push in of_edit {
                let body = String::from_utf8(push.bytes()).expect("JSON");
                assert!(body.contains("as it is") && !body.contains("as it was"), "{body}");
            }
        }
    }
    bench.until_funnel(&message, |funnel| funnel["delivered"] == 2).await;

    let recalled = bench.ok("POST", &format!("messages/{message}:recall"), Value::Null).await;
    let state = text(&recalled, "push_state");
    assert!(state == "stopping" || state == "stopped", "{recalled}");
    bench.until_state(&message, "stopped").await;
    let woken = |funnel: &Value| funnel["withdrawn"]["pushed"].clone();
    let expected = json!({"apns": 20, "fcm": 20, "web_push": 20});
    let funnel = bench.until_funnel(&message, |funnel| woken(funnel) == expected).await;
    assert_eq!(funnel["pushed"], json!({"apns": 40, "fcm": 40, "web_push": 40}), "{funnel}");
    assert_eq!(bench.pushed(&all).await, vec![(2, 1); 60], "who may have it is woken once");
    for live in [&first, &second] {
        live.until_holds(&message, false).await;
    }
    let complete = |funnel: &Value| {
        (&funnel["withdrawn"]["confirmed"], &funnel["withdrawn"]["still_out"])
            == (&json!(2), &json!(0))
    };
    bench.until_funnel(&message, complete).await;
    assert_eq!(bench.pushed(&own).await, [(0, 0); 3], "who polls is not pushed");
    bench.no_breaches().await;
}

#[tokio::test]
async fn an_edit_replaces_and_a_recall_stops_wakes_and_counts_on_sqlite() {
    edited_and_recalled(Store::Sqlite).await;
}

#[tokio::test]
async fn an_edit_replaces_and_a_recall_stops_wakes_and_counts_on_mariadb() {
    edited_and_recalled(Store::MariaDb).await;
}

/// With requests in flight, so that there is something to stop.
#[tokio::test]
async fn a_recall_in_the_middle_is_stopping_until_nothing_is_in_flight() {
    let flags = ["--push-batch", "100"];
    let mut bench = Bench::start(Store::Sqlite, "shop", &flags, &[]).await;
    let devices: Vec<Device> =
        (0..2_000).map(|n| Device::new(n, vec![Token::apns(n), Token::fcm(n)])).collect();
    bench.import(&devices).await;
    for channel in [Channel::Apns, Channel::Fcm] {
        bench.simulator(channel).behave(json!([{"slow_ms": 1_000}])).await;
    }
    let message = bench.push(EVERYONE, alert("stop it")).await;
    bench.until_counts(Channel::Apns, |counts| counts.total.received.alerts > 0).await;
    let recalled = bench.ok("POST", &format!("messages/{message}:recall"), Value::Null).await;
    assert_eq!(recalled["push_state"], "stopping", "requests are in flight: {recalled}");
    bench.until_state(&message, "stopped").await;
    for channel in [Channel::Apns, Channel::Fcm] {
        let counts = bench.simulator(channel).counts().await;
        let received = counts.total.received.alerts;
        assert!(received < 2_000, "it was not stopped: {counts:?}");
        bench.simulator(channel).behave(json!([])).await;
        bench.simulator(channel).mark().await;
    }
    // The wakes are the last that happens; had an alert been left over it would have come by then.
    for channel in [Channel::Apns, Channel::Fcm] {
        let counts = bench.until_counts(channel, |counts| counts.tokens.woken == 2_000).await;
        assert_eq!(counts.since_mark.received.alerts, 0, "handed over after stopped: {counts:?}");
    }
    let funnel = bench
        .until_funnel(&message, |of| {
            of["withdrawn"]["pushed"] == json!({"apns": 2_000, "fcm": 2_000})
        })
        .await;
    let apns = bench.apns.counts().await.total.accepted.alerts;
    assert_eq!(funnel["pushed"]["apns"], apns, "what was in flight is counted: {funnel}");
    bench.no_breaches().await;
}

#[tokio::test]
async fn pushes_are_spread_over_the_time_that_was_chosen() {
    const OVER_S: u64 = 4;
    let mut bench = Bench::start(Store::Sqlite, "shop", &[], &[]).await;
    let devices: Vec<Device> = (0..2_000).map(|n| Device::new(n, vec![Token::apns(n)])).collect();
    bench.import(&devices).await;
    let policy = json!({"kind": "alert", "text": {"title": "t", "body": "b"}, "over_s": OVER_S});
    let began = Instant::now();
    let message = bench.push(EVERYONE, policy).await;
    let mut seen = Vec::new();
    loop {
        let alerted = bench.apns.counts().await.tokens.alerted;
        seen.push((began.elapsed(), alerted));
        if alerted == 2_000 {
            break;
        }
        assert!(began.elapsed() < crate::PATIENCE, "{seen:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all = Duration::from_secs(OVER_S);
    // Never ahead of its time; how far behind it may be is the machine's affair.
    for (passed, alerted) in &seen {
        let share = passed.as_secs_f64() / all.as_secs_f64();
        let most = 2_000.0 * share + 300.0;
        assert!(*alerted as f64 <= most, "{alerted} after {passed:?}: {seen:?}");
    }
    assert!(began.elapsed() >= all * 9 / 10, "all of them after {:?}", began.elapsed());
    let amounts = seen.windows(2).filter(|pair| pair[1].1 > pair[0].1).count();
    assert!(amounts >= 5, "in {amounts} lumps: {seen:?}");
    bench.until_state(&message, "done").await;
    let counts = bench.apns.counts().await;
    assert_eq!(counts.total.requests, 2_000, "each once: {counts:?}");
}

/// Minutes since midnight in UTC, and what is left of this minute.
fn minute() -> (u64, Duration) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let left = 60_000 - since.as_millis() % 60_000;
    (since.as_secs() / 60 % 1_440, Duration::from_millis(left as u64))
}

fn clock(minute: u64) -> String {
    let minute = minute % 1_440;
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

#[tokio::test]
async fn devices_are_not_pushed_in_their_quiet_hours() {
    let mut bench = Bench::start(Store::Sqlite, "shop", &[], &[]).await;
    // Of each channel two that sleep, two that are awake, and one that says nothing and so counts as in UTC.
    let devices: Vec<Device> = (0..15)
        .map(|n| {
            let device = Device::new(n, vec![bench.token(Channel::ALL[(n / 5) as usize], n)]);
            match n % 5 {
                0 | 1 => device.with("utc_offset", 600),
                2 | 3 => device.with("utc_offset", -120),
                _ => device,
            }
        })
        .collect();
    bench.import(&devices).await;
    let all = tokens(&devices);
    let expected = |of_sleepers: u16| -> Vec<(u16, u16)> {
        (0..15).map(|n| (if n % 5 < 2 { of_sleepers } else { 1 }, 0)).collect()
    };
    let (mut now, left) = minute();
    if left < Duration::from_secs(5) {
        tokio::time::sleep(left).await;
        now = minute().0;
    }
    let policy = |then: &str, from: u64, to: u64| {
        let mut policy = alert("good night");
        policy["quiet_hours"] = json!({"from": clock(from), "to": clock(to), "then": then});
        policy
    };
    // By the sleepers' clock it is `now` and ten hours.
    let night = now + 600;
    let held = bench.push(EVERYONE, policy("hold", night - 60, night + 1)).await;
    for channel in Channel::ALL {
        bench.until_counts(channel, |counts| counts.tokens.alerted == 3).await;
    }
    if minute().0 == now {
        assert_eq!(bench.state(&held).await, "sending", "two of each wait");
    }
    let sent = bench.pushed(&all).await;
    if minute().0 == now {
        assert_eq!(sent, expected(0), "who sleeps is not pushed");
    }
    // Another app's devices would be slower than this: what is skipped is another message's.
    let skipped = bench.push(EVERYONE, policy("skip", night - 60, night + 60)).await;
    bench.until_state(&skipped, "done").await;
    let funnel = bench.funnel(&skipped).await;
    assert_eq!(funnel["skipped"], json!({"quiet": 6}), "{funnel}");
    assert_eq!(funnel["pushed"], json!({"apns": 3, "fcm": 3, "web_push": 3}), "{funnel}");
    // A device that names another attribute is not asleep.
    let mut named = policy("skip", night - 60, night + 60);
    named["quiet_hours"]["offset"] = "rank".into();
    let named = bench.push("rank < 5", named).await;
    bench.until_state(&named, "done").await;
    let funnel = bench.funnel(&named).await;
    assert_eq!(
        (&funnel["skipped"], &funnel["pushed"]),
        (&json!({}), &json!({"apns": 5})),
        "{funnel}"
    );

    // Quiet hours end with a minute. If that is far away, an edit to none has to do: what is held is not lost.
    let is_near = minute().0 != now || minute().1 < NEAR;
    if !is_near {
        let edit = json!({"push": alert("good morning")});
        bench.ok("PATCH", &format!("messages/{held}"), edit).await;
    }
    bench.until_state(&held, "done").await;
    let funnel = bench.funnel(&held).await;
    if is_near {
        assert!(minute().0 != now, "it came before quiet hours were over");
    }
    // The edit is pushed to those who were awake, too.
    let of_held = if is_near { 5 } else { 8 };
    let all_held = json!({"apns": of_held, "fcm": of_held, "web_push": of_held});
    assert_eq!(funnel["pushed"], all_held, "{funnel}");
    assert_eq!(funnel["skipped"], json!({}), "{funnel}");
    // The message that was held, the one that was skipped by sleepers, and the last to five over APNs.
    let expected: Vec<(u16, u16)> = (0..15)
        .map(|n| {
            let is_awake = n % 5 >= 2;
            let again = u16::from(is_awake && !is_near);
            (1 + again + u16::from(is_awake) + u16::from(n < 5), 0)
        })
        .collect();
    assert_eq!(bench.pushed(&all).await, expected);
    bench.no_breaches().await;
}

#[tokio::test]
async fn an_app_is_pushed_no_faster_than_its_rate_over_all_channels() {
    const RATE: u64 = 40;
    let mut bench = Bench::start(Store::Sqlite, "shop", &[], &[]).await;
    let devices = bench.devices(40);
    bench.import(&devices).await;
    let push = bench.ok("PATCH", "push", json!({ "rate": RATE })).await;
    assert_eq!(push["rate"], RATE, "{push}");
    let began = Instant::now();
    let message = bench.push(EVERYONE, alert("slowly")).await;
    loop {
        let mut alerted = 0;
        for channel in Channel::ALL {
            alerted += bench.simulator(channel).counts().await.tokens.alerted;
        }
        let most = began.elapsed().as_secs_f64() * RATE as f64 + RATE as f64 / 10.0 + 1.0;
        assert!(alerted as f64 <= most, "{alerted} after {:?}", began.elapsed());
        if alerted == 120 {
            break;
        }
        assert!(began.elapsed() < crate::PATIENCE, "{alerted} of 120");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bench.until_state(&message, "done").await;
    // Without the limit nothing waits for it any more: at that rate these would take two minutes.
    bench.ok("PATCH", "push", json!({"rate": 1})).await;
    bench.begin().await;
    let message = bench.push(EVERYONE, alert("fast")).await;
    let push = bench.ok("PATCH", "push", json!({"rate": null})).await;
    assert_eq!(push["rate"], Value::Null, "{push}");
    bench.until_state(&message, "done").await;
    assert_eq!(bench.pushed(&tokens(&devices)).await, vec![(1, 0); 120]);
    bench.no_breaches().await;
}

/// Whoever was here of late may poll first; the others need not wait.
#[tokio::test]
async fn devices_that_were_here_of_late_get_a_grace_and_those_that_poll_in_it_no_push() {
    const GRACE: Duration = Duration::from_secs(4);
    let mut bench = Bench::start(Store::Sqlite, "shop", &["--push-grace", "4s"], &[&[]]).await;
    let devices = bench.devices(5);
    bench.import(&devices).await;
    let here = bench.client(&[("rank", json!(100))]).await;
    let gone = bench.client(&[("rank", json!(101))]).await;
    let of = |bench: &Bench, n: u64| Channel::ALL.map(|of| bench.token(of, n)).to_vec();
    let (own, others) = (of(&bench, 100), of(&bench, 101));
    here.set_tokens(&own).await;
    gone.set_tokens(&others).await;
    bench.until_seen(&here.id).await;
    bench.until_seen(&gone.id).await;
    drop(gone);
    let began = Instant::now();
    let message = bench.push(EVERYONE, alert("are you there?")).await;
    for channel in Channel::ALL {
        bench.until_counts(channel, |counts| counts.tokens.alerted >= 5).await;
    }
    let sent = bench.pushed(&others).await;
    if began.elapsed() < GRACE {
        assert_eq!(sent, [(0, 0); 3], "after {:?}", began.elapsed());
        assert_eq!(bench.state(&message).await, "sending");
    }
    here.until_holds(&message, true).await;
    bench.until_state(&message, "done").await;
    assert!(began.elapsed() >= GRACE, "done after {:?}", began.elapsed());
    assert_eq!(bench.pushed(&others).await, [(1, 0); 3], "it did not poll");
    assert_eq!(bench.pushed(&own).await, [(0, 0); 3], "it polled");
    let funnel = bench.funnel(&message).await;
    assert_eq!(funnel["pushed"], json!({"apns": 6, "fcm": 6, "web_push": 6}), "{funnel}");
    assert_eq!(funnel["skipped"], json!({}), "{funnel}");
    bench.until_funnel(&message, |funnel| funnel["delivered"] == 1).await;
    bench.no_breaches().await;
}
/// A browser vendor is one origin for very many devices: that it is slow costs time and nothing else.
#[tokio::test]
async fn a_slow_push_service_of_many_devices_loses_none_of_them() {
    let flags = ["--push-attempts-max", "2", "--push-origin-in-flight-max", "20"];
    let mut bench = Bench::start(Store::Sqlite, "shop", &flags, &[]).await;
    let devices: Vec<Device> =
        (0..500).map(|n| Device::new(n, vec![bench.token(Channel::WebPush, n)])).collect();
    bench.import(&devices).await;
    bench.web_push.behave(json!([{"slow_ms": 200}])).await;
    let message = bench.push(EVERYONE, json!({"kind": "wake"})).await;
    bench.until_state(&message, "done").await;
    let funnel = bench.funnel(&message).await;
    assert_eq!(
        (&funnel["pushed"], &funnel["failed"]),
        (&json!({"web_push": 500}), &json!({})),
        "{funnel}"
    );
    bench.no_breaches().await;
}
