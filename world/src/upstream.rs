//! What an edge asks of central on a device's behalf, and what central answers.
//!
//! The stream carries these as opaque bodies of `Write` and `Reply` frames, so that an edge in the middle can pass
//! them on. Each is one MessagePack value in which structs are arrays, append-only; enum variants go by their names.
//! Golden files pin the bytes.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{AppId, DeviceId, MessageId, Millis, Position, PushToken, SecretHash, Seq};

/// The largest request or reply. A device's body has at most 64 KiB of JSON, and MessagePack is shorter but for
/// hashes and ids, which are few.
pub const UPSTREAM_BYTES_MAX: usize = 128 << 10;

/// Devices in one report of those seen: about 16 KiB.
pub const SEEN_DEVICES_MAX: usize = 1_000;

/// Devices in one report of what they have stored: about 25 KiB, and a few ms of central's writer.
pub const DELIVERED_DEVICES_MAX: usize = 500;

/// Devices whose receipts go as one request.
pub const RECEIPT_DEVICES_MAX: usize = 256;

/// A device's write, or a report. The edge has checked shape and session; central decides all that depends on state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpstreamRequest {
    /// A repeat with the same secret finds the device that the first one made.
    Enrol {
        publishable_key: String,
        secret: SecretHash,
        profile: ProfilePatch,
    },
    Session {
        app: AppId,
        device: DeviceId,
        secret: SecretHash,
    },
    /// `generation`: that of the session; central refuses one that is not the device's.
    Patch {
        app: AppId,
        device: DeviceId,
        generation: Seq,
        patch: ProfilePatch,
    },
    Forget {
        app: AppId,
        device: DeviceId,
        generation: Seq,
    },
    Receipts {
        app: AppId,
        device: DeviceId,
        generation: Seq,
        receipts: Vec<Receipt>,
    },
    /// Devices that came by of late, at most [`SEEN_DEVICES_MAX`], each with the hour since 1970. A report that is lost
    /// or comes twice does no harm. A central that does not know it refuses it, which nobody waits for.
    Seen {
        app: AppId,
        devices: Vec<(DeviceId, u32)>,
    },
    /// How far the stores of devices have come, at most [`DELIVERED_DEVICES_MAX`]. A report may come twice or late; what
    /// one that is lost would have said, the device's next one says.
    Delivered {
        app: AppId,
        devices: Vec<Stored>,
    },
    /// The receipts of at most [`RECEIPT_DEVICES_MAX`] devices, answered with [`UpstreamReply::Receipts`]. An edge sends
    /// those of one device as `Receipts`.
    ReceiptBatch {
        devices: Vec<DeviceReceipts>,
    },
}

/// What one device did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReceipts {
    pub app: AppId,
    pub device: DeviceId,
    /// As that of `Receipts`.
    pub generation: Seq,
    pub receipts: Vec<Receipt>,
}

/// That a device has stored everything up to a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub device: DeviceId,
    /// `held` of the cursor that it came with.
    pub at: Position,
    /// The digest in that cursor of what was volatile of it.
    pub volatile: Option<u64>,
}

/// What a device changes of its own profile. Names as the device gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfilePatch {
    /// (name, JSON text of the value; `None` removes it).
    pub attributes: Vec<(String, Option<String>)>,
    /// (name, whether to join or to leave).
    pub groups: Vec<(String, bool)>,
    /// All of the device's tokens, if they change.
    pub tokens: Option<Vec<PushToken>>,
}

/// What a device did with a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The device's own name for the receipt, so that a repeat counts once.
    pub id: u64,
    pub message: MessageId,
    pub kind: ReceiptKind,
    /// By the device's clock.
    pub at: Millis,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceiptKind {
    Displayed,
    Opened,
    Dismissed,
    /// The app's name for what was chosen.
    Action(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpstreamReply {
    /// `created` is false where the same secret had enrolled before.
    Enrolled {
        app: AppId,
        device: DeviceId,
        generation: Position,
        committed: Position,
        created: bool,
    },
    Session {
        generation: Position,
        at: Position,
    },
    /// To a patch, a forget, receipts of one device, or a report.
    Written {
        committed: Position,
    },
    Refused {
        problem: Problem,
    },
    /// To a batch of receipts: for each device, in the order of the request, why its receipts were refused.
    Receipts {
        committed: Position,
        outcomes: Vec<Option<Problem>>,
    },
}

/// Why something was refused, as it is shown to the caller (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// The last segment of the problem's type URI.
    pub code: String,
    pub title: String,
    pub detail: String,
    /// Seconds.
    pub retry_after: Option<u32>,
    /// A JSON object whose members join the problem's.
    pub extra: Option<String>,
}

/// The body is no request or reply.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("{bytes} bytes, more than the {UPSTREAM_BYTES_MAX} allowed")]
    TooLarge { bytes: usize },
    #[error("read an upstream body")]
    Malformed(#[from] rmp_serde::decode::Error),
    #[error("{bytes} bytes after an upstream body")]
    Trailing { bytes: usize },
}

impl UpstreamRequest {
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// # Errors
    /// If the body is too large or not a request.
    pub fn decode(body: &[u8]) -> Result<UpstreamRequest, UpstreamError> {
        decode(body)
    }
}

impl UpstreamReply {
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// # Errors
    /// If the body is too large or not a reply.
    pub fn decode(body: &[u8]) -> Result<UpstreamReply, UpstreamError> {
        decode(body)
    }
}

fn encode(value: &impl Serialize) -> Bytes {
    rmp_serde::to_vec(value).expect("memory takes every value whose length is known").into()
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, UpstreamError> {
    if body.len() > UPSTREAM_BYTES_MAX {
        return Err(UpstreamError::TooLarge { bytes: body.len() });
    }
    let mut rest = body;
    let value = rmp_serde::from_read(&mut rest)?;
    match rest.len() {
        0 => Ok(value),
        bytes => Err(UpstreamError::Trailing { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, PushChannel, ShardId, golden};

    const APP: AppId = AppId::new(0xa0);
    const DEVICE: DeviceId = DeviceId::new(0xd1);
    const GENERATION: Seq = Seq::new(7);

    fn at(seq: u64) -> Position {
        Position {
            shard: ShardId::FIRST,
            epoch: Epoch { number: 1_700_000_000_000, tag: 9 },
            seq: Seq::new(seq),
        }
    }

    fn requests() -> Vec<(&'static str, UpstreamRequest)> {
        let patch = ProfilePatch {
            attributes: vec![("country".into(), Some("\"KE\"".into())), ("age".into(), None)],
            groups: vec![("vip".into(), true), ("beta".into(), false)],
            tokens: Some(vec![PushToken { channel: PushChannel::Fcm, token: "t".into() }]),
        };
        let receipt = |id, kind| Receipt {
            id,
            message: MessageId::new(0xee),
            kind,
            at: Millis(1_700_000_000_123),
        };
        let receipts = vec![
            receipt(1, ReceiptKind::Displayed),
            receipt(2, ReceiptKind::Opened),
            receipt(3, ReceiptKind::Dismissed),
            receipt(4, ReceiptKind::Action("reply".into())),
        ];
        let more = receipts[1..].to_vec();
        let secret = SecretHash([0xab; 32]);
        let (app, device, generation) = (APP, DEVICE, GENERATION);
        vec![
            (
                "enrol",
                UpstreamRequest::Enrol {
                    publishable_key: "pk".into(),
                    secret,
                    profile: patch.clone(),
                },
            ),
            ("session", UpstreamRequest::Session { app, device, secret }),
            ("patch", UpstreamRequest::Patch { app, device, generation, patch }),
            ("forget", UpstreamRequest::Forget { app, device, generation }),
            ("receipts", UpstreamRequest::Receipts { app, device, generation, receipts }),
            (
                "seen",
                UpstreamRequest::Seen {
                    app,
                    devices: vec![(device, 472_222), (DeviceId::new(u64::MAX), 472_223)],
                },
            ),
            (
                "delivered",
                UpstreamRequest::Delivered {
                    app,
                    devices: vec![
                        Stored { device, at: at(7), volatile: None },
                        Stored {
                            device: DeviceId::new(u64::MAX),
                            at: at(8),
                            volatile: Some(u64::MAX),
                        },
                    ],
                },
            ),
            (
                "receipt-batch",
                UpstreamRequest::ReceiptBatch {
                    devices: vec![
                        DeviceReceipts { app, device, generation, receipts: more },
                        DeviceReceipts { app, device, generation, receipts: Vec::new() },
                    ],
                },
            ),
        ]
    }

    fn replies() -> Vec<(&'static str, UpstreamReply)> {
        let problem = Problem {
            status: 422,
            code: "unknown-attribute".into(),
            title: "Unknown attribute".into(),
            detail: "age".into(),
            retry_after: Some(3),
            extra: Some("{\"name\":\"age\"}".into()),
        };
        let (app, device) = (APP, DEVICE);
        vec![
            (
                "enrolled",
                UpstreamReply::Enrolled {
                    app,
                    device,
                    generation: at(7),
                    committed: at(8),
                    created: true,
                },
            ),
            ("session", UpstreamReply::Session { generation: at(7), at: at(9) }),
            ("written", UpstreamReply::Written { committed: at(10) }),
            ("refused", UpstreamReply::Refused { problem: problem.clone() }),
            (
                "receipts",
                UpstreamReply::Receipts { committed: at(11), outcomes: vec![None, Some(problem)] },
            ),
        ]
    }

    #[test]
    fn the_bytes_of_requests_and_replies_are_those_of_the_golden_files() {
        for (name, request) in requests() {
            let file = format!("upstream-v1/request-{name}.hex");
            golden::check(&file, &request.encode());
            assert_eq!(UpstreamRequest::decode(&golden::read(&file)).unwrap(), request);
        }
        for (name, reply) in replies() {
            let file = format!("upstream-v1/reply-{name}.hex");
            golden::check(&file, &reply.encode());
            assert_eq!(UpstreamReply::decode(&golden::read(&file)).unwrap(), reply);
        }
    }

    #[test]
    fn the_longest_report_fits_a_body() {
        let far = Position {
            shard: ShardId::new(u16::MAX),
            epoch: Epoch { number: u64::MAX, tag: u64::MAX },
            seq: Seq::new(u64::MAX >> 1),
        };
        let one = Stored { device: DeviceId::new(u64::MAX), at: far, volatile: Some(u64::MAX) };
        let devices = vec![one; DELIVERED_DEVICES_MAX];
        let body = UpstreamRequest::Delivered { app: APP, devices }.encode();
        assert!(body.len() <= UPSTREAM_BYTES_MAX / 2, "{}", body.len());
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_refused() {
        let body = requests()[4].1.encode();
        for end in 0..body.len() {
            assert!(UpstreamRequest::decode(&body[..end]).is_err(), "{end}");
        }
        let mut longer = body.to_vec();
        longer.push(0xc0);
        assert!(matches!(
            UpstreamRequest::decode(&longer),
            Err(UpstreamError::Trailing { bytes: 1 })
        ));
        assert!(matches!(
            UpstreamReply::decode(&vec![0; UPSTREAM_BYTES_MAX + 1]),
            Err(UpstreamError::TooLarge { .. })
        ));
    }
}
