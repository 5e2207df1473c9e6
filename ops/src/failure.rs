//! Why the process ends without having done what it was asked for.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use crate::archive::ArchiveError;
use crate::config::Faults;
use crate::data::DataError;
use crate::history::query::QueryError;
use crate::import::ImportError;
use crate::remote::RemoteError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Configuration(#[from] Faults),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    #[error("catch signals")]
    Signals(#[source] io::Error),
    #[error("write to standard output")]
    Output(#[source] io::Error),
    #[error("start central")]
    Central(#[source] carillon_central::CentralError),
    #[error("start the edge")]
    Edge(#[source] carillon_edge::EdgeError),
    #[error("run central")]
    RunCentral(#[source] carillon_central::CentralError),
    #[error("drain central")]
    StopCentral(#[source] carillon_central::CentralError),
    #[error("drain the edge")]
    StopEdge(#[source] carillon_edge::EdgeError),
    #[error("take the history into the lake")]
    Archive(#[source] ArchiveError),
    #[error("ask the history")]
    History(#[source] QueryError),
    #[error("answer operators at {address}")]
    Ops { address: SocketAddr, source: io::Error },
    #[error("a second signal came before all was drained")]
    Hurried,
}

impl Failure {
    /// Prints the whole chain on standard error as one text, and gives the exit code: 2 for a bad
    /// configuration, as for a bad command line, else 1.
    pub(crate) fn report(&self) -> ExitCode {
        let mut text = format!("carillon: {self}");
        let mut source = self.source();
        while let Some(error) = source {
            text += &format!(": {error}");
            source = error.source();
        }
        // Nobody is left to tell if standard error is closed.
        let _ = writeln!(io::stderr(), "{text}");
        match self {
            Self::Configuration(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Prints to standard output.
///
/// # Errors
/// [`Failure::Output`] if it is closed or full.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}
