//! A client that sends what it is told, right or wrong.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use carillon_tests::providers::{Simulator, use_aws_lc_rs};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A request that can be changed in every part.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn remove(&mut self, name: &str) {
        self.headers.retain(|(known, _)| known != name);
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.add(name, value);
    }

    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_owned(), value.to_owned()));
    }
}

#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    sender: http2::SendRequest<Full<Bytes>>,
    authority: String,
    /// How the connection ended.
    pub(crate) ended: JoinHandle<Result<(), hyper::Error>>,
}

/// A TLS connection to a simulator that offers these protocols.
pub(crate) async fn tls(
    simulator: &Simulator,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    static CRYPTO: std::sync::Once = std::sync::Once::new();
    CRYPTO.call_once(use_aws_lc_rs);
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(simulator.ca()).expect("a certificate");
    roots.add(authority).expect("an authority");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(("127.0.0.1", simulator.port())).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

impl Client {
    pub(crate) async fn connect(simulator: &Simulator) -> Client {
        Client::try_connect(simulator).await.expect("a connection")
    }

    pub(crate) async fn try_connect(simulator: &Simulator) -> std::io::Result<Client> {
        let stream = tls(simulator, &["h2"]).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        let authority = format!("localhost:{}", simulator.port());
        Ok(Client { sender, authority, ended: tokio::spawn(connection) })
    }

    pub(crate) async fn send(&self, asked: &Asked) -> Result<Answered, hyper::Error> {
        let uri = format!("https://{}{}", self.authority, asked.path);
        let mut request = Request::builder().method(asked.method.as_str()).uri(uri);
        for (name, value) in &asked.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::from(asked.body.clone())).expect("a request");
        let mut sender = self.sender.clone();
        let exchange = async {
            sender.ready().await?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answered { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
    }

    /// # Panics
    /// If no answer comes.
    pub(crate) async fn ask(&self, asked: &Asked) -> Answered {
        self.send(asked).await.expect("an answer")
    }
}

/// One connection for one request.
pub(crate) async fn ask(simulator: &Simulator, asked: &Asked) -> Answered {
    Client::connect(simulator).await.ask(asked).await
}

pub(crate) fn now_s() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn pkcs8(pem: &str) -> Vec<u8> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key").secret_der().to_vec()
}

/// A token by an elliptic key, in PKCS #8 PEM.
pub(crate) fn es256(key: &str, header: &Value, claims: &Value) -> String {
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8(key)).expect("a key");
    let text = unsigned(header, claims);
    let signature = pair.sign(&SystemRandom::new(), text.as_bytes()).expect("randomness");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A token by an RSA key, in PKCS #8 PEM.
pub(crate) fn rs256(key: &str, header: &Value, claims: &Value) -> String {
    let pair = RsaKeyPair::from_pkcs8(&pkcs8(key)).expect("a key");
    let text = unsigned(header, claims);
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
        .expect("randomness");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
