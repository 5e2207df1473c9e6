//! Calls central's admin API and looks closely at what it answers and at what it does.
//!
//! Checks of one bench follow each other, so that a refused call has to leave the newest seq, and the app it was about,
//! exactly as they were.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use carillon_client::{Client, ClientBuilder, Event, MessageId};
use carillon_tests::admin::{Admin, Answer, text};
use carillon_tests::cluster::{Cluster, ops_get};
use http::Request;
use serde_json::{Value, json};

use crate::document::{Document, Operation};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One call of an operation of the document.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// As in [`crate::document::Operation`].
    operation: String,
    path: String,
    query: String,
    body: Bytes,
    headers: Vec<(&'static str, String)>,
}

impl Call {
    /// `parameters` take the places of the names in braces, in order, percent-encoded.
    #[track_caller]
    pub(crate) fn to(operation: &str, parameters: &[&str]) -> Call {
        let (_, template) = operation.split_once(' ').expect("a method and a path");
        let mut path = String::new();
        let mut rest = template;
        let mut parameters = parameters.iter();
        while let Some((before, after)) = rest.split_once('{') {
            path.push_str(before);
            path.push_str(&percent(parameters.next().expect("a parameter for each name")));
            rest = after.split_once('}').expect("braces").1;
        }
        path.push_str(rest);
        assert!(parameters.next().is_none(), "more parameters than {operation} has");
        let operation = operation.to_owned();
        Call { operation, path, query: String::new(), body: Bytes::new(), headers: Vec::new() }
    }

    pub(crate) fn of(operation: &Operation, parameters: &[&str]) -> Call {
        Call::to(&operation.call, parameters)
    }

    pub(crate) fn operation(&self) -> &str {
        &self.operation
    }

    pub(crate) fn json(self, body: Value) -> Call {
        self.text(body.to_string())
    }

    pub(crate) fn text(self, body: impl Into<Bytes>) -> Call {
        Call { body: body.into(), ..self }
    }

    pub(crate) fn query(self, query: &str) -> Call {
        Call { query: query.to_owned(), ..self }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Call {
        self.headers.push((name, value.into()));
        self
    }
}

/// Everything but what a path may hold as it is.
pub(crate) fn percent(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// How often an operation was called.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) good: u32,
    pub(crate) refused: u32,
}

/// An app of a check's own.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) id: String,
    pub(crate) key: String,
}

#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    pub(crate) admin: Admin,
    pub(crate) document: Document,
    pub(crate) tally: BTreeMap<String, Tally>,
    /// The app that refused calls must leave as it was.
    watched: Option<String>,
    apps: u32,
}

impl Bench {
    pub(crate) async fn new(cluster: Cluster) -> Bench {
        let mut admin = cluster.admin();
        let document = Document::new(admin.ok("GET", "/openapi.json", Value::Null).await);
        let tally =
            document.operations.iter().map(|o| (o.call.clone(), Tally::default())).collect();
        Bench { cluster, admin, document, tally, watched: None, apps: 0 }
    }

    /// Makes an app, which is watched from here on.
    pub(crate) async fn app(&mut self) -> App {
        self.apps += 1;
        let name = format!("app {}", self.apps);
        let made = self
            .written(
                Call::to("POST /v1/apps", &[])
                    .json(json!({"name": name, "environment": "sandbox"})),
            )
            .await
            .json();
        let app = App { id: text(&made, "id").into(), key: text(&made, "publishable_key").into() };
        self.watched = Some(app.id.clone());
        app
    }

    /// From here on, refused calls are only seen to leave the newest seq alone: for apps that take long to read.
    pub(crate) fn watch_nothing(&mut self) {
        self.watched = None;
    }

    /// A call that reads.
    #[track_caller]
    pub(crate) fn read(&mut self, call: Call) -> impl Future<Output = Answer> {
        let at = std::panic::Location::caller();
        async move {
            let before = self.head().await;
            let answer = self.good(&call).await;
            assert_eq!(self.head().await, before, "{at}: {} wrote", call.operation);
            answer
        }
    }

    /// A call that changes something: it is committed where its answer says.
    #[track_caller]
    pub(crate) fn written(&mut self, call: Call) -> impl Future<Output = Answer> {
        let at = std::panic::Location::caller();
        async move {
            let before = self.head().await;
            let answer = self.good(&call).await;
            let head = self.head().await;
            assert!(head > before, "{at}: {} changed nothing: {answer:?}", call.operation);
            assert_eq!(seq(&answer), head, "{at}: {answer:?}");
            answer
        }
    }

    /// A call that may change something, but has nothing to change.
    #[track_caller]
    pub(crate) fn unchanged(&mut self, call: Call) -> impl Future<Output = Answer> {
        let at = std::panic::Location::caller();
        async move {
            let before = self.head().await;
            let answer = self.good(&call).await;
            assert_eq!(self.head().await, before, "{at}: {} changed something", call.operation);
            assert!(seq(&answer) <= before, "{at}: {answer:?}");
            answer
        }
    }

    async fn good(&mut self, call: &Call) -> Answer {
        let operation = self.document.operation(&call.operation);
        let answer = self.send(call).await;
        assert!((200..300).contains(&answer.status), "{call:?}: {answer:?}");
        self.document.check_answer(&operation, &answer);
        assert_eq!(
            answer.headers.contains_key("carillon-position"),
            operation.writes(),
            "{answer:?}"
        );
        let is_message = answer.json()["revision"].as_u64();
        let etag = is_message.map(|revision| format!("\"{revision}\"")).unwrap_or_default();
        assert_eq!(answer.header("etag"), etag, "{call:?}: {answer:?}");
        self.tally.get_mut(&call.operation).expect("each has a tally").good += 1;
        answer
    }

    /// A call that is refused, and changes nothing.
    #[track_caller]
    pub(crate) fn refused(
        &mut self,
        call: Call,
        status: u16,
        code: &str,
    ) -> impl Future<Output = Value> {
        let at = std::panic::Location::caller();
        async move {
            let before = self.state().await;
            let answer = self.send(&call).await;
            let found = (answer.status, answer.json()["code"].as_str().map(str::to_owned));
            assert_eq!(found, (status, Some(code.to_owned())), "{at}: {call:?}: {answer:?}");
            let problem = self.problem(&call.operation, &answer, status, code);
            self.unmoved(before, &format!("{at}: {call:?}")).await;
            problem
        }
    }

    /// Looks at a refusal that came by another way, and counts it.
    pub(crate) fn problem(
        &mut self,
        operation: &str,
        answer: &Answer,
        status: u16,
        code: &str,
    ) -> Value {
        let problem = answer.expect_problem(status, code);
        assert_eq!(text(&problem, "type"), format!("https://carillon.dev/problems/{code}"));
        assert!(!answer.headers.contains_key("carillon-position"), "{answer:?}");
        if let Some(operation) = self.document.operations.iter().find(|o| o.call == operation) {
            self.document.check_answer(operation, answer);
            self.tally.get_mut(&operation.call).expect("each has a tally").refused += 1;
        }
        problem
    }

    pub(crate) async fn send(&mut self, call: &Call) -> Answer {
        let request = self.request(call);
        self.admin.send(request).await
    }

    pub(crate) fn request(&self, call: &Call) -> Request<Bytes> {
        let (method, _) = call.operation.split_once(' ').expect("a method and a path");
        let path = match call.query.as_str() {
            "" => call.path.clone(),
            query => format!("{}?{query}", call.path),
        };
        let mut request = self.admin.request(method, &path, call.body.clone());
        for (name, value) in &call.headers {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).expect("a header");
            request.headers_mut().insert(*name, value);
        }
        request
    }

    /// Waits until the edge has reported a device that polled: a report is a change, too, and whoever counts changes after
    /// it must not count this one.
    pub(crate) async fn reported(&mut self, app: &App, device: &str) {
        let get = Call::to("GET /v1/apps/{app}/devices/{device}", &[&app.id, device]);
        while self.send(&get).await.json()["last_seen"].is_null() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The newest seq.
    pub(crate) async fn head(&self) -> u64 {
        let (_, body) = ops_get(self.cluster.admin_address(), "/healthz").await.expect("healthy");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        body["head"].as_u64().expect("a seq")
    }

    /// The newest seq, and everything of the watched app.
    pub(crate) async fn state(&mut self) -> (u64, Vec<Bytes>) {
        let parts = match self.watched.clone() {
            Some(app) => self.parts(&app).await,
            None => Vec::new(),
        };
        (self.head().await, parts)
    }

    /// The newest seq, and everything of all apps.
    pub(crate) async fn everything(&mut self) -> (u64, Vec<Bytes>) {
        let apps = self.admin.ok("GET", "/v1/apps", Value::Null).await;
        let mut parts = Vec::new();
        for app in apps["apps"].as_array().expect("apps") {
            parts.extend(self.parts(text(app, "id")).await);
        }
        (self.head().await, parts)
    }

    async fn parts(&mut self, app: &str) -> Vec<Bytes> {
        let mut parts = Vec::new();
        for part in [
            "",
            "/attributes",
            "/groups?limit=1000",
            "/audiences?limit=1000",
            "/devices:export",
            "/messages?limit=1000",
        ] {
            let path = format!("/v1/apps/{app}{part}");
            let answer = self.admin.call("GET", &path, Value::Null).await;
            assert_eq!(answer.status, 200, "{part}: {answer:?}");
            parts.push(answer.body);
        }
        parts
    }

    /// Nothing was applied since `before`.
    pub(crate) async fn unmoved(&mut self, before: (u64, Vec<Bytes>), what: &str) {
        let (head, parts) = self.state().await;
        assert!(parts == before.1, "{what} was refused, yet something changed");
        assert_eq!(head, before.0, "{what} was refused, yet something was committed");
    }

    /// Creates a message and gives its id.
    pub(crate) async fn message(&mut self, app: &App, body: Value) -> String {
        let made =
            self.written(Call::to("POST /v1/apps/{app}/messages", &[&app.id]).json(body)).await;
        text(&made.json(), "id").to_owned()
    }

    /// Declares an attribute of this type.
    pub(crate) async fn attribute(&mut self, app: &App, name: &str, kind: &str, set_by: &str) {
        let call = Call::to("PUT /v1/apps/{app}/attributes/{name}", &[&app.id, name]);
        self.written(call.json(json!({"type": kind, "set_by": set_by}))).await;
    }

    /// Makes a group and gives its id.
    pub(crate) async fn group(&mut self, app: &App, name: &str, set_by: &str) -> String {
        let call = Call::to("POST /v1/apps/{app}/groups", &[&app.id]);
        let made = self.written(call.json(json!({"name": name, "set_by": set_by}))).await;
        text(&made.json(), "id").to_owned()
    }

    /// Imports these lines and gives the report.
    pub(crate) async fn import(&mut self, app: &App, lines: &[Value]) -> Value {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let call = Call::to("POST /v1/apps/{app}/devices:import", &[&app.id]).text(body);
        self.written(call).await.json()
    }

    /// A device that enrols at the first edge and polls it, once it is asked to.
    pub(crate) fn phone(&self, app: &App) -> ClientBuilder {
        Client::builder()
            .edges(self.cluster.edge_urls())
            .app_key(app.key.as_str())
            .tls(self.cluster.tls())
            .wait(Duration::from_secs(2))
    }
}

/// A line of what a test did, for whoever looks whether it did enough.
#[expect(clippy::print_stdout, reason = "a test's output, shown when it is asked for")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// Where a write was committed: `<shard>/<epoch>/<seq>`.
#[track_caller]
pub(crate) fn seq(answer: &Answer) -> u64 {
    let position = answer.header("carillon-position");
    let parts: Vec<u64> = position.split('/').filter_map(|part| part.parse().ok()).collect();
    assert!(parts.len() == 3 && parts[0] == 0 && parts[1] > 0, "{answer:?}");
    parts[2]
}

/// Polls until the device holds exactly these messages.
///
/// # Panics
/// If that never comes.
#[track_caller]
pub(crate) fn holds(client: &mut Client, want: &[&str]) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    let mut want: Vec<MessageId> = want.iter().map(|id| id.parse().expect("an id")).collect();
    want.sort();
    async move {
        let reached = tokio::time::timeout(PATIENCE, async {
            while !client.messages().keys().copied().eq(want.iter().copied()) {
                let event: Option<Event> = client.next_event().await;
                assert!(event.is_some(), "{at}: the client ended");
            }
        });
        let reached = reached.await.is_ok();
        let held: Vec<MessageId> = client.messages().into_keys().collect();
        assert!(reached, "{at}: wants {want:?}, holds {held:?}");
    }
}

/// Polls until the device holds this body of the message, byte for byte.
///
/// # Panics
/// If that never comes.
#[track_caller]
pub(crate) fn shows(client: &mut Client, id: &str, body: &str) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    let id: MessageId = id.parse().expect("an id");
    async move {
        let held = |client: &Client| client.messages().get(&id).map(|m| m.body.to_string());
        let reached = tokio::time::timeout(PATIENCE, async {
            while held(client).as_deref() != Some(body) {
                let event: Option<Event> = client.next_event().await;
                assert!(event.is_some(), "{at}: the client ended");
            }
        });
        let reached = reached.await.is_ok();
        assert!(reached, "{at}: {id} holds {:?}, not {body:?}", held(client));
    }
}
