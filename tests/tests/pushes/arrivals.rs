//! A wake and an alert to devices of every kind, over all three channels: each gets exactly what it should, wakes say
//! nothing, and the funnel tells the same numbers as the providers.

use std::collections::{BTreeMap, BTreeSet};

use carillon_tests::admin::text;
use carillon_tests::cluster::Store;
use serde_json::{Value, json};

use crate::bench::{Bench, Channel, Device, TOPIC, Token};
use crate::content::{everything, payload};

const APP: &str = "planted-name-of-the-sender";
const GROUP: &str = "planted-name-of-a-group";
const BODY: &str = "planted-text-of-a-message";
const USER_KEY: &str = "planted-collapse-key";
/// Those whose rank is below are not addressed.
const EVERYONE: &str = "rank >= 0";

/// A device's locale, and the title of the alert that it should show.
const LOCALES: [(Option<&str>, &str); 6] = [
    (None, "The shop"),
    (Some("sv-FI"), "Butiken i Finland"),
    (Some("sv_SE"), "Butiken"),
    (Some("de-AT"), "Der Laden"),
    (Some("en"), "The shop"),
    (Some("svx"), "The shop"),
];

/// Every token, with the title that it should be shown.
fn tokens_of<'a>(devices: &'a [Device], titles: &'a BTreeMap<u64, &str>) -> Vec<(Token, String)> {
    let of = |device: &'a Device| {
        device.tokens.iter().map(move |token| (token.clone(), titles[&device.n].to_owned()))
    };
    devices.iter().flat_map(of).collect()
}

/// Devices of every kind, and each one's title.
fn fleet(bench: &Bench) -> (Vec<Device>, BTreeMap<u64, &'static str>) {
    let mut devices = bench.devices(12);
    let all = |n: u64| Channel::ALL.map(|channel| bench.token(channel, n)).to_vec();
    devices.push(Device::new(36, all(36)));
    devices.push(Device::new(37, vec![Token::apns(371), Token::apns(372)]));
    devices.push(Device::new(38, Vec::new()));
    let mut titles = BTreeMap::new();
    for device in &mut devices {
        let (locale, title) = LOCALES[(device.n % 6) as usize];
        if let Some(locale) = locale {
            device.attributes["locale"] = locale.into();
        }
        titles.insert(device.n, title);
    }
    (devices, titles)
}

/// The counts of the funnel that are about pushes.
fn expect_funnel(funnel: &Value, addressed: usize, tokens: &[(Token, String)]) {
    let of = |channel| tokens.iter().filter(|(token, _)| token.channel == channel).count();
    let pushed: BTreeMap<_, _> = Channel::ALL.map(|of_all| (of_all.name(), of(of_all))).into();
    assert_eq!(funnel["addressed"], addressed, "{funnel}");
    assert_eq!(funnel["pushed"], json!(pushed), "{funnel}");
    for none in ["failed", "skipped", "removed"] {
        assert_eq!(funnel[none], json!({}), "{none} in {funnel}");
    }
}

async fn arrive(store: Store) {
    let mut bench = Bench::start(store, APP, &["--push-grace", "500ms"], &[&[]]).await;
    bench.ok("POST", "groups", json!({"name": GROUP, "set_by": "both"})).await;
    let (devices, titles) = fleet(&bench);
    bench.import(&devices).await;
    let outsider = Device::new(39, Channel::ALL.map(|of| bench.token(of, 39)).to_vec());
    bench.import(&[outsider.clone().with("rank", -1)]).await;
    // One enrols by itself, tells its tokens, and goes away.
    let live = bench.client(&[("rank", json!(40)), ("locale", json!("de"))]).await;
    let own = Channel::ALL.map(|of| bench.token(of, 40)).to_vec();
    live.set_tokens(&own).await;
    let live_id = live.id.clone();
    drop(live);
    assert_eq!(bench.token_count(&live_id).await, 3);
    let mut tokens = tokens_of(&devices, &titles);
    tokens.extend(own.into_iter().map(|token| (token, "Der Laden".to_owned())));
    let addressed = devices.len() + 1;

    wakes(&mut bench, &tokens, &live_id, addressed).await;
    alerts(&mut bench, &tokens, addressed).await;
    let nobody = bench.pushed(&outsider.tokens).await;
    assert_eq!(nobody, [(0, 0); 3], "who is not addressed is not pushed");
    bench.no_breaches().await;
}

async fn wakes(bench: &mut Bench, tokens: &[(Token, String)], device: &str, addressed: usize) {
    let to = format!("{EVERYONE} or #{GROUP}");
    let body = json!({"text": BODY});
    let input = json!({"to": to, "body": body, "collapse_key": USER_KEY, "push": {"kind": "wake"}});
    let made = bench.ok("POST", "messages", input).await;
    let id = text(&made, "id").to_owned();
    bench.until_state(&id, "done").await;
    let names: Vec<Token> = tokens.iter().map(|(token, _)| token.clone()).collect();
    assert_eq!(bench.pushed(&names).await, vec![(0, 1); names.len()], "each is woken once");
    expect_funnel(&bench.funnel(&id).await, addressed, tokens);

    let app = bench.path.rsplit('/').next().expect("a path").to_owned();
    let number = u64::from_str_radix(&id, 16).expect("an id").to_string();
    let expires = text(&made, "expires_at").to_owned();
    let told = [APP, GROUP, BODY, USER_KEY, &id, &number, &app, device, &expires, "rank"];
    for channel in Channel::ALL {
        let captured = bench.simulator(channel).captured().await;
        let expected = names.iter().filter(|token| token.channel == channel).count();
        assert_eq!(captured.len(), expected, "{channel:?}");
        let lengths: Vec<usize> = captured.iter().map(|push| push.bytes().len()).collect();
        for (at, push) in captured.iter().enumerate() {
            // Opening one takes a process: three tell of all, whose lengths are the same.
            if channel == Channel::WebPush && at >= 3 {
                assert_eq!(lengths[at], lengths[0], "a wake's length tells nothing");
                continue;
            }
            let said = everything(channel, push);
            for marker in told {
                assert!(!said.contains(marker), "{marker:?} in a wake over {channel:?}: {said}");
            }
            expect_wake(channel, &payload(channel, push), &push.headers);
        }
    }
}

/// A wake is this and nothing else.
fn expect_wake(channel: Channel, payload: &Value, headers: &BTreeMap<String, String>) {
    let aps = json!({"content-available": 1});
    match channel {
        Channel::Apns => {
            assert_eq!(*payload, json!({"aps": aps, "carillon": "wake"}));
            let [topic, kind, priority, collapse] =
                ["topic", "push-type", "priority", "collapse-id"]
                    .map(|name| headers[&format!("apns-{name}")].clone());
            assert_eq!(
                [&*topic, &*kind, &*priority, &*collapse],
                [TOPIC, "background", "5", "wake"]
            );
        }
        Channel::Fcm => {
            let mut message = payload["message"].clone();
            let ttl = message["webpush"]["headers"]["TTL"].take();
            let expiration = message["apns"]["headers"]["apns-expiration"].take();
            message["android"]["ttl"].take();
            message["token"].take();
            assert!(ttl.is_string() && expiration.is_string(), "{payload}");
            let apns = json!({"apns-push-type": "background", "apns-priority": "5",
                "apns-collapse-id": "wake", "apns-expiration": null});
            let webpush = json!({"headers": {"TTL": null, "Urgency": "normal", "Topic": "wake"}});
            assert_eq!(
                message,
                json!({"token": null, "data": {"carillon": "wake"}, "webpush": webpush,
                    "android": {"priority": "normal", "ttl": null, "collapse_key": "wake"},
                    "apns": {"headers": apns, "payload": {"aps": aps}}})
            );
        }
        Channel::WebPush => {
            assert_eq!(*payload, json!({"carillon": "wake"}));
            assert_eq!((&*headers["topic"], &*headers["urgency"]), ("wake", "normal"));
        }
    }
}

async fn alerts(bench: &mut Bench, tokens: &[(Token, String)], addressed: usize) {
    bench.begin().await;
    let words = |title: &str| json!({"title": title, "body": format!("{title}: nine o'clock")});
    let input = json!({
        "to": EVERYONE, "body": {"text": BODY}, "collapse_key": USER_KEY, "priority": "high",
        "push": {
            "kind": "alert", "text": words("The shop"),
            "locales": {"sv": words("Butiken"), "sv-fi": words("Butiken i Finland"),
                        "de": words("Der Laden"), "fr": words("Le magasin")},
            "overrides": {"android": {"notification": {"channel_id": "offers"}},
                          "apns": {"aps": {"sound": "bell.caf"}, "deep": {"link": 7}},
                          "webpush": {"notification": {"icon": "/bell.png"}}},
        },
    });
    let made = bench.ok("POST", "messages", input).await;
    let id = text(&made, "id").to_owned();
    bench.until_state(&id, "done").await;
    let names: Vec<Token> = tokens.iter().map(|(token, _)| token.clone()).collect();
    assert_eq!(bench.pushed(&names).await, vec![(1, 0); names.len()], "each is alerted once");
    expect_funnel(&bench.funnel(&id).await, addressed, tokens);
    let series = format!("messages/{id}/funnel/series?counter=pushed&bucket=hour");
    let series = bench.ok("GET", &series, Value::Null).await;
    let points = series["points"].as_array().expect("points");
    let sum: u64 = points.iter().map(|point| point["n"].as_u64().expect("a count")).sum();
    assert_eq!(sum, names.len() as u64, "{series}");

    let mut collapse_ids = Vec::new();
    for channel in Channel::ALL {
        let titles: BTreeMap<String, &str> = tokens
            .iter()
            .filter(|(token, _)| token.channel == channel)
            .map(|(token, title)| (token.name(), &**title))
            .collect();
        let captured = bench.simulator(channel).captured().await;
        assert_eq!(captured.len(), titles.len(), "{channel:?}");
        let mut opened = BTreeSet::new();
        for push in &captured {
            // Opening one takes a process: one of each text will do.
            if channel == Channel::WebPush && !opened.insert(titles[&push.token]) {
                continue;
            }
            let words = words(titles[&push.token]);
            let payload = payload(channel, push);
            collapse_ids.push(expect_alert(channel, &id, &words, &payload, &push.headers));
            let said = everything(channel, push);
            for marker in [APP, GROUP, BODY, USER_KEY] {
                assert!(!said.contains(marker), "{marker:?} in an alert over {channel:?}: {said}");
            }
        }
    }
    collapse_ids.dedup();
    assert_eq!(collapse_ids.len(), 1, "one message has one collapse id: {collapse_ids:?}");
}

/// Gives the collapse id.
fn expect_alert(
    channel: Channel,
    id: &str,
    words: &Value,
    payload: &Value,
    headers: &BTreeMap<String, String>,
) -> String {
    match channel {
        Channel::Apns => {
            assert_eq!(
                *payload,
                json!({"aps": {"alert": words, "sound": "bell.caf"}, "deep": {"link": 7},
                       "carillon": "alert", "message": id})
            );
            assert_eq!((&*headers["apns-push-type"], &*headers["apns-priority"]), ("alert", "10"));
            headers["apns-collapse-id"].clone()
        }
        Channel::Fcm => {
            let message = &payload["message"];
            assert_eq!(message["notification"], *words);
            assert_eq!(message["data"], json!({"carillon": "alert", "message": id}));
            let collapse = text(&message["android"], "collapse_key");
            assert_eq!(
                message["android"]["notification"],
                json!({"tag": collapse, "channel_id": "offers"})
            );
            assert_eq!(message["android"]["priority"], "high");
            assert_eq!(message["apns"]["payload"]["aps"]["sound"], "bell.caf");
            assert_eq!(message["apns"]["headers"]["apns-collapse-id"], collapse);
            assert_eq!(message["webpush"]["notification"], json!({"icon": "/bell.png"}));
            assert_eq!(message["webpush"]["headers"]["Topic"], collapse);
            collapse.to_owned()
        }
        Channel::WebPush => {
            assert_eq!(
                *payload,
                json!({"title": words["title"], "body": words["body"], "carillon": "alert",
                       "message": id, "notification": {"icon": "/bell.png"}})
            );
            assert_eq!(headers["urgency"], "high");
            headers["topic"].clone()
        }
    }
}

#[tokio::test]
async fn wakes_and_alerts_arrive_over_all_channels_and_the_funnel_agrees_on_sqlite() {
    arrive(Store::Sqlite).await;
}

#[tokio::test]
async fn wakes_and_alerts_arrive_over_all_channels_and_the_funnel_agrees_on_mariadb() {
    arrive(Store::MariaDb).await;
}
