//! The guard, as an attacker meets it: endpoints of Web Push that lead inside.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use carillon_central::callbacks::{Call, CallbackSender};
use carillon_central::channel::{Channel as _, Providers, open};
use carillon_central::config::{CallbackConfig, ProviderConfig, StoreConfig};
use carillon_central::core::callback::delivery;
use carillon_central::core::callback::secret::CallbackSecret;
use carillon_central::core::channel::Outcome;
use carillon_central::outbound::DialError;
use carillon_world::{Environment, PushChannel};
use serde_json::json;
use tokio::net::TcpListener;

use super::provider::{Answer, Provider};
use super::{NOW, Names, credential, wake};

const LIMIT: Duration = Duration::from_secs(30);

/// URLs that are to be refused wherever they are given; `{}` stands for the port that a listener waits on.
const HOSTILE: &str = include_str!("../../../../tests/hostile-urls.txt");

/// Endpoints that are to be refused, too; the names are those of [`names`].
const HOSTILE_HERE: [&str; 8] = [
    "",
    "https://inside.example:{}/",
    "https://mixed.example:{}/",
    "https://mapped.example:{}/",
    "https://sixtofour.example:{}/",
    "https://nat64.example:{}/",
    "https://metadata.example:{}/",
    "https://nothing.example:{}/",
];

fn hostile() -> Vec<&'static str> {
    let everywhere = HOSTILE.lines().filter(|line| !line.starts_with('#'));
    let all: Vec<&str> = everywhere.chain(HOSTILE_HERE).collect();
    assert!(all.len() > 70, "the table shrank");
    all
}

fn names() -> Names {
    Names::default()
        .with("localhost", &[&["127.0.0.1"]])
        .with("localhost.", &[&["127.0.0.1"]])
        .with("inside.example", &[&["127.0.0.1"]])
        .with("mixed.example", &[&["8.8.8.8", "127.0.0.1"]])
        .with("mapped.example", &[&["::ffff:127.0.0.1"]])
        .with("sixtofour.example", &[&["2002:7f00:1::1"]])
        .with("nat64.example", &[&["64:ff9b::7f00:1"]])
        .with("metadata.example", &[&["169.254.169.254"]])
        .with("nothing.example", &[&[]])
}

#[tokio::test]
async fn no_endpoint_of_the_table_makes_a_connection() {
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = trap.local_addr().unwrap().port();
    let sprung = Arc::new(AtomicUsize::new(0));
    let count = sprung.clone();
    let trapping = tokio::spawn(async move {
        loop {
            let _ = trap.accept().await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let config = ProviderConfig {
        web_push_ports: vec![443, port],
        connect_timeout: LIMIT,
        ..ProviderConfig::default()
    };
    let providers =
        Providers::with_resolver(config, StoreConfig::default(), Arc::new(names())).unwrap();
    let json = json!({
        "subject": "mailto:ops@example.com",
        "private_key": "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
    });
    let credential = credential(PushChannel::WebPush, &json);
    let channel = open(credential, Environment::Production, &providers);
    let prepared = channel.prepare(&wake()).unwrap();
    for endpoint in hostile() {
        let endpoint = endpoint.replace("{}", &port.to_string());
        let token = json!({ "endpoint": endpoint, "keys": {
            "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            "auth": "BTBZMqHH6r4Tts7J_aSIgg",
        } });
        let outcome = channel.send(NOW, &token.to_string(), &prepared).await;
        let reason = match &outcome {
            Outcome::Failed { reason } | Outcome::Later { reason, .. } => reason.0,
            other => panic!("{endpoint}: {other:?}"),
        };
        let expected = [
            "bad_endpoint",
            "endpoint_address_not_allowed",
            "endpoint_port_not_allowed",
            "unresolved",
        ];
        assert!(expected.contains(&reason), "{endpoint}: {reason}");
    }
    // The trap works.
    tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    while sprung.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sprung.load(Ordering::Relaxed), 1);
    trapping.abort();
}

#[tokio::test]
async fn a_name_that_answers_differently_the_second_time_gains_nothing() {
    let provider = Provider::start(100, |_| Box::pin(async { Answer::Status(201, "") })).await;
    let port = provider.address.port();
    // Allowed: 127.0.0.2 to 127.0.0.3. The name leads there first, then to what is not allowed.
    let config = ProviderConfig {
        private_networks: vec!["127.0.0.2/31".parse().unwrap()],
        web_push_ports: vec![port],
        connect_timeout: LIMIT,
        ca_file: Some(provider.ca.path().to_owned()),
        ..ProviderConfig::default()
    };
    let names = Arc::new(Names::default().with("push.example", &[&["127.0.0.2"], &["127.0.0.1"]]));
    let providers =
        Providers::with_resolver(config, StoreConfig::default(), names.clone()).unwrap();
    let dialer = providers.guarded();
    let url = format!("https://push.example:{port}/").parse().unwrap();
    // Nobody listens on 127.0.0.2: had it been resolved again for the connection, the provider would have answered.
    assert_eq!(dialer.dial(&url).await.err(), Some(DialError::Connect));
    assert_eq!(names.asked("push.example"), 1, "checked and connected by one answer");
    assert_eq!(dialer.dial(&url).await.err(), Some(DialError::Address), "checked at every attempt");
    assert_eq!(provider.connections(), 0);
}

#[tokio::test]
async fn what_is_legal_passes() {
    let provider = Provider::start(100, |_| Box::pin(async { Answer::Status(201, "") })).await;
    let mut config = provider.config();
    config.connect_timeout = LIMIT;
    let port = provider.address.port();
    let names = Names::default()
        .with("push.example", &[&["127.0.0.1"]])
        .with("other.example", &[&["::ffff:127.0.0.1", "127.0.0.1"]])
        .with("localhost", &[&["127.0.0.1"]]);
    let providers =
        Providers::with_resolver(config, StoreConfig::default(), Arc::new(names)).unwrap();
    let dialer = providers.guarded();
    for legal in [
        "https://push.example:{}/",
        "https://push.example:{}",
        "https://push.example:{}/wpush/v2/gAAAA",
        "https://PUSH.example:{}/a?b=c",
        "https://other.example:{}/",
        "HTTPS://push.example:{}/",
        "https://localhost:{}/",
        "https://127.0.0.1:{}/x",
        "https://push.example:{}?x",
        "https://push.example:{}/~a/_b-c.d",
    ] {
        let url = legal.replace("{}", &port.to_string()).parse().unwrap();
        assert!(dialer.dial(&url).await.is_ok(), "{legal}");
    }
}

/// Of callbacks the same: an admin's URL, whatever its name answers.
#[tokio::test]
async fn no_callback_of_the_table_makes_a_connection_and_rebinding_gains_nothing() {
    let provider = Provider::start(100, |_| Box::pin(async { Answer::Status(200, "") })).await;
    let port = provider.address.port();
    let config = |networks: &[&str]| CallbackConfig {
        ports: vec![443, port],
        private_networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
        connect_timeout: LIMIT,
        ca_file: Some(provider.ca.path().to_owned()),
        ..CallbackConfig::default()
    };
    let call = Call { id: "test-1".into(), body: Bytes::from_static(b"{}") };
    let secrets = [CallbackSecret::new([7; 32])];
    let sender = CallbackSender::with_resolver(&config(&[]), None, Arc::new(names())).unwrap();
    let mut refused = 0;
    for url in hostile() {
        let url = url.replace("{}", &port.to_string());
        let Ok(line) = sender.line(&url) else {
            refused += 1;
            continue;
        };
        let called = sender.call(&line, &secrets, &call).await;
        let delivery::Outcome::Failed { error, .. } = &called.outcome else {
            panic!("{url}: {called:?}")
        };
        let expected = ["the address is not allowed", "the name does not resolve"];
        assert!(expected.contains(&&**error), "{url}: {error}");
    }
    assert!(refused > 50, "{refused}");
    assert_eq!(provider.connections(), 0);

    // Allowed first, then not; nobody listens at the first.
    let rebinding = Names::default().with("push.example", &[&["127.0.0.2"], &["127.0.0.1"]]);
    let rebinding = Arc::new(rebinding);
    let sender =
        CallbackSender::with_resolver(&config(&["127.0.0.2/31"]), None, rebinding.clone()).unwrap();
    let line = sender.line(&format!("https://push.example:{port}/")).unwrap();
    for error in ["the host does not answer", "the address is not allowed"] {
        let called = sender.call(&line, &secrets, &call).await;
        let expected = delivery::Outcome::Failed { error: error.into(), after: None };
        assert_eq!(called.outcome, expected);
    }
    assert_eq!(rebinding.asked("push.example"), 2, "once a connection");
    assert_eq!(provider.connections(), 0);

    // What is allowed is called, so that the others were refused for what they are.
    let open = Names::default().with("push.example", &[&["127.0.0.1"]]);
    let sender =
        CallbackSender::with_resolver(&config(&["127.0.0.1/32"]), None, Arc::new(open)).unwrap();
    let line = sender.line(&format!("https://push.example:{port}/")).unwrap();
    let called = sender.call(&line, &secrets, &call).await;
    assert_eq!((called.outcome, called.status), (delivery::Outcome::Delivered, Some(200)));
    assert_eq!(provider.connections(), 1);
    // Its time is the machine's: whoever verifies it compares it with their own.
    let seen = provider.seen();
    let sent: u64 = seen[0].headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(sent) < 120, "{sent} at {now}");
}
