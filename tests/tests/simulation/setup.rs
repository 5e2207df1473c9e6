//! What there is before anything goes wrong: an app, its schema, devices that were imported and devices that enrol.

use std::collections::BTreeMap;

use carillon_central::core::input::ImportLine;
use carillon_central::core::write::Write;
use carillon_client::{Identity, Profile, Saved, Secret};
use carillon_expr::{AttributeId, GroupId, Type};
use carillon_world::{DeviceId, Environment};

use crate::device::Client;
use crate::predicate::Kind;
use crate::sim::Sim;
use crate::workload::{APP, ATTRIBUTES, GROUPS, SILENT, SILENT_FROM, hash};

const APP_KEY: &str = "pk_simulated";
const CLIENTS: usize = 20;
/// Of those, devices that were imported and hold nothing but their secret.
const IMPORTED: usize = 8;

impl Sim {
    /// The app, its schema, devices; all without faults.
    pub(crate) fn set_up(&mut self) {
        self.start_central();
        self.dial_later(0);
        self.dial_later(1);
        let name = "simulated".into();
        let publishable_key = APP_KEY.into();
        let environment = Environment::Sandbox;
        self.ask(Write::CreateApp { id: APP, name, environment, publishable_key });
        self.run_for(100);
        for (id, name, kind, set_by) in ATTRIBUTES {
            let kind = match kind {
                Kind::Text => Type::String,
                Kind::Number => Type::Number,
                Kind::Flag => Type::Bool,
                Kind::Release => Type::Version,
                Kind::Moment => Type::Time,
            };
            let (id, name) = (AttributeId::new(id), name.into());
            self.ask(Write::DeclareAttribute { app: APP, id, name, kind, set_by });
        }
        for (id, name, set_by) in GROUPS {
            let (id, name) = (GroupId::new(id), name.into());
            self.ask(Write::CreateGroup { app: APP, id, name, set_by });
        }
        self.run_for(500);
        let mut lines: Vec<ImportLine> =
            (0..SILENT).map(|n| self.import_line(DeviceId::new(SILENT_FROM + n))).collect();
        for n in 0..IMPORTED {
            let secret = Secret::new(self.random.bytes32());
            let id = DeviceId::new(self.random.draw());
            let mut line = self.import_line(id);
            line.secret = Some(hash(&secret));
            lines.push(line);
            let registered = Some((
                carillon_client::AppId::new(APP.get()),
                carillon_client::DeviceId::new(id.get()),
            ));
            let identity = Some(Identity { secret, registered, session: None });
            let saved = Saved { identity, ..Saved::default() };
            let client = Client::new(&mut self.random, APP_KEY, Profile::default(), saved);
            self.clients.push(client);
            assert_eq!(self.clients.len(), n + 1);
        }
        self.ask(Write::ImportDevices { app: APP, lines });
        self.run_for(1_000);
        while self.clients.len() < CLIENTS {
            let client = self.new_client();
            self.clients.push(client);
        }
        (0..CLIENTS).for_each(|which| self.client_turn(which));
        self.run_for(2_000);
    }

    fn new_client(&mut self) -> Client {
        let mut attributes = BTreeMap::new();
        for (_, name, kind, set_by) in ATTRIBUTES[..4].iter().chain(&ATTRIBUTES[5..]) {
            if set_by.device() && self.random.percent(60) {
                attributes.insert((*name).to_owned(), kind.value(&mut self.random).json());
            }
        }
        let groups = if self.random.percent(40) { vec!["news".to_owned()] } else { Vec::new() };
        let profile = Profile { attributes, groups, tokens: Vec::new() };
        Client::new(&mut self.random, APP_KEY, profile, Saved::default())
    }

    /// The app is installed anew.
    pub(crate) fn replace_client(&mut self, which: usize) {
        self.clients[which] = self.new_client();
        self.client_turn(which);
    }
}
