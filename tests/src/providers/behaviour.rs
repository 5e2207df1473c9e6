//! What a simulator does to requests that break no rule, as its control port says: how a provider fails.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderValue;
use serde::Deserialize;

use super::books::{Kind, hash};
use super::provider::{Extra, Push};

/// One rule as it is told. Without any choice it is for all pushes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Told {
    /// Only these tokens.
    tokens: Option<Vec<String>>,
    /// Only this share of tokens, always the same ones; from 0 to 1.
    share_of_tokens: Option<f64>,
    /// Only this share of the pushes that the rule is for otherwise, evenly; from 0 to 1.
    share: Option<f64>,
    kind: Option<Kind>,
    /// Only so many pushes, then never again.
    times: Option<u64>,
    /// The push counts as accepted, whatever is answered: an answer that is lost.
    accepted: bool,
    slow_ms: u64,
    status: Option<u16>,
    reason: String,
    retry_after: Option<String>,
    gone_since_ms: Option<u64>,
    reset: Option<Reset>,
    redirect: Option<String>,
    endless: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reset {
    Stream,
    Connection,
}

/// What becomes of a push.
#[derive(Clone, Debug, Default)]
pub(super) struct Decision {
    pub(super) slow: Duration,
    pub(super) effect: Effect,
    /// It counts as accepted though the answer is another.
    pub(super) is_accepted: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Effect {
    #[default]
    Accept,
    Refuse {
        status: u16,
        reason: Arc<str>,
        extra: Extra,
    },
    Redirect(HeaderValue),
    Endless,
    Reset(Reset),
}

#[derive(Debug)]
struct Rule {
    tokens: Option<HashSet<u64>>,
    share_of_tokens: Option<f64>,
    share: Option<f64>,
    kind: Option<Kind>,
    times: Option<u64>,
    /// Pushes that were chosen but for `share` and `times`.
    seen: AtomicU64,
    taken: AtomicU64,
    is_accepted: bool,
    slow: Duration,
    effect: Option<Effect>,
}

impl Rule {
    fn new(told: Told) -> Result<Rule, String> {
        for share in [told.share, told.share_of_tokens].into_iter().flatten() {
            if !(0.0..=1.0).contains(&share) {
                return Err(format!("a share is from 0 to 1, not {share}"));
            }
        }
        let header = |text: String| {
            HeaderValue::from_str(&text).map_err(|_| format!("no header's value: {text}"))
        };
        let retry_after = told.retry_after.map(header).transpose()?;
        let extra = Extra { retry_after, gone_since_ms: told.gone_since_ms };
        let refuse = told.status.map(|status| Effect::Refuse {
            status,
            reason: told.reason.as_str().into(),
            extra,
        });
        let redirect = told.redirect.map(header).transpose()?.map(Effect::Redirect);
        let endless = told.endless.then_some(Effect::Endless);
        let mut effects =
            [refuse, redirect, endless, told.reset.map(Effect::Reset)].into_iter().flatten();
        let effect = effects.next();
        if effects.next().is_some() {
            return Err("a rule does one of status, redirect, endless and reset".to_owned());
        }
        Ok(Rule {
            tokens: told.tokens.map(|tokens| tokens.iter().map(|token| hash(token)).collect()),
            share_of_tokens: told.share_of_tokens,
            share: told.share,
            kind: told.kind,
            times: told.times,
            seen: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            is_accepted: told.accepted,
            slow: Duration::from_millis(told.slow_ms),
            effect,
        })
    }

    fn takes(&self, token: u64, kind: Kind) -> bool {
        // The low bits choose a map's bucket, the high ones a share of the tokens.
        let place = (token >> 32) as f64 / f64::from(u32::MAX);
        let is_chosen = self.tokens.as_ref().is_none_or(|tokens| tokens.contains(&token))
            && self.share_of_tokens.is_none_or(|share| place < share)
            && self.kind.is_none_or(|only| only == kind);
        if !is_chosen {
            return false;
        }
        if let Some(share) = self.share {
            let seen = self.seen.fetch_add(1, Ordering::Relaxed) as f64;
            if ((seen + 1.0) * share).floor() <= (seen * share).floor() {
                return false;
            }
        }
        self.times.is_none_or(|times| self.taken.fetch_add(1, Ordering::Relaxed) < times)
    }
}

/// The rules, in order: delays add up, and the first that answers decides.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Most of the time there is none, and then nothing is locked.
    any: AtomicBool,
    rules: RwLock<Arc<Vec<Rule>>>,
}

impl Rules {
    /// Replaces all rules.
    pub(super) fn set(&self, told: Vec<Told>) -> Result<(), String> {
        let rules: Vec<Rule> = told.into_iter().map(Rule::new).collect::<Result<_, _>>()?;
        let any = !rules.is_empty();
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.any.store(any, Ordering::SeqCst);
        Ok(())
    }

    pub(super) fn decide(&self, push: &Push<'_>) -> Decision {
        let mut decision = Decision::default();
        if !self.any.load(Ordering::Relaxed) {
            return decision;
        }
        let token = hash(&push.token);
        for rule in self.rules.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if rule.takes(token, push.kind) {
                decision.slow += rule.slow;
                if let Some(effect) = &rule.effect {
                    decision.effect = effect.clone();
                    decision.is_accepted = rule.is_accepted;
                    break;
                }
            }
        }
        decision
    }
}
