use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon_central::channel::{AnyChannel, Channel as _, Providers, open};
use carillon_central::core::channel::{Outcome, Reason, Scope};
use carillon_world::Environment;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;

use super::provider::{Answer, Provider};
use super::{MINUTE, NOW, alert, apns_credential, pem, wake};

async fn accepting(streams_max: u32) -> Provider {
    Provider::start(streams_max, |_| Box::pin(async { Answer::Status(200, "") })).await
}

fn apns(provider: &Provider) -> AnyChannel {
    let providers = Providers::new(provider.config(), provider.store()).unwrap();
    open(apns_credential(&pem()), Environment::Production, &providers)
}

/// Sends to so many tokens at once; outcomes in no order.
async fn send_all(channel: &AnyChannel, tokens: usize) -> Vec<Outcome> {
    let prepared = channel.prepare(&wake()).unwrap();
    let tokens: Vec<String> = (0..tokens).map(|n| format!("{n:064x}")).collect();
    let sends: FuturesUnordered<_> =
        tokens.iter().map(|token| channel.send(NOW, token, &prepared)).collect();
    sends.collect().await
}

fn later(scope: Scope, reason: &'static str) -> Outcome {
    Outcome::Later { after: None, scope, reason: Reason(reason) }
}

#[tokio::test]
async fn a_request_has_what_apple_asks_for() {
    let provider = accepting(100).await;
    let channel = apns(&provider);
    let prepared = channel.prepare(&alert()).unwrap();
    assert_eq!(channel.send(NOW, "00ff", &prepared).await, Outcome::Accepted);
    let prepared = channel.prepare(&wake()).unwrap();
    assert_eq!(channel.send(NOW, "00ff", &prepared).await, Outcome::Accepted);

    let [alert, wake] = provider.seen().try_into().unwrap();
    assert_eq!(alert.path, "/3/device/00ff");
    let header = |name: &str| alert.headers[name].to_str().unwrap();
    let expected = [
        ("apns-topic", "com.example.app"),
        ("apns-push-type", "alert"),
        ("apns-priority", "10"),
        ("apns-expiration", "1790003600"),
        ("apns-collapse-id", "c1"),
    ];
    for (name, value) in expected {
        assert_eq!(header(name), value, "{name}");
    }
    let jwt = header("authorization").strip_prefix("bearer ").unwrap();
    let json = |n: usize| -> Value {
        let part = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(n).unwrap()).unwrap();
        serde_json::from_slice(&part).unwrap()
    };
    assert_eq!(
        (json(0)["alg"].as_str(), json(0)["kid"].as_str()),
        (Some("ES256"), Some("KEY1234567"))
    );
    assert_eq!(
        (json(1)["iss"].as_str(), json(1)["iat"].as_u64()),
        (Some("TEAM123456"), Some(NOW.0 / 1000))
    );
    assert_eq!(wake.headers["apns-push-type"], "background");
    assert_eq!(wake.headers["apns-priority"], "5");
    assert_eq!(wake.body, r#"{"aps":{"content-available":1},"carillon":"wake"}"#);
}

#[tokio::test]
async fn a_connection_has_as_many_streams_as_the_provider_allows_and_never_more() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = gate.clone();
    let provider = Provider::start(7, move |_| {
        let held = held.clone();
        Box::pin(async move {
            held.acquire().await.unwrap().forget();
            Answer::Status(200, "")
        })
    })
    .await;
    let channel = apns(&provider);
    let all = send_all(&channel, 500);
    let full = async {
        while provider.seen().len() < 4 * 7 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gate.add_permits(1000);
    };
    let (outcomes, ()) = tokio::join!(all, full);
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Accepted), "{outcomes:?}");
    assert_eq!((provider.streams_peak.load(Ordering::Relaxed), provider.connections()), (7, 4));
}

#[tokio::test]
async fn more_connections_are_opened_when_they_are_needed_and_no_more_than_allowed() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = gate.clone();
    let provider = Provider::start(1000, move |_| {
        let held = held.clone();
        Box::pin(async move {
            let _ = held.acquire().await;
            Answer::Status(200, "")
        })
    })
    .await;
    let mut config = provider.config();
    (config.connections_max, config.streams_max) = (3, 10);
    let providers = Providers::new(config, provider.store()).unwrap();
    let channel = open(apns_credential(&pem()), Environment::Production, &providers);
    assert_eq!(channel.in_flight_max(), 30);
    let prepared = channel.prepare(&wake()).unwrap();
    let mut sends = FuturesUnordered::new();
    // One is one connection's work; thirty are three's.
    for count in [1, 29] {
        let before = provider.seen().len();
        let tokens = (0..count).map(|_| channel.send(NOW, "00", &prepared));
        sends.extend(tokens);
        while provider.seen().len() < before + count {
            tokio::select! {
                done = sends.next() => panic!("{done:?} while held"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
        assert_eq!(provider.connections(), if count == 1 { 1 } else { 3 });
    }
    assert!(provider.streams_peak.load(Ordering::Relaxed) <= 10);
    gate.add_permits(1000);
    assert_eq!(
        sends.filter(|outcome| std::future::ready(*outcome == Outcome::Accepted)).count().await,
        30
    );
}

#[tokio::test]
async fn what_a_goaway_leaves_out_goes_over_another_connection() {
    let count = AtomicUsize::new(0);
    let provider = Provider::start(100, move |_| {
        let go_away = count.fetch_add(1, Ordering::Relaxed) % 50 == 49;
        Box::pin(async move { if go_away { Answer::GoAway } else { Answer::Status(200, "") } })
    })
    .await;
    let channel = apns(&provider);
    let outcomes = send_all(&channel, 1000).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Accepted), "{outcomes:?}");
    let mut times = BTreeMap::new();
    for seen in provider.seen() {
        *times.entry(seen.path).or_insert(0) += 1;
    }
    assert_eq!(times.len(), 1000);
    // The end of a closing connection may be lost in the network with the answers in it.
    let repeats: usize = times.values().map(|times| times - 1).sum();
    assert!(repeats <= 50, "{repeats}");
    assert!(provider.connections() > 4, "{}", provider.connections());
}

#[tokio::test]
async fn a_refused_stream_goes_again_and_a_reset_one_does_not() {
    let count = AtomicUsize::new(0);
    let provider = Provider::start(100, move |_| {
        let reason = match count.fetch_add(1, Ordering::Relaxed) {
            0 => Some(h2::Reason::REFUSED_STREAM),
            2 => Some(h2::Reason::INTERNAL_ERROR),
            _ => None,
        };
        Box::pin(async move { reason.map_or(Answer::Status(200, ""), Answer::Reset) })
    })
    .await;
    let channel = apns(&provider);
    let prepared = channel.prepare(&wake()).unwrap();
    assert_eq!(channel.send(NOW, "00", &prepared).await, Outcome::Accepted);
    assert_eq!(provider.seen().len(), 2);
    assert_eq!(channel.send(NOW, "00", &prepared).await, later(Scope::Target, "reset"));
    assert_eq!(provider.seen().len(), 3);
}

#[tokio::test]
async fn a_lost_connection_holds_up_the_channel_and_the_next_push_opens_another() {
    let count = AtomicUsize::new(0);
    let provider = Provider::start(100, move |_| {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        Box::pin(async move { if first { Answer::Cut } else { Answer::Status(200, "") } })
    })
    .await;
    let channel = apns(&provider);
    assert_eq!(send_all(&channel, 1).await, [later(Scope::Channel, "connection_lost")]);
    assert_eq!(send_all(&channel, 1).await, [Outcome::Accepted]);
    assert_eq!(provider.connections(), 2);
}

#[tokio::test]
async fn a_provider_that_is_down_is_tried_once_for_all_that_wait() {
    let provider = accepting(100).await;
    let config = provider.config();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config;
    config.apns_production =
        format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port()).parse().unwrap();
    drop(listener);
    let providers = Providers::new(config, provider.store()).unwrap();
    let channel = open(apns_credential(&pem()), Environment::Production, &providers);
    let outcomes = send_all(&channel, 1000).await;
    assert!(outcomes.iter().all(|o| *o == later(Scope::Channel, "unreachable")), "{outcomes:?}");
    // And a certificate that nobody trusts is no provider.
    let mut config = provider.config();
    config.ca_file = None;
    let providers = Providers::new(config, provider.store()).unwrap();
    let channel = open(apns_credential(&pem()), Environment::Production, &providers);
    let outcomes = send_all(&channel, 1000).await;
    assert!(outcomes.iter().all(|o| *o == later(Scope::Channel, "tls")), "{outcomes:?}");
    assert_eq!(provider.connections(), 1);
}

#[tokio::test]
async fn a_provider_that_is_silent_is_given_up_in_bounded_time() {
    let provider = Provider::start(100, |_| Box::pin(std::future::pending())).await;
    let mut config = provider.config();
    config.request_timeout = Duration::from_millis(300);
    let providers = Providers::new(config, provider.store()).unwrap();
    let channel = open(apns_credential(&pem()), Environment::Production, &providers);
    assert_eq!(send_all(&channel, 1).await, [later(Scope::Channel, "timeout")]);
}

#[tokio::test]
async fn all_apps_of_a_team_and_all_restarts_share_a_provider_token_for_45_minutes() {
    let provider = Provider::start(100, |seen| {
        let stale = seen.path.ends_with("/dead");
        Box::pin(async move {
            if stale {
                Answer::Status(403, r#"{"reason":"ExpiredProviderToken"}"#)
            } else {
                Answer::Status(200, "")
            }
        })
    })
    .await;
    let providers = Providers::new(provider.config(), provider.store()).unwrap();
    let (ours, other) = (pem(), pem());
    let one = open(apns_credential(&ours), Environment::Production, &providers);
    let two = open(apns_credential(&ours), Environment::Sandbox, &providers);
    let forged = open(apns_credential(&other), Environment::Production, &providers);
    let prepared = one.prepare(&wake()).unwrap();
    let refused = Outcome::Refused { reason: Reason("expired_provider_token") };
    let bearers = |provider: &Provider| -> Vec<String> {
        let mut seen = provider.seen.lock().unwrap();
        seen.drain(..)
            .map(|seen| seen.headers["authorization"].to_str().unwrap().to_owned())
            .collect()
    };

    assert_eq!(one.send(NOW, "00", &prepared).await, Outcome::Accepted);
    assert_eq!(two.send(NOW, "00", &prepared).await, Outcome::Accepted);
    assert_eq!(forged.send(NOW, "00", &prepared).await, Outcome::Accepted);
    let first = bearers(&provider);
    assert_eq!(first[0], first[1]);
    assert_ne!(first[0], first[2], "another key's token");

    // Another would be the same text.
    assert_eq!(one.send(NOW.plus(44 * MINUTE), "dead", &prepared).await, refused);
    assert_eq!(bearers(&provider), [first[0].clone()]);
    // Somebody who starts meanwhile says the same, though it knows nothing but the store.
    let restarted = Providers::new(provider.config(), provider.store()).unwrap();
    let again = open(apns_credential(&ours), Environment::Production, &restarted);
    assert_eq!(again.send(NOW.plus(44 * MINUTE), "00", &prepared).await, Outcome::Accepted);
    assert_eq!(bearers(&provider), [first[0].clone()]);
    // After 45 minutes it is another, and all have it for as long.
    assert_eq!(two.send(NOW.plus(45 * MINUTE), "00", &prepared).await, Outcome::Accepted);
    assert_eq!(one.send(NOW.plus(46 * MINUTE), "00", &prepared).await, Outcome::Accepted);
    assert_eq!(again.send(NOW.plus(89 * MINUTE), "00", &prepared).await, Outcome::Accepted);
    let restarted = Providers::new(provider.config(), provider.store()).unwrap();
    let again = open(apns_credential(&ours), Environment::Production, &restarted);
    assert_eq!(again.send(NOW.plus(89 * MINUTE), "00", &prepared).await, Outcome::Accepted);
    let second = bearers(&provider);
    assert_ne!(second[0], first[0]);
    assert_eq!(second, vec![second[0].clone(); 4]);
}

/// Whatever the hour at which they start, and however often they start again.
#[tokio::test]
async fn a_provider_token_is_changed_every_45_minutes_whoever_starts_when() {
    let provider = accepting(100).await;
    let ours = pem();
    let (mut changes, mut last) = (Vec::new(), None);
    for minute in (0..200).step_by(4) {
        // As after a kill: all it knows is in the store.
        let providers = Providers::new(provider.config(), provider.store()).unwrap();
        let one = open(apns_credential(&ours), Environment::Production, &providers);
        let prepared = one.prepare(&wake()).unwrap();
        let now = NOW.plus((minute + 43) * MINUTE);
        assert_eq!(one.send(now, "00", &prepared).await, Outcome::Accepted);
        let seen = provider.seen.lock().unwrap().pop().unwrap().headers["authorization"].clone();
        if last.as_ref() != Some(&seen) {
            changes.push(minute);
            last = Some(seen);
        }
    }
    assert_eq!(changes, [0, 48, 96, 144, 192]);
}

#[tokio::test]
async fn a_store_that_does_not_say_which_provider_token_is_in_use_lets_pushes_wait() {
    let provider = accepting(100).await;
    let mut store = provider.store();
    store.url = "sqlite:///no/such/folder/carillon.db".parse().unwrap();
    let providers = Providers::new(provider.config(), store).unwrap();
    let channel = open(apns_credential(&pem()), Environment::Production, &providers);
    let outcomes = send_all(&channel, 20).await;
    let unknown = later(Scope::Channel, "provider_token_unavailable");
    assert!(outcomes.iter().all(|outcome| *outcome == unknown), "{outcomes:?}");
    assert_eq!(provider.connections(), 0);
}

#[tokio::test]
async fn a_token_of_no_device_is_not_sent_anywhere() {
    let provider = accepting(100).await;
    let channel = apns(&provider);
    let prepared = channel.prepare(&wake()).unwrap();
    for bad in ["", "../x", "00\r\n", "zz"] {
        let outcome = channel.send(NOW, bad, &prepared).await;
        assert_eq!(outcome, Outcome::Failed { reason: Reason("bad_device_token") });
    }
    assert_eq!(provider.connections(), 0);
    let shown = format!("{channel:?} {prepared:?}");
    assert!(!shown.contains("bearer") && !shown.contains("TEAM"), "{shown}");
}
