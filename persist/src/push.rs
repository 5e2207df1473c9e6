//! What the store keeps of pushes: policies and credentials as texts of their tables, and how far each job is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carillon_world::{
    AppId, AppPush, DeviceId, MessageId, Millis, PushChannel, PushPolicy, SealedCredential, Seq,
};
use serde::{Deserialize, Serialize};

use crate::json::Damage;
use crate::names::Named;
use crate::read::Columns;

/// What a run of a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunKind {
    /// Announces the message.
    Send,
    /// Wakes those who may have a message that was recalled.
    Withdraw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    Sending,
    /// The message was recalled while requests may be in flight.
    Stopping,
    Done,
}

/// The pushes of one message over one channel, and how far they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushJobRow {
    pub app: AppId,
    pub message: MessageId,
    pub channel: PushChannel,
    /// Counts runs, from 1: an edit begins one, a recall another.
    pub run: u32,
    pub kind: RunKind,
    pub state: JobState,
    /// Reports of this run that were committed, so that one whose answer was lost counts once.
    pub reports: u64,
    /// The change that began the run: who has stored a world from it on needs no push.
    pub began_seq: Seq,
    pub began_at: Millis,
    /// The pass is for devices that are due after this,
    pub due_from: Millis,
    /// and until then; `None` once every pass is over.
    pub due_to: Option<Millis>,
    /// How far the pass is: all up to this device are settled, or among `retries`.
    pub after: Option<DeviceId>,
    /// When the earliest device is due that this pass met and is too early for.
    pub next_due: Option<Millis>,
    /// Devices that are tried again, whatever the pass; sorted by id.
    pub retries: Vec<Retry>,
}

/// A device whose push the provider did not take for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    pub device: DeviceId,
    pub attempts: u32,
    pub due: Millis,
}

/// When a device was pushed, in minutes since 1970, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushTimesRow {
    pub app: AppId,
    pub device: DeviceId,
    pub minutes: Arc<[u32]>,
}

impl PushJobRow {
    pub fn is_live(&self) -> bool {
        self.state != JobState::Done
    }
}

pub(crate) fn write_retries(retries: &[Retry]) -> String {
    let mut out = String::with_capacity(retries.len() * 34);
    for Retry { device, attempts, due } in retries {
        let space = if out.is_empty() { "" } else { " " };
        write!(out, "{space}{device}:{attempts}:{}", due.0).expect("a string takes it");
    }
    out
}

fn read_retries(text: &str) -> Result<Vec<Retry>, Damage> {
    let one = |part: &str| {
        let mut parts = part.split(':');
        let retry = Retry {
            device: parts.next()?.parse().ok()?,
            attempts: parts.next()?.parse().ok()?,
            due: Millis(parts.next()?.parse().ok()?),
        };
        parts.next().is_none().then_some(retry)
    };
    let parts = text.split_ascii_whitespace();
    parts.map(|part| one(part).ok_or_else(|| format!("the retry {part:?}"))).collect()
}

pub(crate) fn write_minutes(minutes: &[u32]) -> String {
    let parts: Vec<String> = minutes.iter().map(u32::to_string).collect();
    parts.join(" ")
}

/// One parameter: the shard.
pub(crate) const SELECT_TIMES: &str = "SELECT app, device, minutes FROM push_times WHERE shard = ?";

pub(crate) fn times(columns: &mut impl Columns) -> Result<PushTimesRow, crate::StoreError> {
    let mut read = || {
        let text = columns.text(2)?;
        let minutes = text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>();
        Ok(PushTimesRow {
            app: AppId::new(columns.int(0)?),
            device: DeviceId::new(columns.int(1)?),
            minutes: minutes.map_err(|_| format!("the minutes {text:?}"))?,
        })
    };
    crate::read::in_table("push_times", read())
}

pub(crate) fn write_policy(policy: &PushPolicy) -> String {
    serde_json::to_string(policy).expect("texts and numbers make JSON")
}

pub(crate) fn read_policy(text: &str) -> Result<Arc<PushPolicy>, Damage> {
    serde_json::from_str(text).map(Arc::new).map_err(|error| format!("a push policy: {error}"))
}

#[derive(Deserialize, Serialize)]
struct CredentialText {
    sealed: String,
    about: Arc<str>,
    set_at: u64,
}

/// The settings and the credentials.
pub(crate) fn write_app(push: &AppPush) -> (String, String) {
    let credentials: BTreeMap<&str, CredentialText> = push
        .credentials
        .iter()
        .map(|(channel, of)| {
            let (sealed, about) = (STANDARD.encode(&of.sealed), of.about.clone());
            (channel.name(), CredentialText { sealed, about, set_at: of.set_at.0 })
        })
        .collect();
    let json = "texts and numbers make JSON";
    (
        serde_json::to_string(&push.settings).expect(json),
        serde_json::to_string(&credentials).expect(json),
    )
}

pub(crate) fn read_app(settings: &str, credentials: &str) -> Result<Arc<AppPush>, Damage> {
    let settings =
        serde_json::from_str(settings).map_err(|error| format!("push settings: {error}"))?;
    let texts: BTreeMap<String, CredentialText> =
        serde_json::from_str(credentials).map_err(|_| "push credentials".to_owned())?;
    let credentials = texts.into_iter().map(|(channel, of)| {
        let named = PushChannel::named(&channel).ok_or_else(|| format!("channel {channel:?}"))?;
        let sealed =
            STANDARD.decode(&of.sealed).map_err(|_| format!("credentials of {channel}"))?;
        let set_at = Millis(of.set_at);
        Ok((named, SealedCredential { sealed: sealed.into(), about: of.about, set_at }))
    });
    let credentials = credentials.collect::<Result<_, Damage>>()?;
    Ok(Arc::new(AppPush { credentials, settings }))
}

/// One parameter: the shard.
pub(crate) const SELECT_JOBS: &str = "SELECT app, message, channel, run, kind, state, reports, began_seq, began_at, \
                                      due_from, due_to, after_device, next_due, retries FROM push_jobs WHERE shard = ?";

pub(crate) fn job(columns: &mut impl Columns) -> Result<PushJobRow, crate::StoreError> {
    let mut read = || {
        Ok(PushJobRow {
            app: AppId::new(columns.int(0)?),
            message: MessageId::new(columns.int(1)?),
            channel: columns.name(2)?,
            run: columns.int(3)?.try_into().map_err(|_| "a run beyond 32 bits".to_owned())?,
            kind: columns.name(4)?,
            state: columns.name(5)?,
            reports: columns.int(6)?,
            began_seq: Seq::new(columns.int(7)?),
            began_at: Millis(columns.int(8)?),
            due_from: Millis(columns.int(9)?),
            due_to: columns.opt_int(10)?.map(Millis),
            after: columns.opt_int(11)?.map(DeviceId::new),
            next_due: columns.opt_int(12)?.map(Millis),
            retries: read_retries(&columns.text(13)?)?,
        })
    };
    crate::read::in_table("push_jobs", read())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_read_back_and_what_is_none_is_refused() {
        let retry = |device, due| Retry { device: DeviceId::new(device), attempts: 3, due };
        for retries in [vec![], vec![retry(1, Millis(7)), retry(u64::MAX, Millis(8))]] {
            assert_eq!(read_retries(&write_retries(&retries)).unwrap(), retries);
        }
        for bad in ["x", "0000000000000001:1", "0000000000000001:1:2:3", "0000000000000001:-1:2"] {
            assert!(read_retries(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_an_app_has_reads_back_and_shows_no_secret_when_it_is_damaged() {
        let sealed = SealedCredential {
            sealed: b"\x00secret"[..].into(),
            about: "key K of team T".into(),
            set_at: Millis(5),
        };
        let push = AppPush {
            credentials: [(PushChannel::Apns, sealed)].into(),
            settings: carillon_world::PushSettings { rate: Some(100), cap: None },
        };
        let (settings, credentials) = write_app(&push);
        assert_eq!(*read_app(&settings, &credentials).unwrap(), push);
        let damage =
            read_app(&settings, &credentials.replace("\"set_at\"", "\"sat\"")).unwrap_err();
        assert_eq!(damage, "push credentials");
    }
}
