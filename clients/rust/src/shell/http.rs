//! One keep-alive HTTP/1.1 connection to one edge.
//!
//! No pool and no task of its own: the connection is driven by whoever waits for its answer, so that a process can
//! hold thousands of devices for little more than their sockets.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tls::ClientTls;
use crate::core::{ANSWER_BYTES_MAX, FailureKind};

/// An answer's headers fit many times; bodies are read in pieces and do not count.
const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Where an edge is: `https://host:port`, or `http://host:port` behind something that speaks TLS, and for tests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EdgeUrl {
    tls: bool,
    host: Arc<str>,
    port: u16,
}

/// The text is not an edge's address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an edge is http://host[:port] or https://host[:port], not {given:?}")]
pub struct EdgeUrlError {
    given: String,
}

impl FromStr for EdgeUrl {
    type Err = EdgeUrlError;

    fn from_str(text: &str) -> Result<EdgeUrl, EdgeUrlError> {
        let error = || EdgeUrlError { given: text.to_owned() };
        let uri: http::Uri = text.parse().map_err(|_| error())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(error()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(error)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(error());
        }
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(EdgeUrl { tls, host: host.into(), port })
    }
}

impl fmt::Display for EdgeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl EdgeUrl {
    /// Whether it is asked by TLS.
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host as `connect` and TLS want it, without the brackets of an IPv6 address.
    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// A request brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("connect to {edge}")]
    Connect { edge: EdgeUrl, source: std::io::Error },
    #[error("talk to the edge")]
    Http(#[source] hyper::Error),
    #[error("the answer has more than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    #[error("no answer in {0:?}")]
    Timeout(Duration),
}

impl TransportError {
    pub(super) fn kind(&self) -> FailureKind {
        match self {
            TransportError::Connect { .. } => FailureKind::Connect,
            TransportError::Http(_) => FailureKind::Broken,
            TransportError::TooLarge => FailureKind::TooLarge,
            TransportError::Timeout(_) => FailureKind::Timeout,
        }
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Driver = http1::Connection<TokioIo<Box<dyn Io>>, Full<Bytes>>;

struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` once it has ended.
    driver: Option<Pin<Box<Driver>>>,
}

impl Connection {
    /// Waits for `work`, which needs the connection to be driven meanwhile.
    async fn drive<F: Future>(driver: &mut Option<Pin<Box<Driver>>>, work: F) -> F::Output {
        let mut work = pin!(work);
        if let Some(running) = driver {
            tokio::select! {
                biased;
                output = &mut work => return output,
                // What it has read before it ended still reaches `work`, as does its error.
                _ = running => {}
            }
            *driver = None;
        }
        work.await
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, TransportError> {
        let Connection { sender, driver } = self;
        let work = async {
            sender.ready().await.map_err(TransportError::Http)?;
            let (head, body) =
                sender.send_request(request).await.map_err(TransportError::Http)?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(body_error)?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        Connection::drive(driver, work).await
    }
}

fn body_error(error: Box<dyn std::error::Error + Send + Sync>) -> TransportError {
    match error.downcast::<hyper::Error>() {
        Ok(error) => TransportError::Http(*error),
        Err(other) => {
            debug_assert!(other.is::<LengthLimitError>(), "a limited body fails in two ways");
            TransportError::TooLarge
        }
    }
}

/// Sends requests to one edge, one at a time, and keeps the connection between them.
pub struct HttpTransport {
    edge: EdgeUrl,
    tls: Option<ClientTls>,
    connection: Option<Connection>,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connected = self.connection.is_some();
        f.debug_struct("HttpTransport")
            .field("edge", &self.edge)
            .field("connected", &connected)
            .finish()
    }
}

impl HttpTransport {
    /// Connects with the first request. `tls` is needed for an `https` edge.
    pub fn new(edge: EdgeUrl, tls: Option<ClientTls>) -> HttpTransport {
        HttpTransport { edge, tls, connection: None }
    }

    /// Sends any request (its URI is the path) and waits at most `timeout` for the whole answer.
    ///
    /// A request on a connection that was kept and turns out to be closed is sent once more on another. Dropping the
    /// future closes the connection.
    ///
    /// # Errors
    /// If no answer came, or not all of it, or not in time.
    pub async fn request(
        &mut self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, TransportError> {
        tokio::time::timeout(timeout, self.exchange(request))
            .await
            .unwrap_or(Err(TransportError::Timeout(timeout)))
    }

    /// [`HttpTransport::request`] without a limit of time, for a caller that has one.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, TransportError> {
        let mut request = request.map(Full::new);
        let host = HeaderValue::from_str(&format!("{}:{}", self.edge.host, self.edge.port))
            .expect("the host was parsed as part of a URI");
        request.headers_mut().insert(HOST, host);
        if let Some(kept) = self.connection.take() {
            match self.exchange_on(kept, request.clone()).await {
                Err(TransportError::Http(error)) if closed_before_answer(&error) => {}
                result => return result,
            }
        }
        let connection = connect(&self.edge, self.tls.as_ref()).await?;
        self.exchange_on(connection, request).await
    }

    /// Keeps the connection if all went well.
    async fn exchange_on(
        &mut self,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, TransportError> {
        let response = connection.exchange(request).await?;
        if connection.driver.is_some() {
            self.connection = Some(connection);
        }
        Ok(response)
    }
}

async fn connect(edge: &EdgeUrl, tls: Option<&ClientTls>) -> Result<Connection, TransportError> {
    let io = open(edge, tls)
        .await
        .map_err(|source| TransportError::Connect { edge: edge.clone(), source })?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(READ_BUFFER_BYTES_MAX);
    let (sender, driver) =
        builder.handshake(TokioIo::new(io)).await.map_err(TransportError::Http)?;
    Ok(Connection { sender, driver: Some(Box::pin(driver)) })
}

async fn open(edge: &EdgeUrl, tls: Option<&ClientTls>) -> std::io::Result<Box<dyn Io>> {
    use std::io::{Error, ErrorKind};

    let tcp = TcpStream::connect((edge.bare_host(), edge.port)).await?;
    tcp.set_nodelay(true)?;
    if !edge.tls {
        return Ok(Box::new(tcp));
    }
    let tls = tls.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "nobody is trusted"))?;
    let name = ServerName::try_from(edge.bare_host().to_owned())
        .map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
    Ok(Box::new(TlsConnector::from(tls.config()).connect(name, tcp).await?))
}

/// A server may close a kept connection just as a request is on its way; then it has not answered it.
fn closed_before_answer(error: &hyper::Error) -> bool {
    error.is_canceled() || error.is_closed() || error.is_incomplete_message()
}
