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
use super::state;
use crate::core::answer::{self, Answer};
use crate::core::call::{self, Call, Head};
use crate::core::decide;
use crate::core::route::{self, Route};
use crate::core::seal::Entropy;
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
        Err(error) => call::refused(error),
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

/// A call may end early with an answer, whatever it says; `Err` is only the shorter way out.
type Responded = Result<Answer, Answer>;

async fn respond(core: &Core, peer: Peer, route: Route, request: Request<Incoming>) -> Responded {
    let arrived = Instant::now();
    let head = Head::read(route, request.headers())?;
    if route == Route::Enrol {
        core.shared.may_enrol(peer.source(request.headers())).map_err(|wait| {
            core.shared.metrics.enrolments_limited.inc();
            answer::rate_limited(wait)
        })?;
    }
    let body = if head.has_body() {
        read_body(core, request).await?
    } else {
        // A parked poll keeps only what it needs.
        drop(request);
        Bytes::new()
    };
    let mut call = head.with_body(&body, arrived)?;
    drop(body);
    let asked = converse(core, &mut call).await?;
    let reply = upstream(core, asked).await?;
    let world = core.shared.world.load();
    Ok(call.replied(world.as_deref(), &core.shared.keys.load(), entropy(), reply))
}

/// Looks, parks, and looks again, until there is an answer or something to ask of central.
async fn converse(core: &Core, call: &mut Call) -> Result<UpstreamRequest, Answer> {
    let mut now = Instant::now();
    loop {
        match core.visit(now, call, entropy()) {
            Visit::Answer(answer) => return Err(answer),
            Visit::Upstream(request) => return Ok(request),
            Visit::Full => return Err(call::no_place()),
            Visit::Parked(mut parked) => {
                // At `until` the next visit answers.
                let woken = tokio::time::timeout_at(parked.until.into(), &mut parked.woken).await;
                if let Ok(Ok(Wake::Drain)) = woken {
                    let spread = decide::share(core.shared.config.drain_spread, entropy());
                    tokio::time::sleep(spread).await;
                }
                now = Instant::now();
                if let Ok(Ok(Wake::Evicted)) = woken {
                    // As if its time were up: what came meanwhile is told, and it takes no place again.
                    now = now.max(parked.until);
                }
            }
        }
    }
}

/// Carries a request to central. Once it is sent, silence means that its outcome is unknown.
async fn upstream(core: &Core, request: UpstreamRequest) -> Result<UpstreamReply, Answer> {
    let metrics = &core.shared.metrics;
    let (reply, answered) = oneshot::channel();
    if !core.shared.is_live() || core.shared.calls.try_send(state::Call { request, reply }).is_err()
    {
        metrics.upstream(UpstreamOutcome::NotSent);
        return Err(call::not_sent());
    }
    let patience = core.shared.config.central.write_timeout;
    match tokio::time::timeout(patience, answered).await {
        Ok(Ok(reply)) => {
            metrics.upstream(UpstreamOutcome::Answered);
            Ok(reply)
        }
        Ok(Err(_)) | Err(_) => {
            metrics.upstream(UpstreamOutcome::Lost);
            Err(call::unanswered())
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
