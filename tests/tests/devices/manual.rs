//! The client's state machine with every answer in the test's hand: which edge is asked, when an answer is delivered,
//! how often. Its clock is the test's, so that no pause is waited for.

use std::collections::BTreeMap;

use bytes::Bytes;
use carillon_client::{
    Command, Device, DeviceConfig, Event, FailureKind, HttpTransport, MemoryStore, Next, Operation,
    Profile, Request, RequestId, Secret, WriteId,
};
use http::Response;
use serde_json::Value;

use crate::PATIENCE;
use crate::watch::Watch;

pub(crate) struct Manual {
    pub(crate) device: Device,
    edges: Vec<HttpTransport>,
    /// Milliseconds; runs ahead to whatever the device waits for.
    now: u64,
    pub(crate) watch: Watch,
}

/// What one exchange was.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) operation: Operation,
    /// `None`: no answer.
    pub(crate) status: Option<u16>,
}

impl Manual {
    /// A device that is going to enrol. Polls ask to be held for `wait_s`.
    pub(crate) fn new(urls: &[String], key: &str, profile: Profile, wait_s: u64) -> Manual {
        let edges = urls.iter().map(|url| HttpTransport::new(url.parse().expect("an URL"), None));
        let edges: Vec<HttpTransport> = edges.collect();
        let config = DeviceConfig {
            app_key: Some(key.to_owned()),
            profile,
            edges: edges.len(),
            wait_s,
            seed: rand::random(),
        };
        let secrets = Box::new(|| Secret::new(rand::random()));
        let device = Device::new(config, Box::new(MemoryStore::default()), secrets);
        Manual { device, edges, now: 0, watch: Watch::default() }
    }

    /// The next request, whatever the device would wait for before.
    pub(crate) fn next(&mut self) -> Request {
        loop {
            match self.device.poll_request(self.now) {
                Next::Send(request) => return request,
                Next::WaitUntil(at) => self.now = at,
                Next::Abort(_) => {}
                Next::Done => panic!("the device is done"),
            }
        }
    }

    /// Sends a request to an edge of the test's choice; `None` if no answer comes.
    pub(crate) async fn ask(&mut self, edge: usize, request: &Request) -> Option<Response<Bytes>> {
        let mut copy = http::Request::new(request.http.body().clone());
        *copy.method_mut() = request.http.method().clone();
        *copy.uri_mut() = request.http.uri().clone();
        *copy.headers_mut() = request.http.headers().clone();
        self.edges[edge].request(copy, PATIENCE).await.ok()
    }

    /// Delivers an answer, or says that there is none.
    pub(crate) fn give(&mut self, id: RequestId, answer: Option<&Response<Bytes>>) -> Vec<Event> {
        match answer {
            Some(answer) => self.device.handle_response(self.now, id, answer),
            None => self.device.handle_failure(self.now, id, FailureKind::Timeout),
        }
        let mut events = Vec::new();
        while let Some(event) = self.device.poll_event() {
            self.watch.note(&event);
            events.push(event);
        }
        events
    }

    /// One exchange with an edge.
    pub(crate) async fn step(&mut self, edge: usize) -> Step {
        let request = self.next();
        let answer = self.ask(edge, &request).await;
        self.give(request.id, answer.as_ref());
        let status = answer.map(|answer| answer.status().as_u16());
        Step { operation: request.id.operation(), status }
    }

    /// Steps until a poll brings nothing new.
    pub(crate) async fn settle(&mut self, edge: usize) {
        let began = tokio::time::Instant::now();
        loop {
            let step = self.step(edge).await;
            if step.operation == Operation::Poll && step.status == Some(204) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "it does not settle: {step:?}");
        }
    }

    pub(crate) fn command(&mut self, command: &Command) -> WriteId {
        self.device.command(command).expect("the write is taken")
    }

    /// What it holds: bodies by id.
    pub(crate) fn held(&self) -> BTreeMap<String, Value> {
        held(&self.device.saved().messages)
    }
}

/// Bodies by id.
pub(crate) fn held(
    messages: &BTreeMap<carillon_client::MessageId, carillon_client::Message>,
) -> BTreeMap<String, Value> {
    let read = |body: &str| serde_json::from_str(body).expect("a body is JSON");
    messages.iter().map(|(id, message)| (id.to_string(), read(&message.body))).collect()
}
