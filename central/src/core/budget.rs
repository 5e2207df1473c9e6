//! What may still grow: the world, which every edge has to hold, and what each app has of it.
//!
//! Only growth is refused. Whatever shrinks or keeps goes on, or a full world could never be emptied: recalls,
//! deletions and what falls due are not even asked.

use carillon_expr::Limits;
use carillon_world::{App, Quotas, Usage, World};

use super::audience::AudienceLimits;
use super::limits::VOLATILE_MESSAGES_MAX;
use super::problem::{self, Problem};

/// The bounds of a central.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// RAM of the shard's world, by the formula of [`Usage`].
    pub world_bytes_max: u64,
    /// For apps that have none of their own.
    pub quotas: QuotaLimits,
    /// What an expression may cost. Those that are stored stay, whatever it was lowered to.
    pub expressions: Limits,
    pub audiences: AudienceLimits,
    /// Volatile messages of an app that are scheduled or active: each is judged again at every tick.
    pub volatile_messages_max: u64,
}

impl Default for Budgets {
    fn default() -> Budgets {
        Budgets {
            world_bytes_max: 8 << 30,
            quotas: QuotaLimits::default(),
            expressions: Limits::default(),
            audiences: AudienceLimits::default(),
            volatile_messages_max: VOLATILE_MESSAGES_MAX,
        }
    }
}

/// What an app may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaLimits {
    pub devices_max: u64,
    pub groups_max: u64,
    /// Messages that are scheduled or active.
    pub live_messages_max: u64,
    /// Bodies that the world keeps, also those of messages that have ended and are not purged yet.
    pub bodies_bytes_max: u64,
}

impl Default for QuotaLimits {
    fn default() -> QuotaLimits {
        QuotaLimits {
            devices_max: 20_000_000,
            groups_max: 1_000_000,
            live_messages_max: 100_000,
            bodies_bytes_max: 1 << 30,
        }
    }
}

impl QuotaLimits {
    /// These limits, but where the app has its own.
    pub fn of(&self, own: &Quotas) -> QuotaLimits {
        QuotaLimits {
            devices_max: own.devices_max.unwrap_or(self.devices_max),
            groups_max: own.groups_max.unwrap_or(self.groups_max),
            live_messages_max: own.live_messages_max.unwrap_or(self.live_messages_max),
            bodies_bytes_max: own.bodies_bytes_max.unwrap_or(self.bodies_bytes_max),
        }
    }
}

/// One thing that is counted by app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    Devices,
    Groups,
    LiveMessages,
    Bodies,
}

impl Quota {
    /// As configuration and the admin API call it.
    pub const fn name(self) -> &'static str {
        match self {
            Quota::Devices => "devices_max",
            Quota::Groups => "groups_max",
            Quota::LiveMessages => "live_messages_max",
            Quota::Bodies => "bodies_bytes_max",
        }
    }

    fn limit(self, limits: &QuotaLimits) -> u64 {
        match self {
            Quota::Devices => limits.devices_max,
            Quota::Groups => limits.groups_max,
            Quota::LiveMessages => limits.live_messages_max,
            Quota::Bodies => limits.bodies_bytes_max,
        }
    }

    fn used(self, app: &App) -> u64 {
        match self {
            Quota::Devices => app.device_count() as u64,
            Quota::Groups => app.group_count() as u64,
            Quota::LiveMessages => app.live_messages(),
            Quota::Bodies => app.usage().bodies,
        }
    }
}

/// One put changes the world by less than this: a record has at most 1 MiB, an expression of the most nodes takes a
/// few more, and no caller's put has a second one. The edit of an audience, which may, is not asked here.
const PUT_BYTES_MAX: u64 = 32 << 20;

/// Edits keep what they replace until the horizon. So much of the world is kept for them: an edit that grows nothing
/// else still goes when the world is full.
const RESERVE: u64 = 16;

impl Budgets {
    /// Whether the app may have `more` of this.
    ///
    /// # Errors
    /// 403 `quota-exceeded`
    pub(crate) fn allow(&self, app: &App, quota: Quota, more: u64) -> Result<(), Problem> {
        let (used, limit) = (quota.used(app), quota.limit(&self.quotas.of(&app.row().quotas)));
        if used.saturating_add(more) <= limit {
            return Ok(());
        }
        Err(problem::quota_exceeded(quota.name(), limit, used, more))
    }

    /// Whether so many more messages of the app may be volatile.
    ///
    /// # Errors
    /// 403 `too-many-volatile-messages`
    pub(crate) fn allow_volatile(&self, app: &App, more: u64) -> Result<(), Problem> {
        let (used, limit) = (app.volatile_messages(), self.volatile_messages_max);
        if more == 0 || used + more <= limit {
            return Ok(());
        }
        let detail = format!(
            "{used} messages of the app look at the clock or at `last_seen`, and {limit} may; see \
             central.volatile_messages_max"
        );
        let (code, title) = ("too-many-volatile-messages", "Too many volatile messages");
        Err(problem::problem(403, code, title, detail))
    }

    /// Whether nothing that one write puts can reach the bound.
    pub(crate) fn has_room(&self, world: &World) -> bool {
        world.usage().total().saturating_add(PUT_BYTES_MAX) <= self.world_bytes_max
    }

    /// Whether a world may go from one usage to the other.
    ///
    /// # Errors
    /// 507 `world-full`
    pub(crate) fn admit(&self, before: &Usage, after: &Usage) -> Result<(), Problem> {
        let (was, will, most) = (before.total(), after.total(), self.world_bytes_max);
        let lasting = |usage: &Usage| usage.total() - usage.revisions;
        let keeps = lasting(after) <= lasting(before);
        if will <= most || will <= was || (keeps && will <= most.saturating_add(most / RESERVE)) {
            return Ok(());
        }
        Err(problem::world_full(will, most))
    }
}

/// Beyond this part of its bound a world is said to be nearly full; below the other it is said no more.
const WARN_PERCENT: u64 = 80;
const EASE_PERCENT: u64 = 75;

/// Whether the world is nearly full, given whether it was before.
pub fn is_nearly_full(bytes: u64, bytes_max: u64, was: bool) -> bool {
    bytes > bytes_max / 100 * if was { EASE_PERCENT } else { WARN_PERCENT }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(devices: u64, revisions: u64) -> Usage {
        Usage { devices, revisions, ..Usage::ZERO }
    }

    #[test]
    fn only_growth_is_refused_and_edits_have_a_reserve() {
        let budgets = Budgets { world_bytes_max: 1_600, ..Budgets::default() };
        let admits = |before: (u64, u64), after: (u64, u64)| {
            let after = usage(after.0, after.1);
            budgets.admit(&usage(before.0, before.1), &after).is_ok()
        };
        assert!(admits((1_500, 0), (1_600, 0)), "up to the bound");
        assert!(!admits((1_500, 0), (1_601, 0)), "and not beyond");
        assert!(admits((2_000, 0), (2_000, 0)) && admits((2_000, 0), (1_999, 0)), "kept or less");
        assert!(admits((1_600, 0), (1_600, 100)), "an edit that grows nothing else");
        assert!(admits((1_600, 0), (1_550, 150)), "nor when it shrinks");
        assert!(!admits((1_600, 0), (1_600, 101)), "while the reserve lasts");
        assert!(!admits((1_600, 0), (1_601, 10)), "but not one that grows something");
        let problem = budgets.admit(&usage(1_600, 0), &usage(1_700, 0)).unwrap_err();
        assert_eq!((problem.status, problem.code.as_str()), (507, "world-full"));
    }

    #[test]
    fn an_apps_own_quota_wins_over_the_default() {
        let own = Quotas { devices_max: Some(0), groups_max: Some(5_000_000), ..Quotas::default() };
        let limits = QuotaLimits::default().of(&own);
        assert_eq!((limits.devices_max, limits.groups_max), (0, 5_000_000));
        assert_eq!(limits.live_messages_max, QuotaLimits::default().live_messages_max);
    }

    #[test]
    fn nearly_full_is_told_above_80_percent_until_below_75() {
        let mut was = false;
        let told = [800, 801, 760, 751, 750, 760, 801].map(|bytes| {
            was = is_nearly_full(bytes, 1_000, was);
            was
        });
        assert_eq!(told, [false, true, true, true, false, false, true]);
    }
}
