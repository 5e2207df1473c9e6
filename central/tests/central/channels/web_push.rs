use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use carillon_central::channel::{AnyChannel, Channel as _, Providers, open};
use carillon_central::config::{ProviderConfig, StoreConfig};
use carillon_central::core::channel::{Outcome, Reason, Scope};
use carillon_world::{Environment, PushChannel};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Response;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::provider::{Answer, Provider, identity};
use super::{NOW, Names, alert, credential, wake};

const PRIVATE: &str = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";

fn token(endpoint: &str) -> String {
    json!({ "endpoint": endpoint, "keys": { "p256dh": P256DH, "auth": "BTBZMqHH6r4Tts7J_aSIgg" } })
        .to_string()
}

fn web_push(config: ProviderConfig, names: Names) -> AnyChannel {
    let providers =
        Providers::with_resolver(config, StoreConfig::default(), Arc::new(names)).unwrap();
    let json = json!({ "subject": "mailto:ops@example.com", "private_key": PRIVATE });
    open(credential(PushChannel::WebPush, &json), Environment::Production, &providers)
}

fn local() -> Names {
    Names::default()
        .with("push.example", &[&["127.0.0.1"]])
        .with("other.example", &[&["127.0.0.1"]])
}

fn later(reason: &'static str) -> Outcome {
    Outcome::Later { after: None, scope: Scope::Target, reason: Reason(reason) }
}

#[tokio::test]
async fn a_request_has_what_the_rfcs_ask_for() {
    let provider = Provider::start(100, |_| Box::pin(async { Answer::Status(201, "") })).await;
    let channel = web_push(provider.config(), local());
    let endpoint = format!("https://push.example:{}/push/a?b=c", provider.address.port());
    for notice in [wake(), alert()] {
        let prepared = channel.prepare(&notice).unwrap();
        assert_eq!(channel.send(NOW, &token(&endpoint), &prepared).await, Outcome::Accepted);
    }
    let [wake, alert] = provider.seen().try_into().unwrap();
    assert_eq!(wake.path, "/push/a");
    let header = |name: &str| wake.headers[name].to_str().unwrap();
    for (name, value) in
        [("ttl", "3600"), ("urgency", "high"), ("topic", "wake"), ("content-encoding", "aes128gcm")]
    {
        assert_eq!(header(name), value, "{name}");
    }
    assert_eq!(wake.body.len(), alert.body.len());
    assert_ne!(wake.body[..16], alert.body[..16], "a salt of its own");
    assert_ne!(wake.body[21..86], alert.body[21..86], "a key of its own");
    let jwt = header("authorization").strip_prefix("vapid t=").unwrap();
    let claims = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    let origin = format!("https://push.example:{}", provider.address.port());
    assert_eq!(claims["aud"], origin.as_str());
    assert_eq!(wake.headers["authorization"], alert.headers["authorization"], "made once");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_an_endless_reply_is_cut_off() {
    let provider = Provider::start(100, |seen| {
        Box::pin(async move {
            if seen.path == "/endless" {
                return Answer::Endless;
            }
            let response = Response::builder().status(307).header("location", "/other");
            Answer::Full(response.body(Bytes::new()).unwrap())
        })
    })
    .await;
    let channel = web_push(provider.config(), local());
    let prepared = channel.prepare(&wake()).unwrap();
    let origin = format!("https://push.example:{}", provider.address.port());
    let outcome = channel.send(NOW, &token(&format!("{origin}/a")), &prepared).await;
    assert_eq!(outcome, Outcome::Failed { reason: Reason("redirect") });
    let outcome = channel.send(NOW, &token(&format!("{origin}/endless")), &prepared).await;
    assert_eq!(outcome, Outcome::Accepted);
    assert_eq!(provider.seen().len(), 2);
}

#[tokio::test]
async fn a_slow_origin_leaves_room_for_the_others() {
    let provider = Provider::start(100, |seen| {
        Box::pin(async move {
            if seen.path == "/slow" {
                std::future::pending::<()>().await;
            }
            Answer::Status(201, "")
        })
    })
    .await;
    let mut config = provider.config();
    (config.origin_in_flight_max, config.origins_max) = (5, 2);
    let channel = web_push(config, local().with("third.example", &[&["127.0.0.1"]]));
    let prepared = channel.prepare(&wake()).unwrap();
    let port = provider.address.port();
    let slow = token(&format!("https://push.example:{port}/slow"));
    let fast = token(&format!("https://other.example:{port}/fast"));
    let mut slows: FuturesUnordered<_> =
        (0..8).map(|_| channel.send(NOW, &slow, &prepared)).collect();
    for _ in 0..3 {
        assert_eq!(slows.next().await, Some(Outcome::Busy));
    }
    assert_eq!(slows.len(), 5);
    assert_eq!(channel.send(NOW, &fast, &prepared).await, Outcome::Accepted);
    // The slow one cannot be put aside for a third, the idle one can.
    let third = token(&format!("https://third.example:{port}/fast"));
    assert_eq!(
        channel.send(NOW, &third, &prepared).await,
        later("tls"),
        "no such name in the certificate"
    );
    assert_eq!(channel.send(NOW, &slow, &prepared).await, Outcome::Busy);
}

#[tokio::test]
async fn an_origin_without_http_2_is_spoken_to_as_well() {
    let (ca, acceptor) = identity(&[b"http/1.1"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heads, mut heads_seen) = tokio::sync::mpsc::unbounded_channel();
    let server = tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, heads) = (acceptor.clone(), heads.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                let mut bytes = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
                    if let Some(end) = end {
                        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
                        let length =
                            head.lines().find_map(|line| line.strip_prefix("content-length: "));
                        let whole = end + 4 + length.unwrap().parse::<usize>().unwrap();
                        if bytes.len() >= whole {
                            bytes.drain(..whole);
                            heads.send(head).unwrap();
                            let answer = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok";
                            tls.write_all(answer).await.unwrap();
                            continue;
                        }
                    }
                    match tls.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(n) => bytes.extend_from_slice(&buffer[..n]),
                    }
                }
            });
        }
    });
    let config = ProviderConfig {
        ca_file: Some(ca.path().to_owned()),
        web_push_ports: vec![port],
        private_networks: vec!["127.0.0.0/8".parse().unwrap()],
        connect_timeout: Duration::from_secs(30),
        ..ProviderConfig::default()
    };
    let channel = web_push(config, local());
    let prepared = channel.prepare(&wake()).unwrap();
    let to = token(&format!("https://push.example:{port}/push/1?x=y"));
    let sends: FuturesUnordered<_> = (0..20).map(|_| channel.send(NOW, &to, &prepared)).collect();
    let outcomes: Vec<_> = sends.collect().await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Accepted), "{outcomes:?}");
    let head = heads_seen.recv().await.unwrap();
    assert!(head.starts_with("POST /push/1?x=y HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: push.example:{port}\r\n")), "{head}");
    server.abort();
}
