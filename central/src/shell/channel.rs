//! Channels: how a push reaches a provider.
//!
//! A channel is what differs between providers and nothing else: no retries of its own, no queue, no store, no counting.
//! Whom to push, when, how often and what follows from an answer is the pusher's. The pure half of each channel, its
//! formats and what its answers mean, is in `core/channel/`; here are the connections.
//!
//! # A channel of one's own
//!
//! One that posts to a gateway would be about this long. `Prepared` is what is made once a notice; [`Channel::send`] is
//! called with it some thousand times at once, so what can be made before belongs there.
//!
//! ```
//! use std::io::Write as _;
//! use std::path::PathBuf;
//! use std::sync::Mutex;
//!
//! use carillon_central::channel::Channel;
//! use carillon_central::core::channel::{Notice, NoticeError, Outcome, Reason, Scope};
//! use carillon_world::Millis;
//!
//! /// Writes a line a push into a file that another program reads.
//! #[derive(Debug)]
//! struct Spool {
//!     file: Mutex<std::fs::File>,
//! }
//!
//! impl Channel for Spool {
//!     type Prepared = String;
//!
//!     fn in_flight_max(&self) -> usize {
//!         1
//!     }
//!
//!     fn prepare(&self, notice: &Notice) -> Result<String, NoticeError> {
//!         let text = notice.text.as_ref().map_or("wake", |text| &text.body);
//!         let (bytes, bytes_max) = (text.len(), 1000);
//!         if bytes > bytes_max {
//!             return Err(NoticeError::TooLarge { channel: "spool", bytes, bytes_max });
//!         }
//!         Ok(format!("{} {text}", notice.collapse))
//!     }
//!
//!     async fn send(&self, _now: Millis, token: &str, prepared: &String) -> Outcome {
//!         // Tokens come from devices: each channel knows what one may look like.
//!         if !token.bytes().all(|b| b.is_ascii_alphanumeric()) {
//!             return Outcome::Failed { reason: Reason("bad_token") };
//!         }
//!         let mut file = self.file.lock().expect("nothing panics while it is held");
//!         match writeln!(file, "{token} {prepared}") {
//!             Ok(()) => Outcome::Accepted,
//!             // The disk is full for everybody.
//!             Err(_) => Outcome::Later {
//!                 after: None,
//!                 scope: Scope::Channel,
//!                 reason: Reason("spool_full"),
//!             },
//!         }
//!     }
//! }
//!
//! # let path = std::env::temp_dir().join(format!("carillon-spool-{}", std::process::id()));
//! # let spool = Spool { file: Mutex::new(std::fs::File::create(&path).unwrap()) };
//! # let notice = Notice {
//! #     message: carillon_world::MessageId::new(1),
//! #     text: None,
//! #     collapse: "wake".into(),
//! #     priority: carillon_world::Priority::Normal,
//! #     expires_at: Millis(1_000),
//! #     overrides: Default::default(),
//! # };
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # let prepared = spool.prepare(&notice).unwrap();
//! # let sent = |token: &'static str| runtime.block_on(spool.send(Millis(0), token, &prepared));
//! # assert_eq!(sent("d1"), Outcome::Accepted);
//! # assert!(matches!(sent("a b"), Outcome::Failed { .. }));
//! # assert_eq!(std::fs::read_to_string(&path).unwrap(), "d1 wake wake\n");
//! # std::fs::remove_file(&path).unwrap();
//! ```
//!
//! To wire it in:
//!
//! 1. a variant of `carillon_world::PushChannel`, which devices' tokens and apps' credentials are filed under;
//! 2. a variant of [`Credential`], with what its JSON holds and how its key is tried;
//! 3. a variant of [`AnyChannel`], of [`AnyPrepared`], and a line in [`open`];
//! 4. where it connects, in [`ProviderConfig`]; a host that somebody else names goes through
//!    [`Dialer::guarded`](crate::outbound::Dialer::guarded).
//!
//! The compiler names every `match` that lacks the variant.

mod apns;
mod fcm;
pub(super) mod pool;
mod web_push;

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use carillon_world::{Environment, Millis};
use http::Uri;
use http::header::HeaderValue;
use http::uri::{Authority, PathAndQuery, Scheme};
use rustls::ClientConfig;

use self::apns::ProviderTokens;
use self::pool::Reply;
use super::outbound::{Dialer, Resolve, SystemResolver};
use super::tls;
use crate::config::{ProviderConfig, StoreConfig};
use crate::core::channel::credential::Credential;
use crate::core::channel::{Notice, NoticeError, Outcome};
use crate::core::outbound::{HttpsUrl, Rules};
use crate::error::CentralError;

pub use self::apns::{Apns, Prepared as ApnsPrepared};
pub use self::fcm::Fcm;
pub use self::web_push::{Prepared as WebPushPrepared, WebPush};

/// One provider under one credential.
pub trait Channel: Debug + Send + Sync + 'static {
    /// A notice in the provider's format, made once and sent to many.
    type Prepared: Debug + Send + Sync + 'static;

    /// How many [`send`](Channel::send)s may be under way at a time.
    fn in_flight_max(&self) -> usize;

    /// # Errors
    /// If the provider would not take it, whoever it is for.
    fn prepare(&self, notice: &Notice) -> Result<Self::Prepared, NoticeError>;

    /// Hands a notice to the provider for one token. It ends in bounded time, and whatever goes wrong is an outcome.
    /// Dropping the future gives the push up, which the provider may have taken by then.
    fn send(
        &self,
        now: Millis,
        token: &str,
        prepared: &Self::Prepared,
    ) -> impl Future<Output = Outcome> + Send;
}

/// What all apps' channels share: roots of trust, the resolver, and the teams' provider tokens, of which the store knows
/// when they were made. One a process.
#[derive(Debug)]
pub struct Providers {
    config: ProviderConfig,
    resolver: Arc<dyn Resolve>,
    /// To the operator's providers, HTTP/2 alone.
    trusted: Dialer,
    /// To push services of devices' choosing.
    tls_any: Arc<ClientConfig>,
    apns_tokens: ProviderTokens,
}

impl Providers {
    /// # Errors
    /// If the file of certificates cannot be read or used.
    pub fn new(config: ProviderConfig, store: StoreConfig) -> Result<Providers, CentralError> {
        Providers::with_resolver(config, store, Arc::new(SystemResolver))
    }

    /// With names that resolve as `resolver` says.
    ///
    /// # Errors
    /// If the file of certificates cannot be read or used.
    pub fn with_resolver(
        config: ProviderConfig,
        store: StoreConfig,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Providers, CentralError> {
        let roots = tls::roots(config.ca_file.as_deref())?;
        let tls_h2 = tls::client(roots.clone(), &[b"h2"]);
        let tls_any = tls::client(roots, &[b"h2", b"http/1.1"]);
        let trusted = Dialer::trusted(resolver.clone(), tls_h2, config.connect_timeout);
        let apns_tokens = ProviderTokens::new(store)?;
        Ok(Providers { config, resolver, trusted, tls_any, apns_tokens })
    }

    /// To hosts that somebody else named.
    pub fn guarded(&self) -> Dialer {
        let rules = Rules {
            ports: self.config.web_push_ports.as_slice().into(),
            private_networks: self.config.private_networks.as_slice().into(),
        };
        Dialer::guarded(
            rules,
            self.resolver.clone(),
            self.tls_any.clone(),
            self.config.connect_timeout,
        )
    }
}

/// Opens the channel of an app's credential. No connection is made before the first push.
pub fn open(credential: Credential, environment: Environment, providers: &Providers) -> AnyChannel {
    match credential {
        Credential::Apns(credential) => {
            AnyChannel::Apns(Apns::new(credential, environment, providers))
        }
        Credential::Fcm(credential) => AnyChannel::Fcm(Fcm::new(credential, providers)),
        Credential::WebPush(credential) => AnyChannel::WebPush(WebPush::new(credential, providers)),
    }
}

/// One of the channels that there are, so that who pushes holds one type.
#[derive(Debug)]
pub enum AnyChannel {
    Apns(Apns),
    Fcm(Fcm),
    WebPush(WebPush),
}

/// What an [`AnyChannel`] prepared; it goes back to the same one.
#[derive(Debug)]
pub enum AnyPrepared {
    Apns(<Apns as Channel>::Prepared),
    Fcm(<Fcm as Channel>::Prepared),
    WebPush(<WebPush as Channel>::Prepared),
}

impl Channel for AnyChannel {
    type Prepared = AnyPrepared;

    fn in_flight_max(&self) -> usize {
        match self {
            AnyChannel::Apns(channel) => channel.in_flight_max(),
            AnyChannel::Fcm(channel) => channel.in_flight_max(),
            AnyChannel::WebPush(channel) => channel.in_flight_max(),
        }
    }

    fn prepare(&self, notice: &Notice) -> Result<AnyPrepared, NoticeError> {
        Ok(match self {
            AnyChannel::Apns(channel) => AnyPrepared::Apns(channel.prepare(notice)?),
            AnyChannel::Fcm(channel) => AnyPrepared::Fcm(channel.prepare(notice)?),
            AnyChannel::WebPush(channel) => AnyPrepared::WebPush(channel.prepare(notice)?),
        })
    }

    /// # Panics
    /// If another kind of channel prepared it.
    async fn send(&self, now: Millis, token: &str, prepared: &AnyPrepared) -> Outcome {
        match (self, prepared) {
            (AnyChannel::Apns(channel), AnyPrepared::Apns(prepared)) => {
                channel.send(now, token, prepared).await
            }
            (AnyChannel::Fcm(channel), AnyPrepared::Fcm(prepared)) => {
                Box::pin(channel.send(now, token, prepared)).await
            }
            // Its future is much larger than the others, and each of some thousand pushes would be as large.
            (AnyChannel::WebPush(channel), AnyPrepared::WebPush(prepared)) => {
                Box::pin(channel.send(now, token, prepared)).await
            }
            _ => unreachable!("a notice is sent over the channel that prepared it"),
        }
    }
}

pub(super) fn retry_after(now: Millis, reply: &Reply) -> Option<Duration> {
    crate::core::channel::retry_after(now, reply.retry_after()?)
}

pub(super) fn authority(url: &HttpsUrl) -> Authority {
    Authority::try_from(url.authority()).expect("a URL's host and port make an authority")
}

pub(super) fn uri(authority: Authority, path: PathAndQuery) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(authority);
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).expect("all three parts are there")
}

/// Of text whose characters were checked: credentials, collapse ids, what we signed.
pub(super) fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
