//! Central with edges, the three providers, and an app that has a credential for each.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon_client::{Client, Handle, ProfilePatch, PushToken};
use carillon_tests::admin::{Admin, Answer, text};
use carillon_tests::cluster::{Cluster, Store, ops_get};
use carillon_tests::providers::{Counts, Program, Simulator};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::PATIENCE;

pub(crate) const TEAM: &str = "TEAM000001";
pub(crate) const KEY: &str = "KEY0000001";
pub(crate) const TOPIC: &str = "com.example.shop";
pub(crate) const PROJECT: &str = "demo-1";
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Subscriptions of browsers that are made at the start.
const SUBSCRIPTIONS: u64 = 1_000;

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    Apns,
    Fcm,
    WebPush,
}

impl Channel {
    pub(crate) const ALL: [Channel; 3] = [Channel::Apns, Channel::Fcm, Channel::WebPush];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Channel::Apns => "apns",
            Channel::Fcm => "fcm",
            Channel::WebPush => "web_push",
        }
    }
}

/// A token as the device has it, and what its provider's simulator calls it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token {
    pub(crate) channel: Channel,
    pub(crate) text: String,
}

impl Token {
    pub(crate) fn apns(n: u64) -> Token {
        Token {
            channel: Channel::Apns,
            text: format!("{:064x}", (0xa1_u128 << 100) + u128::from(n)),
        }
    }

    pub(crate) fn fcm(n: u64) -> Token {
        Token { channel: Channel::Fcm, text: format!("planted-fcm-token:{n:0120}") }
    }

    pub(crate) fn name(&self) -> String {
        match self.channel {
            Channel::Apns | Channel::Fcm => self.text.clone(),
            Channel::WebPush => {
                let subscription: Value = serde_json::from_str(&self.text).expect("JSON");
                let endpoint = text(&subscription, "endpoint");
                endpoint.rsplit('/').next().expect("a path").to_owned()
            }
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({"channel": self.channel.name(), "token": self.text})
    }
}

/// A device as it is imported.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) n: u64,
    pub(crate) tokens: Vec<Token>,
    pub(crate) attributes: Value,
}

impl Device {
    pub(crate) fn new(n: u64, tokens: Vec<Token>) -> Device {
        Device { n, tokens, attributes: json!({"rank": n}) }
    }

    pub(crate) fn with(mut self, attribute: &str, value: impl Into<Value>) -> Device {
        self.attributes[attribute] = value.into();
        self
    }

    pub(crate) fn id(&self) -> String {
        format!("{:016x}", self.n + 1)
    }
}

/// Everything that a test of pushes needs.
pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    pub(crate) admin: Admin,
    pub(crate) apns: Simulator,
    pub(crate) fcm: Simulator,
    pub(crate) web_push: Simulator,
    /// Of the app: `/v1/apps/<id>`.
    pub(crate) path: String,
    /// The app's publishable key.
    pub(crate) key: String,
    /// As they were set.
    pub(crate) credentials: [(Channel, Value); 3],
    /// Of browsers, with the app's key.
    subscriptions: Vec<String>,
    /// Last: the authority of all three.
    _authority: TempDir,
}

impl Bench {
    /// `name`: the app's. Flags as for [`Cluster::start_with`].
    pub(crate) async fn start(
        store: Store,
        name: &str,
        central: &[&str],
        edges: &[&[&str]],
    ) -> Bench {
        let authority = tempfile::tempdir().expect("a folder");
        let simulator =
            |program| Simulator::start_in(program, authority.path(), &["--capture", "5000"]);
        let mut apns = simulator(Program::Apns);
        let mut fcm = simulator(Program::Fcm);
        let mut web_push = simulator(Program::WebPush);
        let p8 = apns.make_apns_key(TEAM, KEY, &[TOPIC]).await;
        let account = fcm.make_fcm_account(PROJECT).await;
        let vapid = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let (ca, port) = (apns.ca().display().to_string(), web_push.port().to_string());
        let token_url = format!("{}/token", fcm.url());
        let mut flags = [
            ["--push-apns-sandbox-url", &apns.url()],
            ["--push-fcm-url", &fcm.url()],
            ["--push-fcm-token-url", &token_url],
            ["--push-ca-file", &ca],
            ["--push-web-push-ports", &port],
            ["--push-private-networks", "127.0.0.0/8,::1/128"],
        ]
        .concat()
        .iter()
        .map(|word| (*word).to_owned())
        .collect::<Vec<String>>();
        flags.extend(central.iter().map(|word| (*word).to_owned()));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let cluster = Cluster::start_with(store, &flags, edges).await;
        let mut admin = cluster.admin();
        let app = json!({"name": name, "environment": "sandbox"});
        let app = admin.ok("POST", "/v1/apps", app).await;
        let path = format!("/v1/apps/{}", text(&app, "id"));
        for (name, kind, set_by) in [
            ("rank", "number", "both"),
            ("locale", "string", "both"),
            ("utc_offset", "number", "both"),
        ] {
            let attribute = json!({"type": kind, "set_by": set_by});
            admin.ok("PUT", &format!("{path}/attributes/{name}"), attribute).await;
        }
        let apns_credential = json!({"team_id": TEAM, "key_id": KEY, "topic": TOPIC, "key": p8});
        let vapid = json!({"subject": "mailto:ops@example.com", "private_key": vapid});
        let credentials =
            [(Channel::Apns, apns_credential), (Channel::Fcm, account), (Channel::WebPush, vapid)];
        let mut push = Value::Null;
        for (channel, credential) in &credentials {
            let input = json!({ "credential": credential });
            push = admin.ok("PUT", &format!("{path}/push/{}", channel.name()), input).await;
        }
        let public = text(&push["credentials"]["web_push"], "about").to_owned();
        let subscriptions = web_push.subscribe(SUBSCRIPTIONS, Some(&public)).await;
        let key = text(&app, "publishable_key").to_owned();
        Bench {
            cluster,
            admin,
            apns,
            fcm,
            web_push,
            path,
            key,
            credentials,
            subscriptions,
            _authority: authority,
        }
    }

    pub(crate) fn token(&self, channel: Channel, n: u64) -> Token {
        match channel {
            Channel::Apns => Token::apns(n),
            Channel::Fcm => Token::fcm(n),
            Channel::WebPush => {
                let at = usize::try_from(n).expect("a small number");
                Token { channel, text: self.subscriptions[at].clone() }
            }
        }
    }

    /// `per` devices with one token of each channel: one channel's first, then the next one's.
    pub(crate) fn devices(&self, per: u64) -> Vec<Device> {
        let of = |channel: Channel, first: u64| {
            (first..first + per).map(move |n| Device::new(n, vec![self.token(channel, n)]))
        };
        Channel::ALL.into_iter().zip(0..).flat_map(|(channel, k)| of(channel, k * per)).collect()
    }

    pub(crate) async fn import(&mut self, devices: &[Device]) {
        let line = |device: &Device| {
            let tokens: Vec<Value> = device.tokens.iter().map(Token::json).collect();
            json!({"id": device.id(), "attributes": device.attributes, "tokens": tokens})
                .to_string()
        };
        let lines: Vec<String> = devices.iter().map(line).collect();
        let answer = self.admin.send(self.admin.import(&self.path, &lines)).await;
        assert_eq!(answer.json()["created"], lines.len(), "{answer:?}");
    }

    pub(crate) fn simulator(&mut self, channel: Channel) -> &mut Simulator {
        match channel {
            Channel::Apns => &mut self.apns,
            Channel::Fcm => &mut self.fcm,
            Channel::WebPush => &mut self.web_push,
        }
    }

    /// Calls the admin API below the app.
    pub(crate) async fn call(&mut self, method: &str, rest: &str, body: Value) -> Answer {
        let path = format!("{}/{rest}", self.path);
        self.admin.call(method, &path, body).await
    }

    /// As [`Bench::call`]; panics unless the status is 2xx.
    pub(crate) async fn ok(&mut self, method: &str, rest: &str, body: Value) -> Value {
        let path = format!("{}/{rest}", self.path);
        self.admin.ok(method, &path, body).await
    }

    /// Creates a message that is pushed at once, and gives its id.
    pub(crate) async fn push(&mut self, to: &str, policy: Value) -> String {
        let message = json!({"to": to, "body": {"text": "body"}, "push": policy});
        let made = self.ok("POST", "messages", message).await;
        assert_eq!(made["push_state"], "sending", "{made}");
        text(&made, "id").to_owned()
    }

    pub(crate) async fn state(&mut self, message: &str) -> String {
        let found = self.ok("GET", &format!("messages/{message}"), Value::Null).await;
        text(&found, "push_state").to_owned()
    }

    pub(crate) async fn until_state(&mut self, message: &str, state: &str) {
        let began = Instant::now();
        loop {
            let found = self.state(message).await;
            if found == state {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "it is {found}, not {state}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) async fn funnel(&mut self, message: &str) -> Value {
        self.ok("GET", &format!("messages/{message}/funnel"), Value::Null).await
    }

    pub(crate) async fn until_funnel(
        &mut self,
        message: &str,
        says: impl Fn(&Value) -> bool,
    ) -> Value {
        let began = Instant::now();
        loop {
            let funnel = self.funnel(message).await;
            if says(&funnel) {
                return funnel;
            }
            assert!(began.elapsed() < PATIENCE, "{funnel}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until a provider's books say so.
    pub(crate) async fn until_counts(
        &mut self,
        channel: Channel,
        says: impl Fn(&Counts) -> bool,
    ) -> Counts {
        let began = Instant::now();
        loop {
            let counts = self.simulator(channel).counts().await;
            if says(&counts) {
                return counts;
            }
            assert!(began.elapsed() < PATIENCE, "{channel:?}: {counts:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// How many tokens a device has.
    pub(crate) async fn token_count(&mut self, device: &str) -> u64 {
        let found = self.ok("GET", &format!("devices/{device}"), Value::Null).await;
        found["tokens"].as_u64().expect("a number")
    }

    /// Accepted alerts and wakes of each token, in their order.
    pub(crate) async fn pushed(&mut self, tokens: &[Token]) -> Vec<(u16, u16)> {
        let mut all = vec![(0, 0); tokens.len()];
        for channel in Channel::ALL {
            let places = (0..tokens.len()).filter(|at| tokens[*at].channel == channel);
            let places: Vec<usize> = places.collect();
            let names: Vec<String> = places.iter().map(|at| tokens[*at].name()).collect();
            let states = self.simulator(channel).tokens(&names).await;
            for (at, state) in places.into_iter().zip(states) {
                all[at] = (state.alerts, state.wakes);
            }
        }
        all
    }

    /// Panics if a provider saw a rule broken, or one kind of push with two collapse ids where there is one message.
    pub(crate) async fn no_breaches(&mut self) {
        for channel in Channel::ALL {
            let counts = self.simulator(channel).counts().await;
            assert!(counts.breaches.is_empty(), "{channel:?}: {counts:?}");
        }
    }

    /// Begins anew at every provider: counts, tokens, captured bodies and rules.
    pub(crate) async fn begin(&mut self) {
        for channel in Channel::ALL {
            let simulator = self.simulator(channel);
            simulator.behave(json!([])).await;
            simulator.reset().await;
        }
    }

    pub(crate) async fn metrics(&self) -> String {
        let answer = ops_get(self.cluster.admin_address(), "/metrics").await;
        answer.expect("central answers").1
    }

    /// Starts a device with the client library, over TLS, and waits until it is enrolled.
    pub(crate) async fn client(&mut self, attributes: &[(&str, Value)]) -> Live {
        let mut client = Client::builder()
            .edges(self.cluster.edge_urls())
            .tls(self.cluster.tls())
            .app_key(&self.key)
            .attributes(attributes.iter().map(|(name, value)| (*name, value.clone())))
            .wait(Duration::from_secs(10))
            .build()
            .expect("a client");
        let handle = client.handle();
        let task =
            tokio::spawn(async move { client.run_with(|_| {}, std::future::pending()).await });
        let began = Instant::now();
        let id = loop {
            let status = handle.status().await.expect("it runs");
            if let Some((_, device)) = status.registered {
                break device.to_string();
            }
            assert!(began.elapsed() < PATIENCE, "it does not enrol: {status:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        };
        Live { id, handle, task }
    }

    /// Waits until central knows that the device was here.
    pub(crate) async fn until_seen(&mut self, device: &str) {
        let began = Instant::now();
        while self.ok("GET", &format!("devices/{device}"), Value::Null).await["last_seen"].is_null()
        {
            assert!(began.elapsed() < PATIENCE, "{device} was not seen");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// A device that runs.
pub(crate) struct Live {
    pub(crate) id: String,
    pub(crate) handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Live {
    /// Reports its tokens.
    pub(crate) async fn set_tokens(&self, tokens: &[Token]) {
        let tokens = tokens
            .iter()
            .map(|of| PushToken { channel: of.channel.name().to_owned(), token: of.text.clone() });
        let patch = ProfilePatch { tokens: Some(tokens.collect()), ..ProfilePatch::default() };
        let patched = tokio::time::timeout(PATIENCE, self.handle.patch(patch)).await;
        patched.expect("in time").expect("the tokens are taken");
    }

    /// Waits until it holds the message, or does not hold it any more.
    pub(crate) async fn until_holds(&self, message: &str, holds: bool) {
        let began = Instant::now();
        loop {
            let messages = self.handle.messages().await.expect("it runs");
            if messages.keys().any(|id| id.to_string() == message) == holds {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "the device holds {:?}", messages.keys());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// An alert with this title.
pub(crate) fn alert(title: &str) -> Value {
    json!({"kind": "alert", "text": {"title": title, "body": "as it is"}})
}
