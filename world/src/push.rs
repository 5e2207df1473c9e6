//! What central knows of pushes: how a message is announced to devices that are not here, and what an app's pushes may
//! do. None of it is for another tier, so none of it is ever encoded for the stream.
//!
//! The serde form is that of the store and of the admin API.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Millis, PushChannel};

/// How devices that are not here hear of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushPolicy {
    pub kind: PushKind,
    /// What an `alert` shows; the default text, which devices without a better one get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<AlertText>,
    /// Texts by locale, such as `sv` or `sv-SE`, in lower case: the longest that fits the device's attribute `locale`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub locales: BTreeMap<Arc<str>, AlertText>,
    /// Seconds over which the pushes are spread evenly; 0 is as fast as may be.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub over_s: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<QuietHours>,
    /// The app's frequency cap neither holds it back nor counts it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ignore_cap: bool,
    #[serde(default, skip_serializing_if = "PushOverrides::is_empty")]
    pub overrides: PushOverrides,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PushKind {
    /// Says nothing but that there is something; the device polls.
    Wake,
    /// Shows a text.
    Alert,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertText {
    pub title: Arc<str>,
    pub body: Arc<str>,
}

/// When a device is left in peace, by its own time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// Included; over midnight if it is after `to`.
    pub from: TimeOfDay,
    /// Not included.
    pub to: TimeOfDay,
    /// The attribute that holds the device's offset from UTC in minutes; a device without one counts as in UTC.
    #[serde(default = "utc_offset")]
    pub offset: Arc<str>,
    pub then: Quiet,
}

fn utc_offset() -> Arc<str> {
    "utc_offset".into()
}

/// What becomes of a push that would come in quiet hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quiet {
    /// It comes when they are over.
    Hold,
    /// It does not come.
    Skip,
}

/// Minutes since midnight; `08:30` as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    pub const fn minutes(self) -> u16 {
        self.0
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = &'static str;

    fn try_from(text: String) -> Result<TimeOfDay, &'static str> {
        const WRONG: &str = "expected a time of day such as 08:30";
        let (hours, minutes) = text.split_once(':').ok_or(WRONG)?;
        let two_digits = |part: &str| {
            let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse::<u16>().ok()).flatten()
        };
        match (two_digits(hours), two_digits(minutes)) {
            (Some(hours @ 0..=23), Some(minutes @ 0..=59)) => Ok(TimeOfDay(hours * 60 + minutes)),
            _ => Err(WRONG),
        }
    }
}

impl From<TimeOfDay> for String {
    fn from(at: TimeOfDay) -> String {
        format!("{:02}:{:02}", at.0 / 60, at.0 % 60)
    }
}

/// JSON objects that are merged into what a provider gets, for what Carillon has no word for: sounds, badges, actions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushOverrides {
    /// FCM's `android`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub android: Option<serde_json::Map<String, serde_json::Value>>,
    /// Merged into APNs' payload, and FCM's `apns.payload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apns: Option<serde_json::Map<String, serde_json::Value>>,
    /// Merged into a Web Push payload, and FCM's `webpush`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webpush: Option<serde_json::Map<String, serde_json::Value>>,
}

impl PushOverrides {
    pub fn is_empty(&self) -> bool {
        *self == PushOverrides::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// What an app's pushes need and may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppPush {
    pub credentials: BTreeMap<PushChannel, SealedCredential>,
    pub settings: PushSettings,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushSettings {
    /// Pushes a second over all channels; `None`: no limit of its own.
    #[serde(default)]
    pub rate: Option<u32>,
    #[serde(default)]
    pub cap: Option<FrequencyCap>,
}

/// How many pushes a device gets at most in any stretch of `period_s` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrequencyCap {
    pub pushes: u32,
    pub period_s: u32,
}

/// A provider's credential, encrypted under a key from central's configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedCredential {
    pub sealed: Bytes,
    /// What may be shown of it: which key, project or address it belongs to. No secret.
    pub about: Arc<str>,
    pub set_at: Millis,
}

impl std::fmt::Debug for SealedCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedCredential").field("about", &self.about).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_reads_back_as_it_was_written_and_what_it_does_not_know_is_refused() {
        let text = r#"{"kind":"alert","text":{"title":"a","body":"b"},"locales":{"sv":{"title":"c","body":"d"}},"over_s":60,"quiet_hours":{"from":"22:00","to":"08:30","offset":"utc_offset","then":"hold"},"ignore_cap":true,"overrides":{"apns":{"aps":{"sound":"x"}}}}"#;
        let policy: PushPolicy = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&policy).unwrap(), text);
        assert_eq!(policy.quiet_hours.unwrap().to.minutes(), 8 * 60 + 30);
        let wake: PushPolicy = serde_json::from_str(r#"{"kind":"wake"}"#).unwrap();
        assert_eq!(serde_json::to_string(&wake).unwrap(), r#"{"kind":"wake"}"#);
        for bad in [r#"{"kind":"shout"}"#, r#"{"kind":"wake","over":1}"#, r"{}"] {
            assert!(serde_json::from_str::<PushPolicy>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_of_day_has_two_digits_and_two_more() {
        for (text, minutes) in [("00:00", 0), ("08:30", 510), ("23:59", 1_439)] {
            let at = TimeOfDay::try_from(text.to_owned()).unwrap();
            assert_eq!((at.minutes(), String::from(at)), (minutes, text.to_owned()));
        }
        for bad in ["24:00", "8:30", "08:60", "0830", "08:30:00", "+1:00", ""] {
            assert!(TimeOfDay::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
