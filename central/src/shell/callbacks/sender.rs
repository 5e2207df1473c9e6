//! Calls an endpoint: a signed POST by the guard, and what its answer means.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use carillon_persist::CallbackRow;
use carillon_world::Millis;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Version};

use crate::config::CallbackConfig;
use crate::core::callback::delivery::Outcome;
use crate::core::callback::render::excerpt;
use crate::core::callback::secret::CallbackSecret;
use crate::core::channel::credential::CredentialKeys;
use crate::core::outbound::{Host, HttpsUrl, Rules};
use crate::error::CentralError;
use crate::shell::channel::pool::{Lost, Pool, PoolLimits, Protocol, Reply};
use crate::shell::channel::{authority, header, retry_after, uri};
use crate::shell::outbound::{Dialer, Resolve, SystemResolver};
use crate::shell::tls;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const AGENT: &str = concat!("carillon/", env!("CARGO_PKG_VERSION"));

/// What all endpoints share: roots of trust, the rules of where to, the keys that secrets are sealed under.
#[derive(Debug)]
pub struct CallbackSender {
    dialer: Dialer,
    rules: Rules,
    limits: PoolLimits,
    keys: Option<Arc<CredentialKeys>>,
}

/// The connections to one endpoint.
pub struct Line {
    pool: Pool,
    authority: Authority,
    host: HeaderValue,
    path: PathAndQuery,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Called {
    pub outcome: Outcome,
    pub status: Option<u16>,
    pub took: std::time::Duration,
}

/// What an endpoint is to be given.
#[derive(Clone, Debug)]
pub struct Call {
    /// Names the event: of a repeat it is the same.
    pub id: Arc<str>,
    pub body: Bytes,
}

impl CallbackSender {
    /// # Errors
    /// If the file of certificates cannot be read or used.
    pub fn new(
        config: &CallbackConfig,
        keys: Option<Arc<CredentialKeys>>,
    ) -> Result<CallbackSender, CentralError> {
        CallbackSender::with_resolver(config, keys, Arc::new(SystemResolver))
    }

    /// With names that resolve as `resolver` says.
    ///
    /// # Errors
    /// If the file of certificates cannot be read or used.
    pub fn with_resolver(
        config: &CallbackConfig,
        keys: Option<Arc<CredentialKeys>>,
        resolver: Arc<dyn Resolve>,
    ) -> Result<CallbackSender, CentralError> {
        let tls = tls::client(tls::roots(config.ca_file.as_deref())?, &[b"h2", b"http/1.1"]);
        let rules = Rules {
            ports: config.ports.as_slice().into(),
            private_networks: config.private_networks.as_slice().into(),
        };
        let limits = PoolLimits {
            connections_max: config.concurrency,
            streams_max: config.concurrency,
            request_timeout: config.request_timeout,
            reply_bytes_max: config.reply_bytes_max,
            keep_alive_interval: config.request_timeout,
            keep_alive_timeout: config.request_timeout,
            keep_idle: false,
        };
        let dialer = Dialer::guarded(rules.clone(), resolver, tls, config.connect_timeout);
        Ok(CallbackSender { dialer, rules, limits, keys })
    }

    /// The URL of an endpoint, if it may be called as far as that can be told without resolving its name.
    ///
    /// # Errors
    /// Why not, in words that do not quote it.
    pub fn check(&self, url: &str) -> Result<HttpsUrl, String> {
        let url: HttpsUrl = url.parse().map_err(|error| format!("`url`: {error}"))?;
        if PathAndQuery::try_from(url.path()).is_err() {
            return Err("`url`: the path is not one".to_owned());
        }
        if !self.rules.ports.contains(&url.port()) {
            return Err("`url`: the port is not allowed; see callbacks.ports".to_owned());
        }
        if matches!(url.host(), Host::Address(address) if !self.rules.allow(*address)) {
            let why = "the address is not a public one; see callbacks.private_networks";
            return Err(format!("`url`: {why}"));
        }
        Ok(url)
    }

    /// Connects to nobody yet.
    ///
    /// # Errors
    /// As [`CallbackSender::check`].
    pub fn line(&self, url: &str) -> Result<Line, String> {
        let url = self.check(url)?;
        let path = PathAndQuery::try_from(url.path()).map_err(|error| error.to_string())?;
        let (authority, host) = (authority(&url), header(&url.authority()));
        Ok(Line { pool: Pool::new(self.dialer.clone(), url, self.limits), authority, host, path })
    }

    /// The secrets that an endpoint's calls are signed with at this time.
    ///
    /// # Errors
    /// In words without secrets.
    pub fn secrets(&self, row: &CallbackRow, now: Millis) -> Result<Vec<CallbackSecret>, String> {
        let keys = self.keys.as_ref().ok_or("central has no key that secrets open with")?;
        let live = row.secrets.iter().filter(|of| of.until.is_none_or(|until| until > now));
        let open = |sealed: &[u8]| keys.open_callback(row.app, row.id.get(), sealed);
        live.map(|of| open(&of.sealed).map(CallbackSecret::from_bytes))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{error}; rotate the secret"))
    }

    /// Calls an endpoint, and ends in bounded time.
    pub async fn call(&self, line: &Line, secrets: &[CallbackSecret], call: &Call) -> Called {
        let at = system_time().0 / 1000;
        let signatures: Vec<String> =
            secrets.iter().map(|secret| secret.sign(&call.id, at, &call.body)).collect();
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(WEBHOOK_ID, header(&call.id));
        headers.insert(WEBHOOK_TIMESTAMP, at.into());
        headers.insert(WEBHOOK_SIGNATURE, header(&signatures.join(" ")));
        let began = Instant::now();
        let sent = line.pool.send(|protocol| {
            let mut request = Request::new(call.body.clone());
            *request.method_mut() = Method::POST;
            *request.headers_mut() = headers.clone();
            match protocol {
                Protocol::Http2 => {
                    *request.version_mut() = Version::HTTP_2;
                    *request.uri_mut() = uri(line.authority.clone(), line.path.clone());
                }
                Protocol::Http1 => {
                    *request.uri_mut() = line.path.clone().into();
                    request.headers_mut().insert(HOST, line.host.clone());
                }
            }
            request
        });
        let sent = sent.await;
        let took = began.elapsed();
        match sent {
            Ok(reply) => {
                let outcome = classify(system_time(), &reply);
                Called { status: Some(reply.status), outcome, took }
            }
            Err(lost) => {
                let error = lost_error(lost).into();
                Called { status: None, outcome: Outcome::Failed { error, after: None }, took }
            }
        }
    }
}

/// This machine's time, which the other side compares with its own. The committed clock may be off by any amount, for
/// instance after a machine was suspended.
fn system_time() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn classify(now: Millis, reply: &Reply) -> Outcome {
    if (200..300).contains(&reply.status) {
        return Outcome::Delivered;
    }
    let said = excerpt(&String::from_utf8_lossy(&reply.body));
    let said = if said.is_empty() { said } else { format!(": {said}") };
    let error = format!("HTTP status {}{said}", reply.status).into();
    match reply.status {
        410 => Outcome::Gone { error },
        429 | 503 => {
            let after = retry_after(now, reply).map(|wait| wait.as_millis() as u64);
            Outcome::Failed { error, after }
        }
        _ => Outcome::Failed { error, after: None },
    }
}

fn lost_error(lost: Lost) -> String {
    match lost {
        Lost::Dial(error) => error.to_string(),
        Lost::Connection => "the connection was lost".to_owned(),
        Lost::Reset => "the request was reset".to_owned(),
        Lost::Timeout => "no answer in time".to_owned(),
    }
}
