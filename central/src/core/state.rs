//! A world, what is counted beside it, and what only its writer looks up in it: devices by their secrets.
//!
//! Cloning is cheap and shares structure, so "committed", "ahead" and every cut between them are plain values.

use std::sync::Arc;

use carillon_persist::Tallies;
use carillon_world::{
    AppId, ApplyError, Batch, Change, DeviceId, DeviceRow, PMap, SecretHash, World,
};

use super::callback::state::Callbacks;
use super::push::caps::Caps;
use super::push::jobs::Jobs;
use super::tally::Tally;

/// Who has a secret whose hash begins with one 64-bit prefix: one device, but for whoever went to the length of
/// finding a collision.
#[derive(Clone, Debug)]
enum Holders {
    One(AppId, DeviceId),
    Many(Arc<[(AppId, DeviceId)]>),
}

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) world: World,
    pub(crate) tally: Tally,
    secrets: PMap<u64, Holders>,
    pub(crate) jobs: Jobs,
    pub(crate) caps: Caps,
    pub(crate) callbacks: Callbacks,
    /// The number of the last event of the history.
    pub(crate) events: u64,
    /// The newest epoch that the history was told of, by its number.
    pub(crate) opened: u64,
    /// Bytes of those that wait in the store.
    pub(crate) outbox_bytes: u64,
    /// The last event that the history said it has.
    pub(crate) sent: u64,
}

impl State {
    pub(crate) fn load(world: World, tallies: Tallies) -> State {
        let tally = Tally::load(tallies, &world);
        State { tally, ..State::new(world) }
    }

    pub(crate) fn new(world: World) -> State {
        let mut held = Vec::new();
        for app in world.apps() {
            let id = app.row().id;
            let secrets = app.devices().filter_map(|row| Some((secret_of(row)?, row.id)));
            held.extend(secrets.map(|(secret, device)| (prefix(&secret), (id, device))));
        }
        held.sort_unstable();
        let holders = held.chunk_by(|a, b| a.0 == b.0).map(|alike| match alike {
            [(prefix, (app, device))] => (*prefix, Holders::One(*app, *device)),
            many => (many[0].0, Holders::Many(many.iter().map(|(_, holder)| *holder).collect())),
        });
        let secrets = PMap::from_entries(holders.collect());
        State {
            secrets,
            tally: Tally::default(),
            world,
            jobs: Jobs::default(),
            caps: Caps::default(),
            callbacks: Callbacks::default(),
            events: 0,
            opened: 0,
            outbox_bytes: 0,
            sent: 0,
        }
    }

    pub(crate) fn by_secret(&self, app: AppId, secret: &SecretHash) -> Option<&Arc<DeviceRow>> {
        let devices = self.world.app(app)?;
        let found = |&(holder, id): &(AppId, DeviceId)| {
            let row = (holder == app).then(|| devices.device(id))??;
            (secret_of(row) == Some(*secret)).then_some(row)
        };
        match self.secrets.get(prefix(secret))? {
            Holders::One(holder, id) => found(&(*holder, *id)),
            Holders::Many(many) => many.iter().find_map(found),
        }
    }

    /// Applies the changes of one write, which names a device at most once.
    ///
    /// # Errors
    /// If the changes do not fit the world, which is then of no use any more.
    pub(crate) fn apply(&mut self, batch: &Batch) -> Result<(), ApplyError> {
        for change in &batch.changes {
            let (app, id, after) = match change {
                Change::Device(row) => (row.app, row.id, secret_of(row)),
                Change::DeviceGone { app, id } => {
                    self.tally.books.remove(*app, *id);
                    self.caps.remove(*app, *id);
                    (*app, *id, None)
                }
                _ => continue,
            };
            let before =
                self.world.app(app).and_then(|a| a.device(id)).and_then(|row| secret_of(row));
            if before != after {
                if let Some(secret) = before {
                    remove(&mut self.secrets, secret, (app, id));
                }
                if let Some(secret) = after {
                    add(&mut self.secrets, secret, (app, id));
                }
            }
        }
        self.world.apply(batch).map(|_| ())
    }
}

fn secret_of(row: &DeviceRow) -> Option<SecretHash> {
    row.private.as_ref()?.secret
}

fn prefix(secret: &SecretHash) -> u64 {
    u64::from_be_bytes(secret.0[..8].try_into().expect("a hash has 32 bytes"))
}

fn add(secrets: &mut PMap<u64, Holders>, secret: SecretHash, holder: (AppId, DeviceId)) {
    let holders = match secrets.get(prefix(&secret)) {
        None => Holders::One(holder.0, holder.1),
        Some(Holders::One(app, id)) => Holders::Many([(*app, *id), holder].into()),
        Some(Holders::Many(many)) => Holders::Many(many.iter().copied().chain([holder]).collect()),
    };
    secrets.insert(prefix(&secret), holders);
}

fn remove(secrets: &mut PMap<u64, Holders>, secret: SecretHash, holder: (AppId, DeviceId)) {
    let left: Vec<_> = match secrets.get(prefix(&secret)) {
        None | Some(Holders::One(..)) => Vec::new(),
        Some(Holders::Many(many)) => many.iter().copied().filter(|h| *h != holder).collect(),
    };
    match left.as_slice() {
        [] => {
            secrets.remove(prefix(&secret));
        }
        [(app, id)] => {
            secrets.insert(prefix(&secret), Holders::One(*app, *id));
        }
        many => {
            secrets.insert(prefix(&secret), Holders::Many(many.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use carillon_world::{
        AppRow, DevicePrivate, Environment, Epoch, Lineage, LineageEntry, Millis, Seq, ShardId,
    };

    use super::*;

    const APP: AppId = AppId::new(0xa);

    fn state() -> State {
        let epoch = Epoch { number: 1, tag: 1 };
        let line = LineageEntry { epoch, began_after: Seq::ZERO, fork: false };
        let world = World::empty(ShardId::FIRST, Lineage::try_new(vec![line]).unwrap());
        let mut state = State::new(world);
        let row = AppRow {
            id: APP,
            name: "a".into(),
            environment: Environment::Sandbox,
            publishable_key: "k".into(),
            created_at: Millis(0),
            quotas: carillon_world::Quotas::default(),
            push: None,
        };
        apply(&mut state, Change::App(Arc::new(row)));
        state
    }

    fn apply(state: &mut State, change: Change) {
        let batch = Batch { first: state.world.seq().next(), changes: vec![change] };
        state.apply(&batch).unwrap();
    }

    fn set(state: &mut State, id: u64, secret: SecretHash) {
        let row = DeviceRow {
            id: DeviceId::new(id),
            app: APP,
            generation: state.world.seq().next(),
            p: state.world.seq().next(),
            created_at: Millis(0),
            user: None,
            attributes: Box::default(),
            groups: Box::default(),
            private: Some(Box::new(DevicePrivate { secret: Some(secret), tokens: Vec::new() })),
            last_seen: Millis::ZERO,
        };
        apply(state, Change::Device(Arc::new(row)));
    }

    fn holder(state: &State, secret: SecretHash) -> Option<u64> {
        state.by_secret(APP, &secret).map(|row| row.id.get())
    }

    #[test]
    fn the_index_follows_secrets_and_keeps_nothing_of_those_that_are_gone() {
        let (a, b) = (SecretHash([1; 32]), SecretHash([2; 32]));
        let mut state = state();
        set(&mut state, 7, a);
        assert_eq!((holder(&state, a), holder(&state, b)), (Some(7), None));
        let before = state.clone();
        set(&mut state, 7, b);
        assert_eq!((holder(&state, a), holder(&state, b)), (None, Some(7)));
        assert_eq!(state.secrets.len(), 1);
        assert_eq!(holder(&before, a), Some(7), "a clone keeps what it was");
        apply(&mut state, Change::DeviceGone { app: APP, id: DeviceId::new(7) });
        assert!(state.secrets.is_empty());
    }

    #[test]
    fn secrets_whose_hashes_begin_alike_are_told_apart() {
        let alike = |last| {
            let mut hash = [9; 32];
            hash[31] = last;
            SecretHash(hash)
        };
        let mut state = state();
        for n in 1..=3 {
            set(&mut state, u64::from(n), alike(n));
        }
        assert_eq!(
            [1, 2, 3, 4].map(|n| holder(&state, alike(n))),
            [Some(1), Some(2), Some(3), None]
        );
        for n in [2, 1] {
            apply(&mut state, Change::DeviceGone { app: APP, id: DeviceId::new(n) });
        }
        assert_eq!([1, 2, 3].map(|n| holder(&state, alike(n))), [None, None, Some(3)]);
        apply(&mut state, Change::DeviceGone { app: APP, id: DeviceId::new(3) });
        assert!(state.secrets.is_empty());
    }
}
