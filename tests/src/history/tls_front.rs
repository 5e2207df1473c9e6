//! TLS before a broker that has none.

use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::providers::tls;

#[derive(Debug)]
pub struct TlsFront {
    address: SocketAddr,
    folder: TempDir,
    server: JoinHandle<()>,
}

impl TlsFront {
    /// Passes on to `target` what it decrypts, on each connection.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(target: SocketAddr) -> TlsFront {
        // Another test of the process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a folder");
        let config = tls::server_config(folder.path(), vec!["127.0.0.1".to_owned()], &[]);
        let acceptor = TlsAcceptor::from(config.expect("a certificate"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Who does not trust it goes away, and so may anybody at any time.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let Ok(mut target) = TcpStream::connect(target).await else { return };
                    let _ = copy_bidirectional(&mut stream, &mut target).await;
                });
            }
        });
        TlsFront { address, folder, server }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The authority that vouches for it, as PEM.
    pub fn ca(&self) -> PathBuf {
        tls::ca_path(self.folder.path())
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.server.abort();
    }
}
