//! Writers that are devices: they enrol at an edge, change their profiles and forget themselves.
//!
//! A device's write that has no answer may be repeated: an enrolment with its secret, a change and a goodbye because
//! they say what shall be.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon_client::HttpTransport;
use carillon_tests::admin::{Admin, text};
use carillon_tests::cluster::Cluster;
use http::Request;
use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::PATIENCE;
use super::check::is_enrolled;
use super::operations::Kind;
use super::state::{App, Observed};
use super::writer::Shared;

const RETRY_AFTER: Duration = Duration::from_millis(20);

/// What became of one device.
#[derive(Debug)]
pub(super) struct Device {
    secret: String,
    /// Once it is enrolled: its id and its session.
    identity: Option<(String, String)>,
    /// Values of its attribute that may stand, the acknowledged one first; `None`: it may be gone.
    may_hold: Vec<Option<u64>>,
    is_open: bool,
}

/// A device at an edge, and all that it was before.
pub(super) struct Phone {
    http: HttpTransport,
    key: String,
    rng: StdRng,
    devices: Vec<Device>,
}

impl Phone {
    pub(super) fn new(cluster: &Cluster, app: &App, rng: StdRng) -> Phone {
        let url = cluster.edge(0).plain_url().parse().expect("an URL");
        Phone {
            http: HttpTransport::new(url, None),
            key: app.key.clone(),
            rng,
            devices: Vec::new(),
        }
    }

    pub(super) fn start(mut self, shared: &Arc<Shared>) -> JoinHandle<Phone> {
        let shared = shared.clone();
        tokio::spawn(async move {
            // The edge may still be on its way back to central.
            let n = self.rng.random_range(1..1_000_000_u64);
            let mut answer = self.enrol(n).await;
            while !shared.is_stopped() && !matches!(answer, Some((200 | 201, _))) {
                tokio::time::sleep(RETRY_AFTER).await;
                answer = self.enrol_again(n).await;
            }
            let mut goes_on = self.judge(&shared, Kind::Enrol, answer);
            while goes_on && !shared.is_stopped() {
                goes_on = self.write(&shared).await;
            }
            self
        })
    }

    async fn send(
        &mut self,
        request: http::request::Builder,
        body: String,
    ) -> Option<(u16, Value)> {
        let request = request.body(Bytes::from(body)).expect("a request");
        let answer = self.http.request(request, PATIENCE).await.ok()?;
        let body = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
        Some((answer.status().as_u16(), body))
    }

    /// One write; gives whether it was acknowledged.
    async fn write(&mut self, shared: &Shared) -> bool {
        let n = self.rng.random_range(1..1_000_000_u64);
        let gone = self.devices.last().is_none_or(|device| device.may_hold == [None]);
        let (kind, answer) = if gone {
            (Kind::Enrol, self.enrol(n).await)
        } else if self.rng.random_bool(0.2) {
            (Kind::Forget, self.change("DELETE", None, String::new()).await)
        } else {
            let patch = json!({"attributes": {"n": n}}).to_string();
            (Kind::PatchSelf, self.change("PATCH", Some(n), patch).await)
        };
        self.judge(shared, kind, answer)
    }

    fn judge(&mut self, shared: &Shared, kind: Kind, answer: Option<(u16, Value)>) -> bool {
        match answer {
            Some((200..=204, _)) => {
                let device = self.devices.last_mut().expect("just written");
                device.is_open = false;
                let newest = device.may_hold.pop().expect("what was written");
                device.may_hold = vec![newest];
                shared.note(kind, 0);
                true
            }
            Some((503, _)) | None => false,
            Some((status, body)) => panic!("{status} {body} to {kind:?}"),
        }
    }

    async fn enrol(&mut self, n: u64) -> Option<(u16, Value)> {
        let secret: String =
            (0..42).map(|_| char::from(self.rng.random_range(b'a'..=b'z'))).collect();
        let secret = format!("{secret}A");
        let device =
            Device { secret, identity: None, may_hold: vec![None, Some(n)], is_open: true };
        self.devices.push(device);
        self.enrol_again(n).await
    }

    async fn enrol_again(&mut self, n: u64) -> Option<(u16, Value)> {
        let secret = &self.devices.last().expect("one to enrol").secret;
        let body = json!({"key": self.key, "secret": secret, "attributes": {"n": n}});
        let answer = self.send(Request::post("/v1/devices"), body.to_string()).await?;
        if matches!(answer.0, 200 | 201) {
            let device = self.devices.last_mut().expect("one to enrol");
            let words = ["id", "session"].map(|word| text(&answer.1, word).to_owned());
            let [id, session] = words;
            device.identity = Some((id, session));
        }
        Some(answer)
    }

    async fn change(&mut self, method: &str, n: Option<u64>, body: String) -> Option<(u16, Value)> {
        let device = self.devices.last_mut().expect("one that enrolled");
        let (_, session) = device.identity.as_ref().expect("it enrolled");
        device.is_open = true;
        device.may_hold.push(n);
        let request = Request::builder().method(method).uri("/v1/devices/self");
        let request = request.header("authorization", format!("Bearer {session}"));
        self.send(request, body).await
    }

    /// Looks whether central holds what the devices were told. Gives how many writes had no answer.
    pub(super) async fn check(&mut self, admin: &mut Admin, app: &App) -> u64 {
        let observed = Observed::of(admin, app).await;
        let value = |id: &str| {
            let device = observed.state.get(&format!("device {id}"))?;
            Some(device["attributes"]["n"].as_u64().expect("it enrolled with one"))
        };
        for device in &self.devices {
            let Some((id, _)) = &device.identity else { continue };
            let found = value(id);
            assert!(device.may_hold.contains(&found), "{found:?} is none of {device:?}");
        }
        let Some(last) = self.devices.last() else { return 0 };
        let (is_open, is_new) = (last.is_open, last.identity.is_none());
        if let (true, Some(Some(n))) = (is_new, last.may_hold.last().copied()) {
            self.enrol_once(n, &observed).await;
        }
        u64::from(is_open)
    }

    /// Sends the enrolment that had no answer again: with its secret it is one device, made then or now.
    async fn enrol_once(&mut self, n: u64, before: &Observed) {
        let began = std::time::Instant::now();
        let (status, answer) = loop {
            match self.enrol_again(n).await {
                Some((status @ 200..=201, answer)) => break (status, answer),
                other => assert!(began.elapsed() < PATIENCE, "{other:?}"),
            }
            tokio::time::sleep(RETRY_AFTER).await;
        };
        let was_there = before.ids.contains_key(&format!("device {}", text(&answer, "id")));
        assert_eq!(was_there, status == 200, "200 is for a device that had enrolled before");
        let device = self.devices.last_mut().expect("just enrolled");
        device.may_hold = vec![Some(n)];
    }

    /// Devices that may be there.
    pub(super) fn devices(&self) -> impl Iterator<Item = &str> {
        let there = self.devices.iter().filter(|device| device.may_hold != [None]);
        there.filter_map(|device| device.identity.as_ref()).map(|(id, _)| id.as_str())
    }
}

/// No device has enrolled but these.
pub(super) async fn no_others(admin: &mut Admin, app: &App, phones: &[Phone]) {
    let observed = Observed::of(admin, app).await;
    for name in observed.state.keys().filter(|name| is_enrolled(name)) {
        let is_known = phones.iter().flat_map(Phone::devices).any(|id| name.ends_with(id));
        assert!(is_known, "{name} is nobody's");
    }
}
