//! Commands that are clients of a running central: where its admin API is, and what is shown to be let in.
//!
//! They run wherever central can be reached, and have no configuration but the address and the token.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, io};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, pem};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tiers::parts::ADMIN_TOKEN;

const URL_VARIABLE: &str = "CARILLON_ADMIN_URL";
const TOKEN_VARIABLE: &str = "CARILLON_ADMIN_TOKEN";
const URL: &str = "http://127.0.0.1:7700";

/// Where `up` and `central` make the token unless they are told otherwise.
const DATA: &str = "carillon-data";

/// What such a command can be told of central.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Remote {
    /// Where the admin API is. Not given: CARILLON_ADMIN_URL, or http://127.0.0.1:7700.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File of the admin API's token. Not given: the token itself in CARILLON_ADMIN_TOKEN, or
    /// carillon-data/admin.token.
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// Certificate authorities (PEM) that an https URL is trusted by.
    #[arg(long, value_name = "PATH")]
    ca_file: Option<PathBuf>,
}

/// Central did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    #[error("expected http://HOST[:PORT] or https://HOST[:PORT], not {given:?}")]
    Url { given: String },
    #[error("give --ca-file, which an https URL is trusted by")]
    NoAuthority,
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} holds no certificates in PEM", path.display())]
    Pem { path: PathBuf, source: pem::Error },
    #[error("use {}", path.display())]
    Authority { path: PathBuf, source: rustls::Error },
    #[error("the token has characters that no header can hold")]
    Token,
    #[error("connect to {url}")]
    Connect { url: String, source: io::Error },
    #[error("talk to central")]
    Talk(#[from] hyper::Error),
    #[error("central refused with {status}: {told}")]
    Refused { status: StatusCode, told: String },
    #[error("central's answer ended early")]
    CutAnswer,
    #[error("no answer in {0:?}")]
    Silent(Duration),
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Remote {
    /// A POST that shows the token.
    ///
    /// # Errors
    /// If there is no token, or one that no header can hold.
    pub(crate) fn post<B>(
        &self,
        path: &str,
        kind: &'static str,
        accept: &'static str,
        body: B,
    ) -> Result<Request<B>, RemoteError> {
        let token = format!("Bearer {}", self.token()?);
        Request::post(path)
            .header("authorization", token)
            .header("content-type", kind)
            .header("accept", accept)
            .body(body)
            .map_err(|_| RemoteError::Token)
    }

    /// Sends it over a connection of its own, and gives the answer if it is a good one.
    ///
    /// # Errors
    /// If central cannot be reached or refuses.
    pub(crate) async fn send<B>(
        &self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, RemoteError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let url = self.url()?;
        let authority = url.authority().expect("it was looked for").as_str();
        let host = authority.parse().map_err(|_| RemoteError::Url { given: url.to_string() })?;
        request.headers_mut().insert("host", host);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(self.connect(&url).await?)).await?;
        // It ends by itself when the sender is gone and the answer was read.
        tokio::spawn(connection);
        let answer = sender.send_request(request).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        Err(RemoteError::Refused { status, told: told(&body) })
    }

    async fn connect(&self, url: &Uri) -> Result<Box<dyn Io>, RemoteError> {
        let failed = |source| RemoteError::Connect { url: url.to_string(), source };
        let host = url.host().expect("it was looked for");
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_tls = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tls = if is_tls { Some(self.tls()?) } else { None };
        let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
        let Some(tls) = tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| RemoteError::Url { given: url.to_string() })?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await;
        Ok(Box::new(stream.map_err(failed)?))
    }

    fn tls(&self) -> Result<ClientConfig, RemoteError> {
        let path = self.ca_file.clone().ok_or(RemoteError::NoAuthority)?;
        let text =
            fs::read(&path).map_err(|source| RemoteError::Read { path: path.clone(), source })?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate =
                certificate.map_err(|source| RemoteError::Pem { path: path.clone(), source })?;
            roots
                .add(certificate)
                .map_err(|source| RemoteError::Authority { path: path.clone(), source })?;
        }
        if roots.is_empty() {
            return Err(RemoteError::Pem { path, source: pem::Error::NoItemsFound });
        }
        Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }

    fn url(&self) -> Result<Uri, RemoteError> {
        let given = self.url.clone().or_else(|| env::var(URL_VARIABLE).ok());
        let given = given.unwrap_or_else(|| URL.to_owned());
        let url: Option<Uri> = given.parse().ok();
        let good = |url: &Uri| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.host().is_some_and(|host| !host.is_empty())
                && matches!(url.path(), "" | "/")
                && url.query().is_none()
        };
        url.filter(good).ok_or(RemoteError::Url { given })
    }

    fn token(&self) -> Result<String, RemoteError> {
        let given = env::var(TOKEN_VARIABLE).ok().filter(|_| self.token_file.is_none());
        let text = match given {
            Some(token) => token,
            None => {
                let made = || Path::new(DATA).join(ADMIN_TOKEN);
                let path = self.token_file.clone().unwrap_or_else(made);
                fs::read_to_string(&path).map_err(|source| RemoteError::Read { path, source })?
            }
        };
        Ok(text.trim().to_owned())
    }
}

/// What a refusal says: each fault of an expression with its caret, or the problem's detail.
pub(crate) fn told(body: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let errors = problem["errors"].as_array().into_iter().flatten();
    let rendered: Vec<&str> = errors.filter_map(|error| error["rendered"].as_str()).collect();
    match (&*rendered, problem["detail"].as_str()) {
        ([], Some(detail)) => detail.to_owned(),
        ([], None) => String::from_utf8_lossy(body).into_owned(),
        (rendered, _) => format!("the expression is wrong\n{}", rendered.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_faults_or_its_detail_or_as_it_came() {
        let faults =
            json!({"detail": "d", "errors": [{"rendered": "one ^"}, {"rendered": "two ^"}]});
        let cases = [
            (faults.to_string(), "the expression is wrong\none ^\ntwo ^"),
            (json!({"detail": "there is no such app"}).to_string(), "there is no such app"),
            ("<html>".to_owned(), "<html>"),
        ];
        for (body, expected) in cases {
            assert_eq!(told(body.as_bytes()), expected);
        }
    }

    #[test]
    fn a_url_is_a_scheme_and_an_authority() {
        let url = |text: &str| {
            let url = Some(text.to_owned());
            Remote { url, token_file: None, ca_file: None }.url().map(|url| url.to_string())
        };
        for good in ["http://localhost:7700", "https://[::1]", "http://10.0.0.1:1/"] {
            assert!(url(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost:7700", "ftp://a", "http://", "http://a/v1", "http://a/?x=1"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
