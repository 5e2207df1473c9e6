//! What a message's pushes say, and whether its author may say it so.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use carillon_persist::RunKind;
use carillon_world::{
    AlertText, MessageRow, Millis, PushKind, PushOverrides, PushPolicy, PushSettings,
};

use crate::core::channel::Notice;
use crate::core::problem::{self, Problem};

/// Bytes of an alert as JSON, title, body and overrides of the largest locale: providers take 4 KiB with what Carillon
/// adds, and Web Push pads and encrypts.
pub const ALERT_BYTES_MAX: usize = 3 * 1024;
/// Locales of an alert.
pub const LOCALES_MAX: usize = 100;
const LOCALE_BYTES_MAX: usize = 35;
/// Seconds over which pushes can be spread: a day.
pub const OVER_S_MAX: u32 = 24 * 60 * 60;
/// Pushes that a frequency cap can allow.
pub const CAP_PUSHES_MAX: u32 = 100;
/// Seconds of a frequency cap's period: thirty days.
pub const CAP_PERIOD_S_MAX: u32 = 30 * 24 * 60 * 60;
/// The collapse id of every wake: they all say the same.
const WAKE: &str = "wake";
/// How long a provider keeps the wake after a recall.
const WITHDRAWAL_KEPT: u64 = 24 * 60 * 60 * 1000;

/// # Errors
/// `invalid-push`, with the field that is at fault.
pub fn check(policy: &PushPolicy) -> Result<(), Problem> {
    let refused = |detail: String| Err(problem::invalid_push(detail));
    match policy.kind {
        PushKind::Wake => {
            if policy.text.is_some() || !policy.locales.is_empty() || !policy.overrides.is_empty() {
                return refused(
                    "a `wake` says nothing of the message: `text`, `locales` and `overrides` are for an `alert`"
                        .to_owned(),
                );
            }
        }
        PushKind::Alert => check_alert(policy)?,
    }
    if policy.over_s > OVER_S_MAX {
        return refused(format!("`over_s` is at most {OVER_S_MAX}, a day"));
    }
    Ok(())
}

fn check_alert(policy: &PushPolicy) -> Result<(), Problem> {
    let refused = |detail: String| Err(problem::invalid_push(detail));
    let Some(text) = &policy.text else {
        return refused("an `alert` needs `text` with `title` and `body`".to_owned());
    };
    if policy.locales.len() > LOCALES_MAX {
        return refused(format!("`locales` has at most {LOCALES_MAX} texts"));
    }
    let is_locale = |locale: &str| {
        let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        (2..=LOCALE_BYTES_MAX).contains(&locale.len()) && locale.bytes().all(good)
    };
    if let Some(locale) = policy.locales.keys().find(|locale| !is_locale(locale)) {
        return refused(format!("`locales` has {locale:?}; a locale reads `sv` or `sv-se`"));
    }
    let overrides = serde_json::to_string(&policy.overrides).map_or(0, |text| text.len());
    for (name, of) in std::iter::once(("text", text))
        .chain(policy.locales.iter().map(|(locale, text)| (&**locale, text)))
    {
        let bytes = serde_json::to_string(of).map_or(0, |text| text.len()) + overrides;
        if bytes > ALERT_BYTES_MAX {
            return refused(format!(
                "{name:?} and the overrides have {bytes} bytes as JSON, at most {ALERT_BYTES_MAX}"
            ));
        }
    }
    Ok(())
}

/// # Errors
/// `invalid-push`
pub fn check_settings(settings: &PushSettings) -> Result<(), Problem> {
    if settings.rate == Some(0) {
        return Err(problem::invalid_push("`rate` is at least 1, or null for no limit".to_owned()));
    }
    if let Some(cap) = settings.cap
        && !((1..=CAP_PUSHES_MAX).contains(&cap.pushes)
            && (60..=CAP_PERIOD_S_MAX).contains(&cap.period_s))
    {
        return Err(problem::invalid_push(format!(
            "a `cap` allows 1 to {CAP_PUSHES_MAX} `pushes` in a `period_s` of 60 to {CAP_PERIOD_S_MAX}"
        )));
    }
    Ok(())
}

/// What a run says, for each locale that it has words for.
#[derive(Clone, Debug)]
pub struct Notices {
    /// The default comes first.
    all: Vec<Notice>,
    by_locale: BTreeMap<Arc<str>, usize>,
}

impl Notices {
    /// `began_at`: when the run began. `None` for a message that is not pushed.
    pub fn of(row: &MessageRow, kind: RunKind, began_at: Millis) -> Option<Notices> {
        let policy = row.push.as_deref()?;
        let notice = |text: Option<&AlertText>| Notice {
            message: row.id,
            text: text.cloned(),
            collapse: match text {
                None => WAKE.into(),
                Some(_) => collapse(row),
            },
            priority: row.priority,
            expires_at: match kind {
                RunKind::Send => row.expires_at,
                RunKind::Withdraw => began_at.plus(WITHDRAWAL_KEPT),
            },
            overrides: match text {
                None => PushOverrides::default(),
                Some(_) => policy.overrides.clone(),
            },
        };
        if kind == RunKind::Withdraw || policy.kind == PushKind::Wake {
            return Some(Notices { all: vec![notice(None)], by_locale: BTreeMap::new() });
        }
        let mut all = vec![notice(policy.text.as_ref())];
        let mut by_locale = BTreeMap::new();
        for (locale, text) in &policy.locales {
            by_locale.insert(locale.clone(), all.len());
            all.push(notice(Some(text)));
        }
        Some(Notices { all, by_locale })
    }

    pub fn all(&self) -> &[Notice] {
        &self.all
    }

    /// The place in [`Notices::all`] of the words for a locale such as `sv-SE`: the longest that it begins with.
    pub fn choose(&self, locale: Option<&str>) -> usize {
        let Some(locale) = locale.filter(|_| !self.by_locale.is_empty()) else { return 0 };
        let locale = locale.to_ascii_lowercase().replace('_', "-");
        let mut end = locale.len();
        loop {
            if let Some(found) = self.by_locale.get(&locale[..end]) {
                return *found;
            }
            match locale[..end].rfind('-') {
                Some(shorter) => end = shorter,
                None => return 0,
            }
        }
    }
}

/// The same for every push of a message, so that an edit takes the place of what was shown.
fn collapse(row: &MessageRow) -> Arc<str> {
    match &row.collapse_key {
        None => row.id.to_string().into(),
        Some(key) => {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
            // 24 bytes are 32 characters, as many as the topic of a Web Push may have.
            URL_SAFE_NO_PAD.encode(&digest.as_ref()[..24]).into()
        }
    }
}
