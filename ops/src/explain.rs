//! `carillon explain`: asks central why a device is a recipient, or is none.
//!
//! A client of the admin API and nothing more: it runs wherever central can be reached, and has no configuration but
//! the address and the token.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

use bytes::Bytes;
use carillon_client::{ClientTls, EdgeUrl, HttpTransport, TlsError, TransportError};
use carillon_world::{AppId, DeviceId, MessageId};
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::failure::{Failure, say};
use crate::tiers::parts::ADMIN_TOKEN;

const URL_VARIABLE: &str = "CARILLON_ADMIN_URL";
const TOKEN_VARIABLE: &str = "CARILLON_ADMIN_TOKEN";

/// Where `up` and `central` make the token unless they are told otherwise.
const DATA: &str = "carillon-data";

/// A large expression for a device with much to look at takes central milliseconds; others may come before.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `carillon explain` can be told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The app.
    #[arg(long, value_name = "ID")]
    app: AppId,
    /// The device.
    #[arg(long, value_name = "ID")]
    device: DeviceId,
    /// The expression to explain.
    #[arg(long, value_name = "EXPRESSION", required_unless_present = "message")]
    to: Option<String>,
    /// The message to explain, in place of an expression.
    #[arg(long, value_name = "ID", conflicts_with = "to")]
    message: Option<MessageId>,
    /// Print the answer's JSON in place of its text.
    #[arg(long)]
    json: bool,
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

/// No explanation came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExplainError {
    #[error("expected http://HOST[:PORT] or https://HOST[:PORT], not {given:?}")]
    Url { given: String },
    #[error("give --ca-file, which an https URL is trusted by")]
    NoAuthority,
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("use {}", path.display())]
    Authority { path: PathBuf, source: TlsError },
    #[error("the token has characters that no header can hold")]
    Token,
    #[error("ask central")]
    Ask(#[source] TransportError),
    #[error("central refused with {status}: {told}")]
    Refused { status: StatusCode, told: String },
}

/// Asks and prints.
///
/// # Errors
/// [`Failure::Explain`] if no explanation came, [`Failure::Output`] if it cannot be printed.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let mut text = runtime.block_on(ask(options))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    say(&text)
}

async fn ask(options: &Options) -> Result<String, ExplainError> {
    let mut http = transport(options)?;
    let token = token(options)?;
    let question = json!({"device": options.device, "to": options.to, "message": options.message});
    let request = Request::builder()
        .method("POST")
        .uri(format!("/v1/apps/{}/audience:explain", options.app))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("accept", if options.json { "application/json" } else { "text/plain" })
        .body(Bytes::from(question.to_string()))
        .map_err(|_| ExplainError::Token)?;
    let answer = http.request(request, PATIENCE).await.map_err(ExplainError::Ask)?;
    if !answer.status().is_success() {
        return Err(ExplainError::Refused { status: answer.status(), told: told(answer.body()) });
    }
    Ok(String::from_utf8_lossy(answer.body()).into_owned())
}

fn transport(options: &Options) -> Result<HttpTransport, ExplainError> {
    let given = options.url.clone().or_else(|| env::var(URL_VARIABLE).ok());
    let given = given.unwrap_or_else(|| "http://127.0.0.1:7700".to_owned());
    let url: EdgeUrl = given.parse().map_err(|_| ExplainError::Url { given })?;
    let tls = match &options.ca_file {
        _ if !url.is_tls() => None,
        None => return Err(ExplainError::NoAuthority),
        Some(path) => {
            let roots = fs::read(path)
                .map_err(|source| ExplainError::Read { path: path.clone(), source })?;
            let tls = ClientTls::with_roots(&roots)
                .map_err(|source| ExplainError::Authority { path: path.clone(), source })?;
            Some(tls)
        }
    };
    Ok(HttpTransport::new(url, tls))
}

fn token(options: &Options) -> Result<String, ExplainError> {
    let given = env::var(TOKEN_VARIABLE).ok().filter(|_| options.token_file.is_none());
    let text = match given {
        Some(token) => token,
        None => {
            let made = || Path::new(DATA).join(ADMIN_TOKEN);
            let path = options.token_file.clone().unwrap_or_else(made);
            fs::read_to_string(&path).map_err(|source| ExplainError::Read { path, source })?
        }
    };
    Ok(text.trim().to_owned())
}

/// What a refusal says: each fault of the expression with its caret, or the problem's detail.
fn told(body: &[u8]) -> String {
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
}
