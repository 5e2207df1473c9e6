//! A simulator as a test holds it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::books::{Captured, Counts, TokenState};
use crate::admin::{Admin, text};
use crate::process::{dies_with_us, end, spawn_from_lasting_thread};

/// Which provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Apns,
    Fcm,
    WebPush,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::Apns => "apns_simulator",
            Program::Fcm => "fcm_simulator",
            Program::WebPush => "web_push_simulator",
        }
    }

    /// Where cargo put it: beside the program that runs, or beside the folder of test programs.
    fn path(self) -> PathBuf {
        let this = std::env::current_exe().expect("a program knows its path");
        let beside = this.ancestors().skip(1).take(2).map(|folder| folder.join(self.name()));
        beside.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
            panic!("{} is not built: cargo build --release -p carillon-tests", self.name())
        })
    }
}

/// A program that plays a provider. It ends when this is dropped.
#[derive(Debug)]
pub struct Simulator {
    child: Child,
    control: Admin,
    port: u16,
    control_port: u16,
    ca: PathBuf,
    /// Last, so that the folder outlives the process.
    _folder: Option<TempDir>,
}

impl Drop for Simulator {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

impl Simulator {
    /// Starts a program with these flags besides `--data`, which is a folder of its own, and waits until it can be used.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(program: Program, flags: &[&str]) -> Simulator {
        let folder = tempfile::tempdir().expect("a folder");
        let mut simulator = Simulator::start_in(program, folder.path(), flags);
        simulator._folder = Some(folder);
        simulator
    }

    /// As [`Simulator::start`], with a folder that may hold an authority.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_in(program: Program, data: &Path, flags: &[&str]) -> Simulator {
        let mut command = dies_with_us(&program.path());
        command.arg("--data").arg(data).args(flags);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn_from_lasting_thread(command).expect("start a simulator");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("read a simulator's first line");
        let told: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("{program:?} did not start: {line:?}"));
        let port = |key: &str| {
            let port = told[key].as_u64().and_then(|port| u16::try_from(port).ok());
            port.expect("a simulator tells its ports")
        };
        let control_port = port("control");
        Simulator {
            child,
            control: Admin::new(&format!("http://127.0.0.1:{control_port}"), ""),
            port: port("listen"),
            control_port,
            ca: told["ca"].as_str().expect("a simulator tells its authority").into(),
            _folder: None,
        }
    }

    /// The provider's port, for TLS on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `https://localhost:PORT`.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// A PEM file with the authority that signed the provider's certificate.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// The process, for who measures what it uses.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Another caller of the same control port: `call` needs one of its own for each task.
    pub fn control(&self) -> Admin {
        Admin::new(&format!("http://127.0.0.1:{}", self.control_port), "")
    }

    /// A call of the control port.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn call(&mut self, method: &str, call: &str, input: Value) -> Value {
        self.control.ok(method, &format!("/{call}"), input).await
    }

    /// # Panics
    /// If the simulator is gone.
    pub async fn counts(&mut self) -> Counts {
        let counts = self.call("GET", "counts", Value::Null).await;
        serde_json::from_value(counts).expect("counts")
    }

    /// Begins a period; from here on [`Counts::since_mark`] counts, and bodies are captured afresh.
    ///
    /// # Panics
    /// If the simulator is gone.
    pub async fn mark(&mut self) -> u64 {
        self.call("POST", "mark", Value::Null).await["mark"].as_u64().expect("a number")
    }

    /// Forgets all that was counted, tokens and bodies too.
    ///
    /// # Panics
    /// If the simulator is gone.
    pub async fn reset(&mut self) {
        self.call("POST", "reset", Value::Null).await;
    }

    /// What becomes of pushes that break no rule: a list of rules, which replaces the one before; an empty one takes
    /// all. Delays add up, and the first rule that answers decides. A rule is an object, all of it optional:
    ///
    /// - which: `tokens` (a list), `share_of_tokens` (0 to 1, always the same ones), `share` (0 to 1, of the pushes that
    ///   are chosen otherwise, evenly), `kind` (`alert` or `wake`), `times` (so many, then never again);
    /// - what: `slow_ms`, and one of `status` with `reason`, `retry_after` (a header's text) and `gone_since_ms`;
    ///   `reset` (`stream` or `connection`); `redirect` (an URL); `endless` (true: the answer's body has no end);
    /// - `accepted`: true if the push counts as accepted though the answer says or is something else.
    ///
    /// # Panics
    /// If the rules are wrong.
    pub async fn behave(&mut self, rules: Value) {
        self.call("POST", "behaviour", rules).await;
    }

    /// Each connection is told to go away after so many requests; 0 is never.
    ///
    /// # Panics
    /// If the simulator is gone.
    pub async fn go_away_after(&mut self, requests: u64) {
        self.call("POST", "goaway", json!({ "after": requests })).await;
    }

    /// How many streams a connection to come may have at a time.
    ///
    /// # Panics
    /// If the simulator is gone.
    pub async fn set_streams_max(&mut self, streams: u32) {
        self.call("POST", "streams", json!({ "max": streams })).await;
    }

    /// Sets how far the simulator's clock is ahead of ours; negative is behind.
    ///
    /// # Panics
    /// If the simulator is gone.
    pub async fn set_clock_ahead_ms(&mut self, ms: i64) {
        self.call("POST", "clock", json!({ "ahead_ms": ms })).await;
    }

    /// Closes the port and all connections; when this returns, nothing is taken any more.
    ///
    /// # Panics
    /// If the simulator is gone.
    pub async fn down(&mut self) {
        self.call("POST", "down", Value::Null).await;
    }

    /// Opens the same port again.
    ///
    /// # Panics
    /// If the simulator is gone.
    pub async fn up(&mut self) {
        self.call("POST", "up", Value::Null).await;
    }

    /// Closes all connections, but not the port.
    ///
    /// # Panics
    /// If the simulator is gone.
    pub async fn cut(&mut self) {
        self.call("POST", "cut", Value::Null).await;
    }

    /// What is known of these tokens, in their order.
    ///
    /// # Panics
    /// If the simulator is gone.
    pub async fn tokens(&mut self, tokens: &[String]) -> Vec<TokenState> {
        let states = self.call("POST", "tokens", json!(tokens)).await;
        serde_json::from_value(states).expect("states")
    }

    /// The first pushes after the last mark, whatever was answered.
    ///
    /// # Panics
    /// If the simulator is gone.
    pub async fn captured(&mut self) -> Vec<Captured> {
        let captured = self.call("GET", "bodies", Value::Null).await;
        serde_json::from_value(captured).expect("captured pushes")
    }

    /// Makes a key of APNs for a team; the answer is the `.p8` file's PEM.
    ///
    /// # Panics
    /// If this is not APNs.
    pub async fn make_apns_key(&mut self, team: &str, key: &str, topics: &[&str]) -> String {
        let input = json!({ "team": team, "key": key, "topics": topics });
        text(&self.call("POST", "keys", input).await, "p8").to_owned()
    }

    /// Makes a service account of a project; the answer is the file that Google gives out, whose `token_uri` is here.
    ///
    /// # Panics
    /// If this is not FCM.
    pub async fn make_fcm_account(&mut self, project: &str) -> Value {
        self.call("POST", "accounts", json!({ "project": project })).await
    }

    /// How many access tokens FCM gave out.
    ///
    /// # Panics
    /// If this is not FCM.
    pub async fn grants(&mut self) -> u64 {
        self.call("GET", "grants", Value::Null).await["grants"].as_u64().expect("a number")
    }

    /// Ends every access token of FCM at once.
    ///
    /// # Panics
    /// If this is not FCM.
    pub async fn expire_access(&mut self) {
        self.call("POST", "expire", Value::Null).await;
    }

    /// How long FCM's access tokens to come will live; an hour unless told.
    ///
    /// # Panics
    /// If this is not FCM.
    pub async fn set_access_life_s(&mut self, seconds: u64) {
        self.call("POST", "access_life", json!({ "seconds": seconds })).await;
    }

    /// What FCM's token endpoint answers to everybody; 0 is what they deserve.
    ///
    /// # Panics
    /// If this is not FCM.
    pub async fn set_token_endpoint_status(&mut self, status: u16) {
        self.call("POST", "token_endpoint", json!({ "status": status })).await;
    }

    /// Makes subscriptions of browsers, for the sender with this public key (an uncompressed point in base64url) or for
    /// any. They share a key. The texts are what a browser's `PushSubscription.toJSON()` gives; the token by which
    /// rules, counts and captured bodies name a subscription is its endpoint's part after the last slash.
    ///
    /// # Panics
    /// If this is not Web Push.
    pub async fn subscribe(&mut self, count: u64, vapid: Option<&str>) -> Vec<String> {
        let input = json!({ "count": count, "vapid": vapid });
        let made = self.call("POST", "subscriptions", input).await;
        let (base, keys) = (text(&made, "endpoint_base"), &made["keys"]);
        let one = |n| {
            let endpoint = format!("{base}{n}");
            json!({ "endpoint": endpoint, "expirationTime": null, "keys": keys }).to_string()
        };
        (0..count).map(one).collect()
    }

    /// Whether Web Push opens bodies as a browser would; it does unless told, and each costs some 100 µs.
    ///
    /// # Panics
    /// If this is not Web Push.
    pub async fn set_opening_bodies(&mut self, open: bool) {
        self.call("POST", "open_bodies", json!({ "open": open })).await;
    }
}
