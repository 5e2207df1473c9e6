//! Callers that write while things break, and what has to be true of every answer that they got.
//!
//! Acknowledged: it is there, once, as answered. Refused: it is not there. Unknown: it is there whole or not at all. And
//! a retry with the same key applies what is not there, and nothing twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use carillon_tests::admin::{Admin, Answer, text};
use http::Request;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::import::id;

const WRITERS: u64 = 6;

#[derive(Clone, Debug)]
enum Outcome {
    Acknowledged(Bytes),
    Refused,
    Unknown,
}

/// How many answers of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    /// The newest seq that was acknowledged.
    seq: AtomicU64,
}

/// What one writer did.
#[derive(Debug)]
struct Record {
    device: String,
    messages: Vec<(String, Outcome)>,
    /// Values of the device's attribute that may stand, the acknowledged one first.
    values: Vec<u64>,
}

/// Writers of one app at work.
#[derive(Debug)]
pub(crate) struct Writers {
    app: String,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<Record>>,
}

impl Writers {
    /// Each writes messages with keys of their own, and counts on a device of its own.
    pub(crate) async fn start(admin: impl Fn() -> Admin) -> Writers {
        let mut first = admin();
        let new =
            json!({"name": format!("writers {}", rand::random::<u64>()), "environment": "sandbox"});
        let app = text(&first.ok("POST", "/v1/apps", new).await, "id").to_owned();
        let at = format!("/v1/apps/{app}");
        first.ok("PUT", &format!("{at}/attributes/n"), json!({"type": "number"})).await;
        let lines: String = (0..WRITERS).map(|n| format!("{}\n", json!({"id": id(n)}))).collect();
        let lines = first.request("POST", &format!("{at}/devices:import"), lines);
        assert_eq!(first.send(lines).await.status, 200);
        let shared = Arc::new(Shared::default());
        let tasks = (0..WRITERS)
            .map(|n| tokio::spawn(write(admin(), app.clone(), n, shared.clone())))
            .collect();
        Writers { app, shared, tasks }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            acknowledged: self.shared.acknowledged.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
            unknown: self.shared.unknown.load(Ordering::Relaxed),
        }
    }

    /// The newest seq that was acknowledged.
    pub(crate) fn seq(&self) -> u64 {
        self.shared.seq.load(Ordering::Relaxed)
    }

    /// Waits until so many more were acknowledged.
    pub(crate) async fn acknowledged(&self, more: u64) {
        let until = self.counts().acknowledged + more;
        let began = std::time::Instant::now();
        while self.counts().acknowledged < until {
            assert!(began.elapsed() < crate::bench::PATIENCE * 2, "{:?} of {until}", self.counts());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lets each finish what it has begun, and ends them.
    pub(crate) async fn finish(self) -> Finished {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut records = Vec::new();
        for task in self.tasks {
            records.push(task.await.expect("a writer got an answer that it may not get"));
        }
        Finished { app: self.app, records }
    }
}

fn message(app: &str, key: &str, admin: &Admin) -> Request<Bytes> {
    let body = json!({"to": "all", "body": {"key": key}});
    let mut request = admin.request("POST", &format!("/v1/apps/{app}/messages"), body.to_string());
    request.headers_mut().insert("idempotency-key", key.parse().expect("a header"));
    request
}

async fn write(mut admin: Admin, app: String, writer: u64, shared: Arc<Shared>) -> Record {
    let mut record = Record { device: id(writer), messages: Vec::new(), values: Vec::new() };
    for n in 1.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{writer}-{n}");
        let answer = admin.try_send(message(&app, &key, &admin)).await;
        let outcome = judge(&shared, answer, 201);
        let settled = matches!(outcome, Outcome::Acknowledged(_));
        record.messages.push((key, outcome));
        let path = format!("/v1/apps/{app}/devices/{}", record.device);
        let patch = admin.request("PATCH", &path, json!({"attributes": {"n": n}}).to_string());
        match judge(&shared, admin.try_send(patch).await, 200) {
            Outcome::Acknowledged(_) => record.values = vec![n],
            Outcome::Unknown => record.values.push(n),
            Outcome::Refused => {}
        }
        if !settled {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    record
}

/// A definite answer, or a 503 that says when to try again, or none at all because central is away.
fn judge(shared: &Shared, answer: Result<Answer, String>, good: u16) -> Outcome {
    let (count, outcome) = match answer {
        Err(_) => (&shared.unknown, Outcome::Unknown),
        Ok(answer) if answer.status == good => {
            shared.seq.fetch_max(crate::bench::seq(&answer), Ordering::Relaxed);
            (&shared.acknowledged, Outcome::Acknowledged(answer.body))
        }
        Ok(answer) => {
            let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
            answer.expect_problem(503, &code);
            let pause: u64 = answer.header("retry-after").parse().expect("seconds");
            assert!((1..=60).contains(&pause), "{answer:?}");
            match code.as_str() {
                "unavailable" | "overloaded" => (&shared.refused, Outcome::Refused),
                "outcome-unknown" => (&shared.unknown, Outcome::Unknown),
                _ => panic!("{answer:?}"),
            }
        }
    };
    count.fetch_add(1, Ordering::Relaxed);
    outcome
}

/// What all writers of one app did.
#[derive(Debug)]
pub(crate) struct Finished {
    app: String,
    records: Vec<Record>,
}

impl Finished {
    /// Looks whether central holds what it said, then retries everything.
    pub(crate) async fn check(&self, admin: &mut Admin) {
        let held = self.held(admin).await;
        for (key, outcome) in self.records.iter().flat_map(|record| &record.messages) {
            let found = held.get(key).map_or(&[][..], Vec::as_slice);
            match outcome {
                Outcome::Acknowledged(body) => {
                    let answered: Value = serde_json::from_slice(body).expect("JSON");
                    assert_eq!(found, [text(&answered, "id")], "{key} was acknowledged");
                }
                Outcome::Refused => assert!(found.is_empty(), "{key} was refused: {found:?}"),
                Outcome::Unknown => assert!(found.len() <= 1, "{key} was applied twice: {found:?}"),
            }
        }
        for record in &self.records {
            let path = format!("/v1/apps/{}/devices/{}", self.app, record.device);
            let device = admin.ok("GET", &path, Value::Null).await;
            let value = device["attributes"]["n"].as_u64();
            let allowed =
                value.map_or(record.values.is_empty(), |value| record.values.contains(&value));
            assert!(allowed, "{value:?} is none of {:?}", record.values);
        }
        for (key, outcome) in self.records.iter().flat_map(|record| &record.messages) {
            let request = message(&self.app, key, admin);
            let answer = admin.send(request).await;
            assert_eq!(answer.status, 201, "{key}: {answer:?}");
            if let Outcome::Acknowledged(body) = outcome {
                assert_eq!(answer.body, body, "{key}: a repeat gets the same answer");
            }
            if let Some(found) = held.get(key) {
                assert_eq!(text(&answer.json(), "id"), found[0], "{key}: a repeat makes no other");
            }
        }
        let all = self.held(admin).await;
        let keys: usize = self.records.iter().map(|record| record.messages.len()).sum();
        assert_eq!(all.len(), keys, "a retry completes what was not applied");
        assert!(all.values().all(|ids| ids.len() == 1), "a retry applies nothing twice");
    }

    /// The ids of the messages that central has, by their keys.
    async fn held(&self, admin: &mut Admin) -> BTreeMap<String, Vec<String>> {
        let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut after = String::new();
        loop {
            let path = format!("/v1/apps/{}/messages?limit=1000{after}", self.app);
            let page = admin.ok("GET", &path, Value::Null).await;
            for message in page["messages"].as_array().expect("messages") {
                let key = text(&message["body"], "key").to_owned();
                held.entry(key).or_default().push(text(message, "id").to_owned());
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return held,
            }
        }
    }
}
