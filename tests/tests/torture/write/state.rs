//! What writers believe an app holds, and what central says it holds, in the same shape.

use std::collections::BTreeMap;

use carillon_tests::admin::{Admin, text};
use serde_json::{Value, json};

/// What is there, by a name that says whose it is: `message w03_17`. Ids and times that central chose are left out.
pub(super) type State = BTreeMap<String, Value>;

/// An app of one round, and the apps that its writers make.
#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) id: String,
    pub(super) key: String,
    /// Also what the names of its writers' apps begin with.
    pub(super) name: String,
}

impl App {
    /// Makes the app, and declares what devices' profiles use: `n`, `s`.
    pub(super) async fn create(admin: &mut Admin, name: String) -> App {
        let new = json!({"name": name, "environment": "sandbox"});
        let made = admin.ok("POST", "/v1/apps", new).await;
        let key = text(&made, "publishable_key").to_owned();
        let app = App { id: text(&made, "id").to_owned(), key, name };
        for (name, kind) in [("n", "number"), ("s", "string")] {
            let path = app.path(&format!("/attributes/{name}"));
            admin.ok("PUT", &path, json!({"type": kind, "set_by": "both"})).await;
        }
        app
    }

    pub(super) fn path(&self, rest: &str) -> String {
        format!("/v1/apps/{}{rest}", self.id)
    }
}

/// What central has of a round.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) state: State,
    /// Central's ids, by name.
    pub(super) ids: BTreeMap<String, String>,
}

/// The name of a writer, and of what it makes: `w03_17`.
pub(super) fn name_of(writer: u64) -> String {
    format!("w{writer:02}")
}

/// Devices are found by their ids, so these say whose they are.
pub(super) fn device_id(writer: u64, n: u64) -> String {
    format!("{:016x}", ((writer + 1) << 32) | n)
}

fn device_name(id: &str) -> String {
    let number = u64::from_str_radix(id, 16).expect("ids are hexadecimal");
    match (number >> 32).checked_sub(1) {
        Some(writer @ 0..100) => format!("device {}_{id}", name_of(writer)),
        // One that enrolled by itself.
        _ => format!("device {id}"),
    }
}

/// The part of a state that is a writer's.
pub(super) fn own(state: &State, writer: &str) -> State {
    let begins = format!("{writer}_");
    let is_own = |name: &str| name.split(' ').nth(1).is_some_and(|name| name.starts_with(&begins));
    state.iter().filter(|(name, _)| is_own(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

impl Observed {
    /// Reads everything of a round.
    ///
    /// # Panics
    /// If something is there twice.
    pub(super) async fn of(admin: &mut Admin, app: &App) -> Observed {
        let mut observed = Observed::default();
        for message in all(admin, &app.path("/messages"), "messages").await {
            let name = format!("message {}", text(&message["body"], "key"));
            let fields = ["revision", "state", "to", "body", "priority"];
            observed.put(&name, &message, &fields);
        }
        for mut device in all(admin, &app.path("/devices"), "devices").await {
            let name = device_name(text(&device, "id"));
            sort(&mut device["groups"]);
            observed.put(&name, &device, &["user", "attributes", "groups", "tokens"]);
        }
        for group in all(admin, &app.path("/groups"), "groups").await {
            let name = format!("group {}", text(&group, "name"));
            observed.put(&name, &group, &["set_by", "members"]);
        }
        for attribute in all(admin, &app.path("/attributes"), "attributes").await {
            if !matches!(text(&attribute, "name"), "n" | "s") {
                let name = format!("attribute {}", text(&attribute, "name"));
                observed.put(&name, &attribute, &["type", "set_by"]);
            }
        }
        let begins = format!("{}/", app.name);
        for made in all(admin, "/v1/apps", "apps").await {
            if let Some(name) = text(&made, "name").strip_prefix(&begins) {
                let path = format!("/v1/apps/{}", text(&made, "id"));
                let detail = admin.ok("GET", &path, Value::Null).await;
                observed.put(&format!("app {name}"), &detail, &["environment", "quotas"]);
            }
        }
        observed
    }

    fn put(&mut self, name: &str, from: &Value, fields: &[&str]) {
        let value = fields.iter().map(|&field| (field.to_owned(), from[field].clone())).collect();
        let before = self.state.insert(name.to_owned(), Value::Object(value));
        assert!(before.is_none(), "{name} is there twice: {before:?} and {from}");
        if let Some(id) = from["id"].as_str() {
            self.ids.insert(name.to_owned(), id.to_owned());
        }
    }
}

pub(super) fn sort(list: &mut Value) {
    list.as_array_mut().expect("a list").sort_by_key(Value::to_string);
}

async fn all(admin: &mut Admin, path: &str, list: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut query = match list {
        "apps" | "attributes" => String::new(),
        _ => "?limit=1000".to_owned(),
    };
    loop {
        let mut page = admin.ok("GET", &format!("{path}{query}"), Value::Null).await;
        found.append(page[list].as_array_mut().expect("a list"));
        match page["next"].as_str() {
            Some(next) => query = format!("?limit=1000&after={next}"),
            None => return found,
        }
    }
}

/// How two states differ, for a person: at most ten names.
pub(super) fn difference(expected: &State, found: &State) -> String {
    let names = expected.keys().chain(found.keys().filter(|name| !expected.contains_key(*name)));
    let differing = names.filter(|name| expected.get(*name) != found.get(*name));
    let lines = differing.take(10).map(|name| {
        let show = |state: &State| state.get(name).map_or("absent".to_owned(), Value::to_string);
        format!("  {name}: expected {}, found {}", show(expected), show(found))
    });
    lines.collect::<Vec<_>>().join("\n")
}
