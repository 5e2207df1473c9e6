//! Writers at work: each sends one write after the other, and keeps the books of what central said to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use carillon_tests::admin::{Admin, Answer, text};
use http::Request;
use tokio::task::JoinHandle;

use super::PATIENCE;
use super::check;
use super::operations::{Desk, Kind, Operation};

/// How often it is looked whether enough was acknowledged.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// What all writers of a round share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    /// Answers that were none or no acknowledgement.
    troubles: AtomicU64,
    /// The newest seq that was acknowledged.
    seq: AtomicU64,
    kinds: Mutex<BTreeMap<Kind, u64>>,
}

impl Shared {
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    /// Answers that were none or no acknowledgement.
    pub(super) fn troubles(&self) -> u64 {
        self.troubles.load(Relaxed)
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq.load(Relaxed)
    }

    pub(super) fn note(&self, kind: Kind, seq: u64) {
        self.acknowledged.fetch_add(1, Relaxed);
        self.seq.fetch_max(seq, Relaxed);
        *self.kinds.lock().expect("nothing panics with it").entry(kind).or_default() += 1;
    }

    /// Acknowledged writes of each kind.
    pub(super) fn kinds(&self) -> BTreeMap<Kind, u64> {
        self.kinds.lock().expect("nothing panics with it").clone()
    }

    /// Waits until so many were acknowledged.
    pub(super) async fn until(&self, acknowledged: u64) {
        let began = std::time::Instant::now();
        while self.acknowledged() < acknowledged {
            assert!(began.elapsed() < PATIENCE, "{} of {acknowledged}", self.acknowledged());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// How a write ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Acknowledged(Answer),
    /// It is not applied and never will be.
    Refused,
    Unknown,
}

/// What a writer leaves behind.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) desk: Desk,
    /// The write that had no answer when the writer ended.
    pub(super) open: Option<Operation>,
    /// An acknowledged write with a key, and its answer.
    pub(super) kept: Option<(Operation, Bytes)>,
}

/// What a writer does about an answer that is no acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It ends: central is gone.
    Ends,
    /// It finds out what became of the write, and goes on.
    Resolves,
}

/// Starts a writer at each desk.
pub(super) fn start(
    desks: Vec<Desk>,
    admin: impl Fn() -> Admin,
    shared: &Arc<Shared>,
    trouble: Trouble,
) -> Vec<JoinHandle<Record>> {
    let writers = desks.into_iter();
    writers.map(|desk| tokio::spawn(write(desk, admin(), shared.clone(), trouble))).collect()
}

async fn write(mut desk: Desk, mut admin: Admin, shared: Arc<Shared>, trouble: Trouble) -> Record {
    let mut kept = None;
    while !shared.is_stopped() {
        let operation = desk.next();
        let outcome = send(&mut admin, &operation).await;
        if !matches!(outcome, Outcome::Acknowledged(_)) {
            shared.troubles.fetch_add(1, Relaxed);
        }
        match outcome {
            Outcome::Acknowledged(answer) => {
                shared.note(operation.kind, seq(&answer));
                if operation.key.is_some() {
                    kept = Some((operation.clone(), answer.body.clone()));
                }
                desk.adopt(operation, &answer);
            }
            Outcome::Refused if trouble == Trouble::Ends => {
                return Record { desk, open: None, kept };
            }
            Outcome::Unknown if trouble == Trouble::Ends => {
                return Record { desk, open: Some(operation), kept };
            }
            Outcome::Refused => {
                check::absent(&mut admin, &desk, &operation).await;
            }
            Outcome::Unknown => check::resolve(&mut admin, &mut desk, operation).await,
        }
    }
    Record { desk, open: None, kept }
}

impl Desk {
    /// The write is applied, and so answered.
    pub(super) fn adopt(&mut self, operation: Operation, answer: &Answer) {
        if let Some(name) = operation.makes {
            self.ids.insert(name, text(&answer.json(), "id").to_owned());
        }
        self.state = operation.after;
    }
}

pub(super) fn request(admin: &Admin, operation: &Operation) -> Request<Bytes> {
    let mut request = admin.request(operation.method, &operation.path, operation.body.clone());
    if let Some(key) = &operation.key {
        request.headers_mut().insert("idempotency-key", key.parse().expect("a header"));
    }
    request
}

/// Sends a write once.
///
/// # Panics
/// If the answer is none that a good write may get.
pub(super) async fn send(admin: &mut Admin, operation: &Operation) -> Outcome {
    let request = request(admin, operation);
    judge(operation, admin.try_send(request).await)
}

fn judge(operation: &Operation, answer: Result<Answer, String>) -> Outcome {
    let Ok(answer) = answer else { return Outcome::Unknown };
    if answer.status == operation.status {
        if operation.kind == Kind::Import {
            assert_eq!(answer.json()["bad"], 0, "{answer:?} to {operation:?}");
        }
        return Outcome::Acknowledged(answer);
    }
    let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
    assert_eq!(answer.status, 503, "{answer:?} to {operation:?}");
    match code.as_str() {
        "unavailable" | "overloaded" => Outcome::Refused,
        "outcome-unknown" => Outcome::Unknown,
        _ => panic!("{answer:?} to {operation:?}"),
    }
}

/// Sends a write that may be repeated until it is acknowledged.
pub(super) async fn insist(admin: &mut Admin, operation: &Operation) -> Answer {
    let began = std::time::Instant::now();
    loop {
        if let Outcome::Acknowledged(answer) = send(admin, operation).await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "never acknowledged: {operation:?}");
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// The seq of `<shard>/<epoch>/<seq>`.
pub(super) fn seq(answer: &Answer) -> u64 {
    let position = answer.header("carillon-position");
    let seq = position.rsplit('/').next().and_then(|seq| seq.parse().ok());
    seq.unwrap_or_else(|| panic!("a write's answer says where it is: {answer:?}"))
}
