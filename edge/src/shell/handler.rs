//! One request of a device, from its head to its answer.
//!
//! The core decides; what is left here is to read the body, to park, and to carry a write to central and its reply back.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use carillon_world::{UpstreamReply, UpstreamRequest};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
    SET_COOKIE,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::cores::{Core, Visit, Wake};
use super::state::Call;
use crate::core::answer::{self, Answer};
use crate::core::body;
use crate::core::decide::{self, Ask, Asked, Decision, Writer};
use crate::core::route::{self, Credentials, HeadError, Route};
use crate::core::seal::Entropy;
use crate::core::writes;
use crate::metrics::UpstreamOutcome;

/// Answers one request. If the future is dropped the request is forgotten, but a write that was sent stays sent.
pub(super) async fn handle(
    core: Rc<Core>,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let routed = route::route(request.method(), request.uri().path(), request.uri().query());
    let answer = match routed.clone() {
        Ok(route) => respond(&core, peer, route, request).await.unwrap_or_else(|refused| refused),
        Err(error) => refuse(error),
    };
    core.shared.metrics.count(routed.ok(), answer.outcome, answer.body.len());
    response(answer)
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// Whether `X-Forwarded-For` names the device instead.
    pub(super) forwarded: bool,
}

impl Peer {
    /// The last entry is the one that the proxy in front of us wrote; what stands before it anyone may have written.
    fn source(&self, headers: &HeaderMap) -> IpAddr {
        if !self.forwarded {
            return self.address;
        }
        let last = headers
            .get_all("x-forwarded-for")
            .iter()
            .next_back()
            .and_then(|value| value.to_str().ok());
        let entry = last.and_then(|list| list.rsplit(',').next()).map(str::trim);
        entry.and_then(|text| text.parse().ok()).unwrap_or(self.address)
    }
}

/// Calls end early with an answer, whatever it says; `Err` is only the shorter way out.
type Responded = Result<Answer, Answer>;

async fn respond(core: &Core, peer: Peer, route: Route, request: Request<Incoming>) -> Responded {
    let arrived = Instant::now();
    match route {
        Route::Enrol => enrol(core, peer, request).await,
        Route::Session => login(core, request).await,
        Route::Poll { wait } => {
            // The head is dropped here: a parked poll keeps only what it needs.
            let shown = Shown::of(request.headers())?;
            drop(request);
            match converse(core, &shown, Ask::Poll { wait }, arrived).await {
                Settled::Answer(answer) => Ok(answer),
                Settled::Writer(_) => unreachable!("a poll does not write"),
            }
        }
        Route::Fetch => {
            let shown = Shown::of(request.headers())?;
            let ids = parsed(body::fetch(&read_body(core, request).await?))?;
            match converse(core, &shown, Ask::Fetch { ids: &ids }, arrived).await {
                Settled::Answer(answer) => Ok(answer),
                Settled::Writer(_) => unreachable!("a fetch does not write"),
            }
        }
        Route::Patch => {
            let shown = Shown::of(request.headers())?;
            let patch = parsed(body::patch(&read_body(core, request).await?))?;
            let writer = writer(core, &shown, arrived).await?;
            let reply = upstream(core, writes::patch(&writer, patch)).await?;
            let world = core.shared.world.load();
            let Some(world) = world.as_ref() else {
                return Err(answer::unavailable("the edge has no world", 1));
            };
            let keys = core.shared.keys.load();
            Ok(writes::patched(world, &keys, entropy(), &writer, shown.cursor.as_deref(), reply))
        }
        Route::Forget => {
            let shown = Shown::of(request.headers())?;
            let writer = writer(core, &shown, arrived).await?;
            Ok(writes::forgotten(&writer, upstream(core, writes::forget(&writer)).await?))
        }
        Route::Receipts => {
            let shown = Shown::of(request.headers())?;
            let receipts = parsed(body::receipts(&read_body(core, request).await?))?;
            let writer = writer(core, &shown, arrived).await?;
            Ok(writes::received(upstream(core, writes::receipts(&writer, receipts)).await?))
        }
    }
}

async fn enrol(core: &Core, peer: Peer, request: Request<Incoming>) -> Responded {
    core.shared.may_enrol(peer.source(request.headers())).map_err(|wait| {
        core.shared.metrics.enrolments_limited.inc();
        answer::rate_limited(wait)
    })?;
    let enrolment = parsed(body::enrolment(&read_body(core, request).await?))?;
    let reply = upstream(core, writes::enrol(enrolment)).await?;
    Ok(writes::enrolled(&core.shared.keys.load(), entropy(), reply))
}

async fn login(core: &Core, request: Request<Incoming>) -> Responded {
    let login = parsed(body::login(&read_body(core, request).await?))?;
    let reply = upstream(core, writes::login(&login)).await?;
    Ok(writes::logged_in(&core.shared.keys.load(), entropy(), &login, reply))
}

/// What a request shows of its device, kept while it is parked.
#[derive(Debug)]
struct Shown {
    credentials: Credentials,
    cursor: Option<String>,
}

impl Shown {
    fn of(headers: &HeaderMap) -> Result<Shown, Answer> {
        let credentials = route::credentials(headers).map_err(refuse)?;
        let cursor = route::cursor(headers).map_err(refuse)?.map(str::to_owned);
        Ok(Shown { credentials, cursor })
    }
}

/// How a request that shows a session ended.
enum Settled {
    Answer(Answer),
    Writer(Writer),
}

/// Decides, parks, and decides again, until there is an answer or the write may go.
async fn converse(core: &Core, shown: &Shown, ask: Ask<'_>, arrived: Instant) -> Settled {
    let Credentials { session, app } = &shown.credentials;
    let asked = Asked { session, app: *app, cursor: shown.cursor.as_deref(), ask, arrived };
    loop {
        match core.visit(Instant::now(), &asked, entropy()) {
            Visit::Decided(Decision::Answer(answer)) => return Settled::Answer(answer),
            Visit::Decided(Decision::Proceed(writer)) => return Settled::Writer(writer),
            Visit::Decided(Decision::Park(_)) => unreachable!("a visit parks"),
            Visit::Full => {
                return Settled::Answer(answer::unavailable("too many polls are held here", 2));
            }
            Visit::Parked(mut parked) => {
                // At `until` the next visit answers.
                match tokio::time::timeout_at(parked.until.into(), &mut parked.woken).await {
                    Err(_) | Ok(Ok(Wake::Look) | Err(_)) => {}
                    Ok(Ok(Wake::Evicted)) => return Settled::Answer(Answer::nothing()),
                    Ok(Ok(Wake::Drain)) => {
                        let spread = decide::share(core.shared.config.drain_spread, entropy());
                        tokio::time::sleep(spread).await;
                    }
                }
            }
        }
    }
}

async fn writer(core: &Core, shown: &Shown, arrived: Instant) -> Result<Writer, Answer> {
    match converse(core, shown, Ask::Write, arrived).await {
        Settled::Answer(refused) => Err(refused),
        Settled::Writer(writer) => Ok(writer),
    }
}

/// Carries a request to central. Once it is sent, silence means that its outcome is unknown.
async fn upstream(core: &Core, request: UpstreamRequest) -> Result<UpstreamReply, Answer> {
    let metrics = &core.shared.metrics;
    let (reply, answered) = oneshot::channel();
    if !core.shared.is_live() || core.shared.calls.try_send(Call { request, reply }).is_err() {
        metrics.upstream(UpstreamOutcome::NotSent);
        return Err(answer::unavailable("central cannot be reached; nothing was written", 2));
    }
    let patience = core.shared.config.central.write_timeout;
    match tokio::time::timeout(patience, answered).await {
        Ok(Ok(reply)) => {
            metrics.upstream(UpstreamOutcome::Answered);
            Ok(reply)
        }
        Ok(Err(_)) | Err(_) => {
            metrics.upstream(UpstreamOutcome::Lost);
            Err(answer::unavailable(
                "outcome unknown: no reply from central; repeat the request",
                2,
            ))
        }
    }
}

/// The whole body, bounded in size and time.
async fn read_body(core: &Core, request: Request<Incoming>) -> Result<Bytes, Answer> {
    let limits = &core.shared.config.limits;
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: u64| bytes > limits.body_bytes_max as u64) {
        return Err(answer::too_large(limits.body_bytes_max));
    }
    let whole = Limited::new(request.into_body(), limits.body_bytes_max).collect();
    match tokio::time::timeout(limits.body_timeout, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(answer::too_large(limits.body_bytes_max))
        }
        Ok(Err(_)) => Err(answer::bad_request("the body was cut off")),
        Err(_) => Err(answer::bad_request("the body took too long")),
    }
}

fn parsed<T>(body: Result<T, body::BodyError>) -> Result<T, Answer> {
    body.map_err(|error| answer::bad_request(error.to_string()))
}

fn refuse(error: HeadError) -> Answer {
    match error {
        HeadError::NotFound => answer::not_found(),
        HeadError::Method { allow } => answer::method_not_allowed(allow),
        HeadError::Bad { detail } => answer::bad_request(detail),
        HeadError::NoSession => answer::no_session(),
        HeadError::BadCursor => answer::bad_cursor(),
    }
}

fn entropy() -> Entropy {
    Entropy(rand::random())
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let kind = if answer.is_problem() { "application/problem+json" } else { "application/json" };
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if answer.status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Some(seconds) = answer.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allow) = answer.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(cookie) = answer.set_cookie.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn source(forwarded: bool, lines: &[&str]) -> IpAddr {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        Peer { address: "10.0.0.1".parse().unwrap(), forwarded }.source(&headers)
    }

    #[test]
    fn only_the_proxys_own_entry_names_the_source_and_only_where_configured() {
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(source(false, &["192.0.2.1"]), peer);
        assert_eq!(source(true, &["192.0.2.1, 192.0.2.2"]), "192.0.2.2".parse::<IpAddr>().unwrap());
        assert_eq!(
            source(true, &["192.0.2.1", "2001:db8::1"]),
            "2001:db8::1".parse::<IpAddr>().unwrap()
        );
        assert_eq!(source(true, &[]), peer);
        assert_eq!(source(true, &["unknown"]), peer);
    }

    #[test]
    fn every_answer_is_not_to_be_stored() {
        let headers = |answer| response(answer).headers().clone();
        for answer in
            [Answer::nothing(), answer::behind(), answer::rate_limited(Duration::from_secs(3))]
        {
            assert_eq!(headers(answer)[CACHE_CONTROL], "no-store");
        }
        assert_eq!(headers(answer::behind())[CONTENT_TYPE], "application/problem+json");
        assert_eq!(headers(answer::behind())[RETRY_AFTER], "1");
        assert_eq!(headers(answer::method_not_allowed("GET"))[ALLOW], "GET");
        assert!(!headers(Answer::nothing()).contains_key(CONTENT_TYPE));
    }
}
