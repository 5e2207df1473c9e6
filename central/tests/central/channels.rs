//! The channels against servers that do what providers do: several connections, limits, GOAWAY, resets, silence.

mod apns;
mod fcm;
mod outbound;
mod provider;
mod web_push;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Mutex;

use carillon_central::core::channel::Notice;
use carillon_central::core::channel::credential::Credential;
use carillon_central::outbound::Resolve;
use carillon_world::{AlertText, MessageId, Millis, Priority, PushChannel, PushOverrides};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

const NOW: Millis = Millis(1_790_000_000_000);
const MINUTE: u64 = 60_000;

fn wake() -> Notice {
    Notice {
        message: MessageId::new(7),
        text: None,
        collapse: "wake".into(),
        priority: Priority::High,
        expires_at: NOW.plus(3_600_000),
        overrides: PushOverrides::default(),
    }
}

fn alert() -> Notice {
    let text = AlertText { title: "Title".into(), body: "Body".into() };
    Notice { text: Some(text), collapse: "c1".into(), ..wake() }
}

fn pem() -> String {
    rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem()
}

fn rsa_pem() -> String {
    use aws_lc_rs::encoding::AsDer as _;
    use base64::Engine as _;
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der = pair.as_der().unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
}

fn credential(channel: PushChannel, json: &Value) -> Credential {
    Credential::parse(channel, json.to_string().as_bytes()).unwrap()
}

fn apns_credential(pem: &str) -> Credential {
    let json = json!({
        "team_id": "TEAM123456", "key_id": "KEY1234567", "key": pem, "topic": "com.example.app"
    });
    credential(PushChannel::Apns, &json)
}

/// Names that resolve as a test says; an answer may differ from time to time.
#[derive(Debug, Default)]
struct Names {
    answers: HashMap<String, Vec<Vec<IpAddr>>>,
    asked: Mutex<HashMap<String, usize>>,
}

impl Names {
    fn with(mut self, name: &str, answers: &[&[&str]]) -> Names {
        let parse = |text: &&str| text.parse().unwrap();
        let answers = answers.iter().map(|one| one.iter().map(parse).collect()).collect();
        self.answers.insert(name.to_owned(), answers);
        self
    }

    fn asked(&self, name: &str) -> usize {
        self.asked.lock().unwrap().get(name).copied().unwrap_or(0)
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        let mut asked = self.asked.lock().unwrap();
        let time = asked.entry(name.to_owned()).or_default();
        let answers = self.answers.get(name);
        let answer = answers.map(|answers| answers[(*time).min(answers.len() - 1)].clone());
        *time += 1;
        Box::pin(std::future::ready(answer.ok_or_else(|| io::Error::other("no such name"))))
    }
}
