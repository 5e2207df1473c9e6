//! What a seed decides before anything happens, and faults that a test plants.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use carillon_central::core::keys::{ACCEPTED_DAYS, DAY, RootSecret, day_of};
use carillon_central::core::writer::{BatchLimits, WriterConfig};
use carillon_edge::core::keys::{KeyRing, Purpose};
use carillon_edge::core::sabotage::Sabotage;
use carillon_world::stream::{KeyPurpose, Keys, ReceiverConfig, SenderConfig};
use carillon_world::{AnswerLimits, Millis};

use crate::random::Random;

/// What a test plants to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Sabotage(Sabotage),
    /// The store forgets its last batch when central crashes.
    LoseTail,
    /// A client gets what was meant for another.
    Misdeliver,
    /// A parked poll is not woken by what was published.
    NeverWake,
    /// A parked poll is not woken by a tick of the clock.
    NeverSweep,
}

/// The sizes and times of one run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) fault: Option<Fault>,
    /// The committed clock when the run begins, in ms: shortly before midnight, so that keys change while it runs.
    pub(crate) clock_from: u64,
    pub(crate) sender: SenderConfig,
    pub(crate) receiver: ReceiverConfig,
    pub(crate) writer: WriterConfig,
    pub(crate) log_bytes_max: usize,
    pub(crate) answers: AnswerLimits,
    pub(crate) parked_max: usize,
    pub(crate) parked_per_device_max: usize,
    pub(crate) wake_changes_max: usize,
    /// How long an edge waits for central's reply, in ms.
    pub(crate) patience: u64,
}

impl Plan {
    pub(crate) fn of(random: &mut Random, fault: Option<Fault>) -> Plan {
        let window = *random.pick(&[1 << 10, 4 << 10, 32 << 10]);
        let batch = BatchLimits {
            changes_max: NonZeroUsize::new(*random.pick(&[3, 20, 4_000])).expect("not zero"),
            bytes_max: window / 4,
        };
        let writes_max = *random.pick(&[2, 8, 1_024]);
        Plan {
            fault,
            clock_from: 20_000 * DAY - random.within(10_000, 200_000),
            sender: SenderConfig { window: window as u64, writes_max, ..SenderConfig::default() },
            receiver: ReceiverConfig { writes_max, ..ReceiverConfig::default() },
            writer: WriterConfig {
                clock_tick: *random.pick(&[500, 2_000, 10_000]),
                retention: *random.pick(&[20_000, 7 * DAY]),
                retained_changes_max: *random.pick(&[60, 200, 1_000_000]),
                purge_step: *random.pick(&[5, 20]),
                batch,
                ..WriterConfig::default()
            },
            log_bytes_max: *random.pick(&[2 << 10, 20 << 10, 1 << 20]),
            answers: AnswerLimits {
                bytes_max: *random.pick(&[300, 1_500, 256 << 10]),
                bookmark_changes: *random.pick(&[5, 50, 1_000]),
            },
            parked_max: *random.pick(&[14, 100]),
            parked_per_device_max: *random.pick(&[1, 4]),
            wake_changes_max: *random.pick(&[4, 10_000]),
            patience: Duration::from_secs(15).as_millis() as u64,
        }
    }
}

/// The root secret's keys, of the days that a run touches alone: to derive 400 days of them for every link would take
/// longer than all the rest.
#[derive(Debug)]
pub(crate) struct Keychain {
    root: RootSecret,
    by_day: BTreeMap<u32, Keys>,
    /// Opens everything that was sealed in the run.
    pub(crate) ring: KeyRing,
}

const DAYS_KEPT: u32 = 2;

impl Keychain {
    pub(crate) fn new(from: u64) -> Keychain {
        let root = RootSecret::new([7; 32]);
        let day = day_of(Millis(from));
        let sealing =
            [(Purpose::Session, KeyPurpose::Session), (Purpose::Cursor, KeyPurpose::Cursor)];
        let keys = (day - DAYS_KEPT..=day + 1).flat_map(|day| {
            sealing.map(|(purpose, derived)| (purpose, day, root.derive(derived, day).0))
        });
        let ring = KeyRing::new(day, keys.collect::<Vec<_>>());
        Keychain { root, by_day: BTreeMap::new(), ring }
    }

    pub(crate) fn keys(&mut self, now: Millis) -> Keys {
        let day = day_of(now);
        let root = &self.root;
        let keys = self.by_day.entry(day).or_insert_with(|| {
            let mut keys = root.keys(now);
            assert!(keys.keys.len() > ACCEPTED_DAYS as usize, "400 days of keys");
            keys.keys.retain(|key| key.day + DAYS_KEPT >= day);
            keys
        });
        keys.clone()
    }
}
