//! APNs over HTTP/2.

mod provider_token;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use carillon_world::{Environment, Millis};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Version};

use self::provider_token::ProviderToken;
use super::pool::{Pool, PoolLimits, Reply};
use super::{Channel, Providers, retry_after};
use crate::core::channel::apns::{self, Verdict};
use crate::core::channel::credential::ApnsCredential;
use crate::core::channel::{Notice, NoticeError, Outcome, Reason, Scope};

const TOPIC: HeaderName = HeaderName::from_static("apns-topic");
const PUSH_TYPE: HeaderName = HeaderName::from_static("apns-push-type");
const PRIORITY: HeaderName = HeaderName::from_static("apns-priority");
const EXPIRATION: HeaderName = HeaderName::from_static("apns-expiration");
const COLLAPSE_ID: HeaderName = HeaderName::from_static("apns-collapse-id");

/// An app's pushes to Apple's devices.
pub struct Apns {
    pool: Pool,
    authority: Authority,
    topic: HeaderValue,
    token: ProviderToken,
    in_flight_max: usize,
}

/// Everything of a request but the device's token and the authorization.
#[derive(Debug)]
pub struct Prepared {
    headers: HeaderMap,
    body: Bytes,
}

impl fmt::Debug for Apns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apns").field("pool", &self.pool).field("topic", &self.topic).finish()
    }
}

impl Apns {
    pub(super) fn new(
        credential: ApnsCredential,
        environment: Environment,
        providers: &Providers,
    ) -> Apns {
        let config = &providers.config;
        let url = match environment {
            Environment::Production => &config.apns_production,
            Environment::Sandbox => &config.apns_sandbox,
        };
        Apns {
            pool: Pool::new(providers.trusted.clone(), url.clone(), PoolLimits::of_lane(config)),
            authority: super::authority(url),
            topic: super::header(&credential.topic),
            in_flight_max: config.connections_max * config.streams_max,
            token: providers.apns_tokens.of(credential),
        }
    }

    async fn post(&self, bearer: &HeaderValue, token: &str, prepared: &Prepared) -> SendResult {
        let path = Bytes::from(["/3/device/", token].concat());
        // Its digits were checked.
        let path = PathAndQuery::from_maybe_shared(path).map_err(|_| bad_token())?;
        self.pool
            .send(|_| {
                let mut request = Request::new(prepared.body.clone());
                *request.method_mut() = Method::POST;
                *request.version_mut() = Version::HTTP_2;
                *request.uri_mut() = super::uri(self.authority.clone(), path.clone());
                *request.headers_mut() = prepared.headers.clone();
                request.headers_mut().insert(AUTHORIZATION, bearer.clone());
                request
            })
            .await
            .map_err(|lost| lost.outcome(Scope::Channel))
    }
}

pub(super) use self::provider_token::ProviderTokens;

type SendResult = Result<Reply, Outcome>;

fn bad_token() -> Outcome {
    Outcome::Failed { reason: Reason("bad_device_token") }
}

impl Channel for Apns {
    type Prepared = Prepared;

    fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    fn prepare(&self, notice: &Notice) -> Result<Prepared, NoticeError> {
        let push = apns::render(notice)?;
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(TOPIC, self.topic.clone());
        headers.insert(PUSH_TYPE, HeaderValue::from_static(push.push_type));
        headers.insert(PRIORITY, u16::from(push.priority).into());
        headers.insert(EXPIRATION, push.expiration.into());
        headers.insert(COLLAPSE_ID, super::header(&push.collapse));
        headers.insert(CONTENT_LENGTH, push.body.len().into());
        Ok(Prepared { headers, body: push.body })
    }

    async fn send(&self, now: Millis, token: &str, prepared: &Prepared) -> Outcome {
        if !apns::is_token(token) {
            return bad_token();
        }
        let unknown = || Outcome::Later {
            after: None,
            scope: Scope::Channel,
            reason: Reason("provider_token_unavailable"),
        };
        let Some(mut bearer) = self.token.current(now).await else { return unknown() };
        let mut renewed = false;
        loop {
            let reply = match self.post(bearer.header(), token, prepared).await {
                Ok(reply) => reply,
                Err(outcome) => return outcome,
            };
            let after = retry_after(now, &reply);
            match apns::classify(reply.status, after, &reply.body) {
                Verdict::Outcome(outcome) => return outcome,
                Verdict::Stale => match self.token.after_stale(now, &bearer).await {
                    Some(other) if !renewed => (bearer, renewed) = (other, true),
                    _ => return Outcome::Refused { reason: Reason("expired_provider_token") },
                },
            }
        }
    }
}

/// What these locks guard is whole at every moment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
