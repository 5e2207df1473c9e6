//! Web Push: to push services that devices name.
//!
//! Each origin has connections and a share of the requests in flight of its own, so that one which is slow, down or
//! hostile costs its own devices alone. Connections go through the guard.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use carillon_world::Millis;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Version};

use super::apns::lock;
use super::pool::{Pool, PoolLimits, Protocol};
use super::{Channel, Providers, retry_after};
use crate::core::channel::credential::WebPushCredential;
use crate::core::channel::web_push::{self, Push, SALT_LEN, Subscription, SubscriptionError};
use crate::core::channel::{Notice, NoticeError, Outcome, Reason, Scope};
use crate::core::outbound::HttpsUrl;
use crate::shell::outbound::Dialer;

const TTL: HeaderName = HeaderName::from_static("ttl");
const URGENCY: HeaderName = HeaderName::from_static("urgency");
const TOPIC: HeaderName = HeaderName::from_static("topic");

/// An app's pushes to browsers.
pub struct WebPush {
    credential: WebPushCredential,
    dialer: Dialer,
    limits: PoolLimits,
    origins: Mutex<Origins>,
    origins_max: usize,
    origin_in_flight_max: usize,
    origin_idle_max: u64,
    in_flight_max: usize,
}

struct Origins {
    by_authority: HashMap<String, Arc<Origin>>,
    pruned_at: Millis,
}

struct Origin {
    url: HttpsUrl,
    pool: Pool,
    authority: Authority,
    host: HeaderValue,
    in_flight: AtomicUsize,
    used_at: AtomicU64,
    proof: ArcSwapOption<Proof>,
}

struct Proof {
    header: HeaderValue,
    made_at: Millis,
}

/// A notice before it is encrypted, and the headers that are the same for all.
#[derive(Debug)]
pub struct Prepared {
    push: Push,
    headers: HeaderMap,
}

impl fmt::Debug for WebPush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins = lock(&self.origins).by_authority.len();
        f.debug_struct("WebPush").field("origins", &origins).finish_non_exhaustive()
    }
}

impl WebPush {
    pub(super) fn new(credential: WebPushCredential, providers: &Providers) -> WebPush {
        let config = &providers.config;
        let limits = PoolLimits {
            connections_max: config.origin_connections_max,
            streams_max: config.origin_in_flight_max,
            keep_idle: false,
            ..PoolLimits::of_lane(config)
        };
        let idle_max = u64::try_from(config.origin_idle_max.as_millis()).unwrap_or(u64::MAX);
        WebPush {
            credential,
            dialer: providers.guarded(),
            limits,
            origins: Mutex::new(Origins { by_authority: HashMap::new(), pruned_at: Millis::ZERO }),
            origins_max: config.origins_max,
            origin_in_flight_max: config.origin_in_flight_max,
            origin_idle_max: idle_max,
            in_flight_max: config.web_push_in_flight_max,
        }
    }

    /// The origin of an endpoint, with a request of it counted; `None` if it has as many as it may, or if there are as
    /// many origins as there may be.
    fn enter(&self, now: Millis, url: &HttpsUrl) -> Option<InFlight> {
        let mut origins = lock(&self.origins);
        if now.0.abs_diff(origins.pruned_at.0) >= self.origin_idle_max {
            origins.pruned_at = now;
            origins.by_authority.retain(|_, origin| !origin.is_idle(now, self.origin_idle_max));
        }
        let name = url.authority();
        if let Some(origin) = origins.by_authority.get(&name) {
            return InFlight::new(origin.clone(), now, self.origin_in_flight_max);
        }
        if origins.by_authority.len() >= self.origins_max {
            // Whoever waits longest for work makes room.
            let idle = origins.by_authority.iter().filter(|(_, origin)| origin.is_idle(now, 0));
            let oldest = idle.min_by_key(|(_, origin)| origin.used_at.load(Ordering::Relaxed));
            let oldest = oldest.map(|(name, _)| name.clone())?;
            origins.by_authority.remove(&oldest);
        }
        let origin = Arc::new(Origin {
            url: url.clone(),
            pool: Pool::new(self.dialer.clone(), url.clone(), self.limits),
            authority: super::authority(url),
            host: super::header(&name),
            in_flight: AtomicUsize::new(0),
            used_at: AtomicU64::new(now.0),
            proof: ArcSwapOption::empty(),
        });
        origins.by_authority.insert(name, origin.clone());
        InFlight::new(origin, now, self.origin_in_flight_max)
    }

    fn proof(&self, now: Millis, origin: &Origin) -> HeaderValue {
        if let Some(proof) = &*origin.proof.load()
            && !web_push::is_renewed(now, proof.made_at)
        {
            return proof.header.clone();
        }
        let text = web_push::proof(&self.credential, &origin.url.origin(), now);
        let mut header = super::header(&text);
        header.set_sensitive(true);
        origin.proof.store(Some(Arc::new(Proof { header: header.clone(), made_at: now })));
        header
    }
}

impl Origin {
    fn is_idle(&self, now: Millis, for_ms: u64) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0
            && now.0.abs_diff(self.used_at.load(Ordering::Relaxed)) >= for_ms
    }
}

/// One request of an origin under way.
struct InFlight(Arc<Origin>);

impl InFlight {
    fn new(origin: Arc<Origin>, now: Millis, max: usize) -> Option<InFlight> {
        origin.used_at.store(now.0, Ordering::Relaxed);
        // Counted before it is compared, so that two at once cannot both take the last place.
        let entered = InFlight(origin);
        let before = entered.0.in_flight.fetch_add(1, Ordering::Relaxed);
        (before < max).then_some(entered)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

const fn failed(reason: &'static str) -> Outcome {
    Outcome::Failed { reason: Reason(reason) }
}

impl Channel for WebPush {
    type Prepared = Prepared;

    fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    fn prepare(&self, notice: &Notice) -> Result<Prepared, NoticeError> {
        let push = web_push::render(notice)?;
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(URGENCY, HeaderValue::from_static(push.urgency));
        headers.insert(TOPIC, super::header(&push.topic));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        Ok(Prepared { push, headers })
    }

    async fn send(&self, now: Millis, token: &str, prepared: &Prepared) -> Outcome {
        let subscription = match Subscription::parse(token) {
            Ok(subscription) => subscription,
            Err(SubscriptionError::Endpoint(_)) => return failed("bad_endpoint"),
            Err(_) => return failed("bad_subscription"),
        };
        let Some(entered) = self.enter(now, &subscription.endpoint) else {
            return Outcome::Busy;
        };
        let origin = &*entered.0;
        let Ok(path) = PathAndQuery::try_from(subscription.endpoint.path()) else {
            return failed("bad_endpoint");
        };
        let mut salt = [0; SALT_LEN];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut salt);
        let ours = PrivateKey::generate(&ECDH_P256).expect("the system gives random bytes");
        let Ok(body) = web_push::encrypt(&prepared.push, &subscription, salt, &ours) else {
            return failed("bad_subscription");
        };
        let proof = self.proof(now, origin);
        let ttl = prepared.push.ttl(now);
        let sent = origin
            .pool
            .send(|protocol| {
                let mut request = Request::new(body.clone());
                *request.method_mut() = Method::POST;
                let mut headers = prepared.headers.clone();
                headers.insert(TTL, ttl.into());
                headers.insert(AUTHORIZATION, proof.clone());
                match protocol {
                    Protocol::Http2 => {
                        *request.version_mut() = Version::HTTP_2;
                        *request.uri_mut() = super::uri(origin.authority.clone(), path.clone());
                    }
                    Protocol::Http1 => {
                        *request.uri_mut() = path.clone().into();
                        headers.insert(HOST, origin.host.clone());
                    }
                }
                *request.headers_mut() = headers;
                request
            })
            .await;
        match sent {
            Ok(reply) => web_push::classify(reply.status, retry_after(now, &reply)),
            Err(lost) => lost.outcome(Scope::Target),
        }
    }
}
