//! Writes of the device's own, one after the other, each until it is answered for good.
//!
//! All of them may be repeated: a patch sets absolute values, receipts carry ids, and to forget twice is to forget.

use std::collections::{BTreeMap, VecDeque};

use http::Method;
use jiff::Timestamp;
use serde::Serialize;

use super::device::Operation;
use super::random::Random;
use super::wire;
use crate::ids::{MessageId, ReceiptId};

/// Writes that may wait. What comes beyond is refused to the app, which knows best what can be left out.
pub const WRITES_MAX: usize = 64;
/// A body larger than this is refused by every server.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// What one call may carry.
const RECEIPTS_MAX: usize = 200;

/// A write, for the event that says how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(u64);

/// Where pushes reach this device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PushToken {
    pub channel: String,
    pub token: String,
}

/// What a device says of itself when it enrols. Only what the app lets devices set is accepted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Profile {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, serde_json::Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<PushToken>,
}

/// A change of the profile. What is not named stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProfilePatch {
    /// `None` takes the value away.
    pub attributes: BTreeMap<String, Option<serde_json::Value>>,
    /// Whether the device is a member.
    pub groups: BTreeMap<String, bool>,
    /// Replaces all tokens.
    pub tokens: Option<Vec<PushToken>>,
}

/// What a person did with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptKind {
    Displayed,
    Opened,
    Dismissed,
    /// The app's own name for what was done.
    Action(String),
}

/// Says what was done with a message, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub message: MessageId,
    pub kind: ReceiptKind,
    pub at: Timestamp,
}

/// What an app asks of its device.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Patch(ProfilePatch),
    /// 1 to 200.
    Receipts(Vec<Receipt>),
    /// The server drops all that it knows of the device, and the device drops everything.
    Forget,
}

/// The command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("{WRITES_MAX} writes wait already")]
    Full,
    #[error("the write is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("a call carries 1 to {RECEIPTS_MAX} receipts")]
    ReceiptCount,
    #[error("the device was forgotten")]
    Forgotten,
}

#[derive(Serialize)]
struct WireReceipt<'a> {
    id: ReceiptId,
    message: MessageId,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    at: String,
}

/// A write, encoded once, so that a repeat is the same to the byte.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) id: WriteId,
    pub(super) operation: Operation,
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) body: Option<Vec<u8>>,
    pub(super) rests_until: u64,
    /// In a row.
    pub(super) failures: u32,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    writes: VecDeque<Write>,
    count: u64,
}

impl Outbox {
    pub(super) fn push(
        &mut self,
        command: &Command,
        random: &mut Random,
    ) -> Result<WriteId, CommandError> {
        if self.writes.len() >= WRITES_MAX {
            return Err(CommandError::Full);
        }
        let (operation, method, path, body) = match command {
            Command::Patch(patch) => {
                let ProfilePatch { attributes, groups, tokens } = patch;
                let body = wire::PatchBody { attributes, groups, tokens: tokens.as_deref() };
                (Operation::Patch, Method::PATCH, "/v1/devices/self", Some(wire::encode(&body)))
            }
            Command::Receipts(receipts) => {
                if receipts.is_empty() || receipts.len() > RECEIPTS_MAX {
                    return Err(CommandError::ReceiptCount);
                }
                let wired: Vec<_> =
                    receipts.iter().map(|receipt| wire_receipt(receipt, random)).collect();
                let body = wire::encode(&serde_json::json!({ "receipts": wired }));
                (Operation::Receipts, Method::POST, "/v1/receipts", Some(body))
            }
            Command::Forget => (Operation::Forget, Method::DELETE, "/v1/devices/self", None),
        };
        if body.as_ref().is_some_and(|body| body.len() > BODY_BYTES_MAX) {
            return Err(CommandError::TooLarge);
        }
        self.count += 1;
        let id = WriteId(self.count);
        self.writes.push_back(Write {
            id,
            operation,
            method,
            path,
            body,
            rests_until: 0,
            failures: 0,
        });
        Ok(id)
    }

    pub(super) fn front(&self) -> Option<&Write> {
        self.writes.front()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Write> {
        self.writes.front_mut()
    }

    pub(super) fn pop(&mut self) -> Option<WriteId> {
        self.writes.pop_front().map(|write| write.id)
    }

    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }
}

fn wire_receipt<'a>(receipt: &'a Receipt, random: &mut Random) -> WireReceipt<'a> {
    let (kind, action) = match &receipt.kind {
        ReceiptKind::Displayed => ("displayed", None),
        ReceiptKind::Opened => ("opened", None),
        ReceiptKind::Dismissed => ("dismissed", None),
        ReceiptKind::Action(name) => ("action", Some(name.as_str())),
    };
    let at = format!("{:.3}", receipt.at);
    WireReceipt { id: ReceiptId::new(random.next()), message: receipt.message, kind, action, at }
}
