//! Why an edge does not start. Once it runs, it goes on: what fails then is a metric and a line in the log.

use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    #[error("listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("start thread {name}")]
    Thread { name: &'static str, source: std::io::Error },
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// Certificates, keys or authorities that cannot be used.
    #[error("use {what}")]
    Tls { what: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("configuration: {what}")]
    Config { what: &'static str },
    /// A thread of the edge panicked, which is a fault of ours.
    #[error("thread {name} panicked")]
    Panicked { name: String },
}
