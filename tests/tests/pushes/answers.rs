//! What providers say is obeyed: tokens that are no more are removed, waits are kept, refusals are counted by reason, and
//! a provider that is down or refuses us holds up its own channel alone.

use std::time::{Duration, Instant, SystemTime};

use carillon_tests::cluster::Store;
use serde_json::{Value, json};

use crate::bench::{Bench, Channel, Device, KEY, TEAM, TOPIC, Token, alert};

const EVERYONE: &str = "rank >= 0";
/// What a provider is told to ask for, in seconds.
const WAIT_S: u64 = 3;

/// So many devices for each channel, with one token each, in the order of the channels.
async fn start(store: Store, per: u64) -> (Bench, Vec<Device>) {
    let mut bench = Bench::start(store, "shop", &[], &[]).await;
    let devices = bench.devices(per);
    bench.import(&devices).await;
    (bench, devices)
}

fn tokens(devices: &[Device]) -> Vec<Token> {
    devices.iter().flat_map(|device| device.tokens.clone()).collect()
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the end of time")
}

/// Of each channel some tokens are no more: once by what the provider says, and from then on.
async fn gone(store: Store) {
    let (mut bench, devices) = start(store, 5).await;
    // A device may lose one token and keep another of the same channel.
    let two = Device::new(15, vec![Token::apns(151), Token::apns(152)]);
    bench.import(std::slice::from_ref(&two)).await;
    let name = |n: usize| devices[n].tokens[0].name();
    let unregistered = [name(0), name(1), two.tokens[0].name()];
    let later = now_ms() + 60_000;
    bench
        .apns
        .behave(json!([{"tokens": unregistered, "status": 410, "reason": "Unregistered",
                        "gone_since_ms": later}]))
        .await;
    bench.fcm.behave(json!([{"tokens": [name(5)], "status": 404, "reason": "UNREGISTERED"}])).await;
    bench
        .web_push
        .behave(json!([{"tokens": [name(10)], "status": 404, "reason": "not_found"},
                       {"tokens": [name(11)], "status": 410, "reason": "gone"}]))
        .await;
    let first = bench.push(EVERYONE, alert("first")).await;
    bench.until_state(&first, "done").await;
    let funnel = bench.funnel(&first).await;
    assert_eq!(funnel["removed"], json!({"apns": 3, "fcm": 1, "web_push": 2}), "{funnel}");
    assert_eq!(funnel["pushed"], json!({"apns": 4, "fcm": 4, "web_push": 3}), "{funnel}");
    assert_eq!(funnel["failed"], json!({}), "{funnel}");
    for n in [0, 1, 5, 10, 11] {
        assert_eq!(bench.token_count(&devices[n].id()).await, 0, "device {n}");
    }
    for n in [2, 6, 12] {
        assert_eq!(bench.token_count(&devices[n].id()).await, 1, "device {n}");
    }
    assert_eq!(bench.token_count(&two.id()).await, 1);

    // The providers would take them all again, and nobody asks them to: neither from RAM nor from the store.
    for restart in [false, true] {
        if restart {
            bench.cluster.kill_central();
            bench.cluster.start_central().await;
            bench.admin = bench.cluster.admin();
        }
        bench.begin().await;
        let again = bench.push(EVERYONE, alert("again")).await;
        bench.until_state(&again, "done").await;
        let all = [tokens(&devices), two.tokens.clone()].concat();
        let expected: Vec<_> =
            (0..17).map(|n| (u16::from(![0, 1, 5, 10, 11, 15].contains(&n)), 0)).collect();
        assert_eq!(bench.pushed(&all).await, expected);
        let funnel = bench.funnel(&again).await;
        assert_eq!(funnel["pushed"], json!({"apns": 4, "fcm": 4, "web_push": 3}), "{funnel}");
        assert_eq!(funnel["removed"], json!({}), "{funnel}");
    }
    bench.no_breaches().await;
}

#[tokio::test]
async fn tokens_that_are_no_more_are_removed_and_never_pushed_again_on_sqlite() {
    gone(Store::Sqlite).await;
}

#[tokio::test]
async fn tokens_that_are_no_more_are_removed_and_never_pushed_again_on_mariadb() {
    gone(Store::MariaDb).await;
}

#[tokio::test]
async fn a_device_that_is_slowed_waits_as_told_while_the_others_get_theirs() {
    let (mut bench, devices) = start(Store::Sqlite, 4).await;
    let slowed = [devices[0].tokens[0].clone(), devices[8].tokens[0].clone()];
    let wait = WAIT_S.to_string();
    for token in &slowed {
        let rule = json!([{"tokens": [token.name()], "times": 1, "status": 429,
                           "reason": "TooManyRequests", "retry_after": wait}]);
        bench.simulator(token.channel).behave(rule).await;
    }
    let began = Instant::now();
    let message = bench.push(EVERYONE, alert("slowed")).await;
    let all = tokens(&devices);
    for (channel, others) in [(Channel::Apns, 3), (Channel::Fcm, 4), (Channel::WebPush, 3)] {
        bench.until_counts(channel, |counts| counts.tokens.alerted >= others).await;
    }
    // Whoever is asked to wait is not in the way of others, and does not come before its time.
    while began.elapsed() < Duration::from_secs(WAIT_S) {
        let sent = bench.pushed(&slowed).await;
        // What was asked may have taken until here.
        if began.elapsed() < Duration::from_secs(WAIT_S) {
            assert_eq!(sent, [(0, 0), (0, 0)], "after {:?}", began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bench.until_state(&message, "done").await;
    assert_eq!(bench.pushed(&all).await, vec![(1, 0); all.len()]);
    let funnel = bench.funnel(&message).await;
    assert_eq!(funnel["pushed"], json!({"apns": 4, "fcm": 4, "web_push": 4}), "{funnel}");
    assert_eq!(funnel["failed"], json!({}), "{funnel}");
    for channel in [Channel::Apns, Channel::WebPush] {
        let counts = bench.simulator(channel).counts().await;
        assert_eq!(counts.total.requests, 5, "one was tried twice: {counts:?}");
    }
    bench.no_breaches().await;
}

#[tokio::test]
async fn a_device_that_is_slowed_for_ever_counts_as_failed_after_some_tries() {
    let flags = ["--push-attempts-max", "3"];
    let mut bench = Bench::start(Store::Sqlite, "shop", &flags, &[]).await;
    let devices = bench.devices(2);
    bench.import(&devices).await;
    let rule = |n: usize, status: u16, reason: &str| {
        json!([{"tokens": [devices[n].tokens[0].name()], "status": status, "reason": reason,
                "retry_after": "1"}])
    };
    bench.apns.behave(rule(0, 429, "TooManyRequests")).await;
    bench.web_push.behave(rule(4, 503, "down")).await;
    let message = bench.push(EVERYONE, alert("slowed for ever")).await;
    bench.until_state(&message, "done").await;
    let funnel = bench.funnel(&message).await;
    assert_eq!(
        funnel["failed"],
        json!({"apns": {"too_many_requests": 1}, "web_push": {"server_error": 1}}),
        "{funnel}"
    );
    assert_eq!(funnel["pushed"], json!({"apns": 1, "fcm": 2, "web_push": 1}), "{funnel}");
    let counts = bench.apns.counts().await;
    assert_eq!(counts.total.requests, 4, "three tries, and the other device's: {counts:?}");
}

#[tokio::test]
async fn a_provider_that_asks_for_a_pause_gets_it_and_then_everything() {
    let (mut bench, devices) = start(Store::Sqlite, 200).await;
    let wait = WAIT_S.to_string();
    for (channel, status, reason) in [
        (Channel::Apns, 503, "ServiceUnavailable"),
        (Channel::Fcm, 429, "QUOTA_EXCEEDED"),
        (Channel::WebPush, 503, "down"),
    ] {
        // The first pushes, all that may have been under way.
        let rule = json!([{"times": 100, "status": status, "reason": reason, "retry_after": wait}]);
        bench.simulator(channel).behave(rule).await;
    }
    let began = Instant::now();
    let message = bench.push(EVERYONE, alert("paused")).await;
    let mut asked = Vec::new();
    while began.elapsed() < Duration::from_secs(WAIT_S) {
        let (apns, fcm) = (bench.apns.counts().await, bench.fcm.counts().await);
        asked.push((began.elapsed(), apns.total.requests, fcm.total.requests));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bench.until_state(&message, "done").await;
    let all = tokens(&devices);
    assert_eq!(bench.pushed(&all).await, vec![(1, 0); all.len()], "each got it once");
    let funnel = bench.funnel(&message).await;
    assert_eq!(funnel["pushed"], json!({"apns": 200, "fcm": 200, "web_push": 200}), "{funnel}");
    assert_eq!((&funnel["failed"], &funnel["removed"]), (&json!({}), &json!({})), "{funnel}");
    // While it pauses it asks for nothing: what is asked in the last second before its end is what was in flight.
    let (early, late) = (asked[asked.len() / 2], asked[asked.len() - 1]);
    assert_eq!((early.1, early.2), (late.1, late.2), "asked in a pause: {asked:?}");
    bench.no_breaches().await;
}

#[tokio::test]
async fn refusals_are_counted_by_reason_and_are_not_tried_again() {
    let (mut bench, devices) = start(Store::Sqlite, 6).await;
    let name = |n: usize| devices[n].tokens[0].name();
    let rule = |n: usize, status: u16, reason: &str| json!({"tokens": [name(n)], "status": status, "reason": reason});
    let apns = json!([
        rule(0, 400, "BadDeviceToken"),
        rule(1, 400, "DeviceTokenNotForTopic"),
        rule(2, 413, "PayloadTooLarge"),
        rule(3, 400, "BadDeviceToken"),
        rule(4, 418, "planted-reason-of-a-provider"),
    ]);
    bench.apns.behave(apns).await;
    let fcm = json!([
        rule(6, 400, "INVALID_ARGUMENT"),
        rule(7, 403, "SENDER_ID_MISMATCH"),
        rule(8, 401, "THIRD_PARTY_AUTH_ERROR"),
        rule(9, 404, "planted-reason-of-a-provider"),
    ]);
    bench.fcm.behave(fcm).await;
    let web_push = json!([
        rule(12, 400, "bad_request"),
        rule(13, 403, "forbidden"),
        rule(14, 413, "payload_too_large"),
        {"tokens": [name(15)], "redirect": "https://localhost:1/planted-reason-of-a-provider"},
    ]);
    bench.web_push.behave(web_push).await;
    // Tokens that no provider has to be asked about.
    let subscription: Value = serde_json::from_str(&devices[12].tokens[0].text).expect("JSON");
    let within = |endpoint: &str| {
        let text = json!({"endpoint": endpoint, "keys": subscription["keys"]}).to_string();
        Token { channel: Channel::WebPush, text }
    };
    let bad = [
        Token { channel: Channel::Apns, text: "not-hexadecimal".to_owned() },
        Token { channel: Channel::WebPush, text: "no subscription".to_owned() },
        within("http://push.example/insecure"),
        within("https://10.11.12.13/within"),
        within("https://[fd00::1]/within"),
        within("https://169.254.169.254/latest/meta-data"),
        within(&format!("https://localhost:{}/a-port-that-is-not-allowed", bench.fcm.port())),
    ];
    let bad: Vec<Device> =
        bad.into_iter().zip(18..).map(|(token, n)| Device::new(n, vec![token])).collect();
    bench.import(&bad).await;
    let message = bench.push(EVERYONE, alert("refused")).await;
    bench.until_state(&message, "done").await;
    let funnel = bench.funnel(&message).await;
    assert_eq!(
        funnel["failed"]["apns"],
        json!({"bad_device_token": 3, "device_token_not_for_topic": 1, "payload_too_large": 1,
               "unexpected_status": 1}),
        "{funnel}"
    );
    assert_eq!(
        funnel["failed"]["fcm"],
        json!({"invalid_argument": 1, "sender_id_mismatch": 1, "third_party_auth_error": 1,
               "not_found": 1}),
        "{funnel}"
    );
    let of_web_push = funnel["failed"]["web_push"].as_object().expect("reasons");
    for (reason, n) in [
        ("bad_request", 1),
        ("forbidden", 1),
        ("payload_too_large", 1),
        ("redirect", 1),
        ("bad_subscription", 1),
    ] {
        assert_eq!(of_web_push.get(reason), Some(&json!(n)), "{reason} in {funnel}");
    }
    let sum: u64 = of_web_push.values().map(|n| n.as_u64().expect("a count")).sum();
    assert_eq!(sum, 4 + 6, "{funnel}");
    assert_eq!(funnel["pushed"], json!({"apns": 1, "fcm": 2, "web_push": 2}), "{funnel}");
    assert_eq!(funnel["removed"], json!({}), "a refusal removes no token: {funnel}");
    assert!(!funnel.to_string().contains("planted"), "{funnel}");
    for n in [0, 7, 13] {
        assert_eq!(bench.token_count(&devices[n].id()).await, 1, "device {n}");
    }
    for (channel, requests) in [(Channel::Apns, 6), (Channel::WebPush, 6)] {
        let counts = bench.simulator(channel).counts().await;
        assert_eq!(counts.total.requests, requests, "{channel:?}: {counts:?}");
    }
    bench.no_breaches().await;
}

#[tokio::test]
async fn a_credential_that_is_refused_holds_its_channel_until_it_is_replaced() {
    let (mut bench, devices) = start(Store::Sqlite, 20).await;
    // The right names with another key, and an account that nobody knows.
    let other = bench.apns.make_apns_key("TEAM000002", "KEY0000002", &[TOPIC]).await;
    let wrong = json!({"team_id": TEAM, "key_id": KEY, "topic": TOPIC, "key": other});
    bench.ok("PUT", "push/apns", json!({ "credential": wrong })).await;
    let mut account = bench.credentials[1].1.clone();
    account["client_email"] = "nobody@demo-1.iam.gserviceaccount.com".into();
    bench.ok("PUT", "push/fcm", json!({ "credential": account })).await;
    let message = bench.push(EVERYONE, alert("held")).await;
    bench.until_counts(Channel::WebPush, |counts| counts.tokens.alerted == 20).await;
    bench
        .until_counts(Channel::Apns, |counts| counts.by_reason.contains_key("InvalidProviderToken"))
        .await;
    bench
        .until_counts(Channel::Fcm, |counts| counts.breaches.contains_key("assertion_issuer"))
        .await;
    // As long as the first pause of something that is not refused would take, and longer.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let all = tokens(&devices);
    let expected: Vec<_> = (0..60).map(|n| (u16::from(n >= 40), 0)).collect();
    assert_eq!(bench.pushed(&all).await, expected);
    assert_eq!(bench.state(&message).await, "sending");
    let funnel = bench.funnel(&message).await;
    assert_eq!(funnel["failed"], json!({}), "it waits, and nothing has failed: {funnel}");
    let asked = bench.apns.counts().await.total.requests;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.apns.counts().await.total.requests, asked, "it asks again rarely");

    for (channel, credential) in bench.credentials.clone() {
        let path = format!("push/{}", channel.name());
        bench.ok("PUT", &path, json!({ "credential": credential })).await;
    }
    bench.until_state(&message, "done").await;
    assert_eq!(bench.pushed(&all).await, vec![(1, 0); 60], "each got it once");
    let funnel = bench.funnel(&message).await;
    assert_eq!(funnel["pushed"], json!({"apns": 20, "fcm": 20, "web_push": 20}), "{funnel}");
    assert_eq!(funnel["failed"], json!({}), "{funnel}");
}

#[tokio::test]
async fn a_provider_that_is_down_delays_its_own_channel_alone() {
    let (mut bench, devices) = start(Store::Sqlite, 300).await;
    bench.fcm.down().await;
    let first = bench.push(EVERYONE, alert("first")).await;
    let second = bench.push(EVERYONE, json!({"kind": "wake"})).await;
    for channel in [Channel::Apns, Channel::WebPush] {
        let all = |counts: &carillon_tests::providers::Counts| {
            (counts.tokens.alerted, counts.tokens.woken) == (300, 300)
        };
        bench.until_counts(channel, all).await;
    }
    for message in [&first, &second] {
        assert_eq!(bench.state(message).await, "sending");
        let others = json!({"apns": 300, "web_push": 300});
        bench.until_funnel(message, |funnel| funnel["pushed"] == others).await;
    }
    assert_eq!(bench.fcm.counts().await.total.received.sum(), 0, "it is down");
    bench.fcm.up().await;
    for message in [&first, &second] {
        bench.until_state(message, "done").await;
        let funnel = bench.funnel(message).await;
        let everyone = json!({"apns": 300, "fcm": 300, "web_push": 300});
        assert_eq!((&funnel["pushed"], &funnel["failed"]), (&everyone, &json!({})), "{funnel}");
    }
    let all = tokens(&devices);
    assert_eq!(bench.pushed(&all).await, vec![(1, 1); all.len()], "each got both once");
    bench.no_breaches().await;
}
