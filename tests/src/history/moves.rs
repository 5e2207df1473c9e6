//! Events without end from devices that stay as many: all of them move from one group to another.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::admin::{Admin, text};
use crate::cluster::Cluster;

/// Devices of one import.
const IMPORTED: u64 = 2_500;

/// An app of so many devices.
#[derive(Debug)]
pub struct Moves {
    pub admin: Admin,
    /// Of the app: `/v1/apps/…`.
    pub path: String,
    devices: u64,
    moves: u64,
}

impl Moves {
    /// Makes the app; the first move makes the devices.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn start(cluster: &Cluster, devices: u64) -> Moves {
        let mut admin = cluster.admin();
        let app = json!({"name": "shop", "environment": "sandbox"});
        let app = admin.ok("POST", "/v1/apps", app).await;
        let path = format!("/v1/apps/{}", text(&app, "id"));
        for name in ["a", "b"] {
            let group = json!({"name": name, "set_by": "server"});
            admin.ok("POST", &format!("{path}/groups"), group).await;
        }
        Moves { admin, path, devices, moves: 0 }
    }

    /// Puts every device into the group that it is not in, which is one event each; gives how long the slowest call took
    /// and how many there were.
    ///
    /// # Panics
    /// If it is refused, or changes less.
    pub async fn all(&mut self) -> (Duration, u64) {
        let group = ["a", "b"][(self.moves % 2) as usize];
        self.moves += 1;
        let (mut slowest, mut calls) = (Duration::ZERO, 0);
        for from in (0..self.devices).step_by(IMPORTED as usize) {
            let until = self.devices.min(from + IMPORTED);
            let lines: Vec<String> = (from + 1..=until)
                .map(|id| json!({"id": format!("{id:016x}"), "groups": [group]}).to_string())
                .collect();
            let request = self.admin.import(&self.path, &lines);
            let begun_at = Instant::now();
            let done = self.admin.send(request).await.json();
            slowest = slowest.max(begun_at.elapsed());
            calls += 1;
            let changed = ["created", "changed"].map(|key| done[key].as_u64().unwrap_or(0));
            assert_eq!(changed.iter().sum::<u64>(), until - from, "{done}");
        }
        (slowest, calls)
    }
}
