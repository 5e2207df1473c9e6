//! Why a run ended without a good verdict. Each text is the rest of the line that begins with `demo FAILED:`.

use std::io;

use http::StatusCode;

use crate::failure::Failure;

#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// The verdict itself: what was found, as sentences.
    #[error("missing={missing} extra={extra}: {}", .faults.join("; "))]
    Wrong { missing: u64, extra: u64, faults: Vec<String> },
    #[error("{0}")]
    Options(String),
    #[error(
        "{clients} clients need {needed} open files and this process may have {allowed}; raise the limit (ulimit -n \
         {needed}) or ask for fewer --clients"
    )]
    OpenFiles { clients: u64, needed: u64, allowed: u64 },
    #[error("ended by {0}")]
    Signal(&'static str),
    #[error(transparent)]
    Tiers(#[from] Failure),
    #[error("no port below the ones that the system gives away is free")]
    NoPort,
    #[error("{what}")]
    Io { what: &'static str, source: io::Error },
    #[error("ask central: {method} {path}")]
    Transport { method: &'static str, path: String, source: carillon_client::TransportError },
    #[error("central refuses {method} {path}: {status} {answer}")]
    Refused { method: &'static str, path: String, status: StatusCode, answer: String },
    #[error("central's answer to {path} has no {field}")]
    Answer { path: String, field: &'static str },
    #[error("send the fleet")]
    Import(#[source] hyper::Error),
    #[error("the import kept {kept} of {devices} devices: {report}")]
    Imported { kept: u64, devices: u64, report: String },
    #[error("build a client")]
    Client(#[from] carillon_client::BuildError),
    #[error("trust the development CA")]
    Trust(#[from] carillon_client::TlsError),
    #[error("after {seconds} s, {what}")]
    Patience { seconds: u64, what: String },
    #[error("{0} ended by itself")]
    Panicked(&'static str),
}

impl DemoError {
    /// For `map_err`.
    pub(super) fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// The text with all that caused it.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text += &format!(": {error}");
            source = error.source();
        }
        text
    }
}
