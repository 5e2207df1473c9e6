//! What a device keeps: who it is, how far it has come, and the messages it holds.
//!
//! Messages and cursor change in one transaction, always: a cursor without its messages would lose them for ever, and
//! messages without their cursor could be answered from a world in which they had not come yet.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::ids::{AppId, Cursor, DeviceId, MessageId, Secret, Session, Tag};

/// How urgent the sender says a message is. A word that this client does not know is `Normal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    Low,
    High,
    #[default]
    #[serde(other)]
    Normal,
}

/// A message as the server said it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub tag: Tag,
    #[serde(default)]
    pub priority: Priority,
    /// From here on the app no longer shows it; it stays in the store until the server says that it is gone.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// JSON, byte for byte as it was sent.
    #[serde(serialize_with = "write_raw", deserialize_with = "read_raw")]
    pub body: Arc<str>,
}

fn write_raw<S: Serializer>(body: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    let raw: &RawValue = serde_json::from_str(body).map_err(serde::ser::Error::custom)?;
    raw.serialize(to)
}

fn read_raw<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
    let raw = Box::<RawValue>::deserialize(from)?;
    Ok(Arc::from(Box::<str>::from(raw)))
}

/// Who this device is. The secret is saved before it is first sent, so that an enrolment whose answer was lost is
/// repeated with the same one and finds the same device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub secret: Secret,
    /// `None` until the server has answered the enrolment.
    pub registered: Option<(AppId, DeviceId)>,
    /// `None` if the secret has to be shown for one.
    pub session: Option<Session>,
}

/// All that a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    pub identity: Option<Identity>,
    /// `None` is the empty store's.
    pub cursor: Option<Cursor>,
    pub messages: BTreeMap<MessageId, Message>,
}

impl Saved {
    /// What the app shows at `at`: all that has not expired. Sorted by id.
    pub fn visible(&self, at: Timestamp) -> impl Iterator<Item = (MessageId, &Message)> {
        let shown = move |message: &Message| message.expires_at.is_none_or(|end| at < end);
        self.messages
            .iter()
            .filter(move |(_, message)| shown(message))
            .map(|(id, message)| (*id, message))
    }

    /// Carries a transaction out in RAM. Stores call this once theirs is durable.
    pub fn apply(&mut self, transaction: Transaction) {
        match transaction {
            Transaction::Begin { identity, cursor } => {
                *self = Saved { identity, cursor, messages: BTreeMap::new() };
            }
            Transaction::Session(session) => {
                if let Some(identity) = &mut self.identity {
                    identity.session = session;
                }
            }
            Transaction::Cursor(cursor) => self.cursor = Some(cursor),
            Transaction::Answer { store, remove, cursor } => {
                for id in remove {
                    self.messages.remove(&id);
                }
                self.messages.extend(store);
                self.cursor = Some(cursor);
            }
            Transaction::Clear => {
                self.cursor = None;
                self.messages.clear();
            }
        }
    }
}

/// One change of a store, applied whole or not at all.
#[derive(Clone, Debug)]
pub enum Transaction {
    /// Everything is dropped; this is who the device is from here on (`None`: nobody).
    Begin { identity: Option<Identity>, cursor: Option<Cursor> },
    /// Another session of the same device, or none.
    Session(Option<Session>),
    /// A write's answer raised the cursor's floor; the messages are untouched.
    Cursor(Cursor),
    /// An answer with news. No id is in both lists.
    Answer { store: Vec<(MessageId, Message)>, remove: Vec<MessageId>, cursor: Cursor },
    /// The server does not know the cursor: messages and cursor go, the device stays who it is.
    Clear,
}

/// The store could not make a transaction durable; it holds what it held before.
#[derive(Debug, thiserror::Error)]
#[error("save what the device holds")]
pub struct StoreError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Where a device keeps what it holds. Belongs to one device and one process: whoever does not share a store has a
/// cursor of its own.
pub trait MessageStore: Send + fmt::Debug {
    /// What the last transaction left.
    fn saved(&self) -> &Saved;

    /// Makes `transaction` durable and visible in [`MessageStore::saved`], whole.
    ///
    /// # Errors
    /// If it could not; then nothing has changed.
    fn commit(&mut self, transaction: Transaction) -> Result<(), StoreError>;
}

/// Keeps everything in RAM: after a restart of the process the device is a new one.
#[derive(Debug, Default)]
pub struct MemoryStore(Saved);

impl MemoryStore {
    /// A store that already holds something, such as the identity of an imported device.
    pub fn new(saved: Saved) -> MemoryStore {
        MemoryStore(saved)
    }
}

impl MessageStore for MemoryStore {
    fn saved(&self) -> &Saved {
        &self.0
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(), StoreError> {
        self.0.apply(transaction);
        Ok(())
    }
}
