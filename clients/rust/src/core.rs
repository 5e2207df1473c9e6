//! The protocol without I/O: time, randomness and answers come in, requests and events go out.
//!
//! It stands apart from the shell so that a simulation can drive a thousand devices in one thread and deliver answers
//! late, twice, cut or never. Nothing in here waits, reads a clock or opens a socket.

mod device;
mod edges;
mod event;
mod gather;
mod outbox;
mod random;
mod store;
mod wire;

pub use device::{
    ANSWER_BYTES_MAX, Device, DeviceConfig, Next, Operation, Request, RequestId, SecretSource,
    Standing,
};
pub use event::{Event, FailureKind, Problem, Stored, WriteError};
pub use outbox::{
    Command, CommandError, Profile, ProfilePatch, PushToken, Receipt, ReceiptKind, WRITES_MAX,
    WriteId,
};
pub use store::{
    Identity, MemoryStore, Message, MessageStore, Priority, Saved, StoreError, Transaction,
};
