use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use carillon_central::channel::{AnyChannel, Channel as _, Providers, open};
use carillon_central::core::channel::{Outcome, Reason, Scope};
use carillon_world::{Environment, PushChannel};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Response;
use serde_json::{Value, json};

use super::provider::{Answer, Provider};
use super::{NOW, credential, rsa_pem, wake};

fn fcm(provider: &Provider) -> AnyChannel {
    let providers = Providers::new(provider.config(), provider.store()).unwrap();
    let json = json!({
        "type": "service_account", "project_id": "demo-1", "private_key": rsa_pem(),
        "client_email": "push@demo-1.example", "token_uri": "https://127.0.0.1:1/steal"
    });
    open(credential(PushChannel::Fcm, &json), Environment::Production, &providers)
}

/// Hands out tokens named by their number, `expires_in` seconds long, and takes only the last but `refuse` times.
async fn google(
    expires_in: u64,
    token_status: u16,
    accepts: fn(&str, usize) -> Answer,
) -> (Provider, Arc<AtomicUsize>) {
    let handed = Arc::new(AtomicUsize::new(0));
    let count = handed.clone();
    let provider = Provider::start(100, move |seen| {
        let count = count.clone();
        Box::pin(async move {
            if seen.path == "/token" {
                // So that many wait for it.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                let body = format!(r#"{{"access_token":"t{number}","expires_in":{expires_in},"token_type":"Bearer"}}"#);
                return Answer::Full(Response::builder().status(token_status).body(Bytes::from(body)).unwrap());
            }
            let bearer = seen.headers["authorization"].to_str().unwrap().to_owned();
            accepts(bearer.strip_prefix("Bearer ").unwrap(), count.load(Ordering::Relaxed))
        })
    })
    .await;
    (provider, handed)
}

async fn send_all(channel: &AnyChannel, count: usize, after_ms: u64) -> Vec<Outcome> {
    let prepared = channel.prepare(&wake()).unwrap();
    let sends: FuturesUnordered<_> =
        (0..count).map(|_| channel.send(NOW.plus(after_ms), "to:ken", &prepared)).collect();
    sends.collect().await
}

#[tokio::test]
async fn one_access_token_serves_all_and_is_renewed_before_it_ends() {
    let (provider, handed) = google(3600, 200, |_, _| Answer::Status(200, r#"{"name":"x"}"#)).await;
    let channel = fcm(&provider);
    let all = send_all(&channel, 200, 0).await;
    assert!(all.iter().all(|outcome| *outcome == Outcome::Accepted), "{all:?}");
    assert_eq!(handed.load(Ordering::Relaxed), 1);
    // In its last tenth one renews it, and nobody waits.
    let all = send_all(&channel, 200, 3_300_000).await;
    assert!(all.iter().all(|outcome| *outcome == Outcome::Accepted), "{all:?}");
    assert_eq!(handed.load(Ordering::Relaxed), 2);

    let seen = provider.seen();
    let grant = seen.iter().find(|seen| seen.path == "/token").unwrap();
    assert_eq!(grant.headers["content-type"], "application/x-www-form-urlencoded");
    assert!(grant.body.starts_with(
        b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=ey"
    ));
    let push = seen.iter().find(|seen| seen.path == "/v1/projects/demo-1/messages:send").unwrap();
    let body: Value = serde_json::from_slice(&push.body).unwrap();
    assert_eq!(body["message"]["token"], "to:ken");
    assert_eq!(body["message"]["data"], json!({ "carillon": "wake" }));
}

#[tokio::test]
async fn a_token_that_ended_early_is_renewed_once_and_a_second_refusal_is_final() {
    // Only the second token works.
    let accepts = |token: &str, _| match token {
        "t2" => Answer::Status(200, "{}"),
        _ => Answer::Status(401, r#"{"error":{"status":"UNAUTHENTICATED"}}"#),
    };
    let (provider, handed) = google(3600, 200, accepts).await;
    let channel = fcm(&provider);
    let refused = Outcome::Refused { reason: Reason("unauthenticated") };
    assert_eq!(send_all(&channel, 1, 0).await[0], refused, "fresh");
    assert_eq!(handed.load(Ordering::Relaxed), 1);
    let all = send_all(&channel, 100, 60_000).await;
    assert!(all.iter().all(|outcome| *outcome == Outcome::Accepted), "{all:?}");
    assert_eq!(handed.load(Ordering::Relaxed), 2);

    let (provider, handed) = google(3600, 200, |_, _| Answer::Status(401, "")).await;
    let channel = fcm(&provider);
    send_all(&channel, 1, 0).await;
    assert_eq!(send_all(&channel, 1, 60_000).await, [refused]);
    assert_eq!((handed.load(Ordering::Relaxed), provider.seen().len()), (2, 5));
}

#[tokio::test]
async fn no_access_token_is_our_credentials_fault_or_googles() {
    let (provider, handed) = google(3600, 400, |_, _| Answer::Status(200, "")).await;
    let all = send_all(&fcm(&provider), 100, 0).await;
    let refused = Outcome::Refused { reason: Reason("invalid_grant") };
    assert!(all.iter().all(|outcome| *outcome == refused), "{all:?}");
    assert_eq!(handed.load(Ordering::Relaxed), 1, "one asked for all that waited");

    let (provider, _) = google(3600, 503, |_, _| Answer::Status(200, "")).await;
    let later =
        Outcome::Later { after: None, scope: Scope::Channel, reason: Reason("no_access_token") };
    assert_eq!(send_all(&fcm(&provider), 1, 0).await, [later]);
}

#[tokio::test]
async fn retry_after_is_handed_on() {
    let (provider, _) = google(3600, 200, |_, _| {
        let response = Response::builder().status(429).header("retry-after", "17");
        Answer::Full(response.body(Bytes::from_static(b"{}")).unwrap())
    })
    .await;
    let later = Outcome::Later {
        after: Some(Duration::from_secs(17)),
        scope: Scope::Channel,
        reason: Reason("quota_exceeded"),
    };
    assert_eq!(send_all(&fcm(&provider), 1, 0).await, [later]);
}
