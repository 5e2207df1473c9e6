//! Central, a customer's system, and an app whose events it hears of.

use std::time::{Duration, Instant};

use carillon_tests::admin::{Admin, text};
use carillon_tests::callbacks::{Received, Receiver};
use carillon_tests::cluster::{Cluster, Store};
use serde_json::{Value, json};

use super::PATIENCE;

const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    pub(crate) receiver: Receiver,
    pub(crate) admin: Admin,
    /// Of the app: `/v1/apps/<id>`.
    pub(crate) app: String,
}

/// An endpoint.
pub(crate) struct Endpoint {
    /// In the API.
    pub(crate) path: String,
    pub(crate) secret: String,
}

impl Bench {
    pub(crate) async fn start(store: Store, flags: &[&str]) -> Bench {
        let receiver = Receiver::start().await;
        let own = receiver.flags();
        let flags: Vec<&str> =
            own.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        let cluster = Cluster::start_with(store, &flags, &[]).await;
        let mut admin = cluster.admin();
        let app = new_app(&mut admin, "shop").await;
        Bench { cluster, receiver, admin, app }
    }

    /// An endpoint that hears of these events at a path of the receiver.
    pub(crate) async fn endpoint(&mut self, at: &str, events: &[&str]) -> Endpoint {
        let input = json!({"url": self.receiver.url(at), "events": events});
        let made = self.admin.ok("POST", &format!("{}/callbacks", self.app), input).await;
        assert_eq!(made["state"], "active", "{made}");
        let path = format!("{}/callbacks/{}", self.app, text(&made, "id"));
        Endpoint { path, secret: text(&made, "secret").to_owned() }
    }

    pub(crate) async fn get(&mut self, endpoint: &Endpoint) -> Value {
        self.admin.ok("GET", &endpoint.path, Value::Null).await
    }

    pub(crate) async fn patch(&mut self, endpoint: &Endpoint, input: Value) -> Value {
        self.admin.ok("PATCH", &endpoint.path, input).await
    }

    /// Creates so many messages, and gives their ids.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for n in 0..count {
            let input = json!({"to": "all", "body": {"n": n}});
            let made = self.admin.ok("POST", &format!("{}/messages", self.app), input).await;
            ids.push(text(&made, "id").to_owned());
        }
        ids
    }

    /// Waits until what the API says of an endpoint is right.
    pub(crate) async fn until(
        &mut self,
        endpoint: &Endpoint,
        is_right: impl Fn(&Value) -> bool,
    ) -> Value {
        let began = Instant::now();
        loop {
            let found = self.get(endpoint).await;
            if is_right(&found) {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "{found}\n{}", self.cluster.central_log());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a path was called so often, at least.
    pub(crate) async fn until_received(&self, at: &str, calls: usize) -> Vec<Received> {
        let began = Instant::now();
        loop {
            let received = self.receiver.received(at);
            if received.len() >= calls {
                return received;
            }
            let (found, log) = (received.len(), self.cluster.central_log());
            assert!(began.elapsed() < PATIENCE, "{found} of {calls} at {at}\n{log}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

pub(crate) async fn new_app(admin: &mut Admin, name: &str) -> String {
    let input = json!({"name": name, "environment": "sandbox"});
    let app = admin.ok("POST", "/v1/apps", input).await;
    format!("/v1/apps/{}", text(&app, "id"))
}

/// Whether nothing waits and nothing is tried again.
pub(crate) fn is_idle(found: &Value) -> bool {
    found["waiting"]["events"] == 0 && found["retrying"] == 0
}

/// The messages that calls tell of.
pub(crate) fn messages_of(calls: &[Received]) -> Vec<String> {
    calls.iter().map(|call| text(&call.json()["data"], "message").to_owned()).collect()
}
