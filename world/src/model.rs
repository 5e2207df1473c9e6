//! The rows of a shard: what the store keeps, the stream carries and the world holds.
//!
//! A row is always whole: a change replaces it. What only central may know ([`DevicePrivate`]) is part of the
//! device's row so that both commit together, but is never encoded for the stream.

use std::sync::Arc;

use bytes::Bytes;
use carillon_expr::{Time, Type, Value};
use serde::{Deserialize, Serialize};

use crate::ids::{AppId, AttributeId, AudienceId, DeviceId, GroupId, MessageId, Millis, Seq};
use crate::push::{AppPush, PushPolicy};

/// Which of a push provider's worlds an app talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    Sandbox,
    Production,
}

/// Who may set an attribute's value or a group's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetBy {
    Server,
    Device,
    Both,
}

impl SetBy {
    pub const fn server(self) -> bool {
        matches!(self, SetBy::Server | SetBy::Both)
    }

    pub const fn device(self) -> bool {
        matches!(self, SetBy::Device | SetBy::Both)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRow {
    pub id: AppId,
    pub name: Arc<str>,
    pub environment: Environment,
    /// Ships inside the app's binary: it names the app to enrolment and proves nothing.
    pub publishable_key: Arc<str>,
    pub created_at: Millis,
    /// Only at central and in the store; empty everywhere else.
    #[serde(skip)]
    pub quotas: Quotas,
    /// As `quotas`; `None` is nothing but defaults.
    #[serde(skip)]
    pub push: Option<Arc<AppPush>>,
}

/// What an app may hold; `None` is central's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    pub devices_max: Option<u64>,
    pub groups_max: Option<u64>,
    /// Messages that are scheduled or active.
    pub live_messages_max: Option<u64>,
    /// Bytes of [`Usage::bodies`](crate::Usage::bodies).
    pub bodies_bytes_max: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeRow {
    pub id: AttributeId,
    pub app: AppId,
    pub name: Arc<str>,
    pub kind: Type,
    pub set_by: SetBy,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    pub id: GroupId,
    pub app: AppId,
    pub name: Arc<str>,
    pub set_by: SetBy,
}

/// A named expression that others may refer to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudienceRow {
    pub id: AudienceId,
    pub app: AppId,
    pub name: Arc<str>,
    /// Counts edits and renames, from 1.
    pub revision: u32,
    /// The change since which it says this; a rename leaves it.
    pub from: Seq,
    /// In stored form (ids, not names).
    pub expression: Arc<str>,
}

/// What an audience said from a change on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudienceRecord {
    pub from: Seq,
    pub expression: Arc<str>,
}

impl AudienceRecord {
    pub fn of(row: &AudienceRow) -> AudienceRecord {
        AudienceRecord { from: row.from, expression: row.expression.clone() }
    }
}

/// One device. `attributes` is sorted by id and `groups` is sorted; neither repeats an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRow {
    pub id: DeviceId,
    pub app: AppId,
    /// The seq of the enrolment, revocation or secret reset that made the present sessions valid.
    pub generation: Seq,
    /// The seq at which what matching depends on (user, attributes, groups) last really changed.
    pub p: Seq,
    pub created_at: Millis,
    pub user: Option<Arc<str>>,
    pub attributes: Box<[(AttributeId, Value)]>,
    pub groups: Box<[GroupId]>,
    /// Only at central and in the store; `None` everywhere else.
    #[serde(skip)]
    pub private: Option<Box<DevicePrivate>>,
    /// The hour in which the device was last reported as seen, by its beginning; 0 if it never was. It moves no `p`, and
    /// only [`Change::Seen`] raises it: a row that says less leaves what is known.
    #[serde(default = "never", skip_serializing_if = "Millis::is_zero")]
    pub last_seen: Millis,
}

fn never() -> Millis {
    Millis::ZERO
}

impl DeviceRow {
    /// Whether `other` matches the same expressions as this.
    pub fn same_profile(&self, other: &DeviceRow) -> bool {
        self.user == other.user
            && self.attributes == other.attributes
            && self.groups == other.groups
    }
}

impl carillon_expr::Profile for DeviceRow {
    fn attribute(&self, id: AttributeId) -> Option<&Value> {
        let at = self.attributes.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(&self.attributes[at].1)
    }

    fn in_group(&self, id: GroupId) -> bool {
        self.groups.binary_search(&id).is_ok()
    }

    fn device_id(&self) -> Option<u64> {
        Some(self.id.get())
    }

    fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    fn last_seen(&self) -> Option<Time> {
        if self.last_seen.is_zero() { None } else { self.last_seen.to_time() }
    }
}

/// SHA-256 of a device's 32-byte secret. The secret itself is known to the device alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretHash(pub [u8; 32]);

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushChannel {
    Apns,
    Fcm,
    WebPush,
}

/// A provider's address of a device. Whoever holds it can annoy the device, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushToken {
    pub channel: PushChannel,
    pub token: Arc<str>,
}

impl std::fmt::Debug for PushToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PushToken({:?}, ..)", self.channel)
    }
}

/// What no tier but central may know of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevicePrivate {
    /// `None` for an imported device that can get no session.
    pub secret: Option<SecretHash>,
    pub tokens: Vec<PushToken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    Low,
    Normal,
    High,
}

/// Where a message is in its life. Only `Active` messages are in anybody's H; `Recalled` is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    Scheduled,
    Active,
    Expired,
    Recalled,
}

/// 64 bits of SHA-256 over all that a device would get of a message but its id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tag(u64);

impl Tag {
    pub const fn new(bits: u64) -> Tag {
        Tag(bits)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// The tag of a body (JSON text) under a priority and an end.
    pub fn of(body: &[u8], priority: Priority, expires_at: Millis) -> Tag {
        let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        hash.update(&[priority as u8]);
        hash.update(&expires_at.0.to_be_bytes());
        hash.update(body);
        let digest = hash.finish();
        let first = digest.as_ref()[..8].try_into().expect("SHA-256 has 32 bytes");
        Tag(u64::from_be_bytes(first))
    }
}

impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tag({:016x})", self.0)
    }
}

/// One body of a message, for the devices that its selector describes. The first variant that fits counts; the last
/// one has no selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// An expression in stored form; `None` fits everyone.
    pub selector: Option<Arc<str>>,
    pub tag: Tag,
    /// The whole JSON object that a device gets (`id`, `tag`, `priority`, `expires_at`, `body`), written as it is.
    pub wire: Bytes,
}

/// The latest revision of a message, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRow {
    pub id: MessageId,
    pub app: AppId,
    /// Counts edits, from 1. For admins; devices know tags.
    pub revision: u32,
    pub state: MessageState,
    /// The recipient expression in stored form (ids, not names).
    pub to: Arc<str>,
    pub priority: Priority,
    pub collapse_key: Option<Arc<str>>,
    pub created_at: Millis,
    /// When it becomes active; `None` is at once.
    pub not_before: Option<Millis>,
    pub expires_at: Millis,
    /// Not empty.
    pub variants: Vec<Variant>,
    /// Only at central and in the store; `None` everywhere else.
    #[serde(skip)]
    pub push: Option<Arc<PushPolicy>>,
}

impl MessageRow {
    /// Whether it has ended or was recalled: it never comes back.
    pub fn is_over(&self) -> bool {
        matches!(self.state, MessageState::Expired | MessageState::Recalled)
    }
}

/// What a revision said, without its bodies: enough to know who had what at its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRecord {
    /// The change that put it in force.
    pub from: Seq,
    pub active: bool,
    pub to: Arc<str>,
    /// (selector, tag), as in [`Variant`].
    pub variants: Vec<(Option<Arc<str>>, Tag)>,
    /// It put an end to the message, which edits of audiences change no more. Records that older releases wrote do not
    /// say so: see [`RevisionRecord::is_of`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub over: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl RevisionRecord {
    pub fn of(row: &MessageRow, from: Seq) -> RevisionRecord {
        RevisionRecord {
            from,
            active: row.state == MessageState::Active,
            to: row.to.clone(),
            variants: row.variants.iter().map(|v| (v.selector.clone(), v.tag)).collect(),
            over: row.is_over(),
        }
    }

    /// Whether this is what `row` says. The row itself tells whether it is over.
    pub fn is_of(&self, row: &MessageRow) -> bool {
        *self == RevisionRecord { over: self.over, ..RevisionRecord::of(row, self.from) }
    }
}

/// One committed change. The k-th of a batch has seq `first + k`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    App(Arc<AppRow>),
    Attribute(Arc<AttributeRow>),
    AttributeGone {
        app: AppId,
        id: AttributeId,
    },
    Group(Arc<GroupRow>),
    GroupGone {
        app: AppId,
        id: GroupId,
    },
    Device(Arc<DeviceRow>),
    DeviceGone {
        app: AppId,
        id: DeviceId,
    },
    /// A new message or an edit.
    Message(Arc<MessageRow>),
    /// A start, an end or a recall.
    MessageState {
        app: AppId,
        id: MessageId,
        state: MessageState,
    },
    /// Tombstones, superseded revisions and change records up to `horizon` are forgotten.
    Purge {
        horizon: Seq,
    },
    /// A new audience, an edit or a rename. An edit is also a change of every live message that uses the audience,
    /// however indirectly: each world works those revisions out for itself.
    Audience(Arc<AudienceRow>),
    AudienceGone {
        app: AppId,
        id: AudienceId,
    },
    /// Devices came by in the hour that begins at `at`. At most [`SEEN_DEVICES_MAX`](crate::SEEN_DEVICES_MAX); one that
    /// is not known, or was seen later, stays as it is.
    Seen {
        app: AppId,
        at: Millis,
        devices: Vec<DeviceId>,
    },
    /// The committed clock, by which volatile expressions are judged, is at least at `at`.
    Clock {
        at: Millis,
    },
}

/// What one transaction committed. Not empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    pub first: Seq,
    pub changes: Vec<Change>,
}

impl Batch {
    /// # Panics
    /// If the batch is empty, which is our own fault.
    pub fn last(&self) -> Seq {
        self.first.plus(self.changes.len().checked_sub(1).expect("a batch is never empty") as u64)
    }

    /// Each change with its seq.
    pub fn numbered(&self) -> impl Iterator<Item = (Seq, &Change)> {
        self.changes.iter().enumerate().map(|(k, change)| (self.first.plus(k as u64), change))
    }
}

/// One row of a whole shard, as a snapshot or the store's tables give it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Row {
    App(Arc<AppRow>),
    Attribute(Arc<AttributeRow>),
    Group(Arc<GroupRow>),
    Device(Arc<DeviceRow>),
    /// `revisions`: its own, without those that edits of audiences made: those in force from the horizon on, oldest first, the present one last. Not empty.
    Message {
        row: Arc<MessageRow>,
        revisions: Vec<RevisionRecord>,
    },
    /// `records`: those in force from the horizon on, oldest first, the present one last. Not empty.
    Audience {
        row: Arc<AudienceRow>,
        records: Vec<AudienceRecord>,
    },
    /// The committed clock, where it ever ran.
    Clock {
        at: Millis,
    },
}
