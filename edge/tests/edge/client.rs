//! A device's side: plain HTTP/1.1 or TLS with a chosen protocol, one request a connection unless a test keeps it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const SECRET: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON in {self:?}"))
    }

    pub(crate) fn text(&self, member: &str) -> String {
        self.json()[member].as_str().unwrap_or_else(|| panic!("no {member} in {self:?}")).to_owned()
    }

    /// Status and the problem's code.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        (self.status, self.text("code"))
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        let json = self.json();
        let messages = json["messages"].as_array().expect("messages");
        messages.iter().map(|message| message["id"].as_str().expect("an id").to_owned()).collect()
    }
}

pub(crate) fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body.to_owned())).expect("a request")
}

/// Sends one request on a connection of its own.
pub(crate) async fn send(
    to: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Reply, hyper::Error> {
    let stream = TcpStream::connect(to).await.expect("the edge listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    read(sender.send_request(request).await?).await
}

pub(crate) async fn read(
    response: http::Response<hyper::body::Incoming>,
) -> Result<Reply, hyper::Error> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    assert_eq!(head.headers["cache-control"], "no-store");
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
}

/// A client's TLS settings; connections made with the same one share tickets.
pub(crate) fn tls(certificate: Vec<u8>, alpn: &[u8]) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(certificate)).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

pub(crate) async fn connect_tls(
    to: SocketAddr,
    config: &Arc<rustls::ClientConfig>,
) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(to).await.expect("the edge listens");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(config.clone()).connect(name, stream).await.expect("a handshake")
}

pub(crate) async fn send_h1(stream: TlsStream<TcpStream>, request: Request<Full<Bytes>>) -> Reply {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    read(sender.send_request(request).await.expect("an answer")).await.expect("a body")
}

pub(crate) async fn h2(
    stream: TlsStream<TcpStream>,
) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a connection");
    tokio::spawn(connection);
    sender
}

pub(crate) async fn send_h2(stream: TlsStream<TcpStream>, request: Request<Full<Bytes>>) -> Reply {
    let mut sender = h2(stream).await;
    read(sender.send_request(request).await.expect("an answer")).await.expect("a body")
}
