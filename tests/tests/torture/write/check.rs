//! Whether central holds what it said.

use std::collections::BTreeMap;

use carillon_tests::admin::{Admin, text};
use serde_json::Value;

use super::operations::{Desk, Kind, Operation};
use super::state::{App, Observed, State, difference, own};
use super::writer::{Outcome, Record, insist, send};

/// What became of the writes that had no answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fates {
    pub(super) applied: u64,
    pub(super) absent: u64,
    /// Of both: those with a key, which were sent again and are there once.
    pub(super) retried: u64,
    /// Acknowledged writes that were sent again with their key and changed nothing.
    pub(super) repeated: u64,
}

impl Fates {
    pub(super) fn add(&mut self, other: Fates) {
        self.applied += other.applied;
        self.absent += other.absent;
        self.retried += other.retried;
        self.repeated += other.repeated;
    }
}

/// A write was refused: nothing of it is there.
pub(super) async fn absent(admin: &mut Admin, desk: &Desk, operation: &Operation) {
    let found = own(&Observed::of(admin, &desk.app).await.state, &desk.name);
    assert!(
        found == desk.state,
        "{:?} was refused, yet\n{}",
        operation.kind,
        difference(&desk.state, &found)
    );
}

/// Finds out what became of a write without an answer, while central runs; sent again if it has a key.
pub(super) async fn resolve(admin: &mut Admin, desk: &mut Desk, operation: Operation) {
    if operation.key.is_some() {
        let answer = insist(admin, &operation).await;
        desk.adopt(operation, &answer);
        let found = own(&Observed::of(admin, &desk.app).await.state, &desk.name);
        assert!(found == desk.state, "retried:\n{}", difference(&desk.state, &found));
        return;
    }
    // Whatever is acknowledged later was decided after it: then it is applied or never will be.
    let path = desk.app.path("/attributes/n");
    let barrier = Operation {
        kind: Kind::DeclareAttribute,
        method: "PUT",
        path,
        body: r#"{"type": "number", "set_by": "both"}"#.to_owned(),
        key: None,
        status: 200,
        makes: None,
        after: State::new(),
    };
    insist(admin, &barrier).await;
    let observed = Observed::of(admin, &desk.app).await;
    settle(desk, Some(&operation), &observed);
}

/// Takes over what central has of a desk's things: all that was acknowledged, and `open` whole or not at all. Gives
/// whether that is applied.
///
/// # Panics
/// If it is anything else.
fn settle(desk: &mut Desk, open: Option<&Operation>, observed: &Observed) -> bool {
    let found = own(&observed.state, &desk.name);
    for (name, id) in &desk.ids {
        let is_there = desk.state.contains_key(name);
        assert!(
            !is_there || observed.ids.get(name) == Some(id),
            "{name} was {id} and is {:?}",
            observed.ids.get(name)
        );
    }
    let is_applied = found != desk.state;
    if is_applied {
        let kind = open.map(|open| open.kind);
        let expected = open.map_or(&desk.state, |open| &open.after);
        assert!(
            found == *expected,
            "{} with {kind:?} unanswered; without it\n{}\nwith it\n{}",
            desk.name,
            difference(&desk.state, &found),
            difference(expected, &found)
        );
        if let Some(name) = open.and_then(|open| open.makes.clone()) {
            desk.ids.insert(name.clone(), observed.ids[&name].clone());
        }
        desk.state = found;
    }
    is_applied
}

/// Checks a round whose writers have ended and settles what had no answer. What has a key is sent again, and so is an
/// acknowledged write of each writer. Gives what the app holds then.
pub(super) async fn round(admin: &mut Admin, app: &App, records: Vec<Record>) -> (Fates, State) {
    let observed = Observed::of(admin, app).await;
    let mut fates = Fates::default();
    let mut expected = State::new();
    for Record { mut desk, open, kept } in records {
        let is_applied = settle(&mut desk, open.as_ref(), &observed);
        match open.is_some() {
            true if is_applied => fates.applied += 1,
            true => fates.absent += 1,
            false => {}
        }
        if let Some(open) = open.filter(|open| open.key.is_some()) {
            let answer = insist(admin, &open).await;
            let name = open.makes.clone().expect("what has a key makes something");
            if let Some(id) = observed.ids.get(&name) {
                assert_eq!(text(&answer.json(), "id"), id, "{name}: a retry makes no other");
            }
            desk.adopt(open, &answer);
            fates.retried += 1;
        }
        if let Some((operation, body)) = kept {
            let Outcome::Acknowledged(again) = send(admin, &operation).await else {
                panic!("{operation:?} was acknowledged and is not any more");
            };
            assert_eq!(again.body, body, "a repeat gets the same answer");
            fates.repeated += 1;
        }
        expected.extend(desk.state);
    }
    holds(admin, app, &expected).await;
    (fates, expected)
}

/// Central has exactly this, but for devices that enrolled by themselves.
pub(super) async fn holds(admin: &mut Admin, app: &App, expected: &State) {
    let mut found = Observed::of(admin, app).await.state;
    found.retain(|name, _| !is_enrolled(name));
    assert!(found == *expected, "{}:\n{}", app.name, difference(expected, &found));
}

/// Whether the name is that of a device that enrolled by itself.
pub(super) fn is_enrolled(name: &str) -> bool {
    name.starts_with("device ") && !name.contains('_')
}

/// `Kind: count`, all in one line.
pub(super) fn tally(kinds: &BTreeMap<Kind, u64>) -> String {
    kinds.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect::<Vec<_>>().join(", ")
}

/// Every kind of write was acknowledged.
pub(super) fn all_kinds(kinds: &BTreeMap<Kind, u64>, but: &[Kind]) {
    let missing = Kind::ALL.iter().filter(|kind| !kinds.contains_key(kind) && !but.contains(kind));
    let missing: Vec<&Kind> = missing.collect();
    assert!(missing.is_empty(), "never acknowledged: {missing:?} of {}", tally(kinds));
}

/// Health's newest seq.
pub(super) async fn head(at: std::net::SocketAddr) -> u64 {
    let (_, health) = carillon_tests::cluster::ops_get(at, "/healthz").await.expect("it answers");
    let health: Value = serde_json::from_str(&health).expect("JSON");
    health["head"].as_u64().expect("a seq")
}
