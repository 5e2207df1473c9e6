//! One app as a test uses it: its admin, and devices that are called by hand.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon_tests::admin::{Admin, Answer, text};
use carillon_tests::cluster::Cluster;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::PATIENCE;

/// An app with its attributes and groups:
///
/// | name | type | set by |
/// | --- | --- | --- |
/// | `bucket` | string | both |
/// | `rank` | number | both |
/// | `beta` | bool | device |
/// | `build` | version | device |
/// | `tier` | string | server |
/// | `#g0` to `#g3`, `#staff` | group | both; server |
pub(crate) struct Shop {
    pub(crate) admin: Admin,
    pub(crate) app: String,
    pub(crate) key: String,
}

impl Shop {
    pub(crate) async fn open(cluster: &Cluster, name: &str) -> Shop {
        let mut admin = cluster.admin();
        let app =
            admin.ok("POST", "/v1/apps", json!({"name": name, "environment": "sandbox"})).await;
        let (id, key) = (text(&app, "id").to_owned(), text(&app, "publishable_key").to_owned());
        let mut shop = Shop { admin, app: id, key };
        for (name, kind, set_by) in [
            ("bucket", "string", "both"),
            ("rank", "number", "both"),
            ("beta", "bool", "device"),
            ("build", "version", "device"),
            ("tier", "string", "server"),
        ] {
            let body = json!({"type": kind, "set_by": set_by});
            shop.ok("PUT", &format!("attributes/{name}"), body).await;
        }
        for (name, set_by) in
            [("g0", "both"), ("g1", "both"), ("g2", "both"), ("g3", "both"), ("staff", "server")]
        {
            shop.ok("POST", "groups", json!({"name": name, "set_by": set_by})).await;
        }
        shop
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v1/apps/{}/{rest}", self.app)
    }

    /// Calls the admin API below the app.
    pub(crate) async fn ok(&mut self, method: &str, rest: &str, body: Value) -> Value {
        let path = self.path(rest);
        self.admin.ok(method, &path, body).await
    }

    /// Sends a message and gives its id.
    pub(crate) async fn say(&mut self, to: &str, body: Value) -> String {
        let said = self.ok("POST", "messages", json!({"to": to, "body": body})).await;
        text(&said, "id").to_owned()
    }

    pub(crate) async fn device(&mut self, id: &str) -> Value {
        self.ok("GET", &format!("devices/{id}"), Value::Null).await
    }

    pub(crate) async fn device_count(&mut self) -> usize {
        let page = self.ok("GET", "devices?limit=1000", Value::Null).await;
        assert_eq!(page["next"], Value::Null, "one page holds them all");
        page["devices"].as_array().expect("a list").len()
    }

    /// Enrols a device through the edge at `url`.
    pub(crate) async fn enrol(&self, url: &str, profile: Value) -> Hand {
        let secret = new_secret();
        let mut body = json!({"key": self.key, "secret": secret});
        body.as_object_mut()
            .expect("an object")
            .extend(profile.as_object().expect("an object").clone());
        let mut http = Admin::new(url, "");
        let answer = http.call("POST", "/v1/devices", body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let json = answer.json();
        http.token = text(&json, "session").to_owned();
        Hand {
            http,
            app: self.app.clone(),
            id: text(&json, "id").to_owned(),
            secret,
            cursor: Some(text(&json, "cursor").to_owned()),
        }
    }
}

/// 256 random bits as a device writes them.
pub(crate) fn new_secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// A device whose every call the test makes. Its session is `http.token`.
pub(crate) struct Hand {
    pub(crate) http: Admin,
    pub(crate) app: String,
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) cursor: Option<String>,
}

impl Hand {
    /// Goes on at another edge.
    pub(crate) fn move_to(&mut self, url: &str) {
        self.http = Admin::new(url, &self.http.token);
    }

    pub(crate) async fn call(&mut self, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = self.http.request(method, path, body);
        if let Some(cursor) = &self.cursor {
            let value = cursor.parse().expect("a cursor is visible ASCII");
            request.headers_mut().insert("carillon-cursor", value);
        }
        self.http.send(request).await
    }

    /// Polls and stores nothing.
    pub(crate) async fn poll(&mut self, wait: u64) -> Answer {
        self.call("GET", &format!("/v1/messages?wait={wait}"), Value::Null).await
    }

    /// Polls as an empty store, which is answered with a whole inventory at once, until `message` is in it. Keeps
    /// the cursor from before.
    pub(crate) async fn receive(&mut self, message: &str) {
        let began = Instant::now();
        let cursor = self.cursor.take();
        loop {
            let answer = self.poll(0).await;
            if answer.status == 200 && ids(&answer).iter().any(|id| id == message) {
                self.cursor = cursor;
                return;
            }
            assert!(began.elapsed() < PATIENCE, "the message does not come: {answer:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Polls until there is nothing new, and keeps the last cursor.
    pub(crate) async fn settle(&mut self) {
        let began = Instant::now();
        loop {
            let answer = self.poll(0).await;
            match answer.status {
                204 => return,
                200 => self.cursor = Some(text(&answer.json(), "cursor").to_owned()),
                503 => tokio::time::sleep(Duration::from_millis(50)).await,
                _ => panic!("{answer:?}"),
            }
            assert!(began.elapsed() < PATIENCE, "news without end");
        }
    }
}

/// Ids of the messages in an answer, sorted.
pub(crate) fn ids(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let messages = json["messages"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
    let mut ids: Vec<String> =
        messages.iter().map(|message| text(message, "id").to_owned()).collect();
    ids.sort();
    ids
}
