//! Callers who write all the time, mind no error, and remember what they were told.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use carillon_tests::admin::{Admin, text};
use carillon_tests::cluster::Cluster;
use carillon_world::MessageId;
use http::HeaderValue;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

pub(super) const CALLERS: u64 = 3;
/// Devices of one import.
const IMPORTED: u64 = 250;
/// Devices of a caller, which move between two groups, so that a long trial starts as soon as a short one.
pub(super) const FLEET: u64 = 10_000;
/// Between two calls of a caller, so that the faults have time to come.
const PAUSE: Duration = Duration::from_millis(15);

/// What was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    pub(super) messages: HashSet<MessageId>,
    /// By name, which no two have.
    pub(super) groups: HashSet<String>,
    pub(super) created: u64,
    pub(super) changed: u64,
    pub(super) deleted: u64,
}

#[derive(Debug)]
pub(super) struct Load {
    enough: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    callers: Vec<JoinHandle<Acknowledged>>,
}

impl Load {
    pub(super) fn start(cluster: &Cluster) -> Load {
        let (enough, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let callers = (0..CALLERS).map(|caller| {
            let of = Caller {
                number: caller,
                admin: cluster.admin(),
                enough: enough.clone(),
                written: written.clone(),
                imports: 0,
                acknowledged: Acknowledged::default(),
            };
            tokio::spawn(of.run())
        });
        Load { callers: callers.collect(), enough, written }
    }

    /// Devices, messages and groups that were acknowledged so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) async fn end(self) -> Acknowledged {
        self.enough.store(true, Ordering::Relaxed);
        let mut all = Acknowledged::default();
        for caller in self.callers {
            let one = caller.await.expect("no caller panics");
            all.messages.extend(one.messages);
            all.groups.extend(one.groups);
            all.created += one.created;
            all.changed += one.changed;
            all.deleted += one.deleted;
        }
        all
    }
}

struct Caller {
    number: u64,
    admin: Admin,
    enough: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    imports: u64,
    acknowledged: Acknowledged,
}

impl Caller {
    async fn run(mut self) -> Acknowledged {
        let mut path: Option<String> = None;
        let mut n = 0;
        while !self.enough.load(Ordering::Relaxed) {
            n += 1;
            match &path {
                Some(path) => self.write(path, n).await,
                None => path = self.app(n).await,
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.acknowledged
    }

    async fn app(&mut self, n: u64) -> Option<String> {
        let name = format!("shop {} {n}", self.number);
        let app = json!({"name": name, "environment": "sandbox"});
        let app = self.call("POST", "/v1/apps", app.to_string(), "application/json").await?;
        let path = format!("/v1/apps/{}", text(&app, "id"));
        for name in ["a", "b"] {
            let group = json!({"name": name, "set_by": "server"}).to_string();
            self.call("POST", &format!("{path}/groups"), group, "application/json").await?;
        }
        Some(path)
    }

    async fn write(&mut self, path: &str, n: u64) {
        let written = match n % 8 {
            0 => self.message(path, n).await,
            4 => self.group(path, n).await,
            6 => self.delete(path).await,
            _ => self.import(path).await,
        };
        self.written.fetch_add(written.unwrap_or(0), Ordering::Relaxed);
    }

    async fn message(&mut self, path: &str, n: u64) -> Option<u64> {
        let message = json!({"to": "all", "body": {"n": n}}).to_string();
        let target = format!("{path}/messages");
        let made = self.call("POST", &target, message, "application/json").await?;
        let id = u64::from_str_radix(text(&made, "id"), 16).expect("an id");
        assert!(self.acknowledged.messages.insert(MessageId::new(id)), "{made} twice");
        Some(1)
    }

    async fn group(&mut self, path: &str, n: u64) -> Option<u64> {
        let name = format!("g-{}-{n}", self.number);
        let group = json!({"name": name, "set_by": "server"}).to_string();
        self.call("POST", &format!("{path}/groups"), group, "application/json").await?;
        self.acknowledged.groups.insert(name);
        Some(1)
    }

    /// One that is there after the first pass, and that the next import brings back.
    async fn delete(&mut self, path: &str) -> Option<u64> {
        let target = format!("{path}/devices/{:016x}", self.imports * IMPORTED % FLEET + 1);
        self.call("DELETE", &target, String::new(), "application/json").await?;
        self.acknowledged.deleted += 1;
        Some(1)
    }

    async fn import(&mut self, path: &str) -> Option<u64> {
        let from = self.imports * IMPORTED;
        let group = ["a", "b"][(from / FLEET % 2) as usize];
        self.imports += 1;
        let lines: Vec<String> = (from % FLEET + 1..=from % FLEET + IMPORTED)
            .map(|device| json!({"id": format!("{device:016x}"), "groups": [group]}).to_string())
            .collect();
        let target = format!("{path}/devices:import");
        let done = self.call("POST", &target, lines.join("\n"), "application/x-ndjson").await?;
        let [created, changed] = ["created", "changed"].map(|key| done[key].as_u64());
        let (created, changed) = (created.expect("a number"), changed.expect("a number"));
        self.acknowledged.created += created;
        self.acknowledged.changed += changed;
        Some(created + changed)
    }

    /// `None` if it was not done, or nobody knows.
    async fn call(
        &mut self,
        method: &str,
        target: &str,
        body: String,
        kind: &'static str,
    ) -> Option<Value> {
        let mut request = self.admin.request(method, target, body);
        request.headers_mut().insert("content-type", HeaderValue::from_static(kind));
        let answer = self.admin.try_send(request).await.ok()?;
        (200..300).contains(&answer.status).then(|| answer.json())
    }
}
