//! What became of a message, in numbers: in all, and over time.

use std::collections::BTreeMap;

use axum::extract::State;
use carillon_persist::CountSpan;
use carillon_world::{AppId, MessageId, MessageState, Millis};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answered, ProblemBody, Refusal, json};
use super::extract::{Caller, Params, RawQuery};
use super::messages::message_id;
use super::{Api, Asked, app_of};
use crate::core::auth::Action;
use crate::core::funnel::{Counter, Funnel, Selection, Skip, channel_name};
use crate::core::tally::Tally;
use crate::core::{problem, render};

/// Points of one page.
const POINTS_MAX: usize = 1_000;

/// Counts of devices, but for `pushed`, `failed` and `removed`, which count push tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FunnelBody {
    #[schema(value_type = String)]
    message: MessageId,
    /// The clock by which `addressed` was judged.
    at: String,
    /// Devices that its recipient expression describes at this moment.
    addressed: u64,
    /// Taken by providers, by channel.
    pushed: BTreeMap<&'static str, u64>,
    /// Not taken, by channel and reason.
    failed: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Not pushed, by reason: `quiet` or `capped`.
    skipped: BTreeMap<&'static str, u64>,
    /// Tokens removed because the provider does not know them, by channel.
    removed: BTreeMap<&'static str, u64>,
    /// Devices that have been seen to have stored it.
    delivered: u64,
    displayed: u64,
    opened: u64,
    dismissed: u64,
    action: u64,
    /// Only of a message that was recalled.
    #[serde(skip_serializing_if = "Option::is_none")]
    withdrawn: Option<WithdrawnBody>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WithdrawnBody {
    /// Devices that had it, came after the recall, and do not hold it any more.
    confirmed: u64,
    /// Devices that had it when they came last, and did not come since.
    still_out: u64,
    /// Wakes after the recall that providers took, by channel.
    pushed: BTreeMap<&'static str, u64>,
}

/// How often each part of the funnel was reached, as of what is durable. `addressed` is judged when asked, for every
/// device of the app.
#[utoipa::path(get, path = "/v1/apps/{app}/messages/{message}/funnel", tag = "messages",
    operation_id = "funnel", params(("app" = String, Path), ("message" = String, Path)), responses(
    (status = 200, body = FunnelBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn funnel(
    State(api): State<Api>,
    caller: Caller,
    Params((app, message)): Params<(String, String)>,
) -> Answered {
    let app = caller.may_in(Action::ReadMessages, &app)?;
    let id = message_id(&message)?;
    let tally = api.shared.tally();
    let body = api.ponder(move |asked| count(asked, &tally, app, id)).await?;
    Ok(json(StatusCode::OK, &body))
}

/// Evaluates for every device of the app: about 0.1 s a million.
fn count(
    asked: &Asked<'_>,
    tally: &Tally,
    app_id: AppId,
    id: MessageId,
) -> Result<FunnelBody, Refusal> {
    let app = app_of(asked.world, app_id)?;
    let message = app.message(id).ok_or_else(|| problem::not_found("message"))?;
    let recipients = message.recipients(app);
    let context = asked.context(id.get());
    let addressed = app.devices().filter(|row| recipients.matches_in(&***row, &context)).count();
    let total = |counter| tally.funnel.total(app_id, id, &counter);
    let mut body = FunnelBody {
        message: id,
        at: render::time(asked.at),
        addressed: addressed as u64,
        pushed: BTreeMap::new(),
        failed: BTreeMap::new(),
        skipped: BTreeMap::new(),
        removed: BTreeMap::new(),
        delivered: total(Counter::Delivered),
        displayed: total(Counter::Displayed),
        opened: total(Counter::Opened),
        dismissed: total(Counter::Dismissed),
        action: total(Counter::Action),
        withdrawn: None,
    };
    let mut wakes = BTreeMap::new();
    for (counter, n) in tally.funnel.totals(app_id, id).filter(|(_, n)| *n > 0) {
        match counter {
            Counter::Pushed(channel) => drop(body.pushed.insert(channel_name(*channel), n)),
            Counter::Failed(channel, reason) => {
                let of_channel = body.failed.entry(channel_name(*channel)).or_default();
                of_channel.insert(reason.as_str().to_owned(), n);
            }
            Counter::Skipped(Skip::Quiet) => drop(body.skipped.insert("quiet", n)),
            Counter::Skipped(Skip::Capped) => drop(body.skipped.insert("capped", n)),
            Counter::Removed(channel) => drop(body.removed.insert(channel_name(*channel), n)),
            Counter::WithdrawPushed(channel) => drop(wakes.insert(channel_name(*channel), n)),
            Counter::Delivered
            | Counter::Displayed
            | Counter::Opened
            | Counter::Dismissed
            | Counter::Action
            | Counter::Withdrawn => {}
        }
    }
    body.withdrawn = (message.row().state == MessageState::Recalled).then(|| WithdrawnBody {
        confirmed: total(Counter::Withdrawn),
        still_out: tally.books.out(app_id, id),
        pushed: wakes,
    });
    Ok(body)
}

/// Which series. Times are RFC 3339.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// `delivered`, `displayed`, `opened`, `dismissed`, `action`, `withdrawn`; `pushed`, `failed`, `skipped`, `removed`,
    /// `withdraw_pushed`, each also for one channel or reason: `failed:apns`, `failed:apns:Unregistered`. Not said:
    /// `delivered`.
    counter: Option<String>,
    /// The time over which is counted: `minute`, `hour` or `day`, each by UTC. Not said: `hour`.
    bucket: Option<String>,
    /// Only what began then or later.
    from: Option<String>,
    /// Only what began before.
    to: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SeriesBody {
    counter: String,
    bucket: String,
    /// In the order of time, at most 1,000. A bucket in which nothing was counted is not listed.
    points: Vec<PointBody>,
    /// `from` of the next page; null on the last.
    next: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PointBody {
    /// When the bucket begins.
    at: String,
    n: u64,
}

/// How often something became of a message, over time. Sparse: buckets with nothing in them are not listed, and those
/// that are older than they are kept are gone.
#[utoipa::path(get, path = "/v1/apps/{app}/messages/{message}/funnel/series", tag = "messages",
    operation_id = "series", params(("app" = String, Path), ("message" = String, Path), Wanted), responses(
    (status = 200, body = SeriesBody),
    (status = "default", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(crate) async fn series(
    State(api): State<Api>,
    caller: Caller,
    Params((app, message)): Params<(String, String)>,
    query: RawQuery,
) -> Answered {
    let app = caller.may_in(Action::ReadMessages, &app)?;
    let id = message_id(&message)?;
    {
        let world = api.world();
        let known = app_of(&world, app)?.message(id);
        known.ok_or_else(|| problem::not_found("message"))?;
    }
    let wanted: Wanted = query.read()?;
    let body = points(&api.shared.tally().funnel, app, id, wanted)?;
    Ok(json(StatusCode::OK, &body))
}

fn points(
    funnel: &Funnel,
    app: AppId,
    id: MessageId,
    wanted: Wanted,
) -> Result<SeriesBody, Refusal> {
    let counter = wanted.counter.unwrap_or_else(|| "delivered".to_owned());
    let bucket = wanted.bucket.unwrap_or_else(|| "hour".to_owned());
    let Ok(selection) = counter.parse::<Selection>() else {
        return Err(problem::bad_request("`counter` is not one that is counted").into());
    };
    let span = match &*bucket {
        "minute" => CountSpan::Minute,
        "hour" => CountSpan::Hour,
        "day" => CountSpan::Day,
        _ => return Err(problem::bad_request("`bucket` is minute, hour or day").into()),
    };
    let time = |text: &Option<String>, name: &str, otherwise: Millis| match text {
        None => Ok(otherwise),
        Some(text) => render::parse_time(text).ok_or_else(|| {
            problem::bad_request(format!("`{name}` is a time such as 2026-01-31T12:00:00Z"))
        }),
    };
    let from = time(&wanted.from, "from", Millis::ZERO)?;
    let to = time(&wanted.to, "to", Millis(u64::MAX))?;
    if to < from {
        return Err(problem::bad_request("`to` is before `from`").into());
    }
    let mut all = funnel.series(app, id, &selection, span, (from, to)).unwrap_or_default();
    let next = all.get(POINTS_MAX).map(|(at, _)| render::time(*at));
    all.truncate(POINTS_MAX);
    let point = |(at, n)| PointBody { at: render::time(at), n };
    let points = all.into_iter().map(point).collect();
    Ok(SeriesBody { counter, bucket, points, next })
}
