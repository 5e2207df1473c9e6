//! The state machine on sockets: tokio, hyper and rustls.

mod client;
mod file_store;
mod http;
mod tls;

pub use client::{BuildError, Client, ClientBuilder, Handle, HandleError, Status};
pub use file_store::FileStore;
pub use http::{EdgeUrl, EdgeUrlError, HttpTransport, TransportError};
pub use tls::{ClientTls, TlsError};
