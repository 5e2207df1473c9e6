//! Every kind of write of the admin API, drawn at random among what a writer's things allow, with what it leads to.

use std::collections::BTreeMap;

use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::state::{App, State, device_id, sort};

/// Devices of one writer at most, and messages that it has out.
const DEVICES_MAX: usize = 60;
const LIVE_MAX: usize = 20;
/// An installation has 10,000 apps at most, and long trials have many rounds.
const APPS_MAX: usize = 2;
const APP_MAKERS: u64 = 4;
const WEIGHTS: [(Kind, u32); 17] = [
    (Kind::CreateMessage, 22),
    (Kind::EditMessage, 12),
    (Kind::RecallMessage, 5),
    (Kind::Import, 12),
    (Kind::PatchDevice, 16),
    (Kind::DeleteDevice, 4),
    (Kind::RevokeDevice, 2),
    (Kind::EraseUser, 2),
    (Kind::CreateGroup, 4),
    (Kind::RenameGroup, 2),
    (Kind::DeleteGroup, 1),
    (Kind::AddMembers, 6),
    (Kind::RemoveMembers, 4),
    (Kind::DeclareAttribute, 3),
    (Kind::DeleteAttribute, 1),
    (Kind::CreateApp, 1),
    (Kind::SetQuotas, 3),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    CreateMessage,
    EditMessage,
    RecallMessage,
    Import,
    PatchDevice,
    DeleteDevice,
    RevokeDevice,
    EraseUser,
    CreateGroup,
    RenameGroup,
    DeleteGroup,
    AddMembers,
    RemoveMembers,
    DeclareAttribute,
    DeleteAttribute,
    CreateApp,
    SetQuotas,
    Enrol,
    PatchSelf,
    Forget,
}

impl Kind {
    pub(super) const ALL: [Kind; 20] = {
        use Kind::*;
        [
            CreateMessage,
            EditMessage,
            RecallMessage,
            Import,
            PatchDevice,
            DeleteDevice,
            RevokeDevice,
            EraseUser,
            CreateGroup,
            RenameGroup,
            DeleteGroup,
            AddMembers,
            RemoveMembers,
            DeclareAttribute,
            DeleteAttribute,
            CreateApp,
            SetQuotas,
            Enrol,
            PatchSelf,
            Forget,
        ]
    };
}

/// One write.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) kind: Kind,
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: String,
    /// Its `Idempotency-Key`.
    pub(super) key: Option<String>,
    /// The status of its acknowledgement.
    pub(super) status: u16,
    /// What it makes, if central chooses the id.
    pub(super) makes: Option<String>,
    /// What the writer's things are once it is applied.
    pub(super) after: State,
}

/// One writer's things, and how it comes to its next write.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) writer: u64,
    /// `w03`
    pub(super) name: String,
    pub(super) app: App,
    pub(super) state: State,
    /// Central's ids of what it made, by name.
    pub(super) ids: BTreeMap<String, String>,
    rng: StdRng,
    made: u64,
}

impl Desk {
    pub(super) fn new(writer: u64, app: App, rng: StdRng) -> Desk {
        let (state, ids) = Default::default();
        Desk { writer, name: super::state::name_of(writer), app, state, ids, rng, made: 0 }
    }

    /// The next write. It may be applied or not; only [`Operation::after`] says what it does.
    pub(super) fn next(&mut self) -> Operation {
        let sum = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        loop {
            let mut drawn = self.rng.random_range(0..sum);
            let (kind, _) = WEIGHTS
                .iter()
                .find(|(_, weight)| {
                    let is_it = drawn < *weight;
                    drawn = drawn.saturating_sub(*weight);
                    is_it
                })
                .expect("below the sum");
            if let Some(operation) = self.draw(*kind) {
                return operation;
            }
        }
    }

    /// `None` if there is nothing that it could be done to.
    fn draw(&mut self, kind: Kind) -> Option<Operation> {
        match kind {
            Kind::CreateMessage => self.create_message(),
            Kind::EditMessage | Kind::RecallMessage => self.change_message(kind),
            Kind::Import => self.import(),
            Kind::PatchDevice => self.patch_device(),
            Kind::DeleteDevice | Kind::RevokeDevice => self.end_device(kind),
            Kind::EraseUser => self.erase(),
            Kind::CreateGroup | Kind::RenameGroup | Kind::DeleteGroup => self.group(kind),
            Kind::AddMembers | Kind::RemoveMembers => self.members(kind),
            Kind::DeclareAttribute | Kind::DeleteAttribute => self.attribute(kind),
            Kind::CreateApp | Kind::SetQuotas => self.app(kind),
            Kind::Enrol | Kind::PatchSelf | Kind::Forget => None,
        }
    }

    fn operation(&self, kind: Kind, method: &'static str, path: &str, body: Value) -> Operation {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        Operation {
            kind,
            method,
            path: self.app.path(path),
            body,
            key: None,
            status: 200,
            makes: None,
            after: self.state.clone(),
        }
    }

    /// A name that nothing had before.
    fn fresh(&mut self) -> String {
        self.made += 1;
        format!("{}_{}", self.name, self.made)
    }

    fn names(&self, begins: &str) -> Vec<String> {
        let names = self.state.keys().filter_map(|name| name.strip_prefix(begins));
        names.map(str::to_owned).collect()
    }

    fn pick(&mut self, from: &[String]) -> Option<String> {
        (!from.is_empty()).then(|| from[self.rng.random_range(0..from.len())].clone())
    }

    fn live_messages(&self) -> Vec<String> {
        let mut names = self.names("message ");
        names.retain(|name| self.state[&format!("message {name}")]["state"] == "active");
        names
    }

    fn create_message(&mut self) -> Option<Operation> {
        if self.live_messages().len() >= LIVE_MAX {
            return None;
        }
        let key = self.fresh();
        let body = json!({"key": key, "n": 0, "text": "x".repeat(self.rng.random_range(0..300))});
        let priority = ["low", "normal", "high"][self.rng.random_range(0..3)];
        let new = json!({"to": "all", "body": body, "priority": priority});
        let mut operation = self.operation(Kind::CreateMessage, "POST", "/messages", new);
        let value = json!({"revision": 1, "state": "active", "to": "all", "body": body,
                           "priority": priority});
        let name = format!("message {key}");
        operation.after.insert(name.clone(), value);
        operation.makes = Some(name);
        operation.status = 201;
        operation.key = self.rng.random_bool(0.75).then_some(key);
        Some(operation)
    }

    fn change_message(&mut self, kind: Kind) -> Option<Operation> {
        let name = format!("message {}", self.pick(&self.live_messages())?);
        let path = format!("/messages/{}", self.ids[&name]);
        let mut value = self.state[&name].clone();
        let mut operation;
        if kind == Kind::RecallMessage {
            operation = self.operation(kind, "POST", &format!("{path}:recall"), Value::Null);
            value["state"] = json!("recalled");
        } else {
            let revision = value["revision"].as_u64().expect("a number");
            value["body"]["n"] = json!(revision);
            value["revision"] = json!(revision + 1);
            let patch = json!({"body": value["body"]});
            operation = self.operation(kind, "PATCH", &path, patch);
        }
        operation.after.insert(name, value);
        Some(operation)
    }

    /// A device's profile, anew.
    fn profile(&mut self) -> Value {
        let user = format!("{}_u{}", self.name, self.rng.random_range(0..4));
        let n = self.rng.random_range(0..1_000_000);
        let groups = self.names("group ");
        let mut groups: Value =
            groups.into_iter().filter(|_| self.rng.random_bool(0.3)).take(8).collect();
        sort(&mut groups);
        json!({"user": user, "attributes": {"n": n, "s": format!("s{n}")}, "groups": groups})
    }

    fn import(&mut self) -> Option<Operation> {
        let devices = self.names("device ");
        let mut lines = String::new();
        let mut after = self.state.clone();
        for _ in 0..self.rng.random_range(1..20) {
            let known = if self.rng.random_bool(0.3) { self.pick(&devices) } else { None };
            let name = match known {
                Some(name) => name,
                None if devices.len() >= DEVICES_MAX => continue,
                None => {
                    self.made += 1;
                    format!("{}_{}", self.name, device_id(self.writer, self.made))
                }
            };
            let mut profile = self.profile();
            let mut line = profile.clone();
            line["id"] = json!(name.rsplit_once('_').expect("it ends with the id").1);
            lines += &format!("{line}\n");
            let name = format!("device {name}");
            // An import leaves the tokens alone.
            profile["tokens"] = after.get(&name).map_or(json!(0), |d| d["tokens"].clone());
            after.insert(name, profile);
        }
        let mut operation = self.operation(Kind::Import, "POST", "/devices:import", Value::Null);
        operation.body = lines;
        operation.after = after;
        recount(&mut operation.after);
        (!operation.body.is_empty()).then_some(operation)
    }

    fn patch_device(&mut self) -> Option<Operation> {
        let name = format!("device {}", self.pick(&self.names("device "))?);
        let profile = self.profile();
        let mut value = self.state[&name].clone();
        let mut patch = json!({});
        if self.rng.random_bool(0.5) {
            patch["user"] = profile["user"].clone();
            value["user"] = profile["user"].clone();
        }
        if self.rng.random_bool(0.7) {
            let attributes = json!({"n": profile["attributes"]["n"], "s": null});
            value["attributes"] = json!({"n": attributes["n"]});
            patch["attributes"] = attributes;
        }
        if self.rng.random_bool(0.4) {
            let wanted = |group: &String| {
                profile["groups"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|name| name == group.as_str()))
            };
            let groups = self.names("group ");
            patch["groups"] =
                groups.into_iter().map(|group| (group.clone(), json!(wanted(&group)))).collect();
            value["groups"] = profile["groups"].clone();
        }
        let tokens = self.rng.random_range(0..3);
        let token = |n: usize| json!({"channel": "fcm", "token": format!("t{n}")});
        patch["tokens"] = (0..tokens).map(token).collect();
        value["tokens"] = json!(tokens);
        let path = format!("/devices/{}", id_of(&name));
        let mut operation = self.operation(Kind::PatchDevice, "PATCH", &path, patch);
        operation.after.insert(name, value);
        recount(&mut operation.after);
        Some(operation)
    }

    fn end_device(&mut self, kind: Kind) -> Option<Operation> {
        let name = format!("device {}", self.pick(&self.names("device "))?);
        let path = format!("/devices/{}", id_of(&name));
        if kind == Kind::RevokeDevice {
            return Some(self.operation(kind, "POST", &format!("{path}/revoke"), Value::Null));
        }
        let mut operation = self.operation(kind, "DELETE", &path, Value::Null);
        operation.status = 204;
        operation.after.remove(&name);
        recount(&mut operation.after);
        Some(operation)
    }

    fn erase(&mut self) -> Option<Operation> {
        let name = format!("device {}", self.pick(&self.names("device "))?);
        let user = self.state[&name]["user"].clone();
        let path = format!("/users/{}:erase", user.as_str()?);
        let mut operation = self.operation(Kind::EraseUser, "POST", &path, Value::Null);
        operation.after.retain(|name, value| !name.starts_with("device ") || value["user"] != user);
        recount(&mut operation.after);
        Some(operation)
    }

    fn group(&mut self, kind: Kind) -> Option<Operation> {
        let groups = self.names("group ");
        if kind == Kind::CreateGroup {
            let name = self.fresh();
            let set_by = ["server", "device", "both"][self.rng.random_range(0..3)];
            // Devices' own groups are not for the admin to fill.
            let set_by = if set_by == "device" { "both" } else { set_by };
            let new = json!({"name": name, "set_by": set_by});
            let mut operation = self.operation(kind, "POST", "/groups", new);
            operation.status = 201;
            let value = json!({"set_by": set_by, "members": 0});
            operation.after.insert(format!("group {name}"), value);
            return (groups.len() < 8).then_some(operation);
        }
        let old = self.pick(&groups)?;
        let path = format!("/groups/name:{old}");
        let name = format!("group {old}");
        if kind == Kind::DeleteGroup {
            let mut operation = self.operation(kind, "DELETE", &path, Value::Null);
            operation.status = 204;
            operation.after.remove(&name);
            return (self.state[&name]["members"] == 0).then_some(operation);
        }
        let new = self.fresh();
        let mut operation = self.operation(kind, "PATCH", &path, json!({"name": new}));
        let value = operation.after.remove(&name).expect("it is there");
        operation.after.insert(format!("group {new}"), value);
        for (_, device) in devices(&mut operation.after) {
            for group in device["groups"].as_array_mut().expect("a list") {
                if *group == old {
                    *group = json!(new);
                }
            }
            sort(&mut device["groups"]);
        }
        Some(operation)
    }

    fn members(&mut self, kind: Kind) -> Option<Operation> {
        let group = self.pick(&self.names("group "))?;
        let mut names = self.names("device ");
        names.retain(|_| self.rng.random_bool(0.3));
        let ids: Vec<&str> = names.iter().map(|name| id_of(name)).collect();
        let action = if kind == Kind::AddMembers { "add" } else { "remove" };
        let path = format!("/groups/name:{group}/members:{action}");
        let mut operation = self.operation(kind, "POST", &path, json!({"devices": ids}));
        for (name, device) in devices(&mut operation.after) {
            if names.iter().any(|chosen| name.ends_with(chosen.as_str())) {
                let groups = device["groups"].as_array_mut().expect("a list");
                groups.retain(|member| *member != group);
                if kind == Kind::AddMembers {
                    groups.push(json!(group));
                }
                sort(&mut device["groups"]);
            }
        }
        recount(&mut operation.after);
        Some(operation)
    }

    /// Attributes that no device has a value of.
    fn attribute(&mut self, kind: Kind) -> Option<Operation> {
        if kind == Kind::DeleteAttribute {
            let name = self.pick(&self.names("attribute "))?;
            let path = format!("/attributes/{name}");
            let mut operation = self.operation(kind, "DELETE", &path, Value::Null);
            operation.status = 204;
            operation.after.remove(&format!("attribute {name}"));
            return Some(operation);
        }
        // Again, and so perhaps retyped, or one more.
        let known = self.names("attribute ");
        let again = self.rng.random_bool(0.3).then(|| self.pick(&known)).flatten();
        let name = again.unwrap_or_else(|| self.fresh());
        let kinds = ["string", "number", "bool", "version"];
        let value = json!({"type": kinds[self.rng.random_range(0..4)], "set_by": "both"});
        let path = format!("/attributes/{name}");
        let mut operation = self.operation(kind, "PUT", &path, value.clone());
        operation.after.insert(format!("attribute {name}"), value);
        Some(operation)
    }

    fn app(&mut self, kind: Kind) -> Option<Operation> {
        let apps = self.names("app ");
        if kind == Kind::CreateApp {
            if apps.len() >= APPS_MAX || self.writer >= APP_MAKERS {
                return None;
            }
            let name = self.fresh();
            let new =
                json!({"name": format!("{}/{name}", self.app.name), "environment": "sandbox"});
            let mut operation = self.operation(kind, "POST", "", new);
            operation.path = "/v1/apps".to_owned();
            operation.status = 201;
            let quotas = json!({"devices_max": null, "groups_max": null,
                                "live_messages_max": null, "bodies_bytes_max": null});
            let value = json!({"environment": "sandbox", "quotas": quotas});
            let name = format!("app {name}");
            operation.after.insert(name.clone(), value);
            operation.makes = Some(name);
            return Some(operation);
        }
        let name = format!("app {}", self.pick(&apps)?);
        let quotas = json!({"devices_max": self.rng.random_range(1..1_000_000), "groups_max": null,
                            "live_messages_max": self.rng.random_range(0..1_000)});
        let mut operation = self.operation(kind, "PATCH", "", json!({"quotas": quotas}));
        operation.path = format!("/v1/apps/{}", self.ids[&name]);
        let value = operation.after.get_mut(&name).expect("it is there");
        for (quota, limit) in quotas.as_object().expect("an object") {
            value["quotas"][quota] = limit.clone();
        }
        Some(operation)
    }
}

fn devices(state: &mut State) -> impl Iterator<Item = (&String, &mut Value)> {
    state.iter_mut().filter(|(name, _)| name.starts_with("device "))
}

/// The id that a device's name ends with.
fn id_of(name: &str) -> &str {
    name.rsplit_once('_').expect("it ends with the id").1
}

/// Counts the members of each group again.
fn recount(state: &mut State) {
    let mut members: BTreeMap<String, u64> = BTreeMap::new();
    for (_, device) in devices(state) {
        for group in device["groups"].as_array().expect("a list") {
            *members.entry(group.as_str().expect("a name").to_owned()).or_default() += 1;
        }
    }
    for (name, group) in state.iter_mut() {
        if let Some(name) = name.strip_prefix("group ") {
            group["members"] = json!(members.get(name).copied().unwrap_or(0));
        }
    }
}
