//! Connections that central opens: to hosts of the operator's choosing, and to those of somebody else's.
//!
//! The second kind goes through [`Rules`] (see `core/outbound.rs` for what they allow): the host is resolved once, all
//! its addresses are checked, and the connection goes to one of the addresses that were checked, so that a name which
//! answers differently a moment later gains nothing. One forbidden address among several forbids the host. Nothing here
//! follows redirects, and no proxy of the environment is used.
//!
//! There is no third kind: whatever opens a socket outwards does it by [`Dialer::dial`].

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::core::outbound::{Host, HttpsUrl, Rules};

/// Addresses of one name that are tried at most.
const ADDRESSES_MAX: usize = 4;
/// Addresses of one name that are looked at; a name with more is not connected to.
const ANSWERS_MAX: usize = 64;

/// Names to addresses; a trait because tests need names that answer as they say.
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// All addresses of a name.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The operating system's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Why there is no connection. It names no address: what a name resolves to inside is not for who gave the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The rules do not allow the port.
    #[error("the port is not allowed")]
    Port,
    /// The host is, or resolves to, an address that the rules do not allow.
    #[error("the address is not allowed")]
    Address,
    #[error("the name does not resolve")]
    Resolve,
    #[error("the host does not answer")]
    Connect,
    #[error("the host's certificate or TLS cannot be used")]
    Tls,
    #[error("the host took too long")]
    Timeout,
}

/// Opens TLS connections.
#[derive(Clone)]
pub struct Dialer {
    /// `None` for hosts that the operator configured.
    rules: Option<Rules>,
    resolver: Arc<dyn Resolve>,
    tls: TlsConnector,
    timeout: Duration,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Dialer {
    /// For hosts that the operator configured.
    pub fn trusted(
        resolver: Arc<dyn Resolve>,
        tls: Arc<ClientConfig>,
        timeout: Duration,
    ) -> Dialer {
        Dialer { rules: None, resolver, tls: tls.into(), timeout }
    }

    /// For hosts that anybody else named.
    pub fn guarded(
        rules: Rules,
        resolver: Arc<dyn Resolve>,
        tls: Arc<ClientConfig>,
        timeout: Duration,
    ) -> Dialer {
        Dialer { rules: Some(rules), resolver, tls: tls.into(), timeout }
    }

    /// Resolves, checks, connects and shakes hands, in bounded time together.
    ///
    /// # Errors
    /// [`DialError`]; of [`DialError::Port`] and [`DialError::Address`] no packet went out.
    pub async fn dial(&self, url: &HttpsUrl) -> Result<TlsStream<TcpStream>, DialError> {
        tokio::time::timeout(self.timeout, self.connect(url))
            .await
            .unwrap_or(Err(DialError::Timeout))
    }

    async fn connect(&self, url: &HttpsUrl) -> Result<TlsStream<TcpStream>, DialError> {
        let addresses = self.addresses(url).await?;
        let mut stream = Err(DialError::Resolve);
        for address in addresses.iter().take(ADDRESSES_MAX) {
            let socket = SocketAddr::new(*address, url.port());
            // A dead address leaves time for the next one.
            let wait = self.timeout / 2;
            stream = match tokio::time::timeout(wait, TcpStream::connect(socket)).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(_)) => Err(DialError::Connect),
                Err(_) => Err(DialError::Timeout),
            };
            if stream.is_ok() {
                break;
            }
        }
        let stream = stream?;
        // Small requests, many at a time: HTTP/2 gathers them itself.
        let _ = stream.set_nodelay(true);
        let name = match url.host() {
            Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
                .map_err(|_| DialError::Tls)?,
            Host::Address(address) => ServerName::from(*address),
        };
        self.tls.connect(name, stream).await.map_err(|_| DialError::Tls)
    }

    /// What may be connected to: never empty.
    async fn addresses(&self, url: &HttpsUrl) -> Result<Vec<IpAddr>, DialError> {
        if self.rules.as_ref().is_some_and(|rules| !rules.ports.contains(&url.port())) {
            return Err(DialError::Port);
        }
        let addresses = match url.host() {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                self.resolver.resolve(name).await.map_err(|_| DialError::Resolve)?
            }
        };
        if addresses.is_empty() || addresses.len() > ANSWERS_MAX {
            return Err(DialError::Resolve);
        }
        match &self.rules {
            Some(rules) if !addresses.iter().all(|address| rules.allow(*address)) => {
                Err(DialError::Address)
            }
            _ => Ok(addresses),
        }
    }
}
