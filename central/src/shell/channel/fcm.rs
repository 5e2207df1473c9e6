//! FCM's HTTP v1 API over HTTP/2.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use carillon_world::Millis;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Version};
use tokio::sync::Mutex;

use super::pool::{Pool, PoolLimits};
use super::{Channel, Providers, retry_after};
use crate::core::channel::credential::FcmCredential;
use crate::core::channel::fcm::{self, Push, Verdict};
use crate::core::channel::{Notice, NoticeError, Outcome, Reason, Scope};
use crate::core::outbound::HttpsUrl;

/// An access token that is refused at this age, in ms, is not replaced: the next would be refused, too.
const FRESH: u64 = 10_000;

/// An app's pushes through Firebase Cloud Messaging.
pub struct Fcm {
    pool: Pool,
    authority: Authority,
    path: PathAndQuery,
    access: Access,
    in_flight_max: usize,
}

impl fmt::Debug for Fcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fcm").field("pool", &self.pool).field("path", &self.path).finish()
    }
}

impl Fcm {
    pub(super) fn new(credential: FcmCredential, providers: &Providers) -> Fcm {
        let config = &providers.config;
        let path = format!("/v1/projects/{}/messages:send", credential.project_id);
        Fcm {
            pool: Pool::new(
                providers.trusted.clone(),
                config.fcm.clone(),
                PoolLimits::of_lane(config),
            ),
            authority: super::authority(&config.fcm),
            path: PathAndQuery::try_from(path).expect("a project's id was checked"),
            access: Access::new(credential, providers),
            in_flight_max: config.connections_max * config.streams_max,
        }
    }
}

impl Channel for Fcm {
    type Prepared = Push;

    fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    fn prepare(&self, notice: &Notice) -> Result<Push, NoticeError> {
        fcm::render(notice)
    }

    async fn send(&self, now: Millis, token: &str, prepared: &Push) -> Outcome {
        if !fcm::is_token(token) {
            return Outcome::Failed { reason: Reason("bad_registration_token") };
        }
        let body = prepared.body(now, token);
        let mut renewed = false;
        let mut access = match self.access.current(now).await {
            Ok(access) => access,
            Err(outcome) => return outcome,
        };
        loop {
            let sent = self
                .pool
                .send(|_| {
                    let mut request = Request::new(body.clone());
                    *request.method_mut() = Method::POST;
                    *request.version_mut() = Version::HTTP_2;
                    *request.uri_mut() = super::uri(self.authority.clone(), self.path.clone());
                    let headers = request.headers_mut();
                    headers.insert(AUTHORIZATION, access.header.clone());
                    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                    request
                })
                .await;
            let reply = match sent {
                Ok(reply) => reply,
                Err(lost) => return lost.outcome(Scope::Channel),
            };
            let after = retry_after(now, &reply);
            match fcm::classify(reply.status, after, &reply.body) {
                Verdict::Outcome(outcome) => return outcome,
                Verdict::Stale if renewed => {
                    return Outcome::Refused { reason: Reason("unauthenticated") };
                }
                Verdict::Stale => match self.access.after_stale(now, &access).await {
                    Ok(other) => (access, renewed) = (other, true),
                    Err(outcome) => return outcome,
                },
            }
        }
    }
}

/// The access token of one service account: fetched when it is needed, renewed by one while the others go on with what
/// there is.
struct Access {
    credential: FcmCredential,
    pool: Pool,
    url: HttpsUrl,
    token: ArcSwapOption<Token>,
    /// Held by who fetches. Holds how many fetches failed, and how the last one did.
    fetching: Mutex<(u64, Option<Outcome>)>,
    fetches_failed: std::sync::atomic::AtomicU64,
}

struct Token {
    header: HeaderValue,
    made_at: Millis,
    renew_at: Millis,
    ends_at: Millis,
}

impl Access {
    fn new(credential: FcmCredential, providers: &Providers) -> Access {
        let config = &providers.config;
        let limits =
            PoolLimits { connections_max: 1, keep_idle: false, ..PoolLimits::of_lane(config) };
        let url = config.fcm_token_url.clone();
        Access {
            credential,
            pool: Pool::new(providers.trusted.clone(), url.clone(), limits),
            url,
            token: ArcSwapOption::empty(),
            fetching: Mutex::new((0, None)),
            fetches_failed: std::sync::atomic::AtomicU64::new(0),
        }
    }

    async fn current(&self, now: Millis) -> Result<Arc<Token>, Outcome> {
        match self.token.load_full() {
            Some(token) if now < token.renew_at => Ok(token),
            // Still good for a while: one renews it, and should that fail, so be it.
            Some(token) if now < token.ends_at => match self.fetching.try_lock() {
                Err(_) => Ok(token),
                Ok(_fetching) => Ok(self.fetch(now).await.unwrap_or(token)),
            },
            _ => self.renewed(now, |token| now < token.ends_at).await,
        }
    }

    async fn after_stale(&self, now: Millis, used: &Arc<Token>) -> Result<Arc<Token>, Outcome> {
        if now.0.saturating_sub(used.made_at.0) < FRESH && self.is_current(used) {
            return Err(Outcome::Refused { reason: Reason("unauthenticated") });
        }
        self.renewed(now, |token| !Arc::ptr_eq(token, used)).await
    }

    fn is_current(&self, used: &Arc<Token>) -> bool {
        self.token.load().as_ref().is_some_and(|token| Arc::ptr_eq(token, used))
    }

    /// A token, fetched unless there is one that will do.
    async fn renewed(
        &self,
        now: Millis,
        will_do: impl Fn(&Arc<Token>) -> bool,
    ) -> Result<Arc<Token>, Outcome> {
        use std::sync::atomic::Ordering;
        let failed_before = self.fetches_failed.load(Ordering::Acquire);
        let mut fetching = self.fetching.lock().await;
        if let Some(token) = self.token.load_full().filter(will_do) {
            return Ok(token);
        }
        // Whoever waited while a fetch failed takes that as its own.
        if let (failed, Some(outcome)) = &*fetching
            && *failed > failed_before
        {
            return Err(outcome.clone());
        }
        let fetched = self.fetch(now).await;
        if let Err(outcome) = &fetched {
            let failed = self.fetches_failed.fetch_add(1, Ordering::Release) + 1;
            *fetching = (failed, Some(outcome.clone()));
        }
        fetched
    }

    async fn fetch(&self, now: Millis) -> Result<Arc<Token>, Outcome> {
        let audience = format!("{}{}", self.url.origin(), self.url.path());
        let body = fcm::token_request(&self.credential, &audience, now);
        let authority = super::authority(&self.url);
        let path = PathAndQuery::try_from(self.url.path())
            .map_err(|_| Outcome::Refused { reason: Reason("bad_token_url") })?;
        let sent = self
            .pool
            .send(|_| {
                let mut request = Request::new(body.clone());
                *request.method_mut() = Method::POST;
                *request.version_mut() = Version::HTTP_2;
                *request.uri_mut() = super::uri(authority.clone(), path.clone());
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                request.headers_mut().insert(CONTENT_TYPE, form);
                request
            })
            .await;
        let reply = sent.map_err(|lost| lost.outcome(Scope::Channel))?;
        if reply.status != 200 {
            return Err(fcm::classify_token(reply.status, retry_after(now, &reply)));
        }
        let answer: fcm::AccessToken = serde_json::from_slice(&reply.body)
            .map_err(|_| fcm::classify_token(500, retry_after(now, &reply)))?;
        let mut header = super::header(&format!("Bearer {}", answer.access_token));
        header.set_sensitive(true);
        let token = Arc::new(Token {
            header,
            made_at: now,
            renew_at: fcm::renew_at(now, answer.expires_in),
            ends_at: now.plus(answer.expires_in.saturating_mul(1000)),
        });
        self.token.store(Some(token.clone()));
        Ok(token)
    }
}
