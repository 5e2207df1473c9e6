//! An app that pushes to a simulator: what trials and benchmarks of pushes begin with.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::admin::{Admin, text};
use crate::cluster::{Cluster, Store};
use crate::providers::{Program, Simulator};

const TEAM: &str = "TEAM000001";
const KEY: &str = "KEY0000001";
const TOPIC: &str = "com.example.shop";
/// Devices of one import.
const LINES: u64 = 50_000;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Central, APNs, and an app whose devices have tokens.
#[derive(Debug)]
pub struct PushBench {
    pub apns: Simulator,
    pub cluster: Cluster,
    pub admin: Admin,
    /// Of the app: `/v1/apps/<id>`.
    pub path: String,
    pub devices: u64,
}

impl PushBench {
    /// # Panics
    /// If something does not start, or is refused.
    pub async fn start(store: Store, devices: u64, apns: &[&str], central: &[&str]) -> PushBench {
        let mut apns = Simulator::start(Program::Apns, apns);
        let made =
            apns.call("POST", "keys", json!({"team": TEAM, "key": KEY, "topics": [TOPIC]})).await;
        let (url, ca) = (apns.url(), apns.ca().display().to_string());
        let mut flags = vec!["--push-apns-sandbox-url", &url, "--push-ca-file", &ca];
        flags.extend(central);
        let cluster = Cluster::start_with(store, &flags, &[]).await;
        let mut admin = cluster.admin();
        let app = json!({"name": "shop", "environment": "sandbox"});
        let app = admin.ok("POST", "/v1/apps", app).await;
        let path = format!("/v1/apps/{}", text(&app, "id"));
        let attribute = json!({"type": "number", "set_by": "server"});
        admin.ok("PUT", &format!("{path}/attributes/rank"), attribute).await;
        let credential = json!({"team_id": TEAM, "key_id": KEY, "topic": TOPIC, "key": made["p8"]});
        let input = json!({"credential": credential});
        admin.ok("PUT", &format!("{path}/push/apns"), input).await;
        let mut bench = PushBench { apns, cluster, admin, path, devices };
        bench.import().await;
        bench
    }

    async fn import(&mut self) {
        let mut next = 0;
        while next < self.devices {
            let lines: Vec<String> = (next..self.devices.min(next + LINES)).map(line).collect();
            next += lines.len() as u64;
            let answer = self.admin.send(self.admin.import(&self.path, &lines)).await;
            assert_eq!(answer.json()["created"], lines.len(), "{answer:?}");
        }
    }

    /// Creates an alert to everyone, and gives its path.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn alert(&mut self, title: &str) -> String {
        let message = json!({"to": "rank >= 0", "body": {"title": title},
            "push": {"kind": "alert", "text": {"title": title, "body": "as it is"}}});
        let path = format!("{}/messages", self.path);
        let made = self.admin.ok("POST", &path, message).await;
        assert_eq!(made["push_state"], "sending", "{made}");
        format!("{path}/{}", text(&made, "id"))
    }

    /// Waits until the simulator has accepted so many alerts.
    ///
    /// # Panics
    /// If that takes longer than `patience`.
    pub async fn until_alerted(&mut self, tokens: u64, patience: Duration) {
        let began = Instant::now();
        loop {
            let counts = self.apns.counts().await;
            if counts.tokens.alerted >= tokens {
                return;
            }
            assert!(began.elapsed() < patience, "{tokens} are not alerted: {counts:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the pushes of a message stand so, and gives the message.
    ///
    /// # Panics
    /// If that takes longer than `patience`.
    pub async fn until_state(&mut self, message: &str, state: &str, patience: Duration) -> Value {
        let began = Instant::now();
        loop {
            let found = self.admin.ok("GET", message, Value::Null).await;
            if found["push_state"] == state {
                return found;
            }
            assert!(began.elapsed() < patience, "it is not {state}: {found}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until no push is waiting or under way.
    ///
    /// # Panics
    /// If that takes longer than `patience`.
    pub async fn until_idle(&mut self, patience: Duration) {
        let began = Instant::now();
        loop {
            let metrics = self.metrics().await;
            if metric(&metrics, "central_push_jobs") == Some(0) {
                return;
            }
            assert!(began.elapsed() < patience, "pushes do not end: {metrics}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Central's metrics as text.
    ///
    /// # Panics
    /// If central is away.
    pub async fn metrics(&self) -> String {
        let answer = crate::cluster::ops_get(self.cluster.admin_address(), "/metrics").await;
        answer.expect("central answers").1
    }
}

/// A metric's value, of those that have no label or exactly these.
pub fn metric(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The token of a device.
pub fn token(n: u64) -> String {
    format!("{:064x}", u128::from(n) + (0xa1 << 100))
}

fn line(n: u64) -> String {
    let token = token(n);
    json!({"id": format!("{:016x}", n + 1), "attributes": {"rank": n % 100},
           "tokens": [{"channel": "apns", "token": token}]})
    .to_string()
}
