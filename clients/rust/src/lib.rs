//! The device side of Carillon: it enrols, polls, stores what is addressed to this device, and writes its own profile.
//!
//! It stands apart because devices know a server by its HTTP API alone: no other crate of the server is used here, so
//! whatever this client and a server agree about is written in the protocol.
//!
//! [`Device`] is the protocol as a state machine without sockets, clocks or randomness of its own; [`Client`] drives
//! one over hyper and rustls. What a device holds is in a [`MessageStore`]; answers are stored whole or not at all.

mod ids;

mod core;
mod shell;

pub use crate::core::{
    ANSWER_BYTES_MAX, Command, CommandError, Device, DeviceConfig, Event, FailureKind, Identity,
    MemoryStore, Message, MessageStore, Next, Operation, Priority, Problem, Profile, ProfilePatch,
    PushToken, Receipt, ReceiptKind, Request, RequestId, Saved, SecretSource, Standing, StoreError,
    Stored, Transaction, WRITES_MAX, WriteError, WriteId,
};
pub use crate::ids::{
    AppId, Cursor, DeviceId, IdError, MessageId, ReceiptId, Secret, Session, Tag,
};
pub use crate::shell::{
    BuildError, Client, ClientBuilder, ClientTls, EdgeUrl, EdgeUrlError, FileStore, Handle,
    HandleError, HttpTransport, Status, TlsError, TransportError,
};
